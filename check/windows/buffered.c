/* SPDX-License-Identifier: MIT */
/*
 * buffered.c: a buffered write held half-way, and a buffered read.
 *
 * Who reads all of the range while half of it is written, or writes all of it while
 * half of it is read, sees which operations are atomic as a whole. POSIX asks it of
 * read against write; few file systems give it, none against mapped accesses.
 */
#include <stdlib.h>
#include <string.h>

#include "check/windows/families.h"

/* More than twice the largest folio, which may be copied in one piece. */
#define LEN ((size_t)6 << 20)
#define HOLD_AT ((size_t)5 << 20)

static void need_full(struct stage *s, const struct act *a, const char *what)
{
	if (a->result != (ssize_t)LEN)
		mkw__win_end(s, WIN_ERROR, "%s of %zu bytes returned %zd%s%s",
			     what, LEN, a->result, a->result < 0 ? ": " : "",
			     a->result < 0 ? strerror((int)-a->result) : "");
}

/* words: what the reader got. */
static void conclude(struct stage *s, const uint64_t *words,
		     const struct act *other)
{
	struct view seen = { .words = (uint64_t *)words, .n = LEN / 8 };
	size_t old = mkw__view_count(&seen, 0, LEN, TAG_OLD);
	size_t fresh = mkw__view_count(&seen, 0, LEN, TAG_NEW);
	struct view v[VIEWS];

	mkw__win_views(s, 0, LEN, v);
	for (unsigned i = 0; i < VIEWS; i++) {
		size_t gone = mkw__view_count(&v[i], 0, LEN, TAG_OLD);

		if (gone)
			mkw__win_end(s, WIN_LOST_WRITE,
				     "the write of %zu bytes is over, and %zu of "
				     "its words are old by %s", LEN, gone,
				     v[i].way);
	}
	if (old && fresh)
		mkw__win_end(s, WIN_TORN, "one operation got %zu old and %zu new "
			     "words of one write", old, fresh);
	mkw__win_end(s, other->blocked ? WIN_EXCLUDED : WIN_COHERENT,
		     "it got %s words only%s%s",
		     old ? "old" : "new", other->blocked ? ", and waited in " : "",
		     other->blocked ? other->where[0] ? other->where : "?" : "");
}

void mkw__win_buffered(struct stage *s)
{
	bool read_held = s->window->arg == BUFFERED_READ_HELD;
	struct act held = { .kind = read_held ? ACT_READ : ACT_WRITE,
			    .len = LEN };
	struct act other = { .kind = ACT_READ, .len = LEN };
	uint64_t *content = calloc(1, LEN), *buf = NULL;
	struct lever lv;

	if (!content || posix_memalign((void **)&buf, 64 * 1024, LEN))
		mkw__win_end(s, WIN_SKIPPED, "no memory");
	mkw__win_setup(s, LEN);
	mkw__win_warm(s, 0, LEN);
	if (read_held) {
		other.kind = ACT_WRITE;
		mkw__win_fill(buf, TAG_NEW, 0, LEN);
	} else {
		other.kind = s->window->arg == BUFFERED_WRITE_COPY ? ACT_COPY :
								     ACT_READ;
		mkw__win_fill(content, TAG_NEW, 0, LEN);
	}
	mkw__win_need(s, "a held buffer",
		      mkw__lever_open(&lv, content, LEN, HOLD_AT));
	mkw__act_hold(s, &held, &lv);
	other.buf = buf;
	mkw__act_start(s, &other);
	mkw__act_settle(&other);
	mkw__lever_release(&lv);
	mkw__act_join(&held);
	mkw__act_join(&other);
	need_full(s, &held, read_held ? "the held read" : "the held write");
	need_full(s, &other, read_held ? "the write" : "the read");
	conclude(s, read_held ? (uint64_t *)(void *)lv.buf : buf, &other);
}
