/* Filters of the subset: one table. A filter gets the value, then its arguments by place or name. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

typedef struct jinja_value filter_fn(struct jinja_run *r, struct jinja_value v, struct jinja_args *a);

struct jinja_value jinja_arg(const struct jinja_args *a, int i, const char *name)
{
	if (i < a->n)
		return a->v[i];
	for (int k = 0; k < a->n_named; k++)
		if (jinja_is(a->names[k], name))
			return a->named[k];
	return jinja_undefined();
}

int64_t jinja_int_of(struct jinja_run *r, struct jinja_value v, const char *what)
{
	if (v.kind == J_BOOL)
		return v.b;
	if (v.kind != J_INT)
		jinja_fail(&r->m, "%s needs an integer, not %s", what, jinja_kind_name(v));
	return v.i;
}

static const struct jinja_string *string_of(struct jinja_run *r, struct jinja_value v) { return jinja_to_string(&r->m, v).s; }

/* Calls a method of Python's str on the text of v. */
static struct jinja_value by_method(struct jinja_run *r, struct jinja_value v, const char *name, struct jinja_args *a)
{
	struct jinja_value s = jinja_to_string(&r->m, v), method = jinja_cstr(&r->m, name);
	return jinja_call(r, jinja_method(r, s, method.s), a);
}
#define BY_METHOD(name) static struct jinja_value name##_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return by_method(r, v, #name, a); }
BY_METHOD(upper)
BY_METHOD(lower)
BY_METHOD(title)
BY_METHOD(capitalize)
BY_METHOD(strip)
BY_METHOD(lstrip)
BY_METHOD(rstrip)
BY_METHOD(replace)
BY_METHOD(split)

static struct jinja_value absolute(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	if (v.kind == J_FLOAT)
		return jinja_float(fabs(v.f));
	int64_t i = jinja_int_of(r, v, "abs");
	if (i == INT64_MIN)
		jinja_fail(&r->m, "an integer overflows");
	return jinja_int(i < 0 ? -i : i);
}

static struct jinja_value default_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value other = jinja_arg(a, 0, "default_value");
	bool empty = v.kind == J_UNDEFINED || (jinja_true(jinja_arg(a, 1, "boolean")) && !jinja_true(v));
	return !empty ? v : other.kind == J_UNDEFINED ? jinja_cstr(&r->m, "") : other;
}

static struct jinja_value items_of(struct jinja_run *r, struct jinja_value v)
{
	struct jinja_value out = jinja_new_list(&r->m);
	if (v.kind == J_UNDEFINED)
		return out;
	if (v.kind != J_DICT)
		jinja_fail(&r->m, "%s has no items", jinja_kind_name(v));
	for (int i = 0; i < v.dict->n; i++) {
		struct jinja_value pair = jinja_new_list(&r->m);
		pair.list->tuple = true;
		jinja_append(&r->m, pair.list, v.dict->keys[i]);
		jinja_append(&r->m, pair.list, v.dict->values[i]);
		jinja_append(&r->m, out.list, pair);
	}
	return out;
}
static struct jinja_value items(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return items_of(r, v); }

/* Strings compare without case unless asked: Jinja's default in sort, unique, min and max. */
static struct jinja_value fold(struct jinja_run *r, struct jinja_value v, bool case_sensitive)
{
	return case_sensitive || v.kind != J_STRING ? v : by_method(r, v, "lower", &(struct jinja_args){0});
}

/* x.y.z or items, by a dotted name or an index */
static struct jinja_value path(struct jinja_run *r, struct jinja_value v, struct jinja_value attribute)
{
	if (attribute.kind == J_INT)
		return jinja_subscript(r, v, attribute);
	if (attribute.kind != J_STRING)
		jinja_fail(&r->m, "an attribute is named by a string or an integer");
	const struct jinja_string *s = attribute.s;
	for (size_t at = 0; at <= s->n;) {
		const char *dot = memchr(s->p + at, '.', s->n - at);
		size_t n = dot ? (size_t)(dot - s->p) - at : s->n - at;
		v = jinja_subscript(r, v, jinja_slice_bytes(&r->m, s, at, n));
		at += n + 1;
	}
	return v;
}

struct sorting {
	struct jinja_value *keys;
	int *order, *spare;
	bool down;
};

