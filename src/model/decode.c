/* Inference: the forward pass of new tokens after cached ones.
 *
 * A call carries rows (tokens) of several sequences. Rows that stand alone (one new token of a sequence) are computed together:
 * every matrix is read from memory once, block by block, and each block, while it lies in the cache, is multiplied
 * with each row in turn. A run of rows of one sequence (a piece of a prompt) has matrix products of its own, by oneDNN,
 * padded to one of a few row counts, so that all handles are made when the decoder opens.
 * Nothing that depends on which sequences share a call enters the arithmetic of a row, so an answer is the same to
 * the bit alone or in company; that is worth more than the last percent of batching, and tested.
 *
 * Cache: per layer, slot and key head, keys lie as (context, D) and values transposed as (D, context). Both products of
 * attention are then the matrix-vector product that the rest of decoding runs on: scores = K q, output = V' p.
 *
 * F32 uses the caller's parameters in place. BF16 keeps its own copy of the matrices, half the bytes: decoding is bound by
 * reading them. Norm gains and biases stay float. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "kernel/kernel.h"
#include "kernel/matmul.h"
#include "model/model.h"

#define BLOCK_BYTES ((size_t)64 << 10) /* of a matrix: stays in the second-level cache while every row passes over it */
#define ALONE_BYTES ((size_t)256 << 10) /* less than this is read sooner than a second thread is woken */
#define RUN_MIN 8   /* shorter runs go row by row */
#define SIZES_MAX 16 /* row counts with handles: 16, 32, 64 … rows */

enum { QKV, OUT, UP, DOWN, PRODUCTS };

struct layer {
	const float *norm1_w, *norm1_b, *norm2_w, *norm2_b, *qnorm_w, *knorm_w;
	const void *qkv, *out, *up, *down;
	const float *qkv_b, *out_b, *up_b, *down_b;
	char *k; /* (slots, K, context, D) */
	char *v; /* (slots, K, D, context) */
};

struct stave_decoder {
	struct stave_decoder_config c;
	const struct stave_kernels *k;
	int threads, qkv_rows, up_rows;
	size_t element; /* bytes of a matrix element */

	const void *wte, *wpe, *head;
	const float *normf_w, *normf_b;
	struct layer *layer; /* (L) */
	uint16_t *w16;       /* (layout n): BF16 only */
	float *vectors;      /* BF16 only: the 1-d parameters */
	float *rope;         /* (context, D/2, 2) */

	/* workspace; n stands for c.rows */
	float *x;            /* (n, C) residual stream */
	float *h;            /* (n, C) normed */
	float *qkv;          /* (n, (H + 2K) D) */
	float *att;          /* (n, H D) */
	float *up, *act;     /* (n, I or 2I), (n, I) */
	float *hidden;       /* (n, C) result */
	float *stat;         /* (2, n) mean and rstd of a norm; (n, H) of a head norm */
	float *scores;       /* (threads, context) */
	uint16_t *x16;       /* (n, widest operand): BF16 only */
	const float **rows;  /* (n) operands of a product row by row */
	struct stave_matmul *mm[SIZES_MAX][PRODUCTS];
	int size[SIZES_MAX], sizes;
	void *mm_scratch;
	size_t mm_bytes;
	int32_t *ids, *pos, *slot; /* (n) */
};

/* ---- memory ---- */

static int check(const struct stave_decoder_config *c, struct stave_err *err)
{
	int rc = stave_shape_check(&c->shape, err);
	if (rc)
		return rc;
	if (c->slots < 1 || c->rows < 1 || c->context < 1 || c->context > c->shape.T_max)
		return stave_err_set(err, STAVE_EUSAGE, "%d slots of %d positions and %d rows per step: wanted at least 1 of each and at most %d positions",
		                     c->slots, c->context, c->rows, c->shape.T_max);
	if (c->dtype != STAVE_F32 && c->dtype != STAVE_BF16)
		return stave_err_set(err, STAVE_EUSAGE, "decoding runs in F32 or BF16, not %s", stave_dtype_name(c->dtype));
	return 0;
}

