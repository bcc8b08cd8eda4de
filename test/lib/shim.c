/* SPDX-License-Identifier: MIT */
/*
 * shim.c: the calls of a store, each through its fault point.
 *
 * `uses` counts the engine and whoever keeps the shim; the last one closes.
 * An asynchronous transfer that is to fail is never given to the store below:
 * its end is posted, so that it comes from the loop as ever.
 */
#include <stdlib.h>

#include "lib/fault.h"
#include "lib/shim.h"

struct counted {
	struct shim shim;
	_Atomic int uses;
};

static struct shim *shim(struct mkw__store *st)
{
	return (struct shim *)st;
}

static struct mkw__store *below(struct mkw__store *st)
{
	return shim(st)->below;
}

/* How much of a failing call's range is done all the same. */
static uint64_t done_of(uint64_t len, uint32_t unit)
{
	switch (fault_effect()) {
	case EFFECT_HALF:
		return len / 2 - len / 2 % unit;
	case EFFECT_ALL:
		return len;
	default:
		return 0;
	}
}

static int own(struct mkw__store *st)
{
	int r = fault_at(FAULT_OWN);

	if (!r)
		r = below(st)->ops->own(below(st));
	if (!r) {
		st->len = below(st)->len;
		shim(st)->len = st->len;
	}
	return r;
}

static int read_store(struct mkw__store *st, uint64_t off, void *buf,
		      size_t len)
{
	int r = fault_at(FAULT_READ);

	return r ? r : below(st)->ops->read(below(st), off, buf, len);
}

static void write_some(struct mkw__store *st, uint64_t off, const void *buf,
		       size_t len)
{
	len = done_of(len, st->direct_align);
	if (len)
		below(st)->ops->write(below(st), off, buf, len);
}

static int write_store(struct mkw__store *st, uint64_t off, const void *buf,
		       size_t len)
{
	int r = fault_at(FAULT_WRITE);

	if (!r)
		return below(st)->ops->write(below(st), off, buf, len);
	write_some(st, off, buf, len);
	return r;
}

static void submit(struct mkw__store *st, struct mkw__os_loop *l,
		   struct mkw__os_io *io)
{
	int r = fault_at(io->write ? FAULT_WRITE : FAULT_READ);

	if (!r) {
		below(st)->ops->submit(below(st), l, io);
		return;
	}
	if (io->write)
		write_some(st, io->off, io->buf, io->len);
	io->store = st;
	mkw__os_loop_post(l, io, r);
}

static int flush(struct mkw__store *st)
{
	int r = fault_at(FAULT_FLUSH);

	return r ? r : below(st)->ops->flush(below(st));
}

static int resize(struct mkw__store *st, uint64_t len)
{
	int r = fault_at(FAULT_RESIZE);

	if (!r)
		r = below(st)->ops->resize(below(st), len);
	if (!r)
		shim(st)->len = len;
	return r;
}

static int punch(struct mkw__store *st, uint64_t off, uint64_t len)
{
	int r = fault_at(FAULT_PUNCH);
	uint64_t some = r ? done_of(len, 1) : len;
	int r2 = some ? below(st)->ops->punch(below(st), off, some) : 0;

	return r ? r : r2;
}

static int zero(struct mkw__store *st, uint64_t off, uint64_t len)
{
	int r = fault_at(FAULT_PUNCH);
	uint64_t some = r ? done_of(len, 1) : len;
	int r2 = some ? below(st)->ops->zero(below(st), off, some) : 0;

	return r ? r : r2;
}

static int allocate(struct mkw__store *st, uint64_t off, uint64_t len)
{
	int r = fault_at(FAULT_ALLOCATE);

	return r ? r : below(st)->ops->allocate(below(st), off, len);
}

static int64_t seek(struct mkw__store *st, uint64_t off, bool data)
{
	int r = fault_at(FAULT_SEEK);

	return r ? r : below(st)->ops->seek(below(st), off, data);
}

static void let_go(struct mkw__store *st)
{
	struct counted *c = (struct counted *)st;

	if (atomic_fetch_sub(&c->uses, 1) > 1)
		return;
	below(st)->ops->close(below(st));
	free(c);
}

static const struct mkw__store_ops ops = {
	.own = own,
	.read = read_store,
	.write = write_store,
	.submit = submit,
	.flush = flush,
	.resize = resize,
	.punch = punch,
	.zero = zero,
	.allocate = allocate,
	.seek = seek,
	.close = let_go,
};

struct shim *shim_wrap(struct mkw__store *st)
{
	struct counted *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->shim.st = *st;
	c->shim.st.ops = &ops;
	c->shim.below = st;
	c->shim.len = st->len;
	c->uses = 1;
	return &c->shim;
}

void shim_keep(struct shim *s)
{
	atomic_fetch_add(&((struct counted *)s)->uses, 1);
}

void shim_release(struct shim *s)
{
	let_go(&s->st);
}
