/* SPDX-License-Identifier: MIT */
/*
 * Opening a file of the host, the only place where the library names a store; or of
 * a store of the program's.
 *
 * MKW_ATOMIC_WRITES is the file's, not the handle's, so that who loads need not know who writes.
 * Who reads the flag does so without a lock: what began before the call that sets it returned
 * may not have seen it.
 *
 * O_TRUNC is done by the engine once it owns the file, not by open(2): a file that
 * somebody else holds must not lose its contents to an -EBUSY.
 */
#include <errno.h>
#include <fcntl.h>

#include "api/log.h"
#include "core/engine.h"

static int attach(struct mkw_engine *engine, struct mkw__store *st,
		  bool writable, int flags, struct mkw_file **out)
{
	struct mkw_file *file;
	int r = mkw__file_attach(engine, st, writable, &file);

	if (r)
		return r;
	if (flags & MKW_ATOMIC_WRITES)
		atomic_store_explicit(&file->inode->atomic, true,
				      memory_order_relaxed);
	if (flags & O_TRUNC)
		r = mkw__size_set(file->inode, 0);
	if (r) {
		mkw__file_close(file);
		return r;
	}
	mkw__log_file(file);
	*out = file;
	return 0;
}

int mkw_file_open(struct mkw_engine *engine, const char *path, int flags,
		  mode_t mode, struct mkw_file **out)
{
	const int known = O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC |
			  O_NOFOLLOW | MKW_ATOMIC_WRITES;
	int access = flags & O_ACCMODE;
	struct mkw__os_sigmask mask;
	struct mkw__store *st;
	int r;

	if (!engine || !path || !out || (flags & ~known) ||
	    (access != O_RDONLY && access != O_RDWR) ||
	    (access == O_RDONLY && (flags & O_TRUNC)))
		return -EINVAL;
	if (mkw__engine_inherited(engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	r = mkw__hostfile_open(path, flags & ~(O_TRUNC | MKW_ATOMIC_WRITES), mode,
			       &st);
	if (!r)
		r = attach(engine, st, access == O_RDWR, flags, out);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_file_open_fd(struct mkw_engine *engine, int fd, struct mkw_file **out)
{
	struct mkw__os_sigmask mask;
	struct mkw__store *st;
	int r;

	if (!engine || !out)
		return -EINVAL;
	if (mkw__engine_inherited(engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	r = mkw__hostfile_open_fd(fd, &st);
	if (!r)
		r = attach(engine, st, !st->read_only, 0, out);
	mkw__os_signals_restore(&mask);
	return r;
}

int mkw_file_open_store(struct mkw_engine *engine,
			const struct mkw_store_ops *ops,
			const struct mkw_store_info *info, void *arg, int flags,
			struct mkw_file **out)
{
	int access = flags & O_ACCMODE;
	struct mkw__os_sigmask mask;
	struct mkw__store *st;
	int r;

	if (!engine || !ops || !info || !out || (flags & ~(O_ACCMODE | O_TRUNC)) ||
	    (access != O_RDONLY && access != O_RDWR) ||
	    (access == O_RDONLY && (flags & O_TRUNC)))
		return -EINVAL;
	if (mkw__engine_inherited(engine))
		return -ECHILD;
	mkw__os_signals_block(&mask);
	r = mkw__store_make(ops, info, arg, access == O_RDWR, &st);
	if (!r)
		r = attach(engine, st, access == O_RDWR, flags & O_TRUNC, out);
	else if (r != -EINVAL && ops->close)
		ops->close(arg);
	mkw__os_signals_restore(&mask);
	return r;
}
