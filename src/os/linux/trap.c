/* SPDX-License-Identifier: MIT */
/*
 * trap.c: what happens when an access faults: copies that survive a bad
 * address, and what the handler of SIGBUS and SIGSEGV makes of a fault.
 *
 * Copies. All accesses that may meet a bad address are made by the few
 * instructions between mkw__trap_begin and mkw__trap_end, written by hand:
 * they use no stack and keep nothing in registers that a caller must get back,
 * so the handler ends a copy by setting the program counter to
 * mkw__trap_landing, which returns -EFAULT. (The exception table of a kernel,
 * with one entry. Nothing is set up per call, and no jump leaves the handler,
 * so the signal mask is restored as always.) Being by hand also fixes the width
 * of each access: 8 aligned bytes move by one 8-byte load or store, which
 * x86-64 and arm64 do in one piece; ldp and stp count as two of those. An
 * access that is not aligned to 8 promises nothing.
 *
 * Order in the handlers, for a fault that the kernel reports:
 *   1. an address of an alias mapping: the engine's own bug, panic
 *   2. an access by a glance (glance.c), which the kernel has broken off: go on
 *   3. an access by a copy, in a thread that holds locks of the engine: such
 *      memory is no mapping of ours (R0): -EFAULT
 *   4. SIGBUS, or SIGSEGV that may come from a barred page (mmu.c): the in-thread
 *      handler of the engine. RETRY: return, so that the access runs again; also
 *      where it is denied by now, so that it raises SIGSEGV
 *   5. the access was made by a copy: -EFAULT
 *   6. to whoever else handles the signal (chain.c); of a barred page as SIGBUS
 * A signal that was sent (kill, raise), and the notice of a memory error that
 * hit no access of this thread, go straight to 6.
 *
 * The handlers allocate nothing, take no lock of the C library and keep errno.
 * They run on the alternate stack where the thread has one; it must be large
 * enough for the engine's fault path then.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "os/linux/linux.h"

/* ---- copies ----------------------------------------------------------- */

extern const char mkw__trap_begin[], mkw__trap_end[], mkw__trap_landing[];

/* head bytes, then words of 8, then tail bytes; 0 or -EFAULT. */
int mkw__trap_move(void *dst, const void *src, size_t head, size_t words,
		   size_t tail);
/* Reads a byte; 0 or -EFAULT. */
int mkw__trap_touch(const void *src);

#define LOCAL_SYMBOL(name) ".hidden " #name "\n.globl " #name "\n"
#define STRING_OF(x) #x
#define DIGITS_OF(x) STRING_OF(x)

#define FUNCTION(name) LOCAL_SYMBOL(name) ".type " #name ", %function\n"
#define PROLOGUE                                                  \
	LOCAL_SYMBOL(mkw__trap_begin)                             \
	LOCAL_SYMBOL(mkw__trap_end)                               \
	FUNCTION(mkw__trap_landing)                               \
	FUNCTION(mkw__trap_move)                                  \
	FUNCTION(mkw__trap_touch)                                 \
	".pushsection .text\n"                                    \
	".p2align 4\n"
#define EPILOGUE ".popsection\n"

#if defined(__x86_64__)

/* rdi dst, rsi src, rdx head, rcx words, r8 tail */
__asm__(PROLOGUE
	"mkw__trap_begin:\n"
	"mkw__trap_move:\n"
	".cfi_startproc\n"
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
	"	jz 8f\n"
	"7:	movb (%rsi), %al\n"
	"	movb %al, (%rdi)\n"
	"	incq %rsi\n"
	"	incq %rdi\n"
	"	decq %r8\n"
	"	jnz 7b\n"
	"8:	xorl %eax, %eax\n"
	"	ret\n"
	".cfi_endproc\n"
	"mkw__trap_touch:\n"
	".cfi_startproc\n"
	"	movb (%rdi), %al\n"
	"	xorl %eax, %eax\n"
	"	ret\n"
	".cfi_endproc\n"
	"mkw__trap_end:\n"
	"mkw__trap_landing:\n"
	".cfi_startproc\n"
	"	movl $-" DIGITS_OF(EFAULT) ", %eax\n"
	"	ret\n"
	".cfi_endproc\n"
	EPILOGUE);

