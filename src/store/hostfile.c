/* SPDX-License-Identifier: MIT */
/*
 * hostfile.c: a file of the host as a store.
 *
 * Two descriptors of the same file. `fd` goes through the kernel's page cache
 * and is always there; it carries everything that is no read or write.
 * `direct_fd` has O_DIRECT, where the file system gives it, moves all that is
 * aligned, and carries the flock.
 *
 * What is not aligned: the end of the file inside its last block is
 * written by `fd`. (By O_DIRECT the write would have to cover the whole block,
 * and so set a length nobody set.) An unaligned buffer goes through an aligned
 * copy. A transfer that O_DIRECT refuses all the same is made by `fd`.
 *
 * The kernel keeps the two ways coherent as long as they are not at work on one
 * folio of its cache at once; else a direct write succeeds, leaves the cache stale,
 * and makes a later fdatasync() say EIO. The engine sees to it that two writes are
 * not at work on one page. So there must be no larger folios in the kernel's cache:
 * it is emptied first, and `fd` writes the last block alone, and reads nothing
 * ahead. (Others may still read the file meanwhile, by read(2).)
 *
 * The descriptors are open file descriptions of our own, also where the caller
 * gave an open file: flock(2) belongs to the description, and O_DIRECT too.
 *
 * A store is not changed after open; every call may run in any task. lseek()
 * moves a file position that nothing uses.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/store.h"

/* Linux 6.1; the C library's struct statx may not name the fields yet. */
#define DIOALIGN_MASK	   0x2000U
#define DIOALIGN_MEM_AT	   0x98
#define DIOALIGN_OFFSET_AT 0x9c

/* A copy for an unaligned buffer is at most this long. */
#define BOUNCE_BYTES ((size_t)1 << 20)

struct hostfile {
	int fd;
	int direct_fd;		/* -1: none */
	uint32_t align, memory_align;	/* of what goes by direct_fd */
};

/* ---- transfers -------------------------------------------------------- */

static bool aligned(uint64_t x, uint32_t to)
{
	return x % to == 0;
}

