/* Sampling. The controls and their order are infer.h's; this file is their arithmetic. One row of V logits is read once per
 * control that is on and never written. Candidates are selected with a partial quicksort, so that a vocabulary of 150 000
 * costs a few passes and not a sort. Probabilities are summed in double, likeliest first, and the draw is the inverse of that
 * cumulative distribution at a number that depends on (seed, index) alone: the same request gives the same answer, whatever
 * ran beside it. */
#include "infer/sample.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"

struct stave_sampling stave_sampling_default(void)
{
	return (struct stave_sampling){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1};
}

static int range(const char *name, double v, double min, double max, struct stave_err *err)
{
	if (v >= min && v <= max) /* false for NaN */
		return 0;
	return stave_err_set(err, STAVE_EUSAGE, "%s must be between %g and %g, not %g", name, min, max, v);
}

int stave_sampling_check(const struct stave_sampling *s, int V, struct stave_err *err)
{
	int rc;
	if ((rc = range("temperature", s->temperature, 0, 100, err)) || (rc = range("top_p", s->top_p, 0, 1, err)) ||
	    (rc = range("min_p", s->min_p, 0, 1, err)) || (rc = range("typical_p", s->typical_p, 0, 1, err)) ||
	    (rc = range("top_k", s->top_k, 0, INT32_MAX, err)) || (rc = range("penalty_last_n", s->penalty_last_n, 0, INT32_MAX, err)) ||
	    (rc = range("repetition_penalty", s->repetition_penalty, 0.01, 100, err)) ||
	    (rc = range("presence_penalty", s->presence_penalty, -100, 100, err)) ||
	    (rc = range("frequency_penalty", s->frequency_penalty, -100, 100, err)))
		return rc;
	if (s->n_bias < 0)
		return stave_err_set(err, STAVE_EUSAGE, "logit_bias has %d entries", s->n_bias);
	for (int i = 0; i < s->n_bias; i++) {
		if (s->bias_ids[i] < 0 || s->bias_ids[i] >= V)
			return stave_err_set(err, STAVE_EUSAGE, "logit_bias names token %d; the vocabulary has 0..%d", s->bias_ids[i], V - 1);
		if ((rc = range("logit_bias", s->bias[i], -1000, 1000, err)))
			return rc;
	}
	return 0;
}

void sampler_take(struct sampler *s, int V, struct stave_arena *a)
{
	s->V = V;
	s->seen = stave_arena_take(a, (size_t)V * sizeof *s->seen);
	s->made = stave_arena_take(a, (size_t)V * sizeof *s->made);
	s->logit = stave_arena_take(a, (size_t)V * sizeof *s->logit);
	s->score = stave_arena_take(a, (size_t)V * sizeof *s->score);
	s->order = stave_arena_take(a, (size_t)V * sizeof *s->order);
}

void sampler_reset(struct sampler *s)
{
	memset(s->seen, 0, (size_t)s->V * sizeof *s->seen);
	memset(s->made, 0, (size_t)s->V * sizeof *s->made);
}

/* A prompt may hold ids that cannot be drawn: rows of the model beyond the tokenizer's vocabulary. */
void sampler_note(struct sampler *s, int32_t id, bool generated)
{
	if (id >= s->V)
		return;
	s->seen[id]++;
	s->made[id] += generated;
}

void sampler_forget(struct sampler *s, int32_t id, bool generated)
{
	if (id >= s->V)
		return;
	s->seen[id]--;
	s->made[id] -= generated;
}

/* Is candidate a before b: larger value, then lower id. A total order, so every selection is deterministic. */
static inline bool before(const float *v, int32_t a, int32_t b)
{
	return v[a] > v[b] || (v[a] == v[b] && a < b);
}

/* Partial quicksort: the first k of order[0..n) become the k first in order, sorted among themselves. */
static void select_first(const float *v, int32_t *order, int n, int k)
{
	int lo = 0, hi = n;
	while (hi - lo > 1) {
		int32_t a = order[lo], b = order[lo + (hi - lo) / 2], c = order[hi - 1];
		int32_t pivot = before(v, a, b) ? (before(v, b, c) ? b : before(v, a, c) ? c : a) : (before(v, a, c) ? a : before(v, b, c) ? c : b);
		int i = lo - 1, j = hi;
		for (;;) { /* Hoare: [lo..j] before-or-equal pivot, [j+1..hi) after */
			do i++; while (before(v, order[i], pivot));
			do j--; while (before(v, pivot, order[j]));
			if (i >= j)
				break;
			int32_t t = order[i];
			order[i] = order[j];
			order[j] = t;
		}
		int mid = j + 1 < hi ? j + 1 : hi - 1; /* the pivot was the last element and belongs there */
		if (mid < k) { /* both sides hold wanted candidates: recurse into the left one, which is wanted whole */
			select_first(v, order + lo, mid - lo, mid - lo);
			lo = mid;
		} else {
			hi = mid;
		}
	}
}

static void penalize(struct sampler *s, const struct stave_sampling *p)
{
	for (int i = 0; i < s->V; i++) {
		if (!s->seen[i])
			continue;
		float x = s->logit[i];
		x = x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty;
		if (s->made[i])
			x -= p->presence_penalty + p->frequency_penalty * (float)s->made[i];
		s->logit[i] = x;
	}
}

static void ban(struct sampler *s, const struct sampler_bans *b)
{
	for (int i = 0; b->allowed && i < s->V; i++)
		if (!(b->allowed[i / 32] >> (i % 32) & 1))
			s->logit[i] = -INFINITY;
	for (int list = 0; list < 2; list++)
		for (int i = 0; i < b->n[list]; i++)
			s->logit[b->ids[list][i]] = -INFINITY;
}

