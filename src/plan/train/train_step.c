/* The time of one optimizer step, in closed form.
 *
 * A layer is priced operation by operation (planner's reference d.1): a matrix product takes flops / (peak x share) plus the part of its memory
 * traffic that does not hide under the arithmetic plus a constant; element operations move bytes; attention is one fused kernel or two products and a
 * softmax in memory. Launching twenty operations a layer is a floor, joined smoothly (the fourth root of a sum of fourth powers), since a processor that
 * issues work runs beside the device. Stages, micro-batches, the bubble (Narayanan et al. 2021, section 2.2), weight gathers, gradient reduction and the
 * optimizer follow. The slowest stage sets the pace: the fullest one, or the last one with the classifier.
 *
 * Invariants: the parts sum to the total; each term is finite and falls, or stays, when a rate of the machine rises. */
#include <math.h>
#include <string.h>

#include "plan/train/train_parts.h"

#define ACTIVATION_BYTES 2.0 /* of a value between operations: bf16 */
#define LAUNCHES 20.0        /* operations of a layer, forward */
#define BACKWARD_LAUNCHES 1.6 /* times as many backward */
#define BACKWARD_FUSED 2.5   /* fused attention multiplies five matrices backward for two forward */
#define OPTIMIZER_BYTES 30.0 /* Adam in mixed precision: reads p, m, v, g, writes p, m, v in 4 bytes and p in 2 */
#define ACCUMULATE_BYTES 6.0 /* adding a micro-batch's gradient to the sum */
#define EMBED_BYTES 8.0      /* per value of the embedding's output, both passes */

/* ---- validity ---- */

static const char *invalid_degrees(const struct plan_machine *m, const struct plan_layout *l)
{
	if (l->tp < 1 || l->pp < 1 || l->dp < 1 || l->cp < 1 || l->ep < 1 || l->vp < 1 || l->micro < 1)
		return "a degree of parallelism or the micro-batch is less than 1";
	if ((double)l->tp * l->pp * l->dp * l->cp != m->gpus)
		return "tensor x pipeline x data x context parallelism is not the number of devices";
	if (l->zero < 0 || l->zero > 3)
		return "the ZeRO stage is not 0 to 3";
	return NULL;
}

const char *plan_layout_invalid(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l)
{
	const struct stave_shape *s = &j->shape;
	const char *bad = invalid_degrees(m, l);
	if (bad)
		return bad;
	if (j->batch < 1 || j->seq < 1)
		return "the batch or the sequence is empty";
	if (s->H % l->tp || (s->K % l->tp && l->tp % s->K))
		return "attention heads do not divide over tensor parallelism";
	if (s->I % l->tp)
		return "the feed-forward width does not divide over tensor parallelism";
	if ((double)l->pp * l->vp > s->L + (l->pp > 1 ? PLAN_END_STAGES : 0))
		return "more pipeline stages than layers";
	if (j->seq % l->cp)
		return "the sequence does not divide over context parallelism";
	if (j->batch % ((double)l->dp * l->micro > j->batch ? j->batch + 1 : l->dp * l->micro))
		return "the batch does not divide over data parallelism and micro-batches";
	if (l->vp > 1 && (l->pp == 1 || j->batch / (l->dp * l->micro) % l->pp))
		return "interleaving needs a pipeline, and micro-batches in multiples of its stages";
	if (l->ep > 1 && (s->experts < l->ep || l->dp % l->ep))
		return "expert parallelism does not divide data parallelism, or is more than the experts";
	return NULL;
}

/* ---- how a layout cuts a job ---- */

/* Parameters of adapters of rank 1 on every dense matrix and on the experts (Hu et al. 2021): in + out widths. */
static void adapters(const struct stave_closed *c, double *dense, double *expert)
{
	*dense = *expert = 0;
	for (int i = 0; i < c->products; i++)
		*(c->product[i].blocks > 1 ? expert : dense) += (c->product[i].k + c->product[i].n) * c->product[i].blocks;
}

