/* SPDX-License-Identifier: MIT */
/*
 * image.c: mkfs, loop devices, mounts.
 */
#include "check/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMAND_MAX 8

struct maker {
	const char *fstype;
	unsigned mib;
	const char *command[COMMAND_MAX];
};

/* Blocks of 4 KiB, and none written in vain. */
static const struct maker makers[] = {
	{ "ext4", 256, { "mkfs.ext4", "-q", "-F", "-b", "4096", "-E",
			 "nodiscard,lazy_itable_init=1" } },
	{ "xfs", 400, { "mkfs.xfs", "-q", "-f", "-K", "-b", "size=4096" } },
	{ "btrfs", 256, { "mkfs.btrfs", "-q", "-f", "-K", "-s", "4096" } },
	{ "tmpfs", 256, { NULL } },
};

static const struct maker *find_maker(const char *fstype)
{
	for (unsigned i = 0; i < sizeof(makers) / sizeof(makers[0]); i++)
		if (!strcmp(makers[i].fstype, fstype))
			return &makers[i];
	return NULL;
}

bool mkw__image_known(const char *fstype)
{
	return find_maker(fstype) != NULL;
}

static int fail(char *why, size_t size, const char *what)
{
	snprintf(why, size, "%s: %s", what, strerror(errno));
	return -1;
}

void mkw__image_temporary(char *path, size_t size, const char *what)
{
	const char *tmp = getenv("TMPDIR");

	/* Where it would be cut off it would not be unique. */
	if (!tmp || !*tmp || strlen(tmp) + 40 > size)
		tmp = "/tmp";
	snprintf(path, size, "%s/mkwrite-%s-XXXXXX", tmp, what);
}

/* mkfs is root's, and lives where a user's PATH may not lead. */
static void add_sbin(void)
{
	const char *path = getenv("PATH");
	char buf[4096];

	if (path && strstr(path, "/sbin"))
		return;
	snprintf(buf, sizeof(buf), "%s:/usr/sbin:/sbin", path ? path : "/bin");
	setenv("PATH", buf, 1);
}

int mkw__image_possible(const char *fstype, char *why, size_t size)
{
	const struct maker *maker = find_maker(fstype);

	if (!maker) {
		snprintf(why, size, "it is not known here how to make a %s",
			 fstype);
		return -1;
	}
	if (geteuid()) {
		snprintf(why, size, "only root can mount");
		return -1;
	}
	if (maker->command[0] && access("/dev/loop-control", F_OK)) {
		snprintf(why, size, "there are no loop devices");
		return -1;
	}
	return 0;
}

int mkw__image_namespace(char *why, size_t size)
{
	static bool done;

	if (done)
		return 0;
	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return fail(why, size, "a mount namespace");
	done = true;
	return 0;
}

/* Runs mkfs on the file. 0, or -1 and why. */
static int make(const struct maker *maker, const char *path, char *why,
		size_t size)
{
	const char *argv[COMMAND_MAX + 2] = { NULL };
	unsigned n = 0;
	int status;
	pid_t pid;

	add_sbin();
	while (maker->command[n]) {
		argv[n] = maker->command[n];
		n++;
	}
	argv[n] = path;
	fflush(NULL);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], (char **)(uintptr_t)argv);
		_exit(127);
	}
	if (pid < 0)
		return fail(why, size, "fork");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!status)
		return 0;
	snprintf(why, size, WIFEXITED(status) && WEXITSTATUS(status) == 127 ?
			    "there is no %s; install it" : "%s failed",
		 argv[0]);
	return -1;
}

int mkw__image_format(const char *fstype, char *why, size_t size)
{
	const struct maker *maker = find_maker(fstype);
	char path[4096];
	int fd;

	/* It has no device. */
	if (!maker->command[0])
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	mkw__image_temporary(path, sizeof(path), "image");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return fail(why, size, path);
	if (ftruncate(fd, (off_t)maker->mib << 20))
		fail(why, size, "an image");
	else if (!make(maker, path, why, size))
		goto out;
	close(fd);
	fd = -1;
out:
	unlink(path);
	return fd;
}

/* A loop device on the file, named in name; its descriptor, or -1 and why. */
static int attach(const char *file, char *name, size_t name_size, char *why,
		  size_t size)
{
	struct loop_config config = {
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int control, loop = -1;
	int fd = open(file, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return fail(why, size, "the image");
	config.fd = (__u32)fd;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	/* Somebody else may be given the same number. */
	for (unsigned tries = 0; tries < 100 && control >= 0; tries++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		if (number < 0)
			break;
		snprintf(name, name_size, "/dev/loop%d", number);
		loop = open(name, O_RDWR | O_CLOEXEC);
		if (loop < 0)
			break;
		if (!ioctl(loop, LOOP_CONFIGURE, &config))
			break;
		close(loop);
		loop = -1;
		if (errno != EBUSY)
			break;
	}
	if (loop < 0)
		fail(why, size, "a loop device");
	if (control >= 0)
		close(control);
	close(fd);
	return loop;
}

int mkw__image_mount(struct image *im, const char *file, const char *fstype,
		     char *why, size_t size)
{
	const struct maker *maker = find_maker(fstype);
	char device[64] = "tmpfs", options[32] = "";
	int loop = -1, err;

	im->mounted = false;
	mkw__image_temporary(im->mount, sizeof(im->mount), "mount");
	if (!mkdtemp(im->mount))
		return fail(why, size, "a mount point");
	if (maker->command[0]) {
		loop = attach(file, device, sizeof(device), why, size);
		if (loop < 0)
			goto undo;
	} else {
		snprintf(options, sizeof(options), "size=%um", maker->mib);
	}
	err = mount(device, im->mount, fstype, MS_NOATIME, options);
	if (err)
		fail(why, size, "mount");
	if (loop >= 0)
		close(loop);
	if (err)
		goto undo;
	im->mounted = true;
	return 0;
undo:
	rmdir(im->mount);
	return -1;
}

void mkw__image_unmount(struct image *im)
{
	if (!im->mounted)
		return;
	umount2(im->mount, MNT_DETACH);
	rmdir(im->mount);
	im->mounted = false;
}
