/* SPDX-License-Identifier: MIT */
/*
 * Every call that an operation makes fails once: N = 1, 2, ... until none does.
 *
 * A *case* is an operation on a file whose cache is cold, warm or dirty. A *plan*
 * (lib/fault.h) names calls of the store or of the system, an error, and whether the
 * Nth call fails or every one from the Nth on. After each run the faults are
 * switched off, and then
 *   - the operation said so unless it did what was asked, and never less;
 *   - each word of its range is what it was or what it was to be, every other
 *     byte is what it was, and so is the size;
 *   - all ways of reading agree, and no access fails any more;
 *   - after a sync (one may still report the failure) the store agrees too;
 *   - the engine is whole (mkw__engine_verify()), the file closes, and no
 *     descriptor, mapping or piece of memory is left.
 * Opening and closing have loops of their own.
 *
 * The store is memory, through lib/shim.h. For each kind of finding a bug is
 * planted (the linker's --wrap, again), which must be found. Both policies, both
 * ways of serving faults. Needs userfaultfd with poison; skipped (77) without.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "access.h"
#include "core/core.h"
#include "core/engine.h"
#include "core/testing.h"
#include "lib/fault.h"
#include "lib/shim.h"
#include "lib/wrap_os.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 12u		/* of the file, and its last one in part */
#define MAX_PAGES 18u		/* that it may grow to */
#define TAIL 1000u
#define GIVE_UP 2000u		/* runs of one case */

static size_t page;

/* What a case runs in: set by the loops, read by everything. */
static struct {
	enum mkw_policy policy;
	unsigned map_flags;
	struct fault_plan plan;
	const char *name;
	unsigned long runs, fired;
} now;

struct world {
	struct mkw_engine *engine;
	struct mkw_file *file;
	struct shim *shim;
	unsigned char *p;		/* a mapping of MAX_PAGES */
	/* What the file holds, and what it is to hold after the operation. */
	unsigned char *old, *new, *buf;
	uint64_t old_size, new_size;
	uint64_t lo, hi;		/* the bytes that the operation may change */
	bool failed;			/* the operation said so */
	bool wrong;			/* it gave wrong bytes */
};

/* ---- findings --------------------------------------------------------- */

static void finding(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* In a planted bug's child the status is what is looked at. */
static void finding(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr,
		"%s: %s\n  policy %d, %s, points 0x%x, call %llu%s, error %d, effect %d\n",
		now.name, text, (int)now.policy,
		now.map_flags ? "inline" : "pager", now.plan.points,
		(unsigned long long)now.plan.nth,
		now.plan.persistent ? " and all later" : "", now.plan.err,
		(int)now.plan.effect);
	_exit(1);
}

/* A hang shows what hung. */
static void on_alarm(int sig)
{
	(void)sig;
	finding("hangs");
}

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static unsigned frame_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned n = 0;

	while (fgets(line, sizeof(line), maps))
		n += strstr(line, "memfd:") != NULL;
	fclose(maps);
	return n;
}

/* ---- a file and its model --------------------------------------------- */

/* Words differ from each other, and from version to version. */
static void stamp(unsigned char *mem, uint64_t off, size_t len, unsigned version)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t at = off + i;

		mem[i] = (unsigned char)(version * 37 + (at >> 3) * 5 +
					 (at & 7) + (at >> 11) + 1);
	}
}

static void open_engine(struct mkw_engine **out)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	opt.policy = now.policy;
	/* The flusher keeps out of it, unless it is needed to go on: where the
	 * cache is full of pages that could not be written it tries again. */
	opt.writeback_age_ms = mkw__testing.cache_frames ? 10 : 1u << 30;
	now.name = "open";
	if (mkw_engine_open(&opt, out))
		finding("the engine cannot be opened");
	/* cmocka sets handlers of its own before each test. */
	mkw__trap_reinstall();
}

/* Its rings are opened when they are first used, so it is counted here. */
static void close_engine(struct mkw_engine *engine, unsigned fds)
{
	if (mkw_engine_close(engine))
		finding("the engine does not close");
	if (open_descriptors() != fds)
		finding("%d descriptors are left",
			(int)(open_descriptors() - fds));
}

