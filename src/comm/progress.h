/* The progress thread and its queue (private to comm/). See progress.c. */
#ifndef STAVE_COMM_PROGRESS_H
#define STAVE_COMM_PROGRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "comm/comm.h"
#include "comm/lifeline.h"
#include "comm/shm.h"

#define COMM_QUEUE 256

enum comm_what { COMM_SUM, COMM_REDUCE, COMM_BCAST, COMM_GATHER };
struct comm_op {
	enum comm_what what;
	enum stave_comm_kind kind; /* COMM_REDUCE */
	void *p;                   /* in place, or the result */
	const void *mine;          /* COMM_GATHER */
	size_t n;                  /* elements, or bytes */
	int root;
	const char *name;
};

struct stave_comm {
	int rank, size;
	const struct stave_comm_ops *ops; /* NULL: one rank, no thread */
	void *plugin;
	struct lifeline *lifeline;        /* NULL while opening */
	struct shm *shm;                  /* NULL: ranks on several machines */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	/* under lock: the queue holds ops [finished, queued) */
	struct comm_op op[COMM_QUEUE];
	int64_t queued, finished;
	bool ready, closing, finish;
	struct stave_err broken;          /* code 0: fine; else what every call returns from now on */
	_Atomic double timeout_s;
	_Atomic int64_t step;
	void (*lost)(void *, const char *);
	void *lost_arg;
	double lost_grace_s;
	/* the caller's */
	double wait_s;
	atomic_bool told;                 /* a call has returned `broken` */
	atomic_bool abandoned;            /* the caller leaves: the thread gives its op up */
};

/* Start the thread, which initialises the transport: rank and size are set on return. */
int stave_progress_open(struct stave_comm *c, struct stave_err *err);
/* End it. finish: shut the transport down; else what is queued is given up. False: the thread is stuck inside the
 * transport and still holds the object. */
bool stave_progress_close(struct stave_comm *c, bool finish);
/* Queue one op (waits for room), and wait until all queued are done. Both return the broken state when there is one. */
int stave_progress_queue(struct stave_comm *c, const struct comm_op *op, struct stave_err *err);
int stave_progress_wait(struct stave_comm *c, struct stave_err *err);
/* The message for a loss met at (step, op). */
void stave_progress_loss_text(const struct stave_comm *c, const struct lifeline_loss *loss, const char *op, struct stave_err *err);

#endif
