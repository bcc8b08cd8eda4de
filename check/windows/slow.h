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

#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "check/image.h"

/* Shared with the server. */
struct slow_gate {
	_Atomic uint64_t word;	/* to hold; 0: none */
	_Atomic int write;	/* in a write rather than a read */
	sem_t held;		/* posted when one is held */
	sem_t go;		/* post it to let all go that are held */
};

struct slow {
	struct image image;
	char backing[256];	/* mount point of the server: a file */
	struct slow_gate *gate;
	pid_t server;
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
