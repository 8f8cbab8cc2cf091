/* Every operation of a training step and of an inference step, in the order they run. The lists mirror what model/ does,
 * operation by operation: a forecast is only as good as this agreement, and a test holds it against measured steps.
 *
 * Matrices and attention are counted by flops, everything else by the bytes it moves. `classes` says how many bytes one
 * value of a byte-limited class moves; bench measures rates by the same table, so the convention cancels out of a forecast. */
#include "cost/cost.h"

#include <string.h>

/* Bytes per value: `fixed` ones in f32 (residual stream, statistics, parameters, gradients), `typed` times the width of the
 * activation type, and `narrow` more when that type is narrower than f32 and therefore a copy beside it. A value is one of
 * the m x n the operation is described by. */
struct value_class {
	const char *rate;
	enum stave_pass pass;
	double fixed, typed, narrow;
};
static const struct value_class classes[] = {
	{"embed", STAVE_FORWARD, 12, 0, 0},   /* read two tables, write the residual */
	{"embed", STAVE_DGRAD, 16, 0, 0},     /* read the gradient; read and write a table row; positions stay in the cache */
	{"copy", STAVE_FORWARD, 8, 0, 0},     /* read, write */
	{"zero", STAVE_DGRAD, 4, 0, 0},       /* write */
	{"norm", STAVE_FORWARD, 4, 1, 0},     /* read the residual, write the operand */
	{"norm", STAVE_DGRAD, 12, 1, 2},      /* read dy and x, read and write dx, write its narrow copy */
	{"headnorm", STAVE_FORWARD, 0, 2, 0}, /* read, write */
	{"headnorm", STAVE_DGRAD, 8, 1, 0},   /* read x, read and write the gradient */
	{"rope", STAVE_FORWARD, 0, 2, 0},     /* in place */
	{"rope", STAVE_DGRAD, 8, 0, 0},       /* in place, on f32 gradients */
	{"gelu", STAVE_FORWARD, 0, 2, 0},     /* read, write */
	{"gelu", STAVE_DGRAD, 0, 3, 0},       /* read dy and x, write dx */
	{"gelu_exact", STAVE_FORWARD, 0, 2, 0},
	{"gelu_exact", STAVE_DGRAD, 0, 3, 0},
	{"swiglu", STAVE_FORWARD, 0, 3, 0},   /* read gate and up, write the product */
	{"swiglu", STAVE_DGRAD, 0, 5, 0},     /* read dy, gate and up, write two gradients */
	{"colsum", STAVE_WGRAD, 0, 1, 0},     /* read */
	{"convert", STAVE_DGRAD, 4, 0, 2},    /* read f32, write narrow */
	{"loss", STAVE_FORWARD, 0, 3, 0},     /* read for the sum; read and write for the gradient, in place */
	{"sumsq", STAVE_UPDATE, 4, 0, 0},     /* read */
	{"adamw", STAVE_UPDATE, 28, 0, 2},    /* read p, m, v, g; write p, m, v and the narrow copy of p */
	{"enter", STAVE_FORWARD, 12, 1, 0},   /* answering: read a result and the residual, write the sum; its norm stays in the cache; write the operand */
	{"place", STAVE_FORWARD, 8, 0, 0},    /* answering: of queries, keys and values read and written: turned, and put into the paged cache */
	{"activate", STAVE_FORWARD, 12, 0, 0}, /* answering: read gate and up by pieces in the cache, write the product */
	{"operand", STAVE_FORWARD, 4, 1, 0},  /* answering: read f32, write the operand of a stored matrix */
};

double stave_cost_value_bytes(const char *rate, enum stave_pass pass, enum stave_dtype dtype)
{
	size_t e = stave_dtype_bytes(dtype);
	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
		if (!strcmp(classes[i].rate, rate) && classes[i].pass == pass)
			return classes[i].fixed + classes[i].typed * (double)e + (e < 4 ? classes[i].narrow : 0);
	return 0;
}

/* ---- building the list ---- */

struct list {
	struct stave_op *ops;
	int n;
	enum stave_dtype dtype;
	int64_t count; /* given to the operations appended next */
};

/* What becomes of a product's result: written as an operand, written in f32, or added to f32. */
enum result { TYPED, WIDE, ADDED };

