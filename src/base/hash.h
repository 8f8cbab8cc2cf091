/* Fingerprints: xxHash64 for speed, SHA-256 for identity. */
#ifndef STAVE_BASE_HASH_H
#define STAVE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t stave_hash64(const void *p, size_t n, uint64_t seed);
/* 64 hex digits and NUL. */
void stave_sha256(const void *p, size_t n, char hex[65]);

/* splitmix64: a stateless random u64 from (seed, index); the source of every reproducible choice that must not depend
 * on how work was split (shuffles, initial weights, splits). Steele, Lea, Flood 2014. */
static inline uint64_t stave_random64(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}
/* uniform in [0, 1) */
static inline double stave_random_unit(uint64_t seed, uint64_t index)
{
	return (double)(stave_random64(seed, index) >> 11) * 0x1p-53;
}

#endif
