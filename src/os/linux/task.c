/* SPDX-License-Identifier: MIT */
/*
 * task.c: threads, mutex, event, signal masks, clock, memory, panic.
 *
 * Mutex and event are a word each and the futex system call, by hand, because
 * the SIGBUS handler uses them: pthread mutexes are not async-signal-safe. All
 * ordering comes from the C11 atomics of the word; the futex call only sleeps
 * and wakes, and every sleeper looks at the word again. A wake may therefore
 * reach an address whose owner is gone (the kernel takes it as a number and
 * reads nothing): whoever sleeps there now wakes for nothing and looks.
 *
 *	mutex	0 free	1 held	2 held, and somebody may sleep
 *	event	0 unset	1 set	2 unset, and the waiter may sleep
 *
 * An application's thread has all signals blocked while it holds a lock of ours,
 * also those of the C library, and cancellation is disabled: a blocked signal does
 * not keep a call such as pread() from being a cancellation point. Nothing
 * cheaper is safe as long as reading takes a lock: a handler that touches a
 * mapping waits for a fault, and whichever of its locks the interrupted call
 * holds (a range, the table's, the tree's, the pool's), it waits for itself, in its
 * own thread or by way of the pager.
 *
 * Engine threads run with every signal blocked but these: those that a fault
 * of their own raises, so that a bug is reported by whoever reports crashes in
 * this process, and SIGSETXID (33), by which the C library makes setuid() act
 * on all threads: it waits for each of them, so a thread that blocked it for
 * good would hang the caller. (The C library opens its signal 32 in every
 * thread too; that one is for cancelling it, which nobody does to ours.)
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/linux/linux.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#define STACK_BYTES ((size_t)4 << 20)
#else
#define STACK_BYTES ((size_t)256 << 10)
#endif

#define SIGNAL_BIT(sig) ((uint64_t)1 << ((sig) - 1))
#define FAULT_SIGNALS                                                 \
	(SIGNAL_BIT(SIGBUS) | SIGNAL_BIT(SIGSEGV) | SIGNAL_BIT(SIGILL) | \
	 SIGNAL_BIT(SIGFPE) | SIGNAL_BIT(SIGTRAP))
/* The C library's own, which sigfillset() and pthread_sigmask() leave out. */
#define SIGNAL_SETXID 33

/* ---- memory, clock, failure ------------------------------------------- */

size_t mkw__os_page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

void *mkw__os_zalloc(size_t len)
{
	return calloc(1, len);
}

void mkw__os_free(void *p)
{
	free(p);
}

static size_t whole_pages(size_t len)
{
	size_t page = mkw__os_page_size();

	return (len + page - 1) & ~(page - 1);
}

static void *reserve(size_t len, int huge)
{
	void *p;

	len = whole_pages(len);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	/* EINVAL of the second: a kernel built without huge pages. */
	if (madvise(p, len, MADV_DONTFORK)) {
		munmap(p, len);
		return NULL;
	}
	madvise(p, len, huge);
	return p;
}

void *mkw__os_reserve(size_t len)
{
	return reserve(len, MADV_NOHUGEPAGE);
}

void *mkw__os_reserve_io(size_t len)
{
	return reserve(len, MADV_HUGEPAGE);
}

void mkw__os_unreserve(void *p, size_t len)
{
	if (p)
		munmap(p, whole_pages(len));
}

uint64_t mkw__os_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

const char *mkw__os_setting(const char *name)
{
	return secure_getenv(name);
}

void mkw__os_panic(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	/* One write, so that lines of two threads do not mix. */
	n = snprintf(text, sizeof(text), "mkwrite: panic: ");
	va_start(ap, fmt);
	n += vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(text) - 1)
		n = (int)sizeof(text) - 1;
	text[n] = '\n';
	if (write(STDERR_FILENO, text, (size_t)n + 1) < 0) {
		/* Nobody to tell; the end of the process says it too. */
	}
	abort();
}

void mkw__os_step(const char *what)
{
	(void)what;
}

/* ---- signals ---------------------------------------------------------- */

static void set_mask(uint64_t bits, uint64_t *old)
{
	/* By hand: the C library's call leaves 32 and 33 (cancel) open. */
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &bits, old, sizeof(bits));
}

/* initial-exec: the fault handler may not allocate on first use. */
static _Thread_local unsigned masked __attribute__((tls_model("initial-exec")));

/* What the application had blocked when it called in. */
static _Thread_local uint64_t callers_bits
	__attribute__((tls_model("initial-exec")));

bool mkw__task_blocks_faults(void)
{
	return masked && (callers_bits & FAULT_SIGNALS);
}

bool mkw__task_masked(void)
{
	return masked > 0;
}

void mkw__os_signals_block(struct mkw__os_sigmask *saved)
{
	saved->err = errno;
	/* Before the mask goes up: a pending cancellation is not ours to act on. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &saved->cancel);
	/*
	 * Set, not added to: a fault of a user copy must reach our handler
	 * even where the application had blocked SIGBUS.
	 */
	set_mask(~FAULT_SIGNALS, &saved->bits);
	if (!masked++)
		callers_bits = saved->bits;
}

void mkw__os_signals_restore(const struct mkw__os_sigmask *saved)
{
	masked--;
	set_mask(saved->bits, NULL);
	errno = saved->err;
	/* May end the thread here, if it is to be cancelled asynchronously. */
	pthread_setcancelstate(saved->cancel, NULL);
}

