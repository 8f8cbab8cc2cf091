/* The rate samples that a forecast of answers needs: products with stored weights of every type from one row to a prompt's
 * piece, attention over a paged cache, and the rows in between.
 *
 * As in the samples of training, what a step last met long ago (weights, cached keys and values) lies in memory, and what
 * the phase before has just written lies where it always does. Phases of one row take microseconds, and the memory's rate moves from
 * moment to moment: so a sample of few rows is a chain of phases in one parallel region, as a token is. Time is processor time of the
 * thread that took longest, so that what other processes take from the cores does not count; threads do not wait for one another within
 * a chain. The split over threads is model/'s: its tasks of some panels, neighbours to one thread; of a prompt's attention, key heads of 64 rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/sys.h"
#include "cli/bench_rates.h"
#include "kernel/paged.h"
#include "kernel/panel.h"
#include "model/model.h"

#define ANSWER_S 0.015                /* time given to one sample, each time */
#define CHAIN_BYTES ((size_t)48 << 20) /* of weights that a chain reads */
#define CHAIN_MAX 64
#define ROW_CHAIN 8                   /* phases of one row in a chain */
#define HOT_BYTES ((size_t)64 << 20)  /* of the pool: operands and results */
#define MANY_ROWS 16                  /* from here on arithmetic is the limit, and one phase is long enough to time */

static double thread_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int chain_length(size_t bytes)
{
	size_t n = CHAIN_BYTES / bytes + 1;
	return n < CHAIN_MAX ? (int)n : CHAIN_MAX;
}

/* ---- products ---- */

struct stored {
	struct bench *b;
	enum stave_qtype type;
	int n, rows, cols, chain; /* (n, cols) x (rows, cols)' */
	size_t bytes, scratch_bytes;
	void *operand, *scratch;
	float *y;
};

static double run_stored(void *ctx)
{
	struct stored *p = ctx;
	size_t unused = 0, panel = p->bytes / (size_t)((p->rows + STAVE_PANEL - 1) / STAVE_PANEL);
	int panels = (p->rows + STAVE_PANEL - 1) / STAVE_PANEL, each = stave_task_panels(&(struct stave_packed){.type = p->type, .rows = p->rows, .cols = p->cols}, p->n, stave_threads(), panels), tasks = (panels + each - 1) / each;
	const char *w[CHAIN_MAX];
	for (int i = 0; i < p->chain; i++)
		w[i] = rates_take(p->b, p->bytes, false, &unused);
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		char *scratch = (char *)p->scratch + p->scratch_bytes * (size_t)stave_thread_index();
		double start = thread_s();
		for (int i = 0; i < p->chain; i++) {
#pragma omp for schedule(static) nowait
			for (int t = 0; t < tasks; t++) {
				int from = t * each, to = from + each < panels ? from + each : panels, rows = (to * STAVE_PANEL < p->rows ? to * STAVE_PANEL : p->rows) - from * STAVE_PANEL;
				struct stave_packed part = {.type = p->type, .rows = rows, .cols = p->cols, .data = w[i] + (size_t)from * panel};
				stave_packed_multiply(&part, 0, to - from, p->operand, p->n, p->y + from * STAVE_PANEL, (size_t)p->rows, NULL, scratch);
			}
		}
		longest = thread_s() - start;
	}
	return longest;
}

static enum stave_dtype kind_dtype(enum stave_operand_kind k) { return k == STAVE_OPERAND_I8 ? STAVE_I8 : k == STAVE_OPERAND_BF16 ? STAVE_BF16 : STAVE_F32; }

