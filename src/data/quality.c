/* The rules that made web text fit to learn from. Lengths are in code points and a repeated n-gram is recognised by a
 * 64-bit hash of its words' hashes, so a document is split once and every rule is a pass over an array. Where the papers
 * are silent (how a line is cut, which n-gram wins a tie) we do as datatrove, the code FineWeb was made with: a text that
 * ends in a newline has an empty last line, and the first of equally frequent n-grams is the top one. */
#include "data/quality.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/hash.h"

/* ---- characters ---- */

static size_t code_point(const char *p, size_t n, int32_t *c)
{
	utf8proc_ssize_t k;
	if ((unsigned char)*p < 0x80) {
		*c = *p;
		return 1;
	}
	k = utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, c);
	if (k <= 0) {
		*c = 0xfffd;
		return 1;
	}
	return (size_t)k;
}

static int64_t count_chars(const char *p, size_t n)
{
	int64_t chars = 0;
	for (size_t i = 0; i < n; i++)
		chars += ((unsigned char)p[i] & 0xc0) != 0x80;
	return chars;
}

enum class { SPACE, LETTER, DIGIT, SYMBOL };

static enum class classify(int32_t c)
{
	if (c < 128) {
		if (c == ' ' || (c >= '\t' && c <= '\r'))
			return SPACE;
		if ((c | 32) >= 'a' && (c | 32) <= 'z')
			return LETTER;
		return c >= '0' && c <= '9' ? DIGIT : SYMBOL;
	}
	switch (utf8proc_category(c)) {
	case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC:
		return LETTER;
	case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
		return DIGIT;
	case UTF8PROC_CATEGORY_ZS: case UTF8PROC_CATEGORY_ZL: case UTF8PROC_CATEGORY_ZP:
		return SPACE;
	default:
		return SYMBOL;
	}
}

/* ---- words ---- */

static bool apostrophe(int32_t c) { return c == '\'' || c == 0x2019; }

static struct stave_word *word_new(struct stave_quality *q)
{
	if (q->n_words == q->cap_words) {
		q->cap_words = q->cap_words ? 2 * q->cap_words : 1024;
		struct stave_word *w = realloc(q->words, q->cap_words * sizeof *w);
		if (!w)
			abort(); /* a few times the size of a document that is in memory already */
		q->words = w;
	}
	return &q->words[q->n_words++];
}

/* The word at p (not a space); returns its bytes. */
static size_t word_at(const char *p, size_t n, struct stave_word *w)
{
	size_t i = 0;
	*w = (struct stave_word){.p = p, .symbol = true};
	for (bool symbol = false; i < n;) {
		int32_t c, after;
		size_t k = code_point(p + i, n - i, &c);
		enum class t = classify(c);
		/* "don't" is one word: an apostrophe between letters */
		if (i && !symbol && apostrophe(c) && i + k < n && (code_point(p + i + k, n - i - k, &after), classify(after) == LETTER))
			t = LETTER;
		if (!i)
			symbol = t == SYMBOL;
		if (t == SPACE || (t == SYMBOL) != symbol)
			break;
		w->letter |= t == LETTER;
		w->chars++;
		i += k;
		w->symbol = symbol;
	}
	w->bytes = (uint32_t)i;
	w->hash = stave_hash64(p, i, 0);
	return i;
}

void stave_quality_words(struct stave_quality *q, const char *text, size_t n)
{
	q->n_words = 0;
	q->chars = count_chars(text, n);
	for (size_t i = 0; i < n;) {
		int32_t c;
		size_t k = code_point(text + i, n - i, &c);
		if (classify(c) != SPACE) /* a "word" of gigabytes is cut: its length is 32 bits */
			k = word_at(text + i, n - i < (1u << 30) ? n - i : 1u << 30, word_new(q));
		i += k;
	}
}

void stave_quality_free(struct stave_quality *q)
{
	free(q->words);
	free(q->seen.slot);
	stave_buf_free(&q->lines);
	*q = (struct stave_quality){0};
}

/* ---- a set of hashes ---- */

