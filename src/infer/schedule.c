/* The worker: which tokens each step carries, and what becomes of the logits.
 *
 * A step takes the next token of every sequence that is answering, then prompt pieces, oldest request first, up to `chunk`
 * tokens. A prompt is always cut at multiples of `chunk` from its own start, never where a neighbour left room:
 * the arithmetic of a row depends on the size of its piece, and an answer must not depend on who else was there.
 * Nothing here allocates except the text held back for stop strings. */
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "infer/engine.h"

/* ---- events ---- */

static void send_token(struct seq *s, enum stave_event_kind kind, size_t n_text, const struct stave_logprob *lp)
{
	struct stave_event v = {.kind = kind, .id = lp ? lp->id : s->last, .text = n_text ? s->stream.held.p : "", .n_text = n_text, .logprob = lp, .time_s = s->last_s};
	s->r.event(s->r.ctx, &v);
}

/* The last event, with the text still held if `flush`; frees the sequence and its slot. */
static void finish(struct stave_engine *e, struct seq *s, enum stave_finish why, bool flush)
{
	double now = stave_now_s(), started = s->slot >= 0 ? s->started_s : now;
	struct stave_event v = {.kind = STAVE_EVENT_DONE, .id = -1, .text = "", .time_s = now, .finish = why, .prompt_tokens = s->r.n_ids,
	                        .completion_tokens = s->made, .queue_s = started - s->submitted_s, .logits_hash = s->hash};
	if (flush && s->stream.held.len) {
		v.text = s->stream.held.p;
		v.n_text = s->stream.held.len;
	}
	v.prefill_s = (s->made ? s->first_s : now) - started;
	v.decode_s = s->made ? s->last_s - s->first_s : 0;
	if (s->slot >= 0)
		e->running[s->slot] = NULL;
	s->r.event(s->r.ctx, &v);
	seq_free(s);
}

/* ---- arrivals and departures ---- */

/* Sleeps until there is something to do; takes over the inbox and applies cancellations. False: closing. */
static bool collect(struct stave_engine *e, bool idle)
{
	pthread_mutex_lock(&e->lock);
	while (idle && !e->waiting && !e->inbox && !e->n_cancels && !e->closing)
		pthread_cond_wait(&e->wake, &e->lock);
	if (e->inbox) {
		*e->waiting_end = e->inbox;
		e->waiting_end = e->inbox_end;
		e->inbox = NULL;
		e->inbox_end = &e->inbox;
	}
	bool open = !e->closing;
	size_t n = e->n_cancels;
	for (size_t i = 0; i < n; i++) {
		uint64_t id = e->cancels[i];
		for (int k = 0; k < e->m.info.slots; k++)
			if (e->running[k] && e->running[k]->id == id)
				e->running[k]->limit = -1;
		for (struct seq *s = e->waiting; s; s = s->next)
			if (s->id == id)
				s->limit = -1;
	}
	e->n_cancels = 0;
	pthread_mutex_unlock(&e->lock);
	return open;
}

/* Ends the cancelled (limit < 0), all of them if `all`. */
static void sweep(struct stave_engine *e, bool all)
{
	int dropped = 0;
	for (int k = 0; k < e->m.info.slots; k++)
		if (e->running[k] && (all || e->running[k]->limit < 0))
			finish(e, e->running[k], STAVE_FINISH_CANCELLED, false);
	struct seq **at = &e->waiting;
	while (*at) {
		struct seq *s = *at;
		if (!all && s->limit >= 0) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		finish(e, s, STAVE_FINISH_CANCELLED, false);
		dropped++;
	}
	e->waiting_end = at;
	pthread_mutex_lock(&e->lock);
	e->queued -= dropped;
	pthread_mutex_unlock(&e->lock);
}

static void admit(struct stave_engine *e)
{
	int admitted = 0;
	double now = stave_now_s();
	for (int k = 0; k < e->m.info.slots && e->waiting; k++) {
		if (e->running[k])
			continue;
		struct seq *s = e->waiting;
		e->waiting = s->next;
		if (!e->waiting)
			e->waiting_end = &e->waiting;
		s->next = NULL;
		s->slot = k;
		s->started_s = now;
		e->running[k] = s;
		sampler_reset(&e->m.samplers[k]);
		for (int i = 0; i < s->r.n_ids; i++)
			sampler_note(&e->m.samplers[k], s->r.ids[i], false);
		admitted++;
	}
	pthread_mutex_lock(&e->lock);
	e->queued -= admitted;
	pthread_mutex_unlock(&e->lock);
}

/* ---- one step ---- */

/* The oldest sequence still reading its prompt that is not in the batch yet. */
static struct seq *oldest_reader(const struct stave_engine *e, int n)
{
	struct seq *best = NULL;
	for (int k = 0; k < e->m.info.slots; k++) {
		struct seq *s = e->running[k];
		if (!s || s->past >= s->r.n_ids || (best && s->id > best->id))
			continue;
		bool in = false;
		for (int i = 0; i < n; i++)
			in |= e->members[i] == s;
		best = in ? best : s;
	}
	return best;
}

static int assemble(struct stave_engine *e)
{
	int n = 0, budget = e->m.info.chunk;
	struct seq *s;
	for (int k = 0; k < e->m.info.slots; k++)
		if ((s = e->running[k]) && s->past >= s->r.n_ids) {
			e->batch[n] = (struct stave_decode){.slot = k, .past = s->past, .n = 1, .ids = &s->last};
			e->members[n++] = s;
		}
	while ((s = oldest_reader(e, n))) {
		int piece = e->m.info.chunk - s->past % e->m.info.chunk, left = s->r.n_ids - s->past;
		piece = piece < left ? piece : left;
		if (piece > budget)
			break;
		budget -= piece;
		e->batch[n] = (struct stave_decode){.slot = s->slot, .past = s->past, .n = piece, .ids = s->r.ids + s->past};
		e->members[n++] = s;
	}
	return n;
}

