/* SPDX-License-Identifier: MIT */
/*
 * nbd.c: a store of a program's own over the network block device protocol: what a server
 * has is mapped, through a cache of an eighth of it. By default the server is nbdkit(1),
 * with the file that the argument names, which is made; further arguments are the command
 * of another one, that speaks on its standard input and output.
 *
 * libnbd's asynchronous calls fit those of a store: an operation is queued, a thread
 * that has the connection to itself sends it, and its completion calls
 * mkw_io_done(), in whatever order the server answers. When the server fails, or is gone, the
 * operation ends with -EIO, and so does who needed it: a call with that, a load with
 * SIGBUS, and what was stored by others stays dirty in the cache.
 *
 * Libraries: libnbd
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <libnbd.h>
#include <mkwrite/store.h>

#define PIECE ((uint64_t)1 << 20)	/* of a request; every server takes it */

enum op { READ, WRITE, FLUSH, PUNCH, ZERO };
/* In io->own: the next one of the queue, what is asked, and how far it is. */
enum { NEXT, OP, DONE };

struct remote {
	struct nbd_handle *nbd;		/* the thread's */
	int wake;			/* an eventfd: somebody has queued, or close() */
	pthread_t thread;
	pthread_mutex_t mutex;		/* of what follows */
	struct mkw_io *first, *last;
	bool stop;
};

struct request {
	struct remote *r;
	struct mkw_io *io;
	uint64_t len;
};

static void ask(struct remote *r, struct mkw_io *io);

/* The server has answered, or will not any more; in the thread. */
static int answered(void *arg, int *error)
{
	struct request q = *(struct request *)arg;

	free(arg);
	q.io->own[DONE] += q.len;
	if (*error)
		mkw_io_done(q.io, *error == ENOSPC ? -ENOSPC : -EIO);
	else if (q.io->own[OP] == READ || q.io->own[OP] == WRITE)
		mkw_io_done(q.io, (ssize_t)q.len);	/* short is fine */
	else if (q.io->own[OP] != FLUSH && q.io->own[DONE] < q.io->len)
		ask(q.r, q.io);
	else
		mkw_io_done(q.io, 0);
	return 1;
}

/* Sends a request for a piece of it. */
static void ask(struct remote *r, struct mkw_io *io)
{
	struct request *q = malloc(sizeof(*q));
	nbd_completion_callback then = { .callback = answered, .user_data = q };
	uint64_t off = io->off + io->own[DONE], left = io->len - io->own[DONE];
	int64_t sent = -1;

	if (!q) {
		mkw_io_done(io, -ENOMEM);
		return;
	}
	*q = (struct request){ r, io, left < PIECE ? left : PIECE };
	switch ((enum op)io->own[OP]) {
	case READ:
		sent = nbd_aio_pread(r->nbd, io->buf, q->len, off, then, 0);
		break;
	case WRITE:
		sent = nbd_aio_pwrite(r->nbd, io->buf, q->len, off, then, 0);
		break;
	case FLUSH:
		sent = nbd_aio_flush(r->nbd, then, 0);
		break;
	/* A trim would leave what is read there to the server. */
	case PUNCH:
		sent = nbd_aio_zero(r->nbd, q->len, off, then, 0);
		break;
	case ZERO:
		sent = nbd_aio_zero(r->nbd, q->len, off, then,
				    LIBNBD_CMD_FLAG_NO_HOLE);
		break;
	}
	/* It did not call back, and will not: there is no connection. */
	if (sent < 0) {
		free(q);
		mkw_io_done(io, -EIO);
	}
}

/* What is queued goes out. False: close() has come. */
static bool take(struct remote *r)
{
	struct mkw_io *io, *next;
	bool stop;

	pthread_mutex_lock(&r->mutex);
	io = r->first;
	r->first = NULL;
	stop = r->stop;
	pthread_mutex_unlock(&r->mutex);
	for (; io; io = next) {
		next = (struct mkw_io *)(uintptr_t)io->own[NEXT];
		ask(r, io);
	}
	return !stop;
}

