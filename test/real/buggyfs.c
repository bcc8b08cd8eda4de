/* SPDX-License-Identifier: MIT */
/*
 * buggyfs.c: a FUSE server that keeps files in memfds, and has one bug.
 *
 * One directory. The kernel caches pages, so that a server's bug shows only where
 * the cache is gone or gone round: direct access, writeback, reads after a punch or
 * truncate. Requests are served one at a time. A bug strikes now and then, by count
 * of calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FUSE_USE_VERSION 34
#include <fuse_lowlevel.h>

#include "buggyfs.h"

#define FILES 32
#define FIRST_INO 2
#define FILE_MAX ((size_t)16 << 20)
#define FOREVER 1e6

struct file {
	char name[256];		/* "": it has none */
	int fd;			/* a memfd; 0: the entry is free */
	char *copy, *tail;	/* the file earlier, and what was cut off */
	blkcnt_t most_blocks;
};

static struct file files[FILES];
static enum buggyfs_bug bug;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned long calls;	/* under the mutex */
static size_t page;

static struct file *file_of(fuse_ino_t ino)
{
	return &files[ino - FIRST_INO];
}

/* One call in n, and not while the file is made. */
static bool strikes(enum buggyfs_bug what, unsigned n)
{
	return bug == what && ++calls > 200 && calls % n == 0;
}

static void fill_attr(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){ .st_mode = S_IFDIR | 0777, .st_nlink = 2 };
	if (ino != FUSE_ROOT_ID) {
		struct file *f = file_of(ino);

		fstat(f->fd, st);
		st->st_mode = S_IFREG | 0666;
		st->st_nlink = 1;
		st->st_uid = 0;
		st->st_gid = 0;
		if (st->st_blocks > f->most_blocks)
			f->most_blocks = st->st_blocks;
		if (bug == BUGGY_KEEPS_BLOCKS)
			st->st_blocks = f->most_blocks;
	}
	st->st_ino = ino;
}

static void fill_entry(fuse_ino_t ino, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){ .ino = ino, .attr_timeout = 0,
					.entry_timeout = 0 };
	fill_attr(ino, &e->attr);
}

static fuse_ino_t find(const char *name)
{
	for (unsigned i = 0; i < FILES; i++)
		if (files[i].fd && !strcmp(files[i].name, name))
			return i + FIRST_INO;
	return 0;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	fuse_ino_t ino;

	(void)parent;
	pthread_mutex_lock(&mutex);
	ino = find(name);
	if (ino)
		fill_entry(ino, &e);
	pthread_mutex_unlock(&mutex);
	if (ino)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOENT);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	pthread_mutex_lock(&mutex);
	fill_attr(ino, &st);
	pthread_mutex_unlock(&mutex);
	fuse_reply_attr(req, &st, 0);
}

static void set_size(struct file *f, off_t size)
{
	struct stat st;
	off_t old;

	fstat(f->fd, &st);
	old = st.st_size;
	if (size < old && bug == BUGGY_TRUNCATE_KEEPS &&
	    pread(f->fd, f->tail + size, (size_t)(old - size), size) < 0)
		abort();
	if (ftruncate(f->fd, size))
		abort();
	if (size > old && bug == BUGGY_TRUNCATE_KEEPS &&
	    pwrite(f->fd, f->tail + old, (size_t)(size - old), old) < 0)
		abort();
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr,
		       int to_set, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	pthread_mutex_lock(&mutex);
	if (to_set & FUSE_SET_ATTR_SIZE)
		set_size(file_of(ino), attr->st_size);
	fill_attr(ino, &st);
	pthread_mutex_unlock(&mutex);
	fuse_reply_attr(req, &st, 0);
}

/* What direct access is known by later. */
static void set_handle(struct fuse_file_info *fi)
{
	fi->fh = (fi->flags & O_DIRECT) != 0;
	fi->keep_cache = 1;
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	fuse_ino_t ino = 0;

	(void)parent;
	(void)mode;
	pthread_mutex_lock(&mutex);
	for (unsigned i = 0; i < FILES && !ino; i++) {
		struct file *f = &files[i];

		if (f->fd)
			continue;
		snprintf(f->name, sizeof(f->name), "%s", name);
		f->fd = memfd_create(name, MFD_CLOEXEC);
		f->copy = calloc(1, FILE_MAX);
		f->tail = calloc(1, FILE_MAX);
		ino = i + FIRST_INO;
		fill_entry(ino, &e);
	}
	pthread_mutex_unlock(&mutex);
	set_handle(fi);
	if (ino)
		fuse_reply_create(req, &e, fi);
	else
		fuse_reply_err(req, ENFILE);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_ino_t ino;

	(void)parent;
	pthread_mutex_lock(&mutex);
	ino = find(name);
	if (ino)
		file_of(ino)->name[0] = '\0';
	pthread_mutex_unlock(&mutex);
	fuse_reply_err(req, ino ? 0 : ENOENT);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	set_handle(fi);
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct file *f = file_of(ino);
	char *data = malloc(size);
	ssize_t n = -1;

	pthread_mutex_lock(&mutex);
	if (bug == BUGGY_STALE_READS && calls % 300 == 0 &&
	    pread(f->fd, f->copy, FILE_MAX, 0) < 0)
		abort();
	if (data && !strikes(BUGGY_SPURIOUS_EIO, 100))
		n = pread(f->fd, data, size, off);
	if (n > 0 && fi->fh && strikes(BUGGY_STALE_READS, 8))
		memcpy(data, f->copy + off, (size_t)n);
	if (n > 0 && fi->fh && strikes(BUGGY_FLIPS_BITS, 16))
		for (ssize_t i = 0; i < n; i += 8)
			data[i] ^= 1;
	pthread_mutex_unlock(&mutex);
	if (n < 0)
		fuse_reply_err(req, EIO);
	else
		fuse_reply_buf(req, data, (size_t)n);
	free(data);
}