void plan_cut_of(const struct plan_train_job *j, const struct plan_layout *l, struct plan_cut *out)
{
	struct stave_closed *c = &out->c;
	stave_closed_of(&j->shape, c);
	double L = j->shape.L, chunks = (double)l->pp * l->vp, most = ceil(L / chunks), least = floor(L / chunks);
	out->tokens = (double)l->micro * j->seq / l->cp;
	out->micros = (double)(j->batch / (l->dp * l->micro));
	out->outside = l->seq_parallel ? l->tp : 1;
	out->layers_full = most * l->vp;
	out->layers_last = most * (l->vp - 1) + least;
	double dense = c->layer_params - c->expert_params, expert = c->expert_params, ends = c->embed_params + (l->pp == 1 ? c->head_params : 0);
	if (j->lora) {
		adapters(c, &dense, &expert);
		dense *= j->lora_rank;
		expert *= j->lora_rank;
		ends = 0;
	}
	out->dense = dense / l->tp;
	/* experts that do not divide leave one more on some devices (a shared expert lives on all of them) */
	out->expert = j->shape.experts ? expert / l->tp * ceil((double)j->shape.experts / l->ep) / j->shape.experts : 0;
	out->ends = ends / l->tp;
	out->group = l->dp * l->cp;
	out->expert_group = l->dp / l->ep * l->cp;
	out->sharded = l->zero == 3 && out->group > 1;
}

double plan_trained_parameters(const struct plan_train_job *j)
{
	static const struct plan_layout whole = {.tp = 1, .pp = 1, .dp = 1, .cp = 1, .ep = 1, .vp = 1, .micro = 1};
	struct plan_cut c;
	if (!j->lora)
		return (double)stave_shape_params(&j->shape);
	plan_cut_of(j, &whole, &c);
	return j->shape.L * (c.dense + c.expert);
}

double plan_cut_dense(const struct plan_cut *c, double layers)
{
	return c->dense * layers + c->ends;
}

/* ---- rates ---- */

struct rates {
	double narrow, wide, attention, bytes; /* flop/s of products in the job's precision and in bf16, of fused attention; bytes/s */
	bool casts;
};

double plan_train_power(const struct plan_train_fit *f, const struct plan_accelerator *a)
{
	double peak = a->peak[PLAN_BF16];
	if (f->reference_w <= 0 || f->reference_flop_s <= 0 || a->tdp_w <= 0 || peak <= 0)
		return 1;
	return sqrt(sqrt(a->tdp_w / peak * f->reference_flop_s / f->reference_w));
}

/* fp8 and fp4 where the device has them, else the next wider. */
static double narrow_peak(const struct plan_accelerator *a, enum plan_precision p, double wide)
{
	if (p == PLAN_FP4 && a->peak[PLAN_FP4] > 0)
		return a->peak[PLAN_FP4];
	if ((p == PLAN_FP4 || p == PLAN_FP8) && a->peak[PLAN_FP8] > 0)
		return a->peak[PLAN_FP8];
	return wide;
}

static struct rates rates_of(const struct plan_train_job *j, const struct plan_machine *m)
{
	const struct plan_accelerator *a = m->accelerator;
	const struct plan_train_fit *f = m->fit;
	double bf16 = a->peak[PLAN_BF16], f32 = a->peak[PLAN_F32] > 0 ? a->peak[PLAN_F32] : bf16 / 8;
	bool plain = j->precision == PLAN_F32 || bf16 <= 0;
	double wide = fmax(1e9, plain ? f32 : bf16);
	double narrow = plain ? wide : narrow_peak(a, j->precision, wide), power = plain ? 1 : plan_train_power(f, a), product = fmin(0.98, f->product * power);
	return (struct rates){.narrow = (wide + (narrow - wide) * f->fp8) * product, .wide = wide * product, .attention = wide * fmin(0.98, f->attention * power),
	                      .bytes = (a->memory_bytes_s > 0 ? a->memory_bytes_s : 1e10) * f->memory, .casts = narrow > wide};
}

/* ---- one layer, one micro-batch, one device ---- */

struct layer {
	double product, attention, attention_back, element, accumulate, tp, cp, ep; /* forward; communication of one pass */
};

