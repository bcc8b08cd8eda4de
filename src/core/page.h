/* SPDX-License-Identifier: MIT */
/*
 * page.h: what the cache knows of each page of a file. doc/STATES.md draws it.
 *
 * A page is one word of 8 bits: a state and a few flags. Words live in leaves of
 * 64 pages; a leaf exists while one of its words is not zero (a page that is
 * ABSENT, unlocked and unmapped has no memory at all), hangs in its inode's
 * tree, and is the unit of reclaim's lists.
 *
 *   state       frame        store       may be mapped   counted as
 *   ABSENT      none         current     no              -
 *   FILLING     becoming     current     no              cached
 *   CLEAN       current      the same    protected       cached
 *   DIRTY       current      older       writable        cached, dirty
 *   WRITEBACK   current      being written  protected    cached, dirty
 *   WB_DIRTY    newer than what is being written, writable   cached, dirty
 *
 * PG_FAILED goes with the last three: the last write that ended failed (failed.c).
 * DIRTY with it is the state ERROR of doc/STATES.md.
 *
 * The state, and never the presence of a frame, says whether a frame's bytes
 * are valid: strays come from mlockall, mremap, forked children.
 *
 * PG_LOCKED is the page lock (rule R5): held from the decision about the state
 * until the calls that carry it out in frames and mappings have returned. While
 * it is set nobody else changes the word. FILLING is a lock of its own: the page
 * belongs to whoever fills it.
 *
 * The inode's tree mutex guards words, leaves, tree and waiters; functions
 * named _locked want it held.
 */
#ifndef MKW_PAGE_H
#define MKW_PAGE_H

#include <bsd/sys/tree.h>

#include "sync/sync.h"

struct mkw__inode;

enum mkw__page_state {
	PG_ABSENT,
	PG_FILLING,
	PG_CLEAN,
	PG_DIRTY,
	PG_WRITEBACK,
	PG_WB_DIRTY,
};

#define PG_STATE(word) ((enum mkw__page_state)((word) & 7u))
#define PG_BIT(state) (1u << (state))	/* in a mask of states */
#define PG_LOCKED   0x08u
#define PG_MAPPED   0x10u	/* some mapping may reach it without a fault */
#define PG_WRITABLE 0x20u	/* some mapping may store to it without a fault */
#define PG_MARK     0x40u	/* the first touch of what was read ahead */
#define PG_FAILED   0x80u	/* dirty, and its last write failed */

#define PG_PRESENT_MASK \
	(PG_BIT(PG_CLEAN) | PG_BIT(PG_DIRTY) | PG_BIT(PG_WRITEBACK) | \
	 PG_BIT(PG_WB_DIRTY))
#define PG_DIRTY_MASK \
	(PG_BIT(PG_DIRTY) | PG_BIT(PG_WRITEBACK) | PG_BIT(PG_WB_DIRTY))

static inline bool pg_in(uint32_t word, unsigned mask)
{
	return PG_BIT(PG_STATE(word)) & mask;
}

#ifdef MKW_SIM
/* The simulator's story, and what of doc/STATES.md its runs have taken. */
void mkw__sim_page(struct mkw__inode *in, uint64_t idx,
		   enum mkw__page_state from, enum mkw__page_state to);
#else
static inline void mkw__sim_page(struct mkw__inode *in, uint64_t idx,
				 enum mkw__page_state from,
				 enum mkw__page_state to)
{
	(void)in;
	(void)idx;
	(void)from;
	(void)to;
}
#endif

/* [from]: a mask of the states that may follow. */
extern const unsigned mkw__page_transitions[];

#define MKW__LEAF_PAGES 64u

struct mkw__leaf {
	RB_ENTRY(mkw__leaf) node;	/* in inode->leaves, by first */
	TAILQ_ENTRY(mkw__leaf) lru;	/* POOL mutex: active, inactive or free */
	struct mkw__inode *inode;
	uint64_t first;			/* page index, a multiple of 64 */
	uint16_t used;			/* words that are not zero, bits of pinned */
	int16_t error;			/* of the last write that failed here */
	bool once;			/* a stream passes here: no second chance */
	bool inactive;			/* POOL mutex: which list */
	/*
	 * For glances (glance.c): odd while it is in a tree; inode and first again;
	 * and a bit for each page that may be read by one, and that was.
	 */
	_Atomic uint64_t life;
	_Atomic(struct mkw__inode *) shown_inode;
	_Atomic uint64_t shown_first, ready, touched;
	uint64_t forgotten;		/* that were touched, until a barrier */
	/* Pages that pins keep, a bit each; of these, those pinned for writing. */
	uint64_t pinned, pinned_write;
	uint8_t word[MKW__LEAF_PAGES];
};
RB_HEAD(mkw__leaf_tree, mkw__leaf);
TAILQ_HEAD(mkw__leaf_list, mkw__leaf);

