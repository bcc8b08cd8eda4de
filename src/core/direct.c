/* SPDX-License-Identifier: MIT */
/*
 * Direct reads and writes: straight between the caller's buffer and the store,
 * and coherent with the cache all the same.
 *
 *   read    iolock shared. Pages with a valid frame come from the frame, the
 *           others from the store into the buffer. A dirty page has a frame, so
 *           nothing need be flushed; an absent page's bytes are the store's (a
 *           fill or writeback that begins meanwhile changes that to a value of a
 *           later moment of this same read).
 *   write   what punch takes (EXCL_TAKE), then R4: nothing of the range is being
 *           filled or written back. Absent pages: store write from the
 *           buffer. Present pages: through one private copy to the store, then
 *           into the frame, so that both get the same bytes even if the caller
 *           changes its buffer meanwhile. They stay present (a reader would fault
 *           for nothing), and CLEAN or DIRTY as they were: bytes beside the
 *           range that only the frame has are written back as ever.
 *
 * A store that is not to touch the caller's memory (MKW_STORE_USER_MEMORY) gets a copy.
 *
 * When the store write fails nobody knows what the store holds: the frames of the
 * range become DIRTY, and their bytes will be written again.
 */
#include <errno.h>

#include "core/engine.h"

/* The run of pages from pos that are all present, or all not. */
static bool run_at(struct mkw__inode *in, uint64_t pos, uint64_t end,
		   size_t *len)
{
	struct mkw_engine *e = in->engine;
	uint64_t idx = mkw__page_of(e, pos), stop = mkw__pages_up(e, end);
	bool present;

	mkw__mutex_lock(&in->tree);
	present = pg_in(mkw__page_get_locked(in, idx), PG_PRESENT_MASK);
	if (!present)
		idx = mkw__page_next_locked(in, idx, stop, PG_PRESENT_MASK);
	while (present && idx < stop &&
	       pg_in(mkw__page_get_locked(in, idx), PG_PRESENT_MASK))
		idx++;
	mkw__mutex_unlock(&in->tree);
	*len = mkw__min(end, idx << e->page_shift) - pos;
	return present;
}

/* Absent pages, through a private copy. */
static int read_copied(struct mkw__inode *in, void *dst, uint64_t pos, size_t len)
{
	struct mkw__buf *buf = mkw__pool_buf_wait(in->engine);
	struct mkw__ubuf u;
	int r = mkw__store_read(in->store, pos, buf->mem, len);

	if (!r)
		r = mkw__ubuf_begin(&u, dst, len);
	if (!r) {
		r = mkw__os_user_write(dst, buf->mem, len);
		mkw__ubuf_end(&u);
	}
	mkw__pool_buf_put(in->engine, buf);
	return r;
}

/* The store's bytes straight into the caller's memory, or the frames'. */
static int read_straight(struct mkw__inode *in, bool present, void *dst,
			 uint64_t pos, size_t len)
{
	struct mkw__ubuf u;
	int r = mkw__ubuf_begin(&u, dst, len);

	if (r)
		return r;
	r = present ? mkw__os_frames_read(in->frames, pos, dst, len) :
		      mkw__store_read(in->store, pos, dst, len);
	mkw__ubuf_end(&u);
	return r;
}

ssize_t mkw__direct_read(struct mkw__inode *in, void *buf, size_t len,
			 uint64_t off, unsigned flags)
{
	struct mkw_engine *e = in->engine;
	size_t done = 0, n;
	bool present;
	int r = 0;

	while (done < len && !r) {
		void *dst = mkw__os_at(buf, done);

		present = run_at(in, off + done, off + len, &n);
		if (!present && (flags & MKW_NOWAIT)) {
			r = -EAGAIN;
			break;
		}
		if (present || in->store->user_memory) {
			r = read_straight(in, present, dst, off + done, n);
		} else {
			n = mkw__min(n, (MKW__IO_PAGES - 1) * e->page);
			r = read_copied(in, dst, off + done, n);
		}
		if (r == -EXDEV)
			return r;
		if (!r && !present)
			mkw__map_lift_poison(in, mkw__page_of(e, off + done),
					     mkw__pages_up(e, off + done + n));
		if (!r)
			done += n;
	}
	return done ? (ssize_t)done : r;
}

