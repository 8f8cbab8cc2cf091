/* Masks. What a token may do depends on the top of a stack alone until its bytes leave the top's rule; so for a top position the
 * vocabulary's trie is walked once over an unknown rest, and two things are kept: the tokens that fit, and the nodes of
 * the trie at which the rule may end. For a given stack those few nodes are walked on from the position below, and what
 * that finds is kept too: `struct node` is a tree whose path from its root is a stack from the top down. The walk itself runs on an
 * automaton made lazily from sets of stacks over the unknown rest, one table look-up a node of the trie.
 *
 * Chains of bytes (a string of 3 to 500 characters) are walked once without their limits, by a plain table; each token is kept with the number
 * of copies it needs, so that the mask for any number of copies left is a part of a sorted list.
 *
 * All of it belongs to the grammar, is shared by its matchers under a lock, and is dropped and begun anew beyond its budget. The work
 * for one node is bounded: beyond it only tokens already known to fit are offered, which is always right but may be too few. */
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_state.h"

#define STATES_MAX 32768    /* of the lazy automaton, about 1 KiB each */
#define KEPT_BUDGET ((size_t)64 << 20)
#define NODES_MAX 65536
#define STEPS_MAX 2000000   /* of stacks by a byte, for one node */

enum { UNKNOWN = -2, DEAD = -1 };

static int by_number(const void *a, const void *b) { return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b); }

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

static void *copy(const void *p, size_t n)
{
	void *q = malloc(n ? n : 1);
	return q && n ? memcpy(q, p, n) : q;
}

/* ---- the lazy automaton over an unknown rest ---- */

/* An empty hash table of `size` slots, a power of two, in place of the old one. */
static bool new_slots(int32_t **slot, uint32_t *mask, uint32_t size)
{
	int32_t *p = malloc(size * sizeof *p);
	if (!p)
		return false;
	memset(p, 0xff, size * sizeof *p);
	free(*slot);
	*slot = p;
	*mask = size - 1;
	return true;
}

static void forget_states(struct stave_grammar *g)
{
	for (int32_t i = 0; i < g->n_states; i++)
		free(g->state[i].next);
	g->n_states = g->n_sets = 0;
	cells_free(&g->cells);
	if (g->slot)
		memset(g->slot, 0xff, ((size_t)g->slot_mask + 1) * sizeof *g->slot);
}

static uint32_t set_hash(const int32_t *p, int n, bool ends)
{
	uint32_t h = 2166136261u ^ ends;
	for (int i = 0; i < n; i++)
		h = (h ^ (uint32_t)p[i]) * 16777619u;
	return h ^ h >> 13;
}

/* Room for one more state; false: the budget is spent, or memory. */
static bool grow_states(struct stave_grammar *g)
{
	int32_t cap = g->cap_states ? 2 * g->cap_states : 128;
	if (g->n_states < g->cap_states)
		return true;
	if (cap > STATES_MAX || !new_slots(&g->slot, &g->slot_mask, 4 * (uint32_t)cap))
		return false;
	for (int32_t i = 0; i < g->n_states; i++) {
		const struct lazy_state *x = &g->state[i];
		uint32_t h = set_hash(g->sets + x->set, x->n, x->ends) & g->slot_mask;
		while (g->slot[h] >= 0)
			h = (h + 1) & g->slot_mask;
		g->slot[h] = i;
	}
	struct lazy_state *p = realloc(g->state, (size_t)cap * sizeof *p);
	if (!p)
		return false;
	g->state = p;
	g->cap_states = cap;
	return true;
}

