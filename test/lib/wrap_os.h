/* SPDX-License-Identifier: MIT */
/*
 * wrap_os.h: what the calls of os.h that wrap_os.c stands before have in hand.
 *
 * A program that links wrap_os.c names the wrapped functions to the linker
 * (test/meson.build).
 */
#ifndef TEST_WRAP_OS_H
#define TEST_WRAP_OS_H

#include <stdint.h>

/* Pieces of memory allocated or reserved, and not given back yet. */
int64_t wrap_os_live(void);

#endif /* TEST_WRAP_OS_H */
