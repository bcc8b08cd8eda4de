/* SPDX-License-Identifier: MIT */
/*
 * engine.h: the engine's objects and what its files offer each other.
 *
 *   engine ─┬─ pool      frames (a count), leaves, I/O buffers, their waiters
 *           ├─ pager     the loop that serves fault messages
 *           ├─ flusher   the loop of writeback and reclaim
 *           └─ inodes ─┬─ store, frames, size
 *                      ├─ iolock, invalidate_lock
 *                      ├─ leaves (page.h)
 *                      └─ mappings (map.h)
 *   file ── inode        a handle
 *
 * Lifetime. An inode has *users* (handles and mappings), and *pins*
 * (a fault, the flusher, reclaim: whoever works on it for a while without
 * being a user). When the last user goes, the inode is marked dead, the pins
 * are waited for, and it is freed. doc/LOCKING.md has the table of fields.
 */
#ifndef MKW_ENGINE_H
#define MKW_ENGINE_H

#include <sys/uio.h>

#include "core/core.h"
#include "core/map.h"
#include "core/page.h"
#include "core/probe.h"
#include "core/testing.h"
#include "sync/sync.h"

/* Pages of one I/O, of a cluster, of a buffer. */
#define MKW__IO_PAGES 64u
/* Pages mapped around a fault on a cached page. */
#define MKW__AROUND_PAGES 16u
/* Faults that the pager works on at once; more wait in the kernel. */
#define MKW__PAGER_FAULTS 256u
/* I/O buffers: each MKW__IO_PAGES long, touched as far as used. */
#define MKW__BUFFERS 64u
/* Event loops that are kept for the next sync. */
#define MKW__IDLE_LOOPS 8u
#define MKW__PAGE_WAIT_BUCKETS 16u
/* Streams of sequential access that an inode's readahead follows. */
#define MKW__RA_STREAMS 4u
/* Requests for readahead that may be queued. */
#define MKW__RA_WISHES 64u

/* ---- pool ------------------------------------------------------------- */

struct mkw__buf {
	TAILQ_ENTRY(mkw__buf) link;
	unsigned char *mem;
};
TAILQ_HEAD(mkw__buf_list, mkw__buf);

/*
 * What an engine has only so much of. Who finds it empty and may not wait gives
 * up what he holds and queues a waiter.
 */
struct mkw__pool {
	struct mkw__mutex mutex;
	uint64_t frames_max, frames_used;
	uint64_t low, high;		/* reclaim begins and ends: free frames */
	uint64_t dirty_low, dirty_high;	/* flusher.c, "Dirty pages" */
	struct mkw__buf_list bufs;
	unsigned bufs_free;		/* on that list */
	struct mkw__buf buf[MKW__BUFFERS];
	unsigned char *buf_mem;
	unsigned idle_loops;		/* left by who synced: writeback.c */
	struct mkw__os_loop *idle_loop[MKW__IDLE_LOOPS];
	struct mkw__leaf_list free_leaves, active, inactive;
	struct mkw__leaf *leaf_mem;
	uint64_t leaves, leaves_made;	/* of leaf_mem: in all, ever used */
	uint64_t leaves_used;		/* on the active and inactive lists */
	_Atomic(struct mkw__leaf *) *shown; /* glance.c: by hash; or NULL */
	uint64_t shown_mask;
	struct mkw__waiters waiters;	/* for a frame, a leaf and a buffer */
	struct mkw__waiters dirty_waiters; /* for fewer dirty pages */
	struct mkw__waiters buf_waiters; /* for a buffer */
	_Atomic bool waited;		/* waiters is not empty */
	_Atomic bool missed;		/* the flusher could not get a lock */
};

/* ---- reservation of space: reserve.c ----------------------------------- */

/* Pages of a chunk at most. */
#define MKW__CHUNK_PAGES 256u

/* What is known of the blocks of one chunk. TREE mutex, as all of this. */
struct mkw__chunk {
	TAILQ_ENTRY(mkw__chunk) link;	/* reserve->known */
	TAILQ_ENTRY(mkw__chunk) creditor; /* reserve->creditors: has credit */
	uint64_t number;
	unsigned credits;		/* pages that are CREDIT */
	unsigned pins;			/* reservations at work on it */
	bool live;
	uint8_t state[MKW__CHUNK_PAGES];
};
TAILQ_HEAD(mkw__chunk_list, mkw__chunk);

/* Somebody at work on the blocks of pages [first, end). */
struct mkw__blocks_op {
	TAILQ_ENTRY(mkw__blocks_op) link;
	bool take;			/* else a reservation, of `chunk` */
	bool release;			/* one that gives back */
	uint64_t chunk, first, end;
};
TAILQ_HEAD(mkw__blocks_ops, mkw__blocks_op);

struct mkw__reserve {
	_Atomic bool on;		/* store and options have it; never again
					 * once it is false */
	_Atomic bool shared;		/* blocks were seen that writing copies */
	struct mkw__chunk *slots;
	struct mkw__chunk_list known, creditors;
	struct mkw__blocks_ops under_way;
	uint64_t backed_first, backed_end; /* a run of pages with blocks */
	uint64_t lost_seq;		/* times that blocks may have gone */
	uint64_t credit_ns;		/* when the last credit was made */
	_Atomic uint64_t credits;	/* pages; changed under TREE */
};

/* ---- inode and file --------------------------------------------------- */

/* readahead.c says how it is followed. */
struct mkw__ra_stream {
	uint64_t last;			/* the page that was touched last */
	int64_t step;			/* to the next one; 0: not known yet */
	uint32_t reach;			/* steps asked for, from last on; >= 1 */
	uint32_t window;		/* steps wanted ahead; 0: not sure of it */
	uint64_t used;			/* when, by ra_clock; 0: never */
};

/* A wish for pages first, first + step, ...; none if count is 0. */
struct mkw__ra_req {
	struct mkw__inode *inode;	/* pinned, while it is queued */
	uint64_t first;
	int64_t step;
	uint32_t count;
	/* To be mapped in mmu (NULL: not), where page 0 would be at base. */
	struct mkw__os_mmu *mmu;
	uintptr_t base;
	bool passing;			/* for a stream, and not to be kept */
	bool marked;			/* the request has its mark */
};

/* Parts of a file that glances tell apart, each of a leaf's pages at a time. */
#define MKW__GLANCE_PARTS 64u

