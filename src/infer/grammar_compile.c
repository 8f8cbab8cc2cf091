/* From the tree to the automaton. Each rule becomes a nondeterministic automaton (Thompson 1968), then a deterministic one by
 * the subset construction, where calls of rules are symbols like any other. A long bounded repetition is laid out copy by
 * copy: when its body ends in a state that nothing follows, the end of one copy is the start of the next. Copies further from both
 * ends than any token reaches behave alike; they name one of them as their alias, so that its masks are computed once.
 *
 * Then: positions from which no end can be reached are cut off, so that every position met while matching is alive; and
 * left recursion is refused, since a matcher would call for ever. */
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_build.h"

/* ---- growing arrays of the result ---- */

static bool grow(void *array, int32_t *cap, int32_t n, size_t size)
{
	if (n < *cap)
		return true;
	int32_t want = *cap ? 2 * *cap : 256;
	void *p = realloc(*(void **)array, (size_t)want * size);
	if (!p)
		return false;
	*(void **)array = p;
	*cap = want;
	return true;
}

static int32_t new_position(struct build *b, struct automaton *a)
{
	if (a->n >= GRAMMAR_STATES_MAX || !grow(&a->p, &a->cap, a->n, sizeof *a->p)) {
		build_fail(b, "the grammar needs more than %d states", GRAMMAR_STATES_MAX);
		return 0;
	}
	a->p[a->n] = (struct position){.alias = a->n, .edge = a->n_edges, .call = a->n_calls};
	return a->n++;
}

/* Edges and calls are added to the position made last. */
static void add_edge(struct build *b, struct automaton *a, int32_t from, int lo, int hi, int32_t to)
{
	if (a->n_edges > 8 * GRAMMAR_STATES_MAX || !grow(&a->edges, &a->cap_edges, a->n_edges, sizeof *a->edges)) {
		build_fail(b, "the grammar needs more than %d edges", 8 * GRAMMAR_STATES_MAX);
		return;
	}
	a->edges[a->n_edges++] = (struct edge){(uint8_t)lo, (uint8_t)hi, to};
	a->p[from].n_edges++;
}

static void add_call(struct build *b, struct automaton *a, int32_t from, int32_t rule, int32_t to)
{
	if (a->n_calls > 8 * GRAMMAR_STATES_MAX || !grow(&a->calls, &a->cap_calls, a->n_calls, sizeof *a->calls)) {
		build_fail(b, "the grammar needs more than %d calls", 8 * GRAMMAR_STATES_MAX);
		return;
	}
	a->calls[a->n_calls++] = (struct call){rule, to};
	a->p[from].n_calls++;
}

void automaton_free(struct automaton *a)
{
	free(a->p);
	free(a->edges);
	free(a->calls);
	free(a->start);
	*a = (struct automaton){0};
}

/* ---- one rule as a nondeterministic automaton ---- */

struct nfa_state { /* at most two ways out without reading, or one symbol */
	int32_t eps[2], to;
	int16_t lo, hi;    /* bytes; lo < 0: none */
	int32_t rule;      /* or a call; < 0: none */
};
struct nfa {
	struct build *b;
	struct nfa_state *s;
	int32_t n, cap;
};

static int32_t nfa_state(struct nfa *f)
{
	if (f->b->failed || f->n >= GRAMMAR_STATES_MAX || !grow(&f->s, &f->cap, f->n, sizeof *f->s)) {
		build_fail(f->b, "a rule needs more than %d states", GRAMMAR_STATES_MAX);
		return 0;
	}
	f->s[f->n] = (struct nfa_state){.eps = {-1, -1}, .to = -1, .lo = -1, .rule = -1};
	return f->n++;
}

/* A way from one state to another without reading; states made by nfa_state have room for two. */
static void link_states(struct nfa *f, int32_t from, int32_t to)
{
	while (f->s[from].eps[0] >= 0 && f->s[from].eps[1] >= 0 && !f->b->failed) { /* full: a state more */
		int32_t more = nfa_state(f);
		f->s[more].eps[0] = f->s[from].eps[1];
		f->s[from].eps[1] = more;
		from = more;
	}
	f->s[from].eps[f->s[from].eps[0] >= 0] = to;
}

static void fragment(struct nfa *f, const struct ast *x, int32_t from, int32_t to);

