/* SPDX-License-Identifier: MIT */
/*
 * catalogue.c: all windows.
 */
#include <string.h>

#include "check/windows/families.h"

#define DIRECT_WRITE_ADVICE \
	"Keep mapped accesses out of a direct write from its first " \
	"invalidation to its end (invalidate_lock held over both), or report " \
	"the failed second invalidation to the writer."
#define PAST_END_ADVICE \
	"Zero the rest of the old last page, in the cache, whenever the size " \
	"grows past it."
#define TEAR_ADVICE \
	"Take the inode's lock shared in read, as XFS does, if reads are to be " \
	"atomic against writes."
#define SELF_ADVICE \
	"The buffer is a mapping of the file itself: bounce overlapping ranges, " \
	"or document that the result is undefined."
#define DIRECT_READ_ADVICE \
	"Treat a delayed extent that appears under a direct read as a reason to " \
	"write back and retry, not as an I/O error."

#define TAKING_ADVICE \
	"Hold invalidate_lock from before the page cache is cut until the " \
	"blocks are gone."

#define SELF(mode, rw, over, overlap, args) \
	{ .name = "self-" mode "-" rw "-" over, \
	  .what = mode " " rw " whose buffer is a mapping of the file, " \
		  overlap, \
	  .advice = SELF_ADVICE, .run = mkw__win_self, .arg = (args) }
#define SELF_OVERLAPS(mode, rw, args) \
	SELF(mode, rw, "same", "of the same range", (args)), \
	SELF(mode, rw, "page", "shifted by a page", (args) | SELF_PAGE), \
	SELF(mode, rw, "word", "overlapping by 8 bytes", (args) | SELF_WORD)

#define TAKING(op, args) \
	{ .name = "fault-" op, \
	  .what = "page fault held in its read of a slow device; " op, \
	  .advice = TAKING_ADVICE, .run = mkw__win_taking, .arg = (args), \
	  .slow = true }, \
	{ .name = op "-mkwrite", \
	  .what = op " parked behind a slow writeback; store into its range", \
	  .advice = TAKING_ADVICE, .run = mkw__win_taking, \
	  .arg = (args) | TAKE_PARKED, .slow = true }

