/* SPDX-License-Identifier: MIT */
/*
 * access.c: the log of touches, and the calls of instrumented code; see access.h.
 *
 * Memory is told apart by four bytes (a page's word), which no code of the engine
 * shares between objects. What a step leaves as it found it has been read only: since
 * steps are done at once nobody sees the difference. Plain loads and stores are logged
 * and nothing else. An atomic one is also a place where another task may come between,
 * as a lock is (sim_point_atomic()): elsewhere the engine's memory has a lock over it,
 * or an owner, which the thread sanitizer's tests see to. A relaxed fetch_add whose
 * result nobody uses is how the engine counts: it commutes with its like, and is no
 * such place.
 */
#include "sim/access.h"

#include <string.h>

#include "sim/machine.h"
#include "sync/sync.h"

#define TABLE_SIZE 8192u	/* a power of two */
#define LOG_MAX 4096u		/* objects of one step */
#define GRANULE 4u

bool sim_recording;

static struct {
	uint64_t object, step;
	unsigned index;
} table[TABLE_SIZE];
static struct sim_touched log_entries[LOG_MAX];
static uint32_t found[LOG_MAX];		/* what was in that memory before */
static unsigned log_count;
static uint64_t log_step;
static const void *counter;		/* see mkw__sim_counts() */

static unsigned slot_of(uint64_t object)
{
	return (unsigned)((object * 0x9e3779b97f4a7c15u) >> 51);
}

static bool is_memory(uint64_t object)
{
	return object >> 58 == 0;
}

static uint32_t content(uint64_t object)
{
	uint32_t v;

	memcpy(&v, (const void *)(uintptr_t)object, sizeof(v));
	return v;
}

void sim_log_step(void)
{
	counter = NULL;
	log_step++;
	log_count = 0;
}

void sim_log_reset(void)
{
	sim_log_step();
}

void sim_touch_slow(uint64_t object, unsigned mode)
{
	for (unsigned i = slot_of(object);; i++) {
		unsigned at = i & (TABLE_SIZE - 1);

		if (table[at].step == log_step && table[at].object == object) {
			log_entries[table[at].index].mode |= mode;
			return;
		}
		if (table[at].step != log_step) {
			if (log_count == LOG_MAX)
				sim_violation("a step touches more than %u objects: too many for a search",
					      LOG_MAX);
			table[at].object = object;
			table[at].step = log_step;
			table[at].index = log_count;
			found[log_count] = is_memory(object) ? content(object) : 0;
			log_entries[log_count++] =
				(struct sim_touched){ object, mode };
			return;
		}
	}
}

const struct sim_touched *sim_log_end(unsigned *n)
{
	for (unsigned i = 0; i < log_count; i++) {
		struct sim_touched *t = &log_entries[i];

		if (t->mode & SIM_WRITE && is_memory(t->object) &&
		    content(t->object) == found[i])
			t->mode = (t->mode & ~(unsigned)SIM_WRITE) | SIM_READ;
	}
	*n = log_count;
	return log_entries;
}

bool sim_log_conflicts(const struct sim_touched *touched, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		for (unsigned i = slot_of(touched[k].object);; i++) {
			unsigned at = i & (TABLE_SIZE - 1);

			if (table[at].step != log_step)
				break;
			if (table[at].object != touched[k].object)
				continue;
			if (sim_modes_conflict(log_entries[table[at].index].mode,
					       touched[k].mode))
				return true;
			break;
		}
	return false;
}

void mkw__sim_counts(const void *p)
{
	counter = p;
}

/* ---- instrumented code ------------------------------------------------ */

#ifdef SIM_MEASURED

bool sim_access_measured(void)
{
	return true;
}

static void memory(const void *p, size_t len, unsigned mode)
{
	uintptr_t end = (uintptr_t)p + len;

	if (!sim_recording || sim_memory_is_quiet())
		return;
	if (p == counter)
		mode = SIM_ADD;
	for (uintptr_t at = (uintptr_t)p / GRANULE * GRANULE; at < end;
	     at += GRANULE)
		sim_touch_slow(at, mode);
}

/* The names are the compiler's. */
void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);

void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller)
{
	(void)caller;
}

void __tsan_func_exit(void)
{
}

#define PLAIN(bytes)                                                          \
	void __tsan_read##bytes(void *p);                                     \
	void __tsan_write##bytes(void *p);                                    \
	void __tsan_unaligned_read##bytes(void *p);                           \
	void __tsan_unaligned_write##bytes(void *p);                          \
	void __tsan_read##bytes(void *p) { memory(p, bytes, SIM_READ); }      \
	void __tsan_write##bytes(void *p) { memory(p, bytes, SIM_WRITE); }    \
	void __tsan_unaligned_read##bytes(void *p)                            \
	{                                                                     \
		memory(p, bytes, SIM_READ);                                   \
	}                                                                     \
	void __tsan_unaligned_write##bytes(void *p)                           \
	{                                                                     \
		memory(p, bytes, SIM_WRITE);                                  \
	}
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

