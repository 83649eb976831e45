/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Metadata space. The log's segments and the checkpoint's pages lie in units: aligned extents of sb.segment_blocks
 * blocks. The store owns at all times as many units as R7 asks for,
 *
 *     the log's limit + the present checkpoint + the next one, with room for what changes during its capture,
 *
 * those not in use waiting in a pool. They are really allocated, so neither a full nor a fragmented store can keep a
 * checkpoint from being written. Nothing of this is on the device: at open the units in use are found by reading,
 * and the pool is filled before anybody else allocates.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob/device.h"

#define LOG_COMPONENT "blob"
#include "base/log.h"

#define RETRY_NS 50000000ull /* after an attempt to take more has failed, unless so much has become free that there may be a unit */

struct bs_meta {
	pthread_mutex_t lock;
	uint64_t *free;       /* the pool */
	uint32_t n_free, cap;
	uint64_t in_use[2];   /* by enum bs_meta_user */
	uint64_t retry_ns;    /* do not ask the allocator before, */
	uint64_t retry_avail; /* or before so many clusters are available */
	uint64_t ahead_ns;    /* nor for what is only foreseen */
};

int bs_meta_create(struct bs *bs)
{
	struct bs_meta *m = base_calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	pthread_mutex_init(&m->lock, NULL);
	bs->meta = m;
	return 0;
}

void bs_meta_destroy(struct bs *bs)
{
	struct bs_meta *m = bs->meta;

	if (!m)
		return;
	pthread_mutex_destroy(&m->lock);
	free(m->free);
	free(m);
	bs->meta = NULL;
}

static uint32_t unit_blocks(const struct bs *bs)
{
	return le32_get(bs->sb.segment_blocks);
}

/*
 * Units that a checkpoint of so many bytes of items fills at most. The worst are values just over 16 or 12 blocks, each a page of
 * its own: three or four such pages fill a unit of 64 blocks, and a quarter of it is lost; of a unit of 256, an
 * eighth. Index entries are a thousandth.
 */
static uint64_t ckpt_units(const struct bs *bs, uint64_t bytes)
{
	uint64_t lost = unit_blocks(bs) < 128 ? bytes * 3 / 8 : bytes / 4;

	return div_round_up(bytes + lost, (uint64_t)unit_blocks(bs) * BS_BLOCK) + 1;
}

uint64_t bs_unwritten_bytes(const struct bs *bs)
{
	return sizeof(struct bs_run_disk) + (bs->sums ? sizeof(struct bs_rec_disk) + 4 + sizeof(le32) : 0);
}

static uint64_t needed(const struct bs *bs, uint64_t meta_bytes)
{
	meta_bytes += bs->n_unwritten * bs_unwritten_bytes(bs);
	return bs_log_cap_units(bs) + 2 * ckpt_units(bs, meta_bytes) + ckpt_units(bs, atomic_load(&bs->log->trigger));
}

/*
 * As data gets old it lies in ever more pieces, and whole units are then hard to find although there is space. So room for a run a
 * cluster is taken while units can be had; it is no condition for anything.
 */
static uint64_t foreseen(const struct bs *bs, uint64_t meta_bytes)
{
	uint64_t pieces = bs->n_mapped / bs->cluster_blocks;

	return needed(bs, meta_bytes + (pieces > bs->n_runs ? (pieces - bs->n_runs) * sizeof(struct bs_run_disk) : 0));
}

static uint64_t total(const struct bs_meta *m)
{
	return m->n_free + m->in_use[BS_META_LOG] + m->in_use[BS_META_CKPT];
}

/* Room for everything we own in the pool's array, so that giving back cannot fail. */
static int grow_pool(struct bs_meta *m, uint64_t want)
{
	uint64_t *more;
	uint64_t cap = MAX(2ull * m->cap, want + 64);

	if (want <= m->cap)
		return 0;
	more = base_realloc(m->free, cap * sizeof(*more));
	if (!more)
		return -ENOMEM;
	m->free = more;
	m->cap = (uint32_t)cap;
	return 0;
}

/* One more unit from the allocator. must: also of what was promised to others, who may lose a write then. */
static int fetch(struct bs *bs, bool must, uint64_t *block)
{
	int rc = grow_pool(bs->meta, total(bs->meta) + 1);

	return rc ? rc : bs_space_alloc_meta(bs, unit_blocks(bs), must, block);
}

