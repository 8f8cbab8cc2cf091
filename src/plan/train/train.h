/* Private to plan/: the time and memory of one training step, for any layout (train_step.c, train_memory.c, collective.c), and the search over layouts
 * (search.c). Closed forms; nothing here allocates but the search. */
#ifndef STAVE_PLAN_TRAIN_H
#define STAVE_PLAN_TRAIN_H

#include "plan/catalog/hardware.h"

enum plan_recompute { PLAN_KEEP, PLAN_SELECTIVE /* attention only; flash attention is this */, PLAN_FULL };

/* A pipeline may have as many more stages than layers: embedding and classifier each in the place of a layer (Llama 3 405B: 126 layers in
 * 16 x 8 stages; Grattafiori et al. 2024, section 3.3.2). */
#define PLAN_END_STAGES 2

struct plan_layout {
	int tp, pp, dp, cp, ep, vp; /* vp: virtual stages per rank, 1 = plain 1F1B; ep divides dp */
	int zero;                   /* 0 none, 1 optimizer, 2 + gradients, 3 + weights (FSDP) */
	enum plan_recompute recompute;
	bool seq_parallel;          /* Korthikanti 2022: norms and dropout split over tp */
	bool async_tp;              /* tensor-parallel communication overlapped with its products */
	int micro;                  /* sequences of a micro-batch on one data-parallel rank */
};
struct plan_train_job {
	struct stave_shape shape;
	int seq;                    /* tokens of a sequence */
	int batch;                  /* sequences of an optimizer step, over all ranks */
	enum plan_precision precision;
	bool lora;                  /* base weights frozen: no gradients or optimizer state for them */
	int lora_rank;
};
/* Constants of an (accelerator, software stack), from catalog/fits-train.yaml: shares of a data sheet's figures, latencies, and what the software does.
 * None is of a row, a model or a cluster. X(name, what, default, low, high, fitted): fitted ones are moved by plan_train_calibrate, the others are set by
 * measured collectives or by the software's documentation. */
#define PLAN_TRAIN_CONSTANTS(X) \
	X(product, "share of peak flops of a large matrix product", 0.75, 0.05, 0.92, 1) \
	X(traffic, "share of a product's memory traffic not hidden under its arithmetic", 0.8, 0, 2, 1) \
	X(tail_s, "seconds lost at the ends of a product", 15e-6, 0, 1e-2, 0) \
	X(attention, "share of peak flops of fused attention, the causal half alone counted", 0.35, 0.02, 0.98, 1) \
	X(memory, "share of memory bandwidth that element operations reach", 0.9, 0.1, 1, 0) \
	X(element, "element traffic over that of unfused operations", 1, 0.05, 20, 1) \
	X(loss, "bytes moved per logit", 30, 6, 100, 1) \
	X(launch_s, "seconds to launch an operation, twenty a layer", 8e-6, 0, 1e-3, 1) \
	X(link, "share of the scale-up link that collectives reach", 0.75, 0.02, 0.95, 1) \
	X(latency_s, "seconds of a collective of no bytes", 38e-6, 0, 1e-2, 0) \
	X(hop_s, "seconds per step of a ring, and per level of a tree between nodes", 4.2e-6, 0, 1e-2, 0) \
	X(send_s, "seconds of a pipeline send of no bytes", 20e-6, 0, 1e-2, 0) \
	X(nic, "share of the network rate that collectives and sends reach", 0.7, 0.02, 1, 1) \
	X(gather, "share of the network rate that gathers of sharded weights reach", 0.6, 0.01, 1, 1) \
	X(hide, "share of the communication of weights and gradients that can run beside computation", 0.8, 0, 1, 1) \
	X(cover, "share of computation that weight gathers can run beside", 0.6, 0, 1, 0) \
	X(dp_cover, "share of the last backward pass that gradient reduction can run beside", 0.6, 0, 1, 0) \
	X(async_tp, "share of tensor-parallel communication hidden by asynchronous tensor parallelism", 0.35, 0, 1, 1) \
	X(pp_hide, "share of pipeline sends that run beside computation", 0, 0, 1, 0) \
	X(ep_hide, "share of the all-to-all of experts that runs beside computation", 0.3, 0, 1, 1) \
	X(cp_loss, "slowdown of attention that context parallelism approaches", 0.3, 0, 5, 1) \
	X(optimizer, "share of memory bandwidth of the optimizer", 0.75, 0.1, 1, 0) \
	X(fixed_s, "seconds of a step that nothing else explains", 1.4e-3, 0, 10, 0) \
	X(fp8, "share of the gain of narrow arithmetic that products reach: of peak relative to bf16's", 0.9, 0.1, 1, 1) \
	X(cast, "traffic of conversions to fp8 or fp4 over 4 bytes a value", 1, 0, 50, 1) \
	X(fused, "1: attention is one kernel (flash), 0: products and a softmax in memory", 1, 0, 1, 0) \
	X(selective, "share of a layer's forward pass repeated by selective recompute, beyond attention", 0, 0, 1, 1) \
	X(kept, "share of a layer's activations kept by selective recompute", 1, 0.1, 1, 0) \
	X(logit_bytes, "bytes held per logit: as computed 2, as read by the loss 4, its logarithm 4, its gradient 4", 14, 2, 40, 0) \
	X(gradient_bytes, "bytes of a gradient as reduced", 2, 1, 4, 0) \
	X(scatter, "1: a pipeline send is split over the tensor-parallel ranks", 1, 0, 1, 0)
