/* SPDX-License-Identifier: MIT */
/*
 * mkwrite: files mapped into memory that may be written, direct-written,
 * punched and truncated while they are mapped, without a race.
 *
 * An *engine* owns a page cache of a bounded size, a thread that serves page
 * faults and a thread that writes dirty pages back. A *file* is opened through
 * an engine; its bytes are reached by mkw_pread() and mkw_pwrite(), by loads
 * and stores through any number of mappings (mkw_map()), and by operations that
 * change its size or take blocks away. Every operation is excluded from every
 * page fault, so that all of them may run at once from any thread.
 *
 * Conventions
 *   - A function returning int gives 0 or a negative errno (-EINVAL, ...). One
 *     returning ssize_t or int64_t gives a count or an offset, or a negative
 *     errno. errno itself is never set.
 *   - Offsets and lengths are in bytes.
 *   - An option structure begins with its own size, which the caller sets (use
 *     its _INIT macro), so that it can grow without breaking old programs.
 *   - Every function may be called from any thread. None may be called from a
 *     signal handler that can interrupt another call of this library.
 *   - Signals that come while a call holds a lock are delivered when it
 *     returns (all but those that a fault raises).
 *   - After fork() the child has neither the mappings (an access there raises
 *     SIGSEGV) nor a usable engine: every function that is given one of the
 *     parent's, or a file of it, fails with -ECHILD. It may open its own.
 *   - What a process has stored and written, and neither synced nor closed, is
 *     lost where it exits before the engine has written it back.
 */
#ifndef MKWRITE_H
#define MKWRITE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mkw_engine;
struct mkw_file;
struct mkw_pin;
struct mkw_queue;

/*
 * How page faults are excluded from operations that take data away (punch,
 * zero, truncate, direct write).
 *
 * RETRY       a fault try-locks the lock of the file's I/O; when that is busy
 *             the fault is parked and runs again from its start (D. Chinner's
 *             proposal, linux-ext4, May 2012). The default.
 * INVALIDATE  a second lock below the I/O lock, taken by faults and by the
 *             operations that take data away (J. Kara's proposal, the same
 *             thread; what Linux 5.15 calls invalidate_lock).
 */
enum mkw_policy {
	MKW_POLICY_RETRY = 0,
	MKW_POLICY_INVALIDATE = 1,
};

/*
 * When blocks are allocated for stores and writes.
 *
 * FAULT       before a store is let through, or a write returns: a full disk is
 *             met there (SIGBUS or the file's callback; -ENOSPC), never later.
 *             Blocks are allocated by the MiB, and what nobody has used is given
 *             back at mkw_sync(), at close, when the file has been idle, and
 *             before a full disk is reported. The default.
 * DELAYED     by writeback: a full disk is met there, as with the kernel's
 *             delayed allocation without its reservation. Cheaper for sparse
 *             files.
 * A file system that copies on write cannot promise that a write to an
 * allocated block finds space, so there FAULT is as good as DELAYED:
 * mkw_file_info() says so.
 */
enum mkw_alloc {
	MKW_ALLOC_FAULT = 0,
	MKW_ALLOC_DELAYED = 1,
};

/*
 * How much a message of the log matters.
 * ERROR    data is in danger, or lost: pages that could not be written back, were
 *          dropped with the last close, or a file that somebody else made shorter
 * WARNING  an access or a read failed; or something that is promised is not to be
 *          had here
 * INFO     what was found when the engine or a file was opened, and which slower way is
 *          taken for want of what
 */
enum mkw_log_level {
	MKW_LOG_ERROR = 1,
	MKW_LOG_WARNING = 2,
	MKW_LOG_INFO = 3,
};

/*
 * Engine options.
 *   size                sizeof(struct mkw_engine_options)
 *   policy              enum mkw_policy
 *   cache_bytes         memory for cached pages of all files of this engine;
 *                       0 means 256 MiB, or half of the memory that the
 *                       process may have (its control groups' limits), where
 *                       that is less. At least MKW_CACHE_BYTES_MIN. The engine's
 *                       I/O buffers and metadata come on top: -ENOMEM, and a
 *                       line on stderr, where that limit is lower than
 *                       cache_bytes and 32 MiB
 *   writeback_age_ms    a dirty page is written back after about this many
 *                       milliseconds without a call to mkw_sync();
 *                       0 means 5000
 *   alloc               enum mkw_alloc
 *   reserved            0
 *   failed_bytes_max    dirty pages that could not be written are kept, and keep
 *                       their memory. When there are so many bytes of them,
 *                       files that have some take no more stores and
 *                       writes but to pages that are dirty already: SIGBUS (or
 *                       the file's callback), or the error that the writing met.
 *                       mkw_failed() lists them, mkw_discard() drops them.
 *                       0 means a quarter of cache_bytes
 *   log                 called with every message up to log_level (enum
 *                       mkw_log_level; 0 means MKW_LOG_WARNING), one after the
 *                       other, in a thread that does nothing else; or NULL. message is
 *                       one line, without its end, and lasts for the call. No lock
 *                       is held: it may take its time (messages are then dropped, and
 *                       their number is told), touch mappings, and call every function
 *                       but mkw_engine_close() of its engine, which waits for it:
 *                       all that was to be told has been when that returns
 *   log_arg             given to log
 *   reserved2           0
 * Whatever these are, the environment's MKWRITE_DEBUG, set to a level's name in small
 * letters, or to 1 for info, has messages up to it written to standard error.
 */
struct mkw_engine_options {
	size_t size;
	uint32_t policy;
	uint32_t writeback_age_ms;
	uint64_t cache_bytes;
	uint32_t alloc;
	uint32_t reserved;
	uint64_t failed_bytes_max;
	uint32_t log_level;
	uint32_t reserved2;
	void (*log)(void *arg, int level, const char *message);
	void *log_arg;
};

#define MKW_ENGINE_OPTIONS_INIT { .size = sizeof(struct mkw_engine_options) }
#define MKW_CACHE_BYTES_MIN ((uint64_t)1 << 20)

