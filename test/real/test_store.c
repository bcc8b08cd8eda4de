/* SPDX-License-Identifier: MIT */
/*
 * store.h: the host file and the memory store, on a real file system.
 *
 * The shapes of reading, writing, punching and the rest are tried on both
 * stores by the same tests (BOTH below; the state tells which). The rest is the
 * host file's own: how it is opened and owned, O_DIRECT and its alignments,
 * the unaligned end. Files are made in $TMPDIR, or in the current folder, and
 * have no name by the time a test can fail.
 *
 * Of a store opened on a file system without O_DIRECT nothing is skipped: the
 * alignments are 1 there and the same tests run.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/linux/linux.h"
#include "store/store.h"

#define LEN ((uint64_t)1 << 20)

static size_t page;
static char folder[256];

/* A path in the folder of the tests. */
static const char *path_of(const char *name)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

/* An anonymous host file of len zero bytes. */
static struct mkw__store *open_host(uint64_t len)
{
	struct mkw__store *st;
	const char *path = path_of("data");
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), 0);
	close(fd);
	assert_int_equal(st->len, len);
	return st;
}

static struct mkw__store *open_either(void **state, uint64_t len)
{
	struct mkw__store *st;

	mkw__trap_reinstall();
	if (!*state)
		return open_host(len);
	assert_int_equal(mkw__memstore_open(len, &st), 0);
	assert_int_equal(st->len, len);
	return st;
}

/* Aligned memory with a pattern that says where it came from. */
static char *pattern(size_t len, unsigned seed)
{
	char *p = mkw__os_reserve(len);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(seed * 31 + i / 512 * 7 + i + 1);
	return p;
}

static void check_bytes(struct mkw__store *st, uint64_t off, const char *want,
			size_t len)
{
	char *got = mkw__os_reserve(len);

	memset(got, 0x5a, len);
	assert_int_equal(mkw__store_read(st, off, got, len), 0);
	assert_memory_equal(got, want, len);
	mkw__os_unreserve(got, len);
}

static void check_zero(struct mkw__store *st, uint64_t off, size_t len)
{
	char *zeros = mkw__os_reserve(len);

	check_bytes(st, off, zeros, len);
	mkw__os_unreserve(zeros, len);
}

/* ---- both stores ------------------------------------------------------ */

static void test_shapes(void **state)
{
	struct mkw__store *st = open_either(state, LEN);
	uint32_t unit = st->direct_align;
	char *buf = pattern(64 << 10, 1);
	/* offset, length, misalignment of the buffer */
	const struct {
		uint64_t off;
		size_t len, skew;
	} shape[] = {
		{ 0, page, 0 },
		{ page, 16 * page, 0 },
		{ 4 * page, unit, 0 },
		{ 4 * page + unit, unit, 0 },
		{ 5 * page, 2 * page, 1 },
		{ 7 * page, 3 * page, 513 },
		{ 18 * page + 1, page, 0 },
		{ 20 * page, page + 3, 0 },
		{ LEN - page - 7, page + 7, 5 },
		{ LEN - 1, 1, 0 },
	};

	for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
		const char *src = buf + shape[i].skew;

		assert_int_equal(mkw__store_write(st, shape[i].off, src,
						shape[i].len),
				 0);
		check_bytes(st, shape[i].off, src, shape[i].len);
	}
	check_zero(st, 32 * page, page);
	check_zero(st, 17 * page, page + 1);
	check_zero(st, 21 * page + 3, page);
	assert_int_equal(mkw__store_flush(st), 0);
	mkw__os_unreserve(buf, 64 << 10);
	mkw__store_close(st);
}

/* Past the end are zeros, also where the end is inside a block. */
static void test_past_the_end(void **state)
{
	struct mkw__store *st = open_either(state, 3 * page + 100);
	char *buf = pattern(4 * page, 2), *want = mkw__os_reserve(8 * page);

	assert_int_equal(mkw__store_write(st, 0, buf, 3 * page + 100), 0);
	memcpy(want, buf, 3 * page + 100);
	check_bytes(st, 0, want, 8 * page);
	check_bytes(st, page, want + page, 3 * page);
	check_bytes(st, 3 * page + 99, want + 3 * page + 99, page);
	check_zero(st, 3 * page + 100, page);
	check_zero(st, 64 * page, 3 * page);
	mkw__os_unreserve(buf, 4 * page);
	mkw__os_unreserve(want, 8 * page);
	mkw__store_close(st);
}

