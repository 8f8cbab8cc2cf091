/* Every operation of a training step and of an inference step, in the order they run. The lists mirror what model/ does,
 * operation by operation: a forecast is only as good as this agreement, and a test holds it against measured steps.
 *
 * Matrices and attention are counted by flops, everything else by the bytes it moves. `classes` says how many bytes one
 * value of a byte-limited class moves; bench measures rates by the same table, so the convention cancels out of a forecast. */
#include "cost/cost.h"

#include <string.h>

/* Bytes per value: `fixed` in f32 (residual stream, statistics, parameters, gradients) and `typed` values of the
 * activation type. A value is one of the m x n the operation is described by. */
struct value_class {
	const char *rate;
	enum stave_pass pass;
	double fixed, typed;
};
static const struct value_class classes[] = {
	{"embed", STAVE_FORWARD, 12, 0},   /* read two tables, write the residual */
	{"embed", STAVE_DGRAD, 12, 0},     /* read the gradient, add to a table row */
	{"norm", STAVE_FORWARD, 4, 1},     /* read the residual, write the operand */
	{"norm", STAVE_DGRAD, 12, 2},      /* read dy and x; read, write and convert dx */
	{"headnorm", STAVE_FORWARD, 0, 2}, /* read and write */
	{"headnorm", STAVE_DGRAD, 8, 1},   /* read x; read and write the gradient */
	{"rope", STAVE_FORWARD, 0, 2},     /* in place */
	{"rope", STAVE_DGRAD, 8, 0},       /* in place, on f32 gradients */
	{"gelu", STAVE_FORWARD, 0, 2},     /* read, write */
	{"gelu", STAVE_DGRAD, 0, 3},       /* read dy and x, write dx */
	{"swiglu", STAVE_FORWARD, 0, 3},   /* read gate and up, write the product */
	{"swiglu", STAVE_DGRAD, 0, 5},     /* read dy, gate and up, write two gradients */
	{"bias", STAVE_FORWARD, 0, 2},     /* in place */
	{"bias", STAVE_WGRAD, 0, 1},       /* column sums */
	{"residual", STAVE_FORWARD, 12, 0}, /* y += x in f32 */
	{"convert", STAVE_FORWARD, 4, 1},  /* f32 to the activation type */
	{"loss", STAVE_FORWARD, 0, 3},     /* read for the sum, read and write for the gradient, in place */
	{"sumsq", STAVE_UPDATE, 4, 0},     /* read */
	{"adamw", STAVE_UPDATE, 28, 0},    /* read p, m, v, g; write p, m, v */
	{"refresh", STAVE_UPDATE, 4, 1},   /* parameters to the layout and type products want */
};

double stave_cost_value_bytes(const char *rate, enum stave_pass pass, enum stave_dtype dtype)
{
	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
		if (!strcmp(classes[i].rate, rate) && classes[i].pass == pass)
			return classes[i].fixed + classes[i].typed * (double)stave_dtype_bytes(dtype);
	return 0;
}

/* ---- building the list ---- */

struct list {
	struct stave_op *ops;
	int n;
	enum stave_dtype dtype;
	int64_t count; /* given to the operations appended next */
};

static void matmul(struct list *l, const char *name, enum stave_pass pass, int64_t m, int64_t n, int64_t k)
{
	double e = (double)stave_dtype_bytes(l->dtype), out = pass == STAVE_WGRAD ? 4 : e, M = (double)m, N = (double)n, K = (double)k;
	l->ops[l->n++] = (struct stave_op){.name = name, .rate = "matmul", .kind = STAVE_OP_MATMUL, .pass = pass, .dtype = l->dtype, .m = m, .n = n,
	                                   .k = k, .count = l->count, .flops = 2 * M * N * K, .bytes = e * (M * K + K * N) + out * M * N};
}

static void element(struct list *l, const char *name, const char *rate, enum stave_pass pass, int64_t rows, int64_t columns)
{
	double values = (double)rows * (double)columns;
	enum stave_op_kind kind = pass == STAVE_UPDATE ? STAVE_OP_OPTIMIZER : !strcmp(rate, "loss") ? STAVE_OP_LOSS : STAVE_OP_ELEMENT;
	l->ops[l->n++] = (struct stave_op){.name = name, .rate = rate, .kind = kind, .pass = pass, .dtype = l->dtype, .m = rows, .n = columns, .k = 1,
	                                   .count = l->count, .bytes = values * stave_cost_value_bytes(rate, pass, l->dtype)};
}

