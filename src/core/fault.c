/* SPDX-License-Identifier: MIT */
/*
 * The page fault: one resumable function, run by whoever serves the fault.
 *
 *   mkw__fault_run()
 *     1  find the mapping; gone: the access is woken, or foreign
 *     2  a store: the freeze gate (freeze.c); closed: left asleep, or parked;
 *        fault lock, shared, over the cluster: a ticket; not granted: parked in
 *        the lock's queue, and run again from 1 when granted
 *     3  the page:  locked, FILLING   parked in the page's queue
 *                   ABSENT            a fill; parked on its I/O, or done here by
 *                                     the faulting thread, then again from 1
 *                   present           mapped, with what is around it
 *     4  a store, and the mapping allows it: page_mkwrite: blocks for it (none
 *        yet: parked until the space thread has reserved, or done here by the
 *        faulting thread), DIRTY, then this one page writable
 *     5  page unlocked, access woken, ticket given back
 *
 * It never waits itself (the table of mappings and the calls that change page
 * tables excepted). Nothing learnt before a park is believed after it (R2),
 * but for the ticket: that is still ours, and is given back where what is found
 * lies outside it. A fault that finds the pool empty gives up the ticket, too
 * (R7). Waiting for a page with the ticket in hand is safe: whoever has the
 * page locked or FILLING finishes without asking for a range.
 *
 * What a message says of the access (present, write-protected) is used as a
 * hint at most; the page's state decides, and an access that is woken too early
 * faults again.
 *
 * Stale messages. A wake reaches every access that sleeps on the page, also those
 * whose messages are still to be served: when their turn comes the store may be
 * over, and a punch, too; or it was past the end, and the file has grown since. To make
 * the page DIRTY then would leave a dirty page and soon a block in the hole (G4). When
 * the message was taken from the kernel the store was still to come, so it is stale
 * only if an operation took data away since: inode->takes counts those that are through
 * (excl.c, before they unlock), and is noted when the fault first runs. A take that
 * fell between the reading of the message and the note shows in the engine's count,
 * which is noted before the reading, and which a take raises before the inode's: a note
 * that includes the take finds the engine's count changed.
 *   A clean page that such a fault wants to store to is mapped protected instead,
 * and the access woken: if the store is still there its fault comes again. The
 * ticket is kept for a moment (FAULT_GRACE), so that nobody can take data away
 * before that, again and again (G3). What comes from a later reading of
 * messages is then sure to be a store of now.
 *
 * Grace for losers. An access that was let through may lose its page again before
 * it runs, to a punch or to reclaim, any number of times. So a page that faults
 * again and again, with seconds between at most, has its ticket kept, too: nobody can take it
 * away for that moment (G3); a store's is exclusive, since writeback, which protects
 * the page again, shares its lock. And it goes ahead of those who wait for its page: an
 * access across a page border needs two, and the second page's fault would else
 * stand behind who waits for the first's grace to end. An access whose fault is
 * served in its own thread follows it at once, so it loses a page rarely, but for one
 * that needs two pages: then its fault is one of a few that the pager keeps, and ends,
 * like its own (mkw__pager_prepare()).
 *
 * Lock discipline: the table of mappings is held shared from the look-up until
 * the page-table call has returned, so that the address stays the mapping's.
 * The page lock is held over the call (R5).
 */
#include <errno.h>
#include <string.h>

#include "core/engine.h"

/* What one step made of the fault, beside the enum mkw__fault_end. */
enum {
	STEP_AGAIN = 100,	/* from 1, at once */
	STEP_FILL,		/* f->fill_* are FILLING: read them */
	STEP_RESERVE,		/* f->space.page wants blocks */
	STEP_WAKE,		/* resolved, or up to the kernel: wake it */
	STEP_ASLEEP,		/* the file is frozen: its thaw wakes the access */
};

/* A page-table call found no memory so often: the access fails. */
#define STALLS_MAX 1000u

static uint64_t page_base(const struct mkw__fault *f)
{
	return f->addr & ~(uint64_t)(f->engine->page - 1);
}

/*
 * It cannot go on. Before it is in a queue: then it is not ours any more. (What it reads
 * itself is no wait for somebody. Not inlined: perf takes the first place of a probe in
 * a file for its only one.)
 */
static __attribute__((noinline)) void note_park(struct mkw__fault *f,
						enum mkw__park why)
{
	if (why != MKW__PARK_FILL)
		mkw__count(&f->engine->count.parks, 1);
	MKW__PROBE3(fault_park, f->engine, f->addr, (int)why);
}

/* ---- the ticket ------------------------------------------------------- */

static void gate_granted(struct mkw__range_req *req)
{
	struct mkw__fault *f = MKW__CONTAINER(req, struct mkw__fault, gate);

	f->gate_state = TICKET_HELD;
	f->resume(f);
}

static void ticket_granted(struct mkw__range_req *req)
{
	struct mkw__fault *f = MKW__CONTAINER(req, struct mkw__fault, ticket);

	f->ticket_state = TICKET_HELD;
	f->resume(f);
}

