/* JSON Schema to grammar. What is produced always validates; it may be stricter than the schema where freedom serves nobody: one
 * order of properties (the schema's), at most one space or one line break with its indentation between tokens, extra
 * properties only where additionalProperties asks for them or no property is named.
 *
 * Supported: type (also lists), enum, const, properties, required, additionalProperties, items, prefixItems, additionalItems, minItems, maxItems,
 * minLength, maxLength, pattern, format (date, time, date-time, uuid, email, ipv4, hostname, uri; others are annotations), minimum, maximum and their exclusive
 * forms with whole bounds, anyOf, oneOf (as anyOf), allOf, $ref within the document. What else would change the meaning is refused by name. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "infer/grammar_build.h"

struct reference {
	const json_t *node;
	int rule;
};
struct schema {
	struct build *b;
	json_t *root;
	int depth;
	int ws, string, value, number, integer; /* rules, -1 until needed */
	struct reference *refs;
	int n_refs, cap_refs;
	json_t **made;  /* merged schemas, kept until the end */
	int n_made, cap_made;
};

static struct ast *node_ast(struct schema *s, const json_t *j);

#define SEQ(...) sequence(s, (struct ast *const[]){__VA_ARGS__, NULL})
static struct ast *sequence(struct schema *s, struct ast *const *x)
{
	struct ast *all = ast_empty(s->b);
	for (; *x; x++)
		all = ast_seq(s->b, all, *x);
	return all;
}
static struct ast *text(struct schema *s, const char *t) { return ast_text(s->b, t, strlen(t)); }
static struct ast *optional(struct schema *s, struct ast *x) { return ast_repeat(s->b, x, 0, 1); }
static struct ast *regex(struct schema *s, const char *t) { return grammar_parse_regex(s->b, t, strlen(t), false, true); }

/* ---- JSON itself ---- */

static int new_rule(struct schema *s, int *slot, struct ast *body)
{
	int rule = build_rule(s->b);
	if (!s->b->failed) {
		s->b->rules[rule].body = body;
		*slot = rule;
	}
	return rule;
}

static struct ast *ws(struct schema *s)
{
	if (s->ws < 0)
		new_rule(s, &s->ws, regex(s, "( |\\n[ \\t]{0,64})?"));
	return ast_call(s->b, s->ws);
}

static struct ast *number(struct schema *s, bool whole)
{
	int *slot = whole ? &s->integer : &s->number;
	if (*slot < 0)
		new_rule(s, slot, regex(s, whole ? "-?(0|[1-9][0-9]{0,15})" : "-?(0|[1-9][0-9]{0,15})(\\.[0-9]{1,16})?([eE][-+]?[0-9]{1,3})?"));
	return ast_call(s->b, *slot);
}

/* Any string; its inside is one character of JSON repeated. */
static struct ast *any_string(struct schema *s)
{
	if (s->string < 0)
		new_rule(s, &s->string, SEQ(text(s, "\""), ast_repeat(s->b, regex(s, "[^\"\\\\\\x00-\\x1f]|\\\\([\"\\\\/bfnrt]|u[0-9a-fA-F]{4})"), 0, -1), text(s, "\"")));
	return ast_call(s->b, s->string);
}

static struct ast *pair_of(struct schema *s, struct ast *key, struct ast *value) { return SEQ(key, text(s, ":"), ws(s), value); }

/* x, x, x: at least min and at most max (< 0: any number), without brackets. */
static struct ast *list_of(struct schema *s, struct ast *x, int min, int max)
{
	if (max == 0)
		return ast_empty(s->b);
	struct ast *more = ast_repeat(s->b, SEQ(text(s, ","), ws(s), x), min > 0 ? min - 1 : 0, max < 0 ? -1 : max - 1), *all = ast_seq(s->b, x, more);
	return min > 0 ? all : optional(s, all);
}

