/* The vector layer of x.simd.c files: one float vector type `vf` of VL lanes and the operations kernels are written in, over
 * AVX2 (8 lanes) or AVX-512 (16 lanes). A kernel is written once; the build compiles it per level, and STAVE_LEVELED
 * suffixes its name.
 *
 * Tails: vload_n and vstore_n take a count 1..VL; lanes beyond it load as zero and are not stored, nor is memory beyond it
 * touched. A count that is the constant VL costs nothing extra, which is what EACH_VECTOR relies on: its body is expanded
 * once with m = VL for the whole vectors and once for the tail.
 *
 * Results are the same for the same values wherever they stand in a row, so a row computed alone equals the row computed
 * in a batch. No operation depends on alignment. NaN propagates through all of them except where said. */
#ifndef STAVE_KERNEL_SIMD_H
#define STAVE_KERNEL_SIMD_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernel/dtype.h"
#include "kernel/table.h"

#define STAVE_PASTE_(name, level) name##_##level
#define STAVE_PASTE(name, level) STAVE_PASTE_(name, level)
#define STAVE_LEVELED(name) STAVE_PASTE(name, STAVE_LEVEL)

/* Bodies that are specialised by constant arguments (the dtype, a flag) must be inlined into the dispatch. */
#define INLINE static inline __attribute__((always_inline))

/* Run the body for i = 0, VL, 2 VL ... below n; m lanes are live, a constant in the first expansion. */
#define EACH_VECTOR(n, ...)                                                  \
	do {                                                                 \
		const size_t n_ = (n);                                       \
		size_t i = 0;                                                \
		for (; i + VL <= n_; i += VL) {                              \
			const size_t m = VL;                                 \
			__VA_ARGS__                                          \
		}                                                            \
		if (i < n_) {                                                \
			const size_t m = n_ - i;                             \
			__VA_ARGS__                                          \
		}                                                            \
	} while (0)

#ifdef __AVX512F__

#define VL 16
typedef __m512 vf;

INLINE vf vset(float a) { return _mm512_set1_ps(a); }
INLINE vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }   /* a b + c */
INLINE vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); } /* b if either is NaN */
INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); } /* b if either is NaN */
INLINE vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
INLINE vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vabs(vf a) { return _mm512_abs_ps(a); }
/* neg where a's sign bit is set, else pos */
INLINE vf vbysign(vf a, vf neg, vf pos) { return _mm512_mask_mov_ps(pos, _mm512_movepi32_mask(_mm512_castps_si512(a)), neg); }
INLINE vf vpow2(vf p, vf n) { return _mm512_scalef_ps(p, n); } /* p 2^n, n a whole number; overflows to inf, underflows gradually */

/* Both sum and maximum fold halves, so the order is fixed. */
INLINE float vsum(vf a) { return _mm512_reduce_add_ps(a); }
INLINE float vhmax(vf a) { return _mm512_reduce_max_ps(a); }

INLINE __mmask16 lanes(size_t n) { return (__mmask16)_bzhi_u32(0xffff, (unsigned)n); }

INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vstore(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE vf vload_n(const float *p, size_t n) { return n == VL ? vload(p) : _mm512_maskz_loadu_ps(lanes(n), p); }
INLINE void vstore_n(float *p, vf a, size_t n)
{
	if (n == VL)
		vstore(p, a);
	else
		_mm512_mask_storeu_ps(p, lanes(n), a);
}

INLINE vf widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }

/* Round to nearest even. The instruction takes subnormal inputs as zero, which the integer form keeps. */
INLINE __m256i narrow_bf16(vf a)
{
#ifdef __AVX512BF16__
	return (__m256i)_mm512_cvtneps_pbh(a);
#else
	__m512i u = _mm512_castps_si512(a), high = _mm512_srli_epi32(u, 16);
	__m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
	__m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
	r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), high, _mm512_set1_epi32(0x40));
	return _mm512_cvtepi32_epi16(r);
#endif
}

INLINE vf vload_bf16(const uint16_t *p) { return widen_bf16(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void vstore_bf16(uint16_t *p, vf a) { _mm256_storeu_si256((__m256i *)p, narrow_bf16(a)); }
INLINE vf vload_bf16_n(const uint16_t *p, size_t n)
{
	return n == VL ? vload_bf16(p) : widen_bf16(_mm256_maskz_loadu_epi16(lanes(n), p));
}
INLINE void vstore_bf16_n(uint16_t *p, vf a, size_t n)
{
	if (n == VL)
		vstore_bf16(p, a);
	else
		_mm256_mask_storeu_epi16(p, lanes(n), narrow_bf16(a));
}

/* Split 2 VL interleaved floats into their even and odd places: the cosines and sines of the rotary table. */
INLINE void vunzip(vf a, vf b, vf *even, vf *odd)
{
	const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
	*even = _mm512_permutex2var_ps(a, e, b);
	*odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}

/* acc += a a, in double. */
typedef struct { __m512d lo, hi; } vd;
INLINE vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
INLINE vd vd_add_square(vd acc, vf a)
{
	__m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a)), hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
	return (vd){_mm512_fmadd_pd(lo, lo, acc.lo), _mm512_fmadd_pd(hi, hi, acc.hi)};
}
INLINE double vd_sum(vd a) { return _mm512_reduce_add_pd(_mm512_add_pd(a.lo, a.hi)); }

#else /* AVX2 */

#define VL 8
typedef __m256 vf;

INLINE vf vset(float a) { return _mm256_set1_ps(a); }
INLINE vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }   /* a b + c */
INLINE vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); } /* b if either is NaN */
INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); } /* b if either is NaN */
INLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
INLINE vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

INLINE vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a); }
/* neg where a's sign bit is set, else pos */
INLINE vf vbysign(vf a, vf neg, vf pos) { return _mm256_blendv_ps(pos, neg, a); }

