/* Small random models of every family as GGUF files: keys by the conversion's own writer, which llama.cpp judges; tensors by the table of
 * roles. Weights are large enough that attention looks somewhere and probabilities differ. The tokenizer is byte-level BPE with filler
 * tokens, enough for a peer to load the file. */
#ifndef TEST_MODEL_RANDOM_H
#define TEST_MODEL_RANDOM_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kernel/quant.h"
#include "model/random_blocks.h"
#include "model/roles.h"
#include "model/shape.h"

static inline float random_normal(uint64_t seed, uint64_t i)
{
	double u1 = 1 - stave_random_unit(seed, 2 * i), u2 = stave_random_unit(seed, 2 * i + 1);
	return (float)(sqrt(-2 * log(u1)) * cos(6.283185307179586 * u2));
}

/* A small shape of a family with everything that is special about it. */
__attribute__((unused)) static struct stave_shape random_shape(enum stave_family f)
{
	bool gemma = f == STAVE_GEMMA2 || f == STAVE_GEMMA3, old = f == STAVE_GPT2 || f == STAVE_BERT, moe = f == STAVE_MIXTRAL || f == STAVE_QWEN3_MOE;
	struct stave_shape s = {.family = f, .L = 3, .C = 64, .H = 4, .K = 2, .D = 16, .I = 96, .V = 300, .T_max = 128, .act = STAVE_SWIGLU, .norm_eps = 1e-5f, .rope_theta = 10000};
	s.tied = gemma || f == STAVE_QWEN3 || old;
	s.qkv_bias = f == STAVE_QWEN2 || old;
	s.qk_norm = f == STAVE_QWEN3 || f == STAVE_QWEN3_MOE || f == STAVE_GEMMA3;
	if (f == STAVE_QWEN3 || f == STAVE_QWEN3_MOE || gemma)
		s.D = 32; /* heads wider than C / H */
	if (old) {
		s.K = s.H;
		s.act = f == STAVE_GPT2 ? STAVE_GELU_TANH : STAVE_GELU_EXACT;
		s.layernorm = s.norm_bias = s.learned_pos = s.out_bias = s.mlp_bias = true;
		s.rope_theta = 0;
	}
	if (gemma) {
		s.act = STAVE_GEGLU;
		s.sandwich = true;
		s.embed_scale = sqrtf((float)s.C);
		s.L = f == STAVE_GEMMA3 ? 7 : 4;
		s.window = 8;
		s.window_pattern = f == STAVE_GEMMA3 ? 6 : 2;
		s.rope_local = f == STAVE_GEMMA3 ? 10000 : 0;
		s.rope_theta = f == STAVE_GEMMA3 ? 1e6 : 10000;
		s.attn_softcap = f == STAVE_GEMMA2 ? 5 : 0;
		s.final_softcap = f == STAVE_GEMMA2 ? 10 : 0;
	}
	if (moe) {
		s.experts = 8;
		s.experts_used = 3;
		s.experts_norm = true;
		s.I = 64;
	}
	if (f == STAVE_MISTRAL)
		s.window = 6;
	if (f == STAVE_PHI3)
		s.rope_dims = 12;
	if (f == STAVE_BERT) {
		s.encoder = true;
		s.token_types = 2;
	}
	return s;
}

static void random_tokenizer(struct stave_gguf_writer *w, int V, bool bert)
{
	char (*text)[12] = calloc((size_t)V, sizeof *text);
	const char **p = calloc((size_t)V, sizeof *p);
	size_t *n = calloc((size_t)V, sizeof *n);
	int32_t *type = calloc((size_t)V, sizeof *type);
	for (int i = 0, other = 0; i < V; i++) {
		bool printable = (i >= 33 && i < 127) || (i >= 161 && i < 173) || (i >= 174 && i < 256);
		unsigned cp = i >= 256 ? 0 : printable ? (unsigned)i : 256u + (unsigned)other++;
		if (bert && i >= V - 4)
			snprintf(text[i], sizeof text[i], "%s", (const char *const[]){"[UNK]", "[CLS]", "[SEP]", "[PAD]"}[i - (V - 4)]);
		else if (i >= 256)
			snprintf(text[i], sizeof text[i], i == V - 2 ? "<s>" : i == V - 1 ? "</s>" : "t%d", i);
		else if (cp < 128)
			snprintf(text[i], sizeof text[i], "%c", (char)cp);
		else
			snprintf(text[i], sizeof text[i], "%c%c", (char)(0xc0 | cp >> 6), (char)(0x80 | (cp & 63)));
		p[i] = text[i];
		n[i] = strlen(text[i]);
		type[i] = i >= V - (bert ? 4 : 2) ? 3 : 1;
	}
	static const char *const merge[] = {"t h"};
	static const size_t merge_n[] = {3};
	stave_gguf_put_str(w, "tokenizer.ggml.model", bert ? "bert" : "gpt2", 4);
	stave_gguf_put_str(w, "tokenizer.ggml.pre", bert ? "jina-v2-en" : "llama-bpe", bert ? 10 : 9);
	stave_gguf_put_strs(w, "tokenizer.ggml.tokens", p, n, V);
	stave_gguf_put_i32s(w, "tokenizer.ggml.token_type", type, V);
	stave_gguf_put_strs(w, "tokenizer.ggml.merges", merge, merge_n, 1);
	stave_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)V - (bert ? 3 : 2));
	stave_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)V - (bert ? 2 : 1));
	if (bert) {
		stave_gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)V - 4);
		stave_gguf_put_u32(w, "tokenizer.ggml.seperator_token_id", (uint32_t)V - 2);
		stave_gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)V - 1);
	}
	free(text);
	free(p);
	free(n);
	free(type);
}

