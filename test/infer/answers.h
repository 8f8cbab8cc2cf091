/* Asking an engine and keeping what it says: for the tests of infer/. */
#ifndef TEST_ANSWERS_H
#define TEST_ANSWERS_H

#include "infer/tiny_model.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/sys.h"
#include "infer/infer.h"

enum { ANSWER_MAX = 1100 };
static atomic_int answers_done;

struct answer {
	struct stave_engine *engine; /* the one asked */
	int32_t ids[ANSWER_MAX];
	float logprob[ANSWER_MAX], prompt_logprob[ANSWER_MAX];
	int32_t prompt_id[ANSWER_MAX];
	float embedding[64];
	int done_at; /* its place in the order of ends */
	int n, n_prompt, n_done, n_likeliest;
	struct stave_buf text;
	struct stave_event end;
	atomic_bool done;
	uint64_t id, cancel_at; /* cancel from the callback after that many tokens */
};

static inline void on_event(void *ctx, const struct stave_event *v)
{
	struct answer *a = ctx;
	stave_buf_put(&a->text, v->text, v->n_text);
	if (v->kind == STAVE_EVENT_TOKEN) {
		a->logprob[a->n] = v->logprob ? v->logprob->logprob : 0;
		a->n_likeliest += v->logprob && v->logprob->top_id[0] == v->id;
		a->ids[a->n++] = v->id;
	} else if (v->kind == STAVE_EVENT_PROMPT) {
		a->prompt_id[a->n_prompt] = v->id;
		a->prompt_logprob[a->n_prompt++] = v->logprob->logprob;
	} else {
		a->n_done++;
		a->end = *v;
		a->end.text = NULL; /* not valid any more */
		for (int i = 0; v->embedding && i < v->n_embedding; i++)
			a->embedding[i] = v->embedding[i];
		a->done_at = ++answers_done;
		a->done = true;
	}
}

static inline void await(struct answer *a)
{
	for (int i = 0; !a->done; i++) {
		usleep(1000);
		if (i > 60000)
			fail_msg("a sequence did not end in 60 s");
	}
	assert_int_equal(a->n_done, 1);
}

/* max_tokens drawn at temperature 1, to the very last; a begins anew. */
static inline struct stave_request request(struct stave_engine *e, struct answer *a, const int32_t *ids, int n, int max_tokens)
{
	stave_buf_free(&a->text);
	*a = (struct answer){.engine = e};
	return (struct stave_request){.ids = ids, .n_ids = n, .sampling = stave_sampling_default(), .max_tokens = max_tokens, .ignore_eos = true, .logprobs = -1,
	                              .event = on_event, .ctx = a};
}

static inline void prompt(int32_t *ids, int n, int salt)
{
	for (int i = 0; i < n; i++)
		ids[i] = (int32_t)(stave_random64((uint64_t)salt, (uint64_t)i) % 256);
}

static inline void run_one(const struct stave_request *r, struct answer *a)
{
	struct stave_err e = {0};
	uint64_t id;
	tiny_must(stave_engine_submit(a->engine, r, 1, &id, &e), &e);
	await(a);
}

static inline void run_all(const struct stave_request *r, int n)
{
	struct stave_err e = {0};
	uint64_t ids[64];
	tiny_must(stave_engine_submit(((struct answer *)r[0].ctx)->engine, r, n, ids, &e), &e);
	for (int i = 0; i < n; i++)
		await(r[i].ctx);
}

static inline void same_answer(const struct answer *a, const struct answer *b, const char *what)
{
	if (a->n != b->n || memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids) || a->end.logits_hash != b->end.logits_hash)
		fail_msg("%s: the answer differs", what);
}

#endif
