/* Tables of measured runs: odd words, missing and hostile fields, and the summary of errors. */
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

#include "plan/truth/truth_words.h"
#include "plan/truth/validate.h"

static struct plan_catalog *catalog;

static int open_catalog(void **state) { return plan_catalog_open(&catalog, NULL, NULL); }
static int close_catalog(void **state)
{
	plan_catalog_close(catalog);
	return 0;
}

/* Loads a table written as text. */
static int load(struct plan_truths *t, const char *text, struct stave_err *err)
{
	char path[] = "/tmp/stave-truth-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	int rc = plan_truths_load(t, catalog, path, err);
	unlink(path);
	return rc;
}

static void words_of_precision(void **state)
{
	assert_int_equal(plan_words_precision("fp16 mixed"), PLAN_BF16);
	assert_int_equal(plan_words_precision("amp_bf16"), PLAN_BF16);
	assert_int_equal(plan_words_precision("bf16 (blank in csv)"), PLAN_BF16);
	assert_int_equal(plan_words_precision(NULL), PLAN_BF16);
	assert_int_equal(plan_words_precision("compile float8"), PLAN_FP8);
	assert_int_equal(plan_words_precision("NVFP4"), PLAN_FP4);
	assert_int_equal(plan_words_precision("q4_0 (3.56 GiB)"), PLAN_I4);
	assert_int_equal(plan_words_precision("fp32"), PLAN_F32);
}

static void words_of_recompute(void **state)
{
	bool seq = false;
	assert_int_equal(plan_words_recompute(NULL, &seq), -1);
	assert_int_equal(plan_words_recompute("none", &seq), 0);
	assert_int_equal(plan_words_recompute("yes", &seq), 2);
	assert_int_equal(plan_words_recompute("selective (per-op)", &seq), 1);
	assert_false(seq);
	assert_int_equal(plan_words_recompute("selective+seqpar", &seq), 1);
	assert_true(seq);
}

static void words_of_links(void **state)
{
	assert_float_equal(plan_words_nic("8x200Gb/s HDR InfiniBand per node, fat-tree (Selene)", 8), 200e9, 1);
	assert_float_equal(plan_words_nic("1600 Gb/s RoCE per node", 8), 200e9, 1);
	assert_float_equal(plan_words_nic("400 Gb/s RDMA per GPU", 8), 400e9, 1);
	assert_float_equal(plan_words_nic("400 Gb/s RDMA per GPU", 0), 400e9, 1);
	assert_float_equal(plan_words_nic("4x Omni-Path 100 Gb/s per node", 4), 50e9, 1);
	assert_float_equal(plan_words_nic("RDMA (custom Clos, details in paper)", 8), 0, 0);
	assert_float_equal(plan_words_nic("Gb/s", 8), 0, 0);
	assert_float_equal(plan_words_nic(NULL, 8), 0, 0);
}

static void words_of_layouts_and_experts(void **state)
{
	int a, b, c;
	plan_words_layout("DEP8", &a, &b, &c);
	assert_int_equal(a, 1);
	assert_int_equal(c, 8);
	plan_words_layout("TP4-PP2", &a, &b, &c);
	assert_int_equal(a, 4);
	assert_int_equal(b, 2);
	assert_int_equal(c, 0);
	plan_words_moe("256 routed experts, top-8, expert ffn 2048, 37B active", &a, &b, &c);
	assert_int_equal(a, 256);
	assert_int_equal(b, 8);
	assert_int_equal(c, 2048);
	plan_words_moe("some experts", &a, &b, &c);
	assert_int_equal(a, 0);
}

static void stacks(void **state)
{
	const char *const titan[] = {"torchtitan", "pytorch/torchtitan benchmarks"}, *const sc21[] = {"megatron-sc21"}, *const none[] = {"", NULL};
	assert_string_equal(plan_words_stack("TensorRT-LLM", NULL, 0), "trtllm");
	assert_string_equal(plan_words_stack("vllm version blank", titan, 2), "vllm");
	assert_string_equal(plan_words_stack("an engine of ours", titan, 2), "");
	assert_string_equal(plan_words_stack(NULL, titan, 2), "torchtitan");
	assert_string_equal(plan_words_stack(NULL, sc21, 1), "megatron");
	assert_string_equal(plan_words_stack(NULL, none, 2), "");
}

