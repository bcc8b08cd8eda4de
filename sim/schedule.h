/* SPDX-License-Identifier: MIT */
/*
 * schedule.h: schedulers that follow a seed or a record, and the record.
 */
#ifndef SIM_SCHEDULE_H
#define SIM_SCHEDULE_H

#include <stdio.h>

#include "sim/sim.h"

#define SIM_SEGMENTS_MAX 65536u

struct sim_segment {
	uint8_t task;
	uint32_t points;	/* how often in a row it was chosen */
};

struct sim_segments {
	unsigned n;
	bool cut;		/* there were more */
	struct sim_segment segment[SIM_SEGMENTS_MAX];
};

/* By a seed, random or by priorities. One at a time; for one run. */
struct sim_scheduler *sim_seeded(uint64_t seed);
/* Another run after this record, which is copied. For one run. */
struct sim_scheduler *sim_replay(const struct sim_segments *segments);

/* Who was chosen in the last run. */
const struct sim_segments *sim_recorded(void);
/* For the machine: begins a record; adds to it. */
void sim_record_reset(void);
void sim_record(unsigned task);

/*
 * "3.12,4.1": task 3 twelve times, task 4 once; "-": no switch but where a task waits.
 * False: it is not like that.
 */
void sim_segments_print(FILE *to, const struct sim_segments *segments);
bool sim_segments_parse(const char *text, struct sim_segments *segments);

#endif /* SIM_SCHEDULE_H */
