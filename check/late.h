/* SPDX-License-Identifier: MIT */
/*
 * late.h: buffers with a page that comes late.
 *
 * A system call that is given one as its buffer sleeps in the middle, with all the
 * locks that it holds by then, for a time of our choice: what a busy machine does
 * now and then, and races need. The lever (windows/lever.h) does the same once and
 * for as long as one likes; this is for many calls of many threads.
 */
#ifndef MKW_CHECK_LATE_H
#define MKW_CHECK_LATE_H

#include <stdint.h>
#include <stddef.h>

struct late;

/*
 * n buffers of len bytes each, aligned to 64 KiB, all there. NULL: it cannot be
 * had, and why.
 */
struct late *mkw__late_open(unsigned n, size_t len, char *why, size_t size);
void *mkw__late_buf(struct late *late, unsigned i);
/*
 * From now on the page of buffer i with the byte at off is absent; it is supplied,
 * with what it holds now, delay_ns after it was touched. For the buffer's owner,
 * one page at a time.
 */
void mkw__late_arm(struct late *late, unsigned i, size_t off,
		   uint64_t delay_ns);
/* The buffer is all there again. For its owner, whose calls are over. */
void mkw__late_settle(struct late *late, unsigned i);
/* When nobody uses a buffer any more. */
void mkw__late_close(struct late *late);

#endif /* MKW_CHECK_LATE_H */
