/* Mixes against the types that llama.cpp gives the same models (its llama_model_quantize, 2026, on random models of these
 * shapes), and whole GGUF files through stave_requantize: what must change, what must not, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/sys.h"
#include "kernel/quant.h"
#include "model/convert.h"

static char dir[] = "/tmp/stave-requantize-XXXXXX", in[64], out[64];
static uint64_t drawn;
static float weight(void)
{
	double a = stave_random_unit(5, drawn++), b = stave_random_unit(5, drawn++);
	return (float)(.04 * (a + b - 1));
}

/* ---- mixes ---- */

/* A type as a letter: k K S for Q4_K Q5_K Q6_K, 4 5 6 8 for Q4_0 Q5_0 Q5_1 Q8_0. */
static char letter(enum stave_qtype t)
{
	switch (t) {
	case STAVE_Q_Q4_K: return 'k';
	case STAVE_Q_Q5_K: return 'K';
	case STAVE_Q_Q6_K: return 'S';
	case STAVE_Q_Q4_0: return '4';
	case STAVE_Q_Q5_0: return '5';
	case STAVE_Q_Q5_1: return '6';
	case STAVE_Q_Q8_0: return '8';
	case STAVE_Q_BF16: return 'b';
	case STAVE_Q_F16: return 'h';
	default: return '?';
	}
}

