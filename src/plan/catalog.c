/* The catalog: machines, networks, places, prices and models as facts in files, opened into plain structs.
 *
 * The files of catalog/ are built into the program; a directory given by the user replaces them file by file. Every thing of every file passes
 * the table of its kind, and what refers to another (a node to its accelerator, a price to its currency) is followed when the catalog is opened, so
 * that nobody after it meets a name without a thing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "plan/catalog_parts.h"

static void **array_of(struct plan_catalog *c, const struct plan_kind *k) { return (void **)(void *)((char *)c + k->array); }
static int *count_of(struct plan_catalog *c, const struct plan_kind *k) { return (int *)(void *)((char *)c + k->count); }

/* The user's file when there is one, else the one built in. */
static int load(struct stave_yaml **out, const char *dir, const char *file, struct stave_err *err)
{
	char path[STAVE_PATH];
	if (dir) {
		int rc = stave_path(path, dir, file, err);
		if (rc || stave_exists(path))
			return rc ? rc : stave_yaml_load(out, path, err);
	}
	size_t n = 0;
	const char *text = plan_catalog_embedded(file, &n);
	if (!text)
		return stave_err_set(err, STAVE_EFAIL, "%s is not built into this program", file);
	snprintf(path, sizeof path, "catalog/%s", file);
	return stave_yaml_parse(out, text, n, path, err);
}

static int read_thing(char *thing, const char *previous, const struct plan_kind *k, struct stave_yaml *at, struct stave_err *err)
{
	if (strlen(at->key) >= k->name_size)
		return stave_yaml_error(at, err, "the name '%.60s' is too long; at most %zu bytes fit", at->key, k->name_size - 1);
	strcpy(thing, at->key);
	int rc = k->before ? k->before(thing, at, err) : 0;
	if (!rc)
		rc = plan_facts_read(thing, k->facts, at, err);
	if (!rc && k->after)
		rc = k->after(thing, previous, at, err);
	return rc;
}

static int read_kind(struct plan_catalog *c, const struct plan_kind *k, struct stave_yaml *file, struct stave_err *err)
{
	if (file->kind != STAVE_YAML_MAP || !file->n)
		return stave_yaml_error(file, err, "a map of names is wanted, each with the facts of one %s", k->word);
	char *things = calloc((size_t)file->n, k->size);
	if (!things)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the catalog");
	*array_of(c, k) = things;
	*count_of(c, k) = file->n;
	int rc = 0;
	for (int i = 0; !rc && i < file->n; i++)
		rc = read_thing(things + (size_t)i * k->size, i ? things + (size_t)(i - 1) * k->size : NULL, k, &file->child[i], err);
	return rc;
}

static int check_nodes(const struct plan_catalog *c, struct stave_yaml *file, struct stave_err *err)
{
	const void *found;
	int rc = 0;
	for (int i = 0; !rc && i < c->nodes; i++)
		rc = plan_catalog_find(c, "accelerator", c->node[i].accelerator, stave_yaml_get(&file->child[i], "accelerator"), &found, err);
	return rc;
}

/* Every currency that a price is in must have a rate. */
static int check_money(const struct plan_catalog *c, const struct plan_kind *k, const struct plan_fact *facts, const char *thing, const struct stave_yaml *at, struct stave_err *err)
{
	int rc = 0;
	for (const struct plan_fact *f = facts; !rc && f->key; f++) {
		const char *currency = f->currency ? thing + f->currency : "";
		if (f->type == PLAN_FACT_GROUP)
			rc = check_money(c, k, f->group, thing, at, err);
		else if (*currency && plan_exchange_usd(c, currency) == 0)
			rc = stave_yaml_error(at, err, "%s is in %s, which has no rate in prices.yaml", f->key, currency);
	}
	return rc;
}

static int check_references(const struct plan_catalog *c, struct stave_yaml *const files[PLAN_KINDS], struct stave_err *err)
{
	int rc = check_nodes(c, files[PLAN_KIND_NODE], err);
	for (int i = 0; !rc && i < PLAN_KINDS; i++) {
		int n;
		const char *things = plan_things(c, &plan_kinds[i], &n);
		for (int j = 0; !rc && j < n; j++)
			rc = check_money(c, &plan_kinds[i], plan_kinds[i].facts, things + (size_t)j * plan_kinds[i].size, &files[i]->child[j], err);
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
	return stave_err_set(err, STAVE_ECONFIG, "the catalog '%.400s' holds none of the files it may replace, such as accelerators.yaml or fits-train.yaml", dir);
}

int plan_catalog_open(struct plan_catalog **out, const char *dir, struct stave_err *err)
{
	struct stave_yaml *files[PLAN_KINDS] = {0};
	struct plan_catalog *c = calloc(1, sizeof *c);
	int rc = c ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory for the catalog");
	if (!rc && dir)
		rc = check_dir(dir, err);
	for (int i = 0; !rc && i < PLAN_KINDS; i++)
		if (!(rc = load(&files[i], dir, plan_kinds[i].file, err)))
			rc = read_kind(c, &plan_kinds[i], files[i], err);
	if (!rc)
		rc = check_references(c, files, err);
	if (!rc)
		rc = load(&c->fits_train, dir, "fits-train.yaml", err);
	if (!rc)
		rc = load(&c->fits_serve, dir, "fits-serve.yaml", err);
	for (int i = 0; i < PLAN_KINDS; i++)
		stave_yaml_free(files[i]);
	if (rc)
		plan_catalog_close(c);
	else
		*out = c;
	return rc;
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
