/* SPDX-License-Identifier: BSD-2-Clause */
/* Small file systems with everything in them: what is damaged later. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/dma.h"
#include "test/corrupt/corrupt.h"

#define STEP (256 * KiB)

bool corrupt_verbose;

uint64_t rnd_next(struct rnd *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t rnd_below(struct rnd *r, uint64_t n)
{
	return rnd_next(r) % n;
}

static void must(int64_t rc, const char *what)
{
	if (rc >= 0)
		return;
	printf("not ok corrupt/image: %s: %s\n", what, strerror((int)-rc));
	exit(1);
}

static void transfer(struct bdev *dev, enum bdev_op op, uint8_t *mem, uint64_t at, uint64_t len)
{
	struct bdev_channel *ch = bdev_channel_borrow(dev);

	must(bdev_io_sync(ch, op, mem, at, len, 0), "device I/O");
	bdev_channel_return(ch);
}

/* ---- content ---- */

static void write_file(struct bfs *fs, const char *path, size_t pieces, size_t len, uint64_t stride, bool sync)
{
	static uint8_t data[64 * KiB];
	struct bfs_file *f;

	memset(data, path[1] ? path[1] : 'x', sizeof(data));
	must(bfs_open_path(fs, NULL, path, O_RDWR | O_CREAT, 0644, BS_STREAM_UNKNOWN, &f), path);
	for (size_t i = 0; i < pieces; i++) {
		must(bfs_pwrite(f, data, len, i * stride), path);
		if (sync && stride > len)
			must(bfs_fsync(f, true), path);
	}
	if (sync)
		must(bfs_fsync(f, false), path);
	bfs_close(f);
}

/* As a database's log: bytes that stay in the log, at odd places of a block, and one block over a hole. */
static void write_log(struct bfs *fs, const char *path, size_t records)
{
	static uint8_t data[400];
	struct bs_stat before, after;
	struct bfs_file *f;

	bs_get_stat(bfs_store(fs), &before);
	must(bfs_open_path(fs, NULL, path, O_RDWR | O_CREAT, 0644, BS_STREAM_SHORT, &f), path);
	for (size_t i = 0; i < records; i++) {
		memset(data, 'a' + (int)(i % 26), sizeof(data));
		must(bfs_append(f, data, sizeof(data)), path);
		must(bfs_fsync(f, true), path);
	}
	must(bfs_pwrite(f, data, sizeof(data), 100000), path);
	must(bfs_fsync(f, false), path);
	bfs_close(f);
	bs_get_stat(bfs_store(fs), &after);
	if (after.carried_blocks <= before.carried_blocks)
		must(-EIO, "nothing is carried in the log");
}

static void add_xattrs(struct bfs *fs, const char *path)
{
	static uint8_t value[3000];
	struct bfs_attr a;

	must(bfs_resolve(fs, NULL, path, 0, &a), path);
	must(bfs_setxattr(fs, NULL, a.ino, "user.small", "v", 1, 0), path);
	must(bfs_setxattr(fs, NULL, a.ino, "user.large", value, sizeof(value), 0), path);
	must(bfs_setxattr(fs, NULL, a.ino, "trusted.empty", "", 0, 0), path);
}

/* Each fsync makes a frame of the log: one in `every` files is synced. */
static void make_batch(struct bfs *fs, unsigned from, unsigned to, unsigned every)
{
	char path[64], other[64];
	struct bfs_attr a;

	for (unsigned i = from; i < to; i++) {
		snprintf(path, sizeof(path), "/d%u/a-name-of-some-length-%u", i % 7, i);
		if (i < 7) {
			snprintf(other, sizeof(other), "/d%u", i);
			must(bfs_make_path(fs, NULL, other, 0755), other);
		}
		write_file(fs, path, i % 5 == 0, 1 + 700 * (i % 9), 64 * KiB, i % every == 0);
		must(bfs_resolve(fs, NULL, path, 0, &a), path);
		snprintf(other, sizeof(other), "link%u", i);
		if (i % 11 == 0)
			must(bfs_link(fs, NULL, a.ino, BFS_ROOT_INO, other, 0, NULL), other);
		if (i % 13 == 0)
			must(bfs_symlink(fs, NULL, BFS_ROOT_INO, other + 1, path, 0, NULL), other);
		if (i % 17 == 0)
			add_xattrs(fs, path);
	}
}