static void set_up(struct world *w, struct mkw_engine *engine)
{
	struct mkw__store *mem;

	memset(w, 0, sizeof(*w));
	w->engine = engine;
	w->old_size = w->new_size = P(PAGES - 1) + TAIL;
	w->old = calloc(1, P(MAX_PAGES));
	w->new = calloc(1, P(MAX_PAGES));
	w->buf = aligned_alloc(page, P(MAX_PAGES));
	stamp(w->old, 0, w->old_size, 0);
	if (mkw__memstore_open(w->old_size, &mem))
		finding("no memory store");
	mkw__store_write(mem, 0, w->old, w->old_size);
	w->shim = shim_wrap(mem);
	shim_keep(w->shim);
	if (mkw__file_attach(engine, w->shim->st, true, &w->file) ||
	    mkw_map(w->file, NULL, P(MAX_PAGES), PROT_READ | PROT_WRITE,
		    now.map_flags, 0, (void **)&w->p))
		finding("the file cannot be opened and mapped");
}

static void tear_down(struct world *w)
{
	if (mkw_unmap(w->p, P(MAX_PAGES)) || mkw_file_close(w->file))
		finding("the file does not close without an error");
	shim_release(w->shim);
	free(w->old);
	free(w->new);
	free(w->buf);
}

/* ---- what the cache is like before ------------------------------------ */

static void cold(struct world *w)
{
	(void)w;
}

static void warm(struct world *w)
{
	for (unsigned i = 0; i < PAGES; i += i % 3 ? 1 : 2)
		if (try_access(w->p + P(i), false))
			finding("a load before any failure raises a signal");
}

static void dirty(struct world *w)
{
	warm(w);
	for (unsigned i = 0; i < PAGES; i += 2) {
		if (try_access(w->p + P(i) + 8 * i, true))
			finding("a store before any failure raises a signal");
		w->old[P(i) + 8 * i] = 0x5a;
	}
}

static void dirtied(struct world *w)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (try_access(w->p + P(i) + 8 * i, true))
			finding("a store before any failure raises a signal");
		else
			w->old[P(i) + 8 * i] = 0x5a;
}

/* ---- operations ------------------------------------------------------- */

/* It is to change [lo, hi), to what follows in w->new, and the size. */
static void plan_change(struct world *w, uint64_t lo, uint64_t hi, uint64_t size)
{
	w->lo = lo;
	w->hi = hi;
	w->new_size = size;
}

/* A memory store without memory says -ENOSPC. */
static bool explained(ssize_t r)
{
	return r == now.plan.err ||
	       (r == -ENOSPC && (now.plan.points & FAULT_BIT(FAULT_MEMORY)));
}

/* A count or 0 where all was done. A buffer in a mapping that fails is -EFAULT. */
static void outcome(struct world *w, ssize_t r, ssize_t whole)
{
	if (r > whole || (r < 0 && r != -EFAULT && !explained(r)))
		finding("returned %zd, where %zd is all of it", r, whole);
	w->failed = r != whole;
}

static void load(struct world *w)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t off = P(i) + 8 * i;
		unsigned char value;
		int sig = try_byte(w->p + off, &value);

		if (sig && sig != SIGBUS)
			finding("a load raises signal %d", sig);
		if (sig)
			w->failed = true;
		else
			w->wrong |= value != w->old[off];
	}
}

/*
 * A byte of every page, for a system call: false, it was told EFAULT. It asks no
 * handler, which would heal what is poisoned.
 */
static bool load_by_call(const unsigned char *p, size_t len)
{
	unsigned char c;
	bool ok = true;
	int ends[2];

	if (pipe(ends))
		finding("no pipe");
	for (size_t i = 0; i < len; i += page)
		if (write(ends[1], p + i, 1) != 1 || read(ends[0], &c, 1) != 1)
			ok = false;
	close(ends[0]);
	close(ends[1]);
	return ok;
}

/* Where the pager serves it. */
static void call_load(struct world *w)
{
	w->failed = !now.map_flags && !load_by_call(w->p, P(PAGES));
}

/* Each store is an operation of its own: what failed left the old byte. */
static void store(struct world *w)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t off = P(i) + 8 * i + 3;
		int sig = try_access(w->p + off, true);

		if (sig && sig != SIGBUS)
			finding("a store raises signal %d", sig);
		if (sig)
			w->failed = true;
		else
			w->new[off] = w->old[off] = 0x5a;
	}
}

static void read_back(struct world *w, ssize_t r, uint64_t off, size_t len)
{
	uint64_t end = off + len < w->old_size ? off + len : w->old_size;

	outcome(w, r, (ssize_t)(end - off));
	if (r > 0)
		w->wrong |= memcmp(w->buf, w->old + off, (size_t)r) != 0;
}

static void read_all(struct world *w)
{
	read_back(w, mkw_pread(w->file, w->buf, P(MAX_PAGES), 5, 0), 5,
		  P(MAX_PAGES));
}

