/* Stored weight types. Reading: blocks built here field by field from the formats' tables, and values of the formats' own
 * reference implementation for fixed bytes. Writing: error bounds that implementation sets for itself, the margin over rounding
 * to the nearest step, exact round trips, and hostile floats. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kernel/dtype.h"
#include "kernel/quant.h"

static uint64_t drawn;
static double unit(void) { return stave_random_unit(11, drawn++); }
static int below(int n) { return (int)(unit() * n); }
static double normal(void) { return sqrt(-2 * log(1 - unit())) * cos(6.283185307179586 * unit()); }
static const char *name(enum stave_qtype t) { return stave_qtype_info(t).name; }

/* ---- reading: the reference implementation's values for bytes i * 37 + 11 ---- */

static void test_published_values(void **state)
{
	static const struct {
		enum stave_qtype t;
		double at[5]; /* elements 0, 1, n/2 - 1, n/2 + 5, n - 1 */
		double sum;   /* of value i times i % 7 + 1 */
	} golden[] = {
		{STAVE_Q_Q8_0, {0x1.57a7p+3, 0x1.ed3ep+3, -0x1.02cp+4, 0x1.7c0ap+3, -0x1.842p+2}, -0x1.3851cp+6},
		{STAVE_Q_Q4_0, {-0x1.842p-2, 0x1.02cp-2, -0x1.02cp+0, -0x1.02cp+0, 0x0p+0}, 0x1.c4dp+1},
		{STAVE_Q_Q4_1, {0x1.9543cap+15, 0x1.954102p+15, 0x1.954286p+15, 0x1.954144p+15, 0x1.954308p+15}, 0x1.8242c4acp+22},
		{STAVE_Q_Q5_0, {0x1.2318p+0, -0x1.02cp-2, -0x1.842p+0, -0x1.842p-1, 0x1.02cp-3}, 0x1.c4dp+3},
		{STAVE_Q_Q5_1, {0x1.9544cep+15, 0x1.95461p+15, 0x1.954794p+15, 0x1.954794p+15, 0x1.954144p+15}, 0x1.82449328p+22},
		{STAVE_Q_Q2_K, {-0x1.2ff6p+6, -0x0p+0, -0x1.82dcp+6, -0x1.4afp-11, -0x1.ba252cp+3}, -0x1.9c1aa041fp+14},
		{STAVE_Q_Q3_K, {-0x1.78d7p+10, 0x1.f674p+10, -0x1.4ef8p+10, -0x1.29cp+7, -0x1.86ccp+9}, -0x1.aeec6p+15},
		{STAVE_Q_Q4_K, {-0x1.42eda8p+21, -0x1.42efp+21, -0x1.ae933ap+20, -0x1.2fed8ap+19, -0x1.bb3d7ap+20}, -0x1.9b5a435d8p+30},
		{STAVE_Q_Q5_K, {-0x1.42ebb2p+21, -0x1.42efp+21, -0x1.ae93e4p+20, -0x1.2fe3aep+19, -0x1.bb3d02p+20}, -0x1.9b58575c4p+30},
		{STAVE_Q_Q6_K, {-0x1.6f2edp+11, 0x1.b32ep+11, 0x1.80e34p+11, 0x1.7599p+9, -0x1.eca8p+6}, 0x1.3ccb6ep+14},
		{STAVE_Q_IQ4_NL, {-0x1.1b02p+2, 0x1.944cp+1, -0x1.00ba8p+4, -0x1.00ba8p+4, 0x1.02cp-3}, 0x1.35caep+6},
		{STAVE_Q_IQ4_XS, {0x1.06cbp+3, -0x1.02cp-3, 0x1.8c36p+4, 0x1.e21fcp+5, -0x1.02cp+1}, -0x1.1d0b8bp+14},
		{STAVE_Q_MXFP4, {0x0p+0, 0x1.8p-115, -0x1.8p-116, -0x1p-114, 0x1.8p-115}, 0x1.54p-111},
	};
	for (size_t g = 0; g < sizeof golden / sizeof *golden; g++) {
		struct stave_qtype_info info = stave_qtype_info(golden[g].t);
		int n = info.per, at[5] = {0, 1, n / 2 - 1, n / 2 + 5, n - 1};
		uint8_t bytes[256];
		float y[256];
		double sum = 0;
		for (int i = 0; i < info.bytes; i++)
			bytes[i] = (uint8_t)(i * 37 + 11);
		stave_dequantize(golden[g].t, y, bytes, n);
		for (int i = 0; i < n; i++)
			sum += (double)y[i] * (i % 7 + 1);
		for (int i = 0; i < 5; i++)
			if (y[at[i]] != golden[g].at[i])
				fail_msg("%s[%d] is %.9g, want %.9g", info.name, at[i], y[at[i]], golden[g].at[i]);
		if (fabs(sum - golden[g].sum) > 1e-9 * fabs(golden[g].sum))
			fail_msg("%s: sum %.12g, want %.12g", info.name, sum, golden[g].sum);
	}
}

