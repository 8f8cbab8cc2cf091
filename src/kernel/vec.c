/* Sums and scalings of plain vectors and columns, the definition. */
#include "kernel/table.h"

void bias_add_ref(enum stave_dtype dt, void *x, const float *bias, int n, int C)
{
	for (int r = 0; r < n; r++)
		for (int c = 0; c < C; c++)
			stave_put(dt, x, (size_t)r * C + c, stave_get(dt, x, (size_t)r * C + c) + bias[c]);
}

void colsum_ref(enum stave_dtype dt, float *db, const void *dy, size_t ld, int n, int C)
{
	for (int c = 0; c < C; c++) {
		double sum = 0;
		for (int r = 0; r < n; r++)
			sum += stave_get(dt, dy, r * ld + c);
		db[c] = (float)(db[c] + sum);
	}
}

void add_ref(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
}

void scale_ref(float *y, float a, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] *= a;
}

double sumsq_ref(const float *x, size_t n)
{
	double sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	return sum;
}
