/* SPDX-License-Identifier: MIT */
/*
 * interrupt.h: SIGINT, SIGTERM and SIGHUP, as a wish to end soon.
 */
#ifndef MKW_CHECK_INTERRUPT_H
#define MKW_CHECK_INTERRUPT_H

#include <semaphore.h>
#include <stdbool.h>

/*
 * From now on the signals only make mkw__check_interrupted() true, and post
 * *hurry (unless NULL). Pairs nest; the inner ones replace hurry for their time.
 * Called by one thread.
 */
void mkw__check_catch(sem_t *hurry);
/* What was before. The outermost also forgets an interrupt. */
void mkw__check_uncatch(void);

bool mkw__check_interrupted(void);
/* Readable once interrupted; only between catch and uncatch. */
int mkw__check_interrupt_fd(void);

#endif /* MKW_CHECK_INTERRUPT_H */
