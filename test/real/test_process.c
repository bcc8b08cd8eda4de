/* SPDX-License-Identifier: MIT */
/*
 * Processes: fork, spawn, exit and the right to serve faults inside system calls.
 */
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "scene.h"

extern char **environ;

/* ---- fork ------------------------------------------------------------- */

static int held[2], go_on[2];	/* pipes: somebody is inside; he may leave */

static void wait_in_read(void)
{
	char c;

	MUST(write(held[1], "", 1) == 1);
	MUST(read(go_on[0], &c, 1) == 1);
}

/* Inside the engine, with locks, while its process forks. */
static void *holder_main(void *arg)
{
	unsigned char byte;

	(void)arg;
	scene.in_read = wait_in_read;
	MUST(mkw_pread(scene.file, &byte, 1, (off_t)P(9), 0) == 1);
	return NULL;
}

/* Every call refuses, and none waits for the holder. */
static void child_calls(unsigned char *map)
{
	struct mkw_engine *e = scene.engine;
	struct mkw_file *f = scene.file, *other;
	struct mkw_file_info info = MKW_FILE_INFO_INIT;
	struct mkw_range range = { 0 };
	struct mkw_stats stats = MKW_STATS_INIT;
	struct mkw_failed failed;
	unsigned char vec[PAGES];
	void *addr;

	MUST(try_access(map, false) == SIGSEGV);
	MUST(try_access(map + P(1), true) == SIGSEGV);
	MUST(mkw_pread(f, vec, 1, 0, 0) == -ECHILD);
	MUST(mkw_pread(f, vec, 1, 0, MKW_NOWAIT) == -ECHILD);
	MUST(mkw_pwrite(f, vec, 1, 0, 0) == -ECHILD);
	MUST(mkw_append(f, vec, 1, 0, NULL) == -ECHILD);
	MUST(mkw_truncate(f, 0) == -ECHILD);
	MUST(mkw_fallocate(f, 0, 0, 1) == -ECHILD);
	MUST(mkw_seek(f, 0, SEEK_DATA) == -ECHILD);
	MUST(mkw_size(f) == -ECHILD);
	MUST(mkw_file_info(f, &info) == -ECHILD);
	MUST(mkw_sync(f) == -ECHILD);
	MUST(mkw_sync_range(f, 0, 0, 0) == -ECHILD);
	MUST(mkw_map(f, NULL, page, PROT_READ, 0, 0, &addr) == -ECHILD);
	MUST(mkw_resident(f, 0, page, vec) == -ECHILD);
	MUST(mkw_advise(f, 0, 0, MKW_ADVICE_NORMAL) == -ECHILD);
	MUST(mkw_prefetch(f, &range, 1) == -ECHILD);
	MUST(mkw_file_on_fault_error(f, NULL, NULL) == -ECHILD);
	MUST(mkw_failed(f, 0, &failed, 1) == -ECHILD);
	MUST(mkw_discard(f, 0, page) == -ECHILD);
	MUST(mkw_file_freeze(f) == -ECHILD);
	MUST(mkw_file_thaw(f) == -ECHILD);
	MUST(mkw_engine_freeze(e) == -ECHILD);
	MUST(mkw_file_close(f) == -ECHILD);
	MUST(mkw_file_open(e, "/dev/null", O_RDONLY, 0, &other) == -ECHILD);
	MUST(mkw_file_open_fd(e, 0, &other) == -ECHILD);
	MUST(mkw_engine_stats(e, &stats) == -ECHILD);
	MUST(mkw_engine_close(e) == -ECHILD);
	/* There is nothing of an engine here to be unmapped. */
	MUST(mkw_unmap(map, P(PAGES)) == 0);
}

/* The child's own engine, and a child of the child. */
static void child_engine(void)
{
#ifndef TSAN	/* which does not let a child start threads */
	unsigned char *p;
	int status;
	pid_t pid;

	scene_open();
	mkw__trap_reinstall();
	p = scene_map(MKW_MAP_INLINE);
	MUST(p[P(3)]++ == 0);
	pid = fork();
	if (!pid)
		_exit(mkw_size(scene.file) == -ECHILD ? 0 : 1);
	MUST(waitpid(pid, &status, 0) == pid && status == 0);
	MUST(p[P(3)] == 1);
	scene_close(p);
#endif
}

