/* SPDX-License-Identifier: MIT */
/*
 * Buffered reads and writes, and the frame of direct ones.
 *
 *   read    iolock shared; runs of present pages are copied from the frames,
 *           absent ones filled first. No page lock is needed to copy out: a
 *           frame goes away only under the iolock, exclusively.
 *   write   iolock exclusive, to infinity if it grows the file; per run: blocks
 *           reserved, page lock, DIRTY, copy in. Absent pages that are wholly overwritten are
 *           published straight from the caller's buffer; others filled first.
 *
 * R7. Where the cache has no room the operation goes past it: absent pages are
 * read from the store through an I/O buffer, and written through one. That
 * needs a fault not to fill the page meanwhile, so the write takes what faults
 * take (EXCL_TAKE); a read needs nothing: the page was absent while it
 * held the iolock, so what the store holds then or later, up to the read's end,
 * is a value of a moment within the read.
 *
 * A short read of what is cached is tried without any of this first: glance.c.
 *
 * R0. Every copy to or from the caller's memory lies between mkw__ubuf_begin()
 * and _end(), which fails with -EXDEV where the memory is a mapping; then the
 * operation is undone or ended there, and ubuf.c starts it anew with a private
 * copy. It comes before the page lock: whoever has a page does not wait for it.
 */
#include <errno.h>

#include "core/engine.h"

static uint64_t byte_of(const struct mkw__inode *in, uint64_t idx)
{
	return idx << in->engine->page_shift;
}

/*
 * The end of the run of pages from idx whose states are in mask; tree held. A page
 * with readahead's mark begins a run.
 */
static uint64_t run_end_locked(struct mkw__inode *in, uint64_t idx,
			       uint64_t end, unsigned mask)
{
	uint64_t first = idx;

	for (; idx < end; idx++) {
		uint32_t word = mkw__page_get_locked(in, idx);

		if (!pg_in(word, mask) || (idx > first && (word & PG_MARK)))
			break;
	}
	return idx;
}

/* ---- read ------------------------------------------------------------- */

/* The next piece of a read that is served in one way. */
struct piece {
	uint64_t end;		/* bytes */
	bool present;
};

/* Finds the piece at pos; waits for a page that is being filled. */
static int piece_at(struct mkw__inode *in, uint64_t pos, uint64_t end,
		    bool nowait, struct piece *p)
{
	uint64_t idx = mkw__page_of(in->engine, pos);
	uint64_t stop = mkw__pages_up(in->engine, end);
	struct mkw__ra_req ahead = { .count = 0 };
	uint32_t word;
	unsigned mask;
	int r = 0;

	mkw__mutex_lock(&in->tree);
	while (PG_STATE(word = mkw__page_get_locked(in, idx)) == PG_FILLING &&
	       !nowait)
		mkw__page_sleep_locked(in, idx);
	p->present = pg_in(word, PG_PRESENT_MASK);
	mask = p->present ? PG_PRESENT_MASK : PG_BIT(PG_ABSENT);
	mkw__ra_mark_locked(in, idx, &ahead);
	p->end = mkw__min(end, byte_of(in, run_end_locked(in, idx, stop, mask)));
	mkw__mutex_unlock(&in->tree);
	mkw__ra_post(in, &ahead, true);
	if (nowait && !p->present)
		r = -EAGAIN;
	return r;
}

static int copy_out(struct mkw__inode *in, void *dst, uint64_t pos, size_t len)
{
	struct mkw__ubuf u;
	int r = mkw__ubuf_begin(&u, dst, len);

	if (r)
		return r;
	r = mkw__os_frames_read(in->frames, pos, dst, len);
	if (!r)
		mkw__glance_learn(in, dst, len, pos);
	mkw__ubuf_end(&u);
	return r;
}

/* Reads [pos, end), absent, from the store past the cache. */
static int read_past(struct mkw__inode *in, void *dst, uint64_t pos,
		     uint64_t end, size_t *len)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = byte_of(in, mkw__page_of(e, pos));
	struct mkw__buf *buf;
	struct mkw__ubuf u;
	int r;

	end = mkw__min(end, first + MKW__IO_PAGES * e->page);
	*len = end - pos;
	buf = mkw__pool_buf_wait(e);
	r = mkw__store_read(in->store, first, buf->mem,
				 byte_of(in, mkw__pages_up(e, end)) - first);
	if (!r)
		r = mkw__ubuf_begin(&u, dst, *len);
	if (!r) {
		r = mkw__os_user_write(dst, buf->mem + (pos - first), *len);
		mkw__ubuf_end(&u);
		mkw__map_lift_poison(in, mkw__page_of(e, pos),
				     mkw__pages_up(e, end));
	}
	mkw__pool_buf_put(e, buf);
	mkw__count(&e->count.cache_bypasses,
		   mkw__pages_up(e, end) - mkw__page_of(e, pos));
	return r;
}