struct plan_train_fit {
#define X(name, what, otherwise, low, high, fitted) double name;
	PLAN_TRAIN_CONSTANTS(X)
#undef X
	char accelerator[PLAN_NAME], stack[PLAN_NAME]; /* fitted on; "" nothing known */
	double reference_w, reference_flop_s;          /* data sheet of that accelerator: see plan_train_power */
	char groups[160];                              /* of rows it was fitted on */
	int rows, gpus;                                /* how many; the largest run among them */
	double error_mean, error_p50, error_p90;       /* relative, held out */
	double widen;                                  /* factor on the error: 1 for the accelerator and stack asked for, more for a neighbour's constants */
};
/* The machine a layout runs on. */
struct plan_machine {
	const struct plan_accelerator *accelerator;
	const struct plan_train_fit *fit;
	int gpus, gpus_per_node;
	double nic_bytes_s;         /* of a node, all NICs, one direction */
	struct plan_network network; /* tiers 0: one full-bisection network */
	double site_bytes_s, site_latency_s; /* between sites, when the gpus are spread over several; 0 one site */
	int sites;
};

struct plan_memory { /* bytes on the fullest device, by class of tensor */
	double weights, gradients, optimizer, activations, logits, buffers, total;
};
/* Seconds of an optimizer step on the slowest pipeline stage; the parts add up to total_s. tp, cp, ep, pp, dp: exposed communication. */
struct plan_step {
	double total_s;
	double product_s, attention_s, element_s, recompute_s, launch_s, bubble_s, tp_s, cp_s, ep_s, pp_s, dp_s, optimizer_s;
	double model_flops, hardware_flops;     /* of the whole step, all devices (6 N + 12 L H D T per token and what was computed) */
	double mfu, hfu, tokens_s;              /* mfu: over the bf16 peak unless the precision is fp8 or fp4 */
	double dp_total_s;                      /* before overlap */
	struct plan_memory memory;
	double error_p50, error_p90;            /* relative, of the fit's held-out residuals; wider when extrapolating */
};

/* The fit for an accelerator and a stack ("megatron", "llm-foundry", "torchtitan", … or "" for the best known); an accelerator without a fit takes the nearest
 * one's constants, scaled by data sheet, with wider errors. Never NULL. Owned by the catalog's caller: free with plan_train_fit_free. */