static void read_direct(struct world *w)
{
	read_back(w, mkw_pread(w->file, w->buf, P(PAGES - 1), 512, MKW_DIRECT),
		  512, P(PAGES - 1));
}

static void write_at(struct world *w, uint64_t off, size_t len, unsigned flags)
{
	uint64_t end = off + len;

	stamp(w->buf, off, len, 1);
	memcpy(w->new + off, w->buf, len);
	plan_change(w, off, end, end > w->old_size ? end : w->old_size);
	outcome(w, mkw_pwrite(w->file, w->buf, len, (off_t)off, flags),
		(ssize_t)len);
}

static void write_parts(struct world *w)
{
	write_at(w, P(1) + 100, P(3) + 24, 0);
}

/* The same by a queue, whose opening may fail, too. */
static void write_queued(struct world *w)
{
	struct mkw_request rq = MKW_REQUEST_INIT;
	struct mkw_queue *queue;
	struct mkw_result res;
	size_t len = P(3) + 24;
	ssize_t r;

	stamp(w->buf, P(1) + 100, len, 1);
	memcpy(w->new + P(1) + 100, w->buf, len);
	plan_change(w, P(1) + 100, P(1) + 100 + len, w->old_size);
	r = mkw_queue_open(w->file->inode->engine, NULL, &queue);
	if (!r) {
		rq.op = MKW_OP_WRITE;
		rq.file = w->file;
		rq.buf = w->buf;
		rq.len = len;
		rq.off = (off_t)P(1) + 100;
		if (mkw_queue_submit(queue, &rq, 1) != 1)
			finding("a request is not taken");
		while ((r = mkw_queue_reap(queue, &res, 1, -1)) == -EINTR)
			;
		r = r == 1 ? (ssize_t)res.value : -EINVAL;
		if (mkw_queue_close(queue))
			finding("a queue cannot be closed");
	}
	outcome(w, r, (ssize_t)len);
}

static void write_whole(struct world *w)
{
	write_at(w, P(2), P(4), 0);
}

static void write_grow(struct world *w)
{
	write_at(w, P(PAGES) + 16, P(2), 0);
}

static void write_direct(struct world *w)
{
	write_at(w, P(1) + 512, P(4), MKW_DIRECT);
}

static void write_direct_sector(struct world *w)
{
	write_at(w, P(4) + 1024, 512, MKW_DIRECT);
}

static void write_direct_grow(struct world *w)
{
	write_at(w, P(PAGES - 2), P(4), MKW_DIRECT);
}

/* The buffer is the same file, a page and a bit further on. */
static void write_from_self(struct world *w)
{
	uint64_t off = P(2), from = P(3) + 8;
	size_t len = P(3);

	memcpy(w->new + off, w->old + from, len);
	plan_change(w, off, off + len, w->old_size);
	outcome(w, mkw_pwrite(w->file, w->p + from, len, (off_t)off, 0),
		(ssize_t)len);
}

static void read_into_self(struct world *w)
{
	uint64_t off = P(2), to = P(3) + 8;
	size_t len = P(3);

	memcpy(w->new + to, w->old + off, len);
	plan_change(w, to, to + len, w->old_size);
	outcome(w, mkw_pread(w->file, w->p + to, len, (off_t)off, 0),
		(ssize_t)len);
}

static void clear_at(struct world *w, int mode, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, size = w->old_size;

	if (end > size && !(mode & FALLOC_FL_KEEP_SIZE))
		size = end;
	memset(w->new + off, 0, (end < P(MAX_PAGES) ? end : P(MAX_PAGES)) - off);
	plan_change(w, off, end, size);
	outcome(w, mkw_fallocate(w->file, mode, (off_t)off, (off_t)len), 0);
}

static void punch(struct world *w)
{
	clear_at(w, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, P(1) + 200,
		 P(5));
}

static void zero(struct world *w)
{
	clear_at(w, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, P(2), P(3));
}

static void zero_grow(struct world *w)
{
	clear_at(w, FALLOC_FL_ZERO_RANGE, P(PAGES - 2) + 8, P(4));
}

static void allocate(struct world *w)
{
	outcome(w, mkw_fallocate(w->file, FALLOC_FL_KEEP_SIZE, 0, P(MAX_PAGES)),
		0);
}

static void allocate_grow(struct world *w)
{
	plan_change(w, w->old_size, P(PAGES + 3) + 8, P(PAGES + 3) + 8);
	outcome(w, mkw_fallocate(w->file, 0, 0, P(PAGES + 3) + 8), 0);
}

static void truncate_up(struct world *w)
{
	plan_change(w, w->old_size, P(PAGES + 2) + 9, P(PAGES + 2) + 9);
	outcome(w, mkw_truncate(w->file, P(PAGES + 2) + 9), 0);
}

