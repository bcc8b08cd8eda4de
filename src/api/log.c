/* SPDX-License-Identifier: MIT */
/*
 * What the log says, to whom: the callback of mkw_engine_options, and, where the
 * environment has MKWRITE_DEBUG, standard error. All of it runs in the engine's log
 * thread (core/log.c), which holds nothing.
 */
#include <stdio.h>
#include <string.h>

#include "api/log.h"

static const char *const level_names[] = {
	[MKW_LOG_ERROR] = "error",
	[MKW_LOG_WARNING] = "warning",
	[MKW_LOG_INFO] = "info",
};

/* A name is short where there is one; numbers are all that a store knows. */
#define FILE_IS "file %llu:%llu"
#define FILE_OF(r) (unsigned long long)(r)->dev, (unsigned long long)(r)->ino

void mkw__log_format(const struct mkw__log_record *r, char *buf, size_t size)
{
	unsigned long long at = r->at, len = r->len;
	const char *why = r->error ? strerrordesc_np(-r->error) : "";

	if (!why)
		why = "unknown error";
	switch (r->what) {
	case MKW__LOG_OPENED:
		snprintf(buf, size,
			 "engine opened: policy %s, cache of %llu bytes",
			 at == MKW_POLICY_RETRY ? "retry" : "invalidate", len);
		break;
	case MKW__LOG_KERNEL_FAULTS:
		snprintf(buf, size, "userfaultfd: %s", at ?
			 "page faults inside system calls are served" :
			 "page faults inside system calls are not served, for want of the right: they fail with EFAULT (mkwrite(7), Requirements)");
		break;
	case MKW__LOG_CONTINUE_WP:
		snprintf(buf, size, "userfaultfd: %s", at ?
			 "cached pages are mapped protected in one step" :
			 "cached pages cannot be mapped protected in one step (Linux 6.4): they are copied and compared");
		break;
	case MKW__LOG_POISON:
		snprintf(buf, size, "userfaultfd: %s", at ?
			 "pages that cannot be had are poisoned" :
			 "there is no poison (Linux 6.6): pages that cannot be had are made inaccessible");
		break;
	case MKW__LOG_FILE:
		snprintf(buf, size, FILE_IS " opened: direct I/O %s, of multiples of %llu bytes",
			 FILE_OF(r), at ? "bypasses the kernel's cache" :
			 "not given by its file system, so the kernel caches it, too", len);
		break;
	case MKW__LOG_NO_SPACE_PROMISE:
		snprintf(buf, size, FILE_IS ": space is not reserved ahead of stores and writes; a full disk is met at writeback",
			 FILE_OF(r));
		break;
	case MKW__LOG_FILL_FAILED:
		snprintf(buf, size, FILE_IS ": reading %llu bytes at %llu: %s",
			 FILE_OF(r), len, at, why);
		break;
	case MKW__LOG_WRITEBACK_FAILED:
		snprintf(buf, size, FILE_IS ": writing back %llu bytes at %llu: %s; they stay dirty and are tried again",
			 FILE_OF(r), len, at, why);
		break;
	case MKW__LOG_REFUSED:
		snprintf(buf, size, FILE_IS ": the access at address 0x%llx gets SIGBUS, or its callback: %s",
			 FILE_OF(r), at, why);
		break;
	case MKW__LOG_LENGTH_CHANGED:
		snprintf(buf, size, FILE_IS ": somebody else made its length %llu, which was %llu: %s",
			 FILE_OF(r), at, len, why);
		break;
	case MKW__LOG_LOST:
		snprintf(buf, size, FILE_IS ": %llu bytes that could not be written are lost with its last close",
			 FILE_OF(r), len);
		break;
	case MKW__LOG_DROPPED:
		snprintf(buf, size, "%llu messages were dropped here: they came faster than they were taken",
			 at);
		break;
	}
}

static void log_main(void *arg)
{
	struct mkw_engine *e = arg;
	struct mkw__log *l = &e->log;
	struct mkw__log_record r;
	char text[512];

	atomic_store_explicit(&l->self, mkw__os_self(), memory_order_relaxed);
	while (mkw__log_next(e, &r)) {
		mkw__log_format(&r, text, sizeof(text));
		if (r.level <= l->level_stderr)
			mkw__os_tell("%s: %s", level_names[r.level], text);
		if (l->callback && r.level <= l->level_callback)
			l->callback(l->arg, (int)r.level, text);
	}
}

/* What MKWRITE_DEBUG asks for; 0: nothing. */
static uint32_t level_of_environment(void)
{
	const char *word = mkw__os_setting("MKWRITE_DEBUG");

	if (!word || !*word || !strcmp(word, "0"))
		return 0;
	if (!strcmp(word, "1"))
		return MKW_LOG_INFO;
	for (uint32_t i = MKW_LOG_ERROR; i <= MKW_LOG_INFO; i++)
		if (!strcmp(word, level_names[i]))
			return i;
	mkw__os_tell("MKWRITE_DEBUG has a value that is none of error, warning and info; it is taken for info");
	return MKW_LOG_INFO;
}

int mkw__log_open(struct mkw_engine *e, const struct mkw_engine_options *o)
{
	struct mkw__log *l = &e->log;
	uint32_t level;
	int r;

	l->callback = o->log;
	l->arg = o->log_arg;
	l->level_callback = !o->log ? 0 : o->log_level ? o->log_level :
							 MKW_LOG_WARNING;
	l->level_stderr = level_of_environment();
	level = (uint32_t)mkw__max(l->level_callback, l->level_stderr);
	if (!level)
		return 0;
	r = mkw__log_start(e, level, log_main);
	if (r)
		return r;
	mkw__log(e, MKW__LOG_OPENED, MKW_LOG_INFO, NULL, e->policy,
		 e->pool.frames_max << e->page_shift, 0);
	mkw__log(e, MKW__LOG_KERNEL_FAULTS,
		 e->caps.kernel_faults ? MKW_LOG_INFO : MKW_LOG_WARNING, NULL,
		 e->caps.kernel_faults, 0, 0);
	mkw__log(e, MKW__LOG_CONTINUE_WP, MKW_LOG_INFO, NULL,
		 e->caps.continue_wp, 0, 0);
	mkw__log(e, MKW__LOG_POISON, MKW_LOG_INFO, NULL, e->caps.poison, 0, 0);
	return 0;
}

void mkw__log_file(const struct mkw_file *file)
{
	struct mkw__inode *in = file->inode;

	mkw__log(in->engine, MKW__LOG_FILE, MKW_LOG_INFO, in, in->store->direct,
		 in->store->direct_align, 0);
	if (file->writable && !mkw__reserve_on(in))
		mkw__log(in->engine, MKW__LOG_NO_SPACE_PROMISE, MKW_LOG_INFO, in,
			 0, 0, 0);
}
