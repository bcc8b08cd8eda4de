/* SPDX-License-Identifier: MIT */
/*
 * Range lock and waiters; the contract is in sync.h.
 *
 * A lock has two lists in order of arrival: requests held, and requests that
 * wait. A new request is granted when it conflicts with none of either; a
 * waiting one when it conflicts with none held and none that waits before it.
 * So a queue that is looked at from its head after every release grants exactly
 * what FIFO order among overlapping requests allows. (A request that went ahead
 * of a waiting one is held, like those that came before it.)
 *
 * The lists are as long as there are tasks and parked faults on the file, which
 * is why they are lists and not trees.
 *
 * rl->mutex guards both lists and every request's `waiting`. It is a leaf:
 * nothing is taken under it, and callbacks run after it is released. A granted
 * request belongs to its waiter again as soon as granted() has been called, so
 * nothing is read from it afterwards.
 */
#include "sync/sync.h"

/* Does req conflict with an entry of list before `until` (NULL: with any)? */
static bool blocked_by(const struct mkw__range_reqs *list,
		       const struct mkw__range_req *req,
		       const struct mkw__range_req *until)
{
	const struct mkw__range_req *other;

	TAILQ_FOREACH(other, list, link) {
		if (other == until)
			return false;
		if (mkw__range_conflicts(other, req))
			return true;
	}
	return false;
}

void mkw__range_init(struct mkw__range_lock *rl, enum mkw__rank rank)
{
	*rl = (struct mkw__range_lock){ .rank = rank };
	TAILQ_INIT(&rl->held);
	TAILQ_INIT(&rl->waiting);
}

/* Grants req, or queues it where `queue`; rl->mutex is held. */
static bool request_locked(struct mkw__range_lock *rl,
			   struct mkw__range_req *req, bool queue)
{
	bool free = !blocked_by(&rl->held, req, NULL) &&
		    !blocked_by(&rl->waiting, req, NULL);

	req->waiting = !free;
	if (free)
		TAILQ_INSERT_TAIL(&rl->held, req, link);
	else if (queue)
		TAILQ_INSERT_TAIL(&rl->waiting, req, link);
	return free;
}

static void request_init(struct mkw__range_req *req, uint64_t start,
			 uint64_t end, bool exclusive)
{
	*req = (struct mkw__range_req){ .start = start,
					.end = end,
					.exclusive = exclusive };
}

bool mkw__range_enqueue(struct mkw__range_lock *rl, struct mkw__range_req *req,
			uint64_t start, uint64_t end, bool exclusive,
			void (*granted)(struct mkw__range_req *req))
{
	bool now;

	request_init(req, start, end, exclusive);
	req->granted = granted;
	mkw__os_mutex_lock(&rl->mutex);
	mkw__sim_range(rl, req);
	now = request_locked(rl, req, true);
	mkw__os_mutex_unlock(&rl->mutex);
	return now;
}

bool mkw__range_trylock_ticket(struct mkw__range_lock *rl,
			       struct mkw__range_req *req, uint64_t start,
			       uint64_t end, bool exclusive)
{
	bool now;

	request_init(req, start, end, exclusive);
	mkw__os_mutex_lock(&rl->mutex);
	mkw__sim_range(rl, req);
	now = request_locked(rl, req, false);
	mkw__os_mutex_unlock(&rl->mutex);
	return now;
}

bool mkw__range_trylock_ahead(struct mkw__range_lock *rl,
			      struct mkw__range_req *req, uint64_t start,
			      uint64_t end, bool exclusive)
{
	bool now;

	request_init(req, start, end, exclusive);
	mkw__os_mutex_lock(&rl->mutex);
	mkw__sim_range(rl, req);
	now = !blocked_by(&rl->held, req, NULL);
	if (now)
		TAILQ_INSERT_TAIL(&rl->held, req, link);
	mkw__os_mutex_unlock(&rl->mutex);
	return now;
}

bool mkw__range_trylock(struct mkw__range_lock *rl, struct mkw__range_req *req,
			uint64_t start, uint64_t end, bool exclusive)
{
	if (!mkw__range_trylock_ticket(rl, req, start, end, exclusive))
		return false;
	mkw__rank_take(rl->rank, true);
	return true;
}

void mkw__range_lock(struct mkw__range_lock *rl, struct mkw__range_req *req,
		     uint64_t start, uint64_t end, bool exclusive)
{
	mkw__rank_take(rl->rank, false);
	if (!mkw__range_enqueue(rl, req, start, end, exclusive, NULL))
		mkw__os_event_wait(&req->event);
}

void mkw__range_unlock_ticket(struct mkw__range_lock *rl,
			      struct mkw__range_req *req)
{
	struct mkw__range_req *granted = NULL, **tail = &granted;
	struct mkw__range_req *w, *next;

	mkw__os_mutex_lock(&rl->mutex);
	mkw__sim_range(rl, req);
	TAILQ_REMOVE(&rl->held, req, link);
	for (w = TAILQ_FIRST(&rl->waiting); w; w = next) {
		next = TAILQ_NEXT(w, link);
		/* Who did not wait for req waits for somebody else still. */
		if (!mkw__range_conflicts(w, req) || blocked_by(&rl->held, w, NULL) ||
		    blocked_by(&rl->waiting, w, w))
			continue;
		mkw__sim_range(rl, w);
		TAILQ_REMOVE(&rl->waiting, w, link);
		TAILQ_INSERT_TAIL(&rl->held, w, link);
		w->waiting = false;
		*tail = w;
		tail = &w->next_granted;
	}
	mkw__os_mutex_unlock(&rl->mutex);

	for (w = granted; w; w = next) {
		next = w->next_granted;
		if (w->granted)
			w->granted(w);
		else
			mkw__os_event_set(&w->event);
	}
}

void mkw__range_unlock(struct mkw__range_lock *rl, struct mkw__range_req *req)
{
	mkw__range_unlock_ticket(rl, req);
	mkw__rank_drop(rl->rank);
}

static void wake_sleeper(struct mkw__waiter *w)
{
	/* The waiter is the sleeper's first member. */
	mkw__os_event_set(&((struct mkw__sleeper *)w)->event);
}

void mkw__sleeper_init(struct mkw__sleeper *s)
{
	*s = (struct mkw__sleeper){ .waiter.wake = wake_sleeper };
}

void mkw__waiters_wake(struct mkw__waiters *list)
{
	struct mkw__waiter *w;

	while ((w = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, w, link);
		w->wake(w);
	}
}
