/* SPDX-License-Identifier: MIT */
/*
 * Queues on real threads and real page faults: an event loop with epoll, buffers in the
 * file's own mapping, results once each under cancelling, a full queue, barriers, errors,
 * closing with work under way, and bad input. Everything under both policies.
 *
 * What must happen while a request is at work is made to: a store's read can be held.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <pthread.h>
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
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "lib/fault.h"
#include "lib/shim.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 64u
#define HOUR_MS 3600000u
#define PATIENCE_MS 100000
#define ROUNDS (TEST_SLOW ? 300u : 3000u)

static size_t page;
static unsigned char held_buf[65536];	/* of reads that are held */

static struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	struct mkw__store *store;
	struct mkw_store_ops below;
	struct mkw_queue *queue;
	unsigned char *map;
} f;

/* The next read of the store waits, once for each. */
static _Atomic int holds;
static sem_t held, released;

static void held_read(void *arg, struct mkw_io *io)
{
	int n = io->flags & MKW_IO_MAY_BLOCK ? atomic_load(&holds) : 0;

	while (n > 0 && !atomic_compare_exchange_weak(&holds, &n, n - 1))
		;
	if (n > 0) {
		sem_post(&held);
		while (sem_wait(&released))
			;
	}
	f.below.read(arg, io);
}

static void start_at(enum mkw_policy policy, unsigned depth, unsigned threads,
		     struct mkw__store *st)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_queue_options qopt = MKW_QUEUE_OPTIONS_INIT;

	memset(&f, 0, sizeof(f));
	holds = 0;
	sem_init(&held, 0, 0);
	sem_init(&released, 0, 0);
	opt.policy = policy;
	opt.writeback_age_ms = HOUR_MS;
	assert_int_equal(mkw_engine_open(&opt, &f.engine), 0);
	f.store = st;
	f.below = st->ops;
	st->ops.read = held_read;
	assert_int_equal(mkw__file_attach(f.engine, st, true, &f.file), 0);
	qopt.depth = depth;
	qopt.threads = threads;
	assert_int_equal(mkw_queue_open(f.engine, &qopt, &f.queue), 0);
}

static void start(void **state, unsigned depth, unsigned threads)
{
	struct mkw__store *st;

	assert_int_equal(mkw__memstore_open(P(PAGES), &st), 0);
	start_at(*(const enum mkw_policy *)*state, depth, threads, st);
}

static void map(unsigned flags)
{
	assert_int_equal(mkw_map(f.file, NULL, P(PAGES), PROT_READ | PROT_WRITE,
				 flags, 0, (void **)&f.map), 0);
}

