/* A plan: each work at the best place it may go, then each site, then the sums, held against the limits.
 *
 * Works do not compete: each is planned as if the site's nodes were its own while it runs. How they share them over time is what `simulate` shows. A site is refused
 * for a work by rules (residency, export), by what does not fit, or by a deadline; the reason is kept, and when no site is left it is the error. */
#include "plan/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/evaluate.h"
#include "plan/site/placement.h"
#include "plan/site_result.h"

static const struct plan_scale AS_IT_IS = {{1, 1, 1, 1, 1, 1, 1, 1, 1}};

void plan_work_result_free(struct plan_work_result *r)
{
	plan_search_free(&r->train.search);
	r->train.search = (struct plan_search){0};
}

double plan_objective(const struct stave_plan *p, const struct plan_work_result *r)
{
	switch (p->spec->objective) {
	case 1: return r->money.total;
	case 2: return r->footprint.energy_j;
	default: return r->serving ? r->serve.peak_rate / r->serve.choice.capacity_s * r->serve.gpus_replica : r->train.wall_p50_s;
	}
}

/* ---- one work at one pool ---- */

/* The place in a result points into the result itself. */
static void settle(struct plan_work_result *r)
{
	r->here.node = &r->here.own_node;
	r->here.accelerator = &r->here.own_accelerator;
}

/* Numbers of devices worth trying: all, and halves down to an eighth, in whole nodes; one machine's own divisors when there is only one. */
static int counts(const struct plan_work *w, const struct plan_here *h, int out[PLAN_POINTS_MAX])
{
	int all = h->nodes * h->node->count, n = 0;
	if (!isnan(w->gpus)) {
		out[n++] = w->gpus < all ? (int)w->gpus : all;
		return n;
	}
	for (int g = all; g >= 1 && n < 4; g /= 2) {
		int whole = g > h->node->count ? g / h->node->count * h->node->count : g;
		if (!n || whole < out[n - 1])
			out[n++] = whole;
	}
	/* a power of two below an odd number of nodes divides batches better */
	int two = h->node->count;
	while (two * 2 <= all)
		two *= 2;
	if (two < all && two != out[1] && n < PLAN_POINTS_MAX)
		out[n++] = two;
	return n;
}

/* By the deadline, with 90 %. */
static bool in_time(const struct plan_work_result *r) { return r->serving || isnan(r->work->by_day) || r->finish_p90_day <= r->work->by_day; }

static void mark_front(struct plan_training_result *t)
{
	for (int i = 0; i < t->points; i++) {
		t->point[i].front = true;
		for (int k = 0; k < t->points; k++) {
			const struct plan_point *a = &t->point[k], *b = &t->point[i];
			bool no_worse = a->wall_s <= b->wall_s && a->energy_j <= b->energy_j && !(a->money > b->money);
			bool better = a->wall_s < b->wall_s || a->energy_j < b->energy_j || a->money < b->money;
			t->point[i].front &= !(no_worse && better);
		}
	}
}

static bool better(const struct plan_work_result *a, const struct plan_work_result *b)
{
	if (in_time(a) != in_time(b))
		return in_time(a);
	if (!in_time(a)) /* both late: the less late one, so that the error names the least change */
		return a->finish_p90_day < b->finish_p90_day;
	return a->objective < b->objective;
}

/* The best number of devices; the first failure's message stays when nothing fits. */
static int train_here(const struct stave_plan *p, const struct plan_here *h, struct plan_work_result *r, struct stave_err *err)
{
	int count[PLAN_POINTS_MAX], n = counts(r->work, h, count), found = 0, rc = 0;
	struct plan_point point[PLAN_POINTS_MAX];
	for (int i = 0; i < n; i++) {
		struct plan_work_result one = {.work = r->work, .site = r->site, .here = *h};
		struct stave_err why;
		settle(&one);
		int bad = plan_evaluate_train(p, &one.here, count[i], &r->work->layout, &AS_IT_IS, &one, found || i ? &why : err);
		if (bad) {
			rc = i ? rc : bad;
			plan_work_result_free(&one);
			continue;
		}
		point[found++] = (struct plan_point){one.train.gpus, one.train.layout, one.train.wall_p50_s, one.money.total, one.footprint.energy_j, false};
		if (found > 1 && !better(&one, r)) {
			plan_work_result_free(&one);
			continue;
		}
		plan_work_result_free(r);
		*r = one;
		settle(r);
	}
	if (!found)
		return rc;
	memcpy(r->train.point, point, sizeof point);
	r->train.points = found;
	mark_front(&r->train);
	return 0;
}

static int at_pool(const struct stave_plan *p, const struct plan_work *w, int site, int pool, struct plan_work_result *out, struct stave_err *err)
{
	const struct plan_site *s = &p->spec->site[site];
	struct plan_here h;
	int rc = plan_here_find(p, s, pool, &AS_IT_IS, &h, err);
	if (rc)
		return rc;
	struct plan_location at = {s->name, s->region};
	if ((rc = plan_placement_check(&at, w->residency, &h.own_accelerator, p->spec->rule, p->spec->rules, err)))
		return rc;
	struct plan_work_result r = {.work = w, .site = site, .here = h, .serving = w->kind == PLAN_SERVE};
	settle(&r);
	h.node = &h.own_node, h.accelerator = &h.own_accelerator;
	rc = r.serving ? plan_evaluate_serve(p, &r.here, 0, &AS_IT_IS, &r, err) : train_here(p, &h, &r, err);
	if (!rc)
		*out = r;
	return rc;
}

