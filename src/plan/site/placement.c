/* Where work may go: each rule is asked in turn, and the first that forbids answers.
 *
 * A site whose region is not known can satisfy no residency and no export rule: "unknown" is not "allowed". */
#include "plan/site/placement.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "plan/site/reliability.h"

bool plan_region_within(const char *region, const char *whole)
{
	size_t n = strlen(whole);
	return n > 0 && !strncasecmp(region, whole, n) && (region[n] == 0 || region[n] == '-');
}

double plan_accelerator_most_flop_s(const struct plan_accelerator *a)
{
	double most = 0;
	for (int p = 0; p < PLAN_PRECISIONS; p++)
		most = fmax(most, a->peak[p]);
	return most;
}

/* A rule speaks of one accelerator by name, or of all that are fast enough. */
static bool concerns(const struct plan_rule *r, const struct plan_accelerator *a)
{
	if (r->accelerator[0]) {
		if (!strcasecmp(r->accelerator, a->name))
			return true;
		for (size_t i = 0; i < sizeof a->alias / sizeof *a->alias; i++)
			if (a->alias[i][0] && !strcasecmp(r->accelerator, a->alias[i]))
				return true;
		return false;
	}
	return r->flop_s > 0 && plan_accelerator_most_flop_s(a) >= r->flop_s;
}

static int check_rule(const struct plan_location *at, const struct plan_accelerator *a, const struct plan_rule *r, struct stave_err *err)
{
	if (!concerns(r, a))
		return 0;
	for (int i = 0; i < r->regions; i++) {
		if (!at->region[0])
			return stave_err_set(err, STAVE_ENOFIT, "%s: the export rule of line %d keeps %s out of %s, and the site does not say its region: give it", at->name, r->line,
			                     a->name, r->region[i]);
		if (plan_region_within(at->region, r->region[i]))
			return stave_err_set(err, STAVE_ENOFIT, "%s: the export rule of line %d keeps %s out of %s: use a site elsewhere or another accelerator", at->name, r->line,
			                     a->name, r->region[i]);
	}
	return 0;
}

int plan_placement_check(const struct plan_location *at, const char *residency, const struct plan_accelerator *a, const struct plan_rule *rule, int rules, struct stave_err *err)
{
	if (residency && residency[0] && !plan_region_within(at->region, residency))
		return stave_err_set(err, STAVE_ENOFIT, "%s: its region is %s, but the data must stay in %s: use a site there", at->name, at->region[0] ? at->region : "not given",
		                     residency);
	for (int i = 0; i < rules; i++) {
		int rc = check_rule(at, a, &rule[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}
