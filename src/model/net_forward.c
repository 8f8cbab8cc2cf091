/* Forward: x -> x + attention(norm(x)) -> x + mlp(norm(x)), layer by layer; then the last norm and, in chunks of rows, the
 * classifier with its loss. The residual stream is float in both precisions; what products read is `dt`.
 *
 * The classifier's gradients are taken here, chunk by chunk: the logits become their own gradient in place, and B·T·V
 * of them never exist at once. */
#include <string.h>

#include "base/sys.h"
#include "model/net.h"

void net_norm(struct stave_net *n, void *y, float *mean, float *rstd, const float *x, int64_t gain, int64_t bias)
{
	const struct stave_shape *s = &n->c.shape;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int r = 0; r < n->n; r += ROWS) {
		int rows = n->n - r < ROWS ? n->n - r : ROWS;
		size_t i = (size_t)r * (size_t)s->C;
		n->k->norm_fwd(n->c.dtype, !s->layernorm, at(n, y, i), mean + r, rstd + r, x + i, n->p + gain, maybe(n->p, bias), s->norm_eps, rows, s->C);
	}
	n->times.element_s += stave_now_s() - t0;
}

void net_activation(struct stave_net *n, struct acts *a)
{
	const struct stave_shape *s = &n->c.shape;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int r = 0; r < n->n; r += ROWS) {
		int rows = n->n - r < ROWS ? n->n - r : ROWS;
		void *y = at(n, a->act, (size_t)r * (size_t)s->I), *x = at(n, a->up, (size_t)r * (size_t)n->F);
		if (s->act == STAVE_SWIGLU)
			n->k->swiglu_fwd(n->c.dtype, y, x, rows, s->I);
		else
			n->k->gelu_fwd(n->c.dtype, s->act == STAVE_GELU_EXACT, y, x, (size_t)rows * (size_t)s->I);
	}
	n->times.element_s += stave_now_s() - t0;
}

/* q and k to where attention reads them: normed per head if the family does, and rotated. */
static void prepare_heads(struct stave_net *n, const struct stave_layer_at *w, struct acts *a, const struct stave_batch *b)
{
	const struct stave_shape *s = &n->c.shape;
	const enum stave_dtype dt = n->c.dtype;
	const int32_t *pos = net_pos(n, b);
	size_t QKV = (size_t)n->QKV, QK = (size_t)(n->Q + n->KV);
	if (!n->rope)
		return;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int r = 0; r < n->n; r += ROWS) {
		int rows = n->n - r < ROWS ? n->n - r : ROWS;
		char *q = at(n, a->qkv, (size_t)r * QKV), *k = at(n, q, (size_t)n->Q);
		size_t ld = QKV;
		if (s->qk_norm) {
			char *q2 = at(n, a->qk, (size_t)r * QK), *k2 = at(n, q2, (size_t)n->Q);
			float *qr = a->qk_rstd + (size_t)r * (size_t)s->H, *kr = a->qk_rstd + (size_t)n->n * (size_t)s->H + (size_t)r * (size_t)s->K;
			n->k->headnorm_fwd(dt, q2, QK, qr, q, QKV, n->p + w->qnorm_w, s->norm_eps, rows, s->H, s->D);
			n->k->headnorm_fwd(dt, k2, QK, kr, k, QKV, n->p + w->knorm_w, s->norm_eps, rows, s->K, s->D);
			q = q2, k = k2, ld = QK;
		}
		n->k->rope(dt, false, q, ld, pos + r, n->rope, rows, s->H, s->D);
		n->k->rope(dt, false, k, ld, pos + r, n->rope, rows, s->K, s->D);
	}
	n->times.element_s += stave_now_s() - t0;
}


static void attention(struct stave_net *n, struct acts *a, const struct stave_batch *b)
{
	int tasks = n->c.B * n->c.shape.H;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(dynamic)
	for (int i = 0; i < tasks; i++) {
		struct stave_attn t = net_attn(n, a, b, i / n->c.shape.H, i % n->c.shape.H);
		n->k->attn_fwd(n->c.dtype, &t, (char *)n->attn_scratch + (size_t)stave_thread_index() * n->attn_bytes);
	}
	n->times.attention_s += stave_now_s() - t0;
}

/* The attention of one query head of one row of the batch. */
struct stave_attn net_attn(struct stave_net *n, struct acts *a, const struct stave_batch *b, int row, int head)
{
	const struct stave_shape *s = &n->c.shape;
	size_t T = (size_t)n->c.T, r = (size_t)row * T, D = (size_t)s->D, kv = (size_t)(head / (s->H / s->K)) * D;
	size_t QKV = (size_t)n->QKV, ld = a->qk ? (size_t)(n->Q + n->KV) : QKV, Q = (size_t)n->Q;
	void *qk = a->qk ? a->qk : a->qkv;
	return (struct stave_attn){
		.T = n->c.T, .D = s->D, .scale = 1.0f / __builtin_sqrtf((float)s->D), .window = s->window,
		.q = at(n, qk, r * ld + (size_t)head * D), .ldq = ld,
		.k = at(n, qk, r * ld + Q + kv), .ldk = ld,
		.v = at(n, a->qkv, r * QKV + Q + (size_t)n->KV + kv), .ldv = QKV,
		.o = at(n, a->att, r * Q + (size_t)head * D), .ldo = Q,
		.lse = a->lse + ((size_t)row * (size_t)s->H + (size_t)head) * T,
		.start = n->c.doc_mask && b->start ? b->start + r : NULL,
	};
}

static void copy_rows(struct stave_net *n, float *to, const float *from)
{
	size_t C = (size_t)n->c.shape.C;
	if (to == from)
		return;
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int r = 0; r < n->n; r += ROWS)
		memcpy(to + (size_t)r * C, from + (size_t)r * C, (size_t)(n->n - r < ROWS ? n->n - r : ROWS) * C * 4);
	n->times.element_s += stave_now_s() - t0;
}

