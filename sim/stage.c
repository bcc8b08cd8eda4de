/* SPDX-License-Identifier: MIT */
/*
 * stage.c: operations that record themselves, and the judgement; see stage.h.
 *
 * What is judged at the end of a run, when no task is left:
 *   - every word's history, with the loads, reads, direct reads and the disk's
 *     content of the end as further reads of it (G1, G5)
 *   - stray blocks: a page whose last change was a punch or a truncation, begun
 *     when every write of it had ended, has no block on the disk (G4)
 *   - the engine's own mkw__engine_verify(), and that it closes without leaving
 *     memory, frames or mappings
 */
#include "sim/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/engine.h"
#include "core/testing.h"
#include "sim/history.h"
#include "sim/machine.h"
#include "sim/search.h"
#include "sim/strict.h"

#define WORD 8u
#define PAGES_MAX 64u

struct stage_options stage_options;
struct stage_totals stage_totals;
struct stage stage;

static uint64_t next_value[SIM_TASKS_MAX];
/* For stray blocks: ticks. */
static struct {
	uint64_t last_write;	/* the end of the last that put data there */
	uint64_t last_take;	/* the start of the last that took it all */
} page_times[PAGES_MAX];

static uint64_t words[SIM_WORDS_MAX];
static bool appended[SIM_WORDS_MAX];

/* ---- opening ---------------------------------------------------------- */

/* A word's offset in the file. */
static off_t at(unsigned word)
{
	return (off_t)(stage.base + word * WORD);
}

static void check(int64_t r, const char *what)
{
	if (r < 0)
		sim_violation("%s failed: %s", what, strerror((int)-r));
}

void stage_open(unsigned pages, unsigned frames)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	memset(&stage, 0, sizeof(stage));
	memset(page_times, 0, sizeof(page_times));
	memset(appended, 0, sizeof(appended));
	memset(next_value, 0, sizeof(next_value));
	stage.page = mkw__os_page_size();
	stage.pages = pages;
	stage.words_per_page = (unsigned)(stage.page / WORD);
	stage.words = pages * stage.words_per_page;
	/* Often the middle of the file, where the engine's leaves meet. */
	if (!stage_options.search && pages > 1 && sim_random(4) == 0)
		stage.base = (63 - sim_random(pages - 1)) * stage.page;
	if (pages > PAGES_MAX)
		sim_violation("scenario: %u pages, %u at most", pages, PAGES_MAX);

	stage.disk = sim_disk_create(stage.base + pages * stage.page);
	for (unsigned w = 0; w < stage.words; w++) {
		/* Of large pages only the first words are looked at. */
		if (w < SIM_WORDS_MAX)
			words[w] = STAGE_OLD + w;
		sim_disk_poke(stage.disk, (uint64_t)at(w), STAGE_OLD + w);
	}
	sim_history_reset(stage.words < SIM_WORDS_MAX ? stage.words :
							SIM_WORDS_MAX, words);
	memset(&mkw__testing, 0, sizeof(mkw__testing));
	mkw__testing.policy_none = stage_options.policy == STAGE_NONE;
	mkw__testing.r0_off = stage_options.r0_off;
	mkw__testing.mutant = stage_options.mutant;
	mkw__testing.chunk_pages = 1u << sim_random(3);
	mkw__testing.cache_frames = frames ? frames : 4 * PAGES_MAX;
	/* Writers who wait for the flusher. */
	mkw__testing.dirty_pages = sim_random(4) ? 0 : 1 + sim_random(2);
	mkw__map_reset();
	/* Under `none` overlapping is what the story is about. */
	sim_disk_strict(stage.disk, stage_options.policy != STAGE_NONE);

	/* A flusher that comes when it is called, or one that is always about. */
	opt.writeback_age_ms = stage_options.search || sim_random(2) ?
				       UINT32_MAX : 1;
	/* Pages that fail are few enough to be met, where that is played. */
	opt.failed_bytes_max = 2 * stage.page;
	opt.policy = stage_options.policy == STAGE_INVALIDATE ?
			     MKW_POLICY_INVALIDATE : MKW_POLICY_RETRY;
	check(mkw_engine_open(&opt, &stage.engine), "mkw_engine_open()");
	check(mkw__file_attach(stage.engine, sim_disk_store(stage.disk), true,
			       &stage.file), "mkw__file_attach()");
	if (stage_options.search)
		sim_disk_prepare(SMALL_TASKS);
}

unsigned stage_map(bool in_thread, bool writable)
{
	unsigned n = stage.maps++;
	void *addr;

	check(mkw_map(stage.file, NULL, stage.pages * stage.page,
		      writable ? PROT_READ | PROT_WRITE : PROT_READ,
		      in_thread ? MKW_MAP_INLINE : 0, at(0), &addr), "mkw_map()");
	stage.map[n] = (uintptr_t)addr;
	stage.read_only[n] = !writable;
	return n;
}

unsigned stage_map_any(void)
{
	return stage_map(sim_random(2), true);
}

void stage_atomic(void)
{
	uint64_t first[SIM_WORDS_MAX];

	atomic_store(&stage.file->inode->atomic, true);
	stage.strict = true;
	for (unsigned w = 0; w < stage.words; w++)
		first[w] = sim_disk_peek(stage.disk, (uint64_t)at(w));
	sim_strict_begin(stage.words, first);
}

void stage_begin(void)
{
	sim_trace_mark(SIM_BEGINS);
	if (!stage_options.search)
		return;
	sim_settle();
	sim_trace_mark(SIM_BEGINS);
	sim_search_start();
}

void stage_end(void)
{
	sim_settle();
	sim_search_stop();
	sim_strict_stop();
	sim_trace_mark(SIM_ENDS);
}

/* ---- recording -------------------------------------------------------- */

/*
 * An operation on these words begins: says so, and gives its start. No later point
 * comes before its first step that others can see: a start that is as late as
 * it can be leaves the fewest excuses.
 */
static uint64_t begin(const char *fmt, unsigned word, unsigned n, uint64_t c)
{
	sim_point_acquire();
	sim_trace(fmt, word, word + n, c);
	return sim_history_begin(word, n);
}

static unsigned page_of(unsigned word)
{
	return word / stage.words_per_page;
}

static uint64_t new_value(void)
{
	return ((uint64_t)sim_self() << 16) + ++next_value[sim_self()];
}

/* Some of the words get data, at some time from 'start' on. */
static void wrote(unsigned word, unsigned n)
{
	uint64_t now = sim_tick();

	for (unsigned p = page_of(word); n && p <= page_of(word + n - 1); p++)
		if (p < PAGES_MAX)
			page_times[p].last_write = now;
}

/* Data is taken from whole pages; started at the tick 'start'. */
static void took(unsigned word, unsigned n, uint64_t start)
{
	unsigned end = page_of(word + n);

	for (unsigned p = page_of(word + stage.words_per_page - 1); p < end; p++)
		if (p < PAGES_MAX && start > page_times[p].last_take)
			page_times[p].last_take = start;
}

/* r: what the call returned; after an error each word may be zero, or not. */
static void record_zeros(unsigned word, unsigned n, uint64_t start,
			 const char *what, int r)
{
	if (r != -EIO || !stage.may_fail)
		check(r, what);
	sim_trace("that has returned %llu", (uint64_t)-r, 0, 0);
	sim_history_whole(start);
	for (unsigned i = 0; i < n; i++)
		sim_history_add(word + i, what, true, 0, start, r != 0);
}

