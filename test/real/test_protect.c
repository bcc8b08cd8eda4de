/* SPDX-License-Identifier: MIT */
/*
 * mkw_protect() on real page faults: who may access what, and that no store passes
 * writeback where the access was taken away and given back.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 16u
#define RW (PROT_READ | PROT_WRITE)

static size_t page;
static char path[64];
static struct mkw_engine *engine;
static struct mkw_file *file;
static enum mkw_policy policy;

static unsigned char *map(unsigned pages, int prot, unsigned flags)
{
	void *p;

	assert_int_equal(mkw_map(file, NULL, P(pages), prot, flags, 0, &p), 0);
	/* cmocka stands in front of us again since the test began. */
	mkw__trap_reinstall();
	return p;
}

static int set_up(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	int fd;

	(void)state;
	opt.policy = policy;
	strcpy(path, "mkw-test-protect-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(mkw_engine_open(&opt, &engine), 0);
	assert_int_equal(mkw_file_open(engine, path, O_RDWR, 0, &file), 0);
	assert_int_equal(mkw_truncate(file, (off_t)P(PAGES)), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	mkw__engine_verify(engine);
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(mkw_engine_close(engine), 0);
	unlink(path);
	return 0;
}

static unsigned char byte_on_host(size_t off)
{
	int fd = open(path, O_RDONLY);
	unsigned char c = 0;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &c, 1, (off_t)off), 1);
	close(fd);
	return c;
}

static void who_may(void **state)
{
	unsigned char *m, c;

	(void)state;
	for (unsigned flags = 0; flags <= MKW_MAP_INLINE; flags++) {
		m = map(PAGES, RW, flags);
		memset(m, 'a', P(PAGES));
		/* The middle, and of that again a part. */
		assert_int_equal(mkw_protect(m + P(4), P(8), PROT_READ), 0);
		assert_int_equal(mkw_protect(m + P(6), P(1), PROT_NONE), 0);
		assert_int_equal(try_access(m + P(3), true), 0);
		assert_int_equal(try_access(m + P(4), true), SIGSEGV);
		assert_int_equal(try_access(m + P(11), true), SIGSEGV);
		assert_int_equal(try_access(m + P(12), true), 0);
		assert_int_equal(try_byte(m + P(5), &c), 0);
		assert_int_equal(c, 'a');
		assert_int_equal(try_byte(m + P(6), &c), SIGSEGV);
		/* What nobody may store to is stored to by other ways. */
		assert_int_equal(mkw_pwrite(file, "w", 1, (off_t)P(6), 0), 1);
		assert_int_equal(mkw_protect(m, P(PAGES), RW), 0);
		assert_int_equal(try_byte(m + P(6), &c), 0);
		assert_int_equal(c, 'w');
		for (unsigned i = 0; i < PAGES; i++)
			assert_int_equal(try_access(m + P(i), true), 0);
		assert_int_equal(mkw_unmap(m, P(PAGES)), 0);
	}
}

/* Is a store seen by writeback that comes after a sync which saw no writable mapping? */
static void store_after(void **state)
{
	unsigned char *m;

	(void)state;
	for (unsigned flags = 0; flags <= MKW_MAP_INLINE; flags++) {
		m = map(PAGES, RW, flags);
		m[0] = 'a';
		m[P(9)] = 'a';
		assert_int_equal(mkw_protect(m, P(1), PROT_READ), 0);
		assert_int_equal(mkw_protect(m + P(9), P(1), PROT_NONE), 0);
		assert_int_equal(mkw_sync(file), 0);
		assert_int_equal(byte_on_host(P(9)), 'a');
		assert_int_equal(mkw_protect(m, P(PAGES), RW), 0);
		m[0] = 'b';
		m[P(9)] = 'b';
		assert_int_equal(mkw_sync(file), 0);
		assert_int_equal(byte_on_host(0), 'b');
		assert_int_equal(byte_on_host(P(9)), 'b');
		assert_int_equal(mkw_unmap(m, P(PAGES)), 0);
	}
}

