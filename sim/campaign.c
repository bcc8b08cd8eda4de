/* SPDX-License-Identifier: MIT */
/*
 * campaign.c: what `mkwrite sim` runs: scenarios by seeds, small plays under all
 * schedules, planted bugs until something notices them, and one given schedule.
 *
 * A violation ends the campaign: it is made as short as it gets, and told.
 */
#include <stdio.h>
#include <string.h>

#include "core/testing.h"
#include "sim/access.h"
#include "sim/cli.h"
#include "sim/coverage.h"

#define ROUND 32u	/* seeds of a scenario before the next has its turn */

/* Policy and kernel, too, by the seed: where it is all one to the campaign. */
static void vary(struct play *p)
{
	p->options.policy = p->seed / 2 % 2 ? STAGE_INVALIDATE : STAGE_RETRY;
	/* What is wrong there alone is looked for there alone. */
	p->options.old_kernel = cli.stage.old_kernel || p->seed / 4 % 4 == 0 ||
		p->options.mutant == MKW__MUTANT_WINDOW_NOT_COMPARED;
}

/* ---- violations --------------------------------------------------------- */

/* The schedule of the last run, as short as it gets. */
static void shrink(struct outcome *o)
{
	const struct sim_segments *record = sim_recorded();
	struct sim_result res = o->res;
	unsigned record_n;

	if (record->cut)
		return;
	record_n = record->n;
	memcpy(&cli.schedule, record, sizeof(*record));
	if (!sim_shrink(o->play, &cli.schedule, &res))
		return;
	o->res = res;
	o->scheduled = true;
	o->shrunk_from = record_n;
}

static void tell(struct outcome *o)
{
	report_progress_end();
	if (!cli.trace)
		shrink(o);
	report_story(o);
}

/* ---- seeds -------------------------------------------------------------- */

static bool seeds_of(const struct scenario *s)
{
	struct play p = { .scenario = s, .options = cli.stage, .seed = cli.first };
	struct outcome o = { .play = &p, .what = "random", .verdict = "clean" };
	double start = report_now();

	memset(&stage_totals, 0, sizeof(stage_totals));
	for (;; p.seed++) {
		o.good = play_run(&p, NULL, cli.trace, &o.res);
		o.schedules++;
		o.steps += o.res.steps;
		if (!o.good || p.seed == cli.last)
			break;
		report_progress(s->name, p.seed, o.schedules, start);
	}
	o.seconds = report_now() - start;
	o.totals = stage_totals;
	report_progress_end();
	if (!o.good) {
		o.verdict = "VIOLATION";
		tell(&o);
	}
	report_outcome(&o);
	if (cli.one_seed && o.good)
		printf("trace hash %016llx\n", (unsigned long long)o.res.hash);
	return o.good;
}

int campaign_seeds(void)
{
	bool good = true;

	for (unsigned i = 0; i < scenario_count && good; i++)
		if (!cli.scenario || cli.scenario == &scenarios[i])
			good = seeds_of(&scenarios[i]);
	return good ? 0 : 1;
}

/*
 * Some seeds of each scenario in turn, until everything was taken that is to be
 * (coverage.h), or the last seed was. The policy goes by the seed.
 */
int campaign_coverage(void)
{
	struct play p = { .options = cli.stage };
	struct outcome o = { .play = &p, .what = "coverage", .verdict = "taken" };
	double start = report_now();
	bool all = false;

	o.good = true;
	for (uint64_t seed = cli.first; seed <= cli.last && !all; seed += ROUND) {
		for (unsigned i = 0; i < scenario_count && o.good; i++) {
			p.scenario = &scenarios[i];
			if (cli.scenario && cli.scenario != p.scenario)
				continue;
			for (p.seed = seed; p.seed < seed + ROUND &&
			     p.seed <= cli.last && o.good; p.seed++) {
				vary(&p);
				o.good = play_run(&p, NULL, false, &o.res);
				o.schedules++;
				o.steps += o.res.steps;
			}
		}
		if (!o.good) {
			o.verdict = "VIOLATION";
			o.seconds = report_now() - start;
			tell(&o);
			report_outcome(&o);
			return 1;
		}
		all = sim_coverage_print(NULL);
	}
	sim_coverage_print(stdout);
	printf("%s after %llu schedules, %.1f s\n",
	       all ? "complete" : "NOT complete", (unsigned long long)o.schedules,
	       report_now() - start);
	return all ? 0 : 1;
}

/* ---- all schedules ------------------------------------------------------ */

/* One search; adds to *o. True: it ended, clean or not. */
static bool search(const struct play *p, struct sim_search_options how,
		   struct outcome *o, double start)
{
	struct sim_scheduler *scheduler = sim_search_begin(&how);
	struct sim_search_totals totals;