static int64_t vector_floats(const struct stave_layout *l)
{
	int64_t n = 0;
	for (int i = 0; i < l->n_params; i++)
		n += l->params[i].vector ? l->params[i].cols + 16 : 0;
	return n;
}

static int widest(const struct stave_decoder *d)
{
	const struct stave_shape *s = &d->c.shape;
	int w = s->C > s->H * s->D ? s->C : s->H * s->D;
	return w > s->I ? w : s->I;
}

static void close_products(struct stave_decoder *d)
{
	for (int i = 0; i < d->sizes; i++)
		for (int p = 0; p < PRODUCTS; p++)
			if (d->mm[i][p])
				stave_matmul_close(d->mm[i][p]);
}

/* Handles for runs of 16, 32, 64 … rows; none where the CPU has no products of this type (then runs go row by row). */
static int open_products(struct stave_decoder *d, struct stave_err *err)
{
	const struct stave_shape *s = &d->c.shape;
	const int64_t n[PRODUCTS] = {d->qkv_rows, s->C, d->up_rows, s->C}, k[PRODUCTS] = {s->C, s->H * s->D, s->C, s->I};
	for (int rows = 16; d->sizes < SIZES_MAX; rows *= 2) {
		int m = rows < d->c.rows ? rows : d->c.rows, i = d->sizes++;
		d->size[i] = m;
		for (int p = 0; p < PRODUCTS; p++) {
			struct stave_matmul_desc desc = {.m = m, .n = n[p], .k = k[p], .in = d->c.dtype, .out = STAVE_F32, .b_transposed = true};
			size_t bytes;
			int rc = stave_matmul_open(&d->mm[i][p], &desc, &bytes, err);
			if (rc) {
				close_products(d);
				d->sizes = 0;
				return rc == STAVE_EDEVICE ? 0 : rc;
			}
			d->mm_bytes = bytes > d->mm_bytes ? bytes : d->mm_bytes;
		}
		if (m == d->c.rows)
			break;
	}
	return 0;
}

/* All memory of the decoder, in one order, for the plan and for the run. */
static void take(struct stave_decoder *d, const struct stave_layout *l, struct stave_arena *a, struct stave_decoder_memory *m)
{
	const struct stave_decoder_config *c = &d->c;
	const struct stave_shape *s = &c->shape;
	size_t n = (size_t)c->rows, begin = a->used;
	if (c->dtype == STAVE_BF16) {
		d->w16 = stave_arena_take(a, (size_t)l->n * 2);
		d->vectors = stave_arena_take(a, (size_t)vector_floats(l) * 4);
	}
	d->rope = s->learned_pos ? NULL : stave_arena_take(a, (size_t)c->context * (size_t)s->D * 4);
	size_t weights = a->used;
	size_t cache = (size_t)c->slots * (size_t)s->K * (size_t)s->D * (size_t)c->context * d->element;
	for (int i = 0; i < s->L; i++) {
		char *k = stave_arena_take(a, cache), *v = stave_arena_take(a, cache);
		if (d->layer) {
			d->layer[i].k = k;
			d->layer[i].v = v;
		}
	}
	size_t cached = a->used;
	d->x = stave_arena_take(a, n * (size_t)s->C * 4);
	d->h = stave_arena_take(a, n * (size_t)s->C * 4);
	d->qkv = stave_arena_take(a, n * (size_t)d->qkv_rows * 4);
	d->att = stave_arena_take(a, n * (size_t)s->H * (size_t)s->D * 4);
	d->up = stave_arena_take(a, n * (size_t)d->up_rows * 4);
	d->act = stave_arena_take(a, n * (size_t)s->I * 4);
	d->hidden = stave_arena_take(a, n * (size_t)s->C * 4);
	d->stat = stave_arena_take(a, n * (size_t)(s->H > 2 ? s->H : 2) * 4);
	d->scores = stave_arena_take(a, (size_t)d->threads * (size_t)c->context * 4);
	d->x16 = c->dtype == STAVE_BF16 ? stave_arena_take(a, n * (size_t)widest(d) * 2) : NULL;
	d->rows = stave_arena_take(a, n * sizeof *d->rows);
	d->mm_scratch = stave_arena_take(a, d->mm_bytes);
	d->ids = stave_arena_take(a, n * 4);
	d->pos = stave_arena_take(a, n * 4);
	d->slot = stave_arena_take(a, n * 4);
	*m = (struct stave_decoder_memory){weights - begin, cached - weights, a->used - cached, a->used - begin};
}

