/* SPDX-License-Identifier: MIT */
/*
 * cap.c: a memory limit for one process, by a control group.
 *
 * The kernel's page cache has no size of its own: to compare it with an engine
 * of a given cache, its process lives in a control group whose limit covers the
 * pages that it faults in. Each run gets a group of its own, removed after it,
 * so nothing of an earlier run counts and the peak is that run's.
 *
 * Version 2 is taken where its memory controller is there, else version 1. The
 * group is made at the top of the hierarchy as this process sees it: below its
 * own group, version 2 would not give controllers to children.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/internal.h"

/* Where the hierarchy is mounted; version 0: none found. */
static char hierarchy[PATH_MAX];
static int hierarchy_version;

static int write_file(const char *dir, const char *name, const char *text)
{
	char path[PATH_MAX + 64];
	ssize_t n;
	int fd, err;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	err = errno;
	close(fd);
	errno = err;
	return n < 0 ? -1 : 0;
}

static ssize_t read_file(const char *dir, const char *name, char *buf,
			 size_t size)
{
	char path[PATH_MAX + 64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n >= 0)
		buf[n] = '\0';
	return n;
}

static bool has_memory_controller(const char *dir)
{
	char text[1024], *word, *save;

	if (read_file(dir, "cgroup.controllers", text, sizeof(text)) < 0)
		return false;
	for (word = strtok_r(text, " \n", &save); word;
	     word = strtok_r(NULL, " \n", &save))
		if (!strcmp(word, "memory"))
			return true;
	return false;
}

static void find_hierarchy(void)
{
	char *line = NULL, *rest, *option, *save, point[PATH_MAX];
	char type[32], options[1024];
	size_t size = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	while (f && getline(&line, &size, f) > 0) {
		rest = strstr(line, " - ");
		if (!rest || sscanf(line, "%*d %*d %*s %*s %4095s", point) != 1 ||
		    sscanf(rest, " - %31s %*s %1023s", type, options) != 2)
			continue;
		if (!strcmp(type, "cgroup2") && has_memory_controller(point)) {
			snprintf(hierarchy, sizeof(hierarchy), "%s", point);
			hierarchy_version = 2;
			break;
		}
		if (strcmp(type, "cgroup"))
			continue;
		for (option = strtok_r(options, ",", &save); option;
		     option = strtok_r(NULL, ",", &save)) {
			if (strcmp(option, "memory"))
				continue;
			snprintf(hierarchy, sizeof(hierarchy), "%s", point);
			hierarchy_version = 1;
		}
	}
	free(line);
	if (f)
		fclose(f);
	if (hierarchy_version == 2)
		/* It may be on already, or not be ours to turn on: the group
		 * then has a memory.max, or has not. */
		(void)write_file(hierarchy, "cgroup.subtree_control", "+memory");
}

/* 0, or -1 with a reason in why. */
static int create(struct bench_cap *cap, uint64_t bytes, char *why, size_t size)
{
	char text[32];
	const char *limit;

	*cap = (struct bench_cap){ .unified = hierarchy_version == 2 };
	snprintf(cap->dir, sizeof(cap->dir), "%.4000s/mkwrite-bench-%ld",
		 hierarchy, (long)getpid());
	if (mkdir(cap->dir, 0755) && errno != EEXIST) {
		snprintf(why, size, "cannot make %s: %s", cap->dir,
			 strerror(errno));
		return -1;
	}
	limit = cap->unified ? "memory.max" : "memory.limit_in_bytes";
	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	if (write_file(cap->dir, limit, text)) {
		snprintf(why, size, "cannot set %s of %s: %s", limit, cap->dir,
			 strerror(errno));
		rmdir(cap->dir);
		return -1;
	}
	/* Swapping would make the engine's frames slow and the limit soft.
	 * Without swap these are not there, and not needed. */
	if (cap->unified)
		(void)write_file(cap->dir, "memory.swap.max", "0");
	else
		(void)write_file(cap->dir, "memory.swappiness", "0");
	return 0;
}

const char *mkw__bench_cap_probe(int *version)
{
	static char why[PATH_MAX + 256];
	struct bench_cap cap;

	*version = 0;
	find_hierarchy();
	if (!hierarchy_version)
		return "no control group hierarchy with a memory controller is mounted";
	if (create(&cap, (uint64_t)1 << 30, why, sizeof(why)))
		return why;
	mkw__bench_cap_remove(&cap);
	*version = hierarchy_version;
	return "";
}

int mkw__bench_cap_create(struct bench_cap *cap, uint64_t bytes)
{
	char why[PATH_MAX + 256];

	if (!create(cap, bytes, why, sizeof(why)))
		return 0;
	fprintf(stderr, "mkwrite bench: %s\n", why);
	return -1;
}

int mkw__bench_cap_enter(const struct bench_cap *cap)
{
	return write_file(cap->dir, "cgroup.procs", "0");
}

uint64_t mkw__bench_cap_peak(const struct bench_cap *cap)
{
	const char *name = cap->unified ? "memory.peak"
					: "memory.max_usage_in_bytes";
	char text[64];

	if (read_file(cap->dir, name, text, sizeof(text)) < 0)
		return 0;
	return strtoull(text, NULL, 10);
}

void mkw__bench_cap_remove(const struct bench_cap *cap)
{
	if (rmdir(cap->dir))
		fprintf(stderr,
			"mkwrite bench: cannot remove %s: %s; remove it by hand\n",
			cap->dir, strerror(errno));
}
