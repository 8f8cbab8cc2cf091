/* checkkernels: every operation of the kernel table at every level against the reference, on random shapes.
 *
 *     test_kernels [--bench] [--level avx2] [--test norm] [--seed 7]
 *
 * An operation is described by its arrays (role, type, shape, range of values) and a call; the engine does the rest. Every
 * array ends at a page that may not be touched, so a read or write past a tail crashes, and lies at whatever alignment that
 * gives; gaps between rows and the page before are checked to be unchanged, as are all inputs.
 *
 * Truth for bf16 is the reference in float on the widened inputs: a result must then be within half a bf16 step of it,
 * which truncation or double rounding is not. The bound is tol times a magnitude, by default the true value, and where
 * terms cancel the sum of their absolute values.
 *
 * Attention, cross-entropy and gemv have tests of their own (test_attn, test_xent); the reference itself is tested by
 * test_reference. */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "kernel/arrays.h"
#include "kernel/kernel.h"

struct shape {
	enum stave_dtype dt;
	bool flag, opt; /* the operation's bool; whether optional arrays are given */
	int n, C, heads, D;
	size_t ld[2];
	double step; /* AdamW: which step */
};

struct spec {
	const char *name;
	int lo_n, hi_n; /* rows */
	double tol;
	bool inf; /* infinities are defined too, not only NaN */
	void (*arrays)(const struct shape *s, struct array *a);
	void (*call)(const struct stave_kernels *k, const struct shape *s, void **p, int n);
	void (*magnitude)(const struct shape *s, float **p, double **mag); /* NULL: the true values */
};

/* ---- checks ---- */

static int failures;
static char context[300];

__attribute__((format(printf, 1, 2))) static void fail(const char *fmt, ...)
{
	if (failures++ > 20)
		return;
	va_list ap;
	va_start(ap, fmt);
	printf("FAILED %s: ", context);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
}

/* The page after an array was touched: say by whom before dying of it. */
static void on_fault(int sig)
{
	static const char what[] = "CRASHED (past the end of an array?) in ";
	if (write(STDOUT_FILENO, what, sizeof what - 1) < 0 || write(STDOUT_FILENO, context, strlen(context)) < 0 ||
	    write(STDOUT_FILENO, "\n", 1) < 0)
		_exit(2);
	_exit(1);
}

/* Everything but the cells of outputs is as it was. */
static void check_untouched(const struct set *before, const struct set *after, const struct array *a, int n)
{
	for (int i = 0; i < MAX_ARRAYS; i++) {
		if (a[i].role == NONE)
			continue;
		const struct image *x = &before->image[i], *y = &after->image[i];
		size_t front = (size_t)(x->p - x->map), w = cell_bytes(a[i].kind, after->dt);
		if (memcmp(x->map, y->map, front))
			fail("%s: written before its start", a[i].name);
		if (a[i].role == IN && memcmp(x->p, y->p, x->bytes))
			fail("%s: an input was changed", a[i].name);
		for (size_t r = 0; r + 1 < rows_of(&a[i], n); r++) {
			size_t gap = (r * a[i].ld + a[i].cols) * w;
			if (memcmp(x->p + gap, y->p + gap, (a[i].ld - a[i].cols) * w)) {
				fail("%s: written between rows %zu and %zu", a[i].name, r, r + 1);
				break;
			}
		}
	}
}

static bool close_enough(double got, double want, double bound)
{
	if (isnan(want) || isnan(got))
		return isnan(want) && isnan(got);
	return got == want || fabs(got - want) <= bound;
}

static void check_close(const struct spec *op, const struct set *got, const struct set *want, const struct array *a, int n,
                        double **mag)
{
	for (int i = 0; i < MAX_ARRAYS; i++)
		for (size_t r = 0; a[i].role >= OUT && r < rows_of(&a[i], n); r++)
			for (size_t c = 0; c < a[i].cols; c++) {
				size_t at = r * a[i].ld + c;
				double g = cell(got, &a[i], i, at), w = cell(want, &a[i], i, at);
				double scale = mag[i] ? fmax(mag[i][r * a[i].cols + c], fabs(w)) : fabs(w);
				bool half = a[i].kind == ACT && got->dt == STAVE_BF16;
				/* half a bf16 step; and the bf16 instruction flushes what is below the normal range */
				double bound = op->tol * scale + (half ? 0x1p-8 * fabs(w) * (1 + op->tol) : 0) + 0x1p-126;
				if (!close_enough(g, w, bound)) {
					fail("%s[%zu, %zu] is %.9g, want %.9g within %.2g", a[i].name, r, c, g, w, bound);
					return;
				}
			}
}

