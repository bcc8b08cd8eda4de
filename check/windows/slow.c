/* SPDX-License-Identifier: MIT */
/*
 * slow.c: a loop device over a served file, and a file system on it.
 */
#include "check/windows/slow.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

void mkw__slow_start(struct slow *slow, const char *fstype)
{
	char *why = slow->why;
	size_t size = sizeof(slow->why);
	int image;

	*slow = (struct slow){ .up = false };
	slow->served.server = -1;
	if (!strcmp(fstype, "tmpfs")) {
		snprintf(why, size, "tmpfs has no device");
		return;
	}
	if (access("/dev/fuse", R_OK | W_OK)) {
		snprintf(why, size, "/dev/fuse: %s", strerror(errno));
		return;
	}
	if (mkw__image_possible(fstype, why, size) ||
	    mkw__image_namespace(why, size))
		return;
	image = mkw__image_format(fstype, why, size);
	if (image < 0)
		return;
	slow->up = !mkw__served_start(&slow->served, image, why, size) &&
		   !mkw__image_mount(&slow->image, slow->served.path, fstype,
				     why, size);
	close(image);
	if (!slow->up)
		mkw__slow_stop(slow);
}

void mkw__slow_thaw(const struct slow *slow)
{
	int fd = open(slow->image.mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	ioctl(fd, FITHAW, 0);
	close(fd);
}

void mkw__slow_stop(struct slow *slow)
{
	mkw__served_let_go(&slow->served);
	if (slow->image.mounted) {
		mkw__slow_thaw(slow);
		umount(slow->image.mount);
	}
	mkw__image_unmount(&slow->image);
	mkw__served_stop(&slow->served);
	slow->up = false;
}
