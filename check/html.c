/* SPDX-License-Identifier: MIT */
/*
 * html.c: the results as one page that needs nothing else: no network, no script.
 *
 * The table; for each target that has an anomaly with a history a picture of it, a
 * lane for each thread, time to scale, with values and numbers as a hover text;
 * and the offending word's own history as a table. It follows the reader's
 * dark mode, and fits a phone: wide parts scroll by themselves.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "check/evidence.h"
#include "check/report.h"

#define LEFT 90			/* of the lanes, for their names */
#define WIDTH 1100
#define LANE 34

static void text(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '&')
			fputs("&amp;", f);
		else if (*s == '"')
			fputs("&quot;", f);
		else
			fputc(*s, f);
	}
}

static void head(FILE *f)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width, "
	      "initial-scale=1\">\n<title>mkwrite check</title>\n<style>\n"
	      ":root { color-scheme: light dark; --bg: #fff; --fg: #1a1a1a; --line: #ccc; --faint: #777;\n"
	      "  --bad: #c0182b; --warn: #9a6700; --good: #1a7f37; --write: #4c78a8;\n"
	      "  --direct: #e0712c; --store: #54a24b; --take: #b279a2; --read: #9d9da1; }\n"
	      "@media (prefers-color-scheme: dark) { :root { --bg: #16181d;\n"
	      "  --fg: #e6e6e6; --line: #444; --faint: #999; --bad: #ff7b72;\n"
	      "  --warn: #d8a657; --good: #6cc070; } }\n"
	      "body { background: var(--bg); color: var(--fg); margin: 1rem;\n"
	      "  font: 15px/1.45 system-ui, sans-serif; }\n"
	      "h1 { font-size: 1.3rem } h2 { font-size: 1.1rem; margin-top: 2rem }\n"
	      ".wide { overflow-x: auto; }\n"
	      "table { border-collapse: collapse; font-size: 0.9rem; }\n"
	      "td, th { border-bottom: 1px solid var(--line); padding: 0.2rem 0.8rem\n"
	      "  0.2rem 0; text-align: left; white-space: nowrap; }\n"
	      ".bad { color: var(--bad); font-weight: 600 } .warn { color: var(--warn) }\n"
	      ".good { color: var(--good) } .faint { color: var(--faint) }\n"
	      "svg { min-width: 700px; width: 100%; height: auto; }\n"
	      "svg text { fill: var(--fg); font: 12px system-ui, sans-serif; }\n"
	      ".lane { stroke: var(--line); } .culprit { stroke: var(--bad);\n"
	      "  stroke-width: 3 } .witness { stroke: var(--warn); stroke-width: 3 }\n"
	      ".k1 { fill: var(--store) } .k3 { fill: var(--write) }\n"
	      ".k5 { fill: var(--direct) } .k6, .k7, .k8 { fill: var(--take) }\n"
	      ".k0, .k2, .k4, .k9, .k10, .k11 { fill: var(--read) }\n"
	      "code { overflow-wrap: anywhere }\n"
	      "</style></head><body>\n", f);
}

static void environment(FILE *f, const struct options *o)
{
	struct utsname u;
	char when[64];
	time_t now = time(NULL);
	struct tm tm;

	uname(&u);
	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M UTC", &tm);
	fputs("<h1>mkwrite check</h1>\n<p>", f);
	fprintf(f, "%s %s %s, %s. ", u.sysname, u.release, u.machine, when);
	fprintf(f, "%u threads, %g s a target, seed %" PRIu64 ".",
		o->cfg.threads, o->cfg.seconds, o->cfg.seed);
	fprintf(f, "</p>\n");
}

static const char *window_style(const struct win_result *w, bool failure)
{
	switch (w->verdict) {
	case WIN_COHERENT:
	case WIN_EXCLUDED:
		return "good";
	case WIN_SKIPPED:
		return "faint";
	default:
		return failure ? "bad" : "warn";
	}
}

static void cell(FILE *f, const char *style, const char *what, const char *why)
{
	fprintf(f, "<td class=\"%s\" title=\"", style);
	text(f, why);
	fprintf(f, "\">");
	text(f, what);
	fprintf(f, "</td>");
}

static void window_rows(FILE *f, const struct column *cols, unsigned n,
			const struct options *o)
{
	for (const struct window *w = mkw__windows; w->name; w++) {
		if (!(o->windows >> (w - mkw__windows) & 1))
			continue;
		fprintf(f, "<tr><th title=\"");
		text(f, w->what);
		fprintf(f, "\">%s</th>", w->name);
		for (unsigned i = 0; i < n; i++) {
			const struct win_result *res = NULL;

			for (unsigned k = 0; k < cols[i].n_wins; k++)
				if (cols[i].wins[k].window == w)
					res = &cols[i].wins[k];
			if (!res) {
				fprintf(f, "<td></td>");
				continue;
			}
			cell(f, window_style(res, mkw__win_failure(res, &o->cfg,
							cols[i].atomic)),
			     mkw__win_verdict_name(res->verdict), res->evidence);
		}
		fprintf(f, "</tr>\n");
	}
}