static void truncate_down(struct world *w)
{
	memset(w->new + P(5) + 17, 0, P(MAX_PAGES) - P(5) - 17);
	plan_change(w, P(5) + 17, w->old_size, P(5) + 17);
	outcome(w, mkw_truncate(w->file, P(5) + 17), 0);
}

static void sync_file(struct world *w)
{
	outcome(w, mkw_sync(w->file), 0);
}

static void seek_data(struct world *w)
{
	outcome(w, mkw_seek(w->file, 0, SEEK_DATA), 0);
}

/* A second handle and a second mapping, which are gone again afterwards. */
static void map_again(struct world *w)
{
	void *q = NULL;
	int r = mkw_map(w->file, NULL, P(4), PROT_READ, now.map_flags, 0, &q);

	outcome(w, r, 0);
	if (r)
		return;
	/* In two pieces, which takes memory. */
	r = mkw_unmap((char *)q + P(1), P(1));
	outcome(w, r, 0);
	fault_disarm();
	if (mkw_unmap(q, P(4)))
		finding("a mapping cannot be removed");
}

/* ---- the judgement ---------------------------------------------------- */

/* Words that the operation may have changed: the old or the new; the rest old. */
static void judge_bytes(struct world *w, const unsigned char *got,
			const char *way)
{
	uint64_t size = (uint64_t)mkw_size(w->file);

	for (uint64_t i = 0; i < size; i += 8) {
		uint64_t end = i + 8 < size ? i + 8 : size;
		bool whole = i >= w->lo && end <= w->hi;
		bool was = !memcmp(got + i, w->old + i, end - i);

		if (was && !(w->lo < w->hi && !w->failed && whole))
			continue;
		if (whole && !memcmp(got + i, w->new + i, end - i))
			continue;
		for (uint64_t j = i; j < end; j++) {
			bool mine = j >= w->lo && j < w->hi;

			if (got[j] != (mine && !w->failed ? w->new : w->old)[j] &&
			    !(mine && w->failed && !whole &&
			      got[j] == w->new[j]))
				finding("%s: byte 0x%llx is 0x%02x; was 0x%02x, was to be 0x%02x",
					way, (unsigned long long)j, got[j],
					w->old[j], w->new[j]);
		}
	}
}

static void judge_size(struct world *w)
{
	uint64_t size = (uint64_t)mkw_size(w->file);

	if (!w->failed && size != w->new_size)
		finding("the size is %llu, not %llu", (unsigned long long)size,
			(unsigned long long)w->new_size);
	/* With nothing to be had, what was made longer cannot be undone. */
	if (w->failed && size != w->old_size && size != w->new_size &&
	    !(w->lo < w->hi && size > w->old_size && size < w->new_size))
		finding("the size is %llu, which nobody set",
			(unsigned long long)size);
	if (size != w->shim->len)
		finding("the size is %llu, the store's %llu",
			(unsigned long long)size,
			(unsigned long long)w->shim->len);
}

/* All of it in each way; w->buf is what all ways agree on. */
static void judge_contents(struct world *w)
{
	uint64_t size = (uint64_t)mkw_size(w->file);
	size_t end = (size + page - 1) / page * page;
	unsigned char *got = aligned_alloc(page, P(MAX_PAGES));

	if (mkw_pread(w->file, w->buf, P(MAX_PAGES), 0, 0) != (ssize_t)size)
		finding("it cannot be read afterwards");
	judge_bytes(w, w->buf, "read");
	if (mkw_pread(w->file, got, P(MAX_PAGES), 0, MKW_DIRECT) !=
	    (ssize_t)size || memcmp(got, w->buf, size))
		finding("direct reads say something else");
	if (!now.map_flags && !load_by_call(w->p, size))
		finding("a system call still fails on a mapping");
	for (size_t i = 0; i < end; i++) {
		if (!(i % page) && try_access(w->p + i, false))
			finding("a load still fails at 0x%zx", i);
		if (w->p[i] != (i < size ? w->buf[i] : 0))
			finding("a load at 0x%zx says 0x%02x, a read 0x%02x", i,
				w->p[i], i < size ? w->buf[i] : 0);
	}
	free(got);
}