void __tsan_read_range(void *p, unsigned long len);
void __tsan_write_range(void *p, unsigned long len);

void __tsan_read_range(void *p, unsigned long len)
{
	memory(p, len, SIM_READ);
}

void __tsan_write_range(void *p, unsigned long len)
{
	memory(p, len, SIM_WRITE);
}

static void atomic_access(const void *p, size_t len, unsigned mode)
{
	sim_point_atomic();
	memory(p, len, mode);
}

#define ATOMIC(bits, type)                                                    \
	type __tsan_atomic##bits##_load(const volatile type *p, int order);   \
	void __tsan_atomic##bits##_store(volatile type *p, type v, int order);\
	type __tsan_atomic##bits##_exchange(volatile type *p, type v,         \
					    int order);                       \
	type __tsan_atomic##bits##_fetch_add(volatile type *p, type v,        \
					     int order);                      \
	type __tsan_atomic##bits##_fetch_sub(volatile type *p, type v,        \
					     int order);                      \
	type __tsan_atomic##bits##_fetch_or(volatile type *p, type v,         \
					    int order);                       \
	int __tsan_atomic##bits##_compare_exchange_strong(                    \
		volatile type *p, type *want, type v, int order, int fail);   \
	int __tsan_atomic##bits##_compare_exchange_weak(                      \
		volatile type *p, type *want, type v, int order, int fail);   \
	type __tsan_atomic##bits##_load(const volatile type *p, int order)    \
	{                                                                     \
		(void)order;                                                  \
		atomic_access((const void *)p, sizeof(type), SIM_READ);       \
		return *p;                                                    \
	}                                                                     \
	void __tsan_atomic##bits##_store(volatile type *p, type v, int order) \
	{                                                                     \
		(void)order;                                                  \
		atomic_access((const void *)p, sizeof(type), SIM_WRITE);      \
		*p = v;                                                       \
	}                                                                     \
	type __tsan_atomic##bits##_exchange(volatile type *p, type v,         \
					    int order)                        \
	{                                                                     \
		type old;                                                     \
									      \
		(void)order;                                                  \
		atomic_access((const void *)p, sizeof(type), SIM_WRITE);      \
		old = *p;                                                     \
		*p = v;                                                       \
		return old;                                                   \
	}                                                                     \
	type __tsan_atomic##bits##_fetch_add(volatile type *p, type v,        \
					     int order)                       \
	{                                                                     \
		type old;                                                     \
									      \
		if (order == __ATOMIC_RELAXED)                                \
			memory((const void *)p, sizeof(type), SIM_ADD);       \
		else                                                          \
			atomic_access((const void *)p, sizeof(type),          \
				      SIM_WRITE);                             \
		old = *p;                                                     \
		*p = (type)(old + v);                                         \
		return old;                                                   \
	}                                                                     \
	type __tsan_atomic##bits##_fetch_or(volatile type *p, type v,         \
					    int order)                        \
	{                                                                     \
		type old;                                                     \
									      \
		(void)order;                                                  \
		atomic_access((const void *)p, sizeof(type), SIM_WRITE);      \
		old = *p;                                                     \
		*p = (type)(old | v);                                         \
		return old;                                                   \
	}                                                                     \
	type __tsan_atomic##bits##_fetch_sub(volatile type *p, type v,        \
					     int order)                       \
	{                                                                     \
		return __tsan_atomic##bits##_fetch_add(p, (type)-v, order);   \
	}                                                                     \
	int __tsan_atomic##bits##_compare_exchange_strong(                    \
		volatile type *p, type *want, type v, int order, int fail)    \
	{                                                                     \
		(void)order;                                                  \
		(void)fail;                                                   \
		atomic_access((const void *)p, sizeof(type), SIM_WRITE);      \
		if (*p != *want) {                                            \
			*want = *p;                                           \
			return 0;                                             \
		}                                                             \
		*p = v;                                                       \
		return 1;                                                     \
	}                                                                     \
	int __tsan_atomic##bits##_compare_exchange_weak(                      \
		volatile type *p, type *want, type v, int order, int fail)    \
	{                                                                     \
		return __tsan_atomic##bits##_compare_exchange_strong(         \
			p, want, v, order, fail);                             \
	}
ATOMIC(8, uint8_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

#else

bool sim_access_measured(void)
{
	return false;
}

#endif
