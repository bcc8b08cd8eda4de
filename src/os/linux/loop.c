/* SPDX-License-Identifier: MIT */
/*
 * loop.c: what an engine thread sleeps on.
 *
 * One io_uring is all of it: reads and writes, a multishot poll of the
 * userfaultfd and one of an eventfd that others kick. One system call then
 * submits, sleeps and collects. (Measured per fault, pager and toucher on one
 * CPU: 7.8-8.3 us, with epoll around it 8.3-9.3.)
 *
 *	        rw(), post()            kick()          fault
 *	             |                    |               |
 *	queue[] (any task, l->mutex)   eventfd       userfaultfd
 *	             |  drained by wait() |   polled by   |
 *	             +---------- ring ----+--- the ring --+--> callbacks, in wait()
 *
 * Where io_uring is refused (a sysctl, a seccomp profile) wait() makes the
 * transfers itself, one after the other, and sleeps in ppoll(): slower, the
 * same to everybody else. So it does as long as there was never more than one, nor
 * faults to wait for: a sync of one run of pages would pay for a ring more than twice
 * what its write costs.
 *
 * Who may call what: wait(), pause(), watch() and leave() belong to one task, the
 * owner, which is the one that calls wait() first, or first after a leave(). rw(),
 * post() and kick() may be called by any task; rw() and post() by another than the
 * owner kick.
 *
 * Leaving. To close a ring interrupts every task that has used it, some time after: its
 * next epoll_wait(2) fails with EINTR, though no signal came. So application threads
 * get loops that others have left, and no ring is closed before its engine. A request
 * completes in the task that submitted it, so the poll of the eventfd goes with its task.
 *
 * Polls. A multishot poll posts a completion for each wake-up of its file, so
 * the eventfd needs no draining; and a read of messages that returned fewer
 * than it had room for needs no second read, since a message that came later
 * comes with a completion of its own. When the kernel ends a multishot poll it
 * is armed again, and looks first whether the file is ready already. While the
 * loop is paused completions of the userfaultfd are noted and nothing is read;
 * nothing spins, since only new messages post more.
 *
 * Kicks. l->kicked says that an eventfd write is on its way, so that others may
 * leave it out:
 *
 *	kick()                              wait()
 *	  (publishes something)               completion of the eventfd
 *	  K: xchg kicked = 1 (acq_rel)        C: xchg kicked = 0 (acq_rel)
 *	     was 0: write eventfd             return to the caller, who looks
 *
 * A kick that finds 1 writes nothing. Some later C replaces that 1 (K comes
 * before it in the order of the word), reads from K or from an exchange after
 * it, and so sees what was published before K; and its caller looks only after
 * C. A C between a kick's K and its write only makes one wake-up too many.
 * Where ppoll() sleeps, the eventfd is drained before C and never after it:
 * the other way round it could swallow the write of a kick whose 1 stays.
 */
#include <errno.h>
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "os/linux/linux.h"

/* A transfer's length in the ring is 32 bits; a short one goes on. */
#define RW_BYTES_MAX ((size_t)1 << 30)
#define MESSAGES 32

/* Values of a completion's user_data that are no pointer. */
enum { TAG_UFFD = 1, TAG_KICK = 2, TAG_REMOVE = 3 };

struct entry {
	struct mkw__os_io *io;
	int res;
	bool post;
};

struct mkw__os_loop {
	int kick_fd;
	_Atomic uint32_t kicked;
	/* The queue: a ring buffer, under mutex. */
	struct mkw__os_mutex mutex;
	struct entry *queue;
	unsigned depth, head, count;
	/* The rest is the owner's. */
	_Atomic(struct mkw__os_task *) owner;
	struct mkw__os_mmu *mmu;
	void (*before_read)(void *arg);
	void (*on_fault)(void *arg, const struct mkw__os_fault *msg);
	void *fault_arg;
	bool paused;
	bool readable;		/* the kernel may have messages */
	struct uffd_msg msg[MESSAGES];
	unsigned msg_next, msg_count;
	bool uring;
	bool opened;		/* the ring was asked for */
	bool kick_armed, uffd_armed;
	int removal;		/* of the kick's poll: what came of it; 1: not yet */
	struct io_uring ring;
};

static _Atomic bool no_uring;

/*
 * Open rings. A ring's memory is unmapped and mapped by calls that a race detector
 * does not see, so to it one ring may lie where another task's has been: a close
 * releases this count and an open acquires it, which is the order that the kernel
 * gives them.
 */
static _Atomic unsigned rings;

void mkw__os_loop_no_uring(bool on)
{
	atomic_store(&no_uring, on);
}

/* ---- the queue -------------------------------------------------------- */

