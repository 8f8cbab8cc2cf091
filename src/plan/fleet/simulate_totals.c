/* What a simulated fleet comes to: outcomes of jobs, figures of the whole, where node time went, and percentiles over replications. */
#include <math.h>
#include <stdlib.h>

#include "plan/fleet/simulate_state.h"

void plan_sim_close(struct plan_sim *f)
{
	f->now_us = f->end_us;
	for (int i = 0; i < f->in->sites; i++)
		plan_site_touch(f, &f->site[i]);
	for (int j = 0; j < f->in->jobs; j++) {
		if (f->in->job[j].kind == PLAN_FLEET_SERVE && f->job[j].arrived)
			plan_serve_touch(f, j);
		plan_gang_close(f, j);
		if (f->job[j].waiting)
			plan_job_wait(f, j, 0, f->job[j].want);
	}
}

static double held(const struct plan_sim_job *j)
{
	return j->useful + j->lost + j->checkpoint + j->throttled + j->starting + j->restarting;
}

static double share(double part, double whole)
{
	return whole > 0 ? part / whole : 0;
}

/* Sum of the sites, and of the states of their nodes. */
static struct plan_fleet_sample total(const struct plan_sim *f, double *node_us)
{
	struct plan_fleet_sample sum = {.peak_w = 0};
	*node_us = 0;
	for (int i = 0; i < f->in->sites; i++) {
		const struct plan_fleet_sample *a = &f->site[i].total;
		for (int k = 0; k < PLAN_NODE_STATES; k++) {
			sum.node_us[k] += a->node_us[k];
			*node_us += (double)a->node_us[k];
		}
		sum.energy_j += a->energy_j, sum.cost += a->cost, sum.kg += a->kg, sum.speed_s += a->speed_s;
		sum.queue_job_s += a->queue_job_s, sum.queue_node_s += a->queue_node_s, sum.load += a->load, sum.unserved += a->unserved;
		sum.peak_w += a->peak_w; /* not at one moment, if there are several sites: an upper bound */
	}
	return sum;
}

static void training_figures(const struct plan_sim *f, double figure[PLAN_FIGURES])
{
	double useful = 0, all = 0, wait = 0, n = 0;
	for (int i = 0; i < f->in->jobs; i++) {
		const struct plan_sim_job *j = &f->job[i];
		const struct plan_fleet_job *in = &f->in->job[i];
		figure[PLAN_FIGURE_FAILURES] += (double)j->out.failures;
		if (in->kind != PLAN_FLEET_TRAIN)
			continue;
		useful += j->useful;
		all += held(j);
		wait += j->out.wait_s;
		n += j->arrived;
		figure[PLAN_FIGURE_FINISHED] += j->out.finish_s >= 0;
		if (in->deadline_s > 0 && in->deadline_s <= f->in->horizon_s)
			figure[PLAN_FIGURE_LATE] += j->out.finish_s < 0 || j->out.finish_s > in->deadline_s;
	}
	figure[PLAN_FIGURE_GOODPUT] = share(useful, all);
	figure[PLAN_FIGURE_WAIT] = share(wait, n);
}

void plan_sim_figures(const struct plan_sim *f, double figure[PLAN_FIGURES])
{
	double node_us;
	struct plan_fleet_sample sum = total(f, &node_us);
	for (int i = 0; i < PLAN_FIGURES; i++)
		figure[i] = 0;
	training_figures(f, figure);
	figure[PLAN_FIGURE_UTILISATION] = share((double)sum.node_us[PLAN_NODE_BUSY] + (double)sum.node_us[PLAN_NODE_SERVING], node_us);
	figure[PLAN_FIGURE_ENERGY] = sum.energy_j;
	figure[PLAN_FIGURE_COST] = sum.cost;
	figure[PLAN_FIGURE_CARBON] = sum.kg;
	figure[PLAN_FIGURE_UNSERVED] = share(sum.unserved, sum.load);
	for (int i = 0; i < f->in->sites; i++)
		figure[PLAN_FIGURE_THROTTLED] += f->site[i].throttled_s;
}

