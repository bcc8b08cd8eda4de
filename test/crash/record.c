/* SPDX-License-Identifier: MIT */
/*
 * record.c: record.h says it. A value is number, block and word in one, never 0;
 * numbers go on from one crash to the next, so a value is never written twice.
 */
#include <stdio.h>
#include <string.h>

#include "crash/record.h"

static uint64_t value(uint64_t block, unsigned word, uint32_t n)
{
	return (uint64_t)n << 32 | block << 8 | word | 0x80;
}

size_t record_bytes(uint64_t blocks)
{
	return sizeof(struct record) + blocks * sizeof(struct record_block);
}

void record_init(struct record *r, uint64_t blocks, uint64_t tail,
		 uint64_t size)
{
	memset(r, 0, record_bytes(blocks));
	r->blocks = blocks;
	r->tail = tail;
	r->size.value[0] = size;
}

/* ---- numbers ---------------------------------------------------------- */

/* The words of one block that lie in [off, off + len). */
static uint64_t mask_of(uint64_t block, uint64_t off, size_t len)
{
	uint64_t start = block * BLOCK, mask = 0;

	for (unsigned w = 0; w < WORDS; w++)
		if (start + 8 * w >= off && start + 8 * w < off + len)
			mask |= (uint64_t)1 << w;
	return mask;
}

static void apply(const struct record_block *b, uint64_t block, uint32_t n,
		  uint64_t *words)
{
	const struct record_op *op = &b->log[n % LOG];

	for (unsigned w = 0; w < WORDS; w++)
		if (op->mask >> w & 1)
			words[w] = op->zero ? 0 : value(block, w, n);
}

static void state(const struct record_block *b, uint64_t block, uint32_t n,
		  uint64_t *words)
{
	memcpy(words, b->base, BLOCK);
	for (uint32_t i = b->trimmed + 1; i <= n; i++)
		apply(b, block, i, words);
}

bool record_has_room(const struct record *r, uint64_t off, size_t len)
{
	for (uint64_t i = off / BLOCK; i * BLOCK < off + len; i++)
		if (r->block[i].issued - r->block[i].trimmed >= LOG - 1)
			return false;
	return true;
}

void record_trim(struct record *r)
{
	for (uint64_t i = 0; i < r->blocks; i++) {
		struct record_block *b = &r->block[i];

		while (b->trimmed < b->floor)
			apply(b, i, ++b->trimmed, b->base);
	}
}

void record_issue(struct record *r, uint64_t off, size_t len, uint64_t *buf)
{
	for (uint64_t i = off / BLOCK; i * BLOCK < off + len; i++) {
		struct record_block *b = &r->block[i];
		uint32_t n = b->issued + 1;
		uint64_t mask = mask_of(i, off, len);

		b->log[n % LOG] = (struct record_op){ mask, !buf };
		atomic_store(&b->issued, n);
		for (unsigned w = 0; buf && w < WORDS; w++)
			if (mask >> w & 1)
				*buf++ = value(i, w, n);
	}
}

static void raise_floor(_Atomic uint32_t *floor, uint32_t to)
{
	uint32_t was = atomic_load(floor);

	while (was < to && !atomic_compare_exchange_weak(floor, &was, to))
		;
}

void record_done(struct record *r, uint64_t off, size_t len, bool durable)
{
	for (uint64_t i = off / BLOCK; i * BLOCK < off + len; i++) {
		struct record_block *b = &r->block[i];

		atomic_store(&b->done, b->issued);
		if (durable && !~mask_of(i, off, len))
			raise_floor(&b->floor, b->issued);
	}
	atomic_fetch_add(&r->ops, 1);
}

bool record_size_has_room(const struct record *r)
{
	return r->size.issued - r->size.floor < LOG - 1;
}

void record_size_issue(struct record *r, uint64_t size)
{
	uint32_t n = r->size.issued + 1;

	r->size.value[n % LOG] = size;
	atomic_store(&r->size.issued, n);
}

void record_size_done(struct record *r, bool durable)
{
	atomic_store(&r->size.done, r->size.issued);
	if (durable)
		raise_floor(&r->size.floor, r->size.issued);
}

void record_sync_begin(struct record *r, uint32_t *floors)
{
	for (uint64_t i = 0; i < r->blocks; i++)
		floors[i] = atomic_load(&r->block[i].done);
	floors[r->blocks] = atomic_load(&r->size.done);
}

void record_sync_end(struct record *r, const uint32_t *floors)
{
	for (uint64_t i = 0; i < r->blocks; i++)
		raise_floor(&r->block[i].floor, floors[i]);
	raise_floor(&r->size.floor, floors[r->blocks]);
}

void record_expect(const struct record *r, uint64_t block, uint64_t *words)
{
	state(&r->block[block], block, r->block[block].done, words);
}

/* ---- after the crash -------------------------------------------------- */

/* Of n words those that some state does not explain; 0: one explains them all. */
static uint64_t unexplained(const struct record_block *b, uint64_t block,
			    const uint64_t *got, unsigned n, bool each)
{
	uint64_t all = n < WORDS ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;
	uint64_t words[WORDS], left = all;

	state(b, block, b->floor, words);
	for (uint32_t i = b->floor;; apply(b, block, ++i, words)) {
		uint64_t differ = 0;

		for (unsigned w = 0; w < n; w++)
			differ |= (uint64_t)(words[w] != got[w]) << w;
		if (!differ)
			return 0;
		left &= differ;
		if (i == b->issued)
			break;
	}
	return each ? left : left ? left : all;
}

bool record_judge(const struct record *r, const void *image, uint64_t size,
		  char *why, size_t why_len)
{
	bool known = false;

	for (uint32_t n = r->size.floor; n <= r->size.issued; n++)
		known |= r->size.value[n % LOG] == size;
	if (!known) {
		snprintf(why, why_len, "the size is %llu, which was not set since the last sync",
			 (unsigned long long)size);
		return false;
	}
	for (uint64_t i = 0; i < r->blocks && i * BLOCK < size; i++) {
		const struct record_block *b = &r->block[i];
		const uint64_t *got = (const uint64_t *)image + i * WORDS;
		uint64_t rest = (size - i * BLOCK) / 8, bad;

		bad = unexplained(b, i, got, rest < WORDS ? (unsigned)rest : WORDS,
				  i >= r->tail);
		if (bad) {
			unsigned w = (unsigned)__builtin_ctzll(bad);

			snprintf(why, why_len,
				 "block %llu, word %u is %016llx (words %016llx); operations %u to %u could explain it",
				 (unsigned long long)i, w,
				 (unsigned long long)got[w],
				 (unsigned long long)bad, b->floor, b->issued);
			return false;
		}
	}
	return true;
}

void record_restart(struct record *r, const void *image, uint64_t size)
{
	for (uint64_t i = 0; i < r->blocks; i++) {
		struct record_block *b = &r->block[i];
		const uint64_t *got = (const uint64_t *)image + i * WORDS;

		for (unsigned w = 0; w < WORDS; w++)
			b->base[w] = i * BLOCK + 8 * w < size ? got[w] : 0;
		b->trimmed = b->issued;
		b->done = b->floor = b->issued;
	}
	r->size.value[0] = size;
	r->size.issued = r->size.done = r->size.floor = 0;
}
