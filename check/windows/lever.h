/* SPDX-License-Identifier: MIT */
/*
 * lever.h: memory that holds whoever touches it, also inside of a system call.
 *
 * One page of it is missing, and registered with userfaultfd, or, where one may not
 * have that, mapped from a file that is served by FUSE (served.h): a read, write or
 * direct I/O that is given the memory as its buffer goes as far as that page, and
 * there it stays, with all the locks it holds, until the page is supplied. The
 * other pages are there from the start.
 *
 * For use by one thread, but for the touching.
 */
#ifndef MKW_CHECK_LEVER_H
#define MKW_CHECK_LEVER_H

#include <stdbool.h>
#include <stddef.h>

struct lever {
	int fd;			/* a userfaultfd, or -1: the served file */
	int stop[2];		/* a pipe: see mkw__lever_cancel() */
	char *buf;
	size_t len, page;
	size_t hold;		/* offset of the missing page */
	char *content;		/* of buf: what it is supplied with */
};

/*
 * Is there userfaultfd for faults inside of system calls? 0 or a negative errno, with
 * the reason and what to do about it in why.
 */
int mkw__lever_probe(char *why, size_t size);
/*
 * Gets ready for levers: where there is no userfaultfd, or it is not to be used
 * (by_file), serves a file. To be called before the processes start that use them.
 * 0, or -1 and why.
 */
int mkw__lever_prepare(bool by_file, char *why, size_t size);
/* Undoes it. */
void mkw__lever_finish(void);
/* Lets all go that are held by the served file. */
void mkw__lever_let_go(void);
/*
 * A userfaultfd that is told of faults inside of system calls, too; it does not
 * block. Or a negative errno.
 */
int mkw__lever_uffd(void);
/*
 * len, a multiple of the page, bytes of content (copied), of which the page
 * that holds the byte at hold is missing. 0 or a negative errno.
 */
int mkw__lever_open(struct lever *lv, const void *content, size_t len,
		    size_t hold);
/* Waits until somebody is held (true), or mkw__lever_cancel() (false). */
bool mkw__lever_wait(struct lever *lv);
/* Ends the wait, from any thread, now and for ever. */
void mkw__lever_cancel(struct lever *lv);
/* Supplies the page. */
void mkw__lever_release(struct lever *lv);
/* The memory of a lever that was released may still be used after this. */
void mkw__lever_close(struct lever *lv);

#endif /* MKW_CHECK_LEVER_H */
