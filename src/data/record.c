/* One raw document becomes text: plain bytes are checked to be UTF-8, a JSONL line is parsed. A line holds either a
 * text field or `messages`, a chat; a chat is learnt through its template, and here only rendered plainly, for hashing,
 * for near-duplicates and for training a tokenizer. Nothing is repaired in silence: what was not UTF-8 is counted. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus.h"

/* Length of the well-formed sequence at p (Unicode table 3-7), 0 when there is none. */
static size_t sequence(const unsigned char *p, size_t n)
{
	unsigned char c = p[0];
	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return 0;
	size_t len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	if (n < len)
		return 0;
	unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

size_t stave_utf8_invalid(const char *text, size_t n, bool *nul)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t bad = 0, i = 0;
	*nul = memchr(p, 0, n) != NULL;
	while (i < n) {
		uint64_t word;
		/* most text is ASCII: eight bytes at a time */
		while (i + 8 <= n && (memcpy(&word, p + i, 8), !(word & 0x8080808080808080u)))
			i += 8;
		if (i == n)
			break;
		size_t len = sequence(p + i, n - i);
		bad += !len;
		i += len ? len : 1;
	}
	return bad;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static enum stave_verdict plain(struct stave_record *r, const char *p, size_t n)
{
	bool nul;
	size_t bad = stave_utf8_invalid(p, n, &nul), i = 0;
	if (nul || bad * 1000 > n)
		return STAVE_V_NOT_TEXT;
	while (i < n && is_space(p[i]))
		i++;
	if (i == n)
		return STAVE_V_EMPTY;
	if (bad) {
		r->own.len = 0;
		stave_utf8_clean(p, n, &r->own);
		p = r->own.p;
		n = r->own.len;
		r->repaired = true;
	}
	r->text = p;
	r->n = n;
	r->content_bytes = n;
	return STAVE_V_TRAIN;
}

__attribute__((format(printf, 2, 3))) static enum stave_verdict bad(struct stave_record *r, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(r->why, sizeof r->why, fmt, ap);
	va_end(ap);
	return STAVE_V_BAD_LINE;
}

static enum stave_verdict message(struct stave_record *r, const json_t *m, size_t i)
{
	const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
	if (!json_is_string(role) || !json_is_string(content))
		return bad(r, "messages[%zu] wants the strings \"role\" and \"content\"", i);
	r->messages[r->n_messages++] = (struct stave_message){.role = json_string_value(role), .content = json_string_value(content)};
	stave_buf_printf(&r->own, "%s: ", json_string_value(role));
	stave_buf_put(&r->own, json_string_value(content), json_string_length(content));
	stave_buf_put(&r->own, "\n", 1);
	r->content_bytes += json_string_length(content);
	return STAVE_V_TRAIN;
}

static enum stave_verdict chat(struct stave_record *r, const json_t *messages)
{
	size_t n = json_array_size(messages);
	if (!n)
		return STAVE_V_EMPTY;
	if (n > STAVE_MESSAGES_MAX)
		return bad(r, "%zu messages, more than the %d a document may have", n, STAVE_MESSAGES_MAX);
	if ((size_t)r->cap_messages < n) {
		struct stave_message *v = realloc(r->messages, n * sizeof *v);
		if (!v)
			return bad(r, "no memory for %zu messages", n);
		r->messages = v;
		r->cap_messages = (int)n;
	}
	r->own.len = 0;
	for (size_t i = 0; i < n; i++) {
		enum stave_verdict v = message(r, json_array_get(messages, i), i);
		if (v)
			return v;
	}
	r->text = r->own.p;
	r->n = r->own.len;
	return r->content_bytes ? STAVE_V_TRAIN : STAVE_V_EMPTY;
}

enum stave_verdict stave_record_read(struct stave_record *r, const char *line, size_t n, bool jsonl, const char *field)
{
	struct stave_err err = {0};
	r->n_messages = 0;
	r->content_bytes = 0;
	r->repaired = false;
	r->text = "";
	r->n = 0;
	if (!jsonl)
		return plain(r, line, n);
	json_decref(r->json);
	r->json = NULL;
	if (stave_json_parse(&r->json, line, n, "line", &err))
		return bad(r, "%.180s", err.msg);
	if (!json_is_object(r->json))
		return bad(r, "not a JSON object");
	const json_t *text = json_object_get(r->json, field), *messages = json_object_get(r->json, "messages");
	if (json_is_string(text))
		return plain(r, json_string_value(text), json_string_length(text));
	if (json_is_array(messages))
		return chat(r, messages);
	return bad(r, "neither a string \"%.60s\" nor an array \"messages\"", field);
}

void stave_record_free(struct stave_record *r)
{
	json_decref(r->json);
	free(r->messages);
	stave_buf_free(&r->own);
	*r = (struct stave_record){0};
}