static void init(struct stave_decoder *d, const struct stave_decoder_config *c)
{
	const struct stave_shape *s = &c->shape;
	*d = (struct stave_decoder){.c = *c, .k = stave_kernels(), .threads = stave_threads(), .element = stave_dtype_bytes(c->dtype)};
	d->qkv_rows = (s->H + 2 * s->K) * s->D;
	d->up_rows = s->act == STAVE_SWIGLU ? 2 * s->I : s->I;
}

int stave_decoder_plan(const struct stave_decoder_config *c, struct stave_decoder_memory *m, struct stave_err *err)
{
	struct stave_layout l;
	int rc = check(c, err);
	if (rc || (rc = stave_layout_open(&l, &c->shape, err)))
		return rc;
	struct stave_decoder d;
	struct stave_arena a = stave_arena_plan("decoder");
	init(&d, c);
	if (!(rc = open_products(&d, err)))
		take(&d, &l, &a, m);
	close_products(&d);
	stave_layout_close(&l);
	return rc;
}

/* ---- weights ---- */

static const void *matrix(const struct stave_decoder *d, const float *params, int64_t at)
{
	if (at < 0)
		return NULL;
	return d->w16 ? (const void *)(d->w16 + at) : params + at;
}

/* A vector stays float; in BF16 it is copied to *next, since the parameters go away. */
static const float *vector(const struct stave_decoder *d, const float *params, int64_t at, int n, float **next)
{
	if (at < 0)
		return NULL;
	if (!d->w16)
		return params + at;
	float *to = *next;
	memcpy(to, params + at, (size_t)n * 4);
	*next += (n + 15) / 16 * 16;
	return to;
}

static void convert(struct stave_decoder *d, const float *params, int64_t n)
{
	int64_t block = 1 << 16;
#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
	for (int64_t at = 0; at < n; at += block)
		d->k->to_bf16(d->w16 + at, params + at, (size_t)(n - at < block ? n - at : block));
}

static void bind(struct stave_decoder *d, const struct stave_layout *l, const float *p)
{
	const struct stave_shape *s = &d->c.shape;
	float *next = d->vectors;
	for (int i = 0; i < s->L; i++) {
		const struct stave_layer_at *at = &l->layer[i];
		struct layer *y = &d->layer[i];
		y->qkv = matrix(d, p, at->qkv_w);
		y->out = matrix(d, p, at->out_w);
		y->up = matrix(d, p, at->up_w);
		y->down = matrix(d, p, at->down_w);
		y->norm1_w = vector(d, p, at->norm1_w, s->C, &next);
		y->norm1_b = vector(d, p, at->norm1_b, s->C, &next);
		y->norm2_w = vector(d, p, at->norm2_w, s->C, &next);
		y->norm2_b = vector(d, p, at->norm2_b, s->C, &next);
		y->qnorm_w = vector(d, p, at->qnorm_w, s->D, &next);
		y->knorm_w = vector(d, p, at->knorm_w, s->D, &next);
		y->qkv_b = vector(d, p, at->qkv_b, d->qkv_rows, &next);
		y->out_b = vector(d, p, at->out_b, s->C, &next);
		y->up_b = vector(d, p, at->up_b, d->up_rows, &next);
		y->down_b = vector(d, p, at->down_b, s->C, &next);
	}
	d->wte = matrix(d, p, l->wte);
	d->wpe = matrix(d, p, l->wpe);
	d->head = matrix(d, p, l->head);
	d->normf_w = vector(d, p, l->normf_w, s->C, &next);
	d->normf_b = vector(d, p, l->normf_b, s->C, &next);
}

