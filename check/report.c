/* SPDX-License-Identifier: MIT */
/*
 * report.c: the results as a table for people, and as JSON for programs.
 *
 * The table has a row for each class and a column for each target. Colours only
 * on a terminal. Below it stand the first example of every class that was seen,
 * and what was skipped.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check/check.h"

#define ROW_WIDTH 22
#define COLUMN_WIDTH 30

const char *mkw__check_class_name(enum check_class class)
{
	static const char *const names[CHECK_CLASSES] = {
		[CHECK_LOST_STORE] = "lost store",
		[CHECK_LOST_WRITE] = "lost buffered write",
		[CHECK_LOST_DIRECT_WRITE] = "lost direct write",
		[CHECK_STALE_READ] = "stale read",
		[CHECK_RESURRECTED] = "resurrected data",
		[CHECK_NEVER_WRITTEN] = "value never written",
		[CHECK_PAST_END] = "bytes past the end",
		[CHECK_SPURIOUS_ERROR] = "spurious error",
		[CHECK_NO_PROGRESS] = "no progress",
		[CHECK_TORN] = "torn",
	};

	return names[class];
}

const char *mkw__check_op_name(enum op_kind kind)
{
	static const char *const names[OP_KINDS] = {
		[OP_LOAD] = "load",
		[OP_STORE] = "store",
		[OP_READ] = "read",
		[OP_WRITE] = "write",
		[OP_DIRECT_READ] = "direct read",
		[OP_DIRECT_WRITE] = "direct write",
		[OP_PUNCH] = "punch",
		[OP_ZERO] = "zero",
		[OP_TRUNCATE] = "truncate",
		[OP_SYNC] = "sync",
	};

	return names[kind];
}

static bool is_failure(const struct check_result *res, enum check_class class)
{
	return class != CHECK_TORN || res->atomic;
}

bool mkw__check_clean(const struct check_result *res)
{
	for (unsigned i = 0; i < CHECK_CLASSES; i++)
		if (res->classes[i].count &&
		    is_failure(res, (enum check_class)i))
			return false;
	return true;
}

static uint64_t total_ops(const struct check_result *res)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < OP_KINDS; i++)
		n += res->ops[i];
	return n;
}

static double per_second(const struct check_result *res, uint64_t n)
{
	return res->hammer_ns ? (double)n * 1e9 / (double)res->hammer_ns : 0;
}

/* Operations that the class's count is a part of; 0: no such number. */
static uint64_t out_of(const struct check_result *res, enum check_class class)
{
	switch (class) {
	case CHECK_LOST_STORE:
		return res->ops[OP_STORE];
	case CHECK_LOST_WRITE:
		return res->ops[OP_WRITE];
	case CHECK_LOST_DIRECT_WRITE:
		return res->ops[OP_DIRECT_WRITE];
	case CHECK_STALE_READ:
		return res->ops[OP_LOAD] + res->ops[OP_READ] +
		       res->ops[OP_DIRECT_READ];
	case CHECK_RESURRECTED:
		return res->ops[OP_PUNCH] + res->ops[OP_ZERO] +
		       res->ops[OP_TRUNCATE];
	case CHECK_TORN:
		return res->ops[OP_READ] + res->ops[OP_DIRECT_READ];
	default:
		return 0;
	}
}

static void print_cell(const char *text, const char *colour)
{
	bool on = colour && isatty(STDOUT_FILENO);

	printf("  %s%-*s%s", on ? colour : "", COLUMN_WIDTH, text,
	       on ? "\033[0m" : "");
}

static void print_class(const struct check_result *res, enum check_class class)
{
	const struct check_count *c = &res->classes[class];
	uint64_t whole = out_of(res, class);
	char text[80];

	if (!c->count) {
		print_cell("-", NULL);
		return;
	}
	if (whole)
		snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64
			 ", first %.2f s", c->count, whole,
			 (double)c->first_ns / 1e9);
	else
		snprintf(text, sizeof(text), "%" PRIu64 ", first %.2f s",
			 c->count, (double)c->first_ns / 1e9);
	print_cell(text, is_failure(res, class) ? "\033[31m" : "\033[33m");
}

static void print_numbers(const char *row, const struct check_result *res,
			  unsigned n, uint64_t (*get)(const struct check_result *))
{
	char text[80];

	printf("%-*s", ROW_WIDTH, row);
	for (unsigned i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "%" PRIu64, get(&res[i]));
		print_cell(text, NULL);
	}
	printf("\n");
}

static uint64_t ops_per_second(const struct check_result *res)
{
	return (uint64_t)per_second(res, total_ops(res));
}

static uint64_t direct_writes(const struct check_result *res)
{
	return res->ops[OP_DIRECT_WRITE];
}

