/* SPDX-License-Identifier: MIT */
/*
 * judge.h: is the history of one word that of a linearizable register?
 *
 * The history is a set of reads and writes, each with the time just before it
 * began and just after it ended; one precedes another where it ended strictly
 * before the other began. Every value but zero is written at most once; zero
 * may be written any number of times (punch, zero, truncate). The answer is
 * exact: a history without findings has a linearization, one with findings has
 * none. How: judge.c.
 */
#ifndef MKW_CHECK_JUDGE_H
#define MKW_CHECK_JUDGE_H

#include <stddef.h>
#include <stdint.h>

enum judge_type {
	JUDGE_READ,
	JUDGE_WRITE,
	/* A write that failed: it took effect at some time after its start,
	 * perhaps long after its end, or never. */
	JUDGE_MAYBE,
};

/* Times are below UINT64_MAX; the end of a MAYBE does not count. */
struct judge_op {
	uint64_t start, end;
	uint64_t value;
	uint32_t id;		/* the caller's, but JUDGE_INITIAL */
	uint8_t type;		/* enum judge_type */
	uint8_t dropped;	/* the judge's own */
};

/* Stands for the write of the initial value, or for "none". */
#define JUDGE_INITIAL UINT32_MAX

enum judge_fault {
	/* The read returned a value that nobody wrote into this word. */
	JUDGE_NEVER_WRITTEN,
	/* The read ended before the write of its value began. */
	JUDGE_FUTURE,
	/* The read proves that the write was undone: it returned something
	 * older, and no later read returned the written value again. */
	JUDGE_LOST,
	/* The read returned a value that was overwritten before it began,
	 * and a later read returned the newer value again. */
	JUDGE_STALE,
	/* The read returned what the write of zero had removed. */
	JUDGE_RESURRECTED,
};

struct judge_finding {
	enum judge_fault fault;
	uint32_t write;		/* id of the write concerned */
	uint32_t read;		/* id of the read that shows it */
};

/* Findings of one word after which its judging stops. */
#define JUDGE_FINDINGS_MAX 16

/* Working memory, to be used by one thread at a time. */
struct judge;
/* NULL: no memory. */
struct judge *mkw__judge_new(void);
void mkw__judge_free(struct judge *j);

/*
 * Judges ops[0..n), a word that held 'initial' at first. Fastest when they are
 * sorted by start. found (unless NULL) is called for each finding; what is wrong
 * is then set aside, and the rest judged, so that one fault does not show as
 * many. Returns the number of findings, or -ENOMEM.
 */
int mkw__judge_word(struct judge *j, uint64_t initial, struct judge_op *ops,
		    size_t n,
		    void (*found)(void *arg, const struct judge_finding *f),
		    void *arg);

#endif /* MKW_CHECK_JUDGE_H */
