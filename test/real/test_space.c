/* SPDX-License-Identifier: MIT */
/*
 * Space on a file system that gets full (G5): who is let through has blocks, who
 * is not hears of it at the store or the write, and what nobody used goes back.
 *
 * MKW_DIR names a small file system of our own (tools/with-fs), which a ballast file
 * fills. Both ways of serving faults. Skipped (77) without one, or without
 * userfaultfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
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

#include "core/core.h"
#include "core/testing.h"
#include "mkwrite/mkwrite.h"
#include "access.h"
#include "leftover.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 2048u		/* of a file: 8 MiB of holes */
#define ROOM ((off_t)256 << 10)	/* that is left beside the ballast */

static size_t page;
static unsigned map_flags;
static char dir[256], ballast[300];

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *p;
	int fd;			/* the host file, for looking */
	char path[300];
};

static void open_file(struct fixture *f, const char *name)
{
	snprintf(f->path, sizeof(f->path), "%s/%s", dir, name);
	assert_int_equal(mkw_file_open(f->engine, f->path, O_RDWR | O_CREAT,
				       0600, &f->file), 0);
	leftover_file(f->file);
	f->fd = open(f->path, O_RDONLY);
	assert_true(f->fd >= 0);
	assert_int_equal(mkw_truncate(f->file, (off_t)P(PAGES)), 0);
	assert_int_equal(mkw_map(f->file, NULL, P(PAGES), PROT_READ | PROT_WRITE,
				 map_flags, 0, (void **)&f->p), 0);
}

static void start(struct fixture *f, enum mkw_alloc alloc)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	memset(f, 0, sizeof(*f));
	opt.alloc = alloc;
	/* Nothing happens by age while a test looks. */
	opt.writeback_age_ms = 1000000;
	assert_int_equal(mkw_engine_open(&opt, &f->engine), 0);
	leftover_engine(f->engine);
	mkw__trap_reinstall();
	open_file(f, "file");
}

static void close_file(struct fixture *f, int want)
{
	assert_int_equal(mkw_unmap(f->p, P(PAGES)), 0);
	assert_int_equal(leftover_close(f->file), want);
	close(f->fd);
	unlink(f->path);
}

/*
 * Gives the ballast's space back. Truncated first: a file system may free what an
 * unlinked file had some time later (XFS has a worker for it, whom sync(2) does
 * not wait for), but a truncated one's blocks are free with the log.
 */
static void make_room(void)
{
	if (truncate(ballast, 0))
		assert_int_equal(errno, ENOENT);
	unlink(ballast);
	sync();
}

static void finish(struct fixture *f)
{
	mkw__engine_verify(f->engine);
	close_file(f, 0);
	assert_int_equal(leftover_engine_close(f->engine), 0);
	make_room();
}

/* After each test: what a failed one left. Space first, so that closing can write. */
static int clean_up(void **state)
{
	const char *names[] = { "file", "other" };
	char path[300];
	int r;

	(void)state;
	make_room();
	r = leftover_clear();
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		if (truncate(path, 0) && errno != ENOENT)
			r = -1;
		unlink(path);
	}
	return r;
}

/* Fills the file system but for `room` bytes, or a little more. */
static void fill_disk(off_t room)
{
	int fd = open(ballast, O_RDWR | O_CREAT | O_TRUNC, 0600);
	off_t size = 0;

	assert_true(fd >= 0);
	sync();
	for (off_t step = 16 << 20; step >= (off_t)page; step /= 4)
		while (!fallocate(fd, 0, size, step))
			size += step;
	assert_int_equal(ftruncate(fd, size - room), 0);
	close(fd);
	sync();
}

/* Stores to every page from `from` on until one fails; how many did not. */
static size_t store_until_full(struct fixture *f, size_t from)
{
	size_t n = 0;

	while (from + n < PAGES && !try_access(f->p + P(from + n) + 7, true))
		n++;
	return n;
}

static void check_stored(struct fixture *f, size_t from, size_t n)
{
	unsigned char got;

	for (size_t i = from; i < from + n; i++) {
		assert_int_equal(pread(f->fd, &got, 1, (off_t)(P(i) + 7)), 1);
		assert_int_equal(got, 0x5a);
	}
}

static off_t allocated(struct fixture *f)
{
	struct stat sb;

	assert_int_equal(fstat(f->fd, &sb), 0);
	return (off_t)sb.st_blocks * 512;
}

static uint64_t credit(struct fixture *f)
{
	struct mkw_stats st = MKW_STATS_INIT;

	assert_int_equal(mkw_engine_stats(f->engine, &st), 0);
	return st.credit_bytes;
}

/* Stores end in SIGBUS, and those before it are on the disk after a sync. */
static void test_full_at_store(void **state)
{
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	struct fixture f;
	size_t n, more;

	(void)state;
	start(&f, MKW_ALLOC_FAULT);
	assert_int_equal(mkw_file_info(f.file, &info), 0);
	assert_int_equal(info.reserves, 1);
	fill_disk(ROOM);
	n = store_until_full(&f, 0);
	assert_true(n > 0 && n < PAGES);
	/* A load of a page that cannot be stored to is served. */
	assert_int_equal(f.p[P(n)], 0);
	assert_int_equal(try_access(f.p + P(n), true), SIGBUS);
	assert_int_equal(f.p[P(n)], 0);
	assert_int_equal(mkw_sync(f.file), 0);
	check_stored(&f, 0, n);
	/* Space comes back, and nothing remembers that there was none. */
	make_room();
	more = store_until_full(&f, n);
	assert_int_equal(more, PAGES - n);
	assert_int_equal(mkw_sync(f.file), 0);
	check_stored(&f, n, more);
	finish(&f);
}

