/* SPDX-License-Identifier: MIT */
/*
 * load.h: threads that use a file in every way and keep a record of it (record.h).
 *
 *   | sectors, one to each thread in turn | chunks of 16 pages, likewise | tail |
 *
 * In the first part threads meet in every page, in the second each works on
 * several pages at once; the tail, which thread 0 alone uses, is appended to and
 * cut off, at sizes inside of blocks. The geometry is the same for everybody.
 */
#ifndef CRASH_LOAD_H
#define CRASH_LOAD_H

#include "crash/record.h"
#include "mkwrite/mkwrite.h"

#define LOAD_THREADS 3u
#define LOAD_PAGE 4096u			/* of the geometry, not of the machine */
#define LOAD_SECTORS (24u * LOAD_PAGE / BLOCK)
#define LOAD_CHUNK (8u * LOAD_PAGE / BLOCK)
#define LOAD_CHUNKS 6u
#define LOAD_TAIL (LOAD_SECTORS + LOAD_CHUNKS * LOAD_CHUNK)
#define LOAD_BLOCKS (LOAD_TAIL + 12u * LOAD_PAGE / BLOCK)
#define LOAD_BYTES ((size_t)LOAD_BLOCKS * BLOCK)
#define LOAD_START ((uint64_t)LOAD_TAIL * BLOCK + 1000)	/* size at first */

struct load {
	struct mkw_file *file;
	unsigned char *map;		/* LOAD_BYTES of it */
	struct record *record;
	unsigned direct_align;
	bool no_zero_range;		/* the file system lacks it */
	uint64_t seed;
	/* What is written past the cache survives the process. */
	bool through_is_durable;
	/* Bracket changes of the record; may be NULL. */
	void (*lock)(void);
	void (*unlock)(void);
	/* After each operation, with nothing held; true ends the load. */
	bool (*after)(void);
	/* A finding: an operation failed, or a read was wrong. */
	void (*finding)(const char *what);
};

/* Runs the threads, and returns when `after` has ended them all. */
void load_run(const struct load *l);

#endif /* CRASH_LOAD_H */
