/* SPDX-License-Identifier: MIT */
/*
 * search.c: depth-first search with dynamic partial-order reduction.
 *
 * Two schedules in which all pairs of dependent steps have the same order lead to the
 * same states and the same verdict, so one of them is enough. What is dependent
 * is measured while it runs (access.h). The search is that of Abdulla, Aronis, Jonsson
 * and Sagonas ("Optimal Dynamic Partial Order Reduction", POPL 2014, Algorithm 1):
 *
 *   - Each run goes on from its last branch under a fixed rule until it ends.
 *   - Then its races are looked for: a step i of one task and an earlier step j of
 *     another, dependent, with no chain of dependences in between. The other order is
 *     reached by running, at the node before j, first what does not depend on j: v,
 *     which ends with i. The node gets one of the tasks that can begin v to be
 *     tried, unless it has one (a source set).
 *   - A task that was tried at a node is left alone below it until a step that
 *     depends on its own is made (a sleep set); a node where all who can run sleep
 *     has been seen, in another order, and the run is broken off.
 *
 * Why this is sound here:
 *   - The same choices give the same run: one seed, no clock, no addresses that depend
 *     on the order (each task has its own memory to allocate from).
 *   - A step depends on the order of others only through what it touches. Blocking is
 *     no touch: who waits is not runnable, and the step after the wait comes after
 *     the one that ended it (woken(), sim_search_after()), in every order.
 *   - Where any of several could end a wait (a kick, a message, an ended I/O; two
 *     wakes of one fault), the one who does depends on the others: reversed,
 *     another one does, and the waiter goes on before the first (sim_loop_notify()).
 *   - Time passes only when nobody can run; whoever that wakes comes after all.
 *   - A round of the pager's loop that finds nothing changes nothing. So a kick goes
 *     with the step before, which tells of something under a lock: as its own step
 *     it could only come later, and all that this makes is one more such round. For the
 *     same reason nobody sees when the loop forgets a kick: what was told is found
 *     before or after it was told, which the touches of the list tell apart.
 *     (loop.c: is_lazy(). Kicks of the flusher are steps, and dependent.)
 *   - Steps are transactions (machine.h): between the points that are left out nobody
 *     else can see a difference. Random runs have all points, and a test compares
 *     the outcomes of this search with those of an unpruned one over all points.
 *   - The order in which operations of the scenario end and others begin decides
 *     what may be read, so it is a touch, too (SIM_O_CLOCK): ends commute with
 *     ends, beginnings with beginnings.
 *
 * A run repeats the one before it up to its last branch, and what is known of those
 * steps - touches, edges, clocks - is kept: they are neither recorded nor analysed again.
 *
 * The other two ways leave the reduction out. SIM_BOUNDED prunes by the number of
 * preemptions alone; who has to wait is switched from for nothing.
 */
#include "sim/search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/machine.h"

#define TASKS 24u		/* in a search */
#define STEPS_MAX 8192u
#define TOUCHES_MAX (1u << 20)
#define OBJECTS (1u << 15)	/* a power of two */
#define EDGES_MAX 4u

struct saved {
	unsigned n;
	struct sim_touched touched[];
};

struct node {
	uint32_t enabled, done, todo, sleep;	/* sets of tasks */
	unsigned chosen, preemptions;
	struct saved *saved[TASKS];	/* own, of those done; else a parent's */
};

struct step {
	uint8_t task;
	uint8_t edges;
	bool after_all;
	uint16_t edge[EDGES_MAX];
	unsigned first, n;		/* touches */
	/* clock[t]: steps up to this one of task t precede it, or are it; 0: none */
	uint16_t clock[TASKS];
};

/* The last steps that touched it, from 1. A reader or adder: since the last write. */
struct object {
	uint64_t object;		/* 0: a free place */
	uint32_t readers, adders;	/* sets of tasks */
	uint16_t write, read[TASKS], add[TASKS];
};

/* What look_up() has changed of an object, to be taken back. */
struct change {
	uint32_t readers, adders;	/* as they were */
	uint16_t at, number, step;	/* what number was, and who changed it */
	uint8_t mode, task;		/* which number; mode 0: the object is new */
};

static struct {
	struct sim_scheduler scheduler;
	struct sim_search_options opt;
	struct sim_search_totals totals;
	bool active;			/* between start and stop of a run */
	unsigned prefix;		/* nodes that are decided */
	unsigned nodes, steps, touches;
	struct node node[STEPS_MAX];
	struct step step[STEPS_MAX];
	struct sim_touched touched[TOUCHES_MAX];
	struct step pending[TASKS];	/* edges of each task's next step */
	struct object object[OBJECTS];
	struct change *change;		/* by steps, the last of them last */
	size_t changes, changes_max;
} s;

