/* SPDX-License-Identifier: MIT */
/*
 * fault.h: failures on demand, for tests.
 *
 * A *fault point* is a kind of call into the world below the engine: a store's
 * read, the system's memory. Whoever stands in such a place (shim.h, wrap_os.c)
 * asks fault_at() before the real call. A test arms the points once, runs an
 * operation with nth = 1, 2, ... until nothing fires, and looks after each run at
 * what is left: so every call that the operation makes has failed once.
 *
 * The state is the process's. Any thread may ask, the fault handler too; arming
 * is the test's own, between operations.
 */
#ifndef TEST_FAULT_H
#define TEST_FAULT_H

#include <stdbool.h>
#include <stdint.h>

enum fault_point {
	/* Of a store. */
	FAULT_OWN,
	FAULT_READ,
	FAULT_WRITE,
	FAULT_FLUSH,
	FAULT_RESIZE,
	FAULT_PUNCH,		/* and zero */
	FAULT_ALLOCATE,
	FAULT_SEEK,
	/* Of the system. */
	FAULT_MEMORY,
	FAULT_FRAMES,		/* made or made longer */
	FAULT_PAGE_TABLE,
	FAULT_MAP,
	FAULT_LOOP,		/* loops, threads, descriptors */
	/* System calls beneath the host file. */
	FAULT_CALL_READ,
	FAULT_CALL_WRITE,
	FAULT_CALL_FLUSH,
	FAULT_CALL_RESIZE,
	FAULT_CALL_ALLOCATE,
	FAULT_POINTS
};

#define FAULT_BIT(point) (1u << (point))
#define FAULT_STORE \
	(FAULT_BIT(FAULT_OWN) | FAULT_BIT(FAULT_READ) | \
	 FAULT_BIT(FAULT_WRITE) | FAULT_BIT(FAULT_FLUSH) | \
	 FAULT_BIT(FAULT_RESIZE) | FAULT_BIT(FAULT_PUNCH) | \
	 FAULT_BIT(FAULT_ALLOCATE) | FAULT_BIT(FAULT_SEEK))
#define FAULT_SYSTEM \
	(FAULT_BIT(FAULT_MEMORY) | FAULT_BIT(FAULT_FRAMES) | \
	 FAULT_BIT(FAULT_PAGE_TABLE) | FAULT_BIT(FAULT_MAP) | \
	 FAULT_BIT(FAULT_LOOP))
#define FAULT_CALLS \
	(FAULT_BIT(FAULT_CALL_READ) | FAULT_BIT(FAULT_CALL_WRITE) | \
	 FAULT_BIT(FAULT_CALL_FLUSH) | FAULT_BIT(FAULT_CALL_RESIZE) | \
	 FAULT_BIT(FAULT_CALL_ALLOCATE))

/* How much of a failing write, punch or zero is done before it fails. */
enum fault_effect { EFFECT_NONE, EFFECT_HALF, EFFECT_ALL };

/*
 * The nth call of the points from now on fails with err, and with `persistent`
 * every one after it.
 */
struct fault_plan {
	unsigned points;
	uint64_t nth;
	bool persistent;
	int err;		/* negative errno */
	enum fault_effect effect;
};

void fault_arm(const struct fault_plan *plan);
/* Nothing fails any more; how often something did since it was armed. */
uint64_t fault_disarm(void);
/* The error that this call is to fail with, or 0. */
int fault_at(enum fault_point point);
enum fault_effect fault_effect(void);

#endif /* TEST_FAULT_H */