int plan_train_fit_open(struct plan_train_fit **out, const struct plan_catalog *c, const struct plan_accelerator *a, const char *stack, struct stave_err *err);
void plan_train_fit_free(struct plan_train_fit *f);
/* The constants as an entry of the list `fits:` of fits-train.yaml. */
void plan_train_fit_write(const struct plan_train_fit *f, FILE *to);
/* A whole fits-train.yaml: the catalog's entries, and this one in place of its pair's. */
void plan_train_fit_save(const struct plan_train_fit *f, const struct plan_catalog *c, FILE *to);
/* How the share of peak changes between accelerators: (W per flop/s of this one over the fit's) ^ 1/4, since newer ones do more with each watt and are
 * held back by power first. From A100 to H100 it gives 0.86, measured 0.67 / 0.78 of llm-foundry; a 500 W cap of an H100 0.92. */
double plan_train_power(const struct plan_train_fit *f, const struct plan_accelerator *a);

/* Parameters that the job trains: all of the model, or its adapters. */
double plan_trained_parameters(const struct plan_train_job *j);
/* NULL, or a static text saying which rule the layout breaks (heads % tp, layers % pp, batch % (dp micro) …). */
const char *plan_layout_invalid(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l);
/* A valid layout's step. 500,000 a second and core. */
void plan_step_evaluate(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l, struct plan_step *out);
void plan_memory_evaluate(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l, struct plan_memory *out);

/* Everything feasible, all valid (tp, pp, dp, cp, ep, vp, zero, recompute, micro, seq_parallel) with memory <= limit. */
struct plan_candidate {
	struct plan_layout layout;
	double step_s, memory_bytes, energy_j;  /* energy: of a step, devices only */
};
struct plan_search {
	struct plan_candidate best;             /* fastest */
	struct plan_candidate *front;           /* (fronts) Pareto front of step_s against memory, fastest first */
	int fronts;
	long evaluated, feasible;
	double seconds;                         /* the search itself */
	double least_memory_bytes;              /* of any valid layout: what would have to fit when nothing did */
	struct plan_layout least_memory;
};
/* fixed: a layout whose nonzero fields are taken as given (zero: -1 and recompute: -1 = free); NULL: all free. STAVE_ENOFIT with the binding constraint and the smallest
 * change when nothing fits. */
int plan_search_layouts(const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *fixed, double memory_limit, struct plan_search *out, struct stave_err *err);
void plan_search_free(struct plan_search *s);

/* Ring and tree, alpha-beta, hierarchical: seconds of a collective over `ranks` devices of which `per_node` lie in one node. */
enum plan_collective { PLAN_ALL_REDUCE, PLAN_ALL_GATHER, PLAN_REDUCE_SCATTER, PLAN_ALL_TO_ALL, PLAN_SEND };
double plan_collective_s(const struct plan_machine *m, enum plan_collective kind, double bytes, int ranks, int per_node);
/* Ranks `stride` devices apart, so that a group spans ranks x stride devices and a node holds as many of them as lie in it. `share` of the network
 * rate is reached. bytes: the whole tensor (SEND: what one rank sends). */
struct plan_group { int ranks, stride; };
double plan_group_collective_s(const struct plan_machine *m, enum plan_collective kind, double bytes, struct plan_group g, double share);
/* Devices that reach one another by the scale-up link, and its rate (the host link when there is none). */
int plan_machine_domain(const struct plan_machine *m);

/* Refits the constants that the rows of an accelerator and stack can tell, from the present fit: Nelder-Mead on their logarithms, mean absolute relative
 * error of step time and a weak pull to where it began. residual: out, signed relative error of each row used (malloc'd); `rows` of them; may be NULL.
 * Errors written into *out are of folds held out. STAVE_ECONFIG when no row can be used. */
struct plan_truths;
int plan_train_calibrate(const struct plan_truths *t, const struct plan_catalog *c, const char *accelerator, const char *stack, struct plan_train_fit *out,
                         double **residual, struct stave_err *err);

#endif