static void finish(void)
{
	if (f.queue)
		assert_int_equal(mkw_queue_close(f.queue), 0);
	if (f.map)
		assert_int_equal(mkw_unmap(f.map, P(PAGES)), 0);
	assert_int_equal(mkw_file_close(f.file), 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
}

static struct mkw_request request(enum mkw_op op, void *buf, size_t len, size_t off)
{
	struct mkw_request rq = MKW_REQUEST_INIT;

	rq.op = op;
	rq.file = f.file;
	rq.buf = buf;
	rq.len = len;
	rq.off = (off_t)off;
	return rq;
}

static void submit(const struct mkw_request *rq)
{
	assert_int_equal(mkw_queue_submit(f.queue, rq, 1), 1);
}

static bool readable(void)
{
	struct pollfd pfd = { .fd = mkw_queue_fd(f.queue), .events = POLLIN };

	return poll(&pfd, 1, 0) == 1;
}

/* Some results; the kernel may break off the wait. */
static ssize_t reap(struct mkw_result *res, size_t n)
{
	ssize_t r;

	do
		r = mkw_queue_reap(f.queue, res, n, PATIENCE_MS);
	while (r == -EINTR);
	assert_true(r > 0);
	return r;
}

/* The next result, which is that of this tag. */
static int64_t result_of(uint64_t tag)
{
	struct mkw_result res;

	assert_int_equal(reap(&res, 1), 1);
	assert_int_equal(res.tag, tag);
	assert_int_equal(res.reserved, 0);
	return res.value;
}

static int64_t do_now(struct mkw_request rq)
{
	rq.tag = 77;
	submit(&rq);
	return result_of(77);
}

static bool all_are(const unsigned char *p, size_t len, unsigned char value)
{
	return p[0] == value && !memcmp(p, p + 1, len - 1);
}

/* Submits a read that waits in the store, page pg, and comes back when it does. */
static void submit_held(unsigned pg, void *buf, uint64_t tag)
{
	struct mkw_request rq = request(MKW_OP_READ, buf, page, P(pg));

	rq.tag = tag;
	atomic_fetch_add(&holds, 1);
	submit(&rq);
	while (sem_wait(&held))
		;
}

/* ---- every operation ------------------------------------------------------- */

static void operations(void **state)
{
	unsigned char *buf = aligned_alloc(page, P(4)), vec[PAGES];
	struct iovec iov[2] = { { buf, 100 }, { buf + P(1), 156 } };
	struct mkw_request rq;
	struct mkw_result res;

	start(state, 0, 0);
	map(0);
	memset(buf, 1, P(4));
	assert_int_equal(do_now(request(MKW_OP_WRITE, buf, P(2), P(3))), P(2));
	assert_true(all_are(f.map + P(3), P(2), 1));
	memset(buf, 2, P(4));
	rq = request(MKW_OP_WRITE, buf, P(1), P(3));
	rq.flags = MKW_DIRECT;
	assert_int_equal(do_now(rq), P(1));
	assert_true(all_are(f.map + P(3), P(1), 2));

	memset(buf, 0, P(4));
	rq = request(MKW_OP_READ, NULL, 0, P(4) - 100);
	rq.iov = iov;
	rq.iovcnt = 2;
	assert_int_equal(do_now(rq), 256);
	assert_true(all_are(buf, 100, 2));
	assert_true(all_are(buf + P(1), 156, 1));
	rq.iovcnt = 1;
	rq.op = MKW_OP_WRITE;
	assert_int_equal(do_now(rq), 100);
	rq = request(MKW_OP_READ, buf, P(2), P(3));
	rq.flags = MKW_DIRECT;
	assert_int_equal(do_now(rq), P(2));
	assert_true(all_are(buf, P(1), 2));
	/* At the end there is less. */
	assert_int_equal(do_now(request(MKW_OP_READ, buf, P(2), P(PAGES - 1))), P(1));

	f.map[P(9)] = 3;
	rq = request(MKW_OP_SYNC_RANGE, NULL, P(1), P(9));
	rq.flags = MKW_SYNC_NOFLUSH;
	assert_int_equal(do_now(rq), 0);
	assert_int_equal(mkw__store_read(f.store, P(9), buf, P(1)), 0);
	assert_int_equal(buf[0], 3);
	assert_int_equal(do_now(request(MKW_OP_SYNC, NULL, 0, 0)), 0);
	assert_int_equal(mkw__store_read(f.store, P(4), buf, P(1)), 0);
	assert_true(all_are(buf, P(1), 1));

	rq = request(MKW_OP_FALLOCATE, NULL, P(1), P(4));
	rq.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	assert_int_equal(do_now(rq), 0);
	assert_true(all_are(f.map + P(4), P(1), 0));

	assert_int_equal(do_now(request(MKW_OP_PREFETCH, NULL, P(10), P(20))), 0);
	assert_int_equal(mkw_resident(f.file, P(20), P(10), vec), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_true(vec[i] & MKW_RESIDENT);
	/* To the end, and past it. */
	assert_int_equal(do_now(request(MKW_OP_PREFETCH, NULL, 0, P(50))), 0);
	assert_int_equal(mkw_resident(f.file, P(50), P(14), vec), 0);
	for (unsigned i = 0; i < 14; i++)
		assert_true(vec[i] & MKW_RESIDENT);
	assert_int_equal(do_now(request(MKW_OP_PREFETCH, NULL, 1, P(PAGES + 1))), 0);

	rq = request(MKW_OP_WRITE, buf, 10, 0);
	rq.flags = MKW_APPEND;
	submit(&rq);
	assert_int_equal(reap(&res, 1), 1);
	assert_int_equal(res.value, 10);
	assert_int_equal(res.off, P(PAGES));
	assert_int_equal(mkw_size(f.file), P(PAGES) + 10);
	finish();
	free(buf);
}

/* Short reads of what is cached have their result when submitting returns. */
static void cached_at_once(void **state)
{
	struct mkw_request rq;
	unsigned char buf[64];

	start(state, 0, 1);
	memset(buf, 9, sizeof(buf));
	assert_int_equal(mkw_pwrite(f.file, buf, sizeof(buf), 0, 0), sizeof(buf));
	/* The only thread is busy. */
	submit_held(30, held_buf, 1);
	memset(buf, 0, sizeof(buf));
	rq = request(MKW_OP_READ, buf, sizeof(buf), 0);
	rq.tag = 2;
	/* What ends a copy early may happen; not for ever. */
	for (unsigned i = 0; f.engine->glance && !readable(); i++) {
		assert_true(i < 40);
		submit(&rq);
	}
	if (f.engine->glance) {
		assert_int_equal(result_of(2), sizeof(buf));
		assert_true(all_are(buf, sizeof(buf), 9));
	}
	assert_false(readable());
	/* No longer behind a barrier. */
	rq.op = MKW_OP_SYNC;
	rq.order = MKW_ORDER_BARRIER;
	submit(&rq);
	rq.op = MKW_OP_READ;
	rq.order = 0;
	submit(&rq);
	assert_false(readable());
	sem_post(&released);
	assert_int_equal(result_of(1), page);
	finish();
}

/* ---- the descriptor -------------------------------------------------------- */

/* It can be read until the last result is fetched, however they are fetched. */
static void level_until_last(void **state)
{
	struct mkw_request rq[3], last;
	struct mkw_result res;

	start(state, 0, 1);
	assert_false(readable());
	assert_int_equal(mkw_queue_reap(f.queue, &res, 1, 0), 0);
	assert_true(mkw_queue_reap(f.queue, &res, 1, 1) <= 0);
	submit_held(1, held_buf, 100);
	for (unsigned i = 0; i < 3; i++) {
		rq[i] = request(MKW_OP_SYNC, NULL, 0, 0);
		rq[i].tag = i;
	}
	assert_int_equal(mkw_queue_submit(f.queue, rq, 3), 3);
	assert_false(readable());
	sem_post(&released);
	assert_int_equal(result_of(100), page);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(result_of(i), 0);
		/* With one thread they come one by one; wait for the next. */
		if (i < 2) {
			struct pollfd pfd = { mkw_queue_fd(f.queue), POLLIN, 0 };

			while (poll(&pfd, 1, PATIENCE_MS) != 1)
				assert_int_equal(errno, EINTR);
			assert_true(readable());
		}
	}
	assert_false(readable());
	last = request(MKW_OP_SYNC, NULL, 0, 0);
	assert_int_equal(do_now(last), 0);
	assert_false(readable());
	finish();
}

/* ---- an event loop ---------------------------------------------------------- */

/*
 * Each block of the file has one request at most at a time, so what it holds is known.
 * Reads go into private memory, or into the mapping of the file's second half, whose
 * blocks are not written otherwise.
 */
#define BLOCKS 32u
#define BLOCK 2048u

static struct block {
	unsigned char value;
	bool busy;
	enum mkw_op op;
	unsigned char *to;
	_Alignas(512) unsigned char buf[BLOCK];
} blocks[BLOCKS];

static void next_request(unsigned b, unsigned seed)
{
	struct block *k = &blocks[b];
	struct mkw_request rq;

	k->op = seed % 3 ? MKW_OP_WRITE : MKW_OP_READ;
	k->to = seed % 5 ? k->buf : f.map + P(PAGES / 2) + (size_t)b * BLOCK;
	if (k->op == MKW_OP_WRITE) {
		k->value++;
		memset(k->to, k->value, BLOCK);
	}
	rq = request(k->op, k->to, BLOCK, (size_t)b * BLOCK);
	rq.flags = seed % 7 ? 0 : MKW_DIRECT;
	rq.tag = b;
	k->busy = true;
	submit(&rq);
}

static void took(const struct mkw_result *res, unsigned *busy)
{
	struct block *k = &blocks[res->tag];

	assert_true(res->tag < BLOCKS && k->busy);
	assert_int_equal(res->value, BLOCK);
	k->busy = false;
	--*busy;
	if (k->op == MKW_OP_READ && !all_are(k->to, BLOCK, k->value))
		fail_msg("block %u does not hold %u", (unsigned)res->tag, k->value);
}

static void event_loop_with(unsigned map_flags, uint32_t events)
{
	struct epoll_event ev = { .events = events };
	unsigned seed = 1, busy = 0, done = 0;
	struct mkw_result res[5];
	int ep = epoll_create1(0);
	ssize_t n;

	memset(blocks, 0, sizeof(blocks));
	map(map_flags);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, mkw_queue_fd(f.queue), &ev), 0);
	while (done < ROUNDS) {
		for (unsigned b = 0; b < BLOCKS; b++)
			if (!blocks[b].busy && busy < 20) {
				seed = seed * 1103515245u + 12345u;
				next_request(b, seed >> 16);
				busy++;
			}
		/* The kernel may break it off. */
		while (epoll_wait(ep, &ev, 1, PATIENCE_MS) != 1)
			assert_int_equal(errno, EINTR);
		do {
			n = mkw_queue_reap(f.queue, res, 5, 0);
			assert_true(n >= 0);
			for (ssize_t i = 0; i < n; i++)
				took(&res[i], &busy);
			done += (unsigned)n;
		} while (n && (events & EPOLLET));
	}
	while (busy) {
		assert_int_equal(reap(res, 1), 1);
		took(&res[0], &busy);
	}
	assert_int_equal(epoll_wait(ep, &ev, 1, 0), 0);
	close(ep);
	for (unsigned b = 0; b < BLOCKS; b++)
		assert_true(all_are(f.map + (size_t)b * BLOCK, BLOCK,
				    blocks[b].value));
}

