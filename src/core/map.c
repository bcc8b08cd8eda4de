/* SPDX-License-Identifier: MIT */
/*
 * The table of mappings, and user buffers; map.h says who holds what.
 *
 * Making a mapping: gate exclusive, address space, table, and only then
 * accessible: so no fault can arrive that the table does not know. Removing:
 * out of the table and without a mapped page, in one step, since writeback
 * protects what the table has; then munmap() with nothing held, then a wake of the
 * whole range, since munmap() leaves sleeping faults asleep (R8). A fault
 * message that arrives in between finds no mapping and is woken, to fault
 * again until the memory is gone.
 */
#include <errno.h>

#include "core/engine.h"

static struct {
	struct mkw__range_lock gate, table;
	RB_HEAD(map_tree, mkw__map) maps;
	/* Out of the table, and being unmapped: not for others yet. */
	TAILQ_HEAD(, mkw__map) going;
	struct mkw__waiters gone;	/* who waits for those */
	_Atomic uint64_t made;		/* raised while a mapping is made */
} process = {
	.gate = { .held = TAILQ_HEAD_INITIALIZER(process.gate.held),
		  .waiting = TAILQ_HEAD_INITIALIZER(process.gate.waiting),
		  .rank = MKW__RANK_MAP_GATE },
	.table = { .held = TAILQ_HEAD_INITIALIZER(process.table.held),
		   .waiting = TAILQ_HEAD_INITIALIZER(process.table.waiting),
		   .rank = MKW__RANK_MAP_TABLE },
	.maps = RB_INITIALIZER(&process.maps),
	.going = TAILQ_HEAD_INITIALIZER(process.going),
	.gone = TAILQ_HEAD_INITIALIZER(process.gone),
};

static int map_cmp(const struct mkw__map *a, const struct mkw__map *b)
{
	return a->addr < b->addr ? -1 : a->addr > b->addr;
}

/* Not RB_GENERATE_STATIC: that one needs __unused of the BSDs. */
RB_GENERATE_INTERNAL(map_tree, mkw__map, node, map_cmp,
		     static __attribute__((unused)))

void mkw__map_reset(void)
{
	mkw__range_init(&process.gate, MKW__RANK_MAP_GATE);
	mkw__range_init(&process.table, MKW__RANK_MAP_TABLE);
	RB_INIT(&process.maps);
	TAILQ_INIT(&process.going);
	TAILQ_INIT(&process.gone);
	/* Nobody is making one; and what anybody saw before is not to be believed. */
	atomic_store_explicit(&process.made,
			      (atomic_load_explicit(&process.made,
						    memory_order_relaxed) |
			       0xfffff) + 1, memory_order_relaxed);
}

void mkw__map_table_lock(struct mkw__range_req *req)
{
	mkw__range_lock(&process.table, req, 0, MKW__RANGE_MAX, false);
}

void mkw__map_table_unlock(struct mkw__range_req *req)
{
	mkw__range_unlock(&process.table, req);
}

/* The first mapping that ends after addr. */
static struct mkw__map *map_after(uintptr_t addr)
{
	struct mkw__map *m = RB_ROOT(&process.maps), *best = NULL;

	while (m) {
		if (m->addr + m->len > addr) {
			best = m;
			m = RB_LEFT(m, node);
		} else {
			m = RB_RIGHT(m, node);
		}
	}
	return best;
}

struct mkw__map *mkw__map_find(uintptr_t addr)
{
	struct mkw__map *m = map_after(addr);

	return m && m->addr <= addr ? m : NULL;
}

static bool overlaps(uintptr_t addr, size_t len)
{
	struct mkw__map *m = map_after(addr);

	return len && m && m->addr < addr + len;
}

/* Is any of it being unmapped? Table held. */
static bool is_going(uintptr_t addr, size_t len)
{
	struct mkw__map *m;

	TAILQ_FOREACH(m, &process.going, going)
		if (m->addr < addr + len && addr < m->addr + m->len)
			return true;
	return false;
}

