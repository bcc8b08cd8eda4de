/* SPDX-License-Identifier: MIT */
/*
 * zfile.c: a store of a program's own, for files that are compressed (zstd) and
 * checksummed (xxHash), to be mapped as if they were neither. It makes an ordinary file,
 * that which its argument names, and a compressed one beside it, NAME.z; maps that and
 * compares; then flips bits in it: what they hit is an error, -EIO of a call and SIGBUS of
 * a load, and never wrong data.
 *
 * A compressed file: the blocks, each a frame of zstd; a list of struct block; a struct
 * tail. The sum of a block is that of its plain bytes, with its number as the seed.
 *
 * Page faults wait for the thread that calls read(), so it only queues the
 * work; a thread of the store's reads, unpacks, checks, and calls mkw_io_done().
 *
 * Libraries: libzstd libxxhash
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
#include <xxhash.h>
#include <zstd.h>
#include <mkwrite/store.h>

#define BLOCK ((size_t)64 << 10)
#define MAGIC UINT64_C(0x317a6574697277) /* never on disk by chance */

struct block { uint64_t off, size, sum; };
struct tail { uint64_t len, list, sum, magic; };

/* ---- the store --------------------------------------------------------- */

struct zfile {
	int fd;
	struct tail tail;
	struct block *list;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t some;
	struct mkw_io *first, *last;	/* the queue; own[0]: the next one */
	bool stop;
	uint64_t have;			/* the block that is in plain */
	unsigned char plain[64 << 10], packed[ZSTD_COMPRESSBOUND(64 << 10)];
};

/* Bytes of the block once it is in z->plain, or a negative errno. */
static ssize_t unpack(struct zfile *z, uint64_t n)
{
	uint64_t left = z->tail.len - n * BLOCK, len = left < BLOCK ? left : BLOCK;
	const struct block *b = &z->list[n];

	if (z->have == n)
		return (ssize_t)len;
	z->have = UINT64_MAX;
	if (b->size > sizeof(z->packed) ||
	    pread(z->fd, z->packed, b->size, (off_t)b->off) != (ssize_t)b->size ||
	    ZSTD_decompress(z->plain, BLOCK, z->packed, b->size) != len ||
	    XXH64(z->plain, len, n) != b->sum)
		return -EIO;
	z->have = n;
	return (ssize_t)len;
}

/* As far as the block goes: the engine asks again for the rest. */
static ssize_t serve(struct zfile *z, struct mkw_io *io)
{
	size_t at = io->off % BLOCK, n;
	ssize_t len = io->off < z->tail.len ? unpack(z, io->off / BLOCK) : 0;

	if (len <= 0)
		return len;
	if ((size_t)len <= at)
		return 0;
	n = (size_t)len - at < io->len ? (size_t)len - at : io->len;
	memcpy(io->buf, z->plain + at, n);
	return (ssize_t)n;
}

static void *worker(void *arg)
{
	struct zfile *z = arg;
	struct mkw_io *io;

	pthread_mutex_lock(&z->mutex);
	while (!z->stop) {
		io = z->first;
		if (!io) {
			pthread_cond_wait(&z->some, &z->mutex);
			continue;
		}
		z->first = (struct mkw_io *)(uintptr_t)io->own[0];
		pthread_mutex_unlock(&z->mutex);
		mkw_io_done(io, serve(z, io));	/* from here on it is gone */
		pthread_mutex_lock(&z->mutex);
	}
	pthread_mutex_unlock(&z->mutex);
	return NULL;
}

static void zfile_read(void *arg, struct mkw_io *io)
{
	struct zfile *z = arg;

	io->own[0] = 0;
	pthread_mutex_lock(&z->mutex);
	if (z->first)
		z->last->own[0] = (uintptr_t)io;
	else
		z->first = io;
	z->last = io;
	pthread_cond_signal(&z->some);
	pthread_mutex_unlock(&z->mutex);
}