static void repeat(struct nfa *f, const struct ast *x, int32_t from, int32_t to)
{
	int32_t at = from;
	for (int i = 0; i < x->min && !f->b->failed; i++) {
		int32_t next = nfa_state(f);
		fragment(f, x->a, at, next);
		at = next;
	}
	if (x->max < 0) {
		int32_t loop = nfa_state(f), end = nfa_state(f);
		link_states(f, at, loop);
		link_states(f, loop, to);
		int32_t body = nfa_state(f);
		link_states(f, loop, body);
		fragment(f, x->a, body, end);
		link_states(f, end, loop);
		return;
	}
	for (int i = x->min; i < x->max && !f->b->failed; i++) {
		int32_t body = nfa_state(f), next = nfa_state(f);
		link_states(f, at, to);
		link_states(f, at, body);
		fragment(f, x->a, body, next);
		at = next;
	}
	link_states(f, at, to);
}

/* x between two states. Sequences and alternatives lean to the left, so the loop walks them and the recursion is as deep as the
 * front ends' nesting. `from` gets links only, so that it may have been used before. */
static void fragment(struct nfa *f, const struct ast *x, int32_t from, int32_t to)
{
	while (!f->b->failed && (x->kind == AST_SEQ || x->kind == AST_ALT)) {
		if (x->kind == AST_SEQ) {
			int32_t mid = nfa_state(f);
			fragment(f, x->b, mid, to);
			to = mid;
		} else {
			int32_t other = nfa_state(f);
			link_states(f, from, other);
			fragment(f, x->b, other, to);
		}
		x = x->a;
	}
	if (f->b->failed || x->kind == AST_NEVER)
		return;
	if (x->kind == AST_EMPTY) {
		link_states(f, from, to);
	} else if (x->kind == AST_REPEAT) {
		int32_t begin = nfa_state(f);
		link_states(f, from, begin);
		repeat(f, x, begin, to);
	} else {
		int32_t s = nfa_state(f);
		link_states(f, from, s);
		f->s[s].to = to;
		if (x->kind == AST_CALL) {
			f->s[s].rule = x->rule;
		} else {
			f->s[s].lo = x->lo;
			f->s[s].hi = x->hi;
		}
	}
}

/* ---- the subset construction ---- */

struct subset {
	struct nfa *f;
	int32_t *members;      /* of all subsets, one after another */
	int32_t n_members, cap_members;
	int32_t *at;           /* (n + 1) where each begins */
	int32_t n, cap;
	int32_t *slot;         /* hash table of subsets, -1 = empty */
	uint32_t mask;
	uint32_t *seen, stamp; /* (nfa n) */
	int32_t *stack;        /* (nfa n) */
};

/* Everything reachable without reading, from the n states in `from`: appended to members, sorted. */
static int by_number(const void *a, const void *b) { return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b); }

static void close_over(struct subset *s, const int32_t *from, int32_t n, int32_t final)
{
	struct nfa *f = s->f;
	int32_t top = 0, begin = s->n_members;
	s->stamp++;
	for (int32_t i = 0; i < n; i++)
		if (s->seen[from[i]] != s->stamp) {
			s->seen[from[i]] = s->stamp;
			s->stack[top++] = from[i];
		}
	while (top) {
		int32_t x = s->stack[--top];
		bool counts = f->s[x].to >= 0 || x == final; /* the others only pass on */
		if (counts && !grow(&s->members, &s->cap_members, s->n_members, sizeof *s->members)) {
			build_fail(f->b, "out of memory for a grammar");
			return;
		}
		if (counts)
			s->members[s->n_members++] = x;
		for (int i = 0; i < 2; i++)
			if (f->s[x].eps[i] >= 0 && s->seen[f->s[x].eps[i]] != s->stamp) {
				s->seen[f->s[x].eps[i]] = s->stamp;
				s->stack[top++] = f->s[x].eps[i];
			}
	}
	qsort(s->members + begin, (size_t)(s->n_members - begin), sizeof *s->members, by_number);
}

static uint32_t hash_of(const int32_t *p, int32_t n)
{
	uint32_t h = 2166136261u;
	for (int32_t i = 0; i < n; i++)
		h = (h ^ (uint32_t)p[i]) * 16777619u;
	return h ^ h >> 15;
}

