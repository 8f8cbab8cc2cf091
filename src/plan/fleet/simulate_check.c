/* What a fleet may be. Everything is checked before anything is computed from it: a number outside its range is an error that names the site, pool or job, the
 * field, the range and what was found; NaN is outside every range. The ranges keep all sums finite and the number of events bounded. */
#include <math.h>
#include <stdio.h>

#include "plan/fleet/simulate.h"

enum { MOST_SITES = 64, MOST_POOLS = 256, MOST_POOLS_OF_SITE = 32, MOST_WINDOWS = 4096, MOST_NODES = 1000000, MOST_JOBS = 1000000, MOST_REPLICATIONS = 1000 };
static const double most_events = 1e8, most_seconds = 10 * 365.25 * 86400, most_load = 1e15;

struct owner { const char *kind, *name; long index; };

static int wrong(struct stave_err *err, struct owner o, const char *field, double found, double low, double high, const char *unit)
{
	char number[32];
	snprintf(number, sizeof number, "%ld", o.index);
	return stave_err_set(err, STAVE_ECONFIG, "%s %s: %s must be from %g to %g%s%s, found %g", o.kind, o.name && o.name[0] ? o.name : number, field, low, high,
	                     unit[0] ? " " : "", unit, found);
}

/* One row per field: a table, so that no field goes unchecked. */
struct range { const char *field; double value, low, high; const char *unit; };

static int in_ranges(const struct range *r, size_t n, struct owner o, struct stave_err *err)
{
	for (size_t i = 0; i < n; i++)
		if (!(r[i].value >= r[i].low && r[i].value <= r[i].high))
			return wrong(err, o, r[i].field, r[i].value, r[i].low, r[i].high, r[i].unit);
	return 0;
}
#define IN_RANGES(r, o, err) in_ranges(r, sizeof(r) / sizeof *(r), o, err)

static int check_counts(const struct plan_fleet *f, struct stave_err *err)
{
	const struct range r[] = {
		{"number of sites", (double)f->sites, 1, MOST_SITES, ""},
		{"number of pools", (double)f->pools, 1, MOST_POOLS, ""},
		{"number of jobs", (double)f->jobs, 0, MOST_JOBS, ""},
		{"number of maintenance windows", (double)f->windows, 0, MOST_WINDOWS, ""},
		{"horizon", f->horizon_s, 1, most_seconds, "s"},
		{"replications", f->replications, 1, MOST_REPLICATIONS, ""},
		{"jobs x replications", (double)f->jobs * f->replications, 0, 1e7, ""},
	};
	int rc = IN_RANGES(r, ((struct owner){"fleet", "as a whole", 0}), err);
	if (rc)
		return rc;
	if (!f->site || !f->pool || (f->jobs && !f->job) || (f->windows && !f->window))
		return stave_err_set(err, STAVE_ECONFIG, "fleet: an array is missing");
	return 0;
}

static int check_site(const struct plan_fleet *f, int i, struct stave_err *err)
{
	const struct plan_fleet_site *s = &f->site[i];
	const struct range r[] = {
		{"pue", s->pue, 1, 10, ""},
		{"other_w", s->other_w, 0, 1e9, "W"},
		{"cap_w", s->cap_w, 0, 1e11, "W"},
		{"throttle_floor", s->throttle_floor, 0.05, 1, ""},
		{"throttle_exponent", s->throttle_exponent, 0.5, 4, ""},
		{"price_per_j", s->price_per_j, 0, 1, ""},
		{"kg_per_j", s->kg_per_j, 0, 1, "kg"},
	};
	return IN_RANGES(r, ((struct owner){"site", s->name, i}), err);
}

static int check_pool(const struct plan_fleet *f, int i, struct stave_err *err)
{
	const struct plan_fleet_pool *p = &f->pool[i];
	const struct range r[] = {
		{"site", p->site, 0, (double)f->sites - 1, ""},
		{"nodes", p->nodes, 1, MOST_NODES, ""},
		{"spares", p->spares, 0, p->nodes, ""},
		{"idle_w", p->idle_w, 0, 1e6, "W"},
		{"mean_w", p->mean_w, p->idle_w, 1e6, "W (idle_w at least)"},
		{"peak_w", p->peak_w, p->mean_w, 1e6, "W (mean_w at least)"},
		{"failure_rate_s", p->failure_rate_s, 0, 0.01, "per node and second"},
		{"weibull_shape", p->weibull_shape > 0 ? p->weibull_shape : p->weibull_shape == 0 ? 1 : p->weibull_shape, 0.3, 10, ""},
		{"infant_factor", p->infant_factor, 0, 1000, ""},
		{"infant_s", p->infant_factor > 0 ? p->infant_s : 1, 1, most_seconds, "s"},
		{"age_s", p->age_s, 0, 10 * most_seconds, "s"},
		{"soft_share", p->soft_share, 0, 1, ""},
		{"repair.mean_s", p->failure_rate_s > 0 ? p->repair.mean_s : 1, 1, most_seconds, "s"},
		{"repair.spread", p->repair.spread, 0, 10, ""},
		{"backfill_s", p->backfill_s, 0, most_seconds, "s"},
		{"price_node_s", p->price_node_s, 0, 1e6, ""},
	};
	return IN_RANGES(r, ((struct owner){"pool", p->name, i}), err);
}

