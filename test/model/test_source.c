/* Sources and conversion. Independent truths: llama.cpp's probabilities for GGUF files of every family, PyTorch's logits for directories,
 * names and configs of published models written out here by hand, and bytes that must come back after going to the other
 * format and home. What lies is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/safetensors.h"
#include "model/convert.h"
#include "model/plain.h"
#include "model/random_model.h"

static char dir[] = "/tmp/stave-source-XXXXXX";
static const int32_t prompt[] = {5, 6, 7, 100, 200, 17, 45, 250, 11, 90, 33, 21};
enum { PROMPT = sizeof prompt / sizeof *prompt, STEPS = 3 };

static void must(int rc, const struct stave_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}

__attribute__((format(printf, 1, 2))) static const char *at(const char *fmt, ...)
{
	static char path[8][STAVE_PATH];
	static int turn;
	char *p = path[turn++ % 8];
	int n = snprintf(p, STAVE_PATH, "%s/", dir);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(p + n, STAVE_PATH - (size_t)n, fmt, ap);
	va_end(ap);
	return p;
}

static struct stave_source *opened(const char *path)
{
	struct stave_source *s;
	struct stave_err e = {0};
	must(stave_source_open(&s, path, &e), &e);
	return s;
}

static void refused(const char *path, int code, const char *says)
{
	struct stave_source *s;
	struct stave_err e = {0};
	int rc = stave_source_open(&s, path, &e);
	if (!rc)
		stave_source_close(s);
	if (rc != code || !strstr(e.msg, says))
		fail_msg("wanted %d and '%s', got %d and '%s'", code, says, rc, rc ? e.msg : "success");
}

/* One random model per family; mistral as llama.cpp reads it, without a window; phi3 with longrope. */
static const char *model_of(enum stave_family f, enum stave_qtype type)
{
	struct stave_shape s = random_shape(f);
	struct shape_factors x = {0};
	struct stave_err e = {0};
	const char *path = at("%s.gguf", shape_model_types[f]);
	if (f == STAVE_MISTRAL)
		s.window = 0;
	if (f == STAVE_PHI3) {
		x = random_factors(s.rope_dims / 2, 64);
		s.rope_mscale = 1.2f;
	}
	must(random_gguf(path, &s, x.n ? &x : NULL, type, 1, &e), &e);
	shape_factors_free(&x);
	return path;
}

/* ---- llama.cpp ---- */

static const char *peer(void)
{
	const char *p = getenv("STAVE_LLAMACPP");
	char path[STAVE_PATH];
	if (!p)
		return NULL;
	snprintf(path, sizeof path, "%s/node_modules/node-llama-cpp", p);
	return stave_is_dir(path) ? p : NULL;
}

/* All models in one process: greedy tokens with probabilities, or an embedding; one JSON line each. */
static const char script[] =
	"import { getLlama } from 'node-llama-cpp';\n"
	"const llama = await getLlama({ gpu: false, maxThreads: 1, build: 'never', skipDownload: true, logLevel: 'error' });\n"
	"const [steps, ids, ...paths] = process.argv.slice(2);\n"
	"for (const path of paths) {\n"
	"  const model = await llama.loadModel({ modelPath: path });\n"
	"  if (path.endsWith('bert.gguf')) {\n"
	"    const c = await model.createEmbeddingContext();\n"
	"    console.log(JSON.stringify([...(await c.getEmbeddingFor(ids.split(',').map(Number))).vector]));\n"
	"  } else {\n"
	"    const seq = (await model.createContext({ contextSize: 128, batchSize: 64, threads: 1, flashAttention: false })).getSequence(), out = [];\n"
	"    for await (const { token, probabilities } of seq.evaluateWithMetadata(ids.split(',').map(Number), { probabilities: true }, { temperature: 0, yieldEogToken: true })) {\n"
	"      out.push({ id: token, top: [...probabilities].slice(0, 5) });\n"
	"      if (out.length >= +steps) break;\n"
	"    }\n"
	"    console.log(JSON.stringify(out));\n"
	"  }\n"
	"  await model.dispose();\n"
	"}\n"
	"process.exit(0);\n";

static FILE *ask_peer(const char *const *paths, int n)
{
	struct stave_buf cmd = {0};
	struct stave_err e = {0};
	must(stave_file_write(at("peer.mjs"), script, strlen(script), &e), &e);
	stave_buf_printf(&cmd, "ln -sfn '%s/node_modules' '%s' && node '%s' %d ", peer(), at("node_modules"), at("peer.mjs"), STEPS);
	for (int i = 0; i < PROMPT; i++)
		stave_buf_printf(&cmd, "%s%d", i ? "," : "", prompt[i]);
	for (int i = 0; i < n; i++)
		stave_buf_printf(&cmd, " '%s'", paths[i]);
	stave_buf_printf(&cmd, " 2>'%s'", at("peer.log"));
	FILE *f = popen(cmd.p, "r");
	stave_buf_free(&cmd);
	return f;
}

