/* Products with stored weights (kernel/panel.h): every type at every vector level.
 *
 * Truth comes from outside the panels: weights are what stave_dequantize says their bytes mean, and products are sums in
 * double. The operand is compared with its own definition, worked out here. Random blocks of bytes reach every code, scale
 * and min; their f16 scales are made ordinary so that sums stay finite. Equality between levels, between one row alone and in
 * company, and with the scalar definition is to the bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kernel/kernel.h"
#include "kernel/panel_parts.h"
#include "kernel/quant.h"

static uint64_t drawn;
static double unit(void) { return stave_random_unit(17, drawn++); }
static double normal(void) { return sqrt(-2 * log(1 - unit())) * cos(6.283185307179586 * unit()); }

static const char *const names[] = {"ref", "avx2", "avx512", "avx512bf16"};
enum { LEVELS = 4 };

static bool is_block_type(enum stave_qtype t) { return stave_qtype_info(t).per > 1; }

static void *room(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
	assert_non_null(p);
	return p;
}

/* ---- random weights ---- */

static uint16_t f16_of(double v) /* normal numbers only, truncated: any bits would do */
{
	int e;
	double m = frexp(fabs(v), &e);
	return (uint16_t)((v < 0 ? 0x8000 : 0) | (e + 14) << 10 | (int)((m * 2 - 1) * 1024));
}

static void put_f16(uint8_t *p, double v)
{
	uint16_t h = f16_of(v);
	memcpy(p, &h, 2);
}

/* Where a block's f16 scales lie. */
static void tame_block(enum stave_qtype t, uint8_t *b)
{
	double d = (0.001 + 0.01 * unit()) * (unit() < 0.3 ? -1 : 1), m = (0.001 + 0.01 * unit()) * (unit() < 0.5 ? -1 : 1);
	switch (t) {
	case STAVE_Q_Q2_K: put_f16(b + 80, d); put_f16(b + 82, m); break;
	case STAVE_Q_Q3_K: put_f16(b + 108, d); break;
	case STAVE_Q_Q6_K: put_f16(b + 208, d); break;
	case STAVE_Q_MXFP4: b[0] = (uint8_t)(115 + b[0] % 12); break;
	case STAVE_Q_Q4_1:
	case STAVE_Q_Q5_1:
	case STAVE_Q_Q4_K:
	case STAVE_Q_Q5_K: put_f16(b + 2, m); /* fall through */
	default: put_f16(b, d);
	}
}

struct weights {
	enum stave_qtype t;
	int rows, cols;
	uint8_t *file;
	float *values; /* (rows, cols) */
	struct stave_packed packed;
};

static void pack(struct weights *w)
{
	size_t bytes = stave_packed_bytes(w->t, w->rows, w->cols), row = stave_qtype_row_bytes(w->t, w->cols);
	w->packed = (struct stave_packed){.type = w->t, .rows = w->rows, .cols = w->cols};
	int panels = stave_panels(&w->packed);
	assert_int_equal(bytes % ((size_t)panels * 64), 0);
	char *data = room(bytes);
	memset(data, 0xa5, bytes + 64);
	for (int p = 0; p < panels; p++) {
		const void *rows[STAVE_PANEL];
		for (int i = 0; i < STAVE_PANEL; i++)
			rows[i] = p * STAVE_PANEL + i < w->rows ? w->file + (size_t)(p * STAVE_PANEL + i) * row : NULL;
		stave_pack_panel(w->t, data + bytes / (size_t)panels * (size_t)p, rows, w->cols);
	}
	for (int i = 0; i < 64; i++)
		assert_int_equal((unsigned char)data[bytes + (size_t)i], 0xa5);
	w->packed.data = data;
}

