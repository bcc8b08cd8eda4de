/* SPDX-License-Identifier: MIT */
/*
 * disk.c: a file on a simulated disk, and the store that the engine has of it.
 *
 * The disk moves blocks of SIM_BLOCK bytes, each in one piece. Requests of the
 * loops are moved by tasks, the devices, one each, a step for some of its blocks: so
 * they overlap, and end in any order. A blocking call moves its blocks itself, with
 * steps in between, and so overlaps with the others too. A block is allocated by
 * writing or allocating it.
 *
 * What the engine has promised in store.h is checked: no write past the length,
 * never two writes of a block at once, and (strict) no punch, zero or shrink
 * of blocks that are being read or written.
 */
#include "sim/machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#define DEVICES 4u		/* where any may serve any task */
#define DEVICES_MAX 16u

enum op_kind { OP_READ, OP_WRITE, OP_TAKE, OP_RELEASE };

/* A piece of work under way, of whoever. */
struct op {
	struct op *next;
	enum op_kind kind;
	uint64_t start, end;
	const char *who;
};

struct sim_disk {
	struct sim_disk *next;
	uint64_t len;
	uint64_t capacity;	/* blocks */
	char *data;
	uint8_t *allocated;	/* one byte a block */
	struct op *ops;
	bool owned, strict;
	unsigned fail[SIM_DISK_CALLS];	/* countdowns */
	unsigned failed_writes;
	struct sim_cache *cache;	/* NULL: not watched */
	void (*written)(uint64_t off);	/* where it is watched */
	uint64_t bad_start, bad_end;	/* bytes whose writes fail */
	uint64_t used, space;	/* blocks: allocated, and at most; 0: any */
};

struct store {
	struct sim_disk *disk;
	bool open, owner;
};

/* A request of a loop. */
struct request {
	TAILQ_ENTRY(request) link;	/* waits for a device, or is free */
	struct mkw_io *io;
	struct sim_disk *disk;
	struct op op;
	bool write;
	size_t moved;
	bool late;
	int fails;			/* before its last blocks */
	int res;
};
TAILQ_HEAD(requests, request);

struct device {
	struct sim_task *task;		/* NULL: not started yet */
	struct request *request;	/* NULL: idle */
	struct requests waiting;	/* for this one; with transactions */
};

static struct sim_disk *disks;
static struct device devices[DEVICES_MAX];
static unsigned devices_prepared;	/* each for one task's requests */
static struct requests waiting, free_requests;

/* A few at most: beyond the end of a small file all blocks are one. */
static void touch_blocks(enum sim_object kind, struct sim_disk *d, uint64_t off,
			 uint64_t end, unsigned mode)
{
	uint64_t last = d->capacity, b = off / SIM_BLOCK;

	for (; sim_recording && b < last && b * SIM_BLOCK < end; b++)
		sim_touch(kind, d, b, mode);
	if (end > last * SIM_BLOCK)
		sim_touch(kind, d, 0xffff, mode);
}

/* ---- the platter ------------------------------------------------------ */

static void grow(struct sim_disk *d, uint64_t len)
{
	uint64_t blocks = (len + SIM_BLOCK - 1) / SIM_BLOCK;
	char *data;
	uint8_t *allocated;

	if (blocks <= d->capacity)
		return;
	blocks *= 2;
	data = sim_machine_alloc(blocks * SIM_BLOCK);
	allocated = sim_machine_alloc(blocks);
	if (d->capacity) {
		memcpy(data, d->data, d->capacity * SIM_BLOCK);
		memcpy(allocated, d->allocated, d->capacity);
	}
	d->data = data;
	d->allocated = allocated;
	d->capacity = blocks;
}

/* False: the disk is full. Whether it is matters only where it can be. */
static bool set_allocated(struct sim_disk *d, uint64_t block, bool on)
{
	if (d->space && on != d->allocated[block])
		sim_touch(SIM_O_DISK, d, 0, SIM_WRITE);
	if (on && !d->allocated[block] && d->space && d->used >= d->space)
		return false;
	d->used += (uint64_t)on - d->allocated[block];
	d->allocated[block] = on;
	return true;
}

