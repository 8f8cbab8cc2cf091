/* The shortest stave: what ten percent more of each resource does to the objective, ranked, with its price; then the same with the first one out of the way.
 *
 * Everything is evaluated again with one resource scaled (planner.md d.12). The layout stays, but for memory and nodes, which are worth something only to a layout that
 * uses them. Ten percent more nodes is seldom a number that a layout divides, so nodes are doubled and the gain of a doubling is taken to the power log2(1.1). */
#include <math.h>
#include <string.h>

#include "plan/evaluate.h"

#define MORE 1.1
#define OUT_OF_THE_WAY 2.0
#define NOTHING 0.005 /* a gain that is not worth a name */

static const struct plan_scale AS_IT_IS = {{1, 1, 1, 1, 1, 1, 1, 1, 1}};

/* Objective with the resources scaled; INFINITY when it does not fit. */
static double objective_with(const struct stave_plan *p, const struct plan_work_result *r, const struct plan_scale *k, bool free_layout)
{
	struct plan_work_result other = {.work = r->work, .site = r->site};
	struct plan_here here;
	struct stave_err err;
	double objective = INFINITY;
	int pool = (int)(r->here.pool - r->here.site->pool);
	if (plan_here_find(p, r->here.site, pool, k, &here, &err))
		return INFINITY;
	other.here = here;
	other.here.node = &other.here.own_node;
	other.here.accelerator = &other.here.own_accelerator;
	int gpus = r->train.gpus * (here.nodes / (r->here.nodes > 0 ? r->here.nodes : 1) >= 2 ? 2 : 1);
	int rc = r->serving ? plan_evaluate_serve(p, &other.here, r->serve.choice.replica.tp, k, &other, &err)
	                    : plan_evaluate_train(p, &other.here, gpus, free_layout ? &r->work->layout : &r->train.layout, k, &other, &err);
	if (!rc)
		objective = other.objective;
	plan_work_result_free(&other);
	return objective;
}

/* Relative fall of the objective for ten percent more of a resource, on top of `base`; never below 0 by more than the search's own noise. */
static double gain_of(const struct stave_plan *p, const struct plan_work_result *r, const struct plan_scale *base, double before, enum plan_resource which)
{
	struct plan_scale k = *base;
	bool nodes = which == PLAN_NODES;
	k.of[which] *= nodes ? 2 : MORE;
	double after = objective_with(p, r, &k, nodes || which == PLAN_MEMORY);
	if (!isfinite(after) || !(before > 0))
		return 0;
	double ratio = fmin(after / before, 1);
	return 1 - (nodes ? pow(ratio, log2(MORE)) : ratio);
}

/* What ten percent more would cost to buy: the share of a machine's price that such a part is cannot be known, so a resource of the device costs ten percent of the devices. */
static double price_of(const struct stave_plan *p, const struct plan_work_result *r, enum plan_resource which)
{
	const struct plan_here *h = &r->here;
	struct stave_err err;
	struct plan_owning o;
	if (h->site->rented || plan_bill_owning(p, h, &o, &err))
		return NAN;
	switch (which) {
	case PLAN_ARITHMETIC:
	case PLAN_BANDWIDTH:
	case PLAN_MEMORY:
	case PLAN_LINK:
	case PLAN_NODES: return (MORE - 1) * o.devices;
	case PLAN_NETWORK: return h->network ? (MORE - 1) * o.network : NAN;
	case PLAN_STORAGE: return h->storage ? (MORE - 1) * o.storage : NAN;
	default: return NAN;
	}
}

/* Resources that this work can feel at this place. */
static bool felt(const struct plan_work_result *r, enum plan_resource which)
{
	bool alone = !strcmp(r->here.pool->type, "profile");
	if (alone)
		return which == PLAN_ARITHMETIC || which == PLAN_BANDWIDTH || which == PLAN_MEMORY;
	if (r->serving)
		return which <= PLAN_LINK;
	return which != PLAN_POWER || r->here.power_bound;
}

static void sort(struct plan_stave *s, int n)
{
	for (int i = 1; i < n; i++)
		for (int j = i; j > 0 && s[j].gain > s[j - 1].gain; j--) {
			struct plan_stave t = s[j];
			s[j] = s[j - 1];
			s[j - 1] = t;
		}
}

int plan_staves_rank(const struct stave_plan *p, struct plan_work_result *r, struct stave_err *err)
{
	r->staves = 0;
	for (int i = 0; i < PLAN_RESOURCE_COUNT; i++)
		if (felt(r, (enum plan_resource)i))
			r->stave[r->staves++] = (struct plan_stave){(enum plan_resource)i, gain_of(p, r, &AS_IT_IS, r->objective, (enum plan_resource)i), price_of(p, r, (enum plan_resource)i), 0};
	sort(r->stave, r->staves);
	r->shortest = r->stave[0].gain < NOTHING ? "the software's own time per launch, iteration and request" : plan_resource_name[r->stave[0].resource];
	struct plan_scale without = AS_IT_IS;
	without.of[r->stave[0].resource] = OUT_OF_THE_WAY;
	double before = objective_with(p, r, &without, r->stave[0].resource == PLAN_NODES), most = -1;
	for (int i = 1; i < r->staves; i++) {
		struct plan_stave *s = &r->stave[i];
		s->next_gain = isfinite(before) ? gain_of(p, r, &without, before, s->resource) : s->gain;
		if (s->next_gain > most) {
			most = s->next_gain;
			r->next_wall = s->resource;
		}
	}
	return 0;
}
