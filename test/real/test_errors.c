/* SPDX-License-Identifier: MIT */
/*
 * When the store fails: what the thread, the sync and the next call see (G5, G6).
 *
 * The store is memory with a switch for each kind of failure, by range. Both
 * ways of serving faults. Needs userfaultfd, poison for the pager's mappings
 * (Linux 6.6); skipped (77) without.
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
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/core.h"
#include "mkwrite/mkwrite.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)

static size_t page;
static unsigned map_flags;

/* ---- a store that fails on demand ------------------------------------- */

/* The error of reads (writes) that touch [from, to); 0: none. */
static struct failure {
	_Atomic int read, write, resize, punch, flush;
	_Atomic uint64_t from, to;
} failure;

static struct mkw__store *below;

static bool hit(const struct mkw_io *io)
{
	return io->off < failure.to && failure.from < io->off + io->len;
}

/* The operation fails, or is the store's below. */
static void fail_or(int error, void (*op)(void *arg, struct mkw_io *io),
		    struct mkw_io *io)
{
	if (error)
		mkw_io_done(io, error);
	else
		op(below->arg, io);
}

static int fail_own(void *arg, int writable, uint64_t *len)
{
	(void)arg;
	(void)writable;
	(void)len;
	return mkw__store_own(below);
}

static void fail_read(void *arg, struct mkw_io *io)
{
	(void)arg;
	fail_or(hit(io) ? failure.read : 0, below->ops.read, io);
}

static void fail_write(void *arg, struct mkw_io *io)
{
	(void)arg;
	fail_or(hit(io) ? failure.write : 0, below->ops.write, io);
}

static void fail_flush(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, failure.flush);
}

static void fail_resize(void *arg, struct mkw_io *io)
{
	(void)arg;
	fail_or(failure.resize, below->ops.resize, io);
}

static void fail_punch(void *arg, struct mkw_io *io)
{
	(void)arg;
	fail_or(failure.punch, below->ops.punch, io);
}

static void fail_allocate(void *arg, struct mkw_io *io)
{
	(void)arg;
	fail_or(failure.punch, below->ops.allocate, io);
}

static int64_t fail_seek(void *arg, uint64_t off, int data)
{
	(void)arg;
	return mkw__store_seek(below, off, data);
}

static void fail_close(void *arg)
{
	(void)arg;
	mkw__store_close(below);
}

static const struct mkw_store_ops failing_ops = {
	MKW_STORE_OPS_INIT,
	.own = fail_own,
	.read = fail_read,
	.write = fail_write,
	.flush = fail_flush,
	.resize = fail_resize,
	.punch = fail_punch,
	.zero = fail_punch,
	.allocate = fail_allocate,
	.seek = fail_seek,
	.close = fail_close,
};

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *p;
};

static void set_failure(int read, int write, uint64_t from, uint64_t to)
{
	failure.read = read;
	failure.write = write;
	failure.from = from;
	failure.to = to;
}

static void no_failure(void)
{
	set_failure(0, 0, 0, 0);
	failure.resize = failure.punch = failure.flush = 0;
}

static void start(struct fixture *f, size_t pages)
{
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	unsigned char *buf = malloc(P(pages));

	no_failure();
	assert_int_equal(mkw_engine_open(NULL, &f->engine), 0);
	mkw__trap_reinstall();
	assert_int_equal(mkw__memstore_open(P(pages), &below), 0);
	info.len = P(pages);
	info.align = below->direct_align;
	info.flags = MKW_STORE_DIRECT | MKW_STORE_USER_MEMORY |
		     MKW_STORE_ANY_CONTEXT;
	for (size_t i = 0; i < P(pages); i++)
		buf[i] = (unsigned char)(i / page + 1);
	assert_int_equal(mkw__store_write(below, 0, buf, P(pages)), 0);
	free(buf);
	assert_int_equal(mkw_file_open_store(f->engine, &failing_ops, &info,
					     NULL, O_RDWR, &f->file), 0);
	assert_int_equal(mkw_map(f->file, NULL, P(pages + 2),
				 PROT_READ | PROT_WRITE, map_flags, 0,
				 (void **)&f->p), 0);
}

