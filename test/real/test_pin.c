/* SPDX-License-Identifier: MIT */
/*
 * Pins on real page faults: what the kernel stores past them without a pin is lost, and
 * with one it is not; who takes the pages away waits, or is told that he waits for himself.
 *
 * The foreign access is a registered buffer of io_uring: its frames are looked up once,
 * when it is registered, and each later read stores to them past every protection. So a
 * loss is no matter of luck.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
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
#include "access.h"
#include "world.h"

#define P(n) ((size_t)(n) * page)
#define PAGES 512u

static size_t page;

/* A byte of the file as any other process reads it. */
static unsigned char byte_on_host(const struct world *w, size_t off)
{
	int fd = open(w->path, O_RDONLY);
	unsigned char c = 0;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &c, 1, (off_t)off), 1);
	close(fd);
	return c;
}

/* ---- the device: a registered buffer ------------------------------------ */

struct device {
	struct io_uring ring;
	int pipe[2];
	unsigned char *buf;
};

/* False: the kernel gives none here; says why. */
static bool device_open(struct device *d, unsigned char *buf)
{
	struct iovec iov = { buf, page };
	int r;

	if ((r = io_uring_queue_init(4, &d->ring, 0))) {
		printf("no io_uring here: %s\n", strerror(-r));
		return false;
	}
	r = io_uring_register_buffers(&d->ring, &iov, 1);
	if (r) {
		printf("no registered buffers here: %s\n", strerror(-r));
		io_uring_queue_exit(&d->ring);
		return false;
	}
	d->buf = buf;
	assert_int_equal(pipe(d->pipe), 0);
	return true;
}

static void device_store(struct device *d, unsigned char value)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);
	struct io_uring_cqe *cqe;

	assert_int_equal(write(d->pipe[1], &value, 1), 1);
	io_uring_prep_read_fixed(sqe, d->pipe[0], d->buf, 1, 0, 0);
	assert_int_equal(io_uring_submit(&d->ring), 1);
	assert_int_equal(io_uring_wait_cqe(&d->ring, &cqe), 0);
	assert_int_equal(cqe->res, 1);
	io_uring_cqe_seen(&d->ring, cqe);
}

static void device_close(struct device *d)
{
	io_uring_queue_exit(&d->ring);
	close(d->pipe[0]);
	close(d->pipe[1]);
}

/* ---- loss, and none ------------------------------------------------------ */

struct foreign {
	struct world *w;
	_Atomic bool begun;
	int r;
};

/* Has somebody taken his place among those who wait for pins? */
static bool somebody_waits(struct world *w)
{
	struct mkw__inode *in = w->file->inode;
	bool some;

	mkw__mutex_lock(&in->tree);
	some = !TAILQ_EMPTY(&in->turns);
	mkw__mutex_unlock(&in->tree);
	return some;
}

static void *sync_thread(void *arg)
{
	struct foreign *f = arg;

	f->r = mkw_sync(f->w->file);
	return NULL;
}

static void *punch_thread(void *arg)
{
	struct foreign *f = arg;

	f->r = mkw_fallocate(f->w->file, FALLOC_FL_PUNCH_HOLE |
			     FALLOC_FL_KEEP_SIZE, 0, (off_t)page);
	return NULL;
}

/*
 * Drops page 0. Advice passes over a page that somebody has in hand, as whoever served
 * the last fault does for a moment.
 */
static void drop(struct world *w)
{
	unsigned char resident;

	do {
		assert_int_equal(mkw_advise(w->file, 0, (off_t)page,
					    MKW_ADVICE_DONTNEED), 0);
		assert_int_equal(mkw_resident(w->file, 0, page, &resident), 0);
	} while (resident);
}

/* The other thread's operation, which waits for a pin by the time this returns. */
static pthread_t start(struct foreign *f, void *(*fn)(void *))
{
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, fn, f), 0);
	while (!somebody_waits(f->w))
		sched_yield();
	return t;
}

