/* What JSON is made of, as grammars: space between tokens, strings, values of any kind, constants; and the keywords of a schema that
 * speak of one string, number or constant. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "infer/grammar_schema.h"

struct ast *schema_sequence(struct schema *s, struct ast *const *x)
{
	struct ast *all = ast_empty(s->b);
	for (; *x; x++)
		all = ast_seq(s->b, all, *x);
	return all;
}
struct ast *schema_text(struct schema *s, const char *t) { return ast_text(s->b, t, strlen(t)); }
struct ast *schema_optional(struct schema *s, struct ast *x) { return ast_repeat(s->b, x, 0, 1); }
static struct ast *regex(struct schema *s, const char *t) { return grammar_parse_regex(s->b, t, strlen(t), false, true); }

/* ---- JSON itself ---- */

static void new_rule(struct schema *s, int *slot, struct ast *body)
{
	int rule = build_rule(s->b);
	if (!s->b->failed) {
		s->b->rules[rule].body = body;
		*slot = rule;
	}
}

struct ast *schema_ws(struct schema *s)
{
	if (s->ws < 0)
		new_rule(s, &s->ws, regex(s, "( |\\n[ \\t]*)?"));
	return ast_call(s->b, s->ws);
}

/* A character inside a string; a surrogate stands only in a pair. */
static struct ast *string_char(struct schema *s)
{
	return regex(s, "[^\"\\\\\\x00-\\x1f]|\\\\([\"\\\\/bfnrt]|u([0-9a-ce-fA-CE-F][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2}|u[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2})");
}

/* Between quotes, of min..max characters. */
static struct ast *string_of(struct schema *s, int64_t min, int64_t max)
{
	if (max >= 0 && min > max)
		return ast_never(s->b);
	return ast_seq(s->b, schema_text(s, "\""), ast_closed(s->b, ast_repeat(s->b, string_char(s), (int)min, (int)max), '"', true));
}

struct ast *schema_any_string(struct schema *s)
{
	if (s->string < 0)
		new_rule(s, &s->string, string_of(s, 0, -1));
	return ast_call(s->b, s->string);
}

struct ast *schema_pair(struct schema *s, struct ast *key, struct ast *value) { return SEQ(key, schema_text(s, ":"), schema_ws(s), value); }

struct ast *schema_list(struct schema *s, struct ast *x, int min, int max)
{
	if (max == 0 || x->kind == AST_NEVER)
		return min > 0 ? ast_never(s->b) : ast_empty(s->b);
	struct ast *more = ast_repeat(s->b, SEQ(schema_text(s, ","), schema_ws(s), x), min > 0 ? min - 1 : 0, max < 0 ? -1 : max - 1);
	struct ast *all = ast_seq(s->b, x, more);
	return min > 0 ? all : schema_optional(s, all);
}

struct ast *schema_any_value(struct schema *s)
{
	if (s->value >= 0)
		return ast_call(s->b, s->value);
	s->value = build_rule(s->b);
	if (s->b->failed)
		return ast_empty(s->b);
	struct ast *self = ast_call(s->b, s->value);
	struct ast *object = SEQ(schema_text(s, "{"), schema_ws(s), schema_list(s, schema_pair(s, schema_any_string(s), self), 0, -1), schema_ws(s), schema_text(s, "}"));
	struct ast *array = SEQ(schema_text(s, "["), schema_ws(s), schema_list(s, self, 0, -1), schema_ws(s), schema_text(s, "]"));
	struct ast *x = ast_alt(s->b, ast_alt(s->b, object, array), ast_alt(s->b, schema_any_string(s), schema_number(s, NULL, false)));
	x = ast_alt(s->b, x, regex(s, "true|false|null"));
	if (!s->b->failed)
		s->b->rules[s->value].body = x;
	return self;
}

/* ---- constants ---- */

