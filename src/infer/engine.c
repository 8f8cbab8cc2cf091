/* The engine's outside: opening, submitting, cancelling, closing. Callers' threads touch only what the lock guards: the
 * inbox, the list of cancellations, the statistics. The worker loads the model itself, so that one OpenMP pool does all
 * the computing, then runs schedule.c's loop. */
#include "infer/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/sys.h"

static int lists_open(struct stave_engine *e, struct stave_err *err)
{
	size_t n = (size_t)e->m.info.slots;
	e->running = calloc(n, sizeof *e->running);
	e->free_slots = calloc(n, sizeof *e->free_slots);
	e->turn = calloc(n, sizeof *e->turn);
	e->batch = calloc(n, sizeof *e->batch);
	e->members = calloc(n, sizeof *e->members);
	e->rows = calloc((size_t)e->m.rows, sizeof *e->rows);
	e->drawn = calloc(n, sizeof *e->drawn);
	if (!e->running || !e->free_slots || !e->turn || !e->batch || !e->members || !e->rows || !e->drawn)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for %zu slots", n);
	for (size_t i = 0; i < n; i++)
		e->free_slots[i] = (int)(n - 1 - i);
	e->pace = (struct pace){.idle_s = e->m.idle_s, .slots = e->m.info.slots};
	e->now.pages = e->m.info.pages;
	e->now.cache_total = (int64_t)e->m.info.pages * STAVE_PAGE;
	e->stats = e->now;
	return 0;
}

static void *work(void *arg)
{
	struct stave_engine *e = arg;
	struct stave_err err = {0};
	int rc = load_model(&e->m, &e->c, &err);
	if (!rc && (rc = lists_open(e, &err)))
		unload_model(&e->m);
	pthread_mutex_lock(&e->lock);
	e->loaded = true;
	e->load_rc = rc;
	e->load_err = err;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
	if (!rc)
		engine_loop(e);
	return NULL;
}

int stave_engine_open(struct stave_engine **out, const struct stave_engine_config *c, struct stave_err *err)
{
	struct stave_engine *e = calloc(1, sizeof *e);
	if (!e)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory opening the engine");
	e->c = *c;
	e->inbox_end = &e->inbox;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->wake, NULL);
	int rc = pthread_create(&e->worker, NULL, work, e);
	if (rc) {
		free(e);
		return stave_err_set(err, STAVE_EFAIL, "starting the engine's thread: %s", strerror(rc));
	}
	pthread_mutex_lock(&e->lock);
	while (!e->loaded)
		pthread_cond_wait(&e->wake, &e->lock);
	pthread_mutex_unlock(&e->lock);
	if (e->load_rc) {
		rc = stave_err_set(err, e->load_rc, "%s", e->load_err.msg);
		stave_engine_close(e);
		return rc;
	}
	*out = e;
	return 0;
}

void stave_engine_close(struct stave_engine *e)
{
	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	e->closing = true;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
	pthread_join(e->worker, NULL);
	unload_model(&e->m);
	free(e->cancels);
	free(e->running);
	free(e->free_slots);
	free(e->turn);
	free(e->batch);
	free(e->members);
	free(e->rows);
	free(e->drawn);
	pthread_cond_destroy(&e->wake);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

void stave_engine_settle(struct stave_engine *e)
{
	pthread_mutex_lock(&e->lock);
	while (!e->settled && !e->closing)
		pthread_cond_wait(&e->wake, &e->lock);
	pthread_mutex_unlock(&e->lock);
}

const struct stave_engine_info *stave_engine_info(const struct stave_engine *e) { return &e->m.info; }

double stave_engine_token_bytes(const struct stave_engine *e, int past) { return stave_lm_token_bytes(e->m.lm, past); }

struct stave_engine_stats stave_engine_stats(struct stave_engine *e)
{
	pthread_mutex_lock(&e->lock);
	struct stave_engine_stats s = e->stats;
	s.waiting = e->queued;
	pthread_mutex_unlock(&e->lock);
	return s;
}

/* ---- requests ---- */

/* Puts the whole list into the inbox, or says why not. */
static int enqueue(struct stave_engine *e, struct seq *list, int n, uint64_t *ids, struct stave_err *err)
{
	int rc = 0;
	double now = stave_now_s();
	pthread_mutex_lock(&e->lock);
	if (e->closing)
		rc = stave_err_set(err, STAVE_EINTERRUPTED, "the engine is closing");
	else if (n > e->m.info.queue - e->queued)
		rc = stave_err_set(err, STAVE_ENOFIT, "%d sequences are waiting and the queue holds %d; try again later", e->queued, e->m.info.queue);
	for (int i = 0; !rc && i < n; i++) {
		struct seq *s = list;
		list = s->next;
		s->next = NULL;
		s->submitted_s = now;
		ids[i] = s->id = ++e->next_id;
		*e->inbox_end = s;
		e->inbox_end = &s->next;
		e->queued++;
	}
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
	return rc;
}

int stave_engine_submit(struct stave_engine *e, const struct stave_request *r, int n, uint64_t *ids, struct stave_err *err)
{
	struct seq *list = NULL, **end = &list;
	int rc = 0;
	for (int i = 0; !rc && i < n; i++)
		if (!(rc = seq_open(end, &e->m, &r[i], err)))
			end = &(*end)->next;
	if (!rc && !(rc = enqueue(e, list, n, ids, err)))
		return 0;
	while (list) {
		struct seq *next = list->next;
		seq_free(list);
		list = next;
	}
	return rc;
}

void stave_engine_cancel(struct stave_engine *e, uint64_t id)
{
	pthread_mutex_lock(&e->lock);
	if (e->n_cancels == e->cap_cancels) {
		size_t cap = e->cap_cancels ? 2 * e->cap_cancels : 64;
		uint64_t *p = realloc(e->cancels, cap * sizeof *p);
		if (p) {
			e->cancels = p;
			e->cap_cancels = cap;
		}
	}
	if (e->n_cancels < e->cap_cancels) /* else memory is out and the sequence runs to its end */
		e->cancels[e->n_cancels++] = id;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
}