/* ---- reading: blocks built by the formats' tables ---- */

/* The fields of a block, and what its elements are worth. */
struct fields {
	uint8_t b[256];
	int q[256], scale[16], min[16];
	double d, m;
};

static void place_half(uint8_t *b, double v)
{
	uint16_t h = stave_f32_to_f16((float)v);
	memcpy(b, &h, 2);
}

/* d and m are exact in f16; integers of `bits` bits. */
static void draw(struct fields *f, int n, int bits)
{
	memset(f, 0, sizeof *f);
	f->d = (1 + below(1024) / 1024.) / 64;
	f->m = (1 + below(1024) / 1024.) / 4;
	for (int i = 0; i < n; i++)
		f->q[i] = below(1 << bits);
}

static void expect(enum stave_qtype t, const struct fields *f, const double *want)
{
	float y[256];
	uint8_t shifted[257]; /* any alignment */
	memcpy(shifted + 1, f->b, 256);
	stave_dequantize(t, y, shifted + 1, stave_qtype_info(t).per);
	for (int i = 0; i < stave_qtype_info(t).per; i++)
		if (!(fabs(y[i] - want[i]) <= 1e-6 * (fabs(want[i]) + f->m)))
			fail_msg("%s[%d] is %.9g, want %.9g", name(t), i, y[i], want[i]);
}

static void nibbles_32(uint8_t *qs, const int *q)
{
	for (int j = 0; j < 16; j++)
		qs[j] = (uint8_t)((q[j] & 15) + 16 * (q[j + 16] & 15));
}

static void test_blocks_of_32(void **state)
{
	static const int levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
	static const double e2m1[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6};
	struct fields f;
	double want[256];
	for (int round = 0; round < 50; round++) {
		draw(&f, 32, 8);
		place_half(f.b, f.d);
		for (int i = 0; i < 32; i++) {
			f.b[2 + i] = (uint8_t)(f.q[i] - 128);
			want[i] = f.d * (f.q[i] - 128);
		}
		expect(STAVE_Q_Q8_0, &f, want);

		draw(&f, 32, 4);
		place_half(f.b, f.d);
		nibbles_32(f.b + 2, f.q);
		for (int i = 0; i < 32; i++)
			want[i] = f.d * (f.q[i] - 8);
		expect(STAVE_Q_Q4_0, &f, want);
		for (int i = 0; i < 32; i++)
			want[i] = f.d * levels[f.q[i]];
		expect(STAVE_Q_IQ4_NL, &f, want);

		place_half(f.b + 2, f.m);
		nibbles_32(f.b + 4, f.q);
		for (int i = 0; i < 32; i++)
			want[i] = f.d * f.q[i] + f.m;
		expect(STAVE_Q_Q4_1, &f, want);

		f.b[0] = (uint8_t)(117 + below(20));
		nibbles_32(f.b + 1, f.q);
		for (int i = 0; i < 32; i++)
			want[i] = ldexp(e2m1[f.q[i]], f.b[0] - 127);
		expect(STAVE_Q_MXFP4, &f, want);

		draw(&f, 32, 5);
		uint32_t high = 0;
		for (int i = 0; i < 32; i++)
			high |= (uint32_t)(f.q[i] >> 4) << i;
		place_half(f.b, f.d);
		memcpy(f.b + 2, &high, 4);
		nibbles_32(f.b + 6, f.q);
		for (int i = 0; i < 32; i++)
			want[i] = f.d * (f.q[i] - 16);
		expect(STAVE_Q_Q5_0, &f, want);

		place_half(f.b + 2, f.m);
		memcpy(f.b + 4, &high, 4);
		nibbles_32(f.b + 8, f.q);
		for (int i = 0; i < 32; i++)
			want[i] = f.d * f.q[i] + f.m;
		expect(STAVE_Q_Q5_1, &f, want);
	}
}

