/* SPDX-License-Identifier: BSD-2-Clause */
/* Level 2: names and files of BlobFS, as programs use them, with fsync now and then, and a process that dies. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/powercut/device.h"
#include "test/powercut/files_load.h"

void files_must(struct load *l, const char *what, int rc)
{
	if (rc)
		call_failed(l->run, what, rc);
}

uint64_t files_now_lsn(struct load *l)
{
	return bs_lsn(bfs_store(l->fs));
}

/* LSN of the change of names just made in this directory: with a service others change blobs meanwhile, but no directories. */
uint64_t files_name_lsn(struct load *l, uint64_t dir)
{
	struct bs_blob_info info;
	struct bs_blob *blob;

	if (!l->run->service)
		return files_now_lsn(l);
	blob = bs_blob_get(bfs_store(l->fs), dir);
	bs_blob_get_info(blob, &info);
	bs_blob_put(blob);
	return info.lsn;
}

bool files_no_space(struct load *l, int64_t rc)
{
	l->run->coverage.full += rc == -ENOSPC;
	return rc == -ENOSPC;
}

static void let_go(struct load *l)
{
	if (l->held)
		bfs_close(l->held);
	l->held = NULL;
}

uint64_t files_mark(struct load *l)
{
	return bdev_powercut_mark(l->run->dev);
}

static void mount_fs(struct load *l)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = l->run->service ? 0 : BFS_NO_SERVICE,
				       .cache_size = 1 * MiB, .dirty_limit = l->m.dirty_limit, .writeback_ms = 20,
				       .commit_ms = 20, .discard_min = BS_BLOCK };
	struct base_err err = { "" };
	int rc;

	opts.flags |= l->run->discard ? BFS_DISCARD : 0;
	bdev_ref(l->run->dev);
	rc = bfs_mount_bdev(l->run->dev, &opts, &l->fs, &err);
	if (rc) {
		l->fs = NULL;
		bdev_close(l->run->dev);
		call_failed(l->run, base_err_text(&err, rc), rc);
	}
}

/* A file that leaves so little space that what is freed is used again soon. */
static void fill(struct load *l)
{
	struct bfs_file *file;
	struct bs_stat st;
	uint64_t keep = 64 + rng_below(&l->run->rng, 300);
	int rc = -ENOSPC;

	files_must(l, "filler", bfs_open_path(l->fs, NULL, "/filler", O_RDWR | O_CREAT, 0644, BS_STREAM_LONG, &file));
	bs_get_stat(bfs_store(l->fs), &st);
	for (; rc == -ENOSPC && keep < st.avail_blocks; keep += 64)
		rc = bfs_fallocate(file, 0, 0, (st.avail_blocks - keep) * BS_BLOCK);
	files_must(l, "fill", rc);
	bfs_close(file);
	l->m.filler = true;
}

static void *load_begin(struct run *run)
{
	struct bfs_format_opts opts = { .size = sizeof(opts), .cluster_size = 4096u << rng_below(&run->rng, 4),
					.store_size = device_first_size(run), .store_flags = run->seed % 3 ? 0 : BS_FORMAT_SUMS };
	struct load *l = calloc(1, sizeof(*l));
	struct base_err err = { "" };
	struct bfs_attr a;
	int rc;

	if (!l)
		broken(run, "out of memory");
	l->run = run;
	l->clock = 1000000000ull;
	rc = bfs_format(run->dev, &opts, &err);
	if (rc)
		broken(run, "bfs_format: %s", base_err_text(&err, rc));
	l->m.dirty_limit = rng_chance(&run->rng, 50) ? 256 * KiB : 64 * KiB;
	mount_fs(l);
	fm_set(&l->m.dirs[0], 0, BFS_ROOT_INO);
	files_must(l, "mkdir", bfs_mkdir(l->fs, NULL, BFS_ROOT_INO, "d1", 0755, 0, &a));
	fm_set(&l->m.dirs[1], 0, a.ino);
	files_must(l, "mkdir", bfs_mkdir(l->fs, NULL, BFS_ROOT_INO, "d2", 0755, 0, &a));
	fm_set(&l->m.dirs[2], 0, a.ino);
	if (rng_chance(&run->rng, 50))
		fill(l);
	files_must(l, "sync", bfs_sync(l->fs));
	fm_ack(&l->m, files_now_lsn(l), files_mark(l));
	return l;
}

