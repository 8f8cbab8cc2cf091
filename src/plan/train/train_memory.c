/* The memory of one device during training, by class of tensor, exact for what the formulas name.
 *
 * Weights, gradients and optimizer state: mixed precision Adam holds 2 + 4 + 12 bytes a parameter (bf16 or fp16 weight, fp32 gradient, fp32 weight and two
 * moments), split over data parallelism from ZeRO stage 3, 2 and 1 on (Rajbhandari et al. 2020); FSDP's sharded fp32 weight is its own master, 4 + 4 + 8.
 * Activations: Korthikanti et al. 2022, table 2, written for any widths; fused attention keeps no scores. Full recompute keeps each layer's input and one
 * layer at work. Under 1F1B the first stage holds as many micro-batches as there are stages, interleaved 1 + (p-1)/(p v) times its layers' (section 4.2.3);
 * the last stage holds one with the logits. The fullest of the two is reported. */
#include <math.h>

#include "plan/train/train_parts.h"

/* Bytes that one layer keeps of one micro-batch, and its input alone. */
static double layer_kept(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_cut *c, const struct plan_layout *l)
{
	const struct stave_shape *s = &j->shape;
	const struct plan_train_fit *f = m->fit;
	double T = c->tokens, C = s->C, tp = l->tp;
	bool gated = stave_act_gated(s->act), dropout = s->family == STAVE_GPT2, selective = l->recompute == PLAN_SELECTIVE;
	double outside = (dropout ? 10 : 8) * C; /* inputs of both norms and of both blocks; masks of two dropouts */
	double inside = 2 * (c->c.query + 2 * c->c.key_value) + 2 * c->c.query + (gated ? 6 : 4) * c->c.inner;
	double scores = f->fused >= 0.5 || selective ? 4.0 * s->H : (dropout ? 5 : 4) * (double)s->H * j->seq;
	if (selective && f->fused < 0.5)
		scores = 0; /* Korthikanti's selective recompute keeps nothing of the core; a fused kernel keeps a sum per row */
	double kept = selective ? f->kept : 1;
	return T * kept * (outside / c->outside + inside / tp) + T * scores / tp;
}

static double layer_input(const struct plan_train_job *j, const struct plan_cut *c)
{
	return 2 * c->tokens * j->shape.C / c->outside;
}

/* Layers' activations in flight, in units of one layer of one micro-batch, on the first stage. */
static double layers_in_flight(const struct plan_train_job *j, const struct plan_cut *c, const struct plan_layout *l)
{
	if (l->pp == 1)
		return j->shape.L;
	double micros = fmin(c->micros, l->pp), p = l->pp;
	return l->vp > 1 ? c->layers_full * p * (1 + (p - 1) / (p * l->vp)) : c->layers_full * micros;
}

static void parameters(const struct plan_train_job *j, const struct plan_cut *c, const struct plan_layout *l, double layers, double ends, struct plan_memory *out)
{
	double dense = c->dense * layers + ends, expert = c->expert * layers, d = c->group, e = c->expert_group;
	double whole = dense + expert, split = dense / d + expert / e;
	bool own = c->sharded;
	out->weights = own ? 4 * split : 2 * whole;
	/* a pipeline adds up whole gradients before it scatters them */
	out->gradients = 4 * (l->zero < 2 ? whole : l->pp > 1 && c->sharded ? whole + split : split);
	out->optimizer = (own ? 8 : 12) * (l->zero >= 1 ? split : whole);
	if (j->lora) { /* the frozen base beside the adapters: 2 bytes, or its shard */
		double base = ((c->c.layer_params - c->c.expert_params) + c->c.expert_params / l->ep) * layers / l->tp;
		out->weights += 2 * base / (own ? d : 1);
	}
	/* gathered weights of two layers and the gradient of one; all of the stage's when a pipeline keeps them for the step */
	double layer = c->dense + c->expert;
	out->buffers = !c->sharded ? 0 : l->pp > 1 ? 2 * whole : 2 * 2 * layer + 2 * layer;
}

static double total(const struct plan_memory *x)
{
	return x->weights + x->gradients + x->optimizer + x->activations + x->logits + x->buffers;
}

void plan_memory_evaluate(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l, struct plan_memory *out)
{
	struct plan_cut c;
	plan_cut_of(j, l, &c);
	double kept = layer_kept(j, m, &c, l), input = layer_input(j, &c), V = (double)j->shape.V / l->tp, C = j->shape.C;
	/* with full recompute the layer at work is whole */
	double each = l->recompute == PLAN_FULL ? input : kept, working = l->recompute == PLAN_FULL ? kept : 0;
	double logits = c.tokens * (m->fit->logit_bytes * V + 4 * C / c.outside); /* and input and output of the last norm */
	double frozen = j->lora ? 2 * (j->shape.V * C) / l->tp : 0;
	struct plan_memory first = {0}, last = {0};
	parameters(j, &c, l, c.layers_full, c.ends, &first);
	first.weights += frozen;
	first.activations = layers_in_flight(j, &c, l) * each + working;
	first.logits = l->pp == 1 ? logits : 0;
	first.total = total(&first);
	*out = first;
	if (l->pp == 1)
		return;
	/* the classifier's matrix, tied or not, is on the last stage */
	parameters(j, &c, l, c.layers_last, j->lora ? 0 : V * C, &last);
	last.weights += frozen;
	last.activations = c.layers_last * each + working;
	last.logits = logits;
	last.total = total(&last);
	if (last.total > first.total)
		*out = last;
}
