/* SPDX-License-Identifier: MIT */
/*
 * Page words, their leaves and their waiters; page.h says what they mean.
 *
 * mkw__page_set_locked() is the one function through which a page changes. A task
 * that takes several page locks, waiting for them, takes them in ascending order.
 * Counts that it keeps: leaf->used, inode->dirty, the engine's dirty pages, and
 * the pool's frames for a page that becomes ABSENT.
 */
#include "core/engine.h"

static int leaf_cmp(const struct mkw__leaf *a, const struct mkw__leaf *b)
{
	return a->first < b->first ? -1 : a->first > b->first;
}

/* Not RB_GENERATE_STATIC: that one needs __unused of the BSDs. */
RB_GENERATE_INTERNAL(mkw__leaf_tree, mkw__leaf, node, leaf_cmp,
		     static __attribute__((unused)))

/* doc/STATES.md draws it. */
const unsigned mkw__page_transitions[] = {
	[PG_ABSENT] = PG_BIT(PG_FILLING),
	[PG_FILLING] = PG_BIT(PG_CLEAN) | PG_BIT(PG_DIRTY) | PG_BIT(PG_ABSENT),
	[PG_CLEAN] = PG_BIT(PG_DIRTY) | PG_BIT(PG_ABSENT),
	[PG_DIRTY] = PG_BIT(PG_WRITEBACK) | PG_BIT(PG_ABSENT) |
		     PG_BIT(PG_CLEAN),
	[PG_WRITEBACK] = PG_BIT(PG_CLEAN) | PG_BIT(PG_WB_DIRTY) |
			 PG_BIT(PG_DIRTY),
	[PG_WB_DIRTY] = PG_BIT(PG_DIRTY),
};

static uint64_t leaf_first(uint64_t idx)
{
	return idx & ~(uint64_t)(MKW__LEAF_PAGES - 1);
}

struct mkw__leaf *mkw__page_leaf_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__leaf key, *leaf = in->hint;

	if (leaf && leaf->first == leaf_first(idx))
		return leaf;
	key.first = leaf_first(idx);
	leaf = RB_FIND(mkw__leaf_tree, &in->leaves, &key);
	if (leaf)
		in->hint = leaf;
	return leaf;
}

uint32_t mkw__page_get_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__leaf *leaf = mkw__page_leaf_locked(in, idx);

	return leaf ? leaf->word[idx % MKW__LEAF_PAGES] : 0;
}

bool mkw__page_prepare_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__leaf *leaf;

	if (mkw__page_leaf_locked(in, idx))
		return true;
	leaf = mkw__pool_leaf_get(in, leaf_first(idx));
	if (!leaf)
		return false;
	RB_INSERT(mkw__leaf_tree, &in->leaves, leaf);
	in->hint = leaf;
	mkw__glance_leaf_begins(in, leaf);
	return true;
}

void mkw__page_once_locked(struct mkw__inode *in, uint64_t idx, bool once)
{
	struct mkw__leaf *leaf = mkw__page_leaf_locked(in, idx);

	if (leaf)
		leaf->once = once;
}

bool mkw__page_is_once_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__leaf *leaf = mkw__page_leaf_locked(in, idx);

	return leaf && leaf->once;
}

static void count_dirty(struct mkw__inode *in, bool was, bool is)
{
	if (is && !was) {
		if (!in->dirty++)
			in->dirty_since_ns = mkw__os_now_ns();
		mkw__flusher_dirtied(in->engine, 1 + atomic_fetch_add_explicit(
			&in->engine->count.dirty_pages, 1, memory_order_relaxed));
	} else if (was && !is) {
		in->dirty--;
		mkw__count(&in->engine->count.dirty_pages, (uint64_t)-1);
	}
}

static void count_failed(struct mkw__inode *in, bool was, bool is)
{
	if (was == is)
		return;
	/* The write that failed was a try. */
	if (!in->failed)
		in->retried_ns = mkw__os_now_ns();
	in->failed += (uint64_t)is - was;
	mkw__count(&in->engine->count.failed_pages, (uint64_t)is - was);
}

/* The page has no word and no pin any more. */
static void leaf_unuse(struct mkw__inode *in, struct mkw__leaf *leaf)
{
	if (--leaf->used)
		return;
	RB_REMOVE(mkw__leaf_tree, &in->leaves, leaf);
	in->hint = NULL;
	mkw__glance_leaf_ends(in, leaf);
	mkw__pool_leaf_put(in->engine, leaf);
}

