/* The tokens inside a tag of a template: names, strings with Python's escapes, numbers, operators. Bytes are ASCII but in strings; a
 * string's value is what the escapes mean, and the template's own. */
#include "text/jinja_lex.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void skip_space(struct parser *p)
{
	while (p->p < p->end && isspace((unsigned char)*p->p))
		p->m->line += *p->p++ == '\n';
}

static void string_token(struct parser *p, char quote)
{
	const char *from = ++p->p;
	size_t n = 0;
	while (p->p < p->end && *p->p != quote)
		p->p += *p->p == '\\' && p->p + 1 < p->end ? 2 : 1;
	if (p->p >= p->end)
		jinja_fail(p->m, "a string is not closed");
	char *to = jinja_take(p->m, (size_t)(p->p - from) + 1);
	for (const char *s = from; s < p->p; s++) {
		static const char escapes[] = "n\nt\tr\rb\bf\fv\va\a\\\\'\'\"\"";
		p->m->line += *s == '\n';
		if (*s != '\\') {
			to[n++] = *s;
			continue;
		}
		const char *e = escapes;
		for (s++; *e && *e != *s;)
			e += 2;
		unsigned code = 0;
		int digits = *s == 'u' ? 4 : *s == 'x' ? 2 : 0, i = 0;
		for (; i < digits && s + 1 + i < p->p && isxdigit((unsigned char)s[1 + i]); i++)
			code = code * 16 + (unsigned)(isdigit((unsigned char)s[1 + i]) ? s[1 + i] - '0' : (s[1 + i] | 32) - 'a' + 10);
		if (*e) {
			to[n++] = e[1];
		} else if (digits && i == digits) { /* 6 source bytes become at most 3 */
			if (code < 0x80) {
				to[n++] = (char)code;
			} else if (code < 0x800) {
				to[n++] = (char)(0xc0 | code >> 6);
				to[n++] = (char)(0x80 | (code & 63));
			} else {
				to[n++] = (char)(0xe0 | code >> 12);
				to[n++] = (char)(0x80 | (code >> 6 & 63));
				to[n++] = (char)(0x80 | (code & 63));
			}
			s += digits;
		} else if (*s != '\n') { /* unknown: both characters stay, as in Python */
			to[n++] = '\\';
			to[n++] = *s;
		}
	}
	p->p++;
	p->kind = T_STRING;
	p->value = jinja_bytes(p->m, to, n, true);
}

static void number_token(struct parser *p)
{
	char text[64];
	size_t n = 0;
	bool real = false;
	for (; p->p < p->end && n < sizeof text - 1; p->p++) {
		char c = *p->p;
		if (c == '_')
			continue;
		bool exponent = (c == 'e' || c == 'E') && p->p + 1 < p->end && (isdigit((unsigned char)p->p[1]) || p->p[1] == '-' || p->p[1] == '+');
		if (c == '.' && !real && p->p + 1 < p->end && isdigit((unsigned char)p->p[1]))
			real = true;
		else if (exponent) {
			real = true;
			text[n++] = *p->p++;
			c = *p->p;
		} else if (!isdigit((unsigned char)c))
			break;
		if (n < sizeof text - 1)
			text[n++] = c;
	}
	text[n] = 0;
	errno = 0;
	if (real) {
		p->kind = T_FLOAT;
		p->value = jinja_float(strtod(text, NULL));
	} else {
		p->kind = T_INT;
		p->value = jinja_int(strtoll(text, NULL, 10));
	}
	if (errno || n >= sizeof text - 1)
		jinja_fail(p->m, "the number %.20s is out of range", text);
}

void lex_next(struct parser *p)
{
	skip_space(p);
	jinja_step(p->m, 1);
	if (p->p >= p->end)
		jinja_fail(p->m, "a tag is not closed");
	const char *s = p->p;
	size_t left = (size_t)(p->end - s);
	bool minus = *s == '-' && left >= 3 && !memcmp(s + 1, p->close, 2), plus = *s == '+' && left >= 3 && !memcmp(s + 1, p->close, 2);
	if (minus || plus || (left >= 2 && !memcmp(s, p->close, 2))) {
		p->p += minus || plus ? 3 : 2;
		p->strip_left = minus;
		p->trim_newline = !plus && p->close[0] == '%';
		p->kind = T_END;
		return;
	}
	if (isalpha((unsigned char)*s) || *s == '_') {
		while (p->p < p->end && (isalnum((unsigned char)*p->p) || *p->p == '_'))
			p->p++;
		p->kind = T_NAME;
		p->value = jinja_bytes(p->m, s, (size_t)(p->p - s), true);
	} else if (isdigit((unsigned char)*s)) {
		number_token(p);
	} else if (*s == '"' || *s == '\'') {
		string_token(p, *s);
	} else {
		static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
		size_t n = 1;
		for (size_t i = 0; i < sizeof two / sizeof *two; i++)
			if (left >= 2 && !memcmp(s, two[i], 2))
				n = 2;
		if (!strchr("+-*/%~()[]{},:.|=<>!", *s))
			jinja_fail(p->m, "unexpected character '%c'", isprint((unsigned char)*s) ? *s : '?');
		p->p += n;
		p->kind = T_OP;
		p->value = jinja_bytes(p->m, s, n, true);
	}
}

static bool at(const struct parser *p, enum token_kind kind, const char *s) { return p->kind == kind && jinja_is(p->value.s, s); }

bool lex_at_op(const struct parser *p, const char *s) { return at(p, T_OP, s); }

bool lex_at_name(const struct parser *p, const char *s) { return at(p, T_NAME, s); }

bool lex_accept(struct parser *p, enum token_kind kind, const char *s)
{
	if (!at(p, kind, s))
		return false;
	lex_next(p);
	return true;
}

void lex_expect(struct parser *p, const char *op)
{
	if (!lex_accept(p, T_OP, op))
		jinja_fail(p->m, "expected '%s'", op);
}

const struct jinja_string *lex_expect_name(struct parser *p)
{
	if (p->kind != T_NAME)
		jinja_fail(p->m, "expected a name");
	const struct jinja_string *s = p->value.s;
	lex_next(p);
	return s;
}

void lex_expect_end(struct parser *p)
{
	if (p->kind != T_END)
		jinja_fail(p->m, "unexpected words at the end of a tag");
}