/*
 * Opens an engine and starts its threads. *opt may be NULL for the defaults.
 * On success *out is owned by the caller, to be given to mkw_engine_close().
 *
 * -EINVAL   an option is out of range (log_level without log, too), or opt->size is 0
 *           or unknown
 * -ENOMEM   no memory for the page table or the buffers
 * -ENOSYS   the kernel has no userfaultfd, or lacks a feature that is needed
 *           (Linux 6.1 has them all); a message on stderr names it
 * -EPERM    userfaultfd is not permitted at all
 * -EMFILE, -ENFILE, -EAGAIN   no descriptors, or no thread
 */
int mkw_engine_open(const struct mkw_engine_options *opt,
		    struct mkw_engine **out);

/*
 * Stops the engine's threads and frees it.
 *
 * -EBUSY    a file or queue is open, or a mapping exists (they keep the engine alive:
 *           close or unmap them first); nothing has changed
 * -EDEADLK  called by the engine's own log callback
 * -EINVAL   engine is NULL
 */
int mkw_engine_close(struct mkw_engine *engine);

/*
 * Counters since the engine was opened. Times are in nanoseconds.
 *   size                  set by the caller to sizeof(struct mkw_stats)
 *   policy                the engine's enum mkw_policy
 *   kernel_faults         1: faults inside of system calls are served; 0: for
 *                         want of the right a system call that is given a mapped
 *                         buffer whose page is not there says EFAULT. Those in
 *                         mappings with MKW_MAP_INLINE never are
 *   cache_bytes           the budget; cached_bytes is what it holds now
 *   dirty_bytes           of those, not yet written to the file
 *   faults                page faults served; of these write faults, and those
 *                         served in the faulting thread (MKW_MAP_INLINE)
 *   faults_merged         fault messages joined to one already being served
 *   fills                 reads from the file into the cache, fill_pages their
 *                         pages, fill_errors those that failed
 *   parks                 times a fault had to wait (for a lock, a page, or
 *                         memory) and gave up its thread
 *   retries               times a fault ran again from its start
 *   longest_wait_ns       the longest time from a fault's arrival to its end,
 *                         among faults that were parked
 *   writebacks            writes of dirty pages, writeback_pages their pages,
 *                         writeback_errors those that failed
 *   reclaim_unmapped      pages that lost their mappings to reclaim
 *   reclaim_dropped       pages that reclaim took from the cache
 *   bounced               operations served through a private buffer, since
 *                         their buffer lay in a mapping of the engine
 *   cache_bypasses        pages read or written past a full cache
 *   readahead_pages       of fill_pages, those that nobody waited for yet
 *   reservations          allocations made ahead of stores and writes;
 *                         credit_bytes is what of them nobody has used yet
 *   failed_bytes          of dirty_bytes, those that could not be written
 *   lost_bytes            of dirty pages, those that a last close or unmap could
 *                         not write, and dropped
 */
struct mkw_stats {
	size_t size;
	uint32_t policy;
	uint32_t kernel_faults;
	uint64_t cache_bytes;
	uint64_t cached_bytes;
	uint64_t dirty_bytes;
	uint64_t faults;
	uint64_t write_faults;
	uint64_t inline_faults;
	uint64_t faults_merged;
	uint64_t fills;
	uint64_t fill_pages;
	uint64_t fill_errors;
	uint64_t parks;
	uint64_t retries;
	uint64_t longest_wait_ns;
	uint64_t writebacks;
	uint64_t writeback_pages;
	uint64_t writeback_errors;
	uint64_t reclaim_unmapped;
	uint64_t reclaim_dropped;
	uint64_t bounced;
	uint64_t cache_bypasses;
	uint64_t readahead_pages;
	uint64_t reservations;
	uint64_t credit_bytes;
	uint64_t failed_bytes;
	uint64_t lost_bytes;
};

#define MKW_STATS_INIT { .size = sizeof(struct mkw_stats) }

/*
 * Fills *st, as much of it as st->size covers.
 *
 * -EINVAL   a NULL argument, or st->size is smaller than the first field
 */
int mkw_engine_stats(struct mkw_engine *engine, struct mkw_stats *st);

/*
 * The same as text, for people and for scripts: a line "NAME VALUE" for each member but
 * size, in the order of the structure. Writes at most len bytes into buf, the zero
 * at the end with them; buf may be NULL when len is 0. Returns how long the text is
 * without that zero: it has been cut when that is not less than len.
 *
 * -EINVAL   engine is NULL, or buf is and len is not 0
 */
ssize_t mkw_engine_stats_text(struct mkw_engine *engine, char *buf, size_t len);

/*
 * A flag of mkw_file_open(), beside those of open(2): what changes the file's bytes
 * does so at once, for loads and stores through mappings, too. mkw_pwrite(), mkw_pwritev()
 * and mkw_append(), direct or not, punch, zero, collapse, insert, truncation and
 * mkw_discard() take the mappings of their range away before they change the first byte, and
 * accesses that come meanwhile fault, and wait for the end. So of two loads in order, of
 * whatever words, the second is not older than the first; and no store goes into the midst
 * of a write.
 *
 * It holds for the whole file: every handle and mapping, from when the call that opened it so
 * has returned to the last close and unmap. A call that is short has done what it returned,
 * at once as well: a write, its first bytes. (After an error of the device the bytes that it
 * was at work on may be old or new.) Reads are what they always are, atomic against every
 * other call and per word against stores. It is no promise about crashes.
 *
 * Each such call costs the pages of its range their mappings, and the next access of
 * each a fault; waits for pins of them (mkw_pin()); and gets -EDEADLK where a pin is the
 * calling thread's own.
 */
#define MKW_ATOMIC_WRITES 0x40000000

/*
 * Opens a regular file. flags: O_RDONLY or O_RDWR, and any of O_CREAT, O_EXCL,
 * O_TRUNC, O_CLOEXEC, O_NOFOLLOW, MKW_ATOMIC_WRITES; mode as for open(2). The engine takes the
 * file for itself (flock(2), exclusive for O_RDWR, shared for O_RDONLY) until
 * the last handle and mapping are gone. A file opened twice through one engine
 * gives two handles onto the same cached file; the second may not ask for
 * more access than the first.
 *
 * -EINVAL   a NULL argument, unknown flags, O_WRONLY (the cache must read), or
 *           not a regular file
 * -EBUSY    another engine or process holds the file
 * -EACCES   the first handle of this engine onto it is read-only
 * and every error of open(2) and fstat(2)
 */
