/* Sampling controls against distributions worked out by hand, a large vocabulary against a plain sort, log-probabilities, and
 * the assembly of text around stop strings and half characters. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "infer/engine.h"

enum { V = 8, DRAWS = 20000 };
static const double P[V] = {.08, .4, .002, .3, .15, .04, .02, .008};

static struct stave_arena arena;
static struct sampler fresh(int vocab)
{
	struct sampler s;
	if (!arena.base)
		assert_int_equal(stave_arena_open(&arena, "sampler", 4 << 20, NULL), 0);
	arena.used = 0;
	sampler_take(&s, vocab, &arena);
	sampler_reset(&s);
	return s;
}

/* Draws DRAWS times and compares each frequency with `want` (normalised here): zero must never come, others within 5 sigma. */
static void expect(struct sampler *s, const struct stave_sampling *p, const double *want, const char *what)
{
	float logits[V];
	int count[V] = {0};
	double total = 0;
	for (int i = 0; i < V; i++) {
		logits[i] = (float)log(P[i]);
		total += want[i];
	}
	for (int i = 0; i < DRAWS; i++)
		count[sampler_draw(s, p, NULL, logits, (uint64_t)i)]++;
	for (int i = 0; i < V; i++) {
		double q = want[i] / total, sigma = sqrt(DRAWS * q * (1 - q));
		if ((q == 0 && count[i]) || fabs(count[i] - DRAWS * q) > 5 * sigma + 1)
			fail_msg("%s: token %d drawn %d times, expected %.1f +- %.1f", what, i, count[i], DRAWS * q, sigma);
	}
}

static void controls(void **state)
{
	(void)state;
	struct sampler s = fresh(V);
	struct stave_sampling p = stave_sampling_default();
	p.seed = 5;
	expect(&s, &p, P, "plain");

	p.temperature = 2;
	double root[V];
	for (int i = 0; i < V; i++)
		root[i] = sqrt(P[i]);
	expect(&s, &p, root, "temperature 2");

	p = stave_sampling_default();
	p.top_k = 3;
	expect(&s, &p, (double[V]){0, .4, 0, .3, .15}, "top_k 3");
	p.top_p = .8f; /* of what top_k left: .4 + .3 = .82 of .85 */
	expect(&s, &p, (double[V]){0, .4, 0, .3}, "top_k 3, top_p .8");

	p = stave_sampling_default();
	p.top_p = .8f; /* .4 + .3 = .7 < .8 <= .85 */
	expect(&s, &p, (double[V]){0, .4, 0, .3, .15}, "top_p .8");
	p.top_p = 0;
	expect(&s, &p, (double[V]){0, 1}, "top_p 0");

	p = stave_sampling_default();
	p.min_p = .19f; /* of .4: .076 */
	expect(&s, &p, (double[V]){.08, .4, 0, .3, .15}, "min_p .19");

	p = stave_sampling_default();
	p.bias_ids = (int32_t[]){2, 1};
	p.bias = (float[]){(float)log(100), -100};
	p.n_bias = 2;
	expect(&s, &p, (double[V]){.08, 0, .2, .3, .15, .04, .02, .008}, "logit_bias");
}

static void penalties(void **state)
{
	(void)state;
	struct sampler s = fresh(V);
	struct stave_sampling p = stave_sampling_default();
	sampler_note(&s, 3, false); /* in the prompt only */
	sampler_note(&s, 1, true);
	sampler_note(&s, 1, true);
	double want[V];
	memcpy(want, P, sizeof want);
	p.repetition_penalty = 2; /* negative logits double: probabilities are squared before normalising */
	want[1] *= P[1];
	want[3] *= P[3];
	expect(&s, &p, want, "repetition_penalty");

	p = stave_sampling_default();
	memcpy(want, P, sizeof want);
	p.presence_penalty = .5f;
	p.frequency_penalty = .25f; /* token 1 was generated twice; the prompt's 3 does not count */
	want[1] *= exp(-.5 - 2 * .25);
	expect(&s, &p, want, "presence and frequency");

	float logits[V] = {1, 3, 0, 2.9f};
	p = stave_sampling_default();
	p.temperature = 0;
	assert_int_equal(sampler_draw(&s, &p, NULL, logits, 0), 1);
	p.repetition_penalty = 1.5f; /* 3 / 1.5 = 2, 2.9 / 1.5 = 1.93 */
	assert_int_equal(sampler_draw(&s, &p, NULL, logits, 0), 1);
	p.frequency_penalty = 1;
	assert_int_equal(sampler_draw(&s, &p, NULL, logits, 0), 3);
	sampler_reset(&s);
	assert_int_equal(sampler_draw(&s, &p, NULL, logits, 0), 1);
}

