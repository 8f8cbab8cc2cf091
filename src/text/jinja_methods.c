/* Methods of Python's str, dict and list that templates call, and the global functions. Values are immutable, so only those
 * that change nothing. */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "text/jinja.h"

static const struct jinja_string *text_arg(struct jinja_run *r, struct jinja_args *a, int i, const char *name, const char *method)
{
	struct jinja_value v = jinja_arg(a, i, name);
	if (v.kind != J_STRING)
		jinja_fail(&r->m, "%s needs a string, not %s", method, jinja_kind_name(v));
	return v.s;
}

/* ---- strings ---- */

static utf8proc_int32_t character(const struct jinja_string *s, size_t at, size_t *n)
{
	utf8proc_int32_t c;
	utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s->p + at, (utf8proc_ssize_t)(s->n - at), &c);
	*n = k > 0 ? (size_t)k : 1;
	return k > 0 ? c : -1;
}

static bool is_space(utf8proc_int32_t c)
{
	return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
	       c == 0x202f || c == 0x205f || c == 0x3000;
}

enum letters { UPPER, LOWER, TITLE, CAPITALIZE };

/* Simple case mapping, character by character; a character whose bytes grow keeps its origin. */
static struct jinja_value change_case(struct jinja_run *r, const struct jinja_string *s, enum letters how)
{
	char *p = jinja_take(&r->m, 2 * s->n + 8);
	uint8_t *own = jinja_take(&r->m, 2 * s->n + 8);
	size_t at = 0, n;
	bool begin = true;
	jinja_step(&r->m, 1 + s->n / 16);
	for (size_t i = 0; i < s->n; i += n) {
		utf8proc_int32_t c = character(s, i, &n);
		utf8proc_uint8_t to[4];
		bool up = how == UPPER || (how != LOWER && begin);
		utf8proc_int32_t d = c < 0 ? c : up ? utf8proc_toupper(c) : utf8proc_tolower(c);
		bool letter = c >= 0 && (utf8proc_toupper(c) != c || utf8proc_tolower(c) != c);
		begin = how == TITLE ? !letter : false;
		size_t k = n;
		if (d < 0)
			to[0] = (utf8proc_uint8_t)s->p[i];
		else
			k = (size_t)utf8proc_encode_char(d, to);
		if (at + k > 2 * s->n + 8) /* no mapping more than doubles; checked, not believed */
			jinja_fail(&r->m, "a string grew too long");
		memcpy(p + at, to, k);
		memset(own + at, s->mixed ? s->mixed[i] : s->own, k);
		at += k;
	}
	struct jinja_value v = jinja_bytes(&r->m, p, at, s->own);
	v.s->mixed = s->mixed ? own : NULL;
	return v;
}
#define CASE(name, how) static struct jinja_value name(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return change_case(r, self.s, how); }
CASE(upper, UPPER)
CASE(lower, LOWER)
CASE(title, TITLE)
CASE(capitalize, CAPITALIZE)

static bool among(const struct jinja_string *set, const char *p, size_t n)
{
	for (size_t i = 0, k; i < set->n; i += k) {
		k = jinja_utf8_at(set, i);
		if (k == n && !memcmp(set->p + i, p, n))
			return true;
	}
	return false;
}

static struct jinja_value strip_sides(struct jinja_run *r, struct jinja_value self, struct jinja_args *a, bool left, bool right)
{
	const struct jinja_string *s = self.s;
	struct jinja_value set = jinja_arg(a, 0, "chars");
	size_t from = 0, to = s->n, n;
	if (set.kind != J_STRING && set.kind != J_UNDEFINED && set.kind != J_NONE)
		jinja_fail(&r->m, "strip needs a string, not %s", jinja_kind_name(set));
	bool blank = set.kind != J_STRING;
	jinja_step(&r->m, 1 + s->n / 64);
	while (left && from < to) {
		utf8proc_int32_t c = character(s, from, &n);
		if (blank ? !is_space(c) : !among(set.s, s->p + from, n))
			break;
		from += n;
	}
	while (right && to > from) {
		size_t at = to - 1;
		while (at > from && ((unsigned char)s->p[at] & 0xc0) == 0x80)
			at--;
		utf8proc_int32_t c = character(s, at, &n);
		if (blank ? !is_space(c) : !among(set.s, s->p + at, to - at))
			break;
		to = at;
	}
	return jinja_slice_bytes(&r->m, s, from, to - from);
}
static struct jinja_value strip(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return strip_sides(r, self, a, true, true); }
static struct jinja_value lstrip(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return strip_sides(r, self, a, true, false); }
static struct jinja_value rstrip(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return strip_sides(r, self, a, false, true); }

