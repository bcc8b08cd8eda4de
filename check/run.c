/* SPDX-License-Identifier: MIT */
/*
 * run.c: a run of one target: threads, epochs, and the quiet points between.
 *
 * An epoch:
 *   1. the threads hammer, each recording into its own log, until the time is up
 *      or a log is full; then they park
 *   2. the file gets its full length, and is read in every way: through the
 *      mapping, by read, and after a sync by direct read. These are recorded too,
 *      as the last reads of every word
 *   3. the history is judged
 *   4. a word is stored past the end of the file, in its last page, and the file
 *      extended in one of three ways: the word must not be there
 *   5. what the file now holds is what the next epoch begins with. Where the ways
 *      did not agree all of it is written anew
 *
 * 1 is done by hammer threads, 2 to 5 by the quiet thread, which has a log like
 * the others, the last one. The main thread touches no target while they live: it
 * tells them to go and waits for them to park. One that does not for
 * cfg->hang_seconds is stuck: the run ends there, and leaves it behind with all
 * that it may touch.
 *
 * The hammer threads meet at run->mutex; while they run they share nothing but the
 * stop flag. The semaphores hand everything else over.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/evidence.h"
#include "check/holes.h"
#include "check/interrupt.h"
#include "check/mix.h"
#include "check/verdict.h"

#define EPOCH_NS 250000000u
#define TAIL_BYTES (128u * 1024)
/* Of a larger file epochs are longer, since it takes longer to look at. */
#define EPOCH_BYTES (8u << 20)
#define LOG_RECS_MAX (1u << 17)
/* Fewer make no race. */
#define LOG_RECS_MIN 1024u
/* What a file system may keep for itself of an empty file. */
#define BLOCKS_SLACK (128 * 1024)
/* Epochs between looks at the file's blocks, which cost it all its data. */
#define BLOCKS_EVERY 12

struct run {
	const struct check_config *cfg;	/* &own_cfg: stuck threads go on */
	struct check_config own_cfg;
	struct check_result *res;
	struct target target;
	struct layout layout;
	struct worker *workers;	/* cfg->threads, and then the quiet thread's */
	pthread_t *threads;
	unsigned started;
	struct log *logs;	/* copies of the workers', for the judge */
	struct verdict *verdict;
	uint64_t *initial;	/* what each word holds as an epoch begins */
	uint64_t *ways[3];	/* the file as mapped, read, directly read */
	bool stuck;
	int64_t blocks_empty;	/* of the file when it was one hole */
	struct holes *holes;	/* NULL: blocks do not come and go by the page */
	bool shifted;		/* data may be elsewhere than it was written */
	struct late *late;	/* of cfg->delay_ns, where it can be had */

	pthread_mutex_t mutex;	/* of epoch, profile, phase, parked */
	pthread_cond_t go;
	unsigned epoch;		/* that the threads may run; 0: none yet */
	const struct profile *profile;
	unsigned phase;
	bool bare;		/* the epoch is not recorded */
	_Atomic bool stop, quit;
	pthread_cond_t came;	/* one more is parked */
	unsigned parked;

	pthread_t quiet;
	bool attended;		/* there is a quiet thread */
	sem_t rest;		/* it may run */
	uint64_t began;		/* the epoch */
	uint64_t before_ns;	/* hammering time before it */
	int quiet_err;		/* of judging it */
};

/* What ends an epoch early: a full log or a signal. */
static sem_t hurry;
/* That the process may run on. */
static cpu_set_t all_cpus;

/* ---- the threads --------------------------------------------------------- */

static void park(struct run *run)
{
	pthread_mutex_lock(&run->mutex);
	run->parked++;
	pthread_cond_signal(&run->came);
	pthread_mutex_unlock(&run->mutex);
}

/* Every other pair of epochs, threads keep to a processor each. */
static void pin(unsigned thread, unsigned epoch)
{
	cpu_set_t now;
	int n = 0, want;

	if (epoch % 2)
		return;
	if (epoch % 4) {
		sched_setaffinity(0, sizeof(all_cpus), &all_cpus);
		return;
	}
	want = (int)thread % CPU_COUNT(&all_cpus);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all_cpus) || n++ != want)
			continue;
		CPU_ZERO(&now);
		CPU_SET(cpu, &now);
		sched_setaffinity(0, sizeof(now), &now);
		return;
	}
}

struct thread_arg {
	struct run *run;
	struct worker *worker;
};

