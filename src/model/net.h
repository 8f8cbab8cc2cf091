/* Private to model/: the training network's buffers and products, shared by net.c (memory), net_forward.c and
 * net_backward.c. n = B·T rows; `dt` is the type of activations (net->c.dtype); Q = H·D, QKV = (H + 2K)·D,
 * F = I or 2·I with SwiGLU, Vp = padded vocabulary. */
#ifndef STAVE_MODEL_NET_H
#define STAVE_MODEL_NET_H

#include "kernel/kernel.h"
#include "kernel/matmul.h"
#include "model/model.h"

/* Sums over rows (gains, biases) are taken in this many fixed slices and added in order, so that a gradient does not
 * depend on the number of threads. */
#define SLICES 32
/* Rows an element-wise kernel gets at a time: some hundred KB, so the operand of the next pass is still in the cache. */
#define ROWS 32

struct acts { /* of one layer; shared between layers where recomputed */
	float *x0;             /* (n, C) the residual stream that enters; always kept */
	void *norm1;           /* (n, C) dt */
	float *mean1, *rstd1;  /* (n) */
	void *qkv;             /* (n, QKV) dt; q and k rotated unless qk_norm */
	void *qk;              /* (n, Q + K·D) dt: normed and rotated q, k; only with qk_norm, else NULL */
	float *qk_rstd;        /* (n, H) then (n, K) */
	void *att;             /* (n, Q) dt */
	float *lse;            /* (B, H, T) */
	float *x1;             /* (n, C) after attention */
	void *norm2;           /* (n, C) dt */
	float *mean2, *rstd2;
	void *up;              /* (n, F) dt: before the activation */
	void *act;             /* (n, I) dt */
};

/* The products, by what they make. dg: gradient of the input, wg: of the weights (written or accumulated). */
enum product {
	QKV_FWD, OUT_FWD, UP_FWD, DOWN_FWD,
	DOWN_DG, UP_DG, OUT_DG, QKV_DG,
	DOWN_WG, UP_WG, OUT_WG, QKV_WG,
	DOWN_WG_ADD, UP_WG_ADD, OUT_WG_ADD, QKV_WG_ADD,
	HEAD_FWD, HEAD_DG, HEAD_WG, HEAD_WG_ADD,            /* a full chunk of rows */
	TAIL_FWD, TAIL_DG, TAIL_WG, TAIL_WG_ADD,            /* the last, shorter one */
	PRODUCTS
};

struct stave_net {
	struct stave_net_config c;
	const struct stave_layout *l;
	const struct stave_kernels *k;
	float *p, *g;          /* (layout n) master parameters, gradients */
	uint16_t *w16;         /* (layout n) or NULL */
	int n, Q, KV, QKV, F, Vp, chunk, threads;
	struct acts *acts;     /* (L) */
	float *xl;             /* (n, C) leaves the last layer */
	void *normf;           /* (n, C) dt */
	float *meanf, *rstdf;
	void *logits;          /* (chunk, Vp) dt, becomes its own gradient */
	float *losses;         /* (n) */
	float *rope;           /* (T, D/2, 2) or NULL */
	int32_t *pos;          /* (n) 0..T-1 repeated */
	/* gradients of activations */
	float *dx;             /* (n, C) of the residual stream */
	void *dx16;            /* (n, C) dt: what products read of it; dx itself in f32 */
	void *dnorm;           /* (n, C) dt */
	void *dact;            /* (n, I) dt */
	void *dup;             /* (n, F) dt */
	void *datt;            /* (n, Q) dt */
	float *dqkv;           /* (n, QKV) */
	void *dqkv16;          /* dqkv itself in f32 */
	float *slices;         /* (SLICES, 2·max width) partial sums over rows */
	void *attn_scratch;    /* (threads, attn_bytes) */
	size_t attn_bytes;
	void *mm_scratch;
	struct stave_matmul *mm[PRODUCTS];
	struct stave_net_times times;
	struct stave_net_memory memory;
};

/* The operand a product reads for the matrix at `offset`. */
static inline const void *weight(const struct stave_net *n, int64_t offset)
{
	return n->w16 ? (const void *)(n->w16 + offset) : (const void *)(n->p + offset);
}
static inline const float *maybe(const float *base, int64_t offset) { return offset < 0 ? NULL : base + offset; }
/* Element i of an array of activations. */
static inline void *at(const struct stave_net *n, void *x, size_t i) { return (char *)x + i * stave_dtype_bytes(n->c.dtype); }

/* Runs product `which`; its time is counted. */
void net_product(struct stave_net *n, enum product which, const void *a, const void *b, void *c, const float *bias);
/* All activations of a layer from its x0, up to the input of its last product. */
void net_layer_activations(struct stave_net *n, int layer, const struct stave_batch *b);
/* The attention of one query head of one row of the batch, forward fields set. */
struct stave_attn net_attn(struct stave_net *n, struct acts *a, const struct stave_batch *b, int row, int head);
void net_norm(struct stave_net *n, void *y, float *mean, float *rstd, const float *x, int64_t gain, int64_t bias);
void net_activation(struct stave_net *n, struct acts *a);
/* Position and document arrays of the batch, with the default when absent. */
static inline const int32_t *net_pos(const struct stave_net *n, const struct stave_batch *b) { return b->pos ? b->pos : n->pos; }

#endif