struct sim_disk *sim_disk_create(uint64_t len)
{
	struct sim_disk *d = sim_machine_alloc(sizeof(*d));

	grow(d, len ? len : 1);
	d->len = len;
	d->strict = true;
	d->next = disks;
	disks = d;
	return d;
}

uint64_t sim_disk_peek(struct sim_disk *d, uint64_t off)
{
	uint64_t v = 0;

	if (off + sizeof(v) <= d->len)
		memcpy(&v, d->data + off, sizeof(v));
	return v;
}

void sim_disk_poke(struct sim_disk *d, uint64_t off, uint64_t value)
{
	memcpy(d->data + off, &value, sizeof(value));
	set_allocated(d, off / SIM_BLOCK, true);
}

bool sim_disk_allocated(struct sim_disk *d, uint64_t off)
{
	return off < d->capacity * SIM_BLOCK && d->allocated[off / SIM_BLOCK];
}

uint64_t sim_disk_len(struct sim_disk *d)
{
	return d->len;
}

void sim_disk_fail(struct sim_disk *d, enum sim_disk_call call, unsigned nth)
{
	d->fail[call] = nth;
}

unsigned sim_disk_failed_writes(struct sim_disk *d)
{
	return d->failed_writes;
}

void sim_disk_watch(struct sim_disk *d, void (*written)(uint64_t off))
{
	d->cache = sim_cache_create(d->len);
	for (uint64_t b = 0; b * SIM_BLOCK < d->len; b++)
		sim_cache_block(d->cache, b, d->data + b * SIM_BLOCK);
	sim_cache_flush_end(d->cache, sim_cache_flush_begin(d->cache));
	d->written = written;
}

bool sim_disk_watched(struct sim_disk *d)
{
	return d->cache;
}

uint64_t sim_disk_crash(struct sim_disk *d, uint64_t *random, char *image,
			uint64_t size)
{
	return sim_cache_crash(d->cache, random, image, size);
}

/* The blocks of [off, end) have a new content. */
static void changed(struct sim_disk *d, uint64_t off, uint64_t end)
{
	for (uint64_t b = off / SIM_BLOCK; d->cache && b * SIM_BLOCK < end; b++) {
		sim_cache_block(d->cache, b, d->data + b * SIM_BLOCK);
		d->written(b * SIM_BLOCK);
	}
}

void sim_disk_stretch(struct sim_disk *d, uint64_t len)
{
	sim_touch(SIM_O_DISK, d, 0, SIM_WRITE);
	grow(d, len);
	d->len = len;
}

void sim_disk_change(struct sim_disk *d, uint64_t off, uint64_t value)
{
	touch_blocks(SIM_O_BLOCK, d, off, off + sizeof(value), SIM_WRITE);
	sim_disk_poke(d, off, value);
}

void sim_disk_bad(struct sim_disk *d, uint64_t start, uint64_t end)
{
	d->bad_start = start;
	d->bad_end = end;
}

bool sim_disk_is_bad(struct sim_disk *d, uint64_t off)
{
	return off >= d->bad_start && off < d->bad_end;
}

void sim_disk_space_left(struct sim_disk *d, uint64_t blocks)
{
	d->space = blocks == UINT64_MAX ? 0 : d->used + blocks;
}

void sim_disk_heal(void)
{
	for (struct sim_disk *d = disks; d; d = d->next) {
		memset(d->fail, 0, sizeof(d->fail));
		d->space = 0;
		d->bad_end = 0;
	}
}

void sim_disk_strict(struct sim_disk *d, bool on)
{
	d->strict = on;
}

/* ---- the contract of store.h ------------------------------------------ */

static const char *const kind_names[] = { "read", "write", "punch, zero or resize",
					"release" };

