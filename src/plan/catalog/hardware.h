/* Private to plan/: what the catalog knows about machines, as plain structs (catalog.c fills them from the YAML files of catalog/). SI units: bytes,
 * bytes/s, flop/s, W, s; money in the currency and of the date that stand beside it. 0 means not known unless said otherwise. */
#ifndef STAVE_PLAN_HARDWARE_H
#define STAVE_PLAN_HARDWARE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "cost/cost.h"

enum plan_precision { PLAN_F32, PLAN_BF16 /* and fp16 */, PLAN_FP8, PLAN_FP4, PLAN_I8, PLAN_I4 /* weights only */, PLAN_PRECISIONS };

enum { PLAN_NAME = 48 };

struct plan_source { /* where a fact comes from */
	char text[160];
	char date[12]; /* yyyy-mm-dd */
};
struct plan_price {
	double amount;
	char currency[4], date[12];
};

struct plan_accelerator {
	char name[PLAN_NAME];        /* "h100-sxm" */
	char alias[8][PLAN_NAME];    /* other spellings: "H100-SXM-80GB", "h100_sxm" */
	char vendor[16];
	bool cpu;
	double peak[PLAN_PRECISIONS]; /* dense flop/s, data sheet; 0: the precision does not exist on it */
	double memory_bytes, memory_bytes_s;
	double link_bytes_s;         /* scale-up link (NVLink, xGMI, ICI …), one direction, all of one device's */
	int link_domain;             /* devices that reach one another at that rate (8, 72 …); 1: none */
	double host_bytes_s;         /* PCIe, one direction */
	double tdp_w, idle_w;
	double embodied_kg;          /* CO2e of making one */
	struct plan_price price, rent_h; /* of one; of one device-hour in a cloud */
	double lead_time_s;
	struct plan_source source, estimates, market; /* of the data sheet; of idle power and embodied carbon; of prices and lead time */
};
struct plan_node {
	char name[PLAN_NAME];
	char accelerator[PLAN_NAME];
	int count;                   /* accelerators */
	double nic_bytes_s;          /* all NICs to the cluster network together, one direction */
	int nics;
	double storage_bytes_s;      /* what one node can read from shared storage; 0: its NICs' rate */
	double host_memory_bytes;
	double idle_w, rated_w;      /* of the whole node; rated: name plate */
	double peak_share;           /* measured peak over rated, 0.76-0.82 for training */
	double units;                /* rack units */
	double embodied_kg;          /* without its accelerators */
	struct plan_price price;     /* with its accelerators */
	double lead_time_s;
	struct plan_source source, estimates, market; /* estimates: idle power, peak share, embodied carbon */
};
/* A cluster network from inside out: a tier joins `size` nodes (of all below it) at `taper` of full bisection. */
struct plan_tier {
	int nodes;                   /* in one unit of this tier; 0: all */
	double taper;                /* 1 full bisection, 1/7 oversubscribed 1:7 */
	double latency_s;            /* of a message through it */
};
struct plan_network {
	char name[PLAN_NAME];
	struct plan_tier tier[4];
	int tiers;
	double port_w;               /* switch power per node port */
	struct plan_price port;      /* price per node port, all switches and cables */
	double lead_time_s;
	struct plan_source source, market;
};
struct plan_storage {
	char name[PLAN_NAME];
	double read_bytes_s, write_bytes_s, capacity_bytes;
	double power_w;
	struct plan_price price;
	double lead_time_s;
	struct plan_source source, market;
};
struct plan_cooling {            /* a cooling class */
	char name[PLAN_NAME];
	double rack_w;               /* most heat of a rack */
	double pue;                  /* typical of a facility cooled so */
	double water_l_per_j;        /* on site, per J of IT energy */
	struct plan_source source;
};
struct plan_grid {
	char name[PLAN_NAME];        /* "us-average", "fr", "de" … */
	char region[PLAN_NAME];      /* "us", "eu", "apac": what residency rules speak of */
	double kg_per_j;             /* location based */
	double water_l_per_j;        /* used at the power plants */
	double price_per_j;          /* industrial, in `currency` */
	char currency[4], date[12];
	struct plan_source source, market; /* of carbon and water; of the price */
};
/* A delay on the way to a running site, as a three-point estimate. */
struct plan_lead_time {
	char name[PLAN_NAME];        /* "transformer", "switchgear", "building", "grid-connection" … */
	double low_s, likely_s, high_s;
	struct plan_source source;
};
struct plan_exchange {
	char currency[4];
	double usd;                  /* one unit in USD */
	struct plan_source source;
};
struct plan_model {
	char name[PLAN_NAME];
	struct stave_shape shape;    /* T_max: its training context */
	struct plan_source source;
};

/* Each thing begins with its name. Arrays are owned by the catalog. */
struct plan_catalog {
	struct plan_accelerator *accelerator;
	struct plan_node *node;
	struct plan_network *network;
	struct plan_storage *storage;
	struct plan_cooling *cooling;  /* from weakest to strongest */
	struct plan_grid *grid;
	struct plan_lead_time *lead_time;
	struct plan_exchange *exchange;
	struct plan_model *model;
	int accelerators, nodes, networks, storages, coolings, grids, lead_times, exchanges, models;
	struct stave_yaml *fits_train, *fits_serve; /* catalog/fits-train.yaml, fits-serve.yaml as trees: constants per (accelerator, software stack) with their residuals */
};
/* The catalog built into the program; `dir` (may be NULL): files there add things to those built in, or replace them by name; the files of fits replace the
 * whole file. STAVE_ECONFIG with file and line. */
int plan_catalog_open(struct plan_catalog **out, const char *dir, struct stave_err *err);
void plan_catalog_close(struct plan_catalog *c);
/* By name or alias standing as whole words in `name`, a count before it ("8xH100") aside: case, '-', '_' and blanks do not count,
 * "H100-SXM-80GB HBM3" finds h100-sxm; a longer alias wins. NULL: unknown. */
const struct plan_accelerator *plan_accelerator_find(const struct plan_catalog *c, const char *name);
/* A thing of a kind ("accelerator", "node", "network", "storage", "cooling", "grid", "lead_time", "exchange", "model"): accelerators as above, the others by
 * name, of which case, '-', '_' and blanks do not count; else STAVE_ECONFIG with the nearest name. `at`, the node of the spec, may be NULL. */
struct stave_yaml;
int plan_catalog_find(const struct plan_catalog *c, const char *kind, const char *name, const struct stave_yaml *at, const void **out, struct stave_err *err);
/* One unit of a currency in USD, 0 when the catalog does not know it. */
double plan_exchange_usd(const struct plan_catalog *c, const char *currency);

/* For people (catalog_text.c). A table of the things of a kind, NULL: of all kinds; STAVE_ECONFIG when there is no such kind. */
int plan_catalog_list(const struct plan_catalog *c, const char *kind, FILE *to, struct stave_err *err);
/* All facts of the thing of that name, of whichever kind, with sources and dates. */
int plan_catalog_explain(const struct plan_catalog *c, const char *name, FILE *to, struct stave_err *err);
/* Everything as {kind: [{name, fact: number in SI units …}]}; NULL out of memory. The caller's reference. */
json_t *plan_catalog_json(const struct plan_catalog *c);

#endif
