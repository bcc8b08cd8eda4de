/* SPDX-License-Identifier: MIT */
/*
 * frames.c: the frames of a file: a memfd, and the engine's own mapping of it.
 *
 * The alias is made of segments, mapped before the first frame in them can be
 * made (by a publication, or through an application's mapping) and never
 * moved or removed before the end, so that an address in one stays good while
 * the file grows. Segment 0 is the first SEGMENT_MIN bytes of the file and
 * every other as long as all before it together:
 *
 *	| 0 | 1 |   2   |       3       |               4               | ...
 *
 * A small file takes little of the address space, a sparse one of many TiB a
 * handful of mappings, and the segment of an offset is a logarithm. A slot of
 * the table goes from NULL to its address once, under fr->mutex and with a
 * release store; readers load it with acquire and need no lock.
 *
 * The alias is registered for MISSING faults. Touching a frame that exists is
 * an ordinary fault of the kernel, which maps it (and its neighbours) without a
 * message. Touching one that does not, or that is past the length, is a bug of
 * the engine, and arrives as a fault message, or a SIGBUS. Whoever receives
 * one asks mkw__frames_check_stray(): a bit map over the address space of the
 * process tells in one load whether an address is an alias's.
 *
 * Huge pages. One in the memfd would make neighbours look present. Those are
 * made by write(2), fallocate(2) and by faults of mappings without
 * MADV_NOHUGEPAGE, none of which is used: frames are made by UFFDIO_COPY only,
 * one page each.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <unistd.h>

#include "os/linux/compat_uapi.h"
#include "os/linux/linux.h"

/* What processes have at most, unless they ask for more by a hint. */
#define ADDRESS_BITS	48
#define SEGMENT_SHIFT	26
#define SEGMENT_MIN	((uint64_t)1 << SEGMENT_SHIFT)
#define SEGMENTS	(ADDRESS_BITS - SEGMENT_SHIFT + 1)

struct mkw__os_frames {
	int fd;
	struct mkw__os_mmu *mmu;
	struct mkw__os_mutex mutex;	/* makes segments */
	_Atomic(char *) segment[SEGMENTS];
	LIST_ENTRY(mkw__os_frames) link;
};

/* ---- whose address is it? --------------------------------------------- */

/*
 * One bit for each SEGMENT_MIN of addresses. Set before the segment can be
 * touched and cleared before it goes, so relaxed order is enough: who faults
 * there has the segment's address from after the one, and before the other.
 */
static _Atomic uint64_t
	alias_bits[(1u << (ADDRESS_BITS - SEGMENT_SHIFT)) / 64];

/* All frames, for the message alone. */
static LIST_HEAD(, mkw__os_frames) all_frames =
	LIST_HEAD_INITIALIZER(all_frames);
static struct mkw__os_mutex all_mutex;

void mkw__frames_forget_fork(void)
{
	/* Sixty-four of a file's bits or so are set, of millions. */
	for (size_t i = 0; i < sizeof(alias_bits) / sizeof(alias_bits[0]); i++)
		if (atomic_load_explicit(&alias_bits[i], memory_order_relaxed))
			atomic_store_explicit(&alias_bits[i], 0,
					      memory_order_relaxed);
	LIST_INIT(&all_frames);
	all_mutex = (struct mkw__os_mutex){ 0 };
}

static void mark_alias(const char *start, uint64_t len, bool on)
{
	uint64_t first = (uintptr_t)start >> SEGMENT_SHIFT;

	for (uint64_t i = first; i < first + (len >> SEGMENT_SHIFT); i++) {
		uint64_t bit = 1ull << (i % 64);

		if (on)
			atomic_fetch_or_explicit(&alias_bits[i / 64], bit,
						 memory_order_relaxed);
		else
			atomic_fetch_and_explicit(&alias_bits[i / 64], ~bit,
						  memory_order_relaxed);
	}
}

static uint64_t segment_start(unsigned index)
{
	return index ? SEGMENT_MIN << (index - 1) : 0;
}

