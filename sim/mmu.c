/* SPDX-License-Identifier: MIT */
/*
 * mmu.c: address space, page tables, frames, and userfaultfd.
 *
 * Addresses begin at VA_BASE, where no address of the host can be, so that an
 * engine that dereferences one crashes at once. A page of the address space
 * has a mapping (frames, offset, rights, the mmu that is told of its faults)
 * and a page-table entry:
 *
 *   NONE      an access faults
 *   RW        mapped (a store still needs the mapping's right to write)
 *   WP        mapped write-protected: a store faults
 *   MARKER    not mapped, and remembers that it was write-protected. Like
 *             NONE, but POISON refuses it
 *   POISON    an access raises SIGBUS
 *
 * An access reads the entry, and only on a fault the length of the frames. A
 * fault parks the task until it is woken, and then the access begins again
 * (with an in-thread mmu the handler runs instead). What the kernel of Linux
 * 6.18 does was tried on it (doc/TESTING.md); its calls act page by page, with
 * a step between, and each page atomically:
 *   - a drop unmaps the whole range first and the pages once more one by one;
 *     it leaves MARKER where WP was, and POISON; it sends no message
 *   - shrinking sets the length, then drops, and lifts POISON
 *   - CONTINUE and COPY replace MARKER and POISON
 *   - protecting an unmapped page makes a MARKER
 *   - unmapping wakes nobody
 * With sim_config.old_kernel it is Linux 6.1: no protected CONTINUE; a page is
 * poisoned by taking the access away, which only healing gives back.
 * A glance makes its copy as any, with a step before each piece, and looks
 * there whether a barrier has ended it; one that would touch an absent frame, or a
 * mapping, is a violation. There are none in a search: they add nothing but
 * interleavings of what the long way does too, and very many of them.
 * Oddities that are legal but rare on a real machine come by the seed: EAGAIN
 * with nothing done, short counts, ENOMEM, frames that the engine did not make.
 */
#include "sim/machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define VA_BASE ((uintptr_t)1 << 62)
#define VA_PAGES 65536u
#define MMUS_MAX 16u
#define STRAY 0x5e
#define ODD 24u		/* an oddity once in this many */

enum pte { PTE_NONE, PTE_RW, PTE_WP, PTE_MARKER, PTE_POISON };

struct mkw__os_mmu {
	bool open;
	bool in_thread;
	struct mkw__os_loop *loop;
	struct sim_task *pending[SIM_TASKS_MAX];	/* messages not read yet */
	unsigned pending_count;
};

struct mkw__os_frames {
	struct mkw__os_frames *next;
	uint64_t pages;		/* the length */
	uint64_t capacity;
	char **page;		/* NULL: no frame */
};

struct vpage {
	struct mkw__os_frames *fr;	/* NULL: not mapped */
	struct mkw__os_mmu *mmu;
	uint32_t index;			/* of the page in the frames */
	uint8_t pte;
	bool enabled, writable;
	bool barred;			/* poison of an old kernel */
};

static struct vpage va[VA_PAGES];
static unsigned patience;	/* faults that an access has at most */
static unsigned va_high;	/* pages from here on were never mapped */
static struct mkw__os_mmu mmus[MMUS_MAX];
static struct mkw__os_frames *all_frames;
static char *free_pages;	/* linked through their first bytes */
static mkw__os_handler *handler;

static size_t psize(void)
{
	return mkw__os_page_size();
}

bool sim_is_fake(uintptr_t addr)
{
	return addr - VA_BASE < VA_PAGES * psize();
}

/* The page of the address space at addr, or NULL where nothing is mapped. */
static struct vpage *vpage_at(uintptr_t addr)
{
	struct vpage *vp;

	if (!sim_is_fake(addr))
		return NULL;
	vp = &va[(addr - VA_BASE) / psize()];
	return vp->fr ? vp : NULL;
}

static uint64_t page_number(uintptr_t addr)
{
	return sim_is_fake(addr) ? (addr - VA_BASE) / psize() : addr;
}

/* What is touched, for a search: page-table entries, frames and their words. */
static void touch_pte(uintptr_t addr, unsigned mode)
{
	sim_touch(SIM_O_PTE, NULL, page_number(addr), mode);
}

static void touch_frame(struct mkw__os_frames *fr, uint64_t index, unsigned mode)
{
	sim_touch(SIM_O_FRAME, fr, index, mode);
}

static void touch_words(struct mkw__os_frames *fr, uint64_t off, size_t len,
			unsigned mode)
{
	for (uint64_t w = off / 8; len && w <= (off + len - 1) / 8; w++)
		sim_touch(SIM_O_WORD, fr, w, mode);
}

static void touch_length(struct mkw__os_frames *fr, unsigned mode)
{
	sim_touch(SIM_O_LENGTH, fr, 0, mode);
}

/* ---- frames ----------------------------------------------------------- */

static char *page_alloc(void)
{
	char *p = free_pages;

	if (!p)
		return sim_machine_alloc(psize());
	memcpy(&free_pages, p, sizeof(free_pages));
	return p;
}

