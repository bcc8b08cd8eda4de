/* SPDX-License-Identifier: MIT */
/*
 * verdict.h: from the logs of an epoch to counts of anomalies by class.
 */
#ifndef MKW_CHECK_VERDICT_H
#define MKW_CHECK_VERDICT_H

#include "check/record.h"

struct history {
	struct log *logs;
	unsigned n_logs;
	unsigned phase;
	uint32_t words;		/* of the file */
	const uint64_t *initial;
	bool atomic;
	bool strict;		/* torn counts for everybody */
	bool atomic_loads;	/* loads, too, see whole writes: a promise */
	const char *profile;
	struct evidence *evidence;	/* to be taken at a failure; or NULL */
	uint64_t began;		/* stamp of the epoch's start */
	bool shifted;		/* in an earlier epoch data was moved */
	uint64_t before_ns;	/* hammering time of earlier epochs */
};

struct verdict;
/* NULL: no memory. threads: to judge with. */
struct verdict *mkw__verdict_new(unsigned threads);
void mkw__verdict_free(struct verdict *v);
/*
 * Adds what the history has of anomalies to classes[]. Returns how many new ones
 * are failures, or -ENOMEM.
 */
int64_t mkw__verdict_judge(struct verdict *v, const struct history *h,
			   struct check_count *classes);

/* Counts an anomaly; keeps time and text of the first. */
void mkw__check_count(struct check_count *c, uint64_t when_ns,
		      const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Operations on words that were judged, of all epochs. */
uint64_t mkw__verdict_judged(const struct verdict *v);

#endif /* MKW_CHECK_VERDICT_H */