static struct ast *any_value(struct schema *s)
{
	if (s->value >= 0)
		return ast_call(s->b, s->value);
	s->value = build_rule(s->b);
	if (s->b->failed)
		return ast_empty(s->b);
	struct ast *self = ast_call(s->b, s->value);
	struct ast *object = SEQ(text(s, "{"), ws(s), list_of(s, pair_of(s, any_string(s), self), 0, -1), ws(s), text(s, "}"));
	struct ast *array = SEQ(text(s, "["), ws(s), list_of(s, self, 0, -1), ws(s), text(s, "]"));
	struct ast *x = ast_alt(s->b, ast_alt(s->b, object, array), ast_alt(s->b, any_string(s), number(s, false)));
	x = ast_alt(s->b, x, regex(s, "true|false|null"));
	if (!s->b->failed)
		s->b->rules[s->value].body = x;
	return self;
}

/* The value as JSON text. */
static struct ast *literal(struct schema *s, const json_t *j)
{
	char *t = json_dumps(j, JSON_ENCODE_ANY);
	struct ast *x = t ? text(s, t) : build_fail(s->b, "schema: a constant cannot be written");
	free(t);
	return x;
}

/* ---- merging: allOf, and what stands beside anyOf ---- */

static json_t *keep(struct schema *s, json_t *j)
{
	if (s->n_made == s->cap_made) {
		int cap = s->cap_made ? 2 * s->cap_made : 16;
		json_t **p = realloc(s->made, (size_t)cap * sizeof *p);
		if (!p) {
			json_decref(j);
			build_fail(s->b, "out of memory for a schema");
			return NULL;
		}
		s->made = p;
		s->cap_made = cap;
	}
	return s->made[s->n_made++] = j;
}

static const json_t *resolve(struct schema *s, const char *ref)
{
	const json_t *at = s->root;
	if (*ref != '#' || (ref[1] && ref[1] != '/')) {
		build_fail(s->b, "schema: $ref '%.80s' is not within the document; nothing is fetched", ref);
		return NULL;
	}
	for (const char *p = ref + 1; *p == '/' && at;) {
		char key[512];
		size_t n = 0;
		for (p++; *p && *p != '/' && n < sizeof key - 1; p++) {
			char c = *p, hex[3] = {0};
			if (c == '~' && (p[1] == '0' || p[1] == '1'))
				c = *++p == '0' ? '~' : '/';
			else if (c == '%' && p[1] && p[2]) {
				memcpy(hex, p + 1, 2);
				c = (char)strtol(hex, NULL, 16);
				p += 2;
			}
			key[n++] = c;
		}
		key[n] = 0;
		at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(key, NULL, 10)) : json_object_get(at, key);
	}
	if (!at)
		build_fail(s->b, "schema: $ref '%.80s' leads nowhere", ref);
	return at;
}

