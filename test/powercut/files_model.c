/* SPDX-License-Identifier: BSD-2-Clause */
#include "test/powercut/files_model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct tag {
	uint64_t ino, unit, counter, check;
};

static uint64_t tag_check(const struct tag *t)
{
	uint64_t h = (t->ino * 0x9e3779b97f4a7c15ull) ^ (t->unit * 0xc2b2ae3d27d4eb4full) ^ (t->counter * 0x165667b19e3779f9ull);

	return (h ^ h >> 31) * 0xbf58476d1ce4e5b9ull | 1;
}

void fm_fill(void *unit, uint64_t ino, uint64_t number, uint64_t counter)
{
	struct tag *t = unit;

	for (unsigned i = 0; i < FM_UNIT / sizeof(*t); i++) {
		t[i] = (struct tag){ ino, number, counter, 0 };
		t[i].check = tag_check(&t[i]);
	}
}

void fm_target(uint64_t ino_hint, char *out, size_t len)
{
	snprintf(out, len, "target-of-%" PRIu64 "-%0*d", ino_hint, (int)(ino_hint % 90), 7);
}

void fm_set(struct history *h, uint64_t lsn, uint64_t value)
{
	GROW(h->c, h->n, h->cap);
	h->c[h->n++] = (struct value_change){ lsn, value };
}

uint64_t fm_at(const struct history *h, uint64_t lsn)
{
	uint64_t value = 0;

	for (size_t i = 0; i < h->n && h->c[i].lsn <= lsn; i++)
		value = h->c[i].value;
	return value;
}

struct node *fm_node(struct files_model *m, uint64_t ino, enum node_kind kind, uint64_t target)
{
	struct node *f = calloc(1, sizeof(*f));

	if (!f || (kind == N_FILE && !(f->units = calloc(FM_UNITS, sizeof(*f->units)))))
		broken(NULL, "out of memory");
	f->ino = ino;
	f->kind = kind;
	f->target = target;
	fm_size(m, f, 0, 0);
	GROW(m->nodes, m->n_nodes, m->nodes_cap);
	m->nodes[m->n_nodes++] = f;
	return f;
}

static bool same_tag(const struct unit_tag *a, const struct unit_tag *b)
{
	return a->counter == b->counter && (!a->counter || (a->ino == b->ino && a->unit == b->unit));
}

static struct unit_tag tag_now(const struct units *h)
{
	return h->n ? h->c[h->n - 1].tag : (struct unit_tag){ 0, 0, 0 };
}

static void set_unit(struct files_model *m, struct units *h, struct unit_tag tag, uint64_t submitted)
{
	if (!tag.counter && !tag_now(h).counter)
		return; /* zeroes stay zeroes */
	GROW(h->c, h->n, h->cap);
	h->c[h->n++] = (struct unit_change){ tag, m->seq, submitted };
}

void fm_write(struct files_model *m, struct node *f, uint64_t first, uint64_t n, uint64_t counter, uint64_t submitted)
{
	++m->seq;
	for (uint64_t u = first; u < first + n && u < FM_UNITS; u++)
		set_unit(m, &f->units[u], (struct unit_tag){ f->ino, u, counter }, submitted);
}

void fm_share(struct files_model *m, const struct node *from, uint64_t from_first, struct node *to, uint64_t to_first, uint64_t n,
	      uint64_t submitted)
{
	++m->seq;
	for (uint64_t u = 0; u < n; u++)
		set_unit(m, &to->units[to_first + u], tag_now(&from->units[from_first + u]), submitted);
}

struct node *fm_copy(struct files_model *m, const struct node *from, uint64_t ino, uint64_t lsn, bool sealed)
{
	struct node *to = fm_node(m, ino, from->kind, from->target);

	to->sealed = sealed && from->kind == N_FILE;
	fm_set(&to->mode, lsn, fm_at(&from->mode, UINT64_MAX));
	fm_set(&to->xattr, lsn, fm_at(&from->xattr, UINT64_MAX));
	if (from->kind == N_FILE) {
		fm_share(m, from, 0, to, 0, FM_UNITS, 0);
		fm_size(m, to, fm_now_size(from), 0);
		fm_synced(m, to, m->seq, 0);
	}
	return to;
}

