/* Private to plan/: where work may go. Residency and export rules are hard: no price or speed buys them off. Regions are words ("eu", "us", "de"), compared
 * without case; a region may name what lies in it by a dash, so that "eu" holds "eu-west". The rules are the specification's; none is built in, since laws change
 * and only the user's counsel knows which apply. */
#ifndef STAVE_PLAN_PLACEMENT_H
#define STAVE_PLAN_PLACEMENT_H

#include "plan/spec.h"

/* A place as the rules see it. */
struct plan_location {
	const char *name, *region;
};
/* true when `region` is `whole` or lies in it ("eu-west" in "eu"). */
bool plan_region_within(const char *region, const char *whole);
/* Whether data bound to `residency` ("" or NULL: not bound) may be worked on at `at` with these accelerators under these rules. 0 when it may; else STAVE_ENOFIT with the
 * rule that forbids it, the region it wants and what would help. */
int plan_placement_check(const struct plan_location *at, const char *residency, const struct plan_accelerator *a, const struct plan_rule *rule, int rules, struct stave_err *err);
/* Greatest dense rate of any precision, flop/s: what a rule's threshold is compared with. */
double plan_accelerator_most_flop_s(const struct plan_accelerator *a);

#endif
