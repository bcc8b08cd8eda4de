/* SPDX-License-Identifier: MIT */
/*
 * mkw_remap() on real page faults: what is where afterwards, and that no store is lost
 * nor any access left asleep where a mapping moves under it.
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
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "access.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 16u
#define RW (PROT_READ | PROT_WRITE)

static size_t page;
static char path[64];
static enum mkw_policy policy;
static struct mkw_engine *engine;
static struct mkw_file *file;

/* Address space for n pages that nobody uses. */
static unsigned char *room(unsigned pages)
{
	return own_space(P(pages));
}

static unsigned char *map(unsigned from, unsigned pages, int prot, unsigned flags)
{
	void *p;

	assert_int_equal(mkw_map(file, room(pages), P(pages), prot,
				 flags | MKW_MAP_FIXED, (off_t)P(from), &p), 0);
	/* cmocka stands in front of us again since the test began. */
	mkw__trap_reinstall();
	return p;
}

static int remap(unsigned char **at, unsigned old, unsigned pages, unsigned flags,
		 void *to)
{
	void *p = *at;
	int r = mkw_remap(*at, P(old), P(pages), flags, to, &p);

	*at = p;
	mkw__trap_reinstall();
	return r;
}

static int set_up(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	int fd;

	(void)state;
	opt.policy = policy;
	strcpy(path, "mkw-test-remap-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(mkw_engine_open(&opt, &engine), 0);
	assert_int_equal(mkw_file_open(engine, path, O_RDWR, 0, &file), 0);
	for (unsigned i = 0; i < PAGES; i++) {
		unsigned char c = (unsigned char)('a' + i);

		assert_int_equal(mkw_pwrite(file, &c, 1, (off_t)P(i), 0), 1);
	}
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

static void grows_and_shrinks(void **state)
{
	unsigned char *m, *at, *big, c;

	(void)state;
	for (unsigned flags = 0; flags <= MKW_MAP_INLINE; flags++) {
		/* Where something follows it cannot grow; then it can. */
		big = room(PAGES);
		at = big;
		assert_int_equal(mkw_map(file, big, P(4), RW, flags | MKW_MAP_FIXED,
					 (off_t)P(2), (void **)&m), 0);
		mkw__trap_reinstall();
		m[0] = 'S';
		assert_int_equal(remap(&at, 4, 8, 0, NULL), -ENOMEM);
		assert_ptr_equal(at, m);
		munmap(big + P(4), P(PAGES - 4));
		assert_int_equal(remap(&at, 4, 8, 0, NULL), 0);
		assert_ptr_equal(at, m);
		for (unsigned i = 1; i < 8; i++)
			assert_int_equal(m[P(i)], 'a' + 2 + i);
		assert_int_equal(try_access(m + P(7), true), 0);
		/* Two mappings that are one by now. */
		assert_int_equal(remap(&at, 8, 3, 0, NULL), 0);
		assert_ptr_equal(at, m);
		assert_int_equal(m[P(2)], 'a' + 4);
		assert_int_not_equal(try_access(m + P(3), false), 0);
		assert_int_equal(remap(&at, 3, 3, 0, NULL), 0);
		/* What is in the way makes it move. */
		assert_ptr_equal(mmap(m + P(3), P(1), PROT_READ, MAP_PRIVATE |
				      MAP_ANONYMOUS | MAP_FIXED, -1, 0), m + P(3));
		assert_int_equal(remap(&at, 3, 6, MKW_REMAP_MAYMOVE, NULL), 0);
		assert_ptr_not_equal(at, m);
		assert_int_equal(try_byte(at, &c), 0);
		assert_int_equal(c, 'S');
		assert_int_equal(at[P(5)], 'a' + 7);
		assert_int_not_equal(try_access(m, false), 0);
		munmap(m + P(3), P(1));
		assert_int_equal(mkw_unmap(at, P(6)), 0);
		assert_int_equal(mkw_pwrite(file, "j", 1, (off_t)P(9), 0), 1);
	}
}

static void fixed(void **state)
{
	unsigned char *m, *at, *to, *other;

	(void)state;
	to = room(PAGES);
	m = at = map(0, 8, RW, 0);
	m[P(5)] = 'S';
	assert_int_equal(remap(&at, 8, 8, MKW_REMAP_MAYMOVE |
			       MKW_MAP_FIXED_NOREPLACE, to), -EEXIST);
	assert_int_equal(m[P(5)], 'S');
	/* The middle, longer by what follows it in the file. */
	at = m + P(4);
	assert_int_equal(remap(&at, 2, 4, MKW_REMAP_MAYMOVE | MKW_MAP_FIXED, to), 0);
	assert_ptr_equal(at, to);
	assert_int_equal(to[0], 'a' + 4);
	assert_int_equal(to[P(1)], 'S');
	assert_int_equal(to[P(3)], 'a' + 7);
	assert_int_equal(m[P(3)], 'a' + 3);
	assert_int_equal(m[P(6)], 'a' + 6);
	assert_int_not_equal(try_access(m + P(4), false), 0);
	assert_int_not_equal(try_access(m + P(5), false), 0);
	/* Over another mapping of an engine it may not. */
	other = map(0, 1, PROT_READ, 0);
	at = m;
	assert_int_equal(remap(&at, 1, 1, MKW_REMAP_MAYMOVE | MKW_MAP_FIXED, other),
			 -EBUSY);
	assert_int_equal(m[0], 'a');
	assert_int_equal(mkw_unmap(other, P(1)), 0);
	/* A hole is in it, and it is shorter than it was. */
	assert_int_equal(remap(&at, 8, 8, MKW_REMAP_MAYMOVE, NULL), -EFAULT);
	at = to;
	assert_int_equal(remap(&at, 4, 2, MKW_REMAP_MAYMOVE |
			       MKW_MAP_FIXED_NOREPLACE, m + P(4)), 0);
	assert_int_equal(m[P(5)], 'S');
	assert_int_not_equal(try_access(to + P(3), false), 0);
	assert_int_equal(mkw_unmap(m, P(8)), 0);
	munmap(to + P(4), P(PAGES - 4));
}

static void access_goes_with_it(void **state)
{
	unsigned char *m = map(0, 4, RW, 0), *at = m, *to;
	struct mkw_pin *pin;

	(void)state;
	assert_int_equal(mkw_protect(m, P(4), PROT_READ), 0);
	to = room(8);
	assert_int_equal(remap(&at, 4, 4, MKW_REMAP_MAYMOVE | MKW_MAP_FIXED, to), 0);
	assert_int_equal(try_access(at, true), SIGSEGV);
	assert_int_equal(try_access(at, false), 0);
	assert_int_equal(mkw_protect(at, P(4), PROT_NONE), 0);
	assert_int_equal(remap(&at, 4, 5, MKW_REMAP_MAYMOVE | MKW_MAP_FIXED,
			       room(8)), 0);
	assert_int_equal(try_access(at + P(4), false), SIGSEGV);
	assert_int_equal(mkw_protect(at, P(5), RW), 0);
	assert_int_equal(try_access(at + P(4), true), 0);
	/* Parts that are not alike. */
	assert_int_equal(mkw_protect(at, P(1), PROT_READ), 0);
	assert_int_equal(remap(&at, 5, 2, 0, NULL), -EFAULT);
	assert_int_equal(mkw_protect(at, P(1), RW), 0);
	assert_int_equal(mkw_pin(at + P(1), 1, MKW_PIN_READ, &pin), 0);
	assert_int_equal(remap(&at, 5, 1, 0, NULL), -EBUSY);
	assert_int_equal(remap(&at, 5, 5, MKW_REMAP_MAYMOVE | MKW_MAP_FIXED,
			       room(8)), -EBUSY);
	assert_int_equal(at[P(2)], 'a' + 2);
	assert_int_equal(remap(&at, 5, 3, 0, NULL), 0);
	assert_int_equal(mkw_unpin(pin), 0);
	assert_int_equal(mkw_unmap(at, P(3)), 0);
}

static void bad_input(void **state)
{
	unsigned char *m = map(0, 4, RW, 0);
	void *p = NULL;

	(void)state;
	assert_int_equal(mkw_remap(m, P(4), P(4), 0, NULL, NULL), -EINVAL);
	assert_int_equal(mkw_remap(m + 1, P(4), P(4), 0, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, 0, P(4), 0, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), 0, 0, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), SIZE_MAX, 0, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, SIZE_MAX, P(4), 0, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), P(4), MKW_MAP_INLINE, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), P(4), 0x100, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), P(4), MKW_MAP_FIXED, m + P(8), &p),
			 -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), P(4), MKW_REMAP_MAYMOVE |
				   MKW_MAP_FIXED, NULL, &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), P(4), MKW_REMAP_MAYMOVE | MKW_MAP_FIXED |
				   MKW_MAP_FIXED_NOREPLACE, m + P(8), &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), P(4), MKW_REMAP_MAYMOVE |
				   MKW_MAP_FIXED, m + P(3), &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(4), P(5), MKW_REMAP_MAYMOVE |
				   MKW_MAP_FIXED, m - P(4), &p), -EINVAL);
	assert_int_equal(mkw_remap(m, P(5), P(5), 0, NULL, &p), -EFAULT);
	assert_null(p);
	assert_int_equal(m[P(3)], 'a' + 3);
	assert_int_equal(mkw_unmap(m, P(4)), 0);
}

