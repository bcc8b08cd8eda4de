/* SPDX-License-Identifier: MIT */
/*
 * freeze.c: a store through a mapping while the file system is frozen.
 *
 * A snapshot of the device is taken then, so nothing may change on it; a store has
 * to wait, or at least to stay in memory, until the thaw. On the slow device's file
 * system, since nobody else's is ours to freeze. The engine freezes the file.
 */
#include <stdlib.h>
#include <string.h>

#include "check/windows/families.h"

#define LEN ((size_t)1 << 20)

void mkw__win_freeze(struct stage *s)
{
	struct act store = { .kind = ACT_STORE, .off = (off_t)(LEN / 2),
			     .value = win_word(TAG_STORE, LEN / 2 / 8) };
	/* The page is dirty when the freeze comes: it is to be written, and protected. */
	struct act before = { .kind = ACT_STORE, .off = store.off + 8,
			      .value = win_word(TAG_STORE, LEN / 2 / 8 + 1) };
	struct act look = { .kind = ACT_READ, .way = WAY_DIRECT,
			    .off = store.off, .len = s->page };
	struct view v[VIEWS];
	uint64_t *buf;
	int r;

	if (!s->t.ops->freeze)
		mkw__win_end(s, WIN_SKIPPED, "this target has no freeze");
	mkw__win_need_direct(s, s->page);
	if (posix_memalign((void **)&buf, s->page, s->page))
		mkw__win_end(s, WIN_SKIPPED, "no memory");
	look.buf = buf;
	mkw__win_setup(s, LEN);
	mkw__win_warm(s, 0, LEN);
	mkw__act_do(s, &before);
	r = s->t.ops->freeze(&s->t, true);
	if (r)
		mkw__win_end(s, WIN_SKIPPED, "freeze: %s", strerror(-r));
	mkw__act_start(s, &store);
	mkw__act_settle(&store);
	/* Where a store was let in, the direct read writes it back: it must not. */
	if (store.blocked)
		mkw__act_do(s, &look);
	r = s->t.ops->freeze(&s->t, false);
	if (r)
		mkw__win_end(s, WIN_ERROR, "thaw: %s", strerror(-r));
	mkw__act_join(&store);
	if (store.blocked &&
	    (look.result != (ssize_t)s->page || win_tag(buf[0]) != TAG_OLD))
		mkw__win_end(s, WIN_STALE_READ, "a direct read of the frozen file "
			     "gives %zd, %#jx", look.result, (uintmax_t)buf[0]);
	mkw__win_views(s, 0, LEN, v);
	for (unsigned i = 0; i < VIEWS; i++)
		if (win_tag(v[i].words[LEN / 2 / 8]) != TAG_STORE)
			mkw__win_end(s, WIN_LOST_STORE, "a store made while frozen "
				     "is not there by %s after the thaw",
				     v[i].way);
	mkw__win_end(s, store.blocked ? WIN_EXCLUDED : WIN_COHERENT,
		     "the store %s%s", store.blocked ? "waited for the thaw in " :
						       "was let in",
		     store.where);
}
