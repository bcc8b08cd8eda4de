/* SPDX-License-Identifier: MIT */
/*
 * mix.c: what the threads do.
 *
 * A profile says which part of the file is used, and how often each kind of
 * operation comes. Small and hot parts collide often:
 *   dio-vs-mmap  Direct writes of 512 bytes, into sectors that only their thread
 *                writes, while others load and store in the other sectors of the
 *                same pages. Where a file system drops the page from its cache
 *                before and after a direct write, a store may bring it back
 *                between the two, with the old sector in it: the direct write is
 *                gone when the page is written back.
 *   hot          everything but truncate, on a few pages
 *   punch        the same, with many punches, and allocations
 *   truncate     the same with truncate, around the end of the file
 *   ways         reads and writes by a ring, by copy_file_range(), with RWF_DSYNC,
 *                RWF_NOWAIT and RWF_DONTCACHE, while caches and mappings are taken away
 *   shift        loads, stores, reads, writes while one thread collapses and inserts
 *                pages, so that all that is behind them moves
 *   mappings     mappings of their own, which threads move, resize and protect, while others
 *                punch, truncate and write the file; the common one protected in part,
 *                and, the engine's, pinned for direct I/O of another file
 *   pins         stores to, and loads from, memory that stays pinned for a few of them
 *                (the engine's), while others punch, write directly, sync, drop caches
 *   whole        long writes, and loads in a row: where what is written is to show at
 *                once (MKW_ATOMIC_WRITES)
 *   wide         everything, all over the file, which is larger than the smallest
 *                cache of the engine: reclaim
 */
#include "check/mix.h"

#include <sched.h>
#include <string.h>

/* 512 bytes: what disks and direct I/O call a sector. */
#define SECTOR_WORDS 64u
#define SMALL_WORDS (4u * 1024 / WORD)
#define PACE_NS 2000u
/* From so much of a file on most operations are in a part of it. */
#define SKEW_WORDS (8u * 1024 * 1024 / WORD)
/* Of a thread's own mapping. */
#define OWN_PAGES_MAX 16u
/* An engine may have a quarter of its cache pinned. */
#define PIN_WORDS_MAX (8u * 1024 / WORD)
/* By one pin. */
#define PIN_RECS 8u
_Static_assert(PIN_RECS <= STEP_RECS && PIN_RECS * PIN_WORDS_MAX <= OP_WORDS_MAX,
	       "what a log has room for");

struct profile {
	const char *name;
	bool sectors;		/* dio-vs-mmap */
	bool tail;		/* the end of the file rather than its start */
	uint32_t pages;		/* of the part used; 0: all of the file */
	uint8_t weights[OP_KINDS];
	uint8_t large;		/* of 100 reads and writes, those of 64 KiB */
	uint8_t other_ways;	/* of 100, those that are not plain */
	uint8_t other_maps;	/* of 100 loads and stores, those by their own mapping */
	uint8_t pins;		/* and those that pin memory */
	bool series;		/* loads come in a row, upwards, as copies go */
};

