/* SPDX-License-Identifier: MIT */
/*
 * Reservation of space (G5): a page becomes dirty only once the store has blocks
 * for all of it, so that a full disk is met by the store or write that wants the
 * space, never by writeback.
 *
 * What is known of a file's blocks, per page, in chunks of about a MiB:
 *
 *   UNKNOWN   to be asked
 *   BACKED    blocks are there
 *   EMPTY     none is
 *   PART      some are: blocks smaller than a page
 *   CREDIT    blocks that were made here, and that no page has used yet
 *   HELD      the same, and somebody is about to: who is short of space leaves
 *             them, or two that are would give back each other's for ever
 *
 *   UNKNOWN ── lookup ──► BACKED, EMPTY, PART
 *   EMPTY ── allocate ──► CREDIT ── the page is dirty, and written ──► BACKED
 *               or HELD      └───── release ──► EMPTY
 *   PART ── allocate ──► BACKED
 *   any ── store operation that makes or takes blocks ──► BACKED, EMPTY; UNKNOWN
 *          while it runs, and if it fails
 *
 * A page that is BACKED, CREDIT or HELD may become dirty: one look. For another the chunk
 * is looked up, and its empty pages are allocated in one step, as a credit for
 * those to come; what nobody used is released at sync, at close, when the file
 * has been idle, and before anybody is told that the disk is full. Only pages
 * that were EMPTY become CREDIT, so what the user has preallocated stays.
 *
 * The chunks known stand in a table of fixed size, each in one of a few places; one
 * that finds them taken has another forgotten, whose credit is given back. What
 * lies in one long run of blocks needs no chunk: [backed_first, backed_end). So a
 * file of any size costs the same.
 *
 * Who is at work on blocks stands in a list, `under_way`: *reservations* (look up,
 * allocate, release), one at a time for a chunk (rank RESERVE; they wait for the
 * device alone), and *takes*, operations of the store that make or take blocks
 * of a range, whose lock is theirs. A take waits for the reservations that reach
 * into its range; a reservation that begins while a take is at work in its chunk
 * keeps to the pages it wants, which the caller's lock guards.
 *
 * Releasing needs no lock of the range: reads see zeros before and after, and a
 * CREDIT page has become EMPTY before, so that who wants it waits for the chunk.
 *
 * All of it is guarded by the inode's TREE mutex; store operations run without.
 */
#include <errno.h>
#include <string.h>

#include "core/engine.h"

#define SLOTS 1024u
#define WAYS  4u

enum block_state { UNKNOWN, BACKED, EMPTY, PART, CREDIT, HELD };

/* Keys of the inode's queue of waiters that no page has. */
#define CHUNK_KEY ((uint64_t)1 << 63)

static struct mkw__reserve *of(struct mkw__inode *in)
{
	return &in->reserve;
}

static unsigned slots(void)
{
	return MKW__TEST(chunk_pages) ? 2 : SLOTS;
}

/* Pages of a chunk; a power of two. */
static uint64_t chunk_pages(const struct mkw_engine *e)
{
	uint64_t n = ((uint64_t)1 << 20) >> e->page_shift;

	if (MKW__TEST(chunk_pages))
		return MKW__TEST(chunk_pages);
	return n > MKW__CHUNK_PAGES ? MKW__CHUNK_PAGES : mkw__max(n, 1);
}

static uint64_t chunk_of(struct mkw__inode *in, uint64_t idx)
{
	return idx / chunk_pages(in->engine);
}

int mkw__reserve_init(struct mkw__inode *in)
{
	struct mkw__reserve *rs = of(in);

	TAILQ_INIT(&rs->known);
	TAILQ_INIT(&rs->creditors);
	TAILQ_INIT(&rs->under_way);
	rs->on = in->writable && in->store->reserves &&
		 in->engine->alloc == MKW_ALLOC_FAULT;
	if (!rs->on)
		return 0;
	rs->slots = mkw__os_reserve(slots() * sizeof(*rs->slots));
	return rs->slots ? 0 : -ENOMEM;
}

void mkw__reserve_fini(struct mkw__inode *in)
{
	if (of(in)->slots)
		mkw__os_unreserve(of(in)->slots,
				  slots() * sizeof(*of(in)->slots));
}

/* ---- what is known; TREE held ----------------------------------------- */

