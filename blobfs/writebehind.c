/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Write-behind: a pass over the inodes that are dirty, in the background by the service thread, or whole for sync.
 *
 * A pass takes inodes off the front of the dirty list some at a time, starts writing them back together, waits, puts their headers, and
 * goes on; then it commits. Each inode is met once a pass (wb_pass), so a busy one does not hold up its end.
 *
 * The timer is armed when the dirty list gets its first inode and as long as it has one: an idle file system does not wake up. The same
 * for inodes without names whose deletion found no room in the log.
 */
#include <sched.h>
#include <stdlib.h>

#include "blobfs/data.h"
#define LOG_COMPONENT "blobfs"
#include "base/log.h"

#define BATCH 32u
#define DIRTY_MAX (512 * MiB) /* unless told otherwise */
#define PASS_UNITS 16u        /* in flight */

struct pass {
	struct bfs *fs;
	struct bdev_channel *ch;
	uint64_t number;
	uint64_t cutoff; /* ns: only what is dirty since before; UINT64_MAX: all */
	bool all;        /* sync: waits for what others are writing back, commits in any case */
	bool changed;
	bool waited;     /* for room in the log to delete what has no names */
	unsigned n, at;
	struct bfs_walk walk[BATCH];
	uint32_t error_seq; /* write-back errors before this one have been told of */
	int rc; /* of what keeps an inode from being written back */
};

struct bfs_wb {
	struct bfs *fs;
	struct op op;
	struct pass pass;
	struct reactor_timer *timer;
	bool running,
		again; /* the service thread's: a pass is under way; it was kicked meanwhile */
	bool stopping;
	_Atomic bool kicked, armed;
	pthread_mutex_t lock;
	pthread_cond_t stopped_cond;
	bool stopped;
};

/* ---- which inodes ---- */

static bool is_due(const struct pass *p, struct bfs_inode *inode)
{
	if (inode->wb_pass == p->number)
		return false;
	return !atomic_load(&inode->n_dirty) || atomic_load(&inode->dirty_since) <= p->cutoff;
}

static void pass_collect(struct pass *p)
{
	struct bfs *fs = p->fs;
	struct bfs_inode *inode;

	p->n = 0;
	p->at = 0;
	pthread_mutex_lock(&fs->dirty_lock);
	LIST_FOREACH(inode, &fs->dirty, dirty_link)
	{
		if (!is_due(p, inode))
			continue;
		inode->wb_pass = p->number;
		atomic_store(&inode->dirty_since, base_now_ns());
		bfs_inode_hold(inode);
		bfs_walk_init(&p->walk[p->n], inode, 0, UINT64_MAX >> PAGE_SHIFT, p->ch);
		if (++p->n == BATCH)
			break;
	}
	pthread_mutex_unlock(&fs->dirty_lock);
}

struct bfs_inode *bfs_wb_pick(struct bfs *fs)
{
	struct bfs_inode *inode;

	pthread_mutex_lock(&fs->dirty_lock);
	LIST_FOREACH(inode, &fs->dirty, dirty_link)
	{
		if (atomic_load(&inode->n_dirty))
			break;
	}
	if (inode)
		bfs_inode_hold(inode);
	pthread_mutex_unlock(&fs->dirty_lock);
	return inode;
}

/* ---- a pass, part of an op ---- */

enum {
	PASS_BEGIN,
	PASS_COLLECT,
	PASS_START,
	PASS_WAIT,
	PASS_WAITED,
	PASS_SETTLE,
	PASS_COMMITTED,
	PASS_FAILED
};

static void pass_init(struct pass *p, struct bfs *fs, struct bdev_channel *ch, uint64_t cutoff,
		      bool all)
{
	static _Atomic uint64_t numbers;

	p->fs = fs;
	p->ch = ch;
	p->number = atomic_fetch_add(&numbers, 1) + 1;
	p->cutoff = cutoff;
	p->all = all;
	p->changed = false;
	p->waited = false;
	p->n = 0;
	p->rc = 0;
	p->error_seq = all ? atomic_load(&fs->cache->wb_error_told) :
			     atomic_load(&fs->cache->wb_error_seq);
}

/* The first error that matters. Of write-back a pass in the background has those of its own time; sync has all that no sync told of
 * before it began: two at once both tell, since either may have waited for those pages. */
