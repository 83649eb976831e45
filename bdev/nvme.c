/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nvme: a controller's namespace as a device, a queue pair for each channel: nvme:ADDRESS[/NSID][,timeout=SECONDS], the
 * first usable namespace if none is named. The driver says what an address is.
 *
 * The queue pair is touched under the channel's lock only. Who waits polls for a while, if not too many of the process do, then
 * sleeps on the interrupt, with a look every now and then, since the driver's timeouts need one. The controller's going
 * wakes it too.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define LOG_COMPONENT "bdev"
#include "base/log.h"
#include "bdev/internal.h"
#include "bdev/nvme_share.h"
#include "bdev/nvme_wait.h"
#include "nvme/nvme.h"

#define PREFIX "nvme:"
#define PATH_PREFIX "vfio-user:"
#define IDLE_LOOK_MS 1000
#define UNHEARD_MOST 3u
#define PORT_MAX_IO ((uint32_t)(1 * MiB)) /* the driver splits at the controller's limit */

struct nvme {
	struct nvme_share *share;
	struct nvme_ctrlr *c; /* the share's */
	struct nvme_ns_info ns;
};

struct slot {
	struct nvme_cmd cmd;
	struct bdev_io *io;
	struct slot *next;
};

struct nvme_channel {
	struct nvme_qpair *q;
	struct nvme_wait wait;
	struct bell bell;
	int epoll, timer;
	int timer_ms; /* 0: off */
	bool gone_watched;
	bool deaf;         /* the controller's interrupts do not come */
	unsigned unheard;  /* completions in a row that only a look has found */
	atomic_bool dirty; /* submitted and not kicked; set under the channel's lock */
	unsigned shift;    /* of a logical block */
	struct slot *free;
	struct slot slots[];
};

/* ---- names ---- */

static int parse(const char *name, struct nvme_name *out, struct base_err *err)
{
	struct base_err why = { "" };
	int rc = nvme_split_name(name + strlen(PREFIX), out, &why);

	return rc ? base_err_set(err, rc, PREFIX "%s", why.text) : 0;
}

/* The same controller by whatever name: a socket is known by its inode. */
void nvme_identify_name(const char *name, char *key, size_t len)
{
	struct nvme_name p;
	struct stat st;

	*key = '\0';
	if (parse(name, &p, NULL))
		return;
	if (strncmp(p.address, PATH_PREFIX, strlen(PATH_PREFIX)))
		snprintf(key, len, "nvme:%s/%u", p.address, p.nsid);
	else if (!stat(p.address + strlen(PATH_PREFIX), &st))
		snprintf(key, len, "nvme:%llx:%llx/%u", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino, p.nsid);
}

const struct bdev_module *nvme_choose_module(const char *name, const struct bdev_opts *opts)
{
	(void)name;
	(void)opts;
	return &nvme_module;
}

/* ---- device ---- */

static void fill_info(struct bdev *dev, const struct nvme *n)
{
	const struct nvme_ctrlr_info *i = nvme_info(n->c);
	const void *window;

	dev->info.size = n->ns.blocks * n->ns.block_size;
	dev->info.block_size = n->ns.block_size;
	dev->info.atomic_write = MAX(n->ns.atomic_write, n->ns.block_size);
	dev->info.buffer_align = 4;
	dev->info.max_io = MAX(i->max_transfer, PORT_MAX_IO);
	dev->info.max_iov = 1024;
	dev->info.optimal_io = MIN(i->max_transfer, (uint32_t)(256 * KiB));
	dev->info.max_channels = MIN(i->max_qpairs, (uint32_t)BDEV_MAX_CHANNELS);
	dev->info.volatile_cache = i->volatile_cache;
	dev->info.fua = true;
	dev->info.discard = i->deallocate;
	dev->info.discard_zeroes = i->deallocate && n->ns.deallocated_zeroes;
	dev->info.write_zeroes = i->write_zeroes;
	dev->info.needs_dma = true;
	nvme_memory_window(&window, &dev->dma_len);
	dev->dma_base = (uintptr_t)window;
}

static int choose_ns(struct nvme *n, const char *name, uint32_t nsid, struct base_err *err)
{
	int rc = nsid ? nvme_ns_get(n->c, nsid, &n->ns) : nvme_ns_next(n->c, 0, &n->ns);

	if (!rc)
		return 0;
	return base_err_set(err, rc, "%s: %s", name,
			    rc == -ENOENT ? "there is no such namespace"
					  : "the namespace cannot be used");
}