static void enqueue(struct mkw__os_loop *l, struct mkw__os_io *io, int res,
		    bool post)
{
	bool full;

	mkw__os_mutex_lock(&l->mutex);
	full = l->count == l->depth;
	if (!full) {
		l->queue[(l->head + l->count) % l->depth] =
			(struct entry){ io, res, post };
		l->count++;
	}
	/* Under the mutex: once the owner has the entry it may be through with
	 * the loop, and destroy it. */
	if (!full && atomic_load_explicit(&l->owner, memory_order_relaxed) !=
			     mkw__os_self())
		mkw__os_loop_kick(l);
	mkw__os_mutex_unlock(&l->mutex);
	if (full)
		mkw__os_panic("more than %u transfers in flight on one loop",
			      l->depth);
}

static bool dequeue(struct mkw__os_loop *l, struct entry *e)
{
	bool any;

	mkw__os_mutex_lock(&l->mutex);
	any = l->count > 0;
	if (any) {
		*e = l->queue[l->head];
		l->head = (l->head + 1) % l->depth;
		l->count--;
	}
	mkw__os_mutex_unlock(&l->mutex);
	return any;
}

static unsigned queue_count(struct mkw__os_loop *l)
{
	unsigned count;

	mkw__os_mutex_lock(&l->mutex);
	count = l->count;
	mkw__os_mutex_unlock(&l->mutex);
	return count;
}

/* What is in flight is counted where it is queued. */
void mkw__os_loop_begin(struct mkw__os_loop *l)
{
	(void)l;
}

void mkw__os_loop_rw(struct mkw__os_loop *l, struct mkw__os_io *io)
{
	enqueue(l, io, 0, false);
}

void mkw__os_loop_post(struct mkw__os_loop *l, struct mkw__os_io *io, int res)
{
	enqueue(l, io, res, true);
}

void mkw__os_loop_kick(struct mkw__os_loop *l)
{
	static const uint64_t one = 1;

	/* K above. */
	if (atomic_exchange_explicit(&l->kicked, 1, memory_order_acq_rel))
		return;
	while (write(l->kick_fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: 2^64 kicks that nobody drained; it is readable. */
		if (errno != EINTR)
			break;
	}
}

static void kick_seen(struct mkw__os_loop *l)
{
	/* C above. */
	atomic_exchange_explicit(&l->kicked, 0, memory_order_acq_rel);
}

/* ---- the ring --------------------------------------------------------- */

/*
 * Called in a wait(): with SINGLE_ISSUER the task that makes the ring is the only
 * one that may use it (one that receives messages is not left), and a loop that never
 * has to wait needs none.
 */
static bool ring_open(struct mkw__os_loop *l)
{
	struct io_uring_params best = {
		.flags = l->mmu ? IORING_SETUP_SINGLE_ISSUER |
					  IORING_SETUP_DEFER_TASKRUN :
				  IORING_SETUP_COOP_TASKRUN,
	};
	struct io_uring_params plain = { 0 };
	unsigned entries = l->depth + 2;
	int err;

	err = io_uring_queue_init_params(entries, &l->ring, &best);
	if (err == -EINVAL) /* Linux 6.1 has these flags */
		err = io_uring_queue_init_params(entries, &l->ring, &plain);
	if (err) {
		static _Atomic bool told;

		if (!atomic_exchange(&told, true))
			fprintf(stderr,
				"mkwrite: asked for an io_uring, got: %s; "
				"reading and writing without it, slower. See "
				"sysctl kernel.io_uring_disabled, the seccomp "
				"profile, and RLIMIT_MEMLOCK.\n",
				strerror(-err));
		return false;
	}
	atomic_fetch_add_explicit(&rings, 1, memory_order_acquire);
	return true;
}

static void ring_close(struct mkw__os_loop *l)
{
	atomic_fetch_sub_explicit(&rings, 1, memory_order_release);
	io_uring_queue_exit(&l->ring);
}

/* A free entry; there are as many as can be in flight. */
static struct io_uring_sqe *ring_sqe(struct mkw__os_loop *l)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);

	if (!sqe) {
		io_uring_submit(&l->ring);
		sqe = io_uring_get_sqe(&l->ring);
	}
	if (!sqe)
		mkw__os_panic("the io_uring takes no more than %u transfers",
			      l->depth);
	return sqe;
}

static void ring_poll(struct mkw__os_loop *l, int fd, uint64_t tag)
{
	struct io_uring_sqe *sqe = ring_sqe(l);

	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	io_uring_sqe_set_data64(sqe, tag);
}

static size_t rw_len(const struct mkw__os_io *io)
{
	size_t len = io->part ? io->part : io->len - io->moved;

	return len < RW_BYTES_MAX ? len : RW_BYTES_MAX;
}

