/* SPDX-License-Identifier: MIT */
/*
 * verdict.c: judges an epoch, and names what it finds.
 *
 * The records of all logs are merged by start. For each sector (512 bytes, eight
 * tracked words) a list of the records that touch it is made, in that order;
 * then threads take sectors one by one, spread each record over the tracked words
 * that it covers, and judge each word. So the memory needed beyond the logs is
 * four bytes for each record and sector, and one sector's operations per thread.
 *
 * An operation is counted once in its class, however many of its words show it:
 *   lost ...        the write that is gone         by its own kind
 *   stale read      the read                       by value: overwritten before
 *   resurrected     the punch, zero or truncate
 *   never written   the read
 * A value of an earlier epoch, other than the one that the word began with, was
 * overwritten long ago: a stale read, or resurrected where zeros were meant.
 *
 * Collapse and insert move data to other words. So words of the file are *places*,
 * and what is judged are *cells*, which hold what moves with them: in the beginning
 * cell and place have the same number, and each shift gives places other cells (struct
 * maps; whole sectors move). A collapse takes cells away; they are zeroed by it and
 * are the new places at the end of the file. An insert zeroes the cells that it pushed
 * past the end, which are the new places in the middle. Who ran while a shift did
 * may have met the places of before or those of after: a write then may have happened
 * to either, a read says nothing.
 *
 * Torn: atomic operations have an order. A read that saw X in one word and Y in
 * another, both words covered by both writes, would need X after Y and Y after X.
 * The same where Y is older than X for certain and X covers the word that
 * showed Y. Not counted where a single word shows it already (the later of
 * the two was over before the read began), and where a value is zero or was
 * stored through a mapping (those are atomic by the word only). What words an operation
 * covered is compared with what the read saw, so X (and Y, where it has to cover
 * something) must have met the same places as the read, and no others.
 *
 * Where writes are promised to be atomic for loads, too (MKW_ATOMIC_WRITES), two loads of a
 * thread in order are judged so: the first saw X, the second something that was over when X
 * began, in a word that X covers. X was still under way when the second began; else that
 * word shows it by itself.
 */
#include "check/verdict.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/evidence.h"
#include "check/judge.h"

#define SECTOR_WORDS 64u
#define SECTOR_TRACKED (SECTOR_WORDS / TRACK)
#define SOURCES_MAX 16

struct word_ops {
	struct judge_op *v;
	size_t n, cap;
};

struct jury {			/* one thread */
	struct verdict *verdict;
	struct judge *judge;
	struct word_ops words[SECTOR_TRACKED];
	uint32_t word;		/* being judged */
	uint64_t judged;	/* operations on words */
	int err;
};

/* The places of the file before the first shift, and after each. */
struct maps {
	unsigned n;		/* shifts */
	const struct rec *shifts[SHIFTS_MAX];
	uint32_t sectors;
	uint32_t *cell;		/* [version * sectors + place]; whole sectors */
	uint32_t *place;	/* [version * sectors + cell] */
	size_t cell_cap, place_cap;
	bool unknown;		/* one failed: nothing is known */
};

struct verdict {
	struct maps maps;
	unsigned n_juries;
	struct jury *juries;
	/* The epoch: */
	const struct history *h;
	struct rec **order;	/* by start */
	uint32_t n_order, order_cap;
	uint32_t *first;	/* of each sector: where its refs begin */
	uint32_t *refs;		/* indexes into order */
	size_t first_cap, refs_cap;
	_Atomic uint32_t next_sector, next_rec;
	pthread_mutex_t mutex;	/* of what follows, and of rec->seen */
	struct check_count *classes;
	int64_t failures;
};

static void *grow(void *old, size_t *cap, size_t need, size_t size)
{
	size_t want = *cap ? *cap : 1024;
	void *p;

	if (need <= *cap)
		return old;
	while (want < need)
		want *= 2;
	p = realloc(old, want * size);
	if (p)
		*cap = want;
	return p;
}