void fm_size(struct files_model *m, struct node *f, uint64_t size, uint64_t submitted)
{
	GROW(f->sizes, f->n_sizes, f->sizes_cap);
	f->sizes[f->n_sizes++] = (struct size_change){ size, ++m->seq, submitted };
}

void fm_synced(struct files_model *m, struct node *f, uint64_t seq, uint64_t event)
{
	(void)m;
	GROW(f->syncs, f->n_syncs, f->syncs_cap);
	f->syncs[f->n_syncs++] = (struct sync_mark){ event, seq };
}

void fm_ack(struct files_model *m, uint64_t lsn, uint64_t event)
{
	GROW(m->acks, m->n_acks, m->acks_cap);
	m->acks[m->n_acks++] = (struct ack){ event, lsn };
}

static void free_node(struct node *f)
{
	for (unsigned u = 0; f->units && u < FM_UNITS; u++)
		free(f->units[u].c);
	free(f->units);
	free(f->xattr.c);
	free(f->mode.c);
	free(f->sizes);
	free(f->syncs);
	free(f);
}

void fm_free(struct files_model *m)
{
	for (size_t i = 0; i < m->n_nodes; i++)
		free_node(m->nodes[i]);
	for (unsigned d = 0; d < FM_DIRS; d++) {
		free(m->dirs[d].c);
		for (unsigned n = 0; n < FM_NAMES; n++)
			free(m->names[d][n].c);
	}
	free(m->nodes);
	free(m->acks);
	memset(m, 0, sizeof(*m));
}

/* ---- verifying ---- */

/* Everything of this file up to that call must be there. */
static uint64_t durable_seq(const struct node *f, uint64_t event)
{
	uint64_t seq = 0;

	for (size_t i = 0; i < f->n_syncs; i++)
		if (f->syncs[i].event <= event)
			seq = MAX(seq, f->syncs[i].seq);
	return seq;
}

static bool unit_allowed(const struct units *h, uint64_t durable, uint64_t event, const struct unit_tag *tag)
{
	bool allowed = tag->counter == 0; /* before the first change */

	for (size_t i = 0; i < h->n; i++) {
		if (h->c[i].seq <= durable)
			allowed = false;
		else if (h->c[i].submitted > event)
			break;
		allowed |= same_tag(&h->c[i].tag, tag);
	}
	return allowed;
}

static bool verify_size(struct run *run, const struct node *f, uint64_t size, uint64_t event)
{
	uint64_t durable = durable_seq(f, event), lo = UINT64_MAX, hi = 0;

	for (size_t i = 0; i < f->n_sizes; i++) {
		if (f->sizes[i].seq > durable && f->sizes[i].submitted > event)
			break;
		if (f->sizes[i].seq <= durable)
			lo = UINT64_MAX, hi = 0;
		lo = MIN(lo, f->sizes[i].size);
		hi = MAX(hi, f->sizes[i].size);
	}
	if (size >= lo && size <= hi)
		return true;
	return finding(run, "inode %" PRIu64 " has size %" PRIu64 ", and must have %" PRIu64 " to %" PRIu64, f->ino, size, lo, hi);
}

static bool verify_unit(struct run *run, const struct node *f, uint64_t u, const void *data, uint64_t event)
{
	static const uint8_t zeroes[FM_UNIT];
	const struct tag *t = data;
	struct unit_tag tag = { 0, 0, 0 };

	if (memcmp(data, zeroes, FM_UNIT) != 0) {
		if (memcmp(t, t + 1, sizeof(*t)) != 0)
			return finding(run, "inode %" PRIu64 " unit %" PRIu64 " is torn", f->ino, u);
		tag = (struct unit_tag){ t->ino, t->unit, t->counter };
		if (t->check != tag_check(t))
			return finding(run, "inode %" PRIu64 " unit %" PRIu64 " holds foreign bytes", f->ino, u);
	}
	if (unit_allowed(&f->units[u], durable_seq(f, event), event, &tag))
		return true;
	return finding(run, "inode %" PRIu64 " unit %" PRIu64 " (byte %" PRIu64 ") holds inode %" PRIu64 " unit %" PRIu64 " version %" PRIu64
		       ", which it must not", f->ino, u, u * FM_UNIT, tag.ino, tag.unit, tag.counter);
}

