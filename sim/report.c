/* SPDX-License-Identifier: MIT */
/*
 * report.c: what `mkwrite sim` says: a table on stdout, the story of a violation with
 * the command that shows it again, progress on stderr if that is a terminal, and
 * the same as JSON in a file.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commit.h"
#include "sim/cli.h"

const char *const cli_policies[] = { "none", "invalidate", "retry" };

#define SCHEDULE_PRINTED 400u

static FILE *json;
static unsigned json_entries;

double report_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void report_progress(const char *name, uint64_t n, uint64_t runs, double since)
{
	static double last;
	double now;

	if (runs % 64 || !isatty(STDERR_FILENO))
		return;
	now = report_now();
	if (now - last < 0.2)
		return;
	last = now;
	fprintf(stderr, "\r%-32s %llu, %.0f schedules/s  ", name,
		(unsigned long long)n, (double)runs / (now - since + 1e-9));
}

void report_progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%78s\r", "");
}

static const char *name_of(const struct play *p)
{
	return p->small ? p->small->scenario : p->scenario->name;
}

/* "a | b | c" */
static void print_roles(FILE *to, const struct small *sm)
{
	fprintf(to, "%s%s", sm->setup, sm->setup[0] ? " : " : "");
	for (unsigned i = 0; i < SMALL_TASKS && sm->task[i]; i++)
		fprintf(to, "%s%s", i ? " | " : "", sm->task[i]);
}

/* ---- the story ---------------------------------------------------------- */

static void print_command(FILE *to, const struct outcome *o)
{
	const struct play *p = o->play;

	fprintf(to, "mkwrite sim --scenario %s --policy %s", name_of(p),
		cli_policies[p->options.policy]);
	if (cli.mutant)
		fprintf(to, " --mutant %s", cli.mutant);
	if (p->options.r0_off)
		fprintf(to, " --r0-off");
	if (p->options.old_kernel)
		fprintf(to, " --old-kernel");
	if (p->options.store_threads)
		fprintf(to, " --store-threads");
	if (p->small)
		fprintf(to, " --play %u", (unsigned)(p->small - smalls));
	else
		fprintf(to, " --seed %llu", (unsigned long long)p->seed);
	/* One that did not get short is had again by its seed. */
	if (o->scheduled && cli.schedule.n <= SCHEDULE_PRINTED) {
		fprintf(to, " --schedule ");
		sim_segments_print(to, &cli.schedule);
	}
}

static void print_story(FILE *to, const struct outcome *o)
{
	const struct play *p = o->play;

	fprintf(to, "%s, policy %s", name_of(p), cli_policies[p->options.policy]);
	if (p->small) {
		fprintf(to, ", play %u (", (unsigned)(p->small - smalls));
		print_roles(to, p->small);
		fprintf(to, ")");
	} else {
		fprintf(to, ", seed %llu", (unsigned long long)p->seed);
	}
	fprintf(to, ":\n");
	sim_print_story(to);
	fprintf(to, "\n");
	sim_print_state(to);
	stage_print_waits(to);
	fprintf(to, "\nviolation (%s) after %llu steps: %s\n",
		sim_oracle(o->res.message), (unsigned long long)o->res.steps,
		o->res.message);
}

void report_story(struct outcome *o)
{
	printf("\n");
	print_story(stdout, o);
	if (o->shrunk_from)
		printf("minimised from %u switches of tasks to %u\n", o->shrunk_from,
		       cli.schedule.n);
	printf("trace hash %016llx\n", (unsigned long long)o->res.hash);
	printf("again: ");
	print_command(stdout, o);
	printf("\ncommit: %s\n", SIM_COMMIT);
}

/* ---- JSON --------------------------------------------------------------- */

static void json_string(const char *text)
{
	fputc('"', json);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fprintf(json, "\\%c", c);
		else if (c < 32)
			fprintf(json, "\\u%04x", c);
		else
			fputc(c, json);
	}
	fputc('"', json);
}

