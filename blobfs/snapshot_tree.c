/* SPDX-License-Identifier: BSD-2-Clause */
/* The inodes of a tree: finding them, and copying them within one transaction. A file with several names in the tree is one file there. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "blobfs/snapshot.h"

#define NAMES_AT_ONCE 64u

static int node_cmp(const struct snap_node *a, const struct snap_node *b)
{
	return a->ino < b->ino ? -1 : a->ino > b->ino;
}
RB_GENERATE_INTERNAL(snap_tree, snap_node, node, node_cmp, __attribute__((unused)) static)

struct snap_node *snap_find(struct snap *s, uint64_t ino)
{
	struct snap_node key = { .ino = ino }, *n = RB_FIND(snap_tree, &s->tree, &key);

	if (n)
		return n;
	n = base_calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->ino = ino;
	RB_INSERT(snap_tree, &s->tree, n);
	TAILQ_INSERT_TAIL(&s->list, n, link);
	return n;
}

void snap_free(struct snap *s)
{
	struct snap_node *n;

	while ((n = TAILQ_FIRST(&s->list))) {
		TAILQ_REMOVE(&s->list, n, link);
		RB_REMOVE(snap_tree, &s->tree, n);
		free(n);
	}
}

/* ---- names, some at a time ---- */

struct names {
	struct {
		uint64_t key;
		struct bfs_entry entry;
		uint32_t len;
		char name[BFS_NAME_MAX];
	} one[NAMES_AT_ONCE];
	unsigned n;
};

static int take_name(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct names *names = arg;
	const char *name;
	uint32_t name_len;
	int rc;

	if (names->n == NAMES_AT_ONCE)
		return 1;
	rc = bfs_dirent_decode(value, len, &names->one[names->n].entry, &name, &name_len);
	if (rc)
		return rc;
	names->one[names->n].key = key;
	names->one[names->n].len = name_len;
	memcpy(names->one[names->n++].name, name, name_len);
	return 0;
}

/* Calls fn for each name of a directory but those of the directory that is left out. */
typedef int (*name_fn)(struct snap *s, void *arg, uint64_t key, const struct bfs_entry *e, const char *name, uint32_t len);

static int each_name(struct snap *s, struct bs_blob *dir, name_fn fn, void *arg)
{
	struct names *names = base_malloc(sizeof(*names));
	uint64_t from = 0;
	int rc = names ? 0 : -ENOMEM;

	while (!rc) {
		names->n = 0;
		rc = bs_item_scan(dir, BFS_KIND_DIRENT, from, take_name, names);
		if (rc < 0 || !names->n)
			break;
		rc = 0;
		for (unsigned i = 0; i < names->n && !rc; i++)
			if (names->one[i].entry.ino != s->dir)
				rc = fn(s, arg, names->one[i].key, &names->one[i].entry, names->one[i].name,
					names->one[i].len);
		from = names->one[names->n - 1].key + 1;
	}
	free(names);
	return rc;
}

/* ---- finding ---- */

static int collect_name(struct snap *s, void *arg, uint64_t key, const struct bfs_entry *e, const char *name, uint32_t len)
{
	struct snap_node *n = snap_find(s, e->ino);

	(void)arg;
	(void)key;
	(void)name;
	(void)len;
	if (!n)
		return -ENOMEM;
	n->mode = e->type;
	return 0;
}

int snap_collect(struct snap *s)
{
	struct snap_node *n;
	int rc = 0;

	/* Those that are found go to the end of the list, and get their turn. */
	TAILQ_FOREACH(n, &s->list, link) {
		struct bs_blob *blob = S_ISDIR(n->mode) ? bs_blob_get(s->fs->bs, n->ino) : NULL;

		if (blob)
			rc = each_name(s, blob, collect_name, NULL);
		bs_blob_put(blob);
		if (rc)
			break;
	}
	return rc;
}

/* ---- copying; in the transaction ---- */

struct copy {
	struct bs_txn *txn;
	struct snap_node *dir;
};

/* Files made since: nobody had to wait for them. */
static int mark_born(struct snap *s)
{
	struct snap_born *b;
	int rc = 0;

	pthread_mutex_lock(&s->fs->snap_lock);
	SLIST_FOREACH(b, &s->born, link) {
		struct snap_node *n = snap_find(s, bs_blob_id(b->blob));

		if (!n) {
			rc = -ENOMEM;
			break;
		}
		n->born = true;
	}
	pthread_mutex_unlock(&s->fs->snap_lock);
	return rc;
}

/* The inode of a file whose data is to be shared; -EAGAIN: it was not made ready for that. */
static int held_inode(struct snap *s, struct snap_node *n)
{
	int rc;

	n->mode = S_IFREG; /* if it is not held, the next round sees to it */
	if (n->held)
		return 0;
	if (!n->born)
		return -EAGAIN;
	if (n->inode)
		return 0;
	rc = bfs_inode_get(s->fs, n->ino, &n->inode);
	if (rc)
		n->inode = NULL;
	return rc == -ENOENT ? -EUCLEAN : rc;
}

