/* SPDX-License-Identifier: MIT */
/*
 * Writeback: dirty pages to the store.
 *
 *   1  fault lock shared over the run (R6): the flusher by try-lock, a task that
 *      must have the pages written waits
 *   2  page lock; DIRTY -> WRITEBACK
 *   3  every mapping of pages that may be writable is write-protected; if that
 *      fails for any of them the run stays DIRTY
 *   4  snapshot into an I/O buffer; bytes past the file's end are zero in it
 *   5  page unlock, fault lock unlock: stores are let in again (WB_DIRTY)
 *   6  the device write
 *   7  WRITEBACK -> CLEAN, WB_DIRTY -> DIRTY; after an error both are DIRTY, and
 *      the error is kept for the next sync of every handle
 *
 * A page that is WRITEBACK or WB_DIRTY is not taken again before 7, so there are
 * never two writes of it at once. Operations that take data away wait for 7 (R4).
 *
 * A task with writes in flight is the one that completes them (its loop's
 * callbacks). So before it waits for a lock, a page or a buffer it waits for all
 * of its own writes: whoever it waits for may be waiting for one of them.
 */
#include <errno.h>

#include "core/engine.h"

/* The write is over, or was none. */
static void end_write_locked(struct mkw__inode *in, struct mkw__wb_io *w,
			     struct mkw__waiters *woken)
{
	TAILQ_REMOVE(&in->writes, w, link);
	TAILQ_CONCAT(woken, &in->write_waiters, link);
}

static void write_done(struct mkw__os_io *io, int res)
{
	struct mkw__wb_io *w = MKW__CONTAINER(io, struct mkw__wb_io, io);
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__inode *in = w->inode;
	struct mkw_engine *e = in->engine;

	mkw__mutex_lock(&in->tree);
	for (uint64_t i = w->first; i < w->first + w->pages; i++) {
		mkw__page_written_locked(in, i, MKW__MUTANT(WRITE_ERROR_CLEANS) ?
							0 : res);
		mkw__page_wake_locked(in, i, &woken);
	}
	if (res && !MKW__MUTANT(WRITE_ERROR_FORGOTTEN)) {
		in->wb_error = in->write_error = res;
		in->wb_error_seq++;
		in->write_errors++;
	}
	end_write_locked(in, w, &woken);
	mkw__mutex_unlock(&in->tree);
	mkw__waiters_wake(&woken);
	mkw__count(&e->count.writeback_errors, res ? 1 : 0);
	MKW__PROBE4(writeback_end, in->store->ino, w->first << e->page_shift,
		    w->pages, res);
	if (res)
		mkw__log(e, MKW__LOG_WRITEBACK_FAILED, MKW_LOG_ERROR, in,
			 w->first << e->page_shift, w->pages << e->page_shift,
			 res);
	w->wb->in_flight--;
	mkw__pool_buf_put(e, w->buf);
	/* Clean pages can be reclaimed. */
	mkw__pool_poke(e);
	mkw__inode_unpin(in);
}

void mkw__wb_drain(struct mkw__wb *wb)
{
	while (wb->in_flight)
		mkw__os_loop_wait(wb->loop, UINT64_MAX);
}

static struct mkw__buf *get_buf(struct mkw__wb *wb)
{
	/* The flusher is in no hurry: some are left to others. */
	struct mkw__buf *buf =
		mkw__pool_buf_spare(wb->engine,
				    wb->may_block ? 0 : MKW__BUFFERS / 4);

	if (buf)
		return buf;
	mkw__wb_drain(wb);
	return mkw__pool_buf_wait(wb->engine);
}

/* Pages that are pinned for writing are stored to past every protection (pin.c). */
static bool pinned(struct mkw__inode *in, uint64_t idx)
{
	return mkw__page_is_pinned_locked(in, idx, true) &&
	       !MKW__MUTANT(PIN_WRITTEN_BACK);
}

