/* SPDX-License-Identifier: MIT */
/*
 * probe.h: static probes (USDT), provider `mkwrite`; mkwrite(7) lists them.
 *
 * A probe is one nop, and a note in the object that says where its arguments are;
 * perf, bpftrace and systemtap put a breakpoint there when somebody asks. It calls
 * nothing, so core stays what it is. They are in the library where <sys/sdt.h> was
 * there to build it (MKW_PROBES); simulator and tests have none.
 *
 * Arguments are what is at hand: a probe computes nothing.
 */
#ifndef MKW_PROBE_H
#define MKW_PROBE_H

/* Why a fault parks: fault_park's third argument. */
enum mkw__park {
	MKW__PARK_LOCK,		/* the fault lock of its range */
	MKW__PARK_PAGE,		/* somebody has the page locked, or fills it */
	MKW__PARK_MEMORY,	/* a frame, a leaf or a buffer */
	MKW__PARK_DIRTY,	/* too many pages are dirty */
	MKW__PARK_FILL,		/* its own read */
	MKW__PARK_SPACE,	/* blocks for a store */
};

#ifdef MKW_PROBES
#include <sys/sdt.h>
#define MKW__PROBE3(name, a, b, c) DTRACE_PROBE3(mkwrite, name, a, b, c)
#define MKW__PROBE4(name, a, b, c, d) DTRACE_PROBE4(mkwrite, name, a, b, c, d)
#else
#define MKW__PROBE3(name, a, b, c)                     \
	do {                                           \
		(void)(a), (void)(b), (void)(c);       \
	} while (0)
#define MKW__PROBE4(name, a, b, c, d)                  \
	do {                                           \
		(void)(a), (void)(b), (void)(c), (void)(d); \
	} while (0)
#endif

#endif /* MKW_PROBE_H */
