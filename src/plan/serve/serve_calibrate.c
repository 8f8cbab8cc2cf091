/* Fitting the constants of an (accelerator, engine) to measured runs.
 *
 * The unknowns are logarithms of the constants; the residuals logarithms of predicted over measured, of latencies and throughputs alike. Levenberg's
 * method (1944) with a numeric Jacobian; residuals are weighted by the inverse of their size, which makes the sum of squares one of absolute values
 * (iteratively reweighted), so that a few odd rows do not pull the rest. Each unknown is also held, weakly, to where it started (the nearest known fit):
 * what the rows do not show stays as it was, and few rows cannot make nonsense of twelve constants.
 *
 * How far off it is for a model it has not seen is measured by leaving out each model's rows in turn. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/serve/serve_parts.h"
#include "plan/truth/truth_words.h"
#include "plan/truth/validate.h"

enum { N = PLAN_SERVE_COUNT, ROUNDS = 14, HELD_ROUNDS = 5, MODELS_MAX = 16 };
/* How strongly constants are held to their start, as much more as there are fewer than `prior_rows` residuals; what counts as no residual. */
static const double prior_weight = 0.1, prior_rows = 20, small = 0.02, damping = 0.05, least_time = 1e-7;

/* How clients start and how the first requests count is rarely stated and moves TTFT by tens of percent: it weighs half. */
static const double weight_of[PLAN_SERVE_METRICS] = {
	[PLAN_SERVE_TTFT] = 0.5, [PLAN_SERVE_TPOT] = 1, [PLAN_SERVE_THROUGHPUT] = 1, [PLAN_SERVE_PREFILL] = 1, [PLAN_SERVE_DECODE] = 1};

struct problem {
	struct plan_serve_case *c;
	struct plan_engine *engine; /* (n) how each case's engine schedules */
	int *model;       /* (n) number of a case's model */
	int n, models;
	int without;      /* model left out, -1: none */
	double start[N];
	double *r;        /* (2, n METRICS) residuals, at the point and at one moved */
	double *jacobian; /* (N, n METRICS) */
};

static double low_of(int i)
{
	return log(fmax(plan_serve_constant_kinds[i].low, least_time));
}

static void constants_of(const double *x, double *k)
{
	for (int i = 0; i < N; i++) {
		k[i] = exp(x[i]);
		if (k[i] <= least_time * 1.001)
			k[i] = plan_serve_constant_kinds[i].low;
	}
}

static void clamp(double *x)
{
	for (int i = 0; i < N; i++)
		x[i] = fmin(fmax(x[i], low_of(i)), log(plan_serve_constant_kinds[i].high));
}

/* Residuals of all cases (but those of the model left out): NAN where nothing was measured or predicted. */
static void residuals(const struct problem *p, struct plan_serve_fit *f, const double *x, bool held, double *r)
{
	constants_of(x, f->k);
	for (int i = 0; i < p->n; i++) {
		double predicted[PLAN_SERVE_METRICS];
		bool wanted = p->without < 0 || (p->model[i] == p->without) == held;
		f->engine = p->engine[i];
		bool ok = wanted && plan_serve_case_predict(&p->c[i], f, predicted, NULL) == 0;
		for (int m = 0; m < PLAN_SERVE_METRICS; m++)
			r[i * PLAN_SERVE_METRICS + m] = ok && p->c[i].measured[m] > 0 && predicted[m] > 0 ? log(predicted[m] / p->c[i].measured[m]) : NAN;
	}
}

/* Mean absolute residual, and the pull towards the start. */
static double loss(const struct problem *p, const double *x, const double *r)
{
	double sum = 0, count = 0, pull = 0;
	for (int i = 0; i < p->n * PLAN_SERVE_METRICS; i++) {
		double w = weight_of[i % PLAN_SERVE_METRICS];
		if (isfinite(r[i])) {
			sum += w * sqrt(r[i] * r[i] + small * small);
			count += w;
		}
	}
	for (int i = 0; i < N; i++)
		pull += prior_weight * (1 + prior_rows / fmax(count, 1)) * (x[i] - p->start[i]) * (x[i] - p->start[i]);
	return count > 0 ? sum / count + pull / N : 0;
}

/* Solves A d = b for a symmetric positive definite A (Cholesky); A and b are overwritten. */
static void solve(double A[N][N], double *b)
{
	for (int j = 0; j < N; j++) {
		for (int k = 0; k < j; k++)
			for (int i = j; i < N; i++)
				A[i][j] -= A[i][k] * A[j][k];
		double d = sqrt(fmax(A[j][j], 1e-12));
		for (int i = j; i < N; i++)
			A[i][j] /= d;
	}
	for (int i = 0; i < N; i++) {
		for (int k = 0; k < i; k++)
			b[i] -= A[i][k] * b[k];
		b[i] /= A[i][i];
	}
	for (int i = N - 1; i >= 0; i--) {
		for (int k = i + 1; k < N; k++)
			b[i] -= A[k][i] * b[k];
		b[i] /= A[i][i];
	}
}