static int pass_rc(struct pass *p, int rc)
{
	struct bfs_cache *c = p->fs->cache;
	uint32_t seq = atomic_load(&c->wb_error_seq);

	if (p->all)
		atomic_store(&c->wb_error_told, seq);
	if (rc)
		return rc;
	if (p->rc)
		return p->rc;
	return seq == p->error_seq ? 0 : atomic_load(&c->wb_error);
}

/* Starts all of the batch, PASS_UNITS at a time. */
static enum op_next pass_start(struct pass *p, struct op *op)
{
	unsigned units = PASS_UNITS;

	op_move(op, bdev_channel_driver(p->ch));
	while (p->at < p->n && units) {
		uint64_t page;
		int rc;

		if (!p->walk[p->at].next)
			bfs_tail_cover(p->walk[p->at].inode, &page); /* if it needs no waiting */
		rc = bfs_walk_start(&p->walk[p->at], op, units);

		if (rc == -EAGAIN) {
			/* The commit takes the wait to the log's channel: what was started here is awaited first. */
			if (units == PASS_UNITS)
				bs_commit_start(p->fs->bs, 0, op);
			return op_await(op, PASS_START, 0);
		}
		if (rc < 0) { /* short of memory: the next pass tries again */
			p->rc = p->rc ? p->rc : rc;
			rc = 0;
		}
		if (rc) {
			p->changed = true;
			units -= (unsigned)rc;
		} else {
			p->at++;
		}
	}
	if (units < PASS_UNITS)
		return op_await(op, PASS_START, 0);
	p->at = 0;
	return op_goto(op, p->all ? PASS_WAIT : PASS_SETTLE);
}

static enum op_next pass_wait(struct pass *p, struct op *op)
{
	if (p->at == p->n) {
		p->at = 0;
		return op_goto(op, PASS_SETTLE);
	}
	return bfs_walk_run(&p->walk[p->at], op, PASS_WAIT, PASS_WAITED, true);
}

/* The inode is as clean as it gets in this pass. */
static void pass_leave(struct pass *p, struct bfs_inode *inode)
{
	pthread_mutex_lock(&inode->lock);
	if (!p->rc && bfs_tail_is_bare(inode)) /* its size could not become durable */
		p->rc = -EIO;
	bfs_inode_unmark_dirty(inode);
	pthread_mutex_unlock(&inode->lock);
	bfs_inode_put(inode);
	p->at++;
}

static enum op_next pass_settle(struct pass *p, struct op *op)
{
	op_move(op, bdev_channel_driver(p->ch));
	while (p->at < p->n) {
		struct bfs_inode *inode = p->walk[p->at].inode;
		int rc = bfs_inode_settle(inode, false);

		if (rc == -EAGAIN) {
			bs_log_wait_room_start(p->fs->bs, op);
			return op_await(op, PASS_SETTLE, 0);
		}
		if (rc && !p->rc)
			p->rc = rc;
		p->changed = true;
		pass_leave(p, inode);
	}
	return op_goto(op, PASS_COLLECT);
}

static enum op_next pass_run(struct pass *p, struct op *op)
{
	if (op->step != PASS_FAILED)
		op->on_error = PASS_FAILED;
	switch (op->step) {
	case PASS_BEGIN:
		if (bfs_inode_retry_deletes(p->fs, false) && !p->waited) {
			p->waited = true;
			bs_log_wait_room_start(p->fs->bs, op);
			return op_await(op, PASS_BEGIN, 0);
		}
		return op_goto(op, PASS_COLLECT);
	case PASS_COLLECT:
		pass_collect(p);
		if (p->n)
			return op_goto(op, PASS_START);
		if (!p->changed && !p->all)
			return op_finish(op);
		bs_commit_start(p->fs->bs, 0, op);
		return op_await(op, PASS_COMMITTED, 0);
	case PASS_START:
		return pass_start(p, op);
	case PASS_WAIT:
		return pass_wait(p, op);
	case PASS_WAITED:
		p->at++;
		return op_goto(op, PASS_WAIT);
	case PASS_SETTLE:
		return pass_settle(p, op);
	case PASS_COMMITTED:
		return op_finish(op);
	case PASS_FAILED: /* the store is frozen, or memory is short */
		for (p->at = 0; p->at < p->n;)
			pass_leave(p, p->walk[p->at].inode);
		p->n = 0;
		return op_finish(op);
	}
	return op_bug(op);
}

/* ---- in the background ---- */

