/* SPDX-License-Identifier: MIT */
/*
 * Collapse and insert on real files: what every way in shows after them, what they
 * refuse, and stores that race with them. Run on each file system of test/meson.build;
 * where it cannot move ranges the engine must say so, and change nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mkwrite/mkwrite.h"
#include "access.h"
#include "leftover.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 8u
#define ROUNDS 200u

static size_t page;
static char path[256];
static bool supported;

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
	unsigned char *p;		/* twice as long as the file at first */
};

static void start(struct fixture *f, const struct kind *kind)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	opt.policy = kind->policy;
	leftover_open(&opt, path, P(PAGES), &f->engine, &f->file);
	assert_int_equal(mkw_map(f->file, NULL, P(2 * PAGES),
				 PROT_READ | PROT_WRITE, kind->map_flags, 0,
				 (void **)&f->p), 0);
}

static void finish(struct fixture *f)
{
	leftover_end(f->engine, f->file, f->p, P(2 * PAGES), path);
}

static int clean_up(void **state)
{
	(void)state;
	unlink(path);
	return leftover_clear();
}

static int collapse(struct fixture *f, size_t off, size_t len)
{
	return mkw_fallocate(f->file, FALLOC_FL_COLLAPSE_RANGE, (off_t)off,
			     (off_t)len);
}

static int insert(struct fixture *f, size_t off, size_t len)
{
	return mkw_fallocate(f->file, FALLOC_FL_INSERT_RANGE, (off_t)off,
			     (off_t)len);
}

/* Page i begins with want[i], in every way in, and in the file after a sync. */
static void check_pages(struct fixture *f, const unsigned char *want, unsigned n)
{
	unsigned char *buf = aligned_alloc(page, page);
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(mkw_size(f->file), P(n));
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(f->p[P(i)], want[i]);
		assert_int_equal(f->p[P(i) + page - 1], want[i]);
		assert_int_equal(mkw_pread(f->file, buf, page, (off_t)P(i), 0),
				 page);
		assert_int_equal(buf[page / 2], want[i]);
		assert_int_equal(mkw_pread(f->file, buf, page, (off_t)P(i),
					   MKW_DIRECT), page);
		assert_int_equal(buf[page / 2], want[i]);
	}
	assert_int_equal(mkw_sync(f->file), 0);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(pread(fd, buf, page, (off_t)P(i)), page);
		assert_int_equal(buf[page / 2], want[i]);
	}
	assert_int_equal(pread(fd, buf, 1, (off_t)P(n)), 0);
	close(fd);
	free(buf);
}

static void skip_unsupported(void)
{
	print_message("skipped: this file system cannot move ranges\n");
	skip();
}

/* Dirty pages, by stores and by a write. */
static void fill(struct fixture *f)
{
	unsigned char *buf = malloc(page);

	for (unsigned i = 0; i < PAGES; i++) {
		memset(buf, (int)i + 1, page);
		if (i % 2)
			assert_int_equal(mkw_pwrite(f->file, buf, page,
						    (off_t)P(i), 0), page);
		else
			memcpy(f->p + P(i), buf, page);
	}
	free(buf);
}

static void test_moves(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 4; k++) {
		struct fixture f;

		start(&f, &kinds[k]);
		fill(&f);
		if (!supported) {
			assert_int_equal(collapse(&f, P(2), P(2)), -EOPNOTSUPP);
			assert_int_equal(insert(&f, P(2), P(2)), -EOPNOTSUPP);
			check_pages(&f, (unsigned char[]){ 1, 2, 3, 4, 5, 6, 7, 8 }, 8);
			finish(&f);
			continue;
		}
		assert_int_equal(collapse(&f, P(2), P(2)), 0);
		check_pages(&f, (unsigned char[]){ 1, 2, 5, 6, 7, 8 }, 6);
		assert_true(try_access(&f.p[P(6)], false));
		assert_int_equal(insert(&f, P(1), P(1)), 0);
		check_pages(&f, (unsigned char[]){ 1, 0, 2, 5, 6, 7, 8 }, 7);
		assert_int_equal(insert(&f, 0, P(3)), 0);
		memset(f.p, 9, page);
		assert_int_equal(collapse(&f, P(8), P(1)), 0);
		check_pages(&f, (unsigned char[]){ 9, 0, 0, 1, 0, 2, 5, 6, 8 }, 9);
		finish(&f);
	}
}

/* The end of the file lies inside a page, and bytes were stored past it. */
static void test_short_last_page(void **state)
{
	struct fixture f;

	(void)state;
	if (!supported)
		skip_unsupported();
	start(&f, &kinds[0]);
	fill(&f);
	assert_int_equal(mkw_truncate(f.file, (off_t)P(3) + 100), 0);
	f.p[P(3) + 99] = 77;
	f.p[P(3) + 200] = 88;		/* past the end: to be zero again */
	assert_int_equal(collapse(&f, P(1), P(1)), 0);
	assert_int_equal(mkw_size(f.file), P(2) + 100);
	assert_int_equal(f.p[P(1)], 3);
	assert_int_equal(f.p[P(2) + 99], 77);
	assert_int_equal(f.p[P(2) + 200], 0);
	assert_int_equal(insert(&f, P(2), P(1)), 0);
	assert_int_equal(mkw_size(f.file), P(3) + 100);
	assert_int_equal(f.p[P(3) + 99], 77);
	assert_int_equal(mkw_truncate(f.file, (off_t)P(4)), 0);
	assert_int_equal(f.p[P(3) + 200], 0);
	finish(&f);
}

