/* SPDX-License-Identifier: MIT */
/*
 * cut.c: a store in memory as cut.h says: `now` is what reads see, `durable` what
 * is safe, and the journal between the two holds what a flush has not taken yet,
 * in order. All under one mutex, which is not held while a caller's buffer is
 * touched.
 *
 * The part of a block behind the end of the file is zero in every write (the
 * kernel's page is), and zeroed with the size that makes it the end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "crash/cut.h"
#include "crash/record.h"

enum kind { WRITE, RESIZE, CLEAR };

struct entry {
	TAILQ_ENTRY(entry) link;
	enum kind kind;
	uint64_t off;		/* RESIZE: the size */
	size_t len;
	bool complete;		/* a flush that begins now takes it */
	unsigned char data[];
};
TAILQ_HEAD(journal, entry);

struct cut {
	struct mkw__store st;
	enum cut_planted planted;
	struct mkw__os_mutex mutex;
	uint64_t len_max;
	unsigned char *now, *durable;
	uint64_t now_len, durable_len;
	struct journal journal;
};

/* An asynchronous write on its way to its end. */
struct flight {
	struct mkw__os_io *io;
	void (*done)(struct mkw__os_io *io, int res);
	struct cut *cut;
	struct entry *entry;
};

#define FLIGHTS 512u
static struct flight flights[FLIGHTS];
static struct mkw__os_mutex flights_mutex;

static struct cut *cut(struct mkw__store *st)
{
	return (struct cut *)st;
}

static uint32_t below(uint64_t *random, uint32_t n)
{
	*random = *random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*random >> 33) % n;
}

static uint64_t block_up(uint64_t x)
{
	return (x + BLOCK - 1) / BLOCK * BLOCK;
}

/* ---- entries, mutex held ---------------------------------------------- */

static struct entry *add(struct cut *c, enum kind kind, uint64_t off,
			 size_t len, const void *data)
{
	struct entry *e = calloc(1, sizeof(*e) + (data ? len : 0));

	if (!e)
		abort();
	*e = (struct entry){ .kind = kind, .off = off, .len = len,
			     .complete = true };
	if (data)
		memcpy(e->data, data, len);
	TAILQ_INSERT_TAIL(&c->journal, e, link);
	return e;
}

static void set_size(unsigned char *image, uint64_t *size, uint64_t to,
		     uint64_t len_max)
{
	if (to < *size)
		memset(image + to, 0, len_max - to);
	*size = to;
}

/* A write of blocks [from, to) of its own, as far as the image goes. */
static void put(const struct entry *e, size_t from, size_t to,
		unsigned char *image, uint64_t len_max)
{
	uint64_t end = e->off + to < len_max ? e->off + to : len_max;

	memcpy(image + e->off + from, e->data + from, end - e->off - from);
}

static void take(struct cut *c, struct entry *e)
{
	switch (e->kind) {
	case WRITE:
		put(e, 0, e->len, c->durable, c->len_max);
		break;
	case RESIZE:
		set_size(c->durable, &c->durable_len, e->off, c->len_max);
		break;
	case CLEAR:
		memset(c->durable + e->off, 0, e->len);
		break;
	}
	TAILQ_REMOVE(&c->journal, e, link);
	free(e);
}

/* ---- the store -------------------------------------------------------- */

static int own(struct mkw__store *st)
{
	st->len = cut(st)->now_len;
	return 0;
}

/* By blocks on the stack: the fault handler reads too, and allocates nothing. */
static int read_cut(struct mkw__store *st, uint64_t off, void *buf, size_t len)
{
	struct cut *c = cut(st);
	unsigned char copy[BLOCK];
	size_t n;
	int r = 0;

	for (; len && !r; off += n, len -= n, buf = mkw__os_at(buf, n)) {
		n = BLOCK - off % BLOCK;
		if (n > len)
			n = len;
		memset(copy, 0, n);
		mkw__os_mutex_lock(&c->mutex);
		if (off < c->now_len)
			memcpy(copy, c->now + off,
			       c->now_len - off < n ? c->now_len - off : n);
		mkw__os_mutex_unlock(&c->mutex);
		r = mkw__os_user_write(buf, copy, n);
	}
	return r;
}

