/* Private to plan/: what a plan says. Filled by evaluate.c (one work at one site), plan.c (all of it) and stave.c (the shortest staves); read by the reports.
 * NAN: could not be said (no price, no carbon figure). Times in s, energy in J, money in the specification's currency. */
#ifndef STAVE_PLAN_RESULT_H
#define STAVE_PLAN_RESULT_H

#include "plan/site/money.h"
#include "plan/serve/serve.h"
#include "plan/spec.h"

/* What a resource is scaled by when asking what lengthening it buys; 1 everywhere is the plan itself. */
#define PLAN_RESOURCES(X)                                                              \
	X(ARITHMETIC,  "arithmetic",       "peak flop/s of the devices")                \
	X(BANDWIDTH,   "memory bandwidth", "bytes/s of device memory")                  \
	X(MEMORY,      "memory",           "bytes of device memory")                    \
	X(LINK,        "device link",      "bytes/s between devices of a node")         \
	X(NETWORK,     "network",          "bytes/s of a node's NICs")                  \
	X(STORAGE,     "storage",          "bytes/s of shared storage")                 \
	X(RELIABILITY, "reliability",      "time between failures")                     \
	X(NODES,       "nodes",            "number of nodes")                           \
	X(POWER,       "power",            "the site's power")
enum plan_resource {
#define X(name, text, doc) PLAN_##name,
	PLAN_RESOURCES(X)
#undef X
	PLAN_RESOURCE_COUNT
};
extern const char *const plan_resource_name[PLAN_RESOURCE_COUNT];
struct plan_scale {
	double of[PLAN_RESOURCE_COUNT];
};

/* A pool of a site as the models want it. */
struct plan_here {
	const struct plan_site *site;
	const struct plan_pool *pool;
	const struct plan_node *node;        /* of the catalog, or made from a profile */
	const struct plan_accelerator *accelerator;
	const struct plan_network *network;  /* NULL: full bisection */
	const struct plan_storage *storage;  /* NULL: not a limit */
	const struct plan_grid *grid;
	const struct plan_cooling *cooling;
	int nodes, spares;                   /* nodes that work may use, and those kept free of the pool's count */
	bool power_bound;                    /* fewer than there are, because of power */
	struct plan_node own_node;           /* room for what a scale or a profile changes */
	struct plan_accelerator own_accelerator;
};

struct plan_money { /* of the work, spec's currency */
	double devices, network, storage, building, staff, maintenance, energy, total;
};
struct plan_footprint {
	double it_power_w, mean_power_w, peak_power_w; /* IT; facility mean and peak */
	double energy_j;                                /* facility */
	double carbon_kg, carbon_market_kg, embodied_kg, water_l, source_water_l;
};
/* Another way to do the same training: other device counts, each with its best layout. */
struct plan_point {
	int gpus;
	struct plan_layout layout;
	double wall_s, money, energy_j;
	bool front;                          /* none other is better in all three */
};
enum { PLAN_POINTS_MAX = 16 };
struct plan_training_result {
	struct plan_search search;           /* owned */
	struct plan_point point[PLAN_POINTS_MAX];
	int points;
	struct plan_step step;
	struct plan_layout layout;
	int gpus;
	double steps, step_s;                /* step_s: with stragglers and data waits */
	double load_bytes_s, load_limit_bytes_s, wait_share;
	double checkpoint_bytes, checkpoint_write_s, checkpoint_stall_s, interval_s;
	double mtbf_s, failures, goodput, restart_s, spares_wanted; /* wanted: so that 99 of 100 failed nodes find one */
	double stage_s;                      /* bringing the data to the site, before the job */
	double ideal_s, wall_p10_s, wall_p50_s, wall_p90_s;
	double tokens_s;
};
struct plan_serving_result {
	struct plan_serve_choice choice;
	struct plan_serve_memory memory;
	struct plan_service at_peak;         /* at the load's peak, shared by its replicas; choice.at_capacity: at the most one carries */
	double alone_prefill_tokens_s, alone_decode_tokens_s; /* of one request on a measured machine, by cost/ from its samples; else NAN */
	double peak_rate, mean_rate, tokens_day;
	int gpus_replica, gpus_peak;
	struct plan_mix best, rent, own;     /* an hour of the load curve: the cheapest base owned and the rest rented, all rented, all owned; NAN without prices */
	double money_per_mtoken, input_per_mtoken, cached_per_mtoken, output_per_mtoken;
};
struct plan_stave {
	enum plan_resource resource;
	double gain;                         /* relative fall of the objective for +10 % */
	double money;                        /* of those +10 %; NAN: no price is known */
	double next_gain;                    /* the same with the shortest stave out of the way */
};
struct plan_work_result {
	const struct plan_work *work;
	int site;                            /* index in spec */
	struct plan_here here;
	bool serving;
	struct plan_training_result train;
	struct plan_serving_result serve;
	struct plan_money money;
	struct plan_footprint footprint;
	double start_day, finish_p10_day, finish_p50_day, finish_p90_day; /* NAN without a start */
	double error_p50, error_p90;         /* of the time, or of the rate */
	double objective;                    /* smaller is better */
	struct plan_stave stave[PLAN_RESOURCE_COUNT]; /* ranked */
	int staves;
	enum plan_resource next_wall;
	const char *shortest;                /* name of the first, or of what the machine cannot lengthen */
	char refused[PLAN_SITES_MAX][160];   /* why other sites were not chosen; "" where they were worse */
};
struct plan_site_result {
	int nodes, nodes_per_rack, racks;
	double it_peak_w, facility_peak_w, facility_mean_w, rack_w, air_cfm, water_l_s;
	const char *needs_cooling;           /* class that the rack density wants */
	bool has_cooling;
	double ready_p10_day, ready_p50_day, ready_p90_day;
	char critical[PLAN_NAME], path[256]; /* item that decides the date; the whole critical path */
	double capex, owned_device_h, rented_device_h, break_even;
};
struct stave_plan {
	struct plan_catalog *catalog;
	struct plan_spec *spec;
	struct plan_work_result *work;       /* (spec->works) */
	struct plan_site_result site[PLAN_SITES_MAX];
	struct plan_money money;
	struct plan_footprint footprint;
};

/* evaluate.c: one work at one site with resources scaled. STAVE_ENOFIT, STAVE_ECONFIG as stave_plan_open. */
int plan_work_evaluate(const struct stave_plan *p, const struct plan_work *w, const struct plan_site *s, const struct plan_scale *k, struct plan_work_result *out, struct stave_err *err);
void plan_work_result_free(struct plan_work_result *r);
/* here.c: the site's pool; pool index. */
int plan_here_find(const struct stave_plan *p, const struct plan_site *s, int pool, const struct plan_scale *k, struct plan_here *out, struct stave_err *err);
/* staves.c: ranks resources for a work that is placed. */
int plan_staves_rank(const struct stave_plan *p, struct plan_work_result *r, struct stave_err *err);
/* An amount of a dated price in the specification's currency; NAN stays NAN. STAVE_ECONFIG without an exchange rate. */
int plan_convert(const struct stave_plan *p, const struct plan_price *price, double *out, struct stave_err *err);

#endif
