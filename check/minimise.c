/* SPDX-License-Identifier: MIT */
/*
 * minimise.c: the smallest run that still shows the anomaly.
 *
 * A race is a matter of chance, so a trial is a short run that ends when the
 * class is seen, and what is taken away stays away if most of a few trials saw it.
 * Halves first where there are many of a thing, then one by one.
 */
#include <stdlib.h>
#include <string.h>

#include "check/evidence.h"
#include "check/interrupt.h"
#include "check/mix.h"

#define TRIAL_SECONDS 1.0
#define TRIES 3
#define ENOUGH 2
#define FINAL_TRIALS 10

struct search {
	struct check_config cfg;
	unsigned class;
	uint64_t deadline;
	uint64_t seed;
};

static bool out_of_time(const struct search *s)
{
	return stamp() > s->deadline || mkw__check_interrupted();
}

static bool trial(struct search *s, const struct check_config *cfg)
{
	struct check_config c = *cfg;
	struct check_result *res = calloc(1, sizeof(*res));
	bool seen = false;

	if (!res)
		return false;
	c.seed = ++s->seed;
	/* A number of epochs, if given, does not depend on the machine. */
	if (!c.epochs)
		c.seconds = TRIAL_SECONDS;
	c.until = 1u << s->class;
	c.evidence = NULL;
	c.progress = false;
	if (!mkw__check_run(&c, res))
		seen = res->classes[s->class].count > 0;
	free(res);
	return seen;
}

/* Is it still seen? Then this is what we go on with. */
static bool keep(struct search *s, const struct check_config *cfg)
{
	unsigned hits = 0;

	for (unsigned i = 0; i < TRIES && !out_of_time(s); i++) {
		hits += trial(s, cfg);
		if (hits < ENOUGH)
			continue;
		s->cfg = *cfg;
		return true;
	}
	return false;
}

static void fewer_threads(struct search *s)
{
	struct check_config cfg = s->cfg;

	for (cfg.threads = s->cfg.threads / 2; cfg.threads >= 1;
	     cfg.threads /= 2)
		if (!keep(s, &cfg))
			break;
	for (cfg = s->cfg; cfg.threads > 1;) {
		cfg.threads--;
		if (!keep(s, &cfg))
			break;
	}
}

static void fewer_kinds(struct search *s, uint32_t spare)
{
	for (unsigned kind = 0; kind < OP_KINDS; kind++) {
		struct check_config cfg = s->cfg;

		if (spare >> kind & 1 || !(s->cfg.kinds >> kind & 1))
			continue;
		cfg.kinds &= ~(1u << kind);
		keep(s, &cfg);
	}
}

static void fewer_pages(struct search *s)
{
	static const uint32_t pages[] = { 1, 2, 4, 8 };

	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		struct check_config cfg = s->cfg;

		cfg.pages = pages[i];
		if (keep(s, &cfg))
			return;
	}
}

void mkw__check_minimise(const struct check_config *cfg,
			 const struct evidence *ev, double seconds,
			 struct minimal *out)
{
	struct search s = { .cfg = *cfg, .class = ev->class,
			    .seed = cfg->seed };
	uint32_t spare = 0;

	*out = (struct minimal){ .cfg = *cfg, .trial_seconds = TRIAL_SECONDS };
	s.cfg.profile = ev->profile;
	s.cfg.kinds = mkw__check_profile_kinds(
				mkw__check_profile_find(ev->profile));
	s.deadline = stamp() + (uint64_t)(seconds * 1e9);
	/* What shows it, and what is lost, are needed. */
	for (unsigned i = 0; i < ev->n; i++)
		if (ev->ops[i].culprit || ev->ops[i].witness)
			spare |= 1u << ev->ops[i].rec.kind;
	mkw__check_catch(NULL);
	if (keep(&s, &s.cfg)) {
		fewer_threads(&s);
		fewer_kinds(&s, spare);
		fewer_pages(&s);
	}
	out->cfg = s.cfg;
	/* The rate, whatever time that takes. */
	for (; out->trials < FINAL_TRIALS && !mkw__check_interrupted();
	     out->trials++)
		out->hits += trial(&s, &s.cfg);
	mkw__check_uncatch();
}
