/* SPDX-License-Identifier: MIT */
/*
 * coverage.h: what of the engine's two diagrams the runs of this process have
 * taken: the transitions of a page (doc/STATES.md) and the edges of the lock
 * order (doc/LOCKING.md).
 */
#ifndef SIM_COVERAGE_H
#define SIM_COVERAGE_H

#include <stdbool.h>
#include <stdio.h>

/* Prints each with how often it was taken. False: one never was. NULL: looks only. */
bool sim_coverage_print(FILE *to);

#endif /* SIM_COVERAGE_H */
