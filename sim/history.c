/* SPDX-License-Identifier: MIT */
/*
 * history.c: exact linearizability of a register, by search.
 *
 * Operations are taken one by one in an order that respects time: the next one
 * must have started before any that is left ended. A read that shows the
 * current value can be taken at once, whatever else is possible: moving it
 * forward to here in an order that works gives another that works. So the
 * search branches on writes only, of which a handful overlap; a set of visited
 * states (operations taken, value) keeps a hopeless search short.
 *
 * Whole operations. A read that saw X in one word and Y in the next, where both
 * are of writes that cover both words, would need X after Y and Y after X; and one
 * that saw X next to what was over before X began would need X twice. Zeros,
 * of which nobody knows whose they are, are left out.
 *
 * A write that failed may be taken or left out, but not taken later than it ended. When
 * there is no order, the blame goes to the earliest-ending operation without which (and
 * without all that ended later) there would be one.
 */
#include "sim/history.h"

#include <stdio.h>
#include <string.h>

#include "sim/machine.h"
#include "sim/strict.h"

#define SEEN_SIZE 4096u	/* a power of two */

struct intent {
	uint64_t value, start;
};

static struct {
	struct sim_op ops[SIM_OPS_MAX];
	unsigned count;
	uint64_t initial;
	struct intent intents[SIM_OPS_MAX];
	unsigned intent_count;
} words[SIM_WORDS_MAX];
static unsigned word_count;
static uint64_t ticks, whole_start;

static struct seen {
	uint64_t mask, value, round;
} seen[SEEN_SIZE];
static uint64_t seen_round;
static unsigned seen_count;

void sim_history_reset(unsigned n, const uint64_t *initial)
{
	for (unsigned w = 0; w < n; w++) {
		words[w].count = 0;
		words[w].intent_count = 0;
		words[w].initial = initial ? initial[w] : 0;
	}
	word_count = n;
	ticks = 0;
	whole_start = 0;
	sim_strict_reset();
}

void sim_history_whole(uint64_t start)
{
	whole_start = start;
}

uint64_t sim_tick(void)
{
	return ++ticks;
}

/* Judged together, all words have one. */
static unsigned clock_of(unsigned word)
{
	return sim_strict_is_on() ? 0 : word;
}

uint64_t sim_history_begin(unsigned word, unsigned n)
{
	for (unsigned i = word; sim_recording && i < word + n; i++)
		sim_touch(SIM_O_CLOCK, NULL, clock_of(i), SIM_READ);
	return sim_tick();
}

void sim_history_add(unsigned word, const char *what, bool write,
		     uint64_t value, uint64_t start, bool maybe)
{
	if (word >= word_count)
		return;
	sim_touch(SIM_O_CLOCK, NULL, clock_of(word), SIM_ADD);
	if (words[word].count == SIM_OPS_MAX)
		sim_violation("scenario: more than %u operations on word %u",
			      SIM_OPS_MAX, word);
	words[word].ops[words[word].count++] = (struct sim_op){
		.task = sim_task_self()->name, .what = what, .start = start,
		.end = sim_tick(), .step = sim_now(),
		.value = value, .write = write, .maybe = maybe,
		.whole = start == whole_start,
	};
	sim_strict_add(word, &words[word].ops[words[word].count - 1]);
}

void sim_history_intend(unsigned word, uint64_t value)
{
	if (word >= word_count)
		return;
	if (words[word].intent_count == SIM_OPS_MAX)
		sim_violation("scenario: more than %u writes of word %u",
			      SIM_OPS_MAX, word);
	words[word].intents[words[word].intent_count++] =
		(struct intent){ value, sim_tick() };
}

/*
 * Was something else written for sure after what began at `start` (0: the first value)
 * had ended, and before `by`? Where several may be meant, the one that ended last is.
 */
static bool gone(unsigned word, uint64_t value, uint64_t start, uint64_t by)
{
	uint64_t end = 0;
	bool ended = !start;

	for (unsigned i = 0; start && i < words[word].count; i++) {
		const struct sim_op *op = &words[word].ops[i];

		if (!op->write || op->value != value || op->start > start ||
		    op->end < start)
			continue;
		ended = true;
		if (op->end > end)
			end = op->end;
	}
	if (!ended)
		return false;
	for (unsigned i = 0; i < words[word].count; i++) {
		const struct sim_op *op = &words[word].ops[i];

		if (op->write && !op->maybe && op->start > end && op->end < by)
			return true;
	}
	return false;
}

