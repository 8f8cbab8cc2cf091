/* Serving: invariants of one iteration and of the simulation, choices that keep their limits, the recovery of known constants, and, where the table of
 * measured runs is at hand, the errors that the planner promises. */
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

#include "plan/serve/serve_parts.h"
#include "plan/truth/validate.h"

static struct plan_catalog *catalog;

static int open_catalog(void **state) { return plan_catalog_open(&catalog, NULL, NULL); }
static int close_catalog(void **state)
{
	plan_catalog_close(catalog);
	return 0;
}

static const struct stave_shape llama8 = {.family = STAVE_LLAMA, .L = 32, .C = 4096, .H = 32, .K = 8, .D = 128, .I = 14336, .V = 128256, .T_max = 8192,
                                          .act = STAVE_SWIGLU, .norm_eps = 1e-5f, .rope_theta = 500000};
static const struct stave_shape llama70 = {.family = STAVE_LLAMA, .L = 80, .C = 8192, .H = 64, .K = 8, .D = 128, .I = 28672, .V = 128256, .T_max = 8192,
                                           .act = STAVE_SWIGLU, .norm_eps = 1e-5f, .rope_theta = 500000};

/* A replica on an accelerator of the catalog; its fit is the caller's to free. */
static struct plan_replica replica(struct stave_shape shape, const char *accelerator, const char *engine, int tp, struct plan_serve_fit **fit)
{
	const struct plan_accelerator *a = plan_accelerator_find(catalog, accelerator);
	struct stave_err err = {0};
	assert_non_null(a);
	if (plan_serve_fit_open(fit, catalog, a, engine, &err) < 0)
		fail_msg("%s", err.msg);
	return (struct plan_replica){.shape = shape, .weights = PLAN_BF16, .kv = PLAN_BF16, .tp = tp, .pp = 1, .ep = 1, .accelerator = a, .fit = *fit};
}

static uint64_t seed = 1;
static double uniform(double low, double high)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return low + (high - low) * (double)(seed >> 11) * 0x1p-53;
}
static int whole(int low, int high) { return (int)uniform(low, high + 0.999); }

/* A valid shape of any size, dense or of experts. */
static struct stave_shape random_shape(void)
{
	struct stave_shape s = llama8;
	s.L = whole(1, 128);
	s.K = 1 << whole(0, 4);
	s.H = s.K * whole(1, 8);
	s.D = 32 << whole(0, 3);
	s.C = 64 * whole(1, 256);
	s.I = 64 * whole(1, 800);
	s.V = whole(100, 200000);
	if (whole(0, 2) == 0) {
		s.family = STAVE_QWEN3_MOE;
		s.experts = whole(2, 256);
		s.experts_used = whole(1, s.experts < 8 ? s.experts : 8);
	}
	if (whole(0, 3) == 0) {
		s.window = whole(16, 4096);
		s.window_pattern = whole(0, 6);
	}
	return s;
}

static void the_cache_of_a_known_model(void **state)
{
	struct plan_serve_fit *f;
	struct plan_serve_memory m;
	struct plan_replica r = replica(llama8, "h100-sxm", "vllm", 1, &f);
	plan_serve_memory(&r, &m);
	assert_float_equal(m.kv_bytes_per_token, 128 * 1024, 0);
	assert_true(fabs(m.weights_bytes / 16.06e9 - 1) < 0.01);
	/* 0.9 of 85.5 GB less weights and activations: about 59 GB, 450 thousand tokens */
	assert_true(m.kv_tokens > 400e3 && m.kv_tokens < 480e3);
	r.latent = 576; /* DeepSeek-V3: 70,272 B over 61 layers */
	r.shape.L = 61;
	plan_serve_memory(&r, &m);
	assert_float_equal(m.kv_bytes_per_token, 70272, 0);
	plan_serve_fit_free(f);
}