static struct place any_place(struct load *l)
{
	struct place p = { .d = (unsigned)rng_below(&l->run->rng, FM_SNAP), .n = (unsigned)rng_below(&l->run->rng, FM_NAMES) };

	p.dir = fm_dir(&l->m, p.d);
	snprintf(p.name, sizeof(p.name), "n%u", p.n);
	p.index = fm_at(&l->m.names[p.d][p.n], UINT64_MAX);
	p.node = p.index ? l->m.nodes[p.index - 1] : NULL;
	return p;
}

bool files_find(struct load *l, struct place *p, bool taken, int kind)
{
	for (int tries = 0; tries < 20; tries++) {
		*p = any_place(l);
		if (taken ? p->node && (kind < 0 || (int)p->node->kind == kind) : !p->node)
			return true;
	}
	return false;
}

void files_set_name(struct load *l, const struct place *p, uint64_t index)
{
	fm_set(&l->m.names[p->d][p->n], files_name_lsn(l, p->dir), index);
}

static unsigned names_of(struct load *l, uint64_t index)
{
	unsigned names = 0;

	for (unsigned d = 0; d < FM_SNAP; d++)
		for (unsigned n = 0; n < FM_NAMES; n++)
			names += fm_at(&l->m.names[d][n], UINT64_MAX) == index;
	return names;
}

void files_lost_name(struct load *l, uint64_t index)
{
	if (index && !names_of(l, index))
		l->m.nodes[index - 1]->gone = true;
}

/* ---- names ---- */

static void create(struct load *l)
{
	static const enum node_kind kinds[] = { N_FILE, N_FILE, N_FILE, N_FILE, N_DIR, N_SYMLINK };
	enum node_kind kind = kinds[rng_below(&l->run->rng, ARRAY_SIZE(kinds))];
	uint32_t mode = 0600 | (uint32_t)rng_below(&l->run->rng, 0100);
	uint64_t hint = ++l->m.counter;
	struct bfs_attr a;
	struct node *f;
	struct place p;
	char target[256];
	int rc;

	if (!files_find(l, &p, false, -1))
		return;
	fm_target(hint, target, sizeof(target));
	if (kind == N_FILE)
		rc = bfs_mknod(l->fs, NULL, p.dir, p.name, S_IFREG | mode, 0, 0, &a);
	else if (kind == N_DIR)
		rc = bfs_mkdir(l->fs, NULL, p.dir, p.name, mode, 0, &a);
	else
		rc = bfs_symlink(l->fs, NULL, p.dir, p.name, target, 0, &a);
	if (files_no_space(l, rc))
		return;
	files_must(l, "create", rc);
	trace(l->run, "create %u/%s: inode %" PRIu64 ", kind %d", p.d, p.name, a.ino, kind);
	f = fm_node(&l->m, a.ino, kind, hint);
	fm_set(&f->mode, files_name_lsn(l, p.dir), mode);
	files_set_name(l, &p, l->m.n_nodes);
}

static void link_name(struct load *l)
{
	struct place from, to;
	int rc;

	if (!files_find(l, &from, true, N_FILE) || !files_find(l, &to, false, -1))
		return;
	rc = bfs_link(l->fs, NULL, from.node->ino, to.dir, to.name, 0, NULL);
	if (files_no_space(l, rc))
		return;
	files_must(l, "link", rc);
	trace(l->run, "link %u/%s to inode %" PRIu64, to.d, to.name, from.node->ino);
	files_set_name(l, &to, from.index);
}

