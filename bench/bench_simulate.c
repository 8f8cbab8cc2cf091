/* How long a fleet takes to simulate (plan/simulate.h): 2,048 nodes of 8 GPUs for 90 days with 20 training jobs and 4 serving fleets, the same for twice and
 * four times the nodes and jobs, and for four times the days. Prints events, comparisons in heaps, planned memory, the process's peak resident memory so far,
 * and seconds of processor time (this thread's: what other processes take is not counted), the best of several turns.
 *
 *   bench_simulate */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "plan/fleet/simulate.h"

enum { NODES = 2048, TRAINING = 20, SERVING = 4, TURNS = 5 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void make_jobs(struct plan_fleet_job *job, int scale)
{
	static const int nodes[] = {1024, 256, 128, 64, 32, 16, 8, 8, 4, 2};
	for (int i = 0; i < TRAINING * scale; i++)
		job[i] = (struct plan_fleet_job){.name = "training", .kind = PLAN_FLEET_TRAIN, .nodes = nodes[i % 10], .priority = i % 3, .arrival_s = i / scale * 86400.,
		                                 .start_s = 300, .work_s = (10 + i % 30) * 86400., .step_s = 10, .checkpoint_every_s = 1800, .checkpoint_s = 20, .checkpoint_flush_s = 60,
		                                 .detect_s = 120, .restart_s = 400};
	for (int i = 0; i < SERVING * scale; i++) {
		struct plan_fleet_job *j = &job[TRAINING * scale + i];
		*j = (struct plan_fleet_job){.name = "serving", .kind = PLAN_FLEET_SERVE, .nodes = 1 + i % 2, .priority = 10, .preempts = true, .start_s = 180, .restart_s = 180,
		                             .weekend_factor = 0.7, .utc_offset_s = 6 * 3600. * (i % 4), .load_spread = 0.1, .capacity_s = 10, .target = 0.8, .replicas_min = 2,
		                             .replicas_max = 100, .decide_s = 900, .ahead_s = 300, .cooldown_s = 1800};
		for (int h = 0; h < 24; h++)
			j->load[h] = 400 * (1 - 0.7 * cos((h - 3) * M_PI / 12));
	}
}

/* The scaled fleet is one pool: nothing of it is simulated apart. */
static void measure(int scale, double days)
{
	struct plan_fleet_site site = {.name = "site", .pue = 1.2, .other_w = 2e5 * scale, .cap_w = 17e6 * scale, .throttle_floor = 0.6, .throttle_exponent = 2, .price_per_j = 3e-8};
	struct plan_fleet_pool pool = {.name = "pool", .nodes = NODES * scale, .spares = 32 * scale, .idle_w = 2200, .mean_w = 7600, .peak_w = 8400, .failure_rate_s = 6.5e-3 / 86400,
	                               .weibull_shape = 0.8, .infant_factor = 2, .infant_s = 30 * 86400., .soft_share = 0.3, .repair = {86400, 1}, .backfill_s = 86400};
	struct plan_fleet_job *job = calloc((size_t)((TRAINING + SERVING) * scale), sizeof *job);
	if (!job)
		exit(1);
	make_jobs(job, scale);
	struct plan_fleet fleet = {.site = &site, .pool = &pool, .job = job, .sites = 1, .pools = 1, .jobs = (TRAINING + SERVING) * scale, .horizon_s = days * 86400, .seed = 1,
	                           .replications = 1};
	struct plan_simulation s = {.samples = 0};
	double best = INFINITY;
	for (int i = 0; i < TURNS; i++) {
		struct stave_err err;
		plan_simulation_free(&s);
		double t = now();
		if (plan_simulate(&s, &fleet, &err)) {
			fprintf(stderr, "%s\n", err.msg);
			exit(1);
		}
		best = fmin(best, now() - t);
	}
	struct rusage use;
	getrusage(RUSAGE_SELF, &use);
	printf("%6d nodes %4.0f days %4d jobs: %8llu events %9llu comparisons %5.1f MB planned %5.1f MB peak %8.1f ms  %.2f us/event   computing %.1f %%, goodput %.1f %%\n", pool.nodes,
	       days, (int)fleet.jobs, (unsigned long long)s.events, (unsigned long long)s.heap_steps, (double)s.arena.size * 1e-6, (double)use.ru_maxrss * 1024e-6, best * 1e3,
	       best * 1e6 / (double)s.events, s.figure[PLAN_FIGURE_UTILISATION] * 100, s.figure[PLAN_FIGURE_GOODPUT] * 100);
	if (scale == 1 && days == 90)
		plan_simulation_text(&s, stderr);
	plan_simulation_free(&s);
	free(job);
}

int main(void)
{
	measure(1, 30);
	measure(1, 90);
	measure(1, 360);
	measure(2, 90);
	measure(4, 90);
	measure(16, 90);
	return 0;
}
