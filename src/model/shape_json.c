/* Shapes by name and by config.json. What a config asks for and stave does not compute is refused by name: a model that
 * loads but computes something else is the worst outcome. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/json.h"

static const char *const family_names[STAVE_FAMILIES] = {"gpt2", "llama", "mistral", "qwen2", "qwen3"};
static const char *const architectures[STAVE_FAMILIES] = {"GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM",
                                                          "Qwen2ForCausalLM", "Qwen3ForCausalLM"};

/* ---- presets ---- */

/* name, description, family, L, C, H, K, I, T_max */
#define PRESETS(X) \
	X("nano", "gpt2 of 0.8 M plus embeddings, nanoGPT's CPU size: 4 layers, 128 wide", STAVE_GPT2, 4, 128, 4, 4, 512, 256) \
	X("mini", "llama of 3 M plus embeddings, for a minute on a laptop: 4 layers, 256 wide", STAVE_LLAMA, 4, 256, 4, 2, 688, 512) \
	X("small", "llama of 10 M plus embeddings: 6 layers, 384 wide", STAVE_LLAMA, 6, 384, 6, 2, 1024, 1024) \
	X("gpt2-124m", "GPT-2: 12 layers, 768 wide", STAVE_GPT2, 12, 768, 12, 12, 3072, 1024) \
	X("gpt2-350m", "GPT-2 medium: 24 layers, 1024 wide", STAVE_GPT2, 24, 1024, 16, 16, 4096, 1024) \
	X("llama-124m", "llama: 12 layers, 768 wide, 4 key/value heads", STAVE_LLAMA, 12, 768, 12, 4, 2048, 2048) \
	X("llama-350m", "llama: 24 layers, 1024 wide, 4 key/value heads", STAVE_LLAMA, 24, 1024, 16, 4, 2816, 2048) \
	X("llama-1b", "llama: 16 layers, 2048 wide, 8 key/value heads (Llama-3.2-1B's body)", STAVE_LLAMA, 16, 2048, 32, 8, 8192, 8192) \
	X("mistral-124m", "mistral: as llama-124m with a window of 1024", STAVE_MISTRAL, 12, 768, 12, 4, 2048, 4096) \
	X("qwen2-124m", "qwen2: as llama-124m with q/k/v biases, tied", STAVE_QWEN2, 12, 768, 12, 4, 2048, 4096) \
	X("qwen3-124m", "qwen3: as llama-124m with q/k norms, tied", STAVE_QWEN3, 12, 768, 12, 4, 2048, 4096)

static const struct preset {
	const char *name;
	enum stave_family family;
	int L, C, H, K, I, T;
} presets[] = {
#define X(name, doc, ...) {name, __VA_ARGS__},
	PRESETS(X)
#undef X
};
const char *const stave_presets[] = {
#define X(name, doc, ...) name, doc,
	PRESETS(X)
#undef X
	NULL};
#define N_PRESETS (sizeof presets / sizeof *presets)

int stave_preset(struct stave_shape *s, const char *name, int V, struct stave_err *err)
{
	const char *names[N_PRESETS];
	for (size_t i = 0; i < N_PRESETS; i++) {
		const struct preset *p = &presets[i];
		names[i] = p->name;
		if (strcmp(p->name, name))
			continue;
		bool gpt2 = p->family == STAVE_GPT2, qwen = p->family == STAVE_QWEN2 || p->family == STAVE_QWEN3;
		*s = (struct stave_shape){.family = p->family, .L = p->L, .C = p->C, .H = p->H, .K = p->K, .D = p->C / p->H, .I = p->I,
			.V = V ? V : 50257, .T_max = p->T, .act = gpt2 ? STAVE_GELU_TANH : STAVE_SWIGLU, .layernorm = gpt2, .norm_bias = gpt2,
			.learned_pos = gpt2, .qkv_bias = gpt2 || p->family == STAVE_QWEN2, .out_bias = gpt2, .mlp_bias = gpt2,
			.qk_norm = p->family == STAVE_QWEN3, .tied = gpt2 || qwen, .norm_eps = 1e-5f, .rope_theta = gpt2 ? 0 : 10000,
			.window = p->family == STAVE_MISTRAL ? 1024 : 0};
		return stave_shape_check(s, err);
	}
	const char *near = stave_nearest(name, names, N_PRESETS);
	return stave_err_set(err, STAVE_ECONFIG, "unknown model '%s'%s%s; a preset or a Hugging Face directory is wanted", name,
	                     near ? "; did you mean " : "", near ? near : "");
}

/* ---- config.json ---- */

#define INT(key, def, field)                                                                      \
	if ((rc = stave_json_int(j, key, def, 0, INT32_MAX, &v, path, err)))                      \
		return rc;                                                                        \
	s->field = (int)v;

