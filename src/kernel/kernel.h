/* kernel/: the operations, each one thread's work over plain memory. A caller splits rows (or heads) over threads; a
 * kernel never starts one. x.c is the reference: the definition, kept for ever, never tuned. x.simd.c is compiled per
 * vector level. One table (kernels.c) picks at start-up; STAVE_CPU=ref|avx2|avx512|avx512bf16 lowers it.
 *
 * `dt` is the type of activations: STAVE_F32 or STAVE_BF16, pointers to them are void *. Statistics, gains, biases, the
 * residual stream and all gradients of parameters are float. All matrices are row-major; strides are in elements.
 * bf16 is written with round to nearest even, NaN kept quiet. */
#ifndef STAVE_KERNEL_H
#define STAVE_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/dtype.h"

/* Attention of one (sequence, query head) pair. Rows t of q, k, v, o lie `ld*` elements apart, D wide. Causal: row t
 * sees keys max(start[t], t-window+1) .. t, where start (T) int32 is the first token of t's document (NULL: 0), and
 * window 0 means none. scale multiplies q·k and is positive. lse (T): log-sum-exp of each row, kept for the backward pass. */
struct stave_attn {
	int T, D;
	const void *q, *k, *v;   /* (T, D) each */
	size_t ldq, ldk, ldv;
	void *o;                 /* (T, D) */
	size_t ldo;
	float *lse;              /* (T) */
	const int32_t *start;    /* (T) or NULL; non-decreasing, start[t] <= t */
	int window;
	float scale;
	/* backward only */
	const void *d_o;         /* (T, D), type dt, stride ldo */
	float *dq, *dk, *dv;     /* (T, D) f32, strides lddq, lddkv; dq is set, dk and dv are added to (GQA sums its group) */
	size_t lddq, lddkv;
};

struct stave_paged_attn; /* paged.h */

struct stave_kernels {
	const char *level;

	/* conversions of n values; to and from may not overlap */
	void (*to_bf16)(uint16_t *y, const float *x, size_t n);
	void (*from_bf16)(float *y, const uint16_t *x, size_t n);

	/* y[i] = (x[i] - mean) * rstd * gain (+ bias) per row of C, f32 in, dt out. rms: mean is 0 and not stored (mean may be NULL).
	 * bias may be NULL. mean, rstd (n). */
	void (*norm_fwd)(enum stave_dtype dt, bool rms, void *y, float *mean, float *rstd, const float *x, const float *gain,
	                 const float *bias, float eps, int n, int C);
	/* dx (n, C) f32 += gradient; dgain, dbias (C) += (dbias may be NULL). dy (n, C) of type dt. If dx_dt is not NULL, the
	 * updated dx is also stored there as dt (the next product's operand). */
	void (*norm_bwd)(enum stave_dtype dt, bool rms, float *dx, void *dx_dt, float *dgain, float *dbias, const void *dy,
	                 const float *x, const float *mean, const float *rstd, const float *gain, int n, int C);

	/* RMSNorm over D of each of `heads` heads in a row of q or k, in place, followed by nothing (qwen3 q/k norm). rows lie
	 * ld apart; rstd (n, heads). Backward rewrites dy as dx in place and adds to dgain (D); x is the un-normed input. */
	void (*headnorm_fwd)(enum stave_dtype dt, void *y, size_t ldy, float *rstd, const void *x, size_t ldx, const float *gain,
	                     float eps, int n, int heads, int D);
	void (*headnorm_bwd)(float *dy, size_t lddy, float *dgain, const void *x, enum stave_dtype dt, size_t ldx, const float *rstd,
	                     const float *gain, int n, int heads, int D);

	/* Rotary embedding, half-split pairs (i, i + D/2), in place on `heads` heads of n rows ld apart: angle pos[r] * freq[i].
	 * table (T_max, D/2, 2) f32 holds cos, sin by position. inverse rotates back (the backward pass). */
	void (*rope)(enum stave_dtype dt, bool inverse, void *x, size_t ld, const int32_t *pos, const float *table, int n, int heads, int D);

