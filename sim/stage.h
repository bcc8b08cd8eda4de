/* SPDX-License-Identifier: MIT */
/*
 * stage.h: what a scenario plays on: an engine, a file on the simulated disk, a
 * few mappings, and operations that record what they read and wrote, so that
 * stage_close() can judge it.
 *
 * The unit is the aligned word of eight bytes. At first every word of the file
 * holds a value of its own (OLD + its number) and every block of them is
 * allocated; before them the file may have a hole.
 * Whatever is written is unique, but for zero.
 */
#ifndef SIM_STAGE_H
#define SIM_STAGE_H

#include "core/testing.h"
#include "mkwrite/mkwrite.h"
#include "sim/search.h"
#include "sim/sim.h"

#define STAGE_OLD 0xa000u
#define STAGE_MAPS 4u
#define STAGE_LENGTHS 64u
#define STAGE_VERSIONS 64u

enum stage_policy { STAGE_NONE, STAGE_INVALIDATE, STAGE_RETRY };

struct stage_options {
	enum stage_policy policy;
	enum mkw__mutant mutant;	/* as mkw__testing.mutant */
	bool r0_off;
	bool old_kernel;	/* as sim_config.old_kernel */
	bool store_threads;	/* likewise */
	bool crashes;		/* the machine does */
	bool search;		/* of a small play: nothing is left to chance */
};
extern struct stage_options stage_options;

struct stage {
	struct mkw_engine *engine;
	struct mkw_file *file;
	struct sim_disk *disk;
	size_t page;
	unsigned pages, words;		/* of the file at first; the file's words */
	unsigned words_per_page;
	uint64_t base;			/* where the first word is in the file */
	uintptr_t map[STAGE_MAPS];	/* of all words each */
	bool read_only[STAGE_MAPS];	/* not the first */
	unsigned maps;
	unsigned places;		/* that mappings have moved to */
	bool may_end_short;		/* somebody truncates: SIGBUS is fine */
	bool may_fail;			/* the disk fails */
	bool only_writes_fail;		/* of what may_fail: no load */
	bool may_lack_space;		/* stores and writes; a sync may not */
	bool may_vanish;		/* somebody unmaps: signals are fine */
	struct mkw_file *other;		/* another handle of the file, or NULL */
	bool strict;			/* stage_atomic(): wholes are judged */
	unsigned told[2];		/* errors that syncs of each handle returned */
	bool stretched;			/* somebody else has made the file longer */
	unsigned stale[2];		/* of these, that it was */
	bool discarded;			/* what a sync could not write may be gone */
	bool answered;			/* stage_answer(): no access fails */
	uint64_t synced;		/* tick: the last sync that returned began */
	uint64_t lengths[STAGE_LENGTHS];	/* that were set, or may have been */
	unsigned length_count;
	/* stage_own(): the block's first word, and what it has held; none: 0. */
	unsigned own;
	uint64_t owned[STAGE_VERSIONS][SIM_BLOCK / 8];
	unsigned owned_count;
};
extern struct stage stage;

/* Of the engines of all runs that were closed, since it was last set to zero. */
struct stage_totals {
	uint64_t faults, parks, retries;
};
extern struct stage_totals stage_totals;

/* Opens engine and file; frames: the cache's size in pages, 0 for plenty. */
void stage_open(unsigned pages, unsigned frames);
/* Maps all words; a number for the operations below. */
unsigned stage_map(bool in_thread, bool writable);
/* By the seed, in thread or not. */
unsigned stage_map_any(void);
/*
 * The file is opened with MKW_ATOMIC_WRITES. What is done from now on to stage_end() is judged
 * as a whole, against loads and stores, too.
 */
void stage_atomic(void);
/*
 * Between them is what a search varies: from before the first role is started to
 * when all have ended and nothing goes on any more.
 */
void stage_begin(void);
void stage_end(void);
/*
 * When all tasks have ended: reads everything in every way, syncs, compares
 * with the disk, looks for stray blocks, has the engine verify itself, closes
 * everything, and judges.
 */
void stage_close(void);

/* ---- operations; violations unless they do what the header says -------- */

void stage_load(unsigned map, unsigned word);
/* Loads it until it changes, so many times at most: the last one is recorded. */
void stage_await(unsigned map, unsigned word, unsigned tries);
/* Through the first mapping where this one is read-only. */
void stage_store(unsigned map, unsigned word);
/* flags: of mkw_pread(); all counts in words. */
void stage_read(unsigned word, unsigned n, unsigned flags);
void stage_write(unsigned word, unsigned n, unsigned flags);
/* Of n words in the caller's buffer only the first `good` can be read: -EFAULT, or fewer. */
void stage_write_bad(unsigned word, unsigned n, unsigned good);
/* n words at the end; a violation if they lie upon somebody else's append. */
void stage_append(unsigned n);
/* Reads [word, word + n) of the file into the mapping from word 'to' on. */
void stage_read_into(unsigned map, unsigned to, unsigned word, unsigned n,
		     unsigned flags);
/* Writes the words of the mapping from 'from' on to the file at word. */
void stage_write_from(unsigned map, unsigned from, unsigned word, unsigned n,
		      unsigned flags);
void stage_punch(unsigned word, unsigned n);
void stage_zero(unsigned word, unsigned n);
void stage_allocate(unsigned word, unsigned n);
void stage_truncate(unsigned words);
/* Watches the size until it is so many words; others may change it before. */
void stage_await_size(unsigned words);
void stage_sync(void);
/* Then the disk has what was stored to these words before; flags of mkw_sync_range(). */
void stage_sync_range(unsigned word, unsigned n, unsigned flags);
/* mkw_advise(): MKW_ADVICE_DONTNEED. */
void stage_dontneed(unsigned word, unsigned n);
/* Pages that stage_bad_pages() made bad, which hold their first words on the disk. */
void stage_discard(unsigned word, unsigned n);
/*
 * Everything, where nobody else is at work: then nothing is left that cannot be written,
 * and what can be is. Word 0 is in a page that can.
 */
