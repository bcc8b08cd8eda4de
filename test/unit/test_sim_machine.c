/* SPDX-License-Identifier: MIT */
/*
 * The simulated machine alone, without an engine: does it do what os.h and
 * store.h say, does it notice what it is there to notice (each oracle against a
 * planted mistake), and does a seed give the same run again?
 *
 * A check inside a task cannot leave by cmocka's longjmp, which would cross
 * stacks; it ends the run as a violation, and the test prints that.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/history.h"
#include "sim/sim.h"

#define CHECK(cond)                                                           \
	do {                                                                  \
		if (!(cond))                                                  \
			sim_violation("line %d: not so: %s", __LINE__, #cond); \
	} while (0)

static struct sim_result run(void (*root)(void *arg), uint64_t seed, bool odd)
{
	struct sim_config cfg = { .seed = seed, .oddities = odd,
				  .step_limit = 50000 };
	struct sim_result res;

	sim_run(&cfg, root, NULL, &res);
	return res;
}

static void clean(void (*root)(void *arg), uint64_t seeds, bool odd)
{
	for (uint64_t seed = 1; seed <= seeds; seed++) {
		struct sim_result res = run(root, seed, odd);

		if (res.violated) {
			sim_print_story(stdout);
			fail_msg("seed %llu: %s", (unsigned long long)seed,
				 res.message);
		}
	}
}

/* Some seed must find it, and say what. */
static void found(void (*root)(void *arg), uint64_t seeds, const char *what)
{
	for (uint64_t seed = 1; seed <= seeds; seed++) {
		struct sim_result res = run(root, seed, false);

		if (!res.violated)
			continue;
		if (!strstr(res.message, what))
			fail_msg("seed %llu: found \"%s\", expected \"%s\"",
				 (unsigned long long)seed, res.message, what);
		return;
	}
	fail_msg("%llu seeds and nobody noticed \"%s\"",
		 (unsigned long long)seeds, what);
}

/* ---- a small pager ---------------------------------------------------- */

#define PAGES 4u

static struct mkw__os_mmu *mmu;
static struct mkw__os_frames *fr;
static struct mkw__os_loop *loop;
static uintptr_t base;
static size_t ps;
static bool stop;
static uint64_t page_of_ones[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static void map_up(bool in_thread)
{
	struct mkw__os_mmu_caps caps;

	ps = mkw__os_page_size();
	stop = false;
	CHECK(!mkw__os_mmu_open(in_thread, &mmu, &caps));
	CHECK(!mkw__os_frames_create(mmu, &fr));
	CHECK(!mkw__os_frames_resize(fr, PAGES * ps));
	CHECK(!mkw__os_map(mmu, fr, 0, PAGES * ps, 0, 0, &base));
	CHECK(sim_is_fake(base));
	CHECK(!mkw__os_map_enable(base, PAGES * ps, true));
}

static void map_down(void)
{
	mkw__os_unmap(base, PAGES * ps);
	mkw__os_frames_destroy(fr);
	mkw__os_mmu_close(mmu);
}

/* Publishes and maps page i; wp: write-protected. */
static int give(unsigned i, unsigned flags)
{
	size_t done;
	int err;

	do {
		err = mkw__os_frames_publish(fr, i * ps, page_of_ones, ps, &done);
	} while (err == -EAGAIN || err == -ENOMEM);
	if (err && err != -EEXIST)
		return err;
	do {
		err = mkw__os_pte_continue(mmu, base + i * ps, ps, flags, &done);
	} while (err == -EAGAIN || err == -ENOMEM);
	return err;
}

static void serve(void *arg, const struct mkw__os_fault *msg)
{
	uintptr_t page = msg->addr & ~(uintptr_t)(ps - 1);
	int err;

	(void)arg;
	err = give((unsigned)((page - base) / ps), msg->write ? 0 : MKW__PTE_WP);
	CHECK(!err || err == -EEXIST);
	while (err == -EEXIST && msg->write &&
	       mkw__os_pte_protect(mmu, page, ps, false, 0) == -EAGAIN)
		continue;
	mkw__os_wake(mmu, page, ps);
}

static void pager(void *arg)
{
	(void)arg;
	while (!stop)
		mkw__os_loop_wait(loop, UINT64_MAX);
}

static void toucher(void *arg)
{
	uint64_t v = 0;

	(void)arg;
	for (unsigned i = 0; i < PAGES; i++) {
		CHECK(sim_load(base + i * ps + 8, &v) == SIM_OK);
		CHECK(v == 1 || v == 7);
		CHECK(sim_store(base + i * ps + 8, 7) == SIM_OK);
		CHECK(sim_load(base + i * ps + 8, &v) == SIM_OK);
		CHECK(v == 7);
	}
}

static void served_by_pager(void *arg)
{
	struct mkw__os_thread *t;
	unsigned a, b;

	(void)arg;
	map_up(false);
	CHECK(!mkw__os_loop_create(4, &loop));
	CHECK(!mkw__os_loop_watch(loop, mmu, NULL, serve, NULL));
	CHECK(!mkw__os_thread_start(&t, "pager", pager, NULL));
	a = sim_spawn("A", toucher, NULL);
	b = sim_spawn("B", toucher, NULL);
	sim_join(a);
	sim_join(b);
	CHECK(sim_counts.faults >= PAGES);
	stop = true;
	mkw__os_loop_kick(loop);
	mkw__os_thread_join(t);
	mkw__os_loop_destroy(loop);
	map_down();
}

static void test_faults_served(void **state)
{
	(void)state;
	clean(served_by_pager, 500, true);
}

static void test_replay(void **state)
{
	uint64_t first = run(served_by_pager, 1, true).hash;
	unsigned differ = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct sim_result a = run(served_by_pager, seed, true);
		struct sim_result b = run(served_by_pager, seed, true);

		assert_int_equal(a.hash, b.hash);
		assert_int_equal(a.steps, b.steps);
		differ += a.hash != first;
	}
	assert_true(differ > 40);
}