static struct weights weights_new(enum stave_qtype t, int rows, int cols)
{
	struct stave_qtype_info info = stave_qtype_info(t);
	struct weights w = {.t = t, .rows = rows, .cols = cols};
	size_t bytes = stave_qtype_row_bytes(t, cols) * (size_t)rows;
	w.file = malloc(bytes);
	w.values = malloc((size_t)rows * (size_t)cols * 4);
	for (size_t i = 0; i < bytes; i++)
		w.file[i] = (uint8_t)(unit() * 256);
	for (size_t b = 0; b < bytes / (size_t)info.bytes; b++)
		tame_block(t, w.file + b * (size_t)info.bytes);
	stave_dequantize(t, w.values, w.file, (int64_t)rows * cols);
	pack(&w);
	return w;
}

static void weights_free(struct weights *w)
{
	free(w->file);
	free(w->values);
	free((void *)w->packed.data);
}

static float *random_x(int n, int cols)
{
	float *x = malloc((size_t)n * (size_t)cols * 4);
	for (int i = 0; i < n * cols; i++)
		x[i] = (float)(normal() * (unit() < 0.01 ? 20 : 1)) * (i / 32 % 7 == 3 ? 1e-3f : 1);
	return x;
}

/* ---- the operand's own values ---- */

/* What int8 makes of 32 floats, per panel.h. */
static void quantized_x(double *q, const float *x, int cols)
{
	for (int g = 0; g < cols; g += 32) {
		float amax = 0;
		for (int i = 0; i < 32; i++)
			amax = fmaxf(amax, fabsf(x[g + i]));
		for (int i = 0; i < 32; i++)
			q[g + i] = amax > 0 ? (double)(amax / 127) * nearbyintf(x[g + i] * (127 / amax)) : 0;
	}
}

/* ---- tests ---- */

/* y at one level, from an operand made at that level; cells beyond the rows must stay. */
static void multiply_at(const char *level, const struct weights *w, const float *x, int n, const float *bias, float *y, size_t ldy)
{
	const struct panel_level *l = panel_level(level);
	void *operand = room(stave_operand_bytes(STAVE_OPERAND_I8, n, w->cols)), *scratch = room(stave_panel_scratch(w->cols));
	int panels = stave_panels(&w->packed), cut = panels / 2;
	for (size_t i = 0; i < (size_t)n * ldy; i++)
		y[i] = -77;
	l->int_operand(operand, x, (size_t)w->cols, n, w->cols, 0, n / 2);
	l->int_operand(operand, x, (size_t)w->cols, n, w->cols, n / 2, n);
	l->int_multiply(&w->packed, cut, panels, operand, n, y, ldy, bias, scratch);
	l->int_multiply(&w->packed, 0, cut, operand, n, y, ldy, bias, scratch);
	for (int r = 0; r < n; r++)
		for (size_t o = (size_t)w->rows; o < ldy; o++)
			assert_true(y[(size_t)r * ldy + o] == -77);
	free(operand);
	free(scratch);
}

/* Against double sums of the weights' values and the operand's, and of x itself. */
static void check_truth(const struct weights *w, const float *x, int n, const float *bias, const float *y, size_t ldy)
{
	double *q = malloc((size_t)w->cols * sizeof *q), err2 = 0, all2 = 0;
	for (int r = 0; r < n; r += n > 9 ? 7 : 1) {
		const float *row = x + (size_t)r * (size_t)w->cols;
		quantized_x(q, row, w->cols);
		for (int o = 0; o < w->rows; o++) {
			const float *v = w->values + (size_t)o * (size_t)w->cols;
			double want = bias[o], exact = bias[o], size = fabs(bias[o]), square = 0;
			for (int k = 0; k < w->cols; k++) {
				want += v[k] * q[k];
				size += fabs(v[k] * q[k]);
				exact += (double)v[k] * row[k];
				square += ((double)v[k] * row[k]) * ((double)v[k] * row[k]);
			}
			double got = y[(size_t)r * ldy + (size_t)o];
			if (!(fabs(got - want) <= 1e-5 * (size + 1e-30)))
				fail_msg("%s %dx%d n %d: row %d output %d is %g, wanted %g", stave_qtype_info(w->t).name, w->rows, w->cols, n, r, o, got, want);
			err2 += (got - exact) * (got - exact);
			all2 += square;
		}
	}
	if (sqrt(err2 / all2) > 0.03) /* a step of int8 is 1 % of the largest of 32, and these have outliers */
		fail_msg("%s: %g from the product with x itself", stave_qtype_info(w->t).name, sqrt(err2 / all2));
	free(q);
}

