/* SPDX-License-Identifier: MIT */
/*
 * Stores of programs, through <mkwrite/store.h> alone: one that answers late, from
 * another thread, in another order, in short pieces, with errors; one that has only what is
 * required. And what must not go unnoticed: an operation that is ended twice, or by more
 * bytes than there are.
 *
 * What is right is in `data`, which the store serves; a store that ends operations late
 * does so from a thread of its own, the last asked for first. Faults are served by the
 * engine's thread, and in their own. Needs userfaultfd; skipped (77) without.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mkwrite/mkwrite.h"
#include "mkwrite/store.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 256u
#define QUEUE 512u

static size_t page;
static unsigned map_flags;

/* ---- the store -------------------------------------------------------- */

enum op { READ, WRITE, FLUSH, RESIZE, PUNCH };

struct job {
	struct mkw_io *io;
	enum op op;
};

static struct odd {
	unsigned char *data;		/* room for PAGES */
	_Atomic uint64_t len;
	bool late;
	_Atomic size_t piece;		/* a transfer is so long at most; 0: all */
	_Atomic ssize_t error;		/* of reads and writes in [from, to) */
	_Atomic uint64_t from, to;
	_Atomic unsigned blocking, queued, in_pieces, flushes, punches, closes;
	_Atomic bool truncated;		/* reads end in the midst */
	_Atomic bool hold;		/* the next read has its bytes, and waits */
	sem_t held, go;

	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t some;
	struct job job[QUEUE];
	unsigned jobs;
	bool stop;
} odd;

/* Of what is in odd.data; a fault that the store has served orders nothing by itself. */
static pthread_mutex_t bytes = PTHREAD_MUTEX_INITIALIZER;

static ssize_t transfer(struct mkw_io *io, bool write)
{
	uint64_t n = io->len, len = odd.len;

	if (odd.error && io->off < odd.to && odd.from < io->off + io->len)
		return odd.error;
	if (odd.piece && n > odd.piece) {
		n = odd.piece;
		odd.in_pieces++;
	}
	if (!write && (io->off >= len || odd.truncated))
		return 0;
	if (io->off + n > len)
		n = len - io->off;
	pthread_mutex_lock(&bytes);
	if (write)
		memcpy(odd.data + io->off, io->buf, n);
	else
		memcpy(io->buf, odd.data + io->off, n);
	pthread_mutex_unlock(&bytes);
	return (ssize_t)n;
}

static void perform(const struct job *j)
{
	struct mkw_io *io = j->io;
	ssize_t r;

	switch (j->op) {
	case READ:
	case WRITE:
		r = transfer(io, j->op == WRITE);
		if (j->op == READ && atomic_exchange(&odd.hold, false)) {
			sem_post(&odd.held);
			while (sem_wait(&odd.go))
				;
		}
		mkw_io_done(io, r);
		return;
	case FLUSH:
		odd.flushes++;
		break;
	case RESIZE:
		if (io->len > P(PAGES)) {
			mkw_io_done(io, -EFBIG);
			return;
		}
		if (io->len < odd.len)
			memset(odd.data + io->len, 0, odd.len - io->len);
		odd.len = io->len;
		break;
	case PUNCH:
		odd.punches++;
		memset(odd.data + io->off, 0, io->len);
		break;
	}
	mkw_io_done(io, 0);
}

static void *worker(void *arg)
{
	struct job j;

	(void)arg;
	pthread_mutex_lock(&odd.mutex);
	while (!odd.stop || odd.jobs) {
		if (!odd.jobs) {
			pthread_cond_wait(&odd.some, &odd.mutex);
			continue;
		}
		j = odd.job[--odd.jobs];
		pthread_mutex_unlock(&odd.mutex);
		perform(&j);
		pthread_mutex_lock(&odd.mutex);
	}
	pthread_mutex_unlock(&odd.mutex);
	return NULL;
}

static void ask(enum op op, struct mkw_io *io)
{
	struct job j = { io, op };

	if (io->flags & MKW_IO_MAY_BLOCK)
		odd.blocking++;
	if (!odd.late) {
		perform(&j);
		return;
	}
	odd.queued++;
	pthread_mutex_lock(&odd.mutex);
	if (odd.jobs == QUEUE)
		abort();
	odd.job[odd.jobs++] = j;
	pthread_cond_signal(&odd.some);
	pthread_mutex_unlock(&odd.mutex);
}

static void odd_read(void *arg, struct mkw_io *io)
{
	(void)arg;
	ask(READ, io);
}

static void odd_write(void *arg, struct mkw_io *io)
{
	(void)arg;
	ask(WRITE, io);
}

static void odd_flush(void *arg, struct mkw_io *io)
{
	(void)arg;
	ask(FLUSH, io);
}

