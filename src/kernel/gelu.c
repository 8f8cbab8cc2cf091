/* GELU (Hendrycks, Gimpel 2016), the definition: x Phi(x) with the normal distribution function Phi, or its tanh form
 * x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3). */
#include <math.h>

#include "kernel/table.h"

static double gelu(bool exact, double x)
{
	if (exact)
		return x * 0.5 * erfc(-x * M_SQRT1_2);
	return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static double gelu_slope(bool exact, double x)
{
	if (exact)
		return 0.5 * erfc(-x * M_SQRT1_2) + x * exp(-0.5 * x * x) / sqrt(2 * M_PI);
	double t = tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
	return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

void gelu_fwd_ref(enum stave_dtype dt, bool exact, void *y, const void *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		stave_put(dt, y, i, (float)gelu(exact, stave_get(dt, x, i)));
}

void gelu_bwd_ref(enum stave_dtype dt, bool exact, void *dx, const void *dy, const void *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		stave_put(dt, dx, i, (float)(stave_get(dt, dy, i) * gelu_slope(exact, stave_get(dt, x, i))));
}
