/* SPDX-License-Identifier: MIT */
/*
 * The pool: what an engine has only so much of.
 *
 *   frames   a count; the memory itself is in the files' frame objects. Taken
 *            when a page leaves ABSENT, given back when it returns there.
 *   leaves   of page words, from one reservation, so that the pager and the
 *            fault handler allocate nothing (R3). Each has a page that is not
 *            ABSENT, so there are never more than frames; where pages are sparse
 *            the leaves may run out first, which is then what reclaim frees.
 *   buffers  for I/O of up to MKW__IO_PAGES pages. Whoever holds one finishes
 *            without waiting for a lock of a file, so a task may sleep for one
 *            even while it holds such locks - unless it holds buffers itself,
 *            with I/O in flight that only it can complete.
 *
 * A fault waits for a frame and a buffer in the queue of waiters and holds nothing
 * meanwhile (R7). They are all woken when there are all of them, and look again (R2).
 * `waited` is true while the queue is not empty: a task that releases a lock of a file
 * reads it without the mutex (mkw__pool_poke()), since reclaim may have failed on just
 * that lock. Its partner is the store in mkw__pool_enqueue(): reclaim runs after that
 * store (the kick follows it), and fails on the lock before its holder releases it,
 * which orders the store before the holder's load through the lock's own mutex.
 * `missed` is the same for the flusher's writes: it is stored before the try-lock that
 * decides.
 */
#include <errno.h>
#include <string.h>

#include "core/engine.h"

#define METADATA_BYTES ((uint64_t)16 << 20)

int mkw__pool_init(struct mkw_engine *e, uint64_t cache_bytes)
{
	struct mkw__pool *p = &e->pool;
	size_t buf_len = MKW__IO_PAGES * e->page;

	mkw__mutex_init(&p->mutex, MKW__RANK_POOL);
	TAILQ_INIT(&p->bufs);
	TAILQ_INIT(&p->free_leaves);
	TAILQ_INIT(&p->active);
	TAILQ_INIT(&p->inactive);
	TAILQ_INIT(&p->waiters);
	TAILQ_INIT(&p->buf_waiters);
	TAILQ_INIT(&p->dirty_waiters);
	p->frames_max = cache_bytes >> e->page_shift;
	if (MKW__TEST(cache_frames))
		p->frames_max = MKW__TEST(cache_frames);
	p->low = p->frames_max / 16;
	p->high = p->frames_max / 8;
	p->dirty_high = mkw__max(p->frames_max / 4, 32);
	if (MKW__TEST(dirty_pages))
		p->dirty_high = MKW__TEST(dirty_pages);
	p->dirty_low = mkw__min(p->dirty_high / 2,
				mkw__max(p->frames_max / 32, 16));

	/* One for each page at most; but where those are few and far between, no
	 * more than keeps memory beside the pages within 0.5 % of them, and 32
	 * MiB, half of which may be buffers. */
	p->leaves = mkw__min(p->frames_max + 1,
			     (METADATA_BYTES + (p->frames_max << e->page_shift) /
					       200) /
				     (sizeof(*p->leaf_mem) +
				      2 * sizeof(*p->shown)));
	p->leaf_mem = mkw__os_reserve(p->leaves * sizeof(*p->leaf_mem));
	p->buf_mem = mkw__os_reserve_io(MKW__BUFFERS * buf_len);
	p->shown_mask = 1;
	while (p->shown_mask < p->leaves)
		p->shown_mask *= 2;
	if (e->glance)
		p->shown = mkw__os_reserve(p->shown_mask * sizeof(*p->shown));
	p->shown_mask--;
	if (!p->leaf_mem || !p->buf_mem || (e->glance && !p->shown)) {
		mkw__pool_fini(e);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < MKW__BUFFERS; i++) {
		p->buf[i].mem = p->buf_mem + i * buf_len;
		TAILQ_INSERT_TAIL(&p->bufs, &p->buf[i], link);
	}
	p->bufs_free = MKW__BUFFERS;
	return 0;
}

