/* The block types, in plain C: packing panels, the int8 operand, and the definition of an output. panel_int.h has the
 * layout. Packing goes through one code per byte, four in a word: a block's codes are read out of the file's bits by its type, and
 * put into planes by their width alone. It is done when a model is loaded, so it works on words: a word is four neighbouring
 * elements, in little-endian order. */
#include "kernel/panel_int.h"

#include <math.h>

size_t panel_int_bytes(enum stave_qtype t, int cols)
{
	return panel_scale_bytes(t, cols) + (size_t)(cols / PANEL_GROUP) * panel_layouts[t].bits * 64;
}

size_t panel_int_scratch(int cols)
{
	(void)cols;
	return PANEL_SUMS_BYTES + (size_t)2 * PANEL_CHUNK * PANEL_RECORD_MAX;
}

/* ---- reading a block of the file ---- */

enum { MAX_PER = 256, MAX_BLOCK = 210 };

static const uint32_t nibbles = 0x0f0f0f0f, twos = 0x03030303, ones = 0x01010101;

static uint32_t load(const uint8_t *p)
{
	uint32_t u;
	memcpy(&u, p, 4);
	return u;
}

/* Bits 0..3 to bit 0 of bytes 0..3. */
static uint32_t spread(uint32_t bits)
{
	return (bits & 15) * 0x00204081u & ones;
}

/* Codes of 4 bits: byte j holds elements j and j + 16; of 5: `high` holds the fifth bits. */
static void codes_32(uint32_t *code, const uint8_t *qs, const uint8_t *high)
{
	const uint32_t h = high ? load(high) : 0;
	for (int i = 0; i < 4; i++) {
		uint32_t u = load(qs + 4 * i);
		code[i] = (u & nibbles) | spread(h >> (4 * i)) << 4;
		code[i + 4] = (u >> 4 & nibbles) | spread(h >> (4 * i + 16)) << 4;
	}
}

/* 32 bytes hold two groups: low nibbles, then high ones. Byte l of `high` (NULL for Q4_K) has group g's fifth bit at bit g. */
static void codes_k45(uint32_t *code, const uint8_t *qs, const uint8_t *high)
{
	for (int g = 0; g < 8; g++)
		for (int i = 0; i < 8; i++) {
			uint32_t u = load(qs + g / 2 * 32 + 4 * i) >> (g % 2 * 4) & nibbles;
			code[g * 8 + i] = high ? u | (load(high + 4 * i) >> g & ones) << 4 : u;
		}
}

/* Two halves of 128, each with 32 bytes of four groups at shifts 0, 2, 4, 6. `high` (NULL for Q2_K): third bits. */
static void codes_k23(uint32_t *code, const uint8_t *qs, const uint8_t *high)
{
	for (int g = 0; g < 8; g++)
		for (int i = 0; i < 8; i++) {
			uint32_t u = load(qs + g / 4 * 32 + 4 * i) >> (g % 4 * 2) & twos;
			code[g * 8 + i] = high ? u | (load(high + 4 * i) >> g & ones) << 2 : u;
		}
}

static void codes_k6(uint32_t *code, const uint8_t *ql, const uint8_t *qh)
{
	for (int half = 0; half < 2; half++, ql += 64, qh += 32, code += 32)
		for (int i = 0; i < 8; i++) {
			uint32_t a = load(ql + 4 * i), b = load(ql + 32 + 4 * i), h = load(qh + 4 * i);
			code[i] = (a & nibbles) | (h & twos) << 4;
			code[i + 8] = (b & nibbles) | (h >> 2 & twos) << 4;
			code[i + 16] = (a >> 4 & nibbles) | (h >> 4 & twos) << 4;
			code[i + 24] = (b >> 4 & nibbles) | (h >> 6 & twos) << 4;
		}
}

static void read_codes(enum stave_qtype t, uint32_t *code, const uint8_t *b)
{
	switch (t) {
	case STAVE_Q_Q8_0:
		for (int i = 0; i < 8; i++)
			code[i] = load(b + 2 + 4 * i) ^ 0x80808080u;
		break;
	case STAVE_Q_Q4_0:
	case STAVE_Q_IQ4_NL: codes_32(code, b + 2, NULL); break;
	case STAVE_Q_Q4_1: codes_32(code, b + 4, NULL); break;
	case STAVE_Q_Q5_0: codes_32(code, b + 6, b + 2); break;
	case STAVE_Q_Q5_1: codes_32(code, b + 8, b + 4); break;
	case STAVE_Q_MXFP4: codes_32(code, b + 1, NULL); break;
	case STAVE_Q_Q2_K: codes_k23(code, b + 16, NULL); break;
	case STAVE_Q_Q3_K: codes_k23(code, b + 32, b); break;
	case STAVE_Q_Q4_K: codes_k45(code, b + 16, NULL); break;
	case STAVE_Q_Q5_K: codes_k45(code, b + 48, b + 16); break;
	case STAVE_Q_Q6_K: codes_k6(code, b, b + 128); break;
	case STAVE_Q_IQ4_XS:
		for (int g = 0; g < 8; g++)
			codes_32(code + 8 * g, b + 8 + 16 * g, NULL);
		break;
	default: break;
	}
}

