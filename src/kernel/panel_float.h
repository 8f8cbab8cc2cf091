/* Private to panel_float*.c: the packed form of plain types and their operand.
 *
 * Columns are padded to an even number with zeros. A panel of F32 or F16 is (cols, 16): the 16 rows' weights of one column
 * side by side. BF16 is (cols/2, 16, 2): pairs of columns, as vdpbf16ps wants them. The operand is row-major with the same
 * padding, bf16 for BF16 and float for the others; a row takes an odd number of cache lines, so that the rows of a tile,
 * which are read side by side, do not fall into the same sets of the cache. */
#ifndef STAVE_KERNEL_PANEL_FLOAT_H
#define STAVE_KERNEL_PANEL_FLOAT_H

#include "kernel/panel.h"

static inline int panel_float_cols(int cols) { return cols + (cols & 1); }

/* Bytes of one row of the operand. */
static inline size_t panel_float_stride(enum stave_operand_kind kind, int cols)
{
	size_t lines = ((size_t)panel_float_cols(cols) * (kind == STAVE_OPERAND_BF16 ? 2 : 4) + 63) / 64;
	return (lines | 1) * 64;
}

#endif