static void seen_clear(struct stave_seen *s, size_t expected)
{
	size_t want = 64;
	while (want < 2 * expected)
		want *= 2;
	if (s->slot && s->mask + 1 >= want && ++s->era)
		return;
	free(s->slot);
	s->slot = calloc(want, sizeof *s->slot);
	if (!s->slot)
		abort();
	s->mask = want - 1;
	s->era = 1;
}

/* How often key has been seen, this time included. At most `expected` distinct keys may come. */
static uint32_t seen_add(struct stave_seen *s, uint64_t key)
{
	size_t i = key & s->mask;
	while (s->slot[i].era == s->era && s->slot[i].key != key)
		i = (i + 1) & s->mask;
	if (s->slot[i].era != s->era)
		s->slot[i] = (struct stave_seen_slot){.key = key, .era = s->era};
	return ++s->slot[i].count;
}

/* ---- lines ---- */

struct lines { /* iterates pieces between runs of at least `run` newlines, empty first and last pieces included */
	const char *p, *end;
	int run;
	bool done;
};

static bool next_piece(struct lines *l, const char **piece, size_t *n)
{
	if (l->done)
		return false;
	const char *start = l->p, *at = start;
	while ((at = memchr(at, '\n', (size_t)(l->end - at)))) {
		const char *after = at;
		while (after < l->end && *after == '\n')
			after++;
		if (after - at >= l->run) {
			*piece = start;
			*n = (size_t)(at - start);
			l->p = after;
			return true;
		}
		at = after;
	}
	*piece = start;
	*n = (size_t)(l->end - start);
	l->done = true;
	return true;
}

struct repeats {
	int64_t pieces, repeated, repeated_chars;
};

static struct repeats count_repeats(struct stave_quality *q, const char *text, size_t n, int run)
{
	struct repeats r = {0};
	struct lines l = {text, text + n, run, false};
	const char *p;
	size_t k;
	for (; next_piece(&l, &p, &k);)
		r.pieces++;
	seen_clear(&q->seen, (size_t)r.pieces);
	l = (struct lines){text, text + n, run, false};
	while (next_piece(&l, &p, &k))
		if (seen_add(&q->seen, stave_hash64(p, k, 1)) > 1) {
			r.repeated++;
			r.repeated_chars += count_chars(p, k);
		}
	return r;
}

static void trim(const char **p, size_t *n)
{
	while (*n && classify((unsigned char)**p & 0x80 ? 'a' : **p) == SPACE)
		++*p, --*n;
	while (*n && !((unsigned char)(*p)[*n - 1] & 0x80) && classify((*p)[*n - 1]) == SPACE)
		--*n;
}

/* ---- Gopher: repetition ---- */

/* n-grams are pure functions of their words' hashes. */
static uint64_t gram(const struct stave_word *w, int n)
{
	uint64_t h = 0;
	for (int i = 0; i < n; i++)
		h = (h ^ w[i].hash) * 0x9e3779b97f4a7c15u + (h >> 29);
	return h ^ (h >> 32);
}

static int64_t gram_chars(const struct stave_word *w, int n)
{
	int64_t chars = 0;
	for (int i = 0; i < n; i++)
		chars += w[i].chars;
	return chars;
}

/* Characters of all copies of the commonest n-gram, its words joined by spaces. */
static int64_t top_gram_chars(struct stave_quality *q, int n)
{
	int64_t best_chars = 0;
	uint32_t best = 0;
	size_t grams = q->n_words >= (size_t)n ? q->n_words - (size_t)n + 1 : 0;
	seen_clear(&q->seen, grams);
	for (size_t i = 0; i < grams; i++) {
		uint32_t count = seen_add(&q->seen, gram(q->words + i, n));
		best = count > best ? count : best;
	}
	/* among equals the one that came first: it is the first whose final count, found by a second count, is the best */
	for (size_t i = 0; i < grams && best; i++) {
		uint64_t key = gram(q->words + i, n);
		size_t at = key & q->seen.mask;
		while (q->seen.slot[at].key != key || q->seen.slot[at].era != q->seen.era)
			at = (at + 1) & q->seen.mask;
		if (q->seen.slot[at].count == best) {
			best_chars = (gram_chars(q->words + i, n) + n - 1) * (int64_t)best;
			break;
		}
	}
	return best_chars;
}