static void check_same(const char *what, const struct set *x, int row, const struct set *y, const struct array *a, int n, bool rows_only)
{
	for (int i = 0; i < MAX_ARRAYS; i++)
		for (size_t r = 0; a[i].role >= OUT && (a[i].per_row || !rows_only) && r < rows_of(&a[i], n); r++) {
			size_t w = cell_bytes(a[i].kind, x->dt), xr = a[i].per_row ? r + row : r;
			if (memcmp((char *)x->p[i] + xr * a[i].ld * w, (char *)y->p[i] + r * a[i].ld * w, a[i].cols * w))
				fail("%s: row %zu of %s differs", what, xr, a[i].name);
		}
}

/* ---- the engine ---- */

/* Sizes that meet every tail: around whole vectors of 8 and 16, and anything. */
static int any_size(int max)
{
	static const int edges[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
	int n = below(2) ? edges[below((int)(sizeof edges / sizeof *edges))] : 1 + below(max);
	return n > max ? max : n;
}

static struct shape any_shape(const struct spec *op)
{
	struct shape s = {.dt = below(2) ? STAVE_F32 : STAVE_BF16, .flag = below(2), .opt = below(2)};
	s.n = op->lo_n + below(op->hi_n - op->lo_n + 1);
	if (op->hi_n > 100 && below(2))
		s.n = any_size(op->hi_n);
	s.C = any_size(300);
	s.heads = 1 + below(4);
	s.D = 2 * any_size(72);
	s.ld[0] = (size_t)below(2) * below(20);
	s.ld[1] = (size_t)below(2) * below(20);
	s.step = 1 + below(1000);
	return s;
}

/* A NaN, or where defined an infinity, somewhere in the inputs. */
static void poison(const struct spec *op, struct set *in, const struct array *a, int n)
{
	int i = below(MAX_ARRAYS);
	if (a[i].role == NONE || a[i].role == OUT || a[i].kind > REAL || !a[i].per_row)
		return;
	size_t at = (size_t)below(n) * a[i].ld + (size_t)below((int)a[i].cols);
	float bad = !op->inf || below(2) ? NAN : below(2) ? INFINITY : -INFINITY;
	stave_put(a[i].kind == ACT ? in->dt : STAVE_F32, in->p[i], at, bad);
}

static void check_once(const struct spec *op, const struct stave_kernels *k)
{
	struct shape s = any_shape(op), exact = s;
	struct array a[MAX_ARRAYS] = {0};
	op->arrays(&s, a);
	exact.dt = STAVE_F32;
	snprintf(context, sizeof context, "%s %s %s flag %d opt %d n %d C %d heads %d D %d", op->name, k->level,
	         stave_dtype_name(s.dt), s.flag, s.opt, s.n, s.C, s.heads, s.D);

	struct set in = set_new(a, s.n, s.dt);
	fill(&in, a, s.n);
	if (below(4) == 0)
		poison(op, &in, a, s.n);
	struct set got = set_copy(&in, a, 0, s.n, s.dt), again = set_copy(&in, a, 0, s.n, s.dt);
	struct set wide = set_copy(&in, a, 0, s.n, STAVE_F32), want = set_copy(&in, a, 0, s.n, STAVE_F32);
	op->call(k, &s, got.p, s.n);
	op->call(k, &s, again.p, s.n);
	op->call(stave_kernels_level("ref"), &exact, want.p, s.n);

	double *mag[MAX_ARRAYS] = {0};
	for (int i = 0; i < MAX_ARRAYS; i++)
		if (op->magnitude && a[i].role >= OUT)
			mag[i] = calloc(rows_of(&a[i], s.n) * a[i].cols, sizeof(double));
	if (op->magnitude)
		op->magnitude(&exact, (float **)wide.p, mag);
	check_untouched(&in, &got, a, s.n);
	check_close(op, &got, &want, a, s.n, mag);
	check_same("same call twice", &got, 0, &again, a, s.n, false);

	int row = below(s.n);
	struct set alone = set_copy(&in, a, row, 1, s.dt);
	op->call(k, &s, alone.p, 1);
	check_same("row alone", &got, row, &alone, a, 1, true);

	for (int i = 0; i < MAX_ARRAYS; i++)
		free(mag[i]);
	set_free(&in), set_free(&got), set_free(&again), set_free(&wide), set_free(&want), set_free(&alone);
}

/* ---- the operations ---- */

#define ROWS(role_, kind_, cols_, ld_, lo_, hi_, label) {label, role_, kind_, true, cols_, ld_, lo_, hi_}
#define ONCE(role_, kind_, cols_, lo_, hi_, label) {label, role_, kind_, false, cols_, cols_, lo_, hi_}
#define ARRAYS(...)                                                         \
	do {                                                                \
		const struct array list_[] = {__VA_ARGS__};                 \
		memcpy(a, list_, sizeof list_);                             \
	} while (0)
#define FLAT(role_, kind_, lo_, hi_, label) ROWS(role_, kind_, 1, 1, lo_, hi_, label)

static void arrays_norm_fwd(const struct shape *s, struct array *a)
{
	size_t C = (size_t)s->C;
	ARRAYS(ROWS(OUT, ACT, C, C, 0, 0, "y"), ROWS(s->flag ? NONE : OUT, REAL, 1, 1, 0, 0, "mean"), ROWS(OUT, REAL, 1, 1, 0, 0, "rstd"),
	       ROWS(IN, REAL, C, C, -3, 4, "x"), ONCE(IN, REAL, C, -1, 2, "gain"), ONCE(s->opt ? IN : NONE, REAL, C, -1, 1, "bias"));
}
static void call_norm_fwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->norm_fwd(s->dt, s->flag, p[0], p[1], p[2], p[3], p[4], p[5], 1e-5f, n, s->C);
}
/* x - mean cancels, most of all in rows of one or two. */
static void magnitude_norm_fwd(const struct shape *s, float **p, double **mag)
{
	for (int r = 0; r < s->n; r++) {
		const float *x = p[3] + (size_t)r * s->C;
		double mu = 0, abs = 0, var = 0;
		for (int c = 0; c < s->C; c++)
			abs += fabs(x[c]) / s->C, mu += s->flag ? 0 : x[c] / (double)s->C;
		for (int c = 0; c < s->C; c++)
			var += (x[c] - mu) * (x[c] - mu) / s->C;
		double rs = 1 / sqrt(var + 1e-5);
		for (int c = 0; c < s->C; c++)
			mag[0][(size_t)r * s->C + c] = (fabs(x[c]) + abs) * rs * fabs(p[4][c]) + (s->opt ? fabs(p[5][c]) : 0);
		if (mag[1])
			mag[1][r] = abs;
		mag[2][r] = rs;
	}
}

