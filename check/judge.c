/* SPDX-License-Identifier: MIT */
/*
 * judge.c: linearizability of one register, exactly, in O(n log n).
 *
 * Values that are written once: the zones of Gibbons and Korach ("Testing
 * shared memories", 1997). A value's *cluster* is its write and its reads; f is
 * the earliest end in it, s the latest start.
 *   f < s   a *forward* zone: the register must hold the value all through
 *           [f, s], and need not hold it at any other time
 *   f >= s  a *backward* zone: the whole cluster fits into any one instant of
 *           [s, f]
 * Without zeros a history is linearizable exactly where no two forward zones
 * overlap and no backward zone lies inside a forward one.
 *
 * Zero, which may be written often: outside of the forward zones it no longer
 * matters which value the register holds, only whether it is zero. There remain
 * three kinds of item, each to be put at one instant of its interval that is
 * not inside a forward zone:
 *   SET    a backward cluster: not zero after it
 *   CLEAR  a write of zero: zero after it
 *   SEE    a read of zero: must find zero
 * A sweep in time order decides, and every decision dominates its alternatives:
 *   - being zero is never worse than not being zero (any plan for the latter
 *     works for the former), so a SET is put off until its deadline, but
 *     is put at once where it costs nothing: while the register is not zero
 *     anyway, just before a CLEAR, or just before a forward zone;
 *   - a CLEAR not yet used is never worse than a used one, so it is put off
 *     until its deadline, or until the deadline of a SEE that needs it; of
 *     several, the one with the earliest deadline is used;
 *   - a SEE is put at once when the register is zero.
 * So one state is all the frontier there is: whether it is zero, and what
 * is pending. A SEE that comes to its deadline with no CLEAR to use is the only
 * way to fail. test_judge.c compares all this with trying every order.
 *
 * A write that failed (MAYBE) matters only if its value was read: it is a write
 * without an end then. A MAYBE of zero is a CLEAR that need not be used.
 */
#include "check/judge.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define NEVER UINT64_MAX

struct cluster {
	uint64_t value;
	uint64_t begun;		/* start of the write */
	uint64_t f, s;
	uint32_t write;		/* index of the op, or NONE: initial */
	uint32_t last_read;	/* the read that gave s, or NONE */
	bool used;		/* not a failed write that nobody read */
};

enum item_kind { ITEM_SET, ITEM_CLEAR, ITEM_SEE };

struct item {
	uint64_t from, to;	/* may be put in [from, to] */
	uint32_t who;		/* cluster of a SET, else op */
	uint8_t kind;		/* enum item_kind */
	bool put;
};

struct key {
	uint64_t t;
	uint32_t i;
};

struct slot {
	uint32_t round;		/* valid where it is the judge's */
	uint32_t cluster;
};

/* A list of indexes that is never longer than the items. */
struct pending {
	uint32_t *v;
	uint32_t n;
};

struct judge {
	uint32_t round;
	size_t cap;		/* ops that the arrays have room for */
	struct slot *slots;
	uint32_t slot_mask;
	struct cluster *clusters;
	uint32_t n_clusters;
	struct key *forward;	/* by f; i is a cluster */
	uint32_t n_forward;
	struct item *items;
	uint32_t n_items;
	struct key *arrive, *expire;	/* i is an item */
	struct pending sets, clears, sees;
	/* Of the word being judged. */
	uint64_t initial;
	struct judge_op *ops;
	size_t n;
	bool any_see;
	void (*found)(void *arg, const struct judge_finding *f);
	void *arg;
	int findings;
};

struct judge *mkw__judge_new(void)
{
	return calloc(1, sizeof(struct judge));
}

static void release(struct judge *j)
{
	free(j->slots);
	free(j->clusters);
	free(j->forward);
	free(j->items);
	free(j->arrive);
	free(j->expire);
	free(j->sets.v);
	free(j->clears.v);
	free(j->sees.v);
	*j = (struct judge){ .round = 0 };
}

void mkw__judge_free(struct judge *j)
{
	if (!j)
		return;
	release(j);
	free(j);
}

