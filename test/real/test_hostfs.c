/* SPDX-License-Identifier: MIT */
/*
 * What the engine makes of the file system that it is on: run on each that
 * tools/with-fs makes, in $MKW_DIR or here.
 *
 * What the file system does is found out by plain system calls; the engine must say
 * and do the same. Alignment, ownership, others who do not care for it, contents
 * and sizes after a sync, holes, times, and calls through a queue.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mkwrite/mkwrite.h"
#include "access.h"
#include "leftover.h"

#define P(n) ((size_t)(n) * page)

static size_t page;
static char path[256], other[300];

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *p;
	int fd;				/* for looking */
};

static void start(struct fixture *f, uint64_t size, size_t map_len)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	/* Nothing happens by age: what is seen is the test's own doing. */
	opt.writeback_age_ms = 1000000;
	f->fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(f->fd >= 0);
	assert_int_equal(ftruncate(f->fd, (off_t)size), 0);
	assert_int_equal(mkw_engine_open(&opt, &f->engine), 0);
	leftover_engine(f->engine);
	mkw__trap_reinstall();
	assert_int_equal(mkw_file_open(f->engine, path, O_RDWR, 0, &f->file), 0);
	leftover_file(f->file);
	assert_int_equal(mkw_map(f->file, NULL, map_len, PROT_READ | PROT_WRITE,
				 0, 0, (void **)&f->p), 0);
}

static void finish(struct fixture *f, size_t map_len)
{
	leftover_end(f->engine, f->file, f->p, map_len, path);
	close(f->fd);
}

/* After each test: what a failed one left. */
static int clean_up(void **state)
{
	(void)state;
	unlink(path);
	unlink(other);
	return leftover_clear();
}

/* What is left open is locked, and clearing frees it. */
static void test_leftover(void **state)
{
	struct mkw_engine *second;
	struct mkw_file *again;
	struct fixture f;

	(void)state;
	start(&f, P(2), P(2));
	f.p[0] = 1;
	assert_int_equal(mkw_engine_open(NULL, &second), 0);
	assert_int_equal(mkw_file_open(second, path, O_RDWR, 0, &again), -EBUSY);
	assert_int_equal(leftover_clear(), 0);
	close(f.fd);
	assert_int_equal(mkw_file_open(second, path, O_RDWR, 0, &again), 0);
	assert_int_equal(mkw_file_close(again), 0);
	assert_int_equal(mkw_engine_close(second), 0);
}

/* ---- alignment -------------------------------------------------------- */

/* The least power of two that a plain O_DIRECT read takes; 0: none up to a page. */
static uint32_t least_alignment(void)
{
	unsigned char *buf = aligned_alloc(page, page);
	int fd = open(path, O_RDONLY | O_DIRECT);
	uint32_t least = 0;

	for (uint32_t n = 1; fd >= 0 && n <= page && !least; n *= 2)
		if (pread(fd, buf, n, n) == (ssize_t)n)
			least = n;
	if (fd >= 0)
		close(fd);
	free(buf);
	return least;
}

static void test_alignment(void **state)
{
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	unsigned char *buf = aligned_alloc(page, P(2));
	struct statfs fs;
	struct fixture f;
	uint32_t least;

	(void)state;
	start(&f, P(4), P(4));
	least = least_alignment();
	assert_int_equal(mkw_file_info(f.file, &info), 0);
	assert_int_equal(fstatfs(f.fd, &fs), 0);
	if (fs.f_type == TMPFS_MAGIC)
		least = 0;		/* accepts O_DIRECT, and ignores it */
	assert_int_equal(info.direct, least != 0);
	/* A file system may allow less than it names. */
	assert_true(info.direct_align >= least || !least);
	assert_true(info.direct_align <= page);
	memset(buf, 7, P(2));
	assert_int_equal(mkw_pwrite(f.file, buf, info.direct_align,
				    info.direct_align, MKW_DIRECT),
			 info.direct_align);
	assert_int_equal(f.p[info.direct_align], 7);
	assert_int_equal(f.p[2 * info.direct_align], 0);
	if (info.direct_align > 1)
		assert_int_equal(mkw_pwrite(f.file, buf, info.direct_align / 2,
					    0, MKW_DIRECT), -EINVAL);
	/* A buffer may lie anywhere. */
	assert_int_equal(mkw_pwrite(f.file, buf + 1, page, P(2), MKW_DIRECT),
			 page);
	assert_int_equal(mkw_pread(f.file, buf + 3, page, P(2), MKW_DIRECT),
			 page);
	assert_int_equal(buf[3 + page - 1], 7);
	free(buf);
	finish(&f, P(4));
}