/* p 2^n, n a whole number within ±252; overflows to inf, underflows gradually. In two factors, since 2^n alone need not
 * be a float. */
INLINE vf vpow2(vf p, vf n)
{
	__m256i k = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(k, 1), rest = _mm256_sub_epi32(k, half);
	__m256i one = _mm256_set1_epi32(127);
	p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, one), 23)));
	return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, one), 23)));
}

/* Both sum and maximum fold halves, so the order is fixed. */
INLINE float vsum(vf a)
{
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float vhmax(vf a)
{
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

INLINE __m256i lanes(size_t n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vstore(float *p, vf a) { _mm256_storeu_ps(p, a); }
INLINE vf vload_n(const float *p, size_t n) { return n == VL ? vload(p) : _mm256_maskload_ps(p, lanes(n)); }
INLINE void vstore_n(float *p, vf a, size_t n)
{
	if (n == VL)
		vstore(p, a);
	else
		_mm256_maskstore_ps(p, lanes(n), a);
}

INLINE vf widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }

/* Round to nearest even; a NaN stays a quiet NaN. */
INLINE __m128i narrow_bf16(vf a)
{
	__m256i u = _mm256_castps_si256(a), high = _mm256_srli_epi32(u, 16);
	__m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
	__m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
	r = _mm256_blendv_epi8(r, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
	return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

INLINE vf vload_bf16(const uint16_t *p) { return widen_bf16(_mm_loadu_si128((const __m128i *)p)); }
INLINE void vstore_bf16(uint16_t *p, vf a) { _mm_storeu_si128((__m128i *)p, narrow_bf16(a)); }
/* AVX2 has no 16-bit masks; tails go through a small array. */
INLINE vf vload_bf16_n(const uint16_t *p, size_t n)
{
	if (n == VL)
		return vload_bf16(p);
	uint16_t t[VL] = {0};
	for (size_t i = 0; i < n; i++)
		t[i] = p[i];
	return vload_bf16(t);
}
INLINE void vstore_bf16_n(uint16_t *p, vf a, size_t n)
{
	uint16_t t[VL];
	vstore_bf16(n == VL ? p : t, a);
	if (n != VL)
		for (size_t i = 0; i < n; i++)
			p[i] = t[i];
}

/* Split 2 VL interleaved floats into their even and odd places: the cosines and sines of the rotary table. */
INLINE void vunzip(vf a, vf b, vf *even, vf *odd)
{
	vf lo = _mm256_permute2f128_ps(a, b, 0x20), hi = _mm256_permute2f128_ps(a, b, 0x31);
	*even = _mm256_shuffle_ps(lo, hi, 0x88);
	*odd = _mm256_shuffle_ps(lo, hi, 0xdd);
}

/* acc += a a, in double. */
typedef struct { __m256d lo, hi; } vd;
INLINE vd vd_zero(void) { return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
INLINE vd vd_add_square(vd acc, vf a)
{
	__m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(a)), hi = _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
	return (vd){_mm256_fmadd_pd(lo, lo, acc.lo), _mm256_fmadd_pd(hi, hi, acc.hi)};
}
INLINE double vd_sum(vd a)
{
	__m256d s = _mm256_add_pd(a.lo, a.hi);
	__m128d t = _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd(s, 1));
	return _mm_cvtsd_f64(_mm_add_sd(t, _mm_unpackhi_pd(t, t)));
}

#endif

/* Activations: element i of an array of type dt, which is a constant after inlining. */
INLINE vf vget(enum stave_dtype dt, const void *x, size_t i, size_t n)
{
	return dt == STAVE_F32 ? vload_n((const float *)x + i, n) : vload_bf16_n((const uint16_t *)x + i, n);
}
INLINE void vput(enum stave_dtype dt, void *x, size_t i, vf a, size_t n)
{
	if (dt == STAVE_F32)
		vstore_n((float *)x + i, a, n);
	else
		vstore_bf16_n((uint16_t *)x + i, a, n);
}

/* a with lanes from n on set to zero, for values that are not zero just because their inputs are. */
INLINE vf vlanes(vf a, size_t n)
{
#ifdef __AVX512F__
	return n == VL ? a : _mm512_maskz_mov_ps(lanes(n), a);
#else
	return n == VL ? a : _mm256_and_ps(a, _mm256_castsi256_ps(lanes(n)));
#endif
}

/* exp(x): relative error below 1e-7 (8.2e-8 at worst, over one float in 97), subnormal results within one unit of their last
 * place, inf above 88.73, 0 below -104, NaN to NaN. Reduction to |r| <= ln2/2 with ln2 in two parts (Cody & Waite 1980),
 * then our own minimax polynomial. The operand order of the clamps lets NaN through. */
INLINE vf vexp(vf x)
{
	x = vmax(vset(-105.f), vmin(vset(89.f), x));
	vf n = vround(vmul(x, vset(1.44269504089f)));
	vf r = vfnma(n, vset(0.693359375f), x);
	r = vfnma(n, vset(-2.12194440e-4f), r);
	vf p = vset(0x1.6a21acp-10f);
	p = vfma(p, r, vset(0x1.123b6ap-7f));
	p = vfma(p, r, vset(0x1.5558fap-5f));
	p = vfma(p, r, vset(0x1.55549p-3f));
	p = vfma(p, r, vset(0x1.fffffcp-2f));
	p = vfma(vmul(r, r), p, r);
	return vpow2(vadd(p, vset(1.f)), n);
}

/* 1 / (1 + exp(-x)) */
INLINE vf vsigmoid(vf x)
{
	return vdiv(vset(1.f), vadd(vset(1.f), vexp(vsub(vset(0.f), x))));
}

#endif
