/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages that cannot be written: what keeps them, how they are capped, listed,
 * tried again, dropped, and lost at the last close.
 *
 * The store is memory, with pages whose writes fail. Both ways of serving faults.
 * Needs userfaultfd; skipped (77) without.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "core/testing.h"
#include "mkwrite/mkwrite.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 256u
#define CAP 8u

static size_t page;
static unsigned map_flags;

/* ---- a store with bad pages ------------------------------------------- */

static struct {
	_Atomic int error;
	_Atomic uint64_t from, to;	/* bytes */
} bad;

static struct mkw_store_ops memory_ops;

static void bad_write(void *arg, struct mkw_io *io)
{
	int r = io->off < bad.to && bad.from < io->off + io->len ? bad.error : 0;

	if (r)
		mkw_io_done(io, r);
	else
		memory_ops.write(arg, io);
}

static struct mkw_file *attach(struct mkw_engine *e)
{
	struct mkw__store *st;
	struct mkw_file *file;

	assert_int_equal(mkw__memstore_open(P(PAGES), &st), 0);
	memory_ops = st->ops;
	st->ops.write = bad_write;
	assert_int_equal(mkw__file_attach(e, st, true, &file), 0);
	return file;
}

static void set_bad(int error, size_t from, size_t to)
{
	bad.from = P(from);
	bad.to = P(to);
	bad.error = error;
}

/* ---- tests ------------------------------------------------------------ */

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file, *other;
	unsigned char *p, *q;
};

static void start(struct fixture *f)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	opt.failed_bytes_max = P(CAP);
	/* Longer than a test may take, shorter than any machine has been up by then. */
	opt.writeback_age_ms = 300000;
	set_bad(0, 0, 0);
	assert_int_equal(mkw_engine_open(&opt, &f->engine), 0);
	mkw__trap_reinstall();
	f->file = attach(f->engine);
	f->other = attach(f->engine);
	assert_int_equal(mkw_map(f->file, NULL, P(PAGES), PROT_READ | PROT_WRITE,
				 map_flags, 0, (void **)&f->p), 0);
	assert_int_equal(mkw_map(f->other, NULL, P(PAGES),
				 PROT_READ | PROT_WRITE, map_flags, 0,
				 (void **)&f->q), 0);
}

static void finish(struct fixture *f, int want)
{
	mkw__engine_verify(f->engine);
	assert_int_equal(mkw_unmap(f->p, P(PAGES)), 0);
	assert_int_equal(mkw_unmap(f->q, P(PAGES)), 0);
	assert_int_equal(mkw_file_close(f->file), want);
	assert_int_equal(mkw_file_close(f->other), 0);
}

static struct mkw_stats stats(struct fixture *f)
{
	struct mkw_stats st = MKW_STATS_INIT;

	assert_int_equal(mkw_engine_stats(f->engine, &st), 0);
	return st;
}

/* Makes pages [from, to) failed ones, by stores of 0x11 and a sync. */
static void fail_pages(struct fixture *f, size_t from, size_t to, int error)
{
	set_bad(error, from, to);
	for (size_t i = from; i < to; i++)
		f->p[P(i)] = 0x11;
	assert_int_equal(mkw_sync(f->file), error);
}

static int callback_error;

static int note_error(const struct mkw_fault_error *error, void *arg)
{
	(void)arg;
	callback_error = error->error;
	return MKW_FAULT_SIGBUS;
}

/* Until the flusher has begun and ended a pass. */
static void flusher_pass(struct mkw_engine *e)
{
	/* The one that ends first may have begun before. */
	for (int i = 0; i < 2; i++) {
		struct mkw__sleeper s;

		mkw__sleeper_init(&s);
		mkw__mutex_lock(&e->pool.mutex);
		TAILQ_INSERT_TAIL(&e->pool.dirty_waiters, &s.waiter, link);
		mkw__mutex_unlock(&e->pool.mutex);
		mkw__flusher_kick(e);
		mkw__sleeper_wait(&s);
	}
}

