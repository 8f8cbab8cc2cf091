/* The two textual front ends: GBNF as llama.cpp's users write it, and regular expressions.
 *
 * GBNF: name ::= alternatives; "literals" with \n \t \r \\ \" \xHH \uHHHH \UHHHHHHHH; [classes] and [^classes]; . ( ) * + ? {m} {m,} {m,n};
 * # comments; the rule `root` is the whole. A rule ends with its line, except inside parentheses and after | and ::=.
 *
 * Expressions: what JavaScript's have that is regular: classes, \d \w \s and their opposites, groups, alternatives, greedy and lazy
 * repetition (the same language), ^ and $ at the ends. Lookaround, back references and word boundaries are refused by name. */
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_build.h"

struct reader {
	struct build *b;
	const char *p, *end, *begin;
	int nesting;
	bool json;
	int32_t *names; /* GBNF: (NAME_SLOTS) 1 + the rule of a name, 0 = empty */
};

static int line_of(const struct reader *r)
{
	int n = 1;
	for (const char *p = r->begin; p < r->p; p++)
		n += *p == '\n';
	return n;
}

static struct ast *wrong(struct reader *r, const char *what)
{
	return build_fail(r->b, "line %d, byte %zu: %s", line_of(r), (size_t)(r->p - r->begin), what);
}

static bool more(const struct reader *r) { return r->p < r->end && !r->b->failed; }
static bool at(const struct reader *r, char c) { return more(r) && *r->p == c; }
static bool accept(struct reader *r, char c)
{
	if (!at(r, c))
		return false;
	r->p++;
	return true;
}

/* One character of UTF-8; a byte that begins none stands for itself. */
static uint32_t character(struct reader *r)
{
	unsigned char c = (unsigned char)*r->p;
	int n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
	if (!n || r->end - r->p < n) {
		wrong(r, "not UTF-8");
		r->p = r->end;
		return 0;
	}
	uint32_t u = n == 1 ? c : n == 2 ? c & 31 : n == 3 ? c & 15 : c & 7;
	for (int i = 1; i < n; i++) {
		if (((unsigned char)r->p[i] & 0xc0) != 0x80)
			wrong(r, "not UTF-8");
		u = u << 6 | ((unsigned char)r->p[i] & 63);
	}
	r->p += n;
	return u;
}

static uint32_t hex(struct reader *r, int digits)
{
	uint32_t u = 0;
	for (int i = 0; i < digits; i++, r->p++) {
		char c = more(r) ? *r->p : 0;
		uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10) : 99;
		if (d == 99) {
			wrong(r, "expected a hexadecimal digit");
			return 0;
		}
		u = u << 4 | d;
	}
	if (u > 0x10ffff) {
		wrong(r, "no such character");
		return 0;
	}
	return u;
}

/* {m} {m,} {m,n}: after "{". */
static bool counts(struct reader *r, int *min, int *max)
{
	int v[2] = {0, -1};
	for (int i = 0; i < 2; i++) {
		int digits = 0;
		int64_t n = 0;
		for (; more(r) && *r->p >= '0' && *r->p <= '9' && digits < 10; r->p++, digits++)
			n = n * 10 + (*r->p - '0');
		if (n > GRAMMAR_REPEAT_MAX) {
			wrong(r, "a repetition is too long");
			return false;
		}
		if (digits)
			v[i] = (int)n;
		if (!i && !digits)
			return false;
		if (!i && !accept(r, ',')) {
			v[1] = v[0];
			break;
		}
	}
	*min = v[0];
	*max = v[1];
	return accept(r, '}');
}

static struct ast *one_char(struct reader *r, uint32_t c)
{
	struct charset set = {0};
	charset_add(&set, c, c);
	struct ast *x = ast_chars(r->b, &set, r->json);
	charset_free(&set);
	return x;
}

static bool enter(struct reader *r)
{
	if (++r->nesting <= GRAMMAR_NESTING_MAX)
		return true;
	wrong(r, "nested too deep");
	return false;
}

/* ---- GBNF ---- */

static void space(struct reader *r, bool lines)
{
	while (more(r) && (*r->p == ' ' || *r->p == '\t' || *r->p == '#' || (lines && (*r->p == '\n' || *r->p == '\r')))) {
		if (*r->p == '#')
			while (more(r) && *r->p != '\n' && *r->p != '\r')
				r->p++;
		else
			r->p++;
	}
}

static bool name_byte(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; }