/* Pairs of a query and a key it sees, in one head: `n` queries after `past` keys, each seeing at most `window`. */
static double pairs(int64_t n, int64_t past, int window)
{
	double N = (double)n, P = (double)past, w = window ? window : N + P;
	if (w >= N + P)
		return N * P + N * (N + 1) / 2;
	double growing = P < w ? w - P : 0; /* queries whose row is not yet cut by the window: they see P+1 .. w keys */
	return growing * P + growing * (growing + 1) / 2 + (N - growing) * w;
}

/* Forward: q·k and p·v. Backward: five products, s = q·k again, dv, dp, dq, dk. */
static void attention(struct list *l, const struct stave_shape *s, enum stave_pass pass, int64_t B, int64_t n, int64_t past)
{
	double e = (double)stave_dtype_bytes(l->dtype), D = s->D, p = pairs(n, past, s->window);
	double products = pass == STAVE_FORWARD ? 2 : 5, rows = (double)B * s->H * (double)n;
	double kv_rows = (double)B * s->K * (double)(n + past);
	double bytes = e * D * 2 * (rows + kv_rows); /* q, o; k, v */
	if (pass != STAVE_FORWARD)
		bytes += D * (e * rows + 4 * rows + 2 * 4 * kv_rows); /* do; dq; dk, dv */
	l->ops[l->n++] = (struct stave_op){.name = "attention", .rate = "attention", .kind = STAVE_OP_ATTENTION, .pass = pass, .dtype = l->dtype,
	                                   .m = B * s->H, .n = n, .k = s->D, .count = l->count,
	                                   .flops = 2 * D * products * p * (double)B * s->H, .bytes = bytes};
}

/* ---- the passes of a layer ---- */

struct widths {
	int64_t C, q, qk, qkv, up, I;
};

static struct widths widths_of(const struct stave_shape *s)
{
	return (struct widths){.C = s->C, .q = (int64_t)s->H * s->D, .qk = ((int64_t)s->H + s->K) * s->D,
	                       .qkv = ((int64_t)s->H + 2 * (int64_t)s->K) * s->D,
	                       .up = s->act == STAVE_SWIGLU ? 2 * (int64_t)s->I : s->I, .I = s->I};
}

static void activation(struct list *l, const struct stave_shape *s, enum stave_pass pass, int64_t rows)
{
	const char *rate = s->act == STAVE_SWIGLU ? "swiglu" : "gelu";
	element(l, "activation", rate, pass, rows, s->I);
}

static void positions(struct list *l, const struct stave_shape *s, enum stave_pass pass, int64_t rows)
{
	struct widths w = widths_of(s);
	if (s->qk_norm)
		element(l, "qk_norm", "headnorm", pass, rows, w.qk);
	if (!s->learned_pos)
		element(l, "rope", "rope", pass, rows, w.qk);
}

static void layer_forward(struct list *l, const struct stave_shape *s, int64_t B, int64_t n, int64_t past)
{
	struct widths w = widths_of(s);
	int64_t rows = B * n;
	element(l, "norm1", "norm", STAVE_FORWARD, rows, w.C);
	matmul(l, "qkv", STAVE_FORWARD, rows, w.qkv, w.C);
	if (s->qkv_bias)
		element(l, "qkv_bias", "bias", STAVE_FORWARD, rows, w.qkv);
	positions(l, s, STAVE_FORWARD, rows);
	attention(l, s, STAVE_FORWARD, B, n, past);
	matmul(l, "out", STAVE_FORWARD, rows, w.C, w.q);
	if (s->out_bias)
		element(l, "out_bias", "bias", STAVE_FORWARD, rows, w.C);
	element(l, "residual1", "residual", STAVE_FORWARD, rows, w.C);
	element(l, "norm2", "norm", STAVE_FORWARD, rows, w.C);
	matmul(l, "up", STAVE_FORWARD, rows, w.up, w.C);
	if (s->mlp_bias)
		element(l, "up_bias", "bias", STAVE_FORWARD, rows, w.up);
	activation(l, s, STAVE_FORWARD, rows);
	matmul(l, "down", STAVE_FORWARD, rows, w.C, w.I);
	if (s->mlp_bias)
		element(l, "down_bias", "bias", STAVE_FORWARD, rows, w.C);
	element(l, "residual2", "residual", STAVE_FORWARD, rows, w.C);
}

