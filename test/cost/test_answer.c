/* Forecasts of answers. On a profile without samples they are closed forms of peak and bandwidth, worked out here by hand; a
 * sampled rate replaces them exactly; more of any stave never slows an answer; results are finite on any valid machine. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "cost/machine.h"

static struct stave_machine plain(void)
{
	return (struct stave_machine){.cpu = "test", .level = "avx2", .cores = 4, .threads = 2, .memory_bytes = (int64_t)1 << 34, .peak_f32 = 200e9,
	                              .peak_bf16 = 800e9, .peak_i8 = 1600e9, .read_bytes_s = 20e9, .copy_bytes_s = 15e9, .touch_s_per_page = 1e-6,
	                              .call_s = 2e-6};
}

static void add(struct stave_machine *m, const char *what, enum stave_dtype dt, int64_t a, int64_t b, int64_t c, double per_s)
{
	struct stave_rate *r = &m->rates[m->n_rates++];
	*r = (struct stave_rate){.dtype = dt, .m = a, .n = b, .k = c, .per_s = per_s};
	snprintf(r->what, sizeof r->what, "%s", what);
}

static struct stave_shape llama(void)
{
	return (struct stave_shape){.family = STAVE_LLAMA, .L = 16, .C = 2048, .H = 32, .K = 8, .D = 64, .I = 8192, .V = 128256, .T_max = 8192,
	                            .act = STAVE_SWIGLU, .norm_eps = 1e-5f, .rope_theta = 5e5};
}

static double matrices(const struct stave_shape *s)
{
	double C = s->C, q = (double)s->H * s->D, kv = (double)s->K * s->D;
	return s->L * (C * (q + 2 * kv) + q * C + 3 * C * s->I);
}

static bool within(double a, double b, double share) { return fabs(a - b) <= share * fabs(b); }

/* Decoding reads every weight once: 8.5 bits each, and the rest of a step is small. */
static void decoding_is_bandwidth_over_bytes(void **state)
{
	struct stave_machine m = plain();
	struct stave_shape s = llama();
	struct stave_answering a = {.weights = STAVE_Q_Q8_0, .head = STAVE_Q_Q8_0, .cache = STAVE_BF16, .prompt = 512, .generate = 32, .sequences = 1};
	m.call_s = 1e-12;
	m.copy_bytes_s = 1e15;
	struct stave_answer_rates r = stave_machine_answer(&m, &s, &a);
	double bytes = 34.0 / 32 * (matrices(&s) + (double)s.V * s.C) + 16 * 2 * 2 * 8 * 64 * 529.0; /* weights; keys and values of 529 positions */
	assert_true(within(r.decode_tokens_s, 20e9 / bytes, 0.01)); /* operands and results are the rest */
	assert_string_equal(r.decode.shortest, "memory bandwidth: reading weights and cache");
	assert_true(r.decode.shortest_share > 0.9 && r.decode.shortest_share <= 1);
	assert_false(r.sampled);
}

/* Reading a prompt is two flops a weight, the classifier for one token only, and the products of what each token sees. */
static void reading_is_flops_over_peak(void **state)
{
	struct stave_machine m = plain();
	struct stave_shape s = llama();
	struct stave_answering a = {.weights = STAVE_Q_BF16, .head = STAVE_Q_BF16, .cache = STAVE_BF16, .prompt = 4096, .sequences = 1};
	m.call_s = 1e-12;
	m.copy_bytes_s = m.read_bytes_s = 1e15;
	struct stave_answer_rates r = stave_machine_answer(&m, &s, &a);
	double pairs = 4096.0 * 4097 / 2, flops = 4096 * 2 * matrices(&s) + 2.0 * s.V * s.C + 16 * 4 * 64 * 32 * pairs;
	assert_true(within(r.prefill_tokens_s, 4096 / (flops / 800e9), 1e-5));
	assert_string_equal(r.prefill.shortest, "arithmetic peak of the cores");
	a.chunk = 4096; /* however it is cut */
	assert_true(within(stave_machine_answer(&m, &s, &a).prefill_tokens_s, r.prefill_tokens_s, 1e-5));
	a.chunk = 3; /* more pieces than are forecast one by one */
	assert_true(within(stave_machine_answer(&m, &s, &a).prefill_tokens_s, r.prefill_tokens_s, 1e-3));
}

/* A profile in which all rates are one: everything counted takes its sum over that rate. */
static void one_rate_is_a_closed_form(void **state)
{
	struct stave_machine m = plain();
	struct stave_shape s = llama();
	struct stave_answering a = {.weights = STAVE_Q_Q4_K, .head = STAVE_Q_Q6_K, .cache = STAVE_BF16, .prompt = 100, .generate = 0, .sequences = 4};
	m.call_s = 1e-15;
	m.copy_bytes_s = 1e18;
	add(&m, "packed Q4_K", STAVE_I8, 1, 8192, 2048, 50e9);
	add(&m, "packed Q4_K", STAVE_I8, 512, 8192, 2048, 50e9);
	assert_false(stave_machine_answer(&m, &s, &a).sampled); /* the classifier's type has no rate */
	add(&m, "packed Q6_K", STAVE_I8, 1, 8192, 2048, 25e9);
	add(&m, "paged", STAVE_BF16, 512, 4, 64, 1e9);
	struct stave_answer_rates r = stave_machine_answer(&m, &s, &a);
	double attention = 16 * 4 * 64 * 32 / 1e9;
	double decode = 4 * (2 * matrices(&s) / 50e9 + 2.0 * s.V * s.C / 25e9 + attention * 101);
	double prefill = 100 * 2 * matrices(&s) / 50e9 + 2.0 * s.V * s.C / 25e9 + attention * 5050;
	assert_true(r.sampled);
	assert_true(within(r.decode_tokens_s, 4 / decode, 1e-6));
	assert_true(within(r.prefill_tokens_s, 100 / prefill, 1e-6));
	assert_true(within(r.decode.step_s, decode, 1e-6));
}