static void event_loop(void **state)
{
	start(state, 0, 3);
	event_loop_with(0, EPOLLIN);
	finish();
	start(state, 0, 0);
	event_loop_with(MKW_MAP_INLINE, EPOLLIN | EPOLLET);
	finish();
}

/* ---- order ------------------------------------------------------------------ */

static void barriers(void **state)
{
	unsigned char *buf = malloc(P(1)), *data = malloc(P(1));
	struct mkw_request rq;

	start(state, 0, 4);
	memset(data, 5, P(1));
	submit_held(10, buf, 1);
	rq = request(MKW_OP_WRITE, data, P(1), P(20));
	rq.tag = 2;
	submit(&rq);
	/* The write passes the read, which waits. */
	assert_int_equal(result_of(2), page);
	rq = request(MKW_OP_SYNC, NULL, 0, 0);
	rq.order = MKW_ORDER_BARRIER;
	rq.tag = 3;
	submit(&rq);
	rq = request(MKW_OP_WRITE, data, P(1), P(21));
	rq.tag = 4;
	submit(&rq);
	/* There are threads that have nothing to do; neither may begin. */
	assert_int_equal(mkw_queue_cancel(f.queue, 4), 1);
	assert_int_equal(result_of(4), -ECANCELED);
	rq.tag = 5;
	submit(&rq);
	assert_false(readable());
	sem_post(&released);
	assert_int_equal(result_of(1), page);
	assert_int_equal(result_of(3), 0);
	assert_int_equal(mkw__store_read(f.store, P(20), buf, P(1)), 0);
	assert_true(all_are(buf, P(1), 5));
	assert_int_equal(result_of(5), page);
	finish();
	free(buf);
	free(data);
}

