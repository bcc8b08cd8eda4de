/* SPDX-License-Identifier: MIT */
/*
 * loop.c: a server of records in a file: one event loop, no threads of its own, and nothing
 * in the loop waits for the disk.
 *
 * Usage: loop FILE. Some client processes put and get records over sockets, each a message:
 *
 *	put NUMBER TEXT		answered by "ok" once the record is durable
 *	get NUMBER		answered by the text
 *
 * The loop waits, by epoll, for messages of clients and for results of a queue of the engine.
 * A message becomes a request, mkw_queue_submit(); its result, an answer. Where a call
 * would have to wait, a thread of the queue does.
 *
 * Durability is shared. A put is written first; when the result of that is there a sync is
 * submitted, unless one is under way. A sync covers all writes whose results were
 * there when it was submitted, so one sync answers all puts that came while the
 * last one ran, and the more clients there are the more share it.
 *
 *	put ──► WRITING ──► WRITTEN ──► SYNCING ──► "ok"
 *	get ──► READING ──► the text
 *
 * The head of the file is mapped, and counts the puts by plain stores. (A page fault would
 * stop the loop; of one page that is always in use there are few. Records are many, so
 * they are read and written by requests.)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mkwrite/mkwrite.h>

#define CLIENTS 8
#define PUTS 50			/* of each client */
#define RECORDS 64u		/* of each client; it leaves the others' alone */
#define TEXT_BYTES 56

struct record {
	uint64_t length;
	char text[TEXT_BYTES];
};

struct head {
	uint64_t puts;
};

/* Records begin behind a page for the head. */
#define RECORDS_AT 65536u
#define FILE_BYTES (RECORDS_AT + CLIENTS * RECORDS * sizeof(struct record))

/* A client has one request at a time. */
struct client {
	int fd;
	enum { IDLE, READING, WRITING, WRITTEN, SYNCING } state;
	struct record record;	/* the queue's while READING or WRITING */
};

#define SYNC_TAG CLIENTS	/* smaller ones are clients */

static struct client clients[CLIENTS];
static struct mkw_file *file;
static struct mkw_queue *queue;
static struct head *head;
static bool syncing;

static void check(const char *what, int64_t r)
{
	if (r < 0) {
		fprintf(stderr, "loop: %s: %s\n", what, strerror((int)-r));
		exit(1);
	}
}

static void wrong(const char *what, const char *text)
{
	fprintf(stderr, "loop: %s: \"%s\"\n", what, text);
	exit(1);
}

/* ---- the server ---------------------------------------------------------- */

static void submit(struct mkw_request rq)
{
	rq.size = sizeof(rq);
	rq.file = file;
	/* The queue has room for a request of each client, and a sync. */
	check("mkw_queue_submit", mkw_queue_submit(queue, &rq, 1));
}

static void answer(struct client *c, const char *text, size_t len)
{
	c->state = IDLE;
	if (send(c->fd, text, len, MSG_NOSIGNAL) < 0)
		check("send", -errno);
}

static void submit_sync(void)
{
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i].state == WRITTEN)
			clients[i].state = SYNCING;
	syncing = true;
	submit((struct mkw_request){ .op = MKW_OP_SYNC, .tag = SYNC_TAG });
}

static void sync_ended(int64_t value)
{
	bool more = false;

	check("a sync", value);
	syncing = false;
	for (int i = 0; i < CLIENTS; i++) {
		if (clients[i].state == SYNCING)
			answer(&clients[i], "ok", 2);
		more |= clients[i].state == WRITTEN;
	}
	if (more)
		submit_sync();
}

static void request_ended(struct client *c, int64_t value)
{
	check(c->state == READING ? "a read" : "a write", value);
	if (c->state == READING) {
		answer(c, c->record.text, c->record.length);
		return;
	}
	/* Made before the sync is submitted, so that this is durable, too. */
	head->puts++;
	c->state = WRITTEN;
	if (!syncing)
		submit_sync();
}

static void fetch_results(void)
{
	struct mkw_result results[4];
	ssize_t n = mkw_queue_reap(queue, results, 4, 0);

	check("mkw_queue_reap", n);
	/* If there are more, the descriptor says so again. */
	for (ssize_t i = 0; i < n; i++)
		if (results[i].tag == SYNC_TAG)
			sync_ended(results[i].value);
		else
			request_ended(&clients[results[i].tag], results[i].value);
}

/* False: it has left. */
static bool read_message(struct client *c)
{
	struct mkw_request rq = MKW_REQUEST_INIT;
	char message[TEXT_BYTES + 32];
	unsigned number;
	int at = 0;
	ssize_t n = recv(c->fd, message, sizeof(message) - 1, 0);

	if (n <= 0)
		return false;
	message[n] = 0;
	if (sscanf(message, "get %u", &number) == 1) {
		rq.op = MKW_OP_READ;
		c->state = READING;
	} else if (sscanf(message, "put %u %n", &number, &at) == 1 && at &&
		   strlen(message + at) < TEXT_BYTES) {
		rq.op = MKW_OP_WRITE;
		c->state = WRITING;
		memset(&c->record, 0, sizeof(c->record));
		c->record.length = strlen(message + at);
		memcpy(c->record.text, message + at, c->record.length);
	} else {
		wrong("no request", message);
	}
	if (number >= CLIENTS * RECORDS)
		wrong("no such record", message);
	rq.buf = &c->record;
	rq.len = sizeof(c->record);
	rq.off = (off_t)(RECORDS_AT + number * sizeof(c->record));
	rq.tag = (uint64_t)(c - clients);
	submit(rq);
	return true;
}