bool sim_history_may_survive(unsigned word, uint64_t value, uint64_t sync_start)
{
	if (word >= word_count ||
	    (value == words[word].initial && !gone(word, value, 0, sync_start)))
		return true;
	for (unsigned i = 0; i < words[word].intent_count; i++)
		if (words[word].intents[i].value == value &&
		    !gone(word, value, words[word].intents[i].start, sync_start))
			return true;
	return false;
}

/* True the first time that a state is met (or when the set is full). */
static bool new_state(uint64_t mask, uint64_t value)
{
	uint64_t h = (mask * 0x9e3779b97f4a7c15u) ^ (value * 0xff51afd7ed558ccdu);

	if (seen_count > SEEN_SIZE / 2)
		return true;
	for (unsigned i = (unsigned)(h >> 40);; i++) {
		struct seen *s = &seen[i & (SEEN_SIZE - 1)];

		if (s->round == seen_round && s->mask == mask &&
		    s->value == value)
			return false;
		if (s->round != seen_round) {
			*s = (struct seen){ mask, value, seen_round };
			seen_count++;
			return true;
		}
	}
}

/* Operations of 'all' that could be the next one, and whether any must be. */
static uint64_t candidates(const struct sim_op *ops, uint64_t left, bool *must)
{
	uint64_t first_end = UINT64_MAX, can = 0;

	*must = false;
	for (uint64_t l = left; l; l &= l - 1) {
		const struct sim_op *op = &ops[__builtin_ctzll(l)];

		if (op->maybe)
			continue;
		*must = true;
		if (op->end < first_end)
			first_end = op->end;
	}
	for (uint64_t l = left; l; l &= l - 1)
		if (ops[__builtin_ctzll(l)].start < first_end)
			can |= l & -l;
	return can;
}

/* Is there a write left that failed before that time? It goes first, or never. */
static bool failed_before(const struct sim_op *ops, uint64_t left, uint64_t start)
{
	for (uint64_t l = left; l; l &= l - 1) {
		const struct sim_op *op = &ops[__builtin_ctzll(l)];

		if (op->maybe && op->end < start)
			return true;
	}
	return false;
}

/*
 * latest: the latest start of those taken. A write that failed, and had ended by
 * then, has had its chance.
 */
static bool search(const struct sim_op *ops, uint64_t left, uint64_t value,
		   uint64_t latest)
{
	uint64_t can, reads;
	bool must;

	do {
		can = candidates(ops, left, &must);
		if (!must)
			return true;
		reads = 0;
		for (uint64_t c = can; c; c &= c - 1) {
			const struct sim_op *op = &ops[__builtin_ctzll(c)];

			if (op->write || op->value != value ||
			    failed_before(ops, left, op->start))
				continue;
			reads |= c & -c;
			if (op->start > latest)
				latest = op->start;
		}
		left &= ~reads;
	} while (reads);
	if (!new_state(left, value))
		return false;
	for (uint64_t c = can; c; c &= c - 1) {
		int i = __builtin_ctzll(c);

		if (ops[i].write ? ops[i].maybe && ops[i].end < latest :
				   ops[i].value != value)
			continue;
		if (search(ops, left & ~(c & -c), ops[i].value,
			   ops[i].start > latest ? ops[i].start : latest))
			return true;
	}
	return false;
}

/* Is there an order of those that ended by 'until'? Later ones may help. */
static bool possible(const struct sim_op *ops, unsigned n, uint64_t initial,
		     uint64_t until)
{
	struct sim_op some[SIM_OPS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		if (ops[i].start > until || (!ops[i].write && ops[i].end > until))
			continue;
		some[count] = ops[i];
		if (ops[i].end > until)
			some[count].maybe = true;
		count++;
	}
	seen_round++;
	seen_count = 0;
	return search(some, count == 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1,
		      initial, 0);
}

