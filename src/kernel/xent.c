/* Softmax cross-entropy, the definition: loss = log sum exp(logits) - logits[target], in nats, and its gradient
 * (softmax - onehot) * grad_scale written over the logits. A row with target -1 is masked: loss 0, gradient 0, and its
 * logits are never read, so that garbage there does no harm. */
#include <math.h>

#include "kernel/table.h"

static float row(enum stave_dtype dt, void *logits, size_t at, size_t ld, int target, float grad_scale, int V)
{
	double max = -INFINITY, sum = 0;
	for (int i = 0; i < V; i++)
		max = fmax(max, stave_get(dt, logits, at + i));
	for (int i = 0; i < V; i++)
		sum += exp(stave_get(dt, logits, at + i) - max);
	double lse = max + log(sum), loss = lse - stave_get(dt, logits, at + target);
	if (grad_scale != 0) {
		for (int i = 0; i < V; i++) {
			double p = exp(stave_get(dt, logits, at + i) - lse);
			stave_put(dt, logits, at + i, (float)((p - (i == target)) * grad_scale));
		}
		for (size_t i = V; i < ld; i++)
			stave_put(dt, logits, at + i, 0);
	}
	return (float)loss;
}

void xent_ref(enum stave_dtype dt, void *logits, size_t ld, float *loss, const int32_t *targets, float grad_scale, int n, int V)
{
	for (int r = 0; r < n; r++) {
		if (targets[r] >= 0) {
			loss[r] = row(dt, logits, r * ld, ld, targets[r], grad_scale, V);
			continue;
		}
		loss[r] = 0;
		for (size_t i = 0; grad_scale != 0 && i < ld; i++)
			stave_put(dt, logits, r * ld + i, 0);
	}
}
