/* SPDX-License-Identifier: MIT */
/*
 * targets_kernel.c: the targets of mkwrite-check, which has no engine.
 */
#include "check/check.h"

const struct target_ops *const mkw__check_targets[] = {
	&mkw__check_kernel_target,
	NULL,
};

int main(int argc, char **argv)
{
	return mkw__check_main(argc, argv);
}