static void odd_resize(void *arg, struct mkw_io *io)
{
	(void)arg;
	ask(RESIZE, io);
}

static void odd_punch(void *arg, struct mkw_io *io)
{
	(void)arg;
	ask(PUNCH, io);
}

static void odd_close(void *arg)
{
	(void)arg;
	odd.closes++;
}

static const struct mkw_store_ops odd_ops = {
	MKW_STORE_OPS_INIT,
	.read = odd_read,
	.write = odd_write,
	.flush = odd_flush,
	.resize = odd_resize,
	.punch = odd_punch,
	.close = odd_close,
};

/* What is required, and no more. */
static const struct mkw_store_ops bare_ops = {
	MKW_STORE_OPS_INIT,
	.read = odd_read,
	.write = odd_write,
};

static struct mkw_store_info info_of(void)
{
	struct mkw_store_info info = MKW_STORE_INFO_INIT;

	info.len = odd.len;
	info.align = 512;
	return info;
}

static void odd_start(size_t len, bool late)
{
	odd = (struct odd){ .len = len, .late = late };
	odd.data = malloc(P(PAGES));
	memset(odd.data, 0, P(PAGES));
	for (size_t i = 0; i < len; i++)
		odd.data[i] = (unsigned char)(1 + i / page + i % 251);
	sem_init(&odd.held, 0, 0);
	sem_init(&odd.go, 0, 0);
	pthread_mutex_init(&odd.mutex, NULL);
	pthread_cond_init(&odd.some, NULL);
	if (late)
		assert_int_equal(pthread_create(&odd.thread, NULL, worker, NULL),
				 0);
}

static void odd_end(void)
{
	if (odd.late) {
		pthread_mutex_lock(&odd.mutex);
		odd.stop = true;
		pthread_cond_signal(&odd.some);
		pthread_mutex_unlock(&odd.mutex);
		pthread_join(odd.thread, NULL);
	}
	free(odd.data);
}

/* ---- a file on it ------------------------------------------------------ */

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *p;
};

static void start(struct fixture *f, const struct mkw_store_ops *ops, size_t len,
		  bool late, int flags)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_store_info info;

	odd_start(len, late);
	info = info_of();
	opt.cache_bytes = MKW_CACHE_BYTES_MIN;
	assert_int_equal(mkw_engine_open(&opt, &f->engine), 0);
	mkw__trap_reinstall();
	assert_int_equal(mkw_file_open_store(f->engine, ops, &info, NULL, flags,
					     &f->file), 0);
	assert_int_equal(mkw_map(f->file, NULL, P(PAGES),
				 flags == O_RDWR ? PROT_READ | PROT_WRITE :
						   PROT_READ,
				 map_flags, 0, (void **)&f->p), 0);
}

static void finish(struct fixture *f)
{
	assert_int_equal(mkw_unmap(f->p, P(PAGES)), 0);
	assert_int_equal(mkw_file_close(f->file), 0);
	assert_int_equal(mkw_engine_close(f->engine), 0);
	odd_end();
}

/* All that calls and mappings do, against a copy in memory. */
static void exercise(bool late, size_t piece)
{
	size_t len = P(64) - 100;
	unsigned char *want = malloc(P(PAGES)), *buf = malloc(P(PAGES));
	struct fixture f;

	start(&f, &odd_ops, len, late, O_RDWR);
	odd.piece = piece;
	memset(want, 0, P(PAGES));
	memcpy(want, odd.data, len);
	/* Loads, the last page past the end, too. */
	assert_memory_equal(f.p, want, P(64));
	assert_int_equal(try_access(f.p + P(64), false), SIGBUS);
	for (size_t i = 0; i < 64; i += 3) {
		memset(f.p + P(i) + 7, (int)i, 100);
		memset(want + P(i) + 7, (int)i, 100);
	}
	/* Unaligned, and direct from an odd address into what is and is not cached. */
	memset(buf, 0x77, P(8));
	assert_int_equal(mkw_pwrite(f.file, buf, P(2) + 5, P(10) + 1, 0), P(2) + 5);
	memset(want + P(10) + 1, 0x77, P(2) + 5);
	assert_int_equal(mkw_advise(f.file, 0, 0, MKW_ADVICE_DONTNEED), 0);
	memset(f.p + P(21), 0x55, 1);
	want[P(21)] = 0x55;
	assert_int_equal(mkw_pwrite(f.file, buf + 1, P(4), P(20) + 512, MKW_DIRECT),
			 P(4));
	memset(want + P(20) + 512, 0x77, P(4));
	assert_int_equal(mkw_pread(f.file, buf + 3, P(16), P(16), MKW_DIRECT),
			 P(16));
	assert_memory_equal(buf + 3, want + P(16), P(16));
	assert_int_equal(mkw_pread(f.file, (void *)8, P(1), P(40), MKW_DIRECT),
			 -EFAULT);
	assert_int_equal(mkw_pwrite(f.file, (void *)8, P(1), P(40), MKW_DIRECT),
			 -EFAULT);
	/* Holes, growth, the end. */
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, P(30) + 10, P(4)), 0);
	memset(want + P(30) + 10, 0, P(4));
	assert_int_equal(mkw_truncate(f.file, P(100)), 0);
	f.p[P(99)] = 9;
	want[P(99)] = 9;
	assert_memory_equal(f.p, want, P(100));
	assert_int_equal(mkw_truncate(f.file, P(50) + 1), 0);
	memset(want + P(50) + 1, 0, P(PAGES - 50) - 1);
	assert_memory_equal(f.p, want, P(51));
	assert_int_equal(mkw_sync(f.file), 0);
	assert_memory_equal(odd.data, want, P(50) + 1);
	assert_int_equal(odd.len, P(50) + 1);
	assert_true(odd.flushes > 0 && odd.punches > 0 && odd.blocking > 0);
	if (late)
		assert_true(odd.queued > 10);
	if (piece)
		assert_true(odd.in_pieces > 10);
	finish(&f);
	assert_int_equal(odd.closes, 1);
	free(want);
	free(buf);
}

