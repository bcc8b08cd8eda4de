/* SPDX-License-Identifier: MIT */
/*
 * options.h: the command line of mkwrite check.
 */
#ifndef MKW_CHECK_OPTIONS_H
#define MKW_CHECK_OPTIONS_H

#include "check/windows/window.h"

enum { EXIT_CLEAN = 0, EXIT_ANOMALY = 1, EXIT_USAGE = 2 };

#define FS_MAX 8

struct options {
	struct check_config cfg;
	const struct target_ops *target;	/* only this one; NULL: all */
	const char *json, *junit, *html, *bundle;
	/* File systems to be made, rather than a directory. */
	char fs_names[128];
	const char *fs[FS_MAX];
	unsigned n_fs;
	/* Which windows: bits of mkw__windows[]. */
	uint64_t windows;
	bool random;
	bool fail_on_kernel;
	bool list;
	bool bundled;		/* it has been done */
};

/*
 * EXIT_CLEAN to go on, or the exit status, having said why; -1: --help was given
 * and answered.
 */
int mkw__check_parse(int argc, char **argv, struct options *o);

#endif /* MKW_CHECK_OPTIONS_H */
