/* Cross-entropy and matrix-vector products at every level against sums in double: vocabularies around the vector length, padded rows,
 * masked targets, both types, and what must happen when a logit is not finite. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernel/kernel.h"

static uint64_t state = 1;
static double uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (double)(state >> 40) / (1 << 23) - 1;
}

static void *random_values(enum stave_dtype dt, size_t n, double size)
{
	void *x = malloc(n * 4 + 4);
	for (size_t i = 0; i < n; i++)
		stave_put(dt, x, i, (float)(uniform() * size));
	return x;
}

static void *copy_of(const void *x, size_t bytes)
{
	return memcpy(malloc(bytes), x, bytes);
}

/* One row of results against the definition. */
static void check_row(const char *level, enum stave_dtype dt, const void *before, const void *after, size_t at, size_t ld, int V,
                      int target, float scale, float loss)
{
	double sum = 0, max = -1e300;
	for (int i = 0; i < V; i++)
		max = fmax(max, stave_get(dt, before, at + i));
	for (int i = 0; i < V; i++)
		sum += exp(stave_get(dt, before, at + i) - max);
	double want = target < 0 ? 0 : max + log(sum) - stave_get(dt, before, at + target);
	if (!(fabs(loss - want) <= 2e-6 * (1 + fabs(want))))
		fail_msg("%s: loss of V %d is %.9g, not %.9g", level, V, loss, want);
	for (size_t i = 0; i < ld && scale != 0; i++) {
		double p = i < (size_t)V && target >= 0 ? exp(stave_get(dt, before, at + i) - max) / sum : 0;
		double g = (p - ((int)i == target)) * scale, got = stave_get(dt, after, at + i);
		/* float rounds the exponent, which may be large; the target's 1 - p cancels, its error is relative to p; the result
		 * is rounded once */
		double exponent = i < (size_t)V ? max - stave_get(dt, before, at + i) : 0;
		double bound = (1e-6 + 2e-7 * exponent) * p * fabs(scale) + (dt == STAVE_BF16 ? 0x1p-8 : 0x1p-23) * fabs(g) + 1e-37;
		if (!(fabs(got - g) <= bound))
			fail_msg("%s: gradient %zu of V %d is %.9g, not %.9g", level, i, V, got, g);
	}
}

static void xent_agrees(const struct stave_kernels *k, enum stave_dtype dt, int n, int V, size_t ld, double size, float scale)
{
	size_t bytes = (size_t)n * ld * (dt == STAVE_F32 ? 4 : 2);
	void *before = random_values(dt, (size_t)n * ld, size), *after = copy_of(before, bytes);
	float *loss = malloc((size_t)n * sizeof *loss);
	int32_t *targets = malloc((size_t)n * sizeof *targets);
	for (int r = 0; r < n; r++)
		targets[r] = r % 3 == 2 ? -1 : r % 3 ? V - 1 : (int)(fabs(uniform()) * V);
	k->xent(dt, after, ld, loss, targets, scale, n, V);
	for (int r = 0; r < n; r++)
		check_row(k->level, dt, before, after, r * ld, ld, V, targets[r], scale, loss[r]);
	if (scale == 0)
		assert_memory_equal(before, after, bytes);
	free(before);
	free(after);
	free(loss);
	free(targets);
}

static void xent_agrees_at_every_level(void **unused)
{
	static const int widths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 65, 255, 1000, 2047, 2048, 2049, 4100};
	for (int l = 0; stave_levels[l]; l++) {
		const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
		if (!k)
			continue;
		for (enum stave_dtype dt = STAVE_F32; dt <= STAVE_BF16; dt++) {
			for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
				xent_agrees(k, dt, 5, widths[i], widths[i] + i % 3 * 5, 4, 0.25f);
				xent_agrees(k, dt, 3, widths[i], widths[i] + 1, 60, 1);
				xent_agrees(k, dt, 3, widths[i], widths[i], 4, 0);
			}
			xent_agrees(k, dt, 2, 50257, 50272, 8, 1.f / 64);
		}
	}
}

/* All logits far below zero: padding lanes must not pass for the maximum. A NaN or infinity shows in its row's loss alone. */
static void xent_of_odd_values(void **unused)
{
	for (int l = 0; stave_levels[l]; l++) {
		const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
		if (!k)
			continue;
		float x[4][21], loss[4];
		const int32_t targets[4] = {3, 3, 3, 3};
		for (int i = 0; i < 21; i++) {
			x[0][i] = -500;
			x[1][i] = x[2][i] = x[3][i] = 1;
		}
		x[1][20] = NAN;
		x[2][7] = INFINITY;
		k->xent(STAVE_F32, x, 21, loss, targets, 1, 4, 21);
		assert_true(fabs(loss[0] - log(21)) < 1e-6);
		assert_true(fabs(x[0][20] - 1. / 21) < 1e-7);
		assert_true(isnan(loss[1]) && !isfinite(loss[2]));
		assert_true(fabs(loss[3] - log(21)) < 1e-6);
	}
}

static void gemv_agrees(const struct stave_kernels *k, enum stave_dtype dt, int n, int width, size_t ld)
{
	char *W = random_values(dt, (size_t)n * ld, 1);
	float *x = random_values(STAVE_F32, (size_t)width, 1), *y = malloc(((size_t)n + 1) * sizeof *y), alone;
	y[n] = 77;
	k->gemv(dt, y, W, ld, x, n, width);
	for (int r = 0; r < n; r++) {
		double want = 0, mag = 0;
		for (int i = 0; i < width; i++) {
			double term = (double)stave_get(dt, W, r * ld + i) * x[i];
			want += term;
			mag += fabs(term);
		}
		assert_true(fabs(y[r] - want) <= 1e-6 * mag);
		k->gemv(dt, &alone, W + r * ld * (dt == STAVE_F32 ? 4 : 2), ld, x, 1, width);
		assert_memory_equal(&alone, &y[r], sizeof alone);
	}
	assert_true(y[n] == 77);
	free(W);
	free(x);
	free(y);
}

static void gemv_agrees_at_every_level(void **unused)
{
	static const int widths[] = {1, 5, 8, 15, 16, 17, 63, 64, 65, 100, 768};
	for (int l = 0; stave_levels[l]; l++) {
		const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
		for (enum stave_dtype dt = STAVE_F32; k && dt <= STAVE_BF16; dt++)
			for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
				gemv_agrees(k, dt, 1 + (int)i % 6, widths[i], widths[i] + i % 4);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(xent_agrees_at_every_level),
		cmocka_unit_test(xent_of_odd_values),
		cmocka_unit_test(gemv_agrees_at_every_level),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
