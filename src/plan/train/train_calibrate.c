/* Fitting the constants of training to measured runs.
 *
 * The search is Nelder and Mead's simplex (1965) on the logarithms of the constants that the rows can tell, from the present fit, minimising the mean
 * absolute relative error of step time plus a weak pull to where it began: what the rows say little about stays. It is deterministic. The error that is
 * reported was not fitted: the rows are dealt into folds by model (rows of one model share everything but the layout), each fold is predicted by constants
 * fitted on the others. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plan/train/train_case.h"

#define PULL 1.0      /* over the number of rows, times the sum of squares of the logarithms moved: a constant moves by a fifth for 4 % of one row's error */
#define TELLS 2e-3    /* a constant counts when a fifth more of it changes the predictions by this share on average */
#define ROUNDS 3      /* simplexes, each begun where the last one ended, half as wide */
#define WIDTH 0.25    /* of the first simplex */

struct constant {
	const char *name;
	double low, high;
	bool fitted;
	size_t offset;
};
static const struct constant constants[] = {
#define X(name, what, otherwise, low, high, fitted) {#name, low, high, fitted, offsetof(struct plan_train_fit, name)},
	PLAN_TRAIN_CONSTANTS(X)
#undef X
};
enum { CONSTANTS = sizeof constants / sizeof *constants, FOLDS = 4 };

static double *at(struct plan_train_fit *f, int i) { return (double *)(void *)((char *)f + constants[i].offset); }

struct problem {
	struct plan_train_case *rows;
	int n, out;                  /* fold left out; -1 none */
	struct plan_train_fit start, trial;
	int moved[CONSTANTS], k;     /* constants that are fitted */
};

static int fold_of(const struct plan_train_case *x)
{
	const struct stave_shape *s = &x->job.shape;
	return (int)(((unsigned)s->L * 2654435761u + (unsigned)s->C * 40503u + (unsigned)x->job.seq * 7u) >> 7) % FOLDS;
}

static double predicted(struct problem *p, int i, const struct plan_train_fit *f)
{
	p->rows[i].machine.fit = f;
	return plan_train_case_step_s(&p->rows[i]);
}

static void set(struct problem *p, const double *x)
{
	p->trial = p->start;
	for (int i = 0; i < p->k; i++) {
		const struct constant *c = &constants[p->moved[i]];
		*at(&p->trial, p->moved[i]) = fmin(c->high, fmax(c->low, *at(&p->start, p->moved[i]) * exp(x[i])));
	}
}

static double loss(struct problem *p, const double *x)
{
	double sum = 0, pull = 0;
	int n = 0;
	set(p, x);
	for (int i = 0; i < p->n; i++) {
		if (p->out >= 0 && fold_of(&p->rows[i]) == p->out)
			continue;
		sum += fabs(predicted(p, i, &p->trial) / p->rows[i].measured_s - 1);
		n++;
	}
	for (int i = 0; i < p->k; i++)
		pull += x[i] * x[i];
	return n ? (sum + PULL * pull) / n : 0;
}

/* ---- the simplex ---- */

struct corner {
	double x[CONSTANTS], f;
};
struct simplex {
	struct corner c[CONSTANTS + 1];
	int k;
};

/* From the centre along the line to the worst corner. */
static struct corner probe(struct problem *p, const struct simplex *s, const double *center, double along)
{
	struct corner c = {0};
	for (int i = 0; i < s->k; i++)
		c.x[i] = center[i] + along * (s->c[s->k].x[i] - center[i]);
	c.f = loss(p, c.x);
	return c;
}

static void order(struct simplex *s)
{
	for (int i = 1; i <= s->k; i++) {
		struct corner c = s->c[i];
		int m = i;
		for (; m > 0 && c.f < s->c[m - 1].f; m--)
			s->c[m] = s->c[m - 1];
		s->c[m] = c;
	}
}

