/* Products with panels of BF16, F16 and F32 for any vector level. A tile of outputs, NV vectors of weight rows by MR rows of x,
 * grows in registers: per unit of k (a column, for BF16 a pair) NV vectors of weights are loaded and each x is broadcast.
 *
 * Many rows: x is taken in blocks of TOKENS rows and as many columns as stay in the second-level cache while the weights
 * pass by, each piece of a panel once per block of rows; sums wait in y between blocks of k, which changes no bit of them.
 * Few rows: the weights are read once, at the speed of memory; there tiles are NARROW rows by more panels, since one sum's
 * additions wait for each other. */
#include "kernel/panel_float.h"
#include "kernel/panel_parts.h"
#include "kernel/simd.h"

#ifdef __AVX512F__
enum { NV = 2, MR = 12, WIDE_NV = 4, NARROW = 6 };
#else
enum { NV = 2, MR = 4, WIDE_NV = 2, NARROW = 0 };
#endif
enum { TOKENS = 20 * 12, BLOCK = 128 * 1024 }; /* rows, and units of 4 bytes, of x at once */

struct product {
	const struct stave_packed *w;
	size_t panel_bytes, ldx;    /* bytes of a panel; units of 4 bytes of a row of x */
	const char *x;
	float *y;
	size_t ldy;
	const float *bias;
	int units;                  /* of k: columns, or pairs of them */
};

INLINE int min_int(int a, int b) { return a < b ? a : b; }

/* A vector of weights: VL rows, a column or a pair of them. */
INLINE vf weights(enum stave_qtype t, const char *p)
{
	if (t == STAVE_Q_F16)
#ifdef __AVX512F__
		return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#else
		return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#endif
	return vload((const float *)p);
}

#ifdef __AVX512BF16__ /* has the product itself */
#elif defined(__AVX512F__)
INLINE vf low_half(vf a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 16)); }
INLINE vf high_half(vf a) { return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)0xffff0000u))); }
#else
INLINE vf low_half(vf a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16)); }
INLINE vf high_half(vf a) { return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32((int)0xffff0000u))); }
#endif

/* c + w x, for BF16 over both halves of each lane, the second first */
INLINE vf mac(enum stave_qtype t, vf c, vf w, vf x)
{
	if (t != STAVE_Q_BF16)
		return vfma(w, x, c);
#ifdef __AVX512BF16__
	return _mm512_dpbf16_ps(c, (__m512bh)w, (__m512bh)x);
#else
	return vfma(low_half(w), low_half(x), vfma(high_half(w), high_half(x), c));
#endif
}

#ifdef STAVE_INSTRUMENTED
#define EXPANDED static __attribute__((noinline))
#else
#define EXPANDED INLINE
#endif

/* Units k0 .. k1 of the outputs of nv vectors from panel p on and mr rows from r on. */
EXPANDED void tile(enum stave_qtype t, const struct product *a, int nv, int mr, int p, int r, int k0, int k1)
{
	const size_t step = STAVE_PANEL * (t == STAVE_Q_F16 ? 2 : 4);
	const char *w = (const char *)a->w->data + (size_t)p * a->panel_bytes + (size_t)k0 * step;
	const float *x = (const float *)a->x + (size_t)r * a->ldx + k0;
	const int o = p * STAVE_PANEL, rows = a->w->rows;
	float *y = a->y + (size_t)r * a->ldy + o;
	vf c[WIDE_NV][MR];
	size_t at[WIDE_NV], live[WIDE_NV];
#pragma GCC unroll 4
	for (int v = 0; v < nv; v++) {
		int left = rows - o - v * VL;
		live[v] = (size_t)(left < 0 ? 0 : min_int(left, VL));
		at[v] = v * VL / STAVE_PANEL * a->panel_bytes + v * VL % STAVE_PANEL * step / STAVE_PANEL;
#pragma GCC unroll 16
		for (int i = 0; i < mr; i++)
			c[v][i] = k0 ? vload_n(y + i * a->ldy + v * VL, live[v]) : vset(0);
	}
	for (int k = k0; k < k1; k++, w += step, x++) {
		vf b[WIDE_NV];
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			b[v] = weights(t, w + at[v]);
#pragma GCC unroll 16
		for (int i = 0; i < mr; i++) {
			vf u = vset(x[i * a->ldx]);
#pragma GCC unroll 4
			for (int v = 0; v < nv; v++)
				c[v][i] = mac(t, c[v][i], b[v], u);
		}
	}
	bool add = a->bias && k1 == a->units;
#pragma GCC unroll 4
	for (int v = 0; v < nv; v++) {
		vf bias = add ? vload_n(a->bias + o + v * VL, live[v]) : vset(0);
#pragma GCC unroll 16
		for (int i = 0; i < mr; i++)
			vstore_n(y + i * a->ldy + v * VL, add ? vadd(c[v][i], bias) : c[v][i], live[v]);
	}
}

