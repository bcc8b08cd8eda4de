/* SPDX-License-Identifier: MIT */
/*
 * Reclaim: taking frames back when the cache is full.
 *
 * There is no accessed bit. Leaves stand in two lists, in order of arrival, and a
 * page goes in two steps:
 *   active    the oldest leaf's pages lose their mappings, in one cluster, and keep
 *             their frames; the leaf moves to the inactive list
 *   inactive  pages that are still unmapped when their turn comes were not
 *             touched through a mapping meanwhile: clean ones are dropped. A
 *             leaf with pages left (touched again, dirty) goes back to active.
 *
 * A leaf that readahead has filled for a stream, and that nobody has come back to, goes
 * in one: what is read once is not to push out what is used.
 *
 * All of it only while nobody holds any lock on the pages: everything exclusively,
 * by try-lock, then the page lock. So no reader sees a frame vanish, and no fault
 * maps a page that is being dropped.
 */
#include "core/engine.h"

/* The oldest leaf of a list, moved to the other list's end; its inode pinned. */
static struct mkw__inode *take_leaf(struct mkw_engine *e, bool inactive,
				    uint64_t *first)
{
	struct mkw__pool *p = &e->pool;
	struct mkw__inode *in = NULL;
	struct mkw__leaf *leaf;

	mkw__mutex_lock(&p->mutex);
	leaf = TAILQ_FIRST(inactive ? &p->inactive : &p->active);
	if (leaf) {
		TAILQ_REMOVE(inactive ? &p->inactive : &p->active, leaf, lru);
		TAILQ_INSERT_TAIL(inactive ? &p->active : &p->inactive, leaf,
				  lru);
		leaf->inactive = !inactive;
		in = leaf->inode;
		*first = leaf->first;
		if (!mkw__inode_pin_locked(in))
			in = NULL;
	}
	mkw__mutex_unlock(&p->mutex);
	return in;
}

enum which { MAPPED, UNMAPPED_CLEAN, CLEAN };

/* Locks those of the pages [first, end), at most a leaf's; a bit for each. */
static uint64_t lock_pages(struct mkw__inode *in, uint64_t first, uint64_t end,
			   enum which which)
{
	uint64_t bits = 0;

	_Static_assert(MKW__LEAF_PAGES == 64, "a bit for each page");
	mkw__mutex_lock(&in->tree);
	for (unsigned i = 0; i < end - first; i++) {
		uint32_t word = mkw__page_get_locked(in, first + i);

		if (word & PG_LOCKED)
			continue;
		if (which == MAPPED ? (word & PG_MAPPED) != 0 :
				      (PG_STATE(word) == PG_CLEAN ||
				       (PG_STATE(word) == PG_DIRTY &&
					MKW__MUTANT(RECLAIM_DROPS_DIRTY))) &&
					      (which == CLEAN ||
					       !(word & PG_MAPPED))) {
			mkw__page_set_locked(in, first + i, word | PG_LOCKED);
			bits |= (uint64_t)1 << i;
		}
	}
	mkw__mutex_unlock(&in->tree);
	return bits;
}

/* The next run of set bits from *at; its length, 0 at the end. */
static unsigned next_run(uint64_t bits, unsigned *at)
{
	unsigned n = 0;

	while (*at < 64 && !(bits >> *at & 1))
		++*at;
	while (*at + n < 64 && (bits >> (*at + n) & 1))
		n++;
	return n;
}

static size_t unmap_pages(struct mkw__inode *in, uint64_t first, uint64_t bits)
{
	size_t total = 0;
	unsigned at, n;

	for (at = 0; (n = next_run(bits, &at)); at += n) {
		mkw__map_zap(in, first + at, n);
		mkw__page_unlock_run(in, first + at, n,
				     PG_MAPPED | PG_WRITABLE);
		total += n;
	}
	return total;
}

static size_t drop_pages(struct mkw__inode *in, uint64_t first, uint64_t bits)
{
	unsigned shift = in->engine->page_shift;
	size_t total = 0;
	unsigned at, n;

	for (at = 0; (n = next_run(bits, &at)); at += n) {
		int r = mkw__os_frames_drop(in->frames, (first + at) << shift,
					    (uint64_t)n << shift);

		if (r) {
			mkw__page_unlock_run(in, first + at, n, 0);
			continue;
		}
		mkw__page_end_run(in, first + at, n, PG_ABSENT);
		total += n;
	}
	return total;
}

/* Both steps at once for clean pages of one leaf's worth, where nobody holds them. */
static void evict(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	struct mkw__range_req table;
	struct mkw__excl x;
	uint64_t bits;

	if (!mkw__excl_trylock_all(in, &x, first, end))
		return;
	mkw__map_table_lock(&table);
	bits = lock_pages(in, first, end, CLEAN);
	mkw__count(&in->engine->count.reclaim_dropped,
		   drop_pages(in, first, bits));
	mkw__map_table_unlock(&table);
	mkw__excl_unlock_all(in, &x);
}

void mkw__reclaim_range(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	uint64_t next;

	for (; first < end; first = next) {
		mkw__mutex_lock(&in->tree);
		first = mkw__page_next_locked(in, first, end, PG_PRESENT_MASK);
		mkw__mutex_unlock(&in->tree);
		next = mkw__min((first | (MKW__LEAF_PAGES - 1)) + 1, end);
		if (first < end)
			evict(in, first, next);
	}
	mkw__pool_poke(in->engine);
}

/* One step on one leaf; frames freed. *found: there was a leaf. */
static size_t step(struct mkw_engine *e, bool inactive, bool *found)
{
	struct mkw__range_req table;
	struct mkw__inode *in;
	struct mkw__excl x;
	uint64_t first, bits;
	size_t freed = 0;
	bool once, locked;

	in = take_leaf(e, inactive, &first);
	*found = in != NULL;
	if (!in)
		return 0;
	locked = mkw__excl_trylock_all(in, &x, first, first + MKW__LEAF_PAGES);
	if (locked || MKW__MUTANT(RECLAIM_IGNORES_HOLDERS)) {
		mkw__map_table_lock(&table);
		mkw__mutex_lock(&in->tree);
		once = mkw__page_is_once_locked(in, first);
		mkw__mutex_unlock(&in->tree);
		bits = lock_pages(in, first, first + MKW__LEAF_PAGES,
				  once ? CLEAN :
				  inactive ? UNMAPPED_CLEAN : MAPPED);
		if (inactive || once) {
			freed = drop_pages(in, first, bits);
			mkw__count(&e->count.reclaim_dropped, freed);
		} else {
			mkw__count(&e->count.reclaim_unmapped,
				   unmap_pages(in, first, bits));
		}
		mkw__map_table_unlock(&table);
		if (locked)
			mkw__excl_unlock_all(in, &x);
	}
	mkw__inode_unpin(in);
	return freed;
}

size_t mkw__reclaim(struct mkw_engine *e, size_t want)
{
	size_t freed = 0, steps = 0, steps_max;
	bool some = true, more;

	mkw__mutex_lock(&e->pool.mutex);
	steps_max = 2 * e->pool.leaves_used;
	mkw__mutex_unlock(&e->pool.mutex);
	/* Each leaf is met about twice: what is left then is in use. */
	while (freed < want && some && steps++ < steps_max) {
		/* Keep about as many leaves inactive as active. */
		freed += step(e, false, &some);
		freed += step(e, true, &more);
		some |= more;
	}
	return freed;
}