void net_layer_activations(struct stave_net *n, int layer, const struct stave_batch *b)
{
	struct acts *a = &n->acts[layer];
	const struct stave_layer_at *w = &n->l->layer[layer];
	net_norm(n, a->norm1, a->mean1, a->rstd1, a->x0, w->norm1_w, w->norm1_b);
	net_product(n, QKV_FWD, a->norm1, weight(n, w->qkv_w), a->qkv, maybe(n->p, w->qkv_b));
	prepare_heads(n, w, a, b);
	attention(n, a, b);
	copy_rows(n, a->x1, a->x0);
	net_product(n, OUT_FWD, a->att, weight(n, w->out_w), a->x1, maybe(n->p, w->out_b));
	net_norm(n, a->norm2, a->mean2, a->rstd2, a->x1, w->norm2_w, w->norm2_b);
	net_product(n, UP_FWD, a->norm2, weight(n, w->up_w), a->up, maybe(n->p, w->up_b));
	net_activation(n, a);
}

static void layer_forward(struct stave_net *n, int layer, const struct stave_batch *b)
{
	struct acts *a = &n->acts[layer];
	const struct stave_layer_at *w = &n->l->layer[layer];
	float *next = layer + 1 < n->c.shape.L ? n->acts[layer + 1].x0 : n->xl;
	net_layer_activations(n, layer, b);
	copy_rows(n, next, a->x1);
	net_product(n, DOWN_FWD, a->act, weight(n, w->down_w), next, maybe(n->p, w->down_b));
}

static void body(struct stave_net *n, const struct stave_batch *b)
{
	const struct stave_shape *s = &n->c.shape;
	const int32_t *pos = net_pos(n, b);
	double t0 = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int r = 0; r < n->n; r += ROWS)
		n->k->embed_fwd(n->acts[0].x0 + (size_t)r * (size_t)s->C, b->inputs + r, pos + r, n->p + n->l->wte, maybe(n->p, n->l->wpe),
		                n->n - r < ROWS ? n->n - r : ROWS, s->C);
	n->times.element_s += stave_now_s() - t0;
	for (int l = 0; l < s->L; l++)
		layer_forward(n, l, b);
	net_norm(n, n->normf, n->meanf, n->rstdf, n->xl, n->l->normf_w, n->l->normf_b);
}

/* Loss and gradient of `rows` rows of logits in place. */
static void losses(struct stave_net *n, const struct stave_batch *b, int from, int rows, bool learn)
{
	double t0 = stave_now_s();
#pragma omp parallel for schedule(dynamic)
	for (int r = 0; r < rows; r += 8)
		n->k->xent(n->c.dtype, at(n, n->logits, (size_t)r * (size_t)n->Vp), (size_t)n->Vp, n->losses + from + r, b->targets + from + r,
		           learn ? 1.0f : 0.0f, rows - r < 8 ? rows - r : 8, n->c.shape.V);
	n->times.loss_s += stave_now_s() - t0;
}

static void classifier(struct stave_net *n, const struct stave_batch *b, bool first, bool learn)
{
	const void *w = weight(n, n->l->head);
	for (int from = 0; from < n->n; from += n->chunk) {
		bool tail = n->n - from < n->chunk;
		size_t i = (size_t)from * (size_t)n->c.shape.C;
		net_product(n, tail ? TAIL_FWD : HEAD_FWD, at(n, n->normf, i), w, n->logits, NULL);
		losses(n, b, from, tail ? n->n - from : n->chunk, learn);
		if (!learn)
			continue;
		net_product(n, tail ? TAIL_DG : HEAD_DG, n->logits, w, at(n, n->dnorm, i), NULL);
		enum product wg = first && !from ? (tail ? TAIL_WG : HEAD_WG) : (tail ? TAIL_WG_ADD : HEAD_WG_ADD);
		net_product(n, wg, n->logits, at(n, n->normf, i), n->g + n->l->head, NULL);
	}
}

static void sum_losses(const struct stave_net *n, const struct stave_batch *b, double *loss_sum, int64_t *tokens)
{
	double sum = 0;
	int64_t count = 0;
	for (int i = 0; i < n->n; i++)
		if (b->targets[i] >= 0) {
			sum += (double)n->losses[i];
			count++;
		}
	*loss_sum = sum;
	*tokens = count;
}

void stave_net_forward(struct stave_net *n, const struct stave_batch *b, bool first, double *loss_sum, int64_t *tokens)
{
	body(n, b);
	classifier(n, b, first, n->c.train);
	sum_losses(n, b, loss_sum, tokens);
}

void stave_net_evaluate(struct stave_net *n, const struct stave_batch *b, double *loss_sum, int64_t *tokens)
{
	body(n, b);
	classifier(n, b, true, false);
	sum_losses(n, b, loss_sum, tokens);
}

void stave_net_logits(struct stave_net *n, const struct stave_batch *b, float *logits)
{
	size_t V = (size_t)n->c.shape.V;
	body(n, b);
	for (int from = 0; from < n->n; from += n->chunk) {
		bool tail = n->n - from < n->chunk;
		int rows = tail ? n->n - from : n->chunk;
		net_product(n, tail ? TAIL_FWD : HEAD_FWD, at(n, n->normf, (size_t)from * (size_t)n->c.shape.C), weight(n, n->l->head), n->logits, NULL);
		for (int r = 0; r < rows; r++)
			for (size_t v = 0; v < V; v++)
				logits[(size_t)(from + r) * V + v] = stave_get(n->c.dtype, n->logits, (size_t)r * (size_t)n->Vp + v);
	}
}
