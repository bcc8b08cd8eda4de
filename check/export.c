/* SPDX-License-Identifier: MIT */
/*
 * export.c: the results as JSON and as JUnit's XML.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/utsname.h>

#include "check/report.h"

static uint64_t total_ops(const struct check_result *res)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < OP_KINDS; i++)
		n += res->ops[i];
	return n;
}

static int finish(FILE *f)
{
	int err = ferror(f) ? -EIO : 0;

	if (fclose(f) && !err)
		err = -errno;
	return err;
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

static const char *json_bool(bool b)
{
	return b ? "true" : "false";
}

static void json_windows(FILE *f, const struct column *col,
			 const struct options *o)
{
	fprintf(f, ",\n      \"windows\": [");
	for (unsigned i = 0; i < col->n_wins; i++) {
		const struct win_result *w = &col->wins[i];

		fprintf(f, "%s\n        { \"name\": ", i ? "," : "");
		json_string(f, w->window->name);
		fprintf(f, ", \"verdict\": ");
		json_string(f, mkw__win_verdict_name(w->verdict));
		fprintf(f, ", \"failure\": %s, \"seconds\": %.3f, \"evidence\": ",
			json_bool(mkw__win_failure(w, &o->cfg,
						   col->atomic)), w->seconds);
		json_string(f, w->evidence);
		fprintf(f, " }");
	}
	fprintf(f, "\n      ]");
}

static void json_random(FILE *f, const struct column *col,
			const struct options *o)
{
	const struct check_result *res = &col->random;
	uint64_t ops = total_ops(res);

	fprintf(f, ",\n      \"operations\": %" PRIu64 ",\n"
		"      \"operations_per_second\": %.0f,\n"
		"      \"hammering_seconds\": %.3f,\n"
		"      \"wall_seconds\": %.3f,\n"
		"      \"epochs\": %u,\n      \"operations_by_kind\": {",
		ops, res->hammer_ns ? (double)ops * 1e9 /
				      (double)res->hammer_ns : 0,
		(double)res->hammer_ns / 1e9, (double)res->wall_ns / 1e9,
		res->epochs);
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
			c->count, json_bool(mkw__check_failure(
					(enum check_class)i, &o->cfg,
					col->atomic)));
		if (c->count) {
			fprintf(f, ", \"first_seconds\": %.6f, \"example\": ",
				(double)c->first_ns / 1e9);
			json_string(f, c->example);
		}
		fprintf(f, " }");
	}
	fprintf(f, "\n      },\n      \"notes\": ");
	json_string(f, res->notes);
}

int mkw__check_write_json(const char *path, const struct column *cols,
			  unsigned n, const struct options *o)
{
	FILE *f = fopen(path, "we");
	struct utsname u;

	if (!f)
		return -errno;
	uname(&u);
	fprintf(f, "{\n  \"version\": ");
	json_string(f, MKW_VERSION);
	fprintf(f, ",\n  \"kernel\": ");
	json_string(f, u.release);
	fprintf(f, ",\n  \"dir\": ");
	json_string(f, o->cfg.dir ? o->cfg.dir : "");
	fprintf(f, ",\n  \"seconds\": %g,\n  \"threads\": %u,\n"
		"  \"seed\": %" PRIu64 ",\n  \"targets\": [\n",
		o->cfg.seconds, o->cfg.threads, o->cfg.seed);
	for (unsigned i = 0; i < n; i++) {
		fprintf(f, "    {\n      \"target\": ");
		json_string(f, cols[i].label);
		fprintf(f, ",\n      \"checked\": %s,\n      \"clean\": %s,\n"
			"      \"interrupted\": %s",
			json_bool(mkw__column_checked(&cols[i])),
			json_bool(mkw__column_clean(&cols[i], o)),
			json_bool(cols[i].random.interrupted));
		json_windows(f, &cols[i], o);
		if (cols[i].has_random)
			json_random(f, &cols[i], o);
		fprintf(f, "\n    }%s\n", i + 1 < n ? "," : "");
	}
	fprintf(f, "  ]\n}\n");
	return finish(f);
}

/* ---- JUnit ------------------------------------------------------------------ */

static void xml_string(FILE *f, const char *s)
{
	for (; *s; s++) {
		switch (*s) {
		case '<':
			fputs("&lt;", f);
			break;
		case '&':
			fputs("&amp;", f);
			break;
		case '"':
			fputs("&quot;", f);
			break;
		default:
			fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
		}
	}
}

enum junit_state { JUNIT_PASSED, JUNIT_FAILED, JUNIT_SKIPPED };

static void junit_case(FILE *f, const char *class, const char *name,
		       double seconds, enum junit_state state, const char *type,
		       const char *text)
{
	fprintf(f, "    <testcase classname=\"");
	xml_string(f, class);
	fprintf(f, "\" name=\"");
	xml_string(f, name);
	fprintf(f, "\" time=\"%.3f\"", seconds);
	if (state == JUNIT_PASSED) {
		fprintf(f, "/>\n");
		return;
	}
	fprintf(f, "><%s message=\"", state == JUNIT_FAILED ? "failure" :
							      "skipped");
	xml_string(f, text);
	if (state == JUNIT_FAILED) {
		fprintf(f, "\" type=\"");
		xml_string(f, type);
	}
	fprintf(f, "\"/></testcase>\n");
}

static void junit_column(FILE *f, const struct column *col,
			 const struct options *o)
{
	char class[80];

	fprintf(f, "  <testsuite name=\"");
	xml_string(f, col->label);
	fprintf(f, "\">\n");
	snprintf(class, sizeof(class), "%s.windows", col->label);
	for (unsigned i = 0; i < col->n_wins; i++) {
		const struct win_result *w = &col->wins[i];
		bool failed = mkw__win_failure(w, &o->cfg, col->atomic);

		junit_case(f, class, w->window->name, w->seconds,
			   w->verdict == WIN_SKIPPED ? JUNIT_SKIPPED :
			   failed ? JUNIT_FAILED : JUNIT_PASSED,
			   mkw__win_verdict_name(w->verdict), w->evidence);
	}
	snprintf(class, sizeof(class), "%s.random", col->label);
	for (unsigned i = 0; i < CHECK_CLASSES && col->has_random; i++) {
		const struct check_count *c = &col->random.classes[i];
		const char *name = mkw__check_class_name((enum check_class)i);

		junit_case(f, class, name, (double)col->random.wall_ns / 1e9,
			   c->count && mkw__check_failure((enum check_class)i,
							  &o->cfg, col->atomic) ?
				   JUNIT_FAILED : JUNIT_PASSED,
			   name, c->example);
	}
	fprintf(f, "  </testsuite>\n");
}

int mkw__check_write_junit(const char *path, const struct column *cols,
			   unsigned n, const struct options *o)
{
	FILE *f = fopen(path, "we");

	if (!f)
		return -errno;
	fprintf(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
	for (unsigned i = 0; i < n; i++)
		junit_column(f, &cols[i], o);
	fprintf(f, "</testsuites>\n");
	return finish(f);
}
