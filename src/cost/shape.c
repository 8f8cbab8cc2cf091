/* The shape of a model: its bounds, how many parameters it has, and the flops a trained token is worth.
 *
 * Bounds come first because a shape is read from a file somebody else wrote: within them every product of a few fields
 * fits int64, so no later computation needs to ask again. They leave two orders of magnitude above the largest dense
 * models published. */
#include "cost/cost.h"

#include <math.h>

struct bound {
	const char *what;
	int64_t value, max;
};

static int check_counts(const struct stave_shape *s, struct stave_err *err)
{
	const struct bound bounds[] = {
		{"layers", s->L, 1024},         {"channels", s->C, 65536},  {"query heads", s->H, 1024},
		{"key/value heads", s->K, 1024}, {"head width", s->D, 1024}, {"feed-forward width", s->I, 1 << 20},
		{"vocabulary", s->V, 1 << 22},  {"context length", s->T_max, 1 << 24},
		{"experts", s->experts ? s->experts : 1, 1024}, {"experts used", s->experts ? s->experts_used : 1, s->experts ? s->experts : 1},
		{"token types", s->encoder ? s->token_types : 1, 1024},
	};
	for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
		if (bounds[i].value < 1 || bounds[i].value > bounds[i].max)
			return stave_err_set(err, STAVE_ECONFIG, "model shape: %s is %lld; expected 1 to %lld", bounds[i].what,
			                     (long long)bounds[i].value, (long long)bounds[i].max);
	if (s->H % s->K)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: %d query heads cannot share %d key/value heads evenly", s->H, s->K);
	if (!s->learned_pos && s->D % 2)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: rotary positions need an even head width, not %d", s->D);
	if (s->window < 0 || s->window_pattern < 0 || (s->window_pattern && !s->window))
		return stave_err_set(err, STAVE_ECONFIG, "model shape: attention window is %d in a pattern of %d layers; expected 0 (none) or more", s->window,
		                     s->window_pattern);
	if (s->encoder && !s->learned_pos)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: an encoder needs learned positions");
	return 0;
}

static bool within(double x, double low, double high) { return isfinite(x) && x >= low && x <= high; }

static int check_rope(const struct stave_shape *s, struct stave_err *err)
{
	if (s->learned_pos)
		return 0;
	if (!within(s->rope_theta, 1, 1e12))
		return stave_err_set(err, STAVE_ECONFIG, "model shape: rope_theta is %g; expected 1 to 1e12", s->rope_theta);
	if (s->rope_local != 0 && !within(s->rope_local, 1, 1e12))
		return stave_err_set(err, STAVE_ECONFIG, "model shape: rope_theta of the local layers is %g; expected 1 to 1e12", s->rope_local);
	if (s->rope_dims < 0 || s->rope_dims > s->D || s->rope_dims % 2)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: %d rotary dimensions of %d; expected an even number of them", s->rope_dims, s->D);
	if (!within((double)s->rope_mscale, 0, 100))
		return stave_err_set(err, STAVE_ECONFIG, "model shape: the scale of the rotation is %g; expected 0 to 100", (double)s->rope_mscale);
	if (s->rope_factor == 0)
		return 0;
	if (!within(s->rope_factor, 1, 1e6))
		return stave_err_set(err, STAVE_ECONFIG, "model shape: rope scaling factor is %g; expected 1 to 1e6", s->rope_factor);
	if (s->rope_linear)
		return 0;
	if (!within(s->rope_low, 1e-6, 1e6) || !within(s->rope_high, 1e-6, 1e6) || s->rope_high <= s->rope_low)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: rope scaling needs 0 < low_freq_factor < high_freq_factor, not %g and %g",
		                     s->rope_low, s->rope_high);
	if (s->rope_original < 1)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: rope scaling needs original_max_position_embeddings of 1 or more, not %d",
		                     s->rope_original);
	return 0;
}

static int check_scales(const struct stave_shape *s, struct stave_err *err)
{
	const struct {
		const char *what;
		float value;
	} scales[] = {{"scale of q.k", s->attn_scale}, {"soft cap of attention", s->attn_softcap}, {"soft cap of the logits", s->final_softcap},
	              {"scale of the embedding", s->embed_scale}};
	for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
		if (!within((double)scales[i].value, 0, 1e6))
			return stave_err_set(err, STAVE_ECONFIG, "model shape: the %s is %g; expected 0 (none) to 1e6", scales[i].what, (double)scales[i].value);
	return 0;
}

int stave_shape_check(const struct stave_shape *s, struct stave_err *err)
{
	int rc;
	if ((rc = check_counts(s, err)) || (rc = check_rope(s, err)) || (rc = check_scales(s, err)))
		return rc;
	if ((int)s->family < 0 || s->family >= STAVE_FAMILIES)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: unknown family number %d", (int)s->family);
	if ((int)s->act < 0 || s->act > STAVE_GEGLU)
		return stave_err_set(err, STAVE_ECONFIG, "model shape: unknown activation number %d", (int)s->act);
	if (!within(s->norm_eps, 0, 1))
		return stave_err_set(err, STAVE_ECONFIG, "model shape: norm epsilon is %g; expected 0 to 1", (double)s->norm_eps);
	return 0;
}

/* Feed-forward parameters of a layer: one block of matrices, or a router and one block per expert. */
static int64_t feed_forward_params(const struct stave_shape *s)
{
	int64_t C = s->C, I = s->I, up = stave_act_gated(s->act) ? 2 * I : I, block = up * C + C * I;
	if (s->mlp_bias)
		block += up + C;
	return s->experts ? s->experts * (C + block) : block;
}

/* Each term is one tensor. An encoder has a norm after the embedding instead of the last one, and no classifier. */
int64_t stave_shape_params(const struct stave_shape *s)
{
	int64_t C = s->C, q = (int64_t)s->H * s->D, qkv = ((int64_t)s->H + 2 * (int64_t)s->K) * s->D;
	int64_t norm = s->layernorm && s->norm_bias ? 2 * C : C;
	int64_t layer = (s->sandwich ? 4 : 2) * norm + qkv * C + C * q + feed_forward_params(s);
	if (s->qkv_bias)
		layer += qkv;
	if (s->qk_norm)
		layer += 2 * (int64_t)s->D;
	if (s->out_bias)
		layer += C;
	int64_t embedding = (int64_t)s->V * C, looked_up = (s->learned_pos ? s->T_max * C : 0) + s->token_types * C;
	return embedding + looked_up + s->L * layer + norm + (s->tied || s->encoder ? 0 : embedding);
}

/* N leaves out what is only looked up and never multiplied: learned positions, and an embedding that is not also the
 * classifier. Counting those would credit a run with work it does not do (31 % of a 124M model with an untied head). */
double stave_train_flops_per_token(const struct stave_shape *s, int T)
{
	double n = (double)stave_shape_params(s);
	if (s->learned_pos)
		n -= (double)s->T_max * s->C;
	if (!s->tied)
		n -= (double)s->V * s->C;
	return 6 * n + 12.0 * s->L * s->H * s->D * T;
}