/* Stable: merge sort over the order. */
static void merge_sort(struct jinja_run *r, struct sorting *s, int from, int to)
{
	if (to - from < 2)
		return;
	int mid = from + (to - from) / 2, i = from, k = mid, o = from;
	merge_sort(r, s, from, mid);
	merge_sort(r, s, mid, to);
	while (i < mid || k < to) {
		int c = i >= mid ? 1 : k >= to ? -1 : jinja_compare(&r->m, s->keys[s->order[i]], s->keys[s->order[k]]) * (s->down ? -1 : 1);
		s->spare[o++] = c <= 0 ? s->order[i++] : s->order[k++];
	}
	memcpy(s->order + from, s->spare + from, (size_t)(to - from) * sizeof *s->order);
}

static struct jinja_value sorted(struct jinja_run *r, struct jinja_list *l, struct jinja_value *keys, bool down)
{
	struct sorting s = {.keys = keys, .down = down};
	struct jinja_value out = jinja_new_list(&r->m);
	s.order = jinja_take(&r->m, (size_t)(l->n + 1) * sizeof *s.order);
	s.spare = jinja_take(&r->m, (size_t)(l->n + 1) * sizeof *s.spare);
	for (int i = 0; i < l->n; i++)
		s.order[i] = i;
	merge_sort(r, &s, 0, l->n);
	for (int i = 0; i < l->n; i++)
		jinja_append(&r->m, out.list, l->v[s.order[i]]);
	return out;
}

static struct jinja_value sort(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = jinja_iterate(&r->m, v), attribute = jinja_arg(a, 2, "attribute");
	bool down = jinja_true(jinja_arg(a, 0, "reverse")), cased = jinja_true(jinja_arg(a, 1, "case_sensitive"));
	struct jinja_value *keys = jinja_take(&r->m, (size_t)(all.list->n + 1) * sizeof *keys);
	for (int i = 0; i < all.list->n; i++)
		keys[i] = fold(r, attribute.kind == J_UNDEFINED ? all.list->v[i] : path(r, all.list->v[i], attribute), cased);
	return sorted(r, all.list, keys, down);
}

static struct jinja_value dictsort(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = items_of(r, v), by = jinja_arg(a, 1, "by");
	bool cased = jinja_true(jinja_arg(a, 0, "case_sensitive")), value = by.kind == J_STRING && jinja_is(by.s, "value");
	struct jinja_value *keys = jinja_take(&r->m, (size_t)(all.list->n + 1) * sizeof *keys);
	for (int i = 0; i < all.list->n; i++)
		keys[i] = fold(r, all.list->v[i].list->v[value], cased);
	return sorted(r, all.list, keys, jinja_true(jinja_arg(a, 2, "reverse")));
}

static struct jinja_value first(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	v = jinja_iterate(&r->m, v);
	return v.list->n ? v.list->v[0] : jinja_undefined();
}

static struct jinja_value last(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	v = jinja_iterate(&r->m, v);
	return v.list->n ? v.list->v[v.list->n - 1] : jinja_undefined();
}

static struct jinja_value float_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value other = jinja_arg(a, 0, "default");
	if (jinja_is_number(v))
		return jinja_float(jinja_number(v));
	if (v.kind == J_STRING && v.s->n && v.s->n < 64) {
		char *end;
		double f = strtod(v.s->p, &end);
		if (!*end)
			return jinja_float(f);
	}
	return other.kind == J_UNDEFINED ? jinja_float(0) : other;
}

static struct jinja_value int_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value other = jinja_arg(a, 0, "default"), base = jinja_arg(a, 1, "base");
	int64_t b = base.kind == J_UNDEFINED ? 10 : jinja_int_of(r, base, "int's base");
	if (v.kind == J_INT || v.kind == J_BOOL)
		return jinja_int(v.kind == J_INT ? v.i : v.b);
	if (v.kind == J_STRING && v.s->n && v.s->n < 64 && b >= 2 && b <= 36) {
		char *end;
		long long i = strtoll(v.s->p, &end, (int)b);
		if (!*end)
			return jinja_int(i);
		struct jinja_args none = {.v = (struct jinja_value[]){jinja_none()}, .n = 1};
		v = float_(r, v, &none);
	}
	if (v.kind == J_FLOAT && fabs(v.f) < 9e18)
		return jinja_int((int64_t)v.f);
	return other.kind == J_UNDEFINED ? jinja_int(0) : other;
}

static struct jinja_value join_lines(struct jinja_run *r, struct jinja_list *lines, const struct jinja_string *between)
{
	const struct jinja_string **s = jinja_take(&r->m, (size_t)(2 * lines->n + 1) * sizeof *s);
	size_t n = 0;
	for (int i = 0; i < lines->n; i++) {
		if (i)
			s[n++] = between;
		s[n++] = string_of(r, lines->v[i]);
	}
	return jinja_join(&r->m, s, n);
}