/* ---- outcomes --------------------------------------------------------- */

static void outcomes(void *arg)
{
	uint64_t v = 0;
	size_t done;

	(void)arg;
	map_up(false);
	/* continue: no frame; then a run that stops at a hole. */
	CHECK(mkw__os_pte_continue(mmu, base, ps, 0, &done) == -EFAULT && !done);
	CHECK(!mkw__os_frames_publish(fr, 0, page_of_ones, ps, &done) && done == ps);
	CHECK(mkw__os_frames_publish(fr, 0, page_of_ones, 2 * ps, &done) == -EEXIST);
	CHECK(!done && !mkw__os_frames_present(fr, ps));
	CHECK(mkw__os_pte_continue(mmu, base, PAGES * ps, MKW__PTE_WP, &done) == -EAGAIN);
	CHECK(done == ps);
	CHECK(mkw__os_pte_continue(mmu, base, ps, 0, &done) == -EEXIST && !done);
	CHECK(sim_load(base, &v) == SIM_OK && v == 1);
	/* copy makes the frame and the entry; not over a frame that exists. */
	CHECK(!mkw__os_pte_copy(mmu, base + ps, page_of_ones, ps, 0, &done));
	CHECK(done == ps && mkw__os_frames_present(fr, ps));
	CHECK(sim_store(base + ps, 9) == SIM_OK);
	CHECK(!mkw__os_pte_zap(base + ps, ps));
	CHECK(mkw__os_pte_copy(mmu, base + ps, page_of_ones, ps, 0, &done) == -EEXIST);
	CHECK(!mkw__os_frames_read(fr, ps, &v, 8) && v == 9);
	/* past the end */
	CHECK(mkw__os_frames_publish(fr, PAGES * ps, page_of_ones, ps, &done) == -EFAULT);
	CHECK(mkw__os_frames_publish(fr, 2 * ps, (void *)1, ps, &done) == -EFAULT);
	/* zap of a protected page leaves a marker, which poison replaces */
	CHECK(!mkw__os_pte_zap(base, ps));
	CHECK(!mkw__os_pte_poison(mmu, base));
	CHECK(sim_load(base, &v) == SIM_BUS);
	/* poison outlives a drop, not a zap, a copy or a truncate */
	CHECK(!mkw__os_frames_drop(fr, 0, ps));
	CHECK(!mkw__os_frames_present(fr, 0));
	CHECK(sim_load(base, &v) == SIM_BUS);
	CHECK(!mkw__os_pte_zap(base, ps));
	CHECK(!mkw__os_pte_copy(mmu, base, page_of_ones, ps, MKW__PTE_WP, &done));
	CHECK(sim_load(base, &v) == SIM_OK && v == 1);
	CHECK(!mkw__os_frames_resize(fr, 0));
	CHECK(sim_load(base, &v) == SIM_BUS);
	CHECK(!mkw__os_frames_resize(fr, PAGES * ps));
	CHECK(!mkw__os_frames_present(fr, 0));
	/* not mapped, or not like this */
	CHECK(mkw__os_pte_continue(mmu, base + PAGES * ps, ps, 0, &done) == -ENOENT);
	CHECK(sim_load(base + PAGES * ps, &v) == SIM_SEGV);
	CHECK(!mkw__os_map_enable(base, PAGES * ps, false));
	CHECK(sim_store(base, 1) == SIM_SEGV);
	CHECK(mkw__os_user_write((void *)base, &v, 8) == -EFAULT);
	CHECK(mkw__os_user_read(&v, NULL, 8) == -EFAULT);
	map_down();
}