#define BLOCK_WORDS (SIM_BLOCK / WORD)

/* What the owned block holds after a change of these words. */
static void own_version(unsigned word, unsigned n, const uint64_t *values)
{
	uint64_t *now = stage.owned[stage.owned_count];

	if (word >= stage.own + BLOCK_WORDS || word + n <= stage.own)
		return;
	if (++stage.owned_count == STAGE_VERSIONS)
		sim_violation("scenario: a block of more than %u versions",
			      STAGE_VERSIONS);
	memcpy(now, now - BLOCK_WORDS, SIM_BLOCK);
	for (unsigned w = 0; w < BLOCK_WORDS; w++)
		if (stage.own + w >= word && stage.own + w < word + n)
			now[w] = values ? values[stage.own + w - word] : 0;
}

void stage_own(unsigned word)
{
	stage.own = word;
	for (unsigned w = 0; w < BLOCK_WORDS; w++)
		stage.owned[0][w] = sim_disk_peek(stage.disk, (uint64_t)at(word + w));
	stage.owned_count = 1;
}

/* For a crash: these words may be found on the disk from now on. NULL: zeros. */
static void intend(unsigned word, unsigned n, const uint64_t *values)
{
	for (unsigned i = 0; stage_options.crashes && i < n; i++)
		sim_history_intend(word + i, values ? values[i] : 0);
	if (stage_options.crashes && stage.owned_count)
		own_version(word, n, values);
}

static void intend_length(uint64_t len)
{
	if (stage.length_count == STAGE_LENGTHS)
		sim_violation("scenario: more than %u lengths", STAGE_LENGTHS);
	stage.lengths[stage.length_count++] = len;
}

/* ---- mapped accesses --------------------------------------------------- */

/* A page past the end has no access; a failed read has none either. */
static void check_access(enum sim_outcome o, const char *what, unsigned word)
{
	if (stage.answered && o != SIM_OK)
		sim_violation("%s of word %u gets a signal: nobody was asked, or no notice was taken of the answer",
			      what, word);
	if (o == SIM_OK || stage.may_vanish ||
	    (o == SIM_BUS && (stage.may_end_short ||
			      (stage.may_fail && (!stage.only_writes_fail ||
						  !strcmp(what, "a store"))) ||
			      (stage.may_lack_space && !strcmp(what, "a store")))))
		return;
	sim_violation("%s of word %u gets %s", what, word,
		      o == SIM_BUS ? "SIGBUS" : "SIGSEGV");
}

void stage_load(unsigned map, unsigned word)
{
	uint64_t start = begin(".loads word %llu", word, 1, 0), v = 0;
	enum sim_outcome o;

	sim_touch(SIM_O_STAGE, NULL, map, SIM_READ);
	o = sim_load(stage.map[map] + word * WORD, &v);
	check_access(o, "a load", word);
	if (o == SIM_OK)
		sim_history_add(word, "load", false, v, start, false);
}

void stage_await(unsigned map, unsigned word, unsigned tries)
{
	uint64_t start = 0, first = 0, v = 0;
	enum sim_outcome o = SIM_OK;

	for (unsigned i = 0; i < tries && o == SIM_OK && v == first; i++) {
		start = begin(".loads word %llu", word, 1, 0);
		sim_touch(SIM_O_STAGE, NULL, map, SIM_READ);
		o = sim_load(stage.map[map] + word * WORD, &v);
		check_access(o, "a load", word);
		if (!i)
			first = v;
	}
	if (o == SIM_OK)
		sim_history_add(word, "load", false, v, start, false);
}

void stage_store(unsigned map, unsigned word)
{
	uint64_t start = begin(".stores to word %llu", word, 1, 0);
	uint64_t v = new_value();
	enum sim_outcome o;

	sim_touch(SIM_O_STAGE, NULL, map, SIM_READ);
	if (stage.read_only[map])
		map = 0;
	intend(word, 1, &v);
	o = sim_store(stage.map[map] + word * WORD, v);
	check_access(o, "a store", word);
	if (o == SIM_OK)
		sim_history_add(word, "store", true, v, start, false);
	/* One that ends in a signal may have made its page dirty all the same. */
	wrote(word, 1);
}

/* ---- reads and writes -------------------------------------------------- */

static const char *read_name(unsigned flags)
{
	return flags & MKW_DIRECT ? "direct read" : "pread";
}

static const char *write_name(unsigned flags)
{
	return flags & MKW_DIRECT ? "direct write" : "pwrite";
}

/* Less than all n words: at the file's end, or rather than wait. */
static void check_count(ssize_t r, unsigned n, unsigned flags, const char *what)
{
	if (r == (ssize_t)(n * WORD) || (r >= 0 && stage.may_end_short) ||
	    (r == -EIO && stage.may_fail) ||
	    ((stage.may_lack_space || stage.only_writes_fail) && (r == -ENOSPC || r > 0)))
		return;
	if ((flags & MKW_NOWAIT) && (r > 0 || r == -EAGAIN))
		return;
	sim_violation("%s of %u bytes returned %lld", what, n * WORD,
		      (long long)r);
}

void stage_read(unsigned word, unsigned n, unsigned flags)
{
	uint64_t buf[n], start;
	ssize_t r;

	start = begin(flags & MKW_DIRECT ? "direct read of words [%llu, %llu)" :
					   "pread of words [%llu, %llu)",
		      word, n, 0);
	memset(buf, 0xee, sizeof(buf));
	r = mkw_pread(stage.file, buf, sizeof(buf), at(word), flags);
	check_count(r, n, flags, read_name(flags));
	sim_trace("the read returns %llu bytes, the first word is %llx", (uint64_t)r,
		  r > 0 ? buf[0] : 0, 0);
	sim_history_whole(start);
	for (unsigned i = 0; r > 0 && i < (unsigned)r / WORD; i++)
		sim_history_add(word + i, read_name(flags), false, buf[i],
				start, false);
}

/* A write of n words returned r; values: what they are. */
static void record_write(unsigned word, unsigned n, const uint64_t *values,
			 ssize_t r, uint64_t start, const char *what)
{
	for (unsigned i = 0; i < n; i++)
		sim_history_add(word + i, what, true, values[i], start,
				r < (ssize_t)((i + 1) * WORD));
	wrote(word, n);
}

void stage_write(unsigned word, unsigned n, unsigned flags)
{
	uint64_t buf[n], start;
	bool may_end_short;
	ssize_t r;

	for (unsigned i = 0; i < n; i++)
		buf[i] = new_value();
	start = begin(flags & MKW_DIRECT ?
			      "direct write of words [%llu, %llu), the first %llx" :
			      "pwrite of words [%llu, %llu), the first %llx",
		      word, n, buf[0]);
	intend(word, n, buf);
	if (stage_options.crashes)
		intend_length((uint64_t)at(word + n));
	r = mkw_pwrite(stage.file, buf, sizeof(buf), at(word), flags);
	may_end_short = stage.may_end_short;
	stage.may_end_short = false;	/* a write makes the file longer */
	check_count(r, n, flags, write_name(flags));
	stage.may_end_short = may_end_short;
	if (r == -EAGAIN)
		return;
	sim_trace("the write has returned", 0, 0, 0);
	sim_history_whole(start);
	record_write(word, n, buf, r, start, write_name(flags));
}

