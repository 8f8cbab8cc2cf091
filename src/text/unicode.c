/* Unicode for tokenizers: strict UTF-8, character classes, normal forms.
 *
 * Patterns of tokenizers ask four questions of a character: letter, number, white space, or none of these. The answers
 * come from utf8proc once, into a byte per code point of the first four planes (256 KiB); the planes above hold no
 * letter, number or space yet and are asked one by one. ASCII has a table of its own, so English text never decodes.
 *
 * Text may be any bytes. A byte that is no UTF-8 is classed as a letter: most often it is half of one, cut off by a
 * streaming client or a fixed-size chunk, and as a letter it stays in one word with the whole one before it, which is
 * what published encodings of such bytes show (tiktoken: 20 EC 8B A4 ED is one token). */
#include "text/unicode.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/text.h"

#define TABLE_END 0x40000u

uint8_t text_byte_class[256];
static uint8_t table[TABLE_END];

/* White_Space of PropList.txt: the Z categories and the controls that Unicode counts as space. */
static unsigned classify(uint32_t cp)
{
	if ((cp >= 9 && cp <= 13) || cp == 0x85)
		return TEXT_SPACE | (cp == '\n' || cp == '\r' ? TEXT_NEWLINE : 0);
	switch (utf8proc_category((utf8proc_int32_t)cp)) {
	case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO:
		return TEXT_LETTER;
	case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
		return TEXT_NUMBER;
	case UTF8PROC_CATEGORY_ZS: case UTF8PROC_CATEGORY_ZL: case UTF8PROC_CATEGORY_ZP:
		return TEXT_SPACE;
	default:
		return TEXT_OTHER;
	}
}

static void fill(void)
{
	for (uint32_t cp = 0; cp < TABLE_END; cp++)
		table[cp] = (uint8_t)classify(cp);
	for (unsigned b = 0; b < 256; b++)
		text_byte_class[b] = b < 128 ? table[b] : TEXT_WIDE;
}

void text_unicode_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, fill);
}

unsigned text_class_of(uint32_t cp)
{
	if (cp < TABLE_END)
		return table[cp];
	return cp == TEXT_INVALID ? TEXT_LETTER : classify(cp);
}

static inline bool follows(uint8_t b)
{
	return (b & 0xc0) == 0x80;
}

size_t text_utf8_next(const uint8_t *p, size_t n, uint32_t *cp)
{
	uint32_t c = p[0];
	if (c < 0x80) {
		*cp = c;
		return 1;
	}
	if (c >= 0xc2 && c < 0xe0 && n > 1 && follows(p[1])) {
		*cp = (c & 31) << 6 | (p[1] & 63u);
		return 2;
	}
	if (c >= 0xe0 && c < 0xf0 && n > 2 && follows(p[1]) && follows(p[2])) {
		uint32_t v = (c & 15) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
		if (v >= 0x800 && (v < 0xd800 || v > 0xdfff)) {
			*cp = v;
			return 3;
		}
	}
	if (c >= 0xf0 && c < 0xf5 && n > 3 && follows(p[1]) && follows(p[2]) && follows(p[3])) {
		uint32_t v = (c & 7) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
		if (v >= 0x10000 && v <= 0x10ffff) {
			*cp = v;
			return 4;
		}
	}
	*cp = TEXT_INVALID;
	return 1;
}

size_t text_utf8_put(uint8_t *p, uint32_t cp)
{
	return (size_t)utf8proc_encode_char((utf8proc_int32_t)cp, p);
}

/* Could these n < 4 bytes at the end of the text still become a character when more arrive? */
static bool may_grow(const uint8_t *p, size_t n)
{
	uint8_t c = p[0];
	size_t want = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
	if (n >= want)
		return false;
	for (size_t i = 1; i < n; i++)
		if (!follows(p[i]))
			return false;
	if (n < 2)
		return true;
	/* The second byte already decides overlong forms, surrogates and the upper end. */
	return !(c == 0xe0 && p[1] < 0xa0) && !(c == 0xed && p[1] > 0x9f) && !(c == 0xf0 && p[1] < 0x90) && !(c == 0xf4 && p[1] > 0x8f);
}