static struct jinja_value split_blank(struct jinja_run *r, const struct jinja_string *s, int64_t max)
{
	struct jinja_value out = jinja_new_list(&r->m);
	size_t i = 0, n;
	for (;;) {
		while (i < s->n && is_space(character(s, i, &n)))
			i += n;
		if (i >= s->n)
			return out;
		size_t from = i;
		if (max >= 0 && out.list->n >= max) {
			jinja_append(&r->m, out.list, jinja_slice_bytes(&r->m, s, from, s->n - from));
			return out;
		}
		while (i < s->n && !is_space(character(s, i, &n)))
			i += n;
		jinja_append(&r->m, out.list, jinja_slice_bytes(&r->m, s, from, i - from));
	}
}

static struct jinja_value split(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	const struct jinja_string *s = self.s;
	struct jinja_value by = jinja_arg(a, 0, "sep"), limit = jinja_arg(a, 1, "maxsplit"), out = jinja_new_list(&r->m);
	int64_t max = limit.kind == J_UNDEFINED ? -1 : jinja_int_of(r, limit, "split");
	if (by.kind == J_UNDEFINED || by.kind == J_NONE)
		return split_blank(r, s, max);
	if (by.kind != J_STRING || !by.s->n)
		jinja_fail(&r->m, "split needs a separator that is not empty");
	size_t at = 0;
	for (;;) {
		const char *p = max >= 0 && out.list->n >= max ? NULL : memmem(s->p + at, s->n - at, by.s->p, by.s->n);
		size_t n = p ? (size_t)(p - s->p) - at : s->n - at;
		jinja_step(&r->m, 1 + n / 64);
		jinja_append(&r->m, out.list, jinja_slice_bytes(&r->m, s, at, n));
		if (!p)
			return out;
		at += n + by.s->n;
	}
}

static struct jinja_value splitlines(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	const struct jinja_string *s = self.s;
	struct jinja_value out = jinja_new_list(&r->m);
	for (size_t at = 0; at < s->n;) {
		size_t n = 0;
		while (at + n < s->n && s->p[at + n] != '\n' && s->p[at + n] != '\r')
			n++;
		jinja_append(&r->m, out.list, jinja_slice_bytes(&r->m, s, at, n));
		at += n;
		at += at + 1 < s->n && s->p[at] == '\r' && s->p[at + 1] == '\n' ? 2 : 1;
	}
	return out;
}

/* One text, or any of a list of them. */
static struct jinja_value has_end(struct jinja_run *r, struct jinja_value self, struct jinja_args *a, bool start)
{
	struct jinja_value x = jinja_arg(a, 0, "prefix"), list = jinja_new_list(&r->m);
	if (x.kind == J_LIST)
		list = x;
	else
		jinja_append(&r->m, list.list, x);
	for (int i = 0; i < list.list->n; i++) {
		struct jinja_value e = list.list->v[i];
		if (e.kind != J_STRING)
			jinja_fail(&r->m, "%s needs a string, not %s", start ? "startswith" : "endswith", jinja_kind_name(e));
		if (e.s->n <= self.s->n && !memcmp(start ? self.s->p : self.s->p + self.s->n - e.s->n, e.s->p, e.s->n))
			return jinja_bool(true);
	}
	return jinja_bool(false);
}
static struct jinja_value startswith(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return has_end(r, self, a, true); }
static struct jinja_value endswith(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return has_end(r, self, a, false); }

