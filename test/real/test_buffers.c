/* SPDX-License-Identifier: MIT */
/*
 * Buffers anywhere (rule R0): whatever memory a read or write is given, the outcome is
 * that of reading into private memory and then storing it.
 *
 * Three areas are in play: a file that is read and written, mapped; a file of another
 * engine, mapped; ordinary memory. A plain array is the model of each. A case says
 * where in them an operation has its segments, and is run for every operation, cached
 * and not, direct and buffered, with both policies and both ways of serving faults; the
 * areas are compared with their models after each. A watchdog ends a deadlock.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/core.h"
#include "mkwrite/mkwrite.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)
#define AREA_PAGES 8
#define WATCHDOG_S 60

static size_t page;
static char dir[] = "mkw-test-buffers-XXXXXX";

enum { OWN, FOREIGN, PLAIN, AREAS };

struct way {
	enum mkw_policy policy;
	unsigned map_flags;
	const char *name;
};
static const struct way *way;

struct world {
	struct mkw_engine *engine[2];
	struct mkw_file *file[2];
	unsigned char *area[AREAS];	/* the foreign one ends where plain begins */
	unsigned char *model[AREAS];
	size_t len;			/* of each */
};

/* ---- the areas -------------------------------------------------------- */

static struct mkw_file *open_file(struct mkw_engine *e, const char *name,
				  size_t len)
{
	struct mkw_file *file;
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(mkw_file_open(e, path, O_RDWR | O_CREAT, 0600, &file),
			 0);
	unlink(path);
	assert_int_equal(mkw_truncate(file, (off_t)len), 0);
	return file;
}

static void world_open(struct world *w, size_t len, uint64_t cache_bytes)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	unsigned char *room;
	void *p;

	opt.policy = way->policy;
	opt.cache_bytes = cache_bytes;
	w->len = len;
	/* A place where a mapping and ordinary memory are neighbours. */
	room = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(room, MAP_FAILED);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(mkw_engine_open(&opt, &w->engine[i]), 0);
		w->file[i] = open_file(w->engine[i], i ? "foreign" : "own", len);
	}
	mkw__trap_reinstall();
	assert_int_equal(mkw_map(w->file[0], NULL, len, PROT_READ | PROT_WRITE,
				 way->map_flags, 0, &p), 0);
	w->area[OWN] = p;
	assert_int_equal(mkw_map(w->file[1], room, len, PROT_READ | PROT_WRITE,
				 way->map_flags | MKW_MAP_FIXED, 0, &p), 0);
	w->area[FOREIGN] = p;
	w->area[PLAIN] = room + len;
	for (int a = 0; a < AREAS; a++) {
		w->model[a] = malloc(len);
		for (size_t i = 0; i < len; i++)
			w->model[a][i] = (unsigned char)(i * 13 + i / page +
							 64 * (size_t)a);
		memcpy(w->area[a], w->model[a], len);
	}
}

static void world_close(struct world *w)
{
	assert_int_equal(mkw_unmap(w->area[OWN], w->len), 0);
	assert_int_equal(mkw_unmap(w->area[FOREIGN], w->len), 0);
	munmap(w->area[PLAIN], w->len);
	for (int i = 0; i < 2; i++) {
		mkw__engine_verify(w->engine[i]);
		assert_int_equal(mkw_file_close(w->file[i]), 0);
		assert_int_equal(mkw_engine_close(w->engine[i]), 0);
	}
	for (int a = 0; a < AREAS; a++)
		free(w->model[a]);
}

/* Takes both files' pages from their caches. */
static void make_cold(struct world *w)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(mkw_advise(w->file[i], 0, 0,
					    MKW_ADVICE_DONTNEED), 0);
}

static void compare(struct world *w, const char *what)
{
	unsigned char *buf = malloc(w->len);

	for (int i = 0; i < 2; i++) {
		assert_int_equal(mkw_pread(w->file[i], buf, w->len, 0, 0),
				 w->len);
		if (memcmp(buf, w->model[i], w->len))
			fail_msg("%s: the %s file is not what it should be",
				 what, i ? "foreign" : "own");
	}
	for (int a = 0; a < AREAS; a++)
		if (memcmp(w->area[a], w->model[a], w->len))
			fail_msg("%s: area %d is not what it should be", what,
				 a);
	free(buf);
}

/* ---- cases ------------------------------------------------------------ */

struct segment {
	int area;
	size_t off, len;
};

struct arrangement {
	const char *name;
	uint64_t off;			/* in the own file */
	struct segment seg[4];
	bool unaligned;			/* not for direct I/O */
};

