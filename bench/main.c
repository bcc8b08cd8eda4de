/* SPDX-License-Identifier: MIT */
/*
 * main.c: `mkwrite bench`: command line, order of the rounds, table, JSON.
 *
 * A round runs each chosen workload on both targets, one right after the other,
 * and the next round turns their order round, so that what changes on the
 * machine meanwhile falls on both. The ratio is taken within a round; what is
 * reported is the median of the rounds' ratios with the smallest and largest.
 * Nothing here passes or fails by its time.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/internal.h"
#include "mkwrite/mkwrite.h"

#define MAX_ROUNDS 1000
/* Fewer rounds than this make no number to be quoted. */
#define FEW_ROUNDS 5

struct workload {
	const char *name;
	enum bench_kind kind;
	bool in_thread;
	const char *what;
};

static const struct workload all[] = {
	{ "random-read", BENCH_RANDOM_READ, false,
	  "pages at random, out of core; the kernel with MADV_RANDOM" },
	{ "random-read-inline", BENCH_RANDOM_READ, true,
	  "the same, faults served in the faulting thread" },
	{ "seq-scan", BENCH_SEQ_SCAN, false,
	  "pages in order, out of core; the kernel with MADV_SEQUENTIAL" },
	{ "seq-scan-inline", BENCH_SEQ_SCAN, true,
	  "the same, faults served in the faulting thread" },
	{ "seq-scan-small", BENCH_SEQ_SCAN_SMALL, false,
	  "the same; the kernel with MADV_NOHUGEPAGE, too" },
	{ "seq-scan-small-inline", BENCH_SEQ_SCAN_SMALL, true,
	  "the same, faults served in the faulting thread" },
	{ "refault", BENCH_REFAULT, false,
	  "cached pages touched again after their mapping was dropped" },
	{ "refault-inline", BENCH_REFAULT, true,
	  "the same, faults served in the faulting thread" },
	{ "random-store", BENCH_RANDOM_STORE, false,
	  "8 bytes stored to pages at random, out of core; then a sync" },
	{ "random-store-inline", BENCH_RANDOM_STORE, true,
	  "the same, faults served in the faulting thread" },
	{ "cached-pread", BENCH_CACHED_PREAD, false,
	  "cached pages read by pread(2), by mkw_pread()" },
	{ "queue-read", BENCH_QUEUE_READ, false,
	  "pages at random, out of core, 32 at once: io_uring, buffered; a queue" },
	{ "atomic-pwrite-4k", BENCH_ATOMIC_PWRITE, false,
	  "4 KiB written to cached pages, by pwrite(2); with MKW_ATOMIC_WRITES" },
	{ "atomic-pwrite-64k", BENCH_ATOMIC_PWRITE_LONG, false,
	  "the same, 64 KiB" },
	{ "atomic-pwrite-load", BENCH_ATOMIC_LOAD, false,
	  "the same, and each page then loaded through a mapping" },
};
#define WORKLOADS (sizeof(all) / sizeof(all[0]))

struct options {
	uint64_t file_mib;
	uint64_t cache_mib;
	uint64_t overhead_mib;
	uint64_t rounds;
	uint64_t seconds;
	enum mkw_policy policy;
	const char *json;
	const char *dir;
	bool chosen[WORKLOADS];
	char command[1024];
};

/* rates[target][round], per second. */
struct figures {
	double *rates[BENCH_TARGETS];
	double *ratios;
};

struct outcome {
	struct figures touches;
	struct figures syncs;		/* where the workload ends with one */
	uint64_t peak[BENCH_TARGETS];
};

volatile sig_atomic_t mkw__bench_signal;

static void on_signal(int number)
{
	mkw__bench_signal = number;
}

