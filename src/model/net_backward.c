/* Backward, from the last norm to the embedding. dx is the gradient of the residual stream: each sublayer adds its share
 * to it. Weight gradients are written on the first micro-batch of a step and added to after; sums over rows (gains, biases)
 * go through SLICES fixed partial sums. `ready` tells a listener which gradients are final, so that they can be reduced
 * over ranks while earlier layers are still at work. */
#include <string.h>

#include "base/sys.h"
#include "model/net.h"

struct slice {
	int from, rows;
};
static struct slice slice_of(const struct stave_net *n, int i)
{
	int from = (int)((int64_t)n->n * i / SLICES);
	return (struct slice){from, (int)((int64_t)n->n * (i + 1) / SLICES) - from};
}

/* Adds the partial sums (SLICES, width) to up to two gradients: the first `na` columns to a, the next nb to b. */
static void fold(struct stave_net *n, int width, float *a, int na, float *b, int nb, bool first)
{
	for (int part = 0; part < 2; part++) {
		float *to = part ? b : a;
		int count = part ? nb : na, skip = part ? na : 0;
		if (!to)
			continue;
		if (first)
			memset(to, 0, (size_t)count * 4);
		for (int i = 0; i < SLICES; i++)
			n->k->add(to, n->slices + (size_t)i * (size_t)width + skip, (size_t)count);
	}
}

static float *grad(struct stave_net *n, int64_t offset) { return offset < 0 ? NULL : n->g + offset; }

/* dx += the gradient through a norm whose output had gradient n->dnorm; dx16 follows dx. */
static void norm_backward(struct stave_net *n, const float *x, const float *mean, const float *rstd, int64_t gain, int64_t bias, bool first)
{
	const struct stave_shape *s = &n->c.shape;
	int C = s->C, width = 2 * C;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int i = 0; i < SLICES; i++) {
		struct slice sl = slice_of(n, i);
		size_t e = (size_t)sl.from * (size_t)C;
		float *part = n->slices + (size_t)i * (size_t)width;
		memset(part, 0, (size_t)width * 4);
		n->k->norm_bwd(n->c.dtype, !s->layernorm, n->dx + e, n->dx16 == (void *)n->dx ? NULL : at(n, n->dx16, e), part, bias < 0 ? NULL : part + C,
		               at(n, n->dnorm, e), x + e, mean + sl.from, rstd + sl.from, n->p + gain, sl.rows, C);
	}
	fold(n, width, grad(n, gain), C, grad(n, bias), C, first);
	n->times.element_s += stave_now_s() - t0;
}

/* Bias gradient: column sums of dy (n, width). */
static void bias_backward(struct stave_net *n, int64_t bias, const void *dy, int width, bool first)
{
	if (bias < 0)
		return;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int i = 0; i < SLICES; i++) {
		struct slice sl = slice_of(n, i);
		float *part = n->slices + (size_t)i * (size_t)width;
		memset(part, 0, (size_t)width * 4);
		n->k->colsum(n->c.dtype, part, at(n, (void *)(uintptr_t)dy, (size_t)sl.from * (size_t)width), (size_t)width, sl.rows, width);
	}
	fold(n, width, grad(n, bias), width, NULL, 0, first);
	n->times.element_s += stave_now_s() - t0;
}

static void activation_backward(struct stave_net *n, const struct acts *a)
{
	const struct stave_shape *s = &n->c.shape;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int r = 0; r < n->n; r += ROWS) {
		int rows = n->n - r < ROWS ? n->n - r : ROWS;
		size_t i = (size_t)r * (size_t)s->I, f = (size_t)r * (size_t)n->F;
		if (s->act == STAVE_SWIGLU)
			n->k->swiglu_bwd(n->c.dtype, at(n, n->dup, f), at(n, n->dact, i), at(n, a->up, f), rows, s->I);
		else
			n->k->gelu_bwd(n->c.dtype, s->act == STAVE_GELU_EXACT, at(n, n->dup, f), at(n, n->dact, i), at(n, a->up, f), (size_t)rows * (size_t)s->I);
	}
	n->times.element_s += stave_now_s() - t0;
}

/* dqkv (n, QKV) f32 from datt. A task owns one key/value head of one row of the batch and runs its group of query heads one
 * after another, so that dk and dv are added to by one thread. */
