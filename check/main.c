/* SPDX-License-Identifier: MIT */
/*
 * main.c: `mkwrite check`: options, which targets, the exit status.
 *
 *   0   the target named, or without --target the engine, is clean
 *   1   it is not
 *   2   usage, or the environment does not allow the check
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"

enum { EXIT_CLEAN = 0, EXIT_ANOMALY = 1, EXIT_USAGE = 2 };

static const char usage_text[] =
	"usage: mkwrite check [OPTION...] DIR\n"
	"\n"
	"Hammers one file in DIR from several threads in every way at once, and\n"
	"judges the history of each word: first the kernel's file system, then\n"
	"the engine. The file is removed whatever happens.\n"
	"\n"
	"  --target kernel|engine     only this one\n"
	"  --policy retry|invalidate  how the engine excludes faults [retry]\n"
	"  --inline                   the engine's faults served in their threads\n"
	"  --cache BYTES              the engine's cache; K, M, G [1M]\n"
	"  --seconds N                for each target [10]\n"
	"  --threads N                2 to 60 [5]\n"
	"  --seed S                   of the choice of operations [1]\n"
	"  --json FILE                the results for programs\n"
	"  --help\n"
	"\n"
	"Exit status: 0 the target named, or without --target the engine, is\n"
	"clean; 1 it is not; 2 usage or environment.\n";

struct options {
	struct check_config cfg;
	const char *json;
	bool kernel, engine;
};

static int bad_value(const char *self, const char *option, const char *value,
		     const char *wanted)
{
	fprintf(stderr, "%s: %s %s: not %s. See %s --help\n", self, option,
		value, wanted, self);
	return EXIT_USAGE;
}

/* A whole number with an optional K, M or G, where units are allowed. */
static bool parse_number(const char *s, bool units, uint64_t *out)
{
	char *end;
	unsigned shift = 0;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*out = strtoull(s, &end, 10);
	if (errno)
		return false;
	if (units && *end) {
		shift = *end == 'K' || *end == 'k' ? 10 :
			*end == 'M' || *end == 'm' ? 20 :
			*end == 'G' || *end == 'g' ? 30 : 0;
		if (!shift || *out > UINT64_MAX >> shift)
			return false;
		end++;
		*out <<= shift;
	}
	return !*end;
}

/* EXIT_CLEAN to go on, or the exit status, having said why; -1: --help. */
static int parse(int argc, char **argv, struct options *o)
{
	enum { TARGET = 1, POLICY, INLINE, CACHE, SECONDS, THREADS, SEED, JSON,
	       HELP };
	static const struct option longs[] = {
		{ "target", required_argument, NULL, TARGET },
		{ "policy", required_argument, NULL, POLICY },
		{ "inline", no_argument, NULL, INLINE },
		{ "cache", required_argument, NULL, CACHE },
		{ "seconds", required_argument, NULL, SECONDS },
		{ "threads", required_argument, NULL, THREADS },
		{ "seed", required_argument, NULL, SEED },
		{ "json", required_argument, NULL, JSON },
		{ "help", no_argument, NULL, HELP },
		{ NULL, 0, NULL, 0 },
	};
	const char *self = argv[0];
	uint64_t n;
	char *end;
	int c;

	optind = 1;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case TARGET:
			o->kernel = !strcmp(optarg, "kernel");
			o->engine = !strcmp(optarg, "engine");
			if (!o->kernel && !o->engine)
				return bad_value(self, "--target", optarg,
						 "kernel or engine");
			break;
		case POLICY:
			if (!strcmp(optarg, "invalidate"))
				o->cfg.policy = MKW_POLICY_INVALIDATE;
			else if (!strcmp(optarg, "retry"))
				o->cfg.policy = MKW_POLICY_RETRY;
			else
				return bad_value(self, "--policy", optarg,
						 "retry or invalidate");
			break;
		case INLINE:
			o->cfg.inline_faults = true;
			break;
		case CACHE:
			if (!parse_number(optarg, true, &n) ||
			    n < MKW_CACHE_BYTES_MIN)
				return bad_value(self, "--cache", optarg,
						 "a number of bytes, 1M or more");
			o->cfg.cache_bytes = n;
			break;
		case SECONDS:
			o->cfg.seconds = strtod(optarg, &end);
			if (*end || end == optarg ||
			    !(o->cfg.seconds > 0 && o->cfg.seconds <= 1e7))
				return bad_value(self, "--seconds", optarg,
						 "a number above 0");
			break;
		case THREADS:
			if (!parse_number(optarg, false, &n) ||
			    n < CHECK_THREADS_MIN || n > CHECK_THREADS_MAX)
				return bad_value(self, "--threads", optarg,
						 "a number from 2 to 60");
			o->cfg.threads = (unsigned)n;
			break;
		case SEED:
			if (!parse_number(optarg, false, &n))
				return bad_value(self, "--seed", optarg,
						 "a whole number");
			o->cfg.seed = n;
			break;
		case JSON:
			o->json = optarg;
			break;
		case HELP:
			return -1;
		default:
			fprintf(stderr, "See %s --help\n", self);
			return EXIT_USAGE;
		}
	}
	if (optind + 1 != argc) {
		fprintf(stderr, "%s: %s. See %s --help\n", self,
			optind < argc ? "more than one directory was named" :
					"name a directory on the file system "
					"to be checked", self);
		return EXIT_USAGE;
	}
	o->cfg.dir = argv[optind];
	if (!o->kernel && !o->engine)
		o->kernel = o->engine = true;
	return EXIT_CLEAN;
}