static void judge_store(struct world *w, bool fired)
{
	uint64_t size = (uint64_t)mkw_size(w->file);
	unsigned char *got = aligned_alloc(page, P(MAX_PAGES));
	int r = mkw_sync(w->file);

	if (r && !fired)
		finding("sync says %d, and nothing failed", r);
	if (r && mkw_sync(w->file))
		finding("sync still fails");
	mkw__store_read(w->shim->below, 0, got, P(MAX_PAGES));
	for (size_t i = 0; i < size; i++)
		if (got[i] != w->buf[i])
			finding("after a sync the store has 0x%02x at 0x%zx, the cache 0x%02x",
				got[i], i, w->buf[i]);
	free(got);
}

/* And it goes on working: stores reach the store. */
static void judge_life(struct world *w)
{
	uint64_t size = (uint64_t)mkw_size(w->file);
	unsigned char c;

	for (uint64_t off = 0; off < size; off += page)
		if (try_access(w->p + off, true))
			finding("a store still fails at 0x%llx",
				(unsigned long long)off);
	if (mkw_sync(w->file))
		finding("a later sync fails");
	for (uint64_t off = 0; off < size; off += page) {
		mkw__store_read(w->shim->below, off, &c, 1);
		if (c != 0x5a)
			finding("a later store at 0x%llx did not arrive",
				(unsigned long long)off);
	}
}

/* ---- the loops -------------------------------------------------------- */

struct operation {
	const char *name;
	void (*run)(struct world *w);
};

#define OP(fn) { #fn, fn }
static const struct operation operations[] = {
	OP(load), OP(call_load), OP(store), OP(read_all), OP(read_direct),
	OP(write_parts), OP(write_queued), OP(write_whole), OP(write_grow),
	OP(write_direct), OP(write_direct_sector), OP(write_direct_grow),
	OP(write_from_self), OP(read_into_self), OP(punch), OP(zero), OP(zero_grow), OP(allocate),
	OP(allocate_grow), OP(truncate_up), OP(truncate_down), OP(sync_file),
	OP(seek_data), OP(map_again),
};
static const struct operation caches[] = {
	OP(cold), OP(warm), OP(dirty), OP(dirtied),
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool run_once(struct mkw_engine *engine, const struct operation *cache,
		     const struct operation *op)
{
	unsigned maps = frame_mappings();
	int64_t live = wrap_os_live();
	struct world w;
	bool fired;

	alarm(60);
	set_up(&w, engine);
	cache->run(&w);
	memcpy(w.new, w.old, P(MAX_PAGES));
	fault_arm(&now.plan);
	op->run(&w);
	fired = fault_disarm();
	if (w.wrong)
		finding("wrong bytes were read");
	if (w.failed && !fired)
		finding("it failed, and nothing else did");
	judge_size(&w);
	judge_contents(&w);
	judge_store(&w, fired);
	judge_life(&w);
	mkw__engine_verify(engine);
	tear_down(&w);
	if (wrap_os_live() != live)
		finding("%lld pieces of memory are left",
			(long long)(wrap_os_live() - live));
	if (frame_mappings() != maps)
		finding("%d mappings are left", frame_mappings() - maps);
	alarm(0);
	now.runs++;
	now.fired += fired;
	return fired;
}

static void run_case(struct mkw_engine *engine, const struct operation *cache,
		     const struct operation *op)
{
	char name[64];

	snprintf(name, sizeof(name), "%s, %s", op->name, cache->name);
	now.name = name;
	now.plan.nth = 0;
	do {
		if (++now.plan.nth > GIVE_UP)
			finding("the failures do not come to an end");
	} while (run_once(engine, cache, op));
}

static void run_plan(const struct fault_plan *plan)
{
	unsigned fds = open_descriptors();
	struct mkw_engine *engine;

	now.plan = *plan;
	open_engine(&engine);
	for (size_t i = 0; i < COUNT(caches); i++)
		for (size_t j = 0; j < COUNT(operations); j++)
			run_case(engine, &caches[i], &operations[j]);
	close_engine(engine, fds);
}

static const struct fault_plan plans[] = {
	{ .points = FAULT_STORE, .err = -EIO },
	{ .points = FAULT_STORE, .err = -EIO, .effect = EFFECT_HALF },
	{ .points = FAULT_STORE, .err = -ENOSPC, .effect = EFFECT_ALL },
	{ .points = FAULT_STORE, .err = -EIO, .persistent = true },
	{ .points = FAULT_STORE, .err = -EIO, .persistent = true,
	  .effect = EFFECT_HALF },
	{ .points = FAULT_BIT(FAULT_WRITE) | FAULT_BIT(FAULT_ALLOCATE) |
		    FAULT_BIT(FAULT_RESIZE),
	  .err = -ENOSPC, .persistent = true },
	{ .points = FAULT_SYSTEM, .err = -ENOMEM },
	/* With no memory for page tables ever again an access in the pager's
	 * mappings is tried for ever. */
	{ .points = FAULT_SYSTEM & ~FAULT_BIT(FAULT_PAGE_TABLE), .err = -ENOMEM,
	  .persistent = true },
	{ .points = FAULT_BIT(FAULT_PAGE_TABLE), .err = -EAGAIN },
};

static void test_operations(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(plans); i++)
		run_plan(&plans[i]);
	printf("%lu runs, in %lu of them something failed\n", now.runs,
	       now.fired);
}

