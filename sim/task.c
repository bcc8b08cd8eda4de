/* SPDX-License-Identifier: MIT */
/*
 * task.c: tasks, the scheduler, and what tasks wait for each other with.
 *
 * A task runs until it comes to a step or blocks; then the scheduler chooses
 * among those that can go on. Whoever blocks leaves the list of runnable tasks,
 * and whoever ends the wait puts it back. A mutex is not handed over: its
 * waiters become runnable and try again, so that every order is possible.
 *
 * Time stands still while anybody can run, but for a rare jump. When nobody can,
 * it jumps to the next deadline of a loop; when there is none within a day, or when time
 * alone has run the engine's threads IDLE_LIMIT times and no application task
 * came to a step, it is a deadlock.
 *
 * Who is chosen is a scheduler's affair (schedule.c, search.c).
 */
#include "sim/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim/sanitize.h"
#include "sim/schedule.h"
#include "sim/search.h"
#include "sim/switch.h"
#include "sync/sync.h"

#if defined(SIM_ASAN) || defined(SIM_TSAN)
#define STACK_SIZE ((size_t)1 << 20)
#else
#define STACK_SIZE ((size_t)256 << 10)
#endif
#define STACK_GUARD ((size_t)64 << 10)
#define STEP_LIMIT 400000u
#define IDLE_LIMIT 256u
#define SLOW 256u

static struct {
	struct sim_config config;
	struct sim_result *result;
	struct sim_task tasks[SIM_TASKS_MAX];
	unsigned task_count;
	struct sim_task *current;	/* NULL: the host's own stack */
	uint8_t runnable[SIM_TASKS_MAX];
	unsigned runnable_count;
	uint64_t clock_ns;
	unsigned idle;		/* jumps of time since an application's step */
	uint64_t steps;
	uint64_t random_env, random_work;	/* work: seeds of tasks */
	bool calm;
	void *host_sp;
	void *host_fake_stack;
	const void *host_stack;
	size_t host_stack_size;
	void *host_fiber;
} m;

struct sim_counts sim_counts;

/* ---- random numbers --------------------------------------------------- */

uint64_t sim_next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t random_below(uint64_t *state, uint64_t below)
{
	return ((sim_next_random(state) >> 32) * below) >> 32;
}

uint64_t sim_random(uint64_t below)
{
	return random_below(&sim_task_self()->random, below);
}

uint64_t sim_env_random(uint64_t below)
{
	if (m.config.transactions)
		return below - 1;
	return random_below(&m.random_env, below);
}

bool sim_odd(unsigned n)
{
	return m.config.oddities && !m.calm && random_below(&m.random_env, n) == 0;
}

/* ---- switching -------------------------------------------------------- */

struct sim_task *sim_task_self(void)
{
	if (!m.current) {
		fprintf(stderr, "mkwrite-sim: the simulated machine is used outside a run\n");
		abort();
	}
	return m.current;
}

struct sim_task *sim_task_get(unsigned id)
{
	return &m.tasks[id];
}

unsigned sim_task_count(void)
{
	return m.task_count;
}

unsigned sim_self(void)
{
	return sim_task_self()->id;
}

const struct sim_config *sim_config(void)
{
	return &m.config;
}

/* The sanitizers are told of each switch, and where the new stack lies. */
static void arrived(void *fake_stack, bool from_host)
{
#ifdef SIM_ASAN
	__sanitizer_finish_switch_fiber(fake_stack,
					from_host ? &m.host_stack : NULL,
					from_host ? &m.host_stack_size : NULL);
#else
	(void)fake_stack;
	(void)from_host;
#endif
}

static bool left_host;

static void task_main(void)
{
	struct sim_task *t = m.current;

	arrived(NULL, left_host);
	left_host = false;
	sim_trace("starts", 0, 0, 0);
	t->fn(t->arg);
	if (t->masked)
		sim_violation("task %s ends with signals blocked", t->name);
	sim_trace(".ends", 0, 0, 0);
	sim_block(SIM_ENDED, NULL);
	abort();
}

static void switch_to(struct sim_task *to)
{
	struct sim_task *from = m.current;

	if (from == to)
		return;
	m.current = to;
#ifdef SIM_TSAN
	__tsan_switch_to_fiber(to->fiber, 0);
#endif
#ifdef SIM_ASAN
	__sanitizer_start_switch_fiber(&from->fake_stack, to->stack, STACK_SIZE);
#endif
	sim_switch(&from->sp, to->sp);
	arrived(from->fake_stack, false);
}

