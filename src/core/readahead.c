/* SPDX-License-Identifier: MIT */
/*
 * Readahead: pages are read before they are wanted.
 *
 * Streams. A file follows MKW__RA_STREAMS of them: where the last page was, how far
 * the next lies from it (step: 1 forward, -1 backward, else strided), and how many
 * steps have been asked for ahead (reach). Only two things feed them:
 *   a miss   whoever finds the page ABSENT, and reads it himself
 *   a mark   what was read ahead for a fault is mapped where that fault was, but
 *            for the page that its stream meets first, which has PG_MARK: so the
 *            first touch of a request, by a fault or a read, is noticed, and
 *            there is one fault a request
 * A touch where no stream leads begins one, in place of the one longest unused. Its
 * second touch says the step; a step of more than one page needs a third. From then
 * on the window grows with every touch, by four, then by two, to RA_PAGES: random
 * access reads nothing ahead.
 *
 * Requests. Whoever touches asks for the pages by a request in a queue; the pager
 * reads them, on its own loop, a run of MKW__IO_PAGES at a time, each with a buffer
 * and with the fault lock, shared, from before FILLING to the publication (R6), taken
 * by try-lock. They are wishes: what finds no frame, no buffer while none of its own
 * is in flight, no lock, or no place in the queue, is dropped, and the miss that comes
 * then continues the stream. The last buffers are left to those who cannot do without.
 *
 * The streams are guarded by the inode's tree mutex, the queue by the QUEUE mutex; the
 * reads are the pager thread's own. An inode in a request, or in a read, is pinned.
 */
#include <errno.h>

#include "core/engine.h"

/* The window: what a stream's second touch gets; from where on it runs ahead of the
 * reader; its end. In steps. */
#define RA_FIRST   4u
#define RA_ASYNC   16u
#define RA_PAGES   1024u
#define RA_STRIDES 32u
/* The second touch of a stream lies no further than this from the first. */
#define RA_NEAR 256
/* Buffers that readahead leaves alone. */
#define RA_SPARE (MKW__BUFFERS / 4)

/* ---- streams ---------------------------------------------------------- */

static uint64_t distance(int64_t step)
{
	return step < 0 ? -(uint64_t)step : (uint64_t)step;
}

/* How many steps idx is ahead of the stream; 0: it does not lie on its way. */
static uint32_t steps_to(const struct mkw__ra_stream *s, uint64_t idx)
{
	uint64_t d = s->step < 0 ? s->last - idx : idx - s->last;

	if (!s->step || (s->step < 0) != (idx < s->last) ||
	    d % distance(s->step))
		return 0;
	d /= distance(s->step);
	return d <= s->reach ? (uint32_t)d : 0;
}

/* The stream that a touch of idx continues, and by how many steps. */
static struct mkw__ra_stream *find(struct mkw__inode *in, uint64_t idx,
				   uint32_t *steps)
{
	struct mkw__ra_stream *s, *near = NULL;

	for (s = in->ra; s < in->ra + MKW__RA_STREAMS; s++) {
		*steps = steps_to(s, idx);
		if (*steps)
			return s;
	}
	*steps = 1;
	for (s = in->ra; s < in->ra + MKW__RA_STREAMS; s++) {
		int64_t d = (int64_t)(idx - s->last);

		if (s->step || !s->used || !d || d > RA_NEAR || d < -RA_NEAR)
			continue;
		if (d == 1 || d == -1)
			return s;
		near = s;
	}
	return near;
}

/* Is the page the last one of a stream, touched once more? */
static bool known(const struct mkw__inode *in, uint64_t idx)
{
	for (unsigned i = 0; i < MKW__RA_STREAMS; i++)
		if (in->ra[i].used && in->ra[i].last == idx)
			return true;
	return false;
}

static struct mkw__ra_stream *begin(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__ra_stream *s = in->ra;

	for (unsigned i = 1; i < MKW__RA_STREAMS; i++)
		if (in->ra[i].used < s->used)
			s = &in->ra[i];
	*s = (struct mkw__ra_stream){ .last = idx, .reach = 1 };
	if (in->advice == MKW_ADVICE_SEQUENTIAL) {
		s->step = 1;
		s->window = MKW__IO_PAGES;
	}
	return s;
}

static uint32_t window_max(const struct mkw__inode *in,
			   const struct mkw__ra_stream *s)
{
	uint64_t most = distance(s->step) == 1 ? RA_PAGES : RA_STRIDES;

	return (uint32_t)mkw__min(most, in->engine->pool.frames_max / 8);
}