static uintptr_t context_pc(const ucontext_t *uc)
{
	return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
}

static void context_set_pc(ucontext_t *uc, uintptr_t pc)
{
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)pc;
}

static bool context_is_write(const ucontext_t *uc)
{
	/* The page-fault error code: bit 1 is a write. */
	return uc->uc_mcontext.gregs[REG_ERR] & 2;
}

#elif defined(__aarch64__)

/* x0 dst, x1 src, x2 head, x3 words, x4 tail */
__asm__(PROLOGUE
	"mkw__trap_begin:\n"
	"mkw__trap_move:\n"
	".cfi_startproc\n"
	"	cbz x2, 2f\n"
	"1:	ldrb w5, [x1], #1\n"
	"	strb w5, [x0], #1\n"
	"	subs x2, x2, #1\n"
	"	b.ne 1b\n"
	"2:	subs x3, x3, #8\n"
	"	b.lo 4f\n"
	"3:	ldp x5, x6, [x1]\n"
	"	ldp x7, x8, [x1, #16]\n"
	"	ldp x9, x10, [x1, #32]\n"
	"	ldp x11, x12, [x1, #48]\n"
	"	stp x5, x6, [x0]\n"
	"	stp x7, x8, [x0, #16]\n"
	"	stp x9, x10, [x0, #32]\n"
	"	stp x11, x12, [x0, #48]\n"
	"	add x1, x1, #64\n"
	"	add x0, x0, #64\n"
	"	subs x3, x3, #8\n"
	"	b.hs 3b\n"
	"4:	adds x3, x3, #8\n"
	"	b.eq 6f\n"
	"5:	ldr x5, [x1], #8\n"
	"	str x5, [x0], #8\n"
	"	subs x3, x3, #1\n"
	"	b.ne 5b\n"
	"6:	cbz x4, 8f\n"
	"7:	ldrb w5, [x1], #1\n"
	"	strb w5, [x0], #1\n"
	"	subs x4, x4, #1\n"
	"	b.ne 7b\n"
	"8:	mov w0, #0\n"
	"	ret\n"
	".cfi_endproc\n"
	"mkw__trap_touch:\n"
	".cfi_startproc\n"
	"	ldrb w1, [x0]\n"
	"	mov w0, #0\n"
	"	ret\n"
	".cfi_endproc\n"
	"mkw__trap_end:\n"
	"mkw__trap_landing:\n"
	".cfi_startproc\n"
	"	mov w0, #-" DIGITS_OF(EFAULT) "\n"
	"	ret\n"
	".cfi_endproc\n"
	EPILOGUE);

static uintptr_t context_pc(const ucontext_t *uc)
{
	return uc->uc_mcontext.pc;
}

static void context_set_pc(ucontext_t *uc, uintptr_t pc)
{
	uc->uc_mcontext.pc = pc;
}

static bool context_is_write(const ucontext_t *uc)
{
	/* Records of (magic, size), the last of size 0; one is the syndrome. */
	const unsigned char *p = uc->uc_mcontext.__reserved;
	struct {
		uint32_t magic;
		uint32_t size;
		uint64_t esr;
	} record;

	for (size_t at = 0;
	     at + sizeof(record) <= sizeof(uc->uc_mcontext.__reserved);
	     at += record.size) {
		memcpy(&record, p + at, sizeof(record));
		if (record.magic == 0x45535201) /* ESR_MAGIC */
			return record.esr >> 6 & 1; /* WnR */
		if (record.size == 0)
			break;
	}
	return false;
}

#else
#error "mkwrite knows x86-64 and arm64; another processor needs its copies here"
#endif