static int load_gpt2(struct stave_shape *s, const json_t *j, const char *path, struct stave_err *err)
{
	int64_t v;
	int rc;
	double eps;
	INT("n_layer", 0, L)
	INT("n_embd", 0, C)
	INT("n_head", 0, H)
	INT("n_positions", 1024, T_max)
	INT("n_inner", 4 * (int64_t)s->C, I)
	if (s->H < 1 || s->C < 1 || s->C % s->H)
		return stave_err_set(err, STAVE_ECONFIG, "%s: n_embd %d is not a multiple of n_head %d", path, s->C, s->H);
	s->K = s->H;
	s->D = s->C / s->H;
	const char *act = stave_json_str(j, "activation_function", "gelu_new");
	if (!strcmp(act, "gelu"))
		s->act = STAVE_GELU_EXACT;
	else if (!strcmp(act, "gelu_new") || !strcmp(act, "gelu_pytorch_tanh"))
		s->act = STAVE_GELU_TANH;
	else
		return stave_err_set(err, STAVE_ECONFIG, "%s: activation_function '%.40s' is not supported; gelu, gelu_new or gelu_pytorch_tanh", path, act);
	/* stave's own addition for nanoGPT's bias-free form; absent elsewhere and then true */
	bool bias;
	if ((rc = stave_json_bool(j, "bias", true, &bias, path, err)) || (rc = stave_json_real(j, "layer_norm_epsilon", 1e-5, &eps, path, err)) ||
	    (rc = stave_json_bool(j, "tie_word_embeddings", true, &s->tied, path, err)))
		return rc;
	s->layernorm = s->learned_pos = true;
	s->norm_bias = s->qkv_bias = s->out_bias = s->mlp_bias = bias;
	s->norm_eps = (float)eps;
	return 0;
}

static int load_rope(struct stave_shape *s, const json_t *j, const char *path, struct stave_err *err)
{
	/* transformers 5 moved rope_theta and the scaling into rope_parameters */
	const json_t *p = json_object_get(j, "rope_parameters"), *r = json_is_object(p) ? p : json_object_get(j, "rope_scaling");
	int rc = stave_json_real(json_object_get(p, "rope_theta") ? p : j, "rope_theta", 10000, &s->rope_theta, path, err);
	if (rc || !json_is_object(r))
		return rc;
	const char *type = stave_json_str(r, "rope_type", stave_json_str(r, "type", "default"));
	if (!strcmp(type, "default"))
		return 0;
	if (strcmp(type, "llama3") && strcmp(type, "linear"))
		return stave_err_set(err, STAVE_ECONFIG, "%s: rope scaling '%.40s' is not supported; default, linear or llama3", path, type);
	int64_t original;
	if ((rc = stave_json_real(r, "factor", 8, &s->rope_factor, path, err)) || (rc = stave_json_real(r, "low_freq_factor", 1, &s->rope_low, path, err)) ||
	    (rc = stave_json_real(r, "high_freq_factor", 4, &s->rope_high, path, err)) ||
	    (rc = stave_json_int(r, "original_max_position_embeddings", 8192, 1, INT32_MAX, &original, path, err)))
		return rc;
	s->rope_original = (int)original;
	s->rope_linear = !strcmp(type, "linear");
	return 0;
}

static int load_llama(struct stave_shape *s, const json_t *j, const char *path, struct stave_err *err)
{
	int64_t v;
	int rc;
	double eps;
	bool bias, mlp_bias, use_window;
	INT("num_hidden_layers", 0, L)
	INT("hidden_size", 0, C)
	INT("num_attention_heads", 0, H)
	INT("num_key_value_heads", s->H, K)
	INT("head_dim", s->H ? s->C / s->H : 0, D)
	INT("intermediate_size", 0, I)
	INT("max_position_embeddings", 2048, T_max)
	const char *act = stave_json_str(j, "hidden_act", "silu");
	if (strcmp(act, "silu"))
		return stave_err_set(err, STAVE_ECONFIG, "%s: hidden_act '%.40s' is not supported; silu", path, act);
	s->act = STAVE_SWIGLU;
	if ((rc = stave_json_real(j, "rms_norm_eps", 1e-6, &eps, path, err)) || (rc = load_rope(s, j, path, err)) ||
	    (rc = stave_json_bool(j, "tie_word_embeddings", false, &s->tied, path, err)) ||
	    (rc = stave_json_bool(j, "attention_bias", false, &bias, path, err)) || (rc = stave_json_bool(j, "mlp_bias", false, &mlp_bias, path, err)) ||
	    (rc = stave_json_bool(j, "use_sliding_window", s->family == STAVE_MISTRAL, &use_window, path, err)))
		return rc;
	s->norm_eps = (float)eps;
	s->qk_norm = s->family == STAVE_QWEN3;
	s->qkv_bias = s->family == STAVE_QWEN2 || bias;
	s->out_bias = s->family != STAVE_QWEN2 && bias;
	s->mlp_bias = mlp_bias;
	if (use_window) {
		INT("sliding_window", 0, window)
		if (s->window && s->family != STAVE_MISTRAL)
			return stave_err_set(err, STAVE_ECONFIG, "%s: use_sliding_window in a %s model is not supported", path, family_names[s->family]);
	}
	return 0;
}

