/* SPDX-License-Identifier: MIT */
/*
 * main.c: mkwrite sim: plays scenarios on the simulated machine, seed after seed or
 * under all schedules, until one breaks a promise.
 *
 * Every option has a default; see usage(). Exit status: 0 no violation, 1 a
 * violation (its story and how to see it again are printed), 2 wrong usage.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/testing.h"
#include "sim/cli.h"

struct cli cli = {
	.stage.policy = STAGE_RETRY, .first = 1, .last = 1000, .play = -1,
	.limit = 1000000, .preemptions = 3,
};

static void usage(FILE *to)
{
	fprintf(to,
		"usage: mkwrite sim [--scenario NAME] [--policy none|invalidate|retry]\n"
		"                   [--seeds A..B | --seed S | --exhaustive [--limit N]]\n"
		"                   [--mutant NAME] [--r0-off] [--old-kernel]\n"
		"                   [--store-threads] [--coverage] [--trace] [--json FILE]\n"
		"       mkwrite sim --scenario NAME --seed S|--play N --schedule LIST ...\n"
		"       mkwrite sim --mutants\n"
		"       mkwrite sim --list\n"
		"\n"
		"Runs the engine on a simulated machine, under schedules that seeds pick, or all.\n"
		"\n"
		"  --scenario NAME  one scenario; without it, all of them\n"
		"  --policy P       how faults are excluded; default retry\n"
		"  --seeds A..B     seeds A to B; default 1..1000\n"
		"  --seed S         one seed, and its trace hash\n"
		"  --exhaustive     all schedules of the scenario's small plays\n"
		"  --limit N        give up after N schedules of a play, and bound preemptions\n"
		"  --play N         one small play\n"
		"  --schedule LIST  replay a schedule, as a violation printed it\n"
		"  --mutant NAME    with a planted bug (--list has the names)\n"
		"  --mutants        plant every bug in turn; each must be noticed\n"
		"  --r0-off         copy to and from mapped buffers with the file's locks held\n"
		"  --old-kernel     with the userfaultfd of Linux 6.1\n"
		"  --store-threads  on a store with MKW_STORE_MAY_BLOCK\n"
		"  --coverage       seeds until all page states and lock nestings were taken; 1 if not\n"
		"  --trace          print every step\n"
		"  --json FILE      the results, for programs\n"
		"  --list           the scenarios, their small plays, and the planted bugs\n"
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
	printf("small plays (--exhaustive):\n");
	for (unsigned i = 0; i < small_count; i++) {
		const struct small *sm = &smalls[i];

		printf("  %2u %-29s %s: \"%s\" then", i, sm->scenario,
		       sm->in_thread ? "inline" : "pager", sm->setup);
		for (unsigned t = 0; t < SMALL_TASKS && sm->task[t]; t++)
			printf(" \"%s\"", sm->task[t]);
		printf("\n");
	}
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

	cli.first = number("--seeds", text, &end);
	if (strncmp(end, "..", 2))
		wrong("--seeds", text, "a range such as 1..1000 is wanted");
	cli.last = number("--seeds", end + 2, &end);
	if (*end || cli.last < cli.first)
		wrong("--seeds", text, "a range such as 1..1000 is wanted");
}

static void parse_seed(const char *text)
{
	char *end;

	cli.first = cli.last = number("--seed", text, &end);
	if (*end)
		wrong("--seed", text, "a number is wanted");
	cli.one_seed = true;
}

static void parse_scenario(const char *text)
{
	for (unsigned i = 0; i < scenario_count; i++)
		if (!strcmp(text, scenarios[i].name))
			cli.scenario = &scenarios[i];
	if (!cli.scenario)
		wrong("--scenario", text, "there is no such scenario; --list names them");
}

static void parse_policy(const char *text)
{
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(text, cli_policies[i])) {
			cli.stage.policy = i;
			return;
		}
	wrong("--policy", text, "none, invalidate or retry is wanted");
}

static void parse_mutant(const char *text)
{
	enum mkw__mutant m = mkw__mutant_find(text);

	if (m == MKW__MUTANT_NONE)
		wrong("--mutant", text, "there is no such planted bug; --list names them");
	cli.mutant = text;
	cli.stage.mutant = m;
}

static void parse_limit(const char *text)
{
	char *end;

	cli.limit = number("--limit", text, &end);
	if (*end || !cli.limit)
		wrong("--limit", text, "a number of schedules is wanted");
}

static void parse_play(const char *text)
{
	char *end;
	uint64_t n = number("--play", text, &end);

	if (*end || n >= small_count)
		wrong("--play", text, "there is no such play; --list numbers them");
	cli.play = (int)n;
}

static void parse_schedule(const char *text)
{
	if (!sim_segments_parse(text, &cli.schedule))
		wrong("--schedule", text, "a list such as 3.12,4.1 is wanted, task and points, or - for an empty one");
	cli.replay = true;
}

static void parse_json(const char *text)
{
	cli.json = text;
}

/* An option without a value. */
static bool parse_flag(const char *arg)
{
	static const struct {
		const char *name;
		bool *flag;
	} flags[] = {
		{ "--trace", &cli.trace }, { "--r0-off", &cli.stage.r0_off },
		{ "--old-kernel", &cli.stage.old_kernel },
		{ "--store-threads", &cli.stage.store_threads },
		{ "--exhaustive", &cli.exhaustive }, { "--mutants", &cli.mutants },
		{ "--coverage", &cli.coverage },
	};

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (!strcmp(arg, flags[i].name)) {
			*flags[i].flag = true;
			return true;
		}
	return false;
}

static void parse(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*parse)(const char *text);
	} options[] = {
		{ "--seeds", parse_seeds }, { "--seed", parse_seed },
		{ "--scenario", parse_scenario }, { "--policy", parse_policy },
		{ "--mutant", parse_mutant }, { "--limit", parse_limit },
		{ "--play", parse_play }, { "--schedule", parse_schedule },
		{ "--json", parse_json },
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
		if (parse_flag(argv[i]))
			continue;
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
	if (cli.replay && !cli.scenario)
		wrong("--schedule", "", "it wants the --scenario that it is a schedule of");
}

int main(int argc, char **argv)
{
	int status;

	parse(argc, argv);
	if (cli.mutants)
		status = campaign_mutants();
	else if (cli.replay)
		status = campaign_replay();
	else if (cli.exhaustive)
		status = campaign_search();
	else if (cli.coverage)
		status = campaign_coverage();
	else
		status = campaign_seeds();
	return report_end() ? status : 2;
}
