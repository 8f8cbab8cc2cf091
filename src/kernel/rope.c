/* Rotary position embedding (Su et al. 2021) on half-split pairs (i, i + D/2), the definition:
 *
 *     lo' = lo cos - hi sin,  hi' = lo sin + hi cos
 *
 * with cos and sin by position from a table. The transpose of a rotation is its inverse, so the backward pass is the same
 * function with the sine negated. */
#include "kernel/table.h"

void rope_ref(enum stave_dtype dt, bool inverse, void *x, size_t ld, const int32_t *pos, const float *table, int n, int heads,
              int D)
{
	int half = D / 2;
	for (int r = 0; r < n; r++)
		for (int h = 0; h < heads; h++)
			for (int i = 0; i < half; i++) {
				const float *cs = table + ((size_t)pos[r] * half + i) * 2;
				double c = cs[0], s = inverse ? -cs[1] : cs[1];
				size_t at = r * ld + (size_t)h * D + i;
				double lo = stave_get(dt, x, at), hi = stave_get(dt, x, at + half);
				stave_put(dt, x, at, (float)(lo * c - hi * s));
				stave_put(dt, x, at + half, (float)(lo * s + hi * c));
			}
}