static void check_shape(enum stave_qtype t, int rows, int cols, int n)
{
	struct weights w = weights_new(t, rows, cols);
	float *x = random_x(n, cols), *bias = random_x(1, (rows + 31) / 32 * 32), *first = NULL;
	size_t ldy = (size_t)rows + 3;
	for (int l = LEVELS - 1; l >= 0; l--) {
		if (!stave_kernels_level(names[l]) || (l == 0 && (long)rows * cols * n > 3000000))
			continue;
		float *y = malloc((size_t)n * ldy * 4);
		multiply_at(names[l], &w, x, n, bias, y, ldy);
		if (!first) {
			check_truth(&w, x, n, bias, y, ldy);
			first = y;
			continue;
		}
		for (size_t i = 0; i < (size_t)n * ldy; i++)
			if (memcmp(first + i, y + i, 4))
				fail_msg("%s %dx%d n %d at %s: output %zu of row %zu is %.9g, elsewhere %.9g", stave_qtype_info(t).name, rows, cols, n, names[l],
				         i % ldy, i / ldy, (double)y[i], (double)first[i]);
		free(y);
	}
	free(first);
	free(x);
	free(bias);
	weights_free(&w);
}

static void test_products(void **state)
{
	static const int ns[] = {1, 2, 7, 8, 9, 12, 13, 31, 33, 100};
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		for (size_t i = 0; is_block_type(t) && i < sizeof ns / sizeof *ns; i++) {
			int rows = ns[i] > 30 ? 17 + (int)(unit() * 40) : 1 + (int)(unit() * 60);
			check_shape(t, rows, 256 * (1 + (int)(unit() * 3)), ns[i]);
		}
}

/* Longer than one chunk of groups, more panels than one chunk. */
static void test_chunks(void **state)
{
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		if (is_block_type(t)) {
			check_shape(t, 150, 1280, 14);
			check_shape(t, 20, 2304, 26);
		}
	check_shape(STAVE_Q_Q8_0, 33, 32, 3); /* types of 32 need no multiple of 256 */
	check_shape(STAVE_Q_Q4_1, 33, 1056, 15);
	check_shape(STAVE_Q_MXFP4, 5, 96, 1);
}

/* A row of x alone, and among any others, gives the same bits; so do other rows of W. */
static void test_company(void **state)
{
	enum { ROWS = 37, COLS = 1536, N = 40 };
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++) {
		if (!is_block_type(t))
			continue;
		struct weights w = weights_new(t, ROWS, COLS);
		float *x = random_x(N, COLS), all[N * ROWS], alone[ROWS];
		for (int n = 2; n <= N; n += n < 14 ? 1 : 13) {
			multiply_at("avx2", &w, x, 1, NULL, alone, ROWS); /* skipped levels share its bits, see test_products */
			for (int l = 1; l < LEVELS; l++) {
				if (!stave_kernels_level(names[l]))
					continue;
				multiply_at(names[l], &w, x, n, NULL, all, ROWS);
				for (int r = 0; r < n; r += 1 + n / 5) {
					multiply_at(names[l], &w, x + r * COLS, 1, NULL, alone, ROWS);
					assert_memory_equal(all + r * ROWS, alone, sizeof alone);
				}
			}
		}
		free(x);
		weights_free(&w);
	}
}