uintptr_t mkw__map_addr(const struct mkw__map *m, uint64_t idx)
{
	return m->addr + ((idx << m->inode->engine->page_shift) - m->off);
}

void mkw__map_pages(const struct mkw__map *m, uint64_t *first, uint64_t *end)
{
	*first = mkw__page_of(m->inode->engine, m->off);
	*end = mkw__pages_up(m->inode->engine, m->off + m->len);
}

/* The part of pages [first, end) that a mapping shows; false: none. */
static bool map_clip(const struct mkw__map *m, uint64_t first, uint64_t end,
		     uintptr_t *addr, size_t *len)
{
	uint64_t f, e;

	mkw__map_pages(m, &f, &e);
	first = mkw__max(first, f);
	end = mkw__min(end, e);
	if (first >= end)
		return false;
	*addr = mkw__map_addr(m, first);
	*len = (end - first) << m->inode->engine->page_shift;
	return true;
}

int mkw__map_protect(struct mkw__inode *in, uint64_t first, size_t n)
{
	struct mkw__map *m;
	uintptr_t addr;
	unsigned tries;
	size_t len;
	int r = 0;

	TAILQ_FOREACH(m, &in->maps, of_inode) {
		if (!m->writable || !map_clip(m, first, first + n, &addr, &len))
			continue;
		/* The address space may be changing: not for long. */
		for (tries = 0; tries < 100; tries++) {
			r = mkw__os_pte_protect(m->mmu, addr, len, true, 0);
			if (r != -EAGAIN)
				break;
		}
		if (r)
			break;
	}
	return r;
}

void mkw__map_zap(struct mkw__inode *in, uint64_t first, size_t n)
{
	struct mkw__map *m;
	uintptr_t addr;
	size_t len;

	TAILQ_FOREACH(m, &in->maps, of_inode)
		if (map_clip(m, first, first + n, &addr, &len)) {
			mkw__os_pte_zap(addr, len);
			if (MKW__MUTANT(ZAP_ONE_MAPPING))
				break;
		}
}

void mkw__map_wake(struct mkw__inode *in)
{
	struct mkw__range_req table;
	struct mkw__map *m;

	mkw__map_table_lock(&table);
	TAILQ_FOREACH(m, &in->maps, of_inode)
		mkw__os_wake(m->mmu, m->addr, m->len);
	mkw__map_table_unlock(&table);
}

void mkw__map_heal(const struct mkw__map *m, uintptr_t addr, size_t len)
{
	/* Without access there is no poison but what a zap lifts. */
	if (m->readable)
		mkw__os_pte_heal(addr, len, m->writable);
	else
		mkw__os_pte_zap(addr, len);
}

void mkw__map_lift_poison(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	struct mkw__range_req table;
	struct mkw__map *m;
	uintptr_t addr;
	size_t len;

	if (first == end ||
	    !atomic_load_explicit(&in->poisoned, memory_order_acquire))
		return;
	mkw__map_table_lock(&table);
	TAILQ_FOREACH(m, &in->maps, of_inode)
		if (map_clip(m, first, end, &addr, &len))
			mkw__map_heal(m, addr, len);
	mkw__map_table_unlock(&table);
}

static void table_lock_exclusive(struct mkw__range_req *req)
{
	mkw__range_lock(&process.table, req, 0, MKW__RANGE_MAX, true);
}

static void table_insert(struct mkw__map *m)
{
	RB_INSERT(map_tree, &process.maps, m);
	TAILQ_INSERT_TAIL(&m->inode->maps, m, of_inode);
}

static void table_remove(struct mkw__map *m)
{
	RB_REMOVE(map_tree, &process.maps, m);
	TAILQ_REMOVE(&m->inode->maps, m, of_inode);
}

/* While it is held nobody else makes a mapping of ours. */
static void gate_lock(struct mkw_engine *e, struct mkw__range_req *gate)
{
	mkw__range_lock(&process.gate, gate, 0, MKW__RANGE_MAX, true);
	if (e->glance) {
		mkw__glance_raise(&process.made);
		mkw__os_glance_barrier();
	}
}

