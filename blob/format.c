/* SPDX-License-Identifier: BSD-2-Clause */
/* Making an empty store: two superblocks, no checkpoint, one log segment without frames. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blob/device.h"

static const struct bs_format_opts no_opts = { .size = sizeof(no_opts) };

static uint64_t store_size(const struct bdev_info *info, const struct bs_format_opts *opts)
{
	return opts->store_size ? opts->store_size : info->size;
}

static int check_opts(const struct bdev_info *info, const struct bs_format_opts *opts, struct base_err *err)
{
	uint32_t cluster = opts->cluster_size;

	if (opts->size != sizeof(*opts))
		return base_err_set(err, -EINVAL, "format options have the wrong size");
	if (opts->flags & ~(uint32_t)BS_FORMAT_SUMS)
		return base_err_set(err, -EINVAL, "unknown format flags %#x", opts->flags);
	if (cluster && (!is_pow2(cluster) || cluster < BS_BLOCK || cluster > 65536))
		return base_err_set(err, -EINVAL, "cluster size %u: a power of two from 4096 to 65536 is needed", cluster);
	if (info->block_size > BS_BLOCK)
		return base_err_set(err, -EINVAL, "%s: block size %u is over %u", info->name, info->block_size, BS_BLOCK);
	if (info->size < BS_MIN_SIZE)
		return base_err_set(err, -EINVAL, "%s: %" PRIu64 " bytes; a store needs %u at least", info->name, info->size,
				    BS_MIN_SIZE);
	if (store_size(info, opts) / BS_BLOCK >= 1ull << BS_RUN_BITS)
		return base_err_set(err, -EINVAL, "%s: too large: 4 PiB is the limit", info->name);
	if (store_size(info, opts) < BS_MIN_SIZE || store_size(info, opts) > info->size)
		return base_err_set(err, -EINVAL, "%s: a store of %" PRIu64 " bytes: %u to %" PRIu64 " can be had", info->name,
				    opts->store_size, BS_MIN_SIZE, info->size);
	if (info->readonly)
		return base_err_set(err, -EROFS, "%s: opened read-only", info->name);
	return 0;
}

static void fill_super(struct bs_sb_disk *sb, const struct bdev_info *info, const struct bs_format_opts *opts)
{
	static const uint8_t none[16];
	uint32_t cluster = opts->cluster_size ? opts->cluster_size : 16384;
	uint64_t nonce;

	memset(sb, 0, sizeof(*sb));
	memcpy(sb->magic, BS_MAGIC, sizeof(sb->magic));
	sb->version_major = le16_make(BS_VERSION_MAJOR);
	sb->version_minor = le16_make(BS_VERSION_MINOR);
	sb->generation = le64_make(1);
	if (memcmp(opts->uuid, none, sizeof(none))) {
		memcpy(sb->uuid, opts->uuid, sizeof(sb->uuid));
	} else {
		base_random(sb->uuid, sizeof(sb->uuid));
		sb->uuid[6] = (uint8_t)((sb->uuid[6] & 0x0f) | 0x40); /* RFC 4122: random */
		sb->uuid[8] = (uint8_t)((sb->uuid[8] & 0x3f) | 0x80);
	}
	memcpy(sb->label, opts->label, sizeof(sb->label) - 1);
	memcpy(sb->owner, opts->owner, sizeof(sb->owner) - 1);
	sb->incompat = le64_make(BS_INCOMPAT_CARRIED | BS_INCOMPAT_SHARE | (opts->flags & BS_FORMAT_SUMS ? BS_INCOMPAT_SUM : 0));
	sb->created_ns = le64_make((uint64_t)base_wall_ns());
	sb->blocks = le64_make(store_size(info, opts) / BS_BLOCK);
	sb->cluster_blocks = le32_make(cluster / BS_BLOCK);
	sb->segment_blocks = le32_make((uint32_t)((store_size(info, opts) >= GiB ? MiB : 256 * KiB) / BS_BLOCK));
	sb->next_id = le64_make(1);
	base_random(&nonce, sizeof(nonce));
	sb->log_segment = le64_make(le32_get(sb->segment_blocks));
	sb->log_nonce = le64_make(nonce);
	sb->log_seq = le64_make(1);
	sb->log_offset = le32_make(1);
	sb->clean = le32_make(1);
}

/* The first segment's header, with the unit behind it as successor. */
static void fill_segment(struct bs_segment_disk *h, const struct bs_sb_disk *sb)
{
	struct bs_log_pos pos = { .segment = le64_get(sb->log_segment), .nonce = le64_get(sb->log_nonce), .seq = le64_get(sb->log_seq) };
	uint64_t nonce;

	base_random(&nonce, sizeof(nonce));
	bs_segment_fill(h, sb, &pos, pos.segment + le32_get(sb->segment_blocks), nonce);
}

static int wipe_supers(struct bdev_channel *ch, void *buf)
{
	int rc;

	memset(buf, 0, BS_BLOCK);
	rc = bdev_io_sync(ch, BDEV_WRITE, buf, 0, BS_BLOCK, 0);
	if (!rc)
		rc = bdev_io_sync(ch, BDEV_WRITE, buf, (uint64_t)BS_SB_COPY_BLOCK * BS_BLOCK, BS_BLOCK, 0);
	return rc ? rc : bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0);
}

int bs_format(struct bdev *dev, const struct bs_format_opts *opts, struct base_err *err)
{
	const struct bdev_info *info = bdev_info(dev);
	struct bdev_channel *ch;
	struct bs_sb_disk sb;
	void *buf;
	int rc;

	if (!opts)
		opts = &no_opts;
	rc = check_opts(info, opts, err);
	if (rc)
		return rc;
	buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	if (!buf)
		return -ENOMEM;
	fill_super(&sb, info, opts);
	ch = bdev_channel_borrow(dev);
	rc = wipe_supers(ch, buf);
	if (!rc) {
		fill_segment(buf, &sb);
		rc = bdev_io_sync(ch, BDEV_WRITE, buf, le64_get(sb.log_segment) * BS_BLOCK, BS_BLOCK, 0);
	}
	if (!rc)
		rc = bdev_io_sync(ch, BDEV_FLUSH, NULL, 0, 0, 0);
	bdev_channel_return(ch);
	dma_free(buf);
	if (!rc)
		rc = bs_sb_write_sync(dev, &sb);
	return rc ? base_err_set(err, rc, "%s: cannot write: %s", info->name, strerror(-rc)) : 0;
}
