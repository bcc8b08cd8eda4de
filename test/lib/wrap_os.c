/* SPDX-License-Identifier: MIT */
/*
 * wrap_os.c: calls of os.h that can fail (fault.h), put in the way by the linker
 * (--wrap), so that the engine's sources know nothing of it; and a count of
 * what was allocated and not given back.
 *
 * Only failures that the system really has: making frames longer may fail, making
 * them shorter not; what os.h bounds (-EAGAIN) is not made to last.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "lib/fault.h"
#include "lib/wrap_os.h"
#include "os/linux/linux.h"

#define REAL(fn) __real_##fn
#define WRAP(fn) __wrap_##fn

/* __wrap_ and __real_ are the linker's names. */
void *REAL(mkw__os_zalloc)(size_t len);
void *WRAP(mkw__os_zalloc)(size_t len);
void REAL(mkw__os_free)(void *p);
void WRAP(mkw__os_free)(void *p);
void *REAL(mkw__os_reserve)(size_t len);
void *WRAP(mkw__os_reserve)(size_t len);
void *REAL(mkw__os_reserve_io)(size_t len);
void *WRAP(mkw__os_reserve_io)(size_t len);
void REAL(mkw__os_unreserve)(void *p, size_t len);
void WRAP(mkw__os_unreserve)(void *p, size_t len);
int REAL(mkw__os_frames_create)(struct mkw__os_mmu *, struct mkw__os_frames **);
int WRAP(mkw__os_frames_create)(struct mkw__os_mmu *, struct mkw__os_frames **);
int REAL(mkw__os_frames_resize)(struct mkw__os_frames *, uint64_t);
int WRAP(mkw__os_frames_resize)(struct mkw__os_frames *, uint64_t);
int REAL(mkw__os_frames_publish)(struct mkw__os_frames *, uint64_t,
				 const void *, size_t, size_t *);
int WRAP(mkw__os_frames_publish)(struct mkw__os_frames *, uint64_t,
				 const void *, size_t, size_t *);
int REAL(mkw__os_pte_continue)(struct mkw__os_mmu *, uintptr_t, size_t,
			       unsigned, size_t *);
int WRAP(mkw__os_pte_continue)(struct mkw__os_mmu *, uintptr_t, size_t,
			       unsigned, size_t *);
int REAL(mkw__os_pte_copy)(struct mkw__os_mmu *, uintptr_t, const void *,
			   size_t, unsigned, size_t *);
int WRAP(mkw__os_pte_copy)(struct mkw__os_mmu *, uintptr_t, const void *,
			   size_t, unsigned, size_t *);
int REAL(mkw__os_pte_protect)(struct mkw__os_mmu *, uintptr_t, size_t, bool,
			      unsigned);
int WRAP(mkw__os_pte_protect)(struct mkw__os_mmu *, uintptr_t, size_t, bool,
			      unsigned);
int REAL(mkw__os_map)(struct mkw__os_mmu *, struct mkw__os_frames *, uintptr_t,
		      size_t, unsigned, uint64_t, uintptr_t *);
int WRAP(mkw__os_map)(struct mkw__os_mmu *, struct mkw__os_frames *, uintptr_t,
		      size_t, unsigned, uint64_t, uintptr_t *);
int REAL(mkw__os_map_enable)(uintptr_t, size_t, bool);
int WRAP(mkw__os_map_enable)(uintptr_t, size_t, bool);
int REAL(mkw__os_mmu_open)(bool, struct mkw__os_mmu **, struct mkw__os_mmu_caps *);
int WRAP(mkw__os_mmu_open)(bool, struct mkw__os_mmu **, struct mkw__os_mmu_caps *);
int REAL(mkw__os_loop_create)(unsigned, struct mkw__os_loop **);
int WRAP(mkw__os_loop_create)(unsigned, struct mkw__os_loop **);
int REAL(mkw__os_flag_create)(struct mkw__os_flag **);
int WRAP(mkw__os_flag_create)(struct mkw__os_flag **);
int REAL(mkw__os_thread_start)(struct mkw__os_thread **, const char *,
			       void (*)(void *), void *);
int WRAP(mkw__os_thread_start)(struct mkw__os_thread **, const char *,
			       void (*)(void *), void *);

/* ---- memory ----------------------------------------------------------- */

static _Atomic int64_t live;

int64_t wrap_os_live(void)
{
	return atomic_load(&live);
}

static void *counted(void *p)
{
	if (p)
		atomic_fetch_add(&live, 1);
	return p;
}

void *WRAP(mkw__os_zalloc)(size_t len)
{
	return fault_at(FAULT_MEMORY) ? NULL :
					counted(REAL(mkw__os_zalloc)(len));
}