struct verdict *mkw__verdict_new(unsigned threads)
{
	struct verdict *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	pthread_mutex_init(&v->mutex, NULL);
	v->juries = calloc(threads, sizeof(*v->juries));
	if (!v->juries)
		goto fail;
	for (; v->n_juries < threads; v->n_juries++) {
		struct jury *jury = &v->juries[v->n_juries];

		jury->verdict = v;
		jury->judge = mkw__judge_new();
		if (!jury->judge)
			goto fail;
	}
	return v;
fail:
	mkw__verdict_free(v);
	return NULL;
}

void mkw__verdict_free(struct verdict *v)
{
	if (!v)
		return;
	for (unsigned i = 0; i < v->n_juries; i++) {
		mkw__judge_free(v->juries[i].judge);
		for (unsigned k = 0; k < SECTOR_TRACKED; k++)
			free(v->juries[i].words[k].v);
	}
	free(v->juries);
	free(v->maps.cell);
	free(v->maps.place);
	free(v->order);
	free(v->first);
	free(v->refs);
	pthread_mutex_destroy(&v->mutex);
	free(v);
}

void mkw__check_count(struct check_count *c, uint64_t when_ns,
		      const char *fmt, ...)
{
	va_list ap;

	if (!c->count++ || when_ns < c->first_ns) {
		c->first_ns = when_ns;
		va_start(ap, fmt);
		vsnprintf(c->example, sizeof(c->example), fmt, ap);
		va_end(ap);
	}
}

/* ---- putting the logs in order ------------------------------------------ */

/* Merges the logs, each of which is in order, by start. */
static int merge(struct verdict *v)
{
	const struct history *h = v->h;
	uint32_t at[64] = { 0 };
	size_t total = 0, cap = v->order_cap;
	struct rec **order;

	for (unsigned i = 0; i < h->n_logs; i++)
		total += h->logs[i].n;
	order = grow(v->order, &cap, total, sizeof(*order));
	if (total && !order)
		return -ENOMEM;
	v->order = order;
	v->order_cap = (uint32_t)cap;
	for (v->n_order = 0; v->n_order < total; v->n_order++) {
		struct rec *best = NULL;
		unsigned which = 0;

		for (unsigned i = 0; i < h->n_logs; i++) {
			struct rec *rec = &h->logs[i].recs[at[i]];

			if (at[i] < h->logs[i].n &&
			    (!best || rec->start < best->start)) {
				best = rec;
				which = i;
			}
		}
		order[v->n_order] = best;
		at[which]++;
	}
	return 0;
}

/* ---- places and cells ------------------------------------------------------ */

/* One shift: the places of `from` become those of `to`. */
static void move_places(uint32_t *to, const uint32_t *from, uint32_t n,
			const struct rec *shift)
{
	uint32_t off = shift->word / SECTOR_WORDS;
	uint32_t len = shift->moved / SECTOR_WORDS;

	if (shift->way == SHIFT_INSERT) {
		memcpy(to, from, off * sizeof(*to));
		memcpy(to + off, from + n - len, len * sizeof(*to));
		memcpy(to + off + len, from + off, (n - len - off) * sizeof(*to));
	} else {
		memcpy(to, from, off * sizeof(*to));
		memcpy(to + off, from + off + len, (n - len - off) * sizeof(*to));
		memcpy(to + n - len, from + off, len * sizeof(*to));
	}
}

static int make_maps(struct verdict *v)
{
	struct maps *m = &v->maps;
	uint32_t n = (v->h->words + SECTOR_WORDS - 1) / SECTOR_WORDS;
	uint32_t *cell, *place;

	m->n = 0;
	m->sectors = n;
	m->unknown = false;
	for (uint32_t i = 0; i < v->n_order; i++) {
		const struct rec *rec = v->order[i];

		if (rec->kind != OP_SHIFT)
			continue;
		m->unknown |= rec->outcome != REC_DONE || m->n == SHIFTS_MAX;
		if (!m->unknown)
			m->shifts[m->n++] = rec;
	}
	if (!m->n || m->unknown)
		return 0;
	cell = grow(m->cell, &m->cell_cap, (size_t)(m->n + 1) * n, sizeof(*cell));
	if (!cell)
		return -ENOMEM;
	m->cell = cell;
	place = grow(m->place, &m->place_cap, (size_t)(m->n + 1) * n,
		     sizeof(*place));
	if (!place)
		return -ENOMEM;
	m->place = place;
	for (uint32_t i = 0; i < n; i++)
		cell[i] = i;
	for (unsigned k = 0; k < m->n; k++)
		move_places(cell + (k + 1) * n, cell + k * n, n, m->shifts[k]);
	for (unsigned k = 0; k <= m->n; k++)
		for (uint32_t i = 0; i < n; i++)
			place[k * n + cell[k * n + i]] = i;
	return 0;
}