static void usage(FILE *f)
{
	fprintf(f,
		"usage: mkwrite bench [OPTION...] [WORKLOAD...] DIR\n"
		"\n"
		"Times the engine's mapping of a file in DIR against the kernel's mmap, under\n"
		"the same memory limit, in alternating rounds. Ratio = engine / kernel, above 1\n"
		"the engine is faster.\n"
		"\n"
		"  --file-mib N      size of the file (1024)\n"
		"  --cache-mib N     the engine's cache, and the kernel's page cache (128)\n"
		"  --overhead-mib N  what either process may hold beside it (32)\n"
		"  --rounds N        rounds, 5 or more to be quoted (5)\n"
		"  --seconds N       length of one run (2)\n"
		"  --policy P        how the engine excludes faults: retry, invalidate (retry)\n"
		"  --json FILE       all numbers to FILE\n"
		"\n"
		"Workloads (all of them unless some are named):\n");
	for (size_t i = 0; i < WORKLOADS; i++)
		fprintf(f, "  %-21s %s\n", all[i].name, all[i].what);
}

/* ---- command line ----------------------------------------------------- */

static bool parse_number(const char *option, const char *word, uint64_t min,
			 uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(word, &end, 10);
	if (*word >= '0' && *word <= '9' && !*end && !errno && *out >= min &&
	    *out <= max)
		return true;
	fprintf(stderr,
		"mkwrite bench: --%s takes a number from %llu to %llu, not \"%s\"\n",
		option, (unsigned long long)min, (unsigned long long)max, word);
	return false;
}

static bool parse_policy(const char *word, enum mkw_policy *out)
{
	*out = strcmp(word, "retry") ? MKW_POLICY_INVALIDATE : MKW_POLICY_RETRY;
	if (*out == MKW_POLICY_RETRY || !strcmp(word, "invalidate"))
		return true;
	fprintf(stderr, "mkwrite bench: --policy takes retry or invalidate, not \"%s\"\n",
		word);
	return false;
}

/* -1: go on; otherwise the exit status. */
static int parse(int argc, char **argv, struct options *opt)
{
	static const struct option longs[] = {
		{ "file-mib", required_argument, NULL, 'f' },
		{ "cache-mib", required_argument, NULL, 'c' },
		{ "overhead-mib", required_argument, NULL, 'o' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "seconds", required_argument, NULL, 's' },
		{ "policy", required_argument, NULL, 'p' },
		{ "json", required_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 }
	};
	bool any = false, ok = true;
	size_t used = 0;
	int c;

	*opt = (struct options){ .file_mib = 1024, .cache_mib = 128,
				 .overhead_mib = 32, .rounds = 5,
				 .seconds = 2 };
	for (int i = 0; i < argc && used < sizeof(opt->command); i++)
		used += (size_t)snprintf(opt->command + used,
					 sizeof(opt->command) - used, "%s%s",
					 i ? " " : "", argv[i]);

	while (ok && (c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			ok = parse_number("file-mib", optarg, 4, 1 << 24,
					  &opt->file_mib);
			break;
		case 'c':
			ok = parse_number("cache-mib", optarg, 1, 1 << 24,
					  &opt->cache_mib);
			break;
		case 'o':
			ok = parse_number("overhead-mib", optarg, 1, 1 << 24,
					  &opt->overhead_mib);
			break;
		case 'r':
			ok = parse_number("rounds", optarg, 1, MAX_ROUNDS,
					  &opt->rounds);
			break;
		case 's':
			ok = parse_number("seconds", optarg, 1, 3600,
					  &opt->seconds);
			break;
		case 'p':
			ok = parse_policy(optarg, &opt->policy);
			break;
		case 'j':
			opt->json = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:	/* getopt has named the word */
			ok = false;
		}
	}
	if (ok && optind == argc) {
		fprintf(stderr, "mkwrite bench: DIR is missing\n");
		ok = false;
	}
	for (int i = optind; ok && i < argc - 1; i++) {
		size_t w = 0;

		while (w < WORKLOADS && strcmp(argv[i], all[w].name))
			w++;
		if (w == WORKLOADS) {
			fprintf(stderr,
				"mkwrite bench: \"%s\" is no workload\n",
				argv[i]);
			ok = false;
		} else {
			opt->chosen[w] = any = true;
		}
	}
	if (!ok) {
		fprintf(stderr, "mkwrite bench --help says what it takes\n");
		return 2;
	}
	opt->dir = argv[argc - 1];
	for (size_t w = 0; w < WORKLOADS && !any; w++)
		opt->chosen[w] = true;
	return -1;
}

/* ---- the file --------------------------------------------------------- */

