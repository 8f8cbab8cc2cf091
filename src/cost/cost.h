/* cost/: what a model costs. The shape of a model, every operation of a step with its flops and bytes, every tensor's
 * size, and the machine's measured rates. The planner forecasts with it, training and serving measure against it; nothing
 * else in the tree counts flops. Letters: B batch, T tokens of a row, C channels, H query heads, K key/value heads,
 * D head width, I feed-forward width, V vocabulary, L layers. */
#ifndef STAVE_COST_H
#define STAVE_COST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/err.h"

/* Up to STAVE_QWEN3 a family can be trained; the others are run only. */
enum stave_family {
	STAVE_GPT2, STAVE_LLAMA, STAVE_MISTRAL, STAVE_QWEN2, STAVE_QWEN3,
	STAVE_GEMMA2, STAVE_GEMMA3, STAVE_PHI3, STAVE_MIXTRAL, STAVE_QWEN3_MOE, STAVE_BERT,
	STAVE_FAMILIES
};
static inline bool stave_family_trains(enum stave_family f) { return f <= STAVE_QWEN3; }
enum stave_act { STAVE_GELU_TANH, STAVE_GELU_EXACT, STAVE_SWIGLU, STAVE_GEGLU /* tanh form, gated (gemma) */ };
static inline bool stave_act_gated(enum stave_act a) { return a == STAVE_SWIGLU || a == STAVE_GEGLU; }

/* The whole description of a model's arithmetic. Checked by stave_shape_check before anything is computed from it. */
struct stave_shape {
	enum stave_family family;
	int L, C, H, K, D, I, V;
	int T_max;            /* longest context: positions of the table (gpt2) or of the RoPE range */
	enum stave_act act;
	bool layernorm;       /* LayerNorm, else RMSNorm */
	bool norm_bias;       /* LayerNorm has a bias */
	bool learned_pos;     /* learned positions, else RoPE */
	bool qkv_bias, out_bias, mlp_bias;
	bool qk_norm;         /* RMSNorm over D of each query and key head, before RoPE (qwen3) */
	bool tied;            /* the classifier is the embedding */
	float norm_eps;
	double rope_theta;
	/* Llama-3 RoPE scaling; rope_factor 0 = none. rope_linear: f / factor for every frequency instead. */
	double rope_factor, rope_low, rope_high;
	int rope_original;
	bool rope_linear;
	int window;           /* sliding attention window, 0 = none (mistral) */

	/* ---- families that are run only; all zero for those that train ---- */
	int window_pattern;   /* of each `window_pattern` layers the last sees everything, the others the window (gemma2: 2, gemma3: 6); 0: all have it */
	double rope_local;    /* rope_theta of the layers with a window (gemma3), unscaled; 0: as the others */
	int rope_dims;        /* leading dimensions of a head that rotate; 0 = D (phi3: partial_rotary_factor) */
	float rope_mscale;    /* cos and sin are multiplied by it (longrope, yarn); 0 = 1 */
	float attn_scale;     /* of q·k; 0 = 1/sqrt(D) */
	float attn_softcap, final_softcap; /* s -> cap tanh(s / cap); 0 = none */
	float embed_scale;    /* of the embedding's rows; 0 = 1 (gemma: sqrt(C)) */
	bool sandwich;        /* a norm after attention and after the feed-forward too (gemma) */
	int experts, experts_used; /* mixture of experts; I is the width of one expert; 0 = dense */
	bool experts_norm;    /* the chosen experts' weights are divided by their sum */
	bool encoder;         /* bidirectional, norms after the sums, embedding norm, token types (bert) */
	int token_types;
};

/* STAVE_ECONFIG with the offending number. Bounds every field, so that later products cannot overflow int64. */
int stave_shape_check(const struct stave_shape *s, struct stave_err *err);
/* V rounded up to a multiple of 16, large ones of 64, where oneDNN's products are up to 1.6 times as fast (50304 against 50272 rows; SPEED.md): rows of
 * the embedding in memory; the extra rows are zero and stay zero. */
static inline int stave_shape_vpad(const struct stave_shape *s) { return s->V < 4096 ? (s->V + 15) / 16 * 16 : (s->V + 63) / 64 * 64; }
/* Parameters as trained and published (no padding; a tied matrix counted once). */
int64_t stave_shape_params(const struct stave_shape *s);
/* 6 N + 12 L H D T per token (PaLM, appendix B; recompute and the causal half not discounted). */
double stave_train_flops_per_token(const struct stave_shape *s, int T);

