/* SPDX-License-Identifier: MIT */
/*
 * target_engine.c: a file of the kernel's file system, reached through the
 * engine in every way. Dirty pages are written back soon, so that writeback
 * takes part. The file loses its name as soon as the engine has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check/fsname.h"
#include "check/mix.h"

#define WRITEBACK_AGE_MS 20
#define SLOT_BYTES (64 * 1024)

/* Of a thread, for its pin. */
struct slot {
	struct io_uring ring;
	bool ring_up;
	bool registered;	/* what is pinned is a buffer of the ring, too */
	struct mkw_pin *pin;
	uint64_t unmaps_ended;	/* before it was pinned */
};

struct engine {
	struct mkw_engine *engine;
	struct mkw_file *file;
	int fd;			/* of the file, to open it again by */
	int other;		/* a file beside it, for pinned memory; a slot a thread */
	unsigned n_slots;
	struct slot *slots;
	bool no_kernel_faults;	/* those inside of system calls: EFAULT */
	/* Times that mapped pages were taken out of page tables, pinned or not. */
	_Atomic uint64_t unmaps_begun, unmaps_ended;
	unsigned map_flags;
	void *map;
	size_t len;
	pthread_mutex_t mutex;
	struct queue *queues;	/* those that no call has just now */
};

/* One for each call that is made by one at once. */
struct queue {
	struct mkw_queue *of;
	struct queue *next;
};

static void close_queues(struct engine *e)
{
	struct queue *q;

	while ((q = e->queues)) {
		e->queues = q->next;
		mkw_queue_close(q->of);
		free(q);
	}
}

static void engine_close(struct target *t)
{
	struct engine *e = t->priv;

	if (!e)
		return;
	close_queues(e);
	if (e->map)
		mkw_unmap(e->map, e->len);
	if (e->file)
		mkw_file_close(e->file);
	if (e->engine)
		mkw_engine_close(e->engine);
	if (e->fd >= 0)
		close(e->fd);
	if (e->other >= 0)
		close(e->other);
	for (unsigned i = 0; e->slots && i < e->n_slots; i++)
		if (e->slots[i].ring_up)
			io_uring_queue_exit(&e->slots[i].ring);
	free(e->slots);
	free(e);
	t->priv = NULL;
}

static const char *advice(int err)
{
	switch (err) {
	case ENOSYS:
		return "It needs Linux 5.19 or later with CONFIG_USERFAULTFD "
		       "(a sandbox may hide it)";
	case EPERM:
	case EACCES:
		return "Run as root, or set the sysctl "
		       "vm.unprivileged_userfaultfd=1, or give yourself access "
		       "to /dev/userfaultfd";
	default:
		return "Free some memory or descriptors";
	}
}

/*
 * Written to while others store to the memory, so without checksums where there
 * would be some: they would be of bytes that changed before they were written.
 */
static int open_other(const char *dir, unsigned threads)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);
	int flags = FS_NOCOW_FL;

	if (fd < 0)
		fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	ioctl(fd, FS_IOC_SETFLAGS, &flags);
	if (ftruncate(fd, (off_t)threads * SLOT_BYTES)) {
		close(fd);
		return -errno;
	}
	return fd;
}

/* 0 or -ENOMEM. Who has no ring has calls that pin for themselves. */
static int make_slots(struct target *t, struct engine *e, unsigned n)
{
	int err = 0;

	e->slots = calloc(n, sizeof(*e->slots));
	if (!e->slots)
		return -ENOMEM;
	e->n_slots = n;
	for (unsigned i = 0; i < n && !err; i++) {
		err = io_uring_queue_init(1, &e->slots[i].ring, 0);
		e->slots[i].ring_up = !err;
	}
	if (err)
		snprintf(t->note, sizeof(t->note),
			 "registered buffers skipped, pinned memory is used by "
			 "pread and pwrite alone: io_uring: %s", strerror(-err));
	return 0;
}

