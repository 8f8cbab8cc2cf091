/* Values of templates: memory, strings that know where their bytes come from, lists, dictionaries, and what Python's str(),
 * ==, < and json.dumps make of them. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

/* ---- memory and failure ---- */

struct jinja_block {
	struct jinja_block *next;
	size_t used, size;
	_Alignas(16) char p[];
};

void jinja_fail(struct jinja_memory *m, const char *fmt, ...)
{
	char text[400];
	va_list args;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	stave_err_set(m->err, STAVE_EUSAGE, "chat template, line %d: %s", m->line, text);
	longjmp(*m->fail, 1);
}

void *jinja_take(struct jinja_memory *m, size_t n)
{
	n = (n + 15) & ~(size_t)15;
	struct jinja_block *b = m->blocks;
	if (n > JINJA_MEMORY_MAX - m->taken)
		jinja_fail(m, "it needs more than %zu MiB of memory", JINJA_MEMORY_MAX >> 20);
	if (!b || b->size - b->used < n) {
		size_t size = n > 65536 ? n : 65536;
		b = calloc(1, sizeof *b + size);
		if (!b)
			jinja_fail(m, "out of memory");
		b->size = size;
		b->next = m->blocks;
		m->blocks = b;
		m->taken += size < JINJA_MEMORY_MAX - m->taken ? size : JINJA_MEMORY_MAX - m->taken;
	}
	void *p = b->p + b->used;
	b->used += n;
	return p;
}

void jinja_memory_free(struct jinja_memory *m)
{
	while (m->blocks) {
		struct jinja_block *next = m->blocks->next;
		free(m->blocks);
		m->blocks = next;
	}
}

void jinja_step(struct jinja_memory *m, size_t n)
{
	if (n > (size_t)(JINJA_STEPS_MAX - m->steps))
		jinja_fail(m, "it takes more than %d steps", JINJA_STEPS_MAX);
	m->steps += (int)n;
}

/* ---- strings ---- */

struct jinja_value jinja_bytes(struct jinja_memory *m, const char *p, size_t n, bool own)
{
	struct jinja_string *s = jinja_take(m, sizeof *s);
	char *copy = jinja_take(m, n + 1);
	memcpy(copy, p, n);
	*s = (struct jinja_string){.p = copy, .n = n, .own = own};
	return (struct jinja_value){.kind = J_STRING, .s = s};
}

struct jinja_value jinja_cstr(struct jinja_memory *m, const char *p) { return jinja_bytes(m, p, strlen(p), true); }

struct jinja_value jinja_slice_bytes(struct jinja_memory *m, const struct jinja_string *s, size_t at, size_t n)
{
	struct jinja_value v = jinja_bytes(m, s->p + at, n, s->own);
	v.s->mixed = s->mixed ? s->mixed + at : NULL;
	return v;
}

struct jinja_value jinja_join(struct jinja_memory *m, const struct jinja_string *const *parts, size_t n)
{
	size_t total = 0;
	bool any = false, all = true;
	for (size_t i = 0; i < n; i++) {
		total += parts[i]->n;
		any |= parts[i]->mixed || parts[i]->own;
		all &= !parts[i]->mixed && parts[i]->own;
		if (total > JINJA_MEMORY_MAX)
			jinja_fail(m, "a string is longer than %zu MiB", JINJA_MEMORY_MAX >> 20);
	}
	jinja_step(m, n + total / 64);
	struct jinja_string *s = jinja_take(m, sizeof *s);
	char *p = jinja_take(m, total + 1);
	uint8_t *mixed = any && !all ? jinja_take(m, total + 1) : NULL;
	size_t at = 0;
	for (size_t i = 0; i < n; at += parts[i++]->n) {
		memcpy(p + at, parts[i]->p, parts[i]->n);
		if (mixed && parts[i]->mixed)
			memcpy(mixed + at, parts[i]->mixed, parts[i]->n);
		else if (mixed)
			memset(mixed + at, parts[i]->own, parts[i]->n);
	}
	*s = (struct jinja_string){.p = p, .n = total, .own = all, .mixed = mixed};
	return (struct jinja_value){.kind = J_STRING, .s = s};
}

