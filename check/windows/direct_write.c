/* SPDX-License-Identifier: MIT */
/*
 * direct_write.c: a direct write held while its source is pinned.
 *
 * By then the file system has thrown the range out of its page cache, and has not
 * written anything yet. Who touches the range through a mapping brings the old
 * data back; a store makes it dirty, so that it cannot be thrown out again when
 * the write is through, and is written over it later. With large folios the
 * touch brings the neighbours, too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check/windows/families.h"

#define FOLIO ((size_t)2 << 20)	/* the largest that may be */
#define LONG_WRITE ((size_t)64 << 10)

struct plan {
	off_t off;		/* of the direct write */
	size_t len;
	off_t touched;		/* the word that is stored or loaded */
};

static void make_plan(struct stage *s, struct plan *p)
{
	switch (s->window->arg) {
	case DIRECT_WRITE_SECTOR:
		mkw__win_need_direct(s, 512);
		*p = (struct plan){ (off_t)FOLIO, 512, (off_t)FOLIO + 2048 };
		break;
	case DIRECT_WRITE_NEXT:
		mkw__win_need_direct(s, s->page);
		*p = (struct plan){ (off_t)FOLIO, LONG_WRITE,
				    (off_t)(FOLIO + LONG_WRITE) };
		break;
	default:
		mkw__win_need_direct(s, s->page);
		*p = (struct plan){ (off_t)FOLIO, LONG_WRITE,
				    (off_t)(FOLIO + 5 * s->page) };
	}
}

/* Asks for large folios, where the kernel has them for files. */
static void want_large_folios(struct stage *s)
{
	char *from = (char *)s->t.map + FOLIO;

	if (s->t.ops->fd && madvise(from, FOLIO, MADV_HUGEPAGE))
		mkw__win_end(s, WIN_SKIPPED,
			     "no large folios to be had: madvise(MADV_HUGEPAGE): "
			     "%s", strerror(errno));
}

/* What the views say of the write and of the store. */
static void conclude(struct stage *s, const struct plan *p,
		     const struct act *held, const struct act *touch)
{
	size_t base = FOLIO, len = FOLIO / 4, total = p->len / 8;
	size_t from = (size_t)p->off - base, to = from + p->len;
	size_t at = (size_t)p->touched - base;
	size_t old[VIEWS], stored[VIEWS];
	struct view v[VIEWS];
	char text[300];
	bool inside = at >= from && at < to;

	mkw__win_views(s, (off_t)base, len, v);
	for (unsigned i = 0; i < VIEWS; i++) {
		old[i] = mkw__view_count(&v[i], from, to, TAG_OLD);
		stored[i] = mkw__view_count(&v[i], at, at + 8, TAG_STORE);
	}
	snprintf(text, sizeof(text),
		 "the direct write of %zu bytes at %jd returned %zd; then %zu of "
		 "its %zu words are old in the mapping, %zu by read, %zu on disk",
		 p->len, (intmax_t)p->off, held->result, old[VIEW_MAP], total,
		 old[VIEW_READ], old[VIEW_DISK]);
	if (old[VIEW_DISK])
		mkw__win_end(s, WIN_LOST_DIRECT_WRITE, "%s", text);
	if (old[VIEW_MAP] || old[VIEW_READ])
		mkw__win_end(s, WIN_STALE_READ, "%s", text);
	if (touch->kind == ACT_STORE && !inside)
		for (unsigned i = 0; i < VIEWS; i++)
			if (!stored[i])
				mkw__win_end(s, WIN_LOST_STORE,
					     "a store at %jd, outside of the "
					     "direct write, is not there by %s",
					     (intmax_t)p->touched, v[i].way);
	if (touch->blocked)
		mkw__win_end(s, WIN_EXCLUDED, "the %s waited for the direct "
			     "write%s%s; %s",
			     touch->kind == ACT_LOAD ? "load" : "store",
			     touch->where[0] ? " in " : "", touch->where, text);
	mkw__win_end(s, WIN_COHERENT, "%s", text);
}

void mkw__win_direct_write(struct stage *s)
{
	struct act held = { .kind = ACT_WRITE, .way = WAY_DIRECT };
	struct act touch = { .kind = ACT_STORE };
	struct act flush = { .kind = ACT_MSYNC, .len = FOLIO };
	bool msync = s->window->arg == DIRECT_WRITE_MSYNC;
	struct lever lv;
	struct plan p;
	size_t buf_len;
	void *content;

	make_plan(s, &p);
	mkw__win_setup(s, 2 * FOLIO);
	if (s->window->arg == DIRECT_WRITE_NEXT)
		want_large_folios(s);
	mkw__win_warm(s, p.off, LONG_WRITE);
	buf_len = p.len > s->page ? p.len : s->page;
	content = calloc(1, buf_len);
	if (!content)
		mkw__win_end(s, WIN_SKIPPED, "no memory");
	mkw__win_fill(content, TAG_NEW, p.off, p.len);
	mkw__win_need(s, "a held buffer",
		      mkw__lever_open(&lv, content, buf_len, 0));
	held.off = p.off;
	held.len = p.len;
	mkw__act_hold(s, &held, &lv);

	if (s->window->arg == DIRECT_WRITE_LOAD)
		touch.kind = ACT_LOAD;
	touch.off = p.touched;
	touch.value = win_word(TAG_STORE, (size_t)p.touched / 8);
	mkw__act_start(s, &touch);
	mkw__act_settle(&touch);
	if (msync) {
		flush.off = (off_t)FOLIO;
		mkw__act_start(s, &flush);
		mkw__act_settle(&flush);
	}
	mkw__lever_release(&lv);
	mkw__act_join(&held);
	mkw__act_join(&touch);
	if (msync)
		mkw__act_join(&flush);

	if (touch.result < 0 || (msync && flush.result < 0))
		mkw__win_end(s, WIN_ERROR, "%s",
			     touch.result < 0 ? "the access got SIGBUS" :
			     "msync failed");
	if (held.result != (ssize_t)p.len)
		mkw__win_end(s, WIN_ERROR, "the direct write returned %zd%s%s",
			     held.result, held.result < 0 ? ": " : "",
			     held.result < 0 ? strerror((int)-held.result) : "");
	conclude(s, &p, &held, &touch);
}
