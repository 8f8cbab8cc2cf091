/* The parser: tokens (jinja_lex.c) and the text between tags to a tree, by recursive descent after Jinja's own grammar (the documentation of Jinja 3, section
 * "Expressions"). trim_blocks and lstrip_blocks are on, as Hugging Face renders chat templates. Nesting is bounded by JINJA_DEPTH_MAX. */
#include <ctype.h>
#include <string.h>

#include "text/jinja_lex.h"

static struct jinja_node *expression(struct parser *p);
static struct jinja_node *body(struct parser *p, const char *const *stops);

static struct jinja_node *node(struct parser *p, enum jinja_node_kind kind)
{
	struct jinja_node *n = jinja_take(p->m, sizeof *n);
	n->kind = kind;
	n->line = p->m->line;
	return n;
}

static void enter(struct parser *p)
{
	if (++p->m->depth > JINJA_DEPTH_MAX)
		jinja_fail(p->m, "nested deeper than %d", JINJA_DEPTH_MAX);
}

/* ---- expressions ---- */

static struct jinja_node *constant(struct parser *p, struct jinja_value v)
{
	struct jinja_node *n = node(p, N_CONST);
	n->value = v;
	return n;
}

static struct jinja_node *binary(struct parser *p, enum jinja_node_kind kind, enum jinja_op op, struct jinja_node *a, struct jinja_node *b)
{
	struct jinja_node *n = node(p, kind);
	n->op = op;
	n->a = a;
	n->b = b;
	return n;
}

/* "(" already consumed: arguments up to ")", named ones as KEYWORD nodes. */
static struct jinja_node *arguments(struct parser *p)
{
	struct jinja_node *first = NULL, **end = &first;
	while (!lex_at_op(p, ")")) {
		struct jinja_node *a = expression(p);
		if (a->kind == N_NAME && lex_at_op(p, "=")) {
			lex_next(p);
			struct jinja_node *k = node(p, N_KEYWORD);
			k->s = a->s;
			k->a = expression(p);
			a = k;
		}
		*end = a;
		end = &a->next;
		if (!lex_accept(p, T_OP, ","))
			break;
	}
	lex_expect(p, ")");
	return first;
}

static struct jinja_node *elements(struct parser *p, enum jinja_node_kind kind, const char *close)
{
	struct jinja_node *n = node(p, kind), **end = &n->a;
	while (!lex_at_op(p, close)) {
		*end = expression(p);
		if (kind == N_DICT) {
			lex_expect(p, ":");
			(*end)->next = expression(p);
			end = &(*end)->next;
		}
		end = &(*end)->next;
		if (!lex_accept(p, T_OP, ","))
			break;
	}
	lex_expect(p, close);
	return n;
}

static struct jinja_node *parenthesis(struct parser *p)
{
	if (lex_accept(p, T_OP, ")")) {
		struct jinja_node *n = node(p, N_LIST);
		n->tuple = true;
		return n;
	}
	struct jinja_node *a = expression(p);
	if (lex_at_op(p, ",")) { /* a tuple */
		struct jinja_node *n = node(p, N_LIST), **end = &a->next;
		n->a = a;
		n->tuple = true;
		while (lex_accept(p, T_OP, ",") && !lex_at_op(p, ")")) {
			*end = expression(p);
			end = &(*end)->next;
		}
		a = n;
	}
	lex_expect(p, ")");
	return a;
}

static struct jinja_node *primary(struct parser *p)
{
	struct jinja_node *n;
	if (p->kind == T_STRING) { /* neighbours are one string, as in Python */
		struct jinja_value v = p->value;
		for (lex_next(p); p->kind == T_STRING; lex_next(p))
			v = jinja_join(p->m, (const struct jinja_string *const[]){v.s, p->value.s}, 2);
		return constant(p, v);
	}
	if (p->kind == T_INT || p->kind == T_FLOAT) {
		n = constant(p, p->value);
		lex_next(p);
		return n;
	}
	if (lex_accept(p, T_OP, "("))
		return parenthesis(p);
	if (lex_accept(p, T_OP, "["))
		return elements(p, N_LIST, "]");
	if (lex_accept(p, T_OP, "{"))
		return elements(p, N_DICT, "}");
	if (p->kind != T_NAME)
		jinja_fail(p->m, "expected an expression");
	const struct jinja_string *s = lex_expect_name(p);
	if (jinja_is(s, "true") || jinja_is(s, "True"))
		return constant(p, jinja_bool(true));
	if (jinja_is(s, "false") || jinja_is(s, "False"))
		return constant(p, jinja_bool(false));
	if (jinja_is(s, "none") || jinja_is(s, "None"))
		return constant(p, jinja_none());
	n = node(p, N_NAME);
	n->s = s;
	return n;
}

