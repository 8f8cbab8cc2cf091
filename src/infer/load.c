/* Loading: model files become a decoder, adapters, cache pages, samplers and buffers in one planned arena. The plan is logged before
 * memory is taken, and what does not fit is refused with the context that would. Planning and taking are the same calls, once
 * on an arena that only counts. Memory is reserved at once and touched in its time, as the weights are brought in (settle_model): first
 * touches take several times as long as everything else together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "infer/engine.h"

#define CONTEXT_DEFAULT 4096
#define CACHE_TOKENS_MAX ((int64_t)1 << 34)
#define TOUCH_BYTES ((size_t)8 << 20) /* of the arena between two looks at the clock */

/* ---- options ---- */

static int limits(struct stave_engine_config *c, const struct stave_shape *s, struct stave_err *err)
{
	c->slots = c->slots ? c->slots : 8;
	c->chunk = c->chunk ? c->chunk : 512;
	c->queue = c->queue ? c->queue : 64;
	c->context = c->context ? c->context : s->T_max < CONTEXT_DEFAULT ? s->T_max : CONTEXT_DEFAULT;
	if (c->slots < 1 || c->slots > 1024 || c->chunk < 1 || c->chunk > 65536 || c->queue < 1 || c->queue > 1 << 20)
		return stave_err_set(err, STAVE_EUSAGE, "slots must be 1..1024, chunk 1..65536, queue 1..1048576; not %d, %d, %d", c->slots, c->chunk, c->queue);
	if (c->context < 1 || c->context > s->T_max)
		return stave_err_set(err, STAVE_EUSAGE, "context %d: the model was made for 1..%d positions", c->context, s->T_max);
	if (c->cache_tokens < 0 || c->cache_tokens > CACHE_TOKENS_MAX || (c->cache_tokens && c->cache_tokens < c->context))
		return stave_err_set(err, STAVE_EUSAGE, "cache_tokens must be 0, or at least the context of %d, not %lld", c->context, (long long)c->cache_tokens);
	if (s->encoder || c->chunk > c->context) /* an encoder reads a text at once */
		c->chunk = c->context;
	return 0;
}

static int speculation(struct stave_engine_config *c, const struct stave_shape *s, struct stave_err *err)
{
	if (c->draft && !c->speculate)
		c->speculate = 4;
	if (c->speculate < 0 || c->speculate > STAVE_SPECULATE_MAX || c->ngram < 0)
		return stave_err_set(err, STAVE_EUSAGE, "speculate must be 0..%d and ngram not negative; not %d and %d", STAVE_SPECULATE_MAX, c->speculate, c->ngram);
	if (c->speculate && !c->draft && !c->ngram)
		c->ngram = 2;
	if (s->encoder && c->speculate)
		return stave_err_set(err, STAVE_EUSAGE, "an encoder generates nothing: it cannot speculate");
	return 0;
}

/* A bf16 cache costs a model of block types nothing that can be measured, but is by far the largest error of one in F32 or F16. */
static const char *default_cache(const struct stave_source *s, enum stave_qtype type)
{
	type = type == STAVE_QTYPE_COUNT ? stave_source_main_type(s) : type;
	return type == STAVE_Q_F32 || type == STAVE_Q_F16 ? "f32" : "bf16";
}

static int choose_types(const struct stave_engine_config *c, const struct stave_source *s, enum stave_qtype *type, enum stave_cache_type *cache, struct stave_err *err)
{
	static const char *const caches[] = {[STAVE_CACHE_F32] = "f32", [STAVE_CACHE_BF16] = "bf16", [STAVE_CACHE_I8] = "i8"};
	int i = 0;
	*type = c->type && strcmp(c->type, "auto") ? stave_qtype_of_name(c->type) : STAVE_QTYPE_COUNT;
	if (*type == STAVE_QTYPE_COUNT && c->type && strcmp(c->type, "auto"))
		return stave_err_set(err, STAVE_EUSAGE, "type '%.40s': wanted auto or one of F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K …", c->type);
	const char *k = c->cache && strcmp(c->cache, "auto") ? c->cache : default_cache(s, *type);
	while (i < 3 && strcmp(caches[i], k))
		i++;
	if (i == 3)
		return stave_err_set(err, STAVE_EUSAGE, "cache '%.40s': wanted auto, bf16, i8 or f32", k);
	*cache = (enum stave_cache_type)i;
	return 0;
}