/* Back to sim_run(), for good. */
static _Noreturn void leave(void)
{
	void *unused;

	sim_recording = false;
	m.current = NULL;
#ifdef SIM_TSAN
	__tsan_switch_to_fiber(m.host_fiber, 0);
#endif
#ifdef SIM_ASAN
	__sanitizer_start_switch_fiber(NULL, m.host_stack, m.host_stack_size);
#endif
	sim_switch(&unused, m.host_sp);
	abort();
}

void sim_violation(const char *fmt, ...)
{
	va_list ap;

	if (!m.current) {
		fprintf(stderr, "mkwrite-sim: violation outside a run\n");
		abort();
	}
	va_start(ap, fmt);
	vsnprintf(m.result->message, sizeof(m.result->message), fmt, ap);
	va_end(ap);
	m.result->violated = true;
	leave();
}

/* A run depends on its seed, and on nothing around it. */
const char *mkw__os_setting(const char *name)
{
	(void)name;
	return NULL;
}

void mkw__os_panic(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sim_violation("the engine gives up in task %s: %s",
		      sim_task_self()->name, text);
}

/* ---- the scheduler ---------------------------------------------------- */

static void runnable_add(struct sim_task *t)
{
	t->wait = SIM_RUNNABLE;
	t->run_index = m.runnable_count;
	m.runnable[m.runnable_count++] = (uint8_t)t->id;
}

static void runnable_remove(struct sim_task *t)
{
	unsigned last = m.runnable[--m.runnable_count];

	m.runnable[t->run_index] = (uint8_t)last;
	m.tasks[last].run_index = t->run_index;
}

static void wake(struct sim_task *t, bool idle)
{
	if (t->wait == SIM_RUNNABLE || t->wait == SIM_ENDED)
		return;
	runnable_add(t);
	if (m.config.scheduler->woken)
		m.config.scheduler->woken(m.config.scheduler, t->id, idle);
}

void sim_wake(struct sim_task *t)
{
	wake(t, false);
}

static struct sim_task *waiting_for(enum sim_wait wait)
{
	for (unsigned i = 0; i < m.task_count; i++)
		if (m.tasks[i].wait == wait)
			return &m.tasks[i];
	return NULL;
}

/* Who waits for longer than this for time to pass waits for ever. */
#define PATIENCE_NS ((uint64_t)86400 * 1000000000u)

/* Lets time go on to the first deadline. False: there is none that can be waited for. */
static bool time_passes(void)
{
	struct sim_task *first = NULL;

	for (unsigned i = 0; i < m.task_count; i++) {
		struct sim_task *t = &m.tasks[i];

		if (t->wait == SIM_WAITS_LOOP && t->deadline != UINT64_MAX &&
		    (!first || t->deadline < first->deadline))
			first = t;
	}
	if (!first || (first->deadline > m.clock_ns &&
		       first->deadline - m.clock_ns > PATIENCE_NS))
		return false;
	if (m.clock_ns < first->deadline)
		m.clock_ns = first->deadline;
	wake(first, true);
	return true;
}

/* Nobody can run: finds somebody who can. */
static void idle(void)
{
	struct sim_task *t = waiting_for(SIM_WAITS_LATE);

	if (!t)
		t = waiting_for(SIM_WAITS_SETTLED);
	if (t) {
		wake(t, true);
		return;
	}
	if (++m.idle > IDLE_LIMIT)
		sim_violation("deadlock: no task can go on, and time does not help");
	if (!time_passes())
		sim_violation("deadlock: no task can go on");
}

/*
 * In a search: a mutex that is held from one step to another conflicts, where it is
 * taken and where it is given up, with whoever asks for it. (That all who take it for
 * a step conflict by its data, if at all, is the point of transactions.)
 */
static void show_held(struct sim_task *t)
{
	for (unsigned i = 0; i < t->held_count; i++)
		if (!t->held[i].seen) {
			t->held[i].seen = true;
			sim_touch(SIM_O_MUTEX, t->held[i].mutex, 0, SIM_WRITE);
		}
}

