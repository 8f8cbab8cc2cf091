/* The interpreter: walks the tree, appends to the output. Names live in frames: one for the template, one per iteration of a
 * loop, one per call of a macro; `set` writes the innermost, look-ups go outwards. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

struct jinja_frame {
	struct jinja_frame *up;
	struct jinja_value vars; /* a DICT */
};
struct jinja_macro {
	const struct jinja_node *n;
	struct jinja_frame *frame; /* where it was defined */
};
struct jinja_loop {
	struct jinja_value items; /* a LIST */
	int i, depth;
	const struct jinja_node *n; /* of a recursive loop, else NULL */
	struct jinja_frame *frame;
	struct jinja_value changed;
};
enum flow { NEXT, BREAK, CONTINUE };

static struct jinja_value eval(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n);
static enum flow run(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n);

static void enter(struct jinja_run *r, const struct jinja_node *n)
{
	jinja_step(&r->m, 1);
	if (++r->m.depth > JINJA_DEPTH_MAX)
		jinja_fail(&r->m, "nested deeper than %d", JINJA_DEPTH_MAX);
	if (n)
		r->m.line = n->line;
}

static struct jinja_frame *frame(struct jinja_run *r, struct jinja_frame *up)
{
	struct jinja_frame *f = jinja_take(&r->m, sizeof *f);
	f->up = up;
	f->vars = jinja_new_dict(&r->m);
	return f;
}

static void assign(struct jinja_run *r, struct jinja_frame *f, const struct jinja_string *name, struct jinja_value v)
{
	jinja_put(&r->m, f->vars.dict, jinja_bytes(&r->m, name->p, name->n, true), v);
}

static void assign_named(struct jinja_run *r, struct jinja_frame *f, const char *name, struct jinja_value v)
{
	jinja_put(&r->m, f->vars.dict, jinja_cstr(&r->m, name), v);
}

static struct jinja_value undefined(const struct jinja_string *name)
{
	return (struct jinja_value){.kind = J_UNDEFINED, .s = (struct jinja_string *)name};
}

static struct jinja_value look_up(struct jinja_run *r, struct jinja_frame *f, const struct jinja_string *name)
{
	for (; f; f = f->up) {
		struct jinja_value *v = jinja_get(&r->m, f->vars.dict, name->p, name->n);
		if (v)
			return *v;
	}
	jinja_builtin *g = jinja_global(name->p, name->n);
	if (!g)
		return undefined(name);
	struct jinja_function *fn = jinja_take(&r->m, sizeof *fn);
	*fn = (struct jinja_function){.call = g, .name = name->p};
	return (struct jinja_value){.kind = J_FUNCTION, .function = fn};
}

/* ---- attributes, items, slices ---- */

static struct jinja_value loop_attribute(struct jinja_run *r, struct jinja_loop *l, const struct jinja_string *s)
{
	int n = l->items.list->n;
	if (jinja_is(s, "index"))
		return jinja_int(l->i + 1);
	if (jinja_is(s, "index0"))
		return jinja_int(l->i);
	if (jinja_is(s, "revindex"))
		return jinja_int(n - l->i);
	if (jinja_is(s, "revindex0"))
		return jinja_int(n - l->i - 1);
	if (jinja_is(s, "first"))
		return jinja_bool(l->i == 0);
	if (jinja_is(s, "last"))
		return jinja_bool(l->i == n - 1);
	if (jinja_is(s, "length"))
		return jinja_int(n);
	if (jinja_is(s, "depth"))
		return jinja_int(l->depth);
	if (jinja_is(s, "depth0"))
		return jinja_int(l->depth - 1);
	if (jinja_is(s, "previtem"))
		return l->i > 0 ? l->items.list->v[l->i - 1] : undefined(s);
	if (jinja_is(s, "nextitem"))
		return l->i + 1 < n ? l->items.list->v[l->i + 1] : undefined(s);
	return jinja_method(r, (struct jinja_value){.kind = J_LOOP, .loop = l}, s);
}

/* Callable members of the running loop; here because they look inside it. */
static struct jinja_value loop_cycle(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	if (!a->n)
		jinja_fail(&r->m, "loop.cycle needs arguments");
	return a->v[self.loop->i % a->n];
}

