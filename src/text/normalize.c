/* The steps of normalization, one function each. A step reads one buffer and writes another, or only moves the ends of the text.
 * Text may be any bytes: what is no UTF-8 passes unchanged. Growth is bounded, since a hostile tokenizer may replace one byte by
 * many over and over. */
#include <utf8proc.h>

#include "text/tokenizer.h"

static int too_large(size_t bound, struct stave_err *err)
{
	return stave_err_set(err, STAVE_EFAIL, "the tokenizer's normalizer blows the text up to more than %zu bytes", bound);
}

static int replace_all(const struct stave_tokenizer *t, const struct text_op *op, size_t bound, const char *p, size_t n, struct stave_buf *out, struct stave_err *err)
{
	const char *from = t->blob.p + op->from.at, *hit;
	for (; (hit = memmem(p, n, from, op->from.n)); n -= (size_t)(hit - p) + op->from.n, p = hit + op->from.n) {
		stave_buf_put(out, p, (size_t)(hit - p));
		stave_buf_put(out, t->blob.p + op->to.at, op->to.n);
		if (out->len > bound)
			return too_large(bound, err);
	}
	stave_buf_put(out, p, n);
	return 0;
}

static int replace_matches(const struct stave_tokenizer *t, const struct text_op *op, struct text_splitter *w, struct text_spans *spans, size_t bound,
                           const char *p, size_t n, struct stave_buf *out, struct stave_err *err)
{
	int rc = text_split_regex(w, &op->pattern, (const uint8_t *)p, n, spans, err);
	for (size_t i = 0; i < spans->n && !rc; i++) {
		const struct text_span *s = &spans->p[i];
		stave_buf_put(out, s->match ? t->blob.p + op->to.at : p + s->begin, s->match ? op->to.n : s->end - s->begin);
		if (out->len > bound)
			rc = too_large(bound, err);
	}
	return rc;
}

void text_strip(bool left, const char **p, size_t *n)
{
	size_t len;
	while (left && *n && text_class_at((const uint8_t *)*p, *n, &len) & TEXT_SPACE) {
		*p += len;
		*n -= len;
	}
	while (!left && *n) {
		size_t at = *n - 1;
		while (at && *n - at < 4 && ((*p)[at] & 0xc0) == 0x80)
			at--;
		if (!(text_class_at((const uint8_t *)*p + at, *n - at, &len) & TEXT_SPACE) || at + len != *n)
			break;
		*n = at;
	}
}

/* Words between white space, each behind the mark unless it brings one. */
static void mark_words(const char *mark, size_t mark_n, const char *p, size_t n, struct stave_buf *out)
{
	size_t len;
	for (size_t i = 0, end; i < n; i = end) {
		while (i < n && text_class_at((const uint8_t *)p + i, n - i, &len) & TEXT_SPACE)
			i += len;
		for (end = i; end < n && !(text_class_at((const uint8_t *)p + end, n - end, &len) & TEXT_SPACE); end += len)
			;
		if (end == i)
			break;
		if (end - i < mark_n || memcmp(p + i, mark, mark_n))
			stave_buf_put(out, mark, mark_n);
		stave_buf_put(out, p + i, end - i);
	}
}

static void trim_spaces(const char *p, size_t n, struct stave_buf *out)
{
	while (n && *p == ' ') {
		p++;
		n--;
	}
	while (n && p[n - 1] == ' ')
		n--;
	for (const char *space; (space = memmem(p, n, "  ", 2));) {
		stave_buf_put(out, p, (size_t)(space + 1 - p));
		n -= (size_t)(space - p);
		for (p = space; *p == ' '; p++) /* ends at a word: there are none at the end */
			n--;
	}
	stave_buf_put(out, p, n);
}

static bool is_chinese(uint32_t c)
{
	return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
	       (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b820 && c <= 0x2ceaf) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* BERT's notion of a control: Cc, Cf, Cs, Co and what is not assigned; tab and line ends are white space. */
static bool is_control(uint32_t c)
{
	if (c == '\t' || c == '\n' || c == '\r')
		return false;
	switch (utf8proc_category((utf8proc_int32_t)c)) {
	case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF: case UTF8PROC_CATEGORY_CS: case UTF8PROC_CATEGORY_CO: case UTF8PROC_CATEGORY_CN:
		return true;
	default:
		return false;
	}
}

/* The steps that decide character by character. */
static void by_character(enum text_op_kind kind, const char *p, size_t n, struct stave_buf *out)
{
	for (size_t i = 0, len; i < n; i += len) {
		uint32_t cp;
		len = text_utf8_next((const uint8_t *)p + i, n - i, &cp);
		if (cp == TEXT_INVALID) {
			stave_buf_put(out, p + i, len);
		} else if (kind == TEXT_OP_CHINESE) {
			if (is_chinese(cp))
				stave_buf_put(out, " ", 1);
			stave_buf_put(out, p + i, len);
			if (is_chinese(cp))
				stave_buf_put(out, " ", 1);
		} else if (kind == TEXT_OP_CLEAN) {
			if (text_class_of(cp) & TEXT_SPACE && cp != '\v' && cp != '\f' && cp != 0x85)
				stave_buf_put(out, " ", 1);
			else if (cp && cp != 0xfffd && !is_control(cp))
				stave_buf_put(out, p + i, len);
		} else if (utf8proc_category((utf8proc_int32_t)cp) != UTF8PROC_CATEGORY_MN) {
			stave_buf_put(out, p + i, len);
		}
	}
}

int text_op_apply(const struct stave_tokenizer *t, const struct text_op *op, struct text_splitter *w, struct text_spans *spans, bool first, size_t bound,
                  const char **p, size_t *n, struct stave_buf *out, struct stave_err *err)
{
	const char *to = t->blob.p + op->to.at;
	int rc = 0;
	out->len = 0;
	switch (op->kind) {
	case TEXT_OP_STRIP_LEFT:
	case TEXT_OP_STRIP_RIGHT:
		text_strip(op->kind == TEXT_OP_STRIP_LEFT, p, n);
		return 0;
	case TEXT_OP_PREPEND:
		if (!*n || (op->first_only && !first) || (op->absent_only && *n >= op->to.n && !memcmp(*p, to, op->to.n)))
			return 0;
		stave_buf_put(out, to, op->to.n);
		stave_buf_put(out, *p, *n);
		break;
	case TEXT_OP_REPLACE:
		rc = replace_all(t, op, bound, *p, *n, out, err);
		break;
	case TEXT_OP_MATCHES:
		rc = replace_matches(t, op, w, spans, bound, *p, *n, out, err);
		break;
	case TEXT_OP_FORM:
		rc = text_normalize(op->form, *p, *n, out, err);
		break;
	case TEXT_OP_WORDS:
		mark_words(to, op->to.n, *p, *n, out);
		break;
	case TEXT_OP_TRIM:
		trim_spaces(*p, *n, out);
		break;
	case TEXT_OP_CHARSMAP:
		rc = text_charsmap_apply(&t->charsmap, *p, *n, bound, out, err);
		break;
	case TEXT_OP_STRIP_MARKS:
	case TEXT_OP_CLEAN:
	case TEXT_OP_CHINESE:
		by_character(op->kind, *p, *n, out);
		break;
	}
	*p = out->len ? out->p : "";
	*n = out->len;
	return rc;
}
