/* The forward pass of a model, without an engine around it: seconds to open, prefill and decode rates, where the time goes.
 *   bench_lm MODEL [prompt=512] [decode=32] [sequences=1] [past=0] [type] [cache: bf16 i8 f32]
 * Decoding reads stave_lm_token_bytes per step; its rate is printed as GB/s. Each figure is the best of three.
 * With one thread (STAVE_THREADS=1) time is processor time: what other processes take from the core is not counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "base/sys.h"
#include "model/model.h"

static void must(int rc, const struct stave_err *e)
{
	if (rc) {
		fprintf(stderr, "%s\n", e->msg);
		exit(1);
	}
}

static double now_s(void)
{
	struct timespec t;
	if (stave_threads() > 1)
		return stave_now_s();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench {
	struct stave_lm *lm;
	const struct stave_shape *s;
	int32_t *ids, *pages; /* ids of one sequence; pages of all */
	int pages_each, sequences;
	float *logits;
	const float **rows;
};

/* One call: n tokens of each of `sequences` sequences. */
static double step(struct bench *b, int sequences, int past, int n)
{
	struct stave_lm_rows rows[64];
	double t0 = now_s();
	for (int i = 0; i < sequences; i++)
		rows[i] = (struct stave_lm_rows){.ids = b->ids + past, .n = n, .past = past, .pages = b->pages + i * b->pages_each};
	stave_lm_run(b->lm, rows, sequences);
	for (int i = 0; i < sequences; i++)
		b->rows[i] = rows[i].hidden + (size_t)(n - 1) * (size_t)b->s->C;
	if (!b->s->encoder)
		stave_lm_logits(b->lm, b->rows, sequences, b->logits);
	return now_s() - t0;
}

static void print_times(struct bench *b)
{
	struct stave_lm_times t = stave_lm_times(b->lm);
	double total = t.matmul_s + t.attention_s + t.element_s;
	printf("  products %.1f %%, attention %.1f %%, rows %.1f %%\n", 100 * t.matmul_s / total, 100 * t.attention_s / total, 100 * t.element_s / total);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "bench_lm MODEL [prompt] [decode] [sequences] [past] [type] [cache]\n");
		return 2;
	}
	int prompt = argc > 2 ? atoi(argv[2]) : 512, decode = argc > 3 ? atoi(argv[3]) : 32, sequences = argc > 4 ? atoi(argv[4]) : 1;
	int past = argc > 5 ? atoi(argv[5]) : 0;
	enum stave_qtype type = argc > 6 ? stave_qtype_of_name(argv[6]) : STAVE_QTYPE_COUNT;
	enum stave_cache_type cache = argc > 7 ? !strcmp(argv[7], "f32") ? STAVE_CACHE_F32 : !strcmp(argv[7], "i8") ? STAVE_CACHE_I8 : STAVE_CACHE_BF16 : STAVE_CACHE_BF16;
	sequences = sequences < 1 ? 1 : sequences > 64 ? 64 : sequences;
	struct stave_err e = {0};
	struct stave_source *source;
	struct stave_lm_memory m;
	struct stave_arena arena;
	double t0 = now_s();
	must(stave_source_open(&source, argv[1], &e), &e);
	double t1 = now_s();
	struct bench b = {.s = stave_source_shape(source), .sequences = sequences};
	int context = past + prompt + decode;
	b.pages_each = (context + STAVE_PAGE - 1) / STAVE_PAGE;
	struct stave_lm_config c = {.source = source, .type = type, .cache = cache, .pages = b.pages_each * sequences, .context = context,
	                            .rows = prompt > sequences ? prompt : sequences};
	must(stave_lm_plan(&c, &m, &e), &e);
	must(stave_arena_open(&arena, "model", m.total, &e), &e);
	double t2 = now_s();
	must(stave_lm_open(&b.lm, &c, &arena, &e), &e);
	stave_lm_settle(b.lm, 1e9);
	double t3 = now_s();
	printf("source %.3f s, arena %.3f s, packing %.3f s; weights %.3f GiB, workspace %.3f GiB, resident %.3f GiB\n", t1 - t0, t2 - t1, t3 - t2,
	       (double)m.weights / (1 << 30), (double)m.workspace / (1 << 30), (double)stave_rss_bytes() / (1 << 30));
	b.ids = malloc((size_t)context * 4);
	b.pages = malloc((size_t)c.pages * 4);
	b.logits = malloc((size_t)sequences * (size_t)b.s->V * 4);
	b.rows = malloc((size_t)sequences * sizeof *b.rows);
	for (int i = 0; i < context; i++)
		b.ids[i] = (int32_t)(stave_random64(1, (uint64_t)i) % (uint64_t)b.s->V);
	for (int i = 0; i < c.pages; i++)
		b.pages[i] = i;
	if (prompt) {
		double best = 1e9;
		step(&b, 1, past, prompt);
		for (int i = 0; i < 3; i++) {
			stave_lm_times(b.lm);
			double s = step(&b, 1, past, prompt);
			best = s < best ? s : best;
		}
		printf("prefill %d after %d: %.1f tokens/s\n", prompt, past, prompt / best);
		print_times(&b);
	}
	double best = 1e9, total = 0;
	stave_lm_times(b.lm);
	for (int i = 0; i < decode; i++) {
		double s = step(&b, sequences, past + prompt + i, 1);
		total += s;
		best = s < best ? s : best;
	}
	if (decode) {
		printf("decode %d after %d: mean %.2f tokens/s, best step %.2f (%.1f GB/s)\n", sequences, past + prompt, sequences * decode / total,
		       sequences / best, stave_lm_token_bytes(b.lm, past + prompt) / best / 1e9);
		print_times(&b);
	}
	stave_lm_close(b.lm);
	stave_arena_close(&arena);
	stave_source_close(source);
	return 0;
}
