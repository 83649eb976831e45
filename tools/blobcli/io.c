/* SPDX-License-Identifier: BSD-2-Clause */
/* A blob's bytes: the store moves blocks, so the first and last are read, changed and written. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tools/blobcli/verb.h"

struct bs_blob *cli_blob(const struct cli *c, const char *text)
{
	char *end;
	uint64_t id;
	struct bs_blob *blob;

	errno = 0;
	id = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || !id) {
		cli_error(c, "'%s' is not a blob's id: list shows them", text);
		return NULL;
	}
	blob = bs_blob_get(c->bs, id);
	if (!blob)
		cli_error(c, "there is no blob %" PRIu64, id);
	return blob;
}

static int transfer(struct cli *c, struct bs_blob *blob, enum bs_io_op op, uint64_t at, uint64_t len)
{
	struct iovec v = { c->buf, len };
	struct bs_io io = { .blob = blob, .op = op, .offset = at, .length = len, .iov = &v, .iovcnt = 1 };

	return bs_io_sync(c->bs, &io);
}

int cli_pread(struct cli *c, struct bs_blob *blob, uint64_t at, uint32_t len)
{
	uint64_t first = round_down(at, BS_BLOCK);
	int rc = transfer(c, blob, BS_READ, first, round_up(at + len, BS_BLOCK) - first);

	return rc ? rc : (int)(at - first);
}

static uint64_t size_of(struct bs_blob *blob)
{
	struct bs_blob_info info;

	bs_blob_get_info(blob, &info);
	return info.size;
}

/* At most BS_IO_MAX - BS_BLOCK bytes. What lies behind the blob's end becomes zeroes on the way. */
static int write_piece(struct cli *c, struct bs_blob *blob, const uint8_t *data, uint64_t at, uint64_t len)
{
	uint64_t first = round_down(at, BS_BLOCK), end = round_up(at + len, BS_BLOCK), size = size_of(blob);
	int rc = first == at && end == at + len ? 0 : transfer(c, blob, BS_READ, first, end - first);

	if (rc)
		return rc;
	if (size < end)
		memset(c->buf + (MAX(size, first) - first), 0, end - MAX(size, first));
	if (len)
		memcpy(c->buf + (at - first), data, len);
	return transfer(c, blob, BS_WRITE, first, end - first);
}

int cli_pwrite(struct cli *c, struct bs_blob *blob, const uint8_t *data, uint64_t at, uint64_t len)
{
	int rc = 0;

	while (len && !rc) {
		uint64_t n = MIN(len, BS_IO_MAX - BS_BLOCK - at % BS_BLOCK);

		rc = write_piece(c, blob, data, at, n);
		data += n;
		at += n;
		len -= n;
	}
	return rc;
}

int cli_write_home(struct cli *c, struct bs_blob *blob)
{
	struct bs_carried_range r;
	int rc = 0;

	for (uint64_t at = 0; !rc && bs_carried_next(blob, at, UINT64_MAX, &r); at = r.block + 1) {
		rc = transfer(c, blob, BS_READ, r.block * BS_BLOCK, BS_BLOCK);
		if (!rc)
			rc = transfer(c, blob, BS_WRITE, r.block * BS_BLOCK, BS_BLOCK);
	}
	return rc;
}

int cli_commit(struct cli *c, struct bs_txn *txn)
{
	uint64_t lsn = bs_txn_end(txn);

	return lsn ? bs_commit(c->bs, lsn) : 0;
}

/* What a larger size shows of the last block: written before the size says so. */
static int zero_tail(struct cli *c, struct bs_blob *blob, uint64_t size)
{
	struct bs_carried_range carried;
	struct bs_extent e;

	if (size % BS_BLOCK == 0)
		return 0;
	bs_map_lookup(blob, size / BS_BLOCK, 1, &e);
	if (e.flags & (BS_RUN_HOLE | BS_RUN_UNWRITTEN) && !bs_carried_next(blob, size / BS_BLOCK, 1, &carried))
		return 0;
	return write_piece(c, blob, NULL, size, 0);
}

int cli_resize(struct cli *c, struct bs_blob *blob, uint64_t size)
{
	struct bs_blob_info info;
	struct bs_txn *txn;
	uint64_t keep;
	int rc;

	bs_blob_get_info(blob, &info);
	if (info.sealed)
		return -EROFS;
	rc = size > info.size ? zero_tail(c, blob, info.size) : 0;
	if (!rc)
		rc = bs_txn_begin(c->bs, size < info.size ? BS_TXN_FREES : 0, &txn);
	if (rc)
		return rc;
	rc = bs_txn_header(txn, blob, size, info.user, info.user_len);
	keep = div_round_up(MIN(size, info.size), BS_BLOCK);
	/* Nothing of what lies behind the end shows, whichever way the end moves. */
	if (!rc)
		rc = bs_txn_unmap(txn, blob, keep, UINT64_MAX);
	if (!rc)
		return cli_commit(c, txn);
	bs_txn_cancel(txn);
	return rc;
}
