/* SPDX-License-Identifier: MIT */
/*
 * MKW_ATOMIC_WRITES on real page faults.
 *
 * A write is held in its midst: the second segment of its source is memory whose page
 * faults this test serves, so the first has been copied and the second has not for as long as it
 * likes. Without the flag a load then sees the one and a later load not the other: always.
 * With it both wait. Then loaders race a writer of rising versions: of two loads in order
 * the second must not see an older one. Each with both policies, by the pager and inline.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "access.h"
#include "world.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define P(n) ((size_t)(n) * page)
#define PAGES 1024u
#define LOADERS 2u
#define ROUNDS (TEST_SLOW ? 60u : 400u)

static size_t page;

static volatile uint64_t *word(struct world *w, size_t off)
{
	return (volatile uint64_t *)(void *)(w->map + off);
}

/* Before all that follows. */
static UNSEEN uint64_t load(struct world *w, size_t off)
{
	uint64_t v = *word(w, off);

	atomic_thread_fence(memory_order_acquire);
	return v;
}

static UNSEEN void store(struct world *w, size_t off, uint64_t v)
{
	*word(w, off) = v;
}

/* n pages from page `first` on, all words v. */
static void fill(struct world *w, size_t first, size_t n, uint64_t v, unsigned flags)
{
	uint64_t *buf = aligned_alloc(page, P(n));

	for (size_t i = 0; i < P(n) / 8; i++)
		buf[i] = v;
	assert_int_equal(mkw_pwrite(w->file, buf, P(n), (off_t)P(first), flags), P(n));
	free(buf);
}

static bool is_mapped(struct world *w, size_t idx)
{
	unsigned char vec = 0;

	assert_int_equal(mkw_resident(w->file, (off_t)P(idx), page, &vec), 0);
	return vec & MKW_MAPPED;
}

static uint64_t parks(struct world *w)
{
	struct mkw_stats st = MKW_STATS_INIT;

	assert_int_equal(mkw_engine_stats(w->engine, &st), 0);
	return st.parks;
}

/* ---- a page that is not there until it is to be --------------------------- */

struct hold {
	int uffd;
	unsigned char *mem;
};

static int open_uffd(void)
{
	return (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
}

static void hold_begin(struct hold *h)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	h->uffd = open_uffd();
	assert_true(h->uffd >= 0);
	assert_int_equal(ioctl(h->uffd, UFFDIO_API, &api), 0);
	h->mem = mmap(NULL, page, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(h->mem, MAP_FAILED);
	reg.range.start = (uintptr_t)h->mem;
	reg.range.len = page;
	assert_int_equal(ioctl(h->uffd, UFFDIO_REGISTER, &reg), 0);
}

/* Somebody wants it: he is where he is, until hold_end(). */
static void hold_wait(struct hold *h)
{
	struct uffd_msg msg;

	assert_int_equal(read(h->uffd, &msg, sizeof(msg)), sizeof(msg));
	assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);
}

static void hold_let_go(struct hold *h, uint64_t v)
{
	uint64_t *buf = malloc(page);
	struct uffdio_copy copy = { .dst = (uintptr_t)h->mem,
				    .src = (uintptr_t)buf,
				    .len = page };

	for (size_t i = 0; i < page / 8; i++)
		buf[i] = v;
	assert_int_equal(ioctl(h->uffd, UFFDIO_COPY, &copy), 0);
	free(buf);
}

static void hold_end(struct hold *h)
{
	munmap(h->mem, page);
	close(h->uffd);
}

/* ---- a write that is held ------------------------------------------------ */

/* The first n pages, of which the last is held; all words v. */
struct held_write {
	struct world *w;
	struct hold hold;
	size_t n;
	uint64_t v;
	unsigned flags;
	ssize_t r;
	pthread_t id;
};