static struct jinja_value replace(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	const struct jinja_string *s = self.s, *old = text_arg(r, a, 0, "old", "replace"), *new = text_arg(r, a, 1, "new", "replace"), **parts;
	struct jinja_value count = jinja_arg(a, 2, "count"), list = jinja_new_list(&r->m);
	int64_t max = count.kind == J_UNDEFINED || count.kind == J_NONE ? -1 : jinja_int_of(r, count, "replace");
	size_t at = 0;
	for (int64_t i = 0; max < 0 || i < max; i++) {
		size_t skip = old->n ? 0 : i ? at < s->n ? jinja_utf8_at(s, at) : s->n + 1 - at : 0; /* an empty text stands between characters */
		const char *p = at + skip > s->n ? NULL : old->n ? memmem(s->p + at, s->n - at, old->p, old->n) : s->p + at + skip;
		if (!p)
			break;
		size_t n = (size_t)(p - s->p) - at;
		jinja_step(&r->m, 1 + n / 64);
		jinja_append(&r->m, list.list, jinja_slice_bytes(&r->m, s, at, n));
		jinja_append(&r->m, list.list, (struct jinja_value){.kind = J_STRING, .s = (struct jinja_string *)new});
		at += n + old->n;
	}
	jinja_append(&r->m, list.list, jinja_slice_bytes(&r->m, s, at, s->n - at));
	parts = jinja_take(&r->m, (size_t)list.list->n * sizeof *parts);
	for (int i = 0; i < list.list->n; i++)
		parts[i] = list.list->v[i].s;
	return jinja_join(&r->m, parts, (size_t)list.list->n);
}

static struct jinja_value find(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	const struct jinja_string *s = self.s, *x = text_arg(r, a, 0, "sub", "find");
	const char *p = memmem(s->p, s->n, x->p, x->n);
	int64_t n = 0;
	for (size_t i = 0; p && i < (size_t)(p - s->p); i += jinja_utf8_at(s, i))
		n++;
	return jinja_int(p ? n : -1);
}

static struct jinja_value count_text(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	const struct jinja_string *s = self.s, *x = text_arg(r, a, 0, "sub", "count");
	int64_t n = 0;
	size_t at = 0;
	if (!x->n)
		return jinja_int((int64_t)jinja_length(&r->m, self) + 1);
	for (const char *p; (p = memmem(s->p + at, s->n - at, x->p, x->n)); n++)
		at = (size_t)(p - s->p) + x->n;
	return jinja_int(n);
}

static struct jinja_value join(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_args between = {.v = &self, .n = 1};
	return jinja_filter(r, jinja_cstr(&r->m, "join").s, jinja_arg(a, 0, "iterable"), &between);
}

static struct jinja_value all_in_class(struct jinja_run *r, struct jinja_value self, bool digits, bool letters)
{
	size_t n;
	for (size_t i = 0; i < self.s->n; i += n) {
		utf8proc_int32_t c = character(self.s, i, &n);
		utf8proc_category_t k = c < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(c);
		bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
		if (!((digits && k == UTF8PROC_CATEGORY_ND) || (letters && letter)))
			return jinja_bool(false);
	}
	return jinja_bool(self.s->n > 0);
}
static struct jinja_value isdigit_(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return all_in_class(r, self, true, false); }
static struct jinja_value isalpha_(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return all_in_class(r, self, false, true); }
static struct jinja_value isalnum_(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return all_in_class(r, self, true, true); }

/* ---- dictionaries ---- */

#define BY_FILTER(name) static struct jinja_value name(struct jinja_run *r, struct jinja_value self, struct jinja_args *a) { return jinja_filter(r, jinja_cstr(&r->m, #name).s, self, a); }
BY_FILTER(items)
BY_FILTER(keys)
BY_FILTER(values)

static struct jinja_value get(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_value *v = jinja_lookup(&r->m, self.dict, jinja_arg(a, 0, "key")), other = jinja_arg(a, 1, "default");
	return v ? *v : other.kind == J_UNDEFINED ? jinja_none() : other;
}

/* ---- lists ---- */

static struct jinja_value index_of(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	for (int i = 0; i < self.list->n; i++)
		if (jinja_equal(&r->m, self.list->v[i], jinja_arg(a, 0, "value")))
			return jinja_int(i);
	jinja_fail(&r->m, "index: the list does not hold the value");
}

static struct jinja_value count_items(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	int64_t n = 0;
	for (int i = 0; i < self.list->n; i++)
		n += jinja_equal(&r->m, self.list->v[i], jinja_arg(a, 0, "value"));
	return jinja_int(n);
}

static const struct {
	enum jinja_kind of;
	const char *name;
	jinja_builtin *call;
} methods[] = {
	{J_STRING, "capitalize", capitalize}, {J_STRING, "count", count_text}, {J_STRING, "endswith", endswith}, {J_STRING, "find", find},
	{J_STRING, "isalnum", isalnum_}, {J_STRING, "isalpha", isalpha_}, {J_STRING, "isdigit", isdigit_}, {J_STRING, "join", join}, {J_STRING, "lower", lower},
	{J_STRING, "lstrip", lstrip}, {J_STRING, "replace", replace}, {J_STRING, "rstrip", rstrip}, {J_STRING, "split", split},
	{J_STRING, "splitlines", splitlines}, {J_STRING, "startswith", startswith}, {J_STRING, "strip", strip}, {J_STRING, "title", title},
	{J_STRING, "upper", upper}, {J_DICT, "get", get}, {J_DICT, "items", items}, {J_DICT, "keys", keys}, {J_DICT, "values", values},
	{J_LIST, "count", count_items}, {J_LIST, "index", index_of},
};

