/* SPDX-License-Identifier: MIT */
/*
 * The log: what the engine has to tell, on its way to the application.
 *
 * Whoever finds something may be the pager, the flusher, or a signal handler in a
 * thread of the application, with locks held. None of them may call the application
 * (R3), nor wait for it. So a record of numbers goes into a ring of fixed length,
 * and one thread that does nothing else, and exists only where somebody wants to hear,
 * makes text of it and calls (api/log.c). When the ring is full the record is
 * counted, and the number told in its place. Why not the application's own threads,
 * when they call in? One that only loads and stores never does.
 *
 * The ring has a mutex of its own, a leaf of the lock order: nothing is taken under it. It
 * may be taken by the fault handler, since who holds it has all signals blocked.
 * event is set by who puts a record in, under the mutex, and reset by the thread,
 * under the mutex and only when the ring is empty, so that none is left lying.
 */
#include "core/engine.h"

void mkw__log(struct mkw_engine *e, enum mkw__log_what what, uint32_t level,
	      const struct mkw__inode *in, uint64_t at, uint64_t len, int error)
{
	struct mkw__log *l = &e->log;

	if (level > atomic_load_explicit(&l->level, memory_order_relaxed))
		return;
	mkw__os_mutex_lock(&l->mutex);
	if (l->count == MKW__LOG_RECORDS) {
		l->dropped++;
	} else {
		l->ring[(l->first + l->count++) % MKW__LOG_RECORDS] =
			(struct mkw__log_record){ .what = what,
						  .level = level,
						  .dev = in ? in->store->dev : 0,
						  .ino = in ? in->store->ino : 0,
						  .at = at,
						  .len = len,
						  .error = error };
	}
	mkw__os_event_set(&l->event);
	mkw__os_mutex_unlock(&l->mutex);
}

bool mkw__log_next(struct mkw_engine *e, struct mkw__log_record *r)
{
	struct mkw__log *l = &e->log;
	bool some, stop;

	for (;;) {
		mkw__os_mutex_lock(&l->mutex);
		some = l->count || l->dropped;
		stop = l->stop;
		if (l->count) {
			*r = l->ring[l->first];
			l->first = (l->first + 1) % MKW__LOG_RECORDS;
			l->count--;
		} else if (l->dropped) {
			/* They came after all that has been told. */
			*r = (struct mkw__log_record){ .what = MKW__LOG_DROPPED,
						       .level = MKW_LOG_WARNING,
						       .at = l->dropped };
			l->dropped = 0;
		} else {
			mkw__os_event_reset(&l->event);
		}
		mkw__os_mutex_unlock(&l->mutex);
		if (some || stop)
			return some;
		mkw__os_event_wait(&l->event);
	}
}

int mkw__log_start(struct mkw_engine *e, uint32_t level, void (*fn)(void *arg))
{
	int r = mkw__os_thread_start(&e->log.thread, "mkw-log", fn, e);

	if (!r)
		atomic_store_explicit(&e->log.level, level,
				      memory_order_relaxed);
	return r;
}

void mkw__log_stop(struct mkw_engine *e)
{
	struct mkw__log *l = &e->log;

	if (!l->thread)
		return;
	mkw__os_mutex_lock(&l->mutex);
	l->stop = true;
	mkw__os_event_set(&l->event);
	mkw__os_mutex_unlock(&l->mutex);
	mkw__os_thread_join(l->thread);
}
