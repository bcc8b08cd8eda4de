/* SPDX-License-Identifier: MIT */
/*
 * table.c: a hash table that lives in a file, is read and changed as memory, and
 * survives a power cut in the midst of any change.
 *
 * Usage: table FILE. A child process changes the table, batch after batch, until it is
 * killed at a moment of nobody's choice. The file is opened anew, mended, and checked:
 * every batch that was committed is there, and none is there in part.
 *
 * What a crash may leave (mkwrite(7)): each block of the device holds what it held
 * at some moment since the last mkw_sync() that returned. A word is never torn, but
 * of two stores the later one may be there without the earlier. So changes go to a
 * journal first. The file is
 *
 *   journal 0 | journal 1 | slots
 *
 * and a batch, number n, is committed in three steps:
 *   1  its changes are written to journal n % 2, with n and a checksum
 *   2  mkw_sync(): now they are durable, and with them the slots of batch n - 1
 *   3  they are made in the slots, by plain stores
 * At any moment one journal is whole and durable: while n is being written, that of
 * n - 1, whose slots may be durable or not. So mending is to find the journals whose
 * checksum is right, and to do step 3 again for each, the older one first. It does
 * no harm to do it twice: a key is put where the first time has put it, since
 * those that came before it in the batches are in their places by then.
 *
 * One mkw_sync() a batch, and no write of a slot ever waits for the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mkwrite/mkwrite.h>

#define BATCH 120		/* changes in one */
#define SLOTS (1u << 14)
#define KEYS 9000u		/* different ones, so that there is room */

struct slot {
	uint64_t key;		/* 0: free */
	uint64_t value;
};

struct journal {
	uint64_t number;	/* of the batch, from 1 on */
	uint64_t count;
	uint64_t checksum;	/* of the others */
	uint64_t pad;
	struct slot change[BATCH];
};

/* Blocks of its own for each journal, so that writing one never touches the other. */
#define JOURNAL_BYTES ((size_t)4096)
#define FILE_BYTES (2 * JOURNAL_BYTES + SLOTS * sizeof(struct slot))
_Static_assert(sizeof(struct journal) <= JOURNAL_BYTES, "a journal has its blocks");

struct table {
	struct mkw_engine *engine;
	struct mkw_file *file;
	unsigned char *base;	/* of the mapping */
	uint64_t number;	/* of the last batch */
};

static void check(const char *what, int r)
{
	if (r < 0) {
		fprintf(stderr, "table: %s: %s\n", what, strerror(-r));
		exit(1);
	}
}

static void wrong(const char *what, uint64_t a, uint64_t b)
{
	fprintf(stderr, "table: %s (%llu, %llu)\n", what,
		(unsigned long long)a, (unsigned long long)b);
	exit(1);
}

static struct journal *journal_of(struct table *t, uint64_t number)
{
	return (struct journal *)(t->base + number % 2 * JOURNAL_BYTES);
}

static uint64_t mix(uint64_t h)
{
	h ^= h >> 33;
	h *= UINT64_C(0xff51afd7ed558ccd);
	h ^= h >> 33;
	h *= UINT64_C(0xc4ceb9fe1a85ec53);
	return h ^ h >> 33;
}

/* Of a whole journal; a torn one has another. */
static uint64_t checksum(const struct journal *j)
{
	uint64_t sum = mix(j->number) + j->count;

	for (uint64_t i = 0; i < j->count && i < BATCH; i++)
		sum = mix(sum ^ j->change[i].key) + mix(j->change[i].value);
	return sum;
}

/* The slot of a key, or the free one where it would go. */
static struct slot *find(struct table *t, uint64_t key)
{
	struct slot *slots = (struct slot *)(t->base + 2 * JOURNAL_BYTES);
	uint64_t i = mix(key) % SLOTS;

	while (slots[i].key && slots[i].key != key)
		i = (i + 1) % SLOTS;
	return &slots[i];
}

/* Step 3. */
static void apply(struct table *t, const struct journal *j)
{
	for (uint64_t i = 0; i < j->count; i++) {
		struct slot *s = find(t, j->change[i].key);

		s->value = j->change[i].value;
		s->key = j->change[i].key;
	}
}

static void commit(struct table *t, const struct slot *changes, uint64_t count)
{
	struct journal *j = journal_of(t, t->number + 1);

	memcpy(j->change, changes, count * sizeof(*changes));
	j->number = t->number + 1;
	j->count = count;
	j->checksum = checksum(j);
	check("mkw_sync", mkw_sync(t->file));
	apply(t, j);
	t->number++;
}

