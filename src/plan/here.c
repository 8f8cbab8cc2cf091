/* A pool of a site as the models want it: its node and accelerator with the resources scaled, and how many nodes may work, after power, cooling and
 * spares have taken theirs. A pool of type profile is this machine as stave bench machine measured it. */
#include <math.h>
#include <string.h>

#include "cost/machine.h"
#include "plan/site/facility.h"
#include "plan/site/money.h"
#include "plan/result.h"

#define HOUSEHOLD_W 1500.0 /* a node below this stands under a desk: no cooling of its own */

#define X(name, text, doc) text,
const char *const plan_resource_name[PLAN_RESOURCE_COUNT] = {PLAN_RESOURCES(X)};
#undef X

/* The measured machine as a node with one accelerator, its CPU. Peaks and bandwidth are measured ones; a laptop's power is not known and said as such: 0. */
static int of_profile(struct plan_here *h, struct stave_err *err)
{
	struct stave_machine m;
	int rc = stave_machine_load(&m, h->pool->profile[0] ? h->pool->profile : NULL, err);
	if (rc)
		return rc;
	h->own_accelerator = (struct plan_accelerator){.cpu = true, .memory_bytes = (double)m.memory_bytes, .memory_bytes_s = m.read_bytes_s, .link_domain = 1,
	                                               .link_bytes_s = m.copy_bytes_s, .host_bytes_s = m.copy_bytes_s};
	h->own_accelerator.peak[PLAN_F32] = m.peak_f32;
	h->own_accelerator.peak[PLAN_BF16] = m.peak_bf16 > 0 ? m.peak_bf16 : m.peak_f32;
	h->own_accelerator.peak[PLAN_I8] = m.peak_i8;
	snprintf(h->own_accelerator.name, PLAN_NAME, "%.47s", m.cpu);
	snprintf(h->own_accelerator.source.text, sizeof h->own_accelerator.source.text, "stave bench machine");
	h->own_node = (struct plan_node){.count = 1, .nics = 1, .nic_bytes_s = 125e6, .storage_bytes_s = m.disk_read_bytes_s, .host_memory_bytes = (double)m.memory_bytes, .peak_share = 1};
	snprintf(h->own_node.name, PLAN_NAME, "this machine");
	return 0;
}

static int of_catalog(const struct stave_plan *p, struct plan_here *h, struct stave_err *err)
{
	const void *node;
	int rc = plan_catalog_find(p->catalog, "node", h->pool->type, NULL, &node, err);
	if (rc)
		return rc;
	h->own_node = *(const struct plan_node *)node;
	const struct plan_accelerator *a = plan_accelerator_find(p->catalog, h->own_node.accelerator);
	if (!a)
		return stave_err_set(err, STAVE_ECONFIG, "the catalog's node %s has accelerator '%s', which the catalog does not have", h->own_node.name, h->own_node.accelerator);
	h->own_accelerator = *a;
	return 0;
}

static int surroundings(const struct stave_plan *p, struct plan_here *h, struct stave_err *err)
{
	const struct plan_site *s = h->site;
	const struct { const char *kind, *name; const void **out; } names[] = {
		{"network", s->network, (const void **)&h->network}, {"storage", s->storage, (const void **)&h->storage},
		{"grid", s->grid, (const void **)&h->grid},          {"cooling", s->cooling, (const void **)&h->cooling}};
	int rc = 0;
	for (size_t i = 0; i < sizeof names / sizeof *names && !rc; i++) {
		*names[i].out = NULL;
		if (names[i].name[0])
			rc = plan_catalog_find(p->catalog, names[i].kind, names[i].name, NULL, names[i].out, err);
	}
	if (!rc && !h->cooling && h->own_node.rated_w > HOUSEHOLD_W)
		rc = plan_catalog_find(p->catalog, "cooling", "plain-air", NULL, (const void **)&h->cooling, err);
	return rc;
}

static void scale(struct plan_here *h, const struct plan_scale *k)
{
	struct plan_accelerator *a = &h->own_accelerator;
	for (int i = 0; i < PLAN_PRECISIONS; i++)
		a->peak[i] *= k->of[PLAN_ARITHMETIC];
	a->memory_bytes_s *= k->of[PLAN_BANDWIDTH];
	a->memory_bytes *= k->of[PLAN_MEMORY];
	a->link_bytes_s *= k->of[PLAN_LINK];
	h->own_node.nic_bytes_s *= k->of[PLAN_NETWORK];
}

/* Nodes that power, racks and cooling let stand. A node that the catalog knows no power of (a laptop) is not held against any. */
static int housed(const struct stave_plan *p, struct plan_here *h, const struct plan_scale *k, int wanted, int *out, struct stave_err *err)
{
	const struct plan_site *s = h->site;
	struct plan_housing house;
	double feed = s->power_w, limit = p->spec->limits.power_w;
	if (isnan(feed) || limit < feed)
		feed = limit;
	struct plan_room room = {.feed_w = isnan(feed) ? 0 : feed * k->of[PLAN_POWER], .rack_w = isnan(s->rack_w) ? 0 : s->rack_w,
	                         .overhead = isnan(s->pue) ? h->cooling ? h->cooling->pue : 1 : s->pue, .cooling = s->cooling[0] ? h->cooling : NULL};
	*out = wanted;
	if (h->own_node.rated_w <= 0)
		return 0;
	double other = (h->network ? h->network->port_w * h->own_node.nics * wanted : 0) + (h->storage ? h->storage->power_w : 0);
	struct stave_err why;
	int rc = plan_housing_evaluate(&room, &h->own_node, wanted, other, p->catalog->cooling, p->catalog->coolings, &house, &why);
	if (rc != STAVE_ENOFIT)
		return rc ? stave_err_set(err, rc, "site %s: %.900s", s->name, why.msg) : 0;
	*out = (int)house.nodes;
	h->power_bound = true;
	return *out >= 1 ? 0 : stave_err_set(err, STAVE_ENOFIT, "%s:%d: site %s: not one %s can stand: %.700s", p->spec->file, s->line, s->name, h->own_node.name, why.msg);
}

int plan_here_find(const struct stave_plan *p, const struct plan_site *s, int pool, const struct plan_scale *k, struct plan_here *out, struct stave_err *err)
{
	struct plan_here h = {.site = s, .pool = &s->pool[pool]};
	int wanted = (int)fmax(1, floor(h.pool->count * k->of[PLAN_NODES] + 0.5)), nodes;
	int rc = strcmp(h.pool->type, "profile") ? of_catalog(p, &h, err) : of_profile(&h, err);
	if (rc || (rc = surroundings(p, &h, err)))
		return rc;
	scale(&h, k);
	if ((rc = housed(p, &h, k, wanted, &nodes, err)))
		return rc;
	h.spares = isnan(s->spares) ? 0 : (int)s->spares;
	if (h.spares >= nodes)
		return stave_err_set(err, STAVE_ENOFIT, "%s:%d: site %s: %d spares leave none of %d nodes to work", p->spec->file, s->line, s->name, h.spares, nodes);
	h.nodes = nodes - h.spares;
	*out = h;
	out->node = &out->own_node;
	out->accelerator = &out->own_accelerator;
	return 0;
}

int plan_convert(const struct stave_plan *p, const struct plan_price *price, double *out, struct stave_err *err)
{
	if (!isfinite(price->amount) || !price->currency[0]) {
		*out = NAN;
		return 0;
	}
	return plan_price_in(price, "price", p->spec->currency, p->catalog, out, err);
}
