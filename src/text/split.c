/* Pre-tokenization. Nearly every tokenizer in use cuts text by one of three patterns; their matchers are written out
 * here by hand, since a backtracking engine spends more time on them than all merges together. Each is the literal
 * meaning of its pattern (leftmost alternative first, greedy, the backtracking resolved on paper), and a test holds them
 * to PCRE2 on random text. Any other pattern runs on PCRE2 with its compiler and a match limit, so that a hostile
 * tokenizer.json can be slow only up to a bound and then is an error.
 *
 * All three patterns end with \s+(?!\S)|\s+: a run of white space gives its last character to the word behind it, unless
 * the text ends there. Every matcher is linear in the word it returns. */
#include "text/split.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

const char text_pattern_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char text_pattern_llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                                   "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char text_pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                                  "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char text_pattern_bloom[] = " ?[^(\\s|.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c)]+";
const char text_pattern_spaces[] = "\\s+";
const char text_pattern_punctuation[] = "[!-/:-@\\[-`{-~\\p{P}]";

#define PATTERN_MAX 65536
#define MATCH_LIMIT 1000000

/* First position at or after i whose class is not in `want`. */
static inline size_t run(const uint8_t *p, size_t i, size_t n, unsigned want)
{
	while (i < n) {
		unsigned c = text_byte_class[p[i]];
		size_t len = 1;
		if (c & TEXT_WIDE)
			c = text_class_at(p + i, n - i, &len);
		if (!(c & want))
			break;
		i += len;
	}
	return i;
}

/* \s+(?!\S)|\s+ at p[i], whose run of white space ends at `end`. */
static inline size_t spaces(const uint8_t *p, size_t i, size_t end, size_t n)
{
	if (end == n)
		return end;
	size_t last = end - 1;
	while ((p[last] & 0xc0) == 0x80)
		last--;
	return last > i ? last : end;
}

/* Bytes of 's 't 're 've 'm 'll 'd at p[i] == '\'', or 0. */
static inline size_t contraction(const uint8_t *p, size_t i, size_t n)
{
	if (i + 1 < n && (p[i + 1] == 's' || p[i + 1] == 't' || p[i + 1] == 'm' || p[i + 1] == 'd'))
		return 2;
	if (i + 2 < n && ((p[i + 2] == 'e' && (p[i + 1] == 'r' || p[i + 1] == 'v')) || (p[i + 1] == 'l' && p[i + 2] == 'l')))
		return 3;
	return 0;
}

/* The same in any case. Folding is Unicode's, so U+017F (long s) is an s too. */
static inline size_t contraction_any_case(const uint8_t *p, size_t i, size_t n)
{
	uint8_t low[3] = {'\''};
	for (size_t k = 1; k < 3 && i + k < n; k++)
		low[k] = p[i + k] >= 'A' && p[i + k] <= 'Z' ? p[i + k] | 32 : p[i + k];
	if (i + 2 < n && p[i + 1] == 0xc5 && p[i + 2] == 0xbf)
		return 3;
	return contraction(low, 0, n - i < 3 ? n - i : 3);
}

size_t text_next_gpt2(const uint8_t *p, size_t i, size_t n)
{
	size_t len, k;
	unsigned c = text_class_at(p + i, n - i, &len);
	if (p[i] == '\'' && (k = contraction(p, i, n)))
		return i + k;
	if (p[i] == ' ' && i + 1 < n) {
		unsigned d = text_class_at(p + i + 1, n - i - 1, &len);
		if (!(d & TEXT_SPACE))
			return run(p, i + 1 + len, n, d);
		return spaces(p, i, run(p, i + 1, n, TEXT_SPACE), n);
	}
	size_t end = run(p, i + len, n, c & ~TEXT_NEWLINE);
	return c & TEXT_SPACE ? spaces(p, i, end, n) : end;
}

static inline __attribute__((always_inline)) size_t next_llama(const uint8_t *p, size_t i, size_t n, int digits)
{
	size_t len, next_len, k;
	unsigned c = text_class_at(p + i, n - i, &len);
	if (p[i] == '\'' && (k = contraction_any_case(p, i, n)))
		return i + k;
	if (c & TEXT_LETTER)
		return run(p, i + len, n, TEXT_LETTER);
	if (c & TEXT_NUMBER) {
		i += len;
		while (--digits > 0 && i < n && text_class_at(p + i, n - i, &len) & TEXT_NUMBER)
			i += len;
		return i;
	}
	unsigned next = i + len < n ? text_class_at(p + i + len, n - i - len, &next_len) : 0;
	if (!(c & TEXT_NEWLINE) && next & TEXT_LETTER)
		return run(p, i + len + next_len, n, TEXT_LETTER);
	if (c & TEXT_OTHER || (p[i] == ' ' && next & TEXT_OTHER)) {
		size_t end = run(p, i + len, n, TEXT_OTHER);
		while (end < n && (p[end] == '\n' || p[end] == '\r'))
			end++;
		return end;
	}
	size_t end = run(p, i + len, n, TEXT_SPACE);
	for (size_t e = end; e > i; e--) /* \s*[\r\n]+ reaches to the last line end of the run */
		if (p[e - 1] == '\n' || p[e - 1] == '\r')
			return e;
	return spaces(p, i, end, n);
}

