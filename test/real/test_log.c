/* SPDX-License-Identifier: MIT */
/*
 * What an engine tells of itself: the log's messages and to whom they go, MKWRITE_DEBUG,
 * and the counters as text.
 *
 * Needs userfaultfd; skipped (77) without.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "mkwrite/mkwrite.h"

/* Written by the log thread alone, and read when mkw_engine_close() has joined it. */
static struct heard {
	char text[16384];
	size_t len;
	int messages, worst;
	struct mkw_engine *engine;
	struct mkw_file *file;
	void *mapping;
	int close_said;
	ssize_t read_said;
	struct mkw__os_event *hold, *held, *done;
} heard;

static void listen(void *arg, int level, const char *message)
{
	struct heard *h = arg;
	char buf[8];

	h->len += (size_t)snprintf(h->text + h->len, sizeof(h->text) - h->len,
				   "%d %s\n", level, message);
	h->messages++;
	if (!h->worst || level < h->worst)
		h->worst = level;
	if (h->held) {
		struct mkw__os_event *held = h->held;

		h->held = NULL;
		mkw__os_event_set(held);
		mkw__os_event_wait(h->hold);
	}
	/* What a callback may do, and the one thing that it may not. */
	if (h->file && !h->read_said) {
		h->read_said = mkw_pread(h->file, buf, sizeof(buf), 0, 0);
		*(volatile char *)h->mapping = 1;
		h->close_said = mkw_engine_close(h->engine);
		mkw__os_event_set(h->done);
	}
}

static struct mkw_engine *open_engine(uint32_t level)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *e;

	memset(&heard, 0, sizeof(heard));
	opt.cache_bytes = MKW_CACHE_BYTES_MIN;
	opt.log = listen;
	opt.log_arg = &heard;
	opt.log_level = level;
	/* Nothing is written back unless a test asks for it. */
	opt.writeback_age_ms = 3600000;
	assert_int_equal(mkw_engine_open(&opt, &e), 0);
	return e;
}

static void expect_said(const char *words)
{
	if (!strstr(heard.text, words))
		fail_msg("\"%s\" was not said, but:\n%s", words, heard.text);
}

static void test_what_was_probed(void **state)
{
	char path[] = "./mkw-test-log.XXXXXX";
	int fd = mkstemp(path);
	struct mkw_engine *e;
	struct mkw_file *file;

	(void)state;
	assert_true(fd >= 0);
	e = open_engine(MKW_LOG_INFO);
	assert_int_equal(mkw_file_open_fd(e, fd, &file), 0);
	close(fd);
	unlink(path);
	assert_int_equal(mkw_file_close(file), 0);
	assert_int_equal(mkw_engine_close(e), 0);
	/* All of it has been told by now. */
	expect_said("engine opened: policy retry, cache of 1048576 bytes");
	expect_said("page faults inside system calls are");
	expect_said("in one step");
	expect_said("poison");
	expect_said("opened: direct I/O");
}

static void test_level(void **state)
{
	struct mkw_engine *e = open_engine(MKW_LOG_ERROR);

	(void)state;
	mkw__log(e, MKW__LOG_REFUSED, MKW_LOG_WARNING, NULL, 1, 1, -EIO);
	mkw__log(e, MKW__LOG_LOST, MKW_LOG_ERROR, NULL, 0, 4096, 0);
	assert_int_equal(mkw_engine_close(e), 0);
	assert_int_equal(heard.messages, 1);
	expect_said("4096 bytes that could not be written are lost");
}

/* ---- a store whose writes fail ----------------------------------------- */

static void bad_read(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, -EIO);
}

static void bad_write(void *arg, struct mkw_io *io)
{
	(void)arg;
	mkw_io_done(io, -ENOSPC);
}

static struct mkw_file *open_bad(struct mkw_engine *e, bool reads)
{
	struct mkw_file *file;
	struct mkw__store *st;

	assert_int_equal(mkw__memstore_open(1 << 20, &st), 0);
	st->ops.write = bad_write;
	if (!reads)
		st->ops.read = bad_read;
	assert_int_equal(mkw__file_attach(e, st, true, &file), 0);
	return file;
}

static void test_writeback_fails(void **state)
{
	struct mkw_engine *e = open_engine(0);
	struct mkw_file *file = open_bad(e, true);
	struct mkw__os_event done = { 0 };
	char word[8] = "a word";
	void *addr;

	(void)state;
	assert_int_equal(mkw_pwrite(file, word, sizeof(word), 0, 0), 8);
	assert_int_equal(mkw_map(file, NULL, 4096, PROT_READ | PROT_WRITE, 0, 0,
				 &addr), 0);
	heard.engine = e;
	heard.mapping = addr;
	heard.done = &done;
	heard.file = file;
	assert_int_equal(mkw_sync(file), -ENOSPC);
	mkw__os_event_wait(&done);
	assert_int_equal(mkw_unmap(addr, 4096), 0);
	assert_int_equal(heard.read_said, 8);
	assert_int_equal(heard.close_said, -EDEADLK);
	assert_int_equal(mkw_file_close(file), -ENOSPC);
	assert_int_equal(mkw_engine_close(e), 0);
	expect_said("1 file ");
	expect_said("writing back");
	expect_said("No space left on device");
	assert_int_equal(heard.worst, MKW_LOG_ERROR);
}

