/* Attention over pages, at every level and cache type, against a definition in double over what the pages hold: random
 * shapes, windows, soft-caps, both directions. A row alone, a head alone and a prompt cut in two must give the same bits.
 * Whatever lies behind the last stored position is NaN here, and scratch is poisoned: neither may show. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kernel/kernel.h"
#include "kernel/paged.h"

static uint64_t drawn;
static double unit(void) { return stave_random_unit(7, drawn++); }
static int below(int n) { return (int)(unit() * n); }
static float value(double size) { return (float)((unit() + unit() + unit() - 1.5) * size); }

struct problem {
	struct stave_paged_attn a;
	void **pages;
	int page_count;
	float *q, *o;
};

static struct problem make_problem(enum stave_cache_type t, int D, int G, int n, int past)
{
	struct problem p = {.a = {.type = t, .D = D, .G = G, .n = n, .past = past, .scale = 1 / sqrtf((float)D)}};
	int total = past + n;
	p.page_count = (total + STAVE_PAGE - 1) / STAVE_PAGE;
	p.pages = malloc((size_t)p.page_count * sizeof *p.pages);
	for (int i = 0; i < p.page_count; i++) {
		p.pages[i] = aligned_alloc(64, stave_page_bytes(t, D));
		memset(p.pages[i], 0xff, stave_page_bytes(t, D)); /* NaN in every type, scales included */
	}
	float *k = malloc(sizeof *k * (size_t)D), *v = malloc(sizeof *v * (size_t)D);
	for (int at = 0; at < total; at++) {
		for (int d = 0; d < D; d++) {
			k[d] = value(3);
			v[d] = value(1);
		}
		stave_page_put(t, p.pages[at / STAVE_PAGE], at % STAVE_PAGE, k, v, D);
	}
	free(k);
	free(v);
	p.a.ldq = (size_t)G * D + 3;
	p.a.ldo = (size_t)G * D + 5;
	p.q = malloc(sizeof(float) * p.a.ldq * (size_t)n);
	p.o = malloc(sizeof(float) * p.a.ldo * (size_t)n);
	for (size_t i = 0; i < p.a.ldq * (size_t)n; i++)
		p.q[i] = value(3);
	for (size_t i = 0; i < p.a.ldo * (size_t)n; i++)
		p.o[i] = 12345;
	p.a.q = p.q;
	p.a.o = p.o;
	p.a.pages = (const void *const *)p.pages;
	return p;
}

static void free_problem(struct problem *p)
{
	for (int i = 0; i < p->page_count; i++)
		free(p->pages[i]);
	free(p->pages);
	free(p->q);
	free(p->o);
}

static void attend(const struct stave_kernels *k, const struct stave_paged_attn *a)
{
	size_t bytes = stave_paged_scratch(a->G, a->D);
	assert_int_equal(bytes % 64, 0);
	void *scratch = aligned_alloc(64, bytes);
	memset(scratch, 0xff, bytes);
	k->paged_attn(a, scratch);
	free(scratch);
}


/* What one query sees and what comes out, in double; `noise`: how far its scores may be off in float arithmetic, or by a query
 * of 16 bits; `largest` value it sees. */
struct row {
	double *p, *o, *magnitude, noise, largest;
};
static void define(const struct stave_paged_attn *a, int r, int g, struct row *y)
{
	int total = a->past + a->n, pos = a->past + r, D = a->D;
	float *k = malloc(sizeof *k * (size_t)D), *v = malloc(sizeof *v * (size_t)D);
	const float *q = a->q + (size_t)r * a->ldq + (size_t)g * D;
	double top = -INFINITY, sum = 0;
	double q_top = 0;
	for (int d = 0; d < D; d++)
		q_top = fmax(q_top, fabsf(q[d]));
	y->noise = y->largest = 0;
	for (int j = 0; j < total; j++) {
		bool seen = a->bidirectional || (j <= pos && (!a->window || pos - j < a->window));
		y->p[j] = -INFINITY;
		if (!seen)
			continue;
		stave_page_get(a->type, a->pages[j / STAVE_PAGE], j % STAVE_PAGE, k, v, D);
		double s = 0, size = 0;
		for (int d = 0; d < D; d++) {
			double x = a->type == STAVE_CACHE_BF16 ? stave_bf16_to_f32(stave_f32_to_bf16(q[d])) : q[d];
			s += x * k[d];
			size += fabs(x * k[d]) + (a->type == STAVE_CACHE_I8 ? q_top * fabs(k[d]) : 0);
			y->largest = fmax(y->largest, fabsf(v[d]));
		}
		s *= a->scale;
		y->noise = fmax(y->noise, (size * a->scale + a->softcap) * (a->type == STAVE_CACHE_I8 ? 0x1p-17 : 1e-6));
		y->p[j] = a->softcap > 0 ? a->softcap * tanh(s / a->softcap) : s;
		top = fmax(top, y->p[j]);
	}
	memset(y->o, 0, sizeof(double) * (size_t)D);
	memset(y->magnitude, 0, sizeof(double) * (size_t)D);
	for (int j = 0; j < total; j++)
		sum += y->p[j] = exp(y->p[j] - top);
	for (int j = 0; j < total; j++) {
		if (!(y->p[j] > 0))
			continue;
		stave_page_get(a->type, a->pages[j / STAVE_PAGE], j % STAVE_PAGE, k, v, D);
		for (int d = 0; d < D; d++) {
			y->o[d] += y->p[j] / sum * v[d];
			y->magnitude[d] += y->p[j] / sum * fabs(v[d]);
		}
	}
	free(k);
	free(v);
}

