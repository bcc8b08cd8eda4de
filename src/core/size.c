/* SPDX-License-Identifier: MIT */
/*
 * The size of a file: growing, shrinking, allocating.
 *
 * Whoever changes the size holds the iolock exclusively from the last page (of the
 * smaller size) to infinity, and looks at the size again once he has it (R2).
 *
 *   grow    wait until the old last page is not being written (a file system
 *           zeroes the rest of it from what it has of it); zero its tail in its
 *           frame (a store through a mapping may have put bytes past the end
 *           there), then the store's length, the frames' length, the size: an
 *           access past the old end cannot succeed before there is something
 *           behind it. EXCL_TAKE, although nothing is taken: a snapshot for
 *           writeback must not be cut off at the old size once the tail is
 *           zeroed, and no fault fill the page in between.
 *   shrink  EXCL_TAKE, R4, the page that is cut written back (hole.c), the
 *           store's length first (if that fails nothing was lost), then the
 *           frames: their tail zeroed, those past the end dropped; the frames'
 *           length, from where on the kernel gives SIGBUS; the size.
 */
#include <errno.h>

#include "core/engine.h"

static uint64_t size_of(struct mkw__inode *in)
{
	return atomic_load_explicit(&in->size, memory_order_acquire);
}

/* ---- who is told ---------------------------------------------------------- */

static void tell_locked(struct mkw__inode *in)
{
	struct mkw_file *file;

	TAILQ_FOREACH(file, &in->size_watchers, watch)
		if (!file->size_changed) {
			file->size_changed = true;
			mkw__os_flag_raise(file->size_flag);
		}
}

/* For a bug that tells first. */
static void tell(struct mkw__inode *in)
{
	mkw__mutex_lock(&in->tree);
	tell_locked(in);
	mkw__mutex_unlock(&in->tree);
}

/* Both in one hold of the mutex, and so does who looks: no notice is lost, or late. */
void mkw__size_become(struct mkw__inode *in, uint64_t size)
{
	if (MKW__MUTANT(SIZE_TOLD_EARLY))
		tell(in);
	mkw__mutex_lock(&in->tree);
	atomic_store_explicit(&in->size, size, memory_order_release);
	if (!MKW__MUTANT(SIZE_TOLD_EARLY))
		tell_locked(in);
	mkw__mutex_unlock(&in->tree);
}

uint64_t mkw__size_seen(struct mkw_file *file)
{
	struct mkw__inode *in = file->inode;
	uint64_t size = size_of(in);

	mkw__mutex_lock(&in->tree);
	if (!MKW__MUTANT(SIZE_SEEN_EARLY))
		size = size_of(in);
	if (file->size_changed) {
		file->size_changed = false;
		mkw__os_flag_lower(file->size_flag);
	}
	mkw__mutex_unlock(&in->tree);
	return size;
}

int mkw__size_flag(struct mkw_file *file, struct mkw__os_flag **out)
{
	struct mkw__inode *in = file->inode;
	struct mkw__os_flag *flag;
	int r = mkw__os_flag_create(&flag);

	if (r)
		return r;
	mkw__mutex_lock(&in->tree);
	if (!file->size_flag) {
		file->size_flag = flag;
		flag = NULL;
		TAILQ_INSERT_TAIL(&in->size_watchers, file, watch);
	}
	*out = file->size_flag;
	mkw__mutex_unlock(&in->tree);
	/* There was one already. */
	if (flag)
		mkw__os_flag_destroy(flag);
	return 0;
}

int mkw__size_fd(struct mkw_file *file)
{
	struct mkw__os_flag *flag;
	int r = mkw__size_flag(file, &flag);

	return r ? r : mkw__os_flag_fd(flag);
}

void mkw__size_unwatch(struct mkw_file *file)
{
	struct mkw__inode *in = file->inode;

	if (!file->size_flag)
		return;
	mkw__mutex_lock(&in->tree);
	TAILQ_REMOVE(&in->size_watchers, file, watch);
	mkw__mutex_unlock(&in->tree);
	mkw__os_flag_destroy(file->size_flag);
}

/* ---- the lock of who changes it -------------------------------------------- */

int mkw__size_lock(struct mkw__inode *in, struct mkw__excl *x, uint64_t off,
		   uint64_t end, enum mkw__excl_kind kind, bool nowait,
		   uint64_t *size)
{
	uint64_t mask = in->engine->page - 1;
	uint64_t from, to;
	int r;

	for (;;) {
		*size = size_of(in);
		from = end > *size ? mkw__min(off, *size & ~mask) : off;
		to = end > *size && !MKW__MUTANT(GROWTH_NARROW) ? MKW__RANGE_MAX : end;
		r = mkw__excl_lock(in, x, from, to,
				   end > *size && kind != EXCL_TAKE ? EXCL_HOLD :
								      kind,
				   nowait);
		if (r)
			return r;
		if (MKW__MUTANT(SIZE_NOT_RECHECKED) || MKW__MUTANT(GROWTH_NARROW))
			return 0;
		/* With a lock to infinity nobody else can have moved it. */
		*size = size_of(in);
		if ((end <= *size) == (to != MKW__RANGE_MAX) &&
		    (end <= *size || from <= (*size & ~mask)))
			return 0;
		mkw__excl_unlock(in, x);
	}
}

