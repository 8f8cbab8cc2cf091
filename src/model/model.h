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
#include "base/qtype.h"
#include "cost/cost.h"
#include "kernel/paged.h"

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
/* The same for any family: table (positions, (rope_dims or D)/2, 2). local: of the layers with a window (rope_local, unscaled); else the
 * frequencies are divided by `factors` ((rope_dims or D)/2, or NULL); rope_mscale is in the values. */
void stave_rope_angles(const struct stave_shape *s, bool local, const float *factors, int positions, float *table);

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

/* ---- a model to run: GGUF file(s) or a Hugging Face directory, mapped (source.c) ---- */

/* What a tensor is for. Fused tensors of files (GPT-2's c_attn, phi3's qkv_proj and gate_up_proj, GGUF's attn_qkv, stacked experts) are
 * handed out as the parts listed here: blocks of rows. roles.h has the one table of their names in files. An encoder has EMBED_NORM, and
 * as norms after the sums NORM1_POST and NORM2_POST; it has no NORM1, NORM2, NORM_F and HEAD. */
enum stave_role {
	STAVE_ROLE_EMBED, STAVE_ROLE_POSITIONS, STAVE_ROLE_TOKEN_TYPES, STAVE_ROLE_EMBED_NORM, STAVE_ROLE_NORM_F, STAVE_ROLE_HEAD,
	/* per layer */
	STAVE_ROLE_NORM1, STAVE_ROLE_Q, STAVE_ROLE_K, STAVE_ROLE_V, STAVE_ROLE_QNORM, STAVE_ROLE_KNORM, STAVE_ROLE_OUT, STAVE_ROLE_NORM1_POST,
	STAVE_ROLE_NORM2, STAVE_ROLE_GATE, STAVE_ROLE_UP, STAVE_ROLE_DOWN, STAVE_ROLE_NORM2_POST,
	STAVE_ROLE_ROUTER, STAVE_ROLE_EXPERT_GATE, STAVE_ROLE_EXPERT_UP, STAVE_ROLE_EXPERT_DOWN,
	STAVE_ROLES
};
/* A matrix (rows, cols) as stored; logical row r is found by stave_weight_row. */
struct stave_weight {
	enum stave_qtype type;
	int rows, cols;
	const char *data;       /* of stored row 0 */
	size_t row_bytes;       /* from one stored row to the next */
	bool transposed;        /* GPT-2's Conv1D: the file holds (cols, rows), row_bytes apart; plain types only */
	int permuted_heads;     /* GGUF `llama` q and k: rows of each of these heads are interleaved for rotary pairs; 0 = not. Row order
	                         * handed out by stave_weight_row is half-split, which is what this program rotates */
	const char *name;       /* in the file */
};
struct stave_source;
struct stave_gguf;
/* path: a .gguf file (any part of a split), or a directory with config.json and safetensors. Everything is validated against the
 * shape: every tensor the family needs is there with the right size and type, before success. STAVE_ECONFIG names what is not supported. */
int stave_source_open(struct stave_source **out, const char *path, struct stave_err *err);
void stave_source_close(struct stave_source *s);
const struct stave_shape *stave_source_shape(const struct stave_source *s);
const struct stave_gguf *stave_source_gguf(const struct stave_source *s); /* NULL for a directory */
/* 1 and *w set; 0 when the model has no such matrix (layer and expert are ignored where they mean nothing). HEAD of a tied model is EMBED. */
int stave_source_weight(const struct stave_source *s, enum stave_role role, int layer, int expert, struct stave_weight *w);
/* Row r's blocks, in w->type's file form: into the mapping, or into tmp (row bytes of `cols` in that type) when it had to be gathered. */
const void *stave_weight_row(const struct stave_weight *w, int r, void *tmp);
/* A gain (bias false; norms only) or the bias of a role, as floats in this program's row order (n = its length, checked at open; gemma's
 * stored w is handed out as w + 1). 0 when absent, 1 when out (n) is set. */
int stave_source_vector(const struct stave_source *s, enum stave_role role, bool bias, int layer, float *out, int n);
/* Divisors of the rotary frequencies, (rope_dims or D)/2, beyond what the shape says (rope_freqs of a GGUF llama, longrope's lists, of which the
 * long one is for contexts beyond the original); NULL = none. */
