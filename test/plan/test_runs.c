/* Measured runs for calibration: directories of stave train and tables become rows of one kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "plan/truth/runs.h"

static char dir[] = "/tmp/stave-runs-XXXXXX";
static struct plan_catalog *catalog;

static const char *file(const char *name, const char *text)
{
	static char path[4096];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	return path;
}

static const char plan[] = "{\"parameters\": 124439808, \"shape\": {\"layers\": 12, \"channels\": 768, \"heads\": 12, \"kv_heads\": 12, \"ff\": 3072, \"vocab\": 50257, \"context\": 1024},"
                           "\"batch\": {\"rows\": 32, \"seq\": 1024, \"micro_batch\": 8, \"micro_batches\": 4, \"ranks\": 1}, \"dtype\": \"BF16\"}";

static void a_directory_is_a_row(void **state)
{
	struct plan_truths t;
	struct stave_err err = {0};
	const char *paths[] = {dir};
	file("plan.json", plan);
	file("receipt.json", "{\"seconds_per_step\": {\"step\": 2.5}}");
	if (plan_runs_load(&t, catalog, paths, 1, "epyc-9654", "stave", &err))
		fail_msg("%s", err.msg);
	assert_int_equal(t.n, 1);
	const struct plan_truth *r = &t.row[0];
	assert_true(r->has_shape && r->shape.L == 12 && r->shape.C == 768 && r->seq == 1024);
	assert_true(!stave_act_gated(r->shape.act)); /* two matrices, by the number of parameters */
	assert_true(r->gpus == 1 && r->dp == 1 && r->micro == 8 && r->global_batch == 32 && r->precision == PLAN_BF16);
	assert_string_equal(r->accelerator->name, "epyc-9654");
	assert_string_equal(r->stack, "stave");
	assert_true(plan_truth_measured(r, "step_time_s") == 2.5);
	plan_truths_free(&t);
}

static void directories_and_tables_together(void **state)
{
	struct plan_truths t;
	struct stave_err err = {0};
	file("plan.json", plan);
	file("receipt.json", "{\"seconds_per_step\": {\"step\": 2.5}}");
	const char *paths[] = {dir, file("table.json", "[{\"id\": \"x\", \"kind\": \"train\", \"group\": \"g\"}, {}]")};
	assert_int_equal(plan_runs_load(&t, catalog, paths, 2, "epyc-9654", "stave", &err), 0);
	assert_int_equal(t.n, 3);
	assert_string_not_equal(t.row[1].stack, "stave");
	plan_truths_free(&t);
}

static void what_is_no_run_is_refused(void **state)
{
	struct plan_truths t;
	struct stave_err err = {0};
	const char *paths[] = {dir};
	file("plan.json", plan);
	file("receipt.json", "{\"seconds_per_step\": {\"step\": null}}");
	assert_int_equal(plan_runs_load(&t, catalog, paths, 1, "epyc-9654", "stave", &err), STAVE_ECORRUPT);
	assert_non_null(strstr(err.msg, "finished a step"));
	file("receipt.json", "[]");
	assert_int_equal(plan_runs_load(&t, catalog, paths, 1, "epyc-9654", "stave", &err), STAVE_ECORRUPT);
	const char *table[] = {file("table.json", "{\"rows\": 5}")};
	assert_int_equal(plan_runs_load(&t, catalog, table, 1, "epyc-9654", "stave", &err), STAVE_ECORRUPT);
	unlink(file("receipt.json", ""));
	assert_true(plan_runs_load(&t, catalog, paths, 1, "epyc-9654", "stave", &err) < 0);
}

static int setup(void **state)
{
	struct stave_err err;
	return !mkdtemp(dir) || plan_catalog_open(&catalog, NULL, &err);
}
static int teardown(void **state)
{
	plan_catalog_close(catalog);
	return stave_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_directory_is_a_row), cmocka_unit_test(directories_and_tables_together), cmocka_unit_test(what_is_no_run_is_refused)};
	return cmocka_run_group_tests(tests, setup, teardown);
}
