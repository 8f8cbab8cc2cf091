/* Private to infer/: the engine's parts. Who owns what: `lock` guards the fields marked so; everything else belongs to the
 * worker thread once it runs. */
#ifndef STAVE_INFER_ENGINE_H
#define STAVE_INFER_ENGINE_H

#include <pthread.h>

#include "base/arena.h"
#include "base/fs.h"
#include "infer/grammar.h"
#include "infer/infer.h"
#include "infer/pages.h"
#include "infer/sample.h"
#include "model/model.h"

/* ---- stream.c: the text of an answer between the tokens and the reader ---- */

/* Holds back half characters and possible starts of a stop. */
struct stream {
	struct stave_buf held;
	char **stop; /* (n_stop), each non-empty */
	int n_stop;
};
/* How many leading bytes of `held` may go out. If a stop text is complete, those before it, and *stopped is set. */
size_t stream_ready(const struct stream *s, bool *stopped);
void stream_drop(struct stream *s, size_t n);
void stream_free(struct stream *s);

/* ---- pace.c: how long steps take ---- */

/* Seconds of a step that carries n answering sequences and no prompt, and what each prompt token adds to it; measured as the engine runs. */
struct pace {
	double *idle_s; /* (slots + 1) by number of answering sequences; 0 = not met yet */
	int slots;
	double token_s; /* 0 = not met yet */
};
/* Prompt tokens that the next step may carry beside `answering` sequences: `most` when there are none; 0 when it is to show what it takes without. */
int pace_chunk(const struct pace *p, int answering, int most);
void pace_note(struct pace *p, int answering, int prompt_tokens, double seconds);
/* Nothing is met yet: from now on steps take other times. */
void pace_forget(struct pace *p);

/* ---- load.c ---- */

struct adapter {
	char *name;
	struct stave_adapter *a;
};
struct loaded {
	struct stave_source *source, *draft_source;
	struct stave_lm *lm, *draft;  /* draft NULL: none */
	struct stave_arena arena;
	struct stave_tokenizer *tokenizer;
	struct stave_engine_info info;
	struct adapter *adapters;     /* (n_adapters) */
	int n_adapters;
	int V;                        /* ids that may be drawn: known to the model and to the tokenizer */
	int mask_words;               /* of the bits of a grammar's mask */
	int draft_V;                  /* ids that the draft model knows */
	int speculate, ngram;         /* as configured, defaults filled in */
	enum stave_embed embed;       /* what AUTO means */
	int32_t *stops;               /* (n_stops) ids that end an answer */
	int n_stops;
	int pages_each;               /* that a whole context takes */
	int rows;                     /* rows of logits: slots * (1 + speculate) */
	/* in the arena */
	float *logits;                /* (rows, shape V) */
	float *draft_logits;          /* (slots, draft's shape V) */
	struct sampler *samplers;     /* (slots); the structs are not in the arena */
	uint32_t *allowed;            /* (slots, mask_words) what grammars allow */
	struct pages pages;
	int32_t *page_lists;          /* (slots, pages_each) */
	int32_t *draft_pages;         /* (slots, pages_each) 0, 1, 2 …: each slot's own */
	double *idle_s;               /* (slots + 1) pace */
	size_t touched;               /* of the arena: how far settle_model has come behind the weights */
};
int load_model(struct loaded *m, const struct stave_engine_config *c, struct stave_err *err);
/* Goes on for about `seconds` with what loading has left for when there is time: weights come to their places, memory is touched. True: nothing is left. */
bool settle_model(struct loaded *m, double seconds);
void unload_model(struct loaded *m);

/* ---- sequence.c ---- */

struct seq {
	struct seq *next;
	uint64_t id;
	struct stave_request r;      /* pointers owned; ids is `tokens` */
	struct prefix prefix;
	const struct stave_adapter *adapter;
	struct stave_matcher *matcher; /* NULL: no grammar */
	struct stream stream;
	float *embedding;            /* (C) requests with `embed` */
	int32_t *tokens;             /* (n_ids + limit + STAVE_SPECULATE_MAX) prompt, answer, then what is proposed */
	int n, made, limit;          /* known tokens; how many of them generated; how many may be */
	int past;                    /* positions in the cache. n - past = 1: answering, more: reading (a prompt, or once more what was preempted) */
	bool cancelled;

	int slot;                    /* -1: waiting */
	int32_t *pages;              /* (n_pages) held */
	int n_pages, published;      /* pages; how many of them are in the tree */
	int wanted;                  /* proposals that are welcome in this step */
	int take, proposed;          /* rows of this step; how many of them are proposals */
	bool waits;                  /* an older sequence is computing what it needs next */
	int row, at;                 /* of this step: first row of logits; rows drawn from */
	int scored;                  /* prompt tokens whose PROMPT event has gone out */
	int cached, preemptions;