void stage_discard_all(void);
/*
 * From now on the file has a callback: it mends the disk, and has the access made
 * again, so that no access fails. Before, all reads fail, or the disk is full.
 */
void stage_answer(bool reads_fail);
/* Somebody else makes the file longer; and all handles must have been told. */
void stage_stretch(void);
void stage_unstretch(void);
/*
 * Somebody else writes these words on the disk, and the engine is told; from then on
 * nothing else may be seen. Pages in which nobody stores, or that are bad, with
 * MKW_INVALIDATE_DISCARD; those of [also, also_end) are invalidated besides.
 */
void stage_change_elsewhere(unsigned word, unsigned n, unsigned also,
			    unsigned also_end, unsigned flags);
/* Without a change. */
void stage_invalidate(unsigned word, unsigned n);
/*
 * Freezes the file, or all of the engine; looks whether the disk has everything, and
 * stays as it is; thaws.
 */
void stage_freeze(bool engine);
/*
 * A device loads or stores the word, having looked its page up some time before, as the
 * kernel's direct I/O does; the page is pinned meanwhile. It loads twice, with something
 * else, and a store by the mapping, in between.
 */
void stage_device_load(unsigned map, unsigned word, void (*meanwhile)(void));
void stage_device_store(unsigned map, unsigned word);
/* Access to [page, end) of the mapping is PROT_READ, or PROT_NONE, and then is back. */
void stage_protect(unsigned map, unsigned page, unsigned end, int prot);
/*
 * Moves a mapping, all of it or from page 1 on, which is moved back then, or makes it a
 *page longer for a while.
 */
void stage_move(unsigned map, unsigned how);
/* Takes away the right to store to a mapping, for good: even if it moves meanwhile. */
void stage_seal(unsigned map);
void stage_check_sealed(unsigned map);
/* Unmaps all of it, or one page and then the rest, and maps it again. */
void stage_remap(unsigned map, bool in_parts, bool in_thread);
/* The nth read, write, take or flush of the disk from now on fails; 0: none. */
void stage_break_disk(unsigned read, unsigned write, unsigned take, unsigned flush);
/* From now on the machine may crash. */
void stage_watch(void);
/*
 * From now on one task alone changes the block whose first word this is: a crash must
 * leave it, as a whole, as some operation of that task left it (G7).
 */
void stage_own(unsigned word);
/* Opens the file once more. */
void stage_open_other(void);
/* Writing to pages [page, end) fails, until stage_close(). */
void stage_bad_pages(unsigned page, unsigned end);
/* Pages from `page` on become holes, and so many blocks are left on the disk. */
void stage_fill_disk(unsigned page, unsigned blocks);
void stage_resident(void);
void stage_seek(void);

/* ---- queues -------------------------------------------------------------- */

/* A queue for the requests below. alone: nobody else, and none twice, writes their words. */
void stage_queue_open(unsigned depth, unsigned threads, bool alone);
/*
 * Submits a request, whose words and flags are as in the operations above; punches, too, as
 * MKW_OP_FALLOCATE. False: the queue is full.
 */
bool stage_submit(enum mkw_op op, unsigned word, unsigned n, unsigned flags,
		  unsigned order);
/* As stage_read_into(); once only. */
void stage_submit_into(unsigned map, unsigned to, unsigned word, unsigned n);
/*
 * Waits for results, by one task alone: each is judged by itself, by what came
 * before it, and, of a sync, by what is on the disk.
 */
void stage_reap(void);
/* Cancels a request, by the number of its submission. */
void stage_cancel(unsigned request);
/* How many were submitted, and have a result. */
unsigned stage_submitted(void);
unsigned stage_reaped(void);
/* Freezes, or thaws, the file, and does not look. */
void stage_set_frozen(bool on);
/* As it is, with requests under way; what is there of their results is forgotten. */
void stage_queue_close(void);

/* Of the file's two range locks: who waits for which range, and who has it. */
void stage_print_waits(FILE *to);

/* ---- scenarios --------------------------------------------------------- */

struct scenario {
	const char *name;
	const char *about;
	void (*play)(void);
	bool crashes;		/* the machine does, at some step, by the seed */
};
extern const struct scenario scenarios[];
extern const unsigned scenario_count;

/* ---- small plays, to be searched exhaustively ---------------------------- */

#define SMALL_PAGE 32u		/* bytes: four words, two blocks */
#define SMALL_TASKS 3u
#define SMALL_LIMIT 20000u	/* points; more is called a livelock */

/*
 * What each task does, in words of a letter and numbers; small.c explains. The
 * setup is done before the search begins.
 */
struct small {
	const char *scenario;
	unsigned pages, frames;
	bool in_thread;		/* who serves the faults of the mappings */
	bool endless;		/* some schedules never end: bounded only */
	const char *setup, *task[SMALL_TASKS];
};
extern const struct small smalls[];
extern const unsigned small_count;

/* Plays it, in the running machine. */
void small_play(const struct small *sm);

/* ---- runs ---------------------------------------------------------------- */

/* One run: of a scenario by a seed, or of a small play. */
struct play {
	const struct scenario *scenario;
	const struct small *small;	/* NULL: by the seed */
	uint64_t seed;
	struct stage_options options;
};

/* scheduler: NULL, the seed's. True: no violation. */
bool play_run(const struct play *p, struct sim_scheduler *scheduler, bool trace,
	      struct sim_result *res);

#endif /* SIM_STAGE_H */
