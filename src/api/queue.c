/* SPDX-License-Identifier: MIT */
/*
 * The public functions of queues, and what a request is: a call of the public functions.
 *
 * The queue itself (core/queue.c) knows nothing of calls; its threads come back here for
 * each request, with nothing held, and so every check and promise is that of the
 * call. What comes from the application, requests, and goes to it, results, is copied with no
 * lock held and signals open, since it may lie in a mapping.
 */
#include <errno.h>
#include <limits.h>

#include "api/api.h"
#include "core/engine.h"

#define DEPTH_DEFAULT 64u
#define THREADS_DEFAULT 4u
/* Requests or results that are copied at a time. */
#define SOME 8u

/* ---- a request ------------------------------------------------------------ */

static int64_t prefetch(struct mkw_file *file, off_t off, uint64_t len)
{
	struct mkw__os_sigmask mask;
	int r;

	if (!file || off < 0 || len > (uint64_t)INT64_MAX - (uint64_t)off)
		return -EINVAL;
	if (!len)
		len = (uint64_t)INT64_MAX - (uint64_t)off;
	mkw__os_signals_block(&mask);
	r = mkw__io_prefetch(file->inode, (uint64_t)off, len);
	mkw__os_signals_restore(&mask);
	return r;
}

static int64_t call(struct mkw_request *rq)
{
	struct iovec one = { .iov_base = rq->buf, .iov_len = rq->len };
	const struct iovec *iov = rq->iov ? rq->iov : &one;
	int n = rq->iov ? (int)rq->iovcnt : 1;
	/* What a size_t or an off_t cannot say is refused as any that is too large. */
	off_t len = rq->len > INT64_MAX ? -1 : (off_t)rq->len;

	switch (rq->op) {
	case MKW_OP_READ:
		return mkw_preadv(rq->file, iov, n, rq->off, rq->flags);
	case MKW_OP_WRITE:
		return mkw__api_pwritev(rq->file, iov, n, &rq->off, rq->flags);
	case MKW_OP_SYNC:
		return rq->flags ? -EINVAL : mkw_sync(rq->file);
	case MKW_OP_SYNC_RANGE:
		return mkw_sync_range(rq->file, rq->off, len, rq->flags);
	case MKW_OP_PREFETCH:
		return rq->flags ? -EINVAL : prefetch(rq->file, rq->off, rq->len);
	default:
		return mkw_fallocate(rq->file, (int)rq->flags, rq->off, len);
	}
}

static bool glance(struct mkw_request *rq, int64_t *value)
{
	if (!rq->file || rq->iov || rq->flags || rq->off < 0 || !rq->len ||
	    rq->len > INT_MAX ||
	    rq->len > (uint64_t)INT64_MAX - (uint64_t)rq->off)
		return false;
	*value = (int64_t)rq->len;
	return mkw__glance_first(rq->file->inode, rq->buf, rq->len,
				 (uint64_t)rq->off);
}

static const struct mkw__queue_calls calls = { .call = call, .glance = glance };

/* ---- the functions --------------------------------------------------------- */

static int check(const struct mkw_queue *queue)
{
	if (!queue)
		return -EINVAL;
	return mkw__engine_inherited(mkw__queue_engine(queue)) ? -ECHILD : 0;
}

int mkw_queue_open(struct mkw_engine *engine, const struct mkw_queue_options *opt,
		   struct mkw_queue **out)
{
	struct mkw_queue_options o = MKW_QUEUE_OPTIONS_INIT;
	struct mkw__os_sigmask mask;
	int r;