/* Whatever the model, machine and load: times finite and above zero, parts add up. */
static void iterations_are_finite(void **state)
{
	for (int i = 0; i < 3000; i++) {
		struct plan_serve_fit *f;
		struct plan_replica r = replica(random_shape(), catalog->accelerator[whole(0, catalog->accelerators - 1)].name, "", 1 << whole(0, 3), &f);
		r.weights = (enum plan_precision)whole(0, PLAN_PRECISIONS - 1);
		r.kv = (enum plan_precision)whole(0, PLAN_PRECISIONS - 1);
		r.pp = whole(1, 4);
		r.ep = 1 << whole(0, 5);
		assert_int_equal(stave_shape_check(&r.shape, NULL), 0);
		struct plan_serve_memory m;
		plan_serve_memory(&r, &m);
		assert_true(isfinite(m.weights_bytes) && m.weights_bytes > 0 && isfinite(m.kv_tokens) && m.kv_tokens >= 0);
		double t = plan_iteration_s(&r, whole(0, 4096), uniform(1, 1e6), whole(0, 65536), uniform(0, 1e6));
		assert_true(isfinite(t) && t > 0);
		assert_true(isfinite(plan_serve_transfer_s(&r, 1000)));
		plan_serve_fit_free(f);
	}
}

/* A fixed replica with more of any resource is never slower, and a larger batch never faster. */
static void more_never_slows_an_iteration(void **state)
{
	for (int i = 0; i < 2000; i++) {
		struct plan_serve_fit *f;
		struct plan_replica r = replica(random_shape(), catalog->accelerator[whole(0, catalog->accelerators - 1)].name, "", 1 << whole(0, 3), &f);
		r.weights = (enum plan_precision)whole(0, PLAN_PRECISIONS - 1);
		r.ep = 1 << whole(0, 4);
		int decode = whole(0, 512), prefill = whole(0, 8192);
		double context = uniform(1, 1e5), before = plan_iteration_s(&r, decode, context, prefill, 100);
		struct plan_accelerator better = *r.accelerator;
		better.memory_bytes_s *= uniform(1, 3);
		better.link_bytes_s *= uniform(1, 3);
		better.host_bytes_s *= uniform(1, 3);
		better.memory_bytes *= uniform(1, 3);
		for (int p = 0; p < PLAN_PRECISIONS; p++)
			better.peak[p] *= 1.5;
		assert_true(plan_iteration_s(&r, decode + 1, context, prefill, 100) >= before * (1 - 1e-9));
		assert_true(plan_iteration_s(&r, decode, context, prefill + 1, 100) >= before * (1 - 1e-9));
		r.accelerator = &better;
		assert_true(plan_iteration_s(&r, decode, context, prefill, 100) <= before * (1 + 1e-9));
		plan_serve_fit_free(f);
	}
}

static void check_service(const struct plan_service *s)
{
	const double v[] = {s->ttft_p50_s, s->ttft_p90_s, s->ttft_p99_s, s->ttft_mean_s, s->tpot_p50_s, s->tpot_p90_s, s->tpot_p99_s, s->tpot_mean_s, s->output_tokens_s,
	                    s->total_tokens_s, s->requests_s, s->batch_mean, s->kv_used_share, s->busy_share};
	for (size_t i = 0; i < sizeof v / sizeof *v; i++)
		assert_true(isfinite(v[i]) && v[i] >= 0);
	assert_true(s->ttft_p50_s <= s->ttft_p90_s && s->ttft_p90_s <= s->ttft_p99_s);
	assert_true(s->tpot_p50_s <= s->tpot_p90_s && s->tpot_p90_s <= s->tpot_p99_s);
	assert_float_equal(s->weights_s + s->kv_s + s->flops_s + s->launch_s + s->comm_s, 1, 1e-9);
	assert_true(s->busy_share <= 1 && s->kv_used_share <= 1.02);
}

