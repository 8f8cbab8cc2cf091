/* Matching: where in the grammar an answer stands, and which tokens may come next.
 *
 * A state is a set of stacks: the top is a position that reads bytes, below it the positions to return to. Stacks are linked
 * cells, each distinct (position, rest) once. After each byte the set is closed: calls are entered and ended rules left until
 * every top reads bytes; whether the whole answer may end here is one flag.
 *
 * Masks. What a token may do depends on the top of a stack alone until its bytes leave the top's rule; so for a top position the
 * vocabulary's trie is walked once over an unknown rest, and two things are kept: the tokens that fit, and the nodes of
 * the trie at which the rule may end. For a given stack those few nodes are walked on from the position below, and so on. The walk itself
 * runs on an automaton made lazily from sets of stacks over the unknown rest, one table look-up a node. All of it belongs to the
 * grammar, is shared by its matchers under a lock, and is dropped and begun anew beyond its budget. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_build.h"

#define STACKS_MAX 256       /* of one state */
#define STACK_DEPTH_MAX 1000
#define CELLS_MAX (1 << 20)
#define HISTORY 64           /* tokens that can be taken back */
#define STATES_BUDGET 20000  /* of the lazy automaton, about 1 KiB each */
#define MASKS_BUDGET ((size_t)64 << 20)

/* ---- stacks ---- */

struct cell {
	int32_t position, rest;
	int32_t depth;
};
enum { BOTTOM = 0 }; /* cell 0: what is below is unknown, or nothing */
struct cells {
	struct cell *c;
	int32_t n, cap;
	int32_t *slot;
	uint32_t mask;
	uint32_t *seen, stamp; /* (cap) */
};
struct set { /* closed: tops that read bytes */
	int32_t *cell;
	int n, cap;
	bool ends;  /* the bottom is reached: the whole may end here */
	bool full;  /* too many stacks, or out of memory: the state is given up */
};

static void cells_free(struct cells *c)
{
	free(c->c);
	free(c->slot);
	free(c->seen);
	*c = (struct cells){0};
}

static uint32_t cell_hash(int32_t position, int32_t rest)
{
	uint64_t h = ((uint64_t)(uint32_t)position << 32 | (uint32_t)rest) * 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32);
}

static bool cells_grow(struct cells *c)
{
	int32_t cap = c->cap ? 2 * c->cap : 1024;
	struct cell *p = realloc(c->c, (size_t)cap * sizeof *p);
	if (p)
		c->c = p;
	uint32_t *seen = realloc(c->seen, (size_t)cap * sizeof *seen);
	if (seen)
		c->seen = seen;
	int32_t *slot = malloc(2 * (size_t)cap * sizeof *slot);
	if (!p || !seen || !slot) {
		free(slot);
		return false;
	}
	memset(seen + c->cap, 0, (size_t)(cap - c->cap) * sizeof *seen);
	memset(slot, 0xff, 2 * (size_t)cap * sizeof *slot);
	c->mask = 2 * (uint32_t)cap - 1;
	for (int32_t i = 1; i < c->n; i++) {
		uint32_t h = cell_hash(c->c[i].position, c->c[i].rest) & c->mask;
		while (slot[h] >= 0)
			h = (h + 1) & c->mask;
		slot[h] = i;
	}
	free(c->slot);
	c->slot = slot;
	c->cap = cap;
	if (!c->n) {
		c->c[0] = (struct cell){-1, -1, 0};
		c->n = 1;
	}
	return true;
}

/* The cell (position over rest), or -1: too deep, too many, out of memory. */
static int32_t cell_of(struct cells *c, int32_t position, int32_t rest)
{
	if (c->n == c->cap && (c->n >= CELLS_MAX || !cells_grow(c)))
		return -1;
	uint32_t h = cell_hash(position, rest) & c->mask;
	for (; c->slot[h] >= 0; h = (h + 1) & c->mask)
		if (c->c[c->slot[h]].position == position && c->c[c->slot[h]].rest == rest)
			return c->slot[h];
	if (c->c[rest].depth >= STACK_DEPTH_MAX)
		return -1;
	c->c[c->n] = (struct cell){position, rest, c->c[rest].depth + 1};
	c->seen[c->n] = 0;
	c->slot[h] = c->n;
	return c->n++;
}