static void test_fork(void **state)
{
	pthread_t thread;
	unsigned char *p;
	int status;
	pid_t pid;
	char c;

	(void)state;
	assert_int_equal(pipe(held), 0);
	assert_int_equal(pipe(go_on), 0);
	scene_open();
	mkw__trap_reinstall();
	p = scene_map(0);
	p[0] = 7;
	assert_int_equal(pthread_create(&thread, NULL, holder_main, NULL), 0);
	assert_int_equal(read(held[0], &c, 1), 1);
	pid = fork();
	if (!pid) {
		alarm(PATIENCE_S);
		child_calls(p);
		child_engine();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	/* The parent has noticed nothing. */
	assert_int_equal(write(go_on[1], "", 1), 1);
	pthread_join(thread, NULL);
	assert_int_equal(p[0], 7);
	p[P(4)] = 8;
	scene_close(p);
	for (int i = 0; i < 2; i++) {
		close(held[i]);
		close(go_on[i]);
	}
}

/* A child that lives on keeps neither the file nor its frames. */
static void test_child_keeps_nothing(void **state)
{
	char path[] = "/tmp/mkw-test-process-XXXXXX", c;
	struct mkw_engine *e;
	struct mkw_file *f;
	int fds[2], status, fd = mkstemp(path);
	pid_t pid;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(mkw_engine_open(NULL, &e), 0);
	assert_int_equal(mkw_file_open(e, path, O_RDWR, 0, &f), 0);
	pid = fork();
	if (!pid) {
		close(fds[1]);
		_exit(read(fds[0], &c, 1) != 0);
	}
	/* Ours as long as we have it open, whoever else has. */
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	assert_int_equal(mkw_file_close(f), 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	close(fd);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(mkw_engine_close(e), 0);
	unlink(path);
}

static void test_spawn(void **state)
{
	char *args[] = { (char *)(uintptr_t)"true", NULL };
	unsigned char *p;
	int status;
	pid_t pid;

	(void)state;
	scene_open();
	p = scene_map(0);
	p[0] = 7;
	assert_int_equal(posix_spawnp(&pid, "true", NULL, NULL, args, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	pid = vfork();
	if (!pid)
		_exit(0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(p[0], 7);
	p[P(1)] = 8;
	assert_int_equal(mkw_sync(scene.file), 0);
	scene_close(p);
}

/* ---- the end ---------------------------------------------------------- */

static void test_close_busy(void **state)
{
	unsigned char *p;

	(void)state;
	scene_open();
	p = scene_map(0);
	assert_int_equal(mkw_engine_close(scene.engine), -EBUSY);
	p[P(2)] = 9;
	assert_int_equal(mkw_file_close(scene.file), 0);
	assert_int_equal(mkw_engine_close(scene.engine), -EBUSY);
	assert_int_equal(p[P(2)], 9);
	assert_int_equal(mkw_unmap(p, P(PAGES)), 0);
	assert_int_equal(mkw_engine_close(scene.engine), 0);
}

static void *toucher_main(void *arg)
{
	volatile unsigned char *p = arg;

	for (unsigned i = 0;; i = (i + 1) % PAGES)
		p[P(i)]++;
	return NULL;
}

/* argv[2] holds 'a'; what is stored and not written back by exit() is lost. */
static int play_exit(bool synced)
{
	struct mkw_engine_options opt = MKW_ENGINE_OPTIONS_INIT;
	struct mkw_engine *e;
	struct mkw_file *f;
	unsigned char *p;
	pthread_t thread;

	opt.writeback_age_ms = HOUR_MS;
	scene_open();
	MUST(!mkw_engine_open(&opt, &e));
	MUST(!mkw_file_open(e, self_argv[2], O_RDWR, 0, &f));
	MUST(!mkw_map(f, NULL, page, PROT_READ | PROT_WRITE, 0, 0, (void **)&p));
	MUST(p[0] == 'a');
	p[0] = 'b';
	MUST(!synced || !mkw_sync(f));
	/* Faults are under way, in every thread that may have them. */
	for (int i = 0; i < 2; i++)
		MUST(!pthread_create(&thread, NULL, toucher_main,
				     scene_map(i ? MKW_MAP_INLINE : 0)));
	exit(0);
}

static int play_exit_dirty(void)
{
	return play_exit(false);
}

static int play_exit_synced(void)
{
	return play_exit(true);
}

static void exits(const char *scene_name, char holds)
{
	char path[] = "/tmp/mkw-test-process-XXXXXX", c;
	int fd = mkstemp(path);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "a", 1), 1);
	scene_ends(scene_name, path, 0);
	assert_int_equal(pread(fd, &c, 1, 0), 1);
	assert_int_equal(c, holds);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 1);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	close(fd);
	unlink(path);
}

static void test_exit(void **state)
{
	(void)state;
	exits("exit-dirty", 'a');
	exits("exit-synced", 'b');
}

/* ---- without the right ------------------------------------------------- */

/* Faults of user code alone are served, and the first engine says so. */
static int play_nobody(void)
{
	unsigned char *p;
	int fds[2];

	MUST(!setgroups(0, NULL) && !setgid(65534) && !setuid(65534));
	scene_open();
	if (scene.engine->caps.kernel_faults)
		return 77;
	p = scene_map(0);
	MUST(p[0]++ == 0);
	MUST(!pipe(fds));
	MUST(write(fds[1], p, 1) == 1);
	MUST(write(fds[1], p + P(8), 1) == -1 && errno == EFAULT);
	/* Calls of the library are user code. */
	MUST(mkw_pread(scene.file, p + P(9), P(2), 0, 0) == (ssize_t)P(2));
	MUST(p[P(9)] == 1);
	MUST(mkw_pwrite(scene.file, p + P(12), P(2), 0, 0) == (ssize_t)P(2));
	MUST(p[0] == 0);
	scene_close(p);
	return 0;
}

/* userfaultfd(2) fails with err, as an older kernel or a container makes it. */
static int play_refused(int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = 4, .filter = code };
	struct mkw_engine *e;

	MUST(!setgroups(0, NULL) && !setgid(65534) && !setuid(65534));
	if (!access("/dev/userfaultfd", R_OK | W_OK))
		return 77;
	MUST(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter));
	MUST(mkw_engine_open(NULL, &e) == -err);
	return 0;
}

