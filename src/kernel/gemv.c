/* Matrix times vector for decoding, the definition. Rows of W lie ldw apart. */
#include "kernel/table.h"

void gemv_ref(enum stave_dtype dt, float *y, const void *W, size_t ldw, const float *x, int n, int k)
{
	for (int r = 0; r < n; r++) {
		double s = 0;
		for (int i = 0; i < k; i++)
			s += (double)stave_get(dt, W, r * ldw + i) * x[i];
		y[r] = (float)s;
	}
}
