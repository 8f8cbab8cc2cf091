/* LayerNorm (Ba, Kiros, Hinton 2016) and RMSNorm (Zhang, Sennrich 2019) over rows of C, the definition.
 *
 *     xhat = (x - mean) rstd        mean = 0 for RMSNorm
 *     rstd = 1 / sqrt(mean((x - mean)^2) + eps)
 *     y    = xhat gain + bias
 *
 * With a = dy gain, the derivative is dx = rstd (a - mean(a) - xhat mean(a xhat)), without mean(a) for RMSNorm, and
 * dgain = sum over rows of dy xhat, dbias = sum of dy. */
#include <math.h>

#include "kernel/table.h"

void norm_fwd_ref(enum stave_dtype dt, bool rms, void *y, float *mean, float *rstd, const float *x, const float *gain,
                  const float *bias, float eps, int n, int C)
{
	for (int r = 0; r < n; r++) {
		const float *xr = x + (size_t)r * C;
		double mu = 0, var = 0;
		for (int c = 0; c < C && !rms; c++)
			mu += xr[c];
		mu /= C;
		for (int c = 0; c < C; c++)
			var += (xr[c] - mu) * (xr[c] - mu);
		double rs = 1 / sqrt(var / C + eps);
		for (int c = 0; c < C; c++)
			stave_put(dt, y, (size_t)r * C + c, (float)((xr[c] - mu) * rs * gain[c] + (bias ? bias[c] : 0)));
		if (!rms)
			mean[r] = (float)mu;
		rstd[r] = (float)rs;
	}
}

void norm_bwd_ref(enum stave_dtype dt, bool rms, float *dx, void *dx_dt, float *dgain, float *dbias, const void *dy,
                  const float *x, const float *mean, const float *rstd, const float *gain, int n, int C)
{
	for (int r = 0; r < n; r++) {
		size_t row = (size_t)r * C;
		double mu = rms ? 0 : mean[r], rs = rstd[r], sum_a = 0, sum_ax = 0;
		for (int c = 0; c < C; c++) {
			double a = (double)stave_get(dt, dy, row + c) * gain[c];
			sum_a += a;
			sum_ax += a * (x[row + c] - mu) * rs;
		}
		double mean_a = rms ? 0 : sum_a / C, mean_ax = sum_ax / C;
		for (int c = 0; c < C; c++) {
			double a = (double)stave_get(dt, dy, row + c) * gain[c], xhat = (x[row + c] - mu) * rs;
			dx[row + c] = (float)(dx[row + c] + rs * (a - mean_a - xhat * mean_ax));
			if (dx_dt)
				stave_put(dt, dx_dt, row + c, dx[row + c]);
		}
	}
	for (int c = 0; c < C; c++) {
		double dg = 0, db = 0;
		for (int r = 0; r < n; r++) {
			size_t at = (size_t)r * C + c;
			double d = stave_get(dt, dy, at);
			dg += d * (x[at] - (rms ? 0 : (double)mean[r])) * rstd[r];
			db += d;
		}
		dgain[c] = (float)(dgain[c] + dg);
		if (dbias)
			dbias[c] = (float)(dbias[c] + db);
	}
}