int stave_decoder_open(struct stave_decoder **out, const struct stave_decoder_config *c, const struct stave_layout *l, const float *params,
                       struct stave_arena *arena, struct stave_err *err)
{
	int rc = check(c, err);
	if (rc)
		return rc;
	struct stave_decoder *d = malloc(sizeof *d);
	struct layer *layers = calloc((size_t)c->shape.L, sizeof *layers);
	if (!d || !layers) {
		free(d);
		free(layers);
		return stave_err_set(err, STAVE_ENOMEM, "out of memory opening the decoder");
	}
	struct stave_decoder_memory m;
	init(d, c);
	d->layer = layers;
	if ((rc = open_products(d, err))) {
		stave_decoder_close(d);
		return rc;
	}
	take(d, l, arena, &m);
	if (d->w16)
		convert(d, params, l->n);
	bind(d, l, params);
	if (d->rope)
		stave_rope_table(&c->shape, c->context, d->rope);
	*out = d;
	return 0;
}

void stave_decoder_close(struct stave_decoder *d)
{
	if (!d)
		return;
	close_products(d);
	free(d->layer);
	free(d);
}

/* ---- arithmetic ---- */

/* y (M, N) = x (M, K) W' + bias, row by row of x over blocks of W that stay in the cache. A block's outputs do not
 * depend on who computes it, so threads take blocks as they come. */
static void product(const struct stave_decoder *d, float *y, const void *W, const float *bias, const float *const *x, int M, int N, int K)
{
	size_t row = (size_t)K * d->element;
	int block = (int)(BLOCK_BYTES / row);
	block = block < 16 ? 16 : block / 16 * 16;
#pragma omp parallel for num_threads(d->threads) schedule(dynamic) if ((size_t)M * (size_t)N * row > ALONE_BYTES)
	for (int at = 0; at < N; at += block) {
		int n = N - at < block ? N - at : block;
		for (int m = 0; m < M; m++) {
			float *to = y + (size_t)m * N + at;
			d->k->gemv(d->c.dtype, to, (const char *)W + (size_t)at * row, (size_t)K, x[m], n, K);
			if (bias)
				d->k->add(to, bias + at, (size_t)n);
		}
	}
}

/* The handle's row count for a run of M rows, or -1: row by row. A function of M alone. */
static int run_size(const struct stave_decoder *d, int M)
{
	for (int i = 0; M >= RUN_MIN && i < d->sizes; i++)
		if (d->size[i] >= M)
			return i;
	return -1;
}

/* y (M, N) = x (M, K) W' + bias. size < 0: the rows stand alone; else they are a run with handles of that size, whose
 * padding rows are whatever the workspace holds: they feed only themselves and nobody reads them. */
static void multiply(const struct stave_decoder *d, int size, int p, float *y, const void *W, const float *bias, const float *x, int M, int N, int K)
{
	if (size < 0) {
		for (int m = 0; m < M; m++)
			d->rows[m] = x + (size_t)m * K;
		product(d, y, W, bias, d->rows, M, N, K);
		return;
	}
	if (d->x16) {
#pragma omp parallel for num_threads(d->threads)
		for (int m = 0; m < M; m++)
			d->k->to_bf16(d->x16 + (size_t)m * K, x + (size_t)m * K, (size_t)K);
	}
	stave_matmul_run(d->mm[size][p], d->x16 ? (const void *)d->x16 : x, W, y, NULL, d->mm_scratch);
	if (!bias)
		return;
#pragma omp parallel for num_threads(d->threads)
	for (int m = 0; m < M; m++)
		d->k->add(y + (size_t)m * N, bias, (size_t)N);
}

static void embed(const struct stave_decoder *d, int M)
{
	int C = d->c.shape.C;
	if (d->c.dtype == STAVE_F32) {
		d->k->embed_fwd(d->x, d->ids, d->pos, d->wte, d->wpe, M, C);
		return;
	}
	for (int m = 0; m < M; m++) {
		float *x = d->x + (size_t)m * C;
		d->k->from_bf16(x, (const uint16_t *)d->wte + (size_t)d->ids[m] * C, (size_t)C);
		if (!d->wpe)
			continue;
		d->k->from_bf16(d->h, (const uint16_t *)d->wpe + (size_t)d->pos[m] * C, (size_t)C);
		d->k->add(x, d->h, (size_t)C);
	}
}