static void test_outcomes(void **state)
{
	(void)state;
	clean(outcomes, 20, false);
}

/* Linux 6.1: poison is lifted by healing alone, and a protected CONTINUE is wrong. */
static void old_kernel(void *arg)
{
	uint64_t v;
	size_t done;

	map_up(false);
	CHECK(!give(0, 0));
	CHECK(!mkw__os_pte_zap(base, ps));
	CHECK(!mkw__os_pte_poison(mmu, base));
	CHECK(!mkw__os_pte_zap(base, ps));
	CHECK(!mkw__os_pte_continue(mmu, base, ps, 0, &done));
	CHECK(sim_load(base, &v) == SIM_BUS);
	CHECK(!mkw__os_pte_heal(base, ps, true));
	CHECK(!give(0, 0));
	CHECK(sim_load(base, &v) == SIM_OK && v == 1);
	if (arg)
		give(1, MKW__PTE_WP);
	map_down();
}

static void test_old_kernel(void **state)
{
	struct sim_config cfg = { .seed = 1, .old_kernel = true };
	struct sim_result res;
	bool wrong = true;

	(void)state;
	if (!sim_run(&cfg, old_kernel, NULL, &res))
		fail_msg("%s", res.message);
	assert_false(sim_run(&cfg, old_kernel, &wrong, &res));
	assert_non_null(strstr(res.message, "which this machine cannot"));
}

static void oddities(void *arg)
{
	unsigned none = 0, some = 0;
	size_t done;

	(void)arg;
	map_up(false);
	while (mkw__os_frames_publish(fr, 0, page_of_ones, ps, &done))
		continue;
	for (int i = 0; i < 2000; i++) {
		int err = mkw__os_pte_continue(mmu, base, PAGES * ps, 0, &done);

		none += err == -EAGAIN && !done;
		some += err == -EAGAIN && done;
		CHECK(err == -EAGAIN || err == -EEXIST || err == -ENOMEM);
		if (done)
			mkw__os_pte_zap(base, ps);
	}
	CHECK(none > 20 && some > 20);
	map_down();
}

static void test_oddities(void **state)
{
	(void)state;
	clean(oddities, 3, true);
}

/* ---- the handler ------------------------------------------------------ */

static enum mkw__os_verdict handle(uintptr_t addr, bool write)
{
	unsigned i = (unsigned)((addr - base) / ps);
	int err;

	if (i == 3)
		return MKW__OS_FAIL;
	err = give(i, write ? 0 : MKW__PTE_WP);
	if (err == -EEXIST && write)
		while (mkw__os_pte_protect(mmu, base + i * ps, ps, false, 0) == -EAGAIN)
			continue;
	return MKW__OS_RETRY;
}

static void in_thread(void *arg)
{
	uint64_t v = 0;

	(void)arg;
	mkw__os_set_handler(handle);
	map_up(true);
	CHECK(sim_load(base, &v) == SIM_OK && v == 1);
	CHECK(sim_store(base, 2) == SIM_OK);
	CHECK(sim_load(base, &v) == SIM_OK && v == 2);
	CHECK(sim_load(base + 3 * ps, &v) == SIM_BUS);
	CHECK(!mkw__os_user_write((void *)(base + ps), page_of_ones, ps));
	CHECK(sim_counts.handler_calls == 4 && !sim_counts.messages);
	map_down();
	mkw__os_set_handler(NULL);
}