void stage_write_bad(unsigned word, unsigned n, unsigned good)
{
	uint64_t buf[n], start;
	ssize_t r;

	for (unsigned i = 0; i < n; i++)
		buf[i] = new_value();
	start = begin("pwrite of words [%llu, %llu), of which %llu can be read",
		      word, n, good);
	sim_guard(&buf[good]);
	r = mkw_pwrite(stage.file, buf, sizeof(buf), at(word), 0);
	sim_guard(NULL);
	if (r != -EFAULT && (r <= 0 || (size_t)r > good * WORD))
		sim_violation("a pwrite of %u words, of which %u can be read, returned %lld",
			      n, good, (long long)r);
	/* Beyond its count, any of the others may be there, or not. */
	record_write(word, good, buf, r, start, "pwrite");
}

void stage_append(unsigned n)
{
	uint64_t buf[n], start;
	unsigned word;
	off_t end;
	ssize_t r;

	for (unsigned i = 0; i < n; i++)
		buf[i] = new_value();
	/* Nobody knows yet which words. */
	start = begin("appends words [%llu, %llu), the first %llx", 0, n, buf[0]);
	r = mkw_append(stage.file, buf, sizeof(buf), 0, &end);
	if (r != (ssize_t)sizeof(buf))
		sim_violation("an append of %u words returned %lld", n,
			      (long long)r);
	sim_trace("the append has returned: it went to offset %llu",
		 (uint64_t)end, 0, 0);
	word = (unsigned)(((uint64_t)end - stage.base) / WORD);
	for (unsigned w = word; w < word + n && w < SIM_WORDS_MAX; w++) {
		if (appended[w])
			sim_violation("an append of %u words went to offset %llu, upon another's",
				      n, (unsigned long long)end);
		appended[w] = true;
	}
	sim_history_whole(start);
	record_write(word, n, buf, r, start, "append");
}

/*
 * A copy reads one word and writes another with what it got, so its value is
 * known only where the source is: scenarios leave the source alone, whose
 * words then have their first values.
 */
void stage_read_into(unsigned map, unsigned to, unsigned word, unsigned n,
		     unsigned flags)
{
	uint64_t buf[n], start;
	ssize_t r;

	begin(flags & MKW_DIRECT ?
		      "direct read of words [%llu, %llu) into the mapping at word %llu" :
		      "pread of words [%llu, %llu) into the mapping at word %llu",
	      word, n, to);
	start = sim_history_begin(to, n);
	for (unsigned i = 0; i < n; i++)
		buf[i] = STAGE_OLD + word + i;
	r = mkw_pread(stage.file, (void *)(stage.map[map] + to * WORD), n * WORD,
		      at(word), flags);
	if (r != -EFAULT || !stage.may_end_short)
		check_count(r, n, 0, "a read into a mapping");
	sim_trace("the copy returns %llu", (uint64_t)r, 0, 0);
	record_write(to, n, buf, r, start, "read into");
}

void stage_write_from(unsigned map, unsigned from, unsigned word, unsigned n,
		      unsigned flags)
{
	uint64_t buf[n], start;
	ssize_t r;

	start = begin(flags & MKW_DIRECT ?
			      "direct write of words [%llu, %llu) out of the mapping at word %llu" :
			      "pwrite of words [%llu, %llu) out of the mapping at word %llu",
		      word, n, from);
	for (unsigned i = 0; i < n; i++)
		buf[i] = STAGE_OLD + from + i;
	r = mkw_pwrite(stage.file, (void *)(stage.map[map] + from * WORD),
		       n * WORD, at(word), flags);
	if (r != (ssize_t)(n * WORD) && !(r == -EFAULT && stage.may_end_short))
		sim_violation("a write of %u bytes out of a mapping returned %lld",
			      n * WORD, (long long)r);
	sim_trace("the copy returns %llu", (uint64_t)r, 0, 0);
	sim_history_whole(start);
	record_write(word, n, buf, r, start, "write from");
}

/* ---- the others -------------------------------------------------------- */

void stage_punch(unsigned word, unsigned n)
{
	uint64_t start = begin("punches words [%llu, %llu)", word, n, 0);
	int r;

	intend(word, n, NULL);
	r = mkw_fallocate(stage.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  at(word), n * WORD);
	record_zeros(word, n, start, "punch", r);
	if (r)
		wrote(word, n);
	else
		took(word, n, start);
}

void stage_zero(unsigned word, unsigned n)
{
	uint64_t start = begin("zeroes words [%llu, %llu)", word, n, 0);


	intend(word, n, NULL);
	record_zeros(word, n, start, "zero range",
		     mkw_fallocate(stage.file,
				   FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				   at(word), n * WORD));
	wrote(word, n);
}

void stage_allocate(unsigned word, unsigned n)
{
	sim_step("allocates words [%llu, %llu)", word, word + n, 0);
	check(mkw_fallocate(stage.file, FALLOC_FL_KEEP_SIZE, at(word),
			    n * WORD), "allocating");
	wrote(word, n);
}

/*
 * To the full size, or to less: then the words past it become zero. One task
 * truncates, to less and to the full size in turn, and other operations grow the
 * file by whole pages only: a store past the end, in the last page, may vanish
 * at any time and could not be judged.
 */
void stage_truncate(unsigned size)
{
	uint64_t start = begin("truncates to %llu words of %llu", size,
			       stage.words - size, 0);
	int r;

	stage.may_end_short = true;
	intend(size, stage.words - size, NULL);
	intend_length((uint64_t)at(size));
	r = mkw_truncate(stage.file, at(size));
	record_zeros(size, stage.words - size, start, "truncate", r);
	if (r)
		wrote(size, stage.words - size);
	else
		took(size, stage.words - size, start);
}

void stage_await_size(unsigned words)
{
	struct mkw__os_flag *flag;

	check(mkw__size_flag(stage.file, &flag), "mkw_size_fd()");
	while (mkw_size_seen(stage.file) != (int64_t)at(words))
		check(mkw__os_flag_wait(flag, UINT64_MAX), "a wait for the size");
}

static void sync_handle(struct mkw_file *file, unsigned n)
{
	uint64_t start;
	int r;

	sim_step("syncs", 0, 0, 0);
	start = sim_tick();
	r = mkw_sync(file);
	if (r == -ESTALE && stage.stretched) {
		stage.stale[n]++;
		return;
	}
	if (r != -EIO || !stage.may_fail)
		check(r, "syncing");
	stage.told[n] += r != 0;
	if (!r && start > stage.synced)
		stage.synced = start;
	sim_trace("the sync has returned %llu", (uint64_t)-r, 0, 0);
}

/* What the disk has of all words is a read that began at this tick. */
static void read_frozen(void)
{
	uint64_t start = sim_history_begin(0, stage.words);

	for (unsigned w = 0; w < stage.words && w < SIM_WORDS_MAX; w++)
		sim_history_add(w, "frozen disk", false,
				sim_disk_peek(stage.disk, (uint64_t)at(w)),
				start, false);
}

