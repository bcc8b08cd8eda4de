/* SPDX-License-Identifier: MIT */
/*
 * The engine on real page faults, through the public functions: each behaviour
 * that mkwrite.h promises, under both policies and both ways of serving faults.
 *
 * A test gets an engine and a file of its own, in a temporary directory that is
 * removed afterwards. What the host file holds is looked at with plain system
 * calls, after a sync. Needs userfaultfd for faults inside system calls (root);
 * skipped (77) without.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
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
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/core.h"
#include "core/testing.h"
#include "mkwrite/mkwrite.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)

static size_t page;
static char dir[] = "mkw-test-engine-XXXXXX";

/* What a test runs with: the four ways are four groups of the same tests. */
struct way {
	enum mkw_policy policy;
	unsigned map_flags;
	const char *name;
};
static const struct way *way;

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	char path[256];
	int fd;			/* the host file, for looking */
	uint32_t align;
};

static unsigned char pattern(uint64_t off)
{
	return (unsigned char)(off * 31 + off / 256 * 7 + 1);
}

static void fill_pattern(unsigned char *buf, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(off + i);
}

static void open_engine(struct fixture *f, uint64_t cache_bytes)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	opt.policy = way->policy;
	opt.cache_bytes = cache_bytes;
	assert_int_equal(mkw_engine_open(&opt, &f->engine), 0);
	/* cmocka sets handlers of its own before each test. */
	mkw__trap_reinstall();
}

/* A file of len bytes of pattern, opened through a new engine. */
static void start_sized(struct fixture *f, size_t len, uint64_t cache_bytes)
{
	static unsigned number;
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	unsigned char *buf = malloc(len ? len : 1);

	snprintf(f->path, sizeof(f->path), "%s/f%u", dir, number++);
	f->fd = open(f->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(f->fd >= 0);
	fill_pattern(buf, 0, len);
	assert_int_equal(pwrite(f->fd, buf, len, 0), len);
	free(buf);
	open_engine(f, cache_bytes);
	assert_int_equal(mkw_file_open(f->engine, f->path, O_RDWR, 0,
				       &f->file), 0);
	assert_int_equal(mkw_file_info(f->file, &info), 0);
	f->align = info.direct_align;
}

static void start(struct fixture *f, size_t len)
{
	start_sized(f, len, 0);
}

static void finish(struct fixture *f)
{
	struct mkw_stats st = MKW_STATS_INIT;

	mkw__engine_verify(f->engine);
	assert_int_equal(mkw_engine_stats(f->engine, &st), 0);
	assert_int_equal(mkw_file_close(f->file), 0);
	assert_int_equal(mkw_engine_close(f->engine), 0);
	close(f->fd);
	unlink(f->path);
}

static unsigned char *map(struct fixture *f, size_t len, int prot, off_t off)
{
	void *p;

	assert_int_equal(mkw_map(f->file, NULL, len, prot, way->map_flags, off,
				 &p), 0);
	return p;
}

static void check_host(struct fixture *f, const unsigned char *want,
		       uint64_t off, size_t len)
{
	unsigned char *got = malloc(len);

	assert_int_equal(pread(f->fd, got, len, off), len);
	assert_memory_equal(got, want, len);
	free(got);
}

static int punch(struct fixture *f, off_t off, off_t len)
{
	return mkw_fallocate(f->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			     off, len);
}

/* ---- loads and stores ------------------------------------------------- */

static void test_load(void **state)
{
	struct fixture f;
	unsigned char *p;

	(void)state;
	start(&f, P(200) + 100);
	p = map(&f, P(201), PROT_READ, 0);
	for (size_t i = 0; i < P(200) + 100; i += 61)
		assert_int_equal(p[i], pattern(i));
	/* Behind the end, in the last page: zero. */
	assert_int_equal(p[P(200) + 100], 0);
	assert_int_equal(p[P(201) - 1], 0);
	assert_int_equal(mkw_unmap(p, P(201)), 0);
	finish(&f);
}

static void test_store_and_sync(void **state)
{
	struct fixture f;
	unsigned char *p, want[64];

	(void)state;
	start(&f, P(8));
	p = map(&f, P(8), PROT_READ | PROT_WRITE, 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 8; i++)
			memset(p + P(i) + 64 * i, 'a' + i + round, 64);
		assert_int_equal(mkw_sync(f.file), 0);
		for (int i = 0; i < 8; i++) {
			memset(want, 'a' + i + round, 64);
			check_host(&f, want, P(i) + 64 * i, 64);
		}
	}
	assert_int_equal(p[P(2) + 500], pattern(P(2) + 500));
	assert_int_equal(mkw_unmap(p, P(8)), 0);
	finish(&f);
}

static void test_offset_map(void **state)
{
	struct fixture f;
	unsigned char *p, *q;

	(void)state;
	start(&f, P(40));
	p = map(&f, P(10), PROT_READ | PROT_WRITE, P(20));
	q = map(&f, P(40), PROT_READ, 0);
	assert_int_equal(p[5], pattern(P(20) + 5));
	p[P(3) + 7] = 0xee;
	assert_int_equal(q[P(23) + 7], 0xee);
	p[P(9)] = 0xdd;
	assert_int_equal(q[P(29)], 0xdd);
	assert_int_equal(mkw_unmap(p, P(10)), 0);
	assert_int_equal(q[P(23) + 7], 0xee);
	assert_int_equal(mkw_unmap(q, P(40)), 0);
	finish(&f);
}

static void test_read_only_map(void **state)
{
	struct fixture f;
	unsigned char *p;

	(void)state;
	start(&f, P(2));
	p = map(&f, P(2), PROT_READ, 0);
	assert_int_equal(p[0], pattern(0));
	assert_int_equal(try_access(p, true), SIGSEGV);
	assert_int_equal(p[0], pattern(0));
	assert_int_equal(mkw_unmap(p, P(2)), 0);
	finish(&f);
}

static void test_past_the_end(void **state)
{
	struct fixture f;
	unsigned char *p;

	(void)state;
	start(&f, P(2) + 10);
	p = map(&f, P(6), PROT_READ | PROT_WRITE, 0);
	assert_int_equal(try_access(p + P(2), false), 0);
	assert_int_equal(try_access(p + P(3), false), SIGBUS);
	assert_int_equal(mkw_truncate(f.file, P(5)), 0);
	assert_int_equal(try_access(p + P(3), false), 0);
	assert_int_equal(p[P(4)], 0);
	assert_int_equal(try_access(p + P(5), false), SIGBUS);
	assert_int_equal(mkw_truncate(f.file, P(1)), 0);
	assert_int_equal(try_access(p + P(1), false), SIGBUS);
	assert_int_equal(p[0], pattern(0));
	assert_int_equal(mkw_unmap(p, P(6)), 0);
	finish(&f);
}

static void test_unmap_parts(void **state)
{
	struct fixture f;
	unsigned char *p, *q;

	(void)state;
	start(&f, P(16));
	assert_int_equal(mkw_map(f.file, own_space(P(16)), P(16),
				 PROT_READ | PROT_WRITE,
				 way->map_flags | MKW_MAP_FIXED, 0, (void **)&p), 0);
	for (int i = 0; i < 16; i++)
		p[P(i)] = i + 1;
	assert_int_equal(mkw_unmap(p + P(4), P(4)), 0);
	assert_int_equal(try_access(p + P(5), false), SIGSEGV);
	assert_int_equal(p[P(3)], 4);
	assert_int_equal(p[P(8)], 9);
	assert_int_equal(mkw_unmap(p, P(2)), 0);
	assert_int_equal(mkw_unmap(p + P(15), P(1)), 0);
	assert_int_equal(p[P(2)], 3);
	assert_int_equal(p[P(14)], 15);
	/* The hole can be mapped again, at a place of our choice. */
	assert_int_equal(mkw_map(f.file, p + P(4), P(4), PROT_READ,
				 way->map_flags | MKW_MAP_FIXED_NOREPLACE,
				 P(4), (void **)&q), 0);
	assert_ptr_equal(q, p + P(4));
	assert_int_equal(q[P(1)], 6);
	assert_int_equal(mkw_map(f.file, p + P(4), P(4), PROT_READ,
				 way->map_flags | MKW_MAP_FIXED_NOREPLACE,
				 P(4), (void **)&q), -EEXIST);
	assert_int_equal(mkw_map(f.file, p + P(4), P(4), PROT_READ,
				 way->map_flags | MKW_MAP_FIXED, P(4),
				 (void **)&q), -EBUSY);
	assert_int_equal(mkw_unmap(p, P(16)), 0);
	assert_int_equal(mkw_unmap(p, P(16)), 0);
	finish(&f);
}