/* llama.cpp keeps its cache in F16 and computes in float: probabilities agree to about a percent. */
static void compare_step(const char *path, int step, const json_t *want, const double *logits, int V)
{
	double top = -INFINITY, sum = 0;
	for (int i = 0; i < V; i++)
		top = logits[i] > top ? logits[i] : top;
	for (int i = 0; i < V; i++)
		sum += exp(logits[i] - top);
	double before = 2;
	for (size_t k = 0; k < json_array_size(json_object_get(want, "top")); k++) {
		const json_t *pair = json_array_get(json_object_get(want, "top"), k);
		int id = (int)json_integer_value(json_array_get(pair, 0));
		double theirs = json_number_value(json_array_get(pair, 1)), ours = exp(logits[id] - top) / sum;
		if (fabs(ours - theirs) > 0.02 * theirs + 1e-4)
			fail_msg("%s: token %d after %d: %.6f, llama.cpp says %.6f", path, id, step, ours, theirs);
		assert_true(theirs <= before);
		before = theirs;
	}
}

static void compare_greedy(const char *path, const char *line)
{
	struct stave_source *s = opened(path);
	json_t *all = json_loads(line, 0, NULL);
	int32_t ids[PROMPT + STEPS];
	memcpy(ids, prompt, sizeof prompt);
	assert_int_equal(json_array_size(all), STEPS);
	for (int k = 0; k < STEPS; k++) {
		int V = stave_source_shape(s)->V;
		double *y = plain_logits(s, ids, PROMPT + k);
		compare_step(path, k, json_array_get(all, (size_t)k), y + (size_t)(PROMPT + k - 1) * (size_t)V, V);
		free(y);
		ids[PROMPT + k] = (int32_t)json_integer_value(json_object_get(json_array_get(all, (size_t)k), "id"));
	}
	json_decref(all);
	stave_source_close(s);
}

/* The mean over tokens, around which the peer puts cls and sep. llama.cpp uses GELU's tanh form where BERT was trained with the exact one:
 * the angle between the two stays tiny. */
static void compare_embedding(const char *path, const char *line)
{
	struct stave_source *s = opened(path);
	json_t *all = json_loads(line, 0, NULL);
	int C = stave_source_shape(s)->C, V = stave_source_shape(s)->V;
	enum { N = PROMPT + 2 };
	int32_t ids[N] = {V - 3};
	memcpy(ids + 1, prompt, sizeof prompt);
	ids[N - 1] = V - 2;
	double *h = plain_hidden(s, ids, N), ab = 0, aa = 0, bb = 0;
	assert_int_equal(stave_source_pooling(s), STAVE_POOL_MEAN);
	assert_int_equal(json_array_size(all), C);
	for (int i = 0; i < C; i++) {
		double mean = 0, theirs = json_number_value(json_array_get(all, (size_t)i));
		for (int t = 0; t < N; t++)
			mean += h[(size_t)t * (size_t)C + (size_t)i] / N;
		ab += mean * theirs;
		aa += mean * mean;
		bb += theirs * theirs;
	}
	if (ab / sqrt(aa * bb) < 0.99999)
		fail_msg("%s: the cosine with llama.cpp's embedding is %.7f", path, ab / sqrt(aa * bb));
	free(h);
	json_decref(all);
	stave_source_close(s);
}

static void compare_all(const char *const *paths, int n)
{
	char *line = NULL;
	size_t cap = 0;
	FILE *f = ask_peer(paths, n);
	for (int i = 0; i < n; i++) {
		if (getline(&line, &cap, f) < 0)
			fail_msg("llama.cpp did not take %s (see %s)", paths[i], at("peer.log"));
		(strstr(paths[i], "bert.gguf") ? compare_embedding : compare_greedy)(paths[i], line);
	}
	free(line);
	pclose(f);
}

static void families_match_llama_cpp(void **state)
{
	char *paths[STAVE_FAMILIES];
	if (!peer()) {
		print_message("skipped: no $STAVE_LLAMACPP with node-llama-cpp\n");
		skip();
	}
	for (int f = 0; f < STAVE_FAMILIES; f++)
		paths[f] = strdup(model_of((enum stave_family)f, STAVE_Q_F32));
	compare_all((const char *const *)paths, STAVE_FAMILIES);
	for (int f = 0; f < STAVE_FAMILIES; f++)
		free(paths[f]);
}

/* ---- PyTorch ---- */

