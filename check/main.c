/* SPDX-License-Identifier: MIT */
/*
 * main.c: the command: windows, then random concurrency, for each target; then the
 * table, and the exit status.
 *
 *   0   the target named, or without --target the last one, is clean
 *   1   it is not
 *   2   usage, or the environment does not allow the check
 *
 * An interrupt ends what runs; what is known by then is printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/fsname.h"
#include "check/interrupt.h"
#include "check/report.h"
#include "check/windows/slow.h"

#define COLUMNS_MAX 16
/* Each costs the watchdog's time: enough is known then. */
#define DEADLOCKS_MAX 2

static void progress(const struct options *o, const char *target,
		     const char *what)
{
	if (o->cfg.progress && what)
		fprintf(stderr, "\r\033[K%s: %s", target, what);
	else if (o->cfg.progress)
		fprintf(stderr, "\r\033[K");
}

/* Is one of them to be run on the slow device? */
static bool wants_slow(const struct options *o)
{
	for (unsigned i = 0; mkw__windows[i].name; i++)
		if (o->windows >> i & 1 && mkw__windows[i].slow)
			return true;
	return false;
}

static void run_windows(struct options *o, struct column *col)
{
	unsigned deadlocks = 0;
	struct slow slow;
	char type[64];

	if (wants_slow(o)) {
		progress(o, o->cfg.target_ops->name, "making the slow device");
		mkw__slow_start(&slow, mkw__check_fsname(o->cfg.dir, type,
							 sizeof(type)));
		o->cfg.slow = &slow;
	}

	for (unsigned i = 0; mkw__windows[i].name; i++) {
		struct win_result *res = &col->wins[col->n_wins];

		if (!(o->windows >> i & 1) || mkw__check_interrupted())
			continue;
		progress(o, o->cfg.target_ops->name, mkw__windows[i].name);
		if (deadlocks < DEADLOCKS_MAX) {
			mkw__window_run(&mkw__windows[i], &o->cfg, res);
		} else {
			*res = (struct win_result){ .window = &mkw__windows[i],
						    .verdict = WIN_SKIPPED };
			snprintf(res->evidence, sizeof(res->evidence),
				 "after %u deadlocks", deadlocks);
		}
		deadlocks += res->verdict == WIN_DEADLOCK;
		col->n_wins++;
		if (res->label[0] && !col->label[0])
			memcpy(col->label, res->label, sizeof(col->label));
	}
	if (o->cfg.slow)
		mkw__slow_stop(&slow);
	o->cfg.slow = NULL;
	progress(o, NULL, NULL);
}

/* Fills a column. False: the environment does not allow it. */
static bool run_column(const char *self, struct options *o,
		       struct column *col)
{
	col->atomic = o->cfg.target_ops->atomic;
	col->engine = o->cfg.target_ops != mkw__check_targets[0];
	run_windows(o, col);
	if (o->random && !mkw__check_interrupted()) {
		if (mkw__check_run(&o->cfg, &col->random)) {
			fprintf(stderr, "%s: %s\n", self, col->random.error);
			return false;
		}
		col->has_random = true;
		memcpy(col->label, col->random.label, sizeof(col->label));
	}
	if (!col->label[0])
		snprintf(col->label, sizeof(col->label), "%s",
			 o->cfg.target_ops->name);
	return true;
}

static int export(const char *self, const char *option, const char *path,
		  int err)
{
	if (!err)
		return EXIT_CLEAN;
	fprintf(stderr, "%s: %s %s cannot be written: %s\n", self, option, path,
		strerror(-err));
	return EXIT_USAGE;
}

static int report(const char *self, const struct options *o,
		  const struct column *cols, unsigned n)
{
	int status = EXIT_CLEAN;

	if (n)
		mkw__check_print(cols, n, o);
	fflush(stdout);
	if (o->json)
		status = export(self, "--json", o->json,
				mkw__check_write_json(o->json, cols, n, o));
	if (o->junit && status == EXIT_CLEAN)
		status = export(self, "--junit", o->junit,
				mkw__check_write_junit(o->junit, cols, n, o));
	return status;
}

/* Does the column decide the exit status? */
static bool counts(const struct options *o, const struct column *col)
{
	return o->target || o->fail_on_kernel || col->engine ||
	       !mkw__check_targets[1];
}

int mkw__check_main(int argc, char **argv)
{
	static struct column cols[COLUMNS_MAX];
	struct options o;
	unsigned n = 0, windows = 0;
	int status = mkw__check_parse(argc, argv, &o);
	bool dirty = false, fits = true;

	if (status != EXIT_CLEAN)
		return status < 0 ? EXIT_CLEAN : status;
	if (o.list) {
		mkw__check_list();
		return EXIT_CLEAN;
	}
	o.cfg.progress = isatty(STDERR_FILENO);
	while (mkw__windows[windows].name)
		windows++;
	mkw__check_catch(NULL);
	for (unsigned i = 0; mkw__check_targets[i] && fits; i++) {
		if (o.target && o.target != mkw__check_targets[i])
			continue;
		if (mkw__check_interrupted()) {
			fprintf(stderr, "%s: interrupted; %s was not checked\n",
				argv[0], mkw__check_targets[i]->name);
			fits = false;
			break;
		}
		o.cfg.target_ops = mkw__check_targets[i];
		memset(&cols[n], 0, sizeof(cols[n]));
		cols[n].wins = calloc(windows, sizeof(*cols[n].wins));
		if (!cols[n].wins)
			break;
		fits = run_column(argv[0], &o, &cols[n]);
		if (fits || cols[n].n_wins)
			n++;
	}
	mkw__check_uncatch();
	status = report(argv[0], &o, cols, n);
	for (unsigned i = 0; i < n; i++) {
		dirty |= counts(&o, &cols[i]) && !mkw__column_clean(&cols[i], &o);
		free(cols[i].wins);
	}
	if (!fits)
		status = EXIT_USAGE;
	if (status == EXIT_CLEAN && dirty)
		status = EXIT_ANOMALY;
	return status;
}
