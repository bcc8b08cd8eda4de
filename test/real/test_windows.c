/* SPDX-License-Identifier: MIT */
/*
 * test_windows.c: the windows of mkwrite check.
 *
 * The engine must be coherent in each, or exclude. With a bug planted into its core
 * (src/core/mutants.def) the window that it concerns must see it, and say what
 * it is. A fake target stands for what the engine cannot be made to do: the
 * kernel's lost direct write, tearing, a spurious error, a deadlock. That the lever
 * holds is part of each: without it the fake's bug does not show.
 *
 * The directory used is MKW_DIR, or the current one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "check/windows/slow.h"
#include "check/windows/window.h"
#include "core/testing.h"

enum bug { BUG_NONE, BUG_DIRECT_WRITE, BUG_TEARS, BUG_ERRORS, BUG_HANGS,
	   BUG_CRASHES };

static enum bug planted;

static const char *dir(void)
{
	const char *d = getenv("MKW_DIR");

	return d ? d : ".";
}

static struct win_result *run(const struct target_ops *ops, const char *name)
{
	static struct win_result res;
	struct check_config cfg = CHECK_CONFIG_INIT;
	const struct window *w = mkw__window_find(name);

	assert_non_null(w);
	cfg.target_ops = ops;
	cfg.dir = dir();
	if (planted == BUG_HANGS)
		cfg.window_seconds = 1;
	mkw__window_run(w, &cfg, &res);
	return &res;
}

static bool have_engine(void)
{
	struct mkw_engine *e;
	int err = mkw_engine_open(NULL, &e);

	if (err) {
		print_message("skipped: no engine here: %s\n", strerror(-err));
		return false;
	}
	return mkw_engine_close(e) == 0;
}

/* ---- the engine ---------------------------------------------------------------- */

static void sound_engine(void **state)
{
	struct check_config cfg = CHECK_CONFIG_INIT;
	unsigned skipped = 0, failed = 0;

	(void)state;
	if (!have_engine())
		skip();
	for (const struct window *w = mkw__windows; w->name; w++) {
		struct win_result *res = run(&mkw__check_engine_target, w->name);

		skipped += res->verdict == WIN_SKIPPED;
		if (!mkw__win_failure(res, &cfg, true))
			continue;
		print_message("%s: %s: %s\n", w->name,
			      mkw__win_verdict_name(res->verdict),
			      res->evidence);
		failed++;
	}
	assert_int_equal(failed, 0);
	/* Those of the slow device, and 512 bytes where blocks are larger. */
	assert_true(skipped < 30);
}

static void expect(const struct target_ops *ops, const char *name,
		   enum win_verdict verdict)
{
	struct win_result *res = run(ops, name);

	if (res->verdict == WIN_SKIPPED) {
		print_message("skipped: %s: %s\n", name, res->evidence);
		skip();
	}
	if (res->verdict != verdict)
		print_message("%s: %s: %s\n", name,
			      mkw__win_verdict_name(res->verdict),
			      res->evidence);
	assert_int_equal(res->verdict, verdict);
	assert_true(res->evidence[0]);
}

static void engine_with(enum mkw__mutant mutant, const char *name,
			enum win_verdict verdict)
{
	if (!have_engine())
		skip();
	mkw__testing.mutant = mutant;
	expect(&mkw__check_engine_target, name, verdict);
	mkw__testing.mutant = MKW__MUTANT_NONE;
}

static void engine_direct_write_leaves_frames(void **state)
{
	(void)state;
	/* Its direct reads see the frames, too. */
	engine_with(MKW__MUTANT_DIRECT_LEAVES_FRAMES, "dwrite-load",
		    WIN_LOST_DIRECT_WRITE);
}

static void engine_truncate_keeps_tail(void **state)
{
	(void)state;
	engine_with(MKW__MUTANT_TRUNCATE_KEEPS_TAIL, "past-end-truncate",
		    WIN_PAST_END);
}

