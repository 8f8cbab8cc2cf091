/* The engine: answers do not depend on neighbours, limits hold, every sequence ends exactly once whatever happens. */
#include "infer/answers.h"

static char *dir;
static struct stave_engine *engine;

enum { N_COMPANY = 32 };

static struct stave_request one_of_many(struct stave_engine *e, struct answer *a, int32_t *ids, int i)
{
	static const int lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 128, 150, 200};
	int n = lengths[i % 16];
	prompt(ids, n, i);
	struct stave_request r = request(e, a, ids, n, 20 + i);
	r.sampling.temperature = i % 2 ? 0 : 1;
	r.sampling.seed = (uint64_t)i;
	r.sampling.repetition_penalty = i % 3 ? 1 : 1.2f;
	return r;
}

/* Prompts of many lengths, greedy and drawn: each alone, then all at once, `slots` at a time, in other pages and pieces. */
static void alone_and_together(const char *type, const char *cache, int slots, int chunk)
{
	static struct answer alone[N_COMPANY], together[N_COMPANY];
	static int32_t ids[N_COMPANY][TINY_CONTEXT];
	struct stave_request r[N_COMPANY];
	struct stave_err err = {0};
	struct stave_engine *single, *many;
	struct stave_engine_config c = {.model = dir, .slots = 1, .type = type, .cache = cache};
	tiny_must(stave_engine_open(&single, &c, &err), &err);
	c.slots = slots;
	c.chunk = chunk;
	tiny_must(stave_engine_open(&many, &c, &err), &err);
	for (int i = 0; i < N_COMPANY; i++) {
		r[i] = one_of_many(single, &alone[i], ids[i], i);
		run_one(&r[i], &alone[i]);
		assert_int_equal(alone[i].n, 20 + i);
		assert_int_equal(alone[i].end.finish, STAVE_FINISH_LENGTH);
		assert_int_equal(alone[i].end.prompt_tokens, r[i].n_ids);
		r[i] = one_of_many(many, &together[i], ids[i], i);
	}
	run_all(r, N_COMPANY);
	for (int i = 0; i < N_COMPANY; i++) {
		same_answer(&alone[i], &together[i], "in company");
		assert_int_equal(alone[i].text.len, together[i].text.len);
	}
	if (!memcmp(alone[0].ids, alone[2].ids, 64))
		fail_msg("different prompts gave one answer: the test sees nothing");
	assert_int_equal(stave_engine_stats(many).waiting, 0);
	stave_engine_close(single);
	stave_engine_close(many);
}

static void company(void **state)
{
	alone_and_together("auto", "bf16", 32, 0);
	alone_and_together("auto", "f32", 4, 16);
	alone_and_together("Q8_0", "i8", 32, 100);
	alone_and_together("BF16", "bf16", 7, 33);
}

/* The number that a refusal names, which must be what memory holds by this test's own count of bytes. */
static void refused_with(const struct stave_engine_config *c, const char *option, double position_bytes)
{
	struct stave_engine *e;
	struct stave_err err = {0};
	double avail = (double)stave_memory_available_bytes();
	assert_int_equal(stave_engine_open(&e, c, &err), STAVE_ENOFIT);
	const char *at = strstr(err.msg, option);
	if (!at)
		fail_msg("%s", err.msg);
	double share = atof(at + strlen(option)) * position_bytes / avail;
	if (share > 1 || share < 0.8)
		fail_msg("%s: that is %g of the memory", err.msg, share);
}

static void too_large(void **state)
{
	struct stave_shape s = tiny_shape(1 << 24);
	s.D = 256;
	s.C = 64;
	char *wide = tiny_write(&s, 3);
	double one = 2. * s.L * s.K * s.D * 4; /* K and V in f32 */
	struct stave_engine_config c = {.model = wide, .slots = 1, .context = 1 << 24, .cache = "f32"};
	if (one * c.context > 1.2 * (double)stave_memory_available_bytes())
		refused_with(&c, "--context ", one + s.D * 4); /* and its row of the rotary table */
	else
		print_message("this machine holds 128 GiB: a context that does not fit was not tried\n");
	c.context = 1000;
	c.cache_tokens = (int64_t)1 << 34;
	refused_with(&c, "--cache-tokens ", one);
	tiny_remove(wide);
}