/* Values that products read or write per token, over tensor parallelism; and their flops' time. */
static double product_s(const struct plan_machine *m, const struct rates *r, const struct plan_cut *c, const struct plan_layout *l, const struct stave_closed_product *p)
{
	double k = p->split == 'k' ? p->k / l->tp : p->k, n = p->split == 'n' ? p->n / l->tp : p->n, rows = c->tokens * p->used, blocks = p->blocks / (p->blocks > 1 ? l->ep : 1);
	double bytes = ACTIVATION_BYTES * (rows * (k + n) + blocks * k * n);
	return 2 * rows * k * n / r->narrow + m->fit->traffic * bytes / r->bytes + m->fit->tail_s;
}

static double wide_product_s(const struct plan_machine *m, const struct rates *r, double rows, double k, double n, double blocks)
{
	return 2 * rows * k * n / r->wide + m->fit->traffic * ACTIVATION_BYTES * (rows * (k + n) + blocks * k * n) / r->bytes + m->fit->tail_s;
}

/* Keys that a query sees, on average over a sequence and over layers: the causal half, or less through a window. */
static double visible(const struct stave_shape *s, double seq)
{
	double all = seq / 2, w = s->window;
	if (w <= 0 || w >= seq)
		return all;
	double windowed = w * (1 - w / (2 * seq));
	return s->window_pattern > 0 ? (windowed * (s->window_pattern - 1) + all) / s->window_pattern : windowed;
}

static void price_attention(const struct plan_train_job *j, const struct plan_machine *m, const struct rates *r, const struct plan_cut *c, const struct plan_layout *l, struct layer *out)
{
	const struct plan_train_fit *f = m->fit;
	double T = c->tokens, s = j->seq, q = c->c.query / l->tp, heads = (double)j->shape.H / l->tp, slow = 1 + f->cp_loss * (1 - 1.0 / l->cp);
	double fused = T * stave_closed_attention_flops(&c->c, visible(&j->shape, s)) / l->tp / r->attention + f->tail_s;
	double softmax = 10 * T * s * heads / r->bytes; /* Narayanan et al.: read and written in 2 bytes, dropout and its mask */
	/* two products of each head's own blocks: rows x D x s */
	double plain = 2 * (2 * T * s * q / r->wide + f->traffic * ACTIVATION_BYTES * T * (2 * q + s * heads) / r->bytes + f->tail_s) + softmax;
	bool flash = f->fused >= 0.5 || s > 16384; /* scores of longer sequences are never held in memory */
	out->attention = (flash ? fused : plain) * slow;
	out->attention_back = out->attention * (flash ? BACKWARD_FUSED : 2);
}

/* Norms, residuals and dropout move 28 bytes per token and channel, the rest copies queries, keys and values, and the activation (28 and 32 bytes per
 * token and channel of a plain layer, planner's reference d.1b). */
static double element_s(const struct plan_machine *m, const struct rates *r, const struct plan_cut *c, const struct plan_layout *l, double channels, double used, bool gated)
{
	/* a mixture sorts tokens by expert and back: each of the `used` copies is read and written twice */
	double T = c->tokens, outside = (28 + 8 * used) * T * channels / c->outside, up = c->c.inner;
	double inside = (4 * (c->c.query + 2 * c->c.key_value) + (gated ? 6 : 4) * up) * T / l->tp;
	double cast = r->casts ? m->fit->cast * 4 * T * (2 * channels + c->c.query + up) / l->tp : 0;
	return (m->fit->element * (outside + inside) + cast) / r->bytes;
}

static void price_communication(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_cut *c, const struct plan_layout *l, struct layer *out)
{
	const struct plan_train_fit *f = m->fit;
	double C = j->shape.C, bytes = ACTIVATION_BYTES * c->tokens * C;
	/* two all-reduces a pass; with sequence parallelism each is a gather and a scatter of the same volume */
	out->tp = 2 * (l->async_tp ? 1 - f->async_tp : 1) * plan_group_collective_s(m, PLAN_ALL_REDUCE, bytes, (struct plan_group){l->tp, 1}, f->nic);
	if (l->cp > 1) {
		/* keys and values of the whole sequence pass every rank, beside attention */
		double ring = plan_group_collective_s(m, PLAN_ALL_GATHER, 2 * ACTIVATION_BYTES * c->tokens * l->cp * c->c.key_value / l->tp, (struct plan_group){l->cp, l->tp}, f->nic);
		out->cp = fmax(0, ring - 0.5 * out->attention);
	}
	if (l->ep > 1) {
		double sent = bytes * j->shape.experts_used / c->outside;
		out->ep = 2 * (1 - f->ep_hide) * plan_group_collective_s(m, PLAN_ALL_TO_ALL, sent, (struct plan_group){l->ep, l->tp * l->cp}, f->nic);
	}
}

