/* SPDX-License-Identifier: MIT */
/*
 * taking.c: operations that take blocks away, against page faults, on the slow
 * device.
 *
 *   fault-OP      a load's fault is held in its read of the device; OP meanwhile.
 *                 If OP is not kept out the page comes in after its block went.
 *   OP-mkwrite    a page of the range is held in its writeback; OP waits for it,
 *                 half-way; a store faults in another page of the range. The
 *                 window of May 2012: nothing but an extra lock, or retrying the
 *                 fault, keeps page_mkwrite() from blocks that are about to go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check/windows/families.h"
#include "check/windows/slow.h"

#define OFF ((size_t)1 << 20)
#define LEN ((size_t)64 << 10)
#define TOTAL ((size_t)2 << 20)

static const char *const op_names[] = {
	[TAKE_PUNCH] = "punch",
	[TAKE_ZERO] = "zero",
	[TAKE_COLLAPSE] = "collapse",
	[TAKE_INSERT] = "insert",
	[TAKE_TRUNCATE] = "truncate",
};

static void make_op(struct stage *s, struct act *a)
{
	static const int modes[] = {
		[TAKE_PUNCH] = FALLOC_PUNCH,
		[TAKE_ZERO] = FALLOC_ZERO,
		[TAKE_COLLAPSE] = FALLOC_FL_COLLAPSE_RANGE,
		[TAKE_INSERT] = FALLOC_FL_INSERT_RANGE,
	};
	int op = s->window->arg & TAKE_MASK;

	*a = (struct act){ .kind = ACT_FALLOCATE, .off = (off_t)OFF,
			   .len = LEN };
	if (op == TAKE_TRUNCATE)
		a->kind = ACT_TRUNCATE;
	else
		a->mode = modes[op];
}

/* The file as it should be: which byte of the old file is at `at`; or zero. */
static uint64_t wanted(int op, size_t at)
{
	switch (op) {
	case TAKE_COLLAPSE:
		return win_word(TAG_OLD, (at < OFF ? at : at + LEN) / 8);
	case TAKE_INSERT:
		if (at >= OFF && at < OFF + LEN)
			return 0;
		return win_word(TAG_OLD, (at < OFF ? at : at - LEN) / 8);
	default:
		return at >= OFF && at < OFF + LEN ? 0 :
						     win_word(TAG_OLD, at / 8);
	}
}

/* What the file system counts for the file, after the sync that judge() does. */
static const char *blocks_text(struct stage *s)
{
	static char text[96];

	if (s->t.ops->blocks)
		snprintf(text, sizeof(text), "; blocks of 512 bytes: %jd before, "
			 "%jd after", (intmax_t)s->blocks / 512,
			 (intmax_t)s->t.ops->blocks(&s->t) / 512);
	return text;
}

/*
 * What is left must be what the operation leaves; stored (byte, or 0) may be there
 * besides.
 */
static void judge(struct stage *s, size_t stored)
{
	int op = s->window->arg & TAKE_MASK;
	size_t len = op == TAKE_TRUNCATE ? OFF : TOTAL - LEN;
	struct view v[VIEWS];

	if (op == TAKE_TRUNCATE)
		mkw__win_need(s, "truncate",
			      s->t.ops->truncate(&s->t, (off_t)TOTAL));
	if (op == TAKE_TRUNCATE)
		len = OFF + LEN;
	mkw__win_views(s, 0, len, v);
	for (unsigned i = 0; i < VIEWS; i++) {
		for (size_t k = 0; k < v[i].n; k++) {
			uint64_t want = wanted(op, k * 8);

			if (v[i].words[k] == want ||
			    (stored && win_tag(v[i].words[k]) == TAG_STORE))
				continue;
			mkw__win_end(s, want ? WIN_STALE_READ : WIN_RESURRECTED,
				     "after the %s byte %zu should be %#jx, and "
				     "is %#jx by %s%s", op_names[op], k * 8,
				     (uintmax_t)want,
				     (uintmax_t)v[i].words[k], v[i].way,
				     blocks_text(s));
		}
	}
	for (size_t k = 0; k < v[0].n; k++)
		if (v[VIEW_MAP].words[k] != v[VIEW_DISK].words[k])
			mkw__win_end(s, WIN_LOST_STORE,
				     "byte %zu is %#jx in the mapping and %#jx "
				     "on disk", k * 8,
				     (uintmax_t)v[VIEW_MAP].words[k],
				     (uintmax_t)v[VIEW_DISK].words[k]);
}

