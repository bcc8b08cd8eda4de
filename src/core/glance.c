/* SPDX-License-Identifier: MIT */
/*
 * Glances: short reads of what is cached, into ordinary memory, with no lock, no
 * system call and no signal blocked. All that a read needs its locks for is looked at
 * before the copy, and again after it; if it was not so, or is not any more, the
 * read is done anew in the long way (io.c), which keeps every promise. Whatever
 * part of the buffer has changed, that one overwrites, or the caller is told that
 * it read less.
 *
 * What could go wrong, and why it does not:
 *
 * Bytes that change. Whoever changes bytes of the file other than through a mapping
 *   (each word by itself, to a glance as to any read), drops frames, or moves the end
 *   of the file holds the iolock exclusively. As long as he does, the counters of the
 *   file's parts that his range touches are *raised* (excl.c): a part is a leaf's
 *   worth of pages, and stands for all that are MKW__GLANCE_PARTS apart; a long range
 *   raises `wide` instead. A counter has who is at work in its low bits, and above
 *   them how often it was lowered, so that one who came and went shows. A glance
 *   wants its counters not raised before the copy and the same after it: then nobody
 *   held that range meanwhile, which is all that a shared iolock could say, and it was
 *   atomic at any moment in between (G1).
 *
 *	writer				glance
 *	raise, full barrier		counters, acquire
 *	bytes				ready bits, copy
 *	lower, release			acquire barrier, counters again
 *
 *   If a copied byte is the writer's, the counter read after it shows his raise (at
 *   least); if the counter read before shows his lowering, so do all bytes.
 *
 * Frames that are not there. A page is *ready* while it is present and has no mark of
 *   readahead's: a bit that is set, with release, once its frame was published, and
 *   cleared when it has gone. It goes only under the exclusive iolock; so a bit that
 *   was seen after the counters is good until they change.
 *
 * Frames that go. A copy that has begun would go on when the counter is raised. So
 *   before he drops frames the holder calls a barrier after which no copy goes on
 *   that has not seen it (os.h): the copy compares the counters once more in the very
 *   piece of code that the barrier ends. A barrier interrupts all processors; it
 *   is spared where no page to be dropped was *touched*:
 *
 *	holder				glance
 *	raise, full barrier		set touched, full barrier
 *	touched?			compare the counters
 *
 *   One of them sees the other. A glance that finds the bit set adds none: the bit was
 *   seen, and so is there for all who look later (the processors on which there are
 *   glances agree on the order of stores). Reclaim clears the bits, with the counter
 *   raised, and what it clears counts as touched until there was a barrier: a copy may
 *   have begun under the bit and go on. One that has yet to compare the counters
 *   compares them in vain, if they are from before.
 *
 * Leaves that go. A glance finds the leaf by a table without a lock, where the last one
 *   of each hash is. Leaves are never freed while the engine is open, but used again for other
 *   pages, or another file. `life` is odd while a leaf is in a tree and never
 *   the same again: what was read between two looks at it, the same and odd, is of one
 *   life. (Stores of a new life come after that of the even number, by a release
 *   fence; the second look comes after the loads, by an acquire fence.) That the
 *   leaf goes afterwards does no harm: its pages must have gone first.
 *
 * Buffers that are mappings (R0). The task remembers the gap between mappings where it
 *   last saw that a buffer was; making a mapping raises a counter like the
 *   others, and calls the barrier, before it takes any address (map.c).
 *
 * Signal handlers, cancellation. Nothing is held. A handler that runs in the middle
 *   ends the copy; whatever it does, the glance only fails.
 *
 * A glance waits for nobody. One who waits for the iolock is not delayed by it, and it
 * may pass him: he has not begun.
 */
#include "core/engine.h"

#define GLANCE_MAX ((size_t)16 << 10)
/* More parts than this raise `wide`. */
#define PARTS_ONE_BY_ONE 16u
/* A counter: so many bits for those at work, above them the times it was lowered. */
#define ENDED ((uint64_t)1 << 20)

/* ---- counters ----------------------------------------------------------- */