/* The number of the state whose set is g->to; DEAD when it is empty or there is no room for it. */
static int32_t state_of(struct stave_grammar *g)
{
	struct set *s = &g->to;
	if (s->full || (!s->n && !s->ends) || !grow_states(g))
		return DEAD;
	if (s->n > 1)
		qsort(s->cell, (size_t)s->n, sizeof *s->cell, by_number);
	uint32_t h = set_hash(s->cell, s->n, s->ends) & g->slot_mask;
	for (; g->slot[h] >= 0; h = (h + 1) & g->slot_mask) {
		const struct lazy_state *x = &g->state[g->slot[h]];
		if (x->n == s->n && x->ends == s->ends && (!s->n || !memcmp(g->sets + x->set, s->cell, (size_t)s->n * sizeof *s->cell)))
			return g->slot[h];
	}
	if (!reserve(&g->sets, &g->cap_sets, g->n_sets + s->n))
		return DEAD;
	if (s->n)
		memcpy(g->sets + g->n_sets, s->cell, (size_t)s->n * sizeof *s->cell);
	g->state[g->n_states] = (struct lazy_state){.set = g->n_sets, .n = s->n, .ends = s->ends};
	g->n_sets += s->n;
	g->slot[h] = g->n_states;
	return g->n_states++;
}

/* A position over the unknown rest: as it stands, or closed. */
static int32_t start_state(struct stave_grammar *g, int32_t position, int32_t count, bool closed)
{
	struct closing k = {&g->a, &g->cells, &g->work, &g->to};
	if (!g->cells.n && !cells_grow(&g->cells))
		return DEAD;
	set_begin(&k);
	int32_t cell = cell_of(&g->cells, position, count, BOTTOM);
	if (closed) {
		set_reach(&k, cell);
		set_close(&k);
	} else if (cell >= 0) {
		set_add(&g->to, cell);
	}
	return state_of(g);
}

/* `free_of_charge`: the step is made even when the work is spent, so that single bytes are never missed. */
static int32_t next_state(struct stave_grammar *g, int32_t from, uint8_t byte, bool free_of_charge)
{
	struct lazy_state *s = &g->state[from];
	if (g->steps_left <= 0 && !free_of_charge)
		return DEAD;
	if (!s->next) {
		if (!(s->next = malloc(256 * sizeof *s->next)))
			return DEAD;
		for (int i = 0; i < 256; i++)
			s->next[i] = UNKNOWN;
	}
	if (s->next[byte] == UNKNOWN) {
		struct closing k = {&g->a, &g->cells, &g->work, &g->to};
		int32_t *next = s->next; /* state_of moves the states */
		set_step(&k, g->sets + s->set, s->n, byte);
		g->steps_left -= 1 + s->n + g->to.n;
		next[byte] = state_of(g);
	}
	return g->state[from].next[byte];
}

/* ---- walks of the trie ---- */

static void fits(struct stave_grammar *g, const struct trie_node *t)
{
	for (int32_t id = t->token; id >= 0; id = t->more ? g->v->same[id] : -1) {
		uint32_t bit = 1u << (id & 31);
		if (!(g->bits[id >> 5] & bit)) {
			g->bits[id >> 5] |= bit;
			g->tokens[g->n_tokens++] = id;
		}
	}
}

static void may_end(struct stave_grammar *g, int32_t node)
{
	if (reserve(&g->ends, &g->cap_ends, g->n_ends + 1))
		g->ends[g->n_ends++] = node;
}

/* The subtree below `top` from the state: tokens that fit, and nodes where the rule may end. */
static void walk(struct stave_grammar *g, int32_t top, int32_t state)
{
	const struct trie_node *t = g->v->trie;
	int base = t[top].depth;
	if (state == DEAD)
		return;
	g->path[base] = state;
	if (g->state[state].ends)
		may_end(g, top);
	for (int32_t i = top + 1; i < t[top].skip;) {
		int32_t from = g->path[t[i].depth - 1];
		const int32_t *row = g->state[from].next;
		int32_t to = row ? row[t[i].byte] : UNKNOWN;
		if (to == UNKNOWN)
			to = next_state(g, from, t[i].byte, t[i].depth == base + 1);
		if (to == DEAD) {
			i = t[i].skip;
			continue;
		}
		g->path[t[i].depth] = to;
		fits(g, &t[i]);
		if (g->state[to].ends)
			may_end(g, i);
		i++;
	}
}

static void clear_scratch(struct stave_grammar *g)
{
	for (int32_t i = 0; i < g->n_tokens; i++)
		g->bits[g->tokens[i] >> 5] = 0;
	g->n_tokens = g->n_ends = 0;
}

/* ---- chains of bytes ---- */

