/* The catalog as people and programs read it: a table of the things of a kind, all facts of one, everything as JSON. What is shown and in which
 * unit comes from the tables of facts; a fact that is not known is left out. */
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "plan/catalog/catalog_parts.h"

#define CELL    64
#define COLUMNS 16

static double real_of(const char *thing, const struct plan_fact *f)
{
	switch (f->type) {
	case PLAN_FACT_REAL:   return *(const double *)(const void *)(thing + f->offset) / (f->scale != 0 ? f->scale : 1);
	case PLAN_FACT_SINGLE: return (double)*(const float *)(const void *)(thing + f->offset);
	default:               return *(const int *)(const void *)(thing + f->offset);
	}
}

static bool is_known(const char *thing, const struct plan_fact *f)
{
	switch (f->type) {
	case PLAN_FACT_TEXT:
	case PLAN_FACT_DAY:
	case PLAN_FACT_ALIASES: return thing[f->offset] != 0;
	case PLAN_FACT_FLAG:    return *(const bool *)(const void *)(thing + f->offset);
	case PLAN_FACT_REAL:
	case PLAN_FACT_SINGLE:
	case PLAN_FACT_WHOLE:   return f->required || real_of(thing, f) != 0;
	default:                return true;
	}
}

static bool any_known(const char *thing, const struct plan_fact *group)
{
	for (const struct plan_fact *f = group; f->key; f++)
		if (is_known(thing, f))
			return true;
	return false;
}

/* "32 x 1, 512 x 1, all x 0.5": nodes and share of full bisection, from inside out. */
static void tiers_text(char *buf, size_t size, const struct plan_network *n)
{
	size_t at = 0;
	for (int i = 0; i < n->tiers && at < size; i++) {
		const struct plan_tier *t = &n->tier[i];
		char nodes[16] = "all";
		if (t->nodes)
			snprintf(nodes, sizeof nodes, "%d", t->nodes);
		at += (size_t)snprintf(buf + at, size - at, "%s%s x %.2g", i ? ", " : "", nodes, t->taper);
	}
}

static void fact_text(char *buf, size_t size, const char *thing, const struct plan_fact *f)
{
	if (!is_known(thing, f)) {
		snprintf(buf, size, "-");
		return;
	}
	switch (f->type) {
	case PLAN_FACT_TEXT:
	case PLAN_FACT_DAY:
	case PLAN_FACT_ALIASES: snprintf(buf, size, "%s", thing + f->offset); break;
	case PLAN_FACT_FLAG:    snprintf(buf, size, "yes"); break;
	case PLAN_FACT_WORD:    snprintf(buf, size, "%s", f->words[*(const int *)(const void *)(thing + f->offset)]); break;
	case PLAN_FACT_WHOLE:   snprintf(buf, size, "%d", *(const int *)(const void *)(thing + f->offset)); break;
	case PLAN_FACT_TIERS:   tiers_text(buf, size, (const struct plan_network *)(const void *)thing); break;
	default:                stave_quantity_text(buf, size, f->dimension, real_of(thing, f), f->currency ? thing + f->currency : NULL);
	}
}

/* ---- a table ---- */

static int gather_columns(const struct plan_fact **columns, int n, const struct plan_fact *facts)
{
	for (const struct plan_fact *f = facts; f->key; f++)
		if (f->type == PLAN_FACT_GROUP)
			n = gather_columns(columns, n, f->group);
		else if (f->listed && n < COLUMNS)
			columns[n++] = f;
	return n;
}

static void cell_text(char *buf, const struct plan_kind *k, const char *thing, const struct plan_fact *f)
{
	if (f)
		fact_text(buf, CELL, thing, f);
	else
		stave_quantity_text(buf, CELL, STAVE_NUMBER, k->derive(thing) / 1e9, NULL);
}

static int max_int(int a, int b) { return a > b ? a : b; }

static void list_kind(const struct plan_catalog *c, const struct plan_kind *k, FILE *to)
{
	const struct plan_fact *columns[COLUMNS + 1] = {NULL};
	int width[COLUMNS + 1], n = gather_columns(columns, 0, k->facts), things, first = (int)strlen(k->word);
	const char *heads[COLUMNS + 1], *array = plan_things(c, k, &things);
	char cell[CELL];
	for (int j = 0; j < n; j++)
		heads[j] = columns[j]->listed;
	if (k->derive)
		heads[n++] = "1e9 parameters"; /* its column has no fact */
	for (int j = 0; j < n; j++)
		width[j] = (int)strlen(heads[j]);
	for (int i = 0; i < things; i++) {
		const char *thing = array + (size_t)i * k->size;
		first = max_int(first, (int)strlen(thing));
		for (int j = 0; j < n; j++) {
			cell_text(cell, k, thing, columns[j]);
			width[j] = max_int(width[j], (int)strlen(cell));
		}
	}
	fprintf(to, "%-*s", first, k->word);
	for (int j = 0; j < n; j++)
		fprintf(to, "  %*s", width[j], heads[j]);
	fputc('\n', to);
	for (int i = 0; i < things; i++) {
		const char *thing = array + (size_t)i * k->size;
		fprintf(to, "%-*s", first, thing);
		for (int j = 0; j < n; j++) {
			cell_text(cell, k, thing, columns[j]);
			fprintf(to, "  %*s", width[j], cell);
		}
		fputc('\n', to);
	}
}

