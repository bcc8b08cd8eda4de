/* SPDX-License-Identifier: MIT */
/*
 * memory.c: a store in memory, for tests and the simulator.
 *
 * Pages are found through two levels, root[] -> leaf -> page. A missing page
 * or leaf is a hole and reads as zero, so the store can be large and sparse,
 * and seek() has something to find. Bytes of a page past the length are zero,
 * so that growing needs to touch nothing.
 *
 * m->mutex guards all of it. It is never held while a caller's buffer is
 * touched: that may be application memory, and fault. Bytes go through a copy on
 * the stack in between (reads are made in the fault handler, which allocates
 * nothing); like a disk, the store is atomic per sector and not more.
 *
 * Violations of the contract in store.h (a write past the length) are panics:
 * finding them is what the store is for.
 */
#include <errno.h>
#include <string.h>

#include "store/store.h"

#define LEAF_PAGES 512u
#define SECTOR 512u	/* divides every page size */

struct leaf {
	char *page[LEAF_PAGES];
};

struct memstore {
	struct mkw__os_mutex mutex;
	size_t page_size;
	uint64_t len;
	struct leaf **root;
	uint64_t leaves;	/* slots of root */
};

/* ---- pages, m->mutex held --------------------------------------------- */

static char **slot_locked(struct memstore *m, uint64_t index, bool make)
{
	uint64_t i = index / LEAF_PAGES;

	if (i >= m->leaves)
		return NULL;
	if (!m->root[i] && make)
		m->root[i] = mkw__os_zalloc(sizeof(struct leaf));
	return m->root[i] ? &m->root[i]->page[index % LEAF_PAGES] : NULL;
}

static char *page_locked(struct memstore *m, uint64_t index, bool make)
{
	char **slot = slot_locked(m, index, make);

	if (slot && !*slot && make)
		*slot = mkw__os_zalloc(m->page_size);
	return slot ? *slot : NULL;
}

static void drop_page_locked(struct memstore *m, uint64_t index)
{
	char **slot = slot_locked(m, index, false);

	if (slot) {
		mkw__os_free(*slot);
		*slot = NULL;
	}
}

/* Zeros a range: whole pages go, parts are cleared. */
static void clear_locked(struct memstore *m, uint64_t off, uint64_t end)
{
	while (off < end) {
		uint64_t index = off / m->page_size;
		uint64_t start = index * m->page_size;
		uint64_t stop = start + m->page_size;
		char *page;

		/* Past a missing leaf in one step. */
		if (!slot_locked(m, index, false)) {
			off = (index / LEAF_PAGES + 1) * LEAF_PAGES *
			      m->page_size;
			continue;
		}
		if (stop > end)
			stop = end;
		page = page_locked(m, index, false);
		if (off == start && stop == start + m->page_size)
			drop_page_locked(m, index);
		else if (page)
			memset(page + (off - start), 0, stop - off);
		off = stop;
	}
}

/* Room in root for a store of len bytes. */
static int grow_locked(struct memstore *m, uint64_t len)
{
	uint64_t leaf_bytes = (uint64_t)LEAF_PAGES * m->page_size;
	uint64_t leaves = len / leaf_bytes + (len % leaf_bytes != 0);
	struct leaf **root;

	if (leaves <= m->leaves)
		return 0;
	if (leaves > SIZE_MAX / sizeof(*root))
		return -EFBIG;
	root = mkw__os_zalloc(leaves * sizeof(struct leaf *));
	if (!root)
		return -ENOMEM;
	if (m->leaves)
		memcpy(root, m->root, m->leaves * sizeof(struct leaf *));
	mkw__os_free(m->root);
	m->root = root;
	m->leaves = leaves;
	return 0;
}

/* ---- transfers -------------------------------------------------------- */

/* The bytes of [off, off + len) that lie in the sector of off. */
static size_t in_sector(uint64_t off, size_t len)
{
	size_t rest = SECTOR - off % SECTOR;

	return len < rest ? len : rest;
}

static int read_memory(struct memstore *m, uint64_t off, void *buf, size_t len)
{
	char copy[SECTOR];
	int err = 0;

	while (len > 0 && !err) {
		size_t n = in_sector(off, len);
		const char *page;

		mkw__os_mutex_lock(&m->mutex);
		page = page_locked(m, off / m->page_size, false);
		if (page)
			memcpy(copy, page + off % m->page_size, n);
		else
			memset(copy, 0, n);
		mkw__os_mutex_unlock(&m->mutex);

		err = mkw__os_user_write(buf, copy, n);
		buf = mkw__os_at(buf, n);
		off += n;
		len -= n;
	}
	return err;
}

static int write_memory(struct memstore *m, uint64_t off, const void *buf,
			size_t len)
{
	char copy[SECTOR];
	int err = 0;

	while (len > 0 && !err) {
		size_t n = in_sector(off, len);
		bool past;
		char *page;

		err = mkw__os_user_read(copy, buf, n);
		if (err)
			break;
		mkw__os_mutex_lock(&m->mutex);
		past = off + n > m->len;
		page = past ? NULL : page_locked(m, off / m->page_size, true);
		if (page)
			memcpy(page + off % m->page_size, copy, n);
		mkw__os_mutex_unlock(&m->mutex);
		if (past)
			mkw__os_panic("a write of %zu bytes at %llu reaches "
				      "past the end of its store",
				      n, (unsigned long long)off);
		if (!page)
			err = -ENOSPC;
		buf = mkw__os_at(buf, n);
		off += n;
		len -= n;
	}
	return err;
}

