/* Products with stored weights: which part owns a type, and which vector level runs it. The parts do the work. The level
 * is the one kernels.c chose for the process; "ref" computes every output by its definition. */
#include "kernel/panel.h"

#include "kernel/panel_parts.h"

static bool is_int(enum stave_qtype t)
{
	return t != STAVE_Q_F32 && t != STAVE_Q_F16 && t != STAVE_Q_BF16;
}

/* ---- sizes and layout ---- */

static size_t panel_bytes(enum stave_qtype t, int cols)
{
	return is_int(t) ? panel_int_bytes(t, cols) : panel_float_bytes(t, cols);
}

size_t stave_packed_bytes(enum stave_qtype t, int rows, int cols)
{
	return (size_t)((rows + STAVE_PANEL - 1) / STAVE_PANEL) * panel_bytes(t, cols);
}

void stave_pack_panel(enum stave_qtype t, void *panel, const void *const row[STAVE_PANEL], int cols)
{
	if (is_int(t))
		panel_int_pack(t, panel, row, cols);
	else
		panel_float_pack(t, panel, row, cols);
}

enum stave_operand_kind stave_operand_kind(enum stave_qtype t)
{
	return is_int(t) ? STAVE_OPERAND_I8 : t == STAVE_Q_BF16 ? STAVE_OPERAND_BF16 : STAVE_OPERAND_F32;
}

size_t stave_operand_bytes(enum stave_operand_kind kind, int n, int cols)
{
	return kind == STAVE_OPERAND_I8 ? panel_int_operand_bytes(n, cols) : panel_float_operand_bytes(kind, n, cols);
}

size_t stave_panel_scratch(int cols)
{
	size_t i = panel_int_scratch(cols), f = panel_float_scratch(cols);
	return i > f ? i : f;
}

/* ---- levels ---- */

static void multiply_ref(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y, size_t ldy,
                         const float *bias, void *scratch)
{
	int end = p1 * STAVE_PANEL < w->rows ? p1 * STAVE_PANEL : w->rows;
	for (int r = 0; r < n; r++)
		for (int o = p0 * STAVE_PANEL; o < end; o++)
			y[(size_t)r * ldy + (size_t)o] = stave_packed_one(w, o, operand, n, r) + (bias ? bias[o] : 0);
}

const struct panel_level *panel_level(const char *name)
{
	static const struct panel_level levels[] = {
		{"avx512bf16", panel_int_operand_avx512bf16, panel_int_multiply_avx512bf16, panel_float_multiply_avx512bf16},
		{"avx512", panel_int_operand_avx512, panel_int_multiply_avx512, panel_float_multiply_avx512},
		{"avx2", panel_int_operand_avx2, panel_int_multiply_avx2, panel_float_multiply_avx2},
		{"ref", panel_int_operand_ref, multiply_ref, multiply_ref},
	};
	const struct panel_level *l = levels;
	while (strcmp(l->name, name))
		l++;
	return l;
}

void stave_operand_make(enum stave_operand_kind kind, void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1)
{
	if (kind == STAVE_OPERAND_I8)
		panel_level(stave_kernels()->level)->int_operand(operand, x, ldx, n, cols, r0, r1);
	else
		panel_float_operand(kind, operand, x, ldx, n, cols, r0, r1);
}

void stave_packed_multiply(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y, size_t ldy,
                           const float *bias, void *scratch)
{
	const struct panel_level *l = panel_level(stave_kernels()->level);
	if (is_int(w->type))
		l->int_multiply(w, p0, p1, operand, n, y, ldy, bias, scratch);
	else
		l->float_multiply(w, p0, p1, operand, n, y, ldy, bias, scratch);
}

float stave_packed_one(const struct stave_packed *w, int row, const void *operand, int n, int r)
{
	return is_int(w->type) ? panel_int_one(w, row, operand, n, r) : panel_float_one(w, row, operand, n, r);
}
