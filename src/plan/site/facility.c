/* A site from the node to the utility feed: what stands in a rack, what the rack's cooling takes away, what the feed carries, and what the meter reads.
 *
 * Rooms and feeds are sized by the peak, bills by the mean: the two never meet in one number. A measured peak lies well below the name plate, so sizing by the
 * latter would leave a fifth of a room empty. PUE is a ratio of yearly energies and multiplies energy once; at the feed, where power counts, `overhead` does. */
#include "plan/site/facility.h"

#include <math.h>

const char *const plan_limit_name[PLAN_LIMIT_COUNT] = {
	[PLAN_LIMIT_BUSWAY] = "busway or PDU", [PLAN_LIMIT_RACK] = "rack",      [PLAN_LIMIT_COOLING] = "cooling class",
	[PLAN_LIMIT_CDU] = "cooling water",    [PLAN_LIMIT_ROOM] = "room power", [PLAN_LIMIT_FEED] = "utility feed",
};

double plan_node_power_w(const struct plan_node *n, double u)
{
	double share = n->peak_share > 0 ? n->peak_share : PLAN_PEAK_SHARE;
	double peak = fmax(share * n->rated_w, n->idle_w);
	return n->idle_w + fmin(fmax(u, 0), 1) * (peak - n->idle_w);
}

void plan_draw_evaluate(const struct plan_node *n, double nodes, double busy, double u, const struct plan_network *net, const struct plan_storage *st, struct plan_draw *out)
{
	double ports = n->nics > 0 ? n->nics : 1;
	busy = fmin(busy, nodes);
	struct plan_draw d = {.network_w = net ? net->port_w * ports * nodes : 0, .storage_w = st ? st->power_w : 0};
	/* switches and disks draw much the same whether they are asked or not */
	double other = d.network_w + d.storage_w;
	d.nodes_mean_w = busy * plan_node_power_w(n, u) + (nodes - busy) * plan_node_power_w(n, 0);
	d.idle_w = nodes * plan_node_power_w(n, 0) + other;
	d.mean_w = d.nodes_mean_w + d.network_w + d.storage_w;
	d.peak_w = nodes * plan_node_power_w(n, 1) + other;
	*out = d;
}

double plan_air_m3_s(double w, double k) { return w / (1.2 * 1005 * k); }
double plan_air_cfm(double m3_s) { return m3_s * 2118.88; }
double plan_water_l_s(double w, double k) { return w / (4186 * k); }

double plan_cooling_liquid_share(const struct plan_cooling *c)
{
	return c->rack_w <= 40e3 ? 0 : c->rack_w <= 70e3 ? 1 : c->rack_w <= 140e3 ? 0.8 : 1;
}

static double liquid_share(const struct plan_room *r)
{
	double given = fmin(r->liquid_share, 1);
	return given > 0 ? given : r->cooling ? plan_cooling_liquid_share(r->cooling) : 0;
}

/* Nodes that fit under `limit` watts of a rack; a limit of 0 is none. */
static double per_rack(double limit_w, double node_w)
{
	return limit_w > 0 && node_w > 0 ? floor(limit_w / node_w * (1 + 1e-12)) : INFINITY;
}

/* Nodes that fit under `limit` watts of the whole room, `other_w` of it taken. */
static double in_all(double limit_w, double other_w, double node_w)
{
	return limit_w > 0 && node_w > 0 ? fmax(floor((limit_w - other_w) / node_w * (1 + 1e-12)), 0) : INFINITY;
}

static double of_room(const struct plan_room *r, double each)
{
	if (each < 1)
		return 0;
	return r->racks > 0 && isfinite(each) ? r->racks * each : INFINITY;
}

/* What space alone lets stand in a rack; a node larger than a rack fills several, and so counts as one. */
static double by_units(const struct plan_room *r, const struct plan_node *n)
{
	double units = r->rack_units > 0 ? r->rack_units : 42;
	return n->units > 0 ? fmax(floor(units / n->units), 1) : INFINITY;
}

static void pack(const struct plan_room *r, const struct plan_node *n, double other_w, struct plan_housing *h)
{
	double node_w = h->node_w, units = by_units(r, n), overhead = fmax(r->overhead, 1);
	double busway = per_rack(r->busway_w, node_w), rack = fmin(per_rack(r->rack_w, node_w), units);
	double cooling = r->cooling ? per_rack(r->cooling->rack_w, node_w) : INFINITY;
	double each = fmin(fmin(busway, rack), cooling);
	h->nodes_per_rack = isfinite(each) ? (int)fmin(each, 1e6) : 0;
	h->nodes_max[PLAN_LIMIT_BUSWAY] = of_room(r, busway);
	h->nodes_max[PLAN_LIMIT_RACK] = of_room(r, rack);
	h->nodes_max[PLAN_LIMIT_COOLING] = of_room(r, cooling);
	double water_k = r->water_k > 0 ? r->water_k : 10, liquid_w = node_w * liquid_share(r);
	h->nodes_max[PLAN_LIMIT_CDU] = liquid_w > 0 ? in_all(r->cdu_l_s * 4186 * water_k, 0, liquid_w) : INFINITY;
	h->nodes_max[PLAN_LIMIT_ROOM] = in_all(r->room_w, other_w, node_w);
	h->nodes_max[PLAN_LIMIT_FEED] = in_all(r->feed_w / overhead, other_w, node_w);
	h->nodes = INFINITY;
	h->binding = PLAN_LIMIT_COUNT;
	for (int i = 0; i < PLAN_LIMIT_COUNT; i++)
		if (h->nodes_max[i] < h->nodes) {
			h->nodes = h->nodes_max[i];
			h->binding = i;
		}
}

