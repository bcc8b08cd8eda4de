/* SPDX-License-Identifier: MIT */
/*
 * shrink.h: a violation's schedule, as short as it gets; and which oracle spoke.
 */
#ifndef SIM_SHRINK_H
#define SIM_SHRINK_H

#include "sim/schedule.h"
#include "sim/stage.h"

/* The oracle's name, by the violation's message. */
const char *sim_oracle(const char *message);

/*
 * *segments is a schedule of p with a violation that *res tells of. Leaves out what
 * it can while the same oracle objects; *res is the last such run's, and that run
 * is the last one made. How many runs it took; 0: the schedule did not repeat it.
 */
unsigned sim_shrink(const struct play *p, struct sim_segments *segments,
		    struct sim_result *res);

#endif /* SIM_SHRINK_H */
