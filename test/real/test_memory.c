/* SPDX-License-Identifier: MIT */
/*
 * Memory, measured from outside: by what the kernel says of the process, not by the
 * engine's own counts.
 *
 *   frames      the blocks of the engine's memfds: never more than the budget, looked
 *               at all the time by a thread of its own, and Pss_Shmem of smaps_rollup
 *   beside it   RssAnon: what the engine's tables and buffers have grown to
 *
 * over a file of a hundred budgets that is stored to, scanned, and written directly;
 * calls longer than the budget; a mapping of 15 TiB that is touched here and there;
 * each setting of shmem_enabled; and under mlockall(2). Every byte is checked, too.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mkwrite/mkwrite.h"
#include "access.h"
#include "leftover.h"

#define P(n) ((size_t)(n) * page)
#define BUDGET MKW_CACHE_BYTES_MIN
#define MIB ((uint64_t)1 << 20)
#define TIB ((uint64_t)1 << 40)
/* Of a file, in budgets; a sanitizer sees the same code in fewer. */
#define MANY (TEST_SLOW ? 20 : 100)

static size_t page;
static char path[256];

/* ---- what the kernel says ---------------------------------------------- */

/* Bytes of blocks of the memfds of this process. */
static uint64_t memfd_bytes(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *entry;
	uint64_t sum = 0;

	assert_non_null(d);
	while ((entry = readdir(d))) {
		char link[64] = "";
		struct stat st;

		if (readlinkat(dirfd(d), entry->d_name, link, sizeof(link) - 1) > 0 &&
		    !strncmp(link, "/memfd:", 7) && !fstatat(dirfd(d), entry->d_name, &st, 0))
			sum += (uint64_t)st.st_blocks * 512;
	}
	closedir(d);
	return sum;
}

/* A line "NAME:   n kB" of a file of /proc/self, in bytes. */
static uint64_t proc_bytes(const char *file, const char *name)
{
	FILE *f = fopen(file, "re");
	char line[256];
	uint64_t kb = 0;
	bool found = false;

	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f)) {
		size_t n = strlen(name);

		found = !strncmp(line, name, n) && line[n] == ':';
		if (found)
			kb = strtoull(line + n + 1, NULL, 10);
	}
	fclose(f);
	assert_true(found);
	return kb * 1024;
}

static uint64_t anon_bytes(void)
{
	return proc_bytes("/proc/self/status", "RssAnon");
}

/* Looks at the memfds until it is told to stop. */
struct watch {
	pthread_t thread;
	_Atomic bool stop;
	uint64_t looks, peak;
};

static void *watcher(void *arg)
{
	struct watch *w = arg;

	do {
		uint64_t now = memfd_bytes();

		if (now > w->peak)
			w->peak = now;
		w->looks++;
	} while (!atomic_load(&w->stop));
	return NULL;
}

static void watch_begin(struct watch *w)
{
	*w = (struct watch){ .peak = 0 };
	assert_int_equal(pthread_create(&w->thread, NULL, watcher, w), 0);
}

static void watch_end(struct watch *w, uint64_t budget)
{
	atomic_store(&w->stop, true);
	pthread_join(w->thread, NULL);
	printf("frames: %ju KiB at most of %ju, in %ju looks\n",
	       (uintmax_t)w->peak >> 10, (uintmax_t)budget >> 10,
	       (uintmax_t)w->looks);
	assert_true(w->peak > 0);
	assert_true(w->peak <= budget);
}

/* ---- the file ------------------------------------------------------------ */

struct fixture {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *p;
	size_t len;
};

static void start(struct fixture *f, size_t len, unsigned map_flags)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;

	opt.cache_bytes = BUDGET;
	f->len = len;
	leftover_open(&opt, path, len, &f->engine, &f->file);
	assert_int_equal(mkw_map(f->file, NULL, len, PROT_READ | PROT_WRITE,
				 map_flags, 0, (void **)&f->p), 0);
}

static void finish(struct fixture *f)
{
	leftover_end(f->engine, f->file, f->p, f->len, path);
}

static int clean_up(void **state)
{
	(void)state;
	unlink(path);
	return leftover_clear();
}

static uint64_t *word(struct fixture *f, size_t idx)
{
	return (uint64_t *)(void *)(f->p + P(idx));
}

static void store_all(struct fixture *f, uint64_t salt)
{
	for (size_t i = 0; i < f->len / page; i++)
		*word(f, i) = i ^ salt;
}

static void check_all(struct fixture *f, uint64_t salt)
{
	for (size_t i = 0; i < f->len / page; i++)
		if (*word(f, i) != (i ^ salt))
			fail_msg("page %zu holds %jx", i,
				 (uintmax_t)*word(f, i));
}

/* ---- a hundred budgets ----------------------------------------------------- */