static void norm(const struct stave_decoder *d, float *y, const float *gain, const float *bias, int M)
{
	const struct stave_shape *s = &d->c.shape;
#pragma omp parallel for num_threads(d->threads) if (M > 8)
	for (int m = 0; m < M; m++) {
		float *mean = d->stat + 2 * (size_t)m, *rstd = mean + 1;
		d->k->norm_fwd(STAVE_F32, !s->layernorm, y + (size_t)m * s->C, mean, rstd, d->x + (size_t)m * s->C, gain, bias, s->norm_eps, 1, s->C);
	}
}

static void residual(const struct stave_decoder *d, const float *y, int M)
{
	size_t C = (size_t)d->c.shape.C;
#pragma omp parallel for num_threads(d->threads) if (M > 8)
	for (int m = 0; m < M; m++)
		d->k->add(d->x + m * C, y + m * C, C);
}

static char *cache_at(const struct stave_decoder *d, char *base, int slot, int head)
{
	const struct stave_decoder_config *c = &d->c;
	return base + ((size_t)slot * c->shape.K + head) * c->context * c->shape.D * d->element;
}

/* Head norms and rotation of q and k, then k and v of each row into the cache. */
static void place(const struct stave_decoder *d, const struct layer *y, int M)
{
	const struct stave_shape *s = &d->c.shape;
	int D = s->D, context = d->c.context;
	size_t ld = (size_t)d->qkv_rows;
	float *q = d->qkv, *k = q + (size_t)s->H * D, *v = k + (size_t)s->K * D;
	if (s->qk_norm) {
		d->k->headnorm_fwd(STAVE_F32, q, ld, d->stat, q, ld, y->qnorm_w, s->norm_eps, M, s->H, D);
		d->k->headnorm_fwd(STAVE_F32, k, ld, d->stat, k, ld, y->knorm_w, s->norm_eps, M, s->K, D);
	}
	if (d->rope) {
		d->k->rope(STAVE_F32, false, q, ld, d->pos, d->rope, M, s->H, D);
		d->k->rope(STAVE_F32, false, k, ld, d->pos, d->rope, M, s->K, D);
	}
	for (int m = 0; m < M; m++)
		for (int h = 0; h < s->K; h++) {
			char *kc = cache_at(d, y->k, d->slot[m], h), *vc = cache_at(d, y->v, d->slot[m], h);
			const float *km = k + (size_t)m * ld + (size_t)h * D, *vm = v + (size_t)m * ld + (size_t)h * D;
			if (d->c.dtype == STAVE_F32)
				memcpy((float *)kc + (size_t)d->pos[m] * D, km, (size_t)D * 4);
			else
				d->k->to_bf16((uint16_t *)kc + (size_t)d->pos[m] * D, km, (size_t)D);
			for (int i = 0; i < D; i++)
				stave_put(d->c.dtype, vc, (size_t)i * context + d->pos[m], vm[i]);
		}
}

static void softmax(float *p, int n)
{
	float max = -INFINITY, sum = 0;
	for (int i = 0; i < n; i++)
		max = p[i] > max ? p[i] : max;
	for (int i = 0; i < n; i++) {
		p[i] = expf(p[i] - max);
		sum += p[i];
	}
	for (int i = 0; i < n; i++)
		p[i] /= sum;
}

/* One query head of row m over the cached positions it may see. */
static void attend(const struct stave_decoder *d, const struct layer *y, int m, int h, float *p)
{
	const struct stave_shape *s = &d->c.shape;
	int D = s->D, context = d->c.context, pos = d->pos[m], kv = h / (s->H / s->K);
	int first = s->window > 0 && pos >= s->window ? pos - s->window + 1 : 0, n = pos - first + 1;
	const char *k = cache_at(d, y->k, d->slot[m], kv), *v = cache_at(d, y->v, d->slot[m], kv);
	float *q = d->qkv + (size_t)m * d->qkv_rows + (size_t)h * D;
	d->k->scale(q, 1 / sqrtf((float)D), (size_t)D);
	d->k->gemv(d->c.dtype, p, k + (size_t)first * D * d->element, (size_t)D, q, n, D);
	softmax(p, n);
	d->k->gemv(d->c.dtype, d->att + ((size_t)m * s->H + h) * D, v + (size_t)first * d->element, (size_t)context, p, D, n);
}