static ssize_t buffered_read(struct mkw__inode *in, unsigned char *buf,
			     size_t len, uint64_t off, unsigned flags)
{
	struct mkw_engine *e = in->engine;
	uint64_t pos = off, end = off + len;
	struct piece p;
	size_t n;
	int r = 0;

	while (pos < end) {
		r = piece_at(in, pos, end, flags & MKW_NOWAIT, &p);
		if (r)
			break;
		n = p.end - pos;
		if (p.present) {
			r = copy_out(in, mkw__os_at(buf, pos - off), pos, n);
		} else {
			uint64_t idx = mkw__page_of(e, pos);
			uint64_t pages = mkw__pages_up(e, p.end) - idx;

			r = mkw__fill_sync(in, idx, pages);
			/* What lies before a bad page can be had. */
			if (r < 0 && r != -ENOBUFS && pages > 1)
				r = mkw__fill_sync(in, idx, 1);
			if (r >= 0)
				continue;
			if (r == -ENOBUFS)
				r = read_past(in, mkw__os_at(buf, pos - off), pos,
					      p.end, &n);
		}
		if (r)
			break;
		pos += n;
	}
	/* A buffer that is a mapping is served anew, as a whole. */
	return r == -EXDEV || pos == off ? r : (ssize_t)(pos - off);
}

/* Segment by segment: len bytes of what u is long. */
static ssize_t read_segments(struct mkw__inode *in, const struct mkw__uio *u,
			     size_t len, uint64_t off, unsigned flags)
{
	size_t done = 0, n = 0;
	ssize_t r = 0;

	for (unsigned i = 0; done < len && r == (ssize_t)n; i++) {
		n = mkw__min(u->iov[i].iov_len, len - done);
		r = flags & MKW_DIRECT ?
			    mkw__direct_read(in, u->iov[i].iov_base, n,
					     off + done, flags) :
			    buffered_read(in, u->iov[i].iov_base, n, off + done,
					  flags);
		done += r > 0 ? (size_t)r : 0;
	}
	return r == -EXDEV || !done ? r : (ssize_t)done;
}

ssize_t mkw__io_read(struct mkw__inode *in, const struct mkw__uio *u,
		     uint64_t off, unsigned flags)
{
	struct mkw__excl x = { .gate = NULL };
	uint64_t size;
	ssize_t r;

	r = mkw__excl_lock(in, &x, off, off + u->len, EXCL_READ,
			   flags & MKW_NOWAIT);
	if (r)
		return r;
	size = atomic_load_explicit(&in->size, memory_order_acquire);
	if (off < size)
		r = read_segments(in, u, mkw__min(u->len, size - off), off,
				  flags);
	mkw__excl_unlock(in, &x);
	return r;
}

/* As much of [pos, end) as is read under one hold of the lock; *next: what follows. */
static int prefetch_window(struct mkw__inode *in, uint64_t pos, uint64_t end,
			   uint64_t *next)
{
	struct mkw__excl x = { .gate = NULL };
	struct mkw_engine *e = in->engine;
	struct piece p;
	int r;

	r = mkw__excl_lock(in, &x, pos, end, EXCL_READ, false);
	if (r)
		return r;
	end = mkw__min(end, atomic_load_explicit(&in->size, memory_order_acquire));
	*next = UINT64_MAX;
	while (pos < end && r >= 0) {
		r = piece_at(in, pos, end, false, &p);
		if (p.present)
			*next = pos = p.end;
		else
			r = mkw__fill_sync(in, mkw__page_of(e, pos),
					   mkw__pages_up(e, p.end) -
						   mkw__page_of(e, pos));
	}
	mkw__excl_unlock(in, &x);
	return r < 0 ? r : 0;
}