/* Which versions of the places may the record have met? Returns the first. */
static unsigned versions(const struct maps *m, const struct rec *rec,
			 unsigned *last)
{
	unsigned first = 0;

	while (first < m->n && m->shifts[first]->end < rec->start)
		first++;
	for (*last = first; *last < m->n &&
			    m->shifts[*last]->start <= rec->end; ++*last)
		;
	return first;
}

static uint32_t cell_of(const struct maps *m, unsigned version, uint32_t place)
{
	return m->n ? m->cell[version * m->sectors + place] : place;
}

static uint32_t place_of(const struct maps *m, unsigned version, uint32_t cell)
{
	return m->n ? m->place[version * m->sectors + cell] : cell;
}

/* Is the place the same cell in all of the versions? */
static bool is_sure(const struct maps *m, unsigned first, unsigned last,
		    uint32_t place)
{
	for (unsigned k = first + 1; k <= last; k++)
		if (cell_of(m, k, place) != cell_of(m, first, place))
			return false;
	return true;
}

/* The word of the file that the record met as the cell's word. */
static uint32_t word_of(const struct maps *m, const struct rec *rec,
			uint32_t cell_word)
{
	unsigned last, first = versions(m, rec, &last), k = first;
	uint32_t sector = cell_word / SECTOR_WORDS;

	/* A read is judged by what is the same in all of them. */
	while (k < last && !is_sure(m, first, last, place_of(m, k, sector)))
		k++;
	return place_of(m, k, sector) * SECTOR_WORDS + cell_word % SECTOR_WORDS;
}

/* Words of the record that its sectors' lists need to know of. */
static uint32_t rec_reach(const struct rec *rec)
{
	return kind_reads((enum op_kind)rec->kind) ? rec->moved : rec->words;
}

/*
 * Calls each(v, cell sector, index) for all that record number `index` is to be
 * judged with.
 */
static void each_cell(struct verdict *v, uint32_t index,
		      void (*each)(struct verdict *v, uint32_t cell,
				   uint32_t index))
{
	const struct maps *m = &v->maps;
	const struct rec *rec = v->order[index];
	uint32_t reach = rec_reach(rec), from = rec->word;
	unsigned first, last;

	if (rec->kind == OP_SHIFT) {
		/* What was nowhere before it, in the places of after. */
		reach = rec->moved;
		if (rec->way == SHIFT_COLLAPSE)
			from = v->h->words - reach;
		for (first = 0; m->shifts[first] != rec; first++)
			;
		first = last = first + 1;
	} else {
		first = versions(m, rec, &last);
	}
	if (!reach)
		return;
	for (uint32_t s = from / SECTOR_WORDS;
	     s <= (from + reach - 1) / SECTOR_WORDS; s++) {
		if (kind_reads((enum op_kind)rec->kind) &&
		    !is_sure(m, first, last, s))
			continue;
		for (unsigned k = first; k <= last; k++)
			each(v, cell_of(m, k, s), index);
	}
}

static void count_ref(struct verdict *v, uint32_t cell, uint32_t index)
{
	(void)index;
	v->first[cell + 2]++;
}

static void add_ref(struct verdict *v, uint32_t cell, uint32_t index)
{
	v->refs[v->first[cell + 1]++] = index;
}

static int spread(struct verdict *v)
{
	uint32_t sectors = (v->h->words + SECTOR_WORDS - 1) / SECTOR_WORDS;
	uint32_t *first = grow(v->first, &v->first_cap, sectors + 2,
			       sizeof(*first));
	uint32_t *refs;

	if (!first)
		return -ENOMEM;
	v->first = first;
	/*
	 * Counted two places on, so that after the sums first[s + 1] is where
	 * sector s begins, and after filling where it ends.
	 */
	memset(first, 0, (sectors + 2) * sizeof(*first));
	for (uint32_t i = 0; i < v->n_order; i++)
		each_cell(v, i, count_ref);
	for (uint32_t s = 0; s < sectors; s++)
		first[s + 2] += first[s + 1];
	refs = grow(v->refs, &v->refs_cap, first[sectors + 1], sizeof(*refs));
	if (!refs)
		return -ENOMEM;
	v->refs = refs;
	for (uint32_t i = 0; i < v->n_order; i++)
		each_cell(v, i, add_ref);
	return 0;
}