/* Row r's scales of a block, each list 16 rows wide. d: f16 at `file`, negated when asked. */
static void put_half(uint8_t *scales, int r, const uint8_t *file, bool negative)
{
	scales[2 * r] = file[0];
	scales[2 * r + 1] = negative ? file[1] ^ 0x80 : file[1];
}

/* The twelve bytes of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit mins. */
static void put_scales_k45(uint8_t *scales, int r, const uint8_t *b)
{
	for (int j = 0; j < 8; j++) {
		uint8_t *sc = scales + 16 * j + r, *m = sc + 128;
		*sc = j < 4 ? b[j] & 63 : (uint8_t)((b[j + 4] & 15) | (b[j - 4] >> 6) << 4);
		*m = j < 4 ? b[j + 4] & 63 : (uint8_t)(b[j + 4] >> 4 | (b[j] >> 6) << 4);
	}
}

/* The twelve bytes of Q3_K: sixteen 6-bit scales, less 32. */
static void put_scales_k3(uint8_t *scales, int r, const uint8_t *b)
{
	for (int j = 0; j < 16; j++) {
		int low = j < 8 ? b[j] & 15 : b[j - 8] >> 4, high = b[8 + j % 4] >> (j / 4 * 2) & 3;
		scales[16 * j + r] = (uint8_t)((low | high << 4) - 32);
	}
}

static void put_scales(enum stave_qtype t, uint8_t *scales, int r, const uint8_t *b)
{
	switch (t) {
	case STAVE_Q_Q4_1:
	case STAVE_Q_Q5_1: put_half(scales + 32, r, b + 2, false); /* fall through */
	case STAVE_Q_Q8_0:
	case STAVE_Q_Q4_0:
	case STAVE_Q_Q5_0:
	case STAVE_Q_IQ4_NL: put_half(scales, r, b, false); break;
	case STAVE_Q_MXFP4: scales[r] = b[0]; break;
	case STAVE_Q_Q2_K:
		put_half(scales, r, b + 80, false);
		put_half(scales + 32, r, b + 82, true);
		for (int j = 0; j < 16; j++)
			scales[64 + 16 * j + r] = b[j];
		break;
	case STAVE_Q_Q3_K:
		put_half(scales, r, b + 108, true); /* negative: see scale_q3k in panel_int.simd.c */
		put_scales_k3(scales + 32, r, b + 96);
		break;
	case STAVE_Q_Q4_K:
	case STAVE_Q_Q5_K:
		put_half(scales, r, b, false);
		put_half(scales + 32, r, b + 2, true);
		put_scales_k45(scales + 64, r, b + 4);
		break;
	case STAVE_Q_Q6_K:
		put_half(scales, r, b + 208, false);
		for (int j = 0; j < 16; j++)
			scales[32 + 16 * j + r] = b[192 + j];
		break;
	case STAVE_Q_IQ4_XS:
		put_half(scales, r, b, false);
		for (int j = 0; j < 8; j++) {
			int low = b[4 + j / 2] >> (j % 2 * 4) & 15, high = (b[2] | b[3] << 8) >> (2 * j) & 3;
			scales[32 + 16 * j + r] = (uint8_t)((low | high << 4) - 32);
		}
		break;
	default: break;
	}
}

/* ---- codes to planes and back ---- */