static void *held_writer(void *arg)
{
	struct held_write *h = arg;
	size_t len = P(h->n - 1);
	uint64_t *buf = aligned_alloc(page, len);
	struct iovec iov[2] = { { buf, len }, { h->hold.mem, page } };

	for (size_t i = 0; i < len / 8; i++)
		buf[i] = h->v;
	h->r = mkw_pwritev(h->w->file, iov, 2, 0, h->flags);
	free(buf);
	return NULL;
}

static void held_begin(struct held_write *h)
{
	hold_begin(&h->hold);
	assert_int_equal(pthread_create(&h->id, NULL, held_writer, h), 0);
	hold_wait(&h->hold);
}

static void held_end(struct held_write *h)
{
	hold_let_go(&h->hold, h->v);
	pthread_join(h->id, NULL);
	assert_int_equal(h->r, P(h->n));
	hold_end(&h->hold);
}

struct access {
	struct world *w;
	size_t off;
	uint64_t v;		/* 0: a load, and what it saw; else a store of it */
	_Atomic bool done;
	pthread_t id;
};

static void *accessor(void *arg)
{
	struct access *a = arg;

	if (a->v)
		store(a->w, a->off, a->v);
	else
		a->v = load(a->w, a->off);
	a->done = true;
	return NULL;
}

/* Begins an access, which has to wait for somebody. */
static void access_waits(struct access *a)
{
	uint64_t before = parks(a->w);

	assert_int_equal(pthread_create(&a->id, NULL, accessor, a), 0);
	while (parks(a->w) == before) {
		if (a->done)
			fail_msg("an access of offset %zu did not wait", a->off);
		sched_yield();
	}
}

static void held(struct world *w, size_t n, unsigned flags)
{
	struct held_write h = { .w = w, .n = n, .v = 2, .flags = flags };
	struct access first = { .w = w, .off = 8 };
	struct access last = { .w = w, .off = P(n) - 16 };
	struct access other = { .w = w, .off = 24, .v = 3 };

	fill(w, 0, n, 1, 0);
	assert_int_equal(load(w, 0), 1);
	assert_int_equal(load(w, P(n) - 8), 1);
	held_begin(&h);
	access_waits(&first);
	access_waits(&last);
	access_waits(&other);
	assert_false(first.done || last.done || other.done);
	held_end(&h);
	pthread_join(first.id, NULL);
	pthread_join(last.id, NULL);
	pthread_join(other.id, NULL);
	assert_int_equal(first.v, 2);
	assert_int_equal(last.v, 2);
	assert_int_equal(load(w, 24), 3);
	assert_int_equal(load(w, 32), 2);
}

static void torn(struct world *w, unsigned flags)
{
	struct held_write h = { .w = w, .n = 2, .v = 2, .flags = flags };

	fill(w, 0, 2, 1, 0);
	assert_int_equal(load(w, 0), 1);
	assert_int_equal(load(w, page), 1);
	held_begin(&h);
	/* The test above is one that can fail. */
	assert_int_equal(load(w, 0), 2);
	assert_int_equal(load(w, page), 1);
	held_end(&h);
	assert_int_equal(load(w, page), 2);
}

static void each_world(int open_flags, void (*fn)(struct world *w))
{
	for (unsigned i = 0; i < 4; i++) {
		struct world w;

		world_open(&w, P(PAGES), i & 1 ? MKW_POLICY_INVALIDATE : MKW_POLICY_RETRY,
			   i & 2 ? MKW_MAP_INLINE : 0, open_flags);
		fn(&w);
		world_close(&w);
	}
}

static void held_writes(struct world *w)
{
	held(w, 2, 0);
	held(w, 2, MKW_DIRECT);
	/* Three times what the cache holds. */
	held(w, 768, 0);
}

static void held_in_the_midst(void **state)
{
	(void)state;
	each_world(MKW_ATOMIC_WRITES, held_writes);
}

static void torn_writes(struct world *w)
{
	torn(w, 0);
}

static void torn_without(void **state)
{
	(void)state;
	each_world(0, torn_writes);
}

/* ---- a race --------------------------------------------------------------- */

static struct {
	struct world *w;
	_Atomic bool stop;
	_Atomic uint64_t loads, bad;
} race;

