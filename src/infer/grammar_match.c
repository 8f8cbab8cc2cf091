/* Grammars opened, and matchers: the state of one answer in one grammar, with the states of its last tokens, so that they can be taken
 * back. A token is tried byte by byte beside the present state, which changes only when all of it fits. */
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_state.h"

#define HISTORY 64 /* tokens that can be taken back */

/* ---- grammars ---- */

void stave_grammar_close(struct stave_grammar *g)
{
	if (!g)
		return;
	masks_close(g);
	automaton_free(&g->a);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

int stave_grammar_open(struct stave_grammar **out, enum stave_grammar_kind kind, const char *text, size_t n, const struct stave_vocab *v, struct stave_err *err)
{
	struct stave_err local;
	struct build b = {.err = err ? err : &local};
	if (n > GRAMMAR_TEXT_MAX)
		return stave_err_set(err, STAVE_EUSAGE, "a grammar of %zu bytes; at most %zu are read", n, GRAMMAR_TEXT_MAX);
	struct stave_grammar *g = calloc(1, sizeof *g);
	if (!g)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for a grammar");
	pthread_mutex_init(&g->lock, NULL);
	g->v = v;
	if (kind == STAVE_GRAMMAR_GBNF) {
		grammar_parse_gbnf(&b, text, n);
	} else if (kind == STAVE_GRAMMAR_JSON_SCHEMA) {
		grammar_parse_schema(&b, text, n);
	} else {
		int root = build_rule(&b);
		struct ast *x = grammar_parse_regex(&b, text, n, false, true);
		if (!b.failed)
			b.rules[root].body = x;
	}
	int rc = b.failed ? STAVE_EUSAGE : grammar_compile(&b, &g->a);
	build_free(&b);
	if (!rc && !masks_open(g))
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for a grammar's tables");
	if (rc) {
		stave_grammar_close(g);
		return rc;
	}
	*out = g;
	return 0;
}

/* ---- matchers ---- */

struct moment { /* after a token */
	struct set set;
	bool ended; /* a stop token has been accepted */
};
struct stave_matcher {
	struct stave_grammar *g;
	struct cells cells;
	struct set work, scratch[2];
	struct moment past[HISTORY + 1]; /* a ring; `now` is the present */
	int now, known;                  /* moments before the present that can be gone back to */
};

void stave_matcher_close(struct stave_matcher *m)
{
	if (!m)
		return;
	cells_free(&m->cells);
	free(m->work.cell);
	free(m->scratch[0].cell);
	free(m->scratch[1].cell);
	for (int i = 0; i <= HISTORY; i++)
		free(m->past[i].set.cell);
	free(m);
}

int stave_matcher_open(struct stave_matcher **out, struct stave_grammar *g, struct stave_err *err)
{
	struct stave_matcher *m = calloc(1, sizeof *m);
	if (!m || !cells_grow(&m->cells)) {
		stave_matcher_close(m);
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for a grammar's state");
	}
	m->g = g;
	struct closing k = {&g->a, &m->cells, &m->work, &m->past[0].set};
	set_begin(&k);
	set_reach(&k, cell_of(&m->cells, g->a.start[0], 0, BOTTOM));
	set_close(&k);
	if (k.to->full) {
		stave_matcher_close(m);
		return stave_err_set(err, STAVE_EUSAGE, "the grammar is too ambiguous: more than %d ways to begin", STACKS_MAX);
	}
	*out = m;
	return 0;
}

void stave_matcher_mask(struct stave_matcher *m, uint32_t *bits)
{
	struct stave_grammar *g = m->g;
	const struct moment *now = &m->past[m->now];
	memset(bits, 0, ((size_t)g->v->V + 31) / 32 * sizeof *bits);
	if (now->ended)
		return;
	pthread_mutex_lock(&g->lock);
	masks_of(g, &m->cells, &now->set, bits);
	pthread_mutex_unlock(&g->lock);
	for (int i = 0; now->set.ends && i < g->v->n_stops; i++)
		bits[g->v->stops[i] >> 5] |= 1u << (g->v->stops[i] & 31);
}

/* Cells that no kept moment needs are dropped: they are copied, and the numbers change. */
static bool compact(struct stave_matcher *m)
{
	struct cells fresh = {0};
	int32_t *map = malloc((size_t)m->cells.n * sizeof *map), *stack = malloc((STACK_DEPTH_MAX + 2) * sizeof *stack);
	bool ok = map && stack && cells_grow(&fresh);
	for (int32_t i = 0; ok && i < m->cells.n; i++)
		map[i] = i == BOTTOM ? BOTTOM : -1;
	for (int k = 0; ok && k <= m->known; k++) {
		struct set *s = &m->past[(m->now - k + HISTORY + 1) % (HISTORY + 1)].set;
		for (int i = 0; ok && i < s->n; i++) {
			int n = 0;
			for (int32_t c = s->cell[i]; map[c] < 0; c = m->cells.c[c].rest)
				stack[n++] = c;
			while (ok && n--) {
				const struct cell *c = &m->cells.c[stack[n]];
				ok = (map[stack[n]] = cell_of(&fresh, c->position, c->count, map[c->rest])) >= 0;
			}
		}
	}
	for (int k = 0; ok && k <= m->known; k++) {
		struct set *s = &m->past[(m->now - k + HISTORY + 1) % (HISTORY + 1)].set;
		for (int i = 0; i < s->n; i++)
			s->cell[i] = map[s->cell[i]];
	}
	free(map);
	free(stack);
	if (!ok) {
		cells_free(&fresh);
		return false;
	}
	cells_free(&m->cells);
	m->cells = fresh;
	return true;
}

static struct moment *step_moment(struct stave_matcher *m)
{
	int next = (m->now + 1) % (HISTORY + 1);
	m->now = next;
	m->known = m->known < HISTORY ? m->known + 1 : HISTORY;
	return &m->past[next];
}

static bool is_stop(const struct stave_vocab *v, int32_t id)
{
	for (int i = 0; i < v->n_stops; i++)
		if (v->stops[i] == id)
			return true;
	return false;
}

bool stave_matcher_accept(struct stave_matcher *m, int32_t id)
{
	const struct stave_vocab *v = m->g->v;
	const struct moment *now = &m->past[m->now];
	if (now->ended || id < 0 || id >= v->V)
		return false;
	if (is_stop(v, id)) {
		if (!now->set.ends)
			return false;
		struct moment *to = step_moment(m);
		to->set.n = 0;
		to->set.ends = to->ended = true;
		return true;
	}
	if (!v->bytes[id] || !v->n_bytes[id] || (m->cells.n > 65536 && !compact(m)))
		return false;
	/* byte by byte between two sets; the present is untouched until the whole token has fitted */
	struct set *from = &m->past[m->now].set, *to = NULL;
	for (uint32_t i = 0; i < v->n_bytes[id]; i++, from = to) {
		to = &m->scratch[i & 1];
		struct closing k = {&m->g->a, &m->cells, &m->work, to};
		set_step(&k, from->cell, from->n, (uint8_t)v->bytes[id][i]);
		if (to->full || (!to->n && !to->ends))
			return false;
	}
	struct moment *next = step_moment(m);
	struct set swap = next->set;
	next->set = *to;
	next->ended = false;
	*to = swap;
	return true;
}

void stave_matcher_rewind(struct stave_matcher *m, int n)
{
	n = n < m->known ? n : m->known;
	if (n <= 0)
		return;
	m->now = (m->now - n + HISTORY + 1) % (HISTORY + 1);
	m->known -= n;
}

bool stave_matcher_done(const struct stave_matcher *m) { return m->past[m->now].ended || (!m->past[m->now].set.n && m->past[m->now].set.ends); }
