/* The planner's other jobs, each from its file to its report: simulate, validate, catalog. (calibrate.c has the fourth.) */
#include <string.h>

#include "plan/fleet/fleet_spec.h"
#include "plan/truth/validate.h"

static int json_out(json_t *j, FILE *to, struct stave_err *err)
{
	if (!j)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for a report");
	json_dumpf(j, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	fputc('\n', to);
	json_decref(j);
	return 0;
}

int stave_plan_simulate(const char *spec, const struct stave_plan_options *o, enum stave_plan_form form, FILE *to, struct stave_err *err)
{
	struct stave_plan *p;
	struct plan_fleet fleet;
	struct plan_simulation s;
	int rc = stave_plan_open(&p, spec, o, err);
	if (rc)
		return rc;
	if (!(rc = plan_fleet_of_plan(p, &fleet, err))) {
		if (!(rc = plan_simulate(&s, &fleet, err))) {
			if (form == STAVE_PLAN_JSON)
				rc = json_out(plan_simulation_json(&s), to, err);
			else if (form == STAVE_PLAN_CSV)
				plan_simulation_csv(&s, to);
			else
				plan_simulation_text(&s, to);
			plan_simulation_free(&s);
		}
		plan_fleet_of_plan_free(&fleet);
	}
	stave_plan_close(p);
	return rc;
}

int stave_plan_validate(const char *truth, const struct stave_plan_options *o, enum stave_plan_form form, FILE *to, struct stave_err *err)
{
	struct plan_catalog *c;
	struct plan_validation v;
	int rc = plan_catalog_open(&c, o->catalog, err);
	if (rc)
		return rc;
	if (!(rc = plan_validate(truth, c, &v, err))) {
		if (form == STAVE_PLAN_JSON)
			rc = json_out(plan_validation_json(&v), to, err);
		else if (form == STAVE_PLAN_CSV)
			plan_validation_csv(&v, to);
		else
			plan_validation_text(&v, to);
		plan_validation_free(&v);
	}
	plan_catalog_close(c);
	return rc;
}

int stave_plan_catalog(const char *name, const struct stave_plan_options *o, enum stave_plan_form form, FILE *to, struct stave_err *err)
{
	struct plan_catalog *c;
	int rc = plan_catalog_open(&c, o->catalog, err);
	if (rc)
		return rc;
	if (form == STAVE_PLAN_CSV)
		rc = stave_err_set(err, STAVE_EUSAGE, "the catalog is printed as text or --json");
	else if (form == STAVE_PLAN_JSON)
		rc = json_out(plan_catalog_json(c), to, err);
	else if (!name)
		rc = plan_catalog_list(c, NULL, to, err);
	else if (plan_catalog_list(c, name, to, NULL)) /* no kind is called so */
		rc = plan_catalog_explain(c, name, to, err);
	plan_catalog_close(c);
	return rc;
}