/* ---- memory ---- */

struct plan {
	struct stave_engine_config c;
	struct stave_lm_config lm, draft;
	struct stave_lm_memory lm_memory, draft_memory;
	size_t adapters, own, total;
};

static void take_adapters(struct loaded *m, struct stave_arena *a)
{
	for (int i = 0; i < m->n_adapters; i++)
		stave_adapter_take(m->adapters[i].a, a);
}

/* What the engine itself holds beside the decoders; planned and taken by the same calls. */
static void take(struct loaded *m, const struct plan *p, struct stave_arena *a)
{
	size_t slots = (size_t)p->c.slots, lists = slots * (size_t)m->pages_each;
	struct sampler planned;
	m->logits = stave_arena_take(a, (size_t)m->rows * (size_t)m->info.shape.V * sizeof *m->logits);
	for (int i = 0; i < p->c.slots; i++)
		sampler_take(a->base ? &m->samplers[i] : &planned, m->V, a);
	m->allowed = stave_arena_take(a, slots * (size_t)m->mask_words * sizeof *m->allowed);
	pages_take(&m->pages, p->lm.pages, a);
	m->page_lists = stave_arena_take(a, lists * sizeof *m->page_lists);
	m->idle_s = stave_arena_take(a, (slots + 1) * sizeof *m->idle_s);
	if (!p->c.draft)
		return;
	m->draft_logits = stave_arena_take(a, slots * (size_t)stave_source_shape(m->draft_source)->V * sizeof *m->draft_logits);
	m->draft_pages = stave_arena_take(a, lists * sizeof *m->draft_pages);
	for (size_t i = 0; a->base && i < lists; i++)
		m->draft_pages[i] = (int32_t)i;
}

/* All memory with so many pages. */
static int plan_with(struct loaded *m, struct plan *p, int pages, struct stave_err *err)
{
	struct stave_arena a = stave_arena_plan("inference");
	p->lm.pages = pages;
	int rc = stave_lm_plan(&p->lm, &p->lm_memory, err);
	if (!rc && p->c.draft)
		rc = stave_lm_plan(&p->draft, &p->draft_memory, err);
	if (rc)
		return rc;
	take_adapters(m, &a);
	p->adapters = a.used;
	take(m, p, &a);
	p->own = a.used - p->adapters;
	p->total = p->lm_memory.total + p->draft_memory.total + a.used;
	return 0;
}

/* The longest context, in pages, of which one fits; all else in the plan follows it. 0: none. */
static int largest_context(struct loaded *m, struct plan *p, size_t have)
{
	int fits = 0, too_many = m->pages_each;
	while (too_many - fits > 1) {
		int k = fits + (too_many - fits) / 2;
		m->pages_each = k;
		p->lm.context = p->draft.context = k * STAVE_PAGE;
		p->draft.pages = p->c.slots * k;
		if (plan_with(m, p, k, NULL) || p->total > have)
			too_many = k;
		else
			fits = k;
	}
	return fits;
}

/* `before` and the size, when there are adapters. */
static const char *adapters_text(char out[64], const char *before, size_t bytes)
{
	char size[32];
	out[0] = 0;
	if (bytes)
		snprintf(out, 64, "%s%s", before, stave_bytes_text(size, (double)bytes));
	return out;
}

