/* SPDX-License-Identifier: MIT */
/*
 * flag.c: flags that an application's event loop waits for. Whoever raises one wakes all who
 * wait; each looks again.
 */
#include <errno.h>

#include "sim/machine.h"

struct mkw__os_flag {
	bool raised;
};

int mkw__os_flag_create(struct mkw__os_flag **out)
{
	*out = mkw__os_zalloc(sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void mkw__os_flag_destroy(struct mkw__os_flag *f)
{
	mkw__os_free(f);
}

/* There are no descriptors here. */
int mkw__os_flag_fd(const struct mkw__os_flag *f)
{
	(void)f;
	return -1;
}

static void set(struct mkw__os_flag *f, bool raised)
{
	sim_step(raised ? ".raises the flag" : ".lowers the flag", 0, 0, 0);
	if (f->raised == raised)
		sim_violation("the flag of a queue is %s twice in a row",
			      raised ? "raised" : "lowered");
	sim_touch(SIM_O_KICKED, f, 0, SIM_WRITE);
	f->raised = raised;
	for (unsigned i = 0; raised && i < sim_task_count(); i++) {
		struct sim_task *t = sim_task_get(i);

		if (t->wait == SIM_WAITS_LOOP && t->on == f)
			sim_wake(t);
	}
}

void mkw__os_flag_raise(struct mkw__os_flag *f)
{
	set(f, true);
}

void mkw__os_flag_lower(struct mkw__os_flag *f)
{
	set(f, false);
}

int mkw__os_flag_wait(struct mkw__os_flag *f, uint64_t timeout_ns)
{
	struct sim_task *self = sim_task_self();
	uint64_t now = sim_clock_ns();

	if (self->masked)
		sim_violation("task %s waits for a flag with signals blocked",
			      self->name);
	sim_step("waits for a result", 0, 0, 0);
	self->deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX :
							 now + timeout_ns;
	sim_touch(SIM_O_KICKED, f, 0, SIM_READ);
	while (!f->raised && sim_clock_ns() < self->deadline) {
		sim_block(SIM_WAITS_LOOP, f);
		sim_touch(SIM_O_KICKED, f, 0, SIM_READ);
	}
	self->deadline = UINT64_MAX;
	return f->raised ? 0 : -ETIMEDOUT;
}