void stage_freeze(bool engine)
{
	sim_step("freezes", 0, 0, 0);
	check(engine ? mkw_engine_freeze(stage.engine) :
		       mkw_file_freeze(stage.file), "freezing");
	sim_step("it is frozen", 0, 0, 0);
	read_frozen();
	/* Others have their chance, whoever does not wait. */
	for (unsigned i = 0; i < 12; i++)
		sim_step("it is frozen still", 0, 0, 0);
	read_frozen();
	check(engine ? mkw_engine_thaw(stage.engine) :
		       mkw_file_thaw(stage.file), "thawing");
	sim_step("it is thawed", 0, 0, 0);
}

void stage_sync(void)
{
	if (stage.other && sim_random(2))
		sync_handle(stage.other, 1);
	else
		sync_handle(stage.file, 0);
}

void stage_sync_range(unsigned word, unsigned n, unsigned flags)
{
	uint64_t start = begin("syncs words [%llu, %llu)", word, n, 0);

	check(mkw_sync_range(stage.file, at(word), n * WORD, flags), "mkw_sync_range()");
	sim_trace("the sync of a range has returned", 0, 0, 0);
	for (unsigned w = word; w < word + n; w++)
		sim_history_add(w, "disk", false,
				sim_disk_peek(stage.disk, (uint64_t)at(w)), start, false);
}

void stage_dontneed(unsigned word, unsigned n)
{
	sim_step("has no need of words [%llu, %llu)", word, word + n, 0);
	check(mkw_advise(stage.file, at(word), n * WORD, MKW_ADVICE_DONTNEED),
	      "mkw_advise()");
}

void stage_discard(unsigned word, unsigned n)
{
	uint64_t start = begin("discards words [%llu, %llu)", word, n, 0);
	int64_t r = mkw_discard(stage.file, at(word), n * WORD);

	check(r, "mkw_discard()");
	stage.discarded = true;
	sim_trace("%llu bytes were discarded", (uint64_t)r, 0, 0);
	for (unsigned w = word; r && w < word + n; w++)
		if (sim_disk_is_bad(stage.disk, (uint64_t)at(w)))
			sim_history_add(w, "discard", true, STAGE_OLD + w, start, true);
}

void stage_discard_all(void)
{
	struct mkw_failed some;

	/* A page that failed beside a bad one is tried alone by the second. */
	sync_handle(stage.file, 0);
	sync_handle(stage.file, 0);
	stage_store(0, 0);
	stage_discard(0, stage.words);
	if (mkw_failed(stage.file, 0, &some, 1))
		sim_violation("a page at offset %llu could not be written, and is still there after a discard",
			      (unsigned long long)some.off);
}

/* ---- the callback ------------------------------------------------------- */

static int answer(const struct mkw_fault_error *error, void *arg)
{
	uint64_t end = stage.base + stage.pages * stage.page;

	(void)arg;
	mkw__rank_assert_none();
	if ((error->error != -EIO && error->error != -ENOSPC) ||
	    error->off < stage.base || error->off >= end)
		sim_violation("the callback is asked about error %d at offset %llu",
			      error->error, (unsigned long long)error->off);
	sim_trace("the callback is asked about offset %llu", error->off, 0, 0);
	sim_disk_fail(stage.disk, SIM_DISK_READ, 0);
	sim_disk_space_left(stage.disk, UINT64_MAX);
	return MKW_FAULT_RETRY;
}

void stage_answer(bool reads_fail)
{
	stage.answered = true;
	stage.may_lack_space = true;	/* a write may get short of either */
	check(mkw_file_on_fault_error(stage.file, answer, NULL),
	      "mkw_file_on_fault_error()");
	if (!reads_fail)
		return;
	stage.may_fail = true;
	sim_disk_fail(stage.disk, SIM_DISK_READ, UINT_MAX);
}

/* ---- a file that others change ------------------------------------------ */

void stage_stretch(void)
{
	sim_step("somebody makes the file longer", 0, 0, 0);
	stage.stretched = true;
	sim_disk_stretch(stage.disk, sim_disk_len(stage.disk) + 1);
}

void stage_unstretch(void)
{
	for (unsigned n = 0; n < 1 + !!stage.other; n++) {
		if (!stage.stale[n])
			sync_handle(n ? stage.other : stage.file, n);
		if (stage.stale[n] != 1)
			sim_violation("the file was made longer by others, and handle %u was told %u times",
				      n, stage.stale[n]);
	}
	sim_disk_stretch(stage.disk, sim_disk_len(stage.disk) - 1);
	stage.stretched = false;
}

void stage_change_elsewhere(unsigned word, unsigned n, unsigned also,
			    unsigned also_end, unsigned flags)
{
	uint64_t start = begin("somebody else writes words [%llu, %llu)", word, n, 0);
	uint64_t value[n], discard;
	unsigned from = also < word ? also : word;
	unsigned to = also_end > word + n ? also_end : word + n;

	for (unsigned i = 0; i < n; i++) {
		value[i] = new_value();
		sim_disk_change(stage.disk, (uint64_t)at(word + i), value[i]);
	}
	discard = begin("invalidates words [%llu, %llu)", from, to - from, 0);
	check(mkw_invalidate(stage.file, at(from), (to - from) * WORD, flags),
	      "mkw_invalidate()");
	stage.discarded |= flags & MKW_INVALIDATE_DISCARD;
	sim_trace("it is invalid", 0, 0, 0);
	for (unsigned i = 0; i < n; i++) {
		sim_history_add(word + i, "elsewhere", true, value[i], start, false);
		/* What was stored to it since is lost. */
		if (flags & MKW_INVALIDATE_DISCARD)
			sim_history_add(word + i, "discard", true, value[i], discard, false);
	}
	wrote(word, n);
}

void stage_invalidate(unsigned word, unsigned n)
{
	sim_step("invalidates words [%llu, %llu)", word, word + n, 0);
	check(mkw_invalidate(stage.file, at(word), n * WORD, 0), "mkw_invalidate()");
}

void stage_open_other(void)
{
	check(mkw__file_attach(stage.engine, sim_disk_store(stage.disk), true,
			       &stage.other), "mkw__file_attach()");
}

static struct mkw_pin *pin(unsigned map, unsigned word, unsigned flags)
{
	struct mkw_pin *pin = NULL;
	int r = mkw_pin((void *)(stage.map[map] + word * WORD), WORD, flags, &pin);

	if (r != -ENXIO || !stage.may_end_short)
		check(r, "mkw_pin()");
	return r ? NULL : pin;
}

void stage_device_load(unsigned map, unsigned word, void (*meanwhile)(void))
{
	uintptr_t addr = stage.map[map] + word * WORD;
	struct mkw_pin *p = pin(map, word, MKW_PIN_READ);
	uint64_t start, v;

	if (!p)
		return;
	sim_grab(addr, false);
	for (unsigned i = 0; i < 2; i++) {
		/* Has the mapping another frame by now? */
		if (i && meanwhile) {
			meanwhile();
			stage_store(map, word);
		}
		start = begin(".device load of word %llu", word, 1, 0);
		v = sim_grab_load(addr);
		sim_history_add(word, "device load", false, v, start, false);
	}
	sim_grab_end();
	check(mkw_unpin(p), "mkw_unpin()");
}

