/* SPDX-License-Identifier: MIT */
/*
 * record.h: what the threads write down of what they do, and how.
 *
 * Each thread has a log of its own and is the only one to touch it while an
 * epoch runs; a log is bounded, and the first that is full ends the epoch. A
 * record has the time just before the operation and just after it (stamp_begin,
 * stamp_end), what it touched, and for reads what was seen.
 *
 * Values tell where they come from: kind of operation, thread, number of the
 * operation in that thread, index of the word. So they are never zero, unique
 * within 4 billion operations of a thread, which is hours, and a value found in
 * the wrong place is noticed.
 *
 * Of every TRACK words one is *tracked*, another one in each epoch: loads and
 * stores touch only tracked words, and only these are judged. Larger operations
 * move the others along, which costs nothing to record.
 */
#ifndef MKW_CHECK_RECORD_H
#define MKW_CHECK_RECORD_H

#include <time.h>

#include "check/check.h"

#define TRACK 8u
#define WORD sizeof(uint64_t)

enum rec_outcome {
	REC_DONE,
	REC_FAILED,		/* may have taken effect, or may yet */
};

/* Already counted in its class. */
#define REC_SEEN_LOST 0x1u
#define REC_SEEN_STALE 0x2u
#define REC_SEEN_RESURRECTED 0x4u
#define REC_SEEN_NEVER_WRITTEN 0x8u

/*
 * Of an OP_SHIFT word and moved are the range that was collapsed or inserted, way is
 * SHIFT_ and words is 0. Of an OP_ALLOCATE moved is the range's length.
 */
enum { SHIFT_COLLAPSE, SHIFT_INSERT };
/* In an epoch; one thread does them all. */
#define SHIFTS_MAX 8u

struct rec {
	uint64_t start, end;
	uint32_t word, words;	/* what it touches */
	uint32_t moved;		/* words that a read or write did move */
	uint32_t vals;		/* reads: index of the tracked words' values */
	uint8_t kind;		/* enum op_kind */
	uint8_t outcome;	/* enum rec_outcome */
	uint8_t seen;
	uint8_t thread;
	uint8_t way;		/* bits WAY_ */
};

/* The longest operation, in words. */
#define OP_WORDS_MAX (64u * 1024 / WORD)

/* What went wrong without a trace in the history. */
struct mishaps {
	uint64_t n, first_ns;
	uint32_t first_rec;
	char first[160];
};

struct log {
	uint64_t base;		/* number of recs[0] in its thread */
	uint32_t n, n_vals;
	uint32_t recs_max, vals_max;
	uint8_t thread;
	struct rec *recs;
	uint64_t *vals;
	/* Of this epoch: errors that should not be, and that should be. */
	struct mishaps errors, granted;
};

/* Operations that a thread does in one go. */
#define STEP_RECS 8u

/* For so many records, of which one moves many words. */
static inline bool log_has_room(const struct log *log)
{
	return log->n + STEP_RECS <= log->recs_max &&
	       log->n_vals + OP_WORDS_MAX / TRACK <= log->vals_max;
}

/* Opens the next record. Its number is the log's n until log_end(). */
static inline struct rec *log_begin(struct log *log, enum op_kind kind,
				    uint32_t word, uint32_t words)
{
	struct rec *rec = &log->recs[log->n];

	*rec = (struct rec){
		.word = word,
		.words = words,
		.vals = log->n_vals,
		.kind = (uint8_t)kind,
		.thread = log->thread,
	};
	return rec;
}

static inline void log_end(struct log *log)
{
	log->n++;
}

/* ---- values ------------------------------------------------------------ */

/* 2 bits of kind, 6 of thread, 32 of number, VALUE_WORD_BITS of word. */
#define VALUE_WORD_BITS 24

static inline uint64_t value_make(enum op_kind kind, unsigned thread,
				  uint64_t number, uint32_t word)
{
	uint64_t code = kind == OP_STORE ? 1 : kind == OP_WRITE ? 2 : 3;

	return code << 62 | (uint64_t)thread << 56 |
	       (number & UINT32_MAX) << VALUE_WORD_BITS | word;
}

/* Of what is no value of ours: OP_KINDS. */
static inline enum op_kind value_kind(uint64_t v)
{
	static const enum op_kind kinds[] = { OP_KINDS, OP_STORE, OP_WRITE,
					      OP_DIRECT_WRITE };

	return kinds[v >> 62];
}

static inline unsigned value_thread(uint64_t v)
{
	return (unsigned)(v >> 56) & 63;
}

static inline uint32_t value_number(uint64_t v)
{
	return (uint32_t)(v >> VALUE_WORD_BITS);
}

static inline uint32_t value_word(uint64_t v)
{
	return (uint32_t)v & ((1u << VALUE_WORD_BITS) - 1);
}

static inline bool kind_reads(enum op_kind kind)
{
	return kind == OP_LOAD || kind == OP_READ || kind == OP_DIRECT_READ;
}

static inline bool kind_writes(enum op_kind kind)
{
	return kind == OP_STORE || kind == OP_WRITE || kind == OP_DIRECT_WRITE;
}

static inline bool kind_zeroes(enum op_kind kind)
{
	return kind == OP_PUNCH || kind == OP_ZERO || kind == OP_TRUNCATE;
}

/* ---- tracked words ----------------------------------------------------- */

/* The first tracked word at or after 'word'. */
static inline uint32_t track_first(unsigned phase, uint32_t word)
{
	return word + ((phase - word) & (TRACK - 1));
}

/* ---- time -------------------------------------------------------------- */

static inline uint64_t stamp(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void stamp_fence(void)
{
#if defined(__SANITIZE_THREAD__)
	/* It knows no fences, and needs none: it looks at each access. */
	static _Thread_local _Atomic int word;

	atomic_fetch_add(&word, 1);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/*
 * Reading a clock is not a memory access, so a fence does not order it against
 * loads and stores. stamp_begin(): nothing after it is done before the clock is
 * read. stamp_end(): all before it is done, and stores are visible to everyone,
 * when the clock is read. (clock_gettime() itself does not read the clock ahead
 * of what is done before it.)
 */
static inline uint64_t stamp_begin(void)
{
	uint64_t t = stamp();

#if defined(__x86_64__) || defined(__i386__)
	__asm__ volatile("lfence" ::: "memory");
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#endif
	stamp_fence();
	return t;
}

static inline uint64_t stamp_end(void)
{
	stamp_fence();
#if defined(__aarch64__)
	__asm__ volatile("dsb ish" ::: "memory");
#endif
	return stamp();
}

#endif /* MKW_CHECK_RECORD_H */
