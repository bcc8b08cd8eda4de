/* SPDX-License-Identifier: MIT */
/*
 * mmu.c: userfaultfd, and the calls that change page tables through it.
 *
 * What is asked of the kernel, and what is not:
 *   required   MINOR and write protection on shared memory (Linux 5.19)
 *   asked for  EXACT_ADDRESS, POISON (6.6), where they are; SIGBUS for an mmu
 *              whose faults are served in their own thread
 *   never      EVENT_*: with them the engine's own madvise() and munmap()
 *              would wait for its own pager to read a message
 *   never      WP_UNPOPULATED: it is about anonymous memory. On shared memory
 *              UFFDIO_WRITEPROTECT leaves a marker in an empty entry with or
 *              without it
 * Whether CONTINUE takes the write-protect mode (6.4), and whether POISON works,
 * is tried on a scratch page, because kernels get features ported back. Without
 * the one the core maps in two steps (core/fault.c). Without the other a
 * poisoned page is *barred*: made PROT_NONE. An access is SIGSEGV then, which
 * trap.c turns into SIGBUS for whoever handles that; inside a system call it is
 * EFAULT either way. Healing gives the access back in one step. A barred page
 * is a piece of memory map of its own while it lasts.
 *
 * Pieces. The kernel takes these calls for one piece of memory map at a time
 * and says ENOENT where a range has two (WRITEPROTECT since 6.4 is better). An
 * application makes some by mlock(), we by barring pages. A range that is not
 * found is therefore taken page by page.
 *
 * Markers. A write-protected page of shared memory that is zapped or punched
 * leaves a marker in its entry, so that protection survives. CONTINUE and COPY
 * replace it; POISON does not and says EEXIST, so pte_poison() lifts the
 * protection first.
 *
 * Outcomes. CONTINUE and COPY act on a prefix. The kernel gives errno, and in
 * `mapped` or `copy` the bytes done, or a negative errno when none were, or
 * nothing at all when it gave up at once: 0 is put there before the call and
 * a negative number counts as 0.
 *
 * Nothing here has state after open() but the descriptor, so all of it may run
 * in any task at any time; the kernel orders calls on one page.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/linux/compat_uapi.h"
#include "os/linux/linux.h"

#define MODES_ALL                                                    \
	(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | \
	 UFFDIO_REGISTER_MODE_WP)

static const struct feature {
	uint64_t bit;
	const char *name;
	const char *since;
} required[] = {
	{ UFFD_FEATURE_MISSING_SHMEM, "MISSING faults on shared memory", "4.11" },
	{ UFFD_FEATURE_MINOR_SHMEM, "MINOR faults on shared memory", "5.14" },
	{ UFFD_FEATURE_PAGEFAULT_FLAG_WP, "write protection", "5.7" },
	{ UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "write protection on shared memory",
	  "5.19" },
};

/* ---- opening ---------------------------------------------------------- */

/* A fresh userfaultfd, or -errno. *user_only: not for faults in the kernel. */
static int new_uffd(bool *user_only)
{
	const int flags = O_CLOEXEC | O_NONBLOCK;
	int dev, fd, err;

	*user_only = false;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
		close(dev);
		if (fd >= 0)
			return fd;
	}
	fd = (int)syscall(SYS_userfaultfd, flags);
	if (fd >= 0)
		return fd;
	err = errno;
	if (err == EPERM) {
		fd = (int)syscall(SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY);
		if (fd >= 0) {
			*user_only = true;
			return fd;
		}
		err = errno;
	}
	return -err;
}

/* What the kernel has, asked on a descriptor of its own. */
static int probe_features(uint64_t *features)
{
	struct uffdio_api api = { .api = UFFD_API };
	bool user_only;
	int fd, err = 0;

	fd = new_uffd(&user_only);
	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api))
		err = -errno;
	close(fd);
	*features = api.features;
	return err;
}

static void tell_refused(int err)
{
	const char *why = strerror(-err), *todo = "";

	if (err == -ENOSYS)
		todo = "; mkwrite needs a kernel built with CONFIG_USERFAULTFD, "
		       "Linux 6.1 or newer";
	else if (err == -EPERM)
		todo = "; allow userfaultfd(2) in the seccomp or container "
		       "profile of this process";
	fprintf(stderr, "mkwrite: asked for a userfaultfd, got: %s%s\n", why,
		todo);
}