/* Small shapes with a row of 256 or of 320; (H D) is 256 or 320 rows of q, v has half of them (grouped) or all. */
static const struct golden {
	enum stave_mix mix;
	int layers, experts, cols, q_rows;
	enum stave_role role;
	int rows;
	const char *types; /* one letter a layer; one alone: all layers, or outside them */
} golden[] = {
	{STAVE_MIX_Q4_K_M, 17, 0, 256, 256, STAVE_ROLE_V, 256, "SSkkSkkSkkSkkSSSS"},
	{STAVE_MIX_Q4_K_M, 17, 0, 256, 256, STAVE_ROLE_DOWN, 256, "SSkkSkkSkkSkkSSSS"},
	{STAVE_MIX_Q4_K_M, 17, 0, 256, 256, STAVE_ROLE_Q, 256, "k"},
	{STAVE_MIX_Q4_K_M, 17, 0, 256, 256, STAVE_ROLE_OUT, 256, "k"},
	{STAVE_MIX_Q4_K_M, 17, 0, 256, 256, STAVE_ROLE_EMBED, 512, "k"},
	{STAVE_MIX_Q4_K_M, 17, 0, 256, 256, STAVE_ROLE_HEAD, 512, "S"},
	{STAVE_MIX_Q4_K_M, 17, 0, 256, 256, STAVE_ROLE_Q, 768, "SSkkSkkSkkSkkSSSS"}, /* phi3's fused q, k, v */
	{STAVE_MIX_Q4_K_M, 80, 0, 256, 256, STAVE_ROLE_V, 128, "SSSSSSSSSSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSKKSSSSSSSSSSS"},
	{STAVE_MIX_Q4_K_M, 80, 0, 256, 256, STAVE_ROLE_V, 256, "SSSSSSSSSSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSSSSSSSSSSS"},
	{STAVE_MIX_Q4_K_M, 80, 0, 256, 256, STAVE_ROLE_DOWN, 256, "SSSSSSSSSSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSkkSSSSSSSSSSS"},
	{STAVE_MIX_Q4_K_M, 8, 8, 256, 256, STAVE_ROLE_K, 128, "8"},
	{STAVE_MIX_Q4_K_M, 8, 8, 256, 256, STAVE_ROLE_V, 128, "8"},
	{STAVE_MIX_Q4_K_M, 8, 8, 256, 256, STAVE_ROLE_OUT, 256, "K"},
	{STAVE_MIX_Q4_K_M, 8, 8, 256, 256, STAVE_ROLE_EXPERT_DOWN, 256, "SkkSkkSS"},
	{STAVE_MIX_Q4_K_M, 8, 8, 256, 256, STAVE_ROLE_EXPERT_GATE, 512, "k"},
	{STAVE_MIX_Q4_K_M, 8, 4, 256, 256, STAVE_ROLE_OUT, 256, "k"},
	{STAVE_MIX_Q4_K_M, 5, 0, 320, 320, STAVE_ROLE_V, 64, "55858"},
	{STAVE_MIX_Q4_K_M, 5, 0, 320, 320, STAVE_ROLE_GATE, 800, "5"},
	{STAVE_MIX_Q4_K_M, 5, 0, 320, 320, STAVE_ROLE_HEAD, 512, "8"},
	{STAVE_MIX_Q5_K_M, 17, 0, 256, 256, STAVE_ROLE_V, 256, "SSKKSKKSKKSKKSSSS"},
	{STAVE_MIX_Q5_K_M, 17, 0, 256, 256, STAVE_ROLE_Q, 768, "SSKKSKKSKKSKKSSSS"},
	{STAVE_MIX_Q5_K_M, 17, 0, 256, 256, STAVE_ROLE_UP, 512, "K"},
	{STAVE_MIX_Q5_K_M, 8, 8, 256, 256, STAVE_ROLE_OUT, 256, "K"},
	{STAVE_MIX_Q5_K_M, 5, 0, 320, 320, STAVE_ROLE_DOWN, 320, "66868"},
	{STAVE_MIX_Q4_0, 17, 0, 256, 256, STAVE_ROLE_V, 256, "4"},
	{STAVE_MIX_Q4_0, 17, 0, 256, 256, STAVE_ROLE_HEAD, 512, "S"},
	{STAVE_MIX_Q4_0, 5, 0, 320, 320, STAVE_ROLE_DOWN, 320, "4"},
	{STAVE_MIX_Q4_0, 5, 0, 320, 320, STAVE_ROLE_HEAD, 512, "8"},
	{STAVE_MIX_Q4_0, 8, 8, 256, 256, STAVE_ROLE_V, 128, "8"},
	{STAVE_MIX_Q6_K, 17, 0, 256, 256, STAVE_ROLE_DOWN, 256, "S"},
	{STAVE_MIX_Q6_K, 5, 0, 320, 320, STAVE_ROLE_DOWN, 320, "8"},
	{STAVE_MIX_Q8_0, 17, 0, 256, 256, STAVE_ROLE_V, 256, "8"},
	{STAVE_MIX_Q8_0, 17, 0, 256, 256, STAVE_ROLE_HEAD, 512, "8"},
	{STAVE_MIX_BF16, 17, 0, 256, 256, STAVE_ROLE_HEAD, 512, "b"},
	{STAVE_MIX_F16, 5, 8, 320, 320, STAVE_ROLE_V, 64, "h"},
};

static void mixes_choose_as_llama_cpp_does(void **state)
{
	for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
		const struct golden *g = &golden[i];
		struct stave_mix_model m = {g->mix, g->experts, g->q_rows, false};
		for (int layer = 0; layer < g->layers; layer++) {
			char want = g->types[1] ? g->types[layer] : g->types[0], got = letter(stave_mix_choose(&m, g->role, layer, g->layers, g->rows, g->cols));
			if (got != want)
				fail_msg("row %zu, %s, role %d, layer %d of %d: %c, want %c", i, stave_mix_name(g->mix), g->role, layer, g->layers, got, want);
		}
	}
}

