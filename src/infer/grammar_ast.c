/* The tree's nodes, sets of characters, and characters as bytes. Memory is a chain of blocks freed together; a failure is
 * remembered and what follows is harmless, so that the front ends read as grammars do. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_build.h"

#define BLOCK_NODES 1024
struct ast_block {
	struct ast_block *next;
	int used;
	struct ast nodes[BLOCK_NODES];
};

struct ast *build_fail(struct build *b, const char *fmt, ...)
{
	if (!b->failed) {
		char text[400];
		va_list args;
		va_start(args, fmt);
		vsnprintf(text, sizeof text, fmt, args);
		va_end(args);
		stave_err_set(b->err, STAVE_EUSAGE, "%s", text);
		b->failed = true;
	}
	static struct ast empty = {.kind = AST_EMPTY};
	return &empty;
}

static struct ast *node(struct build *b, struct ast value)
{
	if (b->failed || ++b->nodes > GRAMMAR_NODES_MAX)
		return build_fail(b, "the grammar has more than %d parts", GRAMMAR_NODES_MAX);
	if (!b->blocks || b->blocks->used == BLOCK_NODES) {
		struct ast_block *block = malloc(sizeof *block);
		if (!block)
			return build_fail(b, "out of memory for a grammar");
		block->next = b->blocks;
		block->used = 0;
		b->blocks = block;
	}
	struct ast *n = &b->blocks->nodes[b->blocks->used++];
	*n = value;
	return n;
}

void build_free(struct build *b)
{
	while (b->blocks) {
		struct ast_block *next = b->blocks->next;
		free(b->blocks);
		b->blocks = next;
	}
	for (int i = 0; i < b->n_rules; i++)
		free(b->rules[i].name);
	free(b->rules);
}

int build_rule(struct build *b)
{
	if (b->n_rules >= GRAMMAR_RULES_MAX) {
		build_fail(b, "the grammar has more than %d rules", GRAMMAR_RULES_MAX);
		return 0;
	}
	if (b->n_rules == b->cap_rules) {
		int cap = b->cap_rules ? 2 * b->cap_rules : 64;
		struct build_rule *p = realloc(b->rules, (size_t)cap * sizeof *p);
		if (!p) {
			build_fail(b, "out of memory for a grammar");
			return 0;
		}
		b->rules = p;
		b->cap_rules = cap;
	}
	b->rules[b->n_rules] = (struct build_rule){.closed_by = -1};
	return b->n_rules++;
}

struct ast *ast_empty(struct build *b) { return node(b, (struct ast){.kind = AST_EMPTY}); }
struct ast *ast_never(struct build *b) { return node(b, (struct ast){.kind = AST_NEVER}); }
struct ast *ast_byte(struct build *b, int lo, int hi) { return node(b, (struct ast){.kind = AST_BYTES, .lo = (uint8_t)lo, .hi = (uint8_t)hi}); }
struct ast *ast_call(struct build *b, int rule) { return node(b, (struct ast){.kind = AST_CALL, .rule = rule}); }

struct ast *ast_seq(struct build *b, struct ast *x, struct ast *y)
{
	if (x->kind == AST_EMPTY || y->kind == AST_NEVER)
		return y;
	if (y->kind == AST_EMPTY || x->kind == AST_NEVER)
		return x;
	return node(b, (struct ast){.kind = AST_SEQ, .a = x, .b = y});
}

struct ast *ast_alt(struct build *b, struct ast *x, struct ast *y)
{
	if (x->kind == AST_NEVER)
		return y;
	if (y->kind == AST_NEVER)
		return x;
	return node(b, (struct ast){.kind = AST_ALT, .a = x, .b = y});
}

/* Balanced, so that a long text is no deep tree. */
struct ast *ast_text(struct build *b, const char *s, size_t n)
{
	if (!n)
		return ast_empty(b);
	if (n == 1)
		return ast_byte(b, (uint8_t)*s, (uint8_t)*s);
	return ast_seq(b, ast_text(b, s, n / 2), ast_text(b, s + n / 2, n - n / 2));
}

static struct ast *chain_of(struct build *b, struct ast *many, int closed_by)
{
	int rule = build_rule(b);
	if (b->failed)
		return many;
	b->rules[rule].body = many;
	b->rules[rule].chain = true;
	b->rules[rule].closed_by = closed_by;
	return ast_call(b, rule);
}

