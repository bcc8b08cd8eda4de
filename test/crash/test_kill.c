/* SPDX-License-Identifier: MIT */
/*
 * The process is killed (SIGKILL) under load, and the file opened again (G7).
 *
 * The child opens an engine on a file, loads it (load.h) and keeps the record in
 * memory that it shares with its parent. The parent kills it after a random time
 * that begins with the child's first operation, judges the file by plain
 * reads, opens it through an engine of its own, which must see the same, and
 * starts the next child on what is there. The kernel's page cache survives: what a
 * direct write, a punch or a truncate has returned must be in the file, and
 * everything that a sync has.
 *
 *   test_kill [KILLS [SEED]]     in $MKW_DIR, or here
 *
 * Then with bugs planted into the child, which must be found.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access.h"
#include "core/core.h"
#include "core/engine.h"
#include "core/testing.h"
#include "crash/load.h"

#define PLANTED_KILLS 60u

static struct {
	char path[256];
	struct record *record;		/* shared */
	void *image;
	uint64_t random;
	int started;			/* the child's end of a pipe */
	unsigned long ops;
	bool no_zero_range;
} run;

static enum { NOTHING, SYNC_WRITES_NOTHING, SIZES_ROUNDED } planted;

int __real_mkw__wb_sync(struct mkw_file *file);
int __wrap_mkw__wb_sync(struct mkw_file *file);
int __real_mkw__size_grow_locked(struct mkw__inode *in, uint64_t size);
int __wrap_mkw__size_grow_locked(struct mkw__inode *in, uint64_t size);

int __wrap_mkw__wb_sync(struct mkw_file *file)
{
	return planted == SYNC_WRITES_NOTHING ? 0 : __real_mkw__wb_sync(file);
}

/* The store's size is a whole block's, as direct I/O would leave it. */
int __wrap_mkw__size_grow_locked(struct mkw__inode *in, uint64_t size)
{
	int r = __real_mkw__size_grow_locked(in, size);

	if (planted == SIZES_ROUNDED)
		mkw__store_resize(in->store, (size + BLOCK - 1) & -BLOCK);
	return r;
}

static uint32_t pick(uint32_t below)
{
	run.random = run.random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(run.random >> 33) % below;
}

/* ---- the child -------------------------------------------------------- */

/* A status that no signal gives. */
static void finding(const char *what)
{
	fprintf(stderr, "before the kill: %s\n", what);
	_exit(3);
}

/* Tells the parent once, whichever thread comes first: several may have begun by then. */
static bool after(void)
{
	static atomic_bool told;

	if (!atomic_exchange(&told, true) && write(run.started, "", 1) != 1)
		_exit(4);
	return false;
}

static int open_file(const struct mkw_engine_options *opt, unsigned map_flags,
		     struct mkw_engine **engine, struct load *l)
{
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	int r;

	mkw__testing.cache_frames = LOAD_BYTES / mkw__os_page_size() / 3;
	r = mkw_engine_open(opt, engine);
	if (!r)
		r = mkw_file_open(*engine, run.path, O_RDWR, 0, &l->file);
	if (!r)
		r = mkw_file_info(l->file, &info);
	if (!r)
		r = mkw_map(l->file, NULL, LOAD_BYTES, PROT_READ | PROT_WRITE,
			    map_flags, 0, (void **)&l->map);
	l->direct_align = info.direct_align;
	l->no_zero_range = run.no_zero_range;
	if (r)
		fprintf(stderr, "%s cannot be opened: %s\n", run.path,
			strerror(-r));
	return r;
}

static void child(unsigned way, uint64_t seed)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct load l = { .record = run.record, .seed = seed, .after = after,
			  .finding = finding, .through_is_durable = true };
	struct mkw_engine *engine;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* What a planted bug says before the child ends is not a failure. */
	if (planted || mkw__testing.mutant)
		dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
	opt.policy = way & 1 ? MKW_POLICY_INVALIDATE : MKW_POLICY_RETRY;
	opt.writeback_age_ms = 2;
	if (open_file(&opt, way & 2 ? MKW_MAP_INLINE : 0, &engine, &l))
		_exit(5);
	load_run(&l);
	_exit(6);
}

/* ---- the parent ------------------------------------------------------- */

/*
 * The file as it is, by plain reads. Its size. The kernel ends the I/O of a killed
 * process after the process itself; the file is free once that is over.
 */
static uint64_t look(void *image)
{
	struct stat sb;
	int fd = open(run.path, O_RDONLY);

	memset(image, 0, LOAD_BYTES);
	if (fd < 0 || flock(fd, LOCK_EX) || fstat(fd, &sb) || pread(fd, image, LOAD_BYTES, 0) < 0) {
		perror(run.path);
		exit(1);
	}
	close(fd);
	return (uint64_t)sb.st_size;
}

