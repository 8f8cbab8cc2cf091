/* Attention over bf16 with vdpbf16ps: each 32-bit lane holds two neighbours along the inner dimension, and one instruction adds both of
 * their products to a float. Probabilities and score gradients are rounded to bf16 where they become operands of the second
 * product; sums, maxima and the softmax stay in float. */
#include "kernel/attn_narrow.h"
#include "kernel/simd.h"

#define PAIR 2
typedef uint32_t unit;
typedef __m512bh vu;

INLINE vu vu_load(const unit *p) { return (__m512bh)_mm512_loadu_si512(p); }
INLINE vu vu_splat(unit a) { return (__m512bh)_mm512_set1_epi32((int)a); }
INLINE vf mac(vf c, vu a, vu b) { return _mm512_dpbf16_ps(c, a, b); }

INLINE void load_row(enum stave_dtype dt, unit *y, const void *x, int D, int Dp)
{
	for (int d = 0; d < Dp; d += 2 * VL) {
		unsigned left = D > d ? (unsigned)(D - d) : 0;
		__mmask32 m = _bzhi_u32(~0u, left < 32 ? left : 32);
		_mm512_storeu_si512(y + d / PAIR, _mm512_maskz_loadu_epi16(m, (const uint16_t *)x + d));
	}
}

INLINE void put_row(unit *y, vf x)
{
	_mm256_storeu_si256((__m256i *)y, (__m256i)_mm512_cvtneps_pbh(x));
}

INLINE void put_col(unit *y, const vf *x)
{
	static const uint16_t interleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
	                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
	__m512i both = (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]);
	_mm512_storeu_si512(y, _mm512_permutexvar_epi16(_mm512_loadu_si512(interleave), both));
}

INLINE void put_outer(unit *y, const unit *rows, size_t ld)
{
	__m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)rows));
	__m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(rows + ld)));
	_mm512_storeu_si512(y, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
}

#include "kernel/attn_blocks.h"

size_t attn_narrow_scratch(int T, int D, bool back)
{
	return scratch_bytes(T, D, back);
}

void attn_narrow_fwd(const struct stave_attn *a, void *scratch)
{
	forward(STAVE_BF16, a, scratch);
}

void attn_narrow_bwd(const struct stave_attn *a, void *scratch)
{
	backward(STAVE_BF16, a, scratch);
}
