/* SPDX-License-Identifier: MIT */
/*
 * strict.h: is there an order of whole operations, loads and stores, of all words
 * together? See strict.c. It is told by history.c what happens.
 */
#ifndef SIM_STRICT_H
#define SIM_STRICT_H

#include <stdbool.h>
#include <stdint.h>

struct sim_op;

/* Forgets everything, and is off. */
void sim_strict_reset(void);
/* From now on; the n words and their values. */
void sim_strict_begin(unsigned n, const uint64_t *first);
/* What comes now is not judged any more. */
void sim_strict_stop(void);
bool sim_strict_is_on(void);
/* A word's part of an operation that has ended. */
void sim_strict_add(unsigned word, const struct sim_op *part);
/* Judges what was begun, if it was: the words have these values in the end. */
void sim_strict_judge(const uint64_t *end);

#endif /* SIM_STRICT_H */
