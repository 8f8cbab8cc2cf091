/* The one table of names. A family that fuses matrices has a row of several parts. */
#include "model/roles.h"

#include <stdio.h>
#include <string.h>

#define F(f) (1u << STAVE_##f)
#define MOE (F(MIXTRAL) | F(QWEN3_MOE))
#define SPLIT (F(LLAMA) | F(MISTRAL) | F(QWEN2) | F(QWEN3)) /* q, k, v and gate, up apart */
#define GEMMA (F(GEMMA2) | F(GEMMA3))
#define LLAMAS (SPLIT | MOE | F(PHI3))

const struct role_name role_names[] = {
	{STAVE_ROLE_EMBED, 1, LLAMAS | GEMMA, "token_embd", "embed_tokens"},
	{STAVE_ROLE_EMBED, 1, F(GPT2), "token_embd", "wte"},
	{STAVE_ROLE_EMBED, 1, F(BERT), "token_embd", "embeddings.word_embeddings"},
	{STAVE_ROLE_POSITIONS, 1, F(GPT2), "position_embd", "wpe"},
	{STAVE_ROLE_POSITIONS, 1, F(BERT), "position_embd", "embeddings.position_embeddings"},
	{STAVE_ROLE_TOKEN_TYPES, 1, F(BERT), "token_types", "embeddings.token_type_embeddings"},
	{STAVE_ROLE_EMBED_NORM, 1, F(BERT), "token_embd_norm", "embeddings.LayerNorm"},

	{STAVE_ROLE_NORM1, 1, LLAMAS | GEMMA, "blk.*.attn_norm", "layers.*.input_layernorm"},
	{STAVE_ROLE_NORM1, 1, F(GPT2), "blk.*.attn_norm", "h.*.ln_1"},
	{STAVE_ROLE_Q, 1, SPLIT | MOE | GEMMA, "blk.*.attn_q", "layers.*.self_attn.q_proj"},
	{STAVE_ROLE_K, 1, SPLIT | MOE | GEMMA, "blk.*.attn_k", "layers.*.self_attn.k_proj"},
	{STAVE_ROLE_V, 1, SPLIT | MOE | GEMMA, "blk.*.attn_v", "layers.*.self_attn.v_proj"},
	{STAVE_ROLE_Q, 3, F(PHI3), "blk.*.attn_qkv", "layers.*.self_attn.qkv_proj"},
	{STAVE_ROLE_Q, 3, F(GPT2), "blk.*.attn_qkv", "h.*.attn.c_attn"},
	{STAVE_ROLE_Q, 1, F(BERT), "blk.*.attn_q", "encoder.layer.*.attention.self.query"},
	{STAVE_ROLE_K, 1, F(BERT), "blk.*.attn_k", "encoder.layer.*.attention.self.key"},
	{STAVE_ROLE_V, 1, F(BERT), "blk.*.attn_v", "encoder.layer.*.attention.self.value"},
	{STAVE_ROLE_QNORM, 1, F(QWEN3) | F(QWEN3_MOE) | F(GEMMA3), "blk.*.attn_q_norm", "layers.*.self_attn.q_norm"},
	{STAVE_ROLE_KNORM, 1, F(QWEN3) | F(QWEN3_MOE) | F(GEMMA3), "blk.*.attn_k_norm", "layers.*.self_attn.k_norm"},
	{STAVE_ROLE_OUT, 1, LLAMAS | GEMMA, "blk.*.attn_output", "layers.*.self_attn.o_proj"},
	{STAVE_ROLE_OUT, 1, F(GPT2), "blk.*.attn_output", "h.*.attn.c_proj"},
	{STAVE_ROLE_OUT, 1, F(BERT), "blk.*.attn_output", "encoder.layer.*.attention.output.dense"},
	{STAVE_ROLE_NORM1_POST, 1, GEMMA, "blk.*.post_attention_norm", "layers.*.post_attention_layernorm"},
	{STAVE_ROLE_NORM1_POST, 1, F(BERT), "blk.*.attn_output_norm", "encoder.layer.*.attention.output.LayerNorm"},

	{STAVE_ROLE_NORM2, 1, LLAMAS, "blk.*.ffn_norm", "layers.*.post_attention_layernorm"},
	{STAVE_ROLE_NORM2, 1, GEMMA, "blk.*.ffn_norm", "layers.*.pre_feedforward_layernorm"},
	{STAVE_ROLE_NORM2, 1, F(GPT2), "blk.*.ffn_norm", "h.*.ln_2"},
	{STAVE_ROLE_GATE, 1, SPLIT | GEMMA, "blk.*.ffn_gate", "layers.*.mlp.gate_proj"},
	{STAVE_ROLE_UP, 1, SPLIT | GEMMA, "blk.*.ffn_up", "layers.*.mlp.up_proj"},
	{STAVE_ROLE_GATE, 2, F(PHI3), "blk.*.ffn_up", "layers.*.mlp.gate_up_proj"},
	{STAVE_ROLE_UP, 1, F(GPT2), "blk.*.ffn_up", "h.*.mlp.c_fc"},
	{STAVE_ROLE_UP, 1, F(BERT), "blk.*.ffn_up", "encoder.layer.*.intermediate.dense"},
	{STAVE_ROLE_DOWN, 1, SPLIT | F(PHI3) | GEMMA, "blk.*.ffn_down", "layers.*.mlp.down_proj"},
	{STAVE_ROLE_DOWN, 1, F(GPT2), "blk.*.ffn_down", "h.*.mlp.c_proj"},
	{STAVE_ROLE_DOWN, 1, F(BERT), "blk.*.ffn_down", "encoder.layer.*.output.dense"},
	{STAVE_ROLE_NORM2_POST, 1, GEMMA, "blk.*.post_ffw_norm", "layers.*.post_feedforward_layernorm"},
	{STAVE_ROLE_NORM2_POST, 1, F(BERT), "blk.*.layer_output_norm", "encoder.layer.*.output.LayerNorm"},
	{STAVE_ROLE_ROUTER, 1, F(MIXTRAL), "blk.*.ffn_gate_inp", "layers.*.block_sparse_moe.gate"},
	{STAVE_ROLE_ROUTER, 1, F(QWEN3_MOE), "blk.*.ffn_gate_inp", "layers.*.mlp.gate"},
	{STAVE_ROLE_EXPERT_GATE, 1, F(MIXTRAL), "blk.*.ffn_gate_exps", "layers.*.block_sparse_moe.experts.*.w1"},
	{STAVE_ROLE_EXPERT_UP, 1, F(MIXTRAL), "blk.*.ffn_up_exps", "layers.*.block_sparse_moe.experts.*.w3"},
	{STAVE_ROLE_EXPERT_DOWN, 1, F(MIXTRAL), "blk.*.ffn_down_exps", "layers.*.block_sparse_moe.experts.*.w2"},
	{STAVE_ROLE_EXPERT_GATE, 1, F(QWEN3_MOE), "blk.*.ffn_gate_exps", "layers.*.mlp.experts.*.gate_proj"},
	{STAVE_ROLE_EXPERT_UP, 1, F(QWEN3_MOE), "blk.*.ffn_up_exps", "layers.*.mlp.experts.*.up_proj"},
	{STAVE_ROLE_EXPERT_DOWN, 1, F(QWEN3_MOE), "blk.*.ffn_down_exps", "layers.*.mlp.experts.*.down_proj"},

	{STAVE_ROLE_NORM_F, 1, LLAMAS | GEMMA, "output_norm", "norm"},
	{STAVE_ROLE_NORM_F, 1, F(GPT2), "output_norm", "ln_f"},
	{STAVE_ROLE_HEAD, 1, LLAMAS | GEMMA | F(GPT2), "output", "/lm_head"},
};
const int role_names_n = sizeof role_names / sizeof *role_names;

