/* SPDX-License-Identifier: MIT */
/*
 * fork.c: what a forked child finds of its parent's engines: nothing that works.
 *
 * Mappings, aliases and reserved memory are not inherited (MADV_DONTFORK), and no
 * thread is. What remains is the heap's copy of the parent's structures, with
 * locks in whatever state some thread had them. So the child counts as another
 * process: mkw__os_process() changes before fork() returns there, and the public
 * calls refuse, first of all, an engine of another number. The statics of this
 * folder, and by way of a callback the core's, are put back to their beginning,
 * so that the child may open engines of its own.
 *
 * vfork() and posix_spawn() run none of this, and need none: their child shares
 * the parent's memory until it executes something. A child made by clone(2)
 * directly is not noticed; it must not call in.
 */
#include <errno.h>
#include <pthread.h>

#include "os/linux/linux.h"

static _Atomic uint64_t process = 1;
static _Atomic(void (*)(void)) forget_core;
static struct mkw__os_mutex mutex;	/* of registered */
static bool registered;

uint64_t mkw__os_process(void)
{
	return atomic_load_explicit(&process, memory_order_relaxed);
}

/* The only thread of the child. */
static void in_child(void)
{
	void (*fn)(void) = atomic_load(&forget_core);

	atomic_fetch_add(&process, 1);
	mutex = (struct mkw__os_mutex){ 0 };
	mkw__frames_forget_fork();
	mkw__trap_forget_fork();
	mkw__glance_forget_fork();
	if (fn)
		fn();
}

int mkw__os_at_fork(void (*fn)(void))
{
	int err = 0;

	atomic_store(&forget_core, fn);
	mkw__os_mutex_lock(&mutex);
	if (!registered) {
		err = pthread_atfork(NULL, NULL, in_child);
		registered = !err;
	}
	mkw__os_mutex_unlock(&mutex);
	return -err;
}
