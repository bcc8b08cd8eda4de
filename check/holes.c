/* SPDX-License-Identifier: MIT */
/*
 * holes.c: which pages of the file hold no blocks, for certain.
 *
 * A page is a hole if a punch or truncate that took all of it began after everything
 * was over that might have given it a block: stores, writes, zeroing and allocation,
 * whatever came of them, and punches of a part of it. What went on at the same time may have
 * come after it. Loads and reads give no blocks (mkw__holes_certain()).
 *
 * The other pages may have blocks, all of them, and the file system may keep some of
 * its own about them: extents, of which there are as many as pages at worst, in blocks
 * that are half full. Nothing else may be there.
 *
 * Collapse and insert move what is known, which is not followed: nothing is known then.
 * A copy may share blocks with another file, for which some keep more in reserve.
 */
#include "check/holes.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Extents in a block of them: the fewest. */
#define EXTENTS_PER_BLOCK 100u
#define SPARE_BLOCKS 2u

bool mkw__holes_certain(const char *dir, bool mapped)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = 64 * page;
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	void *map;
	char word = 1;
	struct stat st;
	bool certain = false;

	if (fd < 0)
		return false;
	if (ftruncate(fd, (off_t)len))
		goto out;
	if (mapped) {
		map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			goto out;
		(void)*(volatile char *)map;
		munmap(map, len);
	}
	certain = pwrite(fd, &word, 1, (off_t)(len / 2)) == 1 && !fsync(fd) &&
		  !fstat(fd, &st) && (size_t)st.st_blocks * 512 == page;
out:
	close(fd);
	return certain;
}

struct page {
	uint64_t filled;	/* the last end of what may have given it a block */
	uint64_t taken;		/* the last start of what took them */
	bool hole;
};

struct holes {
	uint32_t page_words, n;
	bool shared;
	struct page pages[];
};

struct holes *mkw__holes_new(const struct layout *layout)
{
	uint32_t n = layout->words / layout->page_words;
	struct holes *h = calloc(1, sizeof(*h) + n * sizeof(h->pages[0]));

	if (!h)
		return NULL;
	h->page_words = layout->page_words;
	h->n = n;
	for (uint32_t i = 0; i < n; i++)
		h->pages[i].hole = true;
	return h;
}

void mkw__holes_free(struct holes *h)
{
	free(h);
}

static void later(uint64_t *at, uint64_t t)
{
	if (*at < t)
		*at = t;
}

static void learn(struct holes *h, const struct rec *rec)
{
	enum op_kind kind = (enum op_kind)rec->kind;
	uint32_t words = kind == OP_ALLOCATE ? rec->moved : rec->words;
	uint32_t end = rec->word + words, page = h->page_words;
	bool takes = kind == OP_PUNCH || kind == OP_TRUNCATE;

	h->shared |= (kind_reads(kind) || kind_writes(kind)) &&
		     rec->way & WAY_COPY;
	if (!takes && !kind_writes(kind) && kind != OP_ZERO &&
	    kind != OP_ALLOCATE)
		return;
	for (uint32_t i = rec->word / page; i * page < end; i++) {
		bool whole = i * page >= rec->word && (i + 1) * page <= end;

		if (!takes || !whole)
			later(&h->pages[i].filled, rec->end);
		else if (rec->outcome == REC_DONE)
			later(&h->pages[i].taken, rec->start);
	}
}

void mkw__holes_learn(struct holes *h, const struct log *logs, unsigned n)
{
	bool shifted = false;

	for (uint32_t i = 0; i < h->n; i++)
		h->pages[i].filled = h->pages[i].taken = 0;
	for (unsigned k = 0; k < n; k++) {
		for (uint32_t i = 0; i < logs[k].n; i++) {
			learn(h, &logs[k].recs[i]);
			shifted |= logs[k].recs[i].kind == OP_SHIFT;
		}
	}
	for (uint32_t i = 0; i < h->n; i++) {
		struct page *p = &h->pages[i];

		if (shifted)
			p->hole = false;
		else if (p->filled || p->taken)
			p->hole = p->taken > p->filled || (p->hole && !p->filled);
	}
}

int64_t mkw__holes_most(const struct holes *h)
{
	uint32_t blocks = SPARE_BLOCKS + h->n / EXTENTS_PER_BLOCK;

	if (h->shared)
		return -1;
	for (uint32_t i = 0; i < h->n; i++)
		blocks += !h->pages[i].hole;
	return (int64_t)(blocks * (uint64_t)h->page_words * WORD);
}
