/* Serving at a place: the replica, how many of them the day's load takes, and the bill over the time it is served. */
#include <math.h>
#include <string.h>

#include "cost/machine.h"
#include "plan/evaluate.h"

#define REQUESTS 4000      /* simulated for the latencies at the peak: 40 beyond the p99 */
#define ENGINE_START_S 60.0 /* of a replica, besides reading its weights: process, graphs, warm-up */

static double peak_of(const double *hourly)
{
	double most = 0;
	for (int i = 0; i < 24; i++)
		most = fmax(most, hourly[i]);
	return most;
}
static double mean_of(const double *hourly)
{
	double sum = 0;
	for (int i = 0; i < 24; i++)
		sum += hourly[i];
	return sum / 24;
}

static double start_s(const struct plan_here *h, const struct plan_replica *r, const struct plan_scale *k)
{
	static const double bytes[PLAN_PRECISIONS] = {[PLAN_F32] = 4, [PLAN_BF16] = 2, [PLAN_FP8] = 1, [PLAN_FP4] = 0.5625, [PLAN_I8] = 1, [PLAN_I4] = 0.5625};
	double rate = h->node->storage_bytes_s > 0 ? h->node->storage_bytes_s : h->node->nic_bytes_s;
	if (h->storage)
		rate = fmin(rate, h->storage->read_bytes_s);
	return ENGINE_START_S + (double)stave_shape_params(&r->shape) * bytes[r->weights] / (rate * k->of[PLAN_STORAGE]);
}

/* Money per million tokens: what the fleet costs a second, split by the time that computing the input and making the output take. */
static void prices(const struct plan_work *w, struct plan_serving_result *s, double money_s)
{
	const struct plan_replica *r = &s->choice.replica;
	double cached = w->input * w->prefix_hit, computed = w->input - cached, batch = fmax(1, s->choice.at_capacity.batch_mean);
	double input_s = plan_iteration_s(r, 0, 0, (int)fmax(1, computed), cached), output_s = w->output * plan_iteration_s(r, (int)batch, w->input + w->output / 2, 0, 0) / batch;
	struct plan_tokens t = {.input_s = computed * s->mean_rate, .cached_s = cached * s->mean_rate, .output_s = w->output * s->mean_rate, .input_share = input_s, .output_share = output_s};
	struct plan_token_price price;
	plan_token_price_evaluate(&t, money_s, &price);
	s->money_per_mtoken = price.mean;
	s->input_per_mtoken = price.input;
	s->cached_per_mtoken = price.cached;
	s->output_per_mtoken = price.output;
}

static int choose(const struct stave_plan *p, const struct plan_here *h, int tp, const struct plan_scale *k, struct plan_work_result *r, struct stave_err *err)
{
	const struct plan_work *w = r->work;
	struct plan_serving_result *s = &r->serve;
	struct plan_serve_fit *fit;
	int rc = plan_serve_fit_open(&fit, p->catalog, h->accelerator, w->stack, err);
	if (rc)
		return rc;
	struct plan_replica replica = {.shape = w->shape, .weights = (enum plan_precision)w->precision, .kv = (enum plan_precision)w->kv, .accelerator = h->accelerator, .fit = fit,
	                               .tp = tp > 0 ? tp : isnan(w->tp) ? 0 : (int)w->tp, 
	                               .nic_bytes_s = h->node->nic_bytes_s / h->node->count};
	struct plan_load load = {.input = w->input, .output = w->output, .spread = w->spread, .prefix_hit = w->prefix_hit, .seed = (unsigned long)p->spec->seed};
	struct plan_slo slo = {isnan(w->ttft_p99_s) ? 0 : w->ttft_p99_s, isnan(w->tpot_p99_s) ? 0 : w->tpot_p99_s};
	rc = plan_serve_choose(&replica, &load, w->hourly, &slo, start_s(h, &replica, k), &s->choice, err);
	if (!rc) {
		plan_serve_memory(&s->choice.replica, &s->memory);
		r->error_p50 = s->choice.at_capacity.error_tpot_p50;
		r->error_p90 = s->choice.at_capacity.error_tpot_p90;
	}
	if (!rc && s->choice.replica.tp * s->choice.replica.pp > h->nodes * h->node->count)
		rc = stave_err_set(err, STAVE_ENOFIT, "a replica takes %d devices and %s has %d", s->choice.replica.tp * s->choice.replica.pp, h->site->name, h->nodes * h->node->count);
	if (!rc) { /* the replica is used once more, while its fit lives */
		s->peak_rate = peak_of(w->hourly);
		s->mean_rate = mean_of(w->hourly);
		prices(w, s, 1);
		load.rate_s = s->peak_rate / s->choice.replicas_peak;
		load.requests = REQUESTS;
		rc = plan_serve_simulate(&s->choice.replica, &load, &s->at_peak, err);
	}
	s->choice.replica.fit = NULL;
	plan_serve_fit_free(fit);
	return rc;
}

