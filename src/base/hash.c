/* xxHash and OpenSSL behind two functions. */
#include "base/hash.h"

#include <openssl/sha.h>
#include <xxhash.h>

uint64_t stave_hash64(const void *p, size_t n, uint64_t seed) { return XXH3_64bits_withSeed(p, n, seed); }

void stave_sha256(const void *p, size_t n, char hex[65])
{
	static const char digit[] = "0123456789abcdef";
	unsigned char md[SHA256_DIGEST_LENGTH];
	SHA256(p, n, md);
	for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
		hex[2 * i] = digit[md[i] >> 4];
		hex[2 * i + 1] = digit[md[i] & 15];
	}
	hex[64] = 0;
}
