/* SPDX-License-Identifier: MIT */
/*
 * os.h: the only way from the engine to the system.
 *
 * src/core and src/sync call nothing else (besides memcpy and its like), so
 * whoever implements this page decides what the machine is. There are two:
 *   src/os/linux   userfaultfd, memfd, io_uring, futex, threads
 *   sim/           the same, simulated on one thread, deterministic
 *
 * Every function that may block, and every one that touches state shared
 * between tasks, is here: the simulator makes each a scheduling point. A "task"
 * is a thread on Linux and a coroutine in the simulator.
 *
 * Errors are negative errno. Addresses of application memory are uintptr_t or
 * plain pointers and are never dereferenced outside this interface; in the
 * simulator a mapped address is not an address of the host at all.
 */
#ifndef MKW_OS_H
#define MKW_OS_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mkwrite/store.h"

/* ---- memory, clock, failure ------------------------------------------- */

/* The unit of caching and of mappings, a power of two. */
size_t mkw__os_page_size(void);

/* Zeroed memory, or NULL. */
void *mkw__os_zalloc(size_t len);
void mkw__os_free(void *p);

/*
 * Page-aligned zero memory that costs nothing until it is touched, or NULL.
 * Not inherited by a forked child.
 */
void *mkw__os_reserve(size_t len);
/*
 * The same for buffers of I/O: in few pages of the machine, where it has large ones,
 * since a device needs each of them by itself. Touching a byte may touch 2 MiB.
 */
void *mkw__os_reserve_io(size_t len);
void mkw__os_unreserve(void *p, size_t len);

/* Monotonic time in nanoseconds. */
uint64_t mkw__os_now_ns(void);

/*
 * Prints the message (what was found, what it means) and ends the process;
 * for states in which going on would lose data. In the simulator it ends the
 * run as a violation.
 */
_Noreturn void mkw__os_panic(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));

/*
 * Bytes of memory that the process may have, as far as is known, and what says so.
 * UINT64_MAX: no limit.
 */
uint64_t mkw__os_memory_limit(char *where, size_t len);

/* A message for whoever runs the program: a line, without its end. */
void mkw__os_tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A setting of the environment, or NULL; one that a set-user-ID program ignores. */
const char *mkw__os_setting(const char *name);

/* A point where another task may run; nothing on Linux. */
void mkw__os_step(const char *what);

/* ---- tasks ------------------------------------------------------------ */

struct mkw__os_thread;

/* Starts a task with all signals blocked. -EAGAIN, -ENOMEM. */
int mkw__os_thread_start(struct mkw__os_thread **out, const char *name,
			 void (*fn)(void *arg), void *arg);
/* Waits for the task to return from fn, then frees *t. */
void mkw__os_thread_join(struct mkw__os_thread *t);

/* A few words per task, zero at first: the lock checker keeps its record here. */
#define MKW__TASK_WORDS 32
struct mkw__os_task {
	uint64_t words[MKW__TASK_WORDS];
	uint64_t around[4];	/* core/map.c: where its last buffer was */
};
struct mkw__os_task *mkw__os_self(void);

/*
 * A number that changes in a forked child: what was made under another one is
 * another process's. fn runs in the child before fork() returns there, once
 * mkw__os_at_fork() was called with it (again: the same). -ENOMEM.
 */
uint64_t mkw__os_process(void);
int mkw__os_at_fork(void (*fn)(void));

/* ---- mutual exclusion and waiting ------------------------------------- */

/*
 * A mutex. All-zero is unlocked. Not recursive. Locking acquires what the
 * last unlock released. On Linux it is async-signal-safe: the fault handler
 * takes it, by raw futex calls.
 */
struct mkw__os_mutex {
	_Atomic uint32_t word;
};
void mkw__os_mutex_lock(struct mkw__os_mutex *m);
bool mkw__os_mutex_trylock(struct mkw__os_mutex *m);
void mkw__os_mutex_unlock(struct mkw__os_mutex *m);

