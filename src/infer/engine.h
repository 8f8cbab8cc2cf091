/* Private to infer/: the engine's parts. Who owns what: `lock` guards the fields marked so; everything else belongs to the
 * worker thread once it runs. */
#ifndef STAVE_INFER_ENGINE_H
#define STAVE_INFER_ENGINE_H

#include <pthread.h>

#include "base/arena.h"
#include "base/fs.h"
#include "infer/infer.h"
#include "infer/sample.h"
#include "model/model.h"

/* The text of an answer between the tokens and the reader: holds back half characters and possible starts of a stop. */
struct stream {
	struct stave_buf held;
	char **stop; /* (n_stop), each non-empty */
	int n_stop;
};
/* How many leading bytes of `held` may go out. If a stop text is complete, those before it, and *stopped is set. */
size_t stream_ready(const struct stream *s, bool *stopped);
void stream_drop(struct stream *s, size_t n);
void stream_free(struct stream *s);

/* A loaded model with its memory (load.c). */
struct loaded {
	struct stave_layout layout;
	struct stave_arena params, arena; /* params is closed again after a BF16 load */
	struct stave_decoder *decoder;
	struct stave_tokenizer *tokenizer;
	struct stave_engine_info info;
	int V;                       /* ids that may be drawn: known to the model and to the tokenizer */
	float *logits;               /* (slots, shape V) */
	struct sampler *samplers;    /* (slots) */
};
int load_model(struct loaded *m, const struct stave_engine_config *c, struct stave_err *err);
void unload_model(struct loaded *m);

struct seq {
	struct seq *next;
	uint64_t id;
	struct stave_request r;      /* pointers owned */
	struct stream stream;
	int limit;                   /* tokens it may generate */
	int slot, past, made;        /* past: positions in the cache; past < r.n_ids: still reading the prompt */
	int32_t last;                /* token to feed next */
	struct stave_logprob lp;
	double submitted_s, started_s, first_s, last_s;
	uint64_t hash;
};

struct stave_engine {
	struct stave_engine_config c;
	struct loaded m;
	pthread_t worker;

	pthread_mutex_t lock;
	pthread_cond_t wake;         /* work, a cancellation or the end; and, once, that loading is over */
	bool loaded, closing;        /* lock */
	int load_rc;                 /* lock */
	struct stave_err load_err;   /* lock */
	struct seq *inbox, **inbox_end; /* lock: submitted, not yet seen by the worker */
	int queued;                  /* lock: in the inbox or waiting */
	uint64_t next_id;            /* lock */
	uint64_t *cancels;           /* lock: (n_cancels) ids */
	size_t n_cancels, cap_cancels;
	struct stave_engine_stats stats; /* lock */

	struct seq *waiting, **waiting_end;
	struct seq **running;        /* (slots), NULL = free */
	struct seq **turn;           /* (slots) of this step: those with a row of logits */
	struct stave_decode *batch;  /* (slots) */
	struct seq **members;        /* (slots) beside batch */
	const float **rows;          /* (slots) */
	int32_t *drawn;              /* (slots) */
};

/* Frees a sequence that no list holds. */
void seq_free(struct seq *s);
/* The worker's loop (schedule.c): until closing. */
void engine_loop(struct stave_engine *e);

#endif
