/* Private to plan/: a site as a whole (site_result.c). */
#ifndef STAVE_PLAN_SITE_RESULT_H
#define STAVE_PLAN_SITE_RESULT_H

#include "plan/result.h"

/* Site `site` of the specification: racks, cooling, power, prices, and the date it is ready. */
/* The date alone, which works wait for; part of the same result. */
int plan_site_ready(const struct stave_plan *p, int site, struct plan_site_result *out, struct stave_err *err);
int plan_site_evaluate(const struct stave_plan *p, int site, struct plan_site_result *out, struct stave_err *err);

#endif
