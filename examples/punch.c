/* SPDX-License-Identifier: MIT */
/*
 * punch.c: takes blocks out of a file while another thread reads them through a
 * mapping.
 *
 * Usage: punch FILE. Every word of the file holds 1 at first. A thread reads the
 * mapping over and over. Meanwhile the file is punched piece by piece, and each
 * piece is then read through the mapping, by mkw_pread() and by direct I/O, from
 * where all must see zeros; and the reader must never see anything but 1 or 0,
 * and no 1 after a 0 in the same place. At the end everything is made durable
 * and the file read once more, with the engine gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mkwrite/mkwrite.h>

#define FILE_BYTES ((size_t)8 << 20)
#define PIECE_BYTES ((size_t)64 << 10)
#define WORDS (FILE_BYTES / sizeof(uint64_t))

static volatile uint64_t *mapped;
static atomic_bool stop;

static void die(const char *what, int err)
{
	fprintf(stderr, "punch: %s: %s\n", what, strerror(err));
	exit(1);
}

static void check(const char *what, int err)
{
	if (err)
		die(what, -err);
}

/* Reads the whole mapping until told to stop; returns what was wrong, or NULL. */
static void *reader(void *seen_zero)
{
	unsigned char *gone = seen_zero;

	while (!atomic_load(&stop)) {
		for (size_t i = 0; i < WORDS; i++) {
			uint64_t word = mapped[i];

			if (word > 1)
				return "a word was neither 1 nor 0";
			if (word && gone[i])
				return "a punched word came back";
			gone[i] = !word;
		}
	}
	return NULL;
}

static void punch_and_look(struct mkw_file *file, size_t off, uint64_t *buf)
{
	const unsigned flags[] = { 0, MKW_DIRECT };

	check("mkw_fallocate",
	      mkw_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    (off_t)off, PIECE_BYTES));
	for (int i = 0; i < 2; i++) {
		ssize_t n = mkw_pread(file, buf, PIECE_BYTES, (off_t)off,
				      flags[i]);

		if (n != (ssize_t)PIECE_BYTES)
			die("mkw_pread", n < 0 ? (int)-n : EIO);
		for (size_t w = 0; w < PIECE_BYTES / 8; w++)
			if (buf[w])
				die("a read after the punch saw old data", EIO);
	}
	for (size_t w = off / 8; w < (off + PIECE_BYTES) / 8; w++)
		if (mapped[w])
			die("a load after the punch saw old data", EIO);
}

int main(int argc, char **argv)
{
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *gone = calloc(WORDS, 1);
	uint64_t *buf = aligned_alloc((size_t)sysconf(_SC_PAGESIZE),
				      PIECE_BYTES);
	pthread_t thread;
	void *addr, *wrong;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: punch FILE\n");
		return 2;
	}
	if (!gone || !buf)
		die("memory", ENOMEM);

	check("mkw_engine_open", mkw_engine_open(NULL, &engine));
	check("mkw_file_open", mkw_file_open(engine, argv[1],
					     O_RDWR | O_CREAT | O_TRUNC, 0644,
					     &file));
	check("mkw_truncate", mkw_truncate(file, FILE_BYTES));
	check("mkw_map", mkw_map(file, NULL, FILE_BYTES, PROT_READ | PROT_WRITE,
				 0, 0, &addr));
	mapped = addr;
	for (size_t w = 0; w < WORDS; w++)
		mapped[w] = 1;

	if (pthread_create(&thread, NULL, reader, gone))
		die("pthread_create", EAGAIN);
	/* Every other piece, so that ones and zeros lie side by side. */
	for (size_t off = 0; off < FILE_BYTES; off += 2 * PIECE_BYTES)
		punch_and_look(file, off, buf);
	atomic_store(&stop, true);
	pthread_join(thread, &wrong);
	if (wrong)
		die(wrong, EIO);

	check("mkw_sync", mkw_sync(file));
	check("mkw_unmap", mkw_unmap(addr, FILE_BYTES));
	check("mkw_file_close", mkw_file_close(file));
	check("mkw_engine_close", mkw_engine_close(engine));

	fd = open(argv[1], O_RDONLY);
	for (size_t off = 0; off < FILE_BYTES; off += PIECE_BYTES) {
		uint64_t expected = off / PIECE_BYTES % 2;

		if (fd < 0 || pread(fd, buf, PIECE_BYTES, (off_t)off) !=
			      (ssize_t)PIECE_BYTES)
			die(argv[1], errno);
		for (size_t w = 0; w < PIECE_BYTES / 8; w++)
			if (buf[w] != expected)
				die("the file is not what was synced", EIO);
	}
	close(fd);
	free(buf);
	free(gone);
	puts("punched under a reader; nothing came back");
	return 0;
}