static uint64_t segment_len(unsigned index)
{
	return index ? SEGMENT_MIN << (index - 1) : SEGMENT_MIN;
}

/* The offset in its file of an alias address. */
static uint64_t alias_offset(uintptr_t addr)
{
	struct mkw__os_frames *fr;
	uint64_t off = 0;

	mkw__os_mutex_lock(&all_mutex);
	LIST_FOREACH(fr, &all_frames, link) {
		for (unsigned i = 0; i < SEGMENTS; i++) {
			uintptr_t p = (uintptr_t)atomic_load(&fr->segment[i]);

			if (p && addr >= p && addr - p < segment_len(i))
				off = segment_start(i) + (addr - p);
		}
	}
	mkw__os_mutex_unlock(&all_mutex);
	return off;
}

void mkw__frames_check_stray(uintptr_t addr, bool write)
{
	uint64_t i = (uint64_t)addr >> SEGMENT_SHIFT;

	if (i / 64 >= sizeof(alias_bits) / sizeof(alias_bits[0]) ||
	    !(atomic_load_explicit(&alias_bits[i / 64], memory_order_relaxed) &
	      1ull << (i % 64)))
		return;
	mkw__os_panic("the engine %s a frame that is not there, at offset "
		      "0x%llx of a file: going on would make up its bytes",
		      write ? "wrote" : "read",
		      (unsigned long long)alias_offset(addr));
}

/* ---- segments --------------------------------------------------------- */

static unsigned segment_index(uint64_t off)
{
	uint64_t units = off >> SEGMENT_SHIFT;

	return units ? 64 - (unsigned)__builtin_clzll(units) : 0;
}

/* Maps a segment at a multiple of SEGMENT_MIN. */
static int map_segment(struct mkw__os_frames *fr, unsigned index, char **out)
{
	uint64_t len = segment_len(index), room = len + SEGMENT_MIN;
	uintptr_t addr, start;
	char *hole;
	int err;

	hole = mmap(NULL, room, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hole == MAP_FAILED)
		return -ENOMEM;
	start = ((uintptr_t)hole + SEGMENT_MIN - 1) & ~(SEGMENT_MIN - 1);
	if (start > (uintptr_t)hole)
		munmap(hole, start - (uintptr_t)hole);
	if (start + len < (uintptr_t)hole + room)
		munmap((char *)start + len,
		       (uintptr_t)hole + room - (start + len));

	err = mkw__mmu_map(fr->mmu, fr->fd, start, len, MAP_SHARED | MAP_FIXED,
			   segment_start(index), UFFDIO_REGISTER_MODE_MISSING,
			   &addr);
	if (err)
		goto out_unmap;
	mark_alias((char *)addr, len, true);
	err = mkw__os_map_enable(addr, len, true);
	if (err) {
		mark_alias((char *)addr, len, false);
		goto out_unmap;
	}
	*out = (char *)addr;
	return 0;
out_unmap:
	munmap((void *)start, len);
	return err;
}

static int make_segment(struct mkw__os_frames *fr, unsigned index, char **out)
{
	int err = 0;

	mkw__os_mutex_lock(&fr->mutex);
	*out = atomic_load_explicit(&fr->segment[index], memory_order_relaxed);
	if (!*out) {
		err = map_segment(fr, index, out);
		/* Pairs with the acquire in alias(). */
		if (!err)
			atomic_store_explicit(&fr->segment[index], *out,
					      memory_order_release);
	}
	mkw__os_mutex_unlock(&fr->mutex);
	return err;
}

/*
 * The address of off in the alias, and of *len bytes how many are in the same
 * segment. -EFBIG: no address space could hold it. -ENOMEM.
 */
static int alias(struct mkw__os_frames *fr, uint64_t off, char **addr,
		 size_t *len)
{
	unsigned index = segment_index(off);
	uint64_t rest;
	char *base;
	int err;

	if (index >= SEGMENTS)
		return -EFBIG;
	/* Pairs with the release in make_segment(). */
	base = atomic_load_explicit(&fr->segment[index], memory_order_acquire);
	if (!base) {
		err = make_segment(fr, index, &base);
		if (err)
			return err;
	}
	off -= segment_start(index);
	rest = segment_len(index) - off;
	if (*len > rest)
		*len = rest;
	*addr = base + off;
	return 0;
}

