/* SPDX-License-Identifier: MIT */
/*
 * past_end.c: a word stored past the end of the file, in its last page, which is
 * mapped as a whole. When the file grows over it, it must be a zero: mmap(2) lets
 * nobody see or keep what is stored there, and a file that grows gets zeros.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/windows/families.h"

void mkw__win_past_end(struct stage *s)
{
	size_t body = (size_t)1 << 20, end = body + s->page / 2;
	size_t hidden = end + s->page / 4, grown = body + 2 * s->page;
	struct act store = { .kind = ACT_STORE, .off = (off_t)hidden };
	struct act grow = { .kind = ACT_TRUNCATE, .off = (off_t)grown };
	struct view v[VIEWS];
	char shown[200] = "";
	void *buf;

	if (posix_memalign(&buf, s->page, s->page))
		mkw__win_end(s, WIN_SKIPPED, "no memory");
	memset(buf, 0, s->page);
	switch (s->window->arg) {
	case PAST_END_DIRECT_WRITE:
		mkw__win_need_direct(s, s->page);
		/* fall through */
	case PAST_END_WRITE:
		grow = (struct act){ .kind = ACT_WRITE, .buf = buf,
				     .off = (off_t)(body + s->page),
				     .len = s->page };
		if (s->window->arg == PAST_END_DIRECT_WRITE)
			grow.way = WAY_DIRECT;
		break;
	case PAST_END_ALLOCATE:
		grow = (struct act){ .kind = ACT_FALLOCATE,
				     .off = (off_t)(body + s->page),
				     .len = s->page };
		break;
	}
	mkw__win_need(s, "truncate", s->t.ops->truncate(&s->t, (off_t)body));
	mkw__win_setup(s, body);
	mkw__win_need(s, "truncate", s->t.ops->truncate(&s->t, (off_t)end));
	mkw__win_need(s, "fdatasync", s->t.ops->sync(&s->t));
	store.value = win_word(TAG_STORE, hidden / 8);
	mkw__act_do(s, &store);
	if (store.result < 0)
		mkw__win_end(s, WIN_ERROR,
			     "a store in the last page of the file got SIGBUS");
	mkw__act_do(s, &grow);
	mkw__win_need(s, "growing the file", grow.result);
	mkw__win_views(s, (off_t)body, grown - body, v);
	for (unsigned i = 0; i < VIEWS; i++)
		if (mkw__view_count(&v[i], hidden - body, hidden - body + 8,
				    TAG_STORE)) {
			size_t n = strlen(shown);

			snprintf(shown + n, sizeof(shown) - n, "%s%s",
				 n ? ", " : "", v[i].way);
		}
	if (shown[0])
		mkw__win_end(s, WIN_PAST_END,
			     "stored at %zu past an end at %zu; after the file "
			     "has grown to %zu the word is shown by %s",
			     hidden, end, grown, shown);
	mkw__win_end(s, WIN_COHERENT, "stored at %zu past an end at %zu, gone "
		     "when the file grows", hidden, end);
}
