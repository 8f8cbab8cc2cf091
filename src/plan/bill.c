/* From devices held for a time to energy, carbon, water and money.
 *
 * An owned device's hour costs what owning the whole site costs in a year over the device-hours of it that are used; the energy of a work is billed as it
 * is drawn, so it is left out of that hour. A rented device's hour contains everything. What nobody gave a price for makes the sum NAN, never
 * smaller: "no price" is said, not a low one. */
#include "plan/bill.h"

#include <math.h>

#include "plan/site/facility.h"

double plan_bill_pue(const struct plan_here *h)
{
	if (!isnan(h->site->pue))
		return h->site->pue;
	return h->cooling && h->cooling->pue >= 1 ? h->cooling->pue : 1;
}

int plan_bill_rent_s(const struct stave_plan *p, const struct plan_here *h, double *out, struct stave_err *err)
{
	if (isfinite(h->site->rent_s.amount))
		return plan_convert(p, &h->site->rent_s, out, err);
	int rc = plan_convert(p, &h->accelerator->rent_h, out, err);
	if (!rc)
		*out /= 3600;
	return rc;
}

int plan_bill_energy_j(const struct stave_plan *p, const struct plan_here *h, double *out, struct stave_err *err)
{
	if (isfinite(h->site->energy.amount))
		return plan_convert(p, &h->site->energy, out, err);
	struct plan_price grid = {.amount = NAN};
	if (h->grid) {
		grid.amount = h->grid->price_per_j;
		snprintf(grid.currency, sizeof grid.currency, "%s", h->grid->currency);
	}
	return plan_convert(p, &grid, out, err);
}

/* A price that may be absent because there is nothing of it (no network named: 0). */
static int optional(const struct stave_plan *p, const struct plan_price *price, double times, double *out, struct stave_err *err)
{
	*out = 0;
	if (!isfinite(price->amount))
		return 0;
	int rc = plan_convert(p, price, out, err);
	if (!rc)
		*out *= times;
	return rc;
}

/* The node's price: the site's, the catalog's. */
static int node_price(const struct stave_plan *p, const struct plan_here *h, double *out, struct stave_err *err)
{
	if (isfinite(h->site->device.amount))
		return plan_convert(p, &h->site->device, out, err);
	return plan_convert(p, &h->node->price, out, err);
}

int plan_bill_owning(const struct stave_plan *p, const struct plan_here *h, struct plan_owning *out, struct stave_err *err)
{
	const struct plan_site *s = h->site;
	double all = h->nodes + h->spares, node, energy, pue = plan_bill_pue(h);
	struct plan_owning o = {.interest = s->interest, .life_years = s->life_s / PLAN_YEAR_S, .building_years = 20, .maintenance = s->maintenance, .count = all * h->node->count};
	struct plan_draw draw;
	int rc;
	plan_draw_evaluate(h->node, all, all, 1, h->network, h->storage, &draw);
	if ((rc = node_price(p, h, &node, err)) || (rc = plan_bill_energy_j(p, h, &energy, err)) ||
	    (rc = optional(p, &s->staff_s, PLAN_YEAR_S, &o.staff_year, err)) || (rc = optional(p, &s->space_s, PLAN_YEAR_S, &o.space_year, err)) ||
	    (rc = optional(p, &s->building_w, draw.peak_w / 1000, &o.building, err)) ||
	    (h->network && (rc = optional(p, &h->network->port, all * h->node->nics, &o.network, err))) || (h->storage && (rc = optional(p, &h->storage->price, 1, &o.storage, err))))
		return rc;
	o.devices = node * all;
	o.idle_energy_year = draw.idle_w * pue * PLAN_YEAR_S * energy;
	o.busy_energy_year = (draw.mean_w - draw.idle_w) * pue * PLAN_YEAR_S * energy;
	*out = o;
	return 0;
}