static const char *open_again(uint64_t size)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *engine;
	const char *why = NULL;
	static char text[160];
	struct load l;

	if (open_file(&opt, 0, &engine, &l))
		return "it cannot be opened again";
	for (uint64_t i = 0; i < size && !why; i++) {
		if (l.map[i] == ((unsigned char *)run.image)[i])
			continue;
		snprintf(text, sizeof(text),
			 "opened again it differs at %llu of %llu: %016llx, was %016llx",
			 (unsigned long long)i, (unsigned long long)size,
			 (unsigned long long)((uint64_t *)l.map)[i / 8],
			 (unsigned long long)((uint64_t *)run.image)[i / 8]);
		why = text;
	}
	if ((uint64_t)mkw_size(l.file) != size)
		why = "opened again it has another size";
	mkw_unmap(l.map, LOAD_BYTES);
	if (mkw_file_close(l.file) || mkw_engine_close(engine))
		why = "opened again it does not close";
	return why;
}

/* Starts a child, kills it at a random time. NULL, or what is wrong. */
static const char *kill_once(unsigned way)
{
	static char why[300];
	struct pollfd pfd = { .events = POLLIN };
	int pipes[2], status;
	uint64_t size;
	pid_t pid;

	if (pipe(pipes))
		return "no pipe";
	fflush(NULL);
	run.record->ops = 0;
	run.random++;
	pid = fork();
	if (!pid) {
		close(pipes[0]);
		run.started = pipes[1];
		child(way, run.random);
	}
	close(pipes[1]);
	pfd.fd = pipes[0];
	poll(&pfd, 1, 60000);
	/* The child's end stays open until it dies by itself. */
	if (read(pipes[0], why, 1) == 1) {
		struct timespec ts = { .tv_nsec = pick(30000000) };

		ppoll(&pfd, 1, &ts, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	close(pipes[0]);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		snprintf(why, sizeof(why), "the child ended with status 0x%x",
			 status);
		return why;
	}
	run.ops += run.record->ops;
	size = look(run.image);
	if (!record_judge(run.record, run.image, size, why, sizeof(why)))
		return why;
	return NULL;
}

static void start(void)
{
	int fd = open(run.path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)LOAD_START)) {
		perror(run.path);
		exit(1);
	}
	run.no_zero_range = fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, BLOCK) &&
			    errno == EOPNOTSUPP;
	close(fd);
	record_init(run.record, LOAD_BLOCKS, LOAD_TAIL, LOAD_START);
}

static const char *kill_often(unsigned kills, unsigned *done)
{
	const char *why = NULL;

	start();
	for (*done = 0; !why && *done < kills; ++*done) {
		uint64_t size;

		why = kill_once(*done % 4);
		if (why)
			break;
		size = look(run.image);
		if (!planted)
			why = open_again(size);
		record_restart(run.record, run.image, size);
	}
	return why;
}

static int look_for_planted(void)
{
	static const struct {
		const char *name;
		int bug;
		const char *mutant;
	} bugs[] = {
		{ "a sync that writes nothing", SYNC_WRITES_NOTHING, NULL },
		{ "growth to whole blocks", SIZES_ROUNDED, NULL },
		{ "a write that leaves its page clean", NOTHING,
		  "WRITE_SKIPS_DIRTY" },
		{ "a punch that leaves its frames", NOTHING,
		  "PUNCH_LEAVES_FRAMES" },
	};
	int missed = 0;

	for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
		const char *why;
		unsigned done;

		planted = bugs[i].bug;
		mkw__testing.mutant = bugs[i].mutant ?
						mkw__mutant_find(bugs[i].mutant) :
						MKW__MUTANT_NONE;
		why = kill_often(PLANTED_KILLS, &done);
		if (why)
			printf("planted: %s: found (%s)\n", bugs[i].name, why);
		else
			printf("FAILED: planted: %s: not found\n", bugs[i].name);
		missed += !why;
	}
	return missed;
}

int main(int argc, char **argv)
{
	unsigned kills = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 60;
	const char *dir = getenv("MKW_DIR"), *why;
	unsigned done;

	run.random = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	access_begin();
	if (!access_possible())
		return 77;
	snprintf(run.path, sizeof(run.path), "%s/mkw-test-kill-%d",
		 dir ? dir : ".", (int)getpid());
	run.record = mmap(NULL, record_bytes(LOAD_BLOCKS),
			  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			  -1, 0);
	run.image = malloc(LOAD_BYTES);
	why = kill_often(kills, &done);
	printf("%u kills, %lu operations%s%s\n", done, run.ops,
	       why ? ": FAILED: " : "", why ? why : "");
	if (!why && run.ops < kills) {
		why = "too little was done to be killed";
		printf("FAILED: %s\n", why);
	}
	if (!why && look_for_planted())
		why = "planted";
	unlink(run.path);
	return why != NULL;
}