int mkw__io_prefetch(struct mkw__inode *in, uint64_t off, uint64_t len)
{
	struct mkw_engine *e = in->engine;
	uint64_t most = byte_of(in, mkw__max(e->pool.frames_max / 2, 1));
	uint64_t pos = off, end = off + mkw__min(len, most);
	int r = 0;

	/* Not all at once: who writes there is to have his turn. */
	while (pos < end && !r)
		r = prefetch_window(in, pos,
				    mkw__min(end, pos + MKW__IO_PAGES * e->page),
				    &pos);
	return r == -ENOBUFS ? 0 : r;
}

/* ---- write ------------------------------------------------------------ */

/* DIRTY_AFTER_COPY: what write_present() does before. */
static void store_to(struct mkw__inode *in, uint64_t idx, uint64_t end)
{
	mkw__mutex_lock(&in->tree);
	for (; idx < end; idx++)
		mkw__page_set_locked(in, idx,
				     pg_stored(mkw__page_get_locked(in, idx)));
	mkw__mutex_unlock(&in->tree);
}

/*
 * Copies into a run of present pages from pos: locks as many as are unlocked,
 * makes them DIRTY, copies. *len: in, what is wanted; out, what was done, 0 when
 * the first page is not as it was any more.
 */
static int write_present(struct mkw__inode *in, const void *src, uint64_t pos,
			 size_t *len)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, pos), idx = first;
	uint64_t end = mkw__min(mkw__pages_up(e, pos + *len),
				first + MKW__IO_PAGES);
	struct mkw__ubuf u;
	uint32_t word;
	int r;

	r = mkw__ubuf_begin(&u, src, *len);
	if (r)
		return r;
	mkw__mutex_lock(&in->tree);
	for (; idx < end; idx++) {
		word = mkw__page_get_locked(in, idx);
		if (!pg_in(word, PG_PRESENT_MASK) || (word & PG_LOCKED) ||
		    !mkw__reserve_has_locked(in, idx, idx + 1))
			break;
		if (!MKW__MUTANT(WRITE_SKIPS_DIRTY) && !MKW__MUTANT(DIRTY_AFTER_COPY))
			word = pg_stored(word);
		mkw__page_set_locked(in, idx, word | PG_LOCKED);
	}
	mkw__mutex_unlock(&in->tree);

	*len = idx > first ? mkw__min(*len, byte_of(in, idx) - pos) : 0;
	if (*len) {
		r = mkw__os_frames_write(in->frames, pos, src, *len);
		if (MKW__MUTANT(DIRTY_AFTER_COPY) && !r)
			store_to(in, first, idx);
		mkw__page_unlock_run(in, first, idx - first, 0);
	}
	mkw__ubuf_end(&u);
	return r;
}

/*
 * Publishes whole absent pages from the caller's memory. *len as above.
 * -ENOBUFS: the cache has no room.
 */
static int write_absent(struct mkw__inode *in, const void *src, uint64_t pos,
			size_t *len)
{
	struct mkw_engine *e = in->engine;
	uint64_t idx = mkw__page_of(e, pos);
	size_t max = mkw__min(*len >> e->page_shift, MKW__IO_PAGES);
	struct mkw__ubuf u;
	size_t n = 0, done = 0;
	bool absent;
	int r;

	r = mkw__ubuf_begin(&u, src, *len);
	if (r)
		return r;
	mkw__mutex_lock(&in->tree);
	while (n < max && mkw__reserve_has_locked(in, idx + n, idx + n + 1))
		n++;
	absent = n && !mkw__page_get_locked(in, idx);
	n = mkw__fill_begin_locked(in, idx, n, true);
	for (size_t i = 0; i < n; i++)
		mkw__reserve_use_locked(in, idx + i);
	mkw__mutex_unlock(&in->tree);
	if (n)
		r = mkw__fill_publish(in, idx, n, src, &done);
	else if (absent)
		r = -ENOBUFS;
	mkw__ubuf_end(&u);
	mkw__page_end_run(in, idx, done,
			  MKW__MUTANT(WRITE_SKIPS_DIRTY) ? PG_CLEAN : PG_DIRTY);
	mkw__page_end_run(in, idx + done, n - done, PG_ABSENT);
	*len = done << e->page_shift;
	return done ? 0 : r;
}

/*
 * Writes part of one or more absent pages through to the store, since the cache
 * has no room. Faults are kept out first, and whether the page is still absent
 * is looked at again (R2): *len 0 then, and it is for the caller to try again.
 */
