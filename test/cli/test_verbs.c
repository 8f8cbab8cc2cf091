/* The program as its user meets it: exit statuses, help, misspelt flags, JSON on stdout and talk on stderr; and the numbers
 * of eval and bench against closed forms. The program is the one built beside this test. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/safetensors.h"
#include "cost/machine.h"

static char program[STAVE_PATH], dir[] = "/tmp/stave-verbs-XXXXXX";
static char out[1 << 20], talk[1 << 16];

static void read_into(const char *name, char *to, size_t size)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(to, 1, size - 1, f) : 0;
	to[n] = 0;
	if (f)
		fclose(f);
}

/* Runs `stave ARGS` in the test's directory; its streams are in `out` and `talk` after. */
__attribute__((format(printf, 1, 2))) static int stave(const char *args, ...)
{
	char line[4096], command[6000];
	va_list ap;
	va_start(ap, args);
	vsnprintf(line, sizeof line, args, ap);
	va_end(ap);
	snprintf(command, sizeof command, "cd %s && STAVE_MACHINE=%s/machine.json %s %s > out 2> talk < /dev/null", dir, dir, program, line);
	int status = system(command);
	read_into("out", out, sizeof out);
	read_into("talk", talk, sizeof talk);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void succeeds(int status)
{
	if (status)
		fail_msg("exit status %d: %s", status, talk);
}

static json_t *document(void)
{
	json_error_t e;
	json_t *j = json_loads(out, JSON_REJECT_DUPLICATES, &e);
	if (!j)
		fail_msg("stdout is not one JSON document: %s\n%s", e.text, out);
	return j;
}

static double number(const json_t *j, const char *key)
{
	const json_t *v = json_object_get(j, key);
	if (!json_is_number(v))
		fail_msg("no number \"%s\" in %s", key, out);
	return json_number_value(v);
}

/* ---- manners ---- */

static const char *const verbs[] = {"eval", "doctor", "bench", "bench machine", "bench train"};
enum { VERBS = sizeof verbs / sizeof *verbs };

/* Help goes to stdout, and two examples come before any option. */
static void help_leads_with_two_examples(void **state)
{
	for (int i = 0; i < VERBS; i++) {
		succeeds(stave("%s -h", verbs[i]));
		char example[64], *at = out;
		snprintf(example, sizeof example, "\n  stave %s", verbs[i]);
		for (int n = 0; n < 2; n++) {
			at = strstr(at, example);
			assert_non_null(at);
			at++;
		}
		char *option = strstr(out, "\n  --");
		assert_true(!option || at < option);
		assert_string_equal(talk, "");
	}
}

static void a_misspelt_flag_is_named_with_its_neighbour(void **state)
{
	static const struct {
		const char *args, *word;
	} cases[] = {
		{"eval m --dtaa x", "'data'"}, {"eval m --batch", "batch"}, {"eval m --data x --batch 0", "batch"}, {"eval m --data x --dtype f16", "bf16"},
		{"bench machine --otu x", "'out'"}, {"bench train --bacth 4", "'batch'"}, {"bench train --dtype f16", "bf16"}, {"bench trian", "train"},
		{"bench", "bench machine"}, {"doctor --jsno", "'json'"}, {"doctor now", "'now'"}, {"bench train --model gpt2-124", "gpt2-124m"}, {"evla", "eval"},
		{"bench train --model nano --seq 100000", "100000"}, {"eval", "MODEL"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int status = stave("%s", cases[i].args);
		if (status != 2 || !strstr(talk, cases[i].word) || *out)
			fail_msg("stave %s: exit %d, stderr \"%s\" should name %s, stdout \"%.80s\" should be empty", cases[i].args, status, talk, cases[i].word, out);
	}
}

static void doctor_finds_this_machine_usable(void **state)
{
	succeeds(stave("doctor"));
	assert_non_null(strstr(out, "stave can work here"));
	succeeds(stave("doctor --json"));
	json_t *j = document(), *checks = json_object_get(j, "checks");
	assert_true(json_is_true(json_object_get(j, "usable")));
	assert_true(json_array_size(checks) >= 8);
	size_t i;
	json_t *c;
	json_array_foreach(checks, i, c)
	{
		assert_true(json_is_string(json_object_get(c, "name")) && json_is_string(json_object_get(c, "found")));
		const char *status = json_string_value(json_object_get(c, "status"));
		assert_true(status && (!strcmp(status, "ok") || !strcmp(status, "warn")));
	}
	json_decref(j);
}

/* ---- eval against closed forms ---- */

/* A GPT-2 whose layers add nothing and whose last norm outputs its bias: every position predicts softmax(head · bias),
 * here the `logits` given, whatever came before. Dimension v of the bias holds token v's logit; head rows are unit vectors. */
static void write_unigram_model(const char *name, int V, int C, const float *logits)
{
	enum { L = 1, T = 16 };
	struct stave_err err;
	char path[STAVE_PATH], config[512];
	static const struct {
		const char *name;
		int a, b; /* multiples of C; b 0: a vector */
	} layer[] = {{"ln_1.weight", 1, 0}, {"ln_1.bias", 1, 0}, {"attn.c_attn.weight", 1, 3}, {"attn.c_attn.bias", 3, 0}, {"attn.c_proj.weight", 1, 1},
	             {"attn.c_proj.bias", 1, 0}, {"ln_2.weight", 1, 0}, {"ln_2.bias", 1, 0}, {"mlp.c_fc.weight", 1, 4}, {"mlp.c_fc.bias", 4, 0},
	             {"mlp.c_proj.weight", 4, 1}, {"mlp.c_proj.bias", 1, 0}};
	enum { LAYER = sizeof layer / sizeof *layer, ALL = LAYER + 4 };
	struct stave_st_tensor t[ALL] = {0};
	char names[LAYER][64];
	t[0] = (struct stave_st_tensor){.name = "transformer.wte.weight", .n_dims = 2, .shape = {V, C}};
	t[1] = (struct stave_st_tensor){.name = "transformer.wpe.weight", .n_dims = 2, .shape = {T, C}};
	for (int i = 0; i < LAYER; i++) {
		snprintf(names[i], sizeof names[i], "transformer.h.0.%s", layer[i].name);
		t[2 + i] = (struct stave_st_tensor){.name = names[i], .n_dims = layer[i].b ? 2 : 1, .shape = {layer[i].a * C, layer[i].b * C}};
	}
	t[ALL - 2] = (struct stave_st_tensor){.name = "transformer.ln_f.weight", .n_dims = 1, .shape = {C}};
	t[ALL - 1] = (struct stave_st_tensor){.name = "transformer.ln_f.bias", .n_dims = 1, .shape = {C}};
	snprintf(path, sizeof path, "%s/%s", dir, name);
	assert_int_equal(stave_mkdirs(path, &err), 0);
	snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, name);
	struct stave_st_writer w;
	assert_int_equal(stave_st_create(&w, path, t, ALL, NULL, 0, &err), 0);
	for (int i = 0; i < ALL; i++) {
		int64_t n = stave_st_elements(&t[i]);
		float *x = calloc((size_t)n, sizeof *x);
		for (int v = 0; i == 0 && v < V; v++)
			x[(size_t)v * (size_t)C + (size_t)(v % C)] = 1;
		for (int v = 0; i == ALL - 1 && v < C && v < V; v++)
			x[v] = logits ? logits[v] : 0;
		assert_int_equal(stave_st_write(&w, x, (size_t)n * sizeof *x, &err), 0);
		free(x);
	}
	assert_int_equal(stave_st_commit(&w, &err), 0);
	int len = snprintf(config, sizeof config,
	                   "{\"model_type\":\"gpt2\",\"n_embd\":%d,\"n_layer\":%d,\"n_head\":1,\"n_positions\":%d,\"vocab_size\":%d,"
	                   "\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\",\"tie_word_embeddings\":true}", C, L, T, V);
	snprintf(path, sizeof path, "%s/%s/config.json", dir, name);
	assert_int_equal(stave_file_write(path, config, (size_t)len, &err), 0);
}

/* Every token but the first is predicted once, however windows fall: the loss is the mean of -log p over them. */
static void eval_of_a_unigram_model_is_its_cross_entropy(void **state)
{
	enum { V = 11, C = 16, N = 1003 };
	struct stave_err err;
	uint16_t ids[N];
	float logits[C] = {0};
	double log_sum = 0, nats = 0;
	char path[STAVE_PATH];
	for (int v = 0; v < V; v++) {
		logits[v] = 0.5f * (float)v - 2;
		log_sum += exp(logits[v]);
	}
	log_sum = log(log_sum);
	for (int i = 0; i < N; i++) {
		ids[i] = (uint16_t)(stave_random64(5, (uint64_t)i) % V);
		if (i)
			nats += log_sum - logits[ids[i]];
	}
	write_unigram_model("unigram", V, C, logits);
	snprintf(path, sizeof path, "%s/tokens", dir);
	assert_int_equal(stave_mkdirs(path, &err), 0);
	snprintf(path, sizeof path, "%s/tokens/train.bin", dir);
	assert_int_equal(stave_file_write(path, ids, 200, &err), 0);
	snprintf(path, sizeof path, "%s/tokens/val.bin", dir);
	assert_int_equal(stave_file_write(path, ids, sizeof ids, &err), 0);
	static const char *const ways[] = {"", "--seq 7 --batch 3", "--seq 16 --batch 100", "--seq 1"};
	for (int i = 0; i < 4; i++) {
		succeeds(stave("eval unigram --data tokens --json %s", ways[i]));
		json_t *j = document();
		assert_int_equal((int)number(j, "tokens"), N - 1);
		assert_true(fabs(number(j, "loss") - nats / (N - 1)) < 1e-5);
		assert_true(fabs(number(j, "perplexity") / exp(nats / (N - 1)) - 1) < 1e-5);
		assert_true(json_is_null(json_object_get(j, "bits_per_byte"))); /* a .bin does not say how many bytes it was */
		json_decref(j);
	}
	succeeds(stave("eval unigram --data tokens"));
	assert_non_null(strstr(out, "perplexity "));
}

/* A uniform model over the 257 byte tokens pays log2 257 bits for each token of the text. */
static void eval_counts_bits_per_byte(void **state)
{
	struct stave_err err;
	char path[STAVE_PATH];
	struct stave_buf text = {0};
	for (int i = 0; i < 3000; i++)
		stave_buf_printf(&text, "line %d of a text nobody has to like\n", i * 7919 % 3001);
	snprintf(path, sizeof path, "%s/text.txt", dir);
	assert_int_equal(stave_file_write(path, text.p, text.len, &err), 0);
	stave_buf_free(&text);
	succeeds(stave("prepare text.txt --out bytes --tokenizer byte"));
	write_unigram_model("uniform", 257, 32, NULL);
	succeeds(stave("eval uniform --data bytes --json"));
	json_t *j = document();
	double tokens = number(j, "tokens") + 1, bytes = number(j, "bytes");
	assert_true(fabs(number(j, "loss") - log(257)) < 1e-5);
	assert_true(bytes > 5000 && tokens >= bytes && tokens <= bytes + 1); /* one document at most ends in the split */
	assert_true(fabs(number(j, "bits_per_byte") - log2(257) * tokens / bytes) < 1e-4);
	json_decref(j);
}

static void eval_refuses_what_does_not_match(void **state)
{
	write_unigram_model("tiny", 5, 16, NULL);
	assert_int_equal(stave("eval tiny --data tokens"), 2); /* tokens up to 10 for a model of 5 */
	assert_non_null(strstr(talk, "another model"));
	assert_int_not_equal(stave("eval nowhere --data tokens"), 0);
	assert_non_null(strstr(talk, "nowhere"));
	assert_int_not_equal(stave("eval unigram --data nowhere"), 0);
	assert_non_null(strstr(talk, "nowhere"));
	assert_int_not_equal(stave("eval unigram --data tokens --split test"), 0);
	assert_int_equal(stave("eval unigram --data tokens --seq 17"), 2); /* positions end at 16 */
}

/* ---- bench ---- */

static void bench_writes_a_profile_and_a_forecast(void **state)
{
	struct stave_err err;
	static struct stave_machine m;
	char path[STAVE_PATH];
	succeeds(stave("bench machine --no-rates --json"));
	json_decref(document());
	snprintf(path, sizeof path, "%s/machine.json", dir);
	assert_int_equal(stave_machine_load(&m, path, &err), 0);
	assert_true(m.peak_f32 > 1e9 && m.read_bytes_s > 1e8 && m.copy_bytes_s > 1e8 && m.touch_s_per_page > 0 && m.call_s > 0);

	succeeds(stave("bench train --model nano --vocab 65 --batch 2 --seq 32 --dtype f32 --steps 2 --json"));
	json_t *j = document();
	/* embeddings 65 C, 4 layers of 12 C² + 13 C, last norm 2 C; the 256 positions are not multiplied; C = 128 */
	double C = 128, n = 65 * C + 4 * (12 * C * C + 13 * C) + 2 * C;
	assert_true(number(j, "parameters") == n + 256 * C);
	double flops = 6 * n + 12 * 4 * C * 32;
	assert_true(fabs(number(j, "mfu") / (flops * number(j, "tokens_per_s") / number(j, "peak_flop_s")) - 1) < 1e-6);
	assert_true(number(j, "tokens_per_s") >= number(j, "tokens_per_s_median"));
	assert_true(number(j, "predicted_step_s") > 0);
	assert_true(fabs(number(j, "loss_first") - log(65)) < 0.3); /* a fresh model knows nothing */
	assert_true(number(j, "loss_last") < number(j, "loss_first"));
	json_decref(j);
}

static void bench_says_when_a_profile_is_spoilt(void **state)
{
	struct stave_err err;
	char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/bad.json", dir);
	assert_int_equal(stave_file_write(path, "{\"stave_machine\": 1", 19, &err), 0);
	assert_int_equal(stave("bench train --model nano --profile bad.json"), 4);
	assert_non_null(strstr(talk, "bad.json"));
	assert_int_equal(stave("bench train --model nano --profile none.json"), 1);
	assert_int_equal(stave("bench machine --no-rates --disk /nonexistent --out x.json"), 1);
	assert_non_null(strstr(talk, "/nonexistent"));
}

static int setup(void **state)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof program - 32);
	if (n <= 0 || !mkdtemp(dir))
		return -1;
	program[n] = 0;
	for (int i = 0; i < 3; i++) { /* BUILD/test/cli/test_verbs -> BUILD/stave */
		char *slash = strrchr(program, '/');
		if (!slash)
			return -1;
		*slash = 0;
	}
	strcat(program, "/stave");
	return access(program, X_OK);
}

static int teardown(void **state)
{
	return stave_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(help_leads_with_two_examples),
		cmocka_unit_test(a_misspelt_flag_is_named_with_its_neighbour),
		cmocka_unit_test(doctor_finds_this_machine_usable),
		cmocka_unit_test(eval_of_a_unigram_model_is_its_cross_entropy),
		cmocka_unit_test(eval_counts_bits_per_byte),
		cmocka_unit_test(eval_refuses_what_does_not_match),
		cmocka_unit_test(bench_writes_a_profile_and_a_forecast),
		cmocka_unit_test(bench_says_when_a_profile_is_spoilt),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
