/* A specification read and checked. Maps of plain keys are read by their tables (spec_keys.c); what is left to this file is the lists, the
 * model, and what keys mean together. Every refusal names file and line, and what would be right. */
#include "plan/spec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_OF(a) (sizeof(a) / sizeof *(a))

/* ---- maps by their tables ---- */

static int read_words(const char *choices, struct stave_yaml *node, int *out, struct stave_err *err)
{
	char copy[256], *word[16], *save = NULL;
	size_t n = 0;
	snprintf(copy, sizeof copy, "%s", choices);
	for (char *w = strtok_r(copy, "|", &save); w && n < COUNT_OF(word); w = strtok_r(NULL, "|", &save))
		word[n++] = w;
	return stave_yaml_choice(node, (const char *const *)word, n, out, err);
}

static int read_text(struct stave_yaml *node, char *out, size_t room, struct stave_err *err)
{
	if (node->kind != STAVE_YAML_SCALAR || !node->text[0])
		return stave_yaml_error(node, err, "%s: a word is wanted", node->key ? node->key : "item");
	if (strlen(node->text) >= room)
		return stave_yaml_error(node, err, "%s: at most %zu characters", node->key ? node->key : "item", room - 1);
	snprintf(out, room, "%s", node->text);
	return 0;
}

static int read_key(const struct plan_key *k, struct stave_yaml *node, void *at, struct stave_err *err)
{
	struct plan_price *price = at;
	switch (k->type) {
	case PLAN_KEY_QUANTITY: return stave_yaml_quantity(node, k->dimension, k->min, k->max, at, NULL, err);
	case PLAN_KEY_PRICE: return stave_yaml_quantity(node, k->dimension, k->min, k->max, &price->amount, price->currency, err);
	case PLAN_KEY_WORD: return read_text(node, at, PLAN_NAME, err);
	case PLAN_KEY_PATH: return read_text(node, at, STAVE_PATH, err);
	case PLAN_KEY_BOOL: return stave_yaml_bool(node, at, err);
	case PLAN_KEY_CHOICE: return read_words(k->choices, node, at, err);
	default: return 0;
	}
}

static void set_default(const struct plan_key *k, void *at)
{
	switch (k->type) {
	case PLAN_KEY_QUANTITY: *(double *)at = k->def; break;
	case PLAN_KEY_PRICE: *(struct plan_price *)at = (struct plan_price){.amount = NAN}; break;
	case PLAN_KEY_WORD:
	case PLAN_KEY_PATH: *(char *)at = 0; break;
	case PLAN_KEY_BOOL: *(bool *)at = k->def > 0; break;
	case PLAN_KEY_CHOICE: *(int *)at = (int)k->def; break;
	default: break;
	}
}

int plan_map_read(const struct plan_map *m, struct stave_yaml *node, void *to, struct stave_err *err)
{
	const char *names[64];
	for (int i = 0; i < m->n; i++) {
		names[i] = m->key[i].name;
		set_default(&m->key[i], (char *)to + m->key[i].offset);
	}
	if (!node)
		return 0;
	int rc = node->kind != STAVE_YAML_MAP ? stave_yaml_error(node, err, "%s: a map is wanted", m->name) : stave_yaml_keys(node, names, (size_t)m->n, err);
	for (int i = 0; i < m->n && !rc; i++) {
		struct stave_yaml *child = stave_yaml_get(node, names[i]);
		if (child)
			rc = read_key(&m->key[i], child, (char *)to + m->key[i].offset, err);
	}
	return rc;
}

/* A list, or one thing where a list of one may stand. */
static int items(struct stave_yaml *node, int max, struct stave_yaml **first, int *n, struct stave_err *err)
{
	*first = node;
	*n = 1;
	if (node->kind == STAVE_YAML_LIST) {
		*first = node->child;
		*n = node->n;
	}
	if (*n > max)
		return stave_yaml_error(node, err, "%s: %d items; at most %d", node->key ? node->key : "list", *n, max);
	return 0;
}