static void test_q2_k_and_q3_k(void **state)
{
	struct fields f;
	double want[256];
	for (int round = 0; round < 50; round++) {
		draw(&f, 256, 2);
		place_half(f.b + 80, f.d);
		place_half(f.b + 82, f.m);
		for (int g = 0; g < 16; g++)
			f.b[g] = (uint8_t)((f.scale[g] = below(16)) | (f.min[g] = below(16)) << 4);
		for (int half = 0, i = 0; half < 2; half++)
			for (int shift = 0; shift < 8; shift += 2)
				for (int l = 0; l < 32; l++, i++) {
					f.b[16 + half * 32 + l] |= (uint8_t)(f.q[i] << shift);
					want[i] = f.d * f.scale[i / 16] * f.q[i] - f.m * f.min[i / 16];
				}
		expect(STAVE_Q_Q2_K, &f, want);

		draw(&f, 256, 3);
		f.m = 0;
		place_half(f.b + 108, f.d);
		for (int g = 0; g < 16; g++) {
			int s = f.scale[g] = below(64);
			f.b[96 + g % 8] |= (uint8_t)((s & 15) << (g < 8 ? 0 : 4));
			f.b[104 + g % 4] |= (uint8_t)((s >> 4) << 2 * (g / 4));
		}
		for (int step = 0, i = 0; step < 8; step++)
			for (int l = 0; l < 32; l++, i++) {
				f.b[32 + step / 4 * 32 + l] |= (uint8_t)((f.q[i] & 3) << 2 * (step % 4));
				f.b[l] |= (uint8_t)((f.q[i] >> 2) << step);
				want[i] = f.d * (f.scale[i / 16] - 32) * (f.q[i] - 4);
			}
		expect(STAVE_Q_Q3_K, &f, want);
	}
}

/* Scales and minima of Q4_K and Q5_K, by the table: sub-blocks 0-3 whole, 4-7 in nibbles with their top bits above the others'. */
static void scales_12(uint8_t *b, struct fields *f)
{
	for (int j = 0; j < 8; j++) {
		int sc = f->scale[j] = below(64), m = f->min[j] = below(64);
		if (j < 4) {
			b[j] |= (uint8_t)sc;
			b[j + 4] |= (uint8_t)m;
		} else {
			b[j + 4] |= (uint8_t)((sc & 15) | (m & 15) << 4);
			b[j - 4] |= (uint8_t)((sc >> 4) << 6);
			b[j] |= (uint8_t)((m >> 4) << 6);
		}
	}
}

static void test_q4_k_q5_k_and_q6_k(void **state)
{
	struct fields f;
	double want[256];
	for (int round = 0; round < 50; round++) {
		for (int bits = 4; bits <= 5; bits++) {
			uint8_t *qs = f.b + (bits == 4 ? 16 : 48);
			draw(&f, 256, bits);
			place_half(f.b, f.d);
			place_half(f.b + 2, f.m);
			scales_12(f.b + 4, &f);
			for (int k = 0; k < 4; k++)
				for (int l = 0; l < 32; l++) {
					int low = f.q[64 * k + l], high = f.q[64 * k + 32 + l];
					qs[32 * k + l] = (uint8_t)((low & 15) | (high & 15) << 4);
					if (bits == 5)
						f.b[16 + l] |= (uint8_t)((low >> 4) << 2 * k | (high >> 4) << (2 * k + 1));
				}
			for (int i = 0; i < 256; i++)
				want[i] = f.d * f.scale[i / 32] * f.q[i] - f.m * f.min[i / 32];
			f.m *= 63; /* the terms cancel: errors are relative to the larger */
			expect(bits == 4 ? STAVE_Q_Q4_K : STAVE_Q_Q5_K, &f, want);
		}

		draw(&f, 256, 6);
		f.m = 0;
		place_half(f.b + 208, f.d);
		for (int g = 0; g < 16; g++)
			f.b[192 + g] = (uint8_t)(f.scale[g] = below(256) - 128);
		for (int half = 0; half < 2; half++) {
			uint8_t *ql = f.b + 64 * half, *qh = f.b + 128 + 32 * half;
			const int *y = f.q + 128 * half;
			for (int l = 0; l < 32; l++) {
				ql[l] = (uint8_t)((y[l] & 15) | (y[l + 64] & 15) << 4);
				ql[l + 32] = (uint8_t)((y[l + 32] & 15) | (y[l + 96] & 15) << 4);
				qh[l] = (uint8_t)(y[l] >> 4 | y[l + 32] >> 4 << 2 | y[l + 64] >> 4 << 4 | y[l + 96] >> 4 << 6);
			}
		}
		for (int i = 0; i < 256; i++)
			want[i] = f.d * f.scale[i / 16] * (f.q[i] - 32);
		expect(STAVE_Q_Q6_K, &f, want);
	}
}