/* The step from x: weighted normal equations with the prior and a damping that grows after a step that did not help. */
static void step_of(const struct problem *p, const double *x, const double *r, double mu, double *step)
{
	int rows = p->n * PLAN_SERVE_METRICS;
	double A[N][N] = {{0}}, count = 0;
	for (int i = 0; i < N; i++)
		step[i] = 0;
	for (int k = 0; k < rows; k++) {
		if (!isfinite(r[k]))
			continue;
		count += weight_of[k % PLAN_SERVE_METRICS];
		double w = weight_of[k % PLAN_SERVE_METRICS] / sqrt(r[k] * r[k] + small * small);
		for (int i = 0; i < N; i++) {
			double a = p->jacobian[(size_t)i * rows + k];
			step[i] -= w * a * r[k];
			for (int j = 0; j <= i; j++)
				A[i][j] += w * a * p->jacobian[(size_t)j * rows + k];
		}
	}
	double pull = 2 * prior_weight / N * (fmax(count, 1) + prior_rows);
	for (int i = 0; i < N; i++) {
		step[i] -= pull * (x[i] - p->start[i]);
		A[i][i] += pull + mu * (A[i][i] + 1);
	}
	solve(A, step);
	for (int i = 0; i < N; i++)
		step[i] = fmin(fmax(step[i], -1), 1);
}

static void differentiate(const struct problem *p, struct plan_serve_fit *f, const double *x, const double *r)
{
	int rows = p->n * PLAN_SERVE_METRICS;
	const double h = 0.03;
	for (int i = 0; i < N; i++) {
		double moved[N], *other = p->r + rows;
		memcpy(moved, x, sizeof moved);
		/* inwards at the upper bound */
		double d = x[i] + h > log(plan_serve_constant_kinds[i].high) ? -h : h;
		moved[i] += d;
		residuals(p, f, moved, false, other);
		for (int k = 0; k < rows; k++) {
			double a = isfinite(other[k]) && isfinite(r[k]) ? (other[k] - r[k]) / d : 0;
			p->jacobian[(size_t)i * rows + k] = fmin(fmax(a, -3), 3); /* a jump of the schedule is no slope */
		}
	}
}

static void fit(const struct problem *p, struct plan_serve_fit *f, double *x, int rounds)
{
	double mu = damping, *r = p->r, *other = p->r + p->n * PLAN_SERVE_METRICS;
	residuals(p, f, x, false, r);
	double best = loss(p, x, r);
	for (int round = 0; round < rounds; round++) {
		differentiate(p, f, x, r);
		bool better = false;
		for (int tries = 0; tries < 6 && !better; tries++) {
			double step[N], next[N];
			step_of(p, x, r, mu, step);
			for (int i = 0; i < N; i++)
				next[i] = x[i] + step[i];
			clamp(next);
			residuals(p, f, next, false, other);
			double l = loss(p, next, other);
			better = l < best - 1e-5;
			mu = better ? fmax(mu / 3, 1e-3) : mu * 4;
			if (better) {
				best = l;
				memcpy(x, next, sizeof next);
				memcpy(r, other, (size_t)p->n * PLAN_SERVE_METRICS * sizeof *r);
			}
		}
		if (!better)
			break;
	}
	constants_of(x, f->k);
}

/* ---- residuals by metric ---- */

static const enum plan_serve_metric throughputs[] = {PLAN_SERVE_THROUGHPUT, PLAN_SERVE_PREFILL, PLAN_SERVE_DECODE};

/* Relative errors of some metrics, from residuals of all cases; the bias is not asked for. */
static void summarise(const struct problem *p, const double *r, const enum plan_serve_metric *metric, int metrics, double *room, int *n, double *mean, double *p50,
                      double *p90)
{
	double bias;
	*n = 0;
	for (int i = 0; i < p->n; i++)
		for (int m = 0; m < metrics; m++)
			if (isfinite(r[i * PLAN_SERVE_METRICS + metric[m]]))
				room[(*n)++] = exp(r[i * PLAN_SERVE_METRICS + metric[m]]) - 1;
	plan_error_summary(room, *n, mean, p50, p90, &bias);
}

