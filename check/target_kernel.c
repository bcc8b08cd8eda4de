/* SPDX-License-Identifier: MIT */
/*
 * target_kernel.c: the kernel's own file system at a directory, reached by a
 * shared mapping, by a descriptor, and by a second one with O_DIRECT.
 *
 * The file loses its name at once, so that nothing is left behind whatever
 * becomes of the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/fsname.h"

struct kernel {
	int fd, direct_fd;
	void *map;
	size_t len;
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

static void kernel_close(struct target *t)
{
	struct kernel *k = t->priv;

	if (!k)
		return;
	if (k->map != MAP_FAILED)
		munmap(k->map, k->len);
	if (k->direct_fd >= 0)
		close(k->direct_fd);
	if (k->fd >= 0)
		close(k->fd);
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

static ssize_t kernel_pread(struct target *t, void *buf, size_t len,
			    off_t off, unsigned way)
{
	struct kernel *k = t->priv;
	ssize_t n = pread(way & WAY_DIRECT ? k->direct_fd : k->fd, buf, len,
			  off);

	return n < 0 ? -errno : n;
}

static ssize_t kernel_pwrite(struct target *t, const void *buf, size_t len,
			     off_t off, unsigned way)
{
	struct kernel *k = t->priv;
	ssize_t n = pwrite(way & WAY_DIRECT ? k->direct_fd : k->fd, buf, len,
			   off);

	return n < 0 ? -errno : n;
}

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

static int kernel_msync(struct target *t, off_t off, size_t len)
{
	struct kernel *k = t->priv;

	return msync((char *)k->map + off, len, MS_SYNC) ? -errno : 0;
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
	.msync = kernel_msync,
	.drop = kernel_drop,
	.blocks = kernel_blocks,
	.fd = kernel_fd,
};
