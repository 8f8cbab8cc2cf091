/* Attention at every level against an independent definition in double: a dense mask, full softmax, sums with their
 * magnitudes, so that each output is held to eps * sum |a||b| of its own terms. That definition's gradient is itself held to finite
 * differences. Shapes cover tails of rows and of D, strides, windows, document starts, grouped heads, both types. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernel/kernel.h"

struct shape {
	int T, D, gap; /* gap: elements between rows beyond D */
	int window, document; /* document: mean length of one, 0 for a single document */
	float heat;           /* size of the queries */
};

struct problem {
	struct shape s;
	enum stave_dtype dt;
	void *q, *k, *v, *d_o;  /* (T, D) of dt, rows ld apart */
	int32_t *start;
	size_t ld;
	float scale;
};

/* what the definition gives, (T, D) each, with the magnitudes of the sums behind it */
struct truth {
	double *o, *lse, *dq, *dk, *dv, *o_mag, *dq_mag, *dk_mag, *dv_mag, hottest;
};

static uint64_t state;
static double uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (double)(state >> 40) / (1 << 23) - 1;
}

static void *random_values(enum stave_dtype dt, size_t n, double size)
{
	void *x = malloc(n * 4 + 1);
	for (size_t i = 0; i < n; i++)
		stave_put(dt, x, i, (float)(uniform() * size));
	return x;
}

static struct problem make_problem(enum stave_dtype dt, struct shape s, uint64_t seed)
{
	state = seed;
	struct problem p = {.s = s, .dt = dt, .ld = (size_t)(s.D + s.gap), .scale = 1 / sqrtf((float)s.D)};
	size_t n = (size_t)s.T * p.ld;
	p.q = random_values(dt, n, 2 * s.heat);
	p.k = random_values(dt, n, 2);
	p.v = random_values(dt, n, 1);
	p.d_o = random_values(dt, n, 1);
	if (s.document) {
		p.start = malloc((size_t)s.T * sizeof *p.start);
		for (int t = 0, first = 0; t < s.T; t++) {
			if (t && fabs(uniform()) * s.document < 1)
				first = t;
			p.start[t] = first;
		}
	}
	return p;
}

static void free_problem(struct problem *p)
{
	free(p->q);
	free(p->k);
	free(p->v);
	free(p->d_o);
	free(p->start);
}

static int seen(const struct problem *p, int i, int j)
{
	return j <= i && (!p->start || p->start[i] <= j) && (!p->s.window || i - j < p->s.window);
}

static double at(const struct problem *p, const void *x, int t, int d)
{
	return stave_get(p->dt, x, (size_t)t * p->ld + d);
}

static double inner(const struct problem *p, const void *x, int i, const void *y, int j)
{
	double s = 0;
	for (int d = 0; d < p->s.D; d++)
		s += at(p, x, i, d) * at(p, y, j, d);
	return s;
}

/* Row i of the forward pass: probabilities, output, log-sum-exp. */
static void truth_row(const struct problem *p, struct truth *r, int i, double *prob)
{
	int T = p->s.T, D = p->s.D;
	double max = -1e300, sum = 0;
	for (int j = 0; j < T; j++)
		if (seen(p, i, j)) {
			prob[j] = inner(p, p->q, i, p->k, j) * p->scale;
			max = fmax(max, prob[j]);
			r->hottest = fmax(r->hottest, fabs(prob[j]));
		}
	for (int j = 0; j < T; j++)
		sum += prob[j] = seen(p, i, j) ? exp(prob[j] - max) : 0;
	for (int j = 0; j < T; j++) {
		prob[j] /= sum;
		for (int d = 0; d < D; d++) {
			r->o[i * D + d] += prob[j] * at(p, p->v, j, d);
			r->o_mag[i * D + d] += prob[j] * fabs(at(p, p->v, j, d));
		}
	}
	r->lse[i] = max + log(sum);
}