static void test_fixed_replaces_ordinary(void **state)
{
	struct fixture f;
	unsigned char *p, *q;

	(void)state;
	start(&f, P(4));
	p = mmap(NULL, P(4), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(p, 7, P(4));
	assert_int_equal(mkw_map(f.file, p, P(4), PROT_READ,
				 way->map_flags | MKW_MAP_FIXED, 0,
				 (void **)&q), 0);
	assert_ptr_equal(p, q);
	assert_int_equal(p[9], pattern(9));
	assert_int_equal(mkw_unmap(p, P(4)), 0);
	finish(&f);
}

static void test_mapping_outlives_handle(void **state)
{
	struct fixture f;
	unsigned char *p, want = 0x5a;

	(void)state;
	start(&f, P(4));
	p = map(&f, P(4), PROT_READ | PROT_WRITE, 0);
	assert_int_equal(mkw_file_close(f.file), 0);
	assert_int_equal(mkw_engine_close(f.engine), -EBUSY);
	p[P(2)] = want;
	assert_int_equal(p[0], pattern(0));
	assert_int_equal(mkw_unmap(p, P(4)), 0);
	check_host(&f, &want, P(2), 1);
	assert_int_equal(mkw_engine_close(f.engine), 0);
	close(f.fd);
	unlink(f.path);
}

/* ---- reads and writes ------------------------------------------------- */

static void test_read_write(void **state)
{
	struct fixture f;
	size_t len = P(30) + 77;
	unsigned char *model = malloc(P(40)), *buf = malloc(P(40)), *p;
	unsigned seed = 1;
	size_t size = len;

	(void)state;
	start(&f, len);
	memset(model, 0, P(40));
	fill_pattern(model, 0, len);
	p = map(&f, P(40), PROT_READ | PROT_WRITE, 0);
	for (int i = 0; i < 2000; i++) {
		size_t off = rand_r(&seed) % P(36), n = rand_r(&seed) % P(3);
		unsigned kind = rand_r(&seed) % 10;
		ssize_t r, want;

		switch (kind) {
		case 0: case 1: case 2:
			want = off >= size ? 0 : n < size - off ? n : size - off;
			r = mkw_pread(f.file, buf, n, off, 0);
			assert_int_equal(r, want);
			assert_memory_equal(buf, model + off, want);
			break;
		case 3: case 4:
			if (!n)
				break;
			memset(buf, i, n);
			assert_int_equal(mkw_pwrite(f.file, buf, n, off, 0), n);
			memset(model + off, i, n);
			size = off + n > size ? off + n : size;
			break;
		case 5:
			off -= off % f.align;
			n -= n % f.align;
			if (!n)
				break;
			memset(buf, i, n);
			assert_int_equal(mkw_pwrite(f.file, buf, n, off,
						    MKW_DIRECT), n);
			memset(model + off, i, n);
			size = off + n > size ? off + n : size;
			break;
		case 6:
			off -= off % f.align;
			n -= n % f.align;
			want = off >= size ? 0 : n < size - off ? n : size - off;
			r = mkw_pread(f.file, buf, n, off, MKW_DIRECT);
			assert_int_equal(r, want);
			assert_memory_equal(buf, model + off, want);
			break;
		case 7:
			if (!n)
				break;
			assert_int_equal(punch(&f, off, n), 0);
			if (off < size)
				memset(model + off, 0,
				       n < size - off ? n : size - off);
			break;
		case 8:
			if (off >= size)
				break;
			assert_int_equal(p[off], model[off]);
			p[off] = model[off] = i;
			break;
		case 9:
			if (rand_r(&seed) % 4)
				break;
			assert_int_equal(mkw_truncate(f.file, off), 0);
			if (off < size)
				memset(model + off, 0, size - off);
			size = off;
			break;
		}
		assert_int_equal(mkw_size(f.file), size);
	}
	assert_int_equal(mkw_sync(f.file), 0);
	check_host(&f, model, 0, size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(p[i], model[i]);
	assert_int_equal(mkw_unmap(p, P(40)), 0);
	free(model);
	free(buf);
	finish(&f);
}

static void test_direct_beside_dirty(void **state)
{
	struct fixture f;
	unsigned char *p, *buf, want;

	(void)state;
	start(&f, P(4));
	if (f.align >= page) {
		finish(&f);
		skip();
	}
	p = map(&f, P(4), PROT_READ | PROT_WRITE, 0);
	buf = aligned_alloc(page, page);
	/* Stores in other sectors of the page, before and after the write. */
	p[P(1) + f.align * 2] = 0x11;
	memset(buf, 0x22, f.align);
	assert_int_equal(mkw_pwrite(f.file, buf, f.align, P(1), MKW_DIRECT),
			 f.align);
	want = 0x22;
	check_host(&f, &want, P(1), 1);
	p[P(1) + f.align * 3] = 0x33;
	assert_int_equal(p[P(1) + f.align / 2], 0x22);
	assert_int_equal(mkw_sync(f.file), 0);
	check_host(&f, &want, P(1) + f.align / 2, 1);
	want = 0x11;
	check_host(&f, &want, P(1) + f.align * 2, 1);
	want = 0x33;
	check_host(&f, &want, P(1) + f.align * 3, 1);
	assert_int_equal(mkw_unmap(p, P(4)), 0);
	free(buf);
	finish(&f);
}

static void test_direct_alignment(void **state)
{
	struct fixture f;
	unsigned char *buf = aligned_alloc(page, P(2));

	(void)state;
	start(&f, P(4));
	if (f.align > 1) {
		assert_int_equal(mkw_pread(f.file, buf, f.align, 1, MKW_DIRECT),
				 -EINVAL);
		assert_int_equal(mkw_pread(f.file, buf, 1, 0, MKW_DIRECT),
				 -EINVAL);
		assert_int_equal(mkw_pwrite(f.file, buf, 1, 0, MKW_DIRECT),
				 -EINVAL);
	}
	/* A buffer may lie anywhere. */
	assert_int_equal(mkw_pread(f.file, buf + 3, page, page, MKW_DIRECT),
			 page);
	assert_int_equal(buf[3], pattern(page));
	free(buf);
	finish(&f);
}

/* R0: a read of the file into a mapping of the same file. */
static void test_self_mapped(void **state)
{
	unsigned char *model = malloc(P(16)), *p;
	struct fixture f;

	(void)state;
	for (unsigned direct = 0; direct < 2; direct++) {
		unsigned flags = direct ? MKW_DIRECT : 0;

		start(&f, P(16));
		fill_pattern(model, 0, P(16));
		p = map(&f, P(16), PROT_READ | PROT_WRITE, 0);
		/* Cold and the same range; then overlapping by a page. */
		assert_int_equal(mkw_pread(f.file, p + P(2), P(4), P(2), flags),
				 P(4));
		assert_int_equal(mkw_pread(f.file, p + P(5), P(4), P(2), flags),
				 P(4));
		memmove(model + P(5), model + P(2), P(4));
		assert_int_equal(mkw_pwrite(f.file, p + P(5), P(4), P(6), flags),
				 P(4));
		memmove(model + P(6), model + P(5), P(4));
		assert_memory_equal(p, model, P(16));
		assert_int_equal(mkw_sync(f.file), 0);
		check_host(&f, model, 0, P(16));
		assert_int_equal(mkw_unmap(p, P(16)), 0);
		finish(&f);
	}
	free(model);
}

static void test_faults_inside_system_calls(void **state)
{
	struct mkw_stats st = MKW_STATS_INIT;
	struct fixture f;
	unsigned char *p, buf[100], out[100];
	int pipes[2];
	bool served;

	(void)state;
	start(&f, P(8));
	p = map(&f, P(8), PROT_READ | PROT_WRITE, 0);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(mkw_engine_stats(f.engine, &st), 0);
	served = st.kernel_faults && !(way->map_flags & MKW_MAP_INLINE);
	if (!served) {
		/* As mkwrite.h says; an ordinary access goes on as ever. */
		assert_int_equal(write(pipes[1], p + P(3), 100), -1);
		assert_int_equal(errno, EFAULT);
		assert_int_equal(p[P(3)], pattern(P(3)));
	}
	assert_int_equal(write(pipes[1], p + P(3), 100), 100);
	assert_int_equal(read(pipes[0], buf, 100), 100);
	fill_pattern(out, P(3), 100);
	assert_memory_equal(buf, out, 100);
	memset(buf, 0x77, 100);
	assert_int_equal(write(pipes[1], buf, 100), 100);
	if (!served)
		memset(p + P(5) - 50, 1, 100);
	assert_int_equal(read(pipes[0], p + P(5) - 50, 100), 100);
	assert_int_equal(mkw_sync(f.file), 0);
	check_host(&f, buf, P(5) - 50, 100);
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(mkw_unmap(p, P(8)), 0);
	finish(&f);
}

static void test_bad_buffer(void **state)
{
	struct fixture f;
	unsigned char *bad, model[64], got[64];

	(void)state;
	start(&f, P(8));
	bad = mmap(NULL, P(2), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(bad + page, page);
	for (unsigned direct = 0; direct < 2; direct++) {
		unsigned flags = direct ? MKW_DIRECT : 0;

		assert_int_equal(mkw_pread(f.file, NULL, page, 0, flags), -EFAULT);
		assert_int_equal(mkw_pwrite(f.file, NULL, page, 0, flags),
				 -EFAULT);
		assert_int_equal(mkw_pwrite(f.file, NULL, page, P(8), flags),
				 -EFAULT);
		assert_int_equal(mkw_size(f.file), P(8));
		assert_int_equal(mkw_pwrite(f.file, bad + page, page, P(1),
					    flags), -EFAULT);
		mprotect(bad, page, PROT_READ);
		assert_int_equal(mkw_pread(f.file, bad, page, 0, flags), -EFAULT);
		mprotect(bad, page, PROT_READ | PROT_WRITE);
	}
	assert_int_equal(mkw_pwrite(f.file, bad + page - 10, 64, P(1), 0),
			 -EFAULT);
	fill_pattern(model, P(1), 64);
	assert_int_equal(mkw_pread(f.file, got, 64, P(1), 0), 64);
	assert_memory_equal(got, model, 64);
	munmap(bad, page);
	finish(&f);
}

static void test_nowait(void **state)
{
	struct fixture f;
	unsigned char *buf = aligned_alloc(page, P(2));

	(void)state;
	start(&f, P(4));
	assert_int_equal(mkw_pread(f.file, buf, page, 0, MKW_NOWAIT), -EAGAIN);
	assert_int_equal(mkw_pread(f.file, buf, page, 0, 0), page);
	assert_int_equal(mkw_pread(f.file, buf, page, 0, MKW_NOWAIT), page);
	assert_int_equal(buf[9], pattern(9));
	/* Where the file system does not say what it has, space is asked for. */
	assert_int_equal(mkw_pwrite(f.file, buf, page, 0, 0), page);
	assert_int_equal(mkw_pwrite(f.file, buf, page, 0, MKW_NOWAIT), page);
	assert_int_equal(mkw_pwrite(f.file, buf, 10, P(2), MKW_NOWAIT), -EAGAIN);
	assert_int_equal(mkw_pwrite(f.file, buf, page, P(4), MKW_NOWAIT),
			 -EAGAIN);
	assert_int_equal(mkw_size(f.file), P(4));
	free(buf);
	finish(&f);
}

/* ---- punch, zero, sizes ----------------------------------------------- */

static void test_punch(void **state)
{
	struct fixture f;
	unsigned char *p;
	struct stat st;

	(void)state;
	start(&f, P(32));
	p = map(&f, P(32), PROT_READ | PROT_WRITE, 0);
	for (int i = 0; i < 32; i += 2)
		p[P(i) + 8] = 0x99;
	assert_int_equal(punch(&f, P(4) + 100, P(8)), 0);
	assert_int_equal(p[P(4) + 8], 0x99);
	assert_int_equal(p[P(4) + 99], pattern(P(4) + 99));
	for (size_t i = P(4) + 100; i < P(12) + 100; i++)
		assert_int_equal(p[i], 0);
	assert_int_equal(p[P(12) + 100], pattern(P(12) + 100));
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(fstat(f.fd, &st), 0);
	assert_int_equal(st.st_size, P(32));
	/* Nothing of the whole pages comes back. */
	assert_in_range(st.st_blocks * 512, 0, P(25));
	assert_int_equal(mkw_seek(f.file, P(5), SEEK_HOLE), P(5));
	assert_in_range(mkw_seek(f.file, P(5), SEEK_DATA), P(12), P(12) + 99);
	/* A dirty page in a hole is data. */
	p[P(8)] = 1;
	assert_int_equal(mkw_seek(f.file, P(6), SEEK_DATA), P(8));
	assert_int_equal(mkw_seek(f.file, P(8), SEEK_HOLE), P(9));
	assert_int_equal(mkw_seek(f.file, P(32), SEEK_DATA), -ENXIO);
	assert_int_equal(mkw_unmap(p, P(32)), 0);
	finish(&f);
}

static void test_zero_range(void **state)
{
	struct fixture f;
	unsigned char *p;
	int r;

	(void)state;
	start(&f, P(8));
	p = map(&f, P(8), PROT_READ | PROT_WRITE, 0);
	p[P(3) + 1] = 0x99;
	r = mkw_fallocate(f.file, FALLOC_FL_ZERO_RANGE, P(2) + 5, P(3));
	if (r == -EOPNOTSUPP) {
		assert_int_equal(p[P(3) + 1], 0x99);
	} else {
		assert_int_equal(r, 0);
		assert_int_equal(p[P(2) + 4], pattern(P(2) + 4));
		for (size_t i = P(2) + 5; i < P(5) + 5; i++)
			assert_int_equal(p[i], 0);
		assert_int_equal(p[P(5) + 5], pattern(P(5) + 5));
		assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_ZERO_RANGE,
					       P(7), P(4)), 0);
		assert_int_equal(mkw_size(f.file), P(11));
	}
	assert_int_equal(mkw_unmap(p, P(8)), 0);
	finish(&f);
}

static void test_allocate(void **state)
{
	struct fixture f;
	struct stat st;

	(void)state;
	start(&f, 10);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_KEEP_SIZE, 0, P(16)), 0);
	assert_int_equal(mkw_size(f.file), 10);
	assert_int_equal(mkw_fallocate(f.file, 0, 0, P(20)), 0);
	assert_int_equal(mkw_size(f.file), P(20));
	assert_int_equal(fstat(f.fd, &st), 0);
	assert_int_equal(st.st_size, P(20));
	assert_true(st.st_blocks * 512 >= (blkcnt_t)P(20));
	finish(&f);
}

