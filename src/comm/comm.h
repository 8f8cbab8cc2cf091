/* comm/: collectives behind one small interface. `self` is one rank; MPI is a plugin (stave-mpi.so beside the program,
 * dlopened when a launcher's environment says there are several ranks). The program itself links no MPI. */
#ifndef STAVE_COMM_H
#define STAVE_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define STAVE_COMM_ABI 1
/* What a transport exports: one const table `stave_comm_plugin`. Nonblocking reduction: start returns a slot, test
 * polls it (and drives progress), so the caller can watch a deadline and its neighbours. */
struct stave_comm_ops {
	int abi;
	const char *name;
	int (*init)(int *rank, int *size, char *why, size_t why_size);
	void (*finish)(bool abort);
	int (*reduce_start)(void *buf, size_t n, int kind, void **request); /* in-place sum; kind 0 float, 1 double, 2 int64 max */
	int (*bcast_start)(void *buf, size_t bytes, int root, void **request);
	int (*gather_start)(const void *mine, void *all, size_t bytes, void **request); /* allgather */
	int (*test)(void **request, bool *done);
	/* heartbeat board: every rank publishes (step, operation); reads its peers' without blocking */
	int (*publish)(int64_t step, int operation);
	int (*peek)(int rank, int64_t *step, int *operation, double *age_s);
};

struct stave_comm;
/* Chooses the transport: OMPI_COMM_WORLD_SIZE / PMI_SIZE / SLURM_NTASKS > 1 (or STAVE_COMM=mpi) loads the plugin. */
int stave_comm_open(struct stave_comm **out, struct stave_err *err);
void stave_comm_close(struct stave_comm *c);
/* After a peer was lost: leave without the collective shutdown. */
void stave_comm_abort(struct stave_comm *c);
int stave_comm_rank(const struct stave_comm *c);
int stave_comm_size(const struct stave_comm *c);
/* Seconds without progress of a collective after which the missing rank is named (default 60, STAVE_COMM_TIMEOUT). */
void stave_comm_timeout_set(struct stave_comm *c, double seconds);
/* The step the caller is in, for the heartbeat and for messages. */
void stave_comm_step_set(struct stave_comm *c, int64_t step);

/* In-place sums over ranks. `op` names the operation in errors ("gradients", "loss"). STAVE_EPEER names the missing rank,
 * the step and the operation it was last seen in. With one rank all are immediate and change nothing. */
int stave_comm_sum(struct stave_comm *c, float *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_sum_double(struct stave_comm *c, double *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_max_int(struct stave_comm *c, int64_t *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_bcast(struct stave_comm *c, void *p, size_t bytes, int root, const char *op, struct stave_err *err);
int stave_comm_gather(struct stave_comm *c, const void *mine, void *all, size_t bytes, const char *op, struct stave_err *err);
int stave_comm_barrier(struct stave_comm *c, const char *op, struct stave_err *err);
/* Overlap: begin queues an in-place sum that a progress thread drives while the caller computes; wait_all returns when
 * all queued are done (or the first error). Up to 256 outstanding. */
int stave_comm_sum_begin(struct stave_comm *c, float *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_wait_all(struct stave_comm *c, struct stave_err *err);
/* Seconds spent waiting in this object since the last call; resets. */
double stave_comm_wait_seconds(struct stave_comm *c);

#endif
