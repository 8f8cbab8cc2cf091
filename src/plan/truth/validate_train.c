/* Predictions of measured training runs: step time, memory by class, device hours of whole runs, and which of several measured layouts is the fastest. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/train/train_case.h"
#include "plan/truth/truth_words.h"

/* ---- the list ---- */

static int add(struct plan_predictions *out, int row, const char *metric, double measured, double predicted, struct stave_err *err)
{
	struct plan_prediction p = {.row = row, .metric = metric, .measured = measured, .predicted = predicted};
	return plan_predictions_add(out, &p, err);
}

static int skip(struct plan_predictions *out, int row, const char *metric, const char *why, struct stave_err *err)
{
	struct plan_prediction p = {.row = row, .metric = metric, .skipped = why};
	return plan_predictions_add(out, &p, err);
}

/* ---- memory of a row that says what it measured ---- */

#define GIB (1024.0 * 1024 * 1024)

/* Figures 1 and 7 of Korthikanti et al. count transformer layers alone: 18 bytes for each of the first stage's 12 L h^2 / (p t), and no embedding. */
static double layers_state_gib(const struct plan_train_case *x)
{
	struct plan_train_case y = *x;
	y.job.shape.V = 1;
	y.job.shape.T_max = 1;
	struct plan_memory m;
	plan_memory_evaluate(&y.job, &y.machine, &y.layout, &m);
	return (m.weights + m.gradients + m.optimizer) / GIB;
}

static double activation_bytes(const struct plan_train_case *x, enum plan_recompute re, bool seq_parallel)
{
	struct plan_layout l = x->layout;
	struct plan_memory m, one;
	l.recompute = re;
	l.seq_parallel = seq_parallel;
	l.micro = l.micro ? l.micro : 1;
	plan_memory_evaluate(&x->job, &x->machine, &l, &m);
	if (re != PLAN_FULL)
		return m.activations;
	/* the figures leave out the layer that is being recomputed */
	struct plan_train_job shallow = x->job;
	shallow.shape.L *= 2;
	plan_memory_evaluate(&shallow, &x->machine, &l, &one);
	return one.activations - m.activations;
}

static int predict_memory(const struct plan_truth *t, const struct plan_train_case *x, struct plan_predictions *out, struct stave_err *err)
{
	int rc = 0;
	double state = plan_truth_measured(t, "params_optimizer_gib"), activation = plan_truth_measured(t, "activation_gib"), device = plan_truth_measured(t, "memory_gib");
	if (state > 0)
		rc = add(out, x->row, "weights_memory", state, layers_state_gib(x), err);
	if (!rc && activation > 0)
		rc = add(out, x->row, "activation_memory", activation, activation_bytes(x, x->layout.recompute, x->layout.seq_parallel) / GIB, err);
	if (!rc && device > 0) {
		struct plan_layout l = plan_train_case_layout(x);
		struct plan_memory m;
		plan_memory_evaluate(&x->job, &x->machine, &l, &m);
		rc = add(out, x->row, "device_memory", device, m.total / GIB, err);
	}
	return rc;
}

/* Shares of the activations of plain tensor parallelism, for a model whose shape another row of the table states. */
static int predict_shares(const struct plan_truths *all, int row, const struct plan_catalog *c, struct plan_predictions *out, struct stave_err *err)
{
	static const struct {
		const char *key;
		enum plan_recompute re;
		bool seq_parallel;
	} kinds[] = {{"seqpar", PLAN_KEEP, true}, {"selective", PLAN_SELECTIVE, false}, {"seqpar+selective", PLAN_SELECTIVE, true}, {"full", PLAN_FULL, false}};
	const json_t *shares = json_object_get(all->row[row].measured, "activation_pct_of_tp_baseline");
	const char *model = json_string_value(json_object_get(json_object_get(all->row[row].row, "model"), "name"));
	struct plan_train_case x;
	int twin = -1;
	for (int i = 0; i < all->n && twin < 0; i++) {
		const char *other = json_string_value(json_object_get(json_object_get(all->row[i].row, "model"), "name"));
		if (model && other && !strcmp(model, other) && !strcmp(all->row[i].group, all->row[row].group) && all->row[i].has_shape && !plan_train_case_of(all, i, c, &x))
			twin = i;
	}
	if (twin < 0)
		return skip(out, row, "activation_memory", "no row states the shape of this model", err);
	struct plan_train_fit *fit;
	int rc = plan_train_fit_open(&fit, c, all->row[twin].accelerator, x.stack, err);
	if (rc)
		return rc;
	x.machine.fit = fit;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !rc; i++) {
		const json_t *v = json_object_get(shares, kinds[i].key);
		if (json_is_number(v) && json_number_value(v) > 0)
			rc = add(out, row, "activation_memory", json_number_value(v),
			         100 * activation_bytes(&x, kinds[i].re, kinds[i].seq_parallel) / activation_bytes(&x, PLAN_KEEP, false), err);
	}
	plan_train_fit_free(fit);
	return rc;
}

/* ---- whole runs in device hours ---- */

#define ASSUMED_GPUS 512      /* hours hardly depend on it */
#define ASSUMED_TOKENS 4194304 /* of a step */

