/* SPDX-License-Identifier: MIT */
/*
 * Taking bytes away and leaving the size: punch hole, zero range; and the pieces of
 * it that truncate and growth use.
 *
 * The recipe (DESIGN 7): EXCL_TAKE over the range rounded out to pages, so that no
 * fault can fill or map a page of it; R4, so that nothing begun before still
 * reads or writes the store; edges that are dirty, written back (G7); the store,
 * exactly the bytes asked for (it zeroes the edges itself); then the frames: whole
 * pages dropped, edges zeroed. An edge that is not cached needs nothing: its next
 * fill reads what the store made of it.
 *
 * If the store fails, other than by not having the operation, nobody knows how
 * far it got: no frame is dropped, and those there are become DIRTY.
 */
#include <errno.h>

#include "core/engine.h"

void mkw__hole_zero_frame(struct mkw__inode *in, uint64_t off, uint64_t end)
{
	uint64_t idx = mkw__page_of(in->engine, off);
	uint32_t word;

	if (MKW__MUTANT(PUNCH_KEEPS_EDGES))
		return;
	mkw__mutex_lock(&in->tree);
	for (;;) {
		word = mkw__page_get_locked(in, idx);
		if (!(word & PG_LOCKED) && PG_STATE(word) != PG_FILLING)
			break;
		mkw__page_sleep_locked(in, idx);
	}
	if (!pg_in(word, PG_PRESENT_MASK)) {
		mkw__mutex_unlock(&in->tree);
		return;
	}
	mkw__page_set_locked(in, idx, word | PG_LOCKED);
	mkw__mutex_unlock(&in->tree);
	mkw__os_frames_zero(in->frames, off, end - off);
	mkw__page_unlock_run(in, idx, 1, 0);
}

/*
 * Locks a run of present pages at or after *idx, a leaf's worth at most; how many.
 * Waits for locked ones. Under the policy none a page may be FILLING: it is not in
 * the cache yet, and is passed over - which is how the kernel of 2012 lost.
 */
static size_t lock_run(struct mkw__inode *in, uint64_t *idx, uint64_t end)
{
	size_t n = 0;
	uint32_t word;

	mkw__mutex_lock(&in->tree);
	for (;;) {
		*idx = mkw__page_next_locked(in, *idx, end,
					     PG_PRESENT_MASK);
		if (*idx >= end)
			break;
		if (!(mkw__page_get_locked(in, *idx) & PG_LOCKED))
			break;
		mkw__page_sleep_locked(in, *idx);
	}
	while (*idx + n < end && n < MKW__LEAF_PAGES) {
		word = mkw__page_get_locked(in, *idx + n);
		if (!pg_in(word, PG_PRESENT_MASK) || (word & PG_LOCKED))
			break;
		mkw__page_set_locked(in, *idx + n++, word | PG_LOCKED);
	}
	mkw__mutex_unlock(&in->tree);
	return n;
}

void mkw__hole_drop(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	struct mkw_engine *e = in->engine;
	uint64_t idx = first;
	size_t n;

	while ((n = lock_run(in, &idx, end))) {
		int r;

		if (MKW__MUTANT(PUNCH_LEAVES_FRAMES)) {
			mkw__page_unlock_run(in, idx, n, 0);
			idx += n;
			continue;
		}
		mkw__glance_expel(in, idx, n);
		r = mkw__os_frames_drop(in->frames, idx << e->page_shift,
					n << e->page_shift);
		if (r)
			mkw__os_panic("frames cannot be dropped: error %d", -r);
		mkw__page_end_run(in, idx, n, PG_ABSENT);
		idx += n;
	}
	/* Poison outlives a punch of the frames. */
	mkw__map_lift_poison(in, first, mkw__min(end, mkw__pages_up(e,
			atomic_load_explicit(&in->size, memory_order_acquire))));
}

/* The frames of [off, end), now that the store's bytes are zero. */
static void drop_bytes(struct mkw__inode *in, uint64_t off, uint64_t end)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__pages_up(e, off), last = mkw__page_of(e, end);
	uint64_t size = atomic_load_explicit(&in->size, memory_order_acquire);

	/* To the file's end is to the end of its last page. */
	if (end >= size)
		last = mkw__pages_up(e, end);
	if (first > last) {
		mkw__hole_zero_frame(in, off, end);
		return;
	}
	if (off & (e->page - 1))
		mkw__hole_zero_frame(in, off, first << e->page_shift);
	if (end > last << e->page_shift)
		mkw__hole_zero_frame(in, last << e->page_shift, end);
	if (first < last)
		mkw__hole_drop(in, first, last);
}