static void test_prompt(void **state)
{
	(void)state;
	exercise(false, 0);
}

static void test_late(void **state)
{
	(void)state;
	exercise(true, 0);
}

static void test_short(void **state)
{
	(void)state;
	exercise(false, 1000);
	exercise(true, 3000);
}

/* A write that fails does not lengthen the file, whatever the store says. */
static void test_not_longer(void **state)
{
	const int error[] = { -EIO, -EAGAIN };
	unsigned char *buf = calloc(1, P(1));
	struct fixture f;

	(void)state;
	start(&f, &odd_ops, P(8), false, O_RDWR);
	odd.from = P(8);
	odd.to = P(PAGES);
	for (unsigned i = 0; i < 2; i++) {
		odd.error = error[i];
		assert_int_equal(mkw_append(f.file, buf, P(1), MKW_DIRECT, NULL),
				 error[i]);
		assert_int_equal(mkw_size(f.file), P(8));
		assert_int_equal(odd.len, P(8));
	}
	odd.error = 0;
	finish(&f);
	free(buf);
}

/* Zeros across the end, of a store that cannot allocate: none at all. */
static void test_not_zeroed(void **state)
{
	struct fixture f;

	(void)state;
	start(&f, &odd_ops, P(8), false, O_RDWR);
	for (int keep = 0; keep <= FALLOC_FL_KEEP_SIZE; keep += FALLOC_FL_KEEP_SIZE)
		assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_ZERO_RANGE | keep,
					       P(4), P(8)), -EOPNOTSUPP);
	assert_int_equal(mkw_size(f.file), P(8));
	assert_int_equal(f.p[P(5)], odd.data[P(5)]);
	assert_int_equal(odd.data[P(5)], 1 + 5 + P(5) % 251);
	assert_int_equal(odd.punches, 0);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_ZERO_RANGE, P(4), P(4)), 0);
	assert_int_equal(f.p[P(5)], 0);
	finish(&f);
}

static unsigned char value(size_t at)
{
	return (unsigned char)(1 + at / page + at % 251);
}

/* More threads than one store has; the cache is too small for the file. */
static void *hammer(void *arg)
{
	struct fixture *f = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed;
	unsigned char buf[300];

	for (unsigned i = 0; i < 400; i++) {
		size_t at = P(rand_r(&seed) % PAGES) + (unsigned)rand_r(&seed) % 3000;

		switch (rand_r(&seed) % 4) {
		case 0:
			__atomic_store_n(&f->p[at], value(at), __ATOMIC_RELAXED);
			break;
		case 1:
			if (mkw_pread(f->file, buf, 300, (off_t)at, 0) != 300 ||
			    buf[299] != value(at + 299))
				abort();
			break;
		default:
			if (__atomic_load_n(&f->p[at], __ATOMIC_RELAXED) !=
			    value(at))
				abort();
		}
	}
	return NULL;
}

static void test_many(void **state)
{
	pthread_t thread[4];
	struct fixture f;

	(void)state;
	start(&f, &odd_ops, P(PAGES), true, O_RDWR);
	odd.piece = P(3);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, hammer, &f), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	for (size_t i = 0; i < P(PAGES); i += 97)
		assert_int_equal(f.p[i], value(i));
	finish(&f);
}