static void gate_unlock(struct mkw_engine *e, struct mkw__range_req *gate)
{
	if (e->glance)
		mkw__glance_lower(&process.made);
	mkw__range_unlock(&process.gate, gate);
}

static int enable(const struct mkw__map *m)
{
	return m->readable ? mkw__os_map_enable(m->addr, m->len, m->writable) : 0;
}

/*
 * Is the room what MKW_MAP_FIXED may replace? What is being unmapped is waited for: the
 * kernel may be done with it, and have given the room to the caller; or it would take what
 * is mapped there next. Gate held, which nobody who unmaps waits for.
 */
static int make_way(uintptr_t addr, size_t len)
{
	struct mkw__range_req table;
	struct mkw__sleeper s;
	bool ours, wait;

	do {
		mkw__sleeper_init(&s);
		table_lock_exclusive(&table);
		ours = overlaps(addr, len);
		wait = !ours && is_going(addr, len);
		if (wait)
			TAILQ_INSERT_TAIL(&process.gone, &s.waiter, link);
		mkw__map_table_unlock(&table);
		if (wait)
			mkw__sleeper_wait(&s);
	} while (wait);
	return ours ? -EBUSY : 0;
}

/*
 * Maps *m, which says all but where, and uses its inode; gate held. 0: it is in the table,
 * where anybody may take it out and free it, and was at *addr.
 */
static int put(struct mkw__map *m, uintptr_t hint, unsigned flags, uintptr_t *addr)
{
	struct mkw__range_req table;
	unsigned os_flags = 0;
	int r = 0;

	if (flags & MKW_MAP_FIXED)
		os_flags = MKW__MAP_FIXED;
	else if (flags & MKW_MAP_FIXED_NOREPLACE)
		os_flags = MKW__MAP_FIXED_NOREPLACE;
	/* Only this task adds mappings now, so this stays true. */
	if (flags & MKW_MAP_FIXED)
		r = make_way(hint, m->len);
	if (!r)
		r = mkw__os_map(m->mmu, m->inode->frames, hint, m->len, os_flags,
				m->off, &m->addr);
	if (r)
		return r;
	/* In one hold: who unmaps or protects it meanwhile waits for its access. */
	table_lock_exclusive(&table);
	*addr = m->addr;
	table_insert(m);
	r = enable(m);
	if (r)
		table_remove(m);
	mkw__map_table_unlock(&table);
	if (r)
		mkw__os_unmap(m->addr, m->len);
	return r;
}

int mkw__map_create(struct mkw_file *file, uintptr_t hint, size_t len,
		    bool writable, unsigned flags, uint64_t off,
		    uintptr_t *addr)
{
	struct mkw__inode *in = file->inode;
	struct mkw_engine *e = in->engine;
	struct mkw__range_req gate;
	struct mkw__map *m;
	int r;

	m = mkw__os_zalloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->inode = in;
	m->in_thread = flags & MKW_MAP_INLINE;
	m->mmu = m->in_thread ? e->mmu_in_thread : e->mmu;
	m->len = mkw__pages_up(e, len) << e->page_shift;
	m->off = off;
	m->readable = true;
	m->writable = writable;
	m->may_write = file->writable;
	mkw__inode_use(in);

	gate_lock(e, &gate);
	r = put(m, hint, flags, addr);
	gate_unlock(e, &gate);
	if (r) {
		mkw__os_free(m);
		mkw__inode_unuse(in);
	}
	return r;
}

/*
 * Cuts a mapping in two at addr, inside it: *spare becomes the second part, is in
 * the table, and has a use of the inode of its own.
 */
static struct mkw__map *table_split(struct mkw__map *m, uintptr_t addr,
				    struct mkw__map *spare)
{
	*spare = *m;
	spare->addr = addr;
	spare->off += addr - m->addr;
	spare->len -= addr - m->addr;
	m->len = addr - m->addr;
	table_insert(spare);
	mkw__inode_use(m->inode);
	return spare;
}

