/* Private to model/: the parts of a model that runs (lm.c builds it, lm_pack.c brings the weights in, lm_forward.c and moe.c compute,
 * adapter.c adds LoRA). */
#ifndef STAVE_MODEL_LM_H
#define STAVE_MODEL_LM_H

#include "base/sys.h"
#include "kernel/kernel.h"
#include "kernel/panel.h"
#include "model/model.h"
#include "model/team.h"

enum {
	LM_RANK_MAX = 256,     /* of an adapter: sizes the workspace */
	LM_CHUNK_PANELS = 64,  /* most panels in one task of a thread */
};

/* One stored matrix, packed; its outputs are columns at .. at + rows of the product's result. */
struct lm_matrix {
	struct stave_packed w;
	enum stave_role role;
	const float *bias;          /* (rows) or NULL */
	int at;
	struct stave_weight from;   /* in the file */
	int ready;                  /* panels 0 .. ready are packed in w; the others are only in the file */
};
/* Matrices that read the same operand: q, k and v; gate and up; or one alone. */
struct lm_product {
	struct lm_matrix part[3];
	int parts, cols, out;       /* out: sum of the rows */
	unsigned kinds;             /* bit per operand kind that a part wants */
};
struct lm_norm {
	const float *gain, *bias;   /* gain NULL: no norm here */
};
struct lm_layer {
	struct lm_norm norm1, norm1_post, norm2, norm2_post;
	const float *qnorm, *knorm; /* (D) or NULL */
	struct lm_product qkv, out, up, down; /* up: gate and up, or up alone */
	struct lm_product router;             /* mixture of experts only, instead of up and down */
	struct lm_product *expert_up, *expert_down; /* (E) each */
	const float *rope;          /* (context, rope_dims/2, 2) or NULL */
	int window;
};

/* Consecutive rows of one sequence within one page: what attention and the cache are split by. */
struct lm_span {
	int entry, row, n, pos;     /* rows row .. row + n of the call are positions pos .. */
};

/* What one thread needs for itself; in the workspace. */
struct lm_thread {
	void *panel, *paged;        /* scratch of the kernels */
	char *fresh;                /* (fresh_bytes): panels that are packed for one product only */
	char *rows;                 /* (rows_bytes): rows of a panel as stored */
	const void **pages;         /* (pages of a context) */
	float *row;                 /* (C) */
	void *stored;               /* (C) a row of the embedding as stored */
	float *stat;                /* (G) */
	float *chunk;               /* (chunk_floats): results of gate and up before the activation */
	float *low;                 /* (16 LM_CHUNK_PANELS): an adapter's share */
};

/* Rows grouped by expert, so that an expert's matrices are read once. n rows, u = experts_used, E experts; place a of the
 * n u places is row[a] with one of its experts, and the places of expert e are first[e] .. first[e + 1]. */
struct lm_moe {
	float *score;               /* (n, E) of the router */
	int32_t *choice;            /* (n, u) experts of a row, best first */
	float *weight;              /* (n, u) */
	int32_t *place;             /* (n, u) */
	int32_t *row, *expert;      /* (n u) by place */
	int32_t *first;             /* (E + 1) */
	int32_t *active;            /* (E) experts that have rows */
	int32_t *up_end, *down_end; /* (E) by active expert: tasks up to and including its own */
	void *operand[STAVE_OPERAND_KINDS]; /* those of all experts, one after the other */
	size_t *at[STAVE_OPERAND_KINDS];    /* (E) where an expert's begins */
	int n_active;
};

struct stave_lm {
	struct stave_lm_config c;
	struct stave_shape s;
	const struct stave_kernels *k;
	int threads, qkv_cols, G;
	struct lm_layer *layer;     /* (L) */
	struct lm_norm embed_norm, norm_f;
	struct stave_weight embed, positions, token_types;
	bool has_positions, has_token_types;
	struct lm_product head;     /* parts 0: an encoder */
	float *rope, *rope_local;
	unsigned kinds;             /* operand kinds of any product */
	int widest;                 /* columns of the widest operand */
	int chunk_floats;
	size_t fresh_bytes, rows_bytes; /* at least two panels of any matrix that is packed later; the rows of one */
	struct lm_matrix **matrix;  /* (n_matrices) in the order of the layers; those before `settled` are packed */
	int n_matrices, settled;
	double weight_bytes, expert_bytes; /* packed: read by every token; of one expert in every layer */

