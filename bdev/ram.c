/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ram: memory as a device. An I/O is queued by submit and done by the next reap, so that its form
 * is that of any other device: nothing completes before it is polled for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bdev/ram.h"

#define RAM_BLOCK 512u
#define RAM_MAX_IO (1 * MiB)
/* What one reap does at most, the lock being held. */
#define RAM_REAP_BYTES (2 * MiB)

/* Memory that outlives its device: `ram:SIZE,name=N`. Of the process, never freed. Under ram_lock.
 */
struct named {
	struct named *next;
	uint64_t size;
	void *mem;
	char name[];
};

static pthread_mutex_t ram_lock = PTHREAD_MUTEX_INITIALIZER;
static struct named *all_named;

struct ram {
	char *mem;
	uint64_t size;
	struct medium *medium; /* instead of mem */
	bool keep;
};

struct ram_channel {
	struct io_list todo;
	struct bell bell;
};

struct ram_name {
	uint64_t size;
	const char *name;
	bool cache;
};

/* "ram:SIZE[,name=N][,cache]"; buf holds the parts. */
static int parse(const char *text, char *buf, size_t len, struct ram_name *out,
		 struct base_err *err)
{
	char *part, *save;

	*out = (struct ram_name){ 0 };
	if (snprintf(buf, len, "%s", text + strlen("ram:")) >= (int)len)
		return base_err_set(err, -EINVAL, "%.40s…: the name is too long", text);
	part = strtok_r(buf, ",", &save);
	if (!part || base_parse_size(part, &out->size) || !out->size || out->size % RAM_BLOCK)
		return base_err_set(err, -EINVAL, "%s: the size must be a multiple of %u", text,
				    RAM_BLOCK);
	while ((part = strtok_r(NULL, ",", &save))) {
		if (!strncmp(part, "name=", 5) && part[5])
			out->name = part + 5;
		else if (!strcmp(part, "cache"))
			out->cache = true;
		else
			return base_err_set(err, -EINVAL, "%s: unknown option '%s'", text, part);
	}
	return 0;
}

void ram_identify(const char *name, char *key, size_t len)
{
	char buf[96];
	struct ram_name n;

	*key = '\0';
	if (!parse(name, buf, sizeof(buf), &n, NULL) && n.name)
		snprintf(key, len, "ram:%s", n.name);
}

const struct bdev_module *ram_choose_module(const char *name, const struct bdev_opts *opts)
{
	(void)name;
	(void)opts;
	return &ram_module;
}

static void *map(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* The memory of this name, made when there is none yet. */
static int take_named(const struct ram_name *n, void **mem)
{
	struct named *m;
	int rc = 0;

	pthread_mutex_lock(&ram_lock);
	for (m = all_named; m && strcmp(m->name, n->name); m = m->next)
		;
	if (!m) {
		m = base_malloc(sizeof(*m) + strlen(n->name) + 1);
		*mem = m ? map(n->size) : NULL;
		if (*mem) {
			strcpy(m->name, n->name);
			m->size = n->size;
			m->mem = *mem;
			m->next = all_named;
			all_named = m;
		} else {
			free(m);
			rc = -ENOMEM;
		}
	} else if (m->size != n->size) {
		rc = -EINVAL;
	} else {
		*mem = m->mem;
	}
	pthread_mutex_unlock(&ram_lock);
	return rc;
}

static void fill_info(struct bdev *dev, uint64_t size, bool cache)
{
	dev->info.size = size;
	dev->info.block_size = dev->info.atomic_write = RAM_BLOCK;
	dev->info.buffer_align = 1;
	dev->info.max_io = RAM_MAX_IO;
	dev->info.max_iov = 1024;
	dev->info.optimal_io = 256 * KiB;
	dev->info.max_channels = BDEV_MAX_CHANNELS;
	dev->info.volatile_cache = cache;
	dev->info.fua = true;
	dev->info.discard = true;
	dev->info.write_zeroes = true;
	dev->info.discard_zeroes = true;
}

static int ram_open(struct bdev *dev, const struct bdev_opts *opts, struct base_err *err)
{
	char buf[96];
	struct ram_name n;
	struct ram *r;
	void *mem;
	int rc;

	(void)opts;
	rc = parse(dev->name, buf, sizeof(buf), &n, err);
	if (rc)
		return rc;
	r = base_calloc(1, sizeof(*r));
	if (!r)
		return base_err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	if (n.name) {
		rc = take_named(&n, &mem);
	} else {
		mem = map(n.size);
		rc = mem ? 0 : -ENOMEM;
	}
	if (rc) {
		free(r);
		return base_err_set(err, rc, "%s: %s", dev->name,
				    rc == -EINVAL ? "exists with another size" : "out of memory");
	}
	*r = (struct ram){ .mem = mem, .size = n.size, .keep = n.name };
	dev->priv = r;
	fill_info(dev, n.size, n.cache);
	return 0;
}

int ram_over(struct medium *medium, struct bdev **out)
{
	struct bdev *dev = bdev_alloc(&ram_module, "ram:state");
	struct ram *r = base_calloc(1, sizeof(*r));
	int rc = -ENOMEM;

	if (dev && r) {
		*r = (struct ram){ .medium = medium, .size = medium_size(medium) };
		dev->priv = r;
		fill_info(dev, r->size, false);
		rc = bdev_start(dev, NULL);
	}
	if (rc) {
		if (dev)
			bdev_free(dev);
		free(r);
		return rc;
	}
	*out = dev;
	return 0;
}

struct medium *ram_medium_copy(struct bdev *dev)
{
	const struct ram *r = dev->priv;
	struct medium *m = NULL;

	if (dev->module != &ram_module || !r->medium || medium_copy(r->medium, &m))
		return NULL;
	return m;
}

static void ram_close(struct bdev *dev)
{
	struct ram *r = dev->priv;

	if (r->medium)
		medium_free(r->medium);
	else if (!r->keep)
		munmap(r->mem, r->size);
	free(r);
}

static int ram_channel_create(struct bdev_channel *ch)
{
	struct ram_channel *c = base_calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	rc = bell_init(&c->bell);
	if (rc) {
		free(c);
		return rc;
	}
	io_list_init(&c->todo);
	ch->priv = c;
	return 0;
}

static void ram_channel_destroy(struct bdev_channel *ch)
{
	struct ram_channel *c = ch->priv;

	bell_destroy(&c->bell);
	free(c);
}

static bool ram_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	struct ram_channel *c = ch->priv;

	io_list_push(&c->todo, io);
	return true;
}

