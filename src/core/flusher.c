/* SPDX-License-Identifier: MIT */
/*
 * The flusher: one thread for writeback and reclaim.
 *
 * It wakes when somebody kicks it (frames are getting few, a fault waits for the
 * pool, a lock was released that a waiting fault may profit from) and at a
 * fraction of the writeback age. It try-locks everything of a file, so it never
 * stands in anybody's way, and what it could not get it leaves for the next time.
 * A kick that comes in the midst of a pass ends no more than the pass's own wait for a
 * write; so kicks are counted, and none that came since the pass began is slept over.
 * Somebody who waits for the pool is not forgotten: what reclaim failed on is a
 * lock that is held, and its release kicks again (mkw__pool_poke()), or a device
 * write of its own, which it waits for.
 *
 * Dirty pages. From dirty_low on (a part of the cache small enough that a sync is
 * over soon) it writes all that it can get, whatever its age. Beyond dirty_high those
 * who make pages dirty wait for it: a write call before it takes a lock, a fault
 * parked, each once, until a pass is over. Not until the number has fallen: what
 * cannot be written must not stop them for ever.
 */
#include <errno.h>

#include "core/engine.h"

/* The next inode after a pass over `seen` ones, pinned; the list is rotated. */
static struct mkw__inode *next_inode(struct mkw_engine *e)
{
	struct mkw__inode *in;

	mkw__mutex_lock(&e->pool.mutex);
	in = TAILQ_FIRST(&e->inodes);
	if (in) {
		TAILQ_REMOVE(&e->inodes, in, link);
		TAILQ_INSERT_TAIL(&e->inodes, in, link);
		if (!mkw__inode_pin_locked(in))
			in = NULL;
	}
	mkw__mutex_unlock(&e->pool.mutex);
	return in;
}

static size_t count_inodes(struct mkw_engine *e)
{
	struct mkw__inode *in;
	size_t n = 0;

	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(in, &e->inodes, link)
		n++;
	mkw__mutex_unlock(&e->pool.mutex);
	return n;
}

/* Writes back inodes that have been dirty for age_ns; pages started. */
static size_t write_old(struct mkw_engine *e, struct mkw__wb *wb,
			uint64_t age_ns)
{
	bool hopeless = mkw__pool_is_hopeless(e);
	uint64_t now = mkw__os_now_ns();
	size_t total = 0;

	for (size_t n = count_inodes(e); n; n--) {
		struct mkw__inode *in = next_inode(e);
		bool due;

		if (!in)
			continue;
		mkw__mutex_lock(&in->tree);
		due = in->dirty && now - in->dirty_since_ns >= age_ns;
		if (due)
			in->dirty_since_ns = now;
		/* What failed just now fails again, but where all depends on it. */
		wb->retry = in->failed &&
			    (hopeless ||
			     now - in->retried_ns >= e->writeback_age_ns);
		if (wb->retry)
			in->retried_ns = now;
		due |= wb->retry;
		mkw__mutex_unlock(&in->tree);
		if (due)
			total += mkw__wb_range(wb, in, 0, UINT64_MAX);
		if (mkw__reserve_idle(in, now, e->writeback_age_ns)) {
			/* A punch waits for direct writes to end, and those in
			 * flight may end in this task's loop alone. */
			mkw__wb_drain(wb);
			mkw__reserve_release(in, false);
		}
		mkw__inode_unpin(in);
	}
	mkw__wb_drain(wb);
	return total;
}

/* ---- dirty pages ------------------------------------------------------ */

/* Those that can be written, as far as is known. */
static uint64_t dirty_pages(struct mkw_engine *e)
{
	uint64_t failed = atomic_load_explicit(&e->count.failed_pages,
					       memory_order_relaxed);
	uint64_t dirty = atomic_load_explicit(&e->count.dirty_pages,
					      memory_order_relaxed);

	failed += atomic_load_explicit(&e->count.pinned_write_pages,
				       memory_order_relaxed);
	/* Several counts, not read at once. */
	return dirty > failed ? dirty - failed : 0;
}

void mkw__flusher_dirtied(struct mkw_engine *e, uint64_t dirty)
{
	if (dirty == e->pool.dirty_low + 1 || dirty == e->pool.dirty_high + 1)
		mkw__flusher_kick(e);
}