/* Any load ends with finite figures, the same for the same seed. */
static void simulations_are_finite_and_repeat(void **state)
{
	static const char *const engines[] = {"vllm", "trtllm", "sglang", "llama.cpp", "something else"};
	for (int i = 0; i < 150; i++) {
		struct plan_serve_fit *f;
		struct plan_replica r = replica(llama8, i % 2 ? "h100-sxm" : "a100-sxm-80gb", engines[i % 5], 1 << whole(0, 2), &f);
		struct plan_load l = {.input = whole(1, 4000), .output = whole(1, 1000), .spread = uniform(0, 1.5), .prefix_hit = uniform(0, 1), .requests = whole(1, 400), .seed = (unsigned long)i};
		if (i % 3 == 0)
			l.rate_s = uniform(0.01, 100);
		if (i % 3 == 1)
			l.concurrency = whole(1, 300);
		r.memory_share = uniform(0.3, 0.9);
		r.max_batch = i % 4 ? 0 : whole(1, 64);
		r.chunk = i % 7 ? 0 : whole(1, 512);
		struct plan_service a, b;
		struct stave_err err = {0};
		int rc = plan_serve_simulate(&r, &l, &a, &err);
		if (rc < 0) {
			assert_int_equal(rc, STAVE_ENOFIT);
			plan_serve_fit_free(f);
			continue;
		}
		check_service(&a);
		assert_int_equal(plan_serve_simulate(&r, &l, &b, NULL), 0);
		assert_memory_equal(&a, &b, sizeof a);
		plan_serve_fit_free(f);
	}
}

/* With a small cache requests are preempted, and still each finishes once: all tokens come out. */
static void every_request_finishes_once(void **state)
{
	struct plan_serve_fit *f;
	struct plan_replica r = replica(llama8, "rtx-4090", "vllm", 1, &f);
	struct plan_load l = {.input = 300, .output = 500, .requests = 500, .seed = 3, .from_start = true};
	struct plan_service s;
	assert_int_equal(plan_serve_simulate(&r, &l, &s, NULL), 0);
	check_service(&s);
	assert_true(s.preemptions > 0);
	double seconds = 500 / s.requests_s;
	assert_float_equal(s.output_tokens_s * seconds, 500 * 500, 1e-3);
	assert_float_equal(s.total_tokens_s * seconds, 500 * 800, 1e-3);
	plan_serve_fit_free(f);
}

/* Little's law: clients in the system are its rate times their time in it. */
static void littles_law_holds(void **state)
{
	struct plan_serve_fit *f;
	struct plan_replica r = replica(llama8, "h100-sxm", "vllm", 1, &f);
	for (int clients = 4; clients <= 256; clients *= 4) {
		struct plan_load l = {.concurrency = clients, .input = 800, .output = 200, .spread = 0.5, .requests = 40 * clients, .seed = 5};
		struct plan_service s;
		assert_int_equal(plan_serve_simulate(&r, &l, &s, NULL), 0);
		double inside = s.output_tokens_s / 200 * (s.ttft_mean_s + 199 * s.tpot_mean_s);
		assert_true(fabs(inside / clients - 1) < 0.08);
	}
	plan_serve_fit_free(f);
}

static void a_growing_queue_is_said_to_grow(void **state)
{
	struct plan_serve_fit *f;
	struct plan_replica r = replica(llama8, "h100-sxm", "vllm", 1, &f);
	struct plan_load l = {.rate_s = 1, .input = 1000, .output = 200, .seed = 1};
	struct plan_service s, slow;
	assert_int_equal(plan_serve_simulate(&r, &l, &slow, NULL), 0);
	assert_false(slow.saturated);
	assert_true(fabs(slow.requests_s - 1) < 0.1);
	l.rate_s = 1000;
	assert_int_equal(plan_serve_simulate(&r, &l, &s, NULL), 0);
	assert_true(s.saturated);
	assert_true(s.ttft_p50_s > 10 * slow.ttft_p50_s);
	/* a prompt that is already in the cache costs next to nothing */
	l.rate_s = 1;
	l.prefix_hit = 0.9;
	assert_int_equal(plan_serve_simulate(&r, &l, &s, NULL), 0);
	assert_true(s.ttft_p50_s < slow.ttft_p50_s);
	plan_serve_fit_free(f);
}