static void the_words_of_a_row_change_its_data_sheet(void **state)
{
	struct plan_truths t;
	assert_int_equal(load(&t, "[{\"kind\":\"train\",\"hardware\":{\"gpu\":\"H100 96GB HBM2e 2.4TB/s, 500W cap\"}},{\"hardware\":{\"gpu\":\"H100-SXM-80GB 700W\"}}]", NULL), 0);
	assert_non_null(t.row[0].accelerator);
	assert_float_equal(t.row[0].variant.memory_bytes_s, 2.4e12, 1);
	assert_float_equal(t.row[0].variant.tdp_w, 500, 0);
	assert_float_equal(t.row[0].variant.memory_bytes, 96e9, 1);
	/* the same memory in other units stays the catalog's */
	assert_float_equal(t.row[1].variant.memory_bytes, t.row[1].accelerator->memory_bytes, 0);
	plan_truths_free(&t);
}

/* Gated or plain, tied or not: from the count of parameters, or the name. */
static void shapes_are_completed(void **state)
{
	struct plan_truths t;
	assert_int_equal(load(&t,
	                      "[{\"model\":{\"name\":\"a 7B\",\"params\":6738415616,\"layers\":32,\"hidden\":4096,\"ffn\":11008,\"heads\":32,\"vocab\":32000}},"
	                      "{\"model\":{\"name\":\"GPT-2\",\"params\":124000000,\"layers\":12,\"hidden\":768,\"ffn\":3072,\"heads\":12,\"vocab\":50257,\"seq\":1024}},"
	                      "{\"model\":{\"name\":\"Qwen3-32B\",\"params\":null,\"layers\":64,\"hidden\":5120,\"ffn\":25600,\"heads\":64,\"kv_heads\":8,\"vocab\":151936}},"
	                      "{\"model\":{\"name\":\"DeepSeek-R1-0528\",\"params\":671e9,\"layers\":61,\"hidden\":7168,\"ffn\":18432,\"heads\":128,\"vocab\":129280,\"moe\":\"256 experts top-8, expert ffn 2048\"}},"
	                      "{\"model\":{\"name\":\"half\",\"layers\":12,\"hidden\":768}}]",
	                      NULL), 0);
	assert_true(t.row[0].has_shape);
	assert_int_equal(t.row[0].shape.act, STAVE_SWIGLU);
	assert_false(t.row[0].shape.tied);
	assert_int_equal(stave_shape_params(&t.row[0].shape), 6738415616);
	assert_int_equal(t.row[1].shape.act, STAVE_GELU_TANH);
	assert_true(t.row[1].shape.tied);
	assert_int_equal(t.row[1].shape.T_max, 1024);
	assert_int_equal(t.row[2].shape.D, 128);
	assert_true(fabs((double)stave_shape_params(&t.row[2].shape) / 32.76e9 - 1) < 0.01);
	assert_int_equal(t.row[3].latent, 576);
	assert_int_equal(t.row[3].shape.I, 2048);
	assert_true(fabs((double)stave_shape_params(&t.row[3].shape) / 671e9 - 1) < 0.06);
	assert_false(t.row[4].has_shape);
	plan_truths_free(&t);
}

/* Whatever a row holds, it is read, and what is absurd counts as not said. */
static void strange_rows_do_no_harm(void **state)
{
	struct plan_truths t;
	assert_int_equal(load(&t,
	                      "[null, 7, \"row\", [], {}, {\"kind\":3,\"model\":[],\"hardware\":\"x\",\"parallel\":7,\"measured\":[1],\"workload\":null},"
	                      "{\"kind\":\"infer\",\"group\":\"g\",\"model\":{\"name\":null,\"params\":-1,\"layers\":1e300,\"hidden\":-5,\"ffn\":0.5,\"heads\":99999999999,\"kv_heads\":3,"
	                      "\"vocab\":true,\"seq\":\"long\",\"moe\":{\"experts\":-1,\"top_k\":1e9}},\"hardware\":{\"gpu\":\"\",\"gpus\":1e300,\"inter_link\":\"x999999999999999Gb/s\"},"
	                      "\"parallel\":{\"tp\":0,\"pp\":-3,\"dp\":1.5,\"zero\":9,\"recompute\":[],\"precision\":12,\"layout\":\"DEP99999999999\"},"
	                      "\"measured\":{\"ttft_ms\":-1,\"tpot_ms\":\"fast\",\"x\":1e308},\"workload\":{\"isl\":1e18,\"osl\":-1,\"concurrency\":0}},"
	                      "{\"kind\":\"infer\",\"model\":{\"name\":\"m\",\"layers\":1024,\"hidden\":65536,\"ffn\":1048576,\"heads\":1024,\"kv_heads\":7,\"vocab\":4194304}}]",
	                      NULL), 0);
	assert_int_equal(t.n, 8);
	for (int i = 0; i < t.n; i++) {
		assert_false(t.row[i].has_shape);
		assert_true(t.row[i].tp >= 1 && t.row[i].pp >= 1 && t.row[i].zero == -1);
		assert_true(isnan(plan_truth_measured(&t.row[i], "tpot_ms")));
	}
	struct plan_predictions p = {0};
	assert_int_equal(plan_predict_serve(&t, catalog, &p, NULL), 0);
	for (int i = 0; i < p.n; i++)
		assert_non_null(p.p[i].skipped);
	free(p.p);
	plan_truths_free(&t);
}