const char *mkw__frames_peek(struct mkw__os_frames *fr, uint64_t off, size_t len)
{
	unsigned index = segment_index(off);
	char *base;

	if (index >= SEGMENTS ||
	    off - segment_start(index) + len > segment_len(index))
		return NULL;
	/* Pairs with the release in make_segment(). */
	base = atomic_load_explicit(&fr->segment[index], memory_order_acquire);
	return base ? base + (off - segment_start(index)) : NULL;
}

int mkw__frames_reach(struct mkw__os_frames *fr, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	while (off < end) {
		size_t piece = end - off;
		char *addr;
		int err = alias(fr, off, &addr, &piece);

		if (err)
			return err == -EFBIG ? -ENOMEM : err;
		off += piece;
	}
	return 0;
}

/* ---- interface -------------------------------------------------------- */

int mkw__frames_fd(const struct mkw__os_frames *fr)
{
	return fr->fd;
}

int mkw__os_frames_create(struct mkw__os_mmu *mmu, struct mkw__os_frames **out)
{
	struct mkw__os_frames *fr;
	int err;

	fr = calloc(1, sizeof(*fr));
	if (!fr)
		return -ENOMEM;
	fr->mmu = mmu;
	fr->fd = memfd_create("mkwrite", MFD_CLOEXEC | MKW_MFD_NOEXEC_SEAL);
	if (fr->fd < 0 && errno == EINVAL)
		fr->fd = memfd_create("mkwrite", MFD_CLOEXEC);
	if (fr->fd < 0) {
		err = -errno;
		free(fr);
		return err;
	}
	mkw__os_mutex_lock(&all_mutex);
	LIST_INSERT_HEAD(&all_frames, fr, link);
	mkw__os_mutex_unlock(&all_mutex);
	*out = fr;
	return 0;
}

void mkw__os_frames_destroy(struct mkw__os_frames *fr)
{
	mkw__os_mutex_lock(&all_mutex);
	LIST_REMOVE(fr, link);
	mkw__os_mutex_unlock(&all_mutex);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		char *base = atomic_load_explicit(&fr->segment[i],
						  memory_order_relaxed);

		if (!base)
			continue;
		mark_alias(base, segment_len(i), false);
		munmap(base, segment_len(i));
	}
	/* A forked child may have the descriptor, too: it is to keep no frames. */
	if (ftruncate(fr->fd, 0)) {
		/* Then they last as long as the child. */
	}
	close(fr->fd);
	free(fr);
}

int mkw__os_frames_resize(struct mkw__os_frames *fr, uint64_t len)
{
	int err;

	do {
		err = ftruncate(fr->fd, (off_t)len) ? -errno : 0;
	} while (err == -EINTR);
	return err;
}

int mkw__os_frames_publish(struct mkw__os_frames *fr, uint64_t off,
			   const void *src, size_t len, size_t *done)
{
	*done = 0;
	while (*done < len) {
		size_t piece = len - *done, copied;
		char *dst;
		int err;

		err = alias(fr, off + *done, &dst, &piece);
		if (err)
			return err;
		/* Nobody sleeps on the alias. */
		err = mkw__os_pte_copy(fr->mmu, (uintptr_t)dst,
				       mkw__os_at(src, *done), piece,
				       MKW__PTE_DONTWAKE, &copied);
		*done += copied;
		/* After a part, the next call says why it stopped. */
		if (err && !(err == -EAGAIN && copied))
			return err;
	}
	return 0;
}

/* As alias(), for frames that exist, so that their segment does too. */
static char *frame(struct mkw__os_frames *fr, uint64_t off, size_t *len)
{
	char *addr;
	int err = alias(fr, off, &addr, len);

	if (err)
		mkw__os_panic("no address for the frame at offset 0x%llx: %s",
			      (unsigned long long)off, strerror(-err));
	return addr;
}

