/* The planner against measured runs: predict each row, compare, and summarise by group and metric.
 *
 * A row that cannot be predicted is counted with its reason, never dropped in silence: a table of errors that leaves out the hard rows would mislead.
 * Errors are relative to the measured value, so over- and under-prediction by a factor weigh differently; the bias says which way a group leans. */
#include "plan/truth/validate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double plan_prediction_error(const struct plan_prediction *p)
{
	if (p->skipped || !(p->measured > 0) || !isfinite(p->predicted))
		return NAN;
	return 100 * (p->predicted / p->measured - 1);
}

static int by_size(const void *a, const void *b)
{
	double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
	return (x > y) - (x < y);
}

/* Share q of sorted values, linear between neighbours. */
static double quantile(const double *sorted, int n, double q)
{
	double at = q * (n - 1);
	int i = (int)at;
	double a = fabs(sorted[i]), b = fabs(sorted[i + 1 < n ? i + 1 : i]);
	return a + (at - i) * (b - a);
}

void plan_error_summary(double *error, int n, double *mean, double *median, double *p90, double *bias)
{
	*mean = *median = *p90 = *bias = 0;
	if (n == 0)
		return;
	qsort(error, (size_t)n, sizeof *error, by_size);
	for (int i = 0; i < n; i++) {
		*mean += fabs(error[i]) / n;
		*bias += error[i] / n;
	}
	*median = quantile(error, n, 0.5);
	*p90 = quantile(error, n, 0.9);
}

static const char *group_of(const struct plan_validation *v, int i)
{
	return v->truths.row[v->predictions.p[i].row].group;
}

static struct plan_error_group *find_group(struct plan_validation *v, int i)
{
	const char *group = group_of(v, i), *metric = v->predictions.p[i].metric;
	for (int g = 0; g < v->groups; g++)
		if (!strcmp(v->group[g].group, group) && !strcmp(v->group[g].metric, metric))
			return &v->group[g];
	struct plan_error_group *g = &v->group[v->groups++];
	*g = (struct plan_error_group){.group = group, .metric = metric};
	return g;
}

static void count_skip(struct plan_error_group *g, const char *reason)
{
	const int room = sizeof g->skip / sizeof *g->skip;
	int i = 0;
	while (i < g->skips && strcmp(g->skip[i].reason, reason))
		i++;
	if (i == room)
		i--;
	else if (i == g->skips)
		g->skip[g->skips++] = (struct plan_skip){reason, 0};
	g->skip[i].n++;
	g->skipped++;
}

static void summarise(struct plan_validation *v, struct plan_error_group *g, double *error)
{
	int n = 0;
	for (int i = 0; i < v->predictions.n; i++)
		if (!strcmp(group_of(v, i), g->group) && !strcmp(v->predictions.p[i].metric, g->metric) && isfinite(plan_prediction_error(&v->predictions.p[i])))
			error[n++] = plan_prediction_error(&v->predictions.p[i]);
	g->n = n;
	plan_error_summary(error, n, &g->mean, &g->median, &g->p90, &g->bias);
}

int plan_validation_group(struct plan_validation *v, struct stave_err *err)
{
	size_t n = (size_t)v->predictions.n + 1;
	double *error = malloc(n * sizeof *error);
	v->group = calloc(n, sizeof *v->group);
	if (!error || !v->group) {
		free(error);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the errors of %zu predictions", n - 1);
	}
	for (int i = 0; i < v->predictions.n; i++) {
		const struct plan_prediction *p = &v->predictions.p[i];
		struct plan_error_group *g = find_group(v, i);
		if (!isfinite(plan_prediction_error(p)))
			count_skip(g, p->skipped ? p->skipped : "no measured value above zero, or no finite prediction");
	}
	for (int g = 0; g < v->groups; g++)
		summarise(v, &v->group[g], error);
	free(error);
	return 0;
}

int plan_validate(const char *truth_path, const struct plan_catalog *c, struct plan_validation *out, struct stave_err *err)
{
	struct plan_validation v = {0};
	int rc = plan_truths_load(&v.truths, c, truth_path, err);
	if (rc < 0)
		return rc;
	if ((rc = plan_predict_train(&v.truths, c, &v.predictions, err)) < 0 || (rc = plan_predict_serve(&v.truths, c, &v.predictions, err)) < 0 ||
	    (rc = plan_predict_cluster(&v.truths, c, &v.predictions, err)) < 0 || (rc = plan_validation_group(&v, err)) < 0) {
		plan_validation_free(&v);
		return rc;
	}
	*out = v;
	return 0;
}

void plan_validation_free(struct plan_validation *v)
{
	free(v->group);
	free(v->predictions.p);
	plan_truths_free(&v->truths);
	*v = (struct plan_validation){0};
}

/* ---- as JSON and as text ---- */

static json_t *group_json(const struct plan_error_group *g)
{
	json_t *reasons = json_object();
	for (int i = 0; i < g->skips; i++)
		json_object_set_new(reasons, g->skip[i].reason, json_integer(g->skip[i].n));
	return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:i, s:i, s:o}", "group", g->group, "metric", g->metric, "mean_error_percent", g->mean,
	                 "median_error_percent", g->median, "p90_error_percent", g->p90, "bias_percent", g->bias, "n", g->n, "skipped", g->skipped,
	                 "skipped_reasons", reasons);
}

json_t *plan_validation_json(const struct plan_validation *v)
{
	json_t *groups = json_array(), *rows = json_array();
	for (int g = 0; g < v->groups; g++)
		json_array_append_new(groups, group_json(&v->group[g]));
	for (int i = 0; i < v->predictions.n; i++) {
		const struct plan_prediction *p = &v->predictions.p[i];
		const struct plan_truth *t = &v->truths.row[p->row];
		double error = plan_prediction_error(p);
		if (isfinite(error))
			json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:f, s:f, s:f}", "id", t->id, "group", t->group, "metric", p->metric, "measured",
			                                      p->measured, "predicted", p->predicted, "error_percent", error));
	}
	return json_pack("{s:o, s:o}", "groups", groups, "rows", rows);
}

void plan_validation_text(const struct plan_validation *v, FILE *f)
{
	fprintf(f, "%-18s %-22s %5s %8s %8s %8s %8s %8s\n", "group", "metric", "n", "mean", "median", "p90", "bias", "skipped");
	for (int i = 0; i < v->groups; i++) {
		const struct plan_error_group *g = &v->group[i];
		fprintf(f, "%-18s %-22s %5d ", g->group, g->metric, g->n);
		if (g->n)
			fprintf(f, "%6.1f %% %6.1f %% %6.1f %% %+6.1f %% ", g->mean, g->median, g->p90, g->bias);
		else
			fprintf(f, "%8s %8s %8s %8s ", "-", "-", "-", "-");
		fprintf(f, "%7d", g->skipped);
		for (int k = 0; k < g->skips; k++)
			fprintf(f, "%s%d %s", k ? "; " : "  ", g->skip[k].n, g->skip[k].reason);
		fputc('\n', f);
	}
}

void plan_validation_csv(const struct plan_validation *v, FILE *f)
{
	fputs("group,metric,id,measured,predicted,error_percent\n", f);
	for (int i = 0; i < v->predictions.n; i++) {
		const struct plan_prediction *p = &v->predictions.p[i];
		const struct plan_truth *t = &v->truths.row[p->row];
		double error = plan_prediction_error(p);
		if (isfinite(error))
			fprintf(f, "\"%s\",%s,\"%s\",%.9g,%.9g,%.4g\n", t->group, p->metric, t->id, p->measured, p->predicted, error);
	}
}