/* The output of fn(o), as one string. */
static void json_text(void (*fn)(FILE *to, const struct outcome *o),
		      const struct outcome *o)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return;
	fn(f, o);
	fclose(f);
	json_string(text);
	free(text);
}

static bool json_begin(void)
{
	if (!cli.json)
		return false;
	if (!json) {
		json = fopen(cli.json, "w");
		if (!json) {
			fprintf(stderr, "mkwrite sim: --json %s: %s; name a file that can be written\n",
				cli.json, strerror(errno));
			exit(2);
		}
		fprintf(json, "{\"commit\":\"%s\",\"runs\":[", SIM_COMMIT);
	}
	fprintf(json, "%s\n", json_entries++ ? "," : "");
	return true;
}

static void json_outcome(const struct outcome *o, const char *mutant)
{
	if (!json_begin())
		return;
	fprintf(json, "{\"scenario\":\"%s\",\"policy\":\"%s\",\"kind\":\"%s\",",
		name_of(o->play), cli_policies[o->play->options.policy], o->what);
	if (mutant)
		fprintf(json, "\"mutant\":\"%s\",", mutant);
	if (o->play->small)
		fprintf(json, "\"play\":%u,", (unsigned)(o->play->small - smalls));
	fprintf(json, "\"schedules\":%llu,\"steps\":%llu,\"seconds\":%.3f,\"verdict\":\"%s\"",
		(unsigned long long)o->schedules, (unsigned long long)o->steps,
		o->seconds, o->verdict);
	if (o->totals.faults)
		fprintf(json, ",\"faults\":%llu,\"parks\":%llu,\"retries\":%llu",
			(unsigned long long)o->totals.faults,
			(unsigned long long)o->totals.parks,
			(unsigned long long)o->totals.retries);
	if (!o->good) {
		fprintf(json, ",\"oracle\":\"%s\",\"hash\":\"%016llx\",\"message\":",
			sim_oracle(o->res.message),
			(unsigned long long)o->res.hash);
		json_string(o->res.message);
		if (!mutant) {
			fprintf(json, ",\"again\":");
			json_text(print_command, o);
			fprintf(json, ",\"story\":");
			json_text(print_story, o);
		}
	}
	fprintf(json, "}");
}

/* ---- the table ---------------------------------------------------------- */

void report_outcome(const struct outcome *o)
{
	double seconds = o->seconds + 1e-9;

	printf("%-31s %-10s %9llu schedules %11llu steps %7.2f s %6.0f schedules/s %5.2fM steps/s  %s",
	       name_of(o->play), cli_policies[o->play->options.policy],
	       (unsigned long long)o->schedules, (unsigned long long)o->steps,
	       o->seconds, (double)o->schedules / seconds,
	       (double)o->steps / seconds / 1e6, o->verdict);
	if (o->play->small) {
		printf("  %2u %s ", (unsigned)(o->play->small - smalls),
		       o->play->small->in_thread ? "inline" : "pager ");
		print_roles(stdout, o->play->small);
	}
	printf("\n");
	fflush(stdout);
	json_outcome(o, NULL);
}

void report_mutant(const char *name, const struct outcome *o)
{
	if (o->good)
		printf("%-28s SURVIVES %llu schedules\n", name,
		       (unsigned long long)o->schedules);
	else
		printf("%-28s killed by %-20s after %6llu schedules, in %s, %s\n",
		       name, sim_oracle(o->res.message),
		       (unsigned long long)o->schedules, name_of(o->play),
		       cli_policies[o->play->options.policy]);
	fflush(stdout);
	json_outcome(o, name);
}

bool report_end(void)
{
	if (!json)
		return true;
	fprintf(json, "\n]}\n");
	if (!fclose(json))
		return true;
	fprintf(stderr, "mkwrite sim: --json %s: %s; is the disk full?\n", cli.json,
		strerror(errno));
	return false;
}