static void matmul(struct list *l, const char *name, enum stave_pass pass, enum result to, int64_t m, int64_t n, int64_t k)
{
	double e = (double)stave_dtype_bytes(l->dtype), out = to == TYPED ? e : to == WIDE ? 4 : 8, M = (double)m, N = (double)n, K = (double)k;
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
static void attention(struct list *l, const struct stave_shape *s, enum stave_pass pass, int64_t B, int64_t n)
{
	double e = (double)stave_dtype_bytes(l->dtype), D = s->D, p = pairs(n, 0, s->window);
	double products = pass == STAVE_FORWARD ? 2 : 5, rows = (double)B * s->H * (double)n;
	double kv_rows = (double)B * s->K * (double)n;
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
	                       .up = stave_act_gated(s->act) ? 2 * (int64_t)s->I : s->I, .I = s->I};
}

static void activation(struct list *l, const struct stave_shape *s, enum stave_pass pass, int64_t rows)
{
	/* GEGLU moves what SwiGLU moves and computes about as much */
	static const char *const rates[] = {[STAVE_GELU_TANH] = "gelu", [STAVE_GELU_EXACT] = "gelu_exact", [STAVE_SWIGLU] = "swiglu", [STAVE_GEGLU] = "swiglu"};
	element(l, "activation", rates[s->act], pass, rows, s->I);
}

static void positions(struct list *l, const struct stave_shape *s, enum stave_pass pass, int64_t rows)
{
	struct widths w = widths_of(s);
	if (s->qk_norm)
		element(l, "qk_norm", "headnorm", pass, rows, w.qk);
	if (!s->learned_pos)
		element(l, "rope", "rope", pass, rows, w.qk);
}

/* Biases ride in the products. Before a product adds a sublayer's output, the residual stream is copied, since backward
 * wants it as it was. */
static void layer_forward(struct list *l, const struct stave_shape *s, int64_t B, int64_t n)
{
	struct widths w = widths_of(s);
	int64_t rows = B * n;
	element(l, "norm1", "norm", STAVE_FORWARD, rows, w.C);
	matmul(l, "qkv", STAVE_FORWARD, TYPED, rows, w.qkv, w.C);
	positions(l, s, STAVE_FORWARD, rows);
	attention(l, s, STAVE_FORWARD, B, n);
	element(l, "residual1", "copy", STAVE_FORWARD, rows, w.C);
	matmul(l, "out", STAVE_FORWARD, ADDED, rows, w.C, w.q);
	element(l, "norm2", "norm", STAVE_FORWARD, rows, w.C);
	matmul(l, "up", STAVE_FORWARD, TYPED, rows, w.up, w.C);
	activation(l, s, STAVE_FORWARD, rows);
	element(l, "residual2", "copy", STAVE_FORWARD, rows, w.C);
	matmul(l, "down", STAVE_FORWARD, ADDED, rows, w.C, w.I);
}

/* The gradients of y = x W^T + b: of the bias, the operand and the weights. */
static void linear_backward(struct list *l, const char *name, const char *bias, int64_t rows, int64_t out, int64_t in)
{
	if (bias)
		element(l, bias, "colsum", STAVE_WGRAD, rows, out);
	matmul(l, name, STAVE_DGRAD, TYPED, rows, in, out);
	matmul(l, name, STAVE_WGRAD, WIDE, out, in, rows);
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
	attention(l, s, STAVE_DGRAD, B, T);
	positions(l, s, STAVE_DGRAD, rows);
	if (l->dtype != STAVE_F32)
		element(l, "qkv_grad", "convert", STAVE_DGRAD, rows, w.qkv);
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
		layer_forward(l, s, B, T);
	}
}

/* The classifier, its loss and its gradients, over chunks of rows whose logits are in memory together. */
#define LOGITS_BYTES ((int64_t)96 << 20)

int stave_cost_logit_rows(const struct stave_shape *s, int64_t rows, enum stave_dtype dtype)
{
	int64_t most = LOGITS_BYTES / ((int64_t)stave_shape_vpad(s) * (int64_t)stave_dtype_bytes(dtype));
	if (most < 64)
		most = 64;
	if (most >= rows)
		return (int)rows;
	int64_t chunks = (rows + most - 1) / most, even = (rows + chunks - 1) / chunks;
	int64_t rounded = (even + 63) / 64 * 64;
	return (int)(rounded <= most ? rounded : most / 64 * 64);
}