static void end_move(struct mkw_io *io, int err)
{
	mkw_io_done(io, err ? err : (ssize_t)io->len);
}

static void read_op(void *arg, struct mkw_io *io)
{
	end_move(io, read_memory(arg, io->off, io->buf, io->len));
}

static void write_op(void *arg, struct mkw_io *io)
{
	end_move(io, write_memory(arg, io->off, io->buf, io->len));
}

/* ---- the store as a whole --------------------------------------------- */

static void resize(void *arg, struct mkw_io *io)
{
	struct memstore *m = arg;
	int err;

	mkw__os_mutex_lock(&m->mutex);
	err = grow_locked(m, io->len);
	if (!err) {
		if (io->len < m->len)
			clear_locked(m, io->len,
				     m->leaves * LEAF_PAGES * m->page_size);
		m->len = io->len;
	}
	mkw__os_mutex_unlock(&m->mutex);
	mkw_io_done(io, err);
}

static void clear(void *arg, struct mkw_io *io)
{
	struct memstore *m = arg;
	uint64_t end = io->off + io->len;

	mkw__os_mutex_lock(&m->mutex);
	clear_locked(m, io->off, end < m->len ? end : m->len);
	mkw__os_mutex_unlock(&m->mutex);
	mkw_io_done(io, 0);
}

/* The page of one number gets another; its own one is free already. */
static int move_page_locked(struct memstore *m, uint64_t from, uint64_t to)
{
	char **src = slot_locked(m, from, false), **dst;

	if (!src || !*src)
		return 0;
	dst = slot_locked(m, to, true);
	if (!dst)
		return -ENOMEM;
	*dst = *src;
	*src = NULL;
	return 0;
}

static int collapse(struct memstore *m, uint64_t off, uint64_t len)
{
	uint64_t n = len / m->page_size, end;
	int err = 0;

	if (off % m->page_size || len % m->page_size)
		return -EINVAL;
	mkw__os_mutex_lock(&m->mutex);
	clear_locked(m, off, off + len);
	end = (m->len + m->page_size - 1) / m->page_size;
	for (uint64_t i = off / m->page_size + n; i < end && !err; i++)
		err = move_page_locked(m, i, i - n);
	m->len -= len;
	mkw__os_mutex_unlock(&m->mutex);
	return err;
}

static int insert(struct memstore *m, uint64_t off, uint64_t len)
{
	uint64_t n = len / m->page_size, i;
	int err;

	if (off % m->page_size || len % m->page_size)
		return -EINVAL;
	mkw__os_mutex_lock(&m->mutex);
	err = grow_locked(m, m->len + len);
	i = (m->len + m->page_size - 1) / m->page_size;
	while (!err && i-- > off / m->page_size)
		err = move_page_locked(m, i, i + n);
	if (!err)
		m->len += len;
	mkw__os_mutex_unlock(&m->mutex);
	return err;
}

static void collapse_op(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, collapse(arg, io->off, io->len));
}

static void insert_op(void *arg, struct mkw_io *io)
{
	mkw_io_done(io, insert(arg, io->off, io->len));
}

/* Nothing to reserve: memory is all the space there is. */
static void allocate(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, 0);
}

static int64_t seek(void *arg, uint64_t off, int data)
{
	struct memstore *m = arg;
	int64_t found;

	mkw__os_mutex_lock(&m->mutex);
	while (off < m->len) {
		uint64_t index = off / m->page_size;

		if ((page_locked(m, index, false) != NULL) == !!data)
			break;
		off = (index + 1) * m->page_size;
		if (!slot_locked(m, index, false))
			off = (index / LEAF_PAGES + 1) * LEAF_PAGES *
			      m->page_size;
	}
	/* The end of a file is a hole. */
	if (off < m->len)
		found = (int64_t)off;
	else
		found = data ? -ENXIO : (int64_t)m->len;
	mkw__os_mutex_unlock(&m->mutex);
	return found;
}

static void close_memory(void *arg)
{
	struct memstore *m = arg;

	for (uint64_t i = 0; i < m->leaves; i++) {
		if (!m->root[i])
			continue;
		for (unsigned j = 0; j < LEAF_PAGES; j++)
			mkw__os_free(m->root[i]->page[j]);
		mkw__os_free(m->root[i]);
	}
	mkw__os_free(m->root);
	mkw__os_free(m);
}

static const struct mkw_store_ops ops = {
	MKW_STORE_OPS_INIT,
	.read = read_op,
	.write = write_op,
	.resize = resize,
	.punch = clear,
	.zero = clear,
	.collapse = collapse_op,
	.insert = insert_op,
	.allocate = allocate,
	.seek = seek,
	.close = close_memory,
};

int mkw__memstore_open(uint64_t len, struct mkw__store **out)
{
	static _Atomic uint64_t last_ino;
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct memstore *m;
	int err;

	m = mkw__os_zalloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->page_size = mkw__os_page_size();
	err = grow_locked(m, len);
	if (err)
		goto free_memory;
	m->len = len;
	info.len = len;
	info.align = SECTOR;
	info.flags = MKW_STORE_DIRECT | MKW_STORE_USER_MEMORY |
		     MKW_STORE_ANY_CONTEXT;
	info.id[0] = UINT64_MAX;
	info.id[1] = atomic_fetch_add(&last_ino, 1) + 1;
	err = mkw__store_make(&ops, &info, m, true, out);
	if (err)
		goto free_memory;
	return 0;
free_memory:
	mkw__os_free(m->root);
	mkw__os_free(m);
	return err;
}