int plan_catalog_list(const struct plan_catalog *c, const char *kind, FILE *to, struct stave_err *err)
{
	const struct plan_kind *k = NULL;
	int rc = kind ? plan_kind_find(kind, &k, err) : 0;
	for (int i = 0; !rc && i < PLAN_KINDS; i++)
		if (!k || k == &plan_kinds[i]) {
			if (!k && i)
				fputc('\n', to);
			list_kind(c, &plan_kinds[i], to);
		}
	return rc;
}

/* ---- one thing ---- */

static void explain_tiers(const struct plan_network *n, FILE *to)
{
	char latency[CELL];
	for (int i = 0; i < n->tiers; i++) {
		const struct plan_tier *t = &n->tier[i];
		stave_quantity_text(latency, sizeof latency, STAVE_SECONDS, t->latency_s, NULL);
		fprintf(to, "  %-18s ", i ? "" : "tiers");
		if (t->nodes)
			fprintf(to, "%d nodes", t->nodes);
		else
			fprintf(to, "all nodes");
		fprintf(to, " at %.3g of full bisection, %s\n", t->taper, latency);
	}
}

static void explain_facts(const char *thing, const struct plan_fact *facts, const char *indent, FILE *to)
{
	const char *source = NULL;
	char text[CELL];
	for (const struct plan_fact *f = facts; f->key; f++) {
		if (!is_known(thing, f))
			continue;
		if (f->type == PLAN_FACT_GROUP)
			continue; /* after these facts and their source */
		if (f->type == PLAN_FACT_TIERS)
			explain_tiers((const struct plan_network *)(const void *)thing, to);
		else if (!strcmp(f->key, "source"))
			source = thing + f->offset;
		else if (f->type == PLAN_FACT_ALIASES) {
			fprintf(to, "%s%-*s", indent, 19, "also written");
			for (int i = 0; i < 8 && thing[f->offset + (size_t)i * PLAN_NAME]; i++)
				fprintf(to, "%s%s", i ? ", " : "", thing + f->offset + (size_t)i * PLAN_NAME);
			fputc('\n', to);
		} else if (source && f->type == PLAN_FACT_DAY)
			fprintf(to, "%s%-*s%s (%s)\n", indent, 19, "source", source, thing + f->offset);
		else {
			fact_text(text, sizeof text, thing, f);
			fprintf(to, "%s%-*s%s\n", indent, 19, f->key, text);
		}
	}
	for (const struct plan_fact *f = facts; f->key; f++)
		if (f->type == PLAN_FACT_GROUP && any_known(thing, f->group)) {
			fprintf(to, "%s%s\n", indent, f->key);
			explain_facts(thing, f->group, "    ", to);
		}
}

static void explain_thing(const struct plan_kind *k, const char *thing, FILE *to)
{
	char text[CELL];
	fprintf(to, "%s %s\n", k->word, thing);
	if (k->derive)
		fprintf(to, "  %-19s%s\n", k->derived, stave_quantity_text(text, sizeof text, STAVE_COUNT, k->derive(thing), NULL));
	explain_facts(thing, k->facts, "  ", to);
}

static int unknown_thing(const struct plan_catalog *c, const char *name, struct stave_err *err)
{
	int total = 0, n;
	for (int i = 0; i < PLAN_KINDS; i++) {
		plan_things(c, &plan_kinds[i], &n);
		total += n;
	}
	const char **names = calloc((size_t)total + 1, sizeof *names), *near;
	if (!names)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to look up '%.60s'", name);
	total = 0;
	for (int i = 0; i < PLAN_KINDS; i++) {
		const char *array = plan_things(c, &plan_kinds[i], &n);
		for (int j = 0; j < n; j++)
			names[total++] = array + (size_t)j * plan_kinds[i].size;
	}
	near = stave_nearest(name, names, (size_t)total);
	free(names);
	return stave_err_set(err, STAVE_ECONFIG, "the catalog has nothing named '%.100s'%s%s%s", name, near ? "; did you mean '" : "; `stave plan catalog` lists it",
	                     near ? near : "", near ? "'?" : "");
}