/* The blocks that op touches, as they would collide. */
static bool collide(const struct op *a, const struct op *b, bool strict)
{
	if (a->start >= b->end || b->start >= a->end)
		return false;
	if (a->kind == OP_WRITE && b->kind == OP_WRITE)
		return true;
	if (a->kind == OP_RELEASE || b->kind == OP_RELEASE)
		return strict && a->kind != OP_READ && b->kind != OP_READ;
	return strict && (a->kind == OP_TAKE || b->kind == OP_TAKE);
}

/* Reads commute; writes are told of other writes, too. */
static void touch_op(struct sim_disk *d, const struct op *op)
{
	if (op->kind == OP_READ || op->kind == OP_TAKE)
		touch_blocks(SIM_O_READING, d, op->start, op->end,
			     op->kind == OP_READ ? SIM_READ : SIM_WRITE);
	if (op->kind != OP_READ)
		touch_blocks(SIM_O_WRITING, d, op->start, op->end, SIM_WRITE);
}

static void op_begin(struct sim_disk *d, struct op *op, enum op_kind kind,
		     uint64_t start, uint64_t end)
{
	*op = (struct op){ d->ops, kind, start, end, sim_task_self()->name };
	touch_op(d, op);
	sim_touch(SIM_O_DISK, d, 0, SIM_READ);
	if (kind == OP_WRITE && end > d->len)
		sim_violation("task %s writes [%llu, %llu) past the store's length %llu",
			      op->who, (unsigned long long)start,
			      (unsigned long long)end, (unsigned long long)d->len);
	for (struct op *o = d->ops; o; o = o->next)
		if (collide(op, o, d->strict))
			sim_violation("store: %s of [%llu, %llu) by %s while a %s of [%llu, %llu) by %s is under way",
				      kind_names[kind], (unsigned long long)start,
				      (unsigned long long)end, op->who,
				      kind_names[o->kind],
				      (unsigned long long)o->start,
				      (unsigned long long)o->end, o->who);
	d->ops = op;
}

static void op_end(struct sim_disk *d, struct op *op)
{
	struct op **p = &d->ops;

	touch_op(d, op);
	while (*p != op)
		p = &(*p)->next;
	*p = op->next;
}

static int fail(struct sim_disk *d, enum sim_disk_call call)
{
	unsigned *countdown = &d->fail[call];

	sim_touch(SIM_O_DISK, d, 0, *countdown ? SIM_WRITE : SIM_READ);
	if (*countdown == UINT_MAX)
		return -EIO;
	return *countdown && --*countdown == 0 ? -EIO : 0;
}

/* ---- moving blocks ---------------------------------------------------- */

/* Bytes of [off, off + len) up to the end of some block, by the seed. */
static size_t some_blocks(uint64_t off, size_t len)
{
	uint64_t blocks = (off + len + SIM_BLOCK - 1) / SIM_BLOCK - off / SIM_BLOCK;
	uint64_t n = sim_config()->transactions ? 1 :
		     sim_env_random(2) ? blocks : 1 + sim_env_random(blocks);
	uint64_t end = (off / SIM_BLOCK + n) * SIM_BLOCK;

	return end - off < len ? end - off : len;
}

/* The part of a piece that is inside the file; the rest reads as zero. */
static void platter_read(struct sim_disk *d, uint64_t off, char *buf, size_t n)
{
	size_t inside = off >= d->len ? 0 : d->len - off < n ? d->len - off : n;

	touch_blocks(SIM_O_BLOCK, d, off, off + n, SIM_READ);
	sim_touch(SIM_O_DISK, d, 0, SIM_READ);

	memset(buf, 0, n);
	if (inside)
		memcpy(buf, d->data + off, inside);
}

static int platter_write(struct sim_disk *d, uint64_t off, const char *buf,
			 size_t n)
{
	touch_blocks(SIM_O_BLOCK, d, off, off + n, SIM_WRITE);
	if (off < d->bad_end && d->bad_start < off + n)
		return -EIO;
	for (uint64_t b = off / SIM_BLOCK; b * SIM_BLOCK < off + n; b++)
		if (!set_allocated(d, b, true))
			return -ENOSPC;
	memcpy(d->data + off, buf, n);
	changed(d, off, off + n);
	return 0;
}

