/* SPDX-License-Identifier: MIT */
/*
 * The public functions: what they check before core sees a call.
 *
 * Every argument error is found here, before anything is locked or changed, and
 * so is a call in a forked child (-ECHILD): its parent's threads may have held
 * any lock when it was made.
 *
 * Signals are blocked, and cancellation is disabled, around whatever takes a lock, so
 * that no handler of the application runs in a thread that holds one: it might touch a
 * mapping, and the fault would wait for the very lock (ubuf.c does so itself for reads
 * and writes, since there a part must run with signals open). Opening by name or
 * descriptor is in open.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/api.h"
#include "api/log.h"
#include "core/engine.h"

/* The most that one read or write moves, as Linux has it (read(2)). */
#define RW_MAX ((size_t)0x7ffff000)
#define OFF_MAX INT64_MAX

static bool page_aligned(uint64_t value)
{
	return !(value & (mkw__os_page_size() - 1));
}

/* [off, off + len) lies within what off_t can say. */
static bool range_ok(off_t off, uint64_t len)
{
	return off >= 0 && len <= (uint64_t)OFF_MAX - (uint64_t)off;
}

/* ---- engine ----------------------------------------------------------- */

/* What most calls are: a check of the handle, and the work with signals blocked. */
static int call_file(struct mkw_file *file, int (*fn)(struct mkw_file *))
{
	struct mkw__os_sigmask mask;
	int r;

	if (!file)
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	r = fn(file);
	mkw__os_signals_restore(&mask);
	return r;
}