static void what_does_not_fit_is_refused(void **state)
{
	struct plan_serve_fit *f;
	struct plan_replica r = replica(llama70, "h100-sxm", "vllm", 1, &f);
	struct plan_load l = {.input = 1000, .output = 100};
	struct plan_service s;
	struct stave_err err = {0};
	assert_int_equal(plan_serve_simulate(&r, &l, &s, &err), STAVE_ENOFIT);
	assert_non_null(strstr(err.msg, "weights take"));
	r.shape = llama8;
	l.input = 1e7;
	assert_int_equal(plan_serve_simulate(&r, &l, &s, &err), STAVE_ENOFIT);
	assert_non_null(strstr(err.msg, "one request"));
	l.input = -1;
	assert_int_equal(plan_serve_simulate(&r, &l, &s, &err), STAVE_ECONFIG);
	l.input = NAN;
	assert_int_equal(plan_serve_simulate(&r, &l, &s, &err), STAVE_ECONFIG);
	plan_serve_fit_free(f);
}

/* ---- fleets ---- */

static void day(double hourly[24], double low, double high)
{
	for (int i = 0; i < 24; i++)
		hourly[i] = low + (high - low) * (0.5 - 0.5 * cos(2 * M_PI * i / 24));
}

static void a_choice_keeps_its_limits(void **state)
{
	static const char *const accelerators[] = {"h100-sxm", "a100-sxm-80gb", "mi300x", "l40s", "rtx-4090"};
	double hourly[24];
	day(hourly, 2, 40);
	for (int i = 0; i < 5; i++) {
		struct plan_serve_fit *f;
		struct plan_replica r = replica(llama8, accelerators[i], "vllm", 0, &f);
		struct plan_load l = {.input = 1000, .output = 200, .spread = 0.5, .seed = 1};
		struct plan_slo slo = {2, 0.1};
		struct plan_serve_choice c;
		struct stave_err err = {0};
		if (plan_serve_choose(&r, &l, hourly, &slo, 120, &c, &err) < 0)
			fail_msg("%s", err.msg);
		assert_true(c.at_capacity.ttft_p99_s <= slo.ttft_p99_s && c.at_capacity.tpot_p99_s <= slo.tpot_p99_s && !c.at_capacity.saturated);
		assert_true(c.capacity_s > 0 && c.replicas_peak * c.capacity_s >= 40 * (1 - 1e-6));
		assert_true(c.replicas_mean > 0 && c.replicas_mean <= c.replicas_peak);
		assert_true(c.replica.tp >= 1 && c.replica.pp >= 1);
		/* the capacity is a rate that can be simulated again */
		struct plan_service s;
		l.rate_s = c.capacity_s;
		l.requests = 2000;
		assert_int_equal(plan_serve_simulate(&c.replica, &l, &s, NULL), 0);
		assert_float_equal(s.ttft_p99_s, c.at_capacity.ttft_p99_s, 1e-12);
		plan_serve_fit_free(f);
	}
}

