/* The thread that writes checkpoints. The step loop pays for one copy of the state into memory planned for it; files,
 * syncs and hashes happen while it goes on. One write at a time: a step loop that is faster than the disk waits, and the wait
 * is counted. `busy` says who owns the staging memory: the loop while false, the thread while true. */
#include <string.h>

#include "base/sys.h"
#include "train/checkpoint.h"

void checkpointer_take(struct checkpointer *c, const struct optimizer *opt, size_t batches_bytes, struct stave_arena *arena)
{
	c->n_p = (size_t)opt->l->n;
	c->n_v = (size_t)opt->n_v;
	c->staged = (struct checkpoint){
		.opt = opt,
		.p = stave_arena_take(arena, c->n_p * sizeof(float)),
		.m = stave_arena_take(arena, c->n_p * sizeof(float)),
		.v = stave_arena_take(arena, c->n_v * sizeof(float)),
		.batches = stave_arena_take(arena, batches_bytes),
		.batches_bytes = batches_bytes,
	};
}

static void *writer(void *arg)
{
	struct checkpointer *c = arg;
	pthread_mutex_lock(&c->lock);
	for (;;) {
		while (!c->busy && !c->quit)
			pthread_cond_wait(&c->changed, &c->lock);
		if (!c->busy)
			break;
		pthread_mutex_unlock(&c->lock);
		struct stave_err e = {0};
		int rc = checkpoint_write(&c->policy, &c->staged, &e);
		pthread_mutex_lock(&c->lock);
		c->failed = e;
		c->failed.code = rc;
		if (!rc)
			c->last_step = c->staged.state.step;
		c->busy = false;
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int checkpointer_start(struct checkpointer *c, struct stave_err *err)
{
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	if (pthread_create(&c->thread, NULL, writer, c)) {
		pthread_cond_destroy(&c->changed);
		pthread_mutex_destroy(&c->lock);
		return stave_err_set(err, STAVE_EFAIL, "the checkpoint thread could not be started");
	}
	c->running = true;
	return 0;
}

static int outcome(const struct checkpointer *c, struct stave_err *err)
{
	if (c->failed.code && err)
		*err = c->failed;
	return c->failed.code;
}

int checkpointer_poll(struct checkpointer *c, struct stave_err *err)
{
	if (!c->running)
		return 0;
	pthread_mutex_lock(&c->lock);
	int rc = c->busy ? 0 : outcome(c, err);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

int checkpointer_wait(struct checkpointer *c, struct stave_err *err)
{
	if (!c->running)
		return 0;
	pthread_mutex_lock(&c->lock);
	while (c->busy)
		pthread_cond_wait(&c->changed, &c->lock);
	int rc = outcome(c, err);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

static void copy(float *to, const float *from, size_t n)
{
	const size_t block = 1 << 18; /* floats */
#pragma omp parallel for schedule(static)
	for (size_t at = 0; at < n; at += block)
		memcpy(to + at, from + at, (n - at < block ? n - at : block) * sizeof *to);
}

int checkpointer_submit(struct checkpointer *c, const struct checkpoint *live, struct stave_err *err)
{
	double start = stave_now_s();
	int rc = checkpointer_wait(c, err);
	if (!rc) {
		copy(c->staged.p, live->p, c->n_p);
		copy(c->staged.m, live->m, c->n_p);
		copy(c->staged.v, live->v, c->n_v);
		if (c->staged.batches_bytes)
			memcpy(c->staged.batches, live->batches, c->staged.batches_bytes);
		c->staged.state = live->state;
		pthread_mutex_lock(&c->lock);
		c->busy = true;
		pthread_cond_broadcast(&c->changed);
		pthread_mutex_unlock(&c->lock);
	}
	c->stall_s += stave_now_s() - start;
	return rc;
}

void checkpointer_stop(struct checkpointer *c)
{
	if (!c->running)
		return;
	pthread_mutex_lock(&c->lock);
	c->quit = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	c->running = false;
}
