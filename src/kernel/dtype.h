/* Element types and their scalar conversions. Only static inline: kernels of every vector level include this. */
#ifndef STAVE_KERNEL_DTYPE_H
#define STAVE_KERNEL_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"

static inline float stave_bf16_to_f32(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;
	memcpy(&f, &u, 4);
	return f;
}

/* Round to nearest even; a NaN stays a quiet NaN. */
static inline uint16_t stave_f32_to_bf16(float f)
{
	uint32_t u;
	memcpy(&u, &f, 4);
	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float stave_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023, u;
	if (exp == 31)
		u = sign | 0x7f800000u | man << 13;
	else if (exp)
		u = sign | (exp + 112) << 23 | man << 13;
	else { /* zero or subnormal: man * 2^-24, exact in float */
		float f = (float)man * 0x1p-24f;
		memcpy(&u, &f, 4);
		u |= sign;
	}
	float f;
	memcpy(&f, &u, 4);
	return f;
}

/* Round to nearest even; beyond 65504 (as rounded) it is an infinity; a NaN stays a quiet NaN. */
static inline uint16_t stave_f32_to_f16(float f)
{
	uint32_t u, sign, a;
	memcpy(&u, &f, 4);
	sign = u >> 16 & 0x8000;
	a = u & 0x7fffffffu;
	if (a > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00 | (a >> 13 & 1023));
	if (a >= 0x477ff000u)
		return (uint16_t)(sign | 0x7c00);
	if (a < 0x38800000u) { /* zero or subnormal: next to 0.5 a float counts in 2^-24 */
		float m;
		memcpy(&m, &a, 4);
		m += 0.5f;
		memcpy(&a, &m, 4);
		return (uint16_t)(sign | (a - 0x3f000000u));
	}
	a += 0xfff + (a >> 13 & 1);
	return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

/* Element i of an array of activations (f32 or bf16), for the reference kernels. */
static inline float stave_get(enum stave_dtype dt, const void *x, size_t i)
{
	return dt == STAVE_F32 ? ((const float *)x)[i] : stave_bf16_to_f32(((const uint16_t *)x)[i]);
}
static inline void stave_put(enum stave_dtype dt, void *x, size_t i, float v)
{
	if (dt == STAVE_F32)
		((float *)x)[i] = v;
	else
		((uint16_t *)x)[i] = stave_f32_to_bf16(v);
}

#endif
