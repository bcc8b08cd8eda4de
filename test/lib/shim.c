/* SPDX-License-Identifier: MIT */
/*
 * shim.c: the calls of a store, each through its fault point.
 *
 * `uses` counts the engine and whoever keeps the shim; the last one closes.
 */
#include <stdlib.h>

#include "lib/fault.h"
#include "lib/shim.h"

struct counted {
	struct shim shim;
	_Atomic int uses;
};

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

static struct mkw__store *below(void *arg)
{
	return ((struct shim *)arg)->below;
}

static int own(void *arg, int writable, uint64_t *len)
{
	struct shim *s = arg;
	int r = fault_at(FAULT_OWN);

	(void)writable;
	if (!r)
		r = mkw__store_own(s->below);
	if (!r)
		s->len = *len = s->below->len;
	return r;
}

static void read_store(void *arg, struct mkw_io *io)
{
	int r = fault_at(FAULT_READ);

	if (r)
		mkw_io_done(io, r);
	else
		below(arg)->ops.read(below(arg)->arg, io);
}

static void write_store(void *arg, struct mkw_io *io)
{
	struct shim *s = arg;
	int r = fault_at(FAULT_WRITE);
	uint64_t some = r ? done_of(io->len, s->st->direct_align) : 0;

	if (some)
		mkw__store_write(s->below, io->off, io->buf, some);
	if (r)
		mkw_io_done(io, r);
	else
		s->below->ops.write(s->below->arg, io);
}

static void flush(void *arg, struct mkw_io *io)
{
	int r = fault_at(FAULT_FLUSH);

	mkw_io_done(io, r ? r : mkw__store_flush(below(arg)));
}

static void resize(void *arg, struct mkw_io *io)
{
	struct shim *s = arg;
	int r = fault_at(FAULT_RESIZE);

	if (!r)
		r = mkw__store_resize(s->below, io->len);
	if (!r)
		s->len = io->len;
	mkw_io_done(io, r);
}

static void punch(void *arg, struct mkw_io *io)
{
	int r = fault_at(FAULT_PUNCH);
	uint64_t some = r ? done_of(io->len, 1) : io->len;
	int r2 = some ? mkw__store_punch(below(arg), io->off, some) : 0;

	mkw_io_done(io, r ? r : r2);
}

static void zero(void *arg, struct mkw_io *io)
{
	int r = fault_at(FAULT_PUNCH);
	uint64_t some = r ? done_of(io->len, 1) : io->len;
	int r2 = some ? mkw__store_zero(below(arg), io->off, some) : 0;

	mkw_io_done(io, r ? r : r2);
}

static void allocate(void *arg, struct mkw_io *io)
{
	int r = fault_at(FAULT_ALLOCATE);

	mkw_io_done(io, r ? r : mkw__store_allocate(below(arg), io->off,
						    io->len));
}

static int64_t seek(void *arg, uint64_t off, int data)
{
	int r = fault_at(FAULT_SEEK);

	return r ? r : mkw__store_seek(below(arg), off, data);
}

static void let_go(void *arg)
{
	struct counted *c = arg;

	if (atomic_fetch_sub(&c->uses, 1) > 1)
		return;
	mkw__store_close(c->shim.below);
	free(c);
}

static const struct mkw_store_ops ops = {
	MKW_STORE_OPS_INIT,
	.own = own,
	.read = read_store,
	.write = write_store,
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
	struct mkw_store_info info = {
		.size = sizeof(info),
		.len = st->len,
		.id = { st->dev, st->ino },
		.align = st->direct_align,
		.memory_align = st->memory_align,
		.block = st->block,
		.flags = MKW_STORE_DIRECT | MKW_STORE_USER_MEMORY |
			 MKW_STORE_ANY_CONTEXT,
	};

	if (!c)
		return NULL;
	c->shim.below = st;
	c->shim.len = st->len;
	c->uses = 1;
	if (mkw__store_make(&ops, &info, c, true, &c->shim.st)) {
		free(c);
		return NULL;
	}
	return &c->shim;
}

void shim_keep(struct shim *s)
{
	atomic_fetch_add(&((struct counted *)s)->uses, 1);
}

void shim_release(struct shim *s)
{
	let_go(s);
}