static int nvme_open(struct bdev *dev, const struct bdev_opts *opts, struct base_err *err)
{
	struct nvme *n;
	struct nvme_name p;
	int rc = parse(dev->name, &p, err);

	(void)opts;
	if (rc)
		return rc;
	n = base_calloc(1, sizeof(*n));
	if (!n)
		return base_err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	rc = nvme_share_get(&p, &n->share, err);
	if (rc) {
		free(n);
		return rc;
	}
	n->c = nvme_share_ctrlr(n->share);
	rc = choose_ns(n, dev->name, p.nsid, err);
	if (rc) {
		nvme_share_put(n->share);
		free(n);
		return rc;
	}
	fill_info(dev, n);
	dev->priv = n;
	return 0;
}

static void nvme_close(struct bdev *dev)
{
	struct nvme *n = dev->priv;

	nvme_share_put(n->share);
	free(n);
}

/* A namespace may have grown, or gone. */
static int nvme_size(struct bdev *dev, uint64_t *size)
{
	struct nvme *n = dev->priv;
	struct nvme_ns_info now;
	int rc;

	nvme_poll_events(n->c);
	rc = nvme_ns_get(n->c, n->ns.nsid, &now);
	if (rc)
		return rc == -ENOENT ? -ENODEV : rc;
	if (now.block_size != n->ns.block_size)
		return -ENODEV;
	*size = now.blocks * now.block_size;
	return 0;
}

static void nvme_dev_forked(struct bdev *dev)
{
	nvme_share_forked(((struct nvme *)dev->priv)->share);
}

static bool dma_ok(const struct bdev *dev, const void *p, size_t len)
{
	(void)dev;
	return nvme_memory_ok(p, len);
}

/* ---- channels ---- */

static int watch(struct nvme_channel *c, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events };

	return fd >= 0 && epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &e) ? -errno : 0;
}

static int make_descriptors(struct nvme_channel *c, struct nvme_ctrlr *ctrlr)
{
	int rc;

	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->epoll < 0 || c->timer < 0)
		return -errno;
	rc = watch(c, c->bell.fd, EPOLLIN);
	if (!rc)
		rc = watch(c, c->timer, EPOLLIN);
	if (!rc)
		rc = watch(c, nvme_qpair_fd(c->q), EPOLLIN);
	if (!rc)
		rc = watch(c, nvme_event_fd(ctrlr), EPOLLIN);
	if (!rc)
		rc = watch(c, nvme_gone_fd(ctrlr), (uint32_t)nvme_gone_events(ctrlr));
	c->gone_watched = !rc;
	return rc;
}

static void free_channel(struct nvme_channel *c)
{
	if (c->q)
		nvme_qpair_free(c->q);
	if (c->epoll >= 0)
		close(c->epoll);
	if (c->timer >= 0)
		close(c->timer);
	bell_destroy(&c->bell);
	free(c);
}

static void io_done(struct nvme_cmd *cmd, int rc);

static int nvme_channel_create(struct bdev_channel *ch)
{
	struct nvme *n = ch->dev->priv;
	struct nvme_channel *c = base_calloc(1, sizeof(*c) + ch->depth * sizeof(c->slots[0]));
	int rc;

	if (!c)
		return -ENOMEM;
	c->epoll = c->timer = -1;
	rc = bell_init(&c->bell);
	if (rc) {
		free(c);
		return rc;
	}
	rc = nvme_qpair_create(n->c, ch->depth, &c->q);
	if (!rc)
		rc = make_descriptors(c, n->c);
	if (rc) {
		free_channel(c);
		return rc;
	}
	c->shift = (unsigned)__builtin_ctz(n->ns.block_size);
	for (unsigned i = 0; i < ch->depth; i++) {
		c->slots[i].cmd.nsid = n->ns.nsid;
		c->slots[i].cmd.cb = io_done;
		c->slots[i].next = c->free;
		c->free = &c->slots[i];
	}
	ch->priv = c;
	return 0;
}

static void nvme_channel_destroy(struct bdev_channel *ch)
{
	free_channel(ch->priv);
}

/* ---- I/O, lock held ---- */

/* The port's errors. */
static int port_error(int rc)
{
	switch (rc) {
	case 0:
	case -ENOSPC:
	case -EROFS:
	case -EINVAL:
	case -ENODEV:
	case -ETIMEDOUT:
	case -ENOMEM:
	case -EOPNOTSUPP:
		return rc;
	default:
		return -EIO;
	}
}

