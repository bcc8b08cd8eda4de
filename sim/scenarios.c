/* SPDX-License-Identifier: MIT */
/*
 * scenarios.c: small plays of two to four tasks on one file, each around one
 * pair of operations that used to race. To add one: a function that opens the
 * stage, plays roles together and closes the stage, and a line in the table.
 * The seed chooses words, variants and fault mode; what must hold is stage.c's.
 */
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>

#include "sim/history.h"
#include "sim/stage.h"

#define ROLES_MAX 5u

struct role {
	const char *name;
	void (*fn)(void *arg);
};

/* What the roles of one run share, by the seed. */
static unsigned map0, map1, variant, rounds;

/* Spawns the first n roles and waits for them. */
static void play_roles(const struct role *roles, unsigned n)
{
	unsigned id[ROLES_MAX];

	stage_begin();
	for (unsigned i = 0; i < n; i++)
		id[i] = sim_spawn(roles[i].name, roles[i].fn, NULL);
	for (unsigned i = 0; i < n; i++)
		sim_join(id[i]);
}

/* The stage with two mappings, not all pages of which are cached at first. */
static void set_up(unsigned pages, unsigned frames)
{
	stage_open(pages, frames);
	map0 = stage_map_any();
	map1 = sim_random(2) ? map0 :
			       stage_map(sim_random(2), sim_random(4) != 0);
	variant = (unsigned)sim_random(64);
	rounds = 1 + (unsigned)sim_random(3);
	/* A page that is cached, mapped, or dirty beforehand. */
	if (sim_random(4) == 0)
		stage_read(0, stage.words_per_page, 0);
	if (sim_random(4) == 0)
		stage_load(map0, 0);
	if (sim_random(4) == 0)
		stage_store(map1, 1);
}

static unsigned word_of_page(unsigned page)
{
	return page * stage.words_per_page +
	       (unsigned)sim_random(stage.words_per_page);
}

/* A block of the page: its first word. */
static unsigned block_of_page(unsigned page)
{
	return word_of_page(page) & ~(SIM_BLOCK / 8 - 1);
}

/* ---- roles ------------------------------------------------------------- */

static void loader(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_load(map0, word_of_page(0));
}

static void storer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		unsigned w = word_of_page(0);

		stage_store(map0, w);
		stage_load(map0, w);
	}
}

static void toucher(void *arg)
{
	(variant & 1 ? storer : loader)(arg);
}

static void puncher(void *arg)
{
	(void)arg;
	stage_punch(0, stage.words_per_page);
	stage_load(map1, word_of_page(0));
}

static void reader(void *arg)
{
	(void)arg;
	stage_read(0, stage.words_per_page, variant & 2 ? MKW_DIRECT : 0);
}

static void truncater(void *arg)
{
	(void)arg;
	stage_truncate(variant & 4 ? 0 : stage.words_per_page);
	if (variant & 8)
		stage_load(map1, word_of_page(0));
	stage_truncate(stage.words);
	stage_load(map1, word_of_page(1));
}

static void far_toucher(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		unsigned w = word_of_page((unsigned)sim_random(2));

		if (variant & 1)
			stage_store(map0, w);
		stage_load(map0, w);
	}
}

static void direct_writer(void *arg)
{
	(void)arg;
	stage_write(block_of_page(0), SIM_BLOCK / 8, MKW_DIRECT);
	stage_load(map1, word_of_page(0));
	if (variant & 2)
		stage_write(0, stage.words_per_page, MKW_DIRECT);
}

static void syncer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_sync();
}

static void write_puncher(void *arg)
{
	(void)arg;
	stage_store(map1, word_of_page(0));
	stage_punch(0, stage.words_per_page * (1 + (variant & 1)));
	if (variant & 2)
		stage_load(map1, word_of_page(0));
}

/*
 * Copies between the file and a mapping of it. Their sources are left alone, so
 * that what they write is known: the first words of pages 0 and 1. The lock of
 * a read of both pages covers its own target, from word 4 of page 1 on.
 */
#define SOURCE_WORDS 4u

static unsigned target(void)
{
	return stage.words_per_page + SOURCE_WORDS;
}

static void self_reader(void *arg)
{
	unsigned n = variant & 16 ? SIM_BLOCK / 8 : stage.words_per_page +
						    SIM_BLOCK / 8;

	(void)arg;
	stage_read_into(map0, target(), 0, n, variant & 1 ? MKW_DIRECT : 0);
}

/* Within page 0, or from page 1 to page 2. */
static void self_writer(void *arg)
{
	unsigned flags = variant & 2 ? MKW_DIRECT : 0;

	(void)arg;
	if (variant & 8)
		stage_write_from(map1, 0, SOURCE_WORDS, SIM_BLOCK / 8, flags);
	else
		stage_write_from(map1, stage.words_per_page,
				 3 * stage.words_per_page - SIM_BLOCK / 8,
				 SIM_BLOCK / 8, flags);
}

/* Something exclusive, queued in between. */
static void excluder(void *arg)
{
	unsigned n = stage.words_per_page - SOURCE_WORDS;

	(void)arg;
	if (variant & 4)
		stage_punch(target(), n);
	else
		stage_write(target(), n, variant & 8 ? MKW_DIRECT : 0);
	if (variant & 32)
		stage_zero(2 * stage.words_per_page, stage.words_per_page);
}

static void page1_storer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_store(map1, target() + (unsigned)
				  sim_random(stage.words_per_page - SOURCE_WORDS));
}

/* ---- plays -------------------------------------------------------------- */

static void fault_vs_punch(void)
{
	static const struct role roles[] = {
		{ "toucher", toucher }, { "puncher", puncher },
		{ "reader", reader },
	};

	set_up(2, 0);
	play_roles(roles, 2 + !(variant & 12));
	stage_close();
}

static void fault_vs_truncate(void)
{
	static const struct role roles[] = {
		{ "toucher", far_toucher }, { "truncater", truncater },
		{ "reader", reader },
	};

	set_up(2, 0);
	stage.may_end_short = true;
	play_roles(roles, 2 + !(variant & 48));
	stage_close();
}

static void fault_vs_direct_write(void)
{
	static const struct role roles[] = {
		{ "loader", loader }, { "writer", direct_writer },
		{ "reader", reader },
	};

	set_up(2, 0);
	play_roles(roles, 2 + !(variant & 12));
	stage_close();
}

static void store_vs_direct_write(void)
{
	static const struct role roles[] = {
		{ "storer", storer }, { "writer", direct_writer },
		{ "loader", loader },
	};

	set_up(2, 0);
	play_roles(roles, 2 + !(variant & 12));
	stage_close();
}

static void writeback_vs_punch(void)
{
	static const struct role roles[] = {
		{ "syncer", syncer }, { "puncher", write_puncher },
		{ "storer", storer },
	};

	set_up(2, 0);
	play_roles(roles, 2 + !(variant & 12));
	stage_close();
}

static void writeback_vs_store(void)
{
	static const struct role roles[] = {
		{ "syncer", syncer }, { "storer", storer },
		{ "writer", direct_writer },
	};

	set_up(2, 0);
	play_roles(roles, 2 + !(variant & 12));
	stage_close();
}

static void load_vs_store(void)
{
	static const struct role roles[] = {
		{ "loader", loader }, { "storer", storer },
		{ "syncer", syncer },
	};

	set_up(2, 0);
	/* Cached, and in no mapping but by chance. */
	stage_read(0, stage.words_per_page, 0);
	play_roles(roles, 2 + (variant & 1));
	stage_close();
}

