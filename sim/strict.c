/* SPDX-License-Identifier: MIT */
/*
 * strict.c: linearizability of all words together, whole operations among them: what
 * MKW_ATOMIC_WRITES promises (G1's strict form).
 *
 * The history is one of an array of words. A write by a call, a punch, a truncation change
 * all of their words at one instant; a load or a store is of one word; a read by a call
 * is that many reads of one word (that it is whole among the calls, history.c judges).
 * Is there an order, one that respects time, in which every read shows what was
 * written last, and which ends with what the disk has in the end?
 *
 * The search is history.c's: a read that shows what is there is taken at once, so it
 * branches on writes only; a set of visited states (what was taken, and a hash of the
 * words: a collision, of 64 bits, would be a false alarm) keeps it short.
 */
#include "sim/strict.h"

#include <stdio.h>
#include <string.h>

#include "sim/history.h"
#include "sim/machine.h"

#define OPS_MAX 64u
#define WORDS_MAX 64u
#define SEEN_SIZE 4096u	/* a power of two */

struct op {
	const char *task, *what;
	uint64_t start, end, step;
	bool write;
	unsigned n;
	uint16_t word[WORDS_MAX];
	uint64_t value[WORDS_MAX];
};

static bool on;
static unsigned word_count, op_count;
static uint64_t initial[WORDS_MAX], words[WORDS_MAX], hash;
static const uint64_t *final;
static struct op ops[OPS_MAX];
static struct seen {
	uint64_t left, hash, round;
} seen[SEEN_SIZE];
static uint64_t seen_round;
static unsigned seen_count;

/* Writes that had not ended when the history is cut off: they may have happened. */
static uint64_t maybe;

void sim_strict_reset(void)
{
	on = false;
	op_count = 0;
}

void sim_strict_begin(unsigned n, const uint64_t *first)
{
	if (n > WORDS_MAX)
		sim_violation("scenario: %u words, of which %u at most can be judged together",
			      n, WORDS_MAX);
	on = true;
	word_count = n;
	memcpy(initial, first, n * sizeof(*first));
}

void sim_strict_stop(void)
{
	on = false;
}

bool sim_strict_is_on(void)
{
	return on;
}

/* The operation that these words belong to, if they are to change together. */
static struct op *whole_of(const struct sim_op *part)
{
	for (unsigned i = op_count; i-- > 0;)
		if (part->whole && part->write && ops[i].write &&
		    ops[i].start == part->start)
			return &ops[i];
	return NULL;
}

void sim_strict_add(unsigned word, const struct sim_op *part)
{
	struct op *op;

	if (!on || word >= word_count)
		return;
	if (part->maybe)
		sim_violation("scenario: what is judged together may not fail");
	op = whole_of(part);
	if (!op) {
		if (op_count == OPS_MAX)
			sim_violation("scenario: more than %u operations, too many to be judged together",
				      OPS_MAX);
		op = &ops[op_count++];
		op->task = part->task;
		op->what = part->what;
		op->start = part->start;
		op->end = part->end;
		op->step = part->step;
		op->write = part->write;
		op->n = 0;
	}
	op->word[op->n] = (uint16_t)word;
	op->value[op->n++] = part->value;
}

/* ---- the search ---------------------------------------------------------- */

static uint64_t mix(unsigned word, uint64_t value)
{
	uint64_t h = (value + 1) * 0x9e3779b97f4a7c15u + word;

	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9u;
	h ^= h >> 32;
	h *= 0x94d049bb133111ebu;
	return h ^ h >> 29;
}

static void set(unsigned word, uint64_t value)
{
	hash += mix(word, value) - mix(word, words[word]);
	words[word] = value;
}

static bool shows(const struct op *op)
{
	for (unsigned i = 0; i < op->n; i++)
		if (words[op->word[i]] != op->value[i])
			return false;
	return true;
}

/* True the first time that a state is met (or when the set is full). */
static bool new_state(uint64_t left)
{
	if (seen_count > SEEN_SIZE / 2)
		return true;
	for (uint64_t i = (left * 0x9e3779b97f4a7c15u ^ hash) >> 40;; i++) {
		struct seen *s = &seen[i & (SEEN_SIZE - 1)];

		if (s->round == seen_round && s->left == left && s->hash == hash)
			return false;
		if (s->round != seen_round) {
			*s = (struct seen){ left, hash, seen_round };
			seen_count++;
			return true;
		}
	}
}

