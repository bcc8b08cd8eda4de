/* SPDX-License-Identifier: MIT */
/*
 * Reads without locks (core/glance.c) on the real machine: what they read while
 * others write, punch, cut, drop and map, and what becomes of them when a signal, the end
 * of a thread or a fork comes in the middle.
 *
 * Racers run for so many operations, not for a time. Each test says how many of its
 * reads took no lock, and fails if none did: it would have tested nothing. Skipped
 * (77) where there are no such reads (not x86-64, no rseq, the thread sanitizer).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
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

#include "mkwrite/mkwrite.h"
#include "leftover.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 128u
#define READ_PAGES 4u
#define READERS 2u
#define ROUNDS (TEST_SLOW ? 100u : 300u)
/* Four pages of two leaves. */
#define ACROSS P(62)

static size_t page;
static char path[] = "mkw-test-glance-XXXXXX";

static struct {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *map;
	enum mkw_policy policy;
	_Atomic bool stop;
	_Atomic uint64_t reads, bad;
	/* What a reader accepts: values of one write, or zeros, or (mixed) either. */
	bool mixed, may_be_short;
} t;

static void start_sized(uint64_t cache_bytes)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	opt.policy = t.policy;
	opt.cache_bytes = cache_bytes;
	leftover_open(&opt, path, P(PAGES), &t.engine, &t.file);
	assert_int_equal(mkw_map(t.file, NULL, P(PAGES), PROT_READ | PROT_WRITE,
				 0, 0, (void **)&t.map), 0);
	t.stop = false;
	t.mixed = t.may_be_short = false;
	t.reads = t.bad = 0;
	mkw__testing.glances = 0;
}

static void start(void)
{
	start_sized(0);
}

static void finish(const char *what)
{
	printf("    %s: %llu reads, %llu without a lock\n", what,
	       (unsigned long long)t.reads,
	       (unsigned long long)mkw__testing.glances);
	assert_int_equal(t.bad, 0);
	assert_true(mkw__testing.glances > 0);
	leftover_end(t.engine, t.file, t.map, P(PAGES), path);
}

static int clean_up(void **state)
{
	(void)state;
	t.stop = true;
	unlink(path);
	return leftover_clear();
}

static ssize_t read_at(void *buf, size_t len, size_t off)
{
	return mkw_pread(t.file, buf, len, (off_t)off, 0);
}

/* Does it hold one value, or zeros? */
static bool is_whole(const uint64_t *buf, size_t words)
{
	for (size_t i = 1; i < words; i++)
		if (buf[i] != buf[0] && !(t.mixed && (!buf[i] || !buf[0])))
			return false;
	return true;
}

static void read_once(uint64_t *buf, size_t off)
{
	ssize_t n = read_at(buf, P(READ_PAGES), off);

	atomic_fetch_add(&t.reads, 1);
	if (n < 0 || (!t.may_be_short && n != (ssize_t)P(READ_PAGES)) ||
	    (n > 0 && !is_whole(buf, (size_t)n / 8)))
		atomic_fetch_add(&t.bad, 1);
}

static void *reader(void *arg)
{
	uint64_t *buf = malloc(P(READ_PAGES));

	(void)arg;
	/* To be sure that some are in vain, and some not: at least so many. */
	for (unsigned i = 0; i < ROUNDS || !t.stop; i++)
		read_once(buf, ACROSS);
	free(buf);
	return NULL;
}

static void start_readers(pthread_t id[READERS], void *(*fn)(void *arg))
{
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&id[i], NULL, fn, NULL), 0);
}

static void join_readers(pthread_t id[READERS])
{
	t.stop = true;
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_join(id[i], NULL), 0);
}

static void write_value(uint64_t *buf, uint64_t value, unsigned flags)
{
	for (size_t i = 0; i < P(READ_PAGES) / 8; i++)
		buf[i] = value;
	assert_int_equal(mkw_pwrite(t.file, buf, P(READ_PAGES), (off_t)ACROSS,
				    flags), P(READ_PAGES));
}

static int take(int mode, size_t off, size_t len)
{
	return mkw_fallocate(t.file, mode, (off_t)off, (off_t)len);
}

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* ---- others that change the file ---------------------------------------- */

static void while_written(void **state)
{
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id[READERS];

	(void)state;
	start();
	write_value(buf, 1, 0);
	start_readers(id, reader);
	for (unsigned i = 2; i < ROUNDS; i++)
		write_value(buf, i, i % 8 ? 0 : MKW_DIRECT);
	join_readers(id);
	free(buf);
	finish("while others write");
}