/* A number or a string; of the ways to write a number the shortest that reads back the same. */
static struct ast *scalar(struct schema *s, const json_t *j)
{
	char *t = NULL;
	for (int digits = 15; digits <= 17 && !t; digits++) {
		t = json_dumps(j, JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
		if (t && json_is_real(j) && strtod(t, NULL) != json_real_value(j)) {
			free(t);
			t = NULL;
		}
	}
	struct ast *x = t ? schema_text(s, t) : build_fail(s->b, "schema: a constant cannot be written");
	free(t);
	return x;
}

struct ast *schema_literal(struct schema *s, const json_t *j)
{
	if (!json_is_object(j) && !json_is_array(j))
		return scalar(s, j);
	if (++s->depth > GRAMMAR_NESTING_MAX) {
		s->depth--;
		return build_fail(s->b, "schema: nested deeper than %d", GRAMMAR_NESTING_MAX);
	}
	struct ast *x = SEQ(schema_text(s, json_is_object(j) ? "{" : "["), schema_ws(s));
	json_t *v, *name;
	const char *key;
	size_t i;
	bool first = true;
	json_array_foreach((json_t *)j, i, v)
		x = SEQ(x, i ? SEQ(schema_text(s, ","), schema_ws(s)) : ast_empty(s->b), schema_literal(s, v));
	json_object_foreach((json_t *)j, key, v) {
		name = json_string(key);
		x = SEQ(x, first ? ast_empty(s->b) : SEQ(schema_text(s, ","), schema_ws(s)), schema_pair(s, scalar(s, name), schema_literal(s, v)));
		json_decref(name);
		first = false;
	}
	s->depth--;
	return SEQ(x, schema_ws(s), schema_text(s, json_is_object(j) ? "}" : "]"));
}

static bool has_type(const json_t *v, const char *type)
{
	if (!strcmp(type, "integer"))
		return json_is_integer(v) || (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
	return !strcmp(type, "object") ? json_is_object(v) : !strcmp(type, "array") ? json_is_array(v) : !strcmp(type, "string") ? json_is_string(v) :
	       !strcmp(type, "number") ? json_is_number(v) : !strcmp(type, "boolean") ? json_is_boolean(v) : !strcmp(type, "null") && json_is_null(v);
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

static int64_t characters(const char *t)
{
	int64_t n = 0;
	for (; *t; t++)
		n += ((unsigned char)*t & 0xc0) != 0x80;
	return n;
}

/* Whether v keeps to the keyword; keywords that say nothing of its type hold. Those not known here are refused. */
static bool keeps(struct schema *s, const json_t *v, const char *key, const json_t *with)
{
	bool string = json_is_string(v), number = json_is_number(v);
	double x = number ? json_number_value(v) : 0, y = json_is_number(with) ? json_number_value(with) : NAN;
	int64_t n = string ? characters(json_string_value(v)) : 0;
	if (schema_is_annotation(key) || !strcmp(key, "format") || !strcmp(key, "const"))
		return !strcmp(key, "const") ? json_equal(v, with) : true;
	if (!strcmp(key, "type"))
		return may_be(with, v);
	if (!strcmp(key, "enum")) {
		bool any = false;
		for (size_t i = 0; i < json_array_size(with); i++)
			any |= json_equal(v, json_array_get(with, i));
		return any;
	}
	if (!strcmp(key, "minLength") || !strcmp(key, "maxLength"))
		return !string || (key[1] == 'i' ? n >= y : n <= y);
	if (!strcmp(key, "minimum") || !strcmp(key, "maximum"))
		return !number || (key[1] == 'i' ? x >= y : x <= y);
	if (!strcmp(key, "exclusiveMinimum") || !strcmp(key, "exclusiveMaximum"))
		return !number || (key[10] == 'i' ? x > y : x < y);
	static const char *const of_objects = " properties required additionalProperties patternProperties propertyNames minProperties maxProperties ";
	static const char *const of_arrays = " items prefixItems additionalItems minItems maxItems uniqueItems ";
	char word[64];
	snprintf(word, sizeof word, " %.60s ", key);
	if ((strstr(of_objects, word) && !json_is_object(v)) || (strstr(of_arrays, word) && !json_is_array(v)) || (!strcmp(key, "pattern") && !string) || (!strcmp(key, "multipleOf") && !number))
		return true;
	build_fail(s->b, "schema: '%.40s' beside enum or const is not supported", key);
	return false;
}

struct ast *schema_values(struct schema *s, const json_t *j)
{
	const json_t *constant = json_object_get(j, "const"), *list = json_object_get(j, "enum");
	struct ast *x = ast_never(s->b);
	json_t *with;
	const char *key;
	if (!constant && !json_is_array(list))
		return build_fail(s->b, "schema: enum must be a list");
	for (size_t i = 0; i < (constant ? 1 : json_array_size(list)) && !s->b->failed; i++) {
		const json_t *v = constant ? constant : json_array_get(list, i);
		bool fits = true;
		json_object_foreach((json_t *)j, key, with)
			fits = fits && ((!constant && !strcmp(key, "enum")) || keeps(s, v, key, with));
		if (fits)
			x = ast_alt(s->b, x, schema_literal(s, v));
	}
	return x;
}

/* ---- strings and numbers ---- */

bool schema_count(struct schema *s, const json_t *j, const char *key, int64_t absent, int64_t *v)
{
	const json_t *n = json_object_get(j, key);
	if (json_is_real(n) && json_real_value(n) == floor(json_real_value(n)) && fabs(json_real_value(n)) <= INT32_MAX) { /* 3.0 is a whole number */
		*v = (int64_t)json_real_value(n);
		if (*v >= 0)
			return true;
	}
	if (!n || (json_is_integer(n) && json_integer_value(n) >= 0)) {
		*v = n ? json_integer_value(n) : absent;
		return true;
	}
	build_fail(s->b, "schema: '%s' must be a whole number that is not negative", key);
	return false;
}

static const char *format_of(const char *format)
{
	static const char *const formats[][2] = {
		{"date", "[0-9]{4}-(0[13578]-(0[1-9]|[12][0-9]|3[01])|1[02]-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|"
		         "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29"},
		{"time", "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"},
		{"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
		{"email", "[a-zA-Z0-9_%+-]+(\\.[a-zA-Z0-9_%+-]+)*@[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*(\\.[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*)+"},
		{"ipv4", "((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"},
		{"hostname", "[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*(\\.[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*)*"},
		{"uri", "[a-zA-Z][a-zA-Z0-9+.-]*:[a-zA-Z0-9/?#@!$&'()*+,;=:._~-]+"},
	};
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (!strcmp(format, formats[i][0]))
			return formats[i][1];
	return NULL;
}

/* The text between the quotes as a format or a pattern has it, NULL when neither says. */
static struct ast *shaped(struct schema *s, const char *pattern, const char *format)
{
	struct ast *x = NULL;
	if (format && !strcmp(format, "date-time"))
		x = SEQ(ast_seq(s->b, regex(s, format_of("date")), schema_text(s, "T")), regex(s, format_of("time")));
	else if (format && format_of(format))
		x = regex(s, format_of(format));
	if (x && pattern)
		return build_fail(s->b, "schema: pattern beside format '%.40s' is not supported", format);
	return pattern ? grammar_parse_regex(s->b, pattern, strlen(pattern), true, false) : x;
}

struct ast *schema_string(struct schema *s, const json_t *j)
{
	struct ast *x = shaped(s, stave_json_str(j, "pattern", NULL), stave_json_str(j, "format", NULL));
	int64_t min, max;
	if (!schema_count(s, j, "minLength", 0, &min) || !schema_count(s, j, "maxLength", -1, &max))
		return ast_empty(s->b);
	if (!x && min == 0 && max < 0)
		return schema_any_string(s);
	if (min > GRAMMAR_REPEAT_MAX)
		return build_fail(s->b, "schema: minLength of %lld; at most %d is supported", (long long)min, GRAMMAR_REPEAT_MAX);
	if (max > GRAMMAR_REPEAT_MAX)
		max = GRAMMAR_REPEAT_MAX;
	if (!x)
		return string_of(s, min, max);
	if ((min > 0 || max >= 0) && !(x = ast_of_length(s->b, x, (int)min, (int)max)))
		return build_fail(s->b, "schema: this pattern or format with minLength or maxLength is not supported; put the length into the pattern, as ^[a-z]{2,5}$");
	return ast_closed(s->b, ast_seq(s->b, schema_text(s, "\""), x), '"', false);
}

static double limit_of(const json_t *v, bool low)
{
	double x = json_number_value(v);
	/* a whole number that no double holds: the next one inside */
	return json_is_integer(v) && fabs(x) > 9007199254740992. ? nextafter(x, low ? INFINITY : -INFINITY) : x;
}

/* minimum or maximum with its exclusive form, a number or (draft 4) a flag beside the bound; infinite: none. */
static double bound(const json_t *j, const char *key, const char *open_key, bool low, bool *open)
{
	const json_t *closed = json_object_get(j, key), *exclusive = json_object_get(j, open_key);
	double x = json_is_number(closed) ? limit_of(closed, low) : low ? -INFINITY : INFINITY;
	*open = json_is_true(exclusive) && json_is_number(closed);
	if (json_is_number(exclusive)) {
		double e = limit_of(exclusive, low);
		if (low ? e >= x : e <= x) {
			x = e;
			*open = true;
		}
	}
	return x;
}

struct ast *schema_number(struct schema *s, const json_t *j, bool whole)
{
	struct number_bounds n = {.whole = whole};
	const json_t *multiple = json_object_get(j, "multipleOf");
	n.lo = bound(j, "minimum", "exclusiveMinimum", true, &n.lo_open);
	n.hi = bound(j, "maximum", "exclusiveMaximum", false, &n.hi_open);
	n.multiple = multiple ? json_number_value(multiple) : 0;
	if (multiple && !(n.multiple > 0))
		return build_fail(s->b, "schema: multipleOf must be a number above zero");
	return grammar_number(s->b, &n);
}
