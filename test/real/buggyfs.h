/* SPDX-License-Identifier: MIT */
/*
 * buggyfs.h: a FUSE file system with one bug, or none, for mkwrite check to find.
 */
#ifndef MKW_TEST_BUGGYFS_H
#define MKW_TEST_BUGGYFS_H

#include <stdbool.h>
#include <sys/types.h>

enum buggyfs_bug {
	BUGGY_NONE,
	BUGGY_DROPS_WRITES,		/* of calls that are not direct */
	BUGGY_DROPS_DIRECT_WRITES,
	BUGGY_DROPS_WRITEBACK,		/* of pages stored to through a mapping */
	BUGGY_PUNCH_KEEPS,
	BUGGY_TRUNCATE_KEEPS,		/* what was cut off is back on growth */
	BUGGY_STALE_READS,		/* from a copy made earlier */
	BUGGY_FLIPS_BITS,
	BUGGY_MISPLACES_WRITES,		/* a page too low */
	BUGGY_SPURIOUS_EIO,
	BUGGY_KEEPS_BLOCKS,		/* st_blocks never falls */
	BUGGY_HOLES_OVER_DATA,		/* SEEK_DATA goes too far */
	BUGGY_HANGS,			/* an fsync is never answered */
	BUGGY_BUGS
};

struct buggyfs {
	char mount[64];
	pid_t server;
};

/* Mounts it at a new directory. False: it cannot be had, the reason printed. */
bool buggyfs_start(struct buggyfs *fs, enum buggyfs_bug bug);
void buggyfs_stop(struct buggyfs *fs);

#endif /* MKW_TEST_BUGGYFS_H */