static void direct_read_into_own_mapping(void)
{
	static const struct role roles[] = {
		{ "reader", self_reader }, { "excluder", excluder },
		{ "storer", page1_storer },
	};

	stage_open(3, 0);
	map0 = stage_map_any();
	map1 = stage_map_any();
	variant = (unsigned)sim_random(64) | 1;
	rounds = 1;
	play_roles(roles, 2 + (variant & 32 ? 1 : 0));
	stage_close();
}

static void direct_write_from_own_mapping(void)
{
	static const struct role roles[] = {
		{ "writer", self_writer }, { "loader", loader },
	};

	stage_open(3, 0);
	map0 = stage_map_any();
	map1 = stage_map_any();
	variant = (unsigned)sim_random(64) | 2;
	rounds = 1;
	play_roles(roles, 1 + (variant & 1));
	stage_close();
}

static void crosswise_buffers(void)
{
	static const struct role roles[] = {
		{ "reader", self_reader }, { "writer", self_writer },
		{ "excluder", excluder }, { "loader", loader },
	};

	stage_open(3, 0);
	map0 = stage_map_any();
	map1 = stage_map_any();
	/* The writer's target is not to be the reader's source. */
	variant = (unsigned)sim_random(64) & ~(8u | 32u);
	rounds = 2;
	play_roles(roles, 2 + (unsigned)sim_random(3));
	stage_close();
}

/* ---- a page that is cut in two ------------------------------------------ */

#define KEPT 3u	/* words of page 0 that a truncation leaves */

static void cutter(void *arg)
{
	(void)arg;
	stage_truncate(KEPT);
	if (variant & 8)
		stage_load(map1, word_of_page(0));
	stage_truncate(stage.words);
	stage_load(map1, word_of_page(0));
}

/* Stores only where the file never ends before it. */
static void keeper(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		if (variant & 1)
			stage_store(map0, (unsigned)sim_random(KEPT));
		stage_load(map0, word_of_page(0));
	}
}

static void grow_vs_partial_page(void)
{
	static const struct role roles[] = {
		{ "cutter", cutter }, { "keeper", keeper }, { "syncer", syncer },
	};

	set_up(2, 0);
	stage.may_end_short = true;
	play_roles(roles, 2 + !(variant & 48));
	stage_close();
}

/* ---- a file that is frozen ------------------------------------------------ */

static void freezer(void *arg)
{
	(void)arg;
	stage_freeze(variant & 1);
	if (variant & 2)
		stage_load(map1, word_of_page(0));
	stage_freeze(variant & 4);
}

static void two_page_storer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		stage_store(map0, word_of_page((unsigned)sim_random(2)));
		stage_load(map0, word_of_page((unsigned)sim_random(2)));
	}
}

static void freeze_vs_mkwrite(void)
{
	static const struct role roles[] = {
		{ "storer", two_page_storer }, { "freezer", freezer },
		{ "syncer", syncer }, { "loader", loader },
	};

	set_up(2, 0);
	play_roles(roles, 2 + (unsigned)sim_random(3));
	stage_close();
}

static void any_writer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		switch (sim_random(4)) {
		case 0:
			stage_write(block_of_page(0), SIM_BLOCK / 8, MKW_DIRECT);
			break;
		case 1:
			stage_punch(stage.words_per_page, stage.words_per_page);
			break;
		case 2:
			stage_zero(word_of_page(0), 1);
			break;
		default:
			stage_write(0, stage.words, 0);
		}
}

static void freeze_vs_write(void)
{
	static const struct role roles[] = {
		{ "writer", any_writer }, { "freezer", freezer },
		{ "other freezer", freezer }, { "storer", storer },
	};

	set_up(2, 0);
	play_roles(roles, 2 + (unsigned)sim_random(3));
	stage_close();
}

/* ---- whole operations ----------------------------------------------------- */

static unsigned some_way(void)
{
	return sim_random(2) ? MKW_DIRECT : 0;
}

static void whole_writer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_write(0, stage.words, some_way());
}

static void whole_reader(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_read(0, stage.words, some_way());
}

/* Calls alone, each of all words: any read has seen one write, and no other. */
static void write_vs_read(void)
{
	static const struct role roles[] = {
		{ "writer-1", whole_writer }, { "reader", whole_reader },
		{ "writer-2", whole_writer }, { "syncer", syncer },
	};

	set_up(2, sim_random(2) ? 0 : 2);
	play_roles(roles, 2 + (variant & 3) % 3);
	stage_close();
}

/* ---- appends ------------------------------------------------------------ */

static void appender(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2; i++)
		stage_append(1 + (unsigned)sim_random(3));
}

/* Appends to an empty file, or one that ends inside a page. */
static void append_vs_append(void)
{
	static const struct role roles[] = {
		{ "appender-1", appender }, { "appender-2", appender },
		{ "syncer", syncer }, { "reader", reader },
	};

	set_up(2, 0);
	stage.may_end_short = true;
	stage_truncate(variant & 1 ? 0 : 3);
	play_roles(roles, 2 + (variant >> 1) % 3);
	stage_close();
}

/* ---- who watches the size -------------------------------------------------- */

#define LAST_PAGES 5u

static void resizer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_truncate((1 + (unsigned)sim_random(LAST_PAGES - 1)) *
			       stage.words_per_page);
	stage_truncate(LAST_PAGES * stage.words_per_page);
}

static void size_watcher(void *arg)
{
	(void)arg;
	stage_await_size(LAST_PAGES * stage.words_per_page);
}

static void size_watched(void)
{
	static const struct role roles[] = {
		{ "watcher", size_watcher }, { "resizer", resizer },
		{ "toucher", toucher }, { "syncer", syncer },
	};

	set_up(LAST_PAGES + 1, 0);
	stage.may_end_short = true;
	play_roles(roles, 2 + (variant >> 1) % 3);
	stage_close();
}

/* ---- space --------------------------------------------------------------- */

/* Stores and writes into holes. */
static void hole_storer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2 * rounds; i++) {
		unsigned w = word_of_page((unsigned)sim_random(stage.pages));

		switch (sim_random(8)) {
		case 0:
			stage_write(w, 1, 0);
			break;
		case 1:
			stage_write(w, 1 + (unsigned)sim_random(stage.words - w),
				    0);
			break;
		case 2:
			stage_write(w & ~(SIM_BLOCK / 8 - 1), SIM_BLOCK / 8,
				    MKW_DIRECT);
			break;
		case 3:
			stage_load(map1, w);
			break;
		default:
			stage_store(sim_random(2) ? map0 : map1, w);
			break;
		}
	}
}

static void hole_puncher(void *arg)
{
	unsigned page = (unsigned)sim_random(stage.pages);

	(void)arg;
	stage_punch(page * stage.words_per_page,
		    (1 + (unsigned)sim_random(stage.pages - page)) *
			    stage.words_per_page);
	if (variant & 8)
		stage_punch(word_of_page(page), 1);
	if (variant & 16)
		stage_allocate(word_of_page(page), stage.words_per_page / 2);
}

/*
 * The disk has room for a part of what is stored. Whoever was let through is on it
 * after a sync, which no full disk may spoil.
 */
static void enospc_at_mkwrite(void)
{
	static const struct role roles[] = {
		{ "storer-1", hole_storer }, { "storer-2", hole_storer },
		{ "syncer", syncer },
	};

	set_up(4, sim_random(2) ? 0 : 3 + (unsigned)sim_random(3));
	/* A load that must be mapped writable for a moment cannot be refused. */
	stage_fill_disk((unsigned)sim_random(3), stage_options.old_kernel ? 64 :
			(unsigned)sim_random(3 * stage.page / SIM_BLOCK));
	play_roles(roles, 2 + (variant & 1));
	stage_close();
}