static void writeback(void **state)
{
	struct mkw_pin *pin;
	struct device d;
	struct foreign f;
	struct world w;
	pthread_t t;

	(void)state;
	for (int policy = 0; policy < 2; policy++) {
		world_open(&w, P(PAGES), policy, 0, 0);
		w.map[0] = 'o';
		if (!device_open(&d, w.map)) {
			world_close(&w);
			skip();
		}
		/* Without: protected, snapshot, clean; then the device stores. */
		assert_int_equal(mkw_sync(w.file), 0);
		device_store(&d, 'N');
		assert_int_equal(mkw_sync(w.file), 0);
		assert_int_equal(byte_on_host(&w, 0), 'o');

		/* With: a sync waits, and has what came until the pin's end. */
		assert_int_equal(mkw_pin(w.map, page, MKW_PIN_WRITE, &pin), 0);
		f = (struct foreign){ .w = &w };
		t = start(&f, sync_thread);
		device_store(&d, 'P');
		assert_int_equal(mkw_unpin(pin), 0);
		pthread_join(t, NULL);
		assert_int_equal(f.r, 0);
		assert_int_equal(byte_on_host(&w, 0), 'P');
		device_close(&d);
		world_close(&w);
	}
}

static void taken_away(void **state)
{
	struct mkw_pin *pin;
	struct device d;
	struct foreign f;
	struct world w;
	pthread_t t;

	(void)state;
	for (int policy = 0; policy < 2; policy++) {
		world_open(&w, P(PAGES), policy, 0, 0);
		w.map[0] = 'o';
		if (!device_open(&d, w.map)) {
			world_close(&w);
			skip();
		}
		/* Without: the frame is dropped, and the device has it alone. */
		drop(&w);
		device_store(&d, 'N');
		assert_int_equal(w.map[0], 'o');
		device_close(&d);

		assert_int_equal(mkw_pin(w.map, page, MKW_PIN_READ, &pin), 0);
		assert_true(device_open(&d, w.map));
		assert_int_equal(mkw_advise(w.file, 0, (off_t)page,
					    MKW_ADVICE_DONTNEED), 0);
		device_store(&d, 'R');
		assert_int_equal(w.map[0], 'R');
		f = (struct foreign){ .w = &w };
		t = start(&f, punch_thread);
		device_store(&d, 'S');
		assert_int_equal(w.map[0], 'S');
		assert_int_equal(mkw_unpin(pin), 0);
		pthread_join(t, NULL);
		assert_int_equal(f.r, 0);
		assert_int_equal(w.map[0], 0);
		device_close(&d);
		world_close(&w);
	}
}

static void reclaim(void **state)
{
	unsigned char vec[PAGES], buf[512];
	struct mkw_pin *pin;
	struct world w;

	(void)state;
	world_open(&w, P(PAGES), MKW_POLICY_RETRY, 0, 0);
	for (unsigned i = 0; i < PAGES; i++)
		w.map[P(i)] = (unsigned char)i;
	assert_int_equal(mkw_pin(w.map + P(8), P(16), MKW_PIN_READ, &pin), 0);
	for (unsigned round = 0; round < 4; round++)
		for (unsigned i = 64; i < PAGES; i++)
			assert_int_equal(w.map[P(i)], (unsigned char)i);
	assert_int_equal(mkw_resident(w.file, 0, P(PAGES), vec), 0);
	for (unsigned i = 8; i < 24; i++)
		assert_true(vec[i]);
	assert_int_equal(mkw_pread(w.file, buf, sizeof(buf), (off_t)P(9), 0),
			 sizeof(buf));
	assert_int_equal(buf[0], 9);
	assert_int_equal(mkw_unpin(pin), 0);
	world_close(&w);
}

/* ---- the owner, and what is allowed ---------------------------------------- */