/* ---- the run ---------------------------------------------------------- */

uint32_t sim_search_step(void)
{
	return s.active && s.steps ? s.steps - 1 : UINT32_MAX - 1;
}

/* Is this step, from 0, the same as in the run before? */
static bool is_known(unsigned step)
{
	return step + 1 < s.prefix;
}

static void edge(unsigned task, uint32_t step, bool after_all)
{
	struct step *p = &s.pending[task];

	if (after_all || p->edges == EDGES_MAX)
		p->after_all = true;
	else
		p->edge[p->edges++] = (uint16_t)step;
}

static void woken(struct sim_scheduler *scheduler, unsigned task, bool idle)
{
	(void)scheduler;
	if (s.active && s.steps)
		edge(task, s.steps - 1, idle);
}

void sim_search_after(uint32_t number)
{
	struct step *now;

	/* None, or this one, or one before the search began. */
	if (!s.active || !s.steps || number >= s.steps - 1)
		return;
	if (is_known(s.steps - 1))
		return;
	now = &s.step[s.steps - 1];
	if (now->edges == EDGES_MAX)
		now->after_all = true;
	else
		now->edge[now->edges++] = (uint16_t)number;
}

/* The step that ends here: keeps what it touched. */
static void end_step(void)
{
	const struct sim_touched *log;
	unsigned n;

	if (s.steps && is_known(s.steps - 1)) {
		s.touches += s.step[s.steps - 1].n;
		return;
	}
	log = sim_log_end(&n);
	if (!s.steps)
		return;
	if (s.touches + n > TOUCHES_MAX)
		sim_violation("a run too long for a search: %u touches", s.touches);
	s.step[s.steps - 1].first = s.touches;
	s.step[s.steps - 1].n = n;
	memcpy(s.touched + s.touches, log, n * sizeof(*log));
	s.touches += n;
}

static void begin_step(unsigned task)
{
	struct step *p = &s.pending[task];

	p->task = (uint8_t)task;
	if (!is_known(s.steps)) {
		s.step[s.steps] = *p;
		sim_recording = s.opt.how == SIM_REDUCED && !s.opt.blind;
		sim_log_step();
	}
	s.steps++;
	*p = (struct step){ 0 };
}

/* Who sleeps below a node whose step has just ended. */
static void inherit_sleep(struct node *to, const struct node *from)
{
	uint32_t set = (from->sleep | from->done) & ~(1u << from->chosen);

	for (; set; set &= set - 1) {
		unsigned q = (unsigned)__builtin_ctz(set);
		struct saved *sv = from->saved[q];

		if (!sim_log_conflicts(sv->touched, sv->n)) {
			to->sleep |= 1u << q;
			to->saved[q] = sv;
		}
	}
}

static unsigned lowest(uint32_t set)
{
	return (unsigned)__builtin_ctz(set);
}

/* A node that is met for the first time. False: nothing new is below it. */
static bool new_node(uint32_t enabled, unsigned current)
{
	struct node *nd = &s.node[s.nodes], *up = s.nodes ? nd - 1 : NULL;
	uint32_t can;

	*nd = (struct node){ .enabled = enabled };
	if (up && s.opt.how == SIM_REDUCED)
		inherit_sleep(nd, up);
	can = enabled & ~nd->sleep;
	if (!can)
		return false;
	nd->chosen = current < TASKS && (can >> current & 1) ? current :
							       lowest(can);
	nd->todo = 1u << nd->chosen;
	if (s.opt.how == SIM_UNPRUNED)
		nd->todo = enabled;
	if (s.opt.how == SIM_BOUNDED) {
		if (up)
			nd->preemptions = up->preemptions;
		if (current >= TASKS || nd->preemptions < s.opt.preemptions)
			nd->todo = enabled;
	}
	s.nodes++;
	return true;
}

static unsigned choose(struct sim_scheduler *scheduler, const uint8_t *tasks,
		       unsigned n, unsigned current)
{
	unsigned self = current < n ? tasks[current] : UINT_MAX;
	uint32_t enabled = 0;
	struct node *nd;

	(void)scheduler;
	if (!s.active)
		return current < n ? current : 0;
	for (unsigned i = 0; i < n; i++)
		enabled |= 1u << tasks[i];
	if (s.steps == STEPS_MAX || sim_task_count() > TASKS)
		sim_violation("too much for a search: %u steps, %u tasks", s.steps,
			      sim_task_count());
	end_step();
	if (s.steps >= s.nodes && !new_node(enabled, self)) {
		s.totals.redundant++;
		return SIM_ABANDON;
	}
	nd = &s.node[s.steps];
	if (nd->enabled != enabled)
		sim_violation("the search is at fault: a run does not repeat itself at step %u",
			      s.steps);
	/* Counted where it happens, for what comes below. */
	if (s.opt.how == SIM_BOUNDED) {
		nd->preemptions = s.steps ? nd[-1].preemptions : 0;
		nd->preemptions += self != UINT_MAX && nd->chosen != self;
	}
	begin_step(nd->chosen);
	for (unsigned i = 0; i < n; i++)
		if (tasks[i] == nd->chosen)
			return i;
	abort();
}

