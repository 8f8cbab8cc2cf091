/* The truth for an engine: the same model run directly, token by token, alone, in pages of its own in reverse order. */
#ifndef TEST_DIRECT_H
#define TEST_DIRECT_H

#include "infer/tiny_model.h"

enum { DIRECT_PAGES = 8, DIRECT_V = 512 };

/* After the prompt ids (n), the likeliest tokens into out (make). hidden (n, C), if not NULL, gets the states of the prompt. An encoder reads the
 * whole text at once, and make is 0. adapter: a directory or NULL. */
static inline void direct_run(const char *model, const char *adapter, const int32_t *ids, int n, int make, int32_t *out, float *hidden)
{
	struct stave_source *source;
	struct stave_lm *lm;
	struct stave_adapter *a = NULL;
	struct stave_lm_memory m;
	struct stave_arena arena, plan = stave_arena_plan("direct");
	struct stave_err e = {0};
	int32_t pages[DIRECT_PAGES];
	float logits[DIRECT_V];
	tiny_must(stave_source_open(&source, model, &e), &e);
	const struct stave_shape *s = stave_source_shape(source);
	struct stave_lm_config c = {.source = source, .type = STAVE_QTYPE_COUNT, .cache = STAVE_CACHE_BF16, .pages = DIRECT_PAGES, .context = s->T_max,
	                            .rows = s->encoder ? n : 1};
	assert_true(n + make <= DIRECT_PAGES * STAVE_PAGE && s->V <= DIRECT_V);
	tiny_must(stave_lm_plan(&c, &m, &e), &e);
	if (adapter) {
		tiny_must(stave_adapter_open(&a, adapter, source, &e), &e);
		stave_adapter_take(a, &plan);
	}
	tiny_must(stave_arena_open(&arena, "direct", m.total + plan.used, &e), &e);
	tiny_must(stave_lm_open(&lm, &c, &arena, &e), &e);
	if (adapter)
		stave_adapter_take(a, &arena);
	for (int i = 0; i < DIRECT_PAGES; i++)
		pages[i] = DIRECT_PAGES - 1 - i;
	for (int past = 0, step = s->encoder ? n : 1; past < n + make - (make > 0); past += step) {
		struct stave_lm_rows row = {.ids = past < n ? ids + past : out + past - n, .n = step, .past = past, .pages = pages, .adapter = a};
		stave_lm_run(lm, &row, 1);
		if (hidden && past < n)
			memcpy(hidden + (size_t)past * (size_t)s->C, row.hidden, (size_t)step * (size_t)s->C * sizeof *hidden);
		if (past < n - 1 || !make)
			continue;
		int best = 0;
		stave_lm_logits(lm, &row.hidden, 1, logits);
		for (int v = 1; v < s->V; v++)
			best = logits[v] > logits[best] ? v : best;
		out[past - n + 1] = best;
	}
	stave_adapter_close(a);
	stave_lm_close(lm);
	stave_arena_close(&arena);
	stave_source_close(source);
}

#endif
