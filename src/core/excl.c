/* SPDX-License-Identifier: MIT */
/*
 * Exclusion: which locks an operation takes under which policy. The only file
 * that knows a policy (DESIGN 4):
 *
 *                what faults take      EXCL_TAKE takes
 *   retry        iolock shared         iolock exclusive
 *   invalidate   invalidate_lock shd   iolock, then invalidate_lock exclusive
 *   none         nothing               iolock exclusive   (tests only)
 *
 * EXCL_HOLD takes what EXCL_TAKE does; the latter has waited until no page of the range
 * is pinned (pin.c), which the former need not: reclaim passes over pinned pages,
 * growth changes none, and a write that becomes an EXCL_HOLD for its absent pages
 * meets none, since what is pinned is not absent.
 *
 * EXCL_READ and EXCL_WRITE are iolock shared and exclusive under all of them.
 * A task's own fill needs no fault lock besides: everything that EXCL_TAKEs
 * holds the iolock exclusively, and the task holds it at least shared (R6).
 *
 * Who holds the iolock exclusively is seen by those who read with no lock at all
 * (glance.c), from when he has all of his locks until before he lets go of the first.
 *
 * Where a file was opened with MKW_ATOMIC_WRITES the last step of EXCL_TAKE is to take the
 * mappings of the range away (atomic.c), and a buffered write takes it, too.
 *
 * Releasing any of these may be what reclaim waits for: mkw__pool_poke().
 */
#include <errno.h>

#include "core/engine.h"

static bool take_uses_invalidate(const struct mkw__inode *in)
{
	return in->engine->policy == MKW_POLICY_INVALIDATE &&
	       !MKW__TEST(policy_none) && !MKW__MUTANT(TAKE_LEAVES_FAULTS);
}

struct mkw__range_lock *mkw__excl_fault_lock(struct mkw__inode *in)
{
	if (MKW__TEST(policy_none) || MKW__MUTANT(FAULT_TAKES_NO_LOCK))
		return NULL;
	return in->engine->policy == MKW_POLICY_INVALIDATE ?
		       &in->invalidate_lock : &in->iolock;
}

static void unlock(struct mkw__inode *in, struct mkw__excl *x)
{
	if (x->raised)
		mkw__glance_open(in, x->io.start, x->io.end);
	if (x->took_invalidate)
		mkw__range_unlock(&in->invalidate_lock, &x->invalidate);
	mkw__range_unlock(&in->iolock, &x->io);
}

/* [start, end) are whole pages. */
static int lock(struct mkw__inode *in, struct mkw__excl *x, uint64_t start,
		uint64_t end, enum mkw__excl_kind kind, bool nowait)
{
	bool exclusive = kind != EXCL_READ &&
			 !(kind == EXCL_WRITE && MKW__MUTANT(WRITE_SHARES));

	x->took_invalidate = false;
	x->takes = kind >= EXCL_HOLD;
	if (!nowait)
		mkw__range_lock(&in->iolock, &x->io, start, end, exclusive);
	else if (!mkw__range_trylock(&in->iolock, &x->io, start, end,
				     exclusive))
		return -EAGAIN;
	if (!x->takes || !take_uses_invalidate(in))
		goto locked;

	if (!nowait) {
		mkw__range_lock(&in->invalidate_lock, &x->invalidate, start,
				end, true);
	} else if (!mkw__range_trylock(&in->invalidate_lock, &x->invalidate,
				       start, end, true)) {
		mkw__range_unlock(&in->iolock, &x->io);
		return -EAGAIN;
	}
	x->took_invalidate = true;
locked:
	x->raised = exclusive && in->engine->glance;
	if (x->raised)
		mkw__glance_shut(in, start, end);
	return 0;
}

/*
 * Waits for pins outside the gate: who has one may have a store, too, that waits behind
 * a freeze, which waits for whoever is inside.
 */
static int wait_outside(struct mkw__inode *in, struct mkw__excl *x, uint64_t first,
			uint64_t end, struct mkw__pin_turn *turn)
{
	int r;

	if (x->gate)
		mkw__freeze_leave(in, x->gate);
	r = mkw__pin_wait(in, first, end, false, turn);
	if (x->gate)
		mkw__freeze_enter(in, x->gate, false);
	return r;
}

/*
 * The same when no page is pinned. A pin is made under the iolock, shared, so what is
 * found here stays so. Nothing is held while a pin is waited for: who has it may
 * need any lock before its end.
 */
static int lock_unpinned(struct mkw__inode *in, struct mkw__excl *x,
			 uint64_t start, uint64_t end, bool nowait)
{
	unsigned shift = in->engine->page_shift;
	struct mkw__pin_turn turn = { .inode = NULL };
	int r;

	for (;;) {
		r = lock(in, x, start, end, EXCL_TAKE, nowait);
		if (r || MKW__MUTANT(PIN_TAKEN) ||
		    !mkw__pin_blocks(in, start >> shift, end >> shift))
			break;
		unlock(in, x);
		mkw__pool_poke(in->engine);
		r = nowait ? -EAGAIN : wait_outside(in, x, start >> shift,
						    end >> shift, &turn);
		if (r)
			break;
	}
	mkw__pin_turn_end(&turn);
	if (r || !mkw__atomic(in))
		return r;
	r = mkw__atomic_hide(in, start >> shift, end >> shift, nowait);
	if (r) {
		unlock(in, x);
		mkw__pool_poke(in->engine);
	}
	return r;
}

int mkw__excl_lock(struct mkw__inode *in, struct mkw__excl *x, uint64_t start,
		   uint64_t end, enum mkw__excl_kind kind, bool nowait)
{
	uint64_t mask = in->engine->page - 1;

	start &= ~mask;
	end = end > MKW__RANGE_MAX - mask ? MKW__RANGE_MAX :
					    (end + mask) & ~mask;
	return kind == EXCL_TAKE ? lock_unpinned(in, x, start, end, nowait) :
				   lock(in, x, start, end, kind, nowait);
}

void mkw__excl_take(struct mkw__inode *in, struct mkw__excl *x)
{
	x->takes = true;
	if (x->took_invalidate || !take_uses_invalidate(in))
		return;
	mkw__range_lock(&in->invalidate_lock, &x->invalidate, x->io.start,
			x->io.end, true);
	x->took_invalidate = true;
}

void mkw__excl_count_take(struct mkw__inode *in)
{
	if (MKW__MUTANT(TAKE_NOT_COUNTED))
		return;
	/* In this order: fault.c, "Stale messages". */
	atomic_fetch_add(&in->engine->takes, 1);
	atomic_fetch_add(&in->takes, 1);
}

void mkw__excl_unlock(struct mkw__inode *in, struct mkw__excl *x)
{
	if (x->takes)
		mkw__excl_count_take(in);
	unlock(in, x);
	mkw__pool_poke(in->engine);
}

void mkw__excl_unlock_all(struct mkw__inode *in, struct mkw__excl *x)
{
	unlock(in, x);
}

bool mkw__excl_trylock_all(struct mkw__inode *in, struct mkw__excl *x,
			   uint64_t first_page, uint64_t end_page)
{
	unsigned shift = in->engine->page_shift;

	return !mkw__excl_lock(in, x, first_page << shift, end_page << shift,
			       EXCL_HOLD, true);
}
