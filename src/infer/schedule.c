/* The worker: which tokens each step carries.
 *
 * A sequence knows n tokens and has `past` of them in the cache. When one is missing it is answering: each step carries that
 * token and brings the next. When more are missing it is reading: a new prompt, or all it had said before it was preempted; the two
 * are one. Answering sequences are in every step. What the pace leaves for reading goes half to the oldest
 * reader, so that it ends, and otherwise to those that have read least, so that a short prompt need not wait for a long one.
 * Pages for a prompt are taken when it is admitted, one for each further 64 tokens as they come; when there is none left, the
 * youngest sequence goes back to the queue. The oldest never does, and the pool holds a whole context, so the work always goes on.
 * Nothing here allocates.
 *
 * What loading has left (weights that are still in the file, memory not touched) is made good between steps: in short
 * slices when there is nothing to do, else for as long as the step before it took, so that streams go on. */
#include <string.h>

#include "base/sys.h"
#include "infer/engine.h"

#define SETTLE_S 0.02 /* a slice when idle: what a request waits at most */

static bool answering(const struct seq *s) { return s->n - s->past == 1 && s->r.embed == STAVE_EMBED_NONE; }

/* ---- arrivals and departures ---- */

/* The list is kept by age: the place before the first younger one. */
static void enqueue(struct stave_engine *e, struct seq *s)
{
	struct seq **at = &e->waiting;
	while (*at && (*at)->id < s->id)
		at = &(*at)->next;
	s->next = *at;
	*at = s;
}

static void count_queued(struct stave_engine *e, int change)
{
	pthread_mutex_lock(&e->lock);
	e->queued += change;
	pthread_mutex_unlock(&e->lock);
}

static void mark_cancelled(struct stave_engine *e, uint64_t id)
{
	for (int i = 0; i < e->n_running; i++)
		e->running[i]->cancelled |= e->running[i]->id == id;
	for (struct seq *s = e->waiting; s; s = s->next)
		s->cancelled |= s->id == id;
}

/* Sleeps until there is something to do (settling is); takes over the inbox and applies cancellations. False: closing. */
static bool collect(struct stave_engine *e)
{
	pthread_mutex_lock(&e->lock);
	while (e->settled && !e->n_running && !e->waiting && !e->inbox && !e->n_cancels && !e->closing)
		pthread_cond_wait(&e->wake, &e->lock);
	struct seq **end = &e->waiting;
	while (*end)
		end = &(*end)->next;
	*end = e->inbox; /* all younger than those that wait */
	e->inbox = NULL;
	e->inbox_end = &e->inbox;
	for (size_t i = 0; i < e->n_cancels; i++)
		mark_cancelled(e, e->cancels[i]);
	e->n_cancels = 0;
	bool open = !e->closing;
	pthread_mutex_unlock(&e->lock);
	return open;
}

/* Out of its slot; the cache keeps what it can. */
static void leave_slot(struct stave_engine *e, struct seq *s)
{
	int i = 0;
	cache_leave(e, s);
	while (e->running[i] != s)
		i++;
	memmove(e->running + i, e->running + i + 1, (size_t)(--e->n_running - i) * sizeof *e->running);
	e->free_slots[e->m.info.slots - e->n_running - 1] = s->slot;
	s->slot = -1;
}

void engine_preempt(struct stave_engine *e, struct seq *s)
{
	leave_slot(e, s);
	s->preemptions++;
	e->now.preemptions++;
	enqueue(e, s);
	count_queued(e, 1);
}

