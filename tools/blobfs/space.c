/* SPDX-License-Identifier: BSD-2-Clause */
/* blobfs dump DEVICE space: what each extent of the device is used for, in order. Of a damaged store what mending would make of it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "blob/format.h"
#include "tools/blobfs/verb.h"

struct extent {
	uint64_t block, count, blob, logical;
	const char *what;
};
struct extents {
	struct extent *e;
	size_t n, room;
	int rc;
};

static int add(struct extents *x, const struct extent *e)
{
	if (x->n == x->room) {
		size_t room = x->room ? 2 * x->room : 1024;
		struct extent *p = realloc(x->e, room * sizeof(*p));

		if (!p)
			return x->rc = -ENOMEM;
		x->e = p;
		x->room = room;
	}
	x->e[x->n++] = *e;
	return 0;
}

static int add_piece(const struct bs_piece *p, void *arg)
{
	static const char *const names[] = { "superblock", "segment", "frame", "page", "checksums" };

	return p->wrong && p->kind != BS_PIECE_SUMS ? 0 : add(arg, &(struct extent){ p->block, p->blocks, 0, 0, names[p->kind] });
}

static int add_runs(struct bs_blob *blob, void *arg)
{
	const uint64_t limit = 1ull << BS_RUN_BITS;
	struct bs_extent e;

	for (uint64_t b = 0; b < limit; b += e.count) {
		bs_map_lookup(blob, b, limit - b, &e);
		if (!e.count)
			break;
		if (!(e.flags & BS_RUN_HOLE) &&
		    add(arg, &(struct extent){ e.phys, e.count, bs_blob_id(blob), b, e.flags & BS_RUN_UNWRITTEN ? "unwritten" :
					       e.flags & BS_RUN_SHARED ? "shared" : "data" }))
			return -ENOMEM;
	}
	return 0;
}

static int by_block(const void *a, const void *b)
{
	uint64_t x = ((const struct extent *)a)->block, y = ((const struct extent *)b)->block;

	return x < y ? -1 : x > y;
}

static void print(const struct call *call, const struct extent *e, bool first)
{
	if (call->json && !e->blob)
		printf("%s{ \"block\": %" PRIu64 ", \"blocks\": %" PRIu64 ", \"use\": \"%s\" }", first ? "" : ",\n", e->block, e->count, e->what);
	else if (call->json)
		printf("%s{ \"block\": %" PRIu64 ", \"blocks\": %" PRIu64 ", \"use\": \"%s\", \"blob\": %" PRIu64 ", \"logical\": %" PRIu64 " }",
		       first ? "" : ",\n", e->block, e->count, e->what, e->blob, e->logical);
	else if (e->blob)
		printf("%12" PRIu64 " + %-10" PRIu64 " %s, blob %" PRIu64 " from its block %" PRIu64 "\n", e->block, e->count, e->what, e->blob,
		       e->logical);
	else
		printf("%12" PRIu64 " + %-10" PRIu64 " %s\n", e->block, e->count, e->what);
}

static void print_all(const struct call *call, struct extents *x, uint64_t blocks)
{
	uint64_t end = 0;
	bool first = true;

	if (x->n)
		qsort(x->e, x->n, sizeof(*x->e), by_block);
	for (size_t i = 0; i <= x->n; i++) {
		uint64_t next = i < x->n ? x->e[i].block : blocks;

		if (next > end) {
			print(call, &(struct extent){ end, next - end, 0, 0, "free" }, first);
			first = false;
		}
		if (i == x->n)
			break;
		print(call, &x->e[i], first);
		first = false;
		end = MAX(end, x->e[i].block + x->e[i].count);
	}
}

int dump_space(struct bdev *dev, const struct call *call, struct base_err *err)
{
	struct extents x = { NULL, 0, 0, 0 };
	struct bs_stat st;
	struct bs *bs;
	int rc = bs_walk(dev, BS_WALK_SUPER | BS_WALK_LOG | BS_WALK_CKPT, add_piece, &x, err);

	if (!rc)
		rc = view_open(dev, &bs, err);
	if (rc) {
		free(x.e);
		return rc;
	}
	bs_get_stat(bs, &st);
	rc = bs_foreach_blob(bs, 0, add_runs, &x);
	if (!rc)
		rc = bs_walk_sums(bs, add_piece, &x);
	if (!rc)
		print_all(call, &x, st.blocks);
	bs_abandon(bs);
	free(x.e);
	return rc;
}
