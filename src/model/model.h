/* model/: families and their configs, where each parameter lies, Hugging Face directories, and the arithmetic: forward
 * and backward for training, forward with a cache for inference. Letters as in cost.h: B T C H K D I V L.
 *
 * All parameters of a model lie in one float arena in file order of use (embedding, positions, layers, last norm, head);
 * gradients and optimizer moments use the same offsets. Every matrix is (out, in), row-major: q, k and v are consecutive
 * row blocks of one matrix (H·D + 2·K·D, C), gate and up of one (2·I, C), so a Hugging Face tensor is a block of rows.
 * GPT-2's Conv1D files hold (in, out); they are transposed while loading and saving. */
#ifndef STAVE_MODEL_H
#define STAVE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "cost/cost.h"

/* ---- configs ---- */

/* config.json of a Hugging Face directory; unknown families and features are refused by name. */
int stave_shape_load(struct stave_shape *s, const char *dir, struct stave_err *err);
int stave_shape_save(const struct stave_shape *s, const char *dir, int eos, int bos, struct stave_err *err);
/* "nano", "gpt2-124m", "gpt2-350m", "llama-124m", … (stave_presets); the vocabulary is V unless 0. */
int stave_preset(struct stave_shape *s, const char *name, int V, struct stave_err *err);
extern const char *const stave_presets[]; /* NULL-terminated, each followed by its description */

/* ---- parameters ---- */

struct stave_param {
	char name[96];      /* Hugging Face tensor name */
	int64_t offset;     /* in floats from the start of the arena */
	int rows, cols;     /* (out, in); a vector has rows 1 */
	bool vector;        /* 1-d in the file */
	bool transposed;    /* the file holds (cols, rows) */
	bool decay;         /* weight decay applies: 2-d */
	bool hidden;        /* a matrix inside a layer: Muon's share */
	int layer;          /* -1: embedding, positions, last norm, head */
};
struct stave_layer_at { /* offsets in floats, -1: the model has none */
	int64_t norm1_w, norm1_b, qkv_w, qkv_b, qnorm_w, knorm_w, out_w, out_b, norm2_w, norm2_b, up_w, up_b, down_w, down_b;
	int64_t begin, end;
};
struct stave_layout {
	struct stave_shape shape;
	struct stave_param *params;
	int n_params;
	struct stave_layer_at *layer; /* (L) */
	int64_t wte, wpe, normf_w, normf_b, head; /* head == wte when tied */
	int64_t n;                    /* floats, padding rows of wte and head included */
};
int stave_layout_open(struct stave_layout *l, const struct stave_shape *s, struct stave_err *err);
void stave_layout_close(struct stave_layout *l);

/* Weights from a Hugging Face directory (model.safetensors or shards; F32, BF16, F16) into p (l->n floats, zeroed here). */
int stave_weights_load(const struct stave_layout *l, float *p, const char *dir, struct stave_err *err);
/* model.safetensors in dtype F32 or BF16, and config.json. */
int stave_weights_save(const struct stave_layout *l, const float *p, const char *dir, enum stave_dtype dtype, int eos, int bos, struct stave_err *err);
/* GPT-2's initialisation: N(0, .02), residual projections N(0, .02/sqrt(2L)), gains 1, biases 0. Value i of tensor j is a
 * function of (seed, name, i): independent of threads and ranks. */
void stave_weights_init(const struct stave_layout *l, float *p, uint64_t seed);

/* cos and sin by position: table (positions, D/2, 2), as kernel.h's rope wants it; the family's scaling applied. */
void stave_rope_table(const struct stave_shape *s, int positions, float *table);

/* ---- training: forward and backward (net.c, net_forward.c, net_backward.c) ---- */

struct stave_net_config {
	struct stave_shape shape;
	int B, T;                   /* rows and tokens of a micro-batch */
	enum stave_dtype dtype;     /* of activations and matrix products: F32 or BF16 */
	enum stave_recompute recompute;
	bool train;                 /* false: forward only (evaluation) */
	bool doc_mask;
};
/* What stave_net_open takes from `arena`: equal to `total` to the byte. weights16: the bf16 copy of the parameters that the
 * products read; activations: kept from forward to backward; workspace: the rest. */
