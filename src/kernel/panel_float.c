/* Panels of plain types: packing, operands, and the definition of an output.
 *
 * One output is one sum, from 0, in order of k: one fused multiply-add per column; for BF16, per pair of columns, first the
 * second of the pair, then the first. That is what vdpbf16ps computes (it differs only in that it takes subnormal operands
 * and results as zero), so all levels give the same bits. */
#include <emmintrin.h>
#include <math.h>

#include "kernel/kernel.h"
#include "kernel/panel_float.h"
#include "kernel/panel_parts.h"

static size_t element_bytes(enum stave_qtype t) { return t == STAVE_Q_F32 ? 4 : 2; }

size_t panel_float_bytes(enum stave_qtype t, int cols)
{
	return (size_t)panel_float_cols(cols) * element_bytes(t) * STAVE_PANEL;
}

/* Up to 16 bytes at `at` of a row of `bytes`; zeros beyond its end, and for a row that is not there. */
static __m128 row_chunk(const char *row, size_t at, size_t bytes)
{
	char part[16] = {0};
	if (!row || at >= bytes)
		return _mm_setzero_ps();
	if (bytes - at >= 16)
		return _mm_loadu_ps((const float *)(row + at));
	memcpy(part, row + at, bytes - at);
	return _mm_loadu_ps((const float *)part);
}

/* 16 pairs of halves -> the first of each, then the second of each. */
static void split_pairs(uint16_t *y)
{
	uint16_t first[STAVE_PANEL], second[STAVE_PANEL];
	for (int i = 0; i < STAVE_PANEL; i++) {
		first[i] = y[2 * i];
		second[i] = y[2 * i + 1];
	}
	memcpy(y, first, sizeof first);
	memcpy(y + STAVE_PANEL, second, sizeof second);
}

/* A transpose of units of 4 bytes (a float, or a pair of halves), four by four. */
void panel_float_pack(enum stave_qtype t, void *panel, const void *const row[STAVE_PANEL], int cols)
{
	const size_t bytes = (size_t)cols * element_bytes(t), units = (size_t)panel_float_cols(cols) * element_bytes(t) / 4;
	float *y = panel;
	for (size_t u = 0; u < units; u += 4) {
		const size_t n = units - u < 4 ? units - u : 4;
		for (int g = 0; g < STAVE_PANEL; g += 4) {
			__m128 c[4];
			for (int i = 0; i < 4; i++)
				c[i] = row_chunk(row[g + i], u * 4, bytes);
			_MM_TRANSPOSE4_PS(c[0], c[1], c[2], c[3]);
			for (size_t i = 0; i < n; i++)
				_mm_store_ps(y + (u + i) * STAVE_PANEL + g, c[i]);
		}
		if (t == STAVE_Q_F16)
			for (size_t i = 0; i < n; i++)
				split_pairs((uint16_t *)(y + (u + i) * STAVE_PANEL));
	}
}

size_t panel_float_operand_bytes(enum stave_operand_kind kind, int n, int cols)
{
	return (size_t)n * panel_float_stride(kind, cols);
}

void panel_float_operand(enum stave_operand_kind kind, void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1)
{
	const size_t stride = panel_float_stride(kind, cols), used = (size_t)cols * (kind == STAVE_OPERAND_BF16 ? 2 : 4);
	for (int r = r0; r < r1; r++) {
		char *y = (char *)operand + (size_t)r * stride;
		if (kind == STAVE_OPERAND_BF16)
			stave_kernels()->to_bf16((uint16_t *)y, x + (size_t)r * ldx, (size_t)cols);
		else
			memcpy(y, x + (size_t)r * ldx, used);
		memset(y + used, 0, stride - used);
	}
}

size_t panel_float_scratch(int cols)
{
	return 0;
}

float panel_float_one(const struct stave_packed *w, int row, const void *operand, int n, int r)
{
	const int cols = panel_float_cols(w->cols), lane = row % STAVE_PANEL;
	const char *panel = (const char *)w->data + (size_t)(row / STAVE_PANEL) * panel_float_bytes(w->type, w->cols);
	const char *x = (const char *)operand + (size_t)r * panel_float_stride(stave_operand_kind(w->type), w->cols);
	float sum = 0;
	if (w->type == STAVE_Q_BF16)
		for (int k = 0; k < cols; k += 2) {
			const uint16_t *pw = (const uint16_t *)panel + k * STAVE_PANEL + 2 * lane, *px = (const uint16_t *)x + k;
			sum = fmaf(stave_bf16_to_f32(pw[1]), stave_bf16_to_f32(px[1]), sum);
			sum = fmaf(stave_bf16_to_f32(pw[0]), stave_bf16_to_f32(px[0]), sum);
		}
	else
		for (int k = 0; k < cols; k++) {
			size_t at = (size_t)k * STAVE_PANEL + lane;
			float weight = w->type == STAVE_Q_F32 ? ((const float *)panel)[at] : stave_f16_to_f32(((const uint16_t *)panel)[at]);
			sum = fmaf(weight, ((const float *)x)[k], sum);
		}
	return sum;
}
