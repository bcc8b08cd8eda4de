/* SPDX-License-Identifier: MIT */
/*
 * os.h on the running kernel: each documented outcome of each call, and the
 * kernel's behaviour that the engine stands on, checked anew wherever this
 * runs.
 *
 * Accesses that are to sleep in a page fault are made by threads of their own
 * (struct access), with mkw__os_user_read() and _write(), so that a bad address
 * is a result and not the end of the test. Their messages arrive on the loop of
 * the rig. Nothing waits for time to pass: a test waits for a message, for a
 * thread, or for a descriptor to become readable, and the runner's time limit
 * ends it if that never comes.
 *
 * What ends a process is tried in a child: the program starts itself with the
 * name of a scenario as argument, so that the child has signal handlers,
 * userfaultfd and threads of its own.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/linux/linux.h"

#define SECOND_NS ((uint64_t)1000000000)
#define RIG_PAGES 32u

static struct mkw__os_mmu *pager_mmu, *inline_mmu;
static struct mkw__os_mmu_caps caps;
static size_t page;
static const char *self_path;

/* ---- rig: frames, one mapping of them, and a loop for its messages ---- */

struct rig {
	struct mkw__os_frames *fr;
	struct mkw__os_loop *loop;
	uintptr_t at;
	char *buf;			/* a page to fill from */
	struct mkw__os_fault msg[64];
	unsigned first, count;
	unsigned reads;			/* batches of messages */
	bool pause_each;		/* pause after every message */
};

static void on_fault(void *arg, const struct mkw__os_fault *msg)
{
	struct rig *r = arg;

	assert_true(r->count < 64);
	r->msg[(r->first + r->count++) % 64] = *msg;
	if (r->pause_each)
		mkw__os_loop_pause(r->loop, true);
}

static void rig_open(struct rig *r)
{
	mkw__trap_reinstall();
	*r = (struct rig){ 0 };
	r->buf = mkw__os_reserve(page);
	assert_non_null(r->buf);
	assert_int_equal(mkw__os_frames_create(pager_mmu, &r->fr), 0);
	assert_int_equal(mkw__os_frames_resize(r->fr, RIG_PAGES * page), 0);
	assert_int_equal(mkw__os_map(pager_mmu, r->fr, 0, RIG_PAGES * page, 0,
				     0, &r->at),
			 0);
	assert_int_equal(mkw__os_map_enable(r->at, RIG_PAGES * page, true), 0);
	assert_int_equal(mkw__os_loop_create(16, &r->loop), 0);
	assert_int_equal(mkw__os_loop_watch(r->loop, pager_mmu, NULL, on_fault,
					    r),
			 0);
}

/* Sees to it that no message is left unread, too. */
static void rig_close(struct rig *r)
{
	mkw__os_loop_wait(r->loop, 0);
	assert_int_equal(r->count, 0);
	mkw__os_loop_destroy(r->loop);
	mkw__os_unmap(r->at, RIG_PAGES * page);
	mkw__os_frames_destroy(r->fr);
	mkw__os_unreserve(r->buf, page);
}

static struct mkw__os_fault next_fault(struct rig *r)
{
	struct mkw__os_fault msg;

	while (r->count == 0)
		mkw__os_loop_wait(r->loop, UINT64_MAX);
	msg = r->msg[r->first];
	r->first = (r->first + 1) % 64;
	r->count--;
	return msg;
}

static uintptr_t page_at(const struct rig *r, unsigned index)
{
	return r->at + index * page;
}

/* Publishes page index, every word of it the given one. */
static void publish(struct rig *r, unsigned index, uint64_t word)
{
	size_t done;

	for (size_t i = 0; i < page; i += 8)
		memcpy(r->buf + i, &word, 8);
	assert_int_equal(mkw__os_frames_publish(r->fr, index * page, r->buf,
						page, &done),
			 0);
	assert_int_equal(done, page);
}

static void map_page(struct rig *r, unsigned index, unsigned flags)
{
	bool later = (flags & MKW__PTE_WP) && !caps.continue_wp;
	size_t done;

	assert_int_equal(mkw__os_pte_continue(pager_mmu, page_at(r, index),
					      page, later ? 0 : flags, &done),
			 0);
	assert_int_equal(done, page);
	if (later)
		assert_int_equal(mkw__os_pte_protect(pager_mmu,
						     page_at(r, index), page,
						     true, 0),
				 0);
}

/* ---- accesses in a thread --------------------------------------------- */

struct access {
	struct mkw__os_thread *thread;
	uintptr_t addr;
	bool write;
	uint64_t word;
	int res;
};

static void do_access(void *arg)
{
	struct access *a = arg;

	if (a->write)
		a->res = mkw__os_user_write((void *)a->addr, &a->word, 8);
	else
		a->res = mkw__os_user_read(&a->word, (void *)a->addr, 8);
}

static void start_load(struct access *a, uintptr_t addr)
{
	*a = (struct access){ .addr = addr };
	assert_int_equal(mkw__os_thread_start(&a->thread, "load", do_access, a),
			 0);
}

static void start_store(struct access *a, uintptr_t addr, uint64_t word)
{
	*a = (struct access){ .addr = addr, .write = true, .word = word };
	assert_int_equal(mkw__os_thread_start(&a->thread, "store", do_access,
					      a),
			 0);
}

static int finish(struct access *a)
{
	mkw__os_thread_join(a->thread);
	return a->res;
}

/* An access that needs no thread, since it must not sleep. */
static uint64_t load(uintptr_t addr)
{
	uint64_t word;

	assert_int_equal(mkw__os_user_read(&word, (void *)addr, 8), 0);
	return word;
}

static int try_load(uintptr_t addr)
{
	uint64_t word;

	return mkw__os_user_read(&word, (void *)addr, 8);
}

static int try_store(uintptr_t addr, uint64_t word)
{
	return mkw__os_user_write((void *)addr, &word, 8);
}

/* ---- tasks, locks, signals -------------------------------------------- */

struct counting {
	struct mkw__os_mutex mutex;
	uint64_t count;		/* plain: TSan watches it */
};

static void count_up(void *arg)
{
	struct counting *c = arg;

	for (int i = 0; i < 20000; i++) {
		uint64_t count;

		if (i % 2 || !mkw__os_mutex_trylock(&c->mutex))
			mkw__os_mutex_lock(&c->mutex);
		/* Long enough for others to give up spinning. */
		count = c->count;
		for (volatile int spin = 0; spin < 200; spin++)
			;
		c->count = count + 1;
		mkw__os_mutex_unlock(&c->mutex);
	}
}

static void test_mutex(void **state)
{
	struct counting c = { 0 };
	struct mkw__os_thread *t[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(mkw__os_thread_start(&t[i], "count", count_up,
						      &c),
				 0);
	for (int i = 0; i < 4; i++)
		mkw__os_thread_join(t[i]);
	assert_int_equal(c.count, 4 * 20000);
	assert_true(mkw__os_mutex_trylock(&c.mutex));
	assert_false(mkw__os_mutex_trylock(&c.mutex));
	mkw__os_mutex_unlock(&c.mutex);
	assert_int_equal(c.mutex.word, 0);
}

struct ping_pong {
	uint64_t turn;		/* plain */
	struct mkw__os_event *_Atomic ping;
	struct mkw__os_event pong;
};

static void answer(void *arg)
{
	struct ping_pong *p = arg;

	for (int i = 0; i < 20000; i++) {
		struct mkw__os_event *ping;

		mkw__os_event_wait(&p->pong);
		mkw__os_event_reset(&p->pong);
		p->turn++;
		ping = atomic_load(&p->ping);
		mkw__os_event_set(ping);
	}
}

/* Each event is freed as soon as its waiter is through. */
static void test_event(void **state)
{
	struct ping_pong p = { 0 };
	struct mkw__os_thread *t;

	(void)state;
	assert_int_equal(mkw__os_thread_start(&t, "answer", answer, &p), 0);
	for (uint64_t i = 0; i < 20000; i++) {
		struct mkw__os_event *ev = mkw__os_zalloc(sizeof(*ev));

		atomic_store(&p.ping, ev);
		mkw__os_event_set(&p.pong);
		mkw__os_event_wait(ev);
		assert_int_equal(p.turn, i + 1);
		mkw__os_free(ev);
	}
	mkw__os_thread_join(t);
}

struct thread_facts {
	struct mkw__os_task *self;
	uint64_t first_word;
	char name[16];
	uint64_t blocked;
};

static uint64_t blocked_signals(void)
{
	uint64_t bits;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &bits, sizeof(bits));
	return bits;
}

static bool is_blocked(uint64_t bits, int sig)
{
	return bits >> (sig - 1) & 1;
}

static void look_around(void *arg)
{
	struct thread_facts *f = arg;

	f->self = mkw__os_self();
	f->first_word = f->self->words[0]++;
	f->blocked = blocked_signals();
	pthread_getname_np(pthread_self(), f->name, sizeof(f->name));
}

