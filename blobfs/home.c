/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * At mount: bytes that a crash has left in the log (R10) are written home, before anybody can use the files. It is as many blocks as
 * the store carries at most. One that cannot be written stays where it is, and is read from there.
 */
#include <errno.h>
#include <stdlib.h>

#include "blobfs/internal.h"
#define LOG_COMPONENT "blobfs"
#include "base/log.h"

#define HOME_BLOCKS 64u

struct home {
	struct bfs *fs;
	uint64_t *ino;
	size_t n, room;
	uint8_t *buf;
	uint64_t done;
};

static int note(struct bs_blob *blob, void *arg)
{
	struct home *h = arg;
	struct bs_carried_range r;

	if (!bs_carried_next(blob, 0, UINT64_MAX, &r))
		return 0;
	if (h->n == h->room) {
		size_t room = h->room ? 2 * h->room : 64;
		uint64_t *more = base_realloc(h->ino, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		h->ino = more;
		h->room = room;
	}
	h->ino[h->n++] = bs_blob_id(blob);
	return 0;
}

static int move(struct home *h, struct bs_blob *blob, enum bs_io_op op, uint64_t block, uint64_t count)
{
	struct iovec iov = { h->buf, count * BS_BLOCK };
	struct bs_io io = {
		.blob = blob, .op = op, .offset = block * BS_BLOCK, .length = iov.iov_len, .iov = &iov, .iovcnt = 1
	};

	return bs_io_sync(h->fs->bs, &io);
}

static int bring_home(struct home *h, struct bs_blob *blob)
{
	struct bs_carried_range r, next;
	uint64_t block = 0, n;
	int rc = 0, one;

	/* What does not go together may still go alone. */
	for (; bs_carried_next(blob, block, UINT64_MAX - block, &r); block = r.block + n) {
		for (n = 1; !rc && n < HOME_BLOCKS && bs_carried_next(blob, r.block + n, 1, &next); n++)
			;
		one = move(h, blob, BS_READ, r.block, n);
		if (!one)
			one = move(h, blob, BS_WRITE, r.block, n);
		h->done += one ? 0 : n;
		rc = rc ? rc : one;
	}
	return rc;
}

int bfs_carried_home(struct bfs *fs, struct base_err *err)
{
	struct home h = { .fs = fs };
	struct bs_stat st;
	int rc, failed = 0;

	(void)err;
	bs_get_stat(fs->bs, &st);
	if (fs->opts.flags & BFS_RDONLY || !st.carried_blocks)
		return 0;
	h.buf = dma_alloc(HOME_BLOCKS * BS_BLOCK, BS_BLOCK);
	rc = h.buf ? bs_foreach_blob(fs->bs, 0, note, &h) : -ENOMEM;
	for (size_t i = 0; i < h.n && !rc; i++) {
		struct bs_blob *blob = bs_blob_get(fs->bs, h.ino[i]);
		int one = blob ? bring_home(&h, blob) : 0;

		failed = failed ? failed : one;
		bs_blob_put(blob);
	}
	rc = rc ? rc : failed;
	if (rc)
		log_warn("%s: bytes of synced files stay in the log: %s", fs->device, base_err_text(NULL, rc));
	log_debug("%s: %llu synced blocks were brought home from the log", fs->device, (unsigned long long)h.done);
	dma_free(h.buf);
	free(h.ino);
	return 0;
}