/* Is this write one that the bug drops? */
static bool dropped(bool direct, bool writeback)
{
	return (!direct && !writeback && strikes(BUGGY_DROPS_WRITES, 16)) ||
	       (direct && strikes(BUGGY_DROPS_DIRECT_WRITES, 16)) ||
	       (writeback && strikes(BUGGY_DROPS_WRITEBACK, 4));
}

static void put(struct file *f, const char *data, size_t size, off_t off)
{
	if (pwrite(f->fd, data, size, off) != (ssize_t)size)
		abort();
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data,
		     size_t size, off_t off, struct fuse_file_info *fi)
{
	struct file *f = file_of(ino);
	bool direct = fi->fh, drop;

	pthread_mutex_lock(&mutex);
	drop = dropped(direct, fi->writepage);
	if (drop) {
		/* But it is long enough. */
		struct stat st;

		fstat(f->fd, &st);
		if (off + (off_t)size > st.st_size)
			set_size(f, off + (off_t)size);
	} else if (direct && strikes(BUGGY_MISPLACES_WRITES, 16) &&
		   off >= (off_t)page) {
		put(f, data, size, off - (off_t)page);
	} else {
		put(f, data, size, off);
	}
	pthread_mutex_unlock(&mutex);
	fuse_reply_write(req, size);
}

static void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off,
			 off_t len, struct fuse_file_info *fi)
{
	bool punch = mode & FALLOC_FL_PUNCH_HOLE;
	int err = 0;

	(void)fi;
	pthread_mutex_lock(&mutex);
	if (!punch && mode & ~FALLOC_FL_KEEP_SIZE)
		err = EOPNOTSUPP;
	else if (!punch || !strikes(BUGGY_PUNCH_KEEPS, 4))
		err = fallocate(file_of(ino)->fd, mode, off, len) ? errno : 0;
	pthread_mutex_unlock(&mutex);
	fuse_reply_err(req, err);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		     struct fuse_file_info *fi)
{
	bool hang;

	(void)ino;
	(void)datasync;
	(void)fi;
	pthread_mutex_lock(&mutex);
	hang = bug == BUGGY_HANGS && ++calls > 2;
	pthread_mutex_unlock(&mutex);
	if (!hang)
		fuse_reply_err(req, 0);
}

static void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	off_t at;

	(void)fi;
	pthread_mutex_lock(&mutex);
	at = lseek(file_of(ino)->fd, off, whence);
	if (at >= 0 && whence == SEEK_DATA && bug == BUGGY_HOLES_OVER_DATA)
		at += (off_t)page;
	pthread_mutex_unlock(&mutex);
	if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}

static void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = do_lookup,
	.getattr = do_getattr,
	.setattr = do_setattr,
	.create = do_create,
	.unlink = do_unlink,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.fallocate = do_fallocate,
	.fsync = do_fsync,
	.lseek = do_lseek,
	.flush = do_flush,
	.release = do_flush,
};

static void serve(const char *mount, int ready)
{
	char *argv[] = { (char *)"buggyfs", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_loop_config config = { .max_idle_threads = 4 };
	struct fuse_session *se;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	page = (size_t)sysconf(_SC_PAGESIZE);
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!se || fuse_session_mount(se, mount) || write(ready, "", 1) != 1)
		_exit(1);
	close(ready);
	fuse_session_loop_mt(se, &config);
	_exit(0);
}

bool buggyfs_start(struct buggyfs *fs, enum buggyfs_bug which)
{
	int ends[2];
	char byte;
	ssize_t n;

	snprintf(fs->mount, sizeof(fs->mount), "/tmp/mkwrite-buggyfs-XXXXXX");
	if (access("/dev/fuse", R_OK | W_OK) || !mkdtemp(fs->mount) ||
	    pipe2(ends, O_CLOEXEC)) {
		printf("skipped: no FUSE here: %s\n", strerror(errno));
		return false;
	}
	fflush(NULL);
	bug = which;
	fs->server = fork();
	if (!fs->server)
		serve(fs->mount, ends[1]);
	close(ends[1]);
	n = read(ends[0], &byte, 1);
	close(ends[0]);
	if (n == 1)
		return true;
	printf("skipped: FUSE cannot be mounted\n");
	buggyfs_stop(fs);
	return false;
}

void buggyfs_stop(struct buggyfs *fs)
{
	umount2(fs->mount, MNT_DETACH);
	kill(fs->server, SIGKILL);
	waitpid(fs->server, NULL, 0);
	rmdir(fs->mount);
}
