/* SPDX-License-Identifier: MIT */
/*
 * interrupt.c: signals as a flag, a descriptor to poll, and a semaphore.
 */
#include "check/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define NEST_MAX 4

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
#define SIGNALS (sizeof(signals) / sizeof(signals[0]))

static volatile sig_atomic_t interrupted;
static int event_fd = -1;
static sem_t *volatile hurries[NEST_MAX];
static volatile sig_atomic_t depth;
static struct sigaction saved[SIGNALS];

static void on_signal(int sig)
{
	const uint64_t one = 1;
	int err = errno;
	sem_t *hurry = depth ? hurries[depth - 1] : NULL;

	(void)sig;
	interrupted = 1;
	if (write(event_fd, &one, sizeof(one)) < 0) {
		/* It is readable already. */
	}
	if (hurry)
		sem_post(hurry);
	errno = err;
}

void mkw__check_catch(sem_t *hurry)
{
	struct sigaction catch = { .sa_handler = on_signal };

	if (depth == NEST_MAX)
		abort();
	hurries[depth] = hurry;
	if (depth++)
		return;
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < SIGNALS; i++)
		sigaction(signals[i], &catch, &saved[i]);
}

void mkw__check_uncatch(void)
{
	if (depth > 1) {
		depth--;
		return;
	}
	for (unsigned i = 0; i < SIGNALS; i++)
		sigaction(signals[i], &saved[i], NULL);
	depth = 0;
	interrupted = 0;
	if (event_fd >= 0)
		close(event_fd);
	event_fd = -1;
}

bool mkw__check_interrupted(void)
{
	return interrupted;
}

int mkw__check_interrupt_fd(void)
{
	return event_fd;
}