int plan_catalog_explain(const struct plan_catalog *c, const char *name, FILE *to, struct stave_err *err)
{
	int found = 0;
	for (int i = 0; i < PLAN_KINDS; i++) {
		const char *thing = plan_thing_named(c, &plan_kinds[i], name);
		if (thing && found++)
			fputc('\n', to);
		if (thing)
			explain_thing(&plan_kinds[i], thing, to);
	}
	const struct plan_accelerator *a = found ? NULL : plan_accelerator_find(c, name);
	if (a)
		explain_thing(&plan_kinds[PLAN_KIND_ACCELERATOR], (const char *)a, to);
	return found || a ? 0 : unknown_thing(c, name, err);
}

/* ---- JSON ---- */

/* A key says its unit, as in the program: "memory_bytes", "tdp_w". */
static const char *const suffixes[STAVE_DIMENSIONS] = {
	[STAVE_BYTES] = "_bytes", [STAVE_BYTE_RATE] = "_bytes_s", [STAVE_FLOP_RATE] = "_flop_s", [STAVE_SECONDS] = "_s", [STAVE_WATTS] = "_w", [STAVE_JOULES] = "_j",
	[STAVE_MONEY_PER_SECOND] = "_per_s", [STAVE_MONEY_PER_JOULE] = "_per_j", [STAVE_KG_PER_JOULE] = "_kg_per_j", [STAVE_LITRE_PER_JOULE] = "_l_per_j",
	[STAVE_KILOGRAMS] = "_kg"};

static json_t *tiers_json(const struct plan_network *n)
{
	json_t *list = json_array();
	for (int i = 0; i < n->tiers; i++) {
		const struct plan_tier *t = &n->tier[i];
		json_t *o = json_pack("{s:f, s:f}", "taper", t->taper, "latency_s", t->latency_s);
		if (t->nodes)
			json_object_set_new(o, "nodes", json_integer(t->nodes));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *aliases_json(const char *first)
{
	json_t *list = json_array();
	for (int i = 0; i < 8 && first[i * PLAN_NAME]; i++)
		json_array_append_new(list, json_string(first + i * PLAN_NAME));
	return list;
}

static json_t *fact_json(const char *thing, const struct plan_fact *f)
{
	switch (f->type) {
	case PLAN_FACT_TEXT:
	case PLAN_FACT_DAY:     return json_string(thing + f->offset);
	case PLAN_FACT_ALIASES: return aliases_json(thing + f->offset);
	case PLAN_FACT_FLAG:    return json_true();
	case PLAN_FACT_WORD:    return json_string(f->words[*(const int *)(const void *)(thing + f->offset)]);
	case PLAN_FACT_WHOLE:   return json_integer(*(const int *)(const void *)(thing + f->offset));
	case PLAN_FACT_TIERS:   return tiers_json((const struct plan_network *)(const void *)thing);
	default:
		if (f->currency)
			return json_pack("{s:f, s:s, s:s}", "amount", real_of(thing, f), "currency", thing + f->currency, "date", thing + f->day);
		return json_real(real_of(thing, f));
	}
}

static void facts_json(json_t *o, const char *thing, const struct plan_fact *facts)
{
	char key[64];
	for (const struct plan_fact *f = facts; f->key; f++) {
		const char *suffix = f->type == PLAN_FACT_REAL ? suffixes[f->dimension] : NULL;
		snprintf(key, sizeof key, "%s%s", f->key, suffix ? suffix : "");
		if (f->type == PLAN_FACT_GROUP) {
			if (!any_known(thing, f->group))
				continue;
			json_t *group = json_object();
			facts_json(group, thing, f->group);
			json_object_set_new(o, key, group);
		} else if (is_known(thing, f))
			json_object_set_new(o, key, fact_json(thing, f));
	}
}

json_t *plan_catalog_json(const struct plan_catalog *c)
{
	json_t *all = json_object();
	for (int i = 0; i < PLAN_KINDS; i++) {
		const struct plan_kind *k = &plan_kinds[i];
		int n;
		const char *array = plan_things(c, k, &n);
		json_t *list = json_array();
		for (int j = 0; j < n; j++) {
			const char *thing = array + (size_t)j * k->size;
			json_t *o = json_pack("{s:s}", "name", thing);
			if (k->derive)
				json_object_set_new(o, k->derived, json_integer((json_int_t)k->derive(thing)));
			facts_json(o, thing, k->facts);
			json_array_append_new(list, o);
		}
		json_object_set_new(all, k->word, list);
	}
	return all;
}
