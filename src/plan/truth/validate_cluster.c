/* Predictions of measured figures of clusters and their power: checkpoint periods and sizes, failures, what storage must give, node power, energy, carbon, collectives.
 *
 * A row is recognised by what it holds, not by the name of its group, so that a table by another hand is read too. Each predictor takes the inputs its equation
 * needs and answers for the figures they lead to; what a row says that nothing else in it leads to is skipped with the reason. Energy that somebody computed as
 * hours times the name plate is never scored as power: it would measure the agreement of two guesses. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plan/site/facility.h"
#include "plan/site/reliability.h"
#include "plan/site/storage.h"
#include "plan/train/train.h"
#include "plan/truth/truth.h"

/* Meta's fleet in 2023, of which the model cards give neither PUE nor grid (Meta environmental data index 2024). */
#define META_PUE 1.08

struct scope {
	const struct plan_truth *t;
	const struct plan_catalog *catalog;
	struct plan_predictions *out;
	struct stave_err *err;
	int row, said, rc;
};

static void append(struct scope *s, const char *metric, double measured, double predicted, const char *skipped)
{
	struct plan_prediction p = {.row = s->row, .metric = metric, .measured = measured, .predicted = predicted, .skipped = skipped};
	if (s->rc == 0)
		s->rc = plan_predictions_add(s->out, &p, s->err);
	s->said++;
}

static double measured(const struct scope *s, const char *key) { return plan_truth_measured(s->t, key); }

/* A prediction of measured.KEY, unless the row does not have it. */
static void say(struct scope *s, const char *metric, const char *key, double predicted)
{
	double m = measured(s, key);
	if (isfinite(m) && isfinite(predicted))
		append(s, metric, m, predicted, NULL);
}

static double workload(const struct scope *s, const char *key)
{
	const json_t *v = json_object_get(json_object_get(s->t->row, "workload"), key);
	return json_is_number(v) ? json_number_value(v) : NAN;
}

static double nodes(const struct scope *s, double gpus) { return gpus / (s->t->gpus_per_node > 0 ? s->t->gpus_per_node : 8); }

/* ---- checkpoints and storage ---- */

static void checkpoint_period(struct scope *s)
{
	struct plan_recovery r = {.mtbf_s = workload(s, "mtbf_s"), .checkpoint_s = workload(s, "ckpt_s"), .restart_s = workload(s, "restart_s"), .down_s = workload(s, "down_s")};
	if (!(r.mtbf_s > 0 && r.checkpoint_s > 0 && r.restart_s >= 0 && r.down_s >= 0))
		return;
	say(s, "young", "young_s", plan_interval_s(PLAN_YOUNG, &r));
	say(s, "daly", "daly_s", plan_interval_s(PLAN_DALY, &r));
	say(s, "rfo", "rfo_s", plan_interval_s(PLAN_RFO, &r));
	say(s, "exact", "exact_opt_s", plan_interval_s(PLAN_EXACT, &r));
}

static void checkpoint_size(struct scope *s)
{
	double bytes = s->t->params * PLAN_CHECKPOINT_BYTES_PER_PARAMETER;
	if (!(bytes > 0))
		return;
	say(s, "checkpoint_bytes", "checkpoint_gib_if_binary", bytes / 0x1p30);
	say(s, "checkpoint_bytes", "checkpoint_tb", bytes / 1e12);
}

static void storage_load(struct scope *s)
{
	double step = measured(s, "step_time_s"), bytes = measured(s, "bytes_per_sample");
	if (s->t->micro > 0 && step > 0 && bytes > 0)
		say(s, "read_rate", "read_GBps_per_gpu", plan_feed_device_bytes_s(s->t->micro, bytes, step) / 1e9);
}

/* ---- failures ---- */

/* "arXiv:2407.21783" of a source, to leave its own rate out of the typical one; "" when it cites none. */
static void arxiv_of(const char *source, char out[24])
{
	const char *at = source ? strstr(source, "arXiv:") : NULL;
	snprintf(out, 24, "%.16s", at ? at : "");
}

/* What the row's own rate says of larger jobs: keys mttf_<devices>gpu_h, observed, and the same with _projected. */
static void failures_by_rate(struct scope *s)
{
	double rate = plan_failure_rate_s(measured(s, "failures_per_1000_node_days"));
	const char *key;
	json_t *value;
	if (!(rate > 0))
		return;
	json_object_foreach((json_t *)s->t->measured, key, value) {
		int devices, used = 0;
		if (sscanf(key, "mttf_%9dgpu_h%n", &devices, &used) == 1 && used > 0 && devices > 0)
			say(s, strcmp(key + used, "_projected") ? "mttf_observed" : "mttf_projected", key, plan_job_mtbf_s(nodes(s, devices), rate) / 3600);
	}
}