static void test_thread(void **state)
{
	uint64_t before = blocked_signals();
	struct thread_facts f = { 0 };
	struct mkw__os_thread *t;

	(void)state;
	mkw__os_self()->words[0] = 7;
	assert_int_equal(mkw__os_thread_start(&t, "a name that is too long",
					      look_around, &f),
			 0);
	mkw__os_thread_join(t);
	assert_ptr_not_equal(f.self, mkw__os_self());
	assert_int_equal(f.first_word, 0);
	assert_int_equal(mkw__os_self()->words[0], 7);
	mkw__os_self()->words[0] = 0;
	assert_string_equal(f.name, "a name that is ");
	assert_true(is_blocked(f.blocked, SIGINT));
	assert_true(is_blocked(f.blocked, SIGPROF));
	assert_false(is_blocked(f.blocked, 33));
	assert_false(is_blocked(f.blocked, SIGBUS));
	assert_int_equal(blocked_signals(), before);
}

/* setuid() waits for every thread: none may keep its signal blocked. */
static void wait_for_event(void *arg)
{
	mkw__os_event_wait(arg);
}

static void test_setuid_with_threads(void **state)
{
	struct mkw__os_event ev = { 0 };
	struct mkw__os_thread *t;

	(void)state;
	assert_int_equal(mkw__os_thread_start(&t, "idle", wait_for_event, &ev),
			 0);
	assert_int_equal(setuid(getuid()), 0);
	mkw__os_event_set(&ev);
	mkw__os_thread_join(t);
}

static void test_signals(void **state)
{
	struct mkw__os_sigmask outer, inner;
	uint64_t before = blocked_signals(), during;

	(void)state;
	mkw__os_signals_block(&outer);
	mkw__os_signals_block(&inner);
	during = blocked_signals();
	mkw__os_signals_restore(&inner);
	assert_int_equal(blocked_signals(), during);
	mkw__os_signals_restore(&outer);
	assert_int_equal(blocked_signals(), before);

	for (int sig = 1; sig <= 64; sig++) {
		bool open = sig == SIGBUS || sig == SIGSEGV || sig == SIGILL ||
			    sig == SIGFPE || sig == SIGTRAP || sig == SIGKILL ||
			    sig == SIGSTOP;

		assert_int_equal(is_blocked(during, sig), !open);
	}
}

static void test_memory(void **state)
{
	uint64_t t0 = mkw__os_now_ns();
	char *p = mkw__os_zalloc(100), *r = mkw__os_reserve(page + 1);
	int status;
	pid_t pid;

	(void)state;
	mkw__trap_reinstall();
	assert_non_null(p);
	assert_non_null(r);
	for (int i = 0; i < 100; i++)
		assert_int_equal(p[i], 0);
	assert_int_equal((uintptr_t)r % page, 0);
	r[2 * page - 1] = 1;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(try_load((uintptr_t)r) == -EFAULT ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	mkw__os_unreserve(r, page + 1);
	mkw__os_unreserve(NULL, page);
	mkw__os_free(p);
	assert_true(mkw__os_now_ns() >= t0);
	assert_int_equal(page & (page - 1), 0);
}

/* ---- copies of user memory -------------------------------------------- */

/* Every alignment of both sides and every short length, against memcpy(). */
static void test_copy_shapes(void **state)
{
	char src[128], want[128], got[128];

	(void)state;
	for (size_t i = 0; i < sizeof(src); i++)
		src[i] = (char)(i * 7 + 1);
	for (size_t to = 0; to < 9; to++) {
		for (size_t from = 0; from < 9; from++) {
			for (size_t len = 0; len <= 100; len++) {
				memset(want, -1, sizeof(want));
				memcpy(want + to, src + from, len);
				memset(got, -1, sizeof(got));
				assert_int_equal(mkw__os_user_write(got + to,
								    src + from,
								    len),
						 0);
				assert_memory_equal(got, want, sizeof(got));
				memset(got, -1, sizeof(got));
				assert_int_equal(mkw__os_user_read(got + to,
								   src + from,
								   len),
						 0);
				assert_memory_equal(got, want, sizeof(got));
			}
		}
	}
}

static void test_copy_bad(void **state)
{
	char *p = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char buf[64] = { 0 };

	(void)state;
	mkw__trap_reinstall();
	assert_true(p != MAP_FAILED);
	memset(p, 5, 3 * page);
	assert_int_equal(mprotect(p + page, page, PROT_READ), 0);
	assert_int_equal(mprotect(p + 2 * page, page, PROT_NONE), 0);

	assert_int_equal(mkw__os_user_read(buf, p + page, 64), 0);
	assert_int_equal(mkw__os_user_write(p + page, buf, 1), -EFAULT);
	assert_int_equal(mkw__os_user_read(buf, p + 2 * page, 1), -EFAULT);
	assert_int_equal(mkw__os_user_write(p + 2 * page, buf, 64), -EFAULT);
	assert_int_equal(mkw__os_user_read(buf, NULL, 8), -EFAULT);
	assert_int_equal(mkw__os_user_read(buf, (void *)((uint64_t)1 << 63), 8),
			 -EFAULT);
	assert_int_equal(mkw__os_user_read(buf, NULL, 0), 0);

	/* The good half is copied. */
	memset(buf, 0, sizeof(buf));
	assert_int_equal(mkw__os_user_read(buf, p + 2 * page - 20, 40),
			 -EFAULT);
	for (int i = 0; i < 20; i++)
		assert_int_equal(buf[i], 5);
	assert_int_equal(buf[20], 0);
	assert_int_equal(mkw__os_user_write(p + page - 20, buf + 30, 40),
			 -EFAULT);
	assert_int_equal(p[page - 1], 0);
	assert_int_equal(p[page], 5);
	munmap(p, 3 * page);
}

/* ---- frames ----------------------------------------------------------- */

static void test_publish(void **state)
{
	struct rig r;
	size_t done;
	char *two;
	uint64_t word;

	(void)state;
	rig_open(&r);
	assert_false(mkw__os_frames_present(r.fr, 0));
	publish(&r, 0, 11);
	assert_true(mkw__os_frames_present(r.fr, 0));
	assert_false(mkw__os_frames_present(r.fr, page));
	assert_false(mkw__os_frames_present(r.fr, RIG_PAGES * page));

	/* A frame that exists stays what it is. */
	memset(r.buf, 9, page);
	done = 1;
	assert_int_equal(mkw__os_frames_publish(r.fr, 0, r.buf, page, &done),
			 -EEXIST);
	assert_int_equal(done, 0);
	assert_int_equal(mkw__os_frames_read(r.fr, 8, &word, 8), 0);
	assert_int_equal(word, 11);

	/* Stopped by an existing frame, a bad source, the end. */
	publish(&r, 4, 4);
	two = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(mkw__os_frames_publish(r.fr, 2 * page, two, 4 * page,
						&done),
			 -EEXIST);
	assert_int_equal(done, 2 * page);
	assert_false(mkw__os_frames_present(r.fr, 5 * page));
	assert_int_equal(mprotect(two + 2 * page, 2 * page, PROT_NONE), 0);
	assert_int_equal(mkw__os_frames_publish(r.fr, 8 * page, two + 3,
						2 * page, &done),
			 -EFAULT);
	assert_int_equal(done, page);
	assert_true(mkw__os_frames_present(r.fr, 8 * page));
	assert_false(mkw__os_frames_present(r.fr, 9 * page));
	assert_int_equal(mkw__os_frames_publish(r.fr, (RIG_PAGES - 1) * page,
						two, 2 * page, &done),
			 -EFAULT);
	assert_int_equal(done, page);
	munmap(two, 4 * page);

	/* Dropped: gone, and can be made again. */
	assert_int_equal(mkw__os_frames_drop(r.fr, 0, 3 * page), 0);
	assert_false(mkw__os_frames_present(r.fr, 0));
	assert_false(mkw__os_frames_present(r.fr, 2 * page));
	assert_true(mkw__os_frames_present(r.fr, 3 * page));
	publish(&r, 0, 12);
	rig_close(&r);
}

static void test_frame_bytes(void **state)
{
	char in[3000], out[3000], *bad;
	struct rig r;
	size_t done;

	(void)state;
	rig_open(&r);
	publish(&r, 0, 0);
	publish(&r, 1, 0);
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (char)(i | 1);
	assert_int_equal(mkw__os_frames_write(r.fr, page - 1501, in,
					      sizeof(in)),
			 0);
	assert_int_equal(mkw__os_frames_read(r.fr, page - 1501, out,
					     sizeof(out)),
			 0);
	assert_memory_equal(in, out, sizeof(in));
	mkw__os_frames_zero(r.fr, page - 1500, 2998);
	assert_int_equal(mkw__os_frames_read(r.fr, page - 1501, out,
					     sizeof(out)),
			 0);
	assert_int_equal(out[0], in[0]);
	assert_int_equal(out[2999], in[2999]);
	for (size_t i = 1; i < 2999; i++)
		assert_int_equal(out[i], 0);

	/* A bad source changes nothing, wherever it is bad. */
	bad = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(bad, 3, 2 * page);
	assert_int_equal(mprotect(bad + page, page, PROT_NONE), 0);
	assert_int_equal(mkw__os_frames_write(r.fr, 0, bad + 8, page),
			 -EFAULT);
	assert_int_equal(mkw__os_frames_write(r.fr, 0, (char *)UINTPTR_MAX - 7,
					      page),
			 -EFAULT);
	assert_int_equal(mkw__os_frames_read(r.fr, 0, out, 8), 0);
	assert_memory_equal(out, "\0\0\0\0\0\0\0\0", 8);
	/* A bad destination of a read, too, is a result. */
	assert_int_equal(mkw__os_frames_read(r.fr, 0, bad + page - 8, 16),
			 -EFAULT);
	assert_int_equal(mprotect(bad, page, PROT_READ), 0);
	assert_int_equal(mkw__os_frames_read(r.fr, 0, bad, 8), -EFAULT);
	assert_int_equal(mkw__os_frames_publish(r.fr, 2 * page, bad, page,
						&done),
			 0);
	munmap(bad, 2 * page);
	rig_close(&r);
}

/* Offsets far out, and a range across two segments of the alias. */
static void test_sparse(void **state)
{
#if TEST_TSAN
	/* Its map of the address space has no room for more. */
	const uint64_t far = (uint64_t)8 << 30;
#else
	const uint64_t far = (uint64_t)16 << 40;
#endif
	static const uint64_t edges[] = { (uint64_t)1 << 26, (uint64_t)1 << 27,
					  (uint64_t)1 << 32 };
	struct rig r;
	char *two, *back;
	size_t done;

	(void)state;
	rig_open(&r);
	two = mkw__os_reserve(2 * page);
	back = mkw__os_reserve(2 * page);
	assert_int_equal(mkw__os_frames_resize(r.fr, far), 0);
	for (size_t i = 0; i < 4; i++) {
		uint64_t off = i < 3 ? edges[i] - page : far - 2 * page;

		memset(two, (int)i + 1, 2 * page);
		assert_int_equal(mkw__os_frames_publish(r.fr, off, two,
							2 * page, &done),
				 0);
		assert_int_equal(done, 2 * page);
		assert_int_equal(mkw__os_frames_read(r.fr, off, back, 2 * page),
				 0);
		assert_memory_equal(two, back, 2 * page);
		memset(back, 0, 2 * page);
		mkw__os_frames_save(r.fr, off, back, 2 * page);
		assert_memory_equal(two, back, 2 * page);
		mkw__os_frames_zero(r.fr, off + page - 4, 8);
		assert_int_equal(mkw__os_frames_write(r.fr, off + page - 4,
						      "12345678", 8),
				 0);
		assert_int_equal(mkw__os_frames_read(r.fr, off + page - 4,
						     back, 8),
				 0);
		assert_memory_equal(back, "12345678", 8);
	}
	assert_int_equal(mkw__os_frames_resize(r.fr, RIG_PAGES * page), 0);
	mkw__os_unreserve(two, 2 * page);
	mkw__os_unreserve(back, 2 * page);
	rig_close(&r);
}

/* Frames that others put into the memfd are seen. */
static void test_stray(void **state)
{
	struct rig r;
	volatile char *p;

	(void)state;
	rig_open(&r);
	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED,
		 mkw__frames_fd(r.fr), (off_t)(3 * page));
	assert_true(p != MAP_FAILED);
	assert_false(mkw__os_frames_present(r.fr, 3 * page));
	assert_int_equal(p[0], 0);
	assert_true(mkw__os_frames_present(r.fr, 3 * page));
	assert_int_equal(mkw__os_frames_drop(r.fr, 3 * page, page), 0);
	assert_false(mkw__os_frames_present(r.fr, 3 * page));
	munmap((void *)p, page);
	rig_close(&r);
}

