/* Training at a place: the layout and its step, then what storage and failures make of it, then the bill.
 *
 *   step (train_step.c) -> data it wants (storage.c) -> checkpoints and failures (reliability.c) -> wall time -> power, carbon, money (bill.c)
 *
 * On a measured machine (type profile) the step is forecast by cost/ from its own samples instead of from a fit. */
#include <math.h>
#include <string.h>

#include "cost/machine.h"
#include "plan/evaluate.h"
#include "plan/site/reliability.h"
#include "plan/site/storage.h"

#define MEMORY_SHARE 0.94  /* of a device's memory that a job may fill: the driver, the framework and fragments take the rest */
#define KEPT_CHECKPOINTS 3
#define STORAGE_TIMES 10   /* of the time that one takes to write, between two checkpoints */

static struct plan_train_job job_of(const struct plan_work *w)
{
	return (struct plan_train_job){.shape = w->shape, .seq = (int)w->seq, .batch = (int)w->batch, .precision = (enum plan_precision)w->precision, .lora = w->lora,
	                               .lora_rank = (int)w->lora_rank};
}

static struct plan_machine machine_of(const struct plan_here *h, int gpus, const struct plan_train_fit *fit)
{
	struct plan_machine m = {.accelerator = h->accelerator, .fit = fit, .gpus = gpus, .gpus_per_node = h->node->count < gpus ? h->node->count : gpus,
	                         .nic_bytes_s = h->node->nic_bytes_s, .sites = (int)h->site->places,
	                         .site_bytes_s = isnan(h->site->line_bytes_s) ? 0 : h->site->line_bytes_s, .site_latency_s = h->site->line_latency_s};
	if (h->network)
		m.network = *h->network;
	return m;
}

/* ---- the step ---- */

static int step_by_fit(const struct stave_plan *p, const struct plan_here *h, int gpus, const struct plan_layout *fixed, struct plan_work_result *r, struct stave_err *err)
{
	struct plan_training_result *t = &r->train;
	struct plan_train_job job = job_of(r->work);
	struct plan_train_fit *fit;
	int rc = plan_train_fit_open(&fit, p->catalog, h->accelerator, r->work->stack, err);
	if (rc)
		return rc;
	struct plan_machine m = machine_of(h, gpus, fit);
	rc = plan_search_layouts(&job, &m, fixed, MEMORY_SHARE * h->accelerator->memory_bytes, &t->search, err);
	if (!rc) {
		t->layout = t->search.best.layout;
		plan_step_evaluate(&job, &m, &t->layout, &t->step);
		r->error_p50 = t->step.error_p50;
		r->error_p90 = t->step.error_p90;
	}
	plan_train_fit_free(fit);
	return rc;
}

/* Rows of a micro-batch: as many as divide the batch, up to what the trainer's own default takes at once. */
static int own_micro(int batch)
{
	int b = batch < 8 ? batch : 8;
	while (batch % b)
		b--;
	return b;
}

/* This machine, by its own samples. Memory: f32 weights, gradients and two moments, a bf16 copy, and the activations of a micro-batch. */
static int step_by_profile(const struct plan_here *h, const struct plan_scale *k, struct plan_work_result *r, struct stave_err *err)
{
	struct plan_training_result *t = &r->train;
	const struct plan_work *w = r->work;
	struct stave_machine m;
	struct stave_op op[STAVE_OPS_MAX];
	int rc = stave_machine_load(&m, h->pool->profile[0] ? h->pool->profile : NULL, err);
	if (rc)
		return rc;
	if (w->lora || w->precision > PLAN_BF16)
		return stave_err_set(err, STAVE_ENOFIT, "%s trains all weights in f32 or bf16 on this machine", w->name);
	enum stave_dtype dtype = w->precision == PLAN_BF16 && m.peak_bf16 > 0 ? STAVE_BF16 : STAVE_F32;
	int B = own_micro((int)w->batch), micro = (int)w->batch / B;
	int n = stave_cost_train_ops(&w->shape, B, (int)w->seq, micro, dtype, STAVE_KEEP_ALL, op);
	for (int i = 0; i < m.n_rates; i++)
		m.rates[i].per_s *= !strcmp(m.rates[i].what, "matmul") || !strcmp(m.rates[i].what, "attention") ? k->of[PLAN_ARITHMETIC] : k->of[PLAN_BANDWIDTH];
	struct stave_forecast f = stave_machine_forecast(&m, op, n);
	double N = (double)stave_shape_params(&w->shape), rows = (double)B * w->seq;
	t->step = (struct plan_step){.total_s = f.step_s, .product_s = f.matmul_s + f.loss_s, .attention_s = f.attention_s, .element_s = f.element_s, .optimizer_s = f.optimizer_s,
	                             .model_flops = stave_train_flops_per_token(&w->shape, (int)w->seq) * w->batch * w->seq};
	t->step.hardware_flops = t->step.model_flops;
	t->step.mfu = t->step.hfu = t->step.model_flops / (f.step_s * (dtype == STAVE_BF16 ? m.peak_bf16 : m.peak_f32));
	t->step.tokens_s = w->batch * w->seq / f.step_s;
	struct plan_memory *y = &t->step.memory;
	*y = (struct plan_memory){.weights = N * (dtype == STAVE_BF16 ? 6 : 4), .gradients = 4 * N, .optimizer = 8 * N,
	                          .activations = rows * w->shape.L * (double)stave_dtype_bytes(dtype) * (10. * w->shape.C + 3. * w->shape.I)};
	y->total = y->weights + y->gradients + y->optimizer + y->activations;
	if (y->total > h->accelerator->memory_bytes)
		return stave_err_set(err, STAVE_ENOFIT, "%s takes %.3g GB on this machine, which has %.3g; a smaller batch or model would fit", w->name, y->total * 1e-9,
		                     h->accelerator->memory_bytes * 1e-9);
	t->layout = (struct plan_layout){.tp = 1, .pp = 1, .dp = 1, .cp = 1, .ep = 1, .vp = 1, .micro = B};
	t->search.evaluated = t->search.feasible = 1;
	r->error_p50 = 0.05, r->error_p90 = 0.15; /* SPEED.md: forecasts of own runs */
	return 0;
}

