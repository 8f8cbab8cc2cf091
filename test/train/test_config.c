/* The table of options, the shapes they describe, and the data room's shards as batches. */
#include "train/tiny.h"

#include "data/data.h"

struct opened {
	struct stave_train o;
	struct stave_config c;
	struct stave_err err;
};

static void open_with(struct opened *x, const char *const *pairs)
{
	memset(x, 0, sizeof *x);
	assert_int_equal(stave_config_open(&x->c, stave_train_keys, (size_t)stave_train_n_keys, &x->o, &x->err), 0);
	for (int i = 0; pairs[i]; i += 2)
		if (stave_config_set(&x->c, pairs[i], pairs[i + 1], "test", 3, &x->err))
			fail_msg("%s", x->err.msg);
}
#define OPEN(x, ...) open_with(x, (const char *const[]){__VA_ARGS__, NULL})

/* Where a value came from is said in a comment, and differs. */
static void cut_comments(char *yaml)
{
	for (char *p; (p = strstr(yaml, "  # "));)
		memmove(p, p + strcspn(p, "\n"), strlen(p + strcspn(p, "\n")) + 1);
}

/* Every default is within its own bounds, and what is dumped can be read again to the same values. */
static void table_is_sound(void **state)
{
	struct opened a, b;
	char path[2 * STAVE_PATH], *first = NULL, *second = NULL;
	size_t n;
	OPEN(&a, "train.lr", "3e-4", "train.schedule", "wsd", "train.steps", "10k", "data", "x y: z", "shape.layers", "3", "train.doc_mask", "false");
	assert_int_equal(a.o.steps, 10000);
	assert_int_equal(a.o.schedule, STAVE_WSD);
	FILE *f = open_memstream(&first, &n);
	stave_config_dump(&a.c, f);
	fclose(f);
	char *dir = tiny_dir();
	snprintf(path, sizeof path, "%s/run.yaml", dir);
	assert_int_equal(stave_file_write(path, first, strlen(first), &a.err), 0);
	OPEN(&b, NULL);
	if (stave_config_yaml(&b.c, path, &b.err))
		fail_msg("%s", b.err.msg);
	f = open_memstream(&second, &n);
	stave_config_dump(&b.c, f);
	fclose(f);
	cut_comments(first);
	cut_comments(second);
	assert_string_equal(first, second);
	assert_string_equal(b.o.data, "x y: z");
	assert_int_equal(b.o.layers, 3);
	free(first);
	free(second);
	stave_config_close(&a.c);
	stave_config_close(&b.c);
	stave_remove_tree(dir, NULL);
}

static void misspelt_and_outside(void **state)
{
	struct opened x;
	OPEN(&x, NULL);
	assert_int_equal(stave_config_set(&x.c, "train.rl", "1", "test", 3, &x.err), STAVE_ECONFIG);
	assert_non_null(strstr(x.err.msg, "train.lr"));
	assert_int_equal(stave_config_set(&x.c, "train.batch", "0", "test", 3, &x.err), STAVE_ECONFIG);
	assert_int_equal(stave_config_set(&x.c, "train.beta2", "1", "test", 3, &x.err), STAVE_ECONFIG);
	assert_int_equal(stave_config_set(&x.c, "train.lr", "nan", "test", 3, &x.err), STAVE_ECONFIG);
	assert_int_equal(stave_config_set(&x.c, "train.optimizer", "sgd", "test", 3, &x.err), STAVE_ECONFIG);
	stave_config_close(&x.c);
}

static void shapes_follow(void **state)
{
	struct opened x;
	struct stave_shape s;
	OPEN(&x, "model", "gpt2-124m", "shape.channels", "128", "shape.heads", "4", "shape.layers", "4", "shape.context", "64", "shape.act", "gelu",
	     "shape.bias", "no");
	assert_int_equal(stave_train_shape(&x.o, 65, &s, &x.err), 0);
	assert_int_equal(s.I, 512);
	assert_int_equal(s.D, 32);
	assert_int_equal(s.K, 4);
	assert_true(!s.qkv_bias && !s.norm_bias && s.act == STAVE_GELU_EXACT && s.tied);
	assert_int_equal(stave_shape_params(&s), 804096); /* nanoGPT prints 0.80M */
	stave_config_close(&x.c);
	OPEN(&x, "model", "llama-124m", "shape.heads", "6", "shape.kv_heads", "2", "shape.channels", "384");
	assert_int_equal(stave_train_shape(&x.o, 1000, &s, &x.err), 0);
	assert_int_equal(s.V, 1000);
	assert_int_equal(s.D, 64);
	assert_int_equal(s.K, 2);
	stave_config_close(&x.c);
	OPEN(&x, "model", "/no/such/dir");
	assert_int_equal(stave_train_shape(&x.o, 1000, &s, &x.err), STAVE_ECONFIG);
	stave_config_close(&x.c);
}