static bool fill(struct bs *bs, uint64_t want, bool must)
{
	struct bs_meta *m = bs->meta;
	uint64_t block;

	while (total(m) < want) {
		if (base_now_ns() < m->retry_ns && bs_space_avail(bs) < m->retry_avail)
			return false;
		if (fetch(bs, must, &block)) {
			m->retry_ns = base_now_ns() + RETRY_NS;
			m->retry_avail = bs_space_avail(bs) + unit_blocks(bs) / bs->cluster_blocks;
			return false;
		}
		m->free[m->n_free++] = block;
	}
	return true;
}

/* One unit more, if that many are foreseen. */
static void fill_ahead(struct bs *bs, uint64_t want)
{
	struct bs_meta *m = bs->meta;
	uint64_t block;

	if (total(m) >= want || base_now_ns() < m->ahead_ns)
		return;
	if (fetch(bs, false, &block))
		m->ahead_ns = base_now_ns() + RETRY_NS;
	else
		m->free[m->n_free++] = block;
}

/* less: units it may leave away. */
static bool fits_but(struct bs *bs, uint64_t add, uint64_t less)
{
	struct bs_meta *m = bs->meta;
	uint64_t want = needed(bs, bs->meta_bytes + add) - less, ahead = foreseen(bs, bs->meta_bytes + add);
	bool fits;

	pthread_mutex_lock(&m->lock);
	fits = total(m) >= want || fill(bs, want, false);
	if (fits)
		fill_ahead(bs, ahead);
	pthread_mutex_unlock(&m->lock);
	return fits;
}

bool bs_meta_fits(struct bs *bs, uint64_t add)
{
	return fits_but(bs, add, 0);
}

bool bs_meta_fits_hole(struct bs *bs, uint64_t add)
{
	return fits_but(bs, add, ckpt_units(bs, atomic_load(&bs->log->trigger)) / 2);
}

bool bs_meta_balance(struct bs *bs, bool must)
{
	struct bs_meta *m = bs->meta;
	uint64_t want = needed(bs, bs->meta_bytes), most = MAX(want + want / 4 + 8, foreseen(bs, bs->meta_bytes));
	bool ok;

	pthread_mutex_lock(&m->lock);
	m->retry_ns = 0;
	ok = fill(bs, want, must);
	while (total(m) > most && m->n_free)
		bs_space_free_meta(bs, m->free[--m->n_free], unit_blocks(bs));
	pthread_mutex_unlock(&m->lock);
	return ok;
}

int bs_meta_take(struct bs *bs, enum bs_meta_user user, uint64_t *block)
{
	struct bs_meta *m = bs->meta;
	uint64_t cap = bs_log_cap_units(bs), keep = 0;
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	if (user == BS_META_CKPT && cap > m->in_use[BS_META_LOG])
		keep = cap - m->in_use[BS_META_LOG];
	if (m->n_free > keep)
		*block = m->free[--m->n_free];
	else
		rc = fetch(bs, true, block);
	if (!rc)
		m->in_use[user]++;
	pthread_mutex_unlock(&m->lock);
	return rc;
}

void bs_meta_give(struct bs *bs, enum bs_meta_user user, uint64_t block)
{
	struct bs_meta *m = bs->meta;

	pthread_mutex_lock(&m->lock);
	m->in_use[user]--;
	m->free[m->n_free++] = block;
	pthread_mutex_unlock(&m->lock);
}

int bs_meta_claim(struct bs *bs, enum bs_meta_user user, uint64_t block, uint64_t *bad)
{
	struct bs_meta *m = bs->meta;
	int rc;

	pthread_mutex_lock(&m->lock);
	rc = grow_pool(m, total(m) + 1);
	if (!rc)
		rc = bs_space_claim_meta(bs, block, unit_blocks(bs), bad);
	if (!rc)
		m->in_use[user]++;
	pthread_mutex_unlock(&m->lock);
	return rc;
}

uint64_t bs_meta_bytes_owned(struct bs *bs)
{
	struct bs_meta *m = bs->meta;
	uint64_t units;

	pthread_mutex_lock(&m->lock);
	units = total(m);
	pthread_mutex_unlock(&m->lock);
	return units * unit_blocks(bs) * BS_BLOCK;
}