/* What a punch left is not to come back by a reservation. */
static void mkwrite_vs_punch(void)
{
	static const struct role roles[] = {
		{ "storer", hole_storer }, { "puncher", hole_puncher },
		{ "syncer", syncer },
	};

	set_up(4, sim_random(2) ? 0 : 3 + (unsigned)sim_random(3));
	stage_fill_disk(0, 64);
	stage.may_lack_space = false;
	play_roles(roles, 2 + (variant & 1));
	stage_close();
}

/* ---- mappings that go, disks that fail ---------------------------------- */

static void remapper(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_remap(map1, sim_random(2), sim_random(2));
}

static void map1_toucher(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2 * rounds; i++) {
		if (variant & 1)
			stage_store(map1, word_of_page((unsigned)sim_random(2)));
		stage_load(map1, word_of_page((unsigned)sim_random(2)));
	}
}

/* What the role does to a mapping that others use meanwhile. */
static void play_vanishing(struct role role)
{
	const struct role roles[] = {
		role, { "toucher-1", map1_toucher },
		{ "toucher-2", map1_toucher }, { "syncer", syncer },
		{ "puncher", puncher },
	};

	set_up(2, 0);
	stage.may_vanish = true;
	play_roles(roles, 3 + (variant >> 1) % 3);
	stage_close();
}

static void unmap_vs_fault(void)
{
	play_vanishing((struct role){ "remapper", remapper });
}

static void mover(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_move(map1, (unsigned)sim_random(3));
}

static void remap_vs_fault(void)
{
	play_vanishing((struct role){ "mover", mover });
}

static void sealer(void *arg)
{
	(void)arg;
	stage_seal(map1);
}

static void whole_mover(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_move(map1, 0);
}

static void remap_vs_protect(void)
{
	static const struct role roles[] = {
		{ "mover", whole_mover }, { "sealer", sealer },
		{ "toucher", map1_toucher }, { "syncer", syncer },
		{ "puncher", puncher },
	};

	set_up(2, 0);
	stage.may_vanish = true;
	play_roles(roles, 3 + (variant >> 1) % 3);
	stage_check_sealed(map1);
	stage_close();
}

/* ---- reclaim ------------------------------------------------------------ */

static void roamer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 8; i++) {
		unsigned w = word_of_page((unsigned)sim_random(stage.pages));

		switch (sim_random(6)) {
		case 0:
			stage_store(map0, w);
			break;
		case 1:
			stage_read(w, 1, 0);
			break;
		case 2:
			stage_write(w, 1, 0);
			break;
		default:
			stage_load(map1, w);
			break;
		}
	}
}

static void reclaim_vs_fault(void)
{
	static const struct role roles[] = {
		{ "roamer-1", roamer }, { "roamer-2", roamer },
		{ "roamer-3", roamer },
	};

	set_up(6, 2 + (unsigned)sim_random(3));
	play_roles(roles, 2 + (variant & 1));
	stage_close();
}

/* ---- mixed -------------------------------------------------------------- */

static void some_operation(void)
{
	unsigned w = word_of_page((unsigned)sim_random(stage.pages));
	unsigned n = 1 + (unsigned)sim_random(stage.words - w);
	unsigned b = w & ~(SIM_BLOCK / 8 - 1);
	unsigned bn = SIM_BLOCK / 8 * (1 + (unsigned)sim_random((stage.words - b) /
								(SIM_BLOCK / 8)));
	unsigned map = sim_random(2) ? map0 : map1;

	switch (sim_random(20)) {
	case 0:
		stage_read(w, n, 0);
		break;
	case 1:
		stage_read(b, bn, MKW_DIRECT);
		break;
	case 2:
		stage_write(w, n, 0);
		break;
	case 3:
		stage_write(b, bn, MKW_DIRECT);
		break;
	case 4:
		stage_punch(w, n);
		break;
	case 5:
		stage_punch(0, stage.words_per_page);
		break;
	case 6:
		stage_zero(w, n);
		break;
	case 7:
		stage_sync();
		break;
	case 8:
		stage_allocate(w, n);
		break;
	case 9:
		stage_read(w, n, MKW_NOWAIT | (sim_random(2) && w == b && !(n % 2) ?
						       MKW_DIRECT : 0));
		break;
	case 10:
		stage_write(w, n, MKW_NOWAIT);
		break;
	case 11:
		stage_resident();
		break;
	case 12:
		stage_seek();
		break;
	case 13: case 14: case 15:
		stage_store(map, w);
		break;
	default:
		stage_load(map, w);
		break;
	}
}

static void mixer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 6; i++)
		some_operation();
}

/* Writes whole pages, so that the file never ends inside one. */
static void page_writer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 6; i++) {
		unsigned page = (unsigned)sim_random(stage.pages);

		switch (sim_random(4)) {
		case 0:
			stage_write(page * stage.words_per_page,
				    stage.words_per_page,
				    sim_random(2) ? MKW_DIRECT : 0);
			break;
		case 1:
			stage_read(page * stage.words_per_page,
				   stage.words_per_page,
				   sim_random(2) ? MKW_DIRECT : 0);
			break;
		case 2:
			stage_store(map0, word_of_page(page));
			break;
		default:
			stage_load(map1, word_of_page(page));
			break;
		}
	}
}

static void mixed_truncater(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2; i++) {
		stage_load(map0, word_of_page(0));
		stage_truncate(stage.words_per_page *
			       (unsigned)sim_random(stage.pages));
		stage_load(map1, word_of_page(1));
		stage_truncate(stage.words);
	}
}

static void mixed(void)
{
	static const struct role roles[] = {
		{ "mixer-1", mixer }, { "mixer-2", mixer }, { "mixer-3", mixer },
		{ "mixer-4", mixer },
	};

	/* A plentiful cache, or one that holds less than an operation. */
	set_up(4, sim_random(2) ? 0 : 2 + (unsigned)sim_random(3));
	play_roles(roles, 3 + (variant & 1));
	stage_close();
}

/* One read and one write of the disk fail, sometime. */
static void disk_fails(void)
{
	static const struct role roles[] = {
		{ "roamer-1", roamer }, { "roamer-2", roamer },
		{ "syncer", syncer }, { "write-puncher", write_puncher },
	};

	set_up(6, sim_random(2) ? 0 : 2 + (unsigned)sim_random(3));
	if (variant & 4)
		stage_open_other();
	stage_break_disk(1 + (unsigned)sim_random(4), 1 + (unsigned)sim_random(4),
			 (unsigned)sim_random(3),
			 sim_random(4) ? 0 : 1 + (unsigned)sim_random(2));
	play_roles(roles, 3 + (variant & 1));
	stage_close();
}

static void failing_puncher(void *arg)
{
	(void)arg;
	stage_punch(0, 2 * stage.words_per_page);
	/* What is there now stays, however much of it the disk has lost. */
	stage_load(map0, word_of_page(0));
}

static void neighbour(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_store(map1, 2 * stage.words_per_page + 1);
}

/*
 * A punch that fails has taken blocks, and leaves its page dirty; meanwhile blocks are
 * made for the hole beside it, and what of them is left over is given back.
 */
static void failed_punch_vs_credit(void)
{
	static const struct role roles[] = {
		{ "puncher", failing_puncher }, { "storer", neighbour },
		{ "syncer", syncer },
	};

	stage_open(4, 0);
	map0 = stage_map_any();
	map1 = stage_map_any();
	rounds = 1 + (unsigned)sim_random(3);
	stage_punch(2 * stage.words_per_page, 2 * stage.words_per_page);
	stage_load(map0, 0);
	stage_load(map0, stage.words_per_page);
	stage_break_disk(0, 0, 1, 0);
	stage.only_writes_fail = true;
	play_roles(roles, 3);
	stage_close();
}

