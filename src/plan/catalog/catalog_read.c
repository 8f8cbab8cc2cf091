/* Reads the facts of a thing from a map, by the table of its kind: unknown keys, missing facts, wrong units and numbers out of bounds are
 * errors with file and line. */
#include <string.h>

#include "plan/catalog/catalog_parts.h"

static int read_text(char *to, size_t size, struct stave_yaml *at, struct stave_err *err)
{
	if (at->kind != STAVE_YAML_SCALAR || !*at->text)
		return stave_yaml_error(at, err, "%s wants a text", at->key ? at->key : "this entry");
	if (strlen(at->text) >= size)
		return stave_yaml_error(at, err, "%s is %zu bytes long; at most %zu fit", at->key ? at->key : "this entry", strlen(at->text), size - 1);
	strcpy(to, at->text);
	return 0;
}

static int read_day(char *to, struct stave_yaml *at, struct stave_err *err)
{
	double days;
	int rc = stave_yaml_quantity(at, STAVE_DATE, 0, 1e6, &days, NULL, err);
	return rc ? rc : read_text(to, 12, at, err);
}

static int read_aliases(char (*to)[PLAN_NAME], struct stave_yaml *at, struct stave_err *err)
{
	if (at->kind != STAVE_YAML_LIST || at->n > 8)
		return stave_yaml_error(at, err, "%s wants a list of at most 8 names", at->key);
	int rc = 0;
	for (int i = 0; !rc && i < at->n; i++)
		rc = read_text(to[i], PLAN_NAME, &at->child[i], err);
	return rc;
}

/* Money goes with a date, that of the map it stands in. */
static int read_real(char *thing, const struct plan_fact *f, struct stave_yaml *map, struct stave_yaml *at, struct stave_err *err)
{
	double value, scale = f->scale != 0 ? f->scale : 1;
	char currency[4];
	int rc = stave_yaml_quantity(at, f->dimension, f->min, f->max, &value, currency, err);
	if (rc)
		return rc;
	*(double *)(void *)(thing + f->offset) = value * scale;
	if (!f->currency)
		return 0;
	struct stave_yaml *day = stave_yaml_get(map, "date");
	if (!day)
		return stave_yaml_error(at, err, "%s needs a date beside it, such as 'date: 2025-06-30'", f->key);
	memcpy(thing + f->currency, currency, sizeof currency);
	return read_day(thing + f->day, day, err);
}

static int read_whole(char *thing, const struct plan_fact *f, struct stave_yaml *at, struct stave_err *err)
{
	double value;
	int rc = stave_yaml_quantity(at, STAVE_COUNT, f->min, f->max, &value, NULL, err);
	if (!rc)
		*(int *)(void *)(thing + f->offset) = (int)value;
	return rc;
}

static int read_single(char *thing, const struct plan_fact *f, struct stave_yaml *at, struct stave_err *err)
{
	double value;
	int rc = stave_yaml_quantity(at, f->dimension, f->min, f->max, &value, NULL, err);
	if (!rc)
		*(float *)(void *)(thing + f->offset) = (float)value;
	return rc;
}

static int read_word(char *thing, const struct plan_fact *f, struct stave_yaml *at, struct stave_err *err)
{
	size_t n = 0;
	while (f->words[n])
		n++;
	return stave_yaml_choice(at, f->words, n, (int *)(void *)(thing + f->offset), err);
}

/* Innermost first; each joins more nodes than the one before it, and only the last may join all. */
static int read_tiers(struct plan_network *net, struct stave_yaml *at, struct stave_err *err)
{
	static const struct plan_fact facts[] = {
		{.key = "nodes", .type = PLAN_FACT_WHOLE, .offset = offsetof(struct plan_tier, nodes), .min = 1, .max = 1e8},
		{.key = "taper", .type = PLAN_FACT_REAL, .dimension = STAVE_SHARE, .offset = offsetof(struct plan_tier, taper), .min = 1e-6, .max = 1, .required = true},
		{.key = "latency", .type = PLAN_FACT_REAL, .dimension = STAVE_SECONDS, .offset = offsetof(struct plan_tier, latency_s), .max = 10, .required = true},
		{0}};
	if (at->kind != STAVE_YAML_LIST || at->n < 1 || at->n > 4)
		return stave_yaml_error(at, err, "%s wants a list of 1 to 4 tiers, such as '- {nodes: 32, taper: 1, latency: 5 us}'", at->key);
	for (int i = 0; i < at->n; i++) {
		int rc = plan_facts_read(&net->tier[i], facts, &at->child[i], err);
		if (rc)
			return rc;
		if (!net->tier[i].nodes != (i == at->n - 1) || (i && net->tier[i].nodes && net->tier[i].nodes <= net->tier[i - 1].nodes))
			return stave_yaml_error(&at->child[i], err, "tiers go from inside out: each joins more nodes than the one before, and the last, without 'nodes', joins all");
	}
	net->tiers = at->n;
	return 0;
}

static int read_fact(char *thing, const struct plan_fact *f, struct stave_yaml *map, struct stave_yaml *at, struct stave_err *err)
{
	switch (f->type) {
	case PLAN_FACT_TEXT:    return read_text(thing + f->offset, f->size, at, err);
	case PLAN_FACT_DAY:     return read_day(thing + f->offset, at, err);
	case PLAN_FACT_ALIASES: return read_aliases((char(*)[PLAN_NAME])(thing + f->offset), at, err);
	case PLAN_FACT_REAL:    return read_real(thing, f, map, at, err);
	case PLAN_FACT_SINGLE:  return read_single(thing, f, at, err);
	case PLAN_FACT_WHOLE:   return read_whole(thing, f, at, err);
	case PLAN_FACT_FLAG:    return stave_yaml_bool(at, (bool *)(thing + f->offset), err);
	case PLAN_FACT_WORD:    return read_word(thing, f, at, err);
	case PLAN_FACT_TIERS:   return read_tiers((struct plan_network *)(void *)thing, at, err);
	case PLAN_FACT_GROUP:   return plan_facts_read(thing, f->group, at, err);
	}
	return 0;
}

int plan_facts_read(void *thing, const struct plan_fact *facts, struct stave_yaml *map, struct stave_err *err)
{
	const char *keys[40];
	size_t n = 0;
	for (; facts[n].key; n++)
		keys[n] = facts[n].key;
	int rc = stave_yaml_keys(map, keys, n, err);
	for (const struct plan_fact *f = facts; !rc && f->key; f++) {
		struct stave_yaml *at = stave_yaml_get(map, f->key);
		if (at)
			rc = read_fact(thing, f, map, at, err);
		else if (f->required)
			rc = stave_yaml_error(map, err, "%s%s'%s' is missing", map->key ? map->key : "", map->key ? ": " : "", f->key);
	}
	return rc;
}