/* Draws between two nearly equal choices: each token of an answer has a random number of its own, and each seed has others. */
static void seeds(void **state)
{
	static struct answer a[2];
	int32_t ids[3] = {1, 2, 3};
	for (int i = 0; i < 2; i++) {
		struct stave_request r = request(engine, &a[i], ids, 3, 100);
		r.sampling.temperature = 100;
		r.sampling.top_k = 2;
		r.sampling.seed = (uint64_t)i;
		r.logprobs = 1;
		run_one(&r, &a[i]);
		assert_in_range(a[i].n_likeliest, 25, 75); /* 50 +- 5 */
		stave_buf_free(&a[i].text);
	}
	assert_memory_not_equal(a[0].ids, a[1].ids, 100 * sizeof *ids);
}

static void scoring(void **state)
{
	static struct answer a, b;
	int32_t ids[TINY_CONTEXT];
	prompt(ids, 40, 3);
	struct stave_request r = request(engine, &a, ids, 40, 30);
	r.logprobs = 2;
	r.sampling.temperature = 0;
	run_one(&r, &a);
	memcpy(ids + 40, a.ids, 30 * sizeof *ids);
	r = request(engine, &b, ids, 70, 0); /* nothing generated: scores only */
	r.logprobs = 0;
	r.prompt_logprobs = true;
	run_one(&r, &b);
	assert_int_equal(b.n, 0);
	assert_int_equal(b.end.finish, STAVE_FINISH_LENGTH);
	assert_int_equal(b.n_prompt, 69); /* all but the first */
	assert_memory_equal(b.prompt_id, ids + 1, 69 * sizeof *ids);
	for (int i = 0; i < 30; i++)
		if (fabsf(b.prompt_logprob[39 + i] - a.logprob[i]) > 1e-3f)
			fail_msg("token %d: %g as prompt, %g as answer", i, b.prompt_logprob[39 + i], a.logprob[i]);
	stave_buf_free(&a.text);
	stave_buf_free(&b.text);
}

static void limits(void **state)
{
	static struct answer a;
	static int32_t ids[TINY_CONTEXT + 1];
	struct stave_err e = {0};
	uint64_t seq[40];
	prompt(ids, TINY_CONTEXT + 1, 1);
	struct stave_request r = request(engine, &a, ids, TINY_CONTEXT + 1, 5);
	assert_int_equal(stave_engine_submit(engine, &r, 1, seq, &e), STAVE_EUSAGE);
	r = request(engine, &a, ids, 0, 5);
	assert_int_equal(stave_engine_submit(engine, &r, 1, seq, &e), STAVE_EUSAGE);
	r = request(engine, &a, (int32_t[]){1, 100000}, 2, 5);
	assert_int_equal(stave_engine_submit(engine, &r, 1, seq, &e), STAVE_EUSAGE);
	r = request(engine, &a, (int32_t[]){-1}, 1, 5);
	assert_int_equal(stave_engine_submit(engine, &r, 1, seq, &e), STAVE_EUSAGE);
	r = request(engine, &a, ids, 4, 5);
	r.sampling.temperature = NAN;
	assert_int_equal(stave_engine_submit(engine, &r, 1, seq, &e), STAVE_EUSAGE);
	r = request(engine, &a, ids, 4, 5);
	r.logprobs = STAVE_TOP_MAX + 1;
	assert_int_equal(stave_engine_submit(engine, &r, 1, seq, &e), STAVE_EUSAGE);
	/* a full context and one token more; as many tokens as fit, though more were asked */
	r = request(engine, &a, ids, TINY_CONTEXT, -1);
	run_one(&r, &a);
	assert_int_equal(a.n, 1);
	stave_buf_free(&a.text);
	r = request(engine, &a, ids, TINY_CONTEXT - 3, 1000000);
	run_one(&r, &a);
	assert_int_equal(a.n, 4);
	assert_int_equal(a.end.finish, STAVE_FINISH_LENGTH);
	stave_buf_free(&a.text);
	/* all or none: the queue holds 32 */
	struct stave_request many[40];
	for (int i = 0; i < 40; i++)
		many[i] = r;
	assert_int_equal(stave_engine_submit(engine, many, 40, seq, &e), STAVE_ENOFIT);
}

