/* Private to plan/: measured runs in the schema of shared/truth/measured.json, made regular (truth.c). The file's words ("fp16 mixed", "compile float8",
 * "H100 96GB HBM2e 2.4TB/s, 500W cap", "selective+seqpar") become the program's. A field that is null or absent is 0, -1 where 0 means something. */
#ifndef STAVE_PLAN_TRUTH_H
#define STAVE_PLAN_TRUTH_H

#include <jansson.h>

#include "plan/catalog/hardware.h"

struct plan_truth {
	const char *id, *kind, *group, *source, *notes; /* kind: train | infer | cluster | power; owned by the document */
	char tier;                           /* 'A' 'B' 'C' */
	/* model; has_shape: layers, hidden, heads, ffn and vocab are all there */
	bool has_shape;
	struct stave_shape shape;            /* gated or not is decided from the number of parameters; T_max = seq */
	double params;
	int latent;                          /* values cached per token and layer by latent attention (DeepSeek: 576); 0: keys and values of kv heads */
	int seq;
	/* hardware */
	const char *gpu;                     /* as written */
	const struct plan_accelerator *accelerator; /* NULL: unknown */
	struct plan_accelerator variant;     /* a copy of it with what the row's own words change (memory bandwidth, power cap …) */
	int gpus, gpus_per_node;
	double node_nic_bytes_s;             /* from inter_link's words; 0: not said */
	int threads;                         /* of a CPU run; 0: not said */
	/* parallel */
	int tp, pp, dp, cp, ep, vp;          /* 1 when not said, but 0 when dp is not said */
	int zero;                            /* -1 not said */
	int recompute;                       /* -1 not said, 0 none, 1 selective, 2 full */
	bool seq_parallel, async_tp, interleaved, compiled;
	int micro;                           /* sequences of a micro-batch; 0 not said */
	int global_batch;                    /* sequences; 0 not said */
	enum plan_precision precision;
	const char *precision_text, *stack;  /* stack: our guess of the software, from group, source and notes: "megatron", "llm-foundry", "torchtitan", "trtllm", "vllm" … */
	/* workload of inference */
	int isl, osl, concurrency;           /* 0: not said */
	const char *engine, *mode;
	const json_t *measured, *row;
};

struct plan_truths {
	json_t *document;
	struct plan_truth *row;
	int n;
};
int plan_truths_load(struct plan_truths *t, const struct plan_catalog *c, const char *path, struct stave_err *err);
/* The same of a document in memory, which becomes the truths' also on failure; `what` names it. */
int plan_truths_of(struct plan_truths *t, const struct plan_catalog *c, json_t *document, const char *what, struct stave_err *err);
void plan_truths_free(struct plan_truths *t);
/* Number under measured.KEY, NAN when absent or null. */
double plan_truth_measured(const struct plan_truth *t, const char *key);

/* One prediction of one figure of a row. Each of the two predictors appends to a list; a row that cannot be predicted is skipped with a reason. */
struct plan_prediction {
	int row;                     /* in plan_truths */
	const char *metric;          /* "step_time", "tpot", "ttft", "throughput", "activation_memory" …; static string */
	double measured, predicted;  /* same unit */
	const char *skipped;         /* static reason, or NULL */
};
struct plan_predictions {
	struct plan_prediction *p;
	int n, room;
};
int plan_predictions_add(struct plan_predictions *l, const struct plan_prediction *p, struct stave_err *err);
/* Kind train and groups with memory: validate_train.c. Kind infer: validate_serve.c. Checkpoint formula, power, collectives: validate_cluster.c. */
int plan_predict_train(const struct plan_truths *t, const struct plan_catalog *c, struct plan_predictions *out, struct stave_err *err);
int plan_predict_serve(const struct plan_truths *t, const struct plan_catalog *c, struct plan_predictions *out, struct stave_err *err);
int plan_predict_cluster(const struct plan_truths *t, const struct plan_catalog *c, struct plan_predictions *out, struct stave_err *err);

#endif
