/* SPDX-License-Identifier: MIT */
/*
 * Moving all bytes from an offset on: collapse range, insert range.
 *
 * The recipe (DESIGN 7): EXCL_TAKE from the offset's page to infinity, since every
 * page from there on will be another part of the file; under it, what is dirty
 * there is written back, which write-protects it, so that from then on a store faults
 * and waits for the lock; R4; the store; the frames dropped; the lengths, in
 * the order of size.c: an access past the old end cannot succeed before there
 * is something behind it, nor one past the new end once there is nothing.
 *
 * A page that cannot be written stays where it is, and so does everything: the
 * error is returned. If the store says that it cannot do it (-EOPNOTSUPP,
 * -EINVAL) nothing has changed. After another error of it nobody knows how far it
 * got: the frames go, which are all clean, and what the store has is what there is.
 *
 * Credit (reserve.c) is given back before the lock, since releasing it waits for
 * others; what faults reserve in between moves along, as blocks that nobody has
 * written to, and is forgotten.
 */
#include <errno.h>

#include "core/engine.h"

static int shift_locked(struct mkw__inode *in, uint64_t off, uint64_t len,
			bool out)
{
	uint64_t old = atomic_load_explicit(&in->size, memory_order_acquire);
	uint64_t first = mkw__page_of(in->engine, off), size;
	struct mkw__blocks_op take;
	int r = 0;

	if (off >= old || (out && len >= old - off))
		return -EINVAL;
	if (!(out ? in->store->ops.collapse : in->store->ops.insert))
		return -EOPNOTSUPP;
	if (!out && len > (uint64_t)INT64_MAX - old)
		return -EFBIG;
	size = out ? old - len : old + len;
	if (!MKW__MUTANT(SHIFT_UNWRITTEN))
		r = mkw__wb_pages_locked(in, first, UINT64_MAX);
	if (!r && !out)
		r = mkw__size_frames(in, size);
	if (r)
		return r;
	mkw__page_wait(in, first, UINT64_MAX);
	mkw__reserve_take(in, &take, off, UINT64_MAX);
	r = out ? mkw__store_collapse(in->store, off, len) :
		  mkw__store_insert(in->store, off, len);
	if (r != -EOPNOTSUPP && r != -EINVAL && !MKW__MUTANT(SHIFT_LEAVES_FRAMES))
		mkw__hole_drop(in, first, UINT64_MAX);
	if (out ? !r : r)
		mkw__size_cut_frames(in, r ? old : size);
	if (!r)
		mkw__size_become(in, size);
	mkw__reserve_took(in, &take, off, UINT64_MAX, TOOK_NOTHING_KNOWN);
	return r;
}

int mkw__shift(struct mkw__inode *in, uint64_t off, uint64_t len, bool out)
{
	struct mkw__range_req gate;
	struct mkw__excl x = { .gate = &gate };
	int r;

	mkw__freeze_enter(in, &gate, false);
	mkw__reserve_release(in, true);
	r = mkw__excl_lock(in, &x, off,
			   MKW__MUTANT(SHIFT_NARROW) ? off + len : MKW__RANGE_MAX,
			   EXCL_TAKE, false);
	if (!r) {
		r = shift_locked(in, off, len, out);
		mkw__excl_unlock(in, &x);
	}
	mkw__freeze_leave(in, &gate);
	return r;
}
