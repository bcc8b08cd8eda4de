/* SPDX-License-Identifier: MIT */
/*
 * sync.h: locks that know their place in the lock order, the range lock, and
 * places in a queue of waiters. Built on os.h alone.
 *
 * In checked builds (MKW_CHECKED) every task keeps a record of the ranks that
 * it holds, and taking a lock out of order is a panic that names both. Try-locks
 * are exempt from the order, not from the record.
 */
#ifndef MKW_SYNC_H
#define MKW_SYNC_H

#include <sys/queue.h>

#include "os/os.h"

enum mkw__rank {
#define MKW_RANK(name, many, guards, path) MKW__RANK_##name,
#include "sync/rank.def"
#undef MKW_RANK
	MKW__RANK_COUNT
};

#ifdef MKW_SIM
/* The simulator's coverage: a lock of one rank is waited for under another. */
void mkw__sim_nested(enum mkw__rank outer, enum mkw__rank inner);
#else
static inline void mkw__sim_nested(enum mkw__rank outer, enum mkw__rank inner)
{
	(void)outer;
	(void)inner;
}
#endif

#ifdef MKW_CHECKED
/* Records; take also checks the order (before waiting). */
void mkw__rank_take(enum mkw__rank rank, bool tried);
void mkw__rank_drop(enum mkw__rank rank);
/* Panics unless the task holds no lock ranked at or below 'from'. */
void mkw__rank_assert_none(void);
#else
static inline void mkw__rank_take(enum mkw__rank rank, bool tried)
{
	(void)rank;
	(void)tried;
}
static inline void mkw__rank_drop(enum mkw__rank rank)
{
	(void)rank;
}
static inline void mkw__rank_assert_none(void)
{
}
#endif

/*
 * A barrier between accesses of memory. gcc's thread sanitizer knows none, and wants
 * none: the simulator, which it measures, has one thread, and elsewhere nothing that
 * uses barriers runs with it (os/linux/glance.c).
 */
static inline void mkw__fence(memory_order order)
{
#ifdef __SANITIZE_THREAD__
	(void)order;
	__asm__ volatile("" ::: "memory");
#else
	atomic_thread_fence(order);
#endif
}

/* ---- mutex ------------------------------------------------------------ */

struct mkw__mutex {
	struct mkw__os_mutex os;
	enum mkw__rank rank;
};

static inline void mkw__mutex_init(struct mkw__mutex *m, enum mkw__rank rank)
{
	*m = (struct mkw__mutex){ .rank = rank };
}

static inline void mkw__mutex_lock(struct mkw__mutex *m)
{
	mkw__rank_take(m->rank, false);
	mkw__os_mutex_lock(&m->os);
}

static inline void mkw__mutex_unlock(struct mkw__mutex *m)
{
	enum mkw__rank rank = m->rank;

	/* Once it is unlocked somebody may free what it is in. */
	mkw__os_mutex_unlock(&m->os);
	mkw__rank_drop(rank);
}

/* ---- waiters ---------------------------------------------------------- */

/*
 * A place in a queue of those who wait for something to change. wake() runs
 * once, in the task that changed it, after the waiter left the queue and with
 * no mutex of the queue held; it must not block. Whoever is woken believes
 * nothing that it knew before (rule R2).
 */
struct mkw__waiter {
	TAILQ_ENTRY(mkw__waiter) link;
	uint64_t key;			/* the queue's own */
	void (*wake)(struct mkw__waiter *w);
};
TAILQ_HEAD(mkw__waiters, mkw__waiter);

/* A waiter that blocks its task. */
struct mkw__sleeper {
	struct mkw__waiter waiter;
	struct mkw__os_event event;
};
void mkw__sleeper_init(struct mkw__sleeper *s);
static inline void mkw__sleeper_wait(struct mkw__sleeper *s)
{
	mkw__os_event_wait(&s->event);
}
/* Wakes every waiter of a list that the caller took off its queue. */
void mkw__waiters_wake(struct mkw__waiters *list);