/* Some pages cannot be written, for a while; then all that was stored is there. */
static void error_at_writeback(void)
{
	static const struct role roles[] = {
		{ "roamer-1", roamer }, { "syncer", syncer },
		{ "roamer-2", roamer },
	};
	bool plenty = sim_random(2);
	unsigned bad;

	set_up(6, plenty ? 0 : 4 + (unsigned)sim_random(3));
	bad = (unsigned)sim_random(5);
	stage_bad_pages(bad, bad + 1 + (unsigned)sim_random(6 - bad));
	/* A cache full of them has no frame for a load. */
	stage.only_writes_fail = plenty;
	play_roles(roles, 2 + (variant & 1));
	stage_close();
}

static void range_syncer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2 * rounds; i++) {
		unsigned page = (unsigned)sim_random(stage.pages);

		stage_sync_range(page * stage.words_per_page,
				 stage.words_per_page *
					 (1 + (unsigned)sim_random(stage.pages - page)),
				 sim_random(2) ? MKW_SYNC_NOFLUSH : 0);
	}
}

static void sync_range_vs_store(void)
{
	static const struct role roles[] = {
		{ "range-syncer", range_syncer }, { "toucher", far_toucher },
		{ "syncer", syncer },
	};

	/* Nobody who changes the disk first and then what is cached. */
	set_up(3, sim_random(2) ? 0 : 3);
	variant |= 1;
	play_roles(roles, 2 + (variant >> 1 & 1));
	stage_close();
}

static void adviser(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2 * rounds; i++) {
		unsigned page = (unsigned)sim_random(2);

		stage_dontneed(page * stage.words_per_page,
			       stage.words_per_page * (1 + (unsigned)sim_random(2 - page)));
	}
}

static void advice_vs_fault(void)
{
	static const struct role roles[] = {
		{ "adviser", adviser }, { "toucher", far_toucher },
		{ "reader", reader }, { "writer", direct_writer },
	};

	set_up(2, 0);
	play_roles(roles, 2 + (variant >> 2) % 3);
	stage_close();
}

/* Writes of one or two pages, the caller's memory ending somewhere within. */
static void bad_writer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		unsigned n = stage.words_per_page * (1 + (unsigned)sim_random(2));
		unsigned good = 1 + (unsigned)sim_random(n - 1);

		stage_write_bad(0, n, good);
		stage_load(map1, (unsigned)sim_random(good));
	}
}

static void bad_buffer(void)
{
	static const struct role roles[] = {
		{ "writer", bad_writer }, { "adviser", adviser },
		{ "toucher", far_toucher }, { "syncer", syncer },
	};

	set_up(2, 0);
	play_roles(roles, 2 + (variant >> 2) % 3);
	stage_close();
}

static unsigned bad_page, bad_end;

static void discarder(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_discard(bad_page * stage.words_per_page,
			      (bad_end - bad_page) * stage.words_per_page);
}

/*
 * What the disk has of a bad page stays; page 0, which may be dirty, is none. Pages
 * that failed beside a bad one may be discarded, too, with anything on the disk:
 * while others are at work only bad ones are.
 */
static void discard_vs_store(void)
{
	static const struct role roles[] = {
		{ "discarder", discarder }, { "roamer-1", roamer },
		{ "syncer", syncer }, { "roamer-2", roamer },
	};

	set_up(4, 0);
	bad_page = 1 + (unsigned)sim_random(3);
	bad_end = bad_page + 1 + (unsigned)sim_random(4 - bad_page);
	stage_bad_pages(bad_page, bad_end);
	play_roles(roles, 3 + (variant & 1));
	if (variant & 2)
		stage_discard_all();
	stage_close();
}

/* A disk that cannot be read, or is full, until the file's callback is asked. */
static void error_callback(void)
{
	static const struct role roles[] = {
		{ "storer", hole_storer }, { "toucher", far_toucher },
		{ "syncer", syncer },
	};
	bool reads_fail;

	set_up(4, 0);
	reads_fail = variant & 8;
	if (!reads_fail)
		stage_fill_disk(0, stage_options.old_kernel ? 64 :
				(unsigned)sim_random(4));
	stage_answer(reads_fail);
	play_roles(roles, 2 + (variant >> 1 & 1));
	stage_close();
}

/* Page 1 is changed elsewhere. */
static void changer(void *arg)
{
	unsigned n = stage.words_per_page;

	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		if (variant & 16)
			stage_change_elsewhere(n, n, n, n, MKW_INVALIDATE_DISCARD);
		else if (variant & 4)
			stage_change_elsewhere(n, n, 0, stage.words, 0);
		else
			stage_change_elsewhere(n, n - (variant & 1), n, n, 0);
		stage_load(map1, word_of_page(1));
	}
}

static void near_toucher(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2 * rounds; i++) {
		unsigned page = (unsigned)sim_random(stage.pages);

		if (sim_random(2) && (page != 1 || variant & 16))
			stage_store(map0, word_of_page(page));
		stage_load(map0, word_of_page(1));
	}
}

/* By the cache: what a direct read sees while a fill is under way may be newer. */
static void near_reader(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_read(stage.words_per_page, stage.words_per_page, 0);
}

/*
 * The engine has written to page 1 at no time, or, where what is dirty is discarded,
 * may not: what somebody else writes there stays.
 */
static void invalidate_vs_fault(void)
{
	static const struct role roles[] = {
		{ "changer", changer }, { "toucher", near_toucher },
		{ "reader", near_reader }, { "syncer", syncer },
	};

	set_up(3, 0);
	if (sim_random(2))
		stage_load(map1, word_of_page(1));
	if (variant & 16)
		stage_bad_pages(1, 2);
	play_roles(roles, 2 + (variant >> 2) % 3);
	stage_close();
}

static void stretcher(void *arg)
{
	(void)arg;
	stage_load(map1, word_of_page(0));
	stage_stretch();
}

/* Somebody else changes the file's length: each handle is told once. */
static void length_changed(void)
{
	static const struct role roles[] = {
		{ "stretcher", stretcher }, { "syncer-1", syncer },
		{ "storer", storer }, { "syncer-2", syncer },
	};

	set_up(2, 0);
	if (variant & 4)
		stage_open_other();
	play_roles(roles, 2 + (variant & 3) % 3);
	stage_unstretch();
	stage_close();
}

static void mixed_truncate(void)
{
	static const struct role roles[] = {
		{ "truncater", mixed_truncater }, { "writer-1", page_writer },
		{ "writer-2", page_writer },
	};

	set_up(4, sim_random(2) ? 0 : 2 + (unsigned)sim_random(3));
	stage.may_end_short = true;
	play_roles(roles, 2 + (variant & 1));
	stage_close();
}

/* ---- bytes that move ------------------------------------------------------ */

/*
 * One page is taken out, or room is made for one, at the beginning, while others
 * store to the page that moves, a word each. The history of a word cannot say what
 * is right then, so it is judged here: a store was before, and has moved along, or
 * after, and has not; and no load sees the new state before an older one. What
 * there is at the end is where the words' histories begin anew.
 */
#define MOVE_EVENTS 32u

struct event {
	unsigned word;
	uint64_t value, start, end;
};

static struct {
	bool out;
	unsigned from, to;		/* first words of the moving page */
	struct event shift, stores[4], loads[MOVE_EVENTS];
	unsigned n_stores, n_loads;
	uint64_t now[4 * SIM_WORDS_MAX];
} moving;

static void shifter(void *arg)
{
	int r;

	(void)arg;
	sim_step(moving.out ? "collapses page 0" : "inserts a page", 0, 0, 0);
	moving.shift.start = sim_tick();
	r = mkw_fallocate(stage.file, moving.out ? FALLOC_FL_COLLAPSE_RANGE :
						   FALLOC_FL_INSERT_RANGE,
			  (off_t)stage.base, (off_t)stage.page);
	moving.shift.end = sim_tick();
	if (r)
		sim_violation("moving a page returned %d", r);
}

