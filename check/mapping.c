/* SPDX-License-Identifier: MIT */
/*
 * mapping.c: mappings that move, grow, shrink and forbid accesses, while all the
 * others go on with the file.
 *
 * A thread has at most one mapping of its own, which nobody else touches or
 * changes. So it knows where that is, which part of the file it shows and what it
 * allows, and the outcome of each access by it: what is not allowed must raise SIGSEGV,
 * and must not have taken effect. What is not mapped is not touched: somebody else may
 * be there by then.
 *
 * A part of the mapping that all share (target->map) is denied for a moment, and then
 * allowed again. Who gets SIGSEGV from it tries again, as one operation, which takes effect
 * once it is let through. It was right to get one if a denial was under way between
 * its looks at two counters: of those that were over before it tried, and of those that had
 * begun after. The same holds for pins of that mapping, which are refused meanwhile.
 */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check/mix.h"

static const int prots[CHECK_PROTS] = { PROT_NONE, PROT_READ,
					PROT_READ | PROT_WRITE };

/* ---- accesses ------------------------------------------------------------- */

bool mkw__check_denied(const struct worker *w, const struct step *s)
{
	int wants = s->kind == OP_STORE ? PROT_WRITE : PROT_READ;

	return s->way & WAY_OWN && !(w->own.prot & wants);
}

int mkw__check_touch(struct worker *w, const struct step *s, uint32_t i)
{
	struct target *t = w->target;
	bool store = s->kind == OP_STORE;
	uint64_t ended;
	int sig;

	if (s->way & WAY_OWN)
		return mkw__check_mapped(&w->own.at[s->word + i - w->own.word],
					 &w->buf[i], store);
	for (;;) {
		ended = atomic_load(&t->denials_ended);
		sig = mkw__check_mapped(&t->map[s->word + i], &w->buf[i],
					store);
		if (sig != SIGSEGV || atomic_load(&t->denials_begun) == ended)
			return sig;
		sched_yield();
	}
}

ssize_t mkw__check_pinned(struct worker *w, const struct step *s)
{
	struct target *t = w->target;
	uint64_t ended = atomic_load(&t->denials_ended);
	unsigned slot = w->log.thread;
	ssize_t n = 0;

	if (s->pin.words) {
		n = t->ops->pin(t, s->pin.words * WORD,
				(off_t)(s->pin.word * WORD), s->pin.store, slot);
		w->pinned = !n;
	}
	if (n == -ENOBUFS ||
	    (n == -ENXIO && s->pin.word + s->pin.words > w->layout->body) ||
	    (n == -EACCES && atomic_load(&t->denials_begun) != ended))
		return -EAGAIN;
	if (n)
		return n;
	n = t->ops->pinned(t, s->kind == OP_STORE, w->buf, s->words * WORD,
			   (off_t)(s->word * WORD), slot);
	if (n < 0 || s->unpin) {
		t->ops->unpin(t, slot);
		w->pinned = false;
	}
	return n;
}

/* ---- changes ----------------------------------------------------------------- */

/* A place where nothing else will be mapped. A race detector would take mmap() for a write. */
static void *reserve(size_t len)
{
	long at = syscall(SYS_mmap, NULL, len, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			  (off_t)0);

	return at < 0 ? NULL : (void *)at;
}

/* From word `skip` of it on the mapping becomes `words` long; what is before goes. */
static int move(struct worker *w, uint32_t skip, uint32_t words, bool elsewhere)
{
	struct target *t = w->target;
	struct own *own = &w->own;
	size_t len = words * WORD;
	void *to = elsewhere ? reserve(len) : NULL, *at;
	int err;

	if (elsewhere && !to)
		return -ENOMEM;
	err = t->ops->remap(t, (void *)(own->at + skip),
			    (own->words - skip) * WORD, len, to, &at);
	if (!err && skip)
		err = t->ops->unmap(t, (void *)own->at, skip * WORD);
	if (err)
		return err;
	own->at = at;
	own->word += skip;
	own->words = words;
	return 0;
}

int mkw__check_unmap_own(struct worker *w)
{
	struct own *own = &w->own;
	int err = 0;

	if (own->at)
		err = w->target->ops->unmap(w->target, (void *)own->at,
					    own->words * WORD);
	own->at = NULL;
	return err;
}

static int renew(struct worker *w, const struct step *s)
{
	struct target *t = w->target;
	int err = mkw__check_unmap_own(w);
	void *at;

	if (!err)
		err = t->ops->map_more(t, (off_t)(s->word * WORD),
				       s->words * WORD, &at);
	if (!err)
		w->own = (struct own){ at, s->word, s->words,
				       PROT_READ | PROT_WRITE };
	return err;
}

static int deny(struct worker *w, const struct step *s)
{
	struct target *t = w->target;
	void *at = (void *)(t->map + s->word);
	int err, again;

	/* What somebody has pinned stays as it is. */
	atomic_fetch_add(&t->denials_begun, 1);
	err = t->ops->protect(t, at, s->words * WORD, prots[s->way]);
	/* Somebody is to meet it. */
	sched_yield();
	while ((again = t->ops->protect(t, at, s->words * WORD,
					PROT_READ | PROT_WRITE)) == -EBUSY)
		sched_yield();
	atomic_fetch_add(&t->denials_ended, 1);
	return err && err != -EBUSY ? err : again;
}

int mkw__check_remap(struct worker *w, const struct step *s)
{
	struct target *t = w->target;
	struct own *own = &w->own;
	uint32_t page = w->layout->page_words, skip;
	int err;

	if (s->change == REMAP_DENY)
		return deny(w, s);
	if (s->change == REMAP_RENEW || !own->at)
		return renew(w, s);
	switch (s->change) {
	case REMAP_BACK:
		skip = own->words / page / 2 * page;
		return move(w, skip, s->words > skip ? s->words - skip : page,
			    true);
	case REMAP_PROTECT:
		err = t->ops->protect(t, (void *)own->at, own->words * WORD,
				      prots[s->way]);
		if (!err)
			own->prot = prots[s->way];
		return err;
	default:
		return move(w, 0, s->words, s->change == REMAP_MOVE);
	}
}