static int make_copy(struct snap *s, struct bs_txn *txn, struct snap_node *n, uint64_t parent)
{
	struct bs_blob_info info;
	struct bfs_inode inode = { .fs = s->fs };
	int rc;

	n->from = bs_blob_get(s->fs->bs, n->ino);
	if (!n->from)
		return -EUCLEAN;
	bs_blob_get_info(n->from, &info);
	rc = bfs_inode_from_info(&info, &inode);
	if (!rc && S_ISREG(inode.mode))
		rc = held_inode(s, n);
	if (!rc)
		rc = bs_txn_create(txn, 0, info.user, info.user_len, &n->to);
	if (rc) {
		bs_blob_put(n->from);
		n->from = NULL;
		return rc;
	}
	n->round = s->round;
	n->mode = inode.mode;
	n->size = S_ISDIR(inode.mode) ? 0 : info.size;
	n->parent = parent;
	n->links = n->subdirs = 0;
	TAILQ_INSERT_TAIL(&s->todo, n, todo);
	return 0;
}

/* One at a time, and not while the blob is locked by the scan. */
struct item {
	uint64_t key;
	uint32_t len;
	uint8_t *value;
};

static int take_item(uint64_t key, const void *value, uint32_t len, void *arg)
{
	struct item *item = arg;

	item->key = key;
	item->len = len;
	memcpy(item->value, value, len);
	return 1;
}

static int copy_items(struct bs_txn *txn, struct snap_node *n, unsigned kind)
{
	struct item item = { .value = base_malloc(BS_VALUE_MAX) };
	uint64_t from = 0;
	int rc = item.value ? 0 : -ENOMEM;

	while (!rc) {
		rc = bs_item_scan(n->from, kind, from, take_item, &item);
		if (rc != 1)
			break;
		rc = bs_txn_put(txn, n->to, kind, item.key, item.value, item.len);
		from = item.key + 1;
	}
	free(item.value);
	return rc;
}

static int copy_name(struct snap *s, void *arg, uint64_t key, const struct bfs_entry *e, const char *name, uint32_t len)
{
	struct copy *c = arg;
	struct snap_node *n = snap_find(s, e->ino);
	int rc = n ? 0 : -ENOMEM;

	if (!rc && n->round != s->round)
		rc = make_copy(s, c->txn, n, bs_blob_id(c->dir->to));
	else if (!rc && S_ISDIR(n->mode))
		rc = -EUCLEAN; /* a directory with two names */
	if (rc)
		return rc;
	n->links++;
	c->dir->size++;
	c->dir->subdirs += S_ISDIR(n->mode);
	return bfs_dir_put(c->txn, c->dir->to, key, name, len, bs_blob_id(n->to), n->mode);
}

/* What a copy holds, other than names and data. */
static int finish_copy(struct snap *s, struct bs_txn *txn, struct snap_node *n)
{
	struct bs_blob_info info;
	struct bfs_inode_disk *disk = (struct bfs_inode_disk *)info.user;
	uint64_t blocks = div_round_up(n->size, BS_BLOCK);
	struct bs_carried_range carried;
	int rc = copy_items(txn, n, BFS_KIND_XATTR);

	bs_blob_get_info(n->from, &info);
	/* What could not be written home has no place that could be shared. */
	if (!rc && bs_carried_next(n->from, 0, UINT64_MAX, &carried))
		rc = -EBUSY;
	if (!rc && S_ISLNK(n->mode))
		rc = copy_items(txn, n, BFS_KIND_SYMLINK);
	/* Not what was published past the size: it is not promised yet. */
	if (!rc && S_ISREG(n->mode) && blocks && info.mapped_blocks)
		rc = bfs_share_reserve(n->inode, 0, UINT64_MAX >> PAGE_SHIFT);
	if (!rc && S_ISREG(n->mode) && blocks && info.mapped_blocks)
		rc = bs_txn_share(txn, n->from, 0, n->to, 0, blocks);
	disk->nlink = le32_make(S_ISDIR(n->mode) ? 2 + n->subdirs : n->links);
	disk->parent = le64_make(S_ISDIR(n->mode) ? n->parent : 0);
	if (!rc && s->sealed && S_ISREG(n->mode))
		return bs_txn_seal(txn, n->to, n->size, info.user, info.user_len);
	return rc ? rc : bs_txn_header(txn, n->to, n->size, info.user, info.user_len);
}

int snap_copy(struct snap *s, struct bs_txn *txn, struct snap_node **top)
{
	struct copy c = { .txn = txn };
	struct snap_node *n = snap_find(s, s->top);
	int rc;

	s->round++;
	TAILQ_INIT(&s->todo);
	*top = n;
	if (!n)
		return -ENOMEM;
	rc = mark_born(s);
	if (!rc)
		rc = make_copy(s, txn, n, s->dir);
	if (rc)
		return rc;
	n->links = 1;
	/* What a directory holds is added at the end, and gets its turn. */
	TAILQ_FOREACH(n, &s->todo, todo) {
		c.dir = n;
		if (S_ISDIR(n->mode))
			rc = each_name(s, n->from, copy_name, &c);
		if (rc)
			return rc;
	}
	TAILQ_FOREACH(n, &s->todo, todo) {
		rc = finish_copy(s, txn, n);
		if (rc)
			return rc;
	}
	return 0;
}

void snap_put(struct snap *s, bool done)
{
	struct snap_node *n;

	TAILQ_FOREACH(n, &s->todo, todo) {
		bs_blob_put(n->from);
		if (done)
			bs_blob_put(n->to);
		n->from = n->to = NULL;
	}
}