static int late(const struct stave_plan *p, const struct plan_work_result *r, struct stave_err *err)
{
	const struct plan_work *w = r->work;
	double have = w->by_day - r->start_day, need = r->train.wall_p90_s / 86400;
	return stave_err_set(err, STAVE_ENOFIT, "%s:%d: %s takes %.4g days (p90) on %d devices of %s and has %.4g until its date; it would be done with a start %.3g days earlier, %.2f times the devices "
	                     "if they scale, or %.3g tokens", p->spec->file, w->line, w->name, need, r->train.gpus, r->here.site->name, have, need - have, need / fmax(have, 1e-9),
	                     w->tokens * fmax(have, 0) / need);
}

static int place_work(struct stave_plan *p, int index, struct stave_err *err)
{
	const struct plan_work *w = &p->spec->work[index];
	struct plan_work_result best = {.work = w}, one;
	char refused[PLAN_SITES_MAX][160] = {{0}};
	bool found = false;
	int first = 0;
	for (int i = 0; i < p->spec->sites; i++) {
		if (w->site[0] && strcmp(w->site, p->spec->site[i].name))
			continue;
		for (int k = 0; k < p->spec->site[i].pools; k++) {
			struct stave_err why = {0};
			int rc = at_pool(p, w, i, k, &one, &why);
			if (rc) {
				snprintf(refused[i], sizeof refused[i], "%.159s", why.msg);
				if (!first) {
					first = rc;
					stave_err_set(err, rc, "%s", why.msg);
				}
				continue;
			}
			if (found && !better(&one, &best)) {
				plan_work_result_free(&one);
				continue;
			}
			plan_work_result_free(&best);
			best = one;
			settle(&best);
			found = true;
		}
	}
	if (!found)
		return first ? first : stave_err_set(err, STAVE_ENOFIT, "%s: %s has no site", p->spec->file, w->name);
	p->work[index] = best;
	settle(&p->work[index]);
	memcpy(p->work[index].refused, refused, sizeof refused);
	p->work[index].refused[best.site][0] = 0;
	return in_time(&best) ? 0 : late(p, &best, err);
}

/* ---- the whole ---- */

static int over(const struct stave_plan *p, const char *what, double is, double limit, const char *change, struct stave_err *err)
{
	if (isnan(limit) || !(is > limit))
		return 0;
	return stave_err_set(err, STAVE_ENOFIT, "%s: the work takes %.4g %s and the limit is %.4g; %s", p->spec->file, is, what, limit, change);
}

static int limits(struct stave_plan *p, struct stave_err *err)
{
	const struct plan_limits *l = &p->spec->limits;
	double cost;
	int rc = plan_convert(p, &l->cost, &cost, err);
	if (rc)
		return rc;
	if (isfinite(cost) && !isfinite(p->money.total))
		return stave_err_set(err, STAVE_ECONFIG, "%s: a limit on cost needs prices, and one is missing: give the site's device, rent or energy", p->spec->file);
	if ((rc = over(p, p->spec->currency, p->money.total, cost, "raise it, or lower tokens, rate or time served", err)) ||
	    (rc = over(p, "J", p->footprint.energy_j, l->energy_j, "raise it, or lower tokens, rate or time served", err)))
		return rc;
	return over(p, "kg of CO2e", p->footprint.carbon_kg, l->carbon_kg, "raise it, or choose a grid with less carbon", err);
}

static int compute(struct stave_plan *p, struct stave_err *err)
{
	int rc = 0;
	for (int i = 0; i < p->spec->sites && !rc; i++)
		rc = plan_site_ready(p, i, &p->site[i], err);
	for (int i = 0; i < p->spec->works && !rc; i++)
		rc = place_work(p, i, err);
	for (int i = 0; i < p->spec->works && !rc; i++) {
		plan_money_add(&p->money, &p->work[i].money);
		plan_footprint_add(&p->footprint, &p->work[i].footprint);
	}
	if (rc || (rc = limits(p, err)))
		return rc;
	for (int i = 0; i < p->spec->works && !rc; i++)
		rc = plan_staves_rank(p, &p->work[i], err);
	for (int i = 0; i < p->spec->sites && !rc; i++)
		rc = plan_site_evaluate(p, i, &p->site[i], err);
	return rc;
}

int stave_plan_open(struct stave_plan **out, const char *spec, const struct stave_plan_options *o, struct stave_err *err)
{
	struct stave_plan *p = calloc(1, sizeof *p);
	if (!p)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for a plan");
	int rc = plan_catalog_open(&p->catalog, o->catalog, err);
	if (!rc)
		rc = plan_spec_open(&p->spec, spec, p->catalog, o->shape_of, err);
	if (!rc && !(p->work = calloc((size_t)p->spec->works, sizeof *p->work)))
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for %d works", p->spec->works);
	if (!rc)
		rc = compute(p, err);
	if (rc) {
		stave_plan_close(p);
		return rc;
	}
	*out = p;
	return 0;
}

void stave_plan_close(struct stave_plan *p)
{
	if (!p)
		return;
	for (int i = 0; p->work && i < p->spec->works; i++)
		plan_work_result_free(&p->work[i]);
	free(p->work);
	plan_spec_free(p->spec);
	plan_catalog_close(p->catalog);
	free(p);
}
