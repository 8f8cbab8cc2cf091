/* Attention over pages for any vector level, as two products and a softmax between them. Both products are of the panel's kind:
 * vectors of 16 keys (scores) or 16 dimensions (outputs) from the page, one element of a query row or of its probabilities
 * broadcast to all lanes. The rows of a tile are (row, head) pairs, so the heads that share a key head read it once.
 *
 * For one query row, per page: scores in order of d; times log2(e) and the scale; the maximum, old and new, and the factor
 * between them; the outputs so far times that factor, plus probabilities times values in order of position. A page in
 * which a row sees nothing leaves all of it as it was (p = 0, factor 1), so neither the tile nor the block a row is computed
 * in shows in its result. Stored keys and values are taken to be finite or at least to belong to the past of every row that
 * is asked for; what lies in a page behind the last position is never used.
 *
 * bf16 and int8 pages: queries and probabilities are rounded to bf16; int8 elements are widened to bf16, which holds them
 * exactly, once per page and block, and their scales multiply scores and probabilities. */
#include <math.h>

#include "kernel/attn_simd.h"
#include "kernel/paged_parts.h"

#ifndef FETCH_HINT
#define FETCH_HINT _MM_HINT_T1
#endif
#define LOG2E 1.44269504f

#ifdef __AVX512F__
enum { MR = PAGED_TILE, NV = 4 }; /* NV vectors of keys or dimensions by MR query rows of sums in registers */
#else
enum { MR = 4, NV = 2 };
#endif

typedef uint32_t unit; /* a float, or two bf16 neighbours */
#define PAIR(t) ((t) == STAVE_F32 ? 1 : 2)

struct work {
	const struct stave_paged_attn *a;
	int du, wide;                 /* units of a query row; D rounded up to whole groups */
	int r0, rows;                 /* first row of the block; its (row, head) pairs */
	unit *q;                      /* (rows, du) */
	float *o, *max, *sum;         /* (rows, wide), (rows), (rows, VL) */
	float *score;                 /* (MR, STAVE_PAGE) */
	unit *p;                      /* (MR, STAVE_PAGE / PAIR) */
	uint16_t *widened;
};

/* One page as a tile reads it, and what the tile's rows see of it, relative to its first position. */
struct view {
	const unit *k, *v;
	const float *k_scale, *v_scale; /* NULL but for int8 */
	int at;                         /* position of the page */
	int lo, hi;                     /* any row of the tile sees only lo .. hi - 1 */
	ptrdiff_t ahead;                /* bytes from this page to the next one */
};

INLINE int min_int(int a, int b) { return a < b ? a : b; }
INLINE int max_int(int a, int b) { return a > b ? a : b; }

/* ---- products ---- */

#ifdef __AVX512F__
INLINE vf load_units(const unit *p) { return _mm512_castsi512_ps(_mm512_loadu_si512(p)); }
INLINE vf splat_unit(unit u) { return _mm512_castsi512_ps(_mm512_set1_epi32((int)u)); }
INLINE vf low_half(vf a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 16)); }
INLINE vf high_half(vf a) { return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)0xffff0000u))); }
#else
INLINE vf load_units(const unit *p) { return _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf splat_unit(unit u) { return _mm256_castsi256_ps(_mm256_set1_epi32((int)u)); }
INLINE vf low_half(vf a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16)); }
INLINE vf high_half(vf a) { return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32((int)0xffff0000u))); }
#endif

/* c + a b, for bf16 over both halves of each lane */
INLINE vf mac(enum stave_dtype t, vf c, vf a, vf b)
{
	if (t == STAVE_F32)
		return vfma(a, b, c);
#ifdef __AVX512BF16__
	return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
#else
	return vfma(low_half(a), low_half(b), vfma(high_half(a), high_half(b), c));
#endif
}

/* Only the first of each pair. */
INLINE vf first_half(vf a)
{
	vf mask = splat_unit(0xffff);
#ifdef __AVX512F__
	return _mm512_and_ps(a, mask);
#else
	return _mm256_and_ps(a, mask);
#endif
}

/* c[v][r] += sum over k < n of a[r lda + k] b[v][k], where vector v of b lies in group v VL / 16, `group` units long;
 * `half`: of b only the first of each pair. */
