/* What the engine's scheduling is worth, on a model given: the gaps between tokens of running answers while nothing else happens and
 * while a long prompt is read; how much more eight answers make than one; the time to the first token of a prompt that
 * is found in the cache; what speculation proposes and gains on text that repeats itself.
 *
 *   bench_engine MODEL [prompt tokens, 4096] [answer tokens, 48] */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "infer/infer.h"

enum { STREAMS = 4, GAPS = 1 << 16 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int running;
static double gap[GAPS]; /* of all streams, of the phase in progress */
static int n_gaps;

struct talk {
	bool counts;      /* its gaps are wanted */
	double last_s, first_s, start_s;
	int n;
	struct stave_event end;
};

static void on_event(void *ctx, const struct stave_event *v)
{
	struct talk *t = ctx;
	pthread_mutex_lock(&lock);
	if (v->kind == STAVE_EVENT_TOKEN) {
		if (t->counts && t->last_s > 0 && n_gaps < GAPS)
			gap[n_gaps++] = v->time_s - t->last_s;
		if (!t->n++)
			t->first_s = v->time_s;
		t->last_s = v->time_s;
	} else if (v->kind == STAVE_EVENT_DONE) {
		t->end = *v;
		running--;
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void fail(const struct stave_err *e)
{
	fprintf(stderr, "bench_engine: %s\n", e->msg);
	exit(1);
}

static uint64_t ask(struct stave_engine *e, struct talk *t, const int32_t *ids, int n, int make)
{
	struct stave_err err = {0};
	uint64_t id;
	struct stave_request r = {.ids = ids, .n_ids = n, .sampling = stave_sampling_default(), .max_tokens = make, .ignore_eos = true, .logprobs = -1, .event = on_event, .ctx = t};
	r.sampling.temperature = 0;
	*t = (struct talk){.counts = t->counts, .start_s = stave_now_s()};
	pthread_mutex_lock(&lock);
	running++;
	pthread_mutex_unlock(&lock);
	if (stave_engine_submit(e, &r, 1, &id, &err))
		fail(&err);
	return id;
}

static void wait_for(int left)
{
	pthread_mutex_lock(&lock);
	while (running > left)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void wait_tokens(const struct talk *t, int n)
{
	pthread_mutex_lock(&lock);
	while (t->n < n && running)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double percentile(double p)
{
	qsort(gap, (size_t)n_gaps, sizeof *gap, by_size);
	return n_gaps ? gap[(int)((n_gaps - 1) * p)] * 1e3 : 0;
}

static void text(int32_t *ids, int n, int seed, int V)
{
	for (int i = 0; i < n; i++)
		ids[i] = (int32_t)(stave_random64((uint64_t)seed, (uint64_t)i) % (uint64_t)V);
}

static struct stave_engine *open_engine(const char *model, int slots, int context, int speculate)
{
	struct stave_engine *e;
	struct stave_err err = {0};
	struct stave_engine_config c = {.model = model, .slots = slots, .context = context, .speculate = speculate};
	if (stave_engine_open(&e, &c, &err))
		fail(&err);
	return e;
}

static void streams(struct stave_engine *e, const int32_t *ids, int n, int make)
{
	struct talk t[STREAMS] = {0}, reader = {0};
	uint64_t id[STREAMS];
	for (int i = 0; i < STREAMS; i++) {
		t[i].counts = true;
		id[i] = ask(e, &t[i], ids + i * 16, 16, 100000);
	}
	for (int i = 0; i < STREAMS; i++)
		wait_tokens(&t[i], 4);
	pthread_mutex_lock(&lock);
	n_gaps = 0;
	pthread_mutex_unlock(&lock);
	wait_tokens(&t[0], 4 + make);
	pthread_mutex_lock(&lock);
	double p50 = percentile(.5), p99 = percentile(.99);
	n_gaps = 0;
	pthread_mutex_unlock(&lock);
	ask(e, &reader, ids + 1000, n, 1);
	wait_for(STREAMS);
	pthread_mutex_lock(&lock);
	double busy50 = percentile(.5), busy99 = percentile(.99), worst = n_gaps ? gap[n_gaps - 1] * 1e3 : 0;
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < STREAMS; i++)
		stave_engine_cancel(e, id[i]);
	wait_for(0);
	printf("%d streams, gaps between tokens in ms: idle p50 %.1f p99 %.1f; while %d tokens are read (%.1f s, %.0f tokens/s) p50 %.1f p99 %.1f max %.1f: p99 %.2f times idle\n",
	       STREAMS, p50, p99, n, reader.end.prefill_s, n / reader.end.prefill_s, busy50, busy99, worst, busy99 / p99);
	ask(e, &reader, ids + 1000, n, 1);
	wait_for(0);
	printf("the same prompt again: first token after %.0f ms, %d of %d tokens found\n", (reader.first_s - reader.start_s) * 1e3, reader.end.cached_tokens, n);
}

static double rate(struct stave_engine *e, const int32_t *ids, int n, int make)
{
	struct talk t[8] = {0};
	double s = 0;
	for (int i = 0; i < n; i++)
		ask(e, &t[i], ids + 3000 + i * 8, 8, make);
	wait_for(0);
	for (int i = 0; i < n; i++)
		s = t[i].end.decode_s > s ? t[i].end.decode_s : s;
	return n * (make - 1) / s;
}

int main(int argc, char **argv)
{
	int n = argc > 2 ? atoi(argv[2]) : 4096, make = argc > 3 ? atoi(argv[3]) : 48;
	if (argc < 2 || n < 1 || make < 2 || n > 1 << 20) {
		fputs("bench_engine MODEL [prompt tokens, 4096] [answer tokens, 48]\n", stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	struct stave_engine *e = open_engine(argv[1], 8, n + 256, 0);
	int V = stave_tokenizer_vocab(stave_engine_info(e)->tokenizer);
	int32_t *ids = malloc(((size_t)n + 8000) * sizeof *ids);
	if (!ids)
		return 1;
	text(ids, n + 8000, 1, V < stave_engine_info(e)->shape.V ? V : stave_engine_info(e)->shape.V);
	streams(e, ids, n, make);
	double one = rate(e, ids, 1, make), eight = rate(e, ids, 8, make);
	printf("one answer %.1f tokens/s, eight together %.1f: %.2f times\n", one, eight, eight / one);
	stave_engine_close(e);
	for (int i = 24; i < 240; i++)
		ids[i] = ids[i - 24];
	for (int speculate = 0; speculate <= 8; speculate += 8) {
		struct talk t = {0};
		e = open_engine(argv[1], 1, 512, speculate);
		ask(e, &t, ids, 240, 2 * make);
		wait_for(0);
		printf("speculating %d: %.1f tokens/s, %d of %d proposals accepted, logits %016llx\n", speculate, (2 * make - 1) / t.end.decode_s, t.end.accepted,
		       t.end.proposed, (unsigned long long)t.end.logits_hash);
		stave_engine_close(e);
	}
	free(ids);
	return 0;
}