/* Step 1, over pages [first, *end), or over the first alone. */
static bool lock_range(struct mkw__wb *wb, struct mkw__range_lock *rl,
		       struct mkw__range_req *req, uint64_t first,
		       uint64_t *end)
{
	unsigned shift = wb->engine->page_shift;

	if (!rl || mkw__range_trylock(rl, req, first << shift, *end << shift,
				      false))
		return true;
	*end = first + 1;
	if (mkw__range_trylock(rl, req, first << shift, *end << shift, false))
		return true;
	if (!wb->may_block) {
		/* Whoever has it calls the flusher again (pool.c). */
		atomic_store_explicit(&wb->engine->pool.missed, true,
				      memory_order_relaxed);
		return mkw__range_trylock(rl, req, first << shift,
					  *end << shift, false);
	}
	mkw__wb_drain(wb);
	mkw__range_lock(rl, req, first << shift, *end << shift, false);
	return true;
}

/* The write that a buffer is for. */
static struct mkw__wb_io *io_of(struct mkw_engine *e, struct mkw__buf *buf)
{
	return &e->wb_ios[buf - e->pool.buf];
}

/* Steps 2 to 4 from page `first`; how many pages are in the snapshot. */
static size_t snapshot(struct mkw__inode *in, uint64_t first, uint64_t end,
		       struct mkw__buf *buf)
{
	struct mkw_engine *e = in->engine;
	struct mkw__wb_io *w = io_of(e, buf);
	struct mkw__range_req table;
	uint32_t failed = 0;
	bool writable = false;
	size_t n = 0;
	int r = 0;

	mkw__map_table_lock(&table);
	mkw__mutex_lock(&in->tree);
	if (MKW__MUTANT(RANKS_REVERSED)) {
		mkw__map_table_unlock(&table);
		mkw__map_table_lock(&table);
	}
	for (; first + n < end; n++) {
		uint32_t word = mkw__page_get_locked(in, first + n);

		if (PG_STATE(word) != PG_DIRTY || (word & PG_LOCKED) ||
		    pinned(in, first + n) || (n && ((failed | word) & PG_FAILED)))
			break;
		failed |= word & PG_FAILED;
		writable |= word & PG_WRITABLE;
		mkw__page_set_locked(in, first + n,
				     pg_with(word, PG_WRITEBACK) | PG_LOCKED);
	}
	/* With the first page that a sync does not find DIRTY any more. */
	if (n) {
		mkw__pin_spoil_locked(in, first, n);
		w->seq = ++in->write_seq;
		TAILQ_INSERT_TAIL(&in->writes, w, link);
	}
	mkw__mutex_unlock(&in->tree);
	if (n && writable && !MKW__MUTANT(WRITEBACK_KEEPS_WRITABLE))
		r = mkw__map_protect(in, first, n);
	mkw__map_table_unlock(&table);
	if (!n)
		return 0;
	if (r) {
		struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);

		mkw__mutex_lock(&in->tree);
		for (size_t i = 0; i < n; i++) {
			uint32_t word = mkw__page_get_locked(in, first + i);

			mkw__page_set_locked(in, first + i,
					     pg_with(word, PG_DIRTY) &
						     ~PG_LOCKED);
			mkw__page_wake_locked(in, first + i, &woken);
		}
		end_write_locked(in, w, &woken);
		mkw__mutex_unlock(&in->tree);
		mkw__waiters_wake(&woken);
		return 0;
	}
	if (MKW__MUTANT(SNAPSHOT_UNLOCKED))
		mkw__page_unlock_run(in, first, n, PG_WRITABLE);
	mkw__os_frames_save(in->frames, first << e->page_shift, buf->mem,
			    n << e->page_shift);
	mkw__fill_zero_tail(in, first, n, buf->mem);
	if (!MKW__MUTANT(SNAPSHOT_UNLOCKED))
		mkw__page_unlock_run(in, first, n, PG_WRITABLE);
	return n;
}

