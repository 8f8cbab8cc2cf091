/* Attention by blocks, the algorithm: what is the same for every element type and vector width. The file that includes it
 * says what differs, the operand type of the inner product:
 *
 *   unit, PAIR      a four-byte operand and how many elements of the inner dimension it holds: one float, or two bf16
 *   vu, vu_load, vu_splat, mac(c, a, b)   VL units, and c += a b over them
 *   load_row        one row of activations as units, padded with zeros
 *   put_row         VL values of one row as VL / PAIR units: an operand whose inner dimension runs along the row
 *   put_col         PAIR rows of VL values as VL units: an operand whose inner dimension runs down the rows
 *   put_outer       the same from rows of units in memory
 *
 * Every product is C (MR, NR) += A B with C in registers. A is any matrix of units, each broadcast; B comes in panels: NR
 * columns wide, one row of NR units after the other, so that a product streams through memory in order. Keys and values of
 * the head are packed into panels once. Query rows go in strips of MR. A strip touches only the keys its rows may see, to
 * the vector; what the mask hides within a vector has probability 0. Rows are padded to whole strips and D to whole panels
 * with zeros, which add nothing. (So a NaN in a key or value reaches up to MR - 1 rows before it.)
 *
 * Forward: online softmax (Milakov & Gimelshein 2018; Dao et al. 2022) over chunks of KC keys, long enough that rescaling
 * the output and the horizontal maxima cost nothing. Backward: for each block of QB queries and KB keys the strips
 * recompute P and dS, then the three outer products run over the whole block (the equations are in attn.c). Scores are
 * kept in units of log2. Larger QB, KB or KC measured the same, within 1 %. */
#ifndef STAVE_KERNEL_ATTN_BLOCKS_H
#define STAVE_KERNEL_ATTN_BLOCKS_H

#include <math.h>
#include <stdalign.h>

#include "kernel/attn_simd.h"

/* MR x NR accumulators: enough independent sums to hide the latency of the multiply, few enough to stay in registers. */
#define MR (VL / 2)
#define NR (2 * VL)
#define QB 64  /* query rows per block */
#define KC 256 /* keys per chunk of the forward pass */
#define KB 64  /* keys per block of the backward pass */
#define LOG2E 1.44269504088896f
#define LN2 0.693147180559945f

struct sizes {
	int T, D;
	int Tp, Dp;  /* padded to whole panels (Dp) and whole blocks (Tp) */
	int du;      /* units in a row of D */
	int panels;  /* panels in a row of D */
};

struct forward {
	struct sizes s;
	unit *kt;     /* panels of keys, inner dimension D: (Tp / NR, du, NR) */
	unit *v;      /* panels of D, inner dimension keys: (panels, Tp / PAIR, NR) */
	unit *q;      /* (QB, du) */
	float *score; /* (MR, KC), and its probabilities as units */
	unit *p;
	float *o;     /* (QB, Dp), not yet normalised */
	float *max, *sum; /* (QB) in log2 */
};

struct backward {
	struct sizes s;
	unit *kt, *vt;     /* as forward.kt */
	unit *k;           /* as forward.v */
	unit *q, *d_o;     /* (QB, du) */
	unit *qn, *d_on;   /* panels of D, inner dimension queries: (panels, QB / PAIR, NR) */
	unit *p, *ds;      /* (QB / PAIR, KB), inner dimension queries */
	unit *ds_row;      /* (QB, KB / PAIR), inner dimension keys; the same as ds where PAIR is 1 */
	float *dq;         /* (QB, Dp) */
	float *dk, *dv;    /* (Tp, Dp), dk without the scale */
	float *lse, *delta; /* (QB), lse in log2 */
};

INLINE int min_int(int a, int b) { return a < b ? a : b; }
INLINE int max_int(int a, int b) { return a > b ? a : b; }
INLINE int down_to(int n, int step) { return n / step * step; }
INLINE int up_to(int n, int step) { return (n + step - 1) / step * step; }