static int make_room(struct judge *j, size_t n)
{
	size_t cap = 64;

	if (n <= j->cap)
		return 0;
	while (cap < n)
		cap *= 2;
	release(j);
	j->slots = calloc(2 * cap, sizeof(*j->slots));
	j->clusters = calloc(cap, sizeof(*j->clusters));
	j->forward = calloc(cap, sizeof(*j->forward));
	j->items = calloc(cap, sizeof(*j->items));
	j->arrive = calloc(cap, sizeof(*j->arrive));
	j->expire = calloc(cap, sizeof(*j->expire));
	j->sets.v = calloc(cap, sizeof(*j->sets.v));
	j->clears.v = calloc(cap, sizeof(*j->clears.v));
	j->sees.v = calloc(cap, sizeof(*j->sees.v));
	if (!j->slots || !j->clusters || !j->forward || !j->items ||
	    !j->arrive || !j->expire || !j->sets.v || !j->clears.v ||
	    !j->sees.v) {
		release(j);
		return -ENOMEM;
	}
	j->slot_mask = (uint32_t)(2 * cap - 1);
	j->cap = cap;
	return 0;
}

static int by_time(const void *a, const void *b)
{
	const struct key *x = a, *y = b;

	return (x->t > y->t) - (x->t < y->t);
}

/*
 * Insertion sort, since histories come nearly sorted: an element is out of
 * place by about as many as there are threads. Not so: qsort().
 */
static void sort_keys(struct key *v, size_t n)
{
	size_t budget = 16 * n;

	for (size_t i = 1; i < n; i++) {
		struct key k = v[i];
		size_t at = i;

		while (at > 0 && v[at - 1].t > k.t) {
			v[at] = v[at - 1];
			at--;
		}
		v[at] = k;
		if (i - at > budget) {
			qsort(v, n, sizeof(*v), by_time);
			return;
		}
		budget -= i - at;
	}
}

/* The slot that holds the value's cluster, or the empty one for it. */
static struct slot *find_slot(struct judge *j, uint64_t value)
{
	uint32_t at = (uint32_t)((value * UINT64_C(0x9e3779b97f4a7c15)) >> 32);

	for (;; at++) {
		struct slot *slot = &j->slots[at & j->slot_mask];

		if (slot->round != j->round ||
		    j->clusters[slot->cluster].value == value)
			return slot;
	}
}

static void add_cluster(struct judge *j, uint64_t value, uint32_t write,
			uint64_t start, uint64_t end, bool used)
{
	struct slot *slot = find_slot(j, value);

	assert(slot->round != j->round);	/* values are unique */
	*slot = (struct slot){ j->round, j->n_clusters };
	j->clusters[j->n_clusters++] = (struct cluster){
		.value = value,
		.begun = start,
		.f = end,
		.s = start,
		.write = write,
		.last_read = NONE,
		.used = used,
	};
}

static void report(struct judge *j, enum judge_fault fault, uint32_t write,
		   uint32_t read)
{
	struct judge_finding f = {
		.fault = fault,
		.write = write == NONE ? JUDGE_INITIAL : j->ops[write].id,
		.read = read == NONE ? JUDGE_INITIAL : j->ops[read].id,
	};

	j->findings++;
	if (j->found)
		j->found(j->arg, &f);
}

static void forget(struct judge *j, const struct cluster *c)
{
	if (c->write == NONE)
		j->initial = 0;
	else
		j->ops[c->write].dropped = 1;
	for (size_t i = 0; i < j->n; i++)
		if (j->ops[i].type == JUDGE_READ && j->ops[i].value == c->value)
			j->ops[i].dropped = 1;
}

/* The first read that returned c's value and began after the time. */
static uint32_t first_read_after(struct judge *j, const struct cluster *c,
				 uint64_t after)
{
	uint32_t best = c->last_read;

	for (uint32_t i = 0; i < j->n; i++)
		if (j->ops[i].type == JUDGE_READ &&
		    j->ops[i].value == c->value && j->ops[i].start > after &&
		    j->ops[i].start < j->ops[best].start)
			best = i;
	return best;
}