static void report(const struct problem *p, const double *all, const double *held, struct plan_serve_calibration *out)
{
	const enum plan_serve_metric ttft = PLAN_SERVE_TTFT, tpot = PLAN_SERVE_TPOT;
	struct {
		const enum plan_serve_metric *metric;
		int n;
		struct plan_serve_residual *to;
	} wanted[] = {{&ttft, 1, &out->ttft}, {&tpot, 1, &out->tpot}, {throughputs, 3, &out->throughput}};
	for (int i = 0; i < 3; i++) {
		int n;
		double mean;
		struct plan_serve_residual *to = wanted[i].to;
		summarise(p, all, wanted[i].metric, wanted[i].n, p->jacobian, &to->n, &to->mean, &to->p50, &to->p90);
		summarise(p, held, wanted[i].metric, wanted[i].n, p->jacobian, &n, &mean, &to->held_p50, &to->held_p90);
		/* one model alone leaves none to hold out: then twice what the fit itself misses by */
		if (n == 0) {
			to->held_p50 = 2 * to->p50;
			to->held_p90 = 2 * to->p90;
		}
	}
}

/* Residuals of each model's rows under constants fitted without them; NAN when there is but one. */
static void hold_out(struct problem *p, struct plan_serve_fit *f, double *held)
{
	int rows = p->n * PLAN_SERVE_METRICS;
	for (int i = 0; i < rows; i++)
		held[i] = NAN;
	for (int m = 0; p->models > 1 && m < p->models; m++) {
		double x[N];
		p->without = m;
		memcpy(x, p->start, sizeof x);
		fit(p, f, x, HELD_ROUNDS);
		residuals(p, f, x, true, p->r);
		for (int i = 0; i < rows; i++)
			held[i] = isfinite(p->r[i]) ? p->r[i] : held[i];
	}
	p->without = -1;
}

/* ---- the rows ---- */

static int model_number(struct problem *p, const struct plan_truths *t, int i)
{
	const struct stave_shape *s = &t->row[p->c[i].row].shape;
	for (int j = 0; j < i; j++) {
		const struct stave_shape *o = &t->row[p->c[j].row].shape;
		if (o->L == s->L && o->C == s->C && o->I == s->I && o->experts == s->experts)
			return p->model[j];
	}
	return p->models < MODELS_MAX ? p->models++ : MODELS_MAX - 1;
}

static bool engine_is(const struct plan_truth *t, const char *engine)
{
	return !*engine || !strcmp(t->stack, engine);
}

static int collect(struct problem *p, const struct plan_truths *t, const struct plan_catalog *c, const struct plan_accelerator *a, const char *engine,
                   struct stave_err *err)
{
	size_t rows = (size_t)t->n * PLAN_SERVE_METRICS + 1;
	p->without = -1;
	p->c = malloc(((size_t)t->n + 1) * sizeof *p->c);
	p->model = malloc(((size_t)t->n + 1) * sizeof *p->model);
	p->engine = malloc(((size_t)t->n + 1) * sizeof *p->engine);
	if (!p->c || !p->model || !p->engine)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d measured runs", t->n);
	for (int i = 0; i < t->n; i++)
		if (plan_words_have(t->row[i].kind, "infer") && plan_serve_same_chip(a, t->row[i].accelerator) && engine_is(&t->row[i], engine) && !plan_serve_case_of(t, i, &p->c[p->n]))
			p->n++;
	if (p->n == 0)
		return stave_err_set(err, STAVE_ECONFIG, "none of %d measured runs is inference on %s by %s with its model's sizes and lengths of requests stated", t->n, a->name,
		                     *engine ? engine : "any engine");
	for (int i = 0; i < p->n; i++) {
		struct plan_serve_fit *f;
		int rc = plan_serve_fit_open(&f, c, a, t->row[p->c[i].row].stack, err);
		if (rc < 0)
			return rc;
		p->engine[i] = f->engine;
		plan_serve_fit_free(f);
		p->model[i] = model_number(p, t, i);
	}
	p->r = malloc(2 * rows * sizeof *p->r);
	p->jacobian = malloc(N * rows * sizeof *p->jacobian);
	return p->r && p->jacobian ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory to fit %d measured runs", p->n);
}

static int run(struct problem *p, const struct plan_serve_fit *nearest, struct plan_serve_calibration *out, struct stave_err *err)
{
	int rows = p->n * PLAN_SERVE_METRICS;
	double *held = malloc(2 * (size_t)rows * sizeof *held), x[N];
	if (!held)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to fit %d measured runs", p->n);
	*out = (struct plan_serve_calibration){.fit = *nearest, .rows = p->n, .models = p->models};
	for (int i = 0; i < N; i++)
		p->start[i] = log(fmax(nearest->k[i], least_time));
	clamp(p->start);
	hold_out(p, &out->fit, held);
	memcpy(x, p->start, sizeof x);
	fit(p, &out->fit, x, ROUNDS);
	residuals(p, &out->fit, x, false, held + rows);
	report(p, held + rows, held, out);
	out->fit.engine = nearest->engine;
	out->fit.ttft = (struct plan_error_bar){out->ttft.held_p50, out->ttft.held_p90};
	out->fit.tpot = (struct plan_error_bar){out->tpot.held_p50, out->tpot.held_p90};
	out->fit.throughput = (struct plan_error_bar){out->throughput.held_p50, out->throughput.held_p90};
	free(held);
	return 0;
}