static void test_read_fails_and_bytes_are_lost(void **state)
{
	struct mkw_engine *e = open_engine(0);
	struct mkw_file *file = open_bad(e, false);
	char page[4096] = "a page";

	(void)state;
	assert_int_equal(mkw_pread(file, page, 8, 8192, 0), -EIO);
	assert_int_equal(mkw_pwrite(file, page, sizeof(page), 0, 0), 4096);
	assert_int_equal(mkw_file_close(file), -ENOSPC);
	assert_int_equal(mkw_engine_close(e), 0);
	expect_said("reading ");
	expect_said("Input/output error");
	expect_said("4096 bytes that could not be written are lost");
}

static void test_slow_listener(void **state)
{
	struct mkw__os_event hold = { 0 }, held = { 0 };
	struct mkw_engine *e = open_engine(0);
	const unsigned more = 7;

	(void)state;
	heard.hold = &hold;
	heard.held = &held;
	mkw__log(e, MKW__LOG_LOST, MKW_LOG_ERROR, NULL, 0, 0, 0);
	mkw__os_event_wait(&held);
	/* It is in the callback, and nobody waits for it. */
	for (unsigned i = 0; i < MKW__LOG_RECORDS + more; i++)
		mkw__log(e, MKW__LOG_LOST, MKW_LOG_ERROR, NULL, 0, i, 0);
	mkw__os_event_set(&hold);
	assert_int_equal(mkw_engine_close(e), 0);
	assert_int_equal(heard.messages, 1 + MKW__LOG_RECORDS + 1);
	expect_said("7 messages were dropped");
}

static void test_environment(void **state)
{
	char path[] = "./mkw-test-log.XXXXXX", text[4096];
	int fd = mkstemp(path), saved = dup(STDERR_FILENO);
	struct mkw_engine *e;
	ssize_t n;
	int r;

	(void)state;
	assert_true(fd >= 0 && saved >= 0);
	unlink(path);
	setenv("MKWRITE_DEBUG", "info", 1);
	fflush(stderr);
	dup2(fd, STDERR_FILENO);
	r = mkw_engine_open(NULL, &e);
	if (!r)
		r = mkw_engine_close(e);
	dup2(saved, STDERR_FILENO);
	close(saved);
	unsetenv("MKWRITE_DEBUG");
	n = pread(fd, text, sizeof(text) - 1, 0);
	close(fd);
	assert_int_equal(r, 0);
	assert_true(n > 0);
	text[n] = '\0';
	if (!strstr(text, "mkwrite: info: engine opened: policy retry, cache of 268435456 bytes\n"))
		fail_msg("said:\n%s", text);
}

static void test_bad_options(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *e;

	(void)state;
	opt.log_level = MKW_LOG_INFO;		/* and nobody to listen */
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	opt.log = listen;
	opt.log_level = MKW_LOG_INFO + 1;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	opt.log_level = 0;
	opt.reserved2 = 1;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
	/* As long as it was before it had a log: what follows is not looked at. */
	opt.size = offsetof(struct mkw_engine_options, log_level);
	assert_int_equal(mkw_engine_open(&opt, &e), 0);
	assert_null(e->log.thread);
	assert_int_equal(mkw_engine_close(e), 0);
}

static void test_stats_text(void **state)
{
	struct mkw_stats st = MKW_STATS_INIT;
	struct mkw_engine *e = open_engine(0);
	char text[4096], shorter[20];
	unsigned long long cache;
	unsigned lines = 0;
	ssize_t n;

	(void)state;
	n = mkw_engine_stats_text(e, text, sizeof(text));
	assert_int_equal(n, strlen(text));
	for (const char *p = text; (p = strchr(p, '\n')); p++)
		lines++;
	/* Two members of 4 bytes, and the size, which is not told. */
	assert_int_equal(lines, 2 + (sizeof(st) - 16) / 8);
	assert_int_equal(mkw_engine_stats(e, &st), 0);
	assert_non_null(strstr(text, "\ncache_bytes "));
	assert_int_equal(sscanf(strstr(text, "\ncache_bytes "),
				"\ncache_bytes %llu", &cache), 1);
	assert_int_equal(cache, st.cache_bytes);
	assert_non_null(strstr(text, "\nlost_bytes 0\n"));
	assert_int_equal(mkw_engine_stats_text(e, shorter, sizeof(shorter)), n);
	assert_memory_equal(shorter, text, sizeof(shorter) - 1);
	assert_int_equal(shorter[sizeof(shorter) - 1], 0);
	assert_int_equal(mkw_engine_stats_text(e, NULL, 0), n);
	assert_int_equal(mkw_engine_stats_text(e, NULL, 1), -EINVAL);
	assert_int_equal(mkw_engine_stats_text(NULL, text, 1), -EINVAL);
	assert_int_equal(mkw_engine_close(e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_probed),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_writeback_fails),
		cmocka_unit_test(test_read_fails_and_bytes_are_lost),
		cmocka_unit_test(test_slow_listener),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_stats_text),
	};
	struct mkw_engine *e;
	int r;

	unsetenv("MKWRITE_DEBUG");
	r = mkw_engine_open(NULL, &e);
	if (r) {
		printf("no engine can be opened here: %s\n", strerror(-r));
		return r == -EPERM || r == -ENOSYS ? 77 : 1;
	}
	mkw_engine_close(e);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
