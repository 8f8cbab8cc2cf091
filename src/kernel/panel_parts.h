/* Private to kernel/: what panel.c is made of. The integer part (panel_int.c, panel_int.simd.c) owns the block types, the
 * float part (panel_float.c, panel_float.simd.c) owns F32, F16 and BF16; each knows its own packed form and operand.
 *
 * One panel of a matrix is `panel_PART_bytes` long, a multiple of 64. `one` is the definition of an output in scalar C and
 * is what the level "ref" runs; a level's `multiply` must equal it to the bit. All contracts are those of panel.h; packed
 * data, operands and scratch are 64-aligned, rows of x and y are not. */
#ifndef STAVE_KERNEL_PANEL_PARTS_H
#define STAVE_KERNEL_PANEL_PARTS_H

#include "kernel/kernel.h"
#include "kernel/panel.h"

/* Set where a sanitizer watches every access: tiles of registers, expanded for each of their sizes, would then take minutes and gigabytes to
 * compile. gcc names the address sanitizer by a macro, clang by a feature. */
#if defined(__SANITIZE_ADDRESS__)
#define STAVE_INSTRUMENTED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STAVE_INSTRUMENTED
#endif
#endif

size_t panel_int_bytes(enum stave_qtype t, int cols);
void panel_int_pack(enum stave_qtype t, void *panel, const void *const row[STAVE_PANEL], int cols);
size_t panel_int_operand_bytes(int n, int cols);
size_t panel_int_scratch(int cols);
float panel_int_one(const struct stave_packed *w, int row, const void *operand, int n, int r);

size_t panel_float_bytes(enum stave_qtype t, int cols);
void panel_float_pack(enum stave_qtype t, void *panel, const void *const row[STAVE_PANEL], int cols);
size_t panel_float_operand_bytes(enum stave_operand_kind kind, int n, int cols);
void panel_float_operand(enum stave_operand_kind kind, void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1);
size_t panel_float_scratch(int cols);
float panel_float_one(const struct stave_packed *w, int row, const void *operand, int n, int r);

/* Per vector level. `bias` as in panel.h: rows of it, added last, or NULL. */
#define PANEL_PROTOTYPES(L)                                                                                                   \
	void panel_int_operand_##L(void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1);              \
	void panel_int_multiply_##L(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y,      \
	                            size_t ldy, const float *bias, void *scratch);                                           \
	void panel_float_multiply_##L(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y,    \
	                              size_t ldy, const float *bias, void *scratch);

PANEL_PROTOTYPES(avx2)
PANEL_PROTOTYPES(avx512)
PANEL_PROTOTYPES(avx512bf16)
void panel_int_operand_ref(void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1);

/* What a vector level runs, for dispatch and for tests. `name` is one of stave_levels; whether this CPU can run it is for
 * stave_kernels_level to say. */
struct panel_level {
	const char *name;
	void (*int_operand)(void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1);
	void (*int_multiply)(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y, size_t ldy,
	                     const float *bias, void *scratch);
	void (*float_multiply)(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y, size_t ldy,
	                       const float *bias, void *scratch);
};
const struct panel_level *panel_level(const char *name);

#endif
