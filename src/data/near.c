/* Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; FineWeb's parameters). For two documents whose
 * sets of word 5-grams have Jaccard similarity s, one minimum agrees with probability s, a bucket of 8 with s^8, and at
 * least one of 14 buckets with 1 - (1 - s^8)^14: half at s = 0.68. Candidates are joined by union-find and the first of a
 * cluster stays. Memory: 112 bytes per document for the bucket keys, and 4-8 for the table. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/hash.h"
#include "data/quality.h"

#define GRAM 5

/* ---- normalised words ---- */

/* Appends what is left of one code point to word; false when it ends a word. */
static bool normalise(int32_t c, struct stave_buf *word)
{
	if (c < 128) {
		if ((c | 32) >= 'a' && (c | 32) <= 'z') {
			stave_buf_put(word, &(char){(char)(c | 32)}, 1);
			return true;
		}
		if (c < '0' || c > '9')
			return false;
		if (!word->len || word->p[word->len - 1] != '0') /* a number is one 0 */
			stave_buf_put(word, "0", 1);
		return true;
	}
	utf8proc_int32_t parts[32];
	int boundary = 0;
	utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, 32, UTF8PROC_DECOMPOSE | UTF8PROC_STRIPMARK | UTF8PROC_CASEFOLD, &boundary);
	if (n <= 0 || n > 32)
		return n == 0; /* a lone mark vanishes inside its word */
	utf8proc_category_t k = utf8proc_category(parts[0]);
	if (k == UTF8PROC_CATEGORY_ND)
		return normalise('0', word);
	if (k < UTF8PROC_CATEGORY_LU || k > UTF8PROC_CATEGORY_NO)
		return false;
	for (utf8proc_ssize_t i = 0; i < n; i++) {
		utf8proc_uint8_t bytes[4];
		stave_buf_put(word, bytes, (size_t)utf8proc_encode_char(parts[i], bytes));
	}
	return true;
}

static size_t code_point(const char *p, size_t n, int32_t *c)
{
	if ((unsigned char)*p < 0x80) {
		*c = *p;
		return 1;
	}
	utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, c);
	if (k > 0)
		return (size_t)k;
	*c = ' ';
	return 1;
}

/* ---- signatures ---- */

struct family { /* h_i(x) = high half of a_i x + b_i, over x that are well mixed already */
	uint64_t a[STAVE_MINHASH], b[STAVE_MINHASH];
};

static void family_fill(struct family *f)
{
	for (int i = 0; i < STAVE_MINHASH; i++) {
		f->a[i] = stave_random64(0x6d696e68617368, (uint64_t)i) | 1;
		f->b[i] = stave_random64(0x6d696e68617368, 1000 + (uint64_t)i);
	}
}

static void lower_minima(const struct family *f, uint64_t x, uint32_t m[STAVE_MINHASH])
{
	for (int i = 0; i < STAVE_MINHASH; i++) {
		uint32_t h = (uint32_t)((f->a[i] * x + f->b[i]) >> 32);
		m[i] = h < m[i] ? h : m[i];
	}
}

bool stave_minhash(const char *text, size_t n, struct stave_buf *word, uint32_t m[STAVE_MINHASH])
{
	struct family f;
	uint64_t last[GRAM] = {0}; /* hashes of the last words, oldest first */
	size_t words = 0;
	family_fill(&f);
	memset(m, 0xff, STAVE_MINHASH * sizeof *m);
	word->len = 0;
	for (size_t i = 0; i <= n;) {
		int32_t c = ' ';
		i += i < n ? code_point(text + i, n - i, &c) : 1;
		if (normalise(c, word) || !word->len)
			continue;
		memmove(last, last + 1, sizeof last - sizeof *last);
		last[GRAM - 1] = stave_hash64(word->p, word->len, 0);
		word->len = 0;
		if (++words >= GRAM)
			lower_minima(&f, stave_hash64(last, sizeof last, 0), m);
	}
	if (words && words < GRAM)
		lower_minima(&f, stave_hash64(last, sizeof last, 0), m);
	return words > 0;
}

void stave_minhash_keys(const uint32_t m[STAVE_MINHASH], uint64_t keys[STAVE_MINHASH_BUCKETS])
{
	for (int b = 0; b < STAVE_MINHASH_BUCKETS; b++)
		keys[b] = stave_hash64(m + b * STAVE_MINHASH_ROWS, STAVE_MINHASH_ROWS * sizeof *m, (uint64_t)b);
}

/* ---- clusters ---- */

static uint32_t root(uint32_t *parent, uint32_t i)
{
	while (parent[i] != i)
		i = parent[i] = parent[parent[i]];
	return i;
}

int stave_near_clusters(const uint64_t *keys, size_t n, uint32_t *keeper, struct stave_err *err)
{
	if (n >= UINT32_MAX)
		return stave_err_set(err, STAVE_EUSAGE, "near-duplicates: %zu documents, more than 4 G; prepare the corpus in parts", n);
	size_t slots = 64;
	while (slots < 2 * n)
		slots *= 2;
	uint32_t *table = malloc(slots * sizeof *table);
	if (!table)
		return stave_err_set(err, STAVE_ENOMEM, "near-duplicates: no memory for a table of %zu documents", n);
	for (size_t i = 0; i < n; i++)
		keeper[i] = (uint32_t)i;
	for (int b = 0; b < STAVE_MINHASH_BUCKETS; b++) {
		memset(table, 0xff, slots * sizeof *table);
		for (size_t i = 0; i < n; i++) {
			uint64_t key = keys[i * STAVE_MINHASH_BUCKETS + (size_t)b];
			size_t at = key & (slots - 1);
			while (table[at] != UINT32_MAX && keys[(size_t)table[at] * STAVE_MINHASH_BUCKETS + (size_t)b] != key)
				at = (at + 1) & (slots - 1);
			if (table[at] == UINT32_MAX) {
				table[at] = (uint32_t)i;
				continue;
			}
			/* the lower number is the root, so the first document of a cluster is the one kept */
			uint32_t x = root(keeper, table[at]), y = root(keeper, (uint32_t)i);
			keeper[x > y ? x : y] = x < y ? x : y;
		}
	}
	for (size_t i = 0; i < n; i++)
		keeper[i] = root(keeper, (uint32_t)i);
	free(table);
	return 0;
}
