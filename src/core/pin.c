/* SPDX-License-Identifier: MIT */
/*
 * Pins: memory of mappings that system calls may hold on to.
 *
 * The kernel's own direct I/O, registered buffers of io_uring, RDMA: such a call looks
 * a page up once and then reads or writes the frame, past every protection and fault. A
 * store of that kind lands after writeback's snapshot, in a page that is clean by then,
 * or in a frame that a punch or reclaim has thrown away. So while a page is pinned
 *   - its frame stays: reclaim passes it over, and whoever takes data away (EXCL_TAKE)
 *     waits for the pin's end;
 *   - for writing, it is DIRTY besides, mapped writable at the pinned address, and not
 *     written back: the flusher passes it over, a sync waits for the pin's end. The
 *     device's bytes are in the first snapshot after that.
 * A thread that would wait for a pin of its own gets -EDEADLK instead. What a call of
 * the kernel reads from a pinned page is what was stored there, as with a load.
 *
 * Making one, for each piece (pages of one mapping):
 *   1  wait for who waits for pins of these pages already (FIFO, so that a
 *      stream of pins keeps nobody off), unless the thread has pins: they may be
 *      what is waited for
 *   2  iolock shared, so that no EXCL_TAKE is under way; the table of mappings, so that the
 *      memory stays mapped; TREE: the piece is in inode->pinned, its pages have
 *      their bit. From here on nobody drops them
 *   3  with nothing held, each page is made present, or DIRTY and writable, by a fault
 *      of the ordinary kind that this thread serves (mkw__fault_touch())
 *   4  for writing: TREE; if writeback has taken no page of any piece since 3 began, so
 *      that all are DIRTY, and writable in this mapping, they get the second bit; else
 *      from 3. Until then writeback may have them, so that nobody waits for a pin whose
 *      maker waits himself: for space, or for a thaw
 * Bits are set under TREE, and so is what reads them set a page LOCKED (R5): writeback and
 * reclaim have either begun with the page, and 3 and 4 see what they made of it, or see
 * the bit.
 *
 * TREE guards the list, the turns, the waiters and the bits. A pin does not keep a mapping
 * from being unmapped: that fails with -EBUSY, and so the inode has a user.
 */
#include <errno.h>

#include "core/engine.h"

/* The task's word where its pins are counted; the first ones are the ranks'. */
#define PINS_WORD (MKW__TASK_WORDS - 1)
_Static_assert(MKW__RANK_COUNT <= PINS_WORD, "a word for pins");
/* A page that was made present and is lost again so often is no page of ours. */
#define TRIES_MAX 1000u

struct mkw__pin_piece {
	TAILQ_ENTRY(mkw__pin_piece) link;	/* inode->pinned */
	TAILQ_ENTRY(mkw__pin_piece) of_pin;
	struct mkw__inode *inode;		/* pinned: a reference */
	struct mkw__os_task *owner;		/* to be compared only */
	uint64_t first, end;			/* pages */
	uintptr_t addr, addr_end;
	bool listed;
	bool spoiled;				/* since 3 began; TREE */
	bool write;				/* step 4 is done; TREE */
};

struct mkw_pin {
	TAILQ_HEAD(, mkw__pin_piece) pieces;
	struct mkw__os_task *owner;
	bool write;
};

/* ---- who waits for pins ------------------------------------------------- */

static bool overlaps(const struct mkw__pin_piece *p, uint64_t first, uint64_t end)
{
	return p->first < end && first < p->end;
}

/* A pin of these pages, of the calling thread if it has one; or NULL. */
static struct mkw__pin_piece *find_locked(struct mkw__inode *in, uint64_t first,
					  uint64_t end, bool write)
{
	struct mkw__pin_piece *p, *found = NULL;

	TAILQ_FOREACH(p, &in->pinned, link) {
		if (!overlaps(p, first, end) || (write && !p->write))
			continue;
		found = p;
		if (p->owner == mkw__os_self())
			break;
	}
	return found;
}

bool mkw__pin_blocks(struct mkw__inode *in, uint64_t first, uint64_t end)
{
	bool found;

	/* A pin of these pages was made under the iolock, which orders this. */
	if (!atomic_load_explicit(&in->ever_pinned, memory_order_relaxed))
		return false;
	mkw__mutex_lock(&in->tree);
	found = find_locked(in, first, end, false) != NULL;
	mkw__mutex_unlock(&in->tree);
	return found;
}

bool mkw__pin_of_memory(struct mkw__inode *in, uintptr_t addr, uintptr_t end)
{
	struct mkw__pin_piece *p;

	mkw__mutex_lock(&in->tree);
	TAILQ_FOREACH(p, &in->pinned, link)
		if (p->addr < end && addr < p->addr_end)
			break;
	mkw__mutex_unlock(&in->tree);
	return p;
}