static struct sizes sizes_of(int T, int D)
{
	int Dp = up_to(D, NR);
	return (struct sizes){T, D, up_to(T, QB), Dp, Dp / PAIR, Dp / NR};
}

/* Four-byte elements from the scratch, on a cache line; with no scratch it only counts. */
static void *take(char *scratch, size_t *used, size_t n)
{
	void *p = scratch ? scratch + *used : NULL;
	*used += (n * 4 + 63) / 64 * 64;
	return p;
}

static size_t lay_out_forward(struct forward *w, int T, int D, char *scratch)
{
	size_t used = 0;
	const struct sizes s = w->s = sizes_of(T, D);
	w->kt = take(scratch, &used, (size_t)s.Tp * s.du);
	w->v = take(scratch, &used, (size_t)s.Tp * s.du);
	w->q = take(scratch, &used, (size_t)QB * s.du);
	w->score = take(scratch, &used, MR * KC);
	w->p = take(scratch, &used, MR * KC / PAIR);
	w->o = take(scratch, &used, (size_t)QB * s.Dp);
	w->max = take(scratch, &used, QB);
	w->sum = take(scratch, &used, QB);
	return used;
}

static size_t lay_out_backward(struct backward *w, int T, int D, char *scratch)
{
	size_t used = 0;
	const struct sizes s = w->s = sizes_of(T, D);
	w->kt = take(scratch, &used, (size_t)s.Tp * s.du);
	w->vt = take(scratch, &used, (size_t)s.Tp * s.du);
	w->k = take(scratch, &used, (size_t)s.Tp * s.du);
	w->q = take(scratch, &used, (size_t)QB * s.du);
	w->d_o = take(scratch, &used, (size_t)QB * s.du);
	w->qn = take(scratch, &used, (size_t)QB * s.du);
	w->d_on = take(scratch, &used, (size_t)QB * s.du);
	w->p = take(scratch, &used, QB * KB / PAIR);
	w->ds = take(scratch, &used, QB * KB / PAIR);
	w->ds_row = PAIR == 1 ? w->ds : take(scratch, &used, QB * KB / PAIR);
	w->dq = take(scratch, &used, (size_t)QB * s.Dp);
	w->dk = take(scratch, &used, (size_t)s.Tp * s.Dp);
	w->dv = take(scratch, &used, (size_t)s.Tp * s.Dp);
	w->lse = take(scratch, &used, QB);
	w->delta = take(scratch, &used, QB);
	return used;
}

static size_t scratch_bytes(int T, int D, bool back)
{
	struct forward f;
	struct backward b;
	return back ? lay_out_backward(&b, T, D, NULL) : lay_out_forward(&f, T, D, NULL);
}

/* First key row t sees. Padding rows see what the last row sees. */
INLINE int first_key(const struct stave_attn *a, int t)
{
	t = min_int(t, a->T - 1);
	int first = a->start ? a->start[t] : 0;
	return a->window > 0 ? max_int(first, t - a->window + 1) : first;
}

/* ---- packing ---- */

/* Rows at..at+n of x as units (n, du); those from T on are zero. */
static void pack_rows(enum stave_dtype dt, unit *y, const struct sizes *s, const void *x, size_t ld, int at, int n)
{
	size_t size = dt == STAVE_F32 ? 4 : 2;
	for (int r = 0; r < n; r++)
		if (at + r < s->T)
			load_row(dt, y + (size_t)r * s->du, (const char *)x + (at + r) * ld * size, s->D, s->Dp);
		else
			memset(y + (size_t)r * s->du, 0, (size_t)s->du * sizeof *y);
}

/* n rows (n, du) as panels of rows, inner dimension D: (n / NR, du, NR) */
static void pack_inner(unit *y, const unit *rows, const struct sizes *s, int n)
{
	for (int r = 0; r < n; r += VL)
		for (int c = 0; c < s->du; c += VL)
			transpose((float *)y + (size_t)r / NR * NR * s->du + (size_t)c * NR + r % NR, NR,
			          (const float *)rows + (size_t)r * s->du + c, s->du);
}