	do {
		o->good = play_run(p, scheduler, false, &o->res);
		o->schedules++;
		o->steps += o->res.steps;
		report_progress(p->small->scenario, o->schedules, o->schedules,
				start);
	} while (sim_search_next(&o->res) && o->good);
	sim_search_end(&totals);
	return totals.complete || !o->good;
}

/*
 * All schedules, or where these are more than the limit, all with as many preemptions
 * as the limit allows.
 */
static bool search_play(const struct small *sm)
{
	struct play p = { .small = sm, .options = cli.stage };
	struct outcome o = { .play = &p, .what = "exhaustive", .verdict = "complete" };
	struct sim_search_options how = { .how = SIM_REDUCED, .runs_max = cli.limit };
	double start = report_now();
	static char verdict[32];

	if (sm->endless || !search(&p, how, &o, start)) {
		how.how = SIM_BOUNDED;
		/* Each takes about as many times longer as there are steps. */
		for (; how.preemptions <= cli.preemptions; how.preemptions++) {
			uint64_t before = o.schedules;

			if (!search(&p, how, &o, start) || !o.good)
				break;
			if (200 * (o.schedules - before) > cli.limit) {
				how.preemptions++;
				break;
			}
		}
		if (how.preemptions)
			snprintf(verdict, sizeof(verdict), "bounded at %u",
				 how.preemptions - 1);
		else
			snprintf(verdict, sizeof(verdict), "unfinished");
		o.verdict = verdict;
	}
	o.seconds = report_now() - start;
	report_progress_end();
	if (!o.good) {
		o.verdict = "VIOLATION";
		tell(&o);
	}
	report_outcome(&o);
	return o.good;
}

int campaign_search(void)
{
	bool good = true, any = false;

	if (!sim_access_measured()) {
		fprintf(stderr, "mkwrite sim: --exhaustive needs to see what the engine touches, and this build cannot: build it with gcc and without a sanitizer\n");
		return 2;
	}
	for (unsigned i = 0; i < small_count && good; i++) {
		if (cli.play >= 0 && (unsigned)cli.play != i)
			continue;
		if (cli.scenario && strcmp(smalls[i].scenario, cli.scenario->name))
			continue;
		any = true;
		good = search_play(&smalls[i]);
	}
	if (!any) {
		fprintf(stderr, "mkwrite sim: --exhaustive: this scenario has no plays that are small enough; --list names those that have\n");
		return 2;
	}
	return good ? 0 : 1;
}

/* ---- one schedule ------------------------------------------------------- */

int campaign_replay(void)
{
	struct play p = {
		.scenario = cli.scenario, .seed = cli.first, .options = cli.stage,
		.small = cli.play < 0 ? NULL : &smalls[cli.play],
	};
	struct outcome o = { .play = &p, .what = "replay", .verdict = "clean",
			     .schedules = 1 };
	double start = report_now();

	o.good = play_run(&p, sim_replay(&cli.schedule), cli.trace, &o.res);
	o.steps = o.res.steps;
	o.seconds = report_now() - start;
	if (!o.good) {
		o.verdict = "VIOLATION";
		o.scheduled = true;
		report_story(&o);
	}
	report_outcome(&o);
	if (o.good)
		printf("trace hash %016llx\n", (unsigned long long)o.res.hash);
	return o.good ? 0 : 1;
}

/* ---- planted bugs ------------------------------------------------------- */

/* Runs every scenario, some seeds at a time, until one notices. */
static bool survives(enum mkw__mutant mutant, struct play *p, struct outcome *o)
{
	p->options = cli.stage;
	p->options.mutant = mutant;
	for (uint64_t seed = cli.first; seed <= cli.last; seed += ROUND)
		for (unsigned i = 0; i < scenario_count; i++)
			for (p->seed = seed; p->seed < seed + ROUND; p->seed++) {
				p->scenario = &scenarios[i];
				vary(p);
				o->schedules++;
				if (!play_run(p, NULL, false, &o->res)) {
					o->good = false;
					return false;
				}
			}
	return true;
}

int campaign_mutants(void)
{
	static const char *const names[MKW__MUTANT_COUNT] = {
		"",
#define MKW_MUTANT(name, breaks) #name,
#include "core/mutants.def"
#undef MKW_MUTANT
	};
	unsigned alive = 0;

	for (unsigned m = 1; m < MKW__MUTANT_COUNT; m++) {
		struct play p = { 0 };
		struct outcome o = { .play = &p, .what = "mutant", .good = true,
				     .verdict = "killed" };
		double start = report_now();

		if (survives(m, &p, &o)) {
			o.verdict = "SURVIVES";
			alive++;
		}
		o.seconds = report_now() - start;
		report_mutant(names[m], &o);
	}
	printf("%u planted bugs, %u killed\n", (unsigned)MKW__MUTANT_COUNT - 1,
	       (unsigned)MKW__MUTANT_COUNT - 1 - alive);
	return alive ? 1 : 0;
}
