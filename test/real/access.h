/* SPDX-License-Identifier: MIT */
/*
 * Accesses that may raise a signal, and what the tests on real faults begin with.
 *
 * access_begin() comes before the first engine: the engine's handlers hand on to
 * ours what is not theirs. cmocka puts handlers of its own before each test, so a
 * test calls mkw__trap_reinstall() once its engine is open. An access that raises
 * SIGBUS or SIGSEGV outside try_access() is a failure: it aborts. With
 * MKW_OLD_KERNEL in the environment the engine makes do with Linux 6.1.
 */
#ifndef TEST_ACCESS_H
#define TEST_ACCESS_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "os/linux/linux.h"

/*
 * For accesses to mapped memory that may be served, or refused, in their own thread: it
 * must not have locks of the thread sanitizer's then. The sanitizer does not look at these,
 * and so does not take a mapping that moves for a write to what is stored there.
 */
#if defined(__clang__)
#define UNSEEN __attribute__((no_sanitize("thread"), noinline))
#else
#define UNSEEN __attribute__((noinline))
#endif

static __thread sigjmp_buf access_caught;
static __thread volatile sig_atomic_t access_tried;

static void access_signal(int sig)
{
	if (!access_tried)
		abort();
	siglongjmp(access_caught, sig);
}

static inline void access_begin(void)
{
	struct sigaction sa = { .sa_handler = access_signal };

	mkw__os_mmu_old_kernel(getenv("MKW_OLD_KERNEL"));
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
}

/* A load of *value, or (NULL) a store of 0x5a: 0, or the signal that it raised. */
static inline int try_byte(volatile unsigned char *p, unsigned char *value)
{
	int sig = sigsetjmp(access_caught, 1);

	if (!sig) {
		access_tried = 1;
		if (value)
			*value = *p;
		else
			*p = 0x5a;
	}
	access_tried = 0;
	return sig;
}

static inline int try_access(volatile unsigned char *p, bool store)
{
	unsigned char value;

	return try_byte(p, store ? NULL : &value);
}

/* A store of a word that may be refused: 0, or the signal. */
static UNSEEN __attribute__((unused)) int try_store(_Atomic uint64_t *p, uint64_t value)
{
	int sig = sigsetjmp(access_caught, 1);

	if (!sig) {
		access_tried = 1;
		*(volatile uint64_t *)(void *)p = value;
	}
	access_tried = 0;
	return sig;
}

/* The same as a thread: stores 1, and returns the signal. */
static inline void *try_store_once(void *p)
{
	return (void *)(intptr_t)try_store(p, 1);
}

/*
 * Address space that stays ours once it is free again. mmap() without an address takes the
 * highest that is free, so a hole there is soon a thread's stack or a sanitizer's heap;
 * down here nobody looks. Reserved; len: bytes, whole pages.
 */
static inline void *own_space(size_t len)
{
	static uintptr_t next = (uintptr_t)1 << 30;
	void *p = mmap((void *)next, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		       MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)next)
		abort();
	next += len;
	return p;
}

/* False, with the reason printed: no userfaultfd. */
static inline bool access_possible(void)
{
	struct mkw__os_mmu_caps caps;
	struct mkw__os_mmu *mmu;

	if (mkw__os_mmu_open(false, &mmu, &caps)) {
		printf("SKIP: no userfaultfd here\n");
		return false;
	}
	mkw__os_mmu_close(mmu);
	return true;
}

#endif /* TEST_ACCESS_H */
