/* SPDX-License-Identifier: MIT */
/*
 * Questions about a file: where its data and holes are, what is cached.
 *
 * Data is what the store has, and every dirty page: its block may not exist yet,
 * but its bytes are not a hole's. The dirty pages are looked at before the store is
 * asked: a writeback that ends in between then shows in both, not in neither.
 */
#include <errno.h>

#include "core/engine.h"

static uint64_t next_dirty(struct mkw__inode *in, uint64_t idx, uint64_t end)
{
	uint64_t found;

	mkw__mutex_lock(&in->tree);
	found = mkw__page_next_locked(in, idx, end, PG_DIRTY_MASK);
	mkw__mutex_unlock(&in->tree);
	return found;
}

static uint64_t dirty_run_end(struct mkw__inode *in, uint64_t idx, uint64_t end)
{
	mkw__mutex_lock(&in->tree);
	while (idx < end &&
	       pg_in(mkw__page_get_locked(in, idx), PG_DIRTY_MASK))
		idx++;
	mkw__mutex_unlock(&in->tree);
	return idx;
}

static int64_t seek_data(struct mkw__inode *in, uint64_t off, uint64_t size)
{
	struct mkw_engine *e = in->engine;
	uint64_t pages = mkw__pages_up(e, size);
	uint64_t dirty = next_dirty(in, mkw__page_of(e, off), pages);
	int64_t stored = mkw__store_seek(in->store, off, true);

	if ((stored < 0 && stored != -ENXIO) || dirty >= pages)
		return stored;
	dirty = mkw__max(off, dirty << e->page_shift);
	return stored < 0 ? (int64_t)dirty :
			    (int64_t)mkw__min(dirty, (uint64_t)stored);
}

static int64_t seek_hole(struct mkw__inode *in, uint64_t off, uint64_t size)
{
	struct mkw_engine *e = in->engine;
	uint64_t pages = mkw__pages_up(e, size), idx, end;
	int64_t hole;

	while (off < size) {
		idx = mkw__page_of(e, off);
		end = dirty_run_end(in, idx, pages);
		if (end > idx) {
			off = end << e->page_shift;
			continue;
		}
		hole = mkw__store_seek(in->store, off, false);
		/* A hole right here, of a page that was not dirty before. */
		if (hole < 0 || (uint64_t)hole == off)
			return hole;
		off = (uint64_t)hole;
	}
	return (int64_t)size;
}

int64_t mkw__query_seek(struct mkw__inode *in, uint64_t off, bool data)
{
	struct mkw__excl x = { .gate = NULL };
	uint64_t size;
	int64_t r;

	r = mkw__excl_lock(in, &x, 0, MKW__RANGE_MAX, EXCL_READ, false);
	if (r)
		return r;
	size = atomic_load_explicit(&in->size, memory_order_acquire);
	if (off >= size)
		r = -ENXIO;
	else if (data)
		r = seek_data(in, off, size);
	else
		r = seek_hole(in, off, size);
	mkw__excl_unlock(in, &x);
	return r;
}

void mkw__query_resident(struct mkw__inode *in, uint64_t first, size_t n,
			 unsigned char *vec)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t word;

		mkw__mutex_lock(&in->tree);
		word = mkw__page_get_locked(in, first + i);
		mkw__mutex_unlock(&in->tree);
		vec[i] = (pg_in(word, PG_PRESENT_MASK) ? MKW_RESIDENT : 0) |
			 (pg_in(word, PG_DIRTY_MASK) ? MKW_DIRTY : 0) |
			 (word & PG_MAPPED ? MKW_MAPPED : 0);
	}
}
