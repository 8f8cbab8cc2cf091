/* Private to train/: checkpoints as files (checkpoint.c) and the thread that writes them (checkpointer.c). */
#ifndef STAVE_TRAIN_CHECKPOINT_H
#define STAVE_TRAIN_CHECKPOINT_H

#include <pthread.h>

#include "base/arena.h"
#include "base/fs.h"
#include "train/optimizer.h"
#include "watch/watch.h"

/* What a run must remember besides parameters, moments and the loader's state. */
struct train_state {
	int64_t step;      /* the next step to do */
	int64_t updates;   /* optimizer updates done: fewer than steps when some were skipped */
	int64_t tokens;    /* learnt so far */
	uint64_t losses_hash;
	struct stave_zscore loss_z, norm_z;
	/* what must not change between save and resume, since the order of data and the moments depend on it */
	int64_t seed, batch, seq;
	int optimizer;
};
/* One checkpoint: pointers into live arenas or into the staging copy. */
struct checkpoint {
	const struct optimizer *opt; /* layout and the places of moments; its own m and v are not read */
	float *p, *m, *v;
	void *batches;
	size_t batches_bytes;
	struct train_state state;
};
struct checkpoint_policy {
	char root[STAVE_PATH];      /* OUT/checkpoints */
	int64_t keep, every_keep;
	const char *tokenizer_dir;  /* NULL: none */
	int eos, bos;
};

/* Write root/step-N, whole or not at all, then remove what the policy no longer keeps. */
int checkpoint_write(const struct checkpoint_policy *policy, const struct checkpoint *c, struct stave_err *err);
/* Verify every size and hash of dir/DONE. STAVE_ECORRUPT says what is wrong. */
int checkpoint_verify(const char *dir, struct stave_err *err);
/* Fill p, m, v, batches and state from a verified directory. Refuses a checkpoint of other seed, batch, seq or optimizer
 * than c->state already holds. */
int checkpoint_load(const char *dir, struct checkpoint *c, struct stave_err *err);
/* Steps of the checkpoints in root that hold DONE, newest first, into steps[0..max); returns how many. */
int checkpoint_list(const char *root, int64_t *steps, int max);
/* Step of the newest of them; false: there is none. */
bool checkpoint_newest(const char *root, int64_t *step);
/* Load the newest whole checkpoint; a damaged one is set aside as step-N.corrupt with a warning. *found false: there is none.
 * When all there were are damaged: STAVE_ECORRUPT. */
int checkpoint_load_newest(const struct checkpoint_policy *policy, struct checkpoint *c, bool *found, struct stave_err *err);
/* Remove what killed writers left behind. */
int checkpoint_sweep(const char *root, struct stave_err *err);
int checkpoint_copy_tokenizer(const char *from, const char *to, struct stave_err *err);

struct checkpointer {
	struct checkpoint_policy policy;
	struct checkpoint staged;
	size_t n_p, n_v;      /* floats */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool running, busy, quit;
	struct stave_err failed; /* of the last write; code 0: it went well */
	double stall_s;       /* spent by the step loop: copying and waiting */
	int64_t last_step;    /* newest checkpoint known to be whole, -1: none */
};
/* Take the staging copy's memory (which may only be planning). */
void checkpointer_take(struct checkpointer *c, const struct optimizer *opt, size_t batches_bytes, struct stave_arena *arena);
int checkpointer_start(struct checkpointer *c, struct stave_err *err);
/* Copy the live state into the staging memory and let the thread write it. Waits for the write before, if that still runs,
 * and returns its error, if it had one. */
int checkpointer_submit(struct checkpointer *c, const struct checkpoint *live, struct stave_err *err);
/* The error of the last finished write, without waiting. */
int checkpointer_poll(struct checkpointer *c, struct stave_err *err);
/* Wait until nothing is being written; then as poll. */
int checkpointer_wait(struct checkpointer *c, struct stave_err *err);
void checkpointer_stop(struct checkpointer *c);

#endif