/* ---- naming what was found ----------------------------------------------- */

static struct rec *find_rec(const struct history *h, uint64_t value)
{
	unsigned thread = value_thread(value);
	const struct log *log;
	uint32_t at;

	if (thread >= h->n_logs)
		return NULL;
	log = &h->logs[thread];
	/* Numbers wrap around. */
	at = value_number(value) - (uint32_t)log->base;
	return at < log->n ? &log->recs[at] : NULL;
}

/* A value that was written into this word in an earlier epoch. */
static bool is_old(const struct history *h, uint64_t value, uint32_t word)
{
	return kind_writes(value_kind(value)) &&
	       (h->shifted || value_word(value) == word) &&
	       value_thread(value) < h->n_logs &&
	       (int32_t)(value_number(value) -
			 (uint32_t)h->logs[value_thread(value)].base) < 0;
}

static const char *describe(const struct history *h, const struct rec *rec,
			    char *buf, size_t size)
{
	snprintf(buf, size, "%s of %zu bytes at %zu (thread %u, %.6f-%.6f s)",
		 mkw__check_op_name((enum op_kind)rec->kind),
		 rec->words * WORD, rec->word * WORD, rec->thread,
		 (double)(rec->start - h->began + h->before_ns) / 1e9,
		 (double)(rec->end - h->began + h->before_ns) / 1e9);
	return buf;
}

/* Marks the record; false if it was already counted so. */
static bool mark(struct rec *rec, unsigned bit)
{
	bool fresh = !(rec->seen & bit);

	rec->seen |= (uint8_t)bit;
	return fresh;
}

static void count(struct verdict *v, enum check_class class,
		  const struct rec *culprit, const struct rec *witness,
		  uint32_t word)
{
	const struct history *h = v->h;
	struct check_count *c = &v->classes[class];
	char a[120] = "a write of an earlier round", b[120];
	const char *verb = " shown by ";
	struct evidence *ev = h->evidence;
	bool wanted = ev && (!ev->taken || ev->weak);
	char what[320];

	if (culprit)
		describe(h, culprit, a, sizeof(a));
	if (class == CHECK_STALE_READ)
		verb = " not seen by ";
	if (culprit == witness)
		verb = "; ";
	snprintf(what, sizeof(what), "%s%s%s, word at byte %zu", a, verb,
		 culprit == witness ? "" : describe(h, witness, b, sizeof(b)),
		 word * WORD);
	mkw__check_count(c, witness->end - h->began + h->before_ns, "%s", what);
	if (class == CHECK_TORN && !h->atomic && !h->strict)
		return;
	v->failures++;
	if (!wanted)
		return;
	mkw__evidence_take(ev, h, v->order, v->n_order, class, culprit, witness,
			   word);
	if (ev->taken && !ev->weak)
		memcpy(ev->what, what, sizeof(what));
}

static enum check_class lost_class(enum op_kind kind)
{
	switch (kind) {
	case OP_STORE:
		return CHECK_LOST_STORE;
	case OP_DIRECT_WRITE:
		return CHECK_LOST_DIRECT_WRITE;
	default:
		return CHECK_LOST_WRITE;
	}
}

static uint64_t seen_value(const struct history *h, const struct rec *rec,
			   uint32_t word)
{
	const struct log *log = &h->logs[rec->thread];
	uint32_t first = track_first(h->phase, rec->word);

	return log->vals[rec->vals + (word - first) / TRACK];
}

