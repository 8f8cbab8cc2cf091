/* Floats into stored weights.
 *
 * Choosing a scale is a small least-squares problem: of all (scale, integers) that a block can hold, the pair with the
 * smallest weighted squared error. The integers follow from the scale by rounding, and for given integers the best scale
 * (and minimum) has a closed form, so each fit below walks a handful of candidate scales around the one that just spans
 * the values, and keeps the one whose closed form leaves the least error. An element weighs sqrt(s² + x²), s² the mean square of
 * its block: errors on large weights hurt a product most, but the many small ones must not be given up.
 *
 * The K types then store their groups' scales and minima in a few bits relative to two f16 of the block. Rounding to those bits is
 * done to scale and minimum together, and the two f16 are fitted once more, in closed form over all 256 elements, when the
 * integers are known. All integers are chosen last, from the scales as they read back. A Q4_0 or Q5_0 block that was read from
 * such a file is recognised and written as it was.
 *
 * Blocks are finite whatever comes in: a NaN counts as 0, values beyond LIMIT as LIMIT, and scales saturate at f16's largest. Fits
 * work on values divided by a power of two that brings the largest near 1, so squares neither overflow nor vanish.
 *
 * The arithmetic is four floats wide in the compiler's own vectors and never contracted, so that the same weights give the
 * same bytes on every machine. Q8_0 is the format's own rule (scale amax/127): at 8 bits there is nothing to search. */
#include "kernel/quant.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernel/dtype.h"

typedef float vec __attribute__((vector_size(16), may_alias));
typedef int32_t ivec __attribute__((vector_size(16)));

#define LIMIT (65504.f * 4096) /* the largest value of any block type: Q6_K's scale * 128 * 32 */
#define SUPER 256
#define MAX_GROUPS 16
#define TINY 0x1p-40f /* below this even the smallest f16 scale leaves nothing but zeros */

/* ---- vectors ---- */