static void truth_row_gradient(const struct problem *p, struct truth *r, int i, const double *prob)
{
	int T = p->s.T, D = p->s.D;
	double delta = 0, delta_mag = 0;
	for (int d = 0; d < D; d++) {
		delta += at(p, p->d_o, i, d) * r->o[i * D + d];
		delta_mag += fabs(at(p, p->d_o, i, d)) * r->o_mag[i * D + d];
	}
	for (int j = 0; j < T; j++) {
		double dp = inner(p, p->d_o, i, p->v, j), dp_mag = 0;
		for (int d = 0; d < D; d++)
			dp_mag += fabs(at(p, p->d_o, i, d) * at(p, p->v, j, d));
		double ds = prob[j] * (dp - delta) * p->scale, ds_mag = prob[j] * (dp_mag + delta_mag) * p->scale;
		for (int d = 0; d < D; d++) {
			r->dq[i * D + d] += ds * at(p, p->k, j, d);
			r->dk[j * D + d] += ds * at(p, p->q, i, d);
			r->dv[j * D + d] += prob[j] * at(p, p->d_o, i, d);
			r->dq_mag[i * D + d] += ds_mag * fabs(at(p, p->k, j, d));
			r->dk_mag[j * D + d] += ds_mag * fabs(at(p, p->q, i, d));
			r->dv_mag[j * D + d] += prob[j] * fabs(at(p, p->d_o, i, d));
		}
	}
}

static struct truth make_truth(const struct problem *p)
{
	size_t n = (size_t)p->s.T * p->s.D;
	struct truth r = {0};
	double **all[] = {&r.o, &r.dq, &r.dk, &r.dv, &r.o_mag, &r.dq_mag, &r.dk_mag, &r.dv_mag, &r.lse};
	for (size_t i = 0; i < 9; i++)
		*all[i] = calloc(n, sizeof(double));
	double *prob = calloc((size_t)p->s.T, sizeof *prob);
	for (int i = 0; i < p->s.T; i++) {
		truth_row(p, &r, i, prob);
		truth_row_gradient(p, &r, i, prob);
	}
	free(prob);
	return r;
}

static void free_truth(struct truth *r)
{
	double *all[] = {r->o, r->dq, r->dk, r->dv, r->o_mag, r->dq_mag, r->dk_mag, r->dv_mag, r->lse};
	for (size_t i = 0; i < 9; i++)
		free(all[i]);
}

/* The kernels' results, in buffers with gaps that must come back as they were. */
struct result {
	void *o;
	float *lse, *dq, *dk, *dv;
	size_t ldg;
};

#define CANARY 77.f
#define BEFORE 0.5f /* dk and dv hold this already: they are added to */

static struct result make_result(const struct problem *p)
{
	size_t n = (size_t)p->s.T * p->ld + 1, ng = (size_t)p->s.T * (p->s.D + 3) + 1;
	struct result r = {.ldg = (size_t)p->s.D + 3};
	r.o = malloc(n * 4);
	for (size_t i = 0; i < n; i++)
		stave_put(p->dt, r.o, i, CANARY);
	float **all[] = {&r.dq, &r.dk, &r.dv};
	for (int g = 0; g < 3; g++) {
		*all[g] = malloc(ng * sizeof(float));
		for (size_t i = 0; i < ng; i++)
			(*all[g])[i] = i % r.ldg >= (size_t)p->s.D || i == ng - 1 ? CANARY : g ? BEFORE : NAN;
	}
	r.lse = malloc(((size_t)p->s.T + 1) * sizeof(float));
	r.lse[p->s.T] = CANARY;
	return r;
}

static void free_result(struct result *r)
{
	free(r->o);
	free(r->lse);
	free(r->dq);
	free(r->dk);
	free(r->dv);
}

static void run(const struct stave_kernels *k, const struct problem *p, struct result *r, int T)
{
	struct stave_attn a = {.T = T, .D = p->s.D, .q = p->q, .k = p->k, .v = p->v, .ldq = p->ld, .ldk = p->ld, .ldv = p->ld, .o = r->o,
	                       .ldo = p->ld, .lse = r->lse, .start = p->start, .window = p->s.window, .scale = p->scale, .d_o = p->d_o,
	                       .dq = r->dq, .dk = r->dk, .dv = r->dv, .lddq = r->ldg, .lddkv = r->ldg};
	for (int backward = 0; backward < 2; backward++) {
		size_t bytes = k->attn_scratch(p->dt, T, p->s.D, backward);
		void *scratch = aligned_alloc(64, bytes);
		memset(scratch, 0xff, bytes); /* NaN everywhere: nothing may rely on what was there */
		(backward ? k->attn_bwd : k->attn_fwd)(p->dt, &a, scratch);
		free(scratch);
	}
}

