/* The definition of every stored weight type: what its bytes mean. Plain C, kept for ever and never tuned; faster readers
 * are tested against it.
 *
 * A block is a few numbers (scales, and for some types minima) followed by small integers, packed. A value is always
 * scale * integer, or scale * integer + minimum, in float and in that order; scales are stored as f16 in the small blocks
 * (32 elements). The K types are blocks of 256 elements in which 8 or 16 groups have scales (and minima) of a few bits, relative
 * to the f16 of the block. IQ4_NL and IQ4_XS map their 4 bits through a table that is denser around zero. MXFP4 is the
 * Open Compute Project's microscaling format: 4-bit floats (E2M1) under one power of two.
 *
 * Nothing here can fail: every bit pattern has a value, a NaN or an infinity included. */
#include "kernel/quant.h"

#include <math.h>
#include <string.h>

#include "kernel/dtype.h"

static float half_at(const uint8_t *b) { return stave_f16_to_f32((uint16_t)(b[0] | b[1] << 8)); }
static uint32_t u32_at(const uint8_t *b) { return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24; }

/* ---- plain ---- */

static void f32(float *y, const uint8_t *b) { memcpy(y, b, 4); }
static void f16(float *y, const uint8_t *b) { *y = half_at(b); }
static void bf16(float *y, const uint8_t *b) { *y = stave_bf16_to_f32((uint16_t)(b[0] | b[1] << 8)); }

/* ---- 32 elements: byte j of 16 holds element j in its low nibble and element j + 16 in its high one ---- */

static int nibble(const uint8_t *qs, int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }
static int fifth(uint32_t high, int i) { return (int)(high >> i & 1) << 4; }

static void q8_0(float *y, const uint8_t *b)
{
	for (int i = 0; i < 32; i++)
		y[i] = half_at(b) * (float)(int8_t)b[2 + i];
}

static void q4_0(float *y, const uint8_t *b)
{
	for (int i = 0; i < 32; i++)
		y[i] = half_at(b) * (float)(nibble(b + 2, i) - 8);
}

static void q4_1(float *y, const uint8_t *b)
{
	for (int i = 0; i < 32; i++)
		y[i] = half_at(b) * (float)nibble(b + 4, i) + half_at(b + 2);
}

static void q5_0(float *y, const uint8_t *b)
{
	for (int i = 0; i < 32; i++)
		y[i] = half_at(b) * (float)((nibble(b + 6, i) | fifth(u32_at(b + 2), i)) - 16);
}

static void q5_1(float *y, const uint8_t *b)
{
	for (int i = 0; i < 32; i++)
		y[i] = half_at(b) * (float)(nibble(b + 8, i) | fifth(u32_at(b + 4), i)) + half_at(b + 2);
}