size_t jinja_utf8_at(const struct jinja_string *s, size_t i)
{
	size_t n = 1;
	while (i + n < s->n && ((unsigned char)s->p[i + n] & 0xc0) == 0x80)
		n++;
	return n;
}

/* ---- lists and dictionaries ---- */

struct jinja_value jinja_new_list(struct jinja_memory *m)
{
	return (struct jinja_value){.kind = J_LIST, .list = jinja_take(m, sizeof(struct jinja_list))};
}

void jinja_append(struct jinja_memory *m, struct jinja_list *l, struct jinja_value v)
{
	if (l->n == l->cap) {
		int cap = l->cap ? 2 * l->cap : 8;
		struct jinja_value *p = jinja_take(m, (size_t)cap * sizeof *p);
		if (l->n)
			memcpy(p, l->v, (size_t)l->n * sizeof *p);
		l->v = p;
		l->cap = cap;
	}
	l->v[l->n++] = v;
}

struct jinja_value jinja_new_dict(struct jinja_memory *m)
{
	return (struct jinja_value){.kind = J_DICT, .dict = jinja_take(m, sizeof(struct jinja_dict))};
}

struct jinja_value *jinja_get(struct jinja_memory *m, const struct jinja_dict *d, const char *key, size_t n)
{
	jinja_step(m, 1 + (size_t)d->n / 8);
	for (int i = 0; i < d->n; i++)
		if (d->keys[i].kind == J_STRING && d->keys[i].s->n == n && !memcmp(d->keys[i].s->p, key, n))
			return &d->values[i];
	return NULL;
}

struct jinja_value *jinja_lookup(struct jinja_memory *m, const struct jinja_dict *d, struct jinja_value key)
{
	if (key.kind == J_STRING)
		return jinja_get(m, d, key.s->p, key.s->n);
	jinja_step(m, 1 + (size_t)d->n / 8);
	for (int i = 0; i < d->n; i++)
		if (jinja_equal(m, d->keys[i], key))
			return &d->values[i];
	return NULL;
}

static void add(struct jinja_memory *m, struct jinja_dict *d, struct jinja_value key, struct jinja_value v)
{
	if (d->n == d->cap) {
		int cap = d->cap ? 2 * d->cap : 8;
		struct jinja_value *k = jinja_take(m, (size_t)cap * sizeof *k), *w = jinja_take(m, (size_t)cap * sizeof *w);
		if (d->n) {
			memcpy(k, d->keys, (size_t)d->n * sizeof *k);
			memcpy(w, d->values, (size_t)d->n * sizeof *w);
		}
		d->keys = k;
		d->values = w;
		d->cap = cap;
	}
	d->keys[d->n] = key;
	d->values[d->n++] = v;
}

void jinja_put(struct jinja_memory *m, struct jinja_dict *d, struct jinja_value key, struct jinja_value v)
{
	struct jinja_value *old = jinja_lookup(m, d, key);
	if (old)
		*old = v;
	else
		add(m, d, key, v);
}

static void enter(struct jinja_memory *m)
{
	jinja_step(m, 1);
	if (++m->depth > JINJA_DEPTH_MAX)
		jinja_fail(m, "nested deeper than %d", JINJA_DEPTH_MAX);
}

