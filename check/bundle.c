/* SPDX-License-Identifier: MIT */
/*
 * bundle.c: what one sends to a maintainer: the history, and a program.
 *
 * The program does not know of linearizability. Each of its threads writes only
 * sectors of its own, and expects to read there what it wrote last: whatever loses,
 * hides or brings back data breaks that. Others touch the same pages. What is
 * done, how often and where is what was left when the run was minimised.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "check/evidence.h"
#include "check/report.h"

static FILE *create(const char *dir, const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return fopen(path, "we");
}

static int finish(FILE *f)
{
	int err = ferror(f) ? -EIO : 0;

	if (fclose(f) && !err)
		err = -errno;
	return err;
}

/* ---- the history ------------------------------------------------------------ */

static int write_history(const char *dir, const struct evidence *ev)
{
	FILE *f = create(dir, "history.jsonl");

	if (!f)
		return -errno;
	for (unsigned i = 0; i < ev->n; i++) {
		const struct evidence_op *op = &ev->ops[i];

		fprintf(f, "{\"thread\": %u, \"op\": \"%s\", \"way\": %u, "
			"\"offset\": %zu, \"bytes\": %zu, \"moved\": %zu, "
			"\"start_ns\": %" PRIu64 ", \"end_ns\": %" PRIu64
			", \"failed\": %s",
			op->rec.thread,
			mkw__check_op_name((enum op_kind)op->rec.kind),
			op->rec.way, op->rec.word * WORD, op->rec.words * WORD,
			op->rec.moved * WORD, op->rec.start - ev->began,
			op->rec.end - ev->began,
			op->rec.outcome == REC_FAILED ? "true" : "false");
		if (op->touches && op->knows)
			fprintf(f, ", \"word\": %zu, \"value\": \"%#" PRIx64 "\"",
				ev->word * WORD, op->value);
		if (op->culprit || op->witness)
			fprintf(f, ", \"role\": \"%s\"",
				op->culprit ? "culprit" : "witness");
		fprintf(f, "}\n");
	}
	return finish(f);
}

/* ---- the program ------------------------------------------------------------- */

static const char repro_head[] =
"#define _GNU_SOURCE\n"
"#include <errno.h>\n"
"#include <fcntl.h>\n"
"#include <linux/falloc.h>\n"
"#include <pthread.h>\n"
"#include <stdatomic.h>\n"
"#include <stdint.h>\n"
"#include <stdio.h>\n"
"#include <stdlib.h>\n"
"#include <string.h>\n"
"#include <sys/mman.h>\n"
"#include <time.h>\n"
"#include <unistd.h>\n\n"
"#define WORDS 64\t/* of a sector of 512 bytes */\n\n"
"enum { LOAD, STORE, READ, WRITE, DIRECT_READ, DIRECT_WRITE, PUNCH, ZERO,\n"
"       TRUNCATE, SYNC, ALLOCATE, DISTURB };\n\n";