/* The blocks of a write, the last one with zeros past the file's end. */
static struct entry *write_locked(struct cut *c, uint64_t off, size_t len,
				  const void *src)
{
	uint64_t start = off / BLOCK * BLOCK, end = block_up(off + len);

	if (off + len > c->now_len)
		mkw__os_panic("a write reaches past the end of its store");
	memcpy(c->now + off, src, len);
	return add(c, WRITE, start, end - start, c->now + start);
}

static int write_cut(struct mkw__store *st, uint64_t off, const void *buf,
		     size_t len)
{
	unsigned char *copy = malloc(len);
	int r = mkw__os_user_read(copy, buf, len);

	if (!r) {
		mkw__os_mutex_lock(&cut(st)->mutex);
		write_locked(cut(st), off, len, copy);
		mkw__os_mutex_unlock(&cut(st)->mutex);
	}
	free(copy);
	return r;
}

/* Only now does whoever flushes know of it. */
static void write_ended(struct mkw__os_io *io, int res)
{
	struct flight *f = flights;
	void (*done)(struct mkw__os_io *io, int res);

	mkw__os_mutex_lock(&flights_mutex);
	while (f->io != io)
		f++;
	mkw__os_mutex_lock(&f->cut->mutex);
	if (f->cut->planted == CUT_ENDS_EARLY && (io->off / 4096) % 8 == 1) {
		TAILQ_REMOVE(&f->cut->journal, f->entry, link);
		free(f->entry);
	} else {
		f->entry->complete = true;
	}
	mkw__os_mutex_unlock(&f->cut->mutex);
	done = f->done;
	f->io = NULL;
	mkw__os_mutex_unlock(&flights_mutex);
	io->done = done;
	done(io, res);
}

static void submit(struct mkw__store *st, struct mkw__os_loop *l,
		   struct mkw__os_io *io)
{
	struct flight *f = flights;
	int r = 0;

	io->store = st;
	if (!io->write) {
		r = read_cut(st, io->off, io->buf, io->len);
	} else {
		mkw__os_mutex_lock(&flights_mutex);
		while (f->io && f < flights + FLIGHTS - 1)
			f++;
		if (f->io)
			mkw__os_panic("too many writes in flight");
		mkw__os_mutex_lock(&cut(st)->mutex);
		*f = (struct flight){
			.io = io, .done = io->done, .cut = cut(st),
			.entry = write_locked(cut(st), io->off, io->len, io->buf),
		};
		f->entry->complete = false;
		mkw__os_mutex_unlock(&cut(st)->mutex);
		io->done = write_ended;
		mkw__os_mutex_unlock(&flights_mutex);
	}
	mkw__os_loop_post(l, io, r);
}

static int flush(struct mkw__store *st)
{
	struct cut *c = cut(st);
	struct entry *e, *next;

	mkw__os_mutex_lock(&c->mutex);
	for (e = TAILQ_FIRST(&c->journal);
	     e && c->planted != CUT_IGNORES_FLUSH; e = next) {
		next = TAILQ_NEXT(e, link);
		if (e->complete)
			take(c, e);
	}
	mkw__os_mutex_unlock(&c->mutex);
	return 0;
}

static int resize(struct mkw__store *st, uint64_t len)
{
	struct cut *c = cut(st);
	int r = len > c->len_max ? -EFBIG : 0;

	mkw__os_mutex_lock(&c->mutex);
	if (!r) {
		if (c->planted == CUT_ROUNDS_SIZES)
			add(c, RESIZE, block_up(len), 0, NULL);
		add(c, RESIZE, len, 0, NULL);
		set_size(c->now, &c->now_len, len, c->len_max);
	}
	mkw__os_mutex_unlock(&c->mutex);
	return r;
}