void mkw__glance_raise(_Atomic uint64_t *counter)
{
	/* Before all stores that follow; and a full barrier for `touched`. */
	atomic_fetch_add_explicit(counter, 1, memory_order_seq_cst);
	mkw__fence(memory_order_seq_cst);
}

void mkw__glance_lower(_Atomic uint64_t *counter)
{
	/* After all stores before it. */
	atomic_fetch_add_explicit(counter, ENDED - 1, memory_order_release);
}

/* Calls fn for the counters of bytes [start, end). */
static void each_counter(struct mkw__inode *in, uint64_t start, uint64_t end,
			 void (*fn)(_Atomic uint64_t *counter))
{
	unsigned shift = in->engine->page_shift;
	uint64_t first = (start >> shift) / MKW__LEAF_PAGES;
	uint64_t last = ((end - 1) >> shift) / MKW__LEAF_PAGES;

	if (start >= end || MKW__MUTANT(GLANCE_WRITE_UNSEEN))
		return;
	if (last - first >= PARTS_ONE_BY_ONE) {
		fn(&in->glance.wide);
		return;
	}
	for (; first <= last; first++)
		fn(&in->glance.part[first % MKW__GLANCE_PARTS]);
}

void mkw__glance_shut(struct mkw__inode *in, uint64_t start, uint64_t end)
{
	each_counter(in, start, end, mkw__glance_raise);
}

void mkw__glance_open(struct mkw__inode *in, uint64_t start, uint64_t end)
{
	each_counter(in, start, end, mkw__glance_lower);
}

/* ---- leaves, as glances find them --------------------------------------- */

static _Atomic(struct mkw__leaf *) *slot_of(const struct mkw__inode *in,
					    uint64_t first)
{
	uint64_t key = (uintptr_t)in / sizeof(*in) + first / MKW__LEAF_PAGES;

	/* Neighbours in neighbouring slots; files apart. */
	key += (uintptr_t)in * 0x9e3779b97f4a7c15u >> 40;
	return &in->engine->pool.shown[key & in->engine->pool.shown_mask];
}

void mkw__glance_leaf_begins(struct mkw__inode *in, struct mkw__leaf *leaf)
{
	uint64_t life;

	if (!in->engine->glance)
		return;
	life = atomic_load_explicit(&leaf->life, memory_order_relaxed);
	/* What the pool did to it, and this, after the number that ended its last life. */
	mkw__fence(memory_order_release);
	atomic_store_explicit(&leaf->ready, 0, memory_order_relaxed);
	atomic_store_explicit(&leaf->touched, 0, memory_order_relaxed);
	atomic_store_explicit(&leaf->shown_inode, in, memory_order_relaxed);
	atomic_store_explicit(&leaf->shown_first, leaf->first,
			      memory_order_relaxed);
	atomic_store_explicit(&leaf->life, life + 1, memory_order_release);
	atomic_store_explicit(slot_of(in, leaf->first), leaf,
			      memory_order_release);
}

void mkw__glance_leaf_ends(struct mkw__inode *in, struct mkw__leaf *leaf)
{
	struct mkw__leaf *shown = leaf;
	uint64_t life;

	if (!in->engine->glance)
		return;
	/* Another leaf may have taken the slot. */
	atomic_compare_exchange_strong_explicit(slot_of(in, leaf->first), &shown,
						NULL, memory_order_relaxed,
						memory_order_relaxed);
	life = atomic_load_explicit(&leaf->life, memory_order_relaxed);
	atomic_store_explicit(&leaf->life, life + 1, memory_order_relaxed);
	mkw__fence(memory_order_release);
}

static bool can_be_read(uint32_t word)
{
	if (MKW__MUTANT(GLANCE_EARLY_READY) && PG_STATE(word) == PG_FILLING)
		return true;
	return pg_in(word, PG_PRESENT_MASK) && !(word & PG_MARK);
}