static void test_iq4_xs(void **state)
{
	static const int levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
	struct fields f;
	double want[256];
	for (int round = 0; round < 50; round++) {
		uint16_t high = 0;
		draw(&f, 256, 4);
		f.m = 0;
		place_half(f.b, f.d);
		for (int g = 0; g < 8; g++) {
			int s = f.scale[g] = below(64);
			f.b[4 + g / 2] |= (uint8_t)((s & 15) << 4 * (g % 2));
			high |= (uint16_t)((s >> 4) << 2 * g);
			nibbles_32(f.b + 8 + 16 * g, f.q + 32 * g);
		}
		memcpy(f.b + 2, &high, 2);
		for (int i = 0; i < 256; i++)
			want[i] = f.d * (f.scale[i / 32] - 32) * levels[f.q[i]];
		expect(STAVE_Q_IQ4_XS, &f, want);
	}
}

static void test_any_bytes_are_read(void **state)
{
	uint8_t b[256];
	float y[256];
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		for (int round = 0; round < 300; round++) {
			for (int i = 0; i < 256; i++)
				b[i] = (uint8_t)(round == 0 ? 0xff : below(256));
			stave_dequantize((enum stave_qtype)t, y, b, stave_qtype_info((enum stave_qtype)t).per);
		}
}

/* ---- plain types ---- */

static uint16_t half_of(float v)
{
	uint16_t h;
	stave_quantize(STAVE_Q_F16, &h, &v, 1);
	return h;
}

static void test_plain_types(void **state)
{
	static const struct { float v; uint16_t f16, bf16; } cases[] = {
		{0, 0, 0}, {-0.f, 0x8000, 0x8000}, {1, 0x3c00, 0x3f80}, {-2, 0xc000, 0xc000}, {1.f / 3, 0x3555, 0x3eab}, {65504, 0x7bff, 0x4780},
		{65519, 0x7bff, 0x4780}, {1e9f, 0x7bff, 0x4e6e}, {-1e9f, 0xfbff, 0xce6e}, {INFINITY, 0x7bff, 0x7f7f}, {-INFINITY, 0xfbff, 0xff7f},
		{FLT_MAX, 0x7bff, 0x7f7f}, {NAN, 0, 0}, {0x1p-24f, 1, 0x3380}, {0x1p-25f, 0, 0x3300}, {0x1.8p-24f, 2, 0x33c0}, {0x1.01p-25f, 1, 0x3300},
		{0x1.ffcp-15f, 0x0400, 0x3880}, {1 + 0x1p-11f, 0x3c00, 0x3f80}, {1 + 0x3p-11f, 0x3c02, 0x3f80}, {1 + 0x3p-8f, 0x3c0c, 0x3f82},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint16_t h;
		float back;
		if (half_of(cases[i].v) != cases[i].f16)
			fail_msg("f16 of %.9g is %#x, want %#x", cases[i].v, half_of(cases[i].v), cases[i].f16);
		stave_quantize(STAVE_Q_BF16, &h, &cases[i].v, 1);
		if (h != cases[i].bf16)
			fail_msg("bf16 of %.9g is %#x, want %#x", cases[i].v, h, cases[i].bf16);
		stave_quantize(STAVE_Q_F32, &back, &cases[i].v, 1);
		assert_true(isfinite(back) && (!isfinite(cases[i].v) || back == cases[i].v));
	}
	for (uint32_t h = 0; h < 0x10000; h++) {
		float v;
		uint16_t bits = (uint16_t)h;
		stave_dequantize(STAVE_Q_F16, &v, &bits, 1);
		if (isfinite(v)) {
			assert_int_equal(half_of(v), h);
			assert_true(v == ldexp((h >> 10 & 31 ? 1024 : 0) + (h & 1023), (h >> 10 & 31 ? (int)(h >> 10 & 31) : 1) - 25) * (h >> 15 ? -1 : 1));
		} else {
			assert_int_equal(h >> 10 & 31, 31);
		}
		/* conversion proper, which other callers use, keeps what is not finite */
		if (h >> 10 & 31 && (h >> 10 & 31) == 31)
			assert_int_equal(stave_f32_to_f16(v), h & 1023 ? h | 0x200 : h);
	}
}

