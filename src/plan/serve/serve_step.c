/* One iteration of an inference engine, in seconds, and what of a device's memory its cache may have.
 *
 * An iteration is a row of kernels, so its parts add up: products (the larger of streaming the weights and multiplying, smoothed), attention of the
 * decoding sequences (the larger of reading the cache and multiplying), attention of prompts, activations moved, collectives, launches. Roofline terms
 * follow Williams 2009; counts of flops and bytes per layer are those of Kaplan 2020 and Shazeer 2019 (grouped keys and values); the share of experts
 * a batch touches is 1 - (1 - k/E)^tokens (independent, even routing); all-reduce moves 2 (t-1)/t of its bytes (Patarasuk 2009). Latent attention is
 * counted as DeepSeek-V2 (arXiv 2405.04434, section 2.1) does it: absorbed when decoding, plain in prompts.
 *
 * Only rates divide, so more bandwidth, flop/s or link never makes an iteration longer. */
#include "plan/serve/serve_parts.h"

#include <math.h>

enum {
	LATENT_ROPE = 64, /* of the cached values, those that carry position */
	CONTEXT_BYTES = 1500000000, /* driver, libraries and captured graphs on an accelerator */
};

double plan_weight_bytes(enum plan_precision p)
{
	/* four-bit formats carry a scale per 16 or 32 values */
	static const double bytes[PLAN_PRECISIONS] = {[PLAN_F32] = 4, [PLAN_BF16] = 2, [PLAN_FP8] = 1, [PLAN_FP4] = 0.5625, [PLAN_I8] = 1.0625, [PLAN_I4] = 0.5625};
	return bytes[p];
}

/* ---- shape ---- */

static double attention_params(const struct stave_shape *s)
{
	return (double)s->C * ((double)s->H + 2.0 * s->K) * s->D + (double)s->H * s->D * s->C;
}

static double block_params(const struct stave_shape *s)
{
	return (stave_act_gated(s->act) ? 3.0 : 2.0) * s->C * s->I;
}

/* Layers whose attention sees all; the others see a window. */
static double open_layers(const struct stave_shape *s)
{
	if (s->window == 0)
		return s->L;
	return s->window_pattern ? (double)s->L / s->window_pattern : 0;
}

static double groups_of(const struct plan_replica *r) { return r->ep > r->tp ? (double)r->ep / r->tp : 1; }

int plan_replica_devices(const struct plan_replica *r)
{
	return r->pp * (r->ep > r->tp ? r->ep : r->tp);
}

/* Cached values of a token and layer; latent ones are the same on every device, heads are shared out. */
static double cached_values(const struct plan_replica *r) { return r->latent ? r->latent : 2.0 * r->shape.K * r->shape.D; }
static double cached_values_device(const struct plan_replica *r)
{
	return r->latent ? r->latent : 2.0 * r->shape.K * r->shape.D / fmin(r->tp, r->shape.K);
}

/* ---- rates ---- */

/* The arithmetic that products of these weights run in: their own when the device has it, else 16 bit (weights are widened on the way), else 32. */
static enum plan_precision arithmetic(const struct plan_accelerator *a, enum plan_precision weights)
{
	if (weights == PLAN_FP4 && a->peak[PLAN_FP4] > 0)
		return PLAN_FP4;
	if ((weights == PLAN_FP8 || weights == PLAN_I8) && a->peak[weights] > 0)
		return weights;
	if (weights != PLAN_F32 && a->peak[PLAN_BF16] > 0)
		return PLAN_BF16;
	return a->peak[PLAN_F32] > 0 ? PLAN_F32 : PLAN_BF16;
}

static double product_rate(const struct plan_replica *r, enum plan_precision weights)
{
	const double *k = r->fit->k;
	enum plan_precision p = arithmetic(r->accelerator, weights);
	double share = p == PLAN_F32 || p == PLAN_BF16 ? k[PLAN_SERVE_PRODUCT] : k[PLAN_SERVE_NARROW];
	return fmax(r->accelerator->peak[p], 1e6) * share;
}

/* What products of weights reach whose own arithmetic the device lacks (4 bit on most, 8 bit on older ones): they are widened on the way. */
static double widening(const struct plan_replica *r, enum plan_precision weights, enum plan_serve_constant k)
{
	enum plan_precision p = arithmetic(r->accelerator, weights);
	return plan_weight_bytes(weights) < fmin(plan_weight_bytes(p), 2) - 0.25 ? r->fit->k[k] : 1;
}