/* Of those left, what could be next, and whether anything must be. */
static uint64_t candidates(uint64_t left, bool *must)
{
	uint64_t first_end = UINT64_MAX, can = 0;

	*must = false;
	for (uint64_t l = left; l; l &= l - 1) {
		int i = __builtin_ctzll(l);

		if (maybe >> i & 1)
			continue;
		*must = true;
		if (ops[i].end < first_end)
			first_end = ops[i].end;
	}
	for (uint64_t l = left; l; l &= l - 1)
		if (ops[__builtin_ctzll(l)].start < first_end)
			can |= l & -l;
	return can;
}

static bool ends_well(void)
{
	for (unsigned w = 0; final && w < word_count; w++)
		if (words[w] != final[w])
			return false;
	return true;
}

static bool search(uint64_t left)
{
	uint64_t old[WORDS_MAX], can;
	bool must, found;

	for (;;) {
		uint64_t reads = 0;

		can = candidates(left, &must);
		if (!must && ends_well())
			return true;
		for (uint64_t c = can; c; c &= c - 1) {
			const struct op *op = &ops[__builtin_ctzll(c)];

			if (!op->write && shows(op))
				reads |= c & -c;
		}
		left &= ~reads;
		if (!reads)
			break;
	}
	if (!new_state(left))
		return false;
	for (uint64_t c = can; c; c &= c - 1) {
		const struct op *op = &ops[__builtin_ctzll(c)];

		if (!op->write)
			continue;
		for (unsigned k = 0; k < op->n; k++) {
			old[k] = words[op->word[k]];
			set(op->word[k], op->value[k]);
		}
		found = search(left & ~(c & -c));
		for (unsigned k = 0; k < op->n; k++)
			set(op->word[k], old[k]);
		if (found)
			return true;
	}
	return false;
}

/* Is there an order of what ended by `until`? Writes under way may help. */
static bool possible(uint64_t until)
{
	uint64_t left = 0;

	maybe = 0;
	for (unsigned i = 0; i < op_count; i++) {
		if (ops[i].start > until || (!ops[i].write && ops[i].end > until))
			continue;
		left |= (uint64_t)1 << i;
		maybe |= (uint64_t)(ops[i].end > until) << i;
	}
	hash = 0;
	for (unsigned w = 0; w < word_count; w++) {
		words[w] = initial[w];
		hash += mix(w, words[w]);
	}
	seen_round++;
	seen_count = 0;
	return search(left);
}

static _Noreturn void blame(const uint64_t *end)
{
	char text[1800];
	unsigned bad = op_count;
	size_t at = 0;

	final = NULL;
	for (unsigned i = 0; i < op_count; i++)
		if ((bad == op_count || ops[i].end < ops[bad].end) &&
		    !possible(ops[i].end))
			bad = i;
	text[0] = 0;
	for (unsigned i = 0; i < op_count && at < sizeof(text) - 160; i++) {
		const struct op *op = &ops[i];

		at += (size_t)snprintf(text + at, sizeof(text) - at,
				       "\n %c %-9s %-12s words %u..%u %s %llx  ticks %llu..%llu (ended at step %llu)",
				       i == bad ? '*' : ' ', op->task, op->what,
				       op->word[0], op->word[op->n - 1],
				       op->write ? "wrote" : "read ",
				       (unsigned long long)op->value[0],
				       (unsigned long long)op->start,
				       (unsigned long long)op->end,
				       (unsigned long long)op->step);
	}
	for (unsigned w = 0; bad == op_count && w < word_count &&
			     at < sizeof(text) - 40; w++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%llx",
				       w ? " " : "\n in the end: ",
				       (unsigned long long)end[w]);
	sim_violation("no order of whole operations, loads and stores explains the history; %s:%s",
		      bad < op_count ? "* cannot be" : "the words cannot end so", text);
}

void sim_strict_judge(const uint64_t *end)
{
	if (!op_count)
		return;
	final = end;
	if (!possible(UINT64_MAX - 1))
		blame(end);
}
