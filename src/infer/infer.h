/* infer/: answers from a model. An engine owns one loaded model and one worker thread; nothing else touches the weights,
 * the cache or the samplers. Callers, from any thread, submit sequences (token ids in) and receive events (text out) through
 * a callback that runs on the worker thread and must not block. All memory of the decode loop is planned, logged and taken
 * when the engine opens: weights, a pool of cache pages, the workspace of one step.
 *
 * An engine answers as soon as it is open. What takes longest, bringing weights to their places in memory that nobody has touched yet, the
 * worker does when it has nothing else to do, and after each step for about as long as that step took; until then steps read
 * weights from the files, and take longer. Answers are the same to the bit.
 *
 * Each step of the worker carries the next token of every sequence that is answering and, within a budget, pieces of
 * the prompts that are being read. The budget is large when nobody is answering and otherwise so small that the step
 * takes about twice the time it would take without a prompt: a long prompt never stalls the streams beside it. Rows are computed
 * independently of one another: an answer is a function of its request alone, to the bit, whatever runs beside it, however its
 * prompt was cut, and whether the prompt's beginning was computed or found in the cache.
 *
 * Whole pages that have been computed stay in the cache until their place is needed: a later prompt that begins with the same
 * tokens (under the same adapter and salt) takes them over. When the pool runs dry the youngest running sequence gives
 * its pages up and is computed again later, with the same result. */
#ifndef STAVE_INFER_H
#define STAVE_INFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/qtype.h"
#include "cost/cost.h"
#include "kernel/paged.h"
#include "text/text.h"

/* ---- sampling ---- */

/* How the next token is chosen from the logits, in this order: what the grammar forbids is dropped, and until min_tokens are made what would end
 * the answer; logit_bias is added; tokens already in the sequence get the repetition penalty (Keskar et al. 2019:
 * positive logits divided, negative multiplied), those already generated the presence and frequency penalties
 * (OpenAI: minus presence, minus frequency times count), both over the last penalty_last_n tokens; division by temperature;
 * the top_k largest; of these the smallest set of mass >= top_p; of these those with at least min_p times the largest probability;
 * of these the smallest set of mass >= typical_p whose surprise is nearest to the mean one (Meister et al. 2022).
 * Temperature 0 takes the largest logit, the lower id on a tie. */
struct stave_sampling {
	float temperature;          /* 0..100; 0 = greedy */
	int top_k;                  /* 0 = all */
	float top_p;                /* (0, 1] */
	float min_p;                /* [0, 1] */
	float typical_p;            /* (0, 1]; 1 = off */
	float repetition_penalty;   /* > 0; 1 = none */
	float presence_penalty, frequency_penalty;
	int penalty_last_n;         /* tokens that the penalties look back on; 0 = all */
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

struct stave_adapter_path { /* a LoRA adapter: what requests call it, and its directory */
	const char *name, *dir;
};
#define STAVE_SPECULATE_MAX 16
struct stave_engine_config {
	const char *model;      /* a .gguf file, or a Hugging Face directory */
	int slots;              /* sequences computed at once; 0 = 8 */
	int context;            /* positions of each at most; 0 = the model's, but at most 4096 */
	int chunk;              /* prompt tokens of one step at most; 0 = 512 */
	int queue;              /* sequences that may wait for a slot; 0 = 64 */
	const char *type;       /* of the matrices in memory, a name of base/qtype.h; NULL or "auto" = as stored */
	const char *cache;      /* of the cached keys and values: "bf16", "i8", "f32"; NULL or "auto" = f32 for matrices in F32 or F16, else bf16 */
	int64_t cache_tokens;   /* positions of the pool that all sequences share; 0 = slots * context, or what memory allows */
	const struct stave_adapter_path *adapters; /* (n_adapters) */
	int n_adapters;
	/* Speculation: tokens proposed ahead and verified in one pass. Answers are the same to the bit, with or without. */
	int speculate;          /* tokens proposed at most, <= STAVE_SPECULATE_MAX; 0 = none, or 4 with a draft model */
	int ngram;              /* propose what followed the last time these many tokens were the last ones (or more); 0 = do not look */
	const char *draft;      /* propose what this small model of the same vocabulary would say; NULL = none */
};
struct stave_engine;
/* Loads, plans (logged), takes the memory. STAVE_ENOFIT says what would fit. Strings are not kept. */
int stave_engine_open(struct stave_engine **out, const struct stave_engine_config *c, struct stave_err *err);
/* Waits until all weights are in their places and all memory is touched: from then on steps take the time they will always take. */
void stave_engine_settle(struct stave_engine *e);
/* Ends running sequences as cancelled (their events still arrive), joins the worker, frees everything. */
void stave_engine_close(struct stave_engine *e);

struct stave_engine_info {
	struct stave_shape shape;
	const char *type, *cache;                /* names: of the matrices in memory (of most of them, if stored in several types), of the cache */
	int slots, context, chunk, queue;
	int pages;                               /* of STAVE_PAGE positions */
	size_t weights_bytes, cache_bytes, workspace_bytes; /* a draft model's included */
	size_t adapters_bytes;
	size_t planned_bytes, taken_bytes;       /* of all four */
	double load_s;
	const struct stave_tokenizer *tokenizer; /* lives as long as the engine */
	char model_hash[17];                     /* stave_source_hash: of the model's files */
};
const struct stave_engine_info *stave_engine_info(const struct stave_engine *e);
/* Bytes that decoding one token after `past` cached ones reads: matrices and cache. */
double stave_engine_token_bytes(const struct stave_engine *e, int past);

/* How an embedding is made of the hidden states of a text: as the model's files say (else the mean for encoders, the last one for others),
 * mean of all, the last one, the first one. */
enum stave_embed { STAVE_EMBED_NONE, STAVE_EMBED_AUTO, STAVE_EMBED_MEAN, STAVE_EMBED_LAST, STAVE_EMBED_CLS };

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
	int cached_tokens;              /* of the prompt, found in the cache */
	int proposed, accepted;         /* by speculation */
	int preemptions;                /* times its pages were taken away */
	double queue_s, prefill_s, decode_s; /* waiting for a slot; to the first token; from the first to the last */
	uint64_t logits_hash;           /* of the last row of logits computed for the sequence: its fingerprint */
	const float *embedding;         /* (n_embedding) requests with `embed` that were not cancelled; else NULL */
	int n_embedding;
};
typedef void (*stave_event_fn)(void *ctx, const struct stave_event *event);

