/* Private to the training part of plan/: a measured training run as a job on a machine, with the layouts it may have had (train_case.c). */
#ifndef STAVE_PLAN_TRAIN_CASE_H
#define STAVE_PLAN_TRAIN_CASE_H

#include "plan/train/train.h"
#include "plan/truth/truth.h"

struct plan_train_case {
	int row;                    /* in the table */
	struct plan_train_job job;
	struct plan_machine machine; /* its fit is set by whoever evaluates */
	struct plan_layout layout;  /* as said; micro 0: not said */
	bool free_vp, free_recompute;
	double memory_limit;        /* bytes that a candidate may take when the row does not say the layout whole */
	double measured_s;          /* of a step; 0 not measured */
	const char *stack;          /* whose constants predict it */
};
/* NULL, or why the row cannot be made a case: a static text. */
const char *plan_train_case_of(const struct plan_truths *t, int row, const struct plan_catalog *c, struct plan_train_case *out);
/* The layout with what was not said chosen for speed, among those that fit in memory (the least of them all when none does). */
struct plan_layout plan_train_case_layout(const struct plan_train_case *x);
double plan_train_case_step_s(const struct plan_train_case *x);

#endif
