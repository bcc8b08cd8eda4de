/* SPDX-License-Identifier: MIT */
/*
 * small.c: plays small enough that all their schedules can be run.
 *
 * Pages have four words and two blocks. A role is a list of words, each a letter
 * and up to two digits, a page and something inside it:
 *
 *   l12  load of word 2 of page 1        s12  store to it
 *   r1   pread of page 1                 R1   direct read
 *   w1   pwrite of page 1                w12  of its word 2
 *   W1   direct write of page 1          W11  of its block 1
 *   m    pwrite of all pages             M    direct write
 *   p1   punch of page 1                 z1   zero range
 *   h    punch of all but the first and the last block of the file
 *   t1   truncate to 1 page              t12  to 1 page and 2 words
 *   a1   allocate page 1                 y    sync
 *   i0   pread of page 0, block 0, into the mapping: block 1 of the other page
 *   e0   the same into block 1 of page 0 itself            I0, E0   direct
 *   o0   pwrite of page 0, block 0, out of the mapping: block 0 of the other page
 *   x0   to block 1, out of block 0 of page 0 itself       O0, X0   direct
 *   v0   somebody else writes page 0, and it is invalidated; n0: it is invalidated
 *   u    unmap all of the second mapping, and map it again
 *   q1   submits a pwrite of page 1        g1   of a pread         Q   of a sync, a barrier
 *   k    fetches the results of all that was submitted, by one role alone
 *   c1   cancels the second request
 *   d1   page 1 of the first mapping read-only, and then as before
 *   D1   the same with no access at all
 *   j    move the second mapping; j1: what follows its first page, and back;
 *        j2: a page longer, and back
 *   f    freeze, a look at the disk, thaw
 *   V0   advice that page 0 is not needed     Y0   sync of page 0
 *   P0   a device stores to word 0 of page 0, pinned       L0   loads
 *   N    append of one word
 *   B0   pwrite of page 0, out of a buffer of which one block can be read
 *   G1   what page 1 has not on the disk is discarded
 *   A    opened with MKW_ATOMIC_WRITES: first in the setup
 *   F12  page 1 and all after it are holes, and the disk has 2 blocks left: in the setup
 *   b1   page 1 cannot be written: in the setup
 *
 * The first role uses the first mapping, the others the second one.
 */
#include <string.h>
#include <sys/mman.h>

#include "sim/machine.h"
#include "sim/stage.h"

#define BLOCK (SIM_BLOCK / 8)	/* words */

static const struct small *playing;
static unsigned maps[2];

static unsigned digit(const char **at)
{
	return **at >= '0' && **at <= '9' ? (unsigned)(*(*at)++ - '0') : UINT_MAX;
}

static void fetch_all(void)
{
	while (stage_reaped() < stage_submitted())
		stage_reap();
}

