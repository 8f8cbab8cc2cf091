/* Softmax cross-entropy for any vector level, in place. A row of logits is read twice: first for its maximum and sum together,
 * chunk by chunk so that the second look at a chunk comes from the nearest cache, then to turn it into the gradient.
 * The exponential is computed both times, which costs less than a second buffer of probabilities would. */
#include <math.h>

#include "kernel/attn_simd.h"

#define CHUNK 2048
#define LOG2E 1.44269504088896f
#define HIDDEN 1e30f

/* Lanes from m on hold a value whose exponential is 0. */
INLINE vf load_logits(enum stave_dtype dt, const void *x, size_t i, size_t m)
{
	vf v = vget(dt, x, i, m);
	return m == VL ? v : vadd(v, vsub(vlanes(vset(HIDDEN), m), vset(HIDDEN)));
}

/* Maximum of n logits, and the sum of exp(logit - maximum). */
INLINE float row_sum(enum stave_dtype dt, const void *x, int n, float *max)
{
	float all = 0;
	*max = -HIDDEN;
	for (size_t c = 0; c < (size_t)n; c += CHUNK) {
		size_t len = (size_t)n - c < CHUNK ? (size_t)n - c : CHUNK;
		vf top = vset(*max), sum = vset(0);
		EACH_VECTOR(len, top = vmax(top, load_logits(dt, x, c + i, m)););
		float new_max = vhmax(top);
		vf shift = vset(new_max);
		EACH_VECTOR(len, vf d = vsub(load_logits(dt, x, c + i, m), shift); sum = vadd(sum, vexp2(vmul(d, vset(LOG2E)))););
		all = all * exp2f((*max - new_max) * LOG2E) + vsum(sum);
		*max = new_max;
	}
	return all;
}

INLINE float row(enum stave_dtype dt, void *x, size_t ld, int target, float grad_scale, int V)
{
	float max, sum = row_sum(dt, x, V, &max), at_target = stave_get(dt, x, target);
	if (grad_scale != 0) {
		vf shift = vset(max), scale = vset(grad_scale / sum);
		EACH_VECTOR((size_t)V, vf p = vexp2(vmul(vsub(vget(dt, x, i, m), shift), vset(LOG2E))); vput(dt, x, i, vmul(p, scale), m););
		stave_put(dt, x, target, (expf(at_target - max) / sum - 1) * grad_scale);
		size_t size = dt == STAVE_F32 ? 4 : 2;
		memset((char *)x + (size_t)V * size, 0, (ld - (size_t)V) * size);
	}
	return max - at_target + logf(sum);
}

INLINE void rows(enum stave_dtype dt, void *logits, size_t ld, float *loss, const int32_t *targets, float grad_scale, int n, int V)
{
	size_t bytes = ld * (dt == STAVE_F32 ? 4 : 2);
	for (int r = 0; r < n; r++) {
		char *x = (char *)logits + (size_t)r * bytes;
		if (targets[r] >= 0) {
			loss[r] = row(dt, x, ld, targets[r], grad_scale, V);
			continue;
		}
		loss[r] = 0;
		if (grad_scale != 0)
			memset(x, 0, bytes);
	}
}

void STAVE_LEVELED(xent)(enum stave_dtype dt, void *logits, size_t ld, float *loss, const int32_t *targets, float grad_scale, int n,
                         int V)
{
	if (dt == STAVE_F32)
		rows(STAVE_F32, logits, ld, loss, targets, grad_scale, n, V);
	else
		rows(STAVE_BF16, logits, ld, loss, targets, grad_scale, n, V);
}