void engine_finish(struct stave_engine *e, struct seq *s, enum stave_finish why, bool flush)
{
	double now = stave_now_s(), started = s->started_s > 0 ? s->started_s : now;
	struct stave_event v = {.kind = STAVE_EVENT_DONE, .id = -1, .text = "", .time_s = now, .finish = why, .prompt_tokens = s->r.n_ids,
	                        .completion_tokens = s->made, .cached_tokens = s->cached, .proposed = s->all_proposed, .accepted = s->all_accepted,
	                        .preemptions = s->preemptions, .queue_s = started - s->submitted_s, .logits_hash = s->hash};
	if (flush && s->stream.held.len) {
		v.text = s->stream.held.p;
		v.n_text = s->stream.held.len;
	}
	if (s->embedding && why != STAVE_FINISH_CANCELLED) {
		v.embedding = s->embedding;
		v.n_embedding = e->m.info.shape.C;
	}
	v.prefill_s = (s->made ? s->first_s : now) - started;
	v.decode_s = s->made ? s->last_s - s->first_s : 0;
	if (s->slot >= 0)
		leave_slot(e, s);
	s->r.event(s->r.ctx, &v);
	seq_free(s);
}

/* Ends the cancelled, all of them if `all`. */
static void sweep(struct stave_engine *e, bool all)
{
	int dropped = 0;
	for (int i = e->n_running - 1; i >= 0; i--)
		if (all || e->running[i]->cancelled)
			engine_finish(e, e->running[i], STAVE_FINISH_CANCELLED, false);
	struct seq **at = &e->waiting;
	while (*at) {
		struct seq *s = *at;
		if (!all && !s->cancelled) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		engine_finish(e, s, STAVE_FINISH_CANCELLED, false);
		dropped++;
	}
	count_queued(e, -dropped);
}

/* The oldest first, as long as there are slots and pages; each running sequence is left a page to grow by. */
static void admit(struct stave_engine *e)
{
	int admitted = 0;
	for (struct seq *s; (s = e->waiting) && e->n_running < e->m.info.slots; admitted++) {
		s->slot = e->free_slots[e->m.info.slots - e->n_running - 1];
		if (!cache_enter(e, s, e->n_running)) {
			s->slot = -1;
			break;
		}
		e->waiting = s->next;
		s->next = NULL;
		int i = e->n_running++;
		for (; i > 0 && e->running[i - 1]->id > s->id; i--) /* a preempted one may be older than some */
			e->running[i] = e->running[i - 1];
		e->running[i] = s;
		s->draft_past = 0;
		if (s->started_s <= 0)
			s->started_s = stave_now_s();
		seq_note_all(s, &e->m.samplers[s->slot]);
	}
	if (admitted)
		count_queued(e, -admitted);
}

/* ---- one step ---- */

/* Each answering sequence's next token; returns how many there are. A place in the cache may cost the youngest its own. */
static int take_answering(struct stave_engine *e)
{
	int n = 0;
	for (int i = 0; i < e->n_running; i++) {
		struct seq *s = e->running[i];
		s->take = s->proposed = s->draft_n = 0;
		if (!answering(s))
			continue;
		while (s->slot >= 0 && !cache_grow(e, s, s->n))
			engine_preempt(e, e->running[e->n_running - 1]); /* s itself, if it is the youngest */
		s->take = s->slot >= 0;
		n += s->take;
	}
	return n;
}

/* An older reader is computing the very page that s needs next: it will be there for both. */
static bool awaited(const struct stave_engine *e, const struct seq *s)
{
	int at = s->published * STAVE_PAGE;
	if (s->past != at || at + STAVE_PAGE >= s->n || s->r.prompt_logprobs || s->r.embed != STAVE_EMBED_NONE)
		return false;
	for (int i = 0; i < e->n_running && e->running[i]->id < s->id; i++) {
		const struct seq *b = e->running[i];
		if (b->r.embed == STAVE_EMBED_NONE && b->published == s->published && b->n >= at + STAVE_PAGE && b->prefix.adapter == s->prefix.adapter &&
		    b->prefix.salt[0] == s->prefix.salt[0] && b->prefix.salt[1] == s->prefix.salt[1] &&
		    !memcmp(b->tokens, s->tokens, (size_t)(at + STAVE_PAGE) * sizeof *s->tokens))
			return true;
	}
	return false;
}

static int give(struct seq *s, int budget)
{
	int left = s->n - s->past - s->take;
	int n = left < budget ? left : budget;
	s->take += n;
	return n;
}

