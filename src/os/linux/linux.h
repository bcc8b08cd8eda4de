/* SPDX-License-Identifier: MIT */
/*
 * linux.h: what the files of src/os/linux share among themselves.
 *
 *   task.c    threads, signal masks, mutex, event, clock, memory, panic
 *   mmu.c     userfaultfd and page-table calls
 *   frames.c  memfd, alias mappings
 *   trap.c    SIGBUS and SIGSEGV, copies that survive a bad address
 *   chain.c   who else handles those
 *   fork.c    what a forked child finds
 *   glance.c  copies from frames that may go meanwhile
 *   flag.c    eventfd, for loops of the application
 *   loop.c    io_uring, fault messages, kicks
 */
#ifndef MKW_OS_LINUX_H
#define MKW_OS_LINUX_H

#include <signal.h>
#include <ucontext.h>

#include "os/os.h"

struct mkw__os_mmu {
	int fd;
	bool in_thread;
	bool poison;	/* UFFDIO_POISON works (Linux 6.6) */
	struct mkw__os_mmu_caps caps;
};

/* For tests: mmus opened from now on make do with what Linux 6.1 has. */
void mkw__os_mmu_old_kernel(bool on);

/* Is the caller between mkw__os_signals_block() and _restore()? */
bool mkw__task_masked(void);
/* And had it blocked signals that a fault raises, when it called that? */
bool mkw__task_blocks_faults(void);

/* Has a page been barred, so that a SIGSEGV may be poison? See mmu.c. */
bool mkw__mmu_bars_pages(void);

/* The memfd, for mapping it. */
int mkw__frames_fd(const struct mkw__os_frames *fr);

/*
 * Sees to it that the engine has addresses for the frames of a range, so that
 * frames which another mapping makes can be reached. -ENOMEM.
 */
int mkw__frames_reach(struct mkw__os_frames *fr, uint64_t off, uint64_t len);

/*
 * Panics when addr lies in an alias mapping: the engine touched a frame that
 * is not there. Cheap, takes no lock unless it panics, async-signal-safe.
 */
void mkw__frames_check_stray(uintptr_t addr, bool write);

/* The address of frames that lie together and were reached before, or NULL. */
const char *mkw__frames_peek(struct mkw__os_frames *fr, uint64_t off, size_t len);

/*
 * Is it where a glance goes on that the kernel has broken off? With a signal that an
 * access raised: that access was the glance's.
 */
bool mkw__glance_is_broken_off(uintptr_t pc);
void mkw__glance_forget_fork(void);

/* Registers a range with an mmu; modes are UFFDIO_REGISTER_MODE_*. */
int mkw__mmu_register(struct mkw__os_mmu *mmu, void *addr, size_t len,
		      uint64_t modes);

/*
 * A mapping of fd that is registered before anybody can touch it: PROT_NONE,
 * not inherited by fork, never with huge pages. mmap_flags: MAP_SHARED and its
 * like. Made accessible by mprotect(). -errno; on a failure after a
 * replacing mmap() the range is left as inaccessible memory.
 */
int mkw__mmu_map(struct mkw__os_mmu *mmu, int fd, uintptr_t hint, size_t len,
		 int mmap_flags, uint64_t off, uint64_t modes, uintptr_t *addr);

/*
 * Puts our signal handlers in front of everybody's, also of those that were
 * installed since the last call.
 */
void mkw__trap_install(void);
/*
 * For tests, whose runner takes these signals for itself around each of them:
 * ours in front, and before us the handler that was there first.
 */
void mkw__trap_reinstall(void);

/* The handler; and what it does with a signal that is not the engine's. */
void mkw__trap_on_signal(int sig, siginfo_t *si, void *context);
/*
 * To the next in the chain. sent: by somebody, not by an access. Else comes_again
 * says whether the access will raise sig once more when the handler returns.
 */
void mkw__trap_hand_on(int sig, siginfo_t *si, ucontext_t *uc, bool sent,
		       bool comes_again);
/* Was the handler called by one that we handed this very signal on to? */
bool mkw__trap_is_nested(const ucontext_t *uc);

/*
 * In a forked child: what each file keeps of the parent's threads and addresses
 * is put back to the beginning.
 */
void mkw__trap_forget_fork(void);
void mkw__frames_forget_fork(void);

/*
 * Copies in which either side may be application memory: -EFAULT where it is
 * not mapped, or not with that access, with the bytes before it copied.
 * Aligned words of one side are moved in one piece: of the destination
 * (_to) or the source (_from). Of both, where both have the same alignment.
 */
int mkw__trap_copy_to(void *dst, const void *src, size_t len);
int mkw__trap_copy_from(void *dst, const void *src, size_t len);
/* Reads one byte of every page of the range: -EFAULT. */
int mkw__trap_probe(const void *src, size_t len);

/* For tests: loops made from now on do without io_uring. */
void mkw__os_loop_no_uring(bool on);

#endif /* MKW_OS_LINUX_H */
