/* Private to the translation of JSON schemas: schema.c walks them, merge.c combines what holds at one place, value.c writes JSON's own
 * values and strings. */
#ifndef STAVE_INFER_GRAMMAR_SCHEMA_H
#define STAVE_INFER_GRAMMAR_SCHEMA_H

#include <jansson.h>

#include "infer/grammar_build.h"

struct reference {
	const json_t *node;
	int rule;
};
struct schema {
	struct build *b;
	json_t *root;
	int depth;
	int64_t merges, merged_keys;
	int ws, string, value; /* rules, -1 until needed */
	struct reference *refs;
	int n_refs, cap_refs;
	json_t **made;  /* merged schemas, kept until the end */
	int n_made, cap_made;
	json_t *known;  /* text of a plain schema -> its rule */
};

#define SEQ(...) schema_sequence(s, (struct ast *const[]){__VA_ARGS__, NULL})
struct ast *schema_sequence(struct schema *s, struct ast *const *x);
struct ast *schema_text(struct schema *s, const char *t);
struct ast *schema_optional(struct schema *s, struct ast *x);

/* ---- value.c ---- */
struct ast *schema_ws(struct schema *s);
struct ast *schema_any_string(struct schema *s);
struct ast *schema_any_value(struct schema *s);
struct ast *schema_pair(struct schema *s, struct ast *key, struct ast *value);
/* x, x, x: at least min and at most max (< 0: any number), without brackets. */
struct ast *schema_list(struct schema *s, struct ast *x, int min, int max);
/* The value as JSON text, with the freedom of space that any answer has. */
struct ast *schema_literal(struct schema *s, const json_t *j);
struct ast *schema_string(struct schema *s, const json_t *j);
struct ast *schema_number(struct schema *s, const json_t *j, bool whole);
/* enum and const: the values that also fit what else the schema says. */
struct ast *schema_values(struct schema *s, const json_t *j);
/* minLength, minItems … : false when it is no whole number in range (the build has failed). */
bool schema_count(struct schema *s, const json_t *j, const char *key, int64_t absent, int64_t *v);

/* ---- merge.c ---- */
json_t *schema_keep(struct schema *s, json_t *j); /* freed with s; NULL: out of memory */
const json_t *schema_resolve(struct schema *s, const char *ref);
bool schema_is_annotation(const char *key);
/* A schema that holds what both do; a new reference. */
json_t *schema_merge(struct schema *s, const json_t *x, const json_t *y);

#endif