void sim_search_start(void)
{
	if (sim_config()->scheduler != &s.scheduler)
		return;
	s.active = true;
	sim_log_step();
}

void sim_search_stop(void)
{
	if (!s.active)
		return;
	end_step();
	s.active = false;
	sim_recording = false;
}

/* ---- races ------------------------------------------------------------ */

static unsigned object_of(uint64_t name)
{
	unsigned i = (unsigned)((name * 0x9e3779b97f4a7c15u) >> 49);

	while (s.object[i].object && s.object[i].object != name)
		i = (i + 1) % OBJECTS;
	return i;
}

/* The step is about to change one of the object's numbers. */
static void note(unsigned at, unsigned mode, unsigned task, uint16_t number,
		 uint16_t step)
{
	const struct object *o = &s.object[at];

	if (s.changes == s.changes_max) {
		s.changes_max = s.changes_max ? 2 * s.changes_max : 4096;
		s.change = realloc(s.change, s.changes_max * sizeof(*s.change));
		if (!s.change) {
			fprintf(stderr, "mkwrite-sim: no memory for the search\n");
			exit(2);
		}
	}
	s.change[s.changes++] = (struct change){
		.readers = o->readers, .adders = o->adders, .at = (uint16_t)at,
		.number = number, .step = step, .mode = (uint8_t)mode,
		.task = (uint8_t)task,
	};
}

/* Forgets the touches of all steps from this one, from 0, on. */
static void forget_touches(unsigned step)
{
	for (; s.changes && s.change[s.changes - 1].step > step; s.changes--) {
		const struct change *c = &s.change[s.changes - 1];
		struct object *o = &s.object[c->at];

		if (!c->mode)
			o->object = 0;
		else if (c->mode & SIM_WRITE)
			o->write = c->number;
		else if (c->mode & SIM_READ)
			o->read[c->task] = c->number;
		else
			o->add[c->task] = c->number;
		o->readers = c->readers;
		o->adders = c->adders;
	}
}

/* Earlier steps that step i depends on directly, once each: a set to be sorted. */
static struct {
	uint16_t list[STEPS_MAX];
	unsigned n;
	uint32_t mark[STEPS_MAX + 1], round;
} earlier;

static void earlier_add(uint16_t number)
{
	if (!number || earlier.mark[number] == earlier.round)
		return;
	earlier.mark[number] = earlier.round;
	earlier.list[earlier.n++] = number;
}

static void look_up(const struct sim_touched *t, uint16_t number, unsigned task)
{
	unsigned at = object_of(t->object);
	struct object *o = &s.object[at];

	if (!o->object) {
		*o = (struct object){ 0 };
		note(at, 0, 0, 0, number);
		o->object = t->object;
	}
	earlier_add(o->write);
	if (sim_modes_conflict(t->mode, SIM_READ))
		for (uint32_t q = o->readers; q; q &= q - 1)
			earlier_add(o->read[lowest(q)]);
	if (sim_modes_conflict(t->mode, SIM_ADD))
		for (uint32_t q = o->adders; q; q &= q - 1)
			earlier_add(o->add[lowest(q)]);
	if (t->mode & SIM_WRITE) {
		note(at, SIM_WRITE, 0, o->write, number);
		o->readers = o->adders = 0;
		o->write = number;
		return;
	}
	if (t->mode & SIM_READ) {
		note(at, SIM_READ, task, o->read[task], number);
		o->readers |= 1u << task;
		o->read[task] = number;
	}
	if (t->mode & SIM_ADD) {
		note(at, SIM_ADD, task, o->add[task], number);
		o->adders |= 1u << task;
		o->add[task] = number;
	}
}

static void join(struct step *st, const struct step *other)
{
	for (unsigned t = 0; t < TASKS; t++)
		if (st->clock[t] < other->clock[t])
			st->clock[t] = other->clock[t];
}

static bool before(unsigned j, unsigned k)
{
	return s.step[k].clock[s.step[j].task] > j;
}