int mkw_file_open(struct mkw_engine *engine, const char *path, int flags,
		  mode_t mode, struct mkw_file **out);

/*
 * The same, for a file that the caller has open as fd, whose access mode
 * counts. The descriptor is duplicated by way of /proc/self/fd (so that the
 * engine can have its own, with O_DIRECT); fd stays the caller's. There are no flags: with
 * MKW_ATOMIC_WRITES, mkw_file_open() of /proc/self/fd/N.
 *
 * -EBADF    fd is not an open descriptor, or was opened O_WRONLY or O_PATH
 */
int mkw_file_open_fd(struct mkw_engine *engine, int fd, struct mkw_file **out);

/*
 * Closes a handle. Mappings of the file stay valid. When the last handle and
 * mapping are gone, dirty pages are written back and the file is released; an
 * error of that write is returned, the handle is gone all the same.
 *
 * -EINVAL   file is NULL
 * -EBUSY    a request of a queue (mkw_queue_submit()) has it and has no result yet; nothing
 *           has changed
 * -EIO, -ENOSPC, ...   dirty pages could not be written, and are lost
 */
int mkw_file_close(struct mkw_file *file);

/* Flags of mkw_pread() and mkw_pwrite(). */
#define MKW_DIRECT 0x1u	/* straight between the buffer and the file */
#define MKW_NOWAIT 0x2u	/* -EAGAIN instead of waiting */
#define MKW_APPEND 0x4u	/* mkw_pwrite(): at the end, off is not used */

/*
 * Reads or writes up to len bytes at offset off, as pread(2) and pwrite(2) do,
 * atomically against every other call on the file, and per word against loads and stores
 * through mappings (a write of a file with MKW_ATOMIC_WRITES: as a whole). The buffer
 * may be ordinary memory or lie in a mapping of any engine of the process, of the same
 * file and range too; the result is that of copying through private memory. (Into a
 * mapping, what is longer than 64 MiB is read in parts, each atomic by itself.) A write
 * past the end extends the file. More than 0x7ffff000 bytes are cut to that.
 *
 * MKW_DIRECT moves the bytes of pages that are not cached straight between
 * the buffer and the device. off and len must be multiples of the file's
 * direct-I/O alignment (mkw_file_info()). It is coherent with mappings.
 * MKW_NOWAIT fails where the call would have to wait for a lock or a device.
 *
 * Returns the bytes moved: fewer than len at the end of the file, or when an
 * error or a bad address was met after some.
 * -EINVAL   a NULL handle, an unknown flag, off < 0, off + len too large; with
 *           MKW_DIRECT an unaligned off or len
 * -EFAULT   the buffer is not readable (pwrite) or writable (pread)
 * -EBADF    pwrite on a read-only file
 * -EAGAIN   MKW_NOWAIT, and it would have to wait
 * -EFBIG    past the largest size that the file system allows
 * -EDEADLK  pwrite, MKW_DIRECT or MKW_ATOMIC_WRITES: the calling thread has a page of it
 *           pinned (mkw_pin())
 * -ENOMEM   the buffer lies in a mapping and there is no memory for the copy, or
 *           more than 1 GiB is to be written from it
 * -EIO, -ENOSPC, ...   from the file
 */
ssize_t mkw_pread(struct mkw_file *file, void *buf, size_t len, off_t off,
		  unsigned flags);
ssize_t mkw_pwrite(struct mkw_file *file, const void *buf, size_t len,
		   off_t off, unsigned flags);

/*
 * The same for memory in n segments, as preadv(2) and pwritev(2): one operation, as
 * atomic as one with a single buffer. Segments, and the vector itself, may lie in
 * mappings, or not, in any mixture.
 *
 * The errors of mkw_pread() and mkw_pwrite(), and
 * -EINVAL   n < 0 or n > 1024, iov is NULL, the lengths overflow; with MKW_DIRECT
 *           a length that is not a multiple of the alignment
 * -EFAULT   the vector is not readable
 */
ssize_t mkw_preadv(struct mkw_file *file, const struct iovec *iov, int n,
		   off_t off, unsigned flags);
ssize_t mkw_pwritev(struct mkw_file *file, const struct iovec *iov, int n,
		    off_t off, unsigned flags);

/*
 * Writes at the end of the file, wherever that is when the call's turn comes, as
 * a descriptor with O_APPEND does: of any number of appends at once each gets a
 * range of its own, with no gap between, and a reader sees all of one or nothing
 * (what a failed one wrote in part is there, and its size). *off, unless off is
 * NULL, is where the bytes went. flags: as mkw_pwrite(), which with MKW_APPEND
 * does the same without saying where; MKW_DIRECT needs a file whose size is a
 * multiple of the alignment, and MKW_NOWAIT always fails, since growing waits.
 *
 * Returns the bytes written, as mkw_pwrite().
 * -EINVAL   a NULL handle, an unknown flag; with MKW_DIRECT an unaligned len or
 *           end of the file
 * -EBADF    a read-only file
 * -EAGAIN   MKW_NOWAIT
 * -EDEADLK  MKW_ATOMIC_WRITES: the calling thread has the last page pinned (mkw_pin())
 * -EFAULT, -EFBIG, -ENOMEM, -EIO, -ENOSPC, ...   as mkw_pwrite()
 */
ssize_t mkw_append(struct mkw_file *file, const void *buf, size_t len,
		   unsigned flags, off_t *off);

/*
 * Sets the file's size, as ftruncate(2): bytes past it are gone, new ones are
 * zero. Accesses through a mapping to pages past the end raise SIGBUS.
 *
 * -EINVAL   file is NULL, or size < 0
 * -EBADF    a read-only file
 * -EDEADLK  the calling thread has pinned a page that is to go (mkw_pin())
 * -EFBIG, -EIO, -ENOSPC, ...   from the file
 */
