/* A tokenizer's tables read back as text, for the two writers: document.c (tokenizer.json) and to_gguf.c. */
#ifndef STAVE_TEXT_SPELL_H
#define STAVE_TEXT_SPELL_H

#include "text/tokenizer.h"

/* The spelling of a token in tokenizer.json into s (replaced); false for an id that no token has. */
bool text_spell(const struct stave_tokenizer *t, int32_t id, struct stave_buf *s);

struct text_merged {
	int32_t left, right, id, rank;
};
struct text_merge_list {
	struct text_merged *p; /* malloced, by rank */
	size_t n;
};
/* The merges of a BPE model in order; of an SPM model all pairs that spell a token, best score first. */
int text_merge_list(const struct stave_tokenizer *t, struct text_merge_list *list, struct stave_err *err);

#endif
