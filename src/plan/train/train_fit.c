/* The constants of training per (accelerator, software stack): read from the catalog's list of fits, carried over to what was never measured, and written
 * back as the same YAML.
 *
 * An entry may name another by `like: STACK` (of the same accelerator, or `like: STACK on ACCELERATOR`) and then lists only what differs. What nobody
 * measured takes its constants from the nearest fit: the same stack on another accelerator before another stack on this one when the stack is known
 * there; accelerators are near when their vendor, and then their flops per watt, are. The data sheet scales the rates, plan_train_power the share of
 * peak, and the error bar widens. Nothing here fails for an unknown name: without any fit the defaults of the table stand, with a bar to match. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/yaml.h"
#include "plan/train/train.h"

#define UNKNOWN_P50 0.20 /* error of a data sheet's roofline with a guessed share: the upper end of what planners report */
#define UNKNOWN_P90 0.45

struct constant {
	const char *name, *what;
	double otherwise, low, high;
	size_t offset;
};
static const struct constant constants[] = {
#define X(name, what, otherwise, low, high, fitted) {#name, what, otherwise, low, high, offsetof(struct plan_train_fit, name)},
	PLAN_TRAIN_CONSTANTS(X)
#undef X
};
enum { CONSTANTS = sizeof constants / sizeof *constants };

static double *at(struct plan_train_fit *f, int i)
{
	return (double *)(void *)((char *)f + constants[i].offset);
}

static void defaults(struct plan_train_fit *f)
{
	*f = (struct plan_train_fit){.error_mean = UNKNOWN_P50, .error_p50 = UNKNOWN_P50, .error_p90 = UNKNOWN_P90, .widen = 1};
	for (int i = 0; i < CONSTANTS; i++)
		*at(f, i) = constants[i].otherwise;
}

/* ---- reading ---- */

static const char *text_of(struct stave_yaml *entry, const char *key)
{
	struct stave_yaml *y = stave_yaml_get(entry, key);
	return y && y->kind == STAVE_YAML_SCALAR ? y->text : "";
}

static struct stave_yaml *list_of(const struct plan_catalog *c)
{
	struct stave_yaml *list = c && c->fits_train ? stave_yaml_get(c->fits_train, "fits") : NULL;
	return list && list->kind == STAVE_YAML_LIST ? list : NULL;
}

static struct stave_yaml *entry_of(const struct plan_catalog *c, const char *accelerator, const char *stack)
{
	struct stave_yaml *list = list_of(c);
	for (int i = 0; list && i < list->n; i++)
		if (!strcasecmp(text_of(&list->child[i], "accelerator"), accelerator) && !strcasecmp(text_of(&list->child[i], "stack"), stack))
			return &list->child[i];
	return NULL;
}

static int quantity(struct stave_yaml *map, const char *key, enum stave_dimension d, double low, double high, double *out, struct stave_err *err)
{
	struct stave_yaml *y = stave_yaml_get(map, key);
	return y ? stave_yaml_quantity(y, d, low, high, out, NULL, err) : 0;
}

static int read_constants(struct stave_yaml *map, struct plan_train_fit *f, struct stave_err *err)
{
	const char *keys[CONSTANTS];
	for (int i = 0; i < CONSTANTS; i++)
		keys[i] = constants[i].name;
	int rc = map ? stave_yaml_keys(map, keys, CONSTANTS, err) : 0;
	for (int i = 0; map && !rc && i < CONSTANTS; i++)
		rc = quantity(map, constants[i].name, STAVE_NUMBER, constants[i].low, constants[i].high, at(f, i), err);
	return rc;
}

static int read_error(struct stave_yaml *map, struct plan_train_fit *f, struct stave_err *err)
{
	static const char *const keys[] = {"rows", "gpus", "mean", "p50", "p90"};
	double rows = f->rows, gpus = f->gpus;
	int rc = map ? stave_yaml_keys(map, keys, 5, err) : 0;
	if (!map || rc)
		return rc;
	if ((rc = quantity(map, "rows", STAVE_COUNT, 0, 1e9, &rows, err)) || (rc = quantity(map, "gpus", STAVE_COUNT, 0, 1e9, &gpus, err)) ||
	    (rc = quantity(map, "mean", STAVE_SHARE, 0, 10, &f->error_mean, err)) || (rc = quantity(map, "p50", STAVE_SHARE, 0, 10, &f->error_p50, err)) ||
	    (rc = quantity(map, "p90", STAVE_SHARE, 0, 10, &f->error_p90, err)))
		return rc;
	f->rows = (int)rows;
	f->gpus = (int)gpus;
	return 0;
}

static void name(char to[PLAN_NAME], const char *from)
{
	size_t n = strnlen(from, PLAN_NAME - 1);
	memcpy(to, from, n);
	to[n] = 0;
}

/* "torchtitan", "torchtitan on h100-sxm". Chains of three at most: a fourth is a loop or a maze. */
static int read_entry(const struct plan_catalog *c, struct stave_yaml *e, int depth, struct plan_train_fit *f, struct stave_err *err)
{
	static const char *const keys[] = {"accelerator", "stack", "like", "groups", "source", "error", "constants"};
	int rc = stave_yaml_keys(e, keys, 7, err);
	if (rc)
		return rc;
	const char *like = text_of(e, "like"), *on = strstr(like, " on ");
	if (*like) {
		char stack[PLAN_NAME], accelerator[PLAN_NAME];
		name(stack, like);
		if (on && on - like < PLAN_NAME)
			stack[on - like] = 0;
		name(accelerator, on ? on + 4 : text_of(e, "accelerator"));
		struct stave_yaml *base = entry_of(c, accelerator, stack);
		if (!base || depth == 3)
			return stave_yaml_error(e, err, "a fit like '%s': expected the stack (\"STACK\" or \"STACK on ACCELERATOR\") of another fit, at most three deep", like);
		if ((rc = read_entry(c, base, depth + 1, f, err)))
			return rc;
	}
	if ((rc = read_constants(stave_yaml_get(e, "constants"), f, err)) || (rc = read_error(stave_yaml_get(e, "error"), f, err)))
		return rc;
	name(f->stack, text_of(e, "stack"));
	name(f->accelerator, text_of(e, "accelerator"));
	strncpy(f->groups, text_of(e, "groups"), sizeof f->groups - 1);
	const struct plan_accelerator *a = plan_accelerator_find(c, f->accelerator);
	f->reference_w = a ? a->tdp_w : 0;
	f->reference_flop_s = a ? a->peak[PLAN_BF16] : 0;
	return 0;
}