static void test_in_thread(void **state)
{
	(void)state;
	clean(in_thread, 100, true);
}

/* ---- waking ----------------------------------------------------------- */

static void one_load(void *arg)
{
	uint64_t v = 0;

	*(enum sim_outcome *)arg = sim_load(base, &v);
}

static void unmap_wakes_nobody(void *arg)
{
	enum sim_outcome o = SIM_OK;
	unsigned t;

	(void)arg;
	map_up(false);
	t = sim_spawn("A", one_load, &o);
	sim_settle();
	mkw__os_unmap(base, PAGES * ps);
	sim_settle();
	CHECK(o == SIM_OK);
	mkw__os_wake(mmu, base, ps);
	sim_join(t);
	CHECK(o == SIM_SEGV);
	mkw__os_frames_destroy(fr);
	mkw__os_mmu_close(mmu);
}

static void test_unmap_wakes_nobody(void **state)
{
	(void)state;
	clean(unmap_wakes_nobody, 100, false);
}

static void bare_wakes(void *arg)
{
	enum sim_outcome o = SIM_BUS;
	unsigned t;
	size_t done;

	(void)arg;
	map_up(false);
	t = sim_spawn("A", one_load, &o);
	for (unsigned i = 1; i <= 1000; i++) {
		sim_settle();
		CHECK(sim_counts.messages == i);
		mkw__os_wake(mmu, base, ps);
	}
	sim_settle();
	CHECK(!mkw__os_pte_copy(mmu, base, page_of_ones, ps, 0, &done));
	sim_join(t);
	CHECK(o == SIM_OK);
	map_down();
}

static void test_bare_wakes(void **state)
{
	(void)state;
	clean(bare_wakes, 1, false);
}

static void lost_wake(void *arg)
{
	enum sim_outcome o = SIM_OK;
	size_t done;
	unsigned t;

	(void)arg;
	map_up(false);
	t = sim_spawn("A", one_load, &o);
	sim_settle();
	CHECK(!mkw__os_pte_copy(mmu, base, page_of_ones, ps, MKW__PTE_DONTWAKE, &done));
	sim_join(t);
}

static void test_lost_wake(void **state)
{
	(void)state;
	found(lost_wake, 1, "deadlock");
}

/* ---- what must be noticed --------------------------------------------- */

static struct mkw__os_mutex m1, m2;

static void lock_21(void *arg)
{
	(void)arg;
	mkw__os_mutex_lock(&m2);
	mkw__os_mutex_lock(&m1);
	mkw__os_mutex_unlock(&m1);
	mkw__os_mutex_unlock(&m2);
}

static void crosswise(void *arg)
{
	unsigned t;

	(void)arg;
	memset(&m1, 0, sizeof(m1));
	memset(&m2, 0, sizeof(m2));
	t = sim_spawn("B", lock_21, NULL);
	mkw__os_mutex_lock(&m1);
	mkw__os_mutex_lock(&m2);
	mkw__os_mutex_unlock(&m2);
	mkw__os_mutex_unlock(&m1);
	sim_join(t);
}

static void never_set(void *arg)
{
	struct mkw__os_event ev = { 0 };

	(void)arg;
	mkw__os_event_wait(&ev);
}

static void ticker(void *arg)
{
	(void)arg;
	while (!stop)
		mkw__os_loop_wait(loop, 1000000);
}

/* A thread that wakes up every millisecond does not hide a deadlock. */
static void never_set_with_ticker(void *arg)
{
	struct mkw__os_thread *t;

	stop = false;
	CHECK(!mkw__os_loop_create(1, &loop));
	CHECK(!mkw__os_thread_start(&t, "ticker", ticker, NULL));
	never_set(arg);
}

static void endless(void *arg)
{
	(void)arg;
	for (;;)
		mkw__os_step("round and round");
}

static void leaks(void *arg)
{
	(void)arg;
	CHECK(mkw__os_zalloc(100));
}

static void frees_twice(void *arg)
{
	void *p = mkw__os_zalloc(100);

	(void)arg;
	mkw__os_free(p);
	mkw__os_free(p);
}

