/* Pre-tokenization inside text/: a text is cut into the words that merges never cross. */
#ifndef STAVE_TEXT_SPLIT_H
#define STAVE_TEXT_SPLIT_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum text_split_kind { TEXT_SPLIT_GPT2, TEXT_SPLIT_LLAMA3, TEXT_SPLIT_QWEN2, TEXT_SPLIT_REGEX, TEXT_SPLIT_MARK };
/* What becomes of the stretches a pattern matches (tokenizers' SplitDelimiterBehavior). */
enum text_behavior { TEXT_ISOLATED, TEXT_REMOVED, TEXT_MERGED_WITH_PREVIOUS, TEXT_MERGED_WITH_NEXT, TEXT_CONTIGUOUS };

struct text_split {
	enum text_split_kind kind;
	enum text_behavior behavior; /* the last three fields are for TEXT_SPLIT_REGEX only */
	bool invert;
	pcre2_code *code;
};

extern const char text_pattern_gpt2[], text_pattern_llama3[], text_pattern_qwen2[];
extern const char text_pattern_bloom[];
extern const char text_pattern_spaces[], text_pattern_punctuation[]; /* BERT's: ASCII symbols count as punctuation */

/* A step from a pattern: one of the hand-written matchers when the pattern is theirs, else PCRE2. `literal`: the pattern
 * is a plain string. `what` names the file in errors. Release with text_split_close. */
int text_split_open(struct text_split *s, const char *pattern, size_t n, bool literal, enum text_behavior behavior, bool invert,
                    const char *what, struct stave_err *err);
void text_split_close(struct text_split *s);
/* Patterns come in the language of Oniguruma, which has classes within classes and their intersection. PCRE2 would read them as
 * something else without a word, so they are put in its own words where that is known (into *pattern, *n) and refused elsewhere. */
int text_split_translate(const char **pattern, size_t *n, const char *what, struct stave_err *err);

/* End of the word that starts at p[i], i < n. The text before i does not matter, and what follows n does not exist. */
size_t text_next_gpt2(const uint8_t *p, size_t i, size_t n);
size_t text_next_llama3(const uint8_t *p, size_t i, size_t n);
size_t text_next_qwen2(const uint8_t *p, size_t i, size_t n);
size_t text_next_mark(const uint8_t *p, size_t i, size_t n); /* U+2581 as often as it comes, then all up to the next */
typedef size_t (*text_next_fn)(const uint8_t *p, size_t i, size_t n);
/* The matcher of a kind; NULL for TEXT_SPLIT_REGEX. */
text_next_fn text_split_next(enum text_split_kind kind);

/* Scratch of one thread for PCRE2 steps. */
struct text_span {
	size_t begin, end;
	bool match;
};
struct text_spans {
	struct text_span *p;
	size_t n, cap;
};
struct text_splitter {
	pcre2_match_data *data;
	pcre2_match_context *context;
};
int text_splitter_open(struct text_splitter *w, struct stave_err *err);
void text_splitter_close(struct text_splitter *w);
/* Cut p[0..n) by a PCRE2 step; spans is replaced by the words in order. */
int text_split_regex(struct text_splitter *w, const struct text_split *s, const uint8_t *p, size_t n, struct text_spans *spans, struct stave_err *err);

#endif