/* ---- the nearest fit ---- */

/* Stacks whose programs are alike: the same kernels and the same way to shard. */
static int family(const char *stack)
{
	static const char *const families[][8] = {
		{"megatron", "nemo", "megatron-bridge", "megatron-deepspeed", "deepspeed"},
		{"torchtitan", "llm-foundry", "fsdp", "pytorch", "torchtitan-eager", "axolotl", "trl"},
		{"nanogpt", "modded-nanogpt", "nanochat", "llm.c"},
		{"maxtext", "jax", "t5x"},
	};
	for (size_t i = 0; i < sizeof families / sizeof *families; i++)
		for (int k = 0; k < 8 && families[i][k]; k++)
			if (!strcasecmp(families[i][k], stack))
				return (int)i + 1;
	return 0;
}

/* Steps away: accelerators by vendor and flops per watt (a generation is about 1.4 in its square root), stacks by family. */
static double distance(const struct plan_catalog *c, struct stave_yaml *e, const struct plan_accelerator *a, const char *stack)
{
	const char *theirs = text_of(e, "stack");
	const struct plan_accelerator *b = plan_accelerator_find(c, text_of(e, "accelerator"));
	double d = 0;
	if (!b)
		d = 5;
	else if (strcmp(a->name, b->name)) {
		double ours = a->tdp_w > 0 ? a->peak[PLAN_BF16] / a->tdp_w : 0, its = b->tdp_w > 0 ? b->peak[PLAN_BF16] / b->tdp_w : 0;
		d = 0.5 + (strcmp(a->vendor, b->vendor) ? 2 : 0) + (ours > 0 && its > 0 ? fabs(log(ours / its)) : 1);
	}
	if (*stack && strcasecmp(stack, theirs))
		d += family(stack) && family(stack) == family(theirs) ? 0.6 : 1.2;
	return d;
}

static struct stave_yaml *nearest(const struct plan_catalog *c, const struct plan_accelerator *a, const char *stack, double *away)
{
	struct stave_yaml *list = list_of(c), *best = NULL;
	*away = INFINITY;
	for (int i = 0; list && i < list->n; i++) {
		double d = distance(c, &list->child[i], a, stack);
		if (d < *away) {
			*away = d;
			best = &list->child[i];
		}
	}
	return best;
}

int plan_train_fit_open(struct plan_train_fit **out, const struct plan_catalog *c, const struct plan_accelerator *a, const char *stack, struct stave_err *err)
{
	struct plan_train_fit *f = malloc(sizeof *f);
	if (!f)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the constants of training");
	defaults(f);
	double away;
	struct stave_yaml *e = nearest(c, a, stack ? stack : "", &away);
	int rc = e ? read_entry(c, e, 0, f, err) : 0;
	if (rc) {
		free(f);
		return rc;
	}
	/* each step away adds half of the fit's own error and a tenth outright: the spread seen between neighbouring fits */
	if (e && away > 0) {
		f->widen = 1 + 0.5 * away;
		f->error_p50 = fmax(f->error_p50, 0.04 * away);
		f->error_p90 = fmax(f->error_p90, 0.10 * away);
	}
	*out = f;
	return 0;
}

void plan_train_fit_free(struct plan_train_fit *f) { free(f); }

/* ---- writing ---- */

void plan_train_fit_write(const struct plan_train_fit *f, FILE *to)
{
	struct plan_train_fit g = *f;
	fprintf(to, "  - accelerator: %s\n    stack: %s\n", f->accelerator, f->stack);
	if (*f->groups)
		fprintf(to, "    groups: \"%s\"\n", f->groups);
	fprintf(to, "    error: {rows: %d, gpus: %d, mean: %.2f %%, p50: %.2f %%, p90: %.2f %%}\n    constants:\n", f->rows, f->gpus, 100 * f->error_mean, 100 * f->error_p50,
	        100 * f->error_p90);
	for (int i = 0; i < CONSTANTS; i++)
		if (fabs(*at(&g, i) - constants[i].otherwise) > 1e-9 * fabs(constants[i].otherwise))
			fprintf(to, "      %s: %.4g # %s\n", constants[i].name, *at(&g, i), constants[i].what);
}

void plan_train_fit_save(const struct plan_train_fit *f, const struct plan_catalog *c, FILE *to)
{
	struct stave_yaml *fits = stave_yaml_get(c->fits_train, "fits");
	fputs("fits:\n", to);
	for (int i = 0; fits && i < fits->n; i++) {
		struct stave_yaml *e = &fits->child[i];
		if (!strcasecmp(text_of(e, "accelerator"), f->accelerator) && !strcasecmp(text_of(e, "stack"), f->stack))
			continue;
		fputs("  - ", to);
		stave_yaml_write(e, to);
		fputc('\n', to);
	}
	plan_train_fit_write(f, to);
}