static void submit(struct mkw__wb *wb, struct mkw__inode *in, uint64_t first,
		   size_t n, struct mkw__buf *buf)
{
	struct mkw_engine *e = wb->engine;
	uint64_t off = first << e->page_shift;
	uint64_t size = atomic_load_explicit(&in->size, memory_order_acquire);
	struct mkw__wb_io *w = io_of(e, buf);

	if (!mkw__inode_pin(in))
		mkw__os_panic("writeback of a file that is gone");
	w->wb = wb;
	w->inode = in;
	w->buf = buf;
	w->first = first;
	w->pages = n;
	w->io = (struct mkw__os_io){ .done = write_done,
				     .write = true,
				     .off = off,
				     .buf = buf->mem,
				     .len = size > off ?
						    mkw__min(n << e->page_shift,
							     size - off) : 0 };
	wb->in_flight++;
	mkw__count(&e->count.writebacks, 1);
	mkw__count(&e->count.writeback_pages, n);
	MKW__PROBE3(writeback_begin, in->store->ino, off, n);
	if (!w->io.len)		/* truncated: only where faults take no lock */
		write_done(&w->io, 0);
	else if (wb->loop)
		mkw__store_submit(in->store, wb->loop, &w->io);
	else
		write_done(&w->io, mkw__store_write(in->store, off,
							 buf->mem, w->io.len));
}

/*
 * May the page be written in one go with `first`, which is before it or itself? One
 * that failed goes alone: it is to hold back nobody.
 */
static bool joins(struct mkw__inode *in, uint64_t first, uint64_t idx)
{
	uint32_t word = mkw__page_get_locked(in, idx);

	return PG_STATE(word) == PG_DIRTY && !pinned(in, idx) &&
	       (idx == first ||
		!((mkw__page_get_locked(in, first) | word) & PG_FAILED));
}

/*
 * The page is dirty, and pinned. True: look at it again. False: it is passed over, by the
 * flusher, who comes again, and for a sync by who has the pin, which fails. TREE is
 * released meanwhile.
 */
static bool wait_unpinned_locked(struct mkw__wb *wb, struct mkw__inode *in,
				 uint64_t idx)
{
	int r = 0;

	/* Under EXCL_TAKE there is none but the page of mkw__hole_write_edge(). */
	if (!wb->may_block || wb->locked) {
		atomic_store_explicit(&wb->engine->pool.missed, true,
				      memory_order_relaxed);
		return false;
	}
	/* Who has it may be waiting for the thaw. */
	if (wb->frozen) {
		wb->error = -EBUSY;
		return false;
	}
	mkw__mutex_unlock(&in->tree);
	if (wb->in_flight)
		mkw__wb_drain(wb);
	else
		r = mkw__pin_wait(in, idx, idx + 1, true, &wb->turn);
	if (r)
		wb->error = r;
	mkw__mutex_lock(&in->tree);
	return !r;
}

/* Finds the next page to write at or after idx, waiting where that is asked. */
static uint64_t next_page(struct mkw__wb *wb, struct mkw__inode *in,
			  uint64_t idx, uint64_t end, uint64_t *run_end)
{
	uint32_t word;

	mkw__mutex_lock(&in->tree);
	while ((idx = mkw__page_next_locked(in, idx, end, PG_DIRTY_MASK)) <
	       end) {
		word = mkw__page_get_locked(in, idx);
		/*
		 * What is being written now was dirty before the call only if
		 * it has been stored to since. Locked, it has no snapshot
		 * yet, and may become DIRTY again instead.
		 */
		if ((word & PG_FAILED) && !wb->retry) {
			idx++;
			continue;
		}
		if (PG_STATE(word) == PG_DIRTY && !(word & PG_LOCKED)) {
			if (!pinned(in, idx))
				break;
			idx += !wait_unpinned_locked(wb, in, idx);
			continue;
		}
		if (!wb->may_block || (PG_STATE(word) == PG_WRITEBACK &&
				       !(word & PG_LOCKED))) {
			idx++;
			continue;
		}
		if (wb->in_flight) {
			mkw__mutex_unlock(&in->tree);
			mkw__wb_drain(wb);
			mkw__mutex_lock(&in->tree);
			continue;
		}
		mkw__page_sleep_locked(in, idx);
	}
	*run_end = idx;
	while (*run_end < mkw__min(end, idx + MKW__IO_PAGES) &&
	       joins(in, idx, *run_end))
		++*run_end;
	mkw__mutex_unlock(&in->tree);
	return idx;
}

