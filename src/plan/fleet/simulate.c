/* The simulation itself: memory, the beginning of a replication, and the loop over events (see simulate_state.h for the parts).
 *
 * Everything that happens at one moment is taken in before anybody is scheduled, so that of jobs that arrive together the one of highest priority starts, not
 * the one that was written first. */
#include "plan/fleet/simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/fleet/simulate_state.h"

enum { HOUR_S = 3600, MOST_SAMPLES = 8784 }; /* a leap year of hours */
enum { STREAM_NODE, STREAM_JOB };

int64_t plan_sim_us(double s)
{
	return s >= 1e12 ? (int64_t)1e18 : llround(s * 1e6);
}

/* ---- memory ---- */

struct store {                   /* what the heaps of all pools and sites share */
	double *queue_key, *gang_key, *short_key, *end_key;
	int32_t *queue_id, *gang_id, *short_id, *end_id;
	int32_t *queue_at, *gang_at, *short_at, *end_at;
	int32_t *order;
	double (*figure)[PLAN_FIGURES];
	double *finish;
};

#define TAKE(to, n) ((to) = stave_arena_take(a, (size_t)(n) * sizeof *(to)))

static void take_heaps(struct stave_arena *a, struct plan_sim *f, struct store *t)
{
	size_t n = (size_t)f->nodes, jobs = (size_t)f->in->jobs;
	size_t events = 2 * n + (size_t)(f->in->sites + f->in->jobs + f->in->windows);
	TAKE(f->events.key, events), TAKE(f->events.id, events), TAKE(f->events.at, events);
	TAKE(t->queue_key, jobs), TAKE(t->queue_id, jobs), TAKE(t->queue_at, jobs);
	TAKE(t->gang_key, n), TAKE(t->gang_id, n), TAKE(t->gang_at, n);
	TAKE(t->short_key, n), TAKE(t->short_id, n), TAKE(t->short_at, n);
	TAKE(t->end_key, n), TAKE(t->end_id, n), TAKE(t->end_at, n);
}

static void take_all(struct stave_arena *a, struct plan_sim *f, struct store *t, struct plan_simulation *out)
{
	const struct plan_fleet *in = f->in;
	TAKE(f->site, in->sites), TAKE(f->pool, in->pools), TAKE(f->job, in->jobs), TAKE(f->window, in->windows);
	TAKE(f->node, f->nodes), TAKE(f->gang, f->nodes), TAKE(f->gang_store, f->nodes);
	take_heaps(a, f, t);
	TAKE(t->order, in->jobs);
	TAKE(t->figure, in->replications);
	TAKE(t->finish, in->jobs * in->replications);
	TAKE(out->outcome, in->jobs);
	TAKE(out->series, in->sites * f->samples);
}

/* ---- a replication begins ---- */

static int by_rank(const void *a, const void *b, void *jobs)
{
	const struct plan_fleet_job *job = jobs;
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	if (job[x].priority != job[y].priority)
		return job[x].priority > job[y].priority ? -1 : 1;
	if (job[x].arrival_s != job[y].arrival_s)
		return job[x].arrival_s < job[y].arrival_s ? -1 : 1;
	return x < y ? -1 : x > y;
}

static void begin_jobs(struct plan_sim *f, struct store *t, int replication)
{
	int n = (int)f->in->jobs;
	for (int j = 0; j < n; j++) {
		const struct plan_fleet_job *in = &f->in->job[j];
		f->job[j] = (struct plan_sim_job){.random = plan_random_stream(f->in->seed, (uint64_t)replication, STREAM_JOB, (uint64_t)j), .gang = PLAN_NONE,
		                                  .surplus_us = -1, .out = {.start_s = -1, .finish_s = -1}};
		t->order[j] = j;
		t->queue_at[j] = PLAN_NONE;
		f->pool[in->pool].preempting += in->preempts;
		if (plan_sim_us(in->arrival_s) < f->end_us)
			plan_heap_set(&f->events, plan_event_job(f, j), (double)plan_sim_us(in->arrival_s));
	}
	qsort_r(t->order, (size_t)n, sizeof *t->order, by_rank, (void *)f->in->job);
	for (int i = 0; i < n; i++)
		f->job[t->order[i]].rank = i;
}