/* The rule of a name, made when first met. Rule 0 is `root`. */
#define NAME_SLOTS 131072 /* more than twice GRAMMAR_RULES_MAX */
static int named(struct reader *r, const char *name, size_t n)
{
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)name[i]) * 16777619u;
	for (h = (h ^ h >> 15) & (NAME_SLOTS - 1); r->names[h]; h = (h + 1) & (NAME_SLOTS - 1)) {
		const char *known = r->b->rules[r->names[h] - 1].name;
		if (strlen(known) == n && !memcmp(known, name, n))
			return r->names[h] - 1;
	}
	int rule = build_rule(r->b);
	if (r->b->failed)
		return 0;
	if (!(r->b->rules[rule].name = strndup(name, n)))
		wrong(r, "out of memory");
	else
		r->names[h] = rule + 1;
	return rule;
}

static uint32_t gbnf_char(struct reader *r)
{
	if (!accept(r, '\\'))
		return character(r);
	char c = more(r) ? *r->p++ : 0;
	switch (c) {
	case 'n': return '\n';
	case 't': return '\t';
	case 'r': return '\r';
	case 'x': return hex(r, 2);
	case 'u': return hex(r, 4);
	case 'U': return hex(r, 8);
	case '\\': case '"': case '[': case ']': case '-': case '^': return (uint32_t)c;
	default: wrong(r, "unknown escape"); return 0;
	}
}

static struct ast *gbnf_class(struct reader *r)
{
	struct charset set = {0};
	bool inverted = accept(r, '^');
	while (more(r) && *r->p != ']') {
		uint32_t lo = gbnf_char(r), hi = lo;
		if (at(r, '-') && r->p + 1 < r->end && r->p[1] != ']') {
			r->p++;
			hi = gbnf_char(r);
		}
		if (hi < lo)
			wrong(r, "a range of characters runs backwards");
		else
			charset_add(&set, lo, hi);
	}
	if (!accept(r, ']'))
		wrong(r, "'[' is not closed");
	if (inverted)
		charset_invert(&set);
	struct ast *x = ast_chars(r->b, &set, false);
	charset_free(&set);
	return x;
}

static struct ast *gbnf_literal(struct reader *r)
{
	struct ast *x = ast_empty(r->b);
	while (more(r) && *r->p != '"')
		x = ast_seq(r->b, x, one_char(r, gbnf_char(r)));
	if (!accept(r, '"'))
		return wrong(r, "a literal is not closed");
	return x;
}

static struct ast *gbnf_alternatives(struct reader *r, bool nested);

static struct ast *gbnf_item(struct reader *r)
{
	struct ast *x;
	if (accept(r, '"'))
		return gbnf_literal(r);
	if (accept(r, '['))
		return gbnf_class(r);
	if (accept(r, '.')) {
		struct charset all = {0};
		charset_add(&all, 0, 0x10ffff);
		x = ast_chars(r->b, &all, false);
		charset_free(&all);
		return x;
	}
	if (accept(r, '(')) {
		if (!enter(r))
			return ast_empty(r->b);
		space(r, true);
		x = gbnf_alternatives(r, true);
		r->nesting--;
		if (!accept(r, ')'))
			return wrong(r, "'(' is not closed");
		return x;
	}
	const char *name = r->p;
	while (more(r) && name_byte(*r->p))
		r->p++;
	if (r->p == name)
		return wrong(r, "expected a literal, a class, a group or the name of a rule");
	return ast_call(r->b, named(r, name, (size_t)(r->p - name)));
}

static struct ast *gbnf_repeats(struct reader *r, struct ast *x, bool nested)
{
	space(r, nested);
	for (;;) {
		int min, max;
		if (accept(r, '*'))
			x = ast_repeat(r->b, x, 0, -1);
		else if (accept(r, '+'))
			x = ast_repeat(r->b, x, 1, -1);
		else if (accept(r, '?'))
			x = ast_repeat(r->b, x, 0, 1);
		else if (accept(r, '{')) {
			if (!counts(r, &min, &max))
				return wrong(r, "expected {m}, {m,} or {m,n}");
			x = ast_repeat(r->b, x, min, max);
		} else
			return x;
		space(r, nested);
	}
}

static struct ast *gbnf_alternatives(struct reader *r, bool nested)
{
	struct ast *all = ast_never(r->b);
	do {
		struct ast *x = ast_empty(r->b);
		space(r, true);
		while (more(r) && *r->p != '|' && *r->p != ')' && *r->p != '\n' && *r->p != '\r')
			x = ast_seq(r->b, x, gbnf_repeats(r, gbnf_item(r), nested));
		all = ast_alt(r->b, all, x);
	} while (accept(r, '|'));
	return all;
}

static void gbnf_rule(struct reader *r)
{
	const char *name = r->p;
	while (more(r) && name_byte(*r->p))
		r->p++;
	int rule = r->p > name ? named(r, name, (size_t)(r->p - name)) : -1;
	space(r, false);
	if (rule < 0 || r->end - r->p < 3 || memcmp(r->p, "::=", 3)) {
		wrong(r, "expected 'name ::= …'");
		return;
	}
	if (!r->b->failed && r->b->rules[rule].body) {
		wrong(r, "a rule is defined twice");
		return;
	}
	r->p += 3;
	struct ast *x = gbnf_alternatives(r, false);
	if (r->b->failed)
		return;
	r->b->rules[rule].body = x;
	if (more(r) && *r->p != '\n' && *r->p != '\r')
		wrong(r, "unexpected text after a rule");
}

