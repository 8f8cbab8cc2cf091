/* comm/: collectives behind one small interface. `self` is one rank; several ranks go through a plugin (stave-mpi.so
 * beside the program, opened only when a launcher's environment says there are several): the program links no MPI.
 *
 * What the caller sees: every collective either completes on all ranks or returns STAVE_EPEER within the timeout, with
 * the missing rank, the step and the operation in the message; after that error the object only repeats it, and the
 * caller leaves by stave_comm_abort. One thread at a time may call in. Sums are the same bits on every rank and in
 * every run of the same rank count. */
#ifndef STAVE_COMM_H
#define STAVE_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define STAVE_COMM_ABI 2
enum stave_comm_kind { STAVE_COMM_FLOAT, STAVE_COMM_DOUBLE, STAVE_COMM_INT_MAX };
/* What a transport exports: one const table `stave_comm_plugin`. Every call comes from one thread, the progress thread,
 * and none blocks except init and finish: a start hands out a request, test polls it, so that deadlines and lost peers
 * stay in our hands. One request is outstanding at a time. 0 is success; on failure `why` says what happened. */
struct stave_comm_ops {
	int abi;
	const char *name;
	int (*init)(int *rank, int *size, char *why, size_t why_size);
	void (*finish)(void);
	int (*reduce_start)(void *buf, size_t n, enum stave_comm_kind kind, char *why, size_t why_size); /* in place */
	int (*bcast_start)(void *buf, size_t bytes, int root, char *why, size_t why_size);
	int (*gather_start)(const void *mine, void *all, size_t bytes, char *why, size_t why_size); /* to all */
	int (*test)(bool *done, char *why, size_t why_size);
	size_t piece; /* the largest n or bytes of one start */
};

struct stave_comm;
/* Chooses the transport: a launcher that says it started several ranks (OMPI_COMM_WORLD_SIZE, PMI_SIZE,
 * SLURM_STEP_NUM_TASKS), or STAVE_COMM=mpi, loads the plugin from STAVE_PLUGINS, else from beside the program. Ranks of
 * one machine add floats through shared memory unless STAVE_COMM_WINDOW=off (on all), which leaves it to the transport. */
int stave_comm_open(struct stave_comm **out, struct stave_err *err);
/* Collective: waits for every rank, then shuts the transport down. After an error it is stave_comm_abort. NULL is fine. */
void stave_comm_close(struct stave_comm *c);
/* Leave without the collective shutdown, telling the peers that this rank stops because of an error. After STAVE_EPEER it
 * returns up to 0.7 s later, together with the other survivors: print the message first. */
void stave_comm_abort(struct stave_comm *c);
int stave_comm_rank(const struct stave_comm *c);
int stave_comm_size(const struct stave_comm *c);
/* Seconds without progress of a collective after which the missing rank is named (default 60, STAVE_COMM_TIMEOUT). */
void stave_comm_timeout_set(struct stave_comm *c, double seconds);
/* The step the caller is in, for the heartbeat and for messages. */
void stave_comm_step_set(struct stave_comm *c, int64_t step);
/* A launcher kills the survivors a second or two after a rank was lost, which may be before a long step ends. When a
 * loss was noticed and no call has returned it within grace_s (at most 0.4 s), `lost` is called once, on a thread of
 * comm, with the message: it may print it and leave the process, and nothing else. */
void stave_comm_lost_set(struct stave_comm *c, void (*lost)(void *arg, const char *message), void *arg, double grace_s);

/* In-place sums over ranks. `op` names the operation in errors ("gradients", "loss") and must outlive the object, as a
 * string constant does. With one rank all are immediate and change nothing. */
int stave_comm_sum(struct stave_comm *c, float *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_sum_double(struct stave_comm *c, double *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_max_int(struct stave_comm *c, int64_t *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_bcast(struct stave_comm *c, void *p, size_t bytes, int root, const char *op, struct stave_err *err);
/* all: (size, bytes), rank by rank. */
int stave_comm_gather(struct stave_comm *c, const void *mine, void *all, size_t bytes, const char *op, struct stave_err *err);
int stave_comm_barrier(struct stave_comm *c, const char *op, struct stave_err *err);
/* Overlap: begin queues an in-place sum that a progress thread drives while the caller computes; x stays untouched until
 * wait_all, which returns when all queued are done (or the first error). The 257th outstanding one waits for room. */
int stave_comm_sum_begin(struct stave_comm *c, float *x, size_t n, const char *op, struct stave_err *err);
int stave_comm_wait_all(struct stave_comm *c, struct stave_err *err);
/* Seconds the caller spent waiting in this object since the last call; resets. */
double stave_comm_wait_seconds(struct stave_comm *c);

#endif