static int refuse(const struct plan *p, size_t need, size_t have, const char *option, int64_t fits, struct stave_err *err)
{
	char wanted[32], with[64], avail[32], could[96] = "without any cache it would still not fit";
	if (fits)
		snprintf(could, sizeof could, "it would fit with --%s %lld", option, (long long)fits * STAVE_PAGE);
	return stave_err_set(err, STAVE_ENOFIT, "the model%s needs %s and the machine has %s available; %s", adapters_text(with, " with adapters of ", p->adapters),
	                     stave_bytes_text(wanted, (double)need), stave_bytes_text(avail, (double)have), could);
}

/* As many pages as were asked for; if nothing was asked, no more than fit. */
static int choose_pages(struct loaded *m, struct plan *p, struct stave_err *err)
{
	int64_t tokens = p->c.cache_tokens ? p->c.cache_tokens : (int64_t)p->c.slots * m->pages_each * STAVE_PAGE;
	int64_t want = (tokens + STAVE_PAGE - 1) / STAVE_PAGE;
	int pages = want > INT32_MAX / 2 ? INT32_MAX / 2 : (int)want, rc = plan_with(m, p, pages, err);
	size_t have = stave_memory_available_bytes(), full = p->total;
	have -= have / 64; /* others take memory too, until it is ours */
	if (rc || !have || full <= have) /* 0: not known */
		return rc;
	if ((rc = plan_with(m, p, 1, err)))
		return rc;
	size_t one = p->total, each = pages > 1 ? (full - one) / (size_t)(pages - 1) + 1 : 1;
	size_t fits = have > one ? (have - one) / each + 1 : 0;
	if (fits < (size_t)m->pages_each)
		return refuse(p, full, have, "context", largest_context(m, p, have), err);
	if (p->c.cache_tokens)
		return refuse(p, full, have, "cache-tokens", (int64_t)fits, err);
	stave_log(STAVE_LOG_WARN, "memory holds a cache of %zu of the %d pages that %d full contexts take", fits, pages, p->c.slots);
	return plan_with(m, p, (int)fits, err);
}

static int plan_memory(struct loaded *m, struct plan *p, struct stave_err *err)
{
	int rc = choose_pages(m, p, err);
	if (rc)
		return rc;
	struct stave_engine_info *info = &m->info;
	info->pages = p->lm.pages;
	info->weights_bytes = p->lm_memory.weights + p->draft_memory.weights;
	info->cache_bytes = p->lm_memory.cache + p->draft_memory.cache;
	info->workspace_bytes = p->lm_memory.workspace + p->draft_memory.workspace + p->own;
	info->adapters_bytes = p->adapters;
	info->planned_bytes = p->total;
	char w[32], with[64], k[32], s[32], t[32];
	stave_log(STAVE_LOG_INFO, "memory plan: weights %s (%s)%s, cache %s (%s, %d pages of %d positions), workspace %s: %s",
	          stave_bytes_text(w, (double)info->weights_bytes), info->type, adapters_text(with, ", adapters ", info->adapters_bytes),
	          stave_bytes_text(k, (double)info->cache_bytes), info->cache, info->pages, STAVE_PAGE,
	          stave_bytes_text(s, (double)info->workspace_bytes), stave_bytes_text(t, (double)info->planned_bytes));
	return 0;
}

/* ---- parts ---- */

static int open_adapters(struct loaded *m, const struct stave_engine_config *c, struct stave_err *err)
{
	if (c->n_adapters < 0 || c->n_adapters > 1024)
		return stave_err_set(err, STAVE_EUSAGE, "%d adapters: wanted at most 1024", c->n_adapters);
	m->adapters = calloc((size_t)c->n_adapters + 1, sizeof *m->adapters);
	if (!m->adapters)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for %d adapters", c->n_adapters);
	for (int i = 0; i < c->n_adapters; i++) {
		for (int k = 0; k < i; k++)
			if (!strcmp(c->adapters[i].name, m->adapters[k].name))
				return stave_err_set(err, STAVE_EUSAGE, "two adapters are called '%.100s'", c->adapters[i].name);
		int rc = stave_adapter_open(&m->adapters[i].a, c->adapters[i].dir, m->source, err);
		if (rc)
			return rc;
		m->n_adapters++;
		if (!(m->adapters[i].name = strdup(c->adapters[i].name)))
			return stave_err_set(err, STAVE_ENOMEM, "out of memory for %d adapters", c->n_adapters);
	}
	return 0;
}