static void print_notes(const struct check_result *res)
{
	const char *line = res->notes;
	size_t len;

	for (; *line; line += len + (line[len] == '\n')) {
		len = strcspn(line, "\n");
		printf("%s: %.*s\n", res->label, (int)len, line);
	}
}

void mkw__check_print(const struct check_result *res, unsigned n)
{
	printf("%-*s", ROW_WIDTH, "");
	for (unsigned i = 0; i < n; i++)
		print_cell(res[i].label, "\033[1m");
	printf("\n");
	for (unsigned c = 0; c < CHECK_CLASSES; c++) {
		printf("%-*s", ROW_WIDTH,
		       mkw__check_class_name((enum check_class)c));
		for (unsigned i = 0; i < n; i++)
			print_class(&res[i], (enum check_class)c);
		printf("\n");
	}
	print_numbers("operations", res, n, total_ops);
	print_numbers("  per second", res, n, ops_per_second);
	print_numbers("  direct writes", res, n, direct_writes);
	printf("%-*s", ROW_WIDTH, "verdict");
	for (unsigned i = 0; i < n; i++) {
		bool clean = mkw__check_clean(&res[i]);

		print_cell(clean ? "clean" : "not clean",
			   clean ? "\033[32m" : "\033[31m");
	}
	printf("\n");
	for (unsigned i = 0; i < n; i++) {
		printf("\n");
		for (unsigned c = 0; c < CHECK_CLASSES; c++)
			if (res[i].classes[c].count)
				printf("%s: %s: %s%s\n", res[i].label,
				       mkw__check_class_name((enum check_class)c),
				       res[i].classes[c].example,
				       is_failure(&res[i], (enum check_class)c) ?
					       "" : " (not counted as a failure)");
		print_notes(&res[i]);
		if (res[i].interrupted)
			printf("%s: interrupted after %.1f s\n", res[i].label,
			       (double)res[i].wall_ns / 1e9);
	}
}

/* ---- JSON ------------------------------------------------------------------ */

static void json_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < ' ')
			fprintf(f, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, f);
	}
	fputc('"', f);
}

static void json_target(FILE *f, const struct check_result *res)
{
	fprintf(f, "    {\n      \"target\": ");
	json_string(f, res->label);
	fprintf(f, ",\n      \"clean\": %s,\n      \"interrupted\": %s,\n"
		"      \"operations\": %" PRIu64 ",\n"
		"      \"operations_per_second\": %.0f,\n"
		"      \"hammering_seconds\": %.3f,\n"
		"      \"wall_seconds\": %.3f,\n"
		"      \"rounds\": %u,\n      \"operations_by_kind\": {",
		mkw__check_clean(res) ? "true" : "false",
		res->interrupted ? "true" : "false", total_ops(res),
		per_second(res, total_ops(res)), (double)res->hammer_ns / 1e9,
		(double)res->wall_ns / 1e9, res->epochs);
	for (unsigned i = 0; i < OP_KINDS; i++) {
		fprintf(f, "%s\n        ", i ? "," : "");
		json_string(f, mkw__check_op_name((enum op_kind)i));
		fprintf(f, ": %" PRIu64, res->ops[i]);
	}
	fprintf(f, "\n      },\n      \"classes\": {");
	for (unsigned i = 0; i < CHECK_CLASSES; i++) {
		const struct check_count *c = &res->classes[i];

		fprintf(f, "%s\n        ", i ? "," : "");
		json_string(f, mkw__check_class_name((enum check_class)i));
		fprintf(f, ": { \"count\": %" PRIu64 ", \"failure\": %s",
			c->count,
			is_failure(res, (enum check_class)i) ? "true" : "false");
		if (c->count) {
			fprintf(f, ", \"first_seconds\": %.6f, \"example\": ",
				(double)c->first_ns / 1e9);
			json_string(f, c->example);
		}
		fprintf(f, " }");
	}
	fprintf(f, "\n      },\n      \"notes\": ");
	json_string(f, res->notes);
	fprintf(f, "\n    }");
}

int mkw__check_write_json(const char *path, const struct check_config *cfg,
			  const struct check_result *res, unsigned n)
{
	FILE *f = fopen(path, "we");
	int err = 0;

	if (!f)
		return -errno;
	fprintf(f, "{\n  \"version\": ");
	json_string(f, mkw_version());
	fprintf(f, ",\n  \"dir\": ");
	json_string(f, cfg->dir);
	fprintf(f, ",\n  \"seconds\": %g,\n  \"threads\": %u,\n"
		"  \"seed\": %" PRIu64 ",\n  \"targets\": [\n",
		cfg->seconds, cfg->threads, cfg->seed);
	for (unsigned i = 0; i < n; i++) {
		json_target(f, &res[i]);
		fprintf(f, "%s\n", i + 1 < n ? "," : "");
	}
	fprintf(f, "  ]\n}\n");
	if (ferror(f))
		err = -EIO;
	if (fclose(f) && !err)
		err = -errno;
	return err;
}