static struct jinja_value join(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value between = jinja_arg(a, 0, "d"), attribute = jinja_arg(a, 1, "attribute"), all = jinja_iterate(&r->m, v), list = jinja_new_list(&r->m);
	for (int i = 0; i < all.list->n; i++)
		jinja_append(&r->m, list.list, attribute.kind == J_UNDEFINED ? all.list->v[i] : path(r, all.list->v[i], attribute));
	return join_lines(r, list.list, string_of(r, between));
}

/* Lines after the first get the width; blank ones only if asked. */
static struct jinja_value indent(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value width = jinja_arg(a, 0, "width"), pad = width;
	bool all = jinja_true(jinja_arg(a, 1, "first")), blank = jinja_true(jinja_arg(a, 2, "blank"));
	if (width.kind != J_STRING) {
		int64_t n = width.kind == J_UNDEFINED ? 4 : jinja_int_of(r, width, "indent");
		if (n < 0 || n > 1000)
			jinja_fail(&r->m, "indent by %lld", (long long)n);
		char spaces[1001];
		memset(spaces, ' ', (size_t)n);
		pad = jinja_bytes(&r->m, spaces, (size_t)n, true);
	}
	const struct jinja_string *s = string_of(r, v);
	struct jinja_value parts = jinja_new_list(&r->m);
	for (size_t at = 0; at <= s->n;) {
		const char *end = memchr(s->p + at, '\n', s->n - at);
		size_t n = end ? (size_t)(end - s->p) - at + 1 : s->n - at;
		bool empty = n == (end != NULL);
		if ((at || all) && (!empty || (blank && n)))
			jinja_append(&r->m, parts.list, pad);
		jinja_append(&r->m, parts.list, jinja_slice_bytes(&r->m, s, at, n));
		at += n;
		if (!end)
			break;
	}
	return join_lines(r, parts.list, string_of(r, jinja_undefined()));
}

static struct jinja_value keys(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	if (v.kind != J_DICT)
		jinja_fail(&r->m, "%s has no keys", jinja_kind_name(v));
	return jinja_iterate(&r->m, v);
}

static struct jinja_value values(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value out = jinja_new_list(&r->m);
	if (v.kind != J_DICT)
		jinja_fail(&r->m, "%s has no values", jinja_kind_name(v));
	for (int i = 0; i < v.dict->n; i++)
		jinja_append(&r->m, out.list, v.dict->values[i]);
	return out;
}

static struct jinja_value length(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return jinja_int((int64_t)jinja_length(&r->m, v)); }

static struct jinja_value list(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = jinja_iterate(&r->m, v), out = jinja_new_list(&r->m);
	for (int i = 0; i < all.list->n; i++)
		jinja_append(&r->m, out.list, all.list->v[i]);
	return out;
}

/* The arguments after the first `n`. */
static struct jinja_args rest(const struct jinja_args *a, int n)
{
	struct jinja_args b = *a;
	b.v += n < a->n ? n : a->n;
	b.n -= n < a->n ? n : a->n;
	return b;
}

static struct jinja_value map(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = jinja_iterate(&r->m, v), out = jinja_new_list(&r->m), other = jinja_arg(a, 99, "default");
	struct jinja_value attribute = jinja_arg(a, 99, "attribute");
	struct jinja_args more = rest(a, 1);
	if (attribute.kind == J_UNDEFINED && (!a->n || a->v[0].kind != J_STRING))
		jinja_fail(&r->m, "map needs the name of a filter or an attribute");
	for (int i = 0; i < all.list->n; i++) {
		struct jinja_value e = all.list->v[i];
		e = attribute.kind != J_UNDEFINED ? path(r, e, attribute) : jinja_filter(r, a->v[0].s, e, &more);
		jinja_append(&r->m, out.list, e.kind == J_UNDEFINED && attribute.kind != J_UNDEFINED && other.kind != J_UNDEFINED ? other : e);
	}
	return out;
}