/* Sleeps until some pin or turn has ended. TREE is released meanwhile. */
static void sleep_locked(struct mkw__inode *in)
{
	struct mkw__sleeper s;

	mkw__sleeper_init(&s);
	TAILQ_INSERT_TAIL(&in->pin_waiters, &s.waiter, link);
	mkw__mutex_unlock(&in->tree);
	mkw__rank_assert_none();
	mkw__sleeper_wait(&s);
	mkw__mutex_lock(&in->tree);
}

int mkw__pin_wait(struct mkw__inode *in, uint64_t first, uint64_t end, bool write,
		  struct mkw__pin_turn *turn)
{
	struct mkw__pin_piece *p;
	int r = 0;

	mkw__mutex_lock(&in->tree);
	while (!r && (p = find_locked(in, first, end, write))) {
		if (p->owner == mkw__os_self()) {
			r = -EDEADLK;
			break;
		}
		if (!turn->inode) {
			turn->inode = in;
			TAILQ_INSERT_TAIL(&in->turns, turn, link);
		}
		turn->first = first;
		turn->end = end;
		turn->write = write;
		sleep_locked(in);
	}
	mkw__mutex_unlock(&in->tree);
	return r;
}

void mkw__pin_spoil_locked(struct mkw__inode *in, uint64_t first, size_t n)
{
	struct mkw__pin_piece *p;

	TAILQ_FOREACH(p, &in->pinned, link)
		if (overlaps(p, first, first + n))
			p->spoiled = true;
}

static void wake(struct mkw__inode *in)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);

	mkw__mutex_lock(&in->tree);
	TAILQ_CONCAT(&woken, &in->pin_waiters, link);
	mkw__mutex_unlock(&in->tree);
	mkw__waiters_wake(&woken);
}

void mkw__pin_turn_end(struct mkw__pin_turn *turn)
{
	struct mkw__inode *in = turn->inode;

	if (!in)
		return;
	mkw__mutex_lock(&in->tree);
	TAILQ_REMOVE(&in->turns, turn, link);
	turn->inode = NULL;
	mkw__mutex_unlock(&in->tree);
	wake(in);
}

/* ---- making one --------------------------------------------------------- */

/* Step 1. */
static void wait_turns(struct mkw__inode *in, const struct mkw__pin_piece *p,
		       bool write)
{
	struct mkw__pin_turn *t;

	if (mkw__os_self()->words[PINS_WORD])
		return;
	mkw__mutex_lock(&in->tree);
	for (;;) {
		TAILQ_FOREACH(t, &in->turns, link)
			if (overlaps(p, t->first, t->end) && (write || !t->write))
				break;
		if (!t)
			break;
		sleep_locked(in);
	}
	mkw__mutex_unlock(&in->tree);
}

/* What is mapped at addr, and may be accessed that way; table held. */
static int look_up(uintptr_t addr, bool write, struct mkw__map **m)
{
	*m = mkw__map_find(addr);
	if (!*m)
		return -EFAULT;
	return !(*m)->readable || (write && !(*m)->writable) ? -EACCES : 0;
}

/* The piece from addr on; its inode gets a reference. */
static int piece_init(struct mkw__pin_piece *p, uintptr_t addr, uintptr_t end,
		      bool write)
{
	struct mkw__range_req table;
	struct mkw__map *m;
	struct mkw_engine *e;
	int r;

	mkw__map_table_lock(&table);
	r = look_up(addr, write, &m);
	if (!r) {
		e = m->inode->engine;
		p->inode = m->inode;
		mkw__inode_pin(m->inode);
		p->owner = mkw__os_self();
		p->addr = addr & ~(uintptr_t)(e->page - 1);
		/* The mapping's end, or the page's in which the memory ends. */
		p->addr_end = (end - 1) | (e->page - 1);
		if (p->addr_end > m->addr + m->len - 1)
			p->addr_end = m->addr + m->len - 1;
		p->addr_end++;
		p->first = mkw__page_of(e, m->off + (p->addr - m->addr));
		p->end = p->first + ((p->addr_end - p->addr) >> e->page_shift);
	}
	mkw__map_table_unlock(&table);
	return r;
}

/* Is the piece what is mapped there still? Table held. */
static bool is_mapped(const struct mkw__pin_piece *p, bool write)
{
	struct mkw__map *m;

	return !look_up(p->addr, write, &m) && m->inode == p->inode &&
	       mkw__map_addr(m, p->first) == p->addr &&
	       p->addr_end <= m->addr + m->len;
}