int mkw_truncate(struct mkw_file *file, off_t size);

/*
 * fallocate(2), with these of its modes (<linux/falloc.h>):
 *   0                                        allocate, growing the file
 *   FALLOC_FL_KEEP_SIZE                      allocate, the size unchanged
 *   FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE deallocate; reads give zero
 *   FALLOC_FL_ZERO_RANGE [|FALLOC_FL_KEEP_SIZE]   zero, stays allocated
 *   FALLOC_FL_COLLAPSE_RANGE                 taken out: what follows moves up
 *   FALLOC_FL_INSERT_RANGE                   room, of zeros: what follows moves
 * The last two change the size, and what a mapping shows from off on: for accesses and
 * calls of other threads, all of it at once. They write back what is dirty from
 * off on first, and empty the cache there.
 *
 * -EINVAL      file is NULL, off < 0, len <= 0, or the two overflow; collapse
 *              that reaches the end, insert at or past it, or either of them with
 *              off or len not a multiple of the file system's block
 * -EOPNOTSUPP  another mode, or the file system lacks this one
 * -EBADF       a read-only file
 * -EDEADLK     not to allocate: the calling thread has a page of it pinned (mkw_pin())
 * -EFBIG, -EIO, -ENOSPC, ...   from the file; the data of the range is then
 *              what it was (after an error of the device in the midst of collapse
 *              or insert: what the file system left)
 */
int mkw_fallocate(struct mkw_file *file, int mode, off_t off, off_t len);

/*
 * SEEK_DATA or SEEK_HOLE of lseek(2), seen through the cache: a dirty page is
 * data. Returns the offset found.
 *
 * -EINVAL   file is NULL, another whence, or off < 0
 * -ENXIO    off is at or past the end, or no data follows it
 */
int64_t mkw_seek(struct mkw_file *file, off_t off, int whence);

/* The file's size in bytes, or -EINVAL when file is NULL. */
int64_t mkw_size(struct mkw_file *file);

/*
 * A descriptor for an event loop (poll(2), epoll(7)): it can be read from when the file's
 * size changes, through whatever handle of this engine, until mkw_size_seen(). Several
 * changes are one notice, and none is lost. For one watcher: others have handles of
 * their own. What others do to the host's file is no change of the size here: mkw_sync()
 * tells of it (-ESTALE). The descriptor is the handle's, the same with each call: to be
 * watched, and neither read, written nor closed.
 *
 * -EINVAL   file is NULL
 * -ECHILD   the caller is a forked child
 * -EMFILE, -ENFILE, -ENOMEM   there is no descriptor, or no memory, for it
 */
int mkw_size_fd(struct mkw_file *file);

/*
 * The file's size in bytes, of which is taken note: the descriptor of mkw_size_fd(), if
 * there is one, can be read again once the size has changed from then on.
 *
 * -EINVAL   file is NULL
 * -ECHILD   the caller is a forked child
 */
int64_t mkw_size_seen(struct mkw_file *file);

/*
 * What the engine knows of a file. Lengths in bytes.
 *   direct_align       offset and length of MKW_DIRECT must be multiples
 *   direct             1 where the file system gives O_DIRECT; 0: the engine's
 *                      own I/O goes through the kernel's page cache
 *   page_size          the unit of caching and of mappings
 *   reserves           1 where a store or write that returned has its space;
 *                      0: with MKW_ALLOC_DELAYED, on file systems that copy on
 *                      write (btrfs but for files with NOCOW, overlayfs, ...) or
 *                      cannot allocate, and once the file was seen to share
 *                      blocks with another (reflink)
 */
struct mkw_file_info {
	size_t size;
	uint32_t direct_align;
	uint32_t direct;
	uint64_t page_size;
	uint32_t reserves;
	uint32_t reserved;
};

#define MKW_FILE_INFO_INIT { .size = sizeof(struct mkw_file_info) }

/* -EINVAL: a NULL argument, or info->size too small. */
int mkw_file_info(struct mkw_file *file, struct mkw_file_info *info);

/*
 * Makes every store and write that returned before the call durable, as
 * fdatasync(2) does: dirty pages are written, then the file is flushed. An
 * error of an earlier writeback is reported once to every handle; the pages
 * stay dirty and are tried again.
 *
 * -EINVAL   file is NULL
 * -ESTALE   somebody changed the file's length in spite of the engine's lock on it
 *           (who truncates without asking, flock(2)); told once to every handle.
 *           Dirty pages have been written all the same. What is cached may not be
 *           what the file has: close it everywhere and open it anew
 * -EDEADLK  the calling thread has pinned a page for writing (mkw_pin()); all others have
 *           been written
 * -EIO, -ENOSPC, ...   a page could not be written
 */
int mkw_sync(struct mkw_file *file);

/* Flags of mkw_sync_range(). */
#define MKW_SYNC_NOFLUSH 0x1u	/* written to the file, and not made durable */

/*
 * The same for stores and writes within [off, off + len), rounded out to pages; len 0
 * means to the end. Other dirty pages stay as they are, but what has been written
 * of them before becomes durable, too. With MKW_SYNC_NOFLUSH the bytes are
 * handed to the file, where a read by another process finds them, and a crash of the
 * machine may lose them, as sync_file_range(2).
 *
 * It says of the range alone what could not be written: an error of another page, or
 * of an earlier writeback, is left for mkw_sync().
 *
 * -EINVAL   file is NULL, off < 0, len < 0, the two overflow, or an unknown flag
 * -EDEADLK  the calling thread has pinned a page of it for writing (mkw_pin())
 * -EIO, -ENOSPC, ...   a page could not be written, or the file not be flushed
 */
int mkw_sync_range(struct mkw_file *file, off_t off, off_t len, unsigned flags);