/* On a measured machine what one request alone gets is forecast from the machine's own samples, as stave bench infer does. */
static int alone(const struct plan_here *h, const struct plan_work *w, struct plan_serving_result *s, struct stave_err *err)
{
	static const enum stave_qtype type[PLAN_PRECISIONS] = {[PLAN_F32] = STAVE_Q_F32, [PLAN_BF16] = STAVE_Q_BF16, [PLAN_FP8] = STAVE_Q_Q8_0, [PLAN_FP4] = STAVE_Q_Q4_K,
	                                                       [PLAN_I8] = STAVE_Q_Q8_0, [PLAN_I4] = STAVE_Q_Q4_K};
	struct stave_machine m;
	s->alone_prefill_tokens_s = s->alone_decode_tokens_s = NAN;
	if (strcmp(h->pool->type, "profile"))
		return 0;
	int rc = stave_machine_load(&m, h->pool->profile[0] ? h->pool->profile : NULL, err);
	if (rc)
		return rc;
	struct stave_answering a = {.weights = type[w->precision], .head = type[w->precision], .cache = w->kv == PLAN_F32 ? STAVE_F32 : w->kv == PLAN_BF16 ? STAVE_BF16 : STAVE_I8,
	                            .prompt = (int)w->input, .generate = (int)w->output, .sequences = 1};
	struct stave_answer_rates rates = stave_machine_answer(&m, &w->shape, &a);
	if (!rates.sampled) /* a profile without these types bounds the rates only from above */
		return 0;
	s->alone_prefill_tokens_s = rates.prefill_tokens_s;
	s->alone_decode_tokens_s = rates.decode_tokens_s;
	return 0;
}

/* The load curve owned, rented, and the cheapest of both, per hour of it. */
static int mix(const struct stave_plan *p, const struct plan_here *h, struct plan_serving_result *s, const double *hourly, struct stave_err *err)
{
	struct plan_owning o;
	struct plan_owned owned;
	double rent_s, load[24], hours = PLAN_YEAR_S / 3600;
	int rc;
	s->best.total_hour = s->rent.total_hour = s->own.total_hour = s->best.owned = s->best.rented_share = NAN;
	if ((rc = plan_bill_owning(p, h, &o, err)) || (rc = plan_bill_rent_s(p, h, &rent_s, err)) || !isfinite(rent_s) || !isfinite(o.devices) || !isfinite(o.busy_energy_year))
		return rc;
	plan_owned_evaluate(&o, 1, &owned);
	for (int i = 0; i < 24; i++)
		load[i] = hourly[i] / s->choice.capacity_s * s->gpus_replica;
	double once = (o.staff_year + o.space_year) / hours, fixed = owned.fixed_year / o.count / hours - once / o.count;
	plan_hybrid_choose(load, 24, h->node->count, fixed, o.busy_energy_year / o.count / hours, once, rent_s * 3600, &s->best, &s->rent, &s->own);
	return 0;
}

int plan_evaluate_serve(const struct stave_plan *p, const struct plan_here *h, int tp, const struct plan_scale *k, struct plan_work_result *r, struct stave_err *err)
{
	struct plan_serving_result *s = &r->serve;
	const struct plan_work *w = r->work;
	int rc = choose(p, h, tp, k, r, err);
	if (rc)
		return rc;
	int have = h->nodes * h->node->count;
	s->gpus_replica = s->choice.replica.tp * s->choice.replica.pp;
	s->gpus_peak = s->choice.replicas_peak * s->gpus_replica;
	s->tokens_day = s->mean_rate * (w->input + w->output) * 86400;
	if (s->gpus_peak > have)
		return stave_err_set(err, STAVE_ENOFIT, "%s:%d: %s: the peak of %.3g requests/s takes %d replicas of %d devices, %d in all, and %s has %d; %.3g requests/s would fit", p->spec->file,
		                     w->line, w->name, s->peak_rate, s->choice.replicas_peak, s->gpus_replica, s->gpus_peak, h->site->name, have,
		                     s->choice.capacity_s * (have / s->gpus_replica));
	/* owned devices stand there all day; rented ones come and go with the load */
	double devices = h->site->rented ? s->choice.replicas_mean * s->gpus_replica : s->gpus_peak;
	double nodes = devices / h->node->count, peak = ceil((double)s->gpus_peak / h->node->count);
	double busy = s->mean_rate / fmax(s->choice.capacity_s * devices / s->gpus_replica, 1e-12) * s->choice.at_capacity.busy_share;
	struct plan_use use = {.nodes = nodes, .devices = devices, .peak_nodes = peak, .seconds = w->days, .busy = fmin(busy, 1), .network_share = nodes / (h->nodes + h->spares)};
	if ((rc = plan_bill_use(p, h, &use, &r->money, &r->footprint, err)))
		return rc;
	if ((rc = alone(h, w, s, err)) || (rc = mix(p, h, s, w->hourly, err)))
		return rc;
	double money_s = r->money.total / w->days;
	s->money_per_mtoken *= money_s, s->input_per_mtoken *= money_s, s->cached_per_mtoken *= money_s, s->output_per_mtoken *= money_s;
	r->serving = true;
	r->start_day = p->site[r->site].ready_p50_day > p->spec->start_day ? p->site[r->site].ready_p50_day : p->spec->start_day;
	r->finish_p10_day = r->finish_p50_day = r->finish_p90_day = NAN;
	r->objective = plan_objective(p, r);
	return 0;
}
