/* SPDX-License-Identifier: MIT */
/*
 * mix.c: what the threads do.
 *
 * A profile says which part of the file is used, and how often each kind of
 * operation comes. Small and hot parts collide often:
 *   sectors   Direct writes of 512 bytes, into sectors that only their thread
 *             writes, while others load and store in the other sectors of the
 *             same pages. Where a file system drops the page from its cache before
 *             and after a direct write, a store may bring it back between the two,
 *             with the old sector in it: the direct write is gone when the
 *             page is written back.
 *   hot       everything but truncate, on a few pages
 *   tail      the same with truncate, around the end of the file
 *   wide      everything, all over the file, which is larger than the smallest
 *             cache of the engine: reclaim
 *
 * Mapped accesses are relaxed atomics of one word. Past the end of the file they
 * raise SIGBUS, which is an outcome like another; the handler jumps back. It
 * must be there before an engine is opened, whose own handler then passes on
 * what is not its own.
 */
#include "check/mix.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

/* 512 bytes: what disks and direct I/O call a sector. */
#define SECTOR_WORDS 64u
#define SMALL_WORDS (4u * 1024 / WORD)
#define PACE_NS 2000u

struct profile {
	const char *name;
	bool sectors;		/* the profile of that name */
	bool tail;		/* the end of the file rather than its start */
	uint32_t pages;		/* of the part used; 0: all of the file */
	uint8_t weights[OP_KINDS];
	uint8_t large;		/* of 100 reads and writes, those of 64 KiB */
};

static const struct profile profiles[] = {
	{
		.name = "sectors",
		.sectors = true,
		.pages = 2,
	},
	{
		.name = "hot",
		.pages = 16,
		.large = 4,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 25, [OP_WRITE] = 20,
			[OP_DIRECT_READ] = 25, [OP_DIRECT_WRITE] = 25,
			[OP_PUNCH] = 6, [OP_ZERO] = 4, [OP_SYNC] = 2,
		},
	},
	{
		.name = "tail",
		.tail = true,
		.pages = 24,
		.large = 4,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 25, [OP_WRITE] = 20,
			[OP_DIRECT_READ] = 20, [OP_DIRECT_WRITE] = 20,
			[OP_PUNCH] = 4, [OP_ZERO] = 4, [OP_TRUNCATE] = 12,
			[OP_SYNC] = 1,
		},
	},
	{
		.name = "wide",
		.large = 10,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 15, [OP_WRITE] = 15,
			[OP_DIRECT_READ] = 10, [OP_DIRECT_WRITE] = 10,
			[OP_PUNCH] = 5, [OP_ZERO] = 3, [OP_TRUNCATE] = 3,
			[OP_SYNC] = 1,
		},
	},
};

const struct profile *mkw__check_profile(unsigned epoch)
{
	static const uint8_t rota[] = { 0, 1, 0, 2, 0, 3 };

	return &profiles[rota[epoch % sizeof(rota)]];
}

const char *mkw__check_profile_name(const struct profile *p)
{
	return p->name;
}

const char *mkw__check_profile_unfit(const struct profile *p,
				     const struct layout *layout,
				     uint32_t direct_align)
{
	if (!p->sectors)
		return NULL;
	if (!direct_align)
		return "there is no direct I/O here";
	if (direct_align > SECTOR_WORDS * WORD)
		return "direct I/O of 512 bytes is not possible here";
	if (layout->page_words < 4 * SECTOR_WORDS)
		return "pages are too small";
	return NULL;
}

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
		siglongjmp(trap.env, 1);
	}
	/* Not an access of ours: the process ends when it is tried again. */
	signal(sig, SIG_DFL);
}

