/* SPDX-License-Identifier: MIT */
/*
 * holes.h: which pages of the file hold no blocks, for certain.
 */
#ifndef MKW_CHECK_HOLES_H
#define MKW_CHECK_HOLES_H

#include "check/mix.h"

/*
 * Has the target's file, all zeros till now and with `empty` bytes of blocks, blocks for
 * the pages that were written and no others? Not for the kernel on tmpfs, where a page
 * that is loaded has one, nor where blocks are larger than pages. Writes to the first page.
 */
bool mkw__holes_certain(struct target *t, size_t page, int64_t empty);

struct holes;
/* NULL: no memory. All of a new file is a hole. */
struct holes *mkw__holes_new(const struct layout *layout);
void mkw__holes_free(struct holes *h);
/* What the logs of an epoch, which is over, make of the file. */
void mkw__holes_learn(struct holes *h, const struct log *logs, unsigned n);
/* The most that st_blocks may come to, in bytes; -1: that is not known. */
int64_t mkw__holes_most(const struct holes *h);

#endif /* MKW_CHECK_HOLES_H */