/* Proposals are ids: they mean the same to both models only if the vocabularies are the same. */
static int open_draft(struct loaded *m, const struct stave_engine_config *c, struct stave_err *err)
{
	struct stave_tokenizer *t;
	int rc = stave_source_open(&m->draft_source, c->draft, err);
	if (rc || (rc = stave_tokenizer_load(&t, c->draft, err)))
		return rc;
	bool same = stave_tokenizer_vocab(t) == stave_tokenizer_vocab(m->tokenizer);
	struct stave_buf a = {0}, b = {0};
	for (int32_t i = 0; same && i < stave_tokenizer_vocab(t); i++) {
		a.len = b.len = 0;
		same = !stave_decode(t, &i, 1, true, &a, NULL) && !stave_decode(m->tokenizer, &i, 1, true, &b, NULL) && a.len == b.len &&
		       (!a.len || !memcmp(a.p, b.p, a.len));
	}
	stave_buf_free(&a);
	stave_buf_free(&b);
	stave_tokenizer_free(t);
	const struct stave_shape *s = stave_source_shape(m->draft_source);
	m->draft_V = s->V;
	if (!same || s->V < m->V)
		return stave_err_set(err, STAVE_ECONFIG, "the draft model %s has another vocabulary", c->draft);
	if (s->encoder || s->T_max < m->info.context)
		return stave_err_set(err, STAVE_ECONFIG, "the draft model %s %s", c->draft, s->encoder ? "is an encoder" : "was made for a shorter context; lower --context");
	return 0;
}

static enum stave_embed default_embed(const struct stave_source *s)
{
	switch (stave_source_pooling(s)) {
	case STAVE_POOL_MEAN: return STAVE_EMBED_MEAN;
	case STAVE_POOL_LAST: return STAVE_EMBED_LAST;
	case STAVE_POOL_CLS: return STAVE_EMBED_CLS;
	default: return stave_source_shape(s)->encoder ? STAVE_EMBED_MEAN : STAVE_EMBED_LAST;
	}
}

static int find_stops(struct loaded *m, struct stave_err *err)
{
	int n = 0;
	for (int32_t i = 0; i < m->V; i++)
		n += stave_tokenizer_is_stop(m->tokenizer, i);
	m->stops = calloc((size_t)n + 1, sizeof *m->stops);
	if (!m->stops)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for %d stop tokens", n);
	for (int32_t i = 0; i < m->V; i++)
		if (stave_tokenizer_is_stop(m->tokenizer, i))
			m->stops[m->n_stops++] = i;
	return 0;
}