size_t mkw__wb_range(struct mkw__wb *wb, struct mkw__inode *in, uint64_t first,
		     uint64_t end)
{
	struct mkw__range_lock *rl = wb->locked || MKW__MUTANT(WRITEBACK_TAKES_NO_LOCK) ?
					     NULL : mkw__excl_fault_lock(in);
	struct mkw__range_req req;
	struct mkw__buf *buf;
	uint64_t idx = first, run_end;
	size_t n, total = 0;

	while ((idx = next_page(wb, in, idx, end, &run_end)) < end) {
		if (!lock_range(wb, rl, &req, idx, &run_end)) {
			idx++;
			continue;
		}
		/* After the lock: who has a buffer waits for no lock. */
		buf = get_buf(wb);
		n = snapshot(in, idx, run_end, buf);
		/* The size may shrink once the lock is gone: after R4's wait for
		 * this write. The pin outlives the file's last user. */
		if (n)
			submit(wb, in, idx, n, buf);
		else
			mkw__pool_buf_put(wb->engine, buf);
		if (rl)
			mkw__range_unlock(rl, &req);
		if (n)
			mkw__pin_turn_end(&wb->turn);
		/* The flusher does not call itself. */
		if (wb->may_block)
			mkw__pool_poke(wb->engine);
		total += n;
		if (n)
			idx += n;
		else if (!wb->may_block)
			idx++;
	}
	mkw__pin_turn_end(&wb->turn);
	return total;
}

/*
 * Waits for the writes that are in flight now, not for later ones: whoever stores all
 * the time must not keep a sync for ever.
 */
static void wait_writes(struct mkw__inode *in)
{
	struct mkw__wb_io *w;
	uint64_t last;

	mkw__mutex_lock(&in->tree);
	last = in->write_seq;
	while ((w = TAILQ_FIRST(&in->writes)) && w->seq <= last) {
		struct mkw__sleeper s;

		mkw__sleeper_init(&s);
		TAILQ_INSERT_TAIL(&in->write_waiters, &s.waiter, link);
		mkw__mutex_unlock(&in->tree);
		mkw__sleeper_wait(&s);
		mkw__mutex_lock(&in->tree);
	}
	mkw__mutex_unlock(&in->tree);
}

/* A loop that somebody has left, or a new one. NULL: no descriptor left, say. */
static struct mkw__os_loop *get_loop(struct mkw_engine *e)
{
	struct mkw__pool *p = &e->pool;
	struct mkw__os_loop *l = NULL;

	mkw__mutex_lock(&p->mutex);
	if (p->idle_loops)
		l = p->idle_loop[--p->idle_loops];
	mkw__mutex_unlock(&p->mutex);
	if (!l && mkw__os_loop_create(MKW__BUFFERS, &l))
		l = NULL;
	return l;
}

static void put_loop(struct mkw_engine *e, struct mkw__os_loop *l)
{
	struct mkw__pool *p = &e->pool;
	bool kept;

	mkw__os_loop_leave(l);
	mkw__mutex_lock(&p->mutex);
	kept = p->idle_loops < MKW__IDLE_LOOPS;
	if (kept)
		p->idle_loop[p->idle_loops++] = l;
	mkw__mutex_unlock(&p->mutex);
	if (!kept)
		mkw__os_loop_destroy(l);
}

static int write_pages(struct mkw__inode *in, uint64_t first, uint64_t end,
		       bool locked, bool frozen)
{
	struct mkw_engine *e = in->engine;
	/* Without a loop: one write after the other. */
	struct mkw__wb wb = { .engine = e,
			      .loop = get_loop(e),
			      .may_block = true,
			      .locked = locked,
			      .frozen = frozen,
			      .retry = !MKW__MUTANT(FAILED_NOT_RETRIED) };
	uint64_t seq;
	int r;

	mkw__mutex_lock(&in->tree);
	seq = in->write_errors;
	mkw__mutex_unlock(&in->tree);
	mkw__wb_range(&wb, in, first, end);
	mkw__wb_drain(&wb);
	if (wb.loop)
		put_loop(e, wb.loop);

	if (!MKW__MUTANT(SYNC_WAITS_FOR_OWN))
		wait_writes(in);
	mkw__mutex_lock(&in->tree);
	r = in->write_errors != seq ? in->write_error : wb.error;
	mkw__mutex_unlock(&in->tree);
	return r;
}

int mkw__wb_pages(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	return write_pages(in, first, end, false, false);
}