static struct jinja_node *subscript(struct parser *p, struct jinja_node *a)
{
	struct jinja_node *part[3] = {0};
	int colons = 0;
	while (!lex_at_op(p, "]")) {
		if (lex_accept(p, T_OP, ":")) {
			if (++colons > 2)
				jinja_fail(p->m, "a slice has at most two colons");
		} else {
			if (part[colons])
				jinja_fail(p->m, "expected ':' or ']'");
			part[colons] = expression(p);
		}
	}
	lex_next(p);
	if (!colons && !part[0])
		jinja_fail(p->m, "an empty subscript");
	struct jinja_node *n = node(p, colons ? N_SLICE : N_ITEM);
	n->a = a;
	n->b = part[0];
	n->c = part[1];
	n->d = part[2];
	return n;
}

static struct jinja_node *postfix(struct parser *p, struct jinja_node *a)
{
	for (;;) {
		struct jinja_node *n;
		jinja_step(p->m, 1);
		if (lex_accept(p, T_OP, ".")) {
			n = node(p, N_ATTR);
			if (p->kind == T_INT) { /* x.0 */
				n->kind = N_ITEM;
				n->b = constant(p, p->value);
				lex_next(p);
			} else {
				n->s = lex_expect_name(p);
			}
			n->a = a;
		} else if (lex_accept(p, T_OP, "[")) {
			n = subscript(p, a);
		} else if (lex_accept(p, T_OP, "(")) {
			n = node(p, N_CALL);
			n->a = a;
			n->b = arguments(p);
		} else {
			return a;
		}
		a = n;
	}
}

static struct jinja_node *filter(struct parser *p, struct jinja_node *a)
{
	struct jinja_node *n = node(p, N_FILTER);
	n->a = a;
	n->s = lex_expect_name(p);
	if (!jinja_filter_exists(n->s))
		jinja_fail(p->m, "the filter '%.40s' is not supported", n->s->p);
	if (lex_accept(p, T_OP, "("))
		n->b = arguments(p);
	return n;
}

static struct jinja_node *test(struct parser *p, struct jinja_node *a)
{
	struct jinja_node *n = node(p, N_TEST);
	n->a = a;
	n->negated = lex_accept(p, T_NAME, "not");
	n->s = lex_expect_name(p);
	if (!jinja_test_exists(n->s))
		jinja_fail(p->m, "the test '%.40s' is not supported", n->s->p);
	bool word = p->kind == T_NAME && !lex_at_name(p, "else") && !lex_at_name(p, "or") && !lex_at_name(p, "and") && !lex_at_name(p, "if") && !lex_at_name(p, "is");
	if (lex_accept(p, T_OP, "("))
		n->b = arguments(p);
	else if (word || p->kind == T_STRING || p->kind == T_INT || p->kind == T_FLOAT || lex_at_op(p, "[") || lex_at_op(p, "{"))
		n->b = postfix(p, primary(p));
	return n;
}

static struct jinja_node *unary(struct parser *p, bool with_filter)
{
	struct jinja_node *n;
	enter(p);
	if (lex_at_op(p, "-") || lex_at_op(p, "+")) {
		n = node(p, lex_at_op(p, "-") ? N_NEG : N_POS);
		lex_next(p);
		n->a = unary(p, false);
	} else {
		n = primary(p);
	}
	n = postfix(p, n);
	while (with_filter) {
		if (lex_accept(p, T_OP, "|"))
			n = filter(p, n);
		else if (lex_accept(p, T_NAME, "is"))
			n = test(p, n);
		else if (lex_accept(p, T_OP, "(")) {
			struct jinja_node *call = node(p, N_CALL);
			call->a = n;
			call->b = arguments(p);
			n = call;
		} else
			break;
	}
	p->m->depth--;
	return n;
}