static const struct profile profiles[] = {
	{
		.name = "dio-vs-mmap",
		.sectors = true,
		.pages = 2,
	},
	{
		.name = "hot",
		.pages = 16,
		.large = 4,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 25, [OP_WRITE] = 20,
			[OP_DIRECT_READ] = 25, [OP_DIRECT_WRITE] = 25,
			[OP_PUNCH] = 6, [OP_ZERO] = 4, [OP_SYNC] = 2,
		},
	},
	{
		.name = "truncate",
		.tail = true,
		.pages = 24,
		.large = 4,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 25, [OP_WRITE] = 20,
			[OP_DIRECT_READ] = 20, [OP_DIRECT_WRITE] = 20,
			[OP_PUNCH] = 4, [OP_ZERO] = 4, [OP_TRUNCATE] = 12,
			[OP_SYNC] = 1,
		},
	},
	{
		.name = "ways",
		.pages = 24,
		.large = 4,
		.other_ways = 60,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 25, [OP_WRITE] = 20,
			[OP_DIRECT_READ] = 20, [OP_DIRECT_WRITE] = 20,
			[OP_PUNCH] = 3, [OP_ZERO] = 2, [OP_SYNC] = 1,
			[OP_ALLOCATE] = 2, [OP_DISTURB] = 20,
		},
	},
	{
		.name = "punch",
		.pages = 8,
		.large = 10,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 10, [OP_WRITE] = 10,
			[OP_DIRECT_READ] = 10, [OP_DIRECT_WRITE] = 10,
			[OP_PUNCH] = 30, [OP_ZERO] = 15, [OP_SYNC] = 2,
			[OP_ALLOCATE] = 5, [OP_DISTURB] = 3,
		},
	},
	{
		.name = "wide",
		.large = 10,
		.other_ways = 10,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 15, [OP_WRITE] = 15,
			[OP_DIRECT_READ] = 10, [OP_DIRECT_WRITE] = 10,
			[OP_PUNCH] = 5, [OP_ZERO] = 3, [OP_TRUNCATE] = 3,
			[OP_SYNC] = 1, [OP_DISTURB] = 5, [OP_REMAP] = 3,
		},
		.other_maps = 10,
		.pins = 1,
	},
	{
		.name = "shift",
		.pages = 24,
		.large = 4,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 25, [OP_WRITE] = 20,
			[OP_DIRECT_READ] = 20, [OP_DIRECT_WRITE] = 20,
			[OP_PUNCH] = 4, [OP_SYNC] = 1, [OP_SHIFT] = 10,
			[OP_DISTURB] = 5,
		},
	},
	{
		.name = "whole",
		.pages = 16,
		.large = 60,
		.series = true,
		.weights = {
			[OP_LOAD] = 100, [OP_STORE] = 5,
			[OP_READ] = 3, [OP_WRITE] = 20, [OP_DIRECT_WRITE] = 2,
		},
	},
	{
		.name = "mappings",
		.tail = true,
		.pages = 24,
		.large = 4,
		.other_maps = 60,
		.pins = 5,
		.weights = {
			[OP_LOAD] = 60, [OP_STORE] = 60,
			[OP_READ] = 10, [OP_WRITE] = 10,
			[OP_DIRECT_READ] = 10, [OP_DIRECT_WRITE] = 10,
			[OP_PUNCH] = 6, [OP_ZERO] = 3, [OP_TRUNCATE] = 1,
			[OP_SYNC] = 1, [OP_DISTURB] = 3, [OP_REMAP] = 20,
		},
	},
	{
		.name = "pins",
		.pages = 12,
		.pins = 60,
		.weights = {
			[OP_LOAD] = 20, [OP_STORE] = 20,
			[OP_READ] = 10, [OP_WRITE] = 4,
			[OP_DIRECT_READ] = 4, [OP_DIRECT_WRITE] = 4,
			[OP_PUNCH] = 4, [OP_ZERO] = 2, [OP_SYNC] = 8,
			[OP_DISTURB] = 40,
		},
	},
};
#define PROFILES (sizeof(profiles) / sizeof(profiles[0]))

const struct profile *mkw__check_profile(unsigned epoch, bool atomic)
{
	static const uint8_t rota[][16] = {
		{ 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 8, 0, 9 },
		{ 7, 1, 0, 2, 7, 3, 0, 4, 7, 5, 0, 6, 7, 8, 0, 9 },
	};

	return &profiles[rota[atomic][epoch % sizeof(rota[0])]];
}

const struct profile *mkw__check_profile_find(const char *name)
{
	for (unsigned i = 0; i < PROFILES; i++)
		if (!strcmp(profiles[i].name, name))
			return &profiles[i];
	return NULL;
}

uint32_t mkw__check_profile_kinds(const struct profile *p)
{
	uint32_t kinds = 0;

	if (p->sectors)
		return 1u << OP_LOAD | 1u << OP_STORE | 1u << OP_DIRECT_READ |
		       1u << OP_DIRECT_WRITE;
	for (unsigned i = 0; i < OP_KINDS; i++)
		if (p->weights[i])
			kinds |= 1u << i;
	return kinds;
}

const char *mkw__check_profile_name(const struct profile *p)
{
	return p->name;
}

