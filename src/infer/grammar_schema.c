/* JSON Schema to grammar. What is produced validates; it may be stricter than the schema where freedom serves nobody: one
 * order of properties (the schema's), at most one space or one line break with its indentation between tokens, extra
 * properties only where additionalProperties asks for them or no property is named. One thing is wider: oneOf is read as anyOf,
 * so an answer may match two of its branches when these overlap.
 *
 * Supported: type (also lists), enum, const, properties, required, additionalProperties, patternProperties (one pattern, no named
 * properties), propertyNames (no named properties), minProperties, maxProperties, items, prefixItems, additionalItems, minItems, maxItems,
 * uniqueItems (of a short enum), minLength, maxLength, pattern, format (date, time, date-time, uuid, email, ipv4, hostname, uri; others are
 * annotations), minimum, maximum and their exclusive forms, multipleOf (whole or a power of ten), anyOf, oneOf, allOf, $ref within the
 * document. What else would change the meaning is refused by name. A schema that stands at several places is one rule wherever that
 * is cheap to see: rules are what masks are kept for. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "infer/grammar_schema.h"

static struct ast *node_ast(struct schema *s, const json_t *j);

/* ---- arrays ---- */

/* A schema of one string, number or constant, told by its text without annotations; NULL: it is none. */
static char *plain_text(const json_t *j)
{
	static const char *const nested[] = {"anyOf", "oneOf", "allOf", "$ref", "properties", "items", "prefixItems", "additionalProperties", "patternProperties", NULL};
	const char *key, *type = stave_json_str(j, "type", NULL);
	json_t *v, *copy;
	bool plain = json_object_get(j, "enum") || json_object_get(j, "const") || (type && strcmp(type, "object") && strcmp(type, "array"));
	for (int i = 0; plain && nested[i]; i++)
		plain = !json_object_get(j, nested[i]);
	if (!plain || !(copy = json_object()))
		return NULL;
	json_object_foreach((json_t *)j, key, v)
		if (!schema_is_annotation(key))
			json_object_set(copy, key, v);
	char *t = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(copy);
	return t;
}

/* A schema as a rule: it stands at several places of a grammar but is built once. */
static struct ast *as_rule(struct schema *s, const json_t *j)
{
	char *plain = plain_text(j);
	const json_t *known = plain ? json_object_get(s->known, plain) : NULL;
	struct ast *x;
	if (known) {
		x = ast_call(s->b, (int)json_integer_value(known));
	} else {
		x = node_ast(s, j);
		if (!s->b->failed && x->kind != AST_CALL && x->kind != AST_NEVER) {
			int rule = build_rule(s->b);
			if (!s->b->failed)
				s->b->rules[rule].body = x;
			x = ast_call(s->b, rule);
		}
		if (plain && x->kind == AST_CALL)
			json_object_set_new(s->known, plain, json_integer(x->rule));
	}
	free(plain);
	return x;
}

/* Each value of an enum at most once: a rule for each set of those used. */
#define UNIQUE_MAX 8
static struct ast *unique(struct schema *s, const json_t *j, int64_t min, int64_t max)
{
	json_t *items = json_object_get(j, "items"), *values = json_object_get(items, "enum"), *one = json_deep_copy(items);
	int n = 0, first = s->b->n_rules;
	struct ast *value[UNIQUE_MAX];
	if (!json_is_array(values) || !json_array_size(values) || json_array_size(values) > UNIQUE_MAX || json_object_get(j, "prefixItems")) {
		json_decref(one);
		return build_fail(s->b, "schema: 'uniqueItems' is supported only for items of an enum of at most %d values", UNIQUE_MAX);
	}
	for (size_t i = 0; i < json_array_size(values); i++) {
		bool again = false;
		for (size_t k = 0; k < i; k++)
			again |= json_equal(json_array_get(values, i), json_array_get(values, k));
		json_object_set_new(one, "enum", json_pack("[O]", json_array_get(values, i)));
		struct ast *x = again ? ast_never(s->b) : schema_values(s, one);
		if (x->kind != AST_NEVER)
			value[n++] = x;
	}
	json_decref(one);
	first = s->b->n_rules;
	for (int used = 0; used < 1 << n; used++)
		build_rule(s->b);
	for (int used = 0; used < 1 << n && !s->b->failed; used++) { /* what may follow when these are written */
		int count = __builtin_popcount((unsigned)used);
		struct ast *x = count >= min ? ast_empty(s->b) : ast_never(s->b);
		for (int i = 0; i < n; i++)
			if (!(used >> i & 1) && (max < 0 || count < max)) {
				struct ast *comma = used ? SEQ(schema_text(s, ","), schema_ws(s)) : ast_empty(s->b);
				x = ast_alt(s->b, x, SEQ(comma, value[i], ast_call(s->b, first + (used | 1 << i))));
			}
		s->b->rules[first + used].body = x;
	}
	return ast_call(s->b, first);
}