static bool is_annotation(const char *key)
{
	static const char *const keys[] = {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$anchor", "contentEncoding", "contentMediaType"};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!strcmp(key, keys[i]))
			return true;
	return false;
}

static json_t *both(struct schema *s, const char *key, const json_t *x, const json_t *y);

/* A schema that holds what both do; a new reference. */
static json_t *merge(struct schema *s, const json_t *x, const json_t *y)
{
	const char *key;
	json_t *v, *out;
	if (json_is_true(x) || json_is_true(y))
		return json_incref((json_t *)(json_is_true(x) ? y : x));
	if (!json_is_object(x) || !json_is_object(y))
		return json_false();
	if (++s->depth > GRAMMAR_NESTING_MAX) {
		build_fail(s->b, "schema: nested deeper than %d", GRAMMAR_NESTING_MAX);
		s->depth--;
		return json_true();
	}
	const char *ref = stave_json_str(y, "$ref", NULL);
	if (ref) { /* what it leads to, and what stands beside it */
		json_t *rest = json_copy((json_t *)y);
		const json_t *target = resolve(s, ref);
		json_object_del(rest, "$ref");
		json_t *half = target ? merge(s, x, target) : json_true();
		out = merge(s, half, rest);
		json_decref(rest);
		json_decref(half);
	} else if (json_object_get(x, "$ref")) {
		out = merge(s, y, x);
	} else {
		out = json_copy((json_t *)x);
		json_object_foreach((json_t *)y, key, v) {
			const json_t *old = json_object_get(x, key);
			if (!old || is_annotation(key) || json_equal(old, v))
				json_object_set(out, key, v);
			else
				json_object_set_new(out, key, both(s, key, old, v));
		}
	}
	s->depth--;
	return out;
}

static json_t *both(struct schema *s, const char *key, const json_t *x, const json_t *y)
{
	const char *name;
	json_t *v, *out;
	size_t i;
	bool low = !strcmp(key, "minimum") || !strcmp(key, "exclusiveMinimum") || !strcmp(key, "minLength") || !strcmp(key, "minItems");
	bool high = !strcmp(key, "maximum") || !strcmp(key, "exclusiveMaximum") || !strcmp(key, "maxLength") || !strcmp(key, "maxItems");
	if ((low || high) && json_is_number(x) && json_is_number(y))
		return json_incref((json_t *)((json_number_value(x) > json_number_value(y)) == low ? x : y));
	if (!strcmp(key, "properties") && json_is_object(x) && json_is_object(y)) {
		out = json_copy((json_t *)x);
		json_object_foreach((json_t *)y, name, v) {
			const json_t *old = json_object_get(x, name);
			json_object_set_new(out, name, old ? merge(s, old, v) : json_incref(v));
		}
		return out;
	}
	if (!strcmp(key, "required") && json_is_array(x) && json_is_array(y)) {
		out = json_copy((json_t *)x);
		json_array_extend(out, (json_t *)y);
		return out;
	}
	if ((!strcmp(key, "enum") && json_is_array(x) && json_is_array(y))) {
		out = json_array();
		json_array_foreach((json_t *)x, i, v)
			for (size_t k = 0; k < json_array_size(y); k++)
				if (json_equal(v, json_array_get(y, k)))
					json_array_append(out, v);
		return out;
	}
	if (!strcmp(key, "items") || !strcmp(key, "additionalProperties"))
		return merge(s, x, y);
	build_fail(s->b, "schema: two different '%.40s' at one place cannot be combined", key);
	return json_true();
}

/* ---- strings ---- */

static struct ast *string(struct schema *s, const json_t *j)
{
	static const char *const formats[][2] = {
		{"date", "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"},
		{"time", "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"},
		{"date-time", "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"},
		{"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
		{"email", "[a-zA-Z0-9_%+-]+(\\.[a-zA-Z0-9_%+-]+)*@[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*(\\.[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*)+"},
		{"ipv4", "((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"},
		{"hostname", "[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*(\\.[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*)*"},
		{"uri", "[a-zA-Z][a-zA-Z0-9+.-]*:[a-zA-Z0-9/?#@!$&'()*+,;=:._~%-]+"},
	};
	const char *pattern = stave_json_str(j, "pattern", NULL), *format = stave_json_str(j, "format", NULL), *found = NULL;
	int64_t min, max;
	if (stave_json_int(j, "minLength", 0, 0, INT32_MAX, &min, "schema", s->b->err) || stave_json_int(j, "maxLength", -1, 0, INT32_MAX, &max, "schema", s->b->err)) {
		s->b->failed = true;
		return ast_empty(s->b);
	}
	for (size_t i = 0; format && i < sizeof formats / sizeof *formats; i++)
		if (!strcmp(format, formats[i][0]))
			found = formats[i][1];
	if ((pattern != NULL) + (found != NULL) + (min > 0 || max >= 0) > 1)
		return build_fail(s->b, "schema: only one of pattern, format and a length is supported for one string");
	if (pattern)
		return SEQ(text(s, "\""), grammar_parse_regex(s->b, pattern, strlen(pattern), true, false), text(s, "\""));
	if (found)
		return SEQ(text(s, "\""), regex(s, found), text(s, "\""));
	if (min == 0 && max < 0)
		return any_string(s);
	if (max > GRAMMAR_REPEAT_MAX) /* longer than any answer */
		max = -1;
	struct charset all = {0};
	charset_add(&all, 0, 0x10ffff);
	struct ast *x = ast_repeat(s->b, ast_chars(s->b, &all, true), (int)(min > GRAMMAR_REPEAT_MAX ? GRAMMAR_REPEAT_MAX + 1 : min), (int)max);
	charset_free(&all);
	return SEQ(text(s, "\""), x, text(s, "\""));
}

/* ---- numbers ---- */

/* Digits of lo..hi, both written with n digits. */
static struct ast *digits(struct schema *s, const char *lo, const char *hi, int n)
{
	if (!n)
		return ast_empty(s->b);
	struct ast *free_digits = ast_repeat(s->b, ast_byte(s->b, '0', '9'), n - 1, n - 1);
	if (lo[0] == hi[0])
		return ast_seq(s->b, ast_byte(s->b, lo[0], lo[0]), digits(s, lo + 1, hi + 1, n - 1));
	struct ast *x = ast_seq(s->b, ast_byte(s->b, lo[0], lo[0]), digits(s, lo + 1, "99999999999999999999", n - 1));
	x = ast_alt(s->b, x, ast_seq(s->b, ast_byte(s->b, hi[0], hi[0]), digits(s, "00000000000000000000", hi + 1, n - 1)));
	return hi[0] - lo[0] > 1 ? ast_alt(s->b, x, ast_seq(s->b, ast_byte(s->b, lo[0] + 1, hi[0] - 1), free_digits)) : x;
}

#define WHOLE_MAX 9999999999999999 /* 16 digits: what number() writes at most */

/* lo..hi >= 0, without leading zeros. */
static struct ast *natural(struct schema *s, int64_t lo, int64_t hi)
{
	struct ast *x = ast_never(s->b);
	for (int64_t from = lo, last = 9; from <= hi; last = last * 10 + 9) {
		char a[24], b[24];
		if (from > last)
			continue;
		int64_t to = hi < last ? hi : last;
		int n = snprintf(a, sizeof a, "%lld", (long long)from);
		snprintf(b, sizeof b, "%lld", (long long)to);
		x = ast_alt(s->b, x, digits(s, a, b, n));
		from = to + 1;
	}
	return x;
}

/* lo..hi with a fraction or not: the bounds themselves only without one, or (open) only with one, or not at all. */
static struct ast *decimal(struct schema *s, int64_t lo, int64_t hi, bool lo_open, bool hi_open)
{
	struct ast *x = ast_never(s->b);
	if (lo < hi) { /* lo.xxx: zero fraction only if lo itself is in */
		struct ast *tail = lo_open ? regex(s, "\\.0{0,15}[1-9][0-9]{0,15}") : regex(s, "(\\.[0-9]{1,16})?");
		x = ast_seq(s->b, natural(s, lo, lo), tail);
	}
	if (lo + 1 <= hi - 1)
		x = ast_alt(s->b, x, ast_seq(s->b, natural(s, lo + 1, hi - 1), regex(s, "(\\.[0-9]{1,16})?")));
	if (!hi_open && !(lo == hi && lo_open))
		x = ast_alt(s->b, x, ast_seq(s->b, natural(s, hi, hi), regex(s, "(\\.0{1,16})?")));
	return x;
}

/* A bound, closed or open; false: none. */
static bool bound(struct schema *s, const json_t *j, const char *key, const char *open_key, bool low, int64_t *v, bool *open)
{
	const json_t *closed = json_object_get(j, key), *exclusive = json_object_get(j, open_key);
	bool old = json_is_true(exclusive); /* draft 4: a flag beside the bound */
	double x = json_is_number(closed) ? json_number_value(closed) : low ? -INFINITY : INFINITY;
	*open = old && json_is_number(closed);
	if (json_is_number(exclusive)) {
		double e = json_number_value(exclusive);
		if (low ? e >= x : e <= x) {
			x = e;
			*open = true;
		}
	}
	if (isinf(x))
		return false;
	if (x != floor(x) || fabs(x) > WHOLE_MAX) {
		build_fail(s->b, "schema: the bound %g is not supported; whole numbers up to 16 digits are", x);
		return false;
	}
	*v = (int64_t)x;
	return true;
}

static struct ast *ranged(struct schema *s, const json_t *j, bool whole)
{
	int64_t lo = -WHOLE_MAX, hi = WHOLE_MAX;
	bool lo_open = false, hi_open = false;
	bool any = bound(s, j, "minimum", "exclusiveMinimum", true, &lo, &lo_open);
	any |= bound(s, j, "maximum", "exclusiveMaximum", false, &hi, &hi_open);
	if (!any)
		return number(s, whole);
	if (whole) {
		lo += lo_open;
		hi -= hi_open;
		lo_open = hi_open = false;
	}
	if (lo > hi)
		return ast_never(s->b);
	struct ast *x = ast_never(s->b);
	if (hi >= 0) {
		int64_t from = lo > 0 ? lo : 0;
		x = whole ? natural(s, from, hi) : decimal(s, from, hi, lo >= 0 && lo_open, hi_open);
	}
	if (lo < 0) { /* mirrored; -0 is written as 0 */
		int64_t to = hi < 0 ? -hi : whole ? 1 : 0;
		struct ast *y = whole ? natural(s, to, -lo) : decimal(s, to, -lo, hi >= 0 || hi_open, lo_open);
		x = ast_alt(s->b, x, ast_seq(s->b, text(s, "-"), y));
	}
	return x;
}

/* ---- arrays ---- */

/* A schema as a rule: it stands at several places of a grammar but is built once. */
static struct ast *as_rule(struct schema *s, const json_t *j)
{
	int rule = build_rule(s->b);
	struct ast *x = node_ast(s, j);
	if (s->b->failed || x->kind == AST_CALL || x->kind == AST_NEVER)
		return x;
	s->b->rules[rule].body = x;
	return ast_call(s->b, rule);
}

static struct ast *array(struct schema *s, const json_t *j)
{
	const json_t *items = json_object_get(j, "items"), *prefix = json_object_get(j, "prefixItems");
	int64_t min, max;
	if (stave_json_int(j, "minItems", 0, 0, INT32_MAX, &min, "schema", s->b->err) || stave_json_int(j, "maxItems", -1, 0, INT32_MAX, &max, "schema", s->b->err)) {
		s->b->failed = true;
		return ast_empty(s->b);
	}
	if (json_is_array(items)) { /* draft 7 */
		prefix = items;
		items = json_object_get(j, "additionalItems");
	}
	int64_t n = (int64_t)json_array_size(prefix);
	if (n > 1000)
		return build_fail(s->b, "schema: prefixItems holds %lld items; at most 1000 are supported", (long long)n);
	if (max > GRAMMAR_REPEAT_MAX)
		max = -1;
	if (min > GRAMMAR_REPEAT_MAX)
		return build_fail(s->b, "schema: minItems of %lld; at most %d are supported", (long long)min, GRAMMAR_REPEAT_MAX);
	struct ast *rest = items ? as_rule(s, items) : any_value(s), *x;
	if (rest->kind == AST_NEVER && (max < 0 || max > n))
		max = n;
	if (max >= 0 && max < n)
		n = max;
	if (!n) {
		x = max >= 0 && min > max ? ast_never(s->b) : list_of(s, rest, (int)min, (int)max);
	} else {
		struct ast *more = SEQ(text(s, ","), ws(s), rest);
		x = rest->kind == AST_NEVER ? ast_empty(s->b) : ast_repeat(s->b, more, (int)(min > n ? min - n : 0), (int)(max < 0 ? -1 : max - n));
		for (int64_t i = n - 1; i >= 0; i--) {
			struct ast *item = as_rule(s, json_array_get(prefix, (size_t)i));
			x = i ? SEQ(text(s, ","), ws(s), item, x) : ast_seq(s->b, item, x);
			if (i >= min)
				x = optional(s, x);
		}
	}
	return SEQ(text(s, "["), ws(s), x, ws(s), text(s, "]"));
}

/* ---- objects ---- */

struct property {
	const char *name;
	const json_t *schema;
	bool required;
};

/* Strings other than the n sorted names, which share their first `at` bytes: the way parts from all of them at some character. */
static struct ast *other_than(struct schema *s, const char *const *names, int n, size_t at)
{
	struct charset first = {0}, all = {0};
	struct ast *x = ast_empty(s->b);
	bool ends = n && !names[0][at];
	charset_add(&all, 0, 0x10ffff);
	for (int i = ends; i < n && !s->b->failed;) {
		unsigned char c = (unsigned char)names[i][at];
		size_t len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
		uint32_t u = len == 1 ? c : len == 2 ? c & 31 : len == 3 ? c & 15 : c & 7;
		int k = i + 1;
		for (size_t b = 1; b < len; b++)
			u = u << 6 | ((unsigned char)names[i][at + b] & 63);
		while (k < n && !memcmp(names[k] + at, names[i] + at, len))
			k++;
		charset_add(&first, u, u);
		struct charset one = {0};
		charset_add(&one, u, u);
		struct ast *way = ast_seq(s->b, ast_chars(s->b, &one, true), other_than(s, names + i, k - i, at + len));
		charset_free(&one);
		x = x->kind == AST_EMPTY ? way : ast_alt(s->b, x, way);
		i = k;
	}
	charset_invert(&first);
	struct ast *away = ast_seq(s->b, ast_chars(s->b, &first, true), ast_repeat(s->b, ast_chars(s->b, &all, true), 0, -1));
	x = x->kind == AST_EMPTY ? away : ast_alt(s->b, x, away);
	charset_free(&first);
	charset_free(&all);
	return ends ? x : optional(s, x);
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static struct ast *other_key(struct schema *s, const struct property *p, int n)
{
	const char **names = malloc(((size_t)n + 1) * sizeof *names);
	if (!names)
		return build_fail(s->b, "out of memory for a schema");
	for (int i = 0; i < n; i++) {
		names[i] = p[i].name;
		if (strlen(names[i]) > 150)
			build_fail(s->b, "schema: a property's name of more than 150 bytes beside additionalProperties");
	}
	qsort(names, (size_t)n, sizeof *names, by_name);
	struct ast *x = s->b->failed ? ast_empty(s->b) : SEQ(text(s, "\""), other_than(s, names, n, 0), text(s, "\""));
	free(names);
	return x;
}

/* Properties i .. n-1 and the extra ones, as rules: one for "nothing is written yet", one for "a comma is due". From the last to the first. */
static struct ast *members(struct schema *s, const struct property *p, int n, struct ast *extra)
{
	struct ast *after[2]; /* what follows, by whether a comma is due */
	after[0] = extra ? list_of(s, extra, 0, -1) : ast_empty(s->b);
	after[1] = extra ? ast_repeat(s->b, SEQ(text(s, ","), ws(s), extra), 0, -1) : ast_empty(s->b);
	for (int i = n - 1; i >= 0 && !s->b->failed; i--) {
		json_t *key = json_string(p[i].name);
		struct ast *value = as_rule(s, p[i].schema), *pair = pair_of(s, literal(s, key), value), *now[2];
		json_decref(key);
		for (int comma = 0; comma < 2; comma++) {
			struct ast *taken = comma ? SEQ(text(s, ","), ws(s), pair, after[1]) : ast_seq(s->b, pair, after[1]);
			if (value->kind == AST_NEVER)
				taken = value;
			int rule = build_rule(s->b);
			now[comma] = p[i].required ? taken : ast_alt(s->b, taken, after[comma]);
			if (s->b->failed || now[comma]->kind == AST_NEVER)
				continue;
			s->b->rules[rule].body = now[comma];
			now[comma] = ast_call(s->b, rule);
		}
		after[0] = now[0];
		after[1] = now[1];
	}
	return after[0];
}

static bool lists(const json_t *required, const char *name)
{
	for (size_t i = 0; i < json_array_size(required); i++) {
		const char *r = json_string_value(json_array_get(required, i));
		if (r && !strcmp(r, name))
			return true;
	}
	return false;
}

static struct ast *object(struct schema *s, const json_t *j)
{
	json_t *properties = json_object_get(j, "properties"), *required = json_object_get(j, "required"), *more = json_object_get(j, "additionalProperties"), *v;
	const char *name;
	int n = 0;
	size_t i;
	if ((properties && !json_is_object(properties)) || (required && !json_is_array(required)))
		return build_fail(s->b, "schema: properties must be an object and required a list");
	struct property *p = malloc((json_object_size(properties) + json_array_size(required) + 1) * sizeof *p);
	if (!p)
		return build_fail(s->b, "out of memory for a schema");
	json_object_foreach(properties, name, v)
		p[n++] = (struct property){name, v, lists(required, name)};
	bool closed = json_is_false(more);
	json_array_foreach(required, i, v) { /* required but not described */
		bool known = !json_is_string(v);
		for (int k = 0; k < n && !known; k++)
			known = !strcmp(p[k].name, json_string_value(v));
		if (!known)
			p[n++] = (struct property){json_string_value(v), more ? more : keep(s, json_true()), true};
	}
	struct ast *extra = NULL;
	if (!closed && (more || !n)) {
		struct ast *value = more && !json_is_true(more) ? as_rule(s, more) : any_value(s);
		if (value->kind != AST_NEVER)
			extra = pair_of(s, n ? other_key(s, p, n) : any_string(s), value);
	}
	struct ast *x = SEQ(text(s, "{"), ws(s), members(s, p, n, extra), ws(s), text(s, "}"));
	free(p);
	return x;
}

/* ---- any schema ---- */

static struct ast *of_type(struct schema *s, const json_t *j, const char *type)
{
	if (!strcmp(type, "object"))
		return object(s, j);
	if (!strcmp(type, "array"))
		return array(s, j);
	if (!strcmp(type, "string"))
		return string(s, j);
	if (!strcmp(type, "integer") || !strcmp(type, "number"))
		return ranged(s, j, *type == 'i');
	if (!strcmp(type, "boolean"))
		return regex(s, "true|false");
	if (!strcmp(type, "null"))
		return text(s, "null");
	return build_fail(s->b, "schema: unknown type '%.40s'", type);
}

static bool has_type(const json_t *v, const char *type)
{
	if (!strcmp(type, "integer"))
		return json_is_integer(v) || (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
	return !strcmp(type, "object") ? json_is_object(v) : !strcmp(type, "array") ? json_is_array(v) : !strcmp(type, "string") ? json_is_string(v) :
	       !strcmp(type, "number") ? json_is_number(v) : !strcmp(type, "boolean") ? json_is_boolean(v) : json_is_null(v);
}

static bool may_be(const json_t *types, const json_t *v)
{
	if (json_is_string(types))
		return has_type(v, json_string_value(types));
	bool any = !types;
	for (size_t i = 0; i < json_array_size(types); i++)
		any |= json_is_string(json_array_get(types, i)) && has_type(v, json_string_value(json_array_get(types, i)));
	return any;
}

static struct ast *one_of_values(struct schema *s, const json_t *j)
{
	const json_t *constant = json_object_get(j, "const"), *list = json_object_get(j, "enum"), *types = json_object_get(j, "type");
	struct ast *x = ast_never(s->b);
	json_t *v;
	size_t i;
	if (constant)
		return may_be(types, constant) ? literal(s, constant) : x;
	json_array_foreach((json_t *)list, i, v)
		if (may_be(types, v))
			x = ast_alt(s->b, x, literal(s, v));
	return x;
}

static struct ast *alternatives(struct schema *s, const json_t *j, const char *key)
{
	const json_t *list = json_object_get(j, key);
	json_t *rest = json_copy((json_t *)j), *v;
	struct ast *x = ast_never(s->b);
	size_t i;
	bool alone = true;
	const char *name;
	json_object_del(rest, key);
	json_object_foreach(rest, name, v)
		alone &= is_annotation(name);
	json_array_foreach((json_t *)list, i, v) {
		json_t *one = alone ? v : keep(s, merge(s, rest, v));
		if (s->b->failed || !one)
			break;
		x = ast_alt(s->b, x, node_ast(s, one));
	}
	json_decref(rest);
	return x;
}

static struct ast *all_of(struct schema *s, const json_t *j)
{
	json_t *list = json_object_get(j, "allOf"), *out = json_copy((json_t *)j), *v;
	size_t i;
	json_object_del(out, "allOf");
	json_array_foreach(list, i, v) {
		json_t *next = merge(s, out, v);
		json_decref(out);
		out = next;
	}
	return keep(s, out) ? node_ast(s, out) : ast_empty(s->b);
}

static struct ast *reference(struct schema *s, const json_t *j, const char *ref)
{
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)j, key, v)
		if (strcmp(key, "$ref") && !is_annotation(key)) {
			json_t *merged = keep(s, merge(s, json_true(), j)), *both_sides = merged ? keep(s, merge(s, json_object(), j)) : NULL;
			return both_sides && !json_object_get(both_sides, "$ref") ? node_ast(s, both_sides) : build_fail(s->b, "schema: $ref beside '%.40s' is not supported", key);
		}
	const json_t *target = resolve(s, ref);
	for (int i = 0; target && i < s->n_refs; i++)
		if (s->refs[i].node == target)
			return ast_call(s->b, s->refs[i].rule);
	int rule = target ? build_rule(s->b) : 0;
	if (s->n_refs == s->cap_refs) {
		int cap = s->cap_refs ? 2 * s->cap_refs : 32;
		struct reference *p = realloc(s->refs, (size_t)cap * sizeof *p);
		if (!p)
			return build_fail(s->b, "out of memory for a schema");
		s->refs = p;
		s->cap_refs = cap;
	}
	if (s->b->failed)
		return ast_empty(s->b);
	s->refs[s->n_refs++] = (struct reference){target, rule}; /* known before its body: it may refer to itself */
	struct ast *x = node_ast(s, target);
	if (!s->b->failed)
		s->b->rules[rule].body = x;
	return ast_call(s->b, rule);
}

static void refuse_unsupported(struct schema *s, const json_t *j)
{
	static const char *const keys[] = {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "contains", "minContains", "maxContains",
	                                   "unevaluatedProperties", "unevaluatedItems", "propertyNames", "patternProperties", "multipleOf", "minProperties", "maxProperties", "$dynamicRef", "$recursiveRef"};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (json_object_get(j, keys[i]))
			build_fail(s->b, "schema: '%s' is not supported", keys[i]);
	if (json_is_true(json_object_get(j, "uniqueItems")))
		build_fail(s->b, "schema: 'uniqueItems' is not supported");
}

static bool any_of(const json_t *j, const char *const *keys)
{
	for (; *keys; keys++)
		if (json_object_get(j, *keys))
			return true;
	return false;
}

static struct ast *node_inside(struct schema *s, const json_t *j)
{
	static const char *const of_object[] = {"properties", "required", "additionalProperties", NULL}, *const of_array[] = {"items", "prefixItems", "minItems", "maxItems", NULL};
	static const char *const of_string[] = {"pattern", "minLength", "maxLength", "format", NULL}, *const of_number[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", NULL};
	if (json_is_boolean(j))
		return json_is_true(j) ? any_value(s) : ast_never(s->b);
	if (!json_is_object(j))
		return build_fail(s->b, "schema: expected an object or a boolean");
	refuse_unsupported(s, j);
	const char *ref = stave_json_str(j, "$ref", NULL);
	const json_t *type = json_object_get(j, "type");
	if (ref)
		return reference(s, j, ref);
	if (json_object_get(j, "allOf"))
		return all_of(s, j);
	if (json_object_get(j, "anyOf"))
		return alternatives(s, j, "anyOf");
	if (json_object_get(j, "oneOf"))
		return alternatives(s, j, "oneOf");
	if (json_object_get(j, "const") || json_object_get(j, "enum"))
		return one_of_values(s, j);
	if (json_is_string(type))
		return of_type(s, j, json_string_value(type));
	if (json_is_array(type)) {
		struct ast *x = ast_never(s->b);
		for (size_t i = 0; i < json_array_size(type); i++) {
			const char *t = json_string_value(json_array_get(type, i));
			x = ast_alt(s->b, x, of_type(s, j, t ? t : "?"));
		}
		return x;
	}
	return any_of(j, of_object) ? object(s, j) : any_of(j, of_array) ? array(s, j) : any_of(j, of_string) ? string(s, j) : any_of(j, of_number) ? ranged(s, j, false) : any_value(s);
}

static struct ast *node_ast(struct schema *s, const json_t *j)
{
	if (s->b->failed)
		return ast_empty(s->b);
	if (++s->depth > GRAMMAR_NESTING_MAX) {
		s->depth--;
		return build_fail(s->b, "schema: nested deeper than %d", GRAMMAR_NESTING_MAX);
	}
	struct ast *x = node_inside(s, j);
	s->depth--;
	return x;
}

void grammar_parse_schema(struct build *b, const char *source, size_t n)
{
	struct schema s = {.b = b, .ws = -1, .string = -1, .value = -1, .number = -1, .integer = -1};
	struct stave_err err = {0};
	int root = build_rule(b);
	if (stave_json_parse(&s.root, source, n, "JSON schema", &err)) {
		build_fail(b, "%s", err.msg);
		return;
	}
	struct ast *x = node_ast(&s, s.root);
	if (!b->failed)
		b->rules[root].body = x;
	for (int i = 0; i < s.n_made; i++)
		json_decref(s.made[i]);
	free(s.made);
	free(s.refs);
	json_decref(s.root);
}
