/* AdamW: 28 to 30 bytes of memory per value against a dozen instructions, so one pass and nothing else matters.
 *
 * The moments are written m + (1 - b)(g - m): with b near 1, rounding 1 - b to float keeps seven digits of it, while
 * b m + (1 - b) g with b rounded to float would pull v off its mean by 1e-5. */
#include "kernel/simd.h"

#include <math.h>

/* The scalars of one step, as the loop wants them. */
struct step {
	vf g_scale, keep, rate1, rate2, lr, root, eps;
};

INLINE void update(const bool half, const struct step *s, float *p, uint16_t *w16, float *m, float *v, const float *g, size_t n)
{
	vf grad = vmul(vload_n(g, n), s->g_scale), old_m = vload_n(m, n), old_v = vload_n(v, n);
	vf new_m = vfma(s->rate1, vsub(grad, old_m), old_m);
	vf new_v = vfma(s->rate2, vsub(vmul(grad, grad), old_v), old_v);
	vf down = vdiv(vmul(s->lr, new_m), vfma(vsqrt(new_v), s->root, s->eps));
	vf new_p = vsub(vmul(vload_n(p, n), s->keep), down);
	vstore_n(m, new_m, n);
	vstore_n(v, new_v, n);
	vstore_n(p, new_p, n);
	if (half)
		vstore_bf16_n(w16, new_p, n);
}

void STAVE_LEVELED(adamw)(float *p, uint16_t *w16, float *mean, float *square, const float *g, size_t n, float g_scale,
                          double lr, double b1, double b2, double eps, double decay, double c1, double c2)
{
	const struct step s = {vset(g_scale), vset((float)(1 - lr * decay)), vset((float)(1 - b1)), vset((float)(1 - b2)),
	                       vset((float)(lr / c1)), vset((float)(1 / sqrt(c2))), vset((float)eps)};
	if (w16)
		EACH_VECTOR(n, update(true, &s, p + i, w16 + i, mean + i, square + i, g + i, m););
	else
		EACH_VECTOR(n, update(false, &s, p + i, NULL, mean + i, square + i, g + i, m););
}