/* A punch takes all that a read sees, so that it is all there or all zeros. */
static void while_punched(void **state)
{
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id[READERS];

	(void)state;
	start();
	write_value(buf, 1, 0);
	start_readers(id, reader);
	for (unsigned i = 2; i < ROUNDS; i++) {
		write_value(buf, i, 0);
		/* Often enough, so that they are glanced at in between. */
		for (unsigned k = 0; k < i % 3; k++)
			read_once(buf, ACROSS);
		assert_int_equal(take(i % 2 ? PUNCH : FALLOC_FL_ZERO_RANGE,
				      ACROSS, P(READ_PAGES)), 0);
	}
	join_readers(id);
	free(buf);
	finish("while others punch and zero");
}

static void while_cut(void **state)
{
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id[READERS];

	(void)state;
	start();
	t.mixed = t.may_be_short = true;
	write_value(buf, 1, 0);
	start_readers(id, reader);
	for (unsigned i = 2; i < ROUNDS; i++) {
		write_value(buf, i, 0);
		read_once(buf, ACROSS);
		read_once(buf, ACROSS);
		assert_int_equal(mkw_truncate(t.file, (off_t)(ACROSS +
						P(i % READ_PAGES))), 0);
		assert_int_equal(mkw_truncate(t.file, (off_t)P(PAGES)), 0);
	}
	join_readers(id);
	free(buf);
	finish("while others truncate");
}

/* Drops alone; every byte stays what it is. */
static void while_dropped(void **state)
{
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id[READERS];

	(void)state;
	start();
	write_value(buf, 7, 0);
	assert_int_equal(mkw_sync(t.file), 0);
	start_readers(id, reader);
	for (unsigned i = 0; i < ROUNDS; i++) {
		read_once(buf, ACROSS);
		read_once(buf, ACROSS);
		assert_int_equal(mkw_advise(t.file, 0, (off_t)P(PAGES),
					    MKW_ADVICE_DONTNEED), 0);
	}
	join_readers(id);
	free(buf);
	finish("while others drop");
}

/* Each word by itself, and never back. */
static void *map_storer(void *arg)
{
	volatile uint64_t *at = (volatile uint64_t *)(void *)(t.map + ACROSS);

	(void)arg;
	for (uint64_t v = 1; !t.stop; v++)
		for (size_t i = 0; i < P(READ_PAGES) / 8; i += 61)
			at[i] = v;
	return NULL;
}

static void while_stored_to(void **state)
{
	size_t words = P(READ_PAGES) / 8;
	uint64_t *now = calloc(words, 8), *before = calloc(words, 8);
	pthread_t id;

	(void)state;
	start();
	assert_int_equal(pthread_create(&id, NULL, map_storer, NULL), 0);
	for (unsigned i = 0; i < 4 * ROUNDS; i++) {
		assert_int_equal(read_at(now, P(READ_PAGES), ACROSS),
				 P(READ_PAGES));
		t.reads++;
		for (size_t w = 0; w < words; w++)
			if (now[w] < before[w] || (now[w] && w % 61))
				t.bad++;
		memcpy(before, now, P(READ_PAGES));
		if (i % 64 == 0)
			assert_int_equal(mkw_sync(t.file), 0);
	}
	t.stop = true;
	pthread_join(id, NULL);
	free(now);
	free(before);
	finish("while a mapping is stored to");
}

/* ---- room ---------------------------------------------------------------- */

/* A small cache: reading all pages pushes out, now and then, what is glanced at. */
static void while_short_of_room(void **state)
{
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id[READERS];
	size_t big = 4 * MKW_CACHE_BYTES_MIN;

	(void)state;
	start_sized(MKW_CACHE_BYTES_MIN);
	assert_int_equal(mkw_truncate(t.file, (off_t)big), 0);
	write_value(buf, 7, 0);
	start_readers(id, reader);
	for (unsigned i = 0; i < 2; i++)
		for (size_t off = P(PAGES); off < big; off += P(READ_PAGES)) {
			assert_int_equal(read_at(buf, P(READ_PAGES), off),
					 P(READ_PAGES));
			if (buf[0])
				t.bad++;
		}
	join_readers(id);
	assert_int_equal(mkw_truncate(t.file, (off_t)P(PAGES)), 0);
	free(buf);
	finish("while the cache makes room");
}

/* ---- buffers --------------------------------------------------------------- */

static void bad_buffers(void **state)
{
	unsigned char *buf = mmap(NULL, P(3), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	start();
	assert_ptr_not_equal(buf, MAP_FAILED);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(read_at(buf, page, 0), page);
	assert_true(mkw__testing.glances > 0);
	assert_int_equal(mprotect(buf + page, page, PROT_READ), 0);
	assert_int_equal(munmap(buf + P(2), page), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(read_at(buf + page, page, 0), -EFAULT);
		assert_int_equal(read_at(buf + P(2), page, 0), -EFAULT);
		assert_int_equal(read_at(buf + page - 8, page, 0), -EFAULT);
		assert_int_equal(read_at(NULL, page, 0), -EFAULT);
		assert_int_equal(read_at(buf, page, 0), page);
	}
	/* Nothing is stranded. */
	assert_int_equal(take(PUNCH, 0, page), 0);
	munmap(buf, P(2));
	finish("into memory that is not there");
}

static void *blocker(void *arg)
{
	sigset_t all;

	(void)arg;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t buf[8];

		if (read_at(buf, sizeof(buf), 0) != sizeof(buf) ||
		    read_at(NULL, sizeof(buf), 0) != -EFAULT)
			t.bad++;
		t.reads++;
	}
	return NULL;
}