/* Mixture models of fewer than 8 bits keep attention in 16. */
static enum plan_precision attention_precision(const struct plan_replica *r)
{
	return r->shape.experts && plan_weight_bytes(r->weights) < 1 ? PLAN_BF16 : r->weights;
}

/* Bytes/s between the devices of a replica: their link while one domain holds them all, else what leaves a node. */
static double link_rate(const struct plan_replica *r)
{
	const struct plan_accelerator *a = r->accelerator;
	int devices = r->ep > r->tp ? r->ep : r->tp;
	double out = r->nic_bytes_s > 0 ? r->nic_bytes_s : a->host_bytes_s;
	double rate = a->link_bytes_s > 0 && devices <= (a->link_domain > 1 ? a->link_domain : 1) ? a->link_bytes_s : out;
	return fmax(rate, 1e8);
}

static void init_rates(struct plan_serve_model *m, const struct plan_replica *r)
{
	const double *k = r->fit->k;
	double widen = widening(r, attention_precision(r), PLAN_SERVE_WIDEN), widen_experts = widening(r, r->weights, PLAN_SERVE_WIDEN_EXPERT);
	m->rate = product_rate(r, attention_precision(r)) * widen;
	m->rate_experts = product_rate(r, r->weights) * k[PLAN_SERVE_EXPERT] * widen_experts;
	double bandwidth = fmax(r->accelerator->memory_bytes_s, 1e6);
	m->bandwidth = bandwidth * k[PLAN_SERVE_WEIGHTS] * widen;
	m->bandwidth_experts = bandwidth * k[PLAN_SERVE_WEIGHTS] * k[PLAN_SERVE_EXPERT] * widen_experts;
	m->bandwidth_elements = bandwidth * k[PLAN_SERVE_WEIGHTS];
	m->bandwidth_cache = bandwidth * k[PLAN_SERVE_CACHE];
	double peak = r->accelerator->peak[PLAN_BF16] > 0 ? r->accelerator->peak[PLAN_BF16] : r->accelerator->peak[PLAN_F32];
	m->attention_rate = fmax(peak, 1e6) * k[PLAN_SERVE_ATTENTION];
	m->link = link_rate(r) * k[PLAN_SERVE_LINK];
}

static void init_products(struct plan_serve_model *m, const struct plan_replica *r)
{
	const struct stave_shape *s = &r->shape;
	double always = s->L * (attention_params(s) + (s->experts ? 0 : block_params(s))), block = s->L * block_params(s);
	m->layer_bytes = always * plan_weight_bytes(attention_precision(r)) / r->tp;
	m->token_flops = 2 * always / r->tp;
	m->head_bytes = 2.0 * s->V * s->C / r->tp;
	m->head_flops = 2.0 * s->V * s->C / r->tp;
	m->experts = s->experts;
	m->experts_used = s->experts_used;
	m->expert_bytes = s->experts * block * plan_weight_bytes(r->weights) / (r->tp * m->groups);
	m->expert_flops = 2 * s->experts_used * block / (r->tp * m->groups);
	double width = 2 * ((double)s->H + 2.0 * s->K) * s->D + 3.0 * s->I * (s->experts ? s->experts_used : 1);
	m->element_bytes = 2 * s->L * (8.0 * s->C + width / r->tp);
}

static void init_attention(struct plan_serve_model *m, const struct plan_replica *r)
{
	const struct stave_shape *s = &r->shape;
	double open = open_layers(s), narrow = s->L - open, value = plan_weight_bytes(r->kv);
	double heads = (double)s->H / r->tp;
	double decode = r->latent ? 2 * heads * (2.0 * r->latent - LATENT_ROPE) : 4 * heads * s->D;
	/* plain latent attention: heads of 2/3 nope and 1/3 rope as published, 192 and 128 wide for 576 cached values */
	double pair = r->latent ? 2 * heads * (r->latent / 3.0 + (r->latent - LATENT_ROPE) / 4.0) : 4 * heads * s->D;
	m->cache_bytes = open * cached_values_device(r) * value;
	m->cache_window_bytes = narrow * cached_values_device(r) * value;
	m->decode_flops = open * decode;
	m->decode_window_flops = narrow * decode;
	m->pair_flops = open * pair;
	m->pair_window_flops = narrow * pair;
	m->window = s->window;
}