static const struct stored_size {
	int n, rows, cols;
	bool common; /* sampled only for the types that most models have */
} stored_sizes[] = {
	{1, 8192, 2048, false},   {8, 8192, 2048, false},   {64, 8192, 2048, false},  {512, 8192, 2048, false}, {1, 1024, 1024, true},
	{1, 2048, 2048, true},    {1, 2048, 8192, true},    {1, 32768, 1024, true},   {2, 8192, 2048, true},    {4, 8192, 2048, true},
	{16, 8192, 2048, true},   {32, 8192, 2048, true},   {512, 1024, 1024, true},  {512, 2048, 8192, true},  {512, 2048, 768, true},
	{1, 2048, 768, true},
};

static bool common(enum stave_qtype t) { return t == STAVE_Q_Q8_0 || t == STAVE_Q_Q4_0 || t == STAVE_Q_Q4_K || t == STAVE_Q_Q6_K || t == STAVE_Q_BF16; }

/* Hot operands and results are dealt out of the front of the pool, where the sample before has left its results. */
static void sample_stored(struct bench *b, enum stave_qtype t, const struct stored_size *s)
{
	enum stave_operand_kind kind = stave_operand_kind(t);
	size_t hot = 0, operand = stave_operand_bytes(kind, s->n, s->cols), y = (size_t)s->n * (size_t)s->rows * 4;
	struct stored p = {.b = b, .type = t, .n = s->n, .rows = s->rows, .cols = s->cols, .bytes = stave_packed_bytes(t, s->rows, s->cols),
	                   .scratch_bytes = (stave_panel_scratch(s->cols) + 63) / 64 * 64};
	char name[24];
	if (operand + y + p.scratch_bytes * (size_t)stave_threads() + 3 * 4096 > b->floor || 2 * p.bytes + 8192 > b->pool.size - b->floor)
		return;
	p.chain = s->n < MANY_ROWS ? chain_length(p.bytes) : 1;
	p.operand = rates_take(b, operand, true, &hot);
	p.y = rates_take(b, y, true, &hot);
	p.scratch = rates_take(b, p.scratch_bytes * (size_t)stave_threads(), true, &hot);
	rates_fill(b, operand);
	double t_s = rates_median_s(run_stored, &p, ANSWER_S) / p.chain;
	snprintf(name, sizeof name, "packed %s", stave_qtype_info(t).name);
	rates_record(b, name, STAVE_FORWARD, kind_dtype(kind), s->n, s->rows, s->cols, 2.0 * s->n * s->rows * (double)s->cols / t_s);
}

/* ---- attention ---- */

#define KEY_HEADS 8

struct paged {
	struct bench *b;
	enum stave_cache_type type;
	int n, past, G, D, chain;
	size_t page_bytes, scratch_bytes;
	const void **pages; /* (chain, KEY_HEADS, pages of one) */
	float *q, *o;
	void *scratch;
};

static int pages_each(const struct paged *p) { return (p->past + p->n + STAVE_PAGE - 1) / STAVE_PAGE; }

static void attend(const struct paged *p, int link, int task)
{
	int h = task % KEY_HEADS, from = task / KEY_HEADS * STAVE_PAGE, each = pages_each(p), row = KEY_HEADS * p->G * p->D;
	struct stave_paged_attn a = {.type = p->type, .n = p->n - from < STAVE_PAGE ? p->n - from : STAVE_PAGE, .past = p->past + from, .G = p->G, .D = p->D,
	                             .q = p->q + (size_t)from * (size_t)row + (size_t)(h * p->G * p->D), .ldq = (size_t)row, .ldo = (size_t)row,
	                             .o = p->o + (size_t)from * (size_t)row + (size_t)(h * p->G * p->D), .scale = 0.125f,
	                             .pages = p->pages + (link * KEY_HEADS + h) * each};
	stave_paged_attention(&a, (char *)p->scratch + p->scratch_bytes * (size_t)stave_thread_index());
}

