/* The rate samples of a machine profile: each operation of a training step, timed alone, at a few sizes that span what models do.
 *
 * Three things make a sample resemble the operation inside a step. It is called as model/ calls it: the same handles, the
 * same split over threads, the same strides. Its memory is as cold: an operand that a step last met long ago (weights,
 * saved activations, gradients) comes from a pool far larger than the caches, at another place each time, while an operand
 * that the previous operation has just written stays where it is; a step of a model of a hundred channels goes round in the
 * shared cache, and so do samples of its sizes. And its moment is as good: clock and memory of a machine move within seconds, so
 * all samples are taken three times over, and the median of three medians counts.
 *
 * Element-wise classes are one table; bytes are counted by cost/'s own table, so that its convention cancels out of a
 * forecast. */
#include "cli/bench_rates.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "kernel/matmul.h"

#define POOL_BYTES ((size_t)640 << 20)
#define WARM_BYTES ((size_t)24 << 20) /* of a small model's step */
#define SAMPLE_S 0.02 /* time given to one sample, each time */
#define ROWS 32       /* rows an element-wise kernel gets at a time, as in the network */
#define HEAD 64       /* head width where a class works by heads */

void rates_fill(struct bench *b, size_t bytes)
{
	uint16_t *x = (uint16_t *)(void *)b->pool.base;
	int64_t n = (int64_t)(bytes / 2);
#pragma omp parallel for schedule(static)
	for (int64_t i = 0; i < n; i++)
		x[i] = (uint16_t)(0x3800 | (stave_random64(1, (uint64_t)i) & 0x87ff));
}

void *rates_take(struct bench *b, size_t bytes, bool hot, size_t *hot_cursor)
{
	size_t *at = hot ? hot_cursor : &b->cursor, end = !hot && b->ceiling ? b->ceiling : b->pool.size;
	bytes = (bytes + 4095) / 4096 * 4096;
	if (*at + bytes > end || (!hot && *at < b->floor))
		*at = hot ? 0 : b->floor;
	void *p = b->pool.base + *at;
	*at += bytes;
	return p;
}

static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

double rates_median_s(double (*run)(void *ctx), void *ctx, double seconds)
{
	enum { LEAST = 2, MOST = 64 };
	double t[MOST], start;
	int n = 0;
	run(ctx);
	for (start = stave_now_s(); n < LEAST || (n < MOST && stave_now_s() - start < seconds); n++)
		t[n] = run(ctx);
	qsort(t, (size_t)n, sizeof *t, ascending);
	return t[(n - 1) / 2];
}

void rates_record(struct bench *b, const char *what, enum stave_pass pass, enum stave_dtype dtype, int64_t m, int64_t n, int64_t k, double per_s)
{
	if (b->at == STAVE_RATES_MAX)
		return;
	struct stave_rate *r = &b->m->rates[b->at];
	snprintf(r->what, sizeof r->what, "%s", what);
	r->pass = pass;
	r->dtype = dtype;
	r->m = m;
	r->n = n;
	r->k = k;
	b->tries[b->at++][b->pass] = per_s;
	stave_progress(false, "rates: round %d of %d, %d measured, now %s %s", b->pass + 1, RATES_PASSES, b->at, what, stave_dtype_name(dtype));
}

/* ---- matrix products ---- */

/* y (m, n) = x (m, k) W'; `added`: y is the residual stream, f32, and the product is added to it. */
static const struct product_size {
	int64_t m, n, k;
	bool added, small;
} products[] = {
	{768, 384, 128, false, true},    {768, 128, 128, true, true},     {768, 512, 128, false, true},  {768, 128, 512, true, true},
	{1024, 1376, 256, false, false}, {1024, 256, 256, true, false},   {1024, 640, 384, false, false}, {1024, 2048, 384, false, false},
	{1024, 384, 1024, true, false},  {1024, 2304, 768, false, false}, {1024, 768, 768, true, false}, {1024, 3072, 768, false, false},
	{1024, 768, 3072, true, false},  {4096, 3072, 768, false, false}, {4096, 768, 768, true, false}, {1024, 4096, 1024, false, false},
	{1024, 1024, 4096, true, false}, {1024, 1024, 1024, true, false}, {1024, 2048, 2048, true, false}, {1024, 8192, 2048, false, false},
	{1024, 2048, 8192, true, false}, {512, 50304, 768, false, false}, {512, 50304, 384, false, false}, {768, 80, 128, false, true},
};

