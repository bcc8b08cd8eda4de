/* SPDX-License-Identifier: MIT */
/*
 * slow.h: a file system on a device that can be told to hold a block.
 *
 * The device is a loop device over a file of a FUSE server of ours, which is a
 * process of its own. It is told a word; the next read or write of the device
 * that has the word in it is not answered until it is let go. So a page fault
 * can be held in its read, and a page in its writeback, with all the locks that the
 * file system holds then.
 */
#ifndef MKW_CHECK_SLOW_H
#define MKW_CHECK_SLOW_H

#include "check/image.h"
#include "check/windows/served.h"

struct slow {
	struct image image;
	struct served served;	/* the device's file */
	char why[256];		/* there is none: the reason */
	bool up;
};

/*
 * A file system of the type on such a device. On failure !slow->up, with the
 * reason in slow->why.
 */
void mkw__slow_start(struct slow *slow, const char *fstype);
/* In case that somebody died while it was frozen. */
void mkw__slow_thaw(const struct slow *slow);
/* Lets everything go, unmounts, and ends the server. */
void mkw__slow_stop(struct slow *slow);

#endif /* MKW_CHECK_SLOW_H */
