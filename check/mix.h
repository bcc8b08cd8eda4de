/* SPDX-License-Identifier: MIT */
/*
 * mix.h: what the threads of a run do, and how one operation is done.
 */
#ifndef MKW_CHECK_MIX_H
#define MKW_CHECK_MIX_H

#include <signal.h>

#include "check/late.h"
#include "check/record.h"

/*
 * The file: a body that always exists, and a tail that truncate takes away and
 * brings back. Sizes are multiples of the page, so the file's end is always
 * between pages.
 */
struct layout {
	uint32_t page_words;
	uint32_t body;		/* words */
	uint32_t words;		/* body and tail */
};

/* A mapping of the thread's own: nobody else touches or changes it. */
struct own {
	_Atomic uint64_t *at;	/* NULL: there is none */
	uint32_t word, words;	/* of the file; whole pages */
	int prot;
};

struct profile;
struct worker;
/* The profile of an epoch: they take turns; atomic: cfg->atomic_writes. */
const struct profile *mkw__check_profile(unsigned epoch, bool atomic);

/* A thread's part of a run. */
struct worker {
	struct log log;
	const struct layout *layout;
	struct target *target;
	bool can_punch, can_zero, can_shift, can_freeze;
	uint32_t kinds;		/* bits of what may be done */
	uint32_t pages;		/* of the part used; 0: the profile's */
	uint64_t rng;
	uint32_t shifts;	/* done in this epoch */
	struct own own;
	bool pinned;		/* it has a pin */
	uint64_t *buf;		/* OP_WORDS_MAX words, aligned for direct I/O */
	struct late *late;	/* whose buffer it is then, by log.thread; or NULL */
	uint32_t delay_ns;	/* the longest; 0: none */
	bool bare;		/* nothing is recorded: to know what that costs */
	_Atomic uint64_t done[OP_KINDS];
	/* What it is in the middle of; for whoever wonders why it hangs. */
	_Atomic int doing;	/* enum op_kind, or -1 */
	_Atomic bool no_space;
};

/* By name, or NULL. */
const struct profile *mkw__check_profile_find(const char *name);
/* Bits of the kinds that it does. */
uint32_t mkw__check_profile_kinds(const struct profile *p);
const char *mkw__check_profile_name(const struct profile *p);
/* NULL, or why the profile has nothing to do here. */
const char *mkw__check_profile_unfit(const struct profile *p,
				     const struct worker *w);
/* A number below n. */
uint32_t mkw__check_random(struct worker *w, uint32_t n);
/* Now and then a pause between two operations: up to w->delay_ns. */
void mkw__check_pause(struct worker *w);
/* One operation, chosen at random and recorded. */
void mkw__check_step(struct worker *w, const struct profile *p,
		     unsigned phase);

struct step {
	enum op_kind kind;
	uint32_t word, words;	/* OP_TRUNCATE: the new size is word */
	unsigned way;
	enum disturb what;	/* OP_DISTURB */
	/*
	 * OP_REMAP: word and words are pages for REMAP_RENEW and REMAP_DENY; for others
	 * words is the length to come. way is the number of an access, below CHECK_PROTS.
	 */
	enum remap change;
	/* WAY_PIN: what is pinned before it; no words: nothing is. And is it unpinned after? */
	struct {
		uint32_t word, words;
		bool store;
	} pin;
	bool unpin;
};

/* One operation, recorded. perform.c. */
void mkw__check_do(struct worker *w, const struct step *s, unsigned phase);
/* The handler of SIGBUS and SIGSEGV, which makes them outcomes of mapped accesses. */
void mkw__check_trap(int sig, siginfo_t *info, void *context);
/* A mapped access of one word. 0, or the signal that it raised. */
int mkw__check_mapped(_Atomic uint64_t *p, uint64_t *value, bool store);

/* mapping.c. What a mapping may be protected to: the last is all access. */
#define CHECK_PROTS 3u
/* An OP_REMAP. 0 or a negative errno. */
int mkw__check_remap(struct worker *w, const struct step *s);
/* Unmaps what the worker has of its own. */
int mkw__check_unmap_own(struct worker *w);
/* Does the mapping by which the step goes forbid it? */
bool mkw__check_denied(const struct worker *w, const struct step *s);
/*
 * A load or store by pinned memory. A count or a negative errno; -EAGAIN: the pin was refused
 * for a reason. After an error there is no pin.
 */
ssize_t mkw__check_pinned(struct worker *w, const struct step *s);
/* One word of a load or store, by the mapping that it goes by: as mkw__check_mapped(). */
int mkw__check_touch(struct worker *w, const struct step *s, uint32_t i);

#endif /* MKW_CHECK_MIX_H */