static void arrays_norm_bwd(const struct shape *s, struct array *a)
{
	size_t C = (size_t)s->C;
	ARRAYS(ROWS(INOUT, REAL, C, C, -1, 1, "dx"), ROWS(s->opt ? OUT : NONE, ACT, C, C, 0, 0, "dx_dt"), ONCE(INOUT, REAL, C, -1, 1, "dgain"),
	       ONCE(s->opt ? INOUT : NONE, REAL, C, -1, 1, "dbias"), ROWS(IN, ACT, C, C, -1, 1, "dy"), ROWS(IN, REAL, C, C, -3, 3, "x"),
	       ROWS(s->flag ? NONE : IN, REAL, 1, 1, -0.5, 0.5, "mean"), ROWS(IN, REAL, 1, 1, 0.1, 2, "rstd"), ONCE(IN, REAL, C, -1, 2, "gain"));
}
static void call_norm_bwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->norm_bwd(s->dt, s->flag, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], n, s->C);
}
static void magnitude_norm_bwd(const struct shape *s, float **p, double **mag)
{
	for (int c = 0; c < s->C; c++) {
		mag[2][c] = fabs(p[2][c]);
		if (mag[3])
			mag[3][c] = fabs(p[3][c]);
	}
	for (int r = 0; r < s->n; r++) {
		double mu = s->flag ? 0 : p[6][r], rs = p[7][r], a = 0, ax = 0;
		for (int c = 0; c < s->C; c++) {
			size_t at = (size_t)r * s->C + c;
			double d = fabs(p[4][at]), xhat = (fabs(p[5][at]) + fabs(mu)) * rs;
			a += d * fabs(p[8][c]) / s->C;
			ax += d * fabs(p[8][c]) * xhat / s->C;
			mag[2][c] += d * xhat;
			if (mag[3])
				mag[3][c] += d;
		}
		for (int c = 0; c < s->C; c++) {
			size_t at = (size_t)r * s->C + c;
			double xhat = (fabs(p[5][at]) + fabs(mu)) * rs;
			mag[0][at] = fabs(p[0][at]) + rs * (fabs(p[4][at] * p[8][c]) + a + xhat * ax);
			if (mag[1])
				mag[1][at] = mag[0][at];
		}
	}
}