static void *hammer(void *p)
{
	struct thread_arg arg = *(struct thread_arg *)p;
	struct run *run = arg.run;
	struct worker *w = arg.worker;
	const struct profile *profile;
	unsigned seen = 0, phase;

	free(p);
	for (;;) {
		pthread_mutex_lock(&run->mutex);
		while (run->epoch == seen && !atomic_load(&run->quit))
			pthread_cond_wait(&run->go, &run->mutex);
		seen = run->epoch;
		profile = run->profile;
		phase = run->phase;
		w->bare = run->bare;
		w->shifts = 0;
		pthread_mutex_unlock(&run->mutex);
		if (atomic_load(&run->quit))
			return NULL;
		/* Pairs of a measurement are to be alike. */
		pin(w->log.thread, seen + run->cfg->measure);
		while (!atomic_load_explicit(&run->stop, memory_order_relaxed)) {
			if (!log_has_room(&w->log) ||
			    atomic_load(&w->no_space)) {
				sem_post(&hurry);
				break;
			}
			mkw__check_pause(w);
			mkw__check_step(w, profile, phase);
		}
		park(run);
	}
}

static uint64_t epoch_ns(const struct run *run)
{
	uint64_t n = run->cfg->file_bytes / EPOCH_BYTES;

	return EPOCH_NS * (n ? n : 1);
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000u),
				  (long)(ns % 1000000000u) };
}

/* Waits for somebody to be in a hurry. */
static void wait_hurry(uint64_t until_ns)
{
	struct timespec ts = to_timespec(until_ns);

	while (sem_clockwait(&hurry, CLOCK_MONOTONIC, &ts) && errno == EINTR)
		;
}

static void report_stuck(struct run *run)
{
	struct check_count *c = &run->res->classes[CHECK_NO_PROGRESS];
	char who[200] = "";
	size_t n = 0;

	for (unsigned i = 0; i <= run->cfg->threads; i++) {
		int doing = atomic_load(&run->workers[i].doing);

		if (doing < 0)
			continue;
		c->count++;
		if (n < sizeof(who) - 40)
			n += (size_t)snprintf(who + n, sizeof(who) - n,
					      "%sthread %u in %s",
					      n ? ", " : "", i,
					      mkw__check_op_name(
						(enum op_kind)doing));
	}
	if (!c->count)
		c->count = 1;
	c->first_ns = run->before_ns + stamp() - run->began;
	snprintf(c->example, sizeof(c->example),
		 "did not come back within %u s: %s", run->cfg->hang_seconds, who);
	run->stuck = true;
}

/* Waits for n threads to park. False: they are stuck. */
static bool wait_parked(struct run *run, unsigned n)
{
	struct timespec ts = to_timespec(stamp() + run->cfg->hang_seconds *
						UINT64_C(1000000000));
	int err = 0;

	pthread_mutex_lock(&run->mutex);
	while (run->parked < n && !err)
		err = pthread_cond_timedwait(&run->came, &run->mutex, &ts);
	run->parked = 0;
	pthread_mutex_unlock(&run->mutex);
	if (err)
		report_stuck(run);
	return !err;
}

/* Lets the hammer threads run once. False: they are stuck. */
static bool hammer_epoch(struct run *run, uint64_t until)
{
	uint64_t end;

	atomic_store(&run->stop, false);
	while (!sem_trywait(&hurry))
		;
	run->before_ns = run->res->hammer_ns;
	run->began = stamp();
	end = run->began + epoch_ns(run);
	if (end > until)
		end = until;
	pthread_mutex_lock(&run->mutex);
	run->epoch++;
	pthread_cond_broadcast(&run->go);
	pthread_mutex_unlock(&run->mutex);
	if (!mkw__check_interrupted())
		wait_hurry(end);
	atomic_store(&run->stop, true);
	if (!wait_parked(run, run->started))
		return false;
	run->res->hammer_ns += stamp() - run->began;
	return true;
}

/* ---- the quiet point -------------------------------------------------------- */

static struct worker *quiet_worker(struct run *run)
{
	return &run->workers[run->cfg->threads];
}

static void quiet_do(struct run *run, enum op_kind kind, uint32_t word,
		     uint32_t words)
{
	mkw__check_do(quiet_worker(run),
		      &(struct step){ .kind = kind, .word = word,
				      .words = words }, run->phase);
}

/* Reads the whole file in one way, recording it; the words go to way[]. */
static void read_way(struct run *run, enum op_kind kind, uint64_t *way)
{
	struct worker *w = quiet_worker(run);

	for (uint32_t at = 0; at < run->layout.words; at += OP_WORDS_MAX) {
		uint32_t n = run->layout.words - at;

		if (n > OP_WORDS_MAX)
			n = OP_WORDS_MAX;
		quiet_do(run, kind, at, n);
		memcpy(&way[at], w->buf, n * WORD);
	}
}

