/* SPDX-License-Identifier: MIT */
/*
 * Inodes and handles: from open to the last close.
 *
 * The FILES mutex serialises opening with the end of an inode, so that a file
 * that is being closed is either found whole or not at all. Ending an inode:
 * write back, mark dead under the POOL mutex (no new pins), wait for the pins
 * (each is a fault or a pass of the flusher, which ends without FILES), drop the
 * pages, close the store. The file's ownership goes with the store, so when
 * the last mkw_file_close() or mkw_unmap() returns another engine can have it.
 */
#include <errno.h>

#include "core/engine.h"

static struct mkw__pool *pool(struct mkw__inode *in)
{
	return &in->engine->pool;
}

bool mkw__inode_pin_locked(struct mkw__inode *in)
{
	if (in->dead)
		return false;
	mkw__sim_counts(&in->pins);
	in->pins++;
	return true;
}

bool mkw__inode_pin(struct mkw__inode *in)
{
	bool ok;

	mkw__mutex_lock(&pool(in)->mutex);
	ok = mkw__inode_pin_locked(in);
	mkw__mutex_unlock(&pool(in)->mutex);
	return ok;
}

void mkw__inode_unpin(struct mkw__inode *in)
{
	struct mkw__pool *p = pool(in);

	mkw__mutex_lock(&p->mutex);
	mkw__sim_counts(&in->pins);
	/* Under the mutex: once it is set the inode may be freed, and whoever
	 * frees it takes the mutex first. */
	if (!--in->pins && in->dead)
		mkw__os_event_set(&in->drained);
	mkw__mutex_unlock(&p->mutex);
}

bool mkw__inode_used(struct mkw__inode *in)
{
	bool used;

	mkw__mutex_lock(&pool(in)->mutex);
	used = in->users > 0;
	mkw__mutex_unlock(&pool(in)->mutex);
	return used;
}

void mkw__inode_use(struct mkw__inode *in)
{
	mkw__mutex_lock(&pool(in)->mutex);
	in->users++;
	mkw__mutex_unlock(&pool(in)->mutex);
}

struct mkw__inode *mkw__inode_next_visit(struct mkw_engine *e)
{
	struct mkw__inode *in;

	/* The flusher, which does not take FILES, rotates the list. */
	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(in, &e->inodes, link)
		if (!in->visited)
			break;
	if (in)
		in->visited = true;
	mkw__mutex_unlock(&e->pool.mutex);
	return in;
}

void mkw__inode_end_visits(struct mkw_engine *e)
{
	struct mkw__inode *in;

	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(in, &e->inodes, link)
		in->visited = false;
	mkw__mutex_unlock(&e->pool.mutex);
}

static struct mkw__inode *inode_find(struct mkw_engine *e,
				     const struct mkw__store *st)
{
	struct mkw__inode *in;

	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_FOREACH(in, &e->inodes, link)
		if (mkw__store_same(in->store, st))
			break;
	mkw__mutex_unlock(&e->pool.mutex);
	return in;
}

/* Takes over the store on success. */
static int inode_make(struct mkw_engine *e, struct mkw__store *st,
		      bool writable, struct mkw__inode **out)
{
	struct mkw__inode *in;
	int r;

	r = mkw__store_own(st);
	if (r)
		return r;
	in = mkw__os_zalloc(sizeof(*in));
	if (!in)
		return -ENOMEM;
	in->engine = e;
	in->store = st;
	in->writable = writable;
	in->size = st->len;
	in->stale_len = UINT64_MAX;
	mkw__freeze_init(in);
	mkw__range_init(&in->iolock, MKW__RANK_IOLOCK);
	mkw__range_init(&in->invalidate_lock, MKW__RANK_INVALIDATE);
	mkw__mutex_init(&in->tree, MKW__RANK_TREE);
	RB_INIT(&in->leaves);
	for (unsigned i = 0; i < MKW__PAGE_WAIT_BUCKETS; i++)
		TAILQ_INIT(&in->waiters[i]);
	TAILQ_INIT(&in->maps);
	TAILQ_INIT(&in->writes);
	TAILQ_INIT(&in->write_waiters);
	TAILQ_INIT(&in->size_watchers);
	TAILQ_INIT(&in->pinned);
	TAILQ_INIT(&in->turns);
	TAILQ_INIT(&in->pin_waiters);

	r = mkw__reserve_init(in);
	if (r)
		goto free_inode;
	r = mkw__os_frames_create(e->mmu, &in->frames);
	if (r)
		goto fini_reserve;
	r = mkw__os_frames_resize(in->frames, mkw__pages_up(e, st->len)
						      << e->page_shift);
	if (r)
		goto destroy_frames;
	mkw__freeze_born(in);
	mkw__mutex_lock(&e->pool.mutex);
	TAILQ_INSERT_TAIL(&e->inodes, in, link);
	mkw__mutex_unlock(&e->pool.mutex);
	*out = in;
	return 0;

destroy_frames:
	mkw__os_frames_destroy(in->frames);
fini_reserve:
	mkw__reserve_fini(in);
free_inode:
	mkw__os_free(in);
	return r;
}

