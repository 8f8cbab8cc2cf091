/* AdamW against torch.optim.AdamW, Muon against its scalar recurrence on matrices of known singular values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "kernel/dtype.h"
#include "base/sys.h"
#include "train/optimizer.h"
#include "train/near.h"
#include "train/train.h"

/* A layout by hand: the optimizers see only the list of parameters. */
struct fixture {
	struct stave_param params[8];
	struct stave_layout l;
	struct stave_arena arena;
	struct optimizer o;
};

static void param(struct fixture *f, const char *name, int rows, int cols, bool hidden)
{
	struct stave_param *p = &f->params[f->l.n_params++];
	*p = (struct stave_param){.offset = f->l.n, .rows = rows, .cols = cols, .vector = rows == 1, .decay = rows > 1, .hidden = hidden};
	snprintf(p->name, sizeof p->name, "%s", name);
	f->l.n += ((int64_t)rows * cols + 15) / 16 * 16;
	f->l.params = f->params;
}

static void make(struct fixture *f, int kind)
{
	struct stave_arena plan = stave_arena_plan("moments");
	struct stave_err err = {0};
	assert_int_equal(optimizer_open(&f->o, &f->l, kind, &plan, &err), 0);
	optimizer_close(&f->o);
	assert_int_equal(stave_arena_open(&f->arena, "moments", plan.used, &err), 0);
	assert_int_equal(optimizer_open(&f->o, &f->l, kind, &f->arena, &err), 0);
	assert_int_equal(f->arena.used, plan.used);
}

static void drop(struct fixture *f)
{
	optimizer_close(&f->o);
	stave_arena_close(&f->arena);
}

/* Made with torch 1.13: matrix (2, 3) with decay 0.1, vector (2) without, lr 1e-2, betas 0.9 and 0.95, four steps. */
static const double torch_matrix[4][6] = {
	{0.489500016, -0.239749998, 1.4885, 2.00800014, -1.00900006, 0.114974014},
	{0.479430646, -0.229930401, 1.47743165, 2.01557207, -1.01757097, 0.105338939},
	{0.483253002, -0.234002247, 1.48025608, 2.00925469, -1.01225162, 0.109527543},
	{0.483763367, -0.234761864, 1.47976947, 2.00625205, -1.0102458, 0.110409692},
};
static const double torch_vector[4][2] = {
	{0.090000011, -0.189999998}, {0.0804201588, -0.180420145}, {0.0717179105, -0.171717897}, {0.0633840114, -0.163384005}};

static void adamw_is_torchs(void **state)
{
	struct fixture f = {0};
	param(&f, "w", 2, 3, true);
	param(&f, "b", 1, 2, false);
	make(&f, STAVE_ADAMW);
	float p[32] = {0.5f, -0.25f, 1.5f, 2, -1, 0.125f}, g[32] = {0};
	const float base[6] = {0.1f, -0.2f, 0.3f, -0.4f, 0.5f, 1e-6f}, vector[2] = {0.01f, -3};
	uint16_t w16[32];
	p[16] = 0.1f;
	p[17] = -0.2f;
	for (int t = 0; t < 4; t++) {
		for (int i = 0; i < 6; i++)
			g[i] = base[i] * (float)(t + 1) * (t == 2 ? -3.0f : 1.0f) * 8;
		for (int i = 0; i < 2; i++)
			g[16 + i] = vector[i] * (float)(1 + t * t) * 8;
		struct optimizer_rates r = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .g_scale = 0.125, .t = t + 1};
		optimizer_step(&f.o, p, w16, g, &r);
		for (int i = 0; i < 6; i++) {
			assert_near(p[i], torch_matrix[t][i], fabs(torch_matrix[t][i]) * 1e-5 + 1e-6);
			assert_int_equal(w16[i], stave_f32_to_bf16(p[i]));
		}
		for (int i = 0; i < 2; i++)
			assert_near(p[16 + i], torch_vector[t][i], fabs(torch_vector[t][i]) * 1e-5 + 1e-6);
		for (int i = 18; i < 32; i++) /* padding belongs to nobody */
			assert_near(p[i], 0, 0);
	}
	drop(&f);
}

/* Column j of an orthonormal basis of R^n (DCT-II). */
static double basis(int n, int j, int i) { return sqrt((j ? 2.0 : 1.0) / n) * cos(M_PI * (i + 0.5) * j / n); }

/* Singular values go through p(x) = a x + b x^3 + c x^5 five times each; the values were computed apart from this program. */
static const double before[7] = {0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0};
static const double after[6] = {0.470544, 0.698917, 0.758120, 0.712120, 1.079592, 0.765439};

