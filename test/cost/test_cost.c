/* Counts against closed forms worked out by hand or published: parameter counts of known models, the flops of a step
 * against 6N and against a brute-force count of attended pairs, and the bounds of a shape. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cost/cost.h"

static struct stave_shape gpt2(int L, int C, int H, int V, int T)
{
	return (struct stave_shape){.family = STAVE_GPT2, .L = L, .C = C, .H = H, .K = H, .D = C / H, .I = 4 * C, .V = V, .T_max = T,
	                            .act = STAVE_GELU_TANH, .layernorm = true, .norm_bias = true, .learned_pos = true, .qkv_bias = true,
	                            .out_bias = true, .mlp_bias = true, .tied = true, .norm_eps = 1e-5f};
}

static struct stave_shape llama(int L, int C, int H, int K, int D, int I, int V)
{
	return (struct stave_shape){.family = STAVE_LLAMA, .L = L, .C = C, .H = H, .K = K, .D = D, .I = I, .V = V, .T_max = 2048,
	                            .act = STAVE_SWIGLU, .norm_eps = 1e-5f, .rope_theta = 10000};
}

/* Published sizes: GPT-2 small and XL, nanoGPT's character model without biases, Llama 2 7B, Llama 3 8B, Qwen3 0.6B. */
static void published_parameter_counts(void **state)
{
	struct stave_shape s = gpt2(12, 768, 12, 50257, 1024);
	assert_int_equal(stave_shape_params(&s), 124439808);
	s = gpt2(48, 1600, 25, 50257, 1024);
	assert_int_equal(stave_shape_params(&s), 1557611200);
	s = gpt2(4, 128, 4, 65, 64);
	s.norm_bias = s.qkv_bias = s.out_bias = s.mlp_bias = false;
	assert_int_equal(stave_shape_params(&s), 804096);
	s = llama(32, 4096, 32, 32, 128, 11008, 32000);
	assert_int_equal(stave_shape_params(&s), 6738415616);
	s = llama(32, 4096, 32, 8, 128, 14336, 128256);
	assert_int_equal(stave_shape_params(&s), 8030261248);
	s = llama(28, 1024, 16, 8, 128, 3072, 151936);
	s.family = STAVE_QWEN3;
	s.qk_norm = s.tied = true;
	assert_int_equal(stave_shape_params(&s), 596049920);
}

/* Published sizes: Gemma 2 2B, Gemma 3 1B, Phi-3 mini, Mixtral 8x7B, Qwen3 30B-A3B, and BERT base without its pooler. */
static void published_counts_of_families_that_run(void **state)
{
	struct stave_shape s = llama(26, 2304, 8, 4, 256, 9216, 256000);
	s.act = STAVE_GEGLU;
	s.sandwich = s.tied = true;
	assert_int_equal(stave_shape_params(&s), 2614341888);
	s = llama(26, 1152, 4, 1, 256, 6912, 262144);
	s.act = STAVE_GEGLU;
	s.sandwich = s.tied = s.qk_norm = true;
	assert_int_equal(stave_shape_params(&s), 999885952);
	s = llama(32, 3072, 32, 32, 96, 8192, 32064);
	assert_int_equal(stave_shape_params(&s), 3821079552);
	s = llama(32, 4096, 32, 8, 128, 14336, 32000);
	s.experts = 8, s.experts_used = 2;
	assert_int_equal(stave_shape_params(&s), 46702792704);
	s = llama(48, 2048, 32, 4, 128, 768, 151936);
	s.experts = 128, s.experts_used = 8, s.qk_norm = true;
	assert_int_equal(stave_shape_params(&s), 30532122624);
	s = gpt2(12, 768, 12, 30522, 512);
	s.encoder = true, s.token_types = 2, s.act = STAVE_GELU_EXACT;
	assert_int_equal(stave_shape_params(&s), 109482240 - 590592);
}

static double sum_flops(const struct stave_op *ops, int n, enum stave_op_kind kind)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		if (ops[i].kind == kind)
			sum += ops[i].flops * (double)ops[i].count;
	return sum;
}

static double sum_bytes(const struct stave_op *ops, int n, enum stave_op_kind kind)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		if (ops[i].kind == kind)
			sum += ops[i].bytes * (double)ops[i].count;
	return sum;
}

