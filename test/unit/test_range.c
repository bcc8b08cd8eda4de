/* SPDX-License-Identifier: MIT */
/*
 * The range lock: who is granted, in which order, and that the rank checker sees
 * it. Requests are made as tickets on one thread, so the order is exact; then
 * many threads hold it to its word.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sync/sync.h"

/* The order in which queued requests were granted. */
static struct mkw__range_req *order[16];
static unsigned granted;

static void on_granted(struct mkw__range_req *req)
{
	order[granted++] = req;
}

static int setup(void **state)
{
	static struct mkw__range_lock rl;

	mkw__range_init(&rl, MKW__RANK_IOLOCK);
	granted = 0;
	*state = &rl;
	return 0;
}

static bool ask(struct mkw__range_lock *rl, struct mkw__range_req *req,
		uint64_t start, uint64_t end, bool exclusive)
{
	return mkw__range_enqueue(rl, req, start, end, exclusive, on_granted);
}

static void test_shared_and_exclusive(void **state)
{
	struct mkw__range_lock *rl = *state;
	struct mkw__range_req a, b, c, d;

	assert_true(ask(rl, &a, 0, 10, false));
	assert_true(ask(rl, &b, 5, 15, false));
	assert_true(ask(rl, &c, 15, 20, true));	/* touches, does not overlap */
	assert_false(ask(rl, &d, 9, 10, true));
	mkw__range_unlock_ticket(rl, &a);
	assert_int_equal(granted, 0);
	mkw__range_unlock_ticket(rl, &c);
	assert_int_equal(granted, 0);
	mkw__range_unlock_ticket(rl, &b);
	assert_int_equal(granted, 1);
	assert_ptr_equal(order[0], &d);
	mkw__range_unlock_ticket(rl, &d);
}

/* A waiting writer is not overtaken by readers that overlap it. */
static void test_fifo(void **state)
{
	struct mkw__range_lock *rl = *state;
	struct mkw__range_req r1, w, r2, r3, far;

	assert_true(ask(rl, &r1, 0, 10, false));
	assert_false(ask(rl, &w, 5, 20, true));
	assert_false(ask(rl, &r2, 15, 16, false));
	assert_false(mkw__range_trylock_ticket(rl, &r3, 5, 6, false));
	assert_true(ask(rl, &far, 30, 40, true));
	assert_true(mkw__range_trylock_ticket(rl, &r3, 0, 5, false));
	mkw__range_unlock_ticket(rl, &r1);
	assert_int_equal(granted, 1);
	assert_ptr_equal(order[0], &w);
	mkw__range_unlock_ticket(rl, &w);
	assert_int_equal(granted, 2);
	assert_ptr_equal(order[1], &r2);
	mkw__range_unlock_ticket(rl, &r2);
	mkw__range_unlock_ticket(rl, &r3);
	mkw__range_unlock_ticket(rl, &far);
}

/* Going ahead passes those who wait, never those who hold. */
static void test_ahead(void **state)
{
	struct mkw__range_lock *rl = *state;
	struct mkw__range_req r, w, ahead, other;

	assert_true(ask(rl, &r, 0, 10, false));
	assert_false(ask(rl, &w, 0, 20, true));
	assert_false(mkw__range_trylock_ticket(rl, &ahead, 15, 16, false));
	assert_true(mkw__range_trylock_ahead(rl, &ahead, 15, 16, false));
	assert_false(mkw__range_trylock_ahead(rl, &other, 5, 6, true));
	mkw__range_unlock_ticket(rl, &r);
	assert_int_equal(granted, 0);
	mkw__range_unlock_ticket(rl, &ahead);
	assert_int_equal(granted, 1);
	assert_ptr_equal(order[0], &w);
	mkw__range_unlock_ticket(rl, &w);
}

/* One release grants everyone whom nothing else keeps. */
static void test_grants_many(void **state)
{
	struct mkw__range_lock *rl = *state;
	struct mkw__range_req w, r[4], last;

	assert_true(ask(rl, &w, 0, 100, true));
	for (int i = 0; i < 4; i++)
		assert_false(ask(rl, &r[i], 10 * i, 10 * i + 20, false));
	assert_false(ask(rl, &last, 0, 100, true));
	mkw__range_unlock_ticket(rl, &w);
	assert_int_equal(granted, 4);
	for (int i = 0; i < 4; i++)
		assert_ptr_equal(order[i], &r[i]);
	for (int i = 0; i < 4; i++)
		mkw__range_unlock_ticket(rl, &r[i]);
	assert_int_equal(granted, 5);
	mkw__range_unlock_ticket(rl, &last);
}

static void test_to_infinity(void **state)
{
	struct mkw__range_lock *rl = *state;
	struct mkw__range_req grow, low, high;

	assert_true(ask(rl, &grow, 4096, MKW__RANGE_MAX, true));
	assert_true(ask(rl, &low, 0, 4096, true));
	assert_false(ask(rl, &high, MKW__RANGE_MAX - 1, MKW__RANGE_MAX, false));
	mkw__range_unlock_ticket(rl, &grow);
	assert_int_equal(granted, 1);
	mkw__range_unlock_ticket(rl, &high);
	mkw__range_unlock_ticket(rl, &low);
}