/* Nobody but the caller knows the inode any more. */
static void inode_free(struct mkw__inode *in)
{
	struct mkw__pool *p = pool(in);
	uint64_t idx = 0;
	bool wait;

	mkw__mutex_lock(&p->mutex);
	TAILQ_REMOVE(&in->engine->inodes, in, link);
	in->dead = true;
	wait = in->pins > 0;
	mkw__mutex_unlock(&p->mutex);
	if (wait) {
		/* A fault that waits for memory, say. */
		mkw__flusher_kick(in->engine);
		mkw__os_event_wait(&in->drained);
		mkw__mutex_lock(&p->mutex);
		mkw__mutex_unlock(&p->mutex);
	}

	mkw__reserve_release(in, true);
	mkw__reserve_fini(in);
	mkw__mutex_lock(&in->tree);
	mkw__count(&in->engine->count.lost_pages, in->dirty);
	if (in->dirty)
		mkw__log(in->engine, MKW__LOG_LOST, MKW_LOG_ERROR, in, 0,
			 in->dirty << in->engine->page_shift, 0);
	while ((idx = mkw__page_next_locked(in, 0, UINT64_MAX,
					    ~PG_BIT(PG_ABSENT))) != UINT64_MAX)
		mkw__page_set_locked(in, idx, 0);
	mkw__mutex_unlock(&in->tree);
	mkw__os_frames_destroy(in->frames);
	mkw__store_close(in->store);
	mkw__os_free(in);
}

int mkw__inode_unuse(struct mkw__inode *in)
{
	struct mkw_engine *e = in->engine;
	unsigned left;
	int r = 0;

	mkw__mutex_lock(&e->files);
	mkw__mutex_lock(&e->pool.mutex);
	left = --in->users;
	mkw__mutex_unlock(&e->pool.mutex);
	if (!left) {
		/* A fault may wait at the gate, and has a pin. */
		mkw__freeze_last_use(in);
		/* Nobody can store any more, so once is enough. */
		if (in->writable)
			r = mkw__wb_pages(in, 0, UINT64_MAX);
		inode_free(in);
	}
	mkw__mutex_unlock(&e->files);
	return r;
}

int mkw__file_attach(struct mkw_engine *e, struct mkw__store *st, bool writable,
		     struct mkw_file **out)
{
	struct mkw_file *file;
	struct mkw__inode *in;
	int r = 0;

	file = mkw__os_zalloc(sizeof(*file));
	if (!file) {
		mkw__store_close(st);
		return -ENOMEM;
	}
	mkw__mutex_lock(&e->files);
	in = inode_find(e, st);
	if (in && writable && !in->writable)
		r = -EACCES;
	else if (!in)
		r = inode_make(e, st, writable, &in);
	if (!r) {
		mkw__inode_use(in);
		file->inode = in;
		file->writable = writable;
		mkw__mutex_lock(&in->tree);
		file->seen_error_seq = in->wb_error_seq;
		mkw__mutex_unlock(&in->tree);
	}
	mkw__mutex_unlock(&e->files);

	if (r || in->store != st)
		mkw__store_close(st);
	if (r) {
		mkw__os_free(file);
		return r;
	}
	*out = file;
	return 0;
}

int mkw__file_close(struct mkw_file *file)
{
	int r;

	/* Acquire: who was at work on it has done with it. */
	if (atomic_load_explicit(&file->requests, memory_order_acquire))
		return -EBUSY;
	mkw__freeze_close(file);
	mkw__size_unwatch(file);
	r = mkw__inode_unuse(file->inode);
	mkw__os_free(file);
	return r;
}