/* n rows (n, du), rows at.. of `length`, as panels of D, inner dimension rows: (panels, length / PAIR, NR) */
static void pack_outer(unit *y, const unit *rows, const struct sizes *s, int at, int n, int length)
{
	for (int r = 0; r < n; r += PAIR)
		for (int d = 0; d < s->Dp; d += VL)
			put_outer(y + ((size_t)(d / NR) * (length / PAIR) + (at + r) / PAIR) * NR + d % NR,
			          rows + (size_t)r * s->du + d / PAIR, s->du);
}

/* Both packings, where wanted, of all rows of x; `rows` holds QB of them on the way. */
static void pack_head(enum stave_dtype dt, const struct sizes *s, unit *inner, unit *outer, const void *x, size_t ld, unit *rows)
{
	for (int at = 0; at < s->T; at += QB) {
		int n = up_to(min_int(QB, s->T - at), NR);
		pack_rows(dt, rows, s, x, ld, at, n);
		if (inner)
			pack_inner(inner + (size_t)at * s->du, rows, s, n);
		if (outer)
			pack_outer(outer, rows, s, at, n, s->Tp);
	}
}

/* ---- products ---- */

/* c (nv vectors wide) += sum over k < n of a[r rs + k ks] b[k NR ..] */
INLINE void multiply(vf c[2][MR], int nv, const unit *a, size_t rs, size_t ks, const unit *b, int n)
{
	for (int k = 0; k < n; k++, a += ks, b += NR) {
		vu b0 = vu_load(b), b1 = nv == 2 ? vu_load(b + VL) : b0;
#pragma GCC unroll 8
		for (int r = 0; r < MR; r++) {
			vu x = vu_splat(a[r * rs]);
			c[0][r] = mac(c[0][r], x, b0);
			if (nv == 2)
				c[1][r] = mac(c[1][r], x, b1);
		}
	}
}

INLINE void set_zero(vf c[2][MR])
{
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
		c[0][r] = c[1][r] = vset(0);
}

/* C (MR, NR) = C * factor + A B, n units of inner dimension; factor NULL: 1. */
INLINE void accumulate(float *c, size_t ldc, const float *factor, const unit *a, size_t rs, size_t ks, const unit *b, int n)
{
	vf acc[2][MR];
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
		for (int v = 0; v < 2; v++) {
			acc[v][r] = vload(c + r * ldc + v * VL);
			if (factor)
				acc[v][r] = vmul(acc[v][r], vset(factor[r]));
		}
	multiply(acc, 2, a, rs, ks, b, n);
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
		for (int v = 0; v < 2; v++)
			vstore(c + r * ldc + v * VL, acc[v][r]);
}

/* Where a strip of rows from t on crosses the edge of what it may see within keys col .. col + n, hide the rest. */
INLINE void mask_tile(vf c[2][MR], const struct stave_attn *a, int t, int col, int nv)
{
	if (col + nv * VL - 1 <= t && col >= first_key(a, t + MR - 1))
		return;
	/* unrolled even here, off the fast path: an array indexed by a variable would live in memory, not in registers */
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
		for (int v = 0; v < nv; v++)
			c[v][r] = mask_keys(c[v][r], col + v * VL, first_key(a, t + r), t + r);
}

/* ---- forward ---- */

/* Scores of a strip against nv vectors of keys from col on, and the maximum of each row and lane so far. */
INLINE void score_tile(const struct forward *w, const struct stave_attn *a, int t, int col, int nv, float *score, vf max[MR])
{
	vf c[2][MR];
	set_zero(c);
	multiply(c, nv, w->q + (size_t)(t % QB) * w->s.du, w->s.du, 1, w->kt + (size_t)(col / NR) * w->s.du * NR + col % NR, w->s.du);
	mask_tile(c, a, t, col, nv);
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
		for (int v = 0; v < nv; v++) {
			max[r] = vmax(max[r], c[v][r]);
			vstore(score + r * KC + v * VL, c[v][r]);
		}
}