static void ring_rw(struct mkw__os_loop *l, struct mkw__os_io *io)
{
	struct io_uring_sqe *sqe = ring_sqe(l);
	char *buf = (char *)io->buf + io->moved;
	size_t len = rw_len(io);

	if (io->write)
		io_uring_prep_write(sqe, io->fd, buf, (unsigned)len,
				    io->off + io->moved);
	else
		io_uring_prep_read(sqe, io->fd, buf, (unsigned)len,
				   io->off + io->moved);
	io_uring_sqe_set_data(sqe, io);
}

static void ring_arm(struct mkw__os_loop *l)
{
	if (!l->kick_armed) {
		ring_poll(l, l->kick_fd, TAG_KICK);
		l->kick_armed = true;
	}
	if (l->mmu && !l->uffd_armed) {
		ring_poll(l, l->mmu->fd, TAG_UFFD);
		l->uffd_armed = true;
	}
}

static void ring_complete(struct mkw__os_loop *l,
			  const struct io_uring_cqe *cqe)
{
	struct mkw__os_io *io;

	switch (cqe->user_data) {
	case TAG_UFFD:
		l->readable = true;
		l->uffd_armed = cqe->flags & IORING_CQE_F_MORE;
		break;
	case TAG_KICK:
		kick_seen(l);
		l->kick_armed = cqe->flags & IORING_CQE_F_MORE;
		break;
	case TAG_REMOVE:
		l->removal = cqe->res;
		break;
	default:
		io = io_uring_cqe_get_data(cqe);
		io->raw(l, io, cqe->res);
	}
}

/* Submits, sleeps, and runs what completed. */
static void ring_wait(struct mkw__os_loop *l, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = {
		.tv_sec = (long long)(timeout_ns / 1000000000u),
		.tv_nsec = (long long)(timeout_ns % 1000000000u),
	};
	struct io_uring_cqe *cqe;
	int err;

	if (timeout_ns == 0)
		err = io_uring_submit_and_get_events(&l->ring);
	else
		err = io_uring_submit_and_wait_timeout(
			&l->ring, &cqe, 1,
			timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
	/*
	 * ETIME is the timeout. After a signal, or short of memory, what is
	 * not submitted is still in the ring and goes with the next call.
	 */
	if (err < 0 && err != -ETIME && err != -EINTR && err != -EAGAIN &&
	    err != -EBUSY && err != -ENOMEM)
		mkw__os_panic("waiting on an io_uring: %s", strerror(-err));

	/*
	 * One at a time, each given back before its callback, which may
	 * queue the same transfer again; none that this call did not find.
	 */
	for (unsigned n = io_uring_cq_ready(&l->ring);
	     n > 0 && !io_uring_peek_cqe(&l->ring, &cqe); n--) {
		struct io_uring_cqe copy = *cqe;

		io_uring_cqe_seen(&l->ring, cqe);
		ring_complete(l, &copy);
	}
}

/* No request of this task stays in the ring. */
static void ring_leave(struct mkw__os_loop *l)
{
	struct io_uring_sqe *sqe;

	while (l->kick_armed) {
		sqe = ring_sqe(l);
		io_uring_prep_poll_remove(sqe, TAG_KICK);
		io_uring_sqe_set_data64(sqe, TAG_REMOVE);
		l->removal = 1;
		while (l->removal > 0)
			ring_wait(l, UINT64_MAX);
		/* A kick that came just now: it is told of first, and stays armed. */
		if (l->removal == -EALREADY)
			continue;
		/* The poll's own end may come after the removal's. */
		while (l->kick_armed)
			ring_wait(l, UINT64_MAX);
	}
}

/* ---- without a ring --------------------------------------------------- */

static void plain_rw(struct mkw__os_loop *l, struct mkw__os_io *io)
{
	char *buf = (char *)io->buf + io->moved;
	size_t len = rw_len(io);
	off_t off = (off_t)(io->off + io->moved);
	ssize_t n;

	n = io->write ? pwrite(io->fd, buf, len, off)
		      : pread(io->fd, buf, len, off);
	io->raw(l, io, n < 0 ? -errno : (int)n);
}

static void plain_wait(struct mkw__os_loop *l, uint64_t timeout_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(timeout_ns / 1000000000u),
		.tv_nsec = (long)(timeout_ns % 1000000000u),
	};
	struct pollfd fds[2] = { { .fd = l->kick_fd, .events = POLLIN },
				 { .fd = -1, .events = POLLIN } };
	uint64_t kicks;

	if (l->mmu && !l->paused)
		fds[1].fd = l->mmu->fd;
	if (ppoll(fds, 2, timeout_ns == UINT64_MAX ? NULL : &ts, NULL) <= 0)
		return;
	if (fds[0].revents) {
		if (read(l->kick_fd, &kicks, sizeof(kicks)) < 0) {
			/* EAGAIN: the write has yet to come, and will wake. */
		}
		kick_seen(l);
	}
	if (fds[1].revents)
		l->readable = true;
}