/* What was reserved has been used, or will not be. */
static void unhold(struct mkw__fault *f)
{
	if (f->space.asked && !f->space.answer)
		mkw__reserve_unhold(f->inode, f->space.page, f->space.page + 1);
	f->space.asked = false;
}

static void ticket_drop(struct mkw__fault *f)
{
	struct mkw__range_lock *rl;

	if (!f->inode)
		return;
	f->sure = false;
	unhold(f);
	rl = mkw__excl_fault_lock(f->inode);
	if (f->ticket_state != TICKET_NONE && rl)
		mkw__range_unlock_ticket(rl, &f->ticket);
	f->ticket_state = TICKET_NONE;
	if (f->gate_state != TICKET_NONE)
		mkw__freeze_leave_ticket(f->inode, &f->gate);
	f->gate_state = TICKET_NONE;
	mkw__pool_poke(f->engine);
	if (!MKW__MUTANT(PIN_KEPT))
		mkw__inode_unpin(f->inode);
	f->inode = NULL;
}

/* May this fault let a store through? Then it goes through the gate. */
static bool needs_gate(const struct mkw__fault *f, const struct mkw__map *m)
{
	return m->writable && (f->write || !f->engine->caps.continue_wp) &&
	       !MKW__MUTANT(STORE_PASSES_GATE);
}

/*
 * Through the freeze gate, with the fault lock not taken yet (R1): 0, STEP_ASLEEP, or
 * FAULT_PARKED: *f is not to be touched any more.
 */
static int gate_take(struct mkw__fault *f)
{
	if (mkw__freeze_try_ticket(f->inode, &f->gate)) {
		f->gate_state = TICKET_HELD;
		return 0;
	}
	mkw__count(&f->engine->count.parks, 1);
	if (!f->in_thread) {
		ticket_drop(f);
		return STEP_ASLEEP;
	}
	f->parked = true;
	f->gate_state = TICKET_WAITS;
	if (!mkw__freeze_enqueue(f->inode, &f->gate, gate_granted))
		return FAULT_PARKED;
	f->gate_state = TICKET_HELD;
	return 0;
}

/*
 * Takes the fault lock for pages around idx. True: it has it. False: queued,
 * and *f is not to be touched any more. The table of mappings is held, so the
 * inode is in use.
 */
static bool ticket_take(struct mkw__fault *f, struct mkw__inode *in,
			const struct mkw__map *m, uint64_t idx)
{
	unsigned shift = f->engine->page_shift;
	struct mkw__range_lock *rl = mkw__excl_fault_lock(in);
	uint64_t first = idx, end = idx + 1, map_first, map_end;
	/* A store loses its page to writeback, too, which shares its lock. */
	bool alone = f->write && f->losses >= MKW__LOSSES_MAX &&
		     !MKW__MUTANT(LOSER_SHARES);
	uint32_t word;

	/* A guess at what will be wanted; the page may change until we hold it. */
	mkw__mutex_lock(&in->tree);
	word = mkw__page_get_locked(in, idx);
	if (f->single || alone) {
		/* Just the page. */
	} else if (!pg_in(word, PG_PRESENT_MASK)) {
		end = idx + mkw__ra_window_locked(in, idx);
	} else if (word & PG_MARK) {
		/* All that was read ahead with it, on the one side or the other. */
		first = idx - mkw__min(idx, MKW__IO_PAGES - 1);
		end = idx + MKW__IO_PAGES;
	} else if (!f->write) {
		first = idx & ~(uint64_t)(MKW__AROUND_PAGES - 1);
		end = first + MKW__AROUND_PAGES;
	}
	mkw__mutex_unlock(&in->tree);
	mkw__map_pages(m, &map_first, &map_end);
	first = mkw__max(first, map_first);
	end = mkw__min(end, map_end);

	f->first = first;
	f->end = end;
	f->ticket_state = TICKET_HELD;
	if (!rl || mkw__range_trylock_ticket(rl, &f->ticket, first << shift,
					     end << shift, alone))
		return true;
	f->first = idx;
	f->end = idx + 1;
	/* An access may need two pages: one's grace must serve for both. */
	if (f->losses >= MKW__LOSSES_MAX &&
	    mkw__range_trylock_ahead(rl, &f->ticket, idx << shift,
				     (idx + 1) << shift, alone))
		return true;
	/* Somebody is busy with part of it: stand in line for the page alone. */
	f->parked = true;
	f->ticket_state = TICKET_WAITS;
	note_park(f, MKW__PARK_LOCK);
	if (!mkw__range_enqueue(rl, &f->ticket, idx << shift,
				(idx + 1) << shift, alone, ticket_granted))
		return false;
	f->ticket_state = TICKET_HELD;
	return true;
}

/* ---- step 3 and 4: the page ------------------------------------------- */

static void park_woken(struct mkw__waiter *w)
{
	struct mkw__fault *f = MKW__CONTAINER(w, struct mkw__fault, waiter);

	f->resume(f);
}

/* Parks in the page's queue; releases the tree mutex. */
static int park_on_page(struct mkw__fault *f, struct mkw__inode *in,
			uint64_t idx)
{
	f->parked = true;
	f->waiter.wake = park_woken;
	note_park(f, MKW__PARK_PAGE);
	mkw__page_enqueue_locked(in, idx, &f->waiter);
	mkw__mutex_unlock(&in->tree);
	return FAULT_PARKED;
}

