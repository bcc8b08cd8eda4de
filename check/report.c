/* SPDX-License-Identifier: MIT */
/*
 * report.c: the results as a table for people.
 *
 * A row for each window and each class, a column for each target. Colours only
 * on a terminal. Below it stand the evidence of each window that is not coherent,
 * with what a maintainer can do; the first example of every class that was seen;
 * and what was skipped.
 */
#include "check/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RED "\033[31m"
#define YELLOW "\033[33m"
#define GREEN "\033[32m"
#define BOLD "\033[1m"
#define FAINT "\033[2m"
#define CELL 64

struct cell {
	char text[CELL];
	const char *colour;
};

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
		[CHECK_STRAY] = "stray size or blocks",
		[CHECK_TORN] = "torn",
		[CHECK_NOT_DENIED] = "access not denied",
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
		[OP_ALLOCATE] = "allocate",
		[OP_DISTURB] = "cache advice",
		[OP_SHIFT] = "collapse or insert",
		[OP_REMAP] = "change of mappings",
	};

	return names[kind];
}

bool mkw__check_failure(enum check_class class, const struct check_config *cfg,
			bool atomic)
{
	switch (class) {
	case CHECK_TORN:
		return atomic || cfg->strict;
	case CHECK_SPURIOUS_ERROR:
		return !cfg->allow_errors;
	default:
		return true;
	}
}

bool mkw__column_clean(const struct column *c, const struct options *o)
{
	for (unsigned i = 0; i < c->n_wins; i++)
		if (mkw__win_failure(&c->wins[i], &o->cfg, c->atomic))
			return false;
	for (unsigned i = 0; i < CHECK_CLASSES && c->has_random; i++)
		if (c->random.classes[i].count &&
		    mkw__check_failure((enum check_class)i, &o->cfg, c->atomic))
			return false;
	return true;
}

/* ---- cells ------------------------------------------------------------------ */

static uint64_t total_ops(const struct check_result *res)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < OP_KINDS; i++)
		n += res->ops[i];
	return n;
}

bool mkw__column_checked(const struct column *c)
{
	for (unsigned i = 0; i < c->n_wins; i++)
		if (c->wins[i].verdict != WIN_SKIPPED)
			return true;
	return c->has_random && total_ops(&c->random);
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
	case CHECK_NOT_DENIED:
		return res->ops[OP_LOAD] + res->ops[OP_STORE];
	case CHECK_TORN:
		return res->ops[OP_READ] + res->ops[OP_DIRECT_READ];
	default:
		return 0;
	}
}

static const char *blame(bool failure)
{
	return failure ? RED : YELLOW;
}

static struct cell class_cell(const struct column *col, enum check_class class,
			      const struct options *o)
{
	const struct check_count *c = &col->random.classes[class];
	uint64_t whole = out_of(&col->random, class);
	struct cell cell = { "", NULL };

	if (!col->has_random || !c->count) {
		strcpy(cell.text, col->has_random ? "-" : "");
		return cell;
	}
	snprintf(cell.text, CELL, whole ? "%" PRIu64 " of %" PRIu64 ", %.2f s" :
					  "%" PRIu64 "%.0" PRIu64 ", %.2f s",
		 c->count, whole, (double)c->first_ns / 1e9);
	cell.colour = blame(mkw__check_failure(class, &o->cfg, col->atomic));
	return cell;
}

static const struct win_result *find_win(const struct column *col,
					 const struct window *w)
{
	for (unsigned i = 0; i < col->n_wins; i++)
		if (col->wins[i].window == w)
			return &col->wins[i];
	return NULL;
}