size_t text_next_llama3(const uint8_t *p, size_t i, size_t n)
{
	return next_llama(p, i, n, 3);
}

size_t text_next_qwen2(const uint8_t *p, size_t i, size_t n)
{
	return next_llama(p, i, n, 1);
}

size_t text_next_mark(const uint8_t *p, size_t i, size_t n)
{
	while (n - i >= 3 && p[i] == 0xe2 && p[i + 1] == 0x96 && p[i + 2] == 0x81)
		i += 3;
	for (; i < n; i++) {
		const uint8_t *hit = memchr(p + i, 0xe2, n - i);
		if (!hit)
			return n;
		i = (size_t)(hit - p);
		if (n - i >= 3 && p[i + 1] == 0x96 && p[i + 2] == 0x81)
			return i;
	}
	return n;
}

text_next_fn text_split_next(enum text_split_kind kind)
{
	static const text_next_fn next[] = {text_next_gpt2, text_next_llama3, text_next_qwen2, NULL, text_next_mark};
	return next[kind];
}

/* Does a class hold a class or an intersection? [:alpha:] is neither. */
static bool nests(const char *p, size_t n)
{
	bool inside = false;
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\\')
			i++;
		else if (inside && ((p[i] == '[' && !(i + 1 < n && p[i + 1] == ':')) || (p[i] == '&' && i + 1 < n && p[i + 1] == '&')))
			return true;
		else if (p[i] == '[' && inside)
			while (i + 1 < n && p[++i] != ']')
				;
		else if (p[i] == '[' || p[i] == ']')
			inside = p[i] == '[';
	}
	return false;
}

int text_split_translate(const char **pattern, size_t *n, const char *what, struct stave_err *err)
{
	static const char bloom[] = " ?[^(\\s|[.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c])]+";
	if (*n == strlen(bloom) && !memcmp(*pattern, bloom, *n)) {
		*pattern = text_pattern_bloom;
		*n = strlen(text_pattern_bloom);
	}
	if (nests(*pattern, *n))
		return stave_err_set(err, STAVE_ECONFIG, "%s: a pattern with a character class inside another, or an intersection of classes, is not one this program reads", what);
	return 0;
}

int text_split_open(struct text_split *s, const char *pattern, size_t n, bool literal, enum text_behavior behavior, bool invert,
                    const char *what, struct stave_err *err)
{
	static const char *const known[] = {text_pattern_gpt2, text_pattern_llama3, text_pattern_qwen2};
	*s = (struct text_split){.kind = TEXT_SPLIT_REGEX, .behavior = behavior, .invert = invert};
	/* These patterns match every character, so each of their words is a match and none is a gap. */
	bool every_match = (behavior == TEXT_ISOLATED) || (behavior == TEXT_REMOVED && invert);
	for (int k = 0; k < 3 && !literal && every_match; k++)
		if (n == strlen(known[k]) && !memcmp(pattern, known[k], n)) {
			s->kind = (enum text_split_kind)k;
			return 0;
		}
	if (!n || n > PATTERN_MAX)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: a split pattern of %zu bytes; wanted 1 to %d", what, n, PATTERN_MAX);
	int code;
	PCRE2_SIZE at;
	uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
	s->code = pcre2_compile((PCRE2_SPTR)pattern, n, options, &code, &at, NULL);
	if (!s->code) {
		char text[160] = "";
		pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
		return stave_err_set(err, STAVE_ECORRUPT, "%s: split pattern is not understood at offset %zu: %s", what, (size_t)at, text);
	}
	pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE); /* where it fails, matching is interpreted: slower, same result */
	return 0;
}

void text_split_close(struct text_split *s)
{
	pcre2_code_free(s->code);
	s->code = NULL;
}

