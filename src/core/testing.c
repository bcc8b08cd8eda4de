/* SPDX-License-Identifier: MIT */
/*
 * The switches of the testing build (testing.h); empty in the library.
 */
#include <string.h>

#include "core/testing.h"

#ifdef MKW_TESTING

struct mkw__testing mkw__testing;

enum mkw__mutant mkw__mutant_find(const char *name)
{
	static const char *const names[MKW__MUTANT_COUNT] = {
		"",
#define MKW_MUTANT(name, breaks) #name,
#include "core/mutants.def"
#undef MKW_MUTANT
	};

	for (unsigned i = 1; i < MKW__MUTANT_COUNT; i++)
		if (!strcmp(name, names[i]))
			return i;
	return MKW__MUTANT_NONE;
}

#endif
