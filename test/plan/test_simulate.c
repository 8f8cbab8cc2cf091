/* The simulated fleet against what is known without simulating: node-time that must add up, the exact formula for checkpoints under failures, Erlang's C for
 * queues, scenarios small enough to work out by hand, and how the number of operations grows. Time is never asserted. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan/fleet/simulate.h"

static const double day = 86400, hour = 3600;
enum { MOST = 8 };

struct world {                   /* a small fleet with its arrays */
	struct plan_fleet_site site[MOST];
	struct plan_fleet_pool pool[MOST];
	struct plan_fleet_job job[MOST];
	struct plan_fleet_window window[MOST];
	struct plan_fleet fleet;
};

static struct plan_fleet_site a_site(void)
{
	return (struct plan_fleet_site){.name = "here", .pue = 1.2, .other_w = 1000, .throttle_floor = 0.5, .throttle_exponent = 2, .price_per_j = 3e-8, .kg_per_j = 1e-7};
}

static struct plan_fleet_pool a_pool(int nodes, int spares)
{
	return (struct plan_fleet_pool){.name = "nodes", .nodes = nodes, .spares = spares, .idle_w = 2000, .mean_w = 7000, .peak_w = 8400,
	                                .repair = {day, 1}, .backfill_s = day, .price_node_s = 0.003};
}

static struct plan_fleet_job a_training(int nodes, double work_s)
{
	return (struct plan_fleet_job){.name = "training", .kind = PLAN_FLEET_TRAIN, .nodes = nodes, .work_s = work_s, .checkpoint_every_s = hour, .checkpoint_s = 60,
	                               .start_s = 120, .restart_s = 300};
}

static struct plan_fleet_job a_service(double load, double capacity, int most)
{
	struct plan_fleet_job j = {.name = "service", .kind = PLAN_FLEET_SERVE, .nodes = 1, .priority = 10, .start_s = 300, .restart_s = 300, .capacity_s = capacity, .target = 0.8,
	                           .replicas_min = 1, .replicas_max = most, .decide_s = 900, .weekend_factor = 0.6, .cooldown_s = 1800};
	for (int h = 0; h < 24; h++)
		j.load[h] = load * (1 - 0.8 * cos((h - 3) * M_PI / 12)) / 1.8;
	return j;
}

/* One site, one pool, nothing to do. */
static void world_make(struct world *w, struct plan_fleet_pool pool, double horizon_s)
{
	*w = (struct world){.fleet = {.sites = 1, .pools = 1, .horizon_s = horizon_s, .seed = 1, .replications = 1}};
	w->site[0] = a_site();
	w->pool[0] = pool;
}

static void world_run(struct world *w, struct plan_simulation *s)
{
	struct stave_err err = {.code = 0};
	w->fleet.site = w->site, w->fleet.pool = w->pool, w->fleet.job = w->job, w->fleet.window = w->window;
	if (plan_simulate(s, &w->fleet, &err))
		fail_msg("%s", err.msg);
}

/* ---- random fleets ---- */

static uint64_t dice_state;
static double dice(double low, double high)
{
	dice_state = dice_state * 6364136223846793005u + 1442695040888963407u;
	return low + (high - low) * (double)(dice_state >> 11) * 0x1p-53;
}

static struct plan_fleet_job any_job(int pool, int nodes)
{
	if (dice(0, 1) < 0.6) {
		struct plan_fleet_job j = a_training(1 + (int)dice(0, nodes * 0.8), dice(0.1, 20) * day);
		j.pool = pool, j.priority = (int)dice(0, 4), j.preempts = dice(0, 1) < 0.3, j.arrival_s = dice(0, 5) * day;
		j.checkpoint_every_s = dice(0, 1) < 0.2 ? 0 : dice(300, 20000);
		j.checkpoint_flush_s = dice(0, 1) < 0.5 ? 0 : j.checkpoint_every_s / 2;
		j.step_s = dice(0, 20), j.detect_s = dice(0, 600), j.deadline_s = dice(0, 30) * day;
		return j;
	}
	struct plan_fleet_job j = a_service(dice(1, 300), 10, 1 + nodes / 4);
	j.pool = pool, j.priority = (int)dice(0, 6), j.preempts = dice(0, 1) < 0.5, j.arrival_s = dice(0, 2) * day;
	j.load_spread = dice(0, 0.5), j.utc_offset_s = dice(-12, 12) * hour, j.growth_per_day = dice(-0.01, 0.02), j.ahead_s = dice(0, 1800), j.replicas_min = 0;
	return j;
}