static int play_no_right(void)
{
	return play_refused(EPERM);
}

static int play_no_feature(void)
{
	return play_refused(ENOSYS);
}

static void says(const char *name, const char *what)
{
	char text[4096];
	int status = scene_run(name, NULL, text, sizeof(text));

	if (status && !(WIFEXITED(status) && WEXITSTATUS(status) == 77))
		fail_msg("%s: wait status 0x%x: %s", name, status, text);
	if (!status && !strstr(text, what))
		fail_msg("%s: \"%s\" is not in: %s", name, what, text);
}

static void need_root(void)
{
	if (!geteuid())
		return;
	print_message("skipped: only root has a right to give up\n");
	skip();
}

static void test_refused(void **state)
{
	(void)state;
	need_root();
	says("no-right", "allow userfaultfd(2) in the seccomp or container");
	says("no-feature", "CONFIG_USERFAULTFD, Linux 6.1 or newer");
}

static void test_nobody(void **state)
{
	char text[4096];
	int status;

	(void)state;
	need_root();
	status = scene_run("nobody", NULL, text, sizeof(text));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("skipped: everybody may serve faults of the kernel here\n");
		skip();
	}
	if (status)
		fail_msg("nobody: wait status 0x%x: %s", status, text);
	assert_non_null(strstr(text, "vm.unprivileged_userfaultfd=1"));
	assert_non_null(strstr(text, "EFAULT"));
}

int main(int argc, char **argv)
{
	static const struct play plays[] = {
		{ "exit-dirty", play_exit_dirty },
		{ "exit-synced", play_exit_synced },
		{ "nobody", play_nobody },
		{ "no-right", play_no_right },
		{ "no-feature", play_no_feature },
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_child_keeps_nothing),
		cmocka_unit_test(test_spawn),
		cmocka_unit_test(test_close_busy),
		cmocka_unit_test(test_exit),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_refused),
	};
	int played = scene_play(plays, sizeof(plays) / sizeof(plays[0]), argc,
				argv);

	if (played >= 0)
		return played;
	access_begin();
	if (!access_possible())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