static struct ast *elements(struct schema *s, const json_t *prefix, int64_t n, const json_t *items, int64_t min, int64_t max)
{
	struct ast *rest = items ? as_rule(s, items) : schema_any_value(s);
	if (rest->kind == AST_NEVER && (max < 0 || max > n))
		max = n;
	if (max >= 0 && max < n)
		n = max;
	if (max >= 0 && min > max)
		return ast_never(s->b);
	if (!n)
		return schema_list(s, rest, (int)min, (int)max);
	struct ast *more = SEQ(schema_text(s, ","), schema_ws(s), rest);
	struct ast *x = rest->kind == AST_NEVER ? ast_empty(s->b) : ast_repeat(s->b, more, (int)(min > n ? min - n : 0), (int)(max < 0 ? -1 : max - n));
	for (int64_t i = n - 1; i >= 0; i--) {
		struct ast *item = as_rule(s, json_array_get(prefix, (size_t)i));
		x = i ? SEQ(schema_text(s, ","), schema_ws(s), item, x) : ast_seq(s->b, item, x);
		if (i >= min)
			x = schema_optional(s, x);
	}
	return x;
}

#define PREFIX_MAX 200
static struct ast *array(struct schema *s, const json_t *j)
{
	const json_t *items = json_object_get(j, "items"), *prefix = json_object_get(j, "prefixItems");
	int64_t min, max;
	if (!schema_count(s, j, "minItems", 0, &min) || !schema_count(s, j, "maxItems", -1, &max))
		return ast_empty(s->b);
	if (json_is_array(items)) { /* draft 7 */
		prefix = items;
		items = json_object_get(j, "additionalItems");
	}
	int64_t n = (int64_t)json_array_size(prefix);
	if (n > PREFIX_MAX)
		return build_fail(s->b, "schema: prefixItems holds %lld items; at most %d are supported", (long long)n, PREFIX_MAX);
	if (max > GRAMMAR_REPEAT_MAX)
		max = GRAMMAR_REPEAT_MAX;
	if (min > GRAMMAR_REPEAT_MAX)
		return build_fail(s->b, "schema: minItems of %lld; at most %d are supported", (long long)min, GRAMMAR_REPEAT_MAX);
	bool distinct = json_is_true(json_object_get(j, "uniqueItems")) && (max < 0 || max > 1);
	struct ast *x = distinct ? unique(s, j, min, max) : elements(s, prefix, n, items, min, max);
	return SEQ(schema_text(s, "["), schema_ws(s), x, schema_ws(s), schema_text(s, "]"));
}

/* ---- objects ---- */

#define REQUIRED_WORK_MAX 4000000 /* comparisons of names */

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
	return ends ? x : schema_optional(s, x);
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
	struct ast *x = s->b->failed ? ast_empty(s->b) : SEQ(schema_text(s, "\""), other_than(s, names, n, 0), schema_text(s, "\""));
	free(names);
	return x;
}

/* Properties i .. n-1 and then the extra ones, as rules by how many are written so far (0 .. top, more count as top): from the last
 * to the first. `extra` counts once, since its keys may be equal. */