static void owner(void **state)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct mkw_pin *pin, *again;
	unsigned char *buf;
	struct world w;

	(void)state;
	buf = aligned_alloc(page, page);
	memset(buf, 'b', page);
	for (int policy = 0; policy < 2; policy++) {
		world_open(&w, P(PAGES), policy, 0, 0);
		assert_int_equal(mkw_pin(w.map + 100, P(1), MKW_PIN_WRITE, &pin), 0);
		assert_int_equal(mkw_fallocate(w.file, punch, 0, (off_t)page),
				 -EDEADLK);
		assert_int_equal(mkw_truncate(w.file, (off_t)page), -EDEADLK);
		assert_int_equal(mkw_pwrite(w.file, buf, page, 0, MKW_DIRECT),
				 -EDEADLK);
		assert_int_equal(mkw_fallocate(w.file, FALLOC_FL_COLLAPSE_RANGE, 0,
					       (off_t)page), -EDEADLK);
		assert_int_equal(mkw_discard(w.file, 0, (off_t)page), -EDEADLK);
		/* All but the pinned pages is written. */
		w.map[P(5)] = 'w';
		assert_int_equal(mkw_sync(w.file), -EDEADLK);
		/* Whosever it is: he may be the one who waits for the thaw. */
		assert_int_equal(mkw_file_freeze(w.file), -EBUSY);
		assert_int_equal(mkw_engine_freeze(w.engine), -EBUSY);
		w.map[1] = 'f';
		assert_int_equal(byte_on_host(&w, P(5)), 'w');
		assert_int_equal(mkw_sync_range(w.file, (off_t)P(1), (off_t)P(1), 0),
				 -EDEADLK);
		assert_int_equal(mkw_sync_range(w.file, (off_t)P(2), 0, 0), 0);
		/* The page is pinned for as long as somebody has it pinned. */
		assert_int_equal(mkw_pin(w.map, P(1), MKW_PIN_READ, &again), 0);
		assert_int_equal(mkw_unpin(pin), 0);
		assert_int_equal(mkw_sync(w.file), 0);
		assert_int_equal(mkw_fallocate(w.file, punch, 0, (off_t)page),
				 -EDEADLK);
		assert_int_equal(mkw_fallocate(w.file, punch, (off_t)page,
					       (off_t)page), 0);
		/* What takes nothing away goes on. */
		assert_int_equal(mkw_pwrite(w.file, buf, page, 0, 0), page);
		assert_int_equal(mkw_append(w.file, buf, page, 0, NULL), page);
		assert_int_equal(w.map[0], 'b');
		assert_int_equal(mkw_unmap(w.map, page), -EBUSY);
		assert_int_equal(mkw_unmap(w.map, P(PAGES)), -EBUSY);
		assert_int_equal(mkw_unpin(again), 0);
		world_close(&w);
	}
	free(buf);
}

/* Who waits for a pin is outside of the freeze gate, and a freeze waits for no pin. */
static void freeze_beside(void **state)
{
	struct mkw_pin *pin;
	struct foreign f;
	struct world w;
	pthread_t t;

	(void)state;
	for (int policy = 0; policy < 2; policy++) {
		world_open(&w, P(PAGES), policy, 0, 0);
		assert_int_equal(mkw_pin(w.map, page, MKW_PIN_WRITE, &pin), 0);
		f = (struct foreign){ .w = &w };
		t = start(&f, punch_thread);
		for (unsigned i = 0; i < 100; i++) {
			assert_int_equal(mkw_file_freeze(w.file), -EBUSY);
			w.map[P(1)] = (unsigned char)i;
		}
		assert_int_equal(mkw_unpin(pin), 0);
		pthread_join(t, NULL);
		assert_int_equal(f.r, 0);
		assert_int_equal(mkw_file_freeze(w.file), 0);
		assert_int_equal(mkw_file_thaw(w.file), 0);
		world_close(&w);
	}
}

/* Memory that system calls have no faults for, and a pipe to try it with. */
static void open_inline(struct world *w, int fds[2])
{
	assert_int_equal(pipe(fds), 0);
	world_open(w, P(PAGES), MKW_POLICY_RETRY, MKW_MAP_INLINE, 0);
}

static void close_inline(struct world *w, const int fds[2])
{
	world_close(w);
	close(fds[0]);
	close(fds[1]);
}

/* A system call that is given pinned memory needs no fault, with INLINE neither. */
static void in_system_calls(void **state)
{
	struct mkw_pin *pin;
	struct world w;
	int fds[2];

	(void)state;
	open_inline(&w, fds);
	assert_int_equal(mkw_pin(w.map + P(7), P(2), MKW_PIN_WRITE, &pin), 0);
	assert_int_equal(write(fds[1], "pinned", 6), 6);
	assert_int_equal(read(fds[0], w.map + P(8) - 3, 6), 6);
	assert_int_equal(mkw_unpin(pin), 0);
	assert_int_equal(mkw_sync(w.file), 0);
	assert_int_equal(byte_on_host(&w, P(8)), 'n');
	close_inline(&w, fds);
}

