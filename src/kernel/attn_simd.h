/* Vector pieces only attention needs, over the vector layer of simd.h: 2^x, the causal mask, a transpose. */
#ifndef STAVE_KERNEL_ATTN_SIMD_H
#define STAVE_KERNEL_ATTN_SIMD_H

#include "kernel/simd.h"

/* 2^x for x <= 126, relative error below 2e-7; 0 below -150, also for -inf. NaN to NaN. The softmax works in base 2, since then
 * the range reduction is one rounding and the factor log2(e) hides in the scale. The polynomial is minimax in relative
 * error on [-1/2, 1/2] (9e-8 before rounding) with the constant term held at 1, so that 2^0 is exactly 1. */
INLINE vf vexp2(vf x)
{
	x = vmax(vset(-200.f), x);
	vf n = vround(x), r = vsub(x, n);
	vf p = vset(1.32647273e-3f);
	p = vfma(p, r, vset(9.67151299e-3f));
	p = vfma(p, r, vset(5.55073358e-2f));
	p = vfma(p, r, vset(2.40222424e-1f));
	p = vfma(p, r, vset(6.93147004e-1f));
	p = vfma(p, r, vset(1.f));
	return vpow2(p, n);
}

/* Lane l is key col + l: those outside first .. last become -inf. */
INLINE vf mask_keys(vf s, int col, int first, int last)
{
#ifdef __AVX512F__
	__m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	__m512i key = _mm512_add_epi32(lane, _mm512_set1_epi32(col));
	__mmask16 seen = _mm512_cmple_epi32_mask(key, _mm512_set1_epi32(last)) & _mm512_cmpge_epi32_mask(key, _mm512_set1_epi32(first));
	return _mm512_mask_mov_ps(vset(-__builtin_inff()), seen, s);
#else
	__m256i key = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(col));
	__m256i hidden = _mm256_or_si256(_mm256_cmpgt_epi32(key, _mm256_set1_epi32(last)),
	                                 _mm256_cmpgt_epi32(_mm256_set1_epi32(first), key));
	return _mm256_blendv_ps(s, vset(-__builtin_inff()), _mm256_castsi256_ps(hidden));
#endif
}

/* y[c][r] = x[r][c] for VL x VL four-byte units, rows ldx and ldy apart. */
#ifdef __AVX512F__
INLINE void transpose(float *y, size_t ldy, const float *x, size_t ldx)
{
	__m512 a[16], b[16];
#pragma GCC unroll 16
	for (int r = 0; r < 16; r++)
		a[r] = vload(x + r * ldx);
	/* 4x4 blocks of lanes transpose within their 128-bit quarter, in two steps of interleaving */
#pragma GCC unroll 8
	for (int r = 0; r < 16; r += 2) {
		b[r] = _mm512_unpacklo_ps(a[r], a[r + 1]);
		b[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
	}
#pragma GCC unroll 4
	for (int r = 0; r < 16; r += 4)
#pragma GCC unroll 2
		for (int h = 0; h < 2; h++) {
			__m512d lo = _mm512_castps_pd(b[r + h]), hi = _mm512_castps_pd(b[r + h + 2]);
			a[r + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
			a[r + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
		}
	/* then the 4x4 arrangement of quarters: a[4 g + i] holds in quarter q the column 4 q + i of rows 4 g .. 4 g + 3 */
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		__m512 lo01 = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88), hi01 = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
		__m512 lo23 = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88), hi23 = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
		vstore(y + i * ldy, _mm512_shuffle_f32x4(lo01, lo23, 0x88));
		vstore(y + (8 + i) * ldy, _mm512_shuffle_f32x4(lo01, lo23, 0xdd));
		vstore(y + (4 + i) * ldy, _mm512_shuffle_f32x4(hi01, hi23, 0x88));
		vstore(y + (12 + i) * ldy, _mm512_shuffle_f32x4(hi01, hi23, 0xdd));
	}
}
#else
INLINE void transpose(float *y, size_t ldy, const float *x, size_t ldx)
{
	__m256 a[8], b[8];
#pragma GCC unroll 8
	for (int r = 0; r < 8; r++)
		a[r] = vload(x + r * ldx);
	/* 4x4 blocks of lanes transpose within their 128-bit half, in two steps of interleaving */
#pragma GCC unroll 4
	for (int r = 0; r < 8; r += 2) {
		b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
		b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
	}
#pragma GCC unroll 2
	for (int r = 0; r < 8; r += 4)
#pragma GCC unroll 2
		for (int h = 0; h < 2; h++) {
			__m256d lo = _mm256_castps_pd(b[r + h]), hi = _mm256_castps_pd(b[r + h + 2]);
			a[r + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(lo, hi));
			a[r + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(lo, hi));
		}
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		vstore(y + i * ldy, _mm256_permute2f128_ps(a[i], a[4 + i], 0x20));
		vstore(y + (4 + i) * ldy, _mm256_permute2f128_ps(a[i], a[4 + i], 0x31));
	}
}
#endif

#endif