static void arrays_headnorm_fwd(const struct shape *s, struct array *a)
{
	size_t w = (size_t)s->heads * s->D, D = (size_t)s->D;
	ARRAYS(ROWS(OUT, ACT, w, w + s->ld[0], 0, 0, "y"), ROWS(OUT, REAL, (size_t)s->heads, (size_t)s->heads, 0, 0, "rstd"),
	       ROWS(IN, ACT, w, w + s->ld[1], -2, 2, "x"), ONCE(IN, REAL, D, -1, 2, "gain"));
}
static void call_headnorm_fwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	size_t w = (size_t)s->heads * s->D;
	k->headnorm_fwd(s->dt, p[0], w + s->ld[0], p[1], p[2], w + s->ld[1], p[3], 1e-6f, n, s->heads, s->D);
}

static void arrays_headnorm_bwd(const struct shape *s, struct array *a)
{
	size_t w = (size_t)s->heads * s->D, D = (size_t)s->D;
	ARRAYS(ROWS(INOUT, REAL, w, w + s->ld[0], -1, 1, "dy"), ONCE(INOUT, REAL, D, -1, 1, "dgain"), ROWS(IN, ACT, w, w + s->ld[1], -2, 2, "x"),
	       ROWS(IN, REAL, (size_t)s->heads, (size_t)s->heads, 0.2, 2, "rstd"), ONCE(IN, REAL, D, -1, 2, "gain"));
}
static void call_headnorm_bwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	size_t w = (size_t)s->heads * s->D;
	k->headnorm_bwd(p[0], w + s->ld[0], p[1], p[2], s->dt, w + s->ld[1], p[3], p[4], n, s->heads, s->D);
}
static void magnitude_headnorm_bwd(const struct shape *s, float **p, double **mag)
{
	size_t D = (size_t)s->D, w = s->heads * D;
	for (size_t d = 0; d < D; d++)
		mag[1][d] = fabs(p[1][d]);
	for (int r = 0; r < s->n; r++)
		for (int h = 0; h < s->heads; h++) {
			const float *g = p[0] + r * (w + s->ld[0]) + h * D, *x = p[2] + r * (w + s->ld[1]) + h * D;
			double rs = p[3][(size_t)r * s->heads + h], sum = 0;
			for (size_t d = 0; d < D; d++) {
				sum += fabs(g[d] * p[4][d] * x[d] * rs) / D;
				mag[1][d] += fabs(g[d] * x[d] * rs);
			}
			for (size_t d = 0; d < D; d++)
				mag[0][r * w + h * D + d] = rs * (fabs(g[d] * p[4][d]) + fabs(x[d]) * rs * sum);
		}
}

static void arrays_rope(const struct shape *s, struct array *a)
{
	size_t w = (size_t)s->heads * s->D;
	ARRAYS(ROWS(INOUT, ACT, w, w + s->ld[0], -2, 2, "x"), ROWS(IN, INDEX, 1, 1, 0, 9, "pos"), ONCE(IN, REAL, 9 * (size_t)s->D, -1, 1, "table"));
}
static void call_rope(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->rope(s->dt, s->flag, p[0], (size_t)s->heads * s->D + s->ld[0], p[1], p[2], n, s->heads, s->D);
}
static void magnitude_rope(const struct shape *s, float **p, double **mag)
{
	size_t w = (size_t)s->heads * s->D;
	for (size_t r = 0; r < (size_t)s->n; r++)
		for (size_t c = 0; c < w; c++) {
			const float *head = p[0] + r * (w + s->ld[0]) + c / s->D * s->D;
			size_t i = c % (s->D / 2);
			mag[0][r * w + c] = fabs(head[i]) + fabs(head[i + s->D / 2]); /* sines and cosines are at most 1 */
		}
}