static struct jinja_value loop_changed(struct jinja_run *r, struct jinja_value self, struct jinja_args *a)
{
	struct jinja_value now = jinja_new_list(&r->m), before = self.loop->changed;
	for (int i = 0; i < a->n; i++)
		jinja_append(&r->m, now.list, a->v[i]);
	self.loop->changed = now;
	return jinja_bool(before.kind != J_LIST || !jinja_equal(&r->m, before, now));
}

struct jinja_value jinja_attribute(struct jinja_run *r, struct jinja_value v, const struct jinja_string *name, bool item_first)
{
	struct jinja_value found = jinja_undefined(), *item;
	if (v.kind == J_UNDEFINED)
		jinja_fail(&r->m, "'%.60s' is undefined", v.s ? v.s->p : "a value");
	if (v.kind == J_LOOP) {
		if (jinja_is(name, "cycle") || jinja_is(name, "changed")) {
			struct jinja_function *fn = jinja_take(&r->m, sizeof *fn);
			*fn = (struct jinja_function){.call = jinja_is(name, "cycle") ? loop_cycle : loop_changed, .self = v, .name = name->p};
			return (struct jinja_value){.kind = J_FUNCTION, .function = fn};
		}
		return loop_attribute(r, v.loop, name);
	}
	bool dict = v.kind == J_DICT;
	if (dict && (item_first || v.dict->namespace) && (item = jinja_get(&r->m, v.dict, name->p, name->n)))
		return *item;
	if (!dict || !v.dict->namespace)
		found = jinja_method(r, v, name);
	if (found.kind == J_UNDEFINED && dict && (item = jinja_get(&r->m, v.dict, name->p, name->n)))
		return *item;
	return found.kind == J_UNDEFINED ? undefined(name) : found;
}

/* Byte offset of character i of s; i at most its length. */
static size_t offset(const struct jinja_string *s, int64_t i)
{
	size_t at = 0;
	while (i-- > 0 && at < s->n)
		at += jinja_utf8_at(s, at);
	return at;
}

struct jinja_value jinja_subscript(struct jinja_run *r, struct jinja_value v, struct jinja_value key)
{
	if (v.kind == J_UNDEFINED)
		jinja_fail(&r->m, "'%.60s' is undefined", v.s ? v.s->p : "a value");
	if (v.kind == J_DICT) {
		struct jinja_value *item = jinja_lookup(&r->m, v.dict, key);
		if (item)
			return *item;
	}
	if (key.kind == J_STRING)
		return jinja_attribute(r, v, key.s, true);
	if (key.kind == J_INT && (v.kind == J_LIST || v.kind == J_STRING)) {
		int64_t n = (int64_t)jinja_length(&r->m, v), i = key.i < 0 && key.i >= -n ? key.i + n : key.i;
		if (i < 0 || i >= n)
			return jinja_undefined();
		if (v.kind == J_LIST)
			return v.list->v[i];
		size_t at = offset(v.s, i);
		return jinja_slice_bytes(&r->m, v.s, at, jinja_utf8_at(v.s, at));
	}
	return jinja_undefined();
}

/* Python's slice.indices. */
static void bounds(int64_t n, int64_t step, const int64_t *from, const int64_t *to, int64_t *begin, int64_t *end)
{
	int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
	int64_t b = from ? *from : step > 0 ? low : high, e = to ? *to : step > 0 ? high : low;
	if (from && b < 0)
		b = b + n < low ? low : b + n;
	if (to && e < 0)
		e = e + n < low ? low : e + n;
	*begin = b > high ? high : b;
	*end = e > high ? high : e;
}