/* ---- ownership -------------------------------------------------------- */

static void test_ownership(void **state)
{
	struct mkw_engine *second;
	struct mkw_file *again, *reader;
	struct fixture f;
	int fd;

	(void)state;
	start(&f, P(2), P(2));
	assert_int_equal(mkw_engine_open(NULL, &second), 0);
	assert_int_equal(mkw_file_open(second, path, O_RDWR, 0, &again), -EBUSY);
	assert_int_equal(mkw_file_open(second, path, O_RDONLY, 0, &again),
			 -EBUSY);
	/* Anybody who asks can see it. */
	fd = open(path, O_RDONLY);
	assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), -1);
	assert_int_equal(errno, EWOULDBLOCK);
	close(fd);
	finish(&f, P(2));

	/* Readers share. */
	close(open(path, O_RDWR | O_CREAT, 0600));
	assert_int_equal(mkw_file_open(second, path, O_RDONLY, 0, &reader), 0);
	assert_int_equal(mkw_engine_open(NULL, &f.engine), 0);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDONLY, 0, &again), 0);
	assert_int_equal(mkw_file_close(again), 0);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDWR, 0, &again),
			 -EBUSY);
	assert_int_equal(mkw_file_close(reader), 0);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDWR, 0, &again), 0);
	assert_int_equal(mkw_file_close(again), 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
	assert_int_equal(mkw_engine_close(second), 0);
	unlink(path);
}

/* ---- others, who do not ask ------------------------------------------- */

/* Told once to every handle, each time that it is found. */
static void test_length_changed_outside(void **state)
{
	struct mkw_file *second;
	struct fixture f;

	(void)state;
	start(&f, P(4), P(8));
	assert_int_equal(mkw_file_open(f.engine, path, O_RDWR, 0, &second), 0);
	leftover_file(second);
	f.p[0] = 1;
	assert_int_equal(mkw_sync(f.file), 0);
	for (int i = 0; i < 2; i++) {
		/* Shorter, then longer. */
		assert_int_equal(ftruncate(f.fd, (off_t)P(i ? 6 : 1)), 0);
		assert_int_equal(mkw_sync(f.file), -ESTALE);
		assert_int_equal(mkw_sync(f.file), 0);
		assert_int_equal(mkw_sync(second), -ESTALE);
		assert_int_equal(mkw_sync(second), 0);
	}
	/* Our own changes are none. */
	assert_int_equal(mkw_truncate(f.file, (off_t)P(3)), 0);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(mkw_truncate(f.file, (off_t)P(5) + 3), 0);
	assert_int_equal(mkw_pwrite(f.file, "x", 1, (off_t)P(6), 0), 1);
	assert_int_equal(mkw_sync(f.file), 0);
	/* A length that was ours once, and is not any more. */
	assert_int_equal(mkw_truncate(f.file, (off_t)P(2)), 0);
	assert_int_equal(ftruncate(f.fd, (off_t)P(6) + 1), 0);
	assert_int_equal(mkw_sync(f.file), -ESTALE);
	assert_int_equal(leftover_close(second), 0);
	finish(&f, P(8));
}

