/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blobfs metadump: superblocks, log, checkpoint and checksums of data of a store in a file, as they are, damage included as far as it is understood; no data, and
 * so without the bytes that the log carries. metarestore makes an image of it.
 *
 * The file: a header, then for each structure its block, its length in blocks, a checksum, and its bytes; the last has length 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "tools/blobfs/metadump.h"
#include "tools/common/common.h"

#define MAGIC "BlobMeta"

struct file_head {
	char magic[8];
	le32 version; /* 1 */
	le32 flags;   /* 1: scrambled */
	le64 size;    /* of the device, bytes */
	le64 pieces;
} __attribute__((packed));
struct piece_head {
	le64 block;
	le32 blocks;
	le32 crc; /* of the bytes */
} __attribute__((packed));

static uint32_t checksum(const void *data, size_t len)
{
	return base_crc32c(0, data, len);
}

/* ---- taking ---- */

static int keep(const struct bs_piece *p, void *arg)
{
	struct meta *m = arg;
	struct bs_piece *mine;

	if (!p->data)
		return 0; /* it cannot be read: the copy has nothing there */
	if (m->n == m->room) {
		size_t room = m->room ? 2 * m->room : 256;
		struct bs_piece *more = realloc(m->piece, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		m->piece = more;
		m->room = room;
	}
	mine = &m->piece[m->n];
	*mine = *p;
	mine->wrong = p->wrong ? "wrong" : NULL; /* the text is not ours */
	mine->data = malloc((size_t)p->blocks * BS_BLOCK);
	if (!mine->data)
		return -ENOMEM;
	memcpy(mine->data, p->data, (size_t)p->blocks * BS_BLOCK);
	m->n++;
	return 0;
}

static void meta_free(struct meta *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->piece[i].data);
	free(m->piece);
}

static int write_file(const struct meta *m, const char *path, uint64_t size, bool scrambled)
{
	struct file_head head = { .magic = MAGIC, .version = le32_make(1), .flags = le32_make(scrambled), .size = le64_make(size),
				  .pieces = le64_make(m->n) };
	struct piece_head end = { .blocks = le32_make(0) };
	FILE *f = fopen(path, "wxe");
	bool ok;

	if (!f)
		return -errno;
	ok = fwrite(&head, sizeof(head), 1, f) == 1;
	for (size_t i = 0; i < m->n && ok; i++) {
		const struct bs_piece *p = &m->piece[i];
		size_t len = (size_t)p->blocks * BS_BLOCK;
		struct piece_head h = { le64_make(p->block), le32_make(p->blocks), le32_make(checksum(p->data, len)) };

		ok = fwrite(&h, sizeof(h), 1, f) == 1 && fwrite(p->data, len, 1, f) == 1;
	}
	ok = ok && fwrite(&end, sizeof(end), 1, f) == 1;
	if (fclose(f) || !ok) {
		unlink(path);
		return -EIO;
	}
	return 0;
}

int verb_metadump(const struct call *call)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = BDEV_RDONLY };
	struct meta m = { NULL, 0, 0 };
	struct base_err err = { "" };
	bool scramble = call->opt['X'];
	struct bdev *dev;
	uint64_t size;
	int rc = bdev_open(call->device, &opts, &dev, &err);

	if (!rc) {
		size = bdev_info(dev)->size;
		rc = bs_walk(dev, BS_WALK_SUPER | BS_WALK_LOG | BS_WALK_CKPT, keep, &m, &err);
		if (!rc && view_walk_sums(dev, keep, &m, &err) == -ENOMEM) /* of a store too broken for it without */
			rc = -ENOMEM;
		bdev_close(dev);
	}
	if (rc) {
		tool_error_of(call->device, base_err_text(&err, rc));
		meta_free(&m);
		return EXIT_FAILED;
	}
	meta_strip(&m);
	if (scramble)
		meta_scramble(&m);
	rc = write_file(&m, call->argv[0], size, scramble);
	meta_free(&m);
	return rc ? verb_fail("metadump", call->argv[0], rc) : EXIT_OK;
}

/* ---- putting back ---- */

