/* SPDX-License-Identifier: MIT */
/*
 * machine.h: what the parts of the simulated machine tell each other.
 *
 * There is one machine at a time and one thread, so its state is a global and
 * nothing here needs a lock: between two steps a task has the machine alone.
 */
#ifndef SIM_MACHINE_H
#define SIM_MACHINE_H

#include "sim/access.h"
#include "sim/sim.h"

#define SIM_TASKS_MAX 32u
/*
 * A run's safety phase has so many points; in its liveness phase nothing fails any
 * more, schedules are fair, and everything must end within the step limit.
 */
#define SIM_SAFETY 20000u
#define SIM_HELD_MAX 8u	/* mutexes of one task */

enum sim_wait {
	SIM_RUNNABLE,
	SIM_WAITS_MUTEX,
	SIM_WAITS_EVENT,
	SIM_WAITS_FAULT,	/* for its fault to be woken */
	SIM_WAITS_LOOP,		/* in mkw__os_loop_wait() */
	SIM_WAITS_JOIN,
	SIM_WAITS_LATE,		/* a device, until nothing else goes on */
	SIM_WAITS_WORK,		/* the disk: nothing in flight */
	SIM_WAITS_SETTLED,
	SIM_ENDED,
};

enum sim_kind {
	SIM_APP,	/* started by the scenario */
	SIM_ENGINE,	/* started by mkw__os_thread_start() */
	SIM_QUEUE,	/* of these, a queue's: makes calls as the application does */
	SIM_DEVICE,	/* the disk */
};

struct sim_task {
	/* First: mkw__os_self() and threads are known by it. */
	struct mkw__os_task record;
	unsigned id;
	enum sim_kind kind;
	const char *name;
	void (*fn)(void *arg);
	void *arg;
	enum sim_wait wait;
	const void *on;		/* what it waits for */
	uint64_t deadline;	/* SIM_WAITS_LOOP; UINT64_MAX: none */
	uintptr_t fault_addr;	/* SIM_WAITS_FAULT */
	bool fault_write;
	bool in_handler;	/* in the in-thread fault handler */
	unsigned masked;	/* nested mkw__os_signals_block() */
	bool broken_off;	/* a barrier has ended its glance, if it makes one */
	const char *label;	/* of the last mkw__os_step() */
	unsigned run_index;	/* in the list of runnable tasks */
	bool committed;		/* see sim_point() */
	struct {
		const void *mutex;
		bool seen;	/* to be taken: there was a point since */
	} held[SIM_HELD_MAX];
	unsigned held_count;
	const void *quiet;	/* a mutex whose data are told, not measured */
	uint64_t random;	/* of sim_random(): its own, so that no order matters */
	void *sp;
	char *stack;
	void *fiber;		/* TSan's */
	void *fake_stack;	/* ASan's */
};

/* ---- task.c ----------------------------------------------------------- */

struct sim_task *sim_task_self(void);
/* The name of the task whose stack it is on, or NULL. */
const char *sim_stack_owner(const void *p);
struct sim_task *sim_task_get(unsigned id);
unsigned sim_task_count(void);
struct sim_task *sim_task_start(const char *name, enum sim_kind kind,
				void (*fn)(void *arg), void *arg);
/*
 * A scheduling point that is not a step of the story: before something that other
 * tasks may see. Before taking a lock: _acquire(). After giving one up, or letting
 * somebody else go on: _release(). Before an atomic access: _atomic().
 *
 * Where config->transactions, only some are: between two of them a task makes first
 * what commutes with later steps of others (locks taken), then one thing that
 * commutes with nothing, then what commutes with earlier ones (locks given back),
 * so that the whole is as good as done at once (Lipton). The data under a
 * lock, and what has an owner, commute anyway.
 */
void sim_point(void);
void sim_point_acquire(void);
void sim_point_release(void);
void sim_point_atomic(void);
/* Is the engine's memory told of instead of measured just now? */
bool sim_memory_is_quiet(void);
/* Leaves the processor until sim_wake(). */
void sim_block(enum sim_wait wait, const void *on);
void sim_wake(struct sim_task *t);
const struct sim_config *sim_config(void);
uint64_t sim_clock_ns(void);
uint64_t sim_next_random(uint64_t *state);
/*
 * Random numbers of the machine's own oddities: true once in n. With transactions
 * they are constants, since the order in which they are drawn is not to matter.
 */
uint64_t sim_env_random(uint64_t below);
bool sim_odd(unsigned n);

/* ---- trace.c ---------------------------------------------------------- */

/* Records a step of the current task; a format that begins with '.' is minor. */
void sim_trace(const char *fmt, uint64_t a, uint64_t b, uint64_t c);
void sim_trace_label(const char *what);
/* The same for a format that was made at run time, and lasts. */
void sim_trace_note(const char *fmt, uint64_t a);
void sim_trace_reset(void);
uint64_t sim_trace_hash(void);
/*
 * A pointer to the engine's memory or to a static object as a number that is the
 * same in every run; a stack's address is not.
 */
uint64_t sim_name_of(const void *p);

/* ---- arena.c ---------------------------------------------------------- */

void sim_arena_reset(void);
/* How many blocks and regions are not given back. */
unsigned sim_arena_live(char *list, size_t size);
uint64_t sim_arena_offset(const void *p);
/*
 * The machine's own memory, gone with the run; zero. As all memory of a run with
 * transactions it has an address that depends on nothing but who asks for it and
 * what he asked for before.
 */
void *sim_machine_alloc(size_t len);

/* ---- mmu.c, loop.c, disk.c -------------------------------------------- */

void sim_mmu_reset(void);
void sim_mmu_print(FILE *to);
/* What the engine left behind, or NULL. */
const char *sim_mmu_left(void);
/* Moves at most max fault messages out of mmu's queue. */
unsigned sim_mmu_read(struct mkw__os_mmu *mmu, struct mkw__os_fault *msgs,
		      unsigned max);
bool sim_mmu_pending(struct mkw__os_mmu *mmu);
void sim_mmu_attach(struct mkw__os_mmu *mmu, struct mkw__os_loop *l);
/* A message has come for a mmu that l watches. */
void sim_loop_notify(struct mkw__os_loop *l);
unsigned sim_loops_open(void);
void sim_loop_reset(void);
/*
 * Two devices for each task that there is, and for so many more, so that whom a
 * device serves does not depend on the order of requests.
 */
void sim_disk_prepare(unsigned more_tasks);
/* ---- cache.c: what a crash may leave of a disk -------------------------- */

struct sim_cache;

struct sim_cache *sim_cache_create(uint64_t len);
void sim_cache_block(struct sim_cache *c, uint64_t block, const char *data);
void sim_cache_length(struct sim_cache *c, uint64_t len);
/* A flush makes durable what was there at its beginning. */
uint64_t sim_cache_flush_begin(const struct sim_cache *c);
void sim_cache_flush_end(struct sim_cache *c, uint64_t serial);
/* One of the contents that a crash leaves, size bytes; its length. */
uint64_t sim_cache_crash(const struct sim_cache *c, uint64_t *random, char *image,
			 uint64_t size);

/* Nothing fails, and nothing is late, from now on. */
void sim_disk_heal(void);
void sim_disk_reset(void);
void sim_disk_print(FILE *to);

#endif /* SIM_MACHINE_H */