/* Files, and what follows from them and the options; no memory yet to speak of. */
static int open_parts(struct loaded *m, struct plan *p, struct stave_err *err)
{
	struct stave_engine_config *c = &p->c;
	enum stave_qtype type;
	enum stave_cache_type cache = STAVE_CACHE_BF16;
	int rc;
	if ((rc = stave_source_open(&m->source, c->model, err)) || (rc = limits(c, stave_source_shape(m->source), err)) ||
	    (rc = speculation(c, stave_source_shape(m->source), err)) || (rc = choose_types(c, m->source, &type, &cache, err)) ||
	    (rc = stave_tokenizer_load(&m->tokenizer, c->model, err)))
		return rc;
	struct stave_engine_info *info = &m->info;
	info->shape = *stave_source_shape(m->source);
	info->slots = c->slots, info->context = c->context, info->chunk = c->chunk, info->queue = c->queue;
	info->type = stave_qtype_info(type == STAVE_QTYPE_COUNT ? stave_source_main_type(m->source) : type).name;
	info->cache = cache == STAVE_CACHE_F32 ? "f32" : cache == STAVE_CACHE_I8 ? "i8" : "bf16";
	info->tokenizer = m->tokenizer;
	snprintf(info->model_hash, sizeof info->model_hash, "%016llx", (unsigned long long)stave_source_hash(m->source));
	int vocab = stave_tokenizer_vocab(m->tokenizer);
	m->V = vocab < info->shape.V ? vocab : info->shape.V;
	m->mask_words = (vocab + 31) / 32;
	m->pages_each = (c->context + STAVE_PAGE - 1) / STAVE_PAGE;
	m->embed = default_embed(m->source);
	m->speculate = c->speculate;
	m->ngram = c->ngram;
	m->rows = c->slots * (1 + c->speculate);
	m->samplers = calloc((size_t)c->slots, sizeof *m->samplers);
	if (!m->samplers)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for %d slots", c->slots);
	p->lm = (struct stave_lm_config){.source = m->source, .type = type, .cache = cache, .context = c->context, .rows = m->rows + c->chunk};
	if ((rc = find_stops(m, err)) || (rc = open_adapters(m, c, err)) || (c->draft && (rc = open_draft(m, c, err))))
		return rc;
	if (c->draft && c->slots > INT32_MAX / m->pages_each)
		return stave_err_set(err, STAVE_EUSAGE, "%d slots of %d positions are too many for a draft model", c->slots, c->context);
	p->draft = (struct stave_lm_config){.source = m->draft_source, .type = STAVE_QTYPE_COUNT, .cache = cache, .pages = c->draft ? c->slots * m->pages_each : 0,
	                                    .context = c->context, .rows = c->slots + c->chunk};
	return 0;
}

int load_model(struct loaded *m, const struct stave_engine_config *config, struct stave_err *err)
{
	struct plan p = {.c = *config};
	double start = stave_now_s();
	int rc;
	*m = (struct loaded){0};
	if ((rc = open_parts(m, &p, err)) || (rc = plan_memory(m, &p, err)) || (rc = stave_arena_reserve(&m->arena, "inference", m->info.planned_bytes, err)) ||
	    (rc = stave_lm_open(&m->lm, &p.lm, &m->arena, err)) || (p.c.draft && (rc = stave_lm_open(&m->draft, &p.draft, &m->arena, err)))) {
		unload_model(m);
		return rc;
	}
	take_adapters(m, &m->arena);
	take(m, &p, &m->arena);
	m->info.taken_bytes = m->arena.used;
	m->touched = p.lm_memory.weights; /* settling the model touches those */
	pages_reset(&m->pages);
	m->info.load_s = stave_now_s() - start;
	return 0;
}

bool settle_model(struct loaded *m, double seconds)
{
	double end = stave_now_s() + seconds;
	if (!stave_lm_settle(m->lm, seconds) || (m->draft && !stave_lm_settle(m->draft, end - stave_now_s())))
		return false;
	while (m->touched < m->arena.size && stave_now_s() < end) {
		size_t left = m->arena.size - m->touched, slice = left < TOUCH_BYTES ? left : TOUCH_BYTES;
		stave_arena_touch(&m->arena, m->touched, m->touched + slice);
		m->touched += slice;
	}
	return m->touched == m->arena.size;
}

void unload_model(struct loaded *m)
{
	stave_lm_close(m->draft);
	stave_lm_close(m->lm);
	for (int i = 0; i < m->n_adapters; i++) {
		stave_adapter_close(m->adapters[i].a);
		free(m->adapters[i].name);
	}
	free(m->adapters);
	free(m->samplers);
	free(m->stops);
	if (m->arena.base)
		stave_arena_close(&m->arena);
	if (m->tokenizer)
		stave_tokenizer_free(m->tokenizer);
	stave_source_close(m->draft_source);
	stave_source_close(m->source);
	*m = (struct loaded){0};
}
