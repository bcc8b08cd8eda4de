/* SPDX-License-Identifier: MIT */
/*
 * Reclaim: taking frames back when the cache is full.
 *
 * There is no accessed bit. Leaves stand in two lists, in order of arrival, and a
 * page goes in two steps:
 *   active    the oldest leaf's pages lose their mappings, and keep their frames; the
 *             leaf moves to the inactive list
 *   inactive  pages that are still unmapped when their turn comes were not
 *             touched through a mapping meanwhile: clean ones are dropped. A
 *             leaf with pages left (touched again, dirty) goes back to active.
 *
 * Nor do reads that go through no mapping show, but for those that found their pages
 * cached and took no lock (glance.c), which leave a bit: such a page is passed over on
 * the inactive list, unless a whole turn has not freed enough.
 *
 * A leaf that readahead has filled for a stream, and that nobody has come back to, goes
 * in one: what is read once is not to push out what is used.
 *
 * Clusters. What a page costs to unmap or to drop is for the most part the processor's
 * translations that are thrown away, once a call. So leaves that follow each other
 * in a list and in the file go together, and a cluster loses its mappings by one call
 * for each, that of the engine included, before its frames are dropped run by run.
 * Such a call takes mappings of pages between, too, that are staying: they fault once
 * more, and are found as they were.
 *
 * All of it only while nobody holds any lock on the pages: everything exclusively,
 * by try-lock, then the page lock. So no reader sees a frame vanish, and no fault
 * maps a page that is being dropped.
 */
#include "core/engine.h"

#define CLUSTER_LEAVES 16u

struct cluster {
	struct mkw__inode *inode;	/* pinned */
	uint64_t first;			/* page; of `leaves` leaves */
	unsigned leaves;
	/* Pages that are locked, a bit for each; and which leaves' are dropped. */
	uint64_t locked[CLUSTER_LEAVES];
	bool drop[CLUSTER_LEAVES];
	bool pinned;			/* a page that is not locked */
	bool glanced;			/* at some of those, perhaps still */
};

/* A small cache is not to lose much of itself at once. */
static unsigned leaves_max(const struct mkw_engine *e)
{
	uint64_t n = e->pool.frames_max / MKW__LEAF_PAGES / 16;

	return n < 1 ? 1 : n > CLUSTER_LEAVES ? CLUSTER_LEAVES : (unsigned)n;
}

/* Is the leaf one more of the cluster, at either end of it? */
static bool joins(const struct cluster *c, const struct mkw__leaf *leaf)
{
	return leaf->inode == c->inode &&
	       (leaf->first == c->first + c->leaves * MKW__LEAF_PAGES ||
		leaf->first + MKW__LEAF_PAGES == c->first);
}

/* The oldest leaves of a list, moved to the other list's end. False: there is none. */
static bool take_leaves(struct mkw_engine *e, bool inactive, struct cluster *c)
{
	struct mkw__pool *p = &e->pool;
	struct mkw__leaf_list *from = inactive ? &p->inactive : &p->active;
	struct mkw__leaf_list *to = inactive ? &p->active : &p->inactive;
	unsigned max = leaves_max(e);
	struct mkw__leaf *leaf;

	c->leaves = 0;
	mkw__mutex_lock(&p->mutex);
	while ((leaf = TAILQ_FIRST(from)) && c->leaves < max &&
	       (!c->leaves || joins(c, leaf))) {
		TAILQ_REMOVE(from, leaf, lru);
		TAILQ_INSERT_TAIL(to, leaf, lru);
		leaf->inactive = !inactive;
		if (!c->leaves++) {
			c->inode = leaf->inode;
			c->first = leaf->first;
		} else if (leaf->first < c->first) {
			c->first = leaf->first;
		}
	}
	if (c->leaves && !mkw__inode_pin_locked(c->inode))
		c->leaves = 0;
	mkw__mutex_unlock(&p->mutex);
	return c->leaves;
}

/* UNTOUCHED: unmapped, clean, and not glanced at. MAPPED begins a turn of those. */
enum which { MAPPED, UNTOUCHED, UNMAPPED_CLEAN, CLEAN };

