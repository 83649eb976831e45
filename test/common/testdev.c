/* SPDX-License-Identifier: BSD-2-Clause */
#include "test/common/testdev.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/util.h"
#include "test/common/nvmet.h"
#include "test/common/temp.h"

struct target {
	LIST_ENTRY(target) link;
	struct nvmet *t;
	pthread_t thread;
	int listener;
	char dir[TEMP_PATH], path[TEMP_PATH + 8];
};

static LIST_HEAD(, target) targets = LIST_HEAD_INITIALIZER(targets);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t owner;
static unsigned host_errors;

__attribute__((noreturn)) static void give_up(const char *why)
{
	fprintf(stderr, "testdev: %s\n", why);
	_exit(3);
}

bool testdev_is_nvme(void)
{
	const char *env = getenv("TEST_DEVICE");

	return env && !strncmp(env, "nvme", 4);
}

static void *serve(void *arg)
{
	struct target *g = arg;

	nvmet_serve(g->t, g->listener);
	return NULL;
}

static void end(struct target *g)
{
	atomic_store(&g->t->stop, true);
	pthread_join(g->thread, NULL);
	host_errors += atomic_load(&g->t->n.host_errors);
	close(g->listener);
	unlink(g->path);
	rmdir(g->dir);
	nvmet_destroy(g->t);
	LIST_REMOVE(g, link);
	free(g);
}

/* Those that were opened and closed. */
static void end_unused(void)
{
	struct target *g = LIST_FIRST(&targets), *next;

	for (; g; g = next) {
		next = LIST_NEXT(g, link);
		if (atomic_load(&g->t->n.clients) && !atomic_load(&g->t->connected))
			end(g);
	}
}

/* Last of all, when the program's own clean-up has closed what is open. */
__attribute__((destructor)) static void end_all(void)
{
	if (owner != getpid())
		return;
	while (!LIST_EMPTY(&targets))
		end(LIST_FIRST(&targets));
	if (host_errors)
		give_up("the driver broke the specification");
}

static struct nvmet_opts opts_of(const char *ram)
{
	char size[32];
	struct nvmet_opts o = { .block = strcmp(getenv("TEST_DEVICE"), "nvme4096") ? 512 : 4096,
				.write_through = !strstr(ram, ",cache") };

	snprintf(size, sizeof(size), "%.*s", (int)strcspn(ram + 4, ","), ram + 4);
	if (strncmp(ram, "ram:", 4) || base_parse_size(size, &o.size))
		give_up(ram);
	return o;
}

static struct target *begin(const struct nvmet_opts *o)
{
	struct target *g = calloc(1, sizeof(*g));

	if (!g)
		give_up("out of memory");
	if (!temp_dir(g->dir, "nvmet"))
		give_up("no directory for a socket");
	snprintf(g->path, sizeof(g->path), "%s/sock", g->dir);
	if (nvmet_create(o, &g->t))
		give_up("no controller");
	g->listener = nvmet_listen(g->path);
	if (g->listener < 0 || pthread_create(&g->thread, NULL, serve, g))
		give_up("the controller cannot be served");
	LIST_INSERT_HEAD(&targets, g, link);
	return g;
}

const char *testdev_name(const char *ram, char *out, size_t len)
{
	struct nvmet_opts o;

	if (!testdev_is_nvme()) {
		snprintf(out, len, "%s", ram);
		return out;
	}
	pthread_mutex_lock(&lock);
	owner = getpid();
	end_unused();
	o = opts_of(ram);
	snprintf(out, len, "nvme:vfio-user:%s", begin(&o)->path);
	pthread_mutex_unlock(&lock);
	return out;
}

bool testdev_sums(void)
{
	return getenv("TEST_DATASUM");
}