/* Device hours of the best layout, with a batch of four million tokens. */
static const char *hours_of(const struct plan_truth *t, const struct plan_catalog *c, double *hours)
{
	double tokens = plan_truth_measured(t, "tokens");
	if (!(tokens > 0))
		return "the number of tokens is not stated";
	if (!t->accelerator)
		return "the accelerator is not in the catalog";
	if (!t->has_shape)
		return "the model's shape is not stated";
	int seq = t->seq ? t->seq : t->shape.T_max, gpus = t->gpus ? t->gpus : ASSUMED_GPUS, node = t->gpus_per_node > 0 ? t->gpus_per_node : 8;
	struct plan_train_fit *fit;
	if (plan_train_fit_open(&fit, c, t->accelerator, t->stack, NULL))
		return "the catalog's fits cannot be read";
	struct plan_train_job j = {.shape = t->shape, .seq = seq, .batch = (ASSUMED_TOKENS / seq / gpus + 1) * gpus, .precision = t->precision};
	struct plan_machine m = {.accelerator = &t->variant, .fit = fit, .gpus = gpus, .gpus_per_node = node < gpus ? node : gpus, .sites = 1,
	                         .nic_bytes_s = t->node_nic_bytes_s > 0 ? t->node_nic_bytes_s : 25e9 * node};
	struct plan_search s;
	int rc = plan_search_layouts(&j, &m, NULL, 0.94 * t->variant.memory_bytes, &s, NULL);
	if (!rc) {
		*hours = s.best.step_s / ((double)j.batch * seq) * tokens * gpus / 3600;
		plan_search_free(&s);
	}
	plan_train_fit_free(fit);
	return rc ? "no layout fits in memory" : NULL;
}

/* ---- one row ---- */

static bool has(const struct plan_truth *t, const char *key) { return json_object_get(t->measured, key) && !json_is_null(json_object_get(t->measured, key)); }

static int predict_row(const struct plan_truths *all, int row, const struct plan_catalog *c, double *predicted_s, double *measured_s, struct plan_predictions *out, struct stave_err *err)
{
	const struct plan_truth *t = &all->row[row];
	struct plan_train_case x;
	if (has(t, "activation_pct_of_tp_baseline"))
		return predict_shares(all, row, c, out, err);
	double hours = plan_truth_measured(t, "gpu_hours"), predicted;
	if (hours > 0) {
		const char *why = hours_of(t, c, &predicted);
		return why ? skip(out, row, "gpu_hours", why, err) : add(out, row, "gpu_hours", hours, predicted, err);
	}
	bool memory = has(t, "activation_gib") || has(t, "params_optimizer_gib");
	const char *metric = memory ? "activation_memory" : "step_time", *why = plan_train_case_of(all, row, c, &x);
	if (why)
		return skip(out, row, metric, why, err);
	struct plan_train_fit *fit;
	int rc = plan_train_fit_open(&fit, c, t->accelerator, x.stack, err);
	if (rc)
		return rc;
	x.machine.fit = fit;
	if (x.measured_s > 0) {
		*measured_s = x.measured_s;
		*predicted_s = plan_train_case_step_s(&x);
		rc = add(out, row, "step_time", *measured_s, *predicted_s, err);
	} else if (!memory) {
		rc = skip(out, row, metric, "no rate of a step is stated", err);
	}
	if (!rc)
		rc = predict_memory(t, &x, out, err);
	plan_train_fit_free(fit);
	return rc;
}

/* ---- picking a layout ---- */

static bool same_task(const struct plan_truth *a, const struct plan_truth *b)
{
	const struct stave_shape *s = &a->shape, *t = &b->shape;
	return !strcmp(a->group, b->group) && !strcmp(a->gpu, b->gpu) && a->gpus == b->gpus && a->seq == b->seq && a->global_batch == b->global_batch && a->global_batch > 0 &&
	       !strcmp(a->precision_text, b->precision_text) && s->L == t->L && s->C == t->C && s->V == t->V && s->I == t->I && s->experts == t->experts;
}

static bool same_layout(const struct plan_truth *a, const struct plan_truth *b)
{
	return a->tp == b->tp && a->pp == b->pp && a->dp == b->dp && a->cp == b->cp && a->ep == b->ep && a->vp == b->vp && a->zero == b->zero && a->recompute == b->recompute &&
	       a->micro == b->micro && a->seq_parallel == b->seq_parallel && a->async_tp == b->async_tp;
}

/* For each set of three or more measured layouts of one task: how long the one we would pick took, against the fastest. */
static int predict_choices(const struct plan_truths *all, const double *predicted, const double *measured, struct plan_predictions *out, struct stave_err *err)
{
	int rc = 0;
	bool *seen = calloc((size_t)(all->n ? all->n : 1), sizeof *seen);
	if (!seen)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d measured runs", all->n);
	for (int i = 0; i < all->n && !rc; i++) {
		if (seen[i] || !(measured[i] > 0))
			continue;
		int n = 0, pick = i, best = i;
		for (int k = i; k < all->n; k++) {
			if (seen[k] || !(measured[k] > 0) || !same_task(&all->row[i], &all->row[k]))
				continue;
			seen[k] = true;
			n += k == i || !same_layout(&all->row[i], &all->row[k]);
			pick = predicted[k] < predicted[pick] ? k : pick;
			best = measured[k] < measured[best] ? k : best;
		}
		if (n >= 3)
			rc = add(out, pick, "layout_choice", measured[best], measured[pick], err);
	}
	free(seen);
	return rc;
}

int plan_predict_train(const struct plan_truths *t, const struct plan_catalog *c, struct plan_predictions *out, struct stave_err *err)
{
	double *seconds = calloc(2 * (size_t)(t->n ? t->n : 1), sizeof *seconds);
	if (!seconds)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d measured runs", t->n);
	double *predicted = seconds, *measured = seconds + t->n;
	int rc = 0;
	for (int i = 0; i < t->n && !rc; i++)
		if (!strcmp(t->row[i].kind, "train"))
			rc = predict_row(t, i, c, &predicted[i], &measured[i], out, err);
	if (!rc)
		rc = predict_choices(t, predicted, measured, out, err);
	free(seconds);
	return rc;
}
