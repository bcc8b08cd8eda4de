/* SPDX-License-Identifier: MIT */
/*
 * Interleavings that were bugs once.
 *
 * Each test drives the engine into one order of events and asks for what was wrong
 * there. The order is made by the store: memory with a hook, which runs a step of
 * the test inside a chosen call of the engine, stops a task there, or keeps an
 * asynchronous transfer back until the test ends it. That a task has come to
 * the place where it sleeps is read from the engine's own queues. Nothing waits
 * for time to pass; the limits on waiting are for what hangs, and end the program.
 *
 * Some tests are races by nature and repeat (a failed read against a good one, the
 * end of an engine against faults, loads against punches). Every test runs under
 * both policies, with faults served by the pager and in their own thread. Needs
 * userfaultfd and UFFDIO_POISON (Linux 6.6); skipped (77) without.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)
#define PATIENCE_S 20
#define HOUR_MS 3600000u

static size_t page;

struct way {
	enum mkw_policy policy;
	unsigned map_flags;
	const char *name;
};
static const struct way *way;

/* ---- tasks and waiting ------------------------------------------------ */

/* In a task cmocka's own assertions would jump into another thread's stack. */
#define MUST(x) \
	do { \
		if (!(x)) \
			die("not so", #x); \
	} while (0)

_Noreturn static void die(const char *what, const char *whose)
{
	fprintf(stderr, "%s: %s\n", what, whose);
	abort();
}

static uint64_t patience(void)
{
	return mkw__os_now_ns() + PATIENCE_S * (uint64_t)1000000000;
}

static void look_again(uint64_t end, const char *what)
{
	if (mkw__os_now_ns() > end)
		die("never came true", what);
	sched_yield();
}

#define UNTIL(x) \
	for (uint64_t end_ = patience(); !(x); look_again(end_, #x)) \
		;

static void sleep_for(sem_t *sem, const char *what)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += PATIENCE_S;
	while (sem_timedwait(sem, &ts))
		if (errno != EINTR)
			die("does not end", what);
}

struct task {
	pthread_t thread;
	void (*fn)(void *arg);
	void *arg;
	_Atomic bool ended;
	sem_t end;
};

static void *task_main(void *arg)
{
	struct task *t = arg;

	t->fn(t->arg);
	t->ended = true;
	sem_post(&t->end);
	return NULL;
}

static void task_start(struct task *t, void (*fn)(void *arg), void *arg)
{
	t->fn = fn;
	t->arg = arg;
	t->ended = false;
	sem_init(&t->end, 0, 0);
	MUST(!pthread_create(&t->thread, NULL, task_main, t));
}

static void task_join(struct task *t, const char *what)
{
	sleep_for(&t->end, what);
	pthread_join(t->thread, NULL);
	sem_destroy(&t->end);
}

/* fn(arg) in a thread that holds no lock of the engine. */
static void elsewhere(void (*fn)(void *arg), void *arg, const char *what)
{
	struct task t;

	task_start(&t, fn, arg);
	task_join(&t, what);
}

/* ---- the store -------------------------------------------------------- */

enum op { OP_NONE, OP_READ, OP_WRITE, OP_SEEK, OP_RESIZE, OP_CLOSE };

struct hooked {
	struct mkw__store *store;
	struct mkw__store *below;
	/* The next call of this kind, done below, runs then() as it returns. */
	_Atomic(enum op) when;
	void (*then)(struct hooked *h);
	void *arg;
	/* stop_here() says so and waits. */
	sem_t stopped, go;
	/* The next transfer of this kind (OP_READ, OP_WRITE) is kept. */
	_Atomic(enum op) keep;
	struct mkw_io *kept_io;
	enum op kept_op;
	sem_t kept;
	_Atomic int read_err, write_err, flush_err;
};

static void hook(struct hooked *h, enum op op)
{
	enum op want = op;

	if (atomic_compare_exchange_strong(&h->when, &want, OP_NONE))
		h->then(h);
}

static void on_next(struct hooked *h, enum op op, void (*then)(struct hooked *),
		    void *arg)
{
	h->then = then;
	h->arg = arg;
	h->when = op;
}

static void stop_here(struct hooked *h)
{
	sem_post(&h->stopped);
	sleep_for(&h->go, "a stop in the store");
}

static int hook_own(void *arg, int writable, uint64_t *len)
{
	struct hooked *h = arg;

	(void)writable;
	(void)len;
	return mkw__store_own(h->below);
}

static ssize_t all_of(const struct mkw_io *io, int err)
{
	return err ? err : (ssize_t)io->len;
}

static int move_below(struct hooked *h, enum op op, struct mkw_io *io)
{
	return op == OP_WRITE ?
		       mkw__store_write(h->below, io->off, io->buf, io->len) :
		       mkw__store_read(h->below, io->off, io->buf, io->len);
}

static void hook_move(struct hooked *h, enum op op, struct mkw_io *io)
{
	int err = op == OP_WRITE ? h->write_err : h->read_err;
	enum op want = op;

	if (io->flags & MKW_IO_MAY_BLOCK) {
		if (!err)
			err = move_below(h, op, io);
		hook(h, op);
	} else if (atomic_compare_exchange_strong(&h->keep, &want, OP_NONE)) {
		h->kept_io = io;
		h->kept_op = op;
		sem_post(&h->kept);
		return;
	} else if (!err) {
		err = move_below(h, op, io);
	}
	mkw_io_done(io, all_of(io, err));
}

static void hook_read(void *arg, struct mkw_io *io)
{
	hook_move(arg, OP_READ, io);
}

static void hook_write(void *arg, struct mkw_io *io)
{
	hook_move(arg, OP_WRITE, io);
}

/* Ends the transfer that was kept: well, or with an error. */
static void end_kept(struct hooked *h, int err)
{
	if (!err)
		err = move_below(h, h->kept_op, h->kept_io);
	mkw_io_done(h->kept_io, all_of(h->kept_io, err));
}

static void hook_flush(void *arg, struct mkw_io *io)
{
	struct hooked *h = arg;

	mkw_io_done(io, h->flush_err);
}

static void hook_resize(void *arg, struct mkw_io *io)
{
	struct hooked *h = arg;
	int r = mkw__store_resize(h->below, io->len);

	hook(h, OP_RESIZE);
	mkw_io_done(io, r);
}

static void hook_punch(void *arg, struct mkw_io *io)
{
	struct hooked *h = arg;

	mkw_io_done(io, mkw__store_punch(h->below, io->off, io->len));
}

static void hook_allocate(void *arg, struct mkw_io *io)
{
	struct hooked *h = arg;

	mkw_io_done(io, mkw__store_allocate(h->below, io->off, io->len));
}

static int64_t hook_seek(void *arg, uint64_t off, int data)
{
	struct hooked *h = arg;
	int64_t r = mkw__store_seek(h->below, off, data);

	hook(h, OP_SEEK);
	return r;
}

static void hook_close(void *arg)
{
	struct hooked *h = arg;

	mkw__store_close(h->below);
	hook(h, OP_CLOSE);
	sem_destroy(&h->stopped);
	sem_destroy(&h->go);
	sem_destroy(&h->kept);
	free(h);
}

static const struct mkw_store_ops hooked_ops = {
	MKW_STORE_OPS_INIT,
	.own = hook_own,
	.read = hook_read,
	.write = hook_write,
	.flush = hook_flush,
	.resize = hook_resize,
	.punch = hook_punch,
	.zero = hook_punch,
	.allocate = hook_allocate,
	.seek = hook_seek,
	.close = hook_close,
};

/* ---- fixtures --------------------------------------------------------- */

static struct mkw_engine *open_engine(void)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *e;

	opt.policy = way->policy;
	/* The flusher comes when it is called, never by its clock. */
	opt.writeback_age_ms = HOUR_MS;
	assert_int_equal(mkw_engine_open(&opt, &e), 0);
	/* cmocka sets handlers of its own before each test. */
	mkw__trap_reinstall();
	return e;
}

static void close_engine(struct mkw_engine *e)
{
	mkw__engine_verify(e);
	assert_int_equal(mkw_engine_close(e), 0);
}

static struct hooked *make_store(uint64_t len)
{
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct hooked *h = calloc(1, sizeof(*h));

	MUST(h && !mkw__memstore_open(len, &h->below));
	info.len = len;
	info.id[0] = (uintptr_t)h;
	info.align = h->below->direct_align;
	info.flags = MKW_STORE_DIRECT | MKW_STORE_USER_MEMORY |
		     MKW_STORE_ANY_CONTEXT;
	MUST(!mkw__store_make(&hooked_ops, &info, h, true, &h->store));
	sem_init(&h->stopped, 0, 0);
	sem_init(&h->go, 0, 0);
	sem_init(&h->kept, 0, 0);
	return h;
}

/* A file of zeros on *h; or, where `first` is not 0, of bytes first + page. */
static struct mkw_file *open_file(struct mkw_engine *e, uint64_t len,
				  unsigned char first, struct hooked **h)
{
	struct mkw_file *file;

	*h = make_store(len);
	for (uint64_t off = 0; first && off < len; off++)
		MUST(!mkw__store_write((*h)->below, off,
			&(unsigned char){ (unsigned char)(first + off / page) },
			1));
	assert_int_equal(mkw__file_attach(e, (*h)->store, true, &file), 0);
	return file;
}

static unsigned char *map(struct mkw_file *file, size_t len)
{
	void *p;

	assert_int_equal(mkw_map(file, NULL, len, PROT_READ | PROT_WRITE,
				 way->map_flags, 0, &p), 0);
	return p;
}

/*
 * The same, below the program: what is unmapped there leaves a hole that nobody
 * else fills meanwhile, since the kernel hands out addresses from the top.
 */
static unsigned char *map_low(struct mkw_file *file, size_t len)
{
	static size_t number;
	uintptr_t hint = ((uintptr_t)&page - ((uintptr_t)1 << 30)) & -P(1);
	void *p;

	hint -= P(16) * number++;
	assert_int_equal(mkw_map(file, (void *)hint, len,
				 PROT_READ | PROT_WRITE, way->map_flags, 0,
				 &p), 0);
	return p;
}

static struct mkw_stats stats(struct mkw_engine *e)
{
	struct mkw_stats st = MKW_STATS_INIT;

	MUST(!mkw_engine_stats(e, &st));
	return st;
}

/* ---- what the engine's queues say ------------------------------------- */

static unsigned range_waiters(struct mkw__range_lock *rl)
{
	struct mkw__range_req *req;
	unsigned n = 0;

	mkw__os_mutex_lock(&rl->mutex);
	TAILQ_FOREACH(req, &rl->waiting, link)
		n++;
	mkw__os_mutex_unlock(&rl->mutex);
	return n;
}

static unsigned buf_waiters(struct mkw_engine *e)
{
	struct mkw__waiter *w;
	unsigned n = 0;

	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(w, &e->pool.buf_waiters, link)
		n++;
	mkw__mutex_unlock(&e->pool.mutex);
	return n;
}

static unsigned page_waiters(struct mkw__inode *in)
{
	struct mkw__waiter *w;
	unsigned n = 0;

	mkw__mutex_lock(&in->tree);
	for (unsigned i = 0; i < MKW__PAGE_WAIT_BUCKETS; i++)
		TAILQ_FOREACH(w, &in->waiters[i], link)
			n++;
	mkw__mutex_unlock(&in->tree);
	return n;
}

static uint64_t dirty_since(struct mkw__inode *in)
{
	uint64_t ns;

	mkw__mutex_lock(&in->tree);
	ns = in->dirty_since_ns;
	mkw__mutex_unlock(&in->tree);
	return ns;
}

/* ---- accesses --------------------------------------------------------- */

static void load_task(void *arg)
{
	try_access(arg, false);
}

static void sync_task(void *arg)
{
	MUST(!mkw_sync(arg));
}

static void sync_elsewhere(struct hooked *h)
{
	elsewhere(sync_task, h->arg, "a sync inside a call of the store");
}

/* ---- the address space ------------------------------------------------ */

struct remap {
	struct mkw_file *file;
	unsigned char *at;
	size_t len;
};

static void remap(void *arg)
{
	struct remap *r = arg;
	void *p;

	MUST(!mkw_map(r->file, r->at, r->len, PROT_READ | PROT_WRITE,
		      way->map_flags | MKW_MAP_FIXED_NOREPLACE, 0, &p));
	MUST(p == r->at);
}

static void remap_elsewhere(struct hooked *h)
{
	elsewhere(remap, h->arg, "a map beside an unmap");
}

/*
 * The memory is gone, the unmap is still busy with the end of the file: what
 * somebody else maps there meanwhile is not the unmap's.
 */
static void test_unmap_takes_its_own(void **state)
{
	struct mkw_engine *e = open_engine();
	struct mkw_file *fa, *fb;
	struct hooked *a, *b;
	unsigned char *p;
	struct remap r;

	(void)state;
	fa = open_file(e, P(4), 1, &a);
	fb = open_file(e, P(4), 101, &b);
	p = map_low(fa, P(4));
	assert_int_equal(mkw_file_close(fa), 0);
	r = (struct remap){ .file = fb, .at = p, .len = P(4) };
	on_next(a, OP_CLOSE, remap_elsewhere, &r);
	assert_int_equal(mkw_unmap(p, P(4)), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(try_access(p + P(i), false), 0);
		assert_int_equal(p[P(i)], 101 + i);
	}
	assert_int_equal(mkw_unmap(p, P(4)), 0);
	assert_int_equal(mkw_file_close(fb), 0);
	close_engine(e);
}

/*
 * A fault waits for its page, with a ticket for more; the mapping is cut behind
 * the page, and another file mapped there. One fault is enough all the same, and
 * touches no neighbour.
 */
struct read_at {
	struct mkw_file *file;
	uint64_t off;
	size_t len;
};

static void read_task(void *arg)
{
	struct read_at *r = arg;
	void *buf = malloc(r->len);

	MUST(mkw_pread(r->file, buf, r->len, r->off, 0) == (ssize_t)r->len);
	free(buf);
}

static void test_mapping_is_cut(void **state)
{
	struct mkw_engine *e = open_engine();
	struct task reader, loader;
	struct mkw_file *fa, *fb;
	struct hooked *a, *b;
	struct read_at read;
	unsigned char *p;
	uint64_t faults;
	struct remap r;

	(void)state;
	fa = open_file(e, P(12), 1, &a);
	fb = open_file(e, P(4), 101, &b);
	p = map_low(fa, P(12));
	/* Readahead: pages 0 and 1 to 4, and 5 to 11 would be next. */
	assert_int_equal(p[P(0)], 1);
	assert_int_equal(p[P(1)], 2);
	read = (struct read_at){ fa, P(5), P(4) };
	on_next(a, OP_READ, stop_here, NULL);
	task_start(&reader, read_task, &read);
	sleep_for(&a->stopped, "a read that fills");
	faults = stats(e).faults;
	task_start(&loader, load_task, p + P(5));
	UNTIL(page_waiters(fa->inode) == 1);
	assert_int_equal(mkw_unmap(p + P(6), P(6)), 0);
	r = (struct remap){ .file = fb, .at = p + P(6), .len = P(4) };
	remap(&r);
	sem_post(&a->go);
	task_join(&reader, "the read");
	task_join(&loader, "the load");
	assert_int_equal(stats(e).faults - faults, 1);
	assert_int_equal(p[P(5)], 6);
	for (int i = 0; i < 4; i++)
		assert_int_equal(p[P(6 + i)], 101 + i);
	assert_int_equal(mkw_unmap(p, P(12)), 0);
	assert_int_equal(mkw_file_close(fa), 0);
	assert_int_equal(mkw_file_close(fb), 0);
	close_engine(e);
}

/* ---- opening ---------------------------------------------------------- */

/*
 * One opens the file, another extends and closes it, and only then does the first
 * get it: a size from before it was his would cut the file short.
 */
static void test_size_once_owned(void **state)
{
	char path[] = "mkw-test-review-XXXXXX";
	unsigned char *buf = malloc(P(2));
	struct mkw_engine *e = open_engine();
	struct mkw_file *first, *second;
	struct mkw__store *st;
	int fd = mkstemp(path);
	struct stat sb;

	(void)state;
	assert_true(fd >= 0);
	memset(buf, 'A', P(2));
	assert_int_equal(mkw_file_open(e, path, O_RDWR, 0, &second), 0);
	assert_int_equal(mkw__hostfile_open(path, O_RDWR, 0, &st), 0);
	assert_int_equal(mkw_pwrite(second, buf, P(2), 0, 0), P(2));
	assert_int_equal(mkw_file_close(second), 0);
	assert_int_equal(mkw__file_attach(e, st, true, &first), 0);
	assert_int_equal(mkw_size(first), P(2));
	assert_int_equal(mkw_pwrite(first, "B", 1, 0, 0), 1);
	assert_int_equal(mkw_file_close(first), 0);
	assert_int_equal(fstat(fd, &sb), 0);
	assert_int_equal(sb.st_size, P(2));
	close(fd);
	unlink(path);
	free(buf);
	close_engine(e);
}

/* ---- growing ---------------------------------------------------------- */

#define PAST (page / 4)		/* past the end, in the last page */

struct growth {
	struct mkw_file *file;
	unsigned char *p;
	struct task sync;
};

/*
 * Between the zeroing of the old tail and the new size: a store past the old end,
 * then a sync, which ends now or waits for the growth.
 */
static void store_and_sync(struct hooked *h)
{
	struct growth *g = h->arg;

	*(volatile uint64_t *)(void *)(g->p + PAST) = 0x1234;
	task_start(&g->sync, sync_task, g->file);
	UNTIL(g->sync.ended ||
	      range_waiters(mkw__excl_fault_lock(g->file->inode)));
}

/* What is seen after the growth is what is written. */
static void test_sync_inside_growth(void **state)
{
	struct mkw_engine *e = open_engine();
	uint64_t seen, stored;
	struct hooked *h;
	struct growth g;

	(void)state;
	g.file = open_file(e, page / 8, 0, &h);
	g.p = map(g.file, page);
	g.p[0] = 7;
	on_next(h, OP_RESIZE, store_and_sync, &g);
	assert_int_equal(mkw_truncate(g.file, page), 0);
	task_join(&g.sync, "the sync");
	seen = *(volatile uint64_t *)(void *)(g.p + PAST);
	assert_int_equal(mkw_sync(g.file), 0);
	assert_int_equal(mkw__store_read(h->below, PAST, &stored,
					     sizeof(stored)), 0);
	assert_int_equal(stored, seen);
	assert_int_equal(mkw_unmap(g.p, page), 0);
	assert_int_equal(mkw_file_close(g.file), 0);
	close_engine(e);
}

/* ---- questions -------------------------------------------------------- */

/* A page is written back while the store is asked: it is data all the while. */
static void test_seek_beside_writeback(void **state)
{
	struct mkw_engine *e = open_engine();
	struct mkw_file *file;
	struct hooked *h;

	(void)state;
	file = open_file(e, P(8), 0, &h);
	assert_int_equal(mkw_pwrite(file, "hello", 5, P(2), 0), 5);
	on_next(h, OP_SEEK, sync_elsewhere, file);
	assert_int_equal(mkw_seek(file, 0, SEEK_DATA), P(2));
	assert_int_equal(mkw_pwrite(file, "hello", 5, P(4), 0), 5);
	on_next(h, OP_SEEK, sync_elsewhere, file);
	assert_int_equal(mkw_seek(file, P(4), SEEK_HOLE), P(5));
	assert_int_equal(mkw_file_close(file), 0);
	close_engine(e);
}

/* ---- what writeback holds --------------------------------------------- */

#define SYNCS (MKW__BUFFERS + 8)

struct direct {
	struct mkw_file *file;
	void *buf;
	size_t len;
};

static void direct_task(void *arg)
{
	struct direct *d = arg;

	MUST(mkw_pwrite(d->file, d->buf, d->len, 0, MKW_DIRECT) ==
	     (ssize_t)d->len);
}

/*
 * More syncs than there are buffers wait for a direct write, which needs a
 * buffer for what comes next.
 */
static void test_syncs_wait_without_buffers(void **state)
{
	static struct task sync[SYNCS];
	struct mkw_engine *e = open_engine();
	struct task writer;
	struct direct d;
	struct hooked *h;

	(void)state;
	d.len = P(8);
	d.file = open_file(e, d.len, 0, &h);
	d.buf = aligned_alloc(page, d.len);
	memset(d.buf, 2, d.len);
	/* The first page is not cached: it is written without a buffer. */
	assert_int_equal(mkw_pwrite(d.file, d.buf, P(7), P(1), 0), P(7));
	on_next(h, OP_WRITE, stop_here, NULL);
	task_start(&writer, direct_task, &d);
	sleep_for(&h->stopped, "a direct write");
	for (int i = 0; i < (int)SYNCS; i++)
		task_start(&sync[i], sync_task, d.file);
	UNTIL(range_waiters(mkw__excl_fault_lock(d.file->inode)) +
	      buf_waiters(e) == SYNCS);
	sem_post(&h->go);
	task_join(&writer, "the direct write");
	for (int i = 0; i < (int)SYNCS; i++)
		task_join(&sync[i], "a sync");
	free(d.buf);
	assert_int_equal(mkw_file_close(d.file), 0);
	close_engine(e);
}

/*
 * The cache is full of pages that a sync is writing; a fault waits for memory. The
 * flusher finds nothing to do and sleeps; when the write ends the fault goes on.
 */
static void test_fault_waits_for_a_sync(void **state)
{
	enum { FRAMES = 8, PASSES_MAX = 4, WATCH_NS = 50000000 };
	struct mkw_engine *e;
	uint64_t since, seen, end;
	struct task sync, loader;
	unsigned char *p, *buf;
	struct mkw_file *file;
	struct hooked *h;
	unsigned passes = 0;

	(void)state;
	mkw__testing.cache_frames = FRAMES;
	e = open_engine();
	buf = malloc(P(FRAMES));
	memset(buf, 3, P(FRAMES));
	file = open_file(e, P(128), 0, &h);
	p = map(file, P(128));
	assert_int_equal(mkw_pwrite(file, buf, P(FRAMES), 0, 0), P(FRAMES));
	h->keep = OP_WRITE;
	task_start(&sync, sync_task, file);
	sleep_for(&h->kept, "the sync's write");
	since = dirty_since(file->inode);
	task_start(&loader, load_task, p + P(100));

	/* Reclaim has failed once the flusher looks for old pages. */
	UNTIL(dirty_since(file->inode) != since);
	/* It does so again only when somebody calls it. */
	since = dirty_since(file->inode);
	end = mkw__os_now_ns() + WATCH_NS;
	while (mkw__os_now_ns() < end && passes <= PASSES_MAX) {
		seen = dirty_since(file->inode);
		passes += seen != since;
		since = seen;
		sched_yield();
	}
	assert_in_range(passes, 0, PASSES_MAX);
	assert_false(loader.ended);

	end_kept(h, 0);
	task_join(&sync, "the sync");
	task_join(&loader, "the fault that waits for memory");
	mkw__testing.cache_frames = 0;
	free(buf);
	assert_int_equal(mkw_unmap(p, P(128)), 0);
	assert_int_equal(mkw_file_close(file), 0);
	close_engine(e);
}

static unsigned dirty_waiters(struct mkw_engine *e)
{
	struct mkw__waiter *w;
	unsigned n = 0;

	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(w, &e->pool.dirty_waiters, link)
		n++;
	mkw__mutex_unlock(&e->pool.mutex);
	return n;
}

static void store_task(void *arg)
{
	try_access(arg, true);
}

static void write_task(void *arg)
{
	MUST(mkw_pwrite(arg, "x", 1, P(8), 0) == 1);
}

/*
 * There are too many dirty pages, and the flusher's write takes its time: a write call
 * and a store wait for it, those who only read do not.
 */
static void test_writers_wait_for_the_flusher(void **state)
{
	struct task writer, storer, loader;
	struct mkw_engine *e;
	struct mkw_file *file;
	unsigned char *p, *buf;
	struct hooked *h;

	(void)state;
	mkw__testing.dirty_pages = 2;
	e = open_engine();
	buf = malloc(P(3));
	memset(buf, 3, P(3));
	file = open_file(e, P(16), 0, &h);
	p = map(file, P(16));
	h->keep = OP_WRITE;
	assert_int_equal(mkw_pwrite(file, buf, P(3), 0, 0), P(3));
	sleep_for(&h->kept, "the flusher's write");
	task_start(&writer, write_task, file);
	UNTIL(dirty_waiters(e) == 1);
	task_start(&storer, store_task, p + P(9));
	UNTIL(dirty_waiters(e) == 2);
	task_start(&loader, load_task, p + P(10));
	task_join(&loader, "the load");
	assert_false(writer.ended);
	assert_false(storer.ended);
	end_kept(h, 0);
	task_join(&writer, "the write");
	task_join(&storer, "the store");
	mkw__testing.dirty_pages = 0;
	free(buf);
	assert_int_equal(mkw_unmap(p, P(16)), 0);
	assert_int_equal(mkw_file_close(file), 0);
	close_engine(e);
}

/* ---- errors ----------------------------------------------------------- */

/* The read of one file's page fails when its address is another file's. */
static void test_poison_of_another_file(void **state)
{
	struct mkw_engine *e = open_engine();
	struct mkw_file *fa, *fb;
	struct hooked *a, *b;
	struct task loader;
	unsigned char *p, c;
	struct remap r;

	(void)state;
	fa = open_file(e, page, 1, &a);
	fb = open_file(e, page, 101, &b);
	p = map_low(fa, page);
	a->keep = OP_READ;
	task_start(&loader, load_task, p);
	sleep_for(&a->kept, "the fill");
	assert_int_equal(mkw_unmap(p, page), 0);
	task_join(&loader, "the load of what is unmapped");
	r = (struct remap){ .file = fb, .at = p, .len = page };
	remap(&r);
	assert_int_equal(mkw_pread(fb, &c, 1, 0, 0), 1);
	end_kept(a, -EIO);
	/* Waits for the fault, which works on the file still. */
	assert_int_equal(mkw_file_close(fa), 0);
	assert_int_equal(try_access(p, false), 0);
	assert_int_equal(p[0], 101);
	assert_int_equal(mkw_unmap(p, page), 0);
	assert_int_equal(mkw_file_close(fb), 0);
	close_engine(e);
}

/* A page that another read makes valid right after its fill failed is good. */
static void test_poison_of_a_good_page(void **state)
{
	struct mkw_engine *e = open_engine();
	struct task loader, reader;
	struct mkw_file *file;
	struct read_at read;
	struct hooked *h;
	unsigned char *p;

	(void)state;
	for (int round = 0; round < 50; round++) {
		file = open_file(e, page, 1, &h);
		p = map(file, page);
		h->keep = OP_READ;
		task_start(&loader, load_task, p);
		sleep_for(&h->kept, "the fill");
		read = (struct read_at){ file, 0, 8 };
		task_start(&reader, read_task, &read);
		UNTIL(page_waiters(file->inode) == 1);
		end_kept(h, -EIO);
		task_join(&reader, "the read");
		task_join(&loader, "the load");
		assert_int_equal(try_access(p, false), 0);
		assert_int_equal(p[0], 1);
		assert_int_equal(mkw_unmap(p, page), 0);
		assert_int_equal(mkw_file_close(file), 0);
	}
	close_engine(e);
}

/* The last use of a file is a mapping, and its dirty page cannot be written. */
static void test_last_unmap_tells(void **state)
{
	struct mkw_engine *e = open_engine();
	struct mkw_file *file;
	struct hooked *h;
	unsigned char *p;

	(void)state;
	file = open_file(e, P(2), 0, &h);
	p = map(file, P(2));
	p[0] = 1;
	h->write_err = -EIO;
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(mkw_unmap(p, P(1)), 0);
	assert_int_equal(mkw_unmap(p, P(2)), -EIO);
	close_engine(e);
}

/* A flush that failed is told to every handle, once. */
static void test_flush_error_for_all(void **state)
{
	struct mkw_engine *e = open_engine();
	struct mkw_file *first, *second;
	struct hooked *h, *same;

	(void)state;
	first = open_file(e, page, 0, &h);
	same = make_store(page);
	same->store->dev = h->store->dev;
	same->store->ino = h->store->ino;
	assert_int_equal(mkw__file_attach(e, same->store, true, &second), 0);
	h->flush_err = -EIO;
	assert_int_equal(mkw_sync(first), -EIO);
	h->flush_err = 0;
	assert_int_equal(mkw_sync(second), -EIO);
	assert_int_equal(mkw_sync(second), 0);
	assert_int_equal(mkw_sync(first), 0);
	assert_int_equal(mkw_file_close(first), 0);
	assert_int_equal(mkw_file_close(second), 0);
	close_engine(e);
}

/* ---- ends ------------------------------------------------------------- */

#define ENDS 100
#define ENDS_NS 1500000000u	/* where they take long */
#define ENDS_PAGES 8

struct accesses {
	_Atomic(unsigned char *) p;
	_Atomic bool stop;
};

static void loads_task(void *arg)
{
	const struct sched_param none = { 0 };
	struct accesses *a = arg;
	unsigned char *p;

	/* Easily interrupted, anywhere, and for long. */
	MUST(!sched_setscheduler(0, SCHED_IDLE, &none));
	while (!a->stop) {
		p = a->p;
		for (int i = 0; p && i < ENDS_PAGES && !try_access(p + P(i), false); i++)
			;
	}
}

/*
 * Faults that their own threads serve race with the end of mapping, file and
 * engine: these wait for whoever is at work, who touches nothing after. (What he
 * would touch an address sanitizer sees best.)
 */
static void test_engine_outlives_its_faults(void **state)
{
	uint64_t end = mkw__os_now_ns() + ENDS_NS;
	struct accesses a = { .p = NULL };
	struct task loader[3];
	struct mkw_engine *e;
	struct mkw_file *file;
	struct hooked *h;

	(void)state;
	for (int i = 0; i < 3; i++)
		task_start(&loader[i], loads_task, &a);
	for (int round = 0; round < ENDS && mkw__os_now_ns() < end; round++) {
		e = open_engine();
		file = open_file(e, P(ENDS_PAGES), 0, &h);
		a.p = map_low(file, P(ENDS_PAGES));
		UNTIL(stats(e).faults);
		assert_int_equal(mkw_unmap(a.p, P(ENDS_PAGES)), 0);
		assert_int_equal(mkw_file_close(file), 0);
		assert_int_equal(mkw_engine_close(e), 0);
		a.p = NULL;
	}
	a.stop = true;
	for (int i = 0; i < 3; i++)
		task_join(&loader[i], "loads");
}

/* ---- starvation ------------------------------------------------------- */

#define LOADS 300
/*
 * Of one load. A grace lasts for a moment only, which a busy machine lets pass
 * before the load runs, and two pages need two of them.
 */
#define FAULTS_MAX 200
#define FAULTS_MAX_TWO 3000

struct puncher {
	struct mkw_file *file;
	_Atomic bool stop;
	_Atomic uint64_t punches;
	_Atomic uint64_t faults_end;	/* enough, or the load may never end */
};

static void punch_task(void *arg)
{
	struct puncher *c = arg;
	struct mkw_engine *e = c->file->inode->engine;

	for (; !c->stop && e->count.faults <= c->faults_end; c->punches++)
		MUST(!mkw_fallocate(c->file,
				    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    0, P(2)));
}

struct __attribute__((packed)) word {
	uint64_t value;
};

/* Loads a word while two threads punch its page, or both of its pages. */
static void load_among_punches(size_t off, uint64_t max)
{
	struct mkw_engine *e = open_engine();
	uint64_t faults = 0, punches;
	struct task puncher[2];
	struct puncher c;
	struct hooked *h;
	unsigned char *p;

	c = (struct puncher){ .file = open_file(e, P(2), 0, &h),
			      .faults_end = max };
	p = map(c.file, P(2));
	for (int i = 0; i < 2; i++)
		task_start(&puncher[i], punch_task, &c);
	for (int i = 0; i < LOADS && faults <= max; i++) {
		/* A whole one since the last load, whoever's. */
		punches = c.punches;
		UNTIL(c.punches > punches + 2);
		faults = e->count.faults;
		c.faults_end = faults + max;
		assert_int_equal(((volatile struct word *)(p + off))->value, 0);
		faults = e->count.faults - faults;
	}
	c.stop = true;
	for (int i = 0; i < 2; i++)
		task_join(&puncher[i], "a punch");
	assert_in_range(faults, 1, max);
	assert_int_equal(mkw_unmap(p, P(2)), 0);
	assert_int_equal(mkw_file_close(c.file), 0);
	close_engine(e);
}

/* Every load comes through while others take its page away all the time. */
static void test_load_among_punches(void **state)
{
	(void)state;
	load_among_punches(0, FAULTS_MAX);
}

/* The same of a load that needs two pages at once. */
static void test_load_across_pages(void **state)
{
	(void)state;
	load_among_punches(page - 4, FAULTS_MAX_TWO);
}

/* ---- groups ----------------------------------------------------------- */

#define T(fn) cmocka_unit_test(fn)
#define COMMON \
	T(test_unmap_takes_its_own), T(test_mapping_is_cut), \
	T(test_size_once_owned), T(test_sync_inside_growth), \
	T(test_seek_beside_writeback), T(test_syncs_wait_without_buffers), \
	T(test_fault_waits_for_a_sync), \
	T(test_writers_wait_for_the_flusher), T(test_last_unmap_tells), \
	T(test_load_across_pages), \
	T(test_flush_error_for_all), T(test_load_among_punches)

static int run_pager(const char *name)
{
	/* Fills are asynchronous, failures are poison, losers get a grace. */
	const struct CMUnitTest tests[] = {
		COMMON, T(test_poison_of_another_file),
		T(test_poison_of_a_good_page)
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

static int run_inline(const char *name)
{
	const struct CMUnitTest tests[] = {
		COMMON, T(test_engine_outlives_its_faults)
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	static const struct way ways[] = {
		{ MKW_POLICY_RETRY, 0, "retry, pager" },
		{ MKW_POLICY_RETRY, MKW_MAP_INLINE, "retry, inline" },
		{ MKW_POLICY_INVALIDATE, 0, "invalidate, pager" },
		{ MKW_POLICY_INVALIDATE, MKW_MAP_INLINE, "invalidate, inline" },
	};
	int failed = 0;

	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	if (!access_possible())
		return 77;
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		way = &ways[i];
		failed += way->map_flags ? run_inline(way->name) :
					   run_pager(way->name);
	}
	return failed;
}
