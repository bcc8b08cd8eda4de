/* SPDX-License-Identifier: MIT */
/*
 * target_kernel.c: the kernel's own file system at a directory, reached by a
 * shared mapping, by a descriptor, and by a second one with O_DIRECT.
 *
 * Each thread has a ring and a scratch file of its own, made when it first wants
 * them, for the less usual ways of reading and writing.
 *
 * The file loses its name at once, so that nothing is left behind whatever
 * becomes of the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "check/fsname.h"

#ifndef RWF_DONTCACHE		/* Linux 6.14 */
#define RWF_DONTCACHE 0x80
#endif

struct kernel {
	int fd, direct_fd;
	void *map;
	size_t len;
	char dir[4096];
	pthread_key_t lanes;
};

/* What a thread has for itself. */
struct lane {
	struct io_uring ring;
	bool ring_up;
	int scratch;		/* a file without a name, or -1 */
};

/* The smallest power of two, from 512, that a direct read takes; 0: none. */
static uint32_t find_direct_align(int fd)
{
	const size_t most = 64 * 1024;
	uint32_t align = 0;
	void *buf;

	if (posix_memalign(&buf, most, most))
		return 0;
	for (size_t len = 512; len <= most && !align; len *= 2)
		if (pread(fd, buf, len, (off_t)len) == (ssize_t)len)
			align = (uint32_t)len;
	free(buf);
	return align;
}

/* ---- ways --------------------------------------------------------------- */

static void end_thread(void *p)
{
	struct lane *lane = p;

	if (lane->ring_up)
		io_uring_queue_exit(&lane->ring);
	if (lane->scratch >= 0)
		close(lane->scratch);
	free(lane);
}

/* The calling thread's own; NULL: no memory. */
static struct lane *lane_of(struct kernel *k)
{
	struct lane *lane = pthread_getspecific(k->lanes);