/* One operation of a training or inference step. */
enum stave_op_kind {
	STAVE_OP_MATMUL,    /* (m, k) x (k, n) */
	STAVE_OP_ATTENTION, /* flops counted on the causal half actually computed */
	STAVE_OP_ELEMENT,   /* limited by bytes: norms, activations, residuals, rotary, conversions */
	STAVE_OP_LOSS,      /* softmax over V with its gradient */
	STAVE_OP_OPTIMIZER,
	STAVE_OP_COMM,
};
enum stave_pass { STAVE_FORWARD, STAVE_DGRAD, STAVE_WGRAD, STAVE_UPDATE };
struct stave_op {
	const char *name;          /* "qkv", "attention", "norm1" … */
	const char *rate;          /* class of the machine profile that says how fast it runs: "matmul", "norm", "gelu" … */
	enum stave_op_kind kind;
	enum stave_pass pass;
	enum stave_dtype dtype;    /* of the product's inputs */
	int64_t m, n, k;           /* MATMUL: shape; ATTENTION: m = B*H, n = T, k = D; else m = rows, n = columns */
	int64_t count;             /* times per step (layers, micro-batches) */
	double flops, bytes;       /* of one */
};
/* Every operation of one optimizer step of `micro` micro-batches of (B, T). Fills ops[0..max) and returns the number
 * (STAVE_OPS_MAX is enough), so that Σ count·flops of matmuls and attention is the step's work. */
#define STAVE_OPS_MAX 96
enum stave_recompute { STAVE_KEEP_ALL, STAVE_RECOMPUTE_CHEAP, STAVE_RECOMPUTE_LAYER }; /* none | activations+norms | whole layers */
int stave_cost_train_ops(const struct stave_shape *s, int B, int T, int micro, enum stave_dtype dtype, enum stave_recompute re, struct stave_op *ops);
/* The same for one forward of `n` new tokens of one sequence after `past` cached ones. weight_bytes: of one weight as
 * packed, on average over the matrices (BF16: 2, Q8_0: 1.0625 …); cache_bytes: of one cached value. Each matrix is read once,
 * and so is the visible cache; only the last token's logits are computed; of experts only those that n tokens can
 * choose are read. dtype of the products: F32, BF16 or I8. */
int stave_cost_infer_ops(const struct stave_shape *s, int n, int past, enum stave_dtype products, double weight_bytes, double cache_bytes, struct stave_op *ops);
/* Rows of logits held in memory at a time: as few equal chunks of `rows` as keep them under 96 MiB, in multiples of 64. */
int stave_cost_logit_rows(const struct stave_shape *s, int64_t rows, enum stave_dtype dtype);
/* Bytes that one value of a byte-limited class moves ("norm" forward in bf16: 4 read + 2 written = 6): what an operation's
 * `bytes` and a measured rate both count by. 0 for a class or pass that does not exist. */
double stave_cost_value_bytes(const char *rate, enum stave_pass pass, enum stave_dtype dtype);

/* ---- a layer in closed form (closed.c): what a planner needs for hardware that is not here ---- */

/* One matrix product that every token passes, (tokens, k) x (k, n), run `blocks` times over with weights of their own: a mixture has one block per
 * expert, and a token passes `used` of them. split: over tensor-parallel ranks, 'n' its columns, 'k' its rows, 0 not at all (the router). */
struct stave_closed_product {
	double k, n, blocks, used;
	char split;
};
struct stave_closed {
	int products;
	struct stave_closed_product product[6];
	/* parameters; layers' and ends' sum is stave_shape_params */
	double layer_params;      /* of one layer, experts included */
	double expert_params;     /* of one layer, in its experts */
	double embed_params;      /* token and position tables, token types */
	double head_params;       /* classifier where it is not the embedding, and last norm */
	double query, key_value;  /* widths H D and K D */
	double up, inner;         /* columns of the first feed-forward product and of its result, of the experts a token passes */
};
void stave_closed_of(const struct stave_shape *s, struct stave_closed *out);
/* Flops of one token through the products of one layer, forward: 2 k n each, of experts only those used. */
double stave_closed_layer_flops(const struct stave_closed *c);
/* Flops of q.k and p.v of one token of a sequence of `seq`, one layer, forward: 4 seq H D, the causal half not discounted. */
double stave_closed_attention_flops(const struct stave_closed *c, double seq);
/* Hardware flops of a step of B sequences when every layer is computed twice (Narayanan et al., SC21, eq. 3, for any shape): 8 forward units of the
 * layers' products and attention, 6 of the classifier. recompute 0: 6 units; 0 to 1: of that share of the layers. */
double stave_closed_step_flops(const struct stave_shape *s, double B, double seq, double recompute);

#endif
