/* SPDX-License-Identifier: MIT */
/*
 * Signals and threads: handlers of the application that touch mappings, blocked
 * signals, cancellation, accesses whose memory goes, and who gets SIGBUS and SIGSEGV.
 *
 * A read of the store calls back into the test, in the thread that is inside the
 * engine with locks in hand; there the test raises, cancels, or makes the mistake
 * that it must notice (opens the signals, lets cancellation in).
 */
#include <dirent.h>
#include <sys/syscall.h>

#include "scene.h"

static unsigned map_flags;

/* ---- an application's handler ----------------------------------------- */

static unsigned char *touched;
static volatile sig_atomic_t inside, ran, ran_inside, plant;

static void touching_handler(int sig)
{
	(void)sig;
	ran++;
	if (inside)
		ran_inside++;	/* and to touch anything would be the end */
	else
		touched[P(5)]++;
}

static void raise_in_read(void)
{
	sigset_t set;

	inside = 1;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	raise(SIGUSR1);
	if (plant)
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	inside = 0;
}

/* It runs once the call has returned, and its access is served. */
static void handler_touches(bool by_fault)
{
	struct sigaction sa = { .sa_handler = touching_handler };
	unsigned char byte;

	ran = ran_inside = 0;
	scene_open();
	mkw__trap_reinstall();
	touched = scene_map(map_flags);
	sigaction(SIGUSR1, &sa, NULL);
	scene.in_read = raise_in_read;
	if (by_fault)
		assert_int_equal(touched[0], 0);
	else
		assert_int_equal(mkw_pread(scene.file, &byte, 1, 0, 0), 1);
	assert_null(scene.in_read);
	assert_int_equal(ran, 1);
	assert_int_equal(ran_inside, plant);
	if (!plant)
		assert_int_equal(touched[P(5)], 1);
	scene_close(touched);
}

static void test_handler_touches(void **state)
{
	(void)state;
#ifdef TSAN
	if (map_flags) {
		print_message("skipped: the sanitizer runs handlers with SIGBUS blocked\n");
		skip();
	}
#endif
	for (plant = 0; plant < 2; plant++)
		handler_touches(false);
	/* A fault in its own thread is inside the engine, too. */
	for (plant = 0; plant < 2 && map_flags; plant++)
		handler_touches(true);
	plant = 0;
}

/* ---- unmapping -------------------------------------------------------- */

static void *faulting_main(void *arg)
{
	return (void *)(intptr_t)try_access(arg, false);
}

/* Its page is still being read when its memory goes: it is woken all the same. */
static void test_unmap_wakes(void **state)
{
	pthread_t thread;
	unsigned char *p;
	void *sig;

	(void)state;
	scene_open();
	mkw__trap_reinstall();
	p = scene_map(0);
	scene.keep = true;
	assert_int_equal(pthread_create(&thread, NULL, faulting_main, p + P(3)),
			 0);
	while (!scene.kept_io)
		sched_yield();
	assert_int_equal(mkw_unmap(p, P(PAGES)), 0);
	pthread_join(thread, &sig);
	assert_int_equal((intptr_t)sig, SIGSEGV);
	scene_let_go();
	scene_close(NULL);
}

/* ---- blocked signals -------------------------------------------------- */

static void *blocked_main(void *arg)
{
	unsigned char *p = arg, buf[64];
	sigset_t all, now;

	sigfillset(&all);
	MUST(!pthread_sigmask(SIG_SETMASK, &all, NULL));
	/* As a buffer even faults that are served in their own thread are. */
	MUST(mkw_pread(scene.file, p + P(2), P(3), 0, 0) == (ssize_t)P(3));
	MUST(mkw_pwrite(scene.file, p + P(8), P(2), (off_t)P(10), 0) ==
	     (ssize_t)P(2));
	MUST(mkw_pread(scene.file, buf, sizeof(buf), (off_t)P(2), 0) ==
	     sizeof(buf));
	if (!map_flags)
		MUST(p[P(14)]++ == 0);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	MUST(sigismember(&now, SIGBUS) && sigismember(&now, SIGUSR2));
	return NULL;
}

static void test_all_blocked(void **state)
{
	pthread_t thread;
	unsigned char *p;

	(void)state;
	scene_open();
	mkw__trap_reinstall();
	p = scene_map(map_flags);
	assert_int_equal(pthread_create(&thread, NULL, blocked_main, p), 0);
	pthread_join(thread, NULL);
	scene_close(p);
}

/* Of the threads whose name begins with `name`: how many, and how many may get a
 * signal of the application. */