/* What other fleets' rates say of this one. */
static void failures_held_out(struct scope *s)
{
	char own[24];
	arxiv_of(s->t->source, own);
	if (s->t->gpus <= 0)
		return;
	double mtbf = plan_job_mtbf_s(nodes(s, s->t->gpus), plan_failure_rate_typical(own[0] ? own : NULL, NULL));
	say(s, "mtbf_other_fleets", "mtbf_unexpected_h", mtbf / 3600);
	say(s, "mtbf_other_fleets", "mtbf_min", mtbf / 60);
}

/* What the row's own count of interruptions says. */
static void failures_counted(struct scope *s)
{
	double count = measured(s, "interruptions_unexpected"), days = measured(s, "days"), n = nodes(s, s->t->gpus);
	if (count > 0 && days > 0 && n > 0)
		say(s, "mtbf_counted", "mtbf_unexpected_h", plan_job_mtbf_s(n, plan_failure_rate_s(count / days / n * 1000)) / 3600);
}

static void recovery(struct scope *s)
{
	if (s->t->gpus <= 0)
		return;
	say(s, "restart", "cold_recovery_s", plan_restart_s(s->t->gpus));
	struct plan_recovery r = {.mtbf_s = measured(s, "mtbf_min") * 60, .restart_s = plan_restart_s(s->t->gpus)};
	if (r.mtbf_s > 0) {
		struct plan_goodput g;
		plan_goodput(&r, 0, &g);
		say(s, "effective_time", "effective_fraction", g.useful);
	}
}

/* ---- power, energy, carbon ---- */

static void node_power(struct scope *s)
{
	struct plan_node n = {.rated_w = measured(s, "node_power_w_rated")};
	if (!(n.rated_w > 0))
		return;
	say(s, "node_peak_power", "node_power_w_max", plan_node_power_w(&n, 1));
	say(s, "node_peak_share", "peak_fraction_of_tdp", plan_node_power_w(&n, 1) / n.rated_w);
}

/* Mean power of one device of a running job, with its share of the node: the catalog's nodes with it, working all the time. */
static void device_power(struct scope *s)
{
	const struct plan_accelerator *a = s->t->accelerator;
	double sum = 0;
	int n = 0;
	for (int i = 0; a && i < s->catalog->nodes; i++) {
		const struct plan_node *node = &s->catalog->node[i];
		if (strcmp(node->accelerator, a->name) || !(node->rated_w > 0) || node->count < 1)
			continue;
		sum += plan_node_power_w(node, 1) / node->count;
		n++;
	}
	if (n > 0)
		say(s, "device_power", "avg_system_power_per_chip_w", sum / n);
}

/* Energy from a metered mean power. */
static void energy(struct scope *s)
{
	struct plan_consumption c = {.it_mean_w = measured(s, "avg_system_power_per_chip_w") * s->t->gpus, .seconds = measured(s, "days") * 86400, .pue = measured(s, "pue")};
	if (!(c.it_mean_w > 0 && c.seconds > 0 && c.pue >= 1))
		return;
	struct plan_impact i;
	plan_impact_evaluate(&c, &i);
	say(s, "facility_energy", "energy_mwh", i.facility_j / 3.6e9);
}

/* The model card's own arithmetic, hours x 700 W: a check of units, PUE and grid, not of power. */
static void carbon(struct scope *s)
{
	const void *grid = NULL;
	double hours = measured(s, "gpu_hours");
	if (!(hours > 0) || !s->t->accelerator || !isfinite(measured(s, "tco2e_location")))
		return;
	if (plan_catalog_find(s->catalog, "grid", "us-average", NULL, &grid, NULL) < 0) {
		append(s, "carbon", 0, 0, "the catalog has no grid us-average");
		return;
	}
	struct plan_consumption c = {.it_mean_w = s->t->variant.tdp_w, .seconds = hours * 3600, .pue = META_PUE, .kg_per_j = ((const struct plan_grid *)grid)->kg_per_j};
	struct plan_impact i;
	plan_impact_evaluate(&c, &i);
	say(s, "carbon", "tco2e_location", i.carbon_kg / 1000);
}

/* ---- collectives ---- */

static double number_at(const json_t *list, size_t i)
{
	const json_t *v = json_array_get(list, i);
	return json_is_number(v) ? json_number_value(v) : NAN;
}

/* Bus bandwidth of an all-reduce, GB/s: bytes / time 2 (n - 1) / n (nccl-tests, PERFORMANCE.md). */
static double bus_gbps(double bytes, double seconds, int n) { return bytes / seconds * 2 * (n - 1) / n / 1e9; }