const char *mkw__check_profile_unfit(const struct profile *p,
				     const struct worker *w)
{
	uint32_t direct_align = w->target->direct_align;

	if (p->weights[OP_SHIFT] && !w->can_shift)
		return "there is no collapse and insert here";
	if (p->weights[OP_SHIFT] && w->layout->words > SKEW_WORDS)
		return "what is moved is not followed in a file of more than 8 MiB";
	if (!p->sectors)
		return NULL;
	if (!direct_align)
		return "there is no direct I/O here";
	if (direct_align > SECTOR_WORDS * WORD)
		return "direct I/O of 512 bytes is not possible here";
	if (w->layout->page_words < 4 * SECTOR_WORDS)
		return "pages are too small";
	return NULL;
}

/* ---- choosing one ----------------------------------------------------------- */

uint32_t mkw__check_random(struct worker *w, uint32_t n)
{
	uint64_t z = (w->rng += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return (uint32_t)((z >> 32) * n >> 32);
}

static uint32_t below(struct worker *w, uint32_t n)
{
	return mkw__check_random(w, n);
}

void mkw__check_pause(struct worker *w)
{
	uint32_t dice = w->delay_ns ? below(w, 64) : 2;
	struct timespec ts;

	if (dice == 0) {
		ts = (struct timespec){ 0, 0 };
		ts.tv_nsec = (long)below(w, w->delay_ns);
		nanosleep(&ts, NULL);
	} else if (dice == 1) {
		sched_yield();
	}
}

static uint32_t tracked(unsigned phase, uint32_t word)
{
	return (word & ~(TRACK - 1)) + phase;
}

/*
 * Rounds [*word, *word + *words) out to multiples of unit, and then moves it to
 * end inside of the file.
 */
static void fit(const struct layout *layout, uint32_t unit, uint32_t *word,
		uint32_t *words)
{
	uint32_t end = (*word + *words + unit - 1) / unit * unit;

	*word = *word / unit * unit;
	*words = end - *word;
	if (end > layout->words)
		*word = layout->words - *words;
}

static void perform(struct worker *w, enum op_kind kind, uint32_t word,
		    uint32_t words, unsigned phase)
{
	mkw__check_do(w, &(struct step){ .kind = kind, .word = word,
					 .words = words }, phase);
}

/*
 * The lower half of a page's sectors belongs to direct writers, one each as far
 * as they go; the upper half to stores.
 */
static void step_sectors(struct worker *w, const struct profile *p,
			 unsigned phase)
{
	uint32_t per_page = w->layout->page_words / SECTOR_WORDS;
	uint32_t pages = w->pages ? w->pages : p->pages;
	uint32_t page = below(w, pages) * w->layout->page_words;
	uint32_t mine = page + (w->log.thread / 2 % (per_page / 2)) *
				       SECTOR_WORDS;
	uint32_t other = page + w->layout->page_words / 2 +
			 below(w, w->layout->page_words / 2);
	uint32_t any = page + below(w, w->layout->page_words);
	uint32_t dice = below(w, 100);
	uint64_t pause_until;

	if (w->log.thread % 2 == 0) {
		bool reads = w->kinds >> OP_DIRECT_READ & 1;
		bool loads = w->kinds >> OP_LOAD & 1;

		if (dice < 70 || !(reads || loads))
			perform(w, OP_DIRECT_WRITE, mine, SECTOR_WORDS, phase);
		else if ((dice < 90 && reads) || !loads)
			perform(w, OP_DIRECT_READ, mine, SECTOR_WORDS, phase);
		else
			perform(w, OP_LOAD, tracked(phase, mine), 1, phase);
		return;
	}
	if ((dice < 60 && w->kinds >> OP_STORE & 1) || !(w->kinds >> OP_LOAD & 1))
		perform(w, OP_STORE, tracked(phase, other), 1, phase);
	else
		perform(w, OP_LOAD, tracked(phase, any), 1, phase);
	/*
	 * Only the first store after a page went matters; more would fill the log,
	 * and take the processor from the direct writers.
	 */
	pause_until = stamp() + PACE_NS;
	do {
		sched_yield();
	} while (stamp() < pause_until);
}

static uint32_t weight(const struct worker *w, const struct profile *p,
		       unsigned kind)
{
	return w->kinds >> kind & 1 ? p->weights[kind] : 0;
}

static enum op_kind choose(struct worker *w, const struct profile *p)
{
	uint32_t total = 0, at;
	unsigned kind;

	for (kind = 0; kind < OP_KINDS; kind++)
		total += weight(w, p, kind);
	if (!total)
		return OP_LOAD;
	at = below(w, total);
	for (kind = 0; at >= weight(w, p, kind); kind++)
		at -= weight(w, p, kind);
	if (!w->target->direct_align) {
		if (kind == OP_DIRECT_READ)
			return OP_READ;
		if (kind == OP_DIRECT_WRITE)
			return OP_WRITE;
	}
	if ((kind == OP_PUNCH && !w->can_punch) ||
	    (kind == OP_ZERO && !w->can_zero) ||
	    (kind == OP_SHIFT && (w->log.thread || w->shifts == SHIFTS_MAX)) ||
	    (kind == OP_DISTURB && !w->target->ops->disturb) ||
	    (kind == OP_REMAP && !w->target->ops->remap))
		return OP_LOAD;
	return (enum op_kind)kind;
}

/* One of the ways that the target has, besides the plain one. */
static unsigned choose_way(struct worker *w, enum op_kind kind)
{
	unsigned have = w->target->ways, way;

	if (kind_reads(kind))
		have &= ~WAY_DSYNC;
	if (kind == OP_DIRECT_READ || kind == OP_DIRECT_WRITE)
		have &= ~(WAY_COPY | WAY_DONTCACHE);
	if (!have)
		return 0;
	do
		way = 1u << below(w, 8);
	while (!(have & way));
	return way;
}

/* A freeze costs everybody, so it comes seldom. */
static enum disturb choose_disturb(struct worker *w)
{
	enum disturb what = (enum disturb)below(w, DISTURBS);

	if (what == DISTURB_FREEZE && (!w->can_freeze || below(w, 8)))
		return DISTURB_UNMAP;
	return what;
}

/*
 * Memory is pinned, loaded and stored to by the kernel a few times, each an operation, and
 * unpinned. Two are needed to show that it did not stay what it was.
 */
static void step_pinned(struct worker *w, enum op_kind kind, uint32_t word,
			uint32_t unit, unsigned phase)
{
	struct step s = { .way = WAY_PIN, .kind = kind };
	uint32_t words = 1 + below(w, PIN_WORDS_MAX - 2 * unit), units, at;
	unsigned n = 1 + below(w, PIN_RECS);
	bool store = kind == OP_STORE;

	fit(w->layout, unit, &word, &words);
	s.pin.word = word;
	s.pin.words = words;
	s.pin.store = store;
	units = words / unit;
	for (unsigned i = 1; i == 1 || (i <= n && w->pinned); i++) {
		at = below(w, units);
		s.word = word + at * unit;
		s.words = (1 + below(w, units - at)) * unit;
		s.unpin = i == n;
		mkw__check_do(w, &s, phase);
		s.pin.words = 0;
		s.kind = store && below(w, 2) ? OP_STORE : OP_LOAD;
		mkw__check_pause(w);
	}
}

/* A load or store by the thread's own mapping, or by direct I/O of another file. */
static void step_mapped(struct worker *w, const struct profile *p,
			enum op_kind kind, uint32_t word, unsigned phase)
{
	struct step s = { .kind = kind, .word = word, .words = 1 };
	uint32_t dice = below(w, 100), unit = SECTOR_WORDS;

	if (w->target->direct_align > SECTOR_WORDS * WORD)
		unit = (uint32_t)(w->target->direct_align / WORD);
	if (dice < p->pins && w->target->ops->pinned &&
	    2 * unit < PIN_WORDS_MAX) {
		step_pinned(w, kind, word, unit, phase);
		return;
	}
	if (dice - p->pins < p->other_maps && w->own.at) {
		s.way = WAY_OWN;
		s.word = tracked(phase, w->own.word + below(w, w->own.words));
	} else {
		s.word = tracked(phase, word);
	}
	mkw__check_do(w, &s, phase);
}

/* word: of a mapping that is to come. */
static void step_remap(struct worker *w, uint32_t word, unsigned phase)
{
	uint32_t page = w->layout->page_words;
	struct step s = {
		.kind = OP_REMAP,
		.word = word / page * page,
		.change = (enum remap)below(w, REMAPS),
	};
	uint32_t from = s.word;

	/* Writeback is to come while an access is denied, and then it is not denied. */
	if (below(w, 3))
		s.change = REMAP_PROTECT;
	/* More often all access than none. */
	s.way = below(w, s.change == REMAP_DENY ? CHECK_PROTS - 1 :
						  CHECK_PROTS + 1);
	if (s.way == CHECK_PROTS)
		s.way--;
	/* Without a mapping there is one to come, whatever was chosen. */
	if (w->own.at && s.change < REMAP_PROTECT)
		from = w->own.word;
	s.words = (1 + below(w, OWN_PAGES_MAX)) * page;
	if (s.words > w->layout->words - from)
		s.words = w->layout->words - from;
	mkw__check_do(w, &s, phase);
}

/* As copies go. */
static void load_upwards(struct worker *w, uint32_t word, uint32_t end,
			 unsigned phase)
{
	for (unsigned i = 0; i < STEP_RECS && word < end; i++) {
		perform(w, OP_LOAD, tracked(phase, word), 1, phase);
		word += TRACK + below(w, end / 4);
	}
}

void mkw__check_step(struct worker *w, const struct profile *p,
		     unsigned phase)
{
	const struct layout *layout = w->layout;
	uint32_t pages = w->pages ? w->pages : p->pages;
	uint32_t size = pages ? pages * layout->page_words : layout->words;
	uint32_t word = below(w, size);
	uint32_t words, dice = below(w, 100), unit = 1;
	enum op_kind kind;

	if (p->sectors) {
		step_sectors(w, p, phase);
		return;
	}
	/* All over a large file nobody would ever meet. */
	if (size > SKEW_WORDS && dice < 80)
		word = (uint32_t)((uint64_t)word * below(w, SKEW_WORDS) / size +
				  (uint64_t)(phase % 4) * (size / 4));
	if (p->tail)
		word += layout->words - size;
	kind = choose(w, p);
	if (kind == OP_LOAD && p->series) {
		load_upwards(w, word, size, phase);
		return;
	}
	switch (kind) {
	case OP_LOAD:
	case OP_STORE:
		step_mapped(w, p, kind, word, phase);
		return;
	case OP_REMAP:
		step_remap(w, word, phase);
		return;
	case OP_TRUNCATE:
		/* Back to its full length half of the time. */
		word = layout->words;
		if (dice < 50)
			word = layout->body + below(w, layout->words -
							       layout->body);
		perform(w, kind,
			      word / layout->page_words * layout->page_words,
			      0, phase);
		return;
	case OP_SYNC:
		perform(w, kind, 0, 0, phase);
		return;
	case OP_SHIFT:
		w->shifts++;
		mkw__check_do(w, &(struct step){
				.kind = kind,
				.word = word / layout->page_words *
					layout->page_words,
				.words = (1 + below(w, 4)) * layout->page_words,
				.way = dice < 50 ? SHIFT_COLLAPSE : SHIFT_INSERT,
			}, phase);
		return;
	case OP_ALLOCATE:
	case OP_DISTURB:
		unit = layout->page_words;
		break;
	case OP_DIRECT_READ:
	case OP_DIRECT_WRITE:
		if (w->target->direct_align > WORD)
			unit = (uint32_t)(w->target->direct_align / WORD);
		break;
	default:
		/* Any words, or sectors. */
		if (dice < 70)
			unit = SECTOR_WORDS;
		break;
	}
	words = below(w, 2) ? SECTOR_WORDS : SMALL_WORDS;
	if (below(w, 100) < p->large)
		words = (uint32_t)OP_WORDS_MAX;
	if (unit == 1)
		words = 1 + below(w, words);
	/* The end of the file stays between pages. */
	if (kind_writes(kind) && word + words > layout->body &&
	    unit < layout->page_words)
		unit = layout->page_words;
	/* Rounding out must not make it longer than an operation can be. */
	if (words > OP_WORDS_MAX - unit)
		word = word / unit * unit;
	fit(layout, unit, &word, &words);
	mkw__check_do(w, &(struct step){
			.kind = kind,
			.word = word,
			.words = words,
			.way = (kind_reads(kind) || kind_writes(kind)) &&
			       below(w, 100) < p->other_ways ?
				       choose_way(w, kind) : 0,
			.what = choose_disturb(w),
		}, phase);
}