/* One system call on one of the descriptors. */
static ssize_t transfer(int fd, bool write, uint64_t off, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = write ? pwrite(fd, buf, len, (off_t)off)
			  : pread(fd, buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* By O_DIRECT through an aligned copy; what of len is done is cut short. */
static ssize_t transfer_bounced(const struct hostfile *h, bool write, uint64_t off,
				void *buf, size_t len)
{
	size_t size = len < BOUNCE_BYTES ? len : BOUNCE_BYTES;
	void *copy = mkw__os_reserve(size);
	ssize_t n = 0;

	if (!copy)
		return -ENOMEM;
	if (write)
		n = mkw__os_user_read(copy, buf, size);
	if (!n)
		n = transfer(h->direct_fd, write, off, copy, size);
	if (n > 0 && !write) {
		int err = mkw__os_user_write(buf, copy, (size_t)n);

		if (err)
			n = err;
	}
	mkw__os_unreserve(copy, size);
	return n;
}

/* Some of the bytes, at least one: the best way that is open to them. */
static ssize_t transfer_some(const struct hostfile *h, bool write, uint64_t off,
			     void *buf, size_t len)
{
	size_t whole = len - len % h->align;
	ssize_t n = -EINVAL;

	if (h->direct_fd >= 0 && whole && aligned(off, h->align)) {
		if (aligned((uintptr_t)buf, h->memory_align))
			n = transfer(h->direct_fd, write, off, buf, whole);
		else
			n = transfer_bounced(h, write, off, buf, whole);
		if (n != -EINVAL && n != -ENOMEM)
			return n;
	}
	return transfer(h->fd, write, off, buf, len);
}

/* The kernel could not do it by the descriptor that was tried first. */
static void refused(struct mkw_io *io, int error)
{
	int fd = (int)io->own[0];

	if (error == -EINVAL && fd >= 0) {
		io->own[0] = (uint64_t)-1;
		mkw_io_transfer(io, fd, io->len, refused);
	} else {
		mkw_io_done(io, error);
	}
}

/*
 * By the loop: what is left of io, or its aligned part. The end of the file inside
 * its last block is asked for anew.
 */
static void transfer_later(struct hostfile *h, struct mkw_io *io)
{
	uint64_t whole = io->len - io->len % h->align;
	bool direct = h->direct_fd >= 0 && whole && aligned(io->off, h->align) &&
		      aligned((uintptr_t)io->buf, h->memory_align);

	io->own[0] = direct ? (uint64_t)h->fd : (uint64_t)-1;
	mkw_io_transfer(io, direct ? h->direct_fd : h->fd,
			direct ? whole : io->len, refused);
}

static void move(void *arg, struct mkw_io *io, bool write)
{
	if (io->flags & MKW_IO_MAY_BLOCK)
		mkw_io_done(io, transfer_some(arg, write, io->off, io->buf,
					      io->len));
	else
		transfer_later(arg, io);
}

static void read_file(void *arg, struct mkw_io *io)
{
	move(arg, io, false);
}

static void write_file(void *arg, struct mkw_io *io)
{
	move(arg, io, true);
}

/* ---- the file as a whole ---------------------------------------------- */

/* As far as it goes: what others read or wrote, in folios of any size. */
static void empty_kernel_cache(int fd)
{
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE |
					  SYNC_FILE_RANGE_WRITE |
					  SYNC_FILE_RANGE_WAIT_AFTER);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/*
 * The lock is on the description that asynchronous writes go through: the kernel
 * ends those of a killed process after the process, and whoever has the file next
 * must not get it before.
 */
static int owner(const struct hostfile *h)
{
	return h->direct_fd >= 0 ? h->direct_fd : h->fd;
}

static int own(void *arg, int writable, uint64_t *len)
{
	int how = (writable ? LOCK_EX : LOCK_SH) | LOCK_NB;
	struct hostfile *h = arg;
	struct stat now;

	while (flock(owner(h), how)) {
		if (errno == EWOULDBLOCK)
			return -EBUSY;
		if (errno != EINTR)
			return -errno;
	}
	/* Whoever had it before may have changed its length since open(). */
	if (fstat(h->fd, &now))
		return -errno;
	*len = (uint64_t)now.st_size;
	if (h->direct_fd >= 0)
		empty_kernel_cache(h->fd);
	return 0;
}

static void flush(void *arg, struct mkw_io *io)
{
	struct hostfile *h = arg;

	mkw_io_done(io, fdatasync(h->fd) ? -errno : 0);
}

static int length(void *arg, uint64_t *len)
{
	struct hostfile *h = arg;
	struct stat now;

	if (fstat(h->fd, &now))
		return -errno;
	*len = (uint64_t)now.st_size;
	return 0;
}

static void resize(void *arg, struct mkw_io *io)
{
	struct hostfile *h = arg;
	int r;

	do {
		r = ftruncate(h->fd, (off_t)io->len) ? -errno : 0;
	} while (r == -EINTR);
	mkw_io_done(io, r);
}

static void change(struct hostfile *h, struct mkw_io *io, int mode)
{
	int r;

	do {
		r = fallocate(h->fd, mode, (off_t)io->off, (off_t)io->len) ?
			    -errno : 0;
	} while (r == -EINTR);
	mkw_io_done(io, r == -ENOSYS ? -EOPNOTSUPP : r);
}

static void punch(void *arg, struct mkw_io *io)
{
	change(arg, io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
}

static void zero(void *arg, struct mkw_io *io)
{
	change(arg, io, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
}

static void allocate(void *arg, struct mkw_io *io)
{
	change(arg, io, FALLOC_FL_KEEP_SIZE);
}

static void collapse(void *arg, struct mkw_io *io)
{
	change(arg, io, FALLOC_FL_COLLAPSE_RANGE);
}

static void insert(void *arg, struct mkw_io *io)
{
	change(arg, io, FALLOC_FL_INSERT_RANGE);
}

/* Extents that are asked for at once. */
#define EXTENTS 8

static int blocks(void *arg, uint64_t off, uint64_t end,
		  struct mkw_store_run *run)
{
	struct hostfile *h = arg;
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) +
			  EXTENTS * sizeof(struct fiemap_extent)];
	} ask;
	const struct fiemap_extent *x = ask.map.fm_extents;

	memset(&ask, 0, sizeof(ask));
	ask.map.fm_start = off;
	ask.map.fm_length = end - off;
	ask.map.fm_extent_count = EXTENTS;
	if (ioctl(h->fd, FS_IOC_FIEMAP, &ask.map))
		return errno == ENOTTY ? -EOPNOTSUPP : -errno;
	for (unsigned i = 0; i < ask.map.fm_mapped_extents; i++, x++) {
		if (x->fe_logical >= end || (i && x->fe_logical != run->end))
			break;
		if (!i)
			run->off = x->fe_logical > off ? x->fe_logical : off;
		run->end = x->fe_logical + x->fe_length;
		if (x->fe_flags & FIEMAP_EXTENT_SHARED)
			run->shared = 1;
	}
	if (run->end > end)
		run->end = end;
	return 0;
}

static int64_t seek(void *arg, uint64_t off, int data)
{
	struct hostfile *h = arg;
	off_t at = lseek(h->fd, (off_t)off, data ? SEEK_DATA : SEEK_HOLE);

	return at < 0 ? -errno : at;
}

static void close_file(void *arg)
{
	struct hostfile *h = arg;

	/* A forked child may have the descriptor, too: closing frees nothing then. */
	flock(owner(h), LOCK_UN);
	if (h->direct_fd >= 0)
		close(h->direct_fd);
	close(h->fd);
	mkw__os_free(h);
}

static const struct mkw_store_ops ops = {
	MKW_STORE_OPS_INIT,
	.own = own,
	.read = read_file,
	.write = write_file,
	.flush = flush,
	.length = length,
	.resize = resize,
	.punch = punch,
	.zero = zero,
	.collapse = collapse,
	.insert = insert,
	.allocate = allocate,
	.blocks = blocks,
	.release = punch,
	.seek = seek,
	.close = close_file,
};

/* ---- opening ---------------------------------------------------------- */

/* Opens the file of another descriptor again. -errno. */
static int reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Linux has these, its headers do not. */
#define BCACHEFS_MAGIC 0xca451a4eu
#define ZFS_MAGIC      0x2fc12fc1u

/*
 * Can a write to allocated blocks be sure of its space? Not where every write goes
 * to new ones, nor where who knows which file system is below.
 */
static void can_reserve(const struct hostfile *h, struct mkw_store_info *info)
{
	struct statfs fs;
	int flags = 0;

	info->block = (uint32_t)mkw__os_page_size();
	if (fstatfs(h->fd, &fs))
		return;
	if (fs.f_bsize > 0 && fs.f_bsize < info->block)
		info->block = (uint32_t)fs.f_bsize;
	switch ((uint32_t)fs.f_type) {
	case BTRFS_SUPER_MAGIC:
		if (!ioctl(h->fd, FS_IOC_GETFLAGS, &flags) &&
		    (flags & FS_NOCOW_FL))
			info->flags |= MKW_STORE_RESERVES;
		break;
	case BCACHEFS_MAGIC:
	case ZFS_MAGIC:
	case NILFS_SUPER_MAGIC:
	case OVERLAYFS_SUPER_MAGIC:
		break;
	default:
		info->flags |= MKW_STORE_RESERVES;
	}
}

/* Memory file systems accept O_DIRECT, and copy to their page cache. */
static bool lives_in_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 &&
	       (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
		fs.f_type == HUGETLBFS_MAGIC);
}