/* Who has the file open keeps it; who opens the name gets the other. */
static void test_replaced(void **state)
{
	struct fixture f;
	struct mkw_file *g;
	unsigned char c;
	int fd;

	(void)state;
	start(&f, P(2), P(2));
	fd = open(other, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(pwrite(fd, "new", 3, 0), 3);
	close(fd);
	assert_int_equal(rename(other, path), 0);
	f.p[0] = 'o';
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(mkw_file_open(f.engine, path, O_RDWR, 0, &g), 0);
	assert_int_equal(mkw_pread(g, &c, 1, 0, 0), 1);
	assert_int_equal(c, 'n');
	assert_int_equal(pread(f.fd, &c, 1, 0), 1);
	assert_int_equal(c, 'o');
	assert_int_equal(mkw_size(g), 3);
	assert_int_equal(mkw_file_close(g), 0);
	finish(&f, P(2));
}

/* ---- contents --------------------------------------------------------- */

/* Sizes inside of blocks, in every way: does the host say the same each time? */
static bool contents_agree(void)
{
	size_t len = P(40);
	unsigned char *model = calloc(1, len), *buf = aligned_alloc(page, len);
	unsigned char *got = malloc(len);
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	unsigned seed = 3;
	uint64_t size = 0;
	bool agree = true;
	struct fixture f;

	start(&f, 0, len);
	assert_int_equal(mkw_file_info(f.file, &info), 0);
	for (int i = 0; i < 400 && agree; i++) {
		uint64_t off = (uint64_t)rand_r(&seed) % P(34);
		size_t n = 1 + (size_t)rand_r(&seed) % P(5);
		unsigned kind = (unsigned)rand_r(&seed) % 8;

		memset(buf, rand_r(&seed), n + page);
		if (kind < 2) {
			off -= off % info.direct_align;
			n += info.direct_align - 1;
			n -= n % info.direct_align;
		}
		switch (kind) {
		case 2:
			assert_int_equal(mkw_truncate(f.file, (off_t)off), 0);
			memset(model + off, 0, len - off);
			size = off;
			break;
		case 3:
			assert_int_equal(mkw_fallocate(f.file,
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)off, (off_t)n), 0);
			memset(model + off, 0, n);
			break;
		case 4:
			if (!size)
				break;
			off %= size;
			n = off + n > size ? size - off : n;
			memcpy(f.p + off, buf, n);
			memcpy(model + off, buf, n);
			break;
		default:
			assert_int_equal(mkw_pwrite(f.file, buf, n, (off_t)off,
						    kind < 2 ? MKW_DIRECT : 0),
					 n);
			memcpy(model + off, buf, n);
			size = off + n > size ? off + n : size;
		}
		if (i % 20)
			continue;
		assert_int_equal(mkw_sync(f.file), 0);
		assert_int_equal(mkw_size(f.file), size);
		memset(got, 0, len);
		agree = lseek(f.fd, 0, SEEK_END) == (off_t)size &&
			pread(f.fd, got, len, 0) == (ssize_t)size &&
			!memcmp(got, model, len);
	}
	free(model);
	free(buf);
	free(got);
	if (agree) {
		finish(&f, len);
	} else {
		close(f.fd);
		assert_int_equal(leftover_clear(), 0);
	}
	return agree;
}

static void test_contents(void **state)
{
	(void)state;
	assert_true(contents_agree());
}

/* Planted bugs that leave the host's file wrong. */
static void test_contents_can_fail(void **state)
{
	const enum mkw__mutant bugs[] = {
		MKW__MUTANT_WRITE_SKIPS_DIRTY, MKW__MUTANT_DIRECT_LEAVES_FRAMES,
		MKW__MUTANT_PUNCH_KEEPS_EDGES, MKW__MUTANT_TRUNCATE_KEEPS_TAIL,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
		mkw__testing.mutant = bugs[i];
		if (contents_agree())
			fail_msg("planted bug %zu is not seen", i);
	}
}

static void test_holes(void **state)
{
	struct fixture f;
	off_t hole;

	(void)state;
	start(&f, P(64), P(64));
	memset(f.p, 1, P(64));
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(lseek(f.fd, 0, SEEK_HOLE), P(64));
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE |
					       FALLOC_FL_KEEP_SIZE,
				       P(16), P(32)), 0);
	assert_int_equal(mkw_sync(f.file), 0);
	hole = lseek(f.fd, 0, SEEK_HOLE);
	assert_int_equal(hole, P(16));
	assert_int_equal(lseek(f.fd, hole, SEEK_DATA), P(48));
	assert_int_equal(mkw_seek(f.file, 0, SEEK_HOLE), P(16));
	/* A store into the hole makes a block of it, and no more than its own. */
	f.p[P(20)] = 2;
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(lseek(f.fd, hole, SEEK_DATA), P(20));
	assert_int_equal(lseek(f.fd, P(20), SEEK_HOLE), P(21));
	finish(&f, P(64));
}

