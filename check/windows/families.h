/* SPDX-License-Identifier: MIT */
/*
 * families.h: the functions of windows, and which of a family is meant
 * (window->arg).
 */
#ifndef MKW_CHECK_FAMILIES_H
#define MKW_CHECK_FAMILIES_H

#include "check/windows/window.h"

enum { DIRECT_WRITE_IN_RANGE, DIRECT_WRITE_SECTOR, DIRECT_WRITE_NEXT,
       DIRECT_WRITE_LOAD, DIRECT_WRITE_MSYNC };
void mkw__win_direct_write(struct stage *s);

enum { BUFFERED_WRITE_READ, BUFFERED_WRITE_COPY, BUFFERED_READ_HELD };
void mkw__win_buffered(struct stage *s);

enum { DIRECT_READ_STORE, DIRECT_READ_STORE_HOLE, DIRECT_READ_PUNCH,
       DIRECT_READ_TRUNCATE };
void mkw__win_direct_read(struct stage *s);

enum { PAST_END_TRUNCATE, PAST_END_WRITE, PAST_END_DIRECT_WRITE,
       PAST_END_ALLOCATE };
void mkw__win_past_end(struct stage *s);

/* Bits. */
enum { SELF_READ = 0, SELF_WRITE = 1, SELF_DIRECT = 2, SELF_PAGE = 4,
       SELF_WORD = 8 };
void mkw__win_self(struct stage *s);
void mkw__win_cross(struct stage *s);

enum { TAKE_PUNCH, TAKE_ZERO, TAKE_COLLAPSE, TAKE_INSERT, TAKE_TRUNCATE,
       TAKE_MASK = 7, TAKE_PARKED = 8 };
void mkw__win_taking(struct stage *s);

void mkw__win_freeze(struct stage *s);

#endif /* MKW_CHECK_FAMILIES_H */
