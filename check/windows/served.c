/* SPDX-License-Identifier: MIT */
/*
 * served.c: a FUSE server of one file, which can be told to hold a request.
 *
 * Its mount point is a regular file, and so is its root: there is one node. The
 * session's thread answers requests as they come, from the image. One that is to
 * be held goes into a list, unanswered; the gate's thread answers all of the list
 * each time it is told so. The server dies with the process that started it.
 *
 * Root mounts by itself; for anybody else fusermount3 does it, which also takes
 * the mount away should the server die.
 */
#include "check/windows/served.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check/image.h"

#ifdef MKW_HAVE_FUSE

#define FUSE_USE_VERSION 34
#include <fuse_lowlevel.h>

struct held {
	struct held *next;
	fuse_req_t req;
	bool write;
	size_t size;
	off_t off;
	char data[];
};

static struct {
	int fd;
	struct slow_gate *gate;
	pthread_mutex_t mutex;
	struct held *list;	/* under the mutex */
} server = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static ssize_t write_byte(int fd)
{
	return write(fd, "", 1);
}

static bool has_word(const char *data, size_t size, uint64_t word)
{
	for (size_t i = 0; i + 8 <= size; i += 8)
		if (!memcmp(data + i, &word, 8))
			return true;
	return false;
}

/* Is it one that is to be held? */
static bool is_wanted(bool write, const char *data, size_t size, off_t off)
{
	uint64_t word = atomic_load(&server.gate->word);
	uint64_t at = atomic_load(&server.gate->offset);

	if (!write && at && at - 1 >= (uint64_t)off &&
	    at - 1 < (uint64_t)off + size)
		return true;
	return word && atomic_load(&server.gate->write) == write &&
	       has_word(data, size, word);
}

/* Takes the request if it is to be held; what was asked for is forgotten then. */
static bool hold(fuse_req_t req, bool write, const char *data, size_t size,
		 off_t off)
{
	struct held *h;

	if (!is_wanted(write, data, size, off))
		return false;
	h = malloc(sizeof(*h) + size);
	if (!h)
		return false;
	*h = (struct held){ .req = req, .write = write, .size = size,
			    .off = off };
	memcpy(h->data, data, size);
	atomic_store(&server.gate->word, 0);
	atomic_store(&server.gate->offset, 0);
	pthread_mutex_lock(&server.mutex);
	h->next = server.list;
	server.list = h;
	pthread_mutex_unlock(&server.mutex);
	sem_post(&server.gate->held);
	if (write_byte(server.gate->pipe[1]) < 0)
		abort();
	return true;
}