static int park_on_pool(struct mkw__fault *f)
{
	if (!MKW__MUTANT(WAITS_FOR_MEMORY_LOCKED))
		ticket_drop(f);
	f->parked = true;
	f->waiter.wake = park_woken;
	note_park(f, MKW__PARK_MEMORY);
	return mkw__pool_enqueue(f->engine, &f->waiter) ? FAULT_PARKED :
							  STEP_AGAIN;
}

/*
 * A store that would make one more page dirty where there are too many: it waits, once.
 * Releases the tree mutex.
 */
static int park_on_dirty(struct mkw__fault *f, struct mkw__inode *in)
{
	mkw__mutex_unlock(&in->tree);
	ticket_drop(f);
	f->throttled = true;
	f->parked = true;
	f->waiter.wake = park_woken;
	note_park(f, MKW__PARK_DIRTY);
	return mkw__flusher_throttle_enqueue(f->engine, &f->waiter) ?
		       FAULT_PARKED : STEP_AGAIN;
}

/* What a page-table call's outcome means for the whole fault. */
static int outcome(struct mkw__fault *f, int r)
{
	switch (r) {
	case 0:
		return FAULT_DONE;
	case -ENOENT:
	case -ESRCH:
		return STEP_WAKE;	/* the mapping or the process is gone */
	case -ENOMEM:
		/* No page table: the access comes again, or gives up. */
		if (!f->in_thread)
			return STEP_WAKE;
		f->error = r;
		return ++f->stalls > STALLS_MAX ? FAULT_FAIL : STEP_AGAIN;
	default:
		return STEP_AGAIN;	/* the address space is changing */
	}
}

/*
 * CONTINUE found no frame under a page that the state calls present, and that we
 * have locked. One that was clean was taken by somebody else (madvise(MADV_REMOVE)
 * of the application): it is read again. A dirty one held the only copy.
 */
static int frame_missing(struct mkw__inode *in, uint64_t idx, bool was_clean)
{
	if (!was_clean)
		mkw__os_panic("the frame of dirty page %llu is gone: something outside the engine removed it",
			      (unsigned long long)idx);
	mkw__page_end_run(in, idx, 1, PG_ABSENT);
	return STEP_AGAIN;
}

/*
 * Page_mkwrite: the page is locked by us, present. Makes it DIRTY, then lets the
 * one mapping store to it.
 */
static int resolve_store(struct mkw__fault *f, const struct mkw__map *m,
			 struct mkw__inode *in, uint64_t idx, bool was_clean)
{
	uintptr_t addr = mkw__map_addr(m, idx);
	size_t done;
	int r;

	if (MKW__MUTANT(UNLOCKED_BEFORE_UNPROTECT))
		mkw__page_unlock_run(in, idx, 1, 0);
	/* The hint decides what is tried first; the other follows if needed. */
	r = f->wp ? -EEXIST :
		    mkw__os_pte_continue(m->mmu, addr, f->engine->page, 0, &done);
	if (r == -EEXIST) {
		r = mkw__os_pte_protect(m->mmu, addr, f->engine->page, false, 0);
		if (!r)
			mkw__os_wake(m->mmu, addr, f->engine->page);
	}
	if (r == -EFAULT)
		return frame_missing(in, idx, was_clean);
	if (!MKW__MUTANT(UNLOCKED_BEFORE_UNPROTECT))
		mkw__page_unlock_run(in, idx, 1, 0);
	return outcome(f, r);
}

/* A load: maps the run [first, end), all locked by us and of one kind. */
static int resolve_load(struct mkw__fault *f, const struct mkw__map *m,
			struct mkw__inode *in, uint64_t idx, uint64_t first,
			uint64_t end, bool clean, bool writable)
{
	bool protect = !writable && f->engine->caps.continue_wp;
	unsigned flags = protect ? MKW__PTE_WP : 0;
	unsigned shift = f->engine->page_shift;
	size_t done;
	int r;

	r = mkw__os_pte_continue(m->mmu, mkw__map_addr(m, idx),
				 (end - idx) << shift, flags, &done);
	if (r == -EAGAIN && done)
		r = 0;		/* beyond it somebody was first */
	if (r == -EEXIST) {
		r = 0;
		mkw__os_wake(m->mmu, mkw__map_addr(m, idx), f->engine->page);
	}
	/* What lies before it is for later accesses only. */
	if (!r && first < idx)
		mkw__os_pte_continue(m->mmu, mkw__map_addr(m, first),
				     (idx - first) << shift, flags, &done);
	if (r == -EFAULT) {
		mkw__page_unlock_run(in, first, idx - first, 0);
		mkw__page_unlock_run(in, idx + 1, end - idx - 1, 0);
		return frame_missing(in, idx, clean);
	}
	mkw__page_unlock_run(in, first, end - first, 0);
	return outcome(f, r);
}

/*
 * The pages around idx, of [*first, *end), whose frames are there; the others are
 * let go. False: not even idx itself has one.
 */
