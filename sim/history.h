/* SPDX-License-Identifier: MIT */
/*
 * history.h: who read and wrote which value of a word, and when; and whether
 * there is an order of it all that a single register could have shown
 * (linearizability, promise G1).
 *
 * A word is eight aligned bytes of a file. A punch writes zero to every word of
 * its range, a read reads each of its words, and so on. Times come from
 * sim_tick(): an operation takes effect at one instant between its two ticks.
 * Values that are written are unique, but for zero.
 */
#ifndef SIM_HISTORY_H
#define SIM_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_WORDS_MAX 512u
#define SIM_OPS_MAX 64u	/* of one word */

struct sim_op {
	const char *task, *what;
	uint64_t start, end;	/* ticks */
	uint64_t step;		/* of the story, at the end */
	uint64_t value;
	bool write;
	bool maybe;		/* a write that failed: it may have happened by its end */
	bool whole;		/* with the other words of its operation at once */
};

/* Forgets everything; every word is 'initial' (or zero, if that is NULL). */
void sim_history_reset(unsigned words, const uint64_t *initial);
uint64_t sim_tick(void);
/* An operation on words [word, word + n) begins now: its start. */
uint64_t sim_history_begin(unsigned word, unsigned n);
/*
 * A write of this value may be seen from now on, in a crash; and is one that a crash
 * left allowed: written at some time, and not gone for sure when a sync began that
 * has returned (G7)?
 */
void sim_history_intend(unsigned word, uint64_t value);
bool sim_history_may_survive(unsigned word, uint64_t value, uint64_t sync_start);
/* Adds an operation of the current task that ended just now. */
void sim_history_add(unsigned word, const char *what, bool write,
		     uint64_t value, uint64_t start, bool maybe);
/*
 * What the current task adds now, for an operation with this start, was one operation
 * of the kind that is atomic as a whole (G1: neither buffer nor file is mapped).
 */
void sim_history_whole(uint64_t start);
/* Judges every word, and neighbours together; a violation that tells the word's history if it fails. */
void sim_history_judge(void);
/* The judgement itself: the index of the operation that cannot be, or -1. */
int sim_history_check(const struct sim_op *ops, unsigned n, uint64_t initial);

#endif /* SIM_HISTORY_H */
