/* The pool and the tree (pages.h). Children are found by hashing (key, parent, first PARTIAL_MIN tokens) and compared token by
 * token: a hash alone decides nothing. A page that only the tree holds is `cached`; whoever holds a page holds its
 * ancestors, so the cached pages form whole subtrees and all of them can be had by taking leaves. Such leaves are listed by
 * age; an inner page joins the list when its last child goes. */
#include "infer/pages.h"

#include <string.h>

#include "base/hash.h"

void pages_take(struct pages *p, int n, struct stave_arena *a)
{
	p->n = n;
	for (p->n_chains = 16; p->n_chains < (uint64_t)n; p->n_chains *= 2)
		;
	p->p = stave_arena_take(a, (size_t)n * sizeof *p->p);
	p->ids = stave_arena_take(a, (size_t)n * STAVE_PAGE * sizeof *p->ids);
	p->chain = stave_arena_take(a, p->n_chains * sizeof *p->chain);
}

void pages_reset(struct pages *p)
{
	p->free_n = p->n;
	p->cached = 0;
	p->free = 0;
	p->oldest = p->newest = PAGE_NONE;
	for (int32_t i = 0; i < p->n; i++)
		p->p[i] = (struct page){.chain = i + 1 < p->n ? i + 1 : PAGE_NONE};
	for (uint64_t i = 0; i < p->n_chains; i++)
		p->chain[i] = PAGE_NONE;
}

/* ---- the list of leaves ---- */

static void unlist(struct pages *p, int32_t i)
{
	struct page *x = &p->p[i];
	if (!x->listed)
		return;
	*(x->older != PAGE_NONE ? &p->p[x->older].newer : &p->oldest) = x->newer;
	*(x->newer != PAGE_NONE ? &p->p[x->newer].older : &p->newest) = x->older;
	x->listed = false;
}

/* Into its place by age. `young`: the search begins at the newest end. */
static void list(struct pages *p, int32_t i, bool young)
{
	struct page *x = &p->p[i];
	int32_t older = young ? p->newest : PAGE_NONE, newer = young ? PAGE_NONE : p->oldest;
	while (young && older != PAGE_NONE && p->p[older].used > x->used) {
		newer = older;
		older = p->p[older].older;
	}
	while (!young && newer != PAGE_NONE && p->p[newer].used < x->used) {
		older = newer;
		newer = p->p[newer].newer;
	}
	x->older = older;
	x->newer = newer;
	*(older != PAGE_NONE ? &p->p[older].newer : &p->oldest) = i;
	*(newer != PAGE_NONE ? &p->p[newer].older : &p->newest) = i;
	x->listed = true;
}

/* ---- pages ---- */

static void give_free(struct pages *p, int32_t i)
{
	p->p[i] = (struct page){.chain = p->free};
	p->free = i;
	p->free_n++;
}

/* Takes the oldest leaf out of the tree. */
static void evict(struct pages *p)
{
	int32_t i = p->oldest, *at;
	struct page *x = &p->p[i];
	unlist(p, i);
	for (at = &p->chain[x->slot]; *at != i; at = &p->p[*at].chain)
		;
	*at = x->chain;
	p->cached--;
	if (x->parent != PAGE_NONE) {
		struct page *up = &p->p[x->parent];
		if (!--up->children && up->refs == 1)
			list(p, x->parent, false);
	}
	give_free(p, i);
}

int32_t pages_get(struct pages *p)
{
	if (p->free == PAGE_NONE && p->oldest != PAGE_NONE)
		evict(p);
	int32_t i = p->free;
	if (i == PAGE_NONE)
		return PAGE_NONE;
	p->free = p->p[i].chain;
	p->free_n--;
	p->p[i] = (struct page){.refs = 1, .parent = PAGE_NONE};
	return i;
}

void pages_hold(struct pages *p, int32_t i)
{
	struct page *x = &p->p[i];
	if (x->refs++ == 1 && x->n) {
		p->cached--;
		unlist(p, i);
	}
}

void pages_drop(struct pages *p, int32_t i)
{
	struct page *x = &p->p[i];
	if (!--x->refs) {
		give_free(p, i);
	} else if (x->refs == 1 && x->n) {
		p->cached++;
		x->used = ++p->clock;
		if (!x->children)
			list(p, i, true);
	}
}

/* ---- the tree ---- */

static uint64_t chain_of(const struct pages *p, const struct prefix *key, int32_t parent, const int32_t *ids)
{
	return stave_hash64(ids, PARTIAL_MIN * sizeof *ids, stave_hash64(key, sizeof *key, (uint64_t)(parent + 1))) & (p->n_chains - 1);
}

static bool same_prefix(const struct prefix *a, const struct prefix *b)
{
	return a->adapter == b->adapter && a->salt[0] == b->salt[0] && a->salt[1] == b->salt[1];
}

int32_t pages_find(const struct pages *p, const struct prefix *key, int32_t parent, const int32_t *ids, int n, int *common)
{
	int32_t best = PAGE_NONE;
	int most = PARTIAL_MIN - 1;
	for (int32_t i = p->chain[chain_of(p, key, parent, ids)]; i != PAGE_NONE; i = p->p[i].chain) {
		const struct page *x = &p->p[i];
		const int32_t *have = p->ids + (size_t)i * STAVE_PAGE;
		int k = 0, max = x->n < n ? x->n : n;
		if (x->parent != parent || !same_prefix(&x->key, key))
			continue;
		while (k < max && have[k] == ids[k])
			k++;
		if (k > most || (k == most && best != PAGE_NONE && x->n > p->p[best].n)) {
			most = k;
			best = i;
		}
	}
	if (best != PAGE_NONE)
		*common = most;
	return best;
}

int32_t pages_publish(struct pages *p, const struct prefix *key, int32_t parent, const int32_t *ids, int n, int32_t i)
{
	int common = 0;
	int32_t same = pages_find(p, key, parent, ids, n, &common);
	if (same != PAGE_NONE && common == n) {
		pages_hold(p, same);
		pages_drop(p, i);
		return same;
	}
	struct page *x = &p->p[i];
	x->key = *key;
	x->n = n;
	x->parent = parent;
	x->slot = chain_of(p, key, parent, ids);
	x->chain = p->chain[x->slot];
	x->refs++;
	p->chain[x->slot] = i;
	memcpy(p->ids + (size_t)i * STAVE_PAGE, ids, (size_t)n * sizeof *ids);
	if (parent != PAGE_NONE)
		p->p[parent].children++;
	return i;
}