static void stops(void **state)
{
	static struct answer a, b, c;
	b.engine = c.engine = engine;
	int32_t ids[20];
	prompt(ids, 20, 8);
	struct stave_request r = request(engine, &a, ids, 20, 40);
	r.sampling.temperature = 1;
	r.sampling.seed = 4;
	run_one(&r, &a);
	r.ctx = &b;
	r.stop_ids = &a.ids[10];
	r.n_stop_ids = 1;
	run_one(&r, &b);
	assert_int_equal(b.end.finish, STAVE_FINISH_STOP);
	int first = 0;
	while (a.ids[first] != a.ids[10])
		first++;
	assert_int_equal(b.n, first); /* the stop itself is no text */
	assert_int_equal(b.end.completion_tokens, first + 1);
	assert_memory_equal(a.ids, b.ids, (size_t)first * sizeof *a.ids);
	char piece[5] = {0}; /* a stop text across bytes = tokens; the model speaks bytes, so avoid NUL */
	int at = 12;
	while (at < 30 && (!a.text.p[at] || !a.text.p[at + 1] || !a.text.p[at + 2]))
		at++;
	memcpy(piece, a.text.p + at, 3);
	r.n_stop_ids = 0;
	r.stop = (const char *[]){piece};
	r.n_stop = 1;
	r.ctx = &c;
	run_one(&r, &c);
	const char *met = memmem(a.text.p, a.text.len, piece, 3);
	assert_int_equal(c.end.finish, STAVE_FINISH_STOP);
	assert_int_equal(c.text.len, met - a.text.p);
	assert_memory_equal(c.text.p ? c.text.p : "", a.text.p, c.text.len);
	stave_buf_free(&a.text);
	stave_buf_free(&b.text);
	stave_buf_free(&c.text);
}

static void cancel_on(void *ctx, const struct stave_event *v)
{
	struct answer *a = ctx;
	on_event(a, v);
	if (v->kind == STAVE_EVENT_TOKEN && a->n == 3)
		stave_engine_cancel(engine, a->id);
}

static void cancellation(void **state)
{
	enum { N = 12 };
	static struct answer a, many[N];
	struct stave_err e = {0};
	int32_t ids[4] = {1, 2, 3, 4};
	uint64_t seq[N];
	struct stave_request r = request(engine, &a, ids, 4, 200);
	r.event = cancel_on;
	a.id = ~0ull;
	uint64_t before;
	struct answer probe = {0};
	struct stave_request p = request(engine, &probe, ids, 4, 1);
	tiny_must(stave_engine_submit(engine, &p, 1, &before, &e), &e);
	await(&probe);
	stave_buf_free(&probe.text);
	a.id = before + 1; /* ids count up: known to the callback before submit returns */
	uint64_t got;
	tiny_must(stave_engine_submit(engine, &r, 1, &got, &e), &e);
	assert_int_equal(got, a.id);
	await(&a);
	assert_int_equal(a.end.finish, STAVE_FINISH_CANCELLED);
	assert_int_equal(a.n, 3); /* within one step */
	stave_buf_free(&a.text);
	/* running and waiting ones alike; those cancelled twice or unknown do no harm */
	struct stave_request rs[N];
	for (int i = 0; i < N; i++)
		rs[i] = request(engine, &many[i], ids, 4, 250);
	tiny_must(stave_engine_submit(engine, rs, N, seq, &e), &e);
	for (int i = N - 1; i >= 0; i--)
		for (int k = 0; k < 2; k++)
			stave_engine_cancel(engine, seq[i]);
	stave_engine_cancel(engine, 1234567);
	for (int i = 0; i < N; i++) {
		await(&many[i]);
		assert_true(many[i].end.finish == STAVE_FINISH_CANCELLED || many[i].end.finish == STAVE_FINISH_LENGTH);
		stave_buf_free(&many[i].text);
	}
}