size_t stave_utf8_complete(const char *text, size_t n)
{
	const uint8_t *p = (const uint8_t *)text;
	for (size_t back = n < 3 ? n : 3; back > 0; back--)
		if (may_grow(p + n - back, back))
			return n - back;
	return n;
}

void stave_utf8_clean(const char *text, size_t n, struct stave_buf *out)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t good = 0; /* p[good..i) is valid and not yet copied */
	for (size_t i = 0; i < n;) {
		uint32_t cp;
		size_t len = text_utf8_next(p + i, n - i, &cp);
		if (cp == TEXT_INVALID) {
			stave_buf_put(out, p + good, i - good);
			/* A cut-off character is one mistake, not one per byte (Unicode 3.9, maximal subpart). */
			for (size_t m = n - i < 3 ? n - i : 3; m > 1 && len == 1; m--)
				if (may_grow(p + i, m))
					len = m;
			stave_buf_put(out, "\xef\xbf\xbd", 3);
			good = i + len;
		}
		i += len;
	}
	stave_buf_put(out, p + good, n - good);
}

static int normalize_valid(utf8proc_option_t options, const char *p, size_t n, struct stave_buf *out, struct stave_err *err)
{
	utf8proc_uint8_t *norm = NULL;
	utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &norm, options);
	if (len < 0)
		return stave_err_set(err, STAVE_EFAIL, "cannot normalize %zu bytes of text: %s", n, utf8proc_errmsg(len));
	stave_buf_put(out, norm, (size_t)len);
	free(norm);
	return 0;
}

/* Nothing below U+0300 changes under NFC: characters compose only with marks from there on. For the other forms only
 * ASCII is safe, and for lower case not even that. */
static bool is_normal(enum text_form form, const uint8_t *p, size_t n)
{
	uint8_t limit = form == TEXT_NFC ? 0xcc : 0x80;
	if (form == TEXT_LOWERCASE)
		return false;
	for (size_t i = 0; i < n; i++)
		if (p[i] >= limit)
			return false;
	return true;
}

static int lowercase(const uint8_t *p, size_t n, struct stave_buf *out)
{
	for (size_t i = 0; i < n;) {
		uint32_t cp;
		uint8_t low[4];
		size_t len = text_utf8_next(p + i, n - i, &cp);
		if (cp == TEXT_INVALID)
			stave_buf_put(out, p + i, 1);
		else
			stave_buf_put(out, low, text_utf8_put(low, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp)));
		i += len;
	}
	return 0;
}

/* A line end never takes part in a composition, so lines are normalized one by one and most are only copied. */
int text_normalize(enum text_form form, const char *text, size_t n, struct stave_buf *out, struct stave_err *err)
{
	static const utf8proc_option_t options[] = {
		[TEXT_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
		[TEXT_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
		[TEXT_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
		[TEXT_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
	};
	const uint8_t *p = (const uint8_t *)text;
	if (form == TEXT_LOWERCASE)
		return lowercase(p, n, out);
	for (size_t i = 0; i < n;) {
		const uint8_t *nl = memchr(p + i, '\n', n - i);
		size_t end = nl ? (size_t)(nl - p) + 1 : n;
		if (is_normal(form, p + i, end - i)) {
			stave_buf_put(out, p + i, end - i);
			i = end;
			continue;
		}
		while (i < end) { /* alternately a valid stretch and stray bytes */
			size_t good = i, len;
			uint32_t cp = 0;
			while (good < end && (len = text_utf8_next(p + good, end - good, &cp), cp != TEXT_INVALID))
				good += len;
			int rc = good > i ? normalize_valid(options[form], text + i, good - i, out, err) : 0;
			if (rc)
				return rc;
			if (good < end)
				stave_buf_put(out, p + good++, 1);
			i = good;
		}
	}
	return 0;
}
