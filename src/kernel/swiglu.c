/* SwiGLU (Shazeer 2020), the definition: y = silu(g) u, silu(g) = g s with s = 1 / (1 + exp(-g)); silu'(g) = s (1 + g (1 - s)). */
#include <math.h>

#include "kernel/table.h"

void swiglu_fwd_ref(enum stave_dtype dt, void *y, const void *gu, int n, int I)
{
	for (int r = 0; r < n; r++)
		for (int i = 0; i < I; i++) {
			size_t at = (size_t)r * 2 * I + i;
			double g = stave_get(dt, gu, at), u = stave_get(dt, gu, at + I);
			stave_put(dt, y, (size_t)r * I + i, (float)(g / (1 + exp(-g)) * u));
		}
}

void swiglu_bwd_ref(enum stave_dtype dt, void *dgu, const void *dy, const void *gu, int n, int I)
{
	for (int r = 0; r < n; r++)
		for (int i = 0; i < I; i++) {
			size_t at = (size_t)r * 2 * I + i;
			double g = stave_get(dt, gu, at), u = stave_get(dt, gu, at + I), d = stave_get(dt, dy, (size_t)r * I + i);
			double s = 1 / (1 + exp(-g));
			stave_put(dt, dgu, at, (float)(d * u * s * (1 + g * (1 - s))));
			stave_put(dt, dgu, at + I, (float)(d * g * s));
		}
}
