/* SPDX-License-Identifier: MIT */
/*
 * report.h: results, for people and for programs.
 */
#ifndef MKW_CHECK_REPORT_H
#define MKW_CHECK_REPORT_H

#include "check/evidence.h"
#include "check/options.h"

/* What is known of one target. */
struct column {
	char label[48];
	bool atomic;
	bool engine;
	struct win_result *wins;
	unsigned n_wins;
	bool has_random;
	struct check_result random;
	struct evidence evidence;
	char mount[256];	/* the file system, its device and options */
	char error[512];	/* why there is no more */
};

/* Nothing in it that counts as a failure? */
bool mkw__column_clean(const struct column *c, const struct options *o);
/* Was there anything that was not skipped? */
bool mkw__column_checked(const struct column *c);

void mkw__check_list(void);
void mkw__check_print(const struct column *cols, unsigned n,
		      const struct options *o);
/* 0 or a negative errno. */
int mkw__check_write_json(const char *path, const struct column *cols,
			  unsigned n, const struct options *o);
int mkw__check_write_junit(const char *path, const struct column *cols,
			   unsigned n, const struct options *o);

#endif /* MKW_CHECK_REPORT_H */
