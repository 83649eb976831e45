/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be asked of a mount by ioctl (blobfs/control.h): scrubbing, in a thread of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "blobfs/control.h"
#include "fuse/control.h"

#define LOG_COMPONENT "fuse"
#include "base/log.h"

#define KEPT 4096u

struct control {
	struct bfs_fuse *f;
	pthread_mutex_t lock;
	pthread_t thread;
	bool begun;  /* there is a thread to join */
	bool running;
	_Atomic bool stop;
	uint64_t rate;
	int rc;
	struct bs_scrub_result res;
	struct bfs_control_finding *kept;
	uint32_t n_kept;
};

int control_create(struct bfs_fuse *f, struct control **out)
{
	struct control *c = base_calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->f = f;
	pthread_mutex_init(&c->lock, NULL);
	*out = c;
	return 0;
}

void control_destroy(struct control *c)
{
	atomic_store(&c->stop, true);
	if (c->begun)
		pthread_join(c->thread, NULL);
	pthread_mutex_destroy(&c->lock);
	free(c->kept);
	free(c);
}

/* ---- the thread ---- */

static void keep(const struct bs_scrub_finding *f, void *arg)
{
	struct control *c = arg;

	log_err("scrub: blob %llu, byte %llu, device block %llu: %s", (unsigned long long)f->blob, (unsigned long long)f->offset,
		  (unsigned long long)f->block, f->text);
	pthread_mutex_lock(&c->lock);
	if (c->n_kept < KEPT) {
		struct bfs_control_finding *k = &c->kept[c->n_kept++];

		*k = (struct bfs_control_finding){ f->what, f->rc, f->blob, f->offset, f->block, "" };
		memcpy(k->text, f->text, sizeof(k->text));
	}
	pthread_mutex_unlock(&c->lock);
}

static int note(const struct bs_scrub_result *so_far, void *arg)
{
	struct control *c = arg;

	pthread_mutex_lock(&c->lock);
	c->res = *so_far;
	pthread_mutex_unlock(&c->lock);
	return atomic_load(&c->stop);
}

static void *scrub(void *arg)
{
	struct control *c = arg;
	struct bs_scrub_opts opts = { .size = sizeof(opts), .rate = c->rate, .found = keep, .progress = note, .arg = c };
	struct bs_scrub_result res;
	int rc = bs_scrub(bfs_store(c->f->fs), &opts, &res);

	pthread_mutex_lock(&c->lock);
	c->res = res;
	c->rc = rc;
	c->running = false;
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* lock held. */
static int begin(struct control *c, uint64_t rate)
{
	int rc;

	if (c->running)
		return -EBUSY;
	if (c->begun)
		pthread_join(c->thread, NULL); /* it has let go of the lock for the last time */
	c->begun = false;
	if (!c->kept)
		c->kept = base_malloc(KEPT * sizeof(*c->kept));
	if (!c->kept)
		return -ENOMEM;
	c->n_kept = 0;
	c->rate = rate;
	c->rc = 0;
	memset(&c->res, 0, sizeof(c->res));
	atomic_store(&c->stop, false);
	rc = -pthread_create(&c->thread, NULL, scrub, c);
	c->begun = c->running = !rc;
	return rc;
}

/* ---- requests ---- */

static void answer(struct control *c, struct bfs_control_scrub *q)
{
	uint64_t from = MIN(q->from, (uint64_t)c->n_kept);

	q->state = c->running ? BFS_SCRUB_RUNNING : c->begun ? BFS_SCRUB_DONE : BFS_SCRUB_NONE;
	q->rc = c->rc;
	q->total_bytes = c->res.total_bytes;
	q->done_bytes = c->res.done_bytes;
	q->meta_bytes = c->res.meta_bytes;
	q->findings = MAX(c->res.findings, (uint64_t)c->n_kept);
	q->kept = c->n_kept;
	q->n = (uint32_t)MIN(c->n_kept - from, (uint64_t)BFS_CONTROL_FINDINGS);
	for (uint32_t i = 0; i < q->n; i++)
		q->finding[i] = c->kept[from + i];
}

static int do_scrub(struct control *c, struct bfs_control_scrub *q)
{
	int rc = 0;

	if (q->size != sizeof(*q) || q->op < BFS_SCRUB_START || q->op > BFS_SCRUB_STOP)
		return -EINVAL;
	memset((char *)q + offsetof(struct bfs_control_scrub, state), 0, sizeof(*q) - offsetof(struct bfs_control_scrub, state));
	pthread_mutex_lock(&c->lock);
	if (q->op == BFS_SCRUB_START)
		rc = begin(c, q->rate);
	else if (q->op == BFS_SCRUB_STOP)
		atomic_store(&c->stop, true);
	if (!rc)
		answer(c, q);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

void do_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi, unsigned int flags,
	      const void *in, size_t in_size, size_t out_size)
{
	struct bfs_fuse *f = req_fuse(req);
	uid_t uid = fuse_req_ctx(req)->uid;
	struct bfs_control_scrub q;
	int rc;

	(void)arg, (void)fi;
	if (!(flags & FUSE_IOCTL_COMPAT) && device_ioctl(req, ino, cmd, in, in_size, out_size))
		return;
	if (cmd != (unsigned int)BFS_CONTROL_SCRUB || in_size != sizeof(q) || out_size != sizeof(q)) {
		fuse_reply_err(req, ENOTTY);
		return;
	}
	if (uid && uid != geteuid()) {
		fuse_reply_err(req, EPERM);
		return;
	}
	memcpy(&q, in, sizeof(q));
	rc = do_scrub(f->control, &q);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_ioctl(req, 0, &q, sizeof(q));
}
