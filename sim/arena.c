/* SPDX-License-Identifier: MIT */
/*
 * arena.c: memory of the engine (mkw__os_zalloc(), mkw__os_reserve()) and of
 * the machine.
 *
 * Thousands of runs a second leave no time for mmap() and munmap(), and a
 * violation abandons whatever was allocated; so there are three areas that are
 * emptied as a whole when a run ends. Blocks go by size class; a freed one is
 * filled with junk and used again last-in-first-out, which makes a use after
 * free likely to be noticed. (With AddressSanitizer nothing is used again, and
 * what is freed is poisoned.) Addresses in a run, counted from the area's
 * start, are the same each time.
 *
 * Reserved regions are only cleaned where they were touched: mincore() knows.
 *
 * In a run with transactions each task but the first has a part of the blocks' area
 * to itself, for blocks, regions and the machine's memory, and nothing is used
 * again: so no address depends on the order in which tasks ask.
 */
#include "sim/machine.h"
#include "sim/sanitize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef SIM_ASAN
#define REUSE 0
#define GAP 16		/* stays poisoned, so that overruns are seen */
#else
#define REUSE 1
#define GAP 0
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define BLOCKS_SIZE ((size_t)256 << 20)
#define PART_SIZE (BLOCKS_SIZE / SIM_TASKS_MAX)
#define REGIONS_SIZE ((size_t)4 << 30)
#define CLASSES 72
#define JUNK 0xdb
#define JUNK_MAX 4096

struct block {
	uint32_t len;		/* asked for; 0: free */
	uint32_t class;
	uint64_t serial;	/* the how manieth of the run; 0: not of a block */
};

struct free_block {
	struct free_block *next;
};

struct area {
	char *base;
	size_t used;		/* by this run */
	unsigned live;
};

static struct area blocks, regions, own;
static struct free_block *free_blocks[CLASSES];
static size_t class_bytes[CLASSES];
static uint64_t serial;
static size_t part_used[SIM_TASKS_MAX];	/* of the blocks, in parts */

static void area_map(struct area *a, size_t size)
{
	a->base = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->base == MAP_FAILED) {
		fprintf(stderr, "mkwrite-sim: no address space for %zu MiB of simulated memory; raise ulimit -v\n",
			size >> 20);
		exit(2);
	}
}

/* Zeroes what was ever touched of the area's used part. */
static void area_clean(struct area *a)
{
	static unsigned char vec[REGIONS_SIZE >> 12];
	size_t host_page = (size_t)sysconf(_SC_PAGESIZE);
	size_t pages = (a->used + host_page - 1) / host_page;

	ASAN_UNPOISON_MEMORY_REGION(a->base, a->used);
	if (pages && mincore(a->base, pages * host_page, vec))
		memset(vec, 1, pages);
	for (size_t i = 0; i < pages; i++)
		if (vec[i] & 1)
			memset(a->base + i * host_page, 0, host_page);
	a->used = 0;
	a->live = 0;
}

/* Four classes to each power of two. */
static void classes_init(void)
{
	size_t size = 32, quarter = 16;

	for (unsigned class = 0; class < CLASSES; class++) {
		class_bytes[class] = size;
		size += quarter;
		if (class % 4 == 3)
			quarter *= 2;
	}
}

/* Has the running task a part of its own? */
static bool own_part(void)
{
	return sim_config()->transactions && sim_self();
}

static void *part_alloc(size_t len)
{
	unsigned id = sim_self();
	char *p = blocks.base + id * PART_SIZE + part_used[id];

	len = (len + 63) & ~(size_t)63;
	if (len > PART_SIZE - part_used[id])
		return NULL;
	part_used[id] += len;
	ASAN_UNPOISON_MEMORY_REGION(p, len);
	return memset(p, 0, len);
}

void *mkw__os_zalloc(size_t len)
{
	unsigned class = 0;
	struct block *b;
	size_t size;

	while (class < CLASSES && class_bytes[class] < len)
		class++;
	if (class == CLASSES || len > BLOCKS_SIZE)
		return NULL;
	if (own_part()) {
		b = part_alloc(sizeof(*b) + len);
		if (!b)
			return NULL;
	} else if (free_blocks[class]) {
		b = (struct block *)free_blocks[class] - 1;
		free_blocks[class] = free_blocks[class]->next;
	} else {
		size = sizeof(*b) + class_bytes[class] + GAP;
		if (size > (sim_config()->transactions ? PART_SIZE : BLOCKS_SIZE) -
				   blocks.used)
			return NULL;
		b = (struct block *)(blocks.base + blocks.used);
		blocks.used += size;
		ASAN_POISON_MEMORY_REGION(b, size);
	}
	ASAN_UNPOISON_MEMORY_REGION(b, sizeof(*b) + len);
	b->len = len ? (uint32_t)len : 1;
	b->class = class;
	b->serial = ++serial;
	blocks.live++;
	return memset(b + 1, 0, len);
}