/* ---- the fault calls -------------------------------------------------- */

static void test_page_mkwrite(void **state)
{
	struct mkw__os_fault msg;
	struct access a;
	struct rig r;
	uint64_t word;

	(void)state;
	rig_open(&r);
	publish(&r, 2, 21);
	start_load(&a, page_at(&r, 2) + 16);
	msg = next_fault(&r);
	assert_int_equal(msg.addr, page_at(&r, 2) + 16);
	assert_false(msg.write);
	assert_false(msg.wp);
	map_page(&r, 2, MKW__PTE_WP);
	assert_int_equal(finish(&a), 0);
	assert_int_equal(a.word, 21);

	start_store(&a, page_at(&r, 2) + 24, 22);
	msg = next_fault(&r);
	assert_int_equal(msg.addr, page_at(&r, 2) + 24);
	assert_true(msg.write);
	assert_true(msg.wp);
	assert_int_equal(mkw__os_pte_protect(pager_mmu, page_at(&r, 2), page,
					     false, 0),
			 0);
	assert_int_equal(finish(&a), 0);
	/* Through the alias it is an ordinary frame. */
	assert_int_equal(mkw__os_frames_read(r.fr, 2 * page + 24, &word, 8), 0);
	assert_int_equal(word, 22);

	/* Protected again, over its neighbours that are not mapped, too. */
	assert_int_equal(mkw__os_pte_protect(pager_mmu, page_at(&r, 0),
					     4 * page, true, 0),
			 0);
	start_store(&a, page_at(&r, 2), 23);
	msg = next_fault(&r);
	assert_true(msg.write && msg.wp);
	assert_int_equal(mkw__os_pte_protect(pager_mmu, page_at(&r, 2), page,
					     false, MKW__PTE_DONTWAKE),
			 0);
	mkw__os_wake(pager_mmu, page_at(&r, 2), page);
	assert_int_equal(finish(&a), 0);
	assert_int_equal(load(page_at(&r, 2)), 23);
	rig_close(&r);
}

static void test_copy_into_mapping(void **state)
{
	struct mkw__os_fault msg;
	struct access a;
	struct rig r;
	size_t done;

	(void)state;
	rig_open(&r);
	start_store(&a, page_at(&r, 1), 5);
	msg = next_fault(&r);
	assert_true(msg.write);
	assert_false(msg.wp);
	memset(r.buf, 0, page);
	assert_int_equal(mkw__os_pte_copy(pager_mmu, page_at(&r, 1), r.buf,
					  page, MKW__PTE_WP, &done),
			 0);
	assert_int_equal(done, page);
	/* It was write-protected on the way. */
	msg = next_fault(&r);
	assert_true(msg.write && msg.wp);
	assert_int_equal(mkw__os_pte_protect(pager_mmu, page_at(&r, 1), page,
					     false, 0),
			 0);
	assert_int_equal(finish(&a), 0);
	assert_true(mkw__os_frames_present(r.fr, page));

	/* DONTWAKE leaves the access asleep until it is woken. */
	start_load(&a, page_at(&r, 2));
	next_fault(&r);
	assert_int_equal(mkw__os_pte_copy(pager_mmu, page_at(&r, 2), r.buf,
					  page, MKW__PTE_DONTWAKE, &done),
			 0);
	mkw__os_wake(pager_mmu, page_at(&r, 2), page);
	assert_int_equal(finish(&a), 0);
	rig_close(&r);
}

static void test_outcomes(void **state)
{
	unsigned wp = caps.continue_wp ? MKW__PTE_WP : 0;
	struct rig r;
	size_t done;
	char *bad;

	(void)state;
	rig_open(&r);
	for (unsigned i = 0; i < 16; i++) {
		if (i != 5)
			publish(&r, i, i);
	}
	/* A prefix, then the reason why it ended. */
	assert_int_equal(mkw__os_pte_continue(pager_mmu, r.at, 16 * page,
					      wp, &done),
			 -EAGAIN);
	assert_int_equal(done, 5 * page);
	assert_int_equal(mkw__os_pte_continue(pager_mmu, page_at(&r, 5),
					      11 * page, wp, &done),
			 -EFAULT);
	assert_int_equal(done, 0);
	assert_int_equal(mkw__os_pte_continue(pager_mmu, r.at, 16 * page,
					      wp, &done),
			 -EEXIST);
	assert_int_equal(done, 0);
	assert_int_equal(mkw__os_pte_continue(pager_mmu, page_at(&r, 6),
					      10 * page, wp, &done),
			 0);
	assert_int_equal(done, 10 * page);

	/* Past the end of the frames, which bad arguments do not look like. */
	assert_int_equal(mkw__os_pte_continue(pager_mmu, r.at + 1, page, 0,
					      &done),
			 -EINVAL);
	assert_int_equal(mkw__os_frames_resize(r.fr, 20 * page), 0);
	assert_int_equal(mkw__os_pte_continue(pager_mmu, page_at(&r, 20), page,
					      0, &done),
			 -EFAULT);
	assert_int_equal(mkw__os_pte_copy(pager_mmu, page_at(&r, 20), r.buf,
					  page, 0, &done),
			 -EFAULT);

	/* Copy: the frame exists; the source is bad, from its second page. */
	assert_int_equal(mkw__os_frames_drop(r.fr, 16 * page, page), 0);
	publish(&r, 17, 17);
	assert_int_equal(mkw__os_pte_copy(pager_mmu, page_at(&r, 17), r.buf,
					  page, 0, &done),
			 -EEXIST);
	assert_int_equal(done, 0);
	bad = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(mprotect(bad + page, page, PROT_NONE), 0);
	assert_int_equal(mkw__os_pte_copy(pager_mmu, page_at(&r, 18), bad,
					  2 * page, 0, &done),
			 -EAGAIN);
	assert_int_equal(done, page);
	assert_int_equal(mkw__os_pte_copy(pager_mmu, page_at(&r, 19),
					  bad + page, page, 0, &done),
			 -EFAULT);
	assert_int_equal(done, 0);
	assert_false(mkw__os_frames_present(r.fr, 19 * page));
	munmap(bad, 2 * page);

	/* No such mapping: part of it gone, and never there. */
	mkw__os_unmap(page_at(&r, 30), 2 * page);
	assert_int_equal(mkw__os_pte_continue(pager_mmu, page_at(&r, 30), page,
					      0, &done),
			 -ENOENT);
	assert_int_equal(done, 0);
	assert_int_equal(mkw__os_pte_copy(pager_mmu, page_at(&r, 30), r.buf,
					  page, 0, &done),
			 -ENOENT);
	assert_int_equal(mkw__os_pte_protect(pager_mmu, page_at(&r, 30), page,
					     true, 0),
			 -ENOENT);
	mkw__os_wake(pager_mmu, page_at(&r, 30), page);
	rig_close(&r);
}

