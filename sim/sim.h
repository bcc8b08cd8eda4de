/* SPDX-License-Identifier: MIT */
/*
 * sim.h: the simulated machine, as scenarios and its own tests see it.
 *
 * One run (sim_run()) is a machine that is switched on, runs a root task and
 * whatever that starts, and is switched off when the root returns. All tasks
 * share one thread of the host; at every step (a lock, a store, a page-table
 * change, eight bytes of a copy, ...) the scheduler chooses who goes on. One
 * 64-bit seed decides everything, so a run can be had again, bit by bit.
 *
 *   tasks, time, locks, events        task.c
 *   what happened                     trace.c
 *   memory of the engine              arena.c
 *   address space, frames, faults     mmu.c
 *   event loops                       loop.c
 *   the disk                          disk.c
 *   judging histories                 history.c
 *
 * A violation (deadlock, livelock, a panic of the engine, a broken contract of
 * os.h or store.h, a scenario's own judgement) ends the run at once: tasks are
 * abandoned where they stand, so that their state can be printed.
 */
#ifndef SIM_H
#define SIM_H

#include <limits.h>
#include <stdio.h>

#include "os/os.h"
#include "store/store.h"

/* ---- running ---------------------------------------------------------- */

/*
 * Who runs next. tasks[0..n) are the numbers of those that can, current the
 * index of the one that runs now, or n when it cannot go on. Returns an index, or
 * SIM_ABANDON: the run ends here, without a verdict. woken(), or NULL: by the
 * running task, or (idle) because nobody else could go on.
 */
#define SIM_ABANDON UINT_MAX

struct sim_scheduler {
	unsigned (*choose)(struct sim_scheduler *s, const uint8_t *tasks,
			   unsigned n, unsigned current);
	void (*woken)(struct sim_scheduler *s, unsigned task, bool idle);
};

struct sim_config {
	uint64_t seed;
	size_t page_size;	/* 0: 64 bytes */
	uint64_t step_limit;	/* 0: 400,000; more is called a livelock */
	bool oddities;		/* spurious EAGAIN, short counts */
	bool old_kernel;	/* Linux 6.1: no protected CONTINUE, no POISON */
	bool store_threads;	/* disks are stores with MKW_STORE_MAY_BLOCK */
	bool trace;		/* print every step as it happens */
	uint64_t crash_step;	/* the machine crashes there; 0: it does not */
	bool transactions;	/* fewer points, the same outcomes; see machine.h */
	struct sim_scheduler *scheduler; /* NULL: by the seed */
};

struct sim_result {
	bool violated;
	bool abandoned;		/* by the scheduler */
	bool crashed;
	char message[2048];
	uint64_t steps;
	uint64_t hash;		/* of every step and its arguments */
};

/* Runs root(arg) on a fresh machine. True: no violation. */
bool sim_run(const struct sim_config *cfg, void (*root)(void *arg), void *arg,
	     struct sim_result *res);

/*
 * Prints the major steps of the last run, as many as were kept, from the mark
 * SIM_BEGINS on; of those after SIM_ENDS only the last.
 */
void sim_print_story(FILE *to);
/* Prints every task, what it waits for, page tables, frames and disk. */
void sim_print_state(FILE *to);

/* ---- inside a run ----------------------------------------------------- */

_Noreturn void sim_violation(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));

/* An application task; its number. name: kept by reference. */
unsigned sim_spawn(const char *name, void (*fn)(void *arg), void *arg);
/* Waits until the task has returned. */
void sim_join(unsigned task);
unsigned sim_self(void);

/* A scheduling point, and a line of the story. Up to three %llx or %llu. */
void sim_step(const char *fmt, uint64_t a, uint64_t b, uint64_t c);
enum sim_mark { SIM_BEGINS, SIM_ENDS, SIM_MARKS };
void sim_trace_mark(enum sim_mark mark);
/* The number of the last step: a clock that orders events. */
uint64_t sim_now(void);
/* Lets every other task run until nothing but time could go on. */
void sim_settle(void);
/* The same, and from now on no oddity happens, nor does time pass by itself. */
void sim_calm(void);

