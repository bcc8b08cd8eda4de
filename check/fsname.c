/* SPDX-License-Identifier: MIT */
/*
 * fsname.c: the type of the mount that a path lies on, from
 * /proc/self/mountinfo: of the mounts whose mount point is a prefix of the path,
 * the longest, and of equal ones the last, which covers the others.
 */
#include "check/fsname.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool lies_under(const char *path, const char *mount, size_t len)
{
	if (len == 1 && mount[0] == '/')
		return true;
	return !strncmp(path, mount, len) &&
	       (path[len] == '/' || path[len] == '\0');
}

struct mount_found {
	char type[64], device[128], options[128];
};

/* False: it was not found. */
static bool find_mount(const char *path, struct mount_found *found)
{
	char *real = realpath(path, NULL), *line = NULL;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	size_t cap = 0, best = 0;
	bool any = false;

	while (real && f && getline(&line, &cap, f) > 0) {
		char mount[PATH_MAX + 1];
		struct mount_found m;
		const char *sep = strstr(line, " - ");
		size_t len;

		if (!sep ||
		    sscanf(line, "%*s %*s %*s %*s %4096s %127s", mount,
			   m.options) != 2 ||
		    sscanf(sep, " - %63s %127s", m.type, m.device) != 2)
			continue;
		len = strlen(mount);
		if (len >= best && lies_under(real, mount, len)) {
			best = len;
			*found = m;
			any = true;
		}
	}
	free(line);
	free(real);
	if (f)
		fclose(f);
	return any;
}

const char *mkw__check_fsname(const char *path, char *buf, size_t size)
{
	struct mount_found m;

	snprintf(buf, size, "%s", find_mount(path, &m) ? m.type : "file system");
	return buf;
}

void mkw__check_mount_line(const char *path, char *buf, size_t size)
{
	struct mount_found m;

	if (find_mount(path, &m))
		snprintf(buf, size, "%s on %s, %s", m.type, m.device, m.options);
	else
		snprintf(buf, size, "not known");
}