static void io_done(struct nvme_cmd *cmd, int rc)
{
	struct slot *s = container_of(cmd, struct slot, cmd);
	struct bdev_io *io = s->io;
	struct nvme_channel *c = io->ch->priv;

	s->next = c->free;
	c->free = s;
	channel_done(io->ch, io, __builtin_expect(rc, 0) ? port_error(rc) : 0);
}

/* What is the same for every command of a slot stands there since the channel was made. */
static inline void fill_cmd(const struct nvme_channel *c, const struct bdev_io *io,
			    struct nvme_cmd *cmd)
{
	static const enum nvme_op ops[] = {
		[BDEV_READ] = NVME_READ,
		[BDEV_WRITE] = NVME_WRITE,
		[BDEV_FLUSH] = NVME_FLUSH,
		[BDEV_DISCARD] = NVME_DEALLOCATE,
		[BDEV_WRITE_ZEROES] = NVME_WRITE_ZEROES,
	};

	cmd->op = ops[io->op];
	cmd->flags = io->opts.flags & BDEV_FUA ? NVME_FUA : 0;
	if (io->op == BDEV_WRITE_ZEROES && !(io->opts.flags & BDEV_NO_UNMAP))
		cmd->flags |= NVME_MAY_DEALLOCATE;
	cmd->lba = io->offset >> c->shift;
	cmd->blocks = io->length >> c->shift;
	cmd->iov = io->iov;
	cmd->iovcnt = io->iovcnt;
	cmd->stream = io->op == BDEV_WRITE ? io->opts.stream : 0;
}

static bool nvme_io_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct nvme_channel *c = ch->priv;
	struct slot *s = c->free;

	if (!s)
		return false;
	c->free = s->next;
	s->io = io;
	fill_cmd(c, io, &s->cmd);
	/* Who submits kicks, or polls, and sees what it has written itself. */
	atomic_store_explicit(&c->dirty, true, memory_order_relaxed);
	nvme_submit(c->q, &s->cmd);
	return true;
}

/* Without interrupts somebody must look often. */
static int interval_ms(const struct nvme_channel *c)
{
	return nvme_qpair_fd(c->q) < 0 || c->deaf ? 1 : nvme_poll_interval_ms(c->q);
}

static bool rings(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return fd >= 0 && poll(&p, 1, 0) > 0;
}

/* Lock held: makes the interrupt's descriptor quiet, and takes note that it was not. True: there is something to poll for. */
static bool arm(struct nvme_channel *c)
{
	if (c->unheard && rings(nvme_qpair_fd(c->q)))
		c->unheard = 0;
	return nvme_qpair_arm(c->q);
}

/* Lock held, when it was time for a look: had there been something to be heard? */
static void listen_closely(struct nvme_channel *c, struct nvme *n)
{
	if (c->deaf || nvme_qpair_fd(c->q) < 0 || !nvme_pending(c->q) || nvme_failed(n->c))
		return;
	if (rings(nvme_qpair_fd(c->q)) || ++c->unheard < UNHEARD_MOST)
		return;
	c->deaf = true;
	log_warn("%s: its interrupts do not come; who waits looks every millisecond",
		 nvme_info(n->c)->address);
}

static void set_timer(struct nvme_channel *c, int ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };
	struct itimerspec it = { ts, ts };

	if (c->timer_ms != ms)
		timerfd_settime(c->timer, 0, &it, NULL);
	c->timer_ms = ms;
}

/* What made the descriptor readable is taken away before the look, so that nothing is missed. */
static void quiet(struct nvme_channel *c, struct nvme *n)
{
	uint64_t fired;

	if (c->timer_ms && read(c->timer, &fired, sizeof(fired)) > 0) {
		listen_closely(c, n);
		/* What an idle controller tells without an interrupt is looked for. */
		if (!nvme_outstanding(c->q))
			set_timer(c, nvme_event_fd(n->c) < 0 ? IDLE_LOOK_MS : 0);
	}
	arm(c);
	/* With commands outstanding the driver's polls see to it now and then. */
	if (!nvme_outstanding(c->q))
		nvme_poll_events(n->c);
}

