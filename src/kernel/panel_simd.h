/* The vector layer of panel_int.simd.c: sixteen rows side by side, as 64 bytes of codes (`ri`, also sixteen int32) and
 * sixteen floats (`rf`). AVX-512 holds each in one register, AVX2 in two; nothing else differs, so one source gives the
 * same bits at every level. Only what the panels need is here. */
#ifndef STAVE_KERNEL_PANEL_SIMD_H
#define STAVE_KERNEL_PANEL_SIMD_H

#include <immintrin.h>

#include "kernel/panel_int.h"

#define STAVE_PASTE_(name, level) name##_##level
#define STAVE_PASTE(name, level) STAVE_PASTE_(name, level)
#define STAVE_LEVELED(name) STAVE_PASTE(name, STAVE_LEVEL)
#define INLINE static inline __attribute__((always_inline))

INLINE int load_int(const void *p)
{
	int i;
	memcpy(&i, p, 4);
	return i;
}

#ifdef __AVX512F__

enum { SUB = 6 }; /* rows of x whose integer sums (of two panels) are in registers at once */

typedef __m512i ri;
typedef __m512 rf;

INLINE ri ri_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void ri_store(void *p, ri a) { _mm512_storeu_si512(p, a); }
INLINE ri ri_set(int a) { return _mm512_set1_epi32(a); }
INLINE ri ri_zero(void) { return _mm512_setzero_si512(); }
INLINE ri ri_and(ri a, ri b) { return _mm512_and_si512(a, b); }
INLINE ri ri_or_and(ri a, ri b, ri mask) { return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); } /* a | (b & mask) */
INLINE ri ri_add(ri a, ri b) { return _mm512_add_epi32(a, b); }
INLINE ri ri_add8(ri a, ri b) { return _mm512_add_epi8(a, b); }
INLINE ri ri_add16(ri a, ri b) { return _mm512_add_epi16(a, b); }
INLINE ri ri_sub16(ri a, ri b) { return _mm512_sub_epi16(a, b); }
INLINE ri ri_mul16(ri a, ri b) { return _mm512_mullo_epi16(a, b); }
INLINE ri ri_max(ri a, ri b) { return _mm512_max_epi32(a, b); }
#define ri_srl16(a, n) _mm512_srli_epi16(a, n)
#define ri_sll16(a, n) _mm512_slli_epi16(a, n)
#define ri_sll32(a, n) _mm512_slli_epi32(a, n)
#define ri_sra32(a, n) _mm512_srai_epi32(a, n)
INLINE ri ri_lookup(__m128i table, ri index) { return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index); }
INLINE ri ri_signed(__m128i bytes) { return _mm512_cvtepi8_epi32(bytes); }
INLINE ri ri_unsigned(__m128i bytes) { return _mm512_cvtepu8_epi32(bytes); }
/* The low half of each of the sixteen into both halves. */
INLINE ri ri_pair(ri a) { return _mm512_mask_blend_epi16(0xaaaaaaaau, a, _mm512_slli_epi32(a, 16)); }