/*
 * Freezes a file: what was stored and written before is written to the file of the host
 * and made durable, and from then on the host's file does not change, until it is
 * thawed. So it can be copied, or its file system's snapshot taken. Whoever would change it
 * waits for the thaw: mkw_pwrite() and the like (with MKW_NOWAIT: -EAGAIN), direct
 * writes, mkw_truncate(), mkw_fallocate(), and stores through mappings, asleep
 * in their page fault. Loads, reads and syncs go on. (On Linux 6.1 a load of a page that
 * is not mapped yet waits, too, in a mapping with PROT_WRITE.)
 *
 * Freezes add up: the file is thawed when each has been taken back, by mkw_file_thaw()
 * of the handle that made it, by any thread, or by closing that handle. When the last
 * handle and mapping are gone it is thawed in any case. Unmapping needs no thaw.
 *
 * Between freeze and thaw the caller must not wait for one who stores or writes,
 * nor do so itself, as with FIFREEZE (ioctl_fsfreeze(2)): nobody else would thaw. No
 * lock that a fault or a read needs is held meanwhile.
 *
 * -EINVAL   file is NULL
 * -EBUSY    a page is pinned for writing (mkw_pin()): the file is not frozen
 * -EIO, -ENOSPC, ...   a page could not be written, or the file not be flushed: the
 *           file is not frozen
 */
int mkw_file_freeze(struct mkw_file *file);

/*
 * Takes back one freeze of this handle. After the last one who waited goes on.
 *
 * -EINVAL   file is NULL, or has no freeze to take back
 */
int mkw_file_thaw(struct mkw_file *file);

/*
 * The same for all files of the engine, at one moment: first all of them take no more
 * changes, then all is written and flushed. While it lasts opening and closing files,
 * and unmapping, wait. A file that is opened later is frozen from the start (with
 * O_TRUNC that call waits for the thaw). Adds up with freezes of single files.
 *
 * -EINVAL   engine is NULL
 * -EBUSY, -EIO, -ENOSPC, ...   as above, of any file: none is frozen by it
 */
int mkw_engine_freeze(struct mkw_engine *engine);

/* -EINVAL: engine is NULL, or has no freeze to take back. */
int mkw_engine_thaw(struct mkw_engine *engine);

/* A part of a file that is dirty and could not be written. error: negative. */
struct mkw_failed {
	uint64_t off;
	uint64_t len;
	int32_t error;
	uint32_t reserved;
};

/*
 * Lists what is dirty and could not be written, at or after off, in order: up to n
 * ranges go into vec. It can be read and stored to; it is tried again at every sync
 * and once in a writeback age. (The error of a range is the last that was met in
 * its neighbourhood.) Returns how many ranges there are in vec: 0, nothing.
 *
 * -EINVAL   file or vec is NULL, off < 0
 */
ssize_t mkw_failed(struct mkw_file *file, off_t off, struct mkw_failed *vec,
		   size_t n);

/*
 * Drops pages that could not be written and lie wholly within [off, off + len): what
 * was stored to them since the last write of them that succeeded is lost, and the
 * file has again what is on the device, which after a failed write may be anything
 * that was ever in the page. Others are left alone. Returns the bytes dropped.
 *
 * -EINVAL   file is NULL, off < 0, len <= 0, or the two overflow
 * -EBADF    a read-only file
 * -EDEADLK  the calling thread has pinned a page of it (mkw_pin())
 */
int64_t mkw_discard(struct mkw_file *file, off_t off, off_t len);

/* Flags of mkw_invalidate(). */
#define MKW_INVALIDATE_DISCARD 0x1u	/* what is dirty is lost */

/*
 * For data that changed elsewhere: somebody else has written to the file, or a lease on
 * it is taken back. Whatever is cached of [off, off + len), rounded out to pages, is
 * forgotten, in all mappings; len 0 means to the end. A load or read that begins once it
 * has returned sees what the file, or the store (mkwrite/store.h), has then: no
 * access that is under way brings back what was read before. Accesses of the
 * range wait meanwhile. A page that could not be read is tried again.
 *
 * Dirty pages are written first (not flushed: mkw_sync() does), as a lease asks for that
 * is called back: whole pages, over what somebody else has in them. With
 * MKW_INVALIDATE_DISCARD they are not: what was stored to them since they were last
 * written is lost, in the range alone, which must be whole pages, as a lease
 * asks for that was lost. A write of such a page that is under way is waited for; see to it
 * that the other side refuses it.
 *
 * The file's length is not asked for anew: who changes that elsewhere is found by
 * mkw_sync() (-ESTALE). Reads and writes of the store go on being needed until it
 * has returned, so a store must not hold them back until then.
 *
 * -EINVAL   file is NULL, off < 0, len < 0, the two overflow, an unknown flag;
 *           MKW_INVALIDATE_DISCARD, and off or len is no multiple of the page size
 * -EBADF    MKW_INVALIDATE_DISCARD on a read-only file
 * -EDEADLK  the calling thread has pinned a page of it (mkw_pin()); nothing has changed. Pins of
 *           others are waited for
 * -EIO, -ENOSPC, ...   a page could not be written: it stays, dirty (mkw_failed()). All
 *           others are forgotten
 */
int mkw_invalidate(struct mkw_file *file, off_t off, off_t len, unsigned flags);

/* Flags of mkw_map(). */
#define MKW_MAP_INLINE          0x1u /* faults are served in their own thread */
#define MKW_MAP_FIXED           0x2u /* at hint; ordinary memory is replaced */
#define MKW_MAP_FIXED_NOREPLACE 0x4u /* at hint; -EEXIST if anything is there */

/*
 * Maps len bytes of the file from off (a multiple of the page size), shared,
 * and puts the address into *addr. prot is PROT_READ or
 * PROT_READ|PROT_WRITE. hint is where to map if that is free, or NULL. The
 * mapping may reach past the end of the file; pages past the end raise SIGBUS.
 * A page that cannot be read from the file raises SIGBUS in the thread that
 * touches it.
 *
 * By default faults are served by the engine's thread, inside system calls
 * too. With MKW_MAP_INLINE the faulting thread serves them itself from a
 * SIGBUS handler: several times cheaper, but a system call given such memory
 * may fail with EFAULT (use mkw_pread() and mkw_pwrite(), or copy), and a
 * thread that blocks SIGBUS is killed by a fault.
 *
 * The address range belongs to the engine until mkw_unmap(): it must not be
 * unmapped, protected, remapped or mapped over by other means.
 *
 * -EINVAL   a NULL argument, len 0, off or hint not page-aligned, unknown flag
 *           or prot, both FIXED flags
 * -EACCES   PROT_WRITE on a read-only file
 * -EEXIST   MKW_MAP_FIXED_NOREPLACE, and something is mapped there
 * -EBUSY    MKW_MAP_FIXED over a mapping of an engine: unmap that first
 * -ENOMEM   no memory or address space
 */
