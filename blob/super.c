/* SPDX-License-Identifier: BSD-2-Clause */
/* Superblocks: checksums, the choice between the two copies, what their fields may hold, and writing them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "blob/device.h"
#include "blob/mutation.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

static const uint64_t sb_block[2] = { 0, BS_SB_COPY_BLOCK };

uint32_t bs_crc_seed(uint64_t nonce, uint64_t seq, uint64_t address)
{
	le64 words[3] = { le64_make(nonce), le64_make(seq), le64_make(address) };

	return base_crc32c(0, words, sizeof(words));
}

uint32_t bs_crc_page_seed(const uint8_t uuid[16], uint64_t address)
{
	le64 word = le64_make(address);

	return base_crc32c(base_crc32c(0, uuid, 16), &word, sizeof(word));
}

uint32_t bs_crc_skip(uint32_t seed, const void *buf, size_t len, size_t field)
{
	static const uint8_t zero[4];
	const uint8_t *p = buf;

	seed = base_crc32c(seed, p, field);
	seed = base_crc32c(seed, zero, sizeof(zero));
	return base_crc32c(seed, p + field + 4, len - field - 4);
}

static uint32_t sb_crc(const struct bs_sb_disk *sb)
{
	return bs_crc_skip(0, sb, sizeof(*sb), offsetof(struct bs_sb_disk, crc));
}

void bs_sb_seal(struct bs_sb_disk *sb)
{
	sb->crc = le32_make(sb_crc(sb));
}

static enum bs_sb_state sb_state(const struct bs_sb_disk *sb)
{
	if (memcmp(sb->magic, BS_MAGIC, sizeof(sb->magic)))
		return BS_SB_FOREIGN;
	return le32_get(sb->crc) == sb_crc(sb) ? BS_SB_GOOD : BS_SB_TORN;
}

static bool is_zero(const void *buf, size_t len)
{
	const uint8_t *p = buf;

	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/* A superblock that a cut has torn still has its magic. Without it block 0 was made by somebody else, unless it is
 * merely gone. */
bool bs_sb_overwritten(const struct bs_sb_pair *pair)
{
	return pair->state[0] == BS_SB_FOREIGN && !is_zero(&pair->sb[0], sizeof(pair->sb[0]));
}

static void choose(struct bs_sb_pair *pair)
{
	bool good0 = pair->state[0] == BS_SB_GOOD, good1 = pair->state[1] == BS_SB_GOOD;

	pair->chosen = good0 ? 0 : good1 ? 1 : -1;
	if (good0 && good1 && le64_get(pair->sb[1].generation) > le64_get(pair->sb[0].generation))
		pair->chosen = 1;
}

int bs_sb_read(struct bdev *dev, struct bs_sb_pair *pair, struct base_err *err)
{
	struct bdev_channel *ch;
	struct bs_sb_disk *buf;
	int rc = 0, failed = 0;

	memset(pair, 0, sizeof(*pair));
	if (bdev_info(dev)->size < (sb_block[1] + 1) * BS_BLOCK)
		return base_err_set(err, -EINVAL, "%s: too small for a store (%" PRIu64 " bytes)",
				    bdev_info(dev)->name, bdev_info(dev)->size);
	buf = dma_alloc(sizeof(*buf), BS_BLOCK);
	if (!buf)
		return -ENOMEM;
	ch = bdev_channel_borrow(dev);
	for (int i = 0; i < 2; i++) {
		rc = bdev_io_sync(ch, BDEV_READ, buf, sb_block[i] * BS_BLOCK, sizeof(*buf), 0);
		if (rc) {
			/* One unreadable copy is what the other is for. */
			log_warn("%s: superblock at block %" PRIu64 ": %s", bdev_info(dev)->name, sb_block[i], strerror(-rc));
			pair->state[i] = BS_SB_TORN;
			failed = rc;
			continue;
		}
		pair->sb[i] = *buf;
		pair->state[i] = sb_state(buf);
	}
	bdev_channel_return(ch);
	dma_free(buf);
	choose(pair);
	if (pair->chosen >= 0)
		return 0;
	if (failed)
		return base_err_set(err, failed, "%s: no superblock can be read: %s", bdev_info(dev)->name, strerror(-failed));
	if (pair->state[0] == BS_SB_FOREIGN && pair->state[1] == BS_SB_FOREIGN)
		return base_err_set(err, -EINVAL, "%s: not a BlobFS store (no superblock at block 0 or %u)",
				    bdev_info(dev)->name, BS_SB_COPY_BLOCK);
	return base_err_set(err, -EUCLEAN, "%s: superblock: checksum is wrong at block %" PRIu64 ", and the other copy is no help",
			    bdev_info(dev)->name, sb_block[pair->state[0] == BS_SB_TORN ? 0 : 1]);
}

