/* SPDX-License-Identifier: MIT */
/*
 * The pager: one thread that serves the fault messages of an engine.
 *
 * Its loop receives messages, completes fills, and runs again the faults that
 * somebody resumed. It waits for nothing else: a fault that cannot go on is
 * parked (fault.c). It allocates nothing (R3): faults come from a fixed array,
 * and when that is empty messages stay in the kernel until one is free, which is
 * safe since no parked fault waits for another fault to arrive.
 *
 * Messages for a page that already has a fault of the same kind at work in the
 * same mapping are merged: the wake at its end reaches every access that sleeps
 * on the page. (A message is read, and a fault ends, in this thread alone, so
 * none can come between.) A fault in grace has woken its access already, and
 * waits for the message that this brings, with the ticket in hand: one from the
 * same reading as its wake, or before, was woken with it and is dropped; a later
 * one is the store come again.
 *
 * `free` and `active` are this thread's own. `ready` is filled by whoever resumes
 * a fault; the QUEUE mutex guards it, and the kick after the insertion pairs
 * with the loop's wait, so that none is left lying.
 */
#include <errno.h>

#include "core/engine.h"

/* How long a woken store may take to come again. */
#define GRACE_NS 500000u
/*
 * Faults on one page with less than this between them are losses of it. Long, since
 * on a slow machine an access that was let through may take long to come again, and a
 * page that is taken for a loser and is none costs others a grace only.
 */
#define LOSS_NS UINT64_C(10000000000)

static struct mkw__fault_list *bucket(struct mkw__pager *p, uintptr_t addr,
				      unsigned shift)
{
	return &p->active[(addr >> shift) % MKW__FAULT_BUCKETS];
}

static void resume(struct mkw__fault *f)
{
	struct mkw__pager *p = &f->engine->pager;

	mkw__mutex_lock(&p->queue);
	TAILQ_INSERT_TAIL(&p->ready, f, link);
	mkw__mutex_unlock(&p->queue);
	mkw__os_loop_kick(p->loop);
}

void mkw__pager_finish(struct mkw__fault *f, enum mkw__fault_end end)
{
	struct mkw_engine *e = f->engine;
	struct mkw__pager *p = &e->pager;

	if (end == FAULT_PARKED)
		return;
	if (end == FAULT_GRACE) {
		f->grace_batch = p->batch;
		f->grace_end_ns = mkw__os_now_ns() + GRACE_NS;
		f->in_grace = true;
		TAILQ_INSERT_TAIL(&p->grace, f, link);
		return;
	}
	TAILQ_REMOVE(bucket(p, f->addr, e->page_shift), f, active);
	if (TAILQ_EMPTY(&p->free))
		mkw__os_loop_pause(p->loop, false);
	TAILQ_INSERT_HEAD(&p->free, f, link);
}

static void before_read(void *arg)
{
	struct mkw_engine *e = arg;

	e->pager.batch++;
	e->pager.takes_read = atomic_load(&e->takes);
}

/* The store of a fault in grace has come again, if the message is new enough. */
static void come_again(struct mkw__pager *p, struct mkw__fault *f,
		       const struct mkw__os_fault *msg)
{
	if (p->batch == f->grace_batch)
		return;
	TAILQ_REMOVE(&p->grace, f, link);
	f->in_grace = false;
	f->sure = true;
	f->wp = msg->wp;
	mkw__pager_finish(f, mkw__fault_run(f));
}

static void end_graces(struct mkw__pager *p)
{
	uint64_t now = mkw__os_now_ns();
	struct mkw__fault *f;

	while ((f = TAILQ_FIRST(&p->grace)) && f->grace_end_ns <= now) {
		TAILQ_REMOVE(&p->grace, f, link);
		f->in_grace = false;
		mkw__pager_finish(f, mkw__fault_end_grace(f));
	}
	mkw__mutex_lock(&p->queue);
	while ((f = TAILQ_FIRST(&p->kept)) && f->grace_end_ns <= now) {
		TAILQ_REMOVE(&p->kept, f, link);
		mkw__mutex_unlock(&p->queue);
		mkw__fault_end_grace(f);
		mkw__mutex_lock(&p->queue);
		TAILQ_INSERT_HEAD(&p->kept_free, f, link);
	}
	mkw__mutex_unlock(&p->queue);
}

/* How long the loop may sleep. */
static uint64_t grace_left_ns(struct mkw__pager *p)
{
	struct mkw__fault *f = TAILQ_FIRST(&p->grace);
	uint64_t now, end = f ? f->grace_end_ns : UINT64_MAX;

	mkw__mutex_lock(&p->queue);
	f = TAILQ_FIRST(&p->kept);
	if (f)
		end = mkw__min(end, f->grace_end_ns);
	mkw__mutex_unlock(&p->queue);
	if (end == UINT64_MAX)
		return end;
	now = mkw__os_now_ns();
	return end > now ? end - now : 0;
}

/* How many faults this page has had, each soon after the one before. */
static unsigned losses(struct mkw__recent recent[MKW__FAULT_BUCKETS],
		       uint64_t page, uint64_t now)
{
	struct mkw__recent *r = &recent[page % MKW__FAULT_BUCKETS];

	if (r->page != page || now - r->last_ns > LOSS_NS)
		*r = (struct mkw__recent){ .page = page };
	r->last_ns = now;
	return r->faults++;
}

struct mkw__fault *mkw__pager_prepare(struct mkw__fault *f)
{
	struct mkw_engine *e = f->engine;
	struct mkw__pager *p = &e->pager;
	struct mkw__fault *kept = NULL;
	unsigned lost;