/* A fault is taken from the start as often as one likes. */
static void test_bare_wakes(void **state)
{
	struct access a;
	struct rig r;

	(void)state;
	rig_open(&r);
	start_store(&a, page_at(&r, 7), 70);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(next_fault(&r).addr, page_at(&r, 7));
		mkw__os_wake(pager_mmu, page_at(&r, 7), page);
	}
	next_fault(&r);
	publish(&r, 7, 7);
	map_page(&r, 7, 0);
	assert_int_equal(finish(&a), 0);
	assert_int_equal(load(page_at(&r, 7)), 70);
	assert_int_equal(load(page_at(&r, 7) + 8), 7);
	rig_close(&r);
}

/* A sleeper whose mapping went away sleeps until it is woken. */
static void test_wake_after_unmap(void **state)
{
	struct access a;
	struct rig r;

	(void)state;
	rig_open(&r);
	start_load(&a, page_at(&r, 31));
	next_fault(&r);
	mkw__os_unmap(page_at(&r, 31), page);
	mkw__os_wake(pager_mmu, page_at(&r, 31), page);
	assert_int_equal(finish(&a), -EFAULT);
	rig_close(&r);
}

static void test_poison(void **state)
{
	struct access a;
	struct rig r;

	(void)state;
	rig_open(&r);
	/* It wakes who sleeps there. */
	start_load(&a, page_at(&r, 0));
	next_fault(&r);
	assert_int_equal(mkw__os_pte_poison(pager_mmu, page_at(&r, 0)), 0);
	assert_int_equal(finish(&a), -EFAULT);
	assert_int_equal(mkw__os_pte_poison(pager_mmu, page_at(&r, 0)), 0);
	assert_int_equal(try_store(page_at(&r, 0), 1), -EFAULT);
	/* A frame does not lift it, healing does. */
	publish(&r, 0, 1);
	assert_int_equal(try_load(page_at(&r, 0)), -EFAULT);
	assert_int_equal(mkw__os_pte_heal(page_at(&r, 0), page, true), 0);
	start_load(&a, page_at(&r, 0));
	next_fault(&r);
	map_page(&r, 0, MKW__PTE_WP);
	assert_int_equal(finish(&a), 0);

	/* Over a mapped page; over what is left of one; over protection. */
	assert_int_equal(mkw__os_pte_poison(pager_mmu, page_at(&r, 0)), 0);
	assert_int_equal(try_load(page_at(&r, 0)), -EFAULT);
	for (unsigned i = 1; i < 4; i++) {
		publish(&r, i, i);
		map_page(&r, i, MKW__PTE_WP);
	}
	assert_int_equal(mkw__os_frames_drop(r.fr, page, page), 0);
	assert_int_equal(mkw__os_pte_zap(page_at(&r, 2), page), 0);
	assert_int_equal(mkw__os_frames_drop(r.fr, 3 * page, page), 0);
	assert_int_equal(mkw__os_pte_zap(page_at(&r, 3), page), 0);
	assert_int_equal(mkw__os_pte_protect(pager_mmu, page_at(&r, 4), page,
					     true, 0),
			 0);
	for (unsigned i = 1; i < 5; i++) {
		assert_int_equal(mkw__os_pte_poison(pager_mmu, page_at(&r, i)),
				 0);
		assert_int_equal(try_load(page_at(&r, i)), -EFAULT);
	}
	/* Of several at once, after a truncation. */
	assert_int_equal(mkw__os_frames_resize(r.fr, page), 0);
	assert_int_equal(mkw__os_frames_resize(r.fr, RIG_PAGES * page), 0);
	assert_int_equal(mkw__os_pte_heal(r.at, RIG_PAGES * page, true), 0);
	start_load(&a, page_at(&r, 4));
	next_fault(&r);
	publish(&r, 4, 44);
	map_page(&r, 4, 0);
	assert_int_equal(finish(&a), 0);
	assert_int_equal(a.word, 44);
	rig_close(&r);
}

/* The calls do not mind that the application has locked a part in memory. */
static void test_pieces(void **state)
{
	struct rig r;
	size_t done = 0, step;
	int err;

	(void)state;
	rig_open(&r);
	assert_int_equal(mlock2((void *)page_at(&r, 2), 2 * page,
				MLOCK_ONFAULT),
			 0);
	for (unsigned i = 0; i < 3; i++)
		publish(&r, i, i);
	while (done < 3 * page) {
		err = mkw__os_pte_continue(pager_mmu, r.at + done,
					   3 * page - done, 0, &step);
		assert_true(!err || (err == -EAGAIN && step));
		done += step;
	}
	while (done < 6 * page) {
		err = mkw__os_pte_copy(pager_mmu, r.at + done, r.buf,
				       6 * page - done, 0, &step);
		assert_true(!err || (err == -EAGAIN && step));
		done += step;
	}
	assert_int_equal(mkw__os_pte_protect(pager_mmu, r.at, 6 * page, true, 0),
			 0);
	for (unsigned i = 0; i < 6; i++) {
		struct access a;

		start_store(&a, page_at(&r, i), i + 7);
		assert_true(next_fault(&r).wp);
		assert_int_equal(mkw__os_pte_protect(pager_mmu, page_at(&r, i),
						     page, false, 0),
				 0);
		assert_int_equal(finish(&a), 0);
	}
	rig_close(&r);
}

/* Zap keeps the frame; drop and truncate take it, and every mapping. */
static void test_take_away(void **state)
{
	struct access a;
	struct rig r;

	(void)state;
	rig_open(&r);
	for (unsigned i = 0; i < 3; i++) {
		publish(&r, i, i + 1);
		map_page(&r, i, i == 1 ? MKW__PTE_WP : 0);
	}
	assert_int_equal(mkw__os_pte_zap(page_at(&r, 0), page), 0);
	assert_true(mkw__os_frames_present(r.fr, 0));
	start_store(&a, page_at(&r, 0), 9);
	assert_true(next_fault(&r).write);
	map_page(&r, 0, 0);
	assert_int_equal(finish(&a), 0);
	assert_int_equal(load(page_at(&r, 0) + 8), 1);

	assert_int_equal(mkw__os_frames_drop(r.fr, 0, 2 * page), 0);
	for (unsigned i = 0; i < 2; i++) {
		start_load(&a, page_at(&r, i));
		assert_int_equal(next_fault(&r).addr, page_at(&r, i));
		publish(&r, i, 0);
		map_page(&r, i, MKW__PTE_WP);
		assert_int_equal(finish(&a), 0);
		assert_int_equal(a.word, 0);
	}

	assert_int_equal(mkw__os_frames_resize(r.fr, 2 * page), 0);
	assert_int_equal(try_load(page_at(&r, 2)), -EFAULT);
	assert_int_equal(try_store(page_at(&r, 3), 1), -EFAULT);
	assert_int_equal(load(page_at(&r, 1)), 0);
	assert_int_equal(mkw__os_frames_resize(r.fr, 3 * page), 0);
	assert_false(mkw__os_frames_present(r.fr, 2 * page));
	start_load(&a, page_at(&r, 2));
	next_fault(&r);
	publish(&r, 2, 33);
	map_page(&r, 2, 0);
	assert_int_equal(finish(&a), 0);
	assert_int_equal(a.word, 33);
	rig_close(&r);
}

static void test_zap_locked_memory(void **state)
{
	struct access a;
	struct rig r;

	(void)state;
	rig_open(&r);
	publish(&r, 0, 1);
	map_page(&r, 0, 0);
	if (mlock2((void *)r.at, page, MLOCK_ONFAULT)) {
		print_message("skipped: mlock: %s\n", strerror(errno));
		rig_close(&r);
		skip();
	}
	assert_int_equal(mkw__os_pte_zap(r.at, page), 0);
	start_load(&a, r.at);
	next_fault(&r);
	map_page(&r, 0, 0);
	assert_int_equal(finish(&a), 0);
	rig_close(&r);
}

/* ---- mappings --------------------------------------------------------- */

