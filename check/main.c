/* SPDX-License-Identifier: MIT */
/*
 * main.c: the command: windows, then random concurrency, for each target; then the
 * table, and the exit status.
 *
 *   0   the target named, or without --target the last one, is clean
 *   1   it is not
 *   2   usage, or the environment does not allow the check, or not all of it; also
 *       where all of what was asked for was skipped
 *
 * An interrupt ends what runs; what is known by then is printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/fsname.h"
#include "check/image.h"
#include "check/interrupt.h"
#include "check/report.h"
#include "check/windows/slow.h"

#define COLUMNS_MAX 16
/* Each costs the watchdog's time: enough is known then. */
#define DEADLOCKS_MAX 2
#define MINIMISE_SECONDS 60

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

/*
 * The column's anomaly, made small, into the directory of --bundle; while its file
 * system is there. False: it cannot be written.
 */
static bool bundle(const char *self, struct options *o, struct column *col)
{
	struct minimal min;
	int err;

	o->bundled = true;
	progress(o, col->random.label, "minimising");
	memcpy(col->label, col->random.label, sizeof(col->label));
	mkw__check_minimise(&o->cfg, &col->evidence, MINIMISE_SECONDS, &min);
	progress(o, NULL, NULL);
	err = mkw__check_write_bundle(o->bundle, col, &min);
	if (err) {
		fprintf(stderr, "%s: --bundle %s cannot be written: %s\n", self,
			o->bundle, strerror(-err));
		return false;
	}
	printf("%s: %s, minimised: %u threads, seen in %u of %u runs of %g s; see %s\n",
	       col->label, mkw__check_class_name(col->evidence.class),
	       min.cfg.threads, min.hits, min.trials, min.trial_seconds,
	       o->bundle);
	return true;
}