/* Nor does it where its neighbours on both sides are dropped at once. */
static void among_dropped(void **state)
{
	struct mkw_pin *pin;
	struct world w;
	int fds[2];

	(void)state;
	open_inline(&w, fds);
	for (unsigned i = 6; i < 9; i++)
		(void)*(volatile unsigned char *)(w.map + P(i));
	assert_int_equal(mkw_pin(w.map + P(7), P(1), MKW_PIN_READ, &pin), 0);
	assert_int_equal(mkw_advise(w.file, (off_t)P(6), (off_t)P(3),
				    MKW_ADVICE_DONTNEED), 0);
	assert_int_equal(write(fds[1], w.map + P(7), 6), 6);
	/* They have gone. */
	assert_int_equal(write(fds[1], w.map + P(6), 6), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(mkw_unpin(pin), 0);
	close_inline(&w, fds);
}

static void vectors_and_bounds(void **state)
{
	struct iovec iov[3];
	struct mkw_pin *pin = NULL, *more;
	struct world w;
	void *ro;

	(void)state;
	world_open(&w, P(PAGES), MKW_POLICY_RETRY, 0, 0);
	assert_int_equal(mkw_map(w.file, NULL, page, PROT_READ, 0, 0, &ro), 0);
	iov[0] = (struct iovec){ w.map + P(3) + 1, page };
	iov[1] = (struct iovec){ NULL, 0 };
	iov[2] = (struct iovec){ ro, 1 };

	assert_int_equal(mkw_pin(w.map, 1, MKW_PIN_READ, NULL), -EINVAL);
	assert_int_equal(mkw_pin(w.map, 0, MKW_PIN_READ, &pin), -EINVAL);
	assert_int_equal(mkw_pin(w.map, 1, 0, &pin), -EINVAL);
	assert_int_equal(mkw_pin(w.map, 1, MKW_PIN_READ | MKW_PIN_WRITE, &pin),
			 -EINVAL);
	assert_int_equal(mkw_pin(w.map, 1, 4, &pin), -EINVAL);
	assert_int_equal(mkw_pinv(NULL, 1, MKW_PIN_READ, &pin), -EINVAL);
	assert_int_equal(mkw_pinv(iov, -1, MKW_PIN_READ, &pin), -EINVAL);
	assert_int_equal(mkw_pinv(iov, 1025, MKW_PIN_READ, &pin), -EINVAL);
	assert_int_equal(mkw_pinv(iov, 0, MKW_PIN_READ, &pin), -EINVAL);
	assert_int_equal(mkw_unpin(NULL), -EINVAL);
	assert_int_equal(mkw_pin(&w, sizeof(w), MKW_PIN_READ, &pin), -EFAULT);
	assert_int_equal(mkw_pin(w.map, SIZE_MAX, MKW_PIN_READ, &pin), -EINVAL);
	assert_int_equal(mkw_pin(w.map + P(PAGES) - 1, SIZE_MAX / 2, MKW_PIN_READ,
				 &pin), -EFAULT);
	assert_int_equal(mkw_pin(ro, 1, MKW_PIN_WRITE, &pin), -EACCES);
	assert_int_equal(mkw_pinv(iov, 3, MKW_PIN_WRITE, &pin), -EACCES);
	assert_int_equal(mkw_pin(w.map, P(PAGES), MKW_PIN_READ, &pin), -ENOBUFS);
	assert_null(pin);

	assert_int_equal(mkw_pinv(iov, 3, MKW_PIN_READ, &pin), 0);
	assert_int_equal(mkw_unmap(ro, page), -EBUSY);
	assert_int_equal(mkw_unmap(w.map + P(4), page), -EBUSY);
	/* 64 pages may be pinned: three are. */
	assert_int_equal(mkw_pin(w.map, P(61), MKW_PIN_WRITE, &more), 0);
	assert_int_equal(mkw_pin(w.map, 1, MKW_PIN_READ, &more), -ENOBUFS);
	assert_int_equal(mkw_unpin(more), 0);
	assert_int_equal(mkw_unpin(pin), 0);

	assert_int_equal(mkw_truncate(w.file, (off_t)P(2)), 0);
	assert_int_equal(mkw_pin(w.map + page, P(2), MKW_PIN_READ, &pin), -ENXIO);
	/* Nothing of what failed is pinned. */
	assert_int_equal(mkw_truncate(w.file, 0), 0);
	assert_int_equal(mkw_unmap(ro, page), 0);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writeback),
		cmocka_unit_test(taken_away),
		cmocka_unit_test(reclaim),
		cmocka_unit_test(owner),
		cmocka_unit_test(freeze_beside),
		cmocka_unit_test(in_system_calls),
		cmocka_unit_test(among_dropped),
		cmocka_unit_test(vectors_and_bounds),
	};

	access_begin();
	if (!access_possible())
		return 77;
	page = (size_t)sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
