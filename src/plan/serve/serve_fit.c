/* The constants of an (accelerator, engine), read from catalog/fits-serve.yaml.
 *
 * The file has how each engine schedules (from its documentation), fits with their residuals, and how much further off a fit is when it is used for
 * another engine or accelerator than its own (from leaving those out). Every pair gets an answer: the nearest fit, whose shares are of data-sheet rates
 * and so move with the accelerator, under wider bars. */
#include "plan/serve/serve_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/truth/truth_words.h"

const struct plan_serve_constant_kind plan_serve_constant_kinds[PLAN_SERVE_COUNT] = {
#define X(id, name, dimension, low, high) {name, dimension, low, high},
	PLAN_SERVE_CONSTANTS(X)
#undef X
};

enum { BLOCK_TOKENS_MAX = 1 << 20 };

enum plan_precision plan_serve_cache_precision(const struct plan_serve_fit *f, enum plan_precision weights)
{
	return f->engine.narrow_cache && plan_weight_bytes(weights) < 2 ? PLAN_FP8 : PLAN_BF16;
}

/* A key that must be there. */
static int need(struct stave_yaml *map, const char *key, struct stave_yaml **out, struct stave_err *err)
{
	*out = stave_yaml_get(map, key);
	return *out ? 0 : stave_yaml_error(map, err, "'%s' is missing", key);
}

static int quantity(struct stave_yaml *map, const char *key, enum stave_dimension d, double low, double high, double *out, struct stave_err *err)
{
	struct stave_yaml *node;
	int rc = need(map, key, &node, err);
	return rc < 0 ? rc : stave_yaml_quantity(node, d, low, high, out, NULL, err);
}

static int flag(struct stave_yaml *map, const char *key, bool *out, struct stave_err *err)
{
	struct stave_yaml *node;
	int rc = need(map, key, &node, err);
	return rc < 0 ? rc : stave_yaml_bool(node, out, err);
}

static int read_engine(struct stave_yaml *at, struct plan_engine *e, struct stave_err *err)
{
	double chunk, batch;
	int rc;
	if ((rc = quantity(at, "chunk", STAVE_COUNT, 1, BLOCK_TOKENS_MAX, &chunk, err)) < 0 ||
	    (rc = quantity(at, "max-batch", STAVE_COUNT, 1, BLOCK_TOKENS_MAX, &batch, err)) < 0 ||
	    (rc = quantity(at, "reserve", STAVE_SHARE, 0, 1, &e->reserve, err)) < 0 ||
	    (rc = quantity(at, "memory", STAVE_SHARE, 0.05, 1, &e->memory_share, err)) < 0 ||
	    (rc = quantity(at, "drift", STAVE_SHARE, 0, 1, &e->drift, err)) < 0 || (rc = flag(at, "mixed", &e->mixed, err)) < 0 ||
	    (rc = flag(at, "whole-prompts", &e->whole, err)) < 0 || (rc = flag(at, "narrow-cache", &e->narrow_cache, err)) < 0)
		return rc;
	e->chunk = (int)chunk;
	e->max_batch = (int)batch;
	snprintf(e->name, sizeof e->name, "%s", at->key);
	return 0;
}

static int read_constants(struct stave_yaml *fit, double *k, struct stave_err *err)
{
	struct stave_yaml *map;
	int rc = need(fit, "constants", &map, err);
	for (int i = 0; rc == 0 && i < PLAN_SERVE_COUNT; i++) {
		const struct plan_serve_constant_kind *kind = &plan_serve_constant_kinds[i];
		rc = quantity(map, kind->name, kind->dimension, kind->low, kind->high, &k[i], err);
	}
	return rc;
}

/* The larger of what is there and the bar in the file, which is of rows that the fit has not seen. A metric that no row measured has none. */
static int widen(struct stave_yaml *residuals, const char *metric, struct plan_error_bar *bar, struct stave_err *err)
{
	struct stave_yaml *map = stave_yaml_get(residuals, metric);
	double p50, p90;
	int rc;
	if (!map)
		return 0;
	if ((rc = quantity(map, "held-out-p50", STAVE_SHARE, 0, 100, &p50, err)) < 0 || (rc = quantity(map, "held-out-p90", STAVE_SHARE, 0, 100, &p90, err)) < 0)
		return rc;
	bar->p50 = fmax(bar->p50, p50);
	bar->p90 = fmax(bar->p90, p90);
	return 0;
}

static int widen_all(struct stave_yaml *residuals, struct plan_serve_fit *f, struct stave_err *err)
{
	int rc;
	if ((rc = widen(residuals, "ttft", &f->ttft, err)) < 0 || (rc = widen(residuals, "tpot", &f->tpot, err)) < 0)
		return rc;
	return widen(residuals, "throughput", &f->throughput, err);
}

/* ---- the nearest ---- */

bool plan_serve_same_chip(const struct plan_accelerator *a, const struct plan_accelerator *b)
{
	if (!a || !b || strcmp(a->vendor, b->vendor) || a->cpu != b->cpu)
		return false;
	for (int p = 0; p < PLAN_PRECISIONS; p++)
		if (fabs(a->peak[p] - b->peak[p]) > 0.01 * a->peak[p])
			return false;
	return true;
}

