/* Schemas that hold at one place (allOf, what stands beside anyOf or $ref) become one schema. Each keyword says how two of it
 * combine; what cannot be combined is refused by name. Merging is bounded in depth and in all. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "infer/grammar_schema.h"

#define MERGES_MAX 5000
#define MERGED_KEYS_MAX 200000
#define WAYS_MAX 64 /* alternatives of two anyOf together */

json_t *schema_keep(struct schema *s, json_t *j)
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

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

/* One step of a JSON pointer (RFC 6901, in a URI fragment): *p moves behind it. */
static size_t pointer_key(const char **p, char *key, size_t cap)
{
	size_t n = 0;
	const char *c = *p;
	for (; *c && *c != '/' && n < cap - 1; c++) {
		char one = *c;
		if (one == '%' && hex_digit(c[1]) >= 0 && hex_digit(c[2]) >= 0) {
			one = (char)(hex_digit(c[1]) << 4 | hex_digit(c[2]));
			c += 2;
		} else if (one == '~' && (c[1] == '0' || c[1] == '1')) {
			one = *++c == '0' ? '~' : '/';
		}
		key[n++] = one;
	}
	key[n] = 0;
	*p = c;
	return n;
}

const json_t *schema_resolve(struct schema *s, const char *ref)
{
	const json_t *at = s->root;
	if (*ref != '#' || (ref[1] && ref[1] != '/')) {
		build_fail(s->b, "schema: $ref '%.80s' is not within the document; nothing is fetched", ref);
		return NULL;
	}
	for (const char *p = ref + 1; *p == '/' && at;) {
		char key[512];
		p++;
		pointer_key(&p, key, sizeof key);
		if (*p && *p != '/') { /* longer than any key we know */
			at = NULL;
			break;
		}
		at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(key, NULL, 10)) : json_object_get(at, key);
	}
	if (!at)
		build_fail(s->b, "schema: $ref '%.80s' leads nowhere", ref);
	return at;
}

bool schema_is_annotation(const char *key)
{
	static const char *const keys[] = {"$schema", "$id", "id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "example", "deprecated",
	                                   "readOnly", "writeOnly", "$anchor", "contentEncoding", "contentMediaType"};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!strcmp(key, keys[i]))
			return true;
	return !strncmp(key, "x-", 2);
}

static json_t *both_types(const json_t *x, const json_t *y)
{
	json_t *out = json_array();
	size_t nx = json_is_array(x) ? json_array_size(x) : 1, ny = json_is_array(y) ? json_array_size(y) : 1;
	for (size_t i = 0; i < nx; i++)
		for (size_t k = 0; k < ny; k++) {
			const char *a = json_string_value(json_is_array(x) ? json_array_get(x, i) : x), *b = json_string_value(json_is_array(y) ? json_array_get(y, k) : y);
			bool whole = a && b && ((!strcmp(a, "integer") && !strcmp(b, "number")) || (!strcmp(b, "integer") && !strcmp(a, "number")));
			if (a && b && (whole || !strcmp(a, b)))
				json_array_append_new(out, json_string(whole ? "integer" : a));
		}
	return out;
}

static json_t *both_enums(const json_t *x, const json_t *y)
{
	json_t *out = json_array(), *v;
	size_t i;
	json_array_foreach((json_t *)x, i, v)
		for (size_t k = 0; k < json_array_size(y); k++)
			if (json_equal(v, json_array_get(y, k)))
				json_array_append(out, v);
	return out;
}

static json_t *both_ways(struct schema *s, const json_t *x, const json_t *y)
{
	json_t *out = json_array();
	if (json_array_size(x) * json_array_size(y) > WAYS_MAX)
		build_fail(s->b, "schema: two anyOf at one place with more than %d ways together", WAYS_MAX);
	for (size_t i = 0; i < json_array_size(x) && !s->b->failed; i++)
		for (size_t k = 0; k < json_array_size(y) && !s->b->failed; k++)
			json_array_append_new(out, schema_merge(s, json_array_get(x, i), json_array_get(y, k)));
	return out;
}

/* The keyword `key` of both, x and y; a new reference. */
static json_t *both(struct schema *s, const char *key, const json_t *x, const json_t *y)
{
	bool low = !strcmp(key, "minimum") || !strcmp(key, "exclusiveMinimum") || !strcmp(key, "minLength") || !strcmp(key, "minItems") || !strcmp(key, "minProperties");
	bool high = !strcmp(key, "maximum") || !strcmp(key, "exclusiveMaximum") || !strcmp(key, "maxLength") || !strcmp(key, "maxItems") || !strcmp(key, "maxProperties");
	bool lists = json_is_array(x) && json_is_array(y);
	if ((low || high) && json_is_number(x) && json_is_number(y))
		return json_incref((json_t *)((json_number_value(x) > json_number_value(y)) == low ? x : y));
	if ((!strcmp(key, "required") || !strcmp(key, "allOf")) && lists) {
		json_t *out = json_copy((json_t *)x);
		json_array_extend(out, (json_t *)y);
		return out;
	}
	if (!strcmp(key, "enum") && lists)
		return both_enums(x, y);
	if (!strcmp(key, "anyOf") && lists)
		return both_ways(s, x, y);
	if (!strcmp(key, "type"))
		return both_types(x, y);
	if (!strcmp(key, "items") && !json_is_array(x) && !json_is_array(y))
		return schema_merge(s, x, y);
	if (!strcmp(key, "additionalProperties") || !strcmp(key, "propertyNames"))
		return schema_merge(s, x, y);
	build_fail(s->b, "schema: two different '%.40s' at one place cannot be combined", key);
	return json_true();
}