/* One level of left-associative operators. */
struct level {
	const char *text;
	enum jinja_op op;
};
static const struct level levels[][5] = {
	{{"+", OP_ADD}, {"-", OP_SUB}},
	{{"~", OP_CONCAT}},
	{{"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOORDIV}, {"%", OP_MOD}},
	{{"**", OP_POW}},
};

static struct jinja_node *arithmetic(struct parser *p, size_t level)
{
	if (level == sizeof levels / sizeof *levels)
		return unary(p, true);
	struct jinja_node *a = arithmetic(p, level + 1);
	for (const struct level *l = levels[level]; l->text;) {
		if (lex_accept(p, T_OP, l->text)) {
			a = binary(p, N_BINARY, l->op, a, arithmetic(p, level + 1));
			l = levels[level];
		} else {
			l++;
		}
	}
	return a;
}

/* a < b < c compares neighbours; both must hold. */
static struct jinja_node *comparison(struct parser *p)
{
	static const struct level ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT}, {"<=", OP_LE}, {">", OP_GT}, {">=", OP_GE}};
	struct jinja_node *a = arithmetic(p, 0), *all = NULL;
	for (;;) {
		int op = -1;
		for (size_t i = 0; op < 0 && i < sizeof ops / sizeof *ops; i++)
			if (lex_accept(p, T_OP, ops[i].text))
				op = (int)ops[i].op;
		if (op < 0 && lex_accept(p, T_NAME, "in"))
			op = OP_IN;
		if (op < 0 && lex_at_name(p, "not")) {
			lex_next(p);
			if (!lex_accept(p, T_NAME, "in"))
				jinja_fail(p->m, "expected 'in' after 'not'");
			op = OP_NOT_IN;
		}
		if (op < 0)
			return all ? all : a;
		struct jinja_node *b = arithmetic(p, 0), *c = binary(p, N_COMPARE, (enum jinja_op)op, a, b);
		all = all ? binary(p, N_AND, 0, all, c) : c;
		a = b;
	}
}

static struct jinja_node *negation(struct parser *p)
{
	if (!lex_at_name(p, "not"))
		return comparison(p);
	enter(p);
	struct jinja_node *n = node(p, N_NOT);
	lex_next(p);
	n->a = negation(p);
	p->m->depth--;
	return n;
}

static struct jinja_node *logic(struct parser *p, bool or)
{
	struct jinja_node *a = or ? logic(p, false) : negation(p);
	while (lex_accept(p, T_NAME, or ? "or" : "and"))
		a = binary(p, or ? N_OR : N_AND, 0, a, or ? logic(p, false) : negation(p));
	return a;
}

static struct jinja_node *expression(struct parser *p)
{
	enter(p);
	struct jinja_node *a = logic(p, true);
	while (lex_at_name(p, "if")) {
		struct jinja_node *n = node(p, N_COND);
		lex_next(p);
		n->b = a;
		n->a = logic(p, true);
		if (lex_accept(p, T_NAME, "else"))
			n->c = expression(p);
		a = n;
	}
	p->m->depth--;
	return a;
}

/* expression, or several with commas: a tuple */
static struct jinja_node *expressions(struct parser *p)
{
	struct jinja_node *a = expression(p);
	if (!lex_at_op(p, ","))
		return a;
	struct jinja_node *n = node(p, N_LIST), **end = &a->next;
	n->a = a;
	n->tuple = true;
	while (lex_accept(p, T_OP, ",") && p->kind != T_END) {
		*end = expression(p);
		end = &(*end)->next;
	}
	return n;
}

/* ---- statements ---- */

static struct jinja_node *parse_if(struct parser *p)
{
	static const char *const stops[] = {"elif", "else", "endif", NULL};
	struct jinja_node *n = node(p, N_IF);
	enter(p);
	n->a = expression(p);
	lex_expect_end(p);
	n->b = body(p, stops);
	if (jinja_is(p->stop, "elif")) {
		lex_next(p);
		n->c = parse_if(p);
	} else if (jinja_is(p->stop, "else")) {
		lex_next(p);
		lex_expect_end(p);
		n->c = body(p, stops + 2);
		lex_next(p);
	} else {
		lex_next(p);
	}
	p->m->depth--;
	return n;
}