struct product {
	struct bench *b;
	struct stave_matmul *mm;
	bool small;
	size_t a_bytes, b_bytes, c_bytes, scratch_bytes;
};

/* The left operand was just written by the operation before; weights, saved activations and results lie elsewhere. */
static double run_product(void *ctx)
{
	struct product *p = ctx;
	size_t hot = 0;
	void *a = rates_take(p->b, p->a_bytes, true, &hot), *scratch = rates_take(p->b, p->scratch_bytes, true, &hot);
	p->b->floor = hot;
	p->b->ceiling = p->small ? hot + WARM_BYTES : 0;
	void *w = rates_take(p->b, p->b_bytes, false, &hot), *c = rates_take(p->b, p->c_bytes, false, &hot);
	double start = stave_now_s();
	stave_matmul_run(p->mm, a, w, c, NULL, scratch);
	return stave_now_s() - start;
}

static int sample_product(struct bench *b, const struct product_size *s, enum stave_pass pass, enum stave_dtype dt, struct stave_err *err)
{
	size_t e = stave_dtype_bytes(dt);
	struct stave_matmul_desc d = {.m = s->m, .n = s->n, .k = s->k, .in = dt, .out = s->added ? STAVE_F32 : dt, .b_transposed = true, .accumulate = s->added};
	if (pass == STAVE_DGRAD) /* dx (m, k) = dy (m, n) W */
		d = (struct stave_matmul_desc){.m = s->m, .n = s->k, .k = s->n, .in = dt, .out = dt};
	if (pass == STAVE_WGRAD) /* dW (n, k) = dy' x */
		d = (struct stave_matmul_desc){.m = s->n, .n = s->k, .k = s->m, .in = dt, .out = STAVE_F32, .a_transposed = true};
	struct product p = {.b = b, .small = s->small, .a_bytes = (size_t)(d.m * d.k) * e, .b_bytes = (size_t)(d.k * d.n) * e,
	                    .c_bytes = (size_t)(d.m * d.n) * stave_dtype_bytes(d.out)};
	int rc = stave_matmul_open(&p.mm, &d, &p.scratch_bytes, err);
	if (rc)
		return rc;
	if (p.a_bytes + p.b_bytes + p.c_bytes + p.scratch_bytes + 4 * 4096 <= b->pool.size) {
		double t = rates_median_s(run_product, &p, SAMPLE_S);
		rates_record(b, "matmul", pass, dt, d.m, d.n, d.k, 2.0 * (double)d.m * (double)d.n * (double)d.k / t);
	}
	b->floor = b->ceiling = 0;
	stave_matmul_close(p.mm);
	return 0;
}

static int sample_products(struct bench *b, enum stave_dtype dt, struct stave_err *err)
{
	for (size_t i = 0; i < sizeof products / sizeof *products; i++)
		for (int pass = STAVE_FORWARD; pass <= STAVE_WGRAD; pass++) {
			int rc = sample_product(b, &products[i], (enum stave_pass)pass, dt, err);
			if (rc)
				return rc;
		}
	return 0;
}

/* ---- attention ---- */

#define HEADS 12 /* of one row: q, k and v of a token lie 3·HEADS·D apart */

struct attention {
	struct bench *b;
	enum stave_dtype dt;
	int B, T, D;
	bool backward;
	size_t scratch_bytes;
};