/* ---- storage and failures ---- */

static double nodes_of(const struct plan_here *h, int gpus) { return ceil((double)gpus / h->node->count); }

/* Without a shared storage that the specification names: what the nodes themselves reach, by the catalog. */
static double own_storage(const struct plan_here *h, double nodes) { return nodes * (h->node->storage_bytes_s > 0 ? h->node->storage_bytes_s : h->node->nic_bytes_s); }

static void feed(const struct plan_here *h, const struct plan_scale *k, double nodes, struct plan_training_result *t, const struct plan_work *w)
{
	struct plan_feed f = {.units_s = w->batch * w->seq / t->step_s, .bytes_per_unit = w->bytes_per_token, .nodes = nodes, .nic_bytes_s = h->node->nic_bytes_s,
	                      .read_bytes_s = (h->storage ? h->storage->read_bytes_s : own_storage(h, nodes)) * k->of[PLAN_STORAGE]};
	struct plan_feeding got;
	plan_feed_evaluate(&f, &got);
	t->load_bytes_s = got.need_bytes_s;
	t->load_limit_bytes_s = got.have_bytes_s;
	t->wait_share = got.share > 1 ? 1 - 1 / got.share : 0;
	if (got.share > 1)
		t->step_s *= got.share;
}

static int checkpoint(const struct plan_here *h, const struct plan_scale *k, double nodes, int gpus, struct plan_training_result *t, const struct plan_work *w, struct plan_checkpoint *c,
                      struct stave_err *err)
{
	struct plan_train_job job = job_of(w);
	double own = own_storage(h, nodes);
	struct plan_saving s = {.parameters = plan_trained_parameters(&job), .nodes = nodes, .devices = gpus, .device_host_bytes_s = h->accelerator->host_bytes_s,
	                        .nic_bytes_s = nodes > 1 || h->storage ? h->node->nic_bytes_s : own, .asynchronous = w->checkpoint_async && h->accelerator->host_bytes_s > 0,
	                        .write_bytes_s = (h->storage ? h->storage->write_bytes_s : own) * k->of[PLAN_STORAGE],
	                        .read_bytes_s = (h->storage ? h->storage->read_bytes_s : own) * k->of[PLAN_STORAGE],
	                        .capacity_bytes = h->storage ? h->storage->capacity_bytes : 0, .keep = KEPT_CHECKPOINTS};
	int rc = plan_checkpoint_evaluate(&s, c, err);
	t->checkpoint_bytes = rc ? 0 : c->bytes;
	t->checkpoint_stall_s = rc ? 0 : c->stall_s;
	t->checkpoint_write_s = rc ? 0 : c->stall_s + c->exposed_s;
	return rc;
}

/* Between checkpoints: what is asked for, else the optimum, but in whole steps and no more often than leaves nine tenths of the storage to others: an asynchronous
 * checkpoint stalls so little that the optimum alone would write without end. */
static double interval_s(const struct plan_work_result *r, const struct plan_recovery *v)
{
	const struct plan_training_result *t = &r->train;
	double wanted = r->work->checkpoint_interval_s;
	if (isnan(wanted))
		wanted = fmax(plan_interval_s(PLAN_EXACT, v), STORAGE_TIMES * t->checkpoint_write_s);
	return fmax(ceil(wanted / t->step_s), 1) * t->step_s + v->checkpoint_s;
}

