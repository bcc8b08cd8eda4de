/* SPDX-License-Identifier: MIT */
/*
 * internal.h: the parts of `mkwrite bench`.
 *
 *   main.c       the command line, the order of rounds, the table, the JSON file
 *   run.c        one run: a child process that maps the file, touches pages and
 *                checks what it reads
 *   cap.c        the memory limit that a run lives under
 *   machine.c    what is measured on
 *
 * A run is one workload on one target for some seconds. Both targets run the
 * same loop over the same addresses in a fresh process under the same limit.
 */
#ifndef MKW_BENCH_INTERNAL_H
#define MKW_BENCH_INTERNAL_H

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mkwrite/mkwrite.h"

enum bench_target { BENCH_KERNEL, BENCH_ENGINE, BENCH_TARGETS };

enum bench_kind {
	BENCH_RANDOM_READ,	/* pages at random, most of them not cached */
	BENCH_SEQ_SCAN,		/* pages in order, none of them cached */
	BENCH_SEQ_SCAN_SMALL,	/* the same, the kernel's mapping by small pages */
	BENCH_REFAULT,		/* cached pages that lost their mapping */
	BENCH_RANDOM_STORE,	/* 8 bytes stored to pages at random, then a sync */
	BENCH_CACHED_PREAD,	/* whole cached pages by a read call */
	BENCH_QUEUE_READ,	/* pages at random by asynchronous calls, most not cached */
	BENCH_ATOMIC_PWRITE,	/* a cached page by a write call, at once for mappings */
	BENCH_ATOMIC_PWRITE_LONG, /* the same, 64 KiB */
	BENCH_ATOMIC_LOAD,	/* and each page loaded from a mapping after it */
	BENCH_KINDS
};

/* What all runs have in common. */
struct bench_setup {
	int fd;			/* the file, written and clean */
	uint64_t file_bytes;
	uint64_t cache_bytes;	/* of the engine */
	uint64_t limit_bytes;	/* of either process, where there is a limit */
	unsigned seconds;	/* of one run */
	size_t page_size;
	enum mkw_policy policy;
};

struct bench_run {
	const struct bench_setup *setup;
	enum bench_target target;
	enum bench_kind kind;
	bool in_thread;		/* MKW_MAP_INLINE */
	uint64_t seed;		/* of the order of pages */
};

struct bench_result {
	uint64_t touches;	/* pages touched while the clock ran */
	uint64_t ns;		/* how long it ran */
	uint64_t sync_ns;	/* and the sync at its end, where it has one */
	uint64_t peak_bytes;	/* of the process's memory; 0: not known */
};

/* The 8 bytes that stand at the given word of the given page of the file. */
uint64_t mkw__bench_word(uint64_t page, uint64_t word);

/*
 * Runs in a child process and waits for it. 0, or -1 after a message on stderr:
 * wrong bytes were read, something failed, or the process was killed.
 * It ends early when mkw__bench_signal is set.
 */
int mkw__bench_run(const struct bench_run *run, struct bench_result *result);

/* A memory limit for one process. */
struct bench_cap {
	char dir[PATH_MAX];	/* its control group */
	bool unified;		/* version 2 */
};

/*
 * What limits memory here: "" and *version 1 or 2 for control groups, or the
 * reason why nothing does.
 */
const char *mkw__bench_cap_probe(int *version);
/* Makes a control group of the given limit; -1 after a message on stderr. */
int mkw__bench_cap_create(struct bench_cap *cap, uint64_t bytes);
/* Moves the calling process into it. 0 or -1 with errno. */
int mkw__bench_cap_enter(const struct bench_cap *cap);
/* The most that it ever held, or 0 where that is not known. */
uint64_t mkw__bench_cap_peak(const struct bench_cap *cap);
/* Removes it; no process may be in it any more. */
void mkw__bench_cap_remove(const struct bench_cap *cap);

struct bench_machine {
	char kernel[256];
	char cpu[160];
	char filesystem[32];
	char device[PATH_MAX];
	long cpus;
};
void mkw__bench_machine(struct bench_machine *m, int fd);

/* Set by the handler of SIGINT and SIGTERM. */
extern volatile sig_atomic_t mkw__bench_signal;

#endif /* MKW_BENCH_INTERNAL_H */
