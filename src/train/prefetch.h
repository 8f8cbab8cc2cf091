/* Private to train/: the loader thread, which prepares the batch of the next step while this one computes. */
#ifndef STAVE_TRAIN_PREFETCH_H
#define STAVE_TRAIN_PREFETCH_H

#include <pthread.h>

#include "base/arena.h"
#include "train/train.h"

/* Rows of a batch, each (rows, T). */
struct rows {
	int32_t *inputs, *targets, *start, *pos;
};
void rows_take(struct rows *r, int rows, int T, struct stave_arena *arena);
/* Rows from..to hold nothing to learn: a micro-batch that is not full. */
void rows_blank(const struct rows *r, int from, int to, int T);
struct rows rows_at(const struct rows *r, int row, int T);

struct prefetch {
	const struct stave_batches *batches;
	int64_t row0;          /* this rank's rows of every step's batch */
	int rows, capacity, T; /* capacity: rows rounded up to whole micro-batches */
	struct rows slot[2];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool running, quit;
	int64_t wanted;        /* step to fill, -1: nothing to do */
	int next;              /* slot that is being, or was last, filled */
	int code;
	struct stave_err failed;
	double wait_s;         /* the step loop waited */
};
void prefetch_take(struct prefetch *p, struct stave_arena *arena);
int prefetch_start(struct prefetch *p, struct stave_err *err);
/* Begin to fill the batch of `step` into the slot the caller does not hold. */
void prefetch_request(struct prefetch *p, int64_t step);
/* The batch last requested; valid until the second request after it. */
int prefetch_get(struct prefetch *p, struct rows *out, struct stave_err *err);
/* Wait until the loader rests: before other calls into the batches. */
void prefetch_rest(struct prefetch *p);
void prefetch_stop(struct prefetch *p);

#endif