static void watch(int ep, int fd, struct client *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
		check("epoll_ctl", -errno);
}

static void serve(void)
{
	struct epoll_event events[CLIENTS + 1];
	int ep = epoll_create1(EPOLL_CLOEXEC), left = CLIENTS;

	if (ep < 0)
		check("epoll_create1", -errno);
	watch(ep, mkw_queue_fd(queue), NULL);
	for (int i = 0; i < CLIENTS; i++)
		watch(ep, clients[i].fd, &clients[i]);
	while (left) {
		int n = epoll_wait(ep, events, CLIENTS + 1, -1);

		if (n < 0 && errno != EINTR)
			check("epoll_wait", -errno);
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			if (!c) {
				fetch_results();
			} else if (!read_message(c)) {
				close(c->fd);
				left--;
			}
		}
	}
	close(ep);
}

/* ---- a client -------------------------------------------------------------- */

static void ask(int fd, const char *message, const char *expected)
{
	char reply[128];
	ssize_t n;

	if (send(fd, message, strlen(message), 0) < 0)
		_exit(1);
	n = recv(fd, reply, sizeof(reply) - 1, 0);
	reply[n > 0 ? n : 0] = 0;
	if (strcmp(reply, expected)) {
		fprintf(stderr, "loop: \"%s\" was answered by \"%s\", not by \"%s\"\n",
			message, reply, expected);
		_exit(1);
	}
}

/* What a client's put number n puts, and where; the last of a record counts. */
static unsigned number_of(int client, int n)
{
	return (unsigned)client * RECORDS + (unsigned)n * 7 % RECORDS % 20;
}

static void text_of(char *text, int client, int n)
{
	snprintf(text, TEXT_BYTES, "put number %d of client %d", n, client);
}

static void be_client(int client, int fd)
{
	char message[128], text[TEXT_BYTES];

	for (int n = 0; n < PUTS; n++) {
		text_of(text, client, n);
		snprintf(message, sizeof(message), "put %u %s", number_of(client, n),
			 text);
		ask(fd, message, "ok");
		snprintf(message, sizeof(message), "get %u", number_of(client, n));
		ask(fd, message, text);
	}
	_exit(0);
}

/* ---- all of it --------------------------------------------------------------- */

/* Before there is an engine, which a forked child could not use. */
static void start_clients(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		int ends[2];
		pid_t pid;

		/* Messages stay messages. */
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
			check("socketpair", -errno);
		pid = fork();
		if (pid < 0)
			check("fork", -errno);
		if (!pid) {
			for (int k = 0; k < i; k++)
				close(clients[k].fd);
			close(ends[0]);
			be_client(i, ends[1]);
		}
		close(ends[1]);
		clients[i].fd = ends[0];
	}
}

/* With the engine gone. */
static void look(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct head h;

	if (fd < 0 || pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		check(path, -errno);
	if (h.puts != CLIENTS * PUTS)
		wrong("puts are missing in the count", path);
	for (int i = 0; i < CLIENTS; i++)
		for (int n = 0; n < PUTS; n++) {
			char text[TEXT_BYTES];
			struct record r;
			int last = n;

			for (int k = n + 1; k < PUTS; k++)
				if (number_of(i, k) == number_of(i, n))
					last = k;
			text_of(text, i, last);
			if (pread(fd, &r, sizeof(r), (off_t)(RECORDS_AT +
				  number_of(i, n) * sizeof(r))) != (ssize_t)sizeof(r) ||
			    strncmp(r.text, text, sizeof(r.text)))
				wrong("a record is not what was put last", text);
		}
	close(fd);
}

int main(int argc, char **argv)
{
	struct mkw_queue_options opt = MKW_QUEUE_OPTIONS_INIT;
	struct mkw_engine *engine;
	void *addr;
	int status;

	if (argc != 2) {
		fprintf(stderr, "usage: loop FILE\n");
		return 2;
	}
	start_clients();
	check("mkw_engine_open", mkw_engine_open(NULL, &engine));
	check("mkw_file_open", mkw_file_open(engine, argv[1],
					     O_RDWR | O_CREAT | O_TRUNC, 0644,
					     &file));
	check("mkw_truncate", mkw_truncate(file, FILE_BYTES));
	check("mkw_map", mkw_map(file, NULL, RECORDS_AT, PROT_READ | PROT_WRITE, 0,
				 0, &addr));
	head = addr;
	opt.depth = CLIENTS + 1;
	check("mkw_queue_open", mkw_queue_open(engine, &opt, &queue));

	serve();

	check("mkw_queue_close", mkw_queue_close(queue));
	check("mkw_unmap", mkw_unmap(addr, RECORDS_AT));
	check("mkw_file_close", mkw_file_close(file));
	check("mkw_engine_close", mkw_engine_close(engine));
	for (int i = 0; i < CLIENTS; i++)
		if (wait(&status) < 0 || status)
			wrong("a client was not content", argv[1]);
	look(argv[1]);
	printf("%d puts and gets of %d clients, one loop; all is there\n",
	       CLIENTS * PUTS, CLIENTS);
	return 0;
}
