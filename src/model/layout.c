/* Where each parameter lies. The arena holds, in this order: embedding (rows padded to 16), positions, the layers, the
 * last norm, and the classifier unless tied. The list of params names the blocks of rows as Hugging Face files do. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct builder {
	struct stave_layout *l;
	int cap, layer;
	bool failed;
};

/* One named tensor at `offset`; rows 0 = a vector of `cols`. */
static void name(struct builder *b, const char *fmt, int64_t offset, int rows, int cols, bool transposed)
{
	struct stave_layout *l = b->l;
	if (l->n_params == b->cap) {
		int cap = b->cap ? 2 * b->cap : 64;
		struct stave_param *p = realloc(l->params, (size_t)cap * sizeof *p);
		if (!p) {
			b->failed = true;
			return;
		}
		l->params = p;
		b->cap = cap;
	}
	struct stave_param *p = &l->params[l->n_params++];
	*p = (struct stave_param){.offset = offset, .rows = rows ? rows : 1, .cols = cols, .vector = !rows, .transposed = transposed,
	                          .decay = rows > 0, .hidden = rows > 0 && b->layer >= 0, .layer = b->layer};
	if (b->layer >= 0)
		snprintf(p->name, sizeof p->name, b->l->shape.family == STAVE_GPT2 ? "transformer.h.%d.%s" : "model.layers.%d.%s", b->layer, fmt);
	else
		snprintf(p->name, sizeof p->name, "%s", fmt);
}

/* `floats` of the arena, kept a multiple of a cache line so that every tensor can be an aligned operand. */
static int64_t take(struct stave_layout *l, int64_t floats)
{
	int64_t at = l->n;
	l->n += (floats + 15) / 16 * 16;
	return at;
}

static int64_t vector(struct builder *b, const char *suffix, int n, bool present)
{
	if (!present)
		return -1;
	int64_t at = take(b->l, n);
	name(b, suffix, at, 0, n, false);
	return at;
}

static void gpt2_layer(struct builder *b, struct stave_layer_at *a)
{
	struct stave_layout *l = b->l;
	const struct stave_shape *s = &l->shape;
	int C = s->C, qkv = 3 * C;
	a->norm1_w = vector(b, "ln_1.weight", C, true);
	a->norm1_b = vector(b, "ln_1.bias", C, s->norm_bias);
	name(b, "attn.c_attn.weight", a->qkv_w = take(l, (int64_t)qkv * C), qkv, C, true);
	a->qkv_b = vector(b, "attn.c_attn.bias", qkv, s->qkv_bias);
	name(b, "attn.c_proj.weight", a->out_w = take(l, (int64_t)C * C), C, C, true);
	a->out_b = vector(b, "attn.c_proj.bias", C, s->out_bias);
	a->norm2_w = vector(b, "ln_2.weight", C, true);
	a->norm2_b = vector(b, "ln_2.bias", C, s->norm_bias);
	name(b, "mlp.c_fc.weight", a->up_w = take(l, (int64_t)s->I * C), s->I, C, true);
	a->up_b = vector(b, "mlp.c_fc.bias", s->I, s->mlp_bias);
	name(b, "mlp.c_proj.weight", a->down_w = take(l, (int64_t)C * s->I), C, s->I, true);
	a->down_b = vector(b, "mlp.c_proj.bias", C, s->mlp_bias);
	a->qnorm_w = a->knorm_w = -1;
}

