/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A store of one's own, by blob/blob.h alone: makes it, creates a blob, writes and commits without blocking, takes a snapshot, writes
 * over the blob, opens the store again and reads both: example DEVICE (a file or ram:SIZE, overwritten).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blob/blob.h"

/* Work of several steps. Its function is called whenever what it waits for is done; it never blocks, and any thread may call it. */
struct write {
	struct op op; /* first, so that this is where the struct is */
	struct bs *bs;
	struct bdev_channel *ch;
	struct bs_io io;
};

enum { WRITE, COMMIT, DONE };

static enum op_next write_durably(struct op *op)
{
	struct write *w = (struct write *)op;

	switch (op->step) {
	case WRITE:
		bs_io_start(w->ch, &w->io, op);
		return op_await(op, COMMIT, 0);
	case COMMIT: /* those who wait at the same time share one write of the log */
		bs_commit_start(w->bs, w->io.lsn, op);
		return op_await(op, DONE, 0);
	case DONE:
		return op_finish(op);
	}
	return op_bug(op);
}

static int write_text(struct bs *bs, struct bs_blob *blob, char *block, const char *text)
{
	struct iovec v = { block, BS_BLOCK };
	struct write w = { .bs = bs, .ch = bdev_channel_borrow(bs_bdev(bs)) };
	int rc;

	memset(block, 0, BS_BLOCK);
	snprintf(block, BS_BLOCK, "%s", text);
	w.io = (struct bs_io){ .blob = blob, .op = BS_WRITE, .length = BS_BLOCK, .iov = &v, .iovcnt = 1 };
	op_init(&w.op, "example", write_durably, bdev_channel_driver(w.ch), NULL, NULL);
	op_start(&w.op); /* returns once it waits; here other things can be done, other writes be started … */
	rc = op_wait(&w.op);
	bdev_channel_return(w.ch);
	return rc;
}

/* A transaction: all of it or nothing, also after a power cut. */
static int create(struct bs *bs, struct bs_blob **blob)
{
	struct bs_txn *txn;
	int rc = bs_txn_begin(bs, 0, &txn);

	if (rc)
		return rc;
	rc = bs_txn_create(txn, 0, "mine", 4, blob);
	if (!rc)
		rc = bs_txn_header(txn, *blob, BS_BLOCK, "mine", 4);
	if (!rc)
		rc = bs_txn_put(txn, *blob, BS_KIND_USER, 1, "an item", 7);
	if (rc)
		bs_txn_cancel(txn);
	else
		bs_txn_end(txn);
	return rc;
}

static int fill(struct bs *bs, char *block, uint64_t id[2])
{
	struct bs_blob *blob;
	int rc = create(bs, &blob);

	if (rc)
		return rc;
	id[0] = bs_blob_id(blob);
	rc = write_text(bs, blob, block, "before the snapshot");
	if (!rc)
		rc = bs_snapshot(bs, &blob, 1, true, &id[1]);
	if (!rc)
		rc = write_text(bs, blob, block, "after the snapshot");
	bs_blob_put(blob);
	return rc;
}

static int show(struct bs *bs, char *block, uint64_t id)
{
	struct bs_blob *blob = bs_blob_get(bs, id);
	struct iovec v = { block, BS_BLOCK };
	struct bs_io io = { .blob = blob, .op = BS_READ, .length = BS_BLOCK, .iov = &v, .iovcnt = 1 };
	char item[8] = "";
	int rc;

	if (!blob)
		return -1;
	rc = bs_io_sync(bs, &io);
	if (!rc && bs_item_get(blob, BS_KIND_USER, 1, item, sizeof(item) - 1) > 0)
		printf("blob %llu, with %s: %.40s\n", (unsigned long long)id, item, block);
	bs_blob_put(blob);
	return rc;
}

int main(int argc, char **argv)
{
	const struct bs_format_opts opts = { .size = sizeof(opts), .label = "example" };
	char *block = aligned_alloc(BS_BLOCK, BS_BLOCK);
	struct base_err err = { "" };
	struct bdev *dev;
	struct bs *bs;
	uint64_t id[2];
	int rc, closed;

	if (argc != 2 || !block || bdev_open(argv[1], NULL, &dev, &err)) {
		fprintf(stderr, "%s\n", err.text[0] ? err.text : "usage: example FILE|ram:64M");
		free(block);
		return 1;
	}
	rc = bs_format(dev, &opts, &err);
	for (int pass = 0; pass < 2 && !rc; pass++) {
		bdev_ref(dev); /* a count for bs_close: the device is to outlive the store */
		rc = bs_open(dev, NULL, &bs, &err);
		if (rc) {
			bdev_close(dev);
			break;
		}
		if (pass == 0)
			rc = fill(bs, block, id);
		for (int i = 0; i < 2 && pass == 1 && !rc; i++)
			rc = show(bs, block, id[i]);
		closed = bs_close(bs);
		rc = rc ? rc : closed;
	}
	bdev_close(dev);
	free(block);
	if (rc)
		fprintf(stderr, "%s\n", base_err_text(&err, rc));
	return rc ? 1 : 0;
}