static struct jinja_value slice(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value v)
{
	const struct jinja_node *parts[3] = {n->b, n->c, n->d};
	int64_t at[3] = {0, 0, 1}, begin, end;
	bool given[3];
	for (int i = 0; i < 3; i++) {
		struct jinja_value x = parts[i] ? eval(r, f, parts[i]) : jinja_none();
		if ((given[i] = x.kind != J_NONE))
			at[i] = jinja_int_of(r, x, "a slice");
		if (at[i] > INT32_MAX || at[i] < -INT32_MAX)
			at[i] = at[i] > 0 ? INT32_MAX : -INT32_MAX;
	}
	if (!at[2])
		jinja_fail(&r->m, "a slice with step 0");
	if (v.kind != J_LIST && v.kind != J_STRING)
		jinja_fail(&r->m, "%s cannot be sliced", jinja_kind_name(v));
	bounds((int64_t)jinja_length(&r->m, v), at[2], given[0] ? &at[0] : NULL, given[1] ? &at[1] : NULL, &begin, &end);
	if (v.kind == J_STRING && at[2] == 1) {
		size_t from = offset(v.s, begin), to = offset(v.s, end);
		return jinja_slice_bytes(&r->m, v.s, from, to > from ? to - from : 0);
	}
	struct jinja_value all = jinja_iterate(&r->m, v), out = jinja_new_list(&r->m);
	for (int64_t i = begin; at[2] > 0 ? i < end : i > end; i += at[2])
		jinja_append(&r->m, out.list, all.list->v[i]);
	if (v.kind == J_LIST)
		return out;
	const struct jinja_string **s = jinja_take(&r->m, (size_t)(out.list->n + 1) * sizeof *s);
	for (int i = 0; i < out.list->n; i++)
		s[i] = out.list->v[i].s;
	return jinja_join(&r->m, s, (size_t)out.list->n);
}

/* ---- calls ---- */

static void arguments(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *first, struct jinja_args *a)
{
	int n = 0, i = 0, k = 0;
	for (const struct jinja_node *e = first; e; e = e->next)
		n++;
	*a = (struct jinja_args){0};
	a->v = jinja_take(&r->m, (size_t)(n + 1) * sizeof *a->v);
	a->named = jinja_take(&r->m, (size_t)(n + 1) * sizeof *a->named);
	a->names = jinja_take(&r->m, (size_t)(n + 1) * sizeof *a->names);
	for (const struct jinja_node *e = first; e; e = e->next)
		if (e->kind == N_KEYWORD) {
			a->names[k] = e->s;
			a->named[k++] = eval(r, f, e->a);
		} else {
			a->v[i++] = eval(r, f, e);
		}
	a->n = i;
	a->n_named = k;
}

/* Runs a body with its output gathered apart. */
static struct jinja_value capture(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *body)
{
	size_t at = r->out->text.len;
	run(r, f, body);
	struct jinja_value v = jinja_bytes(&r->m, r->out->text.p ? r->out->text.p + at : "", r->out->text.len - at, false);
	uint8_t *own = jinja_take(&r->m, v.s->n + 1);
	if (v.s->n)
		memcpy(own, r->out->own.p + at, v.s->n);
	v.s->mixed = own;
	r->out->text.len = r->out->own.len = at;
	return v;
}

static struct jinja_value call_macro(struct jinja_run *r, struct jinja_macro *m, struct jinja_args *a, struct jinja_value caller)
{
	struct jinja_frame *f = frame(r, m->frame);
	struct jinja_value rest = jinja_new_list(&r->m), named = jinja_new_dict(&r->m);
	rest.list->tuple = true;
	int i = 0;
	bool *used = jinja_take(&r->m, (size_t)a->n_named + 1);
	for (const struct jinja_node *p = m->n->a; p; p = p->next, i++) {
		struct jinja_value v = i < a->n ? a->v[i] : undefined(p->s);
		for (int k = 0; i >= a->n && k < a->n_named; k++)
			if (a->names[k]->n == p->s->n && !memcmp(a->names[k]->p, p->s->p, p->s->n)) {
				v = a->named[k];
				used[k] = true;
			}
		if (v.kind == J_UNDEFINED && p->a)
			v = eval(r, f, p->a);
		assign(r, f, p->s, v);
	}
	for (; i < a->n; i++)
		jinja_append(&r->m, rest.list, a->v[i]);
	for (int k = 0; k < a->n_named; k++)
		if (!used[k])
			jinja_put(&r->m, named.dict, jinja_bytes(&r->m, a->names[k]->p, a->names[k]->n, true), a->named[k]);
	assign_named(r, f, "varargs", rest);
	assign_named(r, f, "kwargs", named);
	if (caller.kind == J_MACRO)
		assign_named(r, f, "caller", caller);
	return capture(r, f, m->n->b);
}