static int engine_open(struct target *t, const struct check_config *cfg,
		       size_t len)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	struct mkw_stats st = MKW_STATS_INIT;
	struct engine *e = calloc(1, sizeof(*e));
	const char *what = "make its file";
	char path[4096];
	int err;

	if (!e)
		return -ENOMEM;
	t->priv = e;
	pthread_mutex_init(&e->mutex, NULL);
	e->fd = -1;
	e->other = -1;
	e->len = len;
	e->map_flags = cfg->inline_faults ? MKW_MAP_INLINE : 0;
	snprintf(t->label, sizeof(t->label), "mkwrite %s%s%s",
		 cfg->policy == MKW_POLICY_INVALIDATE ? "invalidate" : "retry",
		 cfg->inline_faults ? " inline" : "",
		 cfg->atomic_writes ? " atomic" : "");
	opt.policy = cfg->policy;
	opt.cache_bytes = cfg->cache_bytes;
	opt.writeback_age_ms = WRITEBACK_AGE_MS;
	err = mkw_engine_open(&opt, &e->engine);
	if (err) {
		e->engine = NULL;
		snprintf(t->error, sizeof(t->error),
			 "the engine cannot be opened: %s. %s",
			 strerror(-err), advice(-err));
		goto fail;
	}
	snprintf(path, sizeof(path), "%s/.mkwrite-check-XXXXXX", cfg->dir);
	e->fd = mkostemp(path, O_CLOEXEC);
	if (e->fd < 0) {
		err = -errno;
		goto explain;
	}
	what = "make a file beside its own";
	e->other = open_other(cfg->dir, cfg->threads);
	if (e->other < 0) {
		err = e->other;
		goto explain;
	}
	err = make_slots(t, e, cfg->threads);
	if (err)
		goto explain;
	what = "open its file";
	err = mkw_file_open(e->engine, path, O_RDWR | O_CLOEXEC |
			    (cfg->atomic_writes ? MKW_ATOMIC_WRITES : 0), 0,
			    &e->file);
	unlink(path);
	if (err) {
		e->file = NULL;
		goto explain;
	}
	what = "size its file";
	err = mkw_truncate(e->file, (off_t)len);
	if (err)
		goto explain;
	what = "map its file";
	err = mkw_map(e->file, NULL, len, PROT_READ | PROT_WRITE,
		      e->map_flags, 0, &e->map);
	if (err) {
		e->map = NULL;
		goto explain;
	}
	t->map = e->map;
	err = mkw_file_info(e->file, &info);
	if (!err)
		err = mkw_engine_stats(e->engine, &st);
	if (err)
		goto explain;
	e->no_kernel_faults = cfg->inline_faults || !st.kernel_faults;
	t->direct_align = info.direct_align;
	t->ways = WAY_NOWAIT | WAY_URING;
	if (!info.direct)
		snprintf(t->note, sizeof(t->note),
			 "the file system has no O_DIRECT: the engine's own I/O "
			 "goes through the kernel's cache");
	return 0;

explain:
	snprintf(t->error, sizeof(t->error),
		 "%.200s: the engine cannot %s there: %s. Name a directory that "
		 "you may write to, on the file system to be checked",
		 cfg->dir, what, strerror(-err));
fail:
	engine_close(t);
	return err;
}

static struct queue *get_queue(struct engine *e)
{
	struct queue *q;

	pthread_mutex_lock(&e->mutex);
	q = e->queues;
	if (q)
		e->queues = q->next;
	pthread_mutex_unlock(&e->mutex);
	if (q)
		return q;
	q = calloc(1, sizeof(*q));
	if (q && mkw_queue_open(e->engine, NULL, &q->of)) {
		free(q);
		q = NULL;
	}
	return q;
}

static void put_queue(struct engine *e, struct queue *q)
{
	pthread_mutex_lock(&e->mutex);
	q->next = e->queues;
	e->queues = q;
	pthread_mutex_unlock(&e->mutex);
}

/* Submitted to a queue, and waited for. */
static ssize_t by_queue(struct engine *e, struct mkw_request rq)
{
	struct queue *q = get_queue(e);
	struct mkw_result result;
	ssize_t n;

	if (!q)
		return -ENOMEM;
	n = mkw_queue_submit(q->of, &rq, 1);
	if (n == 1) {
		do
			n = mkw_queue_reap(q->of, &result, 1, -1);
		while (n == -EINTR);
	}
	put_queue(e, q);
	return n == 1 ? (ssize_t)result.value : n < 0 ? n : -EIO;
}

