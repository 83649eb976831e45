/* SPDX-License-Identifier: BSD-2-Clause */
/* The image file below a new file system: made, sized, written once. */
#ifndef TOOLS_MKFS_IMAGE_H
#define TOOLS_MKFS_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

/* What image_prepare did, so that a failure leaves no half-made file behind. */
struct image_change {
	bool created;
};
/* size 0: leave it. prewrite: write zeroes over all of it. Says what failed; 0 or negative errno. */
int image_prepare(const char *path, uint64_t size, bool prewrite, bool quiet, struct image_change *change);
/* Removes a file that image_prepare made. */
void image_undo(const char *path, const struct image_change *change);
/* Size of a file or block device. 0 or negative errno. */
int image_device_size(const char *path, uint64_t *size);

#endif