/* q, k and v are blocks of rows of one matrix, and so are their biases; gate and up likewise. */
static void llama_layer(struct builder *b, struct stave_layer_at *a)
{
	struct stave_layout *l = b->l;
	const struct stave_shape *s = &l->shape;
	int C = s->C, q = s->H * s->D, kv = s->K * s->D, I = s->I;
	a->norm1_w = vector(b, "input_layernorm.weight", C, true);
	a->qkv_w = take(l, (int64_t)(q + 2 * kv) * C);
	name(b, "self_attn.q_proj.weight", a->qkv_w, q, C, false);
	name(b, "self_attn.k_proj.weight", a->qkv_w + (int64_t)q * C, kv, C, false);
	name(b, "self_attn.v_proj.weight", a->qkv_w + (int64_t)(q + kv) * C, kv, C, false);
	a->qkv_b = -1;
	if (s->qkv_bias) {
		a->qkv_b = take(l, q + 2 * kv);
		name(b, "self_attn.q_proj.bias", a->qkv_b, 0, q, false);
		name(b, "self_attn.k_proj.bias", a->qkv_b + q, 0, kv, false);
		name(b, "self_attn.v_proj.bias", a->qkv_b + q + kv, 0, kv, false);
	}
	a->qnorm_w = vector(b, "self_attn.q_norm.weight", s->D, s->qk_norm);
	a->knorm_w = vector(b, "self_attn.k_norm.weight", s->D, s->qk_norm);
	name(b, "self_attn.o_proj.weight", a->out_w = take(l, (int64_t)C * q), C, q, false);
	a->out_b = vector(b, "self_attn.o_proj.bias", C, s->out_bias);
	a->norm2_w = vector(b, "post_attention_layernorm.weight", C, true);
	a->up_w = take(l, (int64_t)2 * I * C);
	name(b, "mlp.gate_proj.weight", a->up_w, I, C, false);
	name(b, "mlp.up_proj.weight", a->up_w + (int64_t)I * C, I, C, false);
	a->up_b = -1;
	if (s->mlp_bias) {
		a->up_b = take(l, (int64_t)2 * I);
		name(b, "mlp.gate_proj.bias", a->up_b, 0, I, false);
		name(b, "mlp.up_proj.bias", a->up_b + I, 0, I, false);
	}
	name(b, "mlp.down_proj.weight", a->down_w = take(l, (int64_t)C * I), C, I, false);
	a->down_b = vector(b, "mlp.down_proj.bias", C, s->mlp_bias);
	a->norm1_b = a->norm2_b = -1;
}

int stave_layout_open(struct stave_layout *l, const struct stave_shape *s, struct stave_err *err)
{
	int rc = stave_shape_check(s, err);
	if (rc)
		return rc;
	bool gpt2 = s->family == STAVE_GPT2;
	if (gpt2 && (s->H != s->K || s->H * s->D != s->C || s->act == STAVE_SWIGLU || !s->learned_pos))
		return stave_err_set(err, STAVE_ECONFIG, "a gpt2 model has equal heads, H x D = C, GELU and learned positions");
	if (!gpt2 && (s->act != STAVE_SWIGLU || s->layernorm || s->learned_pos))
		return stave_err_set(err, STAVE_ECONFIG, "a llama-like model has SwiGLU, RMSNorm and rotary positions");
	*l = (struct stave_layout){.shape = *s, .wpe = -1, .normf_b = -1};
	struct builder b = {.l = l, .layer = -1};
	l->layer = calloc((size_t)s->L, sizeof *l->layer);
	if (!l->layer)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the layout of %d layers", s->L);
	int64_t table = (int64_t)stave_shape_vpad(s) * s->C;
	name(&b, gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight", l->wte = take(l, table), s->V, s->C, false);
	if (s->learned_pos)
		name(&b, "transformer.wpe.weight", l->wpe = take(l, (int64_t)s->T_max * s->C), s->T_max, s->C, false);
	for (int i = 0; i < s->L; i++) {
		b.layer = i;
		l->layer[i].begin = l->n;
		(gpt2 ? gpt2_layer : llama_layer)(&b, &l->layer[i]);
		l->layer[i].end = l->n;
	}
	b.layer = -1;
	l->normf_w = vector(&b, gpt2 ? "transformer.ln_f.weight" : "model.norm.weight", s->C, true);
	if (gpt2)
		l->normf_b = vector(&b, "transformer.ln_f.bias", s->C, s->norm_bias);
	l->head = l->wte;
	if (!s->tied)
		name(&b, "lm_head.weight", l->head = take(l, table), s->V, s->C, false);
	if (b.failed) {
		stave_layout_close(l);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the names of the parameters");
	}
	return 0;
}

void stave_layout_close(struct stave_layout *l)
{
	free(l->params);
	free(l->layer);
	*l = (struct stave_layout){0};
}
