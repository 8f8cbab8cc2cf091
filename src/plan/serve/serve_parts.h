/* Private to serve_*.c and validate_serve.c: the constants of a fit, and one iteration's time in parts. */
#ifndef STAVE_PLAN_SERVE_PARTS_H
#define STAVE_PLAN_SERVE_PARTS_H

#include <stdio.h>

#include "base/yaml.h"
#include "plan/serve/serve.h"

/* The constants of an (accelerator, engine): name in catalog/fits-serve.yaml, dimension, bounds. Shares are of the data sheet's rates, so a fit moves
 * to another accelerator as it is; times are of the host and of launching, so they do not scale with it. */
#define PLAN_SERVE_CONSTANTS(X)                                                                                      \
	X(WEIGHTS,   "weights-share",   STAVE_SHARE,   0.05, 1)    /* of memory bandwidth, streaming weights */       \
	X(CACHE,     "cache-share",     STAVE_SHARE,   0.05, 1)    /* of memory bandwidth, reading the KV cache */    \
	X(PRODUCT,   "product-share",   STAVE_SHARE,   0.02, 0.9)    /* of peak flop/s, 16 bit products */              \
	X(NARROW,    "narrow-share",    STAVE_SHARE,   0.02, 0.85)    /* of peak flop/s, 8 and 4 bit products */         \
	X(ATTENTION, "attention-share", STAVE_SHARE,   0.02, 1)    /* of peak 16 bit flop/s, attention of a prompt */ \
	X(EXPERT,    "expert-share",    STAVE_SHARE,   0.05, 1)    /* what experts' products reach of the above */    \
	X(WIDEN,     "widened-share",   STAVE_SHARE,   0.05, 1)    /* and products of weights that are widened first */ \
	X(WIDEN_EXPERT, "widened-expert-share", STAVE_SHARE, 0.05, 1) /* the same, of experts */                      \
	X(IMBALANCE, "imbalance",       STAVE_SHARE,   0.01, 1)    /* of spread experts and sequences: the fullest device has so much more at each doubling */ \
	X(LINK,      "link-share",      STAVE_SHARE,   0.05, 1.5)    /* of the link; above 1: reduced in the switch */  \
	X(REDUCE,    "reduce-latency",  STAVE_SECONDS, 0, 1e-3)    /* of one collective */                            \
	X(KERNEL,    "kernel-time",     STAVE_SECONDS, 0, 1e-3)    /* starting one kernel of a layer, or a small one */ \
	X(ITERATION, "iteration-time",  STAVE_SECONDS, 0, 1)       /* scheduler and sampler, per iteration */         \
	X(SEQUENCE,  "sequence-time",   STAVE_SECONDS, 0, 1e-2)    /* the same, per sequence of the batch */          \
	X(REQUEST,   "request-time",    STAVE_SECONDS, 0, 1)       /* front end, once per request */

enum plan_serve_constant {
#define X(id, name, dimension, low, high) PLAN_SERVE_##id,
	PLAN_SERVE_CONSTANTS(X)
#undef X
	PLAN_SERVE_COUNT
};
struct plan_serve_constant_kind {
	const char *name;
	enum stave_dimension dimension;
	double low, high;
};
extern const struct plan_serve_constant_kind plan_serve_constant_kinds[PLAN_SERVE_COUNT];

/* How an engine schedules, from its documentation. */
struct plan_engine {
	char name[PLAN_NAME];
	int chunk;            /* tokens of an iteration at most */
	int max_batch;        /* sequences */
	bool mixed;           /* prompts and decoding share an iteration; else prompts go first, alone */
	bool whole;           /* a prompt that fits an iteration is not cut */
	double reserve;       /* share of the expected output whose cache is kept free when a request is admitted */
	double memory_share;  /* of device memory that it takes */
	double drift;         /* how far clients that started together drift apart, as a spread of output lengths: none where prompts stop all decoding */
	bool narrow_cache;    /* 8 and 4 bit models have an 8 bit cache */
};
struct plan_error_bar { double p50, p90; }; /* relative */
struct plan_serve_fit {
	char accelerator[PLAN_NAME]; /* the fit's own, which may be another than the one asked for */
	struct plan_engine engine;
	double k[PLAN_SERVE_COUNT];
	struct plan_error_bar ttft, tpot, throughput;
};

