/* Rotary embedding: the cosines and sines of a position are loaded and split once per vector of pairs and used for all
 * heads of the row, which lies in the first-level cache. */
#include "kernel/simd.h"

/* The m pairs from pair i on, for every head of one row. */
INLINE void rotate(const enum stave_dtype dt, const bool inverse, void *x, size_t row, const float *cs, size_t heads, size_t D,
                   size_t i, size_t m)
{
	const size_t half = D / 2;
	vf c, s;
	vf a = vload_n(cs + 2 * i, 2 * m < VL ? 2 * m : VL);
	vf b = 2 * m > VL ? vload_n(cs + 2 * i + VL, 2 * m - VL) : vset(0);
	vunzip(a, b, &c, &s);
	if (inverse)
		s = vsub(vset(0), s);
	for (size_t h = 0; h < heads; h++) {
		size_t at = row + h * D + i;
		vf lo = vget(dt, x, at, m), hi = vget(dt, x, at + half, m);
		vput(dt, x, at, vfnma(hi, s, vmul(lo, c)), m);
		vput(dt, x, at + half, vfma(lo, s, vmul(hi, c)), m);
	}
}

INLINE void rows(const enum stave_dtype dt, const bool inverse, void *x, size_t ld, const int32_t *pos, const float *table,
                 size_t n, size_t heads, size_t D)
{
	for (size_t r = 0; r < n; r++) {
		const float *cs = table + (size_t)pos[r] * D;
		EACH_VECTOR(D / 2, rotate(dt, inverse, x, r * ld, cs, heads, D, i, m););
	}
}

void STAVE_LEVELED(rope)(enum stave_dtype dt, bool inverse, void *x, size_t ld, const int32_t *pos, const float *table, int n,
                         int heads, int D)
{
	if (dt == STAVE_F32)
		rows(STAVE_F32, inverse, x, ld, pos, table, (size_t)n, (size_t)heads, (size_t)D);
	else
		rows(STAVE_BF16, inverse, x, ld, pos, table, (size_t)n, (size_t)heads, (size_t)D);
}
