/* SPDX-License-Identifier: MIT */
/*
 * MKW_ATOMIC_WRITES: whoever changes bytes does so at once, for loads and stores, too
 * (G1's strict form).
 *
 * A file that was opened with it has what changes its bytes (buffered and direct writes,
 * appends, punch, zero, truncation, collapse, insert, discard) take EXCL_TAKE; and the
 * last step of that lock is to take every mapping of its range away (excl.c calls
 * mkw__atomic_hide()). So
 *   - before the first byte changes no page of the range is mapped: an access that comes
 *     from then on faults, and what was stored until then is in the frames
 *   - until the lock goes none is mapped again: faults, what they map around them,
 *     readahead and pins map pages only under the fault lock over them, and reclaim takes
 *     away at most
 *   - reads by calls, glances too, are kept out by the iolock, as ever.
 * The operation as a whole is then at any moment in between. That the cache has no room for
 * all of it changes nothing: what goes past the cache (R7) is in the store, under the
 * same lock.
 *
 * What fails half-way has done what it returned: a write that is short, its first bytes,
 * which show at once; the growth for the others is undone under the same lock.
 *
 * The page lock is held from the look at PG_MAPPED to the end of the call (R5), the table
 * outside of it (R1).
 */
#include <errno.h>

#include "core/engine.h"

/* Pages that lose their mappings by one call. */
#define RUN_MAX 512

static bool to_be_hidden(uint32_t word)
{
	return (word & PG_MAPPED) &&
	       !(pg_in(word, PG_DIRTY_MASK) && MKW__MUTANT(ATOMIC_LEAVES_DIRTY));
}

/*
 * Locks a run of mapped pages at or after *idx; how many. Waits for locked ones;
 * nowait: -EAGAIN.
 */
static ssize_t lock_mapped(struct mkw__inode *in, uint64_t *idx, uint64_t end,
			   bool nowait)
{
	ssize_t n = 0;
	uint32_t word;

	mkw__mutex_lock(&in->tree);
	while ((*idx = mkw__page_next_locked(in, *idx, end, PG_PRESENT_MASK)) <
	       end) {
		word = mkw__page_get_locked(in, *idx);
		if ((word & PG_LOCKED) && nowait) {
			mkw__mutex_unlock(&in->tree);
			return -EAGAIN;
		}
		if (word & PG_LOCKED)
			mkw__page_sleep_locked(in, *idx);
		else if (to_be_hidden(word))
			break;
		else
			++*idx;
	}
	while (*idx + (uint64_t)n < end && n < RUN_MAX) {
		word = mkw__page_get_locked(in, *idx + (uint64_t)n);
		if ((word & PG_LOCKED) || !to_be_hidden(word))
			break;
		mkw__page_set_locked(in, *idx + (uint64_t)n++, word | PG_LOCKED);
	}
	mkw__mutex_unlock(&in->tree);
	return n;
}

int mkw__atomic_hide(struct mkw__inode *in, uint64_t first, uint64_t end,
		     bool nowait)
{
	struct mkw__range_req table;
	ssize_t n;

	if (MKW__MUTANT(ATOMIC_LEAVES_MAPPED))
		return 0;
	if (MKW__MUTANT(ATOMIC_FIRST_PAGE))
		end = mkw__min(end, first + 1);
	mkw__map_table_lock(&table);
	while ((n = lock_mapped(in, &first, end, nowait)) > 0) {
		mkw__map_zap(in, first, (uint64_t)n);
		mkw__page_unlock_run(in, first, (uint64_t)n, PG_MAPPED | PG_WRITABLE);
		first += (uint64_t)n;
	}
	mkw__map_table_unlock(&table);
	return (int)n;
}
