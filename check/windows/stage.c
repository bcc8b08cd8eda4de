/* SPDX-License-Identifier: MIT */
/*
 * stage.c: what windows are made of.
 *
 * An act is an operation in a thread of its own. Whether it is over is known; that
 * it will not be over before we let go of another is a guess: it has been asleep
 * for GRACE_MS, without a moment of running. Only the name "blocked" depends on
 * the guess. A wrong one lets go too early, and a race may not be shown.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check/mix.h"
#include "check/windows/window.h"

#define GRACE_MS 300
#define LOOK_MS 5
#define CHUNK ((size_t)1 << 20)

static void *need_memory(struct stage *s, size_t len)
{
	void *p;

	if (posix_memalign(&p, 64 * 1024, len))
		mkw__win_end(s, WIN_SKIPPED, "no memory");
	memset(p, 0, len);
	return p;
}

void mkw__win_need(struct stage *s, const char *what, ssize_t result)
{
	if (result < 0)
		mkw__win_end(s, WIN_SKIPPED, "%s: %s", what,
			     strerror((int)-result));
}

void mkw__win_need_direct(struct stage *s, size_t most)
{
	if (!s->sector)
		mkw__win_end(s, WIN_SKIPPED, "there is no direct I/O here");
	if (s->sector > most)
		mkw__win_end(s, WIN_SKIPPED,
			     "direct I/O here comes in units of %zu bytes, and "
			     "%zu are needed", s->sector, most);
}

/* ---- the file ------------------------------------------------------------- */

void mkw__win_fill(void *buf, unsigned tag, off_t off, size_t len)
{
	uint64_t *words = buf;

	for (size_t i = 0; i < len / sizeof(*words); i++)
		words[i] = win_word(tag, (size_t)off / sizeof(*words) + i);
}

void mkw__win_setup(struct stage *s, size_t len)
{
	void *buf = need_memory(s, CHUNK);

	for (size_t at = 0; at < len; at += CHUNK) {
		size_t n = len - at < CHUNK ? len - at : CHUNK;
		ssize_t got;

		mkw__win_fill(buf, TAG_OLD, (off_t)at, n);
		got = s->t.ops->pwrite(&s->t, buf, n, (off_t)at, 0);
		mkw__win_need(s, "writing the file", got);
		if ((size_t)got != n)
			mkw__win_end(s, WIN_SKIPPED, "the file system is full");
	}
	mkw__win_need(s, "fdatasync", s->t.ops->sync(&s->t));
	if (s->t.ops->drop)
		mkw__win_need(s, "dropping the cache", s->t.ops->drop(&s->t));
	free(buf);
}

void mkw__win_warm(struct stage *s, off_t off, size_t len)
{
	void *buf = need_memory(s, len);

	mkw__win_need(s, "reading the file",
		      s->t.ops->pread(&s->t, buf, len, off, 0));
	for (size_t at = 0; at < len; at += s->page) {
		uint64_t value;

		mkw__check_mapped(&s->t.map[((size_t)off + at) / 8], &value,
				  false);
	}
	free(buf);
}

/* ---- acts ------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static ssize_t mapped(struct act *a, uint64_t *words)
{
	_Atomic uint64_t *map = a->stage->t.map + a->off / 8;
	size_t n = a->len / 8;

	for (size_t i = 0; i < n; i++)
		if (mkw__check_mapped(&map[i], &words[i],
				      a->kind == ACT_STORE))
			return -EFAULT;
	return (ssize_t)a->len;
}

static ssize_t perform(struct act *a)
{
	struct target *t = &a->stage->t;

	switch (a->kind) {
	case ACT_LOAD:
	case ACT_STORE:
		a->len = 8;
		return mapped(a, &a->value);
	case ACT_COPY:
		return mapped(a, a->buf);
	case ACT_READ:
		return t->ops->pread(t, a->buf, a->len, a->off, a->way);
	case ACT_WRITE:
		return t->ops->pwrite(t, a->buf, a->len, a->off, a->way);
	case ACT_FALLOCATE:
		return t->ops->fallocate(t, a->mode, a->off, (off_t)a->len);
	case ACT_TRUNCATE:
		return t->ops->truncate(t, a->off);
	case ACT_MSYNC:
		return t->ops->disturb ?
			       t->ops->disturb(t, DISTURB_MSYNC, a->off,
					       a->len) : t->ops->sync(t);
	case ACT_SYNC:
		break;
	}
	return t->ops->sync(t);
}

static void *act_thread(void *p)
{
	struct act *a = p;

	atomic_store(&a->tid, (int)syscall(SYS_gettid));
	a->start = now_ns();
	a->result = perform(a);
	a->end = now_ns();
	pthread_mutex_lock(&a->mutex);
	a->done = true;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->mutex);
	if (a->lever)
		mkw__lever_cancel(a->lever);
	return NULL;
}

void mkw__act_start(struct stage *s, struct act *a)
{
	pthread_condattr_t monotonic;
	int err;

	a->stage = s;
	pthread_mutex_init(&a->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&a->cond, &monotonic);
	pthread_condattr_destroy(&monotonic);
	err = pthread_create(&a->thread, NULL, act_thread, a);
	mkw__win_need(s, "a thread", -err);
}

bool mkw__act_hold(struct stage *s, struct act *a, struct lever *lv)
{
	a->lever = lv;
	a->buf = lv->buf;
	mkw__act_start(s, a);
	return mkw__lever_wait(lv);
}

/* The thread's state letter, as in proc(5). */
static char thread_state(int tid)
{
	char path[64], line[512], *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = fopen(path, "re");
	p = f ? fgets(line, sizeof(line), f) : NULL;
	if (f)
		fclose(f);
	p = p ? strrchr(line, ')') : NULL;
	return p && p[1] ? p[2] : '?';
}

