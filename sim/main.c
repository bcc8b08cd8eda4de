/* SPDX-License-Identifier: MIT */
/*
 * mkwrite sim: plays scenarios on the simulated machine, seed after seed, until
 * one breaks a promise.
 *
 * Every option has a default; see usage(). Exit status: 0 no violation, 1 a
 * violation (its story and how to see it again are printed), 2 wrong usage.
 * Progress goes to stderr, and only to a terminal.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/testing.h"
#include "sim/stage.h"

static struct {
	const struct scenario *scenario;	/* NULL: all */
	struct stage_options stage;
	const char *mutant;
	uint64_t first, last;
	bool one_seed, trace;
} opt = {
	.stage.policy = STAGE_RETRY, .first = 1, .last = 1000,
};

static const char *const policies[] = { "none", "invalidate", "retry" };

struct totals {
	uint64_t runs, steps;
	double start;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void usage(FILE *to)
{
	fprintf(to,
		"usage: mkwrite sim [--scenario NAME] [--policy none|invalidate|retry]\n"
		"                   [--seeds A..B | --seed S] [--mutant NAME] [--r0-off]\n"
		"                   [--old-kernel] [--trace]\n"
		"       mkwrite sim --list\n"
		"\n"
		"Runs the engine on a simulated machine, under a schedule that the seed picks.\n"
		"\n"
		"  --scenario NAME  one scenario; without it, all of them\n"
		"  --policy P       how faults are excluded; default retry\n"
		"  --seeds A..B     seeds A to B; default 1..1000\n"
		"  --seed S         one seed, and its trace hash\n"
		"  --mutant NAME    with a planted bug (--list has the names)\n"
		"  --r0-off         copy to and from mapped buffers with the file's locks held\n"
		"  --old-kernel     with the userfaultfd of Linux 6.1\n"
		"  --trace          print every step\n"
		"  --list           the scenarios and planted bugs\n"
		"\n"
		"Exit status: 0 no violation, 1 a violation was found, 2 wrong usage.\n");
}

static _Noreturn void wrong(const char *what, const char *found, const char *so)
{
	fprintf(stderr, "mkwrite sim: %s '%s': %s\n", what, found, so);
	exit(2);
}

static void list(void)
{
	printf("scenarios:\n");
	for (unsigned i = 0; i < scenario_count; i++)
		printf("  %-32s %s\n", scenarios[i].name, scenarios[i].about);
	printf("planted bugs (--mutant):\n");
#define MKW_MUTANT(name, breaks) printf("  %-32s %s\n", #name, breaks);
#include "core/mutants.def"
#undef MKW_MUTANT
}

/* ---- arguments --------------------------------------------------------- */

static uint64_t number(const char *option, const char *text, char **end)
{
	uint64_t v;

	errno = 0;
	v = strtoull(text, end, 0);
	if (*end == text || errno || *text == '-')
		wrong(option, text, "a number from 0 to 2^64 - 1 is wanted");
	return v;
}

static void parse_seeds(const char *text)
{
	char *end;

	opt.first = number("--seeds", text, &end);
	if (strncmp(end, "..", 2))
		wrong("--seeds", text, "a range such as 1..1000 is wanted");
	opt.last = number("--seeds", end + 2, &end);
	if (*end || opt.last < opt.first)
		wrong("--seeds", text, "a range such as 1..1000 is wanted");
}

static void parse_seed(const char *text)
{
	char *end;

	opt.first = opt.last = number("--seed", text, &end);
	if (*end)
		wrong("--seed", text, "a number is wanted");
	opt.one_seed = true;
}

static void parse_scenario(const char *text)
{
	for (unsigned i = 0; i < scenario_count; i++)
		if (!strcmp(text, scenarios[i].name))
			opt.scenario = &scenarios[i];
	if (!opt.scenario)
		wrong("--scenario", text, "there is no such scenario; --list names them");
}

static void parse_policy(const char *text)
{
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(text, policies[i])) {
			opt.stage.policy = i;
			return;
		}
	wrong("--policy", text, "none, invalidate or retry is wanted");
}