/* Random requests against the definition of FIFO among overlapping ones. */
static void test_model(void **state)
{
	struct mkw__range_lock *rl = *state;
	enum { N = 12 };
	struct mkw__range_req req[N];
	enum { FREE, WAITING, HELD } st[N] = { FREE };
	unsigned age[N], clock = 0, seed = 7;

	for (int step = 0; step < 200000; step++) {
		int i = rand_r(&seed) % N;

		if (st[i] == FREE) {
			uint64_t s = rand_r(&seed) % 8;
			bool ok, want = true;

			req[i].start = s;
			req[i].end = s + 1 + rand_r(&seed) % 4;
			req[i].exclusive = rand_r(&seed) % 3 == 0;
			for (int j = 0; j < N; j++)
				if (st[j] != FREE && req[j].start < req[i].end &&
				    req[i].start < req[j].end &&
				    (req[i].exclusive || req[j].exclusive))
					want = false;
			ok = ask(rl, &req[i], s, req[i].end, req[i].exclusive);
			assert_int_equal(ok, want);
			st[i] = ok ? HELD : WAITING;
			age[i] = clock++;
		} else if (st[i] == HELD) {
			granted = 0;
			mkw__range_unlock_ticket(rl, &req[i]);
			st[i] = FREE;
			for (unsigned g = 0; g < granted; g++) {
				int k = (int)(order[g] - req);

				assert_int_equal(st[k], WAITING);
				st[k] = HELD;
			}
			/* Whoever still waits, waits for an older one. */
			for (int k = 0; k < N; k++) {
				bool blocked = false;

				for (int j = 0; j < N && st[k] == WAITING; j++)
					blocked |= j != k && st[j] != FREE &&
						(st[j] == HELD || age[j] < age[k]) &&
						req[j].start < req[k].end &&
						req[k].start < req[j].end &&
						(req[k].exclusive ||
						 req[j].exclusive);
				assert_int_equal(st[k] == WAITING, blocked);
			}
			granted = 0;
		}
	}
	for (int pass = 0; pass < N; pass++)
		for (int i = 0; i < N; i++)
			if (st[i] == HELD) {
				granted = 0;
				mkw__range_unlock_ticket(rl, &req[i]);
				st[i] = FREE;
				for (unsigned g = 0; g < granted; g++)
					st[order[g] - req] = HELD;
			}
}

/* ---- threads ---------------------------------------------------------- */

static struct {
	struct mkw__range_lock *rl;
	_Atomic int readers[8], writers[8];
	_Atomic int wrong;
} field;

static void *worker(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < 20000; i++) {
		unsigned s = rand_r(&seed) % 8, e = s + 1 + rand_r(&seed) % (8 - s);
		bool exclusive = rand_r(&seed) % 2;
		struct mkw__range_req req;

		mkw__range_lock(field.rl, &req, s, e, exclusive);
		for (unsigned k = s; k < e; k++) {
			if (exclusive) {
				if (atomic_fetch_add(&field.writers[k], 1) ||
				    atomic_load(&field.readers[k]))
					atomic_store(&field.wrong, 1);
			} else {
				atomic_fetch_add(&field.readers[k], 1);
				if (atomic_load(&field.writers[k]))
					atomic_store(&field.wrong, 1);
			}
		}
		for (unsigned k = s; k < e; k++)
			atomic_fetch_sub(exclusive ? &field.writers[k] :
						     &field.readers[k], 1);
		mkw__range_unlock(field.rl, &req);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[4];

	field.rl = *state;
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, worker, (void *)(i + 1));
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(field.wrong, 0);
}

/* ---- the checker ------------------------------------------------------ */

/* Does fn end the process? */
static bool dies(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		fclose(stderr);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void in_order(void)
{
	struct mkw__range_lock io;
	struct mkw__mutex tree;
	struct mkw__range_req req;

	mkw__range_init(&io, MKW__RANK_IOLOCK);
	mkw__mutex_init(&tree, MKW__RANK_TREE);
	mkw__range_lock(&io, &req, 0, 1, false);
	mkw__mutex_lock(&tree);
	mkw__mutex_unlock(&tree);
	mkw__range_unlock(&io, &req);
	mkw__rank_assert_none();
}

static void out_of_order(void)
{
	struct mkw__range_lock io;
	struct mkw__mutex tree;
	struct mkw__range_req req;

	mkw__range_init(&io, MKW__RANK_IOLOCK);
	mkw__mutex_init(&tree, MKW__RANK_TREE);
	mkw__mutex_lock(&tree);
	mkw__range_lock(&io, &req, 0, 1, false);
}

static void two_files(void)
{
	struct mkw__range_lock a, b;
	struct mkw__range_req ra, rb;

	mkw__range_init(&a, MKW__RANK_IOLOCK);
	mkw__range_init(&b, MKW__RANK_IOLOCK);
	mkw__range_lock(&a, &ra, 0, 1, false);
	mkw__range_lock(&b, &rb, 0, 1, false);
}

static void not_held(void)
{
	struct mkw__mutex tree;

	mkw__mutex_init(&tree, MKW__RANK_TREE);
	mkw__mutex_unlock(&tree);
}

static void touches_under_lock(void)
{
	struct mkw__mutex tree;

	mkw__mutex_init(&tree, MKW__RANK_TREE);
	mkw__mutex_lock(&tree);
	mkw__rank_assert_none();
}

static void test_ranks(void **state)
{
	(void)state;
	assert_false(dies(in_order));
	assert_true(dies(out_of_order));
	assert_true(dies(two_files));
	assert_true(dies(not_held));
	assert_true(dies(touches_under_lock));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_shared_and_exclusive, setup),
		cmocka_unit_test_setup(test_fifo, setup),
		cmocka_unit_test_setup(test_ahead, setup),
		cmocka_unit_test_setup(test_grants_many, setup),
		cmocka_unit_test_setup(test_to_infinity, setup),
		cmocka_unit_test_setup(test_model, setup),
		cmocka_unit_test_setup(test_threads, setup),
		cmocka_unit_test(test_ranks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