/* Directories that stave wrote, read by PyTorch under Hugging Face's names. */
static void directories_match_torch(void **state)
{
	static const enum stave_family of[] = {STAVE_GPT2, STAVE_LLAMA, STAVE_QWEN3};
	const char *shared = getenv("STAVE_SHARED");
	char ref[STAVE_PATH], cmd[4 * STAVE_PATH];
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	snprintf(ref, sizeof ref, "%s/peers/torch_ref.py", shared ? shared : "");
	if (!shared || !stave_exists(ref) || system("/usr/bin/python3 -c 'import torch' 2>/dev/null")) {
		print_message("skipped: no $STAVE_SHARED with torch_ref.py, or no python3-torch\n");
		skip();
	}
	static const char tokens[] = "[[5,6,7,100,200,17,45,250,11,90,33,21,2]]"; /* the prompt, and a target for its last */
	must(stave_file_write(at("tokens.json"), tokens, strlen(tokens), &e), &e);
	for (int i = 0; i < 3; i++) {
		struct stave_st st;
		struct stave_source *s = opened(model_of(of[i], STAVE_Q_F32));
		must(stave_source_to_dir(s, at("t%d", i), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
		stave_source_close(s);
		snprintf(cmd, sizeof cmd, "THREADS=1 /usr/bin/python3 %s check %s %s %s >/dev/null", ref, at("t%d", i), at("tokens.json"), at("t%d.out", i));
		assert_int_equal(system(cmd), 0);
		s = opened(at("t%d", i));
		must(stave_st_open(&st, at("t%d.out", i), &e), &e);
		const char *want = stave_st_find(&st, "logits")->data;
		double *y = plain_logits(s, prompt, PROMPT);
		int n = PROMPT * stave_source_shape(s)->V;
		assert_int_equal(stave_st_elements(stave_st_find(&st, "logits")), n);
		for (int k = 0; k < n; k++) {
			float w;
			memcpy(&w, want + 4 * k, 4);
			if (fabs(y[k] - (double)w) > 2e-4)
				fail_msg("%s: logit %d is %.7f, PyTorch says %.7f", shape_model_types[of[i]], k, y[k], (double)w);
		}
		free(y);
		stave_st_close(&st);
		stave_source_close(s);
	}
}

/* ---- the other format and home ---- */

static void same_bytes(const char *a, const char *b)
{
	struct stave_map x, y;
	struct stave_err e = {0};
	must(stave_map_open(&x, a, &e), &e);
	must(stave_map_open(&y, b, &e), &e);
	if (x.size != y.size || memcmp(x.p, y.p, x.size))
		fail_msg("%s and %s differ", a, b);
	stave_map_close(&x);
	stave_map_close(&y);
}

static int put_random_tokenizer(void *ctx, struct stave_gguf_writer *w, struct stave_err *err)
{
	const struct stave_shape *s = ctx;
	random_tokenizer(w, s->V, s->encoder);
	return 0;
}

static void same_values(const struct stave_source *a, const struct stave_source *b, double tolerance)
{
	double *x = plain_hidden(a, prompt, PROMPT), *y = plain_hidden(b, prompt, PROMPT);
	for (int i = 0; i < PROMPT * stave_source_shape(a)->C; i++)
		if (fabs(x[i] - y[i]) > tolerance * (fabs(x[i]) + 1))
			fail_msg("hidden value %d is %.9f, was %.9f", i, y[i], x[i]);
	free(x);
	free(y);
}

/* GGUF -> directory -> GGUF -> directory: both directories are the same to the byte, and all compute the same. */
static void round_trip(enum stave_family f, enum stave_qtype type)
{
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	struct stave_convert c = {.file_type = -1};
	const char *name = shape_model_types[f];
	struct stave_source *first = opened(model_of(f, type));
	must(stave_source_to_dir(first, at("%s.1", name), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	struct stave_source *second = opened(at("%s.1", name));
	assert_int_equal(stave_source_main_type(second), type);
	assert_int_equal(stave_source_params(second), stave_source_params(first));
	/* gemma's w + 1 - 1 costs a bit of float, all else nothing */
	same_values(first, second, f == STAVE_GEMMA2 || f == STAVE_GEMMA3 ? 1e-5 : 1e-12);
	struct stave_shape s = *stave_source_shape(second);
	struct stave_convert_keys k = {put_random_tokenizer, &s, name};
	must(stave_source_to_gguf(second, at("%s.2.gguf", name), &c, &k, &r, &e), &e);
	struct stave_source *third = opened(at("%s.2.gguf", name));
	must(stave_source_to_dir(third, at("%s.3", name), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	same_bytes(at("%s.1/model.safetensors", name), at("%s.3/model.safetensors", name));
	same_bytes(at("%s.1/config.json", name), at("%s.3/config.json", name));
	stave_source_close(first);
	stave_source_close(second);
	stave_source_close(third);
}

static void formats_round_trip(void **state)
{
	static const enum stave_qtype types[] = {STAVE_Q_F32, STAVE_Q_BF16, STAVE_Q_F16};
	for (int f = 0; f < STAVE_FAMILIES; f++)
		round_trip((enum stave_family)f, types[f % 3]);
	round_trip(STAVE_LLAMA, STAVE_Q_BF16);
	round_trip(STAVE_GPT2, STAVE_Q_F16);
	round_trip(STAVE_BERT, STAVE_Q_F32);
}

/* What training writes, as a GGUF file and home again: the same file. */
static void trained_models_come_home(void **state)
{
	static const char *const presets[] = {"gpt2-124m", "llama-124m", "qwen3-124m"};
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	struct stave_convert c = {.file_type = -1};
	struct stave_convert_keys k = {0};
	for (int i = 0; i < 3; i++) {
		struct stave_shape s;
		struct stave_layout l;
		must(stave_preset(&s, presets[i], 50, &e), &e);
		s.L = 2, s.C = 32, s.H = 2, s.K = s.family == STAVE_GPT2 ? 2 : 1, s.D = 16, s.I = 48, s.T_max = 16;
		must(stave_layout_open(&l, &s, &e), &e);
		float *p = malloc((size_t)l.n * sizeof *p);
		stave_weights_init(&l, p, 7);
		must(stave_weights_save(&l, p, at("p%d", i), i == 1 ? STAVE_BF16 : STAVE_F32, 3, 2, &e), &e);
		struct stave_source *a = opened(at("p%d", i));
		must(stave_source_to_gguf(a, at("p%d.gguf", i), &c, &k, &r, &e), &e);
		struct stave_source *b = opened(at("p%d.gguf", i));
		must(stave_source_to_dir(b, at("q%d", i), STAVE_QTYPE_COUNT, 3, 2, &r, &e), &e);
		same_bytes(at("p%d/model.safetensors", i), at("q%d/model.safetensors", i));
		stave_source_close(a);
		stave_source_close(b);
		stave_layout_close(&l);
		free(p);
	}
}

/* Converted files in llama.cpp: names, keys and order of rows as it wants them, from directories. */
static void converted_files_match_llama_cpp(void **state)
{
	static const enum stave_family of[] = {STAVE_GPT2, STAVE_LLAMA, STAVE_GEMMA3, STAVE_PHI3, STAVE_MIXTRAL};
	char *paths[5];
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	struct stave_convert c = {.file_type = -1};
	if (!peer()) {
		print_message("skipped: no $STAVE_LLAMACPP with node-llama-cpp\n");
		skip();
	}
	for (int i = 0; i < 5; i++) {
		struct stave_source *s = opened(model_of(of[i], STAVE_Q_F32));
		must(stave_source_to_dir(s, at("via.%d", i), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
		stave_source_close(s);
		s = opened(at("via.%d", i));
		struct stave_shape shape = *stave_source_shape(s);
		struct stave_convert_keys k = {put_random_tokenizer, &shape, "x"};
		paths[i] = strdup(at("via.%d.gguf", i));
		must(stave_source_to_gguf(s, paths[i], &c, &k, &r, &e), &e);
		stave_source_close(s);
	}
	compare_all((const char *const *)paths, 5);
	for (int i = 0; i < 5; i++)
		free(paths[i]);
}

/* Llama-3.1's scaling: GGUF's list of divisors gives the four numbers back, and the same angles. */
static void llama3_scaling_survives(void **state)
{
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	struct stave_convert c = {.file_type = -1};
	struct stave_shape s = random_shape(STAVE_LLAMA);
	s.D = 64;
	s.rope_theta = 5e5;
	must(random_gguf(at("l3.gguf"), &s, NULL, STAVE_Q_F32, 3, &e), &e);
	struct stave_source *a = opened(at("l3.gguf"));
	must(stave_source_to_dir(a, at("l3"), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	stave_source_close(a);
	json_t *j = json_load_file(at("l3/config.json"), 0, NULL);
	json_object_set_new(j, "rope_scaling", json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", 8.0, "low_freq_factor", 1.0, "high_freq_factor", 4.0,
		"original_max_position_embeddings", 8192));
	assert_int_equal(json_dump_file(j, at("l3/config.json"), 0), 0);
	json_decref(j);
	a = opened(at("l3"));
	struct stave_convert_keys k = {0};
	must(stave_source_to_gguf(a, at("l3b.gguf"), &c, &k, &r, &e), &e);
	struct stave_source *b = opened(at("l3b.gguf"));
	const float *divisor = stave_source_rope_factors(b, 100);
	assert_non_null(divisor);
	assert_true(divisor[0] == 1 && divisor[31] == 8); /* the fastest stay, the slowest are divided by the factor */
	same_values(a, b, 1e-6);
	must(stave_source_to_dir(b, at("l3c"), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	struct stave_source *d = opened(at("l3c"));
	const struct stave_shape *got = stave_source_shape(d);
	assert_true(got->rope_original == 8192 && got->rope_low == 1 && fabs(got->rope_high - 4) < 1e-9 && got->rope_factor == 8 && !got->rope_linear);
	stave_source_close(a);
	stave_source_close(b);
	stave_source_close(d);
}

static void what_cannot_be_said_is_refused(void **state)
{
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	struct stave_convert c = {.file_type = -1};
	struct stave_convert_keys k = {0};
	struct stave_source *s = opened(model_of(STAVE_LLAMA, STAVE_Q_Q8_0));
	assert_int_equal(stave_source_to_dir(s, at("no"), STAVE_QTYPE_COUNT, 1, 0, &r, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "Q8_0"));
	must(stave_source_to_dir(s, at("yes"), STAVE_Q_F32, 1, 0, &r, &e), &e);
	struct stave_source *t = opened(at("yes"));
	same_values(s, t, 1e-12);
	stave_source_close(t);
	stave_source_close(s);
	s = opened(model_of(STAVE_QWEN3_MOE, STAVE_Q_F32));
	must(stave_source_to_dir(s, at("moe"), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	stave_source_close(s);
	json_t *j = json_load_file(at("moe/config.json"), 0, NULL);
	json_object_set_new(j, "norm_topk_prob", json_false());
	json_dump_file(j, at("moe/config.json"), 0);
	json_decref(j);
	s = opened(at("moe"));
	assert_int_equal(stave_source_to_gguf(s, at("moe.gguf"), &c, &k, &r, &e), STAVE_ECONFIG);
	assert_non_null(strstr(e.msg, "norm_topk_prob"));
	assert_false(stave_exists(at("moe.gguf")));
	assert_false(stave_exists(at("moe.gguf.tmp")));
	stave_source_close(s);
}

/* ---- configs of published models ---- */

static struct stave_shape shape_of(const char *json)
{
	struct stave_shape s;
	struct shape_factors f;
	struct stave_err e = {0};
	must(stave_mkdirs(at("cfg"), &e), &e);
	must(stave_file_write(at("cfg/config.json"), json, strlen(json), &e), &e);
	must(shape_from_json(&s, &f, at("cfg"), &e), &e);
	shape_factors_free(&f);
	return s;
}

static void config_refused(const char *json, const char *says)
{
	struct stave_shape s;
	struct shape_factors f;
	struct stave_err e = {0};
	must(stave_mkdirs(at("cfg"), &e), &e);
	must(stave_file_write(at("cfg/config.json"), json, strlen(json), &e), &e);
	int rc = shape_from_json(&s, &f, at("cfg"), &e);
	if (!rc)
		shape_factors_free(&f);
	if (rc != STAVE_ECONFIG || !strstr(e.msg, says))
		fail_msg("wanted '%s', got %d and '%s'", says, rc, rc ? e.msg : "success");
}

#define SMALL "\"vocab_size\":100,\"num_hidden_layers\":6,\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":128"
static void configs_of_both_versions_are_read(void **state)
{
	struct stave_shape s = shape_of("{\"model_type\":\"gemma2\"," SMALL ",\"head_dim\":256,\"query_pre_attn_scalar\":144,\"sliding_window\":32,\"attn_logit_softcapping\":50.0,"
	                                "\"final_logit_softcapping\":30.0,\"rms_norm_eps\":1e-6,\"hidden_activation\":\"gelu_pytorch_tanh\"}");
	assert_true(s.D == 256 && s.window == 32 && s.window_pattern == 2 && s.attn_softcap == 50 && s.final_softcap == 30 && s.sandwich && s.tied && s.act == STAVE_GEGLU);
	assert_true(fabsf(s.attn_scale - 1.f / 12) < 1e-7f && s.embed_scale == 8 && !s.qk_norm && s.rope_local == 0);
	/* gemma3 of transformers 4, with images around it */
	s = shape_of("{\"model_type\":\"gemma3\",\"text_config\":{" SMALL ",\"head_dim\":32,\"query_pre_attn_scalar\":32,\"sliding_window\":16,\"rope_theta\":1000000.0,"
	             "\"rope_local_base_freq\":10000.0,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"}}}");
	assert_true(s.family == STAVE_GEMMA3 && s.window == 16 && s.window_pattern == 6 && s.rope_theta == 1e6 && s.rope_local == 1e4 && s.rope_linear && s.rope_factor == 8);
	assert_true(s.qk_norm && s.attn_scale == 0 && s.attn_softcap == 0 && s.final_softcap == 0);
	/* and of transformers 5 */
	s = shape_of("{\"model_type\":\"gemma3_text\"," SMALL ",\"head_dim\":32,\"query_pre_attn_scalar\":32,\"sliding_window\":16,\"layer_types\":[\"sliding_attention\",\"sliding_attention\","
	             "\"full_attention\",\"sliding_attention\",\"sliding_attention\",\"full_attention\"],\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":4.0,"
	             "\"rope_theta\":2000000.0},\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":20000.0}}}");
	assert_true(s.window_pattern == 3 && s.rope_theta == 2e6 && s.rope_local == 2e4 && s.rope_linear && s.rope_factor == 4);
	s = shape_of("{\"model_type\":\"llama\"," SMALL ",\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"
	             "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64},\"dtype\":\"bfloat16\"}");
	assert_true(s.rope_theta == 5e5 && s.rope_factor == 32 && s.rope_original == 64 && !s.rope_linear);
	s = shape_of("{\"model_type\":\"phi3\"," SMALL ",\"partial_rotary_factor\":0.75,\"original_max_position_embeddings\":32,\"sliding_window\":48,\"rope_scaling\":{\"type\":\"longrope\","
	             "\"short_factor\":[1,1,1,1,1,1],\"long_factor\":[1,1.5,2,2.5,3,4]}}");
	assert_true(s.rope_dims == 12 && s.window == 48 && s.rope_original == 32);
	assert_true(fabs((double)s.rope_mscale - sqrt(1 + log(128. / 32) / log(32))) < 1e-6);
	s = shape_of("{\"model_type\":\"mixtral\"," SMALL ",\"num_local_experts\":8,\"num_experts_per_tok\":2,\"sliding_window\":null}");
	assert_true(s.experts == 8 && s.experts_used == 2 && s.experts_norm && s.I == 96 && !s.window);
	s = shape_of("{\"model_type\":\"qwen3_moe\"," SMALL ",\"head_dim\":32,\"num_experts\":16,\"num_experts_per_tok\":4,\"moe_intermediate_size\":24,\"norm_topk_prob\":true,"
	             "\"mlp_only_layers\":[],\"decoder_sparse_step\":1}");
	assert_true(s.experts == 16 && s.experts_used == 4 && s.experts_norm && s.I == 24 && s.qk_norm && s.D == 32);
	s = shape_of("{\"model_type\":\"bert\"," SMALL ",\"type_vocab_size\":2,\"layer_norm_eps\":1e-12,\"hidden_act\":\"gelu\"}");
	assert_true(s.encoder && s.token_types == 2 && s.act == STAVE_GELU_EXACT && s.layernorm && s.norm_eps == 1e-12f && s.H == s.K);
}

static void unsupported_configs_are_refused_by_name(void **state)
{
	config_refused("{\"model_type\":\"mamba\"}", "mamba");
	config_refused("{\"model_type\":\"llama\"," SMALL ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", "yarn");
	config_refused("{\"model_type\":\"phi3\"," SMALL ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]}}", "short_factor");
	config_refused("{\"model_type\":\"phi3\"," SMALL ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1,1,1,1,0],\"long_factor\":[1,1,1,1,1,1,1,1]}}", "short_factor");
	config_refused("{\"model_type\":\"phi3\"," SMALL ",\"partial_rotary_factor\":0}", "partial_rotary_factor");
	config_refused("{\"model_type\":\"qwen3_moe\"," SMALL ",\"mlp_only_layers\":[0]}", "mlp_only_layers");
	config_refused("{\"model_type\":\"mixtral\"," SMALL ",\"num_local_experts\":4,\"num_experts_per_tok\":5}", "experts used");
	config_refused("{\"model_type\":\"mixtral\"," SMALL ",\"num_local_experts\":99999}", "experts");
	config_refused("{\"model_type\":\"bert\"," SMALL ",\"position_embedding_type\":\"relative_key\"}", "relative_key");
	config_refused("{\"model_type\":\"gemma2\"," SMALL ",\"hidden_activation\":\"relu\"}", "relu");
	config_refused("{\"model_type\":\"gemma2\"," SMALL ",\"query_pre_attn_scalar\":0}", "query_pre_attn_scalar");
	config_refused("{\"model_type\":\"gemma2\"," SMALL ",\"layer_types\":[\"full_attention\"]}", "layer_types");
	config_refused("{\"model_type\":\"gemma2\"," SMALL ",\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\",\"full_attention\"]}",
	               "regular");
	config_refused("{\"model_type\":\"gemma2\"," SMALL ",\"layer_types\":[\"linear_attention\",\"a\",\"b\",\"c\",\"d\",\"e\"]}", "linear_attention");
	config_refused("{\"model_type\":\"qwen2\"," SMALL ",\"use_sliding_window\":true,\"sliding_window\":64}", "sliding windows");
	struct stave_shape s;
	struct stave_err e = {0};
	static const char *const run_only[] = {"gemma2", "gemma3", "gemma3_text", "phi3", "mixtral", "qwen3_moe", "bert"};
	for (size_t i = 0; i < sizeof run_only / sizeof *run_only; i++) { /* training keeps refusing them, and says so */
		char text[400];
		snprintf(text, sizeof text, "{\"model_type\":\"%s\"," SMALL "}", run_only[i]);
		must(stave_file_write(at("cfg/config.json"), text, strlen(text), &e), &e);
		assert_int_equal(stave_shape_load(&s, at("cfg"), &e), STAVE_ECONFIG);
		assert_non_null(strstr(e.msg, "can be run but not trained"));
	}
}

/* ---- files that do not fit their config ---- */

/* A copy of a model with one key changed or left out, one tensor renamed, or one more. */
struct twist {
	const char *key;     /* an integer key to set */
	uint32_t value;
	const char *without; /* a key to leave out */
	const char *rename, *to;
	const char *extra;   /* a tensor (4) F32 to add */
	const int32_t *list; /* instead of value: an array (n_list) under `key` */
	int n_list;
};

static const char *twisted(const char *from, const struct twist *t)
{
	struct stave_gguf *g;
	struct stave_gguf_writer *w;
	struct stave_err e = {0};
	const char *path = at("twisted.gguf");
	must(stave_gguf_open(&g, from, &e), &e);
	must(stave_gguf_create(&w, path, &e), &e);
	for (int i = 0; i < stave_gguf_keys(g); i++) {
		enum stave_gguf_type type;
		const char *key = stave_gguf_key(g, i, &type);
		if ((!t->key || strcmp(key, t->key)) && (!t->without || strcmp(key, t->without)))
			stave_gguf_put_copy(w, g, key);
	}
	if (t->key && t->list)
		stave_gguf_put_i32s(w, t->key, t->list, t->n_list);
	else if (t->key)
		stave_gguf_put_u32(w, t->key, t->value);
	struct stave_gguf_tensor *list = calloc((size_t)g->n + 1, sizeof *list);
	for (int i = 0; i < g->n; i++) {
		list[i] = g->t[i];
		if (t->rename && !strcmp(g->t[i].name, t->rename))
			list[i].name = t->to;
	}
	list[g->n] = (struct stave_gguf_tensor){.name = t->extra, .type = STAVE_Q_F32, .n_dims = 1, .ne = {4, 1, 1, 1}};
	must(stave_gguf_tensors(w, list, g->n + !!t->extra, &e), &e);
	for (int i = 0; i < g->n; i++)
		must(stave_gguf_write(w, g->t[i].data, g->t[i].bytes, &e), &e);
	if (t->extra)
		must(stave_gguf_write(w, (const float[4]){0}, 16, &e), &e);
	must(stave_gguf_commit(w, &e), &e);
	free(list);
	stave_gguf_close(g);
	return path;
}

static void lying_gguf_files_are_refused(void **state)
{
	static const int32_t two[] = {2, 2}, mixed[] = {2, 4, 2}, same[] = {2, 2, 2};
	static const struct {
		struct twist t;
		int code;
		const char *says;
	} bad[] = {
		{{.without = "general.architecture"}, STAVE_ECORRUPT, "general.architecture"},
		{{.without = "llama.block_count"}, STAVE_ECORRUPT, "llama.block_count is missing"},
		{{.without = "llama.attention.layer_norm_rms_epsilon"}, STAVE_ECORRUPT, "epsilon is missing"},
		{{.key = "llama.block_count", .value = 0}, STAVE_ECONFIG, "layers is 0"},
		{{.key = "llama.block_count", .value = 4}, STAVE_ECORRUPT, "blk.3"},
		{{.key = "llama.block_count", .value = 2}, STAVE_ECONFIG, "no place for tensor blk.2"},
		{{.key = "llama.block_count", .value = UINT32_MAX}, STAVE_ECORRUPT, "block_count"},
		{{.key = "llama.attention.head_count", .value = 0}, STAVE_ECORRUPT, "head_count is 0"},
		{{.key = "llama.attention.head_count", .value = 3}, STAVE_ECONFIG, "share"},
		{{.key = "llama.attention.head_count", .value = 8}, STAVE_ECORRUPT, "attn_q.weight is"},
		{{.key = "llama.attention.head_count_kv", .value = 0}, STAVE_ECONFIG, "key/value heads"},
		{{.key = "llama.attention.head_count_kv", .list = two, .n_list = 2}, STAVE_ECORRUPT, "2 entries for 3 layers"},
		{{.key = "llama.attention.head_count_kv", .list = two, .n_list = 0}, STAVE_ECORRUPT, "0 entries"},
		{{.key = "llama.attention.head_count_kv", .list = mixed, .n_list = 3}, STAVE_ECONFIG, "differs between layers"},
		{{.key = "llama.attention.value_length", .value = 8}, STAVE_ECONFIG, "heads of 16 for keys and 8"},
		{{.key = "llama.embedding_length", .value = 32}, STAVE_ECORRUPT, "token_embd.weight is 64"},
		{{.key = "llama.feed_forward_length", .value = 64}, STAVE_ECORRUPT, "ffn_gate"},
		{{.key = "llama.rope.dimension_count", .value = 8}, STAVE_ECONFIG, "dimension_count"},
		{{.key = "llama.expert_count", .value = 4}, STAVE_ECORRUPT, "expert_used_count"},
		{{.key = "llama.expert_shared_count", .value = 1}, STAVE_ECONFIG, "expert_shared_count"},
		{{.key = "llama.logit_scale", .value = 3}, STAVE_ECONFIG, "logit_scale"},
		{{.rename = "blk.1.ffn_norm.weight", .to = "blk.1.ffn_norm.weigh"}, STAVE_ECORRUPT, "blk.1.ffn_norm.weight is missing"},
		{{.rename = "token_embd.weight", .to = "x"}, STAVE_ECORRUPT, "token_embd.weight is missing"},
		{{.extra = "blk.0.attn_sinks.weight"}, STAVE_ECONFIG, "no place for tensor blk.0.attn_sinks"},
		{{.extra = "output.bias"}, STAVE_ECONFIG, "output.bias"},
		{{.extra = "rope_freqs.weight"}, STAVE_ECORRUPT, "rope_freqs.weight has 4"},
		{{.extra = "blk.0.attn_q.bias"}, STAVE_ECORRUPT, "attn_q.bias is 4"},
	};
	const char *from = strdup(model_of(STAVE_LLAMA, STAVE_Q_F32));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		refused(twisted(from, &bad[i].t), bad[i].code, bad[i].says);
	struct stave_source *s = opened(twisted(from, &(struct twist){.key = "llama.attention.head_count_kv", .list = same, .n_list = 3}));
	assert_int_equal(stave_source_shape(s)->K, 2);
	stave_source_close(s);
	free((char *)(uintptr_t)from);
}

static void lying_directories_are_refused(void **state)
{
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	struct stave_source *s = opened(model_of(STAVE_QWEN3, STAVE_Q_F32));
	must(stave_source_to_dir(s, at("d"), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	stave_source_close(s);
	refused(at("nowhere"), STAVE_EIO, "does not exist");
	refused(at("d/config.json"), STAVE_ECORRUPT, "neither");
	json_t *j = json_load_file(at("d/config.json"), 0, NULL);
	static const struct {
		const char *key;
		int value;
		const char *says;
	} bad[] = {{"num_hidden_layers", 4, "model.layers.3"}, {"num_hidden_layers", 2, "no place for tensor model.layers.2"}, {"vocab_size", 299, "embed_tokens"}, {"hidden_size", 32, "embed_tokens"}};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		json_t *copy = json_deep_copy(j);
		json_object_set_new(copy, bad[i].key, json_integer(bad[i].value));
		json_dump_file(copy, at("d/config.json"), 0);
		json_decref(copy);
		struct stave_source *t;
		int rc = stave_source_open(&t, at("d"), &e);
		assert_true(rc == STAVE_ECORRUPT || rc == STAVE_ECONFIG);
		assert_non_null(strstr(e.msg, bad[i].says));
	}
	json_dump_file(j, at("d/config.json"), 0);
	json_decref(j);
	/* shards: one file under the index's name, then names that leave the directory */
	assert_int_equal(rename(at("d/model.safetensors"), at("d/one.safetensors")), 0);
	static const char good[] = "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}", *const hostile[] = {"../one.safetensors", "/etc/passwd", "..", ".", ""};
	must(stave_file_write(at("d/model.safetensors.index.json"), good, strlen(good), &e), &e);
	s = opened(at("d"));
	stave_source_close(s);
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		char text[200];
		snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", hostile[i]);
		must(stave_file_write(at("d/model.safetensors.index.json"), text, strlen(text), &e), &e);
		refused(at("d"), STAVE_ECORRUPT, "plain file name");
	}
}

/* ---- rows ---- */

/* Against the file's own bytes: interleaved q of GGUF's llama, columns of GPT-2's c_attn, gemma's gains, experts. */
static void rows_are_where_they_should_be(void **state)
{
	struct stave_err e = {0};
	struct stave_convert_result r = {0};
	struct stave_weight w;
	float tmp[512], v[64];
	struct stave_source *s = opened(model_of(STAVE_LLAMA, STAVE_Q_F32));
	const struct stave_gguf *g = stave_source_gguf(s);
	const float *q = stave_gguf_find(g, "blk.1.attn_q.weight")->data;
	assert_int_equal(stave_source_weight(s, STAVE_ROLE_Q, 1, 0, &w), 1);
	assert_ptr_equal(stave_weight_row(&w, 16, tmp), q + 16 * 64);         /* head 1, first of the first half */
	assert_ptr_equal(stave_weight_row(&w, 17, tmp), q + (16 + 2) * 64);   /* its second is stored third */
	assert_ptr_equal(stave_weight_row(&w, 16 + 8, tmp), q + (16 + 1) * 64); /* the second half begins at the second row */
	assert_int_equal(stave_source_weight(s, STAVE_ROLE_POSITIONS, 0, 0, &w), 0);
	assert_int_equal(stave_source_weight(s, STAVE_ROLE_ROUTER, 0, 0, &w), 0);
	stave_source_close(s);
	s = opened(model_of(STAVE_MIXTRAL, STAVE_Q_F32));
	const float *up = stave_gguf_find(stave_source_gguf(s), "blk.2.ffn_up_exps.weight")->data;
	assert_int_equal(stave_source_weight(s, STAVE_ROLE_EXPERT_UP, 2, 5, &w), 1);
	assert_ptr_equal(stave_weight_row(&w, 3, tmp), up + (5 * 64 + 3) * 64);
	stave_source_close(s);
	s = opened(model_of(STAVE_GEMMA2, STAVE_Q_F32));
	must(stave_source_to_dir(s, at("g"), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	const float *gain = stave_gguf_find(stave_source_gguf(s), "blk.0.post_ffw_norm.weight")->data;
	assert_int_equal(stave_source_vector(s, STAVE_ROLE_NORM2_POST, false, 0, v, 64), 1);
	assert_memory_equal(v, gain, sizeof v);
	struct stave_st st;
	must(stave_st_open(&st, at("g/model.safetensors"), &e), &e);
	memcpy(v, stave_st_find(&st, "model.layers.0.post_feedforward_layernorm.weight")->data, sizeof v);
	for (int i = 0; i < 64; i++)
		assert_true(v[i] == gain[i] - 1);
	stave_st_close(&st);
	stave_source_close(s);
	s = opened(model_of(STAVE_GPT2, STAVE_Q_F32));
	must(stave_source_to_dir(s, at("c"), STAVE_QTYPE_COUNT, 1, 0, &r, &e), &e);
	must(stave_st_open(&st, at("c/model.safetensors"), &e), &e);
	const struct stave_st_tensor *t = stave_st_find(&st, "transformer.h.1.attn.c_attn.weight");
	assert_true(t->shape[0] == 64 && t->shape[1] == 192);
	stave_source_close(s);
	s = opened(at("c"));
	assert_int_equal(stave_source_weight(s, STAVE_ROLE_V, 1, 0, &w), 1);
	const float *row = stave_weight_row(&w, 7, tmp);
	for (int i = 0; i < 64; i++)
		assert_memory_equal(&row[i], (const char *)t->data + 4 * (i * 192 + 128 + 7), 4);
	stave_st_close(&st);
	stave_source_close(s);
}

static void fingerprints_differ(void **state)
{
	struct stave_err e = {0};
	struct stave_shape shape = random_shape(STAVE_LLAMA);
	uint64_t h[3];
	for (int i = 0; i < 3; i++) {
		must(random_gguf(at("h.gguf"), &shape, NULL, STAVE_Q_F32, i == 2 ? 9 : 1, &e), &e);
		struct stave_source *s = opened(at("h.gguf"));
		h[i] = stave_source_hash(s);
		if (!i) {
			assert_int_equal(stave_source_params(s), stave_shape_params(&shape));
			assert_int_equal(stave_source_bytes(s), 4 * stave_source_params(s));
		}
		stave_source_close(s);
	}
	assert_true(h[0] == h[1] && h[0] != h[2]);
}

static int setup(void **state) { return mkdtemp(dir) ? 0 : -1; }
static int teardown(void **state) { return stave_remove_tree(dir, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(families_match_llama_cpp), cmocka_unit_test(directories_match_torch), cmocka_unit_test(formats_round_trip), cmocka_unit_test(trained_models_come_home),
		cmocka_unit_test(converted_files_match_llama_cpp), cmocka_unit_test(llama3_scaling_survives), cmocka_unit_test(what_cannot_be_said_is_refused),
		cmocka_unit_test(configs_of_both_versions_are_read), cmocka_unit_test(unsupported_configs_are_refused_by_name),
		cmocka_unit_test(lying_gguf_files_are_refused), cmocka_unit_test(lying_directories_are_refused), cmocka_unit_test(rows_are_where_they_should_be),
		cmocka_unit_test(fingerprints_differ),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