static void found(void *arg, const struct judge_finding *f)
{
	struct jury *jury = arg;
	struct verdict *v = jury->verdict;
	const struct history *h = v->h;
	uint64_t initial = h->initial[jury->word];
	/* Where the reader saw it. */
	uint32_t word = word_of(&v->maps, v->order[f->read], jury->word);
	struct rec *write = f->write == JUDGE_INITIAL ? NULL :
							v->order[f->write];
	struct rec *read = v->order[f->read];
	enum op_kind kind;

	pthread_mutex_lock(&v->mutex);
	switch (f->fault) {
	case JUDGE_LOST:
		kind = write ? (enum op_kind)write->kind : value_kind(initial);
		if (mark(write ? write : read, REC_SEEN_LOST))
			count(v, lost_class(kind), write, read, word);
		break;
	case JUDGE_STALE:
		if (mark(read, REC_SEEN_STALE))
			count(v, CHECK_STALE_READ, write, read, word);
		break;
	case JUDGE_RESURRECTED:
		if (mark(write, REC_SEEN_RESURRECTED))
			count(v, CHECK_RESURRECTED, write, read, word);
		break;
	case JUDGE_NEVER_WRITTEN:
		if (is_old(h, seen_value(h, read, word), word) ||
		    (v->maps.n && find_rec(h, seen_value(h, read, word)))) {
			if (mark(read, REC_SEEN_STALE))
				count(v, initial ? CHECK_STALE_READ :
						   CHECK_RESURRECTED,
				      NULL, read, word);
			break;
		}
		/* fall through */
	case JUDGE_FUTURE:
		if (mark(read, REC_SEEN_NEVER_WRITTEN))
			count(v, CHECK_NEVER_WRITTEN, read, read, word);
		break;
	}
	pthread_mutex_unlock(&v->mutex);
}

/* ---- words ---------------------------------------------------------------- */

static int add_op(struct word_ops *w, const struct judge_op *op)
{
	struct judge_op *ops = grow(w->v, &w->cap, w->n + 1, sizeof(*ops));

	if (!ops)
		return -ENOMEM;
	w->v = ops;
	ops[w->n++] = *op;
	return 0;
}

/*
 * Adds what the record did to the tracked words of a cell's sector, which it met at
 * `place`.
 */
static int add_at(struct jury *jury, uint32_t index, uint32_t place, bool maybe)
{
	const struct history *h = jury->verdict->h;
	const struct rec *rec = jury->verdict->order[index];
	const struct log *log = &h->logs[rec->thread];
	enum op_kind kind = (enum op_kind)rec->kind;
	uint32_t from = place * SECTOR_WORDS, to = from + SECTOR_WORDS;
	uint32_t origin = track_first(h->phase, rec->word);

	if (kind != OP_SHIFT && from < rec->word)
		from = rec->word;
	if (kind != OP_SHIFT && to > rec->word + rec_reach(rec))
		to = rec->word + rec_reach(rec);
	for (uint32_t w = track_first(h->phase, from); w < to; w += TRACK) {
		struct judge_op op = {
			.start = rec->start,
			.end = rec->end,
			.id = index,
			.type = JUDGE_READ,
		};

		if (kind_reads(kind)) {
			op.value = log->vals[rec->vals + (w - origin) / TRACK];
		} else {
			if (kind_writes(kind))
				op.value = value_make(kind, rec->thread,
						      log->base + (uint64_t)(rec - log->recs),
						      w);
			op.type = maybe || (rec->outcome == REC_FAILED &&
					    w >= rec->word + rec->moved) ?
					  JUDGE_MAYBE : JUDGE_WRITE;
		}
		if (add_op(&jury->words[w % SECTOR_WORDS / TRACK], &op))
			return -ENOMEM;
	}
	return 0;
}

/* The same, wherever it met the cell. */
static int add_rec(struct jury *jury, uint32_t index, uint32_t cell)
{
	const struct maps *m = &jury->verdict->maps;
	const struct rec *rec = jury->verdict->order[index];
	unsigned last, first = versions(m, rec, &last);
	int err = 0;

	if (rec->kind == OP_SHIFT)
		return add_at(jury, index, cell, false);
	for (unsigned k = first; k <= last && !err; k++) {
		uint32_t place = place_of(m, k, cell);
		bool sure = is_sure(m, first, last, place), again = false;

		for (unsigned i = first; i < k; i++)
			again |= place_of(m, i, cell) == place;
		if (again || place * SECTOR_WORDS >= rec->word + rec_reach(rec) ||
		    (place + 1) * SECTOR_WORDS <= rec->word ||
		    (!sure && kind_reads((enum op_kind)rec->kind)))
			continue;
		err = add_at(jury, index, place, !sure);
	}
	return err;
}