/* Begins the act, and waits for the device to hold it, or for its end. */
static bool hold_in_device(struct stage *s, struct act *a, uint64_t word,
			   bool write)
{
	struct slow_gate *gate = s->cfg->slow->served.gate;

	while (!sem_trywait(&gate->held))
		;
	atomic_store(&gate->write, write);
	atomic_store(&gate->word, word);
	mkw__act_start(s, a);
	for (;;) {
		struct timespec ts;
		bool done;

		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 5000000;
		ts.tv_sec += ts.tv_nsec / 1000000000;
		ts.tv_nsec %= 1000000000;
		if (!sem_timedwait(&gate->held, &ts))
			return true;
		pthread_mutex_lock(&a->mutex);
		done = a->done;
		pthread_mutex_unlock(&a->mutex);
		if (done)
			return !sem_trywait(&gate->held);
	}
}

static void let_go(struct stage *s)
{
	atomic_store(&s->cfg->slow->served.gate->word, 0);
	sem_post(&s->cfg->slow->served.gate->go);
}

static void conclude(struct stage *s, bool held, const struct act *op,
		     const struct act *other)
{
	const struct act *waited = other->blocked ? other : op;

	if (!held)
		mkw__win_end(s, WIN_SKIPPED, "the device was never asked for "
			     "the page, so nothing could be held");
	if (waited->blocked)
		mkw__win_end(s, WIN_EXCLUDED, "the %s waited%s%s%s",
			     waited == other ? "store" :
			     op_names[s->window->arg & TAKE_MASK],
			     waited->where[0] ? " in " : "", waited->where,
			     blocks_text(s));
	mkw__win_end(s, WIN_COHERENT, "nothing had to wait, and what is left is "
		     "right%s", blocks_text(s));
}

static void need_op(struct stage *s, const struct act *op)
{
	if (op->result == -EOPNOTSUPP || op->result == -EINVAL ||
	    op->result == -ENOSYS)
		mkw__win_end(s, WIN_SKIPPED, "%s is not to be had here",
			     op_names[s->window->arg & TAKE_MASK]);
	if (op->result < 0)
		mkw__win_end(s, WIN_ERROR, "%s: %s",
			     op_names[s->window->arg & TAKE_MASK],
			     strerror((int)-op->result));
}

static void fault_held(struct stage *s)
{
	size_t at = OFF + 3 * s->page;
	struct act fault = { .kind = ACT_LOAD, .off = (off_t)at }, op;
	bool held;

	held = hold_in_device(s, &fault, win_word(TAG_OLD, at / 8), false);
	make_op(s, &op);
	mkw__act_start(s, &op);
	mkw__act_settle(&op);
	let_go(s);
	mkw__act_join(&fault);
	mkw__act_join(&op);
	need_op(s, &op);
	judge(s, 0);
	conclude(s, held, &op, &fault);
}

static void op_parked(struct stage *s)
{
	size_t dirty = OFF + 3 * s->page, at = OFF + 7 * s->page;
	struct act first = { .kind = ACT_STORE, .off = (off_t)dirty,
			     .value = win_word(TAG_NEW, dirty / 8) };
	struct act flush = { .kind = ACT_SYNC }, op;
	struct act store = { .kind = ACT_STORE, .off = (off_t)at,
			     .value = win_word(TAG_STORE, at / 8) };
	bool held;

	mkw__act_do(s, &first);
	held = hold_in_device(s, &flush, first.value, true);
	make_op(s, &op);
	mkw__act_start(s, &op);
	mkw__act_settle(&op);
	mkw__act_start(s, &store);
	mkw__act_settle(&store);
	let_go(s);
	mkw__act_join(&flush);
	mkw__act_join(&op);
	mkw__act_join(&store);
	need_op(s, &op);
	/* What was stored before moves along. */
	if ((s->window->arg & TAKE_MASK) == TAKE_INSERT) {
		first.off += (off_t)LEN;
		first.value = win_word(TAG_OLD, dirty / 8);
		mkw__act_do(s, &first);
	}
	judge(s, at);
	conclude(s, held, &op, &store);
}

void mkw__win_taking(struct stage *s)
{
	mkw__win_need(s, "truncate", s->t.ops->truncate(&s->t, (off_t)TOTAL));
	mkw__win_setup(s, TOTAL);
	if (s->t.ops->blocks)
		s->blocks = s->t.ops->blocks(&s->t);
	if (s->window->arg & TAKE_PARKED)
		op_parked(s);
	else
		fault_held(s);
}
