/* Verbs that take one model: how they are called, and the options of the engine they open, one table for all of them as a part of the verb's
 * own. */
#ifndef STAVE_CLI_ENGINE_H
#define STAVE_CLI_ENGINE_H

#include "base/config.h"
#include "infer/infer.h"

#define CLI_ADAPTERS_MAX 64
struct cli_engine {
	char *type, *cache, *draft, *adapters;
	int64_t context, cache_tokens, speculate, ngram;
	/* cli_engine_config's: */
	char *parsed;
	struct stave_adapter_path adapter[CLI_ADAPTERS_MAX];
};
/* `at`: macro that gives the offset of a field of the struct cli_engine inside the verb's options. */
#define CLI_ENGINE_KEYS(at) \
	{"context", STAVE_KEY_INT, at(context), "0", 0, 1e9, NULL, "positions of a sequence; 0 = the model's, at most 4096"}, \
	{"type", STAVE_KEY_STR, at(type), "auto", 0, 0, NULL, "of the matrices in memory: Q8_0, Q4_K, BF16, F32 …; auto = as stored"}, \
	{"cache", STAVE_KEY_STR, at(cache), "auto", 0, 0, NULL, "type of the cached keys and values: bf16, i8 or f32; auto = f32 for a model in F32 or F16, else bf16"}, \
	{"cache_tokens", STAVE_KEY_INT, at(cache_tokens), "0", 0, 1e10, NULL, "positions that all sequences share; 0 = a context for each, or what memory allows"}, \
	{"adapters", STAVE_KEY_STR, at(adapters), NULL, 0, 0, NULL, "LoRA adapters: name=directory, separated by commas"}, \
	{"speculate", STAVE_KEY_INT, at(speculate), "0", 0, STAVE_SPECULATE_MAX, NULL, "tokens proposed ahead and verified at once; the answer is the same; 0 = none"}, \
	{"ngram", STAVE_KEY_INT, at(ngram), "0", 0, 64, NULL, "propose what followed the same so many tokens before; 0 = 2 when nothing else proposes"}, \
	{"draft", STAVE_KEY_STR, at(draft), NULL, 0, 0, NULL, "propose what this small model of the same vocabulary says"}

/* A verb of the form VERB MODEL [options]: parses, helps, runs, says what failed. Returns the exit status. */
struct cli_model_verb {
	const struct stave_key *keys; /* (n_keys) of `options` */
	size_t n_keys;
	void *options;
	void (*help)(const struct stave_config *c);
	int (*run)(void *options, const char *model, struct stave_err *err);
	const char *usage;            /* said when the model is missing */
};
int cli_model_verb(const struct cli_model_verb *v, int argc, char **argv);

/* Into c, whose strings live until cli_engine_free. */
int cli_engine_config(struct cli_engine *o, struct stave_engine_config *c, struct stave_err *err);
void cli_engine_free(struct cli_engine *o);

#endif