/* Deals `budget` tokens out to the readers. */
static void take_reading(struct stave_engine *e, int budget)
{
	struct seq *oldest = NULL, *least;
	for (int i = 0; i < e->n_running; i++) {
		struct seq *s = e->running[i];
		if (answering(s))
			continue;
		cache_rejoin(e, s);
		s->waits = awaited(e, s);
		oldest = oldest || s->waits ? oldest : s;
	}
	if (!oldest)
		return;
	budget -= give(oldest, (budget + 1) / 2);
	do {
		least = NULL;
		for (int i = 0; i < e->n_running; i++) {
			struct seq *s = e->running[i];
			if (!answering(s) && !s->waits && !s->take && (!least || s->past < least->past))
				least = s;
		}
		if (least)
			budget -= give(least, budget);
	} while (least && budget > 0);
	give(oldest, budget);
}

/* Encoders read whole texts, as many as a step holds. */
static void take_texts(struct stave_engine *e, int rows)
{
	for (int i = 0; i < e->n_running; i++) {
		struct seq *s = e->running[i];
		s->take = s->n <= rows ? s->n : 0;
		rows -= s->take;
	}
}

static int assemble(struct stave_engine *e)
{
	int n = 0;
	for (int i = 0; i < e->n_running; i++) {
		struct seq *s = e->running[i];
		if (!s->take)
			continue;
		e->batch[n] = (struct stave_lm_rows){.ids = s->tokens + s->past, .n = s->take, .past = s->past, .pages = s->pages, .adapter = s->adapter};
		e->members[n++] = s;
	}
	return n;
}

static void publish_stats(struct stave_engine *e)
{
	struct stave_engine_stats *s = &e->now;
	s->running = e->n_running;
	s->cache_used = 0;
	for (int i = 0; i < e->n_running; i++)
		s->cache_used += e->running[i]->past;
	s->pages_cached = e->m.pages.cached;
	s->pages_used = e->m.pages.n - pages_spare(&e->m.pages);
	pthread_mutex_lock(&e->lock);
	e->stats = *s;
	pthread_mutex_unlock(&e->lock);
}

static void step(struct stave_engine *e)
{
	double start = stave_now_s();
	int answers = 0, tokens = 0;
	if (e->m.info.shape.encoder) {
		take_texts(e, e->m.info.chunk + e->m.rows);
	} else {
		answers = take_answering(e);
		engine_propose(e);
		take_reading(e, pace_chunk(&e->pace, answers, e->m.info.chunk));
	}
	int n = assemble(e), proposed = 0;
	stave_lm_run(e->m.lm, e->batch, n);
	for (int i = 0; i < n; i++) {
		tokens += e->batch[i].n;
		proposed += e->members[i]->proposed;
	}
	engine_answer(e, n);
	struct stave_lm_times t = stave_lm_times(e->m.lm);
	double seconds = stave_now_s() - start;
	e->now.steps++;
	e->now.step_tokens += (uint64_t)tokens;
	e->now.matmul_s += t.matmul_s;
	e->now.attention_s += t.attention_s;
	e->now.element_s += t.element_s;
	e->now.step_s += seconds;
	if (!e->m.info.shape.encoder)
		pace_note(&e->pace, answers, tokens - answers - proposed, seconds);
}

/* The times of steps until now are not those to come. */
static void settle(struct stave_engine *e, double seconds)
{
	if (e->settled || !settle_model(&e->m, seconds))
		return;
	pace_forget(&e->pace);
	pthread_mutex_lock(&e->lock);
	e->settled = true;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
}

void engine_loop(struct stave_engine *e)
{
	while (collect(e)) {
		double start = stave_now_s(), slice_s = SETTLE_S;
		sweep(e, false);
		admit(e);
		publish_stats(e);
		if (e->n_running) {
			step(e);
			slice_s = stave_now_s() - start;
		}
		publish_stats(e);
		settle(e, slice_s);
	}
	sweep(e, true);
	publish_stats(e);
}