/* ---- writing ---- */

static const enum stave_qtype written[] = {STAVE_Q_F32, STAVE_Q_F16, STAVE_Q_BF16, STAVE_Q_Q8_0, STAVE_Q_Q4_0, STAVE_Q_Q4_1,
                                           STAVE_Q_Q5_0, STAVE_Q_Q5_1, STAVE_Q_Q4_K, STAVE_Q_Q5_K, STAVE_Q_Q6_K};
enum { WRITTEN = sizeof written / sizeof *written, N = 1 << 14 };
static float x[N], y[N];
static uint8_t blocks[N * 4];

static void write_and_read(enum stave_qtype t, int n)
{
	assert_int_equal(n % stave_qtype_info(t).per, 0);
	stave_quantize(t, blocks, x, n);
	stave_dequantize(t, y, blocks, n);
}

static double squared_error(int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += (double)(x[i] - y[i]) * (x[i] - y[i]);
	return sum;
}

static void test_what_can_be_written(void **state)
{
	int n = 0;
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		n += stave_can_quantize((enum stave_qtype)t);
	assert_int_equal(n, WRITTEN);
	for (int i = 0; i < WRITTEN; i++)
		assert_true(stave_can_quantize(written[i]));
}

/* The bounds that the formats' reference implementation tests itself with, on its data. */
static void test_errors_are_within_the_formats_bounds(void **state)
{
	int n = 32 * 128;
	for (int i = 0; i < WRITTEN; i++) {
		double dot = 0;
		for (int k = 0; k < n; k++)
			x[k] = (float)(.1 + 2 * cos(k));
		write_and_read(written[i], n);
		for (int k = 0; k < n; k++)
			dot += (.1 + 2 * cos(k + 1.)) * (x[k] - y[k]);
		if (!(sqrt(squared_error(n)) / n < .002) || !(fabs(dot) / n < .02))
			fail_msg("%s: total error %g, dot error %g", name(written[i]), sqrt(squared_error(n)) / n, fabs(dot) / n);
	}
}

/* Rounding to the nearest step of a scale that spans the values: symmetric (lo..hi, the greatest magnitude at lo) or from
 * minimum to maximum; in groups of n, each with exact scales. */
static double nearest_symmetric(int group, int lo, int hi)
{
	double sum = 0;
	for (int i = 0; i < N; i += group) {
		double extreme = 0;
		for (int k = i; k < i + group; k++)
			if (fabs(x[k]) > fabs(extreme))
				extreme = x[k];
		double d = extreme / lo;
		for (int k = i; k < i + group; k++) {
			double q = fmin(fmax(rint(x[k] / d), lo), hi);
			sum += (x[k] - d * q) * (x[k] - d * q);
		}
	}
	return sum;
}
static double nearest_affine(int group, int hi)
{
	double sum = 0;
	for (int i = 0; i < N; i += group) {
		double min = x[i], max = x[i];
		for (int k = i; k < i + group; k++) {
			min = fmin(min, x[k]);
			max = fmax(max, x[k]);
		}
		double d = (max - min) / hi;
		for (int k = i; k < i + group; k++) {
			double e = x[k] - (min + d * rint((x[k] - min) / d));
			sum += e * e;
		}
	}
	return sum;
}