const struct role_name *role_find(enum stave_family f, enum stave_role role)
{
	for (int i = 0; i < role_names_n; i++)
		if (role_names[i].families >> f & 1 && role >= role_names[i].role && (int)role < (int)role_names[i].role + role_names[i].parts)
			return &role_names[i];
	return NULL;
}

const char *const *role_roots(enum stave_family f)
{
	static const char *const gpt2[] = {"transformer.", "", NULL}, *const bert[] = {"", "bert.", NULL}, *const llama[] = {"model.", "", NULL},
	                         *const with_images[] = {"model.", "", "language_model.model.", "model.language_model.", NULL};
	return f == STAVE_GPT2 ? gpt2 : f == STAVE_BERT ? bert : f == STAVE_GEMMA3 ? with_images : llama;
}

void role_name(char out[ROLE_NAME_MAX], const struct role_name *r, const char *root, int layer, int expert)
{
	const char *p = root ? r->hf : r->gguf;
	size_t n = 0;
	if (root && *p == '/')
		p++;
	else if (root)
		n = (size_t)snprintf(out, ROLE_NAME_MAX, "%s", root);
	for (int number = layer; *p && n + 12 < ROLE_NAME_MAX; p++) {
		if (*p != '*') {
			out[n++] = *p;
			continue;
		}
		n += (size_t)snprintf(out + n, ROLE_NAME_MAX - n, "%d", number);
		number = expert;
	}
	out[n] = 0;
}