const struct window mkw__windows[] = {
	{ .name = "dwrite-store-in-range",
	  .what = "direct write of 64 KiB held; store into its range",
	  .advice = DIRECT_WRITE_ADVICE, .run = mkw__win_direct_write,
	  .arg = DIRECT_WRITE_IN_RANGE, .lever = true },
	{ .name = "dwrite-store-other-sector",
	  .what = "direct write of 512 bytes held; store into another sector "
		  "of the page",
	  .advice = DIRECT_WRITE_ADVICE, .run = mkw__win_direct_write,
	  .arg = DIRECT_WRITE_SECTOR, .lever = true },
	{ .name = "dwrite-store-next-to-range",
	  .what = "direct write of 64 KiB held; store just behind its range, "
		  "with large folios",
	  .advice = DIRECT_WRITE_ADVICE, .run = mkw__win_direct_write,
	  .arg = DIRECT_WRITE_NEXT, .lever = true },
	{ .name = "dwrite-load",
	  .what = "direct write of 64 KiB held; load from its range",
	  .advice = DIRECT_WRITE_ADVICE, .run = mkw__win_direct_write,
	  .arg = DIRECT_WRITE_LOAD, .lever = true },
	{ .name = "dwrite-store-msync",
	  .what = "direct write of 64 KiB held; store into its range, and "
		  "msync",
	  .advice = DIRECT_WRITE_ADVICE, .run = mkw__win_direct_write,
	  .arg = DIRECT_WRITE_MSYNC, .lever = true },

	{ .name = "write-read",
	  .what = "write of 6 MiB held before its end; read of all of it",
	  .advice = TEAR_ADVICE, .run = mkw__win_buffered,
	  .arg = BUFFERED_WRITE_READ, .lever = true },
	{ .name = "write-mapped-copy",
	  .what = "write of 6 MiB held before its end; mapped copy of all of it",
	  .advice = "No file system promises this; mapped accesses are atomic "
		    "by the word.",
	  .run = mkw__win_buffered, .arg = BUFFERED_WRITE_COPY, .lever = true,
	  .unpromised = true },
	{ .name = "read-write",
	  .what = "read of 6 MiB held before its end; write of all of it",
	  .advice = TEAR_ADVICE, .run = mkw__win_buffered,
	  .arg = BUFFERED_READ_HELD, .lever = true },

	{ .name = "dread-store",
	  .what = "direct read held; store into its range",
	  .advice = DIRECT_READ_ADVICE, .run = mkw__win_direct_read,
	  .arg = DIRECT_READ_STORE, .lever = true },
	{ .name = "dread-store-hole",
	  .what = "direct read held; store into a hole of its range",
	  .advice = DIRECT_READ_ADVICE, .run = mkw__win_direct_read,
	  .arg = DIRECT_READ_STORE_HOLE, .lever = true },
	{ .name = "dread-punch",
	  .what = "direct read held; punch of its range",
	  .advice = "Wait for direct reads in flight before blocks are freed "
		    "(inode_dio_wait).",
	  .run = mkw__win_direct_read, .arg = DIRECT_READ_PUNCH, .lever = true },
	{ .name = "dread-truncate",
	  .what = "direct read held; truncate inside of its range",
	  .advice = "Wait for direct reads in flight before blocks are freed "
		    "(inode_dio_wait).",
	  .run = mkw__win_direct_read, .arg = DIRECT_READ_TRUNCATE,
	  .lever = true },

	{ .name = "past-end-truncate",
	  .what = "store past the end, in the last page; truncate up",
	  .advice = PAST_END_ADVICE, .run = mkw__win_past_end,
	  .arg = PAST_END_TRUNCATE },
	{ .name = "past-end-write",
	  .what = "store past the end, in the last page; write behind it",
	  .advice = PAST_END_ADVICE, .run = mkw__win_past_end,
	  .arg = PAST_END_WRITE },
	{ .name = "past-end-direct-write",
	  .what = "store past the end, in the last page; direct write behind it",
	  .advice = PAST_END_ADVICE, .run = mkw__win_past_end,
	  .arg = PAST_END_DIRECT_WRITE },
	{ .name = "past-end-fallocate",
	  .what = "store past the end, in the last page; fallocate behind it",
	  .advice = PAST_END_ADVICE, .run = mkw__win_past_end,
	  .arg = PAST_END_ALLOCATE },

	SELF_OVERLAPS("buffered", "read", SELF_READ),
	SELF_OVERLAPS("buffered", "write", SELF_WRITE),
	SELF_OVERLAPS("direct", "read", SELF_READ | SELF_DIRECT),
	SELF_OVERLAPS("direct", "write", SELF_WRITE | SELF_DIRECT),
	{ .name = "cross-buffered-read",
	  .what = "two reads, each with the other's range as its buffer",
	  .advice = SELF_ADVICE, .run = mkw__win_cross, .arg = SELF_READ },
	{ .name = "cross-buffered-write",
	  .what = "two writes, each with the other's range as its buffer",
	  .advice = SELF_ADVICE, .run = mkw__win_cross, .arg = SELF_WRITE },
	{ .name = "cross-direct-read",
	  .what = "two direct reads, each with the other's range as its buffer",
	  .advice = SELF_ADVICE, .run = mkw__win_cross,
	  .arg = SELF_READ | SELF_DIRECT },
	{ .name = "cross-direct-write",
	  .what = "two direct writes, each with the other's range as its buffer",
	  .advice = SELF_ADVICE, .run = mkw__win_cross,
	  .arg = SELF_WRITE | SELF_DIRECT },

	TAKING("punch", TAKE_PUNCH),
	TAKING("zero", TAKE_ZERO),
	TAKING("collapse", TAKE_COLLAPSE),
	TAKING("insert", TAKE_INSERT),
	TAKING("truncate", TAKE_TRUNCATE),
	{ .name = "freeze-store",
	  .what = "the file system is frozen; store",
	  .advice = "Let page_mkwrite() wait for the thaw (sb_start_pagefault).",
	  .run = mkw__win_freeze, .slow = true },
	{ .name = NULL },
};

const struct window *mkw__window_find(const char *name)
{
	for (const struct window *w = mkw__windows; w->name; w++)
		if (!strcmp(w->name, name))
			return w;
	return NULL;
}