/*
 * Takes all of [addr, end) out of the table, at once: what it covered belongs to
 * nobody else until it is unmapped, and then it may be anybody's. Two spare
 * structures are enough: only the ends can cut a mapping. Used ones become NULL.
 */
static void table_take(uintptr_t addr, uintptr_t end, struct mkw__map *spare[2],
		       struct mkw__map_list *taken)
{
	struct mkw__map *m;

	while ((m = map_after(addr)) && m->addr < end) {
		if (m->addr < addr) {
			m = table_split(m, addr, spare[0]);
			spare[0] = NULL;
		}
		if (m->addr + m->len > end) {
			table_split(m, end, spare[1]);
			spare[1] = NULL;
		}
		table_remove(m);
		/* Writeback does not see it any more, so no store may get
		 * through it until it is gone. */
		if (!MKW__MUTANT(UNMAP_LEAVES_PAGES))
			mkw__os_pte_zap(m->addr, m->len);
		TAILQ_INSERT_TAIL(taken, m, of_inode);
		TAILQ_INSERT_TAIL(&process.going, m, going);
	}
}

/* Is any of [addr, end) pinned? Table held exclusively: pins are made with it shared. */
static bool is_pinned(uintptr_t addr, uintptr_t end)
{
	struct mkw__map *m = map_after(addr);

	for (; m && m->addr < end; m = RB_NEXT(map_tree, &process.maps, m))
		if (mkw__pin_of_memory(m->inode, addr, end))
			return true;
	return false;
}

/*
 * Unmaps what was taken out of the table, with nothing held. What cannot be is a mapping
 * again; the first error.
 */
static int unmap_taken(struct mkw__map_list *taken)
{
	struct mkw__map_list unmapped = TAILQ_HEAD_INITIALIZER(unmapped);
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);
	struct mkw__range_req table;
	struct mkw__map *m;
	int r = 0, err;

	while ((m = TAILQ_FIRST(taken))) {
		TAILQ_REMOVE(taken, m, of_inode);
		err = mkw__os_unmap(m->addr, m->len);
		table_lock_exclusive(&table);
		TAILQ_REMOVE(&process.going, m, going);
		/* It is mapped still: serve it on, as a mapping. */
		if (err)
			table_insert(m);
		if (err && m->inode->engine->glance) {
			mkw__glance_raise(&process.made);
			mkw__glance_lower(&process.made);
		}
		/* Who faults until it is gone; or waits for a thaw, which has not seen it. */
		mkw__os_wake(m->mmu, m->addr, m->len);
		TAILQ_CONCAT(&woken, &process.gone, link);
		mkw__map_table_unlock(&table);
		mkw__waiters_wake(&woken);
		/* Else it is anybody's to unmap, and to free. */
		if (!err)
			TAILQ_INSERT_TAIL(&unmapped, m, of_inode);
		if (!r)
			r = err;
	}
	/* May take its time, and nobody is to wait for it. */
	while ((m = TAILQ_FIRST(&unmapped))) {
		TAILQ_REMOVE(&unmapped, m, of_inode);
		err = mkw__inode_unuse(m->inode);
		mkw__os_free(m);
		if (!r)
			r = err;
	}
	return r;
}

int mkw__map_remove(uintptr_t addr, size_t len)
{
	struct mkw__map_list taken = TAILQ_HEAD_INITIALIZER(taken);
	struct mkw__range_req table;
	struct mkw__map *spare[2];
	int r = 0, err;

	spare[0] = mkw__os_zalloc(sizeof(*spare[0]));
	spare[1] = mkw__os_zalloc(sizeof(*spare[1]));
	if (spare[0] && spare[1]) {
		table_lock_exclusive(&table);
		if (is_pinned(addr, addr + len))
			r = -EBUSY;
		else
			table_take(addr, addr + len, spare, &taken);
		mkw__map_table_unlock(&table);
	} else {
		r = -ENOMEM;
	}
	err = unmap_taken(&taken);
	mkw__os_free(spare[0]);
	mkw__os_free(spare[1]);
	return r ? r : err;
}

