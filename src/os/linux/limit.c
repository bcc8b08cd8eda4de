/* SPDX-License-Identifier: MIT */
/*
 * limit.c: how much memory this process may have.
 *
 * The machine's, or less where the process or a group above it is limited: memory.max
 * of control groups version 2, memory.limit_in_bytes of version 1 (Linux
 * Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst). Frames count for
 * the group, so a cache that its limit cannot hold ends in the kernel killing the
 * process, amid some later store: better to say so when the engine is opened.
 *
 * /proc/self/cgroup names the process's group in each hierarchy, from that one's root
 * on; /proc/self/mountinfo where a hierarchy can be seen, and from which group down.
 * In a container the process's group may lie outside of what it can see: the
 * uppermost group there stands for it. What cannot be read is no limit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/linux/linux.h"

#define LINE 4096

struct hierarchy {
	const char *fstype, *option, *file;
	char group[LINE];		/* the process's; "": in none */
	char root[LINE], mount[LINE];	/* root is seen at mount */
};

/* Is word in the comma-separated list? */
static bool has(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (; list; list = strchr(list, ','), list = list ? list + 1 : NULL)
		if (!strncmp(list, word, n) &&
		    (!list[n] || list[n] == ',' || list[n] == '\n'))
			return true;
	return false;
}

/* Lines "number:controllers:group"; the second is empty for version 2. */
static void find_group(struct hierarchy *h)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[LINE];

	while (f && fgets(line, sizeof(line), f)) {
		char *list = strchr(line, ':'), *group;

		group = list ? strchr(list + 1, ':') : NULL;
		if (!group)
			continue;
		*group++ = '\0';
		if (h->option ? !has(list + 1, h->option) : list[1] != '\0')
			continue;
		group[strcspn(group, "\n")] = '\0';
		snprintf(h->group, sizeof(h->group), "%s", group);
	}
	if (f)
		fclose(f);
}

/* proc(5): id parent device root mount options ... - type source super-options */
static void find_mount(struct hierarchy *h)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[LINE], type[64], super[LINE];

	while (f && fgets(line, sizeof(line), f)) {
		char root[LINE], mount[LINE];
		char *rest = strstr(line, " - ");

		if (!rest ||
		    sscanf(line, "%*s %*s %*s %4095s %4095s", root, mount) != 2 ||
		    sscanf(rest, " - %63s %*s %4095s", type, super) != 2 ||
		    strcmp(type, h->fstype) ||
		    (h->option && !has(super, h->option)))
			continue;
		memcpy(h->root, root, sizeof(root));
		memcpy(h->mount, mount, sizeof(mount));
		break;
	}
	if (f)
		fclose(f);
}

/* The number in the file, UINT64_MAX for "max" and for what cannot be read. */
static uint64_t read_limit(const char *path)
{
	uint64_t n = UINT64_MAX;
	FILE *f = fopen(path, "re");
	unsigned long long got;

	if (f && fscanf(f, "%llu", &got) == 1)
		n = got;
	if (f)
		fclose(f);
	return n;
}

/* Lowers *limit by those of the process's group and the groups above it. */
static void ask_groups(struct hierarchy *h, uint64_t *limit, char *where, size_t len)
{
	char dir[2 * LINE], path[2 * LINE + 64];
	size_t root, mount;

	find_group(h);
	find_mount(h);
	mount = strlen(h->mount);
	if (!h->group[0] || !mount)
		return;
	root = strcmp(h->root, "/") ? strlen(h->root) : 0;
	snprintf(dir, sizeof(dir), "%s%s", h->mount,
		 strncmp(h->group, h->root, root) ? "" : h->group + root);
	for (;;) {
		uint64_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, h->file);
		n = read_limit(path);
		if (n < *limit) {
			*limit = n;
			snprintf(where, len, "%s", path);
		}
		if (strlen(dir) <= mount)
			return;
		*strrchr(dir, '/') = '\0';
	}
}

uint64_t mkw__os_memory_limit(char *where, size_t len)
{
	struct hierarchy *h = malloc(sizeof(*h));
	uint64_t limit = UINT64_MAX;
	long pages = sysconf(_SC_PHYS_PAGES);

	snprintf(where, len, "no limit is known");
	if (pages > 0) {
		limit = (uint64_t)pages * mkw__os_page_size();
		snprintf(where, len, "the machine's memory");
	}
	if (!h)
		return limit;
	*h = (struct hierarchy){ .fstype = "cgroup2", .file = "memory.max" };
	ask_groups(h, &limit, where, len);
	*h = (struct hierarchy){ .fstype = "cgroup", .option = "memory",
				 .file = "memory.limit_in_bytes" };
	ask_groups(h, &limit, where, len);
	free(h);
	return limit;
}

void mkw__os_tell(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	/* So that lines of two threads do not mix. */
	flockfile(stderr);
	fputs("mkwrite: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	funlockfile(stderr);
	va_end(ap);
}
