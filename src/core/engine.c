/* SPDX-License-Identifier: MIT */
/*
 * The engine: opening, closing, counters, and a check of everything it holds.
 */
#include <errno.h>
#include <string.h>

#include "core/engine.h"

#define CACHE_BYTES_DEFAULT ((uint64_t)256 << 20)
#define WRITEBACK_AGE_MS_DEFAULT 5000u
/* What an engine may have beside its cache: buffers, leaves, tables, threads. */
#define BESIDE_CACHE ((uint64_t)32 << 20)

/*
 * The cache's size; 0: what was asked for cannot be had, and the kernel would end the
 * process when the cache has grown, where no error can be returned.
 */
static uint64_t cache_size(const struct mkw_engine_options *opt)
{
	uint64_t limit, most, bytes = opt->cache_bytes;
	char where[256];

	limit = mkw__os_memory_limit(where, sizeof(where));
	most = limit > BESIDE_CACHE ? limit - BESIDE_CACHE : 0;
	if (!bytes)
		bytes = mkw__max(MKW_CACHE_BYTES_MIN,
				 mkw__min(CACHE_BYTES_DEFAULT,
					  mkw__min(limit / 2, most)));
	if (bytes <= most)
		return bytes;
	mkw__os_tell("asked for a cache of %llu KiB, found that this process may have %llu KiB of memory (%s): that must hold the cache and %llu KiB beside it; set cache_bytes lower, or the limit higher",
		     (unsigned long long)bytes >> 10,
		     (unsigned long long)limit >> 10, where,
		     (unsigned long long)BESIDE_CACHE >> 10);
	return 0;
}

int mkw__engine_open(const struct mkw_engine_options *opt,
		     struct mkw_engine **out)
{
	struct mkw__os_mmu_caps caps;
	uint64_t bytes = cache_size(opt);
	uint32_t age = opt->writeback_age_ms ? opt->writeback_age_ms :
					       WRITEBACK_AGE_MS_DEFAULT;
	struct mkw_engine *e;
	int r;