/* Several sites, pools, jobs and windows, power scarce or not, all failing in their own way. */
static void world_any(struct world *w, uint64_t seed)
{
	dice_state = seed * 977 + 3;
	*w = (struct world){.fleet = {.sites = 2, .pools = 3, .jobs = MOST, .windows = 2, .horizon_s = floor(dice(5, 40) * day), .seed = seed, .replications = 1}};
	for (int i = 0; i < 2; i++)
		w->site[i] = a_site();
	for (int i = 0; i < 3; i++) {
		int nodes = 20 + (int)dice(0, 80);
		w->pool[i] = a_pool(nodes, (int)dice(0, 4));
		w->pool[i].site = i > 0;
		w->pool[i].failure_rate_s = dice(0, 20) / (1000 * day);
		w->pool[i].weibull_shape = dice(0, 1) < 0.5 ? 0 : dice(0.6, 1.5);
		w->pool[i].infant_factor = dice(0, 5), w->pool[i].infant_s = 5 * day, w->pool[i].soft_share = dice(0, 0.5);
		w->pool[i].backfill_s = dice(0, 2) * day;
	}
	for (int i = 0; i < MOST; i++) {
		int pool = (int)dice(0, 3);
		w->job[i] = any_job(pool, w->pool[pool].nodes);
	}
	for (int i = 0; i < 2; i++)
		w->window[i] = (struct plan_fleet_window){.pool = i, .nodes = 5 + (int)dice(0, 15), .start_s = dice(0, 4) * day, .duration_s = dice(1, 12) * hour, .every_s = i * 7 * day};
	/* Room for all nodes idle and for the largest job at its slowest, and a little more. */
	double watts = 1000 + (w->pool[1].nodes + w->pool[2].nodes) * 2000. + 80 * 6400.;
	w->site[1].cap_w = 1.2 * watts * dice(1.05, 1.6);
}

static double held_s(const struct plan_fleet_outcome *o)
{
	return o->useful_s + o->lost_s + o->checkpoint_s + o->throttled_s + o->starting_s + o->restarting_s;
}

/* Node-time adds up exactly, in every span and in all. */
static void node_time_is_conserved(void **state)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct world w;
		struct plan_simulation s;
		world_any(&w, seed);
		if (seed % 2)
			w.site[1].cap_w = 0;
		world_run(&w, &s);
		int64_t all = 0, horizon_us = (int64_t)w.fleet.horizon_s * 1000000, of_site[2] = {w.pool[0].nodes, w.pool[1].nodes + w.pool[2].nodes};
		double energy = 0, staves = s.useful_node_s;
		for (int i = 0; i < 2 * s.samples; i++) {
			int64_t sum = 0, begin = (int64_t)(i % s.samples) * (int64_t)s.span_s * 1000000;
			int64_t span = horizon_us - begin < (int64_t)s.span_s * 1000000 ? horizon_us - begin : (int64_t)s.span_s * 1000000;
			for (int k = 0; k < PLAN_NODE_STATES; k++) {
				assert_true(s.series[i].node_us[k] >= 0);
				sum += s.series[i].node_us[k];
			}
			assert_int_equal(sum, of_site[i / s.samples] * span);
			energy += s.series[i].energy_j;
		}
		for (int k = 0; k < PLAN_NODE_STATES; k++)
			all += s.total.node_us[k];
		assert_int_equal(all, s.nodes * horizon_us);
		assert_true(fabs(energy - s.total.energy_j) <= 1e-9 * energy);
		/* Useful work and the staves that are node-time (not waiting) are all of it, but what power takes. */
		for (int k = PLAN_STAVE_FAILURES; k < PLAN_STAVES; k++)
			staves += s.stave_node_s[k];
		assert_true(staves <= (double)all * 1e-6 * (1 + 1e-9));
		if (seed % 2)
			assert_true(staves >= (double)all * 1e-6 * (1 - 1e-9));
		plan_simulation_free(&s);
	}
}

/* What jobs did with their nodes is what nodes did for jobs. */
static void jobs_account_for_their_nodes(void **state)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct world w;
		struct plan_simulation s;
		world_any(&w, seed);
		for (int i = 0; i < 3; i++)
			w.pool[i].failure_rate_s *= seed % 2; /* without failures nodes held are always the job's */
		world_run(&w, &s);
		double held = 0, nodes = (double)(s.total.node_us[PLAN_NODE_BUSY] + s.total.node_us[PLAN_NODE_SERVING] + s.total.node_us[PLAN_NODE_STARTING]) * 1e-6;
		for (int i = 0; i < MOST; i++) {
			const struct plan_fleet_outcome *o = &s.outcome[i];
			held += held_s(o) * w.job[i].nodes;
			assert_true(o->progress >= 0 && o->progress <= 1 && o->goodput >= 0 && o->goodput <= 1 + 1e-12);
			assert_true(o->unserved <= o->load * (1 + 1e-9));
			if (o->finish_s >= 0)
				assert_true(fabs(o->useful_s - w.job[i].work_s) < 1e-6 * w.job[i].work_s);
		}
		if (seed % 2)
			assert_true(held >= nodes * (1 - 1e-9)); /* a gang that misses a node holds one less */
		else
			assert_true(fabs(held - nodes) <= 1e-9 * nodes + 1e-3);
		plan_simulation_free(&s);
	}
}