/* The word; 0 for a page without a leaf. */
uint32_t mkw__page_get_locked(struct mkw__inode *in, uint64_t idx);

/* Sees to it that the page has a leaf. False: no memory for one. */
bool mkw__page_prepare_locked(struct mkw__inode *in, uint64_t idx);

/*
 * The only way to change a word: undoes the bookkeeping of the old one, does
 * that of the new one, gives back the leaf with its last page, and panics on
 * a transition that doc/STATES.md does not have. A word other than 0 needs a
 * prepared page; a page that leaves ABSENT must have been given a frame by
 * mkw__pool_frames_get(), which going back to ABSENT returns.
 */
void mkw__page_set_locked(struct mkw__inode *in, uint64_t idx, uint32_t word);

/*
 * The write of a page that is WRITEBACK or WB_DIRTY has ended, with an error or 0:
 * its word follows from that.
 */
void mkw__page_written_locked(struct mkw__inode *in, uint64_t idx, int res);
/* What a PG_FAILED page's write met, or that of one of its leaf since. */
int mkw__page_error_locked(struct mkw__inode *in, uint64_t idx);

/* The same word with another state. */
static inline uint32_t pg_with(uint32_t word, enum mkw__page_state state)
{
	return (word & ~7u) | state;
}

/* The word of a present page once bytes may be stored to its frame. */
static inline uint32_t pg_stored(uint32_t word)
{
	switch (PG_STATE(word)) {
	case PG_CLEAN:
		return pg_with(word, PG_DIRTY);
	case PG_WRITEBACK:
		return pg_with(word, PG_WB_DIRTY);
	default:
		return word;
	}
}

/*
 * The first page of [idx, end) whose state is in mask; end if there is none.
 */
uint64_t mkw__page_next_locked(struct mkw__inode *in, uint64_t idx,
			       uint64_t end, unsigned mask);

/* The leaf of page idx, or NULL. */
struct mkw__leaf *mkw__page_leaf_locked(struct mkw__inode *in, uint64_t idx);

/*
 * The pages around idx were read ahead of a stream that passes them once, or (false)
 * have been touched otherwise since: reclaim takes the former in one step.
 */
void mkw__page_once_locked(struct mkw__inode *in, uint64_t idx, bool once);
bool mkw__page_is_once_locked(struct mkw__inode *in, uint64_t idx);

/*
 * For pin.c: pages [first, end) get the bit of pins (write: the one for writing, too),
 * or lose both (write: only the latter). _pin: false, no memory for a leaf: some
 * have it, some not.
 */
bool mkw__page_pin_locked(struct mkw__inode *in, uint64_t first, uint64_t end,
			  bool write);
void mkw__page_unpin_locked(struct mkw__inode *in, uint64_t first, uint64_t end,
			    bool write);
/* Has the page such a bit? Then its frame stays; with write: dirty, and writable. */
bool mkw__page_is_pinned_locked(struct mkw__inode *in, uint64_t idx, bool write);

/* Queues w until the page changes; wake it with the page's next change. */
void mkw__page_enqueue_locked(struct mkw__inode *in, uint64_t idx,
			      struct mkw__waiter *w);

/*
 * Moves the page's waiters to *woken; the caller wakes them once it has
 * released the tree mutex.
 */
void mkw__page_wake_locked(struct mkw__inode *in, uint64_t idx,
			   struct mkw__waiters *woken);

/*
 * Sleeps until the page changes. The tree mutex is released meanwhile, so
 * nothing known before is to be believed (R2).
 */
void mkw__page_sleep_locked(struct mkw__inode *in, uint64_t idx);

/*
 * The wait of rule R4: sleeps until no page of [first, end) is locked, being filled
 * or being written. The caller holds the lock that keeps new ones from beginning.
 */
void mkw__page_wait(struct mkw__inode *in, uint64_t first, uint64_t end);

/*
 * The store failed, and nobody knows what it holds: every clean page of [first,
 * end) becomes DIRTY, so that what is cached is written again.
 */
void mkw__page_dirty_range(struct mkw__inode *in, uint64_t first, uint64_t end);

/*
 * Ends a page lock over a run: each page's word becomes
 * (word & ~clear & ~PG_LOCKED), and its waiters are woken.
 */
void mkw__page_unlock_run(struct mkw__inode *in, uint64_t idx, size_t n,
			  uint32_t clear);

/*
 * Ends a fill, or a page lock, over a run: each page's word becomes `word`, and its
 * waiters are woken.
 */
void mkw__page_end_run(struct mkw__inode *in, uint64_t idx, size_t n,
		       uint32_t word);

#endif /* MKW_PAGE_H */
