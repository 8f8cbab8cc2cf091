/* RMSNorm of every head of q or k on its own (Qwen3), the definition; the equations are those of norm.c with rows of D. */
#include <math.h>

#include "kernel/table.h"

void headnorm_fwd_ref(enum stave_dtype dt, void *y, size_t ldy, float *rstd, const void *x, size_t ldx, const float *gain,
                      float eps, int n, int heads, int D)
{
	for (int r = 0; r < n; r++)
		for (int h = 0; h < heads; h++) {
			size_t xo = r * ldx + (size_t)h * D, yo = r * ldy + (size_t)h * D;
			double var = 0;
			for (int d = 0; d < D; d++)
				var += (double)stave_get(dt, x, xo + d) * stave_get(dt, x, xo + d);
			double rs = 1 / sqrt(var / D + eps);
			for (int d = 0; d < D; d++)
				stave_put(dt, y, yo + d, (float)(stave_get(dt, x, xo + d) * rs * gain[d]));
			rstd[(size_t)r * heads + h] = (float)rs;
		}
}

void headnorm_bwd_ref(float *dy, size_t lddy, float *dgain, const void *x, enum stave_dtype dt, size_t ldx, const float *rstd,
                      const float *gain, int n, int heads, int D)
{
	for (int d = 0; d < D; d++) {
		double dg = 0;
		for (int r = 0; r < n; r++)
			for (int h = 0; h < heads; h++)
				dg += (double)dy[r * lddy + (size_t)h * D + d] * stave_get(dt, x, r * ldx + (size_t)h * D + d) *
				      rstd[(size_t)r * heads + h];
		dgain[d] = (float)(dgain[d] + dg);
	}
	for (int r = 0; r < n; r++)
		for (int h = 0; h < heads; h++) {
			float *g = dy + r * lddy + (size_t)h * D;
			size_t xo = r * ldx + (size_t)h * D;
			double rs = rstd[(size_t)r * heads + h], sum = 0;
			for (int d = 0; d < D; d++)
				sum += (double)g[d] * gain[d] * stave_get(dt, x, xo + d) * rs;
			for (int d = 0; d < D; d++)
				g[d] = (float)(rs * ((double)g[d] * gain[d] - stave_get(dt, x, xo + d) * rs * sum / D));
		}
}