static void test_errors(void **state)
{
	unsigned char byte;
	struct fixture f;

	(void)state;
	start(&f, &odd_ops, P(32), true, O_RDWR);
	odd.from = P(3);
	odd.to = P(4);
	odd.error = -EIO;
	assert_int_equal(try_access(f.p + P(3), false), SIGBUS);
	assert_int_equal(mkw_pread(f.file, &byte, 1, P(3), 0), -EIO);
	assert_int_equal(try_byte(f.p + P(2), &byte), 0);
	assert_int_equal(byte, odd.data[P(2)]);
	f.p[P(5)] = 1;
	odd.from = P(5);
	odd.to = P(6);
	assert_int_equal(mkw_sync(f.file), -EIO);
	assert_int_not_equal(odd.data[P(5)], 1);
	odd.error = 0;
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(odd.data[P(5)], 1);
	/* The end where there is none is an error, not zeros. */
	odd.truncated = true;
	assert_int_equal(try_access(f.p + P(20), false), SIGBUS);
	assert_int_equal(mkw_pread(f.file, &byte, 1, P(20), 0), -EIO);
	odd.truncated = false;
	assert_int_equal(mkw_pread(f.file, &byte, 1, P(20), 0), 1);
	assert_int_equal(byte, odd.data[P(20)]);
	finish(&f);
}

static int64_t prefetch_by_queue(struct fixture *f, size_t off, size_t len)
{
	struct mkw_request rq = MKW_REQUEST_INIT;
	struct mkw_result res = { 0 };
	struct mkw_queue *queue;
	ssize_t n;

	rq.op = MKW_OP_PREFETCH;
	rq.file = f->file;
	rq.off = (off_t)off;
	rq.len = len;
	assert_int_equal(mkw_queue_open(f->engine, NULL, &queue), 0);
	assert_int_equal(mkw_queue_submit(queue, &rq, 1), 1);
	do
		n = mkw_queue_reap(queue, &res, 1, -1);
	while (n == -EINTR);
	assert_int_equal(n, 1);
	assert_int_equal(mkw_queue_close(queue), 0);
	return res.value;
}

/* Errors that are no error numbers, or by which the engine means something of its own. */
static void test_odd_errors(void **state)
{
	const ssize_t errors[] = { -EXDEV, -ENOBUFS, -4096, (ssize_t)INT_MIN - 3,
				   -((ssize_t)1 << 32),
				   -SSIZE_MAX };
	unsigned char buf[4 * 4096];
	struct fixture f;

	(void)state;
	assert_true(P(3) <= sizeof(buf));
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		start(&f, &odd_ops, P(32), i % 2, O_RDWR);
		f.p[P(9)] = 1;
		odd.from = P(3);
		odd.to = P(12);
		odd.error = errors[i];
		assert_int_equal(mkw_pread(f.file, buf, 1, P(3), 0), -EIO);
		assert_int_equal(mkw_pread(f.file, buf, P(1), P(3), MKW_DIRECT), -EIO);
		/* What lies before it is had. */
		assert_int_equal(mkw_pread(f.file, buf, P(3), P(2), 0), P(1));
		assert_int_equal(mkw_pread(f.file, buf, P(3), P(2), MKW_DIRECT), P(1));
		assert_memory_equal(buf, odd.data + P(2), P(1));
		assert_int_equal(prefetch_by_queue(&f, P(3), P(2)), -EIO);
		assert_int_equal(mkw_pwrite(f.file, buf, P(1), P(5), MKW_DIRECT), -EIO);
		assert_int_equal(mkw_sync(f.file), -EIO);
		odd.error = 0;
		assert_int_equal(mkw_sync(f.file), 0);
		assert_int_equal(odd.data[P(9)], 1);
		finish(&f);
	}
}

/* What a store lacks: zeros are written, all is data, the size stays. */
static void test_bare(void **state)
{
	unsigned char *want = malloc(P(16));
	struct fixture f;

	(void)state;
	start(&f, &bare_ops, P(16) - 300, false, O_RDWR);
	memcpy(want, odd.data, P(16));
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, P(2) + 5, P(3)), 0);
	memset(want + P(2) + 5, 0, P(3));
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_ZERO_RANGE, P(8) + 100,
				       17), 0);
	memset(want + P(8) + 100, 0, 17);
	/* To the end, which no unit of direct I/O is. */
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, P(15) + 1000, P(9)), 0);
	memset(want + P(15) + 1000, 0, page - 1000);
	assert_memory_equal(odd.data, want, P(16) - 300);
	assert_memory_equal(f.p, want, P(16));
	assert_int_equal(mkw_truncate(f.file, P(17)), -EOPNOTSUPP);
	assert_int_equal(mkw_truncate(f.file, P(1)), -EOPNOTSUPP);
	assert_int_equal(mkw_pwrite(f.file, want, 400, P(16) - 300, 0),
			 -EOPNOTSUPP);
	assert_int_equal(mkw_size(f.file), P(16) - 300);
	assert_int_equal(mkw_fallocate(f.file, 0, 0, P(1)), -EOPNOTSUPP);
	assert_int_equal(mkw_fallocate(f.file, FALLOC_FL_COLLAPSE_RANGE, 0, P(1)),
			 -EOPNOTSUPP);
	assert_int_equal(mkw_seek(f.file, P(3), SEEK_DATA), P(3));
	assert_int_equal(mkw_seek(f.file, P(3), SEEK_HOLE), P(16) - 300);
	assert_int_equal(mkw_sync(f.file), 0);
	finish(&f);
	free(want);
}

