/* SPDX-License-Identifier: MIT */
/*
 * search.h: every schedule of a small scenario, once for each that matters.
 *
 * The scenario is run again and again; between sim_search_start() and
 * sim_search_stop() inside the run every choice of the scheduler is a node of a tree
 * that is walked depth first, before and after it there is one fixed schedule.
 * search.c says what is left out of the tree, and why that loses nothing.
 */
#ifndef SIM_SEARCH_H
#define SIM_SEARCH_H

#include "sim/sim.h"

enum sim_search_how {
	SIM_REDUCED,	/* one schedule of each class of equivalent ones */
	SIM_BOUNDED,	/* all with at most so many preemptions */
	SIM_UNPRUNED,	/* all: for comparison, on tiny cases */
};

struct sim_search_options {
	enum sim_search_how how;
	unsigned preemptions;	/* SIM_BOUNDED */
	uint64_t runs_max;	/* 0: no limit */
	bool blind;		/* for a test: sees nothing of what steps touch */
};

struct sim_search_totals {
	uint64_t runs;		/* all of them */
	uint64_t redundant;	/* of these, broken off as nothing new */
	uint64_t steps;
	unsigned depth;		/* of the deepest */
	bool complete;
};

/* Begins a search. The scheduler is for every run of it, with transactions. */
struct sim_scheduler *sim_search_begin(const struct sim_search_options *opt);
/* After a run: is there another to be done? */
bool sim_search_next(const struct sim_result *res);
/* Ends it, at any time. */
void sim_search_end(struct sim_search_totals *totals);

/* ---- inside a run; nothing happens where there is no search ------------- */

void sim_search_start(void);
void sim_search_stop(void);
/* The number of the step under way. */
uint32_t sim_search_step(void);
/* What follows in this task comes after that step, in any schedule. */
void sim_search_after(uint32_t step);

#endif /* SIM_SEARCH_H */
