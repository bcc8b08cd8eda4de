/* SPDX-License-Identifier: MIT */
/*
 * The space thread: reservations for faults that the pager serves.
 *
 * Looking up and allocating blocks waits for the file system, and where blocks
 * are cannot be asked asynchronously, so the pager hands such a fault over and
 * goes on. The fault keeps its ticket, and runs again from its start when it has
 * its answer (f->space). This thread waits for the store alone, and for those who
 * reserve in the same chunk, who do too.
 *
 * A fault in the queue belongs to this thread. QUEUE guards queue and stop.
 */
#include "core/engine.h"

void mkw__space_submit(struct mkw__fault *f)
{
	struct mkw__space *sp = &f->engine->space;

	mkw__mutex_lock(&sp->queue);
	TAILQ_INSERT_TAIL(&sp->faults, f, link);
	mkw__os_event_set(&sp->event);
	mkw__mutex_unlock(&sp->queue);
}

/* The next fault, or NULL: to stop. */
static struct mkw__fault *next(struct mkw__space *sp)
{
	struct mkw__fault *f;
	bool stop;

	for (;;) {
		mkw__mutex_lock(&sp->queue);
		f = TAILQ_FIRST(&sp->faults);
		if (f)
			TAILQ_REMOVE(&sp->faults, f, link);
		else
			mkw__os_event_reset(&sp->event);
		stop = sp->stop;
		mkw__mutex_unlock(&sp->queue);
		if (f || stop)
			return f;
		mkw__os_event_wait(&sp->event);
	}
}

static void space_main(void *arg)
{
	struct mkw_engine *e = arg;
	struct mkw__fault *f;

	while ((f = next(&e->space))) {
		mkw__fault_reserve(f);
		f->resume(f);
	}
}

int mkw__space_start(struct mkw_engine *e)
{
	struct mkw__space *sp = &e->space;

	mkw__mutex_init(&sp->queue, MKW__RANK_QUEUE);
	TAILQ_INIT(&sp->faults);
	return mkw__os_thread_start(&sp->thread, "mkw-space", space_main, e);
}

void mkw__space_stop(struct mkw_engine *e)
{
	struct mkw__space *sp = &e->space;

	mkw__mutex_lock(&sp->queue);
	sp->stop = true;
	mkw__os_event_set(&sp->event);
	mkw__mutex_unlock(&sp->queue);
	mkw__os_thread_join(sp->thread);
}
