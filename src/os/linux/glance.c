/* SPDX-License-Identifier: MIT */
/*
 * glance.c: copies from frames that others may drop meanwhile.
 *
 * A glance must never touch a frame that has gone: the alias would fault, and that
 * is a panic. So it runs as a restartable sequence (rseq(2), which the C library
 * registers for every thread from glibc 2.35 on): the kernel knows, by one word of
 * the thread's memory (rseq_cs), that the thread is between two instructions of ours, and
 * when it preempts or moves the thread there, or delivers a signal, it clears the
 * word and lets the thread go on at mkw__glance_abort instead.
 *
 * That word is also how a glance is announced. Reader and barrier:
 *
 *	reader				barrier, by who has stored S before
 *	------				------
 *	rseq_cs = ours			membarrier(PRIVATE_EXPEDITED_RSEQ)
 *	S is as it was?			while (rseq_cs is ours)
 *	copy					wait
 *	rseq_cs = 0
 *
 * The reader's store and load may pass each other on its processor; membarrier() is
 * the barrier between them that the reader does not have. It runs on every
 * processor that runs a thread of ours, and a thread that runs nowhere passed one when it
 * was switched out. So either the reader's load comes after it, and sees S, or its
 * store came before, and the barrier sees rseq_cs. The copy's loads and stores
 * are made before rseq_cs becomes 0, as x86-64 orders all stores after both; so
 * a barrier that sees 0 comes after them.
 *
 * The same call restarts the sequences under way, so that the wait is for no copy. What
 * is left to wait for is a reader inside the kernel: in the fault of a frame that the alias does
 * not map yet, or of its buffer. (That it cannot be cut off there is why restarting
 * alone would not do: the fault would go on and find the frame gone.) Or a reader that
 * has no processor just now; it is as if it had a lock, shared. But it holds nothing
 * while a signal handler runs above it: the kernel has cleared its word before. So
 * a handler may fault on a mapping, or punch, or leave by siglongjmp().
 *
 * A reader's word is looked at only while its thread lives: threads join a list, and
 * leave it by a destructor of thread-specific data.
 *
 * It needs x86-64, rseq and membarrier(); elsewhere there are no glances, and
 * reading takes its locks. The thread sanitizer sees neither these copies nor what orders
 * them, and would take the plain ones of drops and writes for races: none there.
 */
#include "os/linux/linux.h"

#if defined(__SANITIZE_THREAD__)
#define NO_GLANCES 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_GLANCES 1
#endif
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(NO_GLANCES)
#if __GLIBC_PREREQ(2, 35)
#define HAVE_GLANCES 1
#endif
#endif

#ifdef HAVE_GLANCES

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* pthread_setspecific() takes no memory for keys below this one (glibc). */
#define KEYS_IN_THREAD 32u
#define SPINS 1000u
#define YIELDS 100u

/* ---- the sequence ------------------------------------------------------ */

struct sequence {
	uint64_t *rseq_cs;
	struct mkw__os_watch watch[MKW__GLANCE_WATCHES];
};
_Static_assert(sizeof(struct mkw__os_watch) == 16 &&
	       offsetof(struct mkw__os_watch, value) == 8 &&
	       offsetof(struct sequence, watch) == 8 && MKW__GLANCE_WATCHES == 4,
	       "the sequence knows these offsets");
_Static_assert(RSEQ_SIG == 0x53053053, "the sequence has this signature");

extern const char mkw__glance_abort[], mkw__glance_cs[];

/* head bytes, words of 8, tail bytes. 0: all copied. */
int mkw__glance_copy(void *dst, const void *src, size_t head, size_t words,
		     size_t tail, const struct sequence *seq);

/*
 * rdi dst, rsi src, rdx head, rcx words, r8 tail, r9 seq; r11 &rseq_cs.
 * No stack: what is broken off anywhere returns from mkw__glance_abort.
 */