/* Who is at work where, exclusively; glance.c. */
struct mkw__glance {
	_Atomic uint64_t wide;
	_Atomic uint64_t part[MKW__GLANCE_PARTS];
};
struct mkw__pin_piece;
TAILQ_HEAD(mkw__pin_pieces, mkw__pin_piece);

struct mkw__wb_io;
TAILQ_HEAD(mkw__wb_list, mkw__wb_io);

struct mkw__inode {
	struct mkw_engine *engine;
	struct mkw__store *store;
	struct mkw__os_frames *frames;
	TAILQ_ENTRY(mkw__inode) link;	/* engine->inodes; POOL mutex */
	bool writable;

	unsigned users;			/* POOL mutex; the last under FILES */
	unsigned pins;			/* POOL mutex, with dead and drained */
	bool dead;
	bool visited;			/* POOL mutex; mkw__inode_next_visit() */
	struct mkw__os_event drained;

	/* freeze.c; the counts and settled under FREEZER. */
	struct mkw__mutex freezer;
	struct mkw__range_lock gate;
	struct mkw__range_req shut;	/* of the gate, while it is frozen */
	unsigned freezes;		/* of handles and of the engine */
	unsigned engine_freezes;	/* of these, the engine's */
	bool settled;			/* frozen, and all is written */

	struct mkw__range_lock iolock;
	struct mkw__range_lock invalidate_lock;
	struct mkw__glance glance;
	/* Operations that took data away, or made room; see fault.c. */
	_Atomic uint64_t takes;
	/* Written under iolock, exclusive to the end; read at any time. */
	_Atomic uint64_t size;

	struct mkw__mutex tree;		/* what page.h says, and the following */
	struct mkw__leaf_tree leaves;
	struct mkw__leaf *hint;		/* the leaf last looked up, or NULL */
	struct mkw__waiters waiters[MKW__PAGE_WAIT_BUCKETS];
	uint64_t dirty;			/* pages */
	uint64_t dirty_since_ns;
	uint64_t failed;		/* pages, of these, that are PG_FAILED */
	uint64_t retried_ns;		/* when the first became so, or the
					 * flusher last tried them */
	struct mkw__ra_stream ra[MKW__RA_STREAMS];
	uint64_t ra_clock;
	enum mkw_advice advice;
	/* Writebacks in flight, in the order of their seq; and who waits for
	 * the end of one. */
	struct mkw__wb_list writes;
	struct mkw__waiters write_waiters;
	TAILQ_HEAD(, mkw_file) size_watchers;	/* TREE mutex */
	uint64_t write_seq;
	int wb_error;			/* what a sync was to tell last: of a write, a
					 * flush, or the length */
	uint64_t wb_error_seq;		/* how many there were */
	int write_error;		/* of these, the last failed write's */
	uint64_t write_errors;
	uint64_t stale_len;		/* of the store, as it was told with
					 * -ESTALE; UINT64_MAX: it is our size */

	struct mkw__reserve reserve;

	/* mkw_file_on_fault_error() */
	int (*on_error)(const struct mkw_fault_error *error, void *arg);
	void *on_error_arg;

	/* pin.c; TREE mutex. The flag is never unset. */
	struct mkw__pin_pieces pinned;
	TAILQ_HEAD(, mkw__pin_turn) turns;
	struct mkw__waiters pin_waiters;
	_Atomic bool ever_pinned;

	/* MKW_ATOMIC_WRITES: whoever changes it takes the mappings away. Never unset. */
	_Atomic bool atomic;

	/* A fault was answered by poison: mappings of a page that becomes
	 * readable must be zapped. Never unset. */
	_Atomic bool poisoned;

	struct mkw__map_list maps;	/* table */
};
TAILQ_HEAD(mkw__inode_list, mkw__inode);

struct mkw_file {
	struct mkw__inode *inode;
	bool writable;
	_Atomic uint64_t seen_error_seq;
	unsigned freezes;		/* FREEZER mutex */
	_Atomic unsigned requests;	/* of queues, without their results */
	/* Whoever asked to be told of the size: size.c. TREE mutex. */
	struct mkw__os_flag *size_flag;
	bool size_changed;		/* since he looked; the flag is raised */
	TAILQ_ENTRY(mkw_file) watch;
};

/* ---- faults ----------------------------------------------------------- */

/*
 * One page fault on its way; doc/STATES.md draws it. It runs from its start
 * (mkw__fault_run()) until it is done, or parked: then it stands in exactly
 * one queue (a range lock, a page, the pool, or its own fill's I/O), and whoever
 * wakes it calls resume().
 */
struct mkw__fault {
	TAILQ_ENTRY(mkw__fault) link;	/* pager: free, ready, or in grace */
	TAILQ_ENTRY(mkw__fault) active;	/* pager: in a bucket of those at work */
	struct mkw__waiter waiter;
	struct mkw__range_req ticket;
	struct mkw__range_req gate;
	struct mkw__os_io io;
	struct mkw__os_event event;	/* in-thread: resumed, or read */
	int read_error;			/* in-thread: how the read ended */
	void (*resume)(struct mkw__fault *f);
	struct mkw_engine *engine;
	struct mkw__os_mmu *mmu;
	uintptr_t addr;
	bool write, wp, in_thread;
	bool single;			/* no cluster: its read failed */
	bool hopeless;			/* the cache was, before it waited */
	bool throttled;			/* it has waited for the flusher */
	/* Whether the store may be over; see "Stale messages" in fault.c. */
	const void *noted;		/* of which inode; to be compared only */
	bool suspect, sure;
	bool stale;			/* and that is how it was answered */
	bool in_grace;			/* pager->grace has it */
	bool kept;			/* one of pager->kept_faults */
	uint64_t takes_read, takes;	/* the engine's; the inode's */
	uint64_t grace_batch, grace_end_ns;
	bool parked;			/* ever */
	int error;			/* why it ends as FAULT_FAIL */
	unsigned losses;		/* faults on the page just before */
	unsigned stalls;		/* times the kernel had no memory */
	uint64_t born_ns;
	/* What the ticket is for; inode is pinned while it is not NULL. */
	enum mkw__ticket {
		TICKET_NONE, TICKET_WAITS, TICKET_HELD
	} ticket_state, gate_state;
	struct mkw__inode *inode;
	uint64_t first, end;		/* pages */
	/* The reservation that was made for it: its answer. */
	struct {
		bool asked;
		uint64_t page;
		int answer;
	} space;
	/* The fill under way. */
	struct mkw__buf *buf;
	uint64_t fill_first;
	size_t fill_pages;
};
TAILQ_HEAD(mkw__fault_list, mkw__fault);