static void score_strip(const struct forward *w, const struct stave_attn *a, int t, int lo, int hi, float *score, vf max[MR])
{
	for (int r = 0; r < MR; r++)
		max[r] = vset(-INFINITY);
	for (int col = lo; col < hi;) {
		int nv = col % NR == 0 && col + NR <= hi ? 2 : 1;
		if (nv == 2)
			score_tile(w, a, t, col, 2, score + col - lo, max);
		else
			score_tile(w, a, t, col, 1, score + col - lo, max);
		col += nv * VL;
	}
}

/* n scores of each row of a strip become probabilities relative to its new maximum, which is that of `top` or of before. factor gets
 * what to multiply by all that was summed relative to the old one. */
static void softmax_strip(const struct forward *w, int r0, int n, float c, const vf top[MR], float factor[MR])
{
	float shift[VL];
	vf total[MR];
	for (int r = 0; r < MR; r++)
		shift[r] = vhmax(top[r]);
	vf old = vload_n(w->max + r0, MR), now = vmax(old, vmul(vload_n(shift, MR), vset(c))), scale = vset(c);
	vstore_n(shift, vsub(vset(0), now), MR);
	vstore_n(w->max + r0, now, MR);
	vstore_n(factor, vexp2(vsub(old, now)), MR);
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
		total[r] = vset(0);
	/* rows inside: that many independent exponentials at a time */
	for (int j = 0; j < n; j += VL)
#pragma GCC unroll 8
		for (int r = 0; r < MR; r++) {
			vf e = vexp2(vfma(vload(w->score + r * KC + j), scale, vset(shift[r])));
			total[r] = vadd(total[r], e);
			put_row(w->p + (r * KC + j) / PAIR, e);
		}
	for (int r = 0; r < MR; r++)
		w->sum[r0 + r] = w->sum[r0 + r] * factor[r] + vsum(total[r]);
}

/* Rows t .. t + MR against the keys they see of chunk .. chunk + KC. */
static void strip_forward(const struct forward *w, const struct stave_attn *a, int t, int chunk)
{
	int lo = max_int(chunk, down_to(first_key(a, t), VL)), end = min_int(chunk + KC, t + MR), hi = up_to(end, VL), r0 = t % QB;
	if (lo >= end)
		return;
	vf max[MR];
	float factor[MR];
	score_strip(w, a, t, lo, hi, w->score, max);
	softmax_strip(w, r0, hi - lo, a->scale * LOG2E, max, factor);
	for (int d = 0; d < w->s.panels; d++)
		accumulate(w->o + (size_t)r0 * w->s.Dp + d * NR, w->s.Dp, factor, w->p, KC / PAIR, 1,
		           w->v + ((size_t)d * w->s.Tp + lo) / PAIR * NR, (end - lo) / PAIR);
}

/* Normalise the rows of a block and store them with their log-sum-exp. */
INLINE void store_output(enum stave_dtype dt, const struct forward *w, const struct stave_attn *a, int t0, int n)
{
	for (int r = 0; r < n; r++) {
		vf inverse = vset(1.f / w->sum[r]);
		const float *o = w->o + (size_t)r * w->s.Dp;
		EACH_VECTOR(w->s.D, vput(dt, a->o, (t0 + r) * a->ldo + i, vmul(vload(o + i), inverse), m););
	}
	for (int r = 0; r < n; r++)
		a->lse[t0 + r] = (w->max[r] + log2f(w->sum[r])) * LN2;
}

static void forward(enum stave_dtype dt, const struct stave_attn *a, void *scratch)
{
	struct forward w;
	lay_out_forward(&w, a->T, a->D, scratch);
	pack_head(dt, &w.s, w.kt, NULL, a->k, a->ldk, w.q);
	pack_head(dt, &w.s, NULL, w.v, a->v, a->ldv, w.q);
	for (int t0 = 0; t0 < a->T; t0 += QB) {
		int n = min_int(QB, a->T - t0);
		pack_rows(dt, w.q, &w.s, a->q, a->ldq, t0, up_to(n, MR));
		memset(w.o, 0, sizeof(float) * up_to(n, MR) * w.s.Dp);
		for (int r = 0; r < QB; r++) {
			w.max[r] = -1e30f; /* finite, so that the factor of a row that has seen nothing yet is 1, not NaN */
			w.sum[r] = 0;
		}
		for (int chunk = down_to(first_key(a, t0), KC); chunk < t0 + n; chunk += KC)
			for (int r = 0; r < n; r += MR)
				strip_forward(&w, a, t0 + r, chunk);
		if (dt == STAVE_F32)
			store_output(STAVE_F32, &w, a, t0, n);
		else
			store_output(STAVE_BF16, &w, a, t0, n);
	}
}