/* There a bad address can be noticed in the long way alone. */
static void with_signals_blocked(void **state)
{
	uint64_t buf[8], glances;
	pthread_t id;

	(void)state;
	start();
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(read_at(buf, sizeof(buf), 0), sizeof(buf));
	glances = mkw__testing.glances;
	assert_int_equal(pthread_create(&id, NULL, blocker, NULL), 0);
	assert_int_equal(pthread_join(id, NULL), 0);
	assert_int_equal(mkw__testing.glances, glances);
	finish("with signals blocked");
}

static unsigned char *spot;

static void *spot_reader(void *arg)
{
	(void)arg;
	while (!t.stop) {
		ssize_t n = read_at(spot, P(READ_PAGES), ACROSS);

		/* It may go at any time. */
		if (n != (ssize_t)P(READ_PAGES) && n != -EFAULT)
			t.bad++;
		t.reads++;
	}
	return NULL;
}

static void mapping_over_buffer(void **state)
{
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id;
	void *p;

	(void)state;
	start();
	write_value(buf, 5, 0);
	spot = mmap(NULL, P(READ_PAGES), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(spot, MAP_FAILED);
	assert_int_equal(pthread_create(&id, NULL, spot_reader, NULL), 0);
	for (unsigned i = 0; i < ROUNDS / 4; i++) {
		/* Another part of the very file. */
		assert_int_equal(mkw_map(t.file, spot, P(READ_PAGES),
					 PROT_READ | PROT_WRITE, MKW_MAP_FIXED,
					 (off_t)P(8 + i % 4 * 2), &p), 0);
		assert_ptr_equal(p, spot);
		for (unsigned k = 0; k < i % 5; k++)
			((volatile unsigned char *)spot)[P(k % 4)];
		assert_int_equal(mkw_unmap(p, P(READ_PAGES)), 0);
		p = mmap(spot, P(READ_PAGES), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		assert_ptr_equal(p, spot);
		/* Into ordinary memory, so that the next mapping meets a glance. */
		for (uint64_t reads = t.reads; t.reads < reads + 4;)
			sched_yield();
	}
	t.stop = true;
	pthread_join(id, NULL);
	munmap(spot, P(READ_PAGES));
	free(buf);
	finish("while the buffer becomes a mapping and goes");
}

/* ---- threads --------------------------------------------------------------- */

static _Thread_local sigjmp_buf out;
static _Thread_local volatile sig_atomic_t may_jump;
static _Thread_local volatile unsigned signals;

/* Reads, faults and sometimes leaves, in the middle of a read. */
static void on_signal(int sig)
{
	static _Thread_local uint64_t buf[512];
	unsigned n = ++signals;

	(void)sig;
	if (read_at(buf, sizeof(buf), P(n % 8)) < 0)
		t.bad++;
	(void)((volatile unsigned char *)t.map)[P(70 + n % 8)];
	if (n % 7 == 0 && may_jump)
		siglongjmp(out, 1);
}

static void *signalled_reader(void *arg)
{
	uint64_t *volatile buf = malloc(P(READ_PAGES));

	(void)arg;
	sigsetjmp(out, 1);
	while (!t.stop) {
		may_jump = 1;
		read_once(buf, ACROSS);
		may_jump = 0;
	}
	may_jump = 0;
	free(buf);
	return NULL;
}

static void while_signalled(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal }, old;
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id[READERS];

	(void)state;
	start();
	write_value(buf, 1, 0);
	assert_int_equal(sigaction(SIGUSR1, &sa, &old), 0);
	start_readers(id, signalled_reader);
	for (unsigned i = 2; i < ROUNDS; i++) {
		for (unsigned k = 0; k < READERS; k++)
			assert_int_equal(pthread_kill(id[k], SIGUSR1), 0);
		/* Who waits for an end of glances must not wait for a handler. */
		if (i % 4 == 0)
			assert_int_equal(take(PUNCH, ACROSS, P(READ_PAGES)), 0);
		else if (i % 4 == 2)
			write_value(buf, i, 0);
		if (i % 16 == 0)
			assert_int_equal(mkw_advise(t.file, (off_t)P(64),
						    (off_t)P(32),
						    MKW_ADVICE_DONTNEED), 0);
	}
	join_readers(id);
	sigaction(SIGUSR1, &old, NULL);
	free(buf);
	finish("while signals come");
}

static void *cancelled_reader(void *arg)
{
	static _Thread_local uint64_t buf[2048];
	_Atomic unsigned *reads = arg;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	/* Until it is cancelled. */
	while (!t.stop) {
		read_at(buf, sizeof(buf), ACROSS);
		atomic_fetch_add(reads, 1);
	}
	return NULL;
}

/* Threads come, read a little, and end, or are ended; what they did is forgotten. */
static void while_threads_end(void **state)
{
	(void)state;
	start();
	for (unsigned i = 0; i < ROUNDS / 8; i++) {
		_Atomic unsigned reads = 0;
		pthread_t id;

		assert_int_equal(pthread_create(&id, NULL, cancelled_reader,
						(void *)&reads), 0);
		while (reads < 3 + i % 50)
			sched_yield();
		assert_int_equal(pthread_cancel(id), 0);
		assert_int_equal(pthread_join(id, NULL), 0);
		t.reads += reads;
		assert_int_equal(take(PUNCH, ACROSS, P(READ_PAGES)), 0);
	}
	finish("while threads end");
}

static void in_a_child(void **state)
{
	uint64_t *buf = malloc(P(READ_PAGES));
	int status;
	pid_t pid;

	(void)state;
	start();
	for (unsigned i = 0; i < 3; i++)
		read_once(buf, ACROSS);
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
		struct mkw_engine *e;
		struct mkw_file *f;
		char name[64];
		int bad = 0;

		alarm(60);
		bad |= read_at(buf, page, ACROSS) != -ECHILD;
		snprintf(name, sizeof(name), "%s-child", path);
		mkw__testing.glances = 0;
		if (mkw_engine_open(&opt, &e) ||
		    mkw_file_open(e, name, O_RDWR | O_CREAT | O_TRUNC, 0600, &f))
			_exit(2);
		bad |= mkw_truncate(f, (off_t)P(8)) != 0;
		for (unsigned i = 0; i < 4; i++)
			bad |= mkw_pread(f, buf, P(4), 0, 0) != (ssize_t)P(4);
		bad |= !mkw__testing.glances;
		bad |= mkw_fallocate(f, PUNCH, 0, (off_t)P(4)) != 0;
		bad |= mkw_file_close(f) || mkw_engine_close(e);
		unlink(name);
		_exit(bad);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	free(buf);
	finish("in a forked child");
}

/* ---- the test must see what it is there to see ----------------------------- */

static void planted_bug_is_seen(void **state)
{
	uint64_t *buf = aligned_alloc(page, P(READ_PAGES));
	pthread_t id[READERS];

	(void)state;
	start();
	write_value(buf, 1, 0);
	mkw__testing.mutant = MKW__MUTANT_GLANCE_WRITE_UNSEEN;
	start_readers(id, reader);
	for (unsigned i = 2; !t.bad && i < 200000; i++)
		write_value(buf, i, 0);
	assert_true(t.bad > 0);
	join_readers(id);
	/* While it is on, raised and lowered do not agree: none under way any more. */
	mkw__testing.mutant = MKW__MUTANT_NONE;
	t.bad = 0;
	free(buf);
	finish("with writers unseen, until one is torn");
}

int main(void)
{
#define T(fn) cmocka_unit_test_teardown(fn, clean_up)
	static const struct CMUnitTest tests[] = {
		T(while_written), T(while_punched), T(while_cut),
		T(while_dropped), T(while_stored_to), T(while_short_of_room),
		T(bad_buffers), T(with_signals_blocked),
		T(mapping_over_buffer), T(while_signalled),
		T(while_threads_end), T(in_a_child), T(planted_bug_is_seen),
	};
	struct mkw_engine *e;
	int r, fd, failed = 0;
	bool glance;

	page = (size_t)sysconf(_SC_PAGESIZE);
	setvbuf(stdout, NULL, _IOLBF, 0);
	r = mkw_engine_open(NULL, &e);
	if (r) {
		printf("SKIP: no engine here: %s\n", strerror(-r));
		return 77;
	}
	glance = e->glance;
	mkw_engine_close(e);
	if (!glance) {
		printf("SKIP: every read takes a lock here (it needs x86-64, rseq, membarrier(), and no thread sanitizer)\n");
		return 77;
	}
	fd = mkstemp(path);
	if (fd < 0) {
		perror("mkstemp");
		return 1;
	}
	close(fd);
	for (unsigned i = 0; i < 2; i++) {
		t.policy = i ? MKW_POLICY_INVALIDATE : MKW_POLICY_RETRY;
		failed += cmocka_run_group_tests_name(
			i ? "invalidate" : "retry", tests, NULL, NULL);
	}
	unlink(path);
	return failed ? 1 : 0;
}