static void remove_name(struct load *l)
{
	struct place p;

	if (!files_find(l, &p, true, -1))
		return;
	if (p.node->kind == N_FILE && !p.node->sealed && names_of(l, p.index) == 1 && rng_chance(&l->run->rng, 50)) {
		let_go(l);
		files_must(l, "open", bfs_open(l->fs, NULL, p.node->ino, O_RDWR, BS_STREAM_UNKNOWN, &l->held));
		l->held_node = p.node;
		l->run->coverage.orphans++;
	}
	if (p.node->kind == N_DIR)
		files_must(l, "rmdir", bfs_rmdir(l->fs, NULL, p.dir, p.name));
	else
		files_must(l, "unlink", bfs_unlink(l->fs, NULL, p.dir, p.name));
	trace(l->run, "remove %u/%s", p.d, p.name);
	files_set_name(l, &p, 0);
	files_lost_name(l, p.index);
}

static void rename_name(struct load *l)
{
	struct place from, to;
	bool exchange;
	int rc;

	if (!files_find(l, &from, true, -1))
		return;
	to = any_place(l);
	if (from.d == to.d && from.n == to.n)
		return;
	if (to.node && (to.node->kind == N_DIR) != (from.node->kind == N_DIR))
		return;
	exchange = to.node && rng_chance(&l->run->rng, 30);
	rc = bfs_rename(l->fs, NULL, from.dir, from.name, to.dir, to.name, exchange ? 2 : 0);
	if (files_no_space(l, rc))
		return;
	files_must(l, "rename", rc);
	trace(l->run, "%s %u/%s %u/%s", exchange ? "exchange" : "rename", from.d, from.name, to.d, to.name);
	if (to.index == from.index)
		return; /* two names of one inode: rename(2) does nothing */
	files_set_name(l, &to, from.index);
	files_set_name(l, &from, exchange ? to.index : 0);
	files_lost_name(l, to.index);
}

static void attributes(struct load *l)
{
	uint64_t value = rng_chance(&l->run->rng, 30) ? 0 : ++l->m.counter;
	struct bfs_attr a = { .mode = 0600 | (uint32_t)rng_below(&l->run->rng, 0100) };
	struct place p;

	/* With a service files change of themselves. */
	if (!files_find(l, &p, true, l->run->service ? N_DIR : (int)rng_below(&l->run->rng, 2)))
		return;
	trace(l->run, "attributes of inode %" PRIu64, p.node->ino);
	if (rng_chance(&l->run->rng, 40)) {
		files_must(l, "chmod", bfs_setattr(l->fs, NULL, p.node->ino, &a, BFS_SET_MODE, NULL));
		fm_set(&p.node->mode, files_name_lsn(l, p.node->ino), a.mode);
		return;
	}
	if (value) {
		int rc = bfs_setxattr(l->fs, NULL, p.node->ino, "user.k", &value, sizeof(value), 0);

		if (files_no_space(l, rc))
			return;
		files_must(l, "setxattr", rc);
	} else {
		int rc = bfs_removexattr(l->fs, NULL, p.node->ino, "user.k");

		if (rc != -ENODATA)
			files_must(l, "removexattr", rc);
	}
	fm_set(&p.node->xattr, files_name_lsn(l, p.node->ino), value);
}

/* ---- data ---- */