/* Locks a run of present pages; faults are kept out, so only mappings move. */
static void lock_run(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	uint64_t idx = first;

	mkw__mutex_lock(&in->tree);
	while (idx < end) {
		uint32_t word = mkw__page_get_locked(in, idx);

		if (word & PG_LOCKED) {
			mkw__page_sleep_locked(in, idx);
			continue;
		}
		mkw__page_set_locked(in, idx++, word | PG_LOCKED);
	}
	mkw__mutex_unlock(&in->tree);
}

/* Up to a buffer's worth of pages, present or not, through a private copy. */
static int write_copied(struct mkw__inode *in, bool present, const void *src,
			uint64_t pos, size_t len)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, pos);
	uint64_t end = mkw__pages_up(e, pos + len);
	struct mkw__buf *buf = mkw__pool_buf_wait(e);
	struct mkw__ubuf u;
	int r;

	r = mkw__ubuf_begin(&u, src, len);
	if (!r) {
		r = mkw__os_user_read(buf->mem, src, len);
		mkw__ubuf_end(&u);
	}
	if (r)
		goto out;
	r = mkw__store_write(in->store, pos, buf->mem, len);
	if (r) {
		mkw__page_dirty_range(in, first, end);
	} else if (present && !MKW__MUTANT(DIRECT_LEAVES_FRAMES)) {
		lock_run(in, first, end);
		mkw__os_frames_write(in->frames, pos, buf->mem, len);
		mkw__page_unlock_run(in, first, end - first, 0);
	}
out:
	mkw__pool_buf_put(e, buf);
	return r;
}

static int write_absent(struct mkw__inode *in, const void *src, uint64_t pos,
			size_t len)
{
	struct mkw__ubuf u;
	int r = mkw__ubuf_begin(&u, src, len);

	if (r)
		return r;
	r = mkw__store_write(in->store, pos, src, len);
	mkw__ubuf_end(&u);
	return r;
}

ssize_t mkw__direct_write(struct mkw__inode *in, const void *buf, size_t len,
			  uint64_t off, unsigned flags)
{
	struct mkw_engine *e = in->engine;
	uint64_t end = off + len;
	struct mkw__blocks_op op;
	size_t done = 0, n;
	bool present;
	int r = 0;

	if (flags & MKW_NOWAIT)
		return -EAGAIN;		/* the device is always waited for */
	mkw__page_wait(in, mkw__page_of(e, off), mkw__pages_up(e, end));
	if (MKW__MUTANT(DIRECT_DROPS_FRAMES))
		mkw__hole_drop(in, mkw__page_of(e, off),
			       mkw__pages_up(e, end));
	r = mkw__reserve_present(in, mkw__page_of(e, off),
				 mkw__pages_up(e, end));
	if (r)
		return r;
	mkw__reserve_take(in, &op, off, end);
	while (done < len && !r) {
		const void *src = mkw__os_at(buf, done);

		present = run_at(in, off + done, end, &n);
		if (present || !in->store->user_memory) {
			/* A buffer holds whole pages from the first one's start. */
			n = mkw__min(n, (MKW__IO_PAGES - 1) * e->page);
			r = write_copied(in, present, src, off + done, n);
		} else {
			r = write_absent(in, src, off + done, n);
		}
		if (!r)
			done += n;
	}
	mkw__reserve_took(in, &op, off, end,
			  r ? TOOK_NOTHING_KNOWN : TOOK_ALLOCATED);
	mkw__map_lift_poison(in, mkw__page_of(e, off), mkw__pages_up(e, end));
	return done ? (ssize_t)done : r;
}
