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
 * BF16: queries and probabilities are rounded to bf16. I8: the products are of integers, 16 bits by 8, and exact: a query row
 * has one scale, and so have a row's probabilities (times the scales of V) of one page. That is closer than bf16 and
 * widening int8 to int16 is one instruction, to bf16 five. */
#include <math.h>

#include "kernel/attn_simd.h"
#include "kernel/paged_parts.h"

#define LOG2E 1.44269504f

#ifdef __AVX512F__
enum { MR = PAGED_TILE, NV = 4 }; /* NV vectors of keys or dimensions by MR query rows of sums in registers */
#else
enum { MR = 4, NV = 2 };
#endif
enum { VECTORS = STAVE_PAGE / VL }; /* of scores of a row */

typedef enum stave_cache_type kind;
typedef uint32_t unit; /* of a query or of probabilities: a float, two neighbours of bf16, or two of int16 */
#define PAIR(t) ((t) == STAVE_CACHE_F32 ? 1 : 2)
#define UNIT_BYTES(t) ((t) == STAVE_CACHE_I8 ? 2 : 4) /* of a page */

struct work {
	const struct stave_paged_attn *a;
	int du, wide;                 /* units of a query row; D rounded up to whole groups */
	int r0, rows;                 /* first row of the block; its (row, head) pairs */
	unit *q;                      /* (rows, du) */
	float *q_scale;               /* (rows), I8 only */
	float *o, *max, *sum;         /* (rows, wide), (rows), (rows, VL) */
	float *score;                 /* (MR, STAVE_PAGE); I8: int32 */
	unit *p;                      /* (MR, STAVE_PAGE / PAIR) */
};

/* One page as a tile reads it, and what the tile's rows see of it, relative to its first position. */
struct view {
	const char *k, *v;
	const float *k_scale, *v_scale; /* I8 only */
	int at;                         /* position of the page */
	int lo, hi;                     /* any row of the tile sees only lo .. hi - 1 */
	bool all;                       /* and every row sees all of these */
	const char *next;               /* the next page, if this tile is the one to fetch it, else this one */
	size_t line;                    /* 64, or 0 */
	const char *last_line;          /* of it */
	int fetch_lines;                /* of it, by each row's softmax */
};

/* What a tile's softmax leaves for its outputs: the factor of what was summed before, and for I8 the scale of p. */
struct weights {
	float factor[MR], p_scale[MR];
};

/* Lines of the next page that a step of the products fetches. They would have time for all of it, but memory must not idle while
 * the softmax runs. */
#define FETCH(t) ((t) == STAVE_CACHE_I8 ? 2 : 3)

INLINE int min_int(int a, int b) { return a < b ? a : b; }
INLINE int max_int(int a, int b) { return a > b ? a : b; }

/* ---- products ---- */

