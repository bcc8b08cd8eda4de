/* SPDX-License-Identifier: MIT */
/*
 * frame.c: the process that a window runs in, and its watchdog.
 *
 * The child writes its result into memory that it shares with us, and ends. A
 * pipe, whose other end only it has, tells us when all of its threads are gone.
 * Until it concludes the result says that it broke off, so that a crash is not
 * taken for anything else.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check/interrupt.h"
#include "check/mix.h"
#include "check/windows/slow.h"
#include "check/windows/window.h"

/* For a killed process to go away. */
#define FUNERAL_MS 5000

const char *mkw__win_verdict_name(enum win_verdict v)
{
	static const char *const names[WIN_VERDICTS] = {
		[WIN_COHERENT] = "coherent",
		[WIN_EXCLUDED] = "blocked (excluded)",
		[WIN_LOST_DIRECT_WRITE] = "lost direct write",
		[WIN_LOST_WRITE] = "lost buffered write",
		[WIN_LOST_STORE] = "lost store",
		[WIN_STALE_READ] = "stale read",
		[WIN_TORN] = "torn",
		[WIN_RESURRECTED] = "resurrected block",
		[WIN_PAST_END] = "bytes past the end",
		[WIN_ERROR] = "spurious error",
		[WIN_DEADLOCK] = "deadlock",
		[WIN_SKIPPED] = "skipped",
	};

	return names[v];
}

bool mkw__win_failure(const struct win_result *res,
		      const struct check_config *cfg, bool atomic)
{
	switch (res->verdict) {
	case WIN_COHERENT:
	case WIN_EXCLUDED:
	case WIN_SKIPPED:
		return false;
	case WIN_TORN:
		return !res->window->unpromised && (atomic || cfg->strict);
	case WIN_ERROR:
		return !cfg->allow_errors;
	default:
		return true;
	}
}

void mkw__win_end(struct stage *s, enum win_verdict v, const char *fmt, ...)
{
	char *text = s->res->evidence;
	size_t size = sizeof(s->res->evidence), n;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, size, fmt, ap);
	va_end(ap);
	n = strlen(text);
	if (s->sync_err)
		snprintf(text + n, size - n, "; fdatasync then reports: %s",
			 strerror(-s->sync_err));
	else if (v == WIN_LOST_DIRECT_WRITE)
		snprintf(text + n, size - n, "; no call reports an error");
	s->res->verdict = v;
	_exit(0);
}

noreturn static void child(const struct window *w,
			   const struct check_config *cfg,
			   struct win_result *res)
{
	struct sigaction trap = { .sa_sigaction = mkw__check_trap,
				  .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct stage s = { .window = w, .cfg = cfg, .res = res };
	struct check_config here = *cfg;
	int err;

	/* The terminal's interrupt is the parent's to handle. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_IGN);
	/* A crash is a crash, whatever else the parent would make of it. */
	signal(SIGSEGV, SIG_DFL);
	signal(SIGABRT, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Before the engine is opened: its handler passes on to this one. */
	sigaction(SIGBUS, &trap, NULL);
	s.page = (size_t)sysconf(_SC_PAGESIZE);
	s.t.ops = cfg->target_ops;
	/* What was cached stays so: windows are not about reclaim. */
	here.cache_bytes = 4 * WIN_BYTES;
	if (w->slow)
		here.dir = cfg->slow->image.mount;
	err = s.t.ops->open(&s.t, &here, WIN_BYTES);
	if (err)
		mkw__win_end(&s, WIN_SKIPPED, "%s", s.t.error);
	memcpy(res->label, s.t.label, sizeof(s.t.label));
	s.sector = s.t.direct_align;
	w->run(&s);
	mkw__win_end(&s, WIN_COHERENT, "nothing was found");
}

/* What the threads of a process wait for; as far as may be known. */
static void describe_threads(pid_t pid, char *buf, size_t size)
{
	char path[300], where[64];
	struct dirent *entry;
	size_t n = 0;
	DIR *dir;

	buf[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return;
	while ((entry = readdir(dir)) && n < size - 80) {
		FILE *f;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/wchan",
			 (int)pid, entry->d_name);
		f = fopen(path, "re");
		if (f && fgets(where, sizeof(where), f) &&
		    strcmp(where, "0") && !strstr(where, "futex"))
			n += (size_t)snprintf(buf + n, size - n, "%s%s",
					      n ? ", " : "", where);
		if (f)
			fclose(f);
	}
	closedir(dir);
}

/* Waits for the pipe to close. 1: it did; 0: time is up; -1: interrupted. */
static int await(int fd, int timeout_ms)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
			       { .fd = mkw__check_interrupt_fd(),
				 .events = POLLIN } };
	int n;