static int read_head(FILE *f, struct file_head *head)
{
	if (fread(head, sizeof(*head), 1, f) != 1 || memcmp(head->magic, MAGIC, sizeof(head->magic)) || le32_get(head->version) != 1)
		return -EINVAL;
	return le64_get(head->size) % BS_BLOCK || le64_get(head->size) < BS_MIN_SIZE || le64_get(head->size) >> 52 ? -EUCLEAN : 0;
}

/* One piece into buf; 1: that was the last. */
static int read_piece(FILE *f, uint64_t size, uint8_t *buf, uint32_t max, struct piece_head *h)
{
	uint64_t all = size / BS_BLOCK;
	size_t len;

	if (fread(h, sizeof(*h), 1, f) != 1)
		return -EUCLEAN;
	if (!le32_get(h->blocks))
		return 1;
	if (le32_get(h->blocks) > max || le64_get(h->block) >= all || le32_get(h->blocks) > all - le64_get(h->block))
		return -EUCLEAN;
	len = (size_t)le32_get(h->blocks) * BS_BLOCK;
	return fread(buf, len, 1, f) == 1 && checksum(buf, len) == le32_get(h->crc) ? 0 : -EUCLEAN;
}

#define PIECE_MAX 64u /* blocks: a frame */

/* Goes over the file; with a device, writes what it holds. */
static int pass(FILE *f, const struct file_head *head, struct bdev *dev, uint8_t *buf)
{
	struct bdev_channel *ch = dev ? bdev_channel_borrow(dev) : NULL;
	struct piece_head h;
	uint64_t n = 0;
	int rc;

	while (!(rc = read_piece(f, le64_get(head->size), buf, PIECE_MAX, &h))) {
		n++;
		if (dev)
			rc = bdev_io_sync(ch, BDEV_WRITE, buf, le64_get(h.block) * BS_BLOCK, (uint64_t)le32_get(h.blocks) * BS_BLOCK, 0);
		if (rc)
			break;
	}
	if (rc == 1)
		rc = n == le64_get(head->pieces) ? 0 : -EUCLEAN;
	if (!rc && dev)
		rc = bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0);
	if (ch)
		bdev_channel_return(ch);
	return rc;
}

static int restore(FILE *f, const struct call *call, struct base_err *err)
{
	struct bdev_opts opts = { .size = sizeof(opts), .flags = BDEV_CREATE };
	struct file_head head;
	uint8_t *buf = aligned_alloc(BS_BLOCK, (size_t)PIECE_MAX * BS_BLOCK);
	struct bdev *dev;
	int rc = buf ? read_head(f, &head) : -ENOMEM;

	if (!rc)
		rc = pass(f, &head, NULL, buf); /* all of it, before anything is made */
	if (!rc && fseek(f, (long)sizeof(head), SEEK_SET))
		rc = -errno;
	if (rc) {
		free(buf);
		return base_err_set(err, rc, "%s: %s", call->argv[0], rc == -EINVAL ? "no file of metadump" : rc == -EUCLEAN ?
				    "the file is damaged" : strerror(-rc));
	}
	opts.create_size = le64_get(head.size);
	rc = bdev_open(call->device, &opts, &dev, err);
	if (!rc && bdev_info(dev)->size < le64_get(head.size))
		rc = base_err_set(err, -EFBIG, "%s: %llu bytes, %llu are needed", call->device, (unsigned long long)bdev_info(dev)->size,
				  (unsigned long long)le64_get(head.size));
	else if (!rc)
		rc = pass(f, &head, dev, buf);
	else
		dev = NULL;
	if (dev)
		bdev_close(dev);
	free(buf);
	return rc;
}

int verb_metarestore(const struct call *call)
{
	struct base_err err = { "" };
	struct stat st;
	FILE *f;
	int rc;

	if (!call->opt['f'] && !stat(call->device, &st) && (!S_ISREG(st.st_mode) || st.st_size)) {
		tool_error("%s: is there; with -f what it holds is lost", call->device);
		return EXIT_FAILED;
	}
	f = fopen(call->argv[0], "re");
	if (!f)
		return verb_fail("metarestore", call->argv[0], -errno);
	rc = restore(f, call, &err);
	fclose(f);
	if (rc)
		tool_error_of(call->device, base_err_text(&err, rc));
	return rc ? EXIT_FAILED : EXIT_OK;
}
