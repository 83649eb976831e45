/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/util.h"
#include "fuse/internal.h"

static int by_ino(struct writer *a, struct writer *b)
{
	return a->ino < b->ino ? -1 : a->ino > b->ino;
}

RB_GENERATE_INTERNAL(writer_tree, writer, node, by_ino, __attribute__((unused)) static)

void handles_init(struct handles *h)
{
	pthread_mutex_init(&h->lock, NULL);
	LIST_INIT(&h->all);
	RB_INIT(&h->writers);
}

/* The spare record is taken if the inode has none yet; true then. h->lock held. */
static bool count_writer(struct handles *h, struct writer *spare)
{
	struct writer *w = RB_INSERT(writer_tree, &h->writers, spare);

	if (w) {
		w->handles++;
		return false;
	}
	return true;
}

static struct writer *uncount_writer(struct handles *h, uint64_t ino)
{
	struct writer key = { .ino = ino }, *w = RB_FIND(writer_tree, &h->writers, &key);

	if (--w->handles)
		return NULL;
	return RB_REMOVE(writer_tree, &h->writers, w);
}

/* With the writeback cache the kernel appends by itself, and reads what surrounds a small write. */
static int open_flags(const struct bfs_fuse *f, int flags)
{
	int mode = flags & O_ACCMODE;

	return f->sole && mode == O_WRONLY ? O_RDWR : mode;
}

int handle_open(struct bfs_fuse *f, uint64_t ino, int flags, struct handle **out)
{
	struct handle *h = base_calloc(1, sizeof(*h));
	struct writer *spare = base_calloc(1, sizeof(*spare));
	int rc = h && spare ? 0 : -ENOMEM;

	if (!rc)
		rc = bfs_open(f->fs, NULL, ino, open_flags(f, flags), BS_STREAM_UNKNOWN, &h->file);
	if (rc) {
		free(h);
		free(spare);
		return rc;
	}
	h->ino = ino;
	h->writable = (flags & O_ACCMODE) != O_RDONLY;
	*spare = (struct writer){ .ino = ino, .handles = 1 };
	pthread_mutex_lock(&f->handles.lock);
	LIST_INSERT_HEAD(&f->handles.all, h, link);
	if (h->writable && count_writer(&f->handles, spare))
		spare = NULL;
	pthread_mutex_unlock(&f->handles.lock);
	free(spare);
	*out = h;
	return 0;
}

static void close_one(struct handles *hs, struct handle *h)
{
	struct writer *last = NULL;

	pthread_mutex_lock(&hs->lock);
	LIST_REMOVE(h, link);
	if (h->writable)
		last = uncount_writer(hs, h->ino);
	pthread_mutex_unlock(&hs->lock);
	free(last);
	bfs_close(h->file);
	free(h);
}

void handle_close(struct bfs_fuse *f, struct handle *h)
{
	close_one(&f->handles, h);
}

void handles_close_all(struct handles *hs)
{
	struct handle *h;

	while ((h = LIST_FIRST(&hs->all)))
		close_one(hs, h);
	pthread_mutex_destroy(&hs->lock);
}

bool handles_has_writer(struct handles *h, uint64_t ino)
{
	struct writer key = { .ino = ino };
	bool has;

	pthread_mutex_lock(&h->lock);
	has = RB_FIND(writer_tree, &h->writers, &key);
	pthread_mutex_unlock(&h->lock);
	return has;
}

bool handles_set_full(struct handles *h, uint64_t ino, bool full)
{
	struct writer key = { .ino = ino }, *w;
	bool was = full;

	pthread_mutex_lock(&h->lock);
	w = RB_FIND(writer_tree, &h->writers, &key);
	if (w) {
		was = w->full;
		w->full = full;
	}
	pthread_mutex_unlock(&h->lock);
	return was;
}

bool handles_is_full(struct handles *h, uint64_t ino)
{
	struct writer key = { .ino = ino }, *w;
	bool full;

	pthread_mutex_lock(&h->lock);
	w = RB_FIND(writer_tree, &h->writers, &key);
	full = w && w->full;
	pthread_mutex_unlock(&h->lock);
	return full;
}

bool handles_set_stream(struct handles *hs, uint64_t ino, enum bs_stream stream)
{
	bool any = false;
	struct handle *h;

	pthread_mutex_lock(&hs->lock);
	LIST_FOREACH(h, &hs->all, link) {
		if (h->ino != ino || !h->writable)
			continue;
		bfs_set_stream(h->file, stream);
		any = true;
	}
	pthread_mutex_unlock(&hs->lock);
	return any;
}
