/* SPDX-License-Identifier: MIT */
/*
 * shrink.c: leaves out segments of a schedule (schedule.c) as long as the same oracle
 * objects: halves, quarters, ..., single ones, again and again. What is left are the
 * switches that matter; between them every task goes on until it waits.
 */
#include "sim/shrink.h"

#include <string.h>

#define RUNS_MAX 20000u
#define STEPS_MAX 20000000u	/* of all runs together: long ones are tried less often */

const char *sim_oracle(const char *message)
{
	static const struct {
		const char *part, *name;
	} oracles[] = {
		{ "history that no order", "word history" },
		{ "no order of whole", "operation atomicity" },
		{ "deadlock", "deadlock" },
		{ "livelock", "liveness" },
		{ "starves", "starvation" },
		{ "stray", "stray state" },
		{ "after the crash", "crash" },
		{ "error was lost", "lost error" },
		{ "lock order", "lock order" },
		{ "rule R0", "rule R0" },
		{ "rule R3", "rule R3" },
		{ "verify:", "engine's own check" },
		{ "no transition", "page states" },
		{ "becomes ABSENT while", "page states" },
		{ "the engine gives up", "engine's own check" },
		{ "absent frame", "absent frame" },
		{ "frame of page", "absent frame" },
		{ "leak", "leak" },
		{ "still there at the end", "leak" },
		{ "freed twice", "leak" },
		{ "store:", "contract of store.h" },
		{ "store's length", "contract of store.h" },
		{ "SIGBUS", "outcome of an access" },
		{ "SIGSEGV", "outcome of an access" },
		{ "returned", "outcome of a call" },
		{ "failed", "outcome of a call" },
		{ "size is", "size" },
	};

	for (unsigned i = 0; i < sizeof(oracles) / sizeof(oracles[0]); i++)
		if (strstr(message, oracles[i].part))
			return oracles[i].name;
	return "contract of os.h";
}

static struct sim_segments attempt;

/* All but [from, from + n). */
static void without(const struct sim_segments *all, unsigned from, unsigned n)
{
	attempt.n = 0;
	for (unsigned i = 0; i < all->n; i++) {
		struct sim_segment *last =
			attempt.n ? &attempt.segment[attempt.n - 1] : NULL;

		if (i >= from && i < from + n)
			continue;
		if (last && last->task == all->segment[i].task)
			last->points += all->segment[i].points;
		else
			attempt.segment[attempt.n++] = all->segment[i];
	}
}

unsigned sim_shrink(const struct play *p, struct sim_segments *segments,
		    struct sim_result *res)
{
	const char *oracle = sim_oracle(res->message);
	struct sim_result now;
	unsigned runs = 1, chunk;
	uint64_t steps = 0;
	bool smaller = true;

	if (play_run(p, sim_replay(segments), false, &now) ||
	    sim_oracle(now.message) != oracle)
		return 0;
	*res = now;
	for (chunk = (segments->n + 1) / 2; chunk && (smaller || chunk > 1);
	     chunk = chunk > 1 ? chunk / 2 : 1) {
		smaller = false;
		for (unsigned from = 0; from < segments->n && runs < RUNS_MAX &&
				       steps < STEPS_MAX;) {
			without(segments, from, chunk);
			runs++;
			if (!play_run(p, sim_replay(&attempt), false, &now) &&
			    sim_oracle(now.message) == oracle) {
				memcpy(segments->segment, attempt.segment,
				       attempt.n * sizeof(attempt.segment[0]));
				segments->n = attempt.n;
				smaller = true;
			} else {
				from += chunk;
			}
			steps += now.steps;
		}
		if (runs >= RUNS_MAX || steps >= STEPS_MAX)
			break;
	}
	play_run(p, sim_replay(segments), false, res);
	return runs;
}
