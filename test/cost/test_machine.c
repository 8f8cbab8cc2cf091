/* The profile and the forecast. A profile must survive a round trip exactly and every spoilt one must be refused by name;
 * interpolation must return its samples, stay between them and scale with them; more of any stave never slows a fixed
 * list of operations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/json.h"
#include "cost/machine.h"

static struct stave_machine plain(void)
{
	return (struct stave_machine){.cpu = "Test \"CPU\" µ", .level = "avx2", .cores = 4, .threads = 2, .memory_bytes = (int64_t)1 << 34,
	                              .peak_f32 = 200e9, .peak_bf16 = 800e9, .peak_i8 = 0, .read_bytes_s = 20e9, .copy_bytes_s = 15e9,
	                              .touch_s_per_page = 1e-6, .disk_write_bytes_s = 1e9, .disk_read_bytes_s = 2e9, .call_s = 2e-6};
}

static void add(struct stave_machine *m, const char *what, enum stave_pass pass, enum stave_dtype dt, int64_t a, int64_t b, int64_t c, double per_s)
{
	struct stave_rate *r = &m->rates[m->n_rates++];
	snprintf(r->what, sizeof r->what, "%s", what);
	r->pass = pass;
	r->dtype = dt;
	r->m = a;
	r->n = b;
	r->k = c;
	r->per_s = per_s;
}

static struct stave_op product(int64_t m, int64_t n, int64_t k)
{
	return (struct stave_op){.name = "p", .rate = "matmul", .kind = STAVE_OP_MATMUL, .dtype = STAVE_F32, .m = m, .n = n, .k = k, .count = 1,
	                         .flops = 2.0 * (double)m * (double)n * (double)k};
}

static struct stave_shape small(void)
{
	return (struct stave_shape){.family = STAVE_LLAMA, .L = 3, .C = 256, .H = 4, .K = 2, .D = 64, .I = 704, .V = 5000, .T_max = 512,
	                            .act = STAVE_SWIGLU, .norm_eps = 1e-5f, .rope_theta = 1e4};
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-9 * fabs(b); }

static void a_sample_is_its_own_forecast(void **state)
{
	struct stave_machine m = plain();
	add(&m, "matmul", STAVE_FORWARD, STAVE_F32, 1024, 768, 768, 150e9);
	add(&m, "matmul", STAVE_FORWARD, STAVE_F32, 768, 128, 128, 60e9);
	add(&m, "matmul", STAVE_DGRAD, STAVE_F32, 1024, 768, 768, 1e9);  /* another pass and */
	add(&m, "matmul", STAVE_FORWARD, STAVE_BF16, 1024, 768, 768, 1e9); /* another type say nothing here */
	struct stave_op op = product(1024, 768, 768);
	assert_true(near(stave_machine_op_s(&m, &op), op.flops / 150e9));
	op = product(900, 300, 300); /* between the two */
	double rate = op.flops / stave_machine_op_s(&m, &op);
	assert_true(rate > 60e9 && rate < 150e9);
	op = product(900, 700, 700); /* nearer to the large one */
	assert_true(op.flops / stave_machine_op_s(&m, &op) > sqrt(60e9 * 150e9));
	op = product(1 << 14, 1 << 14, 1 << 14); /* far outside: the nearest sample dominates */
	rate = op.flops / stave_machine_op_s(&m, &op);
	assert_true(rate > sqrt(60e9 * 150e9) && rate <= 150e9);
}

