/* SPDX-License-Identifier: MIT */
/*
 * evidence.h: what happened around an anomaly, kept for the report.
 */
#ifndef MKW_CHECK_EVIDENCE_H
#define MKW_CHECK_EVIDENCE_H

#include "check/verdict.h"

#define EVIDENCE_OPS 200

struct evidence_op {
	struct rec rec;
	uint64_t value;		/* of the word: what it wrote or saw */
	bool touches;		/* it did something to the word */
	bool knows;		/* value is known */
	bool culprit, witness;
};

/*
 * The first failure of a run that has one word and two operations to it; until there
 * is one, the first of another class (weak), with what was done there at last.
 */
struct evidence {
	bool taken;
	bool weak;
	enum check_class class;
	char what[320];		/* of just these operations, or "" */
	char profile[16];
	uint32_t word;
	uint64_t began;		/* stamp that times count from: hammering time */
	unsigned n;
	struct evidence_op ops[EVIDENCE_OPS];	/* by start */
};

/*
 * Keeps the operations on the word's page that ran shortly before and during the
 * culprit (may be NULL) and the witness. order: all records by start.
 */
void mkw__evidence_take(struct evidence *ev, const struct history *h,
			struct rec *const *order, uint32_t n_order,
			enum check_class class, const struct rec *culprit,
			const struct rec *witness, uint32_t word);
/*
 * The last operations of a log, in order, on the page of a word: for a failure that no
 * value shows. witness: one of them, or NULL: the last.
 */
void mkw__evidence_take_last(struct evidence *ev, const struct history *h,
			     unsigned log, enum check_class class,
			     const struct rec *witness, uint32_t word);

struct column;
struct options;

/* A page for people: all of the results. 0 or a negative errno. html.c. */
int mkw__check_write_html(const char *path, const struct column *cols,
			  unsigned n, const struct options *o);

/* What is left of a run that still shows the anomaly. */
struct minimal {
	struct check_config cfg;
	unsigned hits, trials;
	double trial_seconds;
};

/*
 * Takes threads, kinds of operations and pages away as long as the class is seen
 * again, for about so many seconds. minimise.c.
 */
void mkw__check_minimise(const struct check_config *cfg,
			 const struct evidence *ev, double seconds,
			 struct minimal *out);

/*
 * Into the directory, made if need be: history.jsonl, and for the kernel
 * reproducer.c. 0 or a negative errno. bundle.c.
 */
int mkw__check_write_bundle(const char *dir, const struct column *col,
			    const struct minimal *min);

#endif /* MKW_CHECK_EVIDENCE_H */