static double run_attention(void *ctx)
{
	struct attention *t = ctx;
	struct bench *b = t->b;
	size_t e = stave_dtype_bytes(t->dt), T = (size_t)t->T, D = (size_t)t->D, row = 3 * HEADS * D, tokens = (size_t)t->B * T, hot = 0;
	char *qkv = rates_take(b, tokens * row * e, false, &hot), *o = rates_take(b, tokens * HEADS * D * e, false, &hot), *d_o = rates_take(b, tokens * HEADS * D * e, false, &hot);
	float *dqkv = rates_take(b, tokens * row * 4, false, &hot), *lse = rates_take(b, tokens * HEADS * 4, false, &hot);
	char *scratch = rates_take(b, t->scratch_bytes * (size_t)stave_threads(), false, &hot);
	/* large enough that exp(score - lse) stays a small probability in the backward pass */
	for (size_t i = 0; i < tokens * HEADS; i++)
		lse[i] = logf((float)(i % T + 1));
	double start = stave_now_s();
#pragma omp parallel for schedule(dynamic)
	for (int i = 0; i < t->B * HEADS; i++) {
		size_t first = (size_t)(i / HEADS) * T, h = (size_t)(i % HEADS) * D;
		char *q = qkv + (first * row + h) * e, *mine = scratch + t->scratch_bytes * (size_t)stave_thread_index();
		float *dq = dqkv + first * row + h;
		struct stave_attn a = {.T = t->T, .D = t->D, .q = q, .k = q + HEADS * D * e, .v = q + 2 * HEADS * D * e, .ldq = row, .ldk = row, .ldv = row,
		                       .o = o + (first * HEADS * D + h) * e, .ldo = HEADS * D, .lse = lse + (size_t)i * T, .scale = 1 / sqrtf((float)D),
		                       .d_o = d_o + (first * HEADS * D + h) * e, .dq = dq, .dk = dq + HEADS * D, .dv = dq + 2 * HEADS * D, .lddq = row, .lddkv = row};
		(t->backward ? b->k->attn_bwd : b->k->attn_fwd)(t->dt, &a, mine);
	}
	return stave_now_s() - start;
}

static void sample_attention(struct bench *b, enum stave_dtype dt)
{
	static const int sizes[][2] = {{64, 32}, {256, 32}, {64, 64}, {256, 64}, {1024, 64}, {2048, 64}, {256, 128}, {1024, 128}};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		for (int pass = STAVE_FORWARD; pass <= STAVE_DGRAD; pass++) {
			int T = sizes[i][0], D = sizes[i][1], rows = (4 * stave_threads() + HEADS - 1) / HEADS, least = 512 / T;
			struct attention t = {.b = b, .dt = dt, .B = rows > least ? rows : least, .T = T, .D = D, .backward = pass == STAVE_DGRAD};
			t.scratch_bytes = (b->k->attn_scratch(dt, T, D, t.backward) + 63) / 64 * 64;
			b->ceiling = T == 64 ? WARM_BYTES : 0; /* as short as small models' rows */
			double s = rates_median_s(run_attention, &t, SAMPLE_S), pairs = (double)T * (T + 1) / 2;
			double flops = 2.0 * (t.backward ? 5 : 2) * D * pairs * t.B * HEADS;
			rates_record(b, "attention", (enum stave_pass)pass, dt, (int64_t)t.B * HEADS, T, D, flops / s);
		}
	b->ceiling = 0;
}

/* ---- everything limited by bytes ---- */

/* One piece of an element-wise sample: `rows` rows of C values from row `from`. f: f32 operands, d: typed ones. */
struct piece {
	const struct bench *b;
	enum stave_dtype dt;
	int from, rows, C, thread;
	char *p[5];
};

static float *f(const struct piece *x, int i) { return (float *)(void *)x->p[i] + (size_t)x->from * (size_t)x->C; }
static void *d(const struct piece *x, int i, int wide)
{
	return x->p[i] + (size_t)x->from * (size_t)x->C * stave_dtype_bytes(x->dt) * (size_t)wide;
}
static size_t values(const struct piece *x) { return (size_t)x->rows * (size_t)x->C; }
static float *slice(const struct piece *x) { return x->b->slices + (size_t)x->thread * 2 * RATES_IDS; }

