/* LayerNorm and RMSNorm over rows of C. A row is read from memory once and then stays in the first-level cache, so the
 * passes over it (mean, variance, output) cost little and the variance can be the accurate two-pass one.
 *
 * Backward takes a few rows at a time: dgain and dbias, which every row adds to, are then loaded and stored once for the
 * group. Per row the order of every sum is that of a row alone. */
#include "kernel/simd.h"

#include <math.h>

enum { GROUP = VL == 16 ? 4 : 2 }; /* rows per group in backward: what the registers hold */

/* Four accumulators hide the latency of the addition. */
INLINE float row_sum(const float *x, size_t n)
{
	vf s[4] = {vset(0), vset(0), vset(0), vset(0)};
	size_t at = 0;
	for (; at + 4 * VL <= n; at += 4 * VL)
		for (int k = 0; k < 4; k++)
			s[k] = vadd(s[k], vload(x + at + k * VL));
	EACH_VECTOR(n - at, s[0] = vadd(s[0], vload_n(x + at + i, m)););
	return vsum(vadd(vadd(s[0], s[1]), vadd(s[2], s[3])));
}

/* sum of (x - mu)^2 */
INLINE float row_squares(const float *x, float mu, size_t n)
{
	vf s[4] = {vset(0), vset(0), vset(0), vset(0)}, vmu = vset(mu);
	size_t at = 0;
	for (; at + 4 * VL <= n; at += 4 * VL)
		for (int k = 0; k < 4; k++) {
			vf d = vsub(vload(x + at + k * VL), vmu);
			s[k] = vfma(d, d, s[k]);
		}
	EACH_VECTOR(n - at, {
		vf d = vlanes(vsub(vload_n(x + at + i, m), vmu), m);
		s[0] = vfma(d, d, s[0]);
	});
	return vsum(vadd(vadd(s[0], s[1]), vadd(s[2], s[3])));
}

INLINE void forward(const enum stave_dtype dt, bool rms, void *y, float *mean, float *rstd, const float *x, const float *gain,
                    const float *bias, float eps, size_t n, size_t C)
{
	for (size_t r = 0; r < n; r++) {
		const float *xr = x + r * C;
		float mu = rms ? 0 : row_sum(xr, C) / (float)C;
		float rs = 1 / sqrtf(row_squares(xr, mu, C) / (float)C + eps);
		vf vmu = vset(mu), vrs = vset(rs);
		if (bias)
			EACH_VECTOR(C, {
				vf xhat = vmul(vsub(vload_n(xr + i, m), vmu), vrs);
				vput(dt, y, r * C + i, vfma(xhat, vload_n(gain + i, m), vload_n(bias + i, m)), m);
			});
		else
			EACH_VECTOR(C, {
				vf xhat = vmul(vsub(vload_n(xr + i, m), vmu), vrs);
				vput(dt, y, r * C + i, vmul(xhat, vload_n(gain + i, m)), m);
			});
		if (!rms)
			mean[r] = mu;
		rstd[r] = rs;
	}
}

void STAVE_LEVELED(norm_fwd)(enum stave_dtype dt, bool rms, void *y, float *mean, float *rstd, const float *x, const float *gain,
                             const float *bias, float eps, int n, int C)
{
	if (dt == STAVE_F32)
		forward(STAVE_F32, rms, y, mean, rstd, x, gain, bias, eps, (size_t)n, (size_t)C);
	else
		forward(STAVE_BF16, rms, y, mean, rstd, x, gain, bias, eps, (size_t)n, (size_t)C);
}

/* The rows of one backward call: what stays the same from group to group. */
struct backward {
	float *dx, *dgain, *dbias;
	void *dx_dt;
	const void *dy;
	const float *x, *mean, *rstd, *gain;
	size_t C;
};

