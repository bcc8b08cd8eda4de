/* SPDX-License-Identifier: MIT */
/*
 * The search for all schedules: does it find every outcome that there is?
 *
 * Each case is a few tasks over variables, locks, events, range locks or pages, small
 * enough that an unpruned search over all scheduling points ends. Its outcomes are
 * compared with those of the reduced search, over transactions. The same
 * comparison must fail when the reduced search is kept from seeing what steps touch.
 *
 * This file is compiled as the engine is for the simulator, so that its loads and
 * stores are seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim/access.h"
#include "sim/search.h"
#include "sync/sync.h"

/* ---- outcomes --------------------------------------------------------- */

#define OUTCOMES_MAX 512u

struct outcomes {
	uint64_t value[OUTCOMES_MAX];
	unsigned n;
	struct sim_search_totals totals;
};

static uint64_t outcome;	/* of the run: a digit for each thing seen */

static void saw(uint64_t digit)
{
	outcome = outcome * 16 + digit;
}

static bool has(const struct outcomes *o, uint64_t value)
{
	for (unsigned i = 0; i < o->n; i++)
		if (o->value[i] == value)
			return true;
	return false;
}

static void explore(void (*root)(void *arg), enum sim_search_how how,
		    bool blind, struct outcomes *o)
{
	struct sim_search_options opt = {
		.how = how, .runs_max = 3000000, .blind = blind,
	};
	struct sim_config cfg = { .transactions = how == SIM_REDUCED };
	struct sim_result res;

	o->n = 0;
	cfg.scheduler = sim_search_begin(&opt);
	do {
		outcome = 0;
		sim_run(&cfg, root, NULL, &res);
		if (res.violated)
			outcome = strstr(res.message, "deadlock") ? 0xdead : 0xbad;
		if (res.violated && outcome == 0xbad)
			fail_msg("%s", res.message);
		if (!res.abandoned && !has(o, outcome)) {
			assert_true(o->n < OUTCOMES_MAX);
			o->value[o->n++] = outcome;
		}
	} while (sim_search_next(&res));
	sim_search_end(&o->totals);
	assert_true(o->totals.complete);
}

/* ---- cases ------------------------------------------------------------ */

static struct mkw__os_mutex m1, m2;
static struct mkw__os_event ev;
static struct mkw__range_lock rl;
static _Atomic uint32_t flag, flag2;
static uint32_t x, y, seen[4];
/* With loops: one that watches nothing, and one that does. */
static struct mkw__os_loop *plain_loop, *lazy_loop;
static struct mkw__os_mmu *mmu;
static bool with_loops;

static void on_fault(void *arg, const struct mkw__os_fault *msg)
{
	(void)arg;
	(void)msg;
}

static void open_loops(void)
{
	struct mkw__os_mmu_caps caps;

	if (mkw__os_loop_create(4, &plain_loop) || mkw__os_loop_create(4, &lazy_loop) ||
	    mkw__os_mmu_open(false, &mmu, &caps) ||
	    mkw__os_loop_watch(lazy_loop, mmu, NULL, on_fault, NULL))
		sim_violation("no loops");
}

static void close_loops(void)
{
	mkw__os_loop_destroy(plain_loop);
	mkw__os_loop_destroy(lazy_loop);
	mkw__os_mmu_close(mmu);
}

static void (*roles[3])(void *arg);
static unsigned role_count;

static void play(void *arg)
{
	unsigned id[3];

	(void)arg;
	memset(&m1, 0, sizeof(m1));
	memset(&m2, 0, sizeof(m2));
	memset(&ev, 0, sizeof(ev));
	mkw__range_init(&rl, MKW__RANK_IOLOCK);
	x = y = 0;
	flag = flag2 = 0;
	memset(seen, 0, sizeof(seen));
	if (with_loops)
		open_loops();
	sim_search_start();
	for (unsigned i = 0; i < role_count; i++)
		id[i] = sim_spawn("role", roles[i], NULL);
	for (unsigned i = 0; i < role_count; i++)
		sim_join(id[i]);
	sim_search_stop();
	if (with_loops)
		close_loops();
	for (unsigned i = 0; i < 4; i++)
		saw(seen[i]);
	saw(x);
	saw(y);
	saw(flag);
}

