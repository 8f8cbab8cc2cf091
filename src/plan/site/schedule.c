/* Critical path by sorting the items so that each comes after what it waits for, then one sweep per draw.
 *
 * The mean of a maximum is not the maximum of the means: two independent branches of the same likely length are late together less often than either alone, but the
 * later of them is later than each. So dates come from drawn histories, not from adding up estimates. */
#include "plan/site/schedule.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct graph {
	int n, order[PLAN_ITEMS_MAX];         /* items, each after what it waits for */
	int before[PLAN_ITEMS_MAX][PLAN_AFTER_MAX], befores[PLAN_ITEMS_MAX];
};

static int find(const struct plan_item *item, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(item[i].name, name))
			return i;
	return -1;
}

static int check_item(const struct plan_item *item, int n, int i, struct graph *g, struct stave_err *err)
{
	const struct plan_item *it = &item[i];
	if (find(item, n, it->name) != i)
		return stave_err_set(err, STAVE_ECONFIG, "the schedule has two items '%s': name them apart", it->name);
	if (!(it->low_s >= 0 && it->low_s <= it->likely_s && it->likely_s <= it->high_s && it->high_s <= 1e12))
		return stave_err_set(err, STAVE_ECONFIG, "'%s' takes %g, %g, %g days: wanted low <= likely <= high, none below zero", it->name, it->low_s / 86400, it->likely_s / 86400,
		                     it->high_s / 86400);
	if (it->afters < 0 || it->afters > PLAN_AFTER_MAX)
		return stave_err_set(err, STAVE_ECONFIG, "'%s' waits for %d items: at most %d", it->name, it->afters, PLAN_AFTER_MAX);
	g->befores[i] = it->afters;
	for (int k = 0; k < it->afters; k++)
		if ((g->before[i][k] = find(item, n, it->after[k])) < 0)
			return stave_err_set(err, STAVE_ECONFIG, "'%s' waits for '%s', which is not an item of the schedule", it->name, it->after[k]);
	return 0;
}

/* Names of a cycle: from any item that could not be sorted, walk back through unsorted ones until one repeats. */
static int report_cycle(const struct plan_item *item, const struct graph *g, const bool *sorted, struct stave_err *err)
{
	char text[600] = "";
	bool seen[PLAN_ITEMS_MAX] = {false};
	int at = 0, first;
	while (sorted[at])
		at++;
	for (int pass = 0; pass < 2; pass++) { /* the first walk ends inside the cycle, the second names it */
		memset(seen, 0, sizeof seen);
		for (first = at; !seen[at];) {
			seen[at] = true;
			size_t used = strlen(text);
			if (pass && used < sizeof text - 80)
				snprintf(text + used, sizeof text - used, "'%.60s' waits for ", item[at].name);
			int k = 0;
			while (sorted[g->before[at][k]])
				k++;
			at = g->before[at][k];
		}
	}
	return stave_err_set(err, STAVE_ECONFIG, "the schedule goes in a circle: %s'%.60s'", text, item[first].name);
}

static int sort_items(const struct plan_item *item, int n, struct graph *g, struct stave_err *err)
{
	bool sorted[PLAN_ITEMS_MAX] = {false};
	while (g->n < n) {
		int before = g->n;
		for (int i = 0; i < n; i++) {
			int waits = 0;
			for (int k = 0; k < g->befores[i]; k++)
				waits += !sorted[g->before[i][k]];
			if (!sorted[i] && !waits) {
				sorted[i] = true;
				g->order[g->n++] = i;
			}
		}
		if (g->n == before)
			return report_cycle(item, g, sorted, err);
	}
	return 0;
}

/* Finish time of everything for given durations; the item each waited for longest goes to `cause` (-1: it could start at once). Returns the item that is done last. */
static int sweep(const struct graph *g, const double *takes, double *done, int *cause)
{
	int last = -1;
	for (int j = 0; j < g->n; j++) {
		int i = g->order[j];
		double start = 0;
		cause[i] = -1;
		for (int k = 0; k < g->befores[i]; k++) {
			int b = g->before[i][k];
			if (cause[i] < 0 || done[b] > start) {
				start = done[b];
				cause[i] = b;
			}
		}
		done[i] = start + takes[i];
		if (last < 0 || done[i] > done[last])
			last = i;
	}
	return last;
}