/* A write says it, short or at once; nothing of it fails later. */
static void test_full_at_write(void **state)
{
	unsigned char *buf = malloc(P(PAGES));
	struct fixture f;
	ssize_t r;

	(void)state;
	start(&f, MKW_ALLOC_FAULT);
	memset(buf, 0x5a, P(PAGES));
	fill_disk(ROOM);
	r = mkw_pwrite(f.file, buf, P(PAGES), 0, 0);
	assert_true(r > 0 && r < (ssize_t)P(PAGES));
	assert_int_equal(mkw_pwrite(f.file, buf, 1, r, 0), -ENOSPC);
	assert_int_equal(mkw_append(f.file, buf, P(PAGES), 0, NULL), -ENOSPC);
	assert_int_equal(mkw_size(f.file), P(PAGES));
	assert_int_equal(mkw_sync(f.file), 0);
	check_stored(&f, 0, (size_t)r / page);
	free(buf);
	finish(&f);
}

static int free_ballast(const struct mkw_fault_error *error, void *arg)
{
	unsigned *asked = arg;

	if (error->error != -ENOSPC || !error->write || ++*asked > 1)
		return MKW_FAULT_SIGBUS;
	make_room();
	return MKW_FAULT_RETRY;
}

/* A callback makes room, and the store that had none goes on. */
static void test_callback_makes_room(void **state)
{
	struct fixture f;
	unsigned asked = 0;

	(void)state;
	start(&f, MKW_ALLOC_FAULT);
	assert_int_equal(mkw_file_on_fault_error(f.file, free_ballast, &asked),
			 0);
	fill_disk(ROOM);
	assert_int_equal(store_until_full(&f, 0), PAGES);
	assert_int_equal(asked, 1);
	assert_int_equal(mkw_sync(f.file), 0);
	check_stored(&f, 0, PAGES);
	finish(&f);
}

/* What was allocated ahead goes back, what the user allocated stays. */
static void test_credit_goes_back(void **state)
{
	struct fixture f;
	off_t before;

	(void)state;
	start(&f, MKW_ALLOC_FAULT);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_KEEP_SIZE, 4 << 20,
				       1 << 20), 0);
	before = allocated(&f);
	assert_true(before >= 1 << 20);
	f.p[P(3)] = 1;
	f.p[(4 << 20) + P(5)] = 1;
	f.p[(6 << 20) + P(7)] = 1;
	assert_true(credit(&f) > 0);
	assert_true(allocated(&f) > before + (off_t)P(2));
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(credit(&f), 0);
	/* Two pages, and perhaps a block of the file system's own. */
	assert_in_range(allocated(&f) - before, P(2), P(4));
	assert_int_equal(f.p[P(3)], 1);
	assert_int_equal(f.p[(6 << 20) + P(7)], 1);
	/* A punch takes what was reserved, too. */
	f.p[P(4)] = 1;
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE |
					       FALLOC_FL_KEEP_SIZE,
				       0, (off_t)P(PAGES)), 0);
	assert_true(allocated(&f) <= (off_t)P(2));
	f.p[P(9)] = 1;
	finish(&f);
}

/* Nobody is told that the disk is full while another file's credit is unused. */
static void test_credit_of_another(void **state)
{
	struct fixture f, other;

	(void)state;
	start(&f, MKW_ALLOC_FAULT);
	other.engine = f.engine;
	open_file(&other, "other");
	f.p[P(3)] = 1;
	assert_true(credit(&f) >= P(8));
	fill_disk(0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(try_access(other.p + P(i), true), 0);
	assert_int_equal(mkw_sync(other.file), 0);
	close_file(&other, 0);
	finish(&f);
}

/* Delayed: the store is let through, and the sync meets the full disk. */
static void test_delayed(void **state)
{
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	struct fixture f;

	(void)state;
	start(&f, MKW_ALLOC_DELAYED);
	assert_int_equal(mkw_file_info(f.file, &info), 0);
	assert_int_equal(info.reserves, 0);
	fill_disk(0);
	assert_int_equal(store_until_full(&f, 0), PAGES);
	assert_int_equal(mkw_sync(f.file), -ENOSPC);
	make_room();
	assert_int_equal(mkw_sync(f.file), 0);
	check_stored(&f, 0, PAGES);
	finish(&f);
}

/* With the planted bug a store is let through that a sync then cannot write. */
static void test_unreserved_is_noticed(void **state)
{
	struct fixture f;

	(void)state;
	mkw__testing.mutant = MKW__MUTANT_RESERVES_NOTHING;
	start(&f, MKW_ALLOC_FAULT);
	fill_disk(ROOM);
	assert_int_equal(store_until_full(&f, 0), PAGES);
	assert_int_equal(mkw_sync(f.file), -ENOSPC);
	make_room();
	assert_int_equal(mkw_sync(f.file), 0);
	finish(&f);
}

#define T(fn) cmocka_unit_test_teardown(fn, clean_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_full_at_store),
		T(test_full_at_write),
		T(test_callback_makes_room),
		T(test_credit_goes_back),
		T(test_credit_of_another),
		T(test_delayed),
		T(test_unreserved_is_noticed),
	};
	const char *where = getenv("MKW_DIR");
	int failed;

	page = (size_t)sysconf(_SC_PAGESIZE);
	if (!where) {
		printf("SKIP: MKW_DIR names no small file system; run by tools/with-fs\n");
		return 77;
	}
	snprintf(dir, sizeof(dir), "%s", where);
	snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
	access_begin();
	if (!access_possible())
		return 77;
	failed = cmocka_run_group_tests_name("pager", tests, NULL, NULL);
	map_flags = MKW_MAP_INLINE;
	failed += cmocka_run_group_tests_name("inline", tests, NULL, NULL);
	return failed;
}