/* Names to assign: one, several with commas, or in parentheses. */
static struct jinja_node *targets(struct parser *p)
{
	bool parens = lex_accept(p, T_OP, "(");
	struct jinja_node *first = NULL, **end = &first;
	do {
		if (first && p->kind != T_NAME)
			break;
		*end = node(p, N_NAME);
		(*end)->s = lex_expect_name(p);
		end = &(*end)->next;
	} while (lex_accept(p, T_OP, ","));
	if (parens)
		lex_expect(p, ")");
	return first;
}

static struct jinja_node *parse_for(struct parser *p)
{
	static const char *const stops[] = {"else", "endfor", NULL};
	struct jinja_node *n = node(p, N_FOR);
	n->a = targets(p);
	if (!lex_accept(p, T_NAME, "in"))
		jinja_fail(p->m, "expected 'in'");
	/* no inline if here: it is the filter */
	n->b = logic(p, true);
	if (lex_at_op(p, ",")) {
		struct jinja_node *tuple = node(p, N_LIST), **end = &n->b->next;
		tuple->a = n->b;
		while (lex_accept(p, T_OP, ",")) {
			*end = logic(p, true);
			end = &(*end)->next;
		}
		n->b = tuple;
	}
	struct jinja_node *bodies = node(p, N_BODY); /* a: loop, b: else, c: condition */
	if (lex_accept(p, T_NAME, "if"))
		bodies->c = expression(p);
	n->recursive = lex_accept(p, T_NAME, "recursive");
	lex_expect_end(p);
	bodies->a = body(p, stops);
	bool otherwise = jinja_is(p->stop, "else");
	lex_next(p);
	if (otherwise) {
		lex_expect_end(p);
		bodies->b = body(p, stops + 1);
		lex_next(p);
	}
	n->c = bodies;
	return n;
}

static struct jinja_node *parse_set(struct parser *p)
{
	static const char *const stops[] = {"endset", NULL};
	struct jinja_node *n = node(p, N_SET);
	n->a = targets(p);
	if (lex_accept(p, T_OP, ".")) { /* ns.name */
		n->s = lex_expect_name(p);
	}
	if (lex_accept(p, T_OP, "=")) {
		n->b = expressions(p);
		return n;
	}
	n->kind = N_BLOCK_SET;
	struct jinja_node *filters = node(p, N_CONST); /* stands for the text */
	n->c = filters;
	while (lex_accept(p, T_OP, "|"))
		n->c = filter(p, n->c);
	n->d = filters;
	lex_expect_end(p);
	n->b = body(p, stops);
	lex_next(p);
	return n;
}

/* name(parameters): parameters as KEYWORD nodes, a = default or NULL. */
static struct jinja_node *parameters(struct parser *p)
{
	struct jinja_node *first = NULL, **end = &first;
	if (!lex_accept(p, T_OP, "("))
		return NULL;
	while (!lex_at_op(p, ")")) {
		*end = node(p, N_KEYWORD);
		(*end)->s = lex_expect_name(p);
		if (lex_accept(p, T_OP, "="))
			(*end)->a = expression(p);
		end = &(*end)->next;
		if (!lex_accept(p, T_OP, ","))
			break;
	}
	lex_expect(p, ")");
	return first;
}

static struct jinja_node *parse_macro(struct parser *p, bool call)
{
	static const char *const macro_stops[] = {"endmacro", NULL}, *const call_stops[] = {"endcall", NULL};
	struct jinja_node *n = node(p, call ? N_CALL_BLOCK : N_MACRO);
	if (!call)
		n->s = lex_expect_name(p);
	n->a = parameters(p);
	if (call)
		n->c = expression(p);
	if (call && n->c->kind != N_CALL)
		jinja_fail(p->m, "a call block needs a call");
	lex_expect_end(p);
	n->b = body(p, call ? call_stops : macro_stops);
	lex_next(p);
	if (p->kind == T_NAME) /* {% endmacro name %} */
		lex_next(p);
	return n;
}

static struct jinja_node *parse_filter_block(struct parser *p)
{
	static const char *const stops[] = {"endfilter", NULL};
	struct jinja_node *n = node(p, N_FILTER_BLOCK);
	n->d = node(p, N_CONST);
	n->c = filter(p, n->d);
	while (lex_accept(p, T_OP, "|"))
		n->c = filter(p, n->c);
	lex_expect_end(p);
	n->b = body(p, stops);
	lex_next(p);
	return n;
}