/* IQ4's levels. */
static const float level[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void iq4_nl(float *y, const uint8_t *b)
{
	for (int i = 0; i < 32; i++)
		y[i] = half_at(b) * level[nibble(b + 2, i)];
}

static void mxfp4(float *y, const uint8_t *b)
{
	static const float doubled[8] = {0, 1, 2, 3, 4, 6, 8, 12}; /* E2M1, times two to be integers: hence 128 where the bias is 127 */
	for (int i = 0; i < 32; i++) {
		int q = nibble(b + 1, i);
		float v = ldexpf(doubled[q & 7], b[0] - 128);
		y[i] = q & 8 ? -v : v;
	}
}

/* ---- 256 elements ---- */

/* Q2_K and Q3_K: two bits of element i. Each half of the block owns 32 bytes, whose bits 0-1 are its first 32 elements, 2-3 the next. */
static int crumb(const uint8_t *qs, int i) { return qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3; }

static void q2_k(float *y, const uint8_t *b)
{
	float d = half_at(b + 80), dmin = half_at(b + 82);
	for (int i = 0; i < 256; i++) {
		int s = b[i / 16];
		float scale = d * (float)(s & 15), min = dmin * (float)(s >> 4);
		y[i] = scale * (float)crumb(b + 16, i) - min;
	}
}

/* Scale g of 16, 6 bits: four in nibbles of the first 8 bytes, two in the last 4. */
static int q3_k_scale(const uint8_t *s, int g)
{
	int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> g / 4 * 2 & 3;
	return (low | high << 4) - 32;
}

static void q3_k(float *y, const uint8_t *b)
{
	float d = half_at(b + 108);
	for (int i = 0; i < 256; i++) {
		int third = b[i % 32] >> i / 32 & 1; /* clear: 4 less */
		float scale = d * (float)q3_k_scale(b + 96, i / 16);
		y[i] = scale * (float)(crumb(b + 32, i) - (third ? 0 : 4));
	}
}

/* Q4_K and Q5_K: scale and minimum of group g of 8, 6 bits each in 12 bytes. */
static void scale_and_min(const uint8_t *s, int g, int *scale, int *min)
{
	if (g < 4) {
		*scale = s[g] & 63;
		*min = s[g + 4] & 63;
	} else {
		*scale = (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
		*min = s[g + 4] >> 4 | s[g] >> 6 << 4;
	}
}

/* Each 32 bytes hold two groups: low nibbles, then high ones. */
static int pair_nibble(const uint8_t *qs, int i) { return qs[i / 64 * 32 + i % 32] >> (i % 64 < 32 ? 0 : 4) & 15; }

/* high: the bytes with the fifth bits, bit g of byte l for element l of group g; NULL: none */
static void q45_k(float *y, const uint8_t *b, const uint8_t *high, const uint8_t *qs)
{
	float d = half_at(b), dmin = half_at(b + 2);
	for (int i = 0; i < 256; i++) {
		int g = i / 32, scale, min, q = pair_nibble(qs, i);
		if (high)
			q |= (high[i % 32] >> g & 1) << 4;
		scale_and_min(b + 4, g, &scale, &min);
		y[i] = d * (float)scale * (float)q - dmin * (float)min;
	}
}

static void q4_k(float *y, const uint8_t *b) { q45_k(y, b, NULL, b + 16); }
static void q5_k(float *y, const uint8_t *b) { q45_k(y, b, b + 16, b + 48); }

/* Each half of the block owns 64 bytes of low nibbles, 32 of high pairs of bits and 8 scales. */
static void q6_k(float *y, const uint8_t *b)
{
	float d = half_at(b + 208);
	for (int i = 0; i < 256; i++) {
		int h = i / 128, k = i % 128 / 32, l = i % 32; /* half, quarter of it, element of that */
		int low = b[h * 64 + k % 2 * 32 + l] >> k / 2 * 4 & 15, high = b[128 + h * 32 + l] >> k * 2 & 3;
		y[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
	}
}

static void iq4_xs(float *y, const uint8_t *b)
{
	float d = half_at(b);
	for (int i = 0; i < 256; i++) {
		int g = i / 32, low = b[4 + g / 2] >> g % 2 * 4 & 15, high = (b[2] | b[3] << 8) >> g * 2 & 3;
		y[i] = d * (float)((low | high << 4) - 32) * level[nibble(b + 8 + g * 16, i % 32)];
	}
}

void stave_dequantize(enum stave_qtype t, float *y, const void *x, int64_t n)
{
	static void (*const block[STAVE_QTYPE_COUNT])(float *, const uint8_t *) = {
		[STAVE_Q_F32] = f32,     [STAVE_Q_F16] = f16,     [STAVE_Q_BF16] = bf16,     [STAVE_Q_Q8_0] = q8_0,
		[STAVE_Q_Q4_0] = q4_0,   [STAVE_Q_Q4_1] = q4_1,   [STAVE_Q_Q5_0] = q5_0,     [STAVE_Q_Q5_1] = q5_1,
		[STAVE_Q_Q2_K] = q2_k,   [STAVE_Q_Q3_K] = q3_k,   [STAVE_Q_Q4_K] = q4_k,     [STAVE_Q_Q5_K] = q5_k,
		[STAVE_Q_Q6_K] = q6_k,   [STAVE_Q_IQ4_NL] = iq4_nl, [STAVE_Q_IQ4_XS] = iq4_xs, [STAVE_Q_MXFP4] = mxfp4,
	};
	struct stave_qtype_info info = stave_qtype_info(t);
	const uint8_t *b = x;
	for (int64_t i = 0; i < n; i += info.per, b += info.bytes)
		block[t](y + i, b);
}