/* ---- shards ---- */

enum { TOKENS = 5000, T = 16 };
static uint16_t corpus[TOKENS];

static void write_bin(const char *path)
{
	for (int i = 0; i < TOKENS; i++)
		corpus[i] = (uint16_t)i; /* a token is its own place */
	struct stave_err err;
	assert_int_equal(stave_file_write(path, corpus, sizeof corpus, &err), 0);
}

struct rows4 {
	int32_t inputs[64 * T], targets[64 * T], start[64 * T], pos[64 * T];
};
static void fill(const struct stave_batches *b, enum stave_set set, int64_t step, int64_t row0, int n, struct rows4 *r)
{
	struct stave_err err;
	assert_int_equal(b->fill(b->ctx, set, step, row0, n, T, r->inputs, r->targets, r->start, r->pos, &err), 0);
}

/* Whoever fills which rows, the batch of a step is the same; steps do not repeat rows within an epoch; splits do not mix. */
static void batches_are_functions_of_the_step(void **state)
{
	struct opened x;
	struct stave_shard_batches s;
	static struct rows4 all, part;
	static char seen[TOKENS];
	char *dir = tiny_dir(), path[128];
	snprintf(path, sizeof path, "%s/tokens.bin", dir);
	write_bin(path);
	OPEN(&x, "data", path, "train.batch", "8", "train.eval_batches", "8", "train.seq", "16");
	assert_int_equal(stave_shard_batches_open(&s, &x.o, &x.err), 0);
	struct stave_batches b = stave_shard_batches_door(&s);
	assert_true(b.has_val);
	assert_int_equal(b.state_bytes, 0);
	assert_int_equal(stave_shard_batches_vocab(&s), TOKENS);
	memset(seen, 0, sizeof seen);
	for (int64_t step = 0; step < 30; step++) {
		fill(&b, STAVE_SET_TRAIN, step, 0, 8, &all);
		fill(&b, STAVE_SET_TRAIN, step, 5, 3, &part);
		assert_memory_equal(part.inputs, all.inputs + 5 * T, 3 * T * 4);
		for (int i = 0; i < 8 * T; i++) {
			assert_true(all.inputs[i] < TOKENS * 9 / 10);
			if (all.targets[i] < 0)
				continue;
			assert_int_equal(all.targets[i], all.inputs[i] + 1);
			assert_false(seen[all.targets[i]]);
			seen[all.targets[i]] = 1;
		}
	}
	fill(&b, STAVE_SET_VAL, 0, 0, 64, &all);
	memset(seen, 0, sizeof seen);
	int learnt = 0;
	for (int i = 0; i < 64 * T; i++)
		if (all.targets[i] >= 0) {
			assert_true(all.targets[i] > TOKENS * 9 / 10 && !seen[all.targets[i]]);
			seen[all.targets[i]] = 1;
			learnt++;
		}
	assert_int_equal(learnt, TOKENS / 10 - 1); /* the split is small: each target once */
	fill(&b, STAVE_SET_VAL, 7, 8, 56, &part);
	assert_memory_equal(part.targets, all.targets + 8 * T, 56 * T * 4); /* the same at each evaluation */
	stave_shard_batches_close(&s);
	stave_config_close(&x.c);
	stave_remove_tree(dir, NULL);
}

static void no_data(void **state)
{
	struct opened x;
	struct stave_shard_batches s;
	OPEN(&x, NULL);
	assert_int_equal(stave_shard_batches_open(&s, &x.o, &x.err), STAVE_EUSAGE);
	stave_config_close(&x.c);
	OPEN(&x, "data", "/no/such/data");
	assert_true(stave_shard_batches_open(&s, &x.o, &x.err) < 0);
	assert_non_null(strstr(x.err.msg, "/no/such/data"));
	stave_config_close(&x.c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_sound),
		cmocka_unit_test(misspelt_and_outside),
		cmocka_unit_test(shapes_follow),
		cmocka_unit_test(batches_are_functions_of_the_step),
		cmocka_unit_test(no_data),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