#define COUNTED_MAX 20000
static struct ast *members(struct schema *s, const struct property *p, int n, struct ast *extra, int64_t min, int64_t max)
{
	int top = (int)(max >= 0 ? max : min > 1 ? min : 1);
	struct ast **after, *result, *comma = SEQ(schema_text(s, ","), schema_ws(s));
	if ((int64_t)(n + 1) * (top + 1) > COUNTED_MAX || !(after = malloc(((size_t)top + 1) * sizeof *after)))
		return build_fail(s->b, "schema: %d properties with minProperties or maxProperties are not supported", n);
	for (int c = 0; c <= top; c++) {
		int least = c < min ? (int)min - c : 0, most = max < 0 ? -1 : top - c;
		if (!extra || least > 1)
			after[c] = least ? ast_never(s->b) : ast_empty(s->b);
		else
			after[c] = c ? ast_repeat(s->b, SEQ(comma, extra), least, most) : schema_list(s, extra, least, most);
	}
	for (int i = n - 1; i >= 0 && !s->b->failed; i--) {
		json_t *key = json_string(p[i].name);
		struct ast *value = as_rule(s, p[i].schema), *pair = schema_pair(s, schema_literal(s, key), value);
		json_decref(key);
		for (int c = 0; c <= top; c++) { /* after[c + 1] is still that of property i + 1 */
			bool room = value->kind != AST_NEVER && (max < 0 || c < top);
			struct ast *taken = room ? SEQ(c ? comma : ast_empty(s->b), pair, after[c < top ? c + 1 : top]) : ast_never(s->b);
			struct ast *now = p[i].required ? taken : ast_alt(s->b, taken, after[c]);
			if (!s->b->failed && now->kind != AST_NEVER) {
				int rule = build_rule(s->b);
				if (!s->b->failed)
					s->b->rules[rule].body = now;
				now = ast_call(s->b, rule);
			}
			after[c] = now;
		}
	}
	result = s->b->failed ? ast_empty(s->b) : after[0];
	free(after);
	return result;
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

/* Properties that are not named: key and value, or NULL. */
static struct ast *extra_pair(struct schema *s, const json_t *j, const struct property *p, int n)
{
	const json_t *more = json_object_get(j, "additionalProperties"), *patterns = json_object_get(j, "patternProperties"), *names = json_object_get(j, "propertyNames");
	struct ast *key = NULL, *value;
	if ((patterns || names) && (n || (patterns && names) || json_object_size(patterns) > 1))
		return build_fail(s->b, "schema: 'patternProperties' and 'propertyNames' are supported only alone, with one pattern and without named properties");
	if (json_object_size(patterns) == 1) { /* keys outside the pattern are not offered */
		const char *pattern = json_object_iter_key(json_object_iter((json_t *)patterns));
		key = SEQ(schema_text(s, "\""), grammar_parse_regex(s->b, pattern, strlen(pattern), true, false), schema_text(s, "\""));
		more = json_object_get(patterns, pattern);
	} else if (names) {
		json_t *string = json_pack("{s:s}", "type", "string"), *merged = schema_keep(s, schema_merge(s, string, names));
		json_decref(string);
		key = merged ? node_ast(s, merged) : ast_never(s->b);
	}
	if (json_is_false(more) || (!more && n))
		return NULL;
	value = more && !json_is_true(more) ? as_rule(s, more) : schema_any_value(s);
	if (value->kind == AST_NEVER || (key && key->kind == AST_NEVER))
		return NULL;
	struct ast *pair = schema_pair(s, key ? key : n ? other_key(s, p, n) : schema_any_string(s), value);
	int rule = build_rule(s->b);
	if (!s->b->failed)
		s->b->rules[rule].body = pair;
	return ast_call(s->b, rule);
}

static struct ast *object(struct schema *s, const json_t *j)
{
	json_t *properties = json_object_get(j, "properties"), *required = json_object_get(j, "required"), *more = json_object_get(j, "additionalProperties"), *v;
	const char *name;
	int64_t min, max;
	int n = 0;
	size_t i;
	if ((properties && !json_is_object(properties)) || (required && !json_is_array(required)))
		return build_fail(s->b, "schema: properties must be an object and required a list");
	if (!schema_count(s, j, "minProperties", 0, &min) || !schema_count(s, j, "maxProperties", -1, &max))
		return ast_empty(s->b);
	size_t most = json_object_size(properties) + json_array_size(required);
	struct property *p = malloc((most + 1) * sizeof *p);
	if (!p || json_array_size(required) * most > REQUIRED_WORK_MAX) {
		free(p);
		return build_fail(s->b, "schema: %zu properties are too many", most);
	}
	json_object_foreach(properties, name, v)
		p[n++] = (struct property){name, v, lists(required, name)};
	json_array_foreach(required, i, v) { /* required but not described */
		bool known = !json_is_string(v);
		for (int k = 0; k < n && !known; k++)
			known = !strcmp(p[k].name, json_string_value(v));
		if (!known)
			p[n++] = (struct property){json_string_value(v), more ? more : schema_keep(s, json_true()), true};
	}
	struct ast *extra = extra_pair(s, j, p, n);
	if (extra && min > 1 && min > n)
		build_fail(s->b, "schema: minProperties above 1 is supported only for named properties");
	else if (extra && min > 1)
		extra = NULL; /* equal keys would be counted twice */
	if (max > n && !extra)
		max = -1;
	struct ast *x = SEQ(schema_text(s, "{"), schema_ws(s), members(s, p, n, extra, min, max), schema_ws(s), schema_text(s, "}"));
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
		return schema_string(s, j);
	if (!strcmp(type, "integer") || !strcmp(type, "number"))
		return schema_number(s, j, *type == 'i');
	if (!strcmp(type, "boolean"))
		return ast_alt(s->b, schema_text(s, "true"), schema_text(s, "false"));
	if (!strcmp(type, "null"))
		return schema_text(s, "null");
	return build_fail(s->b, "schema: unknown type '%.40s'", type);
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
		alone &= schema_is_annotation(name);
	json_array_foreach((json_t *)list, i, v) {
		json_t *one = alone ? v : schema_keep(s, schema_merge(s, rest, v));
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
		json_t *next = schema_merge(s, out, v);
		json_decref(out);
		out = next;
	}
	return schema_keep(s, out) ? node_ast(s, out) : ast_empty(s->b);
}

/* What a node stands for, as a rule that is known before its body: it may refer to itself. */
static struct ast *reference(struct schema *s, const json_t *j, const char *ref)
{
	const json_t *from = schema_resolve(s, ref), *body = from;
	const char *key;
	json_t *v;
	if (s->b->failed)
		return ast_empty(s->b);
	json_object_foreach((json_t *)j, key, v)
		if (strcmp(key, "$ref") && !schema_is_annotation(key))
			from = j; /* both hold */
	for (int i = 0; i < s->n_refs; i++)
		if (s->refs[i].node == from)
			return ast_call(s->b, s->refs[i].rule);
	int rule = build_rule(s->b);
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
	s->refs[s->n_refs++] = (struct reference){from, rule};
	if (from == j) {
		json_t *nothing = json_object();
		body = schema_keep(s, schema_merge(s, nothing, j));
		json_decref(nothing);
		if (s->b->failed || !body)
			return ast_empty(s->b);
	}
	struct ast *x = node_ast(s, body);
	if (!s->b->failed)
		s->b->rules[rule].body = x;
	return ast_call(s->b, rule);
}

static void refuse_unsupported(struct schema *s, const json_t *j)
{
	static const char *const keys[] = {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "contains", "minContains", "maxContains",
	                                   "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (json_object_get(j, keys[i]))
			build_fail(s->b, "schema: '%s' is not supported", keys[i]);
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
	static const char *const of_object[] = {"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties", NULL};
	static const char *const of_array[] = {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", NULL};
	static const char *const of_string[] = {"pattern", "minLength", "maxLength", "format", NULL};
	static const char *const of_number[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", NULL};
	if (json_is_boolean(j))
		return json_is_true(j) ? schema_any_value(s) : ast_never(s->b);
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
		return schema_values(s, j);
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
	return any_of(j, of_object) ? object(s, j) : any_of(j, of_array) ? array(s, j) : any_of(j, of_string) ? schema_string(s, j) : any_of(j, of_number) ? schema_number(s, j, false) : schema_any_value(s);
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
	struct schema s = {.b = b, .ws = -1, .string = -1, .value = -1};
	struct stave_err err = {0};
	int root = build_rule(b);
	if (stave_json_parse(&s.root, source, n, "JSON schema", &err)) {
		build_fail(b, "%s", err.msg);
		return;
	}
	s.known = json_object();
	struct ast *x = node_ast(&s, s.root);
	if (!b->failed)
		b->rules[root].body = x;
	for (int i = 0; i < s.n_made; i++)
		json_decref(s.made[i]);
	free(s.made);
	free(s.refs);
	json_decref(s.known);
	json_decref(s.root);
}