static void hundred_budgets(unsigned map_flags)
{
	size_t big = 8 * BUDGET;
	unsigned char *buf = aligned_alloc(page, big);
	uint64_t anon = anon_bytes(), now;
	struct fixture f;
	struct watch w;

	memset(buf, 0, big);
	anon += big;
	watch_begin(&w);
	start(&f, MANY * BUDGET, map_flags);
	store_all(&f, 7);
	check_all(&f, 7);
	/* Longer than the cache; through it and past it. */
	for (unsigned flags = 0; flags <= MKW_DIRECT; flags++) {
		assert_int_equal(mkw_pread(f.file, buf, big, (off_t)(3 * BUDGET),
					   flags), big);
		for (size_t i = 0; i < big / page; i++) {
			uint64_t *v = (uint64_t *)(void *)(buf + P(i));

			assert_int_equal(*v, (i + 3 * BUDGET / page) ^ 7);
			*v = (i + 12 * BUDGET / page) ^ 7;
		}
		assert_int_equal(mkw_pwrite(f.file, buf, big, (off_t)(12 * BUDGET),
					    flags), big);
	}
	check_all(&f, 7);
	now = proc_bytes("/proc/self/smaps_rollup", "Pss_Shmem");
	assert_true(now <= BUDGET);
	now = anon_bytes();
	printf("beside the frames: %ju KiB\n",
	       now > anon ? (uintmax_t)(now - anon) >> 10 : 0);
	if (!TEST_SLOW)
		assert_true(now <= anon + 32 * MIB + f.len / 200);
	finish(&f);
	watch_end(&w, BUDGET);
	free(buf);
}

static void test_hundred_budgets(void **state)
{
	(void)state;
	hundred_budgets(0);
}

static void test_hundred_budgets_inline(void **state)
{
	(void)state;
	hundred_budgets(MKW_MAP_INLINE);
}

static void test_least_budget(void **state)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *e;

	(void)state;
	opt.cache_bytes = MKW_CACHE_BYTES_MIN - 1;
	assert_int_equal(mkw_engine_open(&opt, &e), -EINVAL);
}

/* ---- a vast mapping -------------------------------------------------------- */

#define TOUCHES 10000u

static void test_sparse(void **state)
{
	uint64_t anon, tables, at = 1;
	struct fixture f;
	struct watch w;

	(void)state;
	if (TEST_SLOW) {
		printf("skipped: a sanitizer's own memory is too much\n");
		skip();
	}
	anon = anon_bytes();
	tables = proc_bytes("/proc/self/status", "VmPTE");
	if (truncate(path, (off_t)(15 * TIB))) {
		int fd = open(path, O_RDWR | O_CREAT, 0600);

		assert_true(fd >= 0);
		if (ftruncate(fd, (off_t)(15 * TIB))) {
			printf("skipped: no file of 15 TiB here: %s\n",
			       strerror(errno));
			close(fd);
			skip();
		}
		close(fd);
	}
	watch_begin(&w);
	start(&f, 15 * TIB, 0);
	for (unsigned i = 0; i < TOUCHES; i++) {
		at = at * UINT64_C(6364136223846793005) + 1442695040888963407u;
		assert_int_equal(*word(&f, (at >> 20) % (15 * TIB / page)), 0);
	}
	printf("beside the frames: %jd KiB; page tables: %ju KiB\n",
	       ((intmax_t)anon_bytes() - (intmax_t)anon) >> 10,
	       (uintmax_t)(proc_bytes("/proc/self/status", "VmPTE") - tables) >> 10);
	assert_true(anon_bytes() <= anon + 32 * MIB + P(TOUCHES) / 200);
	finish(&f);
	watch_end(&w, BUDGET);
}

/* ---- settings of the system ------------------------------------------------ */

static void some_budgets(void)
{
	struct fixture f;
	struct watch w;

	watch_begin(&w);
	start(&f, 8 * BUDGET, 0);
	store_all(&f, 9);
	check_all(&f, 9);
	finish(&f);
	watch_end(&w, BUDGET);
}

#define SHMEM "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
static char shmem_before[32];

static bool write_shmem(const char *setting)
{
	int fd = open(SHMEM, O_WRONLY | O_CLOEXEC);
	bool fine = fd >= 0 &&
		    write(fd, setting, strlen(setting)) == (ssize_t)strlen(setting);

	if (fd >= 0)
		close(fd);
	return fine;
}

static void put_shmem_back(void)
{
	if (shmem_before[0])
		write_shmem(shmem_before);
	shmem_before[0] = 0;
}

static int clean_up_shmem(void **state)
{
	put_shmem_back();
	return clean_up(state);
}