static bool trim_to_frames(struct mkw__inode *in, uint64_t idx, uint64_t *first,
			   uint64_t *end)
{
	unsigned shift = in->engine->page_shift;
	uint64_t from = idx, to = idx;

	while (to < *end && mkw__os_frames_present(in->frames, to << shift))
		to++;
	while (to > idx && from > *first &&
	       mkw__os_frames_present(in->frames, (from - 1) << shift))
		from--;
	mkw__page_end_run(in, *first, from - *first, PG_CLEAN | PG_MAPPED);
	to = mkw__max(to, idx + 1);
	mkw__page_end_run(in, to, *end - to, PG_CLEAN | PG_MAPPED);
	*first = from;
	*end = to;
	return mkw__os_frames_present(in->frames, idx << shift);
}

/*
 * A load of clean pages in a mapping that may be stored to, where the kernel
 * cannot map an existing frame protected (caps.continue_wp): mapped, then
 * protected, and whether somebody stored in between is found out by comparing with
 * a copy from before. The pages, locked by us, are DIRTY meanwhile: so a
 * sync waits for them, and those that were stored to stay so. f->buf is ours.
 */
static int resolve_by_window(struct mkw__fault *f, const struct mkw__map *m,
			     struct mkw__inode *in, uint64_t idx,
			     uint64_t first, uint64_t end)
{
	struct mkw_engine *e = f->engine;
	unsigned shift = e->page_shift;
	unsigned char *before = f->buf->mem, *after;
	size_t done = 0, done_before = 0, len;
	bool open;
	int r;

	if (!trim_to_frames(in, idx, &first, &end)) {
		mkw__pool_buf_put(e, f->buf);
		f->buf = NULL;
		return frame_missing(in, idx, true);
	}
	len = (end - first) << shift;
	after = before + len;
	mkw__os_frames_read(in->frames, first << shift, before, len);
	r = mkw__os_pte_continue(m->mmu, mkw__map_addr(m, idx),
				 (end - idx) << shift, MKW__PTE_DONTWAKE, &done);
	if (first < idx)
		mkw__os_pte_continue(m->mmu, mkw__map_addr(m, first),
				     (idx - first) << shift, MKW__PTE_DONTWAKE,
				     &done_before);
	open = (done || done_before) && mkw__map_protect(in, first, end - first);
	mkw__os_frames_read(in->frames, first << shift, after, len);
	for (uint64_t i = first; i < end; i++) {
		size_t at = (i - first) << shift;
		bool same = MKW__MUTANT(WINDOW_NOT_COMPARED) ||
			    !memcmp(before + at, after + at, e->page);

		if (open)
			mkw__page_unlock_run(in, i, 1, 0);
		else
			mkw__page_end_run(in, i, 1, PG_MAPPED |
					  (same ? PG_CLEAN : PG_DIRTY));
	}
	mkw__pool_buf_put(e, f->buf);
	f->buf = NULL;
	/* Also after an error: what was mapped, and what may be tried again. */
	mkw__os_wake(m->mmu, mkw__map_addr(m, first), len);
	return outcome(f, done || r == -EEXIST ? 0 : r);
}

/* May the page join a run of such pages? A mark is for its own fault to find. */
static bool joins(struct mkw__inode *in, uint64_t idx, unsigned mask, bool window)
{
	uint32_t word = mkw__page_get_locked(in, idx);

	return pg_in(word, mask) && !(word & (PG_LOCKED | PG_MARK)) &&
	       (!window || mkw__reserve_has_locked(in, idx, idx + 1));
}

static void lock_page_locked(struct mkw__inode *in, uint64_t idx, uint32_t bits)
{
	mkw__page_set_locked(in, idx, mkw__page_get_locked(in, idx) | bits |
					      PG_LOCKED | PG_MAPPED);
}

/*
 * The page cannot be had, and is LOCKED or FILLING by us, so nobody else can map it
 * meanwhile: the access gets SIGBUS (G6), by poison; see "Failure". Table held.
 */
static void poison(struct mkw__fault *f, struct mkw__inode *in)
{
	int r;

	/* Before the poison: who makes the page readable must see it. */
	atomic_store_explicit(&in->poisoned, true, memory_order_release);
	do {
		r = mkw__os_pte_poison(f->mmu, page_base(f));
	} while (r == -EAGAIN);
	/* Failing otherwise, the access meets the error once more. */
	mkw__os_wake(f->mmu, page_base(f), f->engine->page);
}

/* A store may not be: the page is present and unlocked; tree held, and released. */
static int refuse_store(struct mkw__fault *f, struct mkw__inode *in,
			uint64_t idx, int error)
{
	f->error = error;
	if (f->in_thread) {
		mkw__mutex_unlock(&in->tree);
		return FAULT_FAIL;
	}
	mkw__page_set_locked(in, idx,
			     mkw__page_get_locked(in, idx) | PG_LOCKED);
	mkw__mutex_unlock(&in->tree);
	poison(f, in);
	mkw__page_unlock_run(in, idx, 1, 0);
	return FAULT_DONE;
}

/*
 * There is no frame, and will be none. The page is locked by nobody: poison that
 * comes too late is lifted by the next access.
 */
static int refuse_absent(struct mkw__fault *f, struct mkw__inode *in)
{
	f->error = -ENOMEM;
	if (f->in_thread)
		return FAULT_FAIL;
	poison(f, in);
	return FAULT_DONE;
}

