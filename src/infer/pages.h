/* Private to infer/: the pool of cache pages and the tree of those whose content is known.
 *
 * A page is free, held by sequences, in the tree, or both of the latter. Pages in the tree never change: each is the continuation of
 * its parent page by up to STAVE_PAGE known tokens under one prefix key (adapter and salt), so a path from a root spells
 * the beginning of a text. Nodes are pages: the tree needs no memory of its own that could run out. */
#ifndef STAVE_INFER_PAGES_H
#define STAVE_INFER_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "kernel/paged.h"

/* What two texts must share beside their tokens for their cached states to be the same. */
struct prefix {
	int64_t adapter;     /* index, -1 = none */
	uint64_t salt[2];
};
#define PAGE_NONE (-1)
#define PARTIAL_MIN 8 /* equal tokens that are worth copying a page for; tells chains of the hash apart */

struct page {
	struct prefix key;
	uint64_t used;       /* clock of the last release */
	uint64_t slot;       /* its chain */
	int32_t refs;        /* sequences that hold it, and the tree */
	int32_t n;           /* known tokens; 0 = not in the tree */
	int32_t parent, children;
	int32_t chain;       /* next in the hash chain; next free page */
	int32_t older, newer; /* list of leaves that only the tree holds */
	bool listed;
};
struct pages {
	int n, free_n, cached; /* in all; on the free list; held by the tree alone */
	struct page *p;        /* (n) */
	int32_t *ids;          /* (n, STAVE_PAGE) of pages in the tree */
	int32_t *chain;        /* (n_chains) first page of each hash chain */
	uint64_t n_chains;     /* a power of two */
	int32_t free, oldest, newest;
	uint64_t clock;
};
/* Takes memory for n pages (pointers NULL while planning); pages_reset makes all free. */
void pages_take(struct pages *p, int n, struct stave_arena *a);
void pages_reset(struct pages *p);
/* A page for the caller to write, held once: a free one, or the leaf of the tree that was used least recently. PAGE_NONE: all are held. */
int32_t pages_get(struct pages *p);
static inline int pages_spare(const struct pages *p) { return p->free_n + p->cached; }
void pages_hold(struct pages *p, int32_t page);
void pages_drop(struct pages *p, int32_t page);
/* The continuation of `parent` (PAGE_NONE: of nothing) that shares most leading tokens with ids[0..n), n >= PARTIAL_MIN; *common = how many, at
 * least PARTIAL_MIN. PAGE_NONE: there is none. The caller holds parent. */
int32_t pages_find(const struct pages *p, const struct prefix *key, int32_t parent, const int32_t *ids, int n, int *common);
/* `page`, held once by the caller and holding the states of ids[0..n) after `parent`, enters the tree, still held. Where the tree has the same
 * (or more) already, the caller's page is dropped and that one returned, held. n >= PARTIAL_MIN. The caller holds parent, which is a whole page. */
int32_t pages_publish(struct pages *p, const struct prefix *key, int32_t parent, const int32_t *ids, int n, int32_t page);

#endif
