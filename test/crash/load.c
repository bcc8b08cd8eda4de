/* SPDX-License-Identifier: MIT */
/*
 * load.c: see load.h. Each operation: issued in the record, made, and done in the
 * record. One whose log is full waits for no sync: it is left out.
 */
#include <linux/falloc.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/load.h"

struct worker {
	const struct load *l;
	unsigned id;
	uint64_t random;
	uint64_t size;			/* of the file; thread 0 */
	uint64_t buf[4 * LOAD_PAGE / 8] __attribute__((aligned(4096)));
	uint32_t floors[LOAD_BLOCKS + 1];
};

static uint32_t pick(struct worker *w, uint32_t below)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(w->random >> 33) % below;
}

static void lock(const struct load *l)
{
	if (l->lock)
		l->lock();
}

static void unlock(const struct load *l)
{
	if (l->unlock)
		l->unlock();
}

/* True: issued, and buf has the values. zero: they are zeros. */
static bool begin(struct worker *w, uint64_t off, size_t len, bool zero)
{
	bool room;

	lock(w->l);
	room = record_has_room(w->l->record, off, len);
	if (room)
		record_issue(w->l->record, off, len, zero ? NULL : w->buf);
	unlock(w->l);
	return room;
}

static void end(struct worker *w, uint64_t off, size_t len, bool through,
		ssize_t r, ssize_t want)
{
	char text[100];

	if (r != want) {
		snprintf(text, sizeof(text), "an operation at %llu returned %zd",
			 (unsigned long long)off, r);
		w->l->finding(text);
	}
	lock(w->l);
	record_done(w->l->record, off, len,
		    through && w->l->through_is_durable);
	unlock(w->l);
}

/* ---- operations on blocks --------------------------------------------- */

static void store_word(struct worker *w, uint64_t off)
{
	off += 8 * pick(w, WORDS);
	if (!begin(w, off, 8, false))
		return;
	atomic_store_explicit((_Atomic uint64_t *)(void *)(w->l->map + off),
			      w->buf[0], memory_order_relaxed);
	end(w, off, 8, false, 0, 0);
}

/* Some words of a run of blocks. */
static void write_words(struct worker *w, uint64_t off, size_t len)
{
	uint64_t from = 8 * pick(w, WORDS), cut = 8 * pick(w, WORDS);

	if (from + cut >= len)
		return;
	off += from;
	len -= from + cut;
	if (begin(w, off, len, false))
		end(w, off, len, false,
		    mkw_pwrite(w->l->file, w->buf, len, (off_t)off, 0),
		    (ssize_t)len);
}

static void write_direct(struct worker *w, uint64_t off, size_t len)
{
	unsigned align = w->l->direct_align;

	if (off % align || len % align || !begin(w, off, len, false))
		return;
	end(w, off, len, true,
	    mkw_pwrite(w->l->file, w->buf, len, (off_t)off, MKW_DIRECT),
	    (ssize_t)len);
}

/* Every other time it ends inside of blocks, whose rest stays. */
static void clear(struct worker *w, uint64_t off, size_t len, int mode)
{
	uint64_t from = 8 * pick(w, WORDS), cut = 8 * pick(w, WORDS);

	if (pick(w, 2) && from + cut < len) {
		off += from;
		len -= from + cut;
	}
	if (begin(w, off, len, true))
		end(w, off, len, true,
		    mkw_fallocate(w->l->file, mode | FALLOC_FL_KEEP_SIZE,
				  (off_t)off, (off_t)len), 0);
}

static void check(struct worker *w, uint64_t off)
{
	uint64_t want[WORDS];
	ssize_t r = BLOCK;

	lock(w->l);
	record_expect(w->l->record, off / BLOCK, want);
	unlock(w->l);
	if (pick(w, 2))
		memcpy(w->buf, w->l->map + off, BLOCK);
	else
		r = mkw_pread(w->l->file, w->buf, BLOCK, (off_t)off,
			      pick(w, 2) && w->l->direct_align <= BLOCK ?
				      MKW_DIRECT : 0);
	if (r != BLOCK || memcmp(w->buf, want, BLOCK))
		w->l->finding("a read is not what its only writer wrote");
}

static void sync_all(struct worker *w)
{
	char text[100];
	int r;

	lock(w->l);
	record_sync_begin(w->l->record, w->floors);
	unlock(w->l);
	r = mkw_sync(w->l->file);
	if (r) {
		snprintf(text, sizeof(text), "sync returned %d", r);
		w->l->finding(text);
		return;
	}
	lock(w->l);
	record_sync_end(w->l->record, w->floors);
	unlock(w->l);
}