static unsigned open_threads(const char *name, unsigned *count)
{
	const uint64_t fine = 1ull << (SIGBUS - 1) | 1ull << (SIGSEGV - 1) |
			      1ull << (SIGILL - 1) | 1ull << (SIGFPE - 1) |
			      1ull << (SIGTRAP - 1) | 1ull << (SIGKILL - 1) |
			      1ull << (SIGSTOP - 1) | 1ull << 31 | 1ull << 32;
	DIR *dir = opendir("/proc/self/task");
	unsigned open = 0;
	struct dirent *d;

	assert_non_null(dir);
	*count = 0;
	while ((d = readdir(dir))) {
		unsigned long long mask = 0;
		char path[300], line[200];
		bool ours = false;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status",
			 d->d_name);
		f = fopen(path, "r");
		while (f && fgets(line, sizeof(line), f)) {
			if (!strncmp(line, "Name:\t", 6))
				ours = !strncmp(line + 6, name, strlen(name));
			sscanf(line, "SigBlk: %llx", &mask);
		}
		if (f)
			fclose(f);
		*count += ours;
		open += ours && ~(mask | fine);
	}
	closedir(dir);
	return open;
}

static void *planted_main(void *arg)
{
	(void)arg;
	pthread_setname_np(pthread_self(), "planted");
	pause();
	return NULL;
}

static void test_engine_threads(void **state)
{
	pthread_t thread;
	unsigned n;

	(void)state;
	scene_open();
	/* A thread has its name before it serves anything. */
	assert_int_equal(mkw_advise(scene.file, 0, 0, MKW_ADVICE_WILLNEED), 0);
	do {
		assert_int_equal(open_threads("mkw-", &n), 0);
	} while (n < 2);
	assert_int_equal(pthread_create(&thread, NULL, planted_main, NULL), 0);
	while (!open_threads("planted", &n))
		sched_yield();
	pthread_cancel(thread);
	pthread_join(thread, NULL);
	scene_close(NULL);
}

/* ---- cancellation ----------------------------------------------------- */

static _Atomic bool left_read, returned;
static bool asynchronous, by_fault;

static void cancel_in_read(void)
{
	int old;

	pthread_cancel(pthread_self());
	if (plant)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
	pthread_testcancel();	/* as every system call of the C library is */
	left_read = true;
}

static void *cancelled_main(void *arg)
{
	volatile unsigned char *p = arg;
	unsigned char byte;

	if (asynchronous)
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	scene.in_read = cancel_in_read;
	if (by_fault)
		(void)*p;
	else
		mkw_pread(scene.file, &byte, 1, 0, 0);
	returned = true;
	pthread_testcancel();
	return NULL;
}

static void cancel_one(void)
{
	unsigned char *p;
	pthread_t thread;
	void *result;

	left_read = returned = false;
	scene_open();
	mkw__trap_reinstall();
	p = scene_map(MKW_MAP_INLINE);
	MUST(!pthread_create(&thread, NULL, cancelled_main, p));
	pthread_join(thread, &result);
	MUST(result == PTHREAD_CANCELED);
	MUST(left_read == !plant);
	/* Asynchronously it acts as soon as the locks are gone. */
	MUST(plant || asynchronous || returned);
	if (!plant)
		scene_close(p);
}

static int play_cancel(void)
{
	for (int i = 0; i < 4; i++) {
		asynchronous = i & 1;
		by_fault = i & 2;
		cancel_one();
	}
	return 0;
}

/* The thread ends inside the call, with the locks, and that is seen. */
static int play_cancel_planted(void)
{
	plant = 1;
	cancel_one();
	return 0;
}

static void test_cancel(void **state)
{
	(void)state;
#ifdef ASAN
	print_message("skipped: the sanitizer does not see a cancelled thread leave its frames\n");
	skip();
#endif
	scene_ends("cancel", NULL, 0);
	scene_ends("cancel-planted", NULL, 0);
}

/* ---- whose SIGBUS ----------------------------------------------------- */

static sigjmp_buf jump;
static volatile sig_atomic_t first_got, later_got;
static struct sigaction replaced;
static volatile uintptr_t handler_stack;

/* Memory whose access raises SIGBUS, and is nobody's mapping. */
static volatile unsigned char *foreign(void)
{
	int fd = memfd_create("empty", 0);
	void *p = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);

	MUST(fd >= 0 && p != MAP_FAILED);
	close(fd);
	return p;
}

static void first_handler(int sig, siginfo_t *si, void *context)
{
	(void)context;
	MUST(sig == SIGBUS && si->si_signo == SIGBUS);
	first_got++;
	handler_stack = (uintptr_t)__builtin_frame_address(0);
	siglongjmp(jump, 1);
}

static void later_handler(int sig, siginfo_t *si, void *context)
{
	later_got++;
	if (!(replaced.sa_flags & SA_SIGINFO))
		siglongjmp(jump, 1);
	/* When it returns the access is served. */
	replaced.sa_sigaction(sig, si, context);
}

static void handle(void (*fn)(int, siginfo_t *, void *), int flags,
		   struct sigaction *old)
{
	struct sigaction sa = { .sa_sigaction = fn,
				.sa_flags = SA_SIGINFO | flags };