/* Frames that a device has got hold of: page, or NULL; gone: nobody else has it. */
static struct sim_grab {
	char *page;
	bool gone;
} grabs[SIM_TASKS_MAX];

static void page_free(char *p)
{
	for (unsigned i = 0; i < SIM_TASKS_MAX; i++)
		if (grabs[i].page == p) {
			grabs[i].gone = true;
			return;
		}
	memcpy(p, &free_pages, sizeof(free_pages));
	free_pages = p;
}

int mkw__os_frames_create(struct mkw__os_mmu *mmu, struct mkw__os_frames **out)
{
	struct mkw__os_frames *fr = sim_machine_alloc(sizeof(*fr));

	(void)mmu;
	fr->next = all_frames;
	all_frames = fr;
	*out = fr;
	return 0;
}

void mkw__os_frames_destroy(struct mkw__os_frames *fr)
{
	struct mkw__os_frames **p = &all_frames;

	for (unsigned i = 0; i < va_high; i++)
		if (va[i].fr == fr)
			sim_violation("frames are destroyed while page %u of the address space maps them",
				      i);
	while (*p && *p != fr)
		p = &(*p)->next;
	if (!*p)
		sim_violation("frames are destroyed twice");
	*p = fr->next;
}

/* Takes the page out of every mapping; its frame stays. */
static void unmap_page(struct mkw__os_frames *fr, uint64_t index, bool poison_too)
{
	sim_touch(SIM_O_ADDRESSES, NULL, 0, SIM_READ);
	for (unsigned i = 0; i < va_high; i++) {
		struct vpage *vp = &va[i];

		if (vp->fr != fr || vp->index != index)
			continue;
		touch_pte(VA_BASE + i * psize(), SIM_WRITE);
		if (vp->pte == PTE_WP)
			vp->pte = PTE_MARKER;
		else if (vp->pte == PTE_RW ||
			 (vp->pte == PTE_POISON && poison_too))
			vp->pte = PTE_NONE;
	}
}

/* Somebody has touched the page, past all mappings: a child, mlockall(). */
static void stray(struct mkw__os_frames *fr, uint64_t index)
{
	fr->page[index] = memset(page_alloc(), STRAY, psize());
	sim_trace("a stray frame for page %llu", index, 0, 0);
}

static void drop(struct mkw__os_frames *fr, uint64_t first, uint64_t end,
		 bool truncate)
{
	if (end > fr->capacity)
		end = fr->capacity;
	for (uint64_t i = first; i < end; i++)
		unmap_page(fr, i, truncate);
	for (uint64_t i = first; i < end; i++) {
		sim_step(".frame of page %llu dropped", i, 0, 0);
		unmap_page(fr, i, truncate);
		touch_frame(fr, i, SIM_WRITE);
		if (fr->page[i]) {
			page_free(fr->page[i]);
			fr->page[i] = NULL;
			sim_counts.drops++;
		}
		if (!truncate && sim_odd(4 * ODD))
			stray(fr, i);
	}
}

int mkw__os_frames_resize(struct mkw__os_frames *fr, uint64_t len)
{
	uint64_t pages = len / psize(), old = fr->pages;
	char **more;

	if (len % psize())
		sim_violation("frames_resize to %llu, which is not whole pages",
			      (unsigned long long)len);
	if (pages > 1 << 20)
		return -ENOMEM;
	if (pages > fr->capacity) {
		more = sim_machine_alloc(2 * pages * sizeof(*more));
		if (fr->capacity)
			memcpy(more, fr->page, fr->capacity * sizeof(*more));
		fr->page = more;
		fr->capacity = 2 * pages;
	}
	sim_step("frames_resize to %llu pages", pages, 0, 0);
	touch_length(fr, SIM_WRITE);
	fr->pages = pages;
	if (pages < old)
		drop(fr, pages, old, true);
	return 0;
}

int mkw__os_frames_drop(struct mkw__os_frames *fr, uint64_t off, uint64_t len)
{
	if (off % psize() || len % psize())
		sim_violation("frames_drop of [%llu, %llu), which is not whole pages",
			      (unsigned long long)off,
			      (unsigned long long)(off + len));
	sim_step("frames_drop of pages [%llu, %llu)", off / psize(),
		 (off + len) / psize(), 0);
	drop(fr, off / psize(), (off + len) / psize(), false);
	return 0;
}

/* The engine's own mapping is nothing that a task here could see. */
void mkw__os_frames_unmap(struct mkw__os_frames *fr, uint64_t off, uint64_t len)
{
	(void)fr;
	(void)off;
	(void)len;
}

static char *frame_of(struct mkw__os_frames *fr, uint64_t index)
{
	touch_length(fr, SIM_READ);
	touch_frame(fr, index, SIM_READ);
	return index < fr->pages ? fr->page[index] : NULL;
}

bool mkw__os_frames_present(struct mkw__os_frames *fr, uint64_t off)
{
	bool yes;

	sim_step(".frames_present of page %llu", off / psize(), 0, 0);
	yes = frame_of(fr, off / psize());
	return yes;
}

