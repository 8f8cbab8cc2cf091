/* Private to text/: chat templates in the subset of Jinja that published models use.
 *
 * A template comes from a model's directory and is not trusted; what it prints around comes from users and is trusted less.
 * So: it is parsed once into a tree and interpreted, nothing is executed; it reaches only the variables it is given; steps,
 * nesting, memory and output are bounded, and beyond a bound it fails with a message. Every string carries, byte by byte,
 * whether it was written by the template (or is a token the caller vouched for) or came in with the data: the
 * tokenizer then reads control tokens only where every byte is the template's own.
 *
 * All memory of a parse or a rendering is one budgeted chain of blocks, freed together; an error leaves by longjmp to the
 * function that owns the chain, so that the interpreter's many small functions return values and not codes. */
#ifndef STAVE_TEXT_JINJA_H
#define STAVE_TEXT_JINJA_H

#include <jansson.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "base/fs.h"

/* ---- the door ---- */

struct jinja; /* a parsed template, immutable */
int jinja_open(struct jinja **out, const char *source, size_t n, struct stave_err *err);
void jinja_close(struct jinja *t);

struct jinja_text {
	struct stave_buf text;
	struct stave_buf own; /* one byte per byte of text: 1 = the template's own, 0 = from the data */
};
void jinja_text_free(struct jinja_text *t);
/* data: an object, its members are variables; their strings are from outside. tokens: an object of strings that count as the template's own
 * (bos_token, eos_token …). STAVE_EUSAGE: raise_exception's message, or what the template did wrong, with its line. */
int jinja_render(const struct jinja *t, const json_t *data, const json_t *tokens, time_t now, struct jinja_text *out, struct stave_err *err);

/* ---- shared by the jinja_*.c files ---- */

#define JINJA_SOURCE_MAX ((size_t)1 << 20)
#define JINJA_DEPTH_MAX 120
#define JINJA_STEPS_MAX 4000000
#define JINJA_MEMORY_MAX ((size_t)128 << 20)
#define JINJA_OUTPUT_MAX ((size_t)16 << 20)

struct jinja_memory {
	struct jinja_block *blocks;
	size_t taken;
	int steps, depth, line;
	jmp_buf *fail;
	struct stave_err *err;
};
void *jinja_take(struct jinja_memory *m, size_t n); /* zeroed */
void jinja_memory_free(struct jinja_memory *m);
__attribute__((noreturn, format(printf, 2, 3))) void jinja_fail(struct jinja_memory *m, const char *fmt, ...);
void jinja_step(struct jinja_memory *m, size_t n); /* n more steps of work, or fail */

enum jinja_kind { J_UNDEFINED, J_NONE, J_BOOL, J_INT, J_FLOAT, J_STRING, J_LIST, J_DICT, J_LOOP, J_FUNCTION, J_MACRO };
struct jinja_string {
	const char *p;
	size_t n;
	bool own;           /* of all bytes, unless mixed */
	const uint8_t *mixed; /* (n) or NULL */
};
struct jinja_value {
	enum jinja_kind kind;
	union {
		bool b;
		int64_t i;
		double f;
		struct jinja_string *s; /* STRING; UNDEFINED: its name, or NULL */
		struct jinja_list *list;
		struct jinja_dict *dict;
		struct jinja_loop *loop;
		struct jinja_function *function;
		struct jinja_macro *macro;
	};
};
struct jinja_list {
	struct jinja_value *v;
	int n, cap;
	bool tuple;         /* written with parentheses */
};
struct jinja_dict {
	struct jinja_value *keys, *values;
	int n, cap;
	bool namespace;
};
struct jinja_args { /* of a call: positional, then named */
	struct jinja_value *v;
	const struct jinja_string **names;
	struct jinja_value *named;
	int n, n_named;
};

/* jinja_value.c */
struct jinja_value jinja_bytes(struct jinja_memory *m, const char *p, size_t n, bool own);
struct jinja_value jinja_cstr(struct jinja_memory *m, const char *p);
struct jinja_value jinja_slice_bytes(struct jinja_memory *m, const struct jinja_string *s, size_t at, size_t n);
struct jinja_value jinja_join(struct jinja_memory *m, const struct jinja_string *const *parts, size_t n);
struct jinja_value jinja_new_list(struct jinja_memory *m);
void jinja_append(struct jinja_memory *m, struct jinja_list *l, struct jinja_value v);
struct jinja_value jinja_new_dict(struct jinja_memory *m);
void jinja_put(struct jinja_memory *m, struct jinja_dict *d, struct jinja_value key, struct jinja_value v);
struct jinja_value *jinja_get(struct jinja_memory *m, const struct jinja_dict *d, const char *key, size_t n); /* by string */
struct jinja_value *jinja_lookup(struct jinja_memory *m, const struct jinja_dict *d, struct jinja_value key);
struct jinja_value jinja_from_json(struct jinja_memory *m, const json_t *j, bool own);
bool jinja_true(struct jinja_value v);
bool jinja_equal(struct jinja_memory *m, struct jinja_value a, struct jinja_value b);
int jinja_compare(struct jinja_memory *m, struct jinja_value a, struct jinja_value b); /* numbers, strings, lists; else fails */
bool jinja_contains(struct jinja_memory *m, struct jinja_value box, struct jinja_value v);
struct jinja_value jinja_to_string(struct jinja_memory *m, struct jinja_value v); /* Python's str() */
struct jinja_value jinja_to_json(struct jinja_memory *m, struct jinja_value v, int indent, bool ascii, bool sorted);
size_t jinja_length(struct jinja_memory *m, struct jinja_value v);
struct jinja_value jinja_iterate(struct jinja_memory *m, struct jinja_value v); /* a LIST of the elements (characters, keys) */
const char *jinja_kind_name(struct jinja_value v);
size_t jinja_utf8_at(const struct jinja_string *s, size_t i); /* bytes of the character that begins at byte i */

