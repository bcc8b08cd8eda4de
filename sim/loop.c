/* SPDX-License-Identifier: MIT */
/*
 * loop.c: event loops.
 *
 * A loop collects ended I/Os (a queue), fault messages (they stay with the mmu
 * until a wait reads them) and kicks. One task waits in it at a time. How many
 * I/Os and messages one wait takes is up to the seed, from one to all; what it
 * took is held back for the steps until their callbacks run, so that a message
 * may be stale by then, as with a real userfaultfd.
 */
#include "sim/machine.h"

#include <string.h>

#include "sim/search.h"

#define WATCHED_MAX 4u
#define READY_MAX 256u	/* a power of two */

struct watch {
	struct mkw__os_mmu *mmu;
	void (*before_read)(void *arg);
	void (*on_fault)(void *arg, const struct mkw__os_fault *msg);
	void *arg;
};

struct mkw__os_loop {
	struct watch watch[WATCHED_MAX];
	unsigned watched;
	unsigned depth, in_flight;
	bool paused, kicked;
	uint32_t kick_step;	/* of the search: who kicked last */
	struct sim_task *sleeper;
	struct {
		struct mkw__os_io *io;
		int res;
	} ready[READY_MAX];
	unsigned ready_head, ready_tail;
};

static unsigned loops_open;

unsigned sim_loops_open(void)
{
	return loops_open;
}

void sim_loop_reset(void)
{
	loops_open = 0;
}

int mkw__os_loop_create(unsigned depth, struct mkw__os_loop **out)
{
	struct mkw__os_loop *l = sim_machine_alloc(sizeof(*l));

	l->depth = depth;
	loops_open++;
	*out = l;
	return 0;
}

void mkw__os_loop_destroy(struct mkw__os_loop *l)
{
	if (l->in_flight)
		sim_violation("a loop is destroyed with %u I/Os in flight",
			      l->in_flight);
	for (unsigned i = 0; i < l->watched; i++)
		sim_mmu_attach(l->watch[i].mmu, NULL);
	loops_open--;
}

void mkw__os_loop_leave(struct mkw__os_loop *l)
{
	if (l->in_flight || l->watched)
		sim_violation("a loop is left with %u I/Os in flight, watching %u mmus",
			      l->in_flight, l->watched);
}

int mkw__os_loop_watch(struct mkw__os_loop *l, struct mkw__os_mmu *mmu,
		       void (*before_read)(void *arg),
		       void (*on_fault)(void *arg,
					const struct mkw__os_fault *msg),
		       void *arg)
{
	if (l->watched == WATCHED_MAX)
		sim_violation("a loop watches more than %u mmus", WATCHED_MAX);
	l->watch[l->watched++] = (struct watch){ mmu, before_read, on_fault,
						    arg };
	sim_mmu_attach(mmu, l);
	return 0;
}

void mkw__os_loop_pause(struct mkw__os_loop *l, bool on)
{
	sim_step(".loop pause: %llu", on, 0, 0);
	l->paused = on;
}

/*
 * In a search: who ends a sleep depends on all others who could have, so that each
 * of them is seen to be the one.
 */
void sim_loop_notify(struct mkw__os_loop *l)
{
	bool wakes = l->sleeper && l->sleeper->wait == SIM_WAITS_LOOP;

	sim_touch(SIM_O_KICK, l, 0, wakes ? SIM_WRITE : SIM_READ);
	if (l->sleeper)
		sim_wake(l->sleeper);
}

/*
 * Does a round of the loop that finds nothing do nothing? The pager's, which is the one
 * that watches, does: no time passes in it. So a kick may as well come with what
 * it tells of, and when it is taken back is nobody's affair (search.c). The flusher
 * does something in any round.
 */
static bool is_lazy(const struct mkw__os_loop *l)
{
	return sim_config()->transactions && l->watched;
}

void mkw__os_loop_kick(struct mkw__os_loop *l)
{
	if (is_lazy(l)) {
		sim_point_release();
		sim_trace(".kick", 0, 0, 0);
	} else {
		sim_step(".kick", 0, 0, 0);
		sim_touch(SIM_O_KICKED, l, 0, SIM_ADD);
	}
	l->kicked = true;
	l->kick_step = sim_search_step();
	sim_loop_notify(l);
}

void mkw__os_loop_begin(struct mkw__os_loop *l)
{
	if (++l->in_flight > l->depth)
		sim_violation("task %s puts I/O number %u in flight on a loop of depth %u",
			      sim_task_self()->name, l->in_flight, l->depth);
}

