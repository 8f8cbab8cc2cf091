/* What an automaton must satisfy before anything is matched: positions from which no end can be reached are cut off, so that every
 * position met is alive; and left recursion is refused, since a matcher would call for ever. Both in time linear in the automaton. */
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_build.h"

/* ---- cutting off what leads nowhere ---- */

/* Predecessors of position i: from[at[i] .. at[i + 1]), each by an edge (call < 0) or by a call, to whose rule or end i belongs. */
struct predecessor {
	int32_t position, call;
};
struct reverse {
	int32_t *at;
	struct predecessor *from;
	bool *good;
	int32_t *queue;
};

static void count_or_fill(const struct automaton *a, struct reverse *r, bool edges, bool fill)
{
	for (int32_t p = 0; p < a->n; p++) {
		for (int32_t i = 0; edges && i < a->p[p].n_edges; i++) {
			int32_t to = a->edges[a->p[p].edge + i].to;
			if (fill)
				r->from[r->at[to]] = (struct predecessor){p, -1};
			r->at[to]++;
		}
		for (int32_t i = 0; i < 2 * a->p[p].n_calls; i++) {
			const struct call *c = &a->calls[a->p[p].call + i / 2];
			int32_t to = i % 2 ? c->to : a->start[c->rule];
			if (fill)
				r->from[r->at[to]] = (struct predecessor){p, a->p[p].call + i / 2};
			r->at[to]++;
		}
	}
}

static bool is_chain_start(const struct automaton *a, int32_t p) { return a->p[p].chain >= 0 && a->chains[a->p[p].chain].start == p; }

/* Positions from which the rule's end can be reached; without `edges`, without reading a byte. */
static bool find_good(const struct automaton *a, struct reverse *r, bool edges)
{
	size_t n = (size_t)a->n;
	r->at = calloc(n + 2, sizeof *r->at);
	r->good = calloc(n + 1, 1);
	r->queue = malloc((n + 1) * sizeof *r->queue);
	r->from = malloc(((size_t)a->n_edges + 2 * (size_t)a->n_calls + 1) * sizeof *r->from);
	if (!r->at || !r->good || !r->queue || !r->from)
		return false;
	count_or_fill(a, r, edges, false);
	for (int32_t i = 0, sum = 0; i <= a->n; i++) {
		int32_t k = r->at[i];
		r->at[i] = sum;
		sum += k;
	}
	count_or_fill(a, r, edges, true);
	memmove(r->at + 1, r->at, n * sizeof *r->at);
	r->at[0] = 0;
	int32_t head = 0, tail = 0;
	for (int32_t i = 0; i < a->n; i++) /* a chain goes round until it has its number */
		if (a->p[i].accept || (edges && is_chain_start(a, i) && a->chains[a->p[i].chain].end < 0)) {
			r->good[i] = true;
			r->queue[tail++] = i;
		}
	while (head < tail) {
		int32_t x = r->queue[head++];
		for (int32_t k = r->at[x]; k < r->at[x + 1]; k++) {
			int32_t p = r->from[k].position;
			const struct call *c = r->from[k].call < 0 ? NULL : &a->calls[r->from[k].call];
			/* copies that may be empty make a chain that may */
			bool good = !c || (r->good[a->start[c->rule]] && (r->good[c->to] || (c->to == p && is_chain_start(a, p) && a->chains[a->p[p].chain].end < 0)));
			if (!r->good[p] && good) {
				r->good[p] = true;
				r->queue[tail++] = p;
			}
		}
	}
	return true;
}

static void reverse_free(struct reverse *r)
{
	free(r->at);
	free(r->from);
	free(r->good);
	free(r->queue);
}

void automaton_trim(struct build *b, struct automaton *a)
{
	struct reverse r = {0};
	if (!find_good(a, &r, true)) {
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
	reverse_free(&r);
}

/* ---- left recursion ---- */

/* Depth-first over "may begin with a call of": a path of rules, each with a stack of its positions that are reached without reading. */
struct visit {
	int32_t position, call; /* the next of its calls */
};
struct walk {
	const struct automaton *a;
	const bool *empty;   /* (positions) the rule may end from here without reading */
	bool *seen;          /* (positions) */
	uint8_t *colour;     /* (rules) 0 new, 1 on the path, 2 done */
	int32_t *path;       /* rules; and where the stack of each begins */
	int32_t *begin;
	struct visit *stack;
	int32_t depth, top;
};

static void push_position(struct walk *w, int32_t p)
{
	if (!w->seen[p]) {
		w->seen[p] = true;
		w->stack[w->top++] = (struct visit){p, 0};
	}
}

static void push_rule(struct walk *w, int32_t rule)
{
	w->colour[rule] = 1;
	w->path[w->depth] = rule;
	w->begin[w->depth++] = w->top;
	push_position(w, w->a->start[rule]);
}

static bool left_recursive(struct walk *w, int32_t root)
{
	push_rule(w, root);
	while (w->depth) {
		if (w->top == w->begin[w->depth - 1]) {
			w->colour[w->path[--w->depth]] = 2;
			continue;
		}
		struct visit *v = &w->stack[w->top - 1];
		const struct position *p = &w->a->p[v->position];
		if (v->call == p->n_calls) { /* what was pushed meanwhile lies above and is done as well */
			w->top--;
			continue;
		}
		const struct call *c = &w->a->calls[p->call + v->call++];
		if (w->colour[c->rule] == 1)
			return true;
		if (w->empty[w->a->start[c->rule]])
			push_position(w, c->to);
		if (!w->colour[c->rule])
			push_rule(w, c->rule);
	}
	return false;
}

void automaton_check_recursion(struct build *b, const struct automaton *a)
{
	struct reverse r = {0};
	size_t n = (size_t)a->n + 1, rules = (size_t)a->n_rules + 1;
	struct walk w = {.a = a, .seen = calloc(n, 1), .colour = calloc(rules, 1), .path = malloc(rules * sizeof *w.path), .begin = malloc(rules * sizeof *w.begin), .stack = malloc(n * sizeof *w.stack)};
	if (!find_good(a, &r, false) || !w.seen || !w.colour || !w.path || !w.begin || !w.stack)
		build_fail(b, "out of memory for a grammar");
	w.empty = r.good;
	for (int rule = 0; rule < a->n_rules && !b->failed; rule++)
		if (a->start[rule] >= 0 && !w.colour[rule] && left_recursive(&w, rule))
			build_fail(b, "a rule begins with itself (left recursion); write it with the call at the end, or with a repetition");
	reverse_free(&r);
	free(w.seen);
	free(w.colour);
	free(w.path);
	free(w.begin);
	free(w.stack);
}