/* The bits of a piece's pages go, but for those of other pins. */
static void clear_bits_locked(struct mkw__inode *in, const struct mkw__pin_piece *p)
{
	struct mkw__pin_piece *any = find_locked(in, p->first, p->end, false);

	if (!any) {
		mkw__page_unpin_locked(in, p->first, p->end, false);
		return;
	}
	for (uint64_t idx = p->first; idx < p->end; idx++)
		if (!find_locked(in, idx, idx + 1, true))
			mkw__page_unpin_locked(in, idx, idx + 1,
					       find_locked(in, idx, idx + 1,
							   false));
}

/*
 * Step 2. 0; 1: the mapping has changed; -EAGAIN: there is no memory for what is known of
 * pages, and it was waited for; -ENOMEM.
 */
static int list(struct mkw__pin_piece *p, bool write)
{
	struct mkw__inode *in = p->inode;
	struct mkw_engine *e = in->engine;
	struct mkw__range_req table;
	struct mkw__excl x = { .gate = NULL };
	struct mkw__sleeper s;
	int r;

	r = mkw__excl_lock(in, &x, p->first << e->page_shift,
			   p->end << e->page_shift, EXCL_READ, false);
	if (r)
		return r;
	mkw__map_table_lock(&table);
	mkw__mutex_lock(&in->tree);
	r = !is_mapped(p, write);
	if (!r && mkw__page_pin_locked(in, p->first, p->end, false)) {
		TAILQ_INSERT_TAIL(&in->pinned, p, link);
		p->listed = true;
		atomic_store_explicit(&in->ever_pinned, true,
				      memory_order_relaxed);
	} else if (!r) {
		clear_bits_locked(in, p);
		r = mkw__pool_is_hopeless(e) ? -ENOMEM : -EAGAIN;
	}
	mkw__mutex_unlock(&in->tree);
	mkw__map_table_unlock(&table);
	mkw__excl_unlock(in, &x);
	if (r == -EAGAIN) {
		mkw__sleeper_init(&s);
		if (mkw__pool_enqueue(e, &s.waiter))
			mkw__sleeper_wait(&s);
	}
	return r;
}

/* Steps 1 and 2 for the piece from *addr on; *addr: its end. */
static int add_piece(struct mkw_pin *pin, uintptr_t *addr, uintptr_t end)
{
	struct mkw__pin_piece *p = mkw__os_zalloc(sizeof(*p));
	struct mkw_engine *e;
	uint64_t pages, before;
	int r;

	if (!p)
		return -ENOMEM;
	do {
		if (p->inode)
			mkw__inode_unpin(p->inode);
		p->inode = NULL;
		r = piece_init(p, *addr, end, pin->write);
		/* A first look, before the pages of a vast one get bits. */
		if (!r && p->end - p->first > p->inode->engine->pinned_max)
			r = -ENOBUFS;
		if (r)
			break;
		wait_turns(p->inode, p, pin->write);
		r = list(p, pin->write);
	} while (r == 1 || r == -EAGAIN);
	if (p->listed) {
		/* From the first piece on somebody may wait for this pin. */
		if (TAILQ_EMPTY(&pin->pieces))
			mkw__os_self()->words[PINS_WORD]++;
		*addr = p->addr_end;
		TAILQ_INSERT_TAIL(&pin->pieces, p, of_pin);
		e = p->inode->engine;
		pages = p->end - p->first;
		before = atomic_fetch_add_explicit(&e->count.pinned_pages, pages,
						   memory_order_relaxed);
		return before + pages > e->pinned_max ? -ENOBUFS : 0;
	}
	if (p->inode)
		mkw__inode_unpin(p->inode);
	mkw__os_free(p);
	return r;
}

/* Is the page as its pin needs it? TREE held. */
static bool is_ready_locked(struct mkw__inode *in, uint64_t idx, bool write)
{
	uint32_t word = mkw__page_get_locked(in, idx);

	if (!write || MKW__MUTANT(PIN_LEAVES_CLEAN))
		return pg_in(word, PG_PRESENT_MASK);
	return pg_in(word, PG_BIT(PG_DIRTY) | PG_BIT(PG_WB_DIRTY)) &&
	       (word & PG_WRITABLE) && !(word & PG_LOCKED);
}

/* Step 3. */
static int touch(struct mkw__pin_piece *p, bool write)
{
	struct mkw__inode *in = p->inode;
	size_t page = in->engine->page;
	bool ready, store = write && !MKW__MUTANT(PIN_LEAVES_CLEAN);
	unsigned tries;
	int r = 0;

	mkw__mutex_lock(&in->tree);
	p->spoiled = false;
	mkw__mutex_unlock(&in->tree);
	for (uint64_t idx = p->first; idx < p->end && !r; idx++) {
		for (tries = 0, ready = false; !r && !ready; tries++) {
			r = mkw__fault_touch(p->addr + (idx - p->first) * page,
					     store);
			mkw__mutex_lock(&in->tree);
			ready = is_ready_locked(in, idx, write);
			mkw__mutex_unlock(&in->tree);
			if (!r && !ready && tries == TRIES_MAX)
				r = -EFAULT;
		}
	}
	return r;
}