static bool is_which(uint32_t word, enum which which)
{
	if (word & PG_LOCKED)
		return false;
	if (which == MAPPED)
		return word & PG_MAPPED;
	return (PG_STATE(word) == PG_CLEAN ||
		(PG_STATE(word) == PG_DIRTY && MKW__MUTANT(RECLAIM_DROPS_DIRTY))) &&
	       (which == CLEAN || !(word & PG_MAPPED));
}

/* Locks those of the pages [first, end), at most a leaf's; a bit for each. */
static uint64_t lock_pages_locked(struct cluster *c, uint64_t first,
				  uint64_t end, enum which which)
{
	struct mkw__inode *in = c->inode;
	uint64_t bits = 0, spared = 0;

	_Static_assert(MKW__LEAF_PAGES == 64, "a bit for each page");
	if (which == MAPPED)
		mkw__glance_forget_locked(in, first);
	else if (which == UNTOUCHED)
		spared = mkw__glance_touched_locked(in, first);
	for (unsigned i = 0; i < end - first; i++) {
		uint32_t word = mkw__page_get_locked(in, first + i);
		bool pinned = mkw__page_is_pinned_locked(in, first + i, false) &&
			      !MKW__MUTANT(PIN_DROPPED);

		c->pinned |= pinned;
		if (!is_which(word, which) || (spared >> i & 1) || pinned)
			continue;
		mkw__page_set_locked(in, first + i, word | PG_LOCKED);
		bits |= (uint64_t)1 << i;
	}
	return bits;
}

/* Locks what this step takes of each leaf, and says what becomes of it. */
static void lock_cluster(struct cluster *c, bool inactive, bool hard)
{
	struct mkw__inode *in = c->inode;

	c->pinned = false;
	c->glanced = false;
	mkw__mutex_lock(&in->tree);
	for (unsigned i = 0; i < c->leaves; i++) {
		uint64_t first = c->first + i * MKW__LEAF_PAGES;
		bool once = mkw__page_is_once_locked(in, first);

		c->drop[i] = once || inactive;
		c->locked[i] = lock_pages_locked(c, first, first + MKW__LEAF_PAGES,
						 once ? CLEAN :
						 !inactive ? MAPPED :
						 hard ? UNMAPPED_CLEAN :
							UNTOUCHED);
		if (c->drop[i])
			c->glanced |= mkw__glance_may_go_on_locked(in, first,
								   c->locked[i]);
	}
	mkw__mutex_unlock(&in->tree);
}

/*
 * The next run of locked pages, from page *at of the cluster on, of leaves that are
 * dropped, or are not; its length, 0 at the end.
 */
static size_t next_run(const struct cluster *c, bool drop, size_t *at)
{
	size_t end = c->leaves * MKW__LEAF_PAGES, n = 0;

#define IS_ONE(i)                                        \
	(c->drop[(i) / MKW__LEAF_PAGES] == drop &&       \
	 c->locked[(i) / MKW__LEAF_PAGES] >> ((i) % MKW__LEAF_PAGES) & 1)
	while (*at < end && !IS_ONE(*at))
		++*at;
	while (*at + n < end && IS_ONE(*at + n))
		n++;
#undef IS_ONE
	return n;
}

/* From the first locked page to the last, of either kind; false: there is none. */
static bool span(const struct cluster *c, uint64_t *first, size_t *n)
{
	bool some = false;

	for (unsigned i = 0; i < c->leaves; i++) {
		uint64_t base = c->first + i * MKW__LEAF_PAGES;

		if (!c->locked[i])
			continue;
		if (!some)
			*first = base + (unsigned)__builtin_ctzll(c->locked[i]);
		*n = base + 64 - (unsigned)__builtin_clzll(c->locked[i]) - *first;
		some = true;
	}
	return some;
}

static size_t drop_run(struct mkw__inode *in, uint64_t first, size_t n)
{
	unsigned shift = in->engine->page_shift;

	if (mkw__os_frames_drop(in->frames, first << shift, n << shift)) {
		mkw__page_unlock_run(in, first, n, 0);
		return 0;
	}
	mkw__page_end_run(in, first, n, PG_ABSENT);
	return n;
}