/*
 * A file in dir without a name, so that nothing is left whatever happens, full
 * of bytes that no layer below can compress or share. Returns the descriptor,
 * or -1 after a message.
 */
static int make_file(const struct options *opt, size_t page_size)
{
	uint64_t bytes = opt->file_mib << 20, off = 0;
	size_t chunk = 1 << 20, done;
	uint64_t *buf = NULL;
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	fd = open(opt->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		snprintf(path, sizeof(path), "%.4000s/mkwrite-bench.XXXXXX",
			 opt->dir);
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	if (fd < 0) {
		fprintf(stderr, "mkwrite bench: cannot make a file in %s: %s\n",
			opt->dir, strerror(errno));
		return -1;
	}
	buf = malloc(chunk);
	while (buf && off < bytes && !mkw__bench_signal) {
		for (size_t i = 0; i < chunk / 8; i++)
			buf[i] = mkw__bench_word((off + i * 8) / page_size,
						 (off + i * 8) % page_size / 8);
		for (done = 0; done < chunk; done += (size_t)n) {
			n = pwrite(fd, (char *)buf + done, chunk - done,
				   (off_t)(off + done));
			if (n <= 0)
				goto fail;
		}
		off += chunk;
	}
	if (!buf || fdatasync(fd))
		goto fail;
	free(buf);
	return fd;
fail:
	fprintf(stderr,
		"mkwrite bench: cannot write a file of %llu MiB in %s: %s\n",
		(unsigned long long)opt->file_mib, opt->dir, strerror(errno));
	free(buf);
	close(fd);
	return -1;
}

/* ---- numbers ---------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts a copy; the spread goes to min and max. */
static double median(const double *values, size_t n, double *min, double *max)
{
	double *sorted = malloc(n * sizeof(*sorted)), result;

	if (!sorted)
		abort();
	memcpy(sorted, values, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare);
	result = n % 2 ? sorted[n / 2] :
		 (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
	*min = sorted[0];
	*max = sorted[n - 1];
	free(sorted);
	return result;
}

static void progress(const struct options *opt, uint64_t round,
		     const struct workload *w, enum bench_target target)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Kround %llu of %llu: %s, %s",
			(unsigned long long)round + 1,
			(unsigned long long)opt->rounds, w->name,
			target == BENCH_KERNEL ? "kernel" : "engine");
}

static void progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

static void set_ratio(struct figures *f, uint64_t round)
{
	f->ratios[round] = f->rates[BENCH_ENGINE][round] /
			   f->rates[BENCH_KERNEL][round];
}

static int measure(const struct options *opt, const struct bench_setup *setup,
		   struct outcome *out)
{
	for (uint64_t round = 0; round < opt->rounds; round++) {
		for (size_t w = 0; w < WORKLOADS; w++) {
			if (!opt->chosen[w])
				continue;
			for (unsigned i = 0; i < BENCH_TARGETS; i++) {
				struct bench_result res = { 0 };
				struct bench_run run = {
					.setup = setup,
					.target = (i + round) % BENCH_TARGETS,
					.kind = all[w].kind,
					.in_thread = all[w].in_thread,
					.seed = round + 1,
				};

				progress(opt, round, &all[w], run.target);
				if (mkw__bench_run(&run, &res))
					return -1;
				out[w].touches.rates[run.target][round] =
					(double)res.touches * 1e9 /
					(double)res.ns;
				if (res.sync_ns)
					out[w].syncs.rates[run.target][round] =
						1e9 / (double)res.sync_ns;
				if (res.peak_bytes > out[w].peak[run.target])
					out[w].peak[run.target] =
						res.peak_bytes;
			}
			set_ratio(&out[w].touches, round);
			set_ratio(&out[w].syncs, round);
		}
	}
	return 0;
}

/* ---- report ----------------------------------------------------------- */