/* ---- backward ---- */

/* P and dS of a strip for nv vectors of keys from col on, written for the outer products of block kb. */
INLINE void gradient_tile(const struct backward *w, const struct stave_attn *a, int t, int kb, int col, int nv)
{
	const int r0 = t % QB, at = col - kb, du = w->s.du;
	const size_t panel = (size_t)(col / NR) * du * NR + col % NR, row = (size_t)r0 * du;
	const vf c = vset(a->scale * LOG2E);
	vf s[2][MR], dp[2][MR], p[2][MR];
	set_zero(s);
	multiply(s, nv, w->q + row, du, 1, w->kt + panel, du);
	mask_tile(s, a, t, col, nv);
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
		for (int v = 0; v < nv; v++)
			p[v][r] = vexp2(vfma(s[v][r], c, vset(-w->lse[r0 + r])));
	set_zero(dp);
	multiply(dp, nv, w->d_o + row, du, 1, w->vt + panel, du);
#pragma GCC unroll 8
	for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
		for (int v = 0; v < nv; v++) {
			dp[v][r] = vmul(p[v][r], vsub(dp[v][r], vset(w->delta[r0 + r])));
			if (PAIR > 1)
				put_row(w->ds_row + ((r0 + r) * KB + at + v * VL) / PAIR, dp[v][r]);
		}
#pragma GCC unroll 8
	for (int r = 0; r < MR; r += PAIR)
#pragma GCC unroll 2
		for (int v = 0; v < nv; v++) {
			size_t to = (r0 + r) / PAIR * KB + at + v * VL;
			put_col(w->p + to, &p[v][r]);
			put_col(w->ds + to, &dp[v][r]);
		}
}

/* Keys of block kb that a strip touches; none if lo >= hi. */
INLINE void strip_keys(const struct stave_attn *a, int t, int kb, int *lo, int *hi)
{
	*lo = max_int(kb, down_to(first_key(a, t), VL));
	*hi = min_int(kb + KB, t + MR);
}

static void gradient_strip(const struct backward *w, const struct stave_attn *a, int t, int kb)
{
	int lo, hi, r0 = t % QB;
	strip_keys(a, t, kb, &lo, &hi);
	/* keys before the first this strip sees, which the outer products over the block do read */
	size_t unseen = sizeof(unit) * (min_int(lo, kb + KB) - kb);
	for (int r = 0; unseen && r < MR; r += PAIR) {
		memset(w->p + (r0 + r) / PAIR * KB, 0, unseen);
		memset(w->ds + (r0 + r) / PAIR * KB, 0, unseen);
	}
	for (int col = lo; col < hi;) {
		int nv = col % NR == 0 && col + VL < hi ? 2 : 1;
		if (nv == 2)
			gradient_tile(w, a, t, kb, col, 2);
		else
			gradient_tile(w, a, t, kb, col, 1);
		col += nv * VL;
	}
}