/* The places of a set, in which a chunk's number says that it is. */
static struct mkw__chunk *places(struct mkw__inode *in, uint64_t number,
				 unsigned *n)
{
	*n = MKW__TEST(chunk_pages) ? 2 : WAYS;
	return of(in)->slots + number % (slots() / *n) * *n;
}

static struct mkw__chunk *chunk_find(struct mkw__inode *in, uint64_t number)
{
	unsigned n;
	struct mkw__chunk *c = places(in, number, &n);

	for (; n--; c++)
		if (c->live && c->number == number)
			return c;
	return NULL;
}

static enum block_state state_of(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__chunk *c = chunk_find(in, chunk_of(in, idx));
	unsigned state = c ? c->state[idx % chunk_pages(in->engine)] : UNKNOWN;

	if (state == UNKNOWN && idx >= of(in)->backed_first &&
	    idx < of(in)->backed_end)
		state = BACKED;
	return state;
}

/* Blocks that are to be given back. */
static bool owed(enum block_state s)
{
	return s == CREDIT || s == HELD;
}

static void set_state(struct mkw__inode *in, struct mkw__chunk *c, unsigned i,
		      enum block_state state)
{
	struct mkw__reserve *rs = of(in);
	unsigned was = c->state[i];

	c->state[i] = state;
	if (owed(was) && !owed(state)) {
		atomic_fetch_sub(&rs->credits, 1);
		mkw__count(&in->engine->count.credit_pages, (uint64_t)-1);
		if (!--c->credits)
			TAILQ_REMOVE(&rs->creditors, c, creditor);
	} else if (!owed(was) && owed(state)) {
		atomic_fetch_add(&rs->credits, 1);
		mkw__count(&in->engine->count.credit_pages, 1);
		if (!c->credits++)
			TAILQ_INSERT_TAIL(&rs->creditors, c, creditor);
		rs->credit_ns = mkw__os_now_ns();
	}
}

/* Blocks of [first, end) may be gone: the longer part of the run is kept. */
static void cut_backed(struct mkw__reserve *rs, uint64_t first, uint64_t end)
{
	rs->lost_seq++;
	if (end <= rs->backed_first || first >= rs->backed_end)
		return;
	first = mkw__max(first, rs->backed_first);
	end = mkw__min(end, rs->backed_end);
	if (first - rs->backed_first > rs->backed_end - end)
		rs->backed_end = first;
	else
		rs->backed_first = end;
}

static void set_pages(struct mkw__inode *in, struct mkw__chunk *c,
		      uint64_t first, uint64_t end,
		      enum block_state (*next)(enum block_state))
{
	uint64_t n = chunk_pages(in->engine), start = c->number * n;

	first = mkw__max(first, start);
	end = mkw__min(end, start + n);
	for (uint64_t i = first; i < end; i++)
		set_state(in, c, i - start, next(c->state[i - start]));
}

/* Applies next() to what is known of pages [first, end). */
static void change(struct mkw__inode *in, uint64_t first, uint64_t end,
		   enum block_state (*next)(enum block_state))
{
	uint64_t a = chunk_of(in, first), b;
	struct mkw__chunk *c;

	if (first >= end)
		return;
	b = chunk_of(in, end - 1);
	if (b - a < 8) {
		for (; a <= b; a++)
			if ((c = chunk_find(in, a)))
				set_pages(in, c, first, end, next);
		return;
	}
	TAILQ_FOREACH(c, &of(in)->known, link)
		set_pages(in, c, first, end, next);
}

static enum block_state to_unknown(enum block_state s)
{
	(void)s;
	return UNKNOWN;
}

static enum block_state to_backed(enum block_state s)
{
	(void)s;
	return BACKED;
}

static enum block_state to_empty(enum block_state s)
{
	(void)s;
	return EMPTY;
}

/* A store operation is at work here: what it leaves is known at its end. */
static enum block_state to_open(enum block_state s)
{
	return s == BACKED ? BACKED : UNKNOWN;
}

static bool is_dirty(struct mkw__inode *in, uint64_t idx)
{
	return pg_in(mkw__page_get_locked(in, idx), PG_DIRTY_MASK);
}

bool mkw__reserve_has_locked(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	enum block_state s;

	if (!mkw__reserve_on(in) || MKW__MUTANT(RESERVES_NOTHING))
		return true;
	for (; first < end; first++) {
		if (is_dirty(in, first))
			continue;
		s = state_of(in, first);
		if (s != BACKED && !owed(s))
			return false;
	}
	return true;
}