/* Two words, in order, of any two pages of the first three: never back in time. */
static void *loader(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	uint64_t a, b;
	size_t x, y;

	while (!race.stop) {
		x = (size_t)rand_r(&seed) % (P(3) / 8) * 8;
		y = (size_t)rand_r(&seed) % (P(3) / 8) * 8;
		a = load(race.w, x);
		b = load(race.w, y);
		race.bad += b < a;
		race.loads++;
	}
	return NULL;
}

/* All of three pages, in each of several ways. */
static void write_version(struct world *w, uint64_t v)
{
	uint64_t *buf = aligned_alloc(page, P(3));
	struct iovec iov[3];

	for (size_t i = 0; i < P(3) / 8; i++)
		buf[i] = v;
	for (size_t i = 0; i < 3; i++)
		iov[i] = (struct iovec){ (char *)buf + P(i), page };
	switch (v % 4) {
	case 0:
		assert_int_equal(mkw_pwrite(w->file, buf, P(3), 0, 0), P(3));
		break;
	case 1:
		assert_int_equal(mkw_pwrite(w->file, buf, P(3), 0, MKW_DIRECT), P(3));
		break;
	case 2:
		assert_int_equal(mkw_pwritev(w->file, iov, 3, 0, 0), P(3));
		break;
	default:
		/* The source is mapped: of this file, and next to it. */
		memcpy(w->map + P(3), buf, P(3));
		assert_int_equal(mkw_pwrite(w->file, w->map + P(3), P(3), 0, 0), P(3));
		/* And the very range. */
		assert_int_equal(mkw_pwrite(w->file, w->map, P(3), 0, 0), P(3));
		break;
	}
	free(buf);
}

static void race_once(struct world *w)
{
	pthread_t id[LOADERS];

	race.w = w;
	race.stop = false;
	race.loads = race.bad = 0;
	for (uintptr_t i = 0; i < LOADERS; i++)
		assert_int_equal(pthread_create(&id[i], NULL, loader, (void *)(i + 1)), 0);
	for (uint64_t v = 1; v <= ROUNDS || race.loads < ROUNDS; v++) {
		write_version(w, v);
		if (v % 64 == 0)
			assert_int_equal(mkw_sync(w->file), 0);
	}
	race.stop = true;
	for (unsigned i = 0; i < LOADERS; i++)
		pthread_join(id[i], NULL);
	printf("    %llu pairs of loads\n", (unsigned long long)race.loads);
	assert_int_equal(race.bad, 0);
}

static void versions_rise(void **state)
{
	(void)state;
	each_world(MKW_ATOMIC_WRITES, race_once);
}

/* ---- the rest -------------------------------------------------------------- */

/* Whatever changes bytes takes the mappings of its range away, and no others. */
static void unmaps(struct world *w)
{
	char two[16] = "two words";
	off_t end;

	fill(w, 0, 8, 1, 0);
	for (size_t i = 0; i < 8; i++)
		load(w, P(i));
	assert_int_equal(mkw_pwrite(w->file, two, sizeof(two), (off_t)P(1), 0),
			 sizeof(two));
	assert_true(is_mapped(w, 0));
	assert_false(is_mapped(w, 1));
	assert_true(is_mapped(w, 2));
	assert_int_equal(mkw_fallocate(w->file, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, (off_t)P(2) + 8, 16), 0);
	assert_false(is_mapped(w, 2));
	assert_true(is_mapped(w, 3));
	assert_int_equal(mkw_truncate(w->file, (off_t)P(4) + 8), 0);
	assert_true(is_mapped(w, 3));
	assert_false(is_mapped(w, 4));
	load(w, P(4));
	assert_int_equal(mkw_append(w->file, two, sizeof(two), 0, &end), sizeof(two));
	assert_int_equal(end, P(4) + 8);
	assert_false(is_mapped(w, 4));
	assert_memory_equal(w->map + P(4) + 8, two, sizeof(two));
}

