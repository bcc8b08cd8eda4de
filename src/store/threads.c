/* SPDX-License-Identifier: MIT */
/*
 * threads.c: threads for a store whose reads and writes may sleep
 * (MKW_STORE_MAY_BLOCK).
 *
 * Those without MKW_IO_MAY_BLOCK come from threads of the engine that page faults wait
 * for. A store of this kind never sees them: they are queued here, and made by a few
 * threads that do nothing else, first come, first served. How each ends is as ever:
 * mkw_io_done() posts it to its loop.
 *
 * A thread goes to sleep (`idle`) having found nothing to do in the same hold of the
 * mutex; who queues something takes one of them off that list and wakes it. The mutex
 * is never held over a call.
 */
#include <errno.h>

#include "store/store.h"

#define THREADS 4u

struct worker {
	struct mkw__store_threads *of;
	struct worker *next;		/* idle */
	struct mkw__os_event called;
	struct mkw__os_thread *thread;
};

struct mkw__store_threads {
	struct mkw__os_mutex mutex;	/* of what follows, but for the threads */
	struct mkw__os_io *first, *last;
	struct worker *idle;
	bool stop;
	unsigned count;
	struct worker worker[THREADS];
};

/* The next one, for w; NULL: it is to end. Waits. */
static struct mkw__os_io *next(struct worker *w)
{
	struct mkw__store_threads *t = w->of;
	struct mkw__os_io *io;
	bool stop;

	for (;;) {
		mkw__os_mutex_lock(&t->mutex);
		io = t->first;
		stop = t->stop;
		if (io) {
			t->first = io->next;
		} else if (!stop) {
			w->next = t->idle;
			t->idle = w;
		}
		mkw__os_mutex_unlock(&t->mutex);
		if (io || stop)
			return io;
		mkw__os_event_wait(&w->called);
		mkw__os_event_reset(&w->called);
	}
}

static void work(void *arg)
{
	struct mkw__os_io *io;

	while ((io = next(arg)))
		io->op(io->store->arg, &io->ask);
}

void mkw__store_threads_give(struct mkw__store_threads *t, struct mkw__os_io *io)
{
	struct worker *w;

	io->next = NULL;
	mkw__os_mutex_lock(&t->mutex);
	if (t->first)
		t->last->next = io;
	else
		t->first = io;
	t->last = io;
	w = t->idle;
	if (w)
		t->idle = w->next;
	mkw__os_mutex_unlock(&t->mutex);
	if (w)
		mkw__os_event_set(&w->called);
}

void mkw__store_threads_end(struct mkw__store_threads *t)
{
	struct worker *w, *after;

	mkw__os_mutex_lock(&t->mutex);
	t->stop = true;
	w = t->idle;
	t->idle = NULL;
	mkw__os_mutex_unlock(&t->mutex);
	for (; w; w = after) {
		after = w->next;
		mkw__os_event_set(&w->called);
	}
	for (unsigned i = 0; i < t->count; i++)
		mkw__os_thread_join(t->worker[i].thread);
	mkw__os_free(t);
}

int mkw__store_threads_start(struct mkw__store_threads **out)
{
	struct mkw__store_threads *t = mkw__os_zalloc(sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	for (; t->count < THREADS; t->count++) {
		struct worker *w = &t->worker[t->count];

		w->of = t;
		r = mkw__os_thread_start(&w->thread, "mkw-store", work, w);
		if (r) {
			mkw__store_threads_end(t);
			return r;
		}
	}
	*out = t;
	return 0;
}