static void all_numbers_are_finite(void **state)
{
	for (uint64_t seed = 100; seed < 140; seed++) {
		struct world w;
		struct plan_simulation s;
		world_any(&w, seed);
		w.fleet.replications = 3;
		world_run(&w, &s);
		for (int i = 0; i < PLAN_FIGURES; i++)
			assert_true(isfinite(s.figure[i]) && isfinite(s.over[i].mean) && s.over[i].p10 <= s.over[i].p50 && s.over[i].p50 <= s.over[i].p90);
		json_t *j = plan_simulation_json(&s);
		char *text = json_dumps(j, 0); /* refuses NaN and infinities */
		assert_non_null(text);
		free(text);
		json_decref(j);
		plan_simulation_free(&s);
	}
}

static double either(double low, double high)
{
	double d = dice(0, 3);
	return d < 1 ? low : d < 2 ? high : low + (high - low) * dice(0, 1) * dice(0, 1);
}

/* Fields at the ends of what is accepted: nothing hangs, nothing overflows. */
static void extremes_are_finite(void **state)
{
	int ran = 0;
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct world w;
		struct plan_simulation s;
		struct stave_err err;
		world_any(&w, seed);
		dice_state = seed;
		w.fleet.horizon_s = either(1, 3e8);
		for (int i = 0; i < 2; i++)
			w.site[i] = (struct plan_fleet_site){.pue = either(1, 10), .other_w = either(0, 1e9), .cap_w = either(0, 1e11), .throttle_floor = either(0.05, 1),
			                                     .throttle_exponent = either(0.5, 4), .price_per_j = either(0, 1), .kg_per_j = either(0, 1)};
		for (int i = 0; i < 3; i++) {
			struct plan_fleet_pool *p = &w.pool[i];
			p->weibull_shape = either(0.3, 10), p->infant_factor = either(0, 1000), p->infant_s = either(1, 3e8), p->age_s = either(0, 3e9), p->soft_share = either(0, 1);
			/* Few enough to be quick under sanitizers. */
			p->failure_rate_s = either(0, fmin(0.01, 3e3 / p->nodes / (w.fleet.horizon_s + p->infant_factor * fmin(p->infant_s, w.fleet.horizon_s))));
			p->repair = (struct plan_span){either(1, 3e8), either(0, 10)};
			p->idle_w = either(0, 1e5), p->mean_w = either(p->idle_w, 1e6), p->peak_w = either(p->mean_w, 1e6), p->price_node_s = either(0, 1e6);
		}
		for (int i = 0; i < MOST; i++) {
			struct plan_fleet_job *j = &w.job[i];
			j->start_s = either(0, 1e7), j->restart_s = either(0, 1e7), j->detect_s = either(0, 1e7), j->arrival_s = either(0, 1e8), j->work_s = either(1e-3, 1e12);
			j->checkpoint_every_s = either(0, 1e6), j->checkpoint_s = either(0, 1e7), j->checkpoint_flush_s = 0, j->step_s = either(0, 1e6);
			j->load_spread = either(0, 3), j->growth_per_day = 0, j->target = either(0.01, 1), j->decide_s = either(fmax(10, fmin(86400, w.fleet.horizon_s / 1e3)), 86400), j->capacity_s = either(1e-9, 1e15);
		}
		w.fleet.site = w.site, w.fleet.pool = w.pool, w.fleet.job = w.job, w.fleet.window = w.window;
		if (plan_simulate(&s, &w.fleet, &err))
			continue;
		ran++;
		for (int i = 0; i < PLAN_FIGURES; i++)
			assert_true(isfinite(s.figure[i]));
		for (int i = 0; i < MOST; i++)
			assert_true(isfinite(held_s(&s.outcome[i])) && isfinite(s.outcome[i].load) && s.outcome[i].lost_s >= 0 && s.outcome[i].checkpoint_s >= -1e-3);
		plan_simulation_free(&s);
	}
	assert_true(ran > 20);
}

static void power_never_exceeds_the_cap(void **state)
{
	double throttled = 0;
	for (uint64_t seed = 0; seed < 80; seed++) {
		struct world w;
		struct plan_simulation s;
		world_any(&w, seed);
		world_run(&w, &s);
		for (int i = s.samples; i < 2 * s.samples; i++) {
			assert_true(s.series[i].peak_w <= w.site[1].cap_w);
			assert_true(s.series[i].energy_j <= w.site[1].cap_w * s.span_s);
		}
		throttled += s.figure[PLAN_FIGURE_THROTTLED];
		plan_simulation_free(&s);
	}
	assert_true(throttled > 0); /* the cap was met at all */
}

