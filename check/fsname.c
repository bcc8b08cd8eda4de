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

const char *mkw__check_fsname(const char *path, char *buf, size_t size)
{
	char *real = realpath(path, NULL), *line = NULL;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	size_t cap = 0, best = 0;

	snprintf(buf, size, "file system");
	while (real && f && getline(&line, &cap, f) > 0) {
		char mount[PATH_MAX + 1], type[64];
		const char *sep = strstr(line, " - ");
		size_t len;

		if (!sep || sscanf(line, "%*s %*s %*s %*s %4096s", mount) != 1 ||
		    sscanf(sep, " - %63s", type) != 1)
			continue;
		len = strlen(mount);
		if (len >= best && lies_under(real, mount, len)) {
			best = len;
			snprintf(buf, size, "%s", type);
		}
	}
	free(line);
	free(real);
	if (f)
		fclose(f);
	return buf;
}