static void consume(const struct plan_here *h, const struct plan_use *u, struct plan_footprint *f)
{
	const struct plan_site *s = h->site;
	struct plan_draw draw;
	struct plan_impact impact;
	double nodes = u->nodes, share = fmin(u->network_share, 1);
	plan_draw_evaluate(h->node, nodes, nodes, u->busy, NULL, NULL, &draw);
	if (h->node->rated_w <= 0) /* nobody measured what a profile's machine draws */
		draw.mean_w = draw.peak_w = NAN;
	double other = ((h->network ? h->network->port_w * h->node->nics * (h->nodes + h->spares) : 0) + (h->storage ? h->storage->power_w : 0)) * share;
	struct plan_consumption c = {
		.it_mean_w = draw.mean_w + other, .seconds = u->seconds, .pue = plan_bill_pue(h), .life_s = s->life_s,
		.water_l_per_j = !isnan(s->water_l_per_j) ? s->water_l_per_j : h->cooling ? h->cooling->water_l_per_j : 0,
		.source_l_per_j = h->grid ? h->grid->water_l_per_j : 0, .kg_per_j = !isnan(s->kg_per_j) ? s->kg_per_j : h->grid ? h->grid->kg_per_j : NAN,
		.embodied_kg = nodes * (h->node->embodied_kg + h->node->count * h->accelerator->embodied_kg)};
	c.market_kg_per_j = !isnan(s->kg_per_j_market) ? s->kg_per_j_market : c.kg_per_j;
	plan_impact_evaluate(&c, &impact);
	*f = (struct plan_footprint){.it_power_w = c.it_mean_w, .mean_power_w = c.it_mean_w * c.pue, .peak_power_w = ((h->node->rated_w > 0 ? u->peak_nodes * plan_node_power_w(h->node, 1) : NAN) + other) * c.pue,
	                             .energy_j = impact.facility_j, .carbon_kg = impact.carbon_kg, .carbon_market_kg = impact.market_kg, .embodied_kg = impact.embodied_kg,
	                             .water_l = impact.water_l, .source_water_l = impact.source_water_l};
}

static double sum(const struct plan_money *m) { return m->devices + m->network + m->storage + m->building + m->staff + m->maintenance + m->energy; }

int plan_bill_use(const struct stave_plan *p, const struct plan_here *h, const struct plan_use *u, struct plan_money *m, struct plan_footprint *f, struct stave_err *err)
{
	double device_s = u->devices * u->seconds, rent, energy;
	int rc;
	*m = (struct plan_money){0};
	consume(h, u, f);
	if (h->site->rented) {
		if ((rc = plan_bill_rent_s(p, h, &rent, err)))
			return rc;
		m->devices = rent * device_s;
		m->total = sum(m);
		return 0;
	}
	struct plan_owning owning;
	struct plan_owned owned;
	if ((rc = plan_bill_owning(p, h, &owning, err)) || (rc = plan_bill_energy_j(p, h, &energy, err)))
		return rc;
	owning.idle_energy_year = owning.busy_energy_year = 0;
	plan_owned_evaluate(&owning, h->site->utilisation, &owned);
	double years = device_s / (owning.count * PLAN_YEAR_S * h->site->utilisation); /* of the whole site */
	*m = (struct plan_money){.devices = owned.devices_year * years, .network = owned.network_year * years, .storage = owned.storage_year * years,
	                         .building = (owned.building_year + owned.space_year) * years, .staff = owned.staff_year * years, .maintenance = owned.maintenance_year * years,
	                         .energy = f->energy_j * energy};
	m->total = sum(m);
	return 0;
}

void plan_money_add(struct plan_money *to, const struct plan_money *m)
{
	to->devices += m->devices, to->network += m->network, to->storage += m->storage, to->building += m->building;
	to->staff += m->staff, to->maintenance += m->maintenance, to->energy += m->energy, to->total += m->total;
}

void plan_footprint_add(struct plan_footprint *to, const struct plan_footprint *f)
{
	to->it_power_w += f->it_power_w, to->mean_power_w += f->mean_power_w, to->peak_power_w += f->peak_power_w, to->energy_j += f->energy_j;
	to->carbon_kg += f->carbon_kg, to->carbon_market_kg += f->carbon_market_kg, to->embodied_kg += f->embodied_kg, to->water_l += f->water_l, to->source_water_l += f->source_water_l;
}