static void test_bad_buffers(void **state)
{
	struct mkw__store *st = open_either(state, LEN);
	char *p = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(p, 1, 3 * page);
	/* Not unmapped: the store's own memory could come to lie there. */
	assert_int_equal(mprotect(p + 2 * page, page, PROT_NONE), 0);
	assert_int_equal(mprotect(p, page, PROT_READ), 0);
	/* Not writable; not there; aligned and not; past the end. */
	assert_int_equal(mkw__store_read(st, 0, p, page), -EFAULT);
	assert_int_equal(mkw__store_read(st, 0, p + 1, page), -EFAULT);
	assert_int_equal(mkw__store_read(st, LEN, p, page), -EFAULT);
	assert_int_equal(mkw__store_read(st, 0, p + page, 2 * page), -EFAULT);
	assert_int_equal(mkw__store_write(st, 0, p + 2 * page, page), -EFAULT);
	assert_int_equal(mkw__store_write(st, 0, p + page + 1, page), -EFAULT);
	assert_int_equal(mkw__store_write(st, 0, p, 2 * page), 0);
	assert_int_equal(mkw__store_read(st, 0, p + page, page), 0);
	munmap(p, 3 * page);
	mkw__store_close(st);
}

static void test_resize(void **state)
{
	struct mkw__store *st = open_either(state, LEN);
	char *buf = pattern(4 * page, 3);

	assert_int_equal(mkw__store_write(st, 0, buf, 4 * page), 0);
	assert_int_equal(mkw__store_resize(st, page + 10), 0);
	check_zero(st, page + 10, 3 * page);
	assert_int_equal(mkw__store_resize(st, LEN), 0);
	check_bytes(st, 0, buf, page + 10);
	check_zero(st, page + 10, 3 * page);
	/* Far and sparse. */
	assert_int_equal(mkw__store_resize(st, (uint64_t)1 << 40), 0);
	assert_int_equal(mkw__store_write(st, ((uint64_t)1 << 40) - page, buf,
					page),
			 0);
	check_bytes(st, ((uint64_t)1 << 40) - page, buf, page);
	check_zero(st, (uint64_t)1 << 39, page);
	assert_int_equal(mkw__store_resize(st, 0), 0);
	check_zero(st, 0, page);
	mkw__os_unreserve(buf, 4 * page);
	mkw__store_close(st);
}

/* EOPNOTSUPP is an answer too, and changes nothing. */
static bool worked(int err, struct mkw__store *st, uint64_t off,
		   const char *unchanged, size_t len)
{
	if (err == -EOPNOTSUPP) {
		check_bytes(st, off, unchanged, len);
		return false;
	}
	assert_int_equal(err, 0);
	return true;
}

static void test_punch_and_zero(void **state)
{
	struct mkw__store *st = open_either(state, 64 * page);
	char *buf = pattern(64 * page, 4);

	assert_int_equal(mkw__store_write(st, 0, buf, 64 * page), 0);
	if (worked(mkw__store_punch(st, 16 * page, 16 * page), st, 0, buf,
		   64 * page)) {
		check_zero(st, 16 * page, 16 * page);
		assert_int_equal(mkw__store_seek(st, 0, false), 16 * page);
		assert_int_equal(mkw__store_seek(st, 16 * page, true), 32 * page);
		assert_int_equal(mkw__store_seek(st, 5, true), 5);
	}
	if (worked(mkw__store_zero(st, 40 * page + 3, 2 * page), st, 40 * page,
		   buf + 40 * page, 4 * page))
		check_zero(st, 40 * page + 3, 2 * page);
	check_bytes(st, 40 * page, buf + 40 * page, 3);
	check_bytes(st, 42 * page + 3, buf + 42 * page + 3, page);
	check_bytes(st, 0, buf, 16 * page);
	check_bytes(st, 32 * page, buf + 32 * page, 8 * page);

	/* Edges inside one page; the length stays. */
	if (worked(mkw__store_punch(st, 63 * page + 10, 2 * page), st, 62 * page,
		   buf + 62 * page, 2 * page))
		check_zero(st, 63 * page + 10, page - 10);
	check_bytes(st, 63 * page, buf + 63 * page, 10);
	(void)worked(mkw__store_allocate(st, 64 * page, 64 * page), st, 0, buf,
		     page);
	assert_int_equal(mkw__store_seek(st, 63 * page, false) <=
				 (int64_t)(64 * page),
			 1);
	mkw__os_unreserve(buf, 64 * page);
	mkw__store_close(st);
}