struct jinja_value jinja_from_json(struct jinja_memory *m, const json_t *j, bool own)
{
	struct jinja_value v = jinja_none(), item;
	size_t i;
	const char *key;
	json_t *e;
	enter(m);
	switch (j ? json_typeof(j) : JSON_NULL) {
	case JSON_OBJECT:
		v = jinja_new_dict(m);
		json_object_foreach((json_t *)j, key, e) {
			struct jinja_value k = jinja_bytes(m, key, strlen(key), own);
			item = jinja_from_json(m, e, own);
			add(m, v.dict, k, item); /* keys of an object differ: no look-up */
		}
		break;
	case JSON_ARRAY:
		v = jinja_new_list(m);
		json_array_foreach((json_t *)j, i, e)
			jinja_append(m, v.list, jinja_from_json(m, e, own));
		break;
	case JSON_STRING:
		v = jinja_bytes(m, json_string_value(j), json_string_length(j), own);
		break;
	case JSON_INTEGER:
		v = jinja_int(json_integer_value(j));
		break;
	case JSON_REAL:
		v = jinja_float(json_real_value(j));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		v = jinja_bool(json_is_true(j));
		break;
	case JSON_NULL:
		break;
	}
	m->depth--;
	return v;
}

/* ---- what Python says of values ---- */

const char *jinja_kind_name(struct jinja_value v)
{
	static const char *const names[] = {"undefined", "none", "a boolean", "an integer", "a number", "a string", "a list", "a mapping", "a loop", "a function", "a macro"};
	return names[v.kind];
}

bool jinja_true(struct jinja_value v)
{
	switch (v.kind) {
	case J_UNDEFINED:
	case J_NONE:
		return false;
	case J_STRING:
		return v.s->n > 0;
	case J_LIST:
		return v.list->n > 0;
	case J_DICT:
		return v.dict->n > 0 || v.dict->namespace;
	case J_BOOL:
	case J_INT:
	case J_FLOAT:
		return jinja_number(v) != 0;
	default:
		return true;
	}
}

bool jinja_equal(struct jinja_memory *m, struct jinja_value a, struct jinja_value b)
{
	bool same = false;
	enter(m);
	if (jinja_is_number(a) && jinja_is_number(b))
		same = a.kind == J_FLOAT || b.kind == J_FLOAT ? jinja_number(a) == jinja_number(b) : (a.kind == J_INT ? a.i : a.b) == (b.kind == J_INT ? b.i : b.b);
	else if (a.kind != b.kind)
		same = false;
	else if (a.kind == J_STRING)
		same = a.s->n == b.s->n && !memcmp(a.s->p, b.s->p, a.s->n);
	else if (a.kind == J_NONE || a.kind == J_UNDEFINED)
		same = true;
	else if (a.kind == J_LIST) {
		same = a.list->n == b.list->n;
		for (int i = 0; same && i < a.list->n; i++)
			same = jinja_equal(m, a.list->v[i], b.list->v[i]);
	} else if (a.kind == J_DICT) {
		same = a.dict->n == b.dict->n;
		for (int i = 0; same && i < a.dict->n; i++) {
			struct jinja_value *other = jinja_lookup(m, b.dict, a.dict->keys[i]);
			same = other && jinja_equal(m, a.dict->values[i], *other);
		}
	} else {
		same = a.loop == b.loop;
	}
	m->depth--;
	return same;
}

int jinja_compare(struct jinja_memory *m, struct jinja_value a, struct jinja_value b)
{
	jinja_step(m, 1);
	if (a.kind == J_INT && b.kind == J_INT)
		return (a.i > b.i) - (a.i < b.i);
	if (jinja_is_number(a) && jinja_is_number(b))
		return (jinja_number(a) > jinja_number(b)) - (jinja_number(a) < jinja_number(b));
	if (a.kind == J_STRING && b.kind == J_STRING) {
		int c = memcmp(a.s->p, b.s->p, a.s->n < b.s->n ? a.s->n : b.s->n);
		return c ? c : (a.s->n > b.s->n) - (a.s->n < b.s->n);
	}
	if (a.kind != J_LIST || b.kind != J_LIST)
		jinja_fail(m, "%s and %s have no order", jinja_kind_name(a), jinja_kind_name(b));
	enter(m);
	int c = 0;
	for (int i = 0; !c && i < a.list->n && i < b.list->n; i++)
		c = jinja_equal(m, a.list->v[i], b.list->v[i]) ? 0 : jinja_compare(m, a.list->v[i], b.list->v[i]);
	m->depth--;
	return c ? c : (a.list->n > b.list->n) - (a.list->n < b.list->n);
}

