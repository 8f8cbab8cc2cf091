/* Random valid blocks, about N(0, std), of the types that stave reads and does not write: codes are random bits, scales are sensible. */
#ifndef TEST_MODEL_RANDOM_BLOCKS_H
#define TEST_MODEL_RANDOM_BLOCKS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kernel/dtype.h"
#include "kernel/quant.h"

static void random_half(uint8_t *at, float v)
{
	uint16_t h = stave_f32_to_f16(v);
	memcpy(at, &h, 2);
}

/* The scales of one block whose codes are already random. The divisors are the root mean squares of code times sub-scale. */
static void random_scales(enum stave_qtype t, uint8_t *b, float std)
{
	switch (t) {
	case STAVE_Q_Q2_K: /* the minimum is what centres codes 0 .. 3 */
		for (int i = 0; i < 16; i++)
			b[i] = (uint8_t)((4 + b[i] % 12) * 17);
		random_half(b + 80, std / 11.3f);
		random_half(b + 82, 1.5f * std / 11.3f);
		break;
	case STAVE_Q_Q3_K: random_half(b + 108, std / (2.34f * 18.5f)); break;
	case STAVE_Q_IQ4_NL: random_half(b, std / 69); break;
	case STAVE_Q_IQ4_XS: random_half(b, std / (69 * 18.5f)); break;
	case STAVE_Q_MXFP4: b[0] = (uint8_t)(128 + lroundf(log2f(std / 5.85f)) - b[0] % 2); break;
	default: abort();
	}
}

/* y = n elements of type t: of x where stave can write t, else of random codes. */
static void random_store(enum stave_qtype t, void *y, const float *x, int64_t n, float std, uint64_t seed)
{
	if (stave_can_quantize(t)) {
		stave_quantize(t, y, x, n);
		return;
	}
	struct stave_qtype_info info = stave_qtype_info(t);
	uint8_t *b = y;
	for (int64_t i = 0; i < n / info.per; i++, b += info.bytes) {
		for (int k = 0; k < info.bytes; k++)
			b[k] = (uint8_t)stave_random64(seed, (uint64_t)(i * info.bytes + k));
		random_scales(t, b, std * (0.7f + 0.6f * (float)stave_random_unit(seed + 1, (uint64_t)i)));
	}
}

#endif
