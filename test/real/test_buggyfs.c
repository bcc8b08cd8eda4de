/* SPDX-License-Identifier: MIT */
/*
 * test_buggyfs.c: mkwrite check finds the bugs of a file system, and gives them their
 * names. The file system is a FUSE server (buggyfs.h).
 *
 * One thread hammers: the kernel's part of FUSE has races of its own between
 * punch, truncate, direct writes and page faults, and what is to be found here is
 * the server's. What the kernel does on its own also with one thread is that bytes
 * stored past the end show when the file grows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "check/check.h"
#include "buggyfs.h"

#define BIT(class) (1u << CHECK_##class)
#define ALL_LOST (BIT(LOST_STORE) | BIT(LOST_WRITE) | BIT(LOST_DIRECT_WRITE))

struct expected {
	const char *name;
	enum buggyfs_bug bug;
	unsigned class;		/* bit: this one is found */
	unsigned also;		/* bits: these may be */
};

static const struct expected table[] = {
	/* What is dropped is still in the kernel's cache, and may be written once more:
	 * whoever goes past it in between reads what was there before. */
	{ "drops writes", BUGGY_DROPS_WRITES, BIT(LOST_WRITE), BIT(STALE_READ) },
	{ "drops direct writes", BUGGY_DROPS_DIRECT_WRITES,
	  BIT(LOST_DIRECT_WRITE), 0 },
	{ "drops writeback", BUGGY_DROPS_WRITEBACK, BIT(LOST_STORE),
	  BIT(STALE_READ) },
	{ "punch keeps", BUGGY_PUNCH_KEEPS, BIT(RESURRECTED), 0 },
	{ "truncate keeps", BUGGY_TRUNCATE_KEEPS, BIT(RESURRECTED), 0 },
	/* What is overwritten before it is read again counts as lost. */
	{ "stale reads", BUGGY_STALE_READS, BIT(STALE_READ),
	  ALL_LOST | BIT(RESURRECTED) | BIT(TORN) },
	{ "flips bits", BUGGY_FLIPS_BITS, BIT(NEVER_WRITTEN), 0 },
	{ "misplaces writes", BUGGY_MISPLACES_WRITES, BIT(NEVER_WRITTEN),
	  ALL_LOST | BIT(STALE_READ) | BIT(RESURRECTED) | BIT(TORN) },
	{ "spurious EIO", BUGGY_SPURIOUS_EIO, BIT(SPURIOUS_ERROR), 0 },
	{ "keeps blocks", BUGGY_KEEPS_BLOCKS, BIT(STRAY), 0 },
	{ "holes over data", BUGGY_HOLES_OVER_DATA, BIT(STRAY), 0 },
	{ "hangs", BUGGY_HANGS, BIT(NO_PROGRESS), 0 },
};
#define BUGS (sizeof(table) / sizeof(table[0]))

/* The classes that were seen, as bits; ~0: it did not run. */
static unsigned hammer(const char *dir, unsigned until, unsigned epochs)
{
	static struct check_result res;
	struct check_config cfg = CHECK_CONFIG_INIT;
	unsigned seen = 0;

	cfg.target_ops = &mkw__check_kernel_target;
	cfg.dir = dir;
	cfg.threads = 1;
	cfg.seconds = 60;
	cfg.epochs = epochs;
	cfg.until = until;
	if (until == BIT(NO_PROGRESS))
		cfg.hang_seconds = 1;
	if (mkw__check_run(&cfg, &res)) {
		print_message("%s\n", res.error);
		return ~0u;
	}
	for (unsigned i = 0; i < CHECK_CLASSES; i++) {
		if (!res.classes[i].count)
			continue;
		seen |= 1u << i;
		print_message("    %s: %s\n",
			      mkw__check_class_name((enum check_class)i),
			      res.classes[i].example);
	}
	return seen;
}

static void sound(void **state)
{
	struct buggyfs fs;
	unsigned seen;

	(void)state;
	if (!buggyfs_start(&fs, BUGGY_NONE))
		skip();
	seen = hammer(fs.mount, 0, 14);
	buggyfs_stop(&fs);
	assert_int_equal(seen & ~BIT(PAST_END), 0);
}

/*
 * In a process of its own, since a hang leaves threads behind. It tells by a pipe
 * what it saw: it cannot end before the server does, where it hangs in it.
 */
static void one_bug(const struct expected *e)
{
	unsigned seen = ~0u;
	struct buggyfs fs;
	int ends[2];
	pid_t pid;

	print_message("%s\n", e->name);
	if (!buggyfs_start(&fs, e->bug))
		skip();
	assert_int_equal(pipe(ends), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		seen = hammer(fs.mount, e->class, 0);
		fflush(NULL);
		_exit(write(ends[1], &seen, sizeof(seen)) != sizeof(seen));
	}
	close(ends[1]);
	if (read(ends[0], &seen, sizeof(seen)) != sizeof(seen))
		seen = ~0u;
	close(ends[0]);
	buggyfs_stop(&fs);
	waitpid(pid, NULL, 0);
	assert_true(seen != ~0u);
	assert_true(seen & e->class);
	assert_int_equal(seen & ~(e->class | e->also | BIT(PAST_END)), 0);
}

static void bugs(void **state)
{
	(void)state;
	for (unsigned i = 0; i < BUGS; i++)
		one_bug(&table[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound),
		cmocka_unit_test(bugs),
	};

	return cmocka_run_group_tests_name("buggyfs", tests, NULL, NULL);
}