static void without_samples_the_limits_decide(void **state)
{
	struct stave_machine m = plain();
	struct stave_op op = product(1024, 768, 768);
	assert_true(near(stave_machine_op_s(&m, &op), op.flops / 200e9));
	op.dtype = STAVE_BF16;
	assert_true(near(stave_machine_op_s(&m, &op), op.flops / 800e9));
	op.dtype = STAVE_I8; /* no such instructions: as f32 */
	assert_true(near(stave_machine_op_s(&m, &op), op.flops / 200e9));
	op.bytes = 20e9; /* a second of reading */
	assert_true(near(stave_machine_op_s(&m, &op), 1));
	op = (struct stave_op){.name = "n", .rate = "norm", .kind = STAVE_OP_ELEMENT, .m = 1000, .n = 1000, .k = 1, .count = 1, .bytes = 30e9};
	assert_true(near(stave_machine_op_s(&m, &op), 2));
	op.bytes = 1; /* nothing is faster than starting the threads */
	assert_true(near(stave_machine_op_s(&m, &op), 2e-6));
}

/* Three heads on two threads take as long as four. */
static void an_odd_head_leaves_a_thread_idle(void **state)
{
	struct stave_machine m = plain();
	add(&m, "attention", STAVE_FORWARD, STAVE_F32, 8, 256, 64, 100e9);
	struct stave_op op = {.name = "a", .rate = "attention", .kind = STAVE_OP_ATTENTION, .dtype = STAVE_F32, .m = 4, .n = 256, .k = 64, .count = 1, .flops = 4e9};
	double four = stave_machine_op_s(&m, &op);
	assert_true(near(four, 4e9 / 100e9));
	op.m = 3;
	op.flops = 3e9;
	assert_true(near(stave_machine_op_s(&m, &op), four));
}

static void a_forecast_is_the_sum_of_its_classes(void **state)
{
	struct stave_machine m = plain();
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape s = small();
	int n = stave_cost_train_ops(&s, 2, 128, 3, STAVE_BF16, STAVE_KEEP_ALL, ops);
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += (double)ops[i].count * stave_machine_op_s(&m, &ops[i]);
	struct stave_forecast f = stave_machine_forecast(&m, ops, n);
	assert_true(near(f.step_s, sum));
	assert_true(near(f.step_s, f.matmul_s + f.attention_s + f.element_s + f.loss_s + f.optimizer_s + f.comm_s));
	assert_true(f.shortest && f.shortest_share > 0 && f.shortest_share <= 1);
}

static void the_shortest_stave_is_named(void **state)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape s = small();
	struct stave_machine m = plain();
	int n = stave_cost_train_ops(&s, 2, 128, 1, STAVE_F32, STAVE_KEEP_ALL, ops);
	m.copy_bytes_s = m.read_bytes_s = 1e12; /* memory is free: only arithmetic is left */
	m.call_s = 1e-12;
	struct stave_forecast f = stave_machine_forecast(&m, ops, n);
	assert_string_equal(f.shortest, "arithmetic peak of the cores");
	assert_true(f.shortest_share > 0.8);
	m.copy_bytes_s = 1e8; /* and now it is not; elementwise traffic exceeds the optimizer's at this size */
	f = stave_machine_forecast(&m, ops, n);
	assert_non_null(strstr(f.shortest, "memory traffic"));
	m = plain();
	m.copy_bytes_s = m.read_bytes_s = 1e12;
	add(&m, "attention", STAVE_DGRAD, STAVE_F32, 8, 128, 64, 1e8);
	f = stave_machine_forecast(&m, ops, n);
	assert_string_equal(f.shortest, "attention below peak");
	assert_int_equal((int)stave_machine_forecast(&m, ops, 0).step_s, 0); /* no work: no division by it */
}