void stage_device_store(unsigned map, unsigned word)
{
	uintptr_t addr;
	struct mkw_pin *p;
	uint64_t start, v = new_value();

	if (stage.read_only[map])
		map = 0;
	addr = stage.map[map] + word * WORD;
	p = pin(map, word, MKW_PIN_WRITE);
	if (!p)
		return;
	sim_grab(addr, true);
	start = begin(".device store to word %llu", word, 1, 0);
	intend(word, 1, &v);
	sim_grab_store(addr, v);
	sim_history_add(word, "device store", true, v, start, false);
	wrote(word, 1);
	sim_grab_end();
	check(mkw_unpin(p), "mkw_unpin()");
}

static void unmap(uintptr_t addr, size_t len)
{
	check(mkw_unmap((void *)addr, len), "mkw_unmap()");
}

void stage_protect(unsigned map, unsigned page, unsigned end, int prot)
{
	void *addr = (void *)(stage.map[map] + page * stage.page);
	size_t len = (end - page) * stage.page;

	stage.may_vanish = true;
	sim_step("protects pages [%llu, %llu)", page, end, 0);
	check(mkw_protect(addr, len, prot), "mkw_protect()");
	sim_step("gives access again", 0, 0, 0);
	check(mkw_protect(addr, len, PROT_READ | PROT_WRITE), "mkw_protect()");
}

/*
 * The new place is fixed, so that it must move, and nothing was there before: somebody may
 * be at an access to what was.
 */
static uintptr_t move(uintptr_t from, size_t len)
{
	void *to;
	int r;

	do {
		stage.places++;
		r = mkw_remap((void *)from, len, len,
			      MKW_REMAP_MAYMOVE | MKW_MAP_FIXED_NOREPLACE,
			      (void *)(stage.map[0] +
				       stage.places * PAGES_MAX * stage.page), &to);
	} while (r == -EEXIST);
	check(r, "mkw_remap()");
	return (uintptr_t)to;
}

void stage_move(unsigned map, unsigned how)
{
	uintptr_t at = stage.map[map];
	size_t len = stage.pages * stage.page, page = stage.page;
	uintptr_t to;
	void *p;

	stage.may_vanish = true;
	sim_step("remaps, in the way number %llu", how, 0, 0);
	if (how == 0) {
		to = move(at, len);
		sim_step("has moved", 0, 0, 0);
		sim_touch(SIM_O_STAGE, NULL, map, SIM_WRITE);
		stage.map[map] = to;
	} else if (how == 1) {
		to = move(at + page, len - page);
		sim_step("has moved a part", 0, 0, 0);
		check(mkw_remap((void *)to, len - page, len - page,
				MKW_REMAP_MAYMOVE | MKW_MAP_FIXED_NOREPLACE,
				(void *)(at + page), &p), "mkw_remap() back");
	} else {
		check(mkw_remap((void *)at, len, len + page, MKW_REMAP_MAYMOVE,
				NULL, &p), "mkw_remap() to a longer one");
		sim_step("is longer", 0, 0, 0);
		sim_touch(SIM_O_STAGE, NULL, map, SIM_WRITE);
		stage.map[map] = (uintptr_t)p;
		check(mkw_remap(p, len + page, len, 0, NULL, &p),
		      "mkw_remap() to a shorter one");
	}
}

void stage_seal(unsigned map)
{
	int r;

	stage.may_vanish = true;
	do {
		sim_step("takes the right to store", 0, 0, 0);
		sim_touch(SIM_O_STAGE, NULL, map, SIM_READ);
		r = mkw_protect((void *)stage.map[map], stage.pages * stage.page,
				PROT_READ);
	} while (r == -ENOMEM);	/* it has moved */
	check(r, "mkw_protect()");
}

void stage_check_sealed(unsigned map)
{
	struct mkw__range_req table;
	struct mkw__map *m;

	mkw__map_table_lock(&table);
	m = mkw__map_find(stage.map[map]);
	if (!m || m->writable)
		sim_violation("a mapping may be stored to after mkw_protect()");
	mkw__map_table_unlock(&table);
}

void stage_remap(unsigned map, bool in_parts, bool in_thread)
{
	uintptr_t old = stage.map[map];
	void *addr;

	stage.may_vanish = true;
	sim_step("unmaps and maps again", 0, 0, 0);
	sim_touch(SIM_O_STAGE, NULL, map, SIM_WRITE);
	if (in_parts)
		unmap(old + stage.page, stage.page);
	unmap(old, stage.pages * stage.page);
	check(mkw_map(stage.file, NULL, stage.pages * stage.page,
		      PROT_READ | PROT_WRITE,
		      in_thread ? MKW_MAP_INLINE : 0, at(0), &addr), "mkw_map()");
	sim_step("the mapping is back", 0, 0, 0);
	sim_touch(SIM_O_STAGE, NULL, map, SIM_WRITE);
	stage.read_only[map] = false;
	stage.map[map] = (uintptr_t)addr;
}

void stage_break_disk(unsigned read, unsigned write, unsigned take, unsigned flush)
{
	stage.may_fail = read || write || take || flush;
	sim_disk_fail(stage.disk, SIM_DISK_READ, read);
	sim_disk_fail(stage.disk, SIM_DISK_WRITE, write);
	sim_disk_fail(stage.disk, SIM_DISK_TAKE, take);
	sim_disk_fail(stage.disk, SIM_DISK_FLUSH, flush);
}

void stage_bad_pages(unsigned page, unsigned end)
{
	stage.may_fail = stage.only_writes_fail = true;
	sim_disk_bad(stage.disk, stage.base + page * stage.page,
		     stage.base + end * stage.page);
}

void stage_fill_disk(unsigned page, unsigned blocks)
{
	stage_punch(page * stage.words_per_page,
		    (stage.pages - page) * stage.words_per_page);
	stage_sync();
	stage.may_lack_space = true;
	sim_disk_space_left(stage.disk, blocks);
}

void stage_resident(void)
{
	unsigned char vec[PAGES_MAX];

	check(mkw_resident(stage.file, 0, stage.pages * stage.page, vec),
	      "mkw_resident()");
}

void stage_seek(void)
{
	int64_t r = mkw_seek(stage.file, 0, sim_random(2) ? SEEK_DATA : SEEK_HOLE);

	if (r != -ENXIO)
		check(r, "mkw_seek()");
}

/* ---- queues -------------------------------------------------------------- */

#define REQUESTS_MAX 32u
#define REQUEST_WORDS 8u

static struct request {
	struct mkw_request of;
	unsigned word, n;
	uint64_t start;		/* of the submission; and when it was over, 0: it is not */
	uint64_t submitted;
	uint64_t ended;		/* when its result came, 0: it has none */
	bool cancelled;
	bool into;		/* a read into the mapping, at the words */
	uint64_t values[REQUEST_WORDS];
} requests[REQUESTS_MAX];
static unsigned requests_made, requests_ended;
static struct mkw_queue *queue;
static bool queue_alone;

void stage_queue_open(unsigned depth, unsigned threads, bool alone)
{
	struct mkw_queue_options opt = MKW_QUEUE_OPTIONS_INIT;

	memset(requests, 0, sizeof(requests));
	requests_made = requests_ended = 0;
	queue_alone = alone;
	opt.depth = depth;
	opt.threads = threads;
	check(mkw_queue_open(stage.engine, &opt, &queue), "mkw_queue_open()");
}

