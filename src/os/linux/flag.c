/* SPDX-License-Identifier: MIT */
/*
 * flag.c: a flag that others can poll for, an eventfd.
 *
 * Its counter is 1 while the flag is raised and 0 while it is lowered, which the callers
 * keep so; an eventfd can be read exactly as long as it is not 0. It does not
 * block, so that one which somebody has read in spite of all is lowered already.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "os/os.h"

struct mkw__os_flag {
	int fd;
};

int mkw__os_flag_create(struct mkw__os_flag **out)
{
	struct mkw__os_flag *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	f->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->fd < 0) {
		r = -errno;
		free(f);
		return r;
	}
	*out = f;
	return 0;
}

void mkw__os_flag_destroy(struct mkw__os_flag *f)
{
	close(f->fd);
	free(f);
}

int mkw__os_flag_fd(const struct mkw__os_flag *f)
{
	return f->fd;
}

void mkw__os_flag_raise(struct mkw__os_flag *f)
{
	if (eventfd_write(f->fd, 1)) {
		/* It would overflow: it is raised. */
	}
}

void mkw__os_flag_lower(struct mkw__os_flag *f)
{
	eventfd_t value;

	if (eventfd_read(f->fd, &value)) {
		/* It is lowered. */
	}
}

int mkw__os_flag_wait(struct mkw__os_flag *f, uint64_t timeout_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_ns / 1000000000u),
			       .tv_nsec = (long)(timeout_ns % 1000000000u) };
	struct pollfd pfd = { .fd = f->fd, .events = POLLIN };
	int n = ppoll(&pfd, 1, timeout_ns == UINT64_MAX ? NULL : &ts, NULL);

	if (n < 0)
		return -errno;
	return n ? 0 : -ETIMEDOUT;
}