/* Beyond the cap the file takes no more dirt, and everything else goes on. */
static void test_cap(void **state)
{
	struct fixture f;
	unsigned char c = 0;

	(void)state;
	start(&f);
	fail_pages(&f, 0, CAP - 1, -EIO);
	assert_int_equal(stats(&f).failed_bytes, P(CAP - 1));
	assert_int_equal(try_access(f.p + P(100), true), 0);
	fail_pages(&f, 0, CAP, -EIO);
	assert_int_equal(stats(&f).failed_bytes, P(CAP));
	assert_int_equal(try_access(f.p + P(101), true), SIGBUS);
	assert_int_equal(mkw_file_on_fault_error(f.file, note_error, NULL), 0);
	assert_int_equal(try_access(f.p + P(101), true), SIGBUS);
	assert_int_equal(callback_error, -EIO);
	assert_int_equal(mkw_pwrite(f.file, &c, 1, P(102), 0), -EIO);
	/* Loads, pages that are dirty already, and other files. */
	assert_int_equal(try_access(f.p + P(101), false), 0);
	assert_int_equal(try_access(f.p + P(3) + 1, true), 0);
	assert_int_equal(mkw_pwrite(f.file, &c, 1, P(4) + 1, 0), 1);
	assert_int_equal(f.p[P(3)], 0x11);
	assert_int_equal(try_access(f.q + P(101), true), 0);
	assert_int_equal(mkw_sync(f.other), 0);
	/* It heals. */
	set_bad(0, 0, 0);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(stats(&f).failed_bytes, 0);
	assert_int_equal(try_access(f.p + P(101), true), 0);
	assert_int_equal(mkw_pwrite(f.file, &c, 1, P(102), 0), 1);
	finish(&f, 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
}

/* One bad page does not hold back those that were written with it. */
static void test_neighbours(void **state)
{
	struct mkw_failed vec[4];
	struct fixture f;

	(void)state;
	start(&f);
	set_bad(-EIO, 5, 6);
	for (size_t i = 0; i < 16; i++)
		f.p[P(i)] = (unsigned char)(i + 1);
	assert_int_equal(mkw_sync(f.file), -EIO);
	assert_int_equal(mkw_sync(f.file), -EIO);
	assert_int_equal(mkw_failed(f.file, 0, vec, 4), 1);
	assert_int_equal(vec[0].off, P(5));
	assert_int_equal(vec[0].len, page);
	assert_int_equal(vec[0].error, -EIO);
	set_bad(0, 0, 0);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(mkw_failed(f.file, 0, vec, 4), 0);
	finish(&f, 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
}

/* The flusher leaves what failed just now alone: its error is told by one sync. */
static void test_not_at_once(void **state)
{
	struct fixture f;
	uint64_t errors;

	(void)state;
	start(&f);
	fail_pages(&f, 0, 4, -ENOSPC);
	errors = stats(&f).writeback_errors;
	flusher_pass(f.engine);
	assert_int_equal(stats(&f).writeback_errors, errors);
	set_bad(0, 0, 0);
	assert_int_equal(mkw_sync(f.file), 0);
	finish(&f, 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
}

/* Ranges by error, and from an offset. */
static void test_list(void **state)
{
	struct mkw_failed vec[4];
	struct fixture f;

	(void)state;
	start(&f);
	fail_pages(&f, 2, 4, -EIO);
	fail_pages(&f, 70, 72, -ENOSPC);
	assert_int_equal(mkw_failed(f.file, 0, vec, 1), 1);
	/* The first two were written by the second sync. */
	assert_int_equal(vec[0].off, P(70));
	assert_int_equal(vec[0].error, -ENOSPC);
	bad.from = 0;
	f.p[P(3)] = 1;
	assert_int_equal(mkw_sync(f.file), -ENOSPC);
	assert_int_equal(mkw_failed(f.file, 0, vec, 4), 2);
	assert_int_equal(vec[0].off, P(3));
	assert_int_equal(vec[0].len, page);
	assert_int_equal(vec[1].off, P(70));
	assert_int_equal(vec[1].len, P(2));
	assert_int_equal(mkw_failed(f.file, P(71) + 5, vec, 4), 1);
	assert_int_equal(vec[0].off, P(71) + 5);
	assert_int_equal(vec[0].len, page - 5);
	assert_int_equal(mkw_failed(f.file, P(72), vec, 4), 0);
	assert_int_equal(mkw_failed(f.file, 0, vec, 0), 0);

	assert_int_equal(mkw_failed(NULL, 0, vec, 4), -EINVAL);
	assert_int_equal(mkw_failed(f.file, 0, NULL, 4), -EINVAL);
	assert_int_equal(mkw_failed(f.file, -1, vec, 4), -EINVAL);
	assert_int_equal(mkw_discard(NULL, 0, 1), -EINVAL);
	assert_int_equal(mkw_discard(f.file, -1, 1), -EINVAL);
	assert_int_equal(mkw_discard(f.file, 0, 0), -EINVAL);
	assert_int_equal(mkw_discard(f.file, 1, INT64_MAX), -EINVAL);
	set_bad(0, 0, 0);
	finish(&f, 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
}

/* What is discarded is what it was on the device; what is dirty otherwise stays. */
static void test_discard(void **state)
{
	struct fixture f;

	(void)state;
	start(&f);
	for (size_t i = 0; i < 8; i++)
		f.p[P(i)] = 0x77;
	assert_int_equal(mkw_sync(f.file), 0);
	fail_pages(&f, 2, 5, -EIO);
	f.p[P(6)] = 0x22;
	/* Half of page 2 is not all of it. */
	assert_int_equal(mkw_discard(f.file, P(2) + 1, P(2)), page);
	assert_int_equal(f.p[P(2)], 0x11);
	assert_int_equal(f.p[P(3)], 0x77);
	assert_int_equal(f.p[P(4)], 0x11);
	assert_int_equal(mkw_discard(f.file, 0, P(PAGES)), P(2));
	assert_int_equal(f.p[P(2)], 0x77);
	assert_int_equal(f.p[P(6)], 0x22);
	assert_int_equal(mkw_discard(f.file, 0, P(PAGES)), 0);
	assert_int_equal(stats(&f).failed_bytes, 0);
	/* It was reported before, and nothing is left to fail. */
	assert_int_equal(mkw_sync(f.file), 0);
	finish(&f, 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
}

/* Closing returns, says so, and counts what is lost. */
static void test_close(void **state)
{
	struct fixture f;

	(void)state;
	start(&f);
	fail_pages(&f, 1, 4, -EIO);
	finish(&f, -EIO);
	assert_int_equal(stats(&f).lost_bytes, P(3));
	assert_int_equal(mkw_engine_close(f.engine), 0);
}

/* With the planted bug the cap is not met. */
static void test_uncapped_is_noticed(void **state)
{
	struct fixture f;

	(void)state;
	mkw__testing.mutant = MKW__MUTANT_FAILED_NOT_MARKED;
	start(&f);
	fail_pages(&f, 0, 2 * CAP, -EIO);
	assert_int_equal(try_access(f.p + P(101), true), 0);
	assert_int_equal(stats(&f).failed_bytes, 0);
	set_bad(0, 0, 0);
	finish(&f, 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
	mkw__testing.mutant = MKW__MUTANT_NONE;
}

/* A sync of a range tells what failed in it, and leaves the rest to be told. */
static void test_sync_of_range(void **state)
{
	struct fixture f;

	(void)state;
	start(&f);
	fail_pages(&f, 3, 4, -EIO);
	f.p[P(5)] = 0x22;
	assert_int_equal(mkw_sync_range(f.file, (off_t)P(5), (off_t)page, 0), 0);
	assert_int_equal(mkw_sync_range(f.file, (off_t)P(3), (off_t)page, 0), -EIO);
	set_bad(0, 0, 0);
	assert_int_equal(mkw_sync_range(f.file, (off_t)P(3), (off_t)page, 0), 0);
	assert_int_equal(mkw_sync(f.file), -EIO);
	assert_int_equal(mkw_sync(f.file), 0);
	finish(&f, 0);
}

/* What cannot be written cannot be moved, and nothing else is. */
static void test_not_moved(void **state)
{
	struct fixture f;

	(void)state;
	start(&f);
	fail_pages(&f, 3, 4, -EIO);
	f.p[P(5)] = 0x22;
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_COLLAPSE_RANGE,
				       (off_t)page, (off_t)page), -EIO);
	assert_int_equal(mkw_size(f.file), P(PAGES));
	assert_int_equal(f.p[P(3)], 0x11);
	assert_int_equal(f.p[P(5)], 0x22);
	set_bad(0, 0, 0);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_COLLAPSE_RANGE,
				       (off_t)page, (off_t)page), 0);
	assert_int_equal(mkw_size(f.file), P(PAGES - 1));
	assert_int_equal(f.p[P(2)], 0x11);
	assert_int_equal(f.p[P(4)], 0x22);
	/* The try that failed is told once. */
	assert_int_equal(mkw_sync(f.file), -EIO);
	assert_int_equal(mkw_sync(f.file), 0);
	finish(&f, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_not_at_once),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_not_moved),
		cmocka_unit_test(test_sync_of_range),
		cmocka_unit_test(test_uncapped_is_noticed),
	};
	int failed;

	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	if (!access_possible())
		return 77;
	failed = cmocka_run_group_tests_name("pager", tests, NULL, NULL);
	map_flags = MKW_MAP_INLINE;
	failed += cmocka_run_group_tests_name("inline", tests, NULL, NULL);
	return failed;
}