static void malformed_documents_are_refused(void **state)
{
	static const char *const bad[] = {"", "{", "[1,", "{\"rows\":3}", "\"text\"", "{}", "[{\"a\":1,\"a\":2}]", "[1]x"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct plan_truths t;
		struct stave_err err = {0};
		assert_int_equal(load(&t, bad[i], &err), STAVE_ECORRUPT);
		assert_true(*err.msg);
	}
}

static void errors_are_summarised(void **state)
{
	double e[] = {10, -20, 30, -40, 0}, mean, median, p90, bias;
	plan_error_summary(e, 5, &mean, &median, &p90, &bias);
	assert_float_equal(mean, 20, 1e-9);
	assert_float_equal(median, 20, 1e-9);
	assert_float_equal(p90, 36, 1e-9);
	assert_float_equal(bias, -4, 1e-9);
	plan_error_summary(e, 0, &mean, &median, &p90, &bias);
	assert_float_equal(mean, 0, 0);
	struct plan_prediction p = {.measured = 2, .predicted = 3};
	assert_float_equal(plan_prediction_error(&p), 50, 1e-9);
	p.measured = 0;
	assert_true(isnan(plan_prediction_error(&p)));
}

/* Each row is in its group's n or among its skipped, with the reason. */
static void skipped_rows_are_counted(void **state)
{
	struct plan_validation v = {0};
	assert_int_equal(load(&v.truths, "[{\"id\":\"a\",\"group\":\"g\"},{\"id\":\"b\",\"group\":\"g\"},{\"id\":\"c\",\"group\":\"h\"}]", NULL), 0);
	const struct plan_prediction p[] = {{0, "tpot", 1, 1.1, NULL}, {1, "tpot", 1, 0, "no shape"}, {2, "tpot", 0, 1, NULL}};
	for (int i = 0; i < 3; i++)
		assert_int_equal(plan_predictions_add(&v.predictions, &p[i], NULL), 0);
	assert_int_equal(plan_validation_group(&v, NULL), 0);
	assert_int_equal(v.groups, 2);
	assert_int_equal(v.group[0].n, 1);
	assert_int_equal(v.group[0].skipped, 1);
	assert_float_equal(v.group[0].mean, 10, 1e-6);
	assert_int_equal(v.group[1].skipped, 1);
	json_t *j = plan_validation_json(&v);
	assert_int_equal(json_array_size(json_object_get(j, "groups")), 2);
	assert_int_equal(json_array_size(json_object_get(j, "rows")), 1);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(json_array_get(json_object_get(j, "groups"), 0), "skipped_reasons"), "no shape")), 1);
	json_decref(j);
	plan_validation_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_of_precision),
		cmocka_unit_test(words_of_recompute),
		cmocka_unit_test(words_of_links),
		cmocka_unit_test(words_of_layouts_and_experts),
		cmocka_unit_test(stacks),
		cmocka_unit_test(the_words_of_a_row_change_its_data_sheet),
		cmocka_unit_test(shapes_are_completed),
		cmocka_unit_test(strange_rows_do_no_harm),
		cmocka_unit_test(malformed_documents_are_refused),
		cmocka_unit_test(errors_are_summarised),
		cmocka_unit_test(skipped_rows_are_counted),
	};
	return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
