/* SPDX-License-Identifier: MIT */
/*
 * evidence.c: the operations around an anomaly.
 */
#include "check/evidence.h"

#include <stdio.h>

/* Before the culprit began. */
#define BEFORE_NS 300000u

static bool overlaps(const struct rec *rec, uint32_t from, uint32_t to)
{
	return rec->word < to && rec->word + rec->words > from;
}

static void fill_op(struct evidence_op *op, const struct history *h,
		    const struct rec *rec, uint32_t word)
{
	const struct log *log = &h->logs[rec->thread];
	enum op_kind kind = (enum op_kind)rec->kind;

	*op = (struct evidence_op){ .rec = *rec };
	op->touches = overlaps(rec, word, word + 1);
	if (!op->touches)
		return;
	/* Of a read only tracked words are known. */
	op->knows = !kind_reads(kind) || (word < rec->word + rec->moved &&
					  word % TRACK == h->phase);
	if (kind_reads(kind) && op->knows)
		op->value = log->vals[rec->vals +
				      (word - track_first(h->phase, rec->word)) /
					      TRACK];
	else if (kind_writes(kind))
		op->value = value_make(kind, rec->thread,
				       log->base + (uint64_t)(rec - log->recs),
				       word);
}

static void take_profile(struct evidence *ev, const struct history *h)
{
	snprintf(ev->profile, sizeof(ev->profile), "%s",
		 h->profile ? h->profile : "");
}

void mkw__evidence_take(struct evidence *ev, const struct history *h,
			struct rec *const *order, uint32_t n_order,
			enum check_class class, const struct rec *culprit,
			const struct rec *witness, uint32_t word)
{
	const uint32_t page_words = 4096 / WORD;
	uint32_t from = word / page_words * page_words, to = from + page_words;
	uint64_t since = (culprit ? culprit : witness)->start;
	uint32_t i;

	if (ev->taken && !ev->weak)
		return;
	ev->taken = true;
	ev->weak = false;
	ev->n = 0;
	ev->class = class;
	ev->word = word;
	ev->began = h->began - h->before_ns;
	take_profile(ev, h);
	since = since > BEFORE_NS ? since - BEFORE_NS : 0;
	/* Backwards from the witness, since it is the end that tells. */
	for (i = n_order; i > 0 && order[i - 1]->start > witness->end; i--)
		;
	for (; i > 0 && ev->n < EVIDENCE_OPS; i--) {
		const struct rec *rec = order[i - 1];

		if (rec->start < since && rec != culprit)
			break;
		if (!overlaps(rec, from, to) && rec != culprit)
			continue;
		fill_op(&ev->ops[ev->n], h, rec, word);
		ev->ops[ev->n].culprit = rec == culprit;
		ev->ops[ev->n].witness = rec == witness;
		ev->n++;
	}
	for (unsigned a = 0, b = ev->n; a + 1 < b; a++) {
		struct evidence_op op = ev->ops[a];

		ev->ops[a] = ev->ops[--b];
		ev->ops[b] = op;
	}
}

void mkw__evidence_take_last(struct evidence *ev, const struct history *h,
			     unsigned which, enum check_class class,
			     const struct rec *witness, uint32_t word)
{
	const uint32_t page_words = 4096 / WORD;
	uint32_t from = word / page_words * page_words, to = from + page_words;
	const struct log *log = &h->logs[which];
	uint32_t first = log->n;

	if (ev->taken || !log->n)
		return;
	if (!witness)
		witness = &log->recs[log->n - 1];
	word = word / TRACK * TRACK + h->phase;
	ev->taken = true;
	ev->weak = true;
	ev->class = class;
	ev->word = word;
	ev->began = h->began - h->before_ns;
	take_profile(ev, h);
	/* What changes no word may be at fault as well. */
	for (unsigned n = 0; first > 0 && n < EVIDENCE_OPS; first--) {
		const struct rec *rec = &log->recs[first - 1];

		if (rec > witness)
			continue;
		n += !rec->words || overlaps(rec, from, to);
	}
	for (uint32_t i = first; i < log->n && ev->n < EVIDENCE_OPS; i++) {
		const struct rec *rec = &log->recs[i];

		if (rec > witness)
			break;
		if (rec->words && !overlaps(rec, from, to) && rec != witness)
			continue;
		fill_op(&ev->ops[ev->n], h, rec, word);
		ev->ops[ev->n].witness = rec == witness;
		ev->n++;
	}
}
