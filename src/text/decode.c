/* Decoding: the bytes of ids, one after the other. A byte-level token may be half a character; whoever shows text while
 * it grows holds back what stave_utf8_complete does not yet let through. */
#include "text/tokenizer.h"

/* Some tokenizers put a space before the text they are given. At a sequence's start, that is after bos, it is known to
 * be theirs and is dropped; anywhere else it may be the writer's own, so it stays. */
int stave_decode(const struct stave_tokenizer *t, const int32_t *ids, size_t n, bool specials, struct stave_buf *out, struct stave_err *err)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= t->vocab)
			return stave_err_set(err, STAVE_EUSAGE, "token id %d is outside the vocabulary 0..%d", ids[i], t->vocab - 1);
	for (size_t i = 0; i < n; i++) {
		if (t->flags[ids[i]] & TEXT_SPECIAL && !specials)
			continue;
		struct text_bytes b = t->out[ids[i]];
		bool prefix = t->strip_prefix && i == 1 && ids[0] == t->bos && b.n && t->blob.p[b.at] == ' ';
		stave_buf_put(out, t->blob.p + b.at + prefix, b.n - prefix);
	}
	return 0;
}