static void bounds(void **state)
{
	struct mkw_file *ro;
	struct mkw_pin *pin;
	unsigned char *m, *gap;
	void *p;

	(void)state;
	m = map(PAGES, RW, 0);
	assert_int_equal(mkw_protect(m + 1, P(1), PROT_READ), -EINVAL);
	assert_int_equal(mkw_protect(m, 0, PROT_READ), -EINVAL);
	assert_int_equal(mkw_protect(m, P(1), PROT_WRITE), -EINVAL);
	assert_int_equal(mkw_protect(m, P(1), PROT_READ | PROT_EXEC), -EINVAL);
	assert_int_equal(mkw_protect(m, SIZE_MAX, PROT_READ), -EINVAL);

	/* Memory that is not the engine's is not touched, nor what is before it. */
	gap = m + P(8);
	assert_int_equal(mkw_unmap(gap, P(1)), 0);
	assert_int_equal(mkw_protect(m, P(PAGES), PROT_READ), -ENOMEM);
	assert_int_equal(try_access(m, true), 0);
	assert_int_equal(mkw_map(file, gap, P(1), PROT_READ,
				 MKW_MAP_FIXED_NOREPLACE, (off_t)P(8), &p), 0);
	/* Several mappings, rounded up. */
	assert_int_equal(mkw_protect(m, P(PAGES) - 1, PROT_READ), 0);
	assert_int_equal(try_access(m + P(PAGES - 1), true), SIGSEGV);
	assert_int_equal(mkw_protect(m, P(PAGES), RW), 0);
	assert_int_equal(try_access(gap, true), 0);

	assert_int_equal(mkw_pin(m + P(2), 1, MKW_PIN_WRITE, &pin), 0);
	assert_int_equal(mkw_protect(m, P(PAGES), PROT_READ), -EBUSY);
	assert_int_equal(mkw_protect(m, P(2), PROT_READ), 0);
	assert_int_equal(mkw_unpin(pin), 0);
	assert_int_equal(mkw_unmap(m, P(PAGES)), 0);

	/* A handle that may only read, of a file that may be written. */
	p = NULL;
	assert_int_equal(mkw_file_open(engine, path, O_RDONLY, 0, &ro), 0);
	assert_int_equal(mkw_map(ro, NULL, P(2), PROT_READ, 0, 0, &p), 0);
	assert_int_equal(mkw_protect(p, P(2), RW), -EACCES);
	assert_int_equal(mkw_protect(p, P(1), PROT_NONE), 0);
	assert_int_equal(try_access(p, false), SIGSEGV);
	assert_int_equal(mkw_protect(p, P(2), PROT_READ), 0);
	assert_int_equal(try_access(p, false), 0);
	assert_int_equal(mkw_unmap(p, P(2)), 0);
	assert_int_equal(mkw_file_close(ro), 0);
}

/* What is poison there is barred on an old kernel, and means no access here. */
static void none_is_no_poison(void **state)
{
	unsigned char *m = map(2, RW, 0);

	(void)state;
	assert_int_equal(mkw__os_pte_poison(engine->mmu, (uintptr_t)m + P(1)), 0);
	assert_int_equal(mkw_protect(m, P(1), PROT_NONE), 0);
	assert_int_equal(try_access(m, false), SIGSEGV);
	assert_int_equal(try_access(m, true), SIGSEGV);
	assert_int_equal(mkw_protect(m, P(2), RW), 0);
	assert_int_equal(try_access(m, true), 0);
	assert_int_equal(mkw_unmap(m, P(2)), 0);
}

/* A buffer of ours without the access it needs. */
static void buffers(void **state)
{
	unsigned char *m = map(4, RW, 0);
	struct mkw_pin *pin;

	(void)state;
	m[0] = 'a';
	assert_int_equal(mkw_protect(m, P(1), PROT_READ), 0);
	assert_int_equal(mkw_protect(m + P(1), P(1), PROT_NONE), 0);
	assert_int_equal(mkw_pread(file, m, 8, (off_t)P(3), 0), -EFAULT);
	assert_int_equal(mkw_pwrite(file, m, 8, (off_t)P(3), 0), 8);
	assert_int_equal(m[P(3)], 'a');
	assert_int_equal(mkw_pwrite(file, m + P(1), 8, (off_t)P(3), 0), -EFAULT);
	assert_int_equal(mkw_pin(m, 8, MKW_PIN_WRITE, &pin), -EACCES);
	assert_int_equal(mkw_pin(m + P(1), 8, MKW_PIN_READ, &pin), -EACCES);
	assert_int_equal(mkw_pin(m, 8, MKW_PIN_READ, &pin), 0);
	assert_int_equal(mkw_unpin(pin), 0);
	assert_int_equal(mkw_unmap(m, P(4)), 0);
}

/* ---- while stores are under way ----------------------------------------- */

#define STORERS 2u
#define ROUNDS (TEST_SLOW ? 10u : 40u)

static unsigned char *shared;
static _Atomic uint64_t stored[STORERS];
static _Atomic bool stop;
static _Atomic int caught;

static _Atomic uint64_t *word_at(unsigned char *base, unsigned pg, unsigned who)
{
	return (_Atomic uint64_t *)(void *)(base + P(pg) + 64 * who);
}