/*
 * The write did not happen, as far as the rest of the history goes. old: what
 * was read in its place.
 */
static void lose(struct judge *j, const struct cluster *c,
		 const struct cluster *old)
{
	report(j, JUDGE_LOST, c->write, first_read_after(j, old, c->f));
	forget(j, c);
}

static void stale(struct judge *j, uint32_t read, const struct cluster *newer)
{
	report(j, JUDGE_STALE, newer->write, read);
	j->ops[read].dropped = 1;
}

/* What the zero removed is not there after it. */
static void resurrect(struct judge *j, uint32_t zero, const struct cluster *c)
{
	report(j, JUDGE_RESURRECTED, zero,
	       first_read_after(j, c, j->ops[zero].end));
	for (size_t i = 0; i < j->n; i++)
		if (j->ops[i].type == JUDGE_READ &&
		    j->ops[i].value == c->value &&
		    j->ops[i].start > j->ops[zero].end)
			j->ops[i].dropped = 1;
}

static void add_item(struct judge *j, enum item_kind kind, uint32_t who,
		     uint64_t from, uint64_t to)
{
	j->items[j->n_items++] = (struct item){
		.from = from,
		.to = to,
		.who = who,
		.kind = (uint8_t)kind,
	};
}

/*
 * Gathers clusters and the zero items. Reads of values that cannot be are
 * reported and set aside at once.
 */
static void gather(struct judge *j)
{
	if (++j->round == 0) {
		memset(j->slots, 0, (j->slot_mask + 1) * sizeof(*j->slots));
		j->round = 1;
	}
	j->n_clusters = 0;
	j->n_items = 0;
	j->any_see = false;
	if (j->initial)
		add_cluster(j, j->initial, NONE, 0, 0, true);
	for (size_t i = 0; i < j->n; i++) {
		struct judge_op *op = &j->ops[i];
		bool maybe = op->type == JUDGE_MAYBE;
		uint64_t end = maybe ? NEVER : op->end;

		if (op->dropped)
			continue;
		if (op->value && op->type != JUDGE_READ) {
			add_cluster(j, op->value, (uint32_t)i, op->start, end,
				    !maybe);
		} else if (!op->value) {
			add_item(j, op->type == JUDGE_READ ? ITEM_SEE :
							     ITEM_CLEAR,
				 (uint32_t)i, op->start, end);
			j->any_see |= op->type == JUDGE_READ;
		}
	}
	for (size_t i = 0; i < j->n; i++) {
		struct judge_op *op = &j->ops[i];
		struct cluster *c;
		struct slot *slot;

		if (op->dropped || op->type != JUDGE_READ || !op->value)
			continue;
		slot = find_slot(j, op->value);
		if (slot->round != j->round) {
			report(j, JUDGE_NEVER_WRITTEN, NONE, (uint32_t)i);
			op->dropped = 1;
			continue;
		}
		c = &j->clusters[slot->cluster];
		if (op->end < c->begun) {
			report(j, JUDGE_FUTURE, c->write, (uint32_t)i);
			op->dropped = 1;
			continue;
		}
		c->used = true;
		if (op->end < c->f)
			c->f = op->end;
		if (op->start > c->s || c->last_read == NONE) {
			if (op->start > c->s)
				c->s = op->start;
			c->last_read = (uint32_t)i;
		}
	}
}

/* True: consistent so far. False: something was set aside, gather again. */
static bool check_forward(struct judge *j)
{
	j->n_forward = 0;
	for (uint32_t i = 0; i < j->n_clusters; i++) {
		struct cluster *c = &j->clusters[i];

		if (!c->used)
			continue;
		if (c->f < c->s)
			j->forward[j->n_forward++] = (struct key){ c->f, i };
		else
			add_item(j, ITEM_SET, i, c->s, c->f);
	}
	sort_keys(j->forward, j->n_forward);
	for (uint32_t i = 1; i < j->n_forward; i++) {
		struct cluster *older = &j->clusters[j->forward[i - 1].i];
		struct cluster *newer = &j->clusters[j->forward[i].i];

		if (newer->f >= older->s)
			continue;
		/*
		 * The write of the zone that begins later cannot precede the
		 * other's: it is the one that was overtaken.
		 */
		if (newer->s > older->s)
			stale(j, older->last_read, newer);
		else
			lose(j, newer, older);
		return false;
	}
	return true;
}

