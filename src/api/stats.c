/* SPDX-License-Identifier: MIT */
/*
 * An engine's counters as text.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/engine.h"

#define COUNTER(name) { #name, offsetof(struct mkw_stats, name) }

static const struct {
	const char *name;
	size_t at;
} counters[] = {
	COUNTER(cache_bytes),
	COUNTER(cached_bytes),
	COUNTER(dirty_bytes),
	COUNTER(faults),
	COUNTER(write_faults),
	COUNTER(inline_faults),
	COUNTER(faults_merged),
	COUNTER(fills),
	COUNTER(fill_pages),
	COUNTER(fill_errors),
	COUNTER(parks),
	COUNTER(retries),
	COUNTER(longest_wait_ns),
	COUNTER(writebacks),
	COUNTER(writeback_pages),
	COUNTER(writeback_errors),
	COUNTER(reclaim_unmapped),
	COUNTER(reclaim_dropped),
	COUNTER(bounced),
	COUNTER(cache_bypasses),
	COUNTER(readahead_pages),
	COUNTER(reservations),
	COUNTER(credit_bytes),
	COUNTER(failed_bytes),
	COUNTER(lost_bytes),
};

_Static_assert(offsetof(struct mkw_stats, cache_bytes) +
	       sizeof(counters) / sizeof(counters[0]) * sizeof(uint64_t) ==
	       sizeof(struct mkw_stats),
	       "a new member of struct mkw_stats has its line in counters[], too");

/* Appends a line as far as it fits; *at is how long the text is, fitting or not. */
static void line(char *buf, size_t len, size_t *at, const char *name,
		 unsigned long long value)
{
	int n = snprintf(*at < len ? buf + *at : NULL, *at < len ? len - *at : 0,
			 "%s %llu\n", name, value);

	*at += (size_t)n;
}

ssize_t mkw_engine_stats_text(struct mkw_engine *engine, char *buf, size_t len)
{
	struct mkw_stats st = MKW_STATS_INIT;
	size_t at = 0;
	uint64_t value;
	int r;

	if (len && !buf)
		return -EINVAL;
	r = mkw_engine_stats(engine, &st);
	if (r)
		return r;
	line(buf, len, &at, "policy", st.policy);
	line(buf, len, &at, "kernel_faults", st.kernel_faults);
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		memcpy(&value, (const char *)&st + counters[i].at, sizeof(value));
		line(buf, len, &at, counters[i].name, value);
	}
	return (ssize_t)at;
}
