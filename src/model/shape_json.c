/* Shapes from config.json. What a config asks for and stave does not compute is refused by name: a model that
 * loads but computes something else is the worst outcome. Key names of transformers 4 and 5 are both read. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "model/shape.h"

const char *const shape_model_types[STAVE_FAMILIES] = {"gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "mixtral", "qwen3_moe", "bert"};

void shape_factors_free(struct shape_factors *f)
{
	if (f->far != f->near)
		free(f->far);
	free(f->near);
	*f = (struct shape_factors){0};
}

/* The document being read; the first error sticks, so that a list of keys reads as a list. */
struct reader {
	const json_t *j;
	const char *path;
	struct stave_err *err;
	int rc;
};

static int integer(struct reader *r, const char *key, int64_t def)
{
	int64_t v = 0;
	if (!r->rc)
		r->rc = stave_json_int(r->j, key, def, 0, INT32_MAX, &v, r->path, r->err);
	return r->rc ? 0 : (int)v;
}

static double real(struct reader *r, const char *key, double def)
{
	double v = def;
	if (!r->rc)
		r->rc = stave_json_real(r->j, key, def, &v, r->path, r->err);
	return r->rc ? def : v;
}

static bool truth(struct reader *r, const char *key, bool def)
{
	bool v = def;
	if (!r->rc)
		r->rc = stave_json_bool(r->j, key, def, &v, r->path, r->err);
	return r->rc ? def : v;
}

__attribute__((format(printf, 2, 3))) static void refuse(struct reader *r, const char *fmt, ...)
{
	char text[400];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (!r->rc)
		r->rc = stave_err_set(r->err, STAVE_ECONFIG, "%s: %s", r->path, text);
}

static enum stave_act activation(struct reader *r, const char *key, const char *def)
{
	const char *act = stave_json_str(r->j, key, def);
	if (!strcmp(act, "gelu"))
		return STAVE_GELU_EXACT;
	if (!strcmp(act, "gelu_new") || !strcmp(act, "gelu_pytorch_tanh"))
		return STAVE_GELU_TANH;
	refuse(r, "%s '%.40s' is not supported; gelu, gelu_new or gelu_pytorch_tanh", key, act);
	return STAVE_GELU_EXACT;
}

static void load_gpt2(struct reader *r, struct stave_shape *s)
{
	s->L = integer(r, "n_layer", 0);
	s->C = integer(r, "n_embd", 0);
	s->H = s->K = integer(r, "n_head", 0);
	s->T_max = integer(r, "n_positions", 1024);
	s->I = integer(r, "n_inner", 4 * (int64_t)s->C);
	if (!r->rc && (s->H < 1 || s->C < 1 || s->C % s->H))
		refuse(r, "n_embd %d is not a multiple of n_head %d", s->C, s->H);
	s->D = r->rc ? 0 : s->C / s->H;
	s->act = activation(r, "activation_function", "gelu_new");
	/* stave's own addition for nanoGPT's bias-free form; absent elsewhere and then true */
	bool bias = truth(r, "bias", true);
	s->norm_eps = (float)real(r, "layer_norm_epsilon", 1e-5);
	s->tied = truth(r, "tie_word_embeddings", true);
	s->layernorm = s->learned_pos = true;
	s->norm_bias = s->qkv_bias = s->out_bias = s->mlp_bias = bias;
	if (truth(r, "scale_attn_by_inverse_layer_idx", false))
		refuse(r, "scale_attn_by_inverse_layer_idx is not supported");
	if (!truth(r, "scale_attn_weights", true))
		refuse(r, "scale_attn_weights false is not supported");
}

static void load_bert(struct reader *r, struct stave_shape *s)
{
	s->L = integer(r, "num_hidden_layers", 0);
	s->C = integer(r, "hidden_size", 0);
	s->H = s->K = integer(r, "num_attention_heads", 0);
	s->T_max = integer(r, "max_position_embeddings", 512);
	s->I = integer(r, "intermediate_size", 0);
	s->token_types = integer(r, "type_vocab_size", 2);
	if (!r->rc && (s->H < 1 || s->C < 1 || s->C % s->H))
		refuse(r, "hidden_size %d is not a multiple of num_attention_heads %d", s->C, s->H);
	s->D = r->rc ? 0 : s->C / s->H;
	s->act = activation(r, "hidden_act", "gelu");
	s->norm_eps = (float)real(r, "layer_norm_eps", 1e-12);
	const char *pos = stave_json_str(r->j, "position_embedding_type", "absolute");
	if (strcmp(pos, "absolute"))
		refuse(r, "position_embedding_type '%.40s' is not supported; absolute", pos);
	if (truth(r, "is_decoder", false))
		refuse(r, "a bert decoder is not supported");
	s->layernorm = s->learned_pos = s->norm_bias = s->qkv_bias = s->out_bias = s->mlp_bias = s->encoder = s->tied = true;
}