static void price_layer(const struct plan_train_job *j, const struct plan_machine *m, const struct rates *r, const struct plan_cut *c, const struct plan_layout *l, struct layer *out)
{
	*out = (struct layer){0};
	for (int i = 0; i < c->c.products; i++)
		out->product += product_s(m, r, c, l, &c->c.product[i]);
	price_attention(j, m, r, c, l, out);
	out->element = element_s(m, r, c, l, j->shape.C, j->shape.experts_used, stave_act_gated(j->shape.act));
	out->accumulate = ACCUMULATE_BYTES * (c->dense + c->expert) / r->bytes;
	price_communication(j, m, c, l, out);
}

/* ---- one layer, all passes, with the launch floor ---- */

struct passes {
	double product, attention, element, recompute, launch, tp, cp, ep, total;
	double computing; /* what gathers can run beside */
};

/* How much longer a pass of `device` seconds takes because issuing it takes `host` seconds. */
static double floor_s(double device, double host)
{
	double a = device * device, b = host * host;
	return sqrt(sqrt(a * a + b * b)) - device;
}

static struct passes passes_of(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l, const struct layer *y)
{
	const struct plan_train_fit *f = m->fit;
	double host = LAUNCHES * f->launch_s, back = j->lora ? 1 : 2, comm = y->tp + y->ep + y->cp;
	double forward = y->product + y->attention + y->element, backward = back * y->product + y->attention_back + 2 * y->element + y->accumulate;
	double forward_floor = floor_s(forward + comm, host), backward_floor = floor_s(backward + comm + y->cp, BACKWARD_LAUNCHES * host);
	double again = l->recompute == PLAN_FULL ? forward : l->recompute == PLAN_SELECTIVE ? f->selective * (y->product + y->element) + (f->fused >= 0.5 ? 0 : y->attention) : 0;
	double full = l->recompute == PLAN_FULL ? 1 : 0;
	struct passes p = {.product = (1 + back) * y->product, .attention = y->attention + y->attention_back, .element = 3 * y->element + y->accumulate, .recompute = again,
	                   .launch = (1 + full) * forward_floor + backward_floor, .tp = (2 + full) * y->tp, .ep = (2 + full) * y->ep, .cp = (3 + full) * y->cp};
	p.computing = p.product + p.attention + p.element + p.recompute + p.launch;
	p.total = p.computing + p.tp + p.ep + p.cp;
	return p;
}

/* ---- the ends ---- */

struct ends {
	double product, element;
};

/* The classifier, its loss and its gradients: on the last stage. */
static struct ends classifier(const struct plan_train_job *j, const struct plan_machine *m, const struct rates *r, const struct plan_cut *c, const struct plan_layout *l)
{
	double T = c->tokens, C = j->shape.C, V = (double)j->shape.V / l->tp, times = j->lora ? 2 : 3;
	return (struct ends){.product = times * wide_product_s(m, r, T, C, V, 1),
	                     .element = (m->fit->loss * T * V + (j->lora ? 0 : ACCUMULATE_BYTES * V * C)) / r->bytes};
}

static double embedding_s(const struct plan_train_job *j, const struct rates *r, const struct plan_cut *c, const struct plan_layout *l)
{
	double C = j->shape.C, V = (double)j->shape.V / l->tp;
	return (EMBED_BYTES * c->tokens * C / c->outside + (j->lora ? 0 : ACCUMULATE_BYTES * V * C)) / r->bytes;
}

/* ---- weights and gradients over data parallelism ---- */