static int judge_sector(struct jury *jury, uint32_t sector)
{
	struct verdict *v = jury->verdict;
	const struct history *h = v->h;
	int err = 0;

	for (unsigned k = 0; k < SECTOR_TRACKED; k++)
		jury->words[k].n = 0;
	for (uint32_t i = v->first[sector]; i < v->first[sector + 1] && !err;
	     i++)
		/* Who may have met it at several places stands there as often. */
		if (i == v->first[sector] || v->refs[i] != v->refs[i - 1])
			err = add_rec(jury, v->refs[i], sector);
	for (unsigned k = 0; k < SECTOR_TRACKED && !err; k++) {
		struct word_ops *w = &jury->words[k];

		jury->word = sector * SECTOR_WORDS + k * TRACK + h->phase;
		if (!w->n || jury->word >= h->words)
			continue;
		jury->judged += w->n;
		err = mkw__judge_word(jury->judge, h->initial[jury->word], w->v,
				      w->n, found, jury);
		if (err > 0)
			err = 0;
	}
	return err;
}

/* ---- whole operations ------------------------------------------------------ */

struct source {
	uint64_t id;		/* value without its word */
	const struct rec *rec;	/* NULL: of an earlier epoch */
	bool here;		/* it met the places that the read did */
	uint32_t low, high;	/* words that showed it, first and last */
};

static bool covers(const struct rec *rec, const struct source *s)
{
	return (s->low >= rec->word && s->low - rec->word < rec->words) ||
	       (s->high >= rec->word && s->high - rec->word < rec->words);
}

/* Is x in one word and y in another more than an atomic read can see? */
static bool contradict(const struct rec *read, const struct source *x,
		       const struct source *y)
{
	if (!x->here || !covers(x->rec, y))
		return false;
	/* x is before the read, and y must come after x. */
	if (!y->rec || y->rec->end < x->rec->start)
		return x->rec->end >= read->start;
	if (!y->here || !covers(y->rec, x))
		return false;
	return !(x->rec->end < y->rec->start && y->rec->end < read->start);
}

/* Did both meet the same places, and no others? */
static bool same_places(const struct maps *m, const struct rec *a,
			const struct rec *b)
{
	unsigned last_a, last_b, first = versions(m, a, &last_a);

	return first == last_a && versions(m, b, &last_b) == first &&
	       last_b == first;
}

/* Adds the value's source to the read's list; returns the new length. */
static unsigned add_source(const struct verdict *v, const struct rec *read,
			   struct source *list, unsigned n, uint64_t value,
			   uint32_t word)
{
	const struct history *h = v->h;
	uint64_t id = value >> VALUE_WORD_BITS;
	enum op_kind kind = value_kind(value);
	const struct rec *rec;

	if (n && list[n - 1].id == id) {
		list[n - 1].high = word;
		return n;
	}
	if (kind != OP_WRITE && kind != OP_DIRECT_WRITE)
		return n;
	rec = find_rec(h, value);
	/* Not of an operation that failed: it may have written anything. */
	if ((rec && rec->outcome != REC_DONE) ||
	    (!rec && !is_old(h, value, word)))
		return n;
	for (unsigned i = 0; i < n; i++)
		if (list[i].id == id) {
			list[i].high = word;
			return n;
		}
	if (n == SOURCES_MAX)
		return n;
	list[n] = (struct source){
		id, rec, rec && same_places(&v->maps, rec, read), word, word
	};
	return n + 1;
}

static void judge_read(struct verdict *v, const struct rec *rec)
{
	const struct history *h = v->h;
	const uint64_t *vals = &h->logs[rec->thread].vals[rec->vals];
	struct source list[SOURCES_MAX];
	uint32_t first = track_first(h->phase, rec->word);
	uint32_t end = rec->word + rec->moved;
	unsigned n = 0;

	for (uint32_t w = first; w < end; w += TRACK)
		n = add_source(v, rec, list, n, vals[(w - first) / TRACK], w);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < n; k++) {
			if (i == k || !contradict(rec, &list[i], &list[k]))
				continue;
			pthread_mutex_lock(&v->mutex);
			count(v, CHECK_TORN, list[i].rec, rec, list[k].low);
			pthread_mutex_unlock(&v->mutex);
			return;
		}
	}
}