/* Weakest class that takes the heat of racks packed as full as space, rack and busway let them. */
static void need_cooling(const struct plan_room *r, const struct plan_node *n, const struct plan_cooling *classes, int n_classes, struct plan_housing *h)
{
	double each = fmin(fmin(per_rack(r->busway_w, h->node_w), per_rack(r->rack_w, h->node_w)), by_units(r, n));
	double rack_w = h->node_w * (isfinite(each) ? fmax(each, 1) : 1);
	h->needs = NULL;
	for (int i = 0; i < n_classes && !h->needs; i++)
		if (classes[i].rack_w >= rack_w)
			h->needs = &classes[i];
	h->has_cooling = r->cooling && r->cooling->rack_w >= rack_w;
}

/* The smallest change that lets all nodes stand, for each limit. */
static int does_not_stand(const struct plan_room *r, const struct plan_node *n, double nodes, double other_w, const struct plan_housing *h, struct stave_err *err)
{
	double node_w = h->node_w, kw = node_w / 1e3, overhead = fmax(r->overhead, 1), max = h->nodes;
	const char *needs = h->needs ? h->needs->name : "none in the catalog";
	switch (h->binding) {
	case PLAN_LIMIT_BUSWAY:
	case PLAN_LIMIT_RACK:
	case PLAN_LIMIT_COOLING: {
		double limit_w = h->binding == PLAN_LIMIT_BUSWAY ? r->busway_w : h->binding == PLAN_LIMIT_RACK ? r->rack_w : r->cooling->rack_w;
		const char *space = h->binding == PLAN_LIMIT_COOLING ? " " : "", *class = *space ? r->cooling->name : "";
		if (max < 1)
			return stave_err_set(err, STAVE_ENOFIT, "%s%s%s: a rack may have %.3g kW, but one %s draws %.3g kW at its peak: give racks %.3g kW (cooling class %s)",
			                     plan_limit_name[h->binding], space, class, limit_w / 1e3, n->name, kw, ceil(kw * 10) / 10, needs);
		return stave_err_set(err, STAVE_ENOFIT, "%s%s%s: %.0f racks of %d %s (%.3g kW) hold %.0f of %.0f nodes: %.0f racks more", plan_limit_name[h->binding], space, class,
		                     r->racks, h->nodes_per_rack, n->name, h->rack_w / 1e3, max, nodes, h->racks - r->racks);
	}
	case PLAN_LIMIT_CDU: {
		double k = r->water_k > 0 ? r->water_k : 10, want = plan_water_l_s(nodes * node_w * liquid_share(r), k);
		return stave_err_set(err, STAVE_ENOFIT, "cooling water: %.4g L/s cool %.0f of %.0f nodes %s: %.4g L/s more", r->cdu_l_s, max, nodes, n->name, want - r->cdu_l_s);
	}
	case PLAN_LIMIT_ROOM: {
		double want = nodes * node_w + other_w;
		return stave_err_set(err, STAVE_ENOFIT, "room power: %.4g kW carry %.0f of %.0f nodes %s (%.3g kW each at the peak, %.4g kW network and storage): %.4g kW more",
		                     r->room_w / 1e3, max, nodes, n->name, kw, other_w / 1e3, (want - r->room_w) / 1e3);
	}
	default: {
		double want = (nodes * node_w + other_w) * overhead;
		return stave_err_set(err, STAVE_ENOFIT,
		                     "utility feed: %.4g kW carry %.0f of %.0f nodes %s (%.3g kW each at the peak, %.4g kW network and storage, times %.3g for cooling): %.4g kW more",
		                     r->feed_w / 1e3, max, nodes, n->name, kw, other_w / 1e3, overhead, (want - r->feed_w) / 1e3);
	}
	}
}

int plan_housing_evaluate(const struct plan_room *r, const struct plan_node *n, double nodes, double other_w, const struct plan_cooling *classes, int n_classes,
                          struct plan_housing *out, struct stave_err *err)
{
	struct plan_housing h = {.node_w = plan_node_power_w(n, 1)};
	pack(r, n, other_w, &h);
	need_cooling(r, n, classes, n_classes, &h);
	h.racks = h.nodes_per_rack > 0 ? ceil(nodes / h.nodes_per_rack) : nodes;
	h.rack_w = h.node_w * fmin(fmax(h.nodes_per_rack, 1), fmax(nodes, 1));
	double liquid = liquid_share(r), heat = nodes * h.node_w;
	h.air_m3_s = plan_air_m3_s(heat * (1 - liquid), r->air_k > 0 ? r->air_k : 12);
	h.air_cfm = plan_air_cfm(h.air_m3_s);
	h.water_l_s = plan_water_l_s(heat * liquid, r->water_k > 0 ? r->water_k : 10);
	*out = h;
	return h.nodes < nodes ? does_not_stand(r, n, nodes, other_w, &h, err) : 0;
}

void plan_impact_evaluate(const struct plan_consumption *c, struct plan_impact *out)
{
	double it = c->it_mean_w * c->seconds, facility = it * c->pue;
	*out = (struct plan_impact){
		.it_j = it, .facility_j = facility, .water_l = it * c->water_l_per_j, .source_water_l = facility * c->source_l_per_j,
		.carbon_kg = facility * c->kg_per_j, .market_kg = facility * c->market_kg_per_j,
		.embodied_kg = c->life_s > 0 ? c->embodied_kg * c->seconds / c->life_s : 0,
	};
}