int mkw_map(struct mkw_file *file, void *hint, size_t len, int prot,
	    unsigned flags, off_t off, void **addr);

/*
 * What an access through a mapping met.
 *   size    sizeof(struct mkw_fault_error) of the library
 *   addr    of the access; off is its offset in the file
 *   error   a negative errno: the file's (-EIO, -ENOSPC, ...), -ENXIO past the
 *           end of the file, -ENOMEM where the kernel has no memory
 *   write   1: a store
 */
struct mkw_fault_error {
	size_t size;
	void *addr;
	uint64_t off;
	int32_t error;
	uint32_t write;
};

/* What a callback answers. */
#define MKW_FAULT_SIGBUS 0	/* the access raises SIGBUS */
#define MKW_FAULT_RETRY  1	/* it is made again, from the start */

/*
 * Has callback called, in the accessing thread, when an access through a mapping
 * of the file (any mapping, of any handle) cannot be served; NULL: nothing is,
 * and the access raises SIGBUS, as at first. There is one callback for a file; it
 * goes when the file is closed for good.
 *
 * It runs as part of a handler of SIGBUS, with every signal blocked and no lock
 * held: on the alternate stack where the thread has one, at any point of the
 * program. It may call what is async-signal-safe (signal-safety(7)), free space
 * by unlink(2), say; it may leave by siglongjmp(3) if the access was the program's
 * own. It must not touch a mapping nor call this library. The access may be one
 * of mkw_pread() or mkw_pwrite(), whose buffer is a mapping: MKW_FAULT_SIGBUS then
 * makes the call fail with EFAULT. A system call that meets a bad page fails
 * with EFAULT and asks nobody.
 *
 * -EINVAL   file is NULL
 */
int mkw_file_on_fault_error(struct mkw_file *file,
			    int (*callback)(const struct mkw_fault_error *error,
					    void *arg),
			    void *arg);

/*
 * Removes the mappings of [addr, addr + len), as munmap(2): parts of a mapping,
 * or several, and it is no error if there are none. Dirty pages stay in the
 * cache. Unlike munmap(2) it leaves memory that is not the engine's alone. An
 * access that races with it raises SIGSEGV, or (MKW_MAP_INLINE) SIGBUS.
 *
 * -EINVAL   addr is not page-aligned, or len is 0
 * -EBUSY    a part of it is pinned (mkw_pin()); nothing has changed
 * -ENOMEM   no memory to split a mapping, or too many mappings
 *           (vm.max_map_count): what could not be removed is a mapping still
 * -EIO, -ENOSPC, ...   it was the file's last use, and dirty pages could not be
 *           written, and are lost
 */
int mkw_unmap(void *addr, size_t len);

/* Flag of mkw_remap(): other than MKW_MAP_FIXED and _FIXED_NOREPLACE, which it takes, too. */
#define MKW_REMAP_MAYMOVE 0x8u

/*
 * Makes [old, old + old_len) len bytes long, where it is or elsewhere: *addr. As
 * mremap(2), which must not be used on mappings of an engine. The range, rounded up to
 * pages, must show bytes of one file in a row, all with the same access; it
 * may be part of a mapping, or several that are alike. What follows in the file is
 * mapped behind it where it grows, with the same access and the same flags; it is never
 * another part of the file (for that, mkw_map()).
 *
 *   flags 0                  stays where it is
 *   MKW_REMAP_MAYMOVE        moves if it must
 *   with MKW_MAP_FIXED       moves to `to`, which is page-aligned; what is mapped there is
 *                            replaced, and must not be an engine's. `to` and len may not
 *                            overlap the old range
 *   with MKW_MAP_FIXED_NOREPLACE   the same, and it is an error if anything is there
 *
 * No byte is copied, nothing is written or lost: dirty pages stay in the cache. While
 * it moves the memory is mapped at both places; once the call has returned an access to
 * the old one raises a signal, also one that was waiting in a fault, as after
 * mkw_unmap(). mlock(2) and madvise(2) of the old memory do not move.
 *
 * -EINVAL   addr is NULL, a length is 0, an address is not page-aligned, an unknown flag,
 *           a FIXED flag without MKW_REMAP_MAYMOVE, both of them, the new place
 *           overlaps the old one, or the mapping would pass the greatest offset
 * -EFAULT   a part of the old range is not mapped by an engine, or not like the rest
 * -ENOMEM   it cannot grow where it is, and may not move; no memory or address space;
 *           or too many mappings (vm.max_map_count): what of the old range could not be
 *           unmapped is mapped there still, and there is no new mapping
 * -EEXIST   MKW_MAP_FIXED_NOREPLACE, and something is mapped there
 * -EBUSY    MKW_MAP_FIXED over a mapping of an engine; or what would move or go
 *           is pinned (mkw_pin()). Nothing has changed, but for what MKW_MAP_FIXED replaces
 */
int mkw_remap(void *old, size_t old_len, size_t len, unsigned flags, void *to,
	      void **addr);

/*
 * Sets the access to [addr, addr + len), all of which must be mapped by engines, one or
 * several mappings or parts of them, as mprotect(2), which must not be used there. prot is
 * PROT_NONE, PROT_READ or PROT_READ|PROT_WRITE. What was stored before stays, and is
 * written back. An access that is not allowed any more raises SIGSEGV, also one that
 * was waiting in a fault (where its own thread serves it, once that wait is over).
 *
 * -EINVAL   addr is not page-aligned, len is 0, or another prot
 * -EACCES   PROT_WRITE, and the handle by which it was mapped is read-only
 * -EBUSY    a part of it is pinned (mkw_pin())
 * -ENOMEM   a part of it is not mapped by an engine; nothing has changed then. Or no
 *           memory to split a mapping, or too many mappings (vm.max_map_count): a part
 *           may have changed
 */