static enum op_next behind_run(struct op *op)
{
	return pass_run(&container_of(op, struct bfs_wb, op)->pass, op);
}

static void tell_stopped(struct bfs_wb *wb)
{
	if (wb->timer)
		reactor_del_timer(wb->timer);
	wb->timer = NULL;
	pthread_mutex_lock(&wb->lock);
	wb->stopped = true;
	pthread_cond_broadcast(&wb->stopped_cond);
	pthread_mutex_unlock(&wb->lock);
}

static void behind_done(struct op *op, void *arg);

static void behind_start(struct bfs_wb *wb, uint64_t cutoff)
{
	struct bdev_channel *ch = bs_service_channel(wb->fs->bs);

	wb->running = true;
	wb->again = false;
	atomic_store(&wb->kicked, false);
	pass_init(&wb->pass, wb->fs, ch, cutoff, false);
	op_init(&wb->op, "bfs write-behind", behind_run, bdev_channel_driver(ch), behind_done, wb);
	op_start(&wb->op);
	bdev_kick(ch);
}

static uint64_t period_ms(const struct bfs *fs)
{
	return MAX(fs->opts.writeback_ms / 2, 1u);
}

static void on_timer(void *arg)
{
	struct bfs_wb *wb = arg;
	uint64_t now = base_now_ns(), age = (uint64_t)wb->fs->opts.writeback_ms * 1000000 / 2;

	if (!wb->running && !wb->stopping)
		behind_start(wb, now > age ? now - age : 0);
}

/* In the service thread: the next pass, or sleep if nothing is dirty. */
static void rearm(struct bfs_wb *wb)
{
	struct bfs *fs = wb->fs;
	bool dirty;

	/* What is dirty stays so: there is nothing to wake up for. */
	if (atomic_load(&fs->cache->frozen))
		return;
	pthread_mutex_lock(&fs->dirty_lock);
	pthread_mutex_lock(&fs->icache_lock);
	dirty = !LIST_EMPTY(&fs->dirty) || !LIST_EMPTY(&fs->undeleted);
	pthread_mutex_unlock(&fs->icache_lock);
	if (!dirty)
		atomic_store(&wb->armed, false);
	pthread_mutex_unlock(&fs->dirty_lock);
	if (!dirty)
		return;
	if (!wb->timer && reactor_add_timer(bs_service_reactor(fs->bs), "write-behind",
					    period_ms(fs), 0, on_timer, wb, &wb->timer)) {
		wb->timer = NULL;
		atomic_store(&wb->armed,
			     false); /* no memory: the next inode that gets dirty tries again */
		return;
	}
	reactor_set_timer(wb->timer, period_ms(fs));
}

static void after_pass(void *arg)
{
	struct bfs_wb *wb = arg;

	wb->running = false;
	if (wb->stopping)
		tell_stopped(wb);
	else if (wb->again || atomic_load(&wb->kicked))
		behind_start(wb, UINT64_MAX);
	else
		rearm(wb);
}

static void behind_done(struct op *op, void *arg)
{
	struct bfs_wb *wb = arg;
	int rc;

	rc = pass_rc(&wb->pass, op->rc);
	if (rc == -EROFS)
		atomic_store(&wb->fs->cache->frozen, true);
	if (rc)
		log_warn("write-behind: %s", base_err_text(NULL, rc));
	/* Any thread that polled the channel may have got here. */
	if (reactor_post(bs_service_reactor(wb->fs->bs), after_pass, wb))
		log_err("write-behind has stopped: its reactor takes no message");
}

static void on_arm(void *arg)
{
	struct bfs_wb *wb = arg;

	if (!wb->running && !wb->stopping)
		rearm(wb);
}

static void on_kick(void *arg)
{
	struct bfs_wb *wb = arg;

	if (wb->stopping)
		return;
	if (wb->running)
		wb->again = true;
	else
		behind_start(wb, UINT64_MAX);
}

static void on_stop(void *arg)
{
	struct bfs_wb *wb = arg;

	wb->stopping = true;
	if (!wb->running)
		tell_stopped(wb);
}

void bfs_data_arm(struct bfs *fs)
{
	struct bfs_wb *wb = fs->wb;

	if (!wb || !bs_service_reactor(fs->bs) || atomic_exchange(&wb->armed, true))
		return;
	if (reactor_post(bs_service_reactor(fs->bs), on_arm, wb))
		atomic_store(&wb->armed, false);
}