static void write_file(struct load *l)
{
	static uint8_t buf[FM_UNIT * FM_UNITS] __attribute__((aligned(4096)));
	struct bfs_file *file;
	struct place p;
	uint64_t first, n, counter = ++l->m.counter, submitted = files_mark(l), size;
	int64_t done;
	bool direct = rng_chance(&l->run->rng, 15), append = !direct && rng_chance(&l->run->rng, 35);

	if (!files_find(l, &p, true, N_FILE) || p.node->sealed)
		return;
	size = fm_now_size(p.node);
	n = 1 + rng_below(&l->run->rng, rng_chance(&l->run->rng, 70) ? 80 : 500);
	first = append ? size / FM_UNIT : rng_below(&l->run->rng, MIN(size / FM_UNIT + 100, FM_UNITS - 1));
	if (direct)
		first &= ~63ull, n = (n + 63) & ~63ull;
	if (first >= FM_UNITS || (append && size % FM_UNIT))
		return;
	n = MIN(n, FM_UNITS - first);
	for (uint64_t u = 0; u < n; u++)
		fm_fill(buf + u * FM_UNIT, p.node->ino, first + u, counter);
	trace(l->run, "%s inode %" PRIu64 ": units %" PRIu64 " + %" PRIu64 ", version %" PRIu64, direct ? "direct" : append ? "append" : "write",
	      p.node->ino, first, n, counter);
	files_must(l, "open", bfs_open(l->fs, NULL, p.node->ino, O_WRONLY | (direct ? O_DIRECT : 0), BS_STREAM_UNKNOWN, &file));
	done = append ? bfs_append(file, buf, n * FM_UNIT) : bfs_pwrite(file, buf, n * FM_UNIT, first * FM_UNIT);
	bfs_close(file);
	l->run->coverage.direct += direct;
	if (files_no_space(l, done))
		return;
	/* What failed may be there in part. */
	if (done > 0)
		n = (uint64_t)done / FM_UNIT;
	fm_write(&l->m, p.node, first, n, counter, submitted);
	if ((first + n) * FM_UNIT > size)
		fm_size(&l->m, p.node, (first + n) * FM_UNIT, submitted);
	if (done <= 0)
		call_failed(l->run, "write", (int)done);
}

/* To one that has no name any more; a cut may bring its name back, and what went over the old blocks is there then. */
static void write_held(struct load *l)
{
	static uint8_t buf[3 * 4096];
	uint64_t first = rng_below(&l->run->rng, 16) * 64, n = sizeof(buf) / FM_UNIT, counter = ++l->m.counter, submitted = files_mark(l);
	struct node *f = l->held_node;
	int64_t done;

	if (!l->held)
		return;
	for (uint64_t u = 0; u < n; u++)
		fm_fill(buf + u * FM_UNIT, f->ino, first + u, counter);
	trace(l->run, "write unlinked inode %" PRIu64 ": units %" PRIu64 " + %" PRIu64 ", version %" PRIu64, f->ino, first, n, counter);
	done = bfs_pwrite(l->held, buf, sizeof(buf), first * FM_UNIT);
	if (done > 0) {
		n = (uint64_t)done / FM_UNIT;
		fm_write(&l->m, f, first, n, counter, submitted);
		if ((first + n) * FM_UNIT > fm_now_size(f))
			fm_size(&l->m, f, (first + n) * FM_UNIT, submitted);
	}
	if (rng_chance(&l->run->rng, 30))
		let_go(l);
	if (!files_no_space(l, done) && done < 0)
		call_failed(l->run, "write", (int)done);
}

static void truncate_file(struct load *l)
{
	uint64_t submitted = files_mark(l), units, size;
	struct place p;
	int rc;

	if (!files_find(l, &p, true, N_FILE) || p.node->sealed)
		return;
	size = fm_now_size(p.node);
	units = rng_chance(&l->run->rng, 60) ? rng_below(&l->run->rng, size / FM_UNIT + 1) : rng_below(&l->run->rng, FM_UNITS);
	trace(l->run, "truncate inode %" PRIu64 ": %" PRIu64 " to %" PRIu64, p.node->ino, size, units * FM_UNIT);
	rc = bfs_truncate(l->fs, NULL, p.node->ino, units * FM_UNIT);
	if (files_no_space(l, rc))
		return;
	if (units * FM_UNIT < size)
		fm_write(&l->m, p.node, units, FM_UNITS, 0, submitted);
	fm_size(&l->m, p.node, units * FM_UNIT, submitted);
	files_must(l, "truncate", rc);
}