/* A barrier that is cancelled holds nobody up. */
static void barrier_cancelled(void **state)
{
	struct mkw_request rq;
	unsigned char *buf = malloc(P(1));

	start(state, 0, 2);
	submit_held(10, buf, 1);
	rq = request(MKW_OP_SYNC, NULL, 0, 0);
	rq.order = MKW_ORDER_BARRIER;
	rq.tag = 2;
	submit(&rq);
	rq.order = 0;
	rq.tag = 3;
	submit(&rq);
	assert_false(readable());
	assert_int_equal(mkw_queue_cancel(f.queue, 2), 1);
	assert_int_equal(result_of(2), -ECANCELED);
	assert_int_equal(result_of(3), 0);
	/* What has begun goes on. */
	assert_int_equal(mkw_queue_cancel(f.queue, 1), 0);
	sem_post(&released);
	assert_int_equal(result_of(1), page);
	finish();
	free(buf);
}

/* ---- full, and closed ---------------------------------------------------------- */

static void full(void **state)
{
	struct mkw_request rq[6];
	struct mkw_result res[6];
	unsigned char *buf = malloc(P(1));
	ssize_t n = 0;

	start(state, 4, 1);
	submit_held(10, buf, 9);
	for (unsigned i = 0; i < 6; i++) {
		rq[i] = request(MKW_OP_SYNC, NULL, 0, 0);
		rq[i].tag = i;
	}
	assert_int_equal(mkw_queue_submit(f.queue, rq, 6), 3);
	assert_int_equal(mkw_queue_submit(f.queue, rq + 3, 3), -EAGAIN);
	/* Results count until they are fetched. */
	assert_int_equal(mkw_queue_cancel(f.queue, 1), 1);
	assert_int_equal(mkw_queue_submit(f.queue, rq + 3, 3), -EAGAIN);
	assert_int_equal(result_of(1), -ECANCELED);
	assert_int_equal(mkw_queue_submit(f.queue, rq + 3, 3), 1);
	sem_post(&released);
	while (n < 4)
		n += reap(res + n, 6);
	assert_int_equal(n, 4);
	assert_int_equal(res[0].tag, 9);
	assert_int_equal(res[1].tag, 0);
	assert_int_equal(res[2].tag, 2);
	assert_int_equal(res[3].tag, 3);
	finish();
	free(buf);
}