static int check_training(const struct plan_fleet_job *j, struct owner o, struct stave_err *err)
{
	const struct range r[] = {
		{"work_s", j->work_s, 1e-3, 1e12, "s"},
		{"step_s", j->step_s, 0, 1e6, "s"},
		{"checkpoint_every_s", j->checkpoint_every_s, j->checkpoint_every_s == 0 ? 0 : 1e-3, 1e12, "s"},
		{"checkpoint_s", j->checkpoint_s, 0, 1e7, "s"},
		{"checkpoint_flush_s", j->checkpoint_flush_s, 0, j->checkpoint_every_s + j->checkpoint_s, "s (a checkpoint must be safe before the next begins)"},
		{"detect_s", j->detect_s, 0, 1e7, "s"},
		{"restart_s", j->restart_s, 0, 1e7, "s"},
		{"deadline_s", j->deadline_s, 0, 1e12, "s"},
		{"work_s / checkpoint_every_s", j->checkpoint_every_s > 0 ? j->work_s / j->checkpoint_every_s : 0, 0, 1e12, ""},
	};
	return IN_RANGES(r, o, err);
}

static int check_serving(const struct plan_fleet *f, const struct plan_fleet_job *j, struct owner o, struct stave_err *err)
{
	const struct plan_fleet_pool *p = &f->pool[j->pool];
	double most = 0, days = f->horizon_s / 86400 + 8;
	for (int h = 0; h < 24; h++) {
		const struct range hour[] = {{"load", j->load[h], 0, most_load, "per second"}};
		int rc = IN_RANGES(hour, o, err);
		if (rc)
			return rc;
		most = fmax(most, j->load[h]);
	}
	const struct range r[] = {
		{"weekend_factor", j->weekend_factor, 0, 100, ""},
		{"first_weekday", j->first_weekday, 0, 6, ""},
		{"utc_offset_s", j->utc_offset_s, -86400, 86400, "s"},
		{"growth_per_day", j->growth_per_day, -0.5, 0.5, ""},
		{"load_spread", j->load_spread, 0, 3, ""},
		{"capacity_s", j->capacity_s, 1e-9, most_load, "per second"},
		{"target", j->target, 0.01, 1, ""},
		{"replicas_max", j->replicas_max, 1, (double)((p->nodes - p->spares) / j->nodes), "(what fits on the pool without its spares)"},
		{"replicas_min", j->replicas_min, 0, j->replicas_max, "(replicas_max)"},
		{"decide_s", j->decide_s, 10, 86400, "s"},
		{"ahead_s", j->ahead_s, 0, 7 * 86400, "s"},
		{"cooldown_s", j->cooldown_s, 0, most_seconds, "s"},
		{"restart_s", j->restart_s, 0, 1e7, "s"},
		{"detect_s", j->detect_s, 0, 1e7, "s"},
		{"load after growth", most * fmax(1, j->weekend_factor) * pow(1 + fmax(0, j->growth_per_day), days), 0, most_load, "per second"},
	};
	return IN_RANGES(r, o, err);
}

static int check_job(const struct plan_fleet *f, int i, struct stave_err *err)
{
	const struct plan_fleet_job *j = &f->job[i];
	struct owner o = {"job", j->name, i};
	const struct range r[] = {
		{"kind", j->kind, PLAN_FLEET_TRAIN, PLAN_FLEET_SERVE, ""},
		{"pool", j->pool, 0, (double)f->pools - 1, ""},
		{"nodes", j->nodes, 1, MOST_NODES, ""},
		{"arrival_s", j->arrival_s, 0, 1e12, "s"},
		{"start_s", j->start_s, 0, 1e7, "s"},
	};
	int rc = IN_RANGES(r, o, err);
	if (rc)
		return rc;
	const struct plan_fleet_pool *p = &f->pool[j->pool];
	if (j->nodes > p->nodes - p->spares)
		return stave_err_set(err, STAVE_ENOFIT, "job %s wants %d nodes, pool %s has %d without its %d spares: %d more nodes would let it start", j->name ? j->name : "", j->nodes,
		                     p->name ? p->name : "", p->nodes - p->spares, p->spares, j->nodes - (p->nodes - p->spares));
	return j->kind == PLAN_FLEET_TRAIN ? check_training(j, o, err) : check_serving(f, j, o, err);
}

static int check_window(const struct plan_fleet *f, int i, struct stave_err *err)
{
	const struct plan_fleet_window *w = &f->window[i];
	const struct range place[] = {{"pool", w->pool, 0, (double)f->pools - 1, ""}};
	struct owner o = {"maintenance window", "of a pool", i};
	int rc = IN_RANGES(place, o, err);
	if (rc)
		return rc;
	o.name = f->pool[w->pool].name;
	const struct range r[] = {
		{"nodes", w->nodes, 1, f->pool[w->pool].nodes, ""},
		{"start_s", w->start_s, 0, 1e12, "s"},
		{"duration_s", w->duration_s, 1, most_seconds, "s"},
		{"every_s", w->every_s, w->every_s == 0 ? 0 : w->duration_s + 1, 1e12, "s (longer than the window itself)"},
	};
	return IN_RANGES(r, o, err);
}