	/* y = gelu(x) of (n) values; exact (erf) or tanh form. bwd: dx = dy * gelu'(x); dx may be dy. */
	void (*gelu_fwd)(enum stave_dtype dt, bool exact, void *y, const void *x, size_t n);
	void (*gelu_bwd)(enum stave_dtype dt, bool exact, void *dx, const void *dy, const void *x, size_t n);
	/* gu (n, 2I): gate then up. y (n, I) = silu(gate) * up. bwd writes dgu (n, 2I); dgu may be gu. */
	void (*swiglu_fwd)(enum stave_dtype dt, void *y, const void *gu, int n, int I);
	void (*swiglu_bwd)(enum stave_dtype dt, void *dgu, const void *dy, const void *gu, int n, int I);

	/* out (n, C) f32 = wte[id] (+ wpe[pos]); wpe may be NULL */
	void (*embed_fwd)(float *out, const int32_t *ids, const int32_t *pos, const float *wte, const float *wpe, int n, int C);

	/* x (n, C) += bias for dt; colsum: db (C) += column sums of dy (n, C) */
	void (*bias_add)(enum stave_dtype dt, void *x, const float *bias, int n, int C);
	void (*colsum)(enum stave_dtype dt, float *db, const void *dy, size_t ld, int n, int C);
	/* y += x, y *= a, over n floats */
	void (*add)(float *y, const float *x, size_t n);
	void (*scale)(float *y, float a, size_t n);

	/* Softmax cross-entropy over rows of logits (n, ld >= V), in place. targets (n), -1 = masked (loss 0, gradient 0).
	 * loss (n) in nats. If `grad_scale` is not 0, logits become (p - onehot) * grad_scale, columns V..ld become 0. */
	void (*xent)(enum stave_dtype dt, void *logits, size_t ld, float *loss, const int32_t *targets, float grad_scale, int n, int V);

	void (*attn_fwd)(enum stave_dtype dt, const struct stave_attn *a, void *scratch);
	void (*attn_bwd)(enum stave_dtype dt, const struct stave_attn *a, void *scratch);
	/* bytes of scratch one call needs, 64-byte aligned */
	size_t (*attn_scratch)(enum stave_dtype dt, int T, int D, bool backward);

	/* AdamW over n values (Loshchilov & Hutter 2019, torch's order: decay, moments, step). g is read times g_scale.
	 * c1 = 1 - b1^t, c2 = 1 - b2^t. If w16 is not NULL, the new p is also stored there as bf16. The scalars are double since
	 * 1 - b2 in float would already be wrong by 1e-5. */
	void (*adamw)(float *p, uint16_t *w16, float *m, float *v, const float *g, size_t n, float g_scale, double lr, double b1,
	              double b2, double eps, double decay, double c1, double c2);
	/* Sum of squares in double; NaN and Inf propagate. */
	double (*sumsq)(const float *x, size_t n);
	/* dot products for decoding: y (n) = W (n, k) x (k); W of type dt, x and y f32. */
	void (*gemv)(enum stave_dtype dt, float *y, const void *W, size_t ldw, const float *x, int n, int k);

	/* paged.h's stave_paged_attention */
	void (*paged_attn)(const struct stave_paged_attn *a, void *scratch);
};

/* The table chosen for this machine and STAVE_CPU; built on first use, then constant. */
const struct stave_kernels *stave_kernels(void);
/* A named level, NULL if this machine lacks it. Levels in order: "ref", "avx2", "avx512", "avx512bf16". */
const struct stave_kernels *stave_kernels_level(const char *level);
extern const char *const stave_levels[]; /* NULL-terminated */
bool stave_has_bf16(void); /* the chosen level has bf16 products in hardware */

#endif
