/* SPDX-License-Identifier: MIT */
/*
 * check.h: `mkwrite check`, and what its tests use of it.
 *
 * A *target* is something that has a file which can be reached in all the ways
 * at once: the kernel's file system, the engine, or a test's fake with a bug
 * in it. A run hammers one target from several threads in *epochs* of a fraction
 * of a second. After each, with the threads parked, the whole file is read in
 * every way, and the history of each word is judged (judge.h).
 *
 *   main.c     the command         run.c      epochs, threads, the quiet points
 *   options.c  its options         mix.c      what the threads do
 *   report.c   the table           record.h   logs and values
 *   export.c   JSON, JUnit         verdict.c  logs to judged words to classes
 *   target_*.c the targets         judge.c    one word
 *   windows/   races held open on purpose
 */
#ifndef MKW_CHECK_H
#define MKW_CHECK_H

#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mkwrite/mkwrite.h"

/* How the file is reached; the columns of the counts. */
enum op_kind {
	OP_LOAD,		/* through the mapping */
	OP_STORE,
	OP_READ,
	OP_WRITE,
	OP_DIRECT_READ,
	OP_DIRECT_WRITE,
	OP_PUNCH,
	OP_ZERO,
	OP_TRUNCATE,
	OP_SYNC,
	OP_ALLOCATE,
	OP_DISTURB,		/* enum disturb: what must not change a byte */
	OP_SHIFT,		/* collapse or insert, and back to the old size */
	OP_REMAP,		/* enum remap: mappings change, and no byte */
	OP_KINDS
};

/* What can be wrong. Each is counted once per operation, not per word. */
enum check_class {
	CHECK_LOST_STORE,
	CHECK_LOST_WRITE,
	CHECK_LOST_DIRECT_WRITE,
	CHECK_STALE_READ,
	CHECK_RESURRECTED,
	CHECK_NEVER_WRITTEN,
	CHECK_PAST_END,
	CHECK_SPURIOUS_ERROR,
	CHECK_NO_PROGRESS,
	CHECK_STRAY,		/* sizes, blocks, holes, at rest */
	CHECK_TORN,
	CHECK_NOT_DENIED,	/* an access that the mapping forbids */
	CHECK_CLASSES
};

const char *mkw__check_class_name(enum check_class class);
const char *mkw__check_op_name(enum op_kind kind);

struct check_config;
struct slow;
struct evidence;

struct target {
	const struct target_ops *ops;
	/* Set by open(): */
	_Atomic uint64_t *map;	/* the whole file, and past its end */
	uint32_t direct_align;	/* of offset and length; 0: no direct I/O */
	unsigned ways;		/* besides plain and direct: what it has */
	/* Times that a part of map was denied to all; mapping.c. */
	_Atomic uint64_t denials_begun, denials_ended;
	char label[48];		/* "kernel ext4": the heading of its column */
	char note[256];		/* what is not as one would expect, or "" */
	char error[512];	/* when open() fails: what to do about it */
	void *priv;
};

/* Modes of fallocate(2). */
#define FALLOC_PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define FALLOC_ZERO (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

/* How bytes are moved by pread and pwrite. */
#define WAY_DIRECT 0x1u
#define WAY_URING 0x2u		/* submitted to a ring, and waited for */
#define WAY_DSYNC 0x4u		/* RWF_DSYNC */
#define WAY_NOWAIT 0x8u		/* RWF_NOWAIT: may say -EAGAIN */
#define WAY_COPY 0x10u		/* copy_file_range() from or to another file */
#define WAY_DONTCACHE 0x20u	/* RWF_DONTCACHE: dropped from the cache at once */
#define WAY_OWN 0x40u		/* a load or store by the thread's own mapping */
#define WAY_PIN 0x80u		/* by direct I/O of another file, by pinned memory */