static const char repro_body[] =
"static int fd, direct_fd;\n"
"static size_t size;\n"
"static _Atomic uint64_t *map;\n"
"static _Atomic unsigned long wrong, done, errors;\n"
"static _Atomic int stop;\n\n"
"/* Reads the word at index i in the way of the kind. */\n"
"static uint64_t look(int kind, size_t i, uint64_t *buf)\n"
"{\n"
"\tif (kind == READ && pread(fd, buf, 512, (off_t)(i / WORDS * 512)) == 512)\n"
"\t\treturn buf[i % WORDS];\n"
"\tif (kind == DIRECT_READ &&\n"
"\t    pread(direct_fd, buf, 512, (off_t)(i / WORDS * 512)) == 512)\n"
"\t\treturn buf[i % WORDS];\n"
"\treturn atomic_load_explicit(&map[i], memory_order_relaxed);\n"
"}\n\n"
"static void *thread(void *arg)\n"
"{\n"
"\tunsigned me = (unsigned)(uintptr_t)arg, rng = me * 7919 + 1;\n"
"\tsize_t sectors = size / 512, mine = sectors / THREADS;\n"
"\tuint64_t *buf, *expect = calloc(sectors, 8), n = 0;\n\n"
"\tif (posix_memalign((void **)&buf, 4096, 4096) || !expect || !mine)\n"
"\t\texit(2);\n"
"\twhile (!stop) {\n"
"\t\tint kind = kinds[rand_r(&rng) % KINDS], failed = 0;\n"
"\t\tsize_t s = me + rand_r(&rng) % mine * THREADS;\n"
"\t\tsize_t i = s * WORDS + 8;\n"
"\t\toff_t off = (off_t)s * 512;\n"
"\t\tuint64_t v = (uint64_t)(me + 1) << 56 | ++n;\n\n"
"\t\tswitch (kind) {\n"
"\t\tcase STORE:\n"
"\t\t\tatomic_store_explicit(&map[i], v, memory_order_relaxed);\n"
"\t\t\tbreak;\n"
"\t\tcase WRITE:\n"
"\t\tcase DIRECT_WRITE:\n"
"\t\t\tfor (int k = 0; k < WORDS; k++)\n"
"\t\t\t\tbuf[k] = v;\n"
"\t\t\tfailed = pwrite(kind == WRITE ? fd : direct_fd, buf, 512, off) != 512;\n"
"\t\t\tbreak;\n"
"\t\tcase PUNCH:\n"
"\t\tcase ZERO:\n"
"\t\t\tfailed = fallocate(fd, FALLOC_FL_KEEP_SIZE | (kind == PUNCH ?\n"
"\t\t\t\tFALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE), off, 512);\n"
"\t\t\tv = 0;\n"
"\t\t\tbreak;\n"
"\t\tcase ALLOCATE:\n"
"\t\t\tif (fallocate(fd, FALLOC_FL_KEEP_SIZE, off, 512))\n"
"\t\t\t\tfailed = 1;\n"
"\t\t\tv = expect[s];\n"
"\t\t\tbreak;\n"
"\t\tcase SYNC:\n"
"\t\t\tfailed = fdatasync(fd);\n"
"\t\t\tv = expect[s];\n"
"\t\t\tbreak;\n"
"\t\tcase DISTURB:\n"
"\t\t\tposix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);\n"
"\t\t\tv = expect[s];\n"
"\t\t\tbreak;\n"
"\t\tdefault:\n"
"\t\t\t/* Also of others' sectors: it brings pages back. */\n"
"\t\t\tlook(kind, (size_t)rand_r(&rng) % (size / 8), buf);\n"
"\t\t\tv = expect[s];\n"
"\t\t}\n"
"\t\tif (failed && !errors++)\n"
"\t\t\tprintf(\"thread %u, operation %d at %ld: %s\\n\", me, kind,\n"
"\t\t\t       (long)off, strerror(errno));\n"
"\t\tif (!failed)\n"
"\t\t\texpect[s] = v;\n"
"\t\telse if (kind == SYNC)\n"
"\t\t\tfailed = 0;\n"
"\t\tdone++;\n"
"\t\tfor (int way = 0; way < 3 && !failed; way++) {\n"
"\t\t\tstatic const int ways[] = { LOAD, READ, DIRECT_READ };\n"
"\t\t\tuint64_t got;\n\n"
"\t\t\tif (!(READERS >> ways[way] & 1))\n"
"\t\t\t\tcontinue;\n"
"\t\t\tgot = look(ways[way], i, buf);\n"
"\t\t\tif (got == expect[s])\n"
"\t\t\t\tcontinue;\n"
"\t\t\tif (!wrong++)\n"
"\t\t\t\tprintf(\"byte %zu, which only thread %u writes: it wrote %#jx \"\n"
"\t\t\t\t       \"(operation %d), and reads %#jx\\n\", i * 8, me,\n"
"\t\t\t\t       (uintmax_t)expect[s], kind, (uintmax_t)got);\n"
"\t\t\texpect[s] = got;\n"
"\t\t}\n"
"\t}\n"
"\treturn NULL;\n"
"}\n\n"
"int main(int argc, char **argv)\n"
"{\n"
"\tchar path[4096];\n"
"\tpthread_t threads[THREADS];\n"
"\tdouble seconds = argc > 2 ? atof(argv[2]) : 10;\n"
"\tstruct timespec tick = { 0, 100000000 };\n\n"
"\tif (argc < 2) {\n"
"\t\tfprintf(stderr, \"usage: %s DIR [SECONDS]\\n\", argv[0]);\n"
"\t\treturn 2;\n"
"\t}\n"
"\tsnprintf(path, sizeof(path), \"%s/reproducer-XXXXXX\", argv[1]);\n"
"\tfd = mkstemp(path);\n"
"\tif (fd < 0) {\n"
"\t\tperror(path);\n"
"\t\treturn 2;\n"
"\t}\n"
"\tdirect_fd = open(path, O_RDWR | O_DIRECT);\n"
"\tif (direct_fd < 0)\n"
"\t\tdirect_fd = fd;\n"
"\tunlink(path);\n"
"\tsize = PAGES * (size_t)sysconf(_SC_PAGESIZE);\n"
"\tif (posix_fallocate(fd, 0, (off_t)size))\n"
"\t\treturn 2;\n"
"\tfsync(fd);\n"
"\tmap = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);\n"
"\tif (map == MAP_FAILED)\n"
"\t\treturn 2;\n"
"\tfor (uintptr_t i = 0; i < THREADS; i++)\n"
"\t\tif (pthread_create(&threads[i], NULL, thread, (void *)i))\n"
"\t\t\treturn 2;\n"
"\tfor (double t = 0; t < seconds && !wrong; t += 0.1)\n"
"\t\tnanosleep(&tick, NULL);\n"
"\tstop = 1;\n"
"\tfor (int i = 0; i < THREADS; i++)\n"
"\t\tpthread_join(threads[i], NULL);\n"
"\tprintf(\"%lu operations, %lu wrong\\n\", done, wrong);\n"
"\treturn wrong || (ERRORS && errors);\n"
"}\n";

