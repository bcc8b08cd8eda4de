/* SPDX-License-Identifier: MIT */
/*
 * Freeze and thaw on real files: under a storm of stores and writes the host's file has
 * all that was there before, and does not change; reads go on; who waited goes on
 * afterwards. Whose freezes they are, what ends them, and a freeze that fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "mkwrite/mkwrite.h"
#include "access.h"
#include "leftover.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 16u
#define STORERS 2u
#define ROUNDS (TEST_SLOW ? 3u : 6u)
#define LOOKS 8u
#define PATIENCE_S 100

static size_t page;
static char path[256];

static const struct kind {
	enum mkw_policy policy;
	unsigned map_flags;
} kinds[] = {
	{ MKW_POLICY_RETRY, 0 },
	{ MKW_POLICY_RETRY, MKW_MAP_INLINE },
	{ MKW_POLICY_INVALIDATE, 0 },
	{ MKW_POLICY_INVALIDATE, MKW_MAP_INLINE },
};

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *p, *read_only;
};

static void start(struct fixture *f, const struct kind *kind)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	opt.policy = kind->policy;
	opt.writeback_age_ms = 1;	/* the flusher is always about */
	leftover_open(&opt, path, P(PAGES), &f->engine, &f->file);
	assert_int_equal(mkw_map(f->file, NULL, P(PAGES), PROT_READ | PROT_WRITE,
				 kind->map_flags, 0, (void **)&f->p), 0);
	assert_int_equal(mkw_map(f->file, NULL, P(PAGES), PROT_READ,
				 kind->map_flags, 0, (void **)&f->read_only), 0);
}

static void finish(struct fixture *f)
{
	assert_int_equal(mkw_unmap(f->read_only, P(PAGES)), 0);
	leftover_end(f->engine, f->file, f->p, P(PAGES), path);
}

static int clean_up(void **state)
{
	(void)state;
	unlink(path);
	return leftover_clear();
}

static uint64_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec;
}

/* Until the number has grown by more than `by`. */
static void wait_beyond(_Atomic uint64_t *number, uint64_t from, uint64_t by)
{
	uint64_t end = now_s() + PATIENCE_S;

	while (atomic_load(number) <= from + by) {
		if (now_s() > end)
			fail_msg("who waited for the thaw does not go on");
		sched_yield();
	}
}

/* ---- the storm --------------------------------------------------------- */

/*
 * A storer writes round n into its word of every page of the first half, then says so;
 * the writer does the same with whole pages of the second half, in turn buffered and
 * direct, and punches one.
 */
static struct fixture storm;
static _Atomic uint64_t done[STORERS + 1];
static _Atomic bool stop;

static _Atomic uint64_t *word_at(unsigned char *p, unsigned pg, unsigned who)
{
	return (_Atomic uint64_t *)(void *)(p + P(pg) + 64 * who);
}

static void *storer(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg;

	for (uint64_t n = 1; !atomic_load(&stop); n++) {
		for (unsigned pg = 0; pg < PAGES / 2; pg++)
			atomic_store_explicit(word_at(storm.p, pg, who), n,
					      memory_order_relaxed);
		atomic_store(&done[who], n);
	}
	return NULL;
}

static void *writer(void *arg)
{
	unsigned char *buf = aligned_alloc(page, page);
	int r = 0;

	(void)arg;
	for (uint64_t n = 1; !atomic_load(&stop) && !r; n++) {
		for (size_t i = 0; i < page; i += sizeof(n))
			memcpy(buf + i, &n, sizeof(n));
		for (unsigned pg = PAGES / 2; pg < PAGES - 1; pg++)
			if (mkw_pwrite(storm.file, buf, page, (off_t)P(pg),
				       n % 2 ? MKW_DIRECT : 0) != (ssize_t)page)
				r = 1;
		if (mkw_fallocate(storm.file,
				  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (off_t)P(PAGES - 1), (off_t)page))
			r = 1;
		atomic_store(&done[STORERS], n);
	}
	free(buf);
	return (void *)(intptr_t)r;
}