void mkw__pool_fini(struct mkw_engine *e)
{
	struct mkw__pool *p = &e->pool;

	while (p->idle_loops)
		mkw__os_loop_destroy(p->idle_loop[--p->idle_loops]);
	if (p->leaf_mem)
		mkw__os_unreserve(p->leaf_mem,
				  p->leaves * sizeof(*p->leaf_mem));
	if (p->shown)
		mkw__os_unreserve(p->shown,
				  (p->shown_mask + 1) * sizeof(*p->shown));
	if (p->buf_mem)
		mkw__os_unreserve(p->buf_mem,
				  MKW__BUFFERS * MKW__IO_PAGES * e->page);
}

static bool has_all(const struct mkw__pool *p)
{
	return p->frames_used < p->frames_max && !TAILQ_EMPTY(&p->bufs) &&
	       p->leaves_used < p->leaves;
}

uint64_t mkw__pool_shortage(struct mkw_engine *e)
{
	struct mkw__pool *p = &e->pool;
	uint64_t frames, leaves, want = 0;

	mkw__mutex_lock(&p->mutex);
	frames = p->frames_max - p->frames_used;
	leaves = p->leaves - p->leaves_used;
	if (frames < p->low || !frames)
		want = mkw__max(p->high, 1) - frames;
	/* Where they run out first, a leaf has about one page. */
	if (leaves < p->leaves / 16 || !leaves)
		want = mkw__max(want, mkw__max(p->leaves / 8, 1) - leaves);
	mkw__mutex_unlock(&p->mutex);
	return want;
}

/*
 * Takes those who can go on off the queues; mutex held. Nobody else: two faults
 * that each find the pool short and give back a buffer would wake each other for
 * ever.
 */
static void take_waiters(struct mkw__pool *p, struct mkw__waiters *woken)
{
	if (!TAILQ_EMPTY(&p->bufs))
		TAILQ_CONCAT(woken, &p->buf_waiters, link);
	if (!has_all(p))
		return;
	TAILQ_CONCAT(woken, &p->waiters, link);
	atomic_store_explicit(&p->waited, false, memory_order_relaxed);
}

/* Every frame in use holds what cannot be written; mutex held. */
static bool is_hopeless(struct mkw_engine *e)
{
	return !has_all(&e->pool) && !TAILQ_EMPTY(&e->pool.bufs) &&
	       e->pool.frames_used <=
		       atomic_load_explicit(&e->count.failed_pages,
					    memory_order_relaxed);
}

bool mkw__pool_is_hopeless(struct mkw_engine *e)
{
	bool hopeless;

	mkw__mutex_lock(&e->pool.mutex);
	hopeless = is_hopeless(e);
	mkw__mutex_unlock(&e->pool.mutex);
	return hopeless;
}

void mkw__pool_give_up(struct mkw_engine *e)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__pool *p = &e->pool;

	mkw__mutex_lock(&p->mutex);
	if (is_hopeless(e)) {
		TAILQ_CONCAT(&woken, &p->waiters, link);
		atomic_store_explicit(&p->waited, false, memory_order_relaxed);
	}
	mkw__mutex_unlock(&p->mutex);
	mkw__waiters_wake(&woken);
}

bool mkw__pool_enqueue(struct mkw_engine *e, struct mkw__waiter *w)
{
	struct mkw__pool *p = &e->pool;
	bool queued;

	mkw__mutex_lock(&p->mutex);
	queued = !has_all(p);
	if (queued) {
		TAILQ_INSERT_TAIL(&p->waiters, w, link);
		atomic_store_explicit(&p->waited, true, memory_order_relaxed);
	}
	mkw__mutex_unlock(&p->mutex);
	if (queued)
		mkw__flusher_kick(e);
	return queued;
}

void mkw__pool_poke(struct mkw_engine *e)
{
	struct mkw__pool *p = &e->pool;

	if (atomic_load_explicit(&p->waited, memory_order_relaxed) ||
	    (atomic_load_explicit(&p->missed, memory_order_relaxed) &&
	     atomic_exchange_explicit(&p->missed, false, memory_order_relaxed)))
		mkw__flusher_kick(e);
}

/* ---- frames ----------------------------------------------------------- */

size_t mkw__pool_frames_get(struct mkw_engine *e, size_t want, bool yield)
{
	struct mkw__pool *p = &e->pool;
	bool low;

	mkw__mutex_lock(&p->mutex);
	want = mkw__min(want, p->frames_max - p->frames_used);
	if (yield && !TAILQ_EMPTY(&p->waiters))
		want = 0;
	p->frames_used += want;
	low = p->frames_max - p->frames_used < p->low;
	mkw__mutex_unlock(&p->mutex);
	if (low)
		mkw__flusher_kick(e);
	return want;
}