/* Fills a column. False: the environment does not allow it. */
static bool run_column(const char *self, struct options *o,
		       struct column *col)
{
	col->atomic = o->cfg.target_ops->atomic;
	col->engine = o->cfg.target_ops != mkw__check_targets[0];
	run_windows(o, col);
	if (o->random && !mkw__check_interrupted()) {
		o->cfg.evidence = &col->evidence;
		if (mkw__check_run(&o->cfg, &col->random)) {
			fprintf(stderr, "%s: %s\n", self, col->random.error);
			return false;
		}
		col->has_random = true;
		mkw__check_mount_line(o->cfg.dir, col->mount, sizeof(col->mount));
		if (o->bundle && col->evidence.taken && !o->bundled)
			return bundle(self, o, col);
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
	char path[4096];

	if (n)
		mkw__check_print(cols, n, o);
	fflush(stdout);
	/* What can be written is, whatever cannot. */
	if (o->json)
		status |= export(self, "--json", o->json,
				 mkw__check_write_json(o->json, cols, n, o));
	if (o->junit)
		status |= export(self, "--junit", o->junit,
				 mkw__check_write_junit(o->junit, cols, n, o));
	if (o->html)
		status |= export(self, "--html", o->html,
				 mkw__check_write_html(o->html, cols, n, o));
	if (o->bundled) {
		snprintf(path, sizeof(path), "%s/report.html", o->bundle);
		status |= export(self, "--bundle", path,
				 mkw__check_write_html(path, cols, n, o));
	} else if (o->bundle && n) {
		fprintf(stderr, "%s: --bundle %s: not written, as there was no "
			"anomaly with a history\n", self, o->bundle);
	}
	return status;
}

/* Does the column decide the exit status? */
static bool counts(const struct options *o, const struct column *col)
{
	return o->target || o->fail_on_kernel || col->engine ||
	       !mkw__check_targets[1];
}

struct session {
	const char *self;
	struct options o;
	struct column cols[COLUMNS_MAX];
	unsigned n;
	bool fits;		/* the environment allows it, so far */
};

/* All targets that were asked for, on the directory. fs: of --fs, or NULL. */
static void run_dir(struct session *s, const char *fs)
{
	unsigned windows = 0;

	while (mkw__windows[windows].name)
		windows++;
	for (unsigned i = 0; mkw__check_targets[i] && s->fits; i++) {
		struct column *col = &s->cols[s->n];

		if (s->n == COLUMNS_MAX ||
		    (s->o.target && s->o.target != mkw__check_targets[i]))
			continue;
		if (mkw__check_interrupted()) {
			fprintf(stderr, "%s: interrupted; %s was not checked\n",
				s->self, mkw__check_targets[i]->name);
			s->fits = false;
			break;
		}
		s->o.cfg.target_ops = mkw__check_targets[i];
		*col = (struct column){ .n_wins = 0 };
		col->wins = calloc(windows, sizeof(*col->wins));
		if (!col->wins)
			break;
		s->fits = run_column(s->self, &s->o, col);
		/* Of the engine's columns each is on another file system. */
		if (fs && col->engine)
			snprintf(col->label, sizeof(col->label), "mkwrite %s", fs);
		if (s->fits || col->n_wins)
			s->n++;
		else
			free(col->wins);
	}
}

/* A fresh file system of each type. What cannot be had keeps none of the others off. */
static void run_fs(struct session *s)
{
	bool all_fit = true;
	unsigned i;

	for (i = 0; i < s->o.n_fs && !mkw__check_interrupted(); i++) {
		const char *fs = s->o.fs[i];
		struct image im = { .mounted = false };
		char why[256], path[64];
		int fd = -1;

		s->fits = true;
		progress(&s->o, fs, "making it");
		if (!mkw__image_possible(fs, why, sizeof(why)) &&
		    !mkw__image_namespace(why, sizeof(why)))
			fd = mkw__image_format(fs, why, sizeof(why));
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (fd < 0 || mkw__image_mount(&im, path, fs, why, sizeof(why))) {
			fprintf(stderr, "%s: --fs %s: %s\n", s->self, fs, why);
			s->fits = false;
		} else {
			s->o.cfg.dir = im.mount;
			run_dir(s, fs);
		}
		mkw__image_unmount(&im);
		if (fd >= 0)
			close(fd);
		all_fit &= s->fits;
	}
	for (; i < s->o.n_fs; i++) {
		fprintf(stderr, "%s: interrupted; %s was not checked\n", s->self,
			s->o.fs[i]);
		all_fit = false;
	}
	s->fits = all_fit;
	s->o.cfg.dir = NULL;
}

int mkw__check_main(int argc, char **argv)
{
	static struct session s;
	bool dirty = false;
	int status = mkw__check_parse(argc, argv, &s.o);

	if (status != EXIT_CLEAN)
		return status < 0 ? EXIT_CLEAN : status;
	if (s.o.list) {
		mkw__check_list();
		return EXIT_CLEAN;
	}
	s.self = argv[0];
	s.n = 0;
	s.fits = true;
	s.o.cfg.progress = isatty(STDERR_FILENO);
	mkw__check_catch(NULL);
	if (s.o.n_fs)
		run_fs(&s);
	else
		run_dir(&s, NULL);
	mkw__check_uncatch();
	status = report(argv[0], &s.o, s.cols, s.n);
	for (unsigned i = 0; i < s.n; i++) {
		if (counts(&s.o, &s.cols[i]) && !mkw__column_checked(&s.cols[i])) {
			fprintf(stderr, "%s: %s: all of it was skipped, for the "
				"reasons given\n", argv[0], s.cols[i].label);
			s.fits = false;
		}
		dirty |= counts(&s.o, &s.cols[i]) &&
			 !mkw__column_clean(&s.cols[i], &s.o);
		free(s.cols[i].wins);
	}
	if (!s.fits)
		return EXIT_USAGE;
	return status == EXIT_CLEAN && dirty ? EXIT_ANOMALY : status;
}
