/* SPDX-License-Identifier: MIT */
/*
 * options.c: the command line of mkwrite check. A table: an option is a line of
 * it, with a function that takes its value.
 */
#include "check/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/image.h"
#include "check/mix.h"

struct option_def {
	const char *name;
	const char *value;	/* what it is called in the help; NULL: none */
	const char *help;
	/* False: not what was wanted. */
	bool (*take)(struct options *o, const char *value);
	const char *wanted;
	bool engine;		/* has no meaning without one */
};

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

static bool take_target(struct options *o, const char *value)
{
	for (unsigned i = 0; mkw__check_targets[i]; i++)
		if (!strcmp(mkw__check_targets[i]->name, value)) {
			o->target = mkw__check_targets[i];
			return true;
		}
	return false;
}

static bool take_window(struct options *o, const char *value)
{
	uint64_t windows = 0;

	if (!strcmp(value, "none")) {
		o->windows = 0;
		return true;
	}
	while (*value) {
		size_t len = strcspn(value, ",");
		bool known = false;

		for (unsigned i = 0; mkw__windows[i].name; i++)
			if (!strncmp(mkw__windows[i].name, value, len) &&
			    !mkw__windows[i].name[len]) {
				windows |= UINT64_C(1) << i;
				known = true;
			}
		if (!known)
			return false;
		value += len + (value[len] == ',');
	}
	o->windows = windows;
	o->random = false;
	return windows != 0;
}

static bool take_fs(struct options *o, const char *value)
{
	char *save = NULL, *name;

	if (strlen(value) >= sizeof(o->fs_names))
		return false;
	strcpy(o->fs_names, value);
	for (name = strtok_r(o->fs_names, ",", &save); name;
	     name = strtok_r(NULL, ",", &save)) {
		if (o->n_fs == FS_MAX || !mkw__image_known(name))
			return false;
		o->fs[o->n_fs++] = name;
	}
	return o->n_fs > 0;
}

static bool take_model(struct options *o, const char *value)
{
	o->cfg.strict = !strcmp(value, "strict");
	return o->cfg.strict || !strcmp(value, "integrity");
}

static bool take_policy(struct options *o, const char *value)
{
	if (!strcmp(value, "invalidate"))
		o->cfg.policy = MKW_POLICY_INVALIDATE;
	else if (!strcmp(value, "retry"))
		o->cfg.policy = MKW_POLICY_RETRY;
	else
		return false;
	return true;
}

static bool take_inline(struct options *o, const char *value)
{
	(void)value;
	return o->cfg.inline_faults = true;
}

static bool take_atomic(struct options *o, const char *value)
{
	(void)value;
	return o->cfg.atomic_writes = true;
}

static bool take_cache(struct options *o, const char *value)
{
	return parse_number(value, true, &o->cfg.cache_bytes) &&
	       o->cfg.cache_bytes >= MKW_CACHE_BYTES_MIN;
}

static bool take_seconds(struct options *o, const char *value)
{
	char *end;

	o->cfg.seconds = strtod(value, &end);
	return !*end && end != value && o->cfg.seconds > 0 &&
	       o->cfg.seconds <= 1e7;
}

static bool take_threads(struct options *o, const char *value)
{
	uint64_t n;

	if (!parse_number(value, false, &n) || n < CHECK_THREADS_MIN ||
	    n > CHECK_THREADS_MAX)
		return false;
	o->cfg.threads = (unsigned)n;
	return true;
}

static bool take_seed(struct options *o, const char *value)
{
	return parse_number(value, false, &o->cfg.seed);
}

static bool take_profile(struct options *o, const char *value)
{
	o->cfg.profile = strcmp(value, "all") ? value : NULL;
	return !o->cfg.profile || mkw__check_profile_find(value);
}

static bool take_mem(struct options *o, const char *value)
{
	return parse_number(value, true, &o->cfg.mem_bytes) &&
	       o->cfg.mem_bytes >= 16 << 20;
}

static bool take_file_size(struct options *o, const char *value)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return parse_number(value, true, &o->cfg.file_bytes) &&
	       o->cfg.file_bytes >= CHECK_FILE_MIN &&
	       o->cfg.file_bytes <= CHECK_FILE_MAX &&
	       o->cfg.file_bytes % page == 0;
}

#define DELAY_NS_MAX 100000000u

