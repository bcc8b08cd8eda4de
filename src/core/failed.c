/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages that could not be written (G5).
 *
 * A page whose write failed is DIRTY and PG_FAILED: it can be loaded and stored to, is
 * tried again at each sync and once in a writeback age (alone, so that one bad
 * block does not hold back its neighbours), and is PG_FAILED until a write of it
 * succeeds, or it is punched, truncated or discarded.
 *
 * They take memory that nobody can get back. So when the engine has more of them
 * than failed_max, a file that has some may make no more pages dirty: its stores
 * and writes fail, with the error that its last write met. Other files go on.
 */
#include "core/engine.h"

static int refused_locked(struct mkw__inode *in)
{
	struct mkw_engine *e = in->engine;

	return in->failed &&
	       atomic_load_explicit(&e->count.failed_pages,
				    memory_order_relaxed) >= e->failed_max ?
		       in->write_error : 0;
}

int mkw__failed_admit_locked(struct mkw__inode *in, uint64_t first,
			     uint64_t *end)
{
	uint64_t idx = first;
	int r = refused_locked(in);

	if (!r)
		return 0;
	/* What is dirty already costs nothing more. */
	while (idx < *end && pg_in(mkw__page_get_locked(in, idx), PG_DIRTY_MASK))
		idx++;
	*end = idx;
	return idx > first ? 0 : r;
}

/* The next run of failed pages of one error; its end, or `end`: none. */
static uint64_t next_run_locked(struct mkw__inode *in, uint64_t *first,
				uint64_t end, int *error)
{
	uint64_t idx = *first;

	while ((idx = mkw__page_next_locked(in, idx, end, PG_DIRTY_MASK)) < end &&
	       !(mkw__page_get_locked(in, idx) & PG_FAILED))
		idx++;
	*first = idx;
	*error = mkw__page_error_locked(in, idx);
	while (idx < end && (mkw__page_get_locked(in, idx) & PG_FAILED) &&
	       mkw__page_error_locked(in, idx) == *error)
		idx++;
	return idx;
}

size_t mkw__failed_list(struct mkw__inode *in, uint64_t off,
			struct mkw_failed *vec, size_t n)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, off), end, size, from;
	size_t found = 0;
	int error;

	mkw__mutex_lock(&in->tree);
	size = atomic_load_explicit(&in->size, memory_order_acquire);
	while (found < n &&
	       (end = next_run_locked(in, &first, mkw__pages_up(e, size),
				      &error)) > first) {
		from = mkw__max(off, first << e->page_shift);
		vec[found++] = (struct mkw_failed){
			.off = from,
			.len = mkw__min(end << e->page_shift, size) - from,
			.error = error,
		};
		first = end;
	}
	mkw__mutex_unlock(&in->tree);
	return found;
}

int64_t mkw__failed_discard(struct mkw__inode *in, uint64_t off, uint64_t len)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__pages_up(e, off), last, end, size;
	struct mkw__excl x = { .gate = NULL };
	int64_t total = 0;
	int r, error;

	r = mkw__excl_lock(in, &x, off, off + len, EXCL_TAKE, false);
	if (r)
		return r;
	size = atomic_load_explicit(&in->size, memory_order_acquire);
	last = off + len >= size ? mkw__pages_up(e, size) :
				   mkw__page_of(e, off + len);
	if (first < last)
		mkw__page_wait(in, first, last);
	while (first < last) {
		mkw__mutex_lock(&in->tree);
		end = MKW__MUTANT(DISCARD_DROPS_ALL) ? last :
			next_run_locked(in, &first, last, &error);
		mkw__mutex_unlock(&in->tree);
		if (end == first)
			break;
		mkw__hole_drop(in, first, end);
		total += (int64_t)((end - first) << e->page_shift);
		first = end;
	}
	mkw__excl_unlock(in, &x);
	return total;
}