static void norm_fwd(const struct piece *x)
{
	x->b->k->norm_fwd(x->dt, false, d(x, 0, 1), x->b->stat + x->from, x->b->stat + RATES_IDS + x->from, f(x, 1), x->b->stat, x->b->stat, 1e-5f, x->rows, x->C);
}
static void norm_bwd(const struct piece *x)
{
	bool narrow = x->dt != STAVE_F32;
	x->b->k->norm_bwd(x->dt, false, f(x, 0), narrow ? d(x, 1, 1) : NULL, slice(x), slice(x) + x->C, d(x, 2, 1), f(x, 3), x->b->stat + x->from,
	                  x->b->stat + RATES_IDS + x->from, x->b->stat, x->rows, x->C);
}
static void headnorm_fwd(const struct piece *x)
{
	x->b->k->headnorm_fwd(x->dt, d(x, 0, 1), (size_t)x->C, slice(x), d(x, 1, 1), (size_t)x->C, x->b->stat, 1e-5f, x->rows, x->C / HEAD, HEAD);
}
static void headnorm_bwd(const struct piece *x)
{
	x->b->k->headnorm_bwd(f(x, 0), (size_t)x->C, slice(x), d(x, 1, 1), x->dt, (size_t)x->C, x->b->stat, x->b->stat, x->rows, x->C / HEAD, HEAD);
}
static void rope_fwd(const struct piece *x)
{
	x->b->k->rope(x->dt, false, d(x, 0, 1), (size_t)x->C, x->b->ids + RATES_IDS + x->from, x->b->stat, x->rows, x->C / HEAD, HEAD);
}
static void rope_bwd(const struct piece *x)
{
	x->b->k->rope(STAVE_F32, true, f(x, 0), (size_t)x->C, x->b->ids + RATES_IDS + x->from, x->b->stat, x->rows, x->C / HEAD, HEAD);
}
static void gelu_fwd(const struct piece *x) { x->b->k->gelu_fwd(x->dt, false, d(x, 0, 1), d(x, 1, 1), values(x)); }
static void gelu_bwd(const struct piece *x) { x->b->k->gelu_bwd(x->dt, false, d(x, 0, 1), d(x, 1, 1), d(x, 2, 1), values(x)); }
static void gelu_exact_fwd(const struct piece *x) { x->b->k->gelu_fwd(x->dt, true, d(x, 0, 1), d(x, 1, 1), values(x)); }
static void gelu_exact_bwd(const struct piece *x) { x->b->k->gelu_bwd(x->dt, true, d(x, 0, 1), d(x, 1, 1), d(x, 2, 1), values(x)); }
static void swiglu_fwd(const struct piece *x) { x->b->k->swiglu_fwd(x->dt, d(x, 0, 1), d(x, 1, 2), x->rows, x->C); }
static void swiglu_bwd(const struct piece *x) { x->b->k->swiglu_bwd(x->dt, d(x, 0, 2), d(x, 1, 1), d(x, 2, 2), x->rows, x->C); }
static void embed_fwd(const struct piece *x)
{
	const float *table = (const float *)(const void *)x->p[1];
	x->b->k->embed_fwd(f(x, 0), x->b->ids + x->from, x->b->ids + RATES_IDS + x->from, table, table, x->rows, x->C);
}
static void embed_bwd(const struct piece *x)
{
	for (int r = 0; r < x->rows; r++)
		x->b->k->add((float *)(void *)x->p[1] + (size_t)x->b->ids[x->from + r] * (size_t)x->C, f(x, 0) + (size_t)r * (size_t)x->C, (size_t)x->C);
}
static void copy(const struct piece *x) { memcpy(f(x, 0), f(x, 1), values(x) * 4); }
static void zero(const struct piece *x) { memset(f(x, 0), 0, values(x) * 4); }
static void colsum(const struct piece *x) { x->b->k->colsum(x->dt, slice(x), d(x, 0, 1), (size_t)x->C, x->rows, x->C); }
static void convert(const struct piece *x) { x->b->k->to_bf16(d(x, 0, 1), f(x, 1), values(x)); }
static void loss(const struct piece *x)
{
	x->b->k->xent(x->dt, d(x, 0, 1), (size_t)x->C, slice(x), x->b->ids + RATES_IDS + x->from, 1, x->rows, x->C);
}
static void sumsq(const struct piece *x) { slice(x)[0] = (float)x->b->k->sumsq(f(x, 0), values(x)); }
static void adamw(const struct piece *x)
{
	x->b->k->adamw(f(x, 0), x->dt == STAVE_BF16 ? d(x, 4, 1) : NULL, f(x, 1), f(x, 2), f(x, 3), values(x), 1e-3f, 1e-4f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.5f, 0.5f);
}