static void same_seed_same_bits(void **state)
{
	struct world w;
	struct plan_simulation a, b, c;
	world_any(&w, 5);
	world_run(&w, &a);
	world_run(&w, &b);
	w.fleet.seed++;
	world_run(&w, &c);
	assert_memory_equal(a.series, b.series, (size_t)(2 * a.samples) * sizeof *a.series);
	assert_memory_equal(a.figure, b.figure, sizeof a.figure);
	assert_memory_equal(a.outcome, b.outcome, MOST * sizeof *a.outcome);
	assert_int_equal(a.events, b.events);
	assert_true(memcmp(a.figure, c.figure, sizeof a.figure) != 0);
	plan_simulation_free(&a), plan_simulation_free(&b), plan_simulation_free(&c);
}

/* ---- against closed forms ---- */

/* One big job with spares for every failure: E = (mu + D) e^(R/mu) (e^(T/mu) - 1) per T - C of work, T the period (Aupy, Robert, Vivien and others). The formula
 * is of memoryless failures of the job as a whole and is exact for a job of any number of nodes. */
static void goodput_is_that_of_the_exact_formula(void **state)
{
	const struct { int nodes; double rate_per_day, every_s, c_s, r_s; } row[] = {
		{64, 0.02, 4 * 3600, 300, 600}, {256, 0.0065, 7200, 120, 400}, {512, 0.01, 3600, 300, 900}, {128, 0.05, 2500, 200, 1200},
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct world w;
		struct plan_simulation s;
		world_make(&w, a_pool(row[i].nodes + 64, 64), 3000 * day);
		w.pool[0].failure_rate_s = row[i].rate_per_day / day;
		w.pool[0].repair = (struct plan_span){hour, 0.5};
		w.job[0] = a_training(row[i].nodes, 1e10);
		w.job[0].checkpoint_every_s = row[i].every_s, w.job[0].checkpoint_s = row[i].c_s, w.job[0].restart_s = row[i].r_s;
		w.fleet.jobs = 1;
		world_run(&w, &s);
		double mu = day / (row[i].nodes * row[i].rate_per_day), T = row[i].every_s + row[i].c_s;
		double exact = row[i].every_s / (mu * exp(row[i].r_s / mu) * (exp(T / mu) - 1));
		/* Lost time has a spread about its mean; n failures leave 1 / sqrt(n) of it: four deviations. */
		double error = 4 * (1 - exact) / sqrt((double)s.outcome[0].failures);
		assert_true(s.outcome[0].failures > 3000);
		assert_true(fabs(s.outcome[0].goodput - exact) < error);
		plan_simulation_free(&s);
	}
}

static double erlang_c(double load, int servers)
{
	double b = 1;
	for (int k = 1; k <= servers; k++)
		b = load * b / (k + load * b);
	return b / (1 - load / servers * (1 - b));
}

/* One-node jobs that come as a Poisson stream and last an exponential time: mean wait = C / (c mu - lambda). */
static void waiting_is_that_of_erlang(void **state)
{
	enum { JOBS = 60000, SERVERS = 6 };
	struct plan_fleet_job *job = calloc(JOBS, sizeof *job);
	const double mean_s = 3600, lambda = 0.8 * SERVERS / mean_s;
	struct world w;
	struct plan_simulation s;
	struct stave_err err;
	dice_state = 12345;
	double t = 0;
	for (int i = 0; i < JOBS; i++) {
		t += -log(dice(1e-12, 1)) / lambda;
		job[i] = (struct plan_fleet_job){.kind = PLAN_FLEET_TRAIN, .nodes = 1, .arrival_s = t, .work_s = fmax(1e-3, -log(dice(1e-12, 1)) * mean_s)};
	}
	world_make(&w, a_pool(SERVERS, 0), t + 30 * day);
	w.fleet.site = w.site, w.fleet.pool = w.pool, w.fleet.job = job, w.fleet.jobs = JOBS;
	assert_int_equal(plan_simulate(&s, &w.fleet, &err), 0);
	double expect = erlang_c(lambda * mean_s, SERVERS) / (SERVERS / mean_s - lambda);
	assert_int_equal((int)s.figure[PLAN_FIGURE_FINISHED], JOBS);
	assert_true(fabs(s.figure[PLAN_FIGURE_WAIT] / expect - 1) < 0.1);
	plan_simulation_free(&s);
	free(job);
}

/* Failures over node-time are the stated rate, whatever the shape of lives; new nodes fail more. */
static void nodes_fail_as_often_as_said(void **state)
{
	const double shape[] = {0, 0.7, 1.5};
	for (int i = 0; i < 4; i++) {
		struct world w;
		struct plan_simulation s;
		world_make(&w, a_pool(200, 0), 3600 * day);
		w.pool[0].failure_rate_s = 1 / (50 * day);
		w.pool[0].repair = (struct plan_span){60, 0};
		w.pool[0].weibull_shape = shape[i % 3];
		w.pool[0].age_s = i == 2 ? 500 * day : 0;
		w.pool[0].infant_factor = i == 3 ? 4 : 0, w.pool[0].infant_s = 100 * day;
		w.job[0] = a_service(1000, 1, 200);
		w.job[0].replicas_min = 200, w.job[0].decide_s = day, w.job[0].start_s = w.job[0].restart_s = 0;
		w.fleet.jobs = 1;
		world_run(&w, &s);
		double expect = 200 * (3600 + (i == 3 ? 4 * 100 : 0)) / 50;
		assert_true(fabs((double)s.outcome[0].failures / expect - 1) < 0.04);
		plan_simulation_free(&s);
	}
}