int mkw__os_frames_read(struct mkw__os_frames *fr, uint64_t off, void *dst,
			size_t len)
{
	int err = 0;

	while (len > 0 && !err) {
		size_t piece = len;
		const char *src = frame(fr, off, &piece);

		err = mkw__trap_copy_from(dst, src, piece);
		dst = mkw__os_at(dst, piece);
		off += piece;
		len -= piece;
	}
	return err;
}

/* To the file a page without a frame is one of zeros. */
static void check_there(struct mkw__os_frames *fr, uint64_t off, size_t len)
{
	size_t page = mkw__os_page_size(), n;
	unsigned char there[64];

	for (; len > 0; len -= n * page, off += n * page) {
		size_t piece = len < sizeof(there) * page ?
				       len : sizeof(there) * page;
		char *addr = frame(fr, off, &piece);

		n = piece / page;
		/* One that is in swap is said to be absent, too. */
		if (mincore(addr, piece, there))
			memset(there, 0, n);
		for (size_t i = 0; i < n; i++)
			if (!(there[i] & 1) && !mkw__os_frames_present(fr, off + i * page))
				mkw__frames_check_stray((uintptr_t)addr + i * page,
							false);
	}
}

void mkw__os_frames_save(struct mkw__os_frames *fr, uint64_t off, void *dst,
			 size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fr->fd, mkw__os_at(dst, done), len - done,
				  (off_t)(off + done));

		if (n > 0)
			done += (size_t)n;
		else if (!n || errno != EINTR)
			mkw__os_panic("cannot read the frame at offset 0x%llx: %s",
				      (unsigned long long)(off + done),
				      n ? strerror(errno) : "past the length");
	}
	check_there(fr, off, len);
}

int mkw__os_frames_write(struct mkw__os_frames *fr, uint64_t off,
			 const void *src, size_t len)
{
	int err = mkw__trap_probe(src, len);

	while (len > 0 && !err) {
		size_t piece = len;
		char *dst = frame(fr, off, &piece);

		err = mkw__trap_copy_to(dst, src, piece);
		src = mkw__os_at(src, piece);
		off += piece;
		len -= piece;
	}
	return err;
}

static void zero(char *p, size_t len)
{
	_Atomic uint64_t *word;

	for (; len > 0 && (uintptr_t)p % 8; len--)
		*(volatile char *)p++ = 0;
	for (word = (_Atomic uint64_t *)(void *)p; len >= 8; len -= 8)
		atomic_store_explicit(word++, 0, memory_order_relaxed);
	for (p = (char *)word; len > 0; len--)
		*(volatile char *)p++ = 0;
}

void mkw__os_frames_zero(struct mkw__os_frames *fr, uint64_t off, size_t len)
{
	while (len > 0) {
		size_t piece = len;
		char *p = frame(fr, off, &piece);

		zero(p, piece);
		off += piece;
		len -= piece;
	}
}

int mkw__os_frames_drop(struct mkw__os_frames *fr, uint64_t off, uint64_t len)
{
	int err;

	do {
		err = fallocate(fr->fd,
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)off, (off_t)len)
			      ? -errno
			      : 0;
	} while (err == -EINTR);
	return err;
}

void mkw__os_frames_unmap(struct mkw__os_frames *fr, uint64_t off, uint64_t len)
{
	while (len > 0) {
		size_t piece = len;
		char *addr = frame(fr, off, &piece);

		/* What stays mapped is unmapped with the frame. */
		mkw__os_pte_zap((uintptr_t)addr, piece);
		off += piece;
		len -= piece;
	}
}

bool mkw__os_frames_present(struct mkw__os_frames *fr, uint64_t off)
{
	/*
	 * Not mincore(): a frame in swap is there too. The descriptor's file
	 * position moves; nothing uses it.
	 */
	return lseek(fr->fd, (off_t)off, SEEK_DATA) == (off_t)off;
}