static void compare(const char *level, const struct stave_paged_attn *a)
{
	int total = a->past + a->n;
	struct row y = {malloc(sizeof(double) * (size_t)total), malloc(sizeof(double) * (size_t)a->D), malloc(sizeof(double) * (size_t)a->D), 0, 0};
	for (int r = 0; r < a->n; r++)
		for (int g = 0; g < a->G; g++) {
			define(a, r, g, &y);
			/* probabilities rounded to bf16 are off by half a unit of 8 bits, the rest by some float roundings */
			double tolerance = 2 * y.noise + (a->type == STAVE_CACHE_BF16 ? 0x1p-8 : 0) + 4e-6;
			/* or to 16 bits of the largest, with which some thirty others have errors of either sign */
			double step = a->type == STAVE_CACHE_I8 ? 16 * 0x1p-16 * y.largest : 0;
			for (int d = 0; d < a->D; d++) {
				double got = a->o[(size_t)r * a->ldo + (size_t)(g * a->D + d)];
				if (!(fabs(got - y.o[d]) <= tolerance * y.magnitude[d] + step))
					fail_msg("%s type %d D %d G %d n %d past %d window %d softcap %g both %d: row %d head %d o[%d] = %.9g, wanted %.9g ± %.2g",
					         level, a->type, a->D, a->G, a->n, a->past, a->window, a->softcap, a->bidirectional, r, g, d, got,
					         y.o[d], tolerance * y.magnitude[d] + step);
			}
		}
	free(y.p);
	free(y.o);
	free(y.magnitude);
}

/* Rows r0.. of `whole` computed by `part` must be the same bits. */
static void same_rows(const char *level, const struct stave_kernels *k, const struct problem *whole, struct stave_paged_attn part, int r0, int g0,
                      const char *what)
{
	float *o = calloc(part.ldo * (size_t)part.n, sizeof *o);
	part.o = o;
	attend(k, &part);
	for (int r = 0; r < part.n; r++) {
		const float *wanted = whole->a.o + (size_t)(r0 + r) * whole->a.ldo + (size_t)g0 * part.D;
		if (memcmp(o + (size_t)r * part.ldo, wanted, sizeof(float) * (size_t)(part.G * part.D)))
			fail_msg("%s type %d D %d G %d n %d past %d window %d: %s from row %d, head %d differs in row %d", level, part.type, part.D,
			         whole->a.G, whole->a.n, whole->a.past, part.window, what, r0, g0, r0 + r);
	}
	free(o);
}

static void check_company(const char *level, const struct stave_kernels *k, const struct problem *p)
{
	struct stave_paged_attn part = p->a;
	int cut = 1 + below(p->a.n), row = below(p->a.n), head = below(p->a.G);
	if (!part.bidirectional) {
		part.n = cut;
		same_rows(level, k, p, part, 0, 0, "the prompt's first part");
		if (cut < p->a.n) {
			part.n = p->a.n - cut;
			part.past = p->a.past + cut;
			part.q = p->a.q + (size_t)cut * part.ldq;
			same_rows(level, k, p, part, cut, 0, "the prompt's second part");
		}
		part.n = 1;
		part.past = p->a.past + row;
		part.q = p->a.q + (size_t)row * part.ldq;
		same_rows(level, k, p, part, row, 0, "a row alone");
		part.G = 1;
		part.q += head * part.D;
		same_rows(level, k, p, part, row, head, "a head of a row alone");
	}
	part = p->a;
	part.G = 1;
	part.q += head * part.D;
	same_rows(level, k, p, part, 0, head, "a head alone");
}

static void run(enum stave_cache_type t, int D, int G, int n, int past, int window, float softcap, bool bidirectional)
{
	struct problem p = make_problem(t, D, G, n, past);
	p.a.window = window;
	p.a.softcap = softcap;
	p.a.bidirectional = bidirectional;
	for (int l = 0; stave_levels[l]; l++) {
		const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
		if (!k)
			continue;
		attend(k, &p.a);
		compare(stave_levels[l], &p.a);
		check_company(stave_levels[l], k, &p);
		for (int r = 0; r < n; r++)
			for (size_t i = (size_t)G * D; i < p.a.ldo; i++)
				assert_true(p.o[(size_t)r * p.a.ldo + i] == 12345);
	}
	free_problem(&p);
}

