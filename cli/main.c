/* SPDX-License-Identifier: MIT */
/*
 * main.c: the command `mkwrite`. It only finds the part that is asked for:
 *
 *   mkwrite check   the folder check/, in this program
 *   mkwrite bench   the folder bench/, in this program
 *   mkwrite sim     the program mkwrite-sim, since the simulator has a build of
 *                   the core of its own, with planted bugs to be switched on;
 *                   found beside this program, or where it was installed
 *
 * Exit status: that of the part; 2 when the command line is wrong.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "check/check.h"
#include "mkwrite/mkwrite.h"

static const char usage_text[] =
	"usage: mkwrite COMMAND [ARGUMENT...]\n"
	"\n"
	"  check   hammer one file from all sides and judge every word's history:\n"
	"          first the kernel's file system, then the engine\n"
	"  sim     run the engine on a simulated machine under seeded schedules\n"
	"  bench   time the engine's mappings against the kernel's\n"
	"\n"
	"  --help, --version\n"
	"\n"
	"mkwrite COMMAND --help says more. See also mkwrite(1).\n";

/*
 * Becomes mkwrite-sim. Returns only when there is none that runs, with the
 * exit status.
 */
static int exec_sim(char **argv)
{
	char self[PATH_MAX], beside[PATH_MAX + 16];
	const char *installed = MKW_LIBEXECDIR "/mkwrite-sim";
	char *slash;
	ssize_t n;

	beside[0] = '\0';
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash) {
			*slash = '\0';
			snprintf(beside, sizeof(beside), "%s/mkwrite-sim",
				 self);
		}
	}

	if (beside[0])
		execv(beside, argv);
	if (!beside[0] || errno == ENOENT)
		execv(installed, argv);
	fprintf(stderr,
		"mkwrite: sim needs the program mkwrite-sim, which was looked for as\n"
		"  %s\n  %s\n"
		"and could not be run: %s. It is built with mkwrite; install both.\n",
		beside, installed, strerror(errno));
	return 2;
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;

	if (!word) {
		fprintf(stderr, "mkwrite: a command is missing\n%s",
			usage_text);
		return 2;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
		fputs(usage_text, stdout);
		return 0;
	}
	if (!strcmp(word, "--version")) {
		printf("mkwrite %s\n", mkw_version());
		return 0;
	}
	if (!strcmp(word, "check")) {
		argv[1] = "mkwrite check";
		return mkw__check_main(argc - 1, argv + 1);
	}
	if (!strcmp(word, "bench")) {
		argv[1] = "mkwrite bench";
		return mkw__bench_main(argc - 1, argv + 1);
	}
	if (!strcmp(word, "sim")) {
		argv[1] = "mkwrite sim";
		return exec_sim(argv + 1);
	}
	fprintf(stderr,
		"mkwrite: \"%s\" is no command; check, sim, bench, --help and --version are\n%s",
		word, usage_text);
	return 2;
}