/* Every way in. Returns whether they agree on all words. */
static bool read_all_ways(struct run *run)
{
	size_t size = run->layout.words * WORD;
	uint64_t **ways = run->ways;

	quiet_do(run, OP_TRUNCATE, run->layout.words, 0);
	read_way(run, OP_LOAD, ways[0]);
	read_way(run, OP_READ, ways[1]);
	quiet_do(run, OP_SYNC, 0, 0);
	if (run->target.direct_align)
		read_way(run, OP_DIRECT_READ, ways[2]);
	else
		read_way(run, OP_READ, ways[2]);
	return !memcmp(ways[0], ways[1], size) &&
	       !memcmp(ways[0], ways[2], size);
}

/* Writes a range of words anew; they are what the next epoch begins with. */
static void rewrite(struct run *run, uint32_t word, uint32_t end)
{
	struct worker *w = quiet_worker(run);

	for (; word < end; word += OP_WORDS_MAX) {
		uint32_t n = end - word;

		if (n > OP_WORDS_MAX)
			n = OP_WORDS_MAX;
		quiet_do(run, OP_WRITE, word, n);
		memcpy(&run->initial[word], w->buf, n * WORD);
	}
}

/* The logs as they are now, of all threads; while nobody writes them. */
static void look_at_logs(struct run *run)
{
	for (unsigned i = 0; i <= run->cfg->threads; i++)
		run->logs[i] = run->workers[i].log;
}

/* Of an anomaly that no value in the history shows. witness: of the log, or NULL. */
static void take_weak(struct run *run, enum check_class class, unsigned log,
		      const struct rec *witness, uint32_t word)
{
	struct evidence *ev = run->cfg->evidence;
	struct history h = { .logs = run->logs, .n_logs = run->cfg->threads + 1,
			     .phase = run->phase, .words = run->layout.words,
			     .began = run->began,
			     .before_ns = run->before_ns,
			     .profile = mkw__check_profile_name(run->profile) };

	if (!ev || ev->taken)
		return;
	look_at_logs(run);
	mkw__evidence_take_last(ev, &h, log, class, witness, word);
}

/*
 * Stores past the end, and extends the file. Leaves the tail as zeros at
 * full length.
 */
static void check_past_end(struct run *run)
{
	static const enum op_kind extenders[] = { OP_TRUNCATE, OP_WRITE,
						  OP_DIRECT_WRITE };
	static const enum op_kind readers[] = { OP_LOAD, OP_READ,
						OP_DIRECT_READ };
	struct worker *w = quiet_worker(run);
	uint32_t page = run->layout.page_words, body = run->layout.body;
	uint32_t end = body + page / 2, hidden = body + page / 2 + page / 4;
	enum op_kind how = extenders[run->res->epochs % 3];
	uint64_t value, shown = 0;
	bool mapped;

	if (how == OP_DIRECT_WRITE && !run->target.direct_align)
		how = OP_WRITE;
	/* By way of the body's end, so that the page begins as zeros. */
	quiet_do(run, OP_TRUNCATE, body, 0);
	quiet_do(run, OP_TRUNCATE, end, 0);
	value = value_make(OP_STORE, w->log.thread, w->log.base + w->log.n,
			   hidden);
	mapped = !mkw__check_mapped(&run->target.map[hidden], &value, true);
	if (how == OP_TRUNCATE)
		quiet_do(run, how, run->layout.words, 0);
	else
		quiet_do(run, how, body + page, page);
	for (unsigned i = 0; i < 3 && mapped && !shown; i++) {
		enum op_kind reader = readers[i];

		if (reader == OP_DIRECT_READ) {
			if (!run->target.direct_align)
				break;
			quiet_do(run, OP_SYNC, 0, 0);
		}
		quiet_do(run, reader, body, page);
		shown = w->buf[hidden - body];
		if (shown)
			take_weak(run, CHECK_PAST_END, run->cfg->threads,
				  &w->log.recs[w->log.n - 1], hidden);
		if (shown)
			mkw__check_count(&run->res->classes[CHECK_PAST_END],
				run->res->hammer_ns,
				"stored at byte %zu past an end at %zu, the file "
				"then extended by %s: %s shows %#" PRIx64,
				hidden * WORD, end * WORD,
				mkw__check_op_name(how),
				mkw__check_op_name(reader), shown);
	}
	quiet_do(run, OP_TRUNCATE, body, 0);
	quiet_do(run, OP_TRUNCATE, run->layout.words, 0);
	memset(&run->initial[body], 0, (run->layout.words - body) * WORD);
	if (!mapped)
		mkw__check_count(&run->res->classes[CHECK_SPURIOUS_ERROR],
				 run->res->hammer_ns,
				 "store at byte %zu, in the last page of a file "
				 "of %zu bytes: SIGBUS", hidden * WORD,
				 end * WORD);
}

static void stray(struct run *run, const char *what, int64_t got, int64_t want)
{
	take_weak(run, CHECK_STRAY, run->cfg->threads, NULL, 0);
	mkw__check_count(&run->res->classes[CHECK_STRAY], run->res->hammer_ns,
			 "at rest, %s: %" PRId64 ", and it should be %" PRId64,
			 what, got, want);
}

