/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "bdev/workers.h"

struct workers {
	int (*run)(struct bdev_io *io);
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct io_list todo;
	unsigned queued, idle, threads, max;
	bool stop;
	pthread_t thread[];
};

static struct bdev_io *next_io(struct workers *w)
{
	struct bdev_io *io;

	pthread_mutex_lock(&w->lock);
	while (!w->todo.head && !w->stop) {
		w->idle++;
		pthread_cond_wait(&w->work, &w->lock);
		w->idle--;
	}
	io = io_list_pop(&w->todo);
	if (io)
		w->queued--;
	pthread_mutex_unlock(&w->lock);
	return io;
}

static void *work(void *arg)
{
	struct workers *w = arg;
	struct bdev_io *io;

	while ((io = next_io(w)))
		channel_done_remote(io, w->run(io));
	return NULL;
}

/* One thread more; lock held, or nobody else knows w yet. */
static int add_thread(struct workers *w)
{
	sigset_t all, old;
	int rc;

	/* Signals are the program's business, not ours. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&w->thread[w->threads], NULL, work, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!rc)
		w->threads++;
	return -rc;
}

int workers_create(unsigned max, int (*run)(struct bdev_io *io), struct workers **out)
{
	struct workers *w = base_calloc(1, sizeof(*w) + max * sizeof(w->thread[0]));
	int rc;

	if (!w)
		return -ENOMEM;
	w->run = run;
	w->max = max;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	io_list_init(&w->todo);
	rc = add_thread(w);
	if (rc) {
		workers_destroy(w);
		return rc;
	}
	*out = w;
	return 0;
}

void workers_destroy(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->threads; i++)
		pthread_join(w->thread[i], NULL);
	pthread_cond_destroy(&w->work);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void workers_submit(struct workers *w, struct bdev_channel *ch, struct bdev_io *io)
{
	channel_remote_begin(ch);
	pthread_mutex_lock(&w->lock);
	io_list_push(&w->todo, io);
	w->queued++;
	/* When there can be no further thread those that are there do it later. */
	if (w->queued > w->idle && w->threads < w->max)
		add_thread(w);
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
}