bool mkw__check_mapped(_Atomic uint64_t *p, uint64_t *value, bool store)
{
	if (sigsetjmp(trap.env, 0)) {
		sigset_t set;

		/* A handler before ours may have blocked everything. */
		sigemptyset(&set);
		sigaddset(&set, SIGBUS);
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		return false;
	}
	trap.armed = 1;
	atomic_signal_fence(memory_order_seq_cst);
	if (store)
		atomic_store_explicit(p, *value, memory_order_relaxed);
	else
		*value = atomic_load_explicit(p, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	trap.armed = 0;
	return true;
}

/* ---- one operation -------------------------------------------------------- */

#define GOT_SIGBUS 1000	/* in place of an errno */

static void unexpected(struct worker *w, const struct rec *rec, int err)
{
	struct log *log = &w->log;

	if (err == ENOSPC)
		atomic_store(&w->no_space, true);
	if (log->errors++)
		return;
	log->first_error_ns = rec->end;
	snprintf(log->first_error, sizeof(log->first_error),
		 "%s of %zu bytes at %zu: %s",
		 mkw__check_op_name((enum op_kind)rec->kind),
		 rec->words * WORD, rec->word * WORD,
		 err == GOT_SIGBUS ? "SIGBUS inside of the file" :
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
static void settle(struct worker *w, struct rec *rec, ssize_t got)
{
	uint32_t sure = rec->words;

	/* A read may meet the end of the file, in the tail. */
	if (kind_reads((enum op_kind)rec->kind) &&
	    rec->word + rec->words > w->layout->body)
		sure = rec->word < w->layout->body ?
			       w->layout->body - rec->word : 0;
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

void mkw__check_do(struct worker *w, enum op_kind kind, uint32_t word,
		   uint32_t words, unsigned phase)
{
	struct target *t = w->target;
	struct rec *rec = log_begin(&w->log, kind, word, words);
	unsigned way = kind == OP_DIRECT_READ || kind == OP_DIRECT_WRITE ?
			       WAY_DIRECT : 0;
	off_t off = (off_t)(word * WORD), len = (off_t)(words * WORD);
	ssize_t got = 0;
	uint64_t start;

	/*
	 * A truncation makes zeros of all that is past the new size, or, where
	 * it makes the file longer, of nothing.
	 */
	if (kind == OP_TRUNCATE)
		rec->words = w->layout->words - word;
	if (kind_writes(kind))
		fill(w, rec);
	atomic_store_explicit(&w->doing, (int)kind, memory_order_relaxed);
	start = stamp_begin();
	switch (kind) {
	case OP_LOAD:
	case OP_STORE:
		for (; rec->moved < words; rec->moved++)
			if (!mkw__check_mapped(&t->map[word + rec->moved],
					       &w->buf[rec->moved],
					       kind == OP_STORE))
				break;
		break;
	case OP_READ:
	case OP_DIRECT_READ:
		got = t->ops->pread(t, w->buf, (size_t)len, off, way);
		break;
	case OP_WRITE:
	case OP_DIRECT_WRITE:
		got = t->ops->pwrite(t, w->buf, (size_t)len, off, way);
		break;
	case OP_PUNCH:
		got = t->ops->fallocate(t, FALLOC_PUNCH, off, len);
		break;
	case OP_ZERO:
		got = t->ops->fallocate(t, FALLOC_ZERO, off, len);
		break;
	case OP_TRUNCATE:
		got = t->ops->truncate(t, off);
		break;
	case OP_SYNC:
	case OP_KINDS:
		got = t->ops->sync(t);
		break;
	}
	rec->end = stamp_end();
	rec->start = start;
	atomic_store_explicit(&w->doing, -1, memory_order_relaxed);

	if (kind == OP_LOAD || kind == OP_STORE) {
		if (rec->moved < words)
			rec->outcome = REC_FAILED;
		if (rec->moved < words && word + rec->moved < w->layout->body)
			unexpected(w, rec, GOT_SIGBUS);
	} else if (kind_reads(kind) || kind_writes(kind)) {
		settle(w, rec, got);
	} else if (got < 0) {
		rec->outcome = REC_FAILED;
		unexpected(w, rec, (int)-got);
	} else {
		rec->moved = rec->words;
	}
	if (kind_reads(kind))
		keep(w, rec, phase);
	log_end(&w->log);
	atomic_fetch_add_explicit(&w->done[kind], 1, memory_order_relaxed);
}

/* ---- choosing one ----------------------------------------------------------- */

static uint32_t below(struct worker *w, uint32_t n)
{
	uint64_t z = (w->rng += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return (uint32_t)((z >> 32) * n >> 32);
}

static uint32_t tracked(unsigned phase, uint32_t word)
{
	return (word & ~(TRACK - 1)) + phase;
}

/*
 * The lower half of a page's sectors belongs to direct writers, one each as far
 * as they go; the upper half to stores.
 */
static void step_sectors(struct worker *w, const struct profile *p,
			 unsigned phase)
{
	uint32_t per_page = w->layout->page_words / SECTOR_WORDS;
	uint32_t page = below(w, p->pages) * w->layout->page_words;
	uint32_t mine = page + (w->log.thread / 2 % (per_page / 2)) *
				       SECTOR_WORDS;
	uint32_t other = page + w->layout->page_words / 2 +
			 below(w, w->layout->page_words / 2);
	uint32_t any = page + below(w, w->layout->page_words);
	uint32_t dice = below(w, 100);
	uint64_t pause_until;

	if (w->log.thread % 2 == 0) {
		if (dice < 70)
			mkw__check_do(w, OP_DIRECT_WRITE, mine, SECTOR_WORDS,
				      phase);
		else if (dice < 90)
			mkw__check_do(w, OP_DIRECT_READ, mine, SECTOR_WORDS,
				      phase);
		else
			mkw__check_do(w, OP_LOAD, tracked(phase, mine), 1,
				      phase);
		return;
	}
	if (dice < 60)
		mkw__check_do(w, OP_STORE, tracked(phase, other), 1, phase);
	else
		mkw__check_do(w, OP_LOAD, tracked(phase, any), 1, phase);
	/*
	 * Only the first store after a page went matters; more would fill the log,
	 * and take the processor from the direct writers.
	 */
	pause_until = w->log.recs[w->log.n - 1].start + PACE_NS;
	do {
		sched_yield();
	} while (stamp() < pause_until);
}

static enum op_kind choose(struct worker *w, const struct profile *p)
{
	uint32_t total = 0, at;
	unsigned kind;

	for (kind = 0; kind < OP_KINDS; kind++)
		total += p->weights[kind];
	at = below(w, total);
	for (kind = 0; at >= p->weights[kind]; kind++)
		at -= p->weights[kind];
	if (!w->target->direct_align) {
		if (kind == OP_DIRECT_READ)
			return OP_READ;
		if (kind == OP_DIRECT_WRITE)
			return OP_WRITE;
	}
	if ((kind == OP_PUNCH && !w->can_punch) ||
	    (kind == OP_ZERO && !w->can_zero))
		return OP_LOAD;
	return (enum op_kind)kind;
}

/*
 * Rounds [*word, *word + *words) out to multiples of unit, and then moves it to
 * end inside of the file.
 */
static void fit(const struct layout *layout, uint32_t unit, uint32_t *word,
		uint32_t *words)
{
	uint32_t end = (*word + *words + unit - 1) / unit * unit;

	*word = *word / unit * unit;
	*words = end - *word;
	if (end > layout->words)
		*word = layout->words - *words;
}

void mkw__check_step(struct worker *w, const struct profile *p,
		     unsigned phase)
{
	const struct layout *layout = w->layout;
	uint32_t size = p->pages ? p->pages * layout->page_words :
				   layout->words;
	uint32_t word = below(w, size);
	uint32_t words, dice = below(w, 100), unit = 1;
	enum op_kind kind;

	if (p->sectors) {
		step_sectors(w, p, phase);
		return;
	}
	if (p->tail)
		word += layout->words - size;
	kind = choose(w, p);
	switch (kind) {
	case OP_LOAD:
	case OP_STORE:
		mkw__check_do(w, kind, tracked(phase, word), 1, phase);
		return;
	case OP_TRUNCATE:
		/* Back to its full length half of the time. */
		word = layout->words;
		if (dice < 50)
			word = layout->body + below(w, layout->words -
							       layout->body);
		mkw__check_do(w, kind,
			      word / layout->page_words * layout->page_words,
			      0, phase);
		return;
	case OP_SYNC:
		mkw__check_do(w, kind, 0, 0, phase);
		return;
	case OP_DIRECT_READ:
	case OP_DIRECT_WRITE:
		if (w->target->direct_align > WORD)
			unit = (uint32_t)(w->target->direct_align / WORD);
		break;
	default:
		/* Any words, or sectors. */
		if (dice < 70)
			unit = SECTOR_WORDS;
		break;
	}
	words = below(w, 2) ? SECTOR_WORDS : SMALL_WORDS;
	if (below(w, 100) < p->large)
		words = (uint32_t)OP_WORDS_MAX;
	if (unit == 1)
		words = 1 + below(w, words);
	/* The end of the file stays between pages. */
	if (kind_writes(kind) && word + words > layout->body &&
	    unit < layout->page_words)
		unit = layout->page_words;
	/* Rounding out must not make it longer than an operation can be. */
	if (words > OP_WORDS_MAX - unit)
		word = word / unit * unit;
	fit(layout, unit, &word, &words);
	mkw__check_do(w, kind, word, words, phase);
}