enum mkw__fault_end {
	FAULT_DONE,			/* the access may be tried again */
	FAULT_PARKED,
	FAULT_GRACE,			/* woken, to come again: keep the ticket */
	FAULT_FAIL,			/* in-thread: SIGBUS, for f->error */
	FAULT_DENIED,			/* in-thread: not allowed there */
	FAULT_FOREIGN,			/* in-thread: no mapping of ours */
};

#define MKW__FAULT_BUCKETS 64u
/* In-thread faults in grace, at once. */
#define MKW__KEPT_FAULTS 16u

/* Faults on one page in a row, for the grace of losers. */
struct mkw__recent {
	uint64_t page;			/* address, in pages */
	uint64_t last_ns;
	unsigned faults;
};

struct mkw__pager {
	struct mkw__os_loop *loop;
	struct mkw__os_thread *thread;
	struct mkw__mutex queue;	/* of ready and stop */
	struct mkw__fault_list ready;
	bool stop;
	/* The pager thread's own. */
	uint64_t batch;			/* readings of messages, so far */
	uint64_t takes_read;		/* engine's takes before the last one */
	struct mkw__fault_list free;
	struct mkw__fault_list grace;	/* in the order in which it ends */
	struct mkw__fault_list active[MKW__FAULT_BUCKETS];
	struct mkw__recent recent[MKW__FAULT_BUCKETS];
	/* The same of the in-thread faults; what those in grace are, and free
	 * ones to become such; QUEUE mutex. */
	struct mkw__recent recent_in_thread[MKW__FAULT_BUCKETS];
	struct mkw__fault_list kept, kept_free;
	struct mkw__fault kept_faults[MKW__KEPT_FAULTS];
	/* Readahead's ring of wishes, its reads in flight, and who waits for the
	 * end of either; QUEUE mutex. */
	struct mkw__ra_req wish[MKW__RA_WISHES];
	unsigned first_wish, wishes, reads;
	_Atomic bool quiet;
	struct mkw__waiters read_waiters;
	struct mkw__fault faults[MKW__PAGER_FAULTS];
};

struct mkw__space {
	struct mkw__os_thread *thread;
	struct mkw__mutex queue;	/* of faults and stop */
	struct mkw__os_event event;
	struct mkw__fault_list faults;
	bool stop;
};

struct mkw__flusher {
	struct mkw__os_loop *loop;
	struct mkw__os_thread *thread;
	_Atomic uint32_t kicks;		/* so far */
	_Atomic bool stop, quiet;
};

/* ---- log: core/log.c ---------------------------------------------------- */

#define MKW__LOG_RECORDS 64u

/* What a record tells, and what at and len are then. */
enum mkw__log_what {
	MKW__LOG_OPENED,		/* policy; bytes of the cache */
	MKW__LOG_KERNEL_FAULTS,		/* 1: so it is, 0: it is not; also: */
	MKW__LOG_CONTINUE_WP,
	MKW__LOG_POISON,
	MKW__LOG_FILE,			/* is direct; alignment */
	MKW__LOG_NO_SPACE_PROMISE,
	MKW__LOG_FILL_FAILED,		/* bytes of the file; also: */
	MKW__LOG_WRITEBACK_FAILED,
	MKW__LOG_REFUSED,		/* address */
	MKW__LOG_LENGTH_CHANGED,	/* the store's; ours */
	MKW__LOG_LOST,			/* ; bytes */
	MKW__LOG_DROPPED,		/* records */
};

struct mkw__log_record {
	enum mkw__log_what what;
	uint32_t level;			/* enum mkw_log_level */
	uint64_t dev, ino;		/* of the file */
	uint64_t at, len;
	int error;
};

struct mkw__log {
	_Atomic uint32_t level;		/* what is recorded; 0: nothing */
	struct mkw__os_thread *thread;	/* NULL: there is none */
	struct mkw__os_task *_Atomic self;	/* its, when it runs */
	struct mkw__os_mutex mutex;	/* a leaf; of what follows */
	struct mkw__os_event event;
	bool stop;
	unsigned first, count;
	uint64_t dropped;
	struct mkw__log_record ring[MKW__LOG_RECORDS];
	/* Set before the thread starts, and its own. */
	uint32_t level_callback, level_stderr;
	void (*callback)(void *arg, int level, const char *message);
	void *arg;
};

struct mkw__wb;

/* A device write of dirty pages under way; it lasts as long as its buffer. */
struct mkw__wb_io {
	struct mkw__os_io io;
	TAILQ_ENTRY(mkw__wb_io) link;	/* inode->writes */
	uint64_t seq;
	struct mkw__wb *wb;
	struct mkw__inode *inode;	/* pinned */
	struct mkw__buf *buf;
	uint64_t first;
	size_t pages;
};

/* A read of pages that nobody waits for yet; it lasts as long as its buffer. */
struct mkw__ra_io {
	struct mkw__os_io io;
	struct mkw__range_req ticket;	/* the fault lock over the pages */
	struct mkw__inode *inode;	/* pinned */
	struct mkw__buf *buf;
	uint64_t first;			/* pages */
	size_t pages;
	bool mark;
	bool back;			/* the mark is on the last, not the first */
	struct mkw__os_mmu *mmu;	/* as in the wish */
	uintptr_t base;
};

/* ---- engine ----------------------------------------------------------- */

struct mkw__counters {
	_Atomic uint64_t faults, write_faults, inline_faults, faults_merged;
	_Atomic uint64_t fills, fill_pages, fill_errors, readahead_pages;
	_Atomic uint64_t parks, retries, longest_wait_ns;
	_Atomic uint64_t writebacks, writeback_pages, writeback_errors;
	_Atomic uint64_t reclaim_unmapped, reclaim_dropped;
	_Atomic uint64_t bounced, cache_bypasses;
	_Atomic uint64_t dirty_pages, credit_pages, reservations;
	_Atomic uint64_t failed_pages, lost_pages;
	_Atomic uint64_t pinned_pages, pinned_write_pages;
};

static inline void mkw__count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