/* Operands, one letter each: f (rows, C) f32, d (rows, C) typed, D (rows, 2C) typed, t the table of token embeddings. */
static const struct element {
	const char *rate;
	enum stave_pass pass;
	const char *operands;
	void (*run)(const struct piece *x);
	const int (*sizes)[3]; /* rows, C, small; ends with 0 */
} *element_table(size_t *n)
{
	static const int channels[][3] = {{768, 128, 1}, {1024, 768, 0}, {4096, 1024, 0}, {0}};
	static const int inner[][3] = {{768, 512, 1}, {1024, 3072, 0}, {4096, 3072, 0}, {0}};
	/* parameters, moments and gradients are passed over once a step, with a whole step between: cold at any size */
	static const int flat[][3] = {{12, 65536, 0}, {192, 65536, 0}, {0}};
	static const int vocabulary[][3] = {{768, 80, 1}, {1024, 4096, 0}, {512, 50304, 0}, {0}};
	static const struct element elements[] = {
		{"norm", STAVE_FORWARD, "df", norm_fwd, channels},         {"norm", STAVE_DGRAD, "fddf", norm_bwd, channels},
		{"headnorm", STAVE_FORWARD, "dd", headnorm_fwd, channels}, {"headnorm", STAVE_DGRAD, "fd", headnorm_bwd, channels},
		{"rope", STAVE_FORWARD, "d", rope_fwd, channels},          {"rope", STAVE_DGRAD, "f", rope_bwd, channels},
		{"gelu", STAVE_FORWARD, "dd", gelu_fwd, inner},            {"gelu", STAVE_DGRAD, "ddd", gelu_bwd, inner},
		{"gelu_exact", STAVE_FORWARD, "dd", gelu_exact_fwd, inner}, {"gelu_exact", STAVE_DGRAD, "ddd", gelu_exact_bwd, inner},
		{"swiglu", STAVE_FORWARD, "dD", swiglu_fwd, inner},        {"swiglu", STAVE_DGRAD, "DdD", swiglu_bwd, inner},
		{"embed", STAVE_FORWARD, "ft", embed_fwd, channels},       {"embed", STAVE_DGRAD, "ft", embed_bwd, channels},
		{"copy", STAVE_FORWARD, "ff", copy, channels},             {"zero", STAVE_DGRAD, "f", zero, channels},
		{"colsum", STAVE_WGRAD, "d", colsum, channels},            {"convert", STAVE_DGRAD, "df", convert, channels},
		{"loss", STAVE_FORWARD, "d", loss, vocabulary},            {"sumsq", STAVE_UPDATE, "f", sumsq, flat},
		{"adamw", STAVE_UPDATE, "ffffd", adamw, flat},
	};
	*n = sizeof elements / sizeof *elements;
	return elements;
}

struct element_run {
	struct bench *b;
	const struct element *e;
	enum stave_dtype dt;
	int rows, C;
};

static size_t operand_bytes(const struct element_run *r, char letter)
{
	size_t values_n = (size_t)r->rows * (size_t)r->C, e = stave_dtype_bytes(r->dt);
	switch (letter) {
	case 'd': return values_n * e;
	case 'D': return values_n * e * 2;
	case 't': return (size_t)(RATES_IDS / 2) * (size_t)r->C * 4;
	default: return values_n * 4;
	}
}

static double run_element(void *ctx)
{
	const struct element_run *r = ctx;
	struct piece whole = {.b = r->b, .dt = r->dt, .C = r->C};
	size_t unused = 0;
	for (int i = 0; r->e->operands[i]; i++)
		whole.p[i] = rates_take(r->b, operand_bytes(r, r->e->operands[i]), false, &unused);
	int step = r->C > 8192 ? 1 : ROWS;
	double start = stave_now_s();
#pragma omp parallel for schedule(static)
	for (int from = 0; from < r->rows; from += step) {
		struct piece x = whole;
		x.from = from;
		x.rows = r->rows - from < step ? r->rows - from : step;
		x.thread = stave_thread_index();
		r->e->run(&x);
	}
	return stave_now_s() - start;
}