int plan_serve_calibrate(const struct plan_truths *t, const struct plan_catalog *c, const char *accelerator, const char *engine,
                         struct plan_serve_calibration *out, struct stave_err *err)
{
	const struct plan_accelerator *a = plan_accelerator_find(c, accelerator);
	if (!a)
		return stave_err_set(err, STAVE_ECONFIG, "unknown accelerator '%s'; `stave plan catalog` lists those there are", accelerator);
	const char *name = *engine ? plan_words_stack(engine, NULL, 0) : "";
	struct plan_serve_fit *nearest = NULL;
	struct problem p = {0};
	int rc = plan_serve_fit_open(&nearest, c, a, name, err);
	if (rc == 0)
		rc = collect(&p, t, c, a, name, err);
	if (rc == 0)
		rc = run(&p, nearest, out, err);
	if (rc == 0)
		snprintf(out->fit.accelerator, sizeof out->fit.accelerator, "%s", a->name);
	plan_serve_fit_free(nearest);
	free(p.c);
	free(p.model);
	free(p.engine);
	free(p.r);
	free(p.jacobian);
	return rc;
}

/* ---- as YAML ---- */

static void write_constant(FILE *to, const struct plan_serve_constant_kind *kind, double v)
{
	if (kind->dimension == STAVE_SHARE)
		fprintf(to, "      %s: %.1f %%\n", kind->name, 100 * v);
	else
		fprintf(to, "      %s: %.3g us\n", kind->name, 1e6 * v);
}

static void write_residual(FILE *to, const char *metric, const struct plan_serve_residual *r)
{
	if (r->n)
		fprintf(to, "      %s: {n: %d, mean: %.1f %%, p50: %.1f %%, p90: %.1f %%, held-out-p50: %.1f %%, held-out-p90: %.1f %%}\n", metric, r->n, 100 * r->mean,
		        100 * r->p50, 100 * r->p90, 100 * r->held_p50, 100 * r->held_p90);
}

void plan_serve_calibration_write(const struct plan_serve_calibration *k, FILE *to)
{
	fprintf(to, "  - accelerator: %s\n    engine: %s\n    constants:\n", k->fit.accelerator, k->fit.engine.name);
	for (int i = 0; i < N; i++)
		write_constant(to, &plan_serve_constant_kinds[i], k->fit.k[i]);
	fprintf(to, "    residuals: # relative; held-out: of models that the fit has not seen (%d rows, %d models)\n", k->rows, k->models);
	write_residual(to, "ttft", &k->ttft);
	write_residual(to, "tpot", &k->tpot);
	write_residual(to, "throughput", &k->throughput);
}

static void write_section(struct stave_yaml *file, const char *key, FILE *to)
{
	const struct stave_yaml *map = stave_yaml_get(file, key);
	fprintf(to, "%s:\n", key);
	for (int i = 0; map && i < map->n; i++) {
		fprintf(to, "  %s: ", map->child[i].key);
		stave_yaml_write(&map->child[i], to);
		fputc('\n', to);
	}
}

static bool is_pair(struct stave_yaml *fit, const struct plan_serve_fit *f)
{
	const struct stave_yaml *accelerator = stave_yaml_get(fit, "accelerator"), *engine = stave_yaml_get(fit, "engine");
	return accelerator && engine && accelerator->text && engine->text && !strcmp(accelerator->text, f->accelerator) && !strcmp(engine->text, f->engine.name);
}

void plan_serve_calibration_save(const struct plan_serve_calibration *k, const struct plan_catalog *c, FILE *to)
{
	struct stave_yaml *fits = stave_yaml_get(c->fits_serve, "fits");
	write_section(c->fits_serve, "engines", to);
	fputs("fits:\n", to);
	for (int i = 0; fits && i < fits->n; i++) {
		if (is_pair(&fits->child[i], &k->fit))
			continue;
		fputs("  - ", to);
		stave_yaml_write(&fits->child[i], to);
		fputc('\n', to);
	}
	plan_serve_calibration_write(k, to);
	write_section(c->fits_serve, "regimes", to);
}
