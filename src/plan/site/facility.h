/* Private to plan/: power, cooling, water and carbon of a site. W, J, L/s, m, K, kg of CO2 equivalent. Pure functions; nothing here allocates. */
#ifndef STAVE_PLAN_FACILITY_H
#define STAVE_PLAN_FACILITY_H

#include "plan/catalog/hardware.h"

/* Measured peak of a busy 8-GPU node over its name plate: between 0.76 (Newkirk et al. 2025, arXiv:2506.14551) and 0.82 (Latif et al. 2025,
 * arXiv:2412.08602: 8.4 of 10.2 kW). For nodes of which the catalog does not say it. */
#define PLAN_PEAK_SHARE 0.79

/* Power of a node busy a share `u` (0..1) of the time: P = idle + u (f rated - idle) (planner.md d.8; Newkirk et al. 2025). u 1 is its measured
 * peak, u the mean over time; the mean never exceeds the peak. */
double plan_node_power_w(const struct plan_node *n, double u);

/* What the machines of a site draw. */
struct plan_draw {
	double idle_w, mean_w, peak_w; /* IT: nodes, network, storage */
	double nodes_mean_w, network_w, storage_w; /* mean_w is their sum */
};
/* network and storage may be NULL. `busy` of `nodes` nodes work a share u of the time, the others idle. */
void plan_draw_evaluate(const struct plan_node *n, double nodes, double busy, double u, const struct plan_network *net, const struct plan_storage *st, struct plan_draw *out);

/* What a site offers; 0: not a limit, or not said. */
struct plan_room {
	double feed_w;              /* utility feed, everything included */
	double room_w;              /* IT power of the room */
	double rack_w, busway_w;    /* of one rack: what it may hold, and what its PDU or busway carries */
	double rack_units;          /* of one rack; 0: 42 */
	double racks;
	double overhead;            /* facility over IT power at the peak, >= 1; the yearly PUE where nothing better is known */
	double cdu_l_s;             /* water that the cooling units move, all together */
	double liquid_share;        /* of the heat, that water takes out of the rack; 0: as its cooling class does */
	double water_k, air_k;      /* how much warmer it comes back; 0: 10 K and 12 K */
	const struct plan_cooling *cooling; /* class the site has; NULL: unknown, not checked */
};
enum plan_limit { PLAN_LIMIT_BUSWAY, PLAN_LIMIT_RACK, PLAN_LIMIT_COOLING, PLAN_LIMIT_CDU, PLAN_LIMIT_ROOM, PLAN_LIMIT_FEED, PLAN_LIMIT_COUNT };
extern const char *const plan_limit_name[PLAN_LIMIT_COUNT];

struct plan_housing {
	int nodes_per_rack;
	double racks;               /* needed for the nodes wanted */
	double node_w, rack_w;      /* peak */
	double nodes_max[PLAN_LIMIT_COUNT]; /* that each limit alone would let stand; INFINITY: it does not limit */
	double nodes;               /* fewest of those */
	enum plan_limit binding;    /* first limit, from the rack to the feed, that sets `nodes`; COUNT: none */
	const struct plan_cooling *needs; /* weakest class that carries such racks; NULL: none in the list does */
	bool has_cooling;           /* the site's class is that one or stronger */
	double air_m3_s, air_cfm, water_l_s; /* of all nodes wanted, by the shares of air and water */
};
/* How `nodes` nodes of a kind stand in a room. Limits are tried from the inside out: busway or PDU, rack, cooling class, cooling water, room, utility feed
 * (planner.md d.8). `classes`: the catalog's, weakest first. other_w: network and storage, which the room and the feed carry too.
 * STAVE_ENOFIT when not all stand: the binding limit, what it gives, what is wanted, and the smallest change that would do; *out is then set too. */
int plan_housing_evaluate(const struct plan_room *r, const struct plan_node *n, double nodes, double other_w, const struct plan_cooling *classes, int n_classes,
                          struct plan_housing *out, struct stave_err *err);

/* Share of a rack's heat that a class takes away in water: none up to 40 kW, which is air; all in a rear door, up to 70 kW; four fifths by cold plates, up to 140 kW (memory,
 * NICs and power supplies stay in air); all in immersion above (planner.md d.8, limits of racks). */
double plan_cooling_liquid_share(const struct plan_cooling *c);
/* Air that carries `w` away at a rise of k kelvin: m3/s = W / (rho cp k), 1.2 kg/m3 and 1005 J/(kg K); that is CFM = 3.16 W / dF, or BTU/h / (1.08 dF)
 * (ASHRAE, sea level). */
double plan_air_m3_s(double w, double k);
double plan_air_cfm(double m3_s);
/* Water: L/s = W / (4186 k). */
double plan_water_l_s(double w, double k);

/* Energy, water and carbon of IT power drawn for some time. Figures that are not known go in as 0 and come out as 0, but NAN stays NAN. */
struct plan_consumption {
	double it_mean_w, seconds;
	double pue;                 /* facility energy over IT energy: of energy, once (planner.md d.8) */
	double water_l_per_j;       /* on site, per IT energy (WUE) */
	double source_l_per_j;      /* at the power plants, per facility energy */
	double kg_per_j, market_kg_per_j; /* of the grid, and by contracts */
	double embodied_kg, life_s; /* of the machines used, and how long they live */
};
struct plan_impact {
	double it_j, facility_j, water_l, source_water_l;
	double carbon_kg, market_kg; /* location and market based, of operation */
	double embodied_kg;          /* share of making the machines: seconds / life */
};
void plan_impact_evaluate(const struct plan_consumption *c, struct plan_impact *out);

#endif
