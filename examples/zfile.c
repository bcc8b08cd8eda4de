/* SPDX-License-Identifier: MIT */
/*
 * zfile.c: a store of a program's own, for a file that is compressed, mapped as if it
 * were not. It makes the compressed file that its argument names, maps that and compares;
 * then it flips bits in it: what they hit is an error, and never wrong data.
 *
 * The file is frames of zstd, of 64 KiB each but for the last, one after the other, as
 * `split -b 64K --filter='zstd -c'` writes them and `zstd -d` reads them. Each ends with a
 * checksum of what is in it. (A format for long files would have a list of them.)
 *
 * Libraries: libzstd
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>
#include <mkwrite/store.h>

#define BLOCK ((size_t)64 << 10)

/* ---- the store --------------------------------------------------------- */

struct zfile {
	int fd;
	off_t *at;			/* of each frame, and the end */
	size_t count;
	pthread_mutex_t mutex;		/* of the rest */
	size_t have, len;		/* the block that is in plain; count: none */
	unsigned char plain[64 << 10], packed[ZSTD_COMPRESSBOUND(64 << 10)];
};

/* The block is in z->plain then; or -EIO. */
static int unpack(struct zfile *z, size_t n)
{
	size_t size = (size_t)(z->at[n + 1] - z->at[n]);

	z->have = z->count;
	if (pread(z->fd, z->packed, size, z->at[n]) != (ssize_t)size)
		return -EIO;
	z->len = ZSTD_decompress(z->plain, BLOCK, z->packed, size);
	if (ZSTD_isError(z->len) || (n + 1 < z->count && z->len != BLOCK))
		return -EIO;
	z->have = n;
	return 0;
}

/* As far as the block goes: the engine asks again for the rest. 0: the end. */
static void zfile_read(void *arg, struct mkw_io *io)
{
	struct zfile *z = arg;
	size_t n = io->off / BLOCK, at = io->off % BLOCK;
	ssize_t r = 0;

	pthread_mutex_lock(&z->mutex);
	if (n < z->count && n != z->have)
		r = unpack(z, n);
	if (n < z->count && !r && at < z->len) {
		r = (ssize_t)(z->len - at < io->len ? z->len - at : io->len);
		memcpy(io->buf, z->plain + at, (size_t)r);
	}
	pthread_mutex_unlock(&z->mutex);
	mkw_io_done(io, r);
}

static void zfile_close(void *arg)
{
	struct zfile *z = arg;

	close(z->fd);
	free(z->at);
	free(z);
}

static const struct mkw_store_ops zfile_ops = {
	MKW_STORE_OPS_INIT,
	.read = zfile_read,
	.close = zfile_close,
};

/* Finds the frames, and how long the last one is. */
static int find_frames(struct zfile *z)
{
	size_t size, room = 0;
	off_t at = 0;
	ssize_t n;

	while ((n = pread(z->fd, z->packed, sizeof(z->packed), at)) > 0) {
		size = ZSTD_findFrameCompressedSize(z->packed, (size_t)n);
		if (ZSTD_isError(size))
			return -EIO;
		if (z->count + 2 > room)
			z->at = realloc(z->at, (room += 1000) * sizeof(*z->at));
		if (!z->at)
			return -ENOMEM;
		z->at[z->count++] = at;
		z->at[z->count] = at += (off_t)size;
	}
	return n < 0 || !z->count ? -EIO : unpack(z, z->count - 1);
}

static int zfile_open(struct mkw_engine *engine, const char *path,
		      struct mkw_file **file)
{
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct zfile *z = calloc(1, sizeof(*z));
	int r;

	if (!z)
		return -ENOMEM;
	pthread_mutex_init(&z->mutex, NULL);
	z->fd = open(path, O_RDONLY | O_CLOEXEC);
	r = z->fd < 0 ? -errno : find_frames(z);
	if (r) {
		zfile_close(z);
		return r;
	}
	info.len = (z->count - 1) * BLOCK + z->len;
	/* It reads a file: on the engine's thread all faults would wait for that. */
	info.flags = MKW_STORE_MAY_BLOCK;
	/* From here on the engine closes it, even when this fails. */
	return mkw_file_open_store(engine, &zfile_ops, &info, z, O_RDONLY, file);
}

/* ---- a look at it ------------------------------------------------------ */

#define LEN ((4 << 20) + 1234)
#define FLIPS 100

static unsigned char plain[LEN + 4096], packed[LEN];	/* zeros at the end */
static sigjmp_buf caught;

/* In the thread whose load cannot be served. */
static int on_error(const struct mkw_fault_error *error, void *arg)
{
	(void)arg;
	siglongjmp(caught, -error->error);
}

/* Loads all of it: 0, it is as it was; or the error that was met. */
static int look(struct mkw_engine *engine, const char *path)
{
	struct mkw_file *file;
	void *map;
	int r = -zfile_open(engine, path, &file);

	if (r)
		return r;
	if (mkw_size(file) != LEN || mkw_file_on_fault_error(file, on_error, NULL) ||
	    mkw_map(file, NULL, LEN, PROT_READ, 0, 0, &map))
		exit(1);
	r = sigsetjmp(caught, 1);
	/* What follows in the last page is zero. */
	if (!r && memcmp(map, plain, (LEN + 4095) / 4096 * 4096))
		exit(2);
	return mkw_unmap(map, LEN) || mkw_file_close(file) ? EBADF : r;
}

int main(int argc, char **argv)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	ZSTD_CCtx *context = ZSTD_createCCtx();
	unsigned refused = 0, seed = 1;
	struct mkw_engine *engine;
	size_t len = 0, n;
	int fd;

	opt.cache_bytes = MKW_CACHE_BYTES_MIN;	/* a quarter of it */
	fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;
	if (fd < 0 || !context || mkw_engine_open(&opt, &engine))
		return 1;
	ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
	for (size_t i = 0; i < LEN; i++)
		plain[i] = (unsigned char)(rand_r(&seed) % 16 ? "page fault "[i % 11] :
								rand_r(&seed));
	for (size_t at = 0; at < LEN; at += BLOCK, len += n) {
		n = ZSTD_compress2(context, packed + len, LEN - len, plain + at,
				   LEN - at < BLOCK ? LEN - at : BLOCK);
		if (ZSTD_isError(n))
			return 1;
	}
	if (write(fd, packed, len) != (ssize_t)len || look(engine, argv[1]))
		return 1;
	for (unsigned i = 0; i < FLIPS; i++) {
		size_t at = (size_t)rand_r(&seed) % len;
		unsigned char byte = packed[at] ^ (unsigned char)(1u << i % 8);

		if (pwrite(fd, &byte, 1, (off_t)at) != 1)
			return 1;
		switch (look(engine, argv[1])) {
		case 0:
			break;
		case EIO:
			refused++;
			break;
		default:
			return 3;
		}
		if (pwrite(fd, &packed[at], 1, (off_t)at) != 1)
			return 1;
	}
	if (refused < FLIPS * 9 / 10 || look(engine, argv[1]) || mkw_engine_close(engine))
		return 4;
	ZSTD_freeCCtx(context);
	puts("4 MiB mapped out of less than half; no flipped bit went unnoticed");
	return len < LEN / 2 ? close(fd) : 5;
}