static void arrays_gelu_fwd(const struct shape *s, struct array *a)
{
	double far = s->opt ? 6 : 40;
	ARRAYS(FLAT(OUT, ACT, 0, 0, "y"), FLAT(IN, ACT, -far, far, "x"));
}
static void call_gelu_fwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->gelu_fwd(s->dt, s->flag, p[0], p[1], (size_t)n);
}
/* Phi's own error is what counts, |x| e-7 at worst; the exponent's rounding, x^2 e-7, shows in the left tail.
 * The reference's 1 + tanh has its own noise there, 1e-16. */
static void magnitude_gelu_fwd(const struct shape *s, float **p, double **mag)
{
	for (int i = 0; i < s->n; i++)
		mag[0][i] = fabs(p[1][i]) * 0.5 * erfc(-p[1][i] * M_SQRT1_2) * (2 + 2 * p[1][i] * p[1][i]) + 1e-8;
}

static void arrays_gelu_bwd(const struct shape *s, struct array *a)
{
	double far = s->opt ? 6 : 40;
	ARRAYS(FLAT(OUT, ACT, 0, 0, "dx"), FLAT(IN, ACT, -1, 1, "dy"), FLAT(IN, ACT, -far, far, "x"));
}
static void call_gelu_bwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->gelu_bwd(s->dt, s->flag, p[0], p[1], p[2], (size_t)n);
}
/* In the tanh form u near 4 is rounded to 1e-7 of itself, and the slope feels that in full. */
static void magnitude_gelu_bwd(const struct shape *s, float **p, double **mag)
{
	for (int i = 0; i < s->n; i++)
		mag[0][i] = fabs(p[1][i]) * (s->flag ? 0.3 : 1);
}

static void arrays_swiglu_fwd(const struct shape *s, struct array *a)
{
	size_t I = (size_t)s->C;
	double far = s->opt ? 4 : 80;
	ARRAYS(ROWS(OUT, ACT, I, I, 0, 0, "y"), ROWS(IN, ACT, 2 * I, 2 * I, -far, far, "gu"));
}
static void call_swiglu_fwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->swiglu_fwd(s->dt, p[0], p[1], n, s->C);
}

static void arrays_swiglu_bwd(const struct shape *s, struct array *a)
{
	size_t I = (size_t)s->C;
	double far = s->opt ? 4 : 80;
	ARRAYS(ROWS(OUT, ACT, 2 * I, 2 * I, 0, 0, "dgu"), ROWS(IN, ACT, I, I, -1, 1, "dy"), ROWS(IN, ACT, 2 * I, 2 * I, -far, far, "gu"));
}
static void call_swiglu_bwd(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->swiglu_bwd(s->dt, p[0], p[1], p[2], n, s->C);
}
static void magnitude_swiglu_bwd(const struct shape *s, float **p, double **mag)
{
	for (int r = 0; r < s->n; r++)
		for (int c = 0; c < s->C; c++) {
			size_t at = (size_t)r * 2 * s->C + c;
			mag[0][at] = fabs(p[1][(size_t)r * s->C + c] * p[2][at + s->C]); /* 1 + g (1 - s) passes through 0 */
		}
}

static void arrays_embed(const struct shape *s, struct array *a)
{
	size_t C = (size_t)s->C;
	ARRAYS(ROWS(OUT, REAL, C, C, 0, 0, "out"), ROWS(IN, INDEX, 1, 1, 0, 5, "ids"), ROWS(IN, INDEX, 1, 1, 0, 3, "pos"),
	       ONCE(IN, REAL, 5 * C, -1, 1, "wte"), ONCE(s->opt ? IN : NONE, REAL, 3 * C, -1, 1, "wpe"));
}
static void call_embed(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->embed_fwd(p[0], p[1], p[2], p[3], p[4], n, s->C);
}

