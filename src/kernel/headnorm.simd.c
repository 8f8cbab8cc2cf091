/* RMSNorm of every head of q or k: short rows (D is 64 to 256) that lie apart, two passes over a row in the cache. */
#include "kernel/simd.h"

#include <math.h>

INLINE void forward(const enum stave_dtype dt, void *y, size_t ldy, float *rstd, const void *x, size_t ldx, const float *gain,
                    float eps, size_t n, size_t heads, size_t D)
{
	for (size_t r = 0; r < n; r++)
		for (size_t h = 0; h < heads; h++) {
			size_t xo = r * ldx + h * D, yo = r * ldy + h * D;
			vf s = vset(0);
			EACH_VECTOR(D, {
				vf a = vget(dt, x, xo + i, m);
				s = vfma(a, a, s);
			});
			float rs = 1 / sqrtf(vsum(s) / (float)D + eps);
			EACH_VECTOR(D, {
				vf xhat = vmul(vget(dt, x, xo + i, m), vset(rs));
				vput(dt, y, yo + i, vmul(xhat, vload_n(gain + i, m)), m);
			});
			rstd[r * heads + h] = rs;
		}
}

void STAVE_LEVELED(headnorm_fwd)(enum stave_dtype dt, void *y, size_t ldy, float *rstd, const void *x, size_t ldx,
                                 const float *gain, float eps, int n, int heads, int D)
{
	if (dt == STAVE_F32)
		forward(STAVE_F32, y, ldy, rstd, x, ldx, gain, eps, (size_t)n, (size_t)heads, (size_t)D);
	else
		forward(STAVE_BF16, y, ldy, rstd, x, ldx, gain, eps, (size_t)n, (size_t)heads, (size_t)D);
}

INLINE void backward(const enum stave_dtype dt, float *dy, size_t lddy, float *dgain, const void *x, size_t ldx,
                     const float *rstd, const float *gain, size_t n, size_t heads, size_t D)
{
	for (size_t r = 0; r < n; r++)
		for (size_t h = 0; h < heads; h++) {
			float *g = dy + r * lddy + h * D;
			size_t xo = r * ldx + h * D;
			float rs = rstd[r * heads + h];
			vf vrs = vset(rs), s = vset(0);
			EACH_VECTOR(D, {
				vf xhat = vmul(vget(dt, x, xo + i, m), vrs);
				vf d = vload_n(g + i, m);
				vstore_n(dgain + i, vfma(d, xhat, vload_n(dgain + i, m)), m);
				s = vfma(vmul(d, vload_n(gain + i, m)), xhat, s);
			});
			vf mean = vset(vsum(s) / (float)D);
			EACH_VECTOR(D, {
				vf xhat = vmul(vget(dt, x, xo + i, m), vrs);
				vf a = vmul(vload_n(g + i, m), vload_n(gain + i, m));
				vstore_n(g + i, vmul(vrs, vfnma(xhat, mean, a)), m);
			});
		}
}

void STAVE_LEVELED(headnorm_bwd)(float *dy, size_t lddy, float *dgain, const void *x, enum stave_dtype dt, size_t ldx,
                                 const float *rstd, const float *gain, int n, int heads, int D)
{
	if (dt == STAVE_F32)
		backward(STAVE_F32, dy, lddy, dgain, x, ldx, rstd, gain, (size_t)n, (size_t)heads, (size_t)D);
	else
		backward(STAVE_BF16, dy, lddy, dgain, x, ldx, rstd, gain, (size_t)n, (size_t)heads, (size_t)D);
}
