/* A plan turned into a fleet: what the closed forms say of each work alone (step time, checkpoints, capacity of a replica) is what the simulator lets run together. */
#include "plan/fleet/fleet_spec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/bill.h"
#include "plan/site/facility.h"

#define DETECT_S 60.0          /* until a failure is noticed (ByteRobust SOSP 2025: 2 to 60 s by kind; a hang takes longer) */
#define REPAIR_SPREAD 1.0      /* coefficient of variation of repairs (Schroeder and Gibson 2006: large) */
#define SCALE_UP_S 120.0       /* of a serving replica; as evaluate_serve.c */

struct parts {
	struct plan_fleet_site site[PLAN_SITES_MAX];
	struct plan_fleet_pool pool[PLAN_SITES_MAX * PLAN_POOLS_MAX];
	struct plan_fleet_job job[PLAN_WORKS_MAX];
	int first_pool[PLAN_SITES_MAX];
	int sites, pools, jobs;
};

static double or_zero(double v) { return isfinite(v) ? v : 0; }

/* Where the specification does not say how many spares there are, the plan takes it that a failed node is replaced at once: as many as that takes stand beside the others. */
static int spares_assumed(const struct stave_plan *p, int site, int pool)
{
	double most = 0;
	for (int i = 0; i < p->spec->works; i++) {
		const struct plan_work_result *r = &p->work[i];
		if (r->site == site && !r->serving && r->here.pool == &p->spec->site[site].pool[pool])
			most = fmax(most, r->train.spares_wanted);
	}
	return (int)fmin(most, 1e5);
}

static int add_pool(const struct stave_plan *p, struct parts *f, int site, int pool, struct stave_err *err)
{
	static const struct plan_scale as_it_is = {{1, 1, 1, 1, 1, 1, 1, 1, 1}};
	const struct plan_site *s = &p->spec->site[site];
	struct plan_here h;
	int rc = plan_here_find(p, s, pool, &as_it_is, &h, err);
	if (rc)
		return rc;
	h.node = &h.own_node, h.accelerator = &h.own_accelerator;
	double energy, rent, cost_s = 0, years = s->life_s / PLAN_YEAR_S;
	struct plan_owning o;
	if ((rc = plan_bill_energy_j(p, &h, &energy, err)) || (rc = plan_bill_rent_s(p, &h, &rent, err)) || (rc = plan_bill_owning(p, &h, &o, err)))
		return rc;
	if (s->rented)
		cost_s = or_zero(rent) * h.node->count;
	else
		cost_s = or_zero(o.devices + o.network + o.storage) * (plan_crf(s->interest, years) + s->maintenance) / (h.nodes + h.spares) / PLAN_YEAR_S;
	if (!pool) {
		double kg = !isnan(s->kg_per_j) ? s->kg_per_j : h.grid ? h.grid->kg_per_j : 0;
		f->site[site] = (struct plan_fleet_site){.name = s->name, .pue = plan_bill_pue(&h), .cap_w = or_zero(s->power_w), .throttle_floor = 0.5, .throttle_exponent = 2,
		                                         .other_w = (h.network ? h.network->port_w * h.node->nics * (h.nodes + h.spares) : 0) + (h.storage ? h.storage->power_w : 0),
		                                         .price_per_j = s->rented ? 0 : or_zero(energy), .kg_per_j = kg};
		f->first_pool[site] = f->pools;
	}
	int nodes = h.power_bound ? (int)s->pool[pool].count : h.nodes + h.spares; /* the cap is the simulator's to keep */
	int assumed = isnan(s->spares) ? spares_assumed(p, site, pool) : 0;
	f->pool[f->pools++] = (struct plan_fleet_pool){
		.name = h.pool->type, .site = site, .nodes = nodes + assumed, .spares = h.spares + assumed, .idle_w = h.node->idle_w, .mean_w = plan_node_power_w(h.node, 1),
		.peak_w = plan_node_power_w(h.node, 1), .failure_rate_s = s->failures_per_node_s, .weibull_shape = p->spec->fleet.shape, .soft_share = 0.5,
		.repair = {s->repair_s, REPAIR_SPREAD}, .backfill_s = 86400, .price_node_s = cost_s};
	return 0;
}