static void grow(const struct mkw__inode *in, struct mkw__ra_stream *s)
{
	uint32_t window = s->window < RA_ASYNC ? 4 * s->window : 2 * s->window;

	if (!s->window)
		window = RA_FIRST;
	s->window = (uint32_t)mkw__min(window, window_max(in, s));
}

/* What is to be asked for so that the stream has its window ahead of it. */
static void ask(struct mkw__ra_stream *s, struct mkw__ra_req *req)
{
	uint64_t room = s->step < 0 ? s->last / distance(s->step) + 1 :
				      UINT32_MAX;
	uint32_t want = (uint32_t)mkw__min(s->window, room);
	uint32_t half = (want + 1) / 2;

	/*
	 * By halves: less would be dribbles, and after more the next touch, of its
	 * mark, would be too early to ask again, and the one after that a miss.
	 */
	if ((s->step == 1 && want < RA_ASYNC) || s->reach > want - half)
		return;
	req->count = half;
	req->step = s->step;
	req->passing = distance(s->step) == 1;
	req->marked = false;
	req->first = s->last + (uint64_t)(s->step * (int64_t)s->reach);
	s->reach += req->count;
}

/* idx was touched, and pages [idx, idx + n) are being read by who touched it. */
static void touch(struct mkw__inode *in, uint64_t idx, size_t n,
		  struct mkw__ra_req *req)
{
	struct mkw__ra_stream *s;
	uint32_t steps;

	req->count = 0;
	if (in->advice == MKW_ADVICE_RANDOM || known(in, idx))
		return;
	s = find(in, idx, &steps);
	if (!s) {
		s = begin(in, idx);
	} else if (!s->step) {
		s->step = (int64_t)(idx - s->last);
		s->reach = 1;
		if (distance(s->step) == 1)
			grow(in, s);
	} else {
		s->reach -= steps;
		grow(in, s);
	}
	s->last = idx;
	s->used = ++in->ra_clock;
	s->reach = (uint32_t)mkw__max(s->reach, s->step == 1 ? n : 1);
	if (s->window)
		ask(s, req);
}

size_t mkw__ra_window_locked(struct mkw__inode *in, uint64_t idx)
{
	struct mkw__ra_stream *s;
	uint32_t steps;

	if (in->advice == MKW_ADVICE_RANDOM || known(in, idx))
		return 1;
	s = find(in, idx, &steps);
	if (!s)
		return in->advice == MKW_ADVICE_SEQUENTIAL ? MKW__IO_PAGES : 1;
	if (s->step ? s->step != 1 : idx != s->last + 1)
		return 1;
	return mkw__min(mkw__max(s->window, RA_FIRST), MKW__IO_PAGES);
}

void mkw__ra_missed_locked(struct mkw__inode *in, uint64_t idx, size_t n,
			   struct mkw__ra_req *req)
{
	touch(in, idx, n, req);
}

void mkw__ra_mark_locked(struct mkw__inode *in, uint64_t idx,
			 struct mkw__ra_req *req)
{
	uint32_t word = mkw__page_get_locked(in, idx);

	req->count = 0;
	if (!(word & PG_MARK) || (word & PG_LOCKED))
		return;
	mkw__page_set_locked(in, idx, word & ~PG_MARK);
	touch(in, idx, 1, req);
}

void mkw__ra_advise(struct mkw__inode *in, enum mkw_advice advice)
{
	mkw__mutex_lock(&in->tree);
	in->advice = advice;
	for (unsigned i = 0; i < MKW__RA_STREAMS; i++)
		in->ra[i] = (struct mkw__ra_stream){ 0 };
	mkw__mutex_unlock(&in->tree);
}

/* ---- requests --------------------------------------------------------- */

bool mkw__ra_post(struct mkw__inode *in, const struct mkw__ra_req *req,
		  bool kick)
{
	struct mkw__pager *p = &in->engine->pager;
	bool queued;

	if (!req->count || !mkw__inode_pin(in))
		return false;
	mkw__mutex_lock(&p->queue);
	queued = p->wishes < MKW__RA_WISHES && !p->quiet;
	if (queued) {
		struct mkw__ra_req *w =
			&p->wish[(p->first_wish + p->wishes++) % MKW__RA_WISHES];

		*w = *req;
		w->inode = in;
	}
	mkw__mutex_unlock(&p->queue);
	if (!queued)
		mkw__inode_unpin(in);
	else if (kick)
		mkw__os_loop_kick(p->loop);
	return queued;
}

/* The oldest request, which stays in the queue until it is dropped. */
static bool first_wish(struct mkw__pager *p, struct mkw__ra_req *req)
{
	bool some;

	mkw__mutex_lock(&p->queue);
	some = p->wishes > 0;
	if (some)
		*req = p->wish[p->first_wish];
	mkw__mutex_unlock(&p->queue);
	return some;
}