/* Squared error on normal and on heavy-tailed weights, as a share of rounding's. The K types carry 6-bit scales and still
 * beat rounding with exact ones. */
static void test_search_beats_rounding(void **state)
{
	for (int heavy = 0; heavy < 2; heavy++) {
		for (int i = 0; i < N; i++)
			x[i] = (float)(.02 * normal() * (heavy ? exp(.5 * normal()) : 1));
		const struct { enum stave_qtype t; double nearest, share; } cases[] = {
			{STAVE_Q_Q4_0, nearest_symmetric(32, -8, 7), .95},   {STAVE_Q_Q5_0, nearest_symmetric(32, -16, 15), .94},
			{STAVE_Q_Q4_1, nearest_affine(32, 15), .83},         {STAVE_Q_Q5_1, nearest_affine(32, 31), .83},
			{STAVE_Q_Q4_K, nearest_affine(32, 15), .84},         {STAVE_Q_Q5_K, nearest_affine(32, 31), .88},
			{STAVE_Q_Q6_K, nearest_symmetric(16, -32, 31), .88},
		};
		for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
			write_and_read(cases[c].t, N);
			double share = squared_error(N) / cases[c].nearest;
			if (!(share < cases[c].share))
				fail_msg("%s: squared error is %.3f of rounding's, want below %.2f (heavy tails: %d)", name(cases[c].t), share, cases[c].share, heavy);
		}
	}
}

static void random_blocks(enum stave_qtype t, int n)
{
	struct stave_qtype_info info = stave_qtype_info(t);
	for (int i = 0; i < n; i++) {
		uint8_t *b = blocks + (size_t)i * (size_t)info.bytes;
		for (int k = 2; k < info.bytes; k++)
			b[k] = (uint8_t)below(256);
		place_half(b, (below(2) ? 1 : -1) * ldexp(1 + unit(), -14 + below(20)));
	}
}

static void test_round_trips_are_exact(void **state)
{
	/* Q8_0 by its rule: a block that holds a 127 (all that were written do) keeps its scale */
	random_blocks(STAVE_Q_Q8_0, N / 32);
	for (int i = 0; i < N / 32; i++)
		for (int k = 2; k < 34; k++) {
			int8_t *q = (int8_t *)blocks + i * 34 + k;
			*q = k == 2 + i % 32 ? 127 : *q == -128 ? -127 : *q;
		}
	stave_dequantize(STAVE_Q_Q8_0, x, blocks, N);
	write_and_read(STAVE_Q_Q8_0, N);
	for (int i = 0; i < N; i++)
		assert_true(x[i] == y[i]);
	for (int five = 0; five < 2; five++) {
		enum stave_qtype t = five ? STAVE_Q_Q5_0 : STAVE_Q_Q4_0;
		random_blocks(t, N / 32);
		for (int i = 0; !five && i < N / 32; i += 2) /* small integers only, too */
			for (int k = 2; k < 18; k++)
				blocks[i * 18 + k] = (uint8_t)(6 + below(5) + 16 * (6 + below(5)));
		stave_dequantize(t, x, blocks, N);
		write_and_read(t, N);
		for (int i = 0; i < N; i++)
			if (x[i] != y[i])
				fail_msg("%s[%d] comes back as %.9g, was %.9g", name(t), i, y[i], x[i]);
	}
}

static void test_plain_values(void **state)
{
	for (int i = 0; i < WRITTEN; i++) {
		/* zeros stay zeros; a constant stays about that */
		memset(x, 0, sizeof x);
		write_and_read(written[i], 256);
		for (int k = 0; k < 256; k++)
			assert_true(y[k] == 0);
		for (int sign = -1; sign <= 1; sign += 2) {
			for (int k = 0; k < 256; k++)
				x[k] = (float)sign * .75f;
			write_and_read(written[i], 256);
			for (int k = 0; k < 256; k++)
				if (!(fabsf(y[k] - x[k]) < 1e-3f))
					fail_msg("%s: %g is stored as %g", name(written[i]), x[k], y[k]);
		}
	}
}

/* ---- hostile floats ---- */