static void more_spares_never_lower_goodput(void **state)
{
	double before = 0;
	for (int spares = 0; spares <= 16; spares += 4) {
		struct world w;
		struct plan_simulation s;
		world_make(&w, a_pool(256 + spares, spares), 400 * day);
		w.pool[0].failure_rate_s = 8 / (1000 * day);
		w.pool[0].repair.mean_s = 2 * day;
		w.job[0] = a_training(256, 1e9);
		w.fleet.jobs = 1, w.fleet.replications = 5;
		world_run(&w, &s);
		assert_true(s.over[PLAN_FIGURE_GOODPUT].mean > before - 0.005);
		before = s.over[PLAN_FIGURE_GOODPUT].mean;
		plan_simulation_free(&s);
	}
	assert_true(before > 0.85);
}

/* ---- by hand ---- */

static void checkpoints_of_an_undisturbed_job(void **state)
{
	struct world w;
	struct plan_simulation s;
	world_make(&w, a_pool(4, 0), day);
	w.job[0] = a_training(4, 5 * hour);
	w.job[0].arrival_s = 1000;
	w.job[0].deadline_s = 6 * hour;
	w.fleet.jobs = 1;
	world_run(&w, &s);
	const struct plan_fleet_outcome *o = &s.outcome[0];
	/* 120 s of start, five hours of work, a checkpoint after each but the last */
	assert_true(fabs(o->finish_s - (1000 + 120 + 5 * hour + 4 * 60)) < 1e-5);
	assert_int_equal(o->checkpoints, 4);
	assert_true(o->start_s == 1000 && o->wait_s == 0 && o->lost_s == 0 && o->progress == 1 && o->in_time_share == 1);
	assert_true(fabs(o->goodput - 5 * hour / (5 * hour + 240 + 120)) < 1e-9);
	/* four nodes idle for the rest of the day */
	assert_true(fabs(s.stave_node_s[PLAN_STAVE_ARRIVALS] - 4 * (day - (120 + 5 * hour + 240))) < 1e-3);
	assert_int_equal(s.shortest, PLAN_STAVE_ARRIVALS);
	double energy = 1.2 * (1000 * day + 4 * 2000 * day + 4 * 5000 * (5 * hour + 240));
	assert_true(fabs(s.total.energy_j - energy) < 1e-6 * energy);
	assert_true(fabs(s.total.cost - (energy * 3e-8 + 4 * 0.003 * day)) < 1e-6 * s.total.cost);
	plan_simulation_free(&s);
}

/* Halving the power above idle at exponent 1 halves the speed: twice the time. */
static void throttled_to_half(void **state)
{
	struct world w;
	struct plan_simulation s;
	world_make(&w, a_pool(10, 0), day);
	w.site[0].cap_w = 1.2 * (1000 + 10 * 2000 + 10 * 3200 * (1 + 1e-6));
	w.site[0].throttle_exponent = 1;
	w.job[0] = a_training(10, 4 * hour);
	w.job[0].start_s = w.job[0].checkpoint_every_s = 0;
	w.fleet.jobs = 1;
	world_run(&w, &s);
	assert_true(fabs(s.outcome[0].finish_s - 8 * hour) < 1);
	assert_true(fabs(s.outcome[0].throttled_s - 4 * hour) < 1);
	assert_true(fabs(s.figure[PLAN_FIGURE_THROTTLED] - 8 * hour) < 1);
	plan_simulation_free(&s);
	w.site[0].throttle_exponent = 2; /* power goes with the square: half of it leaves 0.707 of the speed */
	world_run(&w, &s);
	assert_true(fabs(s.outcome[0].finish_s - 4 * sqrt(2) * hour) < 1);
	w.job[1] = w.job[0];
	w.job[0].nodes = w.job[1].nodes = 5;
	w.site[0].throttle_floor = 1; /* no throttling: the second waits for power */
	w.fleet.jobs = 2;
	plan_simulation_free(&s);
	world_run(&w, &s);
	assert_true(fabs(s.outcome[1].wait_power_s - 4 * hour) < 1 && fabs(s.outcome[1].finish_s - 8 * hour) < 1);
	assert_true(s.figure[PLAN_FIGURE_THROTTLED] == 0);
	plan_simulation_free(&s);
}

