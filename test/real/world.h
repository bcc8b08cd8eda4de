/* SPDX-License-Identifier: MIT */
/*
 * An engine with the least cache, and a new file that is mapped from end to end, in the
 * directory where the test runs. Nothing is written back by age: what is seen is the test's
 * own doing. access_begin() comes first.
 */
#ifndef TEST_WORLD_H
#define TEST_WORLD_H

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/engine.h"
#include "mkwrite/mkwrite.h"
#include "os/linux/linux.h"

#define WORLD_AGE_MS 3600000u

struct world {
	char path[64];
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *map;
	size_t len;
};

static inline void world_open(struct world *w, size_t len, enum mkw_policy policy,
			      unsigned map_flags, int open_flags)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	void *p;
	int fd;

	strcpy(w->path, "mkw-test-world-XXXXXX");
	fd = mkstemp(w->path);
	assert_true(fd >= 0);
	close(fd);
	opt.policy = policy;
	opt.cache_bytes = MKW_CACHE_BYTES_MIN;
	opt.writeback_age_ms = WORLD_AGE_MS;
	assert_int_equal(mkw_engine_open(&opt, &w->engine), 0);
	mkw__trap_reinstall();
	assert_int_equal(mkw_file_open(w->engine, w->path, O_RDWR | open_flags, 0,
				       &w->file), 0);
	assert_int_equal(mkw_truncate(w->file, (off_t)len), 0);
	assert_int_equal(mkw_map(w->file, NULL, len, PROT_READ | PROT_WRITE,
				 map_flags, 0, &p), 0);
	w->map = p;
	w->len = len;
}

static inline void world_close(struct world *w)
{
	mkw__engine_verify(w->engine);
	assert_int_equal(mkw_unmap(w->map, w->len), 0);
	assert_int_equal(mkw_file_close(w->file), 0);
	assert_int_equal(mkw_engine_close(w->engine), 0);
	unlink(w->path);
}

#endif /* TEST_WORLD_H */
