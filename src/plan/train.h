/* Private to plan/: the time and memory of one training step, for any layout (train_step.c, train_memory.c, collective.c), and the search over layouts
 * (search.c). Closed forms; nothing here allocates but the search. */
#ifndef STAVE_PLAN_TRAIN_H
#define STAVE_PLAN_TRAIN_H

#include "plan/hardware.h"

enum plan_recompute { PLAN_KEEP, PLAN_SELECTIVE /* attention only; flash attention is this */, PLAN_FULL };

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
/* Constants of an (accelerator, software stack), from catalog/fits-train.yaml; few, none of a row or a model. The helper that fits them defines the rest. */
struct plan_train_fit;
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

#endif
