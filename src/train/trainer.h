/* Private to train/: one run's state, shared by setup.c (memory and weights), step.c (the loop's body), report.c (what is
 * said about it) and run.c (their order). */
#ifndef STAVE_TRAIN_TRAINER_H
#define STAVE_TRAIN_TRAINER_H

#include "cost/machine.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"
#include "train/prefetch.h"
#include "train/train.h"
#include "watch/watch.h"

/*        name      what it holds */
#define TRAIN_ARENAS(X)                                    \
	X(WEIGHTS,    "weights")                           \
	X(GRADIENTS,  "gradients")                         \
	X(MOMENTS,    "moments")                           \
	X(NETWORK,    "activations and workspace")         \
	X(BATCHES,    "batches")                           \
	X(STAGING,    "checkpoint staging")
enum {
#define X(name, text) ARENA_##name,
	TRAIN_ARENAS(X)
#undef X
	ARENAS
};
extern const char *const arena_names[ARENAS];

/* Seconds of the steps so far, by what they went to. */
struct train_times {
	double steps, matmul, attention, element, loss, optimizer, data, comm, checkpoint;
	int64_t n;         /* steps */
	int64_t tokens;    /* this process's steps, all ranks */
};
/* Buckets of gradients on their way while backward runs. */
struct buckets {
	struct stave_comm *comm;
	float *g;
	int64_t begin, end;  /* pending range, empty when equal */
	int64_t floats;      /* send when this many are pending */
	int code;
	struct stave_err *err;
};
struct trainer {
	const struct stave_train_job *job;
	const struct stave_train *o;
	struct stave_comm *comm;
	int rank, size;
	bool root;                   /* rank 0: talks and writes */
	/* layout of the work */
	struct stave_layout layout;
	struct stave_net_config nc;  /* B is the micro-batch */
	int T, n_micro;
	int64_t row0, rows;          /* this rank's share of the batch */
	struct stave_schedule schedule;
	/* memory */
	size_t planned[ARENAS], base_rss;
	struct stave_arena arena[ARENAS];
	float *p, *g;
	struct stave_net *net;
	struct stave_net_memory net_memory;
	struct optimizer opt;
	struct prefetch pre;
	struct rows eval_rows;       /* (B, T) */
	void *batches_state;
	struct checkpointer ck;
	struct buckets buckets;
	/* progress */
	struct train_state state;
	int64_t first_step;
	bool save_failed;            /* a checkpoint could not be written: stop */
	double started_s, tokens_per_s;
	double loss, grad_norm, train_loss, val_loss;
	int64_t evaluated_at;
	struct train_times times;
	/* measures */
	struct stave_machine machine;
	bool has_machine;
	struct stave_forecast forecast;
	double flops_per_token, matmul_flops_step, peak;
	struct stave_run *run;
	char run_dir[STAVE_PATH];
	uint64_t config_hash;
};

/* setup.c */
int setup_work(struct trainer *t, struct stave_err *err);      /* shares, micro-batch, memory plan; STAVE_ENOFIT */
int setup_memory(struct trainer *t, struct stave_err *err);    /* take what was planned */
int setup_weights(struct trainer *t, struct stave_err *err);   /* checkpoint, directory, hook or seed; the same on every rank */
void setup_close(struct trainer *t);
struct checkpoint live_checkpoint(struct trainer *t);

/* step.c */
enum { STEP_GO_ON, STEP_STOP, STEP_REQUEUE, STEP_TIME_LIMIT }; /* what all ranks agreed to do after this step */
int train_step(struct trainer *t, int *then, struct stave_err *err);
int train_evaluate(struct trainer *t, struct stave_err *err);
/* Write a checkpoint of the state now, on this thread (rank 0; nothing elsewhere). */
int train_save_now(struct trainer *t, struct stave_err *err);

/* report.c */
void report_plan(struct trainer *t);
void report_live(struct trainer *t, bool final);
/* The class whose absence, or running at peak, would shorten the step most: its name, and by which share. */
const char *report_shortest(const struct trainer *t, double *gain);
json_t *report_receipt(const struct trainer *t, const struct stave_train_result *r);
json_t *report_plan_json(const struct trainer *t);
void report_receipt_text(const struct trainer *t, const struct stave_train_result *r);

#endif