static void see(unsigned word, uint64_t value, uint64_t start)
{
	if (moving.n_loads < MOVE_EVENTS)
		moving.loads[moving.n_loads++] = (struct event){
			word, value, start, sim_tick() };
}

static void move_storer(void *arg)
{
	unsigned k = moving.n_stores++;
	struct event *s = &moving.stores[k];
	uint64_t v;

	(void)arg;
	*s = (struct event){ .word = k, .value = 0xb000u + k };
	sim_step("stores %llx to word %llu of the page that moves", s->value, k, 0);
	s->start = sim_tick();
	if (sim_store(stage.map[map0] + (moving.from + k) * 8, s->value) != SIM_OK)
		sim_violation("a store within the file gets a signal");
	s->end = sim_tick();
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t start = sim_tick();

		if (sim_load(stage.map[map1] + (moving.to + k) * 8, &v) != SIM_OK)
			sim_violation("a load within the file gets a signal");
		see(moving.to + k, v, start);
	}
}

static void move_reader(void *arg)
{
	uint64_t start = sim_tick(), v[2];

	(void)arg;
	if (mkw_pread(stage.file, v, sizeof(v),
		      (off_t)(stage.base + moving.to * 8),
		      variant & 2 ? MKW_DIRECT : 0) != (ssize_t)sizeof(v))
		sim_violation("a read within the file is short");
	see(moving.to, v[0], start);
	see(moving.to + 1, v[1], start);
}

/* What the word holds when nobody has stored to it. */
static uint64_t moved_value(unsigned word)
{
	if (moving.out)
		return STAGE_OLD + word + stage.words_per_page;
	return word < stage.words_per_page ? 0 :
					     STAGE_OLD + word - stage.words_per_page;
}

static void judge_store(const struct event *s)
{
	uint64_t *to = &moving.now[moving.to + s->word];
	uint64_t *from = &moving.now[moving.from + s->word];

	if (*to == s->value && *from != s->value &&
	    s->start < moving.shift.end)
		*to = moved_value(moving.to + s->word);
	else if (*from == s->value && *to != s->value &&
		 s->end > moving.shift.start)
		*from = moved_value(moving.from + s->word);
	else
		sim_violation("the store of %llx was %s: word %u holds %llx, word %u, where it moves, %llx",
			      (unsigned long long)s->value,
			      s->end < moving.shift.start ? "before the move" :
			      s->start > moving.shift.end ? "after the move" :
							    "during the move",
			      moving.from + s->word, (unsigned long long)*from,
			      moving.to + s->word, (unsigned long long)*to);
}

static void judge_move(void)
{
	size_t size = (size_t)mkw_size(stage.file) - stage.base;

	if (size != (stage.pages + 1 - 2 * moving.out) * stage.page)
		sim_violation("after the move the file has %zu bytes", size);
	if (mkw_pread(stage.file, moving.now, size, (off_t)stage.base, 0) !=
	    (ssize_t)size)
		sim_violation("after the move the file cannot be read");
	for (unsigned i = 0; i < moving.n_loads; i++) {
		const struct event *l = &moving.loads[i];

		if ((l->value == STAGE_OLD + l->word &&
		     l->start < moving.shift.end) ||
		    (l->value == moving.now[l->word] &&
		     l->end > moving.shift.start))
			continue;
		sim_violation("word %u, which a page moves to, was seen as %llx: it held %x, and holds %llx after",
			      l->word, (unsigned long long)l->value,
			      STAGE_OLD + l->word,
			      (unsigned long long)moving.now[l->word]);
	}
	sim_history_reset(stage.words < SIM_WORDS_MAX ? stage.words : SIM_WORDS_MAX,
			  moving.now);
	for (unsigned i = 0; i < moving.n_stores; i++)
		judge_store(&moving.stores[i]);
	for (unsigned w = 0; w < size / 8; w++)
		if (moving.now[w] != moved_value(w))
			sim_violation("after the move word %u holds %llx, not %llx", w,
				      (unsigned long long)moving.now[w],
				      (unsigned long long)moved_value(w));
}

static void play_move(bool out)
{
	static const struct role roles[] = {
		{ "shifter", shifter }, { "storer-1", move_storer },
		{ "storer-2", move_storer }, { "syncer", syncer },
		{ "reader", move_reader },
	};

	stage_open(3, sim_random(2) ? 0 : 3);
	map0 = stage_map_any();
	map1 = stage_map_any();
	variant = (unsigned)sim_random(64);
	rounds = 1 + (unsigned)sim_random(3);
	memset(&moving, 0, sizeof(moving));
	moving.out = out;
	moving.from = out ? stage.words_per_page : 0;
	moving.to = out ? 0 : stage.words_per_page;
	if (stage.words_per_page * 4 > sizeof(moving.now) / 8)
		sim_violation("scenario: pages of %zu bytes are too large",
			      stage.page);
	if (variant & 4)
		stage_load(map0, moving.from);
	if (variant & 8)
		stage_read(0, stage.words, 0);
	play_roles(roles, 2 + (variant >> 4));
	judge_move();
	stage_close();
}

static void collapse_vs_store(void)
{
	play_move(true);
}

static void insert_vs_store(void)
{
	play_move(false);
}

/* ---- crashes, and patience ---------------------------------------------- */

/* Sometime the machine stops: what is on the disk then? */
static void crash(void)
{
	static const struct role roles[] = {
		{ "syncer", syncer }, { "roamer", roamer },
		{ "puncher", write_puncher }, { "truncater", mixed_truncater },
		{ "writer", direct_writer },
	};

	set_up(3, sim_random(2) ? 0 : 3);
	stage.may_end_short = true;
	stage_watch();
	/* Who truncates is alone with those who write within the file. */
	if (variant & 1)
		play_roles(roles, 3);
	else
		play_roles((struct role[]){ roles[0], roles[4], roles[3] }, 3);
	stage_close();
}

/* Holes and ends that cut a block, of which the rest was stored to. */
static void edge_cutter(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i <= rounds; i++) {
		stage_store(map0, 0);
		if (variant & 4)
			stage_store(map0, 1);
		if (variant & 1) {
			stage_truncate(1);
			stage_truncate(stage.words);
		} else if (variant & 2) {
			stage_punch(1, stage.words_per_page - 1);
		} else {
			stage_zero(1, stage.words_per_page);
		}
	}
}

static void neighbour_storer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		stage_store(map0, 2 + (unsigned)sim_random(stage.words_per_page - 2));
}

static void crash_vs_edge(void)
{
	static const struct role roles[] = {
		{ "cutter", edge_cutter }, { "syncer", syncer },
		{ "storer", neighbour_storer },
	};

	stage_open(2, sim_random(2) ? 0 : 2);
	map0 = stage_map_any();
	variant = (unsigned)sim_random(64);
	rounds = 1 + (unsigned)sim_random(3);
	stage_own(0);
	stage_watch();
	/* Who truncates is alone. */
	play_roles(roles, variant & 1 ? 2 : 3);
	stage_close();
}

/* Both words of a block, in this order: no crash may show the second alone. */
static void block_storer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 4 * rounds; i++)
		stage_store(map0, i % 2);
}

static void crash_vs_store(void)
{
	static const struct role roles[] = {
		{ "storer", block_storer }, { "syncer", syncer },
		{ "loader", loader },
	};

	stage_open(1, 0);
	map0 = stage_map_any();
	variant = (unsigned)sim_random(64);
	rounds = 1 + (unsigned)sim_random(3);
	stage_own(0);
	stage_watch();
	play_roles(roles, 2 + (variant & 1));
	stage_close();
}

#define PATIENCE 36u	/* faults; an engine gives a grace after less */

static bool patient_done;

static void patient(void *arg)
{
	(void)arg;
	if (variant & 1)
		stage_store(map0, 0);
	else
		stage_load(map0, 0);
	patient_done = true;
}