static void check_values(const struct problem *p, const char *level, const char *what, enum stave_dtype dt, const void *x, size_t ld,
                         double before, const double *truth, const double *mag, double eps)
{
	int D = p->s.D;
	for (int t = 0; t < p->s.T; t++) {
		for (int d = 0; d < D; d++) {
			double got = stave_get(dt, x, (size_t)t * ld + d), want = truth[t * D + d] + before;
			double bound = eps * (mag[t * D + d] + before) + 1e-30;
			if (!(fabs(got - want) <= bound))
				fail_msg("%s: %s[%d,%d] of T %d D %d window %d document %d: %.9g, not %.9g (off by %.3g of allowed)", level, what,
				         t, d, p->s.T, D, p->s.window, p->s.document, got, want, fabs(got - want) / bound);
		}
		for (size_t d = D; d < ld; d++)
			assert_true(stave_get(dt, x, (size_t)t * ld + d) == CANARY);
	}
	assert_true(stave_get(dt, x, (size_t)p->s.T * ld) == CANARY);
}

/* bf16 rounds to 2^-8 wherever an operand is narrowed: probabilities, their gradients and o, at most two of them in one sum.
 * Float work adds what the exponential makes of a rounded score. */
static double tolerance(const struct problem *p, const struct truth *r)
{
	return 1e-6 * (2 + r->hottest) + (p->dt == STAVE_BF16 ? 0x1p-7 : 0);
}

static void check_result(const struct problem *p, const struct truth *r, const struct result *got, const char *level)
{
	double eps = tolerance(p, r);
	check_values(p, level, "o", p->dt, got->o, p->ld, 0, r->o, r->o_mag, eps);
	check_values(p, level, "dq", STAVE_F32, got->dq, got->ldg, 0, r->dq, r->dq_mag, eps);
	check_values(p, level, "dk", STAVE_F32, got->dk, got->ldg, BEFORE, r->dk, r->dk_mag, eps);
	check_values(p, level, "dv", STAVE_F32, got->dv, got->ldg, BEFORE, r->dv, r->dv_mag, eps);
	for (int t = 0; t < p->s.T; t++)
		assert_true(fabs(got->lse[t] - r->lse[t]) <= 2e-6 * (1 + r->hottest));
	assert_true(got->lse[p->s.T] == CANARY);
}

static void each_level(struct shape s, uint64_t seed)
{
	for (enum stave_dtype dt = STAVE_F32; dt <= STAVE_BF16; dt++) {
		struct problem p = make_problem(dt, s, seed);
		struct truth r = make_truth(&p);
		for (int l = 0; stave_levels[l]; l++) {
			const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
			if (!k)
				continue;
			struct result got = make_result(&p);
			run(k, &p, &got, s.T);
			check_result(&p, &r, &got, stave_levels[l]);
			free_result(&got);
		}
		free_truth(&r);
		free_problem(&p);
	}
}

static void every_level_agrees_on_chosen_shapes(void **unused)
{
	static const struct shape shapes[] = {
		{1, 1, 0, 0, 0, 1},     {2, 3, 1, 0, 0, 1},    {7, 32, 0, 0, 0, 1},    {8, 64, 5, 0, 0, 1},   {9, 65, 0, 0, 0, 1},
		{63, 31, 1, 0, 0, 1},   {64, 32, 0, 0, 0, 1},  {65, 33, 7, 0, 0, 1},   {130, 80, 0, 0, 0, 1}, {129, 128, 2, 0, 0, 1},
		{300, 16, 0, 0, 0, 1},  {257, 8, 0, 1, 0, 1},  {270, 24, 0, 17, 0, 1}, {140, 48, 0, 64, 0, 1}, {310, 8, 0, 260, 0, 1},
		{200, 24, 1, 0, 40, 1}, {320, 8, 0, 0, 90, 1}, {150, 16, 0, 33, 9, 1}, {90, 64, 0, 0, 1, 1},  {100, 32, 0, 0, 0, 40},
	};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		each_level(shapes[i], i + 1);
}

static void every_level_agrees_on_random_shapes(void **unused)
{
	for (uint64_t seed = 100; seed < 130; seed++) {
		state = seed;
		struct shape s = {.T = 1 + (int)(fabs(uniform()) * 150), .D = 1 + (int)(fabs(uniform()) * 70), .gap = (int)(fabs(uniform()) * 9),
		                  .heat = 1};
		s.window = uniform() > 0 ? 1 + (int)(fabs(uniform()) * s.T) : 0;
		s.document = uniform() > 0 ? 1 + (int)(fabs(uniform()) * 60) : 0;
		each_level(s, seed);
	}
}

