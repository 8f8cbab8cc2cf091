/* Gangs: nodes that start, compute, fail and stop together.
 *
 * Checkpoints are not events. A training gang at work repeats a cycle (checkpoint_every_s of work, then checkpoint_s of standing still), so whatever ends its
 * run - a failure, its end, an eviction - finds in closed form how many checkpoints were taken, what they saved and what is lost. The last stretch ends with
 * the job and needs no checkpoint. */
#include <math.h>

#include "plan/fleet/simulate_state.h"

enum run_end { RUN_FAILS, RUN_SAVES, RUN_ENDS, RUN_GOES_ON /* only the simulation is over */ };

static double interval(const struct plan_fleet_job *in)
{
	if (in->step_s <= 0 || in->checkpoint_every_s <= 0)
		return in->checkpoint_every_s;
	return ceil(in->checkpoint_every_s / in->step_s - 1e-9) * in->step_s;
}

/* Of a run that goes on to the job's end: seconds of the site's own time, checkpoints included. */
static double left_s(const struct plan_fleet_job *in, const struct plan_sim_job *job)
{
	double work = in->work_s - job->saved_s, every = interval(in);
	if (every <= 0)
		return work;
	return work + fmax(0, ceil(work / every - 1e-9) - 1) * in->checkpoint_s;
}

/* Nodes that are not computing: add the time since the last booking. */
static void book_start(struct plan_sim *f, int g)
{
	struct plan_sim_gang *gang = &f->gang[g];
	struct plan_sim_job *job = &f->job[gang->job];
	double t = (double)(f->now_us - gang->since_us) * 1e-6;
	*(gang->failed ? &job->out.restarting_s : &job->out.starting_s) += t;
	*(gang->failed ? &job->restarting : &job->starting) += t * (double)gang->nodes;
	gang->since_us = f->now_us;
}

static void book_training(struct plan_sim *f, int g, enum run_end how)
{
	struct plan_sim_gang *gang = &f->gang[g];
	struct plan_sim_job *job = &f->job[gang->job];
	const struct plan_fleet_job *in = &f->in->job[gang->job];
	const struct plan_sim_site *s = plan_sim_site_of(f, in->pool);
	double real = (double)(f->now_us - gang->since_us) * 1e-6, end = left_s(in, job);
	double t = how == RUN_ENDS ? end : fmin(s->time_s - gang->since_s, end);
	double every = interval(in), cycle = every + in->checkpoint_s;
	double taken = every > 0 ? floor(t / cycle) : 0, kept = taken;
	double rest = t - taken * cycle, work = every > 0 ? fmin(rest, every) : rest;
	if (in->checkpoint_flush_s > 0 && every > 0)
		kept = fmin(taken, fmax(0, floor((t - in->checkpoint_flush_s) / cycle)));
	double useful = taken * every + work, saved = how == RUN_FAILS || (how == RUN_SAVES && every <= 0) ? kept * every : useful;
	if (how == RUN_ENDS)
		useful = saved = in->work_s - job->saved_s;
	double nodes = (double)gang->nodes, stall = t - useful, slow = fmax(0, real - t);
	job->saved_s += saved;
	job->out.useful_s += saved;
	job->out.lost_s += useful - saved;
	job->out.checkpoint_s += stall;
	job->out.throttled_s += slow;
	job->out.checkpoints += (long)(how == RUN_ENDS && in->checkpoint_s > 0 ? round(stall / in->checkpoint_s) : taken);
	job->useful += saved * nodes;
	job->lost += (useful - saved) * nodes;
	job->checkpoint += stall * nodes;
	job->throttled += slow * nodes;
}

static void book_run(struct plan_sim *f, int g, enum run_end how)
{
	struct plan_sim_gang *gang = &f->gang[g];
	struct plan_sim_job *job = &f->job[gang->job];
	if (f->in->job[gang->job].kind == PLAN_FLEET_TRAIN) {
		book_training(f, g, how);
	} else {
		double t = (double)(f->now_us - gang->since_us) * 1e-6;
		job->out.useful_s += t;
		job->useful += t * (double)gang->nodes;
	}
	gang->since_us = f->now_us;
	gang->since_s = plan_sim_site_of(f, f->in->job[gang->job].pool)->time_s;
}

