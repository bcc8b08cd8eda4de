/* SPDX-License-Identifier: MIT */
/*
 * coverage.c: counts what the engine tells through its two hooks; see coverage.h.
 *
 * The edges that must be taken are those that sync/rank.def names: each rank's
 * call path begins with "OUTER -> INNER". Others are counted and printed, too.
 */
#include "sim/coverage.h"

#include <string.h>

#include "core/engine.h"
#include "sim/machine.h"

#define STATES 8u

static uint64_t transitions[STATES][STATES];
static uint64_t nested[MKW__RANK_COUNT][MKW__RANK_COUNT];

static const struct {
	const char *name, *path;
} ranks[] = {
#define MKW_RANK(name, many, guards, path) { #name, path },
#include "sync/rank.def"
#undef MKW_RANK
};

static const char *const states[STATES] = {
#define STATE(name) [PG_##name] = #name
	STATE(ABSENT), STATE(FILLING), STATE(CLEAN), STATE(DIRTY),
	STATE(WRITEBACK), STATE(WB_DIRTY),
#undef STATE
};

/* The story's line for a transition, which must last. */
static const char *line(unsigned from, unsigned to)
{
	static char lines[STATES][STATES][64];

	if (!lines[from][to][0])
		snprintf(lines[from][to], sizeof(lines[from][to]),
			 "  page %%llu: %s -> %s", states[from], states[to]);
	return lines[from][to];
}

void mkw__sim_page(struct mkw__inode *in, uint64_t idx,
		   enum mkw__page_state from, enum mkw__page_state to)
{
	(void)in;
	transitions[from][to]++;
	sim_trace_note(line(from, to), idx);
}

void mkw__sim_nested(enum mkw__rank outer, enum mkw__rank inner)
{
	nested[outer][inner]++;
}

/* Does the path begin with "OUTER -> INNER"? */
static bool is_named(const char *path, const char *outer, const char *inner)
{
	size_t n = strlen(outer);

	return !strncmp(path, outer, n) && !strncmp(path + n, " -> ", 4) &&
	       !strncmp(path + n + 4, inner, strlen(inner)) &&
	       path[n + 4 + strlen(inner)] == ':';
}

static bool print(FILE *to, const char *a, const char *b, uint64_t n, bool must)
{
	if (to)
		fprintf(to, "  %-10s -> %-10s %12llu%s\n", a, b,
			(unsigned long long)n, n ? "" : "  NEVER TAKEN");
	return n || !must;
}

bool sim_coverage_print(FILE *to)
{
	bool all = true;

	if (to)
		fprintf(to, "page states:\n");
	for (unsigned a = 0; a < STATES && states[a]; a++)
		for (unsigned b = 0; b < STATES && states[b]; b++)
			if (mkw__page_transitions[a] & PG_BIT(b))
				all &= print(to, states[a], states[b],
					     transitions[a][b], true);
	if (to)
		fprintf(to, "locks, one waited for under another:\n");
	for (unsigned a = 0; a < MKW__RANK_COUNT; a++)
		for (unsigned b = 0; b < MKW__RANK_COUNT; b++) {
			bool must = is_named(ranks[b].path, ranks[a].name,
					     ranks[b].name);

			if (must || nested[a][b])
				all &= print(to, ranks[a].name, ranks[b].name,
					     nested[a][b], must);
		}
	return all;
}