/* What one iteration computes. */
struct plan_work {
	double decode;        /* sequences that gain a token */
	double context;       /* their mean context */
	double prefill;       /* tokens of prompts */
	double pairs;         /* (query, key) pairs of the prompts' attention, per layer without a window */
	double firsts;        /* prompts that end here: each needs logits */
};
/* Seconds, one device's share of the work; they add up to the iteration. */
struct plan_parts { double weights, cache, flops, launch, comm; };
static inline double plan_parts_sum(const struct plan_parts *p) { return p->weights + p->cache + p->flops + p->launch + p->comm; }

/* Everything about a replica that does not change from iteration to iteration. */
struct plan_serve_model {
	double layer_bytes, expert_bytes, head_bytes;      /* of a device: weights read whatever the batch; one layer's experts when all are touched; logits */
	double token_flops, expert_flops, head_flops;      /* of a device, per token (head: per sequence) */
	double experts, experts_used;                      /* experts 0: dense */
	double rate, rate_experts, bandwidth, bandwidth_experts, bandwidth_elements, bandwidth_cache, attention_rate;
	double cache_bytes, cache_window_bytes, window;    /* per token of context on a device: layers that see all, layers with a window */
	double decode_flops, decode_window_flops;          /* of attention, per token of context */
	double pair_flops, pair_window_flops;              /* of a prompt's attention */
	double element_bytes;                              /* activations moved per token */
	double reduces, reduce_bytes, reduce_s, shuffles, shuffle_bytes, link; /* collectives of an iteration; bytes per token */
	double stages, groups, fullest;                    /* pp; attention data-parallel groups; what the fullest of them has over the mean */
	double launch_s, sequence_s;
};
void plan_serve_model_init(struct plan_serve_model *m, const struct plan_replica *r);
void plan_serve_iteration(const struct plan_serve_model *m, const struct plan_work *w, struct plan_parts *out);

double plan_weight_bytes(enum plan_precision p); /* of a parameter in a product, scales included */
/* Cache of a sequence of `tokens`, whole replica's devices together. */
double plan_serve_cache_bytes(const struct plan_replica *r, double tokens);

/* Accelerators of one chip differ in memory alone (H100 and H200): the shares of one are those of the other. NULL is like none. */
bool plan_serve_same_chip(const struct plan_accelerator *a, const struct plan_accelerator *b);
/* Precision of the cache that the fit's engine keeps for such weights. */
enum plan_precision plan_serve_cache_precision(const struct plan_serve_fit *f, enum plan_precision weights);

/* A measured row of kind infer as something to simulate (validate_serve.c); validation and calibration share it. */
enum plan_serve_metric { PLAN_SERVE_TTFT, PLAN_SERVE_TPOT, PLAN_SERVE_THROUGHPUT, PLAN_SERVE_PREFILL, PLAN_SERVE_DECODE, PLAN_SERVE_METRICS };
struct plan_serve_case {
	int row;                     /* in the table */
	struct plan_replica replica; /* but for kv and fit */
	struct plan_load load;
	double replicas;             /* that share the load */
	double measured[PLAN_SERVE_METRICS];  /* s, s, output tokens/s, prompt tokens/s and decoded tokens/s of one sequence; 0: not measured */
};
/* NULL, or why the row cannot be predicted (static). */
const char *plan_serve_case_of(const struct plan_truths *t, int row, struct plan_serve_case *out);
/* predicted: as measured, by the constants of `fit`. STAVE_ENOFIT when the model does not fit the devices. */
int plan_serve_case_predict(const struct plan_serve_case *c, const struct plan_serve_fit *fit, double predicted[PLAN_SERVE_METRICS], struct stave_err *err);

/* ---- calibration (serve_calibrate.c) ---- */

struct plan_serve_residual { int n; double mean, p50, p90, held_p50, held_p90; }; /* relative; held: rows of models left out of the fit */
struct plan_serve_calibration {
	struct plan_serve_fit fit;
	struct plan_serve_residual ttft, tpot, throughput;
	int rows, models;
};
/* Fit the constants of (accelerator, engine) to the rows of that pair ("": of any engine; accelerators of the same chip count), from the nearest fit on. Constants that the rows do not show stay near it.
 * STAVE_ECONFIG when no row of the pair can be predicted. */
int plan_serve_calibrate(const struct plan_truths *t, const struct plan_catalog *c, const char *accelerator, const char *engine,
                         struct plan_serve_calibration *out, struct stave_err *err);
/* The entry of catalog/fits-serve.yaml for it. */
void plan_serve_calibration_write(const struct plan_serve_calibration *k, FILE *to);
/* A whole fits-serve.yaml with it in place of the catalog's entry for the pair, as a catalog directory may hold it. */
void plan_serve_calibration_save(const struct plan_serve_calibration *k, const struct plan_catalog *c, FILE *to);

#endif
