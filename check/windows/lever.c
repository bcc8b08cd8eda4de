/* SPDX-License-Identifier: MIT */
/*
 * lever.c: memory that holds whoever touches it, by userfaultfd or by FUSE.
 *
 * The fault of a system call needs more rights than that of user code: the
 * system call userfaultfd gives them to root or by a sysctl, /dev/userfaultfd
 * (Linux 6.1) to whoever may open it. Nobody else is let in: with user faults only
 * the held call would fail with EFAULT.
 *
 * Anybody may have a private mapping of a file that is served by FUSE. Its content
 * is put into the image beforehand; the pages are all touched but one, each by itself
 * (without readahead), and the server keeps the read of that one.
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check/windows/served.h"

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

/* ---- by a served file ------------------------------------------------------ */

/* The largest lever. */
#define SERVED_BYTES ((size_t)8 << 20)

static struct {
	struct served served;
	int image;		/* a memfd */
	bool up;
	char why[400];		/* it cannot be had: found out before */
} file = { .image = -1 };

int mkw__lever_prepare(bool by_file, char *why, size_t size)
{
	char no_uffd[256];
	size_t n;

	if (!by_file && !mkw__lever_probe(no_uffd, sizeof(no_uffd)))
		return 0;
	if (file.why[0]) {
		snprintf(why, size, "%s", file.why);
		return -1;
	}
	file.image = memfd_create("mkwrite-lever", MFD_CLOEXEC);
	snprintf(why, size, "no memory");
	if (file.image >= 0 && !ftruncate(file.image, (off_t)SERVED_BYTES) &&
	    !mkw__served_start(&file.served, file.image, why, size)) {
		file.up = true;
		return 0;
	}
	n = strlen(why);
	if (!by_file)
		snprintf(why + n, size - n, "; and %s", no_uffd);
	snprintf(file.why, sizeof(file.why), "%s", why);
	mkw__lever_finish();
	return -1;
}

void mkw__lever_finish(void)
{
	mkw__served_stop(&file.served);
	if (file.image >= 0)
		close(file.image);
	file.image = -1;
	file.up = false;
}

void mkw__lever_let_go(void)
{
	if (file.up)
		mkw__served_let_go(&file.served);
}

static int open_by_file(struct lever *lv)
{
	struct slow_gate *gate = file.served.gate;
	int fd, err = 0;
	struct stat st;
	char byte;

	lv->buf = NULL;
	if (lv->len > SERVED_BYTES)
		return -EINVAL;
	for (size_t done = 0; done < lv->len;) {
		ssize_t n = pwrite(file.image, lv->content + done,
				   lv->len - done, (off_t)done);

		if (n <= 0)
			return -EIO;
		done += (size_t)n;
	}
	/* What an earlier window left. */
	while (!sem_trywait(&gate->go))
		;
	while (read(gate->pipe[0], &byte, 1) == 1)
		;
	fd = open(file.served.path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* fstat(): the kernel asks the server for the size only now. */
	lv->buf = mmap(NULL, lv->len, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (lv->buf == MAP_FAILED || fstat(fd, &st))
		err = -errno;
	close(fd);
	if (err)
		return err;
	madvise(lv->buf, lv->len, MADV_RANDOM);
	for (size_t at = 0; at < lv->len; at += lv->page)
		if (at != lv->hold)
			(void)*(volatile char *)(lv->buf + at);
	atomic_store(&gate->offset, lv->hold + 1);
	return 0;
}

/* ---- levers ------------------------------------------------------------------ */

int mkw__lever_open(struct lever *lv, const void *content, size_t len,
		    size_t hold)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int err = -ENOMEM;

	*lv = (struct lever){ .fd = -1, .stop = { -1, -1 }, .len = len };
	lv->page = (size_t)sysconf(_SC_PAGESIZE);
	lv->hold = hold / lv->page * lv->page;
	lv->content = malloc(len);
	if (!lv->content)
		return err;
	memcpy(lv->content, content, len);
	if (file.up)
		return pipe2(lv->stop, O_CLOEXEC) ? -errno : open_by_file(lv);
	lv->buf = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (lv->buf == MAP_FAILED)
		return err;
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
	int source = file.up ? file.served.gate->pipe[0] : lv->fd;
	struct pollfd p[2] = { { .fd = source, .events = POLLIN },
			       { .fd = lv->stop[0], .events = POLLIN } };
	struct uffd_msg msg;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			abort();
		if (p[0].revents & POLLIN &&
		    read(source, &msg, sizeof(msg)) > 0)
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
	if (file.up)
		mkw__served_let_go(&file.served);
	else if (supply(lv, lv->hold, lv->hold + lv->page))
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