static void staves(const struct plan_sim *f, struct plan_simulation *out)
{
	double *stave = out->stave_node_s;
	for (int i = 0; i < f->in->sites; i++)
		for (int k = 0; k < PLAN_STAVES; k++)
			stave[k] += f->site[i].stave[k];
	stave[PLAN_STAVE_FAILURES] += (double)out->total.node_us[PLAN_NODE_DOWN] * 1e-6;
	stave[PLAN_STAVE_MAINTENANCE] += (double)out->total.node_us[PLAN_NODE_MAINTENANCE] * 1e-6;
	for (int i = 0; i < f->in->jobs; i++) {
		const struct plan_sim_job *j = &f->job[i];
		stave[PLAN_STAVE_FAILURES] += j->lost + j->restarting;
		stave[PLAN_STAVE_CHECKPOINTS] += j->checkpoint;
		stave[PLAN_STAVE_STARTS] += j->starting;
		stave[PLAN_STAVE_POWER] += j->throttled;
		out->useful_node_s += j->useful;
	}
	for (int k = 1; k < PLAN_STAVES; k++)
		if (stave[k] > stave[out->shortest])
			out->shortest = (enum plan_fleet_stave)k;
}

void plan_sim_outcomes(struct plan_sim *f, struct plan_simulation *out)
{
	double node_us;
	out->total = total(f, &node_us);
	for (int i = 0; i < f->in->jobs; i++) {
		struct plan_sim_job *j = &f->job[i];
		const struct plan_fleet_job *in = &f->in->job[i];
		j->out.goodput = share(j->useful, held(j));
		if (in->kind == PLAN_FLEET_TRAIN)
			j->out.progress = j->out.finish_s >= 0 ? 1 : fmin(1, j->saved_s / in->work_s);
		out->outcome[i] = j->out;
	}
	staves(f, out);
}

/* ---- percentiles ---- */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/* Nearest rank, since between a date and never there is no middle. */
static double rank(const double *sorted, int n, double p)
{
	int i = (int)ceil(p * n) - 1;
	return sorted[i < 0 ? 0 : i];
}

static double date(const double *sorted, int n, double p)
{
	double t = rank(sorted, n, p);
	return isinf(t) ? -1 : t;
}

static void job_percentiles(struct plan_fleet_outcome *o, const struct plan_fleet_job *in, double *finish, int n)
{
	double done = 0, in_time = 0;
	for (int r = 0; r < n; r++) {
		done += !isinf(finish[r]);
		in_time += in->deadline_s > 0 ? finish[r] <= in->deadline_s : !isinf(finish[r]);
	}
	qsort(finish, (size_t)n, sizeof *finish, ascending);
	o->finish_p10_s = date(finish, n, 0.1), o->finish_p50_s = date(finish, n, 0.5), o->finish_p90_s = date(finish, n, 0.9);
	o->finished_share = done / n;
	o->in_time_share = in_time / n;
}

void plan_sim_percentiles(struct plan_simulation *out, double (*figure)[PLAN_FIGURES], double *finish)
{
	int n = out->fleet->replications;
	for (int j = 0; j < out->fleet->jobs; j++)
		job_percentiles(&out->outcome[j], &out->fleet->job[j], finish + (size_t)j * (size_t)n, n);
	for (int k = 0; k < PLAN_FIGURES; k++) {
		double column[1000], sum = 0; /* as many as there may be replications */
		for (int r = 0; r < n; r++)
			sum += column[r] = figure[r][k];
		qsort(column, (size_t)n, sizeof *column, ascending);
		out->over[k] = (struct plan_fleet_percentiles){.mean = sum / n, .p10 = rank(column, n, 0.1), .p50 = rank(column, n, 0.5), .p90 = rank(column, n, 0.9)};
	}
}