static void test_map(void **state)
{
	uintptr_t other, addr, room;
	struct access a;
	struct rig r;
	size_t done;
	int status;
	pid_t pid;

	(void)state;
	rig_open(&r);
	room = (uintptr_t)mmap(NULL, 4 * page, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(mkw__os_map(pager_mmu, r.fr, room, page,
				     MKW__MAP_FIXED_NOREPLACE, 0, &addr),
			 -EEXIST);
	assert_int_equal(mkw__os_map(pager_mmu, r.fr, room, page, 0, 0, &addr),
			 0);
	assert_int_not_equal(addr, room);
	mkw__os_unmap(addr, page);
	assert_int_equal(mkw__os_map(pager_mmu, r.fr, room + page, 2 * page,
				     MKW__MAP_FIXED, 3 * page, &addr),
			 0);
	assert_int_equal(addr, room + page);
	/* Not accessible before it is enabled; then without writing. */
	assert_int_equal(try_load(addr), -EFAULT);
	assert_int_equal(mkw__os_map_enable(addr, 2 * page, false), 0);
	publish(&r, 4, 44);
	start_load(&a, addr + page);
	assert_int_equal(next_fault(&r).addr, addr + page);
	assert_int_equal(mkw__os_pte_continue(pager_mmu, addr + page, page, 0,
					      &done),
			 0);
	assert_int_equal(finish(&a), 0);
	assert_int_equal(a.word, 44);
	assert_int_equal(try_store(addr + page, 1), -EFAULT);

	/* A child has none of it. */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(try_load(addr + page) == -EFAULT &&
				      try_load(r.at) == -EFAULT &&
				      try_load(room) == 0
			      ? 0
			      : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);

	mkw__os_unmap(room, 4 * page);
	assert_int_equal(mkw__os_map(pager_mmu, r.fr, room, page,
				     MKW__MAP_FIXED_NOREPLACE, 0, &other),
			 0);
	assert_int_equal(other, room);
	mkw__os_unmap(other, page);
	assert_int_equal(mkw__os_map(pager_mmu, r.fr, 0, (size_t)1 << 62, 0, 0,
				     &addr),
			 -ENOMEM);
	assert_int_equal(mkw__os_map(pager_mmu, r.fr, 0, page, 0, 1, &addr),
			 -EINVAL);
	rig_close(&r);
}

static void write_to_pipe(void *arg)
{
	struct access *a = arg;
	int fds[2];

	if (pipe(fds)) {
		a->res = -errno;
		return;
	}
	a->res = write(fds[1], (void *)a->addr, 8) == 8 ? 0 : -errno;
	if (!a->res && read(fds[0], &a->word, 8) != 8)
		a->res = -EIO;
	close(fds[0]);
	close(fds[1]);
}

static void test_fault_in_system_call(void **state)
{
	struct access a;
	struct rig r;

	(void)state;
	rig_open(&r);
	publish(&r, 0, 77);
	a = (struct access){ .addr = r.at };
	assert_int_equal(mkw__os_thread_start(&a.thread, "write", write_to_pipe,
					      &a),
			 0);
	if (caps.kernel_faults) {
		next_fault(&r);
		map_page(&r, 0, 0);
		assert_int_equal(finish(&a), 0);
		assert_int_equal(a.word, 77);
	} else {
		assert_int_equal(finish(&a), -EFAULT);
	}
	rig_close(&r);
}

/* ---- faults in their own thread --------------------------------------- */

static struct {
	uintptr_t addr, start;
	bool write;
	unsigned calls;
	enum mkw__os_verdict verdict;
	bool all_blocked;
} seen;

static enum mkw__os_verdict resolve(uintptr_t addr, bool write)
{
	uintptr_t at = addr & ~(page - 1);
	size_t done;

	seen.addr = addr;
	seen.write = write;
	seen.calls++;
	seen.all_blocked = is_blocked(blocked_signals(), SIGUSR1) &&
			   is_blocked(blocked_signals(), 32) &&
			   is_blocked(blocked_signals(), 33);
	/* As a failing system call in the engine would. */
	errno = ENOTTY;
	if (seen.verdict != MKW__OS_RETRY)
		return seen.verdict;
	if (mkw__os_pte_continue(inline_mmu, at, page, 0, &done) == -EEXIST)
		mkw__os_pte_protect(inline_mmu, at, page, false, 0);
	else if (!write)
		mkw__os_pte_protect(inline_mmu, at, page, true, 0);
	return MKW__OS_RETRY;
}

static void test_in_thread(void **state)
{
	volatile uint64_t *word;
	uintptr_t addr;
	struct rig r;
	int fds[2];

	(void)state;
	rig_open(&r);
	memset(&seen, 0, sizeof(seen));
	mkw__os_set_handler(resolve);
	for (unsigned i = 0; i < 4; i++)
		publish(&r, i, i + 50);
	assert_int_equal(mkw__os_map(inline_mmu, r.fr, 0, 4 * page, 0, 0,
				     &addr),
			 0);
	assert_int_equal(mkw__os_map_enable(addr, 4 * page, true), 0);

	/* Plain loads and stores. */
	word = (uint64_t *)addr;
	errno = 0;
	assert_int_equal(word[1], 50);
	assert_int_equal(errno, 0);
	assert_int_equal(seen.addr, addr + 8);
	assert_false(seen.write);
	assert_true(seen.all_blocked);
	assert_int_equal(seen.calls, 1);
	word[2] = 99;
	assert_int_equal(seen.addr, addr + 16);
	assert_true(seen.write);
	assert_int_equal(seen.calls, 2);
	assert_int_equal(word[2], 99);

	/* Copies: served, or ended. */
	assert_int_equal(load(addr + page), 51);
	assert_false(seen.write);
	assert_int_equal(try_store(addr + page, 5), 0);
	assert_true(seen.write);
	assert_int_equal(seen.calls, 4);
	seen.verdict = MKW__OS_FAIL;
	assert_int_equal(try_load(addr + 2 * page), -EFAULT);
	seen.verdict = MKW__OS_FOREIGN;
	assert_int_equal(try_store(addr + 2 * page, 1), -EFAULT);
	assert_int_equal(seen.calls, 6);

	/* The kernel's own accesses have no handler. */
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], (void *)(addr + 3 * page), 8), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(seen.calls, 6);
	close(fds[0]);
	close(fds[1]);

	/* Past the end, and poison, are asked about too. */
	seen.verdict = MKW__OS_FAIL;
	assert_int_equal(mkw__os_frames_resize(r.fr, page), 0);
	assert_int_equal(try_load(addr + 3 * page), -EFAULT);
	assert_int_equal(seen.addr, addr + 3 * page);
	assert_int_equal(seen.calls, 7);
	/* A bad address that raises SIGSEGV is not. */
	assert_int_equal(try_load(0), -EFAULT);
	assert_int_equal(seen.calls, 7);

	mkw__os_set_handler(NULL);
	mkw__os_unmap(addr, 4 * page);
	rig_close(&r);
}

/* ---- words are not torn ----------------------------------------------- */

struct tearing {
	_Atomic uint64_t *word;
	size_t words;
	_Atomic bool stop;
	uint64_t torn;
};

static bool is_whole(uint64_t word)
{
	return word == 0 || word == UINT64_MAX;
}

static void load_words(void *arg)
{
	struct tearing *t = arg;

	while (!atomic_load_explicit(&t->stop, memory_order_relaxed)) {
		for (size_t i = 0; i < t->words; i++)
			t->torn += !is_whole(atomic_load_explicit(
				&t->word[i], memory_order_relaxed));
	}
}

static void store_words(void *arg)
{
	struct tearing *t = arg;

	for (uint64_t w = 0; !atomic_load_explicit(&t->stop,
						   memory_order_relaxed);
	     w = ~w) {
		for (size_t i = 0; i < t->words; i++)
			atomic_store_explicit(&t->word[i], w,
					      memory_order_relaxed);
	}
}

static void test_words_whole(void **state)
{
	struct mkw__os_thread *thread;
	unsigned char *src, *dst;
	struct tearing t;
	struct rig r;
	uint64_t word;

	(void)state;
	rig_open(&r);
	publish(&r, 0, 0);
	map_page(&r, 0, 0);
	src = mkw__os_zalloc(2 * page);
	dst = mkw__os_zalloc(2 * page);

	/* Writes of every alignment against a thread that loads. */
	t = (struct tearing){ .word = (_Atomic uint64_t *)r.at,
			      .words = page / 8 };
	assert_int_equal(mkw__os_thread_start(&thread, "load", load_words, &t),
			 0);
	for (unsigned i = 0; i < 4000; i++) {
		memset(src, i % 2 ? 0xff : 0, 2 * page);
		assert_int_equal(mkw__os_frames_write(r.fr, 0, src + i % 9,
						      page),
				 0);
		if (i % 16 == 0)
			mkw__os_frames_zero(r.fr, 0, page);
		memset(src, i % 2 ? 0 : 0xff, 2 * page);
		assert_int_equal(mkw__os_user_write((void *)r.at, src + i % 9,
						    page),
				 0);
	}
	atomic_store(&t.stop, true);
	mkw__os_thread_join(thread);
	assert_int_equal(t.torn, 0);

	/* Reads to every alignment against a thread that stores. */
	atomic_store(&t.stop, false);
	assert_int_equal(mkw__os_thread_start(&thread, "store", store_words,
					      &t),
			 0);
	for (unsigned i = 0; i < 8000; i++) {
		if (i % 2)
			assert_int_equal(mkw__os_frames_read(r.fr, 0,
							     dst + i % 9, page),
					 0);
		else
			assert_int_equal(mkw__os_user_read(dst + i % 9,
							   (void *)r.at, page),
					 0);
		for (size_t at = 0; at < page; at += 8) {
			memcpy(&word, dst + i % 9 + at, 8);
			assert_true(is_whole(word));
		}
	}
	atomic_store(&t.stop, true);
	mkw__os_thread_join(thread);
	mkw__os_free(src);
	mkw__os_free(dst);
	rig_close(&r);
}