static void set_add(struct set *s, int32_t cell)
{
	if (s->n == s->cap) {
		int cap = s->cap ? 2 * s->cap : 16;
		int32_t *p = realloc(s->cell, (size_t)cap * sizeof *p);
		if (!p) {
			s->full = true;
			return;
		}
		s->cell = p;
		s->cap = cap;
	}
	s->cell[s->n++] = cell;
}

struct closing {
	const struct automaton *a;
	struct cells *c;
	struct set *work; /* cells still to be closed */
	struct set *to;
};

static void reach(struct closing *k, int32_t cell)
{
	if (cell < 0)
		return; /* too deep: this way is not taken */
	if (cell == BOTTOM) {
		k->to->ends = true;
	} else if (k->c->seen[cell] != k->c->stamp) {
		k->c->seen[cell] = k->c->stamp;
		set_add(k->work, cell);
	}
}

/* Empties `work` into `to`. */
static void close_set(struct closing *k)
{
	while (k->work->n) {
		int32_t cell = k->work->cell[--k->work->n], rest = k->c->c[cell].rest;
		const struct position *p = &k->a->p[k->c->c[cell].position];
		if (p->n_edges) {
			if (k->to->n >= STACKS_MAX) {
				k->to->full = true;
				return;
			}
			set_add(k->to, cell);
		}
		for (int32_t i = 0; i < p->n_calls; i++) {
			const struct call *c = &k->a->calls[p->call + i];
			/* a call with nothing after it needs no return: long lists stay flat */
			int32_t back = k->a->p[c->to].last ? rest : cell_of(k->c, c->to, rest);
			if (back >= 0)
				reach(k, cell_of(k->c, k->a->start[c->rule], back));
		}
		if (p->accept)
			reach(k, rest);
	}
}

static int32_t edge_to(const struct automaton *a, int32_t position, uint8_t byte)
{
	const struct position *p = &a->p[position];
	for (int32_t i = 0; i < p->n_edges; i++)
		if (byte <= a->edges[p->edge + i].hi)
			return byte >= a->edges[p->edge + i].lo ? a->edges[p->edge + i].to : -1;
	return -1;
}

static void begin_set(struct closing *k)
{
	k->to->n = k->work->n = 0;
	k->to->ends = k->to->full = false;
	if (!++k->c->stamp) { /* wrapped */
		memset(k->c->seen, 0, (size_t)k->c->cap * sizeof *k->c->seen);
		k->c->stamp = 1;
	}
}

/* The set after a byte. */
static void step_set(struct closing *k, const int32_t *cell, int n, uint8_t byte)
{
	begin_set(k);
	for (int i = 0; i < n; i++) {
		int32_t to = edge_to(k->a, k->c->c[cell[i]].position, byte);
		if (to >= 0)
			reach(k, cell_of(k->c, to, k->c->c[cell[i]].rest));
	}
	close_set(k);
}

static int by_number(const void *a, const void *b) { return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b); }

/* ---- the lazy automaton over an unknown rest, and what is kept of walks ---- */

enum { UNKNOWN = -2, DEAD = -1 };
struct lazy_state {
	int32_t *next;  /* (256), NULL until first asked */
	int32_t set, n; /* cells */
	bool ends;
};
struct kept { /* of a top position */
	uint32_t *bits;    /* or */
	int32_t *tokens;
	int32_t n_tokens;
	int32_t *ends;     /* nodes of the trie at which the rule may end */
	int32_t n_ends;
};
struct stave_grammar {
	pthread_mutex_t lock;
	const struct stave_vocab *v;
	struct automaton a;
	/* lock: */
	struct cells cells;
	struct lazy_state *state;
	int32_t n_states, cap_states;
	int32_t *sets, n_sets, cap_sets;
	int32_t *slot;           /* hash of sets -> state */
	uint32_t slot_mask;
	int32_t *start_raw, *start_closed; /* (positions) states, UNKNOWN until asked */
	struct kept **kept;      /* (positions) */
	size_t kept_bytes;
	struct set work, to;
	int32_t *path;           /* (longest + 1) states on the way down the trie */
	uint32_t *bits;          /* scratch: (V + 31) / 32 */
	int32_t *tokens, n_tokens; /* scratch: (V) */
	int32_t *ends[2], n_ends[2], cap_ends[2];
};