/* ---- accesses --------------------------------------------------------- */

void mkw__os_set_handler(mkw__os_handler *fn)
{
	handler = fn;
}

/* SIM_OK: try again. */
static enum sim_outcome call_handler(uintptr_t addr, bool write)
{
	struct sim_task *self = sim_task_self();
	enum mkw__os_verdict v;

	if (!handler)
		return SIM_BUS;
	if (self->in_handler)
		sim_violation("task %s faults at %#llx inside the fault handler (rule R3)",
			      self->name, (unsigned long long)addr);
	sim_counts.handler_calls++;
	sim_trace("SIGBUS at page %llu: the handler runs", page_number(addr), 0, 0);
	self->in_handler = true;
	self->masked++;
	v = handler(addr, write);
	self->masked--;
	self->in_handler = false;
	/* FOREIGN: the end of the process, as where nothing is mapped. */
	return v == MKW__OS_RETRY || v == MKW__OS_DENIED ? SIM_OK :
	       v == MKW__OS_FAIL ? SIM_BUS : SIM_SEGV;
}

static void message_send(struct mkw__os_mmu *mmu, struct sim_task *t)
{
	sim_touch(SIM_O_MESSAGES, mmu, 0, SIM_WRITE);
	mmu->pending[mmu->pending_count++] = t;
	sim_counts.messages++;
	if (mmu->loop)
		sim_loop_notify(mmu->loop);
}

static void message_drop(struct mkw__os_mmu *mmu, unsigned i)
{
	mmu->pending_count--;
	memmove(&mmu->pending[i], &mmu->pending[i + 1],
		(mmu->pending_count - i) * sizeof(mmu->pending[0]));
}

/* Sleeps until the fault is woken. */
static void sleep_in_fault(struct vpage *vp, uintptr_t addr, bool write)
{
	struct sim_task *self = sim_task_self();

	sim_trace(write ? "write fault on page %llu: sleeps" :
			  "read fault on page %llu: sleeps",
		  page_number(addr), 0, 0);
	self->fault_addr = addr;
	self->fault_write = write;
	/* Two that go to sleep commute, and so do two that wake. */
	sim_touch(SIM_O_SLEEP, NULL, page_number(addr), SIM_READ);
	message_send(vp->mmu, self);
	sim_block(SIM_WAITS_FAULT, vp->mmu);
	sim_trace(".woken, accesses page %llu again", page_number(addr), 0, 0);
}

/*
 * Makes addr accessible, however many faults that takes, and gives its bytes in
 * the frame; what the caller does with them before its next step is atomic.
 */
static enum sim_outcome access_bytes(uintptr_t addr, bool write, char **bytes)
{
	struct sim_task *self = sim_task_self();
	unsigned faults = 0;
	enum sim_outcome o;

	if (self->kind != SIM_APP && self->kind != SIM_QUEUE)
		sim_violation("task %s touches application memory at %#llx (rule R3)",
			      self->name, (unsigned long long)addr);
	for (;;) {
		struct vpage *vp;

		sim_step(write ? ".store to page %llu" : ".load from page %llu",
			 page_number(addr), 0, 0);
		touch_pte(addr, SIM_READ);
		vp = vpage_at(addr);
		if (!vp || !vp->enabled || (write && !vp->writable))
			return SIM_SEGV;
		if (!vp->barred &&
		    (vp->pte == PTE_RW || (vp->pte == PTE_WP && !write))) {
			if (!vp->fr->page[vp->index])
				sim_violation("the simulated machine maps a page without frame");
			touch_words(vp->fr, vp->index * psize() + addr % psize(), 1,
				    write ? SIM_WRITE : SIM_READ);
			*bytes = vp->fr->page[vp->index] + addr % psize();
			return SIM_OK;
		}
		if (++faults > patience)
			sim_violation("an access starves: task %s faults on page %llu for the %uth time",
				      self->name,
				      (unsigned long long)page_number(addr), faults);
		o = SIM_OK;
		touch_length(vp->fr, SIM_READ);
		if (vp->barred || vp->pte == PTE_POISON ||
		    vp->index >= vp->fr->pages) {
			o = call_handler(addr, write);
		} else {
			sim_counts.faults++;
			if (vp->mmu->in_thread)
				o = call_handler(addr, write);
			else
				sleep_in_fault(vp, addr, write);
		}
		if (o != SIM_OK)
			return o;
	}
}

enum sim_outcome sim_load(uintptr_t addr, uint64_t *value)
{
	enum sim_outcome o;
	char *p;

	o = access_bytes(addr, false, &p);
	if (o == SIM_OK) {
		memcpy(value, p, sizeof(*value));
		sim_trace("load page %llu word %llu -> %llx", page_number(addr),
			  addr % psize() / 8, *value);
	} else {
		sim_trace("load page %llu: no access (%llu)",
			  page_number(addr), o, 0);
	}
	return o;
}

enum sim_outcome sim_store(uintptr_t addr, uint64_t value)
{
	enum sim_outcome o;
	char *p;

