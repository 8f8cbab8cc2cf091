/* How fast the kernels run on one core, against what that core can do: attention forward and backward as GFLOP/s and as a share
 * of a loop of nothing but multiply-adds, cross-entropy and matrix-vector products as GB/s and as a share of copying or reading memory.
 * Flops of attention are those of the causal half alone: T (T + 1) / 2 scores of 2 products forward and 5 backward. Peak and
 * kernel are measured in turns and the best of each is kept, so that a noisy neighbour spoils neither ratio.
 *
 *   bench_kernels [--json] [--level NAME] [--quick] */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernel/kernel.h"

static bool json, quick;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the machine ---- */

/* Sixteen independent sums in as many registers, fed from two more: no memory, no dependency shorter than the latency. */
#define ONE(op, r, n) op " %%" r "16, %%" r "17, %%" r #n "\n\t"
#define SIXTEEN(op, r)                                                                                                           \
	__asm__ volatile(ONE(op, r, 0) ONE(op, r, 1) ONE(op, r, 2) ONE(op, r, 3) ONE(op, r, 4) ONE(op, r, 5) ONE(op, r, 6)       \
	                 ONE(op, r, 7) ONE(op, r, 8) ONE(op, r, 9) ONE(op, r, 10) ONE(op, r, 11) ONE(op, r, 12)                  \
	                 ONE(op, r, 13) ONE(op, r, 14) ONE(op, r, 15)                                                            \
	                 ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",   \
	                   "xmm12", "xmm13", "xmm14", "xmm15")
/* AVX2 has sixteen registers in all: twelve sums. */
#define TWELVE(op)                                                                                                               \
	__asm__ volatile(                                                                                                        \
		op " %%ymm14,%%ymm15,%%ymm0\n\t" op " %%ymm14,%%ymm15,%%ymm1\n\t" op " %%ymm14,%%ymm15,%%ymm2\n\t" op            \
		   " %%ymm14,%%ymm15,%%ymm3\n\t" op " %%ymm14,%%ymm15,%%ymm4\n\t" op " %%ymm14,%%ymm15,%%ymm5\n\t" op            \
		   " %%ymm14,%%ymm15,%%ymm6\n\t" op " %%ymm14,%%ymm15,%%ymm7\n\t" op " %%ymm14,%%ymm15,%%ymm8\n\t" op            \
		   " %%ymm14,%%ymm15,%%ymm9\n\t" op " %%ymm14,%%ymm15,%%ymm10\n\t" op " %%ymm14,%%ymm15,%%ymm11\n\t" ::          \
			: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11")

/* GFLOP/s of this core at a level's widest multiply-add for dt; 0 where there is none to measure. */
static double peak_gflops(const char *level, enum stave_dtype dt)
{
	const int n = 400000;
	double flops = 0, t = now();
	if (!strcmp(level, "avx512bf16") && dt == STAVE_BF16) {
		for (int i = 0; i < n; i++)
			SIXTEEN("vdpbf16ps", "zmm");
		flops = 16. * 64 * n;
	} else if (!strncmp(level, "avx512", 6)) {
		for (int i = 0; i < n; i++)
			SIXTEEN("vfmadd231ps", "zmm");
		flops = 16. * 32 * n;
	} else if (!strcmp(level, "avx2")) {
		for (int i = 0; i < n; i++)
			TWELVE("vfmadd231ps");
		flops = 12. * 16 * n;
	}
	return flops / (now() - t) * 1e-9;
}

/* GB/s of copying (read and written) or of reading, over more memory than the caches hold. */
static double copy_rate(char *to, const char *from, size_t n)
{
	double t = now();
	memcpy(to, from, n);
	return 2 * (double)n / (now() - t) * 1e-9;
}

__attribute__((target("avx2"))) static double read_rate(const char *from, size_t n)
{
	__m256i sum[4] = {0};
	double t = now();
	for (size_t i = 0; i + 128 <= n; i += 128)
		for (int j = 0; j < 4; j++)
			sum[j] = _mm256_add_epi64(sum[j], _mm256_loadu_si256((const __m256i *)(from + i + 32 * j)));
	t = now() - t;
	volatile __m256i sink = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
	(void)sink;
	return (double)n / t * 1e-9;
}

/* ---- measuring ---- */

struct line {
	const char *op, *level;
	enum stave_dtype dt;
	int a, b; /* T and D, or rows and columns */
	double rate, limit; /* GFLOP/s or GB/s */
};

static void print_line(const struct line *l, const char *unit)
{
	static int lines;
	if (json)
		printf("%s{\"op\":\"%s\",\"level\":\"%s\",\"dtype\":\"%s\",\"rows\":%d,\"width\":%d,\"unit\":\"%s\",\"rate\":%.2f,\"limit\":%.2f}",
		       lines++ ? ",\n" : "[\n", l->op, l->level, stave_dtype_name(l->dt), l->a, l->b, unit, l->rate, l->limit);
	else if (l->limit > 0)
		printf("%-8s %-11s %-4s %6d x %-6d %8.1f %-8s %5.1f %% of %.1f\n", l->op, l->level, stave_dtype_name(l->dt), l->a, l->b, l->rate,
		       unit, 100 * l->rate / l->limit, l->limit);
	else
		printf("%-8s %-11s %-4s %6d x %-6d %8.1f %s\n", l->op, l->level, stave_dtype_name(l->dt), l->a, l->b, l->rate, unit);
	fflush(stdout);
}

static void *filled(enum stave_dtype dt, size_t n)
{
	void *x = aligned_alloc(64, (n * 4 + 63) / 64 * 64);
	uint32_t s = 12345;
	for (size_t i = 0; i < n; i++) {
		s = s * 1664525u + 1013904223u;
		stave_put(dt, x, i, (float)(s >> 8) * 0x1p-23f - 1);
	}
	return x;
}

/* Heads laid out as in training: q, k, v of 12 heads side by side in a row, so rows lie far apart. */
static void bench_attention(const struct stave_kernels *k, enum stave_dtype dt, int T, int D)
{
	const size_t ld = 36 * (size_t)D, size = dt == STAVE_F32 ? 4 : 2, n = (size_t)T * ld;
	char *x = filled(dt, n);
	void *o = filled(dt, n), *d_o = filled(dt, n);
	float *lse = malloc((size_t)T * 4), *g[3];
	for (int i = 0; i < 3; i++)
		g[i] = calloc(n, 4);
	void *scratch = aligned_alloc(64, k->attn_scratch(dt, T, D, true) + k->attn_scratch(dt, T, D, false));
	struct stave_attn a = {.T = T, .D = D, .q = x, .k = x + 12 * D * size, .v = x + 24 * D * size, .ldq = ld, .ldk = ld, .ldv = ld,
	                       .o = o, .ldo = 12 * (size_t)D, .lse = lse, .scale = 0.125f, .d_o = d_o, .dq = g[0], .dk = g[1], .dv = g[2],
	                       .lddq = ld, .lddkv = ld};
	double scores = (double)T * (T + 1) / 2, flops[] = {4 * scores * D, 10 * scores * D};
	struct line lines[] = {{"attn_fwd", k->level, dt, T, D, 0, 0}, {"attn_bwd", k->level, dt, T, D, 0, 0}};
	bool reference = !strcmp(k->level, "ref");
	int calls = reference ? 1 : 1 + (int)(1e8 / flops[0]), rounds = quick || reference ? 2 : 12;
	for (int round = 0; round < rounds; round++) {
		double peak = peak_gflops(k->level, dt);
		for (int b = 0; b < 2; b++) {
			double t = now();
			for (int c = 0; c < calls; c++)
				(b ? k->attn_bwd : k->attn_fwd)(dt, &a, scratch);
			double rate = flops[b] * calls / (now() - t) * 1e-9;
			lines[b].rate = rate > lines[b].rate ? rate : lines[b].rate;
			lines[b].limit = peak > lines[b].limit ? peak : lines[b].limit;
		}
	}
	print_line(&lines[0], "GFLOP/s");
	print_line(&lines[1], "GFLOP/s");
	free(x);
	free(o);
	free(d_o);
	free(lse);
	free(scratch);
	for (int i = 0; i < 3; i++)
		free(g[i]);
}

/* Bytes counted: the logits once in, the gradient once out. */
static void bench_xent(const struct stave_kernels *k, enum stave_dtype dt, int n, int V, size_t ld)
{
	size_t size = dt == STAVE_F32 ? 4 : 2, bytes = (size_t)n * ld * size;
	char *logits = filled(dt, (size_t)n * ld), *copy = malloc(bytes);
	float *loss = malloc((size_t)n * 4);
	int32_t *targets = malloc((size_t)n * 4);
	for (int i = 0; i < n; i++)
		targets[i] = i % V;
	struct line l = {"xent", k->level, dt, n, V, 0, 0};
	memset(copy, 0, bytes);
	for (int round = 0; round < (quick ? 2 : 6); round++) {
		double limit = copy_rate(copy, logits, bytes), t = now();
		k->xent(dt, logits, ld, loss, targets, 1.f / 64, n, V);
		double rate = 2 * (double)bytes / (now() - t) * 1e-9;
		l.rate = rate > l.rate ? rate : l.rate;
		l.limit = limit > l.limit ? limit : l.limit;
	}
	print_line(&l, "GB/s");
	free(logits);
	free(copy);
	free(loss);
	free(targets);
}

static void bench_gemv(const struct stave_kernels *k, enum stave_dtype dt, int n, int width)
{
	size_t bytes = (size_t)n * width * (dt == STAVE_F32 ? 4 : 2);
	char *W = filled(dt, (size_t)n * width);
	float *x = filled(STAVE_F32, (size_t)width), *y = malloc((size_t)n * 4);
	struct line l = {"gemv", k->level, dt, n, width, 0, 0};
	for (int round = 0; round < (quick ? 2 : 6); round++) {
		double limit = stave_kernels_level("avx2") ? read_rate(W, bytes) : 0, t = now();
		k->gemv(dt, y, W, (size_t)width, x, n, width);
		double rate = (double)bytes / (now() - t) * 1e-9;
		l.rate = rate > l.rate ? rate : l.rate;
		l.limit = limit > l.limit ? limit : l.limit;
	}
	print_line(&l, "GB/s");
	free(W);
	free(x);
	free(y);
}

static void bench_level(const struct stave_kernels *k)
{
	static const struct { int T, D; } shapes[] = {{64, 32}, {64, 64}, {256, 64}, {1024, 64}, {2048, 64}, {1024, 128}};
	bool reference = !strcmp(k->level, "ref");
	for (enum stave_dtype dt = STAVE_F32; dt <= STAVE_BF16; dt++)
		for (size_t i = 0; i < (reference ? 3 : sizeof shapes / sizeof *shapes); i++)
			bench_attention(k, dt, shapes[i].T, shapes[i].D);
	int rows = reference ? 16 : 512;
	bench_xent(k, STAVE_F32, 768, 65, 65);
	bench_xent(k, STAVE_F32, rows, 50257, 50304);
	bench_xent(k, STAVE_BF16, rows, 50257, 50304);
	bench_gemv(k, STAVE_F32, reference ? 768 : 50257, 768);
	bench_gemv(k, STAVE_BF16, reference ? 768 : 50257, 768);
}

int main(int argc, char **argv)
{
	const char *only = NULL;
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strcmp(argv[i], "--quick"))
			quick = true;
		else if (!strcmp(argv[i], "--level") && i + 1 < argc)
			only = argv[++i];
		else {
			fprintf(stderr, "usage: bench_kernels [--json] [--quick] [--level ref|avx2|avx512|avx512bf16]\n");
			return 2;
		}
	for (int l = 0; stave_levels[l]; l++) {
		const struct stave_kernels *k = stave_kernels_level(stave_levels[l]);
		if (k && (!only || !strcmp(only, stave_levels[l])))
			bench_level(k);
	}
	if (json)
		printf("\n]\n");
	return 0;
}
