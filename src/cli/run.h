/* Private to the run verb: run.c speaks and continues one prompt; run_answer.c submits a request, waits, and says how fast it was; run_chat.c is
 * the talk in the terminal. */
#ifndef STAVE_CLI_RUN_H
#define STAVE_CLI_RUN_H

#include <pthread.h>
#include <signal.h>

#include "base/fs.h"
#include "cli/engine.h"
#include "infer/grammar.h"
#include "infer/infer.h"

struct run_options {
	char *prompt, *stop, *system, *variables, *schema, *grammar, *regex, *adapter;
	int64_t max_tokens, top_k, seed;
	double temperature, top_p, min_p, repeat_penalty;
	bool json, echo, chat;
	struct cli_engine engine;
};

/* What an answer must look like, from --schema, --grammar or --regex; all NULL when none is given. */
struct run_rules {
	struct stave_vocab *vocab;
	struct stave_grammar *grammar;
};
int run_rules_open(struct run_rules *r, const struct run_options *o, const struct stave_tokenizer *t, struct stave_err *err);
void run_rules_close(struct run_rules *r);

struct run_answer {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
	bool print;               /* text to stdout as it comes */
	const char *before;       /* (n_before) printed ahead of the first text: the prompt, once it has been accepted */
	size_t n_before;
	struct stave_buf text;
	struct stave_event end;   /* its text is not valid any more */
};
void run_answer_init(struct run_answer *a, bool print);
void run_answer_free(struct run_answer *a);
extern volatile sig_atomic_t run_interrupted; /* the chat's own Ctrl-C: ends an answer, not the program */
uint64_t run_seed(const struct run_options *o);
/* Submits the prompt `ids`, with the chat's stops if `chat`, and waits for the end. */
int run_generate(struct stave_engine *e, const struct run_options *o, const struct run_rules *rules, uint64_t seed, const struct stave_ids *ids, bool chat, struct run_answer *a, struct stave_err *err);

struct run_speed {
	double prefill_per_s, decode_per_s, bytes_per_s, share; /* 0: unknown */
	const char *shortest;
};
/* What decoding read per second, against the machine's measured read bandwidth. */
struct run_speed run_measure(const struct stave_engine *e, const struct stave_event *v);
const char *run_finish_name(enum stave_finish f);

int run_chat(struct stave_engine *e, const struct run_options *o, const struct run_rules *rules, struct stave_err *err);
/* The messages of a talk, {"messages": [...]} and the template's variables, into ids. */
struct run_talk {
	json_t *data, *messages; /* messages belongs to data */
};
int run_talk_open(struct run_talk *t, const struct run_options *o, struct stave_err *err);
void run_talk_close(struct run_talk *t);
int run_talk_add(struct run_talk *t, const char *role, const char *text, size_t n, struct stave_err *err);

#endif