void mkw__reserve_use_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__chunk *c;

	if (!atomic_load_explicit(&of(in)->credits, memory_order_relaxed) ||
	    MKW__MUTANT(CREDIT_NOT_USED))
		return;
	c = chunk_find(in, chunk_of(in, idx));
	idx %= chunk_pages(in->engine);
	if (c && owed(c->state[idx]))
		set_state(in, c, idx, BACKED);
}

/* Of a page, from one to another; that it is owed stays. */
static void hold(struct mkw__inode *in, uint64_t idx, enum block_state from,
		 enum block_state to)
{
	struct mkw__chunk *c = chunk_find(in, chunk_of(in, idx));

	idx %= chunk_pages(in->engine);
	if (c && c->state[idx] == from)
		set_state(in, c, idx, to);
}

void mkw__reserve_unhold(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	if (!atomic_load_explicit(&of(in)->credits, memory_order_relaxed))
		return;
	mkw__mutex_lock(&in->tree);
	for (; first < end; first++)
		hold(in, first, HELD, CREDIT);
	mkw__mutex_unlock(&in->tree);
}

/* ---- who is at work; TREE held ---------------------------------------- */

static struct mkw__blocks_op *busy(struct mkw__inode *in, uint64_t number)
{
	struct mkw__blocks_op *o;

	TAILQ_FOREACH(o, &of(in)->under_way, link)
		if (!o->take && o->chunk == number)
			return o;
	return NULL;
}

/* Releases the mutex meanwhile: nothing known before is to be believed. */
static void sleep_on(struct mkw__inode *in, uint64_t number)
{
	struct mkw__sleeper s;

	mkw__sleeper_init(&s);
	mkw__page_enqueue_locked(in, number | CHUNK_KEY, &s.waiter);
	mkw__mutex_unlock(&in->tree);
	mkw__rank_take(MKW__RANK_RESERVE, false);
	mkw__sleeper_wait(&s);
	mkw__rank_drop(MKW__RANK_RESERVE);
	mkw__mutex_lock(&in->tree);
}

static bool taken(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	struct mkw__blocks_op *o;

	TAILQ_FOREACH(o, &of(in)->under_way, link)
		if (o->take && o->first < end && first < o->end)
			return true;
	return false;
}

static void begin(struct mkw__inode *in, struct mkw__blocks_op *op,
		  uint64_t number, uint64_t first, uint64_t end)
{
	*op = (struct mkw__blocks_op){ .chunk = number,
				       .first = first,
				       .end = end };
	TAILQ_INSERT_TAIL(&of(in)->under_way, op, link);
	mkw__rank_take(MKW__RANK_RESERVE, true);
}

/* Unlocks the mutex. */
static void finish(struct mkw__inode *in, struct mkw__blocks_op *op)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);

	TAILQ_REMOVE(&of(in)->under_way, op, link);
	mkw__rank_drop(MKW__RANK_RESERVE);
	mkw__page_wake_locked(in, op->chunk | CHUNK_KEY, &woken);
	mkw__mutex_unlock(&in->tree);
	mkw__waiters_wake(&woken);
}

/* ---- a reservation: pages [first, end) of one chunk -------------------- */

struct window {
	struct mkw__blocks_op op;
	struct mkw__chunk *chunk;	/* pinned */
	uint64_t first, end;		/* pages that are wanted */
	uint64_t lo, hi;		/* pages that are looked at */
	uint64_t lost_seq;		/* when it began */
	uint64_t run_first, run_end;	/* a run of blocks over all of it */
	uint8_t state[MKW__CHUNK_PAGES];	/* of [lo, hi) */
	/* Of [lo, hi): without having asked, since a store operation failed. Writeback
	 * may give such a page blocks at any time, so none is ever a credit. */
	bool dirty[MKW__CHUNK_PAGES];
};

static bool wanted(const struct window *w, uint64_t idx)
{
	return idx >= w->first && idx < w->end;
}

