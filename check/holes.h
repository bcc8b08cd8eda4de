/* SPDX-License-Identifier: MIT */
/*
 * holes.h: which pages of the file hold no blocks, for certain.
 */
#ifndef MKW_CHECK_HOLES_H
#define MKW_CHECK_HOLES_H

#include "check/mix.h"

/*
 * Do files in the directory have blocks for the pages that were written and no others? Not
 * where blocks are larger than pages; nor on tmpfs, if they are mapped there, since a page
 * that is loaded has one. (Not asked of a target, whose bugs would answer.)
 */
bool mkw__holes_certain(const char *dir, bool mapped);

struct holes;
/* NULL: no memory. All of a new file is a hole. */
struct holes *mkw__holes_new(const struct layout *layout);
void mkw__holes_free(struct holes *h);
/* What the logs of an epoch, which is over, make of the file. */
void mkw__holes_learn(struct holes *h, const struct log *logs, unsigned n);
/* The most that st_blocks may come to, in bytes; -1: that is not known. */
int64_t mkw__holes_most(const struct holes *h);

#endif /* MKW_CHECK_HOLES_H */