struct mkw_engine {
	uint64_t process;		/* mkw__os_process() of who opened it */
	size_t page;			/* bytes, and log2 of it */
	unsigned page_shift;
	enum mkw_policy policy;
	enum mkw_alloc alloc;
	uint64_t writeback_age_ns;
	uint64_t failed_max;		/* pages */
	bool glance;			/* reading may do without locks */
	uint64_t pinned_max;		/* pages, each as often as it is pinned */
	_Atomic uint64_t takes;		/* of all inodes */
	struct mkw__os_mmu *mmu, *mmu_in_thread;
	struct mkw__os_mmu_caps caps;
	struct mkw__mutex files;
	unsigned freezes;		/* FILES mutex */
	struct mkw__inode_list inodes;	/* POOL mutex */
	unsigned queues;		/* POOL mutex */
	struct mkw__pool pool;
	struct mkw__pager pager;
	struct mkw__space space;
	struct mkw__flusher flusher;
	struct mkw__counters count;
	struct mkw__log log;
	/* One for each buffer: what its device write, or read ahead, is. */
	struct mkw__wb_io wb_ios[MKW__BUFFERS];
	struct mkw__ra_io ra_ios[MKW__BUFFERS];	/* readahead.c */
};

/* Is the caller a forked child of the engine's process? Nothing of it works. */
static inline bool mkw__engine_inherited(const struct mkw_engine *e)
{
	return e->process != mkw__os_process();
}

static inline uint64_t mkw__page_of(const struct mkw_engine *e, uint64_t off)
{
	return off >> e->page_shift;
}

/* The first page at or after off. */
static inline uint64_t mkw__pages_up(const struct mkw_engine *e, uint64_t off)
{
	return (off + e->page - 1) >> e->page_shift;
}

/* The structure of which *ptr is the named member. */
#define MKW__CONTAINER(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline uint64_t mkw__min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t mkw__max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* ---- log.c ------------------------------------------------------------ */

/*
 * Records something for the log; in: the file, or NULL. Any task, under any lock, with
 * signals blocked as for any lock; does not wait, allocates nothing.
 */
void mkw__log(struct mkw_engine *e, enum mkw__log_what what, uint32_t level,
	      const struct mkw__inode *in, uint64_t at, uint64_t len, int error);
/* The log thread's: waits for the next record. False: there is none, and it is to end. */
bool mkw__log_next(struct mkw_engine *e, struct mkw__log_record *r);
/* Starts it, and recording up to that level; stop: when all is told that was recorded. */
int mkw__log_start(struct mkw_engine *e, uint32_t level, void (*fn)(void *arg));
void mkw__log_stop(struct mkw_engine *e);

/* ---- pool.c ----------------------------------------------------------- */

int mkw__pool_init(struct mkw_engine *e, uint64_t cache_bytes);
void mkw__pool_fini(struct mkw_engine *e);
/*
 * Up to want frames; how many it gave: none with yield while a fault waits. Kicks
 * the flusher when few are left.
 */
size_t mkw__pool_frames_get(struct mkw_engine *e, size_t want, bool yield);
void mkw__pool_frames_put(struct mkw_engine *e, size_t n);
/* An empty leaf for pages from `first`, known to reclaim; NULL: there is none. */
struct mkw__leaf *mkw__pool_leaf_get(struct mkw__inode *in, uint64_t first);
void mkw__pool_leaf_put(struct mkw_engine *e, struct mkw__leaf *leaf);
/*
 * NULL: none is free, or (_spare) not more than that many. _wait: sleeps for one;
 * see pool.c for who may.
 */
struct mkw__buf *mkw__pool_buf_get(struct mkw_engine *e);
struct mkw__buf *mkw__pool_buf_spare(struct mkw_engine *e, unsigned leave);
struct mkw__buf *mkw__pool_buf_wait(struct mkw_engine *e);
void mkw__pool_buf_put(struct mkw_engine *e, struct mkw__buf *buf);
/*
 * True: queued, to be woken when the pool has a frame, a leaf and a buffer; false: it
 * has them now.
 */
bool mkw__pool_enqueue(struct mkw_engine *e, struct mkw__waiter *w);
/* How many frames reclaim should free. */
uint64_t mkw__pool_shortage(struct mkw_engine *e);
/*
 * What fills the cache cannot be written, so waiting is in vain unless that heals.
 * _give_up(), when it has just been tried, wakes those who wait for frames.
 */
bool mkw__pool_is_hopeless(struct mkw_engine *e);
void mkw__pool_give_up(struct mkw_engine *e);
/* To be called after any lock of an inode is released: somebody who waits for
 * the pool may be waiting for that. */
void mkw__pool_poke(struct mkw_engine *e);

/* ---- inode.c ---------------------------------------------------------- */

/* False: it is going away. */
bool mkw__inode_pin(struct mkw__inode *in);
/* POOL mutex held. */
bool mkw__inode_pin_locked(struct mkw__inode *in);
void mkw__inode_unpin(struct mkw__inode *in);
/* Has it users still? */
bool mkw__inode_used(struct mkw__inode *in);
void mkw__inode_use(struct mkw__inode *in);
/* Ends a use; the last one writes back and frees. An error of that write. */
int mkw__inode_unuse(struct mkw__inode *in);
int mkw__file_close(struct mkw_file *file);
/*
 * The engine's inodes one after the other, each once, until NULL; then _end_visits().
 * FILES is held, so that none comes or goes.
 */
struct mkw__inode *mkw__inode_next_visit(struct mkw_engine *e);
void mkw__inode_end_visits(struct mkw_engine *e);

/* ---- freeze.c ---------------------------------------------------------- */

void mkw__freeze_init(struct mkw__inode *in);
/*
 * Around an operation that changes the file, outside all its locks: waits while it is
 * frozen. -EAGAIN: nowait, and it is.
 */
int mkw__freeze_enter(struct mkw__inode *in, struct mkw__range_req *req,
		      bool nowait);
void mkw__freeze_leave(struct mkw__inode *in, struct mkw__range_req *req);
/* The same for a fault; _enqueue() as mkw__range_enqueue(). */
bool mkw__freeze_try_ticket(struct mkw__inode *in, struct mkw__range_req *req);
bool mkw__freeze_enqueue(struct mkw__inode *in, struct mkw__range_req *req,
			 void (*granted)(struct mkw__range_req *req));
void mkw__freeze_leave_ticket(struct mkw__inode *in, struct mkw__range_req *req);
/*
 * mkw_file_freeze(), mkw_engine_freeze(), and their ends. A handle that closes gives
 * back its freezes; a file's last use, all of them; a file that is opened while its
 * engine is frozen is so, too (FILES held in these two).
 */