/* Bytes stored past the end do not show when the file grows over them. */
static void test_bytes_past_the_end(void **state)
{
	unsigned char *p, zero[1] = { 0 }, *buf;
	struct fixture f;

	(void)state;
	for (int how = 0; how < 6; how++) {
		start(&f, P(1) + 512);
		buf = aligned_alloc(page, page);
		memset(buf, 9, page);
		p = map(&f, P(4), PROT_READ | PROT_WRITE, 0);
		p[P(1) + 1000] = 0x42;
		switch (how) {
		case 0:
			assert_int_equal(mkw_truncate(f.file, P(3)), 0);
			break;
		case 1:
			assert_int_equal(mkw_pwrite(f.file, "x", 1, P(3), 0), 1);
			break;
		case 2:
			assert_int_equal(mkw_pwrite(f.file, buf, page, P(2),
						    MKW_DIRECT), page);
			break;
		case 3:
			assert_int_equal(mkw_fallocate(f.file, 0, 0, P(3)), 0);
			break;
		case 4:
			assert_int_equal(mkw_fallocate(f.file,
						       FALLOC_FL_ZERO_RANGE,
						       P(2), P(1)), 0);
			break;
		case 5:
			assert_int_equal(mkw_append(f.file, buf, 1, 0, NULL), 1);
			assert_int_equal(p[P(1) + 512], 9);
			assert_int_equal(mkw_truncate(f.file, P(3)), 0);
			break;
		}
		assert_int_equal(p[P(1) + 1000], 0);
		assert_int_equal(mkw_sync(f.file), 0);
		check_host(&f, zero, P(1) + 1000, 1);
		assert_int_equal(mkw_unmap(p, P(4)), 0);
		free(buf);
		finish(&f);
	}
}

