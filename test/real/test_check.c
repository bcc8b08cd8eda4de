/* SPDX-License-Identifier: MIT */
/*
 * test_check.c: the whole of mkwrite check, recording and judging together.
 *
 * A fake target keeps its file in a memfd, with one mutex around everything but
 * loads and stores: it is clean by construction, and the check has to say so. Then
 * it is given one bug at a time, and the check has to find it and give it its
 * name. The same with bugs planted into the engine (src/core/mutants.def), on
 * real faults. After that the kernel's file system and the engine themselves, an
 * interrupt, a target that hangs, and the command line.
 *
 * The directory used is MKW_DIR, or the current one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "check/holes.h"
#include "check/interrupt.h"
#include "check/late.h"
#include "check/record.h"
#include "check/report.h"
#include "core/testing.h"

/* ---- the fake ------------------------------------------------------------- */

enum bug {
	BUG_NONE,
	BUG_DROPS_DIRECT_WRITES,
	BUG_DROPS_WRITES,
	BUG_LOSES_STORES,	/* copies a page to itself now and then */
	BUG_STALE_DIRECT_READS,	/* from a copy of the file made earlier */
	BUG_PUNCH_KEEPS,	/* a punch that does nothing */
	BUG_TRUNCATE_KEEPS,	/* the tail is back when the file grows */
	BUG_FLIPS_BITS,
	BUG_MISPLACES_WRITES,
	BUG_SPURIOUS_EIO,
	BUG_TEARS_WRITES,
	BUG_SHORT_WRITES,
	BUG_PAST_END,
	BUG_WRONG_SIZE,
	BUG_HOLE_OVER_DATA,
	BUG_KEEPS_BLOCKS,
	BUG_LEAVES_BLOCKS,	/* one, of each punch of some */
	BUG_MOVES_NOTHING,	/* at a collapse or insert */
	BUG_MAPS_START,		/* a mapping that moved shows the start of the file */
	BUG_PROTECTS_NOTHING,
	BUG_STAYS_PROTECTED,	/* what is to be accessible again is not */
	BUG_PINS_COPIES,	/* what is stored to pinned memory goes nowhere */
	BUG_HANGS,
	BUG_INTERRUPTS,		/* no bug: SIGINT comes after a while */
};

struct fake {
	enum bug bug;
	int fd;
	char *map;		/* its own, which nobody protects */
	size_t len, page;
	pthread_mutex_t mutex;
	pthread_cond_t unpinned;
	/* All under the mutex: */
	off_t size;
	unsigned pins;		/* while there are, nothing is cut off */
	unsigned long calls;
	char *zeros;		/* a page */
	char *copy;		/* of the file, as it was at some time */
	char *tail;		/* bytes past the end, before they went */
	int64_t left;		/* blocks that punches left, a few */
	pthread_mutex_t hang;
};

/* Fewer than are noticed in a file that is one hole. */
#define LEFT_MAX 24

/* Epochs in which every profile had its turn. */
#define ROTA 16u

static enum bug planted;

/* One call in n, and not at set-up. */
static bool now_and_then(struct fake *f, unsigned n)
{
	return f->calls > 100 && f->calls % n == 0;
}

/* Between the mapping and memory, as loads and stores of words do it. */
static void from_map(struct fake *f, char *dst, off_t off, size_t len)
{
	_Atomic uint64_t *src = (void *)(f->map + off);

	for (size_t i = 0; i < len / 8; i++)
		((uint64_t *)(void *)dst)[i] =
			atomic_load_explicit(&src[i], memory_order_relaxed);
}

static void to_map(struct fake *f, off_t off, const char *src, size_t len)
{
	_Atomic uint64_t *dst = (void *)(f->map + off);

	for (size_t i = 0; i < len / 8; i++)
		atomic_store_explicit(&dst[i],
				      src ? ((const uint64_t *)(const void *)
						     src)[i] : 0,
				      memory_order_relaxed);
}

/* As long as before or longer; bytes past the old end must be zero. */
static void fake_grow(struct fake *f, off_t size)
{
	size_t rest = (size_t)-f->size & (f->page - 1);

	if (rest && f->bug != BUG_PAST_END)
		to_map(f, f->size, NULL, rest);
	assert_int_equal(ftruncate(f->fd, size), 0);
	if (f->bug == BUG_TRUNCATE_KEEPS && !rest)
		assert_int_equal(pwrite(f->fd, f->tail + f->size,
					(size_t)(size - f->size), f->size),
				 size - f->size);
	f->size = size;
}

static int fake_open(struct target *t, const struct check_config *cfg,
		     size_t len)
{
	struct fake *f = calloc(1, sizeof(*f));

	(void)cfg;
	assert_non_null(f);
	f->bug = planted;
	f->len = len;
	f->page = (size_t)sysconf(_SC_PAGESIZE);
	f->size = (off_t)len;
	f->zeros = calloc(1, f->page);
	f->copy = calloc(1, len);
	assert_non_null(f->zeros);
	f->tail = calloc(1, len);
	assert_non_null(f->copy);
	assert_non_null(f->tail);
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->unpinned, NULL);
	pthread_mutex_init(&f->hang, NULL);
	f->fd = memfd_create("fake", MFD_CLOEXEC);
	assert_true(f->fd >= 0);
	assert_int_equal(ftruncate(f->fd, (off_t)len), 0);
	f->map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	assert_true(f->map != MAP_FAILED);
	t->map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	assert_true(t->map != MAP_FAILED);
	t->direct_align = 512;
	snprintf(t->label, sizeof(t->label), "fake");
	t->priv = f;
	if (f->bug == BUG_HANGS)
		pthread_mutex_lock(&f->hang);
	return 0;
}

static void fake_close(struct target *t)
{
	struct fake *f = t->priv;

	munmap(f->map, f->len);
	munmap((void *)t->map, f->len);
	close(f->fd);
	free(f->zeros);
	free(f->copy);
	free(f->tail);
	pthread_mutex_destroy(&f->mutex);
	pthread_mutex_destroy(&f->hang);
	free(f);
	t->priv = NULL;
}

