/* Who runs: jobs arrive, wait in the order of their priority and arrival, and start when their pool has nodes and their site power. A job that does not fit is
 * passed over by later ones that do, but only for as long as its pool allows, so a large one is not starved by small ones. Serving jobs decide at intervals how
 * many replicas they want; missing ones wait in the same queue. */
#include <math.h>

#include "plan/fleet/simulate_state.h"

enum { MOST_VICTIMS = 256 };

void plan_job_wait(struct plan_sim *f, int j, int64_t nodes, enum plan_want want)
{
	struct plan_sim_job *job = &f->job[j];
	struct plan_sim_pool *p = &f->pool[f->in->job[j].pool];
	struct plan_sim_site *s = plan_sim_site_of(f, f->in->job[j].pool);
	if (job->waiting) {
		double t = (double)(f->now_us - job->wait_us) * 1e-6;
		job->out.wait_s += t;
		if (job->want == PLAN_WANT_POWER)
			job->out.wait_power_s += t;
		p->demand[job->want] -= job->waiting;
		s->queued--;
	}
	if (!job->waiting)
		job->patience_us = f->now_us;
	job->waiting = (int32_t)nodes;
	job->want = want;
	job->wait_us = f->now_us;
	if (!nodes) {
		plan_heap_drop(&p->queue, j);
		return;
	}
	p->demand[want] += nodes;
	s->queued++;
	plan_heap_set(&p->queue, j, job->rank);
}

/* ---- starting ---- */

/* What is missing for another gang when so many nodes and so much power were given back first; PLAN_WANTS: nothing. */
static enum plan_want missing(const struct plan_sim *f, int j, int nodes, const int64_t back_mw[2])
{
	const struct plan_fleet_job *in = &f->in->job[j];
	const struct plan_sim_pool *p = &f->pool[in->pool];
	if (p->free + nodes < in->nodes || p->used - nodes + in->nodes > p->in->nodes - p->in->spares)
		return PLAN_WANT_NODES;
	int64_t more = in->nodes * p->peak_mw;
	bool train = in->kind == PLAN_FLEET_TRAIN;
	bool power = plan_site_admits(&f->site[p->in->site], (train ? more : 0) - back_mw[PLAN_FLEET_TRAIN], (train ? 0 : more) - back_mw[PLAN_FLEET_SERVE]);
	return power ? PLAN_WANTS : PLAN_WANT_POWER;
}

/* Evict as few as needed of the gangs of lowest priority below this job's; none when that would not help. */
static enum plan_want make_room(struct plan_sim *f, int j, enum plan_want lacks)
{
	struct plan_sim_pool *p = &f->pool[f->in->job[j].pool];
	int32_t victim[MOST_VICTIMS];
	int n = 0, nodes = 0;
	int64_t back_mw[2] = {0, 0};
	while (lacks != PLAN_WANTS && p->gangs.n && n < MOST_VICTIMS) {
		int32_t g = p->gangs.id[0];
		const struct plan_fleet_job *other = &f->in->job[f->gang[g].job];
		if (other->priority >= f->in->job[j].priority)
			break;
		plan_heap_drop(&p->gangs, g);
		victim[n++] = g;
		nodes += other->nodes;
		back_mw[other->kind] += other->nodes * p->peak_mw;
		lacks = missing(f, j, nodes, back_mw);
	}
	for (int i = 0; i < n; i++)
		plan_heap_set(&p->gangs, victim[i], -(double)f->job[f->gang[victim[i]].job].rank);
	for (int i = 0; i < n && lacks == PLAN_WANTS; i++)
		plan_gang_evict(f, victim[i]);
	/* Nodes given back may have gone to gangs that missed some. */
	return lacks == PLAN_WANTS ? missing(f, j, 0, (int64_t[2]){0, 0}) : lacks;
}

/* Start what can be started of a waiting job. Returns what the rest lacks. */
static enum plan_want start(struct plan_sim *f, int j)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	const int64_t none[2] = {0, 0};
	while (f->job[j].waiting) {
		enum plan_want lacks = missing(f, j, 0, none);
		if (lacks != PLAN_WANTS && in->preempts)
			lacks = make_room(f, j, lacks);
		if (lacks != PLAN_WANTS) {
			if (lacks != f->job[j].want)
				plan_job_wait(f, j, f->job[j].waiting, lacks);
			return lacks;
		}
		int64_t rest = f->job[j].waiting - in->nodes;
		plan_gang_start(f, j);
		plan_job_wait(f, j, rest, f->job[j].want);
	}
	return PLAN_WANTS;
}

