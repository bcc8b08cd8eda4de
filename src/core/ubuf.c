/* SPDX-License-Identifier: MIT */
/*
 * Rule R0 for whole operations: buffers that lie in a mapping.
 *
 * A copy between a file and a mapping may fault, and the fault may need the very
 * lock that the copy holds. So where the buffer overlaps a mapping of any engine
 * of the process the operation goes through private memory, in two phases:
 * file <-> private under the file's locks, private <-> buffer with none. The result
 * is that of reading into private memory and then storing it, as if the caller
 * had done so; each phase is as atomic as the operation it is made of.
 *
 * A write needs all of its bytes before it begins: its private memory is as long, up
 * to WRITE_MAX, beyond which, or if there is none, it is -ENOMEM. A longer read goes in
 * windows, each atomic by itself.
 */
#include <errno.h>

#include "core/engine.h"

#define READ_WINDOW ((size_t)64 << 20)
#define WRITE_MAX   ((size_t)1 << 30)

/* Copies between private memory and len bytes of u from skip on. 0 or -EFAULT. */
static int copy(const struct mkw__uio *u, size_t skip, unsigned char *mem,
		size_t len, bool to_user)
{
	int r = 0;

	for (unsigned i = 0; len && !r; i++) {
		size_t seg = u->iov[i].iov_len, n;
		void *at;

		if (skip >= seg) {
			skip -= seg;
			continue;
		}
		at = mkw__os_at(u->iov[i].iov_base, skip);
		n = mkw__min(len, seg - skip);
		r = to_user ? mkw__os_user_write(at, mem, n) :
			      mkw__os_user_read(mem, at, n);
		skip = 0;
		mem += n;
		len -= n;
	}
	return r;
}

static ssize_t io_read(struct mkw__inode *in, const struct mkw__uio *u,
		       uint64_t off, unsigned flags)
{
	struct mkw__os_sigmask mask;
	ssize_t r;

	mkw__os_signals_block(&mask);
	r = mkw__io_read(in, u, off, flags);
	mkw__os_signals_restore(&mask);
	return r;
}

static ssize_t io_write(struct mkw__inode *in, const struct mkw__uio *u,
			uint64_t *off, unsigned flags)
{
	struct mkw__os_sigmask mask;
	ssize_t r;

	mkw__os_signals_block(&mask);
	r = mkw__io_write(in, u, off, flags);
	mkw__os_signals_restore(&mask);
	return r;
}

/* A window of a read: bytes [done, done + len) of it. */
static ssize_t read_window(struct mkw__inode *in, const struct mkw__uio *u,
			   size_t done, unsigned char *mem, size_t len,
			   uint64_t off, unsigned flags)
{
	struct iovec iov = { .iov_base = mem, .iov_len = len };
	struct mkw__uio private = { .iov = &iov, .len = len };
	struct mkw__os_sigmask mask;
	ssize_t r;

	r = io_read(in, &private, off + done, flags);
	mkw__rank_assert_none();
	mkw__os_signals_open(&mask);
	if (r > 0 && copy(u, done, mem, (size_t)r, true))
		r = -EFAULT;
	mkw__os_signals_close(&mask);
	return r;
}

ssize_t mkw__ubuf_read(struct mkw__inode *in, const struct mkw__uio *u,
		       uint64_t off, unsigned flags)
{
	size_t len = u->len, window, done = 0, n = 0;
	uint64_t size;
	void *mem;
	ssize_t r;

	r = io_read(in, u, off, flags);
	if (r != -EXDEV)
		return r;

	mkw__count(&in->engine->count.bounced, 1);
	/* Not more than there is to read: the buffer may be vast. */
	size = atomic_load_explicit(&in->size, memory_order_acquire);
	if (!(flags & MKW_DIRECT))
		len = mkw__min(len, off < size ? size - off : 0);
	if (!len)
		return 0;
	window = mkw__min(len, READ_WINDOW);
	mem = mkw__os_reserve(window);
	if (!mem)
		return -ENOMEM;
	for (r = 0; done < len && r == (ssize_t)n; done += r > 0 ? r : 0) {
		n = mkw__min(window, len - done);
		r = read_window(in, u, done, mem, n, off, flags);
	}
	mkw__os_unreserve(mem, window);
	return done ? (ssize_t)done : r;
}

ssize_t mkw__ubuf_write(struct mkw__inode *in, const struct mkw__uio *u,
			uint64_t *off, unsigned flags)
{
	struct iovec iov = { .iov_len = u->len };
	struct mkw__uio private = { .iov = &iov, .len = u->len };
	struct mkw__os_sigmask mask;
	ssize_t r;

	r = io_write(in, u, off, flags);
	if (r != -EXDEV)
		return r;

	mkw__count(&in->engine->count.bounced, 1);
	if (u->len > WRITE_MAX)
		return -ENOMEM;
	iov.iov_base = mkw__os_reserve(u->len);
	if (!iov.iov_base)
		return -ENOMEM;
	mkw__rank_assert_none();
	mkw__os_signals_open(&mask);
	r = copy(u, 0, iov.iov_base, u->len, false);
	mkw__os_signals_close(&mask);
	if (!r)
		r = io_write(in, &private, off, flags);
	mkw__os_unreserve(iov.iov_base, u->len);
	return r;
}