__asm__(".hidden mkw__glance_abort\n.globl mkw__glance_abort\n"
	".hidden mkw__glance_cs\n.globl mkw__glance_cs\n"
	".hidden mkw__glance_copy\n.globl mkw__glance_copy\n"
	".type mkw__glance_copy, %function\n"
	".pushsection .data.rel.ro.local, \"aw\"\n"
	".balign 32\n"
	"mkw__glance_cs:\n"
	"	.long 0, 0\n"		/* version, flags */
	"	.quad mkw__glance_begin\n"
	"	.quad mkw__glance_end - mkw__glance_begin\n"
	"	.quad mkw__glance_abort\n"
	".popsection\n"
	".pushsection .text\n"
	".p2align 4\n"
	"mkw__glance_copy:\n"
	".cfi_startproc\n"
	"	movq (%r9), %r11\n"
	"	leaq mkw__glance_cs(%rip), %rax\n"
	"	movq %rax, (%r11)\n"
	"mkw__glance_begin:\n"
	"	movq 8(%r9), %rax\n"
	"	movq (%rax), %rax\n"
	"	cmpq 16(%r9), %rax\n"
	"	jne 9f\n"
	"	movq 24(%r9), %rax\n"
	"	movq (%rax), %rax\n"
	"	cmpq 32(%r9), %rax\n"
	"	jne 9f\n"
	"	movq 40(%r9), %rax\n"
	"	movq (%rax), %rax\n"
	"	cmpq 48(%r9), %rax\n"
	"	jne 9f\n"
	"	movq 56(%r9), %rax\n"
	"	movq (%rax), %rax\n"
	"	cmpq 64(%r9), %rax\n"
	"	jne 9f\n"
	"	testq %rdx, %rdx\n"
	"	jz 2f\n"
	"1:	movb (%rsi), %al\n"
	"	movb %al, (%rdi)\n"
	"	incq %rsi\n"
	"	incq %rdi\n"
	"	decq %rdx\n"
	"	jnz 1b\n"
	"2:	subq $8, %rcx\n"
	"	jb 4f\n"
	"3:	movq (%rsi), %rax\n"
	"	movq 8(%rsi), %rdx\n"
	"	movq 16(%rsi), %r9\n"
	"	movq 24(%rsi), %r10\n"
	"	movq %rax, (%rdi)\n"
	"	movq %rdx, 8(%rdi)\n"
	"	movq %r9, 16(%rdi)\n"
	"	movq %r10, 24(%rdi)\n"
	"	movq 32(%rsi), %rax\n"
	"	movq 40(%rsi), %rdx\n"
	"	movq 48(%rsi), %r9\n"
	"	movq 56(%rsi), %r10\n"
	"	movq %rax, 32(%rdi)\n"
	"	movq %rdx, 40(%rdi)\n"
	"	movq %r9, 48(%rdi)\n"
	"	movq %r10, 56(%rdi)\n"
	"	addq $64, %rsi\n"
	"	addq $64, %rdi\n"
	"	subq $8, %rcx\n"
	"	jae 3b\n"
	"4:	addq $8, %rcx\n"
	"	jz 6f\n"
	"5:	movq (%rsi), %rax\n"
	"	movq %rax, (%rdi)\n"
	"	addq $8, %rsi\n"
	"	addq $8, %rdi\n"
	"	decq %rcx\n"
	"	jnz 5b\n"
	"6:	testq %r8, %r8\n"
	"	jz mkw__glance_end\n"
	"7:	movb (%rsi), %al\n"
	"	movb %al, (%rdi)\n"
	"	incq %rsi\n"
	"	incq %rdi\n"
	"	decq %r8\n"
	"	jnz 7b\n"
	"mkw__glance_end:\n"
	"	movq $0, (%r11)\n"
	"	xorl %eax, %eax\n"
	"	ret\n"
	"9:	movq $0, (%r11)\n"
	"	movl $1, %eax\n"
	"	ret\n"
	/* The signature that the kernel wants, as an operand of an ud1. */
	"	.byte 0x0f, 0xb9, 0x3d\n"
	"	.long 0x53053053\n"
	"mkw__glance_abort:\n"
	"	movl $1, %eax\n"
	"	ret\n"
	".cfi_endproc\n"
	".popsection\n");

bool mkw__glance_is_broken_off(uintptr_t pc)
{
	return pc == (uintptr_t)mkw__glance_abort;
}

/* ---- who glances ------------------------------------------------------- */

struct reader {
	LIST_ENTRY(reader) link;
	struct rseq *rseq;
	uint64_t process;	/* in whose list it is */
	bool gone;		/* the thread is about to end */
};

static struct mkw__os_mutex mutex;	/* of the list */
static LIST_HEAD(, reader) readers = LIST_HEAD_INITIALIZER(readers);
static pthread_key_t key;
static bool has_key;

/* initial-exec: as everything that handlers use. */
static _Thread_local struct reader self
	__attribute__((tls_model("initial-exec")));

void mkw__glance_forget_fork(void)
{
	mutex = (struct mkw__os_mutex){ 0 };
	LIST_INIT(&readers);
}

