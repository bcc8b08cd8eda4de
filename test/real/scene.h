/* SPDX-License-Identifier: MIT */
/*
 * What the tests of signals and of processes share: an engine with one file in
 * memory, whose reads can be watched from inside, and scenes, which are played in a
 * process of their own, since they end it or leave it damaged.
 *
 * A scene is this program again, with the scene's name; it returns 0 when it found
 * what it is there to find. One that hangs is ended by an alarm.
 */
#ifndef TEST_SCENE_H
#define TEST_SCENE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "access.h"

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#elif __has_feature(address_sanitizer)
#define ASAN 1
#endif
#endif

#define P(n) ((size_t)(n) * page)
#define PAGES 16u
#define HOUR_MS 3600000u
#define PATIENCE_S 60u

static size_t page;
static char **self_argv;

/* For scenes and threads, where cmocka's assertions cannot be used. */
#define MUST(x)                                                              \
	do {                                                                 \
		if (!(x)) {                                                  \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__,     \
				__LINE__, #x);                               \
			_exit(1);                                            \
		}                                                            \
	} while (0)

/* ---- the file --------------------------------------------------------- */

struct scene {
	struct mkw_engine *engine;
	struct mkw_file *file;
	struct mkw__store *store;
	struct mkw_store_ops below;
	void (*in_read)(void);	/* runs in the next read by the caller's thread */
	/* The next read of the pager is kept; kept_io says that it is. */
	_Atomic bool keep;
	_Atomic(struct mkw_io *) kept_io;
};
static struct scene scene;

/* The caller's thread may block, the pager's may not. */
static void scene_read(void *arg, struct mkw_io *io)
{
	void (*in_read)(void);

	if (!(io->flags & MKW_IO_MAY_BLOCK)) {
		if (atomic_exchange(&scene.keep, false)) {
			scene.kept_io = io;
			return;
		}
	} else if (scene.in_read) {
		in_read = scene.in_read;
		scene.in_read = NULL;
		in_read();
	}
	scene.below.read(arg, io);
}

static inline void scene_let_go(void)
{
	scene.below.read(scene.store->arg, scene.kept_io);
}

static inline void scene_open(void)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	scene = (struct scene){ 0 };
	opt.writeback_age_ms = HOUR_MS;
	MUST(!mkw_engine_open(&opt, &scene.engine));
	MUST(!mkw__memstore_open(P(PAGES), &scene.store));
	scene.below = scene.store->ops;
	scene.store->ops.read = scene_read;
	MUST(!mkw__file_attach(scene.engine, scene.store, true, &scene.file));
}

static inline unsigned char *scene_map(unsigned flags)
{
	void *p;

	MUST(!mkw_map(scene.file, own_space(P(PAGES)), P(PAGES),
		      PROT_READ | PROT_WRITE, flags | MKW_MAP_FIXED, 0, &p));
	return p;
}

/* Nothing is stranded: an operation that needs every lock goes through. */
static inline void scene_close(void *map)
{
	MUST(!mkw_fallocate(scene.file,
			    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			    (off_t)P(PAGES)));
	if (map)
		MUST(!mkw_unmap(map, P(PAGES)));
	MUST(!mkw_file_close(scene.file));
	MUST(!mkw_engine_close(scene.engine));
}

/* ---- scenes ----------------------------------------------------------- */

struct play {
	const char *name;
	int (*fn)(void);
};

/* Plays the scene that the arguments name, if they do; else -1. */
static inline int scene_play(const struct play *plays, size_t n, int argc,
			     char **argv)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	self_argv = argv;
	for (size_t i = 0; argc > 1 && i < n; i++) {
		if (strcmp(argv[1], plays[i].name))
			continue;
		alarm(PATIENCE_S);
		return plays[i].fn();
	}
	return -1;
}

/* The wait status of a scene; arg may be NULL. Its output goes into text. */
static inline int scene_run(const char *name, const char *arg, char *text,
			    size_t size)
{
	char *args[] = { self_argv[0], (char *)(uintptr_t)name,
			 (char *)(uintptr_t)arg, NULL };
	size_t len = 0;
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		execv("/proc/self/exe", args);
		_exit(127);
	}
	close(fds[1]);
	while (len < size - 1 && (n = read(fds[0], text + len,
					   size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = 0;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static inline void scene_ends(const char *name, const char *arg, int status)
{
	char text[4096];
	int found = scene_run(name, arg, text, sizeof(text));

	if (found != status)
		fail_msg("%s: wait status 0x%x, not 0x%x: %s", name, found,
			 status, text);
}

#endif /* TEST_SCENE_H */