/* ---- races --------------------------------------------------------------- */

#define STORERS 2u
#define ROUNDS (TEST_SLOW ? 15u : 60u)

static _Atomic(unsigned char *) shared;
static _Atomic uint64_t stored[STORERS];
static _Atomic bool stop;

static _Atomic uint64_t *word_at(unsigned char *base, unsigned pg, unsigned who)
{
	return (_Atomic uint64_t *)(void *)(base + P(pg) + 64 * (who + 1));
}

/*
 * Counts up in its word of each page; a store to where the mapping is no more raises a
 * signal and is made again. So what it says it stored, it did.
 */
static void *storer(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg;

	for (uint64_t n = 1; !atomic_load(&stop); n++) {
		for (unsigned pg = 0; pg < PAGES; pg++)
			while (try_store(word_at(atomic_load(&shared), pg, who), n))
				;
		atomic_store(&stored[who], n);
	}
	return NULL;
}

static void *syncer(void *arg)
{
	int r = 0;

	(void)arg;
	while (!atomic_load(&stop) && !r)
		r = mkw_sync_range(file, 0, (off_t)P(PAGES), 0);
	return (void *)(intptr_t)r;
}

static void race(unsigned flags)
{
	pthread_t thread[STORERS + 1];
	unsigned char *old, *new;
	unsigned seed = 1;
	uint64_t had, v;
	void *r;
	int fd;

	atomic_store(&shared, map(0, PAGES, RW, flags));
	atomic_store(&stop, false);
	for (unsigned i = 0; i < STORERS; i++) {
		atomic_store(&stored[i], 0);
		assert_int_equal(pthread_create(&thread[i], NULL, storer,
						(void *)(uintptr_t)i), 0);
	}
	assert_int_equal(pthread_create(&thread[STORERS], NULL, syncer, NULL), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		old = new = atomic_load(&shared);
		switch (rand_r(&seed) % 3) {
		case 0:
			/* To where nobody is, all of it. */
			assert_int_equal(remap(&new, PAGES, PAGES, MKW_REMAP_MAYMOVE |
					       MKW_MAP_FIXED, room(PAGES)), 0);
			assert_ptr_not_equal(new, old);
			break;
		case 1:
			/* The second half goes, and comes back. */
			new = old + P(PAGES / 2);
			assert_int_equal(remap(&new, PAGES / 2, PAGES / 2,
					       MKW_REMAP_MAYMOVE | MKW_MAP_FIXED,
					       room(PAGES / 2)), 0);
			assert_int_equal(remap(&new, PAGES / 2, PAGES / 2,
					       MKW_REMAP_MAYMOVE |
					       MKW_MAP_FIXED_NOREPLACE,
					       old + P(PAGES / 2)), 0);
			new = old;
			break;
		default:
			/* Shorter, and longer again, there or elsewhere. */
			assert_int_equal(remap(&new, PAGES, PAGES / 2, 0, NULL), 0);
			if (round % 2)
				assert_int_equal(remap(&new, PAGES / 2, PAGES, 0,
						       NULL), 0);
			else
				assert_int_equal(remap(&new, PAGES / 2, PAGES,
						       MKW_REMAP_MAYMOVE |
						       MKW_MAP_FIXED,
						       room(PAGES)), 0);
			break;
		}
		atomic_store(&shared, new);
		for (unsigned i = 0; i < STORERS; i++)
			for (had = atomic_load(&stored[i]);
			     atomic_load(&stored[i]) == had;)
				sched_yield();
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < STORERS + 1; i++) {
		pthread_join(thread[i], &r);
		assert_null(r);
	}
	assert_int_equal(mkw_sync(file), 0);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	for (unsigned pg = 0; pg < PAGES; pg++)
		for (unsigned i = 0; i < STORERS; i++) {
			assert_int_equal(pread(fd, &v, 8, (off_t)P(pg) +
					       64 * (off_t)(i + 1)), 8);
			assert_true(v == atomic_load(&stored[i]));
		}
	close(fd);
	assert_int_equal(mkw_unmap(atomic_load(&shared), P(PAGES)), 0);
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

/* A store asleep in a fault when its mapping moves: it is woken, and finds nothing. */
static void moves_from_a_sleeper(void **state)
{
	struct mkw_stats st = { .size = sizeof(st) };
	unsigned char *m = map(0, 2, RW, 0), *at = m;
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
	assert_int_equal(remap(&at, 2, 2, MKW_REMAP_MAYMOVE | MKW_MAP_FIXED, room(2)),
			 0);
	pthread_join(thread, &sig);
	assert_int_equal((intptr_t)sig, SIGSEGV);
	assert_int_equal(mkw_file_thaw(file), 0);
	assert_int_equal(at[0], 'a');
	assert_int_equal(try_access(at, true), 0);
	assert_int_equal(mkw_unmap(at, P(2)), 0);
}

/* Where the address space ends nothing can grow, but it can move. */
static void grows_at_the_top(void **state)
{
	unsigned char *at;
	void *p, *top = NULL;
	long r = -1;

	(void)state;
	if (TEST_TSAN) {
		print_message("skipped: the thread sanitizer ends who asks for such addresses\n");
		skip();
	}
	for (unsigned bits = 56; r < 0 && bits > 30; bits--) {
		top = (void *)(((uintptr_t)1 << bits) - P(2));
		r = syscall(SYS_mmap, top, P(1), PROT_NONE, MAP_PRIVATE |
			    MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		/* The stack, where addresses are not random. */
		if (r < 0 && errno == EEXIST) {
			print_message("skipped: something is at the top of the address space\n");
			skip();
		}
	}
	assert_true(r > 0);
	syscall(SYS_munmap, top, P(1));
	assert_int_equal(mkw_map(file, top, P(1), RW, MKW_MAP_FIXED_NOREPLACE, 0, &p),
			 0);
	mkw__trap_reinstall();
	at = p;
	/* Past the end, or where something is. */
	assert_int_equal(remap(&at, 1, 16, 0, NULL), -ENOMEM);
	assert_int_equal(remap(&at, 1, 16, MKW_REMAP_MAYMOVE, NULL), 0);
	assert_ptr_not_equal(at, top);
	assert_int_equal(at[P(15)], 'a' + 15);
	assert_int_equal(mkw_unmap(at, P(16)), 0);
}

/* In the end the engine and the kernel are of one mind about what is there. */
static void is_one_or_none(unsigned char *at, size_t len)
{
	struct mkw__range_req table;
	bool known;

	mkw__map_table_lock(&table);
	known = mkw__map_find((uintptr_t)at);
	mkw__map_table_unlock(&table);
	mkw__trap_reinstall();
	assert_int_equal(try_access(at, false), known ? 0 : SIGSEGV);
	assert_int_equal(mkw_unmap(at, len), 0);
}

#define TURNS 300u
#define TIMES 20u

static void *map_often(void *at)
{
	void *p;
	int r;

	for (unsigned i = 0; i < TIMES; i++) {
		r = mkw_map(file, at, P(2), RW, MKW_MAP_FIXED, 0, &p);
		if (r && r != -EBUSY)
			return (void *)"a mapping that fails";
	}
	return NULL;
}

/* At one place, by two threads: what is new may be gone before its call returns. */
static void unmapped_at_once(void **state)
{
	unsigned char *at = room(2);
	pthread_t other;
	void *r;

	(void)state;
	for (unsigned i = 0; i < TURNS; i++) {
		assert_int_equal(pthread_create(&other, NULL, map_often, at), 0);
		for (unsigned n = 0; n < TIMES; n++)
			assert_int_equal(mkw_unmap(at, P(2)), 0);
		pthread_join(other, &r);
		assert_null(r);
		is_one_or_none(at, P(2));
	}
}

#define MANY 64u
#define REUSES 2000u

static void *map_when_free(void *at)
{
	void *p;
	int r;

	atomic_store(&stop, false);
	do {
		r = mkw_map(file, at, P(1), RW, MKW_MAP_FIXED, 0, &p);
	} while (r == -EBUSY);
	return r ? (void *)"a mapping that fails" : NULL;
}

/* What is being unmapped, and was only one of many, is nobody else's until it is gone. */
static void mapped_while_it_goes(void **state)
{
	unsigned char *at = room(MANY);
	pthread_t other;
	void *r;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		for (unsigned n = 0; n < MANY; n++)
			assert_int_equal(mkw_map(file, at + P(n), P(1), RW,
						 MKW_MAP_FIXED, 0, &r), 0);
		atomic_store(&stop, true);
		assert_int_equal(pthread_create(&other, NULL, map_when_free,
						at + P(MANY - 1)), 0);
		while (atomic_load(&stop))
			sched_yield();
		assert_int_equal(mkw_unmap(at, P(MANY)), 0);
		pthread_join(other, &r);
		assert_null(r);
		is_one_or_none(at + P(MANY - 1), P(1));
	}
}

/* Another thread's mappings come and go, wherever there is room. */
static void *map_anywhere(void *arg)
{
	void *p;

	(void)arg;
	while (!atomic_load(&stop))
		if (mkw_map(file, NULL, P(1), RW, 0, 0, &p) ||
		    mkw_unmap(p, P(1)))
			return (void *)"a mapping that fails";
	return NULL;
}

/*
 * Room that the kernel gave away is the caller's, also where a mapping was that another
 * thread's mkw_unmap() has not quite done with.
 */
static void mapped_where_it_has_gone(void **state)
{
	pthread_t other;
	void *r, *at;

	(void)state;
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&other, NULL, map_anywhere, NULL), 0);
	for (unsigned i = 0; i < REUSES; i++) {
		/* A race detector would take mmap() for a write. */
		long got = syscall(SYS_mmap, NULL, P(1), PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, (off_t)0);

		assert_true(got > 0);
		at = (void *)got;
		assert_int_equal(mkw_map(file, at, P(1), RW, MKW_MAP_FIXED, 0,
					 &r), 0);
		assert_int_equal(mkw_unmap(at, P(1)), 0);
	}
	atomic_store(&stop, true);
	pthread_join(other, &r);
	assert_null(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(grows_and_shrinks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(fixed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(access_goes_with_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_input, set_up, tear_down),
		cmocka_unit_test_setup_teardown(race_pager, set_up, tear_down),
		cmocka_unit_test_setup_teardown(race_inline, set_up, tear_down),
		cmocka_unit_test_setup_teardown(moves_from_a_sleeper, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(grows_at_the_top, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unmapped_at_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(mapped_while_it_goes, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(mapped_where_it_has_gone,
						set_up, tear_down),
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
