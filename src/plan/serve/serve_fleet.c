/* How many replicas a load needs, and of what kind.
 *
 * A replica's capacity is the highest Poisson rate at which the simulated p99 of both latencies keeps the limits (or, without limits, at which the queue
 * does not grow), found by bisection; what is returned was simulated and kept them. Among the layouts whose weights and one request fit, the one with
 * the fewest devices at the day's peak wins, then the one with more capacity. When none keeps the limits, the error names what binds in the layout that
 * comes nearest: memory, the time of one prompt, or the time of a token at batch 1, none of which more replicas can change.
 *
 * Prefill and decode apart (Zhong 2024, DistServe; Patel 2024, Splitwise) are sized the same way: prompts alone under the first limit less the moving of
 * the cache, decoding alone under the second. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/serve/serve_parts.h"

enum {
	SAMPLES = 2000,      /* requests of one simulation: 20 beyond the p99 */
	STEPS = 9,           /* of bisection: capacity to 0.3 % of the range */
	DEVICES_MAX = 64,
	PER_SPARE = 20,      /* replicas that share one spare */
};

enum reason { FITS, NO_MEMORY, SLOW_PROMPT, SLOW_TOKEN };
struct floor_of { /* the least that latency can be: nothing else on the replica */
	double ttft_s, tpot_s;
	enum reason reason;
	double over;         /* by what factor the limit or the memory is missed */
	struct plan_replica replica;
	char why[400];       /* NO_MEMORY: the numbers */
};

static bool keeps(const struct plan_service *s, const struct plan_slo *slo)
{
	return !s->saturated && (slo->ttft_p99_s <= 0 || s->ttft_p99_s <= slo->ttft_p99_s) && (slo->tpot_p99_s <= 0 || s->tpot_p99_s <= slo->tpot_p99_s);
}

static int simulate(const struct plan_replica *r, const struct plan_load *load, double rate, struct plan_service *out, struct stave_err *err)
{
	struct plan_load l = *load;
	l.rate_s = rate;
	l.concurrency = 0;
	l.requests = SAMPLES;
	return plan_serve_simulate(r, &l, out, err);
}

/* Requests/s of a replica that is never idle: as many clients as it can batch. */
static int most(const struct plan_replica *r, const struct plan_load *load, double *rate, struct stave_err *err)
{
	struct plan_service s;
	struct plan_load l = *load;
	int batch = r->max_batch > 0 ? r->max_batch : r->fit->engine.max_batch;
	l.rate_s = 0;
	l.concurrency = batch < SAMPLES / 4 ? batch : SAMPLES / 4;
	l.requests = SAMPLES;
	int rc = plan_serve_simulate(r, &l, &s, err);
	*rate = rc < 0 ? 0 : s.requests_s;
	return rc;
}

/* 0 when not even a trickle keeps the limits; at: the simulation at that rate. */
static int capacity(const struct plan_replica *r, const struct plan_load *load, const struct plan_slo *slo, double *rate, struct plan_service *at, struct stave_err *err)
{
	double low = 0, high;
	int rc = most(r, load, &high, err);
	high *= 1.1;
	for (int i = 0; rc == 0 && i < STEPS; i++) {
		struct plan_service s;
		/* from a trickle upwards first: limits near the floor leave little room */
		double middle = low > 0 || i > 0 ? (low + high) / 2 : high / 64;
		if ((rc = simulate(r, load, middle, &s, err)) < 0)
			break;
		if (keeps(&s, slo)) {
			low = middle;
			*at = s;
		} else {
			high = middle;
		}
	}
	*rate = low;
	return rc;
}

/* ---- floors ---- */

static void find_floor(const struct plan_replica *r, const struct plan_load *load, const struct plan_slo *slo, struct floor_of *out)
{
	struct plan_service s;
	struct plan_load one = *load;
	struct stave_err err = {0};
	one.rate_s = 0;
	one.concurrency = 1;
	one.requests = 8;
	one.spread = 0;
	*out = (struct floor_of){.reason = FITS, .replica = *r};
	if (plan_serve_simulate(r, &one, &s, &err) < 0) {
		struct plan_serve_memory m;
		plan_serve_memory(r, &m);
		out->reason = NO_MEMORY;
		out->over = (m.weights_bytes + m.activation_bytes) / fmax(r->accelerator->memory_bytes, 1);
		snprintf(out->why, sizeof out->why, "%.399s", err.msg);
		return;
	}
	out->ttft_s = s.ttft_mean_s;
	out->tpot_s = s.tpot_mean_s;
	if (slo->ttft_p99_s > 0 && s.ttft_mean_s > slo->ttft_p99_s) {
		out->reason = SLOW_PROMPT;
		out->over = s.ttft_mean_s / slo->ttft_p99_s;
	}
	if (slo->tpot_p99_s > 0 && s.tpot_mean_s > slo->tpot_p99_s && s.tpot_mean_s / slo->tpot_p99_s > out->over) {
		out->reason = SLOW_TOKEN;
		out->over = s.tpot_mean_s / slo->tpot_p99_s;
	}
}

