/* SPDX-License-Identifier: BSD-2-Clause */
/* Mending: which superblock to go by. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blob/mend.h"

static const uint64_t where[2] = { 0, BS_SB_COPY_BLOCK };

static void say(struct bs *bs, int i, const char *code, const char *text)
{
	struct bs_place place = { .pass = "superblock", .code = code, .block = where[i] };

	bs_complain(bs, NULL, &place, "%s", text);
}

/* The newer copy whose fields make sense; the other if only that one's do. */
static int usable(struct bs *bs, const struct bs_sb_pair *pair, struct bs_sb_disk *sb, struct base_err *err)
{
	struct base_err why = { "" }, other = { "" };
	int rc = -EUCLEAN, first = pair->chosen;

	for (int k = 0; k < 2 && first >= 0; k++) {
		int i = k ? !first : first;

		if (pair->state[i] != BS_SB_GOOD) {
			say(bs, i, "superblock-copy", "this copy of the superblock is damaged");
			continue;
		}
		if (rc != -EUCLEAN && rc != -EFBIG) /* found already */
			continue;
		/* One that is larger than the device while the other is not: no block beyond the smaller size was ever used. */
		rc = bs_sb_validate(&pair->sb[i], bs->dev, true, k ? &other : &why);
		if (!rc)
			*sb = pair->sb[i];
		else if (rc == -EUCLEAN)
			say(bs, i, "superblock-field", k ? other.text : why.text);
	}
	return rc ? base_err_set(err, rc, "%s", why.text) : 0;
}

static uint64_t generation(const struct bs_sb_pair *pair)
{
	uint64_t g = 0;

	for (int i = 0; i < 2; i++)
		if (pair->state[i] == BS_SB_GOOD)
			g = MAX(g, le64_get(pair->sb[i].generation));
	return g;
}

int bs_mend_super(struct bs *bs, struct bs_sb_disk *sb, struct base_err *err)
{
	bool rebuild = bs->reporter->mend->flags & BS_MEND_REBUILD;
	struct base_err why = { "" };
	struct bs_sb_pair pair;
	int rc = bs_sb_read(bs->dev, &pair, &why);

	if (!rc && bs_sb_overwritten(&pair) && !rebuild)
		return base_err_set(err, -EUCLEAN, "%s: superblock: block 0 holds something else (another file system?); by the "
				    "copy at block %u it can be rebuilt, if you say so", bdev_info(bs->dev)->name, BS_SB_COPY_BLOCK);
	if (!rc)
		rc = usable(bs, &pair, sb, &why);
	if (rc && rc != -ENOMEM && rc != -ENOTSUP && rc != -EFBIG && rebuild)
		rc = bs_mend_find_super(bs, sb, &why);
	if (rc)
		return base_err_set(err, rc, "%s", base_err_text(&why, rc));
	sb->generation = le64_make(MAX(generation(&pair), le64_get(sb->generation)));
	sb->clean = le32_make(0);
	base_random(sb->mount_id, sizeof(sb->mount_id));
	return 0;
}
