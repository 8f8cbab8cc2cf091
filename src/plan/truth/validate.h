/* Private to plan/: the planner held against a table of measured runs (validate.c). */
#ifndef STAVE_PLAN_VALIDATE_H
#define STAVE_PLAN_VALIDATE_H

#include <jansson.h>
#include <stdio.h>

#include "plan/truth/truth.h"

struct plan_skip {
	const char *reason; /* static */
	int n;
};
/* Errors of one metric over one group of rows; absolute relative error in percent of the measured value, bias with its sign (+: predicted too much). */
struct plan_error_group {
	const char *group, *metric;
	double mean, median, p90, bias; /* 0 when n is 0 */
	int n, skipped;
	struct plan_skip skip[8];       /* the reasons, `skips` of them; further ones count in the last */
	int skips;
};
struct plan_validation {
	struct plan_truths truths;
	struct plan_predictions predictions;
	struct plan_error_group *group;
	int groups;
};
/* Predict every row of the table that can be predicted. The constants used are the catalog's; nothing is fitted here. */
int plan_validate(const char *truth_path, const struct plan_catalog *c, struct plan_validation *out, struct stave_err *err);
/* The groups of predictions already made; truths and predictions become the validation's. */
int plan_validation_group(struct plan_validation *v, struct stave_err *err);
void plan_validation_free(struct plan_validation *v);

/* Signed error of a prediction in percent; NAN when it was skipped. */
double plan_prediction_error(const struct plan_prediction *p);
/* Mean, median, p90 and bias of n signed errors; sorts `error` by size. */
void plan_error_summary(double *error, int n, double *mean, double *median, double *p90, double *bias);

/* {"groups": [{group, metric, mean_error_percent, median_error_percent, p90_error_percent, bias_percent, n, skipped, skipped_reasons}],
 *  "rows": [{id, group, metric, measured, predicted, error_percent}]}; NULL without memory. */
json_t *plan_validation_json(const struct plan_validation *v);
void plan_validation_text(const struct plan_validation *v, FILE *f);
/* One line per row and metric, with a heading. */
void plan_validation_csv(const struct plan_validation *v, FILE *f);

#endif