/*
 * Has the page blocks for a store? 0; STEP_RESERVE; or why not. Tree held. An
 * answer is for as long as the ticket: it keeps takes out.
 */
static int has_space(struct mkw__fault *f, struct mkw__inode *in, uint64_t idx)
{
	bool answered = f->space.asked && f->space.page == idx;
	uint64_t end = idx + 1;
	int r = mkw__failed_admit_locked(in, idx, &end);

	if (r)
		return r;
	if (mkw__reserve_has_locked(in, idx, idx + 1))
		return 0;
	if (answered && f->space.answer)
		return f->space.answer;
	f->space.page = idx;
	return STEP_RESERVE;
}

/* May the store that the message told of be over? */
static bool may_be_stale(const struct mkw__fault *f, struct mkw__inode *in)
{
	return !MKW__MUTANT(STALE_MESSAGE_BELIEVED) && !f->in_thread && !f->sure &&
	       (f->suspect || atomic_load(&in->takes) != f->takes);
}

/* The page is present and unlocked; tree held, and released here. */
static int resolve(struct mkw__fault *f, const struct mkw__map *m,
		   struct mkw__inode *in, uint64_t idx)
{
	const unsigned open = PG_BIT(PG_DIRTY) | PG_BIT(PG_WB_DIRTY);
	uint32_t word = mkw__page_get_locked(in, idx);
	uint64_t first = idx, end = idx + 1, from, to;
	bool clean = PG_STATE(word) == PG_CLEAN, writable, window;
	unsigned mask, most;

	f->stale = f->write && m->writable && clean && may_be_stale(f, in);
	window = m->writable && !f->engine->caps.continue_wp;
	/* What is being written has a block to be written to again. */
	if ((f->write && m->writable && !f->stale) ||
	    (window && PG_STATE(word) == PG_WRITEBACK)) {
		int r = has_space(f, in, idx);

		if (r == STEP_RESERVE) {
			mkw__mutex_unlock(&in->tree);
			return r;
		}
		if (r)
			return refuse_store(f, in, idx, r);
		if (!MKW__MUTANT(STORE_LEAVES_CLEAN))
			mkw__page_set_locked(in, idx, pg_stored(word));
		lock_page_locked(in, idx, PG_WRITABLE);
		mkw__mutex_unlock(&in->tree);
		return resolve_store(f, m, in, idx, clean);
	}
	writable = m->writable && pg_in(word, open);
	window = window && !writable;
	/* The pages of a window may be stored to. No space: it is no store yet. */
	if (window && has_space(f, in, idx) == STEP_RESERVE) {
		mkw__mutex_unlock(&in->tree);
		return STEP_RESERVE;
	}
	if (window && !(f->buf = mkw__pool_buf_get(f->engine))) {
		mkw__mutex_unlock(&in->tree);
		return park_on_pool(f);
	}
	mask = writable ? open : PG_PRESENT_MASK & ~(m->writable ? open : 0);
	if (window)
		mask = PG_BIT(PG_CLEAN);
	/* A window's buffer holds its pages twice. */
	most = window ? MKW__IO_PAGES / 2 : MKW__IO_PAGES;
	/* The mapping may have been cut since the ticket was taken. */
	mkw__map_pages(m, &from, &to);
	if (!MKW__MUTANT(AROUND_UNLOCKED)) {
		from = mkw__max(from, f->first);
		to = mkw__min(to, f->end);
	}
	to = mkw__min(to, idx + most);
	while (end < to && joins(in, end, mask, window))
		end++;
	while (first > from && end - first < most &&
	       joins(in, first - 1, mask, window))
		first--;
	if (MKW__MUTANT(NEIGHBOUR_WRITABLE))
		writable = m->writable;
	for (uint64_t i = first; i < end; i++) {
		if (window)
			mkw__page_set_locked(in, i, pg_stored(
				mkw__page_get_locked(in, i)));
		lock_page_locked(in, i, writable || window ? PG_WRITABLE : 0);
	}
	mkw__mutex_unlock(&in->tree);
	return window ? resolve_by_window(f, m, in, idx, first, end) :
			resolve_load(f, m, in, idx, first, end, clean, writable);
}