	int spec;                    /* tokens to propose next time */
	int misses, pause;           /* proposals in a row of which nothing was accepted; steps without any to come */
	int draft_past;              /* positions in the draft model's cache that agree with tokens */
	int draft_n;                 /* known tokens when the draft model was last asked; 0 = it was not, in this step */
	bool draftable;              /* the draft model knows all the prompt's ids */
	int all_proposed, all_accepted;

	struct stave_logprob lp;
	double submitted_s, started_s, first_s, last_s;
	uint64_t hash;
};
/* A checked sequence that owns all the request points to. */
int seq_open(struct seq **out, const struct loaded *m, const struct stave_request *r, struct stave_err *err);
/* Frees a sequence that no list holds. */
void seq_free(struct seq *s);
/* s's sampler forgets whoever was there before and takes note of s's tokens; appended: only of the last one. */
void seq_note_all(struct seq *s, struct sampler *p);
void seq_note_last(struct seq *s, struct sampler *p);

/* ---- cache.c: a sequence's pages ---- */

/* Pages for all tokens of s, those that the tree has taken over, past set; false and nothing changed when they and `reserve` more cannot be had. */
bool cache_enter(struct stave_engine *e, struct seq *s, int reserve);
/* Whole pages that the tree has got since, instead of computing them. */
void cache_rejoin(struct stave_engine *e, struct seq *s);
/* Pages for `positions`; false when there are none to be had. */
bool cache_grow(struct stave_engine *e, struct seq *s, int positions);
/* Full pages go into the tree. */
void cache_publish(struct stave_engine *e, struct seq *s);
/* What is computed stays in the tree, as long as nobody needs the place; s holds nothing any more. */
void cache_leave(struct stave_engine *e, struct seq *s);

/* ---- the engine ---- */

struct stave_engine {
	struct stave_engine_config c;
	struct loaded m;
	pthread_t worker;

	pthread_mutex_t lock;
	pthread_cond_t wake;         /* work, a cancellation or the end; and, once each, that loading and settling are over */
	bool loaded, closing;        /* lock */
	bool settled;                /* lock; written by the worker */
	int load_rc;                 /* lock */
	struct stave_err load_err;   /* lock */
	struct seq *inbox, **inbox_end; /* lock: submitted, not yet seen by the worker */
	int queued;                  /* lock: in the inbox or waiting */
	uint64_t next_id;            /* lock */
	uint64_t *cancels;           /* lock: (n_cancels) ids */
	size_t n_cancels, cap_cancels;
	struct stave_engine_stats stats; /* lock */

	struct seq *waiting;         /* by age */
	struct seq **running;        /* (n_running of slots) by age */
	int n_running;
	int *free_slots;             /* (slots - n_running) */
	struct seq **turn;           /* (slots) of this step: those with rows of logits */
	struct seq **members;        /* (slots) beside batch */
	struct stave_lm_rows *batch; /* (slots) */
	const float **rows;          /* (m.rows) */
	int32_t *drawn;              /* (slots) */
	struct pace pace;
	struct stave_engine_stats now; /* the worker's own counters, copied to stats after each step */
};
/* schedule.c: the worker's loop, until closing. */
void engine_loop(struct stave_engine *e);
/* s leaves its slot, and its pages, for the queue: its tokens will be computed again. */
void engine_preempt(struct stave_engine *e, struct seq *s);
/* s leaves its slot or the queue, gets its last event (with the text still held if `flush`) and is freed. */
void engine_finish(struct stave_engine *e, struct seq *s, enum stave_finish why, bool flush);

/* Token `ahead` after those made, drawn for s from logits of the target or the draft; -1: none may follow. */
int32_t engine_draw(struct stave_engine *e, struct seq *s, int ahead, const float *logits);
/* answer.c: what becomes of the rows of a step, whose hidden states are in e->batch. */
void engine_answer(struct stave_engine *e, int n);

/* ---- speculate.c ---- */

/* What followed the longest earlier occurrence of the last tokens (of at least `least`, the latest of equals): up to `want` tokens into out;
 * returns how many. */
int propose_ngram(const int32_t *tokens, int n, int least, int want, int32_t *out);
/* Proposals for the answering sequences, put behind their tokens; take grows. */
void engine_propose(struct stave_engine *e);
/* s's proposals of this step have been judged. */
void speculate_note(struct seq *s, int proposed, int accepted, int most);

#endif
