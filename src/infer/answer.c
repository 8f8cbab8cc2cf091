/* What becomes of the hidden states of a step: log-probabilities of prompts, sums of embeddings, draws, text.
 *
 * A sequence's last row gives its next token. When tokens were proposed, their rows follow: row j holds what the model says
 * after the first j proposals. Token j of the answer is drawn from row j with the random number that belongs to it, as if nothing
 * had been proposed; as long as the draw is the proposal, the next row is the right one. So speculation changes no answer. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "infer/engine.h"

static const float *hidden_row(const struct stave_engine *e, const struct stave_lm_rows *b, int row)
{
	return b->hidden + (size_t)row * (size_t)e->m.info.shape.C;
}

static void send_token(struct seq *s, enum stave_event_kind kind, int32_t id, size_t n_text, const struct stave_logprob *lp)
{
	struct stave_event v = {.kind = kind, .id = id, .text = n_text ? s->stream.held.p : "", .n_text = n_text, .logprob = lp, .time_s = s->last_s};
	s->r.event(s->r.ctx, &v);
}

/* ---- prompts ---- */

/* Log-probabilities of the prompt's tokens that this piece predicts, as many rows at a time as there is room for logits. */
static void score_prompt(struct stave_engine *e, struct seq *s, const struct stave_lm_rows *b)
{
	int V = e->m.info.shape.V, top = s->r.logprobs > 0 ? s->r.logprobs : 0, first = s->scored > b->past ? s->scored - b->past : 0;
	int end = b->past + b->n < s->r.n_ids ? b->n : s->r.n_ids - 1 - b->past;
	for (int at = first; at < end; at += e->m.rows) {
		int n = end - at < e->m.rows ? end - at : e->m.rows;
		for (int i = 0; i < n; i++)
			e->rows[i] = hidden_row(e, b, at + i);
		stave_lm_logits(e->m.lm, e->rows, n, e->m.logits);
		s->last_s = stave_now_s();
		for (int i = 0; i < n; i++) {
			logprob_of(e->m.logits + (size_t)i * V, V, s->r.ids[b->past + at + i + 1], top, &s->lp);
			send_token(s, STAVE_EVENT_PROMPT, s->lp.id, 0, &s->lp);
		}
		s->scored = b->past + at + n;
	}
}

/* Adds this piece's rows to the embedding, in order: the sum does not depend on how the text was cut. */
static void pool_rows(struct stave_engine *e, struct seq *s, const struct stave_lm_rows *b)
{
	int C = e->m.info.shape.C;
	size_t bytes = (size_t)C * sizeof *s->embedding;
	if (s->r.embed == STAVE_EMBED_CLS && b->past == 0)
		memcpy(s->embedding, hidden_row(e, b, 0), bytes);
	if (s->r.embed == STAVE_EMBED_LAST && b->past + b->n == s->n)
		memcpy(s->embedding, hidden_row(e, b, b->n - 1), bytes);
	if (s->r.embed != STAVE_EMBED_MEAN)
		return;
	if (b->past == 0)
		memset(s->embedding, 0, bytes);
	for (int r = 0; r < b->n; r++) {
		const float *h = hidden_row(e, b, r);
		for (int i = 0; i < C; i++)
			s->embedding[i] += h[i];
	}
}

static void finish_embedding(struct stave_engine *e, struct seq *s)
{
	int C = e->m.info.shape.C;
	double norm = 0;
	for (int i = 0; s->r.embed == STAVE_EMBED_MEAN && i < C; i++)
		s->embedding[i] /= (float)s->n;
	for (int i = 0; i < C; i++)
		norm += (double)s->embedding[i] * s->embedding[i];
	for (int i = 0; s->r.normalize && norm > 0 && i < C; i++)
		s->embedding[i] = (float)(s->embedding[i] / sqrt(norm));
	engine_finish(e, s, STAVE_FINISH_STOP, false);
}

/* ---- answers ---- */

static bool ends(const struct stave_engine *e, const struct seq *s, int32_t id)
{
	if (!s->r.ignore_eos && stave_tokenizer_is_stop(e->m.tokenizer, id))
		return true;
	for (int i = 0; i < s->r.n_stop_ids; i++)
		if (s->r.stop_ids[i] == id)
			return true;
	return false;
}

int32_t engine_draw(struct stave_engine *e, struct seq *s, int ahead, const float *logits)
{
	struct sampler_bans bans = {0};
	if (s->matcher) {
		uint32_t *bits = e->m.allowed + (size_t)s->slot * (size_t)e->m.mask_words;
		stave_matcher_mask(s->matcher, bits);
		bans.allowed = bits;
	}
	if (s->made + ahead < s->r.min_tokens) {
		bans.ids[0] = e->m.stops;
		bans.n[0] = s->r.ignore_eos ? 0 : e->m.n_stops;
		bans.ids[1] = s->r.stop_ids;
		bans.n[1] = s->r.n_stop_ids;
	}
	return sampler_draw(&e->m.samplers[s->slot], &s->r.sampling, &bans, logits, (uint64_t)(s->made + ahead));
}