static void *release(void *arg)
{
	(void)arg;
	sem_post(&released);
	return NULL;
}

static void busy(void **state)
{
	unsigned char *buf = malloc(P(1)), *data = calloc(1, P(1));
	struct mkw_request rq;
	pthread_t thread;

	start(state, 0, 1);
	memset(data, 7, P(1));
	submit_held(10, buf, 1);
	assert_int_equal(mkw_file_close(f.file), -EBUSY);
	assert_int_equal(mkw_engine_close(f.engine), -EBUSY);
	rq = request(MKW_OP_WRITE, data, P(1), P(3));
	submit(&rq);
	/* What is under way is waited for, what is not is not done. */
	pthread_create(&thread, NULL, release, NULL);
	assert_int_equal(mkw_queue_close(f.queue), 0);
	f.queue = NULL;
	pthread_join(thread, NULL);
	assert_true(all_are(buf, P(1), 0));
	assert_int_equal(mkw_pread(f.file, buf, P(1), P(3), 0), page);
	/* Or it was quick enough. */
	assert_true(all_are(buf, P(1), 0) || all_are(buf, P(1), 7));
	finish();

	/* A queue alone keeps its engine. */
	start(state, 0, 1);
	assert_int_equal(mkw_file_close(f.file), 0);
	assert_int_equal(mkw_engine_close(f.engine), -EBUSY);
	assert_int_equal(mkw_queue_close(f.queue), 0);
	assert_int_equal(mkw_engine_close(f.engine), 0);
	free(buf);
	free(data);
}

/* Requests wait for a frozen file as calls do; the loop goes on, and thaws it. */
static void frozen(void **state)
{
	unsigned char *data = calloc(1, P(1));
	struct mkw_request rq;

	start(state, 0, 2);
	assert_int_equal(mkw_file_freeze(f.file), 0);
	rq = request(MKW_OP_WRITE, data, P(1), P(3));
	rq.tag = 1;
	submit(&rq);
	assert_int_equal(do_now(request(MKW_OP_READ, data, P(1), P(3))), page);
	assert_false(readable());
	assert_int_equal(mkw_file_thaw(f.file), 0);
	assert_int_equal(result_of(1), page);
	finish();
	free(data);
}