static void greedy_ties_and_nan(void **state)
{
	(void)state;
	struct sampler s = fresh(V);
	struct stave_sampling p = stave_sampling_default();
	p.temperature = 0;
	assert_int_equal(sampler_draw(&s, &p, NULL, (float[V]){0, 7, 7, 7}, 3), 1);
	float bad[V] = {NAN, 1, NAN, 2, NAN, NAN, -INFINITY, NAN};
	assert_int_equal(sampler_draw(&s, &p, NULL, bad, 0), 3);
	p.temperature = 1;
	for (int i = 0; i < 1000; i++) {
		int32_t id = sampler_draw(&s, &p, NULL, bad, (uint64_t)i);
		assert_true(id == 1 || id == 3);
	}
	float none[V];
	for (int i = 0; i < V; i++)
		none[i] = NAN;
	assert_int_equal(sampler_draw(&s, &p, NULL, none, 0), -1);
}

enum { BIG = 60000 };
static float big[BIG];
static int by_logit(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	return big[x] > big[y] ? -1 : big[x] < big[y] ? 1 : x - y;
}

/* The definition by a full sort, for one u. */
static int32_t by_sorting(const struct stave_sampling *p, const int32_t *order, double u)
{
	int n = p->top_k ? p->top_k : BIG, keep = 0;
	double total = 0, mass = 0, sum = 0;
	for (int i = 0; i < n; i++)
		total += exp((big[order[i]] - big[order[0]]) / p->temperature);
	while (keep < n) {
		double w = exp((big[order[keep]] - big[order[0]]) / p->temperature);
		if (keep && (mass >= p->top_p * total || w < p->min_p))
			break;
		mass += w;
		keep++;
	}
	for (int i = 0; i < keep; i++)
		if ((sum += exp((big[order[i]] - big[order[0]]) / p->temperature)) > u * mass)
			return order[i];
	return order[keep - 1];
}

static void large_vocabulary(void **state)
{
	(void)state;
	static int32_t order[BIG];
	struct sampler s = fresh(BIG);
	for (int i = 0; i < BIG; i++) {
		big[i] = (float)(int)(stave_random64(1, (uint64_t)i) % 4000) / 400; /* many ties */
		order[i] = i;
	}
	qsort(order, BIG, sizeof *order, by_logit);
	struct stave_sampling p = stave_sampling_default();
	for (int round = 0; round < 60; round++) {
		p.temperature = round % 3 == 0 ? 1 : round % 3 == 1 ? .3f : 1.7f;
		p.top_k = round % 4 == 1 ? 1000 : 0;
		p.top_p = round % 4 == 2 ? .9f : 1;
		p.min_p = round % 4 == 3 ? .05f : 0;
		p.seed = 77;
		int32_t got = sampler_draw(&s, &p, NULL, big, (uint64_t)round), want = by_sorting(&p, order, stave_random_unit(77, (uint64_t)round));
		if (got != want && big[got] != big[want]) /* sums in another order may fall on the other side of a boundary between equals */
			fail_msg("round %d: drew %d (%g), by sorting %d (%g)", round, got, big[got], want, big[want]);
	}
}

static void logprobs(void **state)
{
	(void)state;
	float logits[V];
	struct stave_logprob lp;
	for (int i = 0; i < V; i++)
		logits[i] = (float)log(P[i]) + 3; /* a shift changes nothing */
	logprob_of(logits, V, 2, 3, &lp);
	assert_int_equal(lp.id, 2);
	double total = 0;
	for (int i = 0; i < V; i++)
		total += P[i];
	assert_true(fabs(lp.logprob - log(P[2] / total)) < 1e-5);
	assert_int_equal(lp.n_top, 3);
	int want[] = {1, 3, 4};
	for (int i = 0; i < 3; i++) {
		assert_int_equal(lp.top_id[i], want[i]);
		assert_true(fabs(lp.top_logprob[i] - log(P[want[i]] / total)) < 1e-5);
	}
	logprob_of((float[V]){1, 2, 2, 1, 2, 0, 0, 0}, V, 0, 4, &lp);
	assert_memory_equal(lp.top_id, ((int32_t[]){1, 2, 4, 0}), 16); /* ties by id */
	logprob_of(logits, V, 0, 20, &lp);
	assert_int_equal(lp.n_top, V);
}