static void what_is_no_matrix_stays(void **state)
{
	static const enum stave_role stay[] = {STAVE_ROLE_POSITIONS, STAVE_ROLE_TOKEN_TYPES, STAVE_ROLE_EMBED_NORM, STAVE_ROLE_NORM_F, STAVE_ROLE_NORM1,
	                                       STAVE_ROLE_QNORM, STAVE_ROLE_KNORM, STAVE_ROLE_NORM2_POST, STAVE_ROLE_ROUTER};
	for (int mix = 0; mix < STAVE_MIX_COUNT; mix++) {
		struct stave_mix_model m = {(enum stave_mix)mix, 0, 256, true};
		for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
			assert_int_equal(stave_mix_choose(&m, stay[i], 0, 4, 256, 256), STAVE_QTYPE_COUNT);
		/* a tied embedding is the head; a row that nothing divides is F16 */
		assert_int_equal(stave_mix_choose(&m, STAVE_ROLE_EMBED, -1, 4, 512, 256), stave_mix_choose(&m, STAVE_ROLE_HEAD, -1, 4, 512, 256));
		if (mix != STAVE_MIX_BF16)
			assert_int_equal(stave_mix_choose(&m, STAVE_ROLE_Q, 0, 4, 256, 100), STAVE_Q_F16);
		assert_int_equal(stave_mix_of_name(stave_mix_name((enum stave_mix)mix)), mix);
	}
	assert_int_equal(stave_mix_of_name("q4_k_m"), STAVE_MIX_Q4_K_M);
	assert_int_equal(stave_mix_of_name("Q4_K"), STAVE_MIX_COUNT);
	assert_int_equal(stave_mix_file_type(STAVE_MIX_Q4_K_M), 15);
	assert_int_equal(stave_mix_file_type(STAVE_MIX_BF16), 32);
}

/* ---- files ---- */

enum { TENSORS = 9, C = 256, V = 300 };
static const struct {
	const char *name;
	enum stave_qtype type;
	int n_dims, rows, more; /* of C columns each; more: the third dimension */
} model[TENSORS] = {
	{"token_embd.weight", STAVE_Q_F32, 2, V, 1},          {"blk.0.attn_norm.weight", STAVE_Q_F32, 1, 1, 1}, {"blk.0.attn_q.weight", STAVE_Q_F32, 2, 256, 1},
	{"blk.0.attn_v.weight", STAVE_Q_BF16, 2, 128, 1},     {"blk.0.attn_v.bias", STAVE_Q_F32, 1, 1, 1},      {"blk.0.ffn_gate_inp.weight", STAVE_Q_F32, 2, 4, 1},
	{"blk.0.ffn_up_exps.weight", STAVE_Q_F16, 3, 64, 4},  {"blk.1.attn_q.weight", STAVE_Q_Q8_0, 2, 256, 1}, {"blk.1.of_the_future.weight", STAVE_Q_F32, 2, 8, 1},
};
static float values[V * C];

static int succeeds(int rc, const struct stave_err *err)
{
	if (rc)
		fail_msg("%s", err->msg);
	return rc;
}

/* A file of random weights; `damaged` puts a NaN into tensor 2. */
static void write_model(bool damaged)
{
	struct stave_err err = {0};
	struct stave_gguf_writer *w;
	struct stave_gguf_tensor t[TENSORS];
	static char blocks[V * C * 4];
	static const char *const tokens[] = {"a", "", "\xe2\x96\x81"};
	static const size_t lengths[] = {1, 0, 3};
	succeeds(stave_gguf_create(&w, in, &err), &err);
	stave_gguf_put_str(w, "general.architecture", "llama", 5);
	stave_gguf_put_u32(w, "general.file_type", 0);
	stave_gguf_put_u32(w, "general.alignment", 64);
	stave_gguf_put_u32(w, "llama.block_count", 2);
	stave_gguf_put_u32(w, "llama.embedding_length", C);
	stave_gguf_put_u32(w, "llama.attention.head_count", 4);
	stave_gguf_put_u32(w, "llama.expert_count", 4);
	stave_gguf_put_f32(w, "llama.rope.freq_base", 5e5f);
	stave_gguf_put_strs(w, "tokenizer.ggml.tokens", tokens, lengths, 3);
	for (int i = 0; i < TENSORS; i++)
		t[i] = (struct stave_gguf_tensor){.name = model[i].name, .type = model[i].type, .n_dims = model[i].n_dims, .ne = {C, model[i].rows, model[i].more, 1}};
	succeeds(stave_gguf_tensors(w, t, TENSORS, &err), &err);
	for (int i = 0; i < TENSORS; i++) {
		int n = C * model[i].rows * model[i].more;
		for (int k = 0; k < n; k++)
			values[k] = weight();
		stave_quantize(model[i].type, blocks, values, n);
		if (damaged && i == 2)
			memset(blocks + 4 * (5 * C + 17), 0xff, 4);
		succeeds(stave_gguf_write(w, blocks, stave_qtype_row_bytes(model[i].type, n), &err), &err);
	}
	succeeds(stave_gguf_commit(w, &err), &err);
}