static void shrink(struct problem *p, struct simplex *s)
{
	for (int m = 1; m <= s->k; m++) {
		for (int i = 0; i < s->k; i++)
			s->c[m].x[i] = s->c[0].x[i] + 0.5 * (s->c[m].x[i] - s->c[0].x[i]);
		s->c[m].f = loss(p, s->c[m].x);
	}
}

static void turn(struct problem *p, struct simplex *s)
{
	double center[CONSTANTS] = {0};
	int k = s->k;
	order(s);
	for (int m = 0; m < k; m++)
		for (int i = 0; i < k; i++)
			center[i] += s->c[m].x[i] / k;
	struct corner there = probe(p, s, center, -1);
	if (there.f < s->c[0].f) {
		struct corner beyond = probe(p, s, center, -2);
		s->c[k] = beyond.f < there.f ? beyond : there;
	} else if (there.f < s->c[k - 1].f) {
		s->c[k] = there;
	} else {
		struct corner within = probe(p, s, center, 0.5);
		if (within.f < s->c[k].f)
			s->c[k] = within;
		else
			shrink(p, s);
	}
}

static void minimise(struct problem *p, double *x)
{
	static const double widths[ROUNDS] = {WIDTH, -WIDTH / 2, WIDTH / 4};
	for (int round = 0; round < ROUNDS && p->k; round++) {
		struct simplex s = {.k = p->k};
		for (int m = 0; m <= p->k; m++) {
			memcpy(s.c[m].x, x, (size_t)p->k * sizeof *x);
			if (m)
				s.c[m].x[m - 1] += widths[round];
			s.c[m].f = loss(p, s.c[m].x);
		}
		for (int i = 0; i < 60 * p->k; i++)
			turn(p, &s);
		order(&s);
		memcpy(x, s.c[0].x, (size_t)p->k * sizeof *x);
	}
}

/* ---- what the rows can tell ---- */

static void choose(struct problem *p)
{
	p->k = 0;
	for (int c = 0; c < CONSTANTS; c++) {
		double now = *at(&p->start, c), change = 0;
		if (!constants[c].fitted || now <= 0)
			continue;
		struct plan_train_fit f = p->start;
		/* towards the middle of its range, so that a constant at its end still counts */
		*at(&f, c) = now * (now * 1.2 > constants[c].high ? 0.8 : 1.2);
		for (int i = 0; i < p->n; i++)
			change += fabs(predicted(p, i, &f) / predicted(p, i, &p->start) - 1) / p->n;
		if (change > TELLS)
			p->moved[p->k++] = c;
	}
}

static int by_size(const void *a, const void *b)
{
	double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
	return (x > y) - (x < y);
}

/* Residuals of folds held out, in the order of the rows; false when there is only one fold with rows. */
static bool hold_out(struct problem *p, double *residual)
{
	int filled = 0;
	for (int fold = 0; fold < FOLDS; fold++) {
		int members = 0;
		for (int i = 0; i < p->n; i++)
			members += fold_of(&p->rows[i]) == fold;
		filled += members > 0;
		if (members == 0 || members == p->n)
			continue;
		double x[CONSTANTS] = {0};
		p->out = fold;
		minimise(p, x);
		set(p, x);
		for (int i = 0; i < p->n; i++)
			if (fold_of(&p->rows[i]) == fold)
				residual[i] = predicted(p, i, &p->trial) / p->rows[i].measured_s - 1;
	}
	p->out = -1;
	return filled > 1;
}

static void summarise(struct plan_train_fit *f, const double *residual, int n, double *sorted)
{
	memcpy(sorted, residual, (size_t)n * sizeof *sorted);
	qsort(sorted, (size_t)n, sizeof *sorted, by_size);
	f->error_mean = 0;
	for (int i = 0; i < n; i++)
		f->error_mean += fabs(sorted[i]) / n;
	f->error_p50 = fabs(sorted[n / 2]);
	f->error_p90 = fabs(sorted[(int)(0.9 * (n - 1) + 0.5)]);
}

/* ---- the rows of an accelerator and stack ---- */

