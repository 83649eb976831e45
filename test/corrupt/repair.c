/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What repair makes of a damaged image: checking finds nothing in it any more, it mounts, and every file whose metadata was not hit is
 * there to the byte. The same holds when power or the device fails during the repair and it is begun again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "bdev/wrap.h"
#include "test/corrupt/corrupt.h"

#define CUTS 3u
#define UNREADABLE 1u /* instead of a digest */

static void fault(struct verdict *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fault(struct verdict *v, const char *fmt, ...)
{
	va_list ap;

	if (v->fault[0])
		return;
	va_start(ap, fmt);
	vsnprintf(v->fault, sizeof(v->fault), fmt, ap);
	va_end(ap);
}

/* ---- what the sound image holds ---- */

static uint32_t digest(struct bfs *fs, uint64_t ino, const struct bfs_attr *a)
{
	static uint8_t buf[256 * KiB];
	struct bfs_file *f;
	uint32_t crc = 0;
	int64_t n = 0;

	if (S_ISLNK(a->mode)) {
		n = bfs_readlink(fs, ino, (char *)buf, sizeof(buf));
		return n > 0 ? base_crc32c(0, buf, (size_t)n) : 1;
	}
	if (!S_ISREG(a->mode) || bfs_open(fs, NULL, ino, O_RDONLY, BS_STREAM_UNKNOWN, &f))
		return 0;
	for (uint64_t at = 0; (n = bfs_pread(f, buf, sizeof(buf), at)) > 0; at += (uint64_t)n)
		crc = base_crc32c(crc, buf, (size_t)n);
	bfs_close(f);
	return n < 0 ? UNREADABLE : crc;
}

static int add_inode(struct bs_blob *blob, void *arg)
{
	struct contents *c = arg;

	c->inode = realloc(c->inode, (c->n + 1) * sizeof(*c->inode));
	if (!c->inode)
		exit(1);
	c->inode[c->n++] = (struct known){ .ino = bs_blob_id(blob) };
	return 0;
}

static struct bfs *mount_device(struct bdev *dev, uint32_t flags, struct base_err *err)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .cache_size = 4 * MiB, .flags = flags };
	struct bfs *fs;

	bdev_ref(dev);
	if (!bfs_mount_bdev(dev, &opts, &fs, err))
		return fs;
	bdev_close(dev);
	return NULL;
}

void contents_take(struct contents *c, const struct image *image)
{
	struct base_err err = { "" };
	struct bdev *dev = image_device(image, image->mem, IMAGE_SIZE);
	struct bfs *fs = mount_device(dev, BFS_RDONLY, &err);

	if (!fs) {
		printf("not ok corrupt/image: %s\n", err.text);
		exit(1);
	}
	bs_foreach_blob(bfs_store(fs), 0, add_inode, c);
	for (size_t i = 0; i < c->n; i++) {
		struct known *k = &c->inode[i];
		struct bfs_attr a;

		if (bfs_getattr(fs, k->ino, &a))
			continue; /* an orphan: gone at the next mount */
		k->mode = a.mode;
		k->size = a.size;
		k->digest = digest(fs, k->ino, &a);
	}
	bfs_unmount(fs);
	bdev_close(dev);
}

/* ---- what was hit ---- */

static bool is_changed(const struct scratch *s, uint32_t block, uint32_t blocks)
{
	uint64_t at = (uint64_t)block * BS_BLOCK;

	return memcmp(s->mem + at, s->image->mem + at, (size_t)blocks * BS_BLOCK) != 0;
}

static struct known *find_known(struct contents *c, uint64_t ino)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->inode[i].ino == ino)
			return &c->inode[i];
	return NULL;
}

/* A run of the file lies where the image was changed. */
static bool data_is_changed(const struct scratch *s, const struct bs_rec_disk *d)
{
	const struct bs_run_disk *r = (const struct bs_run_disk *)(d + 1);

	for (uint32_t n = d->kind == BS_KIND_RUN && d->op == BS_REC_PUT ? le32_get(d->len) / sizeof(*r) : 0; n; n--, r++) {
		uint64_t phys = r->phys[0] | (uint64_t)r->phys[1] << 8 | (uint64_t)r->phys[2] << 16;
		uint64_t count = r->count[0] | (uint64_t)r->count[1] << 8;

		if (phys + count <= IMAGE_BLOCKS && is_changed(s, (uint32_t)phys, (uint32_t)count))
			return true;
	}
	return false;
}