/* What others do to a file's cache and mappings. */
enum disturb {
	DISTURB_UNMAP,		/* the pages of a range lose their mapping */
	DISTURB_PAGEOUT,
	DISTURB_POPULATE,	/* mapped without a touch */
	DISTURB_DROP,		/* from the cache, what is clean */
	DISTURB_READAHEAD,
	DISTURB_MSYNC,
	DISTURB_REMAP,		/* mapped anew, at the same place */
	DISTURB_MOVE,		/* another mapping moved there (mremap) */
	DISTURB_FREEZE,		/* all of the file system, for a moment: cfg->freeze */
	DISTURBS
};

/* What is done to mappings: the thread's own, but for the last. */
enum remap {
	REMAP_MOVE,		/* elsewhere, and longer or shorter */
	REMAP_BACK,		/* the same from its middle on; the front goes */
	REMAP_RESIZE,		/* where it is, or elsewhere where that is taken */
	REMAP_PROTECT,
	REMAP_RENEW,		/* it goes, and there is another */
	REMAP_DENY,		/* a part of the common one is protected for a moment */
	REMAPS
};

/*
 * Calls return a count or 0, or a negative errno. Offsets are in bytes. Those
 * of the last group may be NULL.
 */
struct target_ops {
	const char *name;
	/* Are unmapped operations promised to be atomic as a whole? */
	bool atomic;
	/* Makes a file of len zeros in cfg->dir, and maps it. */
	int (*open)(struct target *t, const struct check_config *cfg,
		    size_t len);
	ssize_t (*pread)(struct target *t, void *buf, size_t len, off_t off,
			 unsigned way);
	ssize_t (*pwrite)(struct target *t, const void *buf, size_t len,
			  off_t off, unsigned way);
	int (*fallocate)(struct target *t, int mode, off_t off, off_t len);
	int (*truncate)(struct target *t, off_t size);
	int (*sync)(struct target *t);
	/* Leaves nothing behind. */
	void (*close)(struct target *t);

	/* -EOPNOTSUPP is no error. */
	int (*disturb)(struct target *t, enum disturb what, off_t off,
		       size_t len);
	/* What is clean in the cache leaves it, as far as that can be had. */
	int (*drop)(struct target *t);
	/* Bytes that the file system counts for the file, in its st_blocks. */
	int64_t (*blocks)(struct target *t);
	bool blocks_exact;	/* holes have none, wherever the file is */
	bool maps_host;		/* its mapping is one of the file there */
	int64_t (*size)(struct target *t);
	/* lseek(2), SEEK_DATA or SEEK_HOLE. */
	int64_t (*seek)(struct target *t, off_t off, int whence);
	/*
	 * More mappings, and what is done to mappings: all four, or none. to: memory
	 * that the mapping is to replace, or NULL.
	 */
	int (*map_more)(struct target *t, off_t off, size_t len, void **at);
	int (*unmap)(struct target *t, void *at, size_t len);
	int (*remap)(struct target *t, void *old, size_t old_len, size_t len,
		     void *to, void **at);
	int (*protect)(struct target *t, void *at, size_t len, int prot);
	/*
	 * WAY_PIN, all three or none. len bytes of map, from off, are pinned, for stores, too,
	 * or for loads alone; until unpin(). Each thread has a slot, of one pin. -EACCES: an
	 * access is denied. -ENXIO: not inside of the file. -ENOBUFS: too many pins.
	 */
	int (*pin)(struct target *t, size_t len, off_t off, bool store,
		   unsigned slot);
	void (*unpin)(struct target *t, unsigned slot);
	/*
	 * The kernel reads such bytes from another file, where buf went before, or (store
	 * false) writes them to it, from where they come to buf.
	 */
	ssize_t (*pinned)(struct target *t, bool store, void *buf, size_t len,
			  off_t off, unsigned slot);
	/* The file, at least, takes no changes from now on; or (off) as ever. */
	int (*freeze)(struct target *t, bool on);
	/* A descriptor of the file system, for what concerns all of it. */
	int (*fd)(struct target *t);
};