/* The bytes from p to the next multiple of 8, at most len. */
static size_t bytes_to_word(const void *p, size_t len)
{
	size_t n = -(uintptr_t)p & 7;

	return n < len ? n : len;
}

int mkw__trap_copy_to(void *dst, const void *src, size_t len)
{
	size_t head = bytes_to_word(dst, len);

	return mkw__trap_move(dst, src, head, (len - head) / 8,
			      (len - head) % 8);
}

int mkw__trap_copy_from(void *dst, const void *src, size_t len)
{
	size_t head = bytes_to_word(src, len);

	return mkw__trap_move(dst, src, head, (len - head) / 8,
			      (len - head) % 8);
}

int mkw__trap_probe(const void *src, size_t len)
{
	size_t page = mkw__os_page_size();
	uintptr_t p = (uintptr_t)src, end = p + len;
	int err = 0;

	if (end < p)
		return -EFAULT;
	for (; p < end && !err; p = (p | (page - 1)) + 1)
		err = mkw__trap_touch((const void *)p);
	return err;
}

int mkw__os_user_read(void *dst, const void *user_src, size_t len)
{
	return mkw__trap_copy_from(dst, user_src, len);
}

int mkw__os_user_write(void *user_dst, const void *src, size_t len)
{
	return mkw__trap_copy_to(user_dst, src, len);
}

/* ---- the handler -------------------------------------------------------- */

static _Atomic(mkw__os_handler *) core_handler;

void mkw__os_set_handler(mkw__os_handler *fn)
{
	atomic_store(&core_handler, fn);
}

/* Not to be ended with locks in hand: the core's files make cancellable calls. */
static enum mkw__os_verdict ask_core(uintptr_t addr, bool write)
{
	mkw__os_handler *fn = atomic_load(&core_handler);
	enum mkw__os_verdict v = MKW__OS_FOREIGN;
	int cancel;

	if (fn) {
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
		v = fn(addr, write);
		pthread_setcancelstate(cancel, NULL);
	}
	return v;
}

/*
 * An access that faulted, by an address: true when it is dealt with. Else *sig is
 * what it means: a page that poison has barred raises SIGSEGV and means SIGBUS.
 */
static bool served(int *sig, siginfo_t *si, ucontext_t *uc)
{
	uintptr_t pc = context_pc(uc), addr = (uintptr_t)si->si_addr;
	bool copy = pc >= (uintptr_t)mkw__trap_begin &&
		    pc < (uintptr_t)mkw__trap_end;
	enum mkw__os_verdict v = MKW__OS_FOREIGN;
	bool write = context_is_write(uc);

	mkw__frames_check_stray(addr, write);
	/* Its caller tries again the long way, which says what is wrong. */
	if (mkw__glance_is_broken_off(pc))
		return true;
	/* Where locks are held memory is ordinary, and nobody to be asked (R0). */
	if (!(copy && mkw__task_masked()) &&
	    (*sig == SIGBUS ||
	     (si->si_code == SEGV_ACCERR && mkw__mmu_bars_pages())))
		v = ask_core(addr, write);
	if (v == MKW__OS_RETRY || (v == MKW__OS_DENIED && *sig == SIGBUS))
		return true;
	if (copy) {
		context_set_pc(uc, (uintptr_t)mkw__trap_landing);
		return true;
	}
	if (v == MKW__OS_FAIL && *sig == SIGSEGV) {
		*sig = si->si_signo = SIGBUS;
		si->si_code = BUS_ADRERR;
	}
	return false;
}

void mkw__trap_on_signal(int sig, siginfo_t *si, void *context)
{
	bool sent = si->si_code <= 0;
	int saved_errno = errno, means = sig;

	/* Nested: a handler that we called calls us, who have looked at it. */
	if (sent || (sig == SIGBUS && si->si_code == BUS_MCEERR_AO) ||
	    mkw__trap_is_nested(context) || !served(&means, si, context))
		mkw__trap_hand_on(means, si, context, sent,
				  !sent && means == sig);
	errno = saved_errno;
}