static ssize_t fake_pread(struct target *t, void *buf, size_t len, off_t off,
			  unsigned way)
{
	struct fake *f = t->priv;
	ssize_t n;

	pthread_mutex_lock(&f->mutex);
	f->calls++;
	if (f->bug == BUG_LOSES_STORES && now_and_then(f, 8)) {
		from_map(f, f->copy, 0, f->page);
		sched_yield();
		to_map(f, 0, f->copy, f->page);
	}
	if (f->bug == BUG_STALE_DIRECT_READS && f->calls % 512 == 0)
		from_map(f, f->copy, 0, (size_t)f->size);
	n = pread(f->fd, buf, len, off);
	if (f->bug == BUG_STALE_DIRECT_READS && way & WAY_DIRECT &&
	    now_and_then(f, 16) && n > 0)
		memcpy(buf, f->copy + off, (size_t)n);
	if (f->bug == BUG_FLIPS_BITS && now_and_then(f, 64) && n > 0)
		for (ssize_t i = 0; i < n; i += 8)
			((char *)buf)[i] ^= 1;
	if (f->bug == BUG_SPURIOUS_EIO && now_and_then(f, 100))
		n = -EIO;
	if (f->bug == BUG_INTERRUPTS && f->calls > 2000) {
		f->bug = BUG_NONE;
		kill(getpid(), SIGINT);
	}
	pthread_mutex_unlock(&f->mutex);
	return n;
}

static ssize_t fake_pwrite(struct target *t, const void *buf, size_t len,
			   off_t off, unsigned way)
{
	struct fake *f = t->priv;
	ssize_t n = (ssize_t)len;
	size_t half = 0;
	bool drop;

	pthread_mutex_lock(&f->mutex);
	f->calls++;
	if (off + n > f->size)
		fake_grow(f, off + n);
	drop = now_and_then(f, 32) &&
	       f->bug == (way & WAY_DIRECT ? BUG_DROPS_DIRECT_WRITES : BUG_DROPS_WRITES);
	if (f->bug == BUG_MISPLACES_WRITES && now_and_then(f, 64) &&
	    off >= (off_t)f->page)
		off -= (off_t)f->page;
	if (f->bug == BUG_SHORT_WRITES && now_and_then(f, 100))
		n = (ssize_t)(len / 16 * 8);
	if (f->bug == BUG_TEARS_WRITES && len > 8) {
		half = len / 16 * 8;
		n = pwrite(f->fd, buf, half, off);
		pthread_mutex_unlock(&f->mutex);
		sched_yield();
		pthread_mutex_lock(&f->mutex);
		/* It may have become shorter meanwhile. */
		if (off + (off_t)len > f->size)
			fake_grow(f, off + (off_t)len);
		n = (ssize_t)len;
	}
	if (!drop)
		assert_int_equal(pwrite(f->fd, (const char *)buf + half,
					(size_t)n - half, off + (off_t)half),
				 n - (ssize_t)half);
	pthread_mutex_unlock(&f->mutex);
	return n;
}

static int fake_fallocate(struct target *t, int mode, off_t off, off_t len)
{
	struct fake *f = t->priv;
	int err = 0;

	/* One that says it has moved what it has not. */
	if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
		return f->bug == BUG_MOVES_NOTHING ? 0 : -EOPNOTSUPP;
	pthread_mutex_lock(&f->mutex);
	if (mode == FALLOC_FL_KEEP_SIZE) {
		pthread_mutex_unlock(&f->mutex);
		return 0;
	}
	f->calls++;
	if (now_and_then(f, 16) && f->left < LEFT_MAX)
		f->left++;
	if (f->bug != BUG_PUNCH_KEEPS || !now_and_then(f, 8))
		err = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE |
					       FALLOC_FL_KEEP_SIZE,
				off, len) ? -errno : 0;
	pthread_mutex_unlock(&f->mutex);
	return err;
}

static int fake_truncate(struct target *t, off_t size)
{
	struct fake *f = t->priv;

	pthread_mutex_lock(&f->mutex);
	f->calls++;
	while (size < f->size && f->pins)
		pthread_cond_wait(&f->unpinned, &f->mutex);
	if (size >= f->size) {
		fake_grow(f, size);
	} else {
		from_map(f, f->tail + size, size, (size_t)(f->size - size));
		assert_int_equal(ftruncate(f->fd, size), 0);
		f->size = size;
	}
	pthread_mutex_unlock(&f->mutex);
	return 0;
}

static int fake_sync(struct target *t)
{
	struct fake *f = t->priv;

	if (f->bug == BUG_HANGS) {
		pthread_mutex_lock(&f->hang);
		pthread_mutex_unlock(&f->hang);
	}
	return 0;
}

static int64_t fake_size(struct target *t)
{
	struct fake *f = t->priv;

	return f->size - (f->bug == BUG_WRONG_SIZE);
}

static int64_t fake_blocks(struct target *t)
{
	struct fake *f = t->priv;
	int64_t n = 0;

	/* Of a memfd a page that was loaded has blocks, too. */
	for (size_t at = 0; at < (size_t)f->size; at += f->page)
		n += memcmp(f->map + at, f->zeros, f->page) ? 1 : 0;
	if (f->bug == BUG_LEAVES_BLOCKS)
		n += f->left;
	return n * (int64_t)f->page +
	       (f->bug == BUG_KEEPS_BLOCKS && f->calls > 100 ? 1 << 20 : 0);
}

static int64_t fake_seek(struct target *t, off_t off, int whence)
{
	struct fake *f = t->priv;
	off_t at = lseek(f->fd, off, whence);

	if (at < 0)
		return -errno;
	if (f->bug == BUG_HOLE_OVER_DATA && whence == SEEK_DATA)
		at += (off_t)f->page;
	return at;
}

/* A race detector would take mmap() for a write of the range, and miss where it goes. */
static int fake_map(struct fake *f, void *to, off_t off, size_t len, void **at)
{
	long new = syscall(SYS_mmap, to, len, PROT_READ | PROT_WRITE,
			   MAP_SHARED | (to ? MAP_FIXED : 0), f->fd, off);

	*at = (void *)new;
	return new < 0 ? -errno : 0;
}