/* ---- the cache -------------------------------------------------------- */

#define APPENDERS 4
#define APPENDS 200

struct appender {
	pthread_t thread;
	struct fixture *f;
	unsigned char id;
	off_t at[APPENDS];
};

/* A record's length, and every byte of it, follow from who wrote it and when. */
static size_t record_len(unsigned id, unsigned i)
{
	return 1 + (id * 37 + i * 101) % 700;
}

static void *append_records(void *arg)
{
	struct appender *a = arg;
	unsigned char buf[700];

	for (unsigned i = 0; i < APPENDS; i++) {
		size_t len = record_len(a->id, i);

		memset(buf, a->id * 40 + i % 40, len);
		if (mkw_append(a->f->file, buf, len, 0, &a->at[i]) !=
		    (ssize_t)len)
			a->at[i] = -1;
	}
	return NULL;
}

/* Every record lies whole where its append said, and nothing lies between. */
static void test_append(void **state)
{
	static struct appender a[APPENDERS];
	unsigned char buf[700];
	size_t total = 100;
	struct fixture f;

	(void)state;
	start(&f, 100);
	for (unsigned id = 0; id < APPENDERS; id++) {
		a[id] = (struct appender){ .f = &f, .id = id };
		pthread_create(&a[id].thread, NULL, append_records, &a[id]);
	}
	for (unsigned id = 0; id < APPENDERS; id++)
		pthread_join(a[id].thread, NULL);
	for (unsigned id = 0; id < APPENDERS; id++)
		for (unsigned i = 0; i < APPENDS; i++) {
			size_t len = record_len(id, i);

			total += len;
			assert_int_equal(mkw_pread(f.file, buf, len, a[id].at[i],
						   0), len);
			for (size_t b = 0; b < len; b++)
				assert_int_equal(buf[b], id * 40 + i % 40);
		}
	assert_int_equal(mkw_size(f.file), total);
	assert_int_equal(mkw_pwrite(f.file, "xyz", 3, 0, MKW_APPEND), 3);
	assert_int_equal(mkw_size(f.file), total + 3);
	if (f.align > 1)
		assert_int_equal(mkw_append(f.file, NULL, f.align, MKW_DIRECT,
					    NULL), -EINVAL);
	finish(&f);
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && p.revents == POLLIN;
}

#define SIZES 500u

static void *resize(void *arg)
{
	struct mkw_file *file = arg;
	off_t at;

	for (unsigned i = 0; i < SIZES; i++)
		if (mkw_append(file, "x", 1, 0, &at) != 1)
			abort();
	return NULL;
}

