/* SPDX-License-Identifier: MIT */
/*
 * perform.c: one operation on the target, and its record.
 *
 * Mapped accesses are relaxed atomics of one word. Past the end of the file they
 * raise SIGBUS, and where the mapping forbids them SIGSEGV, which are outcomes like
 * others; the handler jumps back. It must be there before an engine is opened, whose
 * own handler then passes on what is not its own.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "check/mix.h"

/* ---- mapped accesses ---------------------------------------------------- */

static _Thread_local struct {
	sigjmp_buf env;
	volatile sig_atomic_t armed;
} trap;

void mkw__check_trap(int sig, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	if (trap.armed) {
		trap.armed = 0;
		siglongjmp(trap.env, sig);
	}
	/* Not an access of ours: the process ends when it is tried again. */
	signal(sig, SIG_DFL);
}

/* A handler before ours may have blocked everything. */
static int caught(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigaddset(&set, SIGSEGV);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return sig;
}

int mkw__check_mapped(_Atomic uint64_t *p, uint64_t *value, bool store)
{
	switch (sigsetjmp(trap.env, 0)) {
	case 0:
		break;
	case SIGBUS:
		return caught(SIGBUS);
	default:
		return caught(SIGSEGV);
	}
	trap.armed = 1;
	atomic_signal_fence(memory_order_seq_cst);
	if (store)
		atomic_store_explicit(p, *value, memory_order_relaxed);
	else
		*value = atomic_load_explicit(p, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	trap.armed = 0;
	return 0;
}

/* ---- one operation -------------------------------------------------------- */

static void mishap(struct worker *w, struct mishaps *m, const struct rec *rec,
		   const char *what)
{
	if (m->n++)
		return;
	m->first_ns = rec->end;
	m->first_rec = w->log.n;
	snprintf(m->first, sizeof(m->first), "%s of %zu bytes at %zu: %s",
		 mkw__check_op_name((enum op_kind)rec->kind),
		 rec->words * WORD, rec->word * WORD, what);
}

static void unexpected(struct worker *w, const struct rec *rec, int err)
{
	if (err == ENOSPC)
		atomic_store(&w->no_space, true);
	mishap(w, &w->log.errors, rec,
	       err ? strerror(err) : "fewer bytes than asked for");
}

static void fill(struct worker *w, const struct rec *rec)
{
	uint64_t v = value_make((enum op_kind)rec->kind, w->log.thread,
				w->log.base + w->log.n, rec->word);

	for (uint32_t i = 0; i < rec->words; i++)
		w->buf[i] = v + i;
}

/* Reads: the tracked words of what came. */
static void keep(struct worker *w, const struct rec *rec, unsigned phase)
{
	struct log *log = &w->log;

	for (uint32_t i = track_first(phase, rec->word) - rec->word;
	     i < rec->moved; i += TRACK)
		log->vals[log->n_vals++] = w->buf[i];
}

/* The outcome of a call that moves bytes. */
static void settle_count(struct worker *w, struct rec *rec, ssize_t got)
{
	uint32_t sure = rec->words;

	/* A read may meet the end of the file, in the tail. */
	if (kind_reads((enum op_kind)rec->kind) &&
	    rec->word + rec->words > w->layout->body)
		sure = rec->word < w->layout->body ?
			       w->layout->body - rec->word : 0;
	/* What may say that it would have to wait may also do a part. */
	if (rec->way & WAY_NOWAIT || (rec->way & WAY_PIN && got == -EAGAIN))
		sure = 0;
	if (got == -EAGAIN && rec->way & (WAY_NOWAIT | WAY_PIN))
		got = 0;
	if (got >= 0) {
		rec->moved = (uint32_t)((size_t)got / WORD);
		if (rec->moved < sure || (size_t)got % WORD)
			unexpected(w, rec, 0);
	} else {
		unexpected(w, rec, (int)-got);
	}
	if (rec->moved < rec->words)
		rec->outcome = REC_FAILED;
}

/*
 * The range goes, or zeros come before it, and all behind it moves. The file then
 * gets its old size: with zeros at its end, or without what was moved past it.
 */
static int shift(struct worker *w, off_t off, off_t len, unsigned way)
{
	struct target *t = w->target;
	int err = t->ops->fallocate(t, way == SHIFT_INSERT ?
					       FALLOC_FL_INSERT_RANGE :
					       FALLOC_FL_COLLAPSE_RANGE,
				    off, len);

	return err ? err :
		     t->ops->truncate(t, (off_t)(w->layout->words * WORD));
}

/* The call itself. Mapped accesses count in rec->moved, and give a signal or 0. */
static ssize_t call(struct worker *w, const struct step *s, struct rec *rec)
{
	struct target *t = w->target;
	off_t off = (off_t)(s->word * WORD), len = (off_t)(s->words * WORD);
	unsigned way = s->way;

	if (s->kind == OP_DIRECT_READ || s->kind == OP_DIRECT_WRITE)
		way |= WAY_DIRECT;
	switch (s->kind) {
	case OP_LOAD:
	case OP_STORE:
		if (s->way & WAY_PIN)
			return mkw__check_pinned(w, s);
		for (; rec->moved < s->words; rec->moved++) {
			int sig = mkw__check_touch(w, s, rec->moved);

			if (sig)
				return sig;
		}
		return 0;
	case OP_READ:
	case OP_DIRECT_READ:
		return t->ops->pread(t, w->buf, (size_t)len, off, way);
	case OP_WRITE:
	case OP_DIRECT_WRITE:
		return t->ops->pwrite(t, w->buf, (size_t)len, off, way);
	case OP_PUNCH:
		return t->ops->fallocate(t, FALLOC_PUNCH, off, len);
	case OP_ZERO:
		return t->ops->fallocate(t, FALLOC_ZERO, off, len);
	case OP_ALLOCATE:
		return t->ops->fallocate(t, FALLOC_FL_KEEP_SIZE, off, len);
	case OP_TRUNCATE:
		return t->ops->truncate(t, off);
	case OP_DISTURB:
		return t->ops->disturb(t, s->what, off, (size_t)len);
	case OP_SHIFT:
		return shift(w, off, len, s->way);
	case OP_REMAP:
		return mkw__check_remap(w, s);
	case OP_SYNC:
	case OP_KINDS:
		break;
	}
	return t->ops->sync(t);
}

static void settle_mapped(struct worker *w, const struct step *s,
			  struct rec *rec, int sig)
{
	bool denied = mkw__check_denied(w, s);

	if (rec->moved == s->words) {
		if (denied)
			mishap(w, &w->log.granted, rec,
			       "done, and the mapping forbids it");
		return;
	}
	rec->outcome = REC_FAILED;
	if (sig == SIGSEGV) {
		if (!denied)
			mishap(w, &w->log.errors, rec,
			       "SIGSEGV, and the mapping allows it");
		/* It must not have done anything. */
		rec->words = 0;
	} else if (s->word + rec->moved < w->layout->body) {
		mishap(w, &w->log.errors, rec, "SIGBUS inside of the file");
	}
}

/* What came of it. */
static void settle(struct worker *w, const struct step *s, struct rec *rec,
		   ssize_t got)
{
	bool may_refuse = s->kind == OP_DISTURB || s->kind == OP_ALLOCATE;

	switch (s->kind) {
	case OP_LOAD:
	case OP_STORE:
		if (s->way & WAY_PIN)
			settle_count(w, rec, got);
		else
			settle_mapped(w, s, rec, (int)got);
		return;
	case OP_READ:
	case OP_WRITE:
	case OP_DIRECT_READ:
	case OP_DIRECT_WRITE:
		settle_count(w, rec, got);
		return;
	default:
		rec->moved = s->kind == OP_SHIFT || s->kind == OP_ALLOCATE ?
				     s->words : rec->words;
		if (got >= 0)
			return;
		rec->moved = 0;
		rec->outcome = REC_FAILED;
		if (!may_refuse || got != -EOPNOTSUPP)
			unexpected(w, rec, (int)-got);
	}
}

/* One in so many calls that have a buffer finds a page of it missing. */
#define LATE_EVERY 16

/* A page of the buffer comes late, now and then. */
static bool make_late(struct worker *w, const struct step *s)
{
	uint32_t r;

	if (!w->late || (!kind_reads(s->kind) && !kind_writes(s->kind)) ||
	    s->kind == OP_LOAD || s->kind == OP_STORE ||
	    mkw__check_random(w, LATE_EVERY))
		return false;
	r = mkw__check_random(w, s->words);
	mkw__late_arm(w->late, w->log.thread, r * WORD,
		      1 + mkw__check_random(w, w->delay_ns));
	return true;
}

void mkw__check_do(struct worker *w, const struct step *s, unsigned phase)
{
	struct rec *rec = log_begin(&w->log, s->kind, s->word, s->words);
	uint64_t start;
	ssize_t got = 0;
	bool late;

	rec->way = (uint8_t)s->way;
	/*
	 * A truncation makes zeros of all that is past the new size, or, where
	 * it makes the file longer, of nothing. Some change no word.
	 */
	if (s->kind == OP_TRUNCATE)
		rec->words = w->layout->words - s->word;
	if (!kind_reads(s->kind) && !kind_writes(s->kind) &&
	    !kind_zeroes(s->kind))
		rec->words = 0;
	if (kind_writes(s->kind) && !w->bare)
		fill(w, rec);
	atomic_store_explicit(&w->doing, (int)s->kind, memory_order_relaxed);
	late = make_late(w, s);
	if (w->bare) {
		call(w, s, rec);
	} else {
		start = stamp_begin();
		got = call(w, s, rec);
		rec->end = stamp_end();
		rec->start = start;
	}
	atomic_store_explicit(&w->doing, -1, memory_order_relaxed);
	if (late)
		mkw__late_settle(w->late, w->log.thread);
	/* It is the only one to write it. */
	atomic_store_explicit(&w->done[s->kind],
			      atomic_load_explicit(&w->done[s->kind],
						   memory_order_relaxed) + 1,
			      memory_order_relaxed);
	if (w->bare)
		return;
	settle(w, s, rec, got);
	if (kind_reads(s->kind))
		keep(w, rec, phase);
	log_end(&w->log);
}