/* *req is what is left of the oldest request. */
static void put_back(struct mkw__pager *p, const struct mkw__ra_req *req)
{
	mkw__mutex_lock(&p->queue);
	p->wish[p->first_wish] = *req;
	mkw__mutex_unlock(&p->queue);
}

static void drop_wish(struct mkw__pager *p, const struct mkw__ra_req *req)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);

	mkw__inode_unpin(req->inode);
	mkw__mutex_lock(&p->queue);
	p->first_wish = (p->first_wish + 1) % MKW__RA_WISHES;
	if (!--p->wishes)
		TAILQ_CONCAT(&woken, &p->read_waiters, link);
	mkw__mutex_unlock(&p->queue);
	mkw__waiters_wake(&woken);
}

/* ---- reads ------------------------------------------------------------ */

/* Publishes [first, first + n) of what was read, mapped where that is wanted. */
static int publish(struct mkw__ra_io *r, uint64_t first, size_t n, bool map)
{
	struct mkw__inode *in = r->inode;
	unsigned shift = in->engine->page_shift;
	const unsigned char *src = r->buf->mem + ((first - r->first) << shift);
	size_t mapped = 0, done = 0;
	int res;

	if (map)
		mapped = mkw__fill_publish_mapped(in, r->mmu,
						  r->base + (uintptr_t)(first << shift),
						  first, n, src, false);
	res = mkw__fill_publish(in, first + mapped, n - mapped,
				src + (mapped << shift), &done);
	mkw__page_end_run(in, first, mapped, PG_CLEAN | PG_MAPPED);
	mkw__page_end_run(in, first + mapped, done, PG_CLEAN);
	mkw__page_end_run(in, first + mapped + done, n - mapped - done,
			  PG_ABSENT);
	return res;
}

/* The mark's page last: who waits for it finds the others, and goes on to them. */
static int publish_all(struct mkw__ra_io *r)
{
	uint64_t mark = r->back ? r->first + r->pages - 1 : r->first;
	uint64_t rest = r->back ? r->first : r->first + 1;
	size_t done = 0;
	int res, err;

	mkw__fill_zero_tail(r->inode, r->first, r->pages, r->buf->mem);
	if (!r->mark)
		return publish(r, r->first, r->pages, r->mmu != NULL);
	res = publish(r, rest, r->pages - 1, r->mmu != NULL);
	err = mkw__fill_publish(r->inode, mark, 1,
				r->buf->mem + ((mark - r->first)
					       << r->inode->engine->page_shift),
				&done);
	mkw__page_end_run(r->inode, mark, 1, done ? PG_CLEAN | PG_MARK :
						    PG_ABSENT);
	return res ? res : err;
}

/* Reads begun or ended; the last end is what mkw__ra_quiesce() waits for. */
static void count_reads(struct mkw__pager *p, int by)
{
	struct mkw__waiters woken = TAILQ_HEAD_INITIALIZER(woken);

	mkw__mutex_lock(&p->queue);
	p->reads += (unsigned)by;
	if (!p->reads)
		TAILQ_CONCAT(&woken, &p->read_waiters, link);
	mkw__mutex_unlock(&p->queue);
	mkw__waiters_wake(&woken);
}

static void read_done(struct mkw__os_io *io, int res)
{
	struct mkw__ra_io *r = MKW__CONTAINER(io, struct mkw__ra_io, io);
	struct mkw__inode *in = r->inode;
	struct mkw_engine *e = in->engine;
	struct mkw__range_lock *rl = mkw__excl_fault_lock(in);
	size_t pages = r->pages;

	mkw__count(&e->count.fills, 1);
	mkw__count(&e->count.fill_pages, pages);
	if (res)
		mkw__page_end_run(in, r->first, r->pages, PG_ABSENT);
	else
		res = publish_all(r);
	if (res)
		mkw__count(&e->count.fill_errors, 1);
	mkw__fill_tell(in, r->first, r->pages, res);
	if (rl)
		mkw__range_unlock_ticket(rl, &r->ticket);
	mkw__pool_buf_put(e, r->buf);
	mkw__pool_poke(e);
	mkw__inode_unpin(in);
	mkw__count(&e->count.readahead_pages, pages);
	count_reads(&e->pager, -1);
}