static void test_size_watched(void **state)
{
	struct mkw_file *other;
	struct pollfd p;
	struct fixture f;
	pthread_t thread;
	int fd;

	(void)state;
	start(&f, P(2));
	fd = mkw_size_fd(f.file);
	assert_true(fd >= 0);
	assert_int_equal(mkw_size_fd(f.file), fd);
	assert_false(readable(fd));
	assert_int_equal(mkw_truncate(f.file, (off_t)P(2)), 0);
	assert_int_equal(mkw_pwrite(f.file, "x", 1, 0, 0), 1);
	assert_false(readable(fd));
	assert_int_equal(mkw_truncate(f.file, (off_t)P(1)), 0);
	assert_true(readable(fd));
	assert_int_equal(mkw_size(f.file), P(1));
	assert_true(readable(fd));
	assert_int_equal(mkw_size_seen(f.file), P(1));
	assert_false(readable(fd));
	/* There and back is a change; and so is one by another handle. */
	assert_int_equal(mkw_truncate(f.file, (off_t)P(3)), 0);
	assert_int_equal(mkw_truncate(f.file, (off_t)P(1)), 0);
	assert_true(readable(fd));
	assert_int_equal(mkw_size_seen(f.file), P(1));
	assert_int_equal(mkw_file_open(f.engine, f.path, O_RDWR, 0, &other), 0);
	assert_int_equal(mkw_pwrite(other, "x", 1, (off_t)P(1), 0), 1);
	assert_true(readable(fd));
	assert_int_equal(mkw_size_seen(f.file), P(1) + 1);

	/* The last change of many is not missed. */
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	assert_int_equal(pthread_create(&thread, NULL, resize, other), 0);
	while (mkw_size_seen(f.file) != (int64_t)(P(1) + 1 + SIZES))
		assert_true(poll(&p, 1, -1) == 1 || errno == EINTR);
	pthread_join(thread, NULL);
	assert_false(readable(fd));
	assert_int_equal(mkw_size_fd(NULL), -EINVAL);
	assert_int_equal(mkw_size_seen(NULL), -EINVAL);
	assert_int_equal(mkw_file_close(other), 0);
	finish(&f);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void test_budget(void **state)
{
	struct mkw_stats st = MKW_STATS_INIT;
	struct fixture f;
	unsigned char *p;
	size_t pages = 2048;

	(void)state;
	start_sized(&f, P(pages), MKW_CACHE_BYTES_MIN);
	p = map(&f, P(pages), PROT_READ | PROT_WRITE, 0);
	for (size_t i = 0; i < pages; i++) {
		size_t at = P(i * 7 % pages);

		assert_int_equal(p[at + 3], pattern(at + 3));
		if (i % 3 == 0)
			p[at + 4] = 0xab;
		if (i % 256 == 0) {
			assert_int_equal(mkw_engine_stats(f.engine, &st), 0);
			assert_true(st.cached_bytes <= st.cache_bytes);
		}
	}
	for (size_t i = 0; i < pages; i++) {
		size_t at = P(i * 7 % pages);

		assert_int_equal(p[at + 4], i % 3 ? pattern(at + 4) : 0xab);
	}
	assert_int_equal(mkw_engine_stats(f.engine, &st), 0);
	assert_true(st.reclaim_dropped > 0);
	assert_int_equal(mkw_unmap(p, P(pages)), 0);
	finish(&f);
}

/* R7: one operation larger than the cache. */
static void test_larger_than_cache(void **state)
{
	size_t pages = 1024;
	unsigned char *buf = malloc(P(pages)), *want = malloc(P(pages));
	struct fixture f;

	(void)state;
	start_sized(&f, P(pages), MKW_CACHE_BYTES_MIN);
	fill_pattern(want, 0, P(pages));
	assert_int_equal(mkw_pread(f.file, buf, P(pages), 0, 0), P(pages));
	assert_memory_equal(buf, want, P(pages));
	for (size_t i = 0; i < P(pages); i++)
		want[i] = (unsigned char)(i * 13);
	assert_int_equal(mkw_pwrite(f.file, want + 5, P(pages) - 9, 5, 0),
			 P(pages) - 9);
	want[0] = pattern(0), want[1] = pattern(1), want[2] = pattern(2);
	want[3] = pattern(3), want[4] = pattern(4);
	for (size_t i = P(pages) - 4; i < P(pages); i++)
		want[i] = pattern(i);
	assert_int_equal(mkw_pread(f.file, buf, P(pages), 0, 0), P(pages));
	assert_memory_equal(buf, want, P(pages));
	assert_int_equal(mkw_sync(f.file), 0);
	check_host(&f, want, 0, P(pages));
	free(buf);
	free(want);
	finish(&f);
}

/* Only the range is written, to where another descriptor sees it. */
static void test_sync_range(void **state)
{
	const unsigned flags[] = { 0, MKW_SYNC_NOFLUSH };
	struct fixture f;
	unsigned char vec[8], *p;

	(void)state;
	start(&f, P(8));
	p = map(&f, P(8), PROT_READ | PROT_WRITE, 0);
	for (unsigned i = 0; i < 2; i++) {
		for (size_t k = 0; k < 8; k++)
			p[P(k)] = (unsigned char)(100 + 8 * i + k);
		assert_int_equal(mkw_sync_range(f.file, (off_t)P(3) - 1, 2,
						flags[i]), 0);
		assert_int_equal(mkw_resident(f.file, 0, P(8), vec), 0);
		for (size_t k = 0; k < 8; k++) {
			unsigned char c = (unsigned char)(100 + 8 * i + k);

			assert_int_equal(vec[k] & MKW_DIRTY,
					 k == 2 || k == 3 ? 0 : MKW_DIRTY);
			if (k == 2 || k == 3)
				check_host(&f, &c, P(k), 1);
		}
	}
	assert_int_equal(mkw_sync_range(f.file, (off_t)P(4), 0, 0), 0);
	assert_int_equal(mkw_resident(f.file, 0, P(8), vec), 0);
	assert_true(vec[1] & MKW_DIRTY);
	assert_false((vec[4] | vec[7]) & MKW_DIRTY);
	assert_int_equal(mkw_unmap(p, P(8)), 0);
	finish(&f);
}

static void test_resident(void **state)
{
	struct fixture f;
	unsigned char vec[8], *p, c;

	(void)state;
	start(&f, P(8));
	p = map(&f, P(8), PROT_READ | PROT_WRITE, 0);
	assert_int_equal(mkw_pread(f.file, &c, 1, P(2), 0), 1);
	p[P(5)] = 1;
	assert_int_equal(mkw_resident(f.file, 0, P(8), vec), 0);
	assert_int_equal(vec[0], 0);
	assert_int_equal(vec[2], MKW_RESIDENT);
	assert_int_equal(vec[5], MKW_RESIDENT | MKW_DIRTY | MKW_MAPPED);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(mkw_resident(f.file, P(5), 1, vec), 0);
	assert_int_equal(vec[0], MKW_RESIDENT | MKW_MAPPED);
	assert_int_equal(mkw_unmap(p, P(8)), 0);
	finish(&f);
}

/* A sync leaves nothing behind that would end a later wait of its thread. */
static void test_sync_interrupts_nothing(void **state)
{
	int fd = epoll_create1(EPOLL_CLOEXEC), interrupted = 0;
	struct epoll_event event;
	struct fixture f;
	unsigned char *p;

	(void)state;
	start(&f, P(64));
	p = map(&f, P(64), PROT_READ | PROT_WRITE, 0);
	for (int i = 0; i < 50; i++) {
		p[P(i)] = (unsigned char)i;
		assert_int_equal(mkw_sync(f.file), 0);
		interrupted += epoll_wait(fd, &event, 1, 2) < 0;
	}
	/* The kernel's workers, where it needs some for a write, begin with one. */
	assert_in_range(interrupted, 0, 5);
	close(fd);
	assert_int_equal(mkw_unmap(p, P(64)), 0);
	finish(&f);
}

/* ---- readahead -------------------------------------------------------- */

#define RA_FILE_PAGES 4096

static struct mkw_stats stats(struct fixture *f)
{
	struct mkw_stats st = MKW_STATS_INIT;

	assert_int_equal(mkw_engine_stats(f->engine, &st), 0);
	return st;
}

static void touch_page(const unsigned char *p, size_t i)
{
	assert_int_equal(*(volatile const unsigned char *)(p + P(i) + 5),
			 pattern(P(i) + 5));
}

/* Whoever reads in order is noticed, in either direction, and by mapping or call. */
static void test_readahead_in_order(void **state)
{
	struct fixture f;
	unsigned char *p, buf[64];
	struct mkw_stats st;

	(void)state;
	for (int how = 0; how < 3; how++) {
		start_sized(&f, P(RA_FILE_PAGES), 64 << 20);
		p = map(&f, P(RA_FILE_PAGES), PROT_READ, 0);
		for (size_t i = 0; i < RA_FILE_PAGES; i++) {
			if (how == 2) {
				assert_int_equal(mkw_pread(f.file, buf, 64,
							   P(i), 0), 64);
				assert_int_equal(buf[5], pattern(P(i) + 5));
			} else {
				touch_page(p, how ? RA_FILE_PAGES - 1 - i : i);
			}
		}
		st = stats(&f);
		/* The engine's thread may be late on a busy machine. */
		assert_true(st.readahead_pages > RA_FILE_PAGES / 8);
		if (how < 2)
			assert_true(st.faults < RA_FILE_PAGES / 2);
		assert_int_equal(mkw_unmap(p, P(RA_FILE_PAGES)), 0);
		finish(&f);
	}
}

/* Who takes his time misses no page, once he is known. */
static void test_readahead_stays_ahead(void **state)
{
	unsigned char *p, there = 0;
	struct fixture f;

	(void)state;
	start_sized(&f, P(RA_FILE_PAGES), 64 << 20);
	p = map(&f, P(RA_FILE_PAGES), PROT_READ, 0);
	for (size_t i = 0; i < RA_FILE_PAGES; i++) {
		/* For ever, where it is not read ahead. */
		for (; i >= 64 && !there; sched_yield())
			assert_int_equal(mkw_resident(f.file, P(i), 1, &there),
					 0);
		there = 0;
		touch_page(p, i);
	}
	assert_int_equal(mkw_unmap(p, P(RA_FILE_PAGES)), 0);
	finish(&f);
}

static void test_readahead_strided(void **state)
{
	struct mkw_stats st;
	struct fixture f;
	unsigned char *p;

	(void)state;
	start_sized(&f, P(RA_FILE_PAGES), 64 << 20);
	p = map(&f, P(RA_FILE_PAGES), PROT_READ, 0);
	for (size_t i = 3; i < RA_FILE_PAGES; i += 17)
		touch_page(p, i);
	st = stats(&f);
	assert_true(st.readahead_pages > RA_FILE_PAGES / 17 / 8);
	/* What lies between is not wanted. */
	assert_true(st.fill_pages < RA_FILE_PAGES / 17 + 64);
	assert_int_equal(mkw_unmap(p, P(RA_FILE_PAGES)), 0);
	finish(&f);
}

/* At random, or told not to: nothing. Told that it will be in order: from the start. */
static void test_readahead_advice(void **state)
{
	struct fixture f;
	unsigned char *p;
	size_t at = 1;

	(void)state;
	start_sized(&f, P(RA_FILE_PAGES), 4 << 20);
	p = map(&f, P(RA_FILE_PAGES), PROT_READ, 0);
	for (size_t i = 0; i < RA_FILE_PAGES / 2; i++) {
		at = at * 2654435761u % 4294967291u;
		touch_page(p, at % RA_FILE_PAGES);
	}
	assert_true(stats(&f).readahead_pages < RA_FILE_PAGES / 32);
	assert_int_equal(mkw_unmap(p, P(RA_FILE_PAGES)), 0);
	finish(&f);

	start_sized(&f, P(RA_FILE_PAGES), 4 << 20);
	assert_int_equal(mkw_advise(f.file, 0, 0, MKW_ADVICE_RANDOM), 0);
	p = map(&f, P(RA_FILE_PAGES), PROT_READ, 0);
	for (size_t i = 0; i < 512; i++)
		touch_page(p, i);
	assert_int_equal(stats(&f).fill_pages, 512);
	assert_int_equal(mkw_advise(f.file, 0, 0, MKW_ADVICE_SEQUENTIAL), 0);
	touch_page(p, 1024);
	assert_true(stats(&f).fill_pages > 512 + 32);
	assert_int_equal(mkw_unmap(p, P(RA_FILE_PAGES)), 0);
	finish(&f);
}

/* Waits until so many pages have been read ahead: the engine does it by itself. */
static void await_readahead(struct fixture *f, uint64_t pages)
{
	while (stats(f).readahead_pages < pages)
		sched_yield();
}

static void test_willneed_dontneed(void **state)
{
	const struct mkw_range ranges[] = {
		{ P(600), P(2) }, { P(700) + 100, 1 }, { P(900), P(3) },
	};
	unsigned char vec[RA_FILE_PAGES], *p, want[64];
	struct fixture f;

	(void)state;
	start(&f, P(RA_FILE_PAGES));
	assert_int_equal(mkw_advise(f.file, P(10), P(300), MKW_ADVICE_WILLNEED),
			 0);
	await_readahead(&f, 300);
	assert_int_equal(mkw_prefetch(f.file, ranges, 3), 3);
	await_readahead(&f, 306);
	assert_int_equal(mkw_resident(f.file, 0, sizeof(vec) * page, vec), 0);
	for (size_t i = 0; i < RA_FILE_PAGES; i++)
		assert_int_equal(vec[i], (i >= 10 && i < 310) || i == 600 ||
						 i == 601 || i == 700 ||
						 (i >= 900 && i < 903) ?
						 MKW_RESIDENT : 0);

	p = map(&f, P(RA_FILE_PAGES), PROT_READ | PROT_WRITE, 0);
	memset(p + P(20), 'x', 64);
	memset(want, 'x', 64);
	assert_int_equal(mkw_advise(f.file, P(20), P(40), MKW_ADVICE_DONTNEED),
			 0);
	check_host(&f, want, P(20), 64);
	assert_int_equal(mkw_resident(f.file, P(19), P(42), vec), 0);
	assert_int_equal(vec[0], MKW_RESIDENT);
	for (size_t i = 1; i < 41; i++)
		assert_int_equal(vec[i], 0);
	assert_int_equal(vec[41], MKW_RESIDENT);
	assert_memory_equal(p + P(20), want, 64);
	touch_page(p, 30);
	assert_int_equal(mkw_unmap(p, P(RA_FILE_PAGES)), 0);
	finish(&f);
}

/* ---- threads ---------------------------------------------------------- */

#define THREADS 8

struct crowd {
	_Atomic uint64_t *words;
	_Atomic unsigned go;
	uint64_t sum;
	unsigned nr;
};

static void *one_page(void *arg)
{
	struct crowd *c = arg;

	while (!atomic_load(&c->go))
		;
	for (int i = 0; i < 1000; i++)
		atomic_fetch_add_explicit(&c->words[0], 1,
					  memory_order_relaxed);
	return NULL;
}

/*
 * Many threads on one absent page, read and write faults at once. Relaxed, since
 * ThreadSanitizer's stronger atomics fault with a lock of its own held, which the
 * in-thread handler then waits for; joining orders the rest.
 */
static void test_crowd_on_a_page(void **state)
{
	pthread_t t[THREADS];
	struct crowd c;
	struct fixture f;
	unsigned char *p;

	(void)state;
	for (int round = 0; round < 20; round++) {
		start(&f, P(4));
		p = map(&f, P(4), PROT_READ | PROT_WRITE, 0);
		c = (struct crowd){ .words = (void *)(p + P(1)) };
		atomic_store_explicit(&c.words[0], 0, memory_order_relaxed);
		assert_int_equal(mkw_sync(f.file), 0);
		for (int i = 0; i < THREADS; i++)
			pthread_create(&t[i], NULL, one_page, &c);
		atomic_store(&c.go, 1);
		for (int i = 0; i < 5; i++)
			assert_int_equal(mkw_sync(f.file), 0);
		for (int i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		assert_int_equal(atomic_load_explicit(&c.words[0],
						      memory_order_relaxed),
				 THREADS * 1000);
		assert_int_equal(mkw_sync(f.file), 0);
		check_host(&f, (unsigned char *)&(uint64_t){ THREADS * 1000 },
			   P(1), 8);
		assert_int_equal(mkw_unmap(p, P(4)), 0);
		finish(&f);
	}
}

/* B taken literally: one fault, resolved after a thousand bare wakes. */
static void test_thousand_wakes(void **state)
{
	struct mkw_stats st = MKW_STATS_INIT;
	struct fixture f;
	unsigned char *p;

	(void)state;
	start(&f, P(2));
	p = map(&f, P(2), PROT_READ | PROT_WRITE, 0);
	mkw__testing.bare_wakes = 1000;
	assert_int_equal(p[P(1)], pattern(P(1)));
	assert_int_equal(mkw__testing.bare_wakes, 0);
	assert_int_equal(mkw_engine_stats(f.engine, &st), 0);
	assert_true(st.retries >= 1000);
	assert_int_equal(mkw_unmap(p, P(2)), 0);
	finish(&f);
}

/* ---- opening ---------------------------------------------------------- */

static void test_open_twice(void **state)
{
	struct mkw_file *again, *ro;
	struct mkw_engine *other;
	unsigned char c = 0x77, got;
	struct fixture f;
	int fd;

	(void)state;
	start(&f, P(2));
	assert_int_equal(mkw_file_open(f.engine, f.path, O_RDWR, 0, &again), 0);
	assert_int_equal(mkw_pwrite(f.file, &c, 1, 5, 0), 1);
	assert_int_equal(mkw_pread(again, &got, 1, 5, 0), 1);
	assert_int_equal(got, c);
	assert_int_equal(mkw_file_open(f.engine, f.path, O_RDONLY, 0, &ro), 0);
	assert_int_equal(mkw_pwrite(ro, &c, 1, 5, 0), -EBADF);
	assert_int_equal(mkw_truncate(ro, 0), -EBADF);
	assert_int_equal(punch(&(struct fixture){ .file = ro }, 0, 1), -EBADF);
	assert_int_equal(mkw_file_close(ro), 0);

	assert_int_equal(mkw_engine_open(NULL, &other), 0);
	assert_int_equal(mkw_file_open(other, f.path, O_RDWR, 0, &ro), -EBUSY);
	assert_int_equal(mkw_file_open(other, f.path, O_RDWR | O_TRUNC, 0, &ro),
			 -EBUSY);
	assert_int_equal(mkw_size(f.file), P(2));
	assert_int_equal(mkw_file_close(again), 0);
	assert_int_equal(mkw_engine_close(other), 0);

	fd = open(f.path, O_RDWR);
	assert_int_equal(mkw_file_open_fd(f.engine, fd, &again), 0);
	close(fd);
	assert_int_equal(mkw_pread(again, &got, 1, 5, 0), 1);
	assert_int_equal(got, c);
	assert_int_equal(mkw_file_close(again), 0);
	finish(&f);
}

static void test_open_flags(void **state)
{
	struct fixture f;
	struct mkw_file *file;
	char path[300];

	(void)state;
	start(&f, P(2));
	assert_int_equal(mkw_file_close(f.file), 0);
	assert_int_equal(mkw_file_open(f.engine, f.path, O_RDWR | O_TRUNC, 0,
				       &f.file), 0);
	assert_int_equal(mkw_size(f.file), 0);
	snprintf(path, sizeof(path), "%s.new", f.path);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDWR, 0, &file),
			 -ENOENT);
	assert_int_equal(mkw_file_open(f.engine, path,
				       O_RDWR | O_CREAT | O_EXCL, 0600, &file),
			 0);
	assert_int_equal(mkw_pwrite(file, "hello", 5, 0, 0), 5);
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(mkw_file_open(f.engine, path,
				       O_RDWR | O_CREAT | O_EXCL, 0600, &file),
			 -EEXIST);
	assert_int_equal(mkw_file_open(f.engine, dir, O_RDONLY, 0, &file),
			 -EINVAL);
	unlink(path);
	finish(&f);
}

