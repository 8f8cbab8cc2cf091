/* Products with stored weights: y (n, rows) = x (n, cols) W', where W (rows, cols) has any of base/qtype.h's types.
 *
 * W is packed once, when a model is loaded, into panels of 16 rows whose elements are interleaved so that 16 outputs grow
 * side by side in one vector: no horizontal sums, one layout for one token and for a thousand, at the bits per weight of
 * the file (about). x is turned into an operand once per product: block types read int8 with one scale per 32 elements
 * (scale amax/127, round to nearest even), BF16 reads bf16, F16 and F32 read floats.
 *
 * The arithmetic of one output is fixed: integer dot products over 32 (or 16) elements, exact; then one fused
 * multiply-add per such group, in order of k. It does not depend on n, on the other rows of x or of W, on the
 * thread, or on whether the weights were expanded to memory or in registers: y is the same to the bit alone or in
 * company. (BF16, F16, F32: sums over k in order, in a fixed number of accumulators.) */
#ifndef STAVE_KERNEL_PANEL_H
#define STAVE_KERNEL_PANEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/qtype.h"

#define STAVE_PANEL 16 /* rows */

struct stave_packed {
	enum stave_qtype type;
	int rows, cols;     /* as in the file: any rows >= 1; cols a multiple of the block (of 2 for the plain types' packed form: odd cols are padded) */
	const void *data;   /* 64-aligned */
};
static inline int stave_panels(const struct stave_packed *w) { return (w->rows + STAVE_PANEL - 1) / STAVE_PANEL; }
/* Bytes of the packed form, padding rows (zero weights) included; a multiple of 64. Panel p begins at p / panels of it. */
size_t stave_packed_bytes(enum stave_qtype t, int rows, int cols);
/* Packs one panel: row[i] points at row i's blocks in t's file form (any alignment), NULL for a row of zeros. `panel` is
 * packed + p * stave_packed_bytes / panels. Threads may pack different panels at the same time. */
void stave_pack_panel(enum stave_qtype t, void *panel, const void *const row[STAVE_PANEL], int cols);

/* Bytes of the operand of n rows of `cols` for weights of type t. Types that share an operand kind share operands: */
enum stave_operand_kind { STAVE_OPERAND_I8, STAVE_OPERAND_BF16, STAVE_OPERAND_F32, STAVE_OPERAND_KINDS };
enum stave_operand_kind stave_operand_kind(enum stave_qtype t);
size_t stave_operand_bytes(enum stave_operand_kind kind, int n, int cols);
/* Rows r0..r1 of x (n, cols) with stride ldx into the operand of n rows, which is 64-aligned. Threads may make different rows
 * at the same time. int8: a group of 32 that holds a NaN or an infinity makes every output NaN; one below 2^-100 is zero. */
void stave_operand_make(enum stave_operand_kind kind, void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1);
/* y[r * ldy + o] for all rows r < n of the operand and outputs o of panels p0..p1 (outputs beyond w->rows are not
 * written). bias (rows) or NULL is added last. scratch: stave_panel_scratch(cols) bytes of this thread's own, 64-aligned. */
void stave_packed_multiply(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y, size_t ldy, const float *bias, void *scratch);
size_t stave_panel_scratch(int cols);

/* The definition, for tests: the same packed bytes and operand, one output at a time, scalar C, without bias. */
float stave_packed_one(const struct stave_packed *w, int row, const void *operand, int n, int r);

#endif