static bool rehash(struct subset *s)
{
	uint32_t size = s->mask ? 2 * (s->mask + 1) : 256;
	int32_t *slot = malloc(size * sizeof *slot);
	if (!slot)
		return false;
	memset(slot, 0xff, size * sizeof *slot);
	for (int32_t i = 0; i < s->n; i++) {
		uint32_t h = hash_of(s->members + s->at[i], s->at[i + 1] - s->at[i]) & (size - 1);
		while (slot[h] >= 0)
			h = (h + 1) & (size - 1);
		slot[h] = i;
	}
	free(s->slot);
	s->slot = slot;
	s->mask = size - 1;
	return true;
}

/* The number of the subset that was just appended to members; a known one is taken back. */
static int32_t number_subset(struct subset *s)
{
	int32_t begin = s->at[s->n], n = s->n_members - begin;
	if ((!s->mask || (uint32_t)s->n * 2 > s->mask) && !rehash(s)) {
		build_fail(s->f->b, "out of memory for a grammar");
		return 0;
	}
	uint32_t h = hash_of(s->members + begin, n) & s->mask;
	for (; s->slot[h] >= 0; h = (h + 1) & s->mask) {
		int32_t k = s->slot[h];
		if (s->at[k + 1] - s->at[k] == n && !memcmp(s->members + s->at[k], s->members + begin, (size_t)n * sizeof *s->members)) {
			s->n_members = begin;
			return k;
		}
	}
	if (s->n + 2 > s->cap) {
		int32_t cap = s->cap ? 2 * s->cap : 64;
		int32_t *p = realloc(s->at, (size_t)cap * sizeof *p);
		if (!p || s->n >= GRAMMAR_STATES_MAX || s->n_members > 16 * GRAMMAR_STATES_MAX) {
			s->at = p ? p : s->at;
			build_fail(s->f->b, "a rule is too ambiguous: more than %d states", GRAMMAR_STATES_MAX);
			return 0;
		}
		s->at = p;
		s->cap = cap;
	}
	s->slot[h] = s->n;
	s->at[++s->n] = s->n_members;
	return s->n - 1;
}

struct symbol { /* of one subset: a byte range or a call, and where it leads */
	int32_t lo, hi, rule, to;
};
static int by_symbol(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;
	return x->rule != y->rule ? (x->rule > y->rule) - (x->rule < y->rule) : x->lo - y->lo;
}

/* The subsets that bytes lead to: ranges are cut where any begins or ends. */
static void follow_bytes(struct subset *s, const struct symbol *y, int n, int32_t final, struct build *b, struct automaton *a, int32_t from, int32_t base, int32_t *targets)
{
	bool cut[257] = {0};
	for (int i = 0; i < n; i++)
		cut[y[i].lo] = cut[y[i].hi + 1] = true;
	int32_t last_to = -1, last_lo = 0, last_hi = 0;
	for (int lo = 0; lo < 256 && !b->failed;) {
		int hi = lo, k = 0;
		while (hi < 255 && !cut[hi + 1])
			hi++;
		for (int i = 0; i < n; i++)
			if (y[i].lo <= lo && hi <= y[i].hi)
				targets[k++] = y[i].to;
		if (k) {
			close_over(s, targets, k, final);
			int32_t to = number_subset(s) + base;
			if (to == last_to && last_hi + 1 == lo) {
				last_hi = hi;
			} else {
				if (last_to >= 0)
					add_edge(b, a, from, last_lo, last_hi, last_to);
				last_to = to;
				last_lo = lo;
				last_hi = hi;
			}
		}
		lo = hi + 1;
	}
	if (last_to >= 0)
		add_edge(b, a, from, last_lo, last_hi, last_to);
}

static void subset_free(struct subset *s)
{
	free(s->members);
	free(s->at);
	free(s->slot);
	free(s->seen);
	free(s->stack);
}

