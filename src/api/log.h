/* SPDX-License-Identifier: MIT */
/*
 * log.h: the public side of the log.
 */
#ifndef MKW_API_LOG_H
#define MKW_API_LOG_H

#include "core/engine.h"

/* Starts it, where the options or the environment want one. */
int mkw__log_open(struct mkw_engine *e, const struct mkw_engine_options *o);
/* Says how a file was opened. */
void mkw__log_file(const struct mkw_file *file);
/* A record in words. */
void mkw__log_format(const struct mkw__log_record *r, char *buf, size_t size);

#endif /* MKW_API_LOG_H */