static int fake_map_more(struct target *t, off_t off, size_t len, void **at)
{
	return fake_map(t->priv, NULL, off, len, at);
}

static int fake_unmap(struct target *t, void *at, size_t len)
{
	(void)t;
	return syscall(SYS_munmap, at, len) ? -errno : 0;
}

static int fake_remap(struct target *t, void *old, size_t old_len, size_t len,
		      void *to, void **at)
{
	struct fake *f = t->priv;

	if (f->bug == BUG_MAPS_START && to) {
		fake_map(f, to, 0, len, at);
		return fake_unmap(t, old, old_len);
	}
	*at = mremap(old, old_len, len,
		     MREMAP_MAYMOVE | (to ? MREMAP_FIXED : 0), to);
	return *at == MAP_FAILED ? -errno : 0;
}

static int fake_protect(struct target *t, void *at, size_t len, int prot)
{
	struct fake *f = t->priv;

	if (f->bug == BUG_PROTECTS_NOTHING ||
	    (f->bug == BUG_STAYS_PROTECTED && prot & PROT_WRITE))
		return 0;
	return mprotect(at, len, prot) ? -errno : 0;
}

static int fake_pin(struct target *t, size_t len, off_t off, bool store,
		    unsigned slot)
{
	struct fake *f = t->priv;
	int r;

	(void)store;
	(void)slot;
	pthread_mutex_lock(&f->mutex);
	r = off + (off_t)len > f->size ? -ENXIO : 0;
	f->pins += !r;
	pthread_mutex_unlock(&f->mutex);
	return r;
}

static void fake_unpin(struct target *t, unsigned slot)
{
	struct fake *f = t->priv;

	(void)slot;
	pthread_mutex_lock(&f->mutex);
	f->pins--;
	pthread_cond_broadcast(&f->unpinned);
	pthread_mutex_unlock(&f->mutex);
}

static ssize_t fake_pinned(struct target *t, bool store, void *buf, size_t len,
			   off_t off, unsigned slot)
{
	struct fake *f = t->priv;
	ssize_t n = (ssize_t)len;

	(void)slot;
	pthread_mutex_lock(&f->mutex);
	f->calls++;
	if (!store)
		from_map(f, buf, off, len);
	else if (f->bug != BUG_PINS_COPIES || !now_and_then(f, 4))
		to_map(f, off, buf, len);
	pthread_mutex_unlock(&f->mutex);
	return n;
}

static const struct target_ops fake_ops = {
	.name = "fake",
	.atomic = true,
	.open = fake_open,
	.pread = fake_pread,
	.pwrite = fake_pwrite,
	.fallocate = fake_fallocate,
	.truncate = fake_truncate,
	.sync = fake_sync,
	.close = fake_close,
	.size = fake_size,
	.blocks = fake_blocks,
	.blocks_exact = true,
	.seek = fake_seek,
	.map_more = fake_map_more,
	.unmap = fake_unmap,
	.remap = fake_remap,
	.protect = fake_protect,
	.pin = fake_pin,
	.unpin = fake_unpin,
	.pinned = fake_pinned,
};

/* ---- what it must find ------------------------------------------------------ */

static const char *dir(void)
{
	const char *d = getenv("MKW_DIR");

	return d ? d : ".";
}

/* Of run(); 0: none, or as always. */
static uint32_t delay_ns;
static uint64_t file_bytes;
static unsigned hang_seconds;
static const char *profile;
static bool atomic_writes, inline_faults, measure;

/* Runs until a class of the set (bits) was seen, or as long as is reasonable. */
static struct check_result *run(const struct target_ops *ops, enum bug bug,
				unsigned epochs, unsigned until)
{
	static struct check_result res;
	struct check_config cfg = CHECK_CONFIG_INIT;

	planted = bug;
	cfg.target_ops = ops;
	cfg.dir = dir();
	cfg.seconds = 60;
	cfg.epochs = epochs;
	cfg.until = until;
	cfg.delay_ns = delay_ns;
	cfg.profile = profile;
	cfg.atomic_writes = atomic_writes;
	cfg.inline_faults = inline_faults;
	cfg.measure = measure;
	if (file_bytes)
		cfg.file_bytes = file_bytes;
	/* The fake is fast, and what is recorded has to be judged. */
	if (ops == &fake_ops)
		cfg.threads = 3;
	if (hang_seconds)
		cfg.hang_seconds = hang_seconds;
	if (mkw__check_run(&cfg, &res))
		fail_msg("%s", res.error);
	return &res;
}

static bool clean(const struct check_result *res)
{
	struct check_config cfg = CHECK_CONFIG_INIT;

	for (unsigned i = 0; i < CHECK_CLASSES; i++)
		if (res->classes[i].count &&
		    mkw__check_failure((enum check_class)i, &cfg, res->atomic))
			return false;
	return true;
}

static void print_anomalies(const struct check_result *res)
{
	for (unsigned i = 0; i < CHECK_CLASSES; i++)
		if (res->classes[i].count)
			print_message("%s: %ju, %s\n",
				      mkw__check_class_name((enum check_class)i),
				      (uintmax_t)res->classes[i].count,
				      res->classes[i].example);
}

/*
 * The class is found, and nothing but it and what is in `also` (bits). One in fifty
 * may have another name: where one of two writes must have been lost, one of them
 * is named.
 */
static void expect_class(enum bug bug, enum check_class class, unsigned also)
{
	const struct check_result *res = run(&fake_ops, bug, 0, 1u << class);
	uint64_t count = res->classes[class].count;
	bool fine = count > 0;

	for (unsigned i = 0; i < CHECK_CLASSES; i++)
		if (i != class && !(also >> i & 1))
			fine &= res->classes[i].count <= count / 50;
	if (!fine)
		print_anomalies(res);
	assert_true(fine);
	assert_false(clean(res));
	assert_true(res->classes[class].example[0]);
}