/* Row r's 32 codes of a group, eight words, into its planes. */
static void put_codes(int bits, uint8_t *planes, int r, const uint32_t *code)
{
	uint32_t *out = (uint32_t *)(void *)planes + r, high = 0; /* a plane is 16 words */
	if (bits == 8) {
		for (int j = 0; j < 8; j++)
			out[16 * j] = code[j];
		return;
	}
	const int low = bits >= 4 ? 4 : 2; /* planes of the low bits; they have as many bits */
	for (int i = 0; low == 4 && i < 4; i++)
		out[16 * i] = (code[i] & nibbles) | (code[i + 4] & nibbles) << 4;
	for (int i = 0; low == 2 && i < 2; i++)
		out[16 * i] = (code[4 * i] & twos) | (code[4 * i + 1] & twos) << 2 | (code[4 * i + 2] & twos) << 4 | (code[4 * i + 3] & twos) << 6;
	for (int i = 0; bits == 6 && i < 2; i++)
		out[16 * (4 + i)] = (code[4 * i] >> 4 & twos) | (code[4 * i + 1] >> 4 & twos) << 2 | (code[4 * i + 2] >> 4 & twos) << 4 |
		                    (code[4 * i + 3] >> 4 & twos) << 6;
	for (int j = 0; bits - low == 1 && j < 8; j++)
		high |= (code[j] >> low & ones) << j;
	if (bits - low == 1)
		out[16 * low] = high;
}

static int get_code(int bits, const uint8_t *planes, int r, int k)
{
	int j = k / 4, at = 4 * r + k % 4, c;
	if (bits == 8)
		return planes[64 * j + at];
	if (bits >= 4)
		c = planes[64 * (j % 4) + at] >> (j / 4 * 4) & 15;
	else
		c = planes[64 * (j / 4) + at] >> (j % 4 * 2) & 3;
	if (bits == 5)
		c |= (planes[256 + at] >> j & 1) << 4;
	else if (bits == 3)
		c |= (planes[128 + at] >> j & 1) << 2;
	else if (bits == 6)
		c |= (planes[256 + 64 * (j / 4) + at] >> (j % 4 * 2) & 3) << 4;
	return c;
}

void panel_int_pack(enum stave_qtype t, void *panel, const void *const row[STAVE_PANEL], int cols)
{
	static const uint8_t zeros[MAX_BLOCK];
	const struct stave_qtype_info info = stave_qtype_info(t);
	const struct panel_layout l = panel_layouts[t];
	uint8_t *scales = panel, *planes = scales + panel_scale_bytes(t, cols);
	uint32_t code[MAX_PER / 4];
	memset(planes - 64, 0, 64); /* what rounds the scales up */
	for (int b = 0; b < cols / info.per; b++)
		for (int r = 0; r < STAVE_PANEL; r++) {
			const uint8_t *block = row[r] ? (const uint8_t *)row[r] + (size_t)b * (size_t)info.bytes : zeros;
			put_scales(t, scales + (size_t)b * (size_t)l.scales, r, block);
			read_codes(t, code, block);
			for (int g = 0; g < info.per / 32; g++)
				put_codes(l.bits, planes + ((size_t)b * (size_t)(info.per / 32) + (size_t)g) * l.bits * 64, r, code + 8 * g);
		}
}

/* ---- the operand ---- */

size_t panel_int_operand_bytes(int n, int cols)
{
	return ((size_t)n * panel_operand_row(cols) + 63) / 64 * 64;
}

/* amax of a group as float bits: integer order puts infinities and NaN above all finite values. */
static uint32_t group_amax(const float *x)
{
	uint32_t amax = 0;
	for (int i = 0; i < 32; i++) {
		uint32_t u;
		memcpy(&u, x + i, 4);
		u &= 0x7fffffffu;
		amax = u > amax ? u : amax;
	}
	return amax;
}

static void make_group(const struct panel_operand *o, size_t i, const float *x)
{
	uint32_t bits = group_amax(x);
	float amax, inverse = 0, scale = 0;
	memcpy(&amax, &bits, 4);
	if (!isfinite(amax))
		scale = NAN;
	else if (amax >= PANEL_TINY) {
		scale = amax / 127;
		inverse = 127 / amax;
	}
	int sum[2] = {0, 0};
	for (int k = 0; k < 32; k++) {
		int q = inverse > 0 ? (int)nearbyintf(x[k] * inverse) : 0;
		o->q[(size_t)(k / 4) * 4 * o->m + 4 * i + (size_t)(k % 4)] = (int8_t)q;
		sum[k / 16] += q;
	}
	o->scale[i] = scale;
	o->init[i] = -128 * (sum[0] + sum[1]);
	o->smin[i] = scale * (float)(sum[0] + sum[1]);
	for (int h = 0; h < 2; h++) {
		o->init16[(size_t)h * o->m + i] = -128 * sum[h];
		o->smin16[(size_t)h * o->m + i] = scale * (float)sum[h];
	}
}

void panel_int_operand_ref(void *operand, const float *x, size_t ldx, int n, int cols, int r0, int r1)
{
	for (int r = r0; r < r1; r++) {
		int tile = panel_tile_of(r, n);
		struct panel_operand o = panel_operand_tile(operand, tile, n, cols);
		for (int g = 0; g < cols / 32; g++) {
			struct panel_operand at = panel_operand_at(o, g);
			make_group(&at, (size_t)(r - panel_tile_first(tile, n)), x + (size_t)r * ldx + 32 * g);
		}
	}
}