static bool continues(const struct scratch *s, int i)
{
	const struct structure *st = &s->map->s[i];
	const struct bs_frame_disk *f = (const void *)(s->image->mem + (uint64_t)st->block * BS_BLOCK);

	return st->kind == FRAME && le32_get(f->flags) & BS_FRAME_CONTINUES;
}

static bool sum_page_is_changed(const struct scratch *s)
{
	for (uint32_t i = 0; i < s->image->n_used; i++) {
		const le32 *magic = (const le32 *)(s->image->mem + (uint64_t)s->image->used[i] * BS_BLOCK);

		if (le32_get(*magic) == BS_MAGIC_SUM && is_changed(s, s->image->used[i], 1))
			return true;
	}
	return false;
}

/* Two segments in a row whose headers were changed: nothing tells any more where the second is, nor what its frames look like. */
static bool link_is_lost(const struct scratch *s, int i)
{
	const struct structure *st = &s->map->s[i];

	if (st->kind != SEGMENT || !is_changed(s, st->block, st->blocks))
		return false;
	while (i-- && s->map->s[i].kind != SEGMENT)
		;
	return i >= 0 && is_changed(s, s->map->s[i].block, s->map->s[i].blocks);
}

/* A record in a page that was changed, or in the log from the first change on. Segments and frames stand in the map in order. */
static void mark_hit(const struct scratch *s, struct contents *c)
{
	int log_from = s->map->n;

	for (size_t i = 0; i < c->n; i++)
		c->inode[i].hit = c->inode[i].data_hit = false;
	c->sums = le64_get(((const struct bs_sb_disk *)s->image->mem)->incompat) & BS_INCOMPAT_SUM && !sum_page_is_changed(s);
	for (int i = s->map->n - 1; i >= 0; i--) {
		const struct structure *st = &s->map->s[i];

		if (st->kind == FRAME && is_changed(s, st->block, st->blocks))
			log_from = i;
		else if (link_is_lost(s, i))
			log_from = i + 1;
	}
	/* A transaction that it goes on with is lost from its beginning on. */
	while (log_from < s->map->n && log_from && continues(s, log_from))
		for (log_from--; log_from && s->map->s[log_from].kind != FRAME;)
			log_from--;
	for (int i = 0; i < s->map->n_rec; i++) {
		const struct record *rec = &s->map->rec[i];
		const struct structure *st = &s->map->s[rec->structure];
		const struct bs_rec_disk *d = (const void *)(s->image->mem + (uint64_t)st->block * BS_BLOCK + rec->offset);
		struct known *k = find_known(c, le64_get(d->blob));
		bool hit = st->kind == FRAME ? rec->structure >= log_from : is_changed(s, st->block, st->blocks);

		if (hit && le64_get(d->blob) == BS_SUM_ID)
			c->sums = false;
		if (!k)
			continue;
		k->hit |= hit;
		k->data_hit |= data_is_changed(s, d);
	}
}

/* Data that was hit, and its checksums were not: an error, if it still is the file's, and no wrong bytes. */
static void damaged_data(struct bfs *fs, const struct known *k, struct verdict *v)
{
	struct bfs_attr a;
	uint32_t is;

	if (bfs_getattr(fs, k->ino, &a) || !S_ISREG(a.mode) || a.size != k->size)
		return;
	is = digest(fs, k->ino, &a);
	if (is != k->digest && is != UNREADABLE)
		fault(v, "data of inode %llu was hit, and wrong bytes were read", (unsigned long long)k->ino);
	v->caught += is == UNREADABLE;
}

