/* Shapes from GGUF keys and back. Keys carry the architecture as a prefix. What the keys leave out follows from the architecture, as
 * every reader of the format assumes (gemma's local layers, its scale of q·k), or from which tensors are in the file
 * (biases, norms of heads, a classifier of its own). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/shape.h"

const char *shape_arch(enum stave_family f)
{
	static const char *const names[STAVE_FAMILIES] = {"gpt2", "llama", "llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "llama", "qwen3moe", "bert"};
	return names[f];
}

float shape_gemma_scale(const struct stave_shape *s)
{
	/* the 27B models of both generations scale by C / H, all others by the head width */
	bool big = s->L == (s->family == STAVE_GEMMA2 ? 46 : 62);
	return big ? (float)(1 / sqrt((double)s->C / s->H)) : 0;
}

/* ---- reading: the first error sticks, so that a list of keys reads as a list ---- */

struct reader {
	const struct stave_gguf *g;
	const char *arch;
	int layers; /* once known */
	struct stave_err *err;
	int rc;
};

static const char *key_of(char out[160], const struct reader *r, const char *name)
{
	snprintf(out, 160, "%.64s.%s", r->arch, name);
	return out;
}

/* `def` when absent, -1: it must be there. A per-layer array is accepted when all its values are the same. */
static int integer(struct reader *r, const char *name, int64_t def)
{
	char key[160];
	int64_t v = def, n;
	enum stave_gguf_type type;
	if (r->rc)
		return 0;
	if (stave_gguf_array(r->g, key_of(key, r, name), &type, &n)) {
		v = stave_gguf_array_int(r->g, key, 0);
		if (n < 1 || n != r->layers)
			r->rc = stave_err_set(r->err, STAVE_ECORRUPT, "%s has %lld entries for %d layers", key, (long long)n, r->layers);
		for (int64_t i = 1; !r->rc && i < n; i++)
			if (stave_gguf_array_int(r->g, key, i) != v)
				r->rc = stave_err_set(r->err, STAVE_ECONFIG, "%s differs between layers (%lld and %lld), which is not supported", key, (long long)v,
				                      (long long)stave_gguf_array_int(r->g, key, i));
	} else {
		int rc = stave_gguf_int(r->g, key, &v, r->err);
		if (rc < 0)
			r->rc = rc;
		else if (rc == 0 && def == -1)
			r->rc = stave_err_set(r->err, STAVE_ECORRUPT, "GGUF key %s is missing", key);
	}
	if (!r->rc && (v < 0 || v > INT32_MAX))
		r->rc = stave_err_set(r->err, STAVE_ECORRUPT, "GGUF key %s is %lld", key, (long long)v);
	return r->rc ? 0 : (int)v;
}

static double real(struct reader *r, const char *name, double def)
{
	char key[160];
	double v = def;
	if (r->rc)
		return def;
	int rc = stave_gguf_real(r->g, key_of(key, r, name), &v, r->err);
	if (rc < 0)
		r->rc = rc;
	if (rc == 0 && isnan(def))
		r->rc = stave_err_set(r->err, STAVE_ECORRUPT, "GGUF key %s is missing", key);
	return r->rc ? 0 : v;
}

static bool has(const struct reader *r, const char *tensor) { return stave_gguf_find(r->g, tensor) != NULL; }

/* Keys that change the arithmetic and that no family here uses. */
static void refuse_others(struct reader *r)
{
	static const struct {
		const char *name;
		double neutral;
	} keys[] = {{"logit_scale", 1}, {"embedding_scale", 1}, {"residual_scale", 1}, {"attention.scale", 0}, {"attention.clamp_kqv", 0}, {"attention.max_alibi_bias", 0},
	            {"expert_shared_count", 0}, {"expert_weights_scale", 1}, {"leading_dense_block_count", 0}, {"attention.q_lora_rank", 0}, {"attention.kv_lora_rank", 0},
	            {"expert_gating_func", 1}, {"expert_group_count", 0}, {"nextn_predict_layers", 0}};
	for (size_t i = 0; !r->rc && i < sizeof keys / sizeof *keys; i++) {
		double v = real(r, keys[i].name, keys[i].neutral);
		if (!r->rc && v != keys[i].neutral && v != 0)
			r->rc = stave_err_set(r->err, STAVE_ECONFIG, "%.64s.%s = %g is not supported", r->arch, keys[i].name, v);
	}
}

