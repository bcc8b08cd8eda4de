/* SPDX-License-Identifier: MIT */
/*
 * image.h: file systems of our own, on loop devices.
 *
 * Everything is mounted in a mount namespace that is ours alone, devices clear
 * themselves with their last use, and images have no name: the kernel takes it all
 * away with the last of our processes, however that ends.
 */
#ifndef MKW_CHECK_IMAGE_H
#define MKW_CHECK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

struct image {
	char mount[256];	/* where it is mounted */
	bool mounted;
};

/* A template for mkstemp() and mkdtemp(), in TMPDIR or /tmp. */
void mkw__image_temporary(char *path, size_t size, const char *what);
/* Is it a type that can be made here? */
bool mkw__image_known(const char *fstype);
/* May there be images of that type? 0, or -1 with the reason in why. */
int mkw__image_possible(const char *fstype, char *why, size_t size);
/* The process gets a mount namespace of its own. 0, or -1 and why. */
int mkw__image_namespace(char *why, size_t size);
/* An unnamed file that holds a fresh file system; its descriptor, or -1 and why. */
int mkw__image_format(const char *fstype, char *why, size_t size);
/* Mounts what is in the file (a path). 0, or -1 and why. */
int mkw__image_mount(struct image *im, const char *file, const char *fstype,
		     char *why, size_t size);
/* No harm if it is not mounted. */
void mkw__image_unmount(struct image *im);

#endif /* MKW_CHECK_IMAGE_H */