static void tell_user_only(void)
{
	static _Atomic bool told;

	if (atomic_exchange(&told, true))
		return;
	fprintf(stderr,
		"mkwrite: userfaultfd serves faults of user code only here: "
		"read(2) and the like into a mapped page that is not resident "
		"fail with EFAULT. To lift it: sysctl "
		"vm.unprivileged_userfaultfd=1, or give access to "
		"/dev/userfaultfd, or CAP_SYS_PTRACE.\n");
}

static int poison(struct mkw__os_mmu *mmu, uintptr_t addr, size_t page)
{
	struct mkw__uffdio_poison p = { .range = { .start = addr,
						   .len = page } };

	return ioctl(mmu->fd, MKW_UFFDIO_POISON, &p) ? -errno : 0;
}

static _Atomic bool old_kernel;

void mkw__os_mmu_old_kernel(bool on)
{
	atomic_store(&old_kernel, on);
}

/* Tries CONTINUE with write protection, and POISON, on pages of our own. */
static int try_modes(struct mkw__os_mmu *mmu)
{
	size_t page = mkw__os_page_size(), done;
	void *zeros = mkw__os_reserve(page);
	uintptr_t addr;
	int fd, err;

	if (!zeros)
		return -ENOMEM;
	fd = memfd_create("mkwrite-probe", MFD_CLOEXEC);
	err = fd < 0 ? -errno : 0;
	if (err)
		goto out_free;
	err = -ENOMEM;
	if (ftruncate(fd, (off_t)(2 * page)))
		goto out_close;
	err = mkw__mmu_map(mmu, fd, 0, 2 * page, MAP_SHARED, 0, MODES_ALL,
			   &addr);
	if (err)
		goto out_close;
	/* A write(2) might make a huge page. */
	do {
		err = mkw__os_pte_copy(mmu, addr, zeros, page, 0, &done);
	} while (err == -EAGAIN);
	if (!err)
		err = mkw__os_pte_zap(addr, page);
	if (err)
		goto out_unmap;
	mmu->caps.continue_wp = true;
	do {
		err = mkw__os_pte_continue(mmu, addr, page, MKW__PTE_WP, &done);
	} while (err == -EAGAIN);
	mmu->caps.continue_wp = !err;
	do {
		err = poison(mmu, addr + page, page);
	} while (err == -EAGAIN);
	mmu->poison = !err;
	if (atomic_load(&old_kernel))
		mmu->caps.continue_wp = mmu->poison = false;
	err = 0;
out_unmap:
	munmap((void *)addr, 2 * page);
out_close:
	close(fd);
out_free:
	mkw__os_unreserve(zeros, page);
	return err;
}

int mkw__os_mmu_open(bool in_thread, struct mkw__os_mmu **out,
		     struct mkw__os_mmu_caps *caps)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct mkw__os_mmu *mmu;
	uint64_t has = 0;
	bool user_only;
	int err;

	err = probe_features(&has);
	if (err) {
		tell_refused(err);
		return err;
	}
	for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
		if (has & required[i].bit) {
			api.features |= required[i].bit;
			continue;
		}
		fprintf(stderr,
			"mkwrite: asked userfaultfd for %s, which this kernel "
			"lacks; Linux %s has it\n",
			required[i].name, required[i].since);
		return -ENOSYS;
	}
	api.features |= has & (UFFD_FEATURE_EXACT_ADDRESS |
			       MKW_UFFD_FEATURE_POISON);
	if (in_thread)
		api.features |= UFFD_FEATURE_SIGBUS;

	mmu = calloc(1, sizeof(*mmu));
	if (!mmu)
		return -ENOMEM;
	mmu->in_thread = in_thread;
	mmu->fd = new_uffd(&user_only);
	if (mmu->fd < 0) {
		err = mmu->fd;
		tell_refused(err);
		goto out_free;
	}
	if (ioctl(mmu->fd, UFFDIO_API, &api)) {
		err = -errno;
		tell_refused(err);
		goto out_close;
	}
	/* In-thread, an access by the kernel has no thread to be served in. */
	mmu->caps.kernel_faults = !user_only && !in_thread;
	if (user_only && !in_thread)
		tell_user_only();
	mkw__trap_install();
	err = try_modes(mmu);
	if (err)
		goto out_close;
	mmu->caps.poison = mmu->poison;
	*caps = mmu->caps;
	*out = mmu;
	return 0;
out_close:
	close(mmu->fd);
out_free:
	free(mmu);
	return err;
}

void mkw__os_mmu_close(struct mkw__os_mmu *mmu)
{
	close(mmu->fd);
	free(mmu);
}