/* ---- errors ----------------------------------------------------------- */

static void test_bad_input(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_stats st = { 0 };
	struct mkw_file_info info = { 0 };
	struct mkw_engine *e;
	struct mkw_file *file;
	struct fixture f;
	struct mkw_range range = { 0, 0 };
	unsigned char vec[4];
	struct iovec iov = { vec, sizeof(vec) };
	void *p;

	(void)state;
	start(&f, P(4));
	assert_int_equal(mkw_engine_open(NULL, NULL), -EINVAL);
	opt.size = 0;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	opt.size = sizeof(opt) + 8;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	opt.size = offsetof(struct mkw_engine_options, alloc) + 4;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	/* As long as it was at first; what follows is not looked at. */
	opt.size = offsetof(struct mkw_engine_options, alloc);
	opt.alloc = 99;
	assert_int_equal(mkw_engine_open(&opt, &e), 0);
	assert_int_equal(mkw_engine_close(e), 0);
	opt.size = sizeof(opt);
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	opt.alloc = 0;
	opt.policy = 2;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	opt.policy = 0;
	opt.cache_bytes = MKW_CACHE_BYTES_MIN - 1;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	assert_int_equal(mkw_engine_close(NULL), -EINVAL);
	assert_int_equal(mkw_engine_close(f.engine), -EBUSY);
	assert_int_equal(mkw_engine_stats(NULL, &st), -EINVAL);
	assert_int_equal(mkw_engine_stats(f.engine, NULL), -EINVAL);
	assert_int_equal(mkw_engine_stats(f.engine, &st), -EINVAL);

	assert_int_equal(mkw_file_open(NULL, f.path, O_RDWR, 0, &file), -EINVAL);
	assert_int_equal(mkw_file_open(f.engine, NULL, O_RDWR, 0, &file),
			 -EINVAL);
	assert_int_equal(mkw_file_open(f.engine, f.path, O_RDWR, 0, NULL),
			 -EINVAL);
	assert_int_equal(mkw_file_open(f.engine, f.path, O_WRONLY, 0, &file),
			 -EINVAL);
	assert_int_equal(mkw_file_open(f.engine, f.path, O_RDWR | O_APPEND, 0,
				       &file), -EINVAL);
	assert_int_equal(mkw_file_open(f.engine, f.path, O_RDONLY | O_TRUNC, 0,
				       &file), -EINVAL);
	assert_int_equal(mkw_file_open_fd(f.engine, -1, &file), -EBADF);
	assert_int_equal(mkw_file_open_fd(f.engine, 0, NULL), -EINVAL);
	assert_int_equal(mkw_file_open_fd(NULL, 0, &file), -EINVAL);
	assert_int_equal(mkw_file_close(NULL), -EINVAL);

	assert_int_equal(mkw_pread(NULL, vec, 1, 0, 0), -EINVAL);
	assert_int_equal(mkw_pread(f.file, vec, 1, -1, 0), -EINVAL);
	assert_int_equal(mkw_pread(f.file, vec, 1, 0, 0x80), -EINVAL);
	assert_int_equal(mkw_pread(f.file, vec, 4, INT64_MAX - 1, 0), -EINVAL);
	assert_int_equal(mkw_pread(f.file, vec, 0, 0, 0), 0);
	assert_int_equal(mkw_pread(f.file, vec, 4, P(4), 0), 0);
	assert_int_equal(mkw_pwrite(NULL, vec, 1, 0, 0), -EINVAL);
	assert_int_equal(mkw_pwrite(f.file, vec, 1, -1, 0), -EINVAL);
	assert_int_equal(mkw_pwrite(f.file, vec, 1, 0, 0x80), -EINVAL);
	assert_int_equal(mkw_pwrite(f.file, vec, 4, INT64_MAX - 1, 0), -EINVAL);
	assert_int_equal(mkw_pwrite(f.file, vec, 0, P(9), 0), 0);
	assert_int_equal(mkw_pread(f.file, vec, 1, 0, MKW_APPEND), -EINVAL);
	assert_int_equal(mkw_append(NULL, vec, 1, 0, NULL), -EINVAL);
	assert_int_equal(mkw_append(f.file, vec, 1, MKW_APPEND, NULL), -EINVAL);
	assert_int_equal(mkw_append(f.file, vec, 1, MKW_NOWAIT, NULL), -EAGAIN);
	assert_int_equal(mkw_append(f.file, NULL, 1, 0, NULL), -EFAULT);
	assert_int_equal(mkw_append(f.file, vec, 0, 0, NULL), 0);
	assert_int_equal(mkw_size(f.file), P(4));

	assert_int_equal(mkw_truncate(NULL, 0), -EINVAL);
	assert_int_equal(mkw_truncate(f.file, -1), -EINVAL);
	assert_int_equal(mkw_fallocate(NULL, 0, 0, 1), -EINVAL);
	assert_int_equal(mkw_fallocate(f.file, 0, -1, 1), -EINVAL);
	assert_int_equal(mkw_fallocate(f.file, 0, 0, 0), -EINVAL);
	assert_int_equal(mkw_fallocate(f.file, 0, INT64_MAX, 1), -EINVAL);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE, 0, 1),
			 -EOPNOTSUPP);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_UNSHARE_RANGE, 0,
				       page), -EOPNOTSUPP);
	assert_int_equal(mkw_seek(NULL, 0, SEEK_DATA), -EINVAL);
	assert_int_equal(mkw_seek(f.file, -1, SEEK_DATA), -EINVAL);
	assert_int_equal(mkw_seek(f.file, 0, SEEK_SET), -EINVAL);
	assert_int_equal(mkw_size(NULL), -EINVAL);
	assert_int_equal(mkw_sync(NULL), -EINVAL);
	assert_int_equal(mkw_sync_range(NULL, 0, 0, 0), -EINVAL);
	assert_int_equal(mkw_sync_range(f.file, -1, 0, 0), -EINVAL);
	assert_int_equal(mkw_sync_range(f.file, 0, -1, 0), -EINVAL);
	assert_int_equal(mkw_sync_range(f.file, 2, INT64_MAX - 1, 0), -EINVAL);
	assert_int_equal(mkw_sync_range(f.file, 0, 0, 2), -EINVAL);
	assert_int_equal(mkw_file_freeze(NULL), -EINVAL);
	assert_int_equal(mkw_file_thaw(NULL), -EINVAL);
	assert_int_equal(mkw_file_thaw(f.file), -EINVAL);
	assert_int_equal(mkw_engine_freeze(NULL), -EINVAL);
	assert_int_equal(mkw_engine_thaw(NULL), -EINVAL);
	assert_int_equal(mkw_engine_thaw(f.engine), -EINVAL);
	assert_int_equal(mkw_file_info(NULL, &info), -EINVAL);
	assert_int_equal(mkw_file_info(f.file, NULL), -EINVAL);
	assert_int_equal(mkw_file_info(f.file, &info), -EINVAL);

	assert_int_equal(mkw_map(NULL, NULL, 1, PROT_READ, 0, 0, &p), -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 1, PROT_READ, 0, 0, NULL),
			 -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 0, PROT_READ, 0, 0, &p), -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 1, PROT_READ, 0, 1, &p), -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 1, PROT_READ, 0, -P(1), &p),
			 -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 1, PROT_NONE, 0, 0, &p), -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 1, PROT_WRITE, 0, 0, &p),
			 -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 1, PROT_READ, 0x80, 0, &p),
			 -EINVAL);
	assert_int_equal(mkw_map(f.file, (void *)1, 1, PROT_READ, 0, 0, &p),
			 -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, 1, PROT_READ, MKW_MAP_FIXED, 0,
				 &p), -EINVAL);
	assert_int_equal(mkw_map(f.file, NULL, (size_t)1 << 60, PROT_READ, 0, 0,
				 &p), -ENOMEM);
	assert_int_equal(mkw_unmap((void *)1, page), -EINVAL);
	assert_int_equal(mkw_unmap((void *)page, 0), -EINVAL);
	assert_int_equal(mkw_unmap((void *)page, SIZE_MAX), -EINVAL);
	assert_int_equal(mkw_resident(NULL, 0, 1, vec), -EINVAL);
	assert_int_equal(mkw_resident(f.file, 0, 1, NULL), -EINVAL);
	assert_int_equal(mkw_resident(f.file, 1, 1, vec), -EINVAL);
	assert_int_equal(mkw_resident(f.file, -1, 1, vec), -EINVAL);
	assert_int_equal(mkw_resident(f.file, 0, 0, vec), -EINVAL);
	assert_int_equal(mkw_preadv(NULL, &iov, 1, 0, 0), -EINVAL);
	assert_int_equal(mkw_preadv(f.file, NULL, 1, 0, 0), -EINVAL);
	assert_int_equal(mkw_preadv(f.file, &iov, -1, 0, 0), -EINVAL);
	assert_int_equal(mkw_preadv(f.file, &iov, 1025, 0, 0), -EINVAL);
	assert_int_equal(mkw_preadv(f.file, &iov, 1, -1, 0), -EINVAL);
	assert_int_equal(mkw_preadv(f.file, &iov, 1, 0, MKW_APPEND), -EINVAL);
	assert_int_equal(mkw_preadv(f.file, (struct iovec *)1, 1, 0, 0),
			 -EFAULT);
	assert_int_equal(mkw_preadv(f.file, NULL, 0, 0, 0), 0);
	assert_int_equal(mkw_pwritev(NULL, &iov, 1, 0, 0), -EINVAL);
	assert_int_equal(mkw_pwritev(f.file, NULL, 1, 0, 0), -EINVAL);
	assert_int_equal(mkw_pwritev(f.file, &iov, 1, 0, 0x80), -EINVAL);
	iov.iov_len = SIZE_MAX;
	assert_int_equal(mkw_pwritev(f.file, &iov, 1, 0, 0), -EINVAL);
	assert_int_equal(mkw_advise(NULL, 0, 0, MKW_ADVICE_NORMAL), -EINVAL);
	assert_int_equal(mkw_advise(f.file, 0, 0, 5), -EINVAL);
	assert_int_equal(mkw_advise(f.file, 0, 0, -1), -EINVAL);
	assert_int_equal(mkw_advise(f.file, -1, 0, MKW_ADVICE_NORMAL), -EINVAL);
	assert_int_equal(mkw_advise(f.file, 1, INT64_MAX, MKW_ADVICE_NORMAL),
			 -EINVAL);
	assert_int_equal(mkw_prefetch(NULL, &range, 1), -EINVAL);
	assert_int_equal(mkw_prefetch(f.file, NULL, 1), -EINVAL);
	assert_int_equal(mkw_prefetch(f.file, &range, 1), -EINVAL);
	assert_int_equal(mkw_prefetch(f.file, NULL, 0), 0);
	finish(&f);
}