static void find_where(struct act *a)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/wchan",
		 atomic_load(&a->tid));
	f = fopen(path, "re");
	if (!f || !fgets(a->where, sizeof(a->where), f) ||
	    !strcmp(a->where, "0"))
		a->where[0] = '\0';
	if (f)
		fclose(f);
}

bool mkw__act_settle(struct act *a)
{
	unsigned asleep = 0;
	bool done = false;

	while (!done && asleep < GRACE_MS / LOOK_MS) {
		uint64_t t = now_ns() + LOOK_MS * 1000000u;
		struct timespec ts = { (time_t)(t / 1000000000u),
				       (long)(t % 1000000000u) };
		char state;

		pthread_mutex_lock(&a->mutex);
		if (!a->done)
			pthread_cond_timedwait(&a->cond, &a->mutex, &ts);
		done = a->done;
		pthread_mutex_unlock(&a->mutex);
		state = atomic_load(&a->tid) ? thread_state(a->tid) : 'R';
		asleep = state == 'S' || state == 'D' ? asleep + 1 : 0;
	}
	if (!done) {
		a->blocked = true;
		find_where(a);
	}
	return done;
}

void mkw__act_join(struct act *a)
{
	pthread_join(a->thread, NULL);
}

void mkw__act_do(struct stage *s, struct act *a)
{
	a->stage = s;
	a->result = perform(a);
}

/* ---- views ------------------------------------------------------------------- */

static void look(struct stage *s, struct view *v, enum act_kind kind,
		 unsigned way, off_t off, size_t len, const char *name)
{
	struct act a = { .kind = kind, .off = off, .len = len, .way = way };

	v->way = name;
	v->n = len / 8;
	v->words = need_memory(s, len);
	a.buf = v->words;
	mkw__act_do(s, &a);
	if (a.result != (ssize_t)len)
		mkw__win_end(s, WIN_ERROR,
			     "looking at what became of it, %s of %zu bytes at "
			     "%jd gives %s%s", name, len, (intmax_t)off,
			     a.result < 0 ? strerror((int)-a.result) : "",
			     a.result < 0 ? "" : "fewer");
}

void mkw__win_views(struct stage *s, off_t off, size_t len,
		    struct view v[VIEWS])
{
	look(s, &v[VIEW_MAP], ACT_COPY, 0, off, len, "the mapping");
	look(s, &v[VIEW_READ], ACT_READ, 0, off, len, "read");
	/* An error is told once, and what could not be written is not lost. */
	s->sync_err = s->t.ops->sync(&s->t);
	if (s->sync_err)
		s->t.ops->sync(&s->t);
	if (!s->sector && s->t.ops->drop)
		mkw__win_need(s, "dropping the cache", s->t.ops->drop(&s->t));
	look(s, &v[VIEW_DISK], ACT_READ, s->sector ? WAY_DIRECT : 0, off, len,
	     s->sector ? "a direct read after fdatasync" :
			 "a read after fdatasync");
}

size_t mkw__view_count(const struct view *v, size_t from, size_t to,
		       unsigned tag)
{
	size_t n = 0;

	for (size_t i = from / 8; i < to / 8; i++)
		n += win_tag(v->words[i]) == tag;
	return n;
}