static enum flow loop(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value items, int depth);

struct jinja_value jinja_call(struct jinja_run *r, struct jinja_value f, struct jinja_args *a)
{
	struct jinja_value v;
	enter(r, NULL);
	if (f.kind == J_FUNCTION) {
		v = f.function->call(r, f.function->self, a);
	} else if (f.kind == J_MACRO) {
		v = call_macro(r, f.macro, a, jinja_undefined());
	} else if (f.kind == J_LOOP && f.loop->n && a->n == 1) { /* loop(children) of a recursive loop */
		size_t at = r->out->text.len;
		loop(r, f.loop->frame, f.loop->n, a->v[0], f.loop->depth + 1);
		v = jinja_bytes(&r->m, r->out->text.p ? r->out->text.p + at : "", r->out->text.len - at, false);
		uint8_t *own = jinja_take(&r->m, v.s->n + 1);
		if (v.s->n)
			memcpy(own, r->out->own.p + at, v.s->n);
		v.s->mixed = own;
		r->out->text.len = r->out->own.len = at;
	} else if (f.kind == J_UNDEFINED) {
		jinja_fail(&r->m, "'%.60s' is undefined and cannot be called", f.s ? f.s->p : "a value");
	} else {
		jinja_fail(&r->m, "%s cannot be called", jinja_kind_name(f));
	}
	r->m.depth--;
	return v;
}

/* ---- expressions ---- */

static struct jinja_value elements(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n)
{
	struct jinja_value v = n->kind == N_LIST ? jinja_new_list(&r->m) : jinja_new_dict(&r->m);
	if (n->tuple)
		v.list->tuple = true;
	for (const struct jinja_node *e = n->a; e; e = e->next)
		if (n->kind == N_LIST) {
			jinja_append(&r->m, v.list, eval(r, f, e));
		} else {
			struct jinja_value key = eval(r, f, e);
			e = e->next;
			jinja_put(&r->m, v.dict, key, eval(r, f, e));
		}
	return v;
}

static struct jinja_value eval_inside(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n)
{
	struct jinja_value a;
	struct jinja_args args;
	switch (n->kind) {
	case N_CONST:
		return n->value;
	case N_NAME:
		return look_up(r, f, n->s);
	case N_LIST:
	case N_DICT:
		return elements(r, f, n);
	case N_ATTR:
		return jinja_attribute(r, eval(r, f, n->a), n->s, false);
	case N_ITEM:
		a = eval(r, f, n->a);
		return jinja_subscript(r, a, eval(r, f, n->b));
	case N_SLICE:
		return slice(r, f, n, eval(r, f, n->a));
	case N_CALL:
		a = eval(r, f, n->a);
		arguments(r, f, n->b, &args);
		return jinja_call(r, a, &args);
	case N_FILTER:
		a = eval(r, f, n->a);
		arguments(r, f, n->b, &args);
		return jinja_filter(r, n->s, a, &args);
	case N_TEST:
		a = eval(r, f, n->a);
		arguments(r, f, n->b, &args);
		return jinja_bool(jinja_test(r, n->s, a, &args) != n->negated);
	case N_NOT:
		return jinja_bool(!jinja_true(eval(r, f, n->a)));
	case N_NEG:
	case N_POS:
		return jinja_sign(r, eval(r, f, n->a), n->kind == N_NEG);
	case N_AND:
		a = eval(r, f, n->a);
		return jinja_true(a) ? eval(r, f, n->b) : a;
	case N_OR:
		a = eval(r, f, n->a);
		return jinja_true(a) ? a : eval(r, f, n->b);
	case N_COND:
		if (jinja_true(eval(r, f, n->a)))
			return eval(r, f, n->b);
		return n->c ? eval(r, f, n->c) : jinja_undefined();
	case N_BINARY:
		a = eval(r, f, n->a);
		return jinja_binary(r, n->op, a, eval(r, f, n->b));
	case N_COMPARE:
		a = eval(r, f, n->a);
		return jinja_bool(jinja_relation(r, n->op, a, eval(r, f, n->b)));
	default:
		jinja_fail(&r->m, "a named argument stands alone");
	}
}