/* Characters in n-grams seen before; a repeated n-gram is stepped over whole, so that none is counted twice. */
static int64_t repeated_gram_chars(struct stave_quality *q, int n)
{
	int64_t chars = 0;
	size_t grams = q->n_words >= (size_t)n ? q->n_words - (size_t)n + 1 : 0;
	seen_clear(&q->seen, grams);
	for (size_t i = 0; i < grams;) {
		if (seen_add(&q->seen, gram(q->words + i, n)) > 1) {
			chars += gram_chars(q->words + i, n);
			i += (size_t)n;
		} else {
			i++;
		}
	}
	return chars;
}

enum stave_verdict stave_gopher_repetition(struct stave_quality *q, const char *text, size_t n)
{
	static const double top[] = {.20, .18, .16}, dup[] = {.15, .14, .13, .12, .11, .10};
	const char *p = text;
	size_t k = n;
	double chars = (double)(q->chars ? q->chars : 1);
	trim(&p, &k);
	struct repeats r = count_repeats(q, p, k, 2);
	if ((double)r.repeated > .30 * (double)r.pieces)
		return STAVE_V_REP_DUP_PARA;
	if ((double)r.repeated_chars > .20 * chars)
		return STAVE_V_REP_DUP_PARA_CHAR;
	r = count_repeats(q, text, n, 1);
	if ((double)r.repeated > .30 * (double)r.pieces)
		return STAVE_V_REP_DUP_LINE;
	if ((double)r.repeated_chars > .20 * chars)
		return STAVE_V_REP_DUP_LINE_CHAR;
	for (int g = 2; g <= 4; g++)
		if ((double)top_gram_chars(q, g) > top[g - 2] * chars)
			return (enum stave_verdict)(STAVE_V_REP_TOP_2 + g - 2);
	for (int g = 5; g <= 10; g++)
		if ((double)repeated_gram_chars(q, g) > dup[g - 5] * chars)
			return (enum stave_verdict)(STAVE_V_REP_DUP_5 + g - 5);
	return STAVE_V_TRAIN;
}

/* ---- Gopher: quality ---- */

static int64_t occurrences(const char *text, size_t n, const char *what)
{
	size_t k = strlen(what);
	int64_t found = 0;
	for (const char *p = text, *end = text + n; (p = memmem(p, (size_t)(end - p), what, k)); p += k)
		found++;
	return found;
}

static bool ends(const char *p, size_t n, const char *tail)
{
	size_t k = strlen(tail);
	return n >= k && !memcmp(p + n - k, tail, k);
}

static bool starts(const char *p, size_t n, const char *head)
{
	size_t k = strlen(head);
	return n >= k && !memcmp(p, head, k);
}

/* Lines as C4 and Gopher count them: between single newlines, without the empty one after a last newline. */
static bool next_line(const char **at, const char *end, const char **line, size_t *n)
{
	if (*at >= end)
		return false;
	const char *newline = memchr(*at, '\n', (size_t)(end - *at));
	*line = *at;
	*n = (size_t)((newline ? newline : end) - *at);
	*at = newline ? newline + 1 : end;
	return true;
}

static enum stave_verdict line_shapes(const char *text, size_t n)
{
	int64_t lines = 0, bullets = 0, ellipses = 0;
	const char *p;
	size_t k;
	for (const char *at = text; next_line(&at, text + n, &p, &k);) {
		trim(&p, &k);
		lines++;
		bullets += starts(p, k, "\xe2\x80\xa2") || starts(p, k, "-");
		ellipses += ends(p, k, "...") || ends(p, k, "\xe2\x80\xa6");
	}
	if ((double)bullets > .9 * (double)lines)
		return STAVE_V_GQ_BULLETS;
	if ((double)ellipses > .3 * (double)lines)
		return STAVE_V_GQ_END_ELLIPSIS;
	return STAVE_V_TRAIN;
}