/* One operation of n words from `word`; b: the second digit, or UINT_MAX. */
static void operate(char what, unsigned map, unsigned word, unsigned n, unsigned b)
{
	unsigned inside = b == UINT_MAX ? 0 : b;
	unsigned other = word ? 0 : stage.words_per_page;

	switch (what) {
	case 'l':
		stage_load(maps[map], word + inside);
		break;
	case 's':
		stage_store(maps[map], word + inside);
		break;
	case 'r':
	case 'R':
		stage_read(word, n, what == 'R' ? MKW_DIRECT : 0);
		break;
	case 'w':
		stage_write(word + inside, b == UINT_MAX ? n : 1, 0);
		break;
	case 'W':
		stage_write(word + inside * BLOCK, b == UINT_MAX ? n : BLOCK,
			    MKW_DIRECT);
		break;
	case 'm':
	case 'M':
		stage_write(0, stage.words, what == 'M' ? MKW_DIRECT : 0);
		break;
	case 'h':
		stage_punch(BLOCK, stage.words - 2 * BLOCK);
		break;
	case 'p':
		stage_punch(word, n);
		break;
	case 'z':
		stage_zero(word, n);
		break;
	case 't':
		stage_truncate(word + inside);
		break;
	case 'a':
		stage_allocate(word, n);
		break;
	case 'y':
		stage_sync();
		break;
	case 'i':
	case 'I':
		stage_read_into(maps[map], other + BLOCK, word, BLOCK,
				what == 'I' ? MKW_DIRECT : 0);
		break;
	case 'e':
	case 'E':
		stage_read_into(maps[map], word + BLOCK, word, BLOCK,
				what == 'E' ? MKW_DIRECT : 0);
		break;
	case 'o':
	case 'O':
		stage_write_from(maps[map], other, word, BLOCK,
				 what == 'O' ? MKW_DIRECT : 0);
		break;
	case 'x':
	case 'X':
		stage_write_from(maps[map], word, word + BLOCK, BLOCK,
				 what == 'X' ? MKW_DIRECT : 0);
		break;
	case 'v':
		stage_change_elsewhere(word, n, word, word, 0);
		break;
	case 'n':
		stage_invalidate(word, n);
		break;
	case 'q':
		stage_submit(MKW_OP_WRITE, word, n, 0, 0);
		break;
	case 'g':
		stage_submit(MKW_OP_READ, word, n, 0, 0);
		break;
	case 'Q':
		stage_submit(MKW_OP_SYNC, 0, 0, 0, MKW_ORDER_BARRIER);
		break;
	case 'k':
		fetch_all();
		break;
	case 'c':
		stage_cancel(word / stage.words_per_page);
		break;
	case 'd':
	case 'D':
		stage_protect(maps[0], word / n, word / n + 1,
			      what == 'd' ? PROT_READ : PROT_NONE);
		break;
	case 'j':
		stage_move(maps[1], word / n);
		break;
	case 'u':
		stage_remap(maps[1], false, playing->in_thread);
		break;
	case 'f':
		stage_freeze(false);
		break;
	case 'V':
		stage_dontneed(word, n);
		break;
	case 'Y':
		stage_sync_range(word, n, 0);
		break;
	case 'P':
		stage_device_store(maps[map], word);
		break;
	case 'L':
		stage_device_load(maps[map], word, NULL);
		break;
	case 'N':
		stage_append(1);
		break;
	case 'B':
		stage_write_bad(word, n, BLOCK);
		break;
	case 'G':
		stage_discard(word, n);
		break;
	case 'A':
		stage_atomic();
		break;
	case 'F':
		stage_fill_disk(word / n, inside);
		break;
	case 'b':
		stage_bad_pages(word / n, word / n + 1);
		break;
	default:
		sim_violation("small play: no operation '%c'", what);
	}
}

static void perform(const char *at, unsigned map)
{
	while (*at) {
		char what = *at++;
		unsigned a = digit(&at), b = digit(&at);

		if (what != ' ')
			operate(what, map,
				a == UINT_MAX ? 0 : a * stage.words_per_page,
				stage.words_per_page, b);
	}
}

static void first_role(void *arg)
{
	(void)arg;
	perform(playing->task[0], 0);
}

static void second_role(void *arg)
{
	(void)arg;
	perform(playing->task[1], 1);
}

static void third_role(void *arg)
{
	(void)arg;
	perform(playing->task[2], 1);
}