static void platter_clear(struct sim_disk *d, uint64_t off, uint64_t n)
{
	touch_blocks(SIM_O_BLOCK, d, off, off + n, SIM_WRITE);
	grow(d, off + n);
	memset(d->data + off, 0, n);
	changed(d, off, off + n);
}

/* ---- requests of loops ------------------------------------------------ */

/* Moves some blocks of a request; false: none is left. */
static bool request_move(struct request *r)
{
	uint64_t off = r->io->off + r->moved;
	size_t n;

	if (r->moved == r->io->len)
		return false;
	n = some_blocks(off, r->io->len - r->moved);
	if (r->fails && (!r->write || r->moved + n >= r->io->len)) {
		r->res = r->fails;
		return false;
	}
	if (r->write)
		r->res = platter_write(r->disk, off,
				       (char *)r->io->buf + r->moved, n);
	else
		platter_read(r->disk, off, (char *)r->io->buf + r->moved, n);
	sim_trace(r->write ? ".disk: writes [%llu, %llu)" :
				 ".disk: reads [%llu, %llu)", off, off + n, 0);
	r->moved = r->res ? r->io->len : r->moved + n;
	return true;
}

static void request_end(struct request *r)
{
	op_end(r->disk, &r->op);
	r->disk->failed_writes += r->write && r->res;
	sim_trace(r->write ? "disk: wrote [%llu, %llu)" : "disk: read [%llu, %llu)",
		  r->io->off, r->io->off + r->io->len, 0);
	mkw_io_done(r->io, r->res ? r->res : (ssize_t)r->io->len);
	TAILQ_INSERT_HEAD(&free_requests, r, link);
}

static void device_main(void *arg)
{
	struct device *dev = arg;

	for (;;) {
		struct requests *from = TAILQ_EMPTY(&dev->waiting) ? &waiting :
								    &dev->waiting;
		struct request *r = dev->request;

		if (!r) {
			r = dev->request = TAILQ_FIRST(from);
			if (!r) {
				sim_block(SIM_WAITS_WORK, NULL);
				continue;
			}
			TAILQ_REMOVE(from, r, link);
		}
		if (r->late)
			sim_block(SIM_WAITS_LATE, NULL);
		do {
			sim_point();
		} while (request_move(r));
		request_end(r);
		dev->request = NULL;
	}
}

static struct device *device_start(unsigned i)
{
	static const char *const names[DEVICES_MAX] = {
		"disk", "disk-2", "disk-3", "disk-4", "disk-5", "disk-6",
		"disk-7", "disk-8", "disk-9", "disk-10", "disk-11", "disk-12",
		"disk-13", "disk-14", "disk-15", "disk-16",
	};

	TAILQ_INIT(&devices[i].waiting);
	devices[i].task = sim_task_start(names[i], SIM_DEVICE, device_main,
					 &devices[i]);
	return &devices[i];
}

void sim_disk_prepare(unsigned more_tasks)
{
	devices_prepared = 2 * (sim_task_count() + more_tasks);
	if (devices_prepared > DEVICES_MAX)
		sim_violation("the simulated machine has room for %u devices only",
			      DEVICES_MAX);
	for (unsigned i = 0; i < devices_prepared; i++)
		device_start(i);
}

/* Gives the request to a device: a task's own, or any that is free. */
static void request_start(struct request *r)
{
	unsigned i;

	if (devices_prepared) {
		/* The devices' own numbers are left out. */
		i = sim_self();
		if (i > devices[0].task->id)
			i -= devices_prepared;
		i *= 2;
		if (devices[i].request)
			i++;
		if (devices[i].request) {
			TAILQ_INSERT_TAIL(&devices[i].waiting, r, link);
			return;
		}
	} else {
		for (i = 0; i < DEVICES && devices[i].task && devices[i].request; i++)
			;
		if (i == DEVICES) {
			TAILQ_INSERT_TAIL(&waiting, r, link);
			return;
		}
		if (!devices[i].task)
			device_start(i);
	}
	devices[i].request = r;
	sim_wake(devices[i].task);
}