	o = access_bytes(addr, true, &p);
	if (o == SIM_OK) {
		memcpy(p, &value, sizeof(value));
		sim_trace("store page %llu word %llu = %llx", page_number(addr),
			  addr % psize() / 8, value);
	} else {
		sim_trace("store page %llu: no access (%llu)",
			  page_number(addr), o, 0);
	}
	return o;
}

/*
 * What get_user_pages() is where nobody serves a fault inside a system call: the page
 * must be accessible as it is. From then on its frame is read and written past the page
 * table, wherever it has gone. A task has one at most.
 */
void sim_grab(uintptr_t addr, bool write)
{
	struct vpage *vp;

	sim_step("a device gets hold of the frame of page %llu", page_number(addr),
		 0, 0);
	touch_pte(addr, SIM_READ);
	vp = vpage_at(addr);
	if (!vp || !vp->enabled || (write && !vp->writable) || vp->barred ||
	    !(vp->pte == PTE_RW || (vp->pte == PTE_WP && !write)))
		sim_violation("a pinned page cannot be %s without a fault",
			      write ? "written" : "read");
	grabs[sim_self()] = (struct sim_grab){ vp->fr->page[vp->index], false };
}

static char *grabbed(uintptr_t addr)
{
	return grabs[sim_self()].page + addr % psize();
}

void sim_grab_store(uintptr_t addr, uint64_t value)
{
	sim_step("the device stores %llx to word %llu of the frame", value,
		 addr % psize() / 8, 0);
	memcpy(grabbed(addr), &value, sizeof(value));
}

uint64_t sim_grab_load(uintptr_t addr)
{
	uint64_t v;

	sim_step(".the device loads word %llu of the frame", addr % psize() / 8, 0,
		 0);
	memcpy(&v, grabbed(addr), sizeof(v));
	sim_trace("the device has loaded word %llu: %llx", addr % psize() / 8, v, 0);
	return v;
}

void sim_grab_end(void)
{
	struct sim_grab g = grabs[sim_self()];

	grabs[sim_self()] = (struct sim_grab){ NULL, false };
	if (g.gone)
		page_free(g.page);
}

/* ---- user memory ------------------------------------------------------ */

/* How many of len bytes at 'at' are moved in one piece. */
static size_t piece(uint64_t at, size_t len)
{
	size_t unit = psize() / 8 < 8 ? 8 : psize() / 8;
	size_t n = unit - at % unit;

	return n < len ? n : len;
}

static uintptr_t guard;		/* sim_guard(); 0: none */

void sim_guard(const void *p)
{
	guard = (uintptr_t)p;
}

static bool bad_host_address(const void *p)
{
	return !sim_is_fake((uintptr_t)p) &&
	       ((uintptr_t)p < 65536 || (uintptr_t)p == guard);
}

/* How many bytes of such a piece are before the guard. */
static size_t good_bytes(uintptr_t at, size_t n)
{
	return guard - at < n ? guard - at : n;
}

/* Memory of the host has one user at a time. */
static void own_memory(const char *what)
{
	if (!sim_config()->transactions)
		sim_step(what, 0, 0, 0);
}

int mkw__os_user_read(void *dst, const void *user_src, size_t len)
{
	uintptr_t src = (uintptr_t)user_src;

	for (size_t done = 0, n; done < len; done += n) {
		char *p = (char *)(src + done);

		if (bad_host_address(p))
			return -EFAULT;
		n = good_bytes(src + done, piece(src + done, len - done));
		if (!sim_is_fake(src + done))
			own_memory(".reads its buffer");
		else if (access_bytes(src + done, false, &p) != SIM_OK)
			return -EFAULT;
		memcpy((char *)dst + done, p, n);
	}
	return 0;
}

int mkw__os_user_write(void *user_dst, const void *src, size_t len)
{
	uintptr_t dst = (uintptr_t)user_dst;

	if (bad_host_address(user_dst))
		return -EFAULT;
	for (size_t done = 0, n; done < len; done += n) {
		char *p = (char *)(dst + done);

		n = piece(dst + done, len - done);
		if (!sim_is_fake(dst + done))
			own_memory(".writes its buffer");
		else if (access_bytes(dst + done, true, &p) != SIM_OK)
			return -EFAULT;
		memcpy(p, (const char *)src + done, n);
	}
	return 0;
}

/* The alias: touching a frame that is not there is what must never happen. */
static char *alias(struct mkw__os_frames *fr, uint64_t off, const char *what)
{
	char *page = frame_of(fr, off / psize());

	if (!page)
		sim_violation("%s touches the absent frame of page %llu through the alias, in task %s",
			      what, (unsigned long long)(off / psize()),
			      sim_task_self()->name);
	return page + off % psize();
}

int mkw__os_frames_read(struct mkw__os_frames *fr, uint64_t off, void *dst,
			size_t len)
{
	char tmp[4096];
	int err;

	if (bad_host_address(dst))
		return -EFAULT;
	for (size_t done = 0, n; done < len; done += n) {
		n = piece(off + done, len - done);
		if (n > sizeof(tmp))
			n = sizeof(tmp);
		sim_step(".frames_read of page %llu", (off + done) / psize(), 0, 0);
		touch_words(fr, off + done, n, SIM_READ);
		memcpy(tmp, alias(fr, off + done, "frames_read"), n);
		if (!sim_is_fake((uintptr_t)dst + done)) {
			memcpy((char *)dst + done, tmp, n);
			continue;
		}
		err = mkw__os_user_write((char *)dst + done, tmp, n);
		if (err)
			return err;
	}
	return 0;
}