/* ---- the definition ---- */

static float half(const uint8_t *scales, int r)
{
	return stave_f16_to_f32((uint16_t)(scales[2 * r] | scales[2 * r + 1] << 8));
}

/* 2^(e - 128) */
static float power_of_two(int e)
{
	return ldexpf(1, e - 128);
}

/* The scale, and for some types the second scale or the mins, of group g of a block. Products of an f16 and a small integer
 * are exact. */
static void group_scales(enum stave_qtype t, const uint8_t *scales, int r, int g, float s[3])
{
	const int8_t *small = (const int8_t *)scales + 32 + r;
	switch (t) {
	case STAVE_Q_MXFP4: s[0] = power_of_two(scales[r]); break;
	case STAVE_Q_Q4_1:
	case STAVE_Q_Q5_1:
		s[0] = half(scales, r);
		s[1] = half(scales + 32, r);
		break;
	case STAVE_Q_Q4_K:
	case STAVE_Q_Q5_K:
		s[0] = half(scales, r) * scales[64 + 16 * g + r];
		s[1] = half(scales + 32, r) * scales[192 + 16 * g + r];
		break;
	case STAVE_Q_Q6_K:
		s[0] = half(scales, r) * small[32 * g];
		s[1] = half(scales, r) * small[32 * g + 16];
		break;
	case STAVE_Q_IQ4_XS: s[0] = half(scales, r) * small[16 * g]; break;
	case STAVE_Q_Q2_K:
		s[0] = half(scales, r);
		s[1] = half(scales + 32, r) * (float)(scales[64 + 32 * g + r] >> 4);
		s[2] = half(scales + 32, r) * (float)(scales[64 + 32 * g + 16 + r] >> 4);
		break;
	default: s[0] = half(scales, r);
	}
}

/* The integer that multiplies code k's product within the dot: Q2_K's and Q3_K's small scales (the latter's negated, as its
 * stored d is), else 1. */
static int inner_scale(enum stave_qtype t, const uint8_t *scales, int r, int g, int k)
{
	int at = 16 * (2 * g + k / 16) + r;
	return t == STAVE_Q_Q2_K ? scales[64 + at] & 15 : t == STAVE_Q_Q3_K ? -((const int8_t *)scales)[32 + at] : 1;
}

float panel_int_one(const struct stave_packed *w, int row, const void *operand, int n, int r)
{
	const enum stave_qtype t = w->type;
	const struct panel_layout l = panel_layouts[t];
	const int per_block = stave_qtype_info(t).per / 32, lane = row % STAVE_PANEL, tile = panel_tile_of(r, n);
	const uint8_t *panel = (const uint8_t *)w->data + (size_t)(row / STAVE_PANEL) * panel_int_bytes(t, w->cols);
	const uint8_t *planes = panel + panel_scale_bytes(t, w->cols);
	const struct panel_operand o = panel_operand_tile(operand, tile, n, w->cols);
	const size_t i = (size_t)(r - panel_tile_first(tile, n));
	float acc = 0;
	for (int g = 0; g < w->cols / 32; g++, planes += l.bits * 64) {
		const uint8_t *scales = panel + (size_t)(g / per_block) * (size_t)l.scales;
		const struct panel_operand at = panel_operand_at(o, g);
		int dot[2] = {0, 0};
		for (int k = 0; k < 32; k++) {
			int code = get_code(l.bits, planes, lane, k);
			int v = l.table ? panel_values(t)[code] : code - l.offset;
			dot[k / 16] += v * inner_scale(t, scales, lane, g % per_block, k) * at.q[(size_t)(k / 4) * 4 * at.m + 4 * i + (size_t)(k % 4)];
		}
		float s[3], scale = at.scale[i];
		group_scales(t, scales, lane, g % per_block, s);
		if (l.kind == PANEL_TWO)
			acc = fmaf(fmaf((float)dot[1], s[1], (float)dot[0] * s[0]), scale, acc);
		else
			acc = fmaf((float)(dot[0] + dot[1]), s[0] * scale, acc);
		if (l.kind == PANEL_MIN)
			acc = fmaf(s[1], at.smin[i], acc);
		for (int h = 0; l.kind == PANEL_MIN2 && h < 2; h++)
			acc = fmaf(s[1 + h], at.smin16[(size_t)h * at.m + i], acc);
	}
	return acc;
}