static void submit(struct sim_disk *d, bool write, struct mkw_io *io)
{
	struct request *r;

	sim_step(write ? "submits write of [%llu, %llu)" :
			     "submits read of [%llu, %llu)",
		 io->off, io->off + io->len, 0);
	r = TAILQ_FIRST(&free_requests);
	if (r && !devices_prepared)
		TAILQ_REMOVE(&free_requests, r, link);
	else
		r = sim_machine_alloc(sizeof(*r));
	*r = (struct request){ .io = io, .disk = d, .write = write };
	op_begin(d, &r->op, write ? OP_WRITE : OP_READ, io->off,
		 io->off + io->len);
	r->fails = fail(d, write ? SIM_DISK_WRITE : SIM_DISK_READ);
	r->late = sim_odd(32);
	request_start(r);
}

/* ---- blocking calls --------------------------------------------------- */

static int store_own(void *arg, int writable, uint64_t *len)
{
	struct store *s = arg;

	(void)writable;
	if (s->disk->owned)
		return -EBUSY;
	s->disk->owned = s->owner = true;
	*len = s->disk->len;
	return 0;
}

static int move(struct sim_disk *d, bool write, uint64_t off, char *buf,
		size_t len)
{
	char block[4096];
	int err = 0;

	for (size_t done = 0, n; done < len && !err; done += n) {
		n = some_blocks(off + done, len - done);
		if (n > sizeof(block))
			n = sizeof(block);
		/* The buffer's faults, if any, come before the transfer. */
		if (write)
			err = mkw__os_user_read(block, buf + done, n);
		if (err)
			break;
		sim_step(write ? ".writes [%llu, %llu) to the store" :
				 ".reads [%llu, %llu) from the store",
			 off + done, off + done + n, 0);
		if (write)
			err = platter_write(d, off + done, block, n);
		else
			platter_read(d, off + done, block, n);
		if (!write && !err)
			err = mkw__os_user_write(buf + done, block, n);
	}
	return err;
}

static int read_now(struct sim_disk *d, uint64_t off, void *buf, size_t len)
{
	struct op op;
	int err;

	sim_step("store read of [%llu, %llu)", off, off + len, 0);
	op_begin(d, &op, OP_READ, off, off + len);
	err = fail(d, SIM_DISK_READ);
	if (!err)
		err = move(d, false, off, buf, len);
	sim_step(".store read ends", 0, 0, 0);
	op_end(d, &op);
	return err;
}

static int write_now(struct sim_disk *d, uint64_t off, void *buf, size_t len)
{
	struct op op;
	int err, fails;

	sim_step("store write of [%llu, %llu)", off, off + len, 0);
	op_begin(d, &op, OP_WRITE, off, off + len);
	fails = fail(d, SIM_DISK_WRITE);
	err = move(d, true, off, buf,
		   fails ? len / 2 / SIM_BLOCK * SIM_BLOCK : len);
	if (!err)
		err = fails;
	sim_step(".store write ends", 0, 0, 0);
	op_end(d, &op);
	return err;
}

static int flush(struct sim_disk *d)
{
	uint64_t serial = d->cache ? sim_cache_flush_begin(d->cache) : 0;

	sim_step("store flush", 0, 0, 0);
	sim_step(".store flush ends", 0, 0, 0);
	if (fail(d, SIM_DISK_FLUSH))
		return -EIO;
	if (d->cache)
		sim_cache_flush_end(d->cache, serial);
	return 0;
}

