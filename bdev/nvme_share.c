/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A list of the controllers that are open, under a lock that is held while one is attached or let go of: who wants the same one
 * meanwhile has to wait for that anyway. No I/O takes it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "bdev/nvme_share.h"

struct nvme_share {
	struct nvme_share *next;
	struct nvme_ctrlr *c;
	char key[256];
	unsigned refs;
	bool forked;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvme_share *shares;

/* What the parent has is not the child's, and some thread of it may have held the lock. */
static void after_fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	shares = NULL;
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, after_fork_child);
}

/* A socket is known by its inode, whatever the path. */
static void make_key(const char *address, char *key, size_t len)
{
	const char *path = strchr(address, '/');
	struct stat st;

	if (path && !stat(path, &st))
		snprintf(key, len, "%llx:%llx", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino);
	else
		snprintf(key, len, "%s", address);
}

static int attach(const struct nvme_name *name, const char *key, struct nvme_share **out,
		  struct base_err *err)
{
	struct nvme_opts o = { .size = sizeof(o),
			       .interrupts = true,
			       .timeout_ms = name->timeout_ms };
	struct nvme_share *s = base_calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return base_err_set(err, -ENOMEM, "%s: out of memory", name->address);
	rc = nvme_attach(name->address, &o, &s->c, err);
	if (rc) {
		free(s);
		return rc;
	}
	strcpy(s->key, key);
	s->refs = 1;
	s->next = shares;
	shares = s;
	*out = s;
	return 0;
}

int nvme_share_get(const struct nvme_name *name, struct nvme_share **out, struct base_err *err)
{
	char key[sizeof((*out)->key)];
	struct nvme_share *s;
	int rc = 0;

	make_key(name->address, key, sizeof(key));
	pthread_mutex_lock(&lock);
	/* One that is given up is no controller to share: who comes later tries anew. */
	for (s = shares; s && (strcmp(s->key, key) || nvme_failed(s->c)); s = s->next)
		;
	if (s) {
		s->refs++;
		/* What somebody counts on holds for all of it. */
		nvme_shorten_timeout(s->c, name->timeout_ms);
	} else {
		rc = attach(name, key, &s, err);
	}
	pthread_mutex_unlock(&lock);
	if (!rc)
		*out = s;
	return rc;
}

void nvme_share_put(struct nvme_share *s)
{
	struct nvme_share **at = &shares;

	pthread_mutex_lock(&lock);
	if (!--s->refs) {
		while (*at != s)
			at = &(*at)->next;
		*at = s->next;
		nvme_detach(s->c);
		free(s);
	}
	pthread_mutex_unlock(&lock);
}

struct nvme_ctrlr *nvme_share_ctrlr(const struct nvme_share *s)
{
	return s->c;
}

void nvme_share_forked(struct nvme_share *s)
{
	if (!s->forked)
		nvme_forked(s->c);
	s->forked = true;
}