/* Random numbers for a scenario's choices. below > 0. */
uint64_t sim_random(uint64_t below);

/* ---- accesses of application code ------------------------------------- */

enum sim_outcome { SIM_OK, SIM_BUS, SIM_SEGV };

/* One aligned word. The task sleeps in a fault as long as nobody serves it. */
enum sim_outcome sim_load(uintptr_t addr, uint64_t *value);
enum sim_outcome sim_store(uintptr_t addr, uint64_t value);

/*
 * A device, or the kernel, gets hold of the frame at addr, which must be possible without
 * a fault, and reads and writes words of that frame past every protection until the end.
 */
void sim_grab(uintptr_t addr, bool write);
void sim_grab_store(uintptr_t addr, uint64_t value);
uint64_t sim_grab_load(uintptr_t addr);
void sim_grab_end(void);

/*
 * From now on the host's memory cannot be read at this address and, in one go, beyond it:
 * a buffer with a hole. NULL: none.
 */
void sim_guard(const void *p);

/* From now on an access that faults more often than that is a violation (G3). */
void sim_patience(unsigned faults);

/* Is the address one of the simulated address space? */
bool sim_is_fake(uintptr_t addr);

/* Counters of the run, for tests of scenarios. */
struct sim_counts {
	uint64_t faults, handler_calls, messages, drops;
};
extern struct sim_counts sim_counts;

/* ---- the disk --------------------------------------------------------- */

#define SIM_BLOCK 16u	/* bytes that are written in one piece */

struct sim_disk;

/* A disk file of len bytes, zero, nothing allocated. Lives until the run ends. */
struct sim_disk *sim_disk_create(uint64_t len);
/* A store onto it, for mkw__file_attach(). */
struct mkw__store *sim_disk_store(struct sim_disk *d);
/* Straight to the platter, no scheduling points. */
uint64_t sim_disk_peek(struct sim_disk *d, uint64_t off);
void sim_disk_poke(struct sim_disk *d, uint64_t off, uint64_t value);
bool sim_disk_allocated(struct sim_disk *d, uint64_t off);
uint64_t sim_disk_len(struct sim_disk *d);
/*
 * The nth call of a kind from now on fails with -EIO, a write or a take after a part
 * of it was done; 0: none does; UINT_MAX: each does. A take is a punch, zero or shrink.
 */
enum sim_disk_call {
	SIM_DISK_READ, SIM_DISK_WRITE, SIM_DISK_TAKE, SIM_DISK_FLUSH,
	SIM_DISK_CALLS
};
void sim_disk_fail(struct sim_disk *d, enum sim_disk_call call, unsigned nth);
/* How many writes of loops have failed. */
unsigned sim_disk_failed_writes(struct sim_disk *d);
/*
 * From now on a crash is possible; before, everything is durable. `written` is told of each
 * block that has a new content, by its offset.
 */
void sim_disk_watch(struct sim_disk *d, void (*written)(uint64_t off));
bool sim_disk_watched(struct sim_disk *d);
/* After a run that crashed: one of the contents that the disk may have; its length. */
uint64_t sim_disk_crash(struct sim_disk *d, uint64_t *random, char *image,
			uint64_t size);
/* Somebody else makes the file longer, or as long again as it was: no data changes. */
void sim_disk_stretch(struct sim_disk *d, uint64_t len);
/* Somebody else writes a word, whatever writes fail for us. */
void sim_disk_change(struct sim_disk *d, uint64_t off, uint64_t value);
/* Writes that touch these bytes fail with -EIO; none if they are empty. */
void sim_disk_bad(struct sim_disk *d, uint64_t start, uint64_t end);
bool sim_disk_is_bad(struct sim_disk *d, uint64_t off);
/* From now on so many more blocks can be allocated: -ENOSPC. UINT64_MAX: any. */
void sim_disk_space_left(struct sim_disk *d, uint64_t blocks);
/*
 * Hold the engine to store.h: a punch, zero or resize while a read or write of
 * its range is under way is a violation. On by default.
 */
void sim_disk_strict(struct sim_disk *d, bool on);

#endif /* SIM_H */
