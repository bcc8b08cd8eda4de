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
	void (*then)(struct mkw__os_io *io, int res);
	struct cut *cut;
	struct entry *entry;
};

#define FLIGHTS 512u
static struct flight flights[FLIGHTS];
static struct mkw__os_mutex flights_mutex;

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

/* By blocks on the stack: the fault handler reads too, and allocates nothing. */
static int read_cut(struct cut *c, uint64_t off, void *buf, size_t len)
{
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

static void read_op(void *arg, struct mkw_io *io)
{
	int r = read_cut(arg, io->off, io->buf, io->len);

	mkw_io_done(io, r ? r : (ssize_t)io->len);
}

/* Only now does whoever flushes know of it. */
static void write_ended(struct mkw__os_io *io, int res)
{
	struct flight *f = flights;
	void (*then)(struct mkw__os_io *io, int res);

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
	then = f->then;
	f->io = NULL;
	mkw__os_mutex_unlock(&flights_mutex);
	then(io, res);
}

/* Not complete before the engine has heard of the end. */
static void write_later(struct cut *c, struct mkw_io *ask)
{
	struct mkw__os_io *io = mkw__store_io(ask);
	struct flight *f = flights;

	mkw__os_mutex_lock(&flights_mutex);
	while (f->io && f < flights + FLIGHTS - 1)
		f++;
	if (f->io)
		mkw__os_panic("too many writes in flight");
	mkw__os_mutex_lock(&c->mutex);
	*f = (struct flight){
		.io = io, .then = io->then, .cut = c,
		.entry = write_locked(c, ask->off, ask->len, ask->buf),
	};
	f->entry->complete = false;
	mkw__os_mutex_unlock(&c->mutex);
	io->then = write_ended;
	mkw__os_mutex_unlock(&flights_mutex);
	mkw_io_done(ask, (ssize_t)ask->len);
}

static void write_op(void *arg, struct mkw_io *io)
{
	struct cut *c = arg;
	unsigned char *copy;
	int r;

	if (!(io->flags & MKW_IO_MAY_BLOCK)) {
		write_later(c, io);
		return;
	}
	copy = malloc(io->len);
	r = mkw__os_user_read(copy, io->buf, io->len);
	if (!r) {
		mkw__os_mutex_lock(&c->mutex);
		write_locked(c, io->off, io->len, copy);
		mkw__os_mutex_unlock(&c->mutex);
	}
	free(copy);
	mkw_io_done(io, r ? r : (ssize_t)io->len);
}

static void flush(void *arg, struct mkw_io *io)
{
	struct cut *c = arg;
	struct entry *e, *next;

	mkw__os_mutex_lock(&c->mutex);
	for (e = TAILQ_FIRST(&c->journal);
	     e && c->planted != CUT_IGNORES_FLUSH; e = next) {
		next = TAILQ_NEXT(e, link);
		if (e->complete)
			take(c, e);
	}
	mkw__os_mutex_unlock(&c->mutex);
	mkw_io_done(io, 0);
}

static void resize(void *arg, struct mkw_io *io)
{
	struct cut *c = arg;
	uint64_t len = io->len;
	int r = len > c->len_max ? -EFBIG : 0;

	mkw__os_mutex_lock(&c->mutex);
	if (!r) {
		if (c->planted == CUT_ROUNDS_SIZES)
			add(c, RESIZE, block_up(len), 0, NULL);
		add(c, RESIZE, len, 0, NULL);
		set_size(c->now, &c->now_len, len, c->len_max);
	}
	mkw__os_mutex_unlock(&c->mutex);
	mkw_io_done(io, r);
}

/* Whole blocks go; what remains of others is a write of them. */
static void clear_cut(void *arg, struct mkw_io *io)
{
	struct cut *c = arg;
	uint64_t off = io->off, len = io->len, end = off + len, first = block_up(off);
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
	mkw_io_done(io, 0);
}

static void allocate(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, 0);
}

static void close_cut(void *arg)
{
	struct cut *c = arg;
	struct entry *e;

	while ((e = TAILQ_FIRST(&c->journal)))
		take(c, e);
	free(c->now);
	free(c->durable);
	free(c);
}

static const struct mkw_store_ops ops = {
	MKW_STORE_OPS_INIT,
	.read = read_op,
	.write = write_op,
	.flush = flush,
	.resize = resize,
	.punch = clear_cut,
	.zero = clear_cut,
	.allocate = allocate,
	.close = close_cut,
};

struct mkw__store *cut_open(uint64_t len, uint64_t len_max,
			    enum cut_planted planted)
{
	static uint64_t last_ino;
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct cut *c = calloc(1, sizeof(*c));
	struct mkw__store *st;

	len_max = block_up(len_max);
	info.len = len;
	info.align = BLOCK;
	info.id[0] = UINT64_MAX - 1;
	info.id[1] = ++last_ino;
	info.flags = MKW_STORE_DIRECT | MKW_STORE_USER_MEMORY |
		     MKW_STORE_ANY_CONTEXT;
	c->planted = planted;
	c->len_max = len_max;
	c->now_len = c->durable_len = len;
	c->now = calloc(1, len_max);
	c->durable = calloc(1, len_max);
	TAILQ_INIT(&c->journal);
	if (mkw__store_make(&ops, &info, c, true, &st))
		abort();
	return st;
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
	struct cut *c = st->arg;
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
