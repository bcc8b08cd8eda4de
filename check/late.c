/* SPDX-License-Identifier: MIT */
/*
 * late.c: buffers with a page that comes late, by userfaultfd.
 *
 * One thread serves all buffers: it takes faults as they come, notes when each is
 * due, and sleeps until the first is. A buffer's mutex is held by its owner while
 * a page is taken away or brought back, and by the server while it supplies one; so
 * what is supplied is always what the page held when it was taken away. A fault of
 * a page that is there by then (the owner was quicker) is only woken.
 */
#include "check/late.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check/windows/lever.h"

#define ALIGN ((size_t)64 << 10)

struct place {
	pthread_mutex_t mutex;
	/* Under the mutex: */
	bool absent;		/* the page at off */
	size_t off;
	uint64_t delay_ns;
	uint64_t due_ns;	/* 0: nobody has touched it yet */
	char *content;		/* of the page */
};

struct late {
	int uffd, stop;		/* stop: an eventfd */
	unsigned n;
	size_t len, page;
	void *base;
	size_t base_len;
	char *buf;
	struct place *places;
	pthread_t server;
	bool served;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void wake(struct late *late, char *at)
{
	struct uffdio_range range = { (uintptr_t)at, late->page };

	ioctl(late->uffd, UFFDIO_WAKE, &range);
}

static void supply_locked(struct late *late, unsigned i)
{
	struct place *p = &late->places[i];
	char *at = late->buf + i * late->len + p->off;
	struct uffdio_copy copy = {
		.dst = (uintptr_t)at,
		.src = (uintptr_t)p->content,
		.len = late->page,
	};

	while (ioctl(late->uffd, UFFDIO_COPY, &copy) && errno == EAGAIN)
		copy.copy = 0;
	p->absent = false;
	p->due_ns = 0;
	/* There already: whoever sleeps is not woken by the call. */
	if (copy.copy < 0)
		wake(late, at);
}

/* ---- the server ------------------------------------------------------------ */

static void note_fault(struct late *late, uintptr_t address)
{
	size_t off = (address - (uintptr_t)late->buf) & ~(late->page - 1);
	struct place *p = &late->places[off / late->len];

	pthread_mutex_lock(&p->mutex);
	if (p->absent && p->off == off % late->len) {
		if (!p->due_ns)
			p->due_ns = now_ns() + p->delay_ns;
	} else {
		wake(late, late->buf + off);
	}
	pthread_mutex_unlock(&p->mutex);
}

/* Supplies what is due; returns when the next one is. */
static uint64_t supply_due(struct late *late)
{
	uint64_t now = now_ns(), next = UINT64_MAX;

	for (unsigned i = 0; i < late->n; i++) {
		struct place *p = &late->places[i];

		pthread_mutex_lock(&p->mutex);
		if (p->absent && p->due_ns && p->due_ns <= now)
			supply_locked(late, i);
		else if (p->absent && p->due_ns && p->due_ns < next)
			next = p->due_ns;
		pthread_mutex_unlock(&p->mutex);
	}
	return next;
}

static void *serve(void *arg)
{
	struct late *late = arg;
	struct pollfd fds[2] = { { .fd = late->uffd, .events = POLLIN },
				 { .fd = late->stop, .events = POLLIN } };

	while (!fds[1].revents) {
		uint64_t next = supply_due(late), now = now_ns();
		uint64_t wait = next > now ? next - now : 0;
		struct timespec ts = { (time_t)(wait / 1000000000u),
				       (long)(wait % 1000000000u) };
		struct uffd_msg msg;

		ppoll(fds, 2, next == UINT64_MAX ? NULL : &ts, NULL);
		while (read(late->uffd, &msg, sizeof(msg)) == sizeof(msg))
			if (msg.event == UFFD_EVENT_PAGEFAULT)
				note_fault(late, msg.arg.pagefault.address);
	}
	return NULL;
}

/* ---- owners ----------------------------------------------------------------- */

void *mkw__late_buf(struct late *late, unsigned i)
{
	return late->buf + i * late->len;
}

void mkw__late_arm(struct late *late, unsigned i, size_t off, uint64_t delay_ns)
{
	struct place *p = &late->places[i];
	char *at = late->buf + i * late->len;

	off &= ~(late->page - 1);
	pthread_mutex_lock(&p->mutex);
	if (p->absent)
		supply_locked(late, i);
	memcpy(p->content, at + off, late->page);
	p->off = off;
	p->delay_ns = delay_ns;
	p->absent = !madvise(at + off, late->page, MADV_DONTNEED);
	pthread_mutex_unlock(&p->mutex);
}

void mkw__late_settle(struct late *late, unsigned i)
{
	struct place *p = &late->places[i];

	pthread_mutex_lock(&p->mutex);
	if (p->absent)
		supply_locked(late, i);
	pthread_mutex_unlock(&p->mutex);
}

/* ---- beginning and end -------------------------------------------------------- */

void mkw__late_close(struct late *late)
{
	const uint64_t one = 1;

	if (!late)
		return;
	if (late->served) {
		while (write(late->stop, &one, sizeof(one)) < 0 &&
		       errno == EINTR)
			;
		pthread_join(late->server, NULL);
	}
	if (late->uffd >= 0)
		close(late->uffd);
	if (late->stop >= 0)
		close(late->stop);
	for (unsigned i = 0; late->places && i < late->n; i++) {
		free(late->places[i].content);
		pthread_mutex_destroy(&late->places[i].mutex);
	}
	free(late->places);
	if (late->base != MAP_FAILED)
		munmap(late->base, late->base_len);
	free(late);
}

static int start(struct late *late)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	sigset_t block, saved;
	int err;

	reg.range.start = (uintptr_t)late->buf;
	reg.range.len = late->n * late->len;
	if (ioctl(late->uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	sigfillset(&block);
	pthread_sigmask(SIG_SETMASK, &block, &saved);
	err = pthread_create(&late->server, NULL, serve, late);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	late->served = !err;
	return -err;
}

struct late *mkw__late_open(unsigned n, size_t len, char *why, size_t size)
{
	struct late *late;
	int err;

	if (mkw__lever_probe(why, size))
		return NULL;
	late = calloc(1, sizeof(*late));
	if (!late)
		goto no_memory;
	*late = (struct late){ .stop = -1, .n = n, .len = len,
			       .base = MAP_FAILED };
	late->page = (size_t)sysconf(_SC_PAGESIZE);
	late->uffd = mkw__lever_uffd();
	late->stop = eventfd(0, EFD_CLOEXEC);
	late->base_len = n * len + ALIGN;
	late->base = mmap(NULL, late->base_len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	late->places = calloc(n, sizeof(*late->places));
	if (late->uffd < 0 || late->stop < 0 || late->base == MAP_FAILED ||
	    !late->places)
		goto no_memory;
	late->buf = (char *)(((uintptr_t)late->base + ALIGN - 1) & ~(ALIGN - 1));
	/* A huge page would be taken away as a whole. Absent: no matter. */
	madvise(late->base, late->base_len, MADV_NOHUGEPAGE);
	memset(late->buf, 0, n * len);
	for (unsigned i = 0; i < n; i++) {
		pthread_mutex_init(&late->places[i].mutex, NULL);
		late->places[i].content = malloc(late->page);
		if (!late->places[i].content)
			goto no_memory;
	}
	err = start(late);
	if (!err)
		return late;
	snprintf(why, size, "%s", strerror(-err));
	mkw__late_close(late);
	return NULL;

no_memory:
	snprintf(why, size, "no memory");
	mkw__late_close(late);
	return NULL;
}