/* What the store says of one run of blocks. */
static void note_run(struct mkw__inode *in, struct window *w, const uint8_t *ask,
		     const struct mkw_store_run *run)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, run->off);
	uint64_t end = mkw__pages_up(e, run->end);

	for (uint64_t i = mkw__max(first, w->lo); i < mkw__min(end, w->hi); i++)
		if (ask[i - w->lo] == UNKNOWN)
			w->state[i - w->lo] =
				i << e->page_shift >= run->off &&
				(i + 1) << e->page_shift <= run->end ?
				BACKED : PART;
	first = mkw__pages_up(e, run->off);
	end = mkw__page_of(e, run->end);
	if (first <= w->lo && end >= w->hi) {
		w->run_first = first;
		w->run_end = end;
	}
	if (run->shared)
		atomic_store_explicit(&of(in)->shared, true,
				      memory_order_relaxed);
}

/* Asks the store where nothing is known. */
static int look_up(struct mkw__inode *in, struct window *w)
{
	unsigned shift = in->engine->page_shift;
	uint64_t at, end = mkw__max(w->hi << shift,
				    atomic_load_explicit(&in->size,
							 memory_order_acquire));
	size_t n = w->hi - w->lo;
	uint8_t ask[MKW__CHUNK_PAGES];
	struct mkw_store_run run;
	int r;

	if (!memchr(w->state, UNKNOWN, n))
		return 0;
	memcpy(ask, w->state, n);
	for (size_t i = 0; i < n; i++)
		if (ask[i] == UNKNOWN)
			w->state[i] = EMPTY;
	for (at = w->lo << shift; at < w->hi << shift; at = run.end) {
		r = mkw__store_blocks(in->store, at, end, &run);
		if (r == -EOPNOTSUPP) {
			/* Nothing that is not certain becomes a credit. */
			for (size_t i = 0; i < n; i++)
				if (ask[i] == UNKNOWN)
					w->state[i] = PART;
			return 0;
		}
		if (r)
			return r;
		if (run.off == run.end)
			break;
		note_run(in, w, ask, &run);
	}
	return 0;
}

/* Gives back the pages of [lo, hi) that `state` calls `from`: they are EMPTY then. */
static int give_back(struct mkw__inode *in, uint8_t *state, uint64_t base,
		     uint64_t lo, uint64_t hi, enum block_state from)
{
	unsigned shift = in->engine->page_shift;
	uint64_t stop;
	int r = 0, err;

	for (; lo < hi; lo = stop) {
		stop = lo + 1;
		if (state[lo - base] != from)
			continue;
		while (stop < hi && state[stop - base] == from)
			stop++;
		err = mkw__store_release(in->store, lo << shift,
					      (stop - lo) << shift);
		memset(state + (lo - base), err ? UNKNOWN : EMPTY, stop - lo);
		r = r ? r : err;
	}
	return r;
}

static bool lacks(const struct window *w, uint64_t idx)
{
	unsigned s = w->state[idx - w->lo];

	return s == EMPTY || (s == PART && wanted(w, idx));
}

/*
 * Allocates what is missing, with credit the window as far as it is known, in one
 * step: what may have no blocks, and is PART for that, is not filled unasked.
 */
static int allocate(struct mkw__inode *in, struct window *w)
{
	unsigned shift = in->engine->page_shift;
	uint64_t lo = w->first, hi = w->end;
	int r;

	for (uint64_t i = w->lo; i < w->hi; i++)
		if (w->dirty[i - w->lo] && w->state[i - w->lo] == EMPTY &&
		    !MKW__MUTANT(DIRTY_MADE_CREDIT))
			w->state[i - w->lo] = PART;
	while (lo > w->lo && w->state[lo - 1 - w->lo] != PART)
		lo--;
	while (hi < w->hi && w->state[hi - w->lo] != PART)
		hi++;
	while (lo < hi && !lacks(w, lo))
		lo++;
	while (lo < hi && !lacks(w, hi - 1))
		hi--;
	if (lo >= hi)
		return 0;
	mkw__count(&in->engine->count.reservations, 1);
	r = mkw__store_allocate(in->store, lo << shift, (hi - lo) << shift);
	if (r) {
		/* It may have made some. */
		give_back(in, w->state, w->lo, lo, hi, EMPTY);
		return r;
	}
	for (uint64_t i = lo; i < hi; i++)
		w->state[i - w->lo] = w->state[i - w->lo] == EMPTY ? CREDIT :
				      w->state[i - w->lo] == PART ? BACKED :
				      w->state[i - w->lo];
	return 0;
}