static int requantize(enum stave_mix mix, struct stave_convert_result *r, struct stave_err *err)
{
	struct stave_gguf *g;
	struct stave_mix_model m;
	struct stave_convert c = {.choose = stave_mix_choose, .ctx = &m, .file_type = stave_mix_file_type(mix)};
	succeeds(stave_gguf_open(&g, in, err), err);
	succeeds(stave_mix_model_gguf(&m, mix, g, err), err);
	stave_gguf_close(g);
	assert_int_equal(m.q_rows, C);
	assert_int_equal(m.experts, 4);
	assert_true(m.tied);
	return stave_requantize(in, out, &c, r, err);
}

static void a_file_changes_where_it_should_and_only_there(void **state)
{
	static const enum stave_qtype want[TENSORS] = {STAVE_Q_Q6_K, STAVE_Q_F32, STAVE_Q_Q4_K, STAVE_Q_Q4_K, STAVE_Q_F32, STAVE_Q_F32, STAVE_Q_Q4_K, STAVE_Q_Q4_K, STAVE_Q_F32};
	struct stave_err err = {0};
	struct stave_convert_result r;
	struct stave_gguf *a, *b;
	static float x[V * C], y[V * C];
	write_model(false);
	succeeds(requantize(STAVE_MIX_Q4_K_M, &r, &err), &err);
	succeeds(stave_gguf_open(&a, in, &err), &err);
	succeeds(stave_gguf_open(&b, out, &err), &err);
	assert_int_equal(b->n, TENSORS);
	size_t bytes_in = 0, bytes_out = 0;
	for (int i = 0; i < TENSORS; i++) {
		assert_string_equal(b->t[i].name, a->t[i].name);
		assert_memory_equal(b->t[i].ne, a->t[i].ne, sizeof a->t[i].ne);
		if (b->t[i].type != want[i])
			fail_msg("%s is %s", b->t[i].name, stave_qtype_info(b->t[i].type).name);
		assert_int_equal((uintptr_t)b->t[i].data % 64, 0);
		bytes_in += a->t[i].bytes;
		bytes_out += b->t[i].bytes;
		if (a->t[i].type == b->t[i].type) {
			assert_memory_equal(a->t[i].data, b->t[i].data, a->t[i].bytes);
			continue;
		}
		int n = C * model[i].rows * model[i].more;
		double error2 = 0, value2 = 0;
		stave_dequantize(a->t[i].type, x, a->t[i].data, n);
		stave_dequantize(b->t[i].type, y, b->t[i].data, n);
		for (int k = 0; k < n; k++) {
			error2 += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
			value2 += (double)x[k] * x[k];
		}
		assert_true(error2 > 0 && error2 < .08 * .08 * value2);
		if (i == 0) { /* alone in its role: the receipt's figures are these */
			assert_true(fabs(r.part[STAVE_ROLE_EMBED].error2 - error2) < 1e-9 * error2 && fabs(r.part[STAVE_ROLE_EMBED].value2 - value2) < 1e-9 * value2);
			assert_int_equal(r.part[STAVE_ROLE_EMBED].bytes, b->t[i].bytes);
			assert_int_equal(r.part[STAVE_ROLE_EMBED].types, 1u << STAVE_Q_Q6_K);
		}
	}
	assert_int_equal(r.bytes_in, bytes_in);
	assert_int_equal(r.bytes_out, bytes_out);
	assert_int_equal(r.from, STAVE_Q_F32);
	int64_t v = 0;
	assert_int_equal(stave_gguf_int(b, "general.file_type", &v, &err), 1);
	assert_int_equal(v, 15);
	assert_int_equal(stave_gguf_int(b, "general.quantization_version", &v, &err), 1);
	assert_int_equal(v, 2);
	assert_int_equal(stave_gguf_int(b, "llama.block_count", &v, &err), 1);
	assert_int_equal(v, 2);
	size_t n;
	assert_string_equal(stave_gguf_array_str(b, "tokenizer.ggml.tokens", 2, &n), "\xe2\x96\x81");
	assert_int_equal(stave_gguf_keys(b), stave_gguf_keys(a) + 1);
	stave_gguf_close(a);
	stave_gguf_close(b);
}