int mkw__freeze_file(struct mkw_file *file);
int mkw__freeze_thaw_file(struct mkw_file *file);
int mkw__freeze_engine(struct mkw_engine *e);
int mkw__freeze_thaw_engine(struct mkw_engine *e);
void mkw__freeze_close(struct mkw_file *file);
void mkw__freeze_last_use(struct mkw__inode *in);
void mkw__freeze_born(struct mkw__inode *in);

/* ---- excl.c: who excludes whom (DESIGN 4) ----------------------------- */

enum mkw__excl_kind {
	EXCL_READ,			/* iolock shared */
	EXCL_WRITE,			/* iolock exclusive */
	EXCL_HOLD,			/* and what faults take, too */
	EXCL_TAKE,			/* takes data away: when no page is pinned, too */
};

struct mkw__excl {
	struct mkw__range_req io, invalidate;
	/* The freeze gate, if the caller has it: let go of while a pin is waited for. */
	struct mkw__range_req *gate;
	bool raised;			/* for glances */
	bool took_invalidate;
	bool takes;			/* data away: counted at the end */
};

/*
 * Locks bytes [start, end) rounded out to pages. -EAGAIN: nowait, and somebody
 * has them. -EDEADLK: EXCL_TAKE, and the calling thread itself has a page pinned;
 * others' pins are waited for, with nothing locked, and none is made under the lock.
 * With MKW_ATOMIC_WRITES no page is mapped, either, from EXCL_TAKE on to its end.
 */
int mkw__excl_lock(struct mkw__inode *in, struct mkw__excl *x, uint64_t start,
		   uint64_t end, enum mkw__excl_kind kind, bool nowait);
/* EXCL_WRITE becomes EXCL_HOLD. Blocks. */
void mkw__excl_take(struct mkw__inode *in, struct mkw__excl *x);
void mkw__excl_unlock(struct mkw__inode *in, struct mkw__excl *x);
/*
 * Faults whose messages were taken from the kernel before now may be stale:
 * their access may be over. An unlock after EXCL_TAKE does this itself.
 */
void mkw__excl_count_take(struct mkw__inode *in);
/*
 * Everything exclusively, not waiting: what reclaim needs of pages. Its unlock is
 * not a take, since the store has what reclaim drops, and calls no flusher,
 * since it is the flusher's.
 */
bool mkw__excl_trylock_all(struct mkw__inode *in, struct mkw__excl *x,
			   uint64_t first_page, uint64_t end_page);
void mkw__excl_unlock_all(struct mkw__inode *in, struct mkw__excl *x);
/* What a fault takes, shared; NULL under the policy none. */
struct mkw__range_lock *mkw__excl_fault_lock(struct mkw__inode *in);

/* ---- atomic.c: MKW_ATOMIC_WRITES ---------------------------------------- */

static inline bool mkw__atomic(struct mkw__inode *in)
{
	return atomic_load_explicit(&in->atomic, memory_order_relaxed) &&
	       !MKW__MUTANT(ATOMIC_IGNORED);
}
/*
 * No page of [first, end) is mapped any more, nor will be before the caller's EXCL_TAKE over
 * them ends. -EAGAIN: nowait, and somebody has one of them.
 */
int mkw__atomic_hide(struct mkw__inode *in, uint64_t first, uint64_t end,
		     bool nowait);

/* ---- glance.c: reading without locks ----------------------------------- */

/* A counter that is raised while something goes on, and differs after it. */
static inline bool mkw__glance_is_raised(uint64_t value)
{
	return value & 0xfffff;
}
void mkw__glance_raise(_Atomic uint64_t *counter);
void mkw__glance_lower(_Atomic uint64_t *counter);
/* The same for bytes [start, end) of the file, whose iolock is held exclusively. */
void mkw__glance_shut(struct mkw__inode *in, uint64_t start, uint64_t end);
void mkw__glance_open(struct mkw__inode *in, uint64_t start, uint64_t end);
/*
 * Reads from what is cached, into ordinary memory. False: it was not to be had so, and
 * some of the buffer may have changed. Any caller, with no lock held.
 */
bool mkw__glance(struct mkw__inode *in, void *buf, size_t len, uint64_t off);
/*
 * The same for a task that may not have read in the long way before, since others do it in
 * its place. Signals are blocked.
 */
bool mkw__glance_first(struct mkw__inode *in, void *buf, size_t len, uint64_t off);
/*
 * What was just read into buf, in the long way, may be glanced at. The iolock is
 * held, and the buffer between mkw__ubuf_begin() and _end().
 */
void mkw__glance_learn(struct mkw__inode *in, const void *buf, size_t len,
		       uint64_t off);
/*
 * Before frames are dropped, with the iolock exclusive: may there be glances, that
 * began before, at the pages of idx's leaf for which there is a bit? If so,
 * mkw__os_glance_barrier() is next. _expel(): both, for pages [idx, idx + n).
 */
bool mkw__glance_may_go_on_locked(struct mkw__inode *in, uint64_t idx,
				  uint64_t bits);
void mkw__glance_expel(struct mkw__inode *in, uint64_t idx, size_t n);
/* Reclaim: the pages of a leaf that were glanced at since it last forgot. TREE. */
uint64_t mkw__glance_touched_locked(struct mkw__inode *in, uint64_t idx);
void mkw__glance_forget_locked(struct mkw__inode *in, uint64_t idx);
/* page.c: a leaf comes and goes, a page changes. TREE. */
void mkw__glance_leaf_begins(struct mkw__inode *in, struct mkw__leaf *leaf);
void mkw__glance_leaf_ends(struct mkw__inode *in, struct mkw__leaf *leaf);
void mkw__glance_page(struct mkw__inode *in, struct mkw__leaf *leaf, uint64_t idx,
		      uint32_t old, uint32_t word);
/* ---- pin.c: pages that system calls may store to for a while ------------ */

/* A place among those who wait for pins of pages to end. No inode: it is none. */
struct mkw__pin_turn {
	TAILQ_ENTRY(mkw__pin_turn) link;	/* inode->turns; TREE */
	struct mkw__inode *inode;
	uint64_t first, end;			/* pages */
	bool write;				/* only of pins for writing */
};