static bool is_alignment(uint32_t n)
{
	return n && !(n & (n - 1)) && n <= mkw__os_page_size();
}

/*
 * What O_DIRECT asks of offsets and buffers, as the kernel says; where it does
 * not say, a block of the file system, which always is enough. False: there is
 * no O_DIRECT that a page could use.
 */
static bool direct_alignment(struct hostfile *h, const struct stat *sb)
{
	struct statx stx;
	uint32_t mem, off;

	memset(&stx, 0, sizeof(stx));
	if (!statx(h->fd, "", AT_EMPTY_PATH, DIOALIGN_MASK, &stx) &&
	    (stx.stx_mask & DIOALIGN_MASK)) {
		memcpy(&mem, (char *)&stx + DIOALIGN_MEM_AT, sizeof(mem));
		memcpy(&off, (char *)&stx + DIOALIGN_OFFSET_AT, sizeof(off));
	} else {
		off = (uint32_t)sb->st_blksize;
		if (!is_alignment(off))
			off = (uint32_t)mkw__os_page_size();
		mem = off;
	}
	if (!is_alignment(off) || !is_alignment(mem))
		return false;
	h->align = off;
	h->memory_align = mem;
	return true;
}

static void open_direct(struct hostfile *h, const struct stat *sb, int access)
{
	h->direct_fd = -1;
	h->align = 1;
	h->memory_align = 1;
	if (lives_in_memory(h->fd) || !direct_alignment(h, sb))
		return;
	h->direct_fd = reopen(h->fd, access | O_DIRECT);
	if (h->direct_fd < 0) {
		h->direct_fd = -1;
		h->align = 1;
		h->memory_align = 1;
	}
}