/* Takes its page away again and again, for as long as it waits. */
static void tormentor(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 44 && !patient_done; i++)
		if (variant & 2)
			stage_punch(0, stage.words_per_page);
		else
			stage_zero(0, stage.words_per_page);
}

static void starvation(void)
{
	static const struct role roles[] = {
		{ "patient", patient }, { "tormentor", tormentor },
	};

	set_up(2, 0);
	patient_done = false;
	sim_patience(PATIENCE);
	play_roles(roles, 2);
	sim_patience(UINT_MAX);
	stage_close();
}

static void writeback_vs_direct_write(void)
{
	static const struct role roles[] = {
		{ "syncer", syncer }, { "writer", direct_writer },
		{ "storer", storer },
	};

	set_up(2, 0);
	stage_store(map0, word_of_page(0));
	play_roles(roles, 2 + !(variant & 12));
	stage_close();
}

/* ---- reads without locks ------------------------------------------------- */

/*
 * Each reads the same twice at least: a glance (core/glance.c) needs a read before it
 * that has seen the buffer and found the page.
 */
static void glancer(void *arg)
{
	unsigned word = variant & 1 ? stage.words_per_page / 2 : 0;
	unsigned n = variant & 2 ? stage.words - word :
				   stage.words_per_page / 2 + 1;

	(void)arg;
	for (unsigned i = 0; i < 2 + rounds; i++)
		stage_read(word, n, 0);
}

static void part_writer(void *arg)
{
	unsigned half = stage.words_per_page / 2;

	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		if (variant & 4)
			stage_write(0, stage.words, some_way());
		else
			stage_write(half & ~(SIM_BLOCK / 8 - 1),
				    SIM_BLOCK / 8 * 2, some_way());
}

static void glance_vs_write(void)
{
	static const struct role roles[] = {
		{ "glancer-1", glancer }, { "writer", part_writer },
		{ "glancer-2", glancer }, { "syncer", syncer },
	};

	set_up(2, sim_random(2) ? 0 : 2);
	stage_read(0, stage.words, 0);
	play_roles(roles, 2 + (variant >> 3) % 3);
	stage_close();
}

static void taker(void *arg)
{
	(void)arg;
	switch (variant >> 3 & 3) {
	case 0:
		stage_zero(0, stage.words_per_page);
		break;
	case 1:
		stage_truncate(stage.words_per_page);
		stage_truncate(stage.words);
		break;
	default:
		stage_punch(0, stage.words_per_page * (1 + (variant & 1)));
		break;
	}
	stage_load(map1, word_of_page(0));
}

static void glance_vs_punch(void)
{
	static const struct role roles[] = {
		{ "glancer-1", glancer }, { "taker", taker },
		{ "glancer-2", glancer }, { "storer", storer },
	};

	set_up(2, 0);
	stage.may_end_short = true;
	stage_read(0, stage.words, 0);
	play_roles(roles, 2 + (variant >> 4) % 3);
	stage_close();
}

/* Reads pages that there is room for, but not for those of all. */
static void page_glancer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2 * rounds; i++) {
		unsigned page = (unsigned)sim_random(stage.pages);

		for (unsigned k = 0; k < 3; k++)
			stage_read(page * stage.words_per_page,
				   stage.words_per_page, 0);
	}
}

static void glance_vs_reclaim(void)
{
	static const struct role roles[] = {
		{ "glancer-1", page_glancer }, { "glancer-2", page_glancer },
		{ "storer", far_toucher }, { "syncer", syncer },
	};

	set_up(6, 2 + (unsigned)sim_random(3));
	play_roles(roles, 2 + (variant >> 4) % 3);
	stage_close();
}

/* ---- pins --------------------------------------------------------------- */

/* Makes the pinned page one of many, in a cache of few. */
static void crowd(void)
{
	for (unsigned i = 0; i < 2 * rounds && stage.pages > 1; i++) {
		unsigned w = word_of_page(1 + (unsigned)sim_random(stage.pages - 1));

		if (sim_random(2))
			stage_store(map0, w);
		stage_load(map1, w);
	}
}

static void device(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		if (sim_random(2))
			stage_device_store(map0, word_of_page(0));
		else
			stage_device_load(map1, word_of_page(0), crowd);
}

static void pin_taker(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		if (variant & 4)
			stage_write(block_of_page(0), SIM_BLOCK / 8, MKW_DIRECT);
		else if (variant & 8)
			stage_zero(0, stage.words_per_page);
		else
			stage_punch(0, stage.words_per_page);
		stage_load(map1, word_of_page(0));
	}
}

static void pin_vs_punch(void)
{
	static const struct role roles[] = {
		{ "device", device }, { "taker", pin_taker }, { "toucher", toucher },
		{ "device-2", device },
	};

	set_up(1, 0);
	play_roles(roles, 2 + variant % 3);
	stage_close();
}

static void pin_vs_writeback(void)
{
	static const struct role roles[] = {
		{ "device", device }, { "syncer", syncer }, { "storer", storer },
		{ "syncer-2", syncer },
	};

	set_up(1, 0);
	play_roles(roles, 2 + variant % 3);
	stage_close();
}

static void pin_crowd(void *arg)
{
	(void)arg;
	crowd();
}

static void pin_vs_reclaim(void)
{
	static const struct role roles[] = {
		{ "device", device }, { "crowd", pin_crowd }, { "toucher", toucher },
		{ "crowd-2", pin_crowd },
	};

	set_up(5, 3);
	play_roles(roles, 2 + variant % 3);
	stage_close();
}

/* ---- queues -------------------------------------------------------------- */

#define QUEUE_PAGES 2u	/* whose words are the requests' alone */

static unsigned queue_word, queue_threads;
static bool queue_shared;	/* the words are everybody's */
static bool queue_into;		/* the last page is read into the mapping of the one before */

/* A block that no request has written yet; n: of all of them. */
static unsigned fresh_block(void)
{
	unsigned word = queue_word;

	queue_word += SIM_BLOCK / 8;
	return word;
}

static unsigned few_words(void)
{
	return stage.words_per_page < 8 ? stage.words_per_page : 8;
}

/* Full: fetches a result first. */
static void submit(enum mkw_op op, unsigned word, unsigned n, unsigned flags,
		   unsigned order)
{
	while (!stage_submit(op, word, n, flags, order))
		stage_reap();
}

/* An event loop: submits, fetches, and in between the queue may be full. */
static void queue_loop(void *arg)
{
	(void)arg;
	if (queue_into)
		stage_submit_into(map0, QUEUE_PAGES * stage.words_per_page,
				  (QUEUE_PAGES + 1) * stage.words_per_page,
				  SIM_BLOCK / 8);
	for (unsigned i = 0; i <= rounds; i++) {
		for (unsigned k = 0; k < 1 + sim_random(2); k++)
			submit(MKW_OP_WRITE, queue_shared ? block_of_page(0) :
			       fresh_block(), SIM_BLOCK / 8,
			       sim_random(2) ? MKW_DIRECT : 0,
			       sim_random(4) ? 0 : MKW_ORDER_BARRIER);
		switch (sim_random(4)) {
		case 0:
			submit(MKW_OP_SYNC_RANGE, 0, 0, 0, MKW_ORDER_BARRIER);
			break;
		case 1:
			submit(MKW_OP_PREFETCH, 0, few_words(), 0, 0);
			break;
		case 2:
			submit(queue_shared ? MKW_OP_FALLOCATE : MKW_OP_SYNC, 0,
			       queue_shared ? few_words() : 0, queue_shared ?
			       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0, 0);
			break;
		default:
			submit(MKW_OP_SYNC, 0, 0, 0, MKW_ORDER_BARRIER);
		}
		submit(MKW_OP_READ, 0, few_words(), sim_random(4) ? 0 : MKW_DIRECT,
		       sim_random(4) ? 0 : MKW_ORDER_BARRIER);
	}
	while (stage_reaped() < stage_submitted())
		stage_reap();
}