/* Has somebody pages of [first, end) pinned? Who asks has the iolock exclusively. */
bool mkw__pin_blocks(struct mkw__inode *in, uint64_t first, uint64_t end);
/*
 * Waits, with nothing held, until none of the pages is pinned (write: for writing). From
 * then on to _turn_end() new pins of them wait, but for those of a thread that
 * has pins already, since it may be the one that is waited for. -EDEADLK: it is a pin
 * of the calling thread. *turn begins all zero, and is taken once for several waits.
 */
int mkw__pin_wait(struct mkw__inode *in, uint64_t first, uint64_t end, bool write,
		  struct mkw__pin_turn *turn);
void mkw__pin_turn_end(struct mkw__pin_turn *turn);
/*
 * Writeback takes pages [first, first + n), which nobody has pinned for writing yet; TREE
 * held. Who is about to begins again with them.
 */
void mkw__pin_spoil_locked(struct mkw__inode *in, uint64_t first, size_t n);
/* Is memory of the mapped range [addr, end) pinned? The table is held exclusively. */
bool mkw__pin_of_memory(struct mkw__inode *in, uintptr_t addr, uintptr_t end);
struct mkw__uio;
/* mkw_pinv(), mkw_unpin(), the arguments being valid. _inherited: in a forked child. */
bool mkw__pin_inherited(const struct mkw_pin *pin);
int mkw__pin(const struct mkw__uio *u, bool write, struct mkw_pin **out);
void mkw__unpin(struct mkw_pin *pin);
/* Makes one access of a mapping possible, in the calling thread, with nothing held. */
int mkw__fault_touch(uintptr_t addr, bool write);

/* ---- fill.c ----------------------------------------------------------- */

/*
 * Makes up to max ABSENT pages from idx FILLING, with a frame each; how many.
 * 0: no frame or leaf, or idx is not ABSENT. yield: leaves frames that are few to
 * the faults that wait for them, since the caller can go past the cache (G3).
 */
size_t mkw__fill_begin_locked(struct mkw__inode *in, uint64_t idx, size_t max,
			      bool yield);
/*
 * Publishes the frames of FILLING pages from src (user: application memory,
 * else what was read, whose bytes past the file's end are zeroed). *done: pages.
 * -EFAULT, -ENOMEM.
 */
int mkw__fill_publish(struct mkw__inode *in, uint64_t idx, size_t n,
		      const void *src, size_t *done);
/*
 * The same, straight into the mapping that shows idx at addr, protected, which
 * saves a call; how many pages, 0 if there is none any more. What is left must be
 * published as above. Never writable: while a page is FILLING a sync would pass over
 * a store to it. wake: the accesses that sleep on the pages.
 */
size_t mkw__fill_publish_mapped(struct mkw__inode *in, struct mkw__os_mmu *mmu,
				uintptr_t addr, uint64_t idx, size_t n,
				const void *src, bool wake);
/* For probe and log: pages were read, or could not be. */
void mkw__fill_tell(struct mkw__inode *in, uint64_t idx, size_t n, int error);
void mkw__fill_zero_tail(struct mkw__inode *in, uint64_t idx, size_t n,
			 unsigned char *mem);
/*
 * Reads up to max absent pages from idx in the calling task, which holds the
 * iolock over them. The number of pages, 0 when they are not absent any more,
 * -ENOBUFS when the cache has no room, or the store's error.
 */
int mkw__fill_sync(struct mkw__inode *in, uint64_t idx, size_t max);

/* ---- readahead.c ------------------------------------------------------ */

/* How many pages from idx on a miss should read itself; 1 at least. */
size_t mkw__ra_window_locked(struct mkw__inode *in, uint64_t idx);
/*
 * A page was absent, and [idx, idx + n) are read by who found it so; or it is there,
 * and may have a mark. *req: what should be read ahead now.
 */
void mkw__ra_missed_locked(struct mkw__inode *in, uint64_t idx, size_t n,
			   struct mkw__ra_req *req);
void mkw__ra_mark_locked(struct mkw__inode *in, uint64_t idx,
			 struct mkw__ra_req *req);
/* Queues a wish. kick: by another task than the pager. False: dropped. */
bool mkw__ra_post(struct mkw__inode *in, const struct mkw__ra_req *req,
		  bool kick);
/* The pager: starts reads of what is queued. */
void mkw__ra_run(struct mkw_engine *e);
/* No readahead from now on, and none in flight; or (off) as ever. */
void mkw__ra_quiesce(struct mkw_engine *e, bool on);
void mkw__ra_advise(struct mkw__inode *in, enum mkw_advice advice);

/* ---- reserve.c, space.c ------------------------------------------------ */

int mkw__reserve_init(struct mkw__inode *in);
void mkw__reserve_fini(struct mkw__inode *in);
static inline bool mkw__reserve_on(struct mkw__inode *in)
{
	return atomic_load_explicit(&in->reserve.on, memory_order_relaxed);
}
/*
 * May pages [first, end) become dirty, as far as blocks go? TREE held, and it stays
 * so until that is released.
 */
bool mkw__reserve_has_locked(struct mkw__inode *in, uint64_t first,
			     uint64_t end);
/* The page's blocks are written to, or will be with no further look. */
void mkw__reserve_use_locked(struct mkw__inode *in, uint64_t idx);
/*
 * Reserves pages [first, *end), as many as lie in the first one's chunk: *end. The
 * caller holds a lock that keeps takes of them out, and nothing from PAGE on.
 * Blocks. 0: look again, with TREE held, since credit may be given back; -ENOSPC, or
 * another error of the store.
 */
int mkw__reserve(struct mkw__inode *in, uint64_t first, uint64_t *end);
/*
 * The same for as many pages of [first, *end) as there is space for: *end.
 * -ENOSPC: for none; -EAGAIN: nowait, and they have no blocks yet (which the store
 * is asked, as for what it knows). They are held until they are dirty, or unhold().
 */
int mkw__reserve_ensure(struct mkw__inode *in, uint64_t first, uint64_t *end,
			bool nowait);
void mkw__reserve_unhold(struct mkw__inode *in, uint64_t first, uint64_t end);
/*
 * For good, for those of [first, end) that a failure of the store would make
 * dirty. Lock as above.
 */
int mkw__reserve_present(struct mkw__inode *in, uint64_t first, uint64_t end);
/* Gives back all credit; wait: also of chunks that are at work. Blocks. */
void mkw__reserve_release(struct mkw__inode *in, bool wait);
/* Has the inode credit, and got none for age_ns? */
bool mkw__reserve_idle(struct mkw__inode *in, uint64_t now, uint64_t age_ns);