/* The thread ends. */
static void leave(void *p)
{
	struct reader *r = p;
	struct mkw__os_sigmask mask;

	mkw__os_signals_block(&mask);
	mkw__os_mutex_lock(&mutex);
	if (r->process == mkw__os_process())
		LIST_REMOVE(r, link);
	r->process = 0;
	r->gone = true;
	mkw__os_mutex_unlock(&mutex);
	mkw__os_signals_restore(&mask);
}

static long membarrier(int cmd)
{
	return syscall(SYS_membarrier, cmd, 0, 0);
}

bool mkw__os_glance_open(void)
{
	bool ok;

	if (!__rseq_size ||
	    membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ) ||
	    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ))
		return false;
	mkw__os_mutex_lock(&mutex);
	if (!has_key)
		has_key = !pthread_key_create(&key, leave);
	ok = has_key && key < KEYS_IN_THREAD;
	mkw__os_mutex_unlock(&mutex);
	return ok;
}

void mkw__os_glance_join(void)
{
	struct reader *r = &self;
	char *thread;

	/* A bad address is not to end a process that has blocked its signal. */
	if (r->gone || r->process == mkw__os_process() ||
	    mkw__task_blocks_faults())
		return;
	__asm__("movq %%fs:0, %0" : "=r"(thread));
	r->rseq = (void *)(thread + __rseq_offset);
	if ((int32_t)r->rseq->cpu_id < 0 || pthread_setspecific(key, r)) {
		r->gone = true;		/* not registered with the kernel */
		return;
	}
	mkw__os_mutex_lock(&mutex);
	LIST_INSERT_HEAD(&readers, r, link);
	r->process = mkw__os_process();
	mkw__os_mutex_unlock(&mutex);
}

bool mkw__os_glance_read(struct mkw__os_frames *fr, uint64_t off, void *dst,
			 size_t len,
			 const struct mkw__os_watch watch[MKW__GLANCE_WATCHES])
{
	const char *src = mkw__frames_peek(fr, off, len);
	struct sequence seq;
	size_t head;

	if (!src || self.process != mkw__os_process())
		return false;
	seq.rseq_cs = (uint64_t *)(void *)((char *)self.rseq +
					   offsetof(struct rseq, rseq_cs));
	memcpy(seq.watch, watch, sizeof(seq.watch));
	head = -(uintptr_t)src & 7;
	if (head > len)
		head = len;
	return !mkw__glance_copy(dst, src, head, (len - head) / 8,
				 (len - head) % 8, &seq);
}

/* ---- the barrier ------------------------------------------------------- */

static bool is_glancing(const struct reader *r)
{
	/* Acquire: what the reader did is over once its word has gone. */
	return __atomic_load_n((uint64_t *)(void *)((char *)r->rseq +
					offsetof(struct rseq, rseq_cs)),
			       __ATOMIC_ACQUIRE) == (uintptr_t)mkw__glance_cs;
}

/*
 * It has no processor, or is in a fault. Nobody can tell when that ends: the kernel
 * clears the word, and wakes no one. So it is looked at again and again, rarely
 * after a while; the short sleeps let a reader of lower priority run.
 */
static void wait_for(const struct reader *r)
{
	const struct timespec pause = { .tv_nsec = 50000 };

	for (unsigned i = 0; is_glancing(r); i++) {
		if (i < SPINS)
			__builtin_ia32_pause();
		else if (i < SPINS + YIELDS)
			sched_yield();
		else
			nanosleep(&pause, NULL);
	}
}

void mkw__os_glance_barrier(void)
{
	struct reader *r, *others = NULL;

	/* Who joins from here on takes the mutex after us, and sees what we did. */
	mkw__os_mutex_lock(&mutex);
	LIST_FOREACH(r, &readers, link)
		if (r != &self)
			others = r;
	if (others) {
		if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ))
			mkw__os_panic("membarrier() worked, and does not any more: %s",
				      strerror(errno));
		LIST_FOREACH(r, &readers, link)
			if (r != &self)
				wait_for(r);
	}
	mkw__os_mutex_unlock(&mutex);
}

#else /* !HAVE_GLANCES */

bool mkw__glance_is_broken_off(uintptr_t pc)
{
	(void)pc;
	return false;
}

void mkw__glance_forget_fork(void)
{
}

bool mkw__os_glance_open(void)
{
	return false;
}

void mkw__os_glance_join(void)
{
}

bool mkw__os_glance_read(struct mkw__os_frames *fr, uint64_t off, void *dst,
			 size_t len,
			 const struct mkw__os_watch watch[MKW__GLANCE_WATCHES])
{
	(void)fr;
	(void)off;
	(void)dst;
	(void)len;
	(void)watch;
	return false;
}

void mkw__os_glance_barrier(void)
{
}

#endif