/* One collective over dense weights and one over experts', of `bytes` a parameter. */
static double over_replicas(const struct plan_machine *m, const struct plan_cut *c, const struct plan_layout *l, enum plan_collective kind, double dense, double expert, double bytes,
                            double share)
{
	double s = plan_group_collective_s(m, kind, bytes * dense, (struct plan_group){c->group, l->tp}, share);
	if (expert > 0)
		s += plan_group_collective_s(m, kind, bytes * expert, (struct plan_group){c->expert_group, l->tp * l->ep}, share);
	return s;
}

/* Communication `comm` beside `computing`: at most the share `hide` of it, and no more than the share `cover` of the computation, disappears. */
static double exposed(const struct plan_machine *m, double comm, double cover, double computing)
{
	return comm - fmin(m->fit->hide * comm, cover * computing);
}

/* ZeRO 3 without a pipeline, of one micro-batch: weights gathered for each pass, gradients scattered; one latency a layer each. */
static double sharded_s(const struct plan_machine *m, const struct plan_cut *c, const struct plan_layout *l, const struct passes *p)
{
	double layers = c->layers_full, once = over_replicas(m, c, l, PLAN_ALL_GATHER, c->dense, c->expert, 2, m->fit->gather);
	double ends = over_replicas(m, c, l, PLAN_ALL_GATHER, c->ends, 0, 2, m->fit->gather);
	return layers * exposed(m, 3 * once, m->fit->cover, p->total) + exposed(m, 2 * ends, 0, 0);
}

/* At the end of a step: gradients reduced (and sharded weights gathered again). Under a pipeline ZeRO 3 keeps its weights gathered for the whole step, as
 * torchtitan and DeepSpeed do, since each micro-batch would gather them anew. */
static double replicas_s(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_cut *c, const struct plan_layout *l, const struct passes *p, double *before)
{
	double layers = c->layers_full, dense = plan_cut_dense(c, layers), expert = c->expert * layers, backward = layers * p->computing * 0.6;
	const struct plan_train_fit *f = m->fit;
	if (c->sharded) {
		*before = l->pp == 1 ? 0 : 2 * over_replicas(m, c, l, PLAN_ALL_GATHER, dense, expert, 2, f->gather);
		return exposed(m, *before, f->cover, backward);
	}
	*before = over_replicas(m, c, l, PLAN_ALL_REDUCE, dense, expert, f->gradient_bytes, f->nic);
	double s = exposed(m, *before, f->dp_cover, backward);
	/* ZeRO 2 keeps no whole gradient, so each micro-batch scatters its own */
	if (l->zero == 2 && c->micros > 1 && c->group > 1) {
		double each = over_replicas(m, c, l, PLAN_REDUCE_SCATTER, dense, expert, f->gradient_bytes, f->nic);
		s += (c->micros - 1) * exposed(m, each, f->dp_cover, backward);
		*before += (c->micros - 1) * each;
	}
	/* a tied embedding lives on the first and the last stage, which add their gradients */
	if (l->pp > 1 && j->shape.tied && !j->lora) {
		double tied = plan_group_collective_s(m, PLAN_ALL_REDUCE, f->gradient_bytes * j->shape.V * (double)j->shape.C / l->tp, (struct plan_group){2, m->gpus / l->pp * (l->pp - 1)}, f->nic);
		s += tied;
		*before += tied;
	}
	return s;
}

/* ---- the step ---- */

static void sum(struct plan_step *o)
{
	o->total_s = o->product_s + o->attention_s + o->element_s + o->recompute_s + o->launch_s + o->bubble_s + o->tp_s + o->cp_s + o->ep_s + o->pp_s + o->dp_s + o->optimizer_s;
}