/* The two gradients of y = x W^T (+ b): of the operand and of the weights. */
static void linear_backward(struct list *l, const char *name, const char *bias, int64_t rows, int64_t out, int64_t in)
{
	matmul(l, name, STAVE_DGRAD, rows, in, out);
	matmul(l, name, STAVE_WGRAD, out, in, rows);
	if (bias)
		element(l, bias, "bias", STAVE_WGRAD, rows, out);
}

static void layer_backward(struct list *l, const struct stave_shape *s, int64_t B, int64_t T)
{
	struct widths w = widths_of(s);
	int64_t rows = B * T;
	linear_backward(l, "down", s->mlp_bias ? "down_bias" : NULL, rows, w.C, w.I);
	activation(l, s, STAVE_DGRAD, rows);
	linear_backward(l, "up", s->mlp_bias ? "up_bias" : NULL, rows, w.up, w.C);
	element(l, "norm2", "norm", STAVE_DGRAD, rows, w.C);
	linear_backward(l, "out", s->out_bias ? "out_bias" : NULL, rows, w.C, w.q);
	attention(l, s, STAVE_DGRAD, B, T, 0);
	positions(l, s, STAVE_DGRAD, rows);
	element(l, "qkv_grad", "convert", STAVE_FORWARD, rows, w.qkv);
	linear_backward(l, "qkv", s->qkv_bias ? "qkv_bias" : NULL, rows, w.qkv, w.C);
	element(l, "norm1", "norm", STAVE_DGRAD, rows, w.C);
}

/* What the backward pass computes again. Attention keeps its output and log-sum-exp at the cheap level. */
static void layer_recompute(struct list *l, const struct stave_shape *s, int64_t B, int64_t T, enum stave_recompute re)
{
	int64_t rows = B * T;
	if (re == STAVE_RECOMPUTE_CHEAP) {
		element(l, "norm1", "norm", STAVE_FORWARD, rows, s->C);
		element(l, "norm2", "norm", STAVE_FORWARD, rows, s->C);
		activation(l, s, STAVE_FORWARD, rows);
	} else if (re == STAVE_RECOMPUTE_LAYER) {
		layer_forward(l, s, B, T, 0);
	}
}

/* ---- the two public lists ---- */

static void update(struct list *l, const struct stave_shape *s)
{
	int64_t params = stave_shape_params(s);
	l->count = 1;
	element(l, "grad_norm", "sumsq", STAVE_UPDATE, params, 1);
	element(l, "adamw", "adamw", STAVE_UPDATE, params, 1);
	if (l->dtype == STAVE_BF16)
		element(l, "refresh", "refresh", STAVE_UPDATE, params, 1);
}

int stave_cost_train_ops(const struct stave_shape *s, int B, int T, int micro, enum stave_dtype dtype, enum stave_recompute re, struct stave_op *ops)
{
	struct list l = {.ops = ops, .dtype = dtype, .count = micro};
	int64_t rows = (int64_t)B * T, layers = (int64_t)micro * s->L;
	element(&l, "embed", "embed", STAVE_FORWARD, rows, s->C);
	l.count = layers;
	layer_forward(&l, s, B, T, 0);
	l.count = micro;
	element(&l, "norm_f", "norm", STAVE_FORWARD, rows, s->C);
	matmul(&l, "head", STAVE_FORWARD, rows, s->V, s->C);
	element(&l, "loss", "loss", STAVE_FORWARD, rows, s->V);
	linear_backward(&l, "head", NULL, rows, s->V, s->C);
	element(&l, "norm_f", "norm", STAVE_DGRAD, rows, s->C);
	l.count = layers;
	layer_recompute(&l, s, B, T, re);
	layer_backward(&l, s, B, T);
	l.count = micro;
	element(&l, "embed", "embed", STAVE_DGRAD, rows, s->C);
	update(&l, s);
	return l.n;
}

int stave_cost_infer_ops(const struct stave_shape *s, int n, int past, enum stave_dtype weights, struct stave_op *ops)
{
	struct list l = {.ops = ops, .dtype = weights, .count = 1};
	element(&l, "embed", "embed", STAVE_FORWARD, n, s->C);
	l.count = s->L;
	layer_forward(&l, s, 1, n, past);
	l.count = 1;
	element(&l, "norm_f", "norm", STAVE_FORWARD, n, s->C);
	matmul(&l, "head", STAVE_FORWARD, 1, s->V, s->C); /* only the last token's logits are wanted */
	return l.n;
}