void mkw__page_set_locked(struct mkw__inode *in, uint64_t idx, uint32_t word)
{
	struct mkw__leaf *leaf = mkw__page_leaf_locked(in, idx);
	uint32_t old = leaf ? leaf->word[idx % MKW__LEAF_PAGES] : 0;
	enum mkw__page_state from = PG_STATE(old), to = PG_STATE(word);

	if (old == word)
		return;
	if (!leaf)
		mkw__os_panic("page %llu changes to 0x%x without a leaf",
			      (unsigned long long)idx, word);
	if (from != to && !(mkw__page_transitions[from] & PG_BIT(to)))
		mkw__os_panic("page %llu: no transition from state %d to %d (doc/STATES.md)",
			      (unsigned long long)idx, from, to);
	if (to == PG_ABSENT && (word & (PG_MAPPED | PG_WRITABLE | PG_MARK)))
		mkw__os_panic("page %llu becomes ABSENT with bits 0x%x",
			      (unsigned long long)idx, word);

	if (from != to)
		mkw__sim_page(in, idx, from, to);
	/* A page lock is let go by the task that took it. */
	if ((word & ~old) & PG_LOCKED)
		mkw__rank_take(MKW__RANK_PAGE, true);
	else if ((old & ~word) & PG_LOCKED)
		mkw__rank_drop(MKW__RANK_PAGE);
	count_dirty(in, pg_in(old, PG_DIRTY_MASK), pg_in(word, PG_DIRTY_MASK));
	if ((word & PG_FAILED) && !pg_in(word, PG_DIRTY_MASK))
		mkw__os_panic("page %llu has failed, and is not dirty: state %d",
			      (unsigned long long)idx, to);
	count_failed(in, old & PG_FAILED, word & PG_FAILED);
	if (to == PG_WRITEBACK && from == PG_DIRTY)
		mkw__reserve_use_locked(in, idx);
	leaf->word[idx % MKW__LEAF_PAGES] = (uint8_t)word;
	mkw__glance_page(in, leaf, idx, old, word);
	if (from != PG_ABSENT && to == PG_ABSENT)
		mkw__pool_frames_put(in->engine, 1);
	if (old && !word) {
		leaf_unuse(in, leaf);
	} else if (!old) {
		leaf->used++;
	}
}

void mkw__page_written_locked(struct mkw__inode *in, uint64_t idx, int res)
{
	uint32_t word = mkw__page_get_locked(in, idx);
	bool clean = !res && (PG_STATE(word) == PG_WRITEBACK ||
			      MKW__MUTANT(WRITE_FORGETS_STORES));

	word = pg_with(word & ~PG_FAILED, clean ? PG_CLEAN : PG_DIRTY);
	if (res && !MKW__MUTANT(FAILED_NOT_MARKED)) {
		word |= PG_FAILED;
		mkw__page_leaf_locked(in, idx)->error = (int16_t)res;
	}
	mkw__page_set_locked(in, idx, word);
}

int mkw__page_error_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__leaf *leaf = mkw__page_leaf_locked(in, idx);

	return leaf ? leaf->error : 0;
}

void mkw__page_unpin_locked(struct mkw__inode *in, uint64_t first, uint64_t end,
			    bool write)
{
	for (uint64_t idx = first; idx < end; idx++) {
		uint64_t bit = (uint64_t)1 << idx % MKW__LEAF_PAGES;
		struct mkw__leaf *leaf = mkw__page_leaf_locked(in, idx);

		if (!leaf || !(leaf->pinned & bit))
			continue;
		leaf->pinned_write &= ~bit;
		if (write)
			continue;
		leaf->pinned &= ~bit;
		leaf_unuse(in, leaf);
	}
}

bool mkw__page_pin_locked(struct mkw__inode *in, uint64_t first, uint64_t end,
			  bool write)
{
	for (uint64_t idx = first; idx < end; idx++) {
		uint64_t bit = (uint64_t)1 << idx % MKW__LEAF_PAGES;
		struct mkw__leaf *leaf;

		/* Those that have a leaf keep it: their bit is a use. */
		if (!mkw__page_prepare_locked(in, idx))
			return false;
		leaf = mkw__page_leaf_locked(in, idx);
		leaf->used += !(leaf->pinned & bit);
		leaf->pinned |= bit;
		if (write)
			leaf->pinned_write |= bit;
	}
	return true;
}

bool mkw__page_is_pinned_locked(struct mkw__inode *in, uint64_t idx, bool write)
{
	struct mkw__leaf *leaf = mkw__page_leaf_locked(in, idx);

	return leaf && ((write ? leaf->pinned_write : leaf->pinned) >>
			idx % MKW__LEAF_PAGES & 1);
}

