/* Stacks of positions: cells, and the step of a set of them by one byte. The work of one closing is bounded by the stacks a state may have, the
 * depth of one and the cells in all. */
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_state.h"

void cells_free(struct cells *c)
{
	free(c->c);
	free(c->slot);
	free(c->seen);
	*c = (struct cells){0};
}

static uint32_t cell_hash(int32_t position, int32_t count, int32_t rest)
{
	uint64_t h = ((uint64_t)(uint32_t)position << 32 | (uint32_t)rest) * 0x9e3779b97f4a7c15u;
	h = (h ^ h >> 29 ^ (uint32_t)count) * 0xbf58476d1ce4e5b9u;
	return (uint32_t)(h >> 32);
}

bool cells_grow(struct cells *c)
{
	int32_t cap = c->cap ? 2 * c->cap : 256;
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
		uint32_t h = cell_hash(c->c[i].position, c->c[i].count, c->c[i].rest) & c->mask;
		while (slot[h] >= 0)
			h = (h + 1) & c->mask;
		slot[h] = i;
	}
	free(c->slot);
	c->slot = slot;
	c->cap = cap;
	if (!c->n) {
		c->c[0] = (struct cell){-1, -1, 0, 0};
		c->n = 1;
	}
	return true;
}

int32_t cell_of(struct cells *c, int32_t position, int32_t count, int32_t rest)
{
	if (c->n == c->cap && (c->n >= CELLS_MAX || !cells_grow(c)))
		return -1;
	uint32_t h = cell_hash(position, count, rest) & c->mask;
	for (; c->slot[h] >= 0; h = (h + 1) & c->mask) {
		const struct cell *x = &c->c[c->slot[h]];
		if (x->position == position && x->rest == rest && x->count == count)
			return c->slot[h];
	}
	if (c->c[rest].depth >= STACK_DEPTH_MAX)
		return -1;
	c->c[c->n] = (struct cell){position, rest, count, c->c[rest].depth + 1};
	c->seen[c->n] = 0;
	c->slot[h] = c->n;
	return c->n++;
}

void set_add(struct set *s, int32_t cell)
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

void set_reach(struct closing *k, int32_t cell)
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

/* Copies after one more: beyond the least number of an unlimited chain they are not told apart. */
static int32_t one_more(const struct chain *ch, int32_t count) { return ch->max < 0 && count >= ch->min ? ch->min : count + 1; }

/* The count that goes with position `to`, reached from a position of the same rule with `count`. */
static int32_t count_at(const struct automaton *a, int32_t to, int32_t count)
{
	int32_t chain = a->p[to].chain;
	return chain < 0 ? 0 : to == a->chains[chain].start ? one_more(&a->chains[chain], count) : count;
}

static void close_cell(struct closing *k, int32_t cell)
{
	struct cell x = k->c->c[cell]; /* a copy: cells move */
	const struct position *p = &k->a->p[x.position];
	bool reads = p->n_edges > 0, ends = p->accept, calls = true;
	if (p->chain >= 0 && x.position == k->a->chains[p->chain].start) { /* between two copies */
		const struct chain *ch = &k->a->chains[p->chain];
		calls = ch->max < 0 || x.count < ch->max;
		reads = reads && (calls || (ch->end >= 0 && x.count >= ch->min));
		ends = ch->end < 0 && x.count >= ch->min;
	}
	if (reads) {
		if (k->to->n >= STACKS_MAX) {
			k->to->full = true;
			return;
		}
		set_add(k->to, cell);
	}
	for (int32_t i = 0; calls && i < p->n_calls; i++) {
		const struct call *c = &k->a->calls[p->call + i];
		/* a call with nothing after it needs no return: long lists stay flat */
		int32_t back = k->a->p[c->to].last ? x.rest : cell_of(k->c, c->to, count_at(k->a, c->to, x.count), x.rest);
		if (back >= 0)
			set_reach(k, cell_of(k->c, k->a->start[c->rule], 0, back));
	}
	if (ends)
		set_reach(k, x.rest);
}

#define CLOSING_MAX (64 * STACKS_MAX) /* cells looked at */
void set_close(struct closing *k)
{
	for (int n = 0; k->work->n && !k->to->full; n++) {
		close_cell(k, k->work->cell[--k->work->n]);
		if (n > CLOSING_MAX || k->work->full)
			k->to->full = true;
	}
}

void set_begin(struct closing *k)
{
	k->to->n = k->work->n = 0;
	k->to->ends = k->to->full = k->work->full = false;
	if (!++k->c->stamp) { /* wrapped */
		memset(k->c->seen, 0, (size_t)k->c->cap * sizeof *k->c->seen);
		k->c->stamp = 1;
	}
}

int32_t edge_to(const struct automaton *a, int32_t position, uint8_t byte)
{
	const struct edge *e = a->edges + a->p[position].edge;
	for (int32_t i = 0; i < a->p[position].n_edges; i++)
		if (byte <= e[i].hi)
			return byte >= e[i].lo ? e[i].to : -1;
	return -1;
}

void set_step(struct closing *k, const int32_t *cell, int n, uint8_t byte)
{
	set_begin(k);
	for (int i = 0; i < n; i++) {
		struct cell x = k->c->c[cell[i]];
		int32_t to = edge_to(k->a, x.position, byte), chain = k->a->p[x.position].chain;
		if (to >= 0 && chain >= 0 && x.position == k->a->chains[chain].start) {
			const struct chain *ch = &k->a->chains[chain];
			if (to == ch->end ? x.count < ch->min : ch->max >= 0 && x.count >= ch->max)
				continue;
		}
		if (to >= 0)
			set_reach(k, cell_of(k->c, to, count_at(k->a, to, x.count), x.rest));
	}
	set_close(k);
}