void mkw__os_frames_save(struct mkw__os_frames *fr, uint64_t off, void *dst,
			 size_t len)
{
	if (mkw__os_frames_read(fr, off, dst, len))
		sim_violation("frames are saved to memory that is not the engine's, in task %s",
			      sim_task_self()->name);
}

bool mkw__os_glance_open(void)
{
	return !sim_config()->transactions;
}

void mkw__os_glance_join(void)
{
}

static bool as_watched(const struct mkw__os_watch watch[MKW__GLANCE_WATCHES])
{
	for (unsigned i = 0; i < MKW__GLANCE_WATCHES; i++)
		if (atomic_load(watch[i].word) != watch[i].value)
			return false;
	return true;
}

bool mkw__os_glance_read(struct mkw__os_frames *fr, uint64_t off, void *dst,
			 size_t len,
			 const struct mkw__os_watch watch[MKW__GLANCE_WATCHES])
{
	struct sim_task *self = sim_task_self();

	if (bad_host_address(dst))
		return false;
	if (sim_is_fake((uintptr_t)dst))
		sim_violation("a glance copies into a mapping, in task %s (rule R0)",
			      self->name);
	self->broken_off = false;
	sim_step(".a glance begins", 0, 0, 0);
	if (self->broken_off || !as_watched(watch))
		return false;
	for (size_t done = 0, n; done < len; done += n) {
		n = piece(off + done, len - done);
		sim_step(".a glance at page %llu", (off + done) / psize(), 0, 0);
		/* Preempted, or what else ends it on a machine. */
		if (self->broken_off || sim_odd(4 * ODD))
			return false;
		memcpy((char *)dst + done, alias(fr, off + done, "a glance"), n);
	}
	return true;
}

void mkw__os_glance_barrier(void)
{
	sim_step("glances are broken off", 0, 0, 0);
	for (unsigned i = 0; i < sim_task_count(); i++)
		sim_task_get(i)->broken_off = true;
}

int mkw__os_frames_write(struct mkw__os_frames *fr, uint64_t off,
			 const void *src, size_t len)
{
	char tmp[4096];
	int err;

	for (size_t done = 0, n; done < len; done += n) {
		if (bad_host_address((const char *)src + done))
			return -EFAULT;
		n = good_bytes((uintptr_t)src + done, piece(off + done, len - done));
		if (n > sizeof(tmp))
			n = sizeof(tmp);
		sim_step(".frames_write to page %llu", (off + done) / psize(), 0, 0);
		if (sim_is_fake((uintptr_t)src + done)) {
			err = mkw__os_user_read(tmp, (const char *)src + done, n);
			if (err)
				return err;
		} else {
			memcpy(tmp, (const char *)src + done, n);
		}
		touch_words(fr, off + done, n, SIM_WRITE);
		memcpy(alias(fr, off + done, "frames_write"), tmp, n);
	}
	return 0;
}

void mkw__os_frames_zero(struct mkw__os_frames *fr, uint64_t off, size_t len)
{
	for (size_t done = 0, n; done < len; done += n) {
		n = piece(off + done, len - done);
		sim_step(".frames_zero in page %llu", (off + done) / psize(), 0, 0);
		touch_words(fr, off + done, n, SIM_WRITE);
		memset(alias(fr, off + done, "frames_zero"), 0, n);
	}
}

/* A new page with the bytes of src, which may be application memory. */
static int page_from(const void *src, char **out)
{
	char *page = page_alloc();
	int err = mkw__os_user_read(page, src, psize());

	if (err)
		page_free(page);
	else
		*out = page;
	return err;
}

/* Puts a page into the frames: -EFAULT past the end, -EEXIST. */
static int page_insert(struct mkw__os_frames *fr, uint64_t index, char *page)
{
	int err = 0;

	touch_length(fr, SIM_READ);
	touch_frame(fr, index, SIM_WRITE);
	if (index >= fr->pages)
		err = -EFAULT;
	else if (fr->page[index])
		err = -EEXIST;
	if (err)
		page_free(page);
	else
		fr->page[index] = page;
	return err;
}