static void ranges(void **state)
{
	(void)state;
	struct stave_err err;
	struct stave_sampling ok = stave_sampling_default(), p;
	assert_int_equal(stave_sampling_check(&ok, V, &err), 0);
#define REFUSED(field, value) (p = ok, p.field = value, assert_int_equal(stave_sampling_check(&p, V, &err), STAVE_EUSAGE), assert_non_null(strstr(err.msg, #field)))
	REFUSED(temperature, -1);
	REFUSED(temperature, NAN);
	REFUSED(temperature, INFINITY);
	REFUSED(top_p, 1.01f);
	REFUSED(min_p, -.1f);
	REFUSED(top_k, -3);
	REFUSED(repetition_penalty, 0);
	REFUSED(presence_penalty, NAN);
	p = ok;
	p.n_bias = 1;
	p.bias = (float[]){1};
	p.bias_ids = (int32_t[]){V};
	assert_int_equal(stave_sampling_check(&p, V, &err), STAVE_EUSAGE);
	p.bias_ids = (int32_t[]){-1};
	assert_int_equal(stave_sampling_check(&p, V, &err), STAVE_EUSAGE);
}

/* Feeds `text` in pieces of n bytes; what goes out is collected. Returns whether a stop was met. */
static bool feed(const char *text, size_t n, char **stop, int n_stop, struct stave_buf *out)
{
	struct stream s = {.stop = stop, .n_stop = n_stop};
	bool stopped = false;
	for (size_t at = 0, len = strlen(text); at < len && !stopped; at += n) {
		stave_buf_put(&s.held, text + at, len - at < n ? len - at : n);
		size_t ready = stream_ready(&s, &stopped);
		stave_buf_put(out, s.held.p, ready);
		stream_drop(&s, ready);
		if (!stopped)
			assert_int_equal(stave_utf8_complete(out->p, out->len), out->len); /* nothing half went out */
	}
	if (!stopped)
		stave_buf_put(out, s.held.p ? s.held.p : "", s.held.len);
	stave_buf_free(&s.held);
	return stopped;
}

static void streams(void **state)
{
	(void)state;
	char *stop[] = {"END", "NDX", "\nuser:"};
	static const struct {
		const char *in, *out;
		bool stopped;
	} cases[] = {
		{"hello", "hello", false},           {"one END two", "one ", true},        {"EN ENEND", "EN EN", true},
		{"aENDX", "a", true},                {"bNDXEND", "b", true},               {"\nuse\nuser: x", "\nuse", true},
		{"ends with EN", "ends with EN", false}, {"na\xc3\xafve \xe2\x82\xac END", "na\xc3\xafve \xe2\x82\xac ", true},
		{"bad \xff\xc3 byte", "bad \xff\xc3 byte", false}, {"END", "", true},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (size_t n = 1; n < 8; n++) {
			struct stave_buf out = {0};
			bool stopped = feed(cases[i].in, n, stop, 3, &out);
			if (stopped != cases[i].stopped || out.len != strlen(cases[i].out) || (out.len && memcmp(out.p, cases[i].out, out.len)))
				fail_msg("'%s' in pieces of %zu: got '%.*s'%s", cases[i].in, n, (int)out.len, out.p ? out.p : "", stopped ? ", stopped" : "");
			stave_buf_free(&out);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(controls), cmocka_unit_test(penalties), cmocka_unit_test(greedy_ties_and_nan),
	                                   cmocka_unit_test(large_vocabulary), cmocka_unit_test(logprobs), cmocka_unit_test(ranges), cmocka_unit_test(streams)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (arena.base)
		stave_arena_close(&arena);
	return failed;
}