static void arrays_bias_add(const struct shape *s, struct array *a)
{
	size_t C = (size_t)s->C;
	ARRAYS(ROWS(INOUT, ACT, C, C, -1, 1, "x"), ONCE(IN, REAL, C, -1, 1, "bias"));
}
static void call_bias_add(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->bias_add(s->dt, p[0], p[1], n, s->C);
}

static void arrays_colsum(const struct shape *s, struct array *a)
{
	size_t C = (size_t)s->C;
	ARRAYS(ONCE(INOUT, REAL, C, -1, 1, "db"), ROWS(IN, ACT, C, C + s->ld[0], -1, 1, "dy"));
}
static void call_colsum(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->colsum(s->dt, p[0], p[1], (size_t)s->C + s->ld[0], n, s->C);
}
static void magnitude_colsum(const struct shape *s, float **p, double **mag)
{
	for (int c = 0; c < s->C; c++) {
		mag[0][c] = fabs(p[0][c]);
		for (int r = 0; r < s->n; r++)
			mag[0][c] += fabs(p[1][r * (s->C + s->ld[0]) + c]);
	}
}

static void arrays_add(const struct shape *s, struct array *a)
{
	ARRAYS(FLAT(INOUT, REAL, -1, 1, "y"), FLAT(IN, REAL, -1, 1, "x"));
}
static void call_add(const struct stave_kernels *k, const struct shape *s, void **p, int n) { k->add(p[0], p[1], (size_t)n); }

static void arrays_scale(const struct shape *s, struct array *a)
{
	ARRAYS(FLAT(INOUT, REAL, -1, 1, "y"));
}
static void call_scale(const struct stave_kernels *k, const struct shape *s, void **p, int n) { k->scale(p[0], 0.37f, (size_t)n); }

static void arrays_to_bf16(const struct shape *s, struct array *a)
{
	ARRAYS(FLAT(OUT, ACT, 0, 0, "y"), FLAT(IN, REAL, -1, 1, "x"));
}
static void call_to_bf16(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	if (s->dt == STAVE_BF16)
		k->to_bf16(p[0], p[1], (size_t)n);
	else
		memcpy(p[0], p[1], (size_t)n * 4); /* the truth before rounding */
}
static void arrays_from_bf16(const struct shape *s, struct array *a)
{
	ARRAYS(FLAT(OUT, REAL, 0, 0, "y"), FLAT(IN, ACT, -1, 1, "x"));
}
static void call_from_bf16(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	if (s->dt == STAVE_BF16)
		k->from_bf16(p[0], p[1], (size_t)n);
	else
		memcpy(p[0], p[1], (size_t)n * 4);
}

static void arrays_adamw(const struct shape *s, struct array *a)
{
	ARRAYS(FLAT(INOUT, REAL, -1, 1, "p"), FLAT(s->dt == STAVE_BF16 || s->opt ? OUT : NONE, ACT, 0, 0, "w16"), FLAT(INOUT, REAL, -0.1, 0.1, "m"),
	       FLAT(INOUT, REAL, 0, 0.01, "v"), FLAT(IN, REAL, -1, 1, "g"));
}
/* The copy of the weights is always bf16; the float run, which gives the truth, copies the weights by itself. */
static void call_adamw(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	k->adamw(p[0], s->dt == STAVE_BF16 ? p[1] : NULL, p[2], p[3], p[4], (size_t)n, 0.5f, 1e-2, 0.9, 0.999, 1e-8, 0.1,
	         1 - pow(0.9, s->step), 1 - pow(0.999, s->step));
	if (s->dt == STAVE_F32 && p[1])
		memcpy(p[1], p[0], (size_t)n * 4);
}
static void magnitude_adamw(const struct shape *s, float **p, double **mag)
{
	for (int i = 0; i < s->n; i++) {
		double g = 0.5 * p[4][i], m = fabs(p[2][i]) + fabs(0.2 * g), v = 0.999 * p[3][i] + 0.001 * g * g;
		double step = m / (1 - pow(0.9, s->step)) / (sqrt(v / (1 - pow(0.999, s->step))) + 1e-8);
		mag[0][i] = fabs(p[0][i]) + 1e-2 * step;
		if (mag[1])
			mag[1][i] = mag[0][i];
		mag[2][i] = m;
		mag[3][i] = p[3][i] + g * g * 0.001;
	}
}

