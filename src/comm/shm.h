/* Sums of ranks that share a machine (private to comm/). See shm.c. */
#ifndef STAVE_COMM_SHM_H
#define STAVE_COMM_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct shm;
/* The window of `size` ranks under a name of 32 hex digits. Rank 0 creates it (create) before the others open it; once
 * all have, stave_shm_unlink removes the name, so that nothing outlives the processes. */
int stave_shm_open(struct shm **out, int rank, int size, const char *name, bool create, struct stave_err *err);
void stave_shm_unlink(const char *name);
void stave_shm_close(struct shm *s);
/* In-place sum of x over the ranks, in rank order. `stop` is asked while a peer keeps us waiting, with the seconds it
 * has been so; when it returns true the sum is abandoned and -1 returned. */
int stave_shm_sum(struct shm *s, float *x, size_t n, bool (*stop)(void *ctx, double waited_s), void *ctx);

#endif
