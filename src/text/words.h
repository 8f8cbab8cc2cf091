/* Counted words, the input of BPE training. Private to text/. */
#ifndef STAVE_TEXT_WORDS_H
#define STAVE_TEXT_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fs.h"

#define TEXT_WORD_INLINE 16

/* A slot is free when count is 0. Short words lie in the slot itself, which saves a cache miss per lookup. */
struct text_word {
	uint64_t count;
	uint32_t tag, n;
	union {
		char bytes[TEXT_WORD_INLINE];
		uint64_t at; /* into the table's `longer` */
	};
};

/* Open addressing, at most half full. Zero-initialise; free with text_words_free. */
struct text_words {
	struct text_word *slot;
	uint64_t mask, used;
	struct stave_buf longer;
};

/* Adds `count` occurrences of p[0..n), n >= 1. False when memory is short. */
bool text_words_add(struct text_words *w, const void *p, size_t n, uint64_t count);
static inline const char *text_word_bytes(const struct text_words *w, const struct text_word *s)
{
	return s->n <= TEXT_WORD_INLINE ? s->bytes : w->longer.p + s->at;
}
void text_words_free(struct text_words *w);

#endif