static void schedule(void)
{
	struct sim_scheduler *s = m.config.scheduler;
	struct sim_task *self = m.current;
	unsigned n, current, next;

	show_held(self);
	while (!m.runnable_count)
		idle();
	n = m.runnable_count;
	current = self->wait == SIM_RUNNABLE ? self->run_index : n;
	next = s->choose(s, m.runnable, n, current);
	if (next == SIM_ABANDON) {
		m.result->abandoned = true;
		leave();
	}
	sim_record(m.runnable[next]);
	switch_to(&m.tasks[m.runnable[next]]);
	self->committed = false;
}

static void point(struct sim_task *self)
{
	uint64_t limit = m.config.step_limit ? m.config.step_limit : STEP_LIMIT;

	if (++m.steps > limit)
		sim_violation("livelock: %llu steps and no end",
			      (unsigned long long)limit);
	if (m.steps == m.config.crash_step) {
		sim_trace("the machine crashes", 0, 0, 0);
		m.result->crashed = true;
		leave();
	}
	if (m.steps == SIM_SAFETY) {
		m.calm = true;
		sim_disk_heal();
		sim_trace("from here on nothing fails, and everything must end", 0, 0, 0);
	}
	/* Rarely a step takes as long as it takes the next timer to fire. */
	if (sim_odd(SLOW))
		time_passes();
	schedule();
	if (self->kind == SIM_APP || self->kind == SIM_QUEUE)
		m.idle = 0;
}

void sim_point(void)
{
	struct sim_task *self = sim_task_self();

	if (!m.config.transactions || self->committed)
		point(self);
	self->committed = true;
}

void sim_point_acquire(void)
{
	struct sim_task *self = sim_task_self();

	if (!m.config.transactions || self->committed)
		point(self);
}

void sim_point_release(void)
{
	struct sim_task *self = sim_task_self();

	if (!m.config.transactions)
		point(self);
	self->committed = true;
}

/*
 * Before a wait that nobody else sees. What is waited for commutes with all that
 * follows, and who must wait is where he would be anyway: no point in transactions.
 */
static void point_wait(void)
{
	if (!m.config.transactions)
		sim_point();
}

void sim_point_atomic(void)
{
	if (m.current)
		sim_point();
}

bool sim_memory_is_quiet(void)
{
	return m.current->quiet;
}

void sim_step(const char *fmt, uint64_t a, uint64_t b, uint64_t c)
{
	sim_point();
	sim_trace(fmt, a, b, c);
}

void sim_block(enum sim_wait wait, const void *on)
{
	struct sim_task *self = sim_task_self();

	self->wait = wait;
	self->on = on;
	runnable_remove(self);
	if (wait == SIM_ENDED)
		for (unsigned i = 0; i < m.task_count; i++)
			if (m.tasks[i].wait == SIM_WAITS_JOIN &&
			    m.tasks[i].on == self)
				sim_wake(&m.tasks[i]);
	schedule();
	self->on = NULL;
}

uint64_t sim_clock_ns(void)
{
	return m.clock_ns;
}

void sim_settle(void)
{
	sim_block(SIM_WAITS_SETTLED, NULL);
}

void sim_calm(void)
{
	m.calm = true;
	sim_settle();
}

/* ---- tasks ------------------------------------------------------------ */

static void stack_get(struct sim_task *t)
{
	if (!t->stack) {
		char *p = mmap(NULL, STACK_GUARD + STACK_SIZE,
			       PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED || mprotect(p, STACK_GUARD, PROT_NONE)) {
			fprintf(stderr, "mkwrite-sim: no memory for the stack of a simulated task\n");
			exit(2);
		}
		t->stack = p + STACK_GUARD;
	}
#ifdef SIM_ASAN
	/* Its last owner may have been abandoned in the middle of a frame. */
	ASAN_UNPOISON_MEMORY_REGION(t->stack, STACK_SIZE);
#endif
#ifdef SIM_TSAN
	if (t->fiber)
		__tsan_destroy_fiber(t->fiber);
	t->fiber = __tsan_create_fiber(0);
#endif
	t->sp = sim_context(t->stack, STACK_SIZE, task_main);
}

struct sim_task *sim_task_start(const char *name, enum sim_kind kind,
				void (*fn)(void *arg), void *arg)
{
	struct sim_task *t;
	char *stack;
	void *fiber;

	if (m.task_count == SIM_TASKS_MAX)
		sim_violation("the simulated machine has room for %u tasks only",
			      SIM_TASKS_MAX);
	t = &m.tasks[m.task_count];
	stack = t->stack;
	fiber = t->fiber;
	*t = (struct sim_task){
		.id = m.task_count, .name = name, .kind = kind, .fn = fn,
		.arg = arg, .stack = stack, .fiber = fiber,
		.deadline = UINT64_MAX, .wait = SIM_WAITS_JOIN,
		.random = m.random_work + m.task_count,
	};
	stack_get(t);
	m.task_count++;
	sim_wake(t);
	return t;
}