static int read_names(struct stave_yaml *node, char (*out)[PLAN_NAME], int max, int *count, struct stave_err *err)
{
	struct stave_yaml *item;
	int n, rc = items(node, max, &item, &n, err);
	for (int i = 0; i < n && !rc; i++)
		rc = read_text(&item[i], out[i], PLAN_NAME, err);
	if (!rc)
		*count = n;
	return rc;
}

/* ---- the model ---- */

struct reader {
	struct plan_spec *s;
	const struct plan_catalog *c;
	stave_plan_shape_of *shape_of;
	struct stave_err *err;
};

static int whole(double v) { return isnan(v) ? 0 : (int)v; }

static int shape_of_map(struct stave_yaml *node, struct stave_shape *out, struct stave_err *err)
{
	struct plan_model_text t;
	int rc = plan_map_read(&plan_map_model, node, &t, err);
	if (rc)
		return rc;
	const struct { const char *name; double value; } wanted[] = {{"layers", t.layers}, {"hidden", t.hidden}, {"heads", t.heads}, {"vocab", t.vocab}};
	for (size_t i = 0; i < COUNT_OF(wanted); i++)
		if (isnan(wanted[i].value))
			return stave_yaml_error(node, err, "model: %s is wanted", wanted[i].name);
	if (isnan(t.head_dim) && fmod(t.hidden, t.heads) > 0)
		return stave_yaml_error(node, err, "model: hidden %.0f is no multiple of %.0f heads; change one or give head_dim", t.hidden, t.heads);
	*out = (struct stave_shape){
		.family = t.experts > 0 ? STAVE_MIXTRAL : t.gated ? STAVE_LLAMA : STAVE_GPT2, .L = whole(t.layers), .C = whole(t.hidden), .H = whole(t.heads),
		.K = isnan(t.kv_heads) ? whole(t.heads) : whole(t.kv_heads), .D = isnan(t.head_dim) ? (int)(t.hidden / t.heads) : whole(t.head_dim),
		.I = isnan(t.ffn) ? 4 * whole(t.hidden) : whole(t.ffn), .V = whole(t.vocab), .T_max = whole(t.seq), .act = t.gated ? STAVE_SWIGLU : STAVE_GELU_TANH,
		.layernorm = !t.gated, .norm_bias = !t.gated, .learned_pos = !t.gated, .qkv_bias = !t.gated, .out_bias = !t.gated, .mlp_bias = !t.gated, .tied = t.tied,
		.norm_eps = 1e-5f, .rope_theta = 1e4, .window = whole(t.window), .experts = whole(t.experts), .experts_used = whole(t.experts_used)};
	struct stave_err why;
	if (stave_shape_check(out, &why))
		return stave_yaml_error(node, err, "model: %.400s", why.msg);
	return 0;
}

/* A path is relative to the specification's folder. */
static int shape_of_path(struct reader *r, struct stave_yaml *node, struct stave_shape *out)
{
	char path[STAVE_PATH];
	const char *slash = strrchr(r->s->file, '/');
	int folder = slash && node->text[0] != '/' ? (int)(slash - r->s->file) + 1 : 0;
	struct stave_err why;
	if (snprintf(path, sizeof path, "%.*s%s", folder, r->s->file, node->text) >= (int)sizeof path)
		return stave_yaml_error(node, r->err, "model: the path is too long");
	if (!r->shape_of)
		return stave_yaml_error(node, r->err, "model: '%s' is a path, and none can be read here", node->text);
	if (r->shape_of(path, out, &why))
		return stave_yaml_error(node, r->err, "model: %.500s", why.msg);
	return 0;
}

static int read_model(struct reader *r, struct stave_yaml *node, struct plan_work *w)
{
	if (!node)
		return 1;
	if (node->kind == STAVE_YAML_MAP) {
		snprintf(w->model, sizeof w->model, "own shape");
		return shape_of_map(node, &w->shape, r->err);
	}
	int rc = read_text(node, w->model, sizeof w->model, r->err);
	if (rc)
		return rc;
	for (int i = 0; i < r->c->models; i++)
		if (!strcmp(r->c->model[i].name, w->model)) {
			w->shape = r->c->model[i].shape;
			return 0;
		}
	if (strchr(w->model, '/'))
		return shape_of_path(r, node, &w->shape);
	const void *found;
	return plan_catalog_find(r->c, "model", w->model, node, &found, r->err);
}