void WRAP(mkw__os_free)(void *p)
{
	if (p)
		atomic_fetch_sub(&live, 1);
	REAL(mkw__os_free)(p);
}

void *WRAP(mkw__os_reserve)(size_t len)
{
	return fault_at(FAULT_MEMORY) ? NULL :
					counted(REAL(mkw__os_reserve)(len));
}

void *WRAP(mkw__os_reserve_io)(size_t len)
{
	return fault_at(FAULT_MEMORY) ? NULL :
					counted(REAL(mkw__os_reserve_io)(len));
}

void WRAP(mkw__os_unreserve)(void *p, size_t len)
{
	if (p)
		atomic_fetch_sub(&live, 1);
	REAL(mkw__os_unreserve)(p, len);
}

/* ---- frames and page tables ------------------------------------------- */

int WRAP(mkw__os_frames_create)(struct mkw__os_mmu *mmu,
				struct mkw__os_frames **out)
{
	int r = fault_at(FAULT_FRAMES);

	return r ? r : REAL(mkw__os_frames_create)(mmu, out);
}

int WRAP(mkw__os_frames_resize)(struct mkw__os_frames *fr, uint64_t len)
{
	struct stat sb;
	int r = 0;

	if (!fstat(mkw__frames_fd(fr), &sb) && len > (uint64_t)sb.st_size)
		r = fault_at(FAULT_FRAMES);
	return r ? r : REAL(mkw__os_frames_resize)(fr, len);
}

int WRAP(mkw__os_frames_publish)(struct mkw__os_frames *fr, uint64_t off,
				 const void *src, size_t len, size_t *done)
{
	int r = fault_at(FAULT_PAGE_TABLE);

	if (!r)
		return REAL(mkw__os_frames_publish)(fr, off, src, len, done);
	*done = 0;
	return r;
}

int WRAP(mkw__os_pte_continue)(struct mkw__os_mmu *mmu, uintptr_t addr,
			       size_t len, unsigned flags, size_t *done)
{
	int r = fault_at(FAULT_PAGE_TABLE);

	if (!r)
		return REAL(mkw__os_pte_continue)(mmu, addr, len, flags, done);
	*done = 0;
	return r;
}

int WRAP(mkw__os_pte_copy)(struct mkw__os_mmu *mmu, uintptr_t addr,
			   const void *src, size_t len, unsigned flags,
			   size_t *done)
{
	int r = fault_at(FAULT_PAGE_TABLE);

	if (!r)
		return REAL(mkw__os_pte_copy)(mmu, addr, src, len, flags, done);
	*done = 0;
	return r;
}

int WRAP(mkw__os_pte_protect)(struct mkw__os_mmu *mmu, uintptr_t addr,
			      size_t len, bool wp, unsigned flags)
{
	int r = fault_at(FAULT_PAGE_TABLE);

	return r ? r : REAL(mkw__os_pte_protect)(mmu, addr, len, wp, flags);
}

/* ---- mappings, loops, threads ----------------------------------------- */

int WRAP(mkw__os_map)(struct mkw__os_mmu *mmu, struct mkw__os_frames *fr,
		      uintptr_t hint, size_t len, unsigned flags, uint64_t off,
		      uintptr_t *addr)
{
	int r = fault_at(FAULT_MAP);

	return r ? r : REAL(mkw__os_map)(mmu, fr, hint, len, flags, off, addr);
}

int WRAP(mkw__os_map_enable)(uintptr_t addr, size_t len, bool writable)
{
	int r = fault_at(FAULT_MAP);

	return r ? r : REAL(mkw__os_map_enable)(addr, len, writable);
}

int WRAP(mkw__os_mmu_open)(bool in_thread, struct mkw__os_mmu **out,
			   struct mkw__os_mmu_caps *caps)
{
	int r = fault_at(FAULT_LOOP);

	return r ? r : REAL(mkw__os_mmu_open)(in_thread, out, caps);
}

int WRAP(mkw__os_loop_create)(unsigned depth, struct mkw__os_loop **out)
{
	int r = fault_at(FAULT_LOOP);

	return r ? r : REAL(mkw__os_loop_create)(depth, out);
}

int WRAP(mkw__os_flag_create)(struct mkw__os_flag **out)
{
	int r = fault_at(FAULT_LOOP);

	return r ? r : REAL(mkw__os_flag_create)(out);
}

int WRAP(mkw__os_thread_start)(struct mkw__os_thread **out, const char *name,
			       void (*fn)(void *arg), void *arg)
{
	int r = fault_at(FAULT_LOOP);

	return r ? r : REAL(mkw__os_thread_start)(out, name, fn, arg);
}