static void finish(struct fixture *f, size_t pages)
{
	no_failure();
	mkw__engine_verify(f->engine);
	assert_int_equal(mkw_unmap(f->p, P(pages + 2)), 0);
	assert_int_equal(mkw_file_close(f->file), 0);
	assert_int_equal(mkw_engine_close(f->engine), 0);
}

/* ---- tests ------------------------------------------------------------ */

/* Never zeros: SIGBUS in the thread, for loads and stores, again and again. */
static void test_fill_error(void **state)
{
	unsigned char buf[16];
	struct fixture f;

	(void)state;
	start(&f, 8);
	set_failure(-EIO, 0, P(3), P(4));
	assert_int_equal(try_access(f.p + P(3), false), SIGBUS);
	assert_int_equal(try_access(f.p + P(3), false), SIGBUS);
	assert_int_equal(try_access(f.p + P(3), true), SIGBUS);
	assert_int_equal(mkw_pread(f.file, buf, 16, P(3), 0), -EIO);
	assert_int_equal(mkw_pwrite(f.file, buf, 16, P(3), 0), -EIO);
	/* Its neighbours are fine, also where readahead meets the bad page. */
	for (int i = 0; i < 8; i++)
		if (i != 3)
			assert_int_equal(f.p[P(i)], i + 1);
	/* A call that copies into the bad page says so. */
	assert_int_equal(mkw_pread(f.file, f.p + P(3), 16, 0, 0), -EFAULT);

	/* Once it can be read again it is: by a call, then by the access. */
	set_failure(0, 0, 0, 0);
	assert_int_equal(mkw_pread(f.file, buf, 16, P(3), 0), 16);
	assert_int_equal(buf[0], 4);
	assert_int_equal(try_access(f.p + P(3), false), 0);
	assert_int_equal(f.p[P(3) + 1], 4);
	finish(&f, 8);
}

/* What the callback was told, and what it is to answer. */
static struct asked {
	struct mkw_fault_error error;
	void *arg;
	unsigned count, heal_at;	/* the call that mends the store; 0: none */
} asked;

static int on_error(const struct mkw_fault_error *error, void *arg)
{
	asked.error = *error;
	asked.arg = arg;
	if (++asked.count != asked.heal_at)
		return asked.heal_at ? MKW_FAULT_RETRY : MKW_FAULT_SIGBUS;
	failure.read = 0;
	return MKW_FAULT_RETRY;
}

static void check_asked(struct fixture *f, size_t off, int error, bool write)
{
	assert_int_equal(asked.count, 1);
	assert_int_equal(asked.error.size, sizeof(asked.error));
	assert_ptr_equal(asked.error.addr, f->p + off);
	assert_int_equal(asked.error.off, off);
	assert_int_equal(asked.error.error, error);
	assert_int_equal(asked.error.write, write);
	assert_ptr_equal(asked.arg, f);
	asked.count = 0;
}

/* The file's callback, in this thread, in place of SIGBUS. */
static void test_callback(void **state)
{
	struct fixture f;

	(void)state;
	memset(&asked, 0, sizeof(asked));
	start(&f, 8);
	assert_int_equal(mkw_file_on_fault_error(NULL, on_error, &f), -EINVAL);
	assert_int_equal(mkw_file_on_fault_error(f.file, on_error, &f), 0);
	set_failure(-EIO, 0, P(3), P(4));
	assert_int_equal(try_access(f.p + P(3) + 5, false), SIGBUS);
	check_asked(&f, P(3) + 5, -EIO, false);
	assert_int_equal(try_access(f.p + P(3) + 9, true), SIGBUS);
	check_asked(&f, P(3) + 9, -EIO, true);
	/* An access of ours, for the call's sake. */
	assert_int_equal(mkw_pread(f.file, f.p + P(3), 16, 0, 0), -EFAULT);
	check_asked(&f, P(3), -EIO, true);
	assert_int_equal(try_access(f.p + P(8), false), SIGBUS);
	check_asked(&f, P(8), -ENXIO, false);
	/* Retried as often as it says, until it works. */
	asked.heal_at = 3;
	assert_int_equal(f.p[P(3)], 4);
	assert_int_equal(asked.count, 3);
	assert_int_equal(mkw_file_on_fault_error(f.file, NULL, NULL), 0);
	assert_int_equal(try_access(f.p + P(9), true), SIGBUS);
	assert_int_equal(asked.count, 3);
	finish(&f, 8);
}