/* ---- many threads --------------------------------------------------------------- */

#define CROWD 3u

static _Atomic unsigned fetched, cancelled, written;
static _Atomic bool crowd_wrong;
static unsigned char crowd_data[CROWD][64];

/* Writes, cancels what it has just submitted, and fetches what anybody's result is. */
static void *crowd(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg;
	struct mkw_result res[3];

	for (unsigned i = 0; i < ROUNDS / 3; i++) {
		struct mkw_request rq = request(i % 8 ? MKW_OP_WRITE : MKW_OP_READ,
						crowd_data[who], 64, P(who));
		ssize_t n;

		rq.tag = who;
		rq.order = i % 5 ? 0 : MKW_ORDER_BARRIER;
		while ((n = mkw_queue_submit(f.queue, &rq, 1)) == -EAGAIN) {
			n = mkw_queue_reap(f.queue, res, 3, 1);
			if (n < 0)
				n = 0;
			for (ssize_t k = 0; k < n; k++)
				if (res[k].value != 64 && res[k].value != -ECANCELED)
					crowd_wrong = true;
			fetched += (unsigned)n;
		}
		if (n != 1)
			crowd_wrong = true;
		written++;
		if (i % 3 == 0)
			cancelled += (unsigned)mkw_queue_cancel(f.queue, who);
	}
	return NULL;
}

