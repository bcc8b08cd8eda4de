/* SPDX-License-Identifier: MIT */
/*
 * api.h: what the files of src/api share among themselves.
 */
#ifndef MKW_API_API_H
#define MKW_API_API_H

#include "mkwrite/mkwrite.h"

/* mkw_pwritev(); with MKW_APPEND *off is where the bytes went. */
ssize_t mkw__api_pwritev(struct mkw_file *file, const struct iovec *iov, int n,
			 off_t *off, unsigned flags);

#endif /* MKW_API_API_H */