static void attention_backward(struct stave_net *n, struct acts *a, const struct stave_batch *b)
{
	const struct stave_shape *s = &n->c.shape;
	int group = s->H / s->K, tasks = n->c.B * s->K;
	size_t T = (size_t)n->c.T, QKV = (size_t)n->QKV, D = (size_t)s->D;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(dynamic)
	for (int i = 0; i < tasks; i++) {
		int row = i / s->K, kv = i % s->K;
		float *base = n->dqkv + (size_t)row * T * QKV;
		float *dk = base + n->Q + (size_t)kv * D, *dv = dk + n->KV;
		for (size_t t = 0; t < T; t++) {
			memset(dk + t * QKV, 0, D * 4);
			memset(dv + t * QKV, 0, D * 4);
		}
		for (int h = kv * group; h < (kv + 1) * group; h++) {
			struct stave_attn task = net_attn(n, a, b, row, h);
			task.d_o = at(n, n->datt, (size_t)row * T * (size_t)n->Q + (size_t)h * D);
			task.dq = base + (size_t)h * D;
			task.dk = dk;
			task.dv = dv;
			task.lddq = task.lddkv = QKV;
			n->k->attn_bwd(n->c.dtype, &task, (char *)n->attn_scratch + (size_t)stave_thread_index() * n->attn_bytes);
		}
	}
	n->times.attention_s += stave_now_s() - t0;
}

/* Back through rotation and head norms, in float, then to the type the products read. */
static void heads_backward(struct stave_net *n, const struct stave_layer_at *w, struct acts *a, const struct stave_batch *b, bool first)
{
	const struct stave_shape *s = &n->c.shape;
	const int32_t *pos = net_pos(n, b);
	size_t QKV = (size_t)n->QKV;
	int width = 2 * s->D;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int i = 0; i < SLICES; i++) {
		struct slice sl = slice_of(n, i);
		size_t r = (size_t)sl.from;
		float *dq = n->dqkv + r * QKV, *dk = dq + n->Q, *part = n->slices + (size_t)i * (size_t)width;
		if (n->rope) {
			n->k->rope(STAVE_F32, true, dq, QKV, pos + r, n->rope, sl.rows, s->H, s->D);
			n->k->rope(STAVE_F32, true, dk, QKV, pos + r, n->rope, sl.rows, s->K, s->D);
		}
		if (s->qk_norm) {
			void *q = at(n, a->qkv, r * QKV), *k = at(n, q, (size_t)n->Q);
			const float *qr = a->qk_rstd + r * (size_t)s->H, *kr = a->qk_rstd + (size_t)n->n * (size_t)s->H + r * (size_t)s->K;
			memset(part, 0, (size_t)width * 4);
			n->k->headnorm_bwd(dq, QKV, part, q, n->c.dtype, QKV, qr, n->p + w->qnorm_w, sl.rows, s->H, s->D);
			n->k->headnorm_bwd(dk, QKV, part + s->D, k, n->c.dtype, QKV, kr, n->p + w->knorm_w, sl.rows, s->K, s->D);
		}
		if (n->dqkv16 != (void *)n->dqkv)
			n->k->to_bf16((uint16_t *)n->dqkv16 + r * QKV, dq, (size_t)sl.rows * QKV);
	}
	if (s->qk_norm)
		fold(n, width, grad(n, w->qnorm_w), s->D, grad(n, w->knorm_w), s->D, first);
	n->times.element_s += stave_now_s() - t0;
}

/* What the forward pass did not keep, again. */
static void recompute(struct stave_net *n, int layer, const struct stave_batch *b)
{
	struct acts *a = &n->acts[layer];
	const struct stave_layer_at *w = &n->l->layer[layer];
	if (n->c.recompute == STAVE_RECOMPUTE_LAYER) {
		net_layer_activations(n, layer, b);
	} else if (n->c.recompute == STAVE_RECOMPUTE_CHEAP) {
		net_norm(n, a->norm1, a->mean1, a->rstd1, a->x0, w->norm1_w, w->norm1_b);
		net_norm(n, a->norm2, a->mean2, a->rstd2, a->x1, w->norm2_w, w->norm2_b);
		net_activation(n, a);
	}
}