/* Requests of another thread. */
static void queue_submitter(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2; i++)
		stage_submit(sim_random(4) ? MKW_OP_READ : MKW_OP_SYNC,
			     0, few_words(), 0, 0);
}

static void queue_canceller(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 2 * rounds; i++)
		stage_cancel((unsigned)sim_random(stage_submitted() + 1));
}

static void queue_closer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 1 + rounds; i++)
		submit(MKW_OP_WRITE, fresh_block(), SIM_BLOCK / 8, 0,
		       sim_random(3) ? 0 : MKW_ORDER_BARRIER);
	if (variant & 8)
		stage_reap();
}

/* A write that waits for the thaw, which comes with the result of the read. */
static void queue_freezer(void *arg)
{
	unsigned read;

	(void)arg;
	stage_set_frozen(true);
	submit(MKW_OP_WRITE, fresh_block(), SIM_BLOCK / 8, 0, 0);
	if (variant & 8)
		submit(MKW_OP_SYNC, 0, 0, 0, MKW_ORDER_BARRIER);
	submit(MKW_OP_READ, 0, few_words(), MKW_DIRECT, 0);
	read = stage_submitted() - 1;
	if (variant & 8)
		stage_cancel(1);
	while (stage_reaped() < read)
		stage_reap();
	stage_set_frozen(false);
	while (stage_reaped() < stage_submitted())
		stage_reap();
}

static void page2_toucher(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++) {
		stage_store(map0, word_of_page(QUEUE_PAGES));
		stage_load(map1, word_of_page(QUEUE_PAGES));
	}
}

static void set_up_queue(unsigned pages, bool alone)
{
	stage_open(pages, sim_random(2) ? 0 : 2);
	map0 = stage_map_any();
	map1 = stage_map_any();
	variant = (unsigned)sim_random(64);
	rounds = 1 + (unsigned)sim_random(2);
	queue_word = 0;
	queue_shared = !alone;
	queue_into = pages == QUEUE_PAGES + 2;
	/* Room for all, where somebody submits who does not fetch. */
	queue_threads = 1 + (unsigned)sim_random(3);
	stage_queue_open(variant & 1 ? 0 : 3 + (unsigned)sim_random(3),
			 queue_threads, alone);
	if (variant & 16)
		stage_read(0, few_words(), 0);
}

static void queue_order(void)
{
	static const struct role roles[] = {
		{ "loop", queue_loop }, { "submitter", queue_submitter },
		{ "toucher", page2_toucher }, { "syncer", syncer },
	};

	set_up_queue(QUEUE_PAGES + 1 + (unsigned)sim_random(2), true);
	play_roles(variant & 1 ? roles : (struct role[]){ roles[0], roles[2], roles[3] },
		   2 + (variant & 2) / 2);
	stage_queue_close();
	stage_close();
}

static void queue_cancel(void)
{
	static const struct role roles[] = {
		{ "loop", queue_loop }, { "canceller", queue_canceller },
		{ "closer", queue_closer }, { "freezer", queue_freezer },
	};

	set_up_queue(QUEUE_PAGES + 1, true);
	if (variant & 4)
		play_roles(&roles[2 + (queue_threads > 1 && (variant & 2))], 1);
	else
		play_roles(roles, 2);
	stage_queue_close();
	stage_close();
}

static void queue_vs_punch(void)
{
	static const struct role roles[] = {
		{ "loop", queue_loop }, { "toucher", toucher },
		{ "puncher", puncher }, { "reader", reader },
	};

	set_up_queue(QUEUE_PAGES, false);
	play_roles(roles, 2 + (variant >> 2) % 3);
	stage_queue_close();
	stage_close();
}

/* ---- access ------------------------------------------------------------- */

static void protector(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i <= rounds; i++) {
		unsigned page = (unsigned)sim_random(2);

		stage_protect(map0, page, page + 1 + (unsigned)sim_random(2 - page),
			      sim_random(3) ? PROT_READ : PROT_NONE);
	}
}

static void protect_vs_fault(void)
{
	static const struct role roles[] = {
		{ "protector", protector }, { "toucher", far_toucher },
		{ "syncer", syncer }, { "storer", storer }, { "puncher", puncher },
	};

	set_up(2, 0);
	stage.may_vanish = true;
	play_roles(roles, 3 + variant % 3);
	stage_close();
}

/* ---- MKW_ATOMIC_WRITES --------------------------------------------------- */

/*
 * Who changes several words at once, in any way, amid the first two pages. n: at least
 * two blocks, so that a part of it could show.
 */
static void change_whole(void)
{
	unsigned block = SIM_BLOCK / 8;
	unsigned blocks = stage.words_per_page / block * (1 + (unsigned)sim_random(2));
	unsigned n = 2 + (unsigned)sim_random(blocks - 1);
	unsigned word = (unsigned)sim_random(blocks - n + 1) * block;

	n *= block;
	/* Beside a page that is left alone. */
	if (word + n <= stage.words_per_page && sim_random(2))
		word += stage.words_per_page;
	switch (sim_random(6)) {
	case 0:
		stage_punch(word, n);
		break;
	case 1:
		stage_zero(word, n);
		break;
	case 2:
		stage_write(word, n, MKW_DIRECT);
		break;
	default:
		stage_write(word + 1, n - 1, 0);
		break;
	}
}

static void wholes(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < rounds; i++)
		change_whole();
}

/* Out of a mapping, over a part of its own source, which is as at first. */
static void self_whole(void *arg)
{
	unsigned half = stage.words_per_page / 2;

	stage_write_from(map1, stage.words_per_page, half, stage.words_per_page,
			 some_way());
	wholes(arg);
}

/* Cuts the first page in its midst; and what was cut off comes back in appends. */
static void cut_and_append(void *arg)
{
	unsigned left = 2 + (unsigned)sim_random(stage.words_per_page - 3);

	(void)arg;
	stage_truncate(left);
	if (variant & 8)
		stage_truncate(stage.words);
	else
		for (unsigned i = 0; i < 3; i++)
			stage_append(3);
}

#define PATIENT_LOADS 40u

/* A word and a later one of the first two pages, near it more often than not. */
static unsigned two_words(unsigned *second)
{
	unsigned n = 2 * stage.words_per_page;
	unsigned first = (unsigned)sim_random(n - 1), far = n - 1 - first;

	if (far > 3 && sim_random(3))
		far = 3;
	*second = first + 1 + (unsigned)sim_random(far);
	return first;
}

/* Loads two words in turn: what the one has shown the other may not deny. */
static void ordered_loader(void *arg)
{
	unsigned map = sim_random(2) ? map0 : map1;
	unsigned second, first = two_words(&second);

	(void)arg;
	for (unsigned i = 0; i < 3; i++) {
		stage_load(map, second);
		stage_await(map, first, PATIENT_LOADS);
		stage_load(map, second);
	}
}

static void pinned_loader(void *arg)
{
	(void)arg;
	stage_load(map0, word_of_page(0));
	stage_device_load(map1, word_of_page(1), NULL);
	stage_load(map0, word_of_page(0));
}

/* Stores to what a change to come would write over, if a load has shown that it has been. */
static void ordered_storer(void *arg)
{
	unsigned map = sim_random(2) ? map0 : map1;
	unsigned second, first = two_words(&second);

	(void)arg;
	for (unsigned i = 0; i < 3; i++) {
		stage_store(map, second);
		stage_await(map, first, PATIENT_LOADS);
		stage_store(map, second);
	}
}

