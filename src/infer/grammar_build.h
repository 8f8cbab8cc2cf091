/* Private to grammar*.c: the tree that the three front ends build, and the automaton it is compiled to.
 *
 * Everything is bytes. A class of characters becomes the byte sequences of its UTF-8; a grammar is a list of rules; a rule is an
 * automaton whose edges are ranges of bytes or calls of rules. Positions (states of all rules) share one numbering. */
#ifndef STAVE_INFER_GRAMMAR_BUILD_H
#define STAVE_INFER_GRAMMAR_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "infer/grammar.h"

#define GRAMMAR_TEXT_MAX ((size_t)1 << 20)
#define GRAMMAR_NODES_MAX 1000000
#define GRAMMAR_RULES_MAX 50000
#define GRAMMAR_STATES_MAX 500000
#define GRAMMAR_NESTING_MAX 200
#define GRAMMAR_REPEAT_MAX 100000
#define GRAMMAR_INLINE_REPEAT 16 /* longer bounded repetitions are counted, not written out */

/* ---- the tree ---- */

enum ast_kind { AST_EMPTY, AST_BYTES, AST_SEQ, AST_ALT, AST_REPEAT, AST_CALL, AST_NEVER };
struct ast {
	enum ast_kind kind;
	uint8_t lo, hi;    /* BYTES: one byte in lo..hi */
	int rule;          /* CALL */
	int min, max;      /* REPEAT of a; max < 0: no limit */
	struct ast *a, *b; /* SEQ and ALT: both; REPEAT: a */
	bool one;          /* one character of a text, whatever bytes it takes */
};
struct build_rule {
	struct ast *body;  /* NULL: named but not defined yet */
	char *name;        /* GBNF; NULL else */
	bool chain;        /* body is a REPEAT to be counted, not written out */
	int closed_by;     /* a chain: the byte after it, or -1 */
};
struct build {
	struct build_rule *rules; /* rule 0 is the root */
	int n_rules, cap_rules;
	struct ast_block *blocks;
	int nodes;
	int64_t work;      /* steps of compiling, bounded */
	struct stave_err *err;
	bool failed;       /* err is set; what is built from here on is AST_EMPTY */
};
void build_free(struct build *b);
__attribute__((format(printf, 2, 3))) struct ast *build_fail(struct build *b, const char *fmt, ...); /* AST_EMPTY */
int build_rule(struct build *b); /* a new rule, without a body */
struct ast *ast_empty(struct build *b);
struct ast *ast_never(struct build *b);
struct ast *ast_byte(struct build *b, int lo, int hi);
struct ast *ast_text(struct build *b, const char *s, size_t n);
struct ast *ast_seq(struct build *b, struct ast *x, struct ast *y);
struct ast *ast_alt(struct build *b, struct ast *x, struct ast *y);
struct ast *ast_repeat(struct build *b, struct ast *x, int min, int max);
struct ast *ast_call(struct build *b, int rule);

/* x and then the byte. A repetition at the end of x is counted together with the byte, which tells when it ends: masks of long
 * texts are much cheaper so. `always`: also an unlimited one. */
struct ast *ast_closed(struct build *b, struct ast *x, int byte, bool always);

/* Sets of code points: sorted disjoint ranges. */
struct charset {
	uint32_t (*r)[2];
	int n, cap;
};
void charset_add(struct charset *c, uint32_t lo, uint32_t hi);
void charset_invert(struct charset *c);
void charset_free(struct charset *c);
/* One character of the set, in UTF-8; with `json`, as it stands inside a JSON string: " and \ escaped, controls as \n or \u00XX. */
struct ast *ast_chars(struct build *b, const struct charset *c, bool json);
/* The texts of x with min..max characters (max < 0: no limit), where that can be said: else NULL. x is made of ast_chars. */
struct ast *ast_of_length(struct build *b, struct ast *x, int min, int max);

/* ---- front ends: define rule 0 ---- */

void grammar_parse_gbnf(struct build *b, const char *text, size_t n);
void grammar_parse_schema(struct build *b, const char *text, size_t n);
/* An expression; `json` as above; `whole`: it must match from end to end, else ^ and $ say so. */
struct ast *grammar_parse_regex(struct build *b, const char *text, size_t n, bool json, bool whole);

/* Numbers as JSON writes them. */
struct number_bounds {
	double lo, hi;   /* infinite: none */
	bool lo_open, hi_open, whole;
	double multiple; /* 0: any */
};
struct ast *grammar_number(struct build *b, const struct number_bounds *n);

/* ---- the automaton ---- */

struct edge {
	uint8_t lo, hi;
	int32_t to;
};
struct call {
	int32_t rule, to;
};
struct position {
	int32_t edge, n_edges; /* into edges, by lo */
	int32_t call, n_calls;
	int32_t chain;         /* it belongs to, or -1 */
	bool accept;           /* the rule may end here; at the start of a chain the count says so */
	bool last;             /* it must: neither edges nor calls */
};
/* A counted repetition: one copy of the body's automaton, which is run through with a count. A copy that is complete leads back to
 * the start, and nothing else does. At the start the chain may end, or read its last byte, when the count is at least min; and it may
 * begin a copy when it is less than max. */
struct chain {
	int32_t start, size;   /* positions start .. start + size - 1 */
	int32_t end;           /* after the byte that closes it; -1: no byte does */
	int32_t min, max;      /* max < 0: no limit */
	int32_t same;          /* the first chain of the same automaton */
	bool run;              /* without calls */
};
struct automaton {
	struct position *p;
	struct edge *edges;
	struct call *calls;
	struct chain *chains;
	int32_t n, n_edges, n_calls, n_chains, cap, cap_edges, cap_calls, cap_chains;
	int32_t *start;        /* (rules) -1: not needed */
	int n_rules;
};
int32_t edge_to(const struct automaton *a, int32_t position, uint8_t byte); /* -1: none */
/* Refuses left recursion, rules that nothing matches where the root needs them, and what is too large. */
int grammar_compile(struct build *b, struct automaton *a);
void automaton_free(struct automaton *a);
void automaton_trim(struct build *b, struct automaton *a);            /* fails when nothing matches */
void automaton_check_recursion(struct build *b, const struct automaton *a); /* fails on left recursion */

/* ---- the vocabulary ---- */

struct trie_node { /* in preorder; node 0 is the root */
	int32_t token;     /* that ends here, or -1; the first of those with the same bytes */
	int32_t skip;      /* first node after the subtree */
	uint16_t depth;
	uint8_t byte;
	bool more;         /* tokens have the same bytes */
};
struct stave_vocab {
	struct trie_node *trie;
	int32_t n_trie;
	int32_t *same;     /* (V) the next token of the same bytes, or -1 */
	int32_t *stops;    /* (n_stops) */
	int n_stops, V, longest;
	const char **bytes; /* (V) what each token decodes to; NULL for special ones */
	uint32_t *n_bytes;
};
/* A vocabulary of the tokens t (V), whose bytes must outlive it. */
struct vocab_token {
	const char *p;
	uint32_t n;
	bool special, stop;
};
int vocab_of(struct stave_vocab **out, const struct vocab_token *t, int V, struct stave_err *err);

#endif