static struct jinja_node *statement(struct parser *p, const struct jinja_string *name)
{
	static const char *const generation_stops[] = {"endgeneration", NULL};
	struct jinja_node *n;
	lex_next(p);
	if (jinja_is(name, "if"))
		return parse_if(p);
	if (jinja_is(name, "for"))
		return parse_for(p);
	if (jinja_is(name, "set"))
		return parse_set(p);
	if (jinja_is(name, "macro"))
		return parse_macro(p, false);
	if (jinja_is(name, "call"))
		return parse_macro(p, true);
	if (jinja_is(name, "filter"))
		return parse_filter_block(p);
	if (jinja_is(name, "break") || jinja_is(name, "continue"))
		return node(p, jinja_is(name, "break") ? N_BREAK : N_CONTINUE);
	if (jinja_is(name, "generation")) {
		lex_expect_end(p);
		n = node(p, N_BODY);
		n->a = body(p, generation_stops);
		lex_next(p);
		return n;
	}
	jinja_fail(p->m, "the statement '%.40s' is not supported", name->p);
}

/* ---- text between tags ---- */

/* Text up to the next tag: `-` of the neighbours, and the line rules of trim_blocks and lstrip_blocks. */
static void put_text(struct parser *p, struct jinja_node ***end, const char *from, const char *to, bool before_block, char sign)
{
	for (const char *s = from; s < to; s++)
		p->m->line += *s == '\n';
	if (p->strip_left)
		while (from < to && isspace((unsigned char)*from))
			from++;
	else if (p->trim_newline && from < to && *from == '\n')
		from++;
	p->strip_left = p->trim_newline = false;
	if (sign == '-') {
		while (to > from && isspace((unsigned char)to[-1]))
			to--;
	} else if (before_block && sign != '+') {
		const char *s = to;
		while (s > from && (s[-1] == ' ' || s[-1] == '\t'))
			s--;
		if (s == p->source || s[-1] == '\n') /* only white space stands before the tag on its line */
			to = s;
	}
	if (from == to)
		return;
	struct jinja_node *n = node(p, N_TEXT);
	n->value = jinja_bytes(p->m, from, (size_t)(to - from), true);
	**end = n;
	*end = &n->next;
}

static struct jinja_node *body(struct parser *p, const char *const *stops)
{
	struct jinja_node *first = NULL, **end = &first;
	enter(p);
	for (;;) {
		const char *from = p->p, *s = from;
		jinja_step(p->m, 1);
		while (s < p->end && !(*s == '{' && s + 1 < p->end && strchr("{%#", s[1])))
			s++;
		bool none = s >= p->end;
		char sign = !none && s + 2 < p->end ? s[2] : 0;
		put_text(p, &end, from, s, !none && s[1] != '{', sign);
		if (none) {
			if (stops)
				jinja_fail(p->m, "the template ends inside a block; '%s' is missing", stops[0]);
			p->p = p->end;
			break;
		}
		p->p = s + 2 + (sign == '-' || sign == '+');
		if (s[1] == '#') {
			const char *close = memmem(s + 2, (size_t)(p->end - s - 2), "#}", 2);
			if (!close)
				jinja_fail(p->m, "a comment is not closed");
			for (const char *c = s; c < close; c++)
				p->m->line += *c == '\n';
			p->strip_left = close[-1] == '-' && close > s + 2;
			p->trim_newline = true;
			p->p = close + 2;
			continue;
		}
		p->close = s[1] == '{' ? "}}" : "%}";
		lex_next(p);
		if (s[1] == '{') {
			*end = node(p, N_PRINT);
			(*end)->a = expressions(p);
			lex_expect_end(p);
			end = &(*end)->next;
			continue;
		}
		if (p->kind != T_NAME)
			jinja_fail(p->m, "expected the name of a statement");
		const struct jinja_string *name = p->value.s;
		bool stop = false;
		for (const char *const *e = stops; e && *e; e++)
			stop |= jinja_is(name, *e);
		if (stop) {
			p->stop = name;
			break;
		}
		*end = statement(p, name);
		lex_expect_end(p);
		end = &(*end)->next;
	}
	p->m->depth--;
	return first;
}

struct jinja_node *jinja_parse(struct jinja_memory *m, const char *source, size_t n)
{
	if (n && source[n - 1] == '\n') /* Jinja drops one */
		n--;
	struct parser p = {.m = m, .source = source, .p = source, .end = source + n};
	m->line = 1;
	return body(&p, NULL);
}
