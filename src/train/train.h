/* train/: a model, a corpus and a machine become a better model. This room owns the optimizers (AdamW, Muon), the learning
 * rate schedules, the step loop, data parallelism, and checkpoints with recovery.
 *
 * One run, in order: the configuration becomes a shape; the memory of every arena is planned, printed and taken (what does
 * not fit is refused with the change that would); weights come from a checkpoint, a Hugging Face directory or a seed;
 * then steps, which allocate nothing. A step is: take the batch the loader thread prepared; forward and backward over
 * the micro-batches of this rank, with buckets of gradients being summed over ranks while backward still runs; clip;
 * update; now and then evaluate, or copy the state into the staging arena for the checkpoint thread.
 *
 * Two invariants. What is learnt is a function of (configuration, data, seed): the batch of a step is f(seed, step), so a
 * resumed run continues to the bit, at once, on any number of ranks. And a directory OUT/checkpoints/step-N that holds
 * the file DONE is whole: DONE is written last and lists size and hash of every other file. */
#ifndef STAVE_TRAIN_H
#define STAVE_TRAIN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "comm/comm.h"
#include "cost/cost.h"
#include "model/model.h"

/* ---- configuration ---- */

enum { STAVE_COSINE, STAVE_WSD, STAVE_LINEAR, STAVE_CONSTANT };
enum { STAVE_ADAMW, STAVE_MUON };
enum { STAVE_DTYPE_AUTO, STAVE_TRAIN_F32, STAVE_TRAIN_BF16 };

/* The options of `stave train`; keys, defaults, bounds and help in config.c's table. */
struct stave_train {
	char *model, *data, *out, *run, *runs, *resume;
	/* shape: 0 (or choice 0) leaves what the preset or directory says */
	int64_t layers, heads, kv_heads, channels, ff, context, vocab;
	int act, bias, tied;
	int64_t steps, batch, micro_batch, seq, seed, threads;
	double lr, min_lr, muon_lr, muon_momentum, beta1, beta2, eps, weight_decay, clip;
	int schedule, optimizer, dtype, recompute;
	int64_t warmup, decay_steps;
	double decay_fraction;
	bool doc_mask;
	int64_t eval_every, eval_batches;
	int on_nonfinite; /* 0 stop, 1 skip */
	double spike_z, time_limit_s;
	int64_t checkpoint_every, checkpoint_keep, checkpoint_every_keep;
	bool json;
};
extern const struct stave_key stave_train_keys[];
extern const int stave_train_n_keys;

/* The shape these options describe, for a vocabulary of `vocab` tokens (used unless the options or a model directory say
 * otherwise). STAVE_ECONFIG names the key that does not go with the others. */
int stave_train_shape(const struct stave_train *o, int vocab, struct stave_shape *s, struct stave_err *err);

/* ---- schedules ---- */

/* The learning rate of step `it`. Warm-up is peak·(it+1)/(warmup+1), then until `decay_steps`:
 *   cosine    min + ½(1 + cos πr)(peak - min), r from 0 at the end of warm-up to 1 (nanoGPT)
 *   linear    from peak to min
 *   wsd       peak, then over the last `decay_fraction`: min + (peak - min)(1 - √r) (Hägele et al., arXiv 2405.18392)
 *   constant  peak
 * and min (constant: peak) from `decay_steps` on. */
struct stave_schedule {
	int kind;
	double peak, min, decay_fraction;
	int64_t warmup, decay_steps;
};
double stave_schedule_lr(const struct stave_schedule *s, int64_t it);

/* ---- batches ---- */

enum stave_set { STAVE_SET_TRAIN, STAVE_SET_EVAL_TRAIN, STAVE_SET_VAL };
/* Where rows come from. `fill` writes rows row0 .. row0+nrows of the batch of `step` (for the two evaluation sets: of the
 * evaluation before `step`), each (nrows, T); a target of -1 is masked. Calls are made one at a time and in this order:
 * rows of train step s, then of an evaluation at s if there is one, then of train step s+1, which may happen before a
 * checkpoint of the state "next is s+1" is taken: state_save(ctx, s+1, to) must therefore write the state from which
 * fill(TRAIN, s+1) gives that same batch, whether or not it has been called. Loaders that are functions of (seed, step)
 * have state_bytes 0. Every rank calls fill for its own rows only. `start` and `pos` as in stave_batch. */