void mkw__os_free(void *p)
{
	struct free_block *f = p;
	struct block *b;
	size_t len;

	if (!p)
		return;
	b = (struct block *)p - 1;
	len = b->len;
	if (!len)
		sim_violation("memory block %llu is freed twice",
			      (unsigned long long)b->serial);
	b->len = 0;
	blocks.live--;
	memset(p, JUNK, len < JUNK_MAX ? len : JUNK_MAX);
	if (sim_config()->transactions)
		return;
	if (REUSE) {
		f->next = free_blocks[b->class];
		free_blocks[b->class] = f;
	} else {
		ASAN_POISON_MEMORY_REGION(p, len);
	}
}

static size_t region_size(size_t len)
{
	size_t align = (size_t)sysconf(_SC_PAGESIZE);

	if (align < mkw__os_page_size())
		align = mkw__os_page_size();
	return (len + align - 1) & ~(align - 1);
}

void *mkw__os_reserve(size_t len)
{
	size_t size = region_size(len);
	char *p;

	if (own_part()) {
		p = part_alloc(len);
		regions.live += p != NULL;
		return p;
	}
	if (size > REGIONS_SIZE - regions.used)
		return NULL;
	p = regions.base + regions.used;
	regions.used += size;
	regions.live++;
	return p;
}

void *mkw__os_reserve_io(size_t len)
{
	return mkw__os_reserve(len);
}

void mkw__os_unreserve(void *p, size_t len)
{
	if (!p)
		return;
	ASAN_POISON_MEMORY_REGION(p, region_size(len));
	(void)len;
	if (!regions.live)
		sim_violation("more regions are given back than were reserved");
	regions.live--;
}

void *sim_machine_alloc(size_t len)
{
	char *p = own.base + own.used;

	if (own_part()) {
		p = part_alloc(len);
		if (!p)
			sim_violation("the simulated machine itself is out of memory");
		return p;
	}
	len = (len + 63) & ~(size_t)63;
	if (len > BLOCKS_SIZE - own.used)
		sim_violation("the simulated machine itself is out of memory");
	own.used += len;
	return p;
}

uint64_t sim_arena_offset(const void *p)
{
	uintptr_t at = (uintptr_t)p;

	if (at - (uintptr_t)blocks.base < BLOCKS_SIZE)
		return at - (uintptr_t)blocks.base;
	if (at - (uintptr_t)regions.base < REGIONS_SIZE)
		return at - (uintptr_t)regions.base;
	return UINT64_MAX;
}

unsigned sim_arena_live(char *list, size_t size)
{
	size_t at = 0, n = 0;

	list[0] = 0;
	for (size_t pos = 0; pos < blocks.used && n < 8;) {
		struct block *b = (struct block *)(blocks.base + pos);

		if (b->len)
			at += (size_t)snprintf(list + at, size - at,
					       "%sblock %llu of %u bytes",
					       n++ ? ", " : "",
					       (unsigned long long)b->serial,
					       b->len);
		pos += sizeof(*b) + class_bytes[b->class] + GAP;
	}
	return blocks.live + regions.live;
}

void sim_arena_reset(void)
{
	if (!blocks.base) {
		area_map(&blocks, BLOCKS_SIZE);
		area_map(&regions, REGIONS_SIZE);
		area_map(&own, BLOCKS_SIZE);
		classes_init();
	}
	/* Blocks are zeroed when they are given out. */
	ASAN_UNPOISON_MEMORY_REGION(blocks.base, blocks.used);
	blocks.used = 0;
	blocks.live = 0;
	memset(part_used, 0, sizeof(part_used));
	serial = 0;
	memset(free_blocks, 0, sizeof(free_blocks));
	area_clean(&regions);
	area_clean(&own);
}

uint64_t mkw__os_memory_limit(char *where, size_t len)
{
	snprintf(where, len, "the simulated machine has no limit");
	return UINT64_MAX;
}

void mkw__os_tell(const char *fmt, ...)
{
	(void)fmt;
}
