/* Products by oneDNN against the triple loop: random shapes with tails, every combination of transposes, bias and
 * accumulation that the tree uses, f32, bf16 and int8. The bound is k·eps·Σ|a||b| of the element, eps of the output type. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kernel/dtype.h"
#include "kernel/kernel.h"
#include "kernel/matmul.h"

static uint64_t seed = 1, drawn;
static float draw(void) { return (float)(stave_random_unit(seed, drawn++) * 2 - 1); }

static void fill(enum stave_dtype t, void *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		if (t == STAVE_I8)
			((int8_t *)x)[i] = (int8_t)(63 * draw()); /* without VNNI oneDNN sums pairs in 16 bits: 7-bit values are safe */
		else
			stave_put(t, x, (size_t)i, draw());
}

static void check(const struct stave_matmul_desc *d)
{
	struct stave_err e = {0};
	struct stave_matmul *mm;
	size_t scratch_bytes, out_bytes = (size_t)(d->m * d->n) * stave_dtype_bytes(d->out);
	if (stave_matmul_open(&mm, d, &scratch_bytes, &e))
		fail_msg("%s", e.msg);
	size_t in = stave_dtype_bytes(d->in);
	void *A = malloc((size_t)(d->m * d->k) * in), *B = malloc((size_t)(d->k * d->n) * in);
	char *C = malloc(out_bytes + 64), *want = malloc(out_bytes);
	float *bias = malloc((size_t)d->n * 4);
	void *scratch = aligned_alloc(64, (scratch_bytes + 127) / 64 * 64);
	fill(d->in, A, d->m * d->k);
	fill(d->in, B, d->k * d->n);
	fill(STAVE_F32, bias, d->n);
	if (d->out == STAVE_I32)
		memset(C, 0, out_bytes);
	else
		fill(d->out, C, d->m * d->n);
	memset(C + out_bytes, 0x5a, 64);
	memcpy(want, C, out_bytes);
	stave_matmul_run(mm, A, B, C, d->bias ? bias : NULL, scratch);
	stave_matmul_ref(d, A, B, want, d->bias ? bias : NULL);
	for (int i = 0; i < 64; i++)
		assert_int_equal(C[out_bytes + (size_t)i], 0x5a);
	if (d->out == STAVE_I32) {
		assert_memory_equal(C, want, out_bytes);
	} else {
		double eps = d->out == STAVE_BF16 ? 0x1p-8 : 0x1p-22;
		for (int64_t i = 0; i < d->m * d->n; i++) {
			double got = (double)stave_get(d->out, C, (size_t)i), w = (double)stave_get(d->out, want, (size_t)i);
			/* |a|, |b| <= 1: the sum of magnitudes is at most k */
			double bound = eps * fabs(w) + 0x1p-23 * sqrt((double)d->k) * (double)d->k + 1e-6;
			if (!(fabs(got - w) <= bound))
				fail_msg("%lld x %lld x %lld %s: element %lld is %g, wanted %g", (long long)d->m, (long long)d->n, (long long)d->k,
				         stave_dtype_name(d->in), (long long)i, got, w);
		}
	}
	free(A), free(B), free(C), free(want), free(bias), free(scratch);
	stave_matmul_close(mm);
}

static void shapes(enum stave_dtype in, enum stave_dtype out)
{
	static const int64_t sizes[] = {1, 2, 15, 16, 17, 48, 65, 100};
	for (int i = 0; i < 60; i++) {
		struct stave_matmul_desc d = {.in = in, .out = out};
		uint64_t r = stave_random64(77, (uint64_t)i);
		d.m = sizes[r % 8], d.n = sizes[r >> 8 & 7], d.k = sizes[r >> 16 & 7];
		d.a_transposed = r >> 24 & 1;
		d.b_transposed = !d.a_transposed && (r >> 25 & 1);
		d.bias = d.b_transposed && (r >> 26 & 1);
		d.accumulate = out == STAVE_F32 && (r >> 27 & 1);
		check(&d);
	}
}

static void f32_products(void **state) { shapes(STAVE_F32, STAVE_F32); }
static void bf16_products(void **state)
{
	if (!stave_has_bf16()) {
		print_message("skipped: this CPU has no bf16 products\n");
		skip();
	}
	shapes(STAVE_BF16, STAVE_F32);
	shapes(STAVE_BF16, STAVE_BF16);
}
static void int8_products(void **state)
{
	struct stave_matmul_desc d = {.m = 33, .n = 40, .k = 70, .in = STAVE_I8, .out = STAVE_I32};
	check(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(f32_products), cmocka_unit_test(bf16_products), cmocka_unit_test(int8_products)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