int mkw__os_frames_publish(struct mkw__os_frames *fr, uint64_t off,
			   const void *src, size_t len, size_t *done)
{
	int err = 0;
	char *page;

	if (off % psize() || len % psize())
		sim_violation("frames_publish of [%llu, %llu), which is not whole pages",
			      (unsigned long long)off,
			      (unsigned long long)(off + len));
	*done = 0;
	while (*done < len && !err) {
		if (sim_odd(ODD)) {
			sim_trace("frames_publish: EAGAIN after %llu bytes", *done, 0, 0);
			return -EAGAIN;
		}
		if (sim_odd(4 * ODD)) {
			sim_trace("frames_publish: ENOMEM after %llu bytes", *done, 0, 0);
			return -ENOMEM;
		}
		err = page_from((const char *)src + *done, &page);
		if (!err) {
			sim_step("frames_publish of page %llu",
				 (off + *done) / psize(), 0, 0);
			err = page_insert(fr, (off + *done) / psize(), page);
		}
		if (!err)
			*done += psize();
	}
	/* The kernel tells of the error only when nothing was done before. */
	return err && *done && sim_odd(2) ? -EAGAIN : err;
}

/* ---- mappings --------------------------------------------------------- */

static bool va_free(unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		if (va[i].fr)
			return false;
	return true;
}

static unsigned va_find(unsigned n)
{
	unsigned first = 1;

	while (first + n <= VA_PAGES && !va_free(first, n))
		first++;
	return first;
}

static void va_clear(unsigned first, unsigned n)
{
	memset(&va[first], 0, n * sizeof(va[0]));
}

int mkw__os_map(struct mkw__os_mmu *mmu, struct mkw__os_frames *fr,
		uintptr_t hint, size_t len, unsigned flags, uint64_t off,
		uintptr_t *addr)
{
	unsigned n = (unsigned)((len + psize() - 1) / psize()), first;
	bool fixed = flags & (MKW__MAP_FIXED | MKW__MAP_FIXED_NOREPLACE);

	if (!len || off % psize() || hint % psize() || n > VA_PAGES / 2)
		return -EINVAL;
	sim_step("map %llu pages from page %llu", n, off / psize(), 0);
	sim_touch(SIM_O_ADDRESSES, NULL, 0, SIM_WRITE);
	first = (unsigned)((hint - VA_BASE) / psize());
	if (!hint || !sim_is_fake(hint) || first + n > VA_PAGES) {
		if (fixed)
			return -ENOMEM;
		first = va_find(n);
	} else if (!va_free(first, n)) {
		if (flags & MKW__MAP_FIXED_NOREPLACE)
			return -EEXIST;
		if (!fixed)
			first = va_find(n);
	}
	if (first + n > VA_PAGES)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		touch_pte(VA_BASE + (first + i) * psize(), SIM_WRITE);
	for (unsigned i = 0; i < n; i++)
		va[first + i] = (struct vpage){
			.fr = fr, .mmu = mmu,
			.index = (uint32_t)(off / psize() + i),
		};
	if (va_high < first + n)
		va_high = first + n;
	*addr = VA_BASE + first * psize();
	return 0;
}

static int set_access(uintptr_t addr, size_t len, bool enabled, bool writable)
{
	for (uintptr_t a = addr; a < addr + len; a += psize()) {
		struct vpage *vp = vpage_at(a);

		touch_pte(a, SIM_WRITE);
		if (!vp)
			return -ENOMEM;
		vp->enabled = enabled;
		vp->writable = writable;
		/* An old kernel's poison is no more than that. */
		vp->barred = false;
	}
	return 0;
}

int mkw__os_map_enable(uintptr_t addr, size_t len, bool writable)
{
	sim_step(".map_enable at page %llu", page_number(addr), 0, 0);
	return set_access(addr, len, true, writable);
}

int mkw__os_map_disable(uintptr_t addr, size_t len)
{
	sim_step("map_disable at page %llu", page_number(addr), 0, 0);
	return set_access(addr, len, false, false);
}

int mkw__os_unmap(uintptr_t addr, size_t len)
{
	sim_step("unmap %llu pages at page %llu", (len + psize() - 1) / psize(),
		 page_number(addr), 0);
	sim_touch(SIM_O_ADDRESSES, NULL, 0, SIM_WRITE);
	for (uintptr_t a = addr; a < addr + len; a += psize()) {
		touch_pte(a, SIM_WRITE);
		if (vpage_at(a))
			va_clear((unsigned)page_number(a), 1);
	}
	return 0;
}

/* ---- resolving calls -------------------------------------------------- */

void mkw__os_wake(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len)
{
	sim_step(".wake page %llu", page_number(addr), 0, 0);
	for (uintptr_t a = addr; a < addr + len; a += psize())
		sim_touch(SIM_O_SLEEP, NULL, page_number(a), SIM_ADD);
	for (unsigned i = 0; i < sim_task_count(); i++) {
		struct sim_task *t = sim_task_get(i);

		if (t->wait != SIM_WAITS_FAULT || t->on != mmu ||
		    t->fault_addr - addr >= len)
			continue;
		/* Any other wake could have been the one. */
		sim_touch(SIM_O_SLEEP, NULL, page_number(t->fault_addr), SIM_WRITE);
		for (unsigned j = mmu->pending_count; j-- > 0;)
			if (mmu->pending[j] == t) {
				sim_touch(SIM_O_MESSAGES, mmu, 0, SIM_WRITE);
				message_drop(mmu, j);
			}
		sim_wake(t);
	}
}

