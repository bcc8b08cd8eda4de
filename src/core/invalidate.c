/* SPDX-License-Identifier: MIT */
/*
 * What is cached is forgotten, since the store's data changed elsewhere: somebody else
 * has written to it, a lease has been taken back.
 *
 * As a punch it excludes faults (EXCL_TAKE over whole pages), and waits for what has
 * begun (R4): a fill under way is published before its page is dropped, so that nothing
 * read before the call is installed after it; and it makes messages of stores stale.
 * The store's bytes are left alone, so there are no edges: all of a page goes.
 *
 * Dirty pages are written first, under that lock, which write-protects them: a store that
 * comes later waits, and is made to what the store has then. One that cannot be written
 * stays, dirty, as after any failed write. To discard is for a lease that is lost
 * already: what was not written must not be any more, and a write that is under way is
 * waited for.
 *
 * Whoever changed the data may have made or taken blocks, too: nothing is known of those
 * of the range any more (reserve.c). Credit is given back before the lock, since
 * releasing it waits for others.
 */
#include "core/engine.h"

/* All of [first, end) that is not dirty; nothing becomes so meanwhile. */
static void drop_clean(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	uint64_t dirty;

	while (first < end) {
		mkw__mutex_lock(&in->tree);
		dirty = mkw__page_next_locked(in, first, end, PG_DIRTY_MASK);
		mkw__mutex_unlock(&in->tree);
		if (first < dirty)
			mkw__hole_drop(in, first, dirty);
		first = dirty + (dirty < end);
	}
}

int mkw__invalidate(struct mkw__inode *in, uint64_t off, uint64_t end, bool discard)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, off), last;
	struct mkw__excl x = { .gate = NULL };
	struct mkw__blocks_op take;
	int r;

	mkw__reserve_release(in, true);
	r = mkw__excl_lock(in, &x, off, end,
			   MKW__MUTANT(INVALIDATE_SHARES) ? EXCL_READ : EXCL_TAKE,
			   false);
	if (r)
		return r;
	/* Past the end there is nothing; who moves it waits, where that matters. */
	last = mkw__pages_up(e, mkw__min(end, atomic_load_explicit(&in->size,
							memory_order_acquire)));
	if (first >= last)
		goto unlock;
	if (!discard && in->writable && !MKW__MUTANT(INVALIDATE_UNWRITTEN))
		r = mkw__wb_pages_locked(in, first, last);
	mkw__page_wait(in, first, last);
	mkw__reserve_take(in, &take, off, end);
	if (discard ? !MKW__MUTANT(INVALIDATE_KEEPS_DIRTY) :
		      MKW__MUTANT(INVALIDATE_UNWRITTEN))
		mkw__hole_drop(in, first, last);
	else
		drop_clean(in, first, last);
	mkw__reserve_took(in, &take, off, end, TOOK_NOTHING_KNOWN);
unlock:
	mkw__excl_unlock(in, &x);
	return r;
}