/* Whole blocks go; what remains of others is a write of them. */
static int clear_cut(struct mkw__store *st, uint64_t off, uint64_t len)
{
	struct cut *c = cut(st);
	uint64_t end = off + len, first = block_up(off);
	uint64_t last = end / BLOCK * BLOCK;

	mkw__os_mutex_lock(&c->mutex);
	memset(c->now + off, 0, len);
	if (off < first)
		add(c, WRITE, first - BLOCK, BLOCK, c->now + first - BLOCK);
	if (first < last)
		add(c, CLEAR, first, last - first, NULL);
	if (last < end && last >= first)
		add(c, WRITE, last, BLOCK, c->now + last);
	mkw__os_mutex_unlock(&c->mutex);
	return 0;
}

static int allocate(struct mkw__store *st, uint64_t off, uint64_t len)
{
	(void)st;
	(void)off;
	(void)len;
	return 0;
}

static int64_t seek(struct mkw__store *st, uint64_t off, bool data)
{
	return data ? (int64_t)off : (int64_t)cut(st)->now_len;
}

static void close_cut(struct mkw__store *st)
{
	struct cut *c = cut(st);
	struct entry *e;

	while ((e = TAILQ_FIRST(&c->journal)))
		take(c, e);
	free(c->now);
	free(c->durable);
	free(c);
}

static const struct mkw__store_ops ops = {
	.own = own,
	.read = read_cut,
	.write = write_cut,
	.submit = submit,
	.flush = flush,
	.resize = resize,
	.punch = clear_cut,
	.zero = clear_cut,
	.allocate = allocate,
	.seek = seek,
	.close = close_cut,
};

struct mkw__store *cut_open(uint64_t len, uint64_t len_max,
			    enum cut_planted planted)
{
	static uint64_t last_ino;
	struct cut *c = calloc(1, sizeof(*c));

	len_max = block_up(len_max);
	c->st = (struct mkw__store){
		.ops = &ops,
		.len = len,
		.direct_align = BLOCK,
		.memory_align = 1,
		.direct = true,
		.dev = UINT64_MAX - 1,
		.ino = ++last_ino,
	};
	c->planted = planted;
	c->len_max = len_max;
	c->now_len = c->durable_len = len;
	c->now = calloc(1, len_max);
	c->durable = calloc(1, len_max);
	TAILQ_INIT(&c->journal);
	return &c->st;
}

/* ---- the cut ---------------------------------------------------------- */

/* Some blocks of a volatile write: lost says how likely one is not there. */
static void put_some(struct cut *c, const struct entry *e, uint32_t lost,
		     uint64_t *random, unsigned char *image)
{
	for (size_t at = 0; at < e->len; at += BLOCK) {
		size_t n = BLOCK;

		if (below(random, 100) < lost)
			continue;
		if (c->planted == CUT_TEARS)
			n = BLOCK / 2;
		put(e, at, at + n, image, c->len_max);
	}
}

uint64_t cut_image(struct mkw__store *st, uint64_t *random, void *image)
{
	static const uint32_t chances[] = { 0, 5, 50, 95, 100 };
	uint32_t lost = chances[below(random, 5)], meta = 0, kept;
	struct cut *c = cut(st);
	struct entry *e;
	uint64_t size;

	mkw__os_mutex_lock(&c->mutex);
	memcpy(image, c->durable, c->len_max);
	size = c->durable_len;
	TAILQ_FOREACH(e, &c->journal, link)
		meta += e->kind != WRITE;
	kept = below(random, meta + 1);
	meta = 0;
	TAILQ_FOREACH(e, &c->journal, link) {
		if (e->kind == WRITE) {
			put_some(c, e, lost, random, image);
			continue;
		}
		if (meta++ >= kept)
			continue;
		if (e->kind == RESIZE)
			set_size(image, &size, e->off, c->len_max);
		else
			memset((unsigned char *)image + e->off, 0, e->len);
	}
	mkw__os_mutex_unlock(&c->mutex);
	return size;
}