unsigned stage_submitted(void)
{
	return requests_made;
}

unsigned stage_reaped(void)
{
	return requests_ended;
}

static bool writes(const struct request *q)
{
	return q->of.op == MKW_OP_WRITE || q->of.op == MKW_OP_FALLOCATE;
}

/* The next request, which is filled in but for its buffer. */
static struct request *new_request(enum mkw_op op, unsigned word, unsigned n)
{
	struct request *q = &requests[requests_made];

	if (requests_made == REQUESTS_MAX || n > REQUEST_WORDS)
		sim_violation("scenario: more than %u requests, or one of more than %u words",
			      REQUESTS_MAX, REQUEST_WORDS);
	sim_touch(SIM_O_STAGE, requests, 0, SIM_WRITE);
	*q = (struct request){ .word = word, .n = n };
	q->of = (struct mkw_request){
		.size = sizeof(q->of), .op = op, .file = stage.file,
		.buf = q->values, .len = n * WORD, .off = at(word),
		.tag = requests_made++,
	};
	return q;
}

static bool submit_request(struct request *q)
{
	ssize_t r = mkw_queue_submit(queue, &q->of, 1);

	if (r != 1 && r != -EAGAIN)
		sim_violation("mkw_queue_submit() of a request returned %lld",
			      (long long)r);
	/* One that was not has no result: nobody waits for it. */
	if (r != 1) {
		q->of.op = 0;
		q->ended = sim_tick();
		requests_ended++;
	}
	q->submitted = sim_tick();
	sim_trace("the request is %llu, submitted: %llu", q->of.tag, r == 1, 0);
	return r == 1;
}

bool stage_submit(enum mkw_op op, unsigned word, unsigned n, unsigned flags,
		  unsigned order)
{
	struct request *q = new_request(op, word, n);

	q->of.flags = flags;
	q->of.order = order;
	for (unsigned i = 0; i < n && op == MKW_OP_WRITE; i++)
		q->values[i] = new_value();
	q->start = begin("submits request %llx of words [.., %llu), operation and order %llx",
			 word, n, op << 4 | order);
	if (writes(q))
		wrote(word, n);
	return submit_request(q);
}

void stage_submit_into(unsigned map, unsigned to, unsigned word, unsigned n)
{
	struct request *q = new_request(MKW_OP_READ, word, n);

	q->into = true;
	q->word = to;
	q->of.buf = (void *)(stage.map[map] + to * WORD);
	for (unsigned i = 0; i < n; i++)
		q->values[i] = STAGE_OLD + word + i;
	q->start = begin("submits a read to words [%llu, %llu) of the mapping", to, n,
			 0);
	wrote(to, n);
	if (!submit_request(q))
		sim_violation("scenario: the queue is full");
}

/* Is one to end before the other begins? */
static bool ordered(const struct request *a, const struct request *b)
{
	return a->submitted && a->submitted < b->start &&
	       ((a->of.order | b->of.order) & MKW_ORDER_BARRIER);
}

/* What was written before a sync, which has ended, is on the disk. */
static void check_covered(const struct request *sync)
{
	for (unsigned i = 0; i < requests_made; i++) {
		const struct request *q = &requests[i];

		if (q->of.op != MKW_OP_WRITE || q->cancelled || !q->ended ||
		    !(ordered(q, sync) || q->ended < sync->start))
			continue;
		for (unsigned w = 0; w < q->n; w++)
			if (sim_disk_peek(stage.disk, (uint64_t)at(q->word + w)) !=
			    q->values[w])
				sim_violation("request %u wrote %llx to word %u, the sync of request %u came after it, and the disk has %llx",
					      i, (unsigned long long)q->values[w],
					      q->word + w, (unsigned)sync->of.tag,
					      (unsigned long long)sim_disk_peek(
						      stage.disk,
						      (uint64_t)at(q->word + w)));
	}
}

static void judge_request(struct request *q, int64_t value)
{
	switch (q->of.op) {
	case MKW_OP_READ:
		check_count(value, q->n, q->of.flags, "a queued read");
		if (q->into) {
			record_write(q->word, q->n, q->values, value, q->start,
				     "queued read into");
			break;
		}
		sim_history_whole(q->start);
		for (unsigned i = 0; value > 0 && i < (unsigned)value / WORD; i++)
			sim_history_add(q->word + i, "queued read", false,
					q->values[i], q->start, false);
		break;
	case MKW_OP_WRITE:
		check_count(value, q->n, q->of.flags, "a queued write");
		sim_history_whole(q->start);
		record_write(q->word, q->n, q->values, value, q->start,
			     "queued write");
		break;
	case MKW_OP_FALLOCATE:
		record_zeros(q->word, q->n, q->start, "queued punch", (int)value);
		break;
	default:
		check(value, "a queued sync or prefetch");
		if (q->of.op != MKW_OP_PREFETCH && queue_alone)
			check_covered(q);
	}
}

static void result(const struct mkw_result *res)
{
	struct request *q = &requests[res->tag];

	if (res->tag >= requests_made || !q->of.op)
		sim_violation("a result of a request %llu that was not submitted",
			      (unsigned long long)res->tag);
	if (q->ended)
		sim_violation("request %llu has two results",
			      (unsigned long long)res->tag);
	sim_trace("the result of request %llu is %llx", res->tag,
		  (uint64_t)res->value, 0);
	q->ended = sim_tick();
	q->cancelled = res->value == -ECANCELED;
	requests_ended++;
	if (q->cancelled)
		return;
	for (unsigned i = 0; i < requests_made; i++)
		if (!requests[i].ended && ordered(&requests[i], q))
			sim_violation("request %llu has ended, and request %u before it has not: one of them is a barrier",
				      (unsigned long long)res->tag, i);
	judge_request(q, res->value);
}

void stage_reap(void)
{
	struct mkw_result some[3];
	ssize_t n;

	n = mkw_queue_reap(queue, some, 1 + sim_random(3), -1);
	if (n < 1)
		sim_violation("mkw_queue_reap() returned %lld", (long long)n);
	sim_touch(SIM_O_STAGE, requests, 0, SIM_WRITE);
	for (ssize_t i = 0; i < n; i++)
		result(&some[i]);
}

void stage_cancel(unsigned request)
{
	ssize_t n;

	sim_step("cancels request %llu", request, 0, 0);
	n = mkw_queue_cancel(queue, request);
	if (n != 0 && n != 1)
		sim_violation("cancelling one request returned %lld", (long long)n);
	sim_trace("the cancelling returns %llu", (uint64_t)n, 0, 0);
}

void stage_set_frozen(bool on)
{
	sim_step(on ? "freezes" : "thaws", 0, 0, 0);
	check(on ? mkw_file_freeze(stage.file) : mkw_file_thaw(stage.file),
	      on ? "freezing" : "thawing");
}

void stage_queue_close(void)
{
	struct mkw_result some;

	sim_step("closes the queue", 0, 0, 0);
	if (requests_ended == requests_made &&
	    mkw_queue_reap(queue, &some, 1, 0))
		sim_violation("a queue has a result, and no request");
	check(mkw_queue_close(queue), "mkw_queue_close()");
	/* Whatever became of the others has become by now. */
	for (unsigned i = 0; i < requests_made; i++) {
		struct request *q = &requests[i];

		for (unsigned w = 0; !q->ended && writes(q) && w < q->n; w++)
			sim_history_add(q->word + w, "queued write", true,
					q->values[w], q->start, true);
	}
}