void mkw__os_signals_open(struct mkw__os_sigmask *saved)
{
	uint64_t bits = FAULT_SIGNALS;

	saved->err = errno;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &saved->cancel);
	syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &bits, &saved->bits,
		sizeof(bits));
}

void mkw__os_signals_close(const struct mkw__os_sigmask *saved)
{
	set_mask(saved->bits, NULL);
	errno = saved->err;
	pthread_setcancelstate(saved->cancel, NULL);
}

/* ---- tasks ------------------------------------------------------------ */

struct mkw__os_thread {
	pthread_t id;
	void (*fn)(void *arg);
	void *arg;
	char name[16];
};

static void *thread_main(void *p)
{
	struct mkw__os_thread *t = p;

	/* A name is a help to whoever looks, never a reason to fail. */
	(void)pthread_setname_np(pthread_self(), t->name);
	t->fn(t->arg);
	return NULL;
}

int mkw__os_thread_start(struct mkw__os_thread **out, const char *name,
			 void (*fn)(void *arg), void *arg)
{
	struct mkw__os_thread *t;
	pthread_attr_t attr;
	uint64_t old;
	int err;

	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	err = pthread_attr_init(&attr);
	if (err)
		goto out_free;
	pthread_attr_setstacksize(&attr, STACK_BYTES);

	/* The new thread inherits the mask. */
	set_mask(~(FAULT_SIGNALS | SIGNAL_BIT(SIGNAL_SETXID)), &old);
	err = pthread_create(&t->id, &attr, thread_main, t);
	if (err == EINVAL) {
		/* The program's thread-local data alone are larger. */
		err = pthread_create(&t->id, NULL, thread_main, t);
	}
	set_mask(old, NULL);

	pthread_attr_destroy(&attr);
	if (err)
		goto out_free;
	*out = t;
	return 0;
out_free:
	free(t);
	return -err;
}

void mkw__os_thread_join(struct mkw__os_thread *t)
{
	pthread_join(t->id, NULL);
	free(t);
}

struct mkw__os_task *mkw__os_self(void)
{
	/* initial-exec: the fault handler may not allocate on first use. */
	static _Thread_local struct mkw__os_task self
		__attribute__((tls_model("initial-exec")));

	return &self;
}

/* ---- mutex and event -------------------------------------------------- */

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake_one(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* How often to look before sleeping: on one CPU the holder cannot run. */
static unsigned spin_limit(void)
{
	static _Atomic int cached = -1;
	unsigned long mask[16];
	long n, cpus = 0;
	int limit = atomic_load_explicit(&cached, memory_order_relaxed);

	if (limit >= 0)
		return (unsigned)limit;
	n = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);
	for (long i = 0; i < n / (long)sizeof(mask[0]); i++)
		cpus += __builtin_popcountl(mask[i]);
	limit = cpus == 1 ? 0 : 100;
	atomic_store_explicit(&cached, limit, memory_order_relaxed);
	return (unsigned)limit;
}

bool mkw__os_mutex_trylock(struct mkw__os_mutex *m)
{
	uint32_t free_word = 0;

	/* Acquire: pairs with the release in mkw__os_mutex_unlock(). */
	return atomic_compare_exchange_strong_explicit(&m->word, &free_word, 1,
						       memory_order_acquire,
						       memory_order_relaxed);
}

void mkw__os_mutex_lock(struct mkw__os_mutex *m)
{
	if (mkw__os_mutex_trylock(m))
		return;
	for (unsigned i = spin_limit(); i > 0; i--) {
		/* 2: others sleep already, and are served before us. */
		if (atomic_load_explicit(&m->word, memory_order_relaxed) == 2)
			break;
		cpu_relax();
		if (mkw__os_mutex_trylock(m))
			return;
	}
	/*
	 * From here on 2 is what we leave behind, also when we got it: we
	 * cannot know whether another sleeps. Acquire: as in trylock.
	 */
	while (atomic_exchange_explicit(&m->word, 2, memory_order_acquire))
		futex_wait(&m->word, 2);
}

void mkw__os_mutex_unlock(struct mkw__os_mutex *m)
{
	/* Release: pairs with the acquire of whoever locks next. */
	if (atomic_exchange_explicit(&m->word, 0, memory_order_release) == 2)
		futex_wake_one(&m->word);
}

void mkw__os_event_wait(struct mkw__os_event *ev)
{
	uint32_t seen;

	/* Acquire: pairs with the release in mkw__os_event_set(). */
	while ((seen = atomic_load_explicit(&ev->word,
					    memory_order_acquire)) != 1) {
		if (seen == 0 &&
		    !atomic_compare_exchange_strong_explicit(
			    &ev->word, &seen, 2, memory_order_relaxed,
			    memory_order_relaxed))
			continue;
		futex_wait(&ev->word, 2);
	}
}

void mkw__os_event_set(struct mkw__os_event *ev)
{
	/*
	 * Release: pairs with the acquire in mkw__os_event_wait(). After this
	 * the waiter may free *ev; the wake is for a number.
	 */
	if (atomic_exchange_explicit(&ev->word, 1, memory_order_release) == 2)
		futex_wake_one(&ev->word);
}

void mkw__os_event_reset(struct mkw__os_event *ev)
{
	atomic_store_explicit(&ev->word, 0, memory_order_relaxed);
}