/* The truth above rests on this: its loss, sum of o dO, moved by a step in each input, in double. */
static double loss(const struct problem *p)
{
	struct truth r = make_truth(p);
	double sum = 0;
	for (int t = 0; t < p->s.T; t++)
		for (int d = 0; d < p->s.D; d++)
			sum += r.o[t * p->s.D + d] * at(p, p->d_o, t, d);
	free_truth(&r);
	return sum;
}

static void reference_gradient_is_the_finite_difference(void **unused)
{
	struct problem p = make_problem(STAVE_F32, (struct shape){9, 5, 2, 6, 5, 1}, 7);
	struct result got = make_result(&p);
	run(stave_kernels_level("ref"), &p, &got, p.s.T);
	float *inputs[] = {p.q, p.k, p.v}, *gradients[] = {got.dq, got.dk, got.dv};
	for (int g = 0; g < 3; g++)
		for (int t = 0; t < p.s.T; t++)
			for (int d = 0; d < p.s.D; d++) {
				float *x = &inputs[g][(size_t)t * p.ld + d], x0 = *x;
				*x = x0 + 0x1p-12f;
				double above = loss(&p), step = *x;
				*x = x0 - 0x1p-12f;
				double slope = (above - loss(&p)) / (step - *x);
				*x = x0;
				assert_true(fabs(gradients[g][t * got.ldg + d] - (g ? BEFORE : 0) - slope) < 2e-6);
			}
	free_result(&got);
	free_problem(&p);
}

/* Two query heads on one key head: the second call adds to what the first left. */
static void grouped_heads_add_up(void **unused)
{
	struct shape s = {77, 40, 3, 0, 0, 1};
	for (enum stave_dtype dt = STAVE_F32; dt <= STAVE_BF16; dt++) {
		struct problem p = make_problem(dt, s, 3), second = make_problem(dt, s, 3);
		free(second.q);
		second.q = random_values(dt, (size_t)s.T * p.ld, 2);
		struct truth a = make_truth(&p), b = make_truth(&second);
		for (int i = 0; i < s.T * s.D; i++) {
			a.dk[i] += b.dk[i];
			a.dv[i] += b.dv[i];
			a.dk_mag[i] += b.dk_mag[i];
			a.dv_mag[i] += b.dv_mag[i];
		}
		for (int l = 0; stave_levels[l]; l++) {
			const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
			if (!k)
				continue;
			struct result got = make_result(&p);
			run(k, &p, &got, s.T);
			run(k, &second, &got, s.T);
			check_values(&p, k->level, "dk", STAVE_F32, got.dk, got.ldg, BEFORE, a.dk, a.dk_mag, tolerance(&p, &a));
			check_values(&p, k->level, "dv", STAVE_F32, got.dv, got.ldg, BEFORE, a.dv, a.dv_mag, tolerance(&p, &a));
			free_result(&got);
		}
		free_truth(&a);
		free_truth(&b);
		free_problem(&p);
		free_problem(&second);
	}
}

/* Causality to the bit: what follows a row does not change it, at any length. */
static void a_prefix_gives_the_same_rows(void **unused)
{
	for (enum stave_dtype dt = STAVE_F32; dt <= STAVE_BF16; dt++)
		for (int l = 0; stave_levels[l]; l++) {
			const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
			if (!k)
				continue;
			struct problem p = make_problem(dt, (struct shape){300, 24, 0, 0, 70, 1}, 11);
			struct result whole = make_result(&p), part = make_result(&p);
			run(k, &p, &whole, 300);
			run(k, &p, &part, 139);
			assert_memory_equal(whole.o, part.o, 139 * p.ld * (dt == STAVE_F32 ? 4 : 2));
			assert_memory_equal(whole.lse, part.lse, 139 * sizeof(float));
			run(k, &p, &part, 300);
			assert_memory_equal(whole.o, part.o, 300 * p.ld * (dt == STAVE_F32 ? 4 : 2));
			assert_memory_equal(whole.dq, part.dq, 300 * part.ldg * sizeof(float));
			free_result(&whole);
			free_result(&part);
			free_problem(&p);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_level_agrees_on_chosen_shapes),
		cmocka_unit_test(every_level_agrees_on_random_shapes),
		cmocka_unit_test(reference_gradient_is_the_finite_difference),
		cmocka_unit_test(grouped_heads_add_up),
		cmocka_unit_test(a_prefix_gives_the_same_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