/* ---- reads and writes that sleep ------------------------------------------ */

#define SLEEPERS 4u	/* the engine's threads for a store */

static sem_t asleep, wake;

static void sleeping_read(void *arg, struct mkw_io *io)
{
	(void)arg;
	if (!(io->flags & MKW_IO_MAY_BLOCK) || mkw_io_transfer(io, 0, 1, NULL) != -EINVAL)
		abort();
	if (io->off >= P(16)) {
		sem_post(&asleep);
		while (sem_wait(&wake))
			;
	}
	mkw_io_done(io, transfer(io, false));
}

static void *touch_one(void *arg)
{
	(void)*(volatile unsigned char *)arg;
	return NULL;
}

/* The page faults of others do not wait for those that sleep in the store. */
static void test_may_block(void **state)
{
	struct mkw_store_ops ops = odd_ops;
	struct mkw_store_info info;
	pthread_t thread[SLEEPERS];
	struct mkw_file *other;
	struct fixture f;
	unsigned char *p;

	(void)state;
	start(&f, &odd_ops, P(64), false, O_RDWR);
	sem_init(&asleep, 0, 0);
	sem_init(&wake, 0, 0);
	ops.read = sleeping_read;
	info = info_of();
	info.flags = MKW_STORE_MAY_BLOCK;
	assert_int_equal(mkw_file_open_store(f.engine, &ops, &info, NULL, O_RDWR,
					     &other), 0);
	assert_int_equal(mkw_map(other, NULL, P(64), PROT_READ | PROT_WRITE,
				 map_flags, 0, (void **)&p), 0);
	assert_int_equal(mkw_advise(other, 0, 0, MKW_ADVICE_RANDOM), 0);
	alarm(100);
	for (unsigned i = 0; i < SLEEPERS; i++)
		pthread_create(&thread[i], NULL, touch_one, p + P(20 + 10 * i));
	for (unsigned i = 0; i < SLEEPERS; i++)
		while (sem_wait(&asleep))
			;
	assert_int_equal(f.p[P(3)], odd.data[P(3)]);
	for (unsigned i = 0; i < SLEEPERS; i++)
		sem_post(&wake);
	for (unsigned i = 0; i < SLEEPERS; i++)
		pthread_join(thread[i], NULL);
	/* More than there are threads. */
	for (unsigned i = 0; i < 64; i++)
		sem_post(&wake);
	assert_memory_equal(p, odd.data, P(64));
	p[P(1)] = 99;
	assert_int_equal(mkw_sync(other), 0);
	assert_int_equal(odd.data[P(1)], 99);
	alarm(0);
	assert_int_equal(mkw_unmap(p, P(64)), 0);
	assert_int_equal(mkw_file_close(other), 0);
	finish(&f);
}

/* ---- data that changes elsewhere ---------------------------------------- */

static void change(size_t at, unsigned char to)
{
	pthread_mutex_lock(&bytes);
	odd.data[at] = to;
	pthread_mutex_unlock(&bytes);
}

static bool cached(struct fixture *f, size_t n)
{
	unsigned char vec;

	assert_int_equal(mkw_resident(f->file, (off_t)P(n), P(1), &vec), 0);
	return vec & MKW_RESIDENT;
}