void mkw__glance_page(struct mkw__inode *in, struct mkw__leaf *leaf, uint64_t idx,
		      uint32_t old, uint32_t word)
{
	uint64_t ready, bit = (uint64_t)1 << idx % MKW__LEAF_PAGES;

	if (!in->engine->glance || can_be_read(old) == can_be_read(word))
		return;
	/* TREE is held: nobody else stores. */
	ready = atomic_load_explicit(&leaf->ready, memory_order_relaxed);
	ready = can_be_read(word) ? ready | bit : ready & ~bit;
	/* Release: its frame is there, and its bytes. */
	atomic_store_explicit(&leaf->ready, ready, memory_order_release);
}

/* ---- who drops, and reclaim --------------------------------------------- */

/* The bits of pages [idx, idx + n), in one leaf. */
static uint64_t bits_of(uint64_t idx, size_t n)
{
	uint64_t all = n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX;

	return all << idx % MKW__LEAF_PAGES;
}

uint64_t mkw__glance_touched_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__leaf *leaf;

	if (!in->engine->glance)
		return 0;
	leaf = mkw__page_leaf_locked(in, idx);
	return leaf ? atomic_load_explicit(&leaf->touched,
					   memory_order_relaxed) : 0;
}

void mkw__glance_forget_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__leaf *leaf;

	/* Most have nothing to be forgotten. */
	if (!mkw__glance_touched_locked(in, idx))
		return;
	leaf = mkw__page_leaf_locked(in, idx);
	leaf->forgotten |= atomic_exchange_explicit(&leaf->touched, 0,
						    memory_order_relaxed);
}

bool mkw__glance_may_go_on_locked(struct mkw__inode *in, uint64_t idx,
				  uint64_t bits)
{
	struct mkw__leaf *leaf;
	uint64_t touched;

	if (!in->engine->glance || MKW__MUTANT(GLANCE_NO_BARRIER))
		return false;
	leaf = mkw__page_leaf_locked(in, idx);
	if (!leaf)
		return false;
	touched = leaf->forgotten |
		  atomic_load_explicit(&leaf->touched, memory_order_relaxed);
	if (!(touched & bits))
		return false;
	leaf->forgotten &= ~bits;
	return true;
}

void mkw__glance_expel(struct mkw__inode *in, uint64_t idx, size_t n)
{
	uint64_t first = idx, end = idx + n, part;
	bool touched = false;

	if (!in->engine->glance)
		return;
	mkw__mutex_lock(&in->tree);
	for (; first < end; first += part) {
		part = mkw__min(end - first,
				MKW__LEAF_PAGES - first % MKW__LEAF_PAGES);
		touched |= mkw__glance_may_go_on_locked(in, first,
							bits_of(first, part));
	}
	mkw__mutex_unlock(&in->tree);
	if (touched)
		mkw__os_glance_barrier();
}

/* ---- reading ------------------------------------------------------------- */

/* Are these pages ready, all of one leaf? They are then touched. */
static bool look_at_leaf(struct mkw__inode *in, uint64_t idx, size_t n)
{
	uint64_t first = idx & ~(uint64_t)(MKW__LEAF_PAGES - 1);
	uint64_t bits = bits_of(idx, n), life;
	struct mkw__leaf *leaf;

	/* Acquire, both: pair with _leaf_begins(). */
	leaf = atomic_load_explicit(slot_of(in, first), memory_order_acquire);
	if (!leaf)
		return false;
	life = atomic_load_explicit(&leaf->life, memory_order_acquire);
	if (!(life & 1) ||
	    atomic_load_explicit(&leaf->shown_inode,
				 memory_order_relaxed) != in ||
	    atomic_load_explicit(&leaf->shown_first,
				 memory_order_relaxed) != first)
		return false;
	/* Acquire: pairs with mkw__glance_page(). */
	if (~atomic_load_explicit(&leaf->ready, memory_order_acquire) & bits)
		return false;
	if (~atomic_load_explicit(&leaf->touched, memory_order_relaxed) & bits) {
		atomic_fetch_or_explicit(&leaf->touched, bits,
					 memory_order_seq_cst);
		mkw__fence(memory_order_seq_cst);
	}
	mkw__fence(memory_order_acquire);
	return atomic_load_explicit(&leaf->life, memory_order_relaxed) == life;
}