/*
 * Size, and what is said to be a hole. Nothing that reads as data may lie in one;
 * what reads as zeros may be data.
 */
static void check_accounts(struct run *run)
{
	struct target *t = &run->target;
	int64_t full = (int64_t)(run->layout.words * WORD), at, data;

	if (t->ops->size && t->ops->size(t) != full)
		stray(run, "the size of the file", t->ops->size(t), full);
	if (!t->ops->seek)
		return;
	for (at = 0; at < full; at = t->ops->seek(t, data, SEEK_HOLE)) {
		data = t->ops->seek(t, at, SEEK_DATA);
		if (data == -ENXIO)
			data = full;
		if (data < at) {
			stray(run, "SEEK_DATA", data, at);
			return;
		}
		for (int64_t i = at / (int64_t)WORD; i < data / (int64_t)WORD; i++)
			if (run->ways[1][i]) {
				stray(run, "the next data after a hole's start, "
				      "which SEEK_DATA gives", data,
				      i * (int64_t)WORD);
				return;
			}
		if (data == full)
			return;
	}
}

/* What the logs say of the file's holes. */
static void learn_holes(struct run *run)
{
	if (!run->holes)
		return;
	look_at_logs(run);
	mkw__holes_learn(run->holes, run->logs, run->cfg->threads + 1);
}

/* There are no blocks where there are holes. The tail is one, by check_past_end(). */
static void check_holes(struct run *run)
{
	struct target *t = &run->target;
	int64_t have, most;

	if (!run->holes)
		return;
	quiet_do(run, OP_SYNC, 0, 0);
	learn_holes(run);
	most = mkw__holes_most(run->holes);
	have = t->ops->blocks(t) - run->blocks_empty;
	if (most >= 0 && have > most)
		stray(run, "bytes of blocks of a file with holes, at most", have,
		      most);
}

/* A file that is all punched has no blocks, wherever they came from. */
static void check_blocks(struct run *run)
{
	struct target *t = &run->target;
	int64_t left;

	if (!t->ops->blocks || !quiet_worker(run)->can_punch ||
	    run->res->epochs % BLOCKS_EVERY)
		return;
	quiet_do(run, OP_PUNCH, 0, run->layout.words);
	quiet_do(run, OP_SYNC, 0, 0);
	left = t->ops->blocks(t);
	if (left > run->blocks_empty + BLOCKS_SLACK)
		stray(run, "bytes of blocks that a file has which is one hole",
		      left, run->blocks_empty);
	memset(run->initial, 0, run->layout.words * WORD);
	rewrite(run, 0, run->layout.words / 2);
}

static void count_mishaps(struct run *run, unsigned i, struct mishaps *m,
			  enum check_class class)
{
	struct check_count *c = &run->res->classes[class];
	const struct rec *rec = &run->workers[i].log.recs[m->first_rec];

	if (!m->n)
		return;
	if (mkw__check_failure(class, run->cfg, true))
		take_weak(run, class, i, rec, rec->word);
	mkw__check_count(c, m->first_ns - run->began + run->before_ns, "%s",
			 m->first);
	c->count += m->n - 1;
	m->n = 0;
}