static struct jinja_value eval(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n)
{
	enter(r, n);
	struct jinja_value v = eval_inside(r, f, n);
	r->m.depth--;
	return v;
}

/* ---- statements ---- */

static void print(struct jinja_run *r, struct jinja_value v)
{
	v = jinja_to_string(&r->m, v);
	if (r->out->text.len + v.s->n > JINJA_OUTPUT_MAX)
		jinja_fail(&r->m, "it writes more than %zu MiB", JINJA_OUTPUT_MAX >> 20);
	jinja_step(&r->m, 1 + v.s->n / 256);
	stave_buf_put(&r->out->text, v.s->p, v.s->n);
	stave_buf_reserve(&r->out->own, v.s->n + 1);
	if (v.s->mixed)
		memcpy(r->out->own.p + r->out->own.len, v.s->mixed, v.s->n);
	else
		memset(r->out->own.p + r->out->own.len, v.s->own, v.s->n);
	r->out->own.len += v.s->n;
}

/* One name takes the value; several take its elements. */
static void unpack(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *target, struct jinja_value v)
{
	int n = 0, i = 0;
	if (!target->next) {
		assign(r, f, target->s, v);
		return;
	}
	for (const struct jinja_node *t = target; t; t = t->next)
		n++;
	v = jinja_iterate(&r->m, v);
	if (v.list->n != n)
		jinja_fail(&r->m, "%d names for %d values", n, v.list->n);
	for (const struct jinja_node *t = target; t; t = t->next)
		assign(r, f, t->s, v.list->v[i++]);
}

static enum flow loop(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value items, int depth)
{
	const struct jinja_node *parts = n->c;
	struct jinja_value all = jinja_iterate(&r->m, items), kept = all;
	if (parts->c) {
		kept = jinja_new_list(&r->m);
		for (int i = 0; i < all.list->n; i++) {
			struct jinja_frame *inner = frame(r, f);
			unpack(r, inner, n->a, all.list->v[i]);
			if (jinja_true(eval(r, inner, parts->c)))
				jinja_append(&r->m, kept.list, all.list->v[i]);
		}
	}
	struct jinja_loop *l = jinja_take(&r->m, sizeof *l);
	*l = (struct jinja_loop){.items = kept, .depth = depth, .n = n->recursive ? n : NULL, .frame = f};
	for (; l->i < kept.list->n; l->i++) {
		struct jinja_frame *inner = frame(r, f);
		assign_named(r, inner, "loop", (struct jinja_value){.kind = J_LOOP, .loop = l});
		unpack(r, inner, n->a, kept.list->v[l->i]);
		if (run(r, inner, parts->a) == BREAK)
			break;
	}
	if (!kept.list->n)
		return run(r, f, parts->b);
	return NEXT;
}

static void set(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n, struct jinja_value v)
{
	if (!n->s) {
		unpack(r, f, n->a, v);
		return;
	}
	struct jinja_value ns = look_up(r, f, n->a->s);
	if (ns.kind != J_DICT || !ns.dict->namespace)
		jinja_fail(&r->m, "'%.60s' is no namespace; only those take new attributes", n->a->s->p);
	jinja_put(&r->m, ns.dict, jinja_bytes(&r->m, n->s->p, n->s->n, true), v);
}

/* The filters around a captured text: the chain ends in the node `text` stands for. */
static struct jinja_value filtered(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *chain, const struct jinja_node *end, struct jinja_value text)
{
	if (chain == end)
		return text;
	struct jinja_args args;
	struct jinja_value v = filtered(r, f, chain->a, end, text);
	arguments(r, f, chain->b, &args);
	return jinja_filter(r, chain->s, v, &args);
}

static struct jinja_value macro_value(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n)
{
	struct jinja_macro *m = jinja_take(&r->m, sizeof *m);
	*m = (struct jinja_macro){n, f};
	return (struct jinja_value){.kind = J_MACRO, .macro = m};
}