#ifdef __AVX512F__
typedef __m512i vi;
INLINE vi to_bits(vf a) { return _mm512_castps_si512(a); }
INLINE vf of_bits(vi a) { return _mm512_castsi512_ps(a); }
INLINE vi splat_bits(unit u) { return _mm512_set1_epi32((int)u); }
INLINE vi and_bits(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi load_bits(const char *p) { return _mm512_loadu_si512(p); }
INLINE vi load_int8(const char *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf to_float(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE void store_int16(uint16_t *y, vf a) { _mm256_storeu_si256((__m256i *)y, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a))); }
#ifdef __AVX512VNNI__
INLINE vi mac_int16(vi c, vi a, vi b) { return _mm512_dpwssd_epi32(c, a, b); }
#else
INLINE vi mac_int16(vi c, vi a, vi b) { return _mm512_add_epi32(c, _mm512_madd_epi16(a, b)); }
#endif
#else
typedef __m256i vi;
INLINE vi to_bits(vf a) { return _mm256_castps_si256(a); }
INLINE vf of_bits(vi a) { return _mm256_castsi256_ps(a); }
INLINE vi splat_bits(unit u) { return _mm256_set1_epi32((int)u); }
INLINE vi and_bits(vi a, vi b) { return _mm256_and_si256(a, b); }
INLINE vi load_bits(const char *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE vi load_int8(const char *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf to_float(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE void store_int16(uint16_t *y, vf a)
{
	vi n = _mm256_cvtps_epi32(a);
	_mm_storeu_si128((__m128i *)y, _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1)));
}
INLINE vi mac_int16(vi c, vi a, vi b) { return _mm256_add_epi32(c, _mm256_madd_epi16(a, b)); }
#endif

#ifdef __AVX512BF16__ /* has the product itself */
#elif defined(__AVX512F__)
INLINE vi low_half(vi a) { return _mm512_slli_epi32(a, 16); }
#else
INLINE vi low_half(vi a) { return _mm256_slli_epi32(a, 16); }
#endif

/* c + a b over all of each unit; the sums of I8 are integers. */
INLINE vf mac(kind t, vf c, vi a, vi b)
{
	if (t == STAVE_CACHE_F32)
		return vfma(of_bits(a), of_bits(b), c);
	if (t == STAVE_CACHE_I8)
		return of_bits(mac_int16(to_bits(c), a, b));
#ifdef __AVX512BF16__
	return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
#else
	const vi high = splat_bits(0xffff0000u);
	return vfma(of_bits(low_half(a)), of_bits(low_half(b)), vfma(of_bits(and_bits(a, high)), of_bits(and_bits(b, high)), c));
#endif
}

/* c[v][r] += sum over k < n of a[r lda + k] b[v][k], where vector v of the page's units b lies in group v VL / 16, `group` units
 * long; `half`: of b only the first of each pair. */
INLINE void multiply(kind t, vf c[NV][MR], int nv, int mr, const unit *a, size_t lda, const char *b, size_t group, int n, bool half,
                     const char *next, size_t line)
{
	for (int k = 0; k < n; k++, a++, b += PAGED_GROUP * UNIT_BYTES(t)) {
		vi w[NV];
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++) {
			const char *from = b + (v * VL / PAGED_GROUP * group + v * VL % PAGED_GROUP) * UNIT_BYTES(t);
			w[v] = t == STAVE_CACHE_I8 ? load_int8(from) : load_bits(from);
			if (half)
				w[v] = and_bits(w[v], splat_bits(0xffff));
		}
		for (int i = 0; i < (nv == NV ? FETCH(t) : 0); i++, next += line)
			_mm_prefetch(next, _MM_HINT_T1);
#pragma GCC unroll 8
		for (int r = 0; r < mr; r++) {
			vi x = splat_bits(a[r * lda]);
#pragma GCC unroll 4
			for (int v = 0; v < nv; v++)
				c[v][r] = mac(t, c[v][r], x, w[v]);
		}
	}
}

/* Scores of mr rows from q on against nv vectors of keys from `key` on, unscaled. */
INLINE void score_keys(kind t, const struct work *w, const struct view *p, int nv, int mr, const unit *q, int key)
{
	vf c[NV][MR];
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			c[v][r] = vset(0);
	size_t group = (size_t)w->du * PAGED_GROUP;
	multiply(t, c, nv, mr, q, (size_t)w->du, p->k + key / PAGED_GROUP * group * UNIT_BYTES(t), group, w->du, false, p->next, p->line);
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			vstore(w->score + r * STAVE_PAGE + key + v * VL, c[v][r]);
}

/* o = o factor + the sums of integers that lie in `score`, at their scale */
INLINE void add_whole(const struct work *w, int nv, int mr, float *o, const struct weights *by)
{
	for (int r = 0; r < mr; r++)
		for (int v = 0; v < nv; v++) {
			vf sum = to_float(load_bits((const char *)(w->score + r * STAVE_PAGE + v * VL)));
			float *y = o + r * w->wide + v * VL;
			vstore(y, vfma(sum, vset(by->p_scale[r]), vmul(vload(y), vset(by->factor[r]))));
		}
}

/* Outputs of nv vectors of dimensions from d on: o = o factor + p V */
INLINE void gather_values(kind t, const struct work *w, const struct view *p, int nv, int mr, float *o, int d, const struct weights *by)
{
	vf c[NV][MR];
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			c[v][r] = t == STAVE_CACHE_I8 ? vset(0) : vmul(vload(o + r * w->wide + d + v * VL), vset(by->factor[r]));
	const size_t ldp = STAVE_PAGE / PAIR(t), group = ldp * PAGED_GROUP, step = PAGED_GROUP * UNIT_BYTES(t);
	const char *values = p->v + d / PAGED_GROUP * group * UNIT_BYTES(t);
	int from = p->lo / PAIR(t), to = t == STAVE_CACHE_I8 ? (p->hi + 1) / 2 : p->hi / PAIR(t);
	multiply(t, c, nv, mr, w->p + from, ldp, values + from * step, group, to - from, false, p->next + (size_t)(w->du + d / PAIR(t)) * FETCH(t) * p->line, p->line);
	if (t == STAVE_CACHE_BF16 && p->hi % 2) /* the other position of the pair may never have been stored: NaN, for all we know */
		multiply(t, c, nv, mr, w->p + to, ldp, values + to * step, group, 1, true, p->next, 0);
	/* sums of integers pass through memory: converted in place, gcc would move them about within the loop above */
	float *y = t == STAVE_CACHE_I8 ? w->score : o + d;
	const size_t ldy = t == STAVE_CACHE_I8 ? STAVE_PAGE : w->wide;
#pragma GCC unroll 8
	for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++)
			vstore(y + r * ldy + v * VL, c[v][r]);
	if (t == STAVE_CACHE_I8)
		add_whole(w, nv, mr, o + d, by);
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

/* The scale that fits what is up to top into 16 bits. A tiny top would make its inverse infinite. */
INLINE vf int16_scale(vf top) { return vmul(vmax(top, vset(1e-30f)), vset(1.f / 32767)); }

/* Scores of row r of the tile, row `row` of the block, times log2(e). */
INLINE void scale_scores(kind t, const struct work *w, const struct view *p, int r, int row, vf x[VECTORS])
{
	const struct stave_paged_attn *a = w->a;
	const float *s = w->score + r * STAVE_PAGE;
	const vf c = vset(t == STAVE_CACHE_I8 ? a->scale * LOG2E * w->q_scale[row] : a->scale * LOG2E);
	for (int v = 0; v < VECTORS; v++) {
		x[v] = vload(s + v * VL);
		if (t == STAVE_CACHE_I8)
			x[v] = vmul(to_float(to_bits(x[v])), vload(p->k_scale + v * VL));
		x[v] = vmul(x[v], c);
		if (a->softcap > 0)
			x[v] = vmul(vset(a->softcap * LOG2E), tanh_of(vmul(x[v], vset(1 / (a->softcap * LOG2E)))));
	}
	if (p->all && p->lo == 0 && p->hi == STAVE_PAGE)
		return;
	int at = w->r0 + row / a->G, first = paged_first(a, at) - p->at, last = paged_last(a, at) - p->at;
	for (int v = 0; v < VECTORS; v++)
		x[v] = mask_keys(x[v], v * VL, first, last);
}

/* Probabilities of row r of the tile become operands of the second product. total: their sum by lanes, which becomes NaN if a
 * scale of V is, since integers cannot. */
INLINE void put_weights(kind t, const struct work *w, const struct view *p, int r, const vf e[VECTORS], vf *total, float *p_scale)
{
	unit *y = w->p + r * (STAVE_PAGE / PAIR(t));
	vf weight[VECTORS], top = vset(0);
	for (int v = 0; v < VECTORS; v++)
		if (t == STAVE_CACHE_F32)
			vstore((float *)y + v * VL, e[v]);
		else if (t == STAVE_CACHE_BF16)
			vstore_bf16((uint16_t *)y + v * VL, e[v]);
		else {
			weight[v] = weigh(e[v], vload(p->v_scale + v * VL));
			top = vmax(weight[v], top);
			*total = vfma(weight[v], vset(0), *total);
		}
	if (t != STAVE_CACHE_I8)
		return;
	vf scale = int16_scale(vset(vhmax(top))), inverse = vdiv(vset(1), scale);
	vstore_n(p_scale, scale, 1);
	for (int v = 0; v < VECTORS; v++)
		store_int16((uint16_t *)y + v * VL, vmul(weight[v], inverse));
}

/* Scores of mr rows of the block from `row` on become probabilities relative to the new maximum. First all rows' maxima, then all
 * rows' exponentials: one row after the other is a chain of latencies longer than the processor looks ahead. */
INLINE void softmax(kind t, const struct work *w, const struct view *p, int mr, int row, struct weights *by)
{
	float max[MR];
	for (int r = 0; r < mr; r++) {
		vf x[VECTORS], top, old = vset(w->max[row + r]);
		for (int i = 0; i < p->fetch_lines; i++)
			_mm_prefetch(p->last_line - (r * p->fetch_lines + i) * p->line, _MM_HINT_T1);
		scale_scores(t, w, p, r, row + r, x);
		top = x[0];
		for (int v = 1; v < VECTORS; v++)
			top = vmax(x[v], top);
		for (int v = 0; v < VECTORS; v++)
			vstore(w->score + r * STAVE_PAGE + v * VL, x[v]);
		vf now = vmax(vset(vhmax(top)), old);
		vstore_n(&max[r], now, 1);
		vstore_n(&by->factor[r], vexp2(vsub(old, now)), 1);
	}
	for (int r = 0; r < mr; r++) {
		float *sum = w->sum + (row + r) * VL;
		vf e[VECTORS], total = vset(0), now = vset(max[r]);
		for (int v = 0; v < VECTORS; v++) {
			e[v] = vexp2(vsub(vload(w->score + r * STAVE_PAGE + v * VL), now));
			total = vadd(total, e[v]);
		}
		put_weights(t, w, p, r, e, &total, &by->p_scale[r]);
		w->max[row + r] = max[r];
		vstore(sum, vfma(vload(sum), vset(by->factor[r]), total));
	}
}

/* ---- tiles, blocks ---- */

INLINE void tile(kind t, const struct work *w, const struct view *p, int mr, int row)
{
	struct weights by;
	float *o = w->o + row * w->wide;
	const unit *q = w->q + row * w->du;
	for (int key = p->lo / PAGED_GROUP * PAGED_GROUP; key < p->hi;)
		if (NV * VL > PAGED_GROUP && key % (NV * VL) == 0 && p->hi - key > NV * VL - PAGED_GROUP) {
			score_keys(t, w, p, NV, mr, q, key);
			key += NV * VL;
		} else {
			score_keys(t, w, p, PAGED_GROUP / VL, mr, q, key);
			key += PAGED_GROUP;
		}
	softmax(t, w, p, mr, row, &by);
	int d = 0;
	for (; d + NV * VL <= w->wide; d += NV * VL)
		gather_values(t, w, p, NV, mr, o, d, &by);
	for (; d < w->wide; d += PAGED_GROUP)
		gather_values(t, w, p, PAGED_GROUP / VL, mr, o, d, &by);
}

/* The number of rows is a constant of each expansion, so that their sums live in registers. */
#define TILES(t)                                                                                                  \
	static void tiles_##t(const struct work *w, const struct view *p, int mr, int row)                        \
	{                                                                                                         \
		switch (mr) {                                                                                     \
		case 1: tile(STAVE_CACHE_##t, w, p, 1, row); break;                                               \
		case 2: tile(STAVE_CACHE_##t, w, p, 2, row); break;                                               \
		case 3: tile(STAVE_CACHE_##t, w, p, 3, row); break;                                               \
		case 4: tile(STAVE_CACHE_##t, w, p, 4, row); break;                                               \
		case 5: tile(STAVE_CACHE_##t, w, p, MR < 5 ? 1 : 5, row); break;                                  \
		case 6: tile(STAVE_CACHE_##t, w, p, MR < 6 ? 1 : 6, row); break;                                  \
		}                                                                                                 \
	}
TILES(F32)
TILES(BF16)
TILES(I8)

/* The next page is read while this one is worked on: from its start by the products, from its end by the softmax. */
static void plan_fetch(const struct stave_paged_attn *a, struct view *p, const char *next, int mr)
{
	const int lines = (int)(stave_page_bytes(a->type, a->D) / 64), steps = (a->D + paged_wide(a->D)) / PAIR(a->type);
	p->next = next ? next : p->k;
	p->last_line = p->next + (lines - 1) * 64;
	p->line = next ? 64 : 0;
	p->fetch_lines = next ? max_int(0, lines - steps * FETCH(a->type)) / mr : 0;
}

/* The rows of the block against page number i of those up to `last`. */
static void block_page(const struct work *w, int i, int last)
{
	const struct stave_paged_attn *a = w->a;
	const char *page = a->pages[i];
	const size_t element = a->type == STAVE_CACHE_F32 ? 4 : a->type == STAVE_CACHE_BF16 ? 2 : 1;
	struct view p = {.k = page, .v = page + STAVE_PAGE * element * a->D, .at = i * STAVE_PAGE};
	p.k_scale = (const float *)(page + paged_scales_at(a->D));
	p.v_scale = p.k_scale + STAVE_PAGE;
	for (int row = 0; row < w->rows; row += MR) {
		int mr = min_int(MR, w->rows - row), r0 = w->r0 + row / a->G, r1 = w->r0 + (row + mr - 1) / a->G;
		p.lo = max_int(0, paged_first(a, r0) - p.at);
		p.hi = min_int(STAVE_PAGE, paged_last(a, r1) + 1 - p.at);
		p.all = paged_first(a, r1) - p.at <= p.lo && paged_last(a, r0) + 1 - p.at >= p.hi;
		if (p.lo >= p.hi)
			continue;
		plan_fetch(a, &p, row == 0 && i < last ? a->pages[i + 1] : NULL, mr);
		if (a->type == STAVE_CACHE_F32)
			tiles_F32(w, &p, mr, row);
		else if (a->type == STAVE_CACHE_BF16)
			tiles_BF16(w, &p, mr, row);
		else
			tiles_I8(w, &p, mr, row);
	}
}

/* y (D) int16 = q (D) at the scale that is returned, NaN if an element is not finite. */
static float quantize_query(uint16_t *y, const float *q, int D)
{
	vf top = vset(0), poison = vset(0);
	EACH_VECTOR((size_t)D, vf x = vload_n(q + i, m); top = vmax(vabs(x), top); poison = vfma(x, vset(0), poison););
	vf scale = int16_scale(vset(vhmax(top))), inverse = vdiv(vset(1), scale);
	EACH_VECTOR((size_t)D, uint16_t whole[VL]; store_int16(whole, vmul(vload_n(q + i, m), inverse)); memcpy(y + i, whole, m * 2););
	float s;
	vstore_n(&s, scale, 1);
	return s + vsum(poison);
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
		else if (a->type == STAVE_CACHE_BF16)
			EACH_VECTOR((size_t)a->D, vstore_bf16_n((uint16_t *)y + i, vload_n(q + i, m), m););
		else
			w->q_scale[row] = quantize_query((uint16_t *)y, q, a->D);
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
	                 .q_scale = (float *)(base + s.q_scale), .o = (float *)(base + s.o), .max = (float *)(base + s.max), .sum = (float *)(base + s.sum),
	                 .score = (float *)(base + s.score), .p = (unit *)(base + s.p)};
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
