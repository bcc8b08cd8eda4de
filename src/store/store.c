/* SPDX-License-Identifier: MIT */
/*
 * store.c: between the engine and a store.
 *
 * An operation of a store is asked for, and ends by mkw_io_done(), which may come
 * inside of the operation, later, or at once from another thread:
 *
 *	ISSUED ── mkw_io_done() ──► DONE ──────────────► whoever asked goes on
 *	   │                          ▲
 *	   └─ who asked sleeps ─► WAITED ── mkw_io_done() ──► and is woken
 *
 * io->state carries it. Both sides move it by an exchange, so exactly one of them
 * finds that the other was there before: who asked finds DONE and does not sleep, or
 * mkw_io_done() finds WAITED and wakes him. Its exchange releases io->result, that of
 * who asked acquires it. After it mkw_io_done() touches the I/O no more, but for
 * the event, whose setter is through with it before the waiter returns.
 *
 * Of I/Os with a loop nobody sleeps: the end is posted to the loop, whose task looks at
 * the result. Any other value of the state than the two above is an end too many: the I/O
 * is another's by then, or nobody's memory, so the process ends.
 *
 * Whether an end is the last word (ended()) is decided by who asked, not in
 * mkw_io_done(): it may ask the store again, for the rest of a short count.
 */
#include <errno.h>
#include <string.h>

#include "store/store.h"

/* No values that memory has by chance. */
enum { IO_ISSUED = 0x51ed0a5e, IO_WAITED = 0x3a17ed0b, IO_DONE = 0x0d0ed0cc };

#define ZEROS 4096u
#define FLAGS                                                                 \
	(MKW_STORE_DIRECT | MKW_STORE_RESERVES | MKW_STORE_USER_MEMORY |      \
	 MKW_STORE_ANY_CONTEXT | MKW_STORE_MAY_BLOCK)

struct mkw__os_io *mkw__store_io(struct mkw_io *io)
{
	return (struct mkw__os_io *)(void *)((char *)io -
					     offsetof(struct mkw__os_io, ask));
}

static bool moves(const struct mkw__os_io *io)
{
	return io->op == io->store->ops.read || io->op == io->store->ops.write;
}

/* Asks for what is left of io. */
static void issue(struct mkw__os_io *io)
{
	struct mkw__store *st = io->store;
	bool here = !io->loop || !st->threads;

	io->ask = (struct mkw_io){
		.off = io->off + io->moved,
		.len = io->total - io->moved,
		.buf = io->buf ? mkw__os_at(io->buf, io->moved) : NULL,
		.flags = io->loop && here ? 0 : MKW_IO_MAY_BLOCK,
	};
	io->len_before = atomic_load_explicit(&st->len, memory_order_acquire);
	atomic_store_explicit(&io->state, IO_ISSUED, memory_order_relaxed);
	if (here)
		io->op(st->arg, &io->ask);
	else
		mkw__store_threads_give(st->threads, io);
}

static int zero_rest(struct mkw__os_io *io)
{
	static const char zeros[1024];
	uint64_t left = io->total - io->moved;
	char *to = mkw__os_at(io->buf, io->moved);
	int r = 0;

	if (io->loop) {
		memset(to, 0, left);
		return 0;
	}
	/* That may be anybody's memory. */
	while (left && !r) {
		size_t n = left < sizeof(zeros) ? left : sizeof(zeros);

		r = mkw__os_user_write(to, zeros, n);
		to += n;
		left -= n;
	}
	return r;
}

#define AGAIN 1
/* As Linux has it: what is less is no error number. */
#define ERRNO_MAX 4095

/*
 * A store's error as core may see it. By two of them core means something of its
 * own: that a buffer lies in a mapping, and that the cache has no room.
 */
static int error_of(ssize_t error)
{
	return error < -ERRNO_MAX || error == -EXDEV || error == -ENOBUFS ?
		       -EIO : (int)error;
}

/* What came of it: 0, a negative errno, or AGAIN: the rest is to be asked for. */
static int ended(struct mkw__os_io *io)
{
	ssize_t n = io->result;

	if (n < 0)
		return error_of(n);
	if (!moves(io))
		return 0;
	io->moved += (uint64_t)n;
	if (io->moved == io->total)
		return 0;
	if (n)
		return AGAIN;
	/* Nothing shrinks while it is read, so the length of then still holds. */
	if (io->write || io->off + io->moved < io->len_before)
		return -EIO;
	return zero_rest(io);
}