static void test_invalidate(void **state)
{
	const size_t len = P(32) - 100;
	struct fixture f;

	(void)state;
	start(&f, &odd_ops, len, false, O_RDWR);
	assert_memory_equal(f.p, odd.data, len);
	change(P(3) + 5, 1);
	change(P(31) + 5, 2);
	assert_int_equal(f.p[P(3) + 5], value(P(3) + 5));
	assert_int_equal(mkw_invalidate(f.file, P(3) + 5, 1, 0), 0);
	assert_int_equal(f.p[P(3) + 5], 1);
	assert_int_equal(f.p[P(31) + 5], value(P(31) + 5));
	assert_true(cached(&f, 4));
	/* To the end: what is dirty is in the store, and gone from the cache. */
	f.p[P(5)] = 7;
	assert_int_equal(mkw_invalidate(f.file, P(4), 0, 0), 0);
	assert_int_equal(odd.data[P(5)], 7);
	assert_false(cached(&f, 5));
	assert_true(cached(&f, 3));
	assert_int_equal(f.p[P(31) + 5], 2);
	assert_int_equal(f.p[P(5)], 7);
	/* A lease that is lost: the page is theirs, its neighbour ours. */
	f.p[P(6)] = 8;
	f.p[P(7)] = 9;
	change(P(6) + 1, 10);
	assert_int_equal(mkw_invalidate(f.file, P(6), P(1), MKW_INVALIDATE_DISCARD), 0);
	assert_int_equal(f.p[P(6) + 1], 10);
	assert_int_equal(f.p[P(6)], value(P(6)));
	assert_int_equal(f.p[P(7)], 9);
	assert_int_equal(mkw_sync(f.file), 0);
	assert_memory_equal(f.p, odd.data, len);
	/* What was mapped writable is not any more: this is a store as any other. */
	f.p[P(6)] = 11;
	assert_int_equal(mkw_sync(f.file), 0);
	assert_int_equal(odd.data[P(6)], 11);
	assert_int_equal(mkw_invalidate(f.file, P(40), 0, 0), 0);
	finish(&f);
}

static void test_invalidate_errors(void **state)
{
	struct mkw_pin *pin;
	unsigned char byte;
	struct fixture f;

	(void)state;
	start(&f, &odd_ops, P(32), true, O_RDWR);
	odd.from = P(8);
	odd.to = P(9);
	assert_memory_equal(f.p, odd.data, P(16));
	f.p[P(8)] = 1;
	f.p[P(10)] = 2;
	odd.error = -EIO;
	/* What cannot be written stays; the others go, written. */
	assert_int_equal(mkw_invalidate(f.file, 0, P(16), 0), -EIO);
	assert_int_equal(f.p[P(8)], 1);
	assert_false(cached(&f, 10) || cached(&f, 0));
	assert_int_equal(odd.data[P(10)], 2);
	odd.error = 0;
	assert_int_equal(mkw_invalidate(f.file, P(8), P(1), 0), 0);
	assert_int_equal(odd.data[P(8)], 1);
	/* A page that could not be read is tried again. */
	odd.error = -EIO;
	assert_int_equal(try_access(f.p + P(8), false), SIGBUS);
	odd.error = 0;
	assert_int_equal(mkw_invalidate(f.file, 0, 0, 0), 0);
	assert_int_equal(try_byte(f.p + P(8), &byte), 0);
	assert_int_equal(byte, 1);
	assert_int_equal(mkw_pin(f.p + P(2), 1, MKW_PIN_READ, &pin), 0);
	assert_int_equal(mkw_invalidate(f.file, 0, P(3), 0), -EDEADLK);
	assert_int_equal(mkw_invalidate(f.file, P(3), 0, 0), 0);
	assert_int_equal(mkw_unpin(pin), 0);
	assert_int_equal(mkw_invalidate(f.file, 0, P(3), 0), 0);
	assert_int_equal(mkw_invalidate(NULL, 0, 0, 0), -EINVAL);
	assert_int_equal(mkw_invalidate(f.file, -1, 0, 0), -EINVAL);
	assert_int_equal(mkw_invalidate(f.file, 0, -1, 0), -EINVAL);
	assert_int_equal(mkw_invalidate(f.file, INT64_MAX, 1, 0), -EINVAL);
	assert_int_equal(mkw_invalidate(f.file, 0, 0, 2), -EINVAL);
	assert_int_equal(mkw_invalidate(f.file, 1, P(1), MKW_INVALIDATE_DISCARD), -EINVAL);
	assert_int_equal(mkw_invalidate(f.file, 0, 1, MKW_INVALIDATE_DISCARD), -EINVAL);
	finish(&f);
	start(&f, &odd_ops, P(4), false, O_RDONLY);
	assert_int_equal(f.p[1], value(1));
	change(1, 99);
	assert_int_equal(mkw_invalidate(f.file, 0, 0, MKW_INVALIDATE_DISCARD), -EBADF);
	assert_int_equal(mkw_invalidate(f.file, 0, 0, 0), 0);
	assert_int_equal(f.p[1], 99);
	finish(&f);
}

static _Atomic bool invalidated;

static void *invalidates(void *arg)
{
	struct fixture *f = arg;

	if (mkw_invalidate(f->file, 0, 0, 0))
		abort();
	invalidated = true;
	return NULL;
}

static void *loads(void *arg)
{
	struct fixture *f = arg;

	(void)__atomic_load_n(&f->p[P(10)], __ATOMIC_RELAXED);
	return NULL;
}