static void what_binds_is_named(void **state)
{
	double hourly[24];
	day(hourly, 1, 1);
	struct plan_serve_fit *f;
	struct plan_replica r = replica(llama70, "h100-sxm", "vllm", 0, &f);
	struct plan_load l = {.input = 4000, .output = 200, .seed = 1};
	struct plan_serve_choice c;
	struct stave_err err = {0};
	assert_int_equal(plan_serve_choose(&r, &l, hourly, &(struct plan_slo){0, 1e-4}, 0, &c, &err), STAVE_ENOFIT);
	assert_non_null(strstr(err.msg, "time per output token"));
	assert_int_equal(plan_serve_choose(&r, &l, hourly, &(struct plan_slo){1e-3, 0}, 0, &c, &err), STAVE_ENOFIT);
	assert_non_null(strstr(err.msg, "time to first token"));
	r.tp = 1;
	r.pp = 1;
	assert_int_equal(plan_serve_choose(&r, &l, hourly, &(struct plan_slo){0, 0}, 0, &c, &err), STAVE_ENOFIT);
	assert_non_null(strstr(err.msg, "memory"));
	r.tp = r.pp = 0;
	assert_int_equal(plan_serve_choose(&r, &l, hourly, &(struct plan_slo){0, 0}, 0, &c, &err), 0);
	assert_true(c.replica.tp >= 2);
	plan_serve_fit_free(f);
}

/* ---- fits ---- */

