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
 * The private memory is as long as the operation; -ENOMEM if there is none.
 */
#include <errno.h>

#include "core/engine.h"

ssize_t mkw__ubuf_read(struct mkw__inode *in, void *buf, size_t len,
		       uint64_t off, unsigned flags)
{
	struct mkw__os_sigmask mask;
	uint64_t size;
	void *tmp;
	ssize_t r;

	mkw__os_signals_block(&mask);
	r = mkw__io_read(in, buf, len, off, flags);
	mkw__os_signals_restore(&mask);
	if (r != -EXDEV)
		return r;

	mkw__count(&in->engine->count.bounced, 1);
	/* Not more than there is to read: the buffer may be vast. */
	size = atomic_load_explicit(&in->size, memory_order_acquire);
	if (!(flags & MKW_DIRECT))
		len = mkw__min(len, off < size ? size - off : 0);
	if (!len)
		return 0;
	tmp = mkw__os_reserve(len);
	if (!tmp)
		return -ENOMEM;
	mkw__os_signals_block(&mask);
	r = mkw__io_read(in, tmp, len, off, flags);
	mkw__os_signals_restore(&mask);
	mkw__rank_assert_none();
	mkw__os_signals_open(&mask);
	if (r > 0 && mkw__os_user_write(buf, tmp, r))
		r = -EFAULT;
	mkw__os_signals_close(&mask);
	mkw__os_unreserve(tmp, len);
	return r;
}

ssize_t mkw__ubuf_write(struct mkw__inode *in, const void *buf, size_t len,
			uint64_t *off, unsigned flags)
{
	struct mkw__os_sigmask mask;
	void *tmp;
	ssize_t r;

	mkw__os_signals_block(&mask);
	r = mkw__io_write(in, buf, len, off, flags);
	mkw__os_signals_restore(&mask);
	if (r != -EXDEV)
		return r;

	mkw__count(&in->engine->count.bounced, 1);
	tmp = mkw__os_reserve(len);
	if (!tmp)
		return -ENOMEM;
	mkw__rank_assert_none();
	mkw__os_signals_open(&mask);
	r = mkw__os_user_read(tmp, buf, len);
	mkw__os_signals_close(&mask);
	if (!r) {
		mkw__os_signals_block(&mask);
		r = mkw__io_write(in, tmp, len, off, flags);
		mkw__os_signals_restore(&mask);
	}
	mkw__os_unreserve(tmp, len);
	return r;
}
