/* One answer: the request, the wait, how fast it was. The engine's thread writes the text as it comes; this thread waits, and
 * turns Ctrl-C into a cancellation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/sys.h"
#include "cli/run.h"
#include "cost/machine.h"

/* ---- what an answer must look like ---- */

#define RULES_MAX ((size_t)1 << 20)

int run_rules_open(struct run_rules *r, const struct run_options *o, const struct stave_tokenizer *t, struct stave_err *err)
{
	const char *const given[] = {[STAVE_GRAMMAR_GBNF] = o->grammar, [STAVE_GRAMMAR_JSON_SCHEMA] = o->schema, [STAVE_GRAMMAR_REGEX] = o->regex};
	int kind = -1, rc = 0;
	*r = (struct run_rules){0};
	for (int i = 0; i < 3; i++)
		if (given[i]) {
			if (kind >= 0)
				return stave_err_set(err, STAVE_EUSAGE, "--schema, --grammar and --regex: only one of them");
			kind = i;
		}
	if (kind < 0)
		return 0;
	struct stave_buf text = {0};
	if (kind == STAVE_GRAMMAR_REGEX)
		stave_buf_put(&text, given[kind], strlen(given[kind]));
	else
		rc = stave_file_read(&text, given[kind], RULES_MAX, err);
	if (!rc && !(rc = stave_vocab_open(&r->vocab, t, err)))
		rc = stave_grammar_open(&r->grammar, (enum stave_grammar_kind)kind, text.p, text.len, r->vocab, err);
	stave_buf_free(&text);
	if (rc)
		run_rules_close(r);
	return rc;
}

void run_rules_close(struct run_rules *r)
{
	stave_grammar_close(r->grammar);
	stave_vocab_close(r->vocab);
	*r = (struct run_rules){0};
}

/* ---- the request ---- */

static void on_event(void *ctx, const struct stave_event *v)
{
	struct run_answer *a = ctx;
	stave_buf_put(&a->text, v->text, v->n_text);
	if (a->print) {
		fwrite(a->before, 1, a->n_before, stdout);
		fwrite(v->text, 1, v->n_text, stdout);
		fflush(stdout);
		a->n_before = 0;
	}
	if (v->kind != STAVE_EVENT_DONE)
		return;
	pthread_mutex_lock(&a->lock);
	a->end = *v;
	a->done = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

volatile sig_atomic_t run_interrupted;

static void wait_done(struct stave_engine *e, struct run_answer *a, uint64_t id)
{
	pthread_mutex_lock(&a->lock);
	while (!a->done) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 50 * 1000000; /* signals do not wake a condition: look every 50 ms */
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&a->changed, &a->lock, &until);
		if (run_interrupted || stave_stop_requested() || stave_requeue_requested()) {
			pthread_mutex_unlock(&a->lock);
			stave_engine_cancel(e, id);
			pthread_mutex_lock(&a->lock);
		}
	}
	pthread_mutex_unlock(&a->lock);
}

uint64_t run_seed(const struct run_options *o)
{
	uint64_t seed;
	if (o->seed >= 0)
		return (uint64_t)o->seed;
	if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
		seed = (uint64_t)(stave_now_s() * 1e9);
	return seed >> 12; /* fits what --seed accepts, so that the run can be repeated */
}

int run_generate(struct stave_engine *e, const struct run_options *o, const struct run_rules *rules, uint64_t seed, const struct stave_ids *ids, bool chat, struct run_answer *a, struct stave_err *err)
{
	const struct stave_tokenizer *t = stave_engine_info(e)->tokenizer;
	const char *stop[2], *turn = chat ? stave_chat_stop_text(t) : NULL;
	int32_t stop_ids[8];
	int n_stop = 0, n_stop_ids = chat ? stave_chat_stops(t, stop_ids, 8) : 0;
	if (turn)
		stop[n_stop++] = turn;
	if (o->stop && *o->stop)
		stop[n_stop++] = o->stop;
	struct stave_request r = {.ids = ids->p, .n_ids = (int)ids->n, .sampling = stave_sampling_default(), .max_tokens = (int)o->max_tokens, .stop = stop, .n_stop = n_stop,
	                          .stop_ids = stop_ids, .n_stop_ids = n_stop_ids, .logprobs = -1, .adapter = o->adapter, .grammar = rules->grammar, .event = on_event, .ctx = a};
	r.sampling.temperature = (float)o->temperature;
	r.sampling.top_k = (int)o->top_k;
	r.sampling.top_p = (float)o->top_p;
	r.sampling.min_p = (float)o->min_p;
	r.sampling.repetition_penalty = (float)o->repeat_penalty;
	r.sampling.seed = seed;
	uint64_t id;
	int rc = stave_engine_submit(e, &r, 1, &id, err);
	if (!rc)
		wait_done(e, a, id);
	return rc;
}

void run_answer_init(struct run_answer *a, bool print)
{
	*a = (struct run_answer){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .print = print, .before = ""};
}

void run_answer_free(struct run_answer *a)
{
	stave_buf_free(&a->text);
	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->lock);
}

/* ---- how fast ---- */

struct run_speed run_measure(const struct stave_engine *e, const struct stave_event *v)
{
	struct run_speed s = {.shortest = "unknown: 'stave bench machine' measures this machine"};
	struct stave_machine machine;
	int drawn = v->completion_tokens - 1; /* the first comes from the prompt's last row */
	if (v->prefill_s > 0)
		s.prefill_per_s = (v->prompt_tokens - v->cached_tokens) / v->prefill_s;
	if (drawn < 1 || v->decode_s <= 0)
		return s;
	s.decode_per_s = drawn / v->decode_s;
	if (v->proposed) { /* several tokens of one reading: bytes per second say nothing */
		s.shortest = "not named: with speculation a step makes several tokens of one reading";
		return s;
	}
	s.bytes_per_s = stave_engine_token_bytes(e, v->prompt_tokens + drawn / 2) * s.decode_per_s;
	if (stave_machine_load(&machine, NULL, NULL) || machine.read_bytes_s <= 0)
		return s;
	s.share = s.bytes_per_s / machine.read_bytes_s;
	s.shortest = s.share >= 0.5 ? "memory bandwidth: fewer bytes per weight, or a faster memory" : "the fixed cost of each step: batches, or a larger model, use it better";
	return s;
}

const char *run_finish_name(enum stave_finish f)
{
	return f == STAVE_FINISH_STOP ? "stop" : f == STAVE_FINISH_LENGTH ? "length" : "cancelled";
}