static void absent_alias(void *arg)
{
	uint64_t v;

	(void)arg;
	map_up(false);
	mkw__os_frames_read(fr, ps, &v, 8);
}

static void leaves_mapping(void *arg)
{
	(void)arg;
	map_up(false);
}

static void touches(void *arg)
{
	uint64_t v;

	(void)arg;
	mkw__os_user_read(&v, (void *)base, 8);
}

static void engine_touches(void *arg)
{
	struct mkw__os_thread *t;

	(void)arg;
	map_up(false);
	CHECK(!mkw__os_thread_start(&t, "flusher", touches, NULL));
	mkw__os_thread_join(t);
}

static void panics(void *arg)
{
	(void)arg;
	mkw__os_panic("page %d is %s", 3, "odd");
}

static void test_noticed(void **state)
{
	(void)state;
	found(crosswise, 100, "deadlock");
	found(never_set, 1, "deadlock");
	found(never_set_with_ticker, 1, "deadlock");
	found(endless, 1, "livelock");
	found(leaks, 1, "memory leak: block 1 of 100 bytes");
	found(frees_twice, 1, "freed twice");
	found(absent_alias, 1, "absent frame of page 1");
	found(leaves_mapping, 1, "frames is still there");
	found(engine_touches, 1, "rule R3");
	found(panics, 1, "page 3 is odd");
}

/* ---- time ------------------------------------------------------------- */

static void timers(void *arg)
{
	uint64_t before = mkw__os_now_ns();

	(void)arg;
	CHECK(!mkw__os_loop_create(1, &loop));
	for (int i = 0; i < 100; i++)
		mkw__os_step("busy");
	CHECK(mkw__os_now_ns() == before);
	mkw__os_loop_wait(loop, 0);
	CHECK(mkw__os_now_ns() == before);
	mkw__os_loop_wait(loop, 5000);
	CHECK(mkw__os_now_ns() == before + 5000);
	mkw__os_loop_kick(loop);
	mkw__os_loop_wait(loop, 5000);
	CHECK(mkw__os_now_ns() == before + 5000);
	mkw__os_loop_destroy(loop);
}

static void test_timers(void **state)
{
	(void)state;
	clean(timers, 5, false);
}

/* ---- the disk --------------------------------------------------------- */

static struct sim_disk *disk;
static struct mkw__store *st;
static unsigned ended;
static int end_order[4], end_res[4];
static uint64_t bufs[4][8];
static struct mkw__os_io ios[4];

static void io_done(struct mkw__os_io *io, int res)
{
	end_res[ended] = res;
	end_order[ended++] = (int)(io - ios);
}

static unsigned reordered;

static void disk_reads(void *arg)
{
	(void)arg;
	disk = sim_disk_create(1024);
	st = sim_disk_store(disk);
	CHECK(!mkw__store_own(st) && mkw__store_own(st) == -EBUSY);
	for (unsigned i = 0; i < 4; i++)
		sim_disk_poke(disk, i * 64, 100 + i);
	CHECK(!mkw__os_loop_create(4, &loop));
	ended = 0;
	for (unsigned i = 0; i < 4; i++) {
		ios[i] = (struct mkw__os_io){ .done = io_done, .off = i * 64,
					      .buf = bufs[i], .len = 64 };
		mkw__store_submit(st, loop, &ios[i]);
		CHECK(!ended);
	}
	while (ended < 4)
		mkw__os_loop_wait(loop, UINT64_MAX);
	for (unsigned i = 0; i < 4; i++) {
		CHECK(bufs[i][0] == 100 + i && !end_res[i]);
		reordered += end_order[i] != (int)i;
	}
	CHECK(sim_disk_allocated(disk, 0) && !sim_disk_allocated(disk, 16));
	CHECK(mkw__store_seek(st, 1, true) == 1 && mkw__store_seek(st, 1, false) == 16);
	CHECK(!mkw__store_punch(st, 0, 64) && !sim_disk_allocated(disk, 0));
	CHECK(!mkw__store_allocate(st, 2000, 16) && sim_disk_len(disk) == 1024);
	CHECK(mkw__store_seek(st, 208, true) == -ENXIO);
	CHECK(!mkw__store_resize(st, 72) && sim_disk_peek(disk, 64) == 101);
	CHECK(!mkw__store_read(st, 0, bufs[0], 256) && !bufs[0][0]);
	sim_disk_fail(disk, SIM_DISK_READ, 2);
	CHECK(!mkw__store_read(st, 0, bufs[0], 64));
	CHECK(mkw__store_read(st, 0, bufs[0], 64) == -EIO);
	CHECK(!mkw__store_read(st, 0, bufs[0], 64));
	mkw__store_close(st);
	mkw__os_loop_destroy(loop);
}