static void test_random_shapes(void **state)
{
	static const int widths[] = {16, 64, 80, 96, 128, 2, 34, 192, 256};
	for (int i = 0; i < 90; i++) {
		enum stave_cache_type t = (enum stave_cache_type)(i % 3);
		int D = widths[below(9)], G = 1 + below(8), n = below(3) ? 1 + below(12) : 1 + below(130), past = below(4) ? below(300) : 0;
		if (D * G * n > 20000)
			n = 1 + 20000 / (D * G);
		int window = below(2) ? 0 : 1 + below(150);
		run(t, D, G, n, past, window, below(3) ? 0 : 5 + below(40), !below(5));
	}
}

static void test_edges(void **state)
{
	for (int t = 0; t < 3; t++) {
		run((enum stave_cache_type)t, 64, 4, 1, 0, 0, 0, false);      /* the very first token */
		run((enum stave_cache_type)t, 64, 4, 1, 63, 0, 0, false);     /* the last of a page, the first of the next */
		run((enum stave_cache_type)t, 64, 4, 1, 64, 0, 0, false);
		run((enum stave_cache_type)t, 64, 4, 130, 0, 1, 0, false);    /* each sees itself only */
		run((enum stave_cache_type)t, 64, 1, 129, 255, 64, 0, false); /* a window of a page that slides over pages */
		run((enum stave_cache_type)t, 512, 2, 40, 100, 0, 0, false);  /* one row a block */
		run((enum stave_cache_type)t, 16, 71, 3, 70, 0, 0, false);    /* Falcon's one key head */
		run((enum stave_cache_type)t, 64, 5, 100, 0, 0, 30, true);
	}
}

static void test_put_get(void **state)
{
	for (int i = 0; i < 60; i++) {
		enum stave_cache_type t = (enum stave_cache_type)(i % 3);
		int D = 2 * (1 + below(128));
		char *page = aligned_alloc(64, stave_page_bytes(t, D));
		assert_int_equal(stave_page_bytes(t, D) % 64, 0);
		float k[STAVE_PAGE][256], v[STAVE_PAGE][256], gk[256], gv[256];
		for (int at = 0; at < STAVE_PAGE; at++) {
			for (int d = 0; d < D; d++) {
				k[at][d] = value(100);
				v[at][d] = value(0.01);
			}
			stave_page_put(t, page, at, k[at], v[at], D);
		}
		for (int at = 0; at < STAVE_PAGE; at++) {
			float kmax = 0, vmax = 0;
			stave_page_get(t, page, at, gk, gv, D);
			for (int d = 0; d < D; d++) {
				kmax = fmaxf(kmax, fabsf(k[at][d]));
				vmax = fmaxf(vmax, fabsf(v[at][d]));
			}
			for (int d = 0; d < D; d++)
				if (t == STAVE_CACHE_I8) {
					assert_true(fabsf(gk[d] - k[at][d]) <= kmax / 127 * 0.50001f);
					assert_true(fabsf(gv[d] - v[at][d]) <= vmax / 127 * 0.50001f);
				} else {
					assert_true(gk[d] == (t == STAVE_CACHE_F32 ? k[at][d] : stave_bf16_to_f32(stave_f32_to_bf16(k[at][d]))));
					assert_true(gv[d] == (t == STAVE_CACHE_F32 ? v[at][d] : stave_bf16_to_f32(stave_f32_to_bf16(v[at][d]))));
				}
		}
		free(page);
	}
}

/* Zeros stay zeros, and what is not finite stays visible, without undefined conversions. */
static void test_put_odd_values(void **state)
{
	char page[8192] __attribute__((aligned(64)));
	float k[16] = {0}, v[16] = {1, NAN}, gk[16], gv[16];
	assert_true(stave_page_bytes(STAVE_CACHE_I8, 16) <= sizeof page);
	stave_page_put(STAVE_CACHE_I8, page, 9, k, v, 16);
	stave_page_get(STAVE_CACHE_I8, page, 9, gk, gv, 16);
	for (int d = 0; d < 16; d++)
		assert_true(gk[d] == 0);
	assert_true(isnan(gv[1]));
	v[1] = INFINITY;
	k[3] = 1e-44f;
	stave_page_put(STAVE_CACHE_I8, page, 9, k, v, 16);
	stave_page_get(STAVE_CACHE_I8, page, 9, gk, gv, 16);
	assert_false(isfinite(gv[1]));
	assert_true(fabsf(gk[3]) <= 2e-43f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_get),
		cmocka_unit_test(test_put_odd_values),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_random_shapes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