/*
 * A one-shot event with a single waiter. All-zero is unset. _wait() returns
 * once it is set, and acquires what _set() released. _set() touches the event
 * for the last time before the waiter can return, so the waiter may free it.
 * _reset() is for the waiter, before it lets others see the event again.
 */
struct mkw__os_event {
	_Atomic uint32_t word;
};
void mkw__os_event_wait(struct mkw__os_event *ev);
void mkw__os_event_set(struct mkw__os_event *ev);
void mkw__os_event_reset(struct mkw__os_event *ev);

/*
 * Blocks every signal for the calling thread but those that a fault raises
 * (SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGTRAP), and cancellation of either kind,
 * so that no handler of the application runs, and no thread ends, while a
 * lock is held.
 * *saved is for _restore(), which restores errno as well. Pairs nest.
 */
struct mkw__os_sigmask {
	uint64_t bits;
	int err;
	int cancel;
};
void mkw__os_signals_block(struct mkw__os_sigmask *saved);
void mkw__os_signals_restore(const struct mkw__os_sigmask *saved);
/*
 * For accesses of mappings, with nothing held: opens the signals that a fault
 * raises, which the application may have blocked in this thread, leaves the others
 * as they are, and holds cancellation back. Not inside the pair above.
 */
void mkw__os_signals_open(struct mkw__os_sigmask *saved);
void mkw__os_signals_close(const struct mkw__os_sigmask *saved);

/*
 * A flag that an event loop of the application can wait for: a descriptor that can be
 * read (poll(2), epoll(7)) as long as the flag is raised. Raising and lowering do not
 * block; whoever does either knows how it stands, under a mutex of his own.
 * _wait(): until it is raised, or was; -ETIMEDOUT; -EINTR, a signal came. With nothing held, and
 * signals open.
 */
struct mkw__os_flag;
int mkw__os_flag_create(struct mkw__os_flag **out);
void mkw__os_flag_destroy(struct mkw__os_flag *f);
int mkw__os_flag_fd(const struct mkw__os_flag *f);
void mkw__os_flag_raise(struct mkw__os_flag *f);
void mkw__os_flag_lower(struct mkw__os_flag *f);
int mkw__os_flag_wait(struct mkw__os_flag *f, uint64_t timeout_ns);

/* ---- user memory ------------------------------------------------------ */

/* p + n for an address of the application, which may be anything, NULL too. */
static inline void *mkw__os_at(const void *p, size_t n)
{
	return (void *)((uintptr_t)p + n);
}

/*
 * Copy between engine memory and application memory, as ordinary loads and
 * stores in the calling task: they may fault, and in an engine mapping they
 * fault into the engine, so no lock of the engine may be held then (rule R0).
 * Aligned 8-byte words of the application's memory are moved in one piece.
 * -EFAULT: the address is not mapped, or not with that access.
 */
int mkw__os_user_read(void *dst, const void *user_src, size_t len);
int mkw__os_user_write(void *user_dst, const void *src, size_t len);

/* ---- memory management unit ------------------------------------------- */

/*
 * A userfaultfd with the features that the engine needs. There are two kinds:
 * faults of its mappings arrive as messages on a loop (below), or (in_thread)
 * as a call of the in-thread handler.
 */
struct mkw__os_mmu;

struct mkw__os_mmu_caps {
	bool kernel_faults;	/* faults inside system calls are served */
	bool continue_wp;	/* pte_continue takes MKW__PTE_WP (Linux 6.4) */
	bool poison;		/* the kernel has it (6.6); else the page is barred */
};

/*
 * -ENOSYS, -EPERM, -EMFILE. A message on stderr names the missing feature,
 * the kernel release that has it, or the setting to change.
 */
int mkw__os_mmu_open(bool in_thread, struct mkw__os_mmu **out,
		     struct mkw__os_mmu_caps *caps);
void mkw__os_mmu_close(struct mkw__os_mmu *mmu);

