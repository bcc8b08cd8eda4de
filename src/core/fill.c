/* SPDX-License-Identifier: MIT */
/*
 * Filling the cache: absent pages become valid frames.
 *
 *   mkw__fill_begin_locked()  ABSENT -> FILLING, a frame taken from the pool
 *   (the bytes are read into a buffer of ours, or are the caller's own)
 *   mkw__fill_publish()       frames appear, each in one step
 *   mkw__page_end_run()       FILLING -> CLEAN, DIRTY or, after a failure, ABSENT
 *
 * A FILLING page belongs to whoever fills it. Others wait for the page, or read
 * the store past it. It begins under the fault lock or under the iolock (R6), and
 * that lock is held until the end: so no operation that takes data away can come
 * between the read and the publication.
 */
#include <errno.h>
#include <string.h>

#include "core/engine.h"

size_t mkw__fill_begin_locked(struct mkw__inode *in, uint64_t idx, size_t max,
			      bool yield)
{
	size_t n = 0, got;

	while (n < max && !mkw__page_get_locked(in, idx + n))
		n++;
	got = mkw__pool_frames_get(in->engine, n, yield);
	for (n = 0; n < got && mkw__page_prepare_locked(in, idx + n); n++)
		mkw__page_set_locked(in, idx + n, PG_FILLING);
	if (n < got)
		mkw__pool_frames_put(in->engine, got - n);
	return n;
}

void mkw__fill_zero_tail(struct mkw__inode *in, uint64_t idx, size_t n,
			 unsigned char *mem)
{
	struct mkw_engine *e = in->engine;
	uint64_t start = idx << e->page_shift, len = n << e->page_shift;
	uint64_t size = atomic_load_explicit(&in->size, memory_order_acquire);
	uint64_t valid = size > start ? mkw__min(size - start, len) : 0;

	memset(mem + valid, 0, len - valid);
}

int mkw__fill_publish(struct mkw__inode *in, uint64_t idx, size_t n,
		      const void *src, size_t *done)
{
	struct mkw_engine *e = in->engine;
	uint64_t off = idx << e->page_shift;
	size_t len = n << e->page_shift, at = 0, step;
	unsigned tries = 0;
	int r = 0;

	while (at < len) {
		step = 0;
		r = mkw__os_frames_publish(in->frames, off + at,
					   mkw__os_at(src, at), len - at,
					   &step);
		at += step;
		if (r == -EEXIST) {
			/* A stray frame: the state says that it is not valid. */
			r = MKW__MUTANT(STRAY_BELIEVED) ? 0 :
				mkw__os_frames_write(in->frames, off + at,
						     mkw__os_at(src, at),
						     e->page);
			if (!r)
				at += e->page;
		} else if (r == -EAGAIN) {
			mkw__os_step("publish again");
			r = 0;
		} else if (r == -ENOMEM && ++tries < 100) {
			r = 0;
		}
		if (r)
			break;
	}
	*done = at >> e->page_shift;
	mkw__map_lift_poison(in, idx, idx + *done);
	return r;
}

size_t mkw__fill_publish_mapped(struct mkw__inode *in, struct mkw__os_mmu *mmu,
				uintptr_t addr, uint64_t idx, size_t n,
				const void *src, bool wake)
{
	unsigned shift = in->engine->page_shift;
	unsigned flags = MKW__PTE_WP | (wake ? 0 : MKW__PTE_DONTWAKE);
	struct mkw__range_req table;
	const struct mkw__map *m;
	uint64_t first, end;
	size_t done = 0;

	/* Poison in other mappings must be lifted: the long way does that. */
	if (!n || atomic_load_explicit(&in->poisoned, memory_order_acquire))
		return 0;
	mkw__map_table_lock(&table);
	m = mkw__map_find(addr);
	if (m && m->mmu == mmu && m->inode == in) {
		mkw__map_pages(m, &first, &end);
		end = mkw__min(end, idx + n);
		if (mkw__map_addr(m, idx) == addr)
			mkw__os_pte_copy(mmu, addr, src, (end - idx) << shift,
					 flags, &done);
	}
	mkw__map_table_unlock(&table);
	return done >> shift;
}

void mkw__fill_tell(struct mkw__inode *in, uint64_t idx, size_t n, int error)
{
	struct mkw_engine *e = in->engine;

	MKW__PROBE4(fill, in->store->ino, idx << e->page_shift, n, error);
	if (error)
		mkw__log(e, MKW__LOG_FILL_FAILED, MKW_LOG_WARNING, in,
			 idx << e->page_shift, n << e->page_shift, error);
}

int mkw__fill_sync(struct mkw__inode *in, uint64_t idx, size_t max)
{
	struct mkw_engine *e = in->engine;
	struct mkw__buf *buf = mkw__pool_buf_wait(e);
	struct mkw__ra_req req = { .count = 0 };
	size_t n, done = 0;
	bool absent;
	int r;

	mkw__mutex_lock(&in->tree);
	absent = !mkw__page_get_locked(in, idx);
	n = mkw__fill_begin_locked(in, idx, mkw__min(max, MKW__IO_PAGES),
				   true);
	if (n)
		mkw__ra_missed_locked(in, idx, n, &req);
	mkw__mutex_unlock(&in->tree);
	mkw__ra_post(in, &req, true);
	if (!n) {
		mkw__pool_buf_put(e, buf);
		return absent ? -ENOBUFS : 0;
	}
	r = mkw__store_read(in->store, idx << e->page_shift, buf->mem,
				 n << e->page_shift);
	mkw__count(&e->count.fills, 1);
	mkw__count(&e->count.fill_pages, n);
	if (!r) {
		mkw__fill_zero_tail(in, idx, n, buf->mem);
		r = mkw__fill_publish(in, idx, n, buf->mem, &done);
	}
	if (r)
		mkw__count(&e->count.fill_errors, 1);
	mkw__fill_tell(in, idx, n, r);
	mkw__page_end_run(in, idx, done, PG_CLEAN);
	mkw__page_end_run(in, idx + done, n - done, PG_ABSENT);
	mkw__pool_buf_put(e, buf);
	return done ? (int)done : r;
}