/* The store has read the old bytes when they change: they are not installed after. */
static void test_invalidate_fill(void **state)
{
	unsigned char *block = aligned_alloc(page, page);
	pthread_t thread[2];
	struct fixture f;

	(void)state;
	start(&f, &odd_ops, P(32), true, O_RDWR);
	assert_int_equal(mkw_advise(f.file, 0, 0, MKW_ADVICE_RANDOM), 0);
	(void)*(volatile unsigned char *)&f.p[P(20)];
	invalidated = false;
	odd.hold = true;
	assert_int_equal(pthread_create(&thread[0], NULL, loads, &f), 0);
	while (sem_wait(&odd.held))
		;
	change(P(10), 3);
	assert_int_equal(pthread_create(&thread[1], NULL, invalidates, &f), 0);
	/* Until it waits, which keeps other readers off, or has gone ahead. */
	while (!invalidated && mkw_pread(f.file, block, 512, P(20),
					 MKW_DIRECT | MKW_NOWAIT) != -EAGAIN)
		sched_yield();
	sem_post(&odd.go);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	assert_int_equal(f.p[P(10)], 3);
	finish(&f);
	free(block);
}

/* A file of the host, which somebody else writes to. */
static void test_invalidate_host(void **state)
{
	char path[] = "./invalidate-XXXXXX", c = 'n';
	int fd = mkstemp(path);
	struct mkw_engine *e;
	struct mkw_file *file;
	char *p;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)P(2)), 0);
	assert_int_equal(pwrite(fd, "o", 1, 3), 1);
	assert_int_equal(mkw_engine_open(NULL, &e), 0);
	mkw__trap_reinstall();
	assert_int_equal(mkw_file_open(e, path, O_RDWR, 0, &file), 0);
	assert_int_equal(mkw_map(file, NULL, P(2), PROT_READ | PROT_WRITE, map_flags,
				 0, (void **)&p), 0);
	assert_int_equal(p[3], 'o');
	p[P(1)] = 'd';
	assert_int_equal(pwrite(fd, &c, 1, 3), 1);
	assert_int_equal(p[3], 'o');
	assert_int_equal(mkw_invalidate(file, 0, 0, 0), 0);
	assert_int_equal(p[3], 'n');
	assert_int_equal(pread(fd, &c, 1, (off_t)P(1)), 1);
	assert_int_equal(c, 'd');
	assert_int_equal(mkw_unmap(p, P(2)), 0);
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(mkw_engine_close(e), 0);
	close(fd);
	unlink(path);
}

static int busy(void *arg, int writable, uint64_t *len)
{
	(void)arg;
	(void)writable;
	(void)len;
	return -EBUSY;
}

static void test_opening(void **state)
{
	struct mkw_store_ops ops = bare_ops;
	struct mkw_store_info info, bad;
	struct mkw_file *file, *second;
	struct mkw_engine *e;

	(void)state;
	odd_start(P(4), false);
	info = info_of();
	assert_int_equal(mkw_engine_open(NULL, &e), 0);
	mkw__trap_reinstall();
#define OPEN(ops, info, flags) mkw_file_open_store(e, ops, info, NULL, flags, &file)
	assert_int_equal(OPEN(NULL, &info, O_RDWR), -EINVAL);
	assert_int_equal(OPEN(&ops, NULL, O_RDWR), -EINVAL);
	assert_int_equal(OPEN(&ops, &info, O_WRONLY), -EINVAL);
	assert_int_equal(OPEN(&ops, &info, O_RDONLY | O_TRUNC), -EINVAL);
	assert_int_equal(OPEN(&ops, &info, O_RDWR | O_CREAT), -EINVAL);
	bad = info;
	bad.align = 513;
	assert_int_equal(OPEN(&ops, &bad, O_RDWR), -EINVAL);
	bad = info;
	bad.flags = MKW_STORE_RESERVES;
	assert_int_equal(OPEN(&ops, &bad, O_RDWR), -EINVAL);
	bad.flags = MKW_STORE_MAY_BLOCK | MKW_STORE_ANY_CONTEXT;
	assert_int_equal(OPEN(&ops, &bad, O_RDWR), -EINVAL);
	bad.flags = 0x80000000;
	assert_int_equal(OPEN(&ops, &bad, O_RDWR), -EINVAL);
	bad = info;
	bad.size = 8;
	assert_int_equal(OPEN(&ops, &bad, O_RDWR), -EINVAL);
	ops.size = 8;
	assert_int_equal(OPEN(&ops, &info, O_RDWR), -EINVAL);
	ops = bare_ops;
	ops.close = odd_close;
	assert_int_equal(odd.closes, 0);
	ops.write = NULL;
	assert_int_equal(OPEN(&ops, &info, O_RDWR), -EROFS);
	assert_int_equal(odd.closes, 1);
	ops.own = busy;
	assert_int_equal(OPEN(&ops, &info, O_RDONLY), -EBUSY);
	assert_int_equal(odd.closes, 2);
	ops.own = NULL;

	/* Read-only, and twice: two files without an identity, one with. */
	assert_int_equal(OPEN(&ops, &info, O_RDONLY), 0);
	assert_int_equal(mkw_pwrite(file, "x", 1, 0, 0), -EBADF);
	assert_int_equal(mkw_file_open_store(e, &ops, &info, NULL, O_RDONLY,
					     &second), 0);
	assert_int_equal(odd.closes, 2);
	assert_int_equal(mkw_file_close(second), 0);
	assert_int_equal(odd.closes, 3);
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(odd.closes, 4);
	info.id[0] = 1;
	assert_int_equal(OPEN(&ops, &info, O_RDONLY), 0);
	assert_int_equal(mkw_file_open_store(e, &ops, &info, NULL, O_RDONLY,
					     &second), 0);
	assert_int_equal(odd.closes, 5);
	assert_int_equal(mkw_file_close(second), 0);
	assert_int_equal(odd.closes, 5);
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(odd.closes, 6);

	/* O_TRUNC is a resize. */
	ops = odd_ops;
	assert_int_equal(OPEN(&ops, &info, O_RDWR | O_TRUNC), 0);
	assert_int_equal(odd.len, 0);
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(mkw_engine_close(e), 0);
	odd_end();
}