/*
 * The run of blocks that was seen around the window ends where another reservation is
 * at work: what that has made it may take back, for want of the rest.
 */
static void cut_run(struct mkw__inode *in, struct window *w)
{
	struct mkw__blocks_op *o;

	TAILQ_FOREACH(o, &of(in)->under_way, link) {
		if (o == &w->op || o->first >= w->run_end ||
		    o->end <= w->run_first)
			continue;
		if (o->end <= w->lo)
			w->run_first = o->end;
		else
			w->run_end = mkw__max(o->first, w->run_first);
	}
}

/* What the window knows becomes what the chunk knows. */
static void remember(struct mkw__inode *in, struct window *w)
{
	struct mkw__reserve *rs = of(in);
	uint64_t n = chunk_pages(in->engine);

	cut_run(in, w);
	if (w->run_end > w->run_first && w->lost_seq == rs->lost_seq &&
	    w->run_end - w->run_first > rs->backed_end - rs->backed_first) {
		rs->backed_first = w->run_first;
		rs->backed_end = w->run_end;
	}
	w->chunk->pins--;
	for (uint64_t i = w->lo; i < w->hi; i++) {
		unsigned s = w->state[i - w->lo], at = i % n;

		if (w->chunk->state[at] == BACKED || owed(w->chunk->state[at]))
			continue;
		/* Dirty without having asked: a store failed under it. */
		if (s == CREDIT && pg_in(mkw__page_get_locked(in, i),
					 PG_BIT(PG_WRITEBACK) |
						 PG_BIT(PG_WB_DIRTY)))
			s = BACKED;
		if (s == CREDIT && wanted(w, i))
			s = HELD;
		set_state(in, w->chunk, at, s);
	}
}

/* ---- giving back ------------------------------------------------------ */

/*
 * The credit of one chunk, at which nobody is at work; TREE is released meanwhile.
 * With `all` what is held, too, and then it may have to be asked for again.
 */
static void release_chunk(struct mkw__inode *in, struct mkw__chunk *c, bool all)
{
	uint64_t n = chunk_pages(in->engine), base = c->number * n;
	uint8_t state[MKW__CHUNK_PAGES];
	struct mkw__blocks_op op;

	for (uint64_t i = 0; i < n && all; i++) {
		/* Whether it is dirty will be known: look again then. */
		if (owed(c->state[i]) &&
		    (mkw__page_get_locked(in, base + i) & PG_LOCKED)) {
			mkw__page_sleep_locked(in, base + i);
			return;
		}
	}
	for (uint64_t i = 0; i < n; i++) {
		if (all)
			hold(in, base + i, HELD, CREDIT);
		state[i] = c->state[i];
		/* It will be used, unless it turns out to have been clean. */
		if (state[i] == CREDIT && is_dirty(in, base + i)) {
			state[i] = BACKED;
			if (all)
				set_state(in, c, i, BACKED);
		}
		if (state[i] == CREDIT)
			set_state(in, c, i, EMPTY);
	}
	c->pins++;
	cut_backed(of(in), base, base + n);
	begin(in, &op, c->number, base, base + n);
	op.release = true;
	mkw__mutex_unlock(&in->tree);

	give_back(in, state, base, base, base + n, CREDIT);
	mkw__mutex_lock(&in->tree);
	for (uint64_t i = 0; i < n; i++)
		if (c->state[i] == EMPTY && state[i] == UNKNOWN)
			set_state(in, c, i, UNKNOWN);
	c->pins--;
	/* Who looked at the blocks meanwhile saw some that are gone. */
	of(in)->lost_seq++;
	finish(in, &op);
	mkw__mutex_lock(&in->tree);
}

static struct mkw__blocks_op *releasing(struct mkw__inode *in)
{
	struct mkw__blocks_op *o;

	TAILQ_FOREACH(o, &of(in)->under_way, link)
		if (o->release)
			return o;
	return NULL;
}

