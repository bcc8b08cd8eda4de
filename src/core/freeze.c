/* SPDX-License-Identifier: MIT */
/*
 * Freeze and thaw: for a while the file of the host is whole, and changes no more.
 *
 * The gate is a range lock of one place. Whoever writes (a write, a direct write,
 * truncate and all that fallocate does, a fault of a store) holds it shared from before
 * its first lock to after its last, so that it is outermost (R1); a freeze takes it
 * exclusively and keeps it, as a ticket, since it belongs to no task. Once a freeze has
 * it nobody is in the midst of a change, and nobody can begin one: what is dirty then is
 * written back, which write-protects it, and flushed. From there to the thaw no page
 * becomes dirty, so flusher and reclaim go on as ever and find nothing to write.
 *
 * Reads, faults of loads and syncs do not take the gate. (But for a kernel that cannot
 * map a page protected in one step: there the fault of a load, too, opens a window for
 * stores, where the mapping can be written; it counts as a store's.)
 *
 * Faults at a closed gate. One that its own thread serves waits in the gate's queue. One
 * that the pager serves is let go of, its access left asleep: the pager has only so many
 * faults, and stores to a frozen file must not use them up, since reads go on. The thaw
 * wakes every access that sleeps in a mapping of the file, after it has opened the gate:
 * a fault that found the gate closed did so before, and its access sleeps already, so
 * none is missed. Who is woken without need faults again. What is unmapped meanwhile
 * is woken by that (map.c), and the last use of a file opens its gate for good.
 *
 * FREEZER guards the counts, and is held from the closing of the gate until all is
 * written: a second freeze returns only when the file is whole. An engine's freeze
 * shuts the gates of all files before it writes the first page, so that what is frozen
 * is one moment of all of them; it holds FILES, so that none comes or goes.
 */
#include <errno.h>

#include "core/engine.h"

#define WHOLE UINT64_C(1)	/* the gate is [0, WHOLE) */

void mkw__freeze_init(struct mkw__inode *in)
{
	mkw__mutex_init(&in->freezer, MKW__RANK_FREEZER);
	mkw__range_init(&in->gate, MKW__RANK_GATE);
}

int mkw__freeze_enter(struct mkw__inode *in, struct mkw__range_req *req,
		      bool nowait)
{
	if (nowait && !mkw__range_trylock(&in->gate, req, 0, WHOLE, false))
		return -EAGAIN;
	if (!nowait)
		mkw__range_lock(&in->gate, req, 0, WHOLE, false);
	if (MKW__MUTANT(GATE_LOOKED_AT))
		mkw__range_unlock(&in->gate, req);
	return 0;
}

void mkw__freeze_leave(struct mkw__inode *in, struct mkw__range_req *req)
{
	if (!MKW__MUTANT(GATE_LOOKED_AT))
		mkw__range_unlock(&in->gate, req);
}

bool mkw__freeze_try_ticket(struct mkw__inode *in, struct mkw__range_req *req)
{
	return mkw__range_trylock_ticket(&in->gate, req, 0, WHOLE, false);
}

bool mkw__freeze_enqueue(struct mkw__inode *in, struct mkw__range_req *req,
			 void (*granted)(struct mkw__range_req *req))
{
	return mkw__range_enqueue(&in->gate, req, 0, WHOLE, false, granted);
}

void mkw__freeze_leave_ticket(struct mkw__inode *in, struct mkw__range_req *req)
{
	mkw__range_unlock_ticket(&in->gate, req);
}

/* ---- the gate; FREEZER held -------------------------------------------- */

/* Waits for those that are in the midst of a change. */
static void shut(struct mkw__inode *in)
{
	/* The wait is this task's, what it waits for stays when it has gone. */
	mkw__rank_take(MKW__RANK_GATE, false);
	if (!mkw__range_enqueue(&in->gate, &in->shut, 0, WHOLE, true, NULL))
		mkw__os_event_wait(&in->shut.event);
	mkw__rank_drop(MKW__RANK_GATE);
}