/* ---- faults ----------------------------------------------------------- */

/*
 * Hands over the messages that were read, and reads one batch when there is
 * none: completions of I/O get their turn between batches. What on_fault()
 * does not want any more, because it paused the loop, stays in l->msg.
 */
static void read_messages(struct mkw__os_loop *l)
{
	if (l->msg_next == l->msg_count) {
		ssize_t n;

		if (l->before_read)
			l->before_read(l->fault_arg);
		n = read(l->mmu->fd, l->msg, sizeof(l->msg));
		if (n < 0 && errno == EINTR)
			return;
		l->msg_next = 0;
		l->msg_count = n < 0 ? 0 : (unsigned)n / sizeof(l->msg[0]);
		l->readable = l->msg_count == MESSAGES;
	}
	while (l->msg_next < l->msg_count && !l->paused) {
		const struct uffd_msg *msg = &l->msg[l->msg_next++];
		uint64_t flags = msg->arg.pagefault.flags;
		struct mkw__os_fault f = {
			.addr = (uintptr_t)msg->arg.pagefault.address,
			.write = flags & UFFD_PAGEFAULT_FLAG_WRITE,
			.wp = flags & UFFD_PAGEFAULT_FLAG_WP,
		};

		if (msg->event != UFFD_EVENT_PAGEFAULT)
			continue;
		mkw__frames_check_stray(f.addr, f.write);
		l->on_fault(l->fault_arg, &f);
	}
}

static bool has_messages(const struct mkw__os_loop *l)
{
	return !l->paused && (l->readable || l->msg_next < l->msg_count);
}

/* ---- interface -------------------------------------------------------- */

int mkw__os_loop_create(unsigned depth, struct mkw__os_loop **out)
{
	struct mkw__os_loop *l;
	int err = -ENOMEM;

	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->depth = depth;
	l->queue = calloc(depth, sizeof(*l->queue));
	if (!l->queue)
		goto out_free;
	l->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->kick_fd < 0) {
		err = -errno;
		goto out_free;
	}
	/* Nothing to ask for where a test forbids it. */
	l->opened = atomic_load(&no_uring);
	*out = l;
	return 0;
out_free:
	free(l->queue);
	free(l);
	return err;
}

void mkw__os_loop_destroy(struct mkw__os_loop *l)
{
	if (l->uring)
		ring_close(l);
	close(l->kick_fd);
	free(l->queue);
	free(l);
}

void mkw__os_loop_leave(struct mkw__os_loop *l)
{
	if (l->uring)
		ring_leave(l);
	atomic_store_explicit(&l->owner, NULL, memory_order_relaxed);
}

int mkw__os_loop_watch(struct mkw__os_loop *l, struct mkw__os_mmu *mmu,
		       void (*before_read)(void *arg),
		       void (*on_fault)(void *arg,
					const struct mkw__os_fault *msg),
		       void *arg)
{
	if (l->mmu)
		return -EBUSY;
	l->mmu = mmu;
	l->before_read = before_read;
	l->on_fault = on_fault;
	l->fault_arg = arg;
	return 0;
}

void mkw__os_loop_pause(struct mkw__os_loop *l, bool on)
{
	/* What is announced meanwhile stays noted in l->readable. */
	l->paused = on;
}

void mkw__os_loop_wait(struct mkw__os_loop *l, uint64_t timeout_ns)
{
	struct entry e;
	unsigned queued;

	atomic_store_explicit(&l->owner, mkw__os_self(), memory_order_relaxed);
	/* Only what is queued now: callbacks may queue for the next time. */
	queued = queue_count(l);
	if (!l->opened && (l->mmu || queued != 1)) {
		l->uring = ring_open(l);
		l->opened = true;
	}
	if (l->uring)
		ring_arm(l);

	while (queued-- > 0 && dequeue(l, &e)) {
		if (l->uring && !e.post) {
			ring_rw(l, e.io);
			continue;
		}
		timeout_ns = 0;
		if (e.post)
			e.io->done(e.io, e.res);
		else
			plain_rw(l, e.io);
	}
	/* Something to do already: look, but do not sleep. */
	if (has_messages(l) || queue_count(l) > 0)
		timeout_ns = 0;
	if (l->uring)
		ring_wait(l, timeout_ns);
	else
		plain_wait(l, timeout_ns);
	if (has_messages(l))
		read_messages(l);
}
