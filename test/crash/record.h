/* SPDX-License-Identifier: MIT */
/*
 * record.h: what was done to a file, and what it may hold after a crash (G7).
 *
 * The file is looked at in blocks of 512 bytes, of 64 words. Every operation on
 * a block has a number, and writes into each word that it covers a value of that
 * number, block and word, or zero. So a block's *state* n is what it holds after
 * its first n operations, and can be computed from the log of what each covered.
 *
 *   issued   the last operation that began
 *   done     the last that returned
 *   floor    what the last sync that returned must have made durable
 *
 * After a crash a block must hold one of the states from floor to issued, as a
 * whole; in the tail, where sizes end inside a block, each word of its own accord.
 * The same for the file's size.
 *
 * A block has one owner, whose operations follow each other. It alone issues and
 * ends; floors are raised by whoever syncs. The record holds no pointer and can lie
 * in memory shared with a process that is killed: a log entry is there before the
 * number that tells of it, and nothing else changes (record_trim() apart, which
 * needs a record that outlives nobody).
 */
#ifndef CRASH_RECORD_H
#define CRASH_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK 512u
#define WORDS (BLOCK / 8)
#define LOG 48u

struct record_op {
	uint64_t mask;		/* of words */
	bool zero;
};

struct record_block {
	uint64_t base[WORDS];	/* state number `trimmed` */
	uint32_t trimmed;
	_Atomic uint32_t issued, done, floor;
	struct record_op log[LOG];	/* operation n is at n % LOG */
};

struct record_size {
	uint64_t value[LOG];	/* size n is at n % LOG */
	_Atomic uint32_t issued, done, floor;
};

struct record {
	uint64_t blocks, tail;	/* in all; the first of the tail */
	_Atomic uint64_t ops;
	struct record_size size;
	struct record_block block[];
};

size_t record_bytes(uint64_t blocks);
void record_init(struct record *r, uint64_t blocks, uint64_t tail,
		 uint64_t size);

/* Can another operation on bytes [off, off + len) be logged? */
bool record_has_room(const struct record *r, uint64_t off, size_t len);
/* Forgets what is below the floors. Nobody else uses the record. */
void record_trim(struct record *r);

/*
 * An operation on words [off, off + len) begins; buf (or NULL, for zeros) gets what
 * it is to write.
 */
void record_issue(struct record *r, uint64_t off, size_t len, uint64_t *buf);
/* It returned. durable: what covers whole blocks is so from now on. */
void record_done(struct record *r, uint64_t off, size_t len, bool durable);
bool record_size_has_room(const struct record *r);
void record_size_issue(struct record *r, uint64_t size);
void record_size_done(struct record *r, bool durable);

/* What a sync that begins now is to make durable; floors: blocks + 1 of them. */
void record_sync_begin(struct record *r, uint32_t *floors);
void record_sync_end(struct record *r, const uint32_t *floors);

/* What the block's owner must read now. */
void record_expect(const struct record *r, uint64_t block, uint64_t *words);

/*
 * Judges what a crash left. True: it is allowed; else `why` says what is not.
 * Nothing issues or ends meanwhile.
 */
bool record_judge(const struct record *r, const void *image, uint64_t size,
		  char *why, size_t why_len);
/* What a crash left, judged, is where a new record of the same file begins. */
void record_restart(struct record *r, const void *image, uint64_t size);

#endif /* CRASH_RECORD_H */
