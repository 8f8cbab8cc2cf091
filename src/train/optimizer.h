/* Private to train/: the optimizers' state and steps. */
#ifndef STAVE_TRAIN_OPTIMIZER_H
#define STAVE_TRAIN_OPTIMIZER_H

#include "base/arena.h"
#include "model/model.h"

/* A piece of one parameter: the unit of work of a thread and of a sum, so that neither depends on the number of threads. */
struct optimizer_chunk {
	int64_t at, n; /* floats */
	int param;
};
/* The three products of Muon for one matrix shape; the Gram matrix is taken on the shorter side, r = min(rows, cols). */
struct muon_shape {
	int rows, cols;
	struct stave_matmul *gram;   /* A (r, r) = X Xᵀ, or Xᵀ X of a tall X */
	struct stave_matmul *square; /* B (r, r) = A A */
	struct stave_matmul *apply;  /* (rows, cols) = B X, or X B of a tall X */
};
#define MUON_SHAPES_MAX 16
struct muon {
	struct muon_shape shapes[MUON_SHAPES_MAX];
	int n_shapes;
	float *x[2];   /* (rows, cols) of the largest matrix, each */
	float *a, *b;  /* (r, r) each */
	void *scratch; /* what the products need */
	double *partial;
};
struct optimizer {
	const struct stave_layout *l;
	int kind;       /* STAVE_ADAMW or STAVE_MUON */
	float *m;       /* (l->n) first moment, or Muon's momentum, at the parameters' offsets */
	float *v;       /* (n_v) second moment of what AdamW updates */
	int64_t n_v;
	int64_t *v_at;  /* (l->n_params) where a parameter's second moment starts in v; -1: none, it is Muon's */
	struct optimizer_chunk *chunks;
	int n_chunks;
	double *partial; /* (n_chunks) sums of squares */
	struct muon muon;
};
/* What one update needs to know. */
struct optimizer_rates {
	double lr, muon_lr, muon_momentum, beta1, beta2, eps, weight_decay;
	double g_scale;  /* every gradient is read times this: clipping / tokens */
	int64_t t;       /* number of this update, from 1: bias correction */
};

/* Take the state from `arena` (which may only be planning). The layout must outlive the optimizer. */
int optimizer_open(struct optimizer *o, const struct stave_layout *l, int kind, struct stave_arena *arena, struct stave_err *err);
void optimizer_close(struct optimizer *o);
/* Is the parameter updated by Muon? */
bool optimizer_is_muon(const struct optimizer *o, int param);
/* Sum of squares of all gradients (x laid out as parameters), in an order that does not depend on threads. Returns -1, or
 * the first parameter in file order that holds a NaN or an infinity: a double holds the square of any finite float. */
int optimizer_sumsq(struct optimizer *o, const float *x, double *sum);
/* w16: the bf16 copy of p that the products read, updated with it; NULL: none. */
void optimizer_step(struct optimizer *o, float *p, uint16_t *w16, const float *g, const struct optimizer_rates *r);

/* muon.c */
int muon_open(struct muon *m, const struct stave_layout *l, struct stave_arena *arena, struct stave_err *err);
void muon_close(struct muon *m);
/* x (rows, cols), in place, becomes about U Vᵀ of its singular value decomposition; the shape is one of the layout's. */
void muon_orthogonalize(struct muon *m, float *x, int rows, int cols);
/* One update of the matrix p (and w16, unless NULL) with gradient g and momentum mom. */
void muon_step(struct muon *m, const struct stave_param *at, float *p, uint16_t *w16, float *mom, const float *g, const struct optimizer_rates *r);

#endif
