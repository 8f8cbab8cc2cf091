/* What the tests of grammars share: vocabularies of given tokens, and matchers fed byte by byte. */
#ifndef TEST_INFER_GRAMMAR_KIT_H
#define TEST_INFER_GRAMMAR_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/grammar.h"
#include "infer/grammar_build.h"

/* The 256 bytes as tokens 0..255, then `more`, then one stop token. */
static inline struct stave_vocab *bytes_and(const struct vocab_token *more, int n)
{
	static char byte[256];
	struct stave_vocab *v = NULL;
	struct vocab_token *t = calloc((size_t)n + 257, sizeof *t);
	for (int i = 0; i < 256; i++) {
		byte[i] = (char)i;
		t[i] = (struct vocab_token){.p = &byte[i], .n = 1};
	}
	if (n)
		memcpy(t + 256, more, (size_t)n * sizeof *t);
	t[256 + n] = (struct vocab_token){.p = "</s>", .n = 4, .stop = true, .special = true};
	if (vocab_of(&v, t, n + 257, NULL))
		abort();
	free(t);
	return v;
}

/* Bytes of text that the grammar takes, by a vocabulary whose first 256 tokens are the bytes. */
static inline size_t taken(struct stave_matcher *m, const char *text, size_t n)
{
	size_t i = 0;
	while (i < n && stave_matcher_accept(m, (unsigned char)text[i]))
		i++;
	return i;
}

/* Whether the text is a whole answer; *viable: how many of its bytes were taken. */
static inline bool accepts(struct stave_grammar *g, int stop, const char *text, size_t n, size_t *viable)
{
	struct stave_matcher *m;
	if (stave_matcher_open(&m, g, NULL))
		return false;
	size_t k = taken(m, text, n);
	bool ok = k == n && stave_matcher_accept(m, stop);
	if (viable)
		*viable = k;
	stave_matcher_close(m);
	return ok;
}

static inline struct stave_grammar *grammar(enum stave_grammar_kind kind, const char *text, const struct stave_vocab *v, struct stave_err *err)
{
	struct stave_grammar *g = NULL;
	return stave_grammar_open(&g, kind, text, strlen(text), v, err) ? NULL : g;
}

static inline uint64_t draw(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline bool bit(const uint32_t *bits, int i) { return bits[i >> 5] >> (i & 31) & 1; }

#endif