void mkw__reserve_release(struct mkw__inode *in, bool wait)
{
	struct mkw__reserve *rs = of(in);
	struct mkw__blocks_op *o;
	struct mkw__chunk *c;
	size_t left = 0;

	if (!rs->slots || MKW__MUTANT(CREDIT_KEPT))
		return;
	mkw__mutex_lock(&in->tree);
	TAILQ_FOREACH(c, &rs->creditors, creditor)
		left++;
	while (left && (c = TAILQ_FIRST(&rs->creditors))) {
		if (wait && busy(in, c->number)) {
			sleep_on(in, c->number);
			continue;
		}
		/* To the end first: some of it may be held, and stay. */
		TAILQ_REMOVE(&rs->creditors, c, creditor);
		TAILQ_INSERT_TAIL(&rs->creditors, c, creditor);
		if (!busy(in, c->number))
			release_chunk(in, c, false);
		left--;
	}
	/* What others are giving back just now is not there any more. */
	while (wait && (o = releasing(in)))
		sleep_on(in, o->chunk);
	mkw__mutex_unlock(&in->tree);
}

bool mkw__reserve_idle(struct mkw__inode *in, uint64_t now, uint64_t age_ns)
{
	bool idle;

	if (!atomic_load_explicit(&of(in)->credits, memory_order_relaxed))
		return false;
	mkw__mutex_lock(&in->tree);
	idle = now - of(in)->credit_ns >= age_ns;
	mkw__mutex_unlock(&in->tree);
	return idle;
}

/* Some inode on the device that has credit, pinned, after `seen` others. */
static struct mkw__inode *creditor(struct mkw_engine *e, uint64_t dev,
				   size_t seen)
{
	struct mkw__inode *in;

	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(in, &e->inodes, link) {
		if (in->store->dev != dev ||
		    !atomic_load_explicit(&of(in)->credits,
					  memory_order_relaxed))
			continue;
		if (!seen-- && mkw__inode_pin_locked(in))
			break;
	}
	mkw__mutex_unlock(&e->pool.mutex);
	return in;
}

static void release_all(struct mkw_engine *e, uint64_t dev)
{
	struct mkw__inode *in;
	size_t seen = 0;

	while ((in = creditor(e, dev, seen))) {
		mkw__reserve_release(in, true);
		/* One that got new credit meanwhile is passed over. */
		seen += atomic_load(&of(in)->credits) != 0;
		mkw__inode_unpin(in);
	}
}

/* ---- the whole of it --------------------------------------------------- */

/*
 * A place for the chunk. NULL: there was none; with `wait` one is made meanwhile,
 * TREE released.
 */
static struct mkw__chunk *chunk_get(struct mkw__inode *in, uint64_t number,
				    bool wait)
{
	struct mkw__chunk *c = chunk_find(in, number), *idle = NULL, *owing = NULL;
	struct mkw__chunk *place;
	unsigned n;

	if (c)
		return c;
	for (place = places(in, number, &n); n--; place++) {
		c = place;
		if (!c->live || (!c->pins && !c->credits))
			idle = !idle || idle->live ? c : idle;
		else if (!c->pins)
			owing = c;
	}
	if (idle) {
		if (!idle->live)
			TAILQ_INSERT_TAIL(&of(in)->known, idle, link);
		idle->live = true;
		idle->number = number;
		memset(idle->state, UNKNOWN, sizeof(idle->state));
		return idle;
	}
	if (wait && owing)
		release_chunk(in, owing, true);
	else if (wait)
		sleep_on(in, c->number);
	return NULL;
}

/* How far a reservation goes. */
enum how {
	LOOK,			/* asks the store, waits for nobody: -EAGAIN */
	ALONE,			/* allocates the pages that are wanted */
	WITH_CREDIT,		/* and the other empty ones of the chunk */
};

static int reserve_once(struct mkw__inode *in, uint64_t first, uint64_t end,
			enum how how)
{
	uint64_t number = chunk_of(in, first), n = chunk_pages(in->engine);
	uint64_t pages;
	struct window w = { .first = first, .end = end, .lo = first, .hi = end };
	int r;