static void read_rope(struct reader *r, struct stave_shape *s)
{
	char key[160];
	s->rope_theta = real(r, "rope.freq_base", 10000);
	int dims = integer(r, "rope.dimension_count", s->D);
	s->rope_dims = dims == s->D ? 0 : dims;
	if (!r->rc && s->rope_dims && !strcmp(r->arch, "llama"))
		r->rc = stave_err_set(r->err, STAVE_ECONFIG, "llama.rope.dimension_count = %d of %d is not supported", dims, s->D);
	const char *type = stave_gguf_str(r->g, key_of(key, r, "rope.scaling.type"));
	double factor = real(r, "rope.scaling.factor", 0);
	if (r->rc)
		return;
	s->rope_original = integer(r, "rope.scaling.original_context_length", 0);
	if (type && !strcmp(type, "linear")) {
		s->rope_factor = factor ? factor : 1;
		s->rope_linear = true;
	} else if (type && strcmp(type, "none") && strcmp(type, "longrope")) {
		r->rc = stave_err_set(r->err, STAVE_ECONFIG, "%s = '%.40s' is not supported; none, linear or longrope", key, type);
	} else if (!type && factor > 0 && factor != 1) {
		s->rope_factor = factor; /* as readers have it: linear unless another type is named */
		s->rope_linear = true;
	}
	double mscale = real(r, "rope.scaling.attn_factor", 1);
	s->rope_mscale = mscale == 1 ? 0 : (float)mscale;
}

static void read_attention(struct reader *r, struct stave_shape *s)
{
	s->H = integer(r, "attention.head_count", -1);
	s->K = integer(r, "attention.head_count_kv", s->H);
	if (!r->rc && s->H < 1)
		r->rc = stave_err_set(r->err, STAVE_ECORRUPT, "%.64s.attention.head_count is %d", r->arch, s->H);
	if (r->rc)
		return;
	s->D = integer(r, "attention.key_length", s->C / s->H);
	int value = integer(r, "attention.value_length", s->D);
	if (!r->rc && value != s->D)
		r->rc = stave_err_set(r->err, STAVE_ECONFIG, "heads of %d for keys and %d for values are not supported", s->D, value);
}

static void read_experts(struct reader *r, struct stave_shape *s)
{
	char key[160];
	s->experts = integer(r, "expert_count", 0);
	if (r->rc || (!s->experts && s->family != STAVE_QWEN3_MOE))
		return;
	if (s->family == STAVE_LLAMA)
		s->family = STAVE_MIXTRAL;
	if (s->family != STAVE_MIXTRAL && s->family != STAVE_QWEN3_MOE)
		r->rc = stave_err_set(r->err, STAVE_ECONFIG, "experts in a model of architecture %.64s are not supported", r->arch);
	s->experts_used = integer(r, "expert_used_count", -1);
	s->I = integer(r, "expert_feed_forward_length", s->I);
	s->experts_norm = true; /* what readers do without the key */
	int rc = r->rc ? r->rc : stave_gguf_bool(r->g, key_of(key, r, "expert_weights_norm"), &s->experts_norm, r->err);
	if (rc < 0)
		r->rc = rc;
}

static void read_family(struct reader *r, struct stave_shape *s)
{
	bool gemma = s->family == STAVE_GEMMA2 || s->family == STAVE_GEMMA3;
	s->act = gemma ? STAVE_GEGLU : STAVE_SWIGLU;
	if (gemma) {
		s->sandwich = true;
		s->embed_scale = sqrtf((float)s->C);
		s->attn_scale = shape_gemma_scale(s);
		s->window = integer(r, "attention.sliding_window", s->family == STAVE_GEMMA2 ? 4096 : 0);
		s->window_pattern = s->window ? integer(r, "attention.sliding_window_pattern", s->family == STAVE_GEMMA2 ? 2 : 6) : 0;
		s->attn_softcap = (float)real(r, "attn_logit_softcapping", s->family == STAVE_GEMMA2 ? 50 : 0);
		s->final_softcap = (float)real(r, "final_logit_softcapping", s->family == STAVE_GEMMA2 ? 30 : 0);
		s->rope_local = s->family == STAVE_GEMMA3 && s->window ? real(r, "rope.freq_base_swa", 10000) : 0;
	} else if (s->family == STAVE_GPT2 || s->family == STAVE_BERT) {
		s->act = s->family == STAVE_GPT2 ? STAVE_GELU_TANH : STAVE_GELU_EXACT;
		s->layernorm = s->learned_pos = true;
		s->norm_bias = has(r, s->family == STAVE_BERT ? "token_embd_norm.bias" : "output_norm.bias");
		s->encoder = s->family == STAVE_BERT;
	} else {
		s->window = integer(r, "attention.sliding_window", 0);
		if (s->window && s->family == STAVE_LLAMA)
			s->family = STAVE_MISTRAL;
		if (!r->rc && s->window && (s->family == STAVE_QWEN2 || s->family == STAVE_QWEN3 || s->family == STAVE_QWEN3_MOE))
			r->rc = stave_err_set(r->err, STAVE_ECONFIG, "%.64s.attention.sliding_window is not supported", r->arch);
	}
}

