/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Advisory byte-range locks: for each inode that has any, a list of ranges in order of start. Ranges of one owner never
 * overlap; setting one carves it out of the owner's others first, as fcntl(2) has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "blobfs/internal.h"

struct range {
	TAILQ_ENTRY(range) link;
	struct bfs_lock lock;
};
TAILQ_HEAD(ranges, range);

struct locked {
	RB_ENTRY(locked) node;
	uint64_t ino;
	struct ranges ranges;
};
RB_HEAD(locked_tree, locked);

struct bfs_lock_table {
	pthread_mutex_t mutex;
	struct locked_tree inodes;
};

static int locked_cmp(const struct locked *a, const struct locked *b)
{
	return a->ino < b->ino ? -1 : a->ino > b->ino;
}
RB_GENERATE_INTERNAL(locked_tree, locked, node, locked_cmp, __attribute__((unused)) static)

int bfs_locks_create(struct bfs *fs)
{
	fs->locks = base_calloc(1, sizeof(*fs->locks));
	if (!fs->locks)
		return -ENOMEM;
	pthread_mutex_init(&fs->locks->mutex, NULL);
	RB_INIT(&fs->locks->inodes);
	return 0;
}

static void range_free(struct locked *l, struct range *r)
{
	TAILQ_REMOVE(&l->ranges, r, link);
	free(r);
}

static void locked_drop_if_empty(struct bfs_lock_table *t, struct locked *l)
{
	if (!TAILQ_EMPTY(&l->ranges))
		return;
	RB_REMOVE(locked_tree, &t->inodes, l);
	free(l);
}

void bfs_locks_destroy(struct bfs *fs)
{
	struct locked *l;

	if (!fs->locks)
		return;
	while ((l = RB_MIN(locked_tree, &fs->locks->inodes))) {
		while (!TAILQ_EMPTY(&l->ranges))
			range_free(l, TAILQ_FIRST(&l->ranges));
		locked_drop_if_empty(fs->locks, l);
	}
	pthread_mutex_destroy(&fs->locks->mutex);
	free(fs->locks);
	fs->locks = NULL;
}

static struct locked *locked_find(struct bfs_lock_table *t, uint64_t ino)
{
	struct locked key = { .ino = ino };

	return RB_FIND(locked_tree, &t->inodes, &key);
}

static struct locked *locked_make(struct bfs_lock_table *t, uint64_t ino)
{
	struct locked *l = locked_find(t, ino);

	if (l)
		return l;
	l = base_calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->ino = ino;
	TAILQ_INIT(&l->ranges);
	RB_INSERT(locked_tree, &t->inodes, l);
	return l;
}

static bool overlaps(const struct bfs_lock *a, const struct bfs_lock *b)
{
	return a->start <= b->end && b->start <= a->end;
}

static struct range *conflict(const struct locked *l, const struct bfs_lock *want)
{
	struct range *r;

	TAILQ_FOREACH(r, &l->ranges, link) {
		if (r->lock.owner != want->owner && overlaps(&r->lock, want) &&
		    (r->lock.type == F_WRLCK || want->type == F_WRLCK))
			return r;
	}
	return NULL;
}

static void insert(struct locked *l, struct range *new)
{
	struct range *r;

	TAILQ_FOREACH(r, &l->ranges, link) {
		if (r->lock.start > new->lock.start) {
			TAILQ_INSERT_BEFORE(r, new, link);
			return;
		}
	}
	TAILQ_INSERT_TAIL(&l->ranges, new, link);
}

