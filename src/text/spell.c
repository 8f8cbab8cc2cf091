/* A tokenizer's tables read back as text: how a token is spelled in a file, and the list of merges. */
#include "text/spell.h"

#include <stdlib.h>

bool text_spell(const struct stave_tokenizer *t, int32_t id, struct stave_buf *s)
{
	s->len = 0;
	if (!(t->flags[id] & TEXT_PRESENT))
		return false;
	struct text_bytes b = t->text[id].n && !(t->byte_level && t->flags[id] & TEXT_ADDED) ? t->text[id] : t->out[id];
	const char *p = t->blob.p + b.at;
	bool mapped = t->byte_level && t->text[id].n && !(t->flags[id] & TEXT_ADDED);
	for (uint32_t i = 0; mapped && i < b.n; i++) {
		uint8_t c[4];
		stave_buf_put(s, c, text_utf8_put(c, text_byte_char((uint8_t)p[i])));
	}
	if (!mapped)
		stave_buf_put(s, p, b.n);
	return true;
}

static int by_rank(const void *a, const void *b)
{
	const struct text_merged *x = a, *y = b;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->left != y->left ? (x->left < y->left ? -1 : 1) : (x->right > y->right) - (x->right < y->right);
}

static bool put(struct text_merge_list *list, size_t *cap, struct text_merged m)
{
	if (list->n == *cap) {
		*cap = *cap ? 2 * *cap : 4096;
		struct text_merged *p = realloc(list->p, *cap * sizeof *p);
		if (!p)
			return false;
		list->p = p;
	}
	list->p[list->n++] = m;
	return true;
}

/* All ways to spell a token by two others. Scores that order floats order their bits turned around. */
static bool pairs_of(const struct stave_tokenizer *t, struct text_merge_list *list, size_t *cap, int32_t id)
{
	const uint8_t *p = (const uint8_t *)t->blob.p + t->text[id].at;
	uint32_t cp;
	int32_t bits;
	memcpy(&bits, &t->score[id], sizeof bits);
	int32_t rank = bits < 0 ? bits ^ INT32_MIN : -bits - 1; /* the higher the score the lower */
	for (size_t k = text_utf8_next(p, t->text[id].n, &cp), n = t->text[id].n; k < n; k += text_utf8_next(p + k, n - k, &cp)) {
		int32_t left = text_word_find(t, p, k), right = left < 0 ? -1 : text_word_find(t, p + k, n - k);
		if (right >= 0 && !put(list, cap, (struct text_merged){left, right, id, rank}))
			return false;
	}
	return true;
}

int text_merge_list(const struct stave_tokenizer *t, struct text_merge_list *list, struct stave_err *err)
{
	size_t cap = 0;
	bool ok = true;
	*list = (struct text_merge_list){0};
	if (t->model == TEXT_SPM) {
		for (uint32_t i = 0; i <= t->word_mask && ok; i++)
			ok = t->word[i] < 0 || pairs_of(t, list, &cap, t->word[i]);
	} else {
		for (uint32_t i = 0; i <= t->merge_mask && ok; i++)
			if (t->merge[i].rank >= 0)
				ok = put(list, &cap, (struct text_merged){(int32_t)(t->merge[i].pair >> 32), (int32_t)(uint32_t)t->merge[i].pair, t->merge[i].id, t->merge[i].rank});
	}
	if (!ok) {
		free(list->p);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the tokenizer's merges");
	}
	if (list->n)
		qsort(list->p, list->n, sizeof *list->p, by_rank);
	return 0;
}
