/* SPDX-License-Identifier: MIT */
/*
 * mkwrite/store.h: files whose bytes live where the program says: a block device
 * of the network, a compressed file, memory. The engine caches, maps and excludes;
 * a *store* reads and writes. Files of the host are a store on this interface, too.
 *
 * A store is a struct mkw_store_ops, a struct mkw_store_info, and a pointer of its
 * own, `arg`, that every operation is given. mkw_file_open_store() makes a file of
 * it, and from then on the file is as any other.
 *
 * Operations on a range get a struct mkw_io and end when the store calls
 * mkw_io_done(), once, from any thread, before or after the operation has
 * returned. The others return their answer.
 *
 * Which thread calls. Reads and writes without MKW_IO_MAY_BLOCK come from the
 * engine's own threads, on which every page fault of the engine waits: the store
 * queues the work, or does what is short, and returns. It must not sleep on a
 * device, a peer, or a lock that another thread holds while it does. (With
 * MKW_STORE_MAY_BLOCK there are none of these, and it may.) Everything
 * else, and reads and writes with MKW_IO_MAY_BLOCK, comes from a thread that may
 * sleep as long as it takes: one of the program that is in a call of mkwrite.h, or
 * one that the engine has for that. With MKW_STORE_ANY_CONTEXT reads and the
 * operations on blocks come from the handler of SIGBUS, too, at any point of the
 * program.
 *
 * While an operation runs, parts of the file are locked, and accesses of
 * mappings wait for it. So a store
 *   - must not touch a mapping of any engine in the process, nor memory that may
 *     become one, nor wait for a thread that does (that wait would be for itself).
 *     What malloc(3) gives is neither, as long as no allocator was put on a mapping;
 *   - must not call mkwrite.h, but for mkw_io_done() and mkw_io_transfer(). (From
 *     a thread of its own, on which no operation waits, it may: mkw_invalidate().)
 * Signals are blocked in the calling thread, but for those that a fault raises.
 *
 * Order. Any number of operations are under way at once. The engine sees to it that
 *   - no two writes of one page of memory (sysconf(_SC_PAGESIZE)) overlap in time;
 *   - resize to a smaller length, punch, zero, collapse and insert (the last two from
 *     their offset to the end) overlap with no read or write of their range, and
 *     growing with no write of the last page;
 *   - own() is over before anything else begins, and everything before close().
 * All else may come in any order and at the same time: reads of one range, a read
 * with a write of it (which may see either, by parts of info.align), flush
 * with anything. A flush makes durable what had been done (mkw_io_done()) when it
 * began.
 *
 * Ranges. Reads and writes of the cache begin at a multiple of the page size, and
 * end at one or at the end of the file; those of MKW_DIRECT are multiples of info.align,
 * but for a read that ends at the end of the file.
 * A write never reaches past the length, and never changes it. What is read past
 * the length is zero.
 */
#ifndef MKWRITE_STORE_H
#define MKWRITE_STORE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <mkwrite/mkwrite.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bits of mkw_io.flags. */
#define MKW_IO_MAY_BLOCK 0x1u	/* the calling thread may sleep */

/*
 * One operation on a range. It is the engine's, and valid from the call of the
 * operation to that of mkw_io_done(); so is buf, which only reads and writes have.
 *   off, len   bytes; resize: len is the length to be
 *   buf        aligned to info.memory_align if MKW_IO_MAY_BLOCK is not set or
 *              MKW_STORE_USER_MEMORY is not; a write must not change it
 *   flags      MKW_IO_...; unknown bits mean nothing
 *   own        for the store's use, between the two calls
 */
struct mkw_io {
	uint64_t off;
	uint64_t len;
	void *buf;
	uint32_t flags;
	uint32_t reserved;
	uint64_t own[4];
};

