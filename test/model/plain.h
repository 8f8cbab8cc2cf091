/* The reference of all families: one forward pass from a source, in double, by the textbook, with no cache, no packing and no shared
 * code with what it checks but the reading of a row (stave_weight_row, stave_dequantize). Slow and short on purpose. */
#ifndef TEST_MODEL_PLAIN_H
#define TEST_MODEL_PLAIN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "model/model.h"

struct plain {
	const struct stave_source *s;
	const struct stave_shape *c;
	int n; /* tokens */
};

static void *plain_new(size_t n, size_t each)
{
	void *p = calloc(n ? n : 1, each);
	if (!p)
		abort();
	return p;
}

/* Row r of a matrix. */
static void plain_row(const struct stave_weight *w, int r, float *out)
{
	void *tmp = plain_new((size_t)w->cols, 4);
	stave_dequantize(w->type, out, stave_weight_row(w, r, tmp), w->cols);
	free(tmp);
}

/* y (n, rows) = x (n, cols) W' + b */
static void plain_matrix(const struct plain *p, enum stave_role role, int layer, int expert, const double *x, int n, double *y)
{
	struct stave_weight w;
	if (stave_source_weight(p->s, role, layer, expert, &w) != 1)
		abort();
	float *row = plain_new((size_t)w.cols, sizeof *row), *bias = plain_new((size_t)w.rows, sizeof *bias);
	stave_source_vector(p->s, role, true, layer, bias, w.rows);
	for (int r = 0; r < w.rows; r++) {
		plain_row(&w, r, row);
		for (int t = 0; t < n; t++) {
			double sum = 0;
			for (int c = 0; c < w.cols; c++)
				sum += x[(size_t)t * (size_t)w.cols + (size_t)c] * (double)row[c];
			y[(size_t)t * (size_t)w.rows + (size_t)r] = sum + (double)bias[r];
		}
	}
	free(row);
	free(bias);
}

/* In place, over rows of `width`; nothing when the model has no such norm. */
static void plain_norm(const struct plain *p, enum stave_role role, int layer, double *x, int rows, int width)
{
	float *gain = plain_new((size_t)width, sizeof *gain), *bias = plain_new((size_t)width, sizeof *bias);
	bool there = stave_source_vector(p->s, role, false, layer, gain, width) == 1;
	stave_source_vector(p->s, role, true, layer, bias, width);
	bool centred = p->c->layernorm;
	for (int r = 0; there && r < rows; r++) {
		double *v = x + (size_t)r * (size_t)width, mean = 0, square = 0;
		for (int i = 0; i < width; i++)
			mean += v[i] / width;
		for (int i = 0; i < width; i++)
			square += (v[i] - (centred ? mean : 0)) * (v[i] - (centred ? mean : 0)) / width;
		for (int i = 0; i < width; i++)
			v[i] = (v[i] - (centred ? mean : 0)) / sqrt(square + (double)p->c->norm_eps) * (double)gain[i] + (double)bias[i];
	}
	free(gain);
	free(bias);
}

