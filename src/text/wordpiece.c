/* WordPiece, as BERT uses it (Wu et al. 2016, section 4.1; greedy): from the left, the longest token that the rest of the word
 * begins with; tokens inside a word are spelled with "##" before them. If some rest begins with none, or the word has too many
 * characters, the whole word is unknown.
 *
 * Inside a word the prefix is written over the bytes just used, so that a token's spelling stands in memory as it is looked up. */
#include "text/tokenizer.h"

/* The longest token p[0..n) begins with, from `least` bytes on, and its length. */
static int32_t longest_token(const struct stave_tokenizer *t, const uint8_t *p, size_t n, size_t least, size_t *len)
{
	int32_t best = -1;
	uint32_t cp;
	size_t end = n > t->longest ? t->longest : n;
	for (size_t k = 0; k < end;) {
		k += text_utf8_next(p + k, n - k, &cp);
		uint64_t hash = text_hash(p, k);
		if (k > end || !text_may_begin(t, hash))
			break;
		int32_t id = k > least ? text_word_hashed(t, p, k, hash) : -1;
		if (id >= 0) {
			best = id;
			*len = k;
		}
	}
	return best;
}

static int unknown_word(const struct stave_tokenizer *t, const uint8_t *p, size_t n, struct stave_ids *ids, struct stave_err *err)
{
	if (t->unknown < 0)
		return text_unencodable(t, p, n, err);
	ids->p[ids->n++] = t->unknown;
	return 0;
}

int text_wordpiece_word(const struct stave_tokenizer *t, struct text_scratch *scratch, const uint8_t *p, size_t n, struct stave_ids *ids, struct stave_err *err)
{
	size_t inner = (size_t)t->inner_n, before = ids->n, chars = 0, len;
	uint32_t cp;
	for (size_t i = 0; i < n && chars <= (size_t)t->word_chars_max; chars++)
		i += text_utf8_next(p + i, n - i, &cp);
	if (chars > (size_t)t->word_chars_max)
		return unknown_word(t, p, n, ids, err);
	uint8_t *copy = text_scratch_take(scratch, inner + n);
	if (!copy)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to encode a word of %zu bytes", n);
	memcpy(copy + inner, p, n);
	for (size_t i = 0; i < n; i += len) {
		size_t with = i ? inner : 0;
		uint8_t *at = copy + inner + i - with;
		memcpy(at, t->inner, with);
		int32_t id = longest_token(t, at, n - i + with, with, &len);
		if (id < 0) {
			ids->n = before;
			return unknown_word(t, p, n, ids, err);
		}
		ids->p[ids->n++] = id;
		len -= with;
	}
	return 0;
}