INLINE void multiply(enum stave_dtype t, vf c[NV][MR], int nv, int mr, const unit *a, size_t lda, const unit *b, size_t group, int n,
                     bool half, ptrdiff_t ahead)
{
	for (int k = 0; k < n; k++, a++, b += PAGED_GROUP) {
		vf w[NV];
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++) {
			const unit *from = b + v * VL / PAGED_GROUP * group + v * VL % PAGED_GROUP;
			w[v] = load_units(from);
			_mm_prefetch((const char *)from + ahead, FETCH_HINT);
			if (half)
				w[v] = first_half(w[v]);
		}
#pragma GCC unroll 8
		for (int r = 0; r < mr; r++) {
			vf x = splat_unit(a[r * lda]);
#pragma GCC unroll 4
			for (int v = 0; v < nv; v++)
				c[v][r] = mac(t, c[v][r], x, w[v]);
		}
	}
}

/* Scores of mr rows from q on against nv vectors of keys from `key` on. */
INLINE void score_keys(enum stave_dtype t, const struct work *w, const struct view *p, int nv, int mr, const unit *q, int key)
{
	vf c[NV][MR];
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			c[v][r] = vset(0);
	size_t group = (size_t)w->du * PAGED_GROUP;
	multiply(t, c, nv, mr, q, (size_t)w->du, p->k + key / PAGED_GROUP * group, group, w->du, false, p->ahead);
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			vstore(w->score + r * STAVE_PAGE + key + v * VL, c[v][r]);
}

/* Outputs of nv vectors of dimensions from d on: o = o factor + p V */
INLINE void gather_values(enum stave_dtype t, const struct work *w, const struct view *p, int nv, int mr, float *o, int d,
                          const float *factor)
{
	vf c[NV][MR];
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			c[v][r] = vmul(vload(o + r * w->wide + d + v * VL), vset(factor[r]));
	const size_t ldp = STAVE_PAGE / PAIR(t), group = ldp * PAGED_GROUP;
	const unit *values = p->v + d / PAGED_GROUP * group;
	int from = p->lo / PAIR(t), to = p->hi / PAIR(t);
	multiply(t, c, nv, mr, w->p + from, ldp, values + from * PAGED_GROUP, group, to - from, false, p->ahead);
	if (p->hi % PAIR(t)) /* the other position of the pair may never have been stored */
		multiply(t, c, nv, mr, w->p + to, ldp, values + to * PAGED_GROUP, group, 1, true, p->ahead);
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			vstore(o + r * w->wide + d + v * VL, c[v][r]);
}

/* ---- softmax ---- */

/* tanh(x) from 2^y; its error is absolute, 1e-7, as a score's own is. */
INLINE vf tanh_of(vf x)
{
	vf e = vexp2(vmin(vset(60), vmul(x, vset(2 * LOG2E))));
	return vsub(vset(1), vdiv(vset(2), vadd(e, vset(1))));
}

/* p v where p is not zero, else zero even if v is NaN. */
INLINE vf weigh(vf p, vf v)
{
#ifdef __AVX512F__
	return _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(p, vset(0), _CMP_NEQ_UQ), p, v);
#else
	return _mm256_and_ps(_mm256_cmp_ps(p, vset(0), _CMP_NEQ_UQ), vmul(p, v));
#endif
}

/* Row `row` of the block, `r` of the tile: its scores of this page times log2(e); returns their maximum. first, last:
 * what it sees, relative to the page. */
INLINE float scale_scores(const struct work *w, const struct view *p, int r, int first, int last)
{
	const struct stave_paged_attn *a = w->a;
	float *s = w->score + r * STAVE_PAGE;
	vf top = vset(-INFINITY), c = vset(a->scale * LOG2E);
	for (int key = p->lo / PAGED_GROUP * PAGED_GROUP; key < p->hi; key += VL) {
		vf x = vload(s + key);
		if (p->k_scale)
			x = vmul(x, vload(p->k_scale + key));
		x = vmul(x, c);
		if (a->softcap > 0)
			x = vmul(vset(a->softcap * LOG2E), tanh_of(vmul(x, vset(1 / (a->softcap * LOG2E)))));
		if (key < first || key + VL - 1 > last)
			x = mask_keys(x, key, first, last);
		top = vmax(x, top);
		vstore(s + key, x);
	}
	return vhmax(top);
}

