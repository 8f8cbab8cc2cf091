/* Products with BF16, F16 and F32 panels at every level: against a product in double of the weights as the file has them,
 * bit for bit against the definition, and bit for bit alone and in company. Shapes cover tails of rows, odd columns, strides,
 * ranges of panels and blocks of rows and columns. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kernel/kernel.h"
#include "kernel/panel_parts.h"

static const enum stave_qtype types[] = {STAVE_Q_BF16, STAVE_Q_F16, STAVE_Q_F32};

static uint64_t drawn;
static double unit(void) { return stave_random_unit(11, drawn++); }
static int below(int n) { return (int)(unit() * n); }

/* A weight in the file: random bits of a finite number of moderate size, subnormal halves and zeros among them. */
static void put_weight(enum stave_qtype t, char *to)
{
	float f = (float)((unit() + unit() - 1) * 2);
	uint16_t h = (uint16_t)(below(2) << 15 | below(0x4000)); /* below 2 */
	if (t == STAVE_Q_F16)
		memcpy(to, &h, 2);
	else if (t == STAVE_Q_BF16)
		h = stave_f32_to_bf16(below(50) ? f : 0), memcpy(to, &h, 2);
	else
		memcpy(to, &f, 4);
}
static double weight_at(enum stave_qtype t, const char *file, size_t i)
{
	uint16_t h;
	float f;
	if (t == STAVE_Q_F32)
		return memcpy(&f, file + 4 * i, 4), f;
	memcpy(&h, file + 2 * i, 2);
	return t == STAVE_Q_F16 ? stave_f16_to_f32(h) : stave_bf16_to_f32(h);
}

struct problem {
	enum stave_qtype type;
	int rows, cols, n;
	char *file;             /* unaligned: one byte in */
	struct stave_packed w;
	void *operand, *scratch;
	float *x, *bias;
	size_t ldx;
};

static struct problem make_problem(enum stave_qtype t, int rows, int cols, int n)
{
	struct problem p = {.type = t, .rows = rows, .cols = cols, .n = n, .ldx = (size_t)cols + 3};
	const size_t size = t == STAVE_Q_F32 ? 4 : 2, row = size * (size_t)cols, packed = stave_packed_bytes(t, rows, cols);
	p.file = malloc(row * (size_t)rows + 1);
	for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++)
		put_weight(t, p.file + 1 + i * size);
	assert_int_equal(packed % 64, 0);
	char *data = aligned_alloc(64, packed);
	memset(data, 0xff, packed);
	p.w = (struct stave_packed){t, rows, cols, data};
	for (int i = 0; i < stave_panels(&p.w); i++) {
		const void *from[STAVE_PANEL];
		for (int r = 0; r < STAVE_PANEL; r++)
			from[r] = i * STAVE_PANEL + r < rows ? p.file + 1 + row * (size_t)(i * STAVE_PANEL + r) : NULL;
		stave_pack_panel(t, data + packed / (size_t)stave_panels(&p.w) * (size_t)i, from, cols);
	}
	p.x = malloc(sizeof(float) * p.ldx * (size_t)n);
	p.bias = malloc(sizeof(float) * (size_t)rows);
	for (size_t i = 0; i < p.ldx * (size_t)n; i++)
		p.x[i] = (float)(unit() * 2 - 1);
	for (int i = 0; i < rows; i++)
		p.bias[i] = (float)(unit() * 2 - 1);
	size_t bytes = stave_operand_bytes(stave_operand_kind(t), n, cols), scratch = stave_panel_scratch(cols) + 64;
	p.operand = aligned_alloc(64, (bytes + 63) / 64 * 64);
	memset(p.operand, 0xff, bytes);
	int cut = below(n + 1); /* in two parts, as two threads would */
	stave_operand_make(stave_operand_kind(t), p.operand, p.x, p.ldx, n, cols, cut, n);
	stave_operand_make(stave_operand_kind(t), p.operand, p.x, p.ldx, n, cols, 0, cut);
	p.scratch = aligned_alloc(64, (scratch + 63) / 64 * 64);
	return p;
}

static void free_problem(struct problem *p)
{
	free(p->file);
	free((void *)p->w.data);
	free(p->operand);
	free(p->scratch);
	free(p->x);
	free(p->bias);
}