static ssize_t transfer(struct engine *e, enum mkw_op op, void *buf, size_t len,
			off_t off, unsigned way)
{
	struct mkw_request rq = MKW_REQUEST_INIT;

	rq.op = op;
	rq.flags = (way & WAY_DIRECT ? MKW_DIRECT : 0) |
		   (way & WAY_NOWAIT ? MKW_NOWAIT : 0);
	rq.file = e->file;
	rq.buf = buf;
	rq.len = len;
	rq.off = off;
	if (way & WAY_URING)
		return by_queue(e, rq);
	return op == MKW_OP_READ ? mkw_pread(e->file, buf, len, off, rq.flags) :
				   mkw_pwrite(e->file, buf, len, off, rq.flags);
}

static ssize_t engine_pread(struct target *t, void *buf, size_t len,
			    off_t off, unsigned way)
{
	return transfer(t->priv, MKW_OP_READ, buf, len, off, way);
}

static ssize_t engine_pwrite(struct target *t, const void *buf, size_t len,
			     off_t off, unsigned way)
{
	return transfer(t->priv, MKW_OP_WRITE, (void *)(uintptr_t)buf, len, off,
			way);
}

static int engine_fallocate(struct target *t, int mode, off_t off, off_t len)
{
	struct engine *e = t->priv;

	return mkw_fallocate(e->file, mode, off, len);
}

static int engine_truncate(struct target *t, off_t size)
{
	struct engine *e = t->priv;

	return mkw_truncate(e->file, size);
}

static int engine_sync(struct target *t)
{
	struct engine *e = t->priv;

	return mkw_sync(e->file);
}

static int engine_map_more(struct target *t, off_t off, size_t len, void **at)
{
	struct engine *e = t->priv;

	return mkw_map(e->file, NULL, len, PROT_READ | PROT_WRITE, e->map_flags,
		       off, at);
}

/* Another mapping, looked at, and gone. */
static int map_elsewhere(struct target *t, off_t off, size_t len)
{
	void *map;
	int err = engine_map_more(t, off, len, &map);
	uint64_t value;

	if (err)
		return err;
	mkw__check_mapped(map, &value, false);
	return mkw_unmap(map, len);
}

static int engine_disturb(struct target *t, enum disturb what, off_t off,
			  size_t len)
{
	struct engine *e = t->priv;
	int err;

	switch (what) {
	case DISTURB_UNMAP:
		atomic_fetch_add(&e->unmaps_begun, 1);
		err = madvise((char *)e->map + off, len, MADV_DONTNEED) ?
			      -errno : 0;
		atomic_fetch_add(&e->unmaps_ended, 1);
		return err;
	case DISTURB_POPULATE:
	case DISTURB_READAHEAD:
		return mkw_advise(e->file, off, (off_t)len,
				  MKW_ADVICE_WILLNEED);
	case DISTURB_PAGEOUT:
	case DISTURB_DROP:
		return mkw_advise(e->file, off, (off_t)len,
				  MKW_ADVICE_DONTNEED);
	case DISTURB_MSYNC:
		return mkw_sync_range(e->file, off, (off_t)len,
				      off & 4096 ? MKW_SYNC_NOFLUSH : 0);
	case DISTURB_REMAP:
		return mkw_invalidate(e->file, off, (off_t)len, 0);
	case DISTURB_MOVE:
		return map_elsewhere(t, off, len);
	case DISTURB_FREEZE:
	case DISTURBS:
		break;
	}
	return -EOPNOTSUPP;
}

static int engine_unmap(struct target *t, void *at, size_t len)
{
	(void)t;
	return mkw_unmap(at, len);
}

static int engine_remap(struct target *t, void *old, size_t old_len,
			size_t len, void *to, void **at)
{
	(void)t;
	return mkw_remap(old, old_len, len,
			 MKW_REMAP_MAYMOVE | (to ? MKW_MAP_FIXED : 0), to, at);
}

static int engine_protect(struct target *t, void *at, size_t len, int prot)
{
	(void)t;
	return mkw_protect(at, len, prot);
}

/*
 * The memory becomes a registered buffer besides, where that can be had: the kernel looks
 * its pages up once, here, and never again.
 */
static int engine_pin(struct target *t, size_t len, off_t off, bool store,
		      unsigned slot)
{
	struct engine *e = t->priv;
	struct slot *s = &e->slots[slot];
	struct iovec mem = { (char *)e->map + off, len };
	int err;

	s->unmaps_ended = atomic_load(&e->unmaps_ended);
	err = mkw_pin(mem.iov_base, len, store ? MKW_PIN_WRITE : MKW_PIN_READ,
		      &s->pin);
	if (!err)
		s->registered = s->ring_up &&
				!io_uring_register_buffers(&s->ring, &mem, 1);
	return err;
}