static void *worker(void *arg)
{
	struct remote *r = arg;
	struct pollfd p[2] = { { .fd = r->wake, .events = POLLIN } };
	uint64_t count;
	unsigned way;

	while (take(r)) {
		way = nbd_aio_get_direction(r->nbd);
		p[1].fd = way ? nbd_aio_get_fd(r->nbd) : -1;
		p[1].events = (short)((way & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				      (way & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
		p[1].revents = 0;
		if (poll(p, 2, -1) < 0)
			continue;
		if ((p[0].revents & POLLIN) && read(r->wake, &count, sizeof(count)) < 0)
			continue;
		if ((p[1].revents & (POLLIN | POLLHUP | POLLERR)) &&
		    (way & LIBNBD_AIO_DIRECTION_READ))
			nbd_aio_notify_read(r->nbd);
		else if (p[1].revents)
			nbd_aio_notify_write(r->nbd);
	}
	return NULL;
}

static void rouse(struct remote *r)
{
	uint64_t one = 1;

	while (write(r->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void queue(struct remote *r, struct mkw_io *io, enum op op)
{
	io->own[NEXT] = 0;
	io->own[OP] = op;
	io->own[DONE] = 0;
	pthread_mutex_lock(&r->mutex);
	if (r->first)
		r->last->own[NEXT] = (uintptr_t)io;
	else
		r->first = io;
	r->last = io;
	pthread_mutex_unlock(&r->mutex);
	rouse(r);
}

static void remote_read(void *arg, struct mkw_io *io)
{
	queue(arg, io, READ);
}

static void remote_write(void *arg, struct mkw_io *io)
{
	queue(arg, io, WRITE);
}

static void remote_flush(void *arg, struct mkw_io *io)
{
	queue(arg, io, FLUSH);
}

static void remote_punch(void *arg, struct mkw_io *io)
{
	queue(arg, io, PUNCH);
}

static void remote_zero(void *arg, struct mkw_io *io)
{
	queue(arg, io, ZERO);
}

/* Nothing is under way any more. */
static void remote_close(void *arg)
{
	struct remote *r = arg;

	pthread_mutex_lock(&r->mutex);
	r->stop = true;
	pthread_mutex_unlock(&r->mutex);
	rouse(r);
	pthread_join(r->thread, NULL);
	nbd_shutdown(r->nbd, 0);
	nbd_close(r->nbd);
	close(r->wake);
	free(r);
}

/* Where the server has no such thing, the engine does without. */
static struct mkw_store_ops remote_ops = {
	MKW_STORE_OPS_INIT,
	.read = remote_read,
	.write = remote_write,
	.close = remote_close,
};

static int remote_open(struct mkw_engine *engine, char **server,
		       struct mkw_file **file)
{
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct remote *r = calloc(1, sizeof(*r));
	int64_t len = -1, unit;

	if (!r)
		return -ENOMEM;
	r->nbd = nbd_create();
	r->wake = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&r->mutex, NULL);
	if (r->nbd && !nbd_connect_command(r->nbd, server))
		len = nbd_get_size(r->nbd);
	if (len < 0 || r->wake < 0 || pthread_create(&r->thread, NULL, worker, r)) {
		fprintf(stderr, "no connection to %s: %s\n", server[0],
			nbd_get_error() ? nbd_get_error() : "no memory");
		if (r->nbd)
			nbd_close(r->nbd);
		if (r->wake >= 0)
			close(r->wake);
		free(r);
		return -ENOTCONN;
	}
	if (nbd_can_flush(r->nbd) == 1)
		remote_ops.flush = remote_flush;
	if (nbd_can_zero(r->nbd) == 1) {
		remote_ops.punch = remote_punch;
		remote_ops.zero = remote_zero;
	}
	unit = nbd_get_block_size(r->nbd, LIBNBD_SIZE_MINIMUM);
	info.len = (uint64_t)len;
	info.align = unit > 0 ? (uint32_t)unit : 1;
	/* From here on the engine closes it, even when this fails. */
	return mkw_file_open_store(engine, &remote_ops, &info, r, O_RDWR, file);
}

/* ---- a use of it ------------------------------------------------------- */

#define LEN ((size_t)8 << 20)
#define WORDS (LEN / sizeof(uint64_t))

static sigjmp_buf caught;

/* In the thread whose access cannot be served. */
static int on_error(const struct mkw_fault_error *error, void *arg)
{
	(void)arg;
	siglongjmp(caught, -error->error);
}

static uint64_t value(size_t word)
{
	size_t at = word * sizeof(uint64_t);

	return (at >= LEN / 8 && at < LEN / 4) || (at >= LEN / 2 && at < LEN / 2 + 512) ?
		       0 : word + 1;
}

/* 0, or what failed, with errno. */
static const char *use(struct mkw_file *file, uint64_t *map)
{
	static uint64_t back[1 << 13];
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	int r;

	errno = sigsetjmp(caught, 1);
	if (errno)
		return "a mapped access";
	for (size_t i = 0; i < WORDS; i++)
		map[i] = i + 1;
	r = mkw_fallocate(file, punch, LEN / 8, LEN / 8);
	if (!r)
		r = mkw_fallocate(file, FALLOC_FL_ZERO_RANGE, LEN / 2, 512);
	errno = -r;
	if (r)
		return "a hole";
	r = mkw_sync(file);
	errno = -r;
	if (r)
		return "a sync";
	/* Pages in no order, most of which are not cached any more. */
	for (size_t i = 0, word = 0; i < WORDS; i += 64, word = (word + 7919 * 64) % WORDS)
		if (map[word] != value(word))
			return "comparing what is mapped";
	for (size_t at = 0; at < LEN; at += sizeof(back)) {
		ssize_t n = mkw_pread(file, back, sizeof(back), (off_t)at, MKW_DIRECT);

		errno = n < 0 ? (int)-n : 0;
		if (n != (ssize_t)sizeof(back))
			return "a direct read";
		for (size_t i = 0; i < sizeof(back) / sizeof(*back); i++)
			if (back[i] != value(at / sizeof(*back) + i))
				return "comparing what is read";
	}
	return NULL;
}

static bool in_file(const char *path)
{
	FILE *f = fopen(path, "r");
	bool same = f;
	uint64_t v;

	for (size_t i = 0; same && i < WORDS; i++)
		same = fread(&v, sizeof(v), 1, f) == 1 && v == value(i);
	if (f)
		fclose(f);
	return same;
}

int main(int argc, char **argv)
{
	char *nbdkit[] = { "nbdkit", "-s", "--exit-with-parent", "file", argv[1], NULL };
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *engine;
	struct mkw_file *file;
	const char *failed;
	int fd, error, r;
	void *map;

	if (argc < 2)
		return 2;
	fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, LEN) || close(fd))
		return 2;
	opt.cache_bytes = LEN / 8;
	if (mkw_engine_open(&opt, &engine) ||
	    remote_open(engine, argc > 2 ? argv + 2 : nbdkit, &file) ||
	    mkw_file_on_fault_error(file, on_error, NULL) ||
	    mkw_map(file, NULL, LEN, PROT_READ | PROT_WRITE, 0, 0, &map))
		return 2;
	failed = use(file, map);
	error = errno;
	r = mkw_unmap(map, LEN);
	r |= mkw_file_close(file);
	r |= mkw_engine_close(engine);
	if (failed) {
		printf("%s: %s\n", failed, error ? strerror(error) : "wrong");
		return 1;
	}
	if (r || (argc == 2 && !in_file(argv[1])))
		return 3;
	puts("8 MiB of a server mapped in a cache of 1 MiB");
	return 0;
}
