/* Private to stack.c, mask.c and match.c: where in a grammar an answer may stand.
 *
 * A state is a set of stacks: the top is a position that reads bytes, below it the positions to return to. Stacks are linked
 * cells, each distinct (position, count, rest) once. After each byte the set is closed: calls are entered and ended rules left
 * until every top reads bytes; whether the whole may end here is one flag. */
#ifndef STAVE_INFER_GRAMMAR_STATE_H
#define STAVE_INFER_GRAMMAR_STATE_H

#include <pthread.h>

#include "infer/grammar_build.h"

#define STACKS_MAX 1024 /* of one state */
#define STACK_DEPTH_MAX 1000
#define CELLS_MAX (1 << 20)

struct cell {
	int32_t position, rest;
	int32_t count; /* whole copies of the chain that position belongs to; else 0 */
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
struct closing {
	const struct automaton *a;
	struct cells *c;
	struct set *work; /* cells still to be closed */
	struct set *to;
};

void cells_free(struct cells *c);
bool cells_grow(struct cells *c);
/* The cell (position, count) over rest, or -1: too deep, too many, out of memory. */
int32_t cell_of(struct cells *c, int32_t position, int32_t count, int32_t rest);
void set_add(struct set *s, int32_t cell);
void set_begin(struct closing *k);               /* empties k->to */
void set_reach(struct closing *k, int32_t cell); /* adds a cell, or notes the bottom; -1 is ignored */
void set_close(struct closing *k);
void set_step(struct closing *k, const int32_t *cell, int n, uint8_t byte); /* the closed set after a byte, in k->to */

/* ---- masks ---- */

struct lazy_state { /* of the automaton over an unknown rest */
	int32_t *next;  /* (256), NULL until first asked */
	int32_t set, n; /* cells */
	bool ends;
};
struct node { /* what is known of the tokens after a top, or after a top and the positions below it down to here */
	int32_t parent, position, count; /* what it is of; parent < 0: a top */
	uint32_t *bits;    /* tokens that fit; or a list of them */
	int32_t *tokens;
	int32_t n_tokens;
	int32_t *ends;     /* nodes of the trie at which the rule may end */
	int32_t n_ends;
};
struct end_at {
	int32_t node, copies;
};
struct run { /* of a position of a chain that reads bytes only, without its limits */
	int32_t position;
	uint16_t *need;      /* (V) copies begun after a token; NEVER_FITS */
	uint32_t *bits;      /* all that fit without a limit */
	struct end_at *ends; /* nodes of the trie where the chain may end or is closed, with the copies complete there */
	int32_t n_ends, cap_ends;
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
	int32_t *slot;             /* hash of sets -> state */
	uint32_t slot_mask;
	struct set work, to;
	int64_t steps_left;        /* of this node */
	struct node *node;
	int32_t n_nodes, cap_nodes;
	int32_t *node_slot;
	uint32_t node_mask;
	struct run *run;
	int n_runs, cap_runs;
	size_t kept_bytes;
	int32_t *path;             /* (longest + 2) states on the way down the trie */
	int32_t *copies;           /* (longest + 2) */
	uint32_t *bits;            /* scratch: tokens as bits, (V + 31) / 32, and listed, (V) */
	int32_t *tokens, n_tokens;
	int32_t *ends, n_ends, cap_ends;
};
bool masks_open(struct stave_grammar *g);
void masks_close(struct stave_grammar *g);
/* Tokens that the stacks allow, into bits; under the lock. */
void masks_of(struct stave_grammar *g, const struct cells *c, const struct set *s, uint32_t *bits);

#endif