/*
 * Ends an operation. result: of reads and writes the bytes moved, from off on; of
 * the others 0; or a negative errno, of which -EIO and -ENOSPC have a meaning that
 * programs know (-EXDEV, -ENOBUFS and what is no error number count as -EIO). It may be
 * called in the operation itself, and in any thread, where it blocks for no longer than
 * a mutex.
 *
 * Short counts: the engine asks again for the rest. 0 of a read means the end:
 * what follows is zero where the length is no greater, -EIO elsewhere. 0 of a
 * write is -EIO. After an error the bytes of a read are not used, those of a write,
 * punch or zero are unknown; the engine keeps what it has of them, dirty.
 *
 * An operation that is ended twice, by more bytes than there are, or by a count
 * where there is none ends the process with a message: somebody's data would be taken for
 * something else.
 */
void mkw_io_done(struct mkw_io *io, ssize_t result);

/*
 * For a read or write without MKW_IO_MAY_BLOCK: has the thread that called the
 * operation move up to len bytes of io->buf, from its beginning, at io->off of a
 * descriptor, with all else it waits for (io_uring, where there is one), and end the
 * operation with their count. An error goes to failed(), in that thread, which
 * calls mkw_io_done(), or mkw_io_transfer() again; NULL: it is the result.
 *
 * -EINVAL   io has MKW_IO_MAY_BLOCK (make the system call), or len is 0 or more
 *           than io->len
 */
int mkw_io_transfer(struct mkw_io *io, int fd, size_t len,
		    void (*failed)(struct mkw_io *io, int error));

/* Bytes [off, end) that have blocks, written or not; off == end: none has. */
struct mkw_store_run {
	uint64_t off, end;
	uint32_t shared;	/* 1: with another file, so that writing copies */
	uint32_t reserved;
};

/* Bits of mkw_store_info.flags. */
#define MKW_STORE_DIRECT      0x1u /* no cache of the kernel lies in between */
#define MKW_STORE_RESERVES    0x2u /* writing to what allocate() gave finds space */
/*
 * The buffers of MKW_DIRECT may be given to the store as they are: memory of the
 * program, which may not be there (a read or write of it then ends with
 * -EFAULT, as system calls do), and which the program may change meanwhile.
 * Without it the engine copies.
 */
#define MKW_STORE_USER_MEMORY 0x4u
/*
 * read, allocate, blocks and release are async-signal-safe (signal-safety(7)). Accesses of
 * mappings with MKW_MAP_INLINE then call them from the handler; without
 * it they go through the engine's threads.
 */
#define MKW_STORE_ANY_CONTEXT 0x8u
/*
 * read and write may sleep wherever they are called, so all of them have
 * MKW_IO_MAY_BLOCK: those of the engine's own threads are made by four that it starts
 * for the store. The simplest for a store of blocking calls; not with
 * MKW_STORE_ANY_CONTEXT.
 */
#define MKW_STORE_MAY_BLOCK   0x10u

/*
 * What a store is.
 *   size          sizeof(struct mkw_store_info)
 *   len           bytes; see own()
 *   id            what it stores: two stores with the same operations and the same
 *                 id are one file, cached once. 0, 0: like no other
 *   align         of offset and length of MKW_DIRECT: a power of two, at most a page
 *   memory_align  of buffers; likewise
 *   block         the unit of allocation; likewise
 *   flags         MKW_STORE_...
 * The last three may be 0: 1, 1 and a page.
 */
struct mkw_store_info {
	size_t size;
	uint64_t len;
	uint64_t id[2];
	uint32_t align;
	uint32_t memory_align;
	uint32_t block;
	uint32_t flags;
};

#define MKW_STORE_INFO_INIT { .size = sizeof(struct mkw_store_info) }

/*
 * What a store can do. Only read is required, and write in a file opened O_RDWR;
 * of each other is said what NULL means.
 */
struct mkw_store_ops {
	size_t size;		/* sizeof(struct mkw_store_ops) */

	/*
	 * Takes what is stored for this engine: exclusively, or (writable 0)
	 * shared. From then to close() nobody else changes it; *len, at first
	 * info.len, is its length. Called once, first. NULL: nothing to do.
	 * -EBUSY: somebody else has it.
	 */
	int (*own)(void *arg, int writable, uint64_t *len);
	/* The end. Nothing is under way, and nothing follows. NULL: nothing to do. */
	void (*close)(void *arg);