/* Counts up in its word of each page where it may; any signal but SIGSEGV ends it. */
static void *storer(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg;
	uint64_t n = 1;
	int sig;

	while (!atomic_load(&stop)) {
		for (unsigned pg = 0; pg < PAGES; pg++, n++) {
			sig = try_store(word_at(shared, pg, who), n);
			if (sig && sig != SIGSEGV)
				atomic_store(&caught, sig);
			if (!sig)
				atomic_fetch_add(&stored[who], 1);
		}
	}
	return NULL;
}

static uint64_t read_word(int fd, unsigned pg, unsigned who)
{
	off_t off = (off_t)P(pg) + 64 * (off_t)who;
	uint64_t v = 0;

	if (fd < 0)
		assert_int_equal(mkw_pread(file, &v, 8, off, 0), 8);
	else
		assert_int_equal(pread(fd, &v, 8, off), 8);
	return v;
}

/*
 * With no access to store nothing changes any more, and a sync has it all: what is on
 * the host then is what was there at the protect, or a store has passed by.
 */
static void check_still(int fd, unsigned from, unsigned end)
{
	uint64_t before[PAGES][STORERS];

	for (unsigned pg = from; pg < end; pg++)
		for (unsigned who = 0; who < STORERS; who++)
			before[pg][who] = read_word(-1, pg, who);
	assert_int_equal(mkw_sync(file), 0);
	for (unsigned pg = from; pg < end; pg++)
		for (unsigned who = 0; who < STORERS; who++) {
			assert_true(read_word(fd, pg, who) == before[pg][who]);
			assert_true(read_word(-1, pg, who) == before[pg][who]);
		}
}

static void race(unsigned flags)
{
	pthread_t thread[STORERS];
	int fd = open(path, O_RDONLY);
	uint64_t had[STORERS];
	unsigned seed = 1;

	assert_true(fd >= 0);
	shared = map(PAGES, RW, flags);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < STORERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, storer,
						(void *)(uintptr_t)i), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned from = (unsigned)rand_r(&seed) % PAGES;
		unsigned end = from + 1 + (unsigned)rand_r(&seed) % (PAGES - from);
		unsigned char *at = shared + P(from);
		int prot = rand_r(&seed) % 3 ? PROT_READ : PROT_NONE;

		assert_int_equal(mkw_protect(at, P(end - from), prot), 0);
		check_still(fd, from, end);
		assert_int_equal(mkw_protect(at, P(end - from), RW), 0);
		/* They go on. */
		for (unsigned i = 0; i < STORERS; i++) {
			had[i] = atomic_load(&stored[i]);
			while (atomic_load(&stored[i]) == had[i])
				sched_yield();
		}
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < STORERS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(atomic_load(&caught), 0);
	check_still(fd, 0, PAGES);
	assert_int_equal(mkw_unmap(shared, P(PAGES)), 0);
	close(fd);
}

static void race_pager(void **state)
{
	(void)state;
	race(0);
}

static void race_inline(void **state)
{
	(void)state;
	race(MKW_MAP_INLINE);
}

/* A store that a frozen file keeps waiting need not wait for the thaw. */
static void in_frozen_file(void **state)
{
	struct mkw_stats st = { .size = sizeof(st) };
	unsigned char *m = map(1, RW, 0);
	pthread_t thread;
	uint64_t parks;
	void *sig;

	(void)state;
	assert_int_equal(mkw_file_freeze(file), 0);
	assert_int_equal(mkw_engine_stats(engine, &st), 0);
	parks = st.parks;
	assert_int_equal(pthread_create(&thread, NULL, try_store_once, m), 0);
	do {
		sched_yield();
		assert_int_equal(mkw_engine_stats(engine, &st), 0);
	} while (st.parks == parks);
	assert_int_equal(mkw_protect(m, P(1), PROT_READ), 0);
	pthread_join(thread, &sig);
	assert_int_equal((intptr_t)sig, SIGSEGV);
	assert_int_equal(mkw_file_thaw(file), 0);
	assert_int_equal(mkw_unmap(m, P(1)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_may, set_up, tear_down),
		cmocka_unit_test_setup_teardown(store_after, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bounds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(none_is_no_poison, set_up, tear_down),
		cmocka_unit_test_setup_teardown(buffers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(race_pager, set_up, tear_down),
		cmocka_unit_test_setup_teardown(race_inline, set_up, tear_down),
		cmocka_unit_test_setup_teardown(in_frozen_file, set_up, tear_down),
	};
	int failed = 0;

	access_begin();
	if (!access_possible())
		return 77;
	page = (size_t)sysconf(_SC_PAGESIZE);
	for (policy = MKW_POLICY_RETRY; policy <= MKW_POLICY_INVALIDATE; policy++)
		failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
