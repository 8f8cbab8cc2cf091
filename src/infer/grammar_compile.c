/* From the tree to the automaton. Each rule becomes a nondeterministic automaton (Thompson 1968), then a deterministic one by
 * the subset construction, where calls of rules are symbols like any other. A long bounded repetition is one copy of its body
 * that is run through with a count (struct chain): when the body ends in a state that nothing follows, the end of one copy is the start
 * of the next. Rules that the root does not need are left out, and the work of all is bounded. */
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
	a->p[a->n] = (struct position){.chain = -1, .edge = a->n_edges, .call = a->n_calls};
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
	free(a->chains);
	free(a->start);
	*a = (struct automaton){0};
}

/* ---- one rule as a nondeterministic automaton ---- */

#define WORK_MAX 40000000
static void work(struct build *b, int64_t steps)
{
	if ((b->work += steps) > WORK_MAX)
		build_fail(b, "the grammar is too ambiguous or too large to compile");
}

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
	work(f->b, 1);
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
		work(f->b, 1);
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
	work(f->b, 1 + 4 * (int64_t)(s->n_members - begin));
	if (s->n_members - begin > 1)
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
	if (n == 1) {
		close_over(s, &y->to, 1, final);
		add_edge(b, a, from, y->lo, y->hi, number_subset(s) + base);
		return;
	}
	bool cut[257] = {0};
	for (int i = 0; i < n; i++)
		cut[y[i].lo] = cut[y[i].hi + 1] = true;
	int32_t last_to = -1, last_lo = 0, last_hi = 0;
	for (int lo = 0; lo < 256 && !b->failed;) {
		int hi = lo, k = 0;
		while (hi < 255 && !cut[hi + 1])
			hi++;
		work(b, 1 + n / 8);
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
	struct subset s = {.f = &f, .members = malloc(64 * sizeof *s.members), .cap_members = 64, .at = calloc(64, sizeof *s.at), .cap = 64, .seen = calloc((size_t)f.n + 1, sizeof *s.seen), .stack = malloc(((size_t)f.n + 1) * sizeof *s.stack)};
	struct symbol *y = malloc(((size_t)f.n + 1) * sizeof *y);
	int32_t *targets = malloc(((size_t)f.n + 1) * sizeof *targets);
	if (!s.members || !s.at || !s.seen || !s.stack || !y || !targets)
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

/* Copies of chains that are the same automaton share what masks need to know; the first few are looked through. */
#define ALIKE_MAX 64
static int32_t same_chain(const struct automaton *a, const struct chain *x)
{
	for (int32_t i = 0; i < a->n_chains && i < ALIKE_MAX; i++) {
		const struct chain *y = &a->chains[i];
		bool same = x->run && y->run && y->size == x->size && (y->end < 0) == (x->end < 0);
		for (int32_t k = 0; same && k < x->size; k++) {
			const struct position *p = &a->p[x->start + k], *q = &a->p[y->start + k];
			same = p->n_edges == q->n_edges;
			for (int32_t e = 0; same && e < p->n_edges; e++) {
				const struct edge *g = &a->edges[p->edge + e], *h = &a->edges[q->edge + e];
				same = g->lo == h->lo && g->hi == h->hi && g->to - x->start == h->to - y->start;
			}
		}
		if (same)
			return i;
	}
	return a->n_chains;
}

/* One copy of the body, closed into a loop. */
static int32_t lay_out(struct build *b, const struct ast *x, int closed_by, const struct automaton *body, struct automaton *a)
{
	int32_t base = a->n;
	struct chain ch = {.start = base, .size = body->n, .end = closed_by < 0 ? -1 : base + body->n, .min = x->min, .max = x->max, .run = !body->n_calls};
	for (int32_t k = 0; k < body->n && !b->failed; k++) {
		const struct position *from = &body->p[k];
		int32_t p = new_position(b, a);
		bool closing = !k && closed_by >= 0;
		a->p[p].chain = a->n_chains;
		a->p[p].accept = !k && closed_by < 0 && !x->min;
		for (int32_t e = 0; e < from->n_edges; e++) {
			const struct edge *g = &body->edges[from->edge + e];
			if (closing && g->lo > closed_by) {
				add_edge(b, a, p, closed_by, closed_by, ch.end);
				closing = false;
			}
			add_edge(b, a, p, g->lo, g->hi, base + (body->p[g->to].accept ? 0 : g->to));
		}
		if (closing)
			add_edge(b, a, p, closed_by, closed_by, ch.end);
		for (int32_t e = 0; e < from->n_calls; e++) {
			const struct call *g = &body->calls[from->call + e];
			add_call(b, a, p, g->rule, base + (body->p[g->to].accept ? 0 : g->to));
		}
	}
	int32_t end = closed_by < 0 ? base : new_position(b, a);
	if (b->failed || !grow(&a->chains, &a->cap_chains, a->n_chains, sizeof *a->chains)) {
		build_fail(b, "out of memory for a grammar");
		return 0;
	}
	if (closed_by >= 0)
		a->p[end].accept = true;
	ch.same = same_chain(a, &ch);
	a->chains[a->n_chains++] = ch;
	return base;
}

/* The byte that closes a chain must not be one that begins a copy. */
static bool tells_apart(const struct automaton *body, int byte) { return byte < 0 || (!body->p[0].n_calls && edge_to(body, 0, (uint8_t)byte) < 0); }

static int32_t chain(struct build *b, const struct build_rule *rule, struct automaton *a)
{
	const struct ast *x = rule->body;
	int closed_by = rule->closed_by, other;
	struct automaton body = {0};
	int32_t start = 0;
	determinize(b, x->a, &body);
	if (!b->failed && !ends_cleanly(&body)) { /* call it instead */
		automaton_free(&body);
		other = build_rule(b);
		if (!b->failed)
			b->rules[other].body = x->a;
		determinize(b, ast_call(b, other), &body);
	}
	if (!b->failed && !tells_apart(&body, closed_by)) { /* the byte follows a call of the chain */
		other = build_rule(b);
		if (!b->failed) {
			b->rules[other].body = (struct ast *)x;
			b->rules[other].chain = true;
			start = determinize(b, ast_seq(b, ast_call(b, other), ast_byte(b, closed_by, closed_by)), a);
		}
	} else if (!b->failed) {
		start = lay_out(b, x, closed_by, &body, a);
	}
	automaton_free(&body);
	return start;
}

/* ---- all rules ---- */

/* Rules are compiled as they are met, from the root on; chains may append some. */
static void compile_rules(struct build *b, struct automaton *a)
{
	enum { NEW = -1, WAITING = -2 };
	int32_t *queue = malloc((GRAMMAR_RULES_MAX + 1) * sizeof *queue), head = 0, tail = 0, calls = 0;
	a->start = malloc((GRAMMAR_RULES_MAX + 1) * sizeof *a->start);
	if (!queue || !a->start) {
		free(queue);
		build_fail(b, "out of memory for a grammar");
		return;
	}
	memset(a->start, 0xff, (GRAMMAR_RULES_MAX + 1) * sizeof *a->start);
	queue[tail++] = 0;
	while (head < tail && !b->failed) {
		int32_t r = queue[head++];
		struct build_rule rule = b->rules[r]; /* a copy: rules move */
		a->start[r] = !rule.body ? new_position(b, a) : rule.chain ? chain(b, &rule, a) : determinize(b, rule.body, a);
		for (; calls < a->n_calls && !b->failed; calls++)
			if (a->start[a->calls[calls].rule] == NEW) {
				a->start[a->calls[calls].rule] = WAITING;
				queue[tail++] = a->calls[calls].rule;
			}
	}
	a->n_rules = b->n_rules;
	free(queue);
}

int grammar_compile(struct build *b, struct automaton *a)
{
	*a = (struct automaton){0};
	compile_rules(b, a);
	if (!b->failed)
		automaton_trim(b, a);
	if (!b->failed)
		automaton_check_recursion(b, a);
	if (b->failed)
		automaton_free(a);
	return b->failed ? STAVE_EUSAGE : 0;
}