static void check_result(const struct mkw__os_io *io, ssize_t result)
{
	if (result > 0 && !moves(io))
		mkw__os_panic("a store ended an operation with %zd: only reads "
			      "and writes have a count, others end with 0 or "
			      "-errno", result);
	if (result > 0 && (uint64_t)result > io->ask.len)
		mkw__os_panic("a store says that it moved %zd bytes at %llu; it "
			      "was asked for %llu",
			      result, (unsigned long long)io->ask.off,
			      (unsigned long long)io->ask.len);
}

void mkw_io_done(struct mkw_io *ask, ssize_t result)
{
	struct mkw__os_io *io = mkw__store_io(ask);
	uint32_t state = atomic_load_explicit(&io->state, memory_order_relaxed);
	struct mkw__os_loop *loop;
	struct mkw__os_sigmask mask;

	if (state != IO_ISSUED && state != IO_WAITED)
		mkw__os_panic("mkw_io_done() of an operation that is not under "
			      "way: a store has ended it twice, or before it "
			      "was asked for it");
	check_result(io, result);
	io->result = result;
	loop = io->loop;
	while (!atomic_compare_exchange_weak_explicit(&io->state, &state, IO_DONE,
						      memory_order_acq_rel,
						      memory_order_relaxed))
		if (state == IO_DONE)
			mkw__os_panic("mkw_io_done() by two threads at once for "
				      "one operation of a store");
	if (loop) {
		/* A handler in this thread could fault while it has the mutex. */
		mkw__os_signals_block(&mask);
		mkw__os_loop_post(loop, io, 0);
		mkw__os_signals_restore(&mask);
	} else if (state == IO_WAITED) {
		mkw__os_event_set(&io->event);
	}
}

/* ---- I/Os of a loop ---------------------------------------------------- */

/* The store is through with it; in the loop's task. */
static void loop_ended(struct mkw__os_io *io, int res)
{
	int r;

	(void)res;
	r = ended(io);
	if (r == AGAIN) {
		mkw__os_loop_begin(io->loop);
		issue(io);
		return;
	}
	io->done = io->then;
	io->done(io, r);
}

/* mkw_io_transfer() is through with it; in the loop's task. */
static void transferred(struct mkw__os_loop *l, struct mkw__os_io *io, int res)
{
	void (*failed)(struct mkw_io *ask, int error) = io->failed;

	if (res == -EINTR || res == -EAGAIN) {
		mkw__os_loop_rw(l, io);
		return;
	}
	if (res < 0 && failed) {
		failed(&io->ask, res);
		return;
	}
	/* As mkw_io_done(), without the way through the queue. */
	io->result = res;
	atomic_store_explicit(&io->state, IO_DONE, memory_order_relaxed);
	loop_ended(io, 0);
}

int mkw_io_transfer(struct mkw_io *ask, int fd, size_t len,
		    void (*failed)(struct mkw_io *ask, int error))
{
	struct mkw__os_io *io = mkw__store_io(ask);

	if ((ask->flags & MKW_IO_MAY_BLOCK) || !len || len > ask->len)
		return -EINVAL;
	io->fd = fd;
	io->part = len;
	io->raw = transferred;
	io->failed = failed;
	mkw__os_loop_rw(io->loop, io);
	return 0;
}

static void prepare(struct mkw__store *st, struct mkw__os_loop *l,
		    struct mkw__os_io *io)
{
	io->store = st;
	io->loop = l;
	io->op = io->write ? st->ops.write : st->ops.read;
	io->total = io->len;
	io->moved = 0;
	io->then = io->done;
	mkw__os_loop_begin(l);
}

void mkw__store_submit(struct mkw__store *st, struct mkw__os_loop *l,
		       struct mkw__os_io *io)
{
	prepare(st, l, io);
	io->done = loop_ended;
	issue(io);
}

static void started(struct mkw__os_io *io, int res)
{
	(void)res;
	io->done = loop_ended;
	mkw__os_loop_begin(io->loop);
	issue(io);
}

