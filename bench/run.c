/* SPDX-License-Identifier: MIT */
/*
 * run.c: one run, in a process of its own.
 *
 * The child enters its memory limit, makes a view of the file (the kernel's
 * mmap, or an engine's mapping), warms up, and touches pages for the given time.
 * A touch is one load of 8 bytes that is compared with what the file is known
 * to hold at that place, so a target that shows wrong bytes cannot win. What it
 * counted goes to the parent through a pipe.
 *
 * random-read   Warm-up: pages in order, twice as many as the cache holds, so
 *               that it is full and every further page costs one. Then pages at
 *               random over the whole file. Both are told so (MADV_RANDOM,
 *               MKW_ADVICE_RANDOM):
 *               without it it reads megabytes for each page, and that is no
 *               baseline to be proud of beating.
 * seq-scan      No warm-up, the file is not cached. Pages in order, from the
 *               start again at the end. The kernel is told MADV_SEQUENTIAL, and
 *               may map its large folios as huge pages.
 * -small        The same. The kernel is told MADV_NOHUGEPAGE, too, so that it maps
 *               page by page, as a userfaultfd does: what remains of the ratio is
 *               not the size of the pages.
 * refault       A part of the file that fits the cache four times over, all of
 *               it touched first. Then laps: take the mapping away (the clock
 *               stops meanwhile), touch every page of the part once, in a
 *               scattered order. Both sides may map neighbours as they see fit.
 * random-store  As random-read, and each touch stores the word that it loaded, so
 *               that the page is dirty and the file the same. At the end a sync,
 *               which is timed by itself.
 * cached-pread  As refault, without a mapping: whole pages by pread(2), or
 *               mkw_pread(), in a scattered order.
 * queue-read    Warm-up as random-read's. Then reads of whole pages at random, 32 at any
 *               time, each into a buffer of its own: by io_uring, whose reads go through
 *               the kernel's page cache (POSIX_FADV_RANDOM) as a queue's go through
 *               the engine's, and as many misses; O_DIRECT would be another job. Both
 *               submit again in one call what has come back.
 * atomic-pwrite 4 MiB of the file, cached and read into memory first; then writes of
 *               that memory to their own places, in a scattered order. The engine's
 *               file is open with MKW_ATOMIC_WRITES. In -load each page is loaded through
 *               the mapping after it was written, so that the next write has mappings
 *               to take away, and the load a fault. What was written is synced after
 *               the clock has stopped.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/internal.h"
#include "mkwrite/mkwrite.h"

/* How many touches lie between two looks at the clock. */
#define BURST 64
/* Reads at once. */
#define DEPTH 32
/* What atomic-pwrite writes to, again and again. */
#define WRITTEN ((size_t)4 << 20)
#define LONG ((size_t)64 << 10)