#define NEVER_FITS UINT16_MAX

/* Where each byte leads, per position of the chain: table[(position - start) * 256 + byte], or DEAD. */
static int32_t *chain_table(const struct automaton *a, const struct chain *ch)
{
	int32_t *table = malloc((size_t)ch->size * 256 * sizeof *table);
	for (int32_t k = 0; table && k < ch->size; k++) {
		for (int byte = 0; byte < 256; byte++)
			table[k * 256 + byte] = DEAD;
		const struct position *p = &a->p[ch->start + k];
		for (int32_t e = 0; e < p->n_edges; e++)
			for (int byte = a->edges[p->edge + e].lo; byte <= a->edges[p->edge + e].hi; byte++)
				table[k * 256 + byte] = a->edges[p->edge + e].to;
	}
	return table;
}

static bool note_end(struct run *r, int32_t node, int32_t copies)
{
	if (r->n_ends == r->cap_ends) {
		int32_t cap = r->cap_ends ? 2 * r->cap_ends : 512;
		struct end_at *p = realloc(r->ends, (size_t)cap * sizeof *p);
		if (!p)
			return false;
		r->ends = p;
		r->cap_ends = cap;
	}
	r->ends[r->n_ends++] = (struct end_at){node, copies};
	return true;
}

static bool walk_run(struct stave_grammar *g, const struct chain *ch, const int32_t *table, struct run *r)
{
	const struct trie_node *t = g->v->trie;
	bool open = ch->end < 0, ok = true;
	g->path[0] = r->position;
	g->copies[0] = 0;
	if (r->position == ch->start && open)
		ok = note_end(r, 0, 0);
	for (int32_t i = 1; i < g->v->n_trie && ok;) {
		int depth = t[i].depth;
		int32_t to = table[(g->path[depth - 1] - ch->start) * 256 + t[i].byte], copies = g->copies[depth - 1];
		if (to == DEAD || to == ch->end) {
			ok = to == DEAD || note_end(r, i, copies);
			i = t[i].skip;
			continue;
		}
		g->path[depth] = to;
		g->copies[depth] = copies += to == ch->start;
		for (int32_t id = t[i].token; id >= 0; id = t[i].more ? g->v->same[id] : -1) {
			r->need[id] = (uint16_t)(copies + (to != ch->start));
			r->bits[id >> 5] |= 1u << (id & 31);
		}
		if (to == ch->start && open)
			ok = note_end(r, i, copies);
		i++;
	}
	return ok;
}

static void run_free(struct run *r)
{
	free(r->need);
	free(r->bits);
	free(r->ends);
}

static const struct run *run_of(struct stave_grammar *g, const struct chain *ch, int32_t position)
{
	for (int i = 0; i < g->n_runs; i++)
		if (g->run[i].position == position)
			return &g->run[i];
	size_t words = ((size_t)g->v->V + 31) / 32;
	struct run r = {.position = position, .need = malloc(words * 32 * sizeof *r.need), .bits = calloc(words, sizeof *r.bits)};
	int32_t *table = chain_table(&g->a, ch);
	bool ok = table && r.need && r.bits;
	if (ok && g->n_runs == g->cap_runs) {
		struct run *more = realloc(g->run, (size_t)(g->cap_runs + 16) * sizeof *more);
		ok = more != NULL;
		g->run = more ? more : g->run;
		g->cap_runs += more ? 16 : 0;
	}
	if (ok) {
		memset(r.need, 0xff, words * 32 * sizeof *r.need);
		ok = walk_run(g, ch, table, &r);
	}
	free(table);
	if (!ok) {
		run_free(&r);
		return NULL;
	}
	g->kept_bytes += words * 68 + (size_t)r.cap_ends * sizeof *r.ends;
	g->run[g->n_runs] = r;
	return &g->run[g->n_runs++];
}