/* Rows made with known constants give them back. */
static void known_constants_are_recovered(void **state)
{
	struct plan_serve_fit *f;
	struct plan_replica r = replica(llama8, "h100-sxm", "vllm", 1, &f);
	char path[] = "/tmp/stave-serve-XXXXXX";
	FILE *to = fdopen(mkstemp(path), "w");
	assert_non_null(to);
	const double weights = f->k[PLAN_SERVE_WEIGHTS] * 0.75, iteration = f->k[PLAN_SERVE_ITERATION] * 2;
	f->k[PLAN_SERVE_WEIGHTS] = weights;
	f->k[PLAN_SERVE_ITERATION] = iteration;
	fputc('[', to);
	for (int i = 0; i < 60; i++) {
		int clients = 1 << (i % 6), input = 128 << (i % 5), output = 64 << (i % 3);
		struct plan_service s;
		struct plan_load l = {.concurrency = clients, .input = input, .output = output, .requests = 10 * clients, .seed = 1, .from_start = true};
		r.tp = 1 << (i % 4);
		r.shape = i % 2 && r.tp > 2 ? llama70 : llama8;
		assert_int_equal(plan_serve_simulate(&r, &l, &s, NULL), 0);
		fprintf(to, "%s{\"kind\":\"infer\",\"model\":{\"name\":\"Llama\",\"params\":%lld,\"layers\":%d,\"hidden\":%d,\"ffn\":%d,\"heads\":%d,\"kv_heads\":8,\"vocab\":128256},"
		        "\"hardware\":{\"gpu\":\"H100-SXM\",\"gpus\":%d},\"parallel\":{\"tp\":%d,\"precision\":\"bf16\"},\"workload\":{\"isl\":%d,\"osl\":%d,\"concurrency\":%d,\"engine\":\"vllm\"},"
		        "\"measured\":{\"ttft_ms\":%.9g,\"tpot_ms\":%.9g}}\n", i ? "," : "", (long long)stave_shape_params(&r.shape), r.shape.L, r.shape.C, r.shape.I, r.shape.H, r.tp, r.tp, input,
		        output, clients, 1e3 * s.ttft_mean_s, 1e3 * s.tpot_mean_s);
	}
	fputc(']', to);
	fclose(to);
	struct plan_truths t;
	struct plan_serve_calibration k;
	struct stave_err err = {0};
	assert_int_equal(plan_truths_load(&t, catalog, path, NULL), 0);
	unlink(path);
	if (plan_serve_calibrate(&t, catalog, "h100-sxm", "vllm", &k, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(k.rows, 60);
	assert_int_equal(k.models, 2);
	assert_true(k.tpot.mean < 0.02 && k.ttft.mean < 0.08);
	assert_true(fabs(k.fit.k[PLAN_SERVE_WEIGHTS] / weights - 1) < 0.05);
	assert_true(fabs(k.fit.k[PLAN_SERVE_ITERATION] / iteration - 1) < 0.25);
	assert_int_equal(plan_serve_calibrate(&t, catalog, "h100-sxm", "sglang", &k, &err), STAVE_ECONFIG);
	assert_int_equal(plan_serve_calibrate(&t, catalog, "no such thing", "vllm", &k, &err), STAVE_ECONFIG);
	plan_truths_free(&t);
	plan_serve_fit_free(f);
}

/* A fit that is written is one that can be read. */
static void a_written_fit_is_read_back(void **state)
{
	struct plan_serve_calibration k = {.ttft = {3, 0.1, 0.1, 0.2, 0.2, 0.4}, .tpot = {3, 0.05, 0.04, 0.1, 0.07, 0.2}, .rows = 3, .models = 1};
	struct plan_serve_fit *f, *back;
	const struct plan_accelerator *a = plan_accelerator_find(catalog, "mi300x");
	replica(llama8, "mi300x", "vllm", 1, &f);
	k.fit = *f;
	k.fit.k[PLAN_SERVE_WEIGHTS] = 0.512;
	snprintf(k.fit.accelerator, sizeof k.fit.accelerator, "%s", a->name);
	char *text, *all;
	size_t n, m;
	FILE *to = open_memstream(&text, &n);
	plan_serve_calibration_write(&k, to);
	fclose(to);
	to = open_memstream(&all, &m);
	fprintf(to, "engines:\n  default: {chunk: 100, max-batch: 7, mixed: true, whole-prompts: false, reserve: 0 %%, memory: 80 %%, drift: 0 %%, narrow-cache: false}\nfits:\n%s"
	            "regimes:\n  other-engine:\n    tpot: {held-out-p50: 30 %%, held-out-p90: 60 %%}\n  other-accelerator:\n    tpot: {held-out-p50: 40 %%, held-out-p90: 80 %%}\n", text);
	fclose(to);
	struct plan_catalog own = *catalog;
	struct stave_err err = {0};
	if (stave_yaml_parse(&own.fits_serve, all, m, "written", &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(plan_serve_fit_open(&back, &own, a, "vllm", NULL), 0);
	assert_float_equal(back->k[PLAN_SERVE_WEIGHTS], 0.512, 1e-9);
	assert_float_equal(back->tpot.p90, 0.2, 1e-9);
	assert_int_equal(back->engine.max_batch, 7);
	plan_serve_fit_free(back);
	/* elsewhere the same constants, under the wider bars */
	assert_int_equal(plan_serve_fit_open(&back, &own, plan_accelerator_find(catalog, "h100-sxm"), "vllm", NULL), 0);
	assert_float_equal(back->tpot.p50, 0.4, 1e-9);
	plan_serve_fit_free(back);
	stave_yaml_free(own.fits_serve);
	plan_serve_fit_free(f);
	free(text);
	free(all);
}

/* So is a whole file, in which the other fits are as they were. */
static void a_saved_file_is_a_catalogs(void **state)
{
	struct plan_serve_calibration k = {.tpot = {3, 0.05, 0.04, 0.1, 0.07, 0.2}, .rows = 3, .models = 1};
	struct plan_serve_fit *f, *other, *back;
	replica(llama8, "h100-sxm", "vllm", 1, &f);
	replica(llama8, "h100-sxm", "sglang", 1, &other);
	k.fit = *f;
	k.fit.k[PLAN_SERVE_KERNEL] = 9e-6;
	char *text;
	size_t n;
	FILE *to = open_memstream(&text, &n);
	plan_serve_calibration_save(&k, catalog, to);
	fclose(to);
	struct plan_catalog own = *catalog;
	struct stave_err err = {0};
	if (stave_yaml_parse(&own.fits_serve, text, n, "saved", &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(plan_serve_fit_open(&back, &own, plan_accelerator_find(catalog, "h100-sxm"), "vllm", NULL), 0);
	assert_float_equal(back->k[PLAN_SERVE_KERNEL], 9e-6, 1e-12);
	assert_memory_equal(&back->engine, &f->engine, sizeof f->engine);
	plan_serve_fit_free(back);
	assert_int_equal(plan_serve_fit_open(&back, &own, plan_accelerator_find(catalog, "h100-sxm"), "sglang", NULL), 0);
	assert_memory_equal(back, other, sizeof *back);
	plan_serve_fit_free(back);
	stave_yaml_free(own.fits_serve);
	plan_serve_fit_free(f);
	plan_serve_fit_free(other);
	free(text);
}

/* Every accelerator of the catalog serves something under any engine's name. */
static void every_accelerator_has_constants(void **state)
{
	static const char *const engines[] = {"", "vllm", "TensorRT-LLM 1.0", "sglang 0.5", "llama.cpp", "brand new"};
	for (int i = 0; i < catalog->accelerators; i++) {
		for (int e = 0; e < 6; e++) {
			struct plan_serve_fit *f;
			assert_int_equal(plan_serve_fit_open(&f, catalog, &catalog->accelerator[i], engines[e], NULL), 0);
			for (int k = 0; k < PLAN_SERVE_COUNT; k++)
				assert_true(f->k[k] >= plan_serve_constant_kinds[k].low && f->k[k] <= plan_serve_constant_kinds[k].high);
			assert_true(f->tpot.p50 > 0 && f->tpot.p90 >= f->tpot.p50 && f->ttft.p50 > 0 && f->ttft.p90 >= f->ttft.p50);
			plan_serve_fit_free(f);
		}
	}
}

/* ---- the promise ---- */

static void check_group(const struct plan_validation *v, const char *group, const char *metric, double most, int rows)
{
	for (int i = 0; i < v->groups; i++) {
		const struct plan_error_group *g = &v->group[i];
		if (strcmp(g->group, group) || strcmp(g->metric, metric))
			continue;
		print_message("%s %s: mean %.1f %%, median %.1f %%, p90 %.1f %%, n %d\n", group, metric, g->mean, g->median, g->p90, g->n);
		assert_int_equal(g->n, rows);
		assert_true(g->mean <= most);
		return;
	}
	fail_msg("no group %s %s", group, metric);
}

static void measured_runs_are_predicted(void **state)
{
	const char *shared = getenv("STAVE_SHARED");
	char path[4096];
	snprintf(path, sizeof path, "%s/truth/measured.json", shared ? shared : "");
	if (!shared || access(path, R_OK)) {
		print_message("skipped: needs $STAVE_SHARED with truth/measured.json\n");
		skip();
	}
	struct plan_validation v = {0};
	assert_int_equal(plan_truths_load(&v.truths, catalog, path, NULL), 0);
	assert_int_equal(plan_predict_serve(&v.truths, catalog, &v.predictions, NULL), 0);
	assert_int_equal(plan_validation_group(&v, NULL), 0);
	check_group(&v, "aic-silicon", "tpot", 10, 118);
	check_group(&v, "aic-silicon", "ttft", 25, 118);
	check_group(&v, "trtllm-perf-v1", "throughput", 12, 37);
	check_group(&v, "trtllm-perf-v1x", "throughput", 12, 29);
	plan_validation_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_cache_of_a_known_model),
		cmocka_unit_test(iterations_are_finite),
		cmocka_unit_test(more_never_slows_an_iteration),
		cmocka_unit_test(simulations_are_finite_and_repeat),
		cmocka_unit_test(every_request_finishes_once),
		cmocka_unit_test(littles_law_holds),
		cmocka_unit_test(a_growing_queue_is_said_to_grow),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(a_choice_keeps_its_limits),
		cmocka_unit_test(what_binds_is_named),
		cmocka_unit_test(known_constants_are_recovered),
		cmocka_unit_test(a_written_fit_is_read_back),
		cmocka_unit_test(a_saved_file_is_a_catalogs),
		cmocka_unit_test(every_accelerator_has_constants),
		cmocka_unit_test(measured_runs_are_predicted),
	};
	return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
