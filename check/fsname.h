/* SPDX-License-Identifier: MIT */
/*
 * fsname.h: what kind of file system a path is on.
 */
#ifndef MKW_CHECK_FSNAME_H
#define MKW_CHECK_FSNAME_H

#include "check/check.h"

/* "ext4 on /dev/loop1, rw,noatime", as far as it is known. */
void mkw__check_mount_line(const char *path, char *buf, size_t size);
/* "ext4", say, put into buf and returned; "file system" where unknown. */
const char *mkw__check_fsname(const char *path, char *buf, size_t size);

#endif /* MKW_CHECK_FSNAME_H */