static void class_rows(FILE *f, const struct column *cols, unsigned n,
		       const struct options *o)
{
	for (unsigned c = 0; c < CHECK_CLASSES && o->random; c++) {
		fprintf(f, "<tr><th>%s</th>",
			mkw__check_class_name((enum check_class)c));
		for (unsigned i = 0; i < n; i++) {
			const struct check_count *count =
				&cols[i].random.classes[c];
			bool failure = mkw__check_failure((enum check_class)c,
							  &o->cfg,
							  cols[i].atomic);
			char number[40];

			snprintf(number, sizeof(number), "%" PRIu64,
				 count->count);
			cell(f, !count->count ? "good" : failure ? "bad" : "warn",
			     count->count ? number : "-",
			     count->count ? count->example : "");
		}
		fprintf(f, "</tr>\n");
	}
}

static void table(FILE *f, const struct column *cols, unsigned n,
		  const struct options *o)
{
	fputs("<div class=\"wide\"><table>\n<tr><th></th>", f);
	for (unsigned i = 0; i < n; i++) {
		fprintf(f, "<th>");
		text(f, cols[i].label);
		fprintf(f, "</th>");
	}
	fprintf(f, "</tr>\n");
	window_rows(f, cols, n, o);
	class_rows(f, cols, n, o);
	fprintf(f, "</table></div>\n");
}

/* What the hover texts say, for whoever has nothing to hover with. */
static void details(FILE *f, const struct column *cols, unsigned n,
		    const struct options *o)
{
	fputs("<details><summary>Evidence</summary>\n", f);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < cols[i].n_wins; k++) {
			const struct win_result *w = &cols[i].wins[k];

			if (w->verdict == WIN_COHERENT ||
			    w->verdict == WIN_EXCLUDED)
				continue;
			fprintf(f, "<p><b>");
			text(f, cols[i].label);
			fprintf(f, ": %s: <span class=\"%s\">%s</span></b>: ",
				w->window->name,
				window_style(w, mkw__win_failure(w, &o->cfg,
							cols[i].atomic)),
				mkw__win_verdict_name(w->verdict));
			text(f, w->evidence);
			if (w->verdict != WIN_SKIPPED) {
				fputs(". ", f);
				text(f, w->window->advice);
			}
			fputs("</p>\n", f);
		}
		for (unsigned c = 0; c < CHECK_CLASSES; c++) {
			if (!cols[i].random.classes[c].count)
				continue;
			fprintf(f, "<p><b>");
			text(f, cols[i].label);
			fprintf(f, ": %s</b>: ",
				mkw__check_class_name((enum check_class)c));
			text(f, cols[i].random.classes[c].example);
			fputs("</p>\n", f);
		}
	}
	fputs("</details>\n", f);
}

/* ---- the picture --------------------------------------------------------------- */

static void op_title(FILE *f, const struct evidence *ev,
		     const struct evidence_op *op)
{
	const struct rec *r = &op->rec;

	fprintf(f, "<title>%s of %zu bytes at %zu, thread %u, %.3f-%.3f us%s",
		mkw__check_op_name((enum op_kind)r->kind), r->words * WORD,
		r->word * WORD, r->thread, (double)(r->start - ev->began) / 1e3,
		(double)(r->end - ev->began) / 1e3,
		r->outcome == REC_FAILED ? ", failed" : "");
	if (op->touches && op->knows)
		fprintf(f, "; the word: %#" PRIx64, op->value);
	fprintf(f, "</title>");
}

/* Lanes in the order of threads; returns how many. 64: the thread has none. */
static unsigned assign_lanes(const struct evidence *ev, unsigned lane_of[64])
{
	unsigned lanes = 0;
	uint64_t threads = 0;

	for (unsigned i = 0; i < ev->n; i++)
		threads |= UINT64_C(1) << (ev->ops[i].rec.thread & 63);
	for (unsigned t = 0; t < 64; t++)
		lane_of[t] = threads >> t & 1 ? lanes++ : 64;
	return lanes;
}