/* Tokens and ends for `room` copies more at most and `lack` at least: tokens into new bits, ends into the scratch. */
static uint32_t *cut_run(struct stave_grammar *g, const struct run *r, int32_t lack, int32_t room)
{
	size_t words = ((size_t)g->v->V + 31) / 32;
	uint32_t *bits = copy(r->bits, words * sizeof *bits);
	for (size_t w = 0; bits && room <= g->v->longest && w < words; w++) {
		uint32_t some = 0;
		for (int b = 0; b < 32; b++)
			some |= (uint32_t)(r->need[32 * w + (size_t)b] <= room) << b;
		bits[w] = some;
	}
	for (int32_t i = 0; bits && i < r->n_ends; i++)
		if (r->ends[i].copies >= lack && r->ends[i].copies <= room) {
			const struct trie_node *t = &g->v->trie[r->ends[i].node];
			may_end(g, r->ends[i].node);
			for (int32_t id = t->token; id >= 0; id = t->more ? g->v->same[id] : -1)
				bits[id >> 5] |= 1u << (id & 31);
		}
	return bits;
}

/* ---- nodes ---- */

static void forget_nodes(struct stave_grammar *g)
{
	for (int32_t i = 0; i < g->n_nodes; i++) {
		free(g->node[i].bits);
		free(g->node[i].tokens);
		free(g->node[i].ends);
	}
	for (int i = 0; i < g->n_runs; i++)
		run_free(&g->run[i]);
	g->n_nodes = g->n_runs = 0;
	g->kept_bytes = 0;
	if (g->node_slot)
		memset(g->node_slot, 0xff, ((size_t)g->node_mask + 1) * sizeof *g->node_slot);
}

/* A count that stands for all that behave alike: a token is too short to tell those further from both ends of the chain. */
static int32_t alike(const struct stave_grammar *g, int32_t position, int32_t count)
{
	int32_t chain = g->a.p[position].chain, reach = g->v->longest + 1;
	if (chain < 0)
		return 0;
	const struct chain *ch = &g->a.chains[chain];
	if (ch->max >= 0 && (int64_t)count + reach >= ch->max)
		return count;
	return count >= ch->min ? ch->min : (int64_t)count + reach >= ch->min ? count : 0;
}

/* What is known of a top, into the scratch; or its tokens as bits, which is returned. */
static uint32_t *explore_top(struct stave_grammar *g, int32_t position, int32_t count)
{
	int32_t chain = g->a.p[position].chain;
	const struct chain *ch = chain < 0 ? NULL : &g->a.chains[chain];
	if (!ch || !ch->run) {
		walk(g, 0, start_state(g, position, count, false));
		return NULL;
	}
	const struct chain *same = &g->a.chains[ch->same];
	const struct run *r = run_of(g, same, same->start + position - ch->start);
	return r ? cut_run(g, r, ch->min > count ? ch->min - count : 0, ch->max < 0 ? INT32_MAX : ch->max - count) : NULL;
}

static uint32_t node_hash(int32_t parent, int32_t position, int32_t count)
{
	uint64_t h = ((uint64_t)(uint32_t)parent << 32 | (uint32_t)position) * 0x9e3779b97f4a7c15u;
	h = (h ^ h >> 29 ^ (uint32_t)count) * 0xbf58476d1ce4e5b9u;
	return (uint32_t)(h >> 32);
}

static bool grow_nodes(struct stave_grammar *g)
{
	int32_t cap = g->cap_nodes ? 2 * g->cap_nodes : 64;
	if (g->n_nodes < g->cap_nodes)
		return true;
	if (cap > NODES_MAX || !new_slots(&g->node_slot, &g->node_mask, 4 * (uint32_t)cap))
		return false;
	for (int32_t i = 0; i < g->n_nodes; i++) {
		uint32_t h = node_hash(g->node[i].parent, g->node[i].position, g->node[i].count) & g->node_mask;
		while (g->node_slot[h] >= 0)
			h = (h + 1) & g->node_mask;
		g->node_slot[h] = i;
	}
	struct node *p = realloc(g->node, (size_t)cap * sizeof *p);
	if (!p)
		return false;
	g->node = p;
	g->cap_nodes = cap;
	return true;
}