static const float *adjusted(struct sampler *s, const struct stave_sampling *p, const struct sampler_bans *b, const float *logits)
{
	bool penalties = p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
	bool bans = b && (b->allowed || b->n[0] || b->n[1]);
	if (!penalties && !p->n_bias && !bans)
		return logits;
	memcpy(s->logit, logits, (size_t)s->V * sizeof *logits);
	for (int i = 0; i < p->n_bias; i++)
		s->logit[p->bias_ids[i]] += p->bias[i];
	if (penalties)
		penalize(s, p);
	if (bans) /* last, since what is forbidden stays so whatever is added to it */
		ban(s, b);
	return s->logit;
}

static int32_t argmax(const float *v, int n)
{
	int32_t best = 0;
	float top = -INFINITY;
	for (int i = 0; i < n; i++)
		if (v[i] > top) {
			top = v[i];
			best = i;
		}
	return best;
}

/* Candidates in order, sorted only as far as somebody has looked: a draw rarely needs more than the first hundred. */
struct ranking {
	const float *v;
	int32_t *order;
	int n, sorted;
	double top, t;
};

static double weight_at(struct ranking *r, int i)
{
	if (i >= r->sorted) {
		int grow = r->sorted ? r->sorted * 3 : 128;
		if (grow > r->n - r->sorted)
			grow = r->n - r->sorted;
		select_first(r->v, r->order + r->sorted, r->n - r->sorted, grow);
		r->sorted += grow;
	}
	return exp((r->v[r->order[i]] - r->top) / r->t);
}

/* Of the first `n` candidates, whose weights sum to *mass, the typical ones, most typical first; returns how many, and their mass. The
 * surprise of a candidate is -log p; the mean surprise is the entropy. */
static int typical(struct sampler *s, struct ranking *r, float typical_p, int n, double *mass)
{
	double entropy = 0, sum = 0;
	for (int i = 0; i < n; i++) {
		double q = weight_at(r, i) / *mass;
		entropy -= q > 0 ? q * log(q) : 0;
	}
	for (int i = 0; i < n; i++)
		s->score[s->order[i]] = (float)-fabs(-log(weight_at(r, i) / *mass) - entropy);
	select_first(s->score, s->order, n, n);
	int keep = 0;
	while (keep < n && (keep == 0 || sum < typical_p * *mass))
		sum += weight_at(r, keep++);
	*mass = sum;
	return keep;
}

/* Draws from the first n candidates by their weights, which sum to `mass`. */
static int32_t pick(struct ranking *r, int n, double mass, double u)
{
	double at = u * mass, sum = 0;
	for (int i = 0; i < n; i++) { /* sorted only as far as the draw reaches */
		sum += weight_at(r, i);
		if (at < sum)
			return r->order[i];
	}
	return r->order[n - 1]; /* u * mass rounded up to the sum */
}

int32_t sampler_draw(struct sampler *s, const struct stave_sampling *p, const struct sampler_bans *bans, const float *logits, uint64_t index)
{
	const float *v = adjusted(s, p, bans, logits);
	int32_t best = argmax(v, s->V);
	if (!(v[best] > -INFINITY))
		return -1;
	if (p->temperature == 0 || p->top_k == 1)
		return best;
	struct ranking r = {.v = v, .order = s->order, .top = v[best], .t = p->temperature};
	/* what lies more than 40 temperatures below the best has less than 1e-17 of its probability: it cannot be drawn */
	double least = r.top - 40 * r.t, total = 0, u = stave_random_unit(p->seed, index);
	for (int32_t i = 0; i < s->V; i++)
		if (v[i] >= least) {
			s->order[r.n++] = i;
			total += exp((v[i] - r.top) / r.t);
		}
	if (p->top_k > 0 && p->top_k < r.n) {
		total = 0;
		for (int i = 0; i < p->top_k; i++)
			total += weight_at(&r, i);
		r.n = p->top_k;
	}
	int keep = r.n;
	double mass = total;
	if (p->top_p < 1 || p->min_p > 0) /* probabilities fall along the ranking: both controls cut it to a prefix */
		for (keep = 0, mass = 0; keep < r.n; keep++) {
			double w = weight_at(&r, keep);
			if (keep > 0 && (w < p->min_p || mass >= p->top_p * total))
				break;
			mass += w;
		}
	if (p->typical_p < 1)
		keep = typical(s, &r, p->typical_p, keep, &mass);
	return pick(&r, keep, mass, u);
}

void logprob_of(const float *logits, int V, int32_t id, int n_top, struct stave_logprob *out)
{
	float max = -INFINITY;
	for (int i = 0; i < V; i++)
		max = logits[i] > max ? logits[i] : max;
	double sum = 0;
	for (int i = 0; i < V; i++)
		sum += exp((double)logits[i] - max);
	double lse = max + log(sum);
	out->id = id;
	out->logprob = (float)(logits[id] - lse);
	out->n_top = 0;
	if (n_top > V)
		n_top = V;
	for (int i = 0; n_top > 0 && i < V; i++) { /* insertion into a short sorted list: most values fail the first comparison */
		int at = out->n_top;
		if (at == n_top && !(logits[i] > logits[out->top_id[at - 1]]))
			continue;
		if (at == n_top)
			at--;
		else
			out->n_top++;
		for (; at > 0 && logits[i] > logits[out->top_id[at - 1]]; at--)
			out->top_id[at] = out->top_id[at - 1];
		out->top_id[at] = i;
	}
	for (int i = 0; i < out->n_top; i++)
		out->top_logprob[i] = (float)(logits[out->top_id[i]] - lse);
}