static int pool_of(const struct parts *f, const struct plan_work_result *r) { return f->first_pool[r->site] + (int)(r->here.pool - r->here.site->pool); }

/* The simulation begins when the first work does; works without a date begin with it. */
static double first_day(const struct stave_plan *p)
{
	double day = INFINITY;
	for (int i = 0; i < p->spec->works; i++)
		day = fmin(day, p->work[i].start_day);
	return day;
}
static double after_s(const struct stave_plan *p, double day)
{
	double days = day - first_day(p);
	return isfinite(days) && days > 0 ? days * 86400 : 0;
}

static void train_job(const struct stave_plan *p, const struct plan_work_result *r, struct plan_fleet_job *j)
{
	const struct plan_training_result *t = &r->train;
	*j = (struct plan_fleet_job){.kind = PLAN_FLEET_TRAIN, .nodes = (int)ceil((double)t->gpus / r->here.node->count), .start_s = t->restart_s, .work_s = t->ideal_s,
	                             .step_s = t->step_s, .checkpoint_every_s = t->interval_s, .checkpoint_s = t->checkpoint_stall_s,
	                             .checkpoint_flush_s = fmax(t->checkpoint_write_s - t->checkpoint_stall_s, 0), .detect_s = DETECT_S, .restart_s = t->restart_s};
	j->deadline_s = after_s(p, r->work->by_day);
}

static void serve_job(const struct stave_plan *p, const struct plan_work_result *r, struct plan_fleet_job *j)
{
	const struct plan_serving_result *s = &r->serve;
	int per_node = r->here.node->count / (s->gpus_replica > 0 ? s->gpus_replica : 1), nodes = (s->gpus_replica + r->here.node->count - 1) / r->here.node->count;
	int together = per_node > 1 ? per_node : 1; /* small replicas fill a node */
	*j = (struct plan_fleet_job){.kind = PLAN_FLEET_SERVE, .nodes = nodes, .priority = 1, .preempts = true, .start_s = SCALE_UP_S, .capacity_s = s->choice.capacity_s * together,
	                             .target = 0.8, .replicas_min = 1, .decide_s = 300, .cooldown_s = 1800, .load_spread = 0.05};
	memcpy(j->load, r->work->hourly, sizeof j->load);
	j->weekend_factor = p->spec->fleet.weekend;
	j->replicas_max = r->here.nodes / nodes > 1 ? r->here.nodes / nodes : 1;
}

int plan_fleet_of_plan(const struct stave_plan *p, struct plan_fleet *out, struct stave_err *err)
{
	struct parts *f = calloc(1, sizeof *f);
	int rc = 0;
	if (!f)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for a fleet");
	for (f->sites = 0; f->sites < p->spec->sites && !rc; f->sites++)
		for (int k = 0; k < p->spec->site[f->sites].pools && !rc; k++)
			rc = add_pool(p, f, f->sites, k, err);
	for (int i = 0; i < p->spec->works && !rc; i++) {
		const struct plan_work_result *r = &p->work[i];
		struct plan_fleet_job *j = &f->job[f->jobs++];
		if (r->serving)
			serve_job(p, r, j);
		else
			train_job(p, r, j);
		j->name = r->work->name;
		j->pool = pool_of(f, r);
		j->arrival_s = after_s(p, r->start_day);
	}
	if (rc) {
		free(f);
		return rc;
	}
	*out = (struct plan_fleet){.site = f->site, .pool = f->pool, .job = f->job, .sites = f->sites, .pools = f->pools, .jobs = f->jobs, .horizon_s = p->spec->fleet.horizon_s,
	                           .seed = (uint64_t)p->spec->seed, .replications = (int)p->spec->fleet.replications, .currency = p->spec->currency};
	return 0;
}

/* The sites are the first of the parts. */
void plan_fleet_of_plan_free(struct plan_fleet *f) { free((void *)f->site); }