/* ---- judging ----------------------------------------------------------- */

static unsigned words_watched(void)
{
	uint64_t size = (uint64_t)mkw_size(stage.file);
	unsigned n = size < stage.base ? 0 :
					 (unsigned)((size - stage.base) / WORD);

	if (n > stage.words)
		n = stage.words;
	return n < SIM_WORDS_MAX ? n : SIM_WORDS_MAX;
}

static void read_by_calls(void)
{
	unsigned n = words_watched();

	for (unsigned w = 0; w < n; w += stage.words_per_page) {
		unsigned some = stage.words_per_page < n - w ?
					stage.words_per_page : n - w;

		stage_read(w, some, 0);
		if (some % (SIM_BLOCK / WORD) == 0)
			stage_read(w, some, MKW_DIRECT);
	}
}

static void read_all(void)
{
	unsigned n = words_watched();

	for (unsigned m = 0; m < stage.maps; m++)
		for (unsigned w = 0; w < n; w++)
			stage_load(m, w);
	read_by_calls();
}

static void read_disk(void)
{
	unsigned n = words_watched();

	if (sim_disk_len(stage.disk) != (uint64_t)mkw_size(stage.file))
		sim_violation("the file's size is %lld, the disk's %llu",
			      (long long)mkw_size(stage.file),
			      (unsigned long long)sim_disk_len(stage.disk));
	for (unsigned w = 0; w < n; w++)
		sim_history_add(w, "disk", false,
				sim_disk_peek(stage.disk, (uint64_t)at(w)), sim_tick(),
				false);
}

/* Whole operations, with what the disk has after a sync as the end of it all. */
static void judge_wholes(void)
{
	uint64_t end[SIM_WORDS_MAX];

	for (unsigned w = 0; w < stage.words; w++)
		end[w] = sim_disk_peek(stage.disk, (uint64_t)at(w));
	sim_strict_judge(end);
}

static void stray_blocks(void)
{
	for (unsigned p = 0; p < stage.pages; p++) {
		if (page_times[p].last_take <= page_times[p].last_write)
			continue;
		for (uint64_t off = p * stage.page; off < (p + 1) * stage.page;
		     off += SIM_BLOCK)
			if (sim_disk_allocated(stage.disk, stage.base + off))
				sim_violation("stray block at offset %llu: the last change of its page was to punch it",
					      (unsigned long long)(stage.base + off));
	}
}

/* Of a write that failed every handle is told at least once. */
static void lost_errors(void)
{
	if (!sim_disk_failed_writes(stage.disk))
		return;
	for (unsigned n = 0; n < 1 + !!stage.other; n++)
		if (!stage.told[n])
			sim_violation("an error was lost: a write failed, and no sync of handle %u said so",
				      n);
}

/* What a sync could not write is listed, as long as the disk refuses it. */
static void unlisted_pages(void)
{
	struct mkw_failed some;
	unsigned told = stage.told[0];

	sync_handle(stage.file, 0);
	sim_settle();
	if (stage.told[0] != told && !stage.discarded && !mkw_failed(stage.file, 0, &some, 1))
		sim_violation("an error was lost: a sync failed, and no page is listed that cannot be written");
}

void stage_close(void)
{
	bool early = stage_options.search || sim_random(2);
	bool had_failed = stage.may_fail;

	stage_end();
	stage.may_vanish = false;
	if (stage.only_writes_fail)
		unlisted_pages();
	stage_break_disk(0, 0, 0, 0);
	sim_disk_bad(stage.disk, 0, 0);
	stage.may_fail = had_failed;
	sim_step("all tasks have ended: reads everything, in every way", 0, 0, 0);
	/* What a failed read has poisoned heals when it is read. */
	if (had_failed && !stage.only_writes_fail)
		read_by_calls();
	if (stage.may_fail)
		stage.only_writes_fail = true;
	if (early)
		read_all();
	/* There a load reserves, and a fault's hold ends after its access. */
	if (stage_options.old_kernel)
		sim_settle();
	/* An earlier failure is reported once to each; then everything is written. */
	if (stage.may_fail) {
		sync_handle(stage.file, 0);
		if (stage.other)
			sync_handle(stage.other, 1);
	}
	stage.may_fail = false;
	sync_handle(stage.file, 0);
	lost_errors();
	stage.may_fail = had_failed;
	read_disk();
	if (stage.strict)
		judge_wholes();
	stray_blocks();
	if (!early)
		read_all();
	/* Nothing that was only read may become dirty; there it gets credit. */
	if (stage_options.old_kernel) {
		sim_settle();
		stage_sync();
	}
	stray_blocks();
	sim_history_judge();

	/* Closing against a flusher at work is worth a try, too. */
	if (stage_options.search || sim_random(2)) {
		sim_calm();
		mkw__engine_verify(stage.engine);
	}
	stage_totals.faults += atomic_load(&stage.engine->count.faults);
	stage_totals.parks += atomic_load(&stage.engine->count.parks);
	stage_totals.retries += atomic_load(&stage.engine->count.retries);
	for (unsigned m = 0; m < stage.maps; m++)
		unmap(stage.map[m], stage.pages * stage.page);
	if (stage.other)
		check(mkw_file_close(stage.other), "mkw_file_close()");
	check(mkw_file_close(stage.file), "mkw_file_close()");
	stage.file = NULL;
	check(mkw_engine_close(stage.engine), "mkw_engine_close()");
}

/* ---- after a crash ------------------------------------------------------ */

#define IMAGES 12u		/* of what a crash may leave are looked at */
#define IMAGE_SIZE 8192u

static char image[IMAGE_SIZE];
static uint64_t image_len;

static uint64_t image_word(unsigned w)
{
	uint64_t v = 0;

	if ((uint64_t)at(w) + WORD <= image_len)
		memcpy(&v, image + at(w), sizeof(v));
	return v;
}

static bool length_was_set(void)
{
	for (unsigned i = 0; i < stage.length_count; i++)
		if (stage.lengths[i] == image_len)
			return true;
	return false;
}

/* Has the block of stage_own() ever held this, as far as the file goes? */
static bool block_was_owned(const uint64_t *block, uint64_t len)
{
	for (unsigned i = 0; i < stage.owned_count; i++) {
		unsigned w = 0;

		while (w < BLOCK_WORDS &&
		       ((uint64_t)at(stage.own + w) + WORD > len ||
			block[w] == stage.owned[i][w]))
			w++;
		if (w == BLOCK_WORDS)
			return true;
	}
	return !stage.owned_count;
}

/* A crash just now may leave this block: no need to wait for one. */
static void block_written(uint64_t off)
{
	uint64_t block[BLOCK_WORDS];

	if (!stage.owned_count || off != (uint64_t)at(stage.own))
		return;
	for (unsigned w = 0; w < BLOCK_WORDS; w++)
		block[w] = sim_disk_peek(stage.disk, (uint64_t)at(stage.own + w));
	if (!block_was_owned(block, sim_disk_len(stage.disk)))
		sim_violation("the disk has got %llx %llx in the block of words %u and %u: the file never held both",
			      (unsigned long long)block[0],
			      (unsigned long long)block[1], stage.own,
			      stage.own + 1);
}