static void arrays_sumsq(const struct shape *s, struct array *a)
{
	ARRAYS(ONCE(OUT, WIDE, 1, 0, 0, "sum"), FLAT(IN, REAL, -100, 100, "x"));
}
static void call_sumsq(const struct stave_kernels *k, const struct shape *s, void **p, int n)
{
	*(double *)p[0] = k->sumsq(p[1], (size_t)n);
}

#define OP(name, lo, hi, tol, inf, mag) {#name, lo, hi, tol, inf, arrays_##name, call_##name, mag}
static const struct spec ops[] = {
	OP(to_bf16, 1, 300, 0, true, NULL),
	OP(from_bf16, 1, 300, 0, true, NULL),
	OP(norm_fwd, 1, 9, 2e-6, true, magnitude_norm_fwd),
	OP(norm_bwd, 1, 13, 2e-6, false, magnitude_norm_bwd),
	OP(headnorm_fwd, 1, 5, 2e-6, false, NULL),
	OP(headnorm_bwd, 1, 5, 2e-6, false, magnitude_headnorm_bwd),
	OP(rope, 1, 5, 4e-7, false, magnitude_rope),
	OP(gelu_fwd, 1, 300, 4e-7, true, magnitude_gelu_fwd),
	OP(gelu_bwd, 1, 300, 2e-6, false, magnitude_gelu_bwd),
	OP(swiglu_fwd, 1, 5, 1e-6, true, NULL),
	OP(swiglu_bwd, 1, 5, 1e-6, false, magnitude_swiglu_bwd),
	OP(embed, 1, 9, 1e-7, true, NULL),
	OP(bias_add, 1, 9, 1.2e-7, true, NULL),
	OP(colsum, 1, 40, 1e-6, false, magnitude_colsum),
	OP(add, 1, 300, 1.2e-7, true, NULL),
	OP(scale, 1, 300, 1.2e-7, true, NULL),
	OP(adamw, 1, 300, 1e-6, false, magnitude_adamw),
	OP(sumsq, 1, 300, 1e-14, true, NULL),
};
enum { OPS = sizeof ops / sizeof *ops };

/* Every bf16 pattern widens, and many float patterns round, to the bits the scalar definition gives. */
static void check_bits(const struct stave_kernels *k)
{
	enum { N = 1 << 16 };
	uint16_t *half = malloc(N * 2);
	float *wide = malloc(N * 4);
	bool flushes = !strcmp(k->level, "avx512bf16"); /* its instruction takes subnormals as zero */
	snprintf(context, sizeof context, "conversions %s", k->level);
	for (int i = 0; i < N; i++)
		half[i] = (uint16_t)i;
	k->from_bf16(wide, half, N);
	for (int i = 0; i < N; i++) {
		uint32_t u, want = (uint32_t)i << 16;
		memcpy(&u, &wide[i], 4);
		if (u != want)
			fail("bf16 %04x widens to %08x", i, u);
	}
	for (int i = 0; i < N; i++) {
		uint32_t u = (uint32_t)stave_random64(seed, drawn++);
		if (i % 4 == 0)
			u = (u & 0xffff0000u) | 0x8000; /* ties */
		memcpy(&wide[i], &u, 4);
	}
	k->to_bf16(half, wide, N);
	for (int i = 0; i < N; i++) {
		uint16_t want = stave_f32_to_bf16(wide[i]);
		if (flushes && fabsf(wide[i]) < 0x1p-126f)
			want &= 0x8000;
		if (half[i] != want)
			fail("%a narrows to %04x, want %04x", wide[i], half[i], want);
	}
	free(half);
	free(wide);
}

/* ---- bench ---- */

/* Best of the calls that fit the budget. Each starts from the same values: an operation in place, called on its own results,
 * soon works on subnormals or infinities, which are slow. */
static double seconds_per_call(const struct spec *op, const struct stave_kernels *k, const struct shape *s, const struct set *in,
                               const struct array *a, double budget)
{
	struct set work = set_copy(in, a, 0, s->n, in->dt);
	double best = 1e9, end = stave_now_s() + budget;
	do {
		for (int i = 0; i < MAX_ARRAYS; i++)
			if (a[i].role == INOUT)
				memcpy(work.p[i], in->p[i], in->image[i].bytes);
		double t = stave_now_s();
		op->call(k, s, work.p, s->n);
		t = stave_now_s() - t;
		best = t < best ? t : best;
	} while (stave_now_s() < end);
	set_free(&work);
	return best;
}