/* 2^(score - max) of row r of the tile into p; their sum by lanes. */
INLINE vf exponentials(enum stave_dtype t, const struct work *w, const struct view *p, int r, float max)
{
	const float *s = w->score + r * STAVE_PAGE;
	unit *y = w->p + r * (STAVE_PAGE / PAIR(t));
	vf total = vset(0);
	for (int key = p->lo / PAGED_GROUP * PAGED_GROUP; key < p->hi; key += VL) {
		vf e = vexp2(vsub(vload(s + key), vset(max)));
		total = vadd(total, e);
		if (p->v_scale)
			e = weigh(e, vload(p->v_scale + key));
		if (t == STAVE_F32)
			vstore((float *)y + key, e);
		else
			vstore_bf16((uint16_t *)y + key, e);
	}
	return total;
}

/* Scores of mr rows of the block from `row` on become probabilities relative to the new maximum; factor (mr): what to
 * multiply by all that was summed relative to the old one. */
INLINE void softmax(enum stave_dtype t, const struct work *w, const struct view *p, int mr, int row, float *factor)
{
	float top[VL], sums[VL];
	for (int r = 0; r < mr; r++) {
		int at = w->r0 + (row + r) / w->a->G;
		top[r] = scale_scores(w, p, r, paged_first(w->a, at) - p->at, paged_last(w->a, at) - p->at);
	}
	vf old = vload_n(w->max + row, mr), now = vmax(vload_n(top, mr), old);
	vstore_n(w->max + row, now, mr);
	vstore_n(factor, vexp2(vsub(old, now)), mr);
	vstore_n(sums, now, mr);
	for (int r = 0; r < mr; r++) {
		float *sum = w->sum + (row + r) * VL;
		vstore(sum, vfma(vload(sum), vset(factor[r]), exponentials(t, w, p, r, sums[r])));
	}
}

/* ---- tiles, blocks ---- */

INLINE void tile(enum stave_dtype t, const struct work *w, const struct view *p, int mr, int row)
{
	float factor[VL], *o = w->o + row * w->wide;
	const unit *q = w->q + row * w->du;
	for (int key = p->lo / PAGED_GROUP * PAGED_GROUP; key < p->hi;)
		if (NV * VL > PAGED_GROUP && key % (NV * VL) == 0 && p->hi - key > NV * VL - PAGED_GROUP) {
			score_keys(t, w, p, NV, mr, q, key);
			key += NV * VL;
		} else {
			score_keys(t, w, p, PAGED_GROUP / VL, mr, q, key);
			key += PAGED_GROUP;
		}
	softmax(t, w, p, mr, row, factor);
	int d = 0;
	for (; d + NV * VL <= w->wide; d += NV * VL)
		gather_values(t, w, p, NV, mr, o, d, factor);
	for (; d < w->wide; d += PAGED_GROUP)
		gather_values(t, w, p, PAGED_GROUP / VL, mr, o, d, factor);
}

/* The number of rows is a constant of each expansion, so that their sums live in registers. */
#define TILES(t)                                                                                                  \
	static void tiles_##t(const struct work *w, const struct view *p, int mr, int row)                        \
	{                                                                                                         \
		switch (mr) {                                                                                     \
		case 1: tile(STAVE_##t, w, p, 1, row); break;                                                     \
		case 2: tile(STAVE_##t, w, p, 2, row); break;                                                     \
		case 3: tile(STAVE_##t, w, p, 3, row); break;                                                     \
		case 4: tile(STAVE_##t, w, p, 4, row); break;                                                     \
		case 5: tile(STAVE_##t, w, p, MR < 5 ? 1 : 5, row); break;                                        \
		case 6: tile(STAVE_##t, w, p, MR < 6 ? 1 : 6, row); break;                                        \
		}                                                                                                 \
	}
TILES(F32)
TILES(BF16)

/* y (n) bf16 = x (n) int8, n a multiple of 16 */
static void widen(uint16_t *y, const int8_t *x, size_t n, ptrdiff_t ahead)
{
	for (size_t i = 0; i < n; i += VL) {
		_mm_prefetch((const char *)x + i + ahead, FETCH_HINT);
#ifdef __AVX512F__
		vstore_bf16(y + i, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(x + i)))));
#else
		vstore_bf16(y + i, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x + i)))));
#endif
	}
}