/* The forward zone that t lies strictly inside of, or NULL. */
static struct cluster *zone_around(struct judge *j, uint64_t t)
{
	uint32_t low = 0, high = j->n_forward;
	struct cluster *c;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (j->forward[mid].t < t)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low)
		return NULL;
	c = &j->clusters[j->forward[low - 1].i];
	return t < c->s ? c : NULL;
}

/* Cuts the items' intervals down to what lies outside of forward zones. */
static bool check_items(struct judge *j)
{
	for (uint32_t i = 0; i < j->n_items; i++) {
		struct item *it = &j->items[i];
		struct cluster *a = zone_around(j, it->from);
		struct cluster *b = zone_around(j, it->to);

		if (!a || a != b) {
			if (a)
				it->from = a->s;
			if (b)
				it->to = b->f;
			continue;
		}
		switch ((enum item_kind)it->kind) {
		case ITEM_SET:
			lose(j, &j->clusters[it->who], a);
			break;
		case ITEM_CLEAR:
			resurrect(j, it->who, a);
			break;
		case ITEM_SEE:
			stale(j, it->who, a);
			break;
		}
		return false;
	}
	return true;
}

static void put_all(struct judge *j, struct pending *list)
{
	for (uint32_t i = 0; i < list->n; i++)
		j->items[list->v[i]].put = true;
	list->n = 0;
}

/* Uses up the pending CLEAR with the earliest deadline. NULL: there is none. */
static struct item *use_clear(struct judge *j)
{
	struct pending *list = &j->clears;
	struct item *it;
	uint32_t best = NONE;

	for (uint32_t i = 0; i < list->n; i++)
		if (best == NONE ||
		    j->items[list->v[i]].to < j->items[list->v[best]].to)
			best = i;
	if (best == NONE)
		return NULL;
	it = &j->items[list->v[best]];
	it->put = true;
	list->v[best] = list->v[--list->n];
	put_all(j, &j->sets);
	put_all(j, &j->sees);
	return it;
}

/* A read of zero, when the register was last so before it, and what it held. */
struct doubt {
	uint32_t read;
	uint64_t zero_at;
	const struct cluster *holder;	/* NULL: no doubt */
	uint64_t until;		/* settled by a CLEAR that may come this late */
};

/*
 * Which value should have been there when the read found zero: of what was there
 * for certain before the read began, the latest. Not what may have been there
 * before the register was last zero: to lose it would explain nothing. The
 * holder if there is none. n: how many values were there since.
 */
static const struct cluster *missing(struct judge *j, const struct doubt *d,
				     uint32_t *n)
{
	const struct cluster *best = d->holder;
	uint64_t start = j->ops[d->read].start, latest = 0;

	*n = 0;
	for (uint32_t i = 0; i < j->n_items; i++) {
		const struct item *it = &j->items[i];

		if (it->kind != ITEM_SET || it->to >= start ||
		    it->from <= d->zero_at)
			continue;
		++*n;
		if (it->to < latest)
			continue;
		latest = it->to;
		best = &j->clusters[it->who];
	}
	for (uint32_t i = 0; i < j->n_forward && j->forward[i].t < start; i++) {
		const struct cluster *c = &j->clusters[j->forward[i].i];

		if (c->f <= d->zero_at)
			continue;
		++*n;
		if (c->s < latest)
			continue;
		latest = c->s;
		best = c;
	}
	return best;
}

/*
 * The read found zero, and nothing explains it. The other: the doubt that a
 * CLEAR settled that could have explained this read instead. Of the two the one
 * that fewer lost writes explain is taken. If one write is not enough, as after a
 * long chain of them, the latest is named, but the read is what is set aside.
 */