/*
 * What the in-thread handler made of a fault.
 *   RETRY    resolved, or worth another try: access again
 *   FAIL     the access has no page (I/O error, past the end): SIGBUS
 *   DENIED   its mapping does not allow the access (any more): SIGSEGV, which the
 *            kernel raises by itself when the access comes again
 *   FOREIGN  not an address of the engine: to whoever handled the signal before
 */
enum mkw__os_verdict {
	MKW__OS_RETRY, MKW__OS_FAIL, MKW__OS_DENIED, MKW__OS_FOREIGN
};

/*
 * The process's handler of in-thread faults. Called in the faulting thread
 * with every signal blocked; it may block.
 */
typedef enum mkw__os_verdict mkw__os_handler(uintptr_t addr, bool write);
void mkw__os_set_handler(mkw__os_handler *fn);

/* ---- frames ----------------------------------------------------------- */

/*
 * The frames of one file: offset in it = offset in the file. On Linux a memfd
 * and a private alias mapping of it, itself registered, so that touching an
 * absent frame through it is a loud failure. Frames are at most one page each,
 * whatever the huge-page setting.
 */
struct mkw__os_frames;

/* mmu: the one that is told of faults on the alias. Length 0 at first. */
int mkw__os_frames_create(struct mkw__os_mmu *mmu, struct mkw__os_frames **out);
void mkw__os_frames_destroy(struct mkw__os_frames *fr);

/*
 * Sets the length (a multiple of the page size). Shrinking drops the frames
 * past it and every mapping of them; past the length an access is SIGBUS.
 */
int mkw__os_frames_resize(struct mkw__os_frames *fr, uint64_t len);

/*
 * Makes frames for [off, off + len), whole pages, with the bytes of src (engine
 * or application memory), each published in one step. *done: bytes published.
 * -EEXIST  the frame at off + *done exists; it is unchanged
 * -EFAULT  src is not readable there, or off + *done is past the length
 * -EAGAIN  the address space is changing: again from *done
 * -ENOMEM
 */
int mkw__os_frames_publish(struct mkw__os_frames *fr, uint64_t off,
			   const void *src, size_t len, size_t *done);

/*
 * Copy between frames and memory. The frames must exist. user memory as in
 * mkw__os_user_read(): -EFAULT; a write then has changed nothing, unless the
 * memory went away during the call. Aligned words are copied in one piece.
 */
int mkw__os_frames_read(struct mkw__os_frames *fr, uint64_t off, void *dst,
			size_t len);
int mkw__os_frames_write(struct mkw__os_frames *fr, uint64_t off,
			 const void *src, size_t len);
void mkw__os_frames_zero(struct mkw__os_frames *fr, uint64_t off, size_t len);

/*
 * Copies frames of whole pages, which nobody stores to meanwhile, to memory of the
 * engine's own, not by way of the alias: nothing has to be mapped for it, nor be
 * unmapped when the frames go.
 */
void mkw__os_frames_save(struct mkw__os_frames *fr, uint64_t off, void *dst,
			 size_t len);

/* Drops the frames of whole pages, and every mapping of them. */
int mkw__os_frames_drop(struct mkw__os_frames *fr, uint64_t off, uint64_t len);

/*
 * Frames that are to be dropped: takes the engine's own mapping of them away, all in
 * one step, which makes dropping them cheaper; no more than that. They stay.
 */
void mkw__os_frames_unmap(struct mkw__os_frames *fr, uint64_t off, uint64_t len);

/* Is there a frame at off? */
bool mkw__os_frames_present(struct mkw__os_frames *fr, uint64_t off);

/* ---- glances ---------------------------------------------------------- */

/*
 * A glance copies from frames with no lock held, and so while others may drop
 * them. It ends, at any point and with part of its copy made, when a barrier wants
 * it to; core/glance.c says how both are used.
 *
 * _open(): can it be done here? Asked by every engine that is opened.
 * _join(): the calling task will glance; it may block, and be called again. Until
 * then, or where a task cannot, its glances fail.
 */