/* frames: 0; or 1 or 2, so that there is no room for all that is changed at once. */
static void atomic_set_up(unsigned frames)
{
	stage_open(2, frames);
	stage_atomic();
	map0 = stage_map_any();
	map1 = sim_random(2) ? map0 : stage_map(sim_random(2), sim_random(4) != 0);
	variant = (unsigned)sim_random(64);
	rounds = 1 + (unsigned)sim_random(3);
	for (unsigned p = 0; p < 2; p++)
		if (sim_random(4))
			stage_load(sim_random(2) ? map0 : map1, word_of_page(p));
}

static void atomic_write_vs_load(void)
{
	unsigned frames = (unsigned)sim_random(3);
	struct role roles[] = {
		{ "loader-1", ordered_loader }, { "writer", wholes },
		{ "loader-2", ordered_loader }, { "syncer", syncer },
	};

	atomic_set_up(frames);
	if (variant & 1)
		roles[1].fn = self_whole;
	else if (variant & 2)
		roles[1].fn = cut_and_append;
	if (!frames && (variant & 4))
		roles[2].fn = pinned_loader;
	stage.may_end_short = roles[1].fn == cut_and_append;
	play_roles(roles, 2 + (variant >> 4) % 3);
	stage_close();
}

static void atomic_write_vs_store(void)
{
	static const struct role roles[] = {
		{ "storer-1", ordered_storer }, { "writer-1", wholes },
		{ "storer-2", ordered_storer }, { "syncer", syncer },
		{ "writer-2", wholes },
	};

	atomic_set_up((unsigned)sim_random(3));
	play_roles(roles, 2 + (variant >> 1) % 4);
	stage_close();
}

/* ---- the table ---------------------------------------------------------- */

const struct scenario scenarios[] = {
	{ "fault-vs-punch",
	  "a fault instantiates a page while it is punched (the race of 2012)",
	  fault_vs_punch, false },
	{ "fault-vs-truncate", "a fault while the file shrinks and grows again",
	  fault_vs_truncate, false },
	{ "fault-vs-direct-write", "a fault while the page is written past the cache",
	  fault_vs_direct_write, false },
	{ "store-vs-direct-write-same-page",
	  "stores next to the blocks of a direct write",
	  store_vs_direct_write, false },
	{ "writeback-vs-punch", "a dirty page is written back while it is punched",
	  writeback_vs_punch, false },
	{ "writeback-vs-store", "a dirty page is written back while it is stored to",
	  writeback_vs_store, false },
	{ "load-vs-store", "a cached page is mapped by a load while it is stored to",
	  load_vs_store, false },
	{ "direct-read-into-own-mapping",
	  "the buffer of a read is a mapping of the same file",
	  direct_read_into_own_mapping, false },
	{ "direct-write-from-own-mapping",
	  "the buffer of a write is a mapping of the same page",
	  direct_write_from_own_mapping, false },
	{ "crosswise-buffers", "two tasks, each with its buffer where the other works",
	  crosswise_buffers, false },
	{ "grow-vs-partial-page", "the file ends inside a page, and grows again",
	  grow_vs_partial_page, false },
	{ "writeback-vs-direct-write", "a dirty page is written back and written past",
	  writeback_vs_direct_write, false },
	{ "glance-vs-write", "reads without locks while what they read is written",
	  glance_vs_write, false },
	{ "glance-vs-punch",
	  "reads without locks while pages are punched, zeroed or cut off",
	  glance_vs_punch, false },
	{ "glance-vs-reclaim", "reads without locks while the cache makes room",
	  glance_vs_reclaim, false },
	{ "write-vs-read", "reads amid writes, all of the same words",
	  write_vs_read, false },
	{ "collapse-vs-store", "a page is taken out while the next is stored to",
	  collapse_vs_store, false },
	{ "insert-vs-store", "room is made before a page while it is stored to",
	  insert_vs_store, false },
	{ "freeze-vs-mkwrite", "stores while the file is frozen and thawed",
	  freeze_vs_mkwrite, false },
	{ "freeze-vs-write", "writes and punches while the file is frozen and thawed",
	  freeze_vs_write, false },
	{ "crash", "the machine stops, and the file is looked at",
	  crash, true },
	{ "crash-vs-edge", "a hole cuts a block, and the machine stops",
	  crash_vs_edge, true },
	{ "crash-vs-store", "a block is stored to while it is written, and the machine stops",
	  crash_vs_store, true },
	{ "remap-vs-fault", "faults in a mapping that moves, grows and shrinks",
	  remap_vs_fault, false },
	{ "remap-vs-protect", "a mapping moves while its access changes",
	  remap_vs_protect, false },
	{ "protect-vs-fault", "faults in a mapping whose access changes",
	  protect_vs_fault, false },
	{ "pin-vs-punch", "a device has a page that is pinned, and is to be taken away",
	  pin_vs_punch, false },
	{ "pin-vs-writeback", "a device writes to a pinned page that is dirty",
	  pin_vs_writeback, false },
	{ "pin-vs-reclaim", "a device has a page pinned in a cache that is too small",
	  pin_vs_reclaim, false },
	{ "queue-order", "asynchronous calls, barriers and syncs among them",
	  queue_order, false },
	{ "queue-cancel", "asynchronous calls that are cancelled, or closed upon",
	  queue_cancel, false },
	{ "queue-vs-punch", "asynchronous calls beside faults and punches of their pages",
	  queue_vs_punch, false },
	{ "atomic-write-vs-load",
	  "loads in order while several words are changed at once (MKW_ATOMIC_WRITES)",
	  atomic_write_vs_load, false },
	{ "atomic-write-vs-store",
	  "stores amid words that are changed at once (MKW_ATOMIC_WRITES)",
	  atomic_write_vs_store, false },
	{ "starvation", "a page is taken away for as long as somebody wants it",
	  starvation, false },
	{ "error-at-writeback", "some pages cannot be written for a while",
	  error_at_writeback, false },
	{ "append-vs-append", "each append gets a place of its own",
	  append_vs_append, false },
	{ "size-watched", "who watches the size is told of its last change",
	  size_watched, false },
	{ "enospc-at-mkwrite", "stores and writes into holes of a disk that gets full",
	  enospc_at_mkwrite, false },
	{ "mkwrite-vs-punch", "stores into holes that are punched again",
	  mkwrite_vs_punch, false },
	{ "unmap-vs-fault", "faults in a mapping that is unmapped",
	  unmap_vs_fault, false },
	{ "sync-range-vs-store", "a range is on the disk when a sync of it returns",
	  sync_range_vs_store, false },
	{ "advice-vs-fault", "pages leave the cache by advice while they are used",
	  advice_vs_fault, false },
	{ "bad-buffer", "a part of what is to be written cannot be read",
	  bad_buffer, false },
	{ "discard-vs-store", "what cannot be written is given up, and nothing else",
	  discard_vs_store, false },
	{ "invalidate-vs-fault", "what is cached was changed elsewhere",
	  invalidate_vs_fault, false },
	{ "error-callback", "accesses that fail ask first, and are made again",
	  error_callback, false },
	{ "length-changed", "somebody else makes the file longer",
	  length_changed, false },
	{ "disk-fails", "a read and a write of the disk fail",
	  disk_fails, false },
	{ "failed-punch-vs-credit", "a punch fails beside a hole that gets blocks",
	  failed_punch_vs_credit, false },
	{ "reclaim-vs-fault", "more pages in use than the cache holds",
	  reclaim_vs_fault, false },
	{ "mixed", "every operation, on four pages",
	  mixed, false },
	{ "mixed-truncate", "loads, stores, reads and writes while the size changes",
	  mixed_truncate, false },
};
const unsigned scenario_count = sizeof(scenarios) / sizeof(scenarios[0]);