static void test_seek(void **state)
{
	struct mkw__store *st = open_either(state, 4096 * page);
	char *buf = pattern(page, 5);

	assert_int_equal(mkw__store_seek(st, 0, true), -ENXIO);
	assert_int_equal(mkw__store_seek(st, 7, false), 7);
	assert_int_equal(mkw__store_write(st, 2048 * page, buf, page), 0);
	assert_int_equal(mkw__store_flush(st), 0);
	assert_int_equal(mkw__store_seek(st, 0, true), 2048 * page);
	assert_int_equal(mkw__store_seek(st, 2048 * page, false), 2049 * page);
	assert_int_equal(mkw__store_seek(st, 2049 * page, true), -ENXIO);
	mkw__os_unreserve(buf, page);
	mkw__store_close(st);
}

/* ---- asynchronous ----------------------------------------------------- */

struct transfer {
	struct mkw__os_io io;
	int res;
	unsigned dones;
};

static void transfer_done(struct mkw__os_io *io, int res)
{
	struct transfer *t = (struct transfer *)io;

	t->res = res;
	t->dones++;
}

static int transfer(struct mkw__store *st, struct mkw__os_loop *l, bool write,
		    uint64_t off, char *buf, size_t len)
{
	struct transfer t = { .io = { .done = transfer_done,
				      .write = write,
				      .off = off,
				      .buf = buf,
				      .len = len } };

	mkw__store_submit(st, l, &t.io);
	assert_int_equal(t.dones, 0);
	while (!t.dones)
		mkw__os_loop_wait(l, UINT64_MAX);
	assert_int_equal(t.dones, 1);
	return t.res;
}

static void try_submit(void **state, bool no_uring)
{
	uint64_t len = 20 * page + 77;
	struct mkw__store *st = open_either(state, len);
	char *buf = pattern(64 * page, 6), *got = mkw__os_reserve(64 * page);
	struct transfer many[16];
	struct mkw__os_loop *l;
	unsigned dones;

	mkw__os_loop_no_uring(no_uring);
	assert_int_equal(mkw__os_loop_create(16, &l), 0);
	mkw__os_loop_no_uring(false);

	/* Aligned, at the end of the file, from an odd address, past the end */
	assert_int_equal(transfer(st, l, true, 0, buf, 16 * page), 0);
	assert_int_equal(transfer(st, l, true, 16 * page, buf + 16 * page,
				  4 * page + 77),
			 0);
	assert_int_equal(transfer(st, l, true, 3 * page, buf + 3, page), 0);
	memmove(buf + 3 * page, buf + 3, page);
	memset(buf + len, 0, 64 * page - len);
	memset(got, 1, 64 * page);
	assert_int_equal(transfer(st, l, false, 0, got, 64 * page), 0);
	assert_memory_equal(got, buf, 64 * page);
	memset(got, 1, page);
	assert_int_equal(transfer(st, l, false, 40 * page, got, page), 0);
	assert_memory_equal(got, buf + 40 * page, page);
	assert_int_equal(transfer(st, l, false, 20 * page, got + 1, 77), 0);
	assert_memory_equal(got + 1, buf + 20 * page, 77);

	/* As many at once as the loop takes. */
	memset(got, 1, 64 * page);
	for (unsigned i = 0; i < 16; i++) {
		many[i] = (struct transfer){
			.io = { .done = transfer_done,
				.off = i * page,
				.buf = got + i * page,
				.len = page }
		};
		mkw__store_submit(st, l, &many[i].io);
	}
	do {
		mkw__os_loop_wait(l, UINT64_MAX);
		dones = 0;
		for (unsigned i = 0; i < 16; i++)
			dones += many[i].dones;
	} while (dones < 16);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(many[i].res, 0);
	assert_memory_equal(got, buf, 16 * page);

	mkw__os_loop_destroy(l);
	mkw__os_unreserve(buf, 64 * page);
	mkw__os_unreserve(got, 64 * page);
	mkw__store_close(st);
}