/* Pools of a site stand together, so that a site can walk its own. */
static int check_order(const struct plan_fleet *f, struct stave_err *err)
{
	int of_site = 0;
	double nodes = 0;
	for (int i = 0; i < f->pools; i++) {
		nodes += f->pool[i].nodes;
		of_site = i && f->pool[i].site == f->pool[i - 1].site ? of_site + 1 : 1;
		if (i && f->pool[i].site < f->pool[i - 1].site)
			return stave_err_set(err, STAVE_ECONFIG, "pool %s: pools must be in the order of their sites", f->pool[i].name ? f->pool[i].name : "");
		if (of_site > MOST_POOLS_OF_SITE)
			return stave_err_set(err, STAVE_ECONFIG, "site %s: more than %d pools", f->site[f->pool[i].site].name ? f->site[f->pool[i].site].name : "", MOST_POOLS_OF_SITE);
	}
	const struct range r[] = {
		{"nodes", nodes, 1, MOST_NODES, ""},
		{"nodes x horizon", nodes * f->horizon_s, 0, 9e12, "node-seconds (285,000 node-years)"}, /* in microseconds that is what 64 bits hold */
	};
	return IN_RANGES(r, ((struct owner){"fleet", "as a whole", 0}), err);
}

/* The cap must leave every node idle and every job at its floor. */
static int check_power(const struct plan_fleet *f, struct stave_err *err)
{
	for (int i = 0; i < f->sites; i++) {
		const struct plan_fleet_site *s = &f->site[i];
		double idle_w = s->other_w;
		for (int k = 0; k < f->pools; k++)
			idle_w += f->pool[k].site == i ? f->pool[k].nodes * f->pool[k].idle_w : 0;
		if (s->cap_w > 0 && s->cap_w < idle_w * s->pue * (1 + 1e-9))
			return stave_err_set(err, STAVE_ENOFIT, "site %s: its nodes draw %.6g kW at the meter when all are idle, the cap is %.6g kW: raise it above that, or take nodes away",
			                     s->name ? s->name : "", idle_w * s->pue * 1e-3, s->cap_w * 1e-3);
		for (int k = 0; k < f->jobs && s->cap_w > 0; k++) {
			const struct plan_fleet_job *j = &f->job[k];
			const struct plan_fleet_pool *p = &f->pool[j->pool];
			double share = j->kind == PLAN_FLEET_TRAIN ? pow(s->throttle_floor, s->throttle_exponent) : 1;
			double least_w = (idle_w + j->nodes * (p->peak_w - p->idle_w) * share) * s->pue * (1 + 1e-9);
			if (p->site == i && s->cap_w < least_w)
				return stave_err_set(err, STAVE_ENOFIT, "job %s can never start: alone on site %s it takes the meter to %.6g kW, the cap is %.6g kW: raise the cap, lower throttle_floor, or give it fewer nodes",
				                     j->name ? j->name : "", s->name ? s->name : "", least_w * 1e-3, s->cap_w * 1e-3);
		}
	}
	return 0;
}

/* An upper estimate of what will happen, so that a spec cannot ask for a simulation without end. */
static int check_events(const struct plan_fleet *f, struct stave_err *err)
{
	double failures = 0, decisions = 0, windows = 0;
	for (int i = 0; i < f->pools; i++) {
		const struct plan_fleet_pool *p = &f->pool[i];
		failures += p->nodes * p->failure_rate_s * (f->horizon_s + p->infant_factor * fmin(p->infant_s, f->horizon_s));
	}
	for (int i = 0; i < f->jobs; i++)
		decisions += f->job[i].kind == PLAN_FLEET_SERVE ? f->horizon_s / f->job[i].decide_s : 0;
	for (int i = 0; i < f->windows; i++)
		windows += f->window[i].every_s > 0 ? f->horizon_s / f->window[i].every_s * f->window[i].nodes : f->window[i].nodes;
	const struct range r[] = {
		{"events of all replications (failures, decisions of autoscalers, maintained nodes)",
		 (failures + decisions + windows + (double)f->jobs) * f->replications, 0, most_events, ""},
	};
	return IN_RANGES(r, ((struct owner){"fleet", "as a whole", 0}), err);
}

int plan_fleet_check(const struct plan_fleet *f, struct stave_err *err)
{
	int rc = check_counts(f, err);
	for (int i = 0; !rc && i < f->sites; i++)
		rc = check_site(f, i, err);
	for (int i = 0; !rc && i < f->pools; i++)
		rc = check_pool(f, i, err);
	if (!rc)
		rc = check_order(f, err);
	for (int i = 0; !rc && i < f->jobs; i++)
		rc = check_job(f, i, err);
	for (int i = 0; !rc && i < f->windows; i++)
		rc = check_window(f, i, err);
	if (!rc)
		rc = check_power(f, err);
	return rc ? rc : check_events(f, err);
}