/* ---- rotary positions ---- */

/* A list of `n` divisors. */
static float *factor_list(struct reader *r, const json_t *scaling, const char *key, int n)
{
	const json_t *list = json_object_get(scaling, key);
	if (r->rc)
		return NULL;
	if (!json_is_array(list) || json_array_size(list) != (size_t)n) {
		refuse(r, "rope scaling needs %s with %d numbers", key, n);
		return NULL;
	}
	float *f = malloc((size_t)n * sizeof *f);
	if (!f)
		r->rc = stave_err_set(r->err, STAVE_ENOMEM, "no memory for %s", key);
	for (int i = 0; f && i < n; i++) {
		f[i] = (float)json_number_value(json_array_get(list, (size_t)i));
		if (!(f[i] > 0) || !isfinite(f[i]))
			refuse(r, "%s holds %g", key, (double)f[i]);
	}
	return f;
}

/* LongRoPE (Ding et al. 2024): a divisor per frequency, one list within the original context, one beyond; the scale of the
 * rotation is sqrt(1 + ln(extension) / ln(original)) unless given. */
static void load_longrope(struct reader *r, struct stave_shape *s, const json_t *scaling, struct shape_factors *f)
{
	int n = (s->rope_dims ? s->rope_dims : s->D) / 2;
	struct reader in = {scaling, r->path, r->err, r->rc};
	s->rope_original = integer(&in, "original_max_position_embeddings", integer(r, "original_max_position_embeddings", s->T_max));
	double extension = s->rope_original > 0 ? (double)s->T_max / s->rope_original : 1;
	double m = extension > 1 && s->rope_original > 1 ? sqrt(1 + log(extension) / log(s->rope_original)) : 1;
	m = real(&in, "attention_factor", m);
	s->rope_mscale = m == 1 ? 0 : (float)m;
	r->rc = r->rc ? r->rc : in.rc;
	if (!r->rc && (n < 1 || n > 65536))
		refuse(r, "rope scaling of %d frequencies", n);
	f->near = factor_list(r, scaling, "short_factor", n);
	f->far = factor_list(r, scaling, "long_factor", n);
	f->n = n;
	f->original = s->rope_original;
}

static void load_rope(struct reader *r, struct stave_shape *s, struct shape_factors *f)
{
	/* transformers 5 moved rope_theta and the scaling into rope_parameters, which gemma3 has per kind of layer */
	const json_t *p = json_object_get(r->j, "rope_parameters"), *full = json_object_get(p, "full_attention"), *local = json_object_get(p, "sliding_attention");
	p = json_is_object(full) ? full : p;
	const json_t *scaling = json_is_object(p) ? p : json_object_get(r->j, "rope_scaling");
	struct reader in = {json_object_get(p, "rope_theta") ? p : r->j, r->path, r->err, r->rc};
	s->rope_theta = real(&in, "rope_theta", s->family == STAVE_GEMMA3 ? 1e6 : 10000);
	if (s->family == STAVE_GEMMA3 && s->window) {
		struct reader of_local = {json_is_object(local) ? local : r->j, r->path, r->err, in.rc};
		s->rope_local = real(&of_local, json_is_object(local) ? "rope_theta" : "rope_local_base_freq", 10000);
		in.rc = of_local.rc;
	}
	in.j = json_object_get(p, "partial_rotary_factor") ? p : r->j;
	double part = real(&in, "partial_rotary_factor", 1);
	if (!in.rc && (!(part > 0) || part > 1))
		refuse(&in, "partial_rotary_factor is %g; expected above 0, up to 1", part);
	if (!in.rc && part < 1)
		s->rope_dims = (int)(s->D * part);
	r->rc = in.rc;
	if (r->rc || !json_is_object(scaling))
		return;
	const char *type = stave_json_str(scaling, "rope_type", stave_json_str(scaling, "type", "default"));
	if (!strcmp(type, "default"))
		return;
	if (!strcmp(type, "longrope") || !strcmp(type, "su")) {
		load_longrope(r, s, scaling, f);
		return;
	}
	if (strcmp(type, "llama3") && strcmp(type, "linear")) {
		refuse(r, "rope scaling '%.40s' is not supported; default, linear, llama3 or longrope", type);
		return;
	}
	in = (struct reader){scaling, r->path, r->err, 0};
	s->rope_factor = real(&in, "factor", 8);
	s->rope_low = real(&in, "low_freq_factor", 1);
	s->rope_high = real(&in, "high_freq_factor", 4);
	s->rope_original = integer(&in, "original_max_position_embeddings", 8192);
	s->rope_linear = !strcmp(type, "linear");
	r->rc = in.rc;
}

