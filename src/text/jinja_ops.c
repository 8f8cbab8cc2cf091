/* Operators and tests of the subset: what Python makes of two values, and what may be asked of one (`x is y`). Integers are of 64 bits; an
 * operation that would leave them fails, as do division by zero and long repetitions. */
#include <math.h>
#include <utf8proc.h>

#include "text/jinja.h"

/* ---- operators ---- */

static struct jinja_value whole(struct jinja_run *r, enum jinja_op op, int64_t a, int64_t b)
{
	int64_t v = 0;
	bool over = false;
	if ((op == OP_FLOORDIV || op == OP_MOD) && !b)
		jinja_fail(&r->m, "division by zero");
	if (op == OP_ADD)
		over = __builtin_add_overflow(a, b, &v);
	else if (op == OP_SUB)
		over = __builtin_sub_overflow(a, b, &v);
	else if (op == OP_MUL)
		over = __builtin_mul_overflow(a, b, &v);
	else if (b == -1) { /* INT64_MIN / -1 traps */
		over = op == OP_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &v);
	} else if (op == OP_FLOORDIV)
		v = a / b - (a % b && (a < 0) != (b < 0));
	else
		v = a % b + (a % b && (a < 0) != (b < 0) ? b : 0);
	if (over)
		jinja_fail(&r->m, "an integer overflows");
	return jinja_int(v);
}

static struct jinja_value power(struct jinja_run *r, struct jinja_value a, struct jinja_value b)
{
	if (a.kind == J_FLOAT || b.kind == J_FLOAT || jinja_number(b) < 0)
		return jinja_float(pow(jinja_number(a), jinja_number(b)));
	struct jinja_value v = jinja_int(1);
	int64_t n = b.kind == J_INT ? b.i : b.b;
	if (n > 64 && !(a.kind == J_INT && (a.i == 0 || a.i == 1 || a.i == -1)))
		jinja_fail(&r->m, "an integer overflows");
	for (n = n > 64 ? 64 + (n & 1) : n; n > 0; n--)
		v = whole(r, OP_MUL, v.i, a.kind == J_INT ? a.i : a.b);
	return v;
}

static struct jinja_value arithmetic(struct jinja_run *r, enum jinja_op op, struct jinja_value a, struct jinja_value b)
{
	double x = jinja_number(a), y = jinja_number(b);
	if (op == OP_POW)
		return power(r, a, b);
	if (op != OP_DIV && a.kind != J_FLOAT && b.kind != J_FLOAT)
		return whole(r, op, a.kind == J_INT ? a.i : a.b, b.kind == J_INT ? b.i : b.b);
	if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && y == 0)
		jinja_fail(&r->m, "division by zero");
	double m = op == OP_MOD ? fmod(x, y) : 0;
	return jinja_float(op == OP_ADD ? x + y : op == OP_SUB ? x - y : op == OP_MUL ? x * y : op == OP_DIV ? x / y : op == OP_FLOORDIV ? floor(x / y) :
	                   m != 0 && (m < 0) != (y < 0) ? m + y : m);
}

static struct jinja_value repeat(struct jinja_run *r, struct jinja_value v, int64_t times)
{
	if (times > 100000)
		jinja_fail(&r->m, "a repetition of %lld", (long long)times);
	struct jinja_value list = jinja_new_list(&r->m);
	for (int64_t i = 0; i < times; i++) {
		jinja_step(&r->m, 1);
		for (int k = 0; v.kind == J_LIST && k < v.list->n; k++)
			jinja_append(&r->m, list.list, v.list->v[k]);
	}
	if (v.kind == J_LIST)
		return list;
	size_t n = times > 0 ? (size_t)times : 0;
	const struct jinja_string **s = jinja_take(&r->m, (n + 1) * sizeof *s);
	for (size_t i = 0; i < n; i++)
		s[i] = v.s;
	return jinja_join(&r->m, s, n);
}

struct jinja_value jinja_binary(struct jinja_run *r, enum jinja_op op, struct jinja_value a, struct jinja_value b)
{
	if (op == OP_CONCAT) {
		a = jinja_to_string(&r->m, a);
		b = jinja_to_string(&r->m, b);
		return jinja_join(&r->m, (const struct jinja_string *const[]){a.s, b.s}, 2);
	}
	if (jinja_is_number(a) && jinja_is_number(b))
		return arithmetic(r, op, a, b);
	if (op == OP_ADD && a.kind == J_STRING && b.kind == J_STRING)
		return jinja_join(&r->m, (const struct jinja_string *const[]){a.s, b.s}, 2);
	if (op == OP_ADD && a.kind == J_LIST && b.kind == J_LIST) {
		struct jinja_value l = jinja_new_list(&r->m);
		for (int i = 0; i < a.list->n; i++)
			jinja_append(&r->m, l.list, a.list->v[i]);
		for (int i = 0; i < b.list->n; i++)
			jinja_append(&r->m, l.list, b.list->v[i]);
		jinja_step(&r->m, (size_t)l.list->n);
		return l;
	}
	if (op == OP_MUL && (a.kind == J_STRING || a.kind == J_LIST) && b.kind == J_INT)
		return repeat(r, a, b.i);
	if (a.kind == J_UNDEFINED || b.kind == J_UNDEFINED) {
		struct jinja_value u = a.kind == J_UNDEFINED ? a : b;
		jinja_fail(&r->m, "'%.60s' is undefined", u.s ? u.s->p : "a value");
	}
	jinja_fail(&r->m, "no such operation on %s and %s", jinja_kind_name(a), jinja_kind_name(b));
}