/* ---- the cache is too small for it ------------------------------------ */

/* A page of a cache of a few is gone when it is needed again. */
static void test_small_cache(void **state)
{
	const struct operation ops[] = {
		OP(load), OP(read_all), OP(write_parts), OP(write_whole),
		OP(write_grow), OP(write_direct), OP(punch), OP(truncate_down),
		OP(read_into_self), OP(write_from_self), OP(sync_file),
	};

	(void)state;
	mkw__testing.cache_frames = 6;
	for (size_t i = 0; i < COUNT(plans); i++) {
		unsigned fds = open_descriptors();
		struct mkw_engine *engine;

		now.plan = plans[i];
		/* What fills the cache cannot be written, and nothing goes on:
		 * that has a test of its own. */
		if (now.plan.persistent)
			continue;
		open_engine(&engine);
		for (size_t j = 0; j < COUNT(ops); j++) {
			run_case(engine, &caches[0], &ops[j]);
			run_case(engine, &caches[3], &ops[j]);
		}
		close_engine(engine, fds);
	}
	mkw__testing.cache_frames = 0;
}

/* ---- open and close --------------------------------------------------- */

/* From nothing to a mapped file, or to nothing again. */
static bool open_all(struct world *w)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw__store *mem;

	opt.policy = now.policy;
	opt.writeback_age_ms = 1u << 30;
	memset(w, 0, sizeof(*w));
	if (mkw_engine_open(&opt, &w->engine))
		return false;
	if (mkw__memstore_open(P(4), &mem))
		goto close_engine;
	w->shim = shim_wrap(mem);
	if (!w->shim) {
		mkw__store_close(mem);
		goto close_engine;
	}
	if (mkw__file_attach(w->engine, w->shim->st, true, &w->file))
		goto close_engine;
	if (mkw_map(w->file, NULL, P(4), PROT_READ | PROT_WRITE, now.map_flags,
		    0, (void **)&w->p))
		goto close_file;
	return true;
close_file:
	mkw_file_close(w->file);
close_engine:
	if (mkw_engine_close(w->engine))
		finding("the engine does not close");
	return false;
}

/* Without memory nothing has changed, and it can be tried again. */
static int unmap_all(struct world *w)
{
	int r = mkw_unmap(w->p, P(4));

	if (r == -ENOMEM && now.plan.err == -ENOMEM) {
		fault_disarm();
		r = mkw_unmap(w->p, P(4));
	}
	return r;
}

/* The last use of the file, by close or by unmap, with a store to be written. */
static void close_all(struct world *w, bool unmap_last)
{
	int r, r2;

	r = unmap_last ? mkw_file_close(w->file) : unmap_all(w);
	r2 = unmap_last ? unmap_all(w) : mkw_file_close(w->file);
	if (r)
		finding("what was not the last use says %d", r);
	if (r2 && !explained(r2))
		finding("the last use says %d", r2);
	if (mkw_engine_close(w->engine))
		finding("the engine does not close");
}

static bool open_close_once(bool unmap_last, bool at_open)
{
	unsigned fds = open_descriptors(), maps = frame_mappings();
	int64_t live = wrap_os_live();
	struct world w;
	bool fired, open;

	alarm(60);
	if (at_open)
		fault_arm(&now.plan);
	open = open_all(&w);
	if (open && !at_open) {
		mkw__trap_reinstall();
		if (try_access(w.p, true))
			finding("a store fails");
		fault_arm(&now.plan);
	}
	if (open)
		close_all(&w, unmap_last);
	fired = fault_disarm();
	if (!open && !fired)
		finding("open fails, and nothing else did");
	if (wrap_os_live() != live || open_descriptors() != fds ||
	    frame_mappings() != maps)
		finding("left: %lld pieces of memory, %d descriptors, %d mappings",
			(long long)(wrap_os_live() - live),
			open_descriptors() - fds, frame_mappings() - maps);
	alarm(0);
	return fired;
}

