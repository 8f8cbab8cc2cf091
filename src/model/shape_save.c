/* config.json of a shape, with the key names of transformers 4, which 5 reads too. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "model/shape.h"

static void set_int(json_t *j, const char *key, int64_t v) { json_object_set_new(j, key, json_integer(v)); }
static void set_real(json_t *j, const char *key, double v) { json_object_set_new(j, key, json_real(v)); }

/* The shortest decimal that is this float again: 1e-06, not 9.9999999747524271e-07. */
static double decimal(float f)
{
	char text[32];
	for (int digits = 6; digits < 9; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)f);
		if (strtof(text, NULL) == f)
			break;
	}
	return strtod(text, NULL);
}

static void save_gpt2(json_t *j, const struct stave_shape *s)
{
	set_int(j, "n_layer", s->L);
	set_int(j, "n_embd", s->C);
	set_int(j, "n_head", s->H);
	set_int(j, "n_positions", s->T_max);
	set_int(j, "n_ctx", s->T_max);
	set_int(j, "n_inner", s->I);
	json_object_set_new(j, "activation_function", json_string(s->act == STAVE_GELU_EXACT ? "gelu" : "gelu_new"));
	set_real(j, "layer_norm_epsilon", decimal(s->norm_eps));
	if (!s->norm_bias)
		json_object_set_new(j, "bias", json_false());
}

static void save_bert(json_t *j, const struct stave_shape *s)
{
	set_int(j, "num_hidden_layers", s->L);
	set_int(j, "hidden_size", s->C);
	set_int(j, "num_attention_heads", s->H);
	set_int(j, "intermediate_size", s->I);
	set_int(j, "max_position_embeddings", s->T_max);
	set_int(j, "type_vocab_size", s->token_types);
	set_real(j, "layer_norm_eps", decimal(s->norm_eps));
	json_object_set_new(j, "hidden_act", json_string(s->act == STAVE_GELU_EXACT ? "gelu" : "gelu_new"));
	json_object_set_new(j, "position_embedding_type", json_string("absolute"));
}

static json_t *list(const float *f, int n)
{
	json_t *a = json_array();
	for (int i = 0; i < n; i++)
		json_array_append_new(a, json_real(decimal(f[i])));
	return a;
}

static void save_rope(json_t *j, const struct stave_shape *s, const struct shape_factors *f)
{
	set_real(j, "rope_theta", s->rope_theta);
	if (s->rope_dims)
		set_real(j, "partial_rotary_factor", (double)s->rope_dims / s->D);
	if (s->rope_local > 0)
		set_real(j, "rope_local_base_freq", s->rope_local);
	if (f && f->n) {
		json_object_set_new(j, "rope_scaling", json_pack("{s:s, s:o, s:o, s:f}", "type", "longrope", "short_factor", list(f->near, f->n), "long_factor",
			list(f->far, f->n), "attention_factor", s->rope_mscale > 0 ? decimal(s->rope_mscale) : 1.0));
		set_int(j, "original_max_position_embeddings", f->original);
	} else if (s->rope_factor > 0 && s->rope_linear) {
		json_object_set_new(j, "rope_scaling", json_pack("{s:s, s:f}", "rope_type", "linear", "factor", s->rope_factor));
	} else if (s->rope_factor > 0) {
		json_object_set_new(j, "rope_scaling", json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", s->rope_factor,
			"low_freq_factor", s->rope_low, "high_freq_factor", s->rope_high, "original_max_position_embeddings", s->rope_original));
	}
}

static void save_gemma(json_t *j, const struct stave_shape *s)
{
	json_object_set_new(j, "hidden_activation", json_string("gelu_pytorch_tanh"));
	double scalar = s->attn_scale > 0 ? 1 / ((double)s->attn_scale * (double)s->attn_scale) : s->D;
	set_real(j, "query_pre_attn_scalar", fabs(scalar - round(scalar)) < 1e-4 * scalar ? round(scalar) : scalar);
	json_object_set_new(j, "attn_logit_softcapping", s->attn_softcap > 0 ? json_real(decimal(s->attn_softcap)) : json_null());
	json_object_set_new(j, "final_logit_softcapping", s->final_softcap > 0 ? json_real(decimal(s->final_softcap)) : json_null());
	set_int(j, "sliding_window", s->window);
	if (s->family == STAVE_GEMMA3 && s->window)
		set_int(j, "sliding_window_pattern", s->window_pattern);
}

static void save_experts(json_t *j, const struct stave_shape *s)
{
	bool qwen = s->family == STAVE_QWEN3_MOE;
	set_int(j, qwen ? "num_experts" : "num_local_experts", s->experts);
	set_int(j, "num_experts_per_tok", s->experts_used);
	if (!qwen)
		return;
	set_int(j, "moe_intermediate_size", s->I);
	json_object_set_new(j, "norm_topk_prob", json_boolean(s->experts_norm));
	json_object_set_new(j, "mlp_only_layers", json_array());
	set_int(j, "decoder_sparse_step", 1);
}

static void save_llama(json_t *j, const struct stave_shape *s, const struct shape_factors *f)
{
	bool gemma = s->family == STAVE_GEMMA2 || s->family == STAVE_GEMMA3;
	set_int(j, "num_hidden_layers", s->L);
	set_int(j, "hidden_size", s->C);
	set_int(j, "intermediate_size", s->I);
	set_int(j, "num_attention_heads", s->H);
	set_int(j, "num_key_value_heads", s->K);
	set_int(j, "head_dim", s->D);
	set_int(j, "max_position_embeddings", s->T_max);
	set_real(j, "rms_norm_eps", decimal(s->norm_eps));
	json_object_set_new(j, "attention_bias", json_boolean(s->qkv_bias && s->family != STAVE_QWEN2));
	json_object_set_new(j, "mlp_bias", json_boolean(s->mlp_bias));
	if (gemma)
		save_gemma(j, s);
	else
		json_object_set_new(j, "hidden_act", json_string("silu"));
	if (s->family == STAVE_MISTRAL || s->family == STAVE_MIXTRAL || s->family == STAVE_PHI3)
		json_object_set_new(j, "sliding_window", s->window ? json_integer(s->window) : json_null());
	if (s->experts)
		save_experts(j, s);
	save_rope(j, s, f);
}

int shape_to_json(const struct stave_shape *s, const struct shape_factors *f, const char *dir, int eos, int bos, const char *dtype, struct stave_err *err)
{
	static const char *const architectures[STAVE_FAMILIES] = {"GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
		"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM", "MixtralForCausalLM", "Qwen3MoeForCausalLM", "BertModel"};
	char path[STAVE_PATH];
	int rc = stave_path(path, dir, "config.json", err);
	if (rc)
		return rc;
	json_t *j = json_pack("{s:s, s:[s], s:i, s:b, s:s}", "model_type", shape_model_types[s->family], "architectures", architectures[s->family],
	                      "vocab_size", s->V, "tie_word_embeddings", s->tied, "torch_dtype", dtype);
	if (s->family == STAVE_GPT2)
		save_gpt2(j, s);
	else if (s->family == STAVE_BERT)
		save_bert(j, s);
	else
		save_llama(j, s, f);
	if (eos >= 0)
		set_int(j, "eos_token_id", eos);
	if (bos >= 0)
		set_int(j, "bos_token_id", bos);
	rc = stave_json_save(j, path, err);
	json_decref(j);
	return rc;
}

int stave_shape_save(const struct stave_shape *s, const char *dir, int eos, int bos, struct stave_err *err)
{
	return shape_to_json(s, NULL, dir, eos, bos, "float32", err);
}