	mkw__mutex_lock(&p->queue);
	lost = losses(p->recent_in_thread, f->addr >> e->page_shift, f->born_ns);
	if (lost >= MKW__LOSSES_MAX && !MKW__MUTANT(NO_GRACE))
		kept = TAILQ_FIRST(&p->kept_free);
	if (kept)
		TAILQ_REMOVE(&p->kept_free, kept, link);
	mkw__mutex_unlock(&p->queue);
	if (!kept)
		return f;
	*kept = *f;
	kept->losses = lost;
	kept->kept = true;
	return kept;
}

void mkw__pager_keep(struct mkw__fault *f, enum mkw__fault_end end)
{
	struct mkw__pager *p = &f->engine->pager;

	if (!f->kept)
		return;
	mkw__mutex_lock(&p->queue);
	if (end == FAULT_GRACE) {
		f->grace_end_ns = mkw__os_now_ns() + GRACE_NS;
		TAILQ_INSERT_TAIL(&p->kept, f, link);
	} else {
		TAILQ_INSERT_HEAD(&p->kept_free, f, link);
	}
	mkw__mutex_unlock(&p->queue);
	/* It sleeps no longer than the grace. */
	if (end == FAULT_GRACE)
		mkw__os_loop_kick(p->loop);
}

static void on_fault(void *arg, const struct mkw__os_fault *msg)
{
	struct mkw_engine *e = arg;
	struct mkw__pager *p = &e->pager;
	struct mkw__fault_list *b = bucket(p, msg->addr, e->page_shift);
	uint64_t page = msg->addr >> e->page_shift;
	uint64_t now = mkw__os_now_ns();
	struct mkw__fault *f;

	mkw__count(&e->count.faults, 1);
	mkw__count(&e->count.write_faults, msg->write);
	MKW__PROBE4(fault_begin, e, msg->addr, msg->write, 0);
	TAILQ_FOREACH(f, b, active) {
		if (f->addr >> e->page_shift == page &&
		    f->write == msg->write) {
			mkw__count(&e->count.faults_merged, 1);
			if (f->in_grace)
				come_again(p, f, msg);
			return;
		}
	}
	f = TAILQ_FIRST(&p->free);
	if (!f)
		mkw__os_panic("a fault message came while they were held back");
	TAILQ_REMOVE(&p->free, f, link);
	if (TAILQ_EMPTY(&p->free))
		mkw__os_loop_pause(p->loop, true);
	*f = (struct mkw__fault){ .engine = e,
				  .mmu = e->mmu,
				  .addr = msg->addr,
				  .write = msg->write,
				  .wp = msg->wp,
				  .takes_read = p->takes_read,
				  .resume = resume,
				  .losses = losses(p->recent, page, now),
				  .born_ns = now };
	TAILQ_INSERT_TAIL(b, f, active);
	mkw__pager_finish(f, mkw__fault_run(f));
}

static void run_ready(struct mkw_engine *e)
{
	struct mkw__fault_list ready = TAILQ_HEAD_INITIALIZER(ready);
	struct mkw__pager *p = &e->pager;
	struct mkw__fault *f;

	mkw__mutex_lock(&p->queue);
	TAILQ_CONCAT(&ready, &p->ready, link);
	mkw__mutex_unlock(&p->queue);
	while ((f = TAILQ_FIRST(&ready))) {
		TAILQ_REMOVE(&ready, f, link);
		mkw__count(&e->count.retries, 1);
		MKW__PROBE3(fault_retry, e, f->addr, f->write);
		mkw__pager_finish(f, mkw__fault_run(f));
	}
}

static void pager_main(void *arg)
{
	struct mkw_engine *e = arg;
	struct mkw__pager *p = &e->pager;
	bool stop;

	do {
		mkw__os_loop_wait(p->loop, grace_left_ns(p));
		run_ready(e);
		end_graces(p);
		mkw__ra_run(e);
		mkw__mutex_lock(&p->queue);
		stop = p->stop;
		mkw__mutex_unlock(&p->queue);
	} while (!stop);
}

int mkw__pager_start(struct mkw_engine *e)
{
	struct mkw__pager *p = &e->pager;
	int r;

	mkw__mutex_init(&p->queue, MKW__RANK_QUEUE);
	TAILQ_INIT(&p->ready);
	TAILQ_INIT(&p->free);
	TAILQ_INIT(&p->grace);
	TAILQ_INIT(&p->read_waiters);
	TAILQ_INIT(&p->kept);
	TAILQ_INIT(&p->kept_free);
	for (unsigned i = 0; i < MKW__KEPT_FAULTS; i++)
		TAILQ_INSERT_TAIL(&p->kept_free, &p->kept_faults[i], link);
	for (unsigned i = 0; i < MKW__FAULT_BUCKETS; i++)
		TAILQ_INIT(&p->active[i]);
	for (unsigned i = 0; i < MKW__PAGER_FAULTS; i++)
		TAILQ_INSERT_TAIL(&p->free, &p->faults[i], link);
	r = mkw__os_loop_create(MKW__BUFFERS, &p->loop);
	if (r)
		return r;
	r = mkw__os_loop_watch(p->loop, e->mmu, before_read, on_fault, e);
	if (!r)
		r = mkw__os_thread_start(&p->thread, "mkw-pager", pager_main,
					 e);
	if (r)
		mkw__os_loop_destroy(p->loop);
	return r;
}

void mkw__pager_stop(struct mkw_engine *e)
{
	struct mkw__pager *p = &e->pager;

	mkw__mutex_lock(&p->queue);
	p->stop = true;
	mkw__mutex_unlock(&p->queue);
	mkw__os_loop_kick(p->loop);
	mkw__os_thread_join(p->thread);
	mkw__os_loop_destroy(p->loop);
}