/* select and reject, by the element or its attribute; without a test, by truth. */
static struct jinja_value choose(struct jinja_run *r, struct jinja_value v, struct jinja_args *a, bool by_attribute, bool keep)
{
	struct jinja_value all = jinja_iterate(&r->m, v), out = jinja_new_list(&r->m);
	struct jinja_args after = rest(a, by_attribute), more = rest(&after, 1);
	if (by_attribute && !a->n)
		jinja_fail(&r->m, "selectattr needs an attribute");
	if (after.n && after.v[0].kind != J_STRING)
		jinja_fail(&r->m, "a test is named by a string");
	for (int i = 0; i < all.list->n; i++) {
		struct jinja_value e = by_attribute ? path(r, all.list->v[i], a->v[0]) : all.list->v[i];
		if ((after.n ? jinja_test(r, after.v[0].s, e, &more) : jinja_true(e)) == keep)
			jinja_append(&r->m, out.list, all.list->v[i]);
	}
	return out;
}
static struct jinja_value select_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return choose(r, v, a, false, true); }
static struct jinja_value reject(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return choose(r, v, a, false, false); }
static struct jinja_value selectattr(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return choose(r, v, a, true, true); }
static struct jinja_value rejectattr(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return choose(r, v, a, true, false); }

static struct jinja_value extreme(struct jinja_run *r, struct jinja_value v, struct jinja_args *a, int sign)
{
	struct jinja_value all = jinja_iterate(&r->m, v), attribute = jinja_arg(a, 1, "attribute"), best = jinja_undefined(), best_key = best;
	for (int i = 0; i < all.list->n; i++) {
		struct jinja_value key = fold(r, attribute.kind == J_UNDEFINED ? all.list->v[i] : path(r, all.list->v[i], attribute), jinja_true(jinja_arg(a, 0, "case_sensitive")));
		if (!i || jinja_compare(&r->m, key, best_key) * sign > 0) {
			best = all.list->v[i];
			best_key = key;
		}
	}
	return best;
}
static struct jinja_value max_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return extreme(r, v, a, 1); }
static struct jinja_value min_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return extreme(r, v, a, -1); }

static struct jinja_value reverse(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = jinja_iterate(&r->m, v), out = jinja_new_list(&r->m);
	for (int i = all.list->n; i-- > 0;)
		jinja_append(&r->m, out.list, all.list->v[i]);
	return v.kind == J_STRING ? join_lines(r, out.list, string_of(r, jinja_undefined())) : out;
}

static struct jinja_value safe(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return v; }
static struct jinja_value string(struct jinja_run *r, struct jinja_value v, struct jinja_args *a) { return jinja_to_string(&r->m, v); }

/* Jinja's slice: n columns, the first ones longer by one. */
static struct jinja_value slice(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = jinja_iterate(&r->m, v), out = jinja_new_list(&r->m), fill = jinja_arg(a, 1, "fill_with");
	int64_t n = jinja_int_of(r, jinja_arg(a, 0, "slices"), "slice");
	if (n < 1 || n > 100000)
		jinja_fail(&r->m, "slice into %lld", (long long)n);
	int each = all.list->n / (int)n, longer = all.list->n % (int)n, at = 0;
	for (int i = 0; i < n; i++) {
		struct jinja_value column = jinja_new_list(&r->m);
		for (int k = 0; k < each + (i < longer); k++)
			jinja_append(&r->m, column.list, all.list->v[at++]);
		if (fill.kind != J_UNDEFINED && i >= longer && longer)
			jinja_append(&r->m, column.list, fill);
		jinja_append(&r->m, out.list, column);
	}
	return out;
}

static struct jinja_value sum(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = jinja_iterate(&r->m, v), attribute = jinja_arg(a, 0, "attribute"), start = jinja_arg(a, 1, "start");
	double real = start.kind == J_UNDEFINED ? 0 : jinja_number(start);
	int64_t whole = start.kind == J_INT ? start.i : 0;
	bool is_real = start.kind == J_FLOAT;
	for (int i = 0; i < all.list->n; i++) {
		struct jinja_value e = attribute.kind == J_UNDEFINED ? all.list->v[i] : path(r, all.list->v[i], attribute);
		if (!jinja_is_number(e))
			jinja_fail(&r->m, "sum of %s", jinja_kind_name(e));
		is_real |= e.kind == J_FLOAT;
		real += jinja_number(e);
		if (e.kind != J_FLOAT && __builtin_add_overflow(whole, e.kind == J_INT ? e.i : e.b, &whole))
			jinja_fail(&r->m, "an integer overflows");
	}
	return is_real ? jinja_float(real) : jinja_int(whole);
}