int stave_shape_load(struct stave_shape *s, const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH];
	json_t *j = NULL;
	struct stave_shape out = {.family = STAVE_FAMILIES};
	int rc = stave_path(path, dir, "config.json", err);
	if (rc || (rc = stave_json_load(&j, path, 1 << 20, err)))
		return rc;
	const char *type = stave_json_str(j, "model_type", "");
	for (int f = 0; f < STAVE_FAMILIES; f++)
		if (family_names[f] && !strcmp(type, family_names[f]))
			out.family = (enum stave_family)f;
	int64_t v = 0;
	if (out.family == STAVE_FAMILIES)
		rc = stave_err_set(err, STAVE_ECONFIG, "%s: model_type '%.40s' is not supported; gpt2, llama, mistral, qwen2 or qwen3", path, type);
	else if (json_object_get(j, "quantization_config") && !json_is_null(json_object_get(j, "quantization_config")))
		rc = stave_err_set(err, STAVE_ECONFIG, "%s: quantized Hugging Face weights are not supported", path);
	else
		rc = stave_json_int(j, "vocab_size", 0, 0, INT32_MAX, &v, path, err);
	out.V = (int)v;
	if (!rc)
		rc = out.family == STAVE_GPT2 ? load_gpt2(&out, j, path, err) : load_llama(&out, j, path, err);
	json_decref(j);
	if (!rc)
		rc = stave_shape_check(&out, err);
	if (!rc)
		*s = out;
	return rc;
}

static void save_gpt2(json_t *j, const struct stave_shape *s)
{
	json_object_set_new(j, "n_layer", json_integer(s->L));
	json_object_set_new(j, "n_embd", json_integer(s->C));
	json_object_set_new(j, "n_head", json_integer(s->H));
	json_object_set_new(j, "n_positions", json_integer(s->T_max));
	json_object_set_new(j, "n_ctx", json_integer(s->T_max));
	json_object_set_new(j, "n_inner", json_integer(s->I));
	json_object_set_new(j, "activation_function", json_string(s->act == STAVE_GELU_EXACT ? "gelu" : "gelu_new"));
	json_object_set_new(j, "layer_norm_epsilon", json_real((double)s->norm_eps));
	if (!s->norm_bias)
		json_object_set_new(j, "bias", json_false());
}

static void save_llama(json_t *j, const struct stave_shape *s)
{
	json_object_set_new(j, "num_hidden_layers", json_integer(s->L));
	json_object_set_new(j, "hidden_size", json_integer(s->C));
	json_object_set_new(j, "intermediate_size", json_integer(s->I));
	json_object_set_new(j, "num_attention_heads", json_integer(s->H));
	json_object_set_new(j, "num_key_value_heads", json_integer(s->K));
	json_object_set_new(j, "head_dim", json_integer(s->D));
	json_object_set_new(j, "max_position_embeddings", json_integer(s->T_max));
	json_object_set_new(j, "rms_norm_eps", json_real((double)s->norm_eps));
	json_object_set_new(j, "rope_theta", json_real(s->rope_theta));
	json_object_set_new(j, "hidden_act", json_string("silu"));
	json_object_set_new(j, "attention_bias", json_boolean(s->qkv_bias && s->family != STAVE_QWEN2));
	json_object_set_new(j, "mlp_bias", json_boolean(s->mlp_bias));
	if (s->family == STAVE_MISTRAL)
		json_object_set_new(j, "sliding_window", s->window ? json_integer(s->window) : json_null());
	if (s->rope_factor > 0 && s->rope_linear)
		json_object_set_new(j, "rope_scaling", json_pack("{s:s, s:f}", "rope_type", "linear", "factor", s->rope_factor));
	else if (s->rope_factor > 0)
		json_object_set_new(j, "rope_scaling", json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", s->rope_factor,
			"low_freq_factor", s->rope_low, "high_freq_factor", s->rope_high, "original_max_position_embeddings", s->rope_original));
}

int stave_shape_save(const struct stave_shape *s, const char *dir, int eos, int bos, struct stave_err *err)
{
	char path[STAVE_PATH];
	int rc = stave_path(path, dir, "config.json", err);
	if (rc)
		return rc;
	json_t *j = json_pack("{s:s, s:[s], s:i, s:b, s:s}", "model_type", family_names[s->family], "architectures", architectures[s->family],
	                      "vocab_size", s->V, "tie_word_embeddings", s->tied, "torch_dtype", "float32");
	if (s->family == STAVE_GPT2)
		save_gpt2(j, s);
	else
		save_llama(j, s);
	if (eos >= 0)
		json_object_set_new(j, "eos_token_id", json_integer(eos));
	if (bos >= 0)
		json_object_set_new(j, "bos_token_id", json_integer(bos));
	rc = stave_json_save(j, path, err);
	json_decref(j);
	return rc;
}
