/* SPDX-License-Identifier: MIT */
/*
 * fault.c: counts the calls of armed points and says which of them fail.
 *
 * `armed` is stored last and read first, so that who finds a point armed finds the
 * rest of the plan as it was when it was armed. A thread that is late by one plan
 * (a flusher's write, say) counts for the next: the loops go on until nothing
 * fires, so that only makes one run longer.
 */
#include <stdatomic.h>

#include "lib/fault.h"

static struct fault_plan plan;
static _Atomic unsigned armed;
static _Atomic uint64_t calls, fired;

void fault_arm(const struct fault_plan *p)
{
	fault_disarm();
	plan = *p;
	atomic_store(&calls, 0);
	atomic_store(&fired, 0);
	atomic_store(&armed, p->points);
}

uint64_t fault_disarm(void)
{
	atomic_store(&armed, 0);
	return atomic_load(&fired);
}

int fault_at(enum fault_point point)
{
	uint64_t n;

	if (!(atomic_load(&armed) & FAULT_BIT(point)))
		return 0;
	n = atomic_fetch_add(&calls, 1) + 1;
	if (n < plan.nth || (n > plan.nth && !plan.persistent))
		return 0;
	atomic_fetch_add(&fired, 1);
	return plan.err;
}

enum fault_effect fault_effect(void)
{
	return plan.effect;
}
