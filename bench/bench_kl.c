/* How far a file's distributions are from the plain reference of the same file, computed in double: mean KL(plain || x) in nats
 * for llama.cpp (with flash attention, its default, and without) and for the decoder with each type of cache.
 *   STAVE_LLAMACPP=FOLDER bench_kl [FAMILY[:TYPE] ...]   families as Hugging Face calls them, or "all"; default llama
 *   STAVE_LLAMACPP=FOLDER bench_kl MODEL.gguf ...        files of a few million parameters: the reference takes minutes for more
 * Of each family and stored type, the mean over SEEDS random models. The last columns are our caches over the better of llama.cpp's two:
 * rounding is random, and so is a tenth of these figures. */
#include "model/parity.h"

#include <unistd.h>

static char dir[] = "/tmp/stave-kl-XXXXXX";

static void must(int rc, const struct stave_err *e)
{
	if (rc) {
		fprintf(stderr, "%s\n", e->msg);
		exit(1);
	}
}

enum { SEEDS = 4 };
enum { FLASH, NO_FLASH, OURS, COLUMNS = OURS + 3 }; /* of the table; ours by type of cache */

static void add_row(double sum[COLUMNS], const struct stave_source *s, const struct parity_run *flash, const struct parity_run *without)
{
	static const enum stave_cache_type caches[] = {STAVE_CACHE_F32, STAVE_CACHE_BF16, STAVE_CACHE_I8};
	/* the two runs share the prompt; their greedy tokens may differ */
	int rows = flash->prompt;
	double *want = parity_plain(s, flash);
	sum[FLASH] += parity_kl(want, flash->theirs, rows, flash->V);
	sum[NO_FLASH] += parity_kl(want, without->theirs, rows, flash->V);
	for (int i = 0; i < 3; i++) {
		float *y = parity_logits(s, caches[i], flash);
		sum[OURS + i] += parity_kl(want, y, rows, flash->V);
		free(y);
	}
	free(want);
}

/* All of `paths` are of one type; their means are one row of the table. */
static void measure(const char *const *paths, int n)
{
	double sum[COLUMNS] = {0};
	char family[32], type[32];
	struct stave_err e = {0};
	struct parity_run *runs = calloc(2 * (size_t)n, sizeof *runs);
	for (int i = 0; i < 2 * n; i++) {
		runs[i].prompt = PARITY_PROMPT;
		runs[i].steps = 1;
		parity_prompt(runs[i].ids);
	}
	parity_ask(dir, paths, n, true, runs);
	parity_ask(dir, paths, n, false, runs + n);
	for (int i = 0; i < n; i++) {
		struct stave_source *s;
		must(stave_source_open(&s, paths[i], &e), &e);
		add_row(sum, s, &runs[i], &runs[n + i]);
		snprintf(family, sizeof family, "%s", shape_model_types[stave_source_shape(s)->family]);
		snprintf(type, sizeof type, "%s", stave_qtype_info(stave_source_main_type(s)).name);
		stave_source_close(s);
		free(runs[i].theirs);
		free(runs[n + i].theirs);
	}
	printf("%-12s %-7s", family, type);
	for (int i = 0; i < COLUMNS; i++)
		printf(" %10.3e", sum[i] / n);
	printf(" %8.3f %8.3f\n", sum[OURS] / fmin(sum[FLASH], sum[NO_FLASH]), sum[OURS + 1] / fmin(sum[FLASH], sum[NO_FLASH]));
	fflush(stdout);
	free(runs);
}

static void measure_type(enum stave_family f, enum stave_qtype t)
{
	char name[SEEDS][STAVE_PATH];
	const char *paths[SEEDS];
	struct stave_shape s = parity_shape(f);
	struct stave_err e = {0};
	for (int i = 0; i < SEEDS; i++) {
		snprintf(name[i], sizeof name[i], "%s/%d.gguf", dir, i);
		paths[i] = name[i];
		must(random_gguf(paths[i], &s, NULL, t, (uint64_t)i + 1, &e), &e);
	}
	measure(paths, SEEDS);
}

/* "llama", "llama:Q8_0", "all", "all:BF16" */
static void measure_named(const char *name)
{
	const char *colon = strchr(name, ':');
	size_t n = colon ? (size_t)(colon - name) : strlen(name);
	enum stave_qtype only = colon ? stave_qtype_of_name(colon + 1) : STAVE_QTYPE_COUNT;
	for (int f = 0; f < STAVE_FAMILIES; f++) {
		const char *family = shape_model_types[f];
		if (f == STAVE_BERT || (strncmp(name, "all", n) && (strlen(family) != n || strncmp(name, family, n))))
			continue;
		for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
			if (!colon || (int)only == t)
				measure_type((enum stave_family)f, (enum stave_qtype)t);
	}
}

int main(int argc, char **argv)
{
	static char *llama[] = {"", "llama"};
	if (!parity_peer() || !mkdtemp(dir)) {
		fprintf(stderr, "STAVE_LLAMACPP must name a folder with node-llama-cpp (tools/peer makes one)\n");
		return 2;
	}
	if (argc < 2) {
		argc = 2;
		argv = llama;
	}
	printf("%-12s %-7s %10s %10s %10s %10s %10s %8s %8s\n", "family", "type", "llama.cpp", "no flash", "ours: f32", "bf16", "i8", "f32/", "bf16/");
	for (int i = 1; i < argc; i++)
		if (stave_is_gguf(argv[i]))
			measure((const char *const *)argv + i, 1);
		else
			measure_named(argv[i]);
	stave_remove_tree(dir, NULL);
	return 0;
}