/* ---- other places and lengths ------------------------------------------- */

/*
 * Nothing in the kernel moves: its mremap() takes a mapping out of userfaultfd's hands, or
 * tells of it by messages (EVENT_REMAP) that the mover would wait for. What a mapping
 * shows is in the frames, so a second one of the same bytes shows the same, and
 * accesses may use both while both are there. So a move makes the new mapping as
 * mkw_map() does, and then, in one step with the table held, looks whether the old one
 * is still what it was made after, and takes that out as mkw_unmap() does (R8). The gate
 * is held over both, so that what lies at the old address is nobody else's by then.
 */

static bool same_kind(const struct mkw__map *a, const struct mkw__map *b)
{
	return a->inode == b->inode && a->mmu == b->mmu &&
	       a->readable == b->readable && a->writable == b->writable &&
	       a->may_write == b->may_write;
}

/*
 * Is all of [addr, addr + len) of one file, its bytes in a row, and its access the same
 * everywhere? *like: what a mapping of it would be. Table held. -EFAULT: no.
 */
static int look_alike(uintptr_t addr, size_t len, struct mkw__map *like)
{
	uintptr_t end = addr + len;
	const struct mkw__map *m = mkw__map_find(addr);

	if (!m)
		return -EFAULT;
	*like = (struct mkw__map){
		.inode = m->inode, .mmu = m->mmu, .addr = addr, .len = len,
		.off = m->off + (addr - m->addr), .readable = m->readable,
		.writable = m->writable, .may_write = m->may_write,
		.in_thread = m->in_thread,
	};
	if (MKW__MUTANT(REMAP_FROM_START))
		like->off = m->off;
	while (m->addr + m->len < end) {
		const struct mkw__map *next = mkw__map_find(m->addr + m->len);

		if (!next || !same_kind(next, m) || next->off != m->off + m->len)
			return -EFAULT;
		m = next;
	}
	return 0;
}

static bool is_still(const struct mkw__map *was)
{
	struct mkw__map now;

	if (MKW__MUTANT(REMAP_UNCHECKED))
		return true;
	return !look_alike(was->addr, was->len, &now) && same_kind(&now, was) &&
	       now.off == was->off;
}

/* The old range changed while it was looked at and mapped elsewhere: from the start. */
#define CHANGED 1

/*
 * Makes *new a mapping, at *addr, and takes `was` out of the table, unless it grows where
 * it is. What is to be unmapped then is in *taken; the gate is held. *new becomes NULL
 * once it is in the table.
 */
static int put_instead(const struct mkw__map *was, struct mkw__map **new,
		       uintptr_t hint, unsigned flags, struct mkw__map *spare[2],
		       struct mkw__map_list *taken, uintptr_t *addr)
{
	uintptr_t end = was->addr + was->len;
	struct mkw__range_req table;
	bool grows = (*new)->off != was->off;
	size_t len = (*new)->len;
	int r = put(*new, hint, flags, addr);

	if (r)
		return r;
	*new = NULL;
	mkw__os_step("mapped twice");
	table_lock_exclusive(&table);
	if (!is_still(was))
		r = CHANGED;
	else if (!grows && is_pinned(was->addr, end))
		r = -EBUSY;
	if (r)
		table_take(*addr, *addr + len, spare, taken);
	else if (!grows)
		table_take(was->addr, end, spare, taken);
	mkw__map_table_unlock(&table);
	return r;
}