bool role_present(const struct stave_shape *s, enum stave_role r)
{
	switch (r) {
	case STAVE_ROLE_EMBED: case STAVE_ROLE_Q: case STAVE_ROLE_K: case STAVE_ROLE_V: case STAVE_ROLE_OUT: return true;
	case STAVE_ROLE_POSITIONS: return s->learned_pos;
	case STAVE_ROLE_TOKEN_TYPES: case STAVE_ROLE_EMBED_NORM: return s->encoder;
	case STAVE_ROLE_NORM_F: case STAVE_ROLE_NORM1: case STAVE_ROLE_NORM2: return !s->encoder;
	case STAVE_ROLE_HEAD: return !s->encoder && !s->tied;
	case STAVE_ROLE_QNORM: case STAVE_ROLE_KNORM: return s->qk_norm;
	case STAVE_ROLE_NORM1_POST: case STAVE_ROLE_NORM2_POST: return s->sandwich || s->encoder;
	case STAVE_ROLE_GATE: return !s->experts && stave_act_gated(s->act);
	case STAVE_ROLE_UP: case STAVE_ROLE_DOWN: return !s->experts;
	case STAVE_ROLE_ROUTER: case STAVE_ROLE_EXPERT_GATE: case STAVE_ROLE_EXPERT_UP: case STAVE_ROLE_EXPERT_DOWN: return s->experts > 0;
	default: return false;
	}
}

bool role_biased(const struct stave_shape *s, enum stave_role r)
{
	switch (r) {
	case STAVE_ROLE_Q: case STAVE_ROLE_K: case STAVE_ROLE_V: return s->qkv_bias;
	case STAVE_ROLE_OUT: return s->out_bias;
	case STAVE_ROLE_GATE: case STAVE_ROLE_UP: case STAVE_ROLE_DOWN: return s->mlp_bias;
	default: return role_kind(r) == ROLE_NORM && s->layernorm && s->norm_bias && r != STAVE_ROLE_QNORM && r != STAVE_ROLE_KNORM;
	}
}

void role_shape(const struct stave_shape *s, enum stave_role r, int *rows, int *cols)
{
	int C = s->C, q = s->H * s->D, kv = s->K * s->D;
	*rows = 1;
	*cols = C;
	switch (r) {
	case STAVE_ROLE_EMBED: case STAVE_ROLE_HEAD: *rows = s->V; break;
	case STAVE_ROLE_POSITIONS: *rows = s->T_max; break;
	case STAVE_ROLE_TOKEN_TYPES: *rows = s->token_types; break;
	case STAVE_ROLE_Q: *rows = q; break;
	case STAVE_ROLE_K: case STAVE_ROLE_V: *rows = kv; break;
	case STAVE_ROLE_QNORM: case STAVE_ROLE_KNORM: *cols = s->D; break;
	case STAVE_ROLE_OUT: *rows = C; *cols = q; break;
	case STAVE_ROLE_GATE: case STAVE_ROLE_UP: case STAVE_ROLE_EXPERT_GATE: case STAVE_ROLE_EXPERT_UP: *rows = s->I; break;
	case STAVE_ROLE_DOWN: case STAVE_ROLE_EXPERT_DOWN: *rows = C; *cols = s->I; break;
	case STAVE_ROLE_ROUTER: *rows = s->experts; break;
	default: break;
	}
}
