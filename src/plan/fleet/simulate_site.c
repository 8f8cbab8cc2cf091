/* Accounts of a site: node-time by state, power and energy, the speed its power leaves for training, and its series.
 *
 * The cap is held in three steps. All nodes are taken to be idle at least, failed ones too, so a repair never exceeds it. A gang starts only if the cap holds
 * with all training throttled to its floor. What remains then sets one speed for all training of the site: power above idle goes with speed^exponent. */
#include <math.h>

#include "plan/fleet/simulate_state.h"

static double facility_w(const struct plan_sim_site *s, double it_mw)
{
	return s->in->pue * it_mw * 1e-3;
}

static struct plan_fleet_sample account(const struct plan_sim_site *s, int64_t us)
{
	struct plan_fleet_sample a = {.peak_w = 0};
	double seconds = (double)us * 1e-6;
	double base_mw = (double)(s->other_mw + s->up_mw);
	for (int i = 0; i < PLAN_NODE_STATES; i++)
		a.node_us[i] = s->state[i] * us;
	a.energy_j = facility_w(s, base_mw + (double)s->train_mean_mw * s->power_share + (double)s->serve_mean_mw) * seconds;
	a.peak_w = facility_w(s, base_mw + (double)s->train_peak_mw * s->power_share + (double)s->serve_peak_mw);
	a.kg = a.energy_j * s->in->kg_per_j;
	a.speed_s = s->speed * seconds;
	a.queue_job_s = (double)s->queued * seconds;
	return a;
}

static void add(struct plan_fleet_sample *to, const struct plan_fleet_sample *a)
{
	for (int i = 0; i < PLAN_NODE_STATES; i++)
		to->node_us[i] += a->node_us[i];
	to->energy_j += a->energy_j;
	to->peak_w = fmax(to->peak_w, a->peak_w);
	to->cost += a->cost;
	to->kg += a->kg;
	to->speed_s += a->speed_s;
	to->queue_job_s += a->queue_job_s;
	to->queue_node_s += a->queue_node_s;
	to->load += a->load;
	to->unserved += a->unserved;
}

static void book(struct plan_sim *f, struct plan_sim_site *s, int64_t from_us, const struct plan_fleet_sample *a)
{
	add(&s->total, a);
	if (f->series)
		add(&f->series[(s - f->site) * f->samples + from_us / f->span_us], a);
}

/* The end of the sample that holds from_us, or to_us when that is earlier. */
static int64_t within(const struct plan_sim *f, int64_t from_us, int64_t to_us)
{
	int64_t end = (from_us / f->span_us + 1) * f->span_us;
	return end < to_us ? end : to_us;
}

static void account_idle(struct plan_sim *f, struct plan_sim_site *s, double seconds)
{
	for (int i = s->first_pool; i < s->first_pool + s->pools; i++) {
		const struct plan_sim_pool *p = &f->pool[i];
		int spare = p->free < p->in->spares ? p->free : p->in->spares;
		double rest = (double)(p->free - spare) * seconds;
		s->stave[PLAN_STAVE_SPARES] += (double)spare * seconds;
		if (p->demand[PLAN_WANT_NODES])
			s->stave[PLAN_STAVE_FRAGMENTS] += rest;
		else if (!p->demand[PLAN_WANT_POWER]) /* else the jobs that wait for power account for them */
			s->stave[PLAN_STAVE_ARRIVALS] += rest;
		s->stave[PLAN_STAVE_NODES] += (double)p->demand[PLAN_WANT_NODES] * seconds;
		s->stave[PLAN_STAVE_POWER] += (double)p->demand[PLAN_WANT_POWER] * seconds;
	}
}

/* What goes on in proportion to time at the site's pools: prices of nodes, and nodes wanted. */
static void rates(const struct plan_sim *f, const struct plan_sim_site *s, double *price_s, double *wanted)
{
	*price_s = *wanted = 0;
	for (int i = s->first_pool; i < s->first_pool + s->pools; i++) {
		const struct plan_sim_pool *p = &f->pool[i];
		*price_s += (double)p->in->nodes * p->in->price_node_s;
		*wanted += (double)(p->demand[PLAN_WANT_NODES] + p->demand[PLAN_WANT_POWER]);
	}
}

void plan_site_touch(struct plan_sim *f, struct plan_sim_site *s)
{
	s->stirred = true;
	if (s->touched_us == f->now_us)
		return;
	double seconds = (double)(f->now_us - s->touched_us) * 1e-6, price_s, wanted;
	rates(f, s, &price_s, &wanted);
	account_idle(f, s, seconds);
	s->time_s += seconds * s->speed;
	if (s->speed < 1)
		s->throttled_s += seconds;
	for (int64_t t = s->touched_us; t < f->now_us;) {
		int64_t end = within(f, t, f->now_us);
		struct plan_fleet_sample a = account(s, end - t);
		a.cost = a.energy_j * s->in->price_per_j + price_s * (double)(end - t) * 1e-6;
		a.queue_node_s = wanted * (double)(end - t) * 1e-6;
		book(f, s, t, &a);
		t = end;
	}
	s->touched_us = f->now_us;
}

void plan_site_book_load(struct plan_sim *f, struct plan_sim_site *s, int64_t from_us, int64_t to_us, double load_s, double unserved_s)
{
	for (int64_t t = from_us; t < to_us;) {
		int64_t end = within(f, t, to_us);
		double seconds = (double)(end - t) * 1e-6;
		struct plan_fleet_sample a = {.load = load_s * seconds, .unserved = unserved_s * seconds};
		book(f, s, t, &a);
		t = end;
	}
}

bool plan_site_admits(const struct plan_sim_site *s, int64_t train_mw, int64_t serve_mw)
{
	return s->room_mw < 0 ||
	       (double)(s->train_peak_mw + train_mw) * s->floor_share + (double)(s->serve_peak_mw + serve_mw) <= (double)s->room_mw;
}

/* The speed of training after anything changed, and when its next job ends. */
void plan_site_settle(struct plan_sim *f, struct plan_sim_site *s)
{
	s->speed = s->power_share = 1;
	if (s->room_mw >= 0 && s->train_peak_mw + s->serve_peak_mw > s->room_mw && s->train_peak_mw > 0) {
		/* Admission keeps the share at the floor or above; what rounding takes off it is no reason to stand still. */
		s->power_share = fmin(1, (double)(s->room_mw - s->serve_peak_mw) / (double)s->train_peak_mw);
		s->power_share = fmax(s->power_share, s->floor_share * (1 - 1e-9));
		s->speed = pow(s->power_share, 1 / s->in->throttle_exponent);
	}
	int32_t event = plan_event_site(f, (int)(s - f->site));
	if (!s->ends.n) {
		plan_heap_drop(&f->events, event);
		return;
	}
	double left_us = ceil(fmax(0, s->ends.key[0] - s->time_s) / s->speed * 1e6);
	plan_heap_set(&f->events, event, (double)f->now_us + left_us);
}