/* Steps 2 to 5 for a fault on page idx of mapping m; table held. */
static int step(struct mkw__fault *f, const struct mkw__map *m)
{
	struct mkw__inode *in = m->inode;
	struct mkw_engine *e = f->engine;
	uint64_t idx = mkw__page_of(e, page_base(f) - m->addr + m->off);
	/* What is read ahead of idx is to be mapped where idx is. */
	struct mkw__ra_req ahead = {
		.mmu = f->mmu,
		.base = page_base(f) - (uintptr_t)(idx << e->page_shift),
	};
	bool in_thread = f->in_thread;
	uint64_t pages;
	uint32_t word;
	size_t n;
	int r;

	if (f->noted != in) {
		/* Of another file meanwhile: what was noted says nothing. */
		f->suspect = f->noted != NULL;
		f->noted = in;
		f->takes = atomic_load(&in->takes);
		f->suspect |= atomic_load(&e->takes) != f->takes_read;
	}
	if (f->inode &&
	    (f->inode != in ||
	     (f->ticket_state == TICKET_HELD &&
	      (idx < f->first || idx >= f->end ||
	       (f->gate_state == TICKET_NONE && needs_gate(f, m))))))
		ticket_drop(f);
	/* The table of mappings is held, so the inode is in use. */
	if (!f->inode && !mkw__inode_pin(in))
		mkw__os_panic("a mapping of an inode that is gone");
	f->inode = in;
	if (f->gate_state == TICKET_NONE && needs_gate(f, m)) {
		r = gate_take(f);
		if (r)
			return r;
	}
	if (f->ticket_state == TICKET_NONE && !ticket_take(f, in, m, idx))
		return FAULT_PARKED;
	if (MKW__TEST(bare_wakes)) {
		mkw__count(&e->count.retries, 1);
#ifdef MKW_TESTING
		mkw__testing.bare_wakes--;
#endif
		return STEP_WAKE;
	}
	/* Past the end the kernel raises SIGBUS by itself, once it looks again. */
	pages = mkw__pages_up(e, atomic_load_explicit(&in->size,
						      memory_order_acquire));
	if (idx >= pages) {
		f->error = -ENXIO;
		return f->in_thread ? FAULT_FAIL : STEP_WAKE;
	}

	mkw__mutex_lock(&in->tree);
	word = mkw__page_get_locked(in, idx);
	if ((word & PG_LOCKED) || PG_STATE(word) == PG_FILLING)
		return park_on_page(f, in, idx);
	if (f->write && m->writable && !f->throttled &&
	    !pg_in(word, PG_DIRTY_MASK) && mkw__flusher_is_behind(e))
		return park_on_dirty(f, in);
	if (pg_in(word, PG_PRESENT_MASK)) {
		if (word & PG_MARK)
			mkw__ra_mark_locked(in, idx, &ahead);
		else
			mkw__page_once_locked(in, idx, false);
		r = resolve(f, m, in, idx);
		/* Parked, *f is not ours any more. */
		mkw__ra_post(in, &ahead, in_thread);
		return r;
	}

	f->buf = mkw__pool_buf_get(e);
	n = f->buf ? mkw__fill_begin_locked(in, idx,
					    mkw__min(f->end, pages) - idx,
					    false) : 0;
	if (n)
		mkw__ra_missed_locked(in, idx, n, &ahead);
	mkw__mutex_unlock(&in->tree);
	if (!n) {
		if (f->buf)
			mkw__pool_buf_put(e, f->buf);
		f->buf = NULL;
		if (mkw__pool_is_hopeless(e)) {
			if (f->hopeless)
				return refuse_absent(f, in);
			f->hopeless = true;
		}
		return park_on_pool(f);
	}
	f->fill_first = idx;
	f->fill_pages = n;
	mkw__ra_post(in, &ahead, in_thread);
	return STEP_FILL;
}

/* ---- the ends --------------------------------------------------------- */

static enum mkw__fault_end finish(struct mkw__fault *f, enum mkw__fault_end end)
{
	struct mkw__counters *c = &f->engine->count;
	uint64_t waited, longest;

	MKW__PROBE4(fault_end, f->engine, f->addr, (int)end, f->born_ns);
	/* Past the end it is the program's own business. */
	if (f->error != -ENXIO && f->inode &&
	    (end == FAULT_FAIL || (f->error && !f->in_thread)))
		mkw__log(f->engine, MKW__LOG_REFUSED, MKW_LOG_WARNING, f->inode,
			 f->addr, 0, f->error);
	ticket_drop(f);
	if (!f->parked)
		return end;
	waited = mkw__os_now_ns() - f->born_ns;
	longest = atomic_load_explicit(&c->longest_wait_ns,
				       memory_order_relaxed);
	while (waited > longest &&
	       !atomic_compare_exchange_weak_explicit(&c->longest_wait_ns,
						      &longest, waited,
						      memory_order_relaxed,
						      memory_order_relaxed))
		;
	return end;
}

/* The access has been let through. */
static enum mkw__fault_end let_through(struct mkw__fault *f)
{
	unhold(f);
	if (f->stale ||
	    (f->losses >= MKW__LOSSES_MAX && !MKW__MUTANT(NO_GRACE)))
		return FAULT_GRACE;
	return finish(f, FAULT_DONE);
}

/* ---- filling ---------------------------------------------------------- */

/* The page that the access wants cannot be read, and is FILLING still. */
static void refuse(struct mkw__fault *f, int error)
{
	struct mkw__inode *in = f->inode;
	struct mkw__range_req table;
	const struct mkw__map *m;

	f->error = error;
	if (f->in_thread)
		return;
	mkw__map_table_lock(&table);
	m = mkw__map_find(f->addr);
	if (m && m->mmu == f->mmu && m->inode == in &&
	    mkw__map_addr(m, f->fill_first) == page_base(f))
		poison(f, in);
	else
		mkw__os_wake(f->mmu, page_base(f), f->engine->page);
	mkw__map_table_unlock(&table);
}