void mkw__store_submit_by(struct mkw__store *st, struct mkw__os_loop *l,
			  struct mkw__os_io *io)
{
	prepare(st, l, io);
	io->done = started;
	mkw__os_loop_post(l, io, 0);
}

/* ---- calls that wait --------------------------------------------------- */

static int wait_for(struct mkw__store *st, void (*op)(void *, struct mkw_io *),
		    uint64_t off, void *buf, uint64_t len)
{
	struct mkw__os_io io = { .store = st, .op = op, .off = off, .buf = buf,
				 .total = len, .write = op == st->ops.write };
	uint32_t state;
	int r;

	if (!op)
		return -EOPNOTSUPP;
	do {
		issue(&io);
		state = IO_ISSUED;
		if (atomic_compare_exchange_strong_explicit(&io.state, &state,
							    IO_WAITED,
							    memory_order_acq_rel,
							    memory_order_acquire)) {
			mkw__os_event_wait(&io.event);
			mkw__os_event_reset(&io.event);
		}
		r = ended(&io);
	} while (r == AGAIN);
	return r;
}

int mkw__store_read(struct mkw__store *st, uint64_t off, void *buf, size_t len)
{
	return len ? wait_for(st, st->ops.read, off, buf, len) : 0;
}

int mkw__store_write(struct mkw__store *st, uint64_t off, const void *buf,
		     size_t len)
{
	return len ? wait_for(st, st->ops.write, off, (void *)(uintptr_t)buf, len) : 0;
}

int mkw__store_flush(struct mkw__store *st)
{
	return st->ops.flush ? wait_for(st, st->ops.flush, 0, NULL, 0) : 0;
}

static void set_len(struct mkw__store *st, uint64_t len)
{
	atomic_store_explicit(&st->len, len, memory_order_release);
}

int mkw__store_resize(struct mkw__store *st, uint64_t len)
{
	int r = wait_for(st, st->ops.resize, 0, NULL, len);

	if (!r)
		set_len(st, len);
	return r;
}

/*
 * Zeros for [off, off + len) by writing. The parts of it that are not whole units of
 * direct_align are read first: nobody else writes those meanwhile.
 */
static int write_zeros(struct mkw__store *st, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, unit = st->direct_align, start, stop, last;
	char *mem = mkw__os_reserve(ZEROS > unit ? ZEROS : unit);
	size_t size = ZEROS > unit ? ZEROS : unit;
	int r = 0;

	if (!mem)
		return -ENOMEM;
	last = atomic_load_explicit(&st->len, memory_order_acquire);
	for (; off < end && !r; off = stop) {
		start = off - off % unit;
		stop = end - start < size ? end : start + size;
		/* Up to the unit's end, but never past the length. */
		uint64_t to = (stop + unit - 1) / unit * unit;

		if (to > last)
			to = last;
		if (off != start || stop < to)
			r = mkw__store_read(st, start, mem, to - start);
		if (!r) {
			memset(mem + (off - start), 0, stop - off);
			r = mkw__store_write(st, start, mem, to - start);
		}
	}
	mkw__os_unreserve(mem, size);
	return r;
}

static int clear(struct mkw__store *st, void (*best)(void *, struct mkw_io *),
		 void (*other)(void *, struct mkw_io *), uint64_t off,
		 uint64_t len)
{
	if (!best)
		best = other;
	if (!best && st->ops.write)
		return write_zeros(st, off, len);
	return wait_for(st, best, off, NULL, len);
}

int mkw__store_punch(struct mkw__store *st, uint64_t off, uint64_t len)
{
	return clear(st, st->ops.punch, st->ops.zero, off, len);
}

int mkw__store_zero(struct mkw__store *st, uint64_t off, uint64_t len)
{
	return clear(st, st->ops.zero, st->ops.punch, off, len);
}

int mkw__store_collapse(struct mkw__store *st, uint64_t off, uint64_t len)
{
	int r = wait_for(st, st->ops.collapse, off, NULL, len);

	if (!r)
		set_len(st, st->len - len);
	return r;
}

int mkw__store_insert(struct mkw__store *st, uint64_t off, uint64_t len)
{
	int r = wait_for(st, st->ops.insert, off, NULL, len);

	if (!r)
		set_len(st, st->len + len);
	return r;
}