unsigned sim_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
	struct sim_task *t = sim_task_start(name, SIM_APP, fn, arg);

	sim_point_release();
	return t->id;
}

void sim_join(unsigned task)
{
	point_wait();
	while (m.tasks[task].wait != SIM_ENDED)
		sim_block(SIM_WAITS_JOIN, &m.tasks[task]);
}

/* A thread of the engine is its task; the record comes first in both. */
int mkw__os_thread_start(struct mkw__os_thread **out, const char *name,
			 void (*fn)(void *arg), void *arg)
{
	enum sim_kind kind = strcmp(name, "mkw-queue") ? SIM_ENGINE : SIM_QUEUE;

	*out = (struct mkw__os_thread *)sim_task_start(name, kind, fn, arg);
	sim_point_release();
	return 0;
}

void mkw__os_thread_join(struct mkw__os_thread *t)
{
	sim_join(((struct sim_task *)t)->id);
}

struct mkw__os_task *mkw__os_self(void)
{
	return &sim_task_self()->record;
}

void mkw__os_step(const char *what)
{
	sim_point();
	m.current->label = what;
	sim_trace_label(what);
}

uint64_t mkw__os_now_ns(void)
{
	return m.clock_ns;
}

uint64_t mkw__os_process(void)
{
	return 1;
}

int mkw__os_at_fork(void (*fn)(void))
{
	(void)fn;
	return 0;
}

void mkw__os_signals_block(struct mkw__os_sigmask *saved)
{
	saved->bits = sim_task_self()->masked++;
}

void mkw__os_signals_restore(const struct mkw__os_sigmask *saved)
{
	struct sim_task *self = sim_task_self();

	if (saved->bits + 1 != self->masked)
		sim_violation("task %s: signals_restore() does not pair with signals_block()",
			      self->name);
	self->masked--;
}

void mkw__os_signals_open(struct mkw__os_sigmask *saved)
{
	if (sim_task_self()->masked)
		sim_violation("task %s: signals_open() inside signals_block()",
			      sim_task_self()->name);
	saved->bits = 0;
}

void mkw__os_signals_close(const struct mkw__os_sigmask *saved)
{
	(void)saved;
}

/* ---- mutex and event -------------------------------------------------- */

static void wake_waiters(enum sim_wait wait, const void *on)
{
	for (unsigned i = 0; i < m.task_count; i++)
		if (m.tasks[i].wait == wait && m.tasks[i].on == on)
			sim_wake(&m.tasks[i]);
}