static int write_program(const char *dir, const struct column *col,
			 const struct minimal *min)
{
	static const char *const names[OP_KINDS] = {
		"LOAD", "STORE", "READ", "WRITE", "DIRECT_READ",
		"DIRECT_WRITE", "PUNCH", "ZERO", "TRUNCATE", "SYNC",
		"ALLOCATE", "DISTURB", "", "",
	};
	/* Of a file that is not cut: none other than these make a race. */
	uint32_t kinds = min->cfg.kinds & ~(1u << OP_TRUNCATE | 1u << OP_SHIFT |
					    1u << OP_REMAP);
	uint32_t readers = kinds & (1u << OP_LOAD | 1u << OP_READ |
				    1u << OP_DIRECT_READ);
	const char *sep = "";
	FILE *f = create(dir, "reproducer.c");

	if (!f)
		return -errno;
	/*
	 * Who writes must look; through the mapping what is lost is seen at once,
	 * while the disk may have it for a while.
	 */
	readers |= 1u << OP_LOAD;
	if (!(kinds & (1u << OP_STORE | 1u << OP_WRITE | 1u << OP_DIRECT_WRITE)))
		kinds |= 1u << OP_STORE;
	fprintf(f, "/*\n * %s: %s.\n *\n"
		" * cc -O2 -pthread reproducer.c && ./a.out DIR [SECONDS]\n *\n"
		" * Exit status 1 and a line for the first wrong word where it "
		"happens. The checker\n * itself saw it in %u of %u runs of %g s "
		"with these operations.\n */\n",
		col->label, mkw__check_class_name(col->evidence.class),
		min->hits, min->trials, min->trial_seconds);
	fputs(repro_head, f);
	fprintf(f, "#define THREADS %u\n#define PAGES %u\n"
		"#define READERS 0x%xu\t/* bits: ways in which an owner looks */\n"
		"#define ERRORS %d\t/* calls that fail are what is looked for */\n"
		"static const int kinds[] = {", min->cfg.threads < 2 ? 2 :
						min->cfg.threads,
		min->cfg.pages ? min->cfg.pages : 2, readers,
		col->evidence.class == CHECK_SPURIOUS_ERROR);
	for (unsigned k = 0; k < OP_KINDS; k++)
		if (kinds >> k & 1) {
			fprintf(f, "%s %s", sep, names[k]);
			sep = ",";
		}
	fprintf(f, " };\n#define KINDS (sizeof(kinds) / sizeof(kinds[0]))\n\n");
	fputs(repro_body, f);
	return finish(f);
}