bool mkw__os_glance_open(void);
void mkw__os_glance_join(void);

struct mkw__os_watch {
	const _Atomic uint64_t *word;
	uint64_t value;
};
#define MKW__GLANCE_WATCHES 4u

/*
 * Copies, if every watched word has its value when the copy begins, in words as
 * mkw__os_frames_read(). False: not copied, or not wholly, for whatever reason. It
 * waits for nothing, but for pages of dst that the system has to find.
 */
bool mkw__os_glance_read(struct mkw__os_frames *fr, uint64_t off, void *dst,
			 size_t len,
			 const struct mkw__os_watch watch[MKW__GLANCE_WATCHES]);
/*
 * Once it returns, no glance goes on that began before it was called: all that do
 * have seen what the caller stored before. Not called from a glance's dst.
 */
void mkw__os_glance_barrier(void);

/* ---- mappings of frames in the application's address space ------------ */

#define MKW__MAP_FIXED           0x1u /* at hint, replacing what is there */
#define MKW__MAP_FIXED_NOREPLACE 0x2u /* at hint, or -EEXIST */

/*
 * Maps [off, off + len) of the frames, registered with mmu, and not yet
 * accessible; mkw__os_map_enable() makes it so. With a hint and no flag: there
 * if it is free. *addr: where it is. -EEXIST, -ENOMEM, -EINVAL.
 */
int mkw__os_map(struct mkw__os_mmu *mmu, struct mkw__os_frames *fr,
		uintptr_t hint, size_t len, unsigned flags, uint64_t off,
		uintptr_t *addr);
int mkw__os_map_enable(uintptr_t addr, size_t len, bool writable);
/* No access, as before; what is mapped stays. Of both: -ENOMEM, as below. */
int mkw__os_map_disable(uintptr_t addr, size_t len);
/*
 * Removes it, or part of it. Sleeping accesses are not woken. Call with no lock
 * held. -ENOMEM: a part, and the process has as many mappings as it may have.
 */
int mkw__os_unmap(uintptr_t addr, size_t len);

#define MKW__PTE_WP       0x1u	/* write-protected */
#define MKW__PTE_DONTWAKE 0x2u	/* leave sleeping accesses asleep */

/*
 * The resolving calls. addr and len are whole pages inside one mapping. They
 * act on a prefix and set *done to its bytes.
 *
 * continue: maps existing frames. copy: makes frames from src and maps them.
 *   -EEXIST  the page at addr + *done is mapped already (continue), or its
 *            frame exists (copy)
 *   -EFAULT  no frame there (continue), src is bad (copy), or past the end
 *   -EAGAIN  *done > 0: go on after it (-EFAULT or -EEXIST follows then);
 *            *done == 0: the address space is changing, let go and try again
 *   -ENOENT, -ESRCH  no such mapping (any more)
 *   -ENOMEM
 * protect: sets (wp) or lifts write protection; *done is not used.
 */
int mkw__os_pte_continue(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len,
			 unsigned flags, size_t *done);
int mkw__os_pte_copy(struct mkw__os_mmu *mmu, uintptr_t addr, const void *src,
		     size_t len, unsigned flags, size_t *done);
int mkw__os_pte_protect(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len,
			bool wp, unsigned flags);
/*
 * Makes accesses of one page raise SIGBUS until it is healed; what is mapped
 * there is zapped. (A zap or a truncation may lift it, or not.)
 */
int mkw__os_pte_poison(struct mkw__os_mmu *mmu, uintptr_t addr);
/* Lifts poison, and zaps. writable: as mkw__os_map_enable() was told. */
int mkw__os_pte_heal(uintptr_t addr, size_t len, bool writable);
/* Removes the mapped pages of the range; the frames stay. */
int mkw__os_pte_zap(uintptr_t addr, size_t len);
/* Makes accesses that sleep on the range fault again from the start. */
void mkw__os_wake(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len);