static void check_orthogonalize(int rows, int cols)
{
	struct fixture f = {0};
	param(&f, "w", rows, cols, true);
	make(&f, STAVE_MUON);
	float *x = calloc((size_t)rows * (size_t)cols, sizeof *x);
	double squares = 0, s[7];
	for (int k = 0; k < 7; k++) {
		s[k] = k < 6 ? before[k] : sqrt(1 - squares); /* Frobenius norm 1: the division by it changes nothing */
		squares += s[k] * s[k];
	}
	for (int i = 0; i < rows; i++)
		for (int j = 0; j < cols; j++)
			for (int k = 0; k < 7; k++)
				x[i * cols + j] += (float)(s[k] * basis(rows, k, i) * basis(cols, k, j));
	muon_orthogonalize(&f.o.muon, x, rows, cols);
	for (int k = 0; k < 6; k++) {
		double sigma = 0;
		for (int i = 0; i < rows; i++)
			for (int j = 0; j < cols; j++)
				sigma += basis(rows, k, i) * x[i * cols + j] * basis(cols, k, j);
		assert_near(sigma, after[k], 2e-4);
	}
	free(x);
	drop(&f);
}

static void muon_moves_singular_values(void **state)
{
	check_orthogonalize(8, 8);
	check_orthogonalize(12, 40);
	check_orthogonalize(40, 12);
	check_orthogonalize(7, 129);
}

/* One step from zero momentum: M = G, U = G + mu M is parallel to G, so p = (1 - lr wd) p - lr scale NS(G). */
static void muon_updates(void **state)
{
	struct fixture f = {0};
	const int rows = 24, cols = 6, n = rows * cols;
	float p[160], g[160], want[160], v[2] = {1, 2};
	param(&f, "w", rows, cols, true);
	param(&f, "b", 1, 2, false);
	make(&f, STAVE_MUON);
	assert_int_equal(f.o.n_v, 2); /* no second moment for Muon's share */
	memset(p, 0, sizeof p);
	memset(g, 0, sizeof g);
	for (int i = 0; i < n; i++) {
		p[i] = (float)stave_random_unit(1, (uint64_t)i) - 0.5f;
		want[i] = g[i] = (float)stave_random_unit(2, (uint64_t)i) - 0.5f;
	}
	memcpy(p + 144, v, sizeof v);
	g[144] = g[145] = 1;
	muon_orthogonalize(&f.o.muon, want, rows, cols);
	for (int i = 0; i < n; i++)
		want[i] = p[i] * (1 - 0.02f * 0.1f) - 0.02f * 2 * want[i]; /* sqrt(24/6) = 2 */
	struct optimizer_rates r = {.lr = 1e-3, .muon_lr = 0.02, .muon_momentum = 0.95, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .g_scale = 3, .t = 1};
	optimizer_step(&f.o, p, NULL, g, &r);
	for (int i = 0; i < n; i++) {
		assert_near(p[i], want[i], 1e-5);
		assert_near(f.o.m[i], 3 * g[i], 1e-6); /* momentum holds the scaled gradient */
	}
	assert_near(p[144], 1 - 1e-3, 1e-6); /* AdamW's first step is lr, whatever the gradient */
	drop(&f);
}

static void norm_names_the_first_nonfinite(void **state)
{
	struct fixture f = {0};
	double sum;
	param(&f, "a", 300, 500, true);
	param(&f, "b", 1, 7, false);
	param(&f, "c", 10, 10, true);
	make(&f, STAVE_ADAMW);
	float *g = calloc((size_t)f.l.n, sizeof *g);
	for (int i = 0; i < 150000; i++)
		g[i] = 2;
	assert_int_equal(optimizer_sumsq(&f.o, g, &sum), -1);
	assert_near(sum, 600000, 0);
	g[0] = 3e38f; /* finite, though its square is no float */
	assert_int_equal(optimizer_sumsq(&f.o, g, &sum), -1);
	g[f.params[2].offset + 99] = INFINITY;
	assert_int_equal(optimizer_sumsq(&f.o, g, &sum), 2);
	g[f.params[1].offset + 6] = NAN;
	assert_int_equal(optimizer_sumsq(&f.o, g, &sum), 1);
	free(g);
	drop(&f);
}

/* Norm and update are the same bits for any number of threads. */
static void threads_do_not_matter(void **state)
{
	double sums[2];
	float first = 0;
	for (int k = 0; k < 2; k++) {
		struct fixture f = {0};
		stave_threads_set(k + 1);
		param(&f, "a", 400, 700, true);
		make(&f, STAVE_MUON);
		float *g = calloc((size_t)f.l.n, sizeof *g), *p = calloc((size_t)f.l.n, sizeof *p);
		for (int64_t i = 0; i < f.l.n; i++)
			g[i] = (float)stave_random_unit(5, (uint64_t)i) - 0.3f;
		optimizer_sumsq(&f.o, g, &sums[k]);
		struct optimizer_rates r = {.lr = 1e-3, .muon_lr = 0.02, .muon_momentum = 0.95, .g_scale = 1, .t = 1};
		optimizer_step(&f.o, p, NULL, g, &r);
		if (!k)
			first = p[12345];
		else
			assert_true(first == p[12345]);
		free(g);
		free(p);
		drop(&f);
	}
	assert_true(sums[0] == sums[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adamw_is_torchs),
		cmocka_unit_test(muon_moves_singular_values),
		cmocka_unit_test(muon_updates),
		cmocka_unit_test(norm_names_the_first_nonfinite),
		cmocka_unit_test(threads_do_not_matter),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