int text_splitter_open(struct text_splitter *w, struct stave_err *err)
{
	w->data = pcre2_match_data_create(1, NULL);
	w->context = pcre2_match_context_create(NULL);
	if (!w->data || !w->context) {
		text_splitter_close(w);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for pattern matching");
	}
	pcre2_set_match_limit(w->context, MATCH_LIMIT);
	pcre2_set_depth_limit(w->context, 100000);
	pcre2_set_heap_limit(w->context, 65536); /* KiB */
	return 0;
}

void text_splitter_close(struct text_splitter *w)
{
	pcre2_match_data_free(w->data);
	pcre2_match_context_free(w->context);
	*w = (struct text_splitter){0};
}

static int push(struct text_spans *spans, size_t begin, size_t end, bool match, struct stave_err *err)
{
	if (begin == end)
		return 0;
	if (spans->n == spans->cap) {
		size_t cap = spans->cap ? 2 * spans->cap : 256;
		struct text_span *p = realloc(spans->p, cap * sizeof *p);
		if (!p)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for %zu words", cap);
		spans->p = p;
		spans->cap = cap;
	}
	spans->p[spans->n++] = (struct text_span){begin, end, match};
	return 0;
}

/* Matches and the gaps between them in p[from..to), which is valid UTF-8. */
static int spans_valid(struct text_splitter *w, const struct text_split *s, const uint8_t *p, size_t from, size_t to, struct text_spans *spans, struct stave_err *err)
{
	size_t gap = from, at = from;
	while (at < to) {
		/* The stretch is the whole subject: neither lookahead nor lookbehind sees the stray bytes around it. */
		int rc = pcre2_match(s->code, p + from, to - from, at - from, PCRE2_NO_UTF_CHECK, w->data, w->context);
		if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
			rc = pcre2_match(s->code, p + from, to - from, at - from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->data, w->context);
		if (rc == PCRE2_ERROR_NOMATCH)
			break;
		if (rc < 0) {
			char text[160] = "";
			pcre2_get_error_message(rc, (PCRE2_UCHAR *)text, sizeof text);
			return stave_err_set(err, STAVE_EFAIL, "the tokenizer's split pattern gave up on this text: %s", text);
		}
		PCRE2_SIZE *o = pcre2_get_ovector_pointer(w->data);
		size_t begin = from + o[0], end = from + o[1];
		if (end <= begin || begin < at) { /* an empty match cuts nothing; \K may even turn it around */
			uint32_t cp;
			at = begin > at ? begin : at;
			at += at < to ? text_utf8_next(p + at, to - at, &cp) : 1;
			continue;
		}
		if ((rc = push(spans, gap, begin, s->invert, err)) || (rc = push(spans, begin, end, !s->invert, err)))
			return rc;
		gap = at = end;
	}
	return push(spans, gap, to, s->invert, err);
}

/* Join or drop spans as the behaviour says, in place. */
static void apply(enum text_behavior behavior, struct text_spans *spans)
{
	struct text_span *p = spans->p;
	size_t k = 0;
	for (size_t i = 0; i < spans->n; i++) {
		struct text_span s = p[i];
		bool joins = false;
		if (behavior == TEXT_REMOVED && s.match)
			continue;
		if (i > 0 && behavior == TEXT_MERGED_WITH_PREVIOUS)
			joins = s.match && !p[k - 1].match;
		else if (i > 0 && behavior == TEXT_MERGED_WITH_NEXT)
			joins = !s.match && p[k - 1].match;
		else if (i > 0 && behavior == TEXT_CONTIGUOUS)
			joins = s.match == p[k - 1].match;
		if (joins) {
			p[k - 1].end = s.end;
			p[k - 1].match = s.match;
		} else {
			p[k++] = s;
		}
	}
	spans->n = k;
}

int text_split_regex(struct text_splitter *w, const struct text_split *s, const uint8_t *p, size_t n, struct text_spans *spans, struct stave_err *err)
{
	spans->n = 0;
	for (size_t i = 0; i < n;) { /* alternately valid UTF-8 and a run of stray bytes, which no pattern matches */
		size_t good = i, stray;
		uint32_t cp;
		for (size_t len; good < n; good += len) {
			len = text_utf8_next(p + good, n - good, &cp);
			if (cp == TEXT_INVALID)
				break;
		}
		for (stray = good; stray < n; stray++) {
			text_utf8_next(p + stray, n - stray, &cp);
			if (cp != TEXT_INVALID)
				break;
		}
		int rc = good > i ? spans_valid(w, s, p, i, good, spans, err) : 0;
		if (rc || (rc = push(spans, good, stray, s->invert, err)))
			return rc;
		i = stray;
	}
	apply(s->behavior, spans);
	return 0;
}
