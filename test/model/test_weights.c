/* Shapes and weights: presets, config.json both ways, rotary fixtures, dtypes, shards, and what must be refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/safetensors.h"
#include "model/model.h"

static char dir[] = "/tmp/stave-weights-XXXXXX";

static void must(int rc, const struct stave_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}

static void put(const char *name, const char *text)
{
	char path[STAVE_PATH];
	struct stave_err e;
	must(stave_path(path, dir, name, &e), &e);
	must(stave_file_write(path, text, strlen(text), &e), &e);
}

/* The published sizes of these models. */
static void presets_have_their_size(void **state)
{
	struct stave_shape s;
	struct stave_layout l;
	struct stave_err e = {0};
	must(stave_preset(&s, "gpt2-124m", 50257, &e), &e);
	assert_int_equal(stave_shape_params(&s), 124439808);
	must(stave_preset(&s, "gpt2-350m", 50257, &e), &e);
	assert_int_equal(stave_shape_params(&s), 354823168);
	for (int i = 0; stave_presets[i]; i += 2) {
		must(stave_preset(&s, stave_presets[i], 1000, &e), &e);
		must(stave_layout_open(&l, &s, &e), &e);
		int64_t n = 0;
		for (int j = 0; j < l.n_params; j++) /* the layout names every parameter once */
			n += (int64_t)l.params[j].rows * l.params[j].cols;
		assert_int_equal(n, stave_shape_params(&s));
		assert_true(l.n >= n);
		stave_layout_close(&l);
		/* config.json both ways */
		struct stave_shape back;
		must(stave_shape_save(&s, dir, 3, 2, &e), &e);
		must(stave_shape_load(&back, dir, &e), &e);
		assert_true(s.L == back.L && s.C == back.C && s.H == back.H && s.K == back.K && s.D == back.D && s.I == back.I && s.V == back.V);
		assert_true(s.act == back.act && s.qkv_bias == back.qkv_bias && s.out_bias == back.out_bias && s.mlp_bias == back.mlp_bias);
		assert_true(s.qk_norm == back.qk_norm && s.tied == back.tied && s.window == back.window && s.T_max == back.T_max);
		assert_true(s.norm_eps == back.norm_eps && s.rope_theta == back.rope_theta && s.norm_bias == back.norm_bias);
	}
	assert_int_equal(stave_preset(&s, "gpt2-125m", 0, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "gpt2-124m"));
}

/* Llama-3.1's scaled frequencies (theta 5e5, D 128): the published fixtures, as angles of position 1. */
static void rope_matches_the_fixtures(void **state)
{
	struct stave_shape s = {.D = 128, .rope_theta = 5e5, .rope_factor = 8, .rope_low = 1, .rope_high = 4, .rope_original = 8192};
	float *t = malloc(sizeof *t * 2 * 64 * 2);
	static const struct {
		int i;
		double f;
	} want[] = {{28, 3.21144599e-03}, {29, 2.16657076e-03}, {30, 1.37189357e-03}, {32, 5.24846161e-04}, {34, 1.78507813e-04}, {35, 9.55621235e-05}, {63, 3.06892599e-07}};
	stave_rope_table(&s, 2, t);
	for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
		double got = asin((double)t[(64 + want[k].i) * 2 + 1]);
		if (fabs(got - want[k].f) > 2e-6 * want[k].f)
			fail_msg("frequency %d is %.9g, wanted %.9g", want[k].i, got, want[k].f);
	}
	free(t);
}

static void config_is_refused(const char *json, int code, const char *words)
{
	struct stave_shape s;
	struct stave_err e = {0};
	put("config.json", json);
	int rc = stave_shape_load(&s, dir, &e);
	if (rc != code || !strstr(e.msg, words))
		fail_msg("%s gave %d: %s", json, rc, e.msg);
}

#define LLAMA "\"model_type\":\"llama\",\"vocab_size\":9,\"num_hidden_layers\":1,\"hidden_size\":8,\"intermediate_size\":8,"
static void bad_configs_are_refused(void **state)
{
	config_is_refused("{\"model_type\":\"bert\"}", STAVE_ECONFIG, "bert");
	config_is_refused("{", STAVE_ECORRUPT, "not valid JSON");
	config_is_refused("[]", STAVE_ECONFIG, "model_type");
	config_is_refused("{" LLAMA "\"num_attention_heads\":0}", STAVE_ECONFIG, "");
	config_is_refused("{" LLAMA "\"num_attention_heads\":4,\"num_key_value_heads\":3}", STAVE_ECONFIG, "share");
	config_is_refused("{" LLAMA "\"num_attention_heads\":2,\"hidden_act\":\"relu\"}", STAVE_ECONFIG, "relu");
	config_is_refused("{" LLAMA "\"num_attention_heads\":2,\"rope_scaling\":{\"type\":\"yarn\"}}", STAVE_ECONFIG, "yarn");
	config_is_refused("{" LLAMA "\"num_attention_heads\":2,\"rms_norm_eps\":\"x\"}", STAVE_ECORRUPT, "rms_norm_eps");
	config_is_refused("{" LLAMA "\"num_attention_heads\":99999999999}", STAVE_ECORRUPT, "num_attention_heads");
	config_is_refused("{" LLAMA "\"num_attention_heads\":2,\"quantization_config\":{}}", STAVE_ECONFIG, "quantized");
	config_is_refused("{\"model_type\":\"gpt2\",\"vocab_size\":5,\"n_layer\":1,\"n_embd\":7,\"n_head\":2}", STAVE_ECONFIG, "n_embd");
	config_is_refused("{\"model_type\":\"gpt2\",\"vocab_size\":5,\"n_layer\":1,\"n_embd\":8,\"n_head\":2,\"activation_function\":\"relu\"}", STAVE_ECONFIG, "relu");
	char *deep = malloc(1 << 19);
	memset(deep, '[', (1 << 19) - 1);
	deep[(1 << 19) - 1] = 0;
	config_is_refused(deep, STAVE_ECORRUPT, "depth");
	free(deep);
}