static void classifier(struct list *l, const struct stave_shape *s, int64_t rows, int64_t micro)
{
	int64_t chunk = stave_cost_logit_rows(s, rows, l->dtype), V = stave_shape_vpad(s);
	struct {
		int64_t rows, times;
	} part[2] = {{chunk, rows / chunk}, {rows % chunk, 1}};
	for (int i = 0; i < 2 && part[i].rows; i++) {
		l->count = micro * part[i].times;
		matmul(l, "head", STAVE_FORWARD, TYPED, part[i].rows, V, s->C);
		element(l, "loss", "loss", STAVE_FORWARD, part[i].rows, V);
		matmul(l, "head", STAVE_DGRAD, TYPED, part[i].rows, s->C, V);
		matmul(l, "head", STAVE_WGRAD, i ? ADDED : WIDE, V, s->C, part[i].rows);
	}
	l->count = micro;
}

/* ---- the two public lists ---- */

static void update(struct list *l, const struct stave_shape *s)
{
	int64_t params = stave_shape_params(s);
	l->count = 1;
	element(l, "grad_norm", "sumsq", STAVE_UPDATE, params, 1);
	element(l, "adamw", "adamw", STAVE_UPDATE, params, 1);
}

int stave_cost_train_ops(const struct stave_shape *s, int B, int T, int micro, enum stave_dtype dtype, enum stave_recompute re, struct stave_op *ops)
{
	struct list l = {.ops = ops, .dtype = dtype, .count = micro};
	int64_t rows = (int64_t)B * T, layers = (int64_t)micro * s->L;
	element(&l, "embed", "embed", STAVE_FORWARD, rows, s->C);
	l.count = layers;
	layer_forward(&l, s, B, T);
	l.count = micro;
	element(&l, "norm_f", "norm", STAVE_FORWARD, rows, s->C);
	classifier(&l, s, rows, micro);
	element(&l, "zero_grad", "zero", STAVE_DGRAD, rows, s->C);
	element(&l, "norm_f", "norm", STAVE_DGRAD, rows, s->C);
	l.count = layers;
	layer_recompute(&l, s, B, T, re);
	layer_backward(&l, s, B, T);
	l.count = micro;
	element(&l, "embed", "embed", STAVE_DGRAD, rows, s->C);
	if (!s->tied) { /* tied: the classifier has already written the table's gradient */
		l.count = 1;
		element(&l, "zero_embed", "zero", STAVE_DGRAD, stave_shape_vpad(s), s->C);
	}
	update(&l, s);
	return l.n;
}

/* ---- inference ---- */

struct inference {
	struct list l;
	const struct stave_shape *s;
	int64_t n, past;
	enum stave_dtype products;
	double weight_bytes, cache_bytes;
};

/* `times` products of rows (which need not be whole: an average) with a stored matrix (out, in). The operand is as wide as the products' type. */
static void stored(struct inference *f, const char *name, double rows, int64_t out, int64_t in, int64_t times)
{
	double weights = (double)out * (double)in;
	f->l.ops[f->l.n++] = (struct stave_op){.name = name, .rate = "matmul", .kind = STAVE_OP_MATMUL, .pass = STAVE_FORWARD, .dtype = f->products,
		.m = rows < 1 ? 1 : (int64_t)rows, .n = out, .k = in, .count = times, .flops = 2 * rows * weights,
		.bytes = weights * f->weight_bytes + rows * ((double)in * (double)stave_dtype_bytes(f->products) + 4 * (double)out)};
}

/* What turns f32 rows into the operand of a stored matrix: "enter" from the residual stream, by way of its norm; "operand" as they are. */
static void operand(struct inference *f, const char *name, const char *rate, int64_t rows, int64_t columns)
{
	f->l.dtype = f->products;
	element(&f->l, name, rate, STAVE_FORWARD, rows, columns);
	f->l.dtype = STAVE_F32;
}

/* Gated activations are computed where gate and up have just been multiplied; the others as in training. */
static void activated(struct inference *f, int64_t rows)
{
	if (stave_act_gated(f->s->act))
		element(&f->l, "activation", "activate", STAVE_FORWARD, rows, f->s->I);
	else
		activation(&f->l, f->s, STAVE_FORWARD, rows);
}

