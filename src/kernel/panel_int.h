/* Private to kernel/: the packed form of the block types and the int8 operand, shared by the reference (panel_int.c) and the
 * vector levels (panel_int.simd.c).
 *
 * A panel is 16 rows side by side: first the scales of all blocks, in order of k, then the codes of all groups of 32
 * elements. Codes keep the file's width. A "quad" is 4 neighbouring elements of each of the 16 rows, one byte per code: 64
 * bytes, row r in bytes 4r..4r+3, what one vector register holds and one vpdpbusd consumes. A group is 8 quads, stored as bit planes
 * of 64 bytes:
 *
 *   8 bits: 8 planes, plane j = quad j
 *   4 bits: 4 planes, plane i = quad i in the low nibbles, quad i + 4 in the high ones
 *   2 bits: 2 planes, plane i = quads 4i .. 4i+3 at bits 0, 2, 4, 6
 *   1 bit:  1 plane, quad j at bit j
 *   5, 6, 3 bits: the 4-bit (or 2-bit) planes, then the planes of the bits above
 *
 * Scales of a block, 16 rows side by side: d as f16 (the type with e8m0 scales: one byte), then m or the negative of dmin
 * as f16 where the type has one, then its small integers as bytes: scales per group (of 32 or 16), then mins. Bytes are the
 * file's but for the 6-bit scales of Q3_K, Q4_K, Q5_K and IQ4_XS, which take a byte here: 4, 3, 2 and 1 % more.
 *
 * The operand of n rows is cut into tiles of up to 6 rows (even ones, so that no tile is nearly empty). A tile of m rows of
 * x holds, each array with the m rows innermost:
 *
 *   int8  q      (cols / 4, m, 4)   x / scale, round to nearest even
 *   float scale  (groups, m)        amax / 127
 *   int32 init   (groups, m)        -128 * sum(q): what an accumulator starts from, since weights are stored as q + 128
 *   float smin   (groups, m)        scale * sum(q), what a group's min is multiplied by
 *   int32 init16 (2 groups, m)      the same two over halves of 16
 *   float smin16 (2 groups, m)
 *
 * A group that holds a NaN or an infinity has scale NaN and q zero: all its outputs are NaN. One whose largest magnitude
 * is below 2^-100 is zero. */
#ifndef STAVE_KERNEL_PANEL_INT_H
#define STAVE_KERNEL_PANEL_INT_H

#include <stdbool.h>
#include <string.h>

#include "kernel/dtype.h"
#include "kernel/panel_parts.h"

/* How a group of 32 becomes part of an output. dot: sum of weight codes (offset removed) times q.
 *   SYM   acc = fma(dot, ws * scale, acc)
 *   MIN   the same, then acc = fma(min, smin, acc)
 *   TWO   t = dot0 * ws0; t = fma(dot1, ws1, t); acc = fma(t, scale, acc): a scale per 16
 *   MIN2  dot = sum of sub-scale * code * q; acc = fma(dot, d * scale, acc), then a min per 16: two fma */
enum panel_kind { PANEL_SYM, PANEL_MIN, PANEL_TWO, PANEL_MIN2 };

struct panel_layout {
	unsigned char kind, bits;
	unsigned char offset; /* subtracted from a code, a power of two or 0 */
	bool table;           /* codes are indices of panel_values */
	short scales;         /* bytes of a block's scales, 16 rows */
};