/*
 * Around a store operation that makes or takes blocks of bytes [off, end), whose
 * lock the caller holds; took() says what came of it, for bytes of that range.
 */
enum mkw__took { TOOK_AWAY, TOOK_ALLOCATED, TOOK_NOTHING_KNOWN };
void mkw__reserve_take(struct mkw__inode *in, struct mkw__blocks_op *op,
		       uint64_t off, uint64_t end);
void mkw__reserve_took(struct mkw__inode *in, struct mkw__blocks_op *op,
		       uint64_t off, uint64_t end, enum mkw__took what);
/*
 * The page was cut at byte off, and some of its blocks have gone: if it is dirty
 * it gets them again (from the space that is free just now).
 */
void mkw__reserve_edge(struct mkw__inode *in, uint64_t off);
/* Panics unless nobody is at work on blocks and the counts add up; TREE held. */
void mkw__reserve_verify_locked(struct mkw__inode *in);

int mkw__space_start(struct mkw_engine *e);
void mkw__space_stop(struct mkw_engine *e);
void mkw__space_submit(struct mkw__fault *f);

/* ---- fault.c, pager.c ------------------------------------------------- */

/* After so many faults in a row on one page an access gets a grace time. */
#define MKW__LOSSES_MAX 16u
/* Runs a fault from its start. FAULT_PARKED: *f is not the caller's any more. */
enum mkw__fault_end mkw__fault_run(struct mkw__fault *f);
/* Ends a grace in which the access did not come again. */
enum mkw__fault_end mkw__fault_end_grace(struct mkw__fault *f);
mkw__os_handler mkw__fault_in_thread;
void mkw__fault_on_error(struct mkw__inode *in,
			 int (*callback)(const struct mkw_fault_error *error,
					 void *arg),
			 void *arg);

/* Makes the reservation that a fault asked for: f->space. Blocks. */
void mkw__fault_reserve(struct mkw__fault *f);

/* What the pager does with an end that came to it in a callback. */
void mkw__pager_finish(struct mkw__fault *f, enum mkw__fault_end end);
/*
 * For an in-thread fault that is to be run: *f, or what it was copied to, since its
 * page has been lost so often that it will need a grace.
 */
struct mkw__fault *mkw__pager_prepare(struct mkw__fault *f);
/* Such a fault has ended: it is kept in grace, or not needed any more. */
void mkw__pager_keep(struct mkw__fault *f, enum mkw__fault_end end);
int mkw__pager_start(struct mkw_engine *e);
void mkw__pager_stop(struct mkw_engine *e);

/* ---- io.c, direct.c, ubuf.c ------------------------------------------- */

/* The caller's memory: segments, of which the first `len` bytes count. The array is
 * the engine's; what it points to is the application's. */
struct mkw__uio {
	const struct iovec *iov;
	size_t len;
};

/*
 * mkw_pread() and mkw_pwrite() without validation. -EXDEV, with nothing
 * changed or held: the buffer is in a mapping. With MKW_APPEND *off is set to
 * where the bytes went.
 */
ssize_t mkw__io_read(struct mkw__inode *in, const struct mkw__uio *u,
		     uint64_t off, unsigned flags);
ssize_t mkw__io_write(struct mkw__inode *in, const struct mkw__uio *u,
		      uint64_t *at, unsigned flags);
/* Under the caller's lock: the part that differs with MKW_DIRECT. */
ssize_t mkw__direct_read(struct mkw__inode *in, void *buf, size_t len,
			 uint64_t off, unsigned flags);
ssize_t mkw__direct_write(struct mkw__inode *in, const void *buf, size_t len,
			  uint64_t off, unsigned flags);
/* The same through a private copy where the buffer is in a mapping (R0). */
ssize_t mkw__ubuf_read(struct mkw__inode *in, const struct mkw__uio *u,
		       uint64_t off, unsigned flags);
ssize_t mkw__ubuf_write(struct mkw__inode *in, const struct mkw__uio *u,
			uint64_t *off, unsigned flags);

/* Reads [off, off + len) into the cache, as far as there is room for it. Blocks. */
int mkw__io_prefetch(struct mkw__inode *in, uint64_t off, uint64_t len);

/* ---- queue.c: asynchronous calls ---------------------------------------- */

/*
 * What a request is to those that carry it out (api/queue.c): its call, which blocks, and
 * whose value it returns; and a try that does not, false: it is to be called. Both
 * may change *rq. No lock is held, and in glance() signals are blocked.
 */
struct mkw__queue_calls {
	int64_t (*call)(struct mkw_request *rq);
	bool (*glance)(struct mkw_request *rq, int64_t *value);
};

int mkw__queue_open(struct mkw_engine *e, unsigned depth, unsigned threads,
		    const struct mkw__queue_calls *calls, struct mkw_queue **out);
void mkw__queue_close(struct mkw_queue *q);
struct mkw_engine *mkw__queue_engine(const struct mkw_queue *q);
int mkw__queue_fd(const struct mkw_queue *q);
/* False: it is full. rq->file: of this engine, or NULL. */
bool mkw__queue_submit(struct mkw_queue *q, const struct mkw_request *rq);
/* Up to n results; 0: there is none. */
size_t mkw__queue_take(struct mkw_queue *q, struct mkw_result *results, size_t n);
/* Until there may be one; as mkw__os_flag_wait(). */
int mkw__queue_wait(struct mkw_queue *q, uint64_t timeout_ns);
size_t mkw__queue_cancel(struct mkw_queue *q, uint64_t tag);

/* ---- size.c, hole.c, shift.c, query.c ---------------------------------- */

int mkw__size_set(struct mkw__inode *in, uint64_t size);
/*
 * The file gets longer, or shorter; the caller holds EXCL_TAKE from the page of
 * the smaller size to the end.
 */
int mkw__size_grow_locked(struct mkw__inode *in, uint64_t size);
int mkw__size_shrink_locked(struct mkw__inode *in, uint64_t size);
/* The size becomes this, and who watches it is told. */
void mkw__size_become(struct mkw__inode *in, uint64_t size);
/*
 * The flag that is raised by a change of the size, and lowered by _seen(), which says it;
 * _fd(): its descriptor, or a negative errno.
 */