/* `layers` layers whose rows see the last `window` positions (0: all). The visible cache is read once. Narrow caches are multiplied in bf16.
 * Sizes that say how fast it runs: positions seen, query rows that share a key (rows of one head times heads of one key), head width. */
static void cached_attention(struct inference *f, int window, int64_t layers)
{
	const struct stave_shape *s = f->s;
	double n = (double)f->n, past = (double)f->past, rows = n * s->H, seen = n + past;
	if (window && seen > window + n - 1)
		seen = window + n - 1;
	double scores = s->encoder ? n * n : pairs(f->n, f->past, window);
	if (layers)
		f->l.ops[f->l.n++] = (struct stave_op){.name = "attention", .rate = "paged", .kind = STAVE_OP_ATTENTION, .pass = STAVE_FORWARD,
			.dtype = f->cache_bytes >= 4 ? STAVE_F32 : f->cache_bytes >= 2 ? STAVE_BF16 : STAVE_I8, .m = (int64_t)seen,
			.n = f->n * (s->H / s->K), .k = s->D, .count = layers,
			.flops = 4 * s->D * scores * s->H, .bytes = 2 * s->D * (4 * rows + f->cache_bytes * s->K * seen)};
}

/* Of E experts n tokens can choose at most n times the used ones; each that is chosen is read once. */
static void feed_forward(struct inference *f, const struct widths *w)
{
	const struct stave_shape *s = f->s;
	int64_t rows = f->n, choices = rows * s->experts_used, chosen = choices < s->experts ? choices : s->experts;
	if (!s->experts) {
		stored(f, "up", (double)rows, w->up, w->C, s->L);
		activated(f, rows);
		operand(f, "down_operand", "operand", rows, w->I);
		stored(f, "down", (double)rows, w->C, w->I, s->L);
		return;
	}
	double each = (double)choices / (double)chosen;
	stored(f, "router", (double)rows, s->experts, w->C, s->L);
	stored(f, "expert_up", each, w->up, w->C, s->L * chosen);
	activated(f, choices);
	operand(f, "down_operand", "operand", choices, w->I);
	stored(f, "expert_down", each, w->C, w->I, s->L * chosen);
	element(&f->l, "experts", "copy", STAVE_FORWARD, choices, w->C);
}

/* One operation for each phase that all threads pass together. Elementwise work is in f32 whatever the products are. Of layers with a pattern one in window_pattern sees everything. */
static void infer_layers(struct inference *f)
{
	const struct stave_shape *s = f->s;
	struct widths w = widths_of(s);
	int64_t all = !s->window ? s->L : s->window_pattern ? s->L / s->window_pattern : 0;
	f->l.count = s->L;
	operand(f, "norm1", "enter", f->n, w.C);
	stored(f, "qkv", (double)f->n, w.qkv, w.C, s->L);
	if (s->qk_norm)
		element(&f->l, "qk_norm", "headnorm", STAVE_FORWARD, f->n, w.qk);
	element(&f->l, "place", "place", STAVE_FORWARD, f->n, w.qkv);
	cached_attention(f, 0, all);
	cached_attention(f, s->window, s->L - all);
	operand(f, "out_operand", "operand", f->n, w.q);
	stored(f, "out", (double)f->n, w.C, w.q, s->L);
	operand(f, "norm2", "enter", f->n, w.C);
	feed_forward(f, &w);
	if (s->sandwich)
		for (int i = 0; i < 2; i++)
			element(&f->l, i ? "norm2_post" : "norm1_post", "norm", STAVE_FORWARD, f->n, w.C);
}

int stave_cost_infer_ops(const struct stave_shape *s, int n, int past, enum stave_dtype products, double weight_bytes, double cache_bytes, struct stave_op *ops)
{
	struct inference f = {.l = {.ops = ops, .dtype = STAVE_F32, .count = 1}, .s = s, .n = n, .past = past, .products = products,
	                      .weight_bytes = weight_bytes, .cache_bytes = cache_bytes};
	element(&f.l, "embed", "embed", STAVE_FORWARD, n, s->C);
	infer_layers(&f);
	f.l.count = 1;
	element(&f.l, s->encoder ? "embed_norm" : "norm_f", "norm", STAVE_FORWARD, n, s->C);
	if (!s->encoder)
		stored(&f, "head", 1, stave_shape_vpad(s), s->C, 1);
	return f.l.n;
}