static void engine_punch_leaves_frames(void **state)
{
	(void)state;
	engine_with(MKW__MUTANT_PUNCH_LEAVES_FRAMES, "dread-punch",
		    WIN_RESURRECTED);
}

/* The slow device holds a fault, and is frozen; bugs show there, too. */
static void engine_on_slow_device(void **state)
{
	static const struct {
		const char *window;
		enum mkw__mutant mutant;
		enum win_verdict verdict;
	} cases[] = {
		{ "fault-punch", MKW__MUTANT_NONE, WIN_EXCLUDED },
		{ "fault-punch", MKW__MUTANT_PUNCH_LEAVES_FRAMES, WIN_RESURRECTED },
		{ "freeze-store", MKW__MUTANT_NONE, WIN_EXCLUDED },
		/* Let in, whether or not the cache has unmapped the page meanwhile. */
		{ "freeze-store", MKW__MUTANT_STORE_PASSES_GATE, WIN_COHERENT },
	};
	enum { CASES = sizeof(cases) / sizeof(cases[0]) };
	struct check_config cfg = CHECK_CONFIG_INIT;
	struct win_result res[CASES];
	struct slow slow;

	(void)state;
	if (!have_engine())
		skip();
	mkw__slow_start(&slow, "ext4");
	if (!slow.up) {
		print_message("skipped: %s\n", slow.why);
		skip();
	}
	cfg.target_ops = &mkw__check_engine_target;
	cfg.dir = dir();
	cfg.slow = &slow;
	for (unsigned i = 0; i < CASES; i++) {
		mkw__testing.mutant = cases[i].mutant;
		mkw__window_run(mkw__window_find(cases[i].window), &cfg, &res[i]);
	}
	mkw__testing.mutant = MKW__MUTANT_NONE;
	mkw__slow_stop(&slow);
	for (unsigned i = 0; i < CASES; i++) {
		print_message("%s: %s\n", cases[i].window, res[i].evidence);
		assert_int_equal(res[i].verdict, cases[i].verdict);
	}
}

/* ---- the fake -------------------------------------------------------------------- */

/*
 * A memfd. A direct write goes as the kernel's does: the old page is remembered
 * (which stands for a touch that brings it back), the source is read, which may
 * take long, and written; if somebody has stored into the old page meanwhile,
 * it is that page which stays.
 */
static char *fake_map;
static size_t fake_len;
static pthread_rwlock_t fake_lock = PTHREAD_RWLOCK_INITIALIZER;