static double run_paged(void *ctx)
{
	struct paged *p = ctx;
	int each = pages_each(p), tasks = (p->n + STAVE_PAGE - 1) / STAVE_PAGE * KEY_HEADS;
	size_t unused = 0;
	for (int i = 0; i < p->chain; i++) {
		const char *cache = rates_take(p->b, p->page_bytes * (size_t)(KEY_HEADS * each), false, &unused);
		for (int j = 0; j < KEY_HEADS * each; j++)
			p->pages[i * KEY_HEADS * each + j] = cache + (size_t)j * p->page_bytes;
	}
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		double start = thread_s();
		for (int i = 0; i < p->chain; i++) {
#pragma omp for schedule(static, 1) nowait /* neighbours see as much */
			for (int t = 0; t < tasks; t++)
				attend(p, i, tasks - 1 - t);
		}
		longest = thread_s() - start;
	}
	return longest;
}

static void sample_paged(struct bench *b, enum stave_cache_type type, const int size[4])
{
	struct paged p = {.b = b, .type = type, .n = size[0], .past = size[1], .G = size[2], .D = size[3], .page_bytes = stave_page_bytes(type, size[3]),
	                  .scratch_bytes = (stave_paged_scratch(size[2], size[3]) + 63) / 64 * 64};
	size_t hot = 0, cache = p.page_bytes * (size_t)(KEY_HEADS * pages_each(&p)), rows = (size_t)p.n * (size_t)(KEY_HEADS * p.G * p.D) * 4;
	p.chain = p.n == 1 ? chain_length(3 * cache) : 1;
	p.pages = calloc((size_t)(p.chain * KEY_HEADS * pages_each(&p)), sizeof *p.pages);
	if (p.pages && 2 * rows + p.scratch_bytes * (size_t)stave_threads() + 3 * 4096 <= b->floor && 2 * cache + 8192 <= b->pool.size - b->floor) {
		p.q = rates_take(b, rows, true, &hot);
		p.o = rates_take(b, rows, true, &hot);
		p.scratch = rates_take(b, p.scratch_bytes * (size_t)stave_threads(), true, &hot);
		rates_fill(b, rows);
		double s = rates_median_s(run_paged, &p, ANSWER_S) / p.chain, pairs = (double)p.n * p.past + (double)p.n * (p.n + 1) / 2;
		rates_record(b, "paged", STAVE_FORWARD, type == STAVE_CACHE_F32 ? STAVE_F32 : type == STAVE_CACHE_BF16 ? STAVE_BF16 : STAVE_I8, p.past + p.n,
		             p.n * p.G, p.D, 4.0 * p.D * pairs * KEY_HEADS * p.G / s);
	}
	free(p.pages);
}

/* ---- keys and values to their places ---- */

#define PLACE_D 64
struct place {
	struct bench *b;
	int n, G, each, chain; /* pages of a key head */
	size_t page_bytes;
	float *qkv; /* (n, KEY_HEADS (G + 2) D): queries, keys, values */
	char *pages;
};

/* One key head of 64 rows, as in model/: its queries and its key are rotated, key and value stored. */
static void place_rows(const struct place *p, int h, int from, int to)
{
	const size_t D = PLACE_D, row = (size_t)(KEY_HEADS * (p->G + 2)) * D;
	for (int r = from; r < to; r++) {
		float *q = p->qkv + (size_t)r * row, *k = q + (size_t)(KEY_HEADS * p->G + h) * D;
		const int32_t *pos = p->b->ids + RATES_IDS + r;
		p->b->k->rope(STAVE_F32, false, q + (size_t)(h * p->G) * D, D, pos, p->b->stat, 1, p->G, PLACE_D);
		p->b->k->rope(STAVE_F32, false, k, D, pos, p->b->stat, 1, 1, PLACE_D);
		stave_page_put(STAVE_CACHE_BF16, p->pages + (size_t)(h * p->each + r / STAVE_PAGE) * p->page_bytes, r % STAVE_PAGE, k, k + KEY_HEADS * D, PLACE_D);
	}
}