/* Where a bf16 cache would be the largest error, the cache is f32. */
static void cache_follows_the_weights(void **state)
{
	static const char *const types[][3] = {{"auto", NULL, "f32"}, {"auto", "auto", "f32"}, {"BF16", "auto", "bf16"}, {"auto", "i8", "i8"}};
	for (int i = 0; i < 4; i++) {
		struct stave_engine *e;
		struct stave_err err = {0};
		struct stave_engine_config c = {.model = dir, .slots = 1, .type = types[i][0], .cache = types[i][1]};
		tiny_must(stave_engine_open(&e, &c, &err), &err);
		assert_string_equal(stave_engine_info(e)->cache, types[i][2]);
		stave_engine_close(e);
	}
}

/* Asked at once, and when all is in its place. */
static void settling(void **state)
{
	static struct answer early, late;
	struct stave_engine *e;
	struct stave_err err = {0};
	struct stave_engine_config c = {.model = dir, .slots = 2, .cache = "f32"};
	int32_t ids[20];
	prompt(ids, 20, 3);
	tiny_must(stave_engine_open(&e, &c, &err), &err);
	struct stave_request r = request(e, &early, ids, 20, 30);
	run_one(&r, &early);
	stave_engine_settle(e);
	r = request(e, &late, ids, 20, 30);
	run_one(&r, &late);
	same_answer(&early, &late, "settled");
	stave_engine_close(e);
}

static void closing(void **state)
{
	static struct answer many[10];
	struct stave_engine *e;
	struct stave_err err = {0};
	struct stave_engine_config c = {.model = dir, .slots = 2, .cache = "f32"};
	uint64_t seq[10];
	int32_t ids[2] = {5, 6};
	struct stave_request rs[10];
	tiny_must(stave_engine_open(&e, &c, &err), &err);
	for (int i = 0; i < 10; i++)
		rs[i] = request(e, &many[i], ids, 2, 250);
	tiny_must(stave_engine_submit(e, rs, 10, seq, &err), &err);
	stave_engine_close(e);
	for (int i = 0; i < 10; i++) {
		assert_true(many[i].done);
		assert_int_equal(many[i].n_done, 1);
		stave_buf_free(&many[i].text);
	}
}

static void loading(void **state)
{
	struct stave_engine *e;
	struct stave_err err = {0};
	struct stave_engine_config c = {.model = "/nonexistent"};
	assert_int_not_equal(stave_engine_open(&e, &c, &err), 0);
	assert_true(err.msg[0]);
	c = (struct stave_engine_config){.model = dir, .context = TINY_CONTEXT + 1};
	assert_int_equal(stave_engine_open(&e, &c, &err), STAVE_EUSAGE);
	c = (struct stave_engine_config){.model = dir, .type = "f17"};
	assert_int_equal(stave_engine_open(&e, &c, &err), STAVE_EUSAGE);
	c = (struct stave_engine_config){.model = dir, .slots = -1};
	assert_int_equal(stave_engine_open(&e, &c, &err), STAVE_EUSAGE);
	const struct stave_engine_info *info = stave_engine_info(engine);
	assert_int_equal(info->planned_bytes, info->taken_bytes);
	c = (struct stave_engine_config){.model = dir, .type = "bf16"};
	tiny_must(stave_engine_open(&e, &c, &err), &err);
	assert_int_equal(stave_engine_info(e)->planned_bytes, stave_engine_info(e)->taken_bytes);
	assert_true(stave_engine_info(e)->weights_bytes < info->weights_bytes);
	stave_engine_close(e);
}

int main(void)
{
	struct stave_err err = {0};
	setenv("STAVE_LOG", "error", 0);
	dir = tiny_dir();
	struct stave_engine_config c = {.model = dir, .slots = 4, .chunk = 16, .queue = 32, .cache = "f32"};
	tiny_must(stave_engine_open(&engine, &c, &err), &err);
	const struct CMUnitTest tests[] = {cmocka_unit_test(company), cmocka_unit_test(too_large), cmocka_unit_test(seeds), cmocka_unit_test(scoring), cmocka_unit_test(limits), cmocka_unit_test(stops),
	                                   cmocka_unit_test(cancellation), cmocka_unit_test(settling), cmocka_unit_test(closing), cmocka_unit_test(cache_follows_the_weights), cmocka_unit_test(loading)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	stave_engine_close(engine);
	tiny_remove(dir);
	return failed;
}