static int failures(const struct plan_here *h, const struct plan_scale *k, int gpus, struct plan_work_result *r, struct stave_err *err)
{
	struct plan_training_result *t = &r->train;
	const struct plan_site *s = h->site;
	double nodes = nodes_of(h, gpus), rate = s->failures_per_node_s / k->of[PLAN_RELIABILITY];
	struct plan_checkpoint c;
	int rc = checkpoint(h, k, nodes, gpus, t, r->work, &c, err);
	if (rc)
		return rc;
	struct plan_recovery v = {.mtbf_s = plan_job_mtbf_s(nodes, rate), .checkpoint_s = c.stall_s, .exposed_s = c.exposed_s,
	                          .down_s = (isnan(s->spares) ? 0 : 1 - plan_spare_share(nodes, rate, s->repair_s, s->spares)) * s->repair_s,
	                          .restart_s = (isnan(s->restart_s) ? plan_restart_s(gpus) : s->restart_s) + c.load_s};
	struct plan_finish f;
	double spread; /* of what other fleets' rates say of this one's */
	plan_failure_rate_typical(NULL, &spread);
	t->ideal_s = t->steps * t->step_s;
	plan_finish_forecast(&v, interval_s(r, &v), t->ideal_s, spread, &f);
	t->mtbf_s = v.mtbf_s;
	t->restart_s = v.restart_s;
	t->interval_s = f.goodput.interval_s;
	t->goodput = f.goodput.useful;
	t->failures = f.failures;
	t->spares_wanted = plan_spares(nodes, rate, s->repair_s, 0.99);
	/* the step's own error beside the failures' luck: independent, so their squares add */
	double p90 = hypot(f.p90_s - f.p50_s, r->error_p90 * f.p50_s * 0.78), p10 = hypot(f.p50_s - f.p10_s, r->error_p90 * f.p50_s * 0.78);
	t->wall_p50_s = f.p50_s;
	t->wall_p90_s = f.p50_s + p90;
	t->wall_p10_s = fmax(f.p50_s - p10, t->ideal_s * (1 - fmin(r->error_p90, 0.9)));
	return 0;
}

/* ---- the whole ---- */

/* The data's way to the site. */
static double stage_s(const struct plan_here *h, const struct plan_work *w)
{
	if (isnan(h->site->uplink_bytes_s))
		return 0;
	return plan_staging_s(w->tokens * w->bytes_per_token, h->site->uplink_bytes_s, h->storage ? h->storage->write_bytes_s : 0);
}

/* It begins when the site is ready and the data is there; that date's own spread and the job's are independent, so their squares add. */
static void dates(const struct stave_plan *p, struct plan_work_result *r)
{
	const struct plan_training_result *t = &r->train;
	const struct plan_site_result *s = &p->site[r->site];
	double start = r->work->start_day, middle = t->wall_p50_s / 86400, early = (t->wall_p50_s - t->wall_p10_s) / 86400, late = (t->wall_p90_s - t->wall_p50_s) / 86400;
	bool waits = s->ready_p50_day > start;
	r->start_day = (waits ? s->ready_p50_day : start) + t->stage_s / 86400;
	r->finish_p50_day = r->start_day + middle;
	r->finish_p10_day = r->finish_p50_day - (waits ? hypot(early, s->ready_p50_day - s->ready_p10_day) : early);
	r->finish_p90_day = r->finish_p50_day + (waits ? hypot(late, s->ready_p90_day - s->ready_p50_day) : late);
}

int plan_evaluate_train(const struct stave_plan *p, const struct plan_here *h, int gpus, const struct plan_layout *fixed, const struct plan_scale *k, struct plan_work_result *r,
                        struct stave_err *err)
{
	struct plan_training_result *t = &r->train;
	const struct plan_work *w = r->work;
	int rc = strcmp(h->pool->type, "profile") ? step_by_fit(p, h, gpus, fixed, r, err) : step_by_profile(h, k, r, err);
	if (rc)
		return rc;
	t->gpus = gpus;
	t->stage_s = stage_s(h, w);
	t->steps = ceil(w->tokens / (w->batch * w->seq));
	t->step_s = t->step.total_s * (1 + w->straggler);
	feed(h, k, nodes_of(h, gpus), t, w);
	t->tokens_s = w->batch * w->seq / t->step_s;
	if ((rc = failures(h, k, gpus, r, err)))
		return rc;
	dates(p, r);
	double nodes = nodes_of(h, gpus);
	struct plan_use use = {.nodes = nodes, .devices = gpus, .peak_nodes = nodes, .seconds = t->wall_p50_s, .busy = 1, .network_share = nodes / (h->nodes + h->spares)};
	if ((rc = plan_bill_use(p, h, &use, &r->money, &r->footprint, err)))
		return rc;
	r->objective = plan_objective(p, r);
	return 0;
}