/* Shapes of a small transformer layer; the arrays together pass the caches nearest the core. */
static void bench(const struct spec *op, const struct stave_kernels *k, enum stave_dtype dt, bool flag)
{
	struct shape s = {.dt = dt, .flag = flag, .opt = true, .n = op->hi_n > 100 ? 1 << 20 : 1024, .C = 768, .heads = 12, .D = 64, .step = 10};
	struct array a[MAX_ARRAYS] = {0};
	op->arrays(&s, a);
	struct set in = set_new(a, s.n, dt);
	fill(&in, a, s.n);
	double bytes = 0, values = 0;
	for (int i = 0; i < MAX_ARRAYS; i++)
		if (a[i].role != NONE) {
			double cells = (double)rows_of(&a[i], s.n) * (double)a[i].cols;
			bytes += cells * (double)cell_bytes(a[i].kind, dt) * (a[i].role == INOUT ? 2 : 1);
			values = cells > values ? cells : values;
		}
	double ref = seconds_per_call(op, stave_kernels_level("ref"), &s, &in, a, 0.05);
	double t = seconds_per_call(op, k, &s, &in, a, 0.1);
	printf("%-13s %-4s %d  %-11s %8.1f us %7.3f ns/value %7.1f GB/s %7.1f x ref\n", op->name, stave_dtype_name(dt), flag, k->level,
	       t * 1e6, t * 1e9 / values, bytes / t / 1e9, ref / t);
	set_free(&in);
}

/* ---- main ---- */

static bool type_matters(const struct spec *op)
{
	return !strstr(" to_bf16 from_bf16 embed add scale sumsq ", op->name);
}
static bool flag_matters(const struct spec *op) { return strstr(op->name, "gelu") || strstr(op->name, "norm_") == op->name; }

static void run_level(const struct stave_kernels *k, const char *only, bool benching, int rounds, int *checks)
{
	for (int o = 0; o < OPS; o++) {
		if (only && !strstr(ops[o].name, only))
			continue;
		for (int i = 0; benching && i < 4; i++)
			if ((i % 2 || type_matters(&ops[o])) && (i < 2 || flag_matters(&ops[o])))
				bench(&ops[o], k, i % 2 ? STAVE_BF16 : STAVE_F32, i / 2);
		for (int i = 0; !benching && i < rounds; i++, ++*checks)
			check_once(&ops[o], k);
	}
	if (!benching && (!only || strstr("to_bf16 from_bf16", only)))
		check_bits(k);
}

int main(int argc, char **argv)
{
	const char *only = NULL, *level = NULL;
	bool benching = false;
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--bench"))
			benching = true;
		else if (!strcmp(argv[i], "--level") && i + 1 < argc)
			level = argv[++i];
		else if (!strcmp(argv[i], "--test") && i + 1 < argc)
			only = argv[++i];
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoull(argv[++i], NULL, 10);
		else {
			fprintf(stderr, "usage: test_kernels [--bench] [--level ref|avx2|avx512|avx512bf16] [--test NAME] [--seed N]\n");
			return 2;
		}
	signal(SIGSEGV, on_fault);
	int checks = 0, levels = 0;
	for (int l = 0; stave_levels[l]; l++) {
		const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
		if (level && strcmp(level, stave_levels[l]))
			continue;
		if (!k) {
			printf("skipped %s: this CPU has not got it\n", stave_levels[l]);
			continue;
		}
		levels++;
		run_level(k, only, benching, 150, &checks);
	}
	if (!benching && !checks && levels) {
		fprintf(stderr, "no operation is called %s\n", only);
		return 2;
	}
	if (!benching)
		printf("%s: %d checks of %d operations on %d levels, seed %llu (the process runs %s): %d failed\n", failures ? "FAILED" : "PASSED",
		       checks, OPS, levels, (unsigned long long)seed, stave_kernels()->level, failures);
	return failures || !levels ? 1 : 0;
}