/* Infinities, NaN, huge and tiny activations; infinite and NaN scales of weights. */
static void test_hostile_values(void **state)
{
	enum { COLS = 512, ROWS = 19, N = 6 };
	float y[N * ROWS];
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++) {
		if (!is_block_type(t))
			continue;
		struct weights w = weights_new(t, ROWS, COLS);
		float *x = random_x(N, COLS);
		x[0 * COLS + 40] = NAN;
		x[1 * COLS + 511] = INFINITY;
		x[2 * COLS + 3] = -INFINITY;
		for (int k = 0; k < COLS; k++) {
			x[3 * COLS + k] = 1e-42f * (float)(k % 7);
			x[4 * COLS + k] = k == 5 ? 3e38f : 0;
		}
		for (int l = 0; l < LEVELS; l++) {
			if (!stave_kernels_level(names[l]))
				continue;
			multiply_at(names[l], &w, x, N, NULL, y, ROWS);
			for (int o = 0; o < ROWS; o++) {
				for (int r = 0; r < 3; r++)
					assert_true(isnan(y[r * ROWS + o]));
				assert_true(y[3 * ROWS + o] == 0);
				assert_true(!isnan(y[4 * ROWS + o]));
				assert_true(isfinite(y[5 * ROWS + o]));
			}
		}
		memset(w.file, 0xff, stave_qtype_row_bytes(t, COLS) * ROWS); /* NaN where there is an f16; 2^127 in MXFP4 */
		free((void *)w.packed.data);
		pack(&w);
		for (int l = 0; l < LEVELS; l++) {
			if (!stave_kernels_level(names[l]))
				continue;
			multiply_at(names[l], &w, x + 5 * COLS, 1, NULL, y, ROWS);
			for (int o = 0; o < ROWS; o++)
				assert_true(t == STAVE_Q_MXFP4 || isnan(y[o]));
		}
		free(x);
		weights_free(&w);
	}
}

/* Every exponent of MXFP4's scale, the subnormal two included. */
static void test_e8m0(void **state)
{
	for (int e = 0; e < 256; e++) {
		struct weights w = weights_new(STAVE_Q_MXFP4, 16, 32);
		float x[32], y[16], operand_scale = 1;
		for (int r = 0; r < 16; r++)
			w.file[17 * r] = (uint8_t)e;
		stave_dequantize(STAVE_Q_MXFP4, w.values, w.file, 16 * 32);
		free((void *)w.packed.data);
		pack(&w);
		for (int k = 0; k < 32; k++)
			x[k] = k ? 0 : 127 * operand_scale;
		for (int l = 0; l < LEVELS; l++) {
			if (!stave_kernels_level(names[l]))
				continue;
			multiply_at(names[l], &w, x, 1, NULL, y, 16);
			for (int r = 0; r < 16; r++)
				assert_true((double)y[r] == (double)w.values[32 * r] * 127 || (e > 240 && isinf(y[r])));
		}
		weights_free(&w);
	}
}

/* The packed form is the size of the file's, to 4 %, and to the scales' padding of a row. */
static void test_sizes(void **state)
{
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++) {
		if (!is_block_type(t))
			continue;
		double file = 2048. * (double)stave_qtype_row_bytes(t, 2048), packed = (double)stave_packed_bytes(t, 2048, 2048);
		if (!(packed >= file && packed <= 1.04 * file))
			fail_msg("%s takes %.0f bytes packed and %.0f in the file", stave_qtype_info(t).name, packed, file);
	}
}

/* The public functions reach what the tests above tried at its levels. */
static void test_door(void **state)
{
	struct weights w = weights_new(STAVE_Q_Q4_K, 40, 512);
	float *x = random_x(5, 512), y[5 * 40], want[5 * 40];
	void *operand = room(stave_operand_bytes(STAVE_OPERAND_I8, 5, 512)), *scratch = room(stave_panel_scratch(512));
	assert_int_equal(stave_operand_kind(STAVE_Q_Q4_K), STAVE_OPERAND_I8);
	stave_operand_make(STAVE_OPERAND_I8, operand, x, 512, 5, 512, 0, 5);
	stave_packed_multiply(&w.packed, 0, 3, operand, 5, y, 40, NULL, scratch);
	multiply_at("ref", &w, x, 5, NULL, want, 40);
	assert_memory_equal(y, want, sizeof y);
	assert_true(stave_packed_one(&w.packed, 39, operand, 5, 4) == want[4 * 40 + 39]);
	free(operand);
	free(scratch);
	free(x);
	weights_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),  cmocka_unit_test(test_products),       cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_company), cmocka_unit_test(test_hostile_values), cmocka_unit_test(test_e8m0),
		cmocka_unit_test(test_door),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