static double run_place(void *ctx)
{
	struct place *p = ctx;
	size_t unused = 0;
	if (p->n > 1) { /* a prompt's rows come from where the product left them, beyond the caches near the core */
		p->qkv = rates_take(p->b, (size_t)(p->n * KEY_HEADS * (p->G + 2) * PLACE_D) * 4, false, &unused);
		p->pages = rates_take(p->b, p->page_bytes * (size_t)(KEY_HEADS * p->each), false, &unused);
	}
	double longest = 0;
#pragma omp parallel if (p->n > 1) reduction(max : longest)
	{
		double start = thread_s();
		for (int i = 0; i < p->chain; i++) {
#pragma omp for schedule(static, 1) nowait
			for (int t = 0; t < p->each * KEY_HEADS; t++) {
				int from = t / KEY_HEADS * STAVE_PAGE;
				place_rows(p, t % KEY_HEADS, from, p->n - from < STAVE_PAGE ? p->n : from + STAVE_PAGE);
			}
		}
		longest = thread_s() - start;
	}
	return longest;
}

static void sample_place(struct bench *b, int n, int G)
{
	int columns = KEY_HEADS * (G + 2) * PLACE_D;
	struct place p = {.b = b, .n = n, .G = G, .each = (n + STAVE_PAGE - 1) / STAVE_PAGE, .chain = n == 1 ? ROW_CHAIN : 1,
	                  .page_bytes = stave_page_bytes(STAVE_CACHE_BF16, PLACE_D)};
	size_t hot = 0, values = (size_t)n * (size_t)columns * 4, pages = p.page_bytes * (size_t)(KEY_HEADS * p.each);
	if (values + pages + 8192 > b->floor || 2 * (values + pages) > b->pool.size - b->floor)
		return;
	p.qkv = rates_take(b, values, true, &hot);
	p.pages = rates_take(b, pages, true, &hot);
	rates_fill(b, values);
	double s = rates_median_s(run_place, &p, ANSWER_S / 2) / p.chain;
	rates_record(b, "place", STAVE_FORWARD, STAVE_F32, n, columns, 1, (double)n * columns * stave_cost_value_bytes("place", STAVE_FORWARD, STAVE_F32) / s);
}

/* ---- rows ---- */

struct rows {
	struct bench *b;
	enum stave_operand_kind kind;
	int n, C, chain;
	float *x, *y, *normed; /* normed: a row of each thread */
	void *operand;
};

static void enter_row(const struct rows *p, int r)
{
	float mean, rstd, *x = p->x + (size_t)r * (size_t)p->C, *row = p->normed + (size_t)stave_thread_index() * (size_t)p->C;
	p->b->k->add(x, p->y + (size_t)r * (size_t)p->C, (size_t)p->C);
	p->b->k->norm_fwd(STAVE_F32, true, row, &mean, &rstd, x, p->b->stat, NULL, 1e-5f, 1, p->C);
	stave_operand_make(p->kind, p->operand, row, 0, p->n, p->C, r, r + 1);
}

static void operand_row(const struct rows *p, int r)
{
	stave_operand_make(p->kind, p->operand, p->x + (size_t)r * (size_t)p->C, 0, p->n, p->C, r, r + 1);
}

/* Gate and up were computed by pieces of some columns, in the thread's own memory: each is read there and the product written. */
#define PIECE (8 * STAVE_PANEL)
static void activate_row(const struct rows *p, int r)
{
	for (int c = 0; c < p->C; c += PIECE)
		p->b->k->swiglu_fwd(STAVE_F32, p->x + (size_t)r * (size_t)p->C + c, p->y + (size_t)stave_thread_index() * 2 * PIECE, 1, PIECE);
}

struct rows_run {
	struct rows p;
	void (*row)(const struct rows *p, int r);
};

