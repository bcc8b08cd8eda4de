/* SPDX-License-Identifier: MIT */
/*
 * What a test that fails leaves open: a file that stays locked would make every later
 * test fail, too (-EBUSY).
 *
 * A test says what it opens (leftover_engine(), leftover_file(), or leftover_open(), which
 * opens it as well) and closes it by leftover_close() and leftover_engine_close(),
 * or leftover_end(). leftover_clear(), in the test's
 * teardown, closes the rest. Mappings need not be named: the engine knows them. For one
 * engine at a time, in the test's own thread, when no operation runs.
 */
#ifndef TEST_LEFTOVER_H
#define TEST_LEFTOVER_H

#include "core/engine.h"
#include "core/testing.h"
#include "os/linux/linux.h"

#define LEFTOVER_FILES 4u

static struct {
	struct mkw_engine *engine;
	struct mkw_file *files[LEFTOVER_FILES];
} leftover;

static inline void leftover_engine(struct mkw_engine *engine)
{
	assert_null(leftover.engine);
	leftover.engine = engine;
}

static inline void leftover_file(struct mkw_file *file)
{
	unsigned i = 0;

	while (i < LEFTOVER_FILES && leftover.files[i])
		i++;
	assert_true(i < LEFTOVER_FILES);
	leftover.files[i] = file;
}

/* Both as the functions that they are named after. */
static inline int leftover_close(struct mkw_file *file)
{
	for (unsigned i = 0; i < LEFTOVER_FILES; i++)
		if (leftover.files[i] == file)
			leftover.files[i] = NULL;
	return mkw_file_close(file);
}

static inline int leftover_engine_close(struct mkw_engine *engine)
{
	int r = mkw_engine_close(engine);

	if (!r)
		leftover.engine = NULL;
	return r;
}

/* An engine, and a file of that name and size through it, of zeros. */
static inline void leftover_open(const struct mkw_engine_options *opt,
				 const char *path, size_t size,
				 struct mkw_engine **engine,
				 struct mkw_file **file)
{
	assert_int_equal(mkw_engine_open(opt, engine), 0);
	leftover_engine(*engine);
	/* cmocka sets handlers of its own before each test. */
	mkw__trap_reinstall();
	assert_int_equal(mkw_file_open(*engine, path,
				       O_RDWR | O_CREAT | O_TRUNC, 0600, file), 0);
	leftover_file(*file);
	assert_int_equal(mkw_truncate(*file, (off_t)size), 0);
}

/* The engine verifies itself, and everything goes: mapping, file, engine, name. */
static inline void leftover_end(struct mkw_engine *engine, struct mkw_file *file,
				void *map, size_t map_len, const char *path)
{
	mkw__engine_verify(engine);
	assert_int_equal(mkw_unmap(map, map_len), 0);
	assert_int_equal(leftover_close(file), 0);
	assert_int_equal(leftover_engine_close(engine), 0);
	unlink(path);
}

/* Some mapping of the engine's, or NULL; the flusher looks at the inodes, too. */
static inline struct mkw__map *leftover_map(struct mkw_engine *engine)
{
	struct mkw__inode *in;

	mkw__mutex_lock(&engine->pool.mutex);
	in = TAILQ_FIRST(&engine->inodes);
	mkw__mutex_unlock(&engine->pool.mutex);
	return in ? TAILQ_FIRST(&in->maps) : NULL;
}

/* Errors of writes are no matter: the test has failed. */
static inline int leftover_clear(void)
{
	struct mkw__map *m;
	int r = 0;

	if (!leftover.engine)
		goto out;
	for (unsigned i = 0; i < LEFTOVER_FILES; i++)
		if (leftover.files[i])
			leftover_close(leftover.files[i]);
	/* An inode without a handle goes with its last mapping. */
	while ((m = leftover_map(leftover.engine))) {
		r = mkw_unmap((void *)m->addr, m->len);
		if (r == -EINVAL || r == -ENOMEM)
			return r;
	}
	r = leftover_engine_close(leftover.engine);
out:
	/* The engine's threads read it as long as they live. */
	mkw__testing.mutant = MKW__MUTANT_NONE;
	return r;
}

#endif /* TEST_LEFTOVER_H */
