/* SPDX-License-Identifier: MIT */
/*
 * map.h: the table of the process's mappings, and user buffers.
 *
 * One table for all engines of the process, since rule R0 must see the buffers
 * of every one. Two locks, both FIFO range locks used whole:
 *
 *   gate   held shared while bytes go between a frame (or a store) and *ordinary*
 *          memory, from the look-up that found it ordinary to the end of the
 *          copy; held exclusively by mkw_map() from before mmap() until the
 *          table knows the mapping. So no buffer becomes a mapping in
 *          mid-copy. The pager never takes it.
 *   table  held shared by whoever uses a mapping that he found, for as long as
 *          it must stay mapped; exclusively, and only over the table's own
 *          update, to add and remove, and over a change of access, whose calls wait for
 *          nobody. munmap() itself runs with no lock held.
 */
#ifndef MKW_MAP_H
#define MKW_MAP_H

#include <bsd/sys/tree.h>

#include "sync/sync.h"

struct mkw__inode;
struct mkw_file;

struct mkw__map {
	RB_ENTRY(mkw__map) node;	/* by addr */
	TAILQ_ENTRY(mkw__map) of_inode;	/* or of those that one call takes out */
	TAILQ_ENTRY(mkw__map) going;
	struct mkw__inode *inode;
	struct mkw__os_mmu *mmu;
	uintptr_t addr;
	size_t len;
	uint64_t off;
	bool readable, writable;
	bool may_write;			/* its handle could */
	bool in_thread;
};
TAILQ_HEAD(mkw__map_list, mkw__map);

void mkw__map_table_lock(struct mkw__range_req *req);
void mkw__map_table_unlock(struct mkw__range_req *req);

/* The mapping at addr, or NULL; table held. */
struct mkw__map *mkw__map_find(uintptr_t addr);

/* The address at which a mapping shows page idx, which it covers. */
uintptr_t mkw__map_addr(const struct mkw__map *m, uint64_t idx);
/* The pages [*first, *end) of the inode that a mapping covers. */
void mkw__map_pages(const struct mkw__map *m, uint64_t *first, uint64_t *end);

/*
 * Write-protects, or removes, pages [first, first + n) in every mapping; table
 * held, pages locked. protect: anything but 0 means that some mapping may
 * still be writable.
 */
int mkw__map_protect(struct mkw__inode *in, uint64_t first, size_t n);
void mkw__map_zap(struct mkw__inode *in, uint64_t first, size_t n);

/* Wakes every access that sleeps in a mapping of the inode. Takes the table. */
void mkw__map_wake(struct mkw__inode *in);

/* Lifts poison from memory of the mapping, and zaps it; table held. */
void mkw__map_heal(const struct mkw__map *m, uintptr_t addr, size_t len);

/*
 * Pages [first, end) can be read again: where a failed fill has poisoned them in
 * some mapping, accesses may try once more. Takes the table.
 */
void mkw__map_lift_poison(struct mkw__inode *in, uint64_t first, uint64_t end);

int mkw__map_create(struct mkw_file *file, uintptr_t hint, size_t len,
		    bool writable, unsigned flags, uint64_t off,
		    uintptr_t *addr);
int mkw__map_remove(uintptr_t addr, size_t len);
/* mkw_remap(); _FIXED flags as those of mkw_map(). */
int mkw__map_remap(uintptr_t old, size_t old_len, size_t len, unsigned flags,
		   uintptr_t to, uintptr_t *addr);
/* mkw_protect(). */
int mkw__map_access(uintptr_t addr, size_t len, bool readable, bool writable);

/*
 * Before bytes are copied to or from application memory [p, p + len): 0, and
 * it stays ordinary until mkw__ubuf_end(); or -EXDEV, it overlaps a mapping, and
 * nothing is held.
 */
struct mkw__ubuf {
	struct mkw__range_req gate;
};
int mkw__ubuf_begin(struct mkw__ubuf *u, const void *p, size_t len);
void mkw__ubuf_end(struct mkw__ubuf *u);

/*
 * The same without the gate, for glances: is [p, p + len) within what the calling task
 * saw to be ordinary memory when it last called _look(), and does *maps show no
 * mapping made since? *maps is what to watch from then on. _look() between begin
 * and end.
 */
bool mkw__ubuf_known(const void *p, size_t len, struct mkw__os_watch *maps);
void mkw__ubuf_look(const void *p, size_t len);

/*
 * Forgets every mapping, and who waits for the table: in a forked child, which has
 * none of them, and after a simulated run that was broken off.
 */
void mkw__map_reset(void);

#endif /* MKW_MAP_H */