static void all_reduce(struct scope *s, const struct plan_machine *m)
{
	const json_t *points = json_object_get(s->t->measured, "points_bytes_us_busbwGBs"), *range = json_object_get(s->t->measured, "allreduce_busbw_gbps_range");
	int n = m->gpus;
	for (size_t i = 0; i < json_array_size(points); i++) {
		double bytes = number_at(json_array_get(points, i), 0), us = number_at(json_array_get(points, i), 1);
		if (bytes > 0 && us > 0)
			append(s, "allreduce_time", us, 1e6 * plan_collective_s(m, PLAN_ALL_REDUCE, bytes, n, m->gpus_per_node), NULL);
	}
	double low = number_at(range, 0), high = number_at(range, 1), bytes = 0x1p30; /* "at large sizes" */
	if (low > 0 && high >= low)
		append(s, "allreduce_busbw", (low + high) / 2, bus_gbps(bytes, plan_collective_s(m, PLAN_ALL_REDUCE, bytes, n, m->gpus_per_node), n), NULL);
}

static void collectives(struct scope *s)
{
	const json_t *figures = s->t->measured;
	if (!json_object_get(figures, "points_bytes_us_busbwGBs") && !json_object_get(figures, "allreduce_busbw_gbps_range"))
		return;
	if (!s->t->accelerator || s->t->gpus < 2) {
		append(s, "allreduce_time", 0, 0, "the catalog has no such accelerator, or the row no number of them");
		return;
	}
	struct plan_accelerator a = s->t->variant;
	if (s->t->gpu && strstr(s->t->gpu, "no NVSwitch"))
		a.link_domain = 1; /* over the host's PCIe */
	struct plan_train_fit *fit;
	if ((s->rc = plan_train_fit_open(&fit, s->catalog, &a, "", s->err)) < 0)
		return;
	int per_node = s->t->gpus_per_node > 0 ? s->t->gpus_per_node : s->t->gpus;
	struct plan_machine m = {.accelerator = &a, .fit = fit, .gpus = s->t->gpus, .gpus_per_node = per_node, .nic_bytes_s = s->t->node_nic_bytes_s, .sites = 1};
	all_reduce(s, &m);
	plan_train_fit_free(fit);
}

/* ---- all ---- */

/* Why a row that no predictor speaks of has nothing to predict: by a figure that it holds. */
static const struct {
	const char *key, *metric, *reason;
} nothing[] = {
	{"gpu_energy_mwh", "facility_energy", "device energy without the device-hours it was drawn over"},
	{"hpl_pflops", "linpack", "Linpack is not a work that is planned"},
	{"relative_efficiency_pp", "wan", "neither the devices nor the batch of the two sites are in the row"},
	{"effective_training_time_min", "effective_time", "only a bound, and the time of a checkpoint is not in the row"},
	{"ettr", "effective_time", "no size of a job, checkpoint time or failure rate in the row"},
	{"jobs_10pct_slower_share", "stragglers", "slow devices are an input of a plan, not a forecast"},
	{"interruptions_per_1000_servers_day", "failure_rate", "a failure rate is an input of a plan, not a forecast"},
	{"failures_per_1000_node_days", "failure_rate", "a failure rate is an input of a plan, not a forecast"},
	{"manual_restarts_min", "restarts", "only lower bounds, and no checkpoint or failure rate in the row"},
};

static void explain(struct scope *s)
{
	for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
		if (json_object_get(s->t->measured, nothing[i].key)) {
			append(s, nothing[i].metric, 0, 0, nothing[i].reason);
			return;
		}
	append(s, "row", 0, 0, "no figure of the row follows from the others");
}

int plan_predict_cluster(const struct plan_truths *t, const struct plan_catalog *c, struct plan_predictions *out, struct stave_err *err)
{
	static void (*const predictors[])(struct scope *) = {checkpoint_period, checkpoint_size, storage_load, failures_by_rate, failures_counted, failures_held_out,
	                                                     recovery,          node_power,      device_power, energy,           carbon,          collectives};
	for (int i = 0; i < t->n; i++) {
		struct scope s = {.t = &t->row[i], .catalog = c, .out = out, .err = err, .row = i};
		if (!s.t->kind || (strcmp(s.t->kind, "cluster") && strcmp(s.t->kind, "power")))
			continue;
		for (size_t k = 0; k < sizeof predictors / sizeof *predictors && s.rc == 0; k++)
			predictors[k](&s);
		if (s.said == 0 && s.rc == 0)
			explain(&s);
		if (s.rc < 0)
			return s.rc;
	}
	return 0;
}