static void open_gate(struct mkw__inode *in)
{
	in->settled = false;
	mkw__range_unlock_ticket(&in->gate, &in->shut);
	if (!MKW__MUTANT(THAW_WAKES_NOBODY))
		mkw__map_wake(in);
}

static int settle(struct mkw__inode *in)
{
	int r = in->settled || MKW__MUTANT(FREEZE_UNWRITTEN) ?
			0 : mkw__wb_settle(in);

	in->settled = !r;
	return r;
}

/* One freeze less. */
static void give_back(struct mkw__inode *in, unsigned n)
{
	in->freezes -= n;
	if (n && !in->freezes)
		open_gate(in);
}

/* ---- one file ----------------------------------------------------------- */

int mkw__freeze_file(struct mkw_file *file)
{
	struct mkw__inode *in = file->inode;
	int r;

	mkw__mutex_lock(&in->freezer);
	if (!in->freezes++)
		shut(in);
	r = settle(in);
	if (r)
		give_back(in, 1);
	else
		file->freezes++;
	mkw__mutex_unlock(&in->freezer);
	return r;
}

int mkw__freeze_thaw_file(struct mkw_file *file)
{
	struct mkw__inode *in = file->inode;
	int r = -EINVAL;

	mkw__mutex_lock(&in->freezer);
	if (file->freezes) {
		file->freezes--;
		give_back(in, 1);
		r = 0;
	}
	mkw__mutex_unlock(&in->freezer);
	return r;
}

void mkw__freeze_close(struct mkw_file *file)
{
	struct mkw__inode *in = file->inode;

	mkw__mutex_lock(&in->freezer);
	give_back(in, file->freezes);
	file->freezes = 0;
	mkw__mutex_unlock(&in->freezer);
}

void mkw__freeze_last_use(struct mkw__inode *in)
{
	mkw__mutex_lock(&in->freezer);
	give_back(in, in->freezes);
	in->engine_freezes = 0;
	mkw__mutex_unlock(&in->freezer);
}

/* ---- all files of an engine; FILES held ---------------------------------- */

void mkw__freeze_born(struct mkw__inode *in)
{
	unsigned n = in->engine->freezes;

	if (!n)
		return;
	mkw__mutex_lock(&in->freezer);
	shut(in);
	in->freezes = in->engine_freezes = n;
	in->settled = true;
	mkw__mutex_unlock(&in->freezer);
}

static void engine_give_back(struct mkw_engine *e)
{
	struct mkw__inode *in;

	while ((in = mkw__inode_next_visit(e))) {
		mkw__mutex_lock(&in->freezer);
		in->engine_freezes--;
		give_back(in, 1);
		mkw__mutex_unlock(&in->freezer);
	}
	mkw__inode_end_visits(e);
}

int mkw__freeze_engine(struct mkw_engine *e)
{
	struct mkw__inode *in;
	int r = 0;

	mkw__mutex_lock(&e->files);
	while ((in = mkw__inode_next_visit(e))) {
		mkw__mutex_lock(&in->freezer);
		in->engine_freezes++;
		if (!in->freezes++)
			shut(in);
		mkw__mutex_unlock(&in->freezer);
	}
	mkw__inode_end_visits(e);
	while (!r && (in = mkw__inode_next_visit(e))) {
		mkw__mutex_lock(&in->freezer);
		r = settle(in);
		mkw__mutex_unlock(&in->freezer);
	}
	mkw__inode_end_visits(e);
	if (r)
		engine_give_back(e);
	else
		e->freezes++;
	mkw__mutex_unlock(&e->files);
	return r;
}

int mkw__freeze_thaw_engine(struct mkw_engine *e)
{
	int r = -EINVAL;

	mkw__mutex_lock(&e->files);
	if (e->freezes) {
		e->freezes--;
		engine_give_back(e);
		r = 0;
	}
	mkw__mutex_unlock(&e->files);
	return r;
}