static void compare(struct bfs *fs, const struct contents *c, struct verdict *v)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct known *k = &c->inode[i];
		struct bfs_attr a;
		int rc;

		if (k->hit || !k->mode || (k->data_hit && !c->sums))
			continue;
		if (k->data_hit) {
			damaged_data(fs, k, v);
			continue;
		}
		v->intact++;
		rc = bfs_getattr(fs, k->ino, &a);
		if (rc)
			fault(v, "inode %llu was not hit and is lost: %s", (unsigned long long)k->ino, strerror(-rc));
		else if (a.mode != k->mode || (!S_ISDIR(a.mode) && a.size != k->size))
			fault(v, "inode %llu was not hit: mode %o and size %llu became %o and %llu", (unsigned long long)k->ino, k->mode,
			      (unsigned long long)k->size, a.mode, (unsigned long long)a.size);
		else if (digest(fs, k->ino, &a) != k->digest)
			fault(v, "inode %llu was not hit, and its content changed", (unsigned long long)k->ino);
	}
}

/* ---- repairing ---- */

static void on_left(const struct bs_problem *p, void *arg)
{
	fault(arg, "left after repair: %s: %s: %s", p->pass, p->code, p->text);
}

static void on_repair(const struct bs_problem *p, void *arg)
{
	struct verdict *v = arg;

	v->problems++;
	if (corrupt_verbose)
		printf("  repair: %s: %s: %s\n", p->pass, p->code, p->text);
	if (!p->code || !p->code[0] || !p->text[0] || strchr(p->text, '\n'))
		fault(v, "repair '%s' says '%s'", p->code ? p->code : "", p->text);
}

/* What it refuses is a device that is not a store of this version, or not all of it. */
static bool may_refuse(int rc, const struct scratch *s)
{
	if (s->size < IMAGE_SIZE && rc == -EUCLEAN)
		return true;
	return rc == -ENOTSUP || rc == -EFBIG || rc == -EINVAL;
}

static int repair(struct bdev *dev, uint32_t flags, struct verdict *v)
{
	struct bfs_repair_opts opts = { .size = sizeof(opts), .flags = flags, .report = on_repair, .arg = v };
	struct bfs_repair_result result;
	struct base_err err = { "" };
	int rc;

	bdev_ref(dev);
	rc = bfs_repair(dev, &opts, &result, &err);
	if (rc && (!err.text[0] || strchr(err.text, '\n')))
		fault(v, "repair fails with %s and says '%s'", strerror(-rc), err.text);
	if (rc)
		snprintf(v->first, sizeof(v->first), "%s", err.text);
	else if (v->problems != result.repairs)
		fault(v, "repair reported %llu things and counted %llu", (unsigned long long)v->problems, (unsigned long long)result.repairs);
	return rc;
}

/* Sound now, and everything there that should be. */
static void inspect(struct bdev *dev, const struct contents *c, struct verdict *v)
{
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = on_left, .arg = v };
	struct bfs_check_result result;
	struct base_err err = { "" };
	struct bfs *fs;
	int rc;

	bdev_ref(dev);
	rc = bfs_check(dev, &opts, &result, &err);
	if (rc)
		fault(v, "after repair checking fails: %s", err.text);
	fs = mount_device(dev, BFS_NO_SERVICE, &err);
	if (!fs) {
		fault(v, "after repair mounting fails: %s", err.text);
		return;
	}
	v->mounted = true;
	if (c)
		compare(fs, c, v);
	rc = bfs_unmount(fs);
	if (rc)
		fault(v, "after repair unmounting fails: %s", strerror(-rc));
}

static void repair_cut(struct bdev *record, uint32_t flags, struct rnd *r, const struct contents *c, struct verdict *v)
{
	struct bdev_cut cut = { .event = rnd_below(r, bdev_powercut_events(record) + 1), .seed = rnd_next(r), .torn = 512 };
	struct verdict again = { 0 };
	struct bdev *dev;
	int rc = bdev_powercut_state(record, &cut, &dev);

	if (rc) {
		fault(v, "no state of a cut: %s", strerror(-rc));
		return;
	}
	rc = repair(dev, flags, &again);
	if (rc)
		fault(&again, "repair refuses: %s", again.first);
	else
		inspect(dev, c, &again);
	bdev_close(dev);
	v->cuts++;
	if (again.fault[0])
		fault(v, "power cut at event %llu of the repair, seed %llu: %.300s", (unsigned long long)cut.event,
		      (unsigned long long)cut.seed, again.fault);
}