/* m micro-batches through the slowest stage. */
static void fill_stage(struct plan_step *o, const struct plan_cut *c, const struct passes *p, const struct ends *e, double embed, const struct plan_layout *l)
{
	double m = c->micros, last = c->layers_last * p->total + e->product + e->element, first = c->layers_full * p->total + embed;
	bool ends_last = l->pp == 1 || last > first;
	double layers = m * (l->pp > 1 && ends_last ? c->layers_last : c->layers_full);
	o->product_s = layers * p->product + (ends_last ? m * e->product : 0);
	o->element_s = layers * p->element + (ends_last ? m * e->element : 0) + (l->pp == 1 || !ends_last ? m * embed : 0);
	o->attention_s = layers * p->attention;
	o->recompute_s = layers * p->recompute;
	o->launch_s = layers * p->launch;
	o->tp_s = layers * p->tp;
	o->cp_s = layers * p->cp;
	o->ep_s = layers * p->ep;
}

static void fill_flops(struct plan_step *o, const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l)
{
	double tokens = (double)j->batch * j->seq, again = l->recompute == PLAN_FULL ? 1 : l->recompute == PLAN_SELECTIVE ? m->fit->selective : 0;
	struct stave_shape active = j->shape;
	if (active.experts > 0)
		active.experts = active.experts_used;
	o->model_flops = tokens * stave_train_flops_per_token(&active, j->seq) * (j->lora ? 2.0 / 3 : 1);
	o->hardware_flops = stave_closed_step_flops(&j->shape, j->batch, j->seq, again) * (j->lora ? (2 + again) / (3 + again) : 1);
	double wide = m->accelerator->peak[PLAN_BF16] > 0 ? m->accelerator->peak[PLAN_BF16] : 1e11;
	double peak = m->gpus * narrow_peak(m->accelerator, j->precision, wide);
	o->tokens_s = tokens / o->total_s;
	o->mfu = o->model_flops / o->total_s / peak;
	o->hfu = o->hardware_flops / o->total_s / peak;
}

/* Wider with the distance of what is asked from what was measured: a neighbour's constants, or more devices than any run had. */
static void fill_errors(struct plan_step *o, const struct plan_machine *m)
{
	const struct plan_train_fit *f = m->fit;
	double beyond = f->gpus > 0 && m->gpus > f->gpus ? 1 + 0.15 * log2((double)m->gpus / f->gpus) : 1;
	o->error_p50 = fmin(1, f->error_p50 * f->widen * beyond);
	o->error_p90 = fmin(2, f->error_p90 * f->widen * beyond);
}

void plan_step_evaluate(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l, struct plan_step *out)
{
	struct plan_cut c;
	plan_cut_of(j, l, &c);
	struct rates r = rates_of(j, m);
	struct layer y;
	price_layer(j, m, &r, &c, l, &y);
	struct passes p = passes_of(j, m, l, &y);
	struct ends e = classifier(j, m, &r, &c, l);
	double embed = embedding_s(j, &r, &c, l), L = j->shape.L;

	*out = (struct plan_step){0};
	fill_stage(out, &c, &p, &e, embed, l);
	double gathers = c.sharded && l->pp == 1 ? sharded_s(m, &c, l, &p) : 0, before = 0;
	out->dp_s = c.micros * gathers + replicas_s(j, m, &c, l, &p, &before);
	out->dp_total_s = before + c.micros * gathers;
	if (l->pp > 1) {
		double sent = ACTIVATION_BYTES * c.tokens * j->shape.C / (m->fit->scatter >= 0.5 || l->seq_parallel ? l->tp : 1);
		double hop = 2 * plan_group_collective_s(m, PLAN_SEND, sent, (struct plan_group){l->pp, m->gpus / l->pp}, m->fit->nic);
		out->pp_s = c.micros * l->vp * hop * (1 - m->fit->pp_hide);
		out->bubble_s = (double)(l->pp - 1) / l->vp * (L / l->pp * p.total + hop);
	}
	double shard = l->zero > 0 ? c.group : 1, expert_shard = l->zero > 0 ? c.expert_group : 1;
	double trained = plan_cut_dense(&c, c.layers_full) / shard + c.expert * c.layers_full / expert_shard;
	out->optimizer_s = OPTIMIZER_BYTES * trained / (r.bytes / m->fit->memory * m->fit->optimizer) + m->fit->fixed_s;
	sum(out);
	plan_memory_evaluate(j, m, l, &out->memory);
	fill_flops(out, j, m, l);
	fill_errors(out, m);
}
