/* SPDX-License-Identifier: MIT */
/*
 * compat_uapi.h: what the kernel's interface has and the headers that we may
 * be built against do not. Debian 12 carries those of Linux 6.1; the calls
 * are probed for at run time, so that only their numbers are needed here.
 *
 * Everything has a name of our own (MKW_*, struct mkw__*), because a newer
 * header would define the kernel's.
 */
#ifndef MKW_COMPAT_UAPI_H
#define MKW_COMPAT_UAPI_H

#include <linux/types.h>
#include <linux/userfaultfd.h>

/* 6.4: a mode of UFFDIO_CONTINUE. */
#define MKW_UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)

/* 6.6: accesses of a page raise SIGBUS. */
struct mkw__uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define MKW_UFFD_FEATURE_POISON ((__u64)1 << 14)
#define MKW_UFFDIO_POISON_BIT	0x08
#define MKW_UFFDIO_POISON \
	_IOWR(UFFDIO, MKW_UFFDIO_POISON_BIT, struct mkw__uffdio_poison)

/* 5.18: MADV_DONTNEED of mlocked memory too. */
#define MKW_MADV_DONTNEED_LOCKED 24

/* 6.3: a memfd that can never be executed. Older kernels say EINVAL. */
#define MKW_MFD_NOEXEC_SEAL 0x0008U

#endif /* MKW_COMPAT_UAPI_H */