/* A long bounded repetition is a rule of its own, which is counted. */
struct ast *ast_repeat(struct build *b, struct ast *x, int min, int max)
{
	if (min > GRAMMAR_REPEAT_MAX || max > GRAMMAR_REPEAT_MAX)
		return build_fail(b, "a repetition of %d; at most %d are supported", min > max ? min : max, GRAMMAR_REPEAT_MAX);
	if (max >= 0 && min > max)
		return build_fail(b, "a repetition of at least %d and at most %d", min, max);
	if (max == 0 || x->kind == AST_EMPTY)
		return ast_empty(b);
	if (x->kind == AST_NEVER)
		return min ? x : ast_empty(b);
	if (min == 1 && max == 1)
		return x;
	struct ast *n = node(b, (struct ast){.kind = AST_REPEAT, .min = min, .max = max, .a = x});
	if (min <= GRAMMAR_INLINE_REPEAT && max <= GRAMMAR_INLINE_REPEAT)
		return n;
	return chain_of(b, n, -1);
}

struct ast *ast_closed(struct build *b, struct ast *x, int byte, bool always)
{
	struct ast *last = x->kind == AST_SEQ && !x->one ? x->b : x, *many = last;
	if (last->kind == AST_CALL && b->rules[last->rule].chain && b->rules[last->rule].closed_by < 0)
		many = b->rules[last->rule].body;
	if (b->failed || many->kind != AST_REPEAT || (many == last && many->max <= 1 && !always))
		return ast_seq(b, x, ast_byte(b, byte, byte));
	struct ast *closed = chain_of(b, many, byte);
	return last == x ? closed : ast_seq(b, x->a, closed);
}

/* ---- sets of characters ---- */

static int by_low(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;
	return (x[0] > y[0]) - (x[0] < y[0]);
}

void charset_add(struct charset *c, uint32_t lo, uint32_t hi)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 16;
		c->r = realloc(c->r, (size_t)c->cap * sizeof *c->r);
		if (!c->r)
			abort();
	}
	c->r[c->n][0] = lo;
	c->r[c->n++][1] = hi;
}

static void normalize(struct charset *c)
{
	int n = 0;
	if (c->n)
		qsort(c->r, (size_t)c->n, sizeof *c->r, by_low);
	for (int i = 0; i < c->n; i++) {
		if (n && c->r[i][0] <= c->r[n - 1][1] + 1) {
			if (c->r[i][1] > c->r[n - 1][1])
				c->r[n - 1][1] = c->r[i][1];
			continue;
		}
		c->r[n][0] = c->r[i][0];
		c->r[n++][1] = c->r[i][1];
	}
	c->n = n;
}

void charset_invert(struct charset *c)
{
	struct charset out = {0};
	uint32_t next = 0;
	normalize(c);
	for (int i = 0; i < c->n; i++) {
		if (c->r[i][0] > next)
			charset_add(&out, next, c->r[i][0] - 1);
		next = c->r[i][1] + 1;
	}
	if (next <= 0x10ffff)
		charset_add(&out, next, 0x10ffff);
	free(c->r);
	*c = out;
}

void charset_free(struct charset *c)
{
	free(c->r);
	*c = (struct charset){0};
}

/* ---- characters as bytes ---- */

static int utf8(uint32_t c, uint8_t to[4])
{
	if (c < 0x80) {
		to[0] = (uint8_t)c;
		return 1;
	}
	int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (int i = n - 1; i > 0; i--, c >>= 6)
		to[i] = (uint8_t)(0x80 | (c & 63));
	to[0] = (uint8_t)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c);
	return n;
}

/* Sequences of the same length between lo and hi: split where a byte's range is not whole. */
static struct ast *span(struct build *b, const uint8_t *lo, const uint8_t *hi, int n)
{
	static const uint8_t least[3] = {0x80, 0x80, 0x80}, most[3] = {0xbf, 0xbf, 0xbf};
	if (n == 1)
		return ast_byte(b, lo[0], hi[0]);
	if (lo[0] == hi[0])
		return ast_seq(b, ast_byte(b, lo[0], lo[0]), span(b, lo + 1, hi + 1, n - 1));
	struct ast *out = ast_never(b);
	int from = lo[0], to = hi[0];
	if (memcmp(lo + 1, least, (size_t)n - 1)) {
		out = ast_seq(b, ast_byte(b, from, from), span(b, lo + 1, most, n - 1));
		from++;
	}
	if (memcmp(hi + 1, most, (size_t)n - 1)) {
		out = ast_alt(b, out, ast_seq(b, ast_byte(b, to, to), span(b, least, hi + 1, n - 1)));
		to--;
	}
	if (from <= to)
		out = ast_alt(b, out, ast_seq(b, ast_byte(b, from, to), span(b, least, most, n - 1)));
	return out;
}