static void many_threads(void **state)
{
	pthread_t threads[CROWD];
	struct mkw_result res[3];
	unsigned gone = 0;
	ssize_t n;

	start(state, 5, 3);
	fetched = cancelled = written = 0;
	crowd_wrong = false;
	for (unsigned i = 0; i < CROWD; i++)
		pthread_create(&threads[i], NULL, crowd, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	while (fetched < written) {
		n = reap(res, 3);
		for (ssize_t k = 0; k < n; k++)
			gone += res[k].value == -ECANCELED;
		fetched += (unsigned)n;
	}
	assert_int_equal(fetched, written);
	assert_true(gone <= cancelled);
	assert_false(crowd_wrong);
	assert_false(readable());
	finish();
}

/* A write that was cancelled leaves no trace, one that was not is there. */
static void cancel_races(void **state)
{
	struct mkw_request rq;
	unsigned char data[64], buf[64];
	unsigned char now = 0;

	start(state, 0, 2);
	for (unsigned i = 1; i <= ROUNDS / 3; i++) {
		int64_t r;
		ssize_t n;

		memset(data, (int)(i % 250 + 1), sizeof(data));
		rq = request(MKW_OP_WRITE, data, sizeof(data), 0);
		rq.tag = i;
		submit(&rq);
		n = mkw_queue_cancel(f.queue, i);
		r = result_of(i);
		assert_int_equal(r, n ? -ECANCELED : (int64_t)sizeof(data));
		if (!n)
			now = data[0];
		assert_int_equal(mkw_queue_reap(f.queue, &(struct mkw_result){ 0 },
						1, 0), 0);
		assert_int_equal(mkw_pread(f.file, buf, sizeof(buf), 0, 0),
				 sizeof(buf));
		assert_true(all_are(buf, sizeof(buf), now));
	}
	finish();
}

/* ---- failures --------------------------------------------------------------------- */

static void disk_errors(void **state)
{
	struct fault_plan plan = { .points = FAULT_BIT(FAULT_READ), .nth = 1,
				   .persistent = true, .err = -EIO };
	unsigned char *buf = calloc(1, P(1));
	struct mkw__store *st;
	struct shim *shim;

	assert_int_equal(mkw__memstore_open(P(PAGES), &st), 0);
	shim = shim_wrap(st);
	assert_non_null(shim);
	start_at(*(const enum mkw_policy *)*state, 0, 2, shim->st);
	fault_arm(&plan);
	assert_int_equal(do_now(request(MKW_OP_READ, buf, P(1), P(1))), -EIO);
	assert_int_equal(do_now(request(MKW_OP_PREFETCH, NULL, P(3), P(1))), -EIO);
	assert_true(fault_disarm() > 0);
	assert_int_equal(do_now(request(MKW_OP_READ, buf, P(1), P(1))), page);
	assert_int_equal(do_now(request(MKW_OP_WRITE, buf, P(1), P(1))), page);
	plan.points = FAULT_BIT(FAULT_WRITE);
	fault_arm(&plan);
	assert_int_equal(do_now(request(MKW_OP_SYNC, NULL, 0, 0)), -EIO);
	fault_disarm();
	assert_int_equal(do_now(request(MKW_OP_SYNC, NULL, 0, 0)), 0);
	finish();
	free(buf);
}

static _Atomic bool waiting;

static void on_signal(int sig)
{
	(void)sig;
}

static void *interrupt(void *arg)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	pthread_t whom = *(pthread_t *)arg;

	/* It may not sleep yet: again until it has come back. */
	while (waiting) {
		pthread_kill(whom, SIGUSR1);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void interrupted(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal }, old;
	pthread_t self = pthread_self(), thread;
	struct mkw_result res;

	start(state, 0, 1);
	sigaction(SIGUSR1, &sa, &old);
	waiting = true;
	pthread_create(&thread, NULL, interrupt, &self);
	assert_int_equal(mkw_queue_reap(f.queue, &res, 1, -1), -EINTR);
	waiting = false;
	pthread_join(thread, NULL);
	sigaction(SIGUSR1, &old, NULL);
	finish();
}

static void forked(void **state)
{
	struct mkw_request rq;
	struct mkw_result res;
	int status;
	pid_t pid;

	start(state, 0, 2);
	rq = request(MKW_OP_SYNC, NULL, 0, 0);
	pid = fork();
	if (!pid)
		_exit(mkw_queue_submit(f.queue, &rq, 1) != -ECHILD ||
		      mkw_queue_reap(f.queue, &res, 1, 0) != -ECHILD ||
		      mkw_queue_cancel(f.queue, 0) != -ECHILD ||
		      mkw_queue_fd(f.queue) != -ECHILD ||
		      mkw_queue_close(f.queue) != -ECHILD ||
		      mkw_queue_open(f.engine, NULL, &f.queue) != -ECHILD);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(do_now(rq), 0);
	finish();
}

static void bad_input(void **state)
{
	struct mkw_queue_options opt = MKW_QUEUE_OPTIONS_INIT;
	struct mkw_engine *other;
	struct mkw_queue *q;
	struct mkw_request rq[2];
	struct mkw_result res;
	unsigned char buf[16];

	start(state, 0, 1);
	assert_int_equal(mkw_queue_open(NULL, NULL, &q), -EINVAL);
	assert_int_equal(mkw_queue_open(f.engine, NULL, NULL), -EINVAL);
	opt.size = 3;
	assert_int_equal(mkw_queue_open(f.engine, &opt, &q), -EINVAL);
	opt.size = sizeof(opt);
	opt.depth = MKW_QUEUE_DEPTH_MAX + 1;
	assert_int_equal(mkw_queue_open(f.engine, &opt, &q), -EINVAL);
	opt.depth = MKW_QUEUE_DEPTH_MAX;
	opt.threads = MKW_QUEUE_THREADS_MAX + 1;
	assert_int_equal(mkw_queue_open(f.engine, &opt, &q), -EINVAL);
	opt.threads = MKW_QUEUE_THREADS_MAX;
	assert_int_equal(mkw_queue_open(f.engine, &opt, &q), 0);
	assert_int_equal(mkw_queue_close(q), 0);
	assert_int_equal(mkw_queue_close(NULL), -EINVAL);
	assert_int_equal(mkw_queue_fd(NULL), -EINVAL);

	rq[0] = rq[1] = request(MKW_OP_READ, buf, sizeof(buf), 0);
	assert_int_equal(mkw_queue_submit(NULL, rq, 1), -EINVAL);
	assert_int_equal(mkw_queue_submit(f.queue, NULL, 1), -EINVAL);
	assert_int_equal(mkw_queue_submit(f.queue, NULL, 0), 0);
	rq[1].size = 8;
	assert_int_equal(mkw_queue_submit(f.queue, rq, 2), 1);
	assert_int_equal(mkw_queue_submit(f.queue, &rq[1], 1), -EINVAL);
	assert_int_equal(result_of(0), sizeof(buf));
	rq[1] = rq[0];
	rq[1].order = 2;
	assert_int_equal(mkw_queue_submit(f.queue, &rq[1], 1), -EINVAL);
	rq[1].order = 0;
	rq[1].op = 0;
	assert_int_equal(mkw_queue_submit(f.queue, &rq[1], 1), -EINVAL);
	rq[1].op = MKW_OP_FALLOCATE + 1;
	assert_int_equal(mkw_queue_submit(f.queue, &rq[1], 1), -EINVAL);

	assert_int_equal(mkw_queue_reap(NULL, &res, 1, 0), -EINVAL);
	assert_int_equal(mkw_queue_reap(f.queue, NULL, 1, 0), -EINVAL);
	assert_int_equal(mkw_queue_reap(f.queue, &res, 0, 0), -EINVAL);
	assert_int_equal(mkw_queue_reap(f.queue, &res, 1, -2), -EINVAL);
	assert_int_equal(mkw_queue_cancel(NULL, 0), -EINVAL);
	assert_int_equal(mkw_queue_cancel(f.queue, 0), 0);

	/* What a call refuses is a result. */
	for (unsigned op = MKW_OP_READ; op <= MKW_OP_FALLOCATE; op++) {
		rq[0] = request(op, buf, sizeof(buf), 0);
		rq[0].file = NULL;
		assert_int_equal(do_now(rq[0]), -EINVAL);
		rq[0].file = f.file;
		rq[0].off = -1;
		if (op != MKW_OP_SYNC)
			assert_int_equal(do_now(rq[0]), -EINVAL);
		rq[0].off = 0;
		rq[0].flags = 0x8000;
		assert_true(do_now(rq[0]) < 0);
		rq[0].flags = 0;
		rq[0].len = UINT64_MAX;
		if (op != MKW_OP_SYNC)
			assert_int_equal(do_now(rq[0]), -EINVAL);
	}
	rq[0] = request(MKW_OP_READ, NULL, sizeof(buf), 0);
	assert_int_equal(do_now(rq[0]), -EFAULT);
	rq[0].op = MKW_OP_WRITE;
	assert_int_equal(do_now(rq[0]), -EFAULT);
	rq[0].iov = (const struct iovec *)8;
	rq[0].iovcnt = 1;
	assert_int_equal(do_now(rq[0]), -EFAULT);
	rq[0].iovcnt = UINT32_MAX;
	assert_int_equal(do_now(rq[0]), -EINVAL);
	/* A file of another engine. */
	assert_int_equal(mkw_engine_open(NULL, &other), 0);
	assert_int_equal(mkw_queue_open(other, NULL, &q), 0);
	rq[0] = request(MKW_OP_SYNC, NULL, 0, 0);
	assert_int_equal(mkw_queue_submit(q, rq, 1), 1);
	while (mkw_queue_reap(q, &res, 1, PATIENCE_MS) == -EINTR)
		;
	assert_int_equal(res.value, -EINVAL);
	assert_int_equal(mkw_queue_close(q), 0);
	assert_int_equal(mkw_engine_close(other), 0);
	finish();
}

/* -------------------------------------------------------------------------------- */

int main(void)
{
	static enum mkw_policy retry = MKW_POLICY_RETRY,
			       invalidate = MKW_POLICY_INVALIDATE;
#define BOTH(fn)                                                        \
	cmocka_unit_test_prestate(fn, &retry),                          \
		cmocka_unit_test_prestate(fn, &invalidate)
	const struct CMUnitTest tests[] = {
		BOTH(operations), BOTH(cached_at_once), BOTH(level_until_last),
		BOTH(event_loop), BOTH(barriers), BOTH(barrier_cancelled),
		BOTH(full), BOTH(busy), BOTH(frozen), BOTH(many_threads),
		BOTH(cancel_races), BOTH(disk_errors), BOTH(interrupted),
		BOTH(forked), BOTH(bad_input),
	};

	page = (size_t)sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
