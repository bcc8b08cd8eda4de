/* SPDX-License-Identifier: MIT */
/*
 * window.h: windows, that is races held open on purpose.
 *
 * A *window* sets a file up, holds the target inside of one operation, does
 * another one, lets go, and judges. It runs in a process of its own, which ends
 * when it concludes; one that does not end is a deadlock, and killed.
 *
 *   catalogue.c   all of them
 *   frame.c       the process, the watchdog
 *   stage.c       what windows are made of: acts, holding, views of the file
 *   lever.c       the memory that holds
 *   others        one family of windows each
 *
 * What a word of the file holds tells where it is from: a tag, and the number
 * of the word.
 */
#ifndef MKW_CHECK_WINDOW_H
#define MKW_CHECK_WINDOW_H

#include <pthread.h>
#include <stdnoreturn.h>

#include "check/check.h"
#include "check/windows/lever.h"

enum win_verdict {
	WIN_COHERENT,
	WIN_EXCLUDED,		/* coherent: the other operation had to wait */
	WIN_LOST_DIRECT_WRITE,
	WIN_LOST_WRITE,
	WIN_LOST_STORE,
	WIN_STALE_READ,
	WIN_TORN,
	WIN_RESURRECTED,
	WIN_PAST_END,
	WIN_ERROR,		/* spurious */
	WIN_DEADLOCK,
	WIN_SKIPPED,
	WIN_VERDICTS
};

const char *mkw__win_verdict_name(enum win_verdict v);

struct stage;

struct window {
	const char *name;
	const char *what;	/* is held, and what is done meanwhile */
	const char *advice;	/* for a maintainer, where it is not coherent */
	void (*run)(struct stage *s);
	int arg;		/* which of the family */
	bool lever;		/* needs one */
	bool slow;		/* needs the slow device: slow.h */
	bool unpromised;	/* by anybody: tearing is only reported */
};

struct win_result {
	const struct window *window;
	enum win_verdict verdict;
	char label[48];		/* the target's */
	char evidence[480];
	double seconds;
};

/* Ends with a window whose name is NULL. */
extern const struct window mkw__windows[];
const struct window *mkw__window_find(const char *name);

/*
 * Runs one window on cfg->target_ops. Always fills *res. An interrupt (see
 * mkw__check_interrupted()) ends it as skipped.
 */
void mkw__window_run(const struct window *w, const struct check_config *cfg,
		     struct win_result *res);

/* Does it count as a failure? */
bool mkw__win_failure(const struct win_result *res,
		      const struct check_config *cfg, bool atomic);

/* ---- what windows are made of ------------------------------------------- */

/* Of the file. Large enough for a folio of 2 MiB not to be all of it. */
#define WIN_BYTES ((size_t)8 << 20)
#define WIN_WORDS (WIN_BYTES / sizeof(uint64_t))

/* Tags. */
enum { TAG_ZERO, TAG_OLD, TAG_NEW, TAG_STORE };

static inline uint64_t win_word(unsigned tag, size_t index)
{
	return (uint64_t)tag << 32 | (index & 0xffffffff);
}

static inline unsigned win_tag(uint64_t word)
{
	return (unsigned)(word >> 32);
}

struct stage {
	const struct window *window;
	const struct check_config *cfg;
	struct target t;
	struct win_result *res;
	size_t page, sector;	/* sector: of direct I/O, 0: none */
	int sync_err;		/* of mkw__win_views() */
	int64_t blocks;		/* bytes of them, as the race began */
};

enum act_kind {
	ACT_LOAD, ACT_STORE, ACT_READ, ACT_WRITE, ACT_FALLOCATE, ACT_TRUNCATE,
	ACT_MSYNC, ACT_SYNC,
	ACT_COPY,		/* loads of a range, to buf */
};

/* An operation done by a thread of its own. */
struct act {
	enum act_kind kind;
	off_t off;
	size_t len;		/* bytes; of ACT_TRUNCATE none: off is the size */
	void *buf;		/* of ACT_STORE and ACT_LOAD: &value */
	uint64_t value;
	unsigned way;
	int mode;
	/* Set by it: */
	ssize_t result;		/* a count, 0, or a negative errno; mapped */
				/* accesses that got SIGBUS: -EFAULT */
	uint64_t start, end;
	bool blocked;		/* it had to wait: mkw__act_settle() */
	char where[64];		/* in which function of the kernel */
	/* Its own: */
	struct stage *stage;
	struct lever *lever;
	pthread_t thread;
	_Atomic int tid;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done;
};

/* The end of a window, with its evidence. */
noreturn void mkw__win_end(struct stage *s, enum win_verdict v,
			   const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Ends it as skipped if the call failed. */
void mkw__win_need(struct stage *s, const char *what, ssize_t result);
/* Needs direct I/O in units of at most so many bytes. */
void mkw__win_need_direct(struct stage *s, size_t most);

/* n words of the tag, as if at byte off of the file. */
void mkw__win_fill(void *buf, unsigned tag, off_t off, size_t len);
/* Writes OLD from 0 to len, syncs, and drops what is cached. */
void mkw__win_setup(struct stage *s, size_t len);
/* Reads it once, through the mapping and by read, so that it is cached. */
void mkw__win_warm(struct stage *s, off_t off, size_t len);

/* Begins; the rest of the fields is set by the caller. */
void mkw__act_start(struct stage *s, struct act *a);
/*
 * Begins, with the lever's memory as buf; returns when it is held. False: it
 * ended without touching the memory.
 */
bool mkw__act_hold(struct stage *s, struct act *a, struct lever *lv);
/*
 * Waits until it is done (true), or plainly waits for something else, the held
 * operation for instance (false; a->blocked and a->where are set).
 */
bool mkw__act_settle(struct act *a);
/* Waits until it is done. */
void mkw__act_join(struct act *a);
/* Does it at once, in this thread. */
void mkw__act_do(struct stage *s, struct act *a);

/* A range of the file as seen in one way. */
struct view {
	const char *way;
	uint64_t *words;
	size_t n;
};

enum { VIEW_MAP, VIEW_READ, VIEW_DISK, VIEWS };

/*
 * Reads [off, off + len) in all ways: mapping, read, and what is on disk after a
 * sync (by direct read, or read where there is none). Where a read fails the
 * window ends: a spurious error. An error of the sync is only noted.
 */
void mkw__win_views(struct stage *s, off_t off, size_t len,
		    struct view v[VIEWS]);

/* How many words of the view's range [from, to) (bytes) have the tag. */
size_t mkw__view_count(const struct view *v, size_t from, size_t to,
		       unsigned tag);

#endif /* MKW_CHECK_WINDOW_H */