/* First pass over rows [row, row + rows): parameter gradients, and per row the sums of a and of a xhat. */
INLINE void group_sums(const enum stave_dtype dt, const bool bias, const int rows, const struct backward *b, size_t row,
                       const float *mu, float *sum_a, float *sum_ax)
{
	vf sa[GROUP], sx[GROUP];
	for (int k = 0; k < rows; k++)
		sa[k] = sx[k] = vset(0);
	EACH_VECTOR(b->C, {
		vf g = vload_n(b->gain + i, m);
		vf dg = vload_n(b->dgain + i, m);
		vf db = bias ? vload_n(b->dbias + i, m) : vset(0);
		for (int k = 0; k < rows; k++) {
			size_t at = (row + k) * b->C + i;
			vf d = vget(dt, b->dy, at, m);
			vf xhat = vmul(vsub(vload_n(b->x + at, m), vset(mu[k])), vset(b->rstd[row + k]));
			vf a = vmul(d, g);
			dg = vfma(d, xhat, dg);
			db = vadd(db, d);
			sa[k] = vadd(sa[k], a);
			sx[k] = vfma(a, xhat, sx[k]);
		}
		vstore_n(b->dgain + i, dg, m);
		if (bias)
			vstore_n(b->dbias + i, db, m);
	});
	for (int k = 0; k < rows; k++) {
		sum_a[k] = vsum(sa[k]);
		sum_ax[k] = vsum(sx[k]);
	}
}

/* Second pass over one row, which the first has left in the cache. */
INLINE void row_gradient(const enum stave_dtype dt, const struct backward *b, size_t row, float mu, float mean_a, float mean_ax)
{
	vf vmu = vset(mu), rs = vset(b->rstd[row]), ma = vset(mean_a), mx = vset(mean_ax);
	EACH_VECTOR(b->C, {
		size_t at = row * b->C + i;
		vf xhat = vmul(vsub(vload_n(b->x + at, m), vmu), rs);
		vf t = vsub(vmul(vget(dt, b->dy, at, m), vload_n(b->gain + i, m)), ma);
		t = vfma(rs, vfnma(xhat, mx, t), vload_n(b->dx + at, m));
		vstore_n(b->dx + at, t, m);
		if (b->dx_dt)
			vput(dt, b->dx_dt, at, t, m);
	});
}

INLINE void group(const enum stave_dtype dt, const bool rms, const bool bias, const int rows, const struct backward *b, size_t row)
{
	float mu[GROUP], sum_a[GROUP], sum_ax[GROUP];
	for (int k = 0; k < rows; k++)
		mu[k] = rms ? 0 : b->mean[row + k];
	group_sums(dt, bias, rows, b, row, mu, sum_a, sum_ax);
	for (int k = 0; k < rows; k++)
		row_gradient(dt, b, row + k, mu[k], rms ? 0 : sum_a[k] / (float)b->C, sum_ax[k] / (float)b->C);
}

INLINE void backward(const enum stave_dtype dt, const bool rms, const bool bias, const struct backward *b, size_t n)
{
	size_t row = 0;
	for (; row + GROUP <= n; row += GROUP)
		group(dt, rms, bias, GROUP, b, row);
	for (; row < n; row++)
		group(dt, rms, bias, 1, b, row);
}

void STAVE_LEVELED(norm_bwd)(enum stave_dtype dt, bool rms, float *dx, void *dx_dt, float *dgain, float *dbias, const void *dy,
                             const float *x, const float *mean, const float *rstd, const float *gain, int n, int C)
{
	const struct backward b = {dx, dgain, dbias, dx_dt, dy, x, mean, rstd, gain, (size_t)C};
	if (dt == STAVE_F32 && dbias)
		backward(STAVE_F32, rms, true, &b, (size_t)n);
	else if (dt == STAVE_F32)
		backward(STAVE_F32, rms, false, &b, (size_t)n);
	else if (dbias)
		backward(STAVE_BF16, rms, true, &b, (size_t)n);
	else
		backward(STAVE_BF16, rms, false, &b, (size_t)n);
}