void stage_watch(void)
{
	intend_length((uint64_t)at(stage.words));
	sim_disk_watch(stage.disk, block_written);
}

/* May the image be what the crash left (G7)? Says what is wrong otherwise. */
static bool judge_image(struct sim_result *res)
{
	uint64_t block[BLOCK_WORDS];

	if (!length_was_set()) {
		snprintf(res->message, sizeof(res->message),
			 "after the crash the file has %llu bytes, which nobody set",
			 (unsigned long long)image_len);
		return false;
	}
	for (unsigned w = 0; w < BLOCK_WORDS; w++)
		block[w] = image_word(stage.own + w);
	if (!block_was_owned(block, image_len)) {
		snprintf(res->message, sizeof(res->message),
			 "after the crash the block of words %u and %u is %llx %llx: the file never held both",
			 stage.own, stage.own + 1, (unsigned long long)block[0],
			 (unsigned long long)block[1]);
		return false;
	}
	for (unsigned w = 0; w < stage.words; w++) {
		if ((uint64_t)at(w) + WORD > image_len ||
		    sim_history_may_survive(w, image_word(w), stage.synced))
			continue;
		snprintf(res->message, sizeof(res->message),
			 "after the crash word %u is %llx: never written there, or gone when a sync began that has returned (tick %llu)",
			 w, (unsigned long long)image_word(w),
			 (unsigned long long)stage.synced);
		return false;
	}
	return true;
}

/* The file of the image, opened by another engine: the same in every way? */
static void recover_main(void *arg)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	(void)arg;
	stage.disk = sim_disk_create(image_len);
	for (uint64_t off = 0; off + WORD <= image_len; off += WORD) {
		uint64_t v;

		memcpy(&v, image + off, sizeof(v));
		sim_disk_poke(stage.disk, off, v);
	}
	mkw__map_reset();
	check(mkw_engine_open(&opt, &stage.engine), "mkw_engine_open()");
	check(mkw__file_attach(stage.engine, sim_disk_store(stage.disk), true,
			       &stage.file), "mkw__file_attach()");
	stage.maps = 0;
	stage_map_any();
	for (unsigned w = 0; (uint64_t)at(w) + WORD <= image_len && w < stage.words; w++) {
		uint64_t v = 0, read = 0;

		if (sim_load(stage.map[0] + w * WORD, &v) != SIM_OK ||
		    mkw_pread(stage.file, &read, WORD, at(w), 0) != (ssize_t)WORD ||
		    v != image_word(w) || read != v)
			sim_violation("after the crash and a recovery word %u is %llx mapped, %llx read, %llx on the disk",
				      w, (unsigned long long)v,
				      (unsigned long long)read,
				      (unsigned long long)image_word(w));
	}
	unmap(stage.map[0], stage.pages * stage.page);
	check(mkw_file_close(stage.file), "mkw_file_close()");
	check(mkw_engine_close(stage.engine), "mkw_engine_close()");
}

/* The contents that the disk may have now, and the engine's view of one. */
static bool after_crash(const struct sim_config *cfg, struct sim_result *res)
{
	struct sim_config again = { .seed = cfg->seed, .old_kernel = cfg->old_kernel,
				    .store_threads = cfg->store_threads };
	uint64_t random = cfg->seed ^ cfg->crash_step;
	struct sim_result recovered;

	for (unsigned i = 0; i < IMAGES && sim_disk_watched(stage.disk); i++) {
		image_len = sim_disk_crash(stage.disk, &random, image, sizeof(image));
		res->violated = !judge_image(res);
		if (res->violated)
			return false;
	}
	if (sim_disk_watched(stage.disk) &&
	    !sim_run(&again, recover_main, NULL, &recovered)) {
		*res = recovered;
		return false;
	}
	return true;
}

/* ---- who waits for whom -------------------------------------------------- */

static void print_who(FILE *to, const struct mkw__range_req *req)
{
	const char *task = sim_stack_owner(req);

	if (task)
		fputs(task, to);
	else
		fprintf(to, "the fault at %#llx", (unsigned long long)
			MKW__CONTAINER(req, struct mkw__fault, ticket)->addr);
}

static void print_range(FILE *to, const struct mkw__range_req *req)
{
	fprintf(to, "[%llu, ", (unsigned long long)req->start);
	if (req->end == MKW__RANGE_MAX)
		fputs("end)", to);
	else
		fprintf(to, "%llu)", (unsigned long long)req->end);
	fputs(req->exclusive ? " exclusively" : " shared", to);
}

/* Those of the list, up to `until`, that req waits for. */
static void print_blockers(FILE *to, const struct mkw__range_reqs *list,
			   const struct mkw__range_req *req,
			   const struct mkw__range_req *until, const char *how)
{
	const struct mkw__range_req *o;

	TAILQ_FOREACH(o, list, link) {
		if (o == until)
			break;
		if (!mkw__range_conflicts(o, req))
			continue;
		fputs("    ", to);
		print_who(to, o);
		fputs(how, to);
		print_range(to, o);
		fputc('\n', to);
	}
}

static void print_lock(FILE *to, const char *name, const struct mkw__range_lock *rl)
{
	const struct mkw__range_req *req;

	TAILQ_FOREACH(req, &rl->waiting, link) {
		fputs("  ", to);
		print_who(to, req);
		fprintf(to, " waits for %s ", name);
		print_range(to, req);
		fputs(", but\n", to);
		print_blockers(to, &rl->held, req, NULL, " holds ");
		print_blockers(to, &rl->waiting, req, req, " was there before, for ");
	}
}

void stage_print_waits(FILE *to)
{
	if (!stage.file || (TAILQ_EMPTY(&stage.file->inode->iolock.waiting) &&
			    TAILQ_EMPTY(&stage.file->inode->invalidate_lock.waiting)))
		return;
	fputs("who waits for whom:\n", to);
	print_lock(to, "IOLOCK", &stage.file->inode->iolock);
	print_lock(to, "INVALIDATE", &stage.file->inode->invalidate_lock);
}

/* ---- runs -------------------------------------------------------------- */

static void play_main(void *arg)
{
	const struct play *p = arg;

	if (p->small)
		small_play(p->small);
	else
		p->scenario->play();
}

bool play_run(const struct play *p, struct sim_scheduler *scheduler, bool trace,
	      struct sim_result *res)
{
	struct sim_config cfg = {
		.seed = p->seed,
		.page_size = p->small ? SMALL_PAGE : 0,
		.step_limit = p->small ? SMALL_LIMIT : 0,
		/* Half of the runs on a machine that has no rare moods. */
		.oddities = !p->small && p->seed % 2,
		.old_kernel = p->options.old_kernel,
		.store_threads = p->options.store_threads,
		.trace = trace,
		.transactions = p->small,
		.scheduler = scheduler,
	};

	stage_options = p->options;
	stage_options.search = p->small;
	if (!p->small && p->scenario->crashes) {
		uint64_t random = ~p->seed;

		stage_options.crashes = true;
		cfg.crash_step = 150 + sim_next_random(&random) % 2000;
	}
	if (!sim_run(&cfg, play_main, (void *)(uintptr_t)p, res))
		return false;
	return !res->crashed || after_crash(&cfg, res);
}
