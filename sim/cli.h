/* SPDX-License-Identifier: MIT */
/*
 * cli.h: the command `mkwrite sim`, between its files.
 *
 *   main.c      arguments
 *   campaign.c  what is run: seeds, searches, planted bugs
 *   report.c    what is said of it: stories, tables, JSON
 */
#ifndef SIM_CLI_H
#define SIM_CLI_H

#include "sim/shrink.h"
#include "sim/stage.h"

struct cli {
	const struct scenario *scenario;	/* NULL: all */
	struct stage_options stage;
	const char *mutant;
	uint64_t first, last;			/* seeds */
	int play;				/* number of a small play; -1: none */
	uint64_t limit;				/* runs of one search */
	unsigned preemptions;			/* of a bounded search, at most */
	bool one_seed, trace, exhaustive, mutants, coverage;
	const char *json;
	bool replay;
	struct sim_segments schedule;		/* to be replayed */
};
extern struct cli cli;

extern const char *const cli_policies[];

/* What became of one scenario, or play, or planted bug. */
struct outcome {
	const struct play *play;
	const char *what;		/* random, exhaustive, replay */
	uint64_t schedules, steps;
	double seconds;
	struct stage_totals totals;	/* random runs */
	const char *verdict;		/* clean, complete, bounded at k, VIOLATION */
	bool good;
	struct sim_result res;		/* where it is not */
	bool scheduled;			/* by cli.schedule */
	unsigned shrunk_from;		/* segments; 0: not shrunk */
};

/* ---- campaign.c: each returns the exit status -------------------------- */

int campaign_seeds(void);
int campaign_coverage(void);
int campaign_search(void);
int campaign_mutants(void);
int campaign_replay(void);

/* ---- report.c ---------------------------------------------------------- */

double report_now(void);
void report_progress(const char *name, uint64_t n, uint64_t runs, double since);
void report_progress_end(void);
/* The last run was a violation: its story, and how to see it again. */
void report_story(struct outcome *o);
/* A line of the table, and an entry of the JSON file. */
void report_outcome(const struct outcome *o);
void report_mutant(const char *name, const struct outcome *o);
/* False: the file could not be written. */
bool report_end(void);

#endif /* SIM_CLI_H */
