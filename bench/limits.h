/* What two threads (or OMP_NUM_THREADS) of this machine can do at best, for benches to hold kernels against: multiply-adds
 * in registers, and reading memory. Time is processor time of the thread that took longest, so what other processes take
 * from these cores is not counted. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include <immintrin.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernel/kernel.h"

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *room(size_t bytes)
{
	void *p = aligned_alloc(1 << 21, (bytes + (1 << 21) - 1) >> 21 << 21);
	if (!p)
		exit(1);
	madvise(p, bytes, MADV_HUGEPAGE); /* as arenas do */
	return p;
}

/* Twelve independent sums in as many registers, fed from two more. */
#define LIMIT_ONE(op, n) op " %%zmm16, %%zmm17, %%zmm" #n "\n\t"
#define LIMIT_TWELVE(op)                                                                                                            \
	__asm__ volatile(LIMIT_ONE(op, 0) LIMIT_ONE(op, 1) LIMIT_ONE(op, 2) LIMIT_ONE(op, 3) LIMIT_ONE(op, 4) LIMIT_ONE(op, 5)      \
	                 LIMIT_ONE(op, 6) LIMIT_ONE(op, 7) LIMIT_ONE(op, 8) LIMIT_ONE(op, 9) LIMIT_ONE(op, 10) LIMIT_ONE(op, 11) :: \
	                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11")

/* GFLOP/s of all threads with bf16 or float multiply-adds; 0 where the process does not use them. */
static double peak_gflops(bool bf16)
{
	const int n = 300000;
	if (strcmp(stave_kernels()->level, "avx512bf16"))
		return 0;
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		double t = now();
		for (int i = 0; i < n; i++)
			if (bf16)
				LIMIT_TWELVE("vdpbf16ps");
			else
				LIMIT_TWELVE("vfmadd231ps");
		longest = now() - t;
	}
	return 12. * (bf16 ? 64 : 32) * n * omp_get_max_threads() / longest * 1e-9;
}

/* GB/s of all threads reading a part each. */
__attribute__((target("avx2"))) static double read_part(const char *from, size_t bytes)
{
	__m256i sum[4] = {0};
	double t = now();
	for (size_t i = 0; i + 128 <= bytes; i += 128)
		for (int j = 0; j < 4; j++)
			sum[j] = _mm256_add_epi64(sum[j], _mm256_loadu_si256((const __m256i *)(from + i + 32 * j)));
	t = now() - t;
	volatile __m256i sink = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
	(void)sink;
	return t;
}
static double read_rate(const char *from, size_t bytes)
{
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		size_t part = bytes / (size_t)omp_get_num_threads() / 128 * 128;
		longest = read_part(from + part * (size_t)omp_get_thread_num(), part);
	}
	return (double)bytes / longest * 1e-9;
}

#endif