static int gather(const struct plan_truths *t, const struct plan_catalog *c, const struct plan_accelerator *a, const char *stack, struct problem *p, struct stave_err *err)
{
	p->rows = calloc((size_t)(t->n ? t->n : 1), sizeof *p->rows);
	if (!p->rows)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d measured runs", t->n);
	for (int i = 0; i < t->n; i++) {
		struct plan_train_case *x = &p->rows[p->n];
		if (!strcmp(t->row[i].kind, "train") && t->row[i].accelerator && !strcmp(t->row[i].accelerator->name, a->name) && !plan_train_case_of(t, i, c, x) && x->measured_s > 0 &&
		    !strcasecmp(x->stack, stack))
			p->n++;
	}
	if (p->n)
		return 0;
	free(p->rows);
	return stave_err_set(err, STAVE_ECONFIG, "no row is a training run of '%s' with the software '%s' that states model, devices, batch and step time", a->name, stack);
}

static void describe(const struct plan_truths *t, const struct problem *p, const struct plan_accelerator *a, const char *stack, struct plan_train_fit *f)
{
	f->rows = p->n;
	f->gpus = 0;
	f->widen = 1;
	snprintf(f->accelerator, sizeof f->accelerator, "%s", a->name);
	snprintf(f->stack, sizeof f->stack, "%s", stack);
	f->groups[0] = 0;
	for (int i = 0; i < p->n; i++) {
		const char *group = t->row[p->rows[i].row].group;
		size_t used = strlen(f->groups);
		f->gpus = p->rows[i].machine.gpus > f->gpus ? p->rows[i].machine.gpus : f->gpus;
		if (!strstr(f->groups, group) && used + strlen(group) + 3 < sizeof f->groups)
			snprintf(f->groups + used, sizeof f->groups - used, "%s%s", used ? ", " : "", group);
	}
	/* shares of peak are relative to the data sheet the fit begins from */
	if (f->reference_w <= 0) {
		f->reference_w = a->tdp_w;
		f->reference_flop_s = a->peak[PLAN_BF16];
	}
}

/* Constants moved from another accelerator's data sheet to this one's: the share of peak takes the power law in. */
static void rebase(struct plan_train_fit *f, const struct plan_accelerator *a)
{
	double power = plan_train_power(f, a);
	f->product = fmin(0.98, f->product * power);
	f->attention = fmin(0.98, f->attention * power);
	f->reference_w = a->tdp_w;
	f->reference_flop_s = a->peak[PLAN_BF16];
}

int plan_train_calibrate(const struct plan_truths *t, const struct plan_catalog *c, const char *accelerator, const char *stack, struct plan_train_fit *out, double **residual,
                         struct stave_err *err)
{
	const struct plan_accelerator *a = plan_accelerator_find(c, accelerator);
	struct problem p = {.out = -1};
	struct plan_train_fit *now;
	if (!a)
		return stave_err_set(err, STAVE_ECONFIG, "the accelerator '%s' is not in the catalog", accelerator);
	int rc = plan_train_fit_open(&now, c, a, stack, err);
	if (rc)
		return rc;
	p.start = *now;
	plan_train_fit_free(now);
	rebase(&p.start, a);
	if ((rc = gather(t, c, a, stack, &p, err)))
		return rc;
	double *errors = malloc(2 * (size_t)p.n * sizeof *errors), x[CONSTANTS] = {0};
	if (!errors) {
		free(p.rows);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d residuals", p.n);
	}
	choose(&p);
	bool held = hold_out(&p, errors);
	minimise(&p, x);
	set(&p, x);
	*out = p.trial;
	if (!held)
		for (int i = 0; i < p.n; i++)
			errors[i] = predicted(&p, i, out) / p.rows[i].measured_s - 1;
	summarise(out, errors, p.n, errors + p.n);
	describe(t, &p, a, stack, out);
	free(p.rows);
	if (residual)
		*residual = errors;
	else
		free(errors);
	return 0;
}