/* One token of Mixtral reads the matrices of two experts of eight, once, and of the cache what its window shows. */
static void a_token_reads_each_weight_once(void **state)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape s = llama(32, 4096, 32, 8, 128, 14336, 32000);
	s.experts = 8, s.experts_used = 2;
	double shared = 32 * (4096.0 * (32 + 16) * 128 + 4096.0 * 4096 + 8 * 4096) + 32000.0 * 4096, expert = 32 * 3 * 4096.0 * 14336;
	int n = stave_cost_infer_ops(&s, 1, 99, STAVE_I8, 0.5625, 2, ops);
	assert_in_range(n, 1, STAVE_OPS_MAX);
	/* int8 operands and float results of one row: qkv, out, router, twice gate and up, and down; the classifier */
	double rows = 32 * (4096 + 4 * 6144 + 4096 + 4 * 4096 + 4096 + 4 * 8 + 2 * (4096 + 4 * 28672 + 14336 + 4 * 4096)) + 4096 + 4 * 32000;
	assert_true(fabs(sum_bytes(ops, n, STAVE_OP_MATMUL) - 0.5625 * (shared + 2 * expert) - rows) < 1);
	assert_true(fabs(sum_flops(ops, n, STAVE_OP_MATMUL) - 2 * (shared + 2 * expert)) < 1);
	assert_true(sum_bytes(ops, n, STAVE_OP_ATTENTION) == 32 * 2 * 128.0 * (4 * 32 + 2 * 8 * 100));

	n = stave_cost_infer_ops(&s, 3, 0, STAVE_I8, 0.5625, 2, ops); /* six choices: at most six experts */
	assert_true(fabs(sum_flops(ops, n, STAVE_OP_MATMUL) - 2 * (3 * (shared - 32000.0 * 4096) + 32000.0 * 4096 + 6 * expert)) < 1);
	assert_true(fabs(sum_bytes(ops, n, STAVE_OP_MATMUL) - 0.5625 * (shared + 6 * expert) - 3 * rows) < 3 * (4096 + 4 * 32000));
	n = stave_cost_infer_ops(&s, 64, 0, STAVE_I8, 1, 2, ops); /* more than there are: all eight, once */
	assert_true(fabs(sum_bytes(ops, n, STAVE_OP_MATMUL) - (shared + 8 * expert) - 64 * rows) < 64 * (4096 + 4 * 32000));
}

/* Gemma 3: of six layers one sees everything, the others their window. */
static void windows_follow_their_pattern(void **state)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape s = llama(26, 1152, 4, 1, 256, 6912, 1000);
	s.window = 512, s.window_pattern = 6;
	int n = stave_cost_infer_ops(&s, 1, 2000, STAVE_I8, 1, 2, ops);
	assert_true(sum_flops(ops, n, STAVE_OP_ATTENTION) == 4 * 256.0 * 4 * (4 * 2001 + 22 * 512));
	assert_true(sum_bytes(ops, n, STAVE_OP_ATTENTION) == 2 * 256.0 * (26 * 4 * 4 + 2 * (4 * 2001 + 22 * 512)));
}

static void flops_per_token_follow_palm(void **state)
{
	struct stave_shape s = gpt2(12, 768, 12, 50257, 1024);
	/* positions are looked up, not multiplied: 124,439,808 - 1024·768 */
	assert_true(stave_train_flops_per_token(&s, 1024) == 6.0 * 123653376 + 12.0 * 12 * 768 * 1024);
	s.tied = false; /* an embedding beside the classifier is looked up too: no more work than before */
	assert_true(stave_train_flops_per_token(&s, 1024) == 6.0 * 123653376 + 12.0 * 12 * 768 * 1024);
}

/* The products of a step are 6 flops per token and per parameter that is part of a matrix. */
static void products_are_six_n(void **state)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape s = gpt2(12, 768, 12, 50257, 1024);
	int n = stave_cost_train_ops(&s, 4, 256, 3, STAVE_BF16, STAVE_KEEP_ALL, ops);
	assert_in_range(n, 1, STAVE_OPS_MAX);
	double in_matrices = 12 * (4.0 * 768 * 768 + 8.0 * 768 * 768) + 50304.0 * 768; /* the classifier's padded rows are multiplied too */
	assert_true(fabs(sum_flops(ops, n, STAVE_OP_MATMUL) / (6 * in_matrices * 3 * 4 * 256) - 1) < 1e-12);

	s = llama(6, 512, 8, 2, 64, 1376, 32000);
	n = stave_cost_train_ops(&s, 2, 128, 1, STAVE_F32, STAVE_KEEP_ALL, ops);
	assert_in_range(n, 1, STAVE_OPS_MAX);
	in_matrices = 6 * (512.0 * (8 + 4) * 64 + 512 * 512 + 3 * 512 * 1376) + 32000.0 * 512;
	assert_true(fabs(sum_flops(ops, n, STAVE_OP_MATMUL) / (6 * in_matrices * 2 * 128) - 1) < 1e-12);
}