/* A latency is nearer to feasible than memory is: devices that hold the model at least run it. */
static bool nearer(const struct floor_of *a, const struct floor_of *b)
{
	if ((a->reason == NO_MEMORY) != (b->reason == NO_MEMORY))
		return b->reason == NO_MEMORY;
	return a->over < b->over;
}

static int refuse(const struct floor_of *f, const struct plan_slo *slo, struct stave_err *err)
{
	const struct plan_replica *r = &f->replica;
	int devices = plan_replica_devices(r);
	if (f->reason == NO_MEMORY)
		return stave_err_set(err, STAVE_ENOFIT, "no layout of up to %d %s fits the model: %s", devices, r->accelerator->name, f->why);
	if (f->reason == SLOW_PROMPT)
		return stave_err_set(err, STAVE_ENOFIT, "time to first token: one prompt alone takes %.0f ms on %d %s (tp %d, pp %d) and the limit is %.0f ms; "
		                     "allow %.0f ms, or take faster devices or shorter prompts",
		                     1e3 * f->ttft_s, devices, r->accelerator->name, r->tp, r->pp, 1e3 * slo->ttft_p99_s, 1.2e3 * f->ttft_s);
	if (f->reason == SLOW_TOKEN)
		return stave_err_set(err, STAVE_ENOFIT, "time per output token: a sequence alone takes %.1f ms on %d %s (tp %d, pp %d) and the limit is %.1f ms; "
		                     "allow %.1f ms, or take narrower weights or devices of more memory bandwidth",
		                     1e3 * f->tpot_s, devices, r->accelerator->name, r->tp, r->pp, 1e3 * slo->tpot_p99_s, 1.2e3 * f->tpot_s);
	return stave_err_set(err, STAVE_ENOFIT, "latency limits (first token %.0f ms, each token %.1f ms, p99): one request alone keeps them (%.0f ms, %.1f ms) on %d %s "
	                     "but varying requests do not at any rate; allow %.0f ms and %.1f ms",
	                     1e3 * slo->ttft_p99_s, 1e3 * slo->tpot_p99_s, 1e3 * f->ttft_s, 1e3 * f->tpot_s, devices, r->accelerator->name, 2e3 * f->ttft_s, 2e3 * f->tpot_s);
}

/* ---- layouts ---- */

static int link_domain(const struct plan_accelerator *a)
{
	/* without a link of their own, devices of one host reach one another over it */
	return a->cpu ? 1 : a->link_domain > 1 ? a->link_domain : 8;
}

/* Tensor parallelism as asked, else each that divides the heads within a link domain; pipelines only where that alone does not hold the model. */
static int layouts(const struct plan_replica *r, struct plan_replica *out, int room)
{
	int n = 0, domain = link_domain(r->accelerator), low = r->tp > 0 ? r->tp : 1, high = r->tp > 0 ? r->tp : domain < DEVICES_MAX ? domain : DEVICES_MAX;
	for (int tp = low; tp <= high; tp *= 2) {
		for (int pp = r->pp > 0 ? r->pp : 1; pp <= (r->pp > 0 ? r->pp : DEVICES_MAX / tp) && n < room; pp *= 2) {
			struct plan_serve_memory m;
			struct plan_replica *x = &out[n];
			*x = *r;
			x->tp = tp;
			x->pp = pp;
			x->ep = r->ep > 0 ? r->ep : 1;
			if (r->tp <= 0 && (r->shape.H % tp || (pp > 1 && tp * 2 <= high)))
				continue;
			n++;
			plan_serve_memory(x, &m);
			if (m.kv_bytes > 0)
				break;
		}
	}
	return n;
}

static int replicas_for(double rate, double capacity_s)
{
	double n = fmax(1, ceil(rate / capacity_s - 1e-9));
	return n < 1e8 ? (int)n : 100000000;
}

static double peak_of(const double hourly[24])
{
	double peak = 0;
	for (int i = 0; i < 24; i++)
		peak = fmax(peak, hourly[i]);
	return peak;
}

static double devices_at(const struct plan_serve_choice *c, double peak)
{
	return (double)replicas_for(peak, c->capacity_s) * plan_replica_devices(&c->replica);
}