/* One try; *addr: where it begins. */
static int try_remap(uintptr_t old, size_t old_len, size_t len, unsigned flags,
		     uintptr_t to, uintptr_t *addr)
{
	const unsigned fixed = MKW_MAP_FIXED | MKW_MAP_FIXED_NOREPLACE;
	struct mkw__map_list taken = TAILQ_HEAD_INITIALIZER(taken);
	struct mkw__map was, *m, *spare[2];
	struct mkw__range_req gate, table;
	struct mkw_engine *e;
	uintptr_t tail;
	bool moves;
	int r, err;

	m = mkw__os_zalloc(sizeof(*m));
	spare[0] = mkw__os_zalloc(sizeof(*spare[0]));
	spare[1] = mkw__os_zalloc(sizeof(*spare[1]));
	r = m && spare[0] && spare[1] ? 0 : -ENOMEM;
	if (r)
		goto out;
	mkw__map_table_lock(&table);
	r = look_alike(old, old_len, &was);
	/* The mapping that is to be has its use of the inode from now on. */
	if (!r)
		mkw__inode_use(was.inode);
	mkw__map_table_unlock(&table);
	if (r)
		goto out;
	e = was.inode->engine;
	*addr = old;
	if (len > INT64_MAX - was.off) {
		r = -EINVAL;
	} else if (len <= old_len && !(flags & fixed)) {
		r = len < old_len ? mkw__map_remove(old + len, old_len - len) : 0;
		mkw__inode_unuse(was.inode);
		goto out;
	}
	gate_lock(e, &gate);
	moves = !r && (flags & fixed);
	if (!r && !moves) {
		*m = was;
		m->off += old_len;
		m->len = len - old_len;
		r = put_instead(&was, &m, old + old_len, MKW_MAP_FIXED_NOREPLACE,
				spare, &taken, &tail);
		/* Something is there, or it is where no mapping may be. */
		moves = (flags & MKW_REMAP_MAYMOVE) &&
			(r == -EEXIST || r == -ENOMEM);
		if (r == -EEXIST && !moves)
			r = -ENOMEM;
		to = 0;
	}
	if (moves) {
		*m = was;
		m->len = len;
		r = put_instead(&was, &m, to, flags & fixed, spare, &taken, addr);
	}
	gate_unlock(e, &gate);
	if (m)
		mkw__inode_unuse(was.inode);
	err = unmap_taken(&taken);
	if (err && !r) {
		/* The old one is there still, or some of it. */
		mkw__map_remove(*addr, len);
		r = err;
	}
out:
	mkw__os_free(m);
	mkw__os_free(spare[0]);
	mkw__os_free(spare[1]);
	return r;
}

int mkw__map_remap(uintptr_t old, size_t old_len, size_t len, unsigned flags,
		   uintptr_t to, uintptr_t *addr)
{
	int r;

	do {
		r = try_remap(old, old_len, len, flags, to, addr);
	} while (r == CHANGED);
	return r;
}

/* ---- access ------------------------------------------------------------- */

/* May the access to all of [addr, end) become that? Table held exclusively. */
static int check_access(uintptr_t addr, uintptr_t end, bool writable)
{
	struct mkw__map *m;

	if (is_pinned(addr, end))
		return -EBUSY;
	for (; addr < end; addr = m->addr + m->len) {
		m = mkw__map_find(addr);
		if (!m)
			return -ENOMEM;
		if (writable && !m->may_write)
			return -EACCES;
	}
	return 0;
}

static int change_access(struct mkw__map *m, bool readable, bool writable)
{
	return readable ? mkw__os_map_enable(m->addr, m->len, writable) :
			  mkw__os_map_disable(m->addr, m->len);
}

/*
 * Stores that begin to be possible must fault, but where writeback would see them:
 * it does not protect a mapping that nobody can store to, so what was mapped
 * writable before is writable still. Nobody else changes page tables meanwhile, since
 * the table of mappings is held exclusively.
 */
static int set_access(struct mkw__map *m, bool readable, bool writable)
{
	bool was_writable = m->writable;
	int r = 0;

	if (writable && !m->writable && !MKW__MUTANT(PROTECT_LEAVES_PAGES))
		r = mkw__os_pte_zap(m->addr, m->len);
	if (r)
		return r;
	/* A failure may leave part of it changed, which writeback must see. */
	m->writable |= writable;
	r = change_access(m, readable, writable);
	if (!r) {
		m->readable = readable;
		m->writable = writable;
	} else {
		/* A part that allows less than the table says would fault for ever. */
		change_access(m, m->readable, was_writable);
	}
	/* A store that waits need not wait for what it is refused. */
	mkw__os_wake(m->mmu, m->addr, m->len);
	return r;
}

