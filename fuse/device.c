/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ioctl(2) on what is mounted (blobfs/control.h): growing, trimming, copies, numbers, hints. Numbers are answered at once; growing and trimming take their time, so they
 * have a thread of their own, and copies, which need not wait for a trim, another. Each is made when the first of them comes. The kernel hands over what a request's
 * number says it does.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "blobfs/control.h"
#include "fuse/control.h"

struct job {
	fuse_req_t fr;
	struct bfs_fuse *f;
	uint64_t ino; /* what the ioctl is on */
	union {
		struct bfs_control_grow grow;
		struct fstrim_range trim;
		struct bfs_control_snapshot snapshot;
	};
};

static bool stopping(void *arg)
{
	return atomic_load(&((struct bfs_fuse *)arg)->stopping);
}

static void run_grow(void *arg)
{
	struct job *j = arg;
	struct base_err err = { "" };
	struct bs_stat st;

	j->grow.rc = bs_grow(bfs_store(j->f->fs), j->grow.size, &err);
	snprintf(j->grow.text, sizeof(j->grow.text), "%s", j->grow.rc ? base_err_text(&err, j->grow.rc) : "");
	bs_get_stat(bfs_store(j->f->fs), &st);
	j->grow.size = st.blocks * BS_BLOCK;
	fuse_reply_ioctl(j->fr, 0, &j->grow, sizeof(j->grow));
	free(j);
}

static void run_trim(void *arg)
{
	struct job *j = arg;
	struct bs_trim_opts opts = { .size = sizeof(opts), .offset = j->trim.start, .length = j->trim.len, .min_length = j->trim.minlen,
				     .stop = stopping, .arg = j->f };
	uint64_t bytes = 0;
	int rc = j->trim.len ? bs_trim(bfs_store(j->f->fs), &opts, &bytes, NULL) : 0;

	j->trim.len = bytes;
	if (rc)
		fuse_reply_err(j->fr, -rc);
	else
		fuse_reply_ioctl(j->fr, 0, &j->trim, sizeof(j->trim));
	free(j);
}

/* The kernel may know that there is no such name, and what the directory was like. */
static void run_snapshot(void *arg)
{
	struct job *j = arg;
	struct bfs_control_snapshot *s = &j->snapshot;

	s->rc = bfs_snapshot(j->f->fs, NULL, s->ino, j->ino, s->name, s->flags, NULL);
	if (!s->rc)
		transport_invalidate_name(j->f->t, j->ino, s->name);
	fuse_reply_ioctl(j->fr, 0, s, sizeof(*s));
	free(j);
}

/* The thread, made with the first job. slow_lock held: workers may ask for it at the same time, and it may be about to end. */
static int hand_over(struct bfs_fuse *f, enum slow which, void (*fn)(void *), struct job *j)
{
	static const char *const names[] = { [SLOW_DEVICE] = "blobfs-device", [SLOW_COPIES] = "blobfs-copies" };
	struct reactor **r = &f->slow[which];
	int rc = atomic_load(&f->stopping) ? -ENOTCONN : 0;

	if (!rc && !*r) {
		rc = reactor_create(names[which], NULL, r);
		if (!rc && (rc = reactor_start(*r)))
			reactor_destroy(*r);
		if (rc)
			*r = NULL;
	}
	return rc ? rc : reactor_post(*r, fn, j);
}

static void post(fuse_req_t req, fuse_ino_t ino, enum slow which, void (*fn)(void *), const void *in, size_t len)
{
	struct bfs_fuse *f = req_fuse(req);
	uid_t uid = fuse_req_ctx(req)->uid;
	struct job *j = NULL;
	int rc = uid && uid != geteuid() ? -EPERM : 0;

	if (!rc && !(j = base_calloc(1, sizeof(*j))))
		rc = -ENOMEM;
	if (!rc) {
		j->fr = req;
		j->f = f;
		j->ino = ino;
		memcpy(&j->grow, in, len); /* or another of the union */
		pthread_mutex_lock(&f->slow_lock);
		rc = hand_over(f, which, fn, j);
		pthread_mutex_unlock(&f->slow_lock);
	}
	if (rc) {
		free(j);
		fuse_reply_err(req, -rc);
	}
}