/* A property that only one side names must fit the other side's additionalProperties. */
static json_t *both_properties(struct schema *s, const json_t *x, const json_t *y)
{
	json_t *px = json_object_get(x, "properties"), *py = json_object_get(y, "properties"), *out = json_object(), *v;
	const json_t *more_x = json_object_get(x, "additionalProperties"), *more_y = json_object_get(y, "additionalProperties");
	const char *name;
	json_object_foreach(px, name, v) {
		const json_t *other = json_object_get(py, name);
		other = other ? other : more_y;
		json_object_set_new(out, name, other ? schema_merge(s, v, other) : json_incref(v));
	}
	json_object_foreach(py, name, v)
		if (!json_object_get(px, name))
			json_object_set_new(out, name, more_x ? schema_merge(s, v, more_x) : json_incref(v));
	return out;
}

static bool differ(const json_t *x, const json_t *y, const char *key)
{
	const json_t *a = json_object_get(x, key), *b = json_object_get(y, key);
	return (a || b) && !(a && b && json_equal(a, b));
}

static json_t *both_objects(struct schema *s, const json_t *x, const json_t *y)
{
	const char *key;
	json_t *v, *out = json_copy((json_t *)x);
	bool tuple = json_object_get(x, "prefixItems") || json_object_get(y, "prefixItems") || json_is_array(json_object_get(x, "items")) || json_is_array(json_object_get(y, "items"));
	bool patterns = json_object_get(x, "patternProperties") || json_object_get(y, "patternProperties");
	if (tuple && (differ(x, y, "prefixItems") || differ(x, y, "items") || differ(x, y, "additionalItems")) && (json_object_get(x, "items") || json_object_get(x, "prefixItems")) &&
	    (json_object_get(y, "items") || json_object_get(y, "prefixItems")))
		build_fail(s->b, "schema: two different 'prefixItems' or 'items' at one place cannot be combined");
	if (patterns && (differ(x, y, "patternProperties") || differ(x, y, "additionalProperties") || differ(x, y, "properties")))
		build_fail(s->b, "schema: 'patternProperties' at one place with another schema cannot be combined");
	json_object_foreach((json_t *)y, key, v) {
		const json_t *old = json_object_get(x, key);
		if (!strcmp(key, "properties"))
			continue;
		if (!old || schema_is_annotation(key) || json_equal(old, v))
			json_object_set(out, key, v);
		else
			json_object_set_new(out, key, both(s, key, old, v));
	}
	if (json_is_object(json_object_get(x, "properties")) || json_is_object(json_object_get(y, "properties")))
		json_object_set_new(out, "properties", both_properties(s, x, y));
	return out;
}

json_t *schema_merge(struct schema *s, const json_t *x, const json_t *y)
{
	json_t *out;
	if (json_is_true(x) || json_is_true(y))
		return json_incref((json_t *)(json_is_true(x) ? y : x));
	if (!json_is_object(x) || !json_is_object(y))
		return json_false();
	s->merged_keys += (int64_t)(json_object_size(x) + json_object_size(y) + json_object_size(json_object_get(x, "properties")) + json_object_size(json_object_get(y, "properties")));
	if (s->b->failed || ++s->merges > MERGES_MAX || s->merged_keys > MERGED_KEYS_MAX) {
		build_fail(s->b, "schema: more than %d schemas or %d keywords to be combined", MERGES_MAX, MERGED_KEYS_MAX);
		return json_true();
	}
	if (++s->depth > GRAMMAR_NESTING_MAX) {
		build_fail(s->b, "schema: nested deeper than %d", GRAMMAR_NESTING_MAX);
		s->depth--;
		return json_true();
	}
	const char *ref = stave_json_str(y, "$ref", NULL);
	if (ref) { /* what it leads to, and what stands beside it */
		json_t *rest = json_copy((json_t *)y);
		const json_t *target = schema_resolve(s, ref);
		json_object_del(rest, "$ref");
		json_t *half = target ? schema_merge(s, x, target) : json_true();
		out = schema_merge(s, half, rest);
		json_decref(rest);
		json_decref(half);
	} else if (stave_json_str(x, "$ref", NULL)) {
		out = schema_merge(s, y, x);
	} else {
		out = both_objects(s, x, y);
	}
	s->depth--;
	return out;
}