static void count_errors(struct run *run)
{
	for (unsigned i = 0; i <= run->cfg->threads; i++) {
		struct log *log = &run->workers[i].log;

		count_mishaps(run, i, &log->errors, CHECK_SPURIOUS_ERROR);
		count_mishaps(run, i, &log->granted, CHECK_NOT_DENIED);
	}
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Judges the epoch. 0 or -ENOMEM. */
static int judge(struct run *run)
{
	unsigned n = run->cfg->threads + 1;
	struct history h = {
		.logs = run->logs,
		.n_logs = n,
		.phase = run->phase,
		.words = run->layout.words,
		.initial = run->initial,
		.atomic = run->target.ops->atomic,
		.strict = run->cfg->strict,
		.atomic_loads = run->cfg->atomic_writes &&
				run->cfg->target_ops == &mkw__check_engine_target,
		.profile = mkw__check_profile_name(run->profile),
		.evidence = run->cfg->evidence,
		.began = run->began,
		.before_ns = run->before_ns,
		.shifted = run->shifted,
	};
	struct check_count *stale = &run->res->classes[CHECK_STALE_READ];
	bool agree, failed;
	uint64_t began;
	int64_t found;

	agree = read_all_ways(run);
	/* Who could not read does not disagree; that is counted by itself. */
	failed = quiet_worker(run)->log.errors.n;
	look_at_logs(run);
	began = cpu_ns();
	found = mkw__verdict_judge(run->verdict, &h, run->res->classes);
	run->res->judging_ns += cpu_ns() - began;
	for (unsigned i = 0; i < n; i++)
		run->res->judged += run->logs[i].n;
	run->res->judged_words = mkw__verdict_judged(run->verdict);
	if (found < 0)
		return (int)found;
	run->shifted |= run->workers[0].shifts > 0;
	/* The words that are not tracked. */
	if (!agree && !found && !failed)
		mkw__check_count(stale, run->res->hammer_ns,
				 "at rest, the mapping, read, and direct read "
				 "do not agree");
	check_accounts(run);
	if (agree)
		memcpy(run->initial, run->ways[1],
		       run->layout.words * WORD);
	else
		rewrite(run, 0, run->layout.words);
	return 0;
}

static void clear_logs(struct run *run)
{
	learn_holes(run);
	for (unsigned i = 0; i <= run->cfg->threads; i++) {
		struct log *log = &run->workers[i].log;

		log->base += log->n;
		log->n = 0;
		log->n_vals = 0;
	}
}

static void *attend(void *arg)
{
	struct run *run = arg;

	for (;;) {
		while (sem_wait(&run->rest))
			;
		if (atomic_load(&run->quit))
			return NULL;
		if (run->bare) {
			quiet_do(run, OP_TRUNCATE, run->layout.words, 0);
			rewrite(run, 0, run->layout.words);
			clear_logs(run);
			park(run);
			continue;
		}
		run->quiet_err = judge(run);
		if (!run->quiet_err) {
			check_past_end(run);
			check_holes(run);
			check_blocks(run);
		}
		count_errors(run);
		clear_logs(run);
		park(run);
	}
}

/* 0 or a negative errno, with a message in the result. */
static int start_threads(struct run *run)
{
	sigset_t block, saved;
	int err = 0;

	/* Signals are for the main thread; those of a fault for whose it is. */
	sigfillset(&block);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &block, &saved);
	err = pthread_create(&run->quiet, NULL, attend, run);
	run->attended = !err;
	while (run->started < run->cfg->threads && !err) {
		struct thread_arg *arg = malloc(sizeof(*arg));

		if (!arg) {
			err = ENOMEM;
			break;
		}
		*arg = (struct thread_arg){ run, &run->workers[run->started] };
		err = pthread_create(&run->threads[run->started], NULL, hammer,
				     arg);
		if (err)
			free(arg);
		else
			run->started++;
	}
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (err)
		snprintf(run->res->error, sizeof(run->res->error),
			 "%u threads were asked for, and thread %u could not be "
			 "started: %s", run->cfg->threads, run->started + 1,
			 strerror(err));
	return -err;
}

static void join_threads(struct run *run)
{
	pthread_mutex_lock(&run->mutex);
	atomic_store(&run->quit, true);
	pthread_cond_broadcast(&run->go);
	pthread_mutex_unlock(&run->mutex);
	sem_post(&run->rest);
	if (run->attended)
		pthread_join(run->quiet, NULL);
	for (unsigned i = 0; i < run->started; i++)
		pthread_join(run->threads[i], NULL);
}

static void progress(struct run *run, uint64_t began, bool last)
{
	const struct check_result *res = run->res;
	uint64_t ops = 0, bad = 0;

	if (!run->cfg->progress)
		return;
	for (unsigned i = 0; i < CHECK_CLASSES; i++)
		if (i != CHECK_TORN || res->atomic)
			bad += res->classes[i].count;
	for (unsigned i = 0; i < run->cfg->threads; i++)
		for (unsigned k = 0; k < OP_KINDS; k++)
			ops += atomic_load(&run->workers[i].done[k]);
	if (last)
		fprintf(stderr, "\r\033[K");
	else
		fprintf(stderr, "\r\033[K%s: %.0f of %.0f s, %" PRIu64
			" operations, %s%" PRIu64 " anomalies\033[0m",
			res->label, (double)(stamp() - began) / 1e9,
			run->cfg->seconds, ops,
			bad ? "\033[31m" : "\033[32m", bad);
}

/* ---- set-up ------------------------------------------------------------------- */

static void note(struct run *run, const char *fmt, const char *a,
		 const char *b)
{
	size_t n = strlen(run->res->notes);

	snprintf(run->res->notes + n, sizeof(run->res->notes) - n, fmt, a, b);
}

/* Does the target have the operation? */
static bool probe(struct run *run, enum op_kind kind, int err)
{
	if (!err)
		return true;
	note(run, "%s skipped: %s\n", mkw__check_op_name(kind),
	     strerror(-err));
	return false;
}

/*
 * The quiet thread reads the file in three ways and may write it twice, in pieces
 * of the longest operation; and some more around its end.
 */
static uint32_t quiet_recs(const struct check_config *cfg)
{
	return (uint32_t)(6 * cfg->file_bytes / (OP_WORDS_MAX * WORD)) + 256;
}

