/* SPDX-License-Identifier: MIT */
/*
 * cache.c: the disk's volatile cache, as a crash shows it.
 *
 * A disk that is watched keeps, of each block, every content that it had since the
 * last flush that ended, and the one before: a crash leaves any of them, each block
 * by itself (a block is written in one piece, and the disk writes in any order). It
 * leaves any length that the file had in that time. A flush makes durable what was
 * there when it began.
 */
#include <string.h>

#include "sim/machine.h"

#define BLOCKS_MAX 2048u

struct version {
	struct version *older;
	uint64_t serial;
	char data[SIM_BLOCK];
};

struct length {
	struct length *older;
	uint64_t serial, len;
};

struct sim_cache {
	uint64_t serial;
	struct length *length;
	struct version *block[BLOCKS_MAX];	/* NULL: zeros, always */
};

struct sim_cache *sim_cache_create(uint64_t len)
{
	struct sim_cache *c = sim_machine_alloc(sizeof(*c));

	sim_cache_length(c, len);
	return c;
}

void sim_cache_block(struct sim_cache *c, uint64_t block, const char *data)
{
	struct version *v = sim_machine_alloc(sizeof(*v)), *first;

	if (block >= BLOCKS_MAX)
		sim_violation("scenario: block %llu of a disk that is to crash",
			      (unsigned long long)block);
	if (!c->block[block]) {
		first = sim_machine_alloc(sizeof(*first));
		c->block[block] = first;
	}
	v->older = c->block[block];
	v->serial = ++c->serial;
	memcpy(v->data, data, SIM_BLOCK);
	c->block[block] = v;
}

void sim_cache_length(struct sim_cache *c, uint64_t len)
{
	struct length *l = sim_machine_alloc(sizeof(*l));

	*l = (struct length){ c->length, ++c->serial, len };
	c->length = l;
}

uint64_t sim_cache_flush_begin(const struct sim_cache *c)
{
	return c->serial;
}

void sim_cache_flush_end(struct sim_cache *c, uint64_t serial)
{
	struct length *l = c->length;

	/* A flush that began later may have ended before. */
	while (l && l->serial > serial)
		l = l->older;
	if (l)
		l->older = NULL;
	for (unsigned b = 0; b < BLOCKS_MAX; b++) {
		struct version *v = c->block[b];

		while (v && v->serial > serial)
			v = v->older;
		if (v)
			v->older = NULL;
	}
}

static uint64_t pick(uint64_t *random, uint64_t below)
{
	return (sim_next_random(random) >> 32) % below;
}

uint64_t sim_cache_crash(const struct sim_cache *c, uint64_t *random, char *image,
			 uint64_t size)
{
	const struct length *l;
	uint64_t n = 0;

	for (uint64_t b = 0; b < BLOCKS_MAX && (b + 1) * SIM_BLOCK <= size; b++) {
		const struct version *v;

		memset(image + b * SIM_BLOCK, 0, SIM_BLOCK);
		for (n = 0, v = c->block[b]; v; v = v->older)
			n++;
		if (!n)
			continue;
		for (v = c->block[b], n = pick(random, n); n; n--)
			v = v->older;
		memcpy(image + b * SIM_BLOCK, v->data, SIM_BLOCK);
	}
	for (n = 0, l = c->length; l; l = l->older)
		n++;
	for (l = c->length, n = pick(random, n); n; n--)
		l = l->older;
	return l->len;
}