static void call_block(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n)
{
	struct jinja_value callee = eval(r, f, n->c->a), caller = macro_value(r, f, n);
	struct jinja_args args;
	if (callee.kind != J_MACRO)
		jinja_fail(&r->m, "a call block needs a macro, not %s", jinja_kind_name(callee));
	arguments(r, f, n->c->b, &args);
	print(r, call_macro(r, callee.macro, &args, caller));
}

static enum flow statement(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n)
{
	switch (n->kind) {
	case N_TEXT:
		print(r, n->value);
		return NEXT;
	case N_PRINT:
		print(r, eval(r, f, n->a));
		return NEXT;
	case N_IF:
		return run(r, f, jinja_true(eval(r, f, n->a)) ? n->b : n->c);
	case N_FOR:
		return loop(r, f, n, eval(r, f, n->b), 1);
	case N_SET:
		set(r, f, n, eval(r, f, n->b));
		return NEXT;
	case N_BLOCK_SET:
		set(r, f, n, filtered(r, f, n->c, n->d, capture(r, frame(r, f), n->b)));
		return NEXT;
	case N_MACRO:
		assign(r, f, n->s, macro_value(r, f, n));
		return NEXT;
	case N_CALL_BLOCK:
		call_block(r, f, n);
		return NEXT;
	case N_FILTER_BLOCK:
		print(r, filtered(r, f, n->c, n->d, capture(r, frame(r, f), n->b)));
		return NEXT;
	case N_BODY:
		return run(r, f, n->a);
	case N_BREAK:
		return BREAK;
	default:
		return CONTINUE;
	}
}

static enum flow run(struct jinja_run *r, struct jinja_frame *f, const struct jinja_node *n)
{
	enum flow flow = NEXT;
	for (; n && flow == NEXT; n = n->next) {
		enter(r, n);
		flow = statement(r, f, n);
		r->m.depth--;
	}
	return flow;
}

/* ---- the door ---- */

int jinja_open(struct jinja **out, const char *source, size_t n, struct stave_err *err)
{
	struct stave_err local;
	if (n > JINJA_SOURCE_MAX)
		return stave_err_set(err, STAVE_EUSAGE, "the chat template has %zu bytes; at most %zu are read", n, JINJA_SOURCE_MAX);
	struct jinja *t = calloc(1, sizeof *t);
	char *copy = malloc(n + 1);
	jmp_buf fail;
	if (!t || !copy) {
		free(t);
		free(copy);
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for a chat template");
	}
	memcpy(copy, source, n);
	copy[n] = 0;
	t->memory.err = err ? err : &local;
	t->memory.fail = &fail;
	if (setjmp(fail)) {
		free(copy);
		jinja_close(t);
		return STAVE_EUSAGE;
	}
	t->body = jinja_parse(&t->memory, copy, n);
	free(copy);
	t->memory.fail = NULL;
	t->memory.err = NULL;
	*out = t;
	return 0;
}

void jinja_close(struct jinja *t)
{
	if (!t)
		return;
	jinja_memory_free(&t->memory);
	free(t);
}

void jinja_text_free(struct jinja_text *t)
{
	stave_buf_free(&t->text);
	stave_buf_free(&t->own);
}

static void add_variables(struct jinja_run *r, const json_t *from, bool own)
{
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)from, key, v)
		assign_named(r, r->globals, key, jinja_from_json(&r->m, v, own));
}

int jinja_render(const struct jinja *t, const json_t *data, const json_t *tokens, time_t now, struct jinja_text *out, struct stave_err *err)
{
	struct stave_err local;
	jmp_buf fail;
	struct jinja_run r = {.m = {.err = err ? err : &local, .fail = &fail}, .now = now, .out = out};
	size_t before = out->text.len;
	if (setjmp(fail)) {
		out->text.len = out->own.len = before;
		jinja_memory_free(&r.m);
		return STAVE_EUSAGE;
	}
	r.globals = frame(&r, NULL);
	add_variables(&r, data, false);
	add_variables(&r, tokens, true);
	run(&r, frame(&r, r.globals), t->body);
	jinja_memory_free(&r.m);
	return 0;
}