	do
		n = poll(p, timeout_ms == FUNERAL_MS ? 1 : 2, timeout_ms);
	while (n < 0 && errno == EINTR && !mkw__check_interrupted());
	if (p[0].revents)
		return 1;
	return n ? -1 : 0;
}

/* Sees the child to its end. False: it will not end. */
static bool attend(pid_t pid, int fd, const struct check_config *cfg,
		   struct win_result *res)
{
	int how = await(fd, (int)cfg->window_seconds * 1000);
	char threads[300];

	if (how > 0)
		return true;
	describe_threads(pid, threads, sizeof(threads));
	/* What the device holds keeps it from dying. */
	if (cfg->slow && cfg->slow->up) {
		sem_post(&cfg->slow->served.gate->go);
		mkw__slow_thaw(cfg->slow);
	}
	mkw__lever_let_go();
	kill(pid, SIGKILL);
	if (how < 0) {
		res->verdict = WIN_SKIPPED;
		snprintf(res->evidence, sizeof(res->evidence), "interrupted");
	} else {
		res->verdict = WIN_DEADLOCK;
		snprintf(res->evidence, sizeof(res->evidence),
			 "not over after %u s; its threads wait in: %s",
			 cfg->window_seconds, threads[0] ? threads : "?");
	}
	return await(fd, FUNERAL_MS) > 0;
}

static void run_child(const struct window *w, const struct check_config *cfg,
		      struct win_result *res)
{
	struct win_result *shared;
	int ends[2], status = 0;
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || pipe2(ends, O_CLOEXEC)) {
		snprintf(res->evidence, sizeof(res->evidence), "%s",
			 strerror(errno));
		return;
	}
	*shared = *res;
	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(ends[0]);
		child(w, cfg, shared);
	}
	close(ends[1]);
	if (pid < 0) {
		snprintf(shared->evidence, sizeof(shared->evidence),
			 "no process: %s", strerror(errno));
	} else if (!attend(pid, ends[0], cfg, shared)) {
		size_t n = strlen(shared->evidence);

		snprintf(shared->evidence + n, sizeof(shared->evidence) - n,
			 "; process %d cannot be killed and is left behind",
			 (int)pid);
	} else {
		waitpid(pid, &status, 0);
		if (WIFSIGNALED(status) && shared->verdict == WIN_ERROR)
			snprintf(shared->evidence, sizeof(shared->evidence),
				 "its process died of signal %d (%s)",
				 WTERMSIG(status), strsignal(WTERMSIG(status)));
	}
	close(ends[0]);
	*res = *shared;
	munmap(shared, sizeof(*shared));
}

void mkw__window_run(const struct window *w, const struct check_config *cfg,
		     struct win_result *res)
{
	struct timespec from, to;
	char why[400];

	*res = (struct win_result){ .window = w, .verdict = WIN_SKIPPED };
	if (w->lever && mkw__lever_prepare(cfg->lever_by_file, why,
					   sizeof(why))) {
		snprintf(res->evidence, sizeof(res->evidence), "%s", why);
		return;
	}
	if (w->slow && (!cfg->slow || !cfg->slow->up)) {
		snprintf(res->evidence, sizeof(res->evidence),
			 "no slow device: %s", cfg->slow ? cfg->slow->why :
							   "none was started");
		return;
	}
	res->verdict = WIN_ERROR;
	snprintf(res->evidence, sizeof(res->evidence), "it broke off");
	mkw__check_catch(NULL);
	clock_gettime(CLOCK_MONOTONIC, &from);
	run_child(w, cfg, res);
	clock_gettime(CLOCK_MONOTONIC, &to);
	res->seconds = (double)(to.tv_sec - from.tv_sec) +
		       (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	mkw__check_uncatch();
	if (w->lever)
		mkw__lever_finish();
}