struct stave_batches {
	void *ctx;
	int (*fill)(void *ctx, enum stave_set set, int64_t step, int64_t row0, int nrows, int T, int32_t *inputs, int32_t *targets,
	            int32_t *start, int32_t *pos, struct stave_err *err);
	bool has_val;        /* there is a validation set */
	double val_tokens_per_byte; /* for bits per byte; 0 unknown */
	size_t state_bytes;
	void (*state_save)(void *ctx, int64_t step, void *to);
	int (*state_load)(void *ctx, const void *from, struct stave_err *err);
};
/* The data room's token shards (or .bin file) as batches. eval rows: `eval_rows` windows spread evenly over the validation split,
 * the same each time; as many shuffled training rows of a fixed seed. */
struct stave_tokens;
struct stave_shard_batches {
	struct stave_tokens *train, *val; /* val NULL: the directory has none */
	uint64_t seed;
	int64_t batch, eval_rows;
	bool doc_mask;
};
int stave_shard_batches_open(struct stave_shard_batches *s, const struct stave_train *o, struct stave_err *err);
void stave_shard_batches_close(struct stave_shard_batches *s);
struct stave_batches stave_shard_batches_door(struct stave_shard_batches *s);
/* Largest token id of either split + 1. */
int stave_shard_batches_vocab(const struct stave_shard_batches *s);

/* ---- a run ---- */

struct stave_train_step {
	int64_t step;
	double loss;         /* mean of the step's unmasked tokens over all ranks, nats, before the update */
	double grad_norm;    /* before clipping */
	double lr;
	double step_s, data_wait_s;
	bool skipped;        /* the guard skipped the update */
};
struct stave_train_eval {
	int64_t step;        /* before this step's update; the last one is at `steps` */
	double train_loss, val_loss; /* val_loss NaN without a validation set */
};
/* What a caller may hang into a run; all may be NULL. */
struct stave_train_hooks {
	void *ctx;
	void (*init)(void *ctx, const struct stave_layout *l, float *params); /* instead of the seed's initial weights */
	void (*on_eval)(void *ctx, const struct stave_train_eval *e);
	void (*on_step)(void *ctx, const struct stave_train_step *s);
};
struct stave_train_job {
	const struct stave_train *options;
	struct stave_shape shape;
	struct stave_batches batches;
	struct stave_comm *comm;
	struct stave_train_hooks hooks;
	const char *tokenizer_dir;  /* tokenizer.json and tokenizer_config.json are copied from here; NULL: none */
	int eos, bos;               /* for config.json, -1: none */
	const struct stave_config *config; /* written resolved to runs/NAME/config.yaml, and hashed; NULL: not */
};
struct stave_train_result {
	int64_t steps_done, first_step, tokens; /* tokens learnt, over all steps of this model */
	double loss, train_loss, val_loss;
	double seconds, tokens_per_s, mfu;    /* of this process's steps; mfu NaN without a machine profile */
	double data_wait_share, checkpoint_share;
	double planned_bytes, allocated_bytes, rss_bytes;
	uint64_t losses_hash, weights_hash;
	json_t *receipt;                      /* as written to runs/NAME/receipt.json (rank 0); NULL elsewhere */
	bool requeue;                         /* stopped by SIGTERM or SIGUSR1 */
	bool time_limit;                      /* stopped by train.time_limit_s */
};
/* Train. Talks on stderr through base/sys.h. Errors: STAVE_ENOFIT before the first step with the change that would fit;
 * STAVE_EREQUEUE after the checkpoint a signal asked for; STAVE_EINTERRUPTED; STAVE_EPEER (call stave_comm_abort);
 * STAVE_EFAIL naming the first tensor of a non-finite gradient; STAVE_ENOSPACE when a checkpoint could not be written.
 * On STAVE_EREQUEUE and STAVE_EINTERRUPTED the result is filled as on success. Free result->receipt with json_decref. */
int stave_train_run(const struct stave_train_job *job, struct stave_train_result *result, struct stave_err *err);

#endif
