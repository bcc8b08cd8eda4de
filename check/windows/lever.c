/* SPDX-License-Identifier: MIT */
/*
 * lever.c: memory that holds whoever touches it, by userfaultfd.
 *
 * The fault of a system call needs more rights than that of user code: the
 * system call userfaultfd gives them to root or by a sysctl, /dev/userfaultfd
 * (Linux 6.1) to whoever may open it. Nobody else is let in: with user faults only
 * the held call would fail with EFAULT.
 */
#include "check/windows/lever.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 6.1, absent from older headers. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

int mkw__lever_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int err = errno, dev;

	if (fd < 0) {
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev < 0)
			return -err;
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		err = errno;
		close(dev);
		if (fd < 0)
			return -err;
	}
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = errno;
		close(fd);
		return -err;
	}
	return fd;
}

int mkw__lever_probe(char *why, size_t size)
{
	int fd = mkw__lever_uffd();

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	snprintf(why, size, "no userfaultfd for faults inside of system calls: "
		 "%s. %s", strerror(-fd),
		 fd == -EPERM ? "Run as root, set the sysctl "
				"vm.unprivileged_userfaultfd=1, or give "
				"yourself access to /dev/userfaultfd" :
				"It needs CONFIG_USERFAULTFD, and a sandbox "
				"that does not hide it");
	return fd;
}

static int supply(struct lever *lv, size_t from, size_t to)
{
	while (from < to) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)lv->buf + from,
			.src = (uintptr_t)lv->content + from,
			.len = to - from,
		};

		if (!ioctl(lv->fd, UFFDIO_COPY, &copy))
			return 0;
		if (errno != EAGAIN)
			return -errno;
		if (copy.copy > 0)
			from += (size_t)copy.copy;
	}
	return 0;
}

int mkw__lever_open(struct lever *lv, const void *content, size_t len,
		    size_t hold)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int err = -ENOMEM;

	*lv = (struct lever){ .fd = -1, .stop = { -1, -1 }, .len = len };
	lv->page = (size_t)sysconf(_SC_PAGESIZE);
	lv->hold = hold / lv->page * lv->page;
	lv->content = malloc(len);
	lv->buf = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!lv->content || lv->buf == MAP_FAILED)
		return err;
	memcpy(lv->content, content, len);
	/* A huge page would supply what is to be missing. Absent: no matter. */
	madvise(lv->buf, len, MADV_NOHUGEPAGE);
	lv->fd = mkw__lever_uffd();
	if (lv->fd < 0)
		return lv->fd;
	if (pipe2(lv->stop, O_CLOEXEC))
		return -errno;
	reg.range.start = (uintptr_t)lv->buf;
	reg.range.len = len;
	if (ioctl(lv->fd, UFFDIO_REGISTER, &reg))
		return -errno;
	err = supply(lv, 0, lv->hold);
	return err ? err : supply(lv, lv->hold + lv->page, len);
}

bool mkw__lever_wait(struct lever *lv)
{
	struct pollfd p[2] = { { .fd = lv->fd, .events = POLLIN },
			       { .fd = lv->stop[0], .events = POLLIN } };
	struct uffd_msg msg;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			abort();
		if (p[0].revents & POLLIN &&
		    read(lv->fd, &msg, sizeof(msg)) == sizeof(msg))
			return true;
		if (p[1].revents)
			return false;
	}
}

void mkw__lever_cancel(struct lever *lv)
{
	ssize_t n;

	do
		n = write(lv->stop[1], "", 1);
	while (n < 0 && errno == EINTR);
}

void mkw__lever_release(struct lever *lv)
{
	if (supply(lv, lv->hold, lv->hold + lv->page))
		abort();
}

void mkw__lever_close(struct lever *lv)
{
	if (lv->fd >= 0)
		close(lv->fd);
	if (lv->stop[0] >= 0) {
		close(lv->stop[0]);
		close(lv->stop[1]);
	}
	free(lv->content);
	lv->fd = -1;
}