static int resize(struct sim_disk *d, uint64_t len)
{
	uint64_t old = d->len, keep;
	struct op op;

	if (len > (uint64_t)64 << 20)
		return -EFBIG;
	sim_step("store resize from %llu to %llu", old, len, 0);
	/* Growing makes zeros where a read finds zeros anyway; but a file system
	 * writes the old last page for it, from what it has of it. */
	if (len < old)
		op_begin(d, &op, OP_TAKE, len, UINT64_MAX);
	else
		op_begin(d, &op, OP_WRITE, old / mkw__os_page_size() *
						   mkw__os_page_size(), old);
	sim_touch(SIM_O_DISK, d, 0, SIM_WRITE);
	touch_blocks(SIM_O_BLOCK, d, len < old ? len : old, UINT64_MAX, SIM_WRITE);
	if (len < old && fail(d, SIM_DISK_TAKE)) {
		op_end(d, &op);
		return -EIO;
	}
	grow(d, len);
	if (len < old) {
		/* The last block keeps its head. */
		keep = (len + SIM_BLOCK - 1) / SIM_BLOCK;
		memset(d->data + len, 0, old - len);
		while (keep < d->capacity)
			set_allocated(d, keep++, false);
		changed(d, len, old);
	}
	d->len = len;
	if (d->cache)
		sim_cache_length(d->cache, len);
	sim_step(".store resize ends", 0, 0, 0);
	op_end(d, &op);
	return 0;
}

/* Zeroes, piece by piece; 'allocated' becomes that of the whole blocks. */
static int take(struct sim_disk *d, const char *what, uint64_t off,
		uint64_t len, bool allocated)
{
	uint64_t at = off, end = off + len;
	struct op op;
	int err = 0, fails;

	sim_step(what, off, end, 0);
	op_begin(d, &op, OP_TAKE, off, end);
	fails = fail(d, SIM_DISK_TAKE);
	while (at < end && !err) {
		uint64_t n = some_blocks(at, end - at);

		if (fails && at + n >= end)
			break;
		sim_step(".store zeroes [%llu, %llu)", at, at + n, 0);
		platter_clear(d, at, n);
		for (uint64_t b = (at + SIM_BLOCK - 1) / SIM_BLOCK;
		     (b + 1) * SIM_BLOCK <= at + n; b++)
			if (!set_allocated(d, b, allocated))
				err = -ENOSPC;
		at += n;
	}
	sim_step(".and is done with it", 0, 0, 0);
	op_end(d, &op);
	return err ? err : fails;
}

/* Blocks from `from` on become those from `to` on; the ones between are holes. */
static void move_blocks(struct sim_disk *d, uint64_t from, uint64_t to)
{
	uint64_t low = from < to ? from : to, n = from < to ? to - from : from - to;
	uint64_t rest = d->capacity - low - n;

	memmove(d->data + to * SIM_BLOCK, d->data + from * SIM_BLOCK,
		rest * SIM_BLOCK);
	memmove(d->allocated + to, d->allocated + from, rest);
	if (from > to)
		low = d->capacity - n;
	memset(d->data + low * SIM_BLOCK, 0, n * SIM_BLOCK);
	memset(d->allocated + low, 0, n);
	d->used = 0;
	for (uint64_t b = 0; b < d->capacity; b++)
		d->used += d->allocated[b];
}

static int shift(struct sim_disk *d, const char *what, uint64_t off,
		 uint64_t len, bool out)
{
	struct op op;
	int err;

	if (off % SIM_BLOCK || len % SIM_BLOCK)
		return -EINVAL;
	sim_step(what, off, off + len, 0);
	op_begin(d, &op, OP_TAKE, off, UINT64_MAX);
	err = fail(d, SIM_DISK_TAKE);
	if (!err) {
		sim_touch(SIM_O_DISK, d, 0, SIM_WRITE);
		touch_blocks(SIM_O_BLOCK, d, off, UINT64_MAX, SIM_WRITE);
		grow(d, d->len + len);
		if (out)
			move_blocks(d, (off + len) / SIM_BLOCK, off / SIM_BLOCK);
		else
			move_blocks(d, off / SIM_BLOCK, (off + len) / SIM_BLOCK);
		d->len = out ? d->len - len : d->len + len;
	}
	sim_step(".store has moved what follows", 0, 0, 0);
	op_end(d, &op);
	return err;
}

