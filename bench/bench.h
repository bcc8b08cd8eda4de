/* SPDX-License-Identifier: MIT */
/*
 * bench.h: `mkwrite bench`, the engine's mappings timed against the kernel's.
 */
#ifndef MKW_BENCH_H
#define MKW_BENCH_H

/*
 * The command, argv[0] being its name for messages. Returns the exit status: 0
 * when everything was measured, 1 when something read wrong bytes or failed,
 * 2 for wrong usage or a machine that cannot do it.
 */
int mkw__bench_main(int argc, char **argv);

#endif /* MKW_BENCH_H */