/* The scratch as a node, with these bits if there are any; -1: out of memory. */
static int32_t keep_node(struct stave_grammar *g, struct node n, uint32_t slot)
{
	size_t words = ((size_t)g->v->V + 31) / 32;
	bool dense = n.bits || (size_t)g->n_tokens > words;
	n.n_tokens = dense ? 0 : g->n_tokens;
	n.n_ends = g->n_ends;
	n.ends = copy(g->ends, (size_t)n.n_ends * sizeof *n.ends);
	if (dense && !n.bits)
		n.bits = copy(g->bits, words * sizeof *n.bits);
	else if (!dense)
		n.tokens = copy(g->tokens, (size_t)n.n_tokens * sizeof *n.tokens);
	if (!n.ends || (!n.bits && !n.tokens)) {
		free(n.ends);
		free(n.bits);
		free(n.tokens);
		return -1;
	}
	g->kept_bytes += (dense ? words : (size_t)n.n_tokens) * 4 + (size_t)n.n_ends * 4 + sizeof n;
	g->node[g->n_nodes] = n;
	g->node_slot[slot] = g->n_nodes;
	return g->n_nodes++;
}

static int32_t node_of(struct stave_grammar *g, int32_t parent, int32_t position, int32_t count)
{
	count = alike(g, position, count);
	if (!grow_nodes(g))
		return -1;
	uint32_t h = node_hash(parent, position, count) & g->node_mask;
	for (; g->node_slot[h] >= 0; h = (h + 1) & g->node_mask) {
		const struct node *x = &g->node[g->node_slot[h]];
		if (x->parent == parent && x->position == position && x->count == count)
			return g->node_slot[h];
	}
	if (g->n_states > STATES_MAX / 2 || g->cells.n > CELLS_MAX / 2)
		forget_states(g);
	clear_scratch(g);
	g->steps_left = STEPS_MAX;
	uint32_t *bits = NULL;
	if (parent < 0) {
		bits = explore_top(g, position, count);
	} else {
		int32_t state = start_state(g, position, count, true);
		for (int32_t i = 0; i < g->node[parent].n_ends; i++)
			walk(g, g->node[parent].ends[i], state);
	}
	return keep_node(g, (struct node){.parent = parent, .position = position, .count = count, .bits = bits}, h);
}

static void put_tokens(const struct stave_grammar *g, const struct node *n, uint32_t *bits)
{
	for (size_t i = 0; n->bits && i < ((size_t)g->v->V + 31) / 32; i++)
		bits[i] |= n->bits[i];
	for (int32_t i = 0; i < n->n_tokens; i++)
		bits[n->tokens[i] >> 5] |= 1u << (n->tokens[i] & 31);
}

void masks_of(struct stave_grammar *g, const struct cells *c, const struct set *s, uint32_t *bits)
{
	if (g->kept_bytes > KEPT_BUDGET || g->n_nodes > NODES_MAX / 2)
		forget_nodes(g);
	for (int i = 0; i < s->n; i++) {
		const struct cell *x = &c->c[s->cell[i]];
		for (int32_t at = node_of(g, -1, x->position, x->count); at >= 0; at = node_of(g, at, x->position, x->count)) {
			put_tokens(g, &g->node[at], bits);
			if (!g->node[at].n_ends || x->rest == BOTTOM)
				break;
			x = &c->c[x->rest];
		}
	}
}

/* ---- tables ---- */

bool masks_open(struct stave_grammar *g)
{
	size_t V = (size_t)g->v->V, longest = (size_t)g->v->longest + 2;
	g->path = malloc(longest * sizeof *g->path);
	g->copies = malloc(longest * sizeof *g->copies);
	g->bits = calloc((V + 31) / 32 + 1, sizeof *g->bits);
	g->tokens = malloc((V + 1) * sizeof *g->tokens);
	return g->path && g->copies && g->bits && g->tokens;
}

void masks_close(struct stave_grammar *g)
{
	forget_states(g);
	forget_nodes(g);
	free(g->state);
	free(g->slot);
	free(g->sets);
	free(g->node);
	free(g->node_slot);
	free(g->run);
	free(g->work.cell);
	free(g->to.cell);
	free(g->path);
	free(g->copies);
	free(g->bits);
	free(g->tokens);
	free(g->ends);
}