/* Of bytes past the end: no race, so no threads. */
static const char past_end_program[] =
"#define _GNU_SOURCE\n"
"#include <fcntl.h>\n"
"#include <stdint.h>\n"
"#include <stdio.h>\n"
"#include <stdlib.h>\n"
"#include <string.h>\n"
"#include <sys/mman.h>\n"
"#include <unistd.h>\n\n"
"/* A word is stored past the end, in the last page; then the file grows over it. */\n"
"int main(int argc, char **argv)\n"
"{\n"
"\tstatic const char *const how[] = { \"truncate\", \"write\", \"direct write\" };\n"
"\tlong page = sysconf(_SC_PAGESIZE);\n"
"\tchar path[4096];\n"
"\tvoid *zeros;\n"
"\tint shown = 0;\n\n"
"\tif (argc < 2 || posix_memalign(&zeros, 65536, (size_t)page))\n"
"\t\treturn 2;\n"
"\tmemset(zeros, 0, (size_t)page);\n"
"\tfor (int way = 0; way < 3; way++) {\n"
"\t\tvolatile uint64_t *map;\n"
"\t\tint fd, direct_fd;\n\n"
"\t\tsnprintf(path, sizeof(path), \"%s/reproducer-XXXXXX\", argv[1]);\n"
"\t\tfd = mkstemp(path);\n"
"\t\tdirect_fd = open(path, O_RDWR | O_DIRECT);\n"
"\t\tunlink(path);\n"
"\t\tif (fd < 0 || ftruncate(fd, page / 2))\n"
"\t\t\treturn 2;\n"
"\t\tmap = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);\n"
"\t\tif (map == MAP_FAILED)\n"
"\t\t\treturn 2;\n"
"\t\tmap[page / 8 * 3 / 4] = 1;\n"
"\t\tif (way == 0 ? ftruncate(fd, 2 * page) :\n"
"\t\t    pwrite(way == 1 ? fd : direct_fd, zeros, (size_t)page, page) != page)\n"
"\t\t\tprintf(\"%s: failed\\n\", how[way]);\n"
"\t\telse if (map[page / 8 * 3 / 4] && ++shown)\n"
"\t\t\tprintf(\"after a %s behind it, the word is there\\n\", how[way]);\n"
"\t}\n"
"\treturn shown != 0;\n"
"}\n";

static int write_past_end_program(const char *dir, const struct column *col)
{
	FILE *f = create(dir, "reproducer.c");

	if (!f)
		return -errno;
	fprintf(f, "/*\n * %s: %s.\n *\n * cc reproducer.c && ./a.out DIR\n *\n"
		" * Exit status 1 where it happens.\n */\n", col->label,
		mkw__check_class_name(col->evidence.class));
	fputs(past_end_program, f);
	return finish(f);
}

int mkw__check_write_bundle(const char *dir, const struct column *col,
			    const struct minimal *min)
{
	int err;

	if (mkdir(dir, 0777) && errno != EEXIST)
		return -errno;
	err = write_history(dir, &col->evidence);
	if (err || col->engine)
		return err;
	switch (col->evidence.class) {
	case CHECK_PAST_END:
		return write_past_end_program(dir, col);
	case CHECK_STRAY:
	case CHECK_NO_PROGRESS:
	case CHECK_TORN:
	case CHECK_NOT_DENIED:
		break;
	default:
		err = write_program(dir, col, min);
	}
	return err;
}