static uint32_t quiet_vals(const struct check_config *cfg)
{
	return (uint32_t)(3 * cfg->file_bytes / WORD / TRACK) + 16384;
}

/* Of the file's size: what it was, three looks at it, the quiet thread's log. */
static uint64_t fixed_bytes(const struct check_config *cfg)
{
	/* A value read is judged as one of its word's operations. */
	return 4 * cfg->file_bytes + quiet_vals(cfg) * UINT64_C(16) +
	       quiet_recs(cfg) * sizeof(struct rec) + (4 << 20);
}

/*
 * Records of a log, so that all logs and what judging them takes keep within the
 * memory given: four values a record, its place in the order, and references from
 * the sectors that it touches, a few for the common ones. 0: there is not enough.
 */
static uint32_t log_recs(const struct check_config *cfg, uint64_t *need)
{
	const size_t per_rec = sizeof(struct rec) + 4 * sizeof(uint64_t) + 128;
	uint64_t fixed = fixed_bytes(cfg), n;
	uint64_t mem = cfg->mem_bytes ? cfg->mem_bytes : fixed + (128 << 20);

	*need = fixed + cfg->threads * LOG_RECS_MIN * UINT64_C(1) * per_rec;
	if (mem < *need)
		return 0;
	n = (mem - fixed) / cfg->threads / per_rec;
	return n > LOG_RECS_MAX ? LOG_RECS_MAX : (uint32_t)n;
}

/*
 * A log's memory, all there: a page fault while recording would cost more than the
 * operation.
 */
static bool make_log(struct log *log, uint32_t recs, uint32_t vals)
{
	log->recs_max = recs;
	log->vals_max = vals;
	log->recs = calloc(recs, sizeof(*log->recs));
	log->vals = calloc(vals, sizeof(*log->vals));
	if (!log->recs || !log->vals)
		return false;
	memset(log->recs, 0xff, recs * sizeof(*log->recs));
	memset(log->vals, 0xff, vals * sizeof(*log->vals));
	return true;
}

/* The worker's log and buffer. False: no memory. */
static bool make_worker(struct run *run, unsigned i, uint32_t recs)
{
	const struct check_config *cfg = run->cfg;
	struct worker *w = &run->workers[i];
	bool quiet = i == cfg->threads;

	w->layout = &run->layout;
	w->kinds = cfg->kinds ? cfg->kinds : ~0u;
	w->pages = cfg->pages;
	w->target = &run->target;
	w->rng = cfg->seed * 1000003 + i * 7919;
	w->log.thread = (uint8_t)i;
	atomic_store(&w->doing, -1);
	w->can_punch = true;
	w->can_zero = true;
	if (!make_log(&w->log, quiet ? quiet_recs(cfg) : recs,
		      quiet ? quiet_vals(cfg) : 4 * recs))
		return false;
	if (!quiet) {
		w->delay_ns = cfg->delay_ns;
		w->late = run->late;
	}
	if (w->late) {
		w->buf = mkw__late_buf(w->late, i);
		return true;
	}
	if (posix_memalign((void **)&w->buf, 64 * 1024, OP_WORDS_MAX * WORD)) {
		w->buf = NULL;
		return false;
	}
	memset(w->buf, 0, OP_WORDS_MAX * WORD);
	return true;
}