static void begin_pool(struct plan_sim *f, struct store *t, int i, int first_node, int first_job)
{
	struct plan_sim_pool *p = &f->pool[i];
	const struct plan_fleet_pool *in = &f->in->pool[i];
	double shape = in->weibull_shape > 0 ? in->weibull_shape : 1;
	*p = (struct plan_sim_pool){.in = in, .first_free = PLAN_NONE, .free = in->nodes, .idle_mw = llround(in->idle_w * 1e3),
	                            .mean_mw = llround((in->mean_w - in->idle_w) * 1e3), .peak_mw = llround((in->peak_w - in->idle_w) * 1e3),
	                            .queue = {.key = t->queue_key + first_job, .id = t->queue_id + first_job, .at = t->queue_at, .steps = &f->steps},
	                            .gangs = {.key = t->gang_key + first_node, .id = t->gang_id + first_node, .at = t->gang_at, .steps = &f->steps},
	                            .shorts = {.key = t->short_key + first_node, .id = t->short_id + first_node, .at = t->short_at, .steps = &f->steps}};
	/* A Weibull life of mean 1 / rate has scale 1 / (rate Gamma(1 + 1 / shape)). */
	if (in->failure_rate_s > 0)
		p->weibull_scale_s = 1 / (in->failure_rate_s * tgamma(1 + 1 / shape));
}

static void begin_nodes(struct plan_sim *f, int pool, int first, int replication)
{
	const struct plan_fleet_pool *in = &f->in->pool[pool];
	for (int n = first + in->nodes - 1; n >= first; n--) {
		f->node[n] = (struct plan_sim_node){.random = plan_random_stream(f->in->seed, (uint64_t)replication, STREAM_NODE, (uint64_t)n),
		                                    .pool = (int16_t)pool};
		plan_node_insert(f, &f->pool[pool].first_free, n, PLAN_PLACE_FREE, PLAN_NONE);
		plan_node_past(f, n);
		plan_node_age(f, n);
	}
}

static void begin_site(struct plan_sim *f, struct store *t, int i, int first_node)
{
	struct plan_sim_site *s = &f->site[i];
	const struct plan_fleet_site *in = &f->in->site[i];
	*s = (struct plan_sim_site){.in = in, .speed = 1, .power_share = 1, .room_mw = -1, .other_mw = llround(in->other_w * 1e3),
	                            .floor_share = pow(in->throttle_floor, in->throttle_exponent),
	                            .ends = {.key = t->end_key + first_node, .id = t->end_id + first_node, .at = t->end_at, .steps = &f->steps}};
	while (s->first_pool < f->in->pools && f->in->pool[s->first_pool].site < i)
		s->first_pool++;
	while (s->first_pool + s->pools < f->in->pools && f->in->pool[s->first_pool + s->pools].site == i)
		s->pools++;
	for (int k = s->first_pool; k < s->first_pool + s->pools; k++) {
		s->state[PLAN_NODE_IDLE] += f->pool[k].in->nodes;
		s->up_mw += f->pool[k].in->nodes * f->pool[k].idle_mw;
	}
	/* The last part in 1e12 is left to rounding, so that the cap holds in floating point too. */
	if (in->cap_w > 0)
		s->room_mw = (int64_t)fmax(0, floor(in->cap_w / in->pue * 1e3 * (1 - 1e-12)) - (double)(s->other_mw + s->up_mw));
}

/* Where each pool's and site's part of the shared arrays begins. */
static void begin_places(struct plan_sim *f, struct store *t, int replication)
{
	int *jobs_of = (int[256]){0};
	for (int j = 0; j < f->in->jobs; j++)
		jobs_of[f->in->job[j].pool]++;
	for (int i = 0, node = 0, job = 0; i < f->in->pools; i++) {
		begin_pool(f, t, i, node, job);
		begin_nodes(f, i, node, replication);
		node += f->in->pool[i].nodes;
		job += jobs_of[i];
	}
	for (int i = 0, node = 0; i < f->in->sites; i++) {
		begin_site(f, t, i, node);
		for (int k = f->site[i].first_pool; k < f->site[i].first_pool + f->site[i].pools; k++)
			node += f->in->pool[k].nodes;
	}
}

static void begin(struct plan_sim *f, struct store *t, int replication)
{
	f->now_us = 0;
	f->events.n = 0;
	f->events.steps = &f->steps;
	int events = plan_event_window(f, (int)f->in->windows);
	memset(f->events.at, 0xff, (size_t)events * sizeof *f->events.at);
	for (int g = 0; g < f->nodes; g++) {
		f->gang_store[g] = f->nodes - 1 - g;
		t->gang_at[g] = t->short_at[g] = t->end_at[g] = PLAN_NONE;
	}
	f->gangs_stored = f->nodes;
	begin_places(f, t, replication);
	begin_jobs(f, t, replication);
	for (int w = 0; w < f->in->windows; w++) {
		f->window[w] = (struct plan_sim_window){.first = PLAN_NONE, .next_us = plan_sim_us(f->in->window[w].start_s)};
		plan_heap_set(&f->events, plan_event_window(f, w), (double)f->window[w].next_us);
	}
}

