/* The BPE trainer: texts are cut into words by the tokenizer's own pattern and counted, on all threads; merges.c then
 * chooses merges from the counts; the result is composed as a tokenizer.json document and opened like any other.
 *
 * A large text is divided where a letter or number is followed by a space or line end. No pattern has a word across such
 * a place or looks behind it, so dividing there changes no word, and the counts do not depend on the threads. */
#include <omp.h>
#include <stdlib.h>

#include "base/sys.h"
#include "text/build.h"
#include "text/merges.h"
#include "text/tokenizer.h"

#define CHUNK ((size_t)1 << 20)
/* Longer words are cut: they are data rather than language, and each would make every merge within it slower. */
#define WORD_MAX 128

struct stave_bpe_trainer {
	enum text_split_kind kind;
	struct text_words *words; /* one table per thread */
	int n_words;
};

static const char *const pattern_names[] = {[TEXT_SPLIT_GPT2] = "gpt2", [TEXT_SPLIT_LLAMA3] = "llama3", [TEXT_SPLIT_QWEN2] = "qwen2"};

int stave_bpe_trainer_open(struct stave_bpe_trainer **out, const char *pattern, struct stave_err *err)
{
	int kind = 0;
	while (pattern && kind < 3 && strcmp(pattern, pattern_names[kind]))
		kind++;
	if (kind == 3)
		return stave_err_set(err, STAVE_ECONFIG, "no split pattern \"%.40s\"; there are gpt2, llama3 and qwen2", pattern);
	struct stave_bpe_trainer *b = calloc(1, sizeof *b);
	if (!b)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a tokenizer trainer");
	text_unicode_init();
	b->kind = (enum text_split_kind)kind;
	*out = b;
	return 0;
}

void stave_bpe_trainer_free(struct stave_bpe_trainer *b)
{
	if (!b)
		return;
	for (int i = 0; i < b->n_words; i++)
		text_words_free(&b->words[i]);
	free(b->words);
	free(b);
}

static bool count(struct text_words *w, text_next_fn next, const uint8_t *p, size_t n)
{
	bool ok = true;
	for (size_t i = 0, end; i < n && ok; i = end) {
		end = next(p, i, n);
		for (; end - i > WORD_MAX && ok; ) {
			size_t cut = i + WORD_MAX;
			while (cut > i + WORD_MAX - 4 && (p[cut] & 0xc0) == 0x80) /* not inside a character */
				cut--;
			ok = text_words_add(w, p + i, cut - i, 1);
			i = cut;
		}
		ok = ok && text_words_add(w, p + i, end - i, 1);
	}
	return ok;
}

/* The first place at or after `from` where the text may be divided, or n. */
static size_t divide(const uint8_t *p, size_t from, size_t n)
{
	for (size_t i = from; i < n; i++) {
		if (p[i] != ' ' && p[i] != '\n')
			continue;
		size_t back = i, len;
		do
			back--;
		while (back && i - back < 4 && (p[back] & 0xc0) == 0x80);
		if (text_class_at(p + back, i - back, &len) & (TEXT_LETTER | TEXT_NUMBER) && back + len == i)
			return i;
	}
	return n;
}

static bool more_tables(struct stave_bpe_trainer *b, int n)
{
	if (n <= b->n_words)
		return true;
	struct text_words *w = realloc(b->words, (size_t)n * sizeof *w);
	if (!w)
		return false;
	memset(w + b->n_words, 0, (size_t)(n - b->n_words) * sizeof *w);
	b->words = w;
	b->n_words = n;
	return true;
}

/* All threads take chunks; small texts are counted by the caller alone. */
static bool count_large(struct stave_bpe_trainer *b, text_next_fn next, const uint8_t *p, size_t n, int threads)
{
	size_t chunks = (n + CHUNK - 1) / CHUNK, *cut = malloc((chunks + 1) * sizeof *cut);
	bool ok = cut != NULL;
	if (!ok)
		return false;
	cut[0] = 0;
	for (size_t i = 1; i < chunks; i++)
		cut[i] = divide(p, cut[i - 1] > i * CHUNK ? cut[i - 1] : i * CHUNK, n);
	cut[chunks] = n;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(&& : ok)
	for (size_t i = 0; i < chunks; i++)
		ok = ok && count(&b->words[omp_get_thread_num()], next, p + cut[i], cut[i + 1] - cut[i]);
	free(cut);
	return ok;
}