/* ---- work ---- */

static int want(const struct stave_yaml *node, double value, const char *key, struct stave_err *err)
{
	return isnan(value) ? stave_yaml_error(node, err, "%s: %s is wanted", node->key, key) : 0;
}

static int read_layout(struct stave_yaml *node, struct plan_layout *out, struct stave_err *err)
{
	struct plan_layout_text t;
	int rc = plan_map_read(&plan_map_layout, node, &t, err);
	if (!rc)
		*out = (struct plan_layout){.tp = (int)t.tp, .pp = (int)t.pp, .dp = (int)t.dp, .cp = (int)t.cp, .ep = (int)t.ep, .vp = (int)t.vp, .zero = (int)t.zero,
		                            .micro = (int)t.micro, .recompute = (enum plan_recompute)(t.recompute - 1), .seq_parallel = t.seq_parallel, .async_tp = t.async_tp};
	return rc;
}

static int read_training(struct reader *r, struct stave_yaml *node, struct plan_work *w)
{
	struct stave_err *err = r->err;
	int rc;
	if ((rc = want(node, w->tokens, "tokens", err)) || (rc = want(node, w->batch, "batch", err)) || (rc = read_layout(stave_yaml_get(node, "layout"), &w->layout, err)))
		return rc;
	if (isnan(w->seq))
		w->seq = w->shape.T_max;
	if (w->tokens < w->batch * w->seq)
		return stave_yaml_error(node, err, "%s: %.4g tokens are less than one step of %.0f x %.0f", node->key, w->tokens, w->batch, w->seq);
	if (isnan(w->start_day))
		w->start_day = r->s->start_day;
	if (!isnan(w->by_day) && isnan(w->start_day))
		return stave_yaml_error(node, err, "%s: `by` needs a start: give `start` here or at the top", node->key);
	if (w->by_day <= w->start_day)
		return stave_yaml_error(stave_yaml_get(node, "by"), err, "%s: it is to be finished before it starts", node->key);
	return 0;
}

static int read_load(struct reader *r, struct stave_yaml *node, struct plan_work *w)
{
	struct stave_yaml *rate = stave_yaml_get(node, "rate"), *hourly = stave_yaml_get(node, "hourly");
	double v = 0;
	int rc = 0;
	if (!rate == !hourly)
		return stave_yaml_error(node, r->err, "serve: one of rate and hourly is wanted");
	if (rate && (rc = stave_yaml_quantity(rate, STAVE_RATE, 1e-9, 1e9, &v, NULL, r->err)))
		return rc;
	for (int i = 0; i < 24; i++)
		w->hourly[i] = v;
	if (!hourly)
		return 0;
	if (hourly->kind != STAVE_YAML_LIST || hourly->n != 24)
		return stave_yaml_error(hourly, r->err, "hourly: a list of 24 rates is wanted, one for each hour of the day");
	double sum = 0;
	for (int i = 0; i < 24 && !rc; i++) {
		rc = stave_yaml_quantity(&hourly->child[i], STAVE_RATE, 0, 1e9, &w->hourly[i], NULL, r->err);
		sum += w->hourly[i];
	}
	return rc ? rc : sum > 0 ? 0 : stave_yaml_error(hourly, r->err, "hourly: no requests in any hour");
}

static int read_serving(struct reader *r, struct stave_yaml *node, struct plan_work *w)
{
	int rc;
	if ((rc = want(node, w->input, "input", r->err)) || (rc = want(node, w->output, "output", r->err)))
		return rc;
	if (w->input + w->output > w->shape.T_max)
		return stave_yaml_error(node, r->err, "serve: %.0f + %.0f tokens are more than the model's context of %d", w->input, w->output, w->shape.T_max);
	return read_load(r, node, w);
}