/* Once, when nothing is under way any more. */
static void zfile_close(void *arg)
{
	struct zfile *z = arg;

	pthread_mutex_lock(&z->mutex);
	z->stop = true;
	pthread_cond_signal(&z->some);
	pthread_mutex_unlock(&z->mutex);
	pthread_join(z->thread, NULL);
	close(z->fd);
	free(z->list);
	free(z);
}

static const struct mkw_store_ops zfile_ops = {
	MKW_STORE_OPS_INIT,
	.read = zfile_read,
	.close = zfile_close,
};

/* The list of blocks, if it is what was written. */
static int read_list(struct zfile *z)
{
	off_t end = lseek(z->fd, 0, SEEK_END) - (off_t)sizeof(z->tail);
	uint64_t size;

	if (end < 0 || pread(z->fd, &z->tail, sizeof(z->tail), end) !=
			       (ssize_t)sizeof(z->tail) ||
	    z->tail.magic != MAGIC || z->tail.list > (uint64_t)end)
		return -EIO;
	size = (uint64_t)end - z->tail.list;
	if (size % sizeof(struct block) ||
	    (z->tail.len + BLOCK - 1) / BLOCK != size / sizeof(struct block))
		return -EIO;
	z->list = malloc(size + 1);
	if (!z->list)
		return -ENOMEM;
	return pread(z->fd, z->list, size, (off_t)z->tail.list) == (ssize_t)size &&
	       XXH64(z->list, size, z->tail.len) == z->tail.sum ? 0 : -EIO;
}

static int zfile_open(struct mkw_engine *engine, const char *path,
		      struct mkw_file **file)
{
	struct mkw_store_info info = MKW_STORE_INFO_INIT;
	struct zfile *z = calloc(1, sizeof(*z));
	int r;

	if (!z)
		return -ENOMEM;
	z->have = UINT64_MAX;
	z->fd = open(path, O_RDONLY | O_CLOEXEC);
	r = z->fd < 0 ? -errno : read_list(z);
	pthread_mutex_init(&z->mutex, NULL);
	pthread_cond_init(&z->some, NULL);
	if (!r)
		r = -pthread_create(&z->thread, NULL, worker, z);
	if (r) {
		if (z->fd >= 0)
			close(z->fd);
		free(z->list);
		free(z);
		return r;
	}
	info.len = z->tail.len;
	/* From here on the engine closes it, even when this fails. */
	return mkw_file_open_store(engine, &zfile_ops, &info, z, O_RDONLY, file);
}

/* ---- making one -------------------------------------------------------- */

/* The compressed file `to` of the ordinary file `from`; its length, or -1. */
static off_t compress(const char *from, const char *to)
{
	static unsigned char plain[64 << 10], packed[ZSTD_COMPRESSBOUND(64 << 10)];
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	struct tail tail = { .magic = MAGIC };
	struct block *list = NULL;
	uint64_t n = 0;
	size_t len;
	bool well = in && out;

	while (well && (len = fread(plain, 1, BLOCK, in))) {
		list = realloc(list, (n + 1) * sizeof(*list));
		if (!list)
			return -1;
		list[n] = (struct block){ tail.list,
			ZSTD_compress(packed, sizeof(packed), plain, len, 3),
			XXH64(plain, len, n) };
		well = !ZSTD_isError(list[n].size) &&
		       fwrite(packed, 1, list[n].size, out) == list[n].size;
		tail.len += len;
		tail.list += list[n++].size;
	}
	tail.sum = XXH64(list, n * sizeof(*list), tail.len);
	well = well && !ferror(in) && fwrite(list, sizeof(*list), n, out) == n &&
	       fwrite(&tail, sizeof(tail), 1, out) == 1;
	if (in)
		fclose(in);
	if (out && fclose(out))
		well = false;
	free(list);
	return well ? (off_t)(tail.list + n * sizeof(*list) + sizeof(tail)) : -1;
}

/* ---- a look at it ------------------------------------------------------ */

#define LEN ((4 << 20) + 1234)
#define FLIPS 100