static int call_engine(struct mkw_engine *engine, int (*fn)(struct mkw_engine *))
{
	struct mkw__os_sigmask mask;
	int r;

	if (!engine)
		return -EINVAL;
	if (mkw__engine_inherited(engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	r = fn(engine);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_engine_open(const struct mkw_engine_options *opt,
		    struct mkw_engine **out)
{
	struct mkw_engine_options o = MKW_ENGINE_OPTIONS_INIT;
	struct mkw__os_sigmask mask;
	int r;

	/* The others are how long it was once. */
	if (!out || (opt && opt->size != sizeof(o) &&
		     opt->size != offsetof(struct mkw_engine_options, alloc) &&
		     opt->size != offsetof(struct mkw_engine_options, log_level)))
		return -EINVAL;
	if (opt)
		memcpy(&o, opt, opt->size);
	if (o.reserved || o.alloc > MKW_ALLOC_DELAYED ||
	    o.policy > MKW_POLICY_INVALIDATE || o.reserved2 ||
	    o.log_level > MKW_LOG_INFO || (o.log_level && !o.log) ||
	    (o.cache_bytes && o.cache_bytes < MKW_CACHE_BYTES_MIN))
		return -EINVAL;
	mkw__os_signals_block(&mask);
	r = mkw__engine_open(&o, out);
	if (!r) {
		r = mkw__log_open(*out, &o);
		if (r)
			mkw__engine_close(*out);
	}
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_engine_close(struct mkw_engine *engine)
{
	struct mkw__os_sigmask mask;
	int r;

	if (!engine)
		return -EINVAL;
	if (mkw__engine_inherited(engine))
		return -ECHILD;
	/* It would wait for itself. */
	if (engine->log.thread &&
	    atomic_load_explicit(&engine->log.self, memory_order_relaxed) ==
		    mkw__os_self())
		return -EDEADLK;
	mkw__os_signals_block(&mask);
	r = mkw__engine_close(engine);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_engine_stats(struct mkw_engine *engine, struct mkw_stats *st)
{
	struct mkw__os_sigmask mask;
	struct mkw_stats all;
	size_t size;

	if (!engine || !st || st->size < offsetof(struct mkw_stats, kernel_faults))
		return -EINVAL;
	if (mkw__engine_inherited(engine))
		return -ECHILD;
	size = st->size;
	mkw__os_signals_block(&mask);
	mkw__engine_stats(engine, &all);
	mkw__os_signals_restore(&mask);
	memcpy(st, &all, mkw__min(size, sizeof(all)));
	st->size = size;
	return 0;
}

const char *mkw_version(void)
{
	return MKW_VERSION;
}

/* ---- reading and writing ---------------------------------------------- */

/* Vectors of up to so many segments are copied to the stack. */
#define FEW_SEGMENTS 8
/* As Linux has it (writev(2)). */
#define SEGMENTS_MAX 1024

static bool suits_direct(const struct mkw_file *file, uint64_t value)
{
	return value % file->inode->store->direct_align == 0;
}

/*
 * What does not depend on the segments but on their sum, which is cut to what one
 * call moves.
 */
static int check_rw(struct mkw_file *file, size_t *len, off_t off,
		    unsigned flags)
{
	if (!file || (flags & ~(MKW_DIRECT | MKW_NOWAIT | MKW_APPEND)))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	*len = mkw__min(*len, RW_MAX);
	/* Where an append goes must suit, too: known when it is locked. */
	if (flags & MKW_APPEND)
		off = 0;
	if (!range_ok(off, *len))
		return -EINVAL;
	return (flags & MKW_DIRECT) &&
	       !(suits_direct(file, off) && suits_direct(file, *len)) ?
		       -EINVAL : 0;
}

/* A read or write of segments that are the engine's to look at. */
static ssize_t read_uio(struct mkw_file *file, struct mkw__uio *u, off_t off,
			unsigned flags)
{
	int r = flags & MKW_APPEND ? -EINVAL :
				     check_rw(file, &u->len, off, flags);

	if (r || !u->len)
		return r;
	/* With no lock, and so no need to block signals. */
	if (!(flags & MKW_DIRECT) && u->iov->iov_len == u->len &&
	    mkw__glance(file->inode, u->iov->iov_base, u->len, off))
		return (ssize_t)u->len;
	return mkw__ubuf_read(file->inode, u, off, flags);
}

/* *off: in, where, but for MKW_APPEND; out, where it was, if any was written. */
static ssize_t write_uio(struct mkw_file *file, struct mkw__uio *u, off_t *off,
			 unsigned flags)
{
	int r = check_rw(file, &u->len, *off, flags);
	uint64_t at = (uint64_t)*off;
	ssize_t n;

	if (r)
		return r;
	if (!file->writable)
		return -EBADF;
	if (!u->len)
		return 0;
	n = mkw__ubuf_write(file->inode, u, &at, flags);
	if (n > 0)
		*off = (off_t)at;
	return n;
}

ssize_t mkw_pread(struct mkw_file *file, void *buf, size_t len, off_t off,
		  unsigned flags)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct mkw__uio u = { .iov = &iov, .len = len };

	return read_uio(file, &u, off, flags);
}

ssize_t mkw_pwrite(struct mkw_file *file, const void *buf, size_t len,
		   off_t off, unsigned flags)
{
	struct iovec iov = { .iov_base = mkw__os_at(buf, 0), .iov_len = len };
	struct mkw__uio u = { .iov = &iov, .len = len };

	return write_uio(file, &u, &off, flags);
}

ssize_t mkw_append(struct mkw_file *file, const void *buf, size_t len,
		   unsigned flags, off_t *off)
{
	struct iovec iov = { .iov_base = mkw__os_at(buf, 0), .iov_len = len };
	struct mkw__uio u = { .iov = &iov, .len = len };
	off_t at = 0;
	ssize_t r;

	if (flags & MKW_APPEND)
		return -EINVAL;
	r = write_uio(file, &u, &at, flags | MKW_APPEND);
	if (r > 0 && off)
		*off = at;
	return r;
}

/*
 * A copy of the caller's vector, which may lie anywhere, in a mapping too; *u->iov is
 * `few` or is to be freed. Its sum is in u->len.
 */
static int get_vector(struct mkw_file *file, const struct iovec *iov, int n,
		      unsigned flags, struct iovec few[FEW_SEGMENTS],
		      struct mkw__uio *u)
{
	struct iovec *copy = few;
	int r = 0;

	u->iov = few;
	u->len = 0;
	if (((flags & MKW_DIRECT) && !file) || n < 0 || n > SEGMENTS_MAX ||
	    (n && !iov))
		return -EINVAL;
	if (n > FEW_SEGMENTS) {
		copy = mkw__os_zalloc((size_t)n * sizeof(*copy));
		if (!copy)
			return -ENOMEM;
		u->iov = copy;
	}
	r = mkw__os_user_read(copy, iov, (size_t)n * sizeof(*copy));
	for (int i = 0; i < n && !r; i++) {
		if (copy[i].iov_len > SSIZE_MAX - u->len ||
		    ((flags & MKW_DIRECT) &&
		     !suits_direct(file, copy[i].iov_len)))
			r = -EINVAL;
		u->len += copy[i].iov_len;
	}
	return r;
}

static void put_vector(const struct mkw__uio *u, const struct iovec *few)
{
	if (u->iov != few)
		mkw__os_free((void *)(uintptr_t)u->iov);
}

ssize_t mkw_preadv(struct mkw_file *file, const struct iovec *iov, int n,
		   off_t off, unsigned flags)
{
	struct iovec few[FEW_SEGMENTS];
	struct mkw__uio u;
	ssize_t r = get_vector(file, iov, n, flags, few, &u);

	if (!r)
		r = read_uio(file, &u, off, flags);
	put_vector(&u, few);
	return r;
}

ssize_t mkw__api_pwritev(struct mkw_file *file, const struct iovec *iov, int n,
			 off_t *off, unsigned flags)
{
	struct iovec few[FEW_SEGMENTS];
	struct mkw__uio u;
	ssize_t r = get_vector(file, iov, n, flags, few, &u);

	if (!r)
		r = write_uio(file, &u, off, flags);
	put_vector(&u, few);
	return r;
}

ssize_t mkw_pwritev(struct mkw_file *file, const struct iovec *iov, int n,
		    off_t off, unsigned flags)
{
	return mkw__api_pwritev(file, iov, n, &off, flags);
}

/* ---- size and blocks -------------------------------------------------- */

int mkw_truncate(struct mkw_file *file, off_t size)
{
	struct mkw__os_sigmask mask;
	int r;

	if (!file || size < 0)
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	if (!file->writable)
		return -EBADF;
	mkw__os_signals_block(&mask);
	r = mkw__size_set(file->inode, size);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_fallocate(struct mkw_file *file, int mode, off_t off, off_t len)
{
	struct mkw__os_sigmask mask;
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	int r;

	if (!file || len <= 0 || !range_ok(off, len))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	if (!file->writable)
		return -EBADF;
	mkw__os_signals_block(&mask);
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
		r = mkw__size_allocate(file->inode, off, len, keep);
		break;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		r = mkw__hole_punch(file->inode, off, len);
		break;
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		r = mkw__hole_zero(file->inode, off, len, keep);
		break;
	case FALLOC_FL_COLLAPSE_RANGE:
	case FALLOC_FL_INSERT_RANGE:
		r = mkw__shift(file->inode, off, len,
			       mode == FALLOC_FL_COLLAPSE_RANGE);
		break;
	default:
		r = -EOPNOTSUPP;
	}
	mkw__os_signals_restore(&mask);
	return r;
}

int64_t mkw_seek(struct mkw_file *file, off_t off, int whence)
{
	struct mkw__os_sigmask mask;
	int64_t r;

	if (!file || off < 0 || (whence != SEEK_DATA && whence != SEEK_HOLE))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	r = mkw__query_seek(file->inode, off, whence == SEEK_DATA);
	mkw__os_signals_restore(&mask);
	return r;
}

int64_t mkw_size(struct mkw_file *file)
{
	if (!file)
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	return atomic_load_explicit(&file->inode->size, memory_order_acquire);
}

int mkw_size_fd(struct mkw_file *file)
{
	return call_file(file, mkw__size_fd);
}

int64_t mkw_size_seen(struct mkw_file *file)
{
	struct mkw__os_sigmask mask;
	int64_t size;

	if (!file)
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	size = (int64_t)mkw__size_seen(file);
	mkw__os_signals_restore(&mask);
	return size;
}

int mkw_file_info(struct mkw_file *file, struct mkw_file_info *info)
{
	struct mkw_file_info all = MKW_FILE_INFO_INIT;
	size_t size;

	if (!file || !info ||
	    info->size < offsetof(struct mkw_file_info, direct))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	size = info->size;
	all.direct_align = file->inode->store->direct_align;
	all.direct = file->inode->store->direct;
	all.page_size = file->inode->engine->page;
	all.reserves = mkw__reserve_on(file->inode) &&
		       !atomic_load_explicit(&file->inode->reserve.shared,
					     memory_order_relaxed);
	memcpy(info, &all, mkw__min(size, sizeof(all)));
	info->size = size;
	return 0;
}

int mkw_sync(struct mkw_file *file)
{
	return call_file(file, mkw__wb_sync);
}

int mkw_sync_range(struct mkw_file *file, off_t off, off_t len, unsigned flags)
{
	struct mkw__os_sigmask mask;
	struct mkw_engine *e;
	int r;

	if (!file || len < 0 || !range_ok(off, len) || (flags & ~MKW_SYNC_NOFLUSH))
		return -EINVAL;
	e = file->inode->engine;
	if (mkw__engine_inherited(e))
		return -ECHILD;
	if (!len)
		len = OFF_MAX - off;
	mkw__os_signals_block(&mask);
	r = mkw__wb_sync_range(file->inode, mkw__page_of(e, off),
			       mkw__pages_up(e, (uint64_t)off + (uint64_t)len),
			       !(flags & MKW_SYNC_NOFLUSH));
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_file_freeze(struct mkw_file *file)
{
	return call_file(file, mkw__freeze_file);
}

int mkw_file_thaw(struct mkw_file *file)
{
	return call_file(file, mkw__freeze_thaw_file);
}

int mkw_engine_freeze(struct mkw_engine *engine)
{
	return call_engine(engine, mkw__freeze_engine);
}

int mkw_engine_thaw(struct mkw_engine *engine)
{
	return call_engine(engine, mkw__freeze_thaw_engine);
}

ssize_t mkw_failed(struct mkw_file *file, off_t off, struct mkw_failed *vec,
		   size_t n)
{
	struct mkw__os_sigmask mask;
	size_t found;

	if (!file || !vec || off < 0)
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	found = mkw__failed_list(file->inode, off, vec, n);
	mkw__os_signals_restore(&mask);
	return (ssize_t)found;
}

int64_t mkw_discard(struct mkw_file *file, off_t off, off_t len)
{
	struct mkw__os_sigmask mask;
	int64_t r;

	if (!file || len <= 0 || !range_ok(off, len))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	if (!file->writable)
		return -EBADF;
	mkw__os_signals_block(&mask);
	r = mkw__failed_discard(file->inode, off, len);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_invalidate(struct mkw_file *file, off_t off, off_t len, unsigned flags)
{
	struct mkw__os_sigmask mask;
	bool discard = flags & MKW_INVALIDATE_DISCARD;
	int r;

	if (!file || len < 0 || !range_ok(off, len) ||
	    (flags & ~MKW_INVALIDATE_DISCARD) ||
	    (discard && !(page_aligned(off) && page_aligned(len))))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	if (discard && !file->writable)
		return -EBADF;
	mkw__os_signals_block(&mask);
	r = mkw__invalidate(file->inode, (uint64_t)off,
			    len ? (uint64_t)off + (uint64_t)len : OFF_MAX, discard);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_file_close(struct mkw_file *file)
{
	return call_file(file, mkw__file_close);
}

/* ---- mappings --------------------------------------------------------- */

int mkw_map(struct mkw_file *file, void *hint, size_t len, int prot,
	    unsigned flags, off_t off, void **addr)
{
	const unsigned fixed = MKW_MAP_FIXED | MKW_MAP_FIXED_NOREPLACE;
	struct mkw__os_sigmask mask;
	uintptr_t at;
	int r;

	if (!file || !addr || !len || !range_ok(off, len) ||
	    len > SIZE_MAX - mkw__os_page_size() || !page_aligned(off) ||
	    !page_aligned((uintptr_t)hint) ||
	    (flags & ~(MKW_MAP_INLINE | fixed)) || (flags & fixed) == fixed ||
	    ((flags & fixed) && !hint) ||
	    (prot != PROT_READ && prot != (PROT_READ | PROT_WRITE)))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	if ((prot & PROT_WRITE) && !file->writable)
		return -EACCES;
	mkw__os_signals_block(&mask);
	r = mkw__map_create(file, (uintptr_t)hint, len, prot & PROT_WRITE,
			    flags, off, &at);
	mkw__os_signals_restore(&mask);
	if (!r)
		*addr = (void *)at;
	return r;
}

int mkw_file_on_fault_error(struct mkw_file *file,
			    int (*callback)(const struct mkw_fault_error *error,
					    void *arg),
			    void *arg)
{
	struct mkw__os_sigmask mask;

	if (!file)
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	mkw__fault_on_error(file->inode, callback, arg);
	mkw__os_signals_restore(&mask);
	return 0;
}

int mkw_unmap(void *addr, size_t len)
{
	struct mkw__os_sigmask mask;
	size_t page = mkw__os_page_size();
	int r;

	if (!len || !page_aligned((uintptr_t)addr) || len > SIZE_MAX - page ||
	    (uintptr_t)addr > UINTPTR_MAX - (len + page))
		return -EINVAL;
	len = (len + page - 1) & ~(page - 1);
	mkw__os_signals_block(&mask);
	r = mkw__map_remove((uintptr_t)addr, len);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_remap(void *old, size_t old_len, size_t len, unsigned flags, void *to,
	      void **addr)
{
	const unsigned fixed = MKW_MAP_FIXED | MKW_MAP_FIXED_NOREPLACE;
	struct mkw__os_sigmask mask;
	size_t page = mkw__os_page_size();
	uintptr_t from = (uintptr_t)old, dest = (uintptr_t)to, at;
	int r;

	if (!addr || !old_len || !len || !page_aligned(from) ||
	    !page_aligned(dest) || old_len > SIZE_MAX / 2 - page ||
	    len > SIZE_MAX / 2 - page || from > UINTPTR_MAX - (old_len + page) ||
	    (flags & ~(MKW_REMAP_MAYMOVE | fixed)) || (flags & fixed) == fixed ||
	    ((flags & fixed) && (!(flags & MKW_REMAP_MAYMOVE) || !dest)))
		return -EINVAL;
	old_len = (old_len + page - 1) & ~(page - 1);
	len = (len + page - 1) & ~(page - 1);
	if ((flags & fixed) && (dest > UINTPTR_MAX - len ||
				(dest < from + old_len && from < dest + len)))
		return -EINVAL;
	mkw__os_signals_block(&mask);
	r = mkw__map_remap(from, old_len, len, flags, dest, &at);
	mkw__os_signals_restore(&mask);
	if (!r)
		*addr = (void *)at;
	return r;
}

int mkw_protect(void *addr, size_t len, int prot)
{
	struct mkw__os_sigmask mask;
	size_t page = mkw__os_page_size();
	int r;

	if (!len || !page_aligned((uintptr_t)addr) || len > SIZE_MAX - page ||
	    (uintptr_t)addr > UINTPTR_MAX - (len + page) ||
	    (prot != PROT_NONE && prot != PROT_READ &&
	     prot != (PROT_READ | PROT_WRITE)))
		return -EINVAL;
	len = (len + page - 1) & ~(page - 1);
	mkw__os_signals_block(&mask);
	r = mkw__map_access((uintptr_t)addr, len, prot & PROT_READ,
			    prot & PROT_WRITE);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_pinv(const struct iovec *iov, int n, unsigned flags, struct mkw_pin **pin)
{
	struct iovec few[FEW_SEGMENTS];
	struct mkw__os_sigmask mask;
	struct mkw__uio u;
	int r;

	if (!pin || (flags != MKW_PIN_READ && flags != MKW_PIN_WRITE))
		return -EINVAL;
	r = get_vector(NULL, iov, n, 0, few, &u);
	if (!r && !u.len)
		r = -EINVAL;
	if (!r) {
		mkw__os_signals_block(&mask);
		r = mkw__pin(&u, flags == MKW_PIN_WRITE, pin);
		mkw__os_signals_restore(&mask);
	}
	put_vector(&u, few);
	return r;
}

int mkw_pin(void *addr, size_t len, unsigned flags, struct mkw_pin **pin)
{
	struct iovec iov = { .iov_base = addr, .iov_len = len };

	return mkw_pinv(&iov, 1, flags, pin);
}

int mkw_unpin(struct mkw_pin *pin)
{
	struct mkw__os_sigmask mask;

	if (!pin)
		return -EINVAL;
	if (mkw__pin_inherited(pin))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	mkw__unpin(pin);
	mkw__os_signals_restore(&mask);
	return 0;
}

int mkw_resident(struct mkw_file *file, off_t off, size_t len,
		 unsigned char *vec)
{
	struct mkw__os_sigmask mask;
	struct mkw_engine *e;

	if (!file || !vec || !len || !range_ok(off, len) || !page_aligned(off))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	e = file->inode->engine;
	mkw__os_signals_block(&mask);
	mkw__query_resident(file->inode, mkw__page_of(e, off),
			    mkw__pages_up(e, len), vec);
	mkw__os_signals_restore(&mask);
	return 0;
}

/* ---- advice ----------------------------------------------------------- */

static void willneed(struct mkw__inode *in, uint64_t off, uint64_t len,
		     struct mkw__ra_req *req)
{
	struct mkw_engine *e = in->engine;
	uint64_t first = mkw__page_of(e, off);
	uint64_t pages = mkw__pages_up(e, off + len) - first;

	*req = (struct mkw__ra_req){ .first = first, .step = 1 };
	req->count = (uint32_t)mkw__min(mkw__min(pages, UINT32_MAX),
					e->pool.frames_max / 2);
}

static int dontneed(struct mkw__inode *in, uint64_t off, uint64_t len)
{
	struct mkw_engine *e = in->engine;
	/* Whole pages, as posix_fadvise() has it: the others may be in use. */
	uint64_t first = mkw__pages_up(e, off), end = mkw__page_of(e, off + len);
	int r = 0;

	if (off + len >= atomic_load_explicit(&in->size, memory_order_acquire))
		end = mkw__pages_up(e, off + len);
	if (first >= end)
		return 0;
	if (in->writable)
		r = mkw__wb_pages(in, first, end);
	mkw__reclaim_range(in, first, end);
	return r;
}

int mkw_advise(struct mkw_file *file, off_t off, off_t len, int advice)
{
	struct mkw__os_sigmask mask;
	struct mkw__ra_req req;
	struct mkw__inode *in;
	int r = 0;

	if (!file || len < 0 || !range_ok(off, len) || advice < 0 ||
	    advice > MKW_ADVICE_DONTNEED)
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	in = file->inode;
	if (!len)
		len = OFF_MAX - off;
	mkw__os_signals_block(&mask);
	if (advice == MKW_ADVICE_DONTNEED) {
		r = dontneed(in, off, len);
	} else if (advice == MKW_ADVICE_WILLNEED) {
		willneed(in, off, len, &req);
		mkw__ra_post(in, &req, true);
	} else {
		mkw__ra_advise(in, (enum mkw_advice)advice);
	}
	mkw__os_signals_restore(&mask);
	return r;
}

ssize_t mkw_prefetch(struct mkw_file *file, const struct mkw_range *ranges,
		     size_t n)
{
	struct mkw__os_sigmask mask;
	struct mkw__ra_req req;
	size_t done = 0;

	if (!file || (n && !ranges))
		return -EINVAL;
	if (mkw__engine_inherited(file->inode->engine))
		return -ECHILD;
	for (size_t i = 0; i < n; i++)
		if (ranges[i].len <= 0 || !range_ok(ranges[i].off,
						    ranges[i].len))
			return -EINVAL;
	mkw__os_signals_block(&mask);
	for (; done < n; done++) {
		willneed(file->inode, ranges[done].off, ranges[done].len, &req);
		if (!mkw__ra_post(file->inode, &req, true))
			break;
	}
	mkw__os_signals_restore(&mask);
	return done;
}