/* Of sequences that decode together each reads its own cache; the weights are read once. */
static void together_weights_are_shared(void **state)
{
	struct stave_machine m = plain();
	struct stave_shape s = llama();
	struct stave_answering a = {.weights = STAVE_Q_Q8_0, .head = STAVE_Q_Q8_0, .cache = STAVE_I8, .prompt = 4000, .generate = 8, .sequences = 1};
	double one = stave_machine_answer(&m, &s, &a).decode_tokens_s;
	a.sequences = 8;
	struct stave_answer_rates r = stave_machine_answer(&m, &s, &a);
	assert_true(r.decode_tokens_s > 3 * one && r.decode_tokens_s < 8 * one);
	s.encoder = true; /* nothing is decoded */
	s.token_types = 1;
	r = stave_machine_answer(&m, &s, &a);
	assert_true(r.decode_tokens_s == 0 && r.prefill_tokens_s > 0);
}

static struct stave_machine random_machine(uint64_t trial)
{
	static const char *const what[] = {"packed Q4_K", "packed Q8_0", "paged", "enter", "operand", "activate", "place"};
	struct stave_machine m = plain();
	int samples = (int)(stave_random64(trial, 0) % 20);
	for (int i = 0; i < samples; i++) {
		uint64_t at = 1 + 5 * (uint64_t)i;
		int w = (int)(stave_random64(trial, at) % 7);
		enum stave_dtype dt = w == 2 ? STAVE_BF16 : w > 4 ? STAVE_F32 : STAVE_I8;
		add(&m, what[w], dt, 1 + (int64_t)(stave_random64(trial, at + 1) % 600), 1 + (int64_t)(stave_random64(trial, at + 2) % 9000),
		    1 + (int64_t)(stave_random64(trial, at + 3) % 9000), 1e8 + 1e12 * stave_random_unit(trial, at + 4));
	}
	return m;
}

static void more_never_slows_an_answer(void **state)
{
	struct stave_shape s = llama();
	for (uint64_t trial = 0; trial < 200; trial++) {
		struct stave_machine m = random_machine(trial);
		struct stave_answering a = {.weights = trial % 2 ? STAVE_Q_Q4_K : STAVE_Q_Q8_0, .head = STAVE_Q_Q8_0, .cache = STAVE_BF16,
		                            .prompt = 1 + (int)(stave_random64(trial, 200) % 3000), .generate = 10, .sequences = 1 + (int)(trial % 9)};
		struct stave_answer_rates before = stave_machine_answer(&m, &s, &a);
		assert_true(isfinite(before.prefill_tokens_s) && before.prefill_tokens_s > 0 && isfinite(before.decode_tokens_s) && before.decode_tokens_s > 0);
		assert_true(before.decode.shortest && before.decode.shortest_share > 0 && before.decode.shortest_share <= 1);
		double *const staves[] = {&m.copy_bytes_s, &m.read_bytes_s, &m.peak_f32, &m.peak_bf16, &m.peak_i8};
		*staves[trial % 5] *= 1 + 3 * stave_random_unit(trial, 300);
		if (m.n_rates)
			m.rates[trial % (uint64_t)m.n_rates].per_s *= 2;
		struct stave_answer_rates after = stave_machine_answer(&m, &s, &a);
		assert_true(after.prefill_tokens_s >= before.prefill_tokens_s && after.decode_tokens_s >= before.decode_tokens_s);
	}
}

/* The limits of what a shape and a profile may say. */
static void extremes_are_finite(void **state)
{
	struct stave_machine m = plain();
	struct stave_shape s = llama();
	struct stave_answering a = {.weights = STAVE_Q_MXFP4, .head = STAVE_Q_F16, .cache = STAVE_I8, .prompt = 10000000, .generate = 1000000, .sequences = 1024, .chunk = 65536};
	s.L = 1024, s.C = 65536, s.H = s.K = 1024, s.D = 1024, s.I = 1 << 20, s.V = 1 << 22, s.T_max = 1 << 24;
	m.peak_f32 = m.read_bytes_s = 1e-15, m.peak_bf16 = m.peak_i8 = 0, m.call_s = 1e24;
	struct stave_answer_rates r = stave_machine_answer(&m, &s, &a);
	assert_true(isfinite(r.prefill_tokens_s) && r.prefill_tokens_s > 0 && isfinite(r.decode_tokens_s) && r.decode_tokens_s > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decoding_is_bandwidth_over_bytes), cmocka_unit_test(reading_is_flops_over_peak),
		cmocka_unit_test(one_rate_is_a_closed_form),        cmocka_unit_test(together_weights_are_shared),
		cmocka_unit_test(more_never_slows_an_answer),       cmocka_unit_test(extremes_are_finite),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