static void layer_backward(struct stave_net *n, int layer, const struct stave_batch *b, bool first)
{
	struct acts *a = &n->acts[layer];
	const struct stave_layer_at *w = &n->l->layer[layer];
	recompute(n, layer, b);

	bias_backward(n, w->down_b, n->dx16, n->c.shape.C, first);
	net_product(n, DOWN_DG, n->dx16, weight(n, w->down_w), n->dact, NULL);
	net_product(n, first ? DOWN_WG : DOWN_WG_ADD, n->dx16, a->act, n->g + w->down_w, NULL);
	activation_backward(n, a);
	bias_backward(n, w->up_b, n->dup, n->F, first);
	net_product(n, UP_DG, n->dup, weight(n, w->up_w), n->dnorm, NULL);
	net_product(n, first ? UP_WG : UP_WG_ADD, n->dup, a->norm2, n->g + w->up_w, NULL);
	norm_backward(n, a->x1, a->mean2, a->rstd2, w->norm2_w, w->norm2_b, first);

	bias_backward(n, w->out_b, n->dx16, n->c.shape.C, first);
	net_product(n, OUT_DG, n->dx16, weight(n, w->out_w), n->datt, NULL);
	net_product(n, first ? OUT_WG : OUT_WG_ADD, n->dx16, a->att, n->g + w->out_w, NULL);
	attention_backward(n, a, b);
	heads_backward(n, w, a, b, first);
	bias_backward(n, w->qkv_b, n->dqkv16, n->QKV, first);
	net_product(n, QKV_DG, n->dqkv16, weight(n, w->qkv_w), n->dnorm, NULL);
	net_product(n, first ? QKV_WG : QKV_WG_ADD, n->dqkv16, a->norm1, n->g + w->qkv_w, NULL);
	norm_backward(n, a->x0, a->mean1, a->rstd1, w->norm1_w, w->norm1_b, first);
}

/* dwte[id] += dx, dwpe[pos] += dx. A thread owns columns, so that two rows of one id never meet. */
static void embed_backward(struct stave_net *n, const struct stave_batch *b, bool first)
{
	enum { COLUMNS = 64 };
	const struct stave_shape *s = &n->c.shape;
	const int32_t *pos = net_pos(n, b);
	float *dwte = n->g + n->l->wte, *dwpe = grad(n, n->l->wpe);
	double t0 = stave_now_s();
	if (first && dwpe)
		memset(dwpe, 0, (size_t)s->T_max * (size_t)s->C * 4);
#pragma omp parallel for schedule(static)
	for (int c = 0; c < s->C; c += COLUMNS) {
		size_t count = (size_t)(s->C - c < COLUMNS ? s->C - c : COLUMNS);
		for (int r = 0; r < n->n; r++) {
			const float *dx = n->dx + (size_t)r * (size_t)s->C + c;
			n->k->add(dwte + (size_t)b->inputs[r] * (size_t)s->C + c, dx, count);
			if (dwpe)
				n->k->add(dwpe + (size_t)pos[r] * (size_t)s->C + c, dx, count);
		}
	}
	n->times.element_s += stave_now_s() - t0;
}

void stave_net_backward(struct stave_net *n, const struct stave_batch *b, bool first, void (*ready)(void *ctx, int64_t offset, int64_t count), void *ctx)
{
	const struct stave_layout *l = n->l;
	size_t dx_bytes = (size_t)n->n * (size_t)n->c.shape.C * 4, table = (size_t)n->Vp * (size_t)n->c.shape.C * 4;
	int64_t body_end = n->c.shape.L ? l->layer[n->c.shape.L - 1].end : l->n;
	memset(n->dx, 0, dx_bytes);
	norm_backward(n, n->xl, n->meanf, n->rstdf, l->normf_w, l->normf_b, first);
	if (first && l->head != l->wte) /* tied: the classifier has already written here */
		memset(n->g + l->wte, 0, table);
	if (ready)
		ready(ctx, body_end, l->n - body_end);
	for (int i = n->c.shape.L - 1; i >= 0; i--) {
		layer_backward(n, i, b, first);
		if (ready)
			ready(ctx, l->layer[i].begin, l->layer[i].end - l->layer[i].begin);
	}
	embed_backward(n, b, first);
	if (ready)
		ready(ctx, 0, l->layer[0].begin);
}