	if (lane)
		return lane;
	lane = calloc(1, sizeof(*lane));
	if (!lane)
		return NULL;
	lane->ring_up = !io_uring_queue_init(1, &lane->ring, 0);
	lane->scratch = open(k->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	pthread_setspecific(k->lanes, lane);
	return lane;
}

static ssize_t by_ring(struct lane *lane, bool write, int fd, void *buf,
		       size_t len, off_t off)
{
	struct io_uring_sqe *sqe = lane->ring_up ? io_uring_get_sqe(&lane->ring) :
						   NULL;
	struct io_uring_cqe *cqe;
	int err;
	ssize_t n;

	if (!sqe)
		return -EOPNOTSUPP;
	if (write)
		io_uring_prep_write(sqe, fd, buf, (unsigned)len, (__u64)off);
	else
		io_uring_prep_read(sqe, fd, buf, (unsigned)len, (__u64)off);
	err = io_uring_submit_and_wait(&lane->ring, 1);
	if (err >= 0)
		err = io_uring_wait_cqe(&lane->ring, &cqe);
	if (err < 0)
		return err;
	n = cqe->res;
	io_uring_cqe_seen(&lane->ring, cqe);
	return n;
}

static ssize_t copy_range(int from, int to, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		off_t in = off + (off_t)done, out = in;
		ssize_t n = copy_file_range(from, &in, to, &out, len - done, 0);

		if (n < 0 && !done)
			return -errno;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* The bytes pass through a file of the thread's own, at the same offset. */
static ssize_t by_copy(struct lane *lane, bool write, int fd, void *buf,
		       size_t len, off_t off)
{
	ssize_t n;

	if (lane->scratch < 0)
		return -EOPNOTSUPP;
	if (write) {
		n = pwrite(lane->scratch, buf, len, off);
		return n == (ssize_t)len ?
			       copy_range(lane->scratch, fd, len, off) :
			       -ENOSPC;
	}
	n = copy_range(fd, lane->scratch, len, off);
	if (n > 0 && pread(lane->scratch, buf, (size_t)n, off) != n)
		return -EIO;
	return n;
}

static ssize_t transfer(struct target *t, bool write, void *buf, size_t len,
			off_t off, unsigned way)
{
	struct kernel *k = t->priv;
	int fd = way & WAY_DIRECT ? k->direct_fd : k->fd;
	int flags = (way & WAY_DSYNC ? RWF_DSYNC : 0) |
		    (way & WAY_NOWAIT ? RWF_NOWAIT : 0) |
		    (way & WAY_DONTCACHE ? RWF_DONTCACHE : 0);
	struct iovec iov = { buf, len };
	struct lane *lane;
	ssize_t n;

	if (way & (WAY_URING | WAY_COPY)) {
		lane = lane_of(k);
		if (!lane)
			return -ENOMEM;
		return way & WAY_URING ?
			       by_ring(lane, write, fd, buf, len, off) :
			       by_copy(lane, write, fd, buf, len, off);
	}
	if (flags)
		n = write ? pwritev2(fd, &iov, 1, off, flags) :
			    preadv2(fd, &iov, 1, off, flags);
	else
		n = write ? pwrite(fd, buf, len, off) :
			    pread(fd, buf, len, off);
	return n < 0 ? -errno : n;
}

static ssize_t kernel_pread(struct target *t, void *buf, size_t len,
			    off_t off, unsigned way)
{
	return transfer(t, false, buf, len, off, way);
}

static ssize_t kernel_pwrite(struct target *t, const void *buf, size_t len,
			     off_t off, unsigned way)
{
	return transfer(t, true, (void *)(uintptr_t)buf, len, off, way);
}

/* Which ways does this kernel have on this file system? */
static unsigned find_ways(struct target *t)
{
	static const unsigned all[] = { WAY_URING, WAY_DSYNC, WAY_NOWAIT,
					WAY_COPY, WAY_DONTCACHE };
	uint64_t word = 0;
	unsigned have = 0;

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		ssize_t n = transfer(t, true, &word, sizeof(word), 0, all[i]);

		if (n == (ssize_t)sizeof(word) || n == -EAGAIN)
			have |= all[i];
	}
	return have;
}

/* ---- open, close -------------------------------------------------------- */

static void kernel_close(struct target *t)
{
	struct kernel *k = t->priv;
	struct lane *lane;

	if (!k)
		return;
	if (k->map != MAP_FAILED)
		munmap(k->map, k->len);
	if (k->direct_fd >= 0)
		close(k->direct_fd);
	if (k->fd >= 0)
		close(k->fd);
	/* Other threads have ended, and this one may go on. */
	lane = pthread_getspecific(k->lanes);
	if (lane)
		end_thread(lane);
	pthread_key_delete(k->lanes);
	free(k);
	t->priv = NULL;
}

static int kernel_open(struct target *t, const struct check_config *cfg,
		       size_t len)
{
	char path[4096];
	const char *what = "make a file";
	struct kernel *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return -ENOMEM;
	*k = (struct kernel){ .fd = -1, .direct_fd = -1, .map = MAP_FAILED,
			      .len = len };
	t->priv = k;
	if (pthread_key_create(&k->lanes, end_thread)) {
		free(k);
		t->priv = NULL;
		return -EAGAIN;
	}
	snprintf(k->dir, sizeof(k->dir), "%s", cfg->dir);
	snprintf(t->label, sizeof(t->label), "kernel %s",
		 mkw__check_fsname(cfg->dir, path, sizeof(path)));
	snprintf(path, sizeof(path), "%s/.mkwrite-check-XXXXXX", cfg->dir);
	k->fd = mkostemp(path, O_CLOEXEC);
	if (k->fd < 0)
		goto fail;
	k->direct_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	err = k->direct_fd < 0 ? errno : 0;
	unlink(path);
	what = "size its file";
	if (ftruncate(k->fd, (off_t)len))
		goto fail;
	what = "map its file";
	k->map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	if (k->map == MAP_FAILED)
		goto fail;
	t->map = k->map;
	if (k->direct_fd >= 0)
		t->direct_align = find_direct_align(k->direct_fd);
	t->ways = find_ways(t);
	if (!t->direct_align)
		snprintf(t->note, sizeof(t->note),
			 "direct reads and writes skipped: no O_DIRECT here%s%s",
			 err ? ": " : "", err ? strerror(err) : "");
	return 0;

fail:
	err = errno;
	snprintf(t->error, sizeof(t->error),
		 "%.200s: cannot %s there: %s. Name a directory that you may "
		 "write to, on the file system to be checked", cfg->dir, what,
		 strerror(err));
	kernel_close(t);
	return -err;
}

/* ---- everything else ------------------------------------------------------ */

static int kernel_fallocate(struct target *t, int mode, off_t off, off_t len)
{
	struct kernel *k = t->priv;

	return fallocate(k->fd, mode, off, len) ? -errno : 0;
}

static int kernel_truncate(struct target *t, off_t size)
{
	struct kernel *k = t->priv;

	return ftruncate(k->fd, size) ? -errno : 0;
}

static int kernel_sync(struct target *t)
{
	struct kernel *k = t->priv;

	return fdatasync(k->fd) ? -errno : 0;
}

/* A race detector would take mmap() for a write of the range, and miss where it goes. */
static long raw_map(struct kernel *k, void *at, size_t len, int flags, off_t off)
{
	return syscall(SYS_mmap, at, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | flags, k->fd, off);
}

/* How long everybody else who writes has to wait. */
#define FROZEN_NS 300000

/* Only one can freeze it at a time. */
static int freeze(struct kernel *k)
{
	struct timespec ts = { 0, FROZEN_NS };

	if (ioctl(k->fd, FIFREEZE, 0))
		return errno == EBUSY ? -EOPNOTSUPP : -errno;
	nanosleep(&ts, NULL);
	while (ioctl(k->fd, FITHAW, 0))
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int kernel_map_more(struct target *t, off_t off, size_t len, void **at)
{
	long new = raw_map(t->priv, NULL, len, 0, off);

	*at = (void *)new;
	return new < 0 ? -errno : 0;
}

static int kernel_unmap(struct target *t, void *at, size_t len)
{
	(void)t;
	return syscall(SYS_munmap, at, len) ? -errno : 0;
}

static int kernel_remap(struct target *t, void *old, size_t old_len,
			size_t len, void *to, void **at)
{
	(void)t;
	*at = mremap(old, old_len, len,
		     MREMAP_MAYMOVE | (to ? MREMAP_FIXED : 0), to);
	return *at == MAP_FAILED ? -errno : 0;
}

static int kernel_protect(struct target *t, void *at, size_t len, int prot)
{
	(void)t;
	return mprotect(at, len, prot) ? -errno : 0;
}

/* MADV_POPULATE_READ is of Linux 5.14, MADV_PAGEOUT of 5.4. */
static int kernel_disturb(struct target *t, enum disturb what, off_t off,
			  size_t len)
{
	static const int advice[] = {
		[DISTURB_UNMAP] = MADV_DONTNEED,
		[DISTURB_PAGEOUT] = MADV_PAGEOUT,
		[DISTURB_POPULATE] = MADV_POPULATE_READ,
	};
	struct kernel *k = t->priv;
	char *at = (char *)k->map + off;
	void *p, *moved;
	int err;

	switch (what) {
	case DISTURB_UNMAP:
	case DISTURB_PAGEOUT:
	case DISTURB_POPULATE:
		/* A kernel that does not know it leaves it. */
		madvise(at, len, advice[what]);
		return 0;
	case DISTURB_DROP:
		return -posix_fadvise(k->fd, off, (off_t)len,
				      POSIX_FADV_DONTNEED);
	case DISTURB_READAHEAD:
		readahead(k->fd, off, len);
		return 0;
	case DISTURB_MSYNC:
		return msync(at, len, MS_SYNC) ? -errno : 0;
	case DISTURB_REMAP:
		return raw_map(k, at, len, MAP_FIXED, off) < 0 ? -errno : 0;
	case DISTURB_MOVE:
		err = kernel_map_more(t, off, len, &p);
		if (err || !kernel_remap(t, p, len, len, at, &moved))
			return err;
		kernel_unmap(t, p, len);
		return -EOPNOTSUPP;
	case DISTURB_FREEZE:
		return freeze(k);
	case DISTURBS:
		break;
	}
	return -EOPNOTSUPP;
}

static int kernel_drop(struct target *t)
{
	struct kernel *k = t->priv;

	/* Mapped pages would stay. */
	if (madvise(k->map, k->len, MADV_DONTNEED))
		return -errno;
	return -posix_fadvise(k->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int64_t kernel_blocks(struct target *t)
{
	struct kernel *k = t->priv;
	struct stat st;

	return fstat(k->fd, &st) ? -errno : (int64_t)st.st_blocks * 512;
}

static int64_t kernel_size(struct target *t)
{
	struct kernel *k = t->priv;
	struct stat st;

	return fstat(k->fd, &st) ? -errno : (int64_t)st.st_size;
}

static int64_t kernel_seek(struct target *t, off_t off, int whence)
{
	struct kernel *k = t->priv;
	off_t at = lseek(k->fd, off, whence);

	return at < 0 ? -errno : (int64_t)at;
}

static int kernel_freeze(struct target *t, bool on)
{
	struct kernel *k = t->priv;

	return ioctl(k->fd, on ? FIFREEZE : FITHAW, 0) ? -errno : 0;
}

static int kernel_fd(struct target *t)
{
	struct kernel *k = t->priv;

	return k->fd;
}

const struct target_ops mkw__check_kernel_target = {
	.name = "kernel",
	.open = kernel_open,
	.pread = kernel_pread,
	.pwrite = kernel_pwrite,
	.fallocate = kernel_fallocate,
	.truncate = kernel_truncate,
	.sync = kernel_sync,
	.close = kernel_close,
	.disturb = kernel_disturb,
	.drop = kernel_drop,
	.maps_host = true,
	.blocks = kernel_blocks,
	.size = kernel_size,
	.seek = kernel_seek,
	.map_more = kernel_map_more,
	.unmap = kernel_unmap,
	.remap = kernel_remap,
	.protect = kernel_protect,
	.freeze = kernel_freeze,
	.fd = kernel_fd,
};
