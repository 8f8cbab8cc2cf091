/* The pool of pages and its tree by themselves, against a plain list of what was published; then what an engine does with
 * them: prompts found again, shared, kept apart by salt, evicted, preempted, and always the same answers as computed alone. */
#include "infer/answers.h"

#include "infer/direct.h"
#include "infer/engine.h"

enum { CONTEXT = 512 };
static char *dir;

/* ---- pages ---- */

static struct stave_arena arena;
static struct pages fresh(int n)
{
	struct pages p;
	if (!arena.base)
		assert_int_equal(stave_arena_open(&arena, "pages", 1 << 20, NULL), 0);
	arena.used = 0;
	pages_take(&p, n, &arena);
	pages_reset(&p);
	return p;
}

static const struct prefix plain = {.adapter = -1};
static int32_t text_of(int seed, int i) { return (int32_t)(stave_random64((uint64_t)seed, (uint64_t)i) % 50000); }
static void text(int32_t *ids, int seed, int n)
{
	for (int i = 0; i < n; i++)
		ids[i] = text_of(seed, i);
}

static void pool(void **state)
{
	struct pages p = fresh(3);
	int32_t a = pages_get(&p), b = pages_get(&p), c = pages_get(&p);
	assert_true(a != b && b != c && a != c);
	assert_int_equal(pages_get(&p), PAGE_NONE);
	pages_hold(&p, b);
	pages_drop(&p, b);
	assert_int_equal(pages_get(&p), PAGE_NONE);
	pages_drop(&p, b);
	assert_int_equal(pages_spare(&p), 1);
	assert_int_equal(pages_get(&p), b);
}

static void tree(void **state)
{
	struct pages p = fresh(4);
	struct prefix salted = {.adapter = -1, .salt = {1, 0}}, adapted = {.adapter = 0};
	int32_t ids[2 * STAVE_PAGE], other[STAVE_PAGE];
	int common = 0;
	text(ids, 1, 2 * STAVE_PAGE);
	int32_t a = pages_get(&p), b = pages_get(&p);
	assert_int_equal(pages_publish(&p, &plain, PAGE_NONE, ids, STAVE_PAGE, a), a);
	assert_int_equal(pages_publish(&p, &plain, a, ids + STAVE_PAGE, 20, b), b);
	assert_int_equal(pages_find(&p, &plain, PAGE_NONE, ids, STAVE_PAGE, &common), a);
	assert_int_equal(common, STAVE_PAGE);
	assert_int_equal(pages_find(&p, &plain, a, ids + STAVE_PAGE, STAVE_PAGE, &common), b);
	assert_int_equal(common, 20); /* as far as it is known */
	assert_int_equal(pages_find(&p, &salted, PAGE_NONE, ids, STAVE_PAGE, &common), PAGE_NONE);
	assert_int_equal(pages_find(&p, &adapted, PAGE_NONE, ids, STAVE_PAGE, &common), PAGE_NONE);
	assert_int_equal(pages_find(&p, &plain, b, ids, STAVE_PAGE, &common), PAGE_NONE); /* elsewhere in a text */
	memcpy(other, ids, sizeof other);
	other[PARTIAL_MIN + 3]++;
	assert_int_equal(pages_find(&p, &plain, PAGE_NONE, other, STAVE_PAGE, &common), a);
	assert_int_equal(common, PARTIAL_MIN + 3);
	other[PARTIAL_MIN - 1]++;
	assert_int_equal(pages_find(&p, &plain, PAGE_NONE, other, STAVE_PAGE, &common), PAGE_NONE);
	/* a second copy is dropped for the first */
	int32_t c = pages_get(&p);
	assert_int_equal(pages_publish(&p, &plain, PAGE_NONE, ids, STAVE_PAGE, c), a);
	assert_int_equal(p.free_n, 2);
	/* the leaf goes before its parent, though the parent was dropped first */
	pages_drop(&p, a);
	pages_drop(&p, a);
	pages_drop(&p, b);
	assert_int_equal(p.cached, 2);
	c = pages_get(&p);
	int32_t d = pages_get(&p), e = pages_get(&p);
	assert_true(c != a && c != b && d != a && d != b);
	assert_int_equal(e, b);
	assert_int_equal(pages_find(&p, &plain, a, ids + STAVE_PAGE, 20, &common), PAGE_NONE);
	assert_int_equal(pages_find(&p, &plain, PAGE_NONE, ids, STAVE_PAGE, &common), a);
	assert_int_equal(pages_get(&p), a);
	assert_int_equal(pages_get(&p), PAGE_NONE);
}