static void copy(fuse_req_t req, fuse_ino_t ino, const struct bfs_control_snapshot *s)
{
	if (s->flags & ~(uint32_t)BFS_SNAP_SEALED || !memchr(s->name, 0, sizeof(s->name)))
		fuse_reply_err(req, EINVAL);
	else
		post(req, ino, SLOW_COPIES, run_snapshot, s, sizeof(*s));
}

static void reply_stat(fuse_req_t req)
{
	struct bfs *fs = req_fuse(req)->fs;
	const struct bdev_info *info = bdev_info(bs_bdev(bfs_store(fs)));
	struct bfs_control_stat *out = base_calloc(1, sizeof(*out));

	if (!out) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	bs_get_stat(bfs_store(fs), &out->store);
	bfs_get_cache_stat(fs, &out->cache);
	snprintf(out->device, sizeof(out->device), "%s", info->name);
	snprintf(out->module, sizeof(out->module), "%s", info->module);
	out->device_size = __atomic_load_n(&info->size, __ATOMIC_RELAXED);
	fuse_reply_ioctl(req, 0, out, sizeof(*out));
	free(out);
}

/* Short-lived data apart from long-lived; what is in between goes with what nobody said anything of. */
static bool stream_of(uint64_t hint, enum bs_stream *out)
{
	static const enum bs_stream streams[] = { [RWH_WRITE_LIFE_NOT_SET] = BS_STREAM_UNKNOWN, [RWH_WRITE_LIFE_NONE] = BS_STREAM_UNKNOWN,
						  [RWH_WRITE_LIFE_SHORT] = BS_STREAM_SHORT, [RWH_WRITE_LIFE_MEDIUM] = BS_STREAM_UNKNOWN,
						  [RWH_WRITE_LIFE_LONG] = BS_STREAM_LONG, [RWH_WRITE_LIFE_EXTREME] = BS_STREAM_LONG };

	if (hint >= ARRAY_SIZE(streams))
		return false;
	*out = streams[hint];
	return true;
}

static void set_hint(fuse_req_t req, fuse_ino_t ino, uint64_t hint)
{
	struct bfs_fuse *f = req_fuse(req);
	enum bs_stream stream;

	if (!stream_of(hint, &stream) || !handles_set_stream(&f->handles, ino, stream))
		fuse_reply_err(req, EINVAL);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

bool device_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, const void *in, size_t in_size, size_t out_size)
{
	uint64_t hint;

	if (cmd == BFS_CONTROL_GROW && in_size == sizeof(struct bfs_control_grow) && out_size == in_size)
		post(req, ino, SLOW_DEVICE, run_grow, in, in_size);
	else if (cmd == FITRIM && in_size == sizeof(struct fstrim_range) && out_size == in_size)
		post(req, ino, SLOW_DEVICE, run_trim, in, in_size);
	else if (cmd == BFS_CONTROL_SNAPSHOT && in_size == sizeof(struct bfs_control_snapshot) && out_size == in_size)
		copy(req, ino, in);
	else if (cmd == BFS_CONTROL_SET_RW_HINT && in_size == sizeof(hint))
		set_hint(req, ino, *(const uint64_t *)memcpy(&hint, in, sizeof(hint)));
	else if (cmd == BFS_CONTROL_STAT && out_size == sizeof(struct bfs_control_stat))
		reply_stat(req);
	else
		return false;
	return true;
}

void device_stop(struct bfs_fuse *f)
{
	pthread_mutex_lock(&f->slow_lock); /* who makes the thread sees this, or is seen */
	atomic_store(&f->stopping, true);
	pthread_mutex_unlock(&f->slow_lock);
	for (int i = 0; i < N_SLOW; i++) {
		if (!f->slow[i])
			continue;
		reactor_stop(f->slow[i]);
		reactor_join(f->slow[i]);
	}
}