/* Of the host, past its cache where that can be. */
static void read_host(unsigned char *buf)
{
	int fd = open(path, O_RDONLY | O_DIRECT);

	if (fd < 0)
		fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, P(PAGES), 0), P(PAGES));
	close(fd);
}

static void freeze_once(bool engine, unsigned char *was, unsigned char *is)
{
	uint64_t before[STORERS + 1], thawed[STORERS + 1], found;

	for (unsigned i = 0; i <= STORERS; i++)
		before[i] = atomic_load(&done[i]);
	assert_int_equal(engine ? mkw_engine_freeze(storm.engine) :
				  mkw_file_freeze(storm.file), 0);
	read_host(was);
	/* All that was over is there. */
	for (unsigned who = 0; who < STORERS; who++)
		for (unsigned pg = 0; pg < PAGES / 2; pg++) {
			memcpy(&found, was + P(pg) + 64 * who, sizeof(found));
			assert_true(found >= before[who]);
		}
	for (unsigned pg = PAGES / 2; pg < PAGES - 1; pg++) {
		memcpy(&found, was + P(pg), sizeof(found));
		assert_true(found >= before[STORERS]);
	}
	/* It stays, here and there; calls, loads and syncs go on. */
	for (unsigned i = 0; i < LOOKS; i++) {
		assert_int_equal(mkw_pread(storm.file, is, P(PAGES), 0,
					   i % 2 ? MKW_DIRECT : 0), P(PAGES));
		assert_memory_equal(is, was, P(PAGES));
		assert_memory_equal(storm.read_only, was, P(PAGES));
		assert_int_equal(mkw_pwrite(storm.file, is, page, 0, MKW_NOWAIT),
				 -EAGAIN);
		if (i == LOOKS / 2) {
			assert_int_equal(mkw_sync(storm.file), 0);
			assert_int_equal(mkw_advise(storm.file, 0, 0,
						    MKW_ADVICE_DONTNEED), 0);
		}
		read_host(is);
		assert_memory_equal(is, was, P(PAGES));
	}
	for (unsigned i = 0; i <= STORERS; i++)
		thawed[i] = atomic_load(&done[i]);
	assert_int_equal(engine ? mkw_engine_thaw(storm.engine) :
				  mkw_file_thaw(storm.file), 0);
	for (unsigned i = 0; i <= STORERS; i++)
		wait_beyond(&done[i], thawed[i], 1);
}

static void test_storm(void **state)
{
	unsigned char *was = aligned_alloc(page, P(PAGES));
	unsigned char *is = aligned_alloc(page, P(PAGES));

	(void)state;
	for (unsigned k = 0; k < 4; k++) {
		pthread_t t[STORERS + 1];
		void *failed;

		start(&storm, &kinds[k]);
		atomic_store(&stop, false);
		for (unsigned i = 0; i <= STORERS; i++) {
			atomic_store(&done[i], 0);
			assert_int_equal(pthread_create(&t[i], NULL,
				i < STORERS ? storer : writer,
				(void *)(uintptr_t)i), 0);
		}
		for (unsigned i = 0; i <= STORERS; i++)
			wait_beyond(&done[i], 0, 1);
		for (unsigned i = 0; i < ROUNDS; i++)
			freeze_once(i % 2, was, is);
		atomic_store(&stop, true);
		for (unsigned i = 0; i <= STORERS; i++) {
			pthread_join(t[i], &failed);
			assert_null(failed);
		}
		finish(&storm);
	}
	free(was);
	free(is);
}

/* ---- whose freezes they are -------------------------------------------- */

static bool is_frozen(struct mkw_file *file)
{
	return mkw_pwrite(file, "x", 1, 0, MKW_NOWAIT) == -EAGAIN;
}

/* Or this waits for ever. (A write that may not wait may meet the flusher.) */
static void is_thawed(struct mkw_file *file)
{
	assert_int_equal(mkw_pwrite(file, "x", 1, 0, 0), 1);
}

