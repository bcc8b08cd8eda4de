/* SPDX-License-Identifier: MIT */
/*
 * The run-time checker of the lock order (rank.def), in checked builds.
 *
 * Every task counts, per rank, how many locks it holds. Waiting for a lock
 * while one of the same or a later rank is held could be one side of a
 * deadlock, so it is a panic even when nobody is on the other side today. A
 * rank marked `many` may be taken repeatedly; whoever does so needs an order of
 * his own among them (pages: ascending; see core/page.c).
 *
 * Page locks and tickets of parked faults belong to no task and are not seen.
 */
#include "sync/sync.h"

#ifdef MKW_CHECKED

static const struct {
	const char *name;
	bool many;
} ranks[] = {
#define MKW_RANK(name, many, guards, path) { #name, many },
#include "sync/rank.def"
#undef MKW_RANK
};

_Static_assert(MKW__RANK_COUNT <= MKW__TASK_WORDS, "a word per rank");

void mkw__rank_take(enum mkw__rank rank, bool tried)
{
	struct mkw__os_task *self = mkw__os_self();
	int first = rank + (ranks[rank].many ? 1 : 0);

	for (int r = first; !tried && r < MKW__RANK_COUNT; r++)
		if (self->words[r])
			mkw__os_panic("lock order: waiting for %s while holding %s (sync/rank.def)",
				      ranks[rank].name, ranks[r].name);
	for (int r = 0; r < (int)rank; r++)
		if (self->words[r])
			mkw__sim_nested((enum mkw__rank)r, rank);
	self->words[rank]++;
}

void mkw__rank_drop(enum mkw__rank rank)
{
	struct mkw__os_task *self = mkw__os_self();

	if (!self->words[rank])
		mkw__os_panic("lock order: %s released by a task that does not hold it",
			      ranks[rank].name);
	self->words[rank]--;
}

void mkw__rank_assert_none(void)
{
	struct mkw__os_task *self = mkw__os_self();

	for (int r = 0; r < MKW__RANK_COUNT; r++)
		if (self->words[r])
			mkw__os_panic("rule R0: user memory of a mapping is touched while %s is held",
				      ranks[r].name);
}

#endif
