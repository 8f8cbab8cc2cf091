/* A site as a whole: how its nodes stand, what it draws, what an hour of it costs, and when it is ready. */
#include <math.h>
#include <string.h>

#include "plan/bill.h"
#include "plan/site/facility.h"
#include "plan/site/schedule.h"
#include "plan/site_result.h"

#define DRAWS 4000

/* Racks and cooling of one pool, added to the site's. */
static int add_pool(const struct stave_plan *p, int site, int pool, struct plan_site_result *out, struct stave_err *err)
{
	static const struct plan_scale as_it_is = {{1, 1, 1, 1, 1, 1, 1, 1, 1}};
	const struct plan_site *s = &p->spec->site[site];
	struct plan_here h;
	struct plan_draw draw;
	struct plan_housing house;
	int rc = plan_here_find(p, s, pool, &as_it_is, &h, err);
	if (rc)
		return rc;
	h.node = &h.own_node, h.accelerator = &h.own_accelerator;
	int nodes = h.nodes + h.spares;
	out->nodes += nodes;
	plan_draw_evaluate(h.node, nodes, nodes, 1, h.network, pool ? NULL : h.storage, &draw);
	double pue = plan_bill_pue(&h);
	out->it_peak_w += draw.peak_w;
	out->facility_peak_w += draw.peak_w * pue;
	out->facility_mean_w += draw.mean_w * pue;
	if (h.node->rated_w <= 0)
		return 0;
	struct plan_room room = {.rack_w = isnan(s->rack_w) ? 0 : s->rack_w, .overhead = pue, .cooling = s->cooling[0] ? h.cooling : NULL};
	if ((rc = plan_housing_evaluate(&room, h.node, nodes, 0, p->catalog->cooling, p->catalog->coolings, &house, err)))
		return rc;
	out->nodes_per_rack = house.nodes_per_rack;
	out->racks += (int)house.racks;
	out->rack_w = house.rack_w;
	out->needs_cooling = house.needs ? house.needs->name : "a class stronger than any in the catalog";
	out->has_cooling = s->cooling[0] && house.has_cooling;
	out->air_cfm = house.racks > 0 ? house.air_cfm / house.racks : 0;
	out->water_l_s = house.racks > 0 ? house.water_l_s / house.racks : 0;
	return 0;
}

/* Prices by the first pool. */
static int add_prices(const struct stave_plan *p, int site, struct plan_site_result *out, struct stave_err *err)
{
	static const struct plan_scale as_it_is = {{1, 1, 1, 1, 1, 1, 1, 1, 1}};
	struct plan_here h;
	struct plan_owning o;
	struct plan_owned owned;
	double rent_s;
	int rc = plan_here_find(p, &p->spec->site[site], 0, &as_it_is, &h, err);
	if (rc)
		return rc;
	h.node = &h.own_node, h.accelerator = &h.own_accelerator;
	if ((rc = plan_bill_owning(p, &h, &o, err)) || (rc = plan_bill_rent_s(p, &h, &rent_s, err)))
		return rc;
	plan_owned_evaluate(&o, p->spec->site[site].utilisation, &owned);
	out->capex = owned.capex;
	out->owned_device_h = owned.device_hour;
	out->rented_device_h = rent_s * 3600;
	out->break_even = isfinite(rent_s) && isfinite(owned.capex) ? plan_break_even(&o, rent_s * 3600) : NAN;
	if (out->break_even > 1)
		out->break_even = NAN; /* never */
	return 0;
}

int plan_site_ready(const struct stave_plan *p, int site, struct plan_site_result *out, struct stave_err *err)
{
	const struct plan_site *s = &p->spec->site[site];
	struct plan_item item[PLAN_BUILD_MAX];
	struct plan_ready ready;
	double start = p->spec->start_day;
	out->ready_p10_day = out->ready_p50_day = out->ready_p90_day = isnan(s->ready_day) ? start : s->ready_day;
	if (!s->builds)
		return 0;
	for (int i = 0; i < s->builds; i++) {
		const struct plan_build *b = &s->build[i];
		const void *known = NULL;
		item[i] = (struct plan_item){.name = b->item, .low_s = b->low_s, .likely_s = b->likely_s, .high_s = b->high_s, .afters = b->afters};
		if (isnan(b->low_s) && !plan_catalog_find(p->catalog, "lead_time", b->item, NULL, &known, NULL)) {
			const struct plan_lead_time *t = known;
			item[i].low_s = t->low_s, item[i].likely_s = t->likely_s, item[i].high_s = t->high_s;
		}
		for (int k = 0; k < b->afters; k++)
			item[i].after[k] = b->after[k];
	}
	int rc = plan_schedule_run(item, s->builds, (uint64_t)p->spec->seed, DRAWS, 0, &ready, err);
	if (rc)
		return rc;
	double begin = isnan(start) ? 0 : start;
	out->ready_p10_day = begin + ready.p10_s / 86400, out->ready_p50_day = begin + ready.p50_s / 86400, out->ready_p90_day = begin + ready.p90_s / 86400;
	snprintf(out->critical, sizeof out->critical, "%s", ready.decides >= 0 ? s->build[ready.decides].item : "");
	for (int i = 0, n = 0; i < ready.path_n && n < (int)sizeof out->path - PLAN_NAME - 8; i++)
		n += snprintf(out->path + n, sizeof out->path - (size_t)n, "%s%s", i ? " > " : "", s->build[ready.path[i]].item);
	return 0;
}

int plan_site_evaluate(const struct stave_plan *p, int site, struct plan_site_result *out, struct stave_err *err)
{
	struct plan_site_result r = *out; /* with its date */
	int rc = 0;
	r.needs_cooling = "none known";
	r.capex = r.owned_device_h = r.rented_device_h = r.break_even = NAN;
	for (int i = 0; i < p->spec->site[site].pools && !rc; i++)
		rc = add_pool(p, site, i, &r, err);
	if (rc || (rc = add_prices(p, site, &r, err)))
		return rc;
	*out = r;
	return 0;
}