static void pages_check(const char *what, uintptr_t addr, size_t len)
{
	if (addr % psize() || len % psize() || !len || !sim_is_fake(addr))
		sim_violation("%s of [%#llx, +%llu), which is not whole pages of a mapping",
			      what, (unsigned long long)addr,
			      (unsigned long long)len);
}

/* One page of continue (src NULL) or copy. */
static int resolve_page(struct mkw__os_mmu *mmu, uintptr_t addr,
			const void *src, unsigned flags)
{
	struct vpage *vp;
	char *page = NULL;
	int err;

	if (src) {
		err = page_from(src, &page);
		if (err)
			return err;
	}
	if (flags & MKW__PTE_WP)
		sim_step(src ? "copy to page %llu, write-protected" :
			       "continue page %llu, write-protected",
			 page_number(addr), 0, 0);
	else
		sim_step(src ? "copy to page %llu" : "continue page %llu",
			 page_number(addr), 0, 0);
	touch_pte(addr, SIM_WRITE);
	vp = vpage_at(addr);
	if (!vp || vp->mmu != mmu) {
		if (page)
			page_free(page);
		return -ENOENT;
	}
	if (vp->pte == PTE_RW || vp->pte == PTE_WP) {
		if (page)
			page_free(page);
		return -EEXIST;
	}
	err = 0;
	if (page)
		err = page_insert(vp->fr, vp->index, page);
	else if (!frame_of(vp->fr, vp->index))
		err = -EFAULT;
	if (!err)
		vp->pte = flags & MKW__PTE_WP ? PTE_WP : PTE_RW;
	return err;
}

static int resolve(struct mkw__os_mmu *mmu, uintptr_t addr, const void *src,
		   size_t len, unsigned flags, size_t *done)
{
	size_t limit = len;
	int err = 0;

	pages_check(src ? "pte_copy" : "pte_continue", addr, len);
	if (!src && (flags & MKW__PTE_WP) && sim_config()->old_kernel)
		sim_violation("a page is continued write-protected, which this machine cannot");
	*done = 0;
	if (sim_odd(4 * ODD)) {
		sim_trace("no memory for page tables at page %llu", page_number(addr), 0, 0);
		return -ENOMEM;
	}
	if (sim_odd(ODD)) {
		limit = sim_env_random(len / psize()) * psize();
		sim_trace("the address space is changing: %llu of %llu pages at page %llu",
			  limit / psize(), len / psize(), page_number(addr));
	}
	while (*done < limit && !err) {
		err = resolve_page(mmu, addr + *done,
				   src ? (const char *)src + *done : NULL, flags);
		if (!err)
			*done += psize();
	}
	if (*done && !(flags & MKW__PTE_DONTWAKE))
		mkw__os_wake(mmu, addr, *done);
	if (*done == len)
		return 0;
	return *done || !err ? -EAGAIN : err;
}

int mkw__os_pte_continue(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len,
			 unsigned flags, size_t *done)
{
	return resolve(mmu, addr, NULL, len, flags, done);
}

int mkw__os_pte_copy(struct mkw__os_mmu *mmu, uintptr_t addr, const void *src,
		     size_t len, unsigned flags, size_t *done)
{
	return resolve(mmu, addr, src, len, flags, done);
}

int mkw__os_pte_protect(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len,
			bool wp, unsigned flags)
{
	bool any = false;

	pages_check("pte_protect", addr, len);
	if (sim_odd(ODD)) {
		sim_trace("pte_protect at page %llu: EAGAIN", page_number(addr), 0, 0);
		return -EAGAIN;
	}
	for (uintptr_t a = addr; a < addr + len; a += psize()) {
		struct vpage *vp;

		sim_step(wp ? "write-protect page %llu" :
			      "lift write protection of page %llu",
			 page_number(a), 0, 0);
		touch_pte(a, SIM_WRITE);
		vp = vpage_at(a);
		if (!vp)
			continue;	/* a hole is passed over */
		if (vp->mmu != mmu)
			return -ENOENT;
		any = true;
		if (wp && vp->pte == PTE_RW)
			vp->pte = PTE_WP;
		else if (wp && vp->pte == PTE_NONE)
			vp->pte = PTE_MARKER;
		else if (!wp && vp->pte == PTE_WP)
			vp->pte = PTE_RW;
		else if (!wp && vp->pte == PTE_MARKER)
			vp->pte = PTE_NONE;
	}
	if (any && !wp && !(flags & MKW__PTE_DONTWAKE))
		mkw__os_wake(mmu, addr, len);
	return any ? 0 : -ENOENT;
}

int mkw__os_pte_poison(struct mkw__os_mmu *mmu, uintptr_t addr)
{
	struct vpage *vp;

	pages_check("pte_poison", addr, psize());
	sim_step("poison page %llu", page_number(addr), 0, 0);
	touch_pte(addr, SIM_WRITE);
	vp = vpage_at(addr);
	if (!vp || vp->mmu != mmu)
		return -ENOENT;
	touch_length(vp->fr, SIM_READ);
	if (vp->index >= vp->fr->pages)
		return -EFAULT;
	/* What is there is zapped first, and a marker lifted. */
	if (sim_config()->old_kernel)
		vp->barred = true;
	else
		vp->pte = PTE_POISON;
	mkw__os_wake(mmu, addr, psize());
	return 0;
}

