/* Private to plan/: what the user wants and has, read from SPEC.yaml (spec.c). Every key is one row of a table in spec_keys.c, from which parsing,
 * checking, defaults and `stave plan keys` derive. SI units; NAN or an empty string: not given. */
#ifndef STAVE_PLAN_SPEC_H
#define STAVE_PLAN_SPEC_H

#include <stdio.h>

#include "base/fs.h"
#include "base/yaml.h"
#include "plan/plan.h"
#include "plan/train/train.h"

enum plan_work_kind { PLAN_TRAIN, PLAN_FINETUNE, PLAN_SERVE };
enum { PLAN_WORKS_MAX = 64, PLAN_SITES_MAX = 32, PLAN_POOLS_MAX = 8, PLAN_BUILD_MAX = 32, PLAN_RULES_MAX = 32 };

struct plan_work {
	enum plan_work_kind kind;
	int line;
	char name[PLAN_NAME], model[STAVE_PATH], site[PLAN_NAME], residency[PLAN_NAME], stack[PLAN_NAME];
	struct stave_shape shape;
	int precision, kv;              /* enum plan_precision */
	/* train and finetune */
	double tokens, batch, seq, gpus; /* gpus: NAN, as many as the site has */
	double start_day, by_day;        /* days since 1970-01-01 */
	bool lora;
	double lora_rank;
	struct plan_layout layout;       /* 0 (zero, recompute: -1): free */
	double checkpoint_interval_s;    /* NAN: the optimum */
	bool checkpoint_async;
	double bytes_per_token, straggler;
	/* serve */
	double hourly[24];               /* requests/s */
	double input, output, spread, prefix_hit, ttft_p99_s, tpot_p99_s, tp, days;
};
struct plan_pool {
	char type[PLAN_NAME];            /* a catalog node, or "profile" */
	char profile[STAVE_PATH];        /* of stave bench machine */
	double count;
	int line;
};
struct plan_rule { /* this accelerator (or any with at least so many flop/s) may not stand in these regions */
	char accelerator[PLAN_NAME];
	double flop_s;
	char region[8][PLAN_NAME];
	int regions, line;
};
struct plan_build {
	char item[PLAN_NAME], after[8][PLAN_NAME];
	int afters, line;
	double low_s, likely_s, high_s;  /* NAN: the catalog's */
};
struct plan_site {
	int line;
	char name[PLAN_NAME], grid[PLAN_NAME], region[PLAN_NAME], network[PLAN_NAME], storage[PLAN_NAME], cooling[PLAN_NAME];
	struct plan_pool pool[PLAN_POOLS_MAX];
	int pools;
	bool rented;
	double power_w, rack_w, uplink_bytes_s, places, line_bytes_s, line_latency_s, pue, kg_per_j, kg_per_j_market, water_l_per_j;
	struct plan_price energy;        /* per J */
	struct plan_price staff_s, space_s, building_w; /* per second, per second, per W of IT power once */
	struct plan_price device;        /* overrides the node's price (per node), or the rent (per accelerator-second) */
	struct plan_price rent_s, token;
	double interest, life_s, maintenance, utilisation;
	double failures_per_node_s, repair_s, restart_s, spares;
	double ready_day;                /* machines stand: NAN, now (start) */
	struct plan_build build[PLAN_BUILD_MAX];
	int builds;
};
struct plan_limits {
	struct plan_price cost;
	double energy_j, carbon_kg, power_w;
};
/* For `stave plan simulate`. */
struct plan_fleet_spec {
	double horizon_s, replications, weekend, shape;
};
struct plan_spec {
	char file[STAVE_PATH], name[PLAN_NAME], currency[PLAN_NAME], date[12];
	double seed, start_day;
	int objective;                   /* 0 time, 1 cost, 2 energy */
	struct plan_work work[PLAN_WORKS_MAX];
	struct plan_site site[PLAN_SITES_MAX];
	struct plan_rule rule[PLAN_RULES_MAX];
	int works, sites, rules;
	struct plan_limits limits;
	struct plan_fleet_spec fleet;
	struct stave_yaml *tree;         /* for errors about lines */
};
/* Reads and checks; `shape_of` finds the shape of a model directory. STAVE_ECONFIG with file:line. Free with plan_spec_free. */
int plan_spec_open(struct plan_spec **out, const char *path, const struct plan_catalog *c, stave_plan_shape_of *shape_of, struct stave_err *err);
int plan_spec_parse(struct plan_spec **out, const char *text, size_t n, const char *what, const struct plan_catalog *c, stave_plan_shape_of *shape_of, struct stave_err *err);
void plan_spec_free(struct plan_spec *s);

/* One key of one map of the spec. */
enum plan_key_type {
	PLAN_KEY_QUANTITY,               /* double, of `dimension` */
	PLAN_KEY_PRICE,                  /* struct plan_price, of `dimension` (one of the money ones) */
	PLAN_KEY_WORD,                   /* char[PLAN_NAME] */
	PLAN_KEY_PATH,                   /* char[STAVE_PATH] */
	PLAN_KEY_BOOL,                   /* bool */
	PLAN_KEY_CHOICE,                 /* int, index among `choices` */
	PLAN_KEY_OTHER,                  /* read by a function of its own in spec.c */
};
struct plan_key {
	const char *name;
	enum plan_key_type type;
	size_t offset;
	enum stave_dimension dimension;
	double def, min, max;            /* def NAN: not given */
	const char *choices;             /* words separated by '|' */
	const char *doc;
};
struct plan_map {
	const char *name;                /* "train", "site" … */
	const struct plan_key *key;
	int n;
	const char *doc;
};
extern const struct plan_map plan_map_top, plan_map_train, plan_map_finetune, plan_map_serve, plan_map_site, plan_map_pool, plan_map_layout, plan_map_model, plan_map_limits,
	plan_map_rule, plan_map_build, plan_map_fleet;
/* What the maps of layout and model are read into, before they become a plan_layout and a stave_shape. */
struct plan_layout_text {
	double tp, pp, dp, cp, ep, vp, zero, micro;
	int recompute;                   /* 0 free, then enum plan_recompute + 1 */
	bool seq_parallel, async_tp;
};
struct plan_model_text {
	double layers, hidden, heads, kv_heads, head_dim, ffn, vocab, seq, experts, experts_used, window;
	bool gated, tied;
};
/* Defaults, then the map's keys into `to`. */
int plan_map_read(const struct plan_map *m, struct stave_yaml *node, void *to, struct stave_err *err);

#endif
