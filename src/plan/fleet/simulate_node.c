/* Nodes of a simulated fleet: when they fail, how long repairs take, which list they are in, and maintenance windows.
 *
 * A node's hazard is a Weibull in the time since its last failure, whose mean life is 1 / failure rate, plus an excess for new nodes that decays with calendar
 * age; the next failure is the earlier of the two, each drawn by inverting its cumulative hazard from the node's present age. Every failure, also one that a
 * restart cures, begins a new life, so that failures come at the stated rate whatever the shape. */
#include <math.h>

#include "plan/fleet/simulate_state.h"

/* ---- random numbers ---- */

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014): one word of state, so every node can have a stream of its own. */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t plan_random_stream(uint64_t seed, uint64_t replication, uint64_t kind, uint64_t index)
{
	uint64_t s = seed;
	s = next(&s) ^ replication;
	s = next(&s) ^ kind;
	s = next(&s) ^ index;
	return next(&s);
}

double plan_random_uniform(uint64_t *state)
{
	return ((double)(next(state) >> 11) + 0.5) * 0x1p-53;
}

static double normal(uint64_t *state)
{
	double radius = sqrt(-2 * log(plan_random_uniform(state)));
	return radius * cos(6.283185307179586 * plan_random_uniform(state));
}

double plan_random_lognormal(uint64_t *state, double mean, double spread)
{
	if (spread <= 0)
		return mean;
	double variance = log1p(spread * spread);
	return mean * exp(sqrt(variance) * normal(state) - variance / 2);
}

/* ---- lives ---- */

/* Seconds from age to the next failure of a Weibull life. */
static double weibull_left(uint64_t *random, double shape, double scale_s, double age_s)
{
	double e = -log(plan_random_uniform(random));
	if (shape == 1)
		return e * scale_s;
	return scale_s * pow(pow(age_s / scale_s, shape) + e, 1 / shape) - age_s;
}

/* The same of the excess hazard rate x exp(-age / tau); INFINITY: the node has outlived it. */
static double infant_left(uint64_t *random, double rate_s, double tau_s, double age_s)
{
	double e = -log(plan_random_uniform(random));
	double left = exp(-age_s / tau_s) - e / (rate_s * tau_s);
	return left > 0 ? -tau_s * log(left) - age_s : INFINITY;
}

void plan_node_age(struct plan_sim *f, int n)
{
	struct plan_sim_node *node = &f->node[n];
	const struct plan_sim_pool *p = &f->pool[node->pool];
	if (p->in->failure_rate_s <= 0)
		return;
	double shape = p->in->weibull_shape > 0 ? p->in->weibull_shape : 1;
	double left = weibull_left(&node->random, shape, p->weibull_scale_s, (double)(f->now_us - node->since_us) * 1e-6);
	if (p->in->infant_factor > 0)
		left = fmin(left, infant_left(&node->random, p->in->failure_rate_s * p->in->infant_factor, p->in->infant_s,
		                              p->in->age_s + (double)f->now_us * 1e-6));
	int64_t us = plan_sim_us(left);
	plan_heap_set(&f->events, n, (double)(f->now_us + (us > 0 ? us : 1)));
}

/* Lives up to the beginning, of a node that has been in use for a while; after a few mean lives its age no longer depends on how it began. */
void plan_node_past(struct plan_sim *f, int n)
{
	enum { LIVES = 8 };
	struct plan_sim_node *node = &f->node[n];
	const struct plan_sim_pool *p = &f->pool[node->pool];
	double t = p->in->failure_rate_s > 0 ? -fmin(p->in->age_s, LIVES / p->in->failure_rate_s) : 0, shape = p->in->weibull_shape;
	node->since_us = 0;
	if (shape <= 0 || shape == 1)
		return; /* memoryless: any age will do */
	for (double life = 0; t + life < 0; life = weibull_left(&node->random, shape, p->weibull_scale_s, 0)) {
		t += life;
		node->since_us = plan_sim_us(t);
	}
}

/* ---- lists ---- */

void plan_node_insert(struct plan_sim *f, int32_t *head, int n, enum plan_place place, int32_t owner)
{
	struct plan_sim_node *node = &f->node[n];
	node->place = (uint8_t)place;
	node->owner = owner;
	node->prev = PLAN_NONE;
	node->next = *head;
	if (*head != PLAN_NONE)
		f->node[*head].prev = n;
	*head = n;
}

void plan_node_remove(struct plan_sim *f, int32_t *head, int n)
{
	struct plan_sim_node *node = &f->node[n];
	if (node->prev != PLAN_NONE)
		f->node[node->prev].next = node->next;
	else
		*head = node->next;
	if (node->next != PLAN_NONE)
		f->node[node->next].prev = node->prev;
}

/* ---- failure and repair ---- */