void small_play(const struct small *sm)
{
	static void (*const roles[SMALL_TASKS])(void *arg) = {
		first_role, second_role, third_role,
	};
	static const char *const names[SMALL_TASKS] = { "A", "B", "C" };
	unsigned id[SMALL_TASKS], n = 0;
	bool queue = false;

	playing = sm;
	stage_open(sm->pages, sm->frames);
	maps[0] = stage_map(sm->in_thread, true);
	maps[1] = stage_map(sm->in_thread, true);
	for (unsigned i = 0; i < SMALL_TASKS && sm->task[i]; i++) {
		stage.may_end_short |= strchr(sm->task[i], 't') != NULL;
		queue |= strpbrk(sm->task[i], "qgQ") != NULL;
		stage.may_vanish |= strpbrk(sm->task[i], "udDj") != NULL;
		n++;
	}
	if (queue)
		stage_queue_open(0, 1, true);
	perform(sm->setup, 0);
	stage_begin();
	for (unsigned i = 0; i < n; i++)
		id[i] = sim_spawn(names[i], roles[i], NULL);
	for (unsigned i = 0; i < n; i++)
		sim_join(id[i]);
	if (queue) {
		fetch_all();
		stage_end();
		stage_queue_close();
	}
	stage_close();
}

/*
 * PLAY: for mappings of both kinds. Where frames are scarce reclaim can take a page
 * again and again before its access comes: schedules without an end.
 */
#define PAGER(scenario, pages, frames, setup, ...)                             \
	{ scenario, pages, frames, false, frames, setup, { __VA_ARGS__ } }
#define INLINE(scenario, pages, frames, setup, ...)                            \
	{ scenario, pages, frames, true, frames, setup, { __VA_ARGS__ } }
#define PLAY(...) PAGER(__VA_ARGS__), INLINE(__VA_ARGS__)