static int fake_open(struct target *t, const struct check_config *cfg,
		     size_t len)
{
	(void)cfg;
	fake_len = len;
	fake_map = mmap(NULL, len, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (fake_map == MAP_FAILED)
		return -ENOMEM;
	t->map = (void *)fake_map;
	t->direct_align = 512;
	snprintf(t->label, sizeof(t->label), "fake");
	return 0;
}

static void fake_close(struct target *t)
{
	(void)t;
	munmap(fake_map, fake_len);
}

/* Word by word, upwards; either may be reached through the mapping meanwhile. */
static void copy(void *to, const void *from, size_t len)
{
	_Atomic uint64_t *dst = to;
	_Atomic uint64_t *src = (_Atomic uint64_t *)(uintptr_t)from;

	for (size_t i = 0; i < len / 8; i++)
		atomic_store_explicit(&dst[i],
				      atomic_load_explicit(&src[i],
							   memory_order_relaxed),
				      memory_order_relaxed);
}

static ssize_t fake_pread(struct target *t, void *buf, size_t len, off_t off,
			  unsigned way)
{
	(void)t;
	if (planted == BUG_ERRORS && way & WAY_DIRECT)
		return -EIO;
	if (planted != BUG_TEARS)
		pthread_rwlock_rdlock(&fake_lock);
	copy(buf, fake_map + off, len);
	if (planted != BUG_TEARS)
		pthread_rwlock_unlock(&fake_lock);
	return (ssize_t)len;
}

static ssize_t fake_pwrite(struct target *t, const void *buf, size_t len,
			   off_t off, unsigned way)
{
	bool direct = way & WAY_DIRECT && planted == BUG_DIRECT_WRITE;
	char *page = fake_map + (off & ~(off_t)4095);
	char old[4096], now[4096];
	char *source = malloc(len);

	(void)t;
	if (planted == BUG_CRASHES)
		raise(SIGSEGV);
	while (planted == BUG_HANGS && way & WAY_DIRECT)
		pause();
	pthread_rwlock_wrlock(&fake_lock);
	copy(old, page, sizeof(old));
	/* Here it is held. A write that tears is one that uses the mapping. */
	if (planted != BUG_TEARS)
		copy(source, buf, len);
	copy(now, page, sizeof(now));
	if (!direct || !memcmp(old, now, sizeof(old)))
		copy(fake_map + off, planted == BUG_TEARS ? buf : source, len);
	free(source);
	pthread_rwlock_unlock(&fake_lock);
	return (ssize_t)len;
}

static int fake_nothing(struct target *t, int mode, off_t off, off_t len)
{
	(void)t;
	(void)mode;
	(void)off;
	(void)len;
	return 0;
}

static int fake_truncate(struct target *t, off_t size)
{
	(void)t;
	(void)size;
	return 0;
}

static int fake_sync(struct target *t)
{
	(void)t;
	return 0;
}

static const struct target_ops fake_ops = {
	.name = "fake",
	.open = fake_open,
	.pread = fake_pread,
	.pwrite = fake_pwrite,
	.fallocate = fake_nothing,
	.truncate = fake_truncate,
	.sync = fake_sync,
	.close = fake_close,
};

static void fake(enum bug bug, const char *name, enum win_verdict verdict)
{
	planted = bug;
	expect(&fake_ops, name, verdict);
}

static void lost_direct_write(void **state)
{
	(void)state;
	fake(BUG_NONE, "dwrite-store-other-sector", WIN_COHERENT);
	fake(BUG_DIRECT_WRITE, "dwrite-store-other-sector",
	     WIN_LOST_DIRECT_WRITE);
}

static void tearing(void **state)
{
	(void)state;
	fake(BUG_NONE, "write-read", WIN_EXCLUDED);
	fake(BUG_TEARS, "write-read", WIN_TORN);
	fake(BUG_NONE, "read-write", WIN_EXCLUDED);
	fake(BUG_TEARS, "read-write", WIN_TORN);
	/* memcpy() without a lock, of overlapping ranges. */
	fake(BUG_TEARS, "self-buffered-read-page", WIN_TORN);
}

static void errors(void **state)
{
	(void)state;
	fake(BUG_NONE, "dread-store", WIN_COHERENT);
	fake(BUG_ERRORS, "dread-store", WIN_ERROR);
	/* Nothing is cut off by this truncate, and no punch does anything. */
	fake(BUG_NONE, "past-end-truncate", WIN_PAST_END);
	fake(BUG_NONE, "dread-punch", WIN_RESURRECTED);
	fake(BUG_CRASHES, "dwrite-load", WIN_ERROR);
}

static void deadlock(void **state)
{
	(void)state;
	fake(BUG_HANGS, "cross-direct-write", WIN_DEADLOCK);
	planted = BUG_NONE;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lost_direct_write),
		cmocka_unit_test(tearing),
		cmocka_unit_test(errors),
		cmocka_unit_test(deadlock),
		cmocka_unit_test(sound_engine),
		cmocka_unit_test(engine_direct_write_leaves_frames),
		cmocka_unit_test(engine_truncate_keeps_tail),
		cmocka_unit_test(engine_punch_leaves_frames),
		cmocka_unit_test(engine_on_slow_device),
	};

	return cmocka_run_group_tests_name("windows", tests, NULL, NULL);
}