static void copy_plain(char *at, void *buf, size_t len, bool read)
{
	if (read)
		memcpy(buf, at, len);
	else
		memcpy(at, buf, len);
}

/*
 * As on any device, I/O on one block from two channels at once is allowed, and nothing is promised about what a read then sees.
 * ThreadSanitizer would call it a race, so it is shown an order, block by block.
 */
#ifdef __SANITIZE_THREAD__
static void copy(char *at, void *buf, size_t len, bool read)
{
	static pthread_mutex_t order[64] = { [0 ... 63] = PTHREAD_MUTEX_INITIALIZER };

	for (size_t n; len; at += n, buf = (char *)buf + n, len -= n) {
		pthread_mutex_t *lock = &order[((uintptr_t)at >> 12) % 64];

		n = MIN(len, 4096 - ((uintptr_t)at & 4095));
		pthread_mutex_lock(lock);
		copy_plain(at, buf, n, read);
		pthread_mutex_unlock(lock);
	}
}
#else
#define copy copy_plain
#endif

/* Large ranges give their memory back, which makes them zero; the rest is cleared. */
static void clear(struct ram *r, uint64_t offset, uint64_t length)
{
	uint64_t lo = round_up(offset, 4096), hi = round_down(offset + length, 4096);

	if (hi > lo && hi - lo >= 64 * KiB &&
	    !madvise(r->mem + lo, hi - lo, MADV_DONTNEED)) {
		memset(r->mem + offset, 0, lo - offset);
		memset(r->mem + hi, 0, offset + length - hi);
		return;
	}
	memset(r->mem + offset, 0, length);
}

static int do_medium_io(struct ram *r, const struct bdev_io *io)
{
	uint64_t at = io->offset;
	int rc = 0;

	if (io->op == BDEV_DISCARD || io->op == BDEV_WRITE_ZEROES)
		return medium_write(r->medium, at, NULL, io->length);
	for (int i = 0; !rc && i < io->iovcnt; i++) {
		if (io->op == BDEV_READ)
			medium_read(r->medium, at, io->iov[i].iov_base, io->iov[i].iov_len);
		else
			rc = medium_write(r->medium, at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	return rc;
}

static void do_memory_io(struct ram *r, const struct bdev_io *io)
{
	char *at = r->mem + io->offset;

	if (io->op == BDEV_DISCARD || io->op == BDEV_WRITE_ZEROES) {
		clear(r, io->offset, io->length);
		return;
	}
	for (int i = 0; i < io->iovcnt; i++) {
		copy(at, io->iov[i].iov_base, io->iov[i].iov_len, io->op == BDEV_READ);
		at += io->iov[i].iov_len;
	}
}

static int do_io(struct ram *r, const struct bdev_io *io)
{
	if (io->op == BDEV_FLUSH)
		return 0;
	if (r->medium)
		return do_medium_io(r, io);
	do_memory_io(r, io);
	return 0;
}

static void ram_reap(struct bdev_channel *ch)
{
	struct ram_channel *c = ch->priv;
	struct ram *r = ch->dev->priv;
	uint64_t bytes = 0;
	struct bdev_io *io;

	bell_quiet(&c->bell);
	while (bytes < RAM_REAP_BYTES && (io = io_list_pop(&c->todo))) {
		bytes += io->length;
		channel_done(ch, io, do_io(r, io));
	}
}

static bool has_work(struct bdev_channel *ch)
{
	struct ram_channel *c = ch->priv;
	bool work;

	pthread_mutex_lock(&ch->lock);
	work = c->todo.head;
	pthread_mutex_unlock(&ch->lock);
	return work;
}

static void ram_wake(struct bdev_channel *ch)
{
	struct ram_channel *c = ch->priv;

	bell_ring(&c->bell);
}

/* The work is done where it is polled for: whoever sleeps over it must get up. */
static void ram_kick(struct bdev_channel *ch)
{
	if ((atomic_load(&ch->poller) || atomic_load(&ch->fd_used)) && has_work(ch))
		ram_wake(ch);
}

static void ram_wait(struct bdev_channel *ch)
{
	struct ram_channel *c = ch->priv;

	if (!has_work(ch))
		bell_wait(&c->bell);
}

static int ram_fd(struct bdev_channel *ch)
{
	struct ram_channel *c = ch->priv;

	return c->bell.fd;
}

const struct bdev_module ram_module = {
	.name = "ram",
	.open = ram_open,
	.close = ram_close,
	.channel_create = ram_channel_create,
	.channel_destroy = ram_channel_destroy,
	.submit = ram_submit,
	.reap = ram_reap,
	.kick = ram_kick,
	.wait = ram_wait,
	.wake = ram_wake,
	.fd = ram_fd,
};