bool jinja_contains(struct jinja_memory *m, struct jinja_value box, struct jinja_value v)
{
	if (box.kind == J_STRING) {
		if (v.kind != J_STRING)
			jinja_fail(m, "'in' a string needs a string, not %s", jinja_kind_name(v));
		jinja_step(m, 1 + box.s->n / 64);
		return memmem(box.s->p, box.s->n, v.s->p, v.s->n) != NULL;
	}
	if (box.kind == J_DICT)
		return jinja_lookup(m, box.dict, v) != NULL;
	if (box.kind == J_UNDEFINED)
		return false;
	if (box.kind != J_LIST)
		jinja_fail(m, "%s holds nothing that 'in' could find", jinja_kind_name(box));
	for (int i = 0; i < box.list->n; i++)
		if (jinja_equal(m, box.list->v[i], v))
			return true;
	return false;
}

size_t jinja_length(struct jinja_memory *m, struct jinja_value v)
{
	size_t n = 0;
	switch (v.kind) {
	case J_UNDEFINED:
		return 0;
	case J_STRING:
		jinja_step(m, v.s->n / 64);
		for (size_t i = 0; i < v.s->n; i += jinja_utf8_at(v.s, i))
			n++;
		return n;
	case J_LIST:
		return (size_t)v.list->n;
	case J_DICT:
		return (size_t)v.dict->n;
	default:
		jinja_fail(m, "%s has no length", jinja_kind_name(v));
	}
}

struct jinja_value jinja_iterate(struct jinja_memory *m, struct jinja_value v)
{
	if (v.kind == J_LIST)
		return v;
	struct jinja_value l = jinja_new_list(m);
	if (v.kind == J_DICT) {
		for (int i = 0; i < v.dict->n; i++)
			jinja_append(m, l.list, v.dict->keys[i]);
	} else if (v.kind == J_STRING) {
		for (size_t i = 0, n; i < v.s->n; i += n) {
			n = jinja_utf8_at(v.s, i);
			jinja_append(m, l.list, jinja_slice_bytes(m, v.s, i, n));
		}
	} else if (v.kind != J_UNDEFINED) {
		jinja_fail(m, "%s cannot be iterated", jinja_kind_name(v));
	}
	return l;
}

/* ---- text of values ---- */

struct writer {
	struct jinja_memory *m;
	struct jinja_list parts; /* STRINGs */
	int indent;              /* of JSON, < 0: none */
	bool ascii, sorted;
};

static void put(struct writer *w, struct jinja_value s) { jinja_append(w->m, &w->parts, s); }
static void put_cstr(struct writer *w, const char *s, bool own) { put(w, jinja_bytes(w->m, s, strlen(s), own)); }

static struct jinja_value joined(struct writer *w)
{
	const struct jinja_string **parts = jinja_take(w->m, (size_t)(w->parts.n + 1) * sizeof *parts);
	for (int i = 0; i < w->parts.n; i++)
		parts[i] = w->parts.v[i].s;
	return jinja_join(w->m, parts, (size_t)w->parts.n);
}

/* The shortest decimal that reads back, written as Python does. */
static void float_text(char text[40], double f, bool json)
{
	if (isnan(f) || isinf(f)) {
		strcpy(text, isnan(f) ? json ? "NaN" : "nan" : f > 0 ? json ? "Infinity" : "inf" : json ? "-Infinity" : "-inf");
		return;
	}
	int digits = 1;
	do
		snprintf(text, 40, "%.*e", digits - 1, f);
	while (strtod(text, NULL) != f && ++digits <= 17);
	int exponent = atoi(strchr(text, 'e') + 1);
	if (exponent >= -4 && exponent < 16)
		snprintf(text, 40, "%.*f", digits - 1 - exponent > 0 ? digits - 1 - exponent : 1, f);
}

