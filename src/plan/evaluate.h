/* Private to plan/: one work at one place (evaluate_train.c, evaluate_serve.c). */
#ifndef STAVE_PLAN_EVALUATE_H
#define STAVE_PLAN_EVALUATE_H

#include "plan/bill.h"
#include "plan/result.h"

/* On `gpus` devices of the place, as many nodes as that takes. fixed: what of the layout is given; k: resources (their devices' part is already in `h`).
 * Fills everything of *r that belongs to the work, its objective included. */
int plan_evaluate_train(const struct stave_plan *p, const struct plan_here *h, int gpus, const struct plan_layout *fixed, const struct plan_scale *k, struct plan_work_result *r,
                        struct stave_err *err);
/* tp of *r's work, or `tp` > 0. */
int plan_evaluate_serve(const struct stave_plan *p, const struct plan_here *h, int tp, const struct plan_scale *k, struct plan_work_result *r, struct stave_err *err);
/* What is minimised: time, money or energy, as the specification says; for serving time is the devices that the peak takes. */
double plan_objective(const struct stave_plan *p, const struct plan_work_result *r);

#endif
