/* SentencePiece's normalization table ("precompiled_charsmap"): at each place of the text the longest sequence of bytes in the
 * table is replaced by its string; where none begins, one character is copied.
 *
 * As stored: the number of bytes of the trie (32 bits, little-endian), the trie, the strings. The trie is a double array of
 * 32-bit units as darts-clone packs them (Yata, "A Succinct/Compact Double Array"): from the unit at position s, byte c leads to
 * s ^ offset(s) ^ c, which is a child if its label says c; a unit with a leaf has its value at s ^ offset(s).
 *     bit 31 of a value unit is set, its low 31 bits are the offset of a string
 *     bits 0-7 label, bit 8 has a leaf, bit 9 the offset counts in 256, bits 10-30 offset
 * Positions come from the file and are checked at each step. */
#include <stdlib.h>

#include "text/tokenizer.h"

int text_charsmap_open(struct text_charsmap *m, const void *p, size_t n, const char *what, struct stave_err *err)
{
	const uint8_t *b = p;
	uint32_t size = n < 4 ? 0 : b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
	if (n < 4 || size % 4 || !size || size >= n - 4 || b[n - 1])
		return stave_err_set(err, STAVE_ECORRUPT, "%s: the precompiled_charsmap of %zu bytes is not a trie and strings that end with NUL", what, n);
	m->units = size / 4;
	m->text_n = n - 4 - size;
	m->raw_n = n;
	m->unit = malloc(size);
	m->text = malloc(m->text_n);
	m->raw = malloc(n);
	if (!m->unit || !m->text || !m->raw)
		return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for the precompiled_charsmap", what);
	for (size_t i = 0; i < m->units; i++) {
		const uint8_t *u = b + 4 + 4 * i;
		m->unit[i] = u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
	}
	memcpy(m->text, b + 4 + size, m->text_n);
	memcpy(m->raw, p, n);
	return 0;
}

void text_charsmap_close(struct text_charsmap *m)
{
	free(m->unit);
	free(m->text);
	free(m->raw);
	*m = (struct text_charsmap){0};
}

static inline uint32_t offset(uint32_t unit)
{
	return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* Length of the longest sequence at p[0..n) that is in the table, 0 for none, and the offset of its string. False when the trie
 * leads out of itself. */
static bool longest(const struct text_charsmap *m, const uint8_t *p, size_t n, size_t *len, uint32_t *value)
{
	size_t at = offset(m->unit[0]);
	*len = 0;
	for (size_t i = 0; i < n && p[i]; i++) { /* NUL is not in the trie: label 0 is a leaf's */
		at ^= p[i];
		if (at >= m->units)
			return false;
		uint32_t unit = m->unit[at];
		if ((unit & (1u << 31 | 0xff)) != p[i])
			return true;
		at ^= offset(unit);
		if (!(unit >> 8 & 1))
			continue;
		if (at >= m->units)
			return false;
		*len = i + 1;
		*value = m->unit[at] & 0x7fffffff;
	}
	return true;
}

int text_charsmap_apply(const struct text_charsmap *m, const char *p, size_t n, size_t bound, struct stave_buf *out, struct stave_err *err)
{
	for (size_t i = 0, len; i < n; i += len) {
		uint32_t value = 0, cp;
		if (!longest(m, (const uint8_t *)p + i, n - i, &len, &value) || (len && value >= m->text_n))
			return stave_err_set(err, STAVE_ECORRUPT, "the tokenizer's precompiled_charsmap points outside itself");
		if (len) {
			stave_buf_put(out, m->text + value, strlen(m->text + value));
		} else {
			len = text_utf8_next((const uint8_t *)p + i, n - i, &cp);
			stave_buf_put(out, p + i, len);
		}
		if (out->len > bound)
			return stave_err_set(err, STAVE_EFAIL, "the tokenizer's precompiled_charsmap blows the text up beyond %zu bytes", bound);
	}
	return 0;
}