/* Appends x as a deterministic automaton to a; its start is the first position appended. */
static int32_t determinize(struct build *b, const struct ast *x, struct automaton *a)
{
	struct nfa f = {.b = b};
	int32_t begin = nfa_state(&f), final = nfa_state(&f), base = a->n;
	fragment(&f, x, begin, final);
	struct subset s = {.f = &f, .at = calloc(64, sizeof *s.at), .cap = 64, .seen = calloc((size_t)f.n + 1, sizeof *s.seen), .stack = malloc(((size_t)f.n + 1) * sizeof *s.stack)};
	struct symbol *y = malloc(((size_t)f.n + 1) * sizeof *y);
	int32_t *targets = malloc(((size_t)f.n + 1) * sizeof *targets);
	if (!s.at || !s.seen || !s.stack || !y || !targets)
		build_fail(b, "out of memory for a grammar");
	if (!b->failed) {
		close_over(&s, &begin, 1, final);
		number_subset(&s);
	}
	for (int32_t i = 0; i < s.n && !b->failed; i++) {
		int32_t p = new_position(b, a), n = 0, calls = 0, first, last;
		first = s.at[i];
		last = s.at[i + 1];
		for (int32_t k = first; k < last; k++) {
			const struct nfa_state *m = &f.s[s.members[k]];
			if (m->to >= 0)
				y[n++] = (struct symbol){m->lo, m->hi, m->rule, m->to};
			if (s.members[k] == final && !b->failed)
				a->p[p].accept = true;
		}
		qsort(y, (size_t)n, sizeof *y, by_symbol);
		while (calls < n && y[calls].rule < 0)
			calls++;
		follow_bytes(&s, y, calls, final, b, a, p, base, targets);
		for (int32_t k = calls, m; k < n && !b->failed; k = m) {
			for (m = k; m < n && y[m].rule == y[k].rule; m++)
				targets[m - k] = y[m].to;
			close_over(&s, targets, m - k, final);
			add_call(b, a, p, y[k].rule, number_subset(&s) + base);
		}
	}
	subset_free(&s);
	free(f.s);
	free(y);
	free(targets);
	return base;
}

/* ---- counted repetitions ---- */

/* Nothing follows an end and nothing returns to the start (position 0): then an end may be the next copy's start. */
static bool ends_cleanly(const struct automaton *a)
{
	for (int32_t i = 0; i < a->n; i++)
		if (a->p[i].accept && (a->p[i].n_edges || a->p[i].n_calls))
			return false;
	for (int32_t i = 0; i < a->n_edges; i++)
		if (!a->edges[i].to)
			return false;
	for (int32_t i = 0; i < a->n_calls; i++)
		if (!a->calls[i].to)
			return false;
	return !a->p[0].accept;
}

/* Copies 0 .. n-1 of the body's automaton; copy n is the end, or for an unlimited repetition the loop. */
static int32_t lay_out(struct build *b, const struct ast *x, const struct automaton *body, int reach, struct automaton *a)
{
	int32_t n = x->max < 0 ? x->min + 1 : x->max, size = body->n, base = a->n;
	if ((int64_t)n * size > GRAMMAR_STATES_MAX) {
		build_fail(b, "a repetition needs more than %d states", GRAMMAR_STATES_MAX);
		return 0;
	}
	for (int32_t i = 0; i < n && !b->failed; i++) {
		int32_t next = x->max < 0 && i == n - 1 ? i : i + 1;
		int32_t same = i + reach < x->min ? 0 : i >= x->min && (x->max < 0 || i + reach < x->max) ? x->min : i;
		for (int32_t k = 0; k < size && !b->failed; k++) {
			const struct position *from = &body->p[k];
			int32_t p = new_position(b, a);
			a->p[p].accept = !k && i >= x->min;
			a->p[p].alias = base + same * size + k;
			for (int32_t e = 0; e < from->n_edges; e++) {
				const struct edge *g = &body->edges[from->edge + e];
				add_edge(b, a, p, g->lo, g->hi, body->p[g->to].accept ? base + next * size : base + i * size + g->to);
			}
			for (int32_t e = 0; e < from->n_calls; e++) {
				const struct call *g = &body->calls[from->call + e];
				add_call(b, a, p, g->rule, body->p[g->to].accept ? base + next * size : base + i * size + g->to);
			}
		}
	}
	if (x->max >= 0) { /* the end after the last copy */
		int32_t p = new_position(b, a);
		if (!b->failed)
			a->p[p].accept = true;
	}
	return base;
}

static int32_t chain(struct build *b, const struct ast *x, int reach, struct automaton *a)
{
	struct automaton body = {0};
	determinize(b, x->a, &body);
	if (!b->failed && !ends_cleanly(&body)) { /* call it instead */
		int rule = build_rule(b);
		struct automaton one = {0};
		automaton_free(&body);
		if (!b->failed)
			b->rules[rule].body = x->a;
		body = one;
		determinize(b, ast_call(b, rule), &body);
	}
	int32_t start = b->failed ? 0 : lay_out(b, x, &body, reach, a);
	automaton_free(&body);
	return start;
}

/* ---- cutting off what leads nowhere ---- */