static int stop_words(const struct stave_quality *q)
{
	static const char *const words[] = {"the", "be", "to", "of", "and", "that", "have", "with"};
	unsigned found = 0;
	for (size_t i = 0; i < q->n_words; i++)
		for (unsigned s = 0; s < 8; s++)
			if (q->words[i].bytes == strlen(words[s]) && !memcmp(q->words[i].p, words[s], q->words[i].bytes))
				found |= 1u << s;
	return __builtin_popcount(found);
}

enum stave_verdict stave_gopher_quality(struct stave_quality *q, const char *text, size_t n)
{
	int64_t real = 0, real_chars = 0, letters = 0, words = (int64_t)q->n_words;
	for (size_t i = 0; i < q->n_words; i++) {
		const struct stave_word *w = &q->words[i];
		real += !w->symbol;
		real_chars += w->symbol ? 0 : w->chars;
		letters += w->letter;
	}
	if (real < 50)
		return STAVE_V_GQ_SHORT;
	if (real > 100000)
		return STAVE_V_GQ_LONG;
	if (real_chars < 3 * real)
		return STAVE_V_GQ_SHORT_WORDS;
	if (real_chars > 10 * real)
		return STAVE_V_GQ_LONG_WORDS;
	if ((double)occurrences(text, n, "#") > .1 * (double)words)
		return STAVE_V_GQ_HASHES;
	if ((double)(occurrences(text, n, "...") + occurrences(text, n, "\xe2\x80\xa6")) > .1 * (double)words)
		return STAVE_V_GQ_ELLIPSES;
	enum stave_verdict v = line_shapes(text, n);
	if (v)
		return v;
	if ((double)letters < .8 * (double)words)
		return STAVE_V_GQ_ALPHA;
	return stop_words(q) < 2 ? STAVE_V_GQ_STOP_WORDS : STAVE_V_TRAIN;
}

/* ---- C4 ---- */

/* ASCII case only: every phrase looked for is ASCII. */
static bool holds(const char *p, size_t n, const char *lower)
{
	size_t k = strlen(lower);
	for (size_t i = 0; i + k <= n; i++) {
		size_t j = 0;
		while (j < k && (p[i + j] >= 'A' && p[i + j] <= 'Z' ? p[i + j] + 32 : p[i + j]) == lower[j])
			j++;
		if (j == k)
			return true;
	}
	return false;
}

/* Appends the line without "[1]", "[]", "[edit]" and "[citation needed]". */
static void put_without_citations(struct stave_buf *out, const char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		const char *open = memchr(p + i, '[', n - i);
		size_t at = open ? (size_t)(open - p) : n, close = at + 1;
		stave_buf_put(out, p + i, at - i);
		if (!open)
			return;
		while (close < n && p[close] >= '0' && p[close] <= '9')
			close++;
		if (close < n && p[close] == ']')
			i = close + 1;
		else if (starts(p + at, n - at, "[edit]"))
			i = at + 6;
		else if (starts(p + at, n - at, "[citation needed]"))
			i = at + 17;
		else {
			stave_buf_put(out, "[", 1);
			i = at + 1;
		}
	}
}

/* Sentences: runs of . ! ? before a space or the end (quotes and brackets may stand between), and an unended rest. */
static int64_t sentences(const char *p, size_t n)
{
	int64_t found = 0;
	bool open = false;
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '.' || p[i] == '!' || p[i] == '?') {
			size_t j = i + 1;
			while (j < n && strchr(".!?\"')]", p[j]))
				j++;
			if (open && (j == n || classify((unsigned char)p[j] < 0x80 ? p[j] : 'a') == SPACE)) {
				found++;
				open = false;
			}
			i = j - 1;
		} else if ((unsigned char)p[i] >= 0x80 || classify(p[i]) != SPACE) {
			open = true;
		}
	}
	return found + open;
}