void bfs_wb_kick(struct bfs *fs)
{
	struct bfs_wb *wb = fs->wb;

	if (!bs_service_reactor(fs->bs) ||
	    atomic_load_explicit(&wb->kicked, memory_order_relaxed) ||
	    atomic_exchange(&wb->kicked, true))
		return;
	if (reactor_post(bs_service_reactor(fs->bs), on_kick, wb))
		atomic_store(&wb->kicked, false);
}

int bfs_data_init(struct bfs *fs)
{
	struct bfs_cache *c = fs->cache;
	struct bs_stat st;
	struct bfs_wb *wb;

	bs_get_stat(fs->bs, &st);
	c->cluster_shift = (uint32_t)__builtin_ctz(st.cluster_size >> PAGE_SHIFT);
	c->datasum = st.datasum;
	if (!fs->opts.writeback_ms)
		fs->opts.writeback_ms = 1000;
	c->dirty_limit = (fs->opts.dirty_limit
				  ? fs->opts.dirty_limit
				  : MIN((uint64_t)c->n_pages * PAGE_SIZE / 4, DIRTY_MAX)) /
			 PAGE_SIZE;
	c->dirty_limit = MIN(MAX(c->dirty_limit, 16u), c->n_pages / 2);
	wb = base_calloc(1, sizeof(*wb));
	if (!wb)
		return -ENOMEM;
	wb->fs = fs;
	pthread_mutex_init(&wb->lock, NULL);
	pthread_cond_init(&wb->stopped_cond, NULL);
	fs->wb = wb;
	return 0;
}

void bfs_data_stop(struct bfs *fs)
{
	struct reactor *r = bs_service_reactor(fs->bs);
	struct bfs_wb *wb = fs->wb;

	if (!wb)
		return;
	if (r && !reactor_post(r, on_stop, wb)) {
		pthread_mutex_lock(&wb->lock);
		while (!wb->stopped)
			pthread_cond_wait(&wb->stopped_cond, &wb->lock);
		pthread_mutex_unlock(&wb->lock);
	}
	while (atomic_load(&fs->cache->n_background)) {
		bdev_poll(bs_service_channel(fs->bs));
		sched_yield();
	}
}

void bfs_data_free(struct bfs *fs)
{
	if (!fs->wb)
		return;
	pthread_mutex_destroy(&fs->wb->lock);
	pthread_cond_destroy(&fs->wb->stopped_cond);
	free(fs->wb);
	fs->wb = NULL;
}

/* ---- in the foreground ---- */

struct sync_state {
	struct pass *pass;
};

/* sync: all of it, as the request's own op, so that whoever waits for it goes where it goes. */
enum op_next bfs_sync_run(struct op *op)
{
	struct bfs_req *req = bfs_req_of(op);
	struct sync_state *st = BFS_REQ_STATE(req, struct sync_state);
	enum op_next next;
	int rc;

	if (op->step == PASS_BEGIN) {
		if (req->fs->opts.flags & BFS_RDONLY)
			return bfs_req_end(req, 0);
		st->pass = base_malloc(sizeof(*st->pass));
		if (!st->pass)
			return bfs_req_end(req, -ENOMEM);
		pass_init(st->pass, req->fs, req->ch, UINT64_MAX, true);
	}
	next = pass_run(st->pass, op);
	if (next != OP_END)
		return next;
	rc = pass_rc(st->pass, op->rc);
	free(st->pass);
	return bfs_req_end(req, rc);
}

struct step_op {
	struct op op;
	struct pass pass;
};

static enum op_next step_run(struct op *op)
{
	return pass_run(&container_of(op, struct step_op, op)->pass, op);
}

int bfs_data_step(struct bfs *fs)
{
	uint64_t now = base_now_ns(), age = (uint64_t)fs->opts.writeback_ms * 1000000 / 2;
	struct bdev_channel *ch;
	struct step_op *s;
	int rc;

	if (fs->opts.flags & BFS_RDONLY)
		return 0;
	s = base_malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	ch = bdev_channel_borrow(fs->dev);
	pass_init(&s->pass, fs, ch, now > age ? now - age : 0, false);
	op_init(&s->op, "bfs write-behind step", step_run, bdev_channel_driver(ch), NULL, NULL);
	op_start(&s->op);
	rc = op_wait(&s->op);
	bdev_channel_return(ch);
	rc = pass_rc(&s->pass, rc);
	free(s);
	return rc;
}