const struct small smalls[] = {
	PLAY("fault-vs-punch", 2, 0, "", "l00", "p0 l00"),
	PLAY("fault-vs-punch", 2, 0, "", "l00", "z0 l00"),
	PLAY("mkwrite-vs-punch", 2, 0, "", "s00", "p0"),
	PLAY("mkwrite-vs-punch", 2, 0, "l00", "s00", "p0"),
	PLAY("mkwrite-vs-punch", 2, 0, "s01", "l00 l10", "p0 l00"),
	PLAY("fault-vs-truncate", 2, 0, "", "l10", "t1"),
	PLAY("fault-vs-truncate", 2, 0, "t1", "l10", "t2"),
	PLAY("fault-vs-truncate", 2, 0, "l10", "s10", "t1"),
	PLAY("fault-vs-direct-write", 2, 0, "", "l00", "W0 l01"),
	INLINE("fault-vs-direct-write", 2, 0, "", "l00 l10", "W0 l01"),
	PLAY("fault-vs-direct-write", 2, 0, "", "l00", "W00 r0"),
	PLAY("store-vs-direct-write-same-page", 2, 0, "", "s00 l02", "W01"),
	PLAY("store-vs-direct-write-same-page", 2, 0, "l00", "s00", "W01 l00"),
	PLAY("store-vs-direct-write-same-page", 2, 0, "s01", "s00", "W01 y"),
	PLAY("direct-read-into-own-mapping", 2, 0, "", "I0", "p1"),
	PLAY("direct-read-into-own-mapping", 2, 0, "", "E0", "w03"),
	PLAY("direct-read-into-own-mapping", 2, 0, "", "E0", "W01"),
	PLAY("direct-read-into-own-mapping", 2, 0, "l00", "E0", "w03"),
	PLAY("direct-write-from-own-mapping", 2, 0, "", "X0", "l00"),
	PLAY("crosswise-buffers", 2, 0, "", "I0", "O1"),
	PLAY("writeback-vs-punch", 2, 0, "s00", "y", "p0 l00"),
	PLAY("writeback-vs-punch", 2, 0, "s00", "y", "s01 p0"),
	PLAY("writeback-vs-direct-write", 2, 0, "s00", "y", "W01 s02"),
	PLAY("writeback-vs-store", 2, 0, "s00", "y", "s00 l00"),
	PLAY("load-vs-store", 2, 0, "r0", "l00", "s00"),
	PLAY("grow-vs-partial-page", 2, 0, "", "s00 l00", "t01 t2"),
	PLAY("invalidate-vs-fault", 2, 0, "", "l00", "v0 l00"),
	PLAY("invalidate-vs-fault", 2, 0, "l00", "l00 r0", "v0 l00"),
	PLAY("invalidate-vs-fault", 2, 0, "s01", "s00", "n0 l00"),
	PLAY("unmap-vs-fault", 2, 0, "", "l00", "u l00"),
	PAGER("queue-order", 2, 0, "", "q0 Q k"),
	PAGER("queue-order", 2, 0, "r0", "Q", "g0 k"),
	PAGER("queue-order", 2, 0, "r0", "q0", "g0 k"),
	PAGER("queue-cancel", 2, 0, "", "q0 k", "c0"),
	PAGER("queue-cancel", 2, 0, "", "q0 q1 k", "c0 c1"),
	PAGER("queue-vs-punch", 2, 0, "", "q0 k", "p0 l00"),
	PLAY("protect-vs-fault", 2, 0, "", "s00", "d0"),
	INLINE("protect-vs-fault", 2, 0, "s00", "s01", "d0", "y"),
	PLAY("protect-vs-fault", 2, 0, "", "l00 s00", "D0"),
	PAGER("remap-vs-fault", 2, 0, "", "s00", "j0 l00"),
	PLAY("remap-vs-fault", 2, 0, "s00", "y", "s01 j0"),
	PAGER("remap-vs-fault", 2, 0, "", "l10", "j1 s10"),
	PLAY("atomic-write-vs-load", 2, 0, "A l00", "l00 l03", "w0"),
	PLAY("atomic-write-vs-load", 2, 0, "A l00 l10", "l00 l10", "m"),
	PLAY("atomic-write-vs-load", 2, 0, "A l00 l10", "l03 l10", "M"),
	PLAY("atomic-write-vs-load", 2, 0, "A l00 l10", "l02 l11", "h"),
	PLAY("atomic-write-vs-store", 2, 0, "A s00", "l00 s03", "w0"),
	PLAY("atomic-write-vs-store", 2, 0, "A l00 s10", "l00 s13", "m"),
	PLAY("enospc-at-mkwrite", 1, 0, "F01", "s00", "l00"),
	PLAY("enospc-at-mkwrite", 1, 0, "F02", "s00", "p0"),
	PLAY("error-at-writeback", 2, 0, "b0 s00", "y", "s00 l00"),
	PLAY("error-at-writeback", 2, 0, "b1 s00 s10", "y", "l10 s00"),
	PLAY("discard-vs-store", 2, 0, "b1 s10", "G1", "s10 l10"),
	PLAY("freeze-vs-mkwrite", 2, 0, "", "s00", "f"),
	PLAY("freeze-vs-mkwrite", 2, 0, "s00", "s01", "f"),
	PLAY("freeze-vs-write", 2, 0, "s00", "w0", "f"),
	PLAY("freeze-vs-write", 2, 0, "s00", "f", "p0"),
	PAGER("pin-vs-punch", 2, 0, "", "P0", "p0"),
	PAGER("pin-vs-punch", 2, 0, "s00", "L0", "W0"),
	PAGER("pin-vs-writeback", 2, 0, "s00", "P0", "y"),
	INLINE("advice-vs-fault", 2, 0, "", "s00", "V0"),
	PLAY("advice-vs-fault", 2, 0, "s00", "s00 l00", "V0"),
	INLINE("sync-range-vs-store", 2, 0, "s00", "Y0", "s00 s10"),
	PLAY("sync-range-vs-store", 2, 0, "s00", "Y0", "s00"),
	PAGER("append-vs-append", 2, 0, "t01", "N", "N"),
	PLAY("bad-buffer", 2, 0, "s00", "B0", "s00"),
	PAGER("write-vs-read", 2, 0, "r0", "w0", "r0"),
	PAGER("write-vs-read", 2, 0, "s00", "W0", "R0"),
	INLINE("reclaim-vs-fault", 3, 2, "l00 s10", "l00", "l20"),
};
const unsigned small_count = sizeof(smalls) / sizeof(smalls[0]);