/* Power and node counts of a gang that computes now (sign 1) or does no longer (-1). */
static void count_up(struct plan_sim *f, int g, int sign)
{
	const struct plan_sim_gang *gang = &f->gang[g];
	const struct plan_fleet_job *in = &f->in->job[gang->job];
	struct plan_sim_site *s = plan_sim_site_of(f, in->pool);
	bool train = in->kind == PLAN_FLEET_TRAIN;
	s->state[PLAN_NODE_STARTING] -= sign * gang->nodes;
	s->state[train ? PLAN_NODE_BUSY : PLAN_NODE_SERVING] += sign * gang->nodes;
	if (train) {
		s->train_mean_mw += sign * gang->nodes * f->pool[in->pool].mean_mw;
	} else {
		plan_serve_touch(f, gang->job);
		f->job[gang->job].up += sign;
		plan_serve_power(f, gang->job);
	}
}

/* Book what it did until now, and be it not computing. */
static void halt(struct plan_sim *f, int g, enum run_end how)
{
	struct plan_sim_gang *gang = &f->gang[g];
	if (!gang->up) {
		book_start(f, g);
		plan_heap_drop(&f->events, plan_event_gang(f, g));
		return;
	}
	book_run(f, g, how);
	plan_heap_drop(&plan_sim_site_of(f, f->in->job[gang->job].pool)->ends, g);
	count_up(f, g, -1);
	gang->up = false;
}

/* All nodes are in hand: it computes after this long. */
static void begin(struct plan_sim *f, int g)
{
	struct plan_sim_gang *gang = &f->gang[g];
	const struct plan_fleet_job *in = &f->in->job[gang->job];
	struct plan_sim_job *job = &f->job[gang->job];
	double wait = gang->failed ? in->detect_s + in->restart_s : in->start_s + job->debt_s;
	if (!gang->failed)
		job->debt_s = 0;
	plan_heap_set(&f->events, plan_event_gang(f, g), (double)(f->now_us + plan_sim_us(wait)));
}

static void take(struct plan_sim *f, int g, int pool)
{
	struct plan_sim_pool *p = &f->pool[pool];
	struct plan_sim_site *s = plan_sim_site_of(f, pool);
	int n = p->first_free;
	plan_node_remove(f, &p->first_free, n);
	plan_node_insert(f, &f->gang[g].first, n, PLAN_PLACE_GANG, g);
	p->free--;
	f->gang[g].nodes++;
	s->state[PLAN_NODE_IDLE]--;
	s->state[PLAN_NODE_STARTING]++;
}

static void count_peak(struct plan_sim *f, int j, int sign)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	struct plan_sim_site *s = plan_sim_site_of(f, in->pool);
	int64_t mw = sign * in->nodes * f->pool[in->pool].peak_mw;
	*(in->kind == PLAN_FLEET_TRAIN ? &s->train_peak_mw : &s->serve_peak_mw) += mw;
	f->pool[in->pool].used += sign * in->nodes;
}

int plan_gang_start(struct plan_sim *f, int j)
{
	const struct plan_fleet_job *in = &f->in->job[j];
	struct plan_sim_job *job = &f->job[j];
	int g = f->gang_store[--f->gangs_stored];
	f->gang[g] = (struct plan_sim_gang){.job = j, .first = PLAN_NONE, .next = job->gang, .prev = PLAN_NONE, .since_us = f->now_us};
	if (job->gang != PLAN_NONE)
		f->gang[job->gang].prev = g;
	job->gang = g;
	job->held++;
	if (!job->started)
		job->out.start_s = (double)f->now_us * 1e-6;
	job->started = true;
	count_peak(f, j, 1);
	while (f->gang[g].nodes < in->nodes)
		take(f, g, in->pool);
	plan_heap_set(&f->pool[in->pool].gangs, g, -(double)job->rank);
	begin(f, g);
	return g;
}

void plan_gang_event(struct plan_sim *f, int g)
{
	struct plan_sim_gang *gang = &f->gang[g];
	const struct plan_fleet_job *in = &f->in->job[gang->job];
	struct plan_sim_site *s = plan_sim_site_of(f, in->pool);
	plan_site_touch(f, s);
	book_start(f, g);
	gang->up = true;
	gang->failed = false;
	gang->since_s = s->time_s;
	count_up(f, g, 1);
	if (in->kind == PLAN_FLEET_TRAIN)
		plan_heap_set(&s->ends, g, s->time_s + left_s(in, &f->job[gang->job]));
}