/* As Hugging Face defines it: json.dumps, and not Jinja's own with its HTML escapes. */
static struct jinja_value tojson(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value in = jinja_arg(a, 0, "indent");
	if (in.kind == J_UNDEFINED)
		in = jinja_arg(a, 99, "indent");
	int64_t n = jinja_is_number(in) && in.kind != J_FLOAT ? jinja_int_of(r, in, "indent") : -1;
	if (n > 64)
		jinja_fail(&r->m, "tojson with indent %lld", (long long)n);
	return jinja_to_json(&r->m, v, (int)(n < 0 ? -1 : n), jinja_true(jinja_arg(a, 99, "ensure_ascii")), jinja_true(jinja_arg(a, 99, "sort_keys")));
}

static struct jinja_value truncate_(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value want = jinja_arg(a, 0, "length"), end = jinja_arg(a, 2, "end"), slack = jinja_arg(a, 3, "leeway");
	const struct jinja_string *s = string_of(r, v), *tail = end.kind == J_STRING ? end.s : jinja_cstr(&r->m, "...").s;
	int64_t n = want.kind == J_UNDEFINED ? 255 : jinja_int_of(r, want, "truncate"), leeway = slack.kind == J_UNDEFINED ? 5 : jinja_int_of(r, slack, "truncate");
	int64_t tail_n = (int64_t)jinja_length(&r->m, (struct jinja_value){.kind = J_STRING, .s = (struct jinja_string *)tail});
	if ((int64_t)jinja_length(&r->m, jinja_to_string(&r->m, v)) <= n + leeway)
		return jinja_to_string(&r->m, v);
	if (n < tail_n)
		jinja_fail(&r->m, "truncate to less than its mark");
	size_t at = 0;
	for (int64_t i = 0; i < n - tail_n && at < s->n; i++)
		at += jinja_utf8_at(s, at);
	if (!jinja_true(jinja_arg(a, 1, "killwords"))) {
		size_t space = at;
		while (space > 0 && s->p[space - 1] != ' ')
			space--;
		at = space ? space - 1 : at;
	}
	return jinja_join(&r->m, (const struct jinja_string *const[]){jinja_slice_bytes(&r->m, s, 0, at).s, tail}, 2);
}

static struct jinja_value unique(struct jinja_run *r, struct jinja_value v, struct jinja_args *a)
{
	struct jinja_value all = jinja_iterate(&r->m, v), out = jinja_new_list(&r->m), seen = jinja_new_list(&r->m), attribute = jinja_arg(a, 1, "attribute");
	for (int i = 0; i < all.list->n; i++) {
		struct jinja_value key = fold(r, attribute.kind == J_UNDEFINED ? all.list->v[i] : path(r, all.list->v[i], attribute), jinja_true(jinja_arg(a, 0, "case_sensitive")));
		if (jinja_contains(&r->m, seen, key))
			continue;
		jinja_append(&r->m, seen.list, key);
		jinja_append(&r->m, out.list, all.list->v[i]);
	}
	return out;
}

static const struct {
	const char *name;
	filter_fn *call;
} filters[] = {
	{"abs", absolute}, {"capitalize", capitalize_}, {"count", length}, {"d", default_}, {"default", default_}, {"dictsort", dictsort}, {"first", first},
	{"float", float_}, {"indent", indent}, {"int", int_}, {"items", items}, {"join", join}, {"keys", keys}, {"last", last}, {"length", length}, {"list", list},
	{"lower", lower_}, {"lstrip", lstrip_}, {"map", map}, {"max", max_}, {"min", min_}, {"reject", reject}, {"rejectattr", rejectattr}, {"replace", replace_},
	{"reverse", reverse}, {"rstrip", rstrip_}, {"safe", safe}, {"select", select_}, {"selectattr", selectattr}, {"slice", slice}, {"sort", sort},
	{"split", split_}, {"string", string}, {"strip", strip_}, {"sum", sum}, {"title", title_}, {"tojson", tojson}, {"trim", strip_}, {"truncate", truncate_},
	{"unique", unique}, {"upper", upper_}, {"values", values},
};

static filter_fn *find_filter(const struct jinja_string *name)
{
	for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
		if (jinja_is(name, filters[i].name))
			return filters[i].call;
	return NULL;
}

bool jinja_filter_exists(const struct jinja_string *name) { return find_filter(name); }

struct jinja_value jinja_filter(struct jinja_run *r, const struct jinja_string *name, struct jinja_value v, struct jinja_args *a)
{
	filter_fn *f = find_filter(name);
	if (!f)
		jinja_fail(&r->m, "the filter '%.40s' is not supported", name->p);
	jinja_step(&r->m, 1);
	return f(r, v, a);
}