static void punch_file(struct load *l)
{
	uint64_t first = rng_below(&l->run->rng, FM_UNITS - 1), n = 1 + rng_below(&l->run->rng, FM_UNITS - first), submitted = files_mark(l);
	int mode = rng_chance(&l->run->rng, 50) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE :
						  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	struct bfs_file *file;
	struct place p;
	int rc;

	if (!files_find(l, &p, true, N_FILE) || p.node->sealed)
		return;
	if (rng_chance(&l->run->rng, 25))
		mode = FALLOC_FL_KEEP_SIZE;
	trace(l->run, "fallocate inode %" PRIu64 ": mode %d, units %" PRIu64 " + %" PRIu64, p.node->ino, mode, first, n);
	files_must(l, "open", bfs_open(l->fs, NULL, p.node->ino, O_WRONLY, BS_STREAM_UNKNOWN, &file));
	rc = bfs_fallocate(file, mode, first * FM_UNIT, n * FM_UNIT);
	bfs_close(file);
	if (files_no_space(l, rc)) {
		/* Part of it may have been zeroed. */
		fm_reread(&l->m, l->run, l->fs, p.node, submitted);
		return;
	}
	if (mode != FALLOC_FL_KEEP_SIZE)
		fm_write(&l->m, p.node, first, n, 0, submitted);
	files_must(l, "fallocate", rc);
}

/* ---- durability ---- */

static void sync_file(struct load *l)
{
	uint64_t lsn = files_now_lsn(l), seq = l->m.seq;
	struct bfs_file *file;
	struct place p;
	int rc;

	if (!files_find(l, &p, true, N_FILE))
		return;
	trace(l->run, "fsync inode %" PRIu64, p.node->ino);
	files_must(l, "open", bfs_open(l->fs, NULL, p.node->ino, p.node->sealed ? O_RDONLY : O_WRONLY, BS_STREAM_UNKNOWN, &file));
	rc = bfs_fsync(file, rng_chance(&l->run->rng, 50));
	bfs_close(file);
	files_must(l, "fsync", rc);
	fm_synced(&l->m, p.node, seq, files_mark(l));
	fm_ack(&l->m, lsn, files_mark(l));
}

/* As a database writes its log: short appends, or changes in place, each synced. */
static void log_file(struct load *l)
{
	uint8_t buf[12 * FM_UNIT];
	struct bfs_file *file;
	struct place p;
	bool append = rng_chance(&l->run->rng, 70);
	int rc = 0;

	if (!files_find(l, &p, true, N_FILE) || p.node->sealed)
		return;
	files_must(l, "open", bfs_open(l->fs, NULL, p.node->ino, O_WRONLY, BS_STREAM_SHORT, &file));
	for (uint64_t i = 0, n = 1 + rng_below(&l->run->rng, 6); i < n; i++) {
		uint64_t counter = ++l->m.counter, submitted = files_mark(l), size = fm_now_size(p.node), lsn;
		uint64_t units = 1 + rng_below(&l->run->rng, 12), first = size / FM_UNIT;
		int64_t done;

		if (!append && first)
			first = rng_below(&l->run->rng, first);
		if (first + units > FM_UNITS || size % FM_UNIT)
			break;
		for (uint64_t u = 0; u < units; u++)
			fm_fill(buf + u * FM_UNIT, p.node->ino, first + u, counter);
		trace(l->run, "log inode %" PRIu64 ": units %" PRIu64 " + %" PRIu64 ", version %" PRIu64, p.node->ino, first, units, counter);
		done = bfs_pwrite(file, buf, units * FM_UNIT, first * FM_UNIT);
		if (done > 0) {
			fm_write(&l->m, p.node, first, (uint64_t)done / FM_UNIT, counter, submitted);
			if (first * FM_UNIT + (uint64_t)done > size)
				fm_size(&l->m, p.node, first * FM_UNIT + (uint64_t)done, submitted);
		}
		lsn = files_now_lsn(l);
		rc = done < 0 ? (int)done : bfs_fsync(file, rng_chance(&l->run->rng, 80));
		if (rc)
			break;
		fm_synced(&l->m, p.node, l->m.seq, files_mark(l));
		fm_ack(&l->m, lsn, files_mark(l));
	}
	bfs_close(file);
	if (!files_no_space(l, rc))
		files_must(l, "write and fsync", rc);
}

