/* stave plan calibrate: constants of an accelerator and its software refitted to measured runs, printed as the YAML that a catalog directory may hold. */
#include <string.h>

#include "plan/plan.h"
#include "plan/truth/runs.h"
#include "plan/serve/serve_parts.h"
#include "plan/train/train.h"

static int calibrate_train(const struct plan_truths *t, const struct plan_catalog *c, const char *accelerator, const char *stack, FILE *to, struct stave_err *err)
{
	struct plan_train_fit *fit;
	const struct plan_accelerator *a = plan_accelerator_find(c, accelerator);
	int rc = plan_train_fit_open(&fit, c, a, stack, err);
	if (rc)
		return rc;
	if (!(rc = plan_train_calibrate(t, c, accelerator, stack, fit, NULL, err)))
		plan_train_fit_save(fit, c, to);
	plan_train_fit_free(fit);
	return rc;
}

static int calibrate_serve(const struct plan_truths *t, const struct plan_catalog *c, const char *accelerator, const char *engine, FILE *to, struct stave_err *err)
{
	struct plan_serve_calibration k;
	int rc = plan_serve_calibrate(t, c, accelerator, engine, &k, err);
	if (!rc)
		plan_serve_calibration_save(&k, c, to);
	return rc;
}

/* What the rows are of decides what is fitted: training constants or serving ones. */
int stave_plan_calibrate(const char *const *runs, int n, const char *accelerator, const char *stack, const struct stave_plan_options *o, FILE *to, struct stave_err *err)
{
	struct plan_catalog *c;
	struct plan_truths t;
	if (!accelerator || !stack)
		return stave_err_set(err, STAVE_EUSAGE, "calibrate: say whose runs these are: --accelerator h100-sxm --stack torchtitan");
	int rc = plan_catalog_open(&c, o->catalog, err);
	if (rc)
		return rc;
	if (!plan_accelerator_find(c, accelerator)) {
		const void *none;
		rc = plan_catalog_find(c, "accelerator", accelerator, NULL, &none, err);
	} else if (!(rc = plan_runs_load(&t, c, runs, n, accelerator, stack, err))) {
		bool serves = false;
		for (int i = 0; i < t.n; i++)
			serves |= !strcmp(t.row[i].kind, "infer") && t.row[i].accelerator == plan_accelerator_find(c, accelerator) && !strcmp(t.row[i].stack, stack);
		rc = serves ? calibrate_serve(&t, c, accelerator, stack, to, err) : calibrate_train(&t, c, accelerator, stack, to, err);
		plan_truths_free(&t);
	}
	plan_catalog_close(c);
	return rc;
}