/* ---- fields ---- */

static int bad_field(const struct bdev *dev, struct base_err *err, const char *field, uint64_t value)
{
	return base_err_set(err, -EUCLEAN, "%s: superblock: %s is %" PRIu64 ", which cannot be", bdev_info(dev)->name, field,
			    value);
}

static int check_version(const struct bs_sb_disk *sb, const struct bdev *dev, bool writable, struct base_err *err)
{
	const char *name = bdev_info(dev)->name;

	if (le16_get(sb->version_major) != BS_VERSION_MAJOR)
		return base_err_set(err, -ENOTSUP, "%s: superblock: version %u.%u; this program reads version %u", name,
				    le16_get(sb->version_major), le16_get(sb->version_minor), BS_VERSION_MAJOR);
	if (le64_get(sb->incompat) & ~BS_INCOMPAT_KNOWN)
		return base_err_set(err, -ENOTSUP, "%s: superblock: unknown incompatible features 0x%" PRIx64, name,
				    le64_get(sb->incompat) & ~BS_INCOMPAT_KNOWN);
	if (writable && le64_get(sb->ro_compat))
		return base_err_set(err, -ENOTSUP, "%s: superblock: features 0x%" PRIx64
				    " are unknown: it can be opened read-only only", name, le64_get(sb->ro_compat));
	return 0;
}

static int check_geometry(const struct bs_sb_disk *sb, const struct bdev *dev, struct base_err *err)
{
	uint64_t blocks = le64_get(sb->blocks), size = bdev_info(dev)->size;

	if (blocks < BS_MIN_SIZE / BS_BLOCK || blocks >= 1ull << BS_RUN_BITS)
		return bad_field(dev, err, "size in blocks", blocks);
	if (blocks > size / BS_BLOCK)
		return base_err_set(err, -EFBIG, "%s: superblock: the store has %" PRIu64 " blocks, the device only %" PRIu64,
				    bdev_info(dev)->name, blocks, size / BS_BLOCK);
	if (!is_pow2(le32_get(sb->cluster_blocks)) || le32_get(sb->cluster_blocks) > 16)
		return bad_field(dev, err, "blocks of a cluster", le32_get(sb->cluster_blocks));
	if (!is_pow2(le32_get(sb->segment_blocks)) || le32_get(sb->segment_blocks) < 64 ||
	    le32_get(sb->segment_blocks) > 4096)
		return bad_field(dev, err, "blocks of a segment", le32_get(sb->segment_blocks));
	return 0;
}

static bool in_store(const struct bs_sb_disk *sb, uint64_t block, uint64_t count)
{
	uint64_t blocks = le64_get(sb->blocks);

	return block && block < blocks && count <= blocks - block;
}