/* ---- loops, with io_uring (state NULL) and without -------------------- */

static struct mkw__os_loop *loop_open(void **state, unsigned depth)
{
	struct mkw__os_loop *l;
	int err;

	mkw__os_loop_no_uring(*state != NULL);
	err = mkw__os_loop_create(depth, &l);
	mkw__os_loop_no_uring(false);
	assert_int_equal(err, 0);
	return l;
}

static void test_loop_time(void **state)
{
	struct mkw__os_loop *l = loop_open(state, 1);
	uint64_t t0 = mkw__os_now_ns(), spent;

	mkw__os_loop_wait(l, 0);
	/* A wait may end early; by itself it may not, again and again. */
	t0 = mkw__os_now_ns();
	for (int i = 0; i < 10; i++)
		mkw__os_loop_wait(l, SECOND_NS / 200);
	spent = mkw__os_now_ns() - t0;
	assert_true(spent > SECOND_NS / 50);
	mkw__os_loop_kick(l);
	mkw__os_loop_wait(l, UINT64_MAX);
	mkw__os_loop_destroy(l);
}

struct kicking {
	struct mkw__os_loop *l;
	_Atomic uint64_t count;
	uint64_t kicks;
};

static void kick_often(void *arg)
{
	struct kicking *k = arg;

	for (uint64_t i = 0; i < k->kicks; i++) {
		atomic_fetch_add_explicit(&k->count, 1, memory_order_relaxed);
		mkw__os_loop_kick(k->l);
	}
}

/* No kick is lost: after the last one the count is seen to be complete. */
static void test_loop_kick(void **state)
{
	struct kicking k = { .l = loop_open(state, 1), .kicks = 20000 };
	struct mkw__os_thread *t[3];

	for (int i = 0; i < 3; i++)
		assert_int_equal(mkw__os_thread_start(&t[i], "kick", kick_often,
						      &k),
				 0);
	while (atomic_load_explicit(&k.count, memory_order_relaxed) <
	       3 * k.kicks)
		mkw__os_loop_wait(k.l, UINT64_MAX);
	for (int i = 0; i < 3; i++)
		mkw__os_thread_join(t[i]);

	/* One at a time, so that each has to wake a sleeper. */
	k.kicks = 1;
	for (int i = 0; i < 100; i++) {
		uint64_t before = atomic_load(&k.count);

		assert_int_equal(mkw__os_thread_start(&t[0], "kick", kick_often,
						      &k),
				 0);
		while (atomic_load_explicit(&k.count, memory_order_relaxed) ==
		       before)
			mkw__os_loop_wait(k.l, UINT64_MAX);
		mkw__os_thread_join(t[0]);
	}
	mkw__os_loop_destroy(k.l);
}

struct transfer {
	struct mkw__os_io io;
	struct mkw__os_loop *l;
	int res;
	unsigned dones;
	bool inside;		/* wait() runs */
};

static bool in_wait;

static void transfer_done(struct mkw__os_io *io, int res)
{
	struct transfer *t = (struct transfer *)io;

	t->res = res;
	t->dones++;
	t->inside = in_wait;
}

static void transfer_raw(struct mkw__os_loop *l, struct mkw__os_io *io, int res)
{
	if (res > 0) {
		io->moved += (size_t)res;
		if (io->moved < io->len) {
			mkw__os_loop_rw(l, io);
			return;
		}
		res = 0;
	}
	io->done(io, res);
}

static void transfer_init(struct transfer *t, int fd, bool write, uint64_t off,
			  void *buf, size_t len)
{
	*t = (struct transfer){ .io = { .done = transfer_done,
					.raw = transfer_raw,
					.fd = fd,
					.write = write,
					.off = off,
					.buf = buf,
					.len = len } };
}

static void wait_done(struct mkw__os_loop *l, struct transfer *t)
{
	while (!t->dones) {
		in_wait = true;
		mkw__os_loop_wait(l, UINT64_MAX);
		in_wait = false;
	}
	assert_true(t->inside);
	assert_int_equal(t->dones, 1);
}

static void submit_transfer(void *arg)
{
	struct transfer *t = arg;

	mkw__os_loop_rw(t->l, &t->io);
}

static void test_loop_io(void **state)
{
	struct mkw__os_loop *l = loop_open(state, 8);
	struct mkw__os_thread *thread;
	struct transfer t[8];
	char out[8][100], in[8][100];
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	/* As many as the depth at once, twice as often as the ring is long. */
	for (int round = 0; round < 64; round++) {
		for (int i = 0; i < 8; i++) {
			memset(out[i], round + i, sizeof(out[i]));
			transfer_init(&t[i], fd, true, (uint64_t)i * 100,
				      out[i], 100);
			mkw__os_loop_rw(l, &t[i].io);
			assert_int_equal(t[i].dones, 0);
		}
		for (int i = 0; i < 8; i++)
			wait_done(l, &t[i]);
		for (int i = 0; i < 8; i++) {
			transfer_init(&t[i], fd, false, (uint64_t)i * 100,
				      in[i], 100);
			mkw__os_loop_rw(l, &t[i].io);
		}
		for (int i = 0; i < 8; i++) {
			wait_done(l, &t[i]);
			assert_int_equal(t[i].res, 0);
			assert_memory_equal(in[i], out[i], 100);
		}
	}

	/* Errors, and results without a transfer. */
	transfer_init(&t[0], -1, false, 0, in[0], 100);
	mkw__os_loop_rw(l, &t[0].io);
	wait_done(l, &t[0]);
	assert_int_equal(t[0].res, -EBADF);
	transfer_init(&t[0], -1, false, 0, in[0], 100);
	mkw__os_loop_post(l, &t[0].io, -EIO);
	assert_int_equal(t[0].dones, 0);
	wait_done(l, &t[0]);
	assert_int_equal(t[0].res, -EIO);

	/* Queued by another task than the one that sleeps. */
	for (int i = 0; i < 50; i++) {
		transfer_init(&t[0], fd, false, 0, in[0], 100);
		t[0].l = l;
		assert_int_equal(mkw__os_thread_start(&thread, "submit",
						      submit_transfer, &t[0]),
				 0);
		wait_done(l, &t[0]);
		mkw__os_thread_join(thread);
		assert_int_equal(t[0].res, 0);
	}

	close(fd);
	mkw__os_loop_destroy(l);
}

struct leaving {
	struct mkw__os_loop *l;
	struct mkw__os_event left;
	int fd;			/* to read from */
	int end;		/* an eventfd */
	int woken;		/* what epoll_wait() returned */
	int error;
};

/* Reads by the loop, with a kick that is not seen before it is left. */
static void use_and_leave(struct leaving *v)
{
	struct transfer t;
	char byte;

	transfer_init(&t, v->fd, false, 0, &byte, 1);
	mkw__os_loop_rw(v->l, &t.io);
	while (!t.dones)
		mkw__os_loop_wait(v->l, UINT64_MAX);
	mkw__os_loop_kick(v->l);
	mkw__os_loop_leave(v->l);
}

static void leave_and_sleep(void *arg)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct leaving *v = arg;
	int fd = epoll_create1(EPOLL_CLOEXEC);

	use_and_leave(v);
	if (!epoll_ctl(fd, EPOLL_CTL_ADD, v->end, &event)) {
		mkw__os_event_set(&v->left);
		v->woken = epoll_wait(fd, &event, 1, -1);
		v->error = errno;
	}
	close(fd);
}

/* Who has left a loop sleeps undisturbed while others use it; it may be gone, too. */
static void test_loop_leave(void **state)
{
	struct leaving v = { .l = loop_open(state, 1),
			     .fd = memfd_create("test", MFD_CLOEXEC),
			     .end = eventfd(0, EFD_CLOEXEC) };
	static const uint64_t one = 1;
	struct mkw__os_thread *sleeper, *kicker;
	struct kicking k = { .l = v.l, .kicks = 1 };
	uint64_t got;

	assert_true(v.fd >= 0 && v.end >= 0);
	assert_int_equal(ftruncate(v.fd, 8), 0);
	for (unsigned round = 1; round <= 20; round++) {
		v.woken = 0;
		assert_int_equal(mkw__os_thread_start(&sleeper, "sleeper",
						      leave_and_sleep, &v),
				 0);
		mkw__os_event_wait(&v.left);
		mkw__os_event_reset(&v.left);
		use_and_leave(&v);
		/* A kick finds the one that waits now. */
		assert_int_equal(mkw__os_thread_start(&kicker, "kick",
						      kick_often, &k),
				 0);
		while (atomic_load(&k.count) < round)
			mkw__os_loop_wait(v.l, UINT64_MAX);
		mkw__os_thread_join(kicker);
		mkw__os_loop_leave(v.l);
		assert_int_equal(write(v.end, &one, sizeof(one)), 8);
		mkw__os_thread_join(sleeper);
		if (v.woken != 1)
			fail_msg("epoll_wait() gave %d, %s", v.woken,
				 strerror(v.error));
		assert_int_equal(read(v.end, &got, sizeof(got)), 8);
	}
	/* While others kick all the time. */
	k.kicks = 2000000;
	assert_int_equal(mkw__os_thread_start(&kicker, "kick", kick_often, &k), 0);
	for (unsigned round = 0; round < 5000; round++) {
		mkw__os_loop_wait(v.l, 0);
		use_and_leave(&v);
	}
	mkw__os_thread_join(kicker);
	close(v.end);
	close(v.fd);
	mkw__os_loop_destroy(v.l);
}

