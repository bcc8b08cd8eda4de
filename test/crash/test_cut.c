/* SPDX-License-Identifier: MIT */
/*
 * The power is cut: what a device may lose of what was not flushed is dropped, and
 * what is left is judged (G7).
 *
 * The engine runs on the store of cut.h, under the load of load.h and a cache of a
 * third of the file. Every so many operations, a number that the seed gives,
 * the thread whose turn it is holds the record still, takes an image of what a cut
 * at this moment could leave, and judges it. The run goes on: a cut is a look, so
 * there can be thousands of them.
 *
 *   test_cut [CUTS [SEED]]
 *
 * Then, for each kind of finding, with a bug planted into the device or into the
 * engine; each must be found.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access.h"
#include "core/core.h"
#include "core/engine.h"
#include "core/testing.h"
#include "crash/cut.h"
#include "crash/load.h"

#define PLANTED_CUTS 400u

static struct {
	struct mkw__store *store;
	struct record *record;
	pthread_mutex_t mutex;		/* of the record, and of what follows */
	uint64_t random;
	unsigned left, countdown, cuts;
	void *image;
	char why[300];			/* the first finding */
	_Atomic bool over;
} run;

static void lock(void)
{
	pthread_mutex_lock(&run.mutex);
}

static void unlock(void)
{
	pthread_mutex_unlock(&run.mutex);
}

static void finding(const char *what)
{
	lock();
	if (!run.why[0])
		snprintf(run.why, sizeof(run.why), "%s", what);
	unlock();
	run.over = true;
}

static uint32_t pick(uint32_t below)
{
	run.random = run.random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(run.random >> 33) % below;
}

/* Mutex held. */
static void cut_now(void)
{
	uint64_t size = cut_image(run.store, &run.random, run.image);
	char why[sizeof(run.why)];

	run.cuts++;
	record_trim(run.record);
	if (record_judge(run.record, run.image, size, why, sizeof(why)))
		return;
	if (!run.why[0])
		memcpy(run.why, why, sizeof(why));
	run.over = true;
}

static bool after(void)
{
	lock();
	if (!run.over && !run.countdown--) {
		cut_now();
		run.countdown = pick(60);
		if (!--run.left)
			run.over = true;
	}
	unlock();
	return run.over;
}

/* NULL: nothing was found in so many cuts. */
static const char *cut_power(unsigned cuts, uint64_t seed,
			     enum mkw_policy policy, unsigned map_flags,
			     enum cut_planted planted)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *engine;
	struct load l = { .direct_align = BLOCK, .seed = seed, .lock = lock,
			  .unlock = unlock, .after = after,
			  .finding = finding };

	run.left = cuts;
	run.cuts = run.countdown = 0;
	run.random = seed;
	run.why[0] = 0;
	run.over = false;
	run.record = malloc(record_bytes(LOAD_BLOCKS));
	run.image = malloc(LOAD_BYTES);
	record_init(run.record, LOAD_BLOCKS, LOAD_TAIL, LOAD_START);
	run.store = cut_open(LOAD_START, LOAD_BYTES, planted);

	opt.policy = policy;
	opt.writeback_age_ms = 2;
	mkw__testing.cache_frames = LOAD_BYTES / mkw__os_page_size() / 3;
	if (mkw_engine_open(&opt, &engine) ||
	    mkw__file_attach(engine, run.store, true, &l.file) ||
	    mkw_map(l.file, NULL, LOAD_BYTES, PROT_READ | PROT_WRITE, map_flags,
		    0, (void **)&l.map)) {
		printf("FAILED: the engine cannot be opened\n");
		exit(1);
	}
	l.record = run.record;
	load_run(&l);
	mkw_unmap(l.map, LOAD_BYTES);
	mkw_file_close(l.file);
	mkw_engine_close(engine);
	free(run.record);
	free(run.image);
	return run.why[0] ? run.why : NULL;
}

/* ---- planted bugs ----------------------------------------------------- */

static bool sync_writes_nothing;

int __real_mkw__wb_sync(struct mkw_file *file);
int __wrap_mkw__wb_sync(struct mkw_file *file);

int __wrap_mkw__wb_sync(struct mkw_file *file)
{
	struct mkw__store *st = file->inode->store;

	return sync_writes_nothing ? mkw__store_flush(st) :
				     __real_mkw__wb_sync(file);
}

static int look_for_planted(uint64_t seed)
{
	static const struct {
		const char *name;
		enum cut_planted device;
		const char *mutant;
		bool sync;
	} bugs[] = {
		{ .name = "a flush that does nothing",
		  .device = CUT_IGNORES_FLUSH },
		{ .name = "a write that ends before it is made",
		  .device = CUT_ENDS_EARLY },
		{ .name = "half a block", .device = CUT_TEARS },
		{ .name = "growth to whole blocks first",
		  .device = CUT_ROUNDS_SIZES },
		{ .name = "a sync that writes nothing", .sync = true },
		{ .name = "a write that leaves its page clean",
		  .mutant = "WRITE_SKIPS_DIRTY" },
		{ .name = "the edge of a hole in an older block",
		  .mutant = "EDGES_UNWRITTEN" },
	};
	int missed = 0;

	for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
		const char *why = NULL;

		sync_writes_nothing = bugs[i].sync;
		mkw__testing.mutant = bugs[i].mutant ?
						mkw__mutant_find(bugs[i].mutant) :
						MKW__MUTANT_NONE;
		for (unsigned n = 0; !why && n < 10; n++)
			why = cut_power(PLANTED_CUTS, seed + n,
					MKW_POLICY_RETRY, 0, bugs[i].device);
		if (why)
			printf("planted: %s: found (%s)\n", bugs[i].name, why);
		else
			printf("FAILED: planted: %s: not found\n", bugs[i].name);
		missed += !why;
	}
	sync_writes_nothing = false;
	mkw__testing.mutant = MKW__MUTANT_NONE;
	return missed;
}

int main(int argc, char **argv)
{
	unsigned cuts = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) :
				   TEST_SLOW ? 400 : 1200;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	access_begin();
	if (!access_possible())
		return 77;
	pthread_mutex_init(&run.mutex, NULL);
	for (unsigned way = 0; way < 4; way++) {
		const char *why = cut_power(
			(cuts + 3) / 4, seed + way,
			way & 1 ? MKW_POLICY_INVALIDATE : MKW_POLICY_RETRY,
			way & 2 ? MKW_MAP_INLINE : 0, CUT_SOUND);

		printf("%s, %s: %u cuts%s%s\n",
		       way & 1 ? "invalidate" : "retry",
		       way & 2 ? "inline" : "pager", run.cuts,
		       why ? ": FAILED: " : "", why ? why : "");
		if (why)
			return 1;
	}
	return look_for_planted(seed) != 0;
}