/* Zero for the types that are not the integer part's. */
static const struct panel_layout panel_layouts[STAVE_QTYPE_COUNT] = {
	[STAVE_Q_Q8_0]   = {PANEL_SYM,  8, 128, false, 32},
	[STAVE_Q_Q4_0]   = {PANEL_SYM,  4, 8,   false, 32},
	[STAVE_Q_Q4_1]   = {PANEL_MIN,  4, 0,   false, 64},
	[STAVE_Q_Q5_0]   = {PANEL_SYM,  5, 16,  false, 32},
	[STAVE_Q_Q5_1]   = {PANEL_MIN,  5, 0,   false, 64},
	[STAVE_Q_Q2_K]   = {PANEL_MIN2, 2, 0,   false, 64 + 256},
	[STAVE_Q_Q3_K]   = {PANEL_SYM,  3, 4,   false, 32 + 256},
	[STAVE_Q_Q4_K]   = {PANEL_MIN,  4, 0,   false, 64 + 256},
	[STAVE_Q_Q5_K]   = {PANEL_MIN,  5, 0,   false, 64 + 256},
	[STAVE_Q_Q6_K]   = {PANEL_TWO,  6, 32,  false, 32 + 256},
	[STAVE_Q_IQ4_NL] = {PANEL_SYM,  4, 128, true,  32},
	[STAVE_Q_IQ4_XS] = {PANEL_SYM,  4, 128, true,  32 + 128},
	[STAVE_Q_MXFP4]  = {PANEL_SYM,  4, 128, true,  16},
};

/* What a code of the types with a table stands for: IQ4's and E2M1 doubled. */
static const int8_t panel_values_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t panel_values_mxfp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static inline const int8_t *panel_values(enum stave_qtype t)
{
	return t == STAVE_Q_MXFP4 ? panel_values_mxfp4 : panel_values_iq4;
}

enum { PANEL_GROUP = 32, PANEL_QUAD_BYTES = 64 };

static inline size_t panel_scale_bytes(enum stave_qtype t, int cols)
{
	size_t blocks = (size_t)(cols / stave_qtype_info(t).per);
	return (blocks * (size_t)panel_layouts[t].scales + 63) / 64 * 64;
}

/* ---- the operand ---- */

enum { PANEL_TILE = 6 };

static inline int panel_tiles(int n) { return (n + PANEL_TILE - 1) / PANEL_TILE; }
static inline int panel_tile_first(int tile, int n) { return (int)((int64_t)tile * n / panel_tiles(n)); }
static inline int panel_tile_of(int r, int n) { return (int)((((int64_t)r + 1) * panel_tiles(n) - 1) / n); }
static inline size_t panel_operand_row(int cols) { return (size_t)cols + (size_t)(cols / PANEL_GROUP) * 28; }

/* A tile of the operand from some group on. */
struct panel_operand {
	size_t m; /* rows of the tile */
	int8_t *q;
	float *scale, *smin, *smin16;
	int32_t *init, *init16;
};

static inline struct panel_operand panel_operand_tile(const void *operand, int tile, int n, int cols)
{
	size_t first = (size_t)panel_tile_first(tile, n), m = (size_t)panel_tile_first(tile + 1, n) - first;
	size_t groups = (size_t)(cols / PANEL_GROUP) * m;
	struct panel_operand o = {.m = m, .q = (int8_t *)operand + first * panel_operand_row(cols)};
	o.scale = (float *)(void *)(o.q + m * (size_t)cols);
	o.init = (int32_t *)(void *)(o.scale + groups);
	o.smin = (float *)(void *)(o.init + groups);
	o.init16 = (int32_t *)(void *)(o.smin + groups);
	o.smin16 = (float *)(void *)(o.init16 + 2 * groups);
	return o;
}

static inline struct panel_operand panel_operand_at(struct panel_operand o, int group)
{
	size_t g = (size_t)group * o.m;
	o.q += g * PANEL_GROUP;
	o.scale += g;
	o.init += g;
	o.smin += g;
	o.init16 += 2 * g;
	o.smin16 += 2 * g;
	return o;
}

/* Below this a group of activations is zero: 127 / amax would overflow. */
#define PANEL_TINY 0x1p-100f

/* Scratch. With several rows of x, this many groups of two panels are expanded to bytes at a time, 18 to 22 KiB, which stay
 * in the first-level cache; the sums of a block of rows stay beside them or in the second level. */
enum {
	PANEL_CHUNK = 16,
	PANEL_RECORD_MAX = 512 + 3 * 64,
	PANEL_BLOCK_ROWS = 29 * PANEL_TILE,
	PANEL_SUMS_BYTES = PANEL_BLOCK_ROWS * 2 * STAVE_PANEL * 4,
};

#endif
