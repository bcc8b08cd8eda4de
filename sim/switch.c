/* SPDX-License-Identifier: MIT */
/*
 * switch.c: the context switch; see switch.h. Registers that a called function
 * may change freely are not saved, since the compiler has done so before the
 * call of sim_switch().
 */
#include "sim/switch.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

__asm__(".text\n"
	".globl sim_switch\n"
	".hidden sim_switch\n"
	".type sim_switch, @function\n"
	"sim_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size sim_switch, . - sim_switch\n");

void *sim_context(char *stack, size_t size, void (*entry)(void))
{
	uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
	void **sp = (void **)top;

	/* At its entry a function finds a return address, and 16-byte alignment
	 * before it. */
	*--sp = NULL;
	*--sp = (void *)(uintptr_t)entry;
	for (int i = 0; i < 6; i++)
		*--sp = NULL;
	return sp;
}

#elif defined(__aarch64__)

__asm__(".text\n"
	".globl sim_switch\n"
	".hidden sim_switch\n"
	".type sim_switch, %function\n"
	"sim_switch:\n"
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x2, sp\n"
	"	str x2, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	".size sim_switch, . - sim_switch\n");

void *sim_context(char *stack, size_t size, void (*entry)(void))
{
	uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
	void **sp = (void **)(top - 160);

	memset(sp, 0, 160);
	sp[11] = (void *)(uintptr_t)entry;	/* x30, where ret goes */
	return sp;
}

#else

#include <stdlib.h>
#include <ucontext.h>

void sim_switch(void **from, void *to)
{
	ucontext_t here;

	*from = &here;
	if (swapcontext(&here, to))
		abort();
}

void *sim_context(char *stack, size_t size, void (*entry)(void))
{
	/* The context itself sits at the foot of its stack. */
	ucontext_t *uc = (ucontext_t *)stack;
	size_t head = (sizeof(*uc) + 63) & ~(size_t)63;

	if (getcontext(uc))
		abort();
	uc->uc_stack.ss_sp = stack + head;
	uc->uc_stack.ss_size = size - head;
	uc->uc_link = NULL;
	makecontext(uc, entry, 0);
	return uc;
}

#endif