static void sound_fake(void **state)
{
	struct check_result *res = run(&fake_ops, BUG_NONE, ROTA, 0);

	(void)state;
	if (!clean(res))
		print_anomalies(res);
	assert_true(clean(res));
	/* It has no disturb(). */
	for (unsigned i = 0; i < OP_DISTURB; i++)
		assert_true(res->ops[i] > 0);
	assert_true(res->ops[OP_REMAP] > 0);
}

#define ALSO(class) (1u << CHECK_##class)

static void dropped_direct_writes(void **state)
{
	(void)state;
	expect_class(BUG_DROPS_DIRECT_WRITES, CHECK_LOST_DIRECT_WRITE, 0);
}

static void dropped_writes(void **state)
{
	(void)state;
	expect_class(BUG_DROPS_WRITES, CHECK_LOST_WRITE, 0);
}

static void lost_stores(void **state)
{
	(void)state;
	expect_class(BUG_LOSES_STORES, CHECK_LOST_STORE, ALSO(STALE_READ));
}

static void stale_direct_reads(void **state)
{
	(void)state;
	/* What is overwritten before it is read again counts as lost. */
	expect_class(BUG_STALE_DIRECT_READS, CHECK_STALE_READ,
		     ALSO(LOST_STORE) | ALSO(LOST_WRITE) |
			     ALSO(LOST_DIRECT_WRITE) | ALSO(RESURRECTED) |
			     ALSO(TORN));
}

static void punch_keeps(void **state)
{
	(void)state;
	expect_class(BUG_PUNCH_KEEPS, CHECK_RESURRECTED, 0);
}

static void truncate_keeps(void **state)
{
	(void)state;
	expect_class(BUG_TRUNCATE_KEEPS, CHECK_RESURRECTED,
		     ALSO(STALE_READ) | ALSO(LOST_STORE) | ALSO(LOST_WRITE) |
			     ALSO(LOST_DIRECT_WRITE) | ALSO(TORN) |
			     ALSO(PAST_END) | ALSO(NEVER_WRITTEN));
}

static void flipped_bits(void **state)
{
	(void)state;
	expect_class(BUG_FLIPS_BITS, CHECK_NEVER_WRITTEN, 0);
}

static void misplaced_writes(void **state)
{
	(void)state;
	expect_class(BUG_MISPLACES_WRITES, CHECK_NEVER_WRITTEN,
		     ALSO(LOST_WRITE) | ALSO(LOST_DIRECT_WRITE) |
			     ALSO(LOST_STORE) | ALSO(STALE_READ) |
			     ALSO(RESURRECTED) | ALSO(TORN));
}

static void spurious_errors(void **state)
{
	(void)state;
	expect_class(BUG_SPURIOUS_EIO, CHECK_SPURIOUS_ERROR, 0);
}

static void short_writes(void **state)
{
	(void)state;
	expect_class(BUG_SHORT_WRITES, CHECK_SPURIOUS_ERROR, 0);
}

static void torn_writes(void **state)
{
	(void)state;
	expect_class(BUG_TEARS_WRITES, CHECK_TORN, 0);
}

static void nothing_moved(void **state)
{
	(void)state;
	profile = "shift";
	expect_class(BUG_MOVES_NOTHING, CHECK_STALE_READ,
		     ALSO(LOST_STORE) | ALSO(LOST_WRITE) |
			     ALSO(LOST_DIRECT_WRITE) | ALSO(RESURRECTED));
	profile = NULL;
}

static void wrong_mappings(void **state)
{
	(void)state;
	profile = "mappings";
	expect_class(BUG_MAPS_START, CHECK_NEVER_WRITTEN,
		     ALSO(LOST_STORE) | ALSO(LOST_WRITE) |
			     ALSO(LOST_DIRECT_WRITE) | ALSO(STALE_READ) |
			     ALSO(RESURRECTED) | ALSO(NOT_DENIED));
	expect_class(BUG_PROTECTS_NOTHING, CHECK_NOT_DENIED, 0);
	expect_class(BUG_STAYS_PROTECTED, CHECK_SPURIOUS_ERROR, 0);
	expect_class(BUG_PINS_COPIES, CHECK_LOST_STORE, 0);
	profile = NULL;
}

static void bytes_past_the_end(void **state)
{
	(void)state;
	expect_class(BUG_PAST_END, CHECK_PAST_END, 0);
}

static void stray_state(void **state)
{
	(void)state;
	expect_class(BUG_WRONG_SIZE, CHECK_STRAY, 0);
	expect_class(BUG_HOLE_OVER_DATA, CHECK_STRAY, 0);
	expect_class(BUG_KEEPS_BLOCKS, CHECK_STRAY, 0);
	expect_class(BUG_LEAVES_BLOCKS, CHECK_STRAY, 0);
}

/* Rounds without recording and with it, in pairs; what was recorded is judged. */
static void measured(void **state)
{
	struct check_result *res;

	(void)state;
	measure = true;
	res = run(&fake_ops, BUG_NONE, 8, 0);
	measure = false;
	assert_int_equal(res->pairs, 4);
	for (unsigned i = 0; i < res->pairs; i++)
		assert_true(res->recorded_share[i] > 0);
	assert_true(clean(res));
	assert_true(res->judged > 0 && res->judged_words > res->judged);
	assert_true(res->judging_ns > 0);
}

static void interrupted(void **state)
{
	struct check_result *res = run(&fake_ops, BUG_INTERRUPTS, 0, 0);

	(void)state;
	assert_true(res->interrupted);
	assert_true(res->wall_ns < UINT64_C(30000000000));
	assert_true(res->epochs >= 1);
	assert_true(clean(res));
}