/* How unlike two accelerators are: by class, vendor and what the data sheets promise. */
static double distance(const struct plan_accelerator *a, const struct plan_accelerator *b)
{
	if (!strcmp(a->name, b->name))
		return 0;
	double peak = log(fmax(a->peak[PLAN_BF16], a->peak[PLAN_F32]) / fmax(b->peak[PLAN_BF16], b->peak[PLAN_F32]));
	double bandwidth = log(a->memory_bytes_s / b->memory_bytes_s);
	double unlike = 0.2 + (isfinite(peak) ? fabs(peak) : 10) + (isfinite(bandwidth) ? fabs(bandwidth) : 10);
	return unlike + (strcmp(a->vendor, b->vendor) ? 1 : 0) + (a->cpu != b->cpu ? 10 : 0);
}

struct nearest {
	struct stave_yaml *fit;
	double miss;
	bool other_engine, other_accelerator;
	char accelerator[PLAN_NAME], engine[PLAN_NAME];
};

/* Another engine costs as much as an accelerator of 2.7 times the rate. */
static int consider(struct stave_yaml *fit, const struct plan_catalog *c, const struct plan_accelerator *a, const char *engine, struct nearest *best,
                    struct stave_err *err)
{
	struct stave_yaml *accelerator, *name;
	int rc;
	if ((rc = need(fit, "accelerator", &accelerator, err)) < 0 || (rc = need(fit, "engine", &name, err)) < 0)
		return rc;
	const struct plan_accelerator *its = plan_accelerator_find(c, accelerator->text ? accelerator->text : "");
	if (!its || !name->text)
		return stave_yaml_error(fit, err, "a fit names an accelerator of the catalog and an engine");
	bool other = *engine && strcmp(engine, name->text);
	double miss = distance(a, its) + (other ? 1 : 0);
	if (best->fit && miss >= best->miss)
		return 0;
	*best = (struct nearest){.fit = fit, .miss = miss, .other_engine = other, .other_accelerator = !plan_serve_same_chip(its, a)};
	snprintf(best->accelerator, sizeof best->accelerator, "%s", its->name);
	snprintf(best->engine, sizeof best->engine, "%s", name->text);
	return 0;
}

static int find_nearest(struct stave_yaml *file, const struct plan_catalog *c, const struct plan_accelerator *a, const char *engine, struct nearest *best,
                        struct stave_err *err)
{
	struct stave_yaml *fits;
	int rc = need(file, "fits", &fits, err);
	*best = (struct nearest){0};
	for (int i = 0; rc == 0 && i < fits->n; i++)
		rc = consider(&fits->child[i], c, a, engine, best, err);
	if (rc == 0 && !best->fit)
		rc = stave_yaml_error(fits, err, "no fit is listed");
	return rc;
}

/* A metric of which the fit has no row is as uncertain as away from home. */
static int fill_unseen(struct stave_yaml *elsewhere, struct plan_serve_fit *f, struct stave_err *err)
{
	struct {
		const char *metric;
		struct plan_error_bar *bar;
	} all[] = {{"ttft", &f->ttft}, {"tpot", &f->tpot}, {"throughput", &f->throughput}};
	int rc = 0;
	for (int i = 0; rc == 0 && i < 3; i++)
		if (all[i].bar->p50 == 0)
			rc = widen(elsewhere, all[i].metric, all[i].bar, err);
	return rc;
}

static int fill(struct stave_yaml *file, const struct nearest *near, const char *engine, struct plan_serve_fit *f, struct stave_err *err)
{
	struct stave_yaml *engines, *regimes, *at;
	int rc;
	if ((rc = need(file, "engines", &engines, err)) < 0 || (rc = need(file, "regimes", &regimes, err)) < 0)
		return rc;
	at = stave_yaml_get(engines, *engine ? engine : near->engine);
	if (!at && (rc = need(engines, "default", &at, err)) < 0)
		return rc;
	snprintf(f->accelerator, sizeof f->accelerator, "%s", near->accelerator);
	if ((rc = read_engine(at, &f->engine, err)) < 0 || (rc = read_constants(near->fit, f->k, err)) < 0 ||
	    (rc = widen_all(stave_yaml_get(near->fit, "residuals"), f, err)) < 0)
		return rc;
	if (near->other_engine && (rc = widen_all(stave_yaml_get(regimes, "other-engine"), f, err)) < 0)
		return rc;
	struct stave_yaml *elsewhere = stave_yaml_get(regimes, "other-accelerator");
	return near->other_accelerator ? widen_all(elsewhere, f, err) : fill_unseen(elsewhere, f, err);
}

int plan_serve_fit_open(struct plan_serve_fit **out, const struct plan_catalog *c, const struct plan_accelerator *a, const char *engine, struct stave_err *err)
{
	struct nearest near;
	const char *name = engine && *engine ? plan_words_stack(engine, NULL, 0) : "";
	if (!*name && engine)
		name = engine; /* one we do not know by name: its own section in the file, or the default's */
	int rc = find_nearest(c->fits_serve, c, a, name, &near, err);
	if (rc < 0)
		return rc;
	struct plan_serve_fit *f = calloc(1, sizeof *f);
	if (!f)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the constants of %s", a->name);
	if ((rc = fill(c->fits_serve, &near, name, f, err)) < 0) {
		free(f);
		return rc;
	}
	*out = f;
	return 0;
}

void plan_serve_fit_free(struct plan_serve_fit *f)
{
	free(f);
}
