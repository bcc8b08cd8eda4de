/* SPDX-License-Identifier: MIT */
/*
 * self.c: the buffer of a read or write is a mapping of the same file.
 *
 * Filling it takes page faults on the file that the operation has locked: the
 * deadlock of 2012's "insane" case. The result that everybody would expect is that
 * of going by way of private memory. Where the ranges overlap a file system that
 * copies piece by piece reads what it has just written.
 *
 * Each is done cold, with nothing cached, and warm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check/windows/families.h"

#define FROM ((size_t)256 << 10)
#define LEN ((size_t)64 << 10)
#define TOTAL ((size_t)1 << 20)

/* All of it, a short count being none of our business here; or an error. */
static ssize_t whole(struct stage *s, bool write, unsigned way, char *buf,
		     off_t off, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write ?
			s->t.ops->pwrite(&s->t, buf + done, len - done,
					 off + (off_t)done, way) :
			s->t.ops->pread(&s->t, buf + done, len - done,
					off + (off_t)done, way);

		if (n < 0)
			return n;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* What each word should be after bytes went from src to dst. */
static size_t count_wrong(const struct view *v, size_t src, size_t dst)
{
	size_t wrong = 0;

	for (size_t i = 0; i < v->n; i++) {
		size_t at = i * 8, is = at;

		if (at >= dst && at < dst + LEN)
			is = at - dst + src;
		wrong += v->words[i] != win_word(TAG_OLD, is / 8);
	}
	return wrong;
}

static void once(struct stage *s, bool warm)
{
	int arg = s->window->arg;
	bool write = arg & SELF_WRITE;
	unsigned way = arg & SELF_DIRECT ? WAY_DIRECT : 0;
	size_t src = FROM, dst = FROM;
	const char *state = warm ? "warm" : "cold";
	struct view v[VIEWS];
	size_t wrong = 0;
	ssize_t got;

	if (arg & SELF_PAGE)
		dst = src + s->page;
	if (arg & SELF_WORD)
		dst = src + LEN - 8;
	mkw__win_setup(s, TOTAL);
	if (warm)
		mkw__win_warm(s, 0, TOTAL);
	/* A write's offset, as a read's, is the aligned one of the two. */
	if (write && arg & SELF_WORD) {
		src = dst;
		dst = FROM;
	}
	got = whole(s, write, way, (char *)s->t.map + (write ? src : dst),
		    (off_t)(write ? dst : src), LEN);
	if (got == -EINVAL && way && arg & SELF_WORD)
		mkw__win_end(s, WIN_SKIPPED,
			     "direct I/O here wants more aligned memory");
	if (got != (ssize_t)LEN)
		mkw__win_end(s, WIN_ERROR, "%s: the call returned %zd%s%s", state,
			     got, got < 0 ? ": " : "",
			     got < 0 ? strerror((int)-got) : "");
	mkw__win_views(s, 0, TOTAL, v);
	for (unsigned i = 0; i < VIEWS; i++) {
		wrong = count_wrong(&v[i], src, dst);
		if (wrong)
			mkw__win_end(s, WIN_TORN, "%s: %zu bytes from %zu to "
				     "%zu, and %zu words are not as a copy by "
				     "way of private memory leaves them (%s)",
				     state, LEN, src, dst, wrong, v[i].way);
		free(v[i].words);
	}
}

void mkw__win_self(struct stage *s)
{
	if (s->window->arg & SELF_DIRECT)
		mkw__win_need_direct(s, s->page);
	once(s, false);
	once(s, true);
	mkw__win_end(s, WIN_COHERENT, "cold and warm as by way of private memory");
}

/* ---- crosswise -------------------------------------------------------------- */

/*
 * Two threads, each with the other's range as its buffer. Either order, or both
 * from the same state, explain what is left; what is looked for is a deadlock.
 */
void mkw__win_cross(struct stage *s)
{
	int arg = s->window->arg;
	unsigned way = arg & SELF_DIRECT ? WAY_DIRECT : 0;
	size_t one = FROM, other = FROM + 4 * LEN;
	struct act a = { .kind = arg & SELF_WRITE ? ACT_WRITE : ACT_READ,
			 .way = way, .len = LEN }, b;
	struct view v[VIEWS];

	if (way)
		mkw__win_need_direct(s, s->page);
	for (unsigned round = 0; round < 20; round++) {
		mkw__win_setup(s, 2 * TOTAL);
		if (round % 2)
			mkw__win_warm(s, 0, 2 * TOTAL);
		b = a;
		a.off = (off_t)one;
		a.buf = (char *)s->t.map + other;
		b.off = (off_t)other;
		b.buf = (char *)s->t.map + one;
		mkw__act_start(s, &a);
		mkw__act_start(s, &b);
		mkw__act_join(&a);
		mkw__act_join(&b);
		if (a.result < 0 || b.result < 0)
			mkw__win_end(s, WIN_ERROR, "the calls returned %zd, %zd",
				     a.result, b.result);
		mkw__win_views(s, 0, 2 * TOTAL, v);
		for (unsigned i = 0; i < VIEWS; i++) {
			for (size_t k = 0; k < v[i].n; k++) {
				uint64_t w = v[i].words[k];
				bool in_one = k * 8 >= one && k * 8 < one + LEN;
				bool in_other = k * 8 >= other &&
						k * 8 < other + LEN;

				if (w == win_word(TAG_OLD, k) ||
				    (in_one && w == win_word(TAG_OLD, k +
						(other - one) / 8)) ||
				    (in_other && w == win_word(TAG_OLD, k -
						(other - one) / 8)))
					continue;
				mkw__win_end(s, WIN_TORN, "byte %zu is %#jx",
					     k * 8, (uintmax_t)w);
			}
			free(v[i].words);
		}
		a = (struct act){ .kind = a.kind, .way = way, .len = LEN };
	}
	mkw__win_end(s, WIN_COHERENT, "20 times, no deadlock");
}