struct stave_net_memory {
	size_t weights16, activations, workspace, total;
};
struct stave_net;
int stave_net_plan(const struct stave_net_config *c, struct stave_net_memory *m, struct stave_err *err);
/* params, grads: arenas of layout->n floats owned by the caller (grads NULL unless train). */
int stave_net_open(struct stave_net **out, const struct stave_net_config *c, const struct stave_layout *l, float *params,
                   float *grads, struct stave_arena *arena, struct stave_err *err);
void stave_net_close(struct stave_net *n);
/* The bf16 copy of the parameters (layout n values; NULL in f32), for the optimizer to write beside the master. */
uint16_t *stave_net_weights16(struct stave_net *n);
/* Rewrites that copy from params: after loading or initialising them by other means than the optimizer. */
void stave_net_refresh(struct stave_net *n);
struct stave_batch { /* each (B, T) int32; start and pos may be NULL: one document, positions 0..T-1 */
	const int32_t *inputs, *targets, *start, *pos;
};
/* Sum of losses in nats and number of unmasked targets. In training it also takes the classifier's gradients, while a
 * chunk of logits is in the cache; gradients are of the SUM of losses: the optimizer divides by the number of tokens of the
 * whole step. `first`: gradients are written, not added to (the first micro-batch of a step). */
void stave_net_forward(struct stave_net *n, const struct stave_batch *b, bool first, double *loss_sum, int64_t *tokens);
/* The losses only: touches no gradient, so that a training network can evaluate between steps. */
void stave_net_evaluate(struct stave_net *n, const struct stave_batch *b, double *loss_sum, int64_t *tokens);
/* `ready(ctx, offset, count)` is called as soon as grads[offset..offset+count) are final, from the last layer to the
 * embedding; ready may be NULL. */
void stave_net_backward(struct stave_net *n, const struct stave_batch *b, bool first, void (*ready)(void *ctx, int64_t offset, int64_t count), void *ctx);
/* Logits (B·T, V) f32 of a forward pass, for tests and eval of small models: runs forward of the batch and copies. */
void stave_net_logits(struct stave_net *n, const struct stave_batch *b, float *logits);
/* Seconds spent per class since the last call; resets. */
struct stave_net_times {
	double matmul_s, attention_s, element_s, loss_s;
};
struct stave_net_times stave_net_times(struct stave_net *n);

/* ---- inference: forward with a cache (decode.c) ---- */

struct stave_decoder_config {
	struct stave_shape shape;
	int slots;                  /* sequences that have a cache */
	int context;                /* positions of each; <= T_max */
	int rows;                   /* most tokens in one call of run */
	enum stave_dtype dtype;     /* of the matrices and the cache: F32 or BF16 */
};
/* weights: what the decoder adds to the parameters it was given (F32: nothing but the rotary table; BF16: its own copy of them). */
struct stave_decoder_memory {
	size_t weights, cache, workspace, total;
};
struct stave_decoder;
int stave_decoder_plan(const struct stave_decoder_config *c, struct stave_decoder_memory *m, struct stave_err *err);
/* F32: params is used in place and must outlive the decoder. BF16: it is copied and may go after the call. */
int stave_decoder_open(struct stave_decoder **out, const struct stave_decoder_config *c, const struct stave_layout *l, const float *params,
                       struct stave_arena *arena, struct stave_err *err);
void stave_decoder_close(struct stave_decoder *d);
/* The next n tokens of the sequence in `slot`, whose first `past` positions are in the cache. */
struct stave_decode {
	int slot, past, n;
	const int32_t *ids;         /* (n) */
	const float *hidden;        /* out: (n, C) after the last norm; in the workspace, until the next run */
};
/* One forward pass; every slot at most once, past + n <= context, sum of n <= rows. Entry i is computed as if alone: to
 * the bit for the same (past, n) whatever the other entries are. */
void stave_decoder_run(struct stave_decoder *d, struct stave_decode *s, int n);
/* Logits (n, V) of n rows of hidden states, each computed as if alone. */
void stave_decoder_logits(struct stave_decoder *d, const float *const *hidden, int n, float *logits);

#endif
