/* Sums and scalings of plain vectors and columns: one pass over memory each. */
#include "kernel/simd.h"

INLINE void add_bias(const enum stave_dtype dt, void *x, const float *bias, size_t n, size_t C)
{
	for (size_t r = 0; r < n; r++)
		EACH_VECTOR(C, vput(dt, x, r * C + i, vadd(vget(dt, x, r * C + i, m), vload_n(bias + i, m)), m););
}

void STAVE_LEVELED(bias_add)(enum stave_dtype dt, void *x, const float *bias, int n, int C)
{
	if (dt == STAVE_F32)
		add_bias(STAVE_F32, x, bias, (size_t)n, (size_t)C);
	else
		add_bias(STAVE_BF16, x, bias, (size_t)n, (size_t)C);
}

/* db += rows [row, row + rows) of dy, summed before they are added, so db is loaded and stored once for the group. */
INLINE void add_rows(const enum stave_dtype dt, const int rows, float *db, const void *dy, size_t ld, size_t row, size_t C)
{
	EACH_VECTOR(C, {
		vf s = vget(dt, dy, row * ld + i, m);
		for (int k = 1; k < rows; k++)
			s = vadd(s, vget(dt, dy, (row + k) * ld + i, m));
		vstore_n(db + i, vadd(vload_n(db + i, m), s), m);
	});
}

INLINE void sum_columns(const enum stave_dtype dt, float *db, const void *dy, size_t ld, size_t n, size_t C)
{
	size_t row = 0;
	for (; row + 8 <= n; row += 8)
		add_rows(dt, 8, db, dy, ld, row, C);
	for (; row < n; row++)
		add_rows(dt, 1, db, dy, ld, row, C);
}

void STAVE_LEVELED(colsum)(enum stave_dtype dt, float *db, const void *dy, size_t ld, int n, int C)
{
	if (dt == STAVE_F32)
		sum_columns(STAVE_F32, db, dy, ld, (size_t)n, (size_t)C);
	else
		sum_columns(STAVE_BF16, db, dy, ld, (size_t)n, (size_t)C);
}

void STAVE_LEVELED(add)(float *y, const float *x, size_t n)
{
	EACH_VECTOR(n, vstore_n(y + i, vadd(vload_n(y + i, m), vload_n(x + i, m)), m););
}

void STAVE_LEVELED(scale)(float *y, float a, size_t n)
{
	EACH_VECTOR(n, vstore_n(y + i, vmul(vload_n(y + i, m), vset(a)), m););
}

double STAVE_LEVELED(sumsq)(const float *x, size_t n)
{
	vd s[2] = {vd_zero(), vd_zero()}; /* four chains of additions in flight */
	size_t at = 0;
	for (; at + 2 * VL <= n; at += 2 * VL) {
		s[0] = vd_add_square(s[0], vload(x + at));
		s[1] = vd_add_square(s[1], vload(x + at + VL));
	}
	EACH_VECTOR(n - at, s[0] = vd_add_square(s[0], vload_n(x + at + i, m)););
	return vd_sum(s[0]) + vd_sum(s[1]);
}
