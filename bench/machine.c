/* SPDX-License-Identifier: MIT */
/*
 * machine.c: says what is measured on, since a number without its machine says
 * nothing. What cannot be found out is "unknown".
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/internal.h"

static void find_cpu(struct bench_machine *m)
{
	char *line = NULL, *value;
	size_t size = 0;
	FILE *f = fopen("/proc/cpuinfo", "re");

	while (f && getline(&line, &size, f) > 0) {
		if (strncmp(line, "model name", 10))
			continue;
		value = strchr(line, ':');
		if (!value)
			continue;
		value[strcspn(value, "\n")] = '\0';
		snprintf(m->cpu, sizeof(m->cpu), "%.150s", value + 2);
		break;
	}
	free(line);
	if (f)
		fclose(f);
}

/*
 * The mount with the file's device number, from /proc/self/mountinfo:
 *   ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS
 */
static void find_filesystem(struct bench_machine *m, int fd)
{
	char *line = NULL, *rest, type[32], source[PATH_MAX];
	unsigned major_nr, minor_nr;
	size_t size = 0;
	struct stat st;
	FILE *f;

	if (fstat(fd, &st))
		return;
	f = fopen("/proc/self/mountinfo", "re");
	while (f && getline(&line, &size, f) > 0) {
		if (sscanf(line, "%*d %*d %u:%u", &major_nr, &minor_nr) != 2)
			continue;
		if (makedev(major_nr, minor_nr) != st.st_dev)
			continue;
		rest = strstr(line, " - ");
		if (!rest || sscanf(rest, " - %31s %4095s", type, source) != 2)
			continue;
		snprintf(m->filesystem, sizeof(m->filesystem), "%s", type);
		snprintf(m->device, sizeof(m->device), "%s", source);
		break;
	}
	free(line);
	if (f)
		fclose(f);
}

void mkw__bench_machine(struct bench_machine *m, int fd)
{
	struct utsname un;

	*m = (struct bench_machine){ .kernel = "unknown", .cpu = "unknown",
				     .filesystem = "unknown",
				     .device = "unknown" };
	if (!uname(&un))
		snprintf(m->kernel, sizeof(m->kernel), "%s %s %s", un.sysname,
			 un.release, un.machine);
	m->cpus = sysconf(_SC_NPROCESSORS_ONLN);
	find_cpu(m);
	find_filesystem(m, fd);
}