static void test_huge_pages(void **state)
{
	static const char *const settings[] = { "always", "within_size", "advise",
						"never" };
	char line[128] = "", now[32] = "";
	FILE *f = fopen(SHMEM, "re");
	const char *from;

	(void)state;
	if (f) {
		from = fgets(line, sizeof(line), f) ? strchr(line, '[') : NULL;
		if (from)
			sscanf(from + 1, "%31[^]]", now);
		fclose(f);
	}
	if (!write_shmem(now)) {
		printf("skipped: there is no " SHMEM " that can be set\n");
		skip();
	}
	memcpy(shmem_before, now, sizeof(now));
	atexit(put_shmem_back);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(write_shmem(settings[i]));
		some_budgets();
	}
	put_shmem_back();
}

/* In a process of its own, since it cannot be had for one engine alone. */
static int locked_main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_hundred_budgets, clean_up),
	};

	if (mlockall(MCL_CURRENT | MCL_FUTURE)) {
		printf("skipped: mlockall: %s\n", strerror(errno));
		return 77;
	}
	return cmocka_run_group_tests_name("mlockall", tests, NULL, NULL);
}

static char **self;

static void test_mlockall(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (TEST_SLOW) {
		printf("skipped: a sanitizer's own memory cannot be locked\n");
		skip();
	}
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		execl("/proc/self/exe", self[0], "locked", NULL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- a control group ---------------------------------------------------- */

static bool write_to(const char *dir, const char *name, const char *text)
{
	char file[320];
	bool good;
	FILE *f;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	f = fopen(file, "we");
	if (!f)
		return false;
	good = fputs(text, f) >= 0;
	return !fclose(f) && good;
}

/* In a group that may have 48 MiB: what an engine with so large a cache gets. */
static int open_in_group(const char *dir, uint64_t cache_bytes, bool use)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
		struct mkw_stats st = { .size = sizeof(st) };
		struct mkw_engine *engine;
		struct mkw_file *file;
		unsigned char *map;
		int r;

		opt.cache_bytes = cache_bytes;
		if (!write_to(dir, "cgroup.procs", "0"))
			_exit(99);
		r = mkw_engine_open(&opt, &engine);
		if (r)
			_exit(-r);
		/* All of the file, which the cache cannot hold. */
		if (use && (mkw_engine_stats(engine, &st) ||
			    mkw_file_open(engine, path, O_RDWR | O_CREAT, 0600, &file) ||
			    mkw_truncate(file, 64 * MIB) ||
			    mkw_map(file, NULL, 64 * MIB, PROT_READ | PROT_WRITE, 0,
				    0, (void **)&map)))
			_exit(98);
		for (uint64_t i = 0; use && i < 64 * MIB; i += page)
			map[i] = 1;
		if (use && (st.cache_bytes > 16 * MIB || mkw_sync(file) ||
			    mkw_unmap(map, 64 * MIB) || mkw_file_close(file)))
			_exit(97);
		_exit(mkw_engine_close(engine) ? 96 : 0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* A killed process: 200 and the signal. */
	return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

static void test_limited(void **state)
{
	static const char *const tops[] = { "/sys/fs/cgroup/memory", "/sys/fs/cgroup" };
	static const char *const files[] = { "memory.limit_in_bytes", "memory.max" };
	char dir[128] = "";
	unsigned v;
	int r[3] = { 0 };

	(void)state;
	if (TEST_SLOW) {
		printf("skipped: a sanitizer's own memory does not fit the group\n");
		skip();
	}
	for (v = 0; v < 2; v++) {
		snprintf(dir, sizeof(dir), "%s/mkw-test-%d", tops[v], (int)getpid());
		if (mkdir(dir, 0700))
			continue;
		if (write_to(dir, files[v], "50331648"))
			break;
		rmdir(dir);
	}
	if (v == 2) {
		printf("skipped: no control group whose memory can be limited (root, and /sys/fs/cgroup)\n");
		skip();
	}
	printf("a message about a cache of 32768 KiB is wanted:\n");
	r[0] = open_in_group(dir, 32 * MIB, false);
	r[1] = open_in_group(dir, 8 * MIB, true);
	r[2] = open_in_group(dir, 0, true);
	/* The kernel may still be taking apart who has just ended. */
	for (unsigned i = 0; rmdir(dir) && errno == EBUSY && i < 1000; i++)
		usleep(10000);
	assert_int_equal(r[0], ENOMEM);
	assert_int_equal(r[1], 0);
	assert_int_equal(r[2], 0);
}

#define T(fn) cmocka_unit_test_teardown(fn, clean_up)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(test_least_budget),
		T(test_hundred_budgets),
		T(test_hundred_budgets_inline),
		T(test_sparse),
		cmocka_unit_test_teardown(test_huge_pages, clean_up_shmem),
		T(test_mlockall),
		T(test_limited),
	};
	const char *dir = getenv("MKW_DIR");

	self = argv;
	page = (size_t)sysconf(_SC_PAGESIZE);
	access_begin();
	if (!access_possible())
		return 77;
	snprintf(path, sizeof(path), "%s/mkw-test-memory-%d", dir ? dir : ".",
		 (int)getpid());
	if (argc > 1)
		return locked_main();
	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