extern const struct target_ops mkw__check_kernel_target;
extern const struct target_ops mkw__check_engine_target;

struct check_config {
	const struct target_ops *target_ops;
	const char *dir;
	double seconds;		/* of wall clock, judging included */
	unsigned epochs;	/* that many at most; 0: as many as fit */
	unsigned until;		/* bits of classes: end once one was seen */
	unsigned threads;
	uint64_t seed;
	const char *profile;	/* NULL: all, in turn */
	uint64_t mem_bytes;	/* for all that grows with the run; 0: enough */
	uint64_t file_bytes;	/* of the file hammered, whole pages */
	uint32_t delay_ns;	/* the longest delay to be put in; 0: none */
	bool freeze;		/* nobody else needs the file system */
	bool measure;		/* what recording costs: res->bare */
	unsigned hang_seconds;	/* after which a thread counts as stuck */
	unsigned window_seconds;	/* after which a window is a deadlock */
	bool progress;		/* a line on stderr */
	uint32_t kinds;		/* bits of the op_kinds to do; 0: all */
	uint32_t pages;		/* of the part used; 0: the profile's */
	struct evidence *evidence;	/* to be filled in; or NULL */
	bool lever_by_file;	/* rather than by userfaultfd: served.h */
	const struct slow *slow;	/* for windows; NULL: none */
	bool strict;		/* tearing counts as a failure */
	bool allow_errors;	/* spurious errors do not */
	/* Of the engine: */
	uint32_t policy;	/* enum mkw_policy */
	bool inline_faults;
	bool atomic_writes;	/* MKW_ATOMIC_WRITES, and loads judged by it */
	uint64_t cache_bytes;
};

/* What a value has room for, and what the layout takes. */
#define CHECK_FILE_MAX (UINT64_C(128) << 20)
#define CHECK_FILE_MIN (UINT64_C(1) << 20)

#define CHECK_THREADS_MIN 2
#define CHECK_THREADS_MAX 60
#define CHECK_CONFIG_INIT { \
	.seconds = 10, .threads = 5, .seed = 1, .file_bytes = 2 << 20, \
	.hang_seconds = 60, .window_seconds = 20, \
	.cache_bytes = MKW_CACHE_BYTES_MIN }

#define CHECK_PAIRS_MAX 1024

struct check_count {
	uint64_t count;
	uint64_t first_ns;	/* when it was first seen, hammering time */
	char example[320];
};

struct check_result {
	char label[48];
	bool atomic;
	bool interrupted;	/* or was left out because of it */
	unsigned epochs;
	uint64_t hammer_ns;	/* time that the threads were running */
	uint64_t wall_ns;
	uint64_t ops[OP_KINDS];
	struct check_count classes[CHECK_CLASSES];
	/* cfg->measure: of rounds with and without recording, in pairs. */
	unsigned pairs;
	double recorded_share[CHECK_PAIRS_MAX];	/* of operations a second */
	/* Operations, what they did to single words, processor time. */
	uint64_t judged, judged_words, judging_ns;
	char notes[1024];	/* what was skipped and why, in lines */
	char error[512];	/* why there is no result */
};

/*
 * Runs one target and judges it. 0, or a negative errno with a message in
 * res->error: the environment does not allow it. Anomalies are not errors.
 * Takes over SIGBUS while it runs, and the signals of interrupt.h. After
 * CHECK_NO_PROGRESS threads are still stuck in the target: the process should end.
 */
int mkw__check_run(const struct check_config *cfg, struct check_result *res);

/* Does the class count as a failure? */
bool mkw__check_failure(enum check_class class, const struct check_config *cfg,
			bool atomic);

/* The targets that this program has, the kernel first; ends with NULL. */
extern const struct target_ops *const mkw__check_targets[];

/* The command. Returns its exit status. */
int mkw__check_main(int argc, char **argv);

#endif /* MKW_CHECK_H */