/* Smaller chunks hold decoding up less, larger ones compute prompts better: the better of the engine's own and a quarter of it. */
static int better_chunk(struct plan_serve_choice *c, const struct plan_load *load, const struct plan_slo *slo, struct stave_err *err)
{
	struct plan_serve_choice other = *c;
	if (slo->tpot_p99_s <= 0 || c->replica.chunk > 0)
		return 0;
	other.replica.chunk = c->replica.fit->engine.chunk / 4;
	if (other.replica.chunk < 1)
		return 0;
	int rc = capacity(&other.replica, load, slo, &other.capacity_s, &other.at_capacity, err);
	if (rc == 0 && other.capacity_s > 1.02 * c->capacity_s)
		*c = other;
	return rc;
}

/* Replicas of an average hour: as many as its load needs, and those that start ahead of the next hour's. */
static double mean_replicas(const double hourly[24], double capacity_s, double load_s)
{
	double sum = 0, lag = fmin(fmax(load_s, 0) / 3600, 24);
	for (int i = 0; i < 24; i++) {
		int now = replicas_for(hourly[i], capacity_s), next = replicas_for(hourly[(i + 1) % 24], capacity_s);
		sum += now + (next > now ? (next - now) * lag : 0);
	}
	return sum / 24;
}

/* Prompts and decoding on replicas of their own. A decoding replica gets its cache ready made: to it the whole prompt is a prefix hit. */
static int compare_split(struct plan_serve_choice *c, const struct plan_load *load, const struct plan_slo *slo, double peak, struct stave_err *err)
{
	struct plan_slo first = {.ttft_p99_s = slo->ttft_p99_s}, each = {.tpot_p99_s = slo->tpot_p99_s};
	struct plan_load prompts = *load, decoding = *load;
	struct plan_service s;
	double prompt_rate, decode_rate;
	prompts.output = 1;
	decoding.prefix_hit = 1;
	if (first.ttft_p99_s > 0 && (first.ttft_p99_s -= plan_serve_transfer_s(&c->replica, load->input)) <= 0)
		return 0;
	int rc = capacity(&c->replica, &prompts, &first, &prompt_rate, &s, err);
	if (rc == 0)
		rc = capacity(&c->replica, &decoding, &each, &decode_rate, &s, err);
	if (rc < 0 || !(prompt_rate > 0) || !(decode_rate > 0))
		return rc;
	int p = replicas_for(peak, prompt_rate), d = replicas_for(peak, decode_rate);
	if (p + d < replicas_for(peak, c->capacity_s)) {
		c->split = true;
		c->prefill_replicas = p;
		c->decode_replicas = d;
	}
	return 0;
}

static int best_layout(const struct plan_replica *r, const struct plan_load *load, const struct plan_slo *slo, double peak, struct plan_serve_choice *best, struct stave_err *err)
{
	struct plan_replica layout[32];
	struct floor_of nearest = {.reason = NO_MEMORY, .over = INFINITY, .replica = *r};
	int n = layouts(r, layout, 32), rc = 0;
	best->capacity_s = 0;
	for (int i = 0; rc == 0 && i < n; i++) {
		struct plan_serve_choice c = {.replica = layout[i]};
		struct floor_of f;
		find_floor(&layout[i], load, slo, &f);
		if (i == 0 || nearer(&f, &nearest))
			nearest = f;
		if (f.reason != FITS)
			continue;
		if ((rc = capacity(&layout[i], load, slo, &c.capacity_s, &c.at_capacity, err)) < 0 || !(c.capacity_s > 0))
			continue;
		double devices = devices_at(&c, peak), least = best->capacity_s > 0 ? devices_at(best, peak) : INFINITY;
		if (devices < least || (devices <= least && c.capacity_s > best->capacity_s))
			*best = c;
	}
	if (rc == 0 && n == 0)
		return stave_err_set(err, STAVE_ENOFIT, "no tensor-parallel degree divides %d heads", r->shape.H);
	return rc < 0 || best->capacity_s > 0 ? rc : refuse(&nearest, slo, err);
}

int plan_serve_choose(const struct plan_replica *r, const struct plan_load *load, const double hourly[24], const struct plan_slo *slo, double load_s,
                      struct plan_serve_choice *out, struct stave_err *err)
{
	struct plan_serve_choice c = {.replica = *r};
	double peak = peak_of(hourly);
	int rc;
	if ((rc = best_layout(r, load, slo, peak, &c, err)) < 0 || (rc = better_chunk(&c, load, slo, err)) < 0)
		return rc;
	int replicas = replicas_for(peak, c.capacity_s);
	c.replicas_peak = replicas + replicas / PER_SPARE;
	c.replicas_mean = fmin(mean_replicas(hourly, c.capacity_s, load_s), c.replicas_peak);
	if ((rc = compare_split(&c, load, slo, peak, err)) < 0)
		return rc;
	*out = c;
	return 0;
}