int mkw__size_flag(struct mkw_file *file, struct mkw__os_flag **out);
int mkw__size_fd(struct mkw_file *file);
uint64_t mkw__size_seen(struct mkw_file *file);
void mkw__size_unwatch(struct mkw_file *file);
/* The frames' length for a file of that size; _cut: of a shorter one, which cannot fail. */
int mkw__size_frames(struct mkw__inode *in, uint64_t size);
void mkw__size_cut_frames(struct mkw__inode *in, uint64_t size);
/* Blocks for bytes [off, end), the size unchanged; EXCL_TAKE over them. */
int mkw__size_allocate_locked(struct mkw__inode *in, uint64_t off, uint64_t end);
int mkw__size_allocate(struct mkw__inode *in, uint64_t off, uint64_t len,
		       bool keep_size);
/*
 * Locks for an operation that writes [off, end): where it passes the file's end,
 * from the last page to infinity, and EXCL_TAKE. *size: what the size is, now that it is locked.
 */
int mkw__size_lock(struct mkw__inode *in, struct mkw__excl *x, uint64_t off,
		   uint64_t end, enum mkw__excl_kind kind, bool nowait,
		   uint64_t *size);

/* The same for one that writes at the end, wherever that is then: *size. */
int mkw__size_lock_end(struct mkw__inode *in, struct mkw__excl *x, bool nowait,
		       uint64_t *size);

int mkw__hole_punch(struct mkw__inode *in, uint64_t off, uint64_t len);
int mkw__hole_zero(struct mkw__inode *in, uint64_t off, uint64_t len,
		   bool keep_size);
/* Drops the pages [first, end), dirty or not; EXCL_TAKE held, R4 waited. */
/* Before a store operation that cuts the page of byte `at`; hole.c. */
int mkw__hole_write_edge(struct mkw__inode *in, uint64_t at);
void mkw__hole_drop(struct mkw__inode *in, uint64_t first, uint64_t end);
/* Zeroes bytes [off, end) of one page where it has a frame; lock as above. */
void mkw__hole_zero_frame(struct mkw__inode *in, uint64_t off, uint64_t end);

/* out: bytes [off, off + len) are taken out; else room is made for them at off. */
int mkw__shift(struct mkw__inode *in, uint64_t off, uint64_t len, bool out);

int64_t mkw__query_seek(struct mkw__inode *in, uint64_t off, bool data);
void mkw__query_resident(struct mkw__inode *in, uint64_t first, size_t n,
			 unsigned char *vec);

/* ---- failed.c: pages that could not be written ------------------------- */

/*
 * May pages [first, *end) become dirty? Those before *end may; for none of them the
 * error that forbids it. TREE held.
 */
int mkw__failed_admit_locked(struct mkw__inode *in, uint64_t first,
			     uint64_t *end);
/* mkw_failed() and mkw_discard(). */
size_t mkw__failed_list(struct mkw__inode *in, uint64_t off,
			struct mkw_failed *vec, size_t n);
int64_t mkw__failed_discard(struct mkw__inode *in, uint64_t off, uint64_t len);

/* ---- invalidate.c: what the store has was changed elsewhere ------------- */

/* mkw_invalidate() of the pages of bytes [off, end). */
int mkw__invalidate(struct mkw__inode *in, uint64_t off, uint64_t end, bool discard);

/* ---- writeback.c, reclaim.c, flusher.c -------------------------------- */

/* Writes in flight of one task. */
struct mkw__wb {
	struct mkw_engine *engine;
	struct mkw__os_loop *loop;	/* NULL: writes block, none in flight */
	unsigned in_flight;
	bool may_block;
	bool retry;			/* pages that have failed, too */
	bool locked;			/* by the caller: EXCL_TAKE over all */
	bool frozen;			/* behind a shut gate: no pin is waited for */
	int error;			/* -EDEADLK: the caller's own pin */
	struct mkw__pin_turn turn;
};

/*
 * Starts writing the DIRTY pages of [first, end). With may_block every page
 * that was dirty at the call; without, those whose locks are free. How many
 * pages were started.
 */
size_t mkw__wb_range(struct mkw__wb *wb, struct mkw__inode *in, uint64_t first,
		     uint64_t end);
/* Waits until nothing of wb is in flight. */
void mkw__wb_drain(struct mkw__wb *wb);
/*
 * All pages [first, end) that are dirty at the call to the store, and waits; also for
 * the writebacks of the file that were in flight. No flush. The error of a write that
 * ended meanwhile.
 */
int mkw__wb_pages(struct mkw__inode *in, uint64_t first, uint64_t end);
/* The same under EXCL_TAKE, so that none is dirty then; or why one still is. */
int mkw__wb_pages_locked(struct mkw__inode *in, uint64_t first, uint64_t end);
/* All pages, durable, with the gate shut; an error: some are dirty still. */
int mkw__wb_settle(struct mkw__inode *in);
int mkw__wb_sync(struct mkw_file *file);
/* Of pages [first, end) alone; flush: durable, too. No error but theirs. */
int mkw__wb_sync_range(struct mkw__inode *in, uint64_t first, uint64_t end,
		       bool flush);

/* Tries to free want frames of pages that nobody holds; how many it freed. */
size_t mkw__reclaim(struct mkw_engine *e, size_t want);
/* Takes the clean pages of a range from the cache, where nobody holds them. */
void mkw__reclaim_range(struct mkw__inode *in, uint64_t first, uint64_t end);

int mkw__flusher_start(struct mkw_engine *e);
/* Ends the thread; fini, once nobody can kick it any more, its loop. */
void mkw__flusher_stop(struct mkw_engine *e);
void mkw__flusher_fini(struct mkw_engine *e);
void mkw__flusher_kick(struct mkw_engine *e);
/* No writeback or reclaim from now on, and none under way; or (off) as ever. */
void mkw__flusher_quiesce(struct mkw_engine *e, bool on);
/* A page became dirty, and now there are so many. */
void mkw__flusher_dirtied(struct mkw_engine *e, uint64_t dirty);
/* Are there more dirty pages than there should be? */
bool mkw__flusher_is_behind(struct mkw_engine *e);
/* Who is about to make pages dirty, and holds nothing, waits here for his turn. */
void mkw__flusher_throttle(struct mkw_engine *e);
/* The same for a fault: false, it need not wait; true, w is queued. */
bool mkw__flusher_throttle_enqueue(struct mkw_engine *e, struct mkw__waiter *w);

#endif /* MKW_ENGINE_H */