static void mappings_go(void **state)
{
	(void)state;
	each_world(MKW_ATOMIC_WRITES, unmaps);
}

/* It is the file's: any handle's, by any name; and unknown flags are refused. */
static void flag(void **state)
{
	char name[64], two[16] = "two words";
	struct mkw_file *other;
	struct world w;
	int fd;

	(void)state;
	world_open(&w, P(PAGES), MKW_POLICY_RETRY, 0, 0);
	load(&w, 0);
	assert_int_equal(mkw_pwrite(w.file, two, sizeof(two), 0, 0), sizeof(two));
	assert_true(is_mapped(&w, 0));
	assert_int_equal(mkw_file_open(w.engine, w.path, O_RDWR | MKW_ATOMIC_WRITES >> 1,
				       0, &other), -EINVAL);
	fd = open(w.path, O_RDWR);
	assert_true(fd >= 0);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	assert_int_equal(mkw_file_open(w.engine, name, O_RDONLY | MKW_ATOMIC_WRITES, 0,
				       &other), 0);
	close(fd);
	assert_int_equal(mkw_file_close(other), 0);
	assert_int_equal(mkw_pwrite(w.file, two, sizeof(two), 0, 0), sizeof(two));
	assert_false(is_mapped(&w, 0));
	world_close(&w);
}

