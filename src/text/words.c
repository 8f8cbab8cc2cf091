/* A hash table that counts words. Each thread of the trainer fills its own; they are added up at the end, so the counts
 * do not depend on how the text was divided. */
#include "text/words.h"

#include <stdlib.h>

#include "text/tokenizer.h"

static bool grow(struct text_words *w)
{
	uint64_t size = w->slot ? 2 * (w->mask + 1) : 4096;
	struct text_word *slot = calloc(size, sizeof *slot);
	if (!slot)
		return false;
	for (uint64_t i = 0; w->slot && i <= w->mask; i++) {
		if (!w->slot[i].count)
			continue;
		uint64_t k = text_hash(text_word_bytes(w, &w->slot[i]), w->slot[i].n) & (size - 1);
		while (slot[k].count)
			k = (k + 1) & (size - 1);
		slot[k] = w->slot[i];
	}
	free(w->slot);
	w->slot = slot;
	w->mask = size - 1;
	return true;
}

bool text_words_add(struct text_words *w, const void *p, size_t n, uint64_t count)
{
	if ((!w->slot || 2 * w->used > w->mask) && !grow(w))
		return false;
	uint64_t h = text_hash(p, n);
	uint32_t tag = (uint32_t)(h >> 32);
	for (uint64_t k = h & w->mask;; k = (k + 1) & w->mask) {
		struct text_word *s = &w->slot[k];
		if (!s->count) {
			*s = (struct text_word){.count = count, .tag = tag, .n = (uint32_t)n};
			if (n <= TEXT_WORD_INLINE) {
				memcpy(s->bytes, p, n);
			} else {
				s->at = w->longer.len;
				stave_buf_put(&w->longer, p, n);
			}
			w->used++;
			return true;
		}
		if (s->tag == tag && s->n == n && !memcmp(text_word_bytes(w, s), p, n)) {
			s->count += count;
			return true;
		}
	}
}

void text_words_free(struct text_words *w)
{
	free(w->slot);
	stave_buf_free(&w->longer);
	*w = (struct text_words){0};
}