static void engine_unpin(struct target *t, unsigned slot)
{
	struct engine *e = t->priv;
	struct slot *s = &e->slots[slot];

	if (s->registered)
		io_uring_unregister_buffers(&s->ring);
	s->registered = false;
	mkw_unpin(s->pin);
}

static ssize_t by_ring(struct slot *s, bool store, int fd, void *mem,
		       size_t len, off_t at)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
	struct io_uring_cqe *cqe;
	ssize_t n;
	int err;

	if (store)
		io_uring_prep_read_fixed(sqe, fd, mem, (unsigned)len,
					 (__u64)at, 0);
	else
		io_uring_prep_write_fixed(sqe, fd, mem, (unsigned)len,
					  (__u64)at, 0);
	do
		err = io_uring_submit_and_wait(&s->ring, 1);
	while (err == -EINTR);
	if (err >= 0)
		err = io_uring_wait_cqe(&s->ring, &cqe);
	if (err < 0)
		return err;
	n = cqe->res;
	io_uring_cqe_seen(&s->ring, cqe);
	return n;
}

static ssize_t engine_pinned(struct target *t, bool store, void *buf, size_t len,
			     off_t off, unsigned slot)
{
	struct engine *e = t->priv;
	struct slot *s = &e->slots[slot];
	off_t at = (off_t)slot * SLOT_BYTES;
	char *mem = (char *)e->map + off;
	ssize_t n;

	if (store && pwrite(e->other, buf, len, at) != (ssize_t)len)
		return -EIO;
	/* A race detector would see the races that are wanted. */
	if (s->registered)
		n = by_ring(s, store, e->other, mem, len, at);
	else if (store)
		n = syscall(SYS_pread64, e->other, mem, len, at);
	else
		n = syscall(SYS_pwrite64, e->other, mem, len, at);
	if (n < 0 && !s->registered)
		n = -errno;
	/* Whoever unmaps by himself what he has pinned. */
	if (n == -EFAULT && e->no_kernel_faults &&
	    atomic_load(&e->unmaps_begun) != s->unmaps_ended)
		return -EAGAIN;
	if (n < 0)
		return n;
	if (!store && n > 0 && pread(e->other, buf, (size_t)n, at) != n)
		return -EIO;
	return n;
}

static int64_t engine_blocks(struct target *t)
{
	struct engine *e = t->priv;
	struct stat st;

	return fstat(e->fd, &st) ? -errno : (int64_t)st.st_blocks * 512;
}

static int64_t engine_size(struct target *t)
{
	struct engine *e = t->priv;

	return mkw_size(e->file);
}

static int64_t engine_seek(struct target *t, off_t off, int whence)
{
	struct engine *e = t->priv;

	return mkw_seek(e->file, off, whence);
}

/* Closing it drops all; it is opened and mapped again where it was. */
static int engine_drop(struct target *t)
{
	struct engine *e = t->priv;
	void *at = e->map;
	int err;

	err = mkw_unmap(e->map, e->len);
	if (err)
		return err;
	e->map = NULL;
	err = mkw_file_close(e->file);
	e->file = NULL;
	if (!err)
		err = mkw_file_open_fd(e->engine, e->fd, &e->file);
	if (err)
		return err;
	return mkw_map(e->file, at, e->len, PROT_READ | PROT_WRITE,
		       e->map_flags | MKW_MAP_FIXED_NOREPLACE, 0, &e->map);
}

static int engine_freeze(struct target *t, bool on)
{
	struct engine *e = t->priv;

	return on ? mkw_file_freeze(e->file) : mkw_file_thaw(e->file);
}

const struct target_ops mkw__check_engine_target = {
	.name = "engine",
	.atomic = true,
	.open = engine_open,
	.pread = engine_pread,
	.pwrite = engine_pwrite,
	.fallocate = engine_fallocate,
	.truncate = engine_truncate,
	.sync = engine_sync,
	.close = engine_close,
	.disturb = engine_disturb,
	.drop = engine_drop,
	.blocks = engine_blocks,
	.size = engine_size,
	.seek = engine_seek,
	.map_more = engine_map_more,
	.unmap = engine_unmap,
	.remap = engine_remap,
	.protect = engine_protect,
	.pin = engine_pin,
	.unpin = engine_unpin,
	.pinned = engine_pinned,
	.freeze = engine_freeze,
};