static enum mkw__fault_end filled(struct mkw__fault *f, int res)
{
	struct mkw_engine *e = f->engine;
	struct mkw__inode *in = f->inode;
	uint64_t idx = f->fill_first;
	size_t n = f->fill_pages, mapped = 0, done = 0;
	bool failed;

	mkw__count(&e->count.fills, 1);
	mkw__count(&e->count.fill_pages, n);
	if (MKW__MUTANT(FILL_ERROR_ZEROS) && res) {
		memset(f->buf->mem, 0, n << e->page_shift);
		res = 0;
	}
	if (!res) {
		mkw__fill_zero_tail(in, idx, n, f->buf->mem);
		mapped = mkw__fill_publish_mapped(in, f->mmu, page_base(f), idx,
						  n, f->buf->mem, !f->write);
		res = mkw__fill_publish(in, idx + mapped, n - mapped,
					f->buf->mem + (mapped << e->page_shift),
					&done);
	}
	failed = res && !mapped && !done;
	if (failed)
		mkw__count(&e->count.fill_errors, 1);
	mkw__fill_tell(in, idx, n, failed ? res : 0);
	if (failed && n == 1)
		refuse(f, res);
	mkw__page_end_run(in, idx, mapped, PG_CLEAN | PG_MAPPED);
	mkw__page_end_run(in, idx + mapped, done, PG_CLEAN);
	mkw__page_end_run(in, idx + mapped + done, n - mapped - done,
			  PG_ABSENT);
	mkw__pool_buf_put(e, f->buf);
	f->buf = NULL;
	if (failed && n == 1)
		return finish(f, f->in_thread ? FAULT_FAIL : FAULT_DONE);
	if (mapped && !f->write)
		return let_through(f);
	f->wp = f->wp || mapped;
	if (failed) {
		/* Another page's error, perhaps. */
		f->single = true;
		ticket_drop(f);
	}
	return mkw__fault_run(f);
}

static void fill_done(struct mkw__os_io *io, int res)
{
	struct mkw__fault *f = MKW__CONTAINER(io, struct mkw__fault, io);

	mkw__pager_finish(f, filled(f, res));
}

static void read_done(struct mkw__os_io *io, int res)
{
	struct mkw__fault *f = MKW__CONTAINER(io, struct mkw__fault, io);

	f->read_error = res;
	mkw__os_event_set(&f->event);
}

/*
 * For a store that a signal handler may not call: the handler waits. Nobody else has
 * the event in hand, since a fault that fills stands in no queue.
 */
static int read_by_pager(struct mkw__fault *f)
{
	f->io = (struct mkw__os_io){ .done = read_done,
				     .off = f->fill_first << f->engine->page_shift,
				     .buf = f->buf->mem,
				     .len = f->fill_pages << f->engine->page_shift };
	mkw__store_submit_by(f->inode->store, f->engine->pager.loop, &f->io);
	mkw__os_event_wait(&f->event);
	mkw__os_event_reset(&f->event);
	return f->read_error;
}

static enum mkw__fault_end fill(struct mkw__fault *f)
{
	struct mkw_engine *e = f->engine;
	struct mkw__store *st = f->inode->store;
	uint64_t off = f->fill_first << e->page_shift;
	size_t len = f->fill_pages << e->page_shift;

	if (f->in_thread && st->any_context)
		return filled(f, mkw__store_read(st, off, f->buf->mem, len));
	if (f->in_thread)
		return filled(f, read_by_pager(f));
	f->parked = true;
	note_park(f, MKW__PARK_FILL);
	f->io = (struct mkw__os_io){ .done = fill_done,
				     .off = off,
				     .buf = f->buf->mem,
				     .len = len };
	mkw__store_submit(st, e->pager.loop, &f->io);
	return FAULT_PARKED;
}

/* ---- space ------------------------------------------------------------ */

void mkw__fault_reserve(struct mkw__fault *f)
{
	uint64_t end = f->space.page + 1;

	f->space.answer = mkw__reserve(f->inode, f->space.page, &end);
	f->space.asked = true;
}

static int reserve(struct mkw__fault *f)
{
	if (f->in_thread && f->inode->store->any_context) {
		mkw__fault_reserve(f);
		return STEP_AGAIN;
	}
	f->parked = true;
	note_park(f, MKW__PARK_SPACE);
	mkw__space_submit(f);
	return FAULT_PARKED;
}

/* ---- the whole fault -------------------------------------------------- */

enum mkw__fault_end mkw__fault_run(struct mkw__fault *f)
{
	struct mkw__range_req table;
	const struct mkw__map *m;
	int r;

	for (;;) {
		f->stale = false;
		mkw__map_table_lock(&table);
		m = mkw__map_find(f->addr);
		if (!m || m->mmu != f->mmu) {
			r = f->in_thread ? FAULT_FOREIGN : STEP_WAKE;
		} else {
			r = step(f, m);
		}
		mkw__map_table_unlock(&table);

		if (r == STEP_RESERVE)
			r = reserve(f);
		switch (r) {
		case STEP_AGAIN:
			mkw__count(&f->engine->count.retries, 1);
			MKW__PROBE3(fault_retry, f->engine, f->addr, f->write);
			mkw__os_step("fault again");
			break;
		case STEP_WAKE:
			if (!f->in_thread && !MKW__MUTANT(MESSAGE_DROPPED))
				mkw__os_wake(f->mmu, page_base(f),
					     f->engine->page);
			return finish(f, FAULT_DONE);
		case STEP_ASLEEP:
			return finish(f, FAULT_DONE);
		case STEP_FILL:
			return fill(f);
		case FAULT_PARKED:
			return FAULT_PARKED;
		case FAULT_DONE:
			return let_through(f);
		default:
			return finish(f, (enum mkw__fault_end)r);
		}
	}
}