static void sync_all(struct load *l)
{
	uint64_t lsn = files_now_lsn(l), seq = l->m.seq;
	bool dir = rng_chance(&l->run->rng, 50);

	trace(l->run, dir ? "fsync /" : "sync");
	files_must(l, "sync", dir ? bfs_fsync_ino(l->fs, BFS_ROOT_INO, false) : bfs_sync(l->fs));
	fm_ack(&l->m, lsn, files_mark(l));
	for (size_t i = 0; i < l->m.n_nodes && !dir; i++)
		if (l->m.nodes[i]->kind == N_FILE && !l->m.nodes[i]->gone)
			fm_synced(&l->m, l->m.nodes[i], seq, files_mark(l));
}

static void background(struct load *l)
{
	if (l->run->service) {
		usleep(25000);
		return;
	}
	l->clock += 700000000ull * (1 + rng_below(&l->run->rng, 3));
	base_set_fake_clock(l->clock);
	trace(l->run, "background");
	files_must(l, "service", bfs_service_step(l->fs));
	if (rng_chance(&l->run->rng, 20))
		files_must(l, "checkpoint", bs_checkpoint(bfs_store(l->fs)));
}

/* What the store did since it was opened. */
static void note_stat(struct load *l)
{
	struct coverage *v = &l->run->coverage;
	struct bs_stat st;

	bs_get_stat(bfs_store(l->fs), &st);
	v->checkpoints += st.checkpoints;
	v->segments += st.log_segments;
	v->commits += st.commits;
	v->carried += st.carries;
}

static void remount(struct load *l)
{
	int rc = 0;

	trace(l->run, "remount");
	let_go(l);
	note_stat(l);
	l->run->coverage.reopened++;
	if (rng_chance(&l->run->rng, 70))
		bfs_abandon(l->fs);
	else
		rc = bfs_unmount(l->fs);
	l->fs = NULL;
	files_must(l, "unmount", rc);
	mount_fs(l);
	/* The mount may have cleaned up, which is not durable yet. */
	fm_adopt(&l->m, l->run, l->fs, bs_durable_lsn(bfs_store(l->fs)));
}

static void load_step(void *w)
{
	static const struct { unsigned weight; void (*fn)(struct load *l); } ops[] = {
		{ 11, create }, { 4, link_name }, { 6, remove_name }, { 9, rename_name }, { 5, attributes },
		{ 18, write_file }, { 2, write_held }, { 7, truncate_file }, { 5, punch_file }, { 9, sync_file }, { 9, log_file }, { 7, files_share },
		{ 2, sync_all }, { 5, background }, { 1, remount },
	};
	struct load *l = w;
	uint64_t dice = rng_below(&l->run->rng, 100);

	if (rng_below(&l->run->rng, 1000) < 15) {
		device_step(l->run, bfs_store(l->fs));
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		if (dice < ops[i].weight) {
			ops[i].fn(l);
			return;
		}
		dice -= ops[i].weight;
	}
}

static void load_end(void *w)
{
	struct load *l = w;

	if (!l->fs)
		return;
	let_go(l);
	note_stat(l);
	bfs_abandon(l->fs);
	l->fs = NULL;
}

/* ---- verifying ---- */

static void on_problem(const struct bs_problem *p, void *arg)
{
	finding(arg, "check: %s: %s: %s", p->pass, p->code, p->text);
}

bool files_are_clean(struct run *run, struct bdev *dev)
{
	struct bfs_check_opts opts = { .size = sizeof(opts), .report = on_problem, .arg = run };
	struct bfs_check_result result = { 0 };
	struct base_err err = { "" };
	int rc = bfs_check(dev, &opts, &result, &err);

	if (rc)
		return finding(run, "check: %s", base_err_text(&err, rc));
	return result.problems == 0 || finding(run, "check: %" PRIu64 " problems", result.problems);
}