/* Queries t = past .. past+n-1 see keys max(0, t-window+1) .. t, counted one by one. */
static double count_pairs(int n, int past, int window)
{
	double pairs = 0;
	for (int t = past; t < past + n; t++) {
		int first = window && t - window + 1 > 0 ? t - window + 1 : 0;
		pairs += t - first + 1;
	}
	return pairs;
}

static void attention_counts_what_is_seen(void **state)
{
	static const int windows[] = {0, 1, 7, 64, 100, 1000}, news[] = {1, 5, 64, 100}, pasts[] = {0, 3, 64, 99, 500};
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape s = llama(3, 512, 8, 2, 64, 1376, 1000);
	for (int w = 0; w < 6; w++)
		for (int a = 0; a < 4; a++) {
			s.window = windows[w];
			int n = stave_cost_train_ops(&s, 2, news[a], 1, STAVE_F32, STAVE_KEEP_ALL, ops);
			double want = 7 * 2 * 64 * 3 * 2 * 8 * count_pairs(news[a], 0, windows[w]); /* 2 products forward, 5 backward */
			assert_true(fabs(sum_flops(ops, n, STAVE_OP_ATTENTION) - want) < 0.5);
			for (int p = 0; p < 5; p++) {
				n = stave_cost_infer_ops(&s, news[a], pasts[p], STAVE_F32, 4, 4, ops);
				assert_in_range(n, 1, STAVE_OPS_MAX);
				want = 2 * 2 * 64 * 3 * 8 * count_pairs(news[a], pasts[p], windows[w]);
				assert_true(fabs(sum_flops(ops, n, STAVE_OP_ATTENTION) - want) < 0.5);
			}
		}
}

/* Recompute adds work and never takes any away; a micro-batch more is one step's products more, not one update more. */
static void steps_compose(void **state)
{
	struct stave_op one[STAVE_OPS_MAX], two[STAVE_OPS_MAX];
	struct stave_shape s = gpt2(5, 256, 4, 1000, 128);
	double total[3];
	for (int re = STAVE_KEEP_ALL; re <= STAVE_RECOMPUTE_LAYER; re++) {
		int n = stave_cost_train_ops(&s, 2, 64, 1, STAVE_F32, (enum stave_recompute)re, one);
		assert_in_range(n, 1, STAVE_OPS_MAX);
		total[re] = 0;
		for (int i = 0; i < n; i++)
			total[re] += one[i].bytes * (double)one[i].count;
	}
	assert_true(total[STAVE_KEEP_ALL] < total[STAVE_RECOMPUTE_CHEAP] && total[STAVE_RECOMPUTE_CHEAP] < total[STAVE_RECOMPUTE_LAYER]);
	int n = stave_cost_train_ops(&s, 2, 64, 1, STAVE_F32, STAVE_KEEP_ALL, one);
	assert_int_equal(stave_cost_train_ops(&s, 2, 64, 4, STAVE_F32, STAVE_KEEP_ALL, two), n);
	for (int i = 0; i < n; i++)
		assert_int_equal(two[i].count, one[i].count * (one[i].pass == STAVE_UPDATE ? 1 : 4));
}

/* Chunks of logits cover the rows, stay within 96 MiB, and are even enough that no product is left with a sliver. */
static void logits_are_held_in_even_chunks(void **state)
{
	static const int vocabularies[] = {1, 65, 5000, 50257, 128256, 1 << 22};
	for (int v = 0; v < 6; v++)
		for (int64_t rows = 1; rows < 20000; rows = rows * 3 / 2 + 1)
			for (int d = 0; d < 2; d++) {
				enum stave_dtype dt = d ? STAVE_BF16 : STAVE_F32;
				struct stave_shape s = gpt2(2, 64, 2, vocabularies[v], 32);
				int64_t chunk = stave_cost_logit_rows(&s, rows, dt), bytes = chunk * stave_shape_vpad(&s) * (d ? 2 : 4);
				assert_true(chunk >= 1 && chunk <= rows);
				assert_true(chunk == rows || chunk % 64 == 0);
				assert_true(bytes <= (int64_t)96 << 20 || chunk <= 64);
				int64_t chunks = (rows + chunk - 1) / chunk, tail = rows - (chunks - 1) * chunk;
				assert_true(chunk - tail < 64 * chunks); /* rounding up to 64 is all that separates them */
			}
	struct stave_shape s = gpt2(12, 768, 12, 50257, 1024);
	assert_int_equal(stave_cost_logit_rows(&s, 1024, STAVE_BF16), 512); /* 50304 columns of 2 bytes: at most 1000 rows */
}