	void (*read)(void *arg, struct mkw_io *io);
	void (*write)(void *arg, struct mkw_io *io);
	/*
	 * Makes all that was written, and the length, durable; off and len mean
	 * nothing. NULL: they are when they are done.
	 */
	void (*flush)(void *arg, struct mkw_io *io);
	/*
	 * The length becomes io->len; shorter drops, longer makes zeros.
	 * NULL: -EOPNOTSUPP.
	 */
	void (*resize)(void *arg, struct mkw_io *io);
	/*
	 * The range, any bytes inside the length, becomes zero; punch gives its
	 * space back, as far as that can be done, zero need not. -EOPNOTSUPP: nothing was
	 * changed, and so says the call. NULL: the other one is used, and where both
	 * are, zeros are written, in multiples of info.align.
	 */
	void (*punch)(void *arg, struct mkw_io *io);
	void (*zero)(void *arg, struct mkw_io *io);
	/*
	 * Takes the range out, and what follows moves up to it; or makes room for
	 * it, zeros, at off, which is inside the length. The length changes.
	 * -EINVAL: off and len are not multiples of what it can move; that and
	 * -EOPNOTSUPP (or NULL) mean that nothing was changed. After another error
	 * all from off on is unknown.
	 */
	void (*collapse)(void *arg, struct mkw_io *io);
	void (*insert)(void *arg, struct mkw_io *io);
	/*
	 * Space for the range, which may reach past the length; that stays. After
	 * an error some of it may be there. NULL: -EOPNOTSUPP.
	 */
	void (*allocate)(void *arg, struct mkw_io *io);
	/*
	 * Gives back what allocate() made and nobody has written to; unlike with punch, the
	 * range may be read meanwhile, and gives zeros. Required, with blocks
	 * and allocate, by MKW_STORE_RESERVES, and not used without.
	 */
	void (*release)(void *arg, struct mkw_io *io);
	/*
	 * The first run of blocks at or after off, as far as that is known at
	 * once, ending at `end` at the latest. -EOPNOTSUPP, it cannot be known.
	 */
	int (*blocks)(void *arg, uint64_t off, uint64_t end,
		      struct mkw_store_run *run);
	/*
	 * The allocation map: the next byte at or after off, which is inside the
	 * length, that is data, or (data 0) not, the length being the last hole.
	 * -ENXIO: no data. NULL: all is data.
	 */
	int64_t (*seek)(void *arg, uint64_t off, int data);
	/*
	 * What the length is now, whoever made it so; mkw_sync() asks. NULL:
	 * nobody else can have changed it.
	 */
	int (*length)(void *arg, uint64_t *len);
};

#define MKW_STORE_OPS_INIT .size = sizeof(struct mkw_store_ops)

/*
 * Opens a file on a store. flags: O_RDONLY or O_RDWR, and O_TRUNC. *ops and *info
 * are copied; the address of *ops is part of the store's identity (info->id).
 *
 * Whatever it returns but -EINVAL and -ECHILD, the store is the engine's from the call
 * on: it is closed with the last handle and mapping; before the return when the call
 * fails; or at once where a file of the same identity is open, which then serves.
 *
 * -EINVAL   a NULL argument, unknown flags, O_TRUNC without O_RDWR; no read(), or an
 *           alignment that is not a power of two up to a page; an unknown flag;
 *           MKW_STORE_RESERVES without allocate(), release() and blocks();
 *           MKW_STORE_MAY_BLOCK with MKW_STORE_ANY_CONTEXT; or ops->size or info->size is
 *           that of no version of this header
 * -EROFS    O_RDWR, and no write()
 * -EACCES   O_RDWR, and the engine has it open for reading
 * -EBUSY    as own() says
 * -ENOMEM   no memory
 * -EAGAIN   MKW_STORE_MAY_BLOCK, and there is no thread
 * and every error of own(), and of resize() with O_TRUNC.
 */
int mkw_file_open_store(struct mkw_engine *engine,
			const struct mkw_store_ops *ops,
			const struct mkw_store_info *info, void *arg, int flags,
			struct mkw_file **out);

#ifdef __cplusplus
}
#endif

#endif /* MKWRITE_STORE_H */
