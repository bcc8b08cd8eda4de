/* SPDX-License-Identifier: MIT */
/*
 * test_judge.c: the judge of mkwrite check, against trying every order.
 *
 * random_histories   small random histories, most of them nearly right: the
 *                    judge finds something exactly where no order of the
 *                    operations explains them (Wing and Gong's search)
 * and one planted history for each fault, which has to be named rightly, with
 * the operations concerned; and that one fault does not hide the next.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "check/judge.h"

#define OPS_MAX 8
#define HISTORIES 200000

static uint64_t rng_state = 1;

static uint64_t rng(void)
{
	uint64_t z = (rng_state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static unsigned below(unsigned n)
{
	return (unsigned)(rng() % n);
}

/* ---- every order ------------------------------------------------------- */

/* Can the operations that are not in 'done' be put in an order from here on? */
static bool explains(const struct judge_op *ops, unsigned n, unsigned done,
		     uint64_t value)
{
	uint64_t first_end = UINT64_MAX;
	bool left = false;

	for (unsigned i = 0; i < n; i++) {
		if (done & (1u << i) || ops[i].type == JUDGE_MAYBE)
			continue;
		left = true;
		if (ops[i].end < first_end)
			first_end = ops[i].end;
	}
	if (!left)
		return true;
	for (unsigned i = 0; i < n; i++) {
		uint64_t next = value;

		if (done & (1u << i) || ops[i].start > first_end)
			continue;
		if (ops[i].type != JUDGE_READ)
			next = ops[i].value;
		else if (ops[i].value != value)
			continue;
		if (explains(ops, n, done | (1u << i), next))
			return true;
	}
	return false;
}

/*
 * A history that some order explains, unless a few reads are then given other
 * values. Times come from a small range, so that there are ties.
 */
static unsigned make_history(struct judge_op *ops, uint64_t *initial)
{
	unsigned n = 1 + below(OPS_MAX), zeros = below(4), order[OPS_MAX];
	unsigned span = 3 + below(40), wide = 1 + below(9);
	uint64_t at[OPS_MAX], value;

	*initial = below(2) ? 1000 : 0;
	for (unsigned i = 0; i < n; i++) {
		uint64_t before = below(wide), after = below(wide);

		at[i] = 10 + below(span);
		order[i] = i;
		ops[i] = (struct judge_op){
			.start = at[i] - before,
			.end = at[i] + after,
			.id = i,
			.type = (uint8_t)(below(2) ? JUDGE_READ :
					  below(8) ? JUDGE_WRITE : JUDGE_MAYBE),
		};
		if (ops[i].type != JUDGE_READ)
			ops[i].value = below(4) < zeros ? 0 : 1 + i;
	}
	for (unsigned i = 1; i < n; i++)
		for (unsigned k = i; k && at[order[k]] < at[order[k - 1]]; k--) {
			unsigned swap = order[k];

			order[k] = order[k - 1];
			order[k - 1] = swap;
		}
	value = *initial;
	for (unsigned i = 0; i < n; i++) {
		struct judge_op *op = &ops[order[i]];

		if (op->type == JUDGE_READ)
			op->value = value;
		else if (op->type == JUDGE_WRITE || below(2))
			value = op->value;
	}
	for (unsigned i = below(4); i > 0; i--) {
		struct judge_op *op = &ops[below(n)];

		if (op->type == JUDGE_READ)
			op->value = below(16) ? ops[below(n)].value :
				    below(2) ? 0 : 77;
	}
	return n;
}

static void print_history(const struct judge_op *ops, unsigned n,
			  uint64_t initial)
{
	static const char *const types[] = { "read", "write", "maybe" };

	print_message("initial %ju\n", (uintmax_t)initial);
	for (unsigned i = 0; i < n; i++)
		print_message("%-5s %4ju in [%ju, %ju]\n", types[ops[i].type],
			      (uintmax_t)ops[i].value, (uintmax_t)ops[i].start,
			      (uintmax_t)ops[i].end);
}

