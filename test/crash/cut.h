/* SPDX-License-Identifier: MIT */
/*
 * cut.h: a store whose power can be cut.
 *
 * What is written is volatile until a flush that began after the write was
 * complete, in units of a block (512 bytes), each of which is on the device as a
 * whole or not at all. Sizes and holes are journaled by a file system: they
 * become durable in their order. cut_image() is what a cut of the power now could
 * leave: everything that is durable, of the volatile writes any, and of the
 * volatile sizes and holes the first few.
 */
#ifndef CRASH_CUT_H
#define CRASH_CUT_H

#include "store/store.h"

/* Mistakes of a device or of those who use it, for tests of the judge. */
enum cut_planted {
	CUT_SOUND,
	CUT_IGNORES_FLUSH,
	CUT_ENDS_EARLY,		/* a write is complete before it is there */
	CUT_TEARS,		/* half a block */
	CUT_ROUNDS_SIZES,	/* the file grows to whole blocks first */
};

struct mkw__store *cut_open(uint64_t len, uint64_t len_max,
			    enum cut_planted planted);
/* What a cut leaves; image has len_max bytes. Its size. */
uint64_t cut_image(struct mkw__store *st, uint64_t *random, void *image);

#endif /* CRASH_CUT_H */