int mkw_protect(void *addr, size_t len, int prot);

/* Flags of mkw_pin(). */
#define MKW_PIN_READ  0x1u	/* a system call reads from the memory */
#define MKW_PIN_WRITE 0x2u	/* one writes to it */

/*
 * For system calls that *pin* memory, look its pages up once and then read or write
 * them past every protection: O_DIRECT reads and writes of other files, registered
 * buffers of io_uring, RDMA. Given mapped memory that is not pinned here, such a
 * read is no store: its bytes may be missing in the file and even in later loads,
 * after a writeback, a punch, or when the cache is full. Buffered read(2) and write(2)
 * need no pin, and mkw_pread() and mkw_pwrite() none either.
 *
 * mkw_pin() pins all pages of [addr, addr + len), which must lie in mappings of
 * engines; mkw_pinv() those of n segments, as one pin. Until mkw_unpin()
 *   MKW_PIN_READ    they are cached, and mapped; they cannot be unmapped (-EBUSY)
 *   MKW_PIN_WRITE   they are so, may be stored to without a fault, and count as
 *                   stored to by somebody all the time: each is dirty, has its space
 *                   on the disk, and is written back after the pin has ended
 * and what would take them away waits: punch, zero, collapse, insert, truncation to
 * less, direct writes, all writes with MKW_ATOMIC_WRITES, mkw_discard(), and for pins
 * for writing mkw_sync() and its like. A thread that would wait so for a pin of its own
 * gets -EDEADLK; of two threads that wait for each other's pins nobody is told. A sync
 * with -EDEADLK has written all but the caller's pinned pages.
 *
 * A pin may be ended by any thread. Pages may be pinned several times. At most a
 * quarter of an engine's cache_bytes may be pinned at once, each pin counted by itself.
 *
 * -EINVAL    pin is NULL, flags is neither of the two, no byte is to be pinned, n < 0
 *            or n > 1024, iov is NULL, the lengths overflow
 * -EFAULT    a part of the memory is not mapped by an engine, or the vector not readable
 * -EACCES    MKW_PIN_WRITE, and a mapping is read-only; or one has no access
 * -ENXIO     a page lies past the end of its file
 * -ENOBUFS   more would be pinned than may be: unpin some, or give the engine a
 *            larger cache
 * -ENOMEM    no memory
 * -EIO, -ENOSPC, ...   a page cannot be read, or there is no space for it
 */
int mkw_pin(void *addr, size_t len, unsigned flags, struct mkw_pin **pin);
int mkw_pinv(const struct iovec *iov, int n, unsigned flags, struct mkw_pin **pin);

/* Ends a pin, and frees it: no system call may be at work on the memory. -EINVAL: NULL. */
int mkw_unpin(struct mkw_pin *pin);

/* Bits of a byte of mkw_resident(). */
#define MKW_RESIDENT 0x1u	/* the page is in the cache */
#define MKW_DIRTY    0x2u	/* and has not been written to the file yet */
#define MKW_MAPPED   0x4u	/* and some mapping can reach it without a fault */

/*
 * As mincore(2): one byte for each page of [off, off + len) goes into vec.
 * off is page-aligned; pages past the end are 0. The answer may be stale when
 * it arrives.
 *
 * -EINVAL   a NULL argument, off < 0 or unaligned, len 0
 */
int mkw_resident(struct mkw_file *file, off_t off, size_t len,
		 unsigned char *vec);

/* How a file is going to be used; what mkw_advise() is told. */
enum mkw_advice {
	MKW_ADVICE_NORMAL = 0,
	MKW_ADVICE_RANDOM = 1,
	MKW_ADVICE_SEQUENTIAL = 2,
	MKW_ADVICE_WILLNEED = 3,
	MKW_ADVICE_DONTNEED = 4,
};

/*
 * As posix_fadvise(2), for mappings and calls alike; len 0 means to the end.
 *   NORMAL      readahead where access is seen to be in order: forward, backward,
 *               or in equal strides. The default
 *   RANDOM      no readahead
 *   SEQUENTIAL  readahead from the first page on
 *   WILLNEED    begins to read the range into the cache, and does not wait;
 *               as much of it as half the cache
 *   DONTNEED    the range's dirty pages are written, and its pages leave the
 *               cache, but for those that somebody is using just now
 * The first three hold for the whole file, whatever the range, and for all its
 * handles. Advice never changes what is read or written.
 *
 * -EINVAL   file is NULL, unknown advice, off < 0, or the two overflow
 * -EDEADLK  DONTNEED: the calling thread has pinned a page of it for writing (mkw_pin())
 * -EIO, -ENOSPC, ...   DONTNEED: a page could not be written; it stays
 */
int mkw_advise(struct mkw_file *file, off_t off, off_t len, int advice);

/* A part of a file, in bytes. */
struct mkw_range {
	off_t off;
	off_t len;
};

/*
 * WILLNEED for n ranges at once. Returns how many of them were queued: fewer than n
 * where more are being read ahead already than can be remembered.
 *
 * -EINVAL   a NULL argument, or a range with off < 0, len <= 0, or overflow;
 *           nothing is read then
 */
ssize_t mkw_prefetch(struct mkw_file *file, const struct mkw_range *ranges,
		     size_t n);

/*
 * Queues: the same calls without waiting for them, for programs that live in an event loop.
 *
 * A request is submitted, is carried out, and has a result, which is fetched. A descriptor
 * can be read as long as there are results: it is for poll(2) and epoll(7). The queue has
 * threads for this, which the program does not see: a call of the engine waits for
 * locks, pages and the device, and something has to wait in its place. Short reads of what is
 * cached need none; they are done when they are submitted.
 *
 * Each request is the call that its operation names, with all that is promised of it, made at
 * some moment between its submission and its result. Requests are not ordered
 * otherwise: those that are at work at the same time are as calls of several
 * threads. Two means bring order: to submit a request when the result of another is
 * there; and MKW_ORDER_BARRIER, with which a request begins when all that were
 * submitted before it have ended, and those that are submitted after it begin when it has
 * ended. Whether they succeeded does not matter. A sync covers the stores that were made
 * before it was submitted and the writes of which there was a result then; with
 * MKW_ORDER_BARRIER, all that were submitted to the queue before it.
 */