/* Lengthening any stave of a random machine never lengthens the step. */
static void more_never_slows(void **state)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape s = small();
	static const char *const what[] = {"matmul", "attention", "norm", "adamw", "loss"};
	for (uint64_t trial = 0; trial < 300; trial++) {
		struct stave_machine m = plain();
		uint64_t at = 0;
		int samples = (int)(stave_random64(trial, at++) % 12);
		for (int i = 0; i < samples; i++) {
			int w = (int)(stave_random64(trial, at) % 5);
			enum stave_pass pass = w == 3 ? STAVE_UPDATE : (enum stave_pass)(stave_random64(trial, at + 1) % 3);
			int64_t size[3];
			for (int d = 0; d < 3; d++)
				size[d] = 1 + (int64_t)(stave_random64(trial, at + 2 + (uint64_t)d) % 4000);
			add(&m, what[w], pass, STAVE_BF16, size[0], size[1], size[2], 1e8 + 1e12 * stave_random_unit(trial, at + 5));
			at += 6;
		}
		int n = stave_cost_train_ops(&s, 1 + (int)(trial % 5), 64, 1, STAVE_BF16, STAVE_KEEP_ALL, ops);
		double before = stave_machine_forecast(&m, ops, n).step_s;
		double *const staves[] = {&m.copy_bytes_s, &m.read_bytes_s, &m.peak_f32, &m.peak_bf16};
		*staves[trial % 4] *= 1 + 3 * stave_random_unit(trial, at);
		double after = stave_machine_forecast(&m, ops, n).step_s;
		assert_true(after <= before);
		if (samples) {
			m.rates[trial % (uint64_t)samples].per_s *= 2;
			assert_true(stave_machine_forecast(&m, ops, n).step_s <= after);
		}
	}
}

/* ---- the file ---- */

static void a_profile_survives_a_round_trip(void **state)
{
	char dir[] = "/tmp/stave-machine-XXXXXX", path[128];
	struct stave_err err;
	struct stave_machine m = plain(), *read = calloc(1, sizeof *read);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/deep/er/machine.json", dir);
	add(&m, "matmul", STAVE_WGRAD, STAVE_BF16, 3072, 768, 1024, 712345678901.25);
	add(&m, "adamw", STAVE_UPDATE, STAVE_F32, 1 << 24, 1, 1, 1.0 / 3 * 1e11);
	assert_int_equal(stave_machine_save(&m, path, &err), 0);
	assert_int_equal(stave_machine_load(read, path, &err), 0);
	assert_string_equal(read->cpu, m.cpu);
	assert_string_equal(read->level, m.level);
	assert_int_equal(read->threads, m.threads);
	assert_int_equal(read->memory_bytes, m.memory_bytes);
	assert_true(read->peak_bf16 == m.peak_bf16 && read->peak_i8 == 0 && read->call_s == m.call_s && read->copy_bytes_s == m.copy_bytes_s);
	assert_int_equal(read->n_rates, 2);
	assert_memory_equal(read->rates, m.rates, 2 * sizeof m.rates[0]);
	setenv("STAVE_MACHINE", path, 1); /* the default path */
	memset(read, 0, sizeof *read);
	assert_int_equal(stave_machine_load(read, NULL, &err), 0);
	assert_int_equal(read->n_rates, 2);
	unsetenv("STAVE_MACHINE");
	free(read);
	assert_int_equal(stave_remove_tree(dir, &err), 0);
}

static void an_absent_profile_is_an_error(void **state)
{
	struct stave_err err;
	struct stave_machine m = plain();
	assert_int_not_equal(stave_machine_load(&m, "/nonexistent/machine.json", &err), 0);
	assert_non_null(strstr(err.msg, "/nonexistent/machine.json"));
	assert_int_equal(m.threads, 2);
}