static void test_submit(void **state)
{
	try_submit(state, false);
}

static void test_submit_without_uring(void **state)
{
	try_submit(state, true);
}

/* A write never sets a length that nobody set. */
static void test_length_stays(void **state)
{
	struct mkw__store *st;
	struct mkw__os_loop *l;
	char *buf = pattern(2 * page, 7);
	struct stat sb;
	int fd = open(path_of("length"), O_RDWR | O_CREAT | O_EXCL, 0600);

	(void)state;
	unlink(path_of("length"));
	assert_int_equal(ftruncate(fd, (off_t)page + 700), 0);
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), 0);
	assert_int_equal(mkw__store_write(st, 0, buf, page + 700), 0);
	assert_int_equal(mkw__os_loop_create(1, &l), 0);
	assert_int_equal(transfer(st, l, true, page, buf + page, 700), 0);
	(void)mkw__store_allocate(st, 0, 16 * page);
	(void)mkw__store_punch(st, page, 16 * page);
	(void)mkw__store_zero(st, 0, 16 * page);
	assert_int_equal(fstat(fd, &sb), 0);
	assert_int_equal(sb.st_size, page + 700);
	mkw__os_loop_destroy(l);
	mkw__os_unreserve(buf, 2 * page);
	mkw__store_close(st);
	close(fd);
}

/* ---- the host file's own ---------------------------------------------- */

static int try_open(const char *name, int flags)
{
	struct mkw__store *st;
	int err = mkw__hostfile_open(path_of(name), flags, 0600, &st);

	if (!err)
		mkw__store_close(st);
	return err;
}

static void test_open(void **state)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct mkw__store *st;
	struct stat sb;
	char name[300];
	int s;

	(void)state;
	assert_int_equal(try_open("none", O_RDWR), -ENOENT);
	assert_int_equal(try_open("f", O_WRONLY | O_CREAT), -EINVAL);
	assert_int_equal(try_open("f", O_RDWR | O_CREAT | O_APPEND), -EINVAL);
	assert_int_equal(try_open("f", O_RDWR | O_CREAT | O_DIRECT), -EINVAL);
	assert_int_equal(mkw__hostfile_open(NULL, O_RDWR, 0, &st), -EINVAL);
	assert_int_equal(try_open(".", O_RDONLY), -EINVAL);
	assert_int_equal(try_open(".", O_RDWR), -EINVAL);
	assert_int_equal(mkw__hostfile_open("/dev/null", O_RDWR, 0, &st),
			 -EINVAL);
	assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
	assert_int_equal(try_open("fifo", O_RDONLY), -EINVAL);
	assert_int_equal(try_open("fifo", O_RDWR), -EINVAL);
	unlink(path_of("fifo"));
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (strlen(path_of("socket")) < sizeof(un.sun_path)) {
		strcpy(un.sun_path, path_of("socket"));
		assert_int_equal(bind(s, (struct sockaddr *)&un, sizeof(un)),
				 0);
		assert_int_equal(try_open("socket", O_RDWR), -EINVAL);
		unlink(path_of("socket"));
	}
	close(s);

	assert_int_equal(try_open("f", O_RDWR | O_CREAT | O_EXCL), 0);
	assert_int_equal(try_open("f", O_RDWR | O_CREAT | O_EXCL), -EEXIST);
	snprintf(name, sizeof(name), "%s", path_of("link"));
	assert_int_equal(symlink("f", name), 0);
	assert_int_equal(try_open("link", O_RDWR), 0);
	assert_int_equal(try_open("link", O_RDWR | O_NOFOLLOW), -ELOOP);
	unlink(name);

	/* Not truncated here: nobody knows yet whether it may be. */
	assert_int_equal(truncate(path_of("f"), 1000), 0);
	assert_int_equal(mkw__hostfile_open(path_of("f"), O_RDWR | O_TRUNC, 0,
					    &st),
			 0);
	assert_int_equal(stat(path_of("f"), &sb), 0);
	assert_int_equal(sb.st_size, 1000);
	assert_int_equal(st->len, 1000);
	assert_int_equal(st->ino, sb.st_ino);
	assert_int_equal(st->dev, sb.st_dev);
	assert_false(st->read_only);
	mkw__store_close(st);

	assert_int_equal(mkw__hostfile_open(path_of("f"), O_RDONLY, 0, &st), 0);
	assert_true(st->read_only);
	assert_int_equal(mkw__store_write(st, 0, name, 1), -EBADF);
	mkw__store_close(st);
	unlink(path_of("f"));
}