struct reverse {
	int32_t *at, *from; /* predecessors of position i: from[at[i] .. at[i + 1]) */
	bool *good;
	int32_t *queue;
};

static bool is_good(const struct automaton *a, const bool *good, const struct position *p)
{
	if (p->accept)
		return true;
	for (int32_t i = 0; i < p->n_edges; i++)
		if (good[a->edges[p->edge + i].to])
			return true;
	for (int32_t i = 0; i < p->n_calls; i++)
		if (good[a->calls[p->call + i].to] && good[a->start[a->calls[p->call + i].rule]])
			return true;
	return false;
}

static void count_or_fill(const struct automaton *a, struct reverse *r, bool fill)
{
	for (int32_t p = 0; p < a->n; p++) {
		for (int32_t i = 0; i < a->p[p].n_edges; i++) {
			int32_t to = a->edges[a->p[p].edge + i].to;
			if (fill)
				r->from[r->at[to]] = p;
			r->at[to]++;
		}
		for (int32_t i = 0; i < 2 * a->p[p].n_calls; i++) {
			const struct call *c = &a->calls[a->p[p].call + i / 2];
			int32_t to = i % 2 ? c->to : a->start[c->rule];
			if (fill)
				r->from[r->at[to]] = p;
			r->at[to]++;
		}
	}
}

static bool find_good(const struct automaton *a, struct reverse *r)
{
	size_t n = (size_t)a->n;
	r->at = calloc(n + 2, sizeof *r->at);
	r->good = calloc(n + 1, 1);
	r->queue = malloc((n + 1) * sizeof *r->queue);
	r->from = malloc(((size_t)a->n_edges + 2 * (size_t)a->n_calls + 1) * sizeof *r->from);
	if (!r->at || !r->good || !r->queue || !r->from)
		return false;
	count_or_fill(a, r, false);
	for (int32_t i = 0, sum = 0; i <= a->n; i++) {
		int32_t k = r->at[i];
		r->at[i] = sum;
		sum += k;
	}
	count_or_fill(a, r, true);
	memmove(r->at + 1, r->at, n * sizeof *r->at);
	r->at[0] = 0;
	int32_t head = 0, tail = 0;
	for (int32_t i = 0; i < a->n; i++)
		if (a->p[i].accept) {
			r->good[i] = true;
			r->queue[tail++] = i;
		}
	while (head < tail) {
		int32_t x = r->queue[head++];
		for (int32_t k = r->at[x]; k < r->at[x + 1]; k++) {
			int32_t p = r->from[k];
			if (!r->good[p] && is_good(a, r->good, &a->p[p])) {
				r->good[p] = true;
				r->queue[tail++] = p;
			}
		}
	}
	return true;
}

static void trim(struct build *b, struct automaton *a)
{
	struct reverse r = {0};
	if (!find_good(a, &r)) {
		build_fail(b, "out of memory for a grammar");
	} else if (!r.good[a->start[0]]) {
		build_fail(b, "nothing matches the grammar");
	} else {
		for (int32_t p = 0; p < a->n; p++) {
			struct position *x = &a->p[p];
			int32_t n = 0, k = 0;
			for (int32_t i = 0; i < x->n_edges; i++)
				if (r.good[a->edges[x->edge + i].to])
					a->edges[x->edge + n++] = a->edges[x->edge + i];
			for (int32_t i = 0; i < x->n_calls; i++) {
				struct call c = a->calls[x->call + i];
				if (r.good[c.to] && r.good[a->start[c.rule]])
					a->calls[x->call + k++] = c;
			}
			x->n_edges = n;
			x->n_calls = k;
			x->last = x->accept && !n && !k;
		}
	}
	free(r.at);
	free(r.from);
	free(r.good);
	free(r.queue);
}

/* ---- left recursion ---- */

/* Rules that may match nothing: by passes, since a rule's emptiness can hang on others'; a hostile chain of them would take as many
 * passes as rules. */