static void populate(struct bfs *fs)
{
	struct bfs_attr a;

	must(bfs_make_path(fs, NULL, "/deep/er/and/deep/er", 0700), "mkdir");
	make_batch(fs, 0, 80, 50);
	must(bs_checkpoint(bfs_store(fs)), "checkpoint");
	write_file(fs, "/runs", 40, 4096, 12288, true);
	write_file(fs, "/large", 4, 64 * KiB, 64 * KiB, false);
	must(bfs_mknod(fs, NULL, BFS_ROOT_INO, "fifo", S_IFIFO | 0600, 0, 0, NULL), "mknod");
	must(bfs_mknod(fs, NULL, BFS_ROOT_INO, "null", S_IFCHR | 0600, 0x103, 0, NULL), "mknod");
	make_batch(fs, 80, 250, 50);
	must(bfs_resolve(fs, NULL, "/d3", 0, &a), "resolve");
	must(bfs_snapshot(fs, NULL, a.ino, BFS_ROOT_INO, "snap", BFS_SNAP_SEALED, NULL), "snapshot");
	must(bfs_sync(fs), "sync");
	write_log(fs, "/log", 40);
	must(bs_checkpoint(bfs_store(fs)), "checkpoint");
}

/* Changes that stand in the log alone. */
static void add_tail(struct bfs *fs, unsigned n)
{
	struct bfs_attr a;

	make_batch(fs, 300, 300 + n, MIN(n, 3u));
	must(bfs_resolve(fs, NULL, "/d5", 0, &a), "resolve");
	must(bfs_snapshot(fs, NULL, a.ino, BFS_ROOT_INO, "clone", 0, NULL), "snapshot");
	must(bfs_resolve(fs, NULL, "/runs", 0, &a), "resolve");
	must(bfs_truncate(fs, NULL, a.ino, 70000), "truncate");
	must(bfs_rename(fs, NULL, BFS_ROOT_INO, "large", BFS_ROOT_INO, "fifo", 0), "rename");
	must(bfs_unlink(fs, NULL, BFS_ROOT_INO, "null"), "unlink");
	must(bfs_sync(fs), "sync");
	write_log(fs, "/log", 20);
	write_log(fs, "/second-log", 30);
}

/* ---- taking it ---- */