/* Rings that this process has open. */
static unsigned count_rings(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;
	struct dirent *d;
	char to[64];
	ssize_t len;

	assert_non_null(dir);
	while ((d = readdir(dir))) {
		len = readlinkat(dirfd(dir), d->d_name, to, sizeof(to) - 1);
		if (len < 0)
			continue;
		to[len] = '\0';
		n += strstr(to, "[io_uring]") != NULL;
	}
	closedir(dir);
	return n;
}

/* One transfer after the other needs no ring; what comes with another has one. */
static void test_loop_alone(void **state)
{
	struct mkw__os_loop *l = loop_open(state, 2);
	struct transfer t[2];
	char buf[2][100];
	int fd = memfd_create("test", MFD_CLOEXEC);
	unsigned before = count_rings();

	memset(buf, 1, sizeof(buf));
	for (unsigned i = 0; i < 3; i++) {
		transfer_init(&t[0], fd, true, (uint64_t)i * 100, buf[0], 100);
		mkw__os_loop_rw(l, &t[0].io);
		wait_done(l, &t[0]);
		assert_int_equal(t[0].res, 0);
	}
	assert_int_equal(count_rings(), before);
	for (unsigned i = 0; i < 2; i++) {
		transfer_init(&t[i], fd, false, (uint64_t)i * 100, buf[i], 100);
		mkw__os_loop_rw(l, &t[i].io);
	}
	for (unsigned i = 0; i < 2; i++) {
		wait_done(l, &t[i]);
		assert_int_equal(t[i].res, 0);
	}
	/* (Where the kernel lets us.) */
	if (count_rings() == before)
		print_message("no ring was to be had\n");
	close(fd);
	mkw__os_loop_destroy(l);
	assert_int_equal(count_rings(), before);
}

/* A rig whose loop is of the kind under test. */
static void rig_open_loop(struct rig *r, void **state)
{
	rig_open(r);
	mkw__os_loop_destroy(r->loop);
	r->loop = loop_open(state, 4);
	assert_int_equal(mkw__os_loop_watch(r->loop, pager_mmu, NULL, on_fault,
					    r),
			 0);
}

static void wait_for_message(void)
{
	struct pollfd p = { .fd = pager_mmu->fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, -1), 1);
}

static void test_loop_pause(void **state)
{
	struct access a[8];
	struct rig r;

	rig_open_loop(&r, state);
	assert_int_equal(mkw__os_loop_watch(r.loop, pager_mmu, NULL, on_fault,
					    &r),
			 -EBUSY);
	for (unsigned i = 0; i < 8; i++)
		publish(&r, i, i);

	/* Held back while paused, in the kernel. */
	mkw__os_loop_wait(r.loop, 0);
	mkw__os_loop_pause(r.loop, true);
	start_load(&a[0], page_at(&r, 0));
	wait_for_message();
	for (int i = 0; i < 10; i++)
		mkw__os_loop_wait(r.loop, SECOND_NS / 1000);
	assert_int_equal(r.count, 0);
	mkw__os_loop_pause(r.loop, false);
	next_fault(&r);
	map_page(&r, 0, 0);
	assert_int_equal(finish(&a[0]), 0);

	/* Pausing between two messages that arrived together. */
	r.pause_each = true;
	for (unsigned i = 1; i < 8; i++)
		start_load(&a[i], page_at(&r, i));
	for (unsigned i = 1; i < 8; i++) {
		uintptr_t addr = next_fault(&r).addr;

		assert_int_equal(r.count, 0);
		map_page(&r, (unsigned)((addr - r.at) / page), 0);
		mkw__os_loop_pause(r.loop, false);
	}
	for (unsigned i = 1; i < 8; i++)
		assert_int_equal(finish(&a[i]), 0);
	rig_close(&r);
}

/* The messages that follow before_read() were still in the kernel then. */
static void look_before_read(void *arg)
{
	struct rig *r = arg;
	struct pollfd p = { .fd = pager_mmu->fd, .events = POLLIN };

	r->reads += (unsigned)poll(&p, 1, 0);
}

static void test_loop_before_read(void **state)
{
	struct access a;
	struct rig r;

	rig_open(&r);
	mkw__os_loop_destroy(r.loop);
	r.loop = loop_open(state, 4);
	assert_int_equal(mkw__os_loop_watch(r.loop, pager_mmu, look_before_read,
					    on_fault, &r),
			 0);
	publish(&r, 0, 1);
	start_load(&a, r.at);
	wait_for_message();
	assert_int_equal(r.reads, 0);
	next_fault(&r);
	assert_int_equal(r.reads, 1);
	map_page(&r, 0, 0);
	assert_int_equal(finish(&a), 0);
	rig_close(&r);
}

/* Many faults from several threads, more than one batch of messages. */
static void touch_all(void *arg)
{
	struct access *a = arg;

	for (unsigned i = 0; i < RIG_PAGES && !a->res; i++) {
		uint64_t word;

		a->res = mkw__os_user_read(&word,
					   (void *)(a->addr + i * page), 8);
		a->word += word;
	}
}

static void test_loop_faults(void **state)
{
	struct access a[4] = { 0 };
	unsigned finished = 0;
	struct rig r;

	rig_open_loop(&r, state);
	for (unsigned i = 0; i < RIG_PAGES; i++)
		publish(&r, i, 1);
	for (int round = 0; round < 20; round++) {
		assert_int_equal(mkw__os_pte_zap(r.at, RIG_PAGES * page), 0);
		for (int i = 0; i < 4; i++) {
			a[i] = (struct access){ .addr = r.at };
			assert_int_equal(mkw__os_thread_start(&a[i].thread,
							      "touch",
							      touch_all, &a[i]),
					 0);
		}
		/* Each page is mapped once, whoever asked first. */
		for (finished = 0; finished < RIG_PAGES;) {
			uintptr_t at = next_fault(&r).addr & ~(page - 1);
			size_t done;
			int err = mkw__os_pte_continue(pager_mmu, at, page, 0,
						       &done);

			assert_true(!err || err == -EEXIST);
			if (err)
				mkw__os_wake(pager_mmu, at, page);
			finished += !err;
		}
		for (int i = 0; i < 4; i++) {
			assert_int_equal(finish(&a[i]), 0);
			assert_int_equal(a[i].word, RIG_PAGES);
		}
		/* Messages of accesses that were woken by the mapping. */
		do {
			r.count = 0;
			mkw__os_loop_wait(r.loop, 0);
		} while (r.count);
	}
	rig_close(&r);
}

/* ---- children --------------------------------------------------------- */