static int prepare(struct run *run)
{
	const struct check_config *cfg = run->cfg;
	struct target *t = &run->target;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint32_t recs;
	uint64_t need;
	char why[256];
	size_t size;
	int err;

	run->layout.page_words = (uint32_t)(page / WORD);
	size = (size_t)cfg->file_bytes;
	run->layout.body = (uint32_t)((size - TAIL_BYTES) / WORD);
	run->layout.words = (uint32_t)(size / WORD);
	recs = log_recs(cfg, &need);
	if (!recs) {
		snprintf(run->res->error, sizeof(run->res->error),
			 "%u threads on a file of %" PRIu64 " KiB take more "
			 "memory than --mem allows; it would have to be %" PRIu64
			 "M", cfg->threads, cfg->file_bytes >> 10,
			 (need >> 20) + 1);
		return -EINVAL;
	}
	if (cfg->delay_ns) {
		run->late = mkw__late_open(cfg->threads, OP_WORDS_MAX * WORD,
					   why, sizeof(why));
		if (!run->late)
			note(run, "delays only between operations, not inside of "
			     "them: %s%s\n", why, "");
	}
	run->workers = calloc(cfg->threads + 1, sizeof(*run->workers));
	run->threads = calloc(cfg->threads, sizeof(*run->threads));
	run->logs = calloc(cfg->threads + 1, sizeof(*run->logs));
	run->initial = calloc(1, size);
	run->verdict = mkw__verdict_new(cfg->threads < 2 ? 1 :
					(unsigned)sysconf(_SC_NPROCESSORS_ONLN));
	if (!run->workers || !run->threads || !run->logs || !run->initial ||
	    !run->verdict)
		goto no_memory;
	for (unsigned i = 0; i < 3; i++) {
		run->ways[i] = calloc(1, size);
		if (!run->ways[i])
			goto no_memory;
	}
	err = t->ops->open(t, cfg, size);
	if (err) {
		memcpy(run->res->error, t->error, sizeof(t->error));
		return err;
	}
	memcpy(run->res->label, t->label, sizeof(t->label));
	run->res->atomic = t->ops->atomic;
	if (t->note[0])
		note(run, "%s%s\n", t->note, "");
	for (unsigned i = 0; i <= cfg->threads; i++)
		if (!make_worker(run, i, recs))
			goto no_memory;
	if (!probe(run, OP_PUNCH, t->ops->fallocate(t, FALLOC_PUNCH, 0,
						   (off_t)page)))
		for (unsigned i = 0; i <= cfg->threads; i++)
			run->workers[i].can_punch = false;
	if (!probe(run, OP_ZERO, t->ops->fallocate(t, FALLOC_ZERO, 0,
						  (off_t)page)))
		for (unsigned i = 0; i <= cfg->threads; i++)
			run->workers[i].can_zero = false;
	if (cfg->freeze && t->ops->disturb) {
		err = t->ops->disturb(t, DISTURB_FREEZE, 0, 0);
		if (err)
			note(run, "freeze skipped: %s%s\n", strerror(-err), "");
		for (unsigned i = 0; i < cfg->threads && !err; i++)
			run->workers[i].can_freeze = true;
	}
	run->workers[0].can_shift =
		!t->ops->fallocate(t, FALLOC_FL_COLLAPSE_RANGE, 0,
				   (off_t)page) &&
		!t->ops->truncate(t, (off_t)size) &&
		!t->ops->fallocate(t, FALLOC_FL_INSERT_RANGE, 0, (off_t)page) &&
		!t->ops->truncate(t, (off_t)size);
	/* What was tried out may have left some. */
	err = t->ops->truncate(t, 0);
	if (!err)
		err = t->ops->truncate(t, (off_t)size);
	if (err) {
		snprintf(run->res->error, sizeof(run->res->error),
			 "cannot truncate the file: %s", strerror(-err));
		return err;
	}
	if (t->ops->blocks)
		run->blocks_empty = t->ops->blocks(t);
	if (t->ops->blocks &&
	    (t->ops->blocks_exact ||
	     mkw__holes_certain(cfg->dir, t->ops->maps_host))) {
		run->holes = mkw__holes_new(&run->layout);
		if (!run->holes)
			goto no_memory;
	} else if (t->ops->blocks) {
		note(run, "blocks of holes not judged: pages that nobody wrote "
			  "have some here%s%s\n", "", "");
	}
	/* Half of it data, half a hole. */
	rewrite(run, 0, run->layout.words / 2);
	clear_logs(run);
	return 0;

no_memory:
	snprintf(run->res->error, sizeof(run->res->error),
		 "no memory for the logs of %u threads; ask for fewer with "
		 "--threads", cfg->threads);
	return -ENOMEM;
}

static void dispose(struct run *run)
{
	for (unsigned i = 0; run->workers && i <= run->cfg->threads; i++) {
		free(run->workers[i].log.recs);
		free(run->workers[i].log.vals);
		if (!run->workers[i].late)
			free(run->workers[i].buf);
	}
	mkw__late_close(run->late);
	free(run->workers);
	free(run->threads);
	free(run->logs);
	free(run->initial);
	for (unsigned i = 0; i < 3; i++)
		free(run->ways[i]);
	mkw__verdict_free(run->verdict);
	mkw__holes_free(run->holes);
	pthread_cond_destroy(&run->go);
	pthread_mutex_destroy(&run->mutex);
	pthread_cond_destroy(&run->came);
	sem_destroy(&run->rest);
	free(run);
}

/* Has what the run is for been reached before its time? */
static bool enough(const struct run *run)
{
	const struct check_result *res = run->res;

	for (unsigned i = 0; i < CHECK_CLASSES; i++)
		if (run->cfg->until >> i & 1 && res->classes[i].count)
			return true;
	return run->cfg->epochs && res->epochs >= run->cfg->epochs;
}

static uint64_t ops_so_far(const struct run *run)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < run->cfg->threads; i++)
		for (unsigned k = 0; k < OP_KINDS; k++)
			n += atomic_load(&run->workers[i].done[k]);
	return n;
}

/* cfg->measure: the epoch's speed, of which every second one is bare. */
static void note_speed(struct run *run, uint64_t ops, uint64_t ns,
		       double *bare_speed)
{
	struct check_result *res = run->res;
	double speed = ns ? (double)(ops_so_far(run) - ops) / (double)ns : 0;

	if (run->bare)
		*bare_speed = speed;
	else if (*bare_speed > 0 && res->pairs < CHECK_PAIRS_MAX)
		res->recorded_share[res->pairs++] = speed / *bare_speed;
}