static struct cell window_cell(const struct column *col, const struct window *w,
			       const struct options *o)
{
	const struct win_result *res = find_win(col, w);
	struct cell cell = { "", NULL };

	if (!res)
		return cell;
	strcpy(cell.text, mkw__win_verdict_name(res->verdict));
	switch (res->verdict) {
	case WIN_COHERENT:
		cell.colour = GREEN;
		break;
	case WIN_EXCLUDED:
		cell.colour = GREEN;
		break;
	case WIN_SKIPPED:
		cell.colour = FAINT;
		break;
	default:
		cell.colour = blame(mkw__win_failure(res, &o->cfg,
						     col->atomic));
	}
	return cell;
}

/* ---- rows -------------------------------------------------------------------- */

enum row_kind { ROW_WINDOW, ROW_CLASS, ROW_OPS, ROW_RATE, ROW_DIRECT,
		ROW_VERDICT };

struct row {
	const char *name;
	enum row_kind kind;
	unsigned index;
};

static struct cell make_cell(const struct row *row, const struct column *col,
			     const struct options *o)
{
	const struct check_result *res = &col->random;
	struct cell cell = { "", NULL };
	uint64_t n = 0;
	bool clean, checked;

	switch (row->kind) {
	case ROW_WINDOW:
		return window_cell(col, &mkw__windows[row->index], o);
	case ROW_CLASS:
		return class_cell(col, (enum check_class)row->index, o);
	case ROW_OPS:
		n = total_ops(res);
		break;
	case ROW_RATE:
		n = res->hammer_ns ? (uint64_t)((double)total_ops(res) * 1e9 /
						(double)res->hammer_ns) : 0;
		break;
	case ROW_DIRECT:
		n = res->ops[OP_DIRECT_WRITE];
		break;
	case ROW_VERDICT:
		clean = mkw__column_clean(col, o);
		checked = mkw__column_checked(col);
		cell.colour = clean && checked ? GREEN : RED;
		strcpy(cell.text, !checked ? "not checked" :
				  clean ? "clean" : "not clean");
		return cell;
	}
	if (col->has_random)
		snprintf(cell.text, CELL, "%" PRIu64, n);
	return cell;
}

#define ROWS_MAX 100

static unsigned make_rows(struct row *rows, const struct options *o, bool random)
{
	unsigned n = 0;

	for (unsigned i = 0; mkw__windows[i].name; i++)
		if (o->windows >> i & 1)
			rows[n++] = (struct row){ mkw__windows[i].name,
						  ROW_WINDOW, i };
	for (unsigned i = 0; i < CHECK_CLASSES && random; i++)
		rows[n++] = (struct row){
			mkw__check_class_name((enum check_class)i), ROW_CLASS,
			i };
	if (random) {
		rows[n++] = (struct row){ "operations", ROW_OPS, 0 };
		rows[n++] = (struct row){ "  per second", ROW_RATE, 0 };
		rows[n++] = (struct row){ "  direct writes", ROW_DIRECT, 0 };
	}
	rows[n++] = (struct row){ "verdict", ROW_VERDICT, 0 };
	return n;
}

static void print_cell(const char *text, int width, const char *colour)
{
	bool on = colour && *text && isatty(STDOUT_FILENO);

	printf("  %s%-*s%s", on ? colour : "", width, text, on ? "\033[0m" : "");
}

static void print_table(const struct column *cols, unsigned n,
			const struct options *o)
{
	struct row rows[ROWS_MAX];
	unsigned n_rows;
	int first = 0, width[32] = { 0 };
	bool random = false;

	for (unsigned i = 0; i < n; i++) {
		width[i] = (int)strlen(cols[i].label);
		random |= cols[i].has_random;
	}
	n_rows = make_rows(rows, o, random);
	for (unsigned r = 0; r < n_rows; r++) {
		if ((int)strlen(rows[r].name) > first)
			first = (int)strlen(rows[r].name);
		for (unsigned i = 0; i < n; i++) {
			struct cell cell = make_cell(&rows[r], &cols[i], o);

			if ((int)strlen(cell.text) > width[i])
				width[i] = (int)strlen(cell.text);
		}
	}
	printf("%-*s", first, "");
	for (unsigned i = 0; i < n; i++)
		print_cell(cols[i].label, width[i], BOLD);
	printf("\n");
	for (unsigned r = 0; r < n_rows; r++) {
		printf("%-*s", first, rows[r].name);
		for (unsigned i = 0; i < n; i++) {
			struct cell cell = make_cell(&rows[r], &cols[i], o);

			print_cell(cell.text, width[i], cell.colour);
		}
		printf("\n");
	}
}