/* ---- range lock ------------------------------------------------------- */

/*
 * Shared and exclusive locking of byte ranges, granted in the order of
 * arrival among requests that overlap: a request waits while it conflicts
 * with one that is granted, or with one that came before it and still waits.
 * (So a stream of readers cannot starve a writer, nor the reverse.)
 *
 * A request either blocks its task, or is left in the queue with a callback:
 * its place is then a ticket that a page fault holds while it is parked.
 */
#define MKW__RANGE_MAX UINT64_MAX

struct mkw__range_req {
	TAILQ_ENTRY(mkw__range_req) link;
	uint64_t start, end;		/* [start, end) */
	bool exclusive;
	bool waiting;
	/*
	 * Runs when a queued request is granted, in the releasing task, with
	 * no lock of the range lock held. Must not block. NULL: a task sleeps
	 * on the event.
	 */
	void (*granted)(struct mkw__range_req *req);
	struct mkw__os_event event;
	struct mkw__range_req *next_granted;
};
TAILQ_HEAD(mkw__range_reqs, mkw__range_req);

/* May they not be held at once? */
static inline bool mkw__range_conflicts(const struct mkw__range_req *a,
					const struct mkw__range_req *b)
{
	return a->start < b->end && b->start < a->end &&
	       (a->exclusive || b->exclusive);
}

struct mkw__range_lock {
	struct mkw__os_mutex mutex;	/* of the two lists: a leaf, no rank */
	struct mkw__range_reqs held;
	struct mkw__range_reqs waiting;
	enum mkw__rank rank;
};

#ifdef MKW_SIM
/*
 * For a search of all schedules (sim/search.h): until rl->mutex is released, the
 * caller does nothing but ask for req's range, or give it up, or grant it. Shared
 * requests commute, which does not show in what they do to the lists.
 */
void mkw__sim_range(const struct mkw__range_lock *rl,
		    const struct mkw__range_req *req);
/* The same for a number that the caller adds to, or takes from, without a look. */
void mkw__sim_counts(const void *number);
#else
static inline void mkw__sim_counts(const void *number)
{
	(void)number;
}
static inline void mkw__sim_range(const struct mkw__range_lock *rl,
				  const struct mkw__range_req *req)
{
	(void)rl;
	(void)req;
}
#endif

void mkw__range_init(struct mkw__range_lock *rl, enum mkw__rank rank);
/* Blocks until granted. Releases and acquires pair through rl->mutex. */
void mkw__range_lock(struct mkw__range_lock *rl, struct mkw__range_req *req,
		     uint64_t start, uint64_t end, bool exclusive);
/* False: it would have to wait, and nothing was changed. */
bool mkw__range_trylock(struct mkw__range_lock *rl, struct mkw__range_req *req,
			uint64_t start, uint64_t end, bool exclusive);
void mkw__range_unlock(struct mkw__range_lock *rl, struct mkw__range_req *req);

/*
 * Tickets: requests that belong to no task (to a fault, which different tasks
 * may serve), so that the rank checker does not see them. _enqueue(): true,
 * granted at once; false, queued: granted() will run, possibly before this
 * returns, and *req is the queue's until then.
 */
bool mkw__range_enqueue(struct mkw__range_lock *rl, struct mkw__range_req *req,
			uint64_t start, uint64_t end, bool exclusive,
			void (*granted)(struct mkw__range_req *req));
bool mkw__range_trylock_ticket(struct mkw__range_lock *rl,
			       struct mkw__range_req *req, uint64_t start,
			       uint64_t end, bool exclusive);
/*
 * The same, passing those who only wait: for the few requests that are owed it
 * (the grace of losers, core/fault.c), each a short delay to who is passed.
 */
bool mkw__range_trylock_ahead(struct mkw__range_lock *rl,
			      struct mkw__range_req *req, uint64_t start,
			      uint64_t end, bool exclusive);
void mkw__range_unlock_ticket(struct mkw__range_lock *rl,
			      struct mkw__range_req *req);

#endif /* MKW_SYNC_H */