static void test_disk(void **state)
{
	(void)state;
	reordered = 0;
	clean(disk_reads, 50, true);
	assert_true(reordered > 20);
}

static void reader(void *arg)
{
	(void)arg;
	mkw__store_read(st, 0, bufs[0], 64);
}

static void punch_over_read(void *arg)
{
	unsigned t;

	(void)arg;
	disk = sim_disk_create(128);
	st = sim_disk_store(disk);
	t = sim_spawn("reader", reader, NULL);
	mkw__store_punch(st, 32, 32);
	sim_join(t);
	mkw__store_close(st);
}

static void write_past_end(void *arg)
{
	(void)arg;
	disk = sim_disk_create(128);
	st = sim_disk_store(disk);
	mkw__store_write(st, 96, bufs[0], 64);
}

static void test_disk_contract(void **state)
{
	(void)state;
	found(punch_over_read, 100, "under way");
	found(write_past_end, 1, "past the store's length");
}

/* ---- the judge -------------------------------------------------------- */

static int judged(const struct sim_op *ops, unsigned n)
{
	return sim_history_check(ops, n, 5);
}

static void test_judge(void **state)
{
	/* What is read after a punch ended must not be what was before it. */
	const struct sim_op stale[] = {
		{ .start = 1, .end = 2, .value = 0, .write = true },
		{ .start = 3, .end = 4, .value = 5 },
	};
	const struct sim_op during[] = {
		{ .start = 1, .end = 9, .value = 0, .write = true },
		{ .start = 2, .end = 3, .value = 5 },
		{ .start = 4, .end = 5, .value = 0 },
	};
	/* ... nor come back once it was seen to be gone. */
	const struct sim_op back[] = {
		{ .start = 1, .end = 9, .value = 0, .write = true },
		{ .start = 2, .end = 3, .value = 0 },
		{ .start = 4, .end = 5, .value = 5 },
	};
	const struct sim_op lost[] = {
		{ .start = 1, .end = 4, .value = 6, .write = true },
		{ .start = 2, .end = 3, .value = 0, .write = true },
		{ .start = 5, .end = 6, .value = 5 },
		{ .start = 7, .end = 8, .value = 6 },
	};
	const struct sim_op failed[] = {
		{ .start = 1, .end = UINT64_MAX, .value = 6, .write = true, .maybe = true },
		{ .start = 2, .end = 3, .value = 5 },
		{ .start = 4, .end = 5, .value = 6 },
	};
	const struct sim_op failed_back[] = {
		{ .start = 1, .end = UINT64_MAX, .value = 6, .write = true, .maybe = true },
		{ .start = 2, .end = 3, .value = 6 },
		{ .start = 4, .end = 5, .value = 5 },
	};

	(void)state;
	assert_int_equal(judged(stale, 2), 1);
	assert_int_equal(judged(during, 3), -1);
	assert_int_equal(judged(back, 3), 2);
	assert_int_equal(judged(lost, 4), 2);
	assert_int_equal(judged(failed, 3), -1);
	assert_int_equal(judged(failed_back, 3), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults_served),
		cmocka_unit_test(test_replay),
		cmocka_unit_test(test_outcomes),
		cmocka_unit_test(test_old_kernel),
		cmocka_unit_test(test_oddities),
		cmocka_unit_test(test_in_thread),
		cmocka_unit_test(test_unmap_wakes_nobody),
		cmocka_unit_test(test_bare_wakes),
		cmocka_unit_test(test_lost_wake),
		cmocka_unit_test(test_noticed),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_disk),
		cmocka_unit_test(test_disk_contract),
		cmocka_unit_test(test_judge),
	};

	return cmocka_run_group_tests_name("sim_machine", tests, NULL, NULL);
}