/* ---- what is below it ---------------------------------------------------------- */

static void print_windows(const struct column *col, const struct options *o)
{
	const char *last = "", *advice = "";

	for (unsigned i = 0; i < col->n_wins; i++) {
		const struct win_result *res = &col->wins[i];
		bool failure = mkw__win_failure(res, &o->cfg,
						col->atomic);

		switch (res->verdict) {
		case WIN_COHERENT:
		case WIN_EXCLUDED:
			break;
		case WIN_SKIPPED:
			/* Many have the same reason. */
			if (strcmp(res->evidence, last))
				printf("%s: %s: skipped: %s\n",
				       col->label, res->window->name,
				       res->evidence);
			last = res->evidence;
			break;
		default:
			printf("%s: %s: %s: %s%s\n", col->label,
			       res->window->name,
			       mkw__win_verdict_name(res->verdict),
			       res->evidence,
			       failure ? "" : " (not counted as a failure)");
			if (strcmp(res->window->advice, advice))
				printf("    %s\n", res->window->advice);
			advice = res->window->advice;
		}
	}
}

static void print_notes(const struct column *col)
{
	const char *line = col->random.notes;
	size_t len;

	for (; *line; line += len + (line[len] == '\n')) {
		len = strcspn(line, "\n");
		printf("%s: %.*s\n", col->label, (int)len, line);
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of --measure-recording. */
static void print_shares(const struct column *col)
{
	double v[CHECK_PAIRS_MAX];
	unsigned n = col->random.pairs;
	double judging_ns = (double)col->random.judging_ns + 1;

	if (!n)
		return;
	memcpy(v, col->random.recorded_share, n * sizeof(*v));
	qsort(v, n, sizeof(*v), compare);
	printf("%s: speed with recording to speed without, median of %u "
	       "alternating rounds: %.3f (quartiles %.3f..%.3f)\n", col->label, n,
	       v[n / 2], v[n / 4], v[n * 3 / 4]);
	printf("%s: judged: %.1f million words, of %.1f million operations, a second "
	       "of processor time\n", col->label,
	       1e3 * (double)col->random.judged_words / judging_ns,
	       1e3 * (double)col->random.judged / judging_ns);
}

static void print_random(const struct column *col, const struct options *o)
{
	const struct check_result *res = &col->random;

	for (unsigned c = 0; c < CHECK_CLASSES; c++)
		if (res->classes[c].count)
			printf("%s: %s: %s%s\n", col->label,
			       mkw__check_class_name((enum check_class)c),
			       res->classes[c].example,
			       mkw__check_failure((enum check_class)c, &o->cfg,
						  col->atomic) ?
				       "" : " (not counted as a failure)");
	print_notes(col);
	print_shares(col);
	if (res->interrupted)
		printf("%s: interrupted after %.1f s\n", col->label,
		       (double)res->wall_ns / 1e9);
}

void mkw__check_print(const struct column *cols, unsigned n,
		      const struct options *o)
{
	print_table(cols, n, o);
	for (unsigned i = 0; i < n; i++) {
		printf("\n");
		print_windows(&cols[i], o);
		if (cols[i].has_random)
			print_random(&cols[i], o);
	}
}

void mkw__check_list(void)
{
	for (const struct window *w = mkw__windows; w->name; w++)
		printf("%-28s %s%s\n", w->name, w->what,
		       w->lever ? " (needs userfaultfd or FUSE)" :
		       w->slow ? " (needs root, FUSE, a loop device)" : "");
}