/* Takes [cut] out of the owner's ranges. One range may fall in two: *spare becomes the second. */
static void carve(struct locked *l, const struct bfs_lock *cut, struct range **spare)
{
	struct range *r, *next;

	TAILQ_FOREACH_SAFE(r, &l->ranges, link, next) {
		if (r->lock.owner != cut->owner || !overlaps(&r->lock, cut))
			continue;
		if (r->lock.start < cut->start && r->lock.end > cut->end) {
			struct range *tail = *spare;

			*spare = NULL;
			tail->lock = r->lock;
			tail->lock.start = cut->end + 1;
			r->lock.end = cut->start - 1;
			insert(l, tail);
			return;
		}
		if (r->lock.start < cut->start) {
			r->lock.end = cut->start - 1;
		} else if (r->lock.end > cut->end) {
			r->lock.start = cut->end + 1;
			TAILQ_REMOVE(&l->ranges, r, link);
			insert(l, r);
			return; /* no later one of the owner overlaps */
		} else {
			range_free(l, r);
		}
	}
}

/* Joins the range with neighbours of the same owner and type that touch it. */
static void join(struct locked *l, struct range *new)
{
	struct range *r, *next;

	TAILQ_FOREACH_SAFE(r, &l->ranges, link, next) {
		if (r == new || r->lock.owner != new->lock.owner || r->lock.type != new->lock.type)
			continue;
		if (r->lock.end != UINT64_MAX && r->lock.end + 1 == new->lock.start)
			new->lock.start = r->lock.start;
		else if (new->lock.end != UINT64_MAX && new->lock.end + 1 == r->lock.start)
			new->lock.end = r->lock.end;
		else
			continue;
		range_free(l, r);
	}
	TAILQ_REMOVE(&l->ranges, new, link);
	insert(l, new);
}

static int set_locked(struct bfs_lock_table *t, uint64_t ino, const struct bfs_lock *lock, struct range **new,
		      struct range **spare)
{
	struct locked *l = lock->type == F_UNLCK ? locked_find(t, ino) : locked_make(t, ino);

	if (!l)
		return lock->type == F_UNLCK ? 0 : -ENOMEM;
	if (lock->type != F_UNLCK && conflict(l, lock))
		return -EAGAIN; /* so the list is not empty */
	carve(l, lock, spare);
	if (lock->type != F_UNLCK) {
		(*new)->lock = *lock;
		insert(l, *new);
		join(l, *new);
		*new = NULL;
	}
	locked_drop_if_empty(t, l);
	return 0;
}

int bfs_setlk(struct bfs *fs, uint64_t ino, const struct bfs_lock *lock)
{
	struct bfs_lock_table *t = fs->locks;
	struct range *new, *spare;
	int rc = -ENOMEM;

	if (lock->start > lock->end ||
	    (lock->type != F_RDLCK && lock->type != F_WRLCK && lock->type != F_UNLCK))
		return -EINVAL;
	new = base_malloc(sizeof(*new));
	spare = base_malloc(sizeof(*spare));
	if (new && spare) {
		pthread_mutex_lock(&t->mutex);
		rc = set_locked(t, ino, lock, &new, &spare);
		pthread_mutex_unlock(&t->mutex);
	}
	free(new);
	free(spare);
	return rc;
}

int bfs_getlk(struct bfs *fs, uint64_t ino, struct bfs_lock *lock)
{
	struct bfs_lock_table *t = fs->locks;
	struct locked *l;
	struct range *r;

	if (lock->start > lock->end || (lock->type != F_RDLCK && lock->type != F_WRLCK))
		return -EINVAL;
	pthread_mutex_lock(&t->mutex);
	l = locked_find(t, ino);
	r = l ? conflict(l, lock) : NULL;
	if (r)
		*lock = r->lock;
	else
		lock->type = F_UNLCK;
	pthread_mutex_unlock(&t->mutex);
	return 0;
}

void bfs_unlock_all(struct bfs *fs, uint64_t ino, uint64_t owner)
{
	struct bfs_lock_table *t = fs->locks;
	struct range *r, *next;
	struct locked *l;

	pthread_mutex_lock(&t->mutex);
	l = locked_find(t, ino);
	if (l) {
		TAILQ_FOREACH_SAFE(r, &l->ranges, link, next) {
			if (r->lock.owner == owner)
				range_free(l, r);
		}
		locked_drop_if_empty(t, l);
	}
	pthread_mutex_unlock(&t->mutex);
}