/* One block of n query rows from t0 on and the keys of block kb. */
static void block_backward(const struct backward *w, const struct stave_attn *a, int t0, int n, int kb)
{
	const struct sizes *s = &w->s;
	for (int r = 0; r < n; r += MR)
		gradient_strip(w, a, t0 + r, kb);
	/* dV and dK of MR keys from the rows at or after them; earlier rows do not see them */
	for (int j = 0; j < KB && kb + j < t0 + n; j += MR) {
		int first = max_int(0, kb + j - t0) / PAIR;
		for (int d = 0; d < s->panels; d++) {
			size_t to = (size_t)(kb + j) * s->Dp + d * NR, from = ((size_t)d * (QB / PAIR) + first) * NR;
			accumulate(w->dv + to, s->Dp, NULL, w->p + first * KB + j, 1, KB, w->d_on + from, n / PAIR - first);
			accumulate(w->dk + to, s->Dp, NULL, w->ds + first * KB + j, 1, KB, w->qn + from, n / PAIR - first);
		}
	}
	for (int r = 0; r < n; r += MR) {
		int lo, hi;
		strip_keys(a, t0 + r, kb, &lo, &hi);
		for (int d = 0; d < s->panels && lo < hi; d++)
			accumulate(w->dq + (size_t)r * s->Dp + d * NR, s->Dp, NULL, w->ds_row + (r * KB + lo - kb) / PAIR, KB / PAIR, 1,
			           w->k + ((size_t)d * s->Tp + lo) / PAIR * NR, (hi - lo) / PAIR);
	}
}

/* delta = dO o and lse of the rows of a block; zero for padding, whose P is then 1 and dO 0. */
INLINE void row_constants(enum stave_dtype dt, const struct backward *w, const struct stave_attn *a, int t0, int n)
{
	memset(w->lse, 0, QB * sizeof(float));
	memset(w->delta, 0, QB * sizeof(float));
	for (int r = 0; r < n; r++) {
		vf sum = vset(0);
		size_t at = (t0 + r) * a->ldo;
		EACH_VECTOR(w->s.D, sum = vfma(vget(dt, a->d_o, at + i, m), vget(dt, a->o, at + i, m), sum););
		w->delta[r] = vsum(sum);
		w->lse[r] = a->lse[t0 + r] * LOG2E;
	}
}

/* y (n, D) = factor x, or += if add */
INLINE void store_gradient(float *y, size_t ldy, const float *x, const struct sizes *s, int n, float factor, bool add)
{
	for (int r = 0; r < n; r++)
		EACH_VECTOR(s->D, vf g = vmul(vset(factor), vload(x + (size_t)r * s->Dp + i)); float *to = y + r * ldy + i;
		            vstore_n(to, add ? vadd(vload_n(to, m), g) : g, m););
}

static void backward(enum stave_dtype dt, const struct stave_attn *a, void *scratch)
{
	struct backward w;
	lay_out_backward(&w, a->T, a->D, scratch);
	pack_head(dt, &w.s, w.kt, w.k, a->k, a->ldk, w.q);
	pack_head(dt, &w.s, w.vt, NULL, a->v, a->ldv, w.q);
	memset(w.dk, 0, sizeof(float) * w.s.Tp * w.s.Dp);
	memset(w.dv, 0, sizeof(float) * w.s.Tp * w.s.Dp);
	for (int t0 = 0; t0 < a->T; t0 += QB) {
		int n = min_int(QB, a->T - t0), np = up_to(n, MR);
		pack_rows(dt, w.q, &w.s, a->q, a->ldq, t0, np);
		pack_rows(dt, w.d_o, &w.s, a->d_o, a->ldo, t0, np);
		pack_outer(w.qn, w.q, &w.s, 0, np, QB);
		pack_outer(w.d_on, w.d_o, &w.s, 0, np, QB);
		if (dt == STAVE_F32)
			row_constants(STAVE_F32, &w, a, t0, n);
		else
			row_constants(STAVE_BF16, &w, a, t0, n);
		memset(w.dq, 0, sizeof(float) * np * w.s.Dp);
		for (int kb = down_to(first_key(a, t0), KB); kb < t0 + n; kb += KB)
			block_backward(&w, a, t0, np, kb);
		store_gradient(a->dq + t0 * a->lddq, a->lddq, w.dq, &w.s, n, a->scale, false);
	}
	store_gradient(a->dk, a->lddkv, w.dk, &w.s, a->T, a->scale, true);
	store_gradient(a->dv, a->lddkv, w.dv, &w.s, a->T, 1, true);
}

#endif
