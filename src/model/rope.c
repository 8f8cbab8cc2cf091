/* Rotary frequencies (Su et al. 2021), with Llama-3's scaling: wavelengths beyond the original context are stretched by
 * the factor, short ones are kept, those between are blended. */
#include <math.h>

#include "model/model.h"

static double scaled(const struct stave_shape *s, double f)
{
	if (s->rope_factor <= 0)
		return f;
	if (s->rope_linear)
		return f / s->rope_factor;
	double turns = s->rope_original * f / (2 * M_PI); /* of this frequency within the original context */
	double keep = (turns - s->rope_low) / (s->rope_high - s->rope_low);
	keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
	return keep * f + (1 - keep) * f / s->rope_factor;
}

void stave_rope_angles(const struct stave_shape *s, bool local, const float *factors, int positions, float *table)
{
	int dims = s->rope_dims ? s->rope_dims : s->D, half = dims / 2;
	double size = s->rope_mscale > 0 ? (double)s->rope_mscale : 1;
#pragma omp parallel for schedule(static)
	for (int i = 0; i < half; i++) {
		double f = pow(local ? s->rope_local : s->rope_theta, -2.0 * i / dims);
		f = local ? f : scaled(s, f) / (factors ? (double)factors[i] : 1);
		for (int t = 0; t < positions; t++) {
			table[((size_t)t * (size_t)half + (size_t)i) * 2] = (float)(size * cos(t * f));
			table[((size_t)t * (size_t)half + (size_t)i) * 2 + 1] = (float)(size * sin(t * f));
		}
	}
}

void stave_rope_table(const struct stave_shape *s, int positions, float *table) { stave_rope_angles(s, false, NULL, positions, table); }
