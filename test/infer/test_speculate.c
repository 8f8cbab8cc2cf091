/* Speculation proposes and never decides: with n-grams, with a draft model that is right or wrong, at any temperature, with penalties, stops,
 * in company and when pages run out, answers are those of plain decoding, to the hash of the last logits. */
#include "infer/answers.h"

#include "infer/engine.h"

enum { CONTEXT = 512, N = 10 };
static char *dir, *other_dir;

static void ngrams(void **state)
{
	int32_t out[8] = {0}, text[] = {1, 2, 3, 9, 1, 2, 3, 7, 8, 2, 3};
	assert_int_equal(propose_ngram(text, 11, 2, 4, out), 4); /* "2 3" was last followed by 7 8 2 3 */
	assert_memory_equal(out, ((int32_t[]){7, 8, 2, 3}), 16);
	assert_int_equal(propose_ngram(text, 11, 3, 4, out), 0); /* nothing as long as that */
	int32_t longer[] = {5, 1, 2, 3, 6, 4, 2, 3, 9, 1, 2, 3};
	assert_int_equal(propose_ngram(longer, 12, 2, 2, out), 2); /* "1 2 3" beats the later "2 3" */
	assert_memory_equal(out, ((int32_t[]){6, 4}), 8);
	int32_t loop[] = {4, 1, 2, 1, 2};
	assert_int_equal(propose_ngram(loop, 5, 1, 5, out), 5); /* a loop goes on beyond the end */
	assert_memory_equal(out, ((int32_t[]){1, 2, 1, 2, 1}), 20);
	assert_int_equal(propose_ngram(loop, 1, 1, 5, out), 0);
	assert_int_equal(propose_ngram((int32_t[]){1, 2, 3}, 3, 1, 5, out), 0);
}

static struct stave_engine *open_engine(int slots, int64_t cache_tokens, int speculate, int ngram, const char *draft)
{
	struct stave_engine *e;
	struct stave_err err = {0};
	struct stave_engine_config c = {.model = dir, .slots = slots, .chunk = 64, .cache_tokens = cache_tokens, .speculate = speculate, .ngram = ngram, .draft = draft};
	tiny_must(stave_engine_open(&e, &c, &err), &err);
	assert_int_equal(stave_engine_info(e)->planned_bytes, stave_engine_info(e)->taken_bytes);
	return e;
}

static int32_t ids[N][CONTEXT];
static struct answer plain[N];
static int32_t stop = -1;

/* Prompts that repeat themselves, with every kind of control. */
static void ask(struct stave_engine *e, struct answer *a, int i, struct stave_request *r)
{
	int n = 20 + 23 * i;
	*r = request(e, a, ids[i], n, 150 + i);
	r->sampling.temperature = i % 3 == 0 ? 0 : i % 3 == 1 ? .4f : 1;
	r->sampling.top_p = i % 4 == 1 ? .9f : 1;
	r->sampling.seed = (uint64_t)i;
	r->sampling.presence_penalty = i == 5 ? .3f : 0;
	r->sampling.penalty_last_n = i == 5 ? 20 : 0;
	r->logprobs = i == 2 ? 3 : -1;
	r->stop_ids = &stop;
	r->n_stop_ids = i == 7 && stop >= 0; /* ends in the middle */
}

static void make_plain(void **state)
{
	struct stave_request r;
	struct stave_engine *e = open_engine(1, 0, 0, 0, NULL);
	for (int i = 0; i < N; i++) {
		prompt(ids[i], 12, i);
		for (int k = 12; k < CONTEXT; k++)
			ids[i][k] = ids[i][k - 12];
		ask(e, &plain[i], i, &r);
		run_one(&r, &plain[i]);
		assert_int_equal(plain[i].end.proposed, 0);
	}
	stop = plain[7].ids[60];
	ask(e, &plain[7], 7, &r);
	run_one(&r, &plain[7]);
	assert_int_equal(plain[7].end.finish, STAVE_FINISH_STOP);
	stave_engine_close(e);
}

static void same_as_plain(struct stave_engine *e, const char *what, struct stave_engine_stats *s)
{
	static struct answer a[N];
	struct stave_request r[N];
	for (int i = 0; i < N; i++)
		ask(e, &a[i], i, &r[i]);
	run_one(&r[0], &a[0]);
	run_all(r + 1, N - 1);
	int proposed = 0, accepted = 0;
	for (int i = 0; i < N; i++) {
		same_answer(&plain[i], &a[i], what);
		assert_int_equal(plain[i].end.finish, a[i].end.finish);
		assert_memory_equal(plain[i].logprob, a[i].logprob, sizeof a[i].logprob);
		proposed += a[i].end.proposed;
		accepted += a[i].end.accepted;
		assert_true(a[i].end.accepted <= a[i].end.proposed);
	}
	*s = stave_engine_stats(e);
	assert_int_equal(s->proposed, proposed);
	assert_int_equal(s->accepted, accepted);
	assert_int_equal(s->pages_used, 0);
	stave_engine_close(e);
}

static void by_ngrams(void **state)
{
	struct stave_engine_stats s;
	same_as_plain(open_engine(4, 0, 8, 1, NULL), "n-grams", &s);
	assert_true(s.proposed > 0);
	same_as_plain(open_engine(3, CONTEXT, 3, 1, NULL), "n-grams, few pages", &s);
	assert_true(s.preemptions > 0);
}

/* The model as its own draft: all is accepted, so steps are few. */
static void by_itself(void **state)
{
	struct stave_engine_stats s;
	same_as_plain(open_engine(4, 0, 4, 0, dir), "itself as draft", &s);
	if (s.accepted < s.proposed * 9 / 10)
		fail_msg("%d of %d accepted", (int)s.accepted, (int)s.proposed);
	assert_true(s.steps < 10 * 150 / 3);
	same_as_plain(open_engine(3, CONTEXT, 5, 2, dir), "itself as draft, few pages", &s);
}

static void by_another(void **state)
{
	struct stave_engine_stats s;
	same_as_plain(open_engine(4, 0, 4, 0, other_dir), "another as draft", &s);
	assert_true(s.proposed > 0 && s.accepted < s.proposed);
}

static void refused(void **state)
{
	struct stave_engine *e;
	struct stave_err err = {0};
	struct stave_engine_config c = {.model = dir, .speculate = STAVE_SPECULATE_MAX + 1};
	assert_int_equal(stave_engine_open(&e, &c, &err), STAVE_EUSAGE);
	c = (struct stave_engine_config){.model = dir, .speculate = -1};
	assert_int_equal(stave_engine_open(&e, &c, &err), STAVE_EUSAGE);
	c = (struct stave_engine_config){.model = dir, .draft = "/nonexistent"};
	assert_int_not_equal(stave_engine_open(&e, &c, &err), 0);
	char *shorter = tiny_model(3, 64);
	c = (struct stave_engine_config){.model = dir, .draft = shorter};
	assert_int_equal(stave_engine_open(&e, &c, &err), STAVE_ECONFIG);
	assert_non_null(strstr(err.msg, "context"));
	tiny_remove(shorter);
}

int main(void)
{
	setenv("STAVE_LOG", "error", 0);
	dir = tiny_model(21, CONTEXT);
	other_dir = tiny_model(22, CONTEXT);
	const struct CMUnitTest tests[] = {cmocka_unit_test(ngrams), cmocka_unit_test(make_plain), cmocka_unit_test(by_ngrams), cmocka_unit_test(by_itself),
	                                   cmocka_unit_test(by_another), cmocka_unit_test(refused)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	tiny_remove(dir);
	tiny_remove(other_dir);
	return failed;
}
