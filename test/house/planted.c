/* SPDX-License-Identifier: MIT */
/*
 * planted.c: a system call that core must not make, for core-symbols to find.
 */
#include <unistd.h>

int planted(void);

int planted(void)
{
	return getpid();
}
