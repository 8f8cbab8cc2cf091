/* How fast attention over a paged cache runs (kernel/paged.h) on all threads, each with key heads of its own: decoding as GB/s of
 * pages read and a share of reading memory, prefill as GFLOP/s of the positions that are seen and a share of the bf16 peak.
 * A decoding step reads a different layer's cache each time, so that nothing comes from the processor's caches. Limits
 * and kernels are measured in turns and the best of each is kept.
 *
 *   bench_paged [--turns N] [--quick] */
#include "limits.h"

#include "kernel/paged.h"

enum { HEADS = 8, CACHE = 256 << 20 };

static char *cache;
static float *q, *o;
static int turns = 6;

static const char *const type_names[] = {"f32", "bf16", "i8"};

/* The pages of `layers` layers and all heads for `positions` positions, all of the cache's memory in turn. */
struct pages {
	const void **of; /* (layers, HEADS, per_head) */
	int layers, per_head;
};

static struct pages make_pages(enum stave_cache_type t, int D, int positions)
{
	struct pages p = {.per_head = (positions + STAVE_PAGE - 1) / STAVE_PAGE};
	size_t bytes = stave_page_bytes(t, D), layer = bytes * HEADS * (size_t)p.per_head;
	p.layers = (int)(CACHE / layer);
	size_t n = (size_t)p.layers * HEADS * (size_t)p.per_head;
	p.of = malloc(n * sizeof *p.of);
	for (size_t i = 0; i < n; i++)
		p.of[i] = cache + i * bytes;
	float k[512], v[512];
	for (int d = 0; d < D; d++) {
		k[d] = (float)(d % 7) * 0.1f - 0.3f;
		v[d] = (float)(d % 5) * 0.1f - 0.2f;
	}
	char *first = cache;
	for (int at = 0; at < STAVE_PAGE; at++)
		stave_page_put(t, first, at, k, v, D);
#pragma omp parallel for schedule(static)
	for (size_t i = 1; i < n; i++)
		memcpy(cache + i * bytes, first, bytes);
	return p;
}

/* Seconds of one layer: n rows at `past`, HEADS key heads of G queries each. */
static double layer(enum stave_cache_type t, const struct pages *p, int which, int D, int G, int n, int past)
{
	double longest = 0;
#pragma omp parallel reduction(max : longest)
	{
		void *scratch = aligned_alloc(64, stave_paged_scratch(G, D));
		memset(scratch, 0, stave_paged_scratch(G, D));
		double start = now();
#pragma omp for schedule(static) nowait
		for (int h = 0; h < HEADS; h++) {
			struct stave_paged_attn a = {.type = t, .n = n, .past = past, .G = G, .D = D, .q = q + h * G * D, .o = o + h * G * D,
			                             .ldq = (size_t)(HEADS * G * D), .ldo = (size_t)(HEADS * G * D), .scale = 0.125f,
			                             .pages = p->of + ((size_t)which * HEADS + (size_t)h) * (size_t)p->per_head};
			stave_paged_attention(&a, scratch);
		}
		longest = now() - start;
		free(scratch);
	}
	return longest;
}

static void decode(enum stave_cache_type t, int D, int G, int positions)
{
	struct pages p = make_pages(t, D, positions);
	double best = 1e9, read = 0, bytes = (double)stave_page_bytes(t, D) * HEADS * p.per_head;
	for (int i = 0; i < turns; i++) {
		double r = read_rate(cache, CACHE), total = 0;
		for (int l = 0; l < p.layers; l++)
			total += layer(t, &p, l, D, G, 1, positions - 1);
		read = r > read ? r : read;
		best = total / p.layers < best ? total / p.layers : best;
	}
	printf("decode  %-4s D %-3d G %d at %4d  %6.1f GB/s, %5.1f %% of %.1f\n", type_names[t], D, G, positions, bytes / best * 1e-9,
	       100 * bytes / best * 1e-9 / read, read);
	fflush(stdout);
	free(p.of);
}

static void prefill(enum stave_cache_type t, int D, int G, int past)
{
	const int n = 512;
	struct pages p = make_pages(t, D, past + n);
	double best = 1e9, peak = 0, flops = 4. * D * G * HEADS * ((double)n * past + (double)n * (n + 1) / 2);
	for (int i = 0; i < turns; i++) {
		double limit = peak_gflops(t != STAVE_CACHE_F32), time = layer(t, &p, i % p.layers, D, G, n, past);
		peak = limit > peak ? limit : peak;
		best = time < best ? time : best;
	}
	printf("prefill %-4s D %-3d G %d past %4d %6.1f GFLOP/s, %5.1f %% of %.1f\n", type_names[t], D, G, past, flops / best * 1e-9,
	       100 * flops / best * 1e-9 / peak, peak);
	fflush(stdout);
	free(p.of);
}

int main(int argc, char **argv)
{
	bool quick = false;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--turns") && i + 1 < argc)
			turns = atoi(argv[++i]);
		quick |= !strcmp(argv[i], "--quick");
	}
	const size_t values = (size_t)512 * HEADS * 8 * 128;
	cache = room(CACHE);
	q = room(values * sizeof *q);
	o = room(values * sizeof *o);
	for (size_t i = 0; i < values; i++) {
		q[i] = (float)(i % 11) * 0.2f - 1;
		o[i] = 0;
	}
	decode(STAVE_CACHE_BF16, 64, 4, 512);
	decode(STAVE_CACHE_BF16, 64, 4, 8192);
	decode(STAVE_CACHE_BF16, 128, 4, 8192);
	decode(STAVE_CACHE_I8, 64, 4, 8192);
	decode(STAVE_CACHE_I8, 128, 4, 8192);
	if (!quick) {
		decode(STAVE_CACHE_F32, 64, 4, 8192);
		decode(STAVE_CACHE_BF16, 64, 1, 8192);
		decode(STAVE_CACHE_BF16, 128, 8, 8192);
	}
	prefill(STAVE_CACHE_BF16, 64, 4, 0);
	prefill(STAVE_CACHE_BF16, 64, 4, 4096);
	prefill(STAVE_CACHE_BF16, 64, 4, 7680);
	prefill(STAVE_CACHE_I8, 64, 4, 4096);
	prefill(STAVE_CACHE_BF16, 128, 4, 4096);
	if (!quick) {
		prefill(STAVE_CACHE_BF16, 80, 4, 4096);
		prefill(STAVE_CACHE_BF16, 64, 1, 4096);
		prefill(STAVE_CACHE_F32, 64, 4, 4096);
	}
	return 0;
}
