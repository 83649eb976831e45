/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages of sums that are damaged, and flagged blocks whose sum is nowhere: in such a page, or in one that lost its place to something newer,
 * or the record that named it is lost. Checking says so; mending takes the flag away, for the data may be as it should be, and nobody
 * can tell.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "blob/mend.h"
#include "blob/sum.h"

#define RUNS 64u

static int look_at_page(struct bs *bs, uint64_t page, uint64_t phys, void *buf, void *arg)
{
	struct bs_place place = { .pass = "blobs", .code = "sum-page", .block = phys };

	(void)arg;
	if (buf && !bs_sum_page_check(bs, buf, page))
		return 0;
	bs->sums->found++;
	bs_complain(bs, NULL, &place, "the checksums of blocks %" PRIu64 " and on %s", page * BS_SUM_PAGE,
		    buf ? "are damaged" : "cannot be read");
	return bs_mending(bs) ? bs_mend_change(bs, BS_REC_DEL, BS_KIND_RUN, BS_SUM_ID, page, 1) : 0;
}

int bs_sums_verify_pages(struct bs *bs)
{
	return bs_sum_pages(bs, look_at_page, NULL);
}

/* How many blocks from `phys` on are alike in having a sum, or not. */
static uint64_t alike(struct bs *bs, uint64_t phys, uint64_t count, bool *has)
{
	uint64_t n = 0;

	while (n < count) {
		uint64_t page = (phys + n) / BS_SUM_PAGE, left = (page + 1) * BS_SUM_PAGE - (phys + n);
		struct bs_extent e;
		bool this;

		bs_runmap_lookup(&bs->sums->blob->map, page, 1, &e);
		if (e.flags & BS_RUN_HOLE) {
			this = bs_sum_is_young(bs, phys + n);
			left = 1;
		} else {
			this = true;
		}
		if (!n)
			*has = this;
		else if (this != *has)
			break;
		n += left;
	}
	return MIN(n, count);
}

static int clear(struct bs *bs, struct bs_blob *blob, uint64_t logical, uint64_t phys, uint64_t count, unsigned flags)
{
	struct bs_run_disk disk;
	struct bs_rec rec = { .op = BS_REC_PUT, .kind = BS_KIND_RUN, .blob = blob->id, .key = logical, .len = sizeof(disk),
			      .value = &disk };
	struct bs_prep prep;
	struct bs_run run;
	int rc;

	bs_run_set(&run, logical, phys, count, flags & ~(unsigned)BS_RUN_SUM);
	bs_run_to_disk(&run, &disk);
	rc = bs_prep_make(bs, &rec, &prep);
	if (!rc)
		rc = bs_apply(bs, &rec, bs->lsn, &prep);
	bs_prep_drop(&prep);
	return rc;
}

static int look_at_run(struct bs *bs, struct bs_blob *blob, const struct bs_run *run)
{
	uint64_t done = 0, n;
	int rc = 0;

	for (; done < run->count && !rc; done += n) {
		uint64_t phys = bs_run_phys(run) + done;
		struct bs_place place = { .pass = "blobs", .code = "sum-lost", .blob = blob->id, .block = phys };
		bool has = true;

		n = alike(bs, phys, run->count - done, &has);
		if (has)
			continue;
		bs->sums->found++;
		bs_complain(bs, NULL, &place, "blob %" PRIu64 ": blocks %" PRIu64 "+%" PRIu64 " have lost their checksums", blob->id,
			    run->logical + done, n);
		if (bs_mending(bs))
			rc = clear(bs, blob, run->logical + done, phys, n, run->flags);
	}
	return rc;
}

int bs_sums_verify(struct bs *bs)
{
	struct bs_run runs[RUNS];
	struct bs_blob *blob;
	int rc = 0;

	if (!bs->sums)
		return 0;
	for (blob = bs_index_next(bs, 0); blob && !rc; blob = bs_index_next(bs, blob->id + 1)) {
		uint64_t from = 0;
		unsigned n;

		while (!rc && (n = bs_runmap_copy(&blob->map, from, runs, RUNS)) > 0) {
			for (unsigned i = 0; i < n && !rc; i++)
				if (runs[i].flags & BS_RUN_SUM)
					rc = look_at_run(bs, blob, &runs[i]);
			from = bs_run_end(&runs[n - 1]);
		}
	}
	return rc;
}

int bs_check_sums(struct bs *bs)
{
	int rc;

	if (!bs->sums)
		return 0;
	bs->sums->found = 0;
	rc = bs_sums_verify_pages(bs);
	if (!rc)
		rc = bs_sums_verify(bs);
	return rc ? rc : (int)MIN(bs->sums->found, (uint64_t)INT_MAX);
}

void bs_sums_settle(struct bs *bs)
{
	struct bs_blob *blob = bs->sums->blob;

	if (bs->sums->n_young || bs_runmap_blocks(&blob->map))
		bs->sb.incompat = le64_make(le64_get(bs->sb.incompat) | BS_INCOMPAT_SUM);
	if (le64_get(bs->sb.incompat) & BS_INCOMPAT_SUM)
		return;
	bs->n_blobs++; /* as it was not counted */
	bs_index_remove(bs, blob);
	bs_blob_put(blob);
	bs->meta_bytes -= bs_rec_size((uint32_t)sizeof(struct bs_header_disk));
	bs_sums_destroy(bs);
}