/* Quotes of Python's repr: single, unless there are single quotes and no double ones within. */
static void put_repr_string(struct writer *w, const struct jinja_string *s)
{
	char quote = memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'', q[2] = {quote, 0};
	size_t from = 0;
	put_cstr(w, q, true);
	for (size_t i = 0; i <= s->n; i++) {
		unsigned char c = i < s->n ? (unsigned char)s->p[i] : 0;
		if (i < s->n && c >= 32 && c != '\\' && c != (unsigned char)quote && c != 127)
			continue;
		if (i > from)
			put(w, jinja_slice_bytes(w->m, s, from, i - from));
		from = i + 1;
		char esc[8];
		if (i == s->n)
			break;
		if (c == '\n' || c == '\t' || c == '\r' || c == '\\' || c == (unsigned char)quote)
			snprintf(esc, sizeof esc, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : c == '\r' ? 'r' : c);
		else
			snprintf(esc, sizeof esc, "\\x%02x", c);
		put_cstr(w, esc, false);
	}
	put_cstr(w, q, true);
}

static void put_text(struct writer *w, struct jinja_value v, bool repr)
{
	char text[48];
	enter(w->m);
	switch (v.kind) {
	case J_UNDEFINED:
		if (repr)
			put_cstr(w, "Undefined", true);
		break;
	case J_NONE:
		put_cstr(w, "None", true);
		break;
	case J_BOOL:
		put_cstr(w, v.b ? "True" : "False", true);
		break;
	case J_INT:
		snprintf(text, sizeof text, "%lld", (long long)v.i);
		put_cstr(w, text, true);
		break;
	case J_FLOAT:
		float_text(text, v.f, false);
		put_cstr(w, text, true);
		break;
	case J_STRING:
		if (repr)
			put_repr_string(w, v.s);
		else
			put(w, v);
		break;
	case J_LIST:
		put_cstr(w, v.list->tuple ? "(" : "[", true);
		for (int i = 0; i < v.list->n; i++) {
			if (i)
				put_cstr(w, ", ", true);
			put_text(w, v.list->v[i], true);
		}
		put_cstr(w, !v.list->tuple ? "]" : v.list->n == 1 ? ",)" : ")", true);
		break;
	case J_DICT:
		put_cstr(w, "{", true);
		for (int i = 0; i < v.dict->n; i++) {
			if (i)
				put_cstr(w, ", ", true);
			put_text(w, v.dict->keys[i], true);
			put_cstr(w, ": ", true);
			put_text(w, v.dict->values[i], true);
		}
		put_cstr(w, "}", true);
		break;
	default:
		jinja_fail(w->m, "%s has no text", jinja_kind_name(v));
	}
	w->m->depth--;
}

struct jinja_value jinja_to_string(struct jinja_memory *m, struct jinja_value v)
{
	if (v.kind == J_STRING)
		return v;
	struct writer w = {.m = m};
	put_text(&w, v, false);
	return joined(&w);
}

static uint32_t code_point(const char *p, size_t n)
{
	unsigned char c = (unsigned char)*p;
	uint32_t u = n == 1 ? c : n == 2 ? c & 31 : n == 3 ? c & 15 : c & 7;
	for (size_t i = 1; i < n; i++)
		u = u << 6 | ((unsigned char)p[i] & 63);
	return u;
}