int mkw__os_pte_heal(uintptr_t addr, size_t len, bool writable)
{
	(void)writable;
	for (uintptr_t a = addr; a < addr + len; a += psize()) {
		struct vpage *vp;

		sim_step(".heal page %llu", page_number(a), 0, 0);
		touch_pte(a, SIM_WRITE);
		vp = vpage_at(a);
		if (vp)
			vp->barred = false;
	}
	return mkw__os_pte_zap(addr, len);
}

int mkw__os_pte_zap(uintptr_t addr, size_t len)
{
	int err = 0;

	pages_check("pte_zap", addr, len);
	for (uintptr_t a = addr; a < addr + len; a += psize()) {
		struct vpage *vp;

		sim_step("zap page %llu", page_number(a), 0, 0);
		touch_pte(a, SIM_WRITE);
		vp = vpage_at(a);
		if (!vp)
			err = -ENOMEM;
		else if (vp->pte == PTE_WP)
			vp->pte = PTE_MARKER;
		else if (vp->pte != PTE_MARKER)
			vp->pte = PTE_NONE;
	}
	return err;
}

/* ---- mmus ------------------------------------------------------------- */

int mkw__os_mmu_open(bool in_thread, struct mkw__os_mmu **out,
		     struct mkw__os_mmu_caps *caps)
{
	struct mkw__os_mmu *mmu = mmus;

	while (mmu < mmus + MMUS_MAX && mmu->open)
		mmu++;
	if (mmu == mmus + MMUS_MAX)
		return -EMFILE;
	*mmu = (struct mkw__os_mmu){ .open = true, .in_thread = in_thread };
	*caps = (struct mkw__os_mmu_caps){
		.kernel_faults = true,
		.continue_wp = !sim_config()->old_kernel,
	};
	*out = mmu;
	return 0;
}

void mkw__os_mmu_close(struct mkw__os_mmu *mmu)
{
	for (unsigned i = 0; i < va_high; i++)
		if (va[i].mmu == mmu)
			sim_violation("an mmu is closed while page %u of the address space is registered with it",
				      i);
	mmu->open = false;
}

void sim_mmu_attach(struct mkw__os_mmu *mmu, struct mkw__os_loop *l)
{
	mmu->loop = l;
}

bool sim_mmu_pending(struct mkw__os_mmu *mmu)
{
	return mmu->pending_count > 0;
}

unsigned sim_mmu_read(struct mkw__os_mmu *mmu, struct mkw__os_fault *msgs,
		      unsigned max)
{
	unsigned n = 0;

	sim_touch(SIM_O_MESSAGES, mmu, 0, SIM_WRITE);
	while (n < max && mmu->pending_count) {
		struct sim_task *t = mmu->pending[0];
		struct vpage *vp = vpage_at(t->fault_addr);

		touch_pte(t->fault_addr, SIM_READ);

		msgs[n++] = (struct mkw__os_fault){
			.addr = t->fault_addr, .write = t->fault_write,
			.wp = vp && vp->pte == PTE_WP && t->fault_write,
		};
		message_drop(mmu, 0);
	}
	return n;
}

void sim_patience(unsigned faults)
{
	patience = faults;
}

void sim_mmu_reset(void)
{
	patience = UINT_MAX;
	guard = 0;
	memset(grabs, 0, sizeof(grabs));
	va_clear(0, va_high);
	va_high = 0;
	memset(mmus, 0, sizeof(mmus));
	all_frames = NULL;
	free_pages = NULL;
}

const char *sim_mmu_left(void)
{
	if (all_frames)
		return "frames";
	for (unsigned i = 0; i < va_high; i++)
		if (va[i].fr)
			return "a mapping";
	for (unsigned i = 0; i < MMUS_MAX; i++)
		if (mmus[i].open)
			return "an mmu";
	return NULL;
}

/* ---- state, for a person ---------------------------------------------- */

static uint64_t word_at(const char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

void sim_mmu_print(FILE *to)
{
	static const char *const names[] = {
		"not mapped", "mapped writable", "mapped write-protected",
		"not mapped (marker)", "poisoned",
	};
	unsigned file = 0;

	for (struct mkw__os_frames *fr = all_frames; fr; fr = fr->next, file++) {
		fprintf(to, "frames %u, %llu pages:\n", file,
		       (unsigned long long)fr->pages);
		for (uint64_t i = 0; i < fr->capacity && i < 64; i++)
			if (fr->page[i])
				fprintf(to, "  page %llu: first word %llx\n",
				       (unsigned long long)i,
				       (unsigned long long)word_at(fr->page[i]));
		for (unsigned i = 0; i < va_high && i < 256; i++)
			if (va[i].fr == fr)
				fprintf(to, "  address page %u -> page %u, %s%s%s\n", i,
				       va[i].index, names[va[i].pte],
				       va[i].barred ? ", barred" : "",
				       va[i].mmu->in_thread ? ", in-thread" : "");
	}
}
