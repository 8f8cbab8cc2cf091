/* Measured training runs as cases: a job, a machine and a layout for each row of a table that says enough.
 *
 * What a row leaves out is filled by what its software does by itself (torchtitan: FSDP, sequence parallelism, selective recompute, as many micro-batches
 * as stages), and what its authors chose without saying (micro-batch, virtual stages) by the same choice: the fastest that fits. Nothing else is
 * guessed: a row without devices, batch or shape is skipped and says why. */
#include "plan/train/train_case.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "plan/truth/truth_words.h"

/* What a program does unless told otherwise. */
struct habit {
	const char *stack;
	int zero;
	enum plan_recompute recompute;
	bool seq_parallel, async_tp;
};
static const struct habit habits[] = {
	{"torchtitan", 3, PLAN_SELECTIVE, true, false}, {"llm-foundry", 3, PLAN_KEEP, false, false}, {"fsdp", 3, PLAN_FULL, false, false}, {"llm.c", 1, PLAN_KEEP, false, false},
	{"nemo", 1, PLAN_KEEP, true, true}, {"maxtext", 3, PLAN_FULL, true, true}, {"deepspeed", 0, PLAN_FULL, false, false},
};

static struct habit habit_of(const char *stack)
{
	for (size_t i = 0; i < sizeof habits / sizeof *habits; i++)
		if (!strncmp(stack, habits[i].stack, strlen(habits[i].stack)))
			return habits[i];
	return (struct habit){.zero = 0, .recompute = PLAN_KEEP};
}

/* Variants of a stack that price differently; and Megatron of 2021 sharded no weights, so what was run beside it with ZeRO 3 is DeepSpeed's. */
static const char *stack_of(const struct plan_truth *t)
{
	/* what ran on Hopper and after is Megatron-Core, which NeMo and Megatron-Bridge wrap */
	bool fp8 = t->accelerator && t->accelerator->peak[PLAN_FP8] > 0;
	if (!strcmp(t->stack, "megatron") && fp8)
		return "nemo";
	if (!strcmp(t->stack, "torchtitan") && plan_words_have(t->precision_text, "eager"))
		return "torchtitan-eager";
	if (!strcmp(t->stack, "torchtitan") && plan_words_have(t->precision_text, "rowwise"))
		return "torchtitan-rowwise";
	if (!strcmp(t->stack, "megatron") && t->zero == 3 && t->tp == 1)
		return "deepspeed";
	return t->stack;
}

static double node_nic(const struct plan_catalog *c, const struct plan_truth *t)
{
	if (t->node_nic_bytes_s > 0)
		return t->node_nic_bytes_s;
	for (int i = 0; i < c->nodes; i++)
		if (!strcmp(c->node[i].accelerator, t->accelerator->name) && c->node[i].count > 0 && c->node[i].nic_bytes_s > 0)
			return c->node[i].nic_bytes_s / c->node[i].count * (t->gpus_per_node > 0 ? t->gpus_per_node : c->node[i].count);
	return 25e9 * (t->gpus_per_node > 0 ? t->gpus_per_node : 8);
}

static int local_batch(const struct plan_truth *t)
{
	const json_t *n = json_object_get(json_object_get(t->row, "parallel"), "local_batch");
	double x = json_is_number(n) ? json_number_value(n) : 0;
	return x >= 1 && x <= 1 << 24 ? (int)x : 0;
}

static const char *fill_layout(const struct plan_truth *t, const struct habit *h, struct plan_train_case *x)
{
	struct plan_layout *l = &x->layout;
	double model = (double)t->tp * t->pp * t->cp;
	*l = (struct plan_layout){.tp = t->tp, .pp = t->pp, .cp = t->cp, .ep = t->ep, .vp = t->vp, .dp = t->dp, .micro = t->micro, .async_tp = t->async_tp || h->async_tp,
	                          .zero = t->zero >= 0 ? t->zero : h->zero, .recompute = t->recompute >= 0 ? (enum plan_recompute)t->recompute : h->recompute,
	                          .seq_parallel = (t->seq_parallel || h->seq_parallel) && t->tp > 1};
	if (!l->dp && t->gpus >= model)
		l->dp = (int)(t->gpus / model);
	if (!l->dp)
		return "the degrees of parallelism are more than the devices";
	int local = local_batch(t);
	if (!l->micro && local) /* micro-batches of a pipeline: as many as its stages */
		l->micro = local / l->pp > 0 ? local / l->pp : 1;
	double batch = t->global_batch ? t->global_batch : local ? (double)local * l->dp : (double)l->micro * l->dp;
	if (batch < 1 || batch > 1 << 30)
		return "no batch size is stated";
	x->job.batch = (int)batch;
	bool said = json_is_integer(json_object_get(json_object_get(t->row, "parallel"), "vp"));
	if (t->interleaved && !said)
		l->vp = 2; /* the least that is interleaved */
	/* "Interleaved" in the notes: virtual stages as the authors chose them */
	x->free_vp = !said && !t->interleaved && l->pp > 1 && plan_words_have(t->notes, "interleaved");
	x->free_recompute = t->recompute < 0 && !*h->stack;
	return NULL;
}