static void print_head(const struct options *opt,
		       const struct bench_setup *setup,
		       const struct bench_machine *m, int cap_version,
		       const char *no_cap)
{
	printf("%s\n", opt->command);
	printf("machine  %s, %ld CPUs of %s\n", m->kernel, m->cpus, m->cpu);
	printf("file     %llu MiB of random bytes on %s (%s)\n",
	       (unsigned long long)opt->file_mib, m->filesystem, m->device);
	if (!strncmp(m->device, "/dev/loop", 9))
		printf("         a loop device: what lies below it may be cached beyond any limit\n");
	if (cap_version)
		printf("memory   either process in a control group (version %d) of %llu MiB: cache %llu,\n"
		       "         all else %llu; the kernel may use all of it for its page cache\n",
		       cap_version,
		       (unsigned long long)(setup->limit_bytes >> 20),
		       (unsigned long long)opt->cache_mib,
		       (unsigned long long)opt->overhead_mib);
	else
		printf("memory   the engine's cache %llu MiB; the kernel's page cache HAS NO LIMIT here\n"
		       "         (%s), so its numbers are those of more memory\n",
		       (unsigned long long)opt->cache_mib, no_cap);
	printf("rounds   %llu of %llu s a run, the order of the two alternating%s\n\n",
	       (unsigned long long)opt->rounds,
	       (unsigned long long)opt->seconds,
	       opt->rounds < FEW_ROUNDS ? "; too few to be quoted" : "");
}

static void print_row(const char *name, const struct figures *f, uint64_t rounds)
{
	double kernel, engine, ratio, min, max;

	kernel = median(f->rates[BENCH_KERNEL], rounds, &min, &max);
	engine = median(f->rates[BENCH_ENGINE], rounds, &min, &max);
	ratio = median(f->ratios, rounds, &min, &max);
	printf("%-21s %9.*f %9.*f  %7.2f µs %7.2f µs  %5.2f (%.2f..%.2f)", name,
	       kernel < 100 ? 1 : 0, kernel, engine < 100 ? 1 : 0, engine,
	       1e6 / kernel, 1e6 / engine, ratio, min, max);
}

static void print_table(const struct options *opt, const struct outcome *out)
{
	printf("%-21s %9s %9s  %10s %10s  %5s %s\n", "", "kernel/s", "engine/s",
	       "kernel", "engine", "ratio", "(min..max)");
	for (size_t w = 0; w < WORKLOADS; w++) {
		if (!opt->chosen[w])
			continue;
		print_row(all[w].name, &out[w].touches, opt->rounds);
		if (out[w].peak[BENCH_ENGINE])
			printf("  peak %llu, %llu MiB",
			       (unsigned long long)out[w].peak[BENCH_KERNEL] >> 20,
			       (unsigned long long)out[w].peak[BENCH_ENGINE] >> 20);
		putchar('\n');
		if (out[w].syncs.rates[BENCH_ENGINE][0] > 0) {
			print_row("   its final sync", &out[w].syncs,
				  opt->rounds);
			putchar('\n');
		}
	}
	printf("\nPages of the file touched per second, and the time of one; ratio = engine /\n"
	       "kernel within a round, median of the rounds.\n");
}

static void json_string(FILE *f, const char *s)
{
	putc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putc('\\', f);
		if ((unsigned char)*s < ' ')
			fprintf(f, "\\u%04x", (unsigned)*s);
		else
			putc(*s, f);
	}
	putc('"', f);
}

static void json_list(FILE *f, const char *name, const double *values,
		      uint64_t n)
{
	fprintf(f, ", \"%s\": [", name);
	for (uint64_t i = 0; i < n; i++)
		fprintf(f, "%s%.6g", i ? ", " : "", values[i]);
	putc(']', f);
}

static void json_figures(FILE *f, const char *prefix, const struct figures *g,
			 uint64_t rounds)
{
	static const char *const names[] = { "kernel", "engine" };
	char name[40];

	for (unsigned t = 0; t < BENCH_TARGETS; t++) {
		snprintf(name, sizeof(name), "%s%s_per_second", prefix,
			 names[t]);
		json_list(f, name, g->rates[t], rounds);
	}
	snprintf(name, sizeof(name), "%sratios", prefix);
	json_list(f, name, g->ratios, rounds);
}

