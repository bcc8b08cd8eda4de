/* SPDX-License-Identifier: MIT */
/*
 * targets_all.c: the targets of mkwrite check.
 */
#include "check/check.h"

const struct target_ops *const mkw__check_targets[] = {
	&mkw__check_kernel_target,
	&mkw__check_engine_target,
	NULL,
};