static void priority_preempts_and_resumes(void **state)
{
	struct world w;
	struct plan_simulation s;
	world_make(&w, a_pool(8, 0), 2 * day);
	w.job[0] = a_training(8, 10 * hour);
	w.job[1] = a_training(8, 2 * hour);
	w.job[1].priority = 1, w.job[1].preempts = true, w.job[1].arrival_s = 3.5 * hour;
	w.job[0].start_s = w.job[1].start_s = 0;
	w.fleet.jobs = 2;
	world_run(&w, &s);
	assert_true(fabs(s.outcome[1].finish_s - (5.5 * hour + 60)) < 1e-3 && s.outcome[1].wait_s == 0);
	/* saved before it went (a checkpoint's 60 s, paid at its next start), lost nothing, waited two hours and the other's checkpoint */
	assert_int_equal(s.outcome[0].preemptions, 1);
	assert_true(s.outcome[0].lost_s == 0 && fabs(s.outcome[0].wait_s - (2 * hour + 60)) < 1e-3 && fabs(s.outcome[0].starting_s - 60) < 1e-3);
	plan_simulation_free(&s);
}

/* A large job at the head is passed over for as long as the pool allows, then nothing starts before it. */
static void patience_ends(void **state)
{
	for (int strict = 0; strict < 2; strict++) {
		struct world w;
		struct plan_simulation s;
		world_make(&w, a_pool(4, 0), 10 * day);
		w.pool[0].backfill_s = strict ? 0 : 10 * day;
		for (int i = 0; i < 6; i++) { /* a small job every three hours, each of eight */
			w.job[i] = a_training(2, 8 * hour);
			w.job[i].arrival_s = i * 3 * hour;
		}
		w.job[6] = a_training(4, hour);
		w.job[6].arrival_s = hour;
		w.fleet.jobs = 7;
		world_run(&w, &s);
		if (strict)
			assert_true(s.outcome[6].start_s < s.outcome[1].start_s);
		else
			assert_true(s.outcome[6].start_s > s.outcome[5].start_s);
		plan_simulation_free(&s);
	}
}

/* Spares are for failures: idle as they are, no job starts on them. */
static void spares_are_kept_back(void **state)
{
	struct world w;
	struct plan_simulation s;
	world_make(&w, a_pool(10, 2), 10 * day);
	w.job[0] = a_training(8, day);
	w.job[1] = a_training(2, hour);
	w.fleet.jobs = 2;
	world_run(&w, &s);
	assert_true(s.outcome[1].start_s == s.outcome[0].finish_s && s.outcome[1].start_s > day);
	plan_simulation_free(&s);
}

static void maintenance_takes_its_nodes(void **state)
{
	struct world w;
	struct plan_simulation s;
	world_make(&w, a_pool(10, 0), 4 * day);
	w.job[0] = a_training(8, 20 * hour);
	w.window[0] = (struct plan_fleet_window){.nodes = 4, .start_s = 5 * hour, .duration_s = 6 * hour, .every_s = 2 * day};
	w.fleet.jobs = w.fleet.windows = 1;
	world_run(&w, &s);
	assert_true(s.stave_node_s[PLAN_STAVE_MAINTENANCE] == 2 * 4 * 6 * hour);
	assert_true(fabs(s.outcome[0].wait_s - 6 * hour) < 1e-3 && s.outcome[0].preemptions == 1 && s.outcome[0].lost_s == 0);
	plan_simulation_free(&s);
}

/* A flat load of 100/s on replicas of 10/s at 80 %: 13 of them, and what came while they started is unserved. */
static void serving_scales(void **state)
{
	struct world w;
	struct plan_simulation s;
	world_make(&w, a_pool(20, 0), 10 * day);
	w.job[0] = a_service(100, 10, 20);
	w.job[0].weekend_factor = 1;
	for (int h = 0; h < 24; h++)
		w.job[0].load[h] = 100;
	w.fleet.jobs = 1;
	world_run(&w, &s);
	assert_int_equal(s.series[5].node_us[PLAN_NODE_SERVING], 13 * (int64_t)3600000000);
	assert_true(fabs(s.outcome[0].load - 100 * 10 * day) < 1 && fabs(s.outcome[0].unserved - 100 * 300) < 1e-3);
	/* each serves 100/13 of its 10/s, and draws as much of its power above idle */
	double watts = 1.2 * (1000 + 20 * 2000 + 13 * 5000 * (100. / 130));
	assert_true(fabs(s.series[5].energy_j / hour - watts) < 1);
	plan_simulation_free(&s);
	/* weekends: day 5 and 6 of a week begun on Monday */
	w.job[0].weekend_factor = 0.5;
	world_run(&w, &s);
	assert_int_equal(s.series[5 * 24 + 12].node_us[PLAN_NODE_SERVING], 7 * (int64_t)3600000000);
	assert_int_equal(s.series[7 * 24 + 12].node_us[PLAN_NODE_SERVING], 13 * (int64_t)3600000000);
	plan_simulation_free(&s);
}

