/* Private to plan/: a binary heap of numbered things by a key, smallest first; equal keys by number, so that order never depends on history.
 * A thing is in it at most once and can be moved or taken out. Memory is the caller's. */
#ifndef STAVE_PLAN_HEAP_H
#define STAVE_PLAN_HEAP_H

#include <stdint.h>

struct plan_heap {
	double *key;      /* (n) in heap order */
	int32_t *id;      /* (n) */
	int32_t *at;      /* by id: place in the heap, -1 outside; heaps that never hold the same id may share it */
	int n;
	uint64_t *steps;  /* counts comparisons of two entries */
};

/* Put `id` in, or move it to another key. */
void plan_heap_set(struct plan_heap *h, int32_t id, double key);
/* Take `id` out; nothing happens when it is not in. */
void plan_heap_drop(struct plan_heap *h, int32_t id);

#endif