static void forget(struct stave_grammar *g)
{
	for (int32_t i = 0; i < g->n_states; i++)
		free(g->state[i].next);
	g->n_states = g->n_sets = 0;
	cells_free(&g->cells);
	if (g->slot)
		memset(g->slot, 0xff, ((size_t)g->slot_mask + 1) * sizeof *g->slot);
	for (int32_t i = 0; i < g->a.n; i++)
		g->start_raw[i] = g->start_closed[i] = UNKNOWN;
}

static void forget_kept(struct stave_grammar *g)
{
	for (int32_t i = 0; i < g->a.n; i++)
		if (g->kept[i]) {
			free(g->kept[i]->bits);
			free(g->kept[i]->tokens);
			free(g->kept[i]->ends);
			free(g->kept[i]);
			g->kept[i] = NULL;
		}
	g->kept_bytes = 0;
}

static bool reserve(int32_t **p, int32_t *cap, int32_t n)
{
	if (n <= *cap)
		return true;
	int32_t want = *cap ? *cap : 256;
	while (want < n)
		want *= 2;
	int32_t *q = realloc(*p, (size_t)want * sizeof *q);
	if (!q)
		return false;
	*p = q;
	*cap = want;
	return true;
}

static uint32_t set_hash(const int32_t *p, int n, bool ends)
{
	uint32_t h = 2166136261u ^ ends;
	for (int i = 0; i < n; i++)
		h = (h ^ (uint32_t)p[i]) * 16777619u;
	return h ^ h >> 13;
}

/* The number of the state whose set is g->to; DEAD when it is empty or memory is out. */
static int32_t state_of(struct stave_grammar *g)
{
	struct set *s = &g->to;
	if (s->full || (!s->n && !s->ends))
		return DEAD;
	qsort(s->cell, (size_t)s->n, sizeof *s->cell, by_number);
	uint32_t h = set_hash(s->cell, s->n, s->ends) & g->slot_mask;
	for (; g->slot[h] >= 0; h = (h + 1) & g->slot_mask) {
		const struct lazy_state *x = &g->state[g->slot[h]];
		if (x->n == s->n && x->ends == s->ends && !memcmp(g->sets + x->set, s->cell, (size_t)s->n * sizeof *s->cell))
			return g->slot[h];
	}
	if (g->n_states == g->cap_states || !reserve(&g->sets, &g->cap_sets, g->n_sets + s->n))
		return DEAD;
	memcpy(g->sets + g->n_sets, s->cell, (size_t)s->n * sizeof *s->cell);
	g->state[g->n_states] = (struct lazy_state){.set = g->n_sets, .n = s->n, .ends = s->ends};
	g->n_sets += s->n;
	g->slot[h] = g->n_states;
	return g->n_states++;
}

static struct closing closing(struct stave_grammar *g) { return (struct closing){&g->a, &g->cells, &g->work, &g->to}; }

/* position over the unknown rest: as it stands, or with what it calls and leaves entered and left. */
static int32_t start_state(struct stave_grammar *g, int32_t position, bool closed)
{
	int32_t *known = closed ? &g->start_closed[position] : &g->start_raw[position];
	if (*known != UNKNOWN)
		return *known;
	struct closing k = closing(g);
	if (!g->cells.n && !cells_grow(&g->cells))
		return DEAD;
	begin_set(&k);
	int32_t cell = cell_of(&g->cells, position, BOTTOM);
	if (closed) {
		reach(&k, cell);
		close_set(&k);
	} else if (cell >= 0) {
		set_add(&g->to, cell);
	}
	return *known = state_of(g);
}

