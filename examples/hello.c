/* SPDX-License-Identifier: MIT */
/*
 * hello.c: the shortest useful program, the one of README.md. It makes the file
 * that its argument names, stores into it through a mapping, and reads the bytes
 * back by direct I/O, which the kernel's own mappings do not allow for.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <mkwrite/mkwrite.h>

int main(int argc, char **argv)
{
	struct mkw_engine *engine;
	struct mkw_file *file;
	static char back[65536];
	void *map;

	if (argc != 2 || mkw_engine_open(NULL, &engine) ||
	    mkw_file_open(engine, argv[1], O_RDWR | O_CREAT, 0644, &file) ||
	    mkw_truncate(file, 1 << 20) ||
	    mkw_map(file, NULL, 1 << 20, PROT_READ | PROT_WRITE, 0, 0, &map))
		return 1;

	strcpy(map, "hello, page fault");	/* a store, not yet on disk */
	if (mkw_pread(file, back, sizeof(back), 0, MKW_DIRECT) < 0)
		return 1;
	puts(back);

	return mkw_sync(file) || mkw_unmap(map, 1 << 20) ||
	       mkw_file_close(file) || mkw_engine_close(engine);
}