/* Step 4 for one piece. False: a page is not ready any more. */
static bool hold(struct mkw__pin_piece *p)
{
	struct mkw__inode *in = p->inode;
	uint64_t idx;

	mkw__mutex_lock(&in->tree);
	for (idx = p->first; idx < p->end; idx++)
		if (p->spoiled || !is_ready_locked(in, idx, true))
			break;
	if (idx == p->end) {
		/* It has its leaves: this sets bits only. */
		mkw__page_pin_locked(in, p->first, p->end, true);
		p->write = true;
		mkw__count(&in->engine->count.pinned_write_pages,
			   p->end - p->first);
	}
	mkw__mutex_unlock(&in->tree);
	return idx == p->end;
}

/* Undoes it. TREE held. */
static void unhold_locked(struct mkw__pin_piece *p)
{
	if (p->write)
		mkw__count(&p->inode->engine->count.pinned_write_pages,
			   (uint64_t)-(p->end - p->first));
	p->write = false;
	clear_bits_locked(p->inode, p);
}

static void unhold(struct mkw__pin_piece *p)
{
	mkw__mutex_lock(&p->inode->tree);
	/* It is in the list, and keeps its first bits. */
	unhold_locked(p);
	mkw__mutex_unlock(&p->inode->tree);
	wake(p->inode);
}

static int establish(struct mkw_pin *pin)
{
	struct mkw__pin_piece *p, *q;
	int r;

	for (;;) {
		TAILQ_FOREACH(p, &pin->pieces, of_pin) {
			r = touch(p, pin->write);
			if (r)
				return r;
		}
		if (!pin->write)
			return 0;
		TAILQ_FOREACH(p, &pin->pieces, of_pin)
			if (!hold(p))
				break;
		if (!p)
			return 0;
		for (q = TAILQ_FIRST(&pin->pieces); q != p;
		     q = TAILQ_NEXT(q, of_pin))
			unhold(q);
		mkw__os_step("pins again");
	}
}

bool mkw__pin_inherited(const struct mkw_pin *pin)
{
	return mkw__engine_inherited(TAILQ_FIRST(&pin->pieces)->inode->engine);
}

int mkw__pin(const struct mkw__uio *u, bool write, struct mkw_pin **out)
{
	struct mkw_pin *pin = mkw__os_zalloc(sizeof(*pin));
	size_t done = 0, n;
	int r = 0;

	if (!pin)
		return -ENOMEM;
	TAILQ_INIT(&pin->pieces);
	pin->owner = mkw__os_self();
	pin->write = write;
	for (unsigned i = 0; done < u->len && !r; i++) {
		uintptr_t addr = (uintptr_t)u->iov[i].iov_base, end;

		n = u->iov[i].iov_len;
		end = addr + n;
		if (end < addr)
			r = -EFAULT;
		while (!r && addr < end)
			r = add_piece(pin, &addr, end);
		done += n;
	}
	if (!r)
		r = establish(pin);
	if (r)
		mkw__unpin(pin);
	else
		*out = pin;
	return r;
}

void mkw__unpin(struct mkw_pin *pin)
{
	struct mkw__pin_piece *p;

	/* Else it is another thread's, and that one is taken to have a pin for good. */
	if (!TAILQ_EMPTY(&pin->pieces) && pin->owner == mkw__os_self() &&
	    mkw__os_self()->words[PINS_WORD])
		mkw__os_self()->words[PINS_WORD]--;
	while ((p = TAILQ_FIRST(&pin->pieces))) {
		struct mkw__inode *in = p->inode;
		struct mkw_engine *e = in->engine;

		TAILQ_REMOVE(&pin->pieces, p, of_pin);
		mkw__mutex_lock(&in->tree);
		TAILQ_REMOVE(&in->pinned, p, link);
		unhold_locked(p);
		mkw__mutex_unlock(&in->tree);
		mkw__count(&e->count.pinned_pages,
			   (uint64_t)-(p->end - p->first));
		if (!MKW__MUTANT(UNPIN_WAKES_NOBODY))
			wake(in);
		/* The flusher has passed over them. */
		mkw__pool_poke(e);
		mkw__inode_unpin(in);
		mkw__os_free(p);
	}
	mkw__os_free(pin);
}