enum mkw__fault_end mkw__fault_end_grace(struct mkw__fault *f)
{
	return finish(f, FAULT_DONE);
}

/* ---- faults that their own thread serves ------------------------------ */

static void resume_in_thread(struct mkw__fault *f)
{
	mkw__os_event_set(&f->event);
}

/* Nothing is held, and the access's file may be gone when this returns. */
static enum mkw__os_verdict ask(struct mkw__inode *in, const struct mkw__fault *f,
				uint64_t off)
{
	int (*callback)(const struct mkw_fault_error *error, void *arg);
	struct mkw_fault_error error = { .size = sizeof(error),
					 .addr = (void *)f->addr,
					 .off = off,
					 .error = f->error,
					 .write = f->write };
	void *arg;

	mkw__mutex_lock(&in->tree);
	callback = in->on_error;
	arg = in->on_error_arg;
	mkw__mutex_unlock(&in->tree);
	mkw__inode_unpin(in);
	if (MKW__MUTANT(CALLBACK_NOT_ASKED))
		callback = NULL;
	return callback && callback(&error, arg) == MKW_FAULT_RETRY ?
		       MKW__OS_RETRY : MKW__OS_FAIL;
}

void mkw__fault_on_error(struct mkw__inode *in,
			 int (*callback)(const struct mkw_fault_error *error,
					 void *arg),
			 void *arg)
{
	mkw__mutex_lock(&in->tree);
	in->on_error = callback;
	in->on_error_arg = arg;
	mkw__mutex_unlock(&in->tree);
}

/*
 * Serves the access that *own names in the calling thread, from its start to its end.
 * *in: its inode, pinned, or NULL: it is no access of ours. *off: where in the file.
 */
static enum mkw__fault_end serve(struct mkw__fault *own, struct mkw__inode **in,
				 uint64_t *off)
{
	struct mkw__fault *f;
	struct mkw__range_req table;
	const struct mkw__map *m;
	enum mkw__fault_end end = FAULT_FOREIGN;

	*in = NULL;
	own->in_thread = true;
	own->resume = resume_in_thread;
	mkw__map_table_lock(&table);
	m = mkw__map_find(own->addr);
	if (m && !(own->write ? m->writable : m->readable))
		end = FAULT_DENIED;
	else if (m)
		end = FAULT_DONE;
	if (end == FAULT_DONE) {
		/* The engine lasts as long as the pin. */
		*in = m->inode;
		mkw__inode_pin(m->inode);
		*off = m->off + (own->addr - m->addr);
		own->engine = m->inode->engine;
		own->mmu = m->mmu;
		/* Poison has done its work once it has brought us here. */
		if (!m->in_thread && atomic_load_explicit(&m->inode->poisoned,
							  memory_order_acquire))
			mkw__map_heal(m, page_base(own), own->engine->page);
		mkw__count(&own->engine->count.inline_faults, m->in_thread);
	}
	mkw__map_table_unlock(&table);
	if (end != FAULT_DONE)
		return end;

	own->born_ns = mkw__os_now_ns();
	mkw__count(&own->engine->count.faults, 1);
	mkw__count(&own->engine->count.write_faults, own->write);
	MKW__PROBE4(fault_begin, own->engine, own->addr, own->write, 1);
	f = mkw__pager_prepare(own);
	while ((end = mkw__fault_run(f)) == FAULT_PARKED) {
		mkw__os_event_wait(&f->event);
		mkw__os_event_reset(&f->event);
	}
	own->error = f->error;
	mkw__pager_keep(f, end);
	return end;
}

enum mkw__os_verdict mkw__fault_in_thread(uintptr_t addr, bool write)
{
	struct mkw__fault own = { .addr = addr, .write = write };
	struct mkw__inode *in;
	enum mkw__fault_end end;
	uint64_t off = 0;

	end = serve(&own, &in, &off);
	if (end == FAULT_FAIL)
		return ask(in, &own, off);
	if (in)
		mkw__inode_unpin(in);
	return end == FAULT_FOREIGN ? MKW__OS_FOREIGN :
	       end == FAULT_DENIED ? MKW__OS_DENIED : MKW__OS_RETRY;
}

int mkw__fault_touch(uintptr_t addr, bool write)
{
	struct mkw__fault own = { .addr = addr, .write = write };
	struct mkw__inode *in;
	enum mkw__fault_end end;
	uint64_t off;

	end = serve(&own, &in, &off);
	if (in)
		mkw__inode_unpin(in);
	if (end == FAULT_FOREIGN || end == FAULT_DENIED)
		return -EFAULT;
	return end == FAULT_FAIL ? own.error : 0;
}
