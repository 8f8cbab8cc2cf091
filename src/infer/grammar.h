/* Constrained decoding: which tokens may come next, given what an answer must look like. A grammar (GBNF as llama.cpp's users write it, a JSON
 * schema, or a regular expression) is compiled once into an immutable form that any number of sequences share; a matcher is
 * one sequence's state. Masks are lazy: nothing is computed for a state until it is met; the states met and their masks are
 * remembered with the grammar, within a byte budget.
 *
 * Bounds: source text, number of rules, nesting, repetitions, states and the work of one mask are all limited; beyond a limit the grammar is
 * refused with STAVE_EUSAGE (at compile time). While matching, a state of more than 1024 stacks or a stack deeper than 1000 is not
 * followed: accept then fails for a token that the mask holds, or a mask is empty before the end; the answer has to be given up. */
#ifndef STAVE_INFER_GRAMMAR_H
#define STAVE_INFER_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/text.h"

/* The vocabulary as a trie of the bytes that tokens decode to; built once per tokenizer, immutable. */
struct stave_vocab;
int stave_vocab_open(struct stave_vocab **out, const struct stave_tokenizer *t, struct stave_err *err);
void stave_vocab_close(struct stave_vocab *v);

enum stave_grammar_kind { STAVE_GRAMMAR_GBNF, STAVE_GRAMMAR_JSON_SCHEMA, STAVE_GRAMMAR_REGEX };
struct stave_grammar;
/* STAVE_EUSAGE: what is wrong or not supported, by name and place. "{}" as a schema means any JSON value. Thread-safe once open:
 * the cache of states is guarded. */
int stave_grammar_open(struct stave_grammar **out, enum stave_grammar_kind kind, const char *text, size_t n, const struct stave_vocab *v, struct stave_err *err);
void stave_grammar_close(struct stave_grammar *g);

struct stave_matcher;
int stave_matcher_open(struct stave_matcher **out, struct stave_grammar *g, struct stave_err *err);
void stave_matcher_close(struct stave_matcher *m);
/* Bit id of bits ((vocab + 31) / 32 words) is set exactly if the token may come next; stop tokens are set exactly when the answer may end here. */
void stave_matcher_mask(struct stave_matcher *m, uint32_t *bits);
/* The token has been chosen; false: it was not allowed and nothing changed. A stop token ends it. */
bool stave_matcher_accept(struct stave_matcher *m, int32_t id);
/* Takes back the last n accepted tokens (speculative decoding), n at most 64 and at most the number accepted. */
void stave_matcher_rewind(struct stave_matcher *m, int n);
bool stave_matcher_done(const struct stave_matcher *m); /* nothing but the end may follow */

#endif