void plan_gang_fail(struct plan_sim *f, int g, int n, bool soft)
{
	struct plan_sim_gang *gang = &f->gang[g];
	int pool = f->in->job[gang->job].pool;
	halt(f, g, RUN_FAILS);
	gang->failed = true;
	f->job[gang->job].out.failures++;
	if (!soft) {
		struct plan_sim_site *s = plan_sim_site_of(f, pool);
		plan_node_remove(f, &gang->first, n);
		gang->nodes--;
		gang->missing++;
		s->state[PLAN_NODE_STARTING]--;
		s->state[PLAN_NODE_IDLE]++;
		plan_heap_set(&f->pool[pool].shorts, g, f->job[gang->job].rank);
	} else if (!gang->missing) {
		begin(f, g);
	}
}

void plan_gang_refill(struct plan_sim *f, int pool)
{
	struct plan_sim_pool *p = &f->pool[pool];
	while (p->free && p->shorts.n) {
		int g = p->shorts.id[0];
		book_start(f, g);
		take(f, g, pool);
		if (--f->gang[g].missing)
			continue;
		plan_heap_drop(&p->shorts, g);
		begin(f, g);
	}
}

/* Its nodes and power are for others. The nodes go straight to the free list: who is short of some gets them first. */
static void release(struct plan_sim *f, int g)
{
	struct plan_sim_gang *gang = &f->gang[g];
	int j = gang->job, pool = f->in->job[j].pool;
	struct plan_sim_pool *p = &f->pool[pool];
	struct plan_sim_site *s = plan_sim_site_of(f, pool);
	plan_heap_drop(&p->gangs, g);
	plan_heap_drop(&p->shorts, g);
	s->state[PLAN_NODE_STARTING] -= gang->nodes;
	s->state[PLAN_NODE_IDLE] += gang->nodes;
	for (; gang->nodes; gang->nodes--) {
		int n = gang->first;
		plan_node_remove(f, &gang->first, n);
		plan_node_insert(f, &p->first_free, n, PLAN_PLACE_FREE, PLAN_NONE);
		p->free++;
	}
	count_peak(f, j, -1);
	*(gang->prev != PLAN_NONE ? &f->gang[gang->prev].next : &f->job[j].gang) = gang->next;
	if (gang->next != PLAN_NONE)
		f->gang[gang->next].prev = gang->prev;
	f->job[j].held--;
	f->gang_store[f->gangs_stored++] = g;
	plan_gang_refill(f, pool);
	for (int i = s->first_pool; i < s->first_pool + s->pools; i++)
		if (i == pool || s->room_mw >= 0)
			f->pool[i].dirty = true;
}

void plan_gang_stop(struct plan_sim *f, int g)
{
	halt(f, g, RUN_SAVES);
	release(f, g);
}

void plan_gang_evict(struct plan_sim *f, int g)
{
	int j = f->gang[g].job;
	const struct plan_fleet_job *in = &f->in->job[j];
	struct plan_sim_job *job = &f->job[j];
	/* Saving takes the time of a checkpoint; it is booked at the job's next start. */
	if (f->gang[g].up && in->kind == PLAN_FLEET_TRAIN && in->checkpoint_every_s > 0)
		job->debt_s = in->checkpoint_s;
	halt(f, g, RUN_SAVES);
	release(f, g);
	job->out.preemptions++;
	plan_job_wait(f, j, in->kind == PLAN_FLEET_TRAIN ? in->nodes : (int64_t)(job->wanted - job->held) * in->nodes, PLAN_WANT_NODES);
}

void plan_gang_ends(struct plan_sim *f, struct plan_sim_site *s)
{
	/* Own time is a sum of many terms: a microsecond is well above its rounding and below what anybody plans by. */
	while (s->ends.n && s->ends.key[0] <= s->time_s + 1e-6) {
		int g = s->ends.id[0];
		struct plan_sim_job *job = &f->job[f->gang[g].job];
		halt(f, g, RUN_ENDS);
		release(f, g);
		job->out.finish_s = (double)f->now_us * 1e-6;
	}
}

void plan_gang_close(struct plan_sim *f, int j)
{
	for (int g = f->job[j].gang; g != PLAN_NONE; g = f->gang[g].next) {
		if (f->gang[g].up)
			book_run(f, g, RUN_GOES_ON);
		else
			book_start(f, g);
	}
}
