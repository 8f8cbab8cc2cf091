/* Attention over pages, the definition: one query at a time, a softmax over all it sees, read back element by element. And the
 * pages themselves: their sizes, how a position is stored and read. */
#include <math.h>

#include "kernel/kernel.h"
#include "kernel/paged_parts.h"
#include "kernel/table.h"

static size_t element_bytes(enum stave_cache_type t)
{
	return t == STAVE_CACHE_F32 ? 4 : t == STAVE_CACHE_BF16 ? 2 : 1;
}
static int per_lane(enum stave_cache_type t) { return t == STAVE_CACHE_F32 ? 1 : 2; }

size_t stave_page_bytes(enum stave_cache_type t, int D)
{
	return paged_scales_at(D) * element_bytes(t) + (t == STAVE_CACHE_I8 ? 2 * STAVE_PAGE * sizeof(float) : 0);
}

/* amax/127, so that the largest element is ±127; NaN if one of x is not finite, so that it is not lost. */
static float int8_scale(const float *x, int D)
{
	float amax = 0;
	for (int d = 0; d < D; d++) {
		if (!isfinite(x[d]))
			return NAN;
		amax = fmaxf(amax, fabsf(x[d]));
	}
	return amax / 127;
}
/* Subnormal scales lose bits: the quotient is held to the range. */
static int8_t to_int8(float x, float scale)
{
	if (!(scale > 0))
		return 0;
	float q = rintf(x / scale);
	return (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
}

void stave_page_put(enum stave_cache_type t, void *page, int at, const float *k, const float *v, int D)
{
	const int per = per_lane(t);
	const size_t v0 = (size_t)STAVE_PAGE * D;
	if (t == STAVE_CACHE_F32) {
		float *y = page;
		for (int d = 0; d < D; d++) {
			y[paged_k(at, d, D, 1)] = k[d];
			y[v0 + paged_v(at, d, 1)] = v[d];
		}
	} else if (t == STAVE_CACHE_BF16) {
		uint16_t *y = page;
		for (int d = 0; d < D; d++) {
			y[paged_k(at, d, D, 2)] = stave_f32_to_bf16(k[d]);
			y[v0 + paged_v(at, d, 2)] = stave_f32_to_bf16(v[d]);
		}
	} else {
		int8_t *y = page;
		float *scales = (float *)((char *)page + paged_scales_at(D)), ks = int8_scale(k, D), vs = int8_scale(v, D);
		for (int d = 0; d < D; d++) {
			y[paged_k(at, d, D, per)] = to_int8(k[d], ks);
			y[v0 + paged_v(at, d, per)] = to_int8(v[d], vs);
		}
		scales[at] = ks;
		scales[STAVE_PAGE + at] = vs;
	}
}

void stave_page_get(enum stave_cache_type t, const void *page, int at, float *k, float *v, int D)
{
	const size_t v0 = (size_t)STAVE_PAGE * D;
	const float *scales = (const float *)((const char *)page + paged_scales_at(D));
	for (int d = 0; d < D; d++) {
		size_t ik = paged_k(at, d, D, per_lane(t)), iv = v0 + paged_v(at, d, per_lane(t));
		if (t == STAVE_CACHE_F32) {
			k[d] = ((const float *)page)[ik];
			v[d] = ((const float *)page)[iv];
		} else if (t == STAVE_CACHE_BF16) {
			k[d] = stave_bf16_to_f32(((const uint16_t *)page)[ik]);
			v[d] = stave_bf16_to_f32(((const uint16_t *)page)[iv]);
		} else {
			k[d] = ((const int8_t *)page)[ik] * scales[at];
			v[d] = ((const int8_t *)page)[iv] * scales[STAVE_PAGE + at];
		}
	}
}

/* The score of one position, and its value into v. */
static float score(const struct stave_paged_attn *a, const float *q, int at, float *k, float *v)
{
	stave_page_get(a->type, a->pages[at / STAVE_PAGE], at % STAVE_PAGE, k, v, a->D);
	float s = 0;
	for (int d = 0; d < a->D; d++)
		s += (a->type == STAVE_CACHE_BF16 ? stave_bf16_to_f32(stave_f32_to_bf16(q[d])) : q[d]) * k[d];
	s *= a->scale;
	return a->softcap > 0 ? a->softcap * tanhf(s / a->softcap) : s;
}

/* The maximum is found as it goes: what was summed relative to an old one is scaled down. */
static void one_query(const struct stave_paged_attn *a, int r, int g, float *k, float *v)
{
	const float *q = a->q + r * a->ldq + (size_t)g * a->D;
	float *o = a->o + r * a->ldo + (size_t)g * a->D, max = -INFINITY, sum = 0;
	for (int d = 0; d < a->D; d++)
		o[d] = 0;
	for (int at = paged_first(a, r); at <= paged_last(a, r); at++) {
		float s = score(a, q, at, k, v), now = fmaxf(max, s), factor = at == paged_first(a, r) ? 0 : expf(max - now), p = expf(s - now);
		for (int d = 0; d < a->D; d++)
			o[d] = o[d] * factor + p * v[d];
		sum = sum * factor + p;
		max = now;
	}
	for (int d = 0; d < a->D; d++)
		o[d] /= sum;
}

void paged_attn_ref(const struct stave_paged_attn *a, void *scratch)
{
	float *k = scratch, *v = k + a->D;
	for (int r = 0; r < a->n; r++)
		for (int g = 0; g < a->G; g++)
			one_query(a, r, g, k, v);
}

size_t stave_paged_scratch(int G, int D)
{
	return paged_lay_out(G, D).end;
}

void stave_paged_attention(const struct stave_paged_attn *a, void *scratch)
{
	stave_kernels()->paged_attn(a, scratch);
}