/* The same seed brings the same failures to fleets that differ elsewhere, so what differs is what the change does. */
static void one_change_shows_alone(void **state)
{
	struct plan_fleet_outcome o[4];
	int64_t down[4];
	for (int i = 0; i < 4; i++) {
		struct world w;
		struct plan_simulation s;
		world_make(&w, a_pool(140, 12), 100 * day);
		w.pool[0].failure_rate_s = 10 / (1000 * day);
		w.pool[0].repair = (struct plan_span){hour, 0};
		w.pool[0].soft_share = i == 3;
		w.job[0] = a_training(128, 1e9);
		w.job[0].checkpoint_flush_s = i == 1 ? 1800 : 0;
		w.job[0].detect_s = i == 2 ? 900 : 0;
		w.fleet.jobs = 1;
		world_run(&w, &s);
		o[i] = s.outcome[0];
		down[i] = s.total.node_us[PLAN_NODE_DOWN];
		plan_simulation_free(&s);
	}
	/* A checkpoint is safe half an hour later: about half of the failures lose an hour more. */
	assert_int_equal(o[1].failures, o[0].failures);
	double more = (o[1].lost_s - o[0].lost_s) / (double)o[0].failures;
	assert_true(more > 0.35 * hour && more < 0.65 * hour);
	/* Each failure is noticed later; a few come while another is being dealt with. */
	more = (o[2].restarting_s - o[0].restarting_s) / (double)o[2].failures;
	assert_true(more > 700 && more <= 900);
	assert_true(down[0] > 0 && down[3] == 0 && o[3].failures > 100);
}

static void knowing_ahead_serves_more(void **state)
{
	double unserved[2];
	for (int i = 0; i < 2; i++) {
		struct world w;
		struct plan_simulation s;
		world_make(&w, a_pool(60, 0), 10 * day);
		w.job[0] = a_service(300, 10, 60);
		w.job[0].target = 1, w.job[0].start_s = 900, w.job[0].ahead_s = i * 1800;
		w.fleet.jobs = 1;
		world_run(&w, &s);
		unserved[i] = s.outcome[0].unserved;
		plan_simulation_free(&s);
	}
	assert_true(unserved[0] > 0 && unserved[1] < 0.5 * unserved[0]);
}

/* ---- cost ---- */

static void world_large(struct world *w, int nodes, double days)
{
	world_make(w, a_pool(nodes, nodes / 50), days * day);
	w->pool[0].failure_rate_s = 6.5 / (1000 * day);
	for (int i = 0; i < 6; i++) {
		w->job[i] = a_training(nodes / 8, 40 * day);
		w->job[i].arrival_s = i * 5 * day;
	}
	w->job[6] = a_service(100, 100. / nodes * 5, nodes / 4);
	w->fleet.jobs = 7;
}

static void cost_grows_with_events(void **state)
{
	struct world w;
	struct plan_simulation month, quarter, twice;
	world_large(&w, 2048, 30);
	world_run(&w, &month);
	world_large(&w, 2048, 90);
	world_run(&w, &quarter);
	world_large(&w, 4096, 90);
	world_run(&w, &twice);
	double events = (double)quarter.events / (double)month.events;
	assert_true(events > 2 && events < 4);
	assert_true((double)twice.events / (double)quarter.events < 2.5);
	const struct plan_simulation *s[] = {&month, &quarter, &twice};
	for (int i = 0; i < 3; i++)
		assert_true((double)s[i]->heap_steps < 6 * ((double)s[i]->events + (double)s[i]->nodes) * log2((double)s[i]->nodes));
	assert_true(twice.arena.size < 100u << 20);
	plan_simulation_free(&month), plan_simulation_free(&quarter), plan_simulation_free(&twice);
}

/* ---- what is refused ---- */

static void refuse(struct world *w, int code, const char *word)
{
	struct plan_simulation s;
	struct stave_err err = {.code = 0};
	w->fleet.site = w->site, w->fleet.pool = w->pool, w->fleet.job = w->job, w->fleet.window = w->window;
	assert_int_equal(plan_simulate(&s, &w->fleet, &err), code);
	if (!strstr(err.msg, word))
		fail_msg("wanted \"%s\" in: %s", word, err.msg);
}