static void put_json_string(struct writer *w, const struct jinja_string *s)
{
	size_t from = 0;
	put_cstr(w, "\"", false);
	for (size_t i = 0; i <= s->n;) {
		unsigned char c = i < s->n ? (unsigned char)s->p[i] : 0;
		size_t n = i < s->n ? jinja_utf8_at(s, i) : 1;
		if (i < s->n && c >= 32 && c != '"' && c != '\\' && (c < 128 || !w->ascii)) {
			i += n;
			continue;
		}
		if (i > from)
			put(w, jinja_slice_bytes(w->m, s, from, i - from));
		if (i == s->n)
			break;
		static const char named[] = "\"\"\\\\\nn\rr\tt\bb\ff";
		char esc[16];
		const char *e = named;
		while (*e && (unsigned char)*e != c)
			e += 2;
		uint32_t u = code_point(s->p + i, n > 4 ? 1 : n);
		if (*e && c)
			snprintf(esc, sizeof esc, "\\%c", e[1]);
		else if (u < 0x10000)
			snprintf(esc, sizeof esc, "\\u%04x", u);
		else
			snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xd7c0 + (u >> 10), 0xdc00 + (u & 1023));
		put_cstr(w, esc, false);
		i += n;
		from = i;
	}
	put_cstr(w, "\"", false);
}

static void newline(struct writer *w, int level)
{
	if (w->indent < 0)
		return;
	size_t n = (size_t)w->indent * (size_t)level;
	char *p = jinja_take(w->m, n + 2);
	*p = '\n';
	memset(p + 1, ' ', n);
	put_cstr(w, p, false);
}

static void put_json(struct writer *w, struct jinja_value v, int level);

static void put_json_dict(struct writer *w, const struct jinja_dict *d, int level)
{
	int *order = jinja_take(w->m, (size_t)(d->n + 1) * sizeof *order);
	for (int i = 0; i < d->n; i++)
		order[i] = i;
	for (int i = 1; w->sorted && i < d->n; i++) /* few keys: insertion */
		for (int k = i; k && jinja_compare(w->m, d->keys[order[k]], d->keys[order[k - 1]]) < 0; k--) {
			int swap = order[k];
			order[k] = order[k - 1];
			order[k - 1] = swap;
		}
	put_cstr(w, "{", false);
	for (int i = 0; i < d->n; i++) {
		if (i)
			put_cstr(w, w->indent < 0 ? ", " : ",", false);
		newline(w, level + 1);
		struct jinja_value key = jinja_to_string(w->m, d->keys[order[i]]);
		put_json_string(w, key.s);
		put_cstr(w, ": ", false);
		put_json(w, d->values[order[i]], level + 1);
	}
	if (d->n)
		newline(w, level);
	put_cstr(w, "}", false);
}

static void put_json(struct writer *w, struct jinja_value v, int level)
{
	char text[48];
	enter(w->m);
	switch (v.kind) {
	case J_NONE:
		put_cstr(w, "null", false);
		break;
	case J_BOOL:
		put_cstr(w, v.b ? "true" : "false", false);
		break;
	case J_INT:
		snprintf(text, sizeof text, "%lld", (long long)v.i);
		put_cstr(w, text, false);
		break;
	case J_FLOAT:
		float_text(text, v.f, true);
		put_cstr(w, text, false);
		break;
	case J_STRING:
		put_json_string(w, v.s);
		break;
	case J_LIST:
		put_cstr(w, "[", false);
		for (int i = 0; i < v.list->n; i++) {
			if (i)
				put_cstr(w, w->indent < 0 ? ", " : ",", false);
			newline(w, level + 1);
			put_json(w, v.list->v[i], level + 1);
		}
		if (v.list->n)
			newline(w, level);
		put_cstr(w, "]", false);
		break;
	case J_DICT:
		put_json_dict(w, v.dict, level);
		break;
	default:
		jinja_fail(w->m, "%s cannot be written as JSON", jinja_kind_name(v));
	}
	w->m->depth--;
}

struct jinja_value jinja_to_json(struct jinja_memory *m, struct jinja_value v, int indent, bool ascii, bool sorted)
{
	struct writer w = {.m = m, .indent = indent, .ascii = ascii, .sorted = sorted};
	put_json(&w, v, 0);
	return joined(&w);
}