static struct ast *range(struct build *b, uint32_t lo, uint32_t hi)
{
	static const uint32_t end[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff, 0x10ffff};
	struct ast *out = ast_never(b);
	for (size_t i = 0; i < sizeof end / sizeof *end && lo <= hi; i++) {
		uint8_t from[4], to[4];
		uint32_t last = hi < end[i] ? hi : end[i];
		if (lo > end[i])
			continue;
		if (end[i] != 0xdfff) { /* surrogates are no characters */
			int n = utf8(lo, from);
			utf8(last, to);
			out = ast_alt(b, out, span(b, from, to, n));
		}
		lo = last + 1;
	}
	return out;
}

/* Inside a JSON string a control character is \b \t \n \f \r, or \u00XX in lower case. */
static struct ast *escaped(struct build *b, uint32_t c)
{
	static const char named[] = "\bb\tt\nn\ff\rr\"\"\\\\";
	char text[8];
	for (const char *p = named; *p; p += 2)
		if ((uint32_t)*p == c)
			return ast_text(b, (char[]){'\\', p[1]}, 2);
	snprintf(text, sizeof text, "\\u%04x", c);
	return ast_text(b, text, 6);
}

static bool needs_escape(uint32_t c) { return c < 32 || c == '"' || c == '\\'; }

struct ast *ast_chars(struct build *b, const struct charset *set, bool json)
{
	struct charset c = {0};
	struct ast *out = ast_never(b);
	for (int i = 0; i < set->n; i++)
		charset_add(&c, set->r[i][0], set->r[i][1]);
	normalize(&c);
	for (int i = 0; i < c.n; i++) {
		uint32_t lo = c.r[i][0], hi = c.r[i][1];
		for (uint32_t k = lo; json && k <= hi && k <= '\\'; k++)
			if (needs_escape(k)) {
				out = ast_alt(b, out, escaped(b, k));
				if (k > lo)
					out = ast_alt(b, out, range(b, lo, k - 1));
				lo = k + 1;
			}
		if (lo <= hi)
			out = ast_alt(b, out, range(b, lo, hi));
	}
	charset_free(&c);
	if (out->kind != AST_EMPTY && out->kind != AST_NEVER)
		out->one = true;
	return out;
}

/* Characters of the texts of x, at least and at most (LENGTH_MAX: any number). Sequences lean to the left. */
#define LENGTH_MAX 1000000000
static void lengths(struct build *b, const struct ast *x, int64_t *min, int64_t *max)
{
	int64_t lo = 0, hi = 0, l, h;
	for (; x->kind == AST_SEQ && !x->one; x = x->a) {
		lengths(b, x->b, &l, &h);
		lo += l;
		hi += h;
	}
	l = h = 0;
	if (x->one) {
		l = h = 1;
	} else if (x->kind == AST_ALT) {
		for (l = LENGTH_MAX; x; x = x->kind == AST_ALT && !x->one ? x->a : NULL) {
			int64_t one_min, one_max;
			lengths(b, x->kind == AST_ALT && !x->one ? x->b : x, &one_min, &one_max);
			l = one_min < l ? one_min : l;
			h = one_max > h ? one_max : h;
		}
	} else if (x->kind == AST_CALL && b->rules[x->rule].chain) {
		lengths(b, b->rules[x->rule].body, &l, &h);
	} else if (x->kind == AST_REPEAT) {
		lengths(b, x->a, &l, &h);
		l *= x->min;
		h = x->max < 0 ? (h ? LENGTH_MAX : 0) : h * x->max;
	} else if (x->kind != AST_EMPTY) {
		h = LENGTH_MAX; /* a call, bytes: not known */
	}
	*min = lo + l < LENGTH_MAX ? lo + l : LENGTH_MAX;
	*max = hi + h < LENGTH_MAX ? hi + h : LENGTH_MAX;
}

/* A repetition of one character that is all of x, or NULL. */
static struct ast *repeated_char(struct build *b, struct ast *x)
{
	int64_t lo, hi;
	if (x->kind == AST_CALL && b->rules[x->rule].chain)
		x = b->rules[x->rule].body;
	if (x->kind != AST_REPEAT)
		return NULL;
	lengths(b, x->a, &lo, &hi);
	return lo == 1 && hi == 1 ? x : NULL;
}

struct ast *ast_of_length(struct build *b, struct ast *x, int min, int max)
{
	int64_t lo, hi;
	const struct ast *many = repeated_char(b, x);
	if (b->failed)
		return x;
	if (many) {
		int from = many->min > min ? many->min : min, to = many->max < 0 || (max >= 0 && max < many->max) ? max : many->max;
		return to >= 0 && from > to ? ast_never(b) : ast_repeat(b, many->a, from, to);
	}
	lengths(b, x, &lo, &hi);
	if (lo >= min && (max < 0 || hi <= max))
		return x;
	if (hi < min || (max >= 0 && lo > max))
		return ast_never(b);
	return NULL;
}