static void oldest_first(void **state)
{
	enum { N = 6 };
	struct pages p = fresh(N);
	int32_t ids[N][STAVE_PAGE], page[N];
	int common;
	for (int i = 0; i < N; i++) {
		text(ids[i], i + 1, STAVE_PAGE);
		page[i] = pages_get(&p);
		pages_publish(&p, &plain, PAGE_NONE, ids[i], STAVE_PAGE, page[i]);
	}
	static const int order[N] = {3, 0, 5, 1, 4, 2};
	for (int i = 0; i < N; i++)
		pages_drop(&p, page[order[i]]);
	pages_hold(&p, page[0]); /* used once more: now the youngest */
	pages_drop(&p, page[0]);
	static const int want[N] = {3, 5, 1, 4, 2, 0};
	for (int i = 0; i < N; i++) {
		assert_int_equal(pages_get(&p), page[want[i]]);
		assert_int_equal(pages_find(&p, &plain, PAGE_NONE, ids[want[i]], STAVE_PAGE, &common), PAGE_NONE);
	}
}

/* Random texts over few seeds come and go; a page found must hold what the text says, by the test's own record. */
static void many_texts(void **state)
{
	enum { N = 24, SEQS = 5, ROUNDS = 20000 };
	struct pages p = fresh(N);
	static int32_t content[N][STAVE_PAGE]; /* what was written to each page */
	struct { int seed, n; int32_t page[4]; } q[SEQS] = {0};
	int hits = 0;
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t r = stave_random64(9, (uint64_t)round);
		int i = (int)(r % SEQS), common = 0, n = q[i].n;
		int32_t ids[STAVE_PAGE], parent = n ? q[i].page[n - 1] : PAGE_NONE;
		if (n == 4 || r >> 8 & 1) {
			while (q[i].n)
				pages_drop(&p, q[i].page[--q[i].n]);
			q[i].seed = (int)(r >> 16 & 7);
			continue;
		}
		for (int k = 0; k < STAVE_PAGE; k++)
			ids[k] = text_of(q[i].seed, n * STAVE_PAGE + k);
		int32_t page = pages_find(&p, &plain, parent, ids, STAVE_PAGE, &common);
		if (page != PAGE_NONE && common == STAVE_PAGE) {
			assert_memory_equal(content[page], ids, sizeof ids);
			pages_hold(&p, page);
			hits++;
		} else {
			if ((page = pages_get(&p)) == PAGE_NONE)
				continue;
			for (int k = 0; k < SEQS; k++)
				for (int at = 0; at < q[k].n; at++)
					assert_int_not_equal(q[k].page[at], page);
			memcpy(content[page], ids, sizeof ids);
			assert_int_equal(pages_publish(&p, &plain, parent, ids, STAVE_PAGE, page), page);
		}
		q[i].page[q[i].n++] = page;
		bool held[N] = {0};
		int n_held = 0;
		for (int k = 0; k < SEQS; k++)
			for (int at = 0; at < q[k].n; at++)
				held[q[k].page[at]] = true;
		for (int k = 0; k < N; k++)
			n_held += held[k];
		assert_int_equal(pages_spare(&p), N - n_held);
	}
	assert_true(hits > ROUNDS / 20);
	for (int i = 0; i < SEQS; i++)
		while (q[i].n)
			pages_drop(&p, q[i].page[--q[i].n]);
	for (int i = 0; i < N; i++)
		assert_int_not_equal(pages_get(&p), PAGE_NONE);
}

/* ---- the engine ---- */

static struct stave_engine *open_engine(int slots, int chunk, int64_t cache_tokens)
{
	struct stave_engine *e;
	struct stave_err err = {0};
	struct stave_engine_config c = {.model = dir, .slots = slots, .cache = "bf16", .chunk = chunk, .cache_tokens = cache_tokens};
	tiny_must(stave_engine_open(&e, &c, &err), &err);
	return e;
}

static void direct(const int32_t *ids, int n, int make, int32_t *out) { direct_run(dir, NULL, ids, n, make, out, NULL); }