/* The word of a mutex: 0, or the number of its owner's task plus one. */
static uint32_t word_get(_Atomic uint32_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void word_set(_Atomic uint32_t *word, uint32_t v)
{
	atomic_store_explicit(word, v, memory_order_relaxed);
}

static void hold(struct sim_task *t, const void *mutex)
{
	if (t->held_count == SIM_HELD_MAX)
		sim_violation("task %s holds more than %u mutexes", t->name,
			      SIM_HELD_MAX);
	t->held[t->held_count].mutex = mutex;
	t->held[t->held_count++].seen = false;
}

static void let_go(struct sim_task *t, const void *mutex)
{
	unsigned i = 0;

	while (t->held[i].mutex != mutex)
		i++;
	if (t->held[i].seen)
		sim_touch(SIM_O_MUTEX, mutex, 0, SIM_WRITE);
	t->held[i] = t->held[--t->held_count];
}

void mkw__os_mutex_lock(struct mkw__os_mutex *mutex)
{
	struct sim_task *self = sim_task_self();

	sim_point_acquire();
	sim_touch(SIM_O_MUTEX, mutex, 0, SIM_READ);
	while (word_get(&mutex->word)) {
		if (word_get(&mutex->word) == self->id + 1)
			sim_violation("task %s locks a mutex that it holds",
				      self->name);
		sim_trace(".mutex %llx is taken: sleeps", sim_name_of(mutex), 0, 0);
		sim_block(SIM_WAITS_MUTEX, mutex);
		sim_touch(SIM_O_MUTEX, mutex, 0, SIM_READ);
	}
	word_set(&mutex->word, self->id + 1);
	hold(self, mutex);
	sim_trace(".mutex %llx locked", sim_name_of(mutex), 0, 0);
}

bool mkw__os_mutex_trylock(struct mkw__os_mutex *mutex)
{
	bool got;

	sim_point();
	got = !word_get(&mutex->word);
	/* Who fails has learnt something. */
	sim_touch(SIM_O_MUTEX, mutex, 0, SIM_WRITE);
	if (got) {
		word_set(&mutex->word, m.current->id + 1);
		hold(m.current, mutex);
	}
	sim_trace(".mutex %llx trylock: %llu", sim_name_of(mutex), got, 0);
	return got;
}

void mkw__os_mutex_unlock(struct mkw__os_mutex *mutex)
{
	struct sim_task *self = sim_task_self();

	if (word_get(&mutex->word) != self->id + 1)
		sim_violation("task %s unlocks a mutex that it does not hold",
			      self->name);
	word_set(&mutex->word, 0);
	let_go(self, mutex);
	if (self->quiet == mutex)
		self->quiet = NULL;
	sim_trace(".mutex %llx unlocked", sim_name_of(mutex), 0, 0);
	wake_waiters(SIM_WAITS_MUTEX, mutex);
	sim_point_release();
}

/*
 * An event's word is 0, or one more than the number of the step that set it. Who
 * finds it set is after that step as if it had slept.
 */
void mkw__os_event_wait(struct mkw__os_event *ev)
{
	if (!m.config.transactions)
		sim_point();
	if (word_get(&ev->word)) {
		if (m.config.transactions)
			sim_point_acquire();
		sim_search_after(word_get(&ev->word) - 1);
		return;
	}
	for (unsigned i = 0; i < m.task_count; i++)
		if (m.tasks[i].wait == SIM_WAITS_EVENT && m.tasks[i].on == ev)
			sim_violation("an event has two waiters, %s and %s",
				      m.tasks[i].name, m.current->name);
	sim_trace("waits for an event", 0, 0, 0);
	while (!word_get(&ev->word))
		sim_block(SIM_WAITS_EVENT, ev);
}

void mkw__os_event_set(struct mkw__os_event *ev)
{
	if (m.config.transactions)
		sim_task_self()->committed = true;
	else
		sim_point();
	word_set(&ev->word, 1 + sim_search_step());
	sim_trace(".sets an event", 0, 0, 0);
	wake_waiters(SIM_WAITS_EVENT, ev);
}

void mkw__os_event_reset(struct mkw__os_event *ev)
{
	word_set(&ev->word, 0);
}

/* ---- range locks ------------------------------------------------------ */

/* Pages of a range lock that are told apart; all further ones are one. */
#define RANGE_PAGES 8u

void mkw__sim_range(const struct mkw__range_lock *rl,
		    const struct mkw__range_req *req)
{
	unsigned mode = req->exclusive ? SIM_WRITE : SIM_READ;
	uint64_t first = req->start / mkw__os_page_size();
	uint64_t last = (req->end - 1) / mkw__os_page_size();

	m.current->quiet = &rl->mutex;
	for (uint64_t i = first; i <= last && i < RANGE_PAGES; i++)
		sim_touch(SIM_O_RANGE, rl, i, mode);
	if (last >= RANGE_PAGES)
		sim_touch(SIM_O_RANGE, rl, RANGE_PAGES, mode);
}

/* ---- state, for a person ---------------------------------------------- */

static const char *const rank_names[] = {
#define MKW_RANK(name, many, guards, path) #name,
#include "sync/rank.def"
#undef MKW_RANK
};

const char *sim_stack_owner(const void *p)
{
	for (unsigned i = 0; i < m.task_count; i++)
		if ((uintptr_t)p - (uintptr_t)m.tasks[i].stack < STACK_SIZE)
			return m.tasks[i].name;
	return NULL;
}

static void print_wait(FILE *to, const struct sim_task *t)
{
	unsigned owner;

	switch (t->wait) {
	case SIM_RUNNABLE:
		fprintf(to, "can run");
		break;
	case SIM_WAITS_MUTEX:
		owner = word_get(&((struct mkw__os_mutex *)t->on)->word);
		fprintf(to, "waits for a mutex held by %s",
		       owner ? m.tasks[owner - 1].name : "nobody");
		break;
	case SIM_WAITS_EVENT:
		fprintf(to, "waits for an event that nobody has set");
		break;
	case SIM_WAITS_FAULT:
		fprintf(to, "sleeps in its %s fault at %#llx",
		       t->fault_write ? "write" : "read",
		       (unsigned long long)t->fault_addr);
		break;
	case SIM_WAITS_LOOP:
		fprintf(to, "waits in its event loop");
		break;
	case SIM_WAITS_JOIN:
		fprintf(to, "waits for the end of %s",
		       ((const struct sim_task *)t->on)->name);
		break;
	case SIM_WAITS_LATE:
		fprintf(to, "is late");
		break;
	case SIM_WAITS_WORK:
		fprintf(to, "has no I/O to do");
		break;
	case SIM_WAITS_SETTLED:
		fprintf(to, "waits for quiet");
		break;
	case SIM_ENDED:
		fprintf(to, "has ended");
		break;
	}
}

static void print_task(FILE *to, const struct sim_task *t)
{
	fprintf(to, "  %-9s ", t->name);
	print_wait(to, t);
	if (t->wait != SIM_ENDED)
		for (int r = 0; r < MKW__RANK_COUNT; r++)
			if (t->record.words[r])
				fprintf(to, ", holds %s", rank_names[r]);
	if (t->in_handler)
		fprintf(to, ", in the fault handler");
	if (t->label && t->wait != SIM_ENDED)
		fprintf(to, " (last: %s)", t->label);
	fputc('\n', to);
}

void sim_print_state(FILE *to)
{
	fprintf(to, "tasks:\n");
	for (unsigned i = 0; i < m.task_count; i++)
		if (m.tasks[i].wait != SIM_WAITS_WORK)
			print_task(to, &m.tasks[i]);
	sim_mmu_print(to);
	sim_disk_print(to);
}

/* ---- a run ------------------------------------------------------------ */

static void (*root_fn)(void *arg);

static void root_main(void *arg)
{
	char list[512];

	root_fn(arg);
	for (unsigned i = 1; i < m.task_count; i++)
		if (m.tasks[i].wait != SIM_ENDED &&
		    m.tasks[i].kind != SIM_DEVICE)
			sim_violation("task %s is still there at the end",
				      m.tasks[i].name);
	if (sim_mmu_left() || sim_loops_open())
		sim_violation("%s is still there at the end",
			      sim_mmu_left() ? sim_mmu_left() : "an event loop");
	if (sim_arena_live(list, sizeof(list)))
		sim_violation("memory leak: %s%s",
			      list[0] ? list : "", list[0] ? "" : "reserved regions");
	leave();
}

static void reset(const struct sim_config *cfg, struct sim_result *res)
{
	uint64_t seed = cfg->seed;

	m.config = *cfg;
	if (!m.config.page_size)
		m.config.page_size = 64;
	if (!m.config.scheduler)
		m.config.scheduler = sim_seeded(sim_next_random(&seed));
	else
		sim_next_random(&seed);
	m.random_env = sim_next_random(&seed);
	m.random_work = sim_next_random(&seed);
	m.result = res;
	m.task_count = m.runnable_count = m.idle = 0;
	m.steps = 0;
	m.calm = false;
	m.clock_ns = 1000000000;
	memset(res, 0, sizeof(*res));
	memset(&sim_counts, 0, sizeof(sim_counts));
	sim_record_reset();
	sim_trace_reset();
	sim_arena_reset();
	sim_mmu_reset();
	sim_loop_reset();
	sim_disk_reset();
}

bool sim_run(const struct sim_config *cfg, void (*root)(void *arg), void *arg,
	     struct sim_result *res)
{
	struct sim_task *t;

	reset(cfg, res);
	root_fn = root;
	t = sim_task_start("main", SIM_APP, root_main, arg);
	left_host = true;
#ifdef SIM_TSAN
	m.host_fiber = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(t->fiber, 0);
#endif
#ifdef SIM_ASAN
	__sanitizer_start_switch_fiber(&m.host_fake_stack, t->stack, STACK_SIZE);
#endif
	m.current = t;
	sim_switch(&m.host_sp, t->sp);
	arrived(m.host_fake_stack, false);
	res->steps = m.steps;
	res->hash = sim_trace_hash();
	return !res->violated;
}

size_t mkw__os_page_size(void)
{
	return m.config.page_size ? m.config.page_size : 64;
}