static void test_open_close(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(plans); i++) {
		now.plan = plans[i];
		for (int how = 0; how < 4; how++) {
			now.name = how & 2 ? "open" : "close";
			now.plan.nth = 0;
			do {
				now.plan.nth++;
			} while (open_close_once(how & 1, how & 2));
		}
	}
}

/* ---- planted bugs ----------------------------------------------------- */

static enum planted {
	NOTHING,
	FAILURE_KEEPS_CLEAN,	/* pages are not dirtied when the store failed */
	BUFFER_LEAKS,		/* an I/O buffer is not given back */
	POISON_STAYS,		/* poison is not lifted */
} planted;

void __real_mkw__page_dirty_range(struct mkw__inode *, uint64_t, uint64_t);
void __wrap_mkw__page_dirty_range(struct mkw__inode *, uint64_t, uint64_t);
void __real_mkw__pool_buf_put(struct mkw_engine *, struct mkw__buf *);
void __wrap_mkw__pool_buf_put(struct mkw_engine *, struct mkw__buf *);
void __real_mkw__map_lift_poison(struct mkw__inode *, uint64_t, uint64_t);
void __wrap_mkw__map_lift_poison(struct mkw__inode *, uint64_t, uint64_t);

void __wrap_mkw__page_dirty_range(struct mkw__inode *in, uint64_t first,
				  uint64_t end)
{
	if (planted != FAILURE_KEEPS_CLEAN)
		__real_mkw__page_dirty_range(in, first, end);
}

void __wrap_mkw__pool_buf_put(struct mkw_engine *e, struct mkw__buf *buf)
{
	if (planted != BUFFER_LEAKS)
		__real_mkw__pool_buf_put(e, buf);
}

void __wrap_mkw__map_lift_poison(struct mkw__inode *in, uint64_t first,
				 uint64_t end)
{
	if (planted != POISON_STAYS)
		__real_mkw__map_lift_poison(in, first, end);
}

/* In a child: true when it is found, by an oracle here or one of the engine. */
static bool found_in(const struct operation *cache, const struct operation *op,
		     const struct fault_plan *plan)
{
	struct mkw_engine *engine;
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, 1);
		dup2(null, 2);
		now.plan = *plan;
		open_engine(&engine);
		run_case(engine, cache, op);
		_exit(mkw_engine_close(engine) ? 1 : 0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void test_planted(void **state)
{
	static const struct {
		enum planted bug;
		struct operation cache, op;
		struct fault_plan plan;
		const char *mutant;
	} bugs[] = {
		{ FAILURE_KEEPS_CLEAN, OP(warm), OP(write_direct),
		  { .points = FAULT_STORE, .err = -EIO, .effect = EFFECT_HALF },
		  NULL },
		{ FAILURE_KEEPS_CLEAN, OP(warm), OP(punch),
		  { .points = FAULT_STORE, .err = -EIO, .effect = EFFECT_HALF },
		  NULL },
		{ NOTHING, OP(dirty), OP(sync_file),
		  { .points = FAULT_STORE, .err = -EIO }, "WRITE_ERROR_CLEANS" },
		{ BUFFER_LEAKS, OP(cold), OP(load),
		  { .points = FAULT_STORE, .err = -EIO }, NULL },
		{ POISON_STAYS, OP(cold), OP(call_load),
		  { .points = FAULT_STORE, .err = -EIO }, NULL },
		{ NOTHING, OP(cold), OP(load),
		  { .points = FAULT_STORE, .err = -EIO, .persistent = true },
		  "FILL_ERROR_ZEROS" },
		{ NOTHING, OP(warm), OP(truncate_down),
		  { .points = FAULT_STORE, .err = -EIO }, "TRUNCATE_KEEPS_TAIL" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bugs); i++) {
		/* Without it the same run finds nothing. */
		if (found_in(&bugs[i].cache, &bugs[i].op, &bugs[i].plan))
			fail_msg("%s, %s: found without a bug",
				 bugs[i].op.name, bugs[i].cache.name);
		planted = bugs[i].bug;
		if (bugs[i].mutant)
			mkw__testing.mutant = mkw__mutant_find(bugs[i].mutant);
		/* Poison is the pager's alone. */
		if (!(planted == POISON_STAYS && now.map_flags) &&
		    !found_in(&bugs[i].cache, &bugs[i].op, &bugs[i].plan))
			fail_msg("planted bug %zu is not found", i);
		planted = NOTHING;
		mkw__testing.mutant = MKW__MUTANT_NONE;
	}
}

/* ---- a queue has its threads from the start ------------------------------- */

static struct mkw_result next_result(struct mkw_queue *queue)
{
	struct mkw_result res = { 0 };
	ssize_t n;

	do
		n = mkw_queue_reap(queue, &res, 1, 60000);
	while (n == -EINTR);
	assert_int_equal(n, 1);
	return res;
}

/* Where no thread is to be had any more, what waits is passed all the same. */
static void test_queue_threads(void **state)
{
	struct fault_plan plan = { .points = FAULT_BIT(FAULT_LOOP), .nth = 1,
				   .persistent = true, .err = -EAGAIN };
	struct mkw_request rq = MKW_REQUEST_INIT;
	struct mkw_engine *engine;
	struct mkw_queue *queue;
	struct mkw__store *st;
	unsigned char buf[64];

	(void)state;
	assert_int_equal(mkw_engine_open(NULL, &engine), 0);
	assert_int_equal(mkw__memstore_open(P(4), &st), 0);
	assert_int_equal(mkw__file_attach(engine, st, true, &rq.file), 0);
	assert_int_equal(mkw_queue_open(engine, NULL, &queue), 0);
	assert_int_equal(mkw_file_freeze(rq.file), 0);
	fault_arm(&plan);
	rq.op = MKW_OP_WRITE;
	rq.buf = buf;
	rq.len = sizeof(buf);
	rq.tag = 1;
	assert_int_equal(mkw_queue_submit(queue, &rq, 1), 1);
	rq.op = MKW_OP_SYNC;
	rq.tag = 2;
	assert_int_equal(mkw_queue_submit(queue, &rq, 1), 1);
	assert_int_equal(next_result(queue).tag, 2);
	fault_disarm();
	assert_int_equal(mkw_file_thaw(rq.file), 0);
	assert_int_equal(next_result(queue).tag, 1);
	assert_int_equal(mkw_queue_close(queue), 0);
	assert_int_equal(mkw_file_close(rq.file), 0);
	assert_int_equal(mkw_engine_close(engine), 0);
}

static unsigned closes;

static void no_read(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, -EIO);
}

