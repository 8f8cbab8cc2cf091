/* Attention of one (sequence, query head) pair, the definition: softmax(scale q k') v over the keys a row may see, and its
 * gradient. Plain loops, sums in double, never tuned: the measure of every faster variant.
 *
 * Row t sees the keys first_key(t) .. t, never none, so the softmax is always defined. The backward pass recomputes the
 * probabilities from the stored log-sum-exp (Dao et al. 2022, FlashAttention, algorithm 4):
 *   P = exp(scale q k' - lse), delta = rowsum(dO o), dS = P (dO v' - delta), dV = P' dO, dQ = scale dS k, dK = scale dS' q */
#include <math.h>

#include "kernel/table.h"

static int first_key(const struct stave_attn *a, int t)
{
	int first = a->start ? a->start[t] : 0;
	if (a->window > 0 && t - a->window + 1 > first)
		first = t - a->window + 1;
	return first;
}

static double dot(enum stave_dtype dt, const void *x, size_t xi, const void *y, size_t yi, int n)
{
	double s = 0;
	for (int i = 0; i < n; i++)
		s += (double)stave_get(dt, x, xi + i) * stave_get(dt, y, yi + i);
	return s;
}

/* Forward: one row of scores. Backward: a row of probabilities, and dK and dV in double before they are added. */
size_t attn_scratch_ref(enum stave_dtype dt, int T, int D, bool backward)
{
	size_t n = (size_t)T * sizeof(double) * (backward ? 1 + 2 * (size_t)D : 1);
	return (n + 63) / 64 * 64;
}

void attn_fwd_ref(enum stave_dtype dt, const struct stave_attn *a, void *scratch)
{
	double *p = scratch; /* (T) */
	for (int t = 0; t < a->T; t++) {
		int first = first_key(a, t);
		double max = -INFINITY, sum = 0;
		for (int j = first; j <= t; j++) {
			p[j] = a->scale * dot(dt, a->q, t * a->ldq, a->k, j * a->ldk, a->D);
			max = fmax(max, p[j]);
		}
		for (int j = first; j <= t; j++)
			sum += p[j] = exp(p[j] - max);
		for (int d = 0; d < a->D; d++) {
			double o = 0;
			for (int j = first; j <= t; j++)
				o += p[j] * stave_get(dt, a->v, j * a->ldv + d);
			stave_put(dt, a->o, t * a->ldo + d, (float)(o / sum));
		}
		a->lse[t] = (float)(max + log(sum));
	}
}

/* The gradients that row t of dO causes: dq of the row is set, dk and dv of the keys it sees are added to. */
static void row_bwd(enum stave_dtype dt, const struct stave_attn *a, int t, double *ds, double *dk, double *dv)
{
	int first = first_key(a, t), D = a->D;
	double delta = dot(dt, a->d_o, t * a->ldo, a->o, t * a->ldo, D);
	for (int j = first; j <= t; j++) {
		double p = exp(a->scale * dot(dt, a->q, t * a->ldq, a->k, j * a->ldk, D) - a->lse[t]);
		ds[j] = a->scale * p * (dot(dt, a->d_o, t * a->ldo, a->v, j * a->ldv, D) - delta);
		for (int d = 0; d < D; d++) {
			dv[(size_t)j * D + d] += p * stave_get(dt, a->d_o, t * a->ldo + d);
			dk[(size_t)j * D + d] += ds[j] * stave_get(dt, a->q, t * a->ldq + d);
		}
	}
	for (int d = 0; d < D; d++) {
		double dq = 0;
		for (int j = first; j <= t; j++)
			dq += ds[j] * stave_get(dt, a->k, j * a->ldk + d);
		a->dq[t * a->lddq + d] = (float)dq;
	}
}

void attn_bwd_ref(enum stave_dtype dt, const struct stave_attn *a, void *scratch)
{
	size_t n = (size_t)a->T * a->D;
	double *ds = scratch, *dk = ds + a->T, *dv = dk + n; /* (T), (T, D), (T, D) */
	for (size_t i = 0; i < 2 * n; i++)
		dk[i] = 0;
	for (int t = 0; t < a->T; t++)
		row_bwd(dt, a, t, ds, dk, dv);
	for (int t = 0; t < a->T; t++)
		for (int d = 0; d < a->D; d++) {
			a->dk[t * a->lddkv + d] += (float)dk[(size_t)t * a->D + d];
			a->dv[t * a->lddkv + d] += (float)dv[(size_t)t * a->D + d];
		}
}
