/* Private to plan/: measured runs for calibration, from tables and from the directories that `stave train` writes (runs.c). */
#ifndef STAVE_PLAN_RUNS_H
#define STAVE_PLAN_RUNS_H

#include "plan/truth/truth.h"

/* All rows of `n` paths: a directory with plan.json and receipt.json is one run, whose hardware is taken to be `accelerator` and whose software `stack`; any other path
 * is a table. STAVE_ECORRUPT for a run that has not finished a step. Free with plan_truths_free; `stack` is kept. */
int plan_runs_load(struct plan_truths *out, const struct plan_catalog *c, const char *const *path, int n, const char *accelerator, const char *stack, struct stave_err *err);

#endif