/* ---- families with rotary positions ---- */

/* How often a layer sees everything, from layer_types, where it is given: of each n the last. */
static void load_layer_types(struct reader *r, struct stave_shape *s)
{
	const json_t *types = json_object_get(r->j, "layer_types");
	int n = 0;
	if (r->rc || !json_is_array(types))
		return;
	if (json_array_size(types) != (size_t)s->L)
		refuse(r, "layer_types has %zu entries for %d layers", json_array_size(types), s->L);
	for (int pass = 0; !r->rc && pass < 2; pass++)
		for (int i = 0; !r->rc && i < s->L; i++) {
			const char *t = json_string_value(json_array_get(types, (size_t)i));
			bool all = t && !strcmp(t, "full_attention");
			if (!all && (!t || strcmp(t, "sliding_attention")))
				refuse(r, "layer_types holds '%.40s', which is not supported", t ? t : "(no text)");
			else if (pass == 0 && all && !n)
				n = i + 1;
			else if (pass == 1 && all != (n && (i + 1) % n == 0))
				refuse(r, "layer_types is no regular pattern, which is not supported");
		}
	if (r->rc)
		return;
	if (n == 1) /* every layer sees everything */
		s->window = s->window_pattern = 0;
	else if (!n)
		s->window_pattern = 0;
	else
		s->window_pattern = n;
}

static void load_gemma(struct reader *r, struct stave_shape *s)
{
	bool third = s->family == STAVE_GEMMA3;
	s->act = STAVE_GEGLU;
	s->sandwich = true;
	s->qk_norm = third;
	s->embed_scale = sqrtf((float)s->C);
	double scalar = real(r, "query_pre_attn_scalar", 256);
	if (!r->rc && !(scalar > 0))
		refuse(r, "query_pre_attn_scalar is %g", scalar);
	s->attn_scale = scalar == s->D ? 0 : (float)(1 / sqrt(scalar));
	s->attn_softcap = (float)real(r, "attn_logit_softcapping", third ? 0 : 50);
	s->final_softcap = (float)real(r, "final_logit_softcapping", third ? 0 : 30);
	if (json_is_null(json_object_get(r->j, "attn_logit_softcapping")))
		s->attn_softcap = 0;
	if (json_is_null(json_object_get(r->j, "final_logit_softcapping")))
		s->final_softcap = 0;
	s->window = integer(r, "sliding_window", 4096);
	s->window_pattern = !s->window ? 0 : third ? integer(r, "sliding_window_pattern", 6) : 2;
	if (s->window)
		load_layer_types(r, s);
	if (truth(r, "use_bidirectional_attention", false))
		refuse(r, "use_bidirectional_attention is not supported");
}

static void load_experts(struct reader *r, struct stave_shape *s)
{
	bool qwen = s->family == STAVE_QWEN3_MOE;
	s->experts = integer(r, qwen ? "num_experts" : "num_local_experts", qwen ? 128 : 8);
	s->experts_used = integer(r, "num_experts_per_tok", qwen ? 8 : 2);
	s->experts_norm = !qwen || truth(r, "norm_topk_prob", false);
	if (!qwen)
		return;
	s->I = integer(r, "moe_intermediate_size", 768);
	if (json_array_size(json_object_get(r->j, "mlp_only_layers")) || integer(r, "decoder_sparse_step", 1) != 1)
		refuse(r, "layers without experts (mlp_only_layers, decoder_sparse_step) are not supported");
}

/* The window of families that have one in every layer or in none. */
static void load_window(struct reader *r, struct stave_shape *s)
{
	bool always = s->family == STAVE_MISTRAL || s->family == STAVE_MIXTRAL || s->family == STAVE_PHI3;
	if (truth(r, "use_sliding_window", always))
		s->window = integer(r, "sliding_window", 0);
	if (s->window && always)
		load_layer_types(r, s);
	if (s->window && (!always || s->window_pattern))
		refuse(r, "sliding windows in some layers of a %s model are not supported", shape_model_types[s->family]);
}