	char *cache;                /* (pages, L, K) of page_bytes */
	size_t page_bytes, page_all_bytes; /* of one layer and head; of all */

	/* workspace; n stands for c.rows, e for experts_used or 1 */
	float *x;                   /* (n, C) residual stream */
	float *h;                   /* (n, C) normed: kept for adapters and experts, and the result of run */
	float *y;                   /* (n e, C) results of out and down */
	float *qkv;                 /* (n, (H + 2K) D) */
	float *att;                 /* (n, H D) */
	float *act;                 /* (n e, I) */
	void *operand[STAVE_OPERAND_KINDS]; /* (n, widest); experts: (n e, widest) */
	float *low;                 /* (n, 3, LM_RANK_MAX): A x of adapters */
	struct lm_moe moe;
	struct lm_thread *thread;   /* (threads) */
	struct lm_span *span;       /* (n) */
	int32_t *ids, *pos, *entry; /* (n) */

	/* of the run in progress */
	struct stave_lm_rows *rows;
	int n_rows, n_spans;
	bool adapted;               /* some entry has an adapter */
	struct stave_lm_times times;
	double mark_s;              /* when the phase in progress began */
	struct team team;
};

/* Inside the parallel region of a run, by all threads; each ends with a barrier. */

/* y (n, out) at stride ldy = operand W' + biases (+ the adapters' shares when layer >= 0), of n rows. */
void lm_multiply(struct stave_lm *d, const struct lm_product *p, void *const *operand, int n, float *y, size_t ldy, int layer);
/* moe.c: h (n, C) through the experts of a layer, weighted and summed into h itself. The router's operand is made. */
void lm_experts(struct stave_lm *d, const struct lm_layer *y);

/* One thread's work. */

/* Panels p0..p1 of one matrix times n rows; y is at the column of panel p0. `part`: which of its product. */
void lm_multiply_chunk(struct stave_lm *d, const struct lm_matrix *m, int part, void *const *operand, int n, int p0, int p1, float *y, size_t ldy, int layer);
/* Panels p0..p1 of gate and up (or of up alone) times n rows, activated: act[r * I + column]. */
void lm_activate_chunk(struct stave_lm *d, const struct lm_product *p, void *const *operand, int n, int p0, int p1, float *act, int layer);
/* Panels per task for n rows. `halves` of them (gate and up) have to fit the thread's chunk; 0: they go to memory. */
int lm_chunk(const struct stave_lm *d, const struct lm_matrix *m, int n, int halves);
/* Row r of an operand of n rows, from x (cols). */
void lm_operand_row(unsigned kinds, void *const *operand, const float *x, int n, int cols, int r);
static inline struct lm_thread *lm_self(const struct stave_lm *d) { return &d->thread[stave_thread_index()]; }
/* The master's clock: what passed since its last call goes to *class. */
void lm_lap(struct stave_lm *d, double *class);

/* Bytes of a packed panel. */
static inline size_t lm_panel_bytes(const struct stave_packed *w) { return stave_packed_bytes(w->type, w->rows, w->cols) / (size_t)stave_panels(w); }

/* lm_pack.c */

/* Its panels are packed when there is time, and until then for each product anew. */
bool lm_packs_later(const struct lm_matrix *m);
/* Panel p of such a matrix, by the calling thread. */
void lm_pack_panel(struct stave_lm *d, const struct lm_matrix *m, int p, void *panel);
/* Lists the matrices, and packs those that cannot wait. */
int lm_pack(struct stave_lm *d, struct stave_err *err);

void lm_moe_take(struct stave_lm *d, struct stave_arena *a);

/* adapter.c */
struct lm_lora {
	int rank, in, out;          /* rank 0: this matrix is not adapted */
	float scale;
	const float *a, *b;         /* (rank, in), (out, rank) */
};
/* A x of row r, for each part of the product that its adapter names. */
void lm_adapter_down(struct stave_lm *d, const struct lm_product *p, int layer, int r, const float *x);
/* y[r * ldy + i] += scale (B A x)[o + i], i < n_out, for every adapted row; y is at column o of the part. */
void lm_adapter_up(struct stave_lm *d, int part, enum stave_role role, int layer, int o, int n_out, float *y, size_t ldy);

#endif