static void blame(struct judge *j, const struct doubt *d,
		  const struct doubt *other)
{
	const struct cluster *c, *c2;
	uint32_t n, n2;

	c = missing(j, d, &n);
	if (other->holder && other->until > c->s) {
		c2 = missing(j, other, &n2);
		if (n2 < n) {
			d = other;
			c = c2;
			n = n2;
		}
	}
	/* Was the value there again later? */
	if (c->last_read != NONE && c->s > j->ops[d->read].start) {
		stale(j, d->read, c);
		return;
	}
	report(j, JUDGE_LOST, c->write, d->read);
	if (n > 1)
		j->ops[d->read].dropped = 1;
	else
		forget(j, c);
}

/* The sweep of the head comment. False as above. */
static bool check_zeros(struct judge *j)
{
	uint32_t n_expire = 0, arrived = 0, expired = 0, zone = 0;
	bool zero = !j->initial;
	struct doubt now = { .zero_at = 0 };
	struct doubt settled = { .zero_at = 0 };

	if (!j->any_see)
		return true;
	for (uint32_t i = 0; i < j->n_items; i++) {
		j->arrive[i] = (struct key){ j->items[i].from, i };
		if (j->items[i].to != NEVER)
			j->expire[n_expire++] =
				(struct key){ j->items[i].to, i };
	}
	sort_keys(j->arrive, j->n_items);
	sort_keys(j->expire, n_expire);
	j->sets.n = 0;
	j->clears.n = 0;
	j->sees.n = 0;
	if (j->initial)
		now.holder = &j->clusters[0];

	/* At one instant: arrivals, then deadlines, then a zone's beginning. */
	while (expired < n_expire) {
		uint64_t t_expire = j->expire[expired].t;
		uint64_t t_zone = zone < j->n_forward ? j->forward[zone].t :
							NEVER;
		struct item *it, *used;
		uint32_t i;

		if (arrived < j->n_items &&
		    j->arrive[arrived].t <= t_expire &&
		    j->arrive[arrived].t <= t_zone) {
			i = j->arrive[arrived++].i;
			it = &j->items[i];
			if (it->kind == ITEM_CLEAR) {
				j->clears.v[j->clears.n++] = i;
			} else if ((it->kind == ITEM_SEE) == zero) {
				it->put = true;
				if (it->kind == ITEM_SET)
					now.holder = &j->clusters[it->who];
			} else if (it->kind == ITEM_SEE) {
				j->sees.v[j->sees.n++] = i;
			} else {
				j->sets.v[j->sets.n++] = i;
			}
			continue;
		}
		if (t_zone < t_expire) {
			zero = false;
			now.holder = &j->clusters[j->forward[zone++].i];
			put_all(j, &j->sets);
			continue;
		}
		it = &j->items[j->expire[expired++].i];
		if (it->put)
			continue;
		if (it->kind == ITEM_SET) {
			zero = false;
			now.holder = &j->clusters[it->who];
			put_all(j, &j->sets);
			continue;
		}
		now.read = it->who;
		used = use_clear(j);
		if (!used) {
			blame(j, &now, &settled);
			return false;
		}
		if (it->kind == ITEM_SEE && used->to > settled.until) {
			settled = now;
			settled.until = used->to;
		}
		/* It may have used another CLEAR of this deadline. */
		while (it->kind == ITEM_CLEAR && !it->put)
			use_clear(j);
		zero = true;
		now.zero_at = t_expire;
	}
	return true;
}

int mkw__judge_word(struct judge *j, uint64_t initial, struct judge_op *ops,
		    size_t n,
		    void (*found)(void *arg, const struct judge_finding *f),
		    void *arg)
{
	int err = make_room(j, n + 1);

	if (err)
		return err;
	j->initial = initial;
	j->ops = ops;
	j->n = n;
	j->found = found;
	j->arg = arg;
	j->findings = 0;
	do {
		gather(j);
	} while ((!check_forward(j) || !check_items(j) || !check_zeros(j)) &&
		 j->findings < JUDGE_FINDINGS_MAX);
	return j->findings;
}