static void count_close(void *arg)
{
	(void)arg;
	closes++;
}

/* A store that is to have threads and gets some of them, or none, is closed. */
static void test_store_threads(void **state)
{
	static const struct mkw_store_ops ops = {
		MKW_STORE_OPS_INIT, .read = no_read, .close = count_close,
	};
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct fault_plan plan = { .points = FAULT_BIT(FAULT_LOOP), .err = -EAGAIN };
	struct mkw_engine *engine;
	struct mkw_file *file;
	int r = -EAGAIN;

	(void)state;
	info.len = P(1);
	info.flags = MKW_STORE_MAY_BLOCK;
	assert_int_equal(mkw_engine_open(NULL, &engine), 0);
	for (plan.nth = 1; r; plan.nth++) {
		int64_t live = wrap_os_live();
		bool fired;

		closes = 0;
		fault_arm(&plan);
		r = mkw_file_open_store(engine, &ops, &info, NULL, O_RDONLY, &file);
		fired = fault_disarm();
		assert_int_equal(r, fired ? -EAGAIN : 0);
		if (!r)
			assert_int_equal(mkw_file_close(file), 0);
		assert_int_equal(closes, 1);
		assert_int_equal(wrap_os_live(), live);
	}
	assert_true(plan.nth > 5);
	assert_int_equal(mkw_engine_close(engine), 0);
}

int main(void)
{
	const struct CMUnitTest once[] = {
		cmocka_unit_test(test_queue_threads),
		cmocka_unit_test(test_store_threads),
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operations),
		cmocka_unit_test(test_small_cache),
		cmocka_unit_test(test_open_close),
		cmocka_unit_test(test_planted),
	};
	static const struct {
		const char *name;
		enum mkw_policy policy;
		unsigned map_flags;
	} ways[] = {
		{ "retry, pager", MKW_POLICY_RETRY, 0 },
		{ "retry, inline", MKW_POLICY_RETRY, MKW_MAP_INLINE },
		{ "invalidate, pager", MKW_POLICY_INVALIDATE, 0 },
		{ "invalidate, inline", MKW_POLICY_INVALIDATE, MKW_MAP_INLINE },
	};
	int failed = 0;

	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	if (!access_possible())
		return 77;
	signal(SIGALRM, on_alarm);
	failed += cmocka_run_group_tests(once, NULL, NULL);
	/* Each policy and each way of serving, where the machine is slow. */
	for (size_t i = 0; i < COUNT(ways); i += TEST_SLOW ? 3 : 1) {
		now.policy = ways[i].policy;
		now.map_flags = ways[i].map_flags;
		failed += cmocka_run_group_tests_name(ways[i].name, tests, NULL,
						      NULL);
	}
	return failed;
}