/*
 * A device that fails in the middle of the repair: that is said, nothing is lost by it, and the repair can be begun again. (Of what cannot be
 * read repair cannot know more than that; so it is writes and flushes that fail.)
 */
static void repair_failing(struct scratch *s, uint32_t flags, struct rnd *r, const struct contents *c, struct verdict *v)
{
	static const struct bdev_fault kinds[] = {
		{ .kind = BDEV_FAULT_ERROR, .rc = -EIO },
		{ .kind = BDEV_FAULT_TIMEOUT, .done = true },
		{ .kind = BDEV_FAULT_TIMEOUT },
		{ .kind = BDEV_FAULT_SHORT, .rc = -EIO },
		{ .kind = BDEV_FAULT_ERROR, .rc = -ENOSPC },
	};
	struct bdev_fault f = kinds[rnd_below(r, ARRAY_SIZE(kinds))];
	struct verdict first = { 0 }, again = { 0 };
	struct bdev *dev;
	bool hit;
	int rc;

	f.op = f.rc != -ENOSPC && rnd_below(r, 3) == 0 ? BDEV_FLUSH : BDEV_WRITE;
	f.first = rnd_below(r, f.op == BDEV_FLUSH ? 8 : 24);
	f.count = rnd_below(r, 2) ? 1 : UINT64_MAX;
	if (bdev_fault_create(image_device(s->image, s->mem, s->size), &dev) || bdev_fault_add(dev, &f)) {
		fault(v, "no device that fails");
		return;
	}
	rc = repair(dev, flags, &first);
	hit = bdev_fault_seen(dev, f.op) > f.first;
	bdev_fault_clear(dev);
	/* Done all the same: what failed was tried again, or was bytes that the log goes on carrying. */
	if (rc && (rc = repair(dev, flags, &again)))
		fault(&first, "the next repair refuses: %s", again.first);
	else
		inspect(dev, c, &again);
	bdev_close(dev);
	v->failures += hit;
	if (first.fault[0] || again.fault[0])
		fault(v, "%s %llu fails with %s%s: %.300s", f.op == BDEV_FLUSH ? "flush" : "write", (unsigned long long)f.first,
		      strerror(f.rc ? -f.rc : ETIMEDOUT), f.count > 1 ? ", and all after it" : "", first.fault[0] ? first.fault : again.fault);
}

void repair_device(struct scratch *s, struct contents *c, bool exact, struct rnd *r, struct verdict *v)
{
	uint32_t flags = BFS_REPAIR_ALL | (exact || rnd_below(r, 2) ? BFS_REPAIR_REBUILD : 0);
	struct bdev *dev = image_device(s->image, s->mem, s->size), *record;
	bool cuts = rnd_below(r, 8) == 0;

	memset(v, 0, sizeof(*v));
	if (exact)
		mark_hit(s, c);
	if (bdev_powercut_create(dev, &record)) {
		fault(v, "no powercut device");
		bdev_close(dev);
		return;
	}
	v->mount_rc = repair(record, flags, v);
	if (!v->mount_rc)
		inspect(record, exact ? c : NULL, v);
	else if (v->mount_rc == -ENOMEM || (exact && s->size == IMAGE_SIZE) ||
		 (!may_refuse(v->mount_rc, s) && !(v->mount_rc == -EUCLEAN && !(flags & BFS_REPAIR_REBUILD))))
		fault(v, "repair refuses: %s (%s)", v->first, strerror(-v->mount_rc));
	for (unsigned i = 0; i < CUTS && cuts && !v->mount_rc && !v->fault[0]; i++)
		repair_cut(record, flags, r, exact ? c : NULL, v);
	if (cuts && !v->mount_rc && !v->fault[0])
		repair_failing(s, flags, r, exact ? c : NULL, v);
	bdev_close(record);
}