static void test_counts(void **state)
{
	struct mkw_file *other, *late;
	struct fixture f;
	char name[300];

	(void)state;
	start(&f, &kinds[0]);
	is_thawed(f.file);
	assert_int_equal(mkw_file_thaw(f.file), -EINVAL);
	assert_int_equal(mkw_engine_thaw(f.engine), -EINVAL);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDWR, 0, &other), 0);
	leftover_file(other);

	assert_int_equal(mkw_file_freeze(f.file), 0);
	assert_int_equal(mkw_file_freeze(f.file), 0);
	assert_int_equal(mkw_file_thaw(other), -EINVAL);
	assert_int_equal(mkw_file_thaw(f.file), 0);
	assert_true(is_frozen(f.file));
	assert_int_equal(mkw_file_thaw(f.file), 0);
	is_thawed(f.file);
	assert_int_equal(mkw_file_thaw(f.file), -EINVAL);

	/* A handle's freezes go with it. */
	assert_int_equal(mkw_file_freeze(other), 0);
	assert_int_equal(mkw_file_freeze(other), 0);
	assert_true(is_frozen(f.file));
	assert_int_equal(leftover_close(other), 0);
	is_thawed(f.file);

	/* The engine's, beside them; a file that comes later. */
	snprintf(name, sizeof(name), "%s.late", path);
	assert_int_equal(mkw_file_freeze(f.file), 0);
	assert_int_equal(mkw_engine_freeze(f.engine), 0);
	assert_int_equal(mkw_engine_freeze(f.engine), 0);
	assert_int_equal(mkw_file_thaw(f.file), 0);
	assert_int_equal(mkw_file_thaw(f.file), -EINVAL);
	assert_true(is_frozen(f.file));
	assert_int_equal(mkw_file_open(f.engine, name, O_RDWR | O_CREAT, 0600,
				       &late), 0);
	leftover_file(late);
	unlink(name);
	assert_true(is_frozen(late));
	assert_int_equal(mkw_engine_thaw(f.engine), 0);
	assert_true(is_frozen(late));
	assert_true(is_frozen(f.file));
	assert_int_equal(mkw_engine_thaw(f.engine), 0);
	assert_int_equal(mkw_engine_thaw(f.engine), -EINVAL);
	is_thawed(f.file);
	is_thawed(late);
	assert_int_equal(leftover_close(late), 0);
	finish(&f);
}

/* ---- what is unmapped while it is frozen ------------------------------- */

static _Atomic uint64_t about_to;

static void *store_once(void *arg)
{
	unsigned char *p = arg;

	atomic_fetch_add(&about_to, 1);
	return (void *)(intptr_t)try_access(p, true);
}

static uint64_t parks(struct mkw_engine *e)
{
	struct mkw_stats st = MKW_STATS_INIT;

	assert_int_equal(mkw_engine_stats(e, &st), 0);
	return st.parks;
}

/* Two stores wait; their mapping goes, and with it the last use of the file. */
static void test_unmapped(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		uint64_t end = now_s() + PATIENCE_S, parked;
		struct fixture f;
		pthread_t t[2];
		void *sig;

		start(&f, &kinds[k]);
		assert_int_equal(mkw_unmap(f.read_only, P(PAGES)), 0);
		assert_int_equal(mkw_engine_freeze(f.engine), 0);
		parked = parks(f.engine);
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&t[i], NULL, store_once,
							f.p + P(i)), 0);
		while (parks(f.engine) < parked + 2) {
			assert_true(now_s() < end);
			sched_yield();
		}
		assert_int_equal(leftover_close(f.file), 0);
		assert_int_equal(mkw_unmap(f.p, P(PAGES)), 0);
		for (unsigned i = 0; i < 2; i++) {
			pthread_join(t[i], &sig);
			assert_non_null(sig);
		}
		assert_int_equal(mkw_engine_thaw(f.engine), 0);
		assert_int_equal(leftover_engine_close(f.engine), 0);
		unlink(path);
	}
}

/*
 * More stores wait than the pager has places for faults; loads, of this file and of
 * another mapping, are served all the same.
 */
#define CROWD (MKW__PAGER_FAULTS + 8u)