struct stave_grammar;
struct stave_request {
	const int32_t *ids;         /* the prompt: (n_ids), n_ids >= 1 */
	int n_ids;
	struct stave_sampling sampling;
	int max_tokens;             /* >= 0; < 0 = as many as the context holds */
	int min_tokens;             /* no end of text and none of stop_ids before so many */
	const char *const *stop;    /* texts that end the answer and are not part of it */
	int n_stop;
	const int32_t *stop_ids;    /* tokens that do; the tokenizer's stops always do unless ignore_eos */
	int n_stop_ids;
	bool ignore_eos;
	int logprobs;               /* < 0: none; else the generated token's and that many alternatives, <= STAVE_TOP_MAX */
	bool prompt_logprobs;       /* also for the prompt's tokens: the prompt is then computed, never found in the cache */
	const char *adapter;        /* name of an adapter of the engine; NULL = none */
	const char *cache_salt;     /* cached prompts are shared only among requests with the same salt; NULL = "" */
	struct stave_grammar *grammar; /* what the answer must look like, or NULL; stays open until DONE */
	enum stave_embed embed;     /* not NONE: DONE brings an embedding of the text, and nothing is generated */
	bool normalize;             /* the embedding has length 1 */
	stave_event_fn event;
	void *ctx;
};
/* Submits n sequences, all or none; everything pointed to (but the grammar) is copied; ids[i] names sequence i for cancellation. Thread-safe,
 * never waits. STAVE_EUSAGE: a request is invalid (message names it); STAVE_ENOFIT: the queue is full; STAVE_EINTERRUPTED: closing. */
int stave_engine_submit(struct stave_engine *e, const struct stave_request *r, int n, uint64_t *ids, struct stave_err *err);
/* The sequence ends as cancelled before the next step. Unknown and finished ids are ignored. Thread-safe. */
void stave_engine_cancel(struct stave_engine *e, uint64_t id);

struct stave_engine_stats {
	int running, waiting;
	int64_t cache_used, cache_total; /* positions: held by running sequences, and in all */
	int pages, pages_used, pages_cached; /* in all; held by running sequences; kept for later prompts and free to be taken */
	uint64_t steps, step_tokens;
	uint64_t prefix_tokens, prefix_hits; /* prompt tokens looked up in the cache, and found there */
	uint64_t preemptions;
	uint64_t proposed, accepted;         /* by speculation */
	double matmul_s, attention_s, element_s, step_s; /* of the steps: by class of the model, and in all */
};
struct stave_engine_stats stave_engine_stats(struct stave_engine *e);

#endif