/* ---- what must be loud -------------------------------------------------- */

static void twice(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, (ssize_t)io->len);
	mkw_io_done(io, (ssize_t)io->len);
}

static void too_much(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, (ssize_t)io->len + 1);
}

static void counted_flush(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, 1);
}

static void never_asked(void *arg, struct mkw_io *io)
{
	/* As much of the caller's memory around it as the engine looks at. */
	static _Alignas(64) unsigned char memory[4096];
	struct mkw_io *other = (void *)(memory + sizeof(memory) / 2);

	(void)arg;
	*other = *io;
	mkw_io_done(other, (ssize_t)io->len);
}

/* The process ends, with a message that has `word`, where it reads and syncs. */
static void is_loud(void (*reads)(void *, struct mkw_io *),
		    void (*flushes)(void *, struct mkw_io *), const char *word)
{
	char said[1000] = "";
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct mkw_store_info info = MKW_STORE_INFO_INIT;
		struct mkw_store_ops ops = bare_ops;
		struct mkw_engine *e;
		struct mkw_file *file;
		char c;

		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], 2);
		ops.read = reads ? reads : odd_read;
		ops.flush = flushes;
		odd_start(P(4), false);
		info.len = P(4);
		if (mkw_engine_open(NULL, &e) ||
		    mkw_file_open_store(e, &ops, &info, NULL, O_RDWR, &file))
			_exit(3);
		if (mkw_pread(file, &c, 1, 0, 0) != 1 || mkw_sync(file))
			_exit(4);
		_exit(0);
	}
	close(fds[1]);
	for (size_t at = 0; at < sizeof(said) - 1; at += (size_t)n) {
		n = read(fds[0], said + at, sizeof(said) - 1 - at);
		if (n <= 0)
			break;
	}
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status) || !strstr(said, word))
		fail_msg("status %x, no \"%s\" in: %s", (unsigned)status, word,
			 said);
}

static void test_loud(void **state)
{
	(void)state;
	is_loud(twice, NULL, "ended it twice");
	is_loud(too_much, NULL, "moved");
	is_loud(never_asked, NULL, "not under way");
	is_loud(NULL, counted_flush, "only reads");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prompt),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_short),
		cmocka_unit_test(test_not_longer),
		cmocka_unit_test(test_not_zeroed),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_odd_errors),
		cmocka_unit_test(test_may_block),
		cmocka_unit_test(test_bare),
		cmocka_unit_test(test_opening),
		cmocka_unit_test(test_invalidate),
		cmocka_unit_test(test_invalidate_errors),
		cmocka_unit_test(test_invalidate_fill),
		cmocka_unit_test(test_invalidate_host),
	};
	const struct CMUnitTest loud[] = { cmocka_unit_test(test_loud) };
	int failed;

	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	if (!access_possible())
		return 77;
	failed = cmocka_run_group_tests_name("user store", tests, NULL, NULL);
	map_flags = MKW_MAP_INLINE;
	failed += cmocka_run_group_tests_name("user store, inline", tests, NULL,
					      NULL);
	failed += cmocka_run_group_tests_name("loud", loud, NULL, NULL);
	return failed;
}