static int write_json(const struct options *opt,
		      const struct bench_setup *setup,
		      const struct bench_machine *m, const struct outcome *out)
{
	FILE *f = fopen(opt->json, "we");
	double min, max, ratio;
	bool first = true;

	if (!f)
		goto fail;
	fputs("{\"command\": ", f);
	json_string(f, opt->command);
	fputs(", \"version\": ", f);
	json_string(f, mkw_version());
	fputs(",\n \"kernel\": ", f);
	json_string(f, m->kernel);
	fputs(", \"cpu\": ", f);
	json_string(f, m->cpu);
	fprintf(f, ", \"cpus\": %ld, \"filesystem\": ", m->cpus);
	json_string(f, m->filesystem);
	fputs(", \"device\": ", f);
	json_string(f, m->device);
	fprintf(f,
		",\n \"file_bytes\": %llu, \"cache_bytes\": %llu, \"limit_bytes\": %llu, \"seconds\": %u,\n \"workloads\": [",
		(unsigned long long)setup->file_bytes,
		(unsigned long long)setup->cache_bytes,
		(unsigned long long)setup->limit_bytes, setup->seconds);
	for (size_t w = 0; w < WORKLOADS; w++) {
		if (!opt->chosen[w])
			continue;
		ratio = median(out[w].touches.ratios, opt->rounds, &min, &max);
		fprintf(f,
			"%s\n  {\"name\": \"%s\", \"ratio\": %.6g, \"ratio_min\": %.6g, \"ratio_max\": %.6g",
			first ? "" : ",", all[w].name, ratio, min, max);
		fprintf(f,
			", \"kernel_peak_bytes\": %llu, \"engine_peak_bytes\": %llu",
			(unsigned long long)out[w].peak[BENCH_KERNEL],
			(unsigned long long)out[w].peak[BENCH_ENGINE]);
		json_figures(f, "", &out[w].touches, opt->rounds);
		if (out[w].syncs.rates[BENCH_ENGINE][0] > 0)
			json_figures(f, "sync_", &out[w].syncs, opt->rounds);
		putc('}', f);
		first = false;
	}
	fputs("]}\n", f);
	if (!ferror(f) && !fclose(f))
		return 0;
fail:
	fprintf(stderr, "mkwrite bench: cannot write %s: %s\n", opt->json,
		strerror(errno));
	return -1;
}

static double *set_arrays(struct figures *f, double *next, uint64_t rounds)
{
	for (unsigned t = 0; t < BENCH_TARGETS; t++) {
		f->rates[t] = next;
		next += rounds;
	}
	f->ratios = next;
	return next + rounds;
}

int mkw__bench_main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };
	double *numbers = NULL, *next;
	struct outcome out[WORKLOADS] = { 0 };
	struct bench_machine machine;
	struct bench_setup setup;
	struct options opt;
	const char *no_cap;
	int status, version, fd;

	status = parse(argc, argv, &opt);
	if (status >= 0)
		return status;

	/* No SA_RESTART: a run in progress is to end at once. */
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);

	setup = (struct bench_setup){
		.page_size = (size_t)sysconf(_SC_PAGESIZE),
		.file_bytes = opt.file_mib << 20,
		.cache_bytes = opt.cache_mib << 20,
		.policy = opt.policy,
		.seconds = (unsigned)opt.seconds,
	};
	no_cap = mkw__bench_cap_probe(&version);
	if (version)
		setup.limit_bytes = (opt.cache_mib + opt.overhead_mib) << 20;

	fd = make_file(&opt, setup.page_size);
	if (fd < 0)
		return 2;
	setup.fd = fd;
	mkw__bench_machine(&machine, fd);
	print_head(&opt, &setup, &machine, version, no_cap);
	fflush(stdout);

	next = numbers = calloc(WORKLOADS * 6 * opt.rounds, sizeof(*numbers));
	if (!numbers)
		abort();
	for (size_t w = 0; w < WORKLOADS; w++) {
		next = set_arrays(&out[w].touches, next, opt.rounds);
		next = set_arrays(&out[w].syncs, next, opt.rounds);
	}

	status = measure(&opt, &setup, out) ? 1 : 0;
	progress_end();
	if (mkw__bench_signal)
		status = 128 + mkw__bench_signal;
	if (!status) {
		print_table(&opt, out);
		if (opt.json && write_json(&opt, &setup, &machine, out))
			status = 2;
	}
	free(numbers);
	close(fd);
	return status;
}
