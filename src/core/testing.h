/* SPDX-License-Identifier: MIT */
/*
 * testing.h: what only the second build of core has (MKW_TESTING), the one that
 * the simulator and the tests link: the policy `none`, R0 switched off, mutants
 * (planted bugs, by name) and forced retries. In the library each of these is
 * the constant 0, so that no trace of them is in a release.
 */
#ifndef MKW_TESTING_H
#define MKW_TESTING_H

#include <stdbool.h>
#include <stdint.h>

enum mkw__mutant {
	MKW__MUTANT_NONE,
#define MKW_MUTANT(name, breaks) MKW__MUTANT_##name,
#include "core/mutants.def"
#undef MKW_MUTANT
	MKW__MUTANT_COUNT
};

#ifdef MKW_TESTING
struct mkw__testing {
	bool policy_none;	/* faults take no lock: the kernel of 2012 */
	bool r0_off;		/* copy to mapped buffers under the lock */
	enum mkw__mutant mutant;	/* the one that is planted */
	_Atomic uint32_t bare_wakes;	/* faults to wake unresolved, counted down */
	unsigned chunk_pages;	/* of reserve.c, at most 256; 0: about a MiB */
	uint64_t cache_frames;	/* the cache's size, for tiny ones; 0: as asked */
	_Atomic uint64_t glances; /* reads that took no lock */
	uint64_t dirty_pages;	/* beyond which writers wait; 0: as it is */
};
extern struct mkw__testing mkw__testing;
/* The mutant of this name, or MKW__MUTANT_NONE; for command lines. */
enum mkw__mutant mkw__mutant_find(const char *name);
#define MKW__TEST(field) (mkw__testing.field)
#define MKW__MUTANT(name) (mkw__testing.mutant == MKW__MUTANT_##name)
#else
#define MKW__TEST(field) 0
#define MKW__MUTANT(name) 0
#endif

#endif /* MKW_TESTING_H */