/* The next run of a request: pages [*lo, *lo + n), n returned; 0: past the end. */
static size_t next_run(const struct mkw__ra_req *req, uint64_t *lo)
{
	struct mkw__inode *in = req->inode;
	uint64_t end = mkw__pages_up(in->engine,
				     atomic_load_explicit(&in->size,
							  memory_order_acquire));
	size_t n = distance(req->step) == 1 ?
			   mkw__min(req->count, MKW__IO_PAGES) : 1;

	*lo = req->step < 0 ? req->first - (n - 1) : req->first;
	return *lo < end ? mkw__min(n, end - *lo) : 0;
}

/*
 * Reads what is absent of the run [lo, end), whose fault lock *ticket is. False: the
 * cache has no room.
 */
static bool read_run(struct mkw__ra_req *req, struct mkw__buf *buf,
		     uint64_t lo, uint64_t end, struct mkw__ra_io *r)
{
	struct mkw__inode *in = req->inode;
	struct mkw_engine *e = in->engine;
	size_t n = 0;

	r->pages = 0;
	/* The wish has a pin, and dies with it: going away since, perhaps. */
	if (!mkw__inode_pin(in))
		return false;
	mkw__mutex_lock(&in->tree);
	while (lo < end && mkw__page_get_locked(in, lo))
		lo++;
	if (lo < end)
		n = mkw__fill_begin_locked(in, lo, end - lo, true);
	for (uint64_t i = lo; i < lo + n; i += MKW__LEAF_PAGES)
		mkw__page_once_locked(in, i, req->passing);
	mkw__mutex_unlock(&in->tree);
	if (!n) {
		mkw__inode_unpin(in);
		return lo == end;
	}
	r->pages = n;
	r->inode = in;
	r->buf = buf;
	r->first = lo;
	r->back = req->step < 0;
	r->mark = !req->marked;
	req->marked = true;
	r->mmu = req->mmu;
	r->base = req->base;
	r->io = (struct mkw__os_io){ .done = read_done,
				     .off = lo << e->page_shift,
				     .buf = buf->mem,
				     .len = n << e->page_shift };
	count_reads(&e->pager, 1);
	mkw__store_submit(in->store, e->pager.loop, &r->io);
	return true;
}

/* Starts the next read of a request. False: it is over, or dropped. */
static bool go_on(struct mkw_engine *e, struct mkw__ra_req *req,
		  struct mkw__buf *buf, bool *used)
{
	struct mkw__ra_io *r = &e->ra_ios[buf - e->pool.buf];
	struct mkw__inode *in = req->inode;
	struct mkw__range_lock *rl = mkw__excl_fault_lock(in);
	unsigned shift = e->page_shift;
	uint64_t lo;
	size_t n = next_run(req, &lo);
	bool room = true;

	if (!n)
		return false;
	if (!rl || mkw__range_trylock_ticket(rl, &r->ticket, lo << shift,
					     (lo + n) << shift, false)) {
		room = read_run(req, buf, lo, lo + n, r);
		*used = r->pages > 0;
		if (!*used && rl) {
			mkw__range_unlock_ticket(rl, &r->ticket);
			mkw__pool_poke(e);
		}
	}
	if (distance(req->step) != 1)
		n = 1;
	req->first += (uint64_t)(req->step * (int64_t)n);
	req->count -= (uint32_t)mkw__min(n, req->count);
	return room && req->count;
}

void mkw__ra_quiesce(struct mkw_engine *e, bool on)
{
	struct mkw__pager *p = &e->pager;
	struct mkw__sleeper s;

	mkw__mutex_lock(&p->queue);
	p->quiet = on;
	while (on && (p->reads || p->wishes)) {
		mkw__sleeper_init(&s);
		TAILQ_INSERT_TAIL(&p->read_waiters, &s.waiter, link);
		mkw__mutex_unlock(&p->queue);
		mkw__os_loop_kick(p->loop);
		mkw__sleeper_wait(&s);
		mkw__mutex_lock(&p->queue);
	}
	mkw__mutex_unlock(&p->queue);
}

void mkw__ra_run(struct mkw_engine *e)
{
	struct mkw__pager *p = &e->pager;
	struct mkw__ra_req req;
	struct mkw__buf *buf;
	bool used, more;

	while (first_wish(p, &req)) {
		buf = mkw__pool_buf_spare(e, RA_SPARE);
		if (!buf) {
			/* A read that ends comes by here again. */
			if (p->reads)
				return;
			drop_wish(p, &req);
			continue;
		}
		used = false;
		more = !p->quiet && mkw__inode_used(req.inode) &&
		       go_on(e, &req, buf, &used);
		if (!used)
			mkw__pool_buf_put(e, buf);
		if (more)
			put_back(p, &req);
		else
			drop_wish(p, &req);
	}
}