/*
 * Writes back the page in whose midst `at` lies, if it is dirty. The store zeroes, or
 * cuts off, a part of that page in the block as it has it; with an older rest the block
 * would hold what the file never held, and show it after a crash (G7).
 *
 * A pinned page is met by one caller alone, who takes back a growth that failed: there the
 * block's bytes from `at` on are zeros that nobody was told of.
 *
 * EXCL_TAKE is held over the page, R4's wait is over. Nothing has changed yet: an error
 * is the operation's own.
 */
int mkw__hole_write_edge(struct mkw__inode *in, uint64_t at)
{
	uint64_t idx = mkw__page_of(in->engine, at);
	bool dirty;

	if (!(at & (in->engine->page - 1)) || MKW__MUTANT(EDGES_UNWRITTEN))
		return 0;
	mkw__mutex_lock(&in->tree);
	dirty = pg_in(mkw__page_get_locked(in, idx), PG_DIRTY_MASK) &&
		!mkw__page_is_pinned_locked(in, idx, true);
	mkw__mutex_unlock(&in->tree);
	return dirty ? mkw__wb_pages_locked(in, idx, idx + 1) : 0;
}

/*
 * EXCL_TAKE is held over [off, end), which lies within the file. blocks: what
 * becomes of them.
 */
static int take_locked(struct mkw__inode *in, uint64_t off, uint64_t end,
		       int (*op)(struct mkw__store *, uint64_t, uint64_t),
		       enum mkw__took blocks)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, off), stop = mkw__pages_up(e, end);
	struct mkw__blocks_op take;
	int r;

	mkw__page_wait(in, first, stop);
	r = mkw__hole_write_edge(in, off);
	if (!r && end < atomic_load_explicit(&in->size, memory_order_acquire))
		r = mkw__hole_write_edge(in, end);
	if (r)
		return r;
	if (blocks == TOOK_ALLOCATED) {
		r = mkw__reserve_present(in, first, stop);
		if (r)
			return r;
	}
	mkw__reserve_take(in, &take, off, end);
	if (MKW__MUTANT(FRAMES_BEFORE_STORE))
		drop_bytes(in, off, end);
	r = op(in->store, off, end - off);
	if (!r && blocks == TOOK_AWAY) {
		mkw__reserve_edge(in, off);
		mkw__reserve_edge(in, end);
	}
	if (!r)
		drop_bytes(in, off, end);
	else if (r != -EOPNOTSUPP)
		mkw__page_dirty_range(in, first, stop);
	/* Not before: a page that is still dirty would seem to use new blocks. */
	mkw__reserve_took(in, &take, off, end, r ? TOOK_NOTHING_KNOWN : blocks);
	return r;
}

int mkw__hole_punch(struct mkw__inode *in, uint64_t off, uint64_t len)
{
	struct mkw__range_req gate;
	struct mkw__excl x = { .gate = &gate };
	uint64_t end;
	int r;

	mkw__freeze_enter(in, &gate, false);
	r = mkw__excl_lock(in, &x, off, off + len, EXCL_TAKE, false);
	if (r)
		goto leave;
	end = mkw__min(off + len,
		       atomic_load_explicit(&in->size, memory_order_acquire));
	if (off < end)
		r = take_locked(in, off, end, mkw__store_punch,
				TOOK_AWAY);
	mkw__excl_unlock(in, &x);
leave:
	mkw__freeze_leave(in, &gate);
	return r;
}

int mkw__hole_zero(struct mkw__inode *in, uint64_t off, uint64_t len,
		   bool keep_size)
{
	struct mkw__range_req gate;
	struct mkw__excl x = { .gate = &gate };
	uint64_t size, end;
	int r;

	mkw__freeze_enter(in, &gate, false);
	r = mkw__size_lock(in, &x, off, off + len, EXCL_TAKE, false, &size);
	if (r)
		goto leave;
	end = mkw__min(off + len, size);
	/*
	 * Past the old end it is allocated, and zero by being new. That comes first: it
	 * may fail, or not be had, when nothing has been changed yet.
	 */
	if (off + len > size)
		r = mkw__size_allocate_locked(in, mkw__max(off, size),
					      off + len);
	if (!r && off < end)
		r = take_locked(in, off, end, mkw__store_zero,
				TOOK_ALLOCATED);
	if (!r && off + len > size && !keep_size)
		r = mkw__size_grow_locked(in, off + len);
	mkw__excl_unlock(in, &x);
leave:
	mkw__freeze_leave(in, &gate);
	return r;
}
