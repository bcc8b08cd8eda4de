/* SPDX-License-Identifier: MIT */
/*
 * store.h: the engine's side of <mkwrite/store.h>, which says what a store is, and
 * what the engine has promised to it.
 *
 * The engine calls a store without holding a page's lock. Each call here waits for its
 * end (but for submit()), has the rest of a short count done, and knows what to do
 * where a store lacks an operation. store.c.
 */
#ifndef MKW_STORE_H
#define MKW_STORE_H

#include "os/os.h"

struct mkw__store {
	struct mkw_store_ops ops;	/* absent ones are NULL */
	const void *kind;		/* where the store has its ops: identity */
	void *arg;
	_Atomic uint64_t len;		/* as far as we have made it */
	uint32_t direct_align;	/* of offset and length of direct I/O */
	uint32_t memory_align;	/* of its buffers */
	uint32_t block;		/* the unit of allocation */
	bool reserves;		/* writing to what was allocated finds space */
	bool direct;		/* bypasses the kernel's page cache */
	bool user_memory;	/* direct I/O needs no copy */
	bool any_context;	/* may be called from the fault handler */
	bool read_only;
	struct mkw__store_threads *threads;	/* its reads and writes may sleep; or NULL */
	uint64_t dev, ino;	/* what it is: info.id */
};

/*
 * A store of these operations; writable: as it will be asked for. -EINVAL, -EROFS,
 * -ENOMEM, -EAGAIN (no thread), with nothing called.
 */
int mkw__store_make(const struct mkw_store_ops *ops,
		    const struct mkw_store_info *info, void *arg, bool writable,
		    struct mkw__store **out);
/* Is it the same file? */
bool mkw__store_same(const struct mkw__store *a, const struct mkw__store *b);
/* Closes it and frees it. */
void mkw__store_close(struct mkw__store *st);

/* Takes it for this engine; from then on st->len is right. */
int mkw__store_own(struct mkw__store *st);
/*
 * buf may be application memory, -EFAULT, if st->user_memory. All of the range, or
 * an error.
 */
int mkw__store_read(struct mkw__store *st, uint64_t off, void *buf, size_t len);
int mkw__store_write(struct mkw__store *st, uint64_t off, const void *buf,
		     size_t len);
/*
 * A read or write whose end, io->done(), runs in l's mkw__os_loop_wait(). Fields of *io
 * are set by the caller: done, write, off, buf, len. Called by l's own task.
 */
void mkw__store_submit(struct mkw__store *st, struct mkw__os_loop *l,
		       struct mkw__os_io *io);
/* The same by any task: l's own one submits it. The fault handler may. */
void mkw__store_submit_by(struct mkw__store *st, struct mkw__os_loop *l,
			  struct mkw__os_io *io);
int mkw__store_flush(struct mkw__store *st);
int mkw__store_resize(struct mkw__store *st, uint64_t len);
int mkw__store_punch(struct mkw__store *st, uint64_t off, uint64_t len);
int mkw__store_zero(struct mkw__store *st, uint64_t off, uint64_t len);
int mkw__store_collapse(struct mkw__store *st, uint64_t off, uint64_t len);
int mkw__store_insert(struct mkw__store *st, uint64_t off, uint64_t len);
int mkw__store_allocate(struct mkw__store *st, uint64_t off, uint64_t len);
int mkw__store_release(struct mkw__store *st, uint64_t off, uint64_t len);
int mkw__store_blocks(struct mkw__store *st, uint64_t off, uint64_t end,
		      struct mkw_store_run *run);
int64_t mkw__store_seek(struct mkw__store *st, uint64_t off, bool data);
/* -EOPNOTSUPP: nobody else can have changed it. */
int mkw__store_length(struct mkw__store *st, uint64_t *len);

/*
 * Threads that call io->op() for each I/O that is given to them. -ENOMEM, -EAGAIN.
 * They end when there is nothing to do any more. threads.c.
 */
int mkw__store_threads_start(struct mkw__store_threads **out);
void mkw__store_threads_give(struct mkw__store_threads *t, struct mkw__os_io *io);
void mkw__store_threads_end(struct mkw__store_threads *t);

/* The engine's I/O that a store's is part of. */
struct mkw__os_io *mkw__store_io(struct mkw_io *io);

/*
 * A file of the host, by path or descriptor; see mkw_file_open() for the
 * errors. O_DIRECT and io_uring where the file system has them, the kernel's
 * page cache otherwise. O_TRUNC is ignored: the engine truncates, once it owns
 * the file. hostfile.c.
 */
int mkw__hostfile_open(const char *path, int flags, mode_t mode,
		       struct mkw__store **out);
int mkw__hostfile_open_fd(int fd, struct mkw__store **out);

/* Memory of len bytes, for tests: zero at first. memory.c. */
int mkw__memstore_open(uint64_t len, struct mkw__store **out);

#endif /* MKW_STORE_H */