int stave_bpe_trainer_add(struct stave_bpe_trainer *b, const char *text, size_t n, struct stave_err *err)
{
	int threads = n > 2 * CHUNK ? stave_threads() : 1;
	text_next_fn next = text_split_next(b->kind);
	bool ok = more_tables(b, threads);
	if (ok)
		ok = threads > 1 ? count_large(b, next, (const uint8_t *)text, n, threads) : count(&b->words[0], next, (const uint8_t *)text, n);
	return ok ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory to count the words of %zu bytes", n);
}

/* All counts into the first table. */
static bool sum_words(struct stave_bpe_trainer *b)
{
	bool ok = more_tables(b, 1);
	for (int t = 1; t < b->n_words && ok; t++) {
		struct text_words *w = &b->words[t];
		for (uint64_t i = 0; w->slot && i <= w->mask && ok; i++)
			if (w->slot[i].count)
				ok = text_words_add(&b->words[0], text_word_bytes(w, &w->slot[i]), w->slot[i].n, w->slot[i].count);
		text_words_free(w);
	}
	return ok;
}

static json_t *pre_tokenizer(enum text_split_kind kind)
{
	if (kind == TEXT_SPLIT_GPT2)
		return text_compose_byte_level(true);
	const char *pattern = kind == TEXT_SPLIT_LLAMA3 ? text_pattern_llama3 : text_pattern_qwen2;
	return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Split", "pattern", "Regex", pattern,
	                 "behavior", "Isolated", "invert", 0, text_compose_byte_level(false));
}

/* A token's bytes as characters of the byte alphabet. */
static void put_mapped(struct stave_buf *out, const struct text_merges *m, int32_t token)
{
	uint8_t c[4];
	for (uint32_t i = 0; i < m->spelling[token].n; i++)
		stave_buf_put(out, c, text_utf8_put(c, text_byte_char((uint8_t)m->bytes.p[m->spelling[token].at + i])));
}

static json_t *compose(const struct text_merges *m, enum text_split_kind kind)
{
	struct stave_buf s = {0};
	json_t *vocab = json_object(), *merges = json_array();
	for (int i = 0; i < m->tokens; i++) {
		s.len = 0;
		put_mapped(&s, m, i);
		json_object_setn_new(vocab, s.p, s.len, json_integer(i));
	}
	for (int i = 0; i < m->n; i++) {
		s.len = 0;
		put_mapped(&s, m, m->merge[i].left);
		stave_buf_put(&s, " ", 1);
		put_mapped(&s, m, m->merge[i].right);
		json_array_append_new(merges, json_stringn(s.p, s.len));
	}
	stave_buf_free(&s);
	return text_compose(vocab, merges, m->tokens, pre_tokenizer(kind), "ByteLevel");
}

int stave_bpe_trainer_finish(struct stave_bpe_trainer *b, int vocab, struct stave_tokenizer **out, struct stave_err *err)
{
	struct text_merges m = {0};
	enum text_split_kind kind = b->kind;
	int rc = 0;
	if (vocab < 257 || vocab > TEXT_VOCAB_MAX)
		rc = stave_err_set(err, STAVE_ECONFIG, "a byte-level vocabulary of %d tokens; wanted 257 (256 bytes and <|endoftext|>) to %d", vocab, TEXT_VOCAB_MAX);
	else if (!sum_words(b))
		rc = stave_err_set(err, STAVE_ENOMEM, "no memory to sum the word counts");
	else
		rc = text_merges_choose(&m, &b->words[0], vocab - 1, err);
	stave_bpe_trainer_free(b);
	if (!rc)
		rc = text_compose_open(out, compose(&m, kind), true, "the trained tokenizer", err);
	text_merges_free(&m);
	return rc;
}
