/* SPDX-License-Identifier: MIT */
/*
 * sort.c: sorts a file that is larger than the memory it may use, as if it were an
 * array in memory.
 *
 * Usage: sort FILE [MiB]. FILE is made, of numbers in no order, sorted, and looked at.
 * The engine may use an eighth of its size.
 *
 * A merge sort. Runs, each of a size that stays cached while it is sorted, are
 * sorted in place by qsort(), through the mapping: what is stored goes to the file when
 * the cache needs room. Then all runs are merged in one pass into a second file, and
 * the engine is told of what has been merged, since nobody needs that again: so it
 * does not push out what is needed.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mkwrite/mkwrite.h>

#define MIB ((size_t)1 << 20)
#define RUNS 64

static void check(const char *what, int r)
{
	if (r < 0) {
		fprintf(stderr, "sort: %s: %s\n", what, strerror(-r));
		exit(1);
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* A file of len bytes, mapped. */
static uint64_t *make(struct mkw_engine *engine, const char *path, size_t len,
		      struct mkw_file **file)
{
	void *addr;

	check("mkw_file_open",
	      mkw_file_open(engine, path, O_RDWR | O_CREAT | O_TRUNC, 0644, file));
	check("mkw_truncate", mkw_truncate(*file, (off_t)len));
	/* Faults served where they happen are the cheaper ones; no system call is
	 * given this memory. */
	check("mkw_map", mkw_map(*file, NULL, len, PROT_READ | PROT_WRITE,
				 MKW_MAP_INLINE, 0, &addr));
	return addr;
}

/* Where each run is read, and where it ends; a heap, the smallest value on top. */
struct run {
	const uint64_t *next, *end;
};

static void sink(struct run *heap, size_t n, size_t i)
{
	for (;;) {
		size_t least = i, child = 2 * i + 1;
		struct run swapped;

		for (size_t c = child; c < child + 2 && c < n; c++)
			if (*heap[c].next < *heap[least].next)
				least = c;
		if (least == i)
			return;
		swapped = heap[i];
		heap[i] = heap[least];
		heap[least] = swapped;
		i = least;
	}
}

static void merge(struct mkw_file *from, const uint64_t *in, size_t words,
		  size_t run_words, uint64_t *out)
{
	size_t runs = (words + run_words - 1) / run_words, n = runs;
	struct run *heap = calloc(runs, sizeof(*heap));

	if (!heap)
		check("memory", -1);
	for (size_t i = 0; i < runs; i++) {
		size_t end = (i + 1) * run_words;

		heap[i].next = in + i * run_words;
		heap[i].end = in + (end < words ? end : words);
	}
	for (size_t i = n / 2; i-- > 0;)
		sink(heap, n, i);
	for (size_t w = 0; w < words; w++) {
		struct run *top = &heap[0];
		size_t at = (size_t)(top->next - in);

		out[w] = *top->next++;
		/* 64 KiB of this run are done with. */
		if ((at + 1) % (MIB / 128) == 0)
			check("mkw_advise",
			      mkw_advise(from, (off_t)((at + 1) * 8 - MIB / 16),
					 MIB / 16, MKW_ADVICE_DONTNEED));
		if (top->next == top->end)
			heap[0] = heap[--n];
		sink(heap, n, 0);
	}
	free(heap);
}

int main(int argc, char **argv)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	size_t mib = argc == 3 ? strtoul(argv[2], NULL, 10) : 8;
	size_t len = mib * MIB, words = len / sizeof(uint64_t);
	struct mkw_stats st = MKW_STATS_INIT;
	uint64_t state = 88172645463325252u, sum = 0, sum_after = 0, last = 0;
	uint64_t *in, *out;
	struct mkw_file *file, *sorted;
	struct mkw_engine *engine;
	char path[PATH_MAX];

	if (argc < 2 || argc > 3 || mib < 8) {
		fprintf(stderr, "usage: sort FILE [MiB, 8 at least]\n");
		return 2;
	}
	opt.cache_bytes = len / 8;
	check("mkw_engine_open", mkw_engine_open(&opt, &engine));
	in = make(engine, argv[1], len, &file);
	for (size_t i = 0; i < words; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		in[i] = state;
		sum += state;
	}

	/* A run is an eighth of the cache: the engine lets about a quarter be dirty. */
	for (size_t at = 0; at < words; at += words / RUNS)
		qsort(in + at, words / RUNS < words - at ? words / RUNS : words - at,
		      sizeof(*in), by_value);
	snprintf(path, sizeof(path), "%s.sorted", argv[1]);
	out = make(engine, path, len, &sorted);
	merge(file, in, words, words / RUNS, out);
	check("mkw_sync", mkw_sync(sorted));

	check("mkw_engine_stats", mkw_engine_stats(engine, &st));
	if (st.cached_bytes > st.cache_bytes || st.cache_bytes > len / 8) {
		fprintf(stderr, "sort: %llu bytes are cached, of %llu that may be\n",
			(unsigned long long)st.cached_bytes,
			(unsigned long long)len / 8);
		return 1;
	}
	/* As anybody else sees it. */
	for (size_t at = 0; at < words; at += MIB / 8) {
		static uint64_t buf[MIB / 8];

		check("mkw_pread", (int)mkw_pread(sorted, buf, sizeof(buf),
						  (off_t)(at * 8), 0));
		for (size_t i = 0; i < MIB / 8; i++) {
			if (buf[i] < last) {
				fprintf(stderr, "sort: word %zu is not in order\n",
					at + i);
				return 1;
			}
			last = buf[i];
			sum_after += last;
		}
	}
	if (sum != sum_after) {
		fprintf(stderr, "sort: what is sorted is not what there was\n");
		return 1;
	}
	check("mkw_unmap", mkw_unmap(in, len));
	check("mkw_unmap", mkw_unmap(out, len));
	check("mkw_file_close", mkw_file_close(file));
	check("mkw_file_close", mkw_file_close(sorted));
	check("mkw_engine_close", mkw_engine_close(engine));
	unlink(path);
	printf("%zu MiB sorted in a cache of %zu MiB\n", mib, mib / 8);
	return 0;
}