static bool look_at_pages(struct mkw__inode *in, uint64_t idx, uint64_t last)
{
	while (idx <= last) {
		size_t n = mkw__min(last + 1 - idx,
				    MKW__LEAF_PAGES - idx % MKW__LEAF_PAGES);

		if (!look_at_leaf(in, idx, n))
			return false;
		idx += n;
	}
	return true;
}

/* False: somebody is at work there. */
static bool watch(struct mkw__os_watch *w, const _Atomic uint64_t *counter)
{
	w->word = counter;
	w->value = atomic_load_explicit(counter, memory_order_acquire);
	return !mkw__glance_is_raised(w->value);
}

static bool unchanged(const struct mkw__os_watch w[MKW__GLANCE_WATCHES])
{
	if (MKW__MUTANT(GLANCE_NO_RECHECK))
		return true;
	/* The copy before these. */
	mkw__fence(memory_order_acquire);
	for (unsigned i = 0; i < MKW__GLANCE_WATCHES; i++)
		if (atomic_load_explicit(w[i].word, memory_order_relaxed) !=
		    w[i].value)
			return false;
	return true;
}

bool mkw__glance(struct mkw__inode *in, void *buf, size_t len, uint64_t off)
{
	struct mkw__os_watch w[MKW__GLANCE_WATCHES];
	struct mkw__glance *g = &in->glance;
	unsigned shift = in->engine->page_shift;
	uint64_t idx = off >> shift, last = (off + len - 1) >> shift;

	/* Not more pages than a leaf has, so that they lie in two at most. */
	if (!in->engine->glance || len > GLANCE_MAX ||
	    last - idx >= MKW__LEAF_PAGES || !mkw__ubuf_known(buf, len, &w[0]))
		return false;
	if (!watch(&w[1], &g->wide) ||
	    !watch(&w[2], &g->part[idx / MKW__LEAF_PAGES % MKW__GLANCE_PARTS]) ||
	    !watch(&w[3], &g->part[last / MKW__LEAF_PAGES % MKW__GLANCE_PARTS]))
		return false;
	mkw__os_step(".glances");
	if (off + len > atomic_load_explicit(&in->size, memory_order_acquire) ||
	    !look_at_pages(in, idx, last) ||
	    !mkw__os_glance_read(in->frames, off, buf, len, w))
		return false;
	if (!unchanged(w))
		return false;
#ifdef MKW_TESTING
	mkw__count(&mkw__testing.glances, 1);
#endif
	return true;
}

bool mkw__glance_first(struct mkw__inode *in, void *buf, size_t len, uint64_t off)
{
	struct mkw__os_watch maps;
	struct mkw__ubuf u;

	if (!in->engine->glance || len > GLANCE_MAX)
		return false;
	mkw__os_glance_join();
	if (!mkw__ubuf_known(buf, len, &maps)) {
		if (mkw__ubuf_begin(&u, buf, len))
			return false;
		mkw__ubuf_look(buf, len);
		mkw__ubuf_end(&u);
	}
	return mkw__glance(in, buf, len, off);
}

void mkw__glance_learn(struct mkw__inode *in, const void *buf, size_t len,
		       uint64_t off)
{
	struct mkw_engine *e = in->engine;
	uint64_t idx = off >> e->page_shift;
	struct mkw__leaf *leaf;

	if (!e->glance || len > GLANCE_MAX)
		return;
	mkw__os_glance_join();
	mkw__ubuf_look(buf, len);
	/* Two leaves of one hash take the slot in turn. */
	mkw__mutex_lock(&in->tree);
	leaf = mkw__page_leaf_locked(in, idx);
	if (leaf && atomic_load_explicit(slot_of(in, leaf->first),
					 memory_order_relaxed) != leaf)
		atomic_store_explicit(slot_of(in, leaf->first), leaf,
				      memory_order_release);
	mkw__mutex_unlock(&in->tree);
}