void mkw__pool_frames_put(struct mkw_engine *e, size_t n)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__pool *p = &e->pool;

	mkw__mutex_lock(&p->mutex);
	p->frames_used -= n;
	take_waiters(p, &woken);
	mkw__mutex_unlock(&p->mutex);
	mkw__waiters_wake(&woken);
}

/* ---- leaves ----------------------------------------------------------- */

struct mkw__leaf *mkw__pool_leaf_get(struct mkw__inode *in, uint64_t first)
{
	struct mkw__pool *p = &in->engine->pool;
	struct mkw__leaf *leaf;
	uint64_t life;
	bool few;

	mkw__mutex_lock(&p->mutex);
	leaf = TAILQ_FIRST(&p->free_leaves);
	if (leaf)
		TAILQ_REMOVE(&p->free_leaves, leaf, lru);
	else if (p->leaves_made < p->leaves)
		leaf = &p->leaf_mem[p->leaves_made++];
	if (leaf) {
		life = atomic_load_explicit(&leaf->life,
					    memory_order_relaxed);
		memset(leaf, 0, sizeof(*leaf));
		atomic_store_explicit(&leaf->life, life, memory_order_relaxed);
		/* On the list reclaim can see it. */
		leaf->inode = in;
		leaf->first = first;
		TAILQ_INSERT_TAIL(&p->active, leaf, lru);
		p->leaves_used++;
	}
	few = p->leaves - p->leaves_used < p->leaves / 16;
	mkw__mutex_unlock(&p->mutex);
	if (few)
		mkw__flusher_kick(in->engine);
	return leaf;
}

void mkw__pool_leaf_put(struct mkw_engine *e, struct mkw__leaf *leaf)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__pool *p = &e->pool;

	mkw__mutex_lock(&p->mutex);
	TAILQ_REMOVE(leaf->inactive ? &p->inactive : &p->active, leaf, lru);
	leaf->inode = NULL;
	p->leaves_used--;
	TAILQ_INSERT_HEAD(&p->free_leaves, leaf, lru);
	take_waiters(p, &woken);
	mkw__mutex_unlock(&p->mutex);
	mkw__waiters_wake(&woken);
}

/* ---- buffers ---------------------------------------------------------- */

struct mkw__buf *mkw__pool_buf_spare(struct mkw_engine *e, unsigned leave)
{
	struct mkw__pool *p = &e->pool;
	struct mkw__buf *buf = NULL;

	mkw__mutex_lock(&p->mutex);
	if (p->bufs_free > leave) {
		buf = TAILQ_FIRST(&p->bufs);
		TAILQ_REMOVE(&p->bufs, buf, link);
		p->bufs_free--;
	}
	mkw__mutex_unlock(&p->mutex);
	return buf;
}

struct mkw__buf *mkw__pool_buf_get(struct mkw_engine *e)
{
	return mkw__pool_buf_spare(e, 0);
}

struct mkw__buf *mkw__pool_buf_wait(struct mkw_engine *e)
{
	struct mkw__pool *p = &e->pool;
	struct mkw__buf *buf;

	while (!(buf = mkw__pool_buf_get(e))) {
		struct mkw__sleeper s;
		bool queued;

		mkw__sleeper_init(&s);
		mkw__mutex_lock(&p->mutex);
		queued = TAILQ_EMPTY(&p->bufs);
		if (queued)
			TAILQ_INSERT_TAIL(&p->buf_waiters, &s.waiter, link);
		mkw__mutex_unlock(&p->mutex);
		if (queued)
			mkw__sleeper_wait(&s);
	}
	return buf;
}

void mkw__pool_buf_put(struct mkw_engine *e, struct mkw__buf *buf)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__pool *p = &e->pool;

	mkw__mutex_lock(&p->mutex);
	/* The one used last is still in the processor's cache. */
	TAILQ_INSERT_HEAD(&p->bufs, buf, link);
	p->bufs_free++;
	take_waiters(p, &woken);
	mkw__mutex_unlock(&p->mutex);
	mkw__waiters_wake(&woken);
}