/* A write that ends early has written its first bytes, and no more. */
static void short_write(void **state)
{
	struct iovec iov[2];
	struct world w;
	char *bad;

	(void)state;
	world_open(&w, P(PAGES), MKW_POLICY_RETRY, 0, MKW_ATOMIC_WRITES);
	bad = mmap(NULL, P(2), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(bad, MAP_FAILED);
	assert_int_equal(mprotect(bad + page, page, PROT_NONE), 0);
	fill(&w, 0, 3, 1, 0);
	iov[0] = (struct iovec){ bad, page };
	iov[1] = (struct iovec){ bad + page - 8, 16 };
	memset(bad, 2, page);
	assert_int_equal(mkw_pwritev(w.file, iov, 2, 0, 0), page);
	assert_int_equal(load(&w, page - 8), 0x0202020202020202);
	assert_int_equal(load(&w, page), 1);
	assert_int_equal(mkw_pwrite(w.file, bad + page - 8, 16, 0, 0), -EFAULT);
	/* And has not made the file longer than that. */
	assert_int_equal(mkw_append(w.file, bad + page - 8, 16, 0, NULL), -EFAULT);
	assert_int_equal(mkw_size(w.file), P(PAGES));
	assert_int_equal(mkw_pwritev(w.file, iov, 2, (off_t)P(PAGES), 0), page);
	assert_int_equal(mkw_size(w.file), P(PAGES + 1));
	munmap(bad, P(2));
	world_close(&w);
}

static void *unpin(void *arg)
{
	mkw_unpin(arg);
	return NULL;
}

static void *try_write(void *arg)
{
	struct held_write *h = arg;

	h->r = mkw_pwrite(h->w->file, &h->v, sizeof(h->v), 0, h->flags);
	return NULL;
}

/* Pins are waited for, as by all who take pages away. */
static void pins(void **state)
{
	struct held_write h = { .v = 7, .flags = MKW_NOWAIT };
	struct mkw_pin *pin;
	struct world w;
	pthread_t id;

	(void)state;
	world_open(&w, P(PAGES), MKW_POLICY_RETRY, 0, MKW_ATOMIC_WRITES);
	h.w = &w;
	assert_int_equal(mkw_truncate(w.file, (off_t)page - 8), 0);
	assert_int_equal(mkw_pin(w.map, 8, MKW_PIN_READ, &pin), 0);
	assert_int_equal(mkw_pwrite(w.file, &h.v, 8, 0, 0), -EDEADLK);
	assert_int_equal(mkw_append(w.file, &h.v, 8, 0, NULL), -EDEADLK);
	assert_int_equal(pthread_create(&id, NULL, try_write, &h), 0);
	pthread_join(id, NULL);
	assert_int_equal(h.r, -EAGAIN);
	h.flags = 0;
	assert_int_equal(pthread_create(&h.id, NULL, try_write, &h), 0);
	assert_int_equal(load(&w, 0), 0);
	assert_int_equal(pthread_create(&id, NULL, unpin, pin), 0);
	pthread_join(id, NULL);
	pthread_join(h.id, NULL);
	assert_int_equal(h.r, 8);
	assert_int_equal(load(&w, 0), 7);
	assert_int_equal(mkw_truncate(w.file, (off_t)P(PAGES)), 0);
	world_close(&w);
}

/* A page is locked while it is protected, snapshot or mapped: who does not wait is told. */
struct page_holder {
	struct mkw__inode *inode;
	sem_t has, go;
};

static void *hold_page(void *arg)
{
	struct page_holder *h = arg;
	uint32_t word;

	mkw__mutex_lock(&h->inode->tree);
	while ((word = mkw__page_get_locked(h->inode, 1)) & PG_LOCKED)
		mkw__page_sleep_locked(h->inode, 1);
	mkw__page_set_locked(h->inode, 1, word | PG_LOCKED);
	mkw__mutex_unlock(&h->inode->tree);
	sem_post(&h->has);
	while (sem_wait(&h->go))
		;
	mkw__page_unlock_run(h->inode, 1, 1, 0);
	return NULL;
}

static void nowait(struct world *w)
{
	struct page_holder h = { .inode = w->file->inode };
	uint64_t v = 3;
	pthread_t t;

	sem_init(&h.has, 0, 0);
	sem_init(&h.go, 0, 0);
	fill(w, 0, 4, 1, 0);
	store(w, P(1), 2);
	pthread_create(&t, NULL, hold_page, &h);
	while (sem_wait(&h.has))
		;
	/* Or it waits for ever. */
	alarm(100);
	assert_int_equal(mkw_pwrite(w->file, &v, 8, (off_t)P(1) - 4, MKW_NOWAIT),
			 -EAGAIN);
	alarm(0);
	sem_post(&h.go);
	pthread_join(t, NULL);
	assert_int_equal(load(w, P(1)), 2);
	/* The lock was given back; so with nobody there, it is done. */
	assert_int_equal(mkw_pwrite(w->file, &v, 8, (off_t)P(1) - 4, MKW_NOWAIT), 8);
}

static void does_not_wait(void **state)
{
	(void)state;
	each_world(MKW_ATOMIC_WRITES, nowait);
}

/* Out of a mapping a write needs all of its bytes first: up to 1 GiB. */
static void too_long(void **state)
{
	size_t len = ((size_t)1 << 30) + 8;
	struct world w;
	void *map;

	(void)state;
	world_open(&w, P(PAGES), MKW_POLICY_RETRY, 0, MKW_ATOMIC_WRITES);
	assert_int_equal(mkw_truncate(w.file, (off_t)len), 0);
	assert_int_equal(mkw_map(w.file, NULL, len, PROT_READ, 0, 0, &map), 0);
	fill(&w, 0, 1, 5, 0);
	assert_int_equal(mkw_pwrite(w.file, map, len, (off_t)page, 0), -ENOMEM);
	assert_int_equal(load(&w, page), 0);
	assert_int_equal(mkw_unmap(map, len), 0);
	assert_int_equal(mkw_truncate(w.file, (off_t)P(PAGES)), 0);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flag),
		cmocka_unit_test(mappings_go),
		cmocka_unit_test(torn_without),
		cmocka_unit_test(held_in_the_midst),
		cmocka_unit_test(versions_rise),
		cmocka_unit_test(short_write),
		cmocka_unit_test(pins),
		cmocka_unit_test(does_not_wait),
		cmocka_unit_test(too_long),
	};
	int fd;

	access_begin();
	if (!access_possible())
		return 77;
	fd = open_uffd();
	if (fd < 0) {
		printf("SKIP: no userfaultfd for user mode here\n");
		return 77;
	}
	close(fd);
	page = (size_t)sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
