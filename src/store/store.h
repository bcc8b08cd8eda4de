/* SPDX-License-Identifier: MIT */
/*
 * store.h: where a file's bytes live when they are not in the cache.
 *
 * The engine calls a store without holding a page's lock, and never two
 * writes of one page at once; it excludes shrinking, punch, zero, and collapse and
 * insert (whose range goes on to the end), from reads and writes of their range itself, and growing from writes of the last page.
 * Everything else may run in parallel: a read of the last page while the store
 * grows, for one, which gives zeros past the old end either way.
 *
 * Blocking calls are for application threads; submit() for the engine's own
 * loops. Offsets and lengths are bytes. Reads and writes of the cache are whole
 * pages, or end at the file's end; those of direct I/O are multiples of
 * direct_align. Reading past the end of the store gives zeros. A write never
 * reaches past the length of the store, and never changes it.
 *
 * A call works on all of its range or returns a negative errno; after an error
 * of write, punch or zero the bytes of the range are unknown. -EOPNOTSUPP of
 * punch, zero or allocate means that nothing was changed.
 */
#ifndef MKW_STORE_H
#define MKW_STORE_H

#include "os/os.h"

struct mkw__store;

/* Bytes [off, end) that have blocks, written or not; off == end: none has. */
struct mkw__run {
	uint64_t off, end;
	bool shared;		/* with another file: writing copies */
};

struct mkw__store_ops {
	/*
	 * Takes the store for this engine until close(): shared when it is
	 * read-only, exclusive otherwise. -EBUSY. Called once, before anything
	 * else but close(). From then on nobody else changes it, and st->len is
	 * right.
	 */
	int (*own)(struct mkw__store *st);
	/* buf may be application memory: -EFAULT. */
	int (*read)(struct mkw__store *st, uint64_t off, void *buf, size_t len);
	int (*write)(struct mkw__store *st, uint64_t off, const void *buf,
		     size_t len);
	/* Fields of *io are set by the caller: done, write, off, buf, len. */
	void (*submit)(struct mkw__store *st, struct mkw__os_loop *l,
		       struct mkw__os_io *io);
	/* Makes all that was written durable (fdatasync). */
	int (*flush)(struct mkw__store *st);
	/*
	 * What the length is now, whoever made it so. NULL: nobody else can have
	 * changed it.
	 */
	int (*length)(struct mkw__store *st, uint64_t *len);
	/* The length; shrinking drops, growing makes zeros. */
	int (*resize)(struct mkw__store *st, uint64_t len);
	/* Inside the length, as fallocate(2) with KEEP_SIZE. */
	int (*punch)(struct mkw__store *st, uint64_t off, uint64_t len);
	int (*zero)(struct mkw__store *st, uint64_t off, uint64_t len);
	/*
	 * Takes the range out, and what follows moves up to it; or makes room for
	 * it, zeros, at off, which is inside the length. The length changes.
	 * -EINVAL: off and len are not multiples of what it can move; that and
	 * -EOPNOTSUPP (or NULL) mean that nothing was changed. After another error
	 * all from off on is unknown.
	 */
	int (*collapse)(struct mkw__store *st, uint64_t off, uint64_t len);
	int (*insert)(struct mkw__store *st, uint64_t off, uint64_t len);
	/*
	 * Blocks for the range, which may reach past the length; it stays. After
	 * an error some of them may have been made.
	 */
	int (*allocate)(struct mkw__store *st, uint64_t off, uint64_t len);
	/*
	 * For stores that `reserve`; else NULL. blocks: the first run at or
	 * after off, as far as that is known at once, ending at `end` at the
	 * latest; -EOPNOTSUPP, it cannot be known. release: gives back what
	 * allocate() made and nobody has written to; unlike with punch, the
	 * range may be read meanwhile, and gives zeros.
	 */
	int (*blocks)(struct mkw__store *st, uint64_t off, uint64_t end,
		      struct mkw__run *run);
	int (*release)(struct mkw__store *st, uint64_t off, uint64_t len);
	/* The next data (or hole) at or after off < length; -ENXIO: no data. */
	int64_t (*seek)(struct mkw__store *st, uint64_t off, bool data);
	void (*close)(struct mkw__store *st);
};

struct mkw__store {
	const struct mkw__store_ops *ops;
	uint64_t len;		/* when it was owned */
	uint32_t direct_align;	/* of offset and length of direct I/O */
	uint32_t memory_align;	/* of its buffers */
	uint32_t block;		/* the unit of allocation */
	bool reserves;		/* writing to what was allocated finds space */
	bool direct;		/* bypasses the kernel's page cache */
	bool read_only;
	uint64_t dev, ino;	/* what it is: two stores of one file agree */
};

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
