/* SPDX-License-Identifier: MIT */
/*
 * mkw_protect() on real page faults: who may access what, and that no store passes
 * writeback where the access was taken away and given back.
 */
#include <errno.h>
#include <fcntl.h>
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

static unsigned char *map(unsigned pages, int prot, unsigned flags)
{
	void *p;

	assert_int_equal(mkw_map(file, NULL, P(pages), prot, flags, 0, &p), 0);
	return p;
}

static int set_up(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	int fd;

	(void)state;
	strcpy(path, "mkw-test-protect-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(mkw_engine_open(&opt, &engine), 0);
	mkw__trap_reinstall();
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_may, set_up, tear_down),
		cmocka_unit_test_setup_teardown(store_after, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bounds, set_up, tear_down),
	};

	access_begin();
	if (!access_possible())
		return 77;
	page = (size_t)sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
