/* SPDX-License-Identifier: MIT */
/*
 * The switches of the testing build (testing.h); empty in the library.
 */
#include <string.h>

#include "core/testing.h"

#ifdef MKW_TESTING

struct mkw__testing mkw__testing;

int mkw__mutant_find(const char *name)
{
	static const char *const names[] = {
#define MKW_MUTANT(name, breaks) #name,
#include "core/mutants.def"
#undef MKW_MUTANT
	};

	for (int i = 0; i < MKW__MUTANT_COUNT; i++)
		if (!strcmp(name, names[i]))
			return i;
	return -1;
}

#endif