	mkw__mutex_lock(&in->tree);
	do {
		while (how != LOOK && busy(in, number))
			sleep_on(in, number);
		if (mkw__reserve_has_locked(in, first, end)) {
			mkw__mutex_unlock(&in->tree);
			return 0;
		}
		w.chunk = busy(in, number) ? NULL :
			  chunk_get(in, number, how != LOOK);
		if (!w.chunk && how == LOOK) {
			mkw__mutex_unlock(&in->tree);
			return -EAGAIN;
		}
	} while (!w.chunk);
	pages = mkw__pages_up(in->engine,
			      atomic_load_explicit(&in->size,
						   memory_order_acquire));
	if (how != ALONE && !taken(in, number * n, (number + 1) * n)) {
		w.lo = number * n;
		w.hi = mkw__max(end, mkw__min(w.lo + n, pages));
	}
	for (uint64_t i = w.lo; i < w.hi; i++) {
		w.state[i - w.lo] = state_of(in, i);
		w.dirty[i - w.lo] = is_dirty(in, i);
	}
	w.chunk->pins++;
	/* With a take at work anywhere what lies outside is not to be believed. */
	w.lost_seq = taken(in, 0, UINT64_MAX) ? UINT64_MAX : of(in)->lost_seq;
	begin(in, &w.op, number, w.lo, w.hi);
	mkw__mutex_unlock(&in->tree);

	r = look_up(in, &w);
	if (!r && how != LOOK)
		r = allocate(in, &w);
	mkw__mutex_lock(&in->tree);
	if (r == -EOPNOTSUPP)
		atomic_store(&of(in)->on, false);
	if (r)
		cut_backed(of(in), w.lo, w.hi);
	remember(in, &w);
	finish(in, &w.op);
	return r == -EOPNOTSUPP ? 0 : r;
}

static bool is_full(int r)
{
	return r == -ENOSPC || r == -EDQUOT;
}

/* Credit first, then the pages alone, then what is credit elsewhere. */
int mkw__reserve(struct mkw__inode *in, uint64_t first, uint64_t *end)
{
	uint64_t n = chunk_pages(in->engine);
	int r;

	*end = mkw__min(*end, (first / n + 1) * n);
	r = reserve_once(in, first, *end, WITH_CREDIT);
	if (is_full(r))
		r = reserve_once(in, first, *end, ALONE);
	if (is_full(r)) {
		release_all(in->engine, in->store->dev);
		r = reserve_once(in, first, *end, ALONE);
	}
	return r;
}

int mkw__reserve_ensure(struct mkw__inode *in, uint64_t first, uint64_t *end,
			bool nowait)
{
	uint64_t idx = first, stop, n = chunk_pages(in->engine);
	bool looked = false;
	int r;

	if (!mkw__reserve_on(in))
		return 0;
	/* Of one chunk: it is not forgotten for another's sake meanwhile. */
	*end = mkw__min(*end, (first / n + 1) * n);
	for (;;) {
		mkw__mutex_lock(&in->tree);
		while (idx < *end && mkw__reserve_has_locked(in, idx, idx + 1))
			hold(in, idx++, CREDIT, HELD);
		mkw__mutex_unlock(&in->tree);
		if (idx >= *end)
			return 0;
		stop = *end;
		if (nowait) {
			r = looked ? -EAGAIN : reserve_once(in, idx, stop, LOOK);
			looked = true;
		} else {
			r = mkw__reserve(in, idx, &stop);
		}
		if (is_full(r) && stop > idx + 1) {
			stop = idx + 1;
			r = mkw__reserve(in, idx, &stop);
		}
		if (r)
			break;
	}
	*end = idx;
	return idx > first ? 0 : r;
}

int mkw__reserve_present(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	uint64_t idx = first, stop;
	int r = 0;

	while (mkw__reserve_on(in) && !r) {
		mkw__mutex_lock(&in->tree);
		while ((idx = mkw__page_next_locked(in, idx, end,
						    PG_PRESENT_MASK)) < end &&
		       mkw__reserve_has_locked(in, idx, idx + 1))
			mkw__reserve_use_locked(in, idx++);
		mkw__mutex_unlock(&in->tree);
		if (idx >= end)
			break;
		stop = idx + 1;
		r = mkw__reserve(in, idx, &stop);
	}
	return r;
}

/* ---- operations of the store that make or take blocks ------------------ */

/* A reservation at work within the range of a take. */
static struct mkw__blocks_op *reaching(struct mkw__inode *in,
				       const struct mkw__blocks_op *take)
{
	struct mkw__blocks_op *o;

	TAILQ_FOREACH(o, &of(in)->under_way, link)
		if (!o->take && o->first < take->end && take->first < o->end)
			return o;
	return NULL;
}

/* The chunk of the page around byte off, if that is credit. */
static struct mkw__chunk *cut_credit(struct mkw__inode *in, uint64_t off)
{
	uint64_t idx = mkw__page_of(in->engine, off);

