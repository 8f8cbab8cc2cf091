/* Random small models of any family, as GGUF files: from the shape and the table of names. Values are functions of (name, index). */
#ifndef TEST_ANY_MODEL_H
#define TEST_ANY_MODEL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/gguf.h"
#include "base/hash.h"
#include "kernel/quant.h"
#include "model/roles.h"
#include "model/shape.h"

static void must(int rc, const struct stave_err *e)
{
	if (!rc)
		return;
	fprintf(stderr, "%s\n", e->msg);
	abort();
}

/* One tensor of the file: `rows` rows of `cols` floats about `mean`, stored as t (F32 where the row does not allow t). */
struct any_tensor {
	char name[ROLE_NAME_MAX];
	int n_dims;
	int64_t ne[3];
	float mean, size;
	bool plain;
};

static void any_add(struct any_tensor *t, int *n, const char *name, const char *end, int n_dims, int64_t cols, int64_t rows, int64_t depth, float mean, float size, bool plain)
{
	struct any_tensor *one = &t[(*n)++];
	*one = (struct any_tensor){.n_dims = n_dims, .ne = {cols, rows, depth}, .mean = mean, .size = size, .plain = plain};
	snprintf(one->name, sizeof one->name, "%.100s%s", name, end);
}

static int any_list(const struct stave_shape *s, struct any_tensor *t)
{
	int n = 0;
	for (int i = 0; i < role_names_n; i++) {
		const struct role_name *r = &role_names[i];
		if (!(r->families >> s->family & 1) || !role_present(s, r->role))
			continue;
		for (int layer = 0; layer < (role_in_layer(r->role) ? s->L : 1); layer++) {
			char name[ROLE_NAME_MAX];
			int rows = 0, cols = 0;
			role_name(name, r, NULL, layer, 0);
			for (int p = 0; p < r->parts; p++) {
				int part;
				role_shape(s, (enum stave_role)((int)r->role + p), &part, &cols);
				rows += part;
			}
			enum role_kind kind = role_kind(r->role);
			if (kind == ROLE_NORM)
				any_add(t, &n, name, ".weight", 1, cols, 1, 1, 1, 0.2f, true);
			else
				any_add(t, &n, name, ".weight", kind == ROLE_EXPERT ? 3 : 2, cols, rows, kind == ROLE_EXPERT ? s->experts : 1, 0,
				        role_in_layer(r->role) ? 0.25f : 0.5f, r->role == STAVE_ROLE_ROUTER);
			if (role_biased(s, r->role))
				any_add(t, &n, name, ".bias", 1, kind == ROLE_NORM ? cols : rows, 1, 1, 0, 0.2f, true);
		}
	}
	return n;
}

static void any_write(const char *path, const struct stave_shape *s, enum stave_qtype type)
{
	static struct any_tensor list[1024];
	static struct stave_gguf_tensor t[1024];
	struct stave_err e = {0};
	struct stave_gguf_writer *w;
	int n = any_list(s, list);
	must(stave_gguf_create(&w, path, &e), &e);
	must(shape_to_gguf(s, NULL, w, &e), &e);
	for (int i = 0; i < n; i++) {
		bool plain = list[i].plain || list[i].ne[0] % stave_qtype_info(type).per;
		t[i] = (struct stave_gguf_tensor){.name = list[i].name, .type = plain ? STAVE_Q_F32 : type, .n_dims = list[i].n_dims,
		                                  .ne = {list[i].ne[0], list[i].ne[1], list[i].ne[2], 1}};
	}
	must(stave_gguf_tensors(w, t, n, &e), &e);
	for (int i = 0; i < n; i++) {
		int64_t rows = list[i].ne[1] * list[i].ne[2], cols = list[i].ne[0];
		uint64_t seed = stave_hash64(list[i].name, strlen(list[i].name), 1);
		float *x = malloc((size_t)cols * 4);
		char *row = malloc((size_t)cols * 4);
		for (int64_t r = 0; r < rows; r++) {
			for (int64_t c = 0; c < cols; c++)
				x[c] = list[i].mean + list[i].size * (float)(2 * stave_random_unit(seed, (uint64_t)(r * cols + c)) - 1);
			stave_quantize(t[i].type, row, x, cols);
			must(stave_gguf_write(w, row, stave_qtype_row_bytes(t[i].type, cols), &e), &e);
		}
		free(x);
		free(row);
	}
	must(stave_gguf_commit(w, &e), &e);
}

/* Shapes small enough for a test, with everything their family has. */
static struct stave_shape any_shape(enum stave_family f)
{
	struct stave_shape s = {.family = f, .L = 3, .C = 64, .H = 4, .K = 2, .D = 16, .I = 96, .V = 131, .T_max = 256, .act = STAVE_SWIGLU, .norm_eps = 1e-5f,
	                        .rope_theta = 10000};
	switch (f) {
	case STAVE_GPT2: case STAVE_BERT:
		s.K = s.H;
		s.act = f == STAVE_GPT2 ? STAVE_GELU_TANH : STAVE_GELU_EXACT;
		s.layernorm = s.norm_bias = s.learned_pos = s.qkv_bias = s.out_bias = s.mlp_bias = s.tied = true;
		s.rope_theta = 0;
		s.encoder = f == STAVE_BERT;
		s.token_types = s.encoder ? 2 : 0;
		break;
	case STAVE_MISTRAL: s.window = 70; break;
	case STAVE_QWEN2: s.qkv_bias = s.tied = true; break;
	case STAVE_QWEN3: case STAVE_QWEN3_MOE: s.qk_norm = true; s.D = 32; break;
	case STAVE_GEMMA2: case STAVE_GEMMA3:
		s.act = STAVE_GEGLU;
		s.sandwich = s.tied = true;
		s.embed_scale = 8; /* sqrt(C) */
		s.window = 40;
		s.window_pattern = 2;
		s.D = 32;
		if (f == STAVE_GEMMA2) {
			s.attn_softcap = 50;
			s.final_softcap = 30;
		} else {
			s.qk_norm = true;
			s.rope_theta = 1e6;
			s.rope_local = 10000;
			s.window_pattern = 6;
			s.L = 7;
		}
		break;
	case STAVE_PHI3: s.K = s.H; s.window = 100; break;
	default: break;
	}
	if (f == STAVE_MIXTRAL || f == STAVE_QWEN3_MOE) {
		s.experts = f == STAVE_MIXTRAL ? 4 : 16;
		s.experts_used = f == STAVE_MIXTRAL ? 2 : 3;
		s.experts_norm = true;
		s.I = 64;
	}
	return s;
}

#endif
