/* SPDX-License-Identifier: MIT */
/*
 * schedule.c: who runs next, and the record of who ran.
 *
 * By the seed it is one of two. *Random*: at each point the running task goes on
 * with a probability that the seed picks (some bugs need a switch at every step,
 * others a long run), or else any task. *Priorities* (PCT: Burckhardt et al., "A
 * Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010): each
 * task has a random one, the highest runs, and at d steps chosen beforehand the
 * running task's becomes the lowest; a bug that needs d switches at the right places
 * is found with a known probability. Who could have run for a long time gets the
 * highest, since others may be polling for what it would do. That is for safety; a
 * run that is long goes on at random, which is fair, and must end (machine.h).
 *
 * A run's schedule is kept as segments: a task, and how many times in a row it was
 * chosen. Given segments are *replayed*: a task that cannot run ends its segment; after
 * the last one tasks go on in turn, each until it waits. So segments may be left
 * out and the run still makes sense, which is what shrink.c does.
 */
#include "sim/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/machine.h"

#define CHANGES_MAX 6u
#define LONG 4000u	/* points */
#define PRIORITIES (1 << 24)	/* of the beginning, from 1 */

static struct {
	struct sim_scheduler scheduler;
	uint64_t random, stay_mask;
	/* Priorities. */
	unsigned changes;
	uint64_t change[CHANGES_MAX];
	uint64_t points;
	int priority[SIM_TASKS_MAX];	/* 0: none yet */
	int lowest, highest;
	uint64_t ran[SIM_TASKS_MAX];	/* the point at which it was chosen last */
} s;

static struct sim_segments record, given;
static unsigned at, left;		/* of the given ones */
static struct sim_scheduler replay;

/* ---- the record ------------------------------------------------------- */

void sim_record_reset(void)
{
	record.n = 0;
	record.cut = false;
}

void sim_record(unsigned task)
{
	if (record.n && record.segment[record.n - 1].task == task) {
		record.segment[record.n - 1].points++;
		return;
	}
	if (record.n == SIM_SEGMENTS_MAX) {
		record.cut = true;
		return;
	}
	record.segment[record.n++] =
		(struct sim_segment){ .task = (uint8_t)task, .points = 1 };
}

const struct sim_segments *sim_recorded(void)
{
	return &record;
}

/* ---- random ----------------------------------------------------------- */

static unsigned choose_random(struct sim_scheduler *scheduler,
			      const uint8_t *tasks, unsigned n, unsigned current)
{
	uint64_t r = sim_next_random(&s.random);

	(void)scheduler;
	(void)tasks;
	if (current < n && (r & s.stay_mask))
		return current;
	return (unsigned)(((r >> 32) * n) >> 32);
}

/* ---- priorities ------------------------------------------------------- */

/* Whoever could run and has not for long. */
static unsigned neglected(const uint8_t *tasks, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (s.points - s.ran[tasks[i]] > LONG)
			return i;
	return n;
}

static unsigned choose_first(struct sim_scheduler *scheduler,
			     const uint8_t *tasks, unsigned n, unsigned current)
{
	unsigned best = 0, other;

	if (++s.points > SIM_SAFETY)
		return choose_random(scheduler, tasks, n, current);
	for (unsigned i = 0; i < s.changes; i++)
		if (s.change[i] == s.points && current < n)
			s.priority[tasks[current]] = --s.lowest;
	other = s.points % 256 ? n : neglected(tasks, n);
	if (other < n)
		s.priority[tasks[other]] = PRIORITIES + ++s.highest;
	for (unsigned i = 0; i < n; i++) {
		int *p = &s.priority[tasks[i]];

		if (!*p)
			*p = 1 + (int)(sim_next_random(&s.random) % PRIORITIES);
		if (*p > s.priority[tasks[best]])
			best = i;
	}
	s.ran[tasks[best]] = s.points;
	return best;
}

struct sim_scheduler *sim_seeded(uint64_t seed)
{
	memset(&s, 0, sizeof(s));
	s.random = seed;
	s.scheduler.choose = choose_random;
	s.stay_mask = ((uint64_t)1 << sim_next_random(&s.random) % 7) - 1;
	if (sim_next_random(&s.random) % 3 == 0) {
		uint64_t length = (uint64_t)64 << sim_next_random(&s.random) % 6;

		s.scheduler.choose = choose_first;
		s.changes = 1 + (unsigned)(sim_next_random(&s.random) % CHANGES_MAX);
		for (unsigned i = 0; i < s.changes; i++)
			s.change[i] = sim_next_random(&s.random) % length;
	}
	return &s.scheduler;
}

/* ---- replay ----------------------------------------------------------- */

static unsigned index_of(const uint8_t *tasks, unsigned n, unsigned task)
{
	unsigned i = 0;

	while (i < n && tasks[i] != task)
		i++;
	return i;
}

/* Whose turn it is when nothing is prescribed: the next number's. */
static unsigned in_turn(const uint8_t *tasks, unsigned n, unsigned current)
{
	static unsigned last;
	unsigned best = n;

	if (current < n) {
		last = tasks[current];
		return current;
	}
	for (unsigned i = 0; i < n; i++)
		if (best == n || (tasks[i] > last) > (tasks[best] > last) ||
		    ((tasks[i] > last) == (tasks[best] > last) &&
		     tasks[i] < tasks[best]))
			best = i;
	last = tasks[best];
	return best;
}

static unsigned choose_given(struct sim_scheduler *scheduler,
			     const uint8_t *tasks, unsigned n, unsigned current)
{
	(void)scheduler;
	while (at < given.n) {
		unsigned i = index_of(tasks, n, given.segment[at].task);

		if (i < n && left) {
			left--;
			return i;
		}
		at++;
		left = at < given.n ? given.segment[at].points : 0;
	}
	return in_turn(tasks, n, current);
}

struct sim_scheduler *sim_replay(const struct sim_segments *segments)
{
	given.n = segments->n;
	memcpy(given.segment, segments->segment,
	       segments->n * sizeof(segments->segment[0]));
	at = 0;
	left = given.n ? given.segment[0].points : 0;
	replay.choose = choose_given;
	return &replay;
}

/* ---- as text ---------------------------------------------------------- */

void sim_segments_print(FILE *to, const struct sim_segments *segments)
{
	for (unsigned i = 0; i < segments->n; i++)
		fprintf(to, "%s%u.%u", i ? "," : "", segments->segment[i].task,
			segments->segment[i].points);
	if (!segments->n)
		fputc('-', to);
}

bool sim_segments_parse(const char *text, struct sim_segments *segments)
{
	char *end;

	segments->n = 0;
	segments->cut = false;
	if (!strcmp(text, "-"))
		return true;
	while (*text) {
		unsigned long task = strtoul(text, &end, 10), points;

		if (end == text || *end != '.' || task >= SIM_TASKS_MAX ||
		    segments->n == SIM_SEGMENTS_MAX)
			return false;
		text = end + 1;
		points = strtoul(text, &end, 10);
		if (end == text || !points || points > UINT32_MAX ||
		    (*end && *end != ','))
			return false;
		segments->segment[segments->n++] =
			(struct sim_segment){ .task = (uint8_t)task,
					      .points = (uint32_t)points };
		text = *end ? end + 1 : end;
	}
	return segments->n;
}
