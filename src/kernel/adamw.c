/* AdamW (Loshchilov, Hutter 2019) in torch's order, the definition: decay, moments, step.
 *
 *     p <- p (1 - lr decay)
 *     m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
 *     p <- p - lr (m / c1) / (sqrt(v / c2) + eps)
 *
 * m and v are rounded to float before the step uses them, since that is what the next step will find. */
#include <math.h>

#include "kernel/table.h"

void adamw_ref(float *p, uint16_t *w16, float *m, float *v, const float *g, size_t n, float g_scale, double lr, double b1,
               double b2, double eps, double decay, double c1, double c2)
{
	for (size_t i = 0; i < n; i++) {
		double gi = (double)g[i] * g_scale;
		m[i] = (float)(b1 * m[i] + (1 - b1) * gi);
		v[i] = (float)(b2 * v[i] + (1 - b2) * gi * gi);
		p[i] = (float)(p[i] * (1 - lr * decay) - lr * (m[i] / c1) / (sqrt(v[i] / c2) + eps));
		if (w16)
			w16[i] = stave_f32_to_bf16(p[i]);
	}
}