static int write_past(struct mkw__inode *in, struct mkw__excl *x,
		      const void *src, uint64_t pos, size_t *len)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, pos), idx, stop;
	uint64_t size = atomic_load_explicit(&in->size, memory_order_acquire);
	struct mkw__buf *buf;
	struct mkw__ubuf u;
	struct mkw__blocks_op op;
	size_t bytes;
	int r = 0;

	/* Before the buffer: who has one waits for no lock. */
	mkw__excl_take(in, x);
	mkw__reserve_take(in, &op, pos, pos + *len);
	buf = mkw__pool_buf_wait(e);
	stop = mkw__min(mkw__pages_up(e, pos + *len), first + MKW__IO_PAGES);
	mkw__mutex_lock(&in->tree);
	idx = run_end_locked(in, first, stop, PG_BIT(PG_ABSENT));
	mkw__mutex_unlock(&in->tree);
	*len = idx > first ? mkw__min(*len, byte_of(in, idx) - pos) : 0;
	if (!*len)
		goto out;
	bytes = mkw__min(byte_of(in, idx), size) - byte_of(in, first);
	if (pos != byte_of(in, first) || *len != bytes)
		r = mkw__store_read(in->store, byte_of(in, first),
					 buf->mem, (idx - first) << e->page_shift);
	if (!r)
		r = mkw__ubuf_begin(&u, src, *len);
	if (r)
		goto out;
	r = mkw__os_user_read(buf->mem + (pos - byte_of(in, first)), src, *len);
	mkw__ubuf_end(&u);
	if (!r)
		r = mkw__store_write(in->store, byte_of(in, first),
					  buf->mem, bytes);
	mkw__map_lift_poison(in, first, idx);
	mkw__count(&e->count.cache_bypasses, idx - first);
out:
	mkw__reserve_took(in, &op, pos, pos + *len,
			  r || !*len ? TOOK_NOTHING_KNOWN : TOOK_ALLOCATED);
	mkw__pool_buf_put(e, buf);
	return r;
}

/* One step of a write into the cache at pos, which is not LOCKED nor FILLING. */
static int write_cached(struct mkw__inode *in, bool present, const void *src,
			uint64_t pos, size_t *len, bool nowait)
{
	struct mkw_engine *e = in->engine;
	uint64_t idx = mkw__page_of(e, pos), end;
	int r;

	end = mkw__min(mkw__pages_up(e, pos + *len), idx + MKW__IO_PAGES);
	mkw__mutex_lock(&in->tree);
	r = mkw__failed_admit_locked(in, idx, &end);
	mkw__mutex_unlock(&in->tree);
	if (!r)
		r = mkw__reserve_ensure(in, idx, &end, nowait);
	if (r)
		return r;
	*len = mkw__min(*len, byte_of(in, end) - pos);
	if (present) {
		r = write_present(in, src, pos, len);
	} else if (pos == byte_of(in, idx) && *len >= e->page) {
		r = write_absent(in, src, pos, len);
	} else {
		*len = 0;
		r = nowait ? -EAGAIN : mkw__fill_sync(in, idx, 1);
		if (r > 0)
			r = 0;
	}
	mkw__reserve_unhold(in, idx, end);
	return r;
}

/* One step of a write at pos: *len as above; 0: try again. */
static int write_some(struct mkw__inode *in, struct mkw__excl *x,
		      const void *src, uint64_t pos, size_t *len,
		      unsigned flags)
{
	uint64_t idx = mkw__page_of(in->engine, pos);
	bool nowait = flags & MKW_NOWAIT;
	size_t want = *len;
	uint32_t word;
	int r;

	mkw__mutex_lock(&in->tree);
	word = mkw__page_get_locked(in, idx);
	if ((word & PG_LOCKED) || PG_STATE(word) == PG_FILLING) {
		*len = 0;
		if (!nowait)
			mkw__page_sleep_locked(in, idx);
		mkw__mutex_unlock(&in->tree);
		return nowait ? -EAGAIN : 0;
	}
	mkw__mutex_unlock(&in->tree);
	r = write_cached(in, pg_in(word, PG_PRESENT_MASK), src, pos, len, nowait);
	if (r != -ENOBUFS)
		return r;
	*len = want;
	return nowait ? -EAGAIN : write_past(in, x, src, pos, len);
}