/* Makes a store of fd, which it owns then; on failure fd is closed. */
static int make_store(int fd, int access, struct mkw__store **out)
{
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct hostfile *h = NULL;
	struct stat sb;
	int err;

	if (fstat(fd, &sb)) {
		err = -errno;
		goto out_close;
	}
	if (!S_ISREG(sb.st_mode)) {
		err = -EINVAL;
		goto out_close;
	}
	h = mkw__os_zalloc(sizeof(*h));
	if (!h) {
		err = -ENOMEM;
		goto out_close;
	}
	h->fd = fd;
	info.len = (uint64_t)sb.st_size;
	info.id[0] = sb.st_dev;
	info.id[1] = sb.st_ino;
	info.flags = MKW_STORE_USER_MEMORY | MKW_STORE_ANY_CONTEXT;
	open_direct(h, &sb, access);
	can_reserve(h, &info);
	info.align = h->align;
	info.memory_align = h->memory_align;
	if (h->direct_fd >= 0) {
		info.flags |= MKW_STORE_DIRECT;
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	}
	err = mkw__store_make(&ops, &info, h, access == O_RDWR, out);
	if (!err)
		return 0;
	if (h->direct_fd >= 0)
		close(h->direct_fd);
	mkw__os_free(h);
out_close:
	close(fd);
	return err;
}

int mkw__hostfile_open(const char *path, int flags, mode_t mode,
		       struct mkw__store **out)
{
	const int known = O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
	int access = flags & O_ACCMODE;
	int fd, err;

	if (!path || (access != O_RDONLY && access != O_RDWR) ||
	    (flags & ~(known | O_ACCMODE)))
		return -EINVAL;
	/* O_NONBLOCK: a FIFO or a device would keep us waiting to say no. */
	fd = open(path,
		  (flags & ~O_TRUNC) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
	if (fd < 0) {
		err = -errno;
		/* A directory, a socket: not a regular file, like the rest. */
		return err == -EISDIR || err == -ENXIO ? -EINVAL : err;
	}
	/* With it, io_uring would answer EAGAIN instead of reading. */
	if (fcntl(fd, F_SETFL, 0)) {
		err = -errno;
		close(fd);
		return err;
	}
	return make_store(fd, access, out);
}

int mkw__hostfile_open_fd(int fd, struct mkw__store **out)
{
	int flags = fcntl(fd, F_GETFL);
	int access = flags & O_ACCMODE;
	struct stat sb;

	if (flags < 0 || (flags & O_PATH) || access == O_WRONLY)
		return -EBADF;
	/* Asked before the open, which for a device could have effects. */
	if (fstat(fd, &sb))
		return -errno;
	if (!S_ISREG(sb.st_mode))
		return -EINVAL;
	fd = reopen(fd, access);
	return fd < 0 ? fd : make_store(fd, access, out);
}
