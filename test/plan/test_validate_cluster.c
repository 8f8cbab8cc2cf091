/* Predictions of clusters' figures, on rows written here (published values), and on the whole measured table where it is present. */
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

#include "plan/truth/truth.h"
#include "plan/truth/validate.h"

static const char rows[] =
	"[{\"id\":\"aupy\",\"kind\":\"cluster\",\"group\":\"g1\",\"source\":\"Aupy et al. 2013 Table 2\",\"workload\":{\"mtbf_s\":7519,\"ckpt_s\":600,\"restart_s\":600,\"down_s\":60},"
	"\"measured\":{\"young_s\":3604,\"daly_s\":3733,\"rfo_s\":2869,\"exact_opt_s\":3218}},"
	"{\"id\":\"unet\",\"kind\":\"cluster\",\"group\":\"g2\",\"parallel\":{\"microbatch\":7},\"measured\":{\"step_time_s\":0.323,\"bytes_per_sample\":146600628,\"read_GBps_per_gpu\":3.1771}},"
	"{\"id\":\"rsc\",\"kind\":\"cluster\",\"group\":\"g3\",\"hardware\":{\"gpus\":16000,\"gpus_per_node\":8},\"measured\":{\"failures_per_1000_node_days\":6.5,"
	"\"mttf_1024gpu_h\":7.9,\"mttf_16384gpu_h_projected\":1.8,\"mttf_131072gpu_h_projected\":0.23}},"
	"{\"id\":\"meena\",\"kind\":\"power\",\"group\":\"g4\",\"hardware\":{\"gpus\":1024},\"measured\":{\"avg_system_power_per_chip_w\":289,\"pue\":1.09,\"days\":30,\"energy_mwh\":232}},"
	"{\"id\":\"node\",\"kind\":\"power\",\"group\":\"g5\",\"measured\":{\"node_power_w_max\":8400,\"node_power_w_rated\":10200}},"
	"{\"id\":\"ckpt\",\"kind\":\"cluster\",\"group\":\"g6\",\"model\":{\"params\":1008e9},\"measured\":{\"checkpoint_tb\":13.8}},"
	"{\"id\":\"llama\",\"kind\":\"cluster\",\"group\":\"g7\",\"source\":\"(arXiv:2407.21783)\",\"hardware\":{\"gpus\":16384,\"gpus_per_node\":8},"
	"\"measured\":{\"days\":54,\"interruptions_unexpected\":419,\"mtbf_unexpected_h\":3.093}},"
	"{\"id\":\"hpl\",\"kind\":\"cluster\",\"group\":\"g8\",\"measured\":{\"hpl_pflops\":561.2}},"
	"{\"id\":\"nothing\",\"kind\":\"cluster\",\"group\":\"g9\",\"measured\":null},"
	"{\"id\":\"absurd\",\"kind\":\"power\",\"group\":\"g9\",\"hardware\":{\"gpus\":-4},\"measured\":{\"pue\":\"x\",\"days\":-1,\"energy_mwh\":0,\"mttf_0gpu_h\":1,\"failures_per_1000_node_days\":1e300}},"
	"{\"id\":\"other\",\"kind\":\"train\",\"group\":\"g9\",\"measured\":{}}]";

static void predict(const char *path, const struct plan_catalog *c, struct plan_validation *v)
{
	struct stave_err err = {0};
	*v = (struct plan_validation){0};
	if (plan_truths_load(&v->truths, c, path, &err) < 0 || plan_predict_cluster(&v->truths, c, &v->predictions, &err) < 0 || plan_validation_group(v, &err) < 0)
		fail_msg("%s", err.msg);
}

static const struct plan_error_group *group(const struct plan_validation *v, const char *name, const char *metric)
{
	for (int i = 0; i < v->groups; i++)
		if (!strcmp(v->group[i].group, name) && !strcmp(v->group[i].metric, metric))
			return &v->group[i];
	fail_msg("no predictions of %s of %s", metric, name);
	return NULL;
}

static void rows_of_every_kind(void **state)
{
	char path[] = "/tmp/stave-truth-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, rows, sizeof rows - 1), sizeof rows - 1);
	close(fd);
	struct plan_catalog empty = {0};
	struct plan_validation v;
	predict(path, &empty, &v);
	unlink(path);
	static const struct {
		const char *group, *metric;
		int n;
		double most; /* error, percent */
	} want[] = {
		{"g1", "young", 1, 0.02}, {"g1", "daly", 1, 0.02}, {"g1", "rfo", 1, 0.02}, {"g1", "exact", 1, 0.1}, {"g2", "read_rate", 1, 0.1}, {"g3", "mttf_projected", 2, 3},
		{"g4", "facility_energy", 1, 0.5}, {"g5", "node_peak_power", 1, 6}, {"g6", "checkpoint_bytes", 1, 3}, {"g7", "mtbf_counted", 1, 0.1}, {"g7", "mtbf_other_fleets", 1, 30},
	};
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		const struct plan_error_group *g = group(&v, want[i].group, want[i].metric);
		assert_int_equal(g->n, want[i].n);
		if (!(g->mean <= want[i].most))
			fail_msg("%s %s is off by %g %%", g->group, g->metric, g->mean);
	}
	/* what was observed at 1,024 devices is not what the rate projects: shown, not hidden */
	assert_true(group(&v, "g3", "mttf_observed")->mean > 100);
	assert_string_equal(group(&v, "g8", "linpack")->skip[0].reason, "Linpack is not a work that is planned");
	assert_int_equal(group(&v, "g9", "row")->skipped, 1);
	for (int i = 0; i < v.predictions.n; i++)
		assert_true(isfinite(v.predictions.p[i].measured) && isfinite(v.predictions.p[i].predicted));
	plan_validation_free(&v);
}

static void the_measured_table(void **state)
{
	const char *shared = getenv("STAVE_SHARED");
	char path[4096];
	snprintf(path, sizeof path, "%s/truth/measured.json", shared ? shared : "../shared");
	if (access(path, R_OK)) {
		print_message("skipped: needs %s\n", path);
		skip();
	}
	struct stave_err err = {0};
	struct plan_catalog *c;
	if (plan_catalog_open(&c, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	struct plan_validation v;
	predict(path, c, &v);
	static const char *const metrics[] = {"young", "daly", "rfo", "exact"};
	for (int i = 0; i < 4; i++) {
		const struct plan_error_group *g = group(&v, "checkpoint-formula", metrics[i]);
		assert_int_equal(g->n, 10);
		assert_true(g->mean < 0.1);
	}
	assert_true(group(&v, "storage-load", "read_rate")->mean < 0.1);
	/* every row of the kinds is spoken of */
	for (int i = 0; i < v.truths.n; i++) {
		const char *kind = v.truths.row[i].kind;
		int found = strcmp(kind, "cluster") && strcmp(kind, "power");
		for (int k = 0; k < v.predictions.n; k++)
			found += v.predictions.p[k].row == i;
		if (!found)
			fail_msg("nothing is said of row %s", v.truths.row[i].id);
	}
	plan_validation_free(&v);
	plan_catalog_close(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(rows_of_every_kind), cmocka_unit_test(the_measured_table)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
