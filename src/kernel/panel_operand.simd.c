/* The int8 operand for any vector level: panel_int.h defines it, panel_int.c has it in plain C. */
#include <math.h>

#include "kernel/panel_simd.h"

/* Vectors of a group: NV of them, VL lanes each. */
#ifdef __AVX512F__
enum { VL = 16, NV = 2 };
typedef __m512 vf;
typedef __m512i vi;
INLINE vf load(const float *x) { return _mm512_loadu_ps(x); }
INLINE vi magnitude(vf a) { return _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)); }
INLINE vi larger(vi a, vi b) { return _mm512_max_epi32(a, b); }
INLINE int largest(vi a) { return _mm512_reduce_max_epi32(a); }
INLINE vi rounded(vf a, float f) { return _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(f))); }
INLINE int sum_16(const vi *q) { return _mm512_reduce_add_epi32(q[0]); }
INLINE void to_bytes(int8_t *out, const vi *q)
{
	for (int v = 0; v < NV; v++)
		_mm_storeu_si128((__m128i *)(void *)(out + 16 * v), _mm512_cvtepi32_epi8(q[v]));
}
#else
enum { VL = 8, NV = 4 };
typedef __m256 vf;
typedef __m256i vi;
INLINE vf load(const float *x) { return _mm256_loadu_ps(x); }
INLINE vi magnitude(vf a) { return _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7fffffff)); }
INLINE vi larger(vi a, vi b) { return _mm256_max_epi32(a, b); }
INLINE int largest(vi a)
{
	__m128i h = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
	h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
	return _mm_cvtsi128_si32(_mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1)));
}
INLINE vi rounded(vf a, float f) { return _mm256_cvtps_epi32(_mm256_mul_ps(a, _mm256_set1_ps(f))); }
INLINE int sum_16(const vi *q)
{
	__m256i s = _mm256_add_epi32(q[0], q[1]);
	__m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
	h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
	return _mm_cvtsi128_si32(_mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1)));
}
INLINE void to_bytes(int8_t *out, const vi *q)
{
	__m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
	bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
	_mm256_storeu_si256((__m256i *)(void *)out, bytes);
}
#endif

/* Row i of the tile o (at its group) from 32 floats. */
INLINE void make_group(const struct panel_operand *o, size_t i, const float *x)
{
	vf v[NV];
	vi most, q[NV] = {0};
	for (int k = 0; k < NV; k++)
		v[k] = load(x + VL * k);
	most = magnitude(v[0]);
	for (int k = 1; k < NV; k++)
		most = larger(most, magnitude(v[k]));
	const int bits = largest(most);
	float amax, scale = 0;
	memcpy(&amax, &bits, 4);
	if (bits >= 0x7f800000) {
		scale = NAN;
	} else if (amax >= PANEL_TINY) {
		scale = amax / 127;
		for (int k = 0; k < NV; k++)
			q[k] = rounded(v[k], 127 / amax);
	}
	int8_t bytes[PANEL_GROUP];
	to_bytes(bytes, q);
	for (size_t j = 0; j < 8; j++)
		memcpy(o->q + 4 * (j * o->m + i), bytes + 4 * j, 4);
	const int s0 = sum_16(q), s1 = sum_16(q + NV / 2);
	o->scale[i] = scale;
	o->init[i] = -128 * (s0 + s1);
	o->smin[i] = scale * (float)(s0 + s1);
	o->init16[i] = -128 * s0;
	o->init16[o->m + i] = -128 * s1;
	o->smin16[i] = scale * (float)s0;
	o->smin16[o->m + i] = scale * (float)s1;
}

void STAVE_LEVELED(panel_int_operand)(void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1)
{
	for (int r = r0; r < r1; r++) {
		const int tile = panel_tile_of(r, n);
		struct panel_operand o = panel_operand_tile(operand, tile, n, cols);
		const size_t i = (size_t)(r - panel_tile_first(tile, n));
		const float *row = x + (size_t)r * ldx;
		for (int g = 0; g < cols / PANEL_GROUP; g++, row += PANEL_GROUP) {
			make_group(&o, i, row);
			o = panel_operand_at(o, 1);
		}
	}
}