static uint64_t blocks(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(fstat(f->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* What is known of some pages' blocks gives none to the pages between. */
static void test_stores_between_holes(void **state)
{
	struct fixture f;

	(void)state;
	start(&f, P(64), P(64));
	f.p[0] = 1;
	for (int i = 2; i < 64; i += 6)
		assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE |
						       FALLOC_FL_KEEP_SIZE,
					       P(i), P(1)), 0);
	f.p[P(8)] = 1;
	assert_int_equal(mkw_sync(f.file), 0);
	/* ext4 keeps one of extents, if there once were many. */
	assert_in_range(blocks(&f), P(2), P(3));
	finish(&f, P(64));
}

/* ---- times ---------------------------------------------------------------- */

#define LONG_AGO 1000000000	/* seconds: 2001 */

/* Makes the file old; was it modified since the last call, as stat(2) tells? */
static bool modified(struct fixture *f)
{
	const struct timespec old[2] = { { LONG_AGO, 0 }, { LONG_AGO, 0 } };
	struct stat st;

	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(futimens(f->fd, old), 0);
	return st.st_mtim.tv_sec != LONG_AGO;
}

/*
 * A store or write is seen in the times no later than when the sync after it, or the
 * close, returns (POSIX.1-2017, mmap() and msync()); reads, and syncs of nothing, never.
 */
static void test_times(void **state)
{
	unsigned char *buf = aligned_alloc(page, page);
	struct fixture f;

	(void)state;
	memset(buf, 3, page);
	start(&f, P(16), P(16));
	modified(&f);
	assert_int_equal(mkw_pread(f.file, buf, page, 0, 0), page);
	assert_int_equal(mkw_pread(f.file, buf, page, (off_t)P(1), MKW_DIRECT), page);
	assert_int_equal(f.p[P(2)], 0);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_false(modified(&f));

	f.p[P(2)] = 1;
	assert_int_equal(mkw_sync(f.file), 0);
	assert_true(modified(&f));
	/* Its blocks are there now, but the sync has protected it again. */
	f.p[P(2)] = 2;
	assert_int_equal(mkw_sync_range(f.file, (off_t)P(2), page, MKW_SYNC_NOFLUSH), 0);
	assert_true(modified(&f));
	assert_int_equal(mkw_sync(f.file), 0);
	assert_false(modified(&f));

	assert_int_equal(mkw_pwrite(f.file, buf, 100, 50, 0), 100);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_true(modified(&f));
	assert_int_equal(mkw_pwrite(f.file, buf, page, (off_t)P(5), MKW_DIRECT), page);
	assert_true(modified(&f));
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE |
					       FALLOC_FL_KEEP_SIZE, P(5), P(1)), 0);
	assert_true(modified(&f));
	assert_int_equal(mkw_truncate(f.file, (off_t)P(15)), 0);
	assert_true(modified(&f));

	f.p[P(3)] = 1;
	modified(&f);
	leftover_end(f.engine, f.file, f.p, P(16), path);
	assert_true(modified(&f));
	close(f.fd);
	free(buf);
}

/* ---- a queue -------------------------------------------------------------- */

#define SLOTS 32u

/* The next result; the kernel may break off the wait. */
static struct mkw_result next_result(struct mkw_queue *q)
{
	struct mkw_result res;
	ssize_t n;

	do
		n = mkw_queue_reap(q, &res, 1, 100000);
	while (n == -EINTR);
	assert_int_equal(n, 1);
	return res;
}

static struct mkw_result do_now(struct mkw_queue *q, struct mkw_request rq)
{
	assert_int_equal(mkw_queue_submit(q, &rq, 1), 1);
	return next_result(q);
}