#define NULLABLE_PASSES 500
static bool *find_nullable(struct build *b, const struct automaton *a, int32_t *stack, uint32_t *seen)
{
	bool *nullable = calloc((size_t)a->n_rules + 1, 1), changed = nullable != NULL;
	uint32_t stamp = 0;
	for (int pass = 0; changed; pass++) {
		changed = false;
		if (pass == NULLABLE_PASSES) {
			build_fail(b, "empty rules hang on one another more than %d deep", NULLABLE_PASSES);
			break;
		}
		for (int r = 0; r < a->n_rules; r++) {
			int32_t top = 0;
			stamp++;
			if (nullable[r])
				continue;
			stack[top++] = a->start[r];
			seen[a->start[r]] = stamp;
			while (top && !nullable[r]) {
				const struct position *p = &a->p[stack[--top]];
				nullable[r] = p->accept;
				for (int32_t i = 0; i < p->n_calls; i++) {
					const struct call *c = &a->calls[p->call + i];
					if (nullable[c->rule] && seen[c->to] != stamp) {
						seen[c->to] = stamp;
						stack[top++] = c->to;
					}
				}
			}
			changed |= nullable[r];
		}
	}
	return nullable;
}

/* Depth-first over "may begin with a call of", grey = on the path. */
struct walk {
	int32_t rule, top; /* the rule; where its part of the stack of positions begins */
};
static bool left_recursive(const struct automaton *a, const bool *nullable, int32_t *stack, uint32_t *seen, uint8_t *colour, struct walk *path)
{
	uint32_t stamp = 0x80000000u; /* apart from find_nullable's */
	for (int root = 0; root < a->n_rules; root++) {
		int depth = 0;
		int32_t top = 0;
		if (colour[root])
			continue;
		stamp++;
		colour[root] = 1;
		path[depth++] = (struct walk){root, 0};
		stack[top++] = a->start[root];
		while (depth) {
			struct walk *w = &path[depth - 1];
			if (top == w->top) {
				colour[w->rule] = 2;
				depth--;
				continue;
			}
			const struct position *p = &a->p[stack[--top]];
			int32_t calls[1] = {-1};
			for (int32_t i = 0; i < p->n_calls; i++) {
				const struct call *c = &a->calls[p->call + i];
				if (nullable[c->rule] && seen[c->to] != stamp) { /* a position belongs to one rule, a rule is walked once */
					seen[c->to] = stamp;
					stack[top++] = c->to;
				}
				if (colour[c->rule] == 1)
					return true;
				if (!colour[c->rule])
					calls[0] = c->rule;
			}
			if (calls[0] >= 0) { /* come back to this position for its other calls */
				stack[top++] = (int32_t)(p - a->p);
				colour[calls[0]] = 1;
				path[depth++] = (struct walk){calls[0], top};
				stack[top++] = a->start[calls[0]];
			}
		}
	}
	return false;
}

static void check_recursion(struct build *b, const struct automaton *a)
{
	size_t n = (size_t)a->n + (size_t)a->n_calls + 2 * (size_t)a->n_rules + 2;
	int32_t *stack = malloc(n * sizeof *stack);
	uint32_t *seen = calloc((size_t)a->n + 1, sizeof *seen);
	uint8_t *colour = calloc((size_t)a->n_rules + 1, 1);
	struct walk *path = malloc(((size_t)a->n_rules + 1) * sizeof *path);
	bool *nullable = stack && seen ? find_nullable(b, a, stack, seen) : NULL;
	if (!nullable || !colour || !path)
		build_fail(b, "out of memory for a grammar");
	else if (left_recursive(a, nullable, stack, seen, colour, path))
		build_fail(b, "a rule begins with itself (left recursion); write it with the call at the end, or with a repetition");
	free(stack);
	free(seen);
	free(colour);
	free(path);
	free(nullable);
}

int grammar_compile(struct build *b, int reach, struct automaton *a)
{
	*a = (struct automaton){0};
	int32_t cap = 0;
	for (int r = 0; r < b->n_rules && !b->failed; r++) { /* chain may append rules */
		if (!grow(&a->start, &cap, r, sizeof *a->start)) {
			build_fail(b, "out of memory for a grammar");
			break;
		}
		const struct ast *body = b->rules[r].body;
		if (!body && b->rules[r].name)
			build_fail(b, "the rule '%.60s' is used but not defined", b->rules[r].name);
		else if (!body) /* matches nothing */
			a->start[r] = new_position(b, a);
		else
			a->start[r] = b->rules[r].chain ? chain(b, body, reach, a) : determinize(b, body, a);
		a->n_rules = r + 1;
	}
	if (!b->failed)
		trim(b, a);
	if (!b->failed)
		check_recursion(b, a);
	if (b->failed)
		automaton_free(a);
	return b->failed ? STAVE_EUSAGE : 0;
}