static void lock(struct mkw__os_mutex *m)
{
	mkw__os_mutex_lock(m);
}

static void unlock(struct mkw__os_mutex *m)
{
	mkw__os_mutex_unlock(m);
}

/* Two variables under two locks, in an order that two tasks see differently. */
static void writes_xy(void *arg)
{
	(void)arg;
	lock(&m1);
	x++;
	unlock(&m1);
	lock(&m2);
	y++;
	unlock(&m2);
}

static void reads_yx(void *arg)
{
	(void)arg;
	lock(&m2);
	seen[0] = y;
	unlock(&m2);
	lock(&m1);
	seen[1] = x;
	unlock(&m1);
}

static void twice_x(void *arg)
{
	(void)arg;
	lock(&m1);
	seen[2] = x;
	unlock(&m1);
	lock(&m1);
	x = seen[2] + 1;
	unlock(&m1);
}

/* A section with two others inside: somebody may come between these. */
static void splits(void *arg)
{
	(void)arg;
	lock(&m1);
	lock(&m2);
	y++;
	unlock(&m2);
	lock(&m2);
	y++;
	unlock(&m2);
	x++;
	unlock(&m1);
}

static void looks_at_y(void *arg)
{
	(void)arg;
	lock(&m2);
	seen[3] = y;
	unlock(&m2);
}

static void looks_at_x(void *arg)
{
	(void)arg;
	lock(&m1);
	seen[2] = x;
	unlock(&m1);
	lock(&m2);
	seen[1] = y;
	unlock(&m2);
}

static void m1_then_m2(void *arg)
{
	(void)arg;
	lock(&m1);
	atomic_store(&flag, 1);
	lock(&m2);
	x++;
	unlock(&m2);
	unlock(&m1);
}

static void m2_then_m1(void *arg)
{
	(void)arg;
	lock(&m2);
	seen[0] = atomic_load(&flag);
	lock(&m1);
	x++;
	unlock(&m1);
	unlock(&m2);
}

static void sets(void *arg)
{
	(void)arg;
	atomic_store(&flag, 1);
	lock(&m1);
	x = 1;
	unlock(&m1);
	mkw__os_event_set(&ev);
	atomic_store(&flag, 2);
}

static void waits(void *arg)
{
	(void)arg;
	seen[0] = atomic_load(&flag);
	mkw__os_event_wait(&ev);
	seen[1] = atomic_load(&flag);
	lock(&m1);
	seen[2] = x;
	unlock(&m1);
}

static void flag_adds(void *arg)
{
	(void)arg;
	atomic_fetch_add_explicit(&flag, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&flag, 1, memory_order_relaxed);
}

static void flag_reads(void *arg)
{
	(void)arg;
	seen[0] = atomic_load(&flag);
}

static void range_writer(void *arg)
{
	struct mkw__range_req r;

	(void)arg;
	mkw__range_lock(&rl, &r, 0, 64, true);
	x++;
	atomic_store(&flag, 1);
	x++;
	mkw__range_unlock(&rl, &r);
}

static void range_reader(void *arg)
{
	struct mkw__range_req r;

	(void)arg;
	mkw__range_lock(&rl, &r, 0, 64, false);
	seen[0] = x;
	mkw__range_unlock(&rl, &r);
}

static void range_tries(void *arg)
{
	struct mkw__range_req r;

	(void)arg;
	if (mkw__range_trylock(&rl, &r, 0, 64, false)) {
		seen[1] = 1 + x;
		mkw__range_unlock(&rl, &r);
	}
}

/* Each kick comes after what it tells of. */
static void tells(struct mkw__os_loop *l, _Atomic uint32_t *of)
{
	atomic_store(of, 1);
	mkw__os_loop_kick(l);
}

/* Rounds until one finds anything. */
static void rounds(struct mkw__os_loop *l)
{
	while (!seen[0]) {
		mkw__os_loop_wait(l, UINT64_MAX);
		seen[0] = atomic_load(&flag);
		seen[0] |= atomic_load(&flag2) * 2;
	}
}

