/* SPDX-License-Identifier: MIT */
/*
 * Queues: calls that are submitted, and whose results are fetched later.
 *
 * An operation of the engine waits in the midst of its work: for a range lock, a pin, a
 * page that is being filled, the page faults of its buffer. So there is no way to carry it
 * out but in a thread that may wait, and a queue has some: few, bounded, with all signals
 * blocked, and all of them from the start, so that none is missing later, when what has begun
 * may wait for what comes after it. The application needs none. They call what the
 * application would have called, with nothing held, so every promise of those calls is
 * kept, R0 with them.
 *
 *	submit ──► waiting ──► begun ──► result ──► taken
 *	   │          └─ cancelled ───────► │
 *	   └─ a read that need not wait ──► │
 *
 * A *place* holds a request from its submission to its end, a slot of the ring its
 * result from then on to when it is taken. `used` counts both, so neither place nor slot
 * is ever missing, memory is bounded, and each request that was submitted gets
 * one result: it leaves `waiting` once, under the mutex, to begin or to be cancelled.
 *
 * Order. Requests begin in the order of their submission, as far as threads are free, and
 * are not ordered otherwise, but for barriers: one begins when nothing is at work any more,
 * and as long as it is at work nothing begins (`barred`). Only the first of `waiting`
 * is ever looked at, so one that waits holds up all who came later.
 *
 * Wake-ups. All of these are made under the one mutex, so that each is a recheck of
 * what the others did:
 *   threads   go to sleep (`idle`) having found, in the same hold of the mutex, nothing
 *             that may begin. Whoever makes that false takes one of them off the list
 *             (call_locked()): who submits, who cancels, who has done a request without
 *             being one of them. A thread that begins one calls the next, should
 *             there be more; a thread that ends one, or starts, looks by itself.
 *   the flag  (the descriptor) is raised exactly while there are results: it is raised with
 *             the first and lowered with the last. Who polls it and sleeps is woken by
 *             the former; who is woken and finds none, since another took it, polls again.
 *
 * The mutex is the innermost lock, and never held over a call or the application's memory.
 */
#include <errno.h>

#include "core/engine.h"

struct place {
	TAILQ_ENTRY(place) link;	/* queue->free, waiting or begun */
	struct mkw_request request;
};
TAILQ_HEAD(places, place);

struct mkw_queue {
	struct mkw_engine *engine;
	const struct mkw__queue_calls *calls;
	unsigned depth, threads;
	struct mkw__os_thread **thread;
	struct mkw__mutex mutex;	/* of all that follows */
	struct places free, waiting, begun;
	unsigned barriers;		/* waiting or begun */
	bool barred;			/* one has begun */
	bool stop;
	unsigned used;
	struct mkw__os_flag *flag;
	unsigned first, count;		/* of the ring */
	struct mkw__waiters idle;
	struct mkw_result *ring;
	struct place *places;
};

static bool is_barrier(const struct place *p)
{
	return p->request.order & MKW_ORDER_BARRIER;
}

/* The request that may begin now, or NULL. */
static struct place *ready_locked(struct mkw_queue *q)
{
	struct place *p = TAILQ_FIRST(&q->waiting);

	if (!p || (q->barred && !MKW__MUTANT(QUEUE_PASSES_BARRIER)))
		return NULL;
	return is_barrier(p) && !TAILQ_EMPTY(&q->begun) &&
	       !MKW__MUTANT(QUEUE_BARRIER_EARLY) ? NULL : p;
}

/* Has an idle thread look, if there is something that may begin. */
static void call_locked(struct mkw_queue *q, struct mkw__waiters *woken)
{
	struct mkw__waiter *w = TAILQ_FIRST(&q->idle);

	if (w && ready_locked(q)) {
		TAILQ_REMOVE(&q->idle, w, link);
		TAILQ_INSERT_TAIL(woken, w, link);
	}
}

static void result_locked(struct mkw_queue *q, const struct mkw_request *rq,
			  int64_t value)
{
	if (q->count == q->depth)
		mkw__os_panic("a queue of %u requests has more results", q->depth);
	q->ring[(q->first + q->count) % q->depth] = (struct mkw_result){
		.tag = rq->tag, .value = value, .off = rq->off };
	if (!q->count++)
		mkw__os_flag_raise(q->flag);
}

/* The place was waiting or has begun, and has its result. */
static void end_locked(struct mkw_queue *q, struct places *from, struct place *p,
		       int64_t value)
{
	struct mkw_file *file = p->request.file;

	TAILQ_REMOVE(from, p, link);
	q->barriers -= is_barrier(p);
	if (from == &q->begun && is_barrier(p))
		q->barred = false;
	/* Release: nobody touches the file any more; pairs with mkw__file_close(). */
	if (file)
		atomic_fetch_sub_explicit(&file->requests, 1, memory_order_release);
	result_locked(q, &p->request, value);
	TAILQ_INSERT_HEAD(&q->free, p, link);
}