static bool take_delay(struct options *o, const char *value)
{
	size_t digits = strspn(value, "0123456789");
	const char *unit = value + digits;
	uint64_t factor = !*unit || !strcmp(unit, "us") ? 1000 :
			  !strcmp(unit, "ms") ? 1000000 :
			  !strcmp(unit, "ns") ? 1 : 0;
	char number[32];
	uint64_t n;

	if (!factor || digits >= sizeof(number))
		return false;
	memcpy(number, value, digits);
	number[digits] = '\0';
	if (!parse_number(number, false, &n) || n > DELAY_NS_MAX / factor)
		return false;
	o->cfg.delay_ns = (uint32_t)(n * factor);
	return true;
}

static bool take_lever_by_file(struct options *o, const char *value)
{
	(void)value;
	return o->cfg.lever_by_file = true;
}

static bool take_freeze(struct options *o, const char *value)
{
	(void)value;
	return o->cfg.freeze = true;
}

static bool take_measure(struct options *o, const char *value)
{
	(void)value;
	return o->cfg.measure = true;
}

static bool take_until_found(struct options *o, const char *value)
{
	(void)value;
	o->cfg.until = ~0u;
	if (!o->cfg.strict)
		o->cfg.until &= ~(1u << CHECK_TORN);
	return true;
}

static bool take_allow_errors(struct options *o, const char *value)
{
	(void)value;
	return o->cfg.allow_errors = true;
}

static bool take_fail_on_kernel(struct options *o, const char *value)
{
	(void)value;
	return o->fail_on_kernel = true;
}

static bool take_json(struct options *o, const char *value)
{
	o->json = value;
	return true;
}

static bool take_junit(struct options *o, const char *value)
{
	o->junit = value;
	return true;
}

static bool take_html(struct options *o, const char *value)
{
	o->html = value;
	return true;
}

static bool take_bundle(struct options *o, const char *value)
{
	o->bundle = value;
	return true;
}

static bool take_list(struct options *o, const char *value)
{
	(void)value;
	return o->list = true;
}

static const struct option_def defs[] = {
	{ "list", NULL, "the windows", take_list, NULL, false },
	{ "window", "NAME,...", "only these, and no random run; none: only that",
	  take_window, "the name of a window (see --list), or none", false },
	{ "fs", "TYPE,...", "on fresh ones, made on loop devices, in place of DIR",
	  take_fs, "some of ext4, xfs, btrfs and tmpfs", false },
	{ "target", "kernel|engine", "only this one", take_target,
	  "kernel or engine", true },
	{ "seconds", "N", "of random concurrency for each target [20]",
	  take_seconds, "a number above 0", false },
	{ "profile", "NAME", "dio-vs-mmap, hot, mappings, pins, punch, shift, truncate, ways, whole, wide [all]",
	  take_profile, "dio-vs-mmap, hot, mappings, pins, punch, shift, truncate, ways, whole, "
	  "wide or all",
	  false },
	{ "file-size", "BYTES", "of the file that is hammered; K, M [2M]",
	  take_file_size, "a number of bytes from 1M to 128M, whole pages", false },
	{ "delay", "TIME", "put delays into operations, up to TIME (500us, 2ms)",
	  take_delay, "a time of at most 100ms, as in 500us", false },
	{ "freeze", NULL, "freeze the file system of DIR, too; all who use it wait",
	  take_freeze, NULL, false },
	{ "mem", "BYTES", "memory to record and judge with [140M or more]", take_mem,
	  "a number of bytes, 16M or more", false },
	{ "until-found", NULL, "end the random run at its first anomaly",
	  take_until_found, NULL, false },
	{ "threads", "N", "2 to 60 [5]", take_threads, "a number from 2 to 60",
	  false },
	{ "seed", "S", "of the choice of operations [1]", take_seed,
	  "a whole number", false },
	{ "model", "integrity|strict", "strict: tearing is a failure, too",
	  take_model, "integrity or strict", false },
	{ "allow-errors", NULL, "spurious errors are no failures",
	  take_allow_errors, NULL, false },
	{ "fail-on-kernel", NULL, "the kernel's anomalies fail the run",
	  take_fail_on_kernel, NULL, true },
	{ "policy", "retry|invalidate", "how the engine excludes faults [retry]",
	  take_policy, "retry or invalidate", true },
	{ "inline", NULL, "the engine's faults served in their threads",
	  take_inline, NULL, true },
	{ "atomic", NULL, "the engine's writes at once for loads, too (MKW_ATOMIC_WRITES)",
	  take_atomic, NULL, true },
	{ "cache", "BYTES", "the engine's cache; K, M, G [1M]", take_cache,
	  "a number of bytes, 1M or more", true },
	{ "json", "FILE", "the results for programs", take_json, NULL, false },
	{ "junit", "FILE", "the results for continuous integration", take_junit,
	  NULL, false },
	{ "html", "FILE", "the results as a page, with a picture of the anomaly",
	  take_html, NULL, false },
	{ "bundle", "DIR", "minimise the first anomaly; page, history, program",
	  take_bundle, NULL, false },
	{ "help", NULL, "this", NULL, NULL, false },
	/* For tests and measurements: not in the help. */
	{ "lever-by-file", NULL, NULL, take_lever_by_file, NULL, false },
	{ "measure-recording", NULL, NULL, take_measure, NULL, false },
};
#define DEFS (sizeof(defs) / sizeof(defs[0]))