static void load_llama(struct reader *r, struct stave_shape *s, struct shape_factors *f)
{
	bool gemma = s->family == STAVE_GEMMA2 || s->family == STAVE_GEMMA3;
	s->L = integer(r, "num_hidden_layers", 0);
	s->C = integer(r, "hidden_size", 0);
	s->H = integer(r, "num_attention_heads", gemma ? 8 : 0);
	s->K = integer(r, "num_key_value_heads", gemma ? 4 : s->H);
	s->D = integer(r, "head_dim", gemma ? 256 : s->H ? s->C / s->H : 0);
	s->I = integer(r, "intermediate_size", 0);
	s->T_max = integer(r, "max_position_embeddings", gemma ? 8192 : 2048);
	const char *key = gemma ? "hidden_activation" : "hidden_act", *act = stave_json_str(r->j, key, gemma ? "gelu_pytorch_tanh" : "silu");
	if (strcmp(act, gemma ? "gelu_pytorch_tanh" : "silu"))
		refuse(r, "%s '%.40s' is not supported; %s", key, act, gemma ? "gelu_pytorch_tanh" : "silu");
	s->norm_eps = (float)real(r, "rms_norm_eps", s->family == STAVE_PHI3 || s->family == STAVE_MIXTRAL ? 1e-5 : 1e-6);
	s->tied = truth(r, "tie_word_embeddings", gemma);
	bool bias = truth(r, "attention_bias", false);
	s->act = STAVE_SWIGLU;
	s->qk_norm = s->family == STAVE_QWEN3 || s->family == STAVE_QWEN3_MOE;
	s->qkv_bias = s->family == STAVE_QWEN2 || bias;
	s->out_bias = s->family != STAVE_QWEN2 && bias;
	s->mlp_bias = truth(r, "mlp_bias", false);
	if (gemma)
		load_gemma(r, s);
	else
		load_window(r, s);
	if (s->family == STAVE_MIXTRAL || s->family == STAVE_QWEN3_MOE)
		load_experts(r, s);
	load_rope(r, s, f);
}

/* ---- the document ---- */

/* Gemma 3 with images nests the language model's config. */
static const json_t *text_config(const json_t *j, const char *type)
{
	const json_t *inner = json_object_get(j, "text_config");
	return !strcmp(type, "gemma3") && json_is_object(inner) ? inner : j;
}

/* `train`: families that are run only are refused, before anything else is found wrong with them. */
static int read_document(struct stave_shape *s, struct shape_factors *f, bool train, const json_t *j, const char *path, struct stave_err *err)
{
	const char *type = stave_json_str(j, "model_type", "");
	struct reader r = {text_config(j, type), path, err, 0};
	for (int i = 0; i < STAVE_FAMILIES; i++)
		if (!strcmp(type, shape_model_types[i]))
			s->family = (enum stave_family)i;
	if (!strcmp(type, "gemma3"))
		s->family = STAVE_GEMMA3;
	if (s->family == STAVE_FAMILIES)
		return stave_err_set(err, STAVE_ECONFIG, "%s: model_type '%.40s' is not supported; gpt2, llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3, mixtral, qwen3_moe or bert",
		                     path, type);
	if (train && !stave_family_trains(s->family))
		return stave_err_set(err, STAVE_ECONFIG, "%s: a %s model can be run but not trained; gpt2, llama, mistral, qwen2 and qwen3 can be", path, type);
	if (json_object_get(j, "quantization_config") && !json_is_null(json_object_get(j, "quantization_config")))
		return stave_err_set(err, STAVE_ECONFIG, "%s: quantized Hugging Face weights are not supported", path);
	s->V = integer(&r, "vocab_size", s->family == STAVE_GEMMA3 ? 262208 : 0);
	if (s->family == STAVE_GPT2)
		load_gpt2(&r, s);
	else if (s->family == STAVE_BERT)
		load_bert(&r, s);
	else
		load_llama(&r, s, f);
	return r.rc ? r.rc : stave_shape_check(s, err);
}

static int load(struct stave_shape *s, struct shape_factors *f, bool train, const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH];
	json_t *j = NULL;
	struct stave_shape out = {.family = STAVE_FAMILIES};
	struct shape_factors factors = {0};
	int rc = stave_path(path, dir, "config.json", err);
	if (rc || (rc = stave_json_load(&j, path, 1 << 20, err)))
		return rc;
	rc = read_document(&out, &factors, train, j, path, err);
	json_decref(j);
	if (!rc && train && (factors.n || out.rope_dims || out.rope_mscale > 0))
		rc = stave_err_set(err, STAVE_ECONFIG, "%s: longrope and partial rotary positions can be run but not trained", path);
	if (rc) {
		shape_factors_free(&factors);
		return rc;
	}
	*s = out;
	*f = factors;
	return 0;
}

int shape_from_json(struct stave_shape *s, struct shape_factors *f, const char *dir, struct stave_err *err) { return load(s, f, false, dir, err); }

int stave_shape_load(struct stave_shape *s, const char *dir, struct stave_err *err)
{
	struct shape_factors none;
	return load(s, &none, true, dir, err);
}