/* Two all-reduces a layer over tp; with data-parallel attention the experts' one becomes two all-to-alls over ep (out in 8 bit when weights are
 * narrow, back in 16). */
static void init_collectives(struct plan_serve_model *m, const struct plan_replica *r)
{
	const struct stave_shape *s = &r->shape;
	double t = r->tp, e = r->ep;
	bool spread = m->groups > 1;
	m->reduces = t > 1 ? (spread ? 1.0 : 2.0) * s->L : 0;
	m->reduce_bytes = m->reduces * 2.0 * s->C * 2 * (t - 1) / t;
	/* a ring or tree of more devices has more steps: log2 from two devices on */
	m->reduce_s = r->fit->k[PLAN_SERVE_REDUCE] * log2(2 * fmax(t, 2)) / 2;
	m->shuffles = spread && s->experts ? 2.0 * s->L : 0;
	double copies = fmin(s->experts_used, e) * (e - 1) / e;
	m->shuffle_bytes = m->shuffles / 2 * s->C * copies * ((plan_weight_bytes(r->weights) <= 1.0625 ? 1 : 2) + 2);
}

/* Kernels of a layer: two norms, four products, rotation, attention, activation; quantizing the inputs of four products; norms of queries and keys;
 * choosing, sorting, gathering and combining of experts. */
static double kernels(const struct plan_replica *r)
{
	enum plan_precision p = arithmetic(r->accelerator, attention_precision(r));
	bool narrow = p != PLAN_F32 && p != PLAN_BF16;
	return 9 + (narrow ? 4 : 0) + (r->shape.qk_norm ? 2 : 0) + (r->shape.sandwich ? 2 : 0) + (r->shape.experts ? 6 : 0);
}

void plan_serve_model_init(struct plan_serve_model *m, const struct plan_replica *r)
{
	*m = (struct plan_serve_model){.stages = r->pp, .groups = groups_of(r)};
	m->fullest = 1 + r->fit->k[PLAN_SERVE_IMBALANCE] * log2(m->groups);
	init_rates(m, r);
	init_products(m, r);
	init_attention(m, r);
	init_collectives(m, r);
	const double *k = r->fit->k;
	m->launch_s = r->shape.L * kernels(r) * k[PLAN_SERVE_KERNEL] + k[PLAN_SERVE_ITERATION] + (r->pp - 1) * k[PLAN_SERVE_REDUCE];
	m->sequence_s = k[PLAN_SERVE_SEQUENCE];
}

/* ---- one iteration ---- */

/* Neither of two overlapping times hides the other wholly near their crossing. Adds (a^4 + b^4)^(1/4), shared out by their fourth powers. */
static void add_smooth_max(double a, double b, double *to_a, double *to_b)
{
	double a4 = a * a * a * a, b4 = b * b * b * b, sum = a4 + b4;
	if (!(sum > 0))
		return;
	double t = sqrt(sqrt(sum));
	*to_a += t * (a4 / sum);
	*to_b += t * (b4 / sum);
}

static double per_device(double n, double parts) { return n > 0 ? fmax(n / parts, fmin(n, 1)) : 0; }

void plan_serve_iteration(const struct plan_serve_model *m, const struct plan_work *w, struct plan_parts *out)
{
	/* a pipeline works on `stages` micro-batches at once, each of which visits every layer: one of them gives the time */
	double parts = m->stages * fmax(1, m->groups / m->fullest);
	double decode = per_device(w->decode, parts), prefill = per_device(w->prefill, parts);
	double share = w->prefill > 0 ? prefill / w->prefill : 0, tokens = decode + prefill, all = per_device(w->decode + w->prefill, m->stages);
	double seen = fmin(w->context, m->window), pairs = w->pairs * share, narrow = fmin(pairs, prefill * m->window);
	*out = (struct plan_parts){0};
	add_smooth_max(m->layer_bytes / m->bandwidth, tokens * m->token_flops / m->rate, &out->weights, &out->flops);
	double heads = decode + per_device(w->firsts, parts);
	add_smooth_max(heads > 0 ? m->head_bytes / m->bandwidth_elements : 0, heads * m->head_flops / m->rate, &out->weights, &out->flops);
	if (m->experts > 0) {
		double touched = -expm1(all * log1p(-fmin(m->experts_used / m->experts, 1 - 1e-12)));
		add_smooth_max(touched * m->expert_bytes / m->bandwidth_experts, all * m->fullest * m->expert_flops / m->rate_experts, &out->weights, &out->flops);
	}
	add_smooth_max(decode * (w->context * m->cache_bytes + seen * m->cache_window_bytes) / m->bandwidth_cache,
	               decode * (w->context * m->decode_flops + seen * m->decode_window_flops) / m->attention_rate, &out->cache, &out->flops);
	out->flops += (pairs * m->pair_flops + narrow * m->pair_window_flops) / m->attention_rate + tokens * m->element_bytes / m->bandwidth_elements;
	out->launch = m->launch_s + w->decode * m->sequence_s;
	out->comm = (m->reduces + m->shuffles) * m->reduce_s + tokens * (m->reduce_bytes + m->shuffle_bytes) / m->link;
}

