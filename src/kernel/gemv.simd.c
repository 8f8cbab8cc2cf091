/* Matrix times vector for any vector level. Weights are read once, so memory bandwidth is the limit: rows are taken one after the
 * other, in the order of memory, which the hardware prefetches best; CHAINS sums per row hide the latency of addition. */
#include "kernel/simd.h"

#define CHAINS 4

INLINE float one_row(enum stave_dtype dt, const char *w, const float *x, size_t k)
{
	vf sum[CHAINS];
	size_t whole = k / (CHAINS * VL) * (CHAINS * VL), size = dt == STAVE_F32 ? 4 : 2;
	for (int c = 0; c < CHAINS; c++)
		sum[c] = vset(0);
	for (size_t j = 0; j < whole; j += CHAINS * VL)
		for (int c = 0; c < CHAINS; c++)
			sum[c] = vfma(vget(dt, w, j + c * VL, VL), vload(x + j + c * VL), sum[c]);
	EACH_VECTOR(k - whole, sum[0] = vfma(vget(dt, w + whole * size, i, m), vload_n(x + whole + i, m), sum[0]););
	return vsum(vadd(vadd(sum[0], sum[1]), vadd(sum[2], sum[3])));
}

void STAVE_LEVELED(gemv)(enum stave_dtype dt, float *y, const void *W, size_t ldw, const float *x, int n, int k)
{
	const char *w = W;
	for (int r = 0; r < n; r++)
		if (dt == STAVE_F32)
			y[r] = one_row(STAVE_F32, w + r * ldw * 4, x, (size_t)k);
		else
			y[r] = one_row(STAVE_BF16, w + r * ldw * 2, x, (size_t)k);
}
