/* SPDX-License-Identifier: MIT */
/*
 * served.h: a file that is served by a process of ours, by FUSE, and of which a
 * read or write can be held: whoever waits for it stays where it is, with all the
 * locks it has.
 */
#ifndef MKW_CHECK_SERVED_H
#define MKW_CHECK_SERVED_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Shared with the server. */
struct slow_gate {
	_Atomic uint64_t word;	/* hold what has it; 0: none */
	_Atomic int write;	/* in a write rather than a read */
	_Atomic uint64_t offset;	/* hold the read of this byte; plus 1 */
	sem_t held;		/* posted when one is held */
	sem_t go;		/* post it to let all go that are held */
	int pipe[2];		/* and a byte comes here; it does not block */
};

struct served {
	char path[256];		/* of the file */
	struct slow_gate *gate;
	pid_t server;
};

/*
 * Serves what is in the image (a descriptor, which may be closed). 0, or -1 and why;
 * then, too, stop it.
 */
int mkw__served_start(struct served *sv, int image, char *why, size_t size);
/* Answers whatever is held, and holds nothing any more. */
void mkw__served_let_go(struct served *sv);
/* Ends the server. Nothing may be mounted on the file. */
void mkw__served_stop(struct served *sv);

#endif /* MKW_CHECK_SERVED_H */