static int check_pointers(const struct bs_sb_disk *sb, const struct bdev *dev, struct base_err *err)
{
	uint64_t root = le64_get(sb->ckpt_root), segment = le64_get(sb->log_segment);
	uint32_t root_blocks = le32_get(sb->ckpt_root_blocks), seg_blocks = le32_get(sb->segment_blocks);

	if (root && (!root_blocks || root_blocks > BS_PAGE_MAX / BS_BLOCK || !in_store(sb, root, root_blocks)))
		return bad_field(dev, err, "checkpoint root", root);
	if (!root && (root_blocks || le64_get(sb->ckpt_blocks)))
		return bad_field(dev, err, "length of an empty checkpoint", root_blocks);
	if (le64_get(sb->ckpt_blocks) > le64_get(sb->blocks))
		return bad_field(dev, err, "checkpoint size", le64_get(sb->ckpt_blocks));
	if (le64_get(sb->ckpt_l1) < le64_get(sb->ckpt_l0) || le64_get(sb->ckpt_l1) > UINT64_MAX / 2)
		return bad_field(dev, err, "checkpoint's last LSN", le64_get(sb->ckpt_l1));
	if (!le64_get(sb->next_id) || le64_get(sb->next_id) > BS_ID_MAX)
		return bad_field(dev, err, "next blob id", le64_get(sb->next_id));
	if (segment % seg_blocks || !in_store(sb, segment, seg_blocks))
		return bad_field(dev, err, "log segment", segment);
	if (!le32_get(sb->log_offset) || le32_get(sb->log_offset) > seg_blocks)
		return bad_field(dev, err, "offset in the log segment", le32_get(sb->log_offset));
	if (!le64_get(sb->log_seq) || le64_get(sb->log_seq) > UINT64_MAX / 2)
		return bad_field(dev, err, "log sequence", le64_get(sb->log_seq));
	if (le32_get(sb->clean) > 1)
		return bad_field(dev, err, "clean mark", le32_get(sb->clean));
	return 0;
}

int bs_sb_validate(const struct bs_sb_disk *sb, const struct bdev *dev, bool writable, struct base_err *err)
{
	int rc = check_version(sb, dev, writable, err);

	if (!rc)
		rc = check_geometry(sb, dev, err);
	if (!rc)
		rc = check_pointers(sb, dev, err);
	return rc;
}

/* ---- writing ---- */

void bs_segment_fill(struct bs_segment_disk *h, const struct bs_sb_disk *sb, const struct bs_log_pos *pos, uint64_t next,
		     uint64_t next_nonce)
{
	memset(h, 0, sizeof(*h));
	h->magic = le32_make(BS_MAGIC_SEGMENT);
	memcpy(h->uuid, sb->uuid, sizeof(h->uuid));
	h->address = le64_make(pos->segment);
	h->nonce = le64_make(pos->nonce);
	h->first_seq = le64_make(pos->seq);
	h->next_address = le64_make(next);
	h->next_nonce = le64_make(next_nonce);
	h->created_ns = sb->created_ns;
	h->blocks = sb->blocks;
	h->cluster_blocks = sb->cluster_blocks;
	h->segment_blocks = sb->segment_blocks;
	h->compat = sb->compat;
	h->ro_compat = sb->ro_compat;
	h->incompat = sb->incompat;
	memcpy(h->owner, sb->owner, sizeof(h->owner));
	memcpy(h->label, sb->label, sizeof(h->label));
	h->version_major = sb->version_major;
	h->version_minor = sb->version_minor;
	h->crc = le32_make(bs_crc_skip(bs_crc_seed(pos->nonce, 0, pos->segment), h, sizeof(*h),
				       offsetof(struct bs_segment_disk, crc)));
}

int bs_sb_write_sync(struct bdev *dev, struct bs_sb_disk *sb)
{
	struct bs_sb_disk *buf = dma_alloc(sizeof(*buf), BS_BLOCK);
	struct bdev_channel *ch;
	int rc = 0;

	if (!buf)
		return -ENOMEM;
	bs_sb_seal(sb);
	*buf = *sb;
	ch = bdev_channel_borrow(dev);
	for (int i = 0; i < 2 && !rc; i++) {
		rc = bdev_io_sync(ch, BDEV_WRITE, buf, sb_block[i] * BS_BLOCK, sizeof(*buf), 0);
		if (!rc && !BS_MUTATE(recovery_flush))
			rc = bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0);
	}
	bdev_channel_return(ch);
	dma_free(buf);
	return rc;
}