int sim_history_check(const struct sim_op *ops, unsigned n, uint64_t initial)
{
	int bad = -1;

	if (possible(ops, n, initial, UINT64_MAX - 1))
		return -1;
	for (unsigned i = 0; i < n; i++)
		if (!ops[i].maybe && (bad < 0 || ops[i].end < ops[bad].end) &&
		    !possible(ops, n, initial, ops[i].end))
			bad = (int)i;
	return bad;
}

static _Noreturn void blame(unsigned w, unsigned bad)
{
	char text[1800];
	size_t at = 0;

	text[0] = 0;
	for (unsigned i = 0; i < words[w].count && at < sizeof(text) - 160; i++) {
		const struct sim_op *op = &words[w].ops[i];

		at += (size_t)snprintf(text + at, sizeof(text) - at,
				       "\n %c %-9s %-12s %s %llx  ticks %llu..%lld (ended at step %llu)",
				       i == bad ? '*' : ' ', op->task, op->what,
				       op->write ? "wrote" : "read ",
				       (unsigned long long)op->value,
				       (unsigned long long)op->start,
				       op->end == UINT64_MAX ? -1 : (long long)op->end,
				       (unsigned long long)op->step);
	}
	sim_violation("word %u (was %llx) has a history that no order explains; * cannot be:%s",
		      w, (unsigned long long)words[w].initial, text);
}

/* The operation of that start on the word, or NULL. */
static const struct sim_op *part_of(unsigned w, uint64_t start, bool write)
{
	for (unsigned i = 0; i < words[w].count; i++)
		if (words[w].ops[i].start == start &&
		    words[w].ops[i].write == write)
			return &words[w].ops[i];
	return NULL;
}

/* Who wrote the value; NULL: the word began with it, or it is nobody's. */
static const struct sim_op *writer(unsigned w, uint64_t value)
{
	for (unsigned i = 0; value && i < words[w].count; i++)
		if (words[w].ops[i].write && words[w].ops[i].value == value)
			return &words[w].ops[i];
	return NULL;
}

static bool covers(const struct sim_op *x, unsigned w)
{
	const struct sim_op *part = x->whole && !x->maybe ?
					    part_of(w, x->start, true) : NULL;

	return part && !part->maybe;
}

/*
 * x was seen in one word and, by the same read, y in w, which x covers; y's own
 * word is the other. Can that not be?
 */
static bool torn(const struct sim_op *x, const struct sim_op *y, unsigned w,
		 unsigned other)
{
	return covers(x, w) && (!y || y->end < x->start || covers(y, other));
}

/* Of a whole read, two neighbouring words. */
static void judge_pair(unsigned w, const struct sim_op *a)
{
	const struct sim_op *b = part_of(w + 1, a->start, false);
	const struct sim_op *x, *y;

	if (!b || !b->whole || !a->value || !b->value)
		return;
	x = writer(w, a->value);
	y = writer(w + 1, b->value);
	if (x == y || (x && y && x->start == y->start) ||
	    !((x && torn(x, y, w + 1, w)) || (y && torn(y, x, w, w + 1))))
		return;
	sim_violation("no order of whole operations explains a %s by %s, ticks %llu..%llu: word %u is %llx (%s, ticks %llu..%llu), word %u is %llx (%s, ticks %llu..%llu)",
		      a->what, a->task, (unsigned long long)a->start,
		      (unsigned long long)b->end, w,
		      (unsigned long long)a->value, x ? x->what : "as at first",
		      x ? (unsigned long long)x->start : 0,
		      x ? (unsigned long long)x->end : 0, w + 1,
		      (unsigned long long)b->value, y ? y->what : "as at first",
		      y ? (unsigned long long)y->start : 0,
		      y ? (unsigned long long)y->end : 0);
}

void sim_history_judge(void)
{
	for (unsigned w = 0; w < word_count; w++) {
		int bad = sim_history_check(words[w].ops, words[w].count,
					    words[w].initial);

		if (bad >= 0)
			blame(w, (unsigned)bad);
	}
	for (unsigned w = 0; w + 1 < word_count; w++)
		for (unsigned i = 0; i < words[w].count; i++)
			if (words[w].ops[i].whole && !words[w].ops[i].write)
				judge_pair(w, &words[w].ops[i]);
}