static unsigned char plain[LEN];
static sigjmp_buf caught;

/* In the thread whose load cannot be served. */
static int on_error(const struct mkw_fault_error *error, void *arg)
{
	(void)arg;
	siglongjmp(caught, -error->error);
}

enum seen { SAME, REFUSED, WRONG };

static enum seen load_all(const void *map)
{
	int error = sigsetjmp(caught, 1);

	if (error)
		return error == EIO ? REFUSED : WRONG;
	return memcmp(map, plain, LEN) ? WRONG : SAME;
}

/* Reads all of the file by calls, or by loads. */
static enum seen look(struct mkw_engine *engine, const char *path, bool loads)
{
	static unsigned char buf[LEN];
	struct mkw_file *file;
	enum seen seen = SAME;
	size_t done = 0;
	ssize_t n;
	void *map;
	int r = zfile_open(engine, path, &file);

	if (r)
		return r == -EIO ? REFUSED : WRONG;
	if (loads) {
		if (mkw_file_on_fault_error(file, on_error, NULL) ||
		    mkw_map(file, NULL, LEN, PROT_READ, 0, 0, &map))
			return WRONG;
		seen = load_all(map);
		if (mkw_unmap(map, LEN))
			seen = WRONG;
	} else {
		/* What is before the bad block is read first, in pieces. */
		for (n = 1; n > 0 && done < LEN; done += n > 0 ? (size_t)n : 0)
			n = mkw_pread(file, buf + done, LEN - done, (off_t)done, 0);
		if (done < LEN)
			seen = n == -EIO ? REFUSED : WRONG;
		if (memcmp(buf, plain, done))
			seen = WRONG;
	}
	return mkw_file_close(file) ? WRONG : seen;
}

static bool flip(const char *path, off_t at, unsigned bit)
{
	int fd = open(path, O_RDWR);
	unsigned char c = 0;
	bool well = fd >= 0 && pread(fd, &c, 1, at) == 1;

	c ^= (unsigned char)(1u << bit);
	well = well && pwrite(fd, &c, 1, at) == 1;
	if (fd >= 0)
		close(fd);
	return well;
}

int main(int argc, char **argv)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	unsigned refused = 0, seed = 1;
	struct mkw_engine *engine;
	char path[4096];
	FILE *out;
	off_t len;

	/* A cache of a quarter of it. */
	opt.cache_bytes = MKW_CACHE_BYTES_MIN;
	if (argc != 2 || mkw_engine_open(&opt, &engine))
		return 1;
	for (size_t i = 0; i < LEN; i++)
		plain[i] = (unsigned char)(rand_r(&seed) % 16 ? "page fault "[i % 11] :
								rand_r(&seed));
	out = fopen(argv[1], "w");
	if (!out || fwrite(plain, 1, LEN, out) != LEN || fclose(out))
		return 1;
	snprintf(path, sizeof(path), "%s.z", argv[1]);
	len = compress(argv[1], path);
	if (len <= 0 || len > LEN / 2)
		return 1;
	if (look(engine, path, false) != SAME || look(engine, path, true) != SAME)
		return 2;
	for (unsigned i = 0; i < FLIPS; i++) {
		/* Every eighth in the list and the tail. */
		off_t at = i % 8 ? rand_r(&seed) % len : len - 1 - rand_r(&seed) % 1500;
		unsigned bit = (unsigned)rand_r(&seed) % 8;
		enum seen seen;

		if (!flip(path, at, bit))
			return 1;
		seen = look(engine, path, i & 1);
		if (seen == WRONG)
			return 3;
		refused += seen == REFUSED;
		if (!flip(path, at, bit))
			return 1;
	}
	if (refused < FLIPS * 9 / 10 || look(engine, path, true) != SAME ||
	    mkw_engine_close(engine))
		return 4;
	unlink(path);
	puts("4 MiB mapped out of less than half; no flipped bit went unnoticed");
	return 0;
}
