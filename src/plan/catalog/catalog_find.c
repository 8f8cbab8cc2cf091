/* Names. People write one machine in many ways ("H100-SXM-80GB HBM3", "8xH100 SXM5", "NVIDIA GeForce RTX 4090"), so an accelerator is found by
 * the longest of its names that stands in the text as whole words: "L40" is not an L4, nor "GH200" an H200. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "plan/catalog/catalog_parts.h"

static bool skipped(char c) { return c == '-' || c == '_' || c == ' '; }

/* Where `text` goes on after `name`, read without case and separators; NULL when it does not begin with it. */
static const char *begins(const char *text, const char *name)
{
	for (;; text++, name++) {
		while (skipped(*name))
			name++;
		if (!*name)
			return text;
		while (skipped(*text))
			text++;
		if (!*text || tolower((unsigned char)*text) != tolower((unsigned char)*name))
			return NULL;
	}
}

static size_t letters(const char *name)
{
	size_t n = 0;
	for (; *name; name++)
		n += !skipped(*name);
	return n;
}

static bool same(const char *a, const char *b)
{
	const char *rest = begins(a, b);
	while (rest && skipped(*rest))
		rest++;
	return rest && !*rest;
}

/* "8x" and "8 x " before a word count as none of it. */
static const char *after_count(const char *word)
{
	const char *p = word;
	while (isdigit((unsigned char)*p))
		p++;
	const char *digits = p;
	while (*p == ' ')
		p++;
	return digits > word && (*p == 'x' || *p == 'X') ? p + 1 + (p[1] == ' ') : word;
}

/* Letters of `name` when it stands in `text` as whole words, else 0. */
static size_t stands_in(const char *text, const char *name)
{
	for (const char *p = text; *p; p++) {
		if (!isalnum((unsigned char)*p) || (p > text && isalnum((unsigned char)p[-1])))
			continue;
		const char *starts[] = {p, after_count(p)};
		for (int i = 0; i < 2; i++) {
			const char *end = begins(starts[i], name);
			if (end && !isalnum((unsigned char)*end))
				return letters(name);
		}
	}
	return 0;
}

const struct plan_accelerator *plan_accelerator_find(const struct plan_catalog *c, const char *name)
{
	const struct plan_accelerator *best = NULL;
	size_t longest = 0;
	if (strlen(name) > 255) /* no name is so long, and the search takes the product of the lengths */
		return NULL;
	for (int i = 0; i < c->accelerators; i++) {
		const struct plan_accelerator *a = &c->accelerator[i];
		size_t n = stands_in(name, a->name);
		for (int j = 0; j < 8 && *a->alias[j]; j++) {
			size_t m = stands_in(name, a->alias[j]);
			n = m > n ? m : n;
		}
		if (n > longest) {
			longest = n;
			best = a;
		}
	}
	return best;
}

int plan_kind_find(const char *word, const struct plan_kind **out, struct stave_err *err)
{
	const char *words[PLAN_KINDS];
	size_t n = strlen(word);
	for (int i = 0; i < PLAN_KINDS; i++) {
		words[i] = plan_kinds[i].word;
		size_t m = strlen(words[i]);
		if (!strncmp(word, words[i], m) && (n == m || (n == m + 1 && word[m] == 's'))) {
			*out = &plan_kinds[i];
			return 0;
		}
	}
	const char *near = stave_nearest(word, words, PLAN_KINDS);
	return stave_err_set(err, STAVE_ECONFIG, "the catalog has no kind '%.60s'%s%s; kinds are accelerator, node, network, storage, cooling, grid, lead_time, exchange and model",
	                     word, near ? "; did you mean " : "", near ? near : "");
}

const void *plan_thing_named(const struct plan_catalog *c, const struct plan_kind *k, const char *name)
{
	int n;
	const char *things = plan_things(c, k, &n);
	for (int i = 0; i < n; i++)
		if (same(things + (size_t)i * k->size, name))
			return things + (size_t)i * k->size;
	return NULL;
}

static int unknown(const char *things, int n, const struct plan_kind *k, const char *name, const struct stave_yaml *at, struct stave_err *err)
{
	const char **names = calloc((size_t)n + 1, sizeof *names);
	if (!names)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to look up '%.60s'", name);
	for (int i = 0; i < n; i++)
		names[i] = things + (size_t)i * k->size;
	const char *near = stave_nearest(name, names, (size_t)n);
	free(names);
	const char *a = near ? "; did you mean '" : "; `stave plan catalog ", *b = near ? near : k->word, *z = near ? "'?" : "` lists them";
	if (at)
		return stave_yaml_error(at, err, "unknown %s '%.100s'%s%s%s", k->word, name, a, b, z);
	return stave_err_set(err, STAVE_ECONFIG, "unknown %s '%.100s'%s%s%s", k->word, name, a, b, z);
}

int plan_catalog_find(const struct plan_catalog *c, const char *kind, const char *name, const struct stave_yaml *at, const void **out, struct stave_err *err)
{
	const struct plan_kind *k;
	int n, rc = plan_kind_find(kind, &k, err);
	if (rc)
		return rc;
	const void *found = plan_thing_named(c, k, name);
	if (!found && k == &plan_kinds[PLAN_KIND_ACCELERATOR])
		found = plan_accelerator_find(c, name);
	if (found)
		*out = found;
	const char *things = plan_things(c, k, &n);
	return found ? 0 : unknown(things, n, k, name, at, err);
}