	if (!engine || !out || (opt && opt->size != sizeof(o)))
		return -EINVAL;
	if (mkw__engine_inherited(engine))
		return -ECHILD;
	if (opt)
		o = *opt;
	if (o.depth > MKW_QUEUE_DEPTH_MAX || o.threads > MKW_QUEUE_THREADS_MAX)
		return -EINVAL;
	mkw__os_signals_block(&mask);
	r = mkw__queue_open(engine, o.depth ? o.depth : DEPTH_DEFAULT,
			    o.threads ? o.threads : THREADS_DEFAULT, &calls, out);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_queue_close(struct mkw_queue *queue)
{
	struct mkw__os_sigmask mask;
	int r = check(queue);

	if (r)
		return r;
	mkw__os_signals_block(&mask);
	mkw__queue_close(queue);
	mkw__os_signals_restore(&mask);
	return 0;
}

int mkw_queue_fd(struct mkw_queue *queue)
{
	int r = check(queue);

	return r ? r : mkw__queue_fd(queue);
}

/* Those of `some` that are well-formed; *error: why the next is not, or it is full. */
static size_t submit_some(struct mkw_queue *queue, struct mkw_request *some,
			  size_t n, int *error)
{
	struct mkw__os_sigmask mask;
	size_t i;

	mkw__os_signals_block(&mask);
	for (i = 0; i < n && !*error; i++) {
		struct mkw_request *rq = &some[i];

		/* Of another engine: as none. */
		if (rq->file &&
		    rq->file->inode->engine != mkw__queue_engine(queue))
			rq->file = NULL;
		if (rq->size != sizeof(*rq) || rq->op < MKW_OP_READ ||
		    rq->op > MKW_OP_FALLOCATE || (rq->order & ~MKW_ORDER_BARRIER))
			*error = -EINVAL;
		else if (!mkw__queue_submit(queue, rq))
			*error = -EAGAIN;
	}
	mkw__os_signals_restore(&mask);
	return *error ? i - 1 : i;
}

ssize_t mkw_queue_submit(struct mkw_queue *queue, const struct mkw_request *requests,
			 size_t n)
{
	struct mkw_request some[SOME];
	size_t done = 0;
	int error = check(queue);

	if (!error && n && !requests)
		error = -EINVAL;
	while (done < n && !error) {
		size_t count = mkw__min(n - done, SOME);

		for (size_t i = 0; i < count; i++)
			some[i] = requests[done + i];
		done += submit_some(queue, some, count, &error);
	}
	return done ? (ssize_t)done : error;
}

/* Those that there are now. */
static size_t take(struct mkw_queue *queue, struct mkw_result *results, size_t n)
{
	struct mkw_result some[SOME];
	struct mkw__os_sigmask mask;
	size_t done = 0, count;

	do {
		mkw__os_signals_block(&mask);
		count = mkw__queue_take(queue, some, mkw__min(n - done, SOME));
		mkw__os_signals_restore(&mask);
		for (size_t i = 0; i < count; i++)
			results[done++] = some[i];
	} while (count == SOME && done < n);
	return done;
}

ssize_t mkw_queue_reap(struct mkw_queue *queue, struct mkw_result *results, size_t n,
		       int timeout_ms)
{
	uint64_t now, end = UINT64_MAX;
	size_t done;
	int r = check(queue);

	if (!r && (!results || !n || timeout_ms < -1))
		r = -EINVAL;
	if (r)
		return r;
	done = take(queue, results, n);
	if (done || !timeout_ms)
		return (ssize_t)done;
	if (timeout_ms > 0)
		end = mkw__os_now_ns() + (uint64_t)timeout_ms * 1000000;
	do {
		now = mkw__os_now_ns();
		r = mkw__queue_wait(queue, end == UINT64_MAX ? end :
				    end > now ? end - now : 0);
		/* Another may have been quicker: again. */
		done = take(queue, results, n);
	} while (!done && !r);
	return done || r == -ETIMEDOUT ? (ssize_t)done : r;
}

ssize_t mkw_queue_cancel(struct mkw_queue *queue, uint64_t tag)
{
	struct mkw__os_sigmask mask;
	size_t n;
	int r = check(queue);

	if (r)
		return r;
	mkw__os_signals_block(&mask);
	n = mkw__queue_cancel(queue, tag);
	mkw__os_signals_restore(&mask);
	return (ssize_t)n;
}