static bool have_engine(void)
{
	return mkw__check_targets[1] != NULL;
}

static void print_usage(const char *self)
{
	printf("usage: %s [OPTION...] DIR\n"
	       "       %s [OPTION...] --fs TYPE,...\n\n"
	       "Which races between mapped, buffered and direct access does the file\n"
	       "system of DIR have? First windows, which are races held open on purpose,\n"
	       "then one file is hammered from several threads in every way at once, and\n"
	       "the history of each word is judged%s. Nothing is left in DIR.\n\n",
	       self, self, have_engine() ? ": the kernel's file system, and then\n"
				     "the engine on it" : "");
	for (unsigned i = 0; i < DEFS; i++) {
		char left[40];

		if (!defs[i].help || (defs[i].engine && !have_engine()))
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", defs[i].name,
			 defs[i].value ? " " : "",
			 defs[i].value ? defs[i].value : "");
		printf("  %-26s %s\n", left, defs[i].help);
	}
	printf("\nExit status: 0 %s; 1 it is\nnot; 2 usage or environment.\n",
	       have_engine() ? "the target named, or without --target the engine, "
			       "is clean" : "the file system is clean");
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

static bool is_root(const char *dir)
{
	struct stat st, root;

	return stat(dir, &st) || stat("/", &root) || st.st_dev == root.st_dev;
}

static int bad_line(const char *self, const char *what)
{
	fprintf(stderr, "%s: %s. See %s --help\n", self, what, self);
	return EXIT_USAGE;
}

static int take(const char *self, const struct option_def *def,
		struct options *o)
{
	if (def->take(o, optarg))
		return EXIT_CLEAN;
	fprintf(stderr, "%s: --%s %s: not %s. See %s --help\n", self, def->name,
		optarg, def->wanted, self);
	return EXIT_USAGE;
}

int mkw__check_parse(int argc, char **argv, struct options *o)
{
	struct option longs[DEFS + 1] = { { NULL, 0, NULL, 0 } };
	const char *self = argv[0];
	unsigned n = 0;
	int c;

	*o = (struct options){ .cfg = CHECK_CONFIG_INIT, .random = true };
	o->cfg.seconds = 20;
	for (unsigned i = 0; mkw__windows[i].name; i++)
		o->windows |= UINT64_C(1) << i;
	for (unsigned i = 0; i < DEFS; i++)
		if (!defs[i].engine || have_engine())
			longs[n++] = (struct option){
				defs[i].name,
				defs[i].value ? required_argument : no_argument,
				NULL, (int)i + 1,
			};
	optind = 1;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		const struct option_def *def;
		int status;

		if (c < 1 || c > (int)DEFS)
			return bad_line(self, "no such use of options");
		def = &defs[c - 1];
		if (!def->take) {
			print_usage(self);
			return -1;
		}
		status = take(self, def, o);
		if (status != EXIT_CLEAN)
			return status;
	}
	if (o->list)
		return EXIT_CLEAN;
	/* Nobody else has these. */
	o->cfg.freeze |= o->n_fs > 0;
	if (o->n_fs)
		return optind == argc ? EXIT_CLEAN :
		       bad_line(self, "--fs takes no directory");
	if (optind == argc)
		return bad_line(self, "name a directory on the file system to "
				      "be checked");
	if (optind + 1 < argc)
		return bad_line(self, "more than one directory was named");
	o->cfg.dir = argv[optind];
	if (check_dir(self, o->cfg.dir) != EXIT_CLEAN)
		return EXIT_USAGE;
	return o->cfg.freeze && is_root(o->cfg.dir) ?
		       bad_line(self, "--freeze will not freeze the root file "
				      "system: a kill in the wrong moment would "
				      "leave the machine so") : EXIT_CLEAN;
}