static double plain_act(enum stave_act a, double x)
{
	if (a == STAVE_SWIGLU)
		return x / (1 + exp(-x));
	if (a == STAVE_GELU_EXACT)
		return x * 0.5 * (1 + erf(x / sqrt(2)));
	return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* Does this layer see only the window? */
static bool plain_local(const struct stave_shape *c, int layer)
{
	return c->window && (!c->window_pattern || (layer + 1) % c->window_pattern);
}

/* Rotary frequency i of a layer. Llama-3's scaling as its authors wrote it, by wavelengths. */
static double plain_frequency(const struct plain *p, bool local, int i)
{
	const struct stave_shape *c = p->c;
	const float *divisor = stave_source_rope_factors(p->s, c->T_max);
	int dims = c->rope_dims ? c->rope_dims : c->D;
	if (local && c->rope_local > 0)
		return 1 / pow(c->rope_local, 2.0 * i / dims);
	double f = 1 / pow(c->rope_theta, 2.0 * i / dims);
	if (divisor)
		f /= (double)divisor[i];
	if (c->rope_factor <= 0)
		return f;
	if (c->rope_linear)
		return f / c->rope_factor;
	double wave = 2 * M_PI / f, low = c->rope_original / c->rope_low, high = c->rope_original / c->rope_high;
	if (wave < high)
		return f;
	if (wave > low)
		return f / c->rope_factor;
	double smooth = (c->rope_original / wave - c->rope_low) / (c->rope_high - c->rope_low);
	return (1 - smooth) * f / c->rope_factor + smooth * f;
}

/* Rotates the leading dimensions of each of `heads` heads of every token; element i of the first half goes with element i of the second. */
static void plain_rope(const struct plain *p, double *x, int heads, bool local)
{
	int D = p->c->D, half = (p->c->rope_dims ? p->c->rope_dims : D) / 2;
	double m = p->c->rope_mscale > 0 ? (double)p->c->rope_mscale : 1;
	for (int t = 0; t < p->n; t++)
		for (int h = 0; h < heads; h++)
			for (int i = 0; i < half; i++) {
				double *v = x + ((size_t)t * (size_t)heads + (size_t)h) * (size_t)D, a = t * plain_frequency(p, local, i), v0 = v[i], v1 = v[i + half];
				v[i] = m * (v0 * cos(a) - v1 * sin(a));
				v[i + half] = m * (v1 * cos(a) + v0 * sin(a));
			}
}

static double plain_cap(double x, double cap) { return cap > 0 ? cap * tanh(x / cap) : x; }

/* One query row of one head. */
static void plain_attend(const struct plain *p, const double *q, const double *k, const double *v, int t, int kv, bool local, double *out)
{
	const struct stave_shape *c = p->c;
	double scale = c->attn_scale > 0 ? (double)c->attn_scale : 1 / sqrt(c->D), *w = plain_new((size_t)p->n, sizeof *w), top = -INFINITY, sum = 0;
	for (int j = 0; j < p->n; j++) {
		bool seen = c->encoder || (j <= t && (!local || t - j < c->window));
		w[j] = seen ? 0 : -INFINITY;
		for (int d = 0; seen && d < c->D; d++)
			w[j] += q[d] * k[((size_t)j * (size_t)c->K + (size_t)kv) * (size_t)c->D + (size_t)d];
		w[j] = seen ? plain_cap(w[j] * scale, (double)c->attn_softcap) : -INFINITY;
		top = w[j] > top ? w[j] : top;
	}
	for (int j = 0; j < p->n; j++)
		sum += w[j] = exp(w[j] - top);
	for (int d = 0; d < c->D; d++) {
		out[d] = 0;
		for (int j = 0; j < p->n; j++)
			out[d] += w[j] / sum * v[((size_t)j * (size_t)c->K + (size_t)kv) * (size_t)c->D + (size_t)d];
	}
	free(w);
}

/* y (n, C) from x (n, C). */
static void plain_attention(const struct plain *p, int layer, const double *x, double *y)
{
	const struct stave_shape *c = p->c;
	size_t n = (size_t)p->n, D = (size_t)c->D, H = (size_t)c->H, K = (size_t)c->K;
	double *q = plain_new(n * H * D, sizeof *q), *k = plain_new(n * K * D, sizeof *k), *v = plain_new(n * K * D, sizeof *v), *o = plain_new(n * H * D, sizeof *o);
	bool local = plain_local(c, layer);
	plain_matrix(p, STAVE_ROLE_Q, layer, 0, x, p->n, q);
	plain_matrix(p, STAVE_ROLE_K, layer, 0, x, p->n, k);
	plain_matrix(p, STAVE_ROLE_V, layer, 0, x, p->n, v);
	plain_norm(p, STAVE_ROLE_QNORM, layer, q, p->n * c->H, c->D);
	plain_norm(p, STAVE_ROLE_KNORM, layer, k, p->n * c->K, c->D);
	if (!c->learned_pos) {
		plain_rope(p, q, c->H, local);
		plain_rope(p, k, c->K, local);
	}
	for (int t = 0; t < p->n; t++)
		for (int h = 0; h < c->H; h++)
			plain_attend(p, q + ((size_t)t * H + (size_t)h) * D, k, v, t, h / (c->H / c->K), local, o + ((size_t)t * H + (size_t)h) * D);
	plain_matrix(p, STAVE_ROLE_OUT, layer, 0, o, p->n, y);
	free(q);
	free(k);
	free(v);
	free(o);
}

/* y (n, C) of a feed-forward, or of one expert's. */
static void plain_mlp(const struct plain *p, int layer, int expert, const double *x, int n, double *y)
{
	const struct stave_shape *c = p->c;
	size_t m = (size_t)n * (size_t)c->I;
	double *gate = plain_new(m, sizeof *gate), *up = plain_new(m, sizeof *up);
	plain_matrix(p, c->experts ? STAVE_ROLE_EXPERT_UP : STAVE_ROLE_UP, layer, expert, x, n, up);
	if (stave_act_gated(c->act))
		plain_matrix(p, c->experts ? STAVE_ROLE_EXPERT_GATE : STAVE_ROLE_GATE, layer, expert, x, n, gate);
	for (size_t i = 0; i < m; i++)
		up[i] = stave_act_gated(c->act) ? plain_act(c->act, gate[i]) * up[i] : plain_act(c->act, up[i]);
	plain_matrix(p, c->experts ? STAVE_ROLE_EXPERT_DOWN : STAVE_ROLE_DOWN, layer, expert, up, n, y);
	free(gate);
	free(up);
}

/* Each token's experts: those of the highest router probabilities, weighted by them. */
static void plain_experts(const struct plain *p, int layer, const double *x, double *y)
{
	const struct stave_shape *c = p->c;
	double *route = plain_new((size_t)c->experts, sizeof *route), *one = plain_new((size_t)c->C, sizeof *one);
	for (int t = 0; t < p->n; t++) {
		const double *from = x + (size_t)t * (size_t)c->C;
		double *to = y + (size_t)t * (size_t)c->C, top = -INFINITY, sum = 0, chosen_sum = 0;
		plain_matrix(p, STAVE_ROLE_ROUTER, layer, 0, from, 1, route);
		for (int e = 0; e < c->experts; e++)
			top = route[e] > top ? route[e] : top;
		for (int e = 0; e < c->experts; e++)
			sum += route[e] = exp(route[e] - top);
		memset(to, 0, (size_t)c->C * sizeof *to);
		for (int turn = 0; turn < c->experts_used; turn++) {
			int best = 0;
			for (int e = 1; e < c->experts; e++)
				best = route[e] > route[best] ? e : best;
			double weight = route[best] / sum;
			chosen_sum += weight;
			route[best] = -1;
			plain_mlp(p, layer, best, from, 1, one);
			for (int i = 0; i < c->C; i++)
				to[i] += weight * one[i];
		}
		for (int i = 0; c->experts_norm && i < c->C; i++)
			to[i] /= chosen_sum;
	}
	free(route);
	free(one);
}

static void plain_embed(const struct plain *p, const int32_t *ids, double *x)
{
	static const enum stave_role tables[] = {STAVE_ROLE_EMBED, STAVE_ROLE_POSITIONS, STAVE_ROLE_TOKEN_TYPES};
	const struct stave_shape *c = p->c;
	float *row = plain_new((size_t)c->C, sizeof *row);
	for (int k = 0; k < 3; k++) {
		struct stave_weight w;
		if (stave_source_weight(p->s, tables[k], 0, 0, &w) != 1)
			continue;
		for (int t = 0; t < p->n; t++) {
			plain_row(&w, k == 0 ? ids[t] : k == 1 ? t : 0, row);
			for (int i = 0; i < c->C; i++)
				x[(size_t)t * (size_t)c->C + (size_t)i] += (double)row[i] * (k == 0 && c->embed_scale > 0 ? (double)c->embed_scale : 1);
		}
	}
	free(row);
	plain_norm(p, STAVE_ROLE_EMBED_NORM, 0, x, p->n, c->C);
}

/* One half of a layer: x += post(f(pre(x))), or for encoders x = post(x + f(x)). */
static void plain_half(const struct plain *p, int layer, bool attention, double *x)
{
	const struct stave_shape *c = p->c;
	size_t m = (size_t)p->n * (size_t)c->C;
	double *h = plain_new(m, sizeof *h), *y = plain_new(m, sizeof *y);
	enum stave_role post = attention ? STAVE_ROLE_NORM1_POST : STAVE_ROLE_NORM2_POST;
	memcpy(h, x, m * sizeof *h);
	plain_norm(p, attention ? STAVE_ROLE_NORM1 : STAVE_ROLE_NORM2, layer, h, p->n, c->C);
	if (attention)
		plain_attention(p, layer, h, y);
	else if (c->experts)
		plain_experts(p, layer, h, y);
	else
		plain_mlp(p, layer, 0, h, p->n, y);
	if (!c->encoder)
		plain_norm(p, post, layer, y, p->n, c->C);
	for (size_t i = 0; i < m; i++)
		x[i] += y[i];
	if (c->encoder)
		plain_norm(p, post, layer, x, p->n, c->C);
	free(h);
	free(y);
}

/* Hidden states (n, C) after the last norm of the tokens ids (n) at positions 0 …; the caller frees them. */
static double *plain_hidden(const struct stave_source *s, const int32_t *ids, int n)
{
	struct plain p = {s, stave_source_shape(s), n};
	double *x = plain_new((size_t)n * (size_t)p.c->C, sizeof *x);
	plain_embed(&p, ids, x);
	for (int l = 0; l < p.c->L; l++) {
		plain_half(&p, l, true, x);
		plain_half(&p, l, false, x);
	}
	plain_norm(&p, STAVE_ROLE_NORM_F, 0, x, n, p.c->C);
	return x;
}

/* Logits (n, V); the caller frees them. Not for encoders. */
__attribute__((unused)) static double *plain_logits(const struct stave_source *s, const int32_t *ids, int n)
{
	struct plain p = {s, stave_source_shape(s), n};
	double *x = plain_hidden(s, ids, n), *y = plain_new((size_t)n * (size_t)p.c->V, sizeof *y);
	plain_matrix(&p, STAVE_ROLE_HEAD, 0, 0, x, n, y);
	for (size_t i = 0; i < (size_t)n * (size_t)p.c->V; i++)
		y[i] = plain_cap(y[i], (double)p.c->final_softcap);
	free(x);
	return y;
}

#endif