enum mkw_op {
	MKW_OP_READ = 1,	/* mkw_pread(), mkw_preadv() */
	MKW_OP_WRITE = 2,	/* mkw_pwrite(), mkw_pwritev(), mkw_append() */
	MKW_OP_SYNC = 3,	/* mkw_sync() */
	MKW_OP_SYNC_RANGE = 4,	/* mkw_sync_range() */
	MKW_OP_PREFETCH = 5,	/* the range is read into the cache */
	MKW_OP_FALLOCATE = 6,	/* mkw_fallocate() */
};

/* Bits of mkw_request.order. */
#define MKW_ORDER_BARRIER 0x1u

/*
 * A request.
 *   size    sizeof(struct mkw_request)
 *   op      enum mkw_op
 *   flags   of the call; MKW_OP_FALLOCATE: its mode
 *   file    of the queue's engine. It cannot be closed before there is a result
 *   buf     READ, WRITE: the buffer, of len bytes; or, if iov is not NULL, that vector, of
 *           iovcnt segments. What they point to, and the vector, are the queue's until
 *           there is a result; they may lie in mappings
 *   len     PREFETCH: 0 means to the end. Half the cache is read at most, and less where it
 *           has no room: no error. The result comes when the range has been read
 *   off     as in the call
 *   order   0 or MKW_ORDER_BARRIER
 *   tag     the program's own, to know the result by
 */
struct mkw_request {
	size_t size;
	uint32_t op;
	uint32_t flags;
	struct mkw_file *file;
	void *buf;
	const struct iovec *iov;
	uint32_t iovcnt;
	uint32_t order;
	uint64_t len;
	off_t off;
	uint64_t tag;
};

#define MKW_REQUEST_INIT { .size = sizeof(struct mkw_request) }

/*
 * A result.
 *   tag        the request's
 *   value      what the call returned: bytes, 0, or a negative errno. -ECANCELED: it
 *              was not made, and will not be
 *   off        the request's; of a write with MKW_APPEND, where the bytes went
 *   reserved   0
 */
struct mkw_result {
	uint64_t tag;
	int64_t value;
	off_t off;
	uint64_t reserved;
};

/*
 * Options of a queue.
 *   size      sizeof(struct mkw_queue_options)
 *   depth     how many requests there may be, from their submission until their result is
 *             fetched; 0 means 64. At most MKW_QUEUE_DEPTH_MAX
 *   threads   how many of them may be at work at once; 0 means 4. At most
 *             MKW_QUEUE_THREADS_MAX. So many threads are started with the queue
 */
struct mkw_queue_options {
	size_t size;
	uint32_t depth;
	uint32_t threads;
};

#define MKW_QUEUE_OPTIONS_INIT { .size = sizeof(struct mkw_queue_options) }
#define MKW_QUEUE_DEPTH_MAX 32768u
#define MKW_QUEUE_THREADS_MAX 64u

/*
 * Opens a queue for the files of an engine. opt may be NULL for the defaults. An engine
 * may have several, which do not know of each other. All functions may be called
 * from any thread, but mkw_queue_close().
 *
 * -EINVAL   a NULL argument, an option out of range, or opt->size is unknown
 * -ENOMEM   no memory
 * -EMFILE, -ENFILE, -EAGAIN   no descriptors, or no thread
 */
int mkw_queue_open(struct mkw_engine *engine, const struct mkw_queue_options *opt,
		   struct mkw_queue **out);

/*
 * Closes it: what has not begun is cancelled, what has is waited for, and results that
 * nobody fetched are gone. (What waits for a thaw or for the end of a pin waits on, and
 * the call with it.) Nobody may use the queue meanwhile. The buffers are the program's again.
 *
 * -EINVAL   queue is NULL
 */
int mkw_queue_close(struct mkw_queue *queue);

/*
 * A descriptor that can be read as long as there are results to be fetched (not
 * edge-triggered, but it may be watched so by who fetches until there is none). It is
 * the queue's: to be watched, and neither read, written nor closed.
 *
 * -EINVAL   queue is NULL
 */
int mkw_queue_fd(struct mkw_queue *queue);

/*
 * Submits n requests, in their order. They are copied; the array is the caller's again. How many
 * were submitted: fewer than n where the next one cannot be, which is told when it
 * is the first. An argument that the call itself would refuse is told by the result.
 * Does not wait for locks of files nor for the device.
 *
 * -EINVAL   queue is NULL, or requests is and n is not 0; or the first request has an
 *           unknown size, op or order
 * -EAGAIN   the queue is full: fetch results
 */
ssize_t mkw_queue_submit(struct mkw_queue *queue, const struct mkw_request *requests,
			 size_t n);

/*
 * Fetches up to n results, in the order in which the requests ended. If there is none,
 * waits until there is, for timeout_ms at most: 0, not at all; -1, for as long as it
 * takes. How many: 0 where the time is over. Each is fetched once, by one caller.
 *
 * -EINVAL   queue or results is NULL, n is 0, or timeout_ms < -1
 * -EINTR    a signal came while it waited, or the kernel broke the wait off, as it may any
 *           poll(2)
 */
ssize_t mkw_queue_reap(struct mkw_queue *queue, struct mkw_result *results, size_t n,
		       int timeout_ms);

/*
 * Cancels the requests with this tag that have not begun: their result is -ECANCELED. What has
 * begun goes on to its own result. How many were cancelled.
 *
 * -EINVAL   queue is NULL
 */
ssize_t mkw_queue_cancel(struct mkw_queue *queue, uint64_t tag);

/* The library's version, "MAJOR.MINOR.PATCH". */
const char *mkw_version(void);

#ifdef __cplusplus
}
#endif

#endif /* MKWRITE_H */