double plan_iteration_s(const struct plan_replica *r, int decode, double context, int prefill, double past)
{
	struct plan_serve_model m;
	struct plan_parts parts;
	plan_serve_model_init(&m, r);
	struct plan_work w = {.decode = decode, .context = context, .prefill = prefill, .pairs = prefill * (past + (prefill + 1) / 2.0), .firsts = prefill > 0};
	plan_serve_iteration(&m, &w, &parts);
	return plan_parts_sum(&parts);
}

/* ---- memory ---- */

double plan_serve_cache_bytes(const struct plan_replica *r, double tokens)
{
	double open = open_layers(&r->shape), values = cached_values(r) * plan_weight_bytes(r->kv);
	return values * (open * tokens + (r->shape.L - open) * fmin(tokens, r->shape.window));
}

static double weights_bytes(const struct plan_replica *r)
{
	const struct stave_shape *s = &r->shape;
	double layer = attention_params(s) * plan_weight_bytes(attention_precision(r)) / r->tp;
	if (s->experts)
		layer += (double)s->experts * block_params(s) * plan_weight_bytes(r->weights) / (r->tp * groups_of(r));
	else
		layer += block_params(s) * plan_weight_bytes(r->weights) / r->tp;
	/* the fullest stage of a pipeline: its layers rounded up, and the larger of embedding and classifier */
	double tables = s->tied || r->pp > 1 ? 1 : 2;
	return ceil((double)s->L / r->pp) * layer + tables * 2.0 * s->V * s->C / r->tp;
}

/* The widest activations of one iteration, in and out of a block, and the logits of every sequence in 32 bit. */
static double activation_bytes(const struct plan_replica *r)
{
	const struct stave_shape *s = &r->shape;
	double chunk = r->chunk > 0 ? r->chunk : r->fit->engine.chunk, tokens = chunk / groups_of(r);
	double width = 6.0 * s->C + (((double)s->H + 2.0 * s->K) * s->D + 3.0 * s->I * (s->experts ? s->experts_used : 1)) / r->tp;
	double batch = r->max_batch > 0 ? r->max_batch : r->fit->engine.max_batch;
	double own = r->accelerator->cpu ? 0 : fmin(CONTEXT_BYTES, 0.05 * r->accelerator->memory_bytes);
	return 2 * tokens * width + 4.0 * fmin(batch, chunk) / groups_of(r) * s->V / r->tp + own;
}

void plan_serve_memory(const struct plan_replica *r, struct plan_serve_memory *out)
{
	double share = r->memory_share > 0 ? r->memory_share : r->fit->engine.memory_share, stages = r->pp;
	out->weights_bytes = weights_bytes(r);
	out->activation_bytes = activation_bytes(r);
	out->kv_bytes_per_token = cached_values(r) * plan_weight_bytes(r->kv) * r->shape.L;
	out->kv_bytes = fmax(0, r->accelerator->memory_bytes * share - out->weights_bytes - out->activation_bytes);
	/* layers with a window keep no more than that of a sequence: tokens are counted for sequences of 8192 */
	const double length = 8192;
	double device = cached_values_device(r) / cached_values(r) * plan_serve_cache_bytes(r, length) / length / stages;
	out->kv_tokens = groups_of(r) * out->kv_bytes / device;
}

double plan_serve_transfer_s(const struct plan_replica *r, double tokens)
{
	double rate = r->nic_bytes_s > 0 ? r->nic_bytes_s : fmax(r->accelerator->host_bytes_s, 1e8);
	return plan_serve_cache_bytes(r, tokens) / (rate * plan_replica_devices(r));
}