static int read_work(struct reader *r, struct stave_yaml *item, struct plan_work *w)
{
	static const char *const kinds[] = {"train", "finetune", "serve"};
	static const struct plan_map *const maps[] = {&plan_map_train, &plan_map_finetune, &plan_map_serve};
	if (item->kind != STAVE_YAML_MAP || item->n != 1)
		return stave_yaml_error(item, r->err, "work: each item is a map of one key: train, finetune or serve");
	int rc = stave_yaml_keys(item, kinds, COUNT_OF(kinds), r->err);
	if (rc)
		return rc;
	struct stave_yaml *node = NULL;
	for (int k = 0; k < 3; k++)
		if ((node = stave_yaml_get(item, kinds[k]))) {
			w->kind = (enum plan_work_kind)k;
			break;
		}
	w->line = node->line;
	if ((rc = plan_map_read(maps[w->kind], node, w, r->err)))
		return rc;
	if (!w->name[0])
		snprintf(w->name, sizeof w->name, "%s-%d", kinds[w->kind], r->s->works + 1);
	if ((rc = read_model(r, stave_yaml_get(node, "model"), w)))
		return rc > 0 ? stave_yaml_error(node, r->err, "%s: model is wanted", kinds[w->kind]) : rc;
	return w->kind == PLAN_SERVE ? read_serving(r, node, w) : read_training(r, node, w);
}

/* ---- sites ---- */

static int read_pools(struct reader *r, struct stave_yaml *node, struct plan_site *s)
{
	struct stave_yaml *item;
	int n, rc = items(node, PLAN_POOLS_MAX, &item, &n, r->err);
	for (int i = 0; i < n && !rc; i++) {
		struct plan_pool *p = &s->pool[i];
		const void *found;
		if ((rc = plan_map_read(&plan_map_pool, &item[i], p, r->err)))
			break;
		p->line = item[i].line;
		if (!strcmp(p->type, "profile"))
			continue;
		if (!p->type[0])
			rc = stave_yaml_error(&item[i], r->err, "nodes: type is wanted: a catalog node ('stave plan catalog node' lists them) or profile");
		else
			rc = plan_catalog_find(r->c, "node", p->type, stave_yaml_get(&item[i], "type"), &found, r->err);
	}
	s->pools = n;
	return rc;
}

static int read_builds(struct reader *r, struct stave_yaml *node, struct plan_site *s)
{
	struct stave_yaml *item;
	int n, rc = items(node, PLAN_BUILD_MAX, &item, &n, r->err);
	for (int i = 0; i < n && !rc; i++) {
		struct plan_build *b = &s->build[i];
		struct stave_yaml *after;
		const void *found;
		if ((rc = plan_map_read(&plan_map_build, &item[i], b, r->err)))
			break;
		b->line = item[i].line;
		if (!b->item[0])
			rc = stave_yaml_error(&item[i], r->err, "build: item is wanted");
		else if (isnan(b->low_s) != isnan(b->likely_s) || isnan(b->low_s) != isnan(b->high_s))
			rc = stave_yaml_error(&item[i], r->err, "build: low, likely and high go together");
		else if (isnan(b->low_s))
			rc = plan_catalog_find(r->c, "lead_time", b->item, &item[i], &found, r->err);
		else if (b->low_s > b->likely_s || b->likely_s > b->high_s)
			rc = stave_yaml_error(&item[i], r->err, "build: low <= likely <= high is wanted");
		if (!rc && (after = stave_yaml_get(&item[i], "after")))
			rc = read_names(after, b->after, (int)COUNT_OF(b->after), &b->afters, r->err);
	}
	s->builds = n;
	return rc;
}

/* Names that the catalog must know. */
static int check_names(struct reader *r, struct stave_yaml *node, const struct plan_site *s)
{
	const struct { const char *kind, *key, *name; } names[] = {
		{"network", "network", s->network}, {"storage", "storage", s->storage}, {"grid", "grid", s->grid}, {"cooling", "cooling", s->cooling}};
	const void *found;
	int rc = 0;
	for (size_t i = 0; i < COUNT_OF(names) && !rc; i++)
		if (names[i].name[0])
			rc = plan_catalog_find(r->c, names[i].kind, names[i].name, stave_yaml_get(node, names[i].key), &found, r->err);
	return rc;
}