static void test_whatever_comes_in_what_is_stored_is_finite(void **state)
{
	static const float odd[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, FLT_MIN, FLT_TRUE_MIN, -FLT_TRUE_MIN, 0, -0.f, 1e30f, 65504, 1e-20f, 1, -1, 6e-8f};
	for (int i = 0; i < WRITTEN; i++)
		for (int round = 0; round < 400; round++) {
			int n = 256;
			for (int k = 0; k < n; k++) {
				uint32_t bits = (uint32_t)below(1 << 30) * 4u + (uint32_t)below(4);
				if (round % 2)
					memcpy(&x[k], &bits, 4);
				else
					x[k] = below(1 + round / 20) ? (float)normal() : odd[below(sizeof odd / sizeof *odd)];
			}
			write_and_read(written[i], n);
			for (int k = 0; k < n; k++)
				if (!isfinite(y[k]))
					fail_msg("%s stored %g as %g", name(written[i]), x[k], y[k]);
		}
}

static void test_nan_is_zero_and_infinity_the_largest(void **state)
{
	/* the largest value of each type: f16's 65504 times the largest scale times the largest integer */
	static const struct { enum stave_qtype t; double most; } cases[] = {
		{STAVE_Q_F16, 65504}, {STAVE_Q_Q8_0, 65504. * 127}, {STAVE_Q_Q4_0, 65504. * 8}, {STAVE_Q_Q5_0, 65504. * 16}, {STAVE_Q_Q4_1, 65504. * 15},
		{STAVE_Q_Q5_1, 65504. * 31}, {STAVE_Q_Q4_K, 65504. * 63 * 15}, {STAVE_Q_Q5_K, 65504. * 63 * 31}, {STAVE_Q_Q6_K, 65504. * 128 * 32},
	};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		for (int k = 0; k < 256; k++)
			x[k] = k == 40 ? INFINITY : 0;
		write_and_read(cases[c].t, 256);
		if (!(y[40] > .96 * cases[c].most && y[40] <= 1.001 * cases[c].most))
			fail_msg("%s stores infinity as %g, want %g", name(cases[c].t), y[40], cases[c].most);
		for (int k = 0; k < 256; k++)
			x[k] = k == 40 ? NAN : .5f;
		write_and_read(cases[c].t, 256);
		if (!(fabsf(y[40]) < .1f) || !(fabsf(y[41] - .5f) < .1f))
			fail_msg("%s stores NaN as %g beside %g", name(cases[c].t), y[40], y[41]);
	}
}

/* Where f16 scales run out of bits, integers still follow the values: no worse than one smallest step. */
static void test_tiny_values_keep_their_order_of_magnitude(void **state)
{
	for (int i = 3; i < WRITTEN; i++)
		for (int e = 12; e < 40; e += 3) {
			double power = 0;
			for (int k = 0; k < 2048; k++) {
				x[k] = (float)(ldexp(1, -e) * normal());
				power += (double)x[k] * x[k];
			}
			write_and_read(written[i], 2048);
			if (!(squared_error(2048) <= 1.0001 * power))
				fail_msg("%s at 2^-%d: error %g of %g", name(written[i]), e, sqrt(squared_error(2048)), sqrt(power));
			if (e <= 18 && !(squared_error(2048) <= .03 * power))
				fail_msg("%s at 2^-%d: error %g of %g", name(written[i]), e, sqrt(squared_error(2048)), sqrt(power));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_published_values),
		cmocka_unit_test(test_blocks_of_32),
		cmocka_unit_test(test_q2_k_and_q3_k),
		cmocka_unit_test(test_q4_k_q5_k_and_q6_k),
		cmocka_unit_test(test_iq4_xs),
		cmocka_unit_test(test_any_bytes_are_read),
		cmocka_unit_test(test_plain_types),
		cmocka_unit_test(test_what_can_be_written),
		cmocka_unit_test(test_errors_are_within_the_formats_bounds),
		cmocka_unit_test(test_search_beats_rounding),
		cmocka_unit_test(test_round_trips_are_exact),
		cmocka_unit_test(test_plain_values),
		cmocka_unit_test(test_whatever_comes_in_what_is_stored_is_finite),
		cmocka_unit_test(test_nan_is_zero_and_infinity_the_largest),
		cmocka_unit_test(test_tiny_values_keep_their_order_of_magnitude),
	};
	return cmocka_run_group_tests_name("quant", tests, NULL, NULL);
}
