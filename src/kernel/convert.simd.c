/* Conversions between float and bf16, a vector at a time. */
#include "kernel/simd.h"

void STAVE_LEVELED(to_bf16)(uint16_t *y, const float *x, size_t n)
{
	EACH_VECTOR(n, vstore_bf16_n(y + i, vload_n(x + i, m), m););
}

void STAVE_LEVELED(from_bf16)(float *y, const uint16_t *x, size_t n)
{
	EACH_VECTOR(n, vstore_n(y + i, vload_bf16_n(x + i, m), m););
}
