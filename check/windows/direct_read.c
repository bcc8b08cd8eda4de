/* SPDX-License-Identifier: MIT */
/*
 * direct_read.c: a direct read held while its destination is pinned.
 *
 * By then the file system has written back what was dirty in the range, and read
 * nothing yet. A store, a punch or a truncation now is concurrent with the read,
 * which may show either state of each word; what it may not do is to fail, and
 * what was stored must stay.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check/windows/families.h"

#define OFF ((size_t)1 << 20)
#define LEN ((size_t)128 << 10)

static void other_act(struct stage *s, struct act *a)
{
	switch (s->window->arg) {
	case DIRECT_READ_STORE:
		a->kind = ACT_STORE;
		a->off = (off_t)(OFF + 3 * s->page);
		break;
	case DIRECT_READ_STORE_HOLE:
		a->kind = ACT_STORE;
		a->off = (off_t)(OFF + LEN / 2 + 3 * s->page);
		break;
	case DIRECT_READ_PUNCH:
		a->kind = ACT_FALLOCATE;
		a->mode = FALLOC_PUNCH;
		a->off = (off_t)OFF;
		a->len = LEN;
		break;
	default:
		a->kind = ACT_TRUNCATE;
		a->off = (off_t)(OFF + s->page);
	}
	a->value = win_word(TAG_STORE, (size_t)a->off / 8);
}

/* Every word of the read must be one of what it may be. */
static void judge_read(struct stage *s, const struct act *held,
		       const struct act *other)
{
	const uint64_t *got = held->buf;
	size_t n = held->result > 0 ? (size_t)held->result / 8 : 0;
	bool shrinks = other->kind == ACT_TRUNCATE;

	if (held->result < 0 || (held->result < (ssize_t)LEN && !shrinks))
		mkw__win_end(s, WIN_ERROR,
			     "the direct read of %zu bytes at %zu returned %zd%s%s",
			     LEN, OFF, held->result,
			     held->result < 0 ? ": " : "",
			     held->result < 0 ? strerror((int)-held->result) :
						"");
	for (size_t i = 0; i < n; i++) {
		size_t index = OFF / 8 + i;
		bool zero_ok = other->kind != ACT_STORE ||
			       (s->window->arg == DIRECT_READ_STORE_HOLE &&
				i >= LEN / 2 / 8);
		bool old_ok = s->window->arg != DIRECT_READ_STORE_HOLE ||
			      i < LEN / 2 / 8;

		if ((old_ok && got[i] == win_word(TAG_OLD, index)) ||
		    (zero_ok && !got[i]) ||
		    (index == (size_t)other->off / 8 && got[i] == other->value))
			continue;
		mkw__win_end(s, WIN_STALE_READ, "the direct read has %#jx at "
			     "byte %zu", (uintmax_t)got[i], index * 8);
	}
}

static void judge_after(struct stage *s, const struct act *other)
{
	size_t len = other->kind == ACT_TRUNCATE ? s->page : LEN;
	size_t at = (size_t)other->off - OFF;
	struct view v[VIEWS];

	mkw__win_views(s, (off_t)OFF, len, v);
	for (unsigned i = 0; i < VIEWS; i++) {
		if (other->kind == ACT_STORE && v[i].words[at / 8] != other->value)
			mkw__win_end(s, WIN_LOST_STORE,
				     "the store at %jd is not there by %s",
				     (intmax_t)other->off, v[i].way);
		if (other->kind == ACT_FALLOCATE &&
		    mkw__view_count(&v[i], 0, LEN, TAG_OLD))
			mkw__win_end(s, WIN_RESURRECTED,
				     "after the punch %zu old words are there "
				     "by %s", mkw__view_count(&v[i], 0, LEN,
							      TAG_OLD),
				     v[i].way);
	}
}

void mkw__win_direct_read(struct stage *s)
{
	struct act held = { .kind = ACT_READ, .way = WAY_DIRECT,
			    .off = (off_t)OFF, .len = LEN };
	struct act other = { .kind = ACT_STORE };
	void *content = calloc(1, LEN);
	struct lever lv;

	mkw__win_need_direct(s, s->page);
	if (!content)
		mkw__win_end(s, WIN_SKIPPED, "no memory");
	mkw__win_setup(s, 2 * OFF);
	if (s->window->arg == DIRECT_READ_STORE_HOLE) {
		mkw__win_need(s, "punch",
			      s->t.ops->fallocate(&s->t, FALLOC_PUNCH,
						  (off_t)(OFF + LEN / 2),
						  (off_t)(LEN / 2)));
		mkw__win_need(s, "fdatasync", s->t.ops->sync(&s->t));
	}
	mkw__win_warm(s, (off_t)OFF, LEN);
	mkw__win_need(s, "a held buffer", mkw__lever_open(&lv, content, LEN, 0));
	mkw__act_hold(s, &held, &lv);
	other_act(s, &other);
	mkw__act_start(s, &other);
	mkw__act_settle(&other);
	mkw__lever_release(&lv);
	mkw__act_join(&held);
	mkw__act_join(&other);
	if (other.result < 0)
		mkw__win_end(s, other.kind == ACT_FALLOCATE &&
					other.result == -EOPNOTSUPP ?
				WIN_SKIPPED : WIN_ERROR,
			     "the other operation: %s",
			     strerror((int)-other.result));
	judge_read(s, &held, &other);
	judge_after(s, &other);
	mkw__win_end(s, other.blocked ? WIN_EXCLUDED : WIN_COHERENT,
		     "the direct read returned %zd%s%s", held.result,
		     other.blocked ? "; the other operation waited in " : "",
		     other.blocked ? other.where : "");
}
