/* SPDX-License-Identifier: BSD-2-Clause */
/* What workloads do with the device under a store: they let the store grow into it, and trim it. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "test/powercut/device.h"

uint64_t device_first_size(struct run *run)
{
	uint64_t size = run->device_size - rng_below(&run->rng, 1600) * BS_BLOCK;

	run->discard = rng_chance(&run->rng, 50);
	run->n_sizes = 0;
	run->sizes[run->n_sizes++] = (struct store_size){ .blocks = size / BS_BLOCK };
	return size;
}

/* At most to what the device has: the last steps are small ones then. */
static void grow_store(struct run *run, struct bs *bs)
{
	uint64_t now = run->sizes[run->n_sizes - 1].blocks, left = run->device_size / BS_BLOCK - now, size;
	struct store_size *s = &run->sizes[run->n_sizes];
	struct base_err err = { "" };
	int rc;

	if (run->n_sizes == ARRAY_SIZE(run->sizes) || !left)
		return;
	size = rng_chance(&run->rng, 20) ? 0 : (now + 1 + rng_below(&run->rng, MIN(left, 500ull))) * BS_BLOCK;
	*s = (struct store_size){ .blocks = (size ? size : run->device_size) / BS_BLOCK, .issued = bdev_powercut_mark(run->dev),
				  .done = UINT64_MAX };
	run->n_sizes++;
	trace(run, "grow to %" PRIu64 " blocks", s->blocks);
	rc = bs_grow(bs, size, &err);
	if (rc)
		call_failed(run, base_err_text(&err, rc), rc);
	s->done = bdev_powercut_mark(run->dev);
	run->coverage.grown++;
}

static void trim(struct run *run, struct bs *bs)
{
	struct bs_trim_opts opts = { .size = sizeof(opts), .min_length = rng_below(&run->rng, 5) * BS_BLOCK };
	struct base_err err = { "" };
	uint64_t bytes;
	int rc;

	if (rng_chance(&run->rng, 30)) {
		opts.offset = rng_below(&run->rng, 40 * MiB);
		opts.length = rng_below(&run->rng, 20 * MiB);
	}
	rc = bs_trim(bs, &opts, &bytes, &err);
	trace(run, "trim from %" PRIu64 " + %" PRIu64 ": %" PRIu64 " bytes", opts.offset, opts.length, bytes);
	if (rc)
		call_failed(run, base_err_text(&err, rc), rc);
	run->coverage.trimmed += bytes > 0;
}

void device_step(struct run *run, struct bs *bs)
{
	if (rng_chance(&run->rng, 50))
		grow_store(run, bs);
	else
		trim(run, bs);
}

bool device_verify(struct run *run, struct bs *bs, uint64_t event)
{
	uint64_t least = 0, most = 0;
	struct bs_stat st;

	bs_get_stat(bs, &st);
	for (unsigned i = 0; i < run->n_sizes; i++) {
		if (run->sizes[i].done <= event)
			least = run->sizes[i].blocks;
		if (run->sizes[i].issued <= event)
			most = run->sizes[i].blocks;
		if (run->sizes[i].issued <= event && run->sizes[i].blocks == st.blocks && least <= st.blocks)
			return true;
	}
	return finding(run, "the store has %" PRIu64 " blocks; it had grown to %" PRIu64 ", at most to %" PRIu64, st.blocks, least, most);
}