/* Epochs until the time is up. 0 or a negative errno. */
static int epochs(struct run *run)
{
	const struct check_config *cfg = run->cfg;
	struct check_result *res = run->res;
	uint64_t start = stamp();
	uint64_t until = start + (uint64_t)(cfg->seconds * 1e9);
	const struct profile *skipped = NULL;
	unsigned turn = 0;
	double bare_speed = 0;

	do {
		uint64_t ops = ops_so_far(run), hammered = res->hammer_ns;
		const struct profile *p = cfg->profile ?
				mkw__check_profile_find(cfg->profile) :
				mkw__check_profile(turn, cfg->atomic_writes);
		const char *why = mkw__check_profile_unfit(p, &run->workers[0]);

		if (why) {
			if (p != skipped)
				note(run, "profile %s skipped: %s\n",
				     mkw__check_profile_name(p), why);
			skipped = p;
			if (cfg->profile)
				return 0;
			turn++;
			continue;
		}
		/* Of two epochs alike the first is bare. */
		run->bare = cfg->measure && !run->bare;
		turn += !run->bare;
		run->profile = p;
		run->phase = (unsigned)(cfg->seed + res->epochs) % TRACK;
		progress(run, start, false);
		if (!hammer_epoch(run, until))
			return 0;
		if (cfg->measure)
			note_speed(run, ops, res->hammer_ns - hammered,
				   &bare_speed);
		res->epochs++;
		sem_post(&run->rest);
		if (!wait_parked(run, 1))
			return 0;
		if (run->quiet_err) {
			snprintf(res->error, sizeof(res->error),
				 "no memory to judge with; ask for fewer "
				 "--threads");
			return run->quiet_err;
		}
		for (unsigned i = 0; i < cfg->threads; i++) {
			if (!atomic_load(&run->workers[i].no_space))
				continue;
			snprintf(res->error, sizeof(res->error),
				 "%s: the file system is full; a check needs "
				 "about %u MiB", cfg->dir,
				 (unsigned)(4 * cfg->file_bytes >> 20));
			return -ENOSPC;
		}
	} while (!mkw__check_interrupted() && stamp() < until && !enough(run));
	progress(run, start, true);
	return 0;
}

int mkw__check_run(const struct check_config *cfg, struct check_result *res)
{
	struct sigaction trap = { .sa_sigaction = mkw__check_trap,
				  .sa_flags = SA_SIGINFO | SA_NODEFER };
	static const int signals[] = { SIGBUS, SIGSEGV };
	struct sigaction old[2], now;
	pthread_condattr_t monotonic;
	uint64_t began = stamp();
	struct run *run = calloc(1, sizeof(*run));
	int err;

	*res = (struct check_result){ .epochs = 0 };
	if (!run) {
		snprintf(res->error, sizeof(res->error), "no memory");
		return -ENOMEM;
	}
	run->own_cfg = *cfg;
	run->cfg = &run->own_cfg;
	run->res = res;
	run->target.ops = cfg->target_ops;
	pthread_mutex_init(&run->mutex, NULL);
	pthread_cond_init(&run->go, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&run->came, &monotonic);
	pthread_condattr_destroy(&monotonic);
	sem_init(&run->rest, 0, 0);
	sem_init(&hurry, 0, 0);
	sched_getaffinity(0, sizeof(all_cpus), &all_cpus);
	/* Before the engine is opened: its handler passes on to this one. */
	for (unsigned i = 0; i < 2; i++)
		sigaction(signals[i], &trap, &old[i]);
	mkw__check_catch(&hurry);

	err = prepare(run);
	if (!err)
		err = start_threads(run);
	if (!err)
		err = epochs(run);
	res->interrupted = mkw__check_interrupted();
	res->wall_ns = stamp() - began;
	for (unsigned i = 0; run->workers && i < cfg->threads; i++)
		for (unsigned k = 0; k < OP_KINDS; k++)
			res->ops[k] += atomic_load(&run->workers[i].done[k]);
	if (!run->stuck) {
		join_threads(run);
		for (unsigned i = 0; run->workers && i < cfg->threads; i++)
			mkw__check_unmap_own(&run->workers[i]);
		if (run->target.priv)
			run->target.ops->close(&run->target);
		dispose(run);
	}
	mkw__check_uncatch();
	/* Unless somebody put theirs on top, who may still call ours. */
	for (unsigned i = 0; i < 2; i++) {
		sigaction(signals[i], NULL, &now);
		if (now.sa_sigaction == mkw__check_trap)
			sigaction(signals[i], &old[i], NULL);
	}
	return err;
}