/* A read gives what lies before the page that cannot be read. */
static void test_short_read(void **state)
{
	unsigned char *buf = malloc(P(8));
	struct fixture f;

	(void)state;
	start(&f, 8);
	set_failure(-EIO, 0, P(5), P(6));
	assert_int_equal(mkw_pread(f.file, buf, P(8), 0, 0), P(5));
	assert_int_equal(buf[P(5) - 1], 5);
	assert_int_equal(mkw_pread(f.file, buf, P(3), P(5), 0), -EIO);
	assert_int_equal(mkw_pread(f.file, buf, P(2), P(6), 0), P(2));
	free(buf);
	finish(&f, 8);
}

/* Closing with no descriptor left writes what is dirty all the same. */
static void test_no_descriptors(void **state)
{
	struct rlimit had, none;
	struct mkw_file *again;
	unsigned char got;
	struct fixture f;
	char path[] = "mkw-test-errors-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)P(2)), 0);
	start(&f, 8);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDWR, 0, &again), 0);
	assert_int_equal(mkw_pwrite(again, "x", 1, 100, 0), 1);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &had), 0);
	none = had;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(mkw_file_close(again), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &had), 0);
	assert_int_equal(pread(fd, &got, 1, 100), 1);
	assert_int_equal(got, 'x');
	close(fd);
	unlink(path);
	finish(&f, 8);
}

/* What makes the page readable lifts the error: each way of doing so. */
static void test_recovery(void **state)
{
	unsigned char *buf = aligned_alloc(page, page);
	struct fixture f;

	(void)state;
	memset(buf, 0x77, page);
	for (int how = 0; how < 5; how++) {
		int want = how < 2 ? 0x77 : 0;

		start(&f, 8);
		set_failure(-EIO, 0, P(3), P(4));
		assert_int_equal(try_access(f.p + P(3), false), SIGBUS);
		switch (how) {
		case 0:
			assert_int_equal(mkw_pwrite(f.file, buf, page, P(3), 0),
					 page);
			break;
		case 1:
			assert_int_equal(mkw_pwrite(f.file, buf, page, P(3),
						    MKW_DIRECT), page);
			break;
		case 2:
			assert_int_equal(mkw_fallocate(f.file,
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				P(3), page), 0);
			break;
		case 3:
			assert_int_equal(mkw_fallocate(f.file,
				FALLOC_FL_ZERO_RANGE, P(3), page), 0);
			break;
		case 4:
			assert_int_equal(mkw_truncate(f.file, P(3)), 0);
			assert_int_equal(mkw_truncate(f.file, P(8)), 0);
			break;
		}
		set_failure(0, 0, 0, 0);
		assert_int_equal(try_access(f.p + P(3), false), 0);
		assert_int_equal(f.p[P(3) + 9], want);
		finish(&f, 8);
	}
	free(buf);
}

/* So does a read that goes past the cache. */
static void test_recovery_direct(void **state)
{
	unsigned char *buf = aligned_alloc(page, page);
	struct fixture f;

	(void)state;
	start(&f, 8);
	set_failure(-EIO, 0, P(3), P(4));
	assert_int_equal(try_access(f.p + P(3), false), SIGBUS);
	assert_int_equal(mkw_pread(f.file, buf, page, P(3), MKW_DIRECT), -EIO);
	set_failure(0, 0, 0, 0);
	assert_int_equal(mkw_pread(f.file, buf, page, P(3), MKW_DIRECT), page);
	assert_int_equal(try_access(f.p + P(3), false), 0);
	free(buf);
	finish(&f, 8);
}

/* A failed writeback keeps the page, is told once to each handle, and is tried
 * again. */