void plan_pool_schedule(struct plan_sim *f, int pool)
{
	struct plan_sim_pool *p = &f->pool[pool];
	int32_t aside[PLAN_BACKFILL_DEPTH];
	int n = 0;
	p->dirty = false;
	while (p->queue.n && n < PLAN_BACKFILL_DEPTH && (p->free || p->preempting)) {
		int32_t j = p->queue.id[0];
		if (start(f, j) == PLAN_WANTS)
			continue;
		plan_heap_drop(&p->queue, j);
		aside[n++] = j;
		if (f->now_us - f->job[j].patience_us >= plan_sim_us(p->in->backfill_s))
			break;
	}
	while (n--)
		plan_heap_set(&p->queue, aside[n], f->job[aside[n]].rank);
	p->dirty = false; /* what eviction freed has been offered already */
}

/* ---- serving ---- */

/* Requests/s of the curve at a time of the simulation. */
static double curve(const struct plan_fleet_job *in, double t_s)
{
	double local = t_s + in->utc_offset_s, day = floor(local / 86400);
	double hour = (local - day * 86400) / 3600 - 0.5, low = floor(hour);
	int h = ((int)low + 24) % 24, weekday = (int)fmod(fmod(day + in->first_weekday, 7) + 7, 7);
	double load = in->load[h] + (hour - low) * (in->load[(h + 1) % 24] - in->load[h]);
	if (weekday >= 5 && in->weekend_factor > 0)
		load *= in->weekend_factor;
	return load * pow(1 + in->growth_per_day, t_s / 86400);
}

void plan_serve_power(struct plan_sim *f, int j)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	struct plan_sim_job *job = &f->job[j];
	double capacity = job->up * in->capacity_s;
	double use = capacity > 0 ? fmin(1, job->load_s / capacity) : 0;
	int64_t mw = llround((double)job->up * in->nodes * (double)f->pool[in->pool].mean_mw * use);
	plan_sim_site_of(f, in->pool)->serve_mean_mw += mw - job->power_mw;
	job->power_mw = mw;
}

void plan_serve_touch(struct plan_sim *f, int j)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	struct plan_sim_job *job = &f->job[j];
	double seconds = (double)(f->now_us - job->touched_us) * 1e-6;
	double unserved_s = fmax(0, job->load_s - job->up * in->capacity_s);
	job->out.load += job->load_s * seconds;
	job->out.unserved += unserved_s * seconds;
	if (job->load_s > 0)
		plan_site_book_load(f, plan_sim_site_of(f, in->pool), job->touched_us, f->now_us, job->load_s, unserved_s);
	job->touched_us = f->now_us;
}

static int replicas(const struct plan_fleet_job *in, double load_s)
{
	double n = ceil(load_s / (in->capacity_s * in->target) - 1e-9);
	return (int)fmin(fmax(n, in->replicas_min), in->replicas_max);
}

/* More replicas than wanted stop once that has lasted; those that still start go first, being the newest. */
static void shrink(struct plan_sim *f, int j)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	struct plan_sim_job *job = &f->job[j];
	if (job->held <= job->wanted) {
		job->surplus_us = -1;
		return;
	}
	if (job->surplus_us < 0)
		job->surplus_us = f->now_us;
	if (f->now_us - job->surplus_us < plan_sim_us(in->cooldown_s))
		return;
	while (job->held > job->wanted)
		plan_gang_stop(f, job->gang);
	job->surplus_us = -1;
}

static void decide(struct plan_sim *f, int j)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	struct plan_sim_job *job = &f->job[j];
	double t = (double)f->now_us * 1e-6;
	plan_serve_touch(f, j);
	job->load_s = plan_random_lognormal(&job->random, curve(in, t), in->load_spread);
	job->wanted = replicas(in, fmax(job->load_s, curve(in, t + in->ahead_s)));
	plan_serve_power(f, j);
	shrink(f, j);
	int64_t short_of = job->wanted > job->held ? (int64_t)(job->wanted - job->held) * in->nodes : 0;
	if (short_of != job->waiting)
		plan_job_wait(f, j, short_of, PLAN_WANT_NODES);
	f->pool[in->pool].dirty |= short_of > 0;
	plan_heap_set(&f->events, plan_event_job(f, j), (double)(f->now_us + plan_sim_us(in->decide_s)));
}

void plan_job_event(struct plan_sim *f, int j)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	plan_site_touch(f, plan_sim_site_of(f, in->pool));
	if (in->kind == PLAN_FLEET_SERVE) {
		if (!f->job[j].arrived)
			f->job[j].touched_us = f->now_us;
		f->job[j].arrived = true;
		decide(f, j);
		return;
	}
	f->job[j].arrived = true;
	plan_job_wait(f, j, in->nodes, PLAN_WANT_NODES);
	f->pool[in->pool].dirty = true;
}