/*
 * Unmaps what is locked, [first, first + n) from the first to the last. What lies between
 * goes along, which costs less, unless it is pinned.
 */
static void unmap(struct cluster *c, uint64_t first, size_t n)
{
	size_t at;

	if (!c->pinned) {
		mkw__map_zap(c->inode, first, n);
		return;
	}
	for (unsigned drop = 0; drop < 2; drop++)
		for (at = 0; (n = next_run(c, drop, &at)); at += n)
			mkw__map_zap(c->inode, c->first + at, n);
}

/* Carries out what lock_cluster() has decided; frames freed. Map table held. */
static size_t finish_cluster(struct cluster *c)
{
	struct mkw__inode *in = c->inode;
	unsigned shift = in->engine->page_shift;
	size_t freed = 0, unmapped = 0, at, n = 0;
	uint64_t first;

	if (!span(c, &first, &n))
		return 0;
	unmap(c, first, n);
	for (at = 0; (n = next_run(c, false, &at)); at += n) {
		mkw__page_unlock_run(in, c->first + at, n,
				     PG_MAPPED | PG_WRITABLE);
		unmapped += n;
	}
	if (c->glanced)
		mkw__os_glance_barrier();
	at = 0;
	if (next_run(c, true, &at)) {
		span(c, &first, &n);
		if (n > 1)
			mkw__os_frames_unmap(in->frames, first << shift, n << shift);
	}
	for (; (n = next_run(c, true, &at)); at += n)
		freed += drop_run(in, c->first + at, n);
	mkw__count(&in->engine->count.reclaim_unmapped, unmapped);
	mkw__count(&in->engine->count.reclaim_dropped, freed);
	return freed;
}

/* Both steps at once for clean pages of one leaf's worth, where nobody holds them. */
static void evict(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	struct cluster c = { .inode = in, .first = first, .leaves = 1 };
	struct mkw__range_req table;
	struct mkw__excl x = { .gate = NULL };

	bool locked = mkw__excl_trylock_all(in, &x, first, end);

	if (!locked && !MKW__MUTANT(ADVICE_IGNORES_HOLDERS))
		return;
	mkw__map_table_lock(&table);
	mkw__mutex_lock(&in->tree);
	c.drop[0] = true;
	c.locked[0] = lock_pages_locked(&c, first, end, CLEAN);
	c.glanced = mkw__glance_may_go_on_locked(in, first, c.locked[0] <<
						 first % MKW__LEAF_PAGES);
	mkw__mutex_unlock(&in->tree);
	finish_cluster(&c);
	mkw__map_table_unlock(&table);
	if (locked)
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

/*
 * One step on the oldest leaves of a list; frames freed. hard: spares none. *found:
 * there was one.
 */
static size_t step(struct mkw_engine *e, bool inactive, bool hard, bool *found)
{
	struct mkw__range_req table;
	struct cluster c;
	struct mkw__excl x = { .gate = NULL };
	size_t freed = 0;
	bool locked;

	*found = take_leaves(e, inactive, &c);
	if (!*found)
		return 0;
	for (;;) {
		locked = mkw__excl_trylock_all(c.inode, &x, c.first,
					       c.first + c.leaves * MKW__LEAF_PAGES);
		if (locked || c.leaves == 1)
			break;
		/* Somebody holds some of it: the others come by again. */
		c.leaves = 1;
	}
	if (locked || MKW__MUTANT(RECLAIM_IGNORES_HOLDERS)) {
		mkw__map_table_lock(&table);
		lock_cluster(&c, inactive, hard);
		freed = finish_cluster(&c);
		mkw__map_table_unlock(&table);
		if (locked)
			mkw__excl_unlock_all(c.inode, &x);
	}
	mkw__inode_unpin(c.inode);
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
		freed += step(e, false, false, &some);
		freed += step(e, true, steps > steps_max / 2, &more);
		some |= more;
	}
	MKW__PROBE3(reclaim, e, want, freed);
	return freed;
}