static void parse_mutant(const char *text)
{
	int m = mkw__mutant_find(text);

	if (m < 0)
		wrong("--mutant", text, "there is no such planted bug; --list names them");
	opt.mutant = text;
	opt.stage.mutants = (uint64_t)1 << m;
}

static void parse(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*parse)(const char *text);
	} options[] = {
		{ "--seeds", parse_seeds }, { "--seed", parse_seed },
		{ "--scenario", parse_scenario }, { "--policy", parse_policy },
		{ "--mutant", parse_mutant },
	};
	unsigned n = sizeof(options) / sizeof(options[0]), o;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			exit(0);
		}
		if (!strcmp(argv[i], "--list")) {
			list();
			exit(0);
		}
		if (!strcmp(argv[i], "--trace")) {
			opt.trace = true;
			continue;
		}
		if (!strcmp(argv[i], "--r0-off")) {
			opt.stage.r0_off = true;
			continue;
		}
		if (!strcmp(argv[i], "--old-kernel")) {
			opt.stage.old_kernel = true;
			continue;
		}
		for (o = 0; o < n && strcmp(argv[i], options[o].name); o++)
			;
		if (o == n) {
			fprintf(stderr, "mkwrite sim: unknown argument '%s'\n", argv[i]);
			usage(stderr);
			exit(2);
		}
		if (++i == argc)
			wrong("option", argv[i - 1], "it wants a value; --help explains");
		options[o].parse(argv[i]);
	}
}

/* ---- runs -------------------------------------------------------------- */

static void tell(const struct scenario *s, uint64_t seed,
		 const struct sim_result *res)
{
	const char *policy = policies[opt.stage.policy];

	printf("\n%s, policy %s, seed %llu:\n", s->name, policy,
	       (unsigned long long)seed);
	if (!opt.trace)
		sim_print_story(false);
	printf("\n");
	sim_print_state();
	printf("\nviolation after %llu steps: %s\n",
	       (unsigned long long)res->steps, res->message);
	printf("trace hash %016llx\n", (unsigned long long)res->hash);
	printf("again: mkwrite sim --scenario %s --policy %s%s%s%s%s --seed %llu\n",
	       s->name, policy, opt.mutant ? " --mutant " : "",
	       opt.mutant ? opt.mutant : "", opt.stage.r0_off ? " --r0-off" : "",
	       opt.stage.old_kernel ? " --old-kernel" : "",
	       (unsigned long long)seed);
}

static void progress(const struct scenario *s, uint64_t seed,
		     const struct totals *t)
{
	static double last;

	if (!isatty(STDERR_FILENO) || now() - last < 0.2)
		return;
	last = now();
	fprintf(stderr, "\r%-32s seed %llu, %.0f schedules/s  ", s->name,
		(unsigned long long)seed,
		(double)t->runs / (last - t->start + 1e-9));
}

static void progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%78s\r", "");
}

/* All seeds of one scenario. False: a violation, which has been told. */
static bool run_scenario(const struct scenario *s)
{
	struct totals t = { .start = now() };
	struct sim_result res;
	bool good = true;
	uint64_t seed = opt.first;
	double took;

	for (;; seed++) {
		good = scenario_run(s, &opt.stage, seed, opt.trace, &res);
		t.runs++;
		t.steps += res.steps;
		if (!good || seed == opt.last)
			break;
		if (t.runs % 64 == 0)
			progress(s, seed, &t);
	}
	took = now() - t.start;
	progress_end();
	if (!good)
		tell(s, seed, &res);
	printf("%-32s %-10s %8llu schedules %10llu steps %7.2f s %8.0f schedules/s %s\n",
	       s->name, policies[opt.stage.policy], (unsigned long long)t.runs,
	       (unsigned long long)t.steps, took, (double)t.runs / took,
	       good ? "clean" : "VIOLATION");
	if (opt.one_seed && good)
		printf("trace hash %016llx\n", (unsigned long long)res.hash);
	fflush(stdout);
	return good;
}

int main(int argc, char **argv)
{
	bool good = true;

	parse(argc, argv);
	for (unsigned i = 0; i < scenario_count && good; i++)
		if (!opt.scenario || opt.scenario == &scenarios[i])
			good = run_scenario(&scenarios[i]);
	return good ? 0 : 1;
}
