/* Choosing merges from counted words: the inner loop of BPE training. Private to text/. */
#ifndef STAVE_TEXT_MERGES_H
#define STAVE_TEXT_MERGES_H

#include "text/words.h"

/* Tokens 0..255 are the bytes; the others are spelled by the merge that first made them. */
struct text_merges {
	struct text_chosen {
		int32_t left, right, id;
	} *merge;
	int n, tokens;              /* merges may outnumber the new tokens: two merges can spell one token */
	struct text_spelling {
		uint32_t at, n;
	} *spelling;                /* [tokens] into bytes */
	struct stave_buf bytes;
};

/* Merge until there are `tokens` tokens (>= 256) or no pair occurs twice. */
int text_merges_choose(struct text_merges *m, const struct text_words *words, int tokens, struct stave_err *err);
void text_merges_free(struct text_merges *m);

#endif
