/* Private to the catalog's files: the table of kinds, and for each the table of its facts, from which reading, listing, explaining and the JSON
 * document derive. */
#ifndef STAVE_PLAN_CATALOG_PARTS_H
#define STAVE_PLAN_CATALOG_PARTS_H

#include "base/yaml.h"
#include "plan/catalog/hardware.h"

enum plan_fact_type {
	PLAN_FACT_TEXT,    /* char[size] */
	PLAN_FACT_DAY,     /* char[12], a checked date */
	PLAN_FACT_ALIASES, /* char[8][PLAN_NAME] */
	PLAN_FACT_REAL,    /* double, of `dimension`, times `scale`; with a currency and its date beside it where the dimension is money */
	PLAN_FACT_SINGLE,  /* float */
	PLAN_FACT_WHOLE,   /* int */
	PLAN_FACT_FLAG,    /* bool */
	PLAN_FACT_WORD,    /* int: index into `words` */
	PLAN_FACT_TIERS,   /* a network's */
	PLAN_FACT_GROUP,   /* facts of a map below, of the same struct */
};
struct plan_fact {
	const char *key;
	enum plan_fact_type type;
	enum stave_dimension dimension;
	size_t offset, size;
	double min, max;
	bool required;
	double scale;             /* 0: 1 */
	size_t currency, day;     /* of money: offsets of its char[4] and char[12] */
	const char *const *words; /* ended by NULL */
	const struct plan_fact *group; /* ended by a key of NULL */
	const char *listed;       /* heading of its column in a list, NULL: not there */
};
struct plan_kind {
	const char *word, *file;
	size_t size, name_size;   /* of a thing and of the name it begins with */
	size_t array, count;      /* offsets in struct plan_catalog */
	const struct plan_fact *facts;
	/* Before its facts are read and after; either may be NULL. */
	int (*before)(void *thing, struct stave_yaml *at, struct stave_err *err);
	int (*after)(void *thing, const struct stave_yaml *at, struct stave_err *err);
	/* What follows from its facts and people ask for first; NULL: nothing. */
	const char *derived;
	double (*derive)(const void *thing);
};
enum { PLAN_KIND_ACCELERATOR, PLAN_KIND_NODE, PLAN_KIND_NETWORK, PLAN_KIND_STORAGE, PLAN_KIND_COOLING, PLAN_KIND_GRID, PLAN_KIND_LEAD_TIME, PLAN_KIND_EXCHANGE, PLAN_KIND_MODEL,
       PLAN_KINDS };
extern const struct plan_kind plan_kinds[PLAN_KINDS];

static inline const char *plan_things(const struct plan_catalog *c, const struct plan_kind *k, int *n)
{
	*n = *(const int *)(const void *)((const char *)c + k->count);
	return *(char *const *)(const void *)((const char *)c + k->array);
}

/* Facts of a map into `thing` (catalog_read.c). */
int plan_facts_read(void *thing, const struct plan_fact *facts, struct stave_yaml *map, struct stave_err *err);
/* By word, also in the plural ("grids"); STAVE_ECONFIG with the nearest (catalog_find.c). */
int plan_kind_find(const char *word, const struct plan_kind **out, struct stave_err *err);
/* The thing of a kind whose very name this is, but for case and separators; NULL: none. */
const void *plan_thing_named(const struct plan_catalog *c, const struct plan_kind *k, const char *name);
/* The text of a file of catalog/ built into the program; NULL: there is none (catalog_embed.c). */
const char *plan_catalog_embedded(const char *file, size_t *bytes);

#endif