/* ---- event loops ------------------------------------------------------ */

/*
 * What a task of the engine sleeps on: completions of asynchronous I/O, fault
 * messages of an mmu, a kick from another task, or time.
 */
struct mkw__os_loop;

struct mkw__os_fault {
	uintptr_t addr;	/* of the access */
	bool write;
	bool wp;	/* a store met a write-protected page (a hint) */
};

/* depth: I/Os in flight at most. */
int mkw__os_loop_create(unsigned depth, struct mkw__os_loop **out);
void mkw__os_loop_destroy(struct mkw__os_loop *l);

/*
 * The task that waits in the loop, which has no mmu, is through with it: nothing is in
 * flight, or queued. Another may be the one that waits from now on.
 */
void mkw__os_loop_leave(struct mkw__os_loop *l);

/*
 * Adds the fault messages of mmu: on_fault runs in mkw__os_loop_wait(), once
 * for each. before_read (or NULL) runs before messages are taken from the
 * kernel: those that follow, until it runs again, were taken after it. _pause()
 * holds messages back, for as long as it is on (the receiver is full).
 */
int mkw__os_loop_watch(struct mkw__os_loop *l, struct mkw__os_mmu *mmu,
		       void (*before_read)(void *arg),
		       void (*on_fault)(void *arg,
					const struct mkw__os_fault *msg),
		       void *arg);
void mkw__os_loop_pause(struct mkw__os_loop *l, bool on);

/*
 * Submits what is queued, sleeps until something happens or timeout_ns has
 * passed (0: does not sleep; UINT64_MAX: no limit), and runs the callbacks of
 * what happened.
 */
void mkw__os_loop_wait(struct mkw__os_loop *l, uint64_t timeout_ns);

/*
 * Ends a sleep in mkw__os_loop_wait(), now or the next one. Any task may, the
 * fault handler too.
 */
void mkw__os_loop_kick(struct mkw__os_loop *l);

/*
 * One asynchronous read or write of a store: mkw__store_submit(). done() runs in the
 * loop's mkw__os_loop_wait(), never in submit(). res: 0 or a negative errno, for
 * the whole of it.
 */
struct mkw__os_io {
	void (*done)(struct mkw__os_io *io, int res);
	bool write;
	uint64_t off;
	void *buf;
	size_t len;
	/* From here on store.c's own: what is asked of the store, and how it ends. */
	struct mkw__store *store;
	struct mkw__os_loop *loop;	/* NULL: somebody waits for the event */
	void (*op)(void *arg, struct mkw_io *io);
	void (*then)(struct mkw__os_io *io, int res);
	struct mkw_io ask;
	ssize_t result;
	uint64_t total;
	uint64_t len_before;	/* the store's, when it was asked */
	_Atomic uint32_t state;
	struct mkw__os_event event;
	struct mkw__os_io *next;	/* threads.c */
	/* And of transfers of a descriptor. */
	void (*raw)(struct mkw__os_loop *l, struct mkw__os_io *io, int res);
	void (*failed)(struct mkw_io *io, int error);
	size_t moved;		/* bytes done so far */
	size_t part;		/* of the rest, what is queued; 0: all */
	int fd;
};

/* An I/O of the loop's begins; it ends by mkw__os_loop_post(), or in raw(). */
void mkw__os_loop_begin(struct mkw__os_loop *l);
/*
 * For stores: queues a read or write of io->fd, of len - moved bytes (of part, if
 * that is not 0) of buf + moved at off + moved. io->raw gets the outcome, a byte count
 * or a negative errno, in mkw__os_loop_wait(); it may queue io again for the rest. The
 * caller keeps at most the loop's depth in flight.
 */
void mkw__os_loop_rw(struct mkw__os_loop *l, struct mkw__os_io *io);
/* io->done() is called with res, from the next mkw__os_loop_wait(). */
void mkw__os_loop_post(struct mkw__os_loop *l, struct mkw__os_io *io, int res);

#endif /* MKW_OS_H */