/* The product in double, and how far float sums may be off. */
static void against_double(const struct problem *p, const float *y, size_t ldy, const float *bias, const char *level)
{
	for (int r = 0; r < p->n; r++)
		for (int o = 0; o < p->rows; o++) {
			double sum = bias ? bias[o] : 0, size = fabs(sum);
			for (int k = 0; k < p->cols; k++) {
				float x = p->x[(size_t)r * p->ldx + (size_t)k];
				if (p->type == STAVE_Q_BF16)
					x = stave_bf16_to_f32(stave_f32_to_bf16(x));
				double term = weight_at(p->type, p->file + 1, (size_t)o * (size_t)p->cols + (size_t)k) * x;
				sum += term;
				size += fabs(term);
			}
			double got = y[(size_t)r * ldy + (size_t)o], tolerance = size * 6e-8 * (4 + sqrt(p->cols)) + 1e-30;
			if (!(fabs(got - sum) <= tolerance))
				fail_msg("%s %s rows %d cols %d n %d: y[%d][%d] = %.9g, wanted %.9g ± %.2g", level,
				         stave_qtype_info(p->type).name, p->rows, p->cols, p->n, r, o, got, sum, tolerance);
		}
}

static void same_bits(const struct problem *p, const float *y, size_t ldy, const float *bias, const char *level)
{
	for (int r = 0; r < p->n; r++)
		for (int o = 0; o < p->rows; o++) {
			float one = stave_packed_one(&p->w, o, p->operand, p->n, r);
			if (bias)
				one += bias[o];
			if (memcmp(&one, &y[(size_t)r * ldy + (size_t)o], 4))
				fail_msg("%s %s rows %d cols %d n %d: y[%d][%d] = %a, the definition gives %a", level,
				         stave_qtype_info(p->type).name, p->rows, p->cols, p->n, r, o, (double)y[(size_t)r * ldy + (size_t)o], (double)one);
		}
}

/* Row r by itself: an operand of one row. */
static void alone(const struct panel_level *l, const struct problem *p, const float *y, size_t ldy, const float *bias)
{
	int r = below(p->n);
	enum stave_operand_kind kind = stave_operand_kind(p->type);
	void *operand = aligned_alloc(64, (stave_operand_bytes(kind, 1, p->cols) + 63) / 64 * 64);
	float *one = malloc(sizeof(float) * (size_t)p->rows);
	stave_operand_make(kind, operand, p->x + (size_t)r * p->ldx, p->ldx, 1, p->cols, 0, 1);
	l->float_multiply(&p->w, 0, stave_panels(&p->w), operand, 1, one, (size_t)p->rows, bias, p->scratch);
	if (memcmp(one, y + (size_t)r * ldy, sizeof(float) * (size_t)p->rows))
		fail_msg("%s %s rows %d cols %d: row %d of %d differs from itself alone", l->name, stave_qtype_info(p->type).name, p->rows, p->cols, r,
		         p->n);
	free(operand);
	free(one);
}

static void run(enum stave_qtype t, int rows, int cols, int n, bool with_bias)
{
	struct problem p = make_problem(t, rows, cols, n);
	const size_t ldy = (size_t)rows + 5;
	const float *bias = with_bias ? p.bias : NULL;
	float *y = malloc(sizeof(float) * ldy * (size_t)n);
	for (int i = 0; stave_levels[i]; i++) {
		if (!stave_kernels_level(stave_levels[i]))
			continue;
		const struct panel_level *l = panel_level(stave_levels[i]);
		for (size_t j = 0; j < ldy * (size_t)n; j++)
			y[j] = 12345;
		int cut = below(stave_panels(&p.w) + 1); /* panels by two threads */
		l->float_multiply(&p.w, cut, stave_panels(&p.w), p.operand, n, y, ldy, bias, p.scratch);
		for (int o = cut * STAVE_PANEL - 1; o >= 0; o--)
			assert_true(o >= rows || y[o] == 12345);
		l->float_multiply(&p.w, 0, cut, p.operand, n, y, ldy, bias, p.scratch);
		for (int r = 0; r < n; r++)
			for (size_t o = (size_t)rows; o < ldy; o++)
				assert_true(y[(size_t)r * ldy + o] == 12345);
		against_double(&p, y, ldy, bias, l->name);
		same_bits(&p, y, ldy, bias, l->name);
		alone(l, &p, y, ldy, bias);
	}
	free(y);
	free_problem(&p);
}

static void test_small_shapes(void **state)
{
	for (int i = 0; i < 150; i++)
		run(types[i % 3], 1 + below(100), 1 + below(90), 1 + below(30), below(2));
}

/* More rows of x than a block holds, and more columns. */
static void test_blocks(void **state)
{
	for (int i = 0; i < 3; i++) {
		run(types[i], 33, 1201, 250, i % 2);
		run(types[i], 16, 64, 513, false);
		run(types[i], 70, 3001, 1, true);
	}
}

/* Every row count of a tile. */
static void test_tiles(void **state)
{
	for (int n = 1; n <= 26; n++)
		run(types[n % 3], 80, 10, n, false), run(types[(n + 1) % 3], 79, 9, n, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_shapes),
		cmocka_unit_test(test_tiles),
		cmocka_unit_test(test_blocks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
