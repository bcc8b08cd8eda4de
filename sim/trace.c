/* SPDX-License-Identifier: MIT */
/*
 * trace.c: what happened, step by step.
 *
 * A step is kept as a format and its arguments, so that keeping one costs a few
 * stores; text is made only when it is printed. The last TRACE_KEPT steps are
 * there. The hash is of all of them: two runs with the same hash took the same
 * steps. Pointers enter it as offsets, since the host moves things about.
 */
#include "sim/machine.h"

#include <stdio.h>

#define TRACE_KEPT 8192u	/* a power of two */

struct entry {
	const char *fmt;
	uint64_t args[3];
	uint32_t task;
	bool label;	/* of mkw__os_step(): not a format */
};

static struct entry ring[TRACE_KEPT];
static uint64_t count, hash;
static uint64_t marks[SIM_MARKS];	/* counts; UINT64_MAX: not there yet */
static const char anchor[] = "mkwrite-sim";

uint64_t sim_name_of(const void *p)
{
	uint64_t off = sim_arena_offset(p);

	return off != UINT64_MAX ? off : (uintptr_t)p - (uintptr_t)anchor;
}

void sim_trace_reset(void)
{
	count = 0;
	for (unsigned i = 0; i < SIM_MARKS; i++)
		marks[i] = UINT64_MAX;
	hash = 0x9e3779b97f4a7c15u;
}

static void print_line(FILE *to, uint64_t n)
{
	const struct entry *e = &ring[n & (TRACE_KEPT - 1)];
	struct sim_task *t = sim_task_get(e->task);

	fprintf(to, "%6llu  %-11s ", (unsigned long long)n + 1, t->name);
	if (e->label)
		fprintf(to, "- %s", e->fmt);
	else
		fprintf(to, e->fmt + (*e->fmt == '.'),
			(unsigned long long)e->args[0],
			(unsigned long long)e->args[1],
			(unsigned long long)e->args[2]);
	fputc('\n', to);
}

static void mix(uint64_t v)
{
	hash = (hash ^ v) * 0xff51afd7ed558ccdu;
	hash ^= hash >> 29;
}

static void record(const char *fmt, uint64_t a, uint64_t b, uint64_t c,
		   bool label)
{
	struct entry *e = &ring[count & (TRACE_KEPT - 1)];

	*e = (struct entry){ fmt, { a, b, c }, sim_task_self()->id, label };
	mix(((uintptr_t)fmt - (uintptr_t)anchor) ^ ((uint64_t)e->task << 48));
	mix(a + (b << 21) + (c << 42));
	count++;
	if (sim_config()->trace)
		print_line(stdout, count - 1);
}

void sim_trace(const char *fmt, uint64_t a, uint64_t b, uint64_t c)
{
	record(fmt, a, b, c, false);
}

void sim_trace_label(const char *what)
{
	record(what, 0, 0, 0, true);
}

void sim_trace_note(const char *fmt, uint64_t a)
{
	struct entry *e = &ring[count & (TRACE_KEPT - 1)];

	/* The format is made at run time: where it lies is not part of the run. */
	*e = (struct entry){ fmt, { a, 0, 0 }, sim_task_self()->id, false };
	mix(a);
	count++;
	if (sim_config()->trace)
		print_line(stdout, count - 1);
}

void sim_trace_mark(enum sim_mark mark)
{
	marks[mark] = count;
}

uint64_t sim_trace_hash(void)
{
	return hash;
}

uint64_t sim_now(void)
{
	return count;
}

static bool minor(uint64_t n)
{
	return ring[n & (TRACE_KEPT - 1)].fmt[0] == '.';
}

void sim_print_story(FILE *to)
{
	uint64_t first = count > TRACE_KEPT ? count - TRACE_KEPT : 0;
	uint64_t from = marks[SIM_BEGINS], end = marks[SIM_ENDS];

	if (from == UINT64_MAX || from < first)
		from = first;
	if (end > count)
		end = count;
	for (uint64_t n = from; n < end; n++)
		if (!minor(n))
			print_line(to, n);
	if (end == count)
		return;
	/* What is read afterwards is all the same but for the last of it. */
	fprintf(to, "   ...  then everything is read, in every way\n");
	first = count;
	for (unsigned left = 4; left && first > end; first--)
		left -= !minor(first - 1);
	for (uint64_t n = first; n < count; n++)
		if (!minor(n))
			print_line(to, n);
}