static int32_t next_state(struct stave_grammar *g, int32_t from, uint8_t byte)
{
	struct lazy_state *s = &g->state[from];
	if (!s->next) {
		if (!(s->next = malloc(256 * sizeof *s->next)))
			return DEAD;
		for (int i = 0; i < 256; i++)
			s->next[i] = UNKNOWN;
	}
	if (s->next[byte] == UNKNOWN) {
		struct closing k = closing(g);
		int32_t *next = s->next; /* state_of does not move it */
		step_set(&k, g->sets + s->set, s->n, byte);
		next[byte] = state_of(g);
	}
	return s->next[byte];
}

/* Walks the subtree of the trie below `top` from the state; tokens that fit go to g->bits and g->tokens, nodes where the rule may end to
 * list `which`. */
static void walk(struct stave_grammar *g, int32_t top, int32_t state, int which)
{
	const struct trie_node *t = g->v->trie;
	int base = t[top].depth;
	if (state == DEAD)
		return;
	g->path[base] = state;
	if (g->state[state].ends && reserve(&g->ends[which], &g->cap_ends[which], g->n_ends[which] + 1))
		g->ends[which][g->n_ends[which]++] = top;
	for (int32_t i = top + 1; i < t[top].skip;) {
		const int32_t *row = g->state[g->path[t[i].depth - 1]].next;
		int32_t to = row ? row[t[i].byte] : UNKNOWN;
		if (to == UNKNOWN)
			to = next_state(g, g->path[t[i].depth - 1], t[i].byte);
		if (to == DEAD) {
			i = t[i].skip;
			continue;
		}
		g->path[t[i].depth] = to;
		if (t[i].token >= 0) {
			uint32_t bit = 1u << (t[i].token & 31);
			if (!(g->bits[t[i].token >> 5] & bit)) {
				g->bits[t[i].token >> 5] |= bit;
				g->tokens[g->n_tokens++] = t[i].token;
			}
		}
		if (g->state[to].ends && reserve(&g->ends[which], &g->cap_ends[which], g->n_ends[which] + 1))
			g->ends[which][g->n_ends[which]++] = i;
		i++;
	}
}

/* Scratch back to nothing. */
static void clear_tokens(struct stave_grammar *g)
{
	for (int32_t i = 0; i < g->n_tokens; i++)
		g->bits[g->tokens[i] >> 5] = 0;
	g->n_tokens = 0;
}

static void *copy(const void *p, size_t n)
{
	void *q = malloc(n ? n : 1);
	return q && n ? memcpy(q, p, n) : q;
}

static const struct kept *kept_of(struct stave_grammar *g, int32_t position)
{
	position = g->a.p[position].alias;
	if (g->kept[position])
		return g->kept[position];
	if (g->n_states > g->cap_states * 3 / 4 || g->cells.n > CELLS_MAX / 2)
		forget(g);
	if (g->kept_bytes > MASKS_BUDGET)
		forget_kept(g);
	clear_tokens(g);
	g->n_ends[0] = 0;
	walk(g, 0, start_state(g, position, false), 0);
	size_t words = ((size_t)g->v->V + 31) / 32;
	bool dense = (size_t)g->n_tokens > words;
	struct kept *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	*k = (struct kept){.n_tokens = dense ? 0 : g->n_tokens, .n_ends = g->n_ends[0]};
	k->ends = copy(g->ends[0], (size_t)k->n_ends * sizeof *k->ends);
	if (dense)
		k->bits = copy(g->bits, words * sizeof *k->bits);
	else
		k->tokens = copy(g->tokens, (size_t)k->n_tokens * sizeof *k->tokens);
	if (!k->ends || !(dense ? (void *)k->bits : (void *)k->tokens)) {
		free(k->ends);
		free(k->bits);
		free(k->tokens);
		free(k);
		return NULL;
	}
	g->kept_bytes += (dense ? words : (size_t)k->n_tokens) * 4 + (size_t)k->n_ends * 4 + sizeof *k;
	return g->kept[position] = k;
}