/* Every byte-limited operation of a list has a class that says what it moves, and AdamW moves its textbook 28 bytes (7 floats), and 2
 * more where a bf16 copy is kept. */
static void every_operation_has_a_cost(void **state)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_shape shapes[] = {gpt2(2, 64, 2, 100, 32), llama(2, 64, 4, 2, 16, 96, 100)};
	shapes[1].qk_norm = shapes[1].qkv_bias = true;
	for (int f = 0; f < 2; f++)
		for (int d = 0; d < 2; d++) {
			int n = stave_cost_train_ops(&shapes[f], 2, 32, 1, d ? STAVE_BF16 : STAVE_F32, STAVE_RECOMPUTE_LAYER, ops);
			assert_in_range(n, 1, STAVE_OPS_MAX);
			for (int i = 0; i < n; i++) {
				assert_non_null(ops[i].name);
				assert_non_null(ops[i].rate);
				assert_true(ops[i].bytes > 0 && ops[i].count > 0);
				assert_true(ops[i].kind > STAVE_OP_ATTENTION || ops[i].flops > 0);
				if (!strcmp(ops[i].rate, "adamw"))
					assert_true(ops[i].bytes == (d ? 30.0 : 28.0) * (double)stave_shape_params(&shapes[f]));
			}
		}
	assert_true(stave_cost_value_bytes("norm", STAVE_FORWARD, STAVE_BF16) == 6);
	assert_true(stave_cost_value_bytes("no such class", STAVE_FORWARD, STAVE_BF16) == 0);
}

static void shapes_out_of_bounds_are_refused(void **state)
{
	struct stave_err err;
	struct stave_shape good = llama(2, 64, 4, 2, 16, 96, 100), s;
	assert_int_equal(stave_shape_check(&good, &err), 0);
#define REFUSED(change, word)                                                 \
	do {                                                                  \
		s = good;                                                     \
		s.change;                                                     \
		memset(&err, 0, sizeof err);                                  \
		assert_int_equal(stave_shape_check(&s, &err), STAVE_ECONFIG); \
		assert_non_null(strstr(err.msg, word));                       \
	} while (0)
	REFUSED(L = 0, "layers");
	REFUSED(L = 100000, "100000");
	REFUSED(C = -1, "channels");
	REFUSED(V = 1 << 30, "vocabulary");
	REFUSED(I = 0, "feed-forward");
	REFUSED(K = 3, "evenly");
	REFUSED(K = 0, "key/value");
	REFUSED(D = 15, "even head width");
	REFUSED(T_max = 0, "context");
	REFUSED(window = -1, "window");
	REFUSED(norm_eps = (float)NAN, "epsilon");
	REFUSED(rope_theta = 0, "rope_theta");
	REFUSED(rope_theta = INFINITY, "rope_theta");
	REFUSED(rope_factor = -2, "factor");
	REFUSED(rope_factor = 8, "low_freq_factor");
	REFUSED(family = (enum stave_family)99, "family");
	REFUSED(act = (enum stave_act)99, "activation");
#undef REFUSED
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_parameter_counts),   cmocka_unit_test(published_counts_of_families_that_run),
		cmocka_unit_test(a_token_reads_each_weight_once), cmocka_unit_test(windows_follow_their_pattern),
		cmocka_unit_test(flops_per_token_follow_palm),
		cmocka_unit_test(products_are_six_n),           cmocka_unit_test(attention_counts_what_is_seen),
		cmocka_unit_test(steps_compose),                cmocka_unit_test(every_operation_has_a_cost),
		cmocka_unit_test(shapes_out_of_bounds_are_refused), cmocka_unit_test(logits_are_held_in_even_chunks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
