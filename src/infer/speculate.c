/* Speculation: what probably comes next is proposed, and the model judges several tokens in one pass over its weights. Decoding is
 * bound by reading them, so a judged token costs little; a wrong proposal costs its row. Proposals come from the text itself
 * (n-gram lookup, Saxena 2023: code, quotations and summaries repeat themselves) or from a small model (Leviathan et al. 2023). A proposal is
 * accepted if the draw that belongs to its place says the same (answer.c): for that the small model draws with the same random
 * numbers. How many are proposed follows how many were right. */
#include <string.h>

#include "infer/engine.h"

#define NGRAM_LONGEST 64 /* longer agreement makes no difference */
#define CATCH_UP 32      /* tokens of a prompt that the draft model reads per step while others wait */
#define PAUSE_MAX 32     /* steps without proposals after many that were wrong */

int propose_ngram(const int32_t *tokens, int n, int least, int want, int32_t *out)
{
	int best = least - 1, from = 0;
	for (int at = n - 1; at > best && best < NGRAM_LONGEST; at--) { /* tokens[at - len .. at) against tokens[n - len .. n) */
		int len = 0;
		while (len < at && len < NGRAM_LONGEST && tokens[at - 1 - len] == tokens[n - 1 - len])
			len++;
		if (len > best) {
			best = len;
			from = at;
		}
	}
	if (!from)
		return 0;
	for (int i = 0; i < want; i++) /* what overlaps the end continues with itself: a loop goes on */
		out[i] = from + i < n ? tokens[from + i] : out[from + i - n];
	return want;
}

void speculate_note(struct seq *s, int proposed, int accepted, int most)
{
	if (s->draft_n) /* its cache holds all proposals but the last */
		s->draft_past = s->draft_n + (accepted < proposed ? accepted : proposed - 1);
	if (accepted == proposed)
		s->spec = 2 * s->spec < most ? 2 * s->spec : most;
	else
		s->spec = accepted + 1;
	s->misses = accepted ? 0 : s->misses + 1;
	if (s->misses > 1)
		s->pause = s->misses < 5 ? 1 << s->misses : PAUSE_MAX;
}

/* How many tokens may be proposed for s now: what is useful, and has a place in the cache without taking another's. */
static int wanted(struct stave_engine *e, struct seq *s)
{
	int want = s->spec < e->m.speculate ? s->spec : e->m.speculate;
	if (s->pause > 0) {
		s->pause--;
		return 0;
	}
	want = want < s->limit - s->made - 1 ? want : s->limit - s->made - 1;
	want = want < e->m.info.context - s->n ? want : e->m.info.context - s->n;
	if (want > 0 && !cache_grow(e, s, s->n + want)) {
		int room = s->n_pages * STAVE_PAGE - s->n;
		want = want < room ? want : room;
	}
	return want > 0 ? want : 0;
}

/* ---- the draft model ---- */

/* Runs the first n entries of e->batch on the draft model and draws token `at` ahead for those that have come so far. */
static void draft_step(struct stave_engine *e, int n, int at)
{
	int rows = 0, V = stave_source_shape(e->m.draft_source)->V, C = stave_source_shape(e->m.draft_source)->C;
	stave_lm_run(e->m.draft, e->batch, n);
	for (int i = 0; i < n; i++) {
		struct seq *s = e->members[i];
		const struct stave_lm_rows *b = &e->batch[i];
		if (b->past + b->n == s->n + at) {
			e->turn[rows] = s;
			e->rows[rows++] = b->hidden + (size_t)(b->n - 1) * (size_t)C;
		}
	}
	if (rows)
		stave_lm_logits(e->m.draft, e->rows, rows, e->m.draft_logits);
	for (int i = 0; i < rows; i++) {
		struct seq *s = e->turn[i];
		int32_t id = engine_draw(e, s, at, e->m.draft_logits + (size_t)i * (size_t)V);
		if (id < 0 || (s->matcher && !stave_matcher_accept(s->matcher, id)))
			s->wanted = at; /* the answer can only end there */
		else
			s->tokens[s->n + s->proposed++] = id;
	}
}

static struct stave_lm_rows draft_rows(const struct stave_engine *e, const struct seq *s, int past, int n)
{
	return (struct stave_lm_rows){.ids = s->tokens + past, .n = n, .past = past, .pages = e->m.draft_pages + (size_t)s->slot * (size_t)e->m.pages_each};
}

/* Up to `wanted` proposals for each of the first n members. The cache of the draft model must have caught up with the text first. */
static void draft(struct stave_engine *e, int n)
{
	int budget = e->m.info.slots + e->m.info.chunk, most = 0, k = 0;
	for (int i = 0; i < n; i++) {
		struct seq *s = e->members[i];
		int left = s->n - s->draft_past, piece = e->n_running > 1 && left > CATCH_UP ? CATCH_UP : left;
		piece = piece < budget - (n - 1 - i) ? piece : budget - (n - 1 - i);
		e->batch[i] = draft_rows(e, s, s->draft_past, piece);
		budget -= piece;
		s->draft_past += piece;
	}
	draft_step(e, n, 0);
	for (int i = 0; i < n; i++) {
		struct seq *s = e->members[i];
		if (!s->proposed)
			continue;
		s->draft_n = s->n; /* its cache holds the whole text */
		most = s->wanted > most ? s->wanted : most;
		e->members[k++] = s;
	}
	for (int at = 1; at < most && k; at++) {
		n = k;
		k = 0;
		for (int i = 0; i < n; i++)
			if (e->members[i]->wanted > at)
				e->members[k++] = e->members[i];
		for (int i = 0; i < k; i++)
			e->batch[i] = draft_rows(e, e->members[i], e->members[i]->n + at - 1, 1);
		draft_step(e, k, at);
	}
}

void engine_propose(struct stave_engine *e)
{
	int n = 0;
	if (!e->m.speculate)
		return;
	for (int i = 0; i < e->n_running; i++) {
		struct seq *s = e->running[i];
		if (!s->take || !(s->wanted = wanted(e, s)))
			continue;
		if (e->m.ngram)
			s->proposed = propose_ngram(s->tokens, s->n, e->m.ngram, s->wanted, s->tokens + s->n);
		if (!s->proposed && e->m.draft && s->draftable)
			e->members[n++] = s;
	}
	if (n)
		draft(e, n);
	for (int i = 0; i < e->n_running; i++) {
		struct seq *s = e->running[i];
		if (s->matcher && s->draft_n) /* its state ran ahead with the draft model's */
			stave_matcher_rewind(s->matcher, s->proposed);
		s->take += s->proposed;
		s->all_proposed += s->proposed;
		e->now.proposed += (uint64_t)s->proposed;
	}
}