/* Of a prompt x and y were last met some products ago. */
static double run_rows(void *ctx)
{
	struct rows_run *x = ctx;
	size_t unused = 0, values = (size_t)x->p.n * (size_t)x->p.C * 4;
	if (x->p.n > 1) {
		x->p.x = rates_take(x->p.b, values, false, &unused);
		if (x->row != activate_row)
			x->p.y = rates_take(x->p.b, values, false, &unused);
	}
	int step = x->p.n > 64 ? 8 : 1;
	double longest = 0;
#pragma omp parallel if (x->p.n > 1) reduction(max : longest) /* a row is one thread's work */
	{
		double start = thread_s();
		for (int i = 0; i < x->p.chain; i++) {
#pragma omp for schedule(static, 1) nowait
			for (int from = 0; from < x->p.n; from += step)
				for (int r = from; r < from + step && r < x->p.n; r++)
					x->row(&x->p, r);
		}
		longest = thread_s() - start;
	}
	return longest;
}

static void sample_rows(struct bench *b, const char *class, void (*row)(const struct rows *p, int r), enum stave_operand_kind kind, int n, int C)
{
	struct rows_run x = {.p = {.b = b, .kind = kind, .n = n, .C = C, .chain = n == 1 ? ROW_CHAIN : 1}, .row = row};
	size_t hot = 0, values = (size_t)n * (size_t)C * 4, operand = stave_operand_bytes(kind, n, C), own = (size_t)stave_threads() * (size_t)C * 4;
	if (2 * values + operand + own + 4 * 4096 > b->floor || 4 * values > b->pool.size - b->floor)
		return;
	x.p.x = rates_take(b, values, true, &hot);
	x.p.y = rates_take(b, values > own ? values : own, true, &hot);
	x.p.normed = rates_take(b, own, true, &hot);
	x.p.operand = rates_take(b, operand, true, &hot);
	rates_fill(b, hot);
	double s = rates_median_s(run_rows, &x, ANSWER_S / 2) / x.p.chain;
	rates_record(b, class, STAVE_FORWARD, kind_dtype(kind), n, C, 1, (double)n * C * stave_cost_value_bytes(class, STAVE_FORWARD, kind_dtype(kind)) / s);
}

/* ---- all of it ---- */

void rates_answering(struct bench *b)
{
	static const int paged[][4] = {{1, 511, 1, 64}, {1, 511, 4, 64}, {1, 4095, 4, 64}, {1, 511, 8, 64}, {1, 1023, 4, 128}, {512, 0, 1, 64}, {512, 0, 4, 64}, {512, 3584, 4, 64}, {512, 0, 4, 128}};
	static const int rows[][2] = {{1, 1024}, {1, 4096}, {512, 1024}, {512, 4096}};
	rates_fill(b, b->pool.size);
	b->floor = b->pool.size / 4 < HOT_BYTES ? b->pool.size / 4 : HOT_BYTES;
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		for (size_t i = 0; i < sizeof stored_sizes / sizeof *stored_sizes; i++)
			if (!stored_sizes[i].common || common((enum stave_qtype)t))
				sample_stored(b, (enum stave_qtype)t, &stored_sizes[i]);
	for (int t = STAVE_CACHE_F32; t <= STAVE_CACHE_I8; t++)
		for (size_t i = 0; i < sizeof paged / sizeof *paged; i++)
			sample_paged(b, (enum stave_cache_type)t, paged[i]);
	rates_fill(b, b->pool.size);
	for (int i = 0; i < 4; i++)
		sample_place(b, i & 1 ? 512 : 1, i & 2 ? 4 : 1);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		for (int k = 0; k < STAVE_OPERAND_KINDS; k++) {
			sample_rows(b, "enter", enter_row, (enum stave_operand_kind)k, rows[i][0], rows[i][1]);
			sample_rows(b, "operand", operand_row, (enum stave_operand_kind)k, rows[i][0], rows[i][1]);
		}
		sample_rows(b, "activate", activate_row, STAVE_OPERAND_F32, rows[i][0], rows[i][1]);
	}
	b->floor = 0;
}
