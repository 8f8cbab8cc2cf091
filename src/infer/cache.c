/* A sequence's pages. Whole pages of the same tokens under the same prefix are taken from the tree; where a page agrees only in part, it
 * is copied and continued. The last known token is always computed, since its logits are wanted. Everything computed goes
 * into the tree page by page, so that sequences that run at the same time share as well. */
#include "infer/engine.h"

static int pages_for(int positions) { return (positions + STAVE_PAGE - 1) / STAVE_PAGE; }
/* Prompts that must be computed: their rows are looked at one by one. */
static bool computes_all(const struct stave_engine *e, const struct seq *s)
{
	return s->r.prompt_logprobs || s->r.embed != STAVE_EMBED_NONE;
}
static int32_t last_page(const struct seq *s, int n) { return n ? s->pages[n - 1] : PAGE_NONE; }

/* The tree's next whole page of s, held; PAGE_NONE: it has none. n pages of s are in the tree. */
static int32_t next_whole(struct stave_engine *e, struct seq *s, int n)
{
	int common = 0, at = n * STAVE_PAGE;
	if (at + STAVE_PAGE >= s->n)
		return PAGE_NONE;
	int32_t page = pages_find(&e->m.pages, &s->prefix, last_page(s, n), s->tokens + at, STAVE_PAGE, &common);
	if (page == PAGE_NONE || common < STAVE_PAGE)
		return PAGE_NONE;
	pages_hold(&e->m.pages, page);
	return page;
}

/* Goes on from a page that agrees with s's next tokens in part; the pages before it are whole and held. */
static void copy_part(struct stave_engine *e, struct seq *s)
{
	struct pages *p = &e->m.pages;
	int at = s->n_pages * STAVE_PAGE, n = s->n - 1 - at, common = 0;
	if (n < PARTIAL_MIN)
		return;
	int32_t from = pages_find(p, &s->prefix, last_page(s, s->n_pages), s->tokens + at, n < STAVE_PAGE ? n : STAVE_PAGE, &common);
	if (from == PAGE_NONE)
		return;
	pages_hold(p, from);
	int32_t to = pages_get(p);
	if (to != PAGE_NONE) {
		stave_lm_copy_page(e->m.lm, to, from);
		s->pages[s->n_pages++] = to;
		s->past += common;
	}
	pages_drop(p, from);
}

static void drop_all(struct stave_engine *e, struct seq *s)
{
	while (s->n_pages) /* the last first: it is the first to be evicted */
		pages_drop(&e->m.pages, s->pages[--s->n_pages]);
	s->past = s->published = 0;
}

bool cache_enter(struct stave_engine *e, struct seq *s, int reserve)
{
	int32_t page;
	s->pages = e->m.page_lists + (size_t)s->slot * (size_t)e->m.pages_each;
	s->n_pages = s->published = s->past = 0;
	while (!computes_all(e, s) && (page = next_whole(e, s, s->n_pages)) != PAGE_NONE)
		s->pages[s->n_pages++] = page;
	if (pages_spare(&e->m.pages) < pages_for(s->n) - s->n_pages + reserve) {
		drop_all(e, s);
		return false;
	}
	s->published = s->n_pages;
	s->past = s->n_pages * STAVE_PAGE;
	if (!computes_all(e, s)) {
		copy_part(e, s);
		e->now.prefix_tokens += (uint64_t)s->n;
		e->now.prefix_hits += (uint64_t)s->past;
	}
	if (!s->preemptions)
		s->cached = s->past;
	return cache_grow(e, s, s->n);
}

void cache_rejoin(struct stave_engine *e, struct seq *s)
{
	int32_t page;
	while (!computes_all(e, s) && s->past == s->published * STAVE_PAGE && (page = next_whole(e, s, s->published)) != PAGE_NONE) {
		pages_drop(&e->m.pages, s->pages[s->published]);
		s->pages[s->published++] = page;
		s->past += STAVE_PAGE;
		s->cached += s->preemptions ? 0 : STAVE_PAGE;
		e->now.prefix_hits += STAVE_PAGE;
	}
}

bool cache_grow(struct stave_engine *e, struct seq *s, int positions)
{
	while (s->n_pages < pages_for(positions)) {
		int32_t page = pages_get(&e->m.pages);
		if (page == PAGE_NONE)
			return false;
		s->pages[s->n_pages++] = page;
	}
	return true;
}

void cache_publish(struct stave_engine *e, struct seq *s)
{
	if (s->r.embed != STAVE_EMBED_NONE)
		return;
	for (int at; (at = s->published * STAVE_PAGE) + STAVE_PAGE <= s->past; s->published++)
		s->pages[s->published] = pages_publish(&e->m.pages, &s->prefix, last_page(s, s->published), s->tokens + at, STAVE_PAGE, s->pages[s->published]);
}

void cache_leave(struct stave_engine *e, struct seq *s)
{
	cache_publish(e, s);
	int at = s->published * STAVE_PAGE, n = s->past - at;
	if (s->r.embed == STAVE_EMBED_NONE && n >= PARTIAL_MIN)
		s->pages[s->published] = pages_publish(&e->m.pages, &s->prefix, last_page(s, s->published), s->tokens + at, n, s->pages[s->published]);
	drop_all(e, s);
}