uint64_t mkw__bench_word(uint64_t page, uint64_t word)
{
	/* splitmix64 (Steele, Lea, Flood 2014) of the place. */
	uint64_t x = (page << 16 | word) * 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static const char *target_name(const struct bench_run *run)
{
	return run->target == BENCH_KERNEL ? "kernel" : "engine";
}

/* ---- the file, seen through a mapping (in the child) ------------------ */

struct view {
	const struct bench_run *run;
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *addr;
	size_t len;
	uint64_t words_per_page;
};

static int failed(const char *what, int err)
{
	fprintf(stderr, "mkwrite bench: %s: %s\n", what, strerror(err));
	return -1;
}

static int view_map(struct view *v)
{
	const struct bench_run *run = v->run;
	int prot = PROT_READ;
	void *addr;
	int err;

	if (run->kind == BENCH_RANDOM_STORE)
		prot |= PROT_WRITE;
	if (run->target == BENCH_KERNEL) {
		addr = mmap(NULL, v->len, prot, MAP_SHARED, run->setup->fd, 0);
		if (addr == MAP_FAILED)
			return failed("mmap", errno);
	} else {
		err = mkw_map(v->file, NULL, v->len, prot,
			      run->in_thread ? MKW_MAP_INLINE : 0, 0, &addr);
		if (err)
			return failed("mkw_map", -err);
	}
	v->addr = addr;
	return 0;
}

static int view_open_file(struct view *v)
{
	int fd = v->run->setup->fd;
	char path[32];

	if (v->run->kind < BENCH_ATOMIC_PWRITE)
		return mkw_file_open_fd(v->engine, fd, &v->file);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return mkw_file_open(v->engine, path, O_RDWR | MKW_ATOMIC_WRITES, 0,
			     &v->file);
}

static int view_open(struct view *v, const struct bench_run *run)
{
	const struct bench_setup *setup = run->setup;
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	int err;

	*v = (struct view){ .run = run,
			    .len = setup->file_bytes,
			    .words_per_page = setup->page_size / 8 };
	if (run->target == BENCH_ENGINE) {
		opt.cache_bytes = setup->cache_bytes;
		opt.policy = setup->policy;
		err = mkw_engine_open(&opt, &v->engine);
		if (err)
			return failed("mkw_engine_open", -err);
		err = view_open_file(v);
		if (err)
			return failed("opening the file by the engine", -err);
	}
	return view_map(v);
}

/* Takes every mapped page away; the pages stay cached. */
static int view_drop(struct view *v)
{
	int err;

	if (v->run->target == BENCH_KERNEL)
		return madvise(v->addr, v->len, MADV_DONTNEED) ?
		       failed("madvise(MADV_DONTNEED)", errno) : 0;
	err = mkw_unmap(v->addr, v->len);
	if (err)
		return failed("mkw_unmap", -err);
	return view_map(v);
}

/* Each side's own means, for its best. */
static int view_advise(struct view *v, int advice)
{
	int err;

	if (v->run->target == BENCH_KERNEL)
		return madvise(v->addr, v->len, advice) ?
			       failed("madvise", errno) : 0;
	err = mkw_advise(v->file, 0, 0, advice == MADV_RANDOM ?
						MKW_ADVICE_RANDOM :
						MKW_ADVICE_SEQUENTIAL);
	return err ? failed("mkw_advise", -err) : 0;
}

/* No huge pages in the kernel's mapping, as there are none in the engine's. */
static int view_small(struct view *v)
{
	/* EINVAL: this kernel has none. */
	return v->run->target == BENCH_KERNEL &&
	       madvise(v->addr, v->len, MADV_NOHUGEPAGE) && errno != EINVAL ?
		       failed("madvise(MADV_NOHUGEPAGE)", errno) : 0;
}

static int view_close(struct view *v)
{
	int err;

	if (v->run->target == BENCH_KERNEL)
		return 0;
	err = mkw_unmap(v->addr, v->len);
	if (err)
		return failed("mkw_unmap", -err);
	err = mkw_file_close(v->file);
	if (err)
		return failed("mkw_file_close", -err);
	err = mkw_engine_close(v->engine);
	return err ? failed("mkw_engine_close", -err) : 0;
}

/* What was found at a word of the page is compared with what was written. */
static inline int compare(const struct view *v, uint64_t page, uint64_t word,
			  uint64_t found)
{
	uint64_t off = page * v->run->setup->page_size + word * 8;
	uint64_t expected = mkw__bench_word(page, word);

	if (found == expected)
		return 0;
	fprintf(stderr,
		"mkwrite bench: the %s shows wrong bytes at offset %llu: expected %016llx, found %016llx\n",
		target_name(v->run), (unsigned long long)off,
		(unsigned long long)expected, (unsigned long long)found);
	return -1;
}

static inline int touch(const struct view *v, uint64_t page)
{
	uint64_t word = page * 7 % v->words_per_page;
	volatile uint64_t *at =
		(volatile uint64_t *)(v->addr +
				      page * v->run->setup->page_size) + word;
	uint64_t found = *at;

	if (v->run->kind == BENCH_RANDOM_STORE)
		*at = found;
	return compare(v, page, word, found);
}

/* Makes what was stored durable. */
static int view_sync(struct view *v)
{
	int err;

	if (v->run->target == BENCH_KERNEL)
		return msync(v->addr, v->len, MS_SYNC) ||
		       fdatasync(v->run->setup->fd) ? failed("msync", errno) : 0;
	err = mkw_sync(v->file);
	return err ? failed("mkw_sync", -err) : 0;
}

/* Reads a page by a call, and compares one word. */
static inline int read_page(const struct view *v, uint64_t page, void *buf)
{
	size_t len = v->run->setup->page_size;
	uint64_t word = page * 7 % v->words_per_page;
	off_t off = (off_t)(page * len);
	ssize_t n;

	n = v->run->target == BENCH_KERNEL ?
		    pread(v->run->setup->fd, buf, len, off) :
		    mkw_pread(v->file, buf, len, off, 0);
	if (n != (ssize_t)len)
		return failed("reading a page", n < -1 ? (int)-n : errno);
	return compare(v, page, word, ((uint64_t *)buf)[word]);
}

/* ---- workloads (in the child) ----------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
	*state += 1;
	return mkw__bench_word(*state >> 16, *state & 0xffff);
}

/* Pages in order until the cache is full; from then on, at random. */
static int warm_up(struct view *v)
{
	const struct bench_setup *setup = v->run->setup;
	uint64_t pages = setup->file_bytes / setup->page_size;
	uint64_t warm = 2 * setup->cache_bytes / setup->page_size;

	if (view_advise(v, MADV_SEQUENTIAL))
		return -1;
	for (uint64_t page = 0; page < warm && page < pages; page++)
		if (touch(v, page))
			return -1;
	return view_advise(v, MADV_RANDOM);
}

/* Reads, or stores and syncs. */
static int random_touches(struct view *v, struct bench_result *res)
{
	const struct bench_setup *setup = v->run->setup;
	uint64_t pages = setup->file_bytes / setup->page_size;
	uint64_t state = v->run->seed << 32;
	uint64_t begin, limit = setup->seconds * 1000000000ull;

	if (warm_up(v))
		return -1;
	begin = now_ns();
	do {
		for (int i = 0; i < BURST; i++)
			if (touch(v, next_random(&state) % pages))
				return -1;
		res->touches += BURST;
		res->ns = now_ns() - begin;
	} while (res->ns < limit);
	if (v->run->kind != BENCH_RANDOM_STORE)
		return 0;
	begin = now_ns();
	if (view_sync(v))
		return -1;
	res->sync_ns = now_ns() - begin;
	return 0;
}

static int seq_scan(struct view *v, struct bench_result *res)
{
	const struct bench_setup *setup = v->run->setup;
	uint64_t pages = setup->file_bytes / setup->page_size;
	uint64_t page = 0, begin, limit = setup->seconds * 1000000000ull;

	if (view_advise(v, MADV_SEQUENTIAL) ||
	    (v->run->kind == BENCH_SEQ_SCAN_SMALL && view_small(v)))
		return -1;
	begin = now_ns();
	do {
		for (int i = 0; i < BURST; i++) {
			if (touch(v, page))
				return -1;
			page = page + 1 < pages ? page + 1 : 0;
		}
		res->touches += BURST;
		res->ns = now_ns() - begin;
	} while (res->ns < limit);
	return 0;
}

/* Pages that fit the cache four times: a power of two, so that an odd stride meets
 * each once. */
static uint64_t cached_pages(const struct bench_setup *setup)
{
	uint64_t room = setup->cache_bytes / 4 < setup->file_bytes ?
			setup->cache_bytes / 4 : setup->file_bytes;
	uint64_t pages = 1;

	while (pages * 2 * setup->page_size <= room)
		pages *= 2;
	return pages;
}

static int cached_pread(struct view *v, struct bench_result *res)
{
	const struct bench_setup *setup = v->run->setup;
	uint64_t pages = cached_pages(setup), begin, at = 0;
	uint64_t limit = setup->seconds * 1000000000ull;
	void *buf = aligned_alloc(setup->page_size, setup->page_size);

	if (!buf)
		return failed("a buffer", ENOMEM);
	for (uint64_t page = 0; page < pages; page++)
		if (read_page(v, page, buf))
			return -1;
	begin = now_ns();
	do {
		for (int i = 0; i < BURST; i++)
			if (read_page(v, at++ * 0x9e3779b1u & (pages - 1), buf))
				return -1;
		res->touches += BURST;
		res->ns = now_ns() - begin;
	} while (res->ns < limit);
	free(buf);
	return 0;
}

static int refault(struct view *v, struct bench_result *res)
{
	const struct bench_setup *setup = v->run->setup;
	uint64_t pages = cached_pages(setup), begin, start = now_ns();
	uint64_t limit = setup->seconds * 1000000000ull;

	for (uint64_t page = 0; page < pages; page++)
		if (touch(v, page))
			return -1;
	do {
		if (view_drop(v))
			return -1;
		begin = now_ns();
		for (uint64_t i = 0; i < pages; i++)
			if (touch(v, i * 0x9e3779b1u & (pages - 1)))
				return -1;
		res->ns += now_ns() - begin;
		res->touches += pages;
		/* Dropping takes time too, which the clock of the run leaves
		 * out: do not let it take for ever. */
	} while (res->ns < limit && now_ns() - start < 4 * limit);
	return 0;
}

/* ---- asynchronous reads ------------------------------------------------ */

/* DEPTH reads; done[] are those that came back, `count` of them. */
struct reads {
	const struct view *v;
	struct io_uring ring;
	struct mkw_queue *queue;
	unsigned char *mem;
	uint64_t page[DEPTH];
	unsigned done[DEPTH];
	unsigned count;
};

static int reads_open(struct reads *r, const struct view *v)
{
	struct mkw_queue_options opt = MKW_QUEUE_OPTIONS_INIT;
	int err;

	*r = (struct reads){ .v = v, .count = DEPTH };
	for (unsigned i = 0; i < DEPTH; i++)
		r->done[i] = i;
	r->mem = aligned_alloc(v->run->setup->page_size,
			       DEPTH * v->run->setup->page_size);
	if (!r->mem)
		return failed("buffers", ENOMEM);
	if (v->run->target == BENCH_KERNEL) {
		err = posix_fadvise(v->run->setup->fd, 0, 0, POSIX_FADV_RANDOM);
		if (err)
			return failed("posix_fadvise", err);
		err = io_uring_queue_init(DEPTH, &r->ring, 0);
		return err ? failed("io_uring", -err) : 0;
	}
	opt.depth = opt.threads = DEPTH;
	err = mkw_queue_open(v->engine, &opt, &r->queue);
	return err ? failed("mkw_queue_open", -err) : 0;
}

/* What is under way is waited for, and forgotten. */
static int reads_close(struct reads *r)
{
	struct io_uring_cqe *cqe;
	int err = 0;

	if (r->queue) {
		err = mkw_queue_close(r->queue);
	} else {
		for (; r->count < DEPTH && !err; r->count++) {
			err = io_uring_wait_cqe(&r->ring, &cqe);
			if (!err)
				io_uring_cqe_seen(&r->ring, cqe);
		}
		io_uring_queue_exit(&r->ring);
	}
	free(r->mem);
	return err ? failed("ending reads", -err) : 0;
}

/* Those that came back read other pages now. (The kernel's call waits, too.) */
static int reads_submit(struct reads *r, uint64_t *state)
{
	const struct bench_setup *setup = r->v->run->setup;
	uint64_t pages = setup->file_bytes / setup->page_size;
	size_t len = setup->page_size;
	struct mkw_request rq[DEPTH];
	ssize_t n;

	for (unsigned i = 0; i < r->count; i++) {
		unsigned slot = r->done[i];
		void *buf = r->mem + slot * len;
		off_t off;

		r->page[slot] = next_random(state) % pages;
		off = (off_t)(r->page[slot] * len);
		if (r->queue) {
			rq[i] = (struct mkw_request)MKW_REQUEST_INIT;
			rq[i].op = MKW_OP_READ;
			rq[i].file = r->v->file;
			rq[i].buf = buf;
			rq[i].len = len;
			rq[i].off = off;
			rq[i].tag = slot;
		} else {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

			io_uring_prep_read(sqe, setup->fd, buf, (unsigned)len,
					   (uint64_t)off);
			io_uring_sqe_set_data64(sqe, slot);
		}
	}
	n = r->queue ? mkw_queue_submit(r->queue, rq, r->count) :
		       io_uring_submit_and_wait(&r->ring, 1);
	return n == (ssize_t)r->count ? 0 :
	       failed("submitting reads", n < 0 ? (int)-n : EAGAIN);
}

static int reads_check(struct reads *r, unsigned slot, int64_t value)
{
	size_t len = r->v->run->setup->page_size;
	uint64_t page = r->page[slot];
	uint64_t word = page * 7 % r->v->words_per_page;

	if (value != (int64_t)len)
		return failed("reading a page", value < 0 ? (int)-value : EIO);
	r->done[r->count++] = slot;
	return compare(r->v, page, word,
		       ((uint64_t *)(void *)(r->mem + slot * len))[word]);
}

/* Waits for some, and takes what there is. */
static int reads_reap(struct reads *r)
{
	struct mkw_result results[DEPTH];
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;
	ssize_t n;
	int err;

	r->count = 0;
	if (r->queue) {
		do
			n = mkw_queue_reap(r->queue, results, DEPTH, -1);
		while (n == -EINTR);
		if (n < 0)
			return failed("mkw_queue_reap", (int)-n);
		for (ssize_t i = 0; i < n; i++)
			if (reads_check(r, (unsigned)results[i].tag,
					results[i].value))
				return -1;
		return 0;
	}
	do
		err = io_uring_wait_cqe(&r->ring, &cqe);
	while (err == -EINTR);
	if (err)
		return failed("io_uring", -err);
	io_uring_for_each_cqe(&r->ring, head, cqe) {
		if (reads_check(r, (unsigned)io_uring_cqe_get_data64(cqe),
				cqe->res))
			return -1;
		seen++;
	}
	io_uring_cq_advance(&r->ring, seen);
	return 0;
}

static int queue_read(struct view *v, struct bench_result *res)
{
	uint64_t limit = v->run->setup->seconds * 1000000000ull;
	uint64_t state = v->run->seed << 32, begin;
	struct reads r;

	if (warm_up(v) || reads_open(&r, v))
		return -1;
	begin = now_ns();
	do {
		if (reads_submit(&r, &state) || reads_reap(&r))
			return -1;
		res->touches += r.count;
		res->ns = now_ns() - begin;
	} while (res->ns < limit);
	return reads_close(&r);
}

/* ---- writes that are atomic as a whole ---------------------------------- */

static int write_at(const struct view *v, const unsigned char *mem, size_t off_bytes,
		    size_t len)
{
	off_t off = (off_t)off_bytes;
	ssize_t n = v->run->target == BENCH_KERNEL ?
			    pwrite(v->run->setup->fd, mem + off, len, off) :
			    mkw_pwrite(v->file, mem + off, len, off, 0);

	return n == (ssize_t)len ? 0 :
	       failed("writing pages", n < -1 ? (int)-n : errno);
}

static int load_pages(const struct view *v, size_t off, size_t len)
{
	size_t size = v->run->setup->page_size;

	for (size_t end = off + len; off < end; off += size)
		if (touch(v, off / size))
			return -1;
	return 0;
}

static int atomic_pwrite(struct view *v, struct bench_result *res)
{
	const struct bench_setup *setup = v->run->setup;
	size_t len = v->run->kind == BENCH_ATOMIC_PWRITE ? setup->page_size : LONG;
	bool load = v->run->kind == BENCH_ATOMIC_LOAD;
	uint64_t limit = setup->seconds * 1000000000ull, begin, at = 0;
	unsigned char *mem = aligned_alloc(setup->page_size, WRITTEN);

	if (!mem)
		return failed("a buffer", ENOMEM);
	for (size_t off = 0; off < WRITTEN; off += setup->page_size)
		if (read_page(v, off / setup->page_size, mem + off))
			return -1;
	begin = now_ns();
	do {
		for (int i = 0; i < BURST; i++) {
			size_t off = (at++ * 0x9e3779b1u & (WRITTEN / len - 1)) * len;

			if (write_at(v, mem, off, len) ||
			    (load && load_pages(v, off, len)))
				return -1;
		}
		res->touches += BURST * len / setup->page_size;
		res->ns = now_ns() - begin;
	} while (res->ns < limit);
	free(mem);
	return load_pages(v, 0, WRITTEN) || view_sync(v);
}

static int (*const workloads[BENCH_KINDS])(struct view *v,
					   struct bench_result *res) = {
	[BENCH_RANDOM_READ] = random_touches,
	[BENCH_SEQ_SCAN] = seq_scan,
	[BENCH_SEQ_SCAN_SMALL] = seq_scan,
	[BENCH_REFAULT] = refault,
	[BENCH_RANDOM_STORE] = random_touches,
	[BENCH_CACHED_PREAD] = cached_pread,
	[BENCH_QUEUE_READ] = queue_read,
	[BENCH_ATOMIC_PWRITE] = atomic_pwrite,
	[BENCH_ATOMIC_PWRITE_LONG] = atomic_pwrite,
	[BENCH_ATOMIC_LOAD] = atomic_pwrite,
};

/* The child: ends with _exit(), 0 after a result has been sent. */
static _Noreturn void child(const struct bench_run *run,
			    const struct bench_cap *cap, int out)
{
	struct bench_result res = { 0 };
	struct view v;

	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	if (cap && mkw__bench_cap_enter(cap)) {
		fprintf(stderr, "mkwrite bench: cannot enter %s: %s\n",
			cap->dir, strerror(errno));
		_exit(1);
	}
	if (view_open(&v, run) || workloads[run->kind](&v, &res) ||
	    view_close(&v))
		_exit(1);
	_exit(write(out, &res, sizeof(res)) == (ssize_t)sizeof(res) ? 0 : 1);
}

/* ---- the parent ------------------------------------------------------- */

int mkw__bench_run(const struct bench_run *run, struct bench_result *result)
{
	const struct bench_setup *setup = run->setup;
	struct bench_cap cap;
	int pipe_fd[2], status = 0, ret = -1;
	bool capped = setup->limit_bytes != 0, sent;
	pid_t pid;

	/* Pages that an earlier run left in the kernel's cache would count for
	 * nobody's limit. */
	ret = posix_fadvise(setup->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (ret)
		return failed("dropping the file's cached pages", ret);
	if (capped && mkw__bench_cap_create(&cap, setup->limit_bytes))
		return -1;
	ret = -1;
	if (pipe2(pipe_fd, O_CLOEXEC)) {
		failed("pipe", errno);
		goto out_cap;
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		failed("fork", errno);
		goto out_pipe;
	}
	if (!pid)
		child(run, capped ? &cap : NULL, pipe_fd[1]);
	while (waitpid(pid, &status, 0) < 0)
		/* Only by a signal that asks us to end. */
		kill(pid, SIGKILL);
	if (mkw__bench_signal)
		goto out_pipe;

	close(pipe_fd[1]);
	pipe_fd[1] = -1;
	sent = read(pipe_fd[0], result, sizeof(*result)) ==
	       (ssize_t)sizeof(*result);
	if (WIFSIGNALED(status)) {
		fprintf(stderr, "mkwrite bench: the %s's run was ended by signal %d (%s)%s\n",
			target_name(run), WTERMSIG(status),
			strsignal(WTERMSIG(status)),
			capped && WTERMSIG(status) == SIGKILL ?
			"; if that was for want of memory, raise --overhead-mib" :
			"");
		goto out_pipe;
	}
	if (status || !sent)
		/* The child has said why. */
		goto out_pipe;
	result->peak_bytes = capped ? mkw__bench_cap_peak(&cap) : 0;
	ret = 0;
out_pipe:
	close(pipe_fd[0]);
	if (pipe_fd[1] >= 0)
		close(pipe_fd[1]);
out_cap:
	if (capped)
		mkw__bench_cap_remove(&cap);
	return ret;
}