/* splitmix64 (Steele et al. 2014), to (0, 1). */
static double uniform(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;
	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return ((double)((z ^ z >> 31) >> 11) + 0.5) / 9007199254740992.0;
}

/* Gamma variate of shape k >= 1 (Marsaglia and Tsang 2000), normals by Box and Muller. */
static double gamma_draw(double k, uint64_t *state)
{
	double d = k - 1.0 / 3, c = 1 / sqrt(9 * d);
	for (;;) {
		double radius = sqrt(-2 * log(uniform(state)));
		double x = radius * cos(2 * M_PI * uniform(state)), v = 1 + c * x;
		if (v <= 0)
			continue;
		v *= v * v;
		if (log(uniform(state)) < 0.5 * x * x + d - d * v + d * log(v))
			return d * v;
	}
}

static double pert_draw(const struct plan_item *it, uint64_t *state)
{
	double width = it->high_s - it->low_s;
	if (!(width > 0))
		return it->likely_s;
	double a = gamma_draw(1 + 4 * (it->likely_s - it->low_s) / width, state), b = gamma_draw(1 + 4 * (it->high_s - it->likely_s) / width, state);
	return it->low_s + width * a / (a + b);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void likely_path(const struct plan_item *item, const struct graph *g, struct plan_ready *r)
{
	double takes[PLAN_ITEMS_MAX], done[PLAN_ITEMS_MAX];
	int cause[PLAN_ITEMS_MAX];
	for (int i = 0; i < g->n; i++)
		takes[i] = item[i].likely_s;
	int last = sweep(g, takes, done, cause);
	r->likely_s = last < 0 ? 0 : done[last];
	for (int i = last; i >= 0; i = cause[i]) {
		memmove(r->path + 1, r->path, (size_t)r->path_n * sizeof *r->path);
		r->path[0] = i;
		r->path_n++;
	}
}

static void draw_all(const struct plan_item *item, const struct graph *g, uint64_t seed, int draws, double by_s, double *ready, struct plan_ready *r)
{
	double takes[PLAN_ITEMS_MAX], done[PLAN_ITEMS_MAX];
	int cause[PLAN_ITEMS_MAX];
	for (int d = 0; d < draws; d++) {
		for (int i = 0; i < g->n; i++)
			takes[i] = pert_draw(&item[i], &seed);
		int last = sweep(g, takes, done, cause);
		ready[d] = last < 0 ? 0 : done[last];
		r->mean_s += ready[d];
		r->by_share += ready[d] <= by_s;
		for (int i = last; i >= 0; i = cause[i]) {
			r->critical[i]++;
			r->critical_s[i] += takes[i];
		}
	}
	r->mean_s /= draws;
	r->by_share /= draws;
	for (int i = 0; i < g->n; i++) {
		r->critical[i] /= draws;
		r->critical_s[i] /= draws;
	}
}

int plan_schedule_run(const struct plan_item *item, int n, uint64_t seed, int draws, double by_s, struct plan_ready *out, struct stave_err *err)
{
	struct graph g = {0};
	struct plan_ready r = {.decides = -1};
	int rc = 0;
	if (n < 0 || n > PLAN_ITEMS_MAX || draws < 1 || draws > 1000000)
		return stave_err_set(err, STAVE_ECONFIG, "a schedule of %d items, drawn %d times: at most %d items and 1 to 1000000 draws", n, draws, PLAN_ITEMS_MAX);
	for (int i = 0; i < n && !rc; i++)
		rc = check_item(item, n, i, &g, err);
	if (rc < 0 || (rc = sort_items(item, n, &g, err)) < 0)
		return rc;
	double *ready = malloc((size_t)draws * sizeof *ready);
	if (!ready)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d draws of a schedule", draws);
	likely_path(item, &g, &r);
	draw_all(item, &g, seed, draws, by_s, ready, &r);
	qsort(ready, (size_t)draws, sizeof *ready, ascending);
	r.p10_s = ready[(int)(0.1 * (draws - 1))];
	r.p50_s = ready[(int)(0.5 * (draws - 1))];
	r.p90_s = ready[(int)(0.9 * (draws - 1))];
	free(ready);
	for (int i = 0; i < n; i++)
		if (r.decides < 0 || r.critical_s[i] > r.critical_s[r.decides])
			r.decides = i;
	*out = r;
	return 0;
}