static void plain_x(void *arg) { (void)arg; tells(plain_loop, &flag); }
static void plain_y(void *arg) { (void)arg; tells(plain_loop, &flag2); }
static void plain_rounds(void *arg) { (void)arg; rounds(plain_loop); }
static void lazy_x(void *arg) { (void)arg; tells(lazy_loop, &flag); }
static void lazy_y(void *arg) { (void)arg; tells(lazy_loop, &flag2); }
static void lazy_rounds(void *arg) { (void)arg; rounds(lazy_loop); }

/* ---- comparing -------------------------------------------------------- */

static const struct {
	const char *name;
	void (*roles[3])(void *arg);
	bool blind_too;		/* without measuring it must find less */
	bool with_loops;
} cases[] = {
	{ "two locks", { writes_xy, reads_yx }, true, false },
	{ "lost update", { twice_x, writes_xy }, true, false },
	{ "split section", { splits, looks_at_y }, true, false },
	{ "split section, taken", { splits, looks_at_x }, true, false },
	{ "lock order", { m1_then_m2, m2_then_m1 }, false, false },
	{ "event", { sets, waits }, true, false },
	{ "counter", { flag_adds, flag_reads }, true, false },
	{ "counters", { flag_adds, flag_adds, flag_reads }, true, false },
	{ "range lock", { range_writer, range_reader }, true, false },
	{ "range try-lock", { range_writer, range_tries }, true, false },
	{ "range try-lock, shared", { range_reader, range_tries }, false, false },
	{ "kicks", { plain_rounds, plain_x, plain_y }, false, true },
	{ "kicks, lazy loop", { lazy_rounds, lazy_x, lazy_y }, false, true },
};

static void choose_roles(unsigned c)
{
	role_count = 0;
	with_loops = cases[c].with_loops;
	while (role_count < 3 && cases[c].roles[role_count]) {
		roles[role_count] = cases[c].roles[role_count];
		role_count++;
	}
}

static void test_same_outcomes(void **state)
{
	struct outcomes all, reduced;

	(void)state;
	if (!sim_access_measured()) {
		print_message("this build does not measure what the engine touches: gcc without a sanitizer does\n");
		skip();
	}
	for (unsigned c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		choose_roles(c);
		explore(play, SIM_UNPRUNED, false, &all);
		explore(play, SIM_REDUCED, false, &reduced);
		print_message("%-24s %3u outcomes: %7llu schedules unpruned, %4llu reduced\n",
			      cases[c].name, all.n,
			      (unsigned long long)all.totals.runs,
			      (unsigned long long)reduced.totals.runs);
		for (unsigned i = 0; i < all.n; i++)
			if (!has(&reduced, all.value[i]))
				fail_msg("%s: the reduced search does not find outcome %llx",
					 cases[c].name,
					 (unsigned long long)all.value[i]);
		assert_int_equal(all.n, reduced.n);
		assert_true(reduced.totals.runs <= all.totals.runs);
	}
}

static void test_blind(void **state)
{
	struct outcomes all, blind;

	(void)state;
	for (unsigned c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		if (!cases[c].blind_too)
			continue;
		choose_roles(c);
		explore(play, SIM_UNPRUNED, false, &all);
		explore(play, SIM_REDUCED, true, &blind);
		if (blind.n >= all.n)
			fail_msg("%s: a search that sees nothing finds all %u outcomes",
				 cases[c].name, all.n);
	}
}

/* With enough preemptions the bounded search is the unpruned one. */
static void test_bounded(void **state)
{
	struct sim_search_options opt = { .how = SIM_BOUNDED };
	struct sim_config cfg = { .transactions = true };
	struct sim_search_totals totals;
	uint64_t runs[6];
	struct sim_result res;

	(void)state;
	choose_roles(0);
	for (opt.preemptions = 0; opt.preemptions < 6; opt.preemptions++) {
		cfg.scheduler = sim_search_begin(&opt);
		do {
			sim_run(&cfg, play, NULL, &res);
		} while (sim_search_next(&res));
		sim_search_end(&totals);
		assert_true(totals.complete);
		runs[opt.preemptions] = totals.runs;
	}
	assert_true(runs[0] < runs[1] && runs[1] < runs[2]);
	assert_int_equal(runs[4], runs[5]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_outcomes),
		cmocka_unit_test(test_blind),
		cmocka_unit_test(test_bounded),
	};

	return cmocka_run_group_tests_name("sim_search", tests, NULL, NULL);
}
