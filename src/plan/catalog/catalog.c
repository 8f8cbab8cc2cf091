/* The catalog: machines, networks, places, prices and models as facts in files, opened into plain structs.
 *
 * The files of catalog/ are built into the program. Files of the same names in a directory of the user add to them: a thing with a name of its
 * own is new, one with a known name takes that one's place, so that a machine of one's own is ten lines. (Fits are constants that belong together:
 * there the whole file is replaced.) Every thing passes the table of its kind, and what refers to another (a node to its accelerator, a price to
 * its currency) is followed when the catalog is opened, so that nobody after it meets a name without a thing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "plan/catalog/catalog_parts.h"

static void **array_of(struct plan_catalog *c, const struct plan_kind *k) { return (void **)(void *)((char *)c + k->array); }
static int *count_of(struct plan_catalog *c, const struct plan_kind *k) { return (int *)(void *)((char *)c + k->count); }

enum { BUILT_IN, OF_USER, ORIGINS };

/* A kind while it is read: its files and, thing by thing, where each stands in them. */
struct reading {
	struct stave_yaml *file[ORIGINS], **at;
	int n;
};

static int load_built_in(struct stave_yaml **out, const char *file, struct stave_err *err)
{
	char name[64];
	size_t n = 0;
	const char *text = plan_catalog_embedded(file, &n);
	if (!text)
		return stave_err_set(err, STAVE_EFAIL, "%s is not built into this program", file);
	snprintf(name, sizeof name, "catalog/%s", file);
	return stave_yaml_parse(out, text, n, name, err);
}

/* *out stays NULL when the user has no such file. */
static int load_of_user(struct stave_yaml **out, const char *dir, const char *file, struct stave_err *err)
{
	char path[STAVE_PATH];
	int rc = dir ? stave_path(path, dir, file, err) : 0;
	return rc || !dir || !stave_exists(path) ? rc : stave_yaml_load(out, path, err);
}

static int load_fits(struct stave_yaml **out, const char *dir, const char *file, struct stave_err *err)
{
	int rc = load_of_user(out, dir, file, err);
	return rc || *out ? rc : load_built_in(out, file, err);
}

static int check_names(const struct stave_yaml *file, const struct plan_kind *k, struct stave_err *err)
{
	if (file->kind != STAVE_YAML_MAP || !file->n)
		return stave_yaml_error(file, err, "a map of names is wanted, each with the facts of one %s", k->word);
	for (int i = 0; i < file->n; i++)
		if (strlen(file->child[i].key) >= k->name_size)
			return stave_yaml_error(&file->child[i], err, "the name '%.60s' is too long; at most %zu bytes fit", file->child[i].key, k->name_size - 1);
	return 0;
}

/* The built-in things in their order, the user's in the place of their namesakes or behind. */
static int gather(struct reading *r, const struct plan_kind *k, const char *dir, struct stave_err *err)
{
	int rc = load_built_in(&r->file[BUILT_IN], k->file, err);
	if (!rc)
		rc = load_of_user(&r->file[OF_USER], dir, k->file, err);
	for (int f = 0; !rc && f < ORIGINS; f++)
		rc = r->file[f] ? check_names(r->file[f], k, err) : 0;
	if (rc)
		return rc;
	int built_in = r->file[BUILT_IN]->n, most = built_in + (r->file[OF_USER] ? r->file[OF_USER]->n : 0);
	if (!(r->at = calloc((size_t)most, sizeof(struct stave_yaml *))))
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the catalog");
	while (r->n < built_in) {
		r->at[r->n] = &r->file[BUILT_IN]->child[r->n];
		r->n++;
	}
	for (int i = 0; i < most - built_in; i++) {
		struct stave_yaml *mine = &r->file[OF_USER]->child[i];
		int j = 0;
		while (j < built_in && strcmp(r->at[j]->key, mine->key))
			j++;
		r->at[j < built_in ? j : r->n++] = mine;
	}
	return 0;
}

static int read_thing(char *thing, const struct plan_kind *k, struct stave_yaml *at, struct stave_err *err)
{
	strcpy(thing, at->key);
	int rc = k->before ? k->before(thing, at, err) : 0;
	if (!rc)
		rc = plan_facts_read(thing, k->facts, at, err);
	if (!rc && k->after)
		rc = k->after(thing, at, err);
	return rc;
}

static int read_kind(struct plan_catalog *c, const struct plan_kind *k, struct reading *r, const char *dir, struct stave_err *err)
{
	int rc = gather(r, k, dir, err);
	if (rc)
		return rc;
	char *things = calloc((size_t)r->n, k->size);
	if (!things)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the catalog");
	*array_of(c, k) = things;
	*count_of(c, k) = r->n;
	for (int i = 0; !rc && i < r->n; i++)
		rc = read_thing(things + (size_t)i * k->size, k, r->at[i], err);
	return rc;
}