static void begin_locked(struct mkw_queue *q, struct place *p)
{
	TAILQ_INSERT_TAIL(&q->begun, p, link);
	q->barred |= is_barrier(p);
}

/* ---- threads ------------------------------------------------------------ */

/* For a bug that looks and goes to sleep in two steps. */
static void look_away(struct mkw_queue *q)
{
	mkw__mutex_unlock(&q->mutex);
	mkw__mutex_lock(&q->mutex);
}

/* Ends done, if there is one; then waits for the next. NULL: the queue is closed. */
static struct place *next(struct mkw_queue *q, struct place *done, int64_t value)
{
	struct place *p;
	bool stop;

	for (;; done = NULL) {
		struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
		struct mkw__sleeper s;

		mkw__sleeper_init(&s);
		mkw__mutex_lock(&q->mutex);
		if (done)
			end_locked(q, &q->begun, done, value);
		p = ready_locked(q);
		stop = q->stop;
		if (p) {
			TAILQ_REMOVE(&q->waiting, p, link);
			begin_locked(q, p);
			call_locked(q, &woken);
		} else if (!stop) {
			if (MKW__MUTANT(QUEUE_SLEPT_OVER))
				look_away(q);
			TAILQ_INSERT_TAIL(&q->idle, &s.waiter, link);
		}
		mkw__mutex_unlock(&q->mutex);
		mkw__waiters_wake(&woken);
		if (p || stop)
			return p;
		mkw__sleeper_wait(&s);
	}
}

static void queue_main(void *arg)
{
	struct mkw_queue *q = arg;
	struct place *p = NULL;
	int64_t value = 0;

	while ((p = next(q, p, value)))
		value = q->calls->call(&p->request);
}

/* ---- requests ----------------------------------------------------------- */

/* A read that need not wait is done here; another waits like all. */
static void try_glance(struct mkw_queue *q, struct place *p)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	int64_t value;
	bool done;

	done = q->calls->glance(&p->request, &value);
	mkw__mutex_lock(&q->mutex);
	if (done) {
		end_locked(q, &q->begun, p, value);
	} else {
		TAILQ_REMOVE(&q->begun, p, link);
		TAILQ_INSERT_TAIL(&q->waiting, p, link);
	}
	/* Somebody else's barrier may have waited for it. */
	if (!MKW__MUTANT(QUEUE_GLANCE_CALLS_NOBODY) || !done)
		call_locked(q, &woken);
	mkw__mutex_unlock(&q->mutex);
	mkw__waiters_wake(&woken);
}

bool mkw__queue_submit(struct mkw_queue *q, const struct mkw_request *rq)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	bool glance = false, full;
	struct place *p = NULL;

	mkw__mutex_lock(&q->mutex);
	full = q->used == q->depth;
	if (!full) {
		q->used++;
		p = TAILQ_FIRST(&q->free);
		if (!p)
			mkw__os_panic("a queue has given more results than it had requests");
		TAILQ_REMOVE(&q->free, p, link);
		p->request = *rq;
		if (rq->file)
			atomic_fetch_add_explicit(&rq->file->requests, 1,
						  memory_order_relaxed);
		q->barriers += is_barrier(p);
		/* It passes those that only wait, but no barrier. */
		glance = rq->op == MKW_OP_READ && !q->barriers;
		if (glance) {
			begin_locked(q, p);
		} else {
			TAILQ_INSERT_TAIL(&q->waiting, p, link);
			call_locked(q, &woken);
		}
	}
	mkw__mutex_unlock(&q->mutex);
	mkw__waiters_wake(&woken);
	if (glance)
		try_glance(q, p);
	return !full;
}

size_t mkw__queue_take(struct mkw_queue *q, struct mkw_result *results, size_t n)
{
	bool last;

	mkw__mutex_lock(&q->mutex);
	n = mkw__min(n, q->count);
	for (size_t i = 0; i < n; i++)
		results[i] = q->ring[(q->first + i) % q->depth];
	q->first = (q->first + (unsigned)n) % q->depth;
	q->count -= (unsigned)n;
	q->used -= (unsigned)n;
	last = n && !q->count;
	if (last && !MKW__MUTANT(QUEUE_LOWERED_LATE))
		mkw__os_flag_lower(q->flag);
	mkw__mutex_unlock(&q->mutex);
	if (last && MKW__MUTANT(QUEUE_LOWERED_LATE))
		mkw__os_flag_lower(q->flag);
	return n;
}