/* Log-probabilities of the prompt's tokens that this piece predicts: its rows, as many at a time as there is room for logits. */
static void score_prompt(struct stave_engine *e, struct seq *s, const struct stave_decode *b)
{
	int V = e->m.layout.shape.V, top = s->r.logprobs > 0 ? s->r.logprobs : 0;
	s->last_s = stave_now_s();
	for (int at = 0; at < b->n; at += e->m.info.slots) {
		int n = b->n - at < e->m.info.slots ? b->n - at : e->m.info.slots;
		for (int i = 0; i < n; i++)
			e->rows[i] = b->hidden + (size_t)(at + i) * (size_t)e->m.layout.shape.C;
		stave_decoder_logits(e->m.decoder, e->rows, n, e->m.logits);
		for (int i = 0; i < n && b->past + at + i + 1 < s->r.n_ids; i++) {
			logprob_of(e->m.logits + (size_t)i * V, V, s->r.ids[b->past + at + i + 1], top, &s->lp);
			send_token(s, STAVE_EVENT_PROMPT, 0, &s->lp);
		}
	}
}

static bool ends(const struct stave_engine *e, const struct seq *s, int32_t id)
{
	if (!s->r.ignore_eos && id == stave_tokenizer_eos(e->m.tokenizer))
		return true;
	for (int i = 0; i < s->r.n_stop_ids; i++)
		if (s->r.stop_ids[i] == id)
			return true;
	return false;
}

/* A token has been drawn for s from `logits`: text out, or the end. */
static void deliver(struct stave_engine *e, struct seq *s, int32_t id, const float *logits)
{
	double now = stave_now_s();
	if (!s->made++)
		s->first_s = now;
	s->last_s = now;
	s->last = id;
	sampler_note(&e->m.samplers[s->slot], id, true);
	bool ended = ends(e, s, id), stopped = false, last = ended || s->made >= s->limit;
	if (!ended) {
		stave_decode(e->m.tokenizer, &id, 1, false, &s->stream.held, NULL);
		size_t n = stream_ready(&s->stream, &stopped);
		last |= stopped;
		if (last)
			s->hash = stave_hash64(logits, (size_t)e->m.layout.shape.V * sizeof *logits, 0);
		send_token(s, STAVE_EVENT_TOKEN, n, s->r.logprobs >= 0 ? &s->lp : NULL);
		stream_drop(&s->stream, n);
	} else {
		s->hash = stave_hash64(logits, (size_t)e->m.layout.shape.V * sizeof *logits, 0);
	}
	if (last)
		finish(e, s, ended || stopped ? STAVE_FINISH_STOP : STAVE_FINISH_LENGTH, !stopped);
}

/* Draws for every sequence of `turn`, whose rows of hidden states are in e->rows. */
static void draw(struct stave_engine *e, int n)
{
	int V = e->m.layout.shape.V;
	stave_decoder_logits(e->m.decoder, e->rows, n, e->m.logits);
#pragma omp parallel for num_threads(stave_threads()) schedule(dynamic) if ((size_t)n * (size_t)V > 100000)
	for (int i = 0; i < n; i++) {
		struct seq *s = e->turn[i];
		const float *logits = e->m.logits + (size_t)i * V;
		e->drawn[i] = sampler_draw(&e->m.samplers[s->slot], &s->r.sampling, logits, (uint64_t)s->made);
		if (s->r.logprobs >= 0)
			logprob_of(logits, V, e->drawn[i], s->r.logprobs, &s->lp);
	}
	for (int i = 0; i < n; i++)
		deliver(e, e->turn[i], e->drawn[i], e->m.logits + (size_t)i * V);
}

static void step(struct stave_engine *e)
{
	int n = assemble(e), turns = 0, tokens = 0, C = e->m.layout.shape.C;
	stave_decoder_run(e->m.decoder, e->batch, n);
	for (int i = 0; i < n; i++) {
		struct seq *s = e->members[i];
		const struct stave_decode *b = &e->batch[i];
		if (s->past < s->r.n_ids && s->r.prompt_logprobs)
			score_prompt(e, s, b);
		tokens += b->n;
		s->past += b->n;
	}
	for (int i = 0; i < n; i++) {
		struct seq *s = e->members[i];
		if (s->past < s->r.n_ids)
			continue;
		if (s->limit == 0) {
			finish(e, s, STAVE_FINISH_LENGTH, false);
			continue;
		}
		e->rows[turns] = e->batch[i].hidden + (size_t)(e->batch[i].n - 1) * (size_t)C;
		e->turn[turns++] = s;
	}
	if (turns)
		draw(e, turns);
	pthread_mutex_lock(&e->lock);
	e->stats.steps++;
	e->stats.step_tokens += (uint64_t)tokens;
	pthread_mutex_unlock(&e->lock);
}

static int count_running(struct stave_engine *e)
{
	int n = 0;
	int64_t used = 0;
	for (int k = 0; k < e->m.info.slots; k++)
		if (e->running[k]) {
			n++;
			used += e->running[k]->past;
		}
	pthread_mutex_lock(&e->lock);
	e->stats.running = n;
	e->stats.cache_used = used;
	e->stats.cache_total = (int64_t)e->m.info.slots * e->m.info.context;
	pthread_mutex_unlock(&e->lock);
	return n;
}

void engine_loop(struct stave_engine *e)
{
	int running = 0;
	while (collect(e, running == 0)) {
		sweep(e, false);
		admit(e);
		if ((running = count_running(e)))
			step(e);
		running = count_running(e);
	}
	sweep(e, true);
	count_running(e);
}