/* What the counters say of system calls is what a system call finds. */
static void test_kernel_faults(void **state)
{
	struct mkw_stats st = MKW_STATS_INIT;
	struct fixture f;
	void *p;

	(void)state;
	start(&f, page);
	assert_int_equal(mkw_engine_stats(f.engine, &st), 0);
	assert_in_range(st.kernel_faults, 0, 1);
	assert_int_equal(mkw_map(f.file, NULL, page, PROT_READ | PROT_WRITE, 0,
				 0, &p), 0);
	errno = 0;
	assert_int_equal(pread(f.fd, p, 16, 0), st.kernel_faults ? 16 : -1);
	assert_int_equal(errno, st.kernel_faults ? 0 : EFAULT);
	assert_int_equal(mkw_unmap(p, page), 0);
	finish(&f);
}

/* ---- groups ----------------------------------------------------------- */

#define ALL \
	T(test_load), T(test_kernel_faults), T(test_store_and_sync), T(test_offset_map), \
	T(test_read_only_map), T(test_past_the_end), T(test_unmap_parts), \
	T(test_fixed_replaces_ordinary), T(test_mapping_outlives_handle), \
	T(test_read_write), T(test_direct_beside_dirty), \
	T(test_direct_alignment), T(test_self_mapped), \
	T(test_faults_inside_system_calls), T(test_bad_buffer), \
	T(test_nowait), T(test_punch), T(test_zero_range), T(test_allocate), \
	T(test_bytes_past_the_end), T(test_append), T(test_size_watched), \
	T(test_budget), T(test_larger_than_cache), \
	T(test_resident), T(test_sync_range), T(test_sync_interrupts_nothing), \
	T(test_crowd_on_a_page), T(test_thousand_wakes), \
	T(test_readahead_in_order), T(test_readahead_stays_ahead), \
	T(test_readahead_strided), \
	T(test_readahead_advice), T(test_willneed_dontneed), \
	T(test_open_twice), T(test_open_flags), T(test_bad_input)

int main(void)
{
	static const struct way ways[] = {
		{ MKW_POLICY_RETRY, 0, "retry, pager" },
		{ MKW_POLICY_RETRY, MKW_MAP_INLINE, "retry, inline" },
		{ MKW_POLICY_INVALIDATE, 0, "invalidate, pager" },
		{ MKW_POLICY_INVALIDATE, MKW_MAP_INLINE, "invalidate, inline" },
	};
#define T(fn) cmocka_unit_test(fn)
	const struct CMUnitTest tests[] = { ALL };
	struct mkw_engine *e;
	int failed = 0, r;

	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	r = mkw_engine_open(NULL, &e);
	if (r) {
		printf("SKIP: no engine here: %s\n", strerror(-r));
		return 77;
	}
	mkw_engine_close(e);
	if (!mkdtemp(dir)) {
		perror("mkdtemp");
		return 1;
	}
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		way = &ways[i];
		failed += cmocka_run_group_tests_name(way->name, tests, NULL,
						      NULL);
	}
	rmdir(dir);
	return failed;
}