/* Becomes the next known token of s. */
static void append(struct stave_engine *e, struct seq *s, int32_t id)
{
	if (!s->made++)
		s->first_s = s->last_s;
	s->tokens[s->n++] = id;
	seq_note_last(s, &e->m.samplers[s->slot]);
}

/* A token has been drawn for s from `logits` (-1: nothing may follow): text out, or the end, of which false is told. */
static bool deliver(struct stave_engine *e, struct seq *s, int32_t id, const float *logits)
{
	bool ended = false, stopped = false, last = id < 0 || (s->matcher && !stave_matcher_accept(s->matcher, id));
	s->last_s = stave_now_s();
	if (!last) {
		append(e, s, id);
		bool complete = s->matcher && stave_matcher_done(s->matcher);
		if (!(ended = ends(e, s, id))) {
			stave_decode(e->m.tokenizer, &id, 1, false, &s->stream.held, NULL);
			size_t n = stream_ready(&s->stream, &stopped);
			send_token(s, STAVE_EVENT_TOKEN, id, n, s->r.logprobs >= 0 ? &s->lp : NULL);
			stream_drop(&s->stream, n);
		}
		ended |= complete;
		last = ended || stopped || s->made >= s->limit;
	}
	if (last) {
		s->hash = stave_hash64(logits, (size_t)e->m.info.shape.V * sizeof *logits, 0);
		engine_finish(e, s, ended || stopped ? STAVE_FINISH_STOP : STAVE_FINISH_LENGTH, !stopped);
	}
	return !last;
}

/* Judges s's draw from its row `at`: delivered, and true if the next row is to be drawn from too. */
static bool judge(struct stave_engine *e, struct seq *s, int32_t id)
{
	const float *logits = e->m.logits + (size_t)(s->row + s->at) * (size_t)e->m.info.shape.V;
	bool more = s->at < s->proposed && id == s->tokens[s->n];
	if (more) { /* it has been computed */
		s->past++;
		s->at++;
		s->all_accepted++;
		e->now.accepted++;
	}
	int proposed = s->proposed, accepted = s->at;
	if (!deliver(e, s, id, logits))
		return false;
	if (!more && proposed)
		speculate_note(s, proposed, accepted, e->m.speculate);
	return more;
}

/* Draws for every sequence of `turn`, whose rows of hidden states are in e->rows. */
static void draw(struct stave_engine *e, int n, int rows)
{
	int V = e->m.info.shape.V;
	stave_lm_logits(e->m.lm, e->rows, rows, e->m.logits);
	while (n) {
		int again = 0;
#pragma omp parallel for num_threads(stave_threads()) schedule(dynamic) if (n > 1 && (size_t)n * (size_t)V > 100000)
		for (int i = 0; i < n; i++) {
			struct seq *s = e->turn[i];
			const float *logits = e->m.logits + (size_t)(s->row + s->at) * (size_t)V;
			e->drawn[i] = engine_draw(e, s, 0, logits);
			if (e->drawn[i] >= 0 && s->r.logprobs >= 0)
				logprob_of(logits, V, e->drawn[i], s->r.logprobs, &s->lp);
		}
		for (int i = 0; i < n; i++)
			if (judge(e, e->turn[i], e->drawn[i]))
				e->turn[again++] = e->turn[i];
		n = again;
	}
}

/* ---- a step's rows ---- */

/* Takes note of the rows of one sequence; true if it is its turn to draw. */
static bool take_rows(struct stave_engine *e, struct seq *s, const struct stave_lm_rows *b)
{
	s->past += b->n - s->proposed;
	if (s->r.prompt_logprobs && b->past < s->r.n_ids)
		score_prompt(e, s, b);
	if (s->r.embed != STAVE_EMBED_NONE)
		pool_rows(e, s, b);
	cache_publish(e, s);
	if (s->past < s->n)
		return false;
	if (s->r.embed != STAVE_EMBED_NONE)
		finish_embedding(e, s);
	else if (s->limit == 0)
		engine_finish(e, s, STAVE_FINISH_LENGTH, false);
	else
		return true;
	return false;
}

void engine_answer(struct stave_engine *e, int n)
{
	int turns = 0, rows = 0;
	for (int i = 0; i < n; i++)
		if (!take_rows(e, e->members[i], &e->batch[i]))
			e->members[i] = NULL; /* it may be gone */
	for (int i = 0; i < n; i++) {
		struct seq *s = e->members[i];
		if (!s)
			continue;
		s->row = rows;
		s->at = 0;
		for (int k = 0; k <= s->proposed; k++)
			e->rows[rows++] = hidden_row(e, &e->batch[i], e->batch[i].n - 1 - s->proposed + k);
		e->turn[turns++] = s;
	}
	if (turns)
		draw(e, turns, rows);
}