/* ---- events ---- */

static void handle(struct plan_sim *f, int32_t id)
{
	int sites = (int)f->in->sites, jobs = (int)f->in->jobs;
	f->handled++;
	if (id < f->nodes) {
		plan_node_event(f, id);
	} else if (id < plan_event_site(f, 0)) {
		plan_gang_event(f, id - plan_event_gang(f, 0));
	} else if (id < plan_event_site(f, sites)) {
		struct plan_sim_site *s = &f->site[id - plan_event_site(f, 0)];
		plan_site_touch(f, s);
		plan_gang_ends(f, s);
	} else if (id < plan_event_job(f, jobs)) {
		plan_job_event(f, id - plan_event_job(f, 0));
	} else {
		plan_window_event(f, id - plan_event_window(f, 0));
	}
}

/* Before time goes on: whoever can start does. Two rounds, since what one pool evicts may leave power for another. */
static void close_moment(struct plan_sim *f)
{
	for (int i = 0; i < f->in->sites; i++) {
		struct plan_sim_site *s = &f->site[i];
		if (!s->stirred)
			continue;
		for (int round = 0; round < 2; round++)
			for (int k = s->first_pool; k < s->first_pool + s->pools; k++)
				if (f->pool[k].dirty)
					plan_pool_schedule(f, k);
		plan_site_settle(f, s);
		s->stirred = false;
	}
}

static void replicate(struct plan_sim *f, struct store *t, int replication)
{
	begin(f, t, replication);
	for (;;) {
		double next = f->events.n ? f->events.key[0] : INFINITY;
		if (next > (double)f->now_us)
			close_moment(f);
		/* Scheduling may have put something before what was next. */
		if (!f->events.n || f->events.key[0] >= (double)f->end_us)
			break;
		int32_t id = f->events.id[0];
		f->now_us = (int64_t)f->events.key[0];
		plan_heap_drop(&f->events, id);
		handle(f, id);
	}
	plan_sim_close(f);
}

static void run(struct plan_simulation *out, struct plan_sim *f, struct store *t)
{
	int reps = f->in->replications;
	f->series = out->series;
	for (int r = 0; r < reps; r++) {
		replicate(f, t, r);
		if (!r)
			plan_sim_outcomes(f, out);
		f->series = NULL;
		plan_sim_figures(f, t->figure[r]);
		for (int j = 0; j < f->in->jobs; j++)
			t->finish[(size_t)j * (size_t)reps + (size_t)r] = f->job[j].out.finish_s < 0 ? INFINITY : f->job[j].out.finish_s;
	}
	memcpy(out->figure, t->figure[0], sizeof out->figure);
	plan_sim_percentiles(out, t->figure, t->finish);
	out->events = f->handled;
	out->heap_steps = f->steps;
}

int plan_simulate(struct plan_simulation *out, const struct plan_fleet *fleet, struct stave_err *err)
{
	int rc = plan_fleet_check(fleet, err);
	if (rc)
		return rc;
	double hours = ceil(fleet->horizon_s / HOUR_S), each = ceil(hours / MOST_SAMPLES);
	struct plan_simulation s = {.fleet = fleet, .span_s = each * HOUR_S, .samples = (int)ceil(hours / each)};
	struct plan_sim f = {.in = fleet, .end_us = plan_sim_us(fleet->horizon_s), .span_us = plan_sim_us(s.span_s), .samples = s.samples};
	for (int i = 0; i < fleet->pools; i++)
		f.nodes += fleet->pool[i].nodes;
	s.nodes = f.nodes;
	struct store t;
	struct stave_arena plan = stave_arena_plan("fleet simulation");
	take_all(&plan, &f, &t, &s);
	if ((rc = stave_arena_open(&s.arena, "fleet simulation", plan.used, err)))
		return rc;
	take_all(&s.arena, &f, &t, &s);
	run(&s, &f, &t);
	*out = s;
	return 0;
}

void plan_simulation_free(struct plan_simulation *s)
{
	if (s->arena.base)
		stave_arena_close(&s->arena);
	*s = (struct plan_simulation){.samples = 0};
}