/* Words between spaces; *longest in code points. */
static int spaced_words(const char *p, size_t n, int64_t *longest)
{
	int words = 0;
	*longest = 0;
	for (size_t i = 0; i < n;) {
		size_t start;
		while (i < n && (p[i] == ' ' || (p[i] >= '\t' && p[i] <= '\r')))
			i++;
		for (start = i; i < n && p[i] != ' ' && !(p[i] >= '\t' && p[i] <= '\r');)
			i++;
		if (i > start) {
			int64_t chars = count_chars(p + start, i - start);
			*longest = chars > *longest ? chars : *longest;
			words++;
		}
	}
	return words;
}

static bool ends_sentence(const char *p, size_t n)
{
	return n && strchr(".?!\"'", p[n - 1]) && p[n - 1] && !ends(p, n, "...");
}

static bool policy(const char *p, size_t n)
{
	static const char *const phrases[] = {"terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"};
	for (size_t i = 0; i < sizeof phrases / sizeof *phrases; i++)
		if (holds(p, n, phrases[i]))
			return true;
	return false;
}

enum stave_verdict stave_c4(struct stave_quality *q, const char *text, size_t n, bool terminal_punctuation, const char **out,
                            size_t *out_n, int64_t *removed)
{
	int64_t total = 0, longest;
	const char *p;
	size_t k;
	*removed = 0;
	q->lines.len = 0;
	stave_buf_reserve(&q->lines, n);
	for (const char *at = text; next_line(&at, text + n, &p, &k);) {
		trim(&p, &k);
		int words = spaced_words(p, k, &longest);
		size_t from = q->lines.len;
		if (from)
			stave_buf_put(&q->lines, "\n", 1);
		size_t start = q->lines.len;
		put_without_citations(&q->lines, p, k);
		const char *line = q->lines.p + start;
		size_t len = q->lines.len - start;
		bool keep = longest <= 1000 && words >= 3 && (!terminal_punctuation || ends_sentence(line, len));
		if (keep && holds(line, len, "lorem ipsum"))
			return STAVE_V_C4_LOREM;
		keep = keep && !holds(line, len, "javascript");
		if (keep && memchr(line, '{', len))
			return STAVE_V_C4_CURLY;
		keep = keep && !policy(line, len);
		if (keep)
			total += sentences(line, len);
		else
			q->lines.len = from;
		*removed += !keep && k;
	}
	if (total < 5)
		return STAVE_V_C4_SENTENCES;
	*out = q->lines.p;
	*out_n = q->lines.len;
	return STAVE_V_TRAIN;
}

/* ---- FineWeb ---- */

static bool ends_in_punctuation(const char *p, size_t n)
{
	static const char *const marks[] = {".", "?", "!", "\"", "'", "\xe2\x80\x9d", "\xe2\x80\x99", "\xe2\x80\xa6", "\xe3\x80\x82", "\xef\xbc\x9f", "\xef\xbc\x81", "\xd8\x9f", "\xe0\xa5\xa4"};
	for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
		if (ends(p, n, marks[i]))
			return true;
	return false;
}

enum stave_verdict stave_fineweb(struct stave_quality *q, const char *text, size_t n)
{
	int64_t lines = 0, punctuated = 0, brief = 0, repeated = 0, newlines = occurrences(text, n, "\n");
	const char *p;
	size_t k;
	seen_clear(&q->seen, (size_t)newlines + 1);
	for (const char *at = text; next_line(&at, text + n, &p, &k);) {
		const char *s = p;
		size_t left = k;
		trim(&s, &left);
		if (!left)
			continue;
		int64_t chars = count_chars(p, k);
		lines++;
		punctuated += ends_in_punctuation(p, k);
		brief += chars <= 30;
		repeated += seen_add(&q->seen, stave_hash64(p, k, 1)) > 1 ? chars : 0;
	}
	if (!lines)
		return STAVE_V_FW_EMPTY;
	if ((double)punctuated < .12 * (double)lines)
		return STAVE_V_FW_LINE_PUNCT;
	if ((double)brief > .67 * (double)lines)
		return STAVE_V_FW_SHORT_LINES;
	if ((double)repeated > .01 * (double)(q->chars - newlines))
		return STAVE_V_FW_CHAR_DUP;
	return (double)newlines > .3 * (double)q->n_words ? STAVE_V_FW_NEWLINES : STAVE_V_TRAIN;
}