/* It is found to hang, in what is named. Leaves threads behind: in a process of its own. */
static void expect_hang(const struct target_ops *ops, enum bug bug,
			const char *what)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		struct check_result *res;
		bool right;

		hang_seconds = 1;
		res = run(ops, bug, 0, 0);
		right = res->classes[CHECK_NO_PROGRESS].count > 0 &&
			strstr(res->classes[CHECK_NO_PROGRESS].example, what) &&
			!clean(res);
		_exit(right ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void hanging_target(void **state)
{
	(void)state;
	expect_hang(&fake_ops, BUG_HANGS, "sync");
}

/* Pages of buffers that come late make no anomaly, and hide none. */
static void delays(void **state)
{
	struct check_result *res;
	char why[256];

	(void)state;
	if (mkw__lever_probe(why, sizeof(why))) {
		print_message("skipped: %s\n", why);
		skip();
	}
	delay_ns = 300000;
	res = run(&fake_ops, BUG_NONE, ROTA, 0);
	if (!clean(res))
		print_anomalies(res);
	assert_true(clean(res));
	assert_null(strstr(res->notes, "delay"));
	expect_class(BUG_DROPS_WRITES, CHECK_LOST_WRITE, ALSO(STALE_READ));
	delay_ns = 0;
}

/* What they hold is what was there, whoever touches them first. */
static void late_pages(void **state)
{
	char why[256];
	struct late *late;
	uint64_t *buf, began;
	int ends[2];

	(void)state;
	if (mkw__lever_probe(why, sizeof(why))) {
		print_message("skipped: %s\n", why);
		skip();
	}
	late = mkw__late_open(2, 64 * 1024, why, sizeof(why));
	assert_non_null(late);
	buf = mkw__late_buf(late, 1);
	assert_int_equal((uintptr_t)buf % (64 * 1024), 0);
	assert_int_equal(pipe(ends), 0);
	for (unsigned i = 0; i < 8192; i++)
		buf[i] = i;
	for (unsigned i = 0; i < 8; i++) {
		size_t at = i * 1024u;
		uint64_t got;

		mkw__late_arm(late, 1, at * 8, 2000000);
		began = stamp();
		/* By a system call, by hand, or not at all. */
		if (i % 3 == 0) {
			assert_int_equal(write(ends[1], &buf[at], 8), 8);
			assert_int_equal(read(ends[0], &got, 8), 8);
			assert_int_equal(got, at);
		} else if (i % 3 == 1) {
			assert_int_equal(*(volatile uint64_t *)&buf[at], at);
		}
		assert_true(i % 3 == 2 || stamp() - began >= 2000000);
		mkw__late_settle(late, 1);
	}
	for (unsigned i = 0; i < 8192; i++)
		assert_int_equal(buf[i], i);
	close(ends[0]);
	close(ends[1]);
	mkw__late_close(late);
}

/* A larger file is one like any other. */
static void large_file(void **state)
{
	struct check_result *res;

	(void)state;
	file_bytes = 16 << 20;
	res = run(&fake_ops, BUG_NONE, 4, 0);
	if (!clean(res))
		print_anomalies(res);
	assert_true(clean(res));
	file_bytes = 0;
}

/* ---- the engine, and bugs in it ----------------------------------------------- */

static bool have_engine(void)
{
	struct mkw_engine *e;
	int err = mkw_engine_open(NULL, &e);

	if (err) {
		print_message("skipped: no engine here: %s\n", strerror(-err));
		return false;
	}
	return mkw_engine_close(e) == 0;
}

static void sound_engine(void **state)
{
	struct check_result *res;

	(void)state;
	if (!have_engine())
		skip();
	res = run(&mkw__check_engine_target, BUG_NONE, ROTA, 0);
	if (!clean(res))
		print_anomalies(res);
	assert_true(clean(res));
}

/* A bug of the engine's core is an anomaly of some class of the set. */
static void engine_with(enum mkw__mutant mutant, unsigned classes)
{
	struct check_result *res;
	uint64_t found = 0;

	if (!have_engine())
		skip();
	mkw__testing.mutant = mutant;
	res = run(&mkw__check_engine_target, BUG_NONE, 0, classes);
	mkw__testing.mutant = MKW__MUTANT_NONE;
	for (unsigned i = 0; i < CHECK_CLASSES; i++)
		if (classes >> i & 1)
			found += res->classes[i].count;
	if (!found)
		print_anomalies(res);
	assert_true(found > 0);
}

static void engine_direct_write_leaves_frames(void **state)
{
	(void)state;
	engine_with(MKW__MUTANT_DIRECT_LEAVES_FRAMES,
		    ALSO(LOST_DIRECT_WRITE) | ALSO(STALE_READ));
}

static void engine_direct_write_drops_frames(void **state)
{
	(void)state;
	engine_with(MKW__MUTANT_DIRECT_DROPS_FRAMES,
		    ALSO(LOST_STORE) | ALSO(LOST_WRITE));
}

static void engine_write_skips_dirty(void **state)
{
	(void)state;
	engine_with(MKW__MUTANT_WRITE_SKIPS_DIRTY, ALSO(LOST_WRITE));
}

static void engine_neighbour_writable(void **state)
{
	(void)state;
	engine_with(MKW__MUTANT_NEIGHBOUR_WRITABLE, ALSO(LOST_STORE));
}

static void engine_writeback_keeps_writable(void **state)
{
	(void)state;
	engine_with(MKW__MUTANT_WRITEBACK_KEEPS_WRITABLE, ALSO(LOST_STORE));
}

/* Space that was reserved and not used stays where there is a hole. */
static void engine_keeps_space(void **state)
{
	(void)state;
	if (!mkw__holes_certain(dir(), false)) {
		print_message("skipped: there are no holes for certain here\n");
		skip();
	}
	/* At the end of the file, whose second half is a hole. */
	profile = "truncate";
	engine_with(MKW__MUTANT_CREDIT_KEPT, ALSO(STRAY));
	profile = NULL;
}

static void engine_mappings(void **state)
{
	(void)state;
	profile = "mappings";
	engine_with(MKW__MUTANT_REMAP_FROM_START, ALSO(NEVER_WRITTEN));
	engine_with(MKW__MUTANT_PROTECT_LEAVES_PAGES, ALSO(LOST_STORE));
	profile = NULL;
}

/*
 * Not PIN_LEAVES_CLEAN: the kernel's own look-up of a page that it is to write to is a
 * fault, which makes it dirty.
 */
static void engine_pins(void **state)
{
	static const enum mkw__mutant bugs[] = {
		MKW__MUTANT_PIN_WRITTEN_BACK, MKW__MUTANT_PIN_DROPPED,
		MKW__MUTANT_PIN_TAKEN,
	};

	struct check_result *res;

	(void)state;
	if (!have_engine())
		skip();
	profile = "pins";
	/* Where system calls have no faults they may fail, and that is seen to. */
	inline_faults = true;
	res = run(&mkw__check_engine_target, BUG_NONE, 3, 0);
	inline_faults = false;
	if (!clean(res))
		print_anomalies(res);
	assert_true(clean(res));
	for (unsigned i = 0; i < (TEST_SLOW ? 1 : sizeof(bugs) / sizeof(bugs[0])); i++)
		engine_with(bugs[i], ALSO(LOST_STORE) | ALSO(STALE_READ) |
			    ALSO(LOST_WRITE) | ALSO(LOST_DIRECT_WRITE) |
			    ALSO(RESURRECTED));
	mkw__testing.mutant = MKW__MUTANT_UNPIN_WAKES_NOBODY;
	expect_hang(&mkw__check_engine_target, BUG_NONE, "thread");
	mkw__testing.mutant = MKW__MUTANT_NONE;
	profile = NULL;
}

/* What is promised of loads, and that it is looked at. */
static void engine_atomic(void **state)
{
	struct check_result *res;

	(void)state;
	if (!have_engine())
		skip();
	atomic_writes = true;
	res = run(&mkw__check_engine_target, BUG_NONE, ROTA, 0);
	if (!clean(res))
		print_anomalies(res);
	assert_true(clean(res));
	profile = "whole";
	engine_with(MKW__MUTANT_ATOMIC_IGNORED, ALSO(TORN));
	engine_with(MKW__MUTANT_ATOMIC_LEAVES_MAPPED, ALSO(TORN));
	profile = NULL;
	atomic_writes = false;
}

/* Only where the file system can collapse. */
static void engine_shifts(void **state)
{
	static const enum mkw__mutant bugs[] = {
		/* SHIFT_NARROW's frames without a page are a panic. */
		MKW__MUTANT_SHIFT_LEAVES_FRAMES, MKW__MUTANT_SHIFT_UNWRITTEN,
	};
	struct check_result *res;
	bool shifts;

	(void)state;
	if (!have_engine())
		skip();
	profile = "shift";
	res = run(&mkw__check_engine_target, BUG_NONE, 4, 0);
	if (!clean(res))
		print_anomalies(res);
	assert_true(clean(res));
	shifts = res->ops[OP_SHIFT];
	if (!shifts)
		print_message("skipped: %s\n", res->notes);
	for (unsigned i = 0; shifts && i < sizeof(bugs) / sizeof(bugs[0]); i++)
		engine_with(bugs[i], ALSO(STALE_READ) | ALSO(LOST_STORE) |
			    ALSO(LOST_WRITE) | ALSO(LOST_DIRECT_WRITE) |
			    ALSO(RESURRECTED));
	/* Also torn, where everything moves. */
	if (shifts)
		engine_with(MKW__MUTANT_WRITE_SHARES, ALSO(TORN));
	profile = NULL;
}

/* ---- the report ------------------------------------------------------------------ */

static char *read_all(const char *dir, const char *name)
{
	static char text[1 << 20];
	char path[300];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

/* How often the word is in the text. */
static unsigned occurs(const char *text, const char *word)
{
	unsigned n = 0;

	for (; (text = strstr(text, word)); text += strlen(word))
		n++;
	return n;
}

static void bundle(void **state)
{
	static struct column col;
	static struct options o;
	struct check_config cfg = CHECK_CONFIG_INIT;
	char where[] = "/tmp/mkwrite-bundle-XXXXXX", page[64], cmd[300];
	struct minimal min;

	(void)state;
	assert_non_null(mkdtemp(where));
	planted = BUG_DROPS_DIRECT_WRITES;
	cfg.target_ops = &fake_ops;
	cfg.dir = dir();
	cfg.seconds = 60;
	cfg.threads = 3;
	cfg.until = 1u << CHECK_LOST_DIRECT_WRITE;
	cfg.evidence = &col.evidence;
	assert_int_equal(mkw__check_run(&cfg, &col.random), 0);
	assert_true(col.evidence.taken);
	assert_int_equal(col.evidence.class, CHECK_LOST_DIRECT_WRITE);
	/* What is said of the picture is what it shows. */
	snprintf(cmd, sizeof(cmd), "word at byte %zu", col.evidence.word * WORD);
	assert_non_null(strstr(col.evidence.what, cmd));
	cfg.epochs = 4;
	mkw__check_minimise(&cfg, &col.evidence, 60, &min);
	/* It does not take two to lose what is dropped, nor a store. */
	assert_int_equal(min.cfg.threads, 1);
	assert_false(min.cfg.kinds >> OP_STORE & 1);
	assert_true(min.cfg.kinds >> OP_DIRECT_WRITE & 1);
	assert_true(min.hits > 0 && min.hits <= min.trials);

	strcpy(col.label, "fake <&\"> fs");
	col.has_random = true;
	o.cfg = cfg;
	o.random = true;
	assert_int_equal(mkw__check_write_bundle(where, &col, &min), 0);
	snprintf(page, sizeof(page), "%s/report.html", where);
	assert_int_equal(mkw__check_write_html(page, &col, 1, &o), 0);

	assert_int_equal(occurs(read_all(where, "history.jsonl"), "culprit"), 1);
	assert_int_equal(occurs(read_all(where, "history.jsonl"), "witness"), 1);
	assert_int_equal(occurs(read_all(where, "report.html"),
				"this one is gone"), 1);
	assert_true(occurs(read_all(where, "report.html"), "<rect") >= 2);
	assert_int_equal(occurs(read_all(where, "report.html"), "http"), 0);
	assert_int_equal(occurs(read_all(where, "report.html"), "fake <&"), 0);
	snprintf(cmd, sizeof(cmd), "cc -Wall -Wextra -Werror -O2 -pthread "
		 "-o %s/program %s/reproducer.c && %s/program %s 0.2 "
		 ">/dev/null", where, where, where, where);
	if (system("cc --version >/dev/null 2>&1") == 0)
		assert_in_range(WEXITSTATUS(system(cmd)), 0, 1);
	snprintf(cmd, sizeof(cmd), "timeout 60 chromium --headless --no-sandbox "
		 "--disable-gpu --user-data-dir=%s/profile --dump-dom "
		 "file://%s 2>/dev/null | grep -q 'this one is gone'", where,
		 page);
	if (system("command -v chromium >/dev/null") == 0)
		assert_int_equal(system(cmd), 0);
	else
		print_message("without a browser: there is no chromium\n");
	snprintf(cmd, sizeof(cmd), "rm -rf %s", where);
	assert_int_equal(system(cmd), 0);
}

/* ---- the kernel, the command ----------------------------------------------------- */

static void kernel_runs(void **state)
{
	struct check_result *res = run(&mkw__check_kernel_target, BUG_NONE, ROTA, 0);

	(void)state;
	/* Whatever it is that this file system loses, these no kernel does. */
	assert_int_equal(res->classes[CHECK_NEVER_WRITTEN].count, 0);
	assert_int_equal(res->classes[CHECK_LOST_STORE].count, 0);
	assert_int_equal(res->classes[CHECK_NO_PROGRESS].count, 0);
	assert_true(res->ops[OP_STORE] > 0);
	assert_true(!strncmp(res->label, "kernel ", 7));
}

static int command(const char *const *args)
{
	char *argv[16] = { "mkwrite check" };
	int argc = 1;

	for (; args[argc - 1]; argc++)
		argv[argc] = (char *)args[argc - 1];
	return mkw__check_main(argc, argv);
}

#define COMMAND(...) command((const char *const[]){ __VA_ARGS__, NULL })

static void command_line(void **state)
{
	char json[] = "/tmp/mkwrite-check-json-XXXXXX", text[8192];
	int fd = mkstemp(json), status;
	ssize_t n;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(COMMAND("--help"), 0);
	assert_int_equal(command((const char *const[]){ NULL }), 2);
	assert_int_equal(COMMAND("/nonexistent/directory"), 2);
	assert_int_equal(COMMAND("/dev/null"), 2);
	assert_int_equal(COMMAND("--threads", "1", "."), 2);
	assert_int_equal(COMMAND("--threads", "x", "."), 2);
	assert_int_equal(COMMAND("--seconds", "0", "."), 2);
	assert_int_equal(COMMAND("--seconds", "nan", "."), 2);
	assert_int_equal(COMMAND("--cache", "1K", "."), 2);
	assert_int_equal(COMMAND("--policy", "none", "."), 2);
	assert_int_equal(COMMAND("--target", "disk", "."), 2);
	assert_int_equal(COMMAND("--seed", "-1", "."), 2);
	assert_int_equal(COMMAND("--bogus", "."), 2);
	assert_int_equal(COMMAND(".", "."), 2);

	assert_int_equal(COMMAND("--list"), 0);
	assert_int_equal(COMMAND("--window", "door", "."), 2);
	assert_int_equal(COMMAND("--model", "posix", "."), 2);
	assert_int_equal(COMMAND("--fs", "ext4,fat", "."), 2);
	assert_int_equal(COMMAND("--fs", "ext4", "."), 2);
	assert_int_equal(COMMAND("--profile", "dull", "."), 2);
	assert_int_equal(COMMAND("--mem", "1M", "."), 2);
	assert_int_equal(COMMAND("--file-size", "1000", "."), 2);
	assert_int_equal(COMMAND("--file-size", "1G", "."), 2);
	assert_int_equal(COMMAND("--freeze", "/"), 2);
	/* All of it is skipped. */
	assert_int_equal(COMMAND("--target", "kernel", "--window", "none",
				 "--profile", "shift", "--file-size", "16M",
				 dir()), 2);
	assert_int_equal(COMMAND("--delay", "1h", "."), 2);
	assert_int_equal(COMMAND("--delay", "us", "."), 2);
	assert_int_equal(COMMAND("--delay", "1000ms", "."), 2);
	/* What is asked for cannot be had with so little. */
	assert_int_equal(COMMAND("--mem", "16M", "--threads", "60",
				 "--file-size", "64M", "--window", "none",
				 "--seconds", "1", dir()), 2);

	status = COMMAND("--target", "kernel", "--seconds", "0.5", "--threads",
			 "3", "--window", "none", "--json", json, dir());
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	unlink(json);
	assert_true(n > 0);
	text[n] = '\0';
	assert_non_null(strstr(text, "\"target\": \"kernel "));
	/* The status is the verdict. */
	if (strstr(text, "\"clean\": true"))
		assert_int_equal(status, 0);
	else
		assert_int_equal(status, 1);
}

static void quiet_stdout(void)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	dup2(fd, 1);
	close(fd);
}

/* One thing that cannot be had, of a list of file systems or reports, costs no other. */
static void what_can_be_had(void **state)
{
	char path[] = "/tmp/mkwrite-junit-XXXXXX", text[8192];
	int fd = mkstemp(path), status;
	ssize_t n;
	pid_t pid;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(COMMAND("--target", "kernel", "--seconds", "0.2",
				 "--window", "none", "--json", "/nonexistent/f",
				 "--junit", path, dir()), 2);
	assert_true(lseek(fd, 0, SEEK_END) > 0);
	if (geteuid() == 0) {
		/* Mounts in a namespace of its own. */
		pid = fork();
		if (!pid) {
			quiet_stdout();
			setenv("PATH", "/nonexistent/sbin", 1);
			_exit(COMMAND("--fs", "ext4,tmpfs", "--target", "kernel",
				      "--window", "past-end-write", "--junit",
				      path));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 2);
		n = pread(fd, text, sizeof(text) - 1, 0);
		assert_true(n > 0);
		text[n] = '\0';
		assert_non_null(strstr(text, "kernel tmpfs"));
	}
	close(fd);
	unlink(path);
}

/* In kB, from /proc/self/status. */
static long status_kb(const char *name)
{
	char line[256];
	long kb = -1;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			kb = atol(line + strlen(name) + 1);
	if (f)
		fclose(f);
	return kb;
}

/* With so many threads the logs want more, and are kept short. */
static void memory_is_bounded(void **state)
{
	const long mem_kb = 48 << 10, slack_kb = 12 << 10;
	int status;
	pid_t pid;

	(void)state;
	if (TEST_SLOW) {
		print_message("skipped: a sanitizer takes memory of its own\n");
		skip();
	}
	pid = fork();
	if (!pid) {
		int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
		long before, peak;
		int end;

		/* The peak begins anew. */
		if (fd < 0 || write(fd, "5", 1) != 1)
			_exit(77);
		before = status_kb("VmRSS");
		quiet_stdout();
		end = COMMAND("--target", "kernel", "--window", "none", "--mem",
			      "48M", "--threads", "12", "--seconds", "3", dir());
		peak = status_kb("VmHWM") - before;
		if (peak > mem_kb + slack_kb)
			fprintf(stderr, "%ld kB with --mem 48M\n", peak);
		_exit(end > 1 || before < 0 ? 2 : peak > mem_kb + slack_kb);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("skipped: no /proc/self/clear_refs\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static unsigned loops_over(const char *path)
{
	char cmd[400], line[32];
	FILE *f;

	snprintf(cmd, sizeof(cmd), "cat /sys/block/loop*/loop/backing_file "
		 "2>/dev/null | grep -c '^%s'", path);
	f = popen(cmd, "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	pclose(f);
	return (unsigned)atoi(line);
}

/*
 * Interrupted at any moment it prints what it has, and leaves no file, device,
 * mount or process. (When the signal comes is chance; whenever that is.)
 */
static void interrupted_anywhere(void **state)
{
	static const unsigned when_ms[] = { 5, 60, 200, 500, 1100, 2500 };
	char tmp[] = "/tmp/mkwrite-test-XXXXXX", cmd[300];

	(void)state;
	assert_non_null(mkdtemp(tmp));
	setenv("TMPDIR", tmp, 1);
	/* Whoever outlives its parent is ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (unsigned i = 0; i < sizeof(when_ms) / sizeof(when_ms[0]); i++) {
		struct timespec ts = { when_ms[i] / 1000,
				       when_ms[i] % 1000 * 1000000L };
		bool fs = i % 2 && geteuid() == 0;
		int status, ready[2];
		pid_t pid;
		char byte;

		assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
		pid = fork();
		if (!pid) {
			quiet_stdout();
			/* Before it may come. */
			mkw__check_catch(NULL);
			if (write(ready[1], "", 1) != 1)
				_exit(9);
			if (fs)
				_exit(COMMAND("--fs", "ext4", "--seconds", "30"));
			_exit(COMMAND("--seconds", "30", "--window",
				      i == 4 ? "write-read,self-direct-read-page" :
					       "none", dir()));
		}
		assert_int_equal(read(ready[0], &byte, 1), 1);
		nanosleep(&ts, NULL);
		kill(pid, i == 3 ? SIGTERM : SIGINT);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_in_range(WEXITSTATUS(status), 0, 2);
		/* Killed servers and windows may take a moment. */
		for (unsigned n = 0; n < 3000; n++) {
			ts = (struct timespec){ 0, 10000000 };
			if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD &&
			    !loops_over(tmp))
				break;
			assert_true(n < 2999);
			nanosleep(&ts, NULL);
		}
		close(ready[0]);
		close(ready[1]);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	unsetenv("TMPDIR");
	/* It has to be empty. */
	snprintf(cmd, sizeof(cmd), "ls -A %s; rmdir %s", tmp, tmp);
	assert_int_equal(system(cmd), 0);
}

/* Nothing is left behind, by all of the above. */
static void no_files_left(void **state)
{
	char cmd[4200];

	(void)state;
	snprintf(cmd, sizeof(cmd), "! ls -A '%s' | grep -q '^.mkwrite-check-'",
		 dir());
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_fake),
		cmocka_unit_test(dropped_direct_writes),
		cmocka_unit_test(dropped_writes),
		cmocka_unit_test(lost_stores),
		cmocka_unit_test(stale_direct_reads),
		cmocka_unit_test(punch_keeps),
		cmocka_unit_test(truncate_keeps),
		cmocka_unit_test(flipped_bits),
		cmocka_unit_test(misplaced_writes),
		cmocka_unit_test(spurious_errors),
		cmocka_unit_test(short_writes),
		cmocka_unit_test(torn_writes),
		cmocka_unit_test(nothing_moved),
		cmocka_unit_test(wrong_mappings),
		cmocka_unit_test(bytes_past_the_end),
		cmocka_unit_test(stray_state),
		cmocka_unit_test(measured),
		cmocka_unit_test(interrupted),
		cmocka_unit_test(hanging_target),
		cmocka_unit_test(delays),
		cmocka_unit_test(late_pages),
		cmocka_unit_test(large_file),
		cmocka_unit_test(sound_engine),
		cmocka_unit_test(engine_direct_write_leaves_frames),
		cmocka_unit_test(engine_direct_write_drops_frames),
		cmocka_unit_test(engine_write_skips_dirty),
		cmocka_unit_test(engine_neighbour_writable),
		cmocka_unit_test(engine_writeback_keeps_writable),
		cmocka_unit_test(engine_keeps_space),
		cmocka_unit_test(engine_mappings),
		cmocka_unit_test(engine_pins),
		cmocka_unit_test(engine_atomic),
		cmocka_unit_test(engine_shifts),
		cmocka_unit_test(bundle),
		cmocka_unit_test(kernel_runs),
		cmocka_unit_test(command_line),
		cmocka_unit_test(what_can_be_had),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(interrupted_anywhere),
		cmocka_unit_test(no_files_left),
	};

	return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