static int read_site(struct reader *r, struct stave_yaml *node, struct plan_site *s)
{
	int rc = plan_map_read(&plan_map_site, node, s, r->err);
	if (rc || (rc = check_names(r, node, s)))
		return rc;
	s->line = node->line;
	if (!s->name[0])
		snprintf(s->name, sizeof s->name, "site-%d", r->s->sites + 1);
	for (int i = 0; i < r->s->sites; i++)
		if (!strcmp(r->s->site[i].name, s->name))
			return stave_yaml_error(node, r->err, "two sites are called '%s'", s->name);
	struct stave_yaml *nodes = stave_yaml_get(node, "nodes"), *build = stave_yaml_get(node, "build");
	if (!nodes)
		return stave_yaml_error(node, r->err, "site %s: nodes are wanted", s->name);
	if ((rc = read_pools(r, nodes, s)) || (build && (rc = read_builds(r, build, s))))
		return rc;
	if (!s->grid[0] && isnan(s->energy.amount))
		return stave_yaml_error(node, r->err, "site %s: the price of energy is missing: name a grid ('stave plan catalog grid') or give energy: '0.11 EUR/kWh'", s->name);
	if (s->places > 1 && isnan(s->line_bytes_s))
		return stave_yaml_error(node, r->err, "site %s: %.0f places want the line between them, such as line: 800 Gb/s", s->name, s->places);
	const void *grid;
	if (s->grid[0] && !s->region[0] && !plan_catalog_find(r->c, "grid", s->grid, NULL, &grid, NULL))
		snprintf(s->region, sizeof s->region, "%s", ((const struct plan_grid *)grid)->region);
	return 0;
}

static int read_rule(struct reader *r, struct stave_yaml *node, struct plan_rule *u)
{
	int rc = plan_map_read(&plan_map_rule, node, u, r->err);
	if (rc)
		return rc;
	u->line = node->line;
	struct stave_yaml *regions = stave_yaml_get(node, "regions");
	if (!regions || !u->accelerator[0] == isnan(u->flop_s))
		return stave_yaml_error(node, r->err, "export: a rule has regions and one of accelerator and above");
	if (u->accelerator[0] && !plan_accelerator_find(r->c, u->accelerator))
		return stave_yaml_error(node, r->err, "export: no accelerator '%s' in the catalog", u->accelerator);
	return read_names(regions, u->region, (int)COUNT_OF(u->region), &u->regions, r->err);
}

/* ---- the whole ---- */

typedef int read_item(struct reader *r, struct stave_yaml *item, void *to);
static int work_item(struct reader *r, struct stave_yaml *item, void *to) { return read_work(r, item, to); }
static int site_item(struct reader *r, struct stave_yaml *item, void *to) { return read_site(r, item, to); }
static int rule_item(struct reader *r, struct stave_yaml *item, void *to) { return read_rule(r, item, to); }

static int read_list(struct reader *r, struct stave_yaml *node, int max, read_item *one, void *array, size_t size, int *count)
{
	struct stave_yaml *item = NULL;
	int n = 0, rc = node ? items(node, max, &item, &n, r->err) : 0;
	for (*count = 0; *count < n && !rc; ++*count)
		rc = one(r, &item[*count], (char *)array + (size_t)*count * size);
	return rc;
}

static bool letters3(const char *s) { return strlen(s) == 3 && strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 3; }

/* Prices given in the file carry its date. */
static int date_prices(struct reader *r, struct stave_yaml *root)
{
	struct plan_spec *s = r->s;
	struct stave_yaml *dated = stave_yaml_get(root, "dated");
	double day;
	int rc = 0;
	if (dated && !(rc = stave_yaml_quantity(dated, STAVE_DATE, 0, 200000, &day, NULL, r->err)))
		snprintf(s->date, sizeof s->date, "%.11s", dated->text);
	for (int i = 0; i < s->sites && !rc; i++) {
		struct plan_site *t = &s->site[i];
		struct plan_price *price[] = {&t->energy, &t->device, &t->rent_s, &t->staff_s, &t->space_s, &t->building_w};
		for (size_t k = 0; k < COUNT_OF(price) && !rc; k++) {
			if (isnan(price[k]->amount))
				continue;
			if (!s->date[0])
				rc = stave_err_set(r->err, STAVE_ECONFIG, "%s:%d: site %s gives prices; say at the top of the file when they were asked: dated: 2027-01-31", s->file, t->line, t->name);
			snprintf(price[k]->date, sizeof price[k]->date, "%s", s->date);
		}
	}
	return rc;
}