/* Tokens that the stack allows, into bits. */
static void mask_of_stack(struct stave_grammar *g, const struct cells *c, int32_t cell, uint32_t *bits)
{
	const struct kept *k = kept_of(g, c->c[cell].position);
	if (!k)
		return;
	for (size_t i = 0; k->bits && i < ((size_t)g->v->V + 31) / 32; i++)
		bits[i] |= k->bits[i];
	for (int32_t i = 0; i < k->n_tokens; i++)
		bits[k->tokens[i] >> 5] |= 1u << (k->tokens[i] & 31);
	if (!k->n_ends || !reserve(&g->ends[0], &g->cap_ends[0], k->n_ends))
		return;
	memcpy(g->ends[0], k->ends, (size_t)k->n_ends * sizeof *k->ends);
	g->n_ends[0] = k->n_ends;
	clear_tokens(g);
	int from = 0;
	for (int32_t rest = c->c[cell].rest; rest != BOTTOM && g->n_ends[from]; rest = c->c[rest].rest, from ^= 1) {
		int32_t state = start_state(g, g->a.p[c->c[rest].position].alias, true);
		g->n_ends[from ^ 1] = 0;
		for (int32_t i = 0; i < g->n_ends[from]; i++)
			walk(g, g->ends[from][i], state, from ^ 1);
	}
	for (int32_t i = 0; i < g->n_tokens; i++)
		bits[g->tokens[i] >> 5] |= 1u << (g->tokens[i] & 31);
}

/* ---- opening ---- */

void stave_grammar_close(struct stave_grammar *g)
{
	if (!g)
		return;
	if (g->kept)
		forget_kept(g);
	if (g->start_raw && g->start_closed)
		forget(g);
	free(g->kept);
	free(g->start_raw);
	free(g->start_closed);
	free(g->state);
	free(g->sets);
	free(g->slot);
	free(g->work.cell);
	free(g->to.cell);
	free(g->path);
	free(g->bits);
	free(g->tokens);
	free(g->ends[0]);
	free(g->ends[1]);
	automaton_free(&g->a);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static bool tables(struct stave_grammar *g)
{
	size_t n = (size_t)g->a.n, V = (size_t)g->v->V;
	g->cap_states = STATES_BUDGET;
	g->slot_mask = 65535;
	g->kept = calloc(n + 1, sizeof *g->kept);
	g->start_raw = malloc((n + 1) * sizeof *g->start_raw);
	g->start_closed = malloc((n + 1) * sizeof *g->start_closed);
	g->state = malloc((size_t)g->cap_states * sizeof *g->state);
	g->slot = malloc(((size_t)g->slot_mask + 1) * sizeof *g->slot);
	g->path = malloc(((size_t)g->v->longest + 2) * sizeof *g->path);
	g->bits = calloc((V + 31) / 32 + 1, sizeof *g->bits);
	g->tokens = malloc((V + 1) * sizeof *g->tokens);
	if (!g->kept || !g->start_raw || !g->start_closed || !g->state || !g->slot || !g->path || !g->bits || !g->tokens)
		return false;
	forget(g);
	return true;
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
	int rc = b.failed ? STAVE_EUSAGE : grammar_compile(&b, v->longest, &g->a);
	build_free(&b);
	if (!rc && !tables(g))
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
	begin_set(&k);
	reach(&k, cell_of(&m->cells, g->a.start[0], BOTTOM));
	close_set(&k);
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
	for (int i = 0; i < now->set.n; i++)
		mask_of_stack(g, &m->cells, now->set.cell[i], bits);
	pthread_mutex_unlock(&g->lock);
	for (int32_t i = 0; i < g->v->n_same; i++) { /* tokens of the same bytes */
		int32_t id = g->v->same[i][0], other = g->v->same[i][1];
		bits[other >> 5] |= (bits[id >> 5] >> (id & 31) & 1) << (other & 31);
	}
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
				ok = (map[stack[n]] = cell_of(&fresh, c->position, map[c->rest])) >= 0;
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
		step_set(&k, from->cell, from->n, (uint8_t)v->bytes[id][i]);
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