int mkw__map_access(uintptr_t addr, size_t len, bool readable, bool writable)
{
	uintptr_t end = addr + len;
	struct mkw__map *spare[2], *m;
	struct mkw__range_req table;
	int r = -ENOMEM;

	spare[0] = mkw__os_zalloc(sizeof(*spare[0]));
	spare[1] = mkw__os_zalloc(sizeof(*spare[1]));
	if (!spare[0] || !spare[1])
		goto out;
	table_lock_exclusive(&table);
	r = check_access(addr, end, writable);
	while (!r && addr < end) {
		m = mkw__map_find(addr);
		if (m->addr < addr) {
			m = table_split(m, addr, spare[0]);
			spare[0] = NULL;
		}
		if (m->addr + m->len > end) {
			table_split(m, end, spare[1]);
			spare[1] = NULL;
		}
		r = set_access(m, readable, writable);
		addr = m->addr + m->len;
	}
	mkw__map_table_unlock(&table);
out:
	mkw__os_free(spare[0]);
	mkw__os_free(spare[1]);
	return r;
}

/* ---- user buffers ----------------------------------------------------- */

int mkw__ubuf_begin(struct mkw__ubuf *u, const void *p, size_t len)
{
	struct mkw__range_req table;
	bool mapped;

	mkw__range_lock(&process.gate, &u->gate, 0, MKW__RANGE_MAX, false);
	mkw__map_table_lock(&table);
	mapped = overlaps((uintptr_t)p, len) && !MKW__TEST(r0_off);
	mkw__map_table_unlock(&table);
	if (mapped) {
		mkw__range_unlock(&process.gate, &u->gate);
		return -EXDEV;
	}
	return 0;
}

void mkw__ubuf_end(struct mkw__ubuf *u)
{
	mkw__range_unlock(&process.gate, &u->gate);
}

/*
 * The four words of a task: how often they were written, the gap between two mappings
 * where its last buffer was, [1] to [2], and process.made then. Mappings that go make
 * the gap wider, and new ones change process.made.
 *
 * A signal handler may look, and so write them, while the task it interrupts
 * reads them: it sees by the first word that they do not belong together. Other
 * tasks never see them.
 */
enum { WRITES, GAP_START, GAP_END, MADE };

bool mkw__ubuf_known(const void *p, size_t len, struct mkw__os_watch *maps)
{
	const volatile uint64_t *w = mkw__os_self()->around;
	uint64_t writes = w[WRITES], start = w[GAP_START], end = w[GAP_END];
	uintptr_t at = (uintptr_t)p;

	maps->word = &process.made;
	maps->value = w[MADE];
	if (w[WRITES] != writes)
		return false;
	if (MKW__MUTANT(GLANCE_BUFFER_UNCHECKED)) {
		maps->value = atomic_load_explicit(&process.made,
						   memory_order_acquire);
		return true;
	}
	return at >= start && at < end && len <= end - at;
}

void mkw__ubuf_look(const void *p, size_t len)
{
	volatile uint64_t *w = mkw__os_self()->around;
	struct mkw__range_req table;
	struct mkw__os_watch maps;
	struct mkw__map *m, *next;
	uint64_t start = 0, end = UINTPTR_MAX;

	/* With the gate held nobody makes one now. */
	if (mkw__ubuf_known(p, len, &maps) &&
	    maps.value == atomic_load_explicit(maps.word, memory_order_relaxed))
		return;
	mkw__map_table_lock(&table);
	next = map_after((uintptr_t)p);
	if (next) {
		end = next->addr;
		m = RB_PREV(map_tree, &process.maps, next);
	} else {
		m = RB_MAX(map_tree, &process.maps);
	}
	if (m)
		start = m->addr + m->len;
	w[WRITES]++;
	w[GAP_START] = start;
	w[GAP_END] = end;
	w[MADE] = atomic_load_explicit(maps.word, memory_order_relaxed);
	w[WRITES]++;
	mkw__map_table_unlock(&table);
}
