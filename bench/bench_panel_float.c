/* How fast products with BF16, F16 and F32 panels run (kernel/panel.h) on all threads: one row of x as GB/s of weights and a
 * share of reading memory, eight rows as a multiple of the time of one, 512 rows as GFLOP/s and a share of peak, for the
 * matrices of a 1B model. Limits and kernels are measured in turns and the best of each is kept.
 *
 *   bench_panel_float [TURNS] */
#include "limits.h"

#include "kernel/panel.h"

enum { ROWS = 512 };

static char *data, *operand;
static float *x, *y;

static double multiply(const struct stave_packed *w, int n)
{
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		int threads = omp_get_num_threads(), me = omp_get_thread_num(), panels = stave_panels(w);
		void *scratch = aligned_alloc(64, (stave_panel_scratch(w->cols) + 64) / 64 * 64);
		double t = now();
		stave_packed_multiply(w, panels * me / threads, panels * (me + 1) / threads, operand, n, y, (size_t)w->rows, NULL, scratch);
		longest = now() - t;
		free(scratch);
	}
	return longest;
}

static double best_of(const struct stave_packed *w, int n, int turns)
{
	double best = 1e9;
	stave_operand_make(stave_operand_kind(w->type), operand, x, (size_t)w->cols, n, w->cols, 0, n);
	for (int i = 0; i < turns; i++) {
		double t = multiply(w, n);
		best = t < best ? t : best;
	}
	return best;
}

/* Many rows, and few: a matrix larger than the caches. */
static void bench(enum stave_qtype t, int turns)
{
	static const int shapes[][2] = {{2048, 2048}, {8192, 2048}, {2048, 8192}};
	struct stave_packed tall = {t, 65536, 2048, data};
	const size_t bytes = stave_packed_bytes(t, tall.rows, tall.cols);
	double read = 0, one = 1e9, eight = 1e9, peak = 0;
	for (int i = 0; i < turns; i++) {
		double r = read_rate(data, bytes), a = best_of(&tall, 1, 1), b = best_of(&tall, 8, 1);
		read = r > read ? r : read;
		one = a < one ? a : one;
		eight = b < eight ? b : eight;
	}
	printf("%-5s n=1 %6.1f GB/s, %5.1f %% of %.1f; n=8 takes %.2f times n=1\n", stave_qtype_info(t).name, (double)bytes / one * 1e-9,
	       (double)bytes / one * 1e-7 / read, read, eight / one);
	for (int s = 0; s < 3; s++) {
		struct stave_packed w = {t, shapes[s][0], shapes[s][1], data};
		double best = 1e9;
		for (int i = 0; i < turns; i++) {
			double p = peak_gflops(t == STAVE_Q_BF16), m = best_of(&w, ROWS, 2);
			peak = p > peak ? p : peak;
			best = m < best ? m : best;
		}
		double rate = 2. * ROWS * w.rows * w.cols / best * 1e-9;
		printf("      %d x %d n=%d %6.1f GFLOP/s, %5.1f %% of %.1f\n", w.rows, w.cols, ROWS, rate, 100 * rate / peak, peak);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int turns = argc > 1 ? atoi(argv[1]) : 6;
	const size_t most = stave_packed_bytes(STAVE_Q_F32, 65536, 2048);
	data = room(most);
#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < most / 4; i++)
		((uint32_t *)(void *)data)[i] = 0x3c003c00u + (uint32_t)(i & 0xff); /* small numbers in every type */
	x = room(sizeof(float) * ROWS * 8192);
	y = room(sizeof(float) * 8 * 65536 > sizeof(float) * ROWS * 8192 ? sizeof(float) * 8 * 65536 : sizeof(float) * ROWS * 8192);
	for (int i = 0; i < ROWS * 8192; i++)
		x[i] = (float)(i % 17) * 0.01f;
	operand = room(stave_operand_bytes(STAVE_OPERAND_F32, ROWS, 8192));
	bench(STAVE_Q_BF16, turns);
	bench(STAVE_Q_F16, turns);
	bench(STAVE_Q_F32, turns);
	return 0;
}