const float *stave_source_rope_factors(const struct stave_source *s, int context);
/* How an embedding model's token states become one vector, as GGUF numbers it; 0 when the files do not say. */
enum stave_pooling { STAVE_POOL_NONE, STAVE_POOL_MEAN, STAVE_POOL_CLS, STAVE_POOL_LAST };
enum stave_pooling stave_source_pooling(const struct stave_source *s);
int64_t stave_source_params(const struct stave_source *s);  /* elements of all tensors */
size_t stave_source_bytes(const struct stave_source *s);    /* bytes of all tensors as stored */
enum stave_qtype stave_source_main_type(const struct stave_source *s); /* the type most elements have */
uint64_t stave_source_hash(const struct stave_source *s);   /* fingerprint: names, shapes, types and samples of the bytes */

/* ---- inference: forward with a paged cache (lm.c …) ---- */

/* LoRA (Hu et al. 2021): a Hugging Face directory with adapter_config.json and adapter_model.safetensors; y += alpha/r B A x on the
 * matrices it names. Belongs to models of one shape; used per sequence. Open checks the files and leaves the matrices in them. */
struct stave_adapter;
int stave_adapter_open(struct stave_adapter **out, const char *dir, const struct stave_source *base, struct stave_err *err);
/* Its matrices, as floats: on an arena that only counts, the plan. Once on a real one before it is used, where they stay; the file is
 * closed then, and the adapter does not change any more. */
void stave_adapter_take(struct stave_adapter *a, struct stave_arena *arena);
void stave_adapter_close(struct stave_adapter *a);

struct stave_lm_config {
	const struct stave_source *source; /* stays open and mapped as long as the decoder: matrices and embedding rows are read from it */
	enum stave_qtype type;      /* matrices are requantized to it; STAVE_QTYPE_COUNT = as stored. What a row length does not allow stays as stored */
	enum stave_cache_type cache;
	int pages;                  /* of STAVE_PAGE positions, over all layers and heads */
	int context;                /* longest position; <= the shape's T_max */
	int rows;                   /* most tokens in one call of run */
};
/* weights: packed matrices, vectors, rotary table. Equal to what open takes from the arena, to the byte. */
struct stave_lm_memory {
	size_t weights, cache, workspace, total;
};
struct stave_lm;
int stave_lm_plan(const struct stave_lm_config *c, struct stave_lm_memory *m, struct stave_err *err);
int stave_lm_open(struct stave_lm **out, const struct stave_lm_config *c, struct stave_arena *arena, struct stave_err *err);
void stave_lm_close(struct stave_lm *d);
/* Open leaves the matrices that need no conversion in the file: runs pack what they read of them, again and again. This brings further ones to
 * their places in the arena, between runs, for about so many seconds. Results are the same to the bit before, meanwhile and after.
 * True: all of them are there, and no run reads matrices from the file any more. */
bool stave_lm_settle(struct stave_lm *d, double seconds);
struct stave_packed; /* kernel/panel.h */
/* How a product of n rows (1 or more) with w is shared out: panels of one task, 1 to `limit`, for so many threads. */
int stave_task_panels(const struct stave_packed *w, int n, int threads, int limit);
/* The next n tokens of a sequence whose first `past` positions are in its pages: pages[i] (< config.pages) holds positions i * STAVE_PAGE …;
 * there are enough for past + n. Encoders: past is 0 and the n tokens are the whole text. */
struct stave_lm_rows {
	const int32_t *ids;         /* (n) */
	int n, past;
	const int32_t *pages;
	const struct stave_adapter *adapter; /* or NULL */
	const float *hidden;        /* out: (n, C) after the last norm; in the workspace, until the next run */
};
/* One forward pass over the tokens of all entries; sum of n <= rows; no two entries write the same page. A row is computed as if alone,
 * to the bit, whatever the other rows are and however its prompt was cut. */
void stave_lm_run(struct stave_lm *d, struct stave_lm_rows *s, int n);
/* Logits (n, V) of n rows of hidden states, soft-capped where the family does; each as if alone. */
void stave_lm_logits(struct stave_lm *d, const float *const *hidden, int n, float *logits);
void stave_lm_copy_page(struct stave_lm *d, int to, int from);
/* Bytes that one token after `past` cached ones reads: matrices and cache. */
double stave_lm_token_bytes(const struct stave_lm *d, int past);
/* Seconds per class since the last call; resets. */
struct stave_lm_times {
	double matmul_s, attention_s, element_s;
};
struct stave_lm_times stave_lm_times(struct stave_lm *d);

#endif
