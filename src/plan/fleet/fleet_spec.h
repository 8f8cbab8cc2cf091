/* Private to plan/: a specification as a fleet for the simulator (fleet_spec.c). */
#ifndef STAVE_PLAN_FLEET_SPEC_H
#define STAVE_PLAN_FLEET_SPEC_H

#include "plan/result.h"
#include "plan/fleet/simulate.h"

/* Sites, pools and jobs of a plan that is made: step times, checkpoints, replicas and powers are the plan's. All arrays are one allocation; free with
 * plan_fleet_spec_free. */
int plan_fleet_of_plan(const struct stave_plan *p, struct plan_fleet *out, struct stave_err *err);
void plan_fleet_of_plan_free(struct plan_fleet *f);

#endif