/* Loads of one thread that are looked at together. */
#define LOADS_BACK 16u

/* The write that a load saw, if it was one by a call, and all of it was done. */
static const struct rec *written_by_call(const struct history *h, uint64_t value)
{
	enum op_kind kind = value_kind(value);
	const struct rec *rec = kind == OP_WRITE || kind == OP_DIRECT_WRITE ?
					find_rec(h, value) : NULL;

	return rec && rec->outcome == REC_DONE ? rec : NULL;
}

/* Was what the value is of over at that time? */
static bool over(const struct history *h, uint64_t value, uint32_t word,
		 uint64_t time)
{
	const struct rec *rec = find_rec(h, value);

	if (!value || !kind_writes(value_kind(value)))
		return false;
	return rec ? rec->outcome == REC_DONE && rec->end < time :
		     is_old(h, value, word);
}

static bool is_load(const struct rec *rec)
{
	return rec->kind == OP_LOAD && rec->words == 1 &&
	       rec->outcome == REC_DONE;
}

static void judge_load(struct verdict *v, const struct rec *second)
{
	const struct history *h = v->h;
	const struct log *log = &h->logs[second->thread];
	const struct rec *first = second, *x;

	for (unsigned i = 0; i < LOADS_BACK && first > log->recs; i++) {
		if (!is_load(--first))
			continue;
		x = written_by_call(h, log->vals[first->vals]);
		if (!x || second->word < x->word ||
		    second->word - x->word >= x->moved ||
		    x->end < second->start ||
		    !same_places(&v->maps, x, second) ||
		    !over(h, log->vals[second->vals], second->word, x->start))
			continue;
		pthread_mutex_lock(&v->mutex);
		count(v, CHECK_TORN, x, second, second->word);
		pthread_mutex_unlock(&v->mutex);
		return;
	}
}

/* ---- the epoch --------------------------------------------------------------- */

static void *serve(void *arg)
{
	struct jury *jury = arg;
	struct verdict *v = jury->verdict;
	uint32_t sectors = (v->h->words + SECTOR_WORDS - 1) / SECTOR_WORDS;

	jury->err = 0;
	while (!jury->err) {
		uint32_t s = atomic_fetch_add(&v->next_sector, 1);

		if (s >= sectors)
			break;
		jury->err = judge_sector(jury, s);
	}
	while (!jury->err) {
		uint32_t from = atomic_fetch_add(&v->next_rec, 256);

		if (from >= v->n_order)
			break;
		for (uint32_t i = from; i < from + 256 && i < v->n_order; i++) {
			const struct rec *rec = v->order[i];

			if (rec->kind == OP_READ || rec->kind == OP_DIRECT_READ)
				judge_read(v, rec);
			else if (v->h->atomic_loads && is_load(rec))
				judge_load(v, rec);
		}
	}
	return NULL;
}

int64_t mkw__verdict_judge(struct verdict *v, const struct history *h,
			   struct check_count *classes)
{
	pthread_t threads[64];
	unsigned started = 1;
	int err;

	v->h = h;
	v->classes = classes;
	v->failures = 0;
	atomic_store(&v->next_sector, 0);
	atomic_store(&v->next_rec, 0);
	err = merge(v);
	if (!err)
		err = make_maps(v);
	/* Whoever could not shift has been counted for that. */
	if (!err && v->maps.unknown)
		return 0;
	if (!err)
		err = spread(v);
	if (err)
		return err;
	/* A thread that cannot be had leaves its share to the others. */
	while (started < v->n_juries &&
	       !pthread_create(&threads[started], NULL, serve,
			       &v->juries[started]))
		started++;
	serve(&v->juries[0]);
	err = v->juries[0].err;
	for (unsigned i = 1; i < started; i++) {
		pthread_join(threads[i], NULL);
		if (v->juries[i].err)
			err = v->juries[i].err;
	}
	return err ? err : v->failures;
}

uint64_t mkw__verdict_judged(const struct verdict *v)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < v->n_juries; i++)
		n += v->juries[i].judged;
	return n;
}
