/* Private to the bench verb: what the files that sample rates share. bench_rates.c samples what training does, bench_answer.c
 * what answering does. */
#ifndef STAVE_CLI_BENCH_RATES_H
#define STAVE_CLI_BENCH_RATES_H

#include "cli/bench.h"
#include "kernel/kernel.h"

#define RATES_IDS 65536 /* distinct token ids and positions the samples draw from */

struct bench {
	struct stave_machine *m;
	const struct stave_kernels *k;
	struct stave_arena pool;
	size_t cursor, floor; /* of cold operands: the next one, and where hot ones end */
	int32_t *ids;         /* RATES_IDS token ids, then as many positions below 64 */
	float *stat, *slices; /* row statistics; per thread, sums over rows */
};

/* All values small, normal and positive, read as f32, f16 or bf16: no operation then meets a denormal or a NaN. */
void rates_fill(struct bench *b);
/* `bytes` of the pool not used lately, or with `hot` the same ones every time. */
void *rates_take(struct bench *b, size_t bytes, bool hot, size_t *hot_cursor);
void rates_record(struct bench *b, const char *what, enum stave_pass pass, enum stave_dtype dtype, int64_t m, int64_t n, int64_t k, double per_s);

/* Products with stored weights of every type, attention over a paged cache, and what makes operands. */
void rates_answering(struct bench *b);

#endif
