/* The loader thread. Two slots: the loop holds one, the thread fills the other. `wanted` >= 0 says that the thread owns the
 * slot `next` and the batches; otherwise the loop owns everything. */
#include "train/prefetch.h"

#include <string.h>

#include "base/sys.h"

void rows_take(struct rows *r, int rows, int T, struct stave_arena *arena)
{
	size_t bytes = (size_t)rows * (size_t)T * sizeof(int32_t);
	r->inputs = stave_arena_take(arena, bytes);
	r->targets = stave_arena_take(arena, bytes);
	r->start = stave_arena_take(arena, bytes);
	r->pos = stave_arena_take(arena, bytes);
}

void rows_blank(const struct rows *r, int from, int to, int T)
{
	for (int i = from; i < to; i++)
		for (int t = 0; t < T; t++) {
			size_t at = (size_t)i * (size_t)T + (size_t)t;
			r->inputs[at] = r->start[at] = 0;
			r->targets[at] = -1;
			r->pos[at] = t;
		}
}

struct rows rows_at(const struct rows *r, int row, int T)
{
	size_t at = (size_t)row * (size_t)T;
	return (struct rows){r->inputs + at, r->targets + at, r->start + at, r->pos + at};
}

void prefetch_take(struct prefetch *p, struct stave_arena *arena)
{
	rows_take(&p->slot[0], p->capacity, p->T, arena);
	rows_take(&p->slot[1], p->capacity, p->T, arena);
}

static int fill(struct prefetch *p, int64_t step, const struct rows *to, struct stave_err *err)
{
	rows_blank(to, p->rows, p->capacity, p->T);
	return p->batches->fill(p->batches->ctx, STAVE_SET_TRAIN, step, p->row0, p->rows, p->T, to->inputs, to->targets, to->start, to->pos, err);
}

static void *loader(void *arg)
{
	struct prefetch *p = arg;
	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (p->wanted < 0 && !p->quit)
			pthread_cond_wait(&p->changed, &p->lock);
		if (p->quit)
			break;
		int64_t step = p->wanted;
		struct rows to = p->slot[p->next];
		pthread_mutex_unlock(&p->lock);
		struct stave_err e = {0};
		int rc = fill(p, step, &to, &e);
		pthread_mutex_lock(&p->lock);
		p->code = rc;
		p->failed = e;
		p->wanted = -1;
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int prefetch_start(struct prefetch *p, struct stave_err *err)
{
	p->wanted = -1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	if (pthread_create(&p->thread, NULL, loader, p)) {
		pthread_cond_destroy(&p->changed);
		pthread_mutex_destroy(&p->lock);
		return stave_err_set(err, STAVE_EFAIL, "the loader thread could not be started");
	}
	p->running = true;
	return 0;
}

void prefetch_request(struct prefetch *p, int64_t step)
{
	pthread_mutex_lock(&p->lock);
	p->next = !p->next;
	p->wanted = step;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

void prefetch_rest(struct prefetch *p)
{
	pthread_mutex_lock(&p->lock);
	while (p->wanted >= 0)
		pthread_cond_wait(&p->changed, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

int prefetch_get(struct prefetch *p, struct rows *out, struct stave_err *err)
{
	double start = stave_now_s();
	prefetch_rest(p);
	p->wait_s += stave_now_s() - start;
	if (p->code) {
		if (err)
			*err = p->failed;
		return p->code;
	}
	*out = p->slot[p->next];
	return 0;
}

void prefetch_stop(struct prefetch *p)
{
	if (!p->running)
		return;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	p->running = false;
}
