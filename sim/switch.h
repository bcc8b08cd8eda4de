/* SPDX-License-Identifier: MIT */
/*
 * switch.h: from one stack to another.
 *
 * A context is a stack pointer; what a function must preserve is pushed on the
 * stack that is left. By hand on x86-64 and arm64, since the C library's
 * swapcontext() makes a system call each time, which would be most of the cost
 * of a step; that is the fallback elsewhere. Floating-point modes are not
 * switched: nothing here changes them.
 */
#ifndef SIM_SWITCH_H
#define SIM_SWITCH_H

#include <stddef.h>

/* Saves the running context in *from and goes on with 'to'. */
void sim_switch(void **from, void *to);
/* A context that will call entry() on the given stack; entry must not return. */
void *sim_context(char *stack, size_t size, void (*entry)(void));

#endif /* SIM_SWITCH_H */