/* ---- mapping ---------------------------------------------------------- */

int mkw__mmu_register(struct mkw__os_mmu *mmu, void *addr, size_t len,
		      uint64_t modes)
{
	uint64_t needed = 1ull << _UFFDIO_WAKE | 1ull << _UFFDIO_COPY;
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = modes,
	};

	if (ioctl(mmu->fd, UFFDIO_REGISTER, &reg))
		return -errno;
	if (modes & UFFDIO_REGISTER_MODE_MINOR)
		needed |= 1ull << _UFFDIO_CONTINUE;
	if (modes & UFFDIO_REGISTER_MODE_WP)
		needed |= 1ull << _UFFDIO_WRITEPROTECT;
	return (reg.ioctls & needed) == needed ? 0 : -ENOSYS;
}

int mkw__mmu_map(struct mkw__os_mmu *mmu, int fd, uintptr_t hint, size_t len,
		 int mmap_flags, uint64_t off, uint64_t modes, uintptr_t *addr)
{
	void *p;
	int err;

	/* No access yet: not even mlockall() puts a frame behind our back. */
	p = mmap((void *)hint, len, PROT_NONE, mmap_flags, fd, (off_t)off);
	if (p == MAP_FAILED)
		return -errno;
	if ((mmap_flags & MAP_FIXED_NOREPLACE) && (uintptr_t)p != hint) {
		/* A kernel before 4.17 took it for a hint. */
		munmap(p, len);
		return -EEXIST;
	}
	/* NOHUGEPAGE is EINVAL where there are no huge pages to refuse. */
	if (madvise(p, len, MADV_DONTFORK) ||
	    (madvise(p, len, MADV_NOHUGEPAGE) && errno != EINVAL))
		err = -errno;
	else
		err = mkw__mmu_register(mmu, p, len, modes);
	if (!err) {
		*addr = (uintptr_t)p;
		return 0;
	}
	/*
	 * What a replacing mmap() took away is gone. Its caller still counts on
	 * the range, so nobody else may get it.
	 */
	if (!(mmap_flags & MAP_FIXED) ||
	    mmap(p, len, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		munmap(p, len);
	return err;
}

int mkw__os_map(struct mkw__os_mmu *mmu, struct mkw__os_frames *fr,
		uintptr_t hint, size_t len, unsigned flags, uint64_t off,
		uintptr_t *addr)
{
	int mmap_flags = MAP_SHARED;
	int err = mkw__frames_reach(fr, off, len);

	if (err)
		return err;
	/* Whoever took the signals since the last mapping stands behind us. */
	mkw__trap_install();
	if (flags & MKW__MAP_FIXED)
		mmap_flags |= MAP_FIXED;
	if (flags & MKW__MAP_FIXED_NOREPLACE)
		mmap_flags |= MAP_FIXED_NOREPLACE;
	return mkw__mmu_map(mmu, mkw__frames_fd(fr), hint, len, mmap_flags, off,
			    MODES_ALL, addr);
}

int mkw__os_map_enable(uintptr_t addr, size_t len, bool writable)
{
	int prot = PROT_READ | (writable ? PROT_WRITE : 0);

	return mprotect((void *)addr, len, prot) ? -errno : 0;
}

int mkw__os_map_disable(uintptr_t addr, size_t len)
{
	return mprotect((void *)addr, len, PROT_NONE) ? -errno : 0;
}

int mkw__os_unmap(uintptr_t addr, size_t len)
{
	return munmap((void *)addr, len) ? -errno : 0;
}

/* ---- page tables ------------------------------------------------------ */

static size_t progress(int64_t n)
{
	return n > 0 ? (size_t)n : 0;
}

int mkw__os_pte_continue(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len,
			 unsigned flags, size_t *done)
{
	struct uffdio_continue c = { .range = { .start = addr, .len = len } };
	int err;

	if ((flags & MKW__PTE_WP) && !mmu->caps.continue_wp)
		mkw__os_panic("asked to map a page protected, which this kernel cannot (Linux 6.4)");
	if (flags & MKW__PTE_WP)
		c.mode |= MKW_UFFDIO_CONTINUE_MODE_WP;
	if (flags & MKW__PTE_DONTWAKE)
		c.mode |= UFFDIO_CONTINUE_MODE_DONTWAKE;
	err = ioctl(mmu->fd, UFFDIO_CONTINUE, &c) ? -errno : 0;
	/* Said of bad arguments before anything, or of a page past the end. */
	if (err == -EINVAL && c.mapped == -EINVAL)
		err = -EFAULT;
	*done = progress(c.mapped);
	if (err == -ENOENT && !*done && len > mkw__os_page_size()) {
		err = mkw__os_pte_continue(mmu, addr, mkw__os_page_size(),
					   flags, done);
		return err ? err : -EAGAIN;
	}
	return err;
}

int mkw__os_pte_copy(struct mkw__os_mmu *mmu, uintptr_t addr, const void *src,
		     size_t len, unsigned flags, size_t *done)
{
	struct uffdio_copy c = {
		.dst = addr, .src = (uintptr_t)src, .len = len
	};
	int err;

	if (flags & MKW__PTE_WP)
		c.mode |= UFFDIO_COPY_MODE_WP;
	if (flags & MKW__PTE_DONTWAKE)
		c.mode |= UFFDIO_COPY_MODE_DONTWAKE;
	err = ioctl(mmu->fd, UFFDIO_COPY, &c) ? -errno : 0;
	*done = progress(c.copy);
	if (err == -ENOENT && !*done && len > mkw__os_page_size()) {
		err = mkw__os_pte_copy(mmu, addr, src, mkw__os_page_size(),
				       flags, done);
		return err ? err : -EAGAIN;
	}
	return err;
}

static int protect(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len, bool wp,
		   unsigned flags)
{
	struct uffdio_writeprotect w = { .range = { .start = addr,
						    .len = len } };

	/* Setting protection wakes nobody; with DONTWAKE it would be EINVAL. */
	if (wp)
		w.mode = UFFDIO_WRITEPROTECT_MODE_WP;
	else if (flags & MKW__PTE_DONTWAKE)
		w.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
	return ioctl(mmu->fd, UFFDIO_WRITEPROTECT, &w) ? -errno : 0;
}

int mkw__os_pte_protect(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len,
			bool wp, unsigned flags)
{
	size_t page = mkw__os_page_size();
	int err = protect(mmu, addr, len, wp, flags), one;

	if (err != -ENOENT)
		return err;
	for (size_t at = 0; at < len; at += page) {
		one = protect(mmu, addr + at, page, wp, flags);
		if (one && one != -ENOENT)
			return one;
		err = one ? err : 0;
	}
	return err;
}

static _Atomic bool bars_pages;

bool mkw__mmu_bars_pages(void)
{
	return atomic_load(&bars_pages);
}

static int bar(struct mkw__os_mmu *mmu, uintptr_t addr, size_t page)
{
	int err;

	atomic_store(&bars_pages, true);
	err = mkw__os_pte_zap(addr, page);
	if (!err && mprotect((void *)addr, page, PROT_NONE))
		err = -errno;
	if (!err)
		mkw__os_wake(mmu, addr, page);
	return err;
}

int mkw__os_pte_poison(struct mkw__os_mmu *mmu, uintptr_t addr)
{
	size_t page = mkw__os_page_size();
	int err;

	if (!mmu->poison)
		return bar(mmu, addr, page);
	err = poison(mmu, addr, page);
	if (err != -EEXIST)
		return err;
	/*
	 * The entry holds a page, poison, or a marker. Zap removes the first
	 * two and may leave the third.
	 */
	err = mkw__os_pte_zap(addr, page);
	if (!err)
		err = mkw__os_pte_protect(mmu, addr, page, false,
					  MKW__PTE_DONTWAKE);
	return err ? err : poison(mmu, addr, page);
}

int mkw__os_pte_heal(uintptr_t addr, size_t len, bool writable)
{
	int err = 0;

	if (mkw__mmu_bars_pages())
		err = mkw__os_map_enable(addr, len, writable);
	return err ? err : mkw__os_pte_zap(addr, len);
}

int mkw__os_pte_zap(uintptr_t addr, size_t len)
{
	if (!madvise((void *)addr, len, MADV_DONTNEED))
		return 0;
	/* EINVAL: the application has locked its memory. */
	if (errno == EINVAL &&
	    !madvise((void *)addr, len, MKW_MADV_DONTNEED_LOCKED))
		return 0;
	return -errno;
}

void mkw__os_wake(struct mkw__os_mmu *mmu, uintptr_t addr, size_t len)
{
	struct uffdio_range r = { .start = addr, .len = len };

	if (ioctl(mmu->fd, UFFDIO_WAKE, &r))
		mkw__os_panic("UFFDIO_WAKE of %zu bytes at %p: %s. Somebody "
			      "sleeps there for ever",
			      len, (void *)addr, strerror(errno));
}