/* Pages that each say their number, at random, out of a cache that holds but few of them. */
static void queue_reads(struct mkw_queue *q, struct mkw_request rq, size_t pages)
{
	unsigned char *bufs = aligned_alloc(page, P(SLOTS));
	uint64_t of[SLOTS];
	unsigned seed = 5;

	/* Each slot is used again when its result is there. */
	for (unsigned i = 0; i < 2000; i++) {
		struct mkw_result res = { .tag = i };

		if (i >= SLOTS)
			res = next_result(q);
		if (i >= SLOTS && (res.value != (int64_t)page ||
				   memcmp(bufs + P(res.tag), &of[res.tag], 8)))
			fail_msg("not page %zu", (size_t)of[res.tag]);
		of[res.tag] = (uint64_t)rand_r(&seed) % pages;
		rq.tag = res.tag;
		rq.buf = bufs + P(res.tag);
		rq.off = (off_t)P(of[res.tag]);
		rq.flags = rand_r(&seed) % 4 ? 0 : MKW_DIRECT;
		assert_int_equal(mkw_queue_submit(q, &rq, 1), 1);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		assert_int_equal(next_result(q).value, page);
	free(bufs);
}

/* As calls, seen by who looks past the engine. */
static void test_queue(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	const size_t pages = 1024;	/* four times the cache */
	unsigned char *buf = aligned_alloc(page, page);
	struct mkw_request rq = MKW_REQUEST_INIT;
	struct mkw_result res;
	struct mkw_queue *q;
	struct fixture f;

	(void)state;
	opt.writeback_age_ms = 1000000;
	opt.cache_bytes = MKW_CACHE_BYTES_MIN;
	leftover_open(&opt, path, 0, &f.engine, &f.file);
	f.fd = open(path, O_RDWR);
	assert_int_equal(mkw_queue_open(f.engine, NULL, &q), 0);

	rq.file = f.file;
	rq.op = MKW_OP_WRITE;
	rq.buf = buf;
	rq.len = page;
	for (uint64_t i = 0; i < pages; i++) {
		memcpy(buf, &i, sizeof(i));
		rq.flags = i % 2 ? MKW_APPEND : 0;
		rq.off = i % 2 ? 0 : (off_t)P(i);
		res = do_now(q, rq);
		assert_int_equal(res.value, page);
		assert_int_equal(res.off, P(i));
	}
	rq.op = MKW_OP_SYNC;
	rq.flags = 0;
	assert_int_equal(do_now(q, rq).value, 0);
	assert_int_equal(lseek(f.fd, 0, SEEK_END), P(pages));
	for (uint64_t i = 0; i < pages; i++) {
		assert_int_equal(pread(f.fd, buf, page, (off_t)P(i)), page);
		assert_int_equal(memcmp(buf, &i, sizeof(i)), 0);
	}
	rq.op = MKW_OP_READ;
	queue_reads(q, rq, pages);

	/* At once: it needs no sync. */
	memset(buf, 7, page);
	rq.op = MKW_OP_WRITE;
	rq.buf = buf;
	rq.flags = MKW_DIRECT;
	rq.off = (off_t)P(3);
	assert_int_equal(do_now(q, rq).value, page);
	memset(buf, 0, page);
	assert_int_equal(pread(f.fd, buf, page, (off_t)P(3)), page);
	assert_int_equal(buf[page - 1], 7);

	rq.op = MKW_OP_FALLOCATE;
	rq.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	rq.off = (off_t)P(16);
	rq.len = P(32);
	assert_int_equal(do_now(q, rq).value, 0);
	assert_int_equal(lseek(f.fd, 0, SEEK_HOLE), P(16));
	assert_int_equal(lseek(f.fd, P(16), SEEK_DATA), P(48));

	/* Its own errors: nothing of it is cached. */
	rq.op = MKW_OP_WRITE;
	rq.flags = 0;
	rq.buf = NULL;
	rq.len = page;
	rq.off = (off_t)P(pages + 9);
	assert_int_equal(do_now(q, rq).value, -EFAULT);
	assert_int_equal(mkw_queue_close(q), 0);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(lseek(f.fd, 0, SEEK_END), mkw_size(f.file));
	mkw__engine_verify(f.engine);
	assert_int_equal(leftover_close(f.file), 0);
	assert_int_equal(leftover_engine_close(f.engine), 0);
	close(f.fd);
	free(buf);
}

#define T(fn) cmocka_unit_test_teardown(fn, clean_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_leftover),
		T(test_alignment),
		T(test_ownership),
		T(test_length_changed_outside),
		T(test_replaced),
		T(test_contents),
		T(test_contents_can_fail),
		T(test_holes),
		T(test_stores_between_holes),
		T(test_times),
		T(test_queue),
	};
	const char *dir = getenv("MKW_DIR");

	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	if (!access_possible())
		return 77;
	snprintf(path, sizeof(path), "%s/mkw-test-hostfs-%d", dir ? dir : ".",
		 (int)getpid());
	snprintf(other, sizeof(other), "%s.new", path);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