static void test_open_fd(void **state)
{
	struct mkw__store *st;
	char *buf = pattern(page, 8), back[16];
	int fd, fds[2];

	(void)state;
	assert_int_equal(mkw__hostfile_open_fd(-1, &st), -EBADF);
	fd = open(path_of("f"), O_RDWR | O_CREAT | O_EXCL | O_APPEND, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(2 * page)), 0);

	/* Neither O_APPEND nor the file position is the caller's. */
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), 0);
	assert_int_equal(mkw__store_write(st, 5, buf, 16), 0);
	assert_int_equal(pread(fd, back, 16, 5), 16);
	assert_memory_equal(back, buf, 16);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
	mkw__store_close(st);
	close(fd);

	fd = open(path_of("f"), O_RDONLY);
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), 0);
	assert_true(st->read_only);
	mkw__store_close(st);
	close(fd);
	fd = open(path_of("f"), O_WRONLY);
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), -EBADF);
	close(fd);
	fd = open(path_of("f"), O_PATH);
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), -EBADF);
	close(fd);
	unlink(path_of("f"));
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(mkw__hostfile_open_fd(fds[0], &st), -EINVAL);
	close(fds[0]);
	close(fds[1]);
	fd = open(folder, O_RDONLY);
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), -EINVAL);
	close(fd);

	/* A file without a name, in memory: no O_DIRECT is claimed. */
	fd = memfd_create("store", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, (off_t)page), 0);
	assert_int_equal(mkw__hostfile_open_fd(fd, &st), 0);
	close(fd);
	assert_false(st->direct);
	assert_int_equal(st->direct_align, 1);
	assert_int_equal(st->memory_align, 1);
	assert_int_equal(mkw__store_write(st, 1, buf, 100), 0);
	check_bytes(st, 1, buf, 100);
	mkw__store_close(st);
	mkw__os_unreserve(buf, page);
}

/* Is another process allowed to have the file of the store? */
static int own_elsewhere(const char *path, int flags)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct mkw__store *st;
		int err = mkw__hostfile_open(path, flags, 0, &st);

		_exit(err ? 255 : -mkw__store_own(st));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static void test_own(void **state)
{
	char path[300];
	struct mkw__store *st, *second;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s", path_of("f"));
	assert_int_equal(mkw__hostfile_open(path, O_RDWR | O_CREAT, 0600, &st),
			 0);
	assert_int_equal(own_elsewhere(path, O_RDWR), 0);
	assert_int_equal(mkw__store_own(st), 0);
	assert_int_equal(own_elsewhere(path, O_RDWR), -EBUSY);
	assert_int_equal(own_elsewhere(path, O_RDONLY), -EBUSY);
	/* In this process too; and opening and closing it lets nothing go. */
	assert_int_equal(mkw__hostfile_open(path, O_RDONLY, 0, &second), 0);
	assert_int_equal(mkw__store_own(second), -EBUSY);
	mkw__store_close(second);
	fd = open(path, O_RDONLY);
	close(fd);
	assert_int_equal(own_elsewhere(path, O_RDWR), -EBUSY);
	mkw__store_close(st);

	assert_int_equal(mkw__hostfile_open(path, O_RDONLY, 0, &st), 0);
	assert_int_equal(mkw__store_own(st), 0);
	assert_int_equal(own_elsewhere(path, O_RDONLY), 0);
	assert_int_equal(own_elsewhere(path, O_RDWR), -EBUSY);
	mkw__store_close(st);
	assert_int_equal(own_elsewhere(path, O_RDWR), 0);
	unlink(path);
}