uint64_t mkw__page_next_locked(struct mkw__inode *in, uint64_t idx,
			       uint64_t end, unsigned mask)
{
	struct mkw__leaf key, *leaf;

	if (idx >= end)
		return end;
	key.first = leaf_first(idx);
	for (leaf = RB_NFIND(mkw__leaf_tree, &in->leaves, &key);
	     leaf && leaf->first < end;
	     leaf = RB_NEXT(mkw__leaf_tree, &in->leaves, leaf)) {
		uint64_t i = mkw__max(idx, leaf->first);
		uint64_t stop = mkw__min(end, leaf->first + MKW__LEAF_PAGES);

		for (; i < stop; i++)
			if (pg_in(leaf->word[i % MKW__LEAF_PAGES], mask))
				return i;
	}
	return end;
}

/* ---- waiters ---------------------------------------------------------- */

static struct mkw__waiters *bucket(struct mkw__inode *in, uint64_t idx)
{
	return &in->waiters[idx % MKW__PAGE_WAIT_BUCKETS];
}

void mkw__page_enqueue_locked(struct mkw__inode *in, uint64_t idx,
			      struct mkw__waiter *w)
{
	w->key = idx;
	TAILQ_INSERT_TAIL(bucket(in, idx), w, link);
}

void mkw__page_wake_locked(struct mkw__inode *in, uint64_t idx,
			   struct mkw__waiters *woken)
{
	struct mkw__waiters *b = bucket(in, idx);
	struct mkw__waiter *w, *next;

	for (w = TAILQ_FIRST(b); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (w->key != idx)
			continue;
		TAILQ_REMOVE(b, w, link);
		TAILQ_INSERT_TAIL(woken, w, link);
	}
}

void mkw__page_sleep_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__sleeper s;

	mkw__sleeper_init(&s);
	mkw__page_enqueue_locked(in, idx, &s.waiter);
	mkw__mutex_unlock(&in->tree);
	/* As if for the page lock itself: for whoever has the page. */
	mkw__rank_take(MKW__RANK_PAGE, false);
	mkw__sleeper_wait(&s);
	mkw__rank_drop(MKW__RANK_PAGE);
	mkw__mutex_lock(&in->tree);
}

void mkw__page_wait(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	const unsigned mask = PG_BIT(PG_FILLING) | PG_BIT(PG_WRITEBACK) |
			      PG_BIT(PG_WB_DIRTY);
	uint64_t idx;

	if (MKW__MUTANT(R4_NO_WAIT))
		return;
	mkw__mutex_lock(&in->tree);
	/* A locked page is in some state but ABSENT, so this finds it, too. */
	idx = first;
	while ((idx = mkw__page_next_locked(in, idx, end,
					    ~PG_BIT(PG_ABSENT))) < end) {
		uint32_t word = mkw__page_get_locked(in, idx);

		if ((word & PG_LOCKED) || pg_in(word, mask))
			mkw__page_sleep_locked(in, idx);
		else
			idx++;
	}
	mkw__mutex_unlock(&in->tree);
}

void mkw__page_dirty_range(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	uint64_t idx = first;

	if (MKW__MUTANT(FAILED_TAKE_LEAVES_CLEAN))
		return;
	mkw__mutex_lock(&in->tree);
	while ((idx = mkw__page_next_locked(in, idx, end, PG_BIT(PG_CLEAN))) <
	       end)
		mkw__page_set_locked(in, idx,
				     pg_stored(mkw__page_get_locked(in, idx)));
	mkw__mutex_unlock(&in->tree);
}

void mkw__page_end_run(struct mkw__inode *in, uint64_t idx, size_t n,
		       uint32_t word)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);

	mkw__mutex_lock(&in->tree);
	for (size_t i = 0; i < n; i++) {
		mkw__page_set_locked(in, idx + i, word);
		mkw__page_wake_locked(in, idx + i, &woken);
	}
	mkw__mutex_unlock(&in->tree);
	mkw__waiters_wake(&woken);
}

void mkw__page_unlock_run(struct mkw__inode *in, uint64_t idx, size_t n,
			  uint32_t clear)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);

	mkw__mutex_lock(&in->tree);
	for (size_t i = 0; i < n; i++) {
		uint32_t word = mkw__page_get_locked(in, idx + i);

		mkw__page_set_locked(in, idx + i,
				     word & ~(clear | PG_LOCKED));
		if (!MKW__MUTANT(PAGE_WAKES_NOBODY))
			mkw__page_wake_locked(in, idx + i, &woken);
	}
	mkw__mutex_unlock(&in->tree);
	mkw__waiters_wake(&woken);
}