static int check_sites_named(struct reader *r)
{
	struct plan_spec *s = r->s;
	for (int i = 0; i < s->works; i++) {
		bool known = !s->work[i].site[0];
		for (int k = 0; k < s->sites; k++)
			known |= !strcmp(s->site[k].name, s->work[i].site);
		if (!known)
			return stave_err_set(r->err, STAVE_ECONFIG, "%s:%d: %s runs at '%s', and no site is called so", s->file, s->work[i].line, s->work[i].name, s->work[i].site);
	}
	return 0;
}

static int read_spec(struct reader *r, struct stave_yaml *root)
{
	struct plan_spec *s = r->s;
	int rc = plan_map_read(&plan_map_top, root, s, r->err);
	if (rc)
		return rc;
	if (!s->currency[0])
		snprintf(s->currency, sizeof s->currency, "USD");
	const void *known;
	if (!letters3(s->currency) || plan_catalog_find(r->c, "exchange", s->currency, stave_yaml_get(root, "currency"), &known, r->err))
		return letters3(s->currency) ? STAVE_ECONFIG : stave_yaml_error(stave_yaml_get(root, "currency"), r->err, "currency: three letters such as EUR are wanted");
	if ((rc = read_list(r, stave_yaml_get(root, "sites"), PLAN_SITES_MAX, site_item, s->site, sizeof *s->site, &s->sites)) ||
	    (rc = read_list(r, stave_yaml_get(root, "work"), PLAN_WORKS_MAX, work_item, s->work, sizeof *s->work, &s->works)) ||
	    (rc = read_list(r, stave_yaml_get(root, "export"), PLAN_RULES_MAX, rule_item, s->rule, sizeof *s->rule, &s->rules)) ||
	    (rc = plan_map_read(&plan_map_limits, stave_yaml_get(root, "limits"), &s->limits, r->err)) ||
	    (rc = plan_map_read(&plan_map_fleet, stave_yaml_get(root, "simulate"), &s->fleet, r->err)))
		return rc;
	if (!s->works || !s->sites)
		return stave_yaml_error(root, r->err, "a specification needs work: and sites:");
	return (rc = date_prices(r, root)) ? rc : check_sites_named(r);
}

static int finish(struct plan_spec **out, struct stave_yaml *tree, const char *what, const struct plan_catalog *c, stave_plan_shape_of *shape_of, struct stave_err *err)
{
	struct plan_spec *s = calloc(1, sizeof *s);
	if (!s) {
		stave_yaml_free(tree);
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for a specification");
	}
	s->tree = tree;
	snprintf(s->file, sizeof s->file, "%s", what);
	struct reader r = {s, c, shape_of, err};
	int rc = read_spec(&r, tree);
	if (rc) {
		plan_spec_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

int plan_spec_open(struct plan_spec **out, const char *path, const struct plan_catalog *c, stave_plan_shape_of *shape_of, struct stave_err *err)
{
	struct stave_yaml *tree;
	int rc = stave_yaml_load(&tree, path, err);
	return rc ? rc : finish(out, tree, path, c, shape_of, err);
}

int plan_spec_parse(struct plan_spec **out, const char *text, size_t n, const char *what, const struct plan_catalog *c, stave_plan_shape_of *shape_of, struct stave_err *err)
{
	struct stave_yaml *tree;
	int rc = stave_yaml_parse(&tree, text, n, what, err);
	return rc ? rc : finish(out, tree, what, c, shape_of, err);
}

void plan_spec_free(struct plan_spec *s)
{
	if (!s)
		return;
	stave_yaml_free(s->tree);
	free(s);
}