static bool mount_and_verify(struct load *l, struct run *run, uint64_t event, struct bdev *dev, uint32_t flags)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = flags, .cache_size = 512 * KiB };
	struct base_err err = { "" };
	struct bs_stat st;
	struct bfs *fs;
	uint64_t lsn;
	bool ok;
	int rc = bfs_mount_bdev(dev, &opts, &fs, &err);

	if (rc) {
		bdev_close(dev);
		return finding(run, "mount: %s", base_err_text(&err, rc));
	}
	bs_get_stat(bfs_store(fs), &st);
	run->coverage.replayed += st.carried_blocks != 0;
	lsn = bs_lsn(bfs_store(fs));
	ok = fm_verify(&l->m, run, fs, lsn, event) && device_verify(run, bfs_store(fs), event);
	rc = bfs_unmount(fs);
	return ok && (!rc || finding(run, "unmount: %s", strerror(-rc)));
}

/* Mounted for writing, the store goes on: a file is written and synced, and is there after the next cut. */
static bool go_on(struct load *l, struct run *run, uint64_t event, struct bdev *medium)
{
	struct bfs_mount_opts opts = { .size = sizeof(opts), .flags = BFS_NO_SERVICE, .cache_size = 512 * KiB };
	struct bdev_cut cut = { .seed = run->seed ^ event, .torn = 512 };
	struct base_err err = { "" };
	struct bdev *dev, *state;
	struct bfs_file *file;
	struct bfs *fs;
	uint64_t acked, events;
	struct rng rng;
	char data[5000], back[5000];
	int64_t n;
	int rc;

	memset(data, 'x', sizeof(data));
	if (bdev_powercut_create(medium, &dev))
		broken(run, "cannot make the device");
	bdev_ref(dev);
	rc = bfs_mount_bdev(dev, &opts, &fs, &err);
	if (rc)
		return finding(run, "mount for writing: %s", base_err_text(&err, rc));
	if (l->m.filler && bfs_unlink(fs, NULL, BFS_ROOT_INO, "filler"))
		return finding(run, "a file cannot be removed on a full store");
	files_must(l, "open", bfs_open_path(fs, NULL, "/after", O_RDWR | O_CREAT, 0644, BS_STREAM_UNKNOWN, &file));
	if (bfs_pwrite(file, data, sizeof(data), 0) != sizeof(data) || bfs_fsync(file, false))
		return finding(run, "cannot write and sync after recovery");
	acked = bdev_powercut_mark(dev);
	bfs_close(file);
	bfs_abandon(fs);
	rng_seed(&rng, cut.seed);
	events = bdev_powercut_events(dev);
	cut.event = acked + rng_below(&rng, events - acked + 1);
	rc = bdev_powercut_state(dev, &cut, &state);
	if (rc)
		broken(run, "cannot rebuild the medium: %s", strerror(-rc));
	opts.flags = BFS_RDONLY;
	rc = bfs_mount_bdev(state, &opts, &fs, &err);
	if (rc)
		return finding(run, "second mount: %s", base_err_text(&err, rc));
	rc = bfs_open_path(fs, NULL, "/after", O_RDONLY, 0, BS_STREAM_UNKNOWN, &file);
	if (rc)
		return finding(run, "a file synced after recovery is lost");
	n = bfs_pread(file, back, sizeof(back), 0);
	bfs_close(file);
	bfs_unmount(fs);
	bdev_close(dev);
	return (n == sizeof(back) && memcmp(back, data, sizeof(back)) == 0) ||
	       finding(run, "a file synced after recovery has lost its bytes");
}

static bool load_verify(void *w, struct run *run, uint64_t event, struct bdev *(*open_state)(void *arg), void *arg)
{
	struct load *l = w;

	if (!files_are_clean(run, open_state(arg)))
		return false;
	if (!mount_and_verify(l, run, event, open_state(arg), BFS_RDONLY))
		return false;
	return event % 4 || go_on(l, run, event, open_state(arg));
}

static void load_free(void *w)
{
	struct load *l = w;

	fm_free(&l->m);
	free(l);
}

const struct workload files_workload = {
	.name = "files", .begin = load_begin, .step = load_step, .end = load_end, .verify = load_verify, .free = load_free,
};
