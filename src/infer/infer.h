/* infer/: answers from a model. An engine owns one loaded model and one worker thread; nothing else touches the weights,
 * the cache or the samplers. Callers, from any thread, submit sequences (token ids in) and receive events (text out) through
 * a callback that runs on the worker thread and must not block. All memory of the decode loop is planned, logged and taken
 * when the engine opens: `slots` sequences of `context` positions.
 *
 * Each step of the worker carries one token of every running sequence and at most `chunk` prompt tokens, so a long
 * prompt never stalls the streams beside it. Prompts are cut at fixed positions and rows of different sequences
 * are computed independently of one another: an answer is a function of its request alone, never of its neighbours. */
#ifndef STAVE_INFER_H
#define STAVE_INFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cost/cost.h"
#include "text/text.h"

/* ---- sampling ---- */

/* How the next token is chosen from the logits, in this order: logit_bias is added; tokens already in the sequence get the
 * repetition penalty (Keskar et al. 2019: positive logits divided, negative multiplied), those already generated the
 * presence and frequency penalties (OpenAI: minus presence, minus frequency times count); division by
 * temperature; the top_k largest; of these the smallest set of mass >= top_p; of these those with at least min_p
 * times the largest probability. Temperature 0 takes the largest logit, the lower id on a tie. */
struct stave_sampling {
	float temperature;          /* 0..100; 0 = greedy */
	int top_k;                  /* 0 = all */
	float top_p;                /* (0, 1] */
	float min_p;                /* [0, 1] */
	float repetition_penalty;   /* > 0; 1 = none */
	float presence_penalty, frequency_penalty;
	uint64_t seed;              /* draw i of a sequence is a function of (seed, i) */
	const int32_t *bias_ids;    /* (n_bias), with bias (n_bias): logit_bias */
	const float *bias;
	int n_bias;
};
/* temperature 1, everything else off. */
struct stave_sampling stave_sampling_default(void);
/* STAVE_EUSAGE names the control that is out of range, NaN or infinite; ids are checked against the vocabulary. */
int stave_sampling_check(const struct stave_sampling *s, int V, struct stave_err *err);

/* A token and its log-probability under the model itself (temperature 1, no penalties), with the likeliest alternatives. */
#define STAVE_TOP_MAX 20
struct stave_logprob {
	int32_t id;
	float logprob;
	int n_top;
	int32_t top_id[STAVE_TOP_MAX];  /* likeliest first; ties by id */
	float top_logprob[STAVE_TOP_MAX];
};

/* ---- the engine ---- */

struct stave_engine_config {
	const char *model;      /* Hugging Face directory */
	int slots;              /* sequences computed at once; 0 = 8 */
	int context;            /* positions of each; 0 = the model's, but at most 4096 */
	int chunk;              /* prompt tokens per step; 0 = 128 */
	int queue;              /* sequences that may wait for a slot; 0 = 64 */
	const char *dtype;      /* "auto", "f32" or "bf16"; NULL = auto: bf16 if the model is stored so and the CPU has it */
};
struct stave_engine;
/* Loads, plans (logged), takes the memory, warms up. STAVE_ENOFIT says what would fit. */
int stave_engine_open(struct stave_engine **out, const struct stave_engine_config *c, struct stave_err *err);
/* Ends running sequences as cancelled (their events still arrive), joins the worker, frees everything. */
void stave_engine_close(struct stave_engine *e);

struct stave_engine_info {
	struct stave_shape shape;
	enum stave_dtype dtype;
	int slots, context, chunk, queue;
	size_t weights_bytes, cache_bytes, workspace_bytes, planned_bytes, taken_bytes;
	double load_s;
	const struct stave_tokenizer *tokenizer; /* lives as long as the engine */
	char model_hash[17];                     /* xxHash64 of the parameters as loaded */
};
const struct stave_engine_info *stave_engine_info(const struct stave_engine *e);

enum stave_finish { STAVE_FINISH_STOP, STAVE_FINISH_LENGTH, STAVE_FINISH_CANCELLED };
enum stave_event_kind {
	STAVE_EVENT_PROMPT, /* one prompt token with its logprob (requests with prompt_logprobs; from the second token on) */
	STAVE_EVENT_TOKEN,  /* one generated token: text, logprob */
	STAVE_EVENT_DONE,   /* the last event of a sequence, always sent: rest of the text, finish, times */
};
struct stave_event {
	enum stave_event_kind kind;
	int32_t id;                     /* PROMPT and TOKEN */
	const char *text;               /* bytes to append: whole UTF-8 characters or bytes that never become one; may be empty, since */
	size_t n_text;                  /* half characters and possible starts of a stop string are held back */
	const struct stave_logprob *logprob; /* NULL unless asked */
	double time_s;                  /* stave_now_s() */
	/* DONE only */
	enum stave_finish finish;
	int prompt_tokens, completion_tokens;
	double queue_s, prefill_s, decode_s; /* waiting for a slot; to the first token; from the first to the last */
	uint64_t logits_hash;           /* of the last row of logits computed for the sequence: its fingerprint */
};
typedef void (*stave_event_fn)(void *ctx, const struct stave_event *event);

struct stave_request {
	const int32_t *ids;         /* the prompt: (n_ids), n_ids >= 1 */
	int n_ids;
	struct stave_sampling sampling;
	int max_tokens;             /* >= 0; < 0 = as many as the context holds */
	const char *const *stop;    /* texts that end the answer and are not part of it */
	int n_stop;
	const int32_t *stop_ids;    /* tokens that do; the tokenizer's end of text always does unless ignore_eos */
	int n_stop_ids;
	bool ignore_eos;
	int logprobs;               /* < 0: none; else the generated token's and that many alternatives, <= STAVE_TOP_MAX */
	bool prompt_logprobs;       /* also for the prompt's tokens */
	stave_event_fn event;
	void *ctx;
};
/* Submits n sequences, all or none; everything pointed to is copied; ids[i] names sequence i for cancellation. Thread-safe, never
 * waits. STAVE_EUSAGE: a request is invalid (message names it); STAVE_ENOFIT: the queue is full; STAVE_EINTERRUPTED: closing. */
int stave_engine_submit(struct stave_engine *e, const struct stave_request *r, int n, uint64_t *ids, struct stave_err *err);
/* The sequence ends as cancelled before the next step. Unknown and finished ids are ignored. Thread-safe. */
void stave_engine_cancel(struct stave_engine *e, uint64_t id);

struct stave_engine_stats {
	int running, waiting;
	int64_t cache_used, cache_total; /* positions */
	uint64_t steps, step_tokens;
};
struct stave_engine_stats stave_engine_stats(struct stave_engine *e);

#endif
