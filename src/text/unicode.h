/* Unicode inside text/: strict UTF-8 steps and the four classes that every tokenizer pattern is written in. */
#ifndef STAVE_TEXT_UNICODE_H
#define STAVE_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/fs.h"

/* Each character is exactly one of the first four; CR and LF also carry NEWLINE. */
enum text_class {
	TEXT_LETTER = 1,  /* \p{L}; also a byte that is no UTF-8, see unicode.c */
	TEXT_NUMBER = 2,  /* \p{N} */
	TEXT_SPACE = 4,   /* \s, that is White_Space */
	TEXT_OTHER = 8,   /* [^\s\p{L}\p{N}] */
	TEXT_NEWLINE = 16,
	TEXT_WIDE = 128,  /* in text_byte_class only: part of a longer character, ask text_class_at */
};

#define TEXT_INVALID UINT32_MAX /* the code point of a byte that is no UTF-8 */

extern uint8_t text_byte_class[256];

/* Fill the class tables; cheap after the first call, safe from any thread. Everything below but text_utf8_next needs it. */
void text_unicode_init(void);
/* Length in bytes (1..4) of the character at p[0..n), n >= 1, and its code point; 1 and TEXT_INVALID for a stray byte.
 * Strict: no overlong forms, no surrogates, nothing above U+10FFFF. */
size_t text_utf8_next(const uint8_t *p, size_t n, uint32_t *cp);
/* Writes 1..4 bytes of a valid code point. */
size_t text_utf8_put(uint8_t *p, uint32_t cp);
unsigned text_class_of(uint32_t cp);
/* Class of the character at p[0..n) and its length. */
static inline unsigned text_class_at(const uint8_t *p, size_t n, size_t *len)
{
	unsigned c = text_byte_class[p[0]];
	if (!(c & TEXT_WIDE)) {
		*len = 1;
		return c;
	}
	uint32_t cp;
	*len = text_utf8_next(p, n, &cp);
	return text_class_of(cp);
}

enum text_form { TEXT_NFC, TEXT_NFD, TEXT_NFKC, TEXT_NFKD, TEXT_LOWERCASE };
/* Appends the normal form of p[0..n) to out; stray bytes pass unchanged. */
int text_normalize(enum text_form form, const char *p, size_t n, struct stave_buf *out, struct stave_err *err);

#endif