/*
 * O_DIRECT really is used, and for single units of its alignment: the pages are
 * not in the kernel's cache afterwards.
 */
static void test_direct(void **state)
{
	struct mkw__store *st = open_host(LEN);
	char *buf = pattern(64 * page, 9), *map;
	unsigned char in_core[64];
	struct mkw__os_loop *l;
	int fd;

	(void)state;
	if (!st->direct) {
		print_message("skipped: no O_DIRECT in %s\n", folder);
		mkw__store_close(st);
		skip();
	}
	assert_true(st->direct_align >= 512 && st->direct_align <= page);
	mkw__store_close(st);

	assert_int_equal(mkw__hostfile_open(path_of("f"), O_RDWR | O_CREAT,
					    0600, &st),
			 0);
	fd = open(path_of("f"), O_RDWR);
	unlink(path_of("f"));
	assert_int_equal(ftruncate(fd, (off_t)(64 * page)), 0);
	assert_int_equal(mkw__os_loop_create(1, &l), 0);
	assert_int_equal(mkw__store_write(st, 0, buf, 32 * page), 0);
	assert_int_equal(mkw__store_write(st, 32 * page, buf + 1, 8 * page), 0);
	assert_int_equal(transfer(st, l, true, 40 * page, buf, 24 * page), 0);
	assert_int_equal(mkw__store_write(st, 3 * page + st->direct_align,
					buf + 5 * page, st->direct_align),
			 0);
	check_bytes(st, 3 * page + st->direct_align, buf + 5 * page,
		    st->direct_align);
	check_bytes(st, 32 * page, buf + 1, 8 * page);
	assert_int_equal(transfer(st, l, false, 40 * page, buf, 24 * page), 0);
	map = mmap(NULL, 64 * page, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	assert_int_equal(mincore(map, 64 * page, in_core), 0);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(in_core[i] & 1, 0);
	munmap(map, 64 * page);
	mkw__os_loop_destroy(l);
	mkw__os_unreserve(buf, 64 * page);
	mkw__store_close(st);
	close(fd);
}

int main(void)
{
	static int memory;
	struct mkw__os_mmu_caps caps;
	struct mkw__os_mmu *mmu;
	const char *tmp = getenv("TMPDIR");
	int failed, err;
#define BOTH(fn)                                               \
	{ #fn ", host file", fn, NULL, NULL, NULL }, { #fn ", memory", fn, \
						       NULL, NULL, &memory }
	const struct CMUnitTest tests[] = {
		BOTH(test_shapes),
		BOTH(test_past_the_end),
		BOTH(test_bad_buffers),
		BOTH(test_resize),
		BOTH(test_punch_and_zero),
		BOTH(test_seek),
		BOTH(test_submit),
		BOTH(test_submit_without_uring),
		cmocka_unit_test(test_length_stays),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_fd),
		cmocka_unit_test(test_own),
		cmocka_unit_test(test_direct),
	};

	page = mkw__os_page_size();
	/* For the signal handlers, which bad buffers need. */
	err = mkw__os_mmu_open(true, &mmu, &caps);
	if (err) {
		printf("skipped: no userfaultfd: %s\n", strerror(-err));
		return 77;
	}
	snprintf(folder, sizeof(folder), "%s/mkwrite-store-XXXXXX",
		 tmp ? tmp : ".");
	if (!mkdtemp(folder)) {
		printf("skipped: no folder %s: %s\n", folder, strerror(errno));
		return 77;
	}
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	mkw__os_mmu_close(mmu);
	return failed;
}
