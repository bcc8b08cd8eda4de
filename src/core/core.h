/* SPDX-License-Identifier: MIT */
/*
 * core.h: what the layers above core (api, simulator, tests) may call beside
 * the public functions themselves.
 */
#ifndef MKW_CORE_H
#define MKW_CORE_H

#include "mkwrite/mkwrite.h"
#include "store/store.h"

/* As the public functions, the options being valid and complete. */
int mkw__engine_open(const struct mkw_engine_options *opt,
		     struct mkw_engine **out);
int mkw__engine_close(struct mkw_engine *engine);
void mkw__engine_stats(struct mkw_engine *engine, struct mkw_stats *st);

/*
 * Opens a file on a store of any kind. The store is consumed: closed on error,
 * and when the last handle and mapping are gone; or at once when the engine has
 * an inode of the same dev and ino, which then serves. writable: as O_RDWR.
 * -EBUSY, -EACCES, -ENOMEM as mkw_file_open().
 */
int mkw__file_attach(struct mkw_engine *engine, struct mkw__store *st,
		     bool writable, struct mkw_file **out);

/*
 * Walks everything that an idle engine holds and panics on a contradiction
 * (a dirty page without a frame, a lock that nobody can hold, a count that does
 * not add up). The caller sees to it that no operation runs.
 */
void mkw__engine_verify(struct mkw_engine *engine);

#endif /* MKW_CORE_H */