static inline struct jinja_value jinja_none(void) { return (struct jinja_value){.kind = J_NONE}; }
static inline struct jinja_value jinja_undefined(void) { return (struct jinja_value){.kind = J_UNDEFINED}; }
static inline struct jinja_value jinja_bool(bool b) { return (struct jinja_value){.kind = J_BOOL, .b = b}; }
static inline struct jinja_value jinja_int(int64_t i) { return (struct jinja_value){.kind = J_INT, .i = i}; }
static inline struct jinja_value jinja_float(double f) { return (struct jinja_value){.kind = J_FLOAT, .f = f}; }
static inline bool jinja_is_number(struct jinja_value v) { return v.kind == J_INT || v.kind == J_FLOAT || v.kind == J_BOOL; }
static inline double jinja_number(struct jinja_value v) { return v.kind == J_INT ? (double)v.i : v.kind == J_FLOAT ? v.f : v.b; }

/* The tree (jinja_parse.c). Children in a, b, c; lists through next. */
enum jinja_node_kind {
	/* expressions */
	N_CONST, N_NAME, N_LIST, N_DICT, N_ATTR, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_NOT, N_NEG, N_POS, N_AND, N_OR, N_COND, N_BINARY, N_COMPARE, N_KEYWORD,
	/* statements */
	N_TEXT, N_PRINT, N_IF, N_FOR, N_SET, N_BLOCK_SET, N_MACRO, N_CALL_BLOCK, N_FILTER_BLOCK, N_BREAK, N_CONTINUE, N_BODY
};
enum jinja_op { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW, OP_CONCAT, OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN };
struct jinja_node {
	enum jinja_node_kind kind;
	int line;
	enum jinja_op op;
	bool negated, recursive, tuple; /* TEST: is not; FOR; LIST */
	struct jinja_value value;      /* CONST, TEXT */
	const struct jinja_string *s;  /* NAME, ATTR, FILTER, TEST, KEYWORD, MACRO */
	struct jinja_node *a, *b, *c, *d, *next;
};
struct jinja {
	struct jinja_memory memory;
	struct jinja_node *body;
};
struct jinja_node *jinja_parse(struct jinja_memory *m, const char *source, size_t n);

/* Interpreter's services to filters (jinja_eval.c). */
struct jinja_run {
	struct jinja_memory m;
	struct jinja_frame *globals;
	time_t now;
	struct jinja_text *out; /* what PRINT appends to; swapped for blocks and macros */
};
struct jinja_value jinja_attribute(struct jinja_run *r, struct jinja_value v, const struct jinja_string *name, bool item_first);
struct jinja_value jinja_call(struct jinja_run *r, struct jinja_value f, struct jinja_args *args);
struct jinja_value jinja_subscript(struct jinja_run *r, struct jinja_value v, struct jinja_value key);

/* Operators and tests (jinja_ops.c). */
struct jinja_value jinja_binary(struct jinja_run *r, enum jinja_op op, struct jinja_value a, struct jinja_value b); /* ADD … CONCAT */
bool jinja_relation(struct jinja_run *r, enum jinja_op op, struct jinja_value a, struct jinja_value b);             /* EQ … NOT_IN */
struct jinja_value jinja_sign(struct jinja_run *r, struct jinja_value v, bool minus);
bool jinja_test(struct jinja_run *r, const struct jinja_string *name, struct jinja_value v, struct jinja_args *args); /* fails on unknown names */
bool jinja_test_exists(const struct jinja_string *name);

/* Filters, methods and global functions (jinja_filters.c, jinja_methods.c); they fail on unknown names. */
struct jinja_value jinja_filter(struct jinja_run *r, const struct jinja_string *name, struct jinja_value v, struct jinja_args *args);
bool jinja_filter_exists(const struct jinja_string *name);
typedef struct jinja_value jinja_builtin(struct jinja_run *r, struct jinja_value self, struct jinja_args *args);
struct jinja_function {
	jinja_builtin *call;
	struct jinja_value self;
	const char *name;
};
struct jinja_value jinja_method(struct jinja_run *r, struct jinja_value self, const struct jinja_string *name); /* UNDEFINED: no such */
jinja_builtin *jinja_global(const char *name, size_t n);
/* Argument i, or the one named so, or UNDEFINED. */
struct jinja_value jinja_arg(const struct jinja_args *a, int i, const char *name);
int64_t jinja_int_of(struct jinja_run *r, struct jinja_value v, const char *what);
static inline bool jinja_is(const struct jinja_string *s, const char *name)
{
	size_t n = 0;
	while (name[n])
		n++;
	if (s->n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (s->p[i] != name[i])
			return false;
	return true;
}

#endif