/* The rows of the block against page number i. */
static void block_page(const struct work *w, int i, int last)
{
	const struct stave_paged_attn *a = w->a;
	const char *page = a->pages[i];
	const int pair = a->type == STAVE_CACHE_F32 ? 1 : 2;
	struct view p = {.k = (const unit *)page, .at = i * STAVE_PAGE};
	if (i < last)
		p.ahead = (const char *)a->pages[i + 1] - page;
	if (a->type == STAVE_CACHE_I8) {
		widen(w->widened, (const int8_t *)page, paged_scales_at(a->D), p.ahead);
		p.ahead = 0;
		p.k = (const unit *)w->widened;
		p.k_scale = (const float *)(page + paged_scales_at(a->D));
		p.v_scale = p.k_scale + STAVE_PAGE;
	}
	p.v = p.k + (size_t)STAVE_PAGE * a->D / pair;
	for (int row = 0; row < w->rows; row += MR) {
		int mr = min_int(MR, w->rows - row);
		p.lo = max_int(0, paged_first(a, w->r0 + row / a->G) - p.at);
		p.hi = min_int(STAVE_PAGE, paged_last(a, w->r0 + (row + mr - 1) / a->G) + 1 - p.at);
		if (p.lo >= p.hi)
			continue;
		if (a->type == STAVE_CACHE_F32)
			tiles_F32(w, &p, mr, row);
		else
			tiles_BF16(w, &p, mr, row);
	}
}

/* Queries as units; nothing seen yet: a finite maximum, so that the factor of a row that has seen nothing is 1, not NaN. */
static void begin_block(const struct work *w)
{
	const struct stave_paged_attn *a = w->a;
	for (int row = 0; row < w->rows; row++) {
		const float *q = a->q + (w->r0 + row / a->G) * a->ldq + (size_t)(row % a->G) * a->D;
		unit *y = w->q + row * w->du;
		if (a->type == STAVE_CACHE_F32)
			memcpy(y, q, sizeof(float) * a->D);
		else
			EACH_VECTOR((size_t)a->D, vstore_bf16_n((uint16_t *)y + i, vload_n(q + i, m), m););
		w->max[row] = -1e30f;
		vstore(w->sum + row * VL, vset(0));
	}
	memset(w->o, 0, sizeof(float) * w->rows * w->wide);
}

static void end_block(const struct work *w)
{
	const struct stave_paged_attn *a = w->a;
	for (int row = 0; row < w->rows; row++) {
		float *y = a->o + (w->r0 + row / a->G) * a->ldo + (size_t)(row % a->G) * a->D;
		const float *o = w->o + row * w->wide;
		vf inverse = vset(1 / vsum(vload(w->sum + row * VL)));
		EACH_VECTOR((size_t)a->D, vstore_n(y + i, vmul(vload(o + i), inverse), m););
	}
}

void STAVE_LEVELED(paged_attn)(const struct stave_paged_attn *a, void *scratch)
{
	struct paged_scratch s = paged_lay_out(a->G, a->D);
	char *base = scratch;
	struct work w = {.a = a, .du = a->D / (a->type == STAVE_CACHE_F32 ? 1 : 2), .wide = paged_wide(a->D), .q = (unit *)(base + s.q),
	                 .o = (float *)(base + s.o), .max = (float *)(base + s.max), .sum = (float *)(base + s.sum),
	                 .score = (float *)(base + s.score), .p = (unit *)(base + s.p), .widened = (uint16_t *)(base + s.page)};
	const int block = paged_block_rows(a->G, a->D);
	for (int r = 0; r < a->n; r += block) {
		int n = min_int(block, a->n - r), last = paged_last(a, r + n - 1);
		w.r0 = r;
		w.rows = n * a->G;
		begin_block(&w);
		for (int i = paged_first(a, r) / STAVE_PAGE; i <= last / STAVE_PAGE; i++)
			block_page(&w, i, last / STAVE_PAGE);
		end_block(&w);
	}
}