static void renew(struct plan_sim *f, int n)
{
	f->node[n].since_us = f->now_us;
	plan_node_age(f, n);
}

static void free_again(struct plan_sim *f, int n)
{
	struct plan_sim_pool *p = &f->pool[f->node[n].pool];
	plan_node_insert(f, &p->first_free, n, PLAN_PLACE_FREE, PLAN_NONE);
	p->free++;
	plan_gang_refill(f, f->node[n].pool);
	p->dirty = true;
}

static void repaired(struct plan_sim *f, int n)
{
	struct plan_sim_node *node = &f->node[n];
	struct plan_sim_site *s = plan_sim_site_of(f, node->pool);
	s->state[PLAN_NODE_DOWN]--;
	s->state[PLAN_NODE_IDLE]++;
	s->up_mw += f->pool[node->pool].idle_mw;
	renew(f, n);
	free_again(f, n);
}

static void to_repair(struct plan_sim *f, int n)
{
	struct plan_sim_node *node = &f->node[n];
	struct plan_sim_pool *p = &f->pool[node->pool];
	struct plan_sim_site *s = plan_sim_site_of(f, node->pool);
	s->state[PLAN_NODE_IDLE]--;
	s->state[PLAN_NODE_DOWN]++;
	s->up_mw -= p->idle_mw;
	node->place = PLAN_PLACE_REPAIR;
	int64_t us = plan_sim_us(plan_random_lognormal(&node->random, p->in->repair.mean_s, p->in->repair.spread));
	plan_heap_set(&f->events, n, (double)(f->now_us + (us > 0 ? us : 1)));
}

static void fails(struct plan_sim *f, int n)
{
	struct plan_sim_node *node = &f->node[n];
	struct plan_sim_pool *p = &f->pool[node->pool];
	bool soft = plan_random_uniform(&node->random) < p->in->soft_share;
	int32_t gang = node->place == PLAN_PLACE_GANG ? node->owner : PLAN_NONE;
	/* A gang takes itself back to starting and leaves a node that needs repair among the idle. */
	if (gang != PLAN_NONE)
		plan_gang_fail(f, gang, n, soft);
	if (soft) {
		renew(f, n);
		return;
	}
	if (gang == PLAN_NONE) {
		plan_node_remove(f, &p->first_free, n);
		p->free--;
	}
	to_repair(f, n);
	plan_gang_refill(f, node->pool);
}

void plan_node_event(struct plan_sim *f, int n)
{
	struct plan_sim_node *node = &f->node[n];
	plan_site_touch(f, plan_sim_site_of(f, node->pool));
	if (node->place == PLAN_PLACE_REPAIR)
		repaired(f, n);
	else if (node->place == PLAN_PLACE_WINDOW)
		renew(f, n); /* whoever services it sees to it that it does not fail meanwhile */
	else
		fails(f, n);
}

/* ---- maintenance ---- */

static void window_begin(struct plan_sim *f, int w)
{
	const struct plan_fleet_window *in = &f->in->window[w];
	struct plan_sim_window *window = &f->window[w];
	struct plan_sim_pool *p = &f->pool[in->pool];
	struct plan_sim_site *s = plan_sim_site_of(f, in->pool);
	while (p->free < in->nodes && p->gangs.n)
		plan_gang_evict(f, p->gangs.id[0]);
	while (window->taken < in->nodes && p->free) {
		int n = p->first_free;
		plan_node_remove(f, &p->first_free, n);
		plan_node_insert(f, &window->first, n, PLAN_PLACE_WINDOW, w);
		p->free--;
		window->taken++;
	}
	s->state[PLAN_NODE_IDLE] -= window->taken;
	s->state[PLAN_NODE_MAINTENANCE] += window->taken;
	window->open = true;
	plan_heap_set(&f->events, plan_event_window(f, w), (double)(f->now_us + plan_sim_us(in->duration_s)));
	p->dirty = true;
}

static void window_end(struct plan_sim *f, int w)
{
	const struct plan_fleet_window *in = &f->in->window[w];
	struct plan_sim_window *window = &f->window[w];
	struct plan_sim_site *s = plan_sim_site_of(f, in->pool);
	s->state[PLAN_NODE_MAINTENANCE] -= window->taken;
	s->state[PLAN_NODE_IDLE] += window->taken;
	for (; window->taken; window->taken--) {
		int n = window->first;
		plan_node_remove(f, &window->first, n);
		free_again(f, n);
	}
	window->open = false;
	if (in->every_s > 0) {
		window->next_us += plan_sim_us(in->every_s);
		plan_heap_set(&f->events, plan_event_window(f, w), (double)window->next_us);
	}
}

void plan_window_event(struct plan_sim *f, int w)
{
	plan_site_touch(f, plan_sim_site_of(f, f->in->window[w].pool));
	if (f->window[w].open)
		window_end(f, w);
	else
		window_begin(f, w);
}