struct jinja_value jinja_method(struct jinja_run *r, struct jinja_value self, const struct jinja_string *name)
{
	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
		if (methods[i].of == self.kind && jinja_is(name, methods[i].name)) {
			struct jinja_function *f = jinja_take(&r->m, sizeof *f);
			*f = (struct jinja_function){methods[i].call, self, methods[i].name};
			return (struct jinja_value){.kind = J_FUNCTION, .function = f};
		}
	return jinja_undefined();
}

/* ---- global functions ---- */

static struct jinja_value raise_exception(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_value s = jinja_to_string(&r->m, jinja_arg(a, 0, "message"));
	jinja_fail(&r->m, "%.300s", s.s->p);
}

static struct jinja_value strftime_now(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	const struct jinja_string *format = text_arg(r, a, 0, "format", "strftime_now");
	char text[256];
	struct tm tm;
	if (format->n > 100 || !localtime_r(&r->now, &tm))
		jinja_fail(&r->m, "strftime_now: a format of %zu bytes", format->n);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	size_t n = strftime(text, sizeof text, format->p, &tm);
#pragma GCC diagnostic pop
	return jinja_bytes(&r->m, text, n, true);
}

static struct jinja_value namespace(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_value d = jinja_new_dict(&r->m);
	for (int i = 0; a->n && a->v[0].kind == J_DICT && i < a->v[0].dict->n; i++)
		jinja_put(&r->m, d.dict, a->v[0].dict->keys[i], a->v[0].dict->values[i]);
	for (int i = 0; i < a->n_named; i++)
		jinja_put(&r->m, d.dict, jinja_bytes(&r->m, a->names[i]->p, a->names[i]->n, true), a->named[i]);
	return d;
}

static struct jinja_value new_namespace(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_value d = namespace(r, self, a);
	d.dict->namespace = true;
	return d;
}

static struct jinja_value range(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	int64_t v[3] = {0, 0, 1};
	if (a->n < 1 || a->n > 3)
		jinja_fail(&r->m, "range takes one to three integers");
	for (int i = 0; i < a->n; i++)
		v[a->n == 1 ? 1 : i] = jinja_int_of(r, a->v[i], "range");
	if (!v[2])
		jinja_fail(&r->m, "range with step 0");
	struct jinja_value out = jinja_new_list(&r->m);
	for (int64_t i = v[0]; v[2] > 0 ? i < v[1] : i > v[1];) {
		if (out.list->n >= 100000)
			jinja_fail(&r->m, "a range of more than 100000 numbers");
		jinja_step(&r->m, 1);
		jinja_append(&r->m, out.list, jinja_int(i));
		if (__builtin_add_overflow(i, v[2], &i))
			break;
	}
	return out;
}

/* joiner(", "): nothing the first time it is called, then its text. */
static struct jinja_value next_join(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_value *used = &self.list->v[1];
	bool first = !used->b;
	used->b = true;
	return first ? jinja_cstr(&r->m, "") : self.list->v[0];
}

static struct jinja_value joiner(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_value text = jinja_arg(a, 0, "sep"), state = jinja_new_list(&r->m);
	jinja_append(&r->m, state.list, text.kind == J_UNDEFINED ? jinja_cstr(&r->m, ", ") : text);
	jinja_append(&r->m, state.list, jinja_bool(false));
	struct jinja_function *f = jinja_take(&r->m, sizeof *f);
	*f = (struct jinja_function){next_join, state, "joiner"};
	return (struct jinja_value){.kind = J_FUNCTION, .function = f};
}

jinja_builtin *jinja_global(const char *name, size_t n)
{
	static const struct {
		const char *name;
		jinja_builtin *call;
	} globals[] = {{"raise_exception", raise_exception}, {"strftime_now", strftime_now}, {"namespace", new_namespace}, {"range", range}, {"dict", namespace}, {"joiner", joiner}};
	for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
		if (strlen(globals[i].name) == n && !memcmp(globals[i].name, name, n))
			return globals[i].call;
	return NULL;
}