static int check_dir(const char *self, const char *dir)
{
	const char *why = NULL;
	struct stat st;

	if (stat(dir, &st))
		why = strerror(errno);
	else if (!S_ISDIR(st.st_mode))
		why = "it is not a directory";
	else if (access(dir, W_OK | X_OK))
		why = strerror(errno);
	if (!why)
		return EXIT_CLEAN;
	fprintf(stderr, "%s: %s: %s. Name a directory that you may write to, on "
		"the file system to be checked\n", self, dir, why);
	return EXIT_USAGE;
}

int mkw__check_main(int argc, char **argv)
{
	struct options o = { .cfg = CHECK_CONFIG_INIT };
	static struct check_result res[2];
	const struct target_ops *targets[2];
	unsigned n = 0, done;
	int status = parse(argc, argv, &o), err;

	if (status == -1) {
		fputs(usage_text, stdout);
		return EXIT_CLEAN;
	}
	if (status == EXIT_CLEAN)
		status = check_dir(argv[0], o.cfg.dir);
	if (status != EXIT_CLEAN)
		return status;
	if (o.kernel)
		targets[n++] = &mkw__check_kernel_target;
	if (o.engine)
		targets[n++] = &mkw__check_engine_target;
	o.cfg.progress = isatty(STDERR_FILENO);

	for (done = 0; done < n; done++) {
		o.cfg.target_ops = targets[done];
		err = mkw__check_run(&o.cfg, &res[done]);
		if (err) {
			fprintf(stderr, "%s: %s\n", argv[0], res[done].error);
			status = EXIT_USAGE;
			break;
		}
		if (done + 1 < n && res[done].interrupted) {
			done++;
			fprintf(stderr, "%s: interrupted; %s was not checked\n",
				argv[0], targets[done]->name);
			status = EXIT_USAGE;
			break;
		}
	}
	if (done)
		mkw__check_print(res, done);
	if (o.json) {
		err = mkw__check_write_json(o.json, &o.cfg, res, done);
		if (err) {
			fprintf(stderr, "%s: --json %s cannot be written: %s\n",
				argv[0], o.json, strerror(-err));
			status = EXIT_USAGE;
		}
	}
	if (status == EXIT_CLEAN && !mkw__check_clean(&res[n - 1]))
		status = EXIT_ANOMALY;
	fflush(stdout);
	return status;
}
