/* SPDX-License-Identifier: MIT */
/*
 * access.h: who touches what, measured.
 *
 * A search for all schedules (search.h) must know which steps depend on each
 * other. That is not declared but seen: the engine's sources are compiled with
 * the calls that a thread sanitizer wants at every load and store (access.c has
 * functions of those names), and the machine tells of its own objects (a page-table
 * entry, a block of the disk) by sim_touch().
 *
 * Between two scheduling points a task makes a *step*; the log has its touches,
 * each object once. Two touches of an object conflict unless both only read,
 * or both only add (a counter, or the end of an operation).
 */
#ifndef SIM_ACCESS_H
#define SIM_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sim_mode { SIM_READ = 1, SIM_ADD = 2, SIM_WRITE = 4 };

/* Two touches of one object, as masks of modes. */
static inline bool sim_modes_conflict(unsigned a, unsigned b)
{
	return ((a | b) & SIM_WRITE) || ((a | b) == (SIM_READ | SIM_ADD));
}

/* Kinds of objects that are not memory of the engine. */
enum sim_object {
	SIM_O_PTE = 1,		/* a page of the address space */
	SIM_O_SLEEP,		/* who sleeps on it */
	SIM_O_FRAME,		/* is there a frame: frames, page */
	SIM_O_WORD,		/* eight bytes of a frame: frames, number */
	SIM_O_LENGTH,		/* of frames */
	SIM_O_ADDRESSES,	/* the address space's layout */
	SIM_O_MESSAGES,		/* of an mmu */
	SIM_O_ENDED,		/* I/Os of a loop */
	SIM_O_KICK,		/* who ends the sleep of a loop */
	SIM_O_KICKED,		/* is there a kick for a loop */
	SIM_O_BLOCK,		/* of a disk: disk, number */
	SIM_O_READING,		/* reads under way: disk, block */
	SIM_O_WRITING,
	SIM_O_DISK,		/* length, faults: disk */
	SIM_O_RANGE,		/* of a range lock: lock, page */
	SIM_O_CLOCK,		/* a word's starts and ends of operations */
	SIM_O_MUTEX,
	SIM_O_STAGE,		/* a scenario's own */
};

struct sim_touched {
	uint64_t object;
	unsigned mode;		/* a mask */
};

/* True while a search looks on. */
extern bool sim_recording;
/* Built with a compiler that instruments the engine. */
bool sim_access_measured(void);

void sim_touch_slow(uint64_t object, unsigned mode);

static inline uint64_t sim_object(enum sim_object kind, const void *of,
				  uint64_t number)
{
	return (uint64_t)kind << 58 | ((uintptr_t)of & 0xffffffffffu) << 16 |
	       (number & 0xffff);
}

static inline void sim_touch(enum sim_object kind, const void *of,
			     uint64_t number, unsigned mode)
{
	if (sim_recording)
		sim_touch_slow(sim_object(kind, of, number), mode);
}

/* ---- the log ---------------------------------------------------------- */

/* Begins a run's log. */
void sim_log_reset(void);
/* What is touched from now on belongs to a new step. */
void sim_log_step(void);
/* Ends the step: what it touched. */
const struct sim_touched *sim_log_end(unsigned *n);
/* Does a step with these touches depend on the one that was ended last? */
bool sim_log_conflicts(const struct sim_touched *touched, unsigned n);

#endif /* SIM_ACCESS_H */