static int allocate(struct sim_disk *d, uint64_t off, uint64_t len)
{
	sim_step("store allocate of [%llu, %llu)", off, off + len, 0);
	touch_blocks(SIM_O_BLOCK, d, off, off + len, SIM_WRITE);
	grow(d, off + len);
	for (uint64_t b = off / SIM_BLOCK; b * SIM_BLOCK < off + len; b++) {
		if (!set_allocated(d, b, true)) {
			sim_step(".the disk is full", 0, 0, 0);
			return -ENOSPC;
		}
		if (!sim_config()->transactions && sim_env_random(4) == 0)
			sim_step(".allocated block %llu", b, 0, 0);
	}
	sim_step(".store allocate ends", 0, 0, 0);
	return 0;
}

/* One run at a time, often not all of it; what it says may be old when it ends. */
static int store_blocks(void *arg, uint64_t off, uint64_t end,
			struct mkw_store_run *run)
{
	struct sim_disk *d = ((struct store *)arg)->disk;
	uint64_t b = off / SIM_BLOCK, stop = (end + SIM_BLOCK - 1) / SIM_BLOCK;

	sim_step("store: where are blocks of [%llu, %llu)?", off, end, 0);
	touch_blocks(SIM_O_BLOCK, d, off, end, SIM_READ);
	grow(d, end);
	while (b < stop && !d->allocated[b])
		b++;
	run->off = b * SIM_BLOCK > off ? b * SIM_BLOCK : off;
	while (b < stop && d->allocated[b])
		b++;
	run->end = b * SIM_BLOCK < end ? b * SIM_BLOCK : end;
	run->shared = 0;
	if (run->off >= end)
		run->off = run->end = end;
	sim_step(".store: of [%llu, %llu)", run->off, run->end, 0);
	return 0;
}

static int release(struct sim_disk *d, uint64_t off, uint64_t len)
{
	struct op op;

	sim_step("store release of [%llu, %llu)", off, off + len, 0);
	op_begin(d, &op, OP_RELEASE, off, off + len);
	touch_blocks(SIM_O_BLOCK, d, off, off + len, SIM_WRITE);
	for (uint64_t b = off / SIM_BLOCK; b * SIM_BLOCK < off + len; b++) {
		for (unsigned i = 0; i < SIM_BLOCK; i++)
			if (d->data[b * SIM_BLOCK + i])
				sim_violation("store: release of block %llu by %s, and it has data",
					      (unsigned long long)b, op.who);
		set_allocated(d, b, false);
	}
	sim_step(".store release ends", 0, 0, 0);
	op_end(d, &op);
	return 0;
}

static int store_length(void *arg, uint64_t *len)
{
	struct sim_disk *d = ((struct store *)arg)->disk;

	sim_step(".store: what is the length?", 0, 0, 0);
	sim_touch(SIM_O_DISK, d, 0, SIM_READ);
	*len = d->len;
	return 0;
}

static int64_t store_seek(void *arg, uint64_t off, int data)
{
	struct sim_disk *d = ((struct store *)arg)->disk;

	sim_step(".store seek from %llu", off, 0, 0);
	touch_blocks(SIM_O_BLOCK, d, 0, UINT64_MAX, SIM_READ);
	for (uint64_t at = off; at < d->len; at = (at / SIM_BLOCK + 1) * SIM_BLOCK)
		if (!d->allocated[at / SIM_BLOCK] == !data)
			return (int64_t)at;
	return data ? -ENXIO : (int64_t)d->len;
}

/* ---- operations of the interface -------------------------------------- */

static struct sim_disk *disk_of(void *arg)
{
	return ((struct store *)arg)->disk;
}