static bool read_file(struct run *run, struct bfs *fs, const struct node *f, uint8_t *buf, uint64_t *size)
{
	struct bfs_file *file;
	int64_t n;
	int rc = bfs_open(fs, NULL, f->ino, O_RDONLY, BS_STREAM_UNKNOWN, &file);

	if (rc)
		return finding(run, "inode %" PRIu64 " cannot be opened: %s", f->ino, strerror(-rc));
	*size = bfs_file_size(file);
	n = *size > FM_UNITS * FM_UNIT ? -EFBIG : bfs_pread(file, buf, *size, 0);
	bfs_close(file);
	if (n != (int64_t)*size)
		return finding(run, "inode %" PRIu64 " cannot be read: %" PRId64 " of %" PRIu64 " bytes", f->ino, n, *size);
	return true;
}

static bool verify_data(struct run *run, struct bfs *fs, const struct node *f, uint64_t event)
{
	static uint8_t buf[FM_UNITS * FM_UNIT];
	uint64_t size;

	if (!read_file(run, fs, f, buf, &size) || !verify_size(run, f, size, event))
		return false;
	for (uint64_t u = 0; (u + 1) * FM_UNIT <= size; u++)
		if (!verify_unit(run, f, u, buf + u * FM_UNIT, event))
			return false;
	return true;
}

static bool verify_node(struct run *run, struct bfs *fs, const struct node *f, uint64_t lsn, uint64_t event)
{
	static const uint32_t type[] = { S_IFREG, S_IFDIR, S_IFLNK };
	char want[256], is[256];
	struct bfs_attr a;
	uint64_t value = fm_at(&f->xattr, lsn), got = 0;
	int64_t n;
	int rc = bfs_getattr(fs, f->ino, &a);

	if (rc)
		return finding(run, "inode %" PRIu64 " is lost", f->ino);
	if ((a.mode & S_IFMT) != type[f->kind] || (f->kind != N_SYMLINK && (a.mode & 07777) != fm_at(&f->mode, lsn)))
		return finding(run, "inode %" PRIu64 " has mode %o", f->ino, a.mode);
	if (f->kind == N_SYMLINK) {
		fm_target(f->target, want, sizeof(want));
		rc = bfs_readlink(fs, f->ino, is, sizeof(is));
		if (rc != (int)strlen(want) || memcmp(is, want, (size_t)rc) != 0)
			return finding(run, "symlink %" PRIu64 " points elsewhere", f->ino);
		return true;
	}
	n = bfs_getxattr(fs, f->ino, "user.k", &got, sizeof(got));
	if (value ? n != sizeof(got) || got != value : n != -ENODATA)
		return finding(run, "inode %" PRIu64 " has another xattr (%" PRId64 ")", f->ino, n);
	return f->kind == N_DIR || verify_data(run, fs, f, event);
}

static int count_entry(const struct bfs_dirent *e, void *arg)
{
	(void)e;
	++*(uint64_t *)arg;
	return 0;
}

/* Its inode; 0: it must not be there, and is not. */
static bool find_dir(const struct files_model *m, struct run *run, struct bfs *fs, unsigned d, uint64_t lsn, uint64_t *ino)
{
	static const char *const names[FM_DIRS] = { "", "d1", "d2", "snap" };
	struct bfs_attr a;
	int rc;

	*ino = fm_at(&m->dirs[d], lsn);
	if (!d)
		return true;
	rc = bfs_lookup(fs, NULL, BFS_ROOT_INO, names[d], &a);
	if (*ino ? rc || a.ino != *ino : rc != -ENOENT)
		return finding(run, "directory /%s: %s", names[d], !rc && *ino ? "is another one" : rc ? "is lost" : "must not be there");
	return true;
}