static void random_histories(void **state)
{
	struct judge *j = mkw__judge_new();
	unsigned right = 0, wrong = 0;

	(void)state;
	assert_non_null(j);
	for (unsigned i = 0; i < HISTORIES; i++) {
		struct judge_op ops[OPS_MAX], copy[OPS_MAX];
		uint64_t initial;
		unsigned n;
		bool fine;
		int found;

		rng_state = i;
		n = make_history(ops, &initial);
		memcpy(copy, ops, sizeof(ops));
		fine = explains(ops, n, 0, initial);
		found = mkw__judge_word(j, initial, ops, n, NULL, NULL);
		if (fine)
			right++;
		else
			wrong++;
		if (fine != (found == 0)) {
			print_history(copy, n, initial);
			fail_msg("history %u: the judge has %d findings, the "
				 "search %s", i, found,
				 fine ? "explains it" : "does not explain it");
		}
	}
	mkw__judge_free(j);
	/* Both directions were tried often enough to mean something. */
	assert_true(right > HISTORIES / 4);
	assert_true(wrong > HISTORIES / 16);
	print_message("%u histories explained, %u not\n", right, wrong);
}

/* ---- planted histories -------------------------------------------------- */

struct seen {
	unsigned n;
	struct judge_finding f[8];
};

static void see(void *arg, const struct judge_finding *f)
{
	struct seen *seen = arg;

	assert_true(seen->n < 8);
	seen->f[seen->n++] = *f;
}

static struct seen judge(uint64_t initial, struct judge_op *ops, unsigned n)
{
	struct judge *j = mkw__judge_new();
	struct seen seen = { .n = 0 };
	int findings;

	assert_non_null(j);
	for (unsigned i = 0; i < n; i++)
		ops[i].id = i;
	findings = mkw__judge_word(j, initial, ops, n, see, &seen);
	assert_int_equal(findings, seen.n);
	mkw__judge_free(j);
	return seen;
}

#define R(v, from, to) { .type = JUDGE_READ, .value = (v), .start = (from), \
			 .end = (to) }
#define W(v, from, to) { .type = JUDGE_WRITE, .value = (v), .start = (from), \
			 .end = (to) }
#define M(v, from, to) { .type = JUDGE_MAYBE, .value = (v), .start = (from), \
			 .end = (to) }
#define JUDGE(initial, ...) \
	judge(initial, (struct judge_op[]){ __VA_ARGS__ }, \
	      sizeof((struct judge_op[]){ __VA_ARGS__ }) / \
	      sizeof(struct judge_op))

static void assert_one(struct seen seen, enum judge_fault fault,
		       uint32_t write, uint32_t read)
{
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.f[0].fault, fault);
	assert_int_equal(seen.f[0].write, write);
	assert_int_equal(seen.f[0].read, read);
}

static void faultless(void **state)
{
	(void)state;
	assert_int_equal(JUDGE(0, R(0, 1, 2)).n, 0);
	assert_int_equal(JUDGE(5, R(5, 1, 2), W(0, 3, 4), R(0, 5, 6)).n, 0);
	/* One zero between two values, the values' order open. */
	assert_int_equal(JUDGE(0, W(1, 1, 9), W(2, 2, 8), W(0, 3, 7),
			       R(1, 4, 5), R(0, 4, 6), R(2, 4, 6)).n, 0);
	/* A failed write that shows late, a failed zero that shows late. */
	assert_int_equal(JUDGE(0, M(1, 1, 2), R(0, 3, 4), R(1, 5, 6)).n, 0);
	assert_int_equal(JUDGE(3, M(0, 1, 2), R(3, 3, 4), R(0, 5, 6)).n, 0);
}

