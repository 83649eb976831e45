/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ENOSPC for those whose writes the kernel delays.
 *
 * With the writeback cache write(2) succeeds without asking us; a full file system is only heard of at fsync or
 * close, and a program that does neither would write for ever. But before each write the kernel looks whether its
 * attributes of the inode are valid, asks by the writer's handle if not, and gives our error to the writer. So when a delayed
 * write finds no space, the attributes are invalidated (from the side thread: never from one that serves), and
 * the GETATTR of a writer is answered ENOSPC, once at least, and until there is space again. stat(2) asks without handle and is not concerned.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "fuse/internal.h"

/* Blocks that must be free before a writer is let go on: it writes in large pieces. */
#define ENOUGH (TRANSPORT_MAX_WRITE / 4096)

struct note {
	struct bfs_fuse *f;
	uint64_t ino;
};

static void invalidate(void *arg)
{
	struct note *note = arg;

	transport_invalidate_attr(note->f->t, note->ino);
	free(note);
}

void full_note(struct bfs_fuse *f, uint64_t ino)
{
	struct note *note;

	if (!f->sole || handles_set_full(&f->handles, ino, true))
		return;
	note = base_malloc(sizeof(*note));
	if (note) {
		*note = (struct note){ f, ino };
		if (!atomic_load(&f->stopping) && !reactor_post(f->side, invalidate, note))
			return;
		free(note);
	}
	/* The next failure tries again. */
	handles_set_full(&f->handles, ino, false);
}

int full_check(struct bfs_fuse *f, uint64_t ino)
{
	struct bfs_statfs st;

	if (!handles_is_full(&f->handles, ino))
		return 0;
	/* Even if there is space now, what was written before did not find any: the writer hears of it once. */
	if (bfs_get_statfs(f->fs, &st) || st.avail_blocks >= ENOUGH)
		handles_set_full(&f->handles, ino, false);
	return -ENOSPC;
}
