/* PyTorch's CPU random numbers, for reproducing a published run: Matsumoto and Nishimura's MT19937 (init_genrand), and the way
 * torch turns its 32-bit outputs into floats. Lives in the test tree: the program's own random numbers are hashes. */
#ifndef TEST_MT19937_H
#define TEST_MT19937_H

#include <math.h>
#include <stdint.h>

struct mt19937 {
	uint32_t s[624];
	int at;
};

static inline void mt_seed(struct mt19937 *m, uint32_t seed)
{
	m->s[0] = seed;
	for (uint32_t i = 1; i < 624; i++)
		m->s[i] = 1812433253u * (m->s[i - 1] ^ (m->s[i - 1] >> 30)) + i;
	m->at = 624;
}

static inline uint32_t mt_next(struct mt19937 *m)
{
	if (m->at == 624) {
		for (int i = 0; i < 624; i++) {
			uint32_t y = (m->s[i] & 0x80000000u) | (m->s[(i + 1) % 624] & 0x7fffffffu);
			m->s[i] = m->s[(i + 397) % 624] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
		}
		m->at = 0;
	}
	uint32_t y = m->s[m->at++];
	y ^= y >> 11;
	y ^= (y << 7) & 0x9d2c5680u;
	y ^= (y << 15) & 0xefc60000u;
	return y ^ (y >> 18);
}

static inline float mt_uniform(struct mt19937 *m) { return (float)(mt_next(m) & 0xffffffu) * 0x1p-24f; }

/* torch.randint(n): modulo, as torch does it for ranges below 2^32 */
static inline int64_t mt_below(struct mt19937 *m, int64_t n) { return (int64_t)(mt_next(m) % (uint32_t)n); }

static inline void mt_box_muller16(float *d, float std)
{
	for (int j = 0; j < 8; j++) {
		float u1 = 1 - d[j], u2 = d[j + 8], r = sqrtf(-2 * logf(u1)), angle = 2.0f * (float)M_PI * u2;
		d[j] = r * cosf(angle) * std;
		d[j + 8] = r * sinf(angle) * std;
	}
}

/* tensor.normal_(0, std) of n >= 16 values */
static inline void mt_normal(struct mt19937 *m, float *d, int64_t n, float std)
{
	for (int64_t i = 0; i < n; i++)
		d[i] = mt_uniform(m);
	for (int64_t i = 0; i + 16 <= n; i += 16)
		mt_box_muller16(d + i, std);
	if (n % 16) {
		for (int64_t i = n - 16; i < n; i++)
			d[i] = mt_uniform(m);
		mt_box_muller16(d + n - 16, std);
	}
}

#endif