static void snapshot(struct bdev *dev, struct image *image)
{
	static const uint8_t zero[BS_BLOCK];

	image->mem = mmap(NULL, IMAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	image->used = calloc(IMAGE_BLOCKS, sizeof(*image->used));
	if (image->mem == MAP_FAILED || !image->used)
		must(-ENOMEM, "snapshot");
	for (uint64_t at = 0; at < IMAGE_SIZE; at += STEP)
		transfer(dev, BDEV_READ, image->mem + at, at, STEP);
	for (uint32_t b = 0; b < IMAGE_BLOCKS; b++)
		if (memcmp(image->mem + (uint64_t)b * BS_BLOCK, zero, BS_BLOCK))
			image->used[image->n_used++] = b;
}

/* Some checksums are in pages then, others in the checkpoint, and the tail's in the log. */
static void page_out(struct bfs *fs)
{
	struct bs_stat st;

	must(bs_service_step(bfs_store(fs)), "page out checksums");
	write_file(fs, "/young", 8, 64 * KiB, 64 * KiB, true);
	bs_get_stat(bfs_store(fs), &st);
	if (!st.sum_pages || !st.sums_young)
		must(-EIO, "no checksums in pages, or none elsewhere");
	must(bs_checkpoint(bfs_store(fs)), "checkpoint");
}

static struct bfs *begin_one(struct bdev **dev, uint32_t store_flags)
{
	struct bfs_format_opts fo = { .size = sizeof(fo), .label = "hostile", .store_flags = store_flags };
	struct bfs_mount_opts mo = { .size = sizeof(mo), .flags = BFS_NO_SERVICE, .cache_size = 8 * MiB };
	struct base_err err = { "" };
	struct bfs *fs;
	char name[32];

	snprintf(name, sizeof(name), "ram:%uM", (unsigned)(IMAGE_SIZE / MiB));
	must(bdev_open(name, NULL, dev, &err), "open");
	must(bfs_format(*dev, &fo, &err), "format");
	bdev_ref(*dev);
	must(bfs_mount_bdev(*dev, &mo, &fs, &err), err.text);
	return fs;
}

/* die: what was changed last stands in the log alone. */
static void end_one(struct bfs *fs, struct bdev *dev, bool die, struct image *image)
{
	if (die)
		bfs_abandon(fs);
	else
		must(bfs_unmount(fs), "unmount");
	snapshot(dev, image);
	bdev_close(dev);
}

static void make_one(struct image *image, int tail, uint32_t store_flags)
{
	struct bdev *dev;
	struct bfs *fs = begin_one(&dev, store_flags);

	populate(fs);
	if (store_flags & BS_FORMAT_SUMS)
		page_out(fs);
	if (tail)
		add_tail(fs, (unsigned)tail);
	end_one(fs, dev, tail, image);
}

static void still(void)
{
	base_set_fake_clock(1700000000000000000ull);
	base_set_fake_random(1);
}

static void moving(void)
{
	base_set_fake_clock(0);
	base_set_fake_random(0);
}

/* Of everything a little. */
void image_make_small(struct image *image, bool tail)
{
	struct bfs_attr a;
	struct bdev *dev;
	struct bfs *fs;

	still();
	image->name = tail ? "small-tail" : "small";
	fs = begin_one(&dev, 0);
	make_batch(fs, 0, 12, 20);
	write_file(fs, "/runs", 6, 4096, 12288, true);
	must(bfs_mknod(fs, NULL, BFS_ROOT_INO, "fifo", S_IFIFO | 0600, 0, 0, NULL), "mknod");
	must(bfs_resolve(fs, NULL, "/d0", 0, &a), "resolve");
	must(bfs_snapshot(fs, NULL, a.ino, BFS_ROOT_INO, "snap", BFS_SNAP_SEALED, NULL), "snapshot");
	must(bfs_sync(fs), "sync");
	must(bs_checkpoint(bfs_store(fs)), "checkpoint");
	if (tail) {
		make_batch(fs, 12, 20, 3);
		must(bfs_resolve(fs, NULL, "/runs", 0, &a), "resolve");
		must(bfs_truncate(fs, NULL, a.ino, 30000), "truncate");
		must(bfs_snapshot(fs, NULL, a.ino, BFS_ROOT_INO, "clone", 0, NULL), "snapshot");
		must(bfs_unlink(fs, NULL, BFS_ROOT_INO, "fifo"), "unlink");
		must(bfs_sync(fs), "sync");
	}
	end_one(fs, dev, tail, image);
	moving();
}

/* The same bytes each time and everywhere: a case is its number. */
void images_make(struct image image[IMAGES])
{
	still();
	image[0].name = "closed";
	make_one(&image[0], 0, 0);
	image[1].name = "tail";
	make_one(&image[1], 25, 0);
	image[2].name = "long-tail";
	make_one(&image[2], 125, 0);
	image[3].name = "checksums";
	make_one(&image[3], 25, BS_FORMAT_SUMS);
	moving();
}

uint32_t images_digest(const struct image image[IMAGES])
{
	uint32_t crc = 0;

	for (int i = 0; i < IMAGES; i++)
		crc = base_crc32c(crc, image[i].mem, IMAGE_SIZE);
	return crc;
}

void images_free(struct image image[IMAGES])
{
	for (int i = 0; i < IMAGES; i++) {
		munmap(image[i].mem, IMAGE_SIZE);
		free(image[i].used);
	}
}

/* Neighbouring blocks go in one write. */
struct bdev *image_device(const struct image *image, const uint8_t *mem, uint64_t size)
{
	struct base_err err = { "" };
	struct bdev *dev;
	char name[40];

	snprintf(name, sizeof(name), "ram:%llu", (unsigned long long)size);
	must(bdev_open(name, NULL, &dev, &err), err.text);
	for (uint32_t i = 0; i < image->n_used;) {
		uint64_t at = (uint64_t)image->used[i] * BS_BLOCK, len = BS_BLOCK;
		uint32_t n = 1;

		while (i + n < image->n_used && image->used[i + n] == image->used[i] + n)
			n++;
		len *= n;
		if (at < size)
			transfer(dev, BDEV_WRITE, (uint8_t *)mem + at, at, MIN(len, round_down(size - at, 512)));
		i += n;
	}
	return dev;
}