	if (!bytes)
		return -ENOMEM;
	e = mkw__os_zalloc(sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->page = mkw__os_page_size();
	while (((size_t)1 << e->page_shift) < e->page)
		e->page_shift++;
	e->process = mkw__os_process();
	e->policy = opt->policy;
	e->alloc = opt->alloc;
	e->writeback_age_ns = (uint64_t)age * 1000000;
	mkw__mutex_init(&e->files, MKW__RANK_FILES);
	TAILQ_INIT(&e->inodes);

	r = mkw__os_at_fork(mkw__map_reset);
	if (r)
		goto free_engine;
	e->glance = mkw__os_glance_open();
	r = mkw__pool_init(e, bytes);
	if (r)
		goto free_engine;
	e->failed_max = opt->failed_bytes_max ?
				opt->failed_bytes_max >> e->page_shift :
				e->pool.frames_max / 4;
	e->pinned_max = mkw__max(e->pool.frames_max / 4, 1);
	r = mkw__os_mmu_open(false, &e->mmu, &e->caps);
	if (r)
		goto fini_pool;
	r = mkw__os_mmu_open(true, &e->mmu_in_thread, &caps);
	if (r)
		goto close_mmu;
	mkw__os_set_handler(mkw__fault_in_thread);
	r = mkw__flusher_start(e);
	if (r)
		goto close_mmus;
	r = mkw__space_start(e);
	if (r)
		goto stop_flusher;
	r = mkw__pager_start(e);
	if (r)
		goto stop_space;
	*out = e;
	return 0;

stop_space:
	mkw__space_stop(e);
stop_flusher:
	mkw__flusher_stop(e);
	mkw__flusher_fini(e);
close_mmus:
	mkw__os_mmu_close(e->mmu_in_thread);
close_mmu:
	mkw__os_mmu_close(e->mmu);
fini_pool:
	mkw__pool_fini(e);
free_engine:
	mkw__os_free(e);
	return r;
}

int mkw__engine_close(struct mkw_engine *e)
{
	bool busy;

	/* Inodes live as long as a handle or a mapping does. */
	mkw__mutex_lock(&e->files);
	mkw__mutex_lock(&e->pool.mutex);
	busy = !TAILQ_EMPTY(&e->inodes) || e->queues;
	mkw__mutex_unlock(&e->pool.mutex);
	mkw__mutex_unlock(&e->files);
	if (busy)
		return -EBUSY;
	/* Each of them may be kicking one further down, for the last time. */
	mkw__space_stop(e);
	mkw__flusher_stop(e);
	mkw__pager_stop(e);
	mkw__flusher_fini(e);
	/* Nobody has anything more to tell. */
	mkw__log_stop(e);
	mkw__os_mmu_close(e->mmu_in_thread);
	mkw__os_mmu_close(e->mmu);
	mkw__pool_fini(e);
	mkw__os_free(e);
	return 0;
}

static uint64_t get(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void mkw__engine_stats(struct mkw_engine *e, struct mkw_stats *st)
{
	struct mkw__counters *c = &e->count;
	uint64_t used;

	mkw__mutex_lock(&e->pool.mutex);
	used = e->pool.frames_used;
	mkw__mutex_unlock(&e->pool.mutex);
	*st = (struct mkw_stats){
		.size = sizeof(*st),
		.policy = e->policy,
		.kernel_faults = e->caps.kernel_faults,
		.cache_bytes = e->pool.frames_max << e->page_shift,
		.cached_bytes = used << e->page_shift,
		.dirty_bytes = get(&c->dirty_pages) << e->page_shift,
		.faults = get(&c->faults),
		.write_faults = get(&c->write_faults),
		.inline_faults = get(&c->inline_faults),
		.faults_merged = get(&c->faults_merged),
		.fills = get(&c->fills),
		.fill_pages = get(&c->fill_pages),
		.fill_errors = get(&c->fill_errors),
		.readahead_pages = get(&c->readahead_pages),
		.parks = get(&c->parks),
		.retries = get(&c->retries),
		.longest_wait_ns = get(&c->longest_wait_ns),
		.writebacks = get(&c->writebacks),
		.writeback_pages = get(&c->writeback_pages),
		.writeback_errors = get(&c->writeback_errors),
		.reclaim_unmapped = get(&c->reclaim_unmapped),
		.reclaim_dropped = get(&c->reclaim_dropped),
		.bounced = get(&c->bounced),
		.cache_bypasses = get(&c->cache_bypasses),
		.reservations = get(&c->reservations),
		.failed_bytes = get(&c->failed_pages) << e->page_shift,
		.lost_bytes = get(&c->lost_pages) << e->page_shift,
		.credit_bytes = get(&c->credit_pages) << e->page_shift,
	};
}

/* ---- the check -------------------------------------------------------- */

static void verify_page(struct mkw__inode *in, uint64_t idx, uint32_t word,
			uint64_t *present)
{
	unsigned long long page = idx;
	bool frame;

	if (word & PG_LOCKED)
		mkw__os_panic("verify: page %llu is locked by nobody", page);
	if (PG_STATE(word) == PG_ABSENT)
		mkw__os_panic("verify: page %llu has bits 0x%x but no frame",
			      page, word);
	if (!pg_in(word, PG_BIT(PG_CLEAN) | PG_DIRTY_MASK))
		mkw__os_panic("verify: page %llu is being filled by nobody",
			      page);
	frame = mkw__os_frames_present(in->frames,
				       idx << in->engine->page_shift);
	if (!frame)
		mkw__os_panic("verify: page %llu, state %d, has no frame",
			      page, PG_STATE(word));
	++*present;
}

static void verify_inode(struct mkw__inode *in, uint64_t *present,
			 uint64_t *dirty)
{
	uint64_t idx, size, here = 0, failed = 0;
	struct mkw__excl x = { .gate = NULL };

	/* An access goes on a moment before its fault has let go of the locks. */
	mkw__excl_lock(in, &x, 0, MKW__RANGE_MAX, EXCL_HOLD, false);
	size = atomic_load_explicit(&in->size, memory_order_acquire);
	mkw__mutex_lock(&in->tree);
	for (idx = 0; (idx = mkw__page_next_locked(in, idx, UINT64_MAX,
						   ~PG_BIT(PG_ABSENT))) !=
		      UINT64_MAX; idx++) {
		uint32_t word = mkw__page_get_locked(in, idx);

		verify_page(in, idx, word, present);
		here += pg_in(word, PG_DIRTY_MASK);
		failed += (word & PG_FAILED) != 0;
		if (idx >= mkw__pages_up(in->engine, size))
			mkw__os_panic("verify: page %llu lies past the end",
				      (unsigned long long)idx);
	}
	if (here != in->dirty)
		mkw__os_panic("verify: %llu dirty pages, counted as %llu",
			      (unsigned long long)here,
			      (unsigned long long)in->dirty);
	if (failed != in->failed)
		mkw__os_panic("verify: %llu pages have failed, counted as %llu",
			      (unsigned long long)failed,
			      (unsigned long long)in->failed);
	*dirty += here;
	for (unsigned i = 0; i < MKW__PAGE_WAIT_BUCKETS; i++)
		if (!TAILQ_EMPTY(&in->waiters[i]))
			mkw__os_panic("verify: somebody waits for a page of an idle file");
	mkw__reserve_verify_locked(in);
	mkw__mutex_unlock(&in->tree);
	mkw__excl_unlock(in, &x);
}

void mkw__engine_verify(struct mkw_engine *e)
{
	uint64_t present = 0, dirty = 0;
	struct mkw__inode *in;
	size_t bufs = 0;
	struct mkw__buf *buf;

	mkw__ra_quiesce(e, true);
	mkw__flusher_quiesce(e, true);
	mkw__mutex_lock(&e->files);
	while ((in = mkw__inode_next_visit(e)))
		verify_inode(in, &present, &dirty);
	mkw__inode_end_visits(e);
	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(buf, &e->pool.bufs, link)
		bufs++;
	if (present != e->pool.frames_used)
		mkw__os_panic("verify: %llu pages have frames, counted as %llu",
			      (unsigned long long)present,
			      (unsigned long long)e->pool.frames_used);
	if (bufs != MKW__BUFFERS)
		mkw__os_panic("verify: %zu of %u buffers are missing",
			      MKW__BUFFERS - bufs, MKW__BUFFERS);
	mkw__mutex_unlock(&e->pool.mutex);
	if (dirty != get(&e->count.dirty_pages))
		mkw__os_panic("verify: the engine's count of dirty pages is wrong");
	mkw__mutex_unlock(&e->files);
	mkw__flusher_quiesce(e, false);
	mkw__ra_quiesce(e, false);
}
