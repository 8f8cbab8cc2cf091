/* How fast products with stored weights run (kernel/panel.h) on two threads, or as many as OMP_NUM_THREADS says, against
 * what the machine can do: one row of x as GB/s of packed weights and as a share of reading memory, eight rows as a multiple
 * of the time of one, 512 rows as GOP/s (a multiply and an add are two) and as a share of a loop of nothing but vpdpbusd.
 *
 * Time is processor time, of the thread that took longest: what other processes take from these cores is not counted.
 * Limits and kernels are measured in turns and the best of each is kept. Packing is GB/s of the file's bytes.
 *
 *   bench_panel [TYPE ...]      no types: all */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernel/kernel.h"
#include "kernel/panel.h"

enum { ROWS = 65536, COLS = 2048, N = 512, TURNS = 5 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *room(size_t bytes)
{
	void *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
	if (!p)
		exit(1);
	return p;
}

/* ---- the machine ---- */

#define ONE(n) "vpdpbusd %%zmm16, %%zmm17, %%zmm" #n "\n\t"
__attribute__((target("avx512f"))) static void dot_loop(int n)
{
	for (int i = 0; i < n; i++)
		__asm__ volatile(ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7) ONE(8) ONE(9) ONE(10) ONE(11) ::
		                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
}

/* GOP/s of all threads; 0 where there is no VNNI. */
static double peak_gops(void)
{
	const int n = 300000;
	if (strcmp(stave_kernels()->level, "avx512bf16"))
		return 0;
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		double t = now();
		dot_loop(n);
		longest = now() - t;
	}
	return 12. * 128 * n * omp_get_max_threads() / longest * 1e-9;
}

/* GB/s of all threads reading. */
static double read_rate(const char *from, size_t bytes)
{
	uint64_t total = 0;
	double longest = 0;
#pragma omp parallel reduction(+ : total) reduction(max : longest)
	{
		double t = now();
		size_t part = bytes / (size_t)omp_get_num_threads() / 512 * 512;
		const uint64_t *p = (const uint64_t *)(const void *)(from + part * (size_t)omp_get_thread_num());
		uint64_t s[8] = {0};
		for (size_t i = 0; i < part / 8; i += 8) {
			__asm__ volatile("" ::: "memory");
			for (int k = 0; k < 8; k++)
				s[k] += p[i + (size_t)k];
		}
		for (int k = 0; k < 8; k++)
			total += s[k];
		longest = now() - t;
	}
	volatile uint64_t sink = total;
	(void)sink;
	return (double)bytes / longest * 1e-9;
}

/* ---- products ---- */

static char *file, *packed, *operand;
static float *x, *y;

static double pack(struct stave_packed *w)
{
	size_t row = stave_qtype_row_bytes(w->type, w->cols), panel = stave_packed_bytes(w->type, w->rows, w->cols) / (size_t)stave_panels(w);
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		double t = now();
#pragma omp for schedule(static) nowait
		for (int p = 0; p < stave_panels(w); p++) {
			const void *rows[STAVE_PANEL];
			for (int i = 0; i < STAVE_PANEL; i++)
				rows[i] = file + (size_t)(p * STAVE_PANEL + i) * row;
			stave_pack_panel(w->type, packed + (size_t)p * panel, rows, w->cols);
		}
		longest = now() - t;
	}
	w->data = packed;
	return (double)row * w->rows / longest * 1e-9;
}

static void make(enum stave_qtype t, int n, int cols)
{
	enum stave_operand_kind kind = stave_operand_kind(t);
#pragma omp parallel
	{
		int threads = omp_get_num_threads(), me = omp_get_thread_num();
		stave_operand_make(kind, operand, x, (size_t)cols, n, cols, n * me / threads, n * (me + 1) / threads);
	}
}

/* Seconds of one product; each thread takes its own run of panels. */
static double multiply(const struct stave_packed *w, int n)
{
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		static _Thread_local void *scratch;
		if (!scratch)
			scratch = room(stave_panel_scratch(8192));
		int threads = omp_get_num_threads(), me = omp_get_thread_num(), panels = stave_panels(w);
		double t = now();
		stave_packed_multiply(w, panels * me / threads, panels * (me + 1) / threads, operand, n, y, (size_t)w->rows, NULL, scratch);
		longest = now() - t;
	}
	return longest;
}

static double best_of(const struct stave_packed *w, int n, int turns)
{
	double best = 1e9;
	make(w->type, n, w->cols);
	for (int i = 0; i < turns; i++) {
		double t = multiply(w, n);
		best = t < best ? t : best;
	}
	return best;
}

static void bench_type(enum stave_qtype t)
{
	static const int shapes[][2] = {{2048, 2048}, {8192, 2048}, {2048, 8192}};
	struct stave_packed w = {.type = t, .rows = ROWS, .cols = COLS};
	double bytes = (double)stave_packed_bytes(t, ROWS, COLS), bandwidth = 0, one = 1e9, eight = 1e9, pack_rate = 0;
	for (int i = 0; i < 2; i++) {
		double r = pack(&w);
		pack_rate = r > pack_rate ? r : pack_rate;
	}
	for (int i = 0; i < TURNS; i++) {
		double r = read_rate(packed, (size_t)bytes), a = best_of(&w, 1, 2), b = best_of(&w, 8, 1);
		bandwidth = r > bandwidth ? r : bandwidth;
		one = a < one ? a : one;
		eight = b < eight ? b : eight;
	}
	printf("%-7s n=1 %5.1f GB/s %3.0f %% of %4.1f   n=8 %4.2f x", stave_qtype_info(t).name, bytes / one * 1e-9,
	       100 * bytes / one * 1e-9 / bandwidth, bandwidth, eight / one);
	for (int s = 0; s < 3; s++) {
		struct stave_packed v = {.type = t, .rows = shapes[s][0], .cols = shapes[s][1]};
		double peak = 0, best = 1e9;
		pack(&v);
		for (int i = 0; i < TURNS; i++) {
			double g = peak_gops(), b = best_of(&v, N, 1);
			peak = g > peak ? g : peak;
			best = b < best ? b : best;
		}
		double gops = 2. * v.rows * v.cols * N / best * 1e-9;
		printf("   %dx%d %4.0f", v.rows, v.cols, gops);
		if (peak > 0)
			printf(" %3.0f %%", 100 * gops / peak);
	}
	printf("   pack %.2f GB/s\n", pack_rate);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	file = room((size_t)ROWS * COLS * 4);
	packed = room((size_t)ROWS * COLS * 5);
	operand = room(stave_operand_bytes(STAVE_OPERAND_F32, N, 8192) + stave_operand_bytes(STAVE_OPERAND_I8, N, 8192));
	x = room((size_t)N * 8192 * 4);
	y = room((size_t)N * ROWS * 4);
	for (size_t i = 0; i < (size_t)ROWS * COLS * 4 / 8; i++) /* any codes; f16 scales of 0x2c2c, about 0.065 */
		((uint64_t *)(void *)file)[i] = 0x2c2c2c2c2c2c2c2cull;
	for (size_t i = 0; i < (size_t)N * 8192; i++)
		x[i] = (float)(int)(i * 2654435761u >> 8 & 0xffff) * 0x1p-15f - 1;
	memset(packed, 0, (size_t)ROWS * COLS * 5);
	memset(y, 0, (size_t)N * ROWS * 4);
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++) {
		bool wanted = argc < 2;
		for (int i = 1; i < argc; i++)
			wanted |= !strcasecmp(argv[i], stave_qtype_info(t).name);
		if (wanted)
			bench_type(t);
	}
	return 0;
}
