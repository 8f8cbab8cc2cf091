/* Private to plan/: when a site is ready. Items with three-point estimates and what each waits for; seconds from the start. */
#ifndef STAVE_PLAN_SCHEDULE_H
#define STAVE_PLAN_SCHEDULE_H

#include <stdint.h>

#include "base/err.h"

enum { PLAN_ITEMS_MAX = 64, PLAN_AFTER_MAX = 8 };

struct plan_item {
	const char *name;
	double low_s, likely_s, high_s;       /* low <= likely <= high: a beta-PERT distribution */
	const char *after[PLAN_AFTER_MAX];    /* names of items that must be done first */
	int afters;
};
struct plan_ready {
	double p10_s, p50_s, p90_s, mean_s, likely_s; /* likely: every item takes its likely time */
	int path[PLAN_ITEMS_MAX], path_n;     /* critical path of the likely times, first item first */
	double critical[PLAN_ITEMS_MAX];      /* share of the draws in which the item lay on the critical path */
	double critical_s[PLAN_ITEMS_MAX];    /* mean time that the item puts on the critical path: their sum is mean_s */
	int decides;                          /* item that puts most time there (a short last step is always critical, but decides nothing); -1 without items */
	double by_share;                      /* share of the draws that are ready by `by_s` */
};
/* Ready is when the last item is done. An item starts when all it waits for are done. `draws` (1 .. 1000000) of all items, independent, from `seed`: the same seed gives the
 * same answer. by_s: a date to hold the draws against; any number.
 * Items follow the beta distribution with shapes 1 + 4 (likely - low) / (high - low) and 1 + 4 (high - likely) / (high - low), mean (low + 4 likely + high) / 6 (Malcolm
 * et al. 1959, "PERT"). STAVE_ECONFIG for a cycle (its items are named), an unknown or doubled name, or estimates out of order. */
int plan_schedule_run(const struct plan_item *item, int n, uint64_t seed, int draws, double by_s, struct plan_ready *out, struct stave_err *err);

#endif
