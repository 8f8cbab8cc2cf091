/* Unigram (Kudo 2018): of all ways to cut a word into tokens, the one whose scores, logarithms of probabilities, have the highest
 * sum. Viterbi's algorithm from left to right: for each place between characters the best way to reach it, its last token and
 * where that begins. A character that is no token by itself may be unknown, at a score below all tokens; unknown ones in a row
 * are one, or each its bytes.
 *
 * From each place tokens are tried character by character longer, until nothing in the vocabulary begins so (a hashed set), at
 * most to the longest token: n characters cost n times that. */
#include <math.h>

#include "text/tokenizer.h"

struct place {
	double score;   /* of the best way here, -inf: none */
	uint32_t from;  /* where its last token begins */
	uint32_t to;    /* on the best way of all: where the next one ends */
	int32_t id;     /* -1: an unknown character */
};

static void reach(struct place *to, double score, size_t from, int32_t id)
{
	if (score > to->score)
		*to = (struct place){score, (uint32_t)from, 0, id};
}

/* All tokens that begin at p[i]. */
static void tokens_at(const struct stave_tokenizer *t, struct place *best, const uint8_t *p, size_t i, size_t n)
{
	uint32_t cp;
	size_t end = n - i > t->longest ? i + t->longest : n, first = text_utf8_next(p + i, n - i, &cp), k = i + first;
	bool alone = false;
	for (; k <= end; k += k < n ? text_utf8_next(p + k, n - k, &cp) : 1) {
		uint64_t hash = text_hash(p + i, k - i);
		if (!text_may_begin(t, hash))
			break;
		int32_t id = text_word_hashed(t, p + i, k - i, hash);
		if (id < 0)
			continue;
		alone |= k == i + first;
		reach(&best[k], best[i].score + (t->flags[id] & TEXT_ADDED ? 0 : t->score[id]), i, id);
	}
	if (!alone)
		reach(&best[i + first], best[i].score + t->unknown_score, i, -1);
}

int text_unigram_word(const struct stave_tokenizer *t, struct text_scratch *scratch, const uint8_t *p, size_t n, struct stave_ids *ids, struct stave_err *err)
{
	struct place *best = text_scratch_take(scratch, (n + 1) * sizeof *best);
	uint32_t cp;
	if (!best)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to encode a word of %zu bytes", n);
	for (size_t i = 0; i <= n; i++)
		best[i] = (struct place){-INFINITY, 0, 0, -1};
	best[0].score = 0;
	for (size_t i = 0; i < n; i += text_utf8_next(p + i, n - i, &cp))
		tokens_at(t, best, p, i, n);
	for (uint32_t to = (uint32_t)n; to; to = best[to].from)
		best[best[to].from].to = to;
	bool unknown = false;
	for (uint32_t i = 0, to; i < n; i = to) {
		to = best[i].to;
		int put = 1;
		if (best[to].id >= 0)
			ids->p[ids->n] = best[to].id;
		else if ((put = text_fall_back(t, p + i, to - i, ids->p + ids->n, unknown)) < 0)
			return text_unencodable(t, p + i, to - i, err);
		unknown = best[to].id < 0 && (put == 0 || (put == 1 && ids->p[ids->n] == t->unknown));
		ids->n += (size_t)put;
	}
	return 0;
}