/* Steps j and i race: at the node before j somebody else must be tried. */
static void race(unsigned j, unsigned i)
{
	struct node *nd = &s.node[j];
	uint32_t seen = 0, initials = 0;
	unsigned first[TASKS];

	for (unsigned k = j + 1; k <= i; k++) {
		unsigned t = s.step[k].task;
		bool initial = true;

		if ((seen >> t & 1) || (k < i && before(j, k)))
			continue;
		for (uint32_t u = seen; u && initial; u &= u - 1)
			initial = !before(first[lowest(u)], k);
		seen |= 1u << t;
		first[t] = k;
		if (initial)
			initials |= 1u << t;
	}
	initials &= nd->enabled;
	if (initials & (nd->todo | nd->sleep))
		return;
	if (!initials)
		nd->todo |= nd->enabled;
	else if (initials >> s.step[i].task & 1)
		nd->todo |= 1u << s.step[i].task;
	else
		nd->todo |= initials & -initials;
}

static int descending(const void *a, const void *b)
{
	return *(const uint16_t *)b - *(const uint16_t *)a;
}

/* Clocks and races of the steps that this run was the first to make. */
static void analyse(void)
{
	unsigned from = s.prefix ? s.prefix - 1 : 0;
	uint16_t last[TASKS] = { 0 };

	forget_touches(from);
	for (unsigned i = 0; i < from; i++)
		last[s.step[i].task] = (uint16_t)(i + 1);
	for (unsigned i = from; i < s.steps; i++) {
		struct step *st = &s.step[i];
		unsigned task = st->task;

		memset(st->clock, 0, sizeof(st->clock));
		if (last[task])
			join(st, &s.step[last[task] - 1]);
		for (unsigned e = 0; e < st->edges; e++)
			join(st, &s.step[st->edge[e]]);
		for (unsigned t = 0; st->after_all && t < TASKS; t++)
			st->clock[t] = last[t];
		earlier.n = 0;
		earlier.round++;
		for (unsigned k = st->first; k < st->first + st->n; k++)
			look_up(&s.touched[k], (uint16_t)(i + 1), task);
		qsort(earlier.list, earlier.n, sizeof(earlier.list[0]), descending);
		for (unsigned k = 0; k < earlier.n; k++) {
			unsigned j = earlier.list[k] - 1u;

			if (before(j, i))
				continue;
			race(j, i);
			join(st, &s.step[j]);
		}
		st->clock[task] = last[task] = (uint16_t)(i + 1);
	}
}

/* ---- the tree --------------------------------------------------------- */

static struct saved *save(const struct step *st)
{
	struct saved *sv = malloc(sizeof(*sv) + st->n * sizeof(sv->touched[0]));

	if (!sv) {
		fprintf(stderr, "mkwrite-sim: no memory for the search\n");
		exit(2);
	}
	sv->n = st->n;
	memcpy(sv->touched, s.touched + st->first, st->n * sizeof(sv->touched[0]));
	return sv;
}

static void forget(struct node *nd)
{
	for (uint32_t set = nd->done; set; set &= set - 1)
		free(nd->saved[lowest(set)]);
}

/* The next branch, from the end of the tree. */
static bool branch(void)
{
	while (s.nodes) {
		struct node *nd = &s.node[s.nodes - 1];
		uint32_t left = nd->todo & ~nd->done & ~(1u << nd->chosen) & ~nd->sleep;

		if (left) {
			nd->done |= 1u << nd->chosen;
			nd->saved[nd->chosen] = s.opt.how == SIM_REDUCED ?
					save(&s.step[s.nodes - 1]) : NULL;
			nd->chosen = lowest(left);
			s.prefix = s.nodes;
			return true;
		}
		forget(nd);
		s.nodes--;
	}
	return false;
}

static void run_begin(void)
{
	s.active = false;
	sim_recording = false;
	s.steps = s.touches = 0;
	memset(s.pending, 0, sizeof(s.pending));
	sim_log_reset();
}

struct sim_scheduler *sim_search_begin(const struct sim_search_options *opt)
{
	s.opt = *opt;
	s.totals = (struct sim_search_totals){ 0 };
	s.scheduler = (struct sim_scheduler){ .choose = choose, .woken = woken };
	s.prefix = s.nodes = 0;
	forget_touches(0);
	run_begin();
	return &s.scheduler;
}

bool sim_search_next(const struct sim_result *res)
{
	s.totals.runs++;
	s.totals.steps += s.steps;
	if (s.totals.depth < s.steps)
		s.totals.depth = s.steps;
	/* Broken off by a violation, it may not have stopped in order. */
	if (s.active && !res->abandoned)
		end_step();
	if (s.opt.how == SIM_REDUCED)
		analyse();
	if (!branch()) {
		s.totals.complete = true;
		return false;
	}
	if (s.opt.runs_max && s.totals.runs >= s.opt.runs_max)
		return false;
	run_begin();
	return true;
}

void sim_search_end(struct sim_search_totals *totals)
{
	while (s.nodes)
		forget(&s.node[--s.nodes]);
	forget_touches(0);
	free(s.change);
	s.change = NULL;
	s.changes_max = 0;
	run_begin();
	*totals = s.totals;
}