static void lost_writes(void **state)
{
	(void)state;
	/* Old value for good. */
	assert_one(JUDGE(0, W(1, 1, 2), W(2, 3, 4), R(2, 5, 6), R(1, 7, 8)),
		   JUDGE_LOST, 1, 3);
	/* Never seen at all. */
	assert_one(JUDGE(9, R(9, 1, 2), W(2, 3, 4), R(9, 7, 8)),
		   JUDGE_LOST, 1, 2);
	/* Zeros where nothing wrote zero. */
	assert_one(JUDGE(0, W(1, 1, 2), R(1, 3, 4), R(0, 5, 6)),
		   JUDGE_LOST, 0, 2);
	/* Not the write that goes on, and may yet come after the read. */
	assert_one(JUDGE(0, W(1, 1, 2), W(2, 1, 9), R(0, 5, 6)),
		   JUDGE_LOST, 0, 2);
	/* Nor one that may have gone before the zero. */
	assert_one(JUDGE(0, W(1, 1, 9), W(0, 2, 3), W(2, 5, 6), R(0, 11, 12)),
		   JUDGE_LOST, 2, 3);
	assert_one(JUDGE(0, W(1, 1, 9), W(0, 2, 3), W(2, 4, 7), R(2, 5, 6),
			 R(0, 11, 12)),
		   JUDGE_LOST, 2, 4);
	/* One zero for two such reads: the one before which a single write went. */
	assert_one(JUDGE(0, W(0, 1, 90), W(1, 3, 4), R(0, 5, 6), W(2, 7, 8),
			 R(2, 9, 10), W(3, 11, 12), R(3, 13, 14), R(0, 91, 92)),
		   JUDGE_LOST, 1, 2);
	/* Two writes went before a read: one is named. */
	assert_one(JUDGE(0, W(1, 1, 2), R(1, 3, 4), W(2, 5, 6), R(2, 7, 8),
			 R(0, 9, 10)),
		   JUDGE_LOST, 2, 4);
	assert_one(JUDGE(9, R(0, 5, 6)), JUDGE_LOST, JUDGE_INITIAL, 0);
	/* A zero that failed can explain one such change, not two. */
	assert_one(JUDGE(0, W(1, 1, 2), M(0, 3, 4), R(0, 5, 6), W(2, 7, 8),
			 R(0, 9, 10)),
		   JUDGE_LOST, 3, 4);
}

static void stale_reads(void **state)
{
	(void)state;
	assert_one(JUDGE(0, W(1, 1, 2), W(2, 3, 4), R(1, 5, 6), R(2, 7, 8)),
		   JUDGE_STALE, 1, 2);
	/* A stale zero. */
	assert_one(JUDGE(0, W(1, 1, 2), R(0, 3, 4), R(1, 5, 6)),
		   JUDGE_STALE, 0, 1);
}

static void resurrected_data(void **state)
{
	(void)state;
	assert_one(JUDGE(0, W(1, 1, 2), W(0, 3, 4), R(1, 5, 6)),
		   JUDGE_RESURRECTED, 1, 2);
	assert_one(JUDGE(4, W(0, 3, 4), R(0, 5, 6), R(4, 7, 8), R(4, 9, 10)),
		   JUDGE_RESURRECTED, 0, 2);
}

static void values_from_nowhere(void **state)
{
	(void)state;
	assert_one(JUDGE(0, R(7, 1, 2)), JUDGE_NEVER_WRITTEN, JUDGE_INITIAL,
		   0);
	assert_one(JUDGE(0, R(7, 1, 2), W(7, 3, 4)), JUDGE_FUTURE, 1, 0);
}

/* Two faults in one word are both found; their order is the judge's. */
static void several(void **state)
{
	struct seen seen;

	(void)state;
	seen = JUDGE(0, W(1, 1, 2), W(2, 3, 4), R(1, 5, 6), W(3, 7, 8),
		     W(4, 9, 10), R(3, 11, 12), R(99, 13, 14));
	assert_int_equal(seen.n, 3);
}

/* A million operations and more per second (reported; no limit is asserted). */
static void speed(void **state)
{
	enum { N = 2000, ROUNDS = 200 };
	struct judge *j = mkw__judge_new();
	struct judge_op *ops = calloc(N, sizeof(*ops));
	struct timespec a, b;
	double s;

	(void)state;
	assert_non_null(j);
	assert_non_null(ops);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned r = 0; r < ROUNDS; r++) {
		uint64_t value = 0;

		for (unsigned i = 0; i < N; i++) {
			ops[i] = (struct judge_op){
				.start = 10 * i + 10 - below(8),
				.end = 10 * i + 10 + below(25),
				.type = below(3) ? JUDGE_READ : JUDGE_WRITE,
			};
			if (ops[i].type == JUDGE_WRITE)
				value = below(5) ? i + 1 : 0;
			ops[i].value = value;
		}
		assert_int_equal(mkw__judge_word(j, 0, ops, N, NULL, NULL), 0);
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	s = (double)(b.tv_sec - a.tv_sec) +
	    (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	print_message("%.1f million operations per second\n",
		      (double)N * ROUNDS / s / 1e6);
	free(ops);
	mkw__judge_free(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_histories),
		cmocka_unit_test(faultless),
		cmocka_unit_test(lost_writes),
		cmocka_unit_test(stale_reads),
		cmocka_unit_test(resurrected_data),
		cmocka_unit_test(values_from_nowhere),
		cmocka_unit_test(several),
		cmocka_unit_test(speed),
	};

	return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