int mkw__queue_wait(struct mkw_queue *q, uint64_t timeout_ns)
{
	return mkw__os_flag_wait(q->flag, timeout_ns);
}

/* Of one list, those with the tag; or all, if tag is NULL. How many. */
static size_t cancel_locked(struct mkw_queue *q, const uint64_t *tag)
{
	struct place *p, *after;
	size_t n = 0;

	for (p = TAILQ_FIRST(&q->waiting); p; p = after) {
		after = TAILQ_NEXT(p, link);
		if (tag && p->request.tag != *tag)
			continue;
		end_locked(q, &q->waiting, p, -ECANCELED);
		n++;
	}
	if (MKW__MUTANT(QUEUE_CANCELS_BEGUN) && tag)
		TAILQ_FOREACH(p, &q->begun, link)
			if (p->request.tag == *tag)
				result_locked(q, &p->request, -ECANCELED);
	return n;
}

size_t mkw__queue_cancel(struct mkw_queue *q, uint64_t tag)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	size_t n;

	mkw__mutex_lock(&q->mutex);
	n = cancel_locked(q, &tag);
	/* It may have been a barrier, and what came after it may begin. */
	call_locked(q, &woken);
	mkw__mutex_unlock(&q->mutex);
	mkw__waiters_wake(&woken);
	return n;
}

/* ---- opening and closing ------------------------------------------------- */

struct mkw_engine *mkw__queue_engine(const struct mkw_queue *q)
{
	return q->engine;
}

int mkw__queue_fd(const struct mkw_queue *q)
{
	return mkw__os_flag_fd(q->flag);
}

static void count_in_engine(struct mkw_engine *e, int n)
{
	mkw__mutex_lock(&e->pool.mutex);
	e->queues += (unsigned)n;
	mkw__mutex_unlock(&e->pool.mutex);
}

static void free_queue(struct mkw_queue *q)
{
	if (q->flag)
		mkw__os_flag_destroy(q->flag);
	mkw__os_free(q->thread);
	mkw__os_free(q->ring);
	mkw__os_free(q->places);
	mkw__os_free(q);
}

/* Ends its threads, and it. Nothing waits. */
static void end(struct mkw_queue *q)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__waiter *w;

	mkw__mutex_lock(&q->mutex);
	q->stop = true;
	cancel_locked(q, NULL);
	while ((w = TAILQ_FIRST(&q->idle))) {
		TAILQ_REMOVE(&q->idle, w, link);
		TAILQ_INSERT_TAIL(&woken, w, link);
	}
	mkw__mutex_unlock(&q->mutex);
	mkw__waiters_wake(&woken);
	for (unsigned i = 0; i < q->threads; i++)
		mkw__os_thread_join(q->thread[i]);
	free_queue(q);
}

int mkw__queue_open(struct mkw_engine *e, unsigned depth, unsigned threads,
		    const struct mkw__queue_calls *calls, struct mkw_queue **out)
{
	struct mkw_queue *q = mkw__os_zalloc(sizeof(*q));
	int r = -ENOMEM;

	if (!q)
		return r;
	q->engine = e;
	q->calls = calls;
	q->depth = depth;
	mkw__mutex_init(&q->mutex, MKW__RANK_REQUESTS);
	TAILQ_INIT(&q->free);
	TAILQ_INIT(&q->waiting);
	TAILQ_INIT(&q->begun);
	TAILQ_INIT(&q->idle);
	q->thread = mkw__os_zalloc(threads * sizeof(struct mkw__os_thread *));
	q->ring = mkw__os_zalloc(depth * sizeof(struct mkw_result));
	q->places = mkw__os_zalloc(depth * sizeof(struct place));
	if (!q->thread || !q->ring || !q->places)
		goto free_it;
	for (unsigned i = 0; i < depth; i++)
		TAILQ_INSERT_TAIL(&q->free, &q->places[i], link);
	r = mkw__os_flag_create(&q->flag);
	if (r)
		goto free_it;
	for (; q->threads < threads; q->threads++) {
		r = mkw__os_thread_start(&q->thread[q->threads], "mkw-queue",
					 queue_main, q);
		if (r) {
			end(q);
			return r;
		}
	}
	count_in_engine(e, 1);
	*out = q;
	return 0;
free_it:
	free_queue(q);
	return r;
}

void mkw__queue_close(struct mkw_queue *q)
{
	struct mkw_engine *e = q->engine;

	end(q);
	count_in_engine(e, -1);
}