/* Starts this program with a scenario; its stderr goes to text. */
static int run_child(const char *scenario, char *text, size_t size)
{
	int fds[2], status;
	size_t got = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(fds[1], STDERR_FILENO);
		execl(self_path, self_path, scenario, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	while ((n = read(fds[0], text + got, size - 1 - got)) > 0)
		got += (size_t)n;
	text[got] = 0;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void serve(void *arg)
{
	for (;;)
		mkw__os_loop_wait(arg, UINT64_MAX);
}

static void ignore_fault(void *arg, const struct mkw__os_fault *msg)
{
	(void)arg;
	(void)msg;
}

static struct mkw__os_frames *child_frames(void)
{
	struct mkw__os_frames *fr;
	struct mkw__os_loop *l;
	struct mkw__os_thread *t;

	if (mkw__os_mmu_open(false, &pager_mmu, &caps) ||
	    mkw__os_frames_create(pager_mmu, &fr) ||
	    mkw__os_frames_resize(fr, 8 * page) ||
	    mkw__os_loop_create(1, &l) ||
	    mkw__os_loop_watch(l, pager_mmu, NULL, ignore_fault, NULL) ||
	    mkw__os_thread_start(&t, "pager", serve, l))
		exit(99);
	return fr;
}

/* An address whose access raises SIGBUS, and is nobody's mapping. */
static volatile char *bus_address(void)
{
	int fd = memfd_create("empty", 0);
	void *p = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);

	if (fd < 0 || p == MAP_FAILED)
		exit(98);
	return p;
}

/* One that raises SIGSEGV. */
static volatile char *low_address(void)
{
	static volatile uintptr_t addr = 8;

	return (volatile char *)addr;
}

static sigjmp_buf jump;
static volatile uintptr_t handed_addr;
static volatile uint64_t handed_mask;

static void previous_handler(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	(void)context;
	handed_addr = (uintptr_t)si->si_addr;
	handed_mask = blocked_signals();
	if (si->si_code > 0)
		siglongjmp(jump, 1);
}

static void install_previous(const struct sigaction *sa)
{
	sigaction(SIGBUS, sa, NULL);
	sigaction(SIGSEGV, sa, NULL);
}

static int chain_to_handler(void)
{
	struct sigaction sa = { .sa_sigaction = previous_handler,
				.sa_flags = SA_SIGINFO };
	struct mkw__os_sigmask saved;
	volatile char *bad;
	sigset_t set;
	int err;

	sigaddset(&sa.sa_mask, SIGUSR2);
	install_previous(&sa);
	child_frames();
	bad = bus_address();
	if (!sigsetjmp(jump, 1)) {
		(void)*bad;
		return 1;
	}
	if (handed_addr != (uintptr_t)bad)
		return 2;
	/* Its own mask, no more. */
	if (!is_blocked(handed_mask, SIGUSR2) ||
	    !is_blocked(handed_mask, SIGBUS) ||
	    is_blocked(handed_mask, SIGUSR1) ||
	    is_blocked(handed_mask, SIGSEGV))
		return 3;
	if (!sigsetjmp(jump, 1)) {
		(void)*low_address();
		return 4;
	}
	if (handed_addr != 8)
		return 5;
	/* One that was sent is handed on; a copy's fault is not. */
	handed_addr = 1;
	raise(SIGBUS);
	if (handed_addr == 1)
		return 6;
	handed_addr = 1;
	if (try_load((uintptr_t)bad) != -EFAULT || handed_addr != 1)
		return 7;
	/* The application's block of SIGBUS does not reach into our copies. */
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigprocmask(SIG_BLOCK, &set, NULL);
	mkw__os_signals_block(&saved);
	err = try_load((uintptr_t)bad);
	mkw__os_signals_restore(&saved);
	if (err != -EFAULT || !is_blocked(blocked_signals(), SIGBUS))
		return 8;
	return 0;
}

/* A seccomp profile that refuses io_uring, as containers have it. */
static int without_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = 4, .filter = code };
	struct mkw__os_loop *l;
	struct transfer t[2];
	char buf[8];
	int fd = memfd_create("test", MFD_CLOEXEC);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		return 1;
	if (fd < 0 || write(fd, "12345678", 8) != 8 ||
	    mkw__os_loop_create(2, &l))
		return 2;
	/* Two, for which it is asked for. */
	for (int i = 0; i < 2; i++) {
		transfer_init(&t[i], fd, false, 4 * (unsigned)i, buf + 4 * i, 4);
		mkw__os_loop_rw(l, &t[i].io);
	}
	while (!t[0].dones || !t[1].dones)
		mkw__os_loop_wait(l, UINT64_MAX);
	if (t[0].res || t[1].res || memcmp(buf, "12345678", 8))
		return 3;
	mkw__os_loop_destroy(l);
	return 0;
}

static int child_main(const char *scenario)
{
	const struct sigaction by_default = { .sa_handler = SIG_DFL };
	const struct sigaction ignored = { .sa_handler = SIG_IGN };
	struct mkw__os_frames *fr;
	char word[8] = { 0 }, *two;
	size_t done;

	if (!strcmp(scenario, "panic"))
		mkw__os_panic("%s %d", "text", 42);
	if (!strcmp(scenario, "alias-read")) {
		fr = child_frames();
		mkw__os_frames_read(fr, 3 * page + 8, word, 8);
	}
	if (!strcmp(scenario, "save")) {
		/* The page before is there, and is saved with it. */
		two = mkw__os_reserve(2 * page);
		fr = child_frames();
		if (!mkw__os_frames_publish(fr, 2 * page, two, page, &done))
			mkw__os_frames_save(fr, 2 * page, two, 2 * page);
	}
	if (!strcmp(scenario, "save-past-end")) {
		fr = child_frames();
		mkw__os_frames_save(fr, 9 * page, mkw__os_reserve(page), page);
	}
	if (!strcmp(scenario, "alias-zero")) {
		fr = child_frames();
		mkw__os_frames_zero(fr, 5 * page, 8);
	}
	if (!strcmp(scenario, "alias-past-end")) {
		fr = child_frames();
		mkw__os_frames_write(fr, 9 * page, word, 8);
	}
	if (!strcmp(scenario, "bus-default")) {
		install_previous(&by_default);
		child_frames();
		(void)*bus_address();
	}
	if (!strcmp(scenario, "bus-ignored")) {
		install_previous(&ignored);
		child_frames();
		raise(SIGBUS);
		(void)*bus_address();
	}
	if (!strcmp(scenario, "bus-sent")) {
		install_previous(&by_default);
		child_frames();
		raise(SIGBUS);
	}
	if (!strcmp(scenario, "segv-default")) {
		install_previous(&by_default);
		child_frames();
		(void)*low_address();
	}
	if (!strcmp(scenario, "chain"))
		return chain_to_handler();
	if (!strcmp(scenario, "no-io-uring"))
		return without_io_uring();
	return 97;
}

static void expect_killed(const char *scenario, int sig, const char *says)
{
	char text[4096];
	int status = run_child(scenario, text, sizeof(text));

	if (!WIFSIGNALED(status) || WTERMSIG(status) != sig)
		fail_msg("%s: status 0x%x, not killed by %d: %s", scenario,
			 status, sig, text);
	if (says && !strstr(text, says))
		fail_msg("%s: \"%s\" is not in: %s", scenario, says, text);
}

static void test_panics(void **state)
{
	char offset[100];

	(void)state;
	expect_killed("panic", SIGABRT, "mkwrite: panic: text 42\n");
	snprintf(offset, sizeof(offset), "read a frame that is not there, at "
		 "offset 0x%zx", 3 * page + 8);
	expect_killed("alias-read", SIGABRT, offset);
	snprintf(offset, sizeof(offset), "read a frame that is not there, at "
		 "offset 0x%zx", 3 * page);
	expect_killed("save", SIGABRT, offset);
	expect_killed("save-past-end", SIGABRT, "cannot read the frame");
	snprintf(offset, sizeof(offset), "wrote a frame that is not there");
	expect_killed("alias-zero", SIGABRT, offset);
	snprintf(offset, sizeof(offset), "offset 0x%zx", 9 * page);
	expect_killed("alias-past-end", SIGABRT, offset);
}

static void test_chaining(void **state)
{
	char text[4096];
	int status;

	(void)state;
	expect_killed("bus-default", SIGBUS, NULL);
	expect_killed("bus-ignored", SIGBUS, NULL);
	expect_killed("bus-sent", SIGBUS, NULL);
	expect_killed("segv-default", SIGSEGV, NULL);
	status = run_child("chain", text, sizeof(text));
	if (status)
		fail_msg("chain: status 0x%x: %s", status, text);
}

static void test_io_uring_refused(void **state)
{
	char text[4096];
	int status;

	(void)state;
	status = run_child("no-io-uring", text, sizeof(text));
	if (status)
		fail_msg("no-io-uring: status 0x%x: %s", status, text);
	assert_non_null(strstr(text, "io_uring, got: Operation not permitted"));
}

int main(int argc, char **argv)
{
	static int without_uring;
#define BOTH(fn)                                               \
	{ #fn, fn, NULL, NULL, NULL }, { #fn " without io_uring", fn, NULL, \
					 NULL, &without_uring }
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mutex),
		cmocka_unit_test(test_event),
		cmocka_unit_test(test_thread),
		cmocka_unit_test(test_setuid_with_threads),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_copy_shapes),
		cmocka_unit_test(test_copy_bad),
		cmocka_unit_test(test_publish),
		cmocka_unit_test(test_frame_bytes),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_stray),
		cmocka_unit_test(test_page_mkwrite),
		cmocka_unit_test(test_copy_into_mapping),
		cmocka_unit_test(test_outcomes),
		cmocka_unit_test(test_bare_wakes),
		cmocka_unit_test(test_wake_after_unmap),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_take_away),
		cmocka_unit_test(test_zap_locked_memory),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_fault_in_system_call),
		cmocka_unit_test(test_in_thread),
		cmocka_unit_test(test_words_whole),
		BOTH(test_loop_time),
		BOTH(test_loop_kick),
		BOTH(test_loop_io),
		BOTH(test_loop_leave),
		cmocka_unit_test(test_loop_alone),
		BOTH(test_loop_pause),
		BOTH(test_loop_before_read),
		BOTH(test_loop_faults),
		cmocka_unit_test(test_panics),
		cmocka_unit_test(test_chaining),
		cmocka_unit_test(test_io_uring_refused),
	};
	struct mkw__os_mmu_caps inline_caps;
	int err, failed;

	page = mkw__os_page_size();
	if (argc > 1)
		return child_main(argv[1]);
	self_path = "/proc/self/exe";
	mkw__os_mmu_old_kernel(getenv("MKW_OLD_KERNEL"));
	err = mkw__os_mmu_open(false, &pager_mmu, &caps);
	if (err) {
		printf("skipped: no userfaultfd: %s\n", strerror(-err));
		return 77;
	}
	err = mkw__os_mmu_open(true, &inline_mmu, &inline_caps);
	if (err || inline_caps.kernel_faults) {
		printf("skipped: no second userfaultfd: %s\n", strerror(-err));
		return 77;
	}
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	mkw__os_mmu_close(inline_mmu);
	mkw__os_mmu_close(pager_mmu);
	return failed;
}