static void nvme_reap(struct bdev_channel *ch)
{
	struct nvme_channel *c = ch->priv;
	struct nvme *n = ch->dev->priv;

	bell_quiet(&c->bell);
	if (atomic_load_explicit(&ch->fd_used, memory_order_relaxed))
		quiet(c, n);
	nvme_poll(c->q, 0);
	/* A reset wants more frequent looks. */
	if (c->timer_ms && nvme_outstanding(c->q))
		set_timer(c, interval_ms(c));
	if (c->gone_watched && nvme_failed(n->c)) {
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, nvme_gone_fd(n->c), NULL);
		c->gone_watched = false;
	}
}

/* ---- waiting ---- */

static void nvme_wake(struct bdev_channel *ch)
{
	bell_ring(&((struct nvme_channel *)ch->priv)->bell);
}

static void nvme_io_kick(struct bdev_channel *ch)
{
	struct nvme_channel *c = ch->priv;
	bool fd_used = atomic_load(&ch->fd_used), refused;

	if (!atomic_load(&c->dirty))
		return;
	pthread_mutex_lock(&ch->lock);
	atomic_store(&c->dirty, false);
	nvme_kick(c->q);
	/* What the driver has refused at once raises no interrupt. */
	refused = nvme_pending(c->q);
	if (fd_used && nvme_outstanding(c->q))
		set_timer(c, interval_ms(c));
	pthread_mutex_unlock(&ch->lock);
	if (refused && (fd_used || atomic_load(&ch->poller)))
		nvme_wake(ch);
}

static bool pending(struct bdev_channel *ch)
{
	struct nvme_channel *c = ch->priv;
	bool yes;

	pthread_mutex_lock(&ch->lock);
	yes = nvme_pending(c->q);
	pthread_mutex_unlock(&ch->lock);
	return yes || atomic_load(&c->bell.state);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static bool is_busy(struct bdev_channel *ch)
{
	struct nvme_channel *c = ch->priv;
	bool busy;

	pthread_mutex_lock(&ch->lock);
	busy = nvme_outstanding(c->q);
	pthread_mutex_unlock(&ch->lock);
	return busy;
}

/* True: something came. */
static bool spin(struct bdev_channel *ch, uint64_t start)
{
	struct nvme_channel *c = ch->priv;
	uint64_t ns = nvme_wait_spin_ns(&c->wait);
	bool yes = pending(ch);

	if (yes || !ns || !nvme_wait_enter())
		return yes;
	while (!(yes = pending(ch)) && now_ns() - start < ns)
		;
	nvme_wait_leave();
	return yes;
}

/* Until something comes, or it is time for a look. */
static void sleep_for(struct bdev_channel *ch)
{
	struct nvme_channel *c = ch->priv;
	struct nvme *n = ch->dev->priv;
	struct pollfd p[4] = { { .fd = c->bell.fd, .events = POLLIN },
			       { .fd = nvme_qpair_fd(c->q), .events = POLLIN },
			       { .fd = nvme_event_fd(n->c), .events = POLLIN },
			       { .fd = nvme_failed(n->c) ? -1 : nvme_gone_fd(n->c),
				 .events = nvme_gone_events(n->c) } };
	bool come;
	int ms;

	pthread_mutex_lock(&ch->lock);
	come = arm(c);
	/* Others may submit while we sleep: the limit holds for them as well. */
	ms = interval_ms(c);
	pthread_mutex_unlock(&ch->lock);
	if (come || poll(p, ARRAY_SIZE(p), ms))
		return;
	pthread_mutex_lock(&ch->lock);
	listen_closely(c, n);
	pthread_mutex_unlock(&ch->lock);
}

static void nvme_io_wait(struct bdev_channel *ch)
{
	struct nvme_channel *c = ch->priv;
	uint64_t start;
	bool busy;

	nvme_io_kick(ch);
	busy = is_busy(ch);
	start = busy ? now_ns() : 0;
	if (!busy || !spin(ch, start))
		sleep_for(ch);
	if (busy && pending(ch))
		nvme_wait_learn(&c->wait, now_ns() - start);
}

static int nvme_channel_fd(struct bdev_channel *ch)
{
	return ((struct nvme_channel *)ch->priv)->epoll;
}

const struct bdev_module nvme_module = {
	.name = "nvme",
	.open = nvme_open,
	.close = nvme_close,
	.size = nvme_size,
	.forked = nvme_dev_forked,
	.channel_create = nvme_channel_create,
	.channel_destroy = nvme_channel_destroy,
	.submit = nvme_io_submit,
	.reap = nvme_reap,
	.kick = nvme_io_kick,
	.wait = nvme_io_wait,
	.wake = nvme_wake,
	.fd = nvme_channel_fd,
	.dma_ok = dma_ok,
};