bool mkw__flusher_is_behind(struct mkw_engine *e)
{
	return dirty_pages(e) > e->pool.dirty_high;
}

bool mkw__flusher_throttle_enqueue(struct mkw_engine *e, struct mkw__waiter *w)
{
	struct mkw__pool *p = &e->pool;
	bool queued;

	if (!mkw__flusher_is_behind(e))
		return false;
	mkw__mutex_lock(&p->mutex);
	queued = mkw__flusher_is_behind(e);
	if (queued)
		TAILQ_INSERT_TAIL(&p->dirty_waiters, w, link);
	mkw__mutex_unlock(&p->mutex);
	if (queued)
		mkw__flusher_kick(e);
	return queued;
}

void mkw__flusher_throttle(struct mkw_engine *e)
{
	struct mkw__sleeper s;

	mkw__sleeper_init(&s);
	if (mkw__flusher_throttle_enqueue(e, &s.waiter))
		mkw__sleeper_wait(&s);
}

/* A pass is over: what could be written is being written, or has been. */
static void let_writers_go(struct mkw_engine *e)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__pool *p = &e->pool;

	mkw__mutex_lock(&p->mutex);
	TAILQ_CONCAT(&woken, &p->dirty_waiters, link);
	mkw__mutex_unlock(&p->mutex);
	mkw__waiters_wake(&woken);
}

void mkw__flusher_quiesce(struct mkw_engine *e, bool on)
{
	struct mkw__pool *p = &e->pool;
	struct mkw__sleeper s;

	atomic_store_explicit(&e->flusher.quiet, on, memory_order_release);
	if (!on)
		return;
	/* The pass that ends next may have begun before, and is the last one. */
	mkw__sleeper_init(&s);
	mkw__mutex_lock(&p->mutex);
	TAILQ_INSERT_TAIL(&p->dirty_waiters, &s.waiter, link);
	mkw__mutex_unlock(&p->mutex);
	mkw__flusher_kick(e);
	mkw__sleeper_wait(&s);
}

static void pass(struct mkw_engine *e, struct mkw__wb *wb)
{
	size_t want = mkw__pool_shortage(e);

	if (want && mkw__reclaim(e, want) < want && write_old(e, wb, 0))
		mkw__reclaim(e, want);
	write_old(e, wb, dirty_pages(e) > e->pool.dirty_low ?
				 0 : e->writeback_age_ns);
	mkw__pool_give_up(e);
}

static void flusher_main(void *arg)
{
	struct mkw_engine *e = arg;
	struct mkw__flusher *fl = &e->flusher;
	struct mkw__wb wb = { .engine = e, .loop = fl->loop };
	uint32_t seen = 0, kicks;

	while (!atomic_load_explicit(&fl->stop, memory_order_acquire)) {
		/* Acquire: what was queued before such a kick is seen by the pass. */
		kicks = atomic_load_explicit(&fl->kicks, memory_order_acquire);
		if (kicks == seen || MKW__MUTANT(KICK_SLEPT_OVER))
			mkw__os_loop_wait(fl->loop, e->writeback_age_ns / 4 + 1);
		seen = atomic_load_explicit(&fl->kicks, memory_order_acquire);
		if (!atomic_load_explicit(&fl->quiet, memory_order_acquire))
			pass(e, &wb);
		let_writers_go(e);
	}
}

int mkw__flusher_start(struct mkw_engine *e)
{
	struct mkw__flusher *fl = &e->flusher;
	int r;

	r = mkw__os_loop_create(MKW__BUFFERS, &fl->loop);
	if (r)
		return r;
	r = mkw__os_thread_start(&fl->thread, "mkw-flusher", flusher_main, e);
	if (r)
		mkw__os_loop_destroy(fl->loop);
	return r;
}

void mkw__flusher_stop(struct mkw_engine *e)
{
	atomic_store_explicit(&e->flusher.stop, true, memory_order_release);
	mkw__os_loop_kick(e->flusher.loop);
	mkw__os_thread_join(e->flusher.thread);
}

void mkw__flusher_fini(struct mkw_engine *e)
{
	mkw__os_loop_destroy(e->flusher.loop);
}

void mkw__flusher_kick(struct mkw_engine *e)
{
	atomic_fetch_add_explicit(&e->flusher.kicks, 1, memory_order_release);
	mkw__os_loop_kick(e->flusher.loop);
}