/* Seconds of a step from whatever rate was written down. Full recompute under Megatron and DeepSpeed counts the flops computed (SC21 eq. 3), others what
 * the model asks for. */
static double measured_step(const struct plan_truth *t, const struct plan_train_case *x)
{
	double s = plan_truth_measured(t, "step_time_s"), tokens = (double)x->job.batch * x->job.seq, rate = plan_truth_measured(t, "tokens_per_s");
	if (s > 0)
		return s;
	if (rate > 0)
		return tokens / rate;
	rate = plan_truth_measured(t, "tokens_per_s_per_gpu");
	if (rate > 0)
		return tokens / rate / x->machine.gpus;
	rate = plan_truth_measured(t, "tflops_per_gpu");
	bool computed = x->layout.recompute == PLAN_FULL && (plan_words_have(t->stack, "megatron") || plan_words_have(t->stack, "deepspeed"));
	if (rate > 0)
		return stave_closed_step_flops(&x->job.shape, x->job.batch, x->job.seq, computed ? 1 : 0) / (rate * 1e12 * x->machine.gpus);
	rate = plan_truth_measured(t, "mfu");
	double peak = x->machine.accelerator->peak[t->precision == PLAN_FP8 && x->machine.accelerator->peak[PLAN_FP8] > 0 ? PLAN_FP8 : PLAN_BF16];
	if (rate > 0 && rate < 1 && peak > 0)
		return tokens * stave_train_flops_per_token(&x->job.shape, x->job.seq) / (rate * peak * x->machine.gpus);
	return 0;
}

const char *plan_train_case_of(const struct plan_truths *all, int row, const struct plan_catalog *c, struct plan_train_case *x)
{
	const struct plan_truth *t = &all->row[row];
	*x = (struct plan_train_case){.row = row, .stack = stack_of(t)};
	if (!t->accelerator)
		return "the accelerator is not in the catalog";
	if (!t->has_shape)
		return "the model's shape is not stated";
	if (!t->gpus)
		return "the number of devices is not stated";
	x->job = (struct plan_train_job){.shape = t->shape, .seq = t->seq ? t->seq : t->shape.T_max, .precision = t->precision};
	int node = t->gpus_per_node > 0 ? t->gpus_per_node : 8;
	x->machine = (struct plan_machine){.accelerator = &t->variant, .gpus = t->gpus, .gpus_per_node = node < t->gpus ? node : t->gpus, .nic_bytes_s = node_nic(c, t), .sites = 1};
	if (node > t->gpus)
		x->machine.nic_bytes_s *= (double)t->gpus / node;
	x->memory_limit = t->variant.memory_bytes > 0 ? 0.98 * t->variant.memory_bytes : INFINITY;
	struct habit h = habit_of(x->stack);
	if (!h.stack)
		h.stack = "";
	const char *bad = fill_layout(t, &h, x);
	if (bad)
		return bad;
	struct plan_layout l = x->layout;
	l.micro = l.micro ? l.micro : 1;
	bad = plan_layout_invalid(&x->job, &x->machine, &l);
	x->measured_s = measured_step(t, x);
	return bad;
}

/* ---- what was not said ---- */

struct pick {
	struct plan_layout fastest, smallest;
	double step_s, least_bytes;
};

static void consider(const struct plan_train_case *x, const struct plan_layout *l, struct pick *p)
{
	struct plan_step s;
	if (plan_layout_invalid(&x->job, &x->machine, l))
		return;
	plan_step_evaluate(&x->job, &x->machine, l, &s);
	if (s.memory.total < p->least_bytes) {
		p->least_bytes = s.memory.total;
		p->smallest = *l;
	}
	if (s.memory.total <= x->memory_limit && s.total_s < p->step_s) {
		p->step_s = s.total_s;
		p->fastest = *l;
	}
}

struct plan_layout plan_train_case_layout(const struct plan_train_case *x)
{
	struct plan_layout l = x->layout;
	if (l.micro && !x->free_vp && !x->free_recompute)
		return l;
	struct pick p = {.step_s = INFINITY, .least_bytes = INFINITY, .smallest = l};
	p.smallest.micro = l.micro ? l.micro : 1;
	int most = x->free_vp ? x->job.shape.L / l.pp : l.vp;
	for (int micro = l.micro ? l.micro : 1; micro <= (l.micro ? l.micro : 64); micro *= 2) {
		for (int vp = x->free_vp ? 1 : l.vp; vp <= most; vp++) {
			for (int re = x->free_recompute ? PLAN_KEEP : (int)l.recompute; re <= (x->free_recompute ? PLAN_FULL : (int)l.recompute); re++) {
				struct plan_layout one = l;
				one.micro = micro;
				one.vp = vp;
				one.recompute = (enum plan_recompute)re;
				if (vp == 1 || x->job.shape.L % (l.pp * vp) == 0)
					consider(x, &one, &p);
			}
		}
	}
	return p.step_s < INFINITY ? p.fastest : p.smallest;
}

double plan_train_case_step_s(const struct plan_train_case *x)
{
	struct plan_layout l = plan_train_case_layout(x);
	struct plan_step s;
	plan_step_evaluate(&x->job, &x->machine, &l, &s);
	return s.total_s;
}