/* What is in the file beyond the keys. */
static void read_tensors(struct reader *r, struct stave_shape *s)
{
	bool fused = s->family == STAVE_GPT2 || s->family == STAVE_PHI3;
	const struct stave_gguf_tensor *embed = stave_gguf_find(r->g, "token_embd.weight"), *types = stave_gguf_find(r->g, "token_types.weight");
	if (!r->rc && (!embed || embed->ne[1] > INT32_MAX))
		r->rc = stave_err_set(r->err, STAVE_ECORRUPT, "tensor token_embd.weight is missing");
	if (r->rc)
		return;
	s->V = (int)embed->ne[1];
	s->token_types = s->encoder && types && types->ne[1] <= INT32_MAX ? (int)types->ne[1] : 0;
	s->tied = !has(r, "output.weight");
	s->qkv_bias = has(r, fused ? "blk.0.attn_qkv.bias" : "blk.0.attn_q.bias");
	s->out_bias = has(r, "blk.0.attn_output.bias");
	s->mlp_bias = has(r, "blk.0.ffn_down.bias");
	s->qk_norm = has(r, "blk.0.attn_q_norm.weight");
}

int shape_from_gguf(struct stave_shape *out, const struct stave_gguf *g, struct stave_err *err)
{
	const char *arch = stave_gguf_str(g, "general.architecture"), *kind = stave_gguf_str(g, "general.type");
	if (!arch)
		return stave_err_set(err, STAVE_ECORRUPT, "the GGUF file names no general.architecture");
	if (kind && strcmp(kind, "model"))
		return stave_err_set(err, STAVE_ECONFIG, "the GGUF file is of type '%.40s'; a model is wanted", kind);
	struct stave_shape s = {.family = STAVE_FAMILIES};
	for (int f = STAVE_FAMILIES - 1; f >= 0; f--) /* downwards: llama before those that share its name */
		if (!strcmp(arch, shape_arch((enum stave_family)f)))
			s.family = (enum stave_family)f;
	if (s.family == STAVE_FAMILIES)
		return stave_err_set(err, STAVE_ECONFIG, "architecture '%.64s' is not supported; gpt2, llama (mistral, mixtral), qwen2, qwen3, qwen3moe, gemma2, gemma3, phi3 or bert", arch);
	struct reader r = {.g = g, .arch = arch, .err = err};
	s.L = r.layers = integer(&r, "block_count", -1);
	s.T_max = integer(&r, "context_length", -1);
	s.C = integer(&r, "embedding_length", -1);
	s.I = integer(&r, "feed_forward_length", s.family == STAVE_QWEN3_MOE ? 0 : -1);
	read_attention(&r, &s);
	read_experts(&r, &s);
	read_family(&r, &s);
	if (!s.learned_pos)
		read_rope(&r, &s);
	s.norm_eps = (float)real(&r, s.layernorm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", (double)NAN);
	refuse_others(&r);
	read_tensors(&r, &s);
	if (r.rc || (r.rc = stave_shape_check(&s, err)))
		return r.rc;
	*out = s;
	return 0;
}

/* ---- writing ---- */

static void put_int(struct stave_gguf_writer *w, const char *arch, const char *name, int v)
{
	char key[160];
	snprintf(key, sizeof key, "%s.%s", arch, name);
	stave_gguf_put_u32(w, key, (uint32_t)v);
}

static void put_real(struct stave_gguf_writer *w, const char *arch, const char *name, double v)
{
	char key[160];
	snprintf(key, sizeof key, "%s.%s", arch, name);
	stave_gguf_put_f32(w, key, (float)v);
}

static void put_text(struct stave_gguf_writer *w, const char *arch, const char *name, const char *v)
{
	char key[160];
	snprintf(key, sizeof key, "%s.%s", arch, name);
	stave_gguf_put_str(w, key, v, strlen(v));
}

/* What others would compute otherwise than this shape says, because GGUF has no word for it. */
static const char *unsayable(const struct stave_shape *s)
{
	bool gemma = s->family == STAVE_GEMMA2 || s->family == STAVE_GEMMA3, llama = !strcmp(shape_arch(s->family), "llama");
	float scale = shape_gemma_scale(s);
	if (gemma && s->attn_scale != scale && fabsf(s->attn_scale - (scale > 0 ? scale : 1 / sqrtf((float)s->D))) > 1e-6f)
		return "query_pre_attn_scalar of this value";
	if (gemma && s->embed_scale > 0 && fabsf(s->embed_scale - sqrtf((float)s->C)) > 1e-3f)
		return "an embedding scale other than the root of the width";
	if (gemma && s->window_pattern != (s->family == STAVE_GEMMA2 ? 2 : 6))
		return "local and global layers in this pattern";
	if (s->family == STAVE_GEMMA3 && s->rope_local > 0 && s->rope_local != 10000)
		return "rope_local_base_freq other than 10000";
	if (!gemma && (s->attn_scale > 0 || s->attn_softcap > 0 || s->embed_scale > 0))
		return "scaled attention or embeddings";
	if (s->family == STAVE_GPT2 && (s->act != STAVE_GELU_TANH || !s->norm_bias))
		return "a gpt2 model without biases or with exact GELU";
	if (s->family == STAVE_BERT && s->act != STAVE_GELU_EXACT)
		return "a bert model with an approximate GELU";
	if (s->family != STAVE_QWEN2 && !llama && !s->layernorm && s->qkv_bias)
		return "attention_bias in this family";
	if (!llama && !s->layernorm && (s->out_bias || s->mlp_bias))
		return "biases of the attention's output or the feed-forward";
	if (s->experts && !s->experts_norm)
		return "experts whose weights are not normalised (norm_topk_prob false)";
	if (s->family == STAVE_QWEN2 && s->rope_factor > 0 && !s->rope_linear)
		return "llama3 rope scaling in this family";
	return NULL;
}

static void put_rope(const struct stave_shape *s, const struct shape_factors *f, const char *arch, struct stave_gguf_writer *w)
{
	put_real(w, arch, "rope.freq_base", s->rope_theta);
	put_int(w, arch, "rope.dimension_count", s->rope_dims ? s->rope_dims : s->D);
	if (s->rope_factor > 0 && s->rope_linear) {
		put_text(w, arch, "rope.scaling.type", "linear");
		put_real(w, arch, "rope.scaling.factor", s->rope_factor);
	}
	if (f && f->n && f->far != f->near) {
		put_int(w, arch, "rope.scaling.original_context_length", f->original);
		put_real(w, arch, "rope.scaling.attn_factor", s->rope_mscale > 0 ? (double)s->rope_mscale : 1);
	}
}

static void put_family(const struct stave_shape *s, const char *arch, struct stave_gguf_writer *w)
{
	char key[160];
	if (s->window)
		put_int(w, arch, "attention.sliding_window", s->window);
	if (s->attn_softcap > 0)
		put_real(w, arch, "attn_logit_softcapping", (double)s->attn_softcap);
	if (s->final_softcap > 0)
		put_real(w, arch, "final_logit_softcapping", (double)s->final_softcap);
	if (s->experts) {
		put_int(w, arch, "expert_count", s->experts);
		put_int(w, arch, "expert_used_count", s->experts_used);
	}
	if (s->family == STAVE_QWEN3_MOE)
		put_int(w, arch, "expert_feed_forward_length", s->I);
	if (!s->encoder)
		return;
	snprintf(key, sizeof key, "%s.attention.causal", arch);
	stave_gguf_put_bool(w, key, false);
	stave_gguf_put_u32(w, "tokenizer.ggml.token_type_count", (uint32_t)s->token_types);
}

int shape_to_gguf(const struct stave_shape *s, const struct shape_factors *f, struct stave_gguf_writer *w, struct stave_err *err)
{
	const char *arch = shape_arch(s->family), *what = unsayable(s);
	if (what)
		return stave_err_set(err, STAVE_ECONFIG, "GGUF cannot say: %s (%s)", what, shape_model_types[s->family]);
	stave_gguf_put_str(w, "general.architecture", arch, strlen(arch));
	stave_gguf_put_str(w, "general.type", "model", 5);
	put_int(w, arch, "block_count", s->L);
	put_int(w, arch, "context_length", s->T_max);
	put_int(w, arch, "embedding_length", s->C);
	put_int(w, arch, "feed_forward_length", s->I);
	put_int(w, arch, "vocab_size", s->V);
	put_int(w, arch, "attention.head_count", s->H);
	put_int(w, arch, "attention.head_count_kv", s->K);
	if (!s->learned_pos) {
		put_int(w, arch, "attention.key_length", s->D);
		put_int(w, arch, "attention.value_length", s->D);
		put_rope(s, f, arch, w);
	}
	put_real(w, arch, s->layernorm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", (double)s->norm_eps);
	put_family(s, arch, w);
	return 0;
}