static void test_crowd(void **state)
{
	uint64_t end = now_s() + PATIENCE_S, parked;
	static pthread_t t[CROWD];
	struct fixture f;
	unsigned char *p;
	void *sig;

	(void)state;
	start(&f, &kinds[0]);
	assert_int_equal(mkw_truncate(f.file, (off_t)P(2 * CROWD)), 0);
	assert_int_equal(mkw_map(f.file, NULL, P(2 * CROWD),
				 PROT_READ | PROT_WRITE, 0, 0, (void **)&p), 0);
	assert_int_equal(mkw_file_freeze(f.file), 0);
	parked = parks(f.engine);
	for (unsigned i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&t[i], NULL, store_once,
						p + P(2 * i)), 0);
	while (parks(f.engine) < parked + CROWD) {
		assert_true(now_s() < end);
		sched_yield();
	}
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(f.read_only[P(i)], 0);
	assert_int_equal(mkw_file_thaw(f.file), 0);
	for (unsigned i = 0; i < CROWD; i++) {
		pthread_join(t[i], &sig);
		assert_null(sig);
		assert_int_equal(p[P(2 * i)], 0x5a);
	}
	assert_int_equal(mkw_unmap(p, P(2 * CROWD)), 0);
	finish(&f);
}

/* ---- a freeze that fails ------------------------------------------------ */

static struct mkw_store_ops below;
static _Atomic bool broken, flush_broken;

static void bad_write(void *arg, struct mkw_io *io)
{
	if (broken)
		mkw_io_done(io, -EIO);
	else
		below.write(arg, io);
}

static void bad_flush(void *arg, struct mkw_io *io)
{
	if (flush_broken || !below.flush)
		mkw_io_done(io, flush_broken ? -EIO : 0);
	else
		below.flush(arg, io);
}

static void test_fails(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw__store *st;
	struct mkw_engine *e;
	struct mkw_file *file;
	unsigned char *p;

	(void)state;
	assert_int_equal(mkw_engine_open(&opt, &e), 0);
	leftover_engine(e);
	mkw__trap_reinstall();
	assert_int_equal(mkw__memstore_open(P(2), &st), 0);
	below = st->ops;
	st->ops.write = bad_write;
	st->ops.flush = bad_flush;
	assert_int_equal(mkw__file_attach(e, st, true, &file), 0);
	leftover_file(file);
	assert_int_equal(mkw_map(file, NULL, P(2), PROT_READ | PROT_WRITE, 0, 0,
				 (void **)&p), 0);
	p[0] = 1;
	broken = true;
	assert_int_equal(mkw_file_freeze(file), -EIO);
	p[page] = 2;			/* not frozen */
	assert_int_equal(mkw_engine_freeze(e), -EIO);
	p[1] = 3;
	broken = false;
	flush_broken = true;
	assert_int_equal(mkw_file_freeze(file), -EIO);
	assert_int_equal(mkw_engine_freeze(e), -EIO);
	p[2] = 4;
	flush_broken = false;
	assert_int_equal(mkw_engine_freeze(e), 0);
	assert_int_equal(mkw_pwrite(file, "x", 1, 0, MKW_NOWAIT), -EAGAIN);
	assert_int_equal(mkw_engine_thaw(e), 0);
	p[2] = 5;
	mkw__engine_verify(e);
	assert_int_equal(mkw_unmap(p, P(2)), 0);
	assert_int_equal(leftover_close(file), 0);
	assert_int_equal(leftover_engine_close(e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_storm, clean_up),
		cmocka_unit_test_teardown(test_counts, clean_up),
		cmocka_unit_test_teardown(test_unmapped, clean_up),
		cmocka_unit_test_teardown(test_crowd, clean_up),
		cmocka_unit_test_teardown(test_fails, clean_up),
	};
	const char *dir = getenv("MKW_DIR");

	page = (size_t)sysconf(_SC_PAGESIZE);
	snprintf(path, sizeof(path), "%s/freeze-%d", dir ? dir : ".",
		 (int)getpid());
	access_begin();
	if (!access_possible())
		return 77;
	return cmocka_run_group_tests_name("freeze", tests, NULL, NULL);
}
