/* Conversions between float and bf16, the definition. */
#include "kernel/table.h"

void to_bf16_ref(uint16_t *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = stave_f32_to_bf16(x[i]);
}

void from_bf16_ref(float *y, const uint16_t *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = stave_bf16_to_f32(x[i]);
}