static void answer(fuse_req_t req, bool write, const char *data, size_t size,
		   off_t off)
{
	ssize_t n;

	if (!write) {
		fuse_reply_buf(req, data, size);
		return;
	}
	n = pwrite(server.fd, data, size, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static void *gate_thread(void *arg)
{
	(void)arg;
	for (;;) {
		struct held *h;

		while (sem_wait(&server.gate->go))
			;
		pthread_mutex_lock(&server.mutex);
		h = server.list;
		server.list = NULL;
		pthread_mutex_unlock(&server.mutex);
		while (h) {
			struct held *next = h->next;

			answer(h->req, h->write, h->data, h->size, h->off);
			free(h);
			h = next;
		}
	}
	return NULL;
}

static void serve_getattr(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fstat(server.fd, &st);
	st.st_ino = ino;
	st.st_nlink = 1;
	fuse_reply_attr(req, &st, 1000);
}

static void serve_open(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	(void)ino;
	/* Every read is to come here. */
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void serve_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	char *data = malloc(size);
	ssize_t n = data ? pread(server.fd, data, size, off) : -1;

	(void)ino;
	(void)fi;
	if (n < 0)
		fuse_reply_err(req, EIO);
	else if (!hold(req, false, data, (size_t)n, off))
		answer(req, false, data, (size_t)n, off);
	free(data);
}

static void serve_write(fuse_req_t req, fuse_ino_t ino, const char *data,
			size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	if (!hold(req, true, data, size, off))
		answer(req, true, data, size, off);
}

static void serve_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
			struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops serve_ops = {
	.getattr = serve_getattr,
	.open = serve_open,
	.read = serve_read,
	.write = serve_write,
	.fsync = serve_fsync,
};

/* The server's process. Says by a byte to `ready` that it is mounted. */
static void serve(struct served *sv, int image, int ready)
{
	/* As root a file system on it may still be mounted when it goes. */
	char *argv[] = { (char *)"mkwrite", (char *)"-o",
			 (char *)"auto_unmount", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(geteuid() ? 3 : 1, argv);
	struct fuse_session *se;
	pthread_t thread;
	int null;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* What fusermount3 has to say is said by us. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null, 1);
	dup2(null, 2);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	server.fd = image;
	server.gate = sv->gate;
	se = fuse_session_new(&args, &serve_ops, sizeof(serve_ops), NULL);
	if (!se || fuse_session_mount(se, sv->path) ||
	    pthread_create(&thread, NULL, gate_thread, NULL))
		_exit(1);
	if (write_byte(ready) != 1)
		_exit(1);
	close(ready);
	fuse_session_loop(se);
	_exit(0);
}

int mkw__served_start(struct served *sv, int image, char *why, size_t size)
{
	int ends[2], fd;
	char byte;
	ssize_t n;

	*sv = (struct served){ .server = -1 };
	snprintf(why, size, "no memory");
	sv->gate = mmap(NULL, sizeof(*sv->gate), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sv->gate == MAP_FAILED || pipe2(ends, O_CLOEXEC))
		return -1;
	sv->gate->pipe[0] = sv->gate->pipe[1] = -1;
	if (pipe2(sv->gate->pipe, O_CLOEXEC | O_NONBLOCK)) {
		close(ends[0]);
		close(ends[1]);
		return -1;
	}
	sem_init(&sv->gate->held, 1, 0);
	sem_init(&sv->gate->go, 1, 0);
	mkw__image_temporary(sv->path, sizeof(sv->path), "slow");
	fd = mkostemp(sv->path, O_CLOEXEC);
	if (fd < 0)
		return -1;
	close(fd);
	fflush(NULL);
	sv->server = fork();
	if (!sv->server)
		serve(sv, image, ends[1]);
	close(ends[1]);
	n = sv->server < 0 ? -1 : read(ends[0], &byte, 1);
	close(ends[0]);
	snprintf(why, size, "the FUSE server did not come up; is there a "
		 "/dev/fuse%s?", geteuid() ? " that one may use, and a "
					     "fusermount3" : "");
	return n == 1 ? 0 : -1;
}

/* By who may not unmount. */
static void unmount_by_helper(const char *path)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, 1);
		dup2(null, 2);
		execlp("fusermount3", "fusermount3", "-u", "-z", "-q", path,
		       (char *)NULL);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

void mkw__served_let_go(struct served *sv)
{
	if (!sv->gate || sv->gate == MAP_FAILED)
		return;
	atomic_store(&sv->gate->word, 0);
	atomic_store(&sv->gate->offset, 0);
	sem_post(&sv->gate->go);
}

void mkw__served_stop(struct served *sv)
{
	mkw__served_let_go(sv);
	if (sv->path[0]) {
		if (geteuid())
			unmount_by_helper(sv->path);
		else
			umount2(sv->path, MNT_DETACH);
		unlink(sv->path);
	}
	if (sv->server > 0) {
		kill(sv->server, SIGKILL);
		waitpid(sv->server, NULL, 0);
	}
	if (sv->gate && sv->gate != MAP_FAILED) {
		close(sv->gate->pipe[0]);
		close(sv->gate->pipe[1]);
		munmap(sv->gate, sizeof(*sv->gate));
	}
	*sv = (struct served){ .server = -1 };
}

#else

int mkw__served_start(struct served *sv, int image, char *why, size_t size)
{
	(void)image;
	*sv = (struct served){ .server = -1 };
	snprintf(why, size, "this program was built without libfuse 3");
	return -1;
}

void mkw__served_let_go(struct served *sv)
{
	(void)sv;
}

void mkw__served_stop(struct served *sv)
{
	(void)sv;
}

#endif