static void on_blocks(struct worker *w)
{
	uint64_t off;
	size_t len = BLOCK;

	if (pick(w, 2)) {
		off = pick(w, LOAD_SECTORS / LOAD_THREADS) * LOAD_THREADS + w->id;
	} else {
		off = LOAD_SECTORS +
		      (pick(w, LOAD_CHUNKS / LOAD_THREADS) * LOAD_THREADS +
		       w->id) * LOAD_CHUNK +
		      pick(w, LOAD_CHUNK / 2);
		len *= 1 + pick(w, LOAD_CHUNK / 2);
	}
	off *= BLOCK;
	if (len > sizeof(w->buf))
		len = sizeof(w->buf);
	switch (pick(w, 12)) {
	case 0:
		clear(w, off, len, FALLOC_FL_PUNCH_HOLE);
		break;
	case 1:
		clear(w, off, len, w->l->no_zero_range ? FALLOC_FL_PUNCH_HOLE :
							 FALLOC_FL_ZERO_RANGE);
		break;
	case 2:
	case 3:
		write_direct(w, off, len);
		break;
	case 4:
	case 5:
		write_words(w, off, len);
		break;
	case 6:
		check(w, off);
		break;
	default:
		store_word(w, off);
	}
}

/* ---- the tail --------------------------------------------------------- */

/* Both records, or neither. */
static bool begin_sized(struct worker *w, uint64_t off, size_t len, bool zero,
			uint64_t size)
{
	bool room;

	lock(w->l);
	room = record_has_room(w->l->record, off, len) &&
	       record_size_has_room(w->l->record);
	if (room) {
		record_size_issue(w->l->record, size);
		record_issue(w->l->record, off, len, zero ? NULL : w->buf);
	}
	unlock(w->l);
	return room;
}

static void end_sized(struct worker *w, uint64_t off, size_t len, bool through,
		      ssize_t r, ssize_t want, uint64_t size)
{
	w->size = size;
	lock(w->l);
	record_size_done(w->l->record, w->l->through_is_durable);
	unlock(w->l);
	end(w, off, len, through, r, want);
}

static void append(struct worker *w)
{
	uint64_t off = w->size;
	size_t len = 8 * (1 + pick(w, 3 * WORDS));

	if (off + len > LOAD_BYTES ||
	    !begin_sized(w, off, len, false, off + len))
		return;
	end_sized(w, off, len, false,
		  mkw_pwrite(w->l->file, w->buf, len, (off_t)off, 0),
		  (ssize_t)len, off + len);
}

static void cut_off(struct worker *w)
{
	uint64_t size = (uint64_t)LOAD_TAIL * BLOCK +
			8 * pick(w, (LOAD_BLOCKS - LOAD_TAIL) * WORDS);
	uint64_t from = size < w->size ? size : w->size;

	/* What lies past the smaller of the two sizes is zero. */
	if (from == LOAD_BYTES ||
	    !begin_sized(w, from, LOAD_BYTES - from, true, size))
		return;
	end_sized(w, from, LOAD_BYTES - from, true,
		  mkw_truncate(w->l->file, (off_t)size), 0, size);
}

static void on_tail(struct worker *w)
{
	uint64_t off = (uint64_t)LOAD_TAIL * BLOCK;

	switch (pick(w, 4)) {
	case 0:
		cut_off(w);
		break;
	case 1:
		if (w->size >= off + BLOCK)
			store_word(w, off + (w->size - off) / BLOCK / 2 * BLOCK);
		break;
	default:
		append(w);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	do {
		if (!pick(w, 60))
			sync_all(w);
		else if (!w->id && !pick(w, 3))
			on_tail(w);
		else
			on_blocks(w);
	} while (!w->l->after());
	return NULL;
}

void load_run(const struct load *l)
{
	struct worker *w[LOAD_THREADS];
	pthread_t thread[LOAD_THREADS];

	for (unsigned i = 0; i < LOAD_THREADS; i++) {
		w[i] = aligned_alloc(4096, (sizeof(*w[i]) + 4095) & ~4095ul);
		w[i]->l = l;
		w[i]->id = i;
		w[i]->random = l->seed * 977 + i;
		w[i]->size = (uint64_t)mkw_size(l->file);
		if (pthread_create(&thread[i], NULL, work, w[i]))
			abort();
	}
	for (unsigned i = 0; i < LOAD_THREADS; i++) {
		pthread_join(thread[i], NULL);
		free(w[i]);
	}
}