/* One prompt, computed; found again whole; in part; continued; under another salt; and scored, which computes it. */
static void reuse(void **state)
{
	static struct answer first, again, part, more, salted, scored;
	static int32_t ids[CONTEXT], truth[40];
	struct stave_engine *e = open_engine(2, 100, 0);
	prompt(ids, 300, 1);
	direct(ids, 300, 40, truth);
	struct stave_request r = request(e, &first, ids, 300, 40);
	r.sampling.temperature = 0;
	run_one(&r, &first);
	assert_int_equal(first.end.cached_tokens, 0);
	assert_memory_equal(first.ids, truth, sizeof truth);
	r = request(e, &again, ids, 300, 40);
	r.sampling.temperature = 0;
	run_one(&r, &again);
	assert_int_equal(again.end.cached_tokens, 299); /* the last one's logits are wanted */
	same_answer(&first, &again, "a prompt found");
	ids[130]++;
	direct(ids, 300, 40, truth);
	r = request(e, &part, ids, 300, 40);
	r.sampling.temperature = 0;
	run_one(&r, &part);
	assert_int_equal(part.end.cached_tokens, 128); /* 2 pages; 2 equal tokens are not worth copying one */
	assert_memory_equal(part.ids, truth, sizeof truth);
	ids[130]--;
	memcpy(ids + 300, first.ids, 40 * sizeof *ids);
	prompt(ids + 340, 20, 2);
	direct(ids, 360, 40, truth);
	r = request(e, &more, ids, 360, 40);
	r.sampling.temperature = 0;
	run_one(&r, &more);
	assert_int_equal(more.end.cached_tokens, 339); /* the last token drawn was never computed */
	assert_memory_equal(more.ids, truth, sizeof truth);
	r = request(e, &salted, ids, 300, 40);
	r.sampling.temperature = 0;
	r.cache_salt = "somebody else";
	run_one(&r, &salted);
	assert_int_equal(salted.end.cached_tokens, 0);
	same_answer(&first, &salted, "another salt");
	r = request(e, &scored, ids, 340, 0);
	r.prompt_logprobs = true;
	run_one(&r, &scored);
	assert_int_equal(scored.end.cached_tokens, 0);
	assert_int_equal(scored.n_prompt, 339);
	struct stave_engine_stats s = stave_engine_stats(e);
	assert_int_equal(s.prefix_hits, 299 + 128 + 339);
	assert_int_equal(s.pages_used, 0);
	assert_true(s.pages_cached > 0 && s.pages_cached <= s.pages);
	stave_engine_close(e);
}

/* The same prompt several times at once: computed once. */
static void shared(void **state)
{
	enum { N = 4 };
	static struct answer a[N];
	static int32_t ids[CONTEXT], truth[10];
	struct stave_request r[N];
	struct stave_engine *e = open_engine(N, 64, 0);
	prompt(ids, 330, 5);
	direct(ids, 330, 10, truth);
	for (int i = 0; i < N; i++) {
		r[i] = request(e, &a[i], ids, 330, 10);
		r[i].sampling.temperature = 0;
	}
	run_all(r, N);
	for (int i = 0; i < N; i++) {
		assert_memory_equal(a[i].ids, truth, sizeof truth);
		assert_int_equal(a[i].end.cached_tokens, i ? 320 : 0);
	}
	assert_true(stave_engine_stats(e).step_tokens < 330 + N * (10 + 10));
	stave_engine_close(e);
}

/* More text than the pool holds: the young make way and lose nothing. */
static void preemption(void **state)
{
	enum { N = 6 };
	static struct answer alone[N], together[N];
	static int32_t ids[N][CONTEXT];
	struct stave_request r[N];
	struct stave_engine *e = open_engine(4, 64, CONTEXT);
	int preempted = 0;
	for (int i = 0; i < N; i++) {
		prompt(ids[i], 60 + 9 * i, i);
		r[i] = request(e, &alone[i], ids[i], 60 + 9 * i, 300);
		r[i].sampling.seed = (uint64_t)i;
		r[i].sampling.frequency_penalty = .1f; /* counts must survive too */
		r[i].sampling.penalty_last_n = i % 2 ? 50 : 0;
		r[i].prompt_logprobs = i == 3;
		run_one(&r[i], &alone[i]);
		assert_int_equal(alone[i].end.preemptions, 0);
		r[i] = request(e, &together[i], ids[i], 60 + 9 * i, 300);
		r[i].sampling = (struct stave_sampling)r[i].sampling;
		r[i].sampling.seed = (uint64_t)i;
		r[i].sampling.frequency_penalty = .1f;
		r[i].sampling.penalty_last_n = i % 2 ? 50 : 0;
		r[i].prompt_logprobs = i == 3;
		r[i].cache_salt = "afresh";
	}
	run_all(r, N);
	for (int i = 0; i < N; i++) {
		same_answer(&alone[i], &together[i], "preempted");
		assert_int_equal(alone[i].n_prompt, together[i].n_prompt);
		assert_memory_equal(alone[i].prompt_logprob, together[i].prompt_logprob, sizeof alone[i].prompt_logprob);
		preempted += together[i].end.preemptions;
	}
	assert_int_equal(together[0].end.preemptions, 0); /* never the oldest */
	assert_true(preempted > 0);
	assert_int_equal(stave_engine_stats(e).preemptions, preempted);
	assert_int_equal(stave_engine_stats(e).pages_used, 0);
	stave_engine_close(e);
}