static ssize_t buffered_write(struct mkw__inode *in, struct mkw__excl *x,
			      const unsigned char *buf, size_t len,
			      uint64_t off, unsigned flags)
{
	size_t done = 0, n;
	int r = 0;

	while (done < len && !r) {
		n = len - done;
		if (MKW__MUTANT(ATOMIC_LETS_GO))
			n = mkw__min(n, in->engine->page);
		if (MKW__MUTANT(ATOMIC_LETS_GO) && done && mkw__atomic(in)) {
			mkw__excl_unlock(in, x);
			mkw__excl_lock(in, x, x->io.start, x->io.end, EXCL_TAKE,
				       false);
		}
		r = write_some(in, x, mkw__os_at(buf, done), off + done, &n,
			       flags);
		if (!r)
			done += n;
	}
	return done ? (ssize_t)done : r;
}

static ssize_t write_segments(struct mkw__inode *in, struct mkw__excl *x,
			      const struct mkw__uio *u, uint64_t off,
			      unsigned flags)
{
	size_t done = 0, n = 0;
	ssize_t r = 0;

	for (unsigned i = 0; done < u->len && r == (ssize_t)n; i++) {
		n = mkw__min(u->iov[i].iov_len, u->len - done);
		r = flags & MKW_DIRECT ?
			    mkw__direct_write(in, u->iov[i].iov_base, n,
					      off + done, flags) :
			    buffered_write(in, x, u->iov[i].iov_base, n,
					   off + done, flags);
		done += r > 0 ? (size_t)r : 0;
	}
	return done ? (ssize_t)done : r;
}

/* A look at the caller's memory before anything is changed for its sake. */
static int check_source(const struct mkw__uio *u)
{
	struct mkw__ubuf b;
	size_t done = 0, n;
	int r = 0;

	for (unsigned i = 0; done < u->len && !r; i++) {
		n = mkw__min(u->iov[i].iov_len, u->len - done);
		r = mkw__ubuf_begin(&b, u->iov[i].iov_base, n);
		if (!r)
			mkw__ubuf_end(&b);
		done += n;
	}
	return r;
}

/* At the end of the file, whose size is locked: may the write be there? */
static int check_end(struct mkw__inode *in, uint64_t size, size_t len,
		     unsigned flags)
{
	if (len > (uint64_t)INT64_MAX - size)
		return -EFBIG;
	return (flags & MKW_DIRECT) && size % in->store->direct_align ?
		       -EINVAL : 0;
}

ssize_t mkw__io_write(struct mkw__inode *in, const struct mkw__uio *u,
		      uint64_t *at, unsigned flags)
{
	bool nowait = flags & MKW_NOWAIT;
	uint64_t off = *at, size;
	size_t len = u->len;
	struct mkw__range_req gate;
	struct mkw__excl x = { .gate = &gate };
	ssize_t r;
	int r2;

	if (!(flags & (MKW_NOWAIT | MKW_DIRECT)))
		mkw__flusher_throttle(in->engine);
	r = check_source(u);
	if (r)
		return r;
	r = mkw__freeze_enter(in, &gate, nowait);
	if (r)
		return r;
	if (flags & MKW_APPEND)
		r = mkw__size_lock_end(in, &x, nowait, &size);
	else
		r = mkw__size_lock(in, &x, off, off + len,
				   (flags & MKW_DIRECT) || mkw__atomic(in) ?
					   EXCL_TAKE : EXCL_WRITE,
				   nowait, &size);
	if (r)
		goto leave;
	if (flags & MKW_APPEND) {
		*at = off = size;
		r = check_end(in, size, len, flags);
	}
	if (r)
		goto unlock;
	/* Growing asks the file system, which may wait. */
	if (off + len > size)
		r = flags & MKW_NOWAIT ? -EAGAIN :
					 mkw__size_grow_locked(in, off + len);
	if (!r)
		r = write_segments(in, &x, u, off, flags);
	/* What was not written is not to lengthen the file. */
	if (off + len > size && r < (ssize_t)len && !nowait) {
		mkw__excl_take(in, &x);
		r2 = mkw__size_shrink_locked(in, r > 0 ? mkw__max(size, off + r) :
							 size);
		if (r2 && r > 0)
			r = r2;
	}
unlock:
	mkw__excl_unlock(in, &x);
leave:
	mkw__freeze_leave(in, &gate);
	return r;
}