static void sample_elements(struct bench *b, enum stave_dtype dt)
{
	size_t n;
	const struct element *elements = element_table(&n);
	for (size_t i = 0; i < n; i++) {
		const struct element *e = &elements[i];
		double bytes = stave_cost_value_bytes(e->rate, e->pass, dt);
		bool flat = e->pass == STAVE_UPDATE;
		for (const int(*s)[3] = e->sizes; (*s)[0]; s++) {
			struct element_run r = {.b = b, .e = e, .dt = dt, .rows = (*s)[0], .C = (*s)[1]};
			size_t need = 0;
			for (const char *o = e->operands; *o; o++)
				need += operand_bytes(&r, *o) + 4096;
			if (need > b->pool.size || (dt == STAVE_F32 && !strcmp(e->rate, "convert")))
				continue;
			b->ceiling = (*s)[2] ? WARM_BYTES : 0;
			rates_fill(b, b->ceiling); /* a small place is written again and again, by every sample in its way */
			double values_n = (double)r.rows * r.C, t = rates_median_s(run_element, &r, SAMPLE_S / 2);
			rates_record(b, e->rate, e->pass, dt, flat ? (int64_t)values_n : r.rows, flat ? 1 : r.C, 1, values_n * bytes / t);
		}
	}
	b->ceiling = 0;
}

/* ---- all of it ---- */

static int prepare(struct bench *b, struct stave_err *err)
{
	size_t avail = stave_memory_available_bytes(), pool = avail / 4 < POOL_BYTES ? avail / 4 : POOL_BYTES;
	if (pool < POOL_BYTES / 8)
		return stave_err_set(err, STAVE_ENOFIT, "measuring rates needs %zu MiB of memory; %zu MiB are available", POOL_BYTES >> 21, avail >> 20);
	b->ids = malloc(2 * RATES_IDS * sizeof *b->ids);
	b->stat = malloc(2 * RATES_IDS * sizeof *b->stat);
	b->slices = calloc((size_t)stave_threads() * 2 * RATES_IDS, sizeof *b->slices);
	if (!b->ids || !b->stat || !b->slices)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the arguments of the rate samples");
	for (int i = 0; i < RATES_IDS; i++) {
		b->ids[i] = (int32_t)(stave_random64(2, (uint64_t)i) % (RATES_IDS / 2));
		b->ids[RATES_IDS + i] = i % 64; /* positions, and targets within any vocabulary */
		b->stat[i] = b->stat[RATES_IDS + i] = 1e-2f;
	}
	return stave_arena_open(&b->pool, "rate samples", pool, err);
}

static int sample_training(struct bench *b, enum stave_dtype dt, struct stave_err *err)
{
	rates_fill(b, b->pool.size);
	int rc = sample_products(b, dt, err);
	if (rc)
		return rc;
	rates_fill(b, b->pool.size); /* what products wrote is no fit input for the others */
	sample_attention(b, dt);
	rates_fill(b, b->pool.size);
	sample_elements(b, dt);
	return 0;
}

int bench_rates(struct stave_machine *m, struct stave_err *err)
{
	struct bench *b = calloc(1, sizeof *b);
	if (!b)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the rate samples");
	b->m = m;
	b->k = stave_kernels();
	int rc = prepare(b, err);
	for (b->pass = 0; b->pass < RATES_PASSES && !rc; b->pass++) {
		b->at = 0;
		rc = sample_training(b, STAVE_F32, err);
		if (!rc && m->peak_bf16 > 0)
			rc = sample_training(b, STAVE_BF16, err);
		if (!rc)
			rates_answering(b);
	}
	m->n_rates = b->at;
	for (int i = 0; i < b->at; i++) {
		qsort(b->tries[i], RATES_PASSES, sizeof b->tries[i][0], ascending);
		m->rates[i].per_s = b->tries[i][RATES_PASSES / 2];
	}
	stave_arena_close(&b->pool);
	free(b->ids);
	free(b->stat);
	free(b->slices);
	free(b);
	return rc;
}