static void bad_fleets_are_refused(void **state)
{
	struct world good, w;
	world_large(&good, 100, 30);
#define BAD(change, code, word) do { w = good; change; refuse(&w, code, word); } while (0)
	BAD(w.fleet.jobs = 1000000000, STAVE_ECONFIG, "number of jobs");
	BAD(w.fleet.jobs = -1, STAVE_ECONFIG, "number of jobs");
	BAD(w.fleet.sites = 0, STAVE_ECONFIG, "number of sites");
	BAD(w.fleet.pools = INT64_MAX, STAVE_ECONFIG, "number of pools");
	BAD(w.fleet.horizon_s = NAN, STAVE_ECONFIG, "horizon");
	BAD(w.fleet.horizon_s = INFINITY, STAVE_ECONFIG, "horizon");
	BAD(w.fleet.replications = 0, STAVE_ECONFIG, "replications");
	BAD(w.pool[0].nodes = 0, STAVE_ECONFIG, "nodes");
	BAD(w.pool[0].nodes = -5, STAVE_ECONFIG, "nodes");
	BAD(w.pool[0].spares = 101, STAVE_ECONFIG, "spares");
	BAD(w.pool[0].site = 7, STAVE_ECONFIG, "site");
	BAD(w.pool[0].mean_w = 10, STAVE_ECONFIG, "mean_w");
	BAD(w.pool[0].failure_rate_s = -1, STAVE_ECONFIG, "failure_rate_s");
	BAD(w.pool[0].failure_rate_s = 0.01; w.fleet.horizon_s = 3000 * day, STAVE_ECONFIG, "events");
	BAD(w.pool[0].repair.mean_s = 0, STAVE_ECONFIG, "repair");
	BAD(w.pool[0].weibull_shape = NAN, STAVE_ECONFIG, "weibull_shape");
	BAD(w.site[0].pue = 0.5, STAVE_ECONFIG, "pue");
	BAD(w.site[0].cap_w = 1000, STAVE_ENOFIT, "idle");
	BAD(w.site[0].cap_w = 1.2 * (1000 + 100 * 2000 + 1), STAVE_ENOFIT, "can never start");
	BAD(w.job[2].nodes = 100, STAVE_ENOFIT, "2 more nodes");
	BAD(w.job[2].pool = 1, STAVE_ECONFIG, "pool");
	BAD(w.job[2].work_s = NAN, STAVE_ECONFIG, "work_s");
	BAD(w.job[2].kind = 9, STAVE_ECONFIG, "kind");
	BAD(w.job[2].checkpoint_flush_s = 1e6, STAVE_ECONFIG, "checkpoint_flush_s");
	BAD(w.job[6].load[3] = INFINITY, STAVE_ECONFIG, "load");
	BAD(w.job[6].capacity_s = 0, STAVE_ECONFIG, "capacity_s");
	BAD(w.job[6].replicas_max = 1000, STAVE_ECONFIG, "replicas_max");
	BAD(w.job[6].growth_per_day = 0.5; w.fleet.horizon_s = 3000 * day, STAVE_ECONFIG, "growth");
	BAD(w.fleet.windows = 1; w.window[0] = ((struct plan_fleet_window){.nodes = 1, .duration_s = 100, .every_s = 50}), STAVE_ECONFIG, "every_s");
}

static void reports_are_complete(void **state)
{
	struct world w;
	struct plan_simulation s;
	world_any(&w, 3);
	w.fleet.replications = 4;
	world_run(&w, &s);
	char *text = NULL, *csv = NULL;
	size_t n, m;
	FILE *to = open_memstream(&text, &n);
	plan_simulation_text(&s, to);
	fclose(to);
	to = open_memstream(&csv, &m);
	plan_simulation_csv(&s, to);
	fclose(to);
	int lines = 0, rows = 0;
	for (size_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	for (size_t i = 0; i < m; i++)
		rows += csv[i] == '\n';
	assert_true(lines > 8 && lines <= 48);
	assert_int_equal(rows, 1 + 2 * s.samples);
	assert_non_null(strstr(text, "shortest stave"));
	free(text), free(csv);
	plan_simulation_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(node_time_is_conserved),
		cmocka_unit_test(jobs_account_for_their_nodes),
		cmocka_unit_test(all_numbers_are_finite),
		cmocka_unit_test(extremes_are_finite),
		cmocka_unit_test(power_never_exceeds_the_cap),
		cmocka_unit_test(same_seed_same_bits),
		cmocka_unit_test(goodput_is_that_of_the_exact_formula),
		cmocka_unit_test(waiting_is_that_of_erlang),
		cmocka_unit_test(nodes_fail_as_often_as_said),
		cmocka_unit_test(more_spares_never_lower_goodput),
		cmocka_unit_test(checkpoints_of_an_undisturbed_job),
		cmocka_unit_test(throttled_to_half),
		cmocka_unit_test(priority_preempts_and_resumes),
		cmocka_unit_test(patience_ends),
		cmocka_unit_test(spares_are_kept_back),
		cmocka_unit_test(maintenance_takes_its_nodes),
		cmocka_unit_test(serving_scales),
		cmocka_unit_test(one_change_shows_alone),
		cmocka_unit_test(knowing_ahead_serves_more),
		cmocka_unit_test(cost_grows_with_events),
		cmocka_unit_test(bad_fleets_are_refused),
		cmocka_unit_test(reports_are_complete),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