INLINE rf rf_of(ri a) { return _mm512_cvtepi32_ps(a); }
INLINE rf rf_bits(ri a) { return _mm512_castsi512_ps(a); }
INLINE rf rf_set(float a) { return _mm512_set1_ps(a); }
INLINE rf rf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void rf_store(float *p, rf a) { _mm512_storeu_ps(p, a); }
/* The first n of sixteen; the others load as zero and are not touched. */
INLINE rf rf_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void rf_store_n(float *p, rf a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
INLINE rf rf_half(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
INLINE rf rf_mul(rf a, rf b) { return _mm512_mul_ps(a, b); }
INLINE rf rf_add(rf a, rf b) { return _mm512_add_ps(a, b); }
INLINE rf rf_fma(rf a, rf b, rf c) { return _mm512_fmadd_ps(a, b, c); }

/* acc += the dot product of each row's four codes (unsigned) with the four signed bytes of x's. Without VNNI the bytes are
 * widened, even and odd ones apart: pairs of products of bytes do not fit 16 bits. */
INLINE ri ri_dot(ri acc, ri w, ri x)
{
#ifdef __AVX512VNNI__
	return _mm512_dpbusd_epi32(acc, w, x);
#else
	ri even = _mm512_madd_epi16(_mm512_and_si512(w, _mm512_set1_epi16(255)), _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8));
	ri odd = _mm512_madd_epi16(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(x, 8));
	return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
#endif
}

#else

enum { SUB = 2 };

typedef struct { __m256i a, b; } ri;
typedef struct { __m256 a, b; } rf;

#define BOTH(type, op, ...) ((type){op(x.a, ##__VA_ARGS__), op(x.b, ##__VA_ARGS__)})
INLINE ri ri_load(const void *p) { return (ri){_mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1)}; }
INLINE void ri_store(void *p, ri x)
{
	_mm256_storeu_si256(p, x.a);
	_mm256_storeu_si256((__m256i *)p + 1, x.b);
}
INLINE ri ri_set(int a) { return (ri){_mm256_set1_epi32(a), _mm256_set1_epi32(a)}; }
INLINE ri ri_zero(void) { return (ri){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE ri ri_and(ri x, ri y) { return (ri){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
INLINE ri ri_or_and(ri x, ri y, ri mask)
{
	y = ri_and(y, mask);
	return (ri){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
INLINE ri ri_add(ri x, ri y) { return (ri){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
INLINE ri ri_add8(ri x, ri y) { return (ri){_mm256_add_epi8(x.a, y.a), _mm256_add_epi8(x.b, y.b)}; }
INLINE ri ri_add16(ri x, ri y) { return (ri){_mm256_add_epi16(x.a, y.a), _mm256_add_epi16(x.b, y.b)}; }
INLINE ri ri_sub16(ri x, ri y) { return (ri){_mm256_sub_epi16(x.a, y.a), _mm256_sub_epi16(x.b, y.b)}; }
INLINE ri ri_mul16(ri x, ri y) { return (ri){_mm256_mullo_epi16(x.a, y.a), _mm256_mullo_epi16(x.b, y.b)}; }
INLINE ri ri_max(ri x, ri y) { return (ri){_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
#define ri_srl16(y, n) ((ri){_mm256_srli_epi16((y).a, n), _mm256_srli_epi16((y).b, n)})
#define ri_sll16(y, n) ((ri){_mm256_slli_epi16((y).a, n), _mm256_slli_epi16((y).b, n)})
#define ri_sll32(y, n) ((ri){_mm256_slli_epi32((y).a, n), _mm256_slli_epi32((y).b, n)})
#define ri_sra32(y, n) ((ri){_mm256_srai_epi32((y).a, n), _mm256_srai_epi32((y).b, n)})
INLINE ri ri_lookup(__m128i table, ri x)
{
	__m256i t = _mm256_broadcastsi128_si256(table);
	return (ri){_mm256_shuffle_epi8(t, x.a), _mm256_shuffle_epi8(t, x.b)};
}
INLINE ri ri_signed(__m128i bytes) { return (ri){_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))}; }
INLINE ri ri_unsigned(__m128i bytes) { return (ri){_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))}; }
INLINE ri ri_pair(ri x)
{
	ri high = ri_sll32(x, 16);
	return (ri){_mm256_blend_epi16(x.a, high.a, 0xaa), _mm256_blend_epi16(x.b, high.b, 0xaa)};
}

INLINE rf rf_of(ri x) { return BOTH(rf, _mm256_cvtepi32_ps); }
INLINE rf rf_bits(ri x) { return BOTH(rf, _mm256_castsi256_ps); }
INLINE rf rf_set(float a) { return (rf){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
INLINE rf rf_load(const float *p) { return (rf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void rf_store(float *p, rf x)
{
	_mm256_storeu_ps(p, x.a);
	_mm256_storeu_ps(p + 8, x.b);
}
INLINE __m256i first(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
INLINE rf rf_load_n(const float *p, int n)
{
	return (rf){_mm256_maskload_ps(p, first(n)), _mm256_maskload_ps(p + 8, first(n - 8))};
}
INLINE void rf_store_n(float *p, rf x, int n)
{
	_mm256_maskstore_ps(p, first(n), x.a);
	_mm256_maskstore_ps(p + 8, first(n - 8), x.b);
}
INLINE rf rf_half(const void *p)
{
	return (rf){_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1))};
}
INLINE rf rf_mul(rf x, rf y) { return (rf){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE rf rf_add(rf x, rf y) { return (rf){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE rf rf_fma(rf x, rf y, rf z) { return (rf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }

INLINE __m256i half_dot(__m256i acc, __m256i w, __m256i x)
{
	__m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
	__m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
	return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
/* As above: bytes widened, because pairs of products do not fit 16 bits. */
INLINE ri ri_dot(ri acc, ri w, ri x)
{
	return (ri){half_dot(acc.a, w.a, x.a), half_dot(acc.b, w.b, x.b)};
}
#undef BOTH

#endif
#endif