/* io is in flight and ends now. (No step: whoever ends it has just made one.) */
void mkw__os_loop_post(struct mkw__os_loop *l, struct mkw__os_io *io, int res)
{
	if (l->ready_tail - l->ready_head == READY_MAX)
		sim_violation("more than %u ended I/Os wait on a loop", READY_MAX);
	sim_touch(SIM_O_ENDED, l, 0, SIM_WRITE);
	l->ready[l->ready_tail % READY_MAX].io = io;
	l->ready[l->ready_tail++ % READY_MAX].res = res;
	sim_loop_notify(l);
}

void mkw__os_loop_rw(struct mkw__os_loop *l, struct mkw__os_io *io)
{
	(void)l;
	sim_violation("mkw__os_loop_rw() of descriptor %d: the simulated machine has no descriptors, only sim_disk_store()",
		      io->fd);
}

/* But for kicks. */
static bool has_work(const struct mkw__os_loop *l)
{
	if (l->ready_head != l->ready_tail)
		return true;
	for (unsigned i = 0; !l->paused && i < l->watched; i++)
		if (sim_mmu_pending(l->watch[i].mmu))
			return true;
	return false;
}

static bool something(const struct mkw__os_loop *l)
{
	return l->kicked || has_work(l);
}

static void sleep_in_loop(struct mkw__os_loop *l, uint64_t timeout_ns)
{
	struct sim_task *self = sim_task_self();
	uint64_t now = sim_clock_ns();

	self->deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX :
							 now + timeout_ns;
	l->sleeper = self;
	while (!something(l) && sim_clock_ns() < self->deadline)
		sim_block(SIM_WAITS_LOOP, l);
	l->sleeper = NULL;
	self->deadline = UINT64_MAX;
}

static void run_ended(struct mkw__os_loop *l)
{
	unsigned n = l->ready_tail - l->ready_head;

	sim_touch(SIM_O_ENDED, l, 0, SIM_WRITE);
	if (n > 1)
		n = 1 + (unsigned)sim_env_random(n);
	while (n--) {
		struct mkw__os_io *io = l->ready[l->ready_head % READY_MAX].io;
		int res = l->ready[l->ready_head++ % READY_MAX].res;

		l->in_flight--;
		sim_step(io->write ? ".write of [%llu, %llu) ended" :
				     ".read of [%llu, %llu) ended",
			 io->off, io->off + io->len, 0);
		io->done(io, res);
	}
}

static void run_messages(struct mkw__os_loop *l, const struct watch *w)
{
	struct mkw__os_fault msgs[SIM_TASKS_MAX];
	unsigned n;

	if (l->paused)
		return;
	sim_touch(SIM_O_MESSAGES, w->mmu, 0, SIM_READ);
	if (!sim_mmu_pending(w->mmu))
		return;
	if (w->before_read) {
		w->before_read(w->arg);
		sim_step(".read messages", 0, 0, 0);
	}
	n = sim_mmu_read(w->mmu, msgs, 1 + (unsigned)sim_env_random(SIM_TASKS_MAX));
	for (unsigned i = 0; i < n; i++) {
		sim_step(".fault message", 0, 0, 0);
		w->on_fault(w->arg, &msgs[i]);
	}
}

void mkw__os_loop_wait(struct mkw__os_loop *l, uint64_t timeout_ns)
{
	if (l->sleeper)
		sim_violation("two tasks wait in one loop: %s and %s",
			      l->sleeper->name, sim_task_self()->name);
	/* As with any wait: who must sleep is there already. */
	if (!sim_config()->transactions || something(l) || !timeout_ns)
		sim_step(".loop wait", 0, 0, 0);
	if (!something(l) && timeout_ns) {
		sleep_in_loop(l, timeout_ns);
		sim_point();
	}
	if (!is_lazy(l))
		sim_touch(SIM_O_KICKED, l, 0, SIM_WRITE);
	else if (l->kicked && !has_work(l))
		sim_search_after(l->kick_step);
	/* A kick by a callback may be one with the kick that ended the sleep. */
	if (sim_env_random(2)) {
		run_ended(l);
		l->kicked = false;
	} else {
		l->kicked = false;
		run_ended(l);
	}
	for (unsigned i = 0; i < l->watched; i++)
		run_messages(l, &l->watch[i]);
}