bool jinja_relation(struct jinja_run *r, enum jinja_op op, struct jinja_value a, struct jinja_value b)
{
	switch (op) {
	case OP_EQ:
		return jinja_equal(&r->m, a, b);
	case OP_NE:
		return !jinja_equal(&r->m, a, b);
	case OP_IN:
		return jinja_contains(&r->m, b, a);
	case OP_NOT_IN:
		return !jinja_contains(&r->m, b, a);
	default:
		break;
	}
	int c = jinja_compare(&r->m, a, b);
	return op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0;
}

struct jinja_value jinja_sign(struct jinja_run *r, struct jinja_value v, bool minus)
{
	if (!jinja_is_number(v))
		jinja_fail(&r->m, "%s has no sign", jinja_kind_name(v));
	if (v.kind == J_FLOAT)
		return jinja_float(minus ? -v.f : v.f);
	return minus ? whole(r, OP_SUB, 0, v.kind == J_INT ? v.i : v.b) : jinja_int(v.kind == J_INT ? v.i : v.b);
}

/* ---- tests ---- */

static bool cased(const struct jinja_string *s, bool upper)
{
	bool any = false;
	for (size_t i = 0; i < s->n;) {
		utf8proc_int32_t c;
		utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s->p + i, (utf8proc_ssize_t)(s->n - i), &c);
		if (n > 0 && (upper ? utf8proc_tolower(c) != c : utf8proc_toupper(c) != c))
			any = true;
		else if (n > 0 && (upper ? utf8proc_toupper(c) != c : utf8proc_tolower(c) != c))
			return false;
		i += n > 0 ? (size_t)n : 1;
	}
	return any;
}

typedef bool test_fn(struct jinja_run *r, struct jinja_value v, struct jinja_value x);
#define TEST(name, expression) static bool is_##name(struct jinja_run *r, struct jinja_value v, struct jinja_value x) { return expression; }
TEST(boolean, v.kind == J_BOOL)
TEST(callable, v.kind == J_FUNCTION || v.kind == J_MACRO)
TEST(defined, v.kind != J_UNDEFINED)
TEST(undefined, v.kind == J_UNDEFINED)
TEST(none, v.kind == J_NONE)
TEST(true, v.kind == J_BOOL && v.b)
TEST(false, v.kind == J_BOOL && !v.b)
TEST(eq, jinja_equal(&r->m, v, x))
TEST(ne, !jinja_equal(&r->m, v, x))
TEST(lt, jinja_compare(&r->m, v, x) < 0)
TEST(le, jinja_compare(&r->m, v, x) <= 0)
TEST(gt, jinja_compare(&r->m, v, x) > 0)
TEST(ge, jinja_compare(&r->m, v, x) >= 0)
TEST(in, jinja_contains(&r->m, x, v))
TEST(even, jinja_int_of(r, v, "even") % 2 == 0)
TEST(odd, jinja_int_of(r, v, "odd") % 2 != 0)
TEST(float, v.kind == J_FLOAT)
TEST(integer, v.kind == J_INT)
TEST(number, jinja_is_number(v))
TEST(iterable, v.kind == J_LIST || v.kind == J_DICT || v.kind == J_STRING || v.kind == J_UNDEFINED)
TEST(sequence, v.kind == J_LIST || v.kind == J_DICT || v.kind == J_STRING || v.kind == J_UNDEFINED)
TEST(mapping, v.kind == J_DICT)
TEST(string, v.kind == J_STRING)
TEST(lower, cased(jinja_to_string(&r->m, v).s, false))
TEST(upper, cased(jinja_to_string(&r->m, v).s, true))
TEST(sameas, v.kind == x.kind && (v.kind == J_LIST || v.kind == J_DICT || v.kind == J_STRING ? v.list == x.list : jinja_equal(&r->m, v, x)))

static bool is_divisibleby(struct jinja_run *r, struct jinja_value v, struct jinja_value x)
{
	int64_t by = jinja_int_of(r, x, "divisibleby");
	if (!by)
		jinja_fail(&r->m, "division by zero");
	return by == -1 || jinja_int_of(r, v, "divisibleby") % by == 0;
}

static const struct {
	const char *name;
	test_fn *call;
} tests[] = {
	{"boolean", is_boolean}, {"callable", is_callable}, {"defined", is_defined}, {"divisibleby", is_divisibleby}, {"eq", is_eq}, {"equalto", is_eq},
	{"even", is_even}, {"false", is_false}, {"float", is_float}, {"ge", is_ge}, {"gt", is_gt}, {"greaterthan", is_gt}, {"in", is_in},
	{"integer", is_integer}, {"iterable", is_iterable}, {"le", is_le}, {"lessthan", is_lt}, {"lower", is_lower}, {"lt", is_lt}, {"mapping", is_mapping},
	{"ne", is_ne}, {"none", is_none}, {"number", is_number}, {"odd", is_odd}, {"sameas", is_sameas}, {"sequence", is_sequence},
	{"string", is_string}, {"true", is_true}, {"undefined", is_undefined}, {"upper", is_upper},
	{"==", is_eq}, {"!=", is_ne}, {"<", is_lt}, {"<=", is_le}, {">", is_gt}, {">=", is_ge},
};

static test_fn *find_test(const struct jinja_string *name)
{
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		if (jinja_is(name, tests[i].name))
			return tests[i].call;
	return NULL;
}

bool jinja_test_exists(const struct jinja_string *name) { return find_test(name); }

bool jinja_test(struct jinja_run *r, const struct jinja_string *name, struct jinja_value v, struct jinja_args *a)
{
	test_fn *f = find_test(name);
	if (!f)
		jinja_fail(&r->m, "the test '%.40s' is not supported", name->p);
	jinja_step(&r->m, 1);
	return f(r, v, a->n ? a->v[0] : jinja_undefined());
}
