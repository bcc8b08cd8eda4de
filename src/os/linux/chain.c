/* SPDX-License-Identifier: MIT */
/*
 * chain.c: SIGBUS and SIGSEGV that are not the engine's go to whoever else handles
 * them.
 *
 * A process has one handler for each signal, and ours must be in front: faults of
 * in-thread mappings and bad addresses in copies arrive there. So we keep a chain
 * of those who were there before us, the newest last:
 *
 *	kernel ─► on_signal (trap.c) ─► link[n - 1] ─► … ─► link[0] ─► default
 *
 * Handlers that the application installs later replace ours. The next mkw_map()
 * or mkw_engine_open() finds that out, makes them the newest link, and puts ours in
 * front again (mkw__trap_install()). Until then faults of in-thread mappings kill,
 * or reach that handler.
 *
 * A well-made handler calls the one that it replaced, and that may be ours: then
 * we are called again with the same context, by a function that we called
 * ourselves, and hand on to the link before it. That it is such a call and not a
 * new fault is told by the context being the same and the stack deeper than where
 * we left; so a handler that leaves by siglongjmp() confuses nothing.
 *
 * To a link is done what the kernel would do for it: the signal mask, SA_NODEFER,
 * SA_RESETHAND, SA_SIGINFO, and the default action and SIG_IGN, which a fault does
 * not respect. SA_ONSTACK is always on, and SA_RESTART is that of the newest link,
 * since these belong to the delivery.
 *
 * Links are written under the mutex, each before link counts it; the handlers only
 * read what is counted. A link beyond the last place takes the newest's.
 */
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/linux/linux.h"

#define LINKS_MAX 8u

struct link {
	struct sigaction sa;
	_Atomic bool spent;	/* SA_RESETHAND, and it was called */
};

static struct chain {
	int sig;
	_Atomic unsigned count;
	struct link link[LINKS_MAX];
} chains[] = { { .sig = SIGBUS }, { .sig = SIGSEGV } };

static struct mkw__os_mutex mutex;

/* The last call of hand_on() in this thread that has not returned. */
static _Thread_local struct {
	const void *context;
	uintptr_t stack;
	unsigned level;
} handing __attribute__((tls_model("initial-exec")));

/* The kernel's signal number set as the raw system call takes it. */
static uint64_t bits_of(const sigset_t *set)
{
	uint64_t bits;

	memcpy(&bits, set, sizeof(bits));
	return bits;
}

/* The process is to end by sig, at the access if that comes again. */
static void end_by_default(int sig, ucontext_t *uc, bool sent, bool comes_again)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };

	sigaction(sig, &sa, NULL);
	if (comes_again)
		return;
	/* It waits for our return. A fault does not ask for the mask. */
	if (!sent)
		sigdelset(&uc->uc_sigmask, sig);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig);
}

/* The link that a call of hand_on() is for, and its level; NULL: the default. */
static struct link *link_for(struct chain *c, const void *context,
			     uintptr_t stack, unsigned *level)
{
	unsigned count = atomic_load_explicit(&c->count, memory_order_acquire);
	struct link *l;

	*level = 0;
	if (handing.context == context && stack < handing.stack)
		*level = handing.level + 1;
	if (*level >= count)
		return NULL;
	l = &c->link[count - 1 - *level];
	return atomic_load(&l->spent) ? NULL : l;
}

void mkw__trap_hand_on(int sig, siginfo_t *si, ucontext_t *uc, bool sent,
		       bool comes_again)
{
	struct chain *c = &chains[sig == SIGSEGV];
	uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
	unsigned level;
	struct link *l = link_for(c, uc, stack, &level);
	bool plain = l && !(l->sa.sa_flags & SA_SIGINFO);
	uint64_t mask;

	if (plain && l->sa.sa_handler == SIG_IGN && sent)
		return;
	if (!l || (plain && (l->sa.sa_handler == SIG_DFL ||
			     l->sa.sa_handler == SIG_IGN))) {
		end_by_default(sig, uc, sent, comes_again);
		return;
	}
	if (l->sa.sa_flags & (int)SA_RESETHAND)
		atomic_store(&l->spent, true);
	mask = bits_of(&uc->uc_sigmask) | bits_of(&l->sa.sa_mask);
	if (!(l->sa.sa_flags & SA_NODEFER))
		mask |= (uint64_t)1 << (sig - 1);
	handing.context = uc;
	handing.stack = stack;
	handing.level = level;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	if (plain)
		l->sa.sa_handler(sig);
	else
		l->sa.sa_sigaction(sig, si, uc);
	handing.context = NULL;
}

bool mkw__trap_is_nested(const ucontext_t *uc)
{
	return handing.context == uc &&
	       (uintptr_t)__builtin_frame_address(0) < handing.stack;
}

/* ---- installing ------------------------------------------------------- */

static bool is_ours(const struct sigaction *sa)
{
	return (sa->sa_flags & SA_SIGINFO) &&
	       sa->sa_sigaction == mkw__trap_on_signal;
}

static void put_ours_in_front(const struct chain *c, int restart)
{
	struct sigaction sa = { .sa_sigaction = mkw__trap_on_signal,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | restart };

	/* All of them: sigfillset() would leave out cancellation. */
	memset(&sa.sa_mask, 0xff, sizeof(sa.sa_mask));
	sigaction(c->sig, &sa, NULL);
}

static void install(struct chain *c)
{
	unsigned count = atomic_load_explicit(&c->count, memory_order_relaxed);
	struct sigaction now;
	struct link *l;

	sigaction(c->sig, NULL, &now);
	if (is_ours(&now))
		return;
	/* The same one again, put back by somebody: it is the newest already. */
	if (!count || c->link[count - 1].sa.sa_sigaction != now.sa_sigaction)
		count += count < LINKS_MAX;
	l = &c->link[count - 1];
	l->sa = now;
	atomic_store(&l->spent, false);
	/* Counted before ours is there: a fault may come in between. */
	atomic_store_explicit(&c->count, count, memory_order_release);
	put_ours_in_front(c, now.sa_flags & SA_RESTART);
}

void mkw__trap_install(void)
{
	mkw__os_mutex_lock(&mutex);
	install(&chains[0]);
	install(&chains[1]);
	mkw__os_mutex_unlock(&mutex);
}

void mkw__trap_reinstall(void)
{
	for (unsigned i = 0; i < 2; i++) {
		if (atomic_load(&chains[i].count) > 1)
			atomic_store(&chains[i].count, 1);
		put_ours_in_front(&chains[i], 0);
	}
}

void mkw__trap_forget_fork(void)
{
	/* Whoever held it does not exist here. */
	mutex = (struct mkw__os_mutex){ 0 };
}
