/* Matrix times vector for any vector level. Weights are read once, so memory bandwidth is the limit; ROWS rows at a time share
 * each piece of x and keep as many streams of memory and chains of additions in flight. A row's sum has the same order whether it
 * is computed among others or alone. */
#include "kernel/simd.h"

#define ROWS 4

INLINE void some_rows(enum stave_dtype dt, int rows, float *y, const char *W, size_t row_bytes, const float *x, int k)
{
	vf sum[ROWS];
	for (int r = 0; r < rows; r++)
		sum[r] = vset(0);
	EACH_VECTOR((size_t)k, vf xi = vload_n(x + i, m);
	            for (int r = 0; r < rows; r++) sum[r] = vfma(vget(dt, W + (size_t)r * row_bytes, i, m), xi, sum[r]););
	for (int r = 0; r < rows; r++)
		y[r] = vsum(sum[r]);
}

INLINE void all_rows(enum stave_dtype dt, float *y, const char *W, size_t row_bytes, const float *x, int n, int k)
{
	int r = 0;
	for (; r + ROWS <= n; r += ROWS)
		some_rows(dt, ROWS, y + r, W + (size_t)r * row_bytes, row_bytes, x, k);
	for (; r < n; r++)
		some_rows(dt, 1, y + r, W + (size_t)r * row_bytes, row_bytes, x, k);
}

void STAVE_LEVELED(gemv)(enum stave_dtype dt, float *y, const void *W, size_t ldw, const float *x, int n, int k)
{
	if (dt == STAVE_F32)
		all_rows(STAVE_F32, y, W, ldw * 4, x, n, k);
	else
		all_rows(STAVE_BF16, y, W, ldw * 2, x, n, k);
}