static int check_nodes(const struct plan_catalog *c, const struct reading *r, struct stave_err *err)
{
	const void *found;
	int rc = 0;
	for (int i = 0; !rc && i < c->nodes; i++)
		rc = plan_catalog_find(c, "accelerator", c->node[i].accelerator, stave_yaml_get(r->at[i], "accelerator"), &found, err);
	return rc;
}

/* Every currency that a price is in must have a rate. */
static int check_money(const struct plan_catalog *c, const struct plan_fact *facts, const char *thing, const struct stave_yaml *at, struct stave_err *err)
{
	int rc = 0;
	for (const struct plan_fact *f = facts; !rc && f->key; f++) {
		const char *currency = f->currency ? thing + f->currency : "";
		if (f->type == PLAN_FACT_GROUP)
			rc = check_money(c, f->group, thing, at, err);
		else if (*currency && plan_exchange_usd(c, currency) == 0)
			rc = stave_yaml_error(at, err, "the %s of %s is in %s, which has no rate in prices.yaml", f->key, at->key, currency);
	}
	return rc;
}

static int check_references(const struct plan_catalog *c, const struct reading readings[PLAN_KINDS], struct stave_err *err)
{
	int rc = check_nodes(c, &readings[PLAN_KIND_NODE], err);
	for (int i = 0; !rc && i < PLAN_KINDS; i++) {
		int n;
		const char *things = plan_things(c, &plan_kinds[i], &n);
		for (int j = 0; !rc && j < n; j++)
			rc = check_money(c, plan_kinds[i].facts, things + (size_t)j * plan_kinds[i].size, readings[i].at[j], err);
	}
	return rc;
}

/* A directory in which nothing would be found is a mistyped one. */
static int check_dir(const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_err ignored;
	if (!stave_is_dir(dir))
		return stave_err_set(err, STAVE_ECONFIG, "the catalog '%.400s' is no directory", dir);
	for (int i = 0; i < PLAN_KINDS; i++)
		if (!stave_path(path, dir, plan_kinds[i].file, &ignored) && stave_exists(path))
			return 0;
	static const char *const fits[] = {"fits-train.yaml", "fits-serve.yaml"};
	for (int i = 0; i < 2; i++)
		if (!stave_path(path, dir, fits[i], &ignored) && stave_exists(path))
			return 0;
	return stave_err_set(err, STAVE_ECONFIG, "the catalog '%.400s' holds none of the files it may have, such as accelerators.yaml or fits-train.yaml", dir);
}

static int by_heat(const void *a, const void *b)
{
	double x = ((const struct plan_cooling *)a)->rack_w, y = ((const struct plan_cooling *)b)->rack_w;
	return (x > y) - (x < y);
}

int plan_catalog_open(struct plan_catalog **out, const char *dir, struct stave_err *err)
{
	struct reading readings[PLAN_KINDS] = {0};
	struct plan_catalog *c = calloc(1, sizeof *c);
	int rc = c ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory for the catalog");
	if (!rc && dir)
		rc = check_dir(dir, err);
	for (int i = 0; !rc && i < PLAN_KINDS; i++)
		rc = read_kind(c, &plan_kinds[i], &readings[i], dir, err);
	if (!rc)
		rc = check_references(c, readings, err);
	if (!rc)
		rc = load_fits(&c->fits_train, dir, "fits-train.yaml", err);
	if (!rc)
		rc = load_fits(&c->fits_serve, dir, "fits-serve.yaml", err);
	for (int i = 0; i < PLAN_KINDS; i++) {
		free(readings[i].at);
		stave_yaml_free(readings[i].file[BUILT_IN]);
		stave_yaml_free(readings[i].file[OF_USER]);
	}
	if (rc) {
		plan_catalog_close(c);
		return rc;
	}
	qsort(c->cooling, (size_t)c->coolings, sizeof *c->cooling, by_heat);
	*out = c;
	return 0;
}

void plan_catalog_close(struct plan_catalog *c)
{
	if (!c)
		return;
	for (int i = 0; i < PLAN_KINDS; i++)
		free(*array_of(c, &plan_kinds[i]));
	stave_yaml_free(c->fits_train);
	stave_yaml_free(c->fits_serve);
	free(c);
}

double plan_exchange_usd(const struct plan_catalog *c, const char *currency)
{
	for (int i = 0; i < c->exchanges; i++)
		if (!strcmp(c->exchange[i].currency, currency))
			return c->exchange[i].usd;
	return 0;
}