/* A good document with one field replaced must be refused with that field's name, and leave the output alone. */
static void spoilt_profiles_are_refused(void **state)
{
	static const struct {
		const char *key, *value, *word;
	} cases[] = {
		{"stave_machine", "2", "stave_machine"}, {"stave_machine", "\"1\"", "stave_machine"}, {"cpu", "7", "cpu"}, {"cpu", "\"\"", "cpu"},
		{"level", "\"0123456789012345678901234567890\"", "level"}, {"cores", "0", "cores"}, {"threads", "-1", "threads"},
		{"threads", "99999999999", "threads"}, {"memory_bytes", "1.5", "memory_bytes"}, {"peak_f32_flop_s", "0", "peak_f32_flop_s"},
		{"peak_f32_flop_s", "-1", "peak_f32_flop_s"}, {"peak_bf16_flop_s", "1e300", "peak_bf16_flop_s"},
		{"peak_bf16_flop_s", "1e-300", "peak_bf16_flop_s"}, {"copy_bytes_s", "\"fast\"", "copy_bytes_s"}, {"copy_bytes_s", "null", "copy_bytes_s"},
		{"call_s", "0", "call_s"}, {"rates", "{}", "rates"}, {"rates", "null", "rates"}, {"rates", "[1]", "rates[0]"}, {"rates", "[{}]", "rates[0]"},
		{"rates", "[{\"what\":\"matmul\",\"pass\":\"sideways\",\"dtype\":\"F32\",\"m\":1,\"n\":1,\"k\":1,\"per_s\":1}]", "sideways"},
		{"rates", "[{\"what\":\"matmul\",\"pass\":\"forward\",\"dtype\":\"F31\",\"m\":1,\"n\":1,\"k\":1,\"per_s\":1}]", "F31"},
		{"rates", "[{\"what\":\"matmul\",\"pass\":\"forward\",\"dtype\":\"F32\",\"m\":0,\"n\":1,\"k\":1,\"per_s\":1}]", "\"m\""},
		{"rates", "[{\"what\":\"matmul\",\"pass\":\"forward\",\"dtype\":\"F32\",\"m\":1,\"n\":1,\"k\":1,\"per_s\":0}]", "per_s"},
		{"rates", "[{\"what\":\"a name that is much too long for it\",\"pass\":\"forward\",\"dtype\":\"F32\",\"m\":1,\"n\":1,\"k\":1,\"per_s\":1}]", "what"},
	};
	struct stave_machine good = plain(), out = plain();
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct stave_err err = {0};
		json_t *o = stave_machine_json(&good);
		json_object_set_new(o, cases[i].key, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
		char *text = json_dumps(o, 0);
		out.threads = 77;
		assert_int_equal(stave_machine_parse(&out, text, strlen(text), "profile", &err), STAVE_ECORRUPT);
		if (!strstr(err.msg, cases[i].word))
			fail_msg("%s = %s: message \"%s\" does not name \"%s\"", cases[i].key, cases[i].value, err.msg, cases[i].word);
		assert_int_equal(out.threads, 77);
		free(text);
		json_decref(o);
	}
}

static void too_many_samples_are_refused(void **state)
{
	struct stave_machine *m = calloc(1, sizeof *m);
	struct stave_err err;
	*m = plain();
	for (int i = 0; i < STAVE_RATES_MAX; i++)
		add(m, "matmul", STAVE_FORWARD, STAVE_F32, i + 1, 1, 1, 1e9);
	json_t *o = stave_machine_json(m);
	char *text = json_dumps(o, 0);
	assert_int_equal(stave_machine_parse(m, text, strlen(text), "profile", &err), 0);
	free(text);
	json_array_append(json_object_get(o, "rates"), json_array_get(json_object_get(o, "rates"), 0));
	text = json_dumps(o, 0);
	assert_int_equal(stave_machine_parse(m, text, strlen(text), "profile", &err), STAVE_ECORRUPT);
	/* and no prefix of a profile is one */
	for (size_t n = 0; n < strlen(text); n += 97)
		assert_int_equal(stave_machine_parse(m, text, n, "profile", &err), STAVE_ECORRUPT);
	free(text);
	json_decref(o);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sample_is_its_own_forecast),         cmocka_unit_test(without_samples_the_limits_decide),
		cmocka_unit_test(an_odd_head_leaves_a_thread_idle),     cmocka_unit_test(a_forecast_is_the_sum_of_its_classes),
		cmocka_unit_test(the_shortest_stave_is_named),          cmocka_unit_test(more_never_slows),
		cmocka_unit_test(a_profile_survives_a_round_trip),      cmocka_unit_test(an_absent_profile_is_an_error),
		cmocka_unit_test(spoilt_profiles_are_refused),          cmocka_unit_test(too_many_samples_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