int mkw__wb_pages_locked(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	uint64_t idx;
	int r = write_pages(in, first, end, true, false);

	/* The error may be that of others' pages. */
	mkw__mutex_lock(&in->tree);
	idx = mkw__page_next_locked(in, first, end, PG_DIRTY_MASK);
	if (idx == end)
		r = 0;
	else if (!r)
		r = mkw__page_error_locked(in, idx);
	mkw__mutex_unlock(&in->tree);
	return r;
}

/* For the next sync of every handle. */
static void note_error_locked(struct mkw__inode *in, int r)
{
	in->wb_error = r;
	in->wb_error_seq++;
}

static int flush_store(struct mkw__inode *in)
{
	int r = MKW__MUTANT(SYNC_WITHOUT_FLUSH) ? 0 :
						  mkw__store_flush(in->store);

	if (r) {
		mkw__mutex_lock(&in->tree);
		note_error_locked(in, r);
		mkw__mutex_unlock(&in->tree);
	}
	return r;
}

/*
 * The store's length is nobody else's to change, but not everybody asks: -ESTALE, once
 * to every handle for each length that is found.
 */
static int check_length(struct mkw__inode *in)
{
	uint64_t len, size;
	struct mkw__excl x = { .gate = NULL };
	int r;

	if (!in->store->ops.length || MKW__MUTANT(LENGTH_NOT_CHECKED))
		return 0;
	/*
	 * Whoever changes the size has a lock to infinity; and of two syncs the one that
	 * looks later is to remember later.
	 */
	r = mkw__excl_lock(in, &x, MKW__RANGE_MAX - in->engine->page,
			   MKW__RANGE_MAX, MKW__MUTANT(LENGTH_SHARED) ?
						   EXCL_READ : EXCL_WRITE, false);
	if (r)
		return r;
	if (MKW__MUTANT(LENGTH_UNLOCKED))
		mkw__excl_unlock(in, &x);
	r = mkw__store_length(in->store, &len);
	if (!r) {
		mkw__mutex_lock(&in->tree);
		size = atomic_load_explicit(&in->size, memory_order_acquire);
		if (len != size && len != in->stale_len) {
			note_error_locked(in, -ESTALE);
			mkw__log(in->engine, MKW__LOG_LENGTH_CHANGED,
				 MKW_LOG_ERROR, in, len, size, -ESTALE);
		}
		in->stale_len = len == size ? UINT64_MAX : len;
		mkw__mutex_unlock(&in->tree);
	}
	if (!MKW__MUTANT(LENGTH_UNLOCKED))
		mkw__excl_unlock(in, &x);
	return r;
}

int mkw__wb_sync_range(struct mkw__inode *in, uint64_t first, uint64_t end,
		       bool flush)
{
	int r = in->writable ? mkw__wb_pages(in, first, end -
					     MKW__MUTANT(SYNC_RANGE_SHORT)) : 0;
	int r2 = flush ? flush_store(in) : 0;

	return r ? r : r2;
}

int mkw__wb_settle(struct mkw__inode *in)
{
	int r = in->writable ? write_pages(in, 0, UINT64_MAX, false, true) : 0;
	uint64_t idx;

	mkw__mutex_lock(&in->tree);
	idx = mkw__page_next_locked(in, 0, UINT64_MAX, PG_DIRTY_MASK);
	/* The error may be of a write that has succeeded since. */
	if (idx == UINT64_MAX)
		r = 0;
	else if (!r)
		r = mkw__page_error_locked(in, idx);
	mkw__mutex_unlock(&in->tree);
	if (r)
		return r;
	mkw__reserve_release(in, true);
	return flush_store(in);
}

int mkw__wb_sync(struct mkw_file *file)
{
	struct mkw__inode *in = file->inode;
	uint64_t seen;
	int r, r2;

	r = in->writable ? mkw__wb_pages(in, 0, UINT64_MAX) : 0;
	mkw__reserve_release(in, true);
	r2 = flush_store(in);
	if (!r2)
		r2 = check_length(in);
	if (!r)
		r = r2;

	mkw__mutex_lock(&in->tree);
	seen = atomic_exchange_explicit(&file->seen_error_seq, in->wb_error_seq,
					memory_order_relaxed);
	if (!r && seen != in->wb_error_seq)
		r = in->wb_error;
	mkw__mutex_unlock(&in->tree);
	return r;
}