static void test_writeback_error(void **state)
{
	unsigned char vec;
	struct fixture f;

	(void)state;
	start(&f, 8);
	f.p[P(2)] = 0x42;
	set_failure(0, -ENOSPC, P(2), P(3));
	assert_int_equal(mkw_sync(f.file), -ENOSPC);
	assert_int_equal(mkw_resident(f.file, P(2), 1, &vec), 0);
	assert_true(vec & MKW_DIRTY);
	assert_int_equal(f.p[P(2)], 0x42);
	assert_int_equal(mkw_sync(f.file), -ENOSPC);
	set_failure(0, 0, 0, 0);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(mkw_resident(f.file, P(2), 1, &vec), 0);
	assert_false(vec & MKW_DIRTY);
	failure.flush = -EIO;
	assert_int_equal(mkw_sync(f.file), -EIO);
	failure.flush = 0;
	finish(&f, 8);
}

/* Nothing is lost when the store refuses to take away. */
static void test_failed_take(void **state)
{
	unsigned char buf[16];
	struct fixture f;
	unsigned char vec[8];

	(void)state;
	start(&f, 8);
	f.p[P(1)] = 0x11;
	assert_int_equal(f.p[P(2)], 3);
	failure.punch = -EIO;
	assert_int_equal(mkw_fallocate(f.file,
				       FALLOC_FL_PUNCH_HOLE |
					       FALLOC_FL_KEEP_SIZE,
				       0, P(4)), -EIO);
	assert_int_equal(f.p[P(1)], 0x11);
	assert_int_equal(f.p[P(2)], 3);
	/* Cache and store may differ now: the frames will be written. */
	assert_int_equal(mkw_resident(f.file, 0, P(4), vec), 0);
	assert_true(vec[1] & MKW_DIRTY);
	assert_true(vec[2] & MKW_DIRTY);
	failure.punch = -EOPNOTSUPP;
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_ZERO_RANGE, 0, P(4)),
			 -EOPNOTSUPP);
	assert_int_equal(mkw_resident(f.file, 0, P(4), vec), 0);
	assert_false(vec[2] & MKW_DIRTY);
	failure.resize = -EFBIG;
	assert_int_equal(mkw_truncate(f.file, P(20)), -EFBIG);
	assert_int_equal(mkw_pwrite(f.file, buf, 16, P(20), 0), -EFBIG);
	assert_int_equal(mkw_truncate(f.file, 100), -EFBIG);
	assert_int_equal(mkw_size(f.file), P(8));
	assert_int_equal(f.p[P(1)], 0x11);
	assert_int_equal(f.p[P(7) + 1], 8);
	finish(&f, 8);
}

/* A direct write that fails leaves what the cache had, to be written again. */
static void test_failed_direct_write(void **state)
{
	unsigned char *buf = aligned_alloc(page, P(2)), vec[2];
	struct fixture f;

	(void)state;
	start(&f, 8);
	memset(buf, 0x99, P(2));
	assert_int_equal(f.p[P(2)], 3);
	assert_int_equal(f.p[P(3)], 4);
	set_failure(0, -EIO, P(2), P(4));
	assert_int_equal(mkw_pwrite(f.file, buf, P(2), P(2), MKW_DIRECT), -EIO);
	assert_int_equal(f.p[P(2)], 3);
	assert_int_equal(f.p[P(3)], 4);
	assert_int_equal(mkw_resident(f.file, P(2), P(2), vec), 0);
	assert_true(vec[0] & MKW_DIRTY);
	assert_true(vec[1] & MKW_DIRTY);
	/* Past the end: the file is not longer for it. */
	set_failure(0, -EIO, P(8), P(9));
	assert_int_equal(mkw_pwrite(f.file, buf, page, P(8), MKW_DIRECT), -EIO);
	assert_int_equal(mkw_size(f.file), P(8));
	free(buf);
	finish(&f, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill_error),
		cmocka_unit_test(test_callback),
		cmocka_unit_test(test_short_read),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_recovery),
		cmocka_unit_test(test_recovery_direct),
		cmocka_unit_test(test_writeback_error),
		cmocka_unit_test(test_failed_take),
		cmocka_unit_test(test_failed_direct_write),
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
