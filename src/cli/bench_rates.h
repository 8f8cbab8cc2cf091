/* Private to the bench verb: what the files that sample rates share. bench_rates.c samples what training does, bench_answer.c
 * what answering does. */
#ifndef STAVE_CLI_BENCH_RATES_H
#define STAVE_CLI_BENCH_RATES_H

#include "cli/bench.h"
#include "kernel/kernel.h"

#define RATES_IDS 65536 /* distinct token ids and positions the samples draw from */

#define RATES_PASSES 3
struct bench {
	struct stave_machine *m;
	const struct stave_kernels *k;
	struct stave_arena pool;
	size_t cursor, floor, ceiling; /* of cold operands: the next one, where hot ones end, where cold ones do (0: the pool) */
	int32_t *ids;         /* RATES_IDS token ids, then as many positions below 64 */
	float *stat, *slices; /* row statistics; per thread, sums over rows */
	int pass, at;         /* how often all samples were taken before, and which comes next */
	double tries[STAVE_RATES_MAX][RATES_PASSES];
};

/* The first `bytes` of the pool: values of both signs that are small and normal as f32, f16 and bf16, so that no operation meets a denormal or
 * a NaN, and random in every bit that may be, as a model's are. */
void rates_fill(struct bench *b, size_t bytes);
/* Seconds of one call of `run`, which returns what it took: the median of calls until `seconds` are spent, at least two, after one that is not
 * counted. A model's steps meet the machine as it mostly is, not its best moment. */
double rates_median_s(double (*run)(void *ctx), void *ctx, double seconds);
/* `bytes` of the pool not used lately, or with `hot` the same ones every time. */
void *rates_take(struct bench *b, size_t bytes, bool hot, size_t *hot_cursor);
void rates_record(struct bench *b, const char *what, enum stave_pass pass, enum stave_dtype dtype, int64_t m, int64_t n, int64_t k, double per_s);

/* Products with stored weights of every type, attention over a paged cache, and what makes operands. */
void rates_answering(struct bench *b);

#endif