static void picture(FILE *f, const struct evidence *ev)
{
	uint64_t from = UINT64_MAX, to = 0;
	unsigned lane_of[64], lanes = assign_lanes(ev, lane_of);
	double scale;

	if (!ev->n)
		return;
	/* What goes on after the witness is cut off. */
	for (unsigned i = 0; i < ev->n; i++) {
		const struct rec *r = &ev->ops[i].rec;

		from = r->start < from ? r->start : from;
		if (ev->ops[i].witness)
			to = r->end;
	}
	to += (to - from) / 10;
	scale = (double)(WIDTH - LEFT - 10) / (double)(to - from + 1);
	fprintf(f, "<div class=\"wide\"><svg viewBox=\"0 0 %d %u\" "
		"role=\"img\" aria-label=\"operations of each thread\">\n",
		WIDTH, lanes * LANE + 30);
	for (unsigned t = 0; t < 64; t++)
		if (lane_of[t] < 64)
			fprintf(f, "<text x=\"0\" y=\"%u\">thread %u</text>"
				"<line class=\"lane\" x1=\"%d\" x2=\"%d\" y1=\"%u\" "
				"y2=\"%u\"/>\n", lane_of[t] * LANE + 20, t, LEFT,
				WIDTH, (lane_of[t] + 1) * LANE,
				(lane_of[t] + 1) * LANE);
	for (unsigned i = 0; i < ev->n; i++) {
		const struct evidence_op *op = &ev->ops[i];
		const struct rec *r = &op->rec;
		uint64_t end = r->end < to ? r->end : to;
		double w = (double)(end - r->start) * scale;

		fprintf(f, "<rect class=\"k%u%s\" x=\"%.1f\" y=\"%u\" "
			"width=\"%.1f\" height=\"%d\" fill-opacity=\"%s\">",
			r->kind, op->culprit ? " culprit" :
				 op->witness ? " witness" : "",
			LEFT + (double)(r->start - from) * scale,
			lane_of[r->thread & 63] * LANE + 5, w < 2 ? 2 : w,
			LANE - 12, op->touches ? "1" : "0.35");
		op_title(f, ev, op);
		fprintf(f, "</rect>\n");
	}
	fprintf(f, "<text x=\"%d\" y=\"%u\">%.1f us</text><text x=\"%d\" y=\"%u\">"
		"%.1f us</text></svg></div>\n", LEFT, lanes * LANE + 20,
		(double)(from - ev->began) / 1e3, WIDTH - 90,
		lanes * LANE + 20, (double)(to - ev->began) / 1e3);
}

static void word_history(FILE *f, const struct evidence *ev)
{
	fprintf(f, "<h3>The word at byte %zu</h3><div class=\"wide\"><table>"
		"<tr><th>us</th><th>thread</th><th>operation</th><th>bytes</th>"
		"<th>value</th><th></th></tr>\n", ev->word * WORD);
	for (unsigned i = 0; i < ev->n; i++) {
		const struct evidence_op *op = &ev->ops[i];

		if (!op->touches)
			continue;
		fprintf(f, "<tr><td>%.3f - %.3f</td><td>%u</td><td>%s</td>"
			"<td>%zu at %zu</td><td><code>",
			(double)(op->rec.start - ev->began) / 1e3,
			(double)(op->rec.end - ev->began) / 1e3, op->rec.thread,
			mkw__check_op_name((enum op_kind)op->rec.kind),
			op->rec.words * WORD, op->rec.word * WORD);
		if (op->knows)
			fprintf(f, "%#" PRIx64, op->value);
		fprintf(f, "</code></td><td class=\"bad\">%s</td></tr>\n",
			op->culprit ? "this one is gone" :
			op->witness ? "this shows it" : "");
	}
	fprintf(f, "</table></div>\n");
}

int mkw__check_write_html(const char *path, const struct column *cols,
			  unsigned n, const struct options *o)
{
	FILE *f = fopen(path, "we");
	int err;

	if (!f)
		return -errno;
	head(f);
	environment(f, o);
	table(f, cols, n, o);
	details(f, cols, n, o);
	for (unsigned i = 0; i < n; i++) {
		const struct evidence *ev = &cols[i].evidence;

		if (!ev->taken)
			continue;
		fprintf(f, "<h2>");
		text(f, cols[i].label);
		fprintf(f, ": %s</h2><p>",
			mkw__check_class_name(ev->class));
		/* The first of the class may be another one. */
		text(f, ev->what[0] ? ev->what :
				      cols[i].random.classes[ev->class].example);
		fprintf(f, "</p><p class=\"faint\">Operations on its page; pale: "
			"they do not touch the word. Profile %s. Mount: ",
			ev->profile);
		text(f, cols[i].mount);
		fprintf(f, "</p>\n");
		picture(f, ev);
		word_history(f, ev);
	}
	fputs("</body></html>\n", f);
	err = ferror(f) ? -EIO : 0;
	if (fclose(f) && !err)
		err = -errno;
	return err;
}