/* The operation on the models: through private memory. */
static void model_run(struct world *w, const struct arrangement *c, bool write)
{
	unsigned char *tmp = malloc(w->len), *t = tmp;
	size_t total = 0;

	for (const struct segment *s = c->seg; s->len; s++) {
		if (write)
			memcpy(t, w->model[s->area] + s->off, s->len);
		t += s->len;
		total += s->len;
	}
	if (write) {
		memcpy(w->model[OWN] + c->off, tmp, total);
	} else {
		memcpy(tmp, w->model[OWN] + c->off, total);
		t = tmp;
		for (const struct segment *s = c->seg; s->len; s++) {
			memcpy(w->model[s->area] + s->off, t, s->len);
			t += s->len;
		}
	}
	free(tmp);
}

static void engine_run(struct world *w, const struct arrangement *c, bool write,
		       unsigned flags)
{
	struct iovec iov[4];
	size_t total = 0;
	ssize_t r;
	int n = 0;

	for (const struct segment *s = c->seg; s->len; s++, n++) {
		iov[n].iov_base = w->area[s->area] + s->off;
		iov[n].iov_len = s->len;
		total += s->len;
	}
	if (n == 1)
		r = write ? mkw_pwrite(w->file[0], iov->iov_base, total,
				       (off_t)c->off, flags) :
			    mkw_pread(w->file[0], iov->iov_base, total,
				      (off_t)c->off, flags);
	else
		r = write ? mkw_pwritev(w->file[0], iov, n, (off_t)c->off, flags) :
			    mkw_preadv(w->file[0], iov, n, (off_t)c->off, flags);
	assert_int_equal(r, total);
}

static void run(struct world *w, const struct arrangement *c)
{
	char what[128];

	for (unsigned k = 0; k < 8; k++) {
		bool write = k & 1, cold = k & 2, direct = k & 4;

		if (direct && c->unaligned)
			continue;
		snprintf(what, sizeof(what), "%s, %s %s, %s, %s", c->name,
			 direct ? "direct" : "buffered",
			 write ? "write" : "read", cold ? "cold" : "cached",
			 way->name);
		if (cold)
			make_cold(w);
		model_run(w, c, write);
		engine_run(w, c, write, direct ? MKW_DIRECT : 0);
		compare(w, what);
	}
}

static void test_arrangements(void **state)
{
	const size_t len = P(AREA_PAGES);
	const struct arrangement cases[] = {
		{ "ordinary memory", P(1), { { PLAIN, 0, P(3) } }, false },
		{ "the same range", P(1), { { OWN, P(1), P(3) } }, false },
		{ "one page further", P(1), { { OWN, P(2), P(3) } }, false },
		{ "one page before", P(2), { { OWN, P(1), P(3) } }, false },
		{ "eight bytes further", P(1), { { OWN, P(1) + 8, P(2) } }, false },
		{ "eight bytes overlap", P(1), { { OWN, P(3) - 8, P(2) } }, false },
		{ "odd bytes", P(1) + 3, { { OWN, P(2) - 5, P(1) + 7 } }, true },
		{ "another engine's file", 0, { { FOREIGN, P(2), P(4) } }, false },
		{ "half a mapping, half ordinary", P(1),
		  { { FOREIGN, len - P(2), P(2) }, { PLAIN, 0, P(1) } }, false },
		{ "segments of all kinds", P(2),
		  { { PLAIN, P(1), P(1) }, { OWN, P(3), P(1) },
		    { FOREIGN, P(5), P(2) } }, false },
		{ "segments in the same page", P(4),
		  { { OWN, P(4) + 100, 60 }, { PLAIN, 7, 900 },
		    { FOREIGN, 33, 1 } }, true },
	};
	struct world w;

	(void)state;
	world_open(&w, len, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		run(&w, &cases[i]);
	world_close(&w);
}

/* A single buffer that is half mapping and half ordinary memory. */
static void test_across_the_border(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, P(AREA_PAGES), 0);
	for (unsigned k = 0; k < 8; k++) {
		unsigned flags = k & 4 ? MKW_DIRECT : 0;
		unsigned char *buf = w.area[PLAIN] - P(2);
		size_t at = w.len - P(2);

		if (k & 2)
			make_cold(&w);
		if (k & 1) {
			assert_int_equal(mkw_pwrite(w.file[0], buf, P(4), 0,
						    flags), P(4));
			memcpy(w.model[OWN], w.model[FOREIGN] + at, P(2));
			memcpy(w.model[OWN] + P(2), w.model[PLAIN], P(2));
		} else {
			assert_int_equal(mkw_pread(w.file[0], buf, P(4), P(1),
						   flags), P(4));
			memcpy(w.model[FOREIGN] + at, w.model[OWN] + P(1), P(2));
			memcpy(w.model[PLAIN], w.model[OWN] + P(3), P(2));
		}
		compare(&w, "across the border");
	}
	world_close(&w);
}

/* Much more than the cache holds, in both directions, overlapping itself. */
static void test_larger_than_the_cache(void **state)
{
	const size_t len = 6 * MKW_CACHE_BYTES_MIN;
	const struct arrangement cases[] = {
		{ "large, from itself", 0, { { OWN, P(1), len - P(1) } }, false },
		{ "large, from another's", P(3), { { FOREIGN, P(1), len - P(4) } },
		  false },
	};
	struct world w;

	(void)state;
	world_open(&w, len, MKW_CACHE_BYTES_MIN);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		run(&w, &cases[i]);
	world_close(&w);
}