struct random_tensor {
	char name[ROLE_NAME_MAX + 8];
	float mean, std;
};

/* One tensor of the list; returns the new length. */
static int random_add(struct random_tensor *r, struct stave_gguf_tensor *t, int n, const struct stave_shape *s, const struct role_name *of, int layer, bool bias,
                      enum stave_qtype type)
{
	int rows = 0, all = 0, cols = 0;
	for (int i = 0; i < of->parts; i++, all += rows)
		role_shape(s, (enum stave_role)(of->role + i), &rows, &cols);
	bool vector = bias || role_kind(of->role) == ROLE_NORM, stacked = role_kind(of->role) == ROLE_EXPERT, table = !role_in_layer(of->role) && !vector;
	bool plain = vector || of->role == STAVE_ROLE_ROUTER || of->role == STAVE_ROLE_POSITIONS || of->role == STAVE_ROLE_TOKEN_TYPES;
	role_name(r[n].name, of, NULL, layer, 0);
	strcat(r[n].name, bias ? ".bias" : ".weight");
	r[n].mean = vector && !bias ? 1 : 0;
	r[n].std = vector ? 0.1f : table ? (of->role == STAVE_ROLE_EMBED && s->embed_scale > 0 ? 0.1f : 0.3f) : 1.5f / sqrtf((float)cols);
	int64_t ne0 = bias && role_kind(of->role) != ROLE_NORM ? all : cols;
	t[n] = (struct stave_gguf_tensor){.name = r[n].name, .type = plain ? STAVE_Q_F32 : type, .n_dims = vector ? 1 : stacked ? 3 : 2,
	                                  .ne = {ne0, vector ? 1 : all, stacked ? s->experts : 1, 1}};
	return n + 1;
}

/* Rotary divisors as longrope has them. */
__attribute__((unused)) static struct shape_factors random_factors(int n, int original)
{
	struct shape_factors f = {.near = malloc((size_t)n * sizeof(float)), .far = malloc((size_t)n * sizeof(float)), .n = n, .original = original};
	for (int i = 0; i < n; i++) {
		f.near[i] = 1 + 0.1f * (float)i;
		f.far[i] = 1 + 0.5f * (float)i;
	}
	return f;
}

static int random_extra(struct stave_gguf_tensor *t, int n, const struct shape_factors *f)
{
	static const char *const names[] = {"rope_factors_short.weight", "rope_factors_long.weight"};
	for (int k = 0; k < 2; k++)
		t[n + k] = (struct stave_gguf_tensor){.name = names[k], .type = STAVE_Q_F32, .n_dims = 1, .ne = {f->n, 1, 1, 1}};
	return n + 2;
}

static int random_write(struct stave_gguf_writer *w, const struct stave_gguf_tensor *t, float mean, float std, uint64_t seed, struct stave_err *err)
{
	int64_t rows = t->ne[1] * t->ne[2];
	float *row = malloc((size_t)t->ne[0] * sizeof *row);
	size_t bytes = stave_qtype_row_bytes(t->type, t->ne[0]);
	void *out = malloc(bytes);
	uint64_t own = stave_hash64(t->name, strlen(t->name), seed);
	int rc = 0;
	for (int64_t r = 0; !rc && r < rows; r++) {
		for (int64_t c = 0; c < t->ne[0]; c++)
			row[c] = mean + std * random_normal(own, (uint64_t)(r * t->ne[0] + c));
		random_store(t->type, out, row, t->ne[0], std, own + 2 * (uint64_t)r);
		rc = stave_gguf_write(w, out, bytes, err);
	}
	free(row);
	free(out);
	return rc;
}

/* f may be NULL. */
static int random_gguf(const char *path, const struct stave_shape *s, const struct shape_factors *f, enum stave_qtype type, uint64_t seed, struct stave_err *err)
{
	size_t most = (size_t)s->L * 40 + 16;
	struct random_tensor *r = calloc(most, sizeof *r);
	struct stave_gguf_tensor *t = calloc(most, sizeof *t);
	struct stave_gguf_writer *w = NULL;
	int n = 0, rc;
	for (int layer = -1; layer < s->L; layer++)
		for (int i = 0; i < role_names_n; i++) {
			const struct role_name *of = &role_names[i];
			if (!(of->families >> s->family & 1) || role_in_layer(of->role) != (layer >= 0) || !role_present(s, of->role))
				continue;
			n = random_add(r, t, n, s, of, layer, false, type);
			if (role_biased(s, of->role))
				n = random_add(r, t, n, s, of, layer, true, type);
		}
	int own = n;
	if (f)
		n = random_extra(t, n, f);
	rc = stave_gguf_create(&w, path, err);
	if (!rc && !(rc = shape_to_gguf(s, f, w, err))) {
		random_tokenizer(w, s->V, s->encoder);
		if (s->encoder)
			stave_gguf_put_u32(w, "bert.pooling_type", STAVE_POOL_MEAN);
		rc = stave_gguf_tensors(w, t, n, err);
	}
	for (int i = 0; !rc && i < own; i++)
		rc = random_write(w, &t[i], r[i].mean, r[i].std, seed, err);
	if (!rc && f && !(rc = stave_gguf_write(w, f->near, (size_t)f->n * 4, err)))
		rc = stave_gguf_write(w, f->far, (size_t)f->n * 4, err);
	if (!rc)
		rc = stave_gguf_commit(w, err);
	else
		stave_gguf_abort(w);
	free(r);
	free(t);
	return rc;
}

#endif
