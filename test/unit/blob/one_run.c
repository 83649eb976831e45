/* SPDX-License-Identifier: BSD-2-Clause */
/* A blob that has now no run, now one, which its map holds itself, now several, which it does not; read and written over meanwhile. */
#include <pthread.h>
#include <stdatomic.h>

#include "test/unit/blob/kit.h"

#define SPAN 12u
#define THREADS 3u

struct one_run {
	struct bs *bs;
	struct bs_blob *blob;
	uint64_t seed;
	atomic_bool stop;
	_Atomic uint64_t found; /* blocks that were there */
};

struct asked {
	struct bs_io io;
	struct iovec v;
	int rc;
	bool called;
};

static void answered(struct bs_io *io, int rc)
{
	struct asked *a = container_of(io, struct asked, io);

	a->rc = rc;
	a->called = true;
}

static int ask(struct bdev_channel *ch, struct bs_blob *blob, enum bs_io_op op, uint64_t block, void *buf)
{
	struct asked a = { .v = { buf, BS_BLOCK } };

	a.io = (struct bs_io){ .blob = blob,
			       .op = op,
			       .offset = block * BS_BLOCK,
			       .length = BS_BLOCK,
			       .iov = &a.v,
			       .iovcnt = 1 };
	bs_io_submit(ch, &a.io, answered);
	while (!a.called)
		bdev_poll(ch);
	return a.rc;
}

/* Every block that is there says which it is, so one of elsewhere is recognised. */
static void *read_and_write_on(void *arg)
{
	struct one_run *o = arg;
	uint64_t seed = o->seed + (uintptr_t)pthread_self(), *buf = dma_alloc(BS_BLOCK, BS_BLOCK);
	struct bdev_channel *ch;

	ASSERT_OK(bdev_channel_create(bs_bdev(o->bs), &ch));
	while (!atomic_load(&o->stop)) {
		uint64_t block = kit_rand(&seed, SPAN);

		ASSERT_OK(ask(ch, o->blob, BS_READ, block, buf));
		ASSERT_EQ_INT(buf[0], buf[511]);
		if (!buf[0])
			continue;
		ASSERT_EQ_INT(block + 1, buf[0]);
		atomic_fetch_add(&o->found, 1);
		if (!kit_rand(&seed, 4))
			ASSERT_OK(ask(ch, o->blob, BS_WRITE, block, buf));
	}
	bdev_channel_destroy(ch);
	dma_free(buf);
	return NULL;
}

static void change_runs(struct one_run *o, uint64_t *seed, uint64_t *buf)
{
	uint64_t block = kit_rand(seed, SPAN), count = 1 + kit_rand(seed, 2);

	switch (kit_rand(seed, 6)) {
	case 0: /* perhaps its middle */
		ASSERT_OK(kit_unmap(o->blob, block, count));
		return;
	case 1:
		ASSERT_OK(kit_unmap(o->blob, 0, SPAN));
		return;
	case 2: /* all but one or two */
		if (block)
			ASSERT_OK(kit_unmap(o->blob, 0, block));
		ASSERT_OK(kit_unmap(o->blob, block + count, SPAN));
		return;
	case 3:
		ASSERT_OK(bs_commit(o->bs, 0));
		bs_space_release(o->bs);
		return;
	case 4: /* one run, most often */
		block = 0;
		count = SPAN;
		break;
	default:
		count = MIN(count, SPAN - block);
	}
	for (uint64_t b = 0; b < count; b++)
		buf[b * 512] = buf[b * 512 + 511] = block + b + 1;
	ASSERT_OK(kit_write_buf(o->blob, block, count, buf, kit_rand(seed, 2) ? BS_IO_NEW : 0));
}

TEST(blob_one_run_threads, it_is_never_seen_half_nor_elsewhere)
{
	uint64_t seed = test_seed(), *buf = dma_zalloc(SPAN * BS_BLOCK, BS_BLOCK), turns[3][3] = { { 0 } };
	uint64_t rounds = test_scaled(3000);
	struct one_run o = { .seed = seed };
	pthread_t t[THREADS];
	struct bs_blob_info info = { 0 };
	struct kit k;

	kit_open(&k, &(struct kit_opts){ 0 });
	o.bs = k.bs;
	o.blob = kit_create(k.bs);
	for (unsigned i = 0; i < THREADS; i++)
		ASSERT_EQ_INT(0, pthread_create(&t[i], NULL, read_and_write_on, &o));
	/* Longer, if those who read get no processor. */
	for (uint64_t n = 0; n < rounds || (atomic_load(&o.found) < 100 && n < 100 * rounds); n++) {
		uint64_t had = MIN(info.runs, 2u);

		change_runs(&o, &seed, buf);
		bs_blob_get_info(o.blob, &info);
		ASSERT_LE_INT(info.mapped_blocks, SPAN);
		ASSERT_EQ_INT(!info.runs, !info.mapped_blocks);
		turns[had][MIN(info.runs, 2u)]++;
	}
	atomic_store(&o.stop, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (unsigned from = 0; from < 3; from++)
		for (unsigned to = 0; to < 3; to++)
			if (from || to < 2)
				EXPECT_GE_INT(turns[from][to], 5);
	EXPECT_GE_INT(atomic_load(&o.found), 100);
	dma_free(buf);
	bs_blob_put(o.blob);
	kit_close(&k);
}