static inline vec splat(float a) { return (vec){a, a, a, a}; }
static inline vec pick(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
static inline float total(vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }
/* To the nearest integer, ties to even, clamped; |a| may be anything finite. */
static inline vec round_within(vec a, vec lo, vec hi)
{
	const vec shift = splat(0x1.8p23f); /* floats this large have no fraction */
	a = pick(a < lo, lo, a);
	a = pick(a > hi, hi, a);
	return (a + shift) - shift;
}

/* ---- f16 scales ---- */

/* The nearest f16 that is finite, and zero only for zero: a tiny scale still orders its integers. */
static uint16_t finite_half(float a)
{
	uint16_t h = stave_f32_to_f16(a);
	if ((h & 0x7fff) >= 0x7c00)
		return (uint16_t)((h & 0x8000) | 0x7bff);
	return h & 0x7fff || a == 0 ? h : (uint16_t)(h | 1);
}

static void put_half(uint8_t *b, uint16_t h)
{
	b[0] = (uint8_t)h;
	b[1] = (uint8_t)(h >> 8);
}

/* Stores a * unit as an f16 and returns what it reads back as, in units. */
static float store_half(uint8_t *b, float a, float unit)
{
	uint16_t h = finite_half(a * unit);
	put_half(b, h);
	return stave_f16_to_f32(h) / unit;
}

/* ---- a block on its way in ---- */

/* Values in units of a power of two, with their weights. */
struct block {
	_Alignas(16) float x[SUPER], w[SUPER];
	float unit;
	int n;
};

/* In range, and 0 for NaN, which is on no side of anything. */
static inline float tame(float a) { return a > LIMIT ? LIMIT : a < -LIMIT ? -LIMIT : a == a ? a : 0; }
static inline float larger(float a, float b) { return a > b ? a : b; }

static void load(struct block *b, const float *x, int n)
{
	float amax = 0, sum = 0;
	b->n = n;
	for (int i = 0; i < n; i++) {
		b->x[i] = tame(x[i]);
		amax = larger(amax, fabsf(b->x[i]));
	}
	b->unit = amax < TINY ? 1 : ldexpf(1, ilogbf(amax));
	for (int i = 0; i < n; i++) {
		b->x[i] = amax < TINY ? 0 : b->x[i] / b->unit;
		sum += b->x[i] * b->x[i];
	}
	for (int i = 0; i < n; i++)
		b->w[i] = sqrtf(sum / (float)n + b->x[i] * b->x[i]);
}

/* ---- value = d q, lo <= q <= hi ---- */

/* Sums over n elements with integers q = round(x * inverse). */
static void scale_sums(const float *x, const float *w, int n, float inverse, float lo, float hi, float *xq, float *qq)
{
	vec sx = {0}, sq = {0};
	for (int i = 0; i < n; i += 4) {
		vec v = *(const vec *)(x + i), q = round_within(v * inverse, splat(lo), splat(hi)), wq = *(const vec *)(w + i) * q;
		sx += wq * v;
		sq += wq * q;
	}
	*xq = total(sx);
	*qq = total(sq);
}

static float greatest(const float *x, int n)
{
	float extreme = 0;
	for (int i = 0; i < n; i++)
		if (fabsf(x[i]) > fabsf(extreme))
			extreme = x[i];
	return extreme;
}

/* The best d. Candidates put the value of greatest magnitude at k = lo - 2 … lo + 2 and hi - 2 … hi + 2 in halves. */
static float fit_scale(const float *x, const float *w, int n, int lo, int hi)
{
	float extreme = greatest(x, n), best = 0, d = 0;
	if (extreme == 0)
		return 0;
	for (int halves = 2 * (lo - 2); halves <= 2 * (hi + 2); halves++) {
		if (halves == 2 * (lo + 2) + 1)
			halves = 2 * (hi - 2);
		float xq, qq;
		scale_sums(x, w, n, (float)halves / (2 * extreme), (float)lo, (float)hi, &xq, &qq);
		/* sum w (x - d q)² is least at d = xq/qq, and less than sum w x² by xq²/qq */
		if (qq > 0 && xq * xq > best * qq) {
			best = xq * xq / qq;
			d = xq / qq;
		}
	}
	return d;
}

/* The d of 32 values that are d times integers as they stand, d an f16; 0 if there is none. What was read from such a block is
 * written back unchanged. */
static float exact_scale(const struct block *s, int lo, int hi)
{
	float extreme = greatest(s->x, 32);
	for (int k = lo; k <= hi && extreme != 0; k++) {
		float d = k ? extreme / (float)k : 0, h = d * s->unit;
		if (d == 0 || stave_f16_to_f32(stave_f32_to_f16(h)) != h)
			continue;
		int i = 0;
		while (i < 32) {
			float q = s->x[i] / d;
			if (q < (float)lo || q > (float)hi || (float)(int)q != q)
				break;
			i++;
		}
		if (i == 32)
			return d;
	}
	return 0;
}

/* ---- value = d q + m, 0 <= q <= hi ---- */

struct line {
	float d, m;
};
struct line_sums {
	float q, qq, xq;
};

static struct line_sums line_sums(const float *x, const float *w, int n, float m, float inverse, float hi)
{
	vec sq = {0}, sqq = {0}, sxq = {0};
	for (int i = 0; i < n; i += 4) {
		vec v = *(const vec *)(x + i), q = round_within((v - m) * inverse, splat(0), splat(hi)), wq = *(const vec *)(w + i) * q;
		sq += wq;
		sqq += wq * q;
		sxq += wq * v;
	}
	return (struct line_sums){total(sq), total(sqq), total(sxq)};
}

/* The best line through (q, x), its minimum at most `top` (0 where only that can be stored), and by how much it lowers
 * sum w x²: the normal equations. */
static float solve_line(const struct line_sums *s, float sum_w, float sum_x, float top, struct line *l)
{
	float det = sum_w * s->qq - s->q * s->q;
	if (det <= 1e-6f * sum_w * s->qq) /* all integers are the same */
		return -1;
	l->d = (sum_w * s->xq - sum_x * s->q) / det;
	l->m = (s->qq * sum_x - s->q * s->xq) / det;
	if (l->m > top) {
		l->m = top;
		l->d = s->qq > 0 ? (s->xq - top * s->q) / s->qq : 0;
	}
	/* sum w x² - sum w (x - dq - m)² */
	return l->d * (2 * s->xq - l->d * s->qq) + l->m * (2 * sum_x - l->m * sum_w) - 2 * l->d * l->m * s->q;
}

/* Candidates span the values with hi + s steps, s in -1 … 1. Twice as many lower the error by 0.1 %. */
static struct line fit_line(const float *x, const float *w, int n, int hi, float top)
{
	float min = x[0], max = x[0], sum_w = 0, sum_x = 0, best = -1;
	for (int i = 0; i < n; i++) {
		min = x[i] < min ? x[i] : min;
		max = larger(max, x[i]);
		sum_w += w[i];
		sum_x += w[i] * x[i];
	}
	min = min < top ? min : top;
	struct line chosen = {0, min};
	if (max <= min)
		return chosen;
	chosen.d = (max - min) / (float)hi;
	for (int fifths = -5; fifths <= 5; fifths++) {
		struct line l = {0, 0};
		struct line_sums s = line_sums(x, w, n, min, ((float)hi + (float)fifths / 5) / (max - min), (float)hi);
		float gain = solve_line(&s, sum_w, sum_x, top, &l);
		if (gain > best && l.d > 0) {
			best = gain;
			chosen = l;
		}
	}
	return chosen;
}

/* ---- integers ---- */

/* q = round((x - m) / d) within lo..hi; 0 (or the nearest to it) when d is 0. */
static void choose(uint8_t *q, const float *x, int n, float d, float m, int lo, int hi)
{
	float inverse = d == 0 ? 0 : 1 / d;
	for (int i = 0; i < n; i += 4) {
		vec v = round_within((*(const vec *)(x + i) - m) * inverse, splat((float)lo), splat((float)hi));
		ivec k = __builtin_convertvector(v, ivec) - lo;
		for (int j = 0; j < 4; j++)
			q[i + j] = (uint8_t)k[j];
	}
}

/* ---- 32 elements ---- */

/* Low nibbles of elements i and i + 16 side by side; the fifth bits as one word before them. */
static void put_nibbles(uint8_t *qs, const uint8_t *q)
{
	for (int i = 0; i < 16; i++)
		qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}
static void put_fifths(uint8_t *qh, const uint8_t *q)
{
	memset(qh, 0, 4);
	for (int i = 0; i < 32; i++)
		qh[i / 8] |= (uint8_t)((q[i] >> 4 & 1) << i % 8);
}

static void q8_0(uint8_t *b, const float *x)
{
	float amax = 0, tamed[32];
	for (int i = 0; i < 32; i++) {
		tamed[i] = tame(x[i]);
		amax = larger(amax, fabsf(tamed[i]));
	}
	uint16_t h = amax < TINY ? 0 : finite_half(amax / 127);
	float d = stave_f16_to_f32(h), inverse = h ? 1 / d : 0;
	put_half(b, h);
	for (int i = 0; i < 32; i++) {
		float q = tamed[i] * inverse;
		q = (q > 127 ? 127 : q < -127 ? -127 : q) + (q < 0 ? -.5f : .5f); /* halves go away from zero, as everybody's do */
		b[2 + i] = (uint8_t)(int8_t)q;
	}
}

/* Q4_0 and Q5_0: the scale, and q = integers - lo. */
static void q45_0(uint8_t *b, const float *x, int lo, int hi, uint8_t q[32])
{
	struct block s;
	load(&s, x, 32);
	float d = exact_scale(&s, lo, hi);
	if (d == 0)
		d = fit_scale(s.x, s.w, 32, lo, hi);
	choose(q, s.x, 32, store_half(b, d, s.unit), 0, lo, hi);
}
static void q4_0(uint8_t *b, const float *x)
{
	uint8_t q[32];
	q45_0(b, x, -8, 7, q);
	put_nibbles(b + 2, q);
}
static void q5_0(uint8_t *b, const float *x)
{
	uint8_t q[32];
	q45_0(b, x, -16, 15, q);
	put_fifths(b + 2, q);
	put_nibbles(b + 6, q);
}

static void q45_1(uint8_t *b, const float *x, int hi, uint8_t q[32])
{
	struct block s;
	load(&s, x, 32);
	struct line l = fit_line(s.x, s.w, 32, hi, FLT_MAX);
	float d = store_half(b, l.d, s.unit), m = store_half(b + 2, l.m, s.unit);
	choose(q, s.x, 32, d, m, 0, hi);
}
static void q4_1(uint8_t *b, const float *x)
{
	uint8_t q[32];
	q45_1(b, x, 15, q);
	put_nibbles(b + 4, q);
}
static void q5_1(uint8_t *b, const float *x)
{
	uint8_t q[32];
	q45_1(b, x, 31, q);
	put_fifths(b + 4, q);
	put_nibbles(b + 8, q);
}

/* ---- 256 elements ---- */

static int to_steps(float a, float step, int lo, int hi)
{
	float s = step == 0 ? 0 : rintf(a / step);
	return s < (float)lo ? lo : s > (float)hi ? hi : (int)s;
}

/* Q4_K and Q5_K before they are packed: value = d * scale[g] * q - dmin * min[g], 8 groups of 32. */
struct affine {
	float d, dmin;
	uint8_t scale[8], min[8], q[SUPER];
};

static void choose_affine(struct affine *a, const struct block *s, int hi)
{
	for (int g = 0; g < 8; g++)
		choose(a->q + g * 32, s->x + g * 32, 32, a->d * a->scale[g], -a->dmin * a->min[g], 0, hi);
}

/* d and dmin that are best for these integers: x over (scale q, -min), two unknowns. */
static void refit_affine(struct affine *a, const struct block *s)
{
	float pp = 0, pm = 0, mm = 0, xp = 0, xm = 0;
	for (int i = 0; i < SUPER; i++) {
		float p = (float)(a->scale[i / 32] * a->q[i]), m = -(float)a->min[i / 32], w = s->w[i];
		pp += w * p * p;
		pm += w * p * m;
		mm += w * m * m;
		xp += w * s->x[i] * p;
		xm += w * s->x[i] * m;
	}
	float det = pp * mm - pm * pm;
	if (det <= 1e-6f * pp * mm) /* no minima, or nothing else: one unknown is all there is */
		return;
	float d = (xp * mm - xm * pm) / det, dmin = (xm * pp - xp * pm) / det;
	if (d > 0 && dmin > 0) {
		a->d = d;
		a->dmin = dmin;
	}
}

static float line_error(const float *x, const float *w, int n, float d, float m, float hi)
{
	float inverse = d == 0 ? 0 : 1 / d;
	vec sum = {0};
	for (int i = 0; i < n; i += 4) {
		vec v = *(const vec *)(x + i) - m, e = v - d * round_within(v * inverse, splat(0), splat(hi));
		sum += *(const vec *)(w + i) * e * e;
	}
	return total(sum);
}

/* Of the scale and the minimum of group g and their neighbours, the best pair: rounding each alone is not the best for both. */
static void nudge(struct affine *a, const struct block *s, int g, int hi)
{
	float best = INFINITY;
	int scale = a->scale[g], min = a->min[g];
	for (int i = scale - 1; i <= scale + 1; i++)
		for (int j = min - 1; j <= min + 1; j++) {
			if (i < 0 || i > 63 || j < 0 || j > 63)
				continue;
			float e = line_error(s->x + g * 32, s->w + g * 32, 32, a->d * (float)i, -a->dmin * (float)j, (float)hi);
			if (e < best) {
				best = e;
				a->scale[g] = (uint8_t)i;
				a->min[g] = (uint8_t)j;
			}
		}
}

static void fit_affine(uint8_t *b, struct affine *a, const struct block *s, int hi)
{
	struct line l[8];
	float top = 0, deep = 0;
	for (int g = 0; g < 8; g++) {
		l[g] = fit_line(s->x + g * 32, s->w + g * 32, 32, hi, 0);
		top = larger(top, l[g].d);
		deep = larger(deep, -l[g].m);
	}
	a->d = store_half(b, top / 63, s->unit);
	a->dmin = store_half(b + 2, deep / 63, s->unit);
	for (int g = 0; g < 8; g++) {
		a->scale[g] = (uint8_t)to_steps(l[g].d, a->d, 0, 63);
		a->min[g] = (uint8_t)to_steps(-l[g].m, a->dmin, 0, 63);
	}
	for (int g = 0; g < 8; g++)
		nudge(a, s, g, hi);
	choose_affine(a, s, hi);
	refit_affine(a, s);
	a->d = store_half(b, a->d, s->unit);
	a->dmin = store_half(b + 2, a->dmin, s->unit);
	choose_affine(a, s, hi);
}

/* 8 scales and minima of 6 bits in 12 bytes: the first four of each in the low bits, the rest in nibbles and the top bits. */
static void put_scales_and_mins(uint8_t *b, const uint8_t *scale, const uint8_t *min)
{
	for (int g = 0; g < 4; g++) {
		b[g] = (uint8_t)(scale[g] | scale[g + 4] >> 4 << 6);
		b[g + 4] = (uint8_t)(min[g] | min[g + 4] >> 4 << 6);
		b[g + 8] = (uint8_t)((scale[g + 4] & 15) | (min[g + 4] & 15) << 4);
	}
}

static void put_pair_nibbles(uint8_t *qs, const uint8_t *q)
{
	for (int i = 0; i < 128; i++) {
		const uint8_t *pair = q + i / 32 * 64 + i % 32;
		qs[i] = (uint8_t)((pair[0] & 15) | (pair[32] & 15) << 4);
	}
}

static void q4_k(uint8_t *b, const float *x)
{
	struct block s;
	struct affine a;
	load(&s, x, SUPER);
	fit_affine(b, &a, &s, 15);
	put_scales_and_mins(b + 4, a.scale, a.min);
	put_pair_nibbles(b + 16, a.q);
}

static void q5_k(uint8_t *b, const float *x)
{
	struct block s;
	struct affine a;
	load(&s, x, SUPER);
	fit_affine(b, &a, &s, 31);
	put_scales_and_mins(b + 4, a.scale, a.min);
	memset(b + 16, 0, 32);
	for (int i = 0; i < SUPER; i++)
		b[16 + i % 32] |= (uint8_t)((a.q[i] >> 4) << i / 32);
	put_pair_nibbles(b + 48, a.q);
}

/* Q6_K's groups of 16: value = d * scale[g] * (q - 32). */
static void choose_six(uint8_t *q, const struct block *s, float d, const int8_t *scale)
{
	for (int g = 0; g < 16; g++)
		choose(q + g * 16, s->x + g * 16, 16, d * scale[g], 0, -32, 31);
}

static float refit_six(const uint8_t *q, const struct block *s, float d, const int8_t *scale)
{
	float xp = 0, pp = 0;
	for (int i = 0; i < SUPER; i++) {
		float p = (float)(scale[i / 16] * (q[i] - 32));
		xp += s->w[i] * s->x[i] * p;
		pp += s->w[i] * p * p;
	}
	return pp > 0 ? xp / pp : d;
}

static void put_six(uint8_t *b, const uint8_t *q)
{
	memset(b, 0, 192);
	for (int i = 0; i < SUPER; i++) {
		int h = i / 128, k = i % 128 / 32, l = i % 32; /* half, quarter of it, element of that */
		b[h * 64 + k % 2 * 32 + l] |= (uint8_t)((q[i] & 15) << k / 2 * 4);
		b[128 + h * 32 + l] |= (uint8_t)(q[i] >> 4 << k * 2);
	}
}

static void q6_k(uint8_t *b, const float *x)
{
	struct block s;
	float scale[16], extreme = 0;
	int8_t steps[16];
	uint8_t q[SUPER];
	load(&s, x, SUPER);
	for (int g = 0; g < 16; g++) {
		scale[g] = fit_scale(s.x + g * 16, s.w + g * 16, 16, -32, 31);
		if (fabsf(scale[g]) > fabsf(extreme))
			extreme = scale[g];
	}
	float d = store_half(b + 208, extreme / -128, s.unit);
	for (int g = 0; g < 16; g++)
		steps[g] = (int8_t)to_steps(scale[g], d, -128, 127);
	choose_six(q, &s, d, steps);
	d = store_half(b + 208, refit_six(q, &s, d, steps), s.unit);
	choose_six(q, &s, d, steps);
	put_six(b, q);
	memcpy(b + 192, steps, 16);
}

/* ---- plain ---- */

static float stored(float a, float most) { return isnan(a) ? 0 : a > most ? most : a < -most ? -most : a; }

static void f32(uint8_t *b, const float *x)
{
	float a = stored(*x, FLT_MAX);
	memcpy(b, &a, 4);
}
static void f16(uint8_t *b, const float *x) { put_half(b, stave_f32_to_f16(stored(*x, 65504))); }
static void bf16(uint8_t *b, const float *x) { put_half(b, stave_f32_to_bf16(stored(*x, 0x1.fep127f))); }

static void (*const write_block[STAVE_QTYPE_COUNT])(uint8_t *, const float *) = {
	[STAVE_Q_F32] = f32,   [STAVE_Q_F16] = f16,   [STAVE_Q_BF16] = bf16, [STAVE_Q_Q8_0] = q8_0, [STAVE_Q_Q4_0] = q4_0, [STAVE_Q_Q4_1] = q4_1,
	[STAVE_Q_Q5_0] = q5_0, [STAVE_Q_Q5_1] = q5_1, [STAVE_Q_Q4_K] = q4_k, [STAVE_Q_Q5_K] = q5_k, [STAVE_Q_Q6_K] = q6_k,
};

bool stave_can_quantize(enum stave_qtype t)
{
	return write_block[t] != NULL;
}

void stave_quantize(enum stave_qtype t, void *y, const float *x, int64_t n)
{
	struct stave_qtype_info info = stave_qtype_info(t);
	uint8_t *b = y;
	for (int64_t i = 0; i < n; i += info.per, b += info.bytes)
		write_block[t](b, x + i);
}