/* The same bytes however many threads share the rows. */
static void threads_do_not_change_the_file(void **state)
{
	struct stave_err err = {0};
	struct stave_convert_result one, three;
	struct stave_map a, b;
	char first[80];
	int threads = stave_threads();
	snprintf(first, sizeof first, "%s.one", out);
	write_model(false);
	stave_threads_set(1);
	succeeds(requantize(STAVE_MIX_Q5_K_M, &one, &err), &err);
	assert_int_equal(rename(out, first), 0);
	stave_threads_set(3);
	succeeds(requantize(STAVE_MIX_Q5_K_M, &three, &err), &err);
	stave_threads_set(threads);
	succeeds(stave_map_open(&a, first, &err), &err);
	succeeds(stave_map_open(&b, out, &err), &err);
	assert_int_equal(a.size, b.size);
	assert_memory_equal(a.p, b.p, a.size);
	assert_memory_equal(one.part, three.part, sizeof one.part);
	stave_map_close(&a);
	stave_map_close(&b);
}

static void nothing_is_left(void)
{
	char tmp[80];
	snprintf(tmp, sizeof tmp, "%s.tmp", out);
	assert_int_not_equal(access(out, F_OK), 0);
	assert_int_not_equal(access(tmp, F_OK), 0);
}

static void a_damaged_model_is_refused_by_name(void **state)
{
	struct stave_err err = {0};
	struct stave_convert_result r;
	unlink(out);
	write_model(true);
	assert_int_equal(requantize(STAVE_MIX_Q8_0, &r, &err), STAVE_ECORRUPT);
	assert_non_null(strstr(err.msg, "blk.0.attn_q.weight"));
	assert_non_null(strstr(err.msg, "row 5 "));
	nothing_is_left();
}

static void a_full_disk_leaves_nothing(void **state)
{
	struct stave_err err = {0};
	struct stave_convert_result r;
	struct rlimit before, small;
	unlink(out);
	write_model(false);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = 20000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int rc = requantize(STAVE_MIX_Q8_0, &r, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_true(rc < 0);
	assert_non_null(strstr(err.msg, "writing"));
	nothing_is_left();
}

static int set_up(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(in, sizeof in, "%s/in.gguf", dir);
	snprintf(out, sizeof out, "%s/out.gguf", dir);
	return 0;
}
static int clean(void **state) { return stave_remove_tree(dir, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mixes_choose_as_llama_cpp_does),
		cmocka_unit_test(what_is_no_matrix_stays),
		cmocka_unit_test(a_file_changes_where_it_should_and_only_there),
		cmocka_unit_test(threads_do_not_change_the_file),
		cmocka_unit_test(a_damaged_model_is_refused_by_name),
		cmocka_unit_test(a_full_disk_leaves_nothing),
	};
	return cmocka_run_group_tests_name("requantize", tests, set_up, clean);
}