static bool verify_dir(const struct files_model *m, struct run *run, struct bfs *fs, unsigned d, uint64_t lsn, uint64_t event)
{
	uint64_t want = 2, is = 0, dir;

	if (!find_dir(m, run, fs, d, lsn, &dir))
		return false;
	if (!dir)
		return true;
	for (unsigned k = 1; k < FM_DIRS && !d; k++)
		want += fm_at(&m->dirs[k], lsn) != 0;
	want += !d && m->filler;

	for (unsigned n = 0; n < FM_NAMES; n++) {
		uint64_t index = fm_at(&m->names[d][n], lsn);
		struct bfs_attr a;
		char name[8];
		int rc;

		snprintf(name, sizeof(name), "n%u", n);
		rc = bfs_lookup(fs, NULL, dir, name, &a);
		want += index != 0;
		if (!index && rc == -ENOENT)
			continue;
		if (!index || rc)
			return finding(run, "name %u/%s %s", d, name, index ? "is lost" : "must not be there");
		if (a.ino != m->nodes[index - 1]->ino)
			return finding(run, "name %u/%s leads to inode %" PRIu64 ", and must to %" PRIu64, d, name, a.ino,
				       m->nodes[index - 1]->ino);
		if (!verify_node(run, fs, m->nodes[index - 1], lsn, event))
			return false;
	}
	bfs_readdir(fs, dir, 0, false, count_entry, &is);
	return is == want || finding(run, "directory %u has %" PRIu64 " entries, and must have %" PRIu64, d, is, want);
}

bool fm_verify(const struct files_model *m, struct run *run, struct bfs *fs, uint64_t lsn, uint64_t event)
{
	uint64_t acked = 0;

	for (size_t i = 0; i < m->n_acks; i++)
		if (m->acks[i].event <= event)
			acked = MAX(acked, m->acks[i].lsn);
	if (lsn < acked)
		return finding(run, "recovered to LSN %" PRIu64 ", but %" PRIu64 " had been acknowledged", lsn, acked);
	for (unsigned d = 0; d < FM_DIRS; d++)
		if (!verify_dir(m, run, fs, d, lsn, event))
			return false;
	return true;
}

/* ---- adopting ---- */

static void forget(struct history *h, uint64_t lsn)
{
	while (h->n && h->c[h->n - 1].lsn > lsn)
		h->n--;
}

void fm_reread(struct files_model *m, struct run *run, struct bfs *fs, struct node *f, uint64_t submitted)
{
	static uint8_t buf[FM_UNITS * FM_UNIT];
	uint64_t size;

	memset(buf, 0, sizeof(buf));
	if (!read_file(run, fs, f, buf, &size)) {
		char why[sizeof(run->why)];

		memcpy(why, run->why, sizeof(why));
		run->why[0] = '\0';
		call_failed(run, why, -EIO);
	}
	fm_size(m, f, size, submitted);
	++m->seq;
	for (uint64_t u = 0; u < FM_UNITS; u++) {
		const struct tag *t = (const struct tag *)(buf + u * FM_UNIT);
		struct unit_tag tag = { t->ino, t->unit, t->counter }, now = tag_now(&f->units[u]);

		if (!same_tag(&tag, &now))
			set_unit(m, &f->units[u], tag, submitted);
	}
}

/* The file's bytes and size as they are now, durable. */
static void adopt_file(struct files_model *m, struct run *run, struct bfs *fs, struct node *f)
{
	fm_reread(m, run, fs, f, bdev_powercut_mark(run->dev));
	fm_synced(m, f, m->seq, bdev_powercut_mark(run->dev));
}

void fm_adopt(struct files_model *m, struct run *run, struct bfs *fs, uint64_t lsn)
{
	for (unsigned d = 0; d < FM_DIRS; d++) {
		forget(&m->dirs[d], lsn);
		for (unsigned n = 0; n < FM_NAMES; n++)
			forget(&m->names[d][n], lsn);
	}
	for (size_t i = 0; i < m->n_nodes; i++) {
		struct node *f = m->nodes[i];

		forget(&f->xattr, lsn);
		forget(&f->mode, lsn);
		f->gone = true;
	}
	for (unsigned d = 0; d < FM_DIRS; d++)
		for (unsigned n = 0; n < FM_NAMES; n++) {
			uint64_t index = fm_at(&m->names[d][n], UINT64_MAX);

			if (!index || !m->nodes[index - 1]->gone)
				continue;
			m->nodes[index - 1]->gone = false;
			if (m->nodes[index - 1]->kind == N_FILE)
				adopt_file(m, run, fs, m->nodes[index - 1]);
		}
	fm_ack(m, lsn, bdev_powercut_mark(run->dev));
}