	return (off & (in->engine->page - 1)) && off != UINT64_MAX &&
	       owed(state_of(in, idx)) ?
		       chunk_find(in, chunk_of(in, idx)) : NULL;
}

void mkw__reserve_take(struct mkw__inode *in, struct mkw__blocks_op *op,
		       uint64_t off, uint64_t end)
{
	struct mkw__blocks_op *o;
	struct mkw__chunk *c;

	op->take = false;
	if (!mkw__reserve_on(in))
		return;
	*op = (struct mkw__blocks_op){ .take = true,
				       .first = mkw__page_of(in->engine, off),
				       .end = end > UINT64_MAX - in->engine->page ?
						      UINT64_MAX :
						      mkw__pages_up(in->engine, end) };
	mkw__mutex_lock(&in->tree);
	of(in)->lost_seq++;
	TAILQ_INSERT_TAIL(&of(in)->under_way, op, link);
	for (;;) {
		if ((o = reaching(in, op)))
			sleep_on(in, o->chunk);
		else if ((c = cut_credit(in, off)) || (c = cut_credit(in, end)))
			release_chunk(in, c, true);
		else
			break;
	}
	change(in, op->first, op->end, to_open);
	mkw__mutex_unlock(&in->tree);
}

/* Is a part of the page all that [off, end) has of it, and may that matter? */
static bool cuts(struct mkw__inode *in, uint64_t off)
{
	return (off & (in->engine->page - 1)) &&
	       (in->store->block < in->engine->page ||
		off >= atomic_load_explicit(&in->size, memory_order_acquire));
}

void mkw__reserve_took(struct mkw__inode *in, struct mkw__blocks_op *op,
		       uint64_t off, uint64_t end, enum mkw__took what)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__pages_up(e, off);
	uint64_t last = end == UINT64_MAX ? UINT64_MAX : mkw__page_of(e, end);

	if (!op->take)
		return;
	mkw__mutex_lock(&in->tree);
	switch (what) {
	case TOOK_NOTHING_KNOWN:
		cut_backed(of(in), op->first, op->end);
		change(in, op->first, op->end, to_unknown);
		break;
	case TOOK_ALLOCATED:
		change(in, first, last, to_backed);
		break;
	case TOOK_AWAY:
		if (MKW__MUTANT(PUNCH_KEEPS_RESERVED))
			break;
		cut_backed(of(in), op->first, op->end);
		change(in, first, last, to_empty);
		if (cuts(in, off))
			change(in, first - 1, first, to_unknown);
		if (end != UINT64_MAX && cuts(in, end))
			change(in, last, last + 1, to_unknown);
		break;
	}
	TAILQ_REMOVE(&of(in)->under_way, op, link);
	mkw__mutex_unlock(&in->tree);
}

void mkw__reserve_edge(struct mkw__inode *in, uint64_t off)
{
	struct mkw_engine *e = in->engine;
	uint64_t idx = mkw__page_of(e, off);
	bool dirty;

	if (!mkw__reserve_on(in) || !(off & (e->page - 1)) || in->store->block >= e->page)
		return;
	mkw__mutex_lock(&in->tree);
	dirty = pg_in(mkw__page_get_locked(in, idx), PG_DIRTY_MASK);
	mkw__mutex_unlock(&in->tree);
	if (dirty)
		mkw__store_allocate(in->store, idx << e->page_shift,
					 e->page);
}

void mkw__reserve_verify_locked(struct mkw__inode *in)
{
	struct mkw__chunk *c;
	uint64_t credits = 0;

	if (!TAILQ_EMPTY(&of(in)->under_way))
		mkw__os_panic("verify: somebody is at work on blocks of an idle file");
	TAILQ_FOREACH(c, &of(in)->known, link) {
		unsigned here = 0;

		for (unsigned i = 0; i < chunk_pages(in->engine); i++)
			here += c->state[i] == CREDIT;
		/* Nobody is about to use any, so that none is held. */
		if (here != c->credits || c->pins)
			mkw__os_panic("verify: chunk %llu has %u pages of credit, counted as %u, and %u pins",
				      (unsigned long long)c->number, here,
				      c->credits, c->pins);
		credits += here;
	}
	if (credits != of(in)->credits)
		mkw__os_panic("verify: %llu pages of credit, counted as %llu",
			      (unsigned long long)credits,
			      (unsigned long long)of(in)->credits);
}