static void mend(struct table *t)
{
	uint64_t newest = 0;

	for (uint64_t i = 0; i < 2; i++) {
		struct journal *j = journal_of(t, i);

		if (j->count && j->count <= BATCH && j->checksum == checksum(j) &&
		    j->number > newest)
			newest = j->number;
	}
	for (uint64_t n = newest ? newest - 1 : 0; n <= newest; n++) {
		struct journal *j = journal_of(t, n);

		/* The other may be of the batch after, and torn. */
		if (n && j->number == n && j->checksum == checksum(j))
			apply(t, j);
	}
	t->number = newest;
	check("mkw_sync", mkw_sync(t->file));
}

static void open_table(struct table *t, const char *path)
{
	void *addr;

	check("mkw_engine_open", mkw_engine_open(NULL, &t->engine));
	check("mkw_file_open", mkw_file_open(t->engine, path, O_RDWR | O_CREAT,
					     0644, &t->file));
	if (mkw_size(t->file) < (int64_t)FILE_BYTES)
		check("mkw_truncate", mkw_truncate(t->file, FILE_BYTES));
	check("mkw_map", mkw_map(t->file, NULL, FILE_BYTES,
				 PROT_READ | PROT_WRITE, 0, 0, &addr));
	t->base = addr;
	mend(t);
}

static void close_table(struct table *t)
{
	check("mkw_unmap", mkw_unmap(t->base, FILE_BYTES));
	check("mkw_file_close", mkw_file_close(t->file));
	check("mkw_engine_close", mkw_engine_close(t->engine));
}

/*
 * Batch n gives BATCH keys the value n. The keys wander, so that most are put anew at
 * first, and changed later.
 */
static uint64_t key_of(uint64_t n, uint64_t i)
{
	return 1 + mix(n * BATCH + i) % KEYS;
}

static void make_batch(uint64_t n, struct slot *changes)
{
	for (uint64_t i = 0; i < BATCH; i++)
		changes[i] = (struct slot){ key_of(n, i), n };
}

/* Never returns: it is killed. Says each batch that has been committed. */
static void work(const char *path, int say)
{
	struct slot changes[BATCH];
	struct table t;

	open_table(&t, path);
	for (;;) {
		make_batch(t.number + 1, changes);
		commit(&t, changes, BATCH);
		if (write(say, &t.number, sizeof(t.number)) < 0)
			_exit(1);
	}
}

/* Is the table what the first `number` batches make of it, and nothing else? */
static void verify(struct table *t)
{
	static uint64_t expected[KEYS + 1];

	memset(expected, 0, sizeof(expected));
	for (uint64_t n = 1; n <= t->number; n++)
		for (uint64_t i = 0; i < BATCH; i++)
			expected[key_of(n, i)] = n;
	for (uint64_t key = 1; key <= KEYS; key++) {
		struct slot *s = find(t, key);

		if (s->key ? s->value != expected[key] : expected[key] != 0)
			wrong("a key has not its value", key, s->value);
	}
}

/*
 * What a killed process had in flight may hold its files, and the engine's lock on them,
 * for a moment longer than waitpid() knows of it; opening says -EBUSY until then.
 */
static void wait_for_end(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || flock(fd, LOCK_EX)) {
		perror(path);
		exit(1);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	uint64_t committed = 0, number;
	struct table t;

	if (argc != 2) {
		fprintf(stderr, "usage: table FILE\n");
		return 2;
	}
	for (int life = 0; life < 3; life++) {
		int pipes[2], status;
		pid_t child;

		if (pipe(pipes))
			check("pipe", -errno);
		child = fork();
		if (child < 0)
			check("fork", -errno);
		if (!child) {
			close(pipes[0]);
			work(argv[1], pipes[1]);
		}
		close(pipes[1]);
		/* Somewhere in the batch after the tenth that it tells of. */
		for (int i = 0; i < 10; i++) {
			if (read(pipes[0], &number, sizeof(number)) !=
			    (ssize_t)sizeof(number))
				wrong("the child died by itself", i, life);
			committed = number;
		}
		kill(child, SIGKILL);
		while (read(pipes[0], &number, sizeof(number)) ==
		       (ssize_t)sizeof(number))
			committed = number;
		close(pipes[0]);
		waitpid(child, &status, 0);
		wait_for_end(argv[1]);

		open_table(&t, argv[1]);
		if (t.number < committed)
			wrong("a batch that was committed is lost", t.number,
			      committed);
		verify(&t);
		close_table(&t);
	}
	puts("killed three times; no batch lost, none in part");
	return 0;
}
