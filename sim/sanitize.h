/* SPDX-License-Identifier: MIT */
/*
 * Which sanitizer the simulator is built with, gcc's names and clang's alike:
 * SIM_ASAN, SIM_TSAN, with their interfaces. Stacks of our own and an arena of our
 * own must tell them what they do.
 */
#ifndef SIM_SANITIZE_H
#define SIM_SANITIZE_H

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define SIM_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SIM_TSAN 1
#endif

#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIM_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#endif /* SIM_SANITIZE_H */
