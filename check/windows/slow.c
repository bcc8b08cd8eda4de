/* SPDX-License-Identifier: MIT */
/*
 * slow.c: the FUSE server under the slow device.
 *
 * Its mount point is a regular file, and so is its root: there is one node. The
 * session's thread answers requests as they come, from the image. One that is to
 * be held goes into a list, unanswered; the gate's thread answers all of the list
 * each time it is told so. The server dies with the process that started it.
 */
#include "check/windows/slow.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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

static bool has_word(const char *data, size_t size, uint64_t word)
{
	for (size_t i = 0; i + 8 <= size; i += 8)
		if (!memcmp(data + i, &word, 8))
			return true;
	return false;
}

/* Takes the request if it is to be held; the word is forgotten then. */
static bool hold(fuse_req_t req, bool write, const char *data, size_t size,
		 off_t off)
{
	uint64_t word = atomic_load(&server.gate->word);
	struct held *h;

	if (!word || atomic_load(&server.gate->write) != write ||
	    !has_word(data, size, word))
		return false;
	h = malloc(sizeof(*h) + size);
	if (!h)
		return false;
	*h = (struct held){ .req = req, .write = write, .size = size,
			    .off = off };
	memcpy(h->data, data, size);
	atomic_store(&server.gate->word, 0);
	pthread_mutex_lock(&server.mutex);
	h->next = server.list;
	server.list = h;
	pthread_mutex_unlock(&server.mutex);
	sem_post(&server.gate->held);
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
static void serve(struct slow *slow, int image, int ready)
{
	char *argv[] = { (char *)"mkwrite-slow", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *se;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	server.fd = image;
	server.gate = slow->gate;
	se = fuse_session_new(&args, &serve_ops, sizeof(serve_ops), NULL);
	if (!se || fuse_session_mount(se, slow->backing) ||
	    pthread_create(&thread, NULL, gate_thread, NULL))
		_exit(1);
	if (write(ready, "", 1) != 1)
		_exit(1);
	close(ready);
	fuse_session_loop(se);
	_exit(0);
}

/* Starts the server on the image. 0, or -1 with the reason. */
static int start_server(struct slow *slow, int image)
{
	int ends[2], fd;
	char byte;
	ssize_t n;

	slow->gate = mmap(NULL, sizeof(*slow->gate), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (slow->gate == MAP_FAILED || pipe2(ends, O_CLOEXEC))
		return -1;
	sem_init(&slow->gate->held, 1, 0);
	sem_init(&slow->gate->go, 1, 0);
	mkw__image_temporary(slow->backing, sizeof(slow->backing), "slow");
	fd = mkostemp(slow->backing, O_CLOEXEC);
	if (fd < 0)
		return -1;
	close(fd);
	fflush(NULL);
	slow->server = fork();
	if (!slow->server)
		serve(slow, image, ends[1]);
	close(ends[1]);
	n = slow->server < 0 ? -1 : read(ends[0], &byte, 1);
	close(ends[0]);
	snprintf(slow->why, sizeof(slow->why),
		 "the FUSE server did not come up; is there a /dev/fuse?");
	return n == 1 ? 0 : -1;
}

void mkw__slow_start(struct slow *slow, const char *fstype)
{
	char *why = slow->why;
	size_t size = sizeof(slow->why);
	int image;

	*slow = (struct slow){ .server = -1 };
	if (!strcmp(fstype, "tmpfs")) {
		snprintf(why, size, "tmpfs has no device");
		return;
	}
	if (access("/dev/fuse", R_OK | W_OK)) {
		snprintf(why, size, "/dev/fuse: %s", strerror(errno));
		return;
	}
	if (mkw__image_possible(fstype, why, size) ||
	    mkw__image_namespace(why, size))
		return;
	image = mkw__image_format(fstype, why, size);
	if (image < 0)
		return;
	slow->up = !start_server(slow, image) &&
		   !mkw__image_mount(&slow->image, slow->backing, fstype, why,
				     size);
	close(image);
	if (!slow->up)
		mkw__slow_stop(slow);
}

void mkw__slow_thaw(const struct slow *slow)
{
	int fd = open(slow->image.mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	ioctl(fd, FITHAW, 0);
	close(fd);
}

void mkw__slow_stop(struct slow *slow)
{
	if (slow->gate && slow->gate != MAP_FAILED) {
		atomic_store(&slow->gate->word, 0);
		sem_post(&slow->gate->go);
	}
	mkw__slow_thaw(slow);
	if (slow->image.mounted)
		umount(slow->image.mount);
	mkw__image_unmount(&slow->image);
	if (slow->backing[0]) {
		umount2(slow->backing, MNT_DETACH);
		unlink(slow->backing);
	}
	if (slow->server > 0) {
		kill(slow->server, SIGKILL);
		waitpid(slow->server, NULL, 0);
	}
	if (slow->gate && slow->gate != MAP_FAILED)
		munmap(slow->gate, sizeof(*slow->gate));
	slow->gate = NULL;
	slow->backing[0] = '\0';
	slow->server = -1;
	slow->up = false;
}

#else

void mkw__slow_start(struct slow *slow, const char *fstype)
{
	(void)fstype;
	*slow = (struct slow){ .server = -1 };
	snprintf(slow->why, sizeof(slow->why),
		 "this program was built without libfuse 3");
}

void mkw__slow_thaw(const struct slow *slow)
{
	(void)slow;
}

void mkw__slow_stop(struct slow *slow)
{
	slow->up = false;
}

#endif