/* ---- memory that is no good ------------------------------------------- */

static void test_bad_memory(void **state)
{
	const unsigned flags[] = { 0, MKW_DIRECT };
	unsigned char *gone, *read_only;
	struct iovec iov[2];
	struct world w;
	void *p;

	(void)state;
	world_open(&w, P(AREA_PAGES), 0);
	assert_int_equal(mkw_map(w.file[1], NULL, P(2), PROT_READ,
				 way->map_flags, 0, &p), 0);
	read_only = p;
	/* Where nothing is ever mapped, the engine's own memory neither. */
	gone = (unsigned char *)P(1);
	for (unsigned k = 0; k < 4; k++) {
		unsigned f = flags[k & 1];

		if (k & 2)
			make_cold(&w);
		assert_int_equal(mkw_pread(w.file[0], gone, P(1), 0, f),
				 -EFAULT);
		assert_int_equal(mkw_pwrite(w.file[0], gone, P(1), P(1), f),
				 -EFAULT);
		assert_int_equal(mkw_pread(w.file[0], read_only, P(1), 0, f),
				 -EFAULT);
		/* Neither what lies before a bad segment in a mapping is written. */
		iov[0] = (struct iovec){ w.area[OWN], P(1) };
		iov[1] = (struct iovec){ gone, P(1) };
		assert_int_equal(mkw_pwritev(w.file[0], iov, 2, P(3), f),
				 -EFAULT);
		compare(&w, "bad memory");
		/* Nothing is locked by what failed. */
		assert_int_equal(mkw_truncate(w.file[0], (off_t)w.len), 0);
		assert_int_equal(mkw_pwrite(w.file[0], w.area[OWN], w.len, 0, f),
				 w.len);
	}
	assert_int_equal(mkw_unmap(read_only, P(2)), 0);
	world_close(&w);
}

/* ---- two at once ------------------------------------------------------ */

struct mover {
	struct world *w;
	int file;		/* read and written; the other one's map is the buffer */
	unsigned char *buf;
};

#define MOVES 300

static void *mover_main(void *arg)
{
	struct mover *m = arg;
	struct mkw_file *file = m->w->file[m->file];
	size_t len = m->w->len;

	for (unsigned i = 0; i < MOVES; i++) {
		unsigned flags = i % 3 ? 0 : MKW_DIRECT;
		off_t off = (off_t)P(i % 3);
		ssize_t r = i & 1 ?
				    mkw_pwrite(file, m->buf, len - P(3), off, flags) :
				    mkw_pread(file, m->buf, len - P(3), off, flags);

		if (r != (ssize_t)(len - P(3)))
			return (void *)1;
		/* So that there is something to fault in again. */
		if (i % 16 == 0 &&
		    mkw_advise(file, 0, 0, MKW_ADVICE_DONTNEED))
			return (void *)2;
	}
	return NULL;
}

static void test_crosswise(void **state)
{
	pthread_t thread[4];
	struct mover m[4];
	struct world w;
	void *end;

	(void)state;
	world_open(&w, P(AREA_PAGES), 0);
	for (int i = 0; i < 4; i++) {
		m[i] = (struct mover){ &w, i & 1,
				       w.area[i & 1 ? OWN : FOREIGN] + 8 * (i / 2) };
		assert_int_equal(pthread_create(&thread[i], NULL, mover_main,
						&m[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], &end);
		assert_null(end);
	}
	world_close(&w);
}

/* ---- groups ----------------------------------------------------------- */

#define T(name) cmocka_unit_test(name)

int main(void)
{
	static const struct way ways[] = {
		{ MKW_POLICY_RETRY, 0, "retry, pager" },
		{ MKW_POLICY_RETRY, MKW_MAP_INLINE, "retry, inline" },
		{ MKW_POLICY_INVALIDATE, 0, "invalidate, pager" },
		{ MKW_POLICY_INVALIDATE, MKW_MAP_INLINE, "invalidate, inline" },
	};
	const struct CMUnitTest tests[] = {
		T(test_arrangements), T(test_across_the_border),
		T(test_larger_than_the_cache), T(test_bad_memory),
		T(test_crosswise),
	};
	struct mkw_engine *e;
	int failed = 0, r;

	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	r = mkw_engine_open(NULL, &e);
	if (r) {
		printf("SKIP: no engine here: %s\n", strerror(-r));
		return 77;
	}
	mkw_engine_close(e);
	if (!mkdtemp(dir)) {
		perror(dir);
		return 1;
	}
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		way = &ways[i];
		/* A deadlock is not to keep the tests. */
		alarm(WATCHDOG_S);
		failed += cmocka_run_group_tests_name(way->name, tests, NULL,
						      NULL);
	}
	rmdir(dir);
	return failed;
}