static void move_op(struct sim_disk *d, bool write, struct mkw_io *io)
{
	int err;

	if (!(io->flags & MKW_IO_MAY_BLOCK)) {
		submit(d, write, io);
		return;
	}
	err = write ? write_now(d, io->off, io->buf, io->len) :
		      read_now(d, io->off, io->buf, io->len);
	mkw_io_done(io, err ? err : (ssize_t)io->len);
}

static void store_read(void *arg, struct mkw_io *io)
{
	move_op(disk_of(arg), false, io);
}

static void store_write(void *arg, struct mkw_io *io)
{
	move_op(disk_of(arg), true, io);
}

static void store_flush(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, flush(disk_of(arg)));
}

static void store_resize(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, resize(disk_of(arg), io->len));
}

static void store_punch(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, take(disk_of(arg), "store punch of [%llu, %llu)",
			     io->off, io->len, false));
}

static void store_zero(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, take(disk_of(arg), "store zero of [%llu, %llu)",
			     io->off, io->len, true));
}

static void store_collapse(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, shift(disk_of(arg), "store collapse of [%llu, %llu)",
			      io->off, io->len, true));
}

static void store_insert(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, shift(disk_of(arg), "store insert of [%llu, %llu)",
			      io->off, io->len, false));
}

static void store_allocate(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, allocate(disk_of(arg), io->off, io->len));
}

static void store_release(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, release(disk_of(arg), io->off, io->len));
}

static void store_close(void *arg)
{
	struct store *s = arg;

	if (!s->open)
		sim_violation("a store is closed twice");
	s->open = false;
	if (!s->owner)
		return;
	if (s->disk->ops)
		sim_violation("a store is closed while a %s by %s is under way",
			      kind_names[s->disk->ops->kind], s->disk->ops->who);
	s->disk->owned = false;
}

static const struct mkw_store_ops ops = {
	MKW_STORE_OPS_INIT,
	.own = store_own,
	.read = store_read,
	.write = store_write,
	.flush = store_flush,
	.resize = store_resize,
	.punch = store_punch,
	.zero = store_zero,
	.collapse = store_collapse,
	.insert = store_insert,
	.allocate = store_allocate,
	.blocks = store_blocks,
	.release = store_release,
	.length = store_length,
	.seek = store_seek,
	.close = store_close,
};

struct mkw__store *sim_disk_store(struct sim_disk *d)
{
	struct store *s = sim_machine_alloc(sizeof(*s));
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct mkw__store *st;

	info.len = d->len;
	info.align = info.block = SIM_BLOCK;
	info.flags = MKW_STORE_RESERVES | MKW_STORE_DIRECT |
		     MKW_STORE_USER_MEMORY |
		     (sim_config()->store_threads ? MKW_STORE_MAY_BLOCK :
						    MKW_STORE_ANY_CONTEXT);
	info.id[0] = info.id[1] = 1;
	for (struct sim_disk *other = disks; other != d; other = other->next)
		info.id[1]++;
	*s = (struct store){ .disk = d, .open = true };
	if (mkw__store_make(&ops, &info, s, true, &st))
		sim_violation("the disk is no store to the engine");
	return st;
}

void sim_disk_reset(void)
{
	disks = NULL;
	memset(devices, 0, sizeof(devices));
	devices_prepared = 0;
	TAILQ_INIT(&waiting);
	TAILQ_INIT(&free_requests);
}

void sim_disk_print(FILE *to)
{
	unsigned n = 0;

	for (struct sim_disk *d = disks; d; d = d->next, n++) {
		fprintf(to, "disk %u, %llu bytes; allocated blocks:", n,
		       (unsigned long long)d->len);
		for (uint64_t b = 0; b < d->capacity && b < 64; b++)
			if (d->allocated[b])
				fprintf(to, " %llu=%llx", (unsigned long long)b,
				       (unsigned long long)sim_disk_peek(d, b * SIM_BLOCK));
		fputc('\n', to);
	}
}