int mkw__size_lock_end(struct mkw__inode *in, struct mkw__excl *x, bool nowait,
		       uint64_t *size)
{
	uint64_t mask = in->engine->page - 1, from, early = size_of(in);
	int r;

	for (;;) {
		from = size_of(in) & ~mask;
		r = mkw__excl_lock(in, x, from, MKW__RANGE_MAX,
				   mkw__atomic(in) && !MKW__MUTANT(ATOMIC_SHORT_END) ?
					   EXCL_TAKE : EXCL_HOLD,
				   nowait);
		if (r)
			return r;
		/* Others that waited before us may have moved it. */
		*size = size_of(in);
		if (MKW__MUTANT(APPEND_EARLY_END))
			*size = early;
		if (from <= (*size & ~mask))
			return 0;
		mkw__excl_unlock(in, x);
	}
}

static uint64_t frames_len(struct mkw__inode *in, uint64_t size)
{
	return mkw__pages_up(in->engine, size) << in->engine->page_shift;
}

static void zero_tail(struct mkw__inode *in, uint64_t size)
{
	if ((size & (in->engine->page - 1)) && !MKW__MUTANT(TRUNCATE_KEEPS_TAIL))
		mkw__hole_zero_frame(in, size, frames_len(in, size));
}

int mkw__size_frames(struct mkw__inode *in, uint64_t size)
{
	return mkw__os_frames_resize(in->frames, frames_len(in, size));
}

void mkw__size_cut_frames(struct mkw__inode *in, uint64_t size)
{
	int r = mkw__size_frames(in, size);

	if (r)
		mkw__os_panic("frames cannot be made shorter: error %d", -r);
}

int mkw__size_grow_locked(struct mkw__inode *in, uint64_t size)
{
	uint64_t old = size_of(in);
	int r;

	/* Growing is a write of the store's last page, too. */
	if (old & (in->engine->page - 1))
		mkw__page_wait(in, mkw__page_of(in->engine, old),
			       mkw__pages_up(in->engine, old));
	zero_tail(in, old);
	r = mkw__store_resize(in->store, size);
	if (r)
		return r;
	r = mkw__size_frames(in, size);
	if (r) {
		mkw__store_resize(in->store, old);
		return r;
	}
	/* Until here an access past the old end was SIGBUS, and over. */
	mkw__excl_count_take(in);
	mkw__size_become(in, size);
	return 0;
}

int mkw__size_shrink_locked(struct mkw__inode *in, uint64_t size)
{
	struct mkw_engine *e = in->engine;
	uint64_t old = size_of(in);
	struct mkw__blocks_op take;
	int r;

	if (size >= old)
		return 0;
	mkw__page_wait(in, mkw__page_of(e, size), UINT64_MAX);
	r = mkw__hole_write_edge(in, size);
	if (r)
		return r;
	mkw__reserve_take(in, &take, size, UINT64_MAX);
	r = mkw__store_resize(in->store, size);
	if (r) {
		mkw__reserve_took(in, &take, size, UINT64_MAX,
				  TOOK_NOTHING_KNOWN);
		return r;
	}
	mkw__reserve_edge(in, size);
	zero_tail(in, size);
	mkw__hole_drop(in, mkw__pages_up(e, size), UINT64_MAX);
	mkw__size_cut_frames(in, size);
	mkw__size_become(in, size);
	mkw__reserve_took(in, &take, size, UINT64_MAX, TOOK_AWAY);
	return 0;
}

int mkw__size_set(struct mkw__inode *in, uint64_t size)
{
	struct mkw__range_req gate;
	struct mkw__excl x = { .gate = &gate };
	uint64_t old;
	int r;

	mkw__freeze_enter(in, &gate, false);
	for (;;) {
		old = size_of(in);
		r = mkw__excl_lock(in, &x, mkw__min(old, size), MKW__RANGE_MAX,
				   size < old ? EXCL_TAKE : EXCL_HOLD, false);
		if (r)
			goto leave;
		if (size_of(in) == old)
			break;
		mkw__excl_unlock(in, &x);
	}
	if (size > old)
		r = mkw__size_grow_locked(in, size);
	else if (size < old)
		r = mkw__size_shrink_locked(in, size);
	mkw__excl_unlock(in, &x);
leave:
	mkw__freeze_leave(in, &gate);
	return r;
}

int mkw__size_allocate_locked(struct mkw__inode *in, uint64_t off, uint64_t end)
{
	struct mkw__blocks_op take;
	int r;

	mkw__reserve_take(in, &take, off, end);
	r = mkw__store_allocate(in->store, off, end - off);
	mkw__reserve_took(in, &take, off, end,
			  r ? TOOK_NOTHING_KNOWN : TOOK_ALLOCATED);
	return r;
}

int mkw__size_allocate(struct mkw__inode *in, uint64_t off, uint64_t len,
		       bool keep_size)
{
	struct mkw__range_req gate;
	struct mkw__excl x = { .gate = &gate };
	uint64_t size;
	int r;

	mkw__freeze_enter(in, &gate, false);
	/* It keeps reservations of faults out of the range. */
	r = mkw__size_lock(in, &x, off, off + len, EXCL_HOLD, false, &size);
	if (r)
		goto leave;
	r = mkw__size_allocate_locked(in, off, off + len);
	if (!r && !keep_size && off + len > size)
		r = mkw__size_grow_locked(in, off + len);
	mkw__excl_unlock(in, &x);
leave:
	mkw__freeze_leave(in, &gate);
	return r;
}