void grammar_parse_gbnf(struct build *b, const char *text, size_t n)
{
	struct reader r = {.b = b, .p = text, .begin = text, .end = text + n, .names = calloc(NAME_SLOTS, sizeof *r.names)};
	if (!r.names) {
		build_fail(b, "out of memory for a grammar");
		return;
	}
	named(&r, "root", 4);
	for (space(&r, true); more(&r); space(&r, true))
		gbnf_rule(&r);
	for (int i = 0; i < b->n_rules && !b->failed; i++)
		if (!b->rules[i].body)
			build_fail(b, i ? "the rule '%.60s' is used but not defined" : "the grammar has no rule '%.60s'", b->rules[i].name ? b->rules[i].name : "?");
	free(r.names);
}

/* ---- regular expressions ---- */

static void add_class(struct charset *to, char which)
{
	struct charset c = {0};
	if ((which | 32) == 'd') {
		charset_add(&c, '0', '9');
	} else if ((which | 32) == 'w') {
		charset_add(&c, '0', '9');
		charset_add(&c, 'A', 'Z');
		charset_add(&c, 'a', 'z');
		charset_add(&c, '_', '_');
	} else {
		static const uint32_t blank[][2] = {{9, 13}, {32, 32}, {0xa0, 0xa0}, {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
		for (size_t i = 0; i < sizeof blank / sizeof *blank; i++)
			charset_add(&c, blank[i][0], blank[i][1]);
	}
	if (which < 'a')
		charset_invert(&c);
	for (int i = 0; i < c.n; i++)
		charset_add(to, c.r[i][0], c.r[i][1]);
	charset_free(&c);
}

/* After "\": a class goes into `set` (true), else a character to *c. */
static bool regex_escape(struct reader *r, struct charset *set, uint32_t *c)
{
	char e = more(r) ? *r->p++ : 0;
	if (e && strchr("dDwWsS", e)) {
		add_class(set, e);
		return true;
	}
	static const char names[] = "n\nt\tr\rf\fv\v";
	for (const char *p = names; *p; p += 2)
		if (*p == e) {
			*c = (uint32_t)p[1];
			return false;
		}
	if (e == '0')
		*c = 0;
	else if (e == 'x')
		*c = hex(r, 2);
	else if (e == 'u' && accept(r, '{')) {
		*c = 0;
		for (int i = 0; more(r) && *r->p != '}' && i < 6; i++)
			*c = *c << 4 | hex(r, 1);
		if (!accept(r, '}') || *c > 0x10ffff)
			wrong(r, "expected \\u{…}");
	} else if (e == 'u')
		*c = hex(r, 4);
	else if (!e || (e >= '1' && e <= '9') || (e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z'))
		wrong(r, e >= '1' && e <= '9' ? "back references are not supported" : e == 'b' || e == 'B' ? "word boundaries are not supported" : e == 'p' || e == 'P' ? "\\p{…} is not supported" : "unknown escape");
	else
		*c = (unsigned char)e < 0x80 ? (uint32_t)e : (r->p--, character(r));
	return false;
}

static struct ast *regex_class(struct reader *r)
{
	struct charset set = {0};
	bool inverted = accept(r, '^'), first = true;
	for (; more(r) && (first || *r->p != ']'); first = false) {
		uint32_t lo = 0, hi;
		if (first && *r->p == ']') { /* [] is empty, [^] is everything, as in JavaScript */
			break;
		}
		if (accept(r, '\\')) {
			if (regex_escape(r, &set, &lo))
				continue;
		} else
			lo = character(r);
		hi = lo;
		if (at(r, '-') && r->p + 1 < r->end && r->p[1] != ']') {
			r->p++;
			bool class = false;
			if (accept(r, '\\'))
				class = regex_escape(r, &set, &hi);
			else
				hi = character(r);
			if (class || hi < lo)
				wrong(r, "a range of characters runs backwards");
		}
		charset_add(&set, lo, hi);
	}
	if (!accept(r, ']'))
		wrong(r, "'[' is not closed");
	if (inverted)
		charset_invert(&set);
	struct ast *x = ast_chars(r->b, &set, r->json);
	charset_free(&set);
	return x;
}

static struct ast *regex_alternatives(struct reader *r);

static struct ast *regex_group(struct reader *r)
{
	if (accept(r, '?')) {
		if (r->end - r->p >= 2 && *r->p == '<' && r->p[1] != '=' && r->p[1] != '!') { /* a name */
			while (more(r) && *r->p != '>')
				r->p++;
			if (!accept(r, '>'))
				return wrong(r, "a group's name is not closed");
		} else if (!accept(r, ':')) {
			return wrong(r, "lookahead and lookbehind are not supported");
		}
	}
	if (!enter(r))
		return ast_empty(r->b);
	struct ast *x = regex_alternatives(r);
	r->nesting--;
	return accept(r, ')') ? x : wrong(r, "'(' is not closed");
}

static struct ast *regex_item(struct reader *r)
{
	uint32_t c = 0;
	if (accept(r, '('))
		return regex_group(r);
	if (accept(r, '['))
		return regex_class(r);
	if (at(r, '^') || at(r, '$'))
		return wrong(r, "^ and $ are supported at the ends only");
	if (at(r, '*') || at(r, '+') || at(r, '?'))
		return wrong(r, "nothing to repeat");
	struct charset set = {0};
	struct ast *x = NULL;
	if (accept(r, '.')) {
		static const uint32_t ends[] = {'\n', '\r', 0x2028, 0x2029};
		for (int i = 0; i < 4; i++)
			charset_add(&set, ends[i], ends[i]);
		charset_invert(&set);
		x = ast_chars(r->b, &set, r->json);
	} else if (accept(r, '\\')) {
		if (regex_escape(r, &set, &c))
			x = ast_chars(r->b, &set, r->json);
	} else {
		c = character(r);
	}
	charset_free(&set);
	return x ? x : one_char(r, c);
}

/* One quantifier, if any; a brace that counts nothing is itself. */
static struct ast *regex_repeats(struct reader *r, struct ast *x)
{
	int min = 0, max = -1;
	const char *before = r->p;
	if (accept(r, '+'))
		min = 1;
	else if (accept(r, '?'))
		max = 1;
	else if (accept(r, '{')) {
		if (!counts(r, &min, &max)) {
			r->p = before;
			return x;
		}
	} else if (!accept(r, '*'))
		return x;
	accept(r, '?'); /* lazy: the same texts */
	before = r->p;
	int ignored;
	if (accept(r, '{')) {
		if (counts(r, &ignored, &ignored))
			return wrong(r, "nothing to repeat");
		r->p = before;
	}
	return ast_repeat(r->b, x, min, max);
}

static struct ast *regex_alternatives(struct reader *r)
{
	struct ast *all = ast_never(r->b);
	do {
		struct ast *x = ast_empty(r->b);
		while (more(r) && *r->p != '|' && *r->p != ')') {
			if (at(r, '{')) {
				r->p++;
				x = ast_seq(r->b, x, one_char(r, '{'));
				continue;
			}
			x = ast_seq(r->b, x, regex_repeats(r, regex_item(r)));
		}
		all = ast_alt(r->b, all, x);
	} while (accept(r, '|'));
	return all;
}

/* ^ at the begin and $ at the end of the whole expression, outside any alternative. */
struct ast *grammar_parse_regex(struct build *b, const char *text, size_t n, bool json, bool whole)
{
	struct reader r = {.b = b, .p = text, .begin = text, .end = text + n, .json = json};
	bool begins = accept(&r, '^'), ends = false;
	if (r.end > r.p && r.end[-1] == '$') {
		size_t slashes = 0;
		while (r.end - 1 - slashes > r.p && r.end[-2 - (ptrdiff_t)slashes] == '\\')
			slashes++;
		if (slashes % 2 == 0) {
			ends = true;
			r.end--;
		}
	}
	struct ast *x = regex_alternatives(&r);
	if (!b->failed && r.p < r.end)
		return wrong(&r, "')' without '('");
	if (!b->failed && (begins || ends) && x->kind == AST_ALT && !whole && memchr(text, '|', n) && !r.nesting) {
		/* ^a|b$ anchors each half alone; a top-level alternative is told from a class only by looking */
		int depth = 0;
		bool class = false;
		for (const char *p = r.begin; p < r.end; p++) {
			if (*p == '\\')
				p++;
			else if (*p == '[')
				class = true;
			else if (*p == ']')
				class = false;
			else if (!class && *p == '(')
				depth++;
			else if (!class && *p == ')')
				depth--;
			else if (!class && !depth && *p == '|')
				return wrong(&r, "^ or $ beside a top-level alternative: put the alternatives into a group");
		}
	}
	if (whole)
		return x;
	struct charset all = {0};
	charset_add(&all, 0, 0x10ffff);
	struct ast *any = begins && ends ? NULL : ast_repeat(b, ast_chars(b, &all, json), 0, -1);
	charset_free(&all);
	if (!begins)
		x = ast_seq(b, any, x);
	return ends ? x : ast_seq(b, x, any);
}
