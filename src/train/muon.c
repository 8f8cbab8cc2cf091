/* Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, then the nearest orthogonal matrix instead of a
 * division by a second moment. The orthogonalization is five quintic Newton-Schulz steps, which push every singular value
 * towards 1 (into 0.7 .. 1.2; that is enough, and cheaper than convergence):
 *
 *   X <- X / (|X|_F + 1e-7);   five times:  A = X Xᵀ;  X <- a X + (b A + c A A) X
 *
 * A tall X is not transposed: A = Xᵀ X and X <- a X + X (b A + c A A) is the same iteration. The unit is a Hugging Face
 * tensor, so q, k and v, or gate and up, are orthogonalized each for itself though they lie in one block of memory.
 * The update is scaled by sqrt(max(1, rows/cols)), so that its size does not depend on the shape. */
#include <math.h>
#include <string.h>

#include "kernel/kernel.h"
#include "kernel/matmul.h"
#include "train/optimizer.h"

#define NS_A 3.4445f
#define NS_B (-4.7750f)
#define NS_C 2.0315f
#define NS_STEPS 5
#define BLOCK 65536 /* floats a thread takes at once */

static int shorter(int rows, int cols) { return rows < cols ? rows : cols; }

static struct muon_shape *find(struct muon *m, int rows, int cols)
{
	for (int i = 0; i < m->n_shapes; i++)
		if (m->shapes[i].rows == rows && m->shapes[i].cols == cols)
			return &m->shapes[i];
	return NULL;
}

static int open_shape(struct muon_shape *s, int rows, int cols, size_t *scratch, struct stave_err *err)
{
	bool tall = rows > cols;
	int r = shorter(rows, cols), long_side = tall ? rows : cols, rc;
	struct stave_matmul_desc gram = {.m = r, .n = r, .k = long_side, .a_transposed = tall, .b_transposed = !tall};
	struct stave_matmul_desc square = {.m = r, .n = r, .k = r};
	struct stave_matmul_desc apply = {.m = rows, .n = cols, .k = r};
	size_t need[3];
	*s = (struct muon_shape){.rows = rows, .cols = cols};
	if ((rc = stave_matmul_open(&s->gram, &gram, &need[0], err)) || (rc = stave_matmul_open(&s->square, &square, &need[1], err)) ||
	    (rc = stave_matmul_open(&s->apply, &apply, &need[2], err)))
		return rc;
	for (int i = 0; i < 3; i++)
		if (need[i] > *scratch)
			*scratch = need[i];
	return 0;
}

int muon_open(struct muon *m, const struct stave_layout *l, struct stave_arena *arena, struct stave_err *err)
{
	size_t whole = 0, square = 0, scratch = 0;
	*m = (struct muon){0};
	for (int i = 0; i < l->n_params; i++) {
		const struct stave_param *p = &l->params[i];
		if (!p->hidden || find(m, p->rows, p->cols))
			continue;
		if (m->n_shapes == MUON_SHAPES_MAX)
			return stave_err_set(err, STAVE_ECONFIG, "muon: more than %d different matrix shapes in a model", MUON_SHAPES_MAX);
		size_t n = (size_t)p->rows * (size_t)p->cols, r = (size_t)shorter(p->rows, p->cols);
		whole = n > whole ? n : whole;
		square = r * r > square ? r * r : square;
		int rc = open_shape(&m->shapes[m->n_shapes++], p->rows, p->cols, &scratch, err);
		if (rc)
			return rc;
	}
	m->x[0] = stave_arena_take(arena, whole * sizeof(float));
	m->x[1] = stave_arena_take(arena, whole * sizeof(float));
	m->a = stave_arena_take(arena, square * sizeof(float));
	m->b = stave_arena_take(arena, square * sizeof(float));
	m->scratch = stave_arena_take(arena, scratch);
	m->partial = stave_arena_take(arena, (whole / BLOCK + 1) * sizeof(double));
	return 0;
}

void muon_close(struct muon *m)
{
	for (int i = 0; i < m->n_shapes; i++) {
		stave_matmul_close(m->shapes[i].gram);
		stave_matmul_close(m->shapes[i].square);
		stave_matmul_close(m->shapes[i].apply);
	}
	m->n_shapes = 0;
}

/* y = alpha x + beta y over n floats */
static void mix(float *y, const float *x, size_t n, float alpha, float beta)
{
#pragma omp parallel for schedule(static)
	for (size_t at = 0; at < n; at += BLOCK)
		for (size_t i = at; i < n && i < at + BLOCK; i++)
			y[i] = alpha * x[i] + beta * y[i];
}

static double norm(struct muon *m, const float *x, size_t n)
{
	size_t blocks = (n + BLOCK - 1) / BLOCK;
	double sum = 0;
#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < blocks; i++)
		m->partial[i] = stave_kernels()->sumsq(x + i * BLOCK, n - i * BLOCK < BLOCK ? n - i * BLOCK : BLOCK);
	for (size_t i = 0; i < blocks; i++)
		sum += m->partial[i];
	return sqrt(sum);
}

/* Five steps move the result between the two buffers and end in the second. */
static float *iterate(struct muon *m, const struct muon_shape *s)
{
	size_t n = (size_t)s->rows * (size_t)s->cols, r = (size_t)shorter(s->rows, s->cols);
	bool tall = s->rows > s->cols;
	float *x = m->x[0], *next = m->x[1];
	for (int i = 0; i < NS_STEPS; i++) {
		stave_matmul_run(s->gram, x, x, m->a, NULL, m->scratch);
		stave_matmul_run(s->square, m->a, m->a, m->b, NULL, m->scratch);
		mix(m->b, m->a, r * r, NS_B, NS_C);
		stave_matmul_run(s->apply, tall ? x : m->b, tall ? m->b : x, next, NULL, m->scratch);
		mix(next, x, n, NS_A, 1);
		float *t = x;
		x = next;
		next = t;
	}
	return x;
}

/* The matrix waits in the first buffer, not yet normed. */
static const float *orthogonal(struct muon *m, int rows, int cols)
{
	size_t n = (size_t)rows * (size_t)cols;
	float shrink = (float)(1 / (norm(m, m->x[0], n) + 1e-7));
	mix(m->x[0], m->x[0], n, shrink, 0);
	return iterate(m, find(m, rows, cols));
}

void muon_orthogonalize(struct muon *m, float *x, int rows, int cols)
{
	size_t bytes = (size_t)rows * (size_t)cols * sizeof *x;
	memcpy(m->x[0], x, bytes);
	memcpy(x, orthogonal(m, rows, cols), bytes);
}

void muon_step(struct muon *m, const struct stave_param *at, float *p, uint16_t *w16, float *mom, const float *g,
               const struct optimizer_rates *r)
{
	size_t n = (size_t)at->rows * (size_t)at->cols;
	float mu = (float)r->muon_momentum, scale = (float)r->g_scale, *x = m->x[0];
	/* Nesterov: the momentum first takes the gradient, then looks one step ahead */
#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < n; i++) {
		mom[i] = mu * mom[i] + scale * g[i];
		x[i] = mu * mom[i] + scale * g[i];
	}
	const float *update = orthogonal(m, at->rows, at->cols);
	double tall = (double)at->rows / at->cols;
	mix(p, update, n, (float)(-r->muon_lr * sqrt(tall > 1 ? tall : 1)), (float)(1 - r->muon_lr * r->weight_decay));
#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < n; i += BLOCK)
		if (w16)
			stave_kernels()->to_bf16(w16 + i, p + i, n - i < BLOCK ? n - i : BLOCK);
}
