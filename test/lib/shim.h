/* SPDX-License-Identifier: MIT */
/*
 * shim.h: a store around a store, whose calls can fail (fault.h).
 *
 * A failing write, punch or zero does nothing, half or all of its range first, as
 * the plan says: mkwrite/store.h allows each. Any other failing call does nothing.
 */
#ifndef TEST_SHIM_H
#define TEST_SHIM_H

#include <stdatomic.h>

#include "store/store.h"

struct shim {
	struct mkw__store *st;
	struct mkw__store *below;
	_Atomic uint64_t len;		/* what resize() last made it */
};

/*
 * Wraps a store, which the shim closes with itself. NULL: no memory. The shim is
 * shim->st to the engine, and goes away with the engine's close() of it, unless
 * shim_keep() was called: then it and the store below stay, to be looked at, until
 * shim_release().
 */
struct shim *shim_wrap(struct mkw__store *below);
void shim_keep(struct shim *s);
void shim_release(struct shim *s);

#endif /* TEST_SHIM_H */