/* What is refused changes nothing. */
static void test_refused(void **state)
{
	const unsigned char want[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	struct mkw_file *reader;
	struct fixture f;

	(void)state;
	start(&f, &kinds[0]);
	fill(&f);
	assert_int_equal(collapse(&f, P(6), P(2)), -EINVAL);	/* to the end */
	assert_int_equal(collapse(&f, P(7), P(9)), -EINVAL);
	assert_int_equal(collapse(&f, P(8), P(1)), -EINVAL);
	assert_int_equal(insert(&f, P(8), P(1)), -EINVAL);
	assert_int_equal(insert(&f, P(9), P(1)), -EINVAL);
	assert_int_equal(collapse(&f, 0, 0), -EINVAL);
	if (supported) {
		assert_int_equal(collapse(&f, 1, P(1)), -EINVAL);
		assert_int_equal(collapse(&f, P(1), 3), -EINVAL);
		assert_int_equal(insert(&f, 7, P(1)), -EINVAL);
		assert_int_equal(insert(&f, P(1), (size_t)INT64_MAX - P(2) + 1),
				 -EFBIG);
	}
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_COLLAPSE_RANGE |
				       FALLOC_FL_KEEP_SIZE, 0, (off_t)page),
			 -EOPNOTSUPP);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDONLY, 0, &reader), 0);
	leftover_file(reader);
	assert_int_equal(mkw_fallocate(reader, FALLOC_FL_COLLAPSE_RANGE, 0,
				       (off_t)page), -EBADF);
	assert_int_equal(leftover_close(reader), 0);
	check_pages(&f, want, 8);
	finish(&f);
}

/* ---- stores that race -------------------------------------------------- */

struct racer {
	struct fixture *f;
	size_t at;			/* of its word, before the move */
	uint64_t value;
	pthread_barrier_t *ready;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	pthread_barrier_wait(r->ready);
	/* The thread sanitizer makes a stronger one with its own lock held, which
	 * its fault, served by this thread, then waits for. */
	atomic_store_explicit((_Atomic uint64_t *)(void *)(r->f->p + r->at),
			      r->value, memory_order_relaxed);
	return NULL;
}

static uint64_t word(struct fixture *f, size_t at)
{
	return atomic_load_explicit((_Atomic uint64_t *)(void *)(f->p + at),
				    memory_order_relaxed);
}

/*
 * Two threads store to the page that moves down, each to a word of its own, while page
 * 0 is taken out and, in the next round, put back. A store moved along or came after;
 * it is in one place, and the other has what was there.
 */
static void race_rounds(const struct kind *kind)
{
	struct fixture f;

	start(&f, kind);
	for (unsigned i = 0; i < ROUNDS; i++) {
		pthread_barrier_t ready;
		struct racer r[2];
		pthread_t t[2];

		for (unsigned k = 0; k < 3; k++)
			memset(f.p + P(k), (int)k + 1, page);
		pthread_barrier_init(&ready, NULL, 3);
		for (unsigned k = 0; k < 2; k++) {
			r[k] = (struct racer){ &f, P(1) + 64 * k, 1000 * (i + 1) + k,
					       &ready };
			assert_int_equal(pthread_create(&t[k], NULL, race, &r[k]),
					 0);
		}
		pthread_barrier_wait(&ready);
		assert_int_equal(collapse(&f, 0, page), 0);
		for (unsigned k = 0; k < 2; k++)
			pthread_join(t[k], NULL);
		pthread_barrier_destroy(&ready);
		for (unsigned k = 0; k < 2; k++) {
			uint64_t low = word(&f, 64 * k);
			uint64_t high = word(&f, P(1) + 64 * k);

			if (low == r[k].value)
				assert_int_equal(high, UINT64_C(0x0303030303030303));
			else
				assert_int_equal(low, UINT64_C(0x0202020202020202));
			assert_true((low == r[k].value) != (high == r[k].value));
		}
		assert_int_equal(insert(&f, 0, page), 0);
	}
	assert_int_equal(mkw_sync(f.file), 0);
	finish(&f);
}

static void test_races(void **state)
{
	(void)state;
	if (!supported)
		skip_unsupported();
	for (unsigned k = 0; k < 4; k++)
		race_rounds(&kinds[k]);
}

/* Asked of the file system itself. */
static void find_out(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)P(4))) {
		perror(path);
		exit(1);
	}
	supported = !fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, (off_t)page);
	close(fd);
	unlink(path);
	printf("collapse and insert: %s here\n", supported ? "supported" :
							   "not supported");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_moves, clean_up),
		cmocka_unit_test_teardown(test_short_last_page, clean_up),
		cmocka_unit_test_teardown(test_refused, clean_up),
		cmocka_unit_test_teardown(test_races, clean_up),
	};
	const char *dir = getenv("MKW_DIR");

	page = (size_t)sysconf(_SC_PAGESIZE);
	snprintf(path, sizeof(path), "%s/shift-%d", dir ? dir : ".", (int)getpid());
	access_begin();
	if (!access_possible())
		return 77;
	find_out();
	return cmocka_run_group_tests_name("shift", tests, NULL, NULL);
}