int mkw__store_allocate(struct mkw__store *st, uint64_t off, uint64_t len)
{
	return wait_for(st, st->ops.allocate, off, NULL, len);
}

int mkw__store_release(struct mkw__store *st, uint64_t off, uint64_t len)
{
	return wait_for(st, st->ops.release, off, NULL, len);
}

/* ---- the others -------------------------------------------------------- */

int mkw__store_blocks(struct mkw__store *st, uint64_t off, uint64_t end,
		      struct mkw_store_run *run)
{
	*run = (struct mkw_store_run){ .off = end, .end = end };
	return st->ops.blocks(st->arg, off, end, run);
}

int64_t mkw__store_seek(struct mkw__store *st, uint64_t off, bool data)
{
	if (st->ops.seek)
		return st->ops.seek(st->arg, off, data);
	return data ? (int64_t)off : (int64_t)st->len;
}

int mkw__store_length(struct mkw__store *st, uint64_t *len)
{
	return st->ops.length ? st->ops.length(st->arg, len) : -EOPNOTSUPP;
}

int mkw__store_own(struct mkw__store *st)
{
	uint64_t len = st->len;
	int r = st->ops.own ? st->ops.own(st->arg, !st->read_only, &len) : 0;

	if (!r && len > INT64_MAX)
		r = -EFBIG;
	if (!r)
		set_len(st, len);
	return r;
}

bool mkw__store_same(const struct mkw__store *a, const struct mkw__store *b)
{
	return a->kind == b->kind && a->dev == b->dev && a->ino == b->ino &&
	       (a->dev || a->ino);
}

/* ---- making one -------------------------------------------------------- */

static bool is_unit(uint32_t n)
{
	return !(n & (n - 1)) && n <= mkw__os_page_size();
}

static bool is_complete(const struct mkw_store_ops *ops,
			const struct mkw_store_info *info)
{
	if (!ops->read || info->len > INT64_MAX || !info->align ||
	    (info->flags & ~FLAGS) ||
	    ((info->flags & MKW_STORE_MAY_BLOCK) &&
	     (info->flags & MKW_STORE_ANY_CONTEXT)))
		return false;
	return !(info->flags & MKW_STORE_RESERVES) ||
	       (ops->allocate && ops->release && ops->blocks);
}

int mkw__store_make(const struct mkw_store_ops *ops,
		    const struct mkw_store_info *info, void *arg, bool writable,
		    struct mkw__store **out)
{
	struct mkw_store_info all = { .align = 1 };
	struct mkw__store *st;
	int r = 0;

	/* Shorter ones will be those of older headers; there is none yet. */
	if (ops->size != sizeof(*ops) || info->size != sizeof(*info))
		return -EINVAL;
	all = *info;
	if (!all.align)
		all.align = 1;
	if (!all.memory_align)
		all.memory_align = 1;
	if (!all.block)
		all.block = (uint32_t)mkw__os_page_size();
	if (!is_unit(all.align) || !is_unit(all.memory_align) ||
	    !is_unit(all.block) || !is_complete(ops, &all))
		return -EINVAL;
	if (writable && !ops->write)
		return -EROFS;
	st = mkw__os_zalloc(sizeof(*st));
	if (!st)
		return -ENOMEM;
	*st = (struct mkw__store){
		.ops = *ops,
		.kind = ops,
		.arg = arg,
		.len = all.len,
		.direct_align = all.align,
		.memory_align = all.memory_align,
		.block = all.block,
		.reserves = all.flags & MKW_STORE_RESERVES,
		.direct = all.flags & MKW_STORE_DIRECT,
		.user_memory = all.flags & MKW_STORE_USER_MEMORY,
		.any_context = all.flags & MKW_STORE_ANY_CONTEXT,
		.read_only = !writable,
		.dev = all.id[0],
		.ino = all.id[1],
	};
	if (all.flags & MKW_STORE_MAY_BLOCK)
		r = mkw__store_threads_start(&st->threads);
	if (r)
		mkw__os_free(st);
	else
		*out = st;
	return r;
}

void mkw__store_close(struct mkw__store *st)
{
	if (st->threads)
		mkw__store_threads_end(st->threads);
	if (st->ops.close)
		st->ops.close(st->arg);
	mkw__os_free(st);
}