static void attention(const struct stave_decoder *d, const struct layer *y, int M)
{
	int tasks = M * d->c.shape.H;
	size_t bytes = 0;
	for (int m = 0; m < M; m++)
		bytes += 2 * (size_t)d->pos[m] * (size_t)d->c.shape.H * (size_t)d->c.shape.D * d->element;
#pragma omp parallel for num_threads(d->threads) schedule(dynamic) if (bytes > ALONE_BYTES)
	for (int i = 0; i < tasks; i++)
		attend(d, y, i / d->c.shape.H, i % d->c.shape.H, d->scores + (size_t)stave_thread_index() * d->c.context);
}

static void activate(const struct stave_decoder *d, int M)
{
	const struct stave_shape *s = &d->c.shape;
#pragma omp parallel for num_threads(d->threads) if (M > 8)
	for (int m = 0; m < M; m++) {
		float *up = d->up + (size_t)m * d->up_rows, *act = d->act + (size_t)m * s->I;
		if (s->act == STAVE_SWIGLU)
			d->k->swiglu_fwd(STAVE_F32, act, up, 1, s->I);
		else
			d->k->gelu_fwd(STAVE_F32, s->act == STAVE_GELU_EXACT, act, up, (size_t)s->I);
	}
}

/* M rows whose ids, positions and slots are filled in; `run`: they are consecutive tokens of one sequence. */
static void forward(const struct stave_decoder *d, int M, bool run, float *hidden)
{
	const struct stave_shape *s = &d->c.shape;
	int Q = s->H * s->D, size = run ? run_size(d, M) : -1;
	embed(d, M);
	for (int i = 0; i < s->L; i++) {
		const struct layer *y = &d->layer[i];
		norm(d, d->h, y->norm1_w, y->norm1_b, M);
		multiply(d, size, QKV, d->qkv, y->qkv, y->qkv_b, d->h, M, d->qkv_rows, s->C);
		place(d, y, M);
		attention(d, y, M);
		multiply(d, size, OUT, d->h, y->out, y->out_b, d->att, M, s->C, Q);
		residual(d, d->h, M);
		norm(d, d->h, y->norm2_w, y->norm2_b, M);
		multiply(d, size, UP, d->up, y->up, y->up_b, d->h, M, d->up_rows, s->C);
		activate(d, M);
		multiply(d, size, DOWN, d->h, y->down, y->down_b, d->act, M, s->C, s->I);
		residual(d, d->h, M);
	}
	norm(d, hidden, d->normf_w, d->normf_b, M);
}

static void fill_row(const struct stave_decoder *d, int m, const struct stave_decode *s, int i)
{
	d->ids[m] = s->ids[i];
	d->pos[m] = s->past + i;
	d->slot[m] = s->slot;
}

void stave_decoder_run(struct stave_decoder *d, struct stave_decode *s, int n)
{
	float *hidden = d->hidden;
	int alone = 0;
	for (int i = 0; i < n; i++)
		if (s[i].n == 1) {
			fill_row(d, alone, &s[i], 0);
			s[i].hidden = hidden + (size_t)alone++ * d->c.shape.C;
		}
	if (alone)
		forward(d, alone, false, hidden);
	hidden += (size_t)alone * d->c.shape.C;
	for (int i = 0; i < n; i++) {
		if (s[i].n == 1)
			continue;
		for (int m = 0; m < s[i].n; m++)
			fill_row(d, m, &s[i], m);
		forward(d, s[i].n, true, hidden);
		s[i].hidden = hidden;
		hidden += (size_t)s[i].n * d->c.shape.C;
	}
}

void stave_decoder_logits(struct stave_decoder *d, const float *const *hidden, int n, float *logits)
{
	product(d, logits, d->head, NULL, hidden, n, d->c.shape.V, d->c.shape.C);
}