/* Many prompts with common beginnings through a pool that holds few of them. */
static void eviction(void **state)
{
	enum { N = 40, BASES = 5 };
	static struct answer a;
	static int32_t ids[CONTEXT], truth[BASES][2][8];
	struct stave_engine *e = open_engine(2, 128, CONTEXT);
	for (int i = 0; i < N; i++) {
		int base = (int)(stave_random64(4, (uint64_t)i) % BASES), tail = i % 2;
		prompt(ids, 200, base);
		prompt(ids + 200, 30, 100 + tail);
		if (i < 2 * BASES) {
			base = i / 2;
			prompt(ids, 200, base);
			direct(ids, 230, 8, truth[base][tail]);
		}
		struct stave_request r = request(e, &a, ids, 230, 8);
		r.sampling.temperature = 0;
		run_one(&r, &a);
		assert_memory_equal(a.ids, truth[base][tail], sizeof truth[base][tail]);
	}
	struct stave_engine_stats s = stave_engine_stats(e);
	assert_int_equal(s.pages, CONTEXT / STAVE_PAGE);
	assert_true(s.prefix_hits > 0 && s.prefix_hits < s.prefix_tokens);
	stave_engine_close(e);
}

/* A short prompt behind a long one is answered first; the long one is not forgotten. */
static void fairness(void **state)
{
	static struct answer a, b;
	static int32_t ids[2][CONTEXT];
	struct stave_engine *e = open_engine(2, 16, 0);
	prompt(ids[0], 500, 7);
	prompt(ids[1], 40, 8);
	struct stave_request r[2] = {request(e, &a, ids[0], 500, 2), request(e, &b, ids[1], 40, 2)};
	run_all(r, 2);
	assert_true(b.done_at < a.done_at);
	assert_int_equal(a.n, 2);
	stave_engine_close(e);
}

static void pace(void **state)
{
	double idle_s[5] = {0};
	struct pace p = {.idle_s = idle_s, .slots = 4};
	assert_int_equal(pace_chunk(&p, 0, 512), 512);
	assert_int_equal(pace_chunk(&p, 2, 512), 0); /* a step without a prompt comes first */
	for (int i = 0; i < 50; i++)
		pace_note(&p, 2, 0, .010);
	pace_note(&p, 0, 100, .100);
	assert_in_range(pace_chunk(&p, 2, 512), 11, 12); /* 10 ms alone: 12 ms more are 22 */
	for (int i = 0; i < 200; i++) { /* a machine where a step costs 8 ms, and 2 ms per token beside it */
		int n = pace_chunk(&p, 2, 512);
		assert_in_range(n, 1, 512);
		pace_note(&p, 2, n, .008 + .002 * n);
	}
	int n = pace_chunk(&p, 2, 512);
	assert_true(.008 + .002 * n < 3 * .010 && .008 + .002 * n > .015);
	for (int i = 0; i < 200; i++) /* and where they cost nearly nothing */
		pace_note(&p, 2, pace_chunk(&p, 2, 512), .010);
	assert_int_equal(pace_chunk(&p, 2, 512), 512);
	assert_in_range(pace_chunk(&p, 4, 512), 1, 512);
	assert_in_range(pace_chunk(&p, 1, 512), 1, 512);
	pace_forget(&p);
	assert_int_equal(pace_chunk(&p, 2, 512), 0);
}

int main(void)
{
	setenv("STAVE_LOG", "error", 0);
	dir = tiny_model(11, CONTEXT);
	const struct CMUnitTest tests[] = {cmocka_unit_test(pool), cmocka_unit_test(tree), cmocka_unit_test(oldest_first), cmocka_unit_test(many_texts),
	                                   cmocka_unit_test(reuse), cmocka_unit_test(shared), cmocka_unit_test(preemption), cmocka_unit_test(eviction),
	                                   cmocka_unit_test(fairness), cmocka_unit_test(pace)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (arena.base)
		stave_arena_close(&arena);
	tiny_remove(dir);
	return failed;
}