	sigaction(SIGBUS, &sa, old);
}

/* An access: 0, or it was left by one of the handlers. */
static int try(volatile unsigned char *p)
{
	if (sigsetjmp(jump, 1))
		return 1;
	(void)*p;
	return 0;
}

/* A handler that comes after the engine, and calls the one that it replaced. */
static int play_later(void)
{
	volatile unsigned char *bad = foreign();
	unsigned char *p;
	void *other;

	handle(first_handler, 0, NULL);
	scene_open();
	p = scene_map(MKW_MAP_INLINE);
	MUST(try(bad) == 1 && first_got == 1);

	/* It does not call us: a fault of ours is lost to it, as documented. */
	handle(later_handler, 0, NULL);
	MUST(try(p) == 1 && later_got == 1);
	/* Until the next mapping. */
	MUST(!mkw_map(scene.file, NULL, page, PROT_READ, MKW_MAP_INLINE, 0,
		      &other));
	MUST(try(p) == 0 && later_got == 1);
	MUST(try(bad) == 1 && later_got == 2 && first_got == 1);

	/* It calls us: we serve what is ours, and hand on to who was first. */
	handle(later_handler, 0, &replaced);
	MUST(try(p + P(1)) == 0 && later_got == 3);
	for (int i = 0; i < 3; i++) {
		MUST(!mkw_unmap(other, page));
		MUST(!mkw_map(scene.file, NULL, page, PROT_READ, 0, 0, &other));
		MUST(try(bad) == 1);
		MUST(try(p + P(2 + i)) == 0);
	}
	MUST(later_got == 6 && first_got == 4);
	MUST(!mkw_unmap(other, page));
	scene_close(p);
	return 0;
}

/* The second fault ends the process. */
static int play_resethand(void)
{
	volatile unsigned char *bad = foreign();

	handle(first_handler, (int)SA_RESETHAND, NULL);
	scene_open();
	MUST(try(bad) == 1);
	try(bad);
	return 1;
}

/* On the alternate stack, where the thread has one; our own faults too. */
static int play_onstack(void)
{
	static unsigned char stack[256 << 10] __attribute__((aligned(16)));
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };
	volatile unsigned char *bad = foreign();
	unsigned char *p;

	MUST(!sigaltstack(&alt, NULL));
	handle(first_handler, SA_ONSTACK, NULL);
	scene_open();
	p = scene_map(MKW_MAP_INLINE);
	MUST(try(p) == 0);
	MUST(try(bad) == 1);
	MUST(handler_stack - (uintptr_t)stack < sizeof(stack));
	scene_close(p);
	return 0;
}

/* A page that cannot be read: SIGBUS by default, also on an old kernel. */
static void fails(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, -EIO);
}

static int unreadable(bool old_kernel)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };

	mkw__os_mmu_old_kernel(old_kernel);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	scene_open();
	scene.store->ops.read = fails;
	(void)*(volatile unsigned char *)scene_map(0);
	return 0;
}

static int play_unreadable(void)
{
	return unreadable(false);
}

static int play_unreadable_old(void)
{
	return unreadable(true);
}

static void test_chain(void **state)
{
	(void)state;
	scene_ends("later", NULL, 0);
	scene_ends("resethand", NULL, SIGBUS);
	scene_ends("onstack", NULL, 0);
}

static void killed_by_bus(const char *name)
{
	char text[4096];
	int status = scene_run(name, NULL, text, sizeof(text));

	/* With or without a core. */
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGBUS)
		fail_msg("%s: wait status 0x%x: %s", name, status, text);
}

static void test_unreadable(void **state)
{
	(void)state;
	killed_by_bus("unreadable");
	killed_by_bus("unreadable-old");
}

int main(int argc, char **argv)
{
	static const struct play plays[] = {
		{ "cancel", play_cancel },
		{ "cancel-planted", play_cancel_planted },
		{ "later", play_later },
		{ "resethand", play_resethand },
		{ "onstack", play_onstack },
		{ "unreadable", play_unreadable },
		{ "unreadable-old", play_unreadable_old },
	};
	const struct CMUnitTest both[] = {
		cmocka_unit_test(test_handler_touches),
		cmocka_unit_test(test_all_blocked),
	};
	const struct CMUnitTest once[] = {
		cmocka_unit_test(test_unmap_wakes),
		cmocka_unit_test(test_engine_threads),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_unreadable),
	};
	int failed = scene_play(plays, sizeof(plays) / sizeof(plays[0]), argc,
				argv);

	if (failed >= 0)
		return failed;
	access_begin();
	if (!access_possible())
		return 77;
	failed = cmocka_run_group_tests_name("pager", both, NULL, NULL);
	map_flags = MKW_MAP_INLINE;
	failed += cmocka_run_group_tests_name("inline", both, NULL, NULL);
	return failed + cmocka_run_group_tests(once, NULL, NULL);
}