static void sample_model(struct stave_layout *l, float **p, const char *name)
{
	struct stave_shape s;
	struct stave_err e = {0};
	must(stave_preset(&s, name, 50, &e), &e);
	s.L = 2, s.C = 32, s.H = s.family == STAVE_GPT2 ? 2 : 4, s.K = 2, s.D = s.C / s.H, s.I = 48, s.T_max = 16;
	must(stave_layout_open(l, &s, &e), &e);
	*p = malloc((size_t)l->n * 4);
	stave_weights_init(l, *p, 1);
}

static void directories_round_trip(void **state)
{
	static const char *const names[] = {"gpt2-124m", "llama-124m", "qwen2-124m", "qwen3-124m", "mistral-124m"};
	struct stave_err e = {0};
	for (int i = 0; i < 5; i++) {
		struct stave_layout l;
		float *p;
		sample_model(&l, &p, names[i]);
		float *back = malloc((size_t)l.n * 4);
		must(stave_weights_save(&l, p, dir, STAVE_F32, -1, -1, &e), &e);
		must(stave_weights_load(&l, back, dir, &e), &e);
		assert_memory_equal(p, back, (size_t)l.n * 4);
		must(stave_weights_save(&l, p, dir, STAVE_BF16, -1, -1, &e), &e);
		must(stave_weights_load(&l, back, dir, &e), &e);
		for (int64_t k = 0; k < l.n; k++)
			assert_true(fabsf(back[k] - p[k]) <= fabsf(p[k]) / 256);
		free(p);
		free(back);
		stave_layout_close(&l);
	}
}

static void load_fails(const struct stave_layout *l, const char *words)
{
	struct stave_err e = {0};
	float *p = malloc((size_t)l->n * 4);
	int rc = stave_weights_load(l, p, dir, &e);
	free(p);
	if (rc != STAVE_ECORRUPT || !strstr(e.msg, words))
		fail_msg("gave %d: %s", rc, e.msg);
}

static void write_one(const char *file, const char *tensor, enum stave_dtype t, int64_t rows, int64_t cols)
{
	char path[STAVE_PATH];
	struct stave_err e = {0};
	struct stave_st_writer w;
	struct stave_st_tensor one = {.name = tensor, .dtype = t, .n_dims = 2, .shape = {rows, cols}};
	void *zero = calloc((size_t)(rows * cols), 8);
	must(stave_path(path, dir, file, &e), &e);
	must(stave_st_create(&w, path, &one, 1, NULL, 0, &e), &e);
	must(stave_st_write(&w, zero, (size_t)(rows * cols) * stave_dtype_bytes(t), &e), &e);
	must(stave_st_commit(&w, &e), &e);
	free(zero);
}

static void wrong_weights_are_refused(void **state)
{
	struct stave_layout l;
	float *p;
	char path[STAVE_PATH];
	sample_model(&l, &p, "llama-124m");
	write_one("model.safetensors", "model.embed_tokens.weight", STAVE_F32, 50, 31);
	load_fails(&l, "config.json says 50 x 32");
	write_one("model.safetensors", "model.embed_tokens.weight", STAVE_I64, 50, 32);
	load_fails(&l, "I64");
	write_one("model.safetensors", "model.embed_tokens.weight", STAVE_F32, 50, 32);
	load_fails(&l, "missing");
	write_one("model.safetensors", "model.unheard_of.weight", STAVE_F32, 50, 32);
	load_fails(&l, "no place for");
	/* shards may not leave the directory */
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	unlink(path);
	put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../x.safetensors\"}}");
	load_fails(&l, "plain file name");
	put("model.safetensors.index.json", "{\"weight_map\":{\"a\":7}}");
	load_fails(&l, "plain file name");
	put("model.safetensors.index.json", "{}");
	load_fails(&l, "weight_map");
	free(p);
	stave_layout_close(&l);
}

static int start(void **state) { return mkdtemp(dir) ? 0 : -1; }
static int end(void **state) { return stave_remove_tree(dir, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(presets_have_their_size), cmocka_unit_test(rope_matches_the_fixtures), cmocka_unit_test(bad_configs_are_refused),
		cmocka_unit_test(directories_round_trip), cmocka_unit_test(wrong_weights_are_refused),
	};
	return cmocka_run_group_tests(tests, start, end);
}
