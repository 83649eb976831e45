/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory half as a whole: made before recovery, gone last. */
#include <errno.h>
#include <string.h>

#include "blob/share.h"
#include "blob/sum.h"

int bs_memory_init(struct bs *bs)
{
	int rc;

	pthread_mutex_init(&bs->lock, NULL);
	pthread_rwlock_init(&bs->index_lock, NULL);
	for (unsigned i = 0; i < BS_MAPLOCKS; i++)
		pthread_rwlock_init(&bs->maplock[i], NULL);
	RB_INIT(&bs->blobs);
	LIST_INIT(&bs->aheads);
	if (!bs->next_id)
		bs->next_id = 1;
	rc = bs_idtable_init(&bs->by_id);
	if (!rc)
		rc = bs_epoch_create(bs);
	if (!rc)
		rc = bs_txn_create_store(bs);
	if (!rc)
		rc = bs_share_create(bs);
	if (!rc)
		rc = bs_space_create(bs);
	if (rc)
		bs_memory_destroy(bs);
	return rc;
}

void bs_memory_destroy(struct bs *bs)
{
	struct bs_ahead *a;

	while ((a = LIST_FIRST(&bs->aheads)))
		bs_ahead_drop(a->blob);
	bs_index_free(bs);
	bs_sums_destroy(bs);
	bs_orphans_free(bs);
	bs_spare_trim(&bs->spare, 0);
	bs_space_destroy(bs);
	bs_share_destroy(bs);
	bs_txn_destroy_store(bs);
	bs_epoch_destroy(bs);
	for (unsigned i = 0; i < BS_MAPLOCKS; i++)
		pthread_rwlock_destroy(&bs->maplock[i]);
	pthread_rwlock_destroy(&bs->index_lock);
	pthread_mutex_destroy(&bs->lock);
}

void bs_get_stat(struct bs *bs, struct bs_stat *st)
{
	memset(st, 0, sizeof(*st));
	pthread_mutex_lock(&bs->lock);
	memcpy(st->uuid, bs->sb.uuid, sizeof(st->uuid));
	memcpy(st->label, bs->sb.label, sizeof(st->label));
	memcpy(st->owner, bs->sb.owner, sizeof(st->owner));
	st->version_major = le16_get(bs->sb.version_major);
	st->version_minor = le16_get(bs->sb.version_minor);
	st->cluster_size = bs->cluster_blocks * BS_BLOCK;
	st->readonly = bs->flags & BS_RDONLY;
	st->frozen_rc = atomic_load(&bs->frozen);
	st->frozen = st->frozen_rc != 0;
	st->blocks = bs->blocks;
	st->meta_bytes = bs->meta_bytes;
	st->blobs = bs->n_blobs;
	st->runs = bs->n_runs;
	st->items = bs->n_items;
	st->next_id = bs->next_id;
	st->carried_blocks = atomic_load(&bs->n_carried);
	st->carries = atomic_load(&bs->carries);
	st->carried_bytes = atomic_load(&bs->carried_bytes);
	bs_space_get_stat(bs, st);
	bs_discard_get_stat(bs, st);
	/* What was unmapped and may be somebody else's counts until that is known; what could not be told apart for lack of memory
	 * is counted too often. */
	st->used_blocks = bs->n_mapped + bs->space->pending_shared;
	st->saved_blocks = MIN(bs->shares->extra, st->used_blocks);
	st->used_blocks -= st->saved_blocks;
	bs_sum_get_stat(bs, st);
	pthread_mutex_unlock(&bs->lock);
	bs_epoch_get_stat(bs, st);
	bs_pauses_get_stat(bs, st);
	bs_device_get_stat(bs, st);
}