/* The rows of a tile and its vectors are constants of each expansion, so that the sums live in registers. */
#define CASE(t, nv, mr)                                                                                              \
	case mr:                                                                                                     \
		tile(STAVE_Q_##t, a, nv, (mr) <= MR ? (mr) : 1, p, r, k0, k1);                                       \
		break;
#define NARROW_CASES(t, nv) CASE(t, nv, 1) CASE(t, nv, 2) CASE(t, nv, 3) CASE(t, nv, 4) CASE(t, nv, 5) CASE(t, nv, 6)
#define CASES(t, nv) NARROW_CASES(t, nv) CASE(t, nv, 7) CASE(t, nv, 8) CASE(t, nv, 9) CASE(t, nv, 10) CASE(t, nv, 11) CASE(t, nv, 12)
#define TILES(t)                                                                                                     \
	static void tiles_##t(const struct product *a, int nv, int mr, int p, int r, int k0, int k1)                 \
	{                                                                                                            \
		if (nv == NV)                                                                                        \
			switch (mr) { CASES(t, NV) }                                                                 \
		else if (nv == WIDE_NV)                                                                              \
			switch (mr) { NARROW_CASES(t, WIDE_NV) }                                                     \
		else                                                                                                 \
			switch (mr) { CASES(t, 1) }                                                                  \
	}
TILES(BF16)
TILES(F16)
TILES(F32)

/* Rows r .. r + n, of few tiles, for units k0 .. k1 of panels p0 .. p1. */
static void block(const struct product *a, int p0, int p1, int r, int n, int k0, int k1)
{
	const int tiles = (n + MR - 1) / MR, wide = n <= NARROW ? WIDE_NV : NV;
	for (int p = p0; p < p1;) {
		int left = (p1 - p) * (STAVE_PANEL / VL), nv = left >= wide ? wide : left >= NV ? NV : 1;
		for (int i = 0; i < tiles; i++) {
			int from = n * i / tiles, mr = n * (i + 1) / tiles - from; /* of even sizes */
			if (a->w->type == STAVE_Q_BF16)
				tiles_BF16(a, nv, mr, p, r + from, k0, k1);
			else if (a->w->type == STAVE_Q_F16)
				tiles_F16(a, nv, mr, p, r + from, k0, k1);
			else
				tiles_F32(a, nv, mr, p, r + from, k0, k1);
		}
		p += nv * VL / STAVE_PANEL;
	}
}

void STAVE_LEVELED(panel_float_multiply)(const struct stave_packed *w, int p0, int p1, const void *operand, int n, float *y, size_t ldy,
                                         const float *bias, void *scratch)
{
	const struct product a = {.w = w,
	                          .panel_bytes = panel_float_bytes(w->type, w->cols),
	                          .ldx = panel_float_stride(stave_operand_kind(w->type), w->cols) / 4,
	                          .x = operand,
	                          .y = y,
	                          .ldy = ldy,
	                          .bias = bias,
	                          .units = panel_float_cols(w->cols) / (w->type == STAVE_Q_BF16 ? 2 : 1)};
	const int blocks = (n + TOKENS - 1) / TOKENS;
	for (int i = 0; i < blocks; i++) {
		int r = (int)((int64_t)n * i / blocks), rows = (int)((int64_t)n * (i + 1) / blocks) - r, depth = BLOCK / rows;
		for (int k = 0; k < a.units; k += depth)
			block(&a, p0, p1, r, rows, k, min_int(k + depth, a.units));
	}
}
