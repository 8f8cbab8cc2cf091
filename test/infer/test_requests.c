/* What requests may ask for, and what strangers do ask for: embeddings of decoders and encoders against the model run directly, adapters
 * by name, grammars, least lengths, and every number of a request at its limits and beyond. */
#include "infer/answers.h"

#include "base/safetensors.h"
#include "infer/direct.h"
#include "infer/grammar.h"

enum { CONTEXT = 256, C = 64, LONG = 200 };
static char *dir, *encoder_dir;
static char lora[2][STAVE_PATH];
static struct stave_engine *engine, *encoder;

/* ---- models ---- */

/* Random tensors; names and dimensions (0 ends them). */
static void write_tensors(const char *file, char (*names)[96], const int (*dims)[2], int n, uint64_t seed, float size)
{
	struct stave_err e = {0};
	struct stave_st_writer w;
	struct stave_st_tensor t[64];
	for (int i = 0; i < n; i++)
		t[i] = (struct stave_st_tensor){.name = names[i], .dtype = STAVE_F32, .n_dims = dims[i][1] ? 2 : 1, .shape = {dims[i][0], dims[i][1]}};
	tiny_must(stave_st_create(&w, file, t, n, NULL, 0, &e), &e);
	for (int i = 0; i < n; i++)
		for (int64_t j = 0; j < stave_st_elements(&t[i]); j++) {
			float v = size * (float)(stave_random_unit(seed + (uint64_t)i, (uint64_t)j) - 0.5) + (dims[i][1] ? 0 : 0.5f);
			tiny_must(stave_st_write(&w, &v, 4, &e), &e);
		}
	tiny_must(stave_st_commit(&w, &e), &e);
}

static void write_text(const char *folder, const char *name, const char *text)
{
	char file[STAVE_PATH];
	struct stave_err e = {0};
	tiny_must(stave_path(file, folder, name, &e), &e);
	tiny_must(stave_file_write(file, text, strlen(text), &e), &e);
}

static void make_adapter(char *folder, int which)
{
	char names[8][96], file[STAVE_PATH];
	int dims[8][2], n = 0;
	struct stave_err e = {0};
	snprintf(folder, STAVE_PATH, "%.900s/lora%d", dir, which);
	tiny_must(stave_mkdirs(folder, &e), &e);
	for (int layer = 0; layer < 2; layer++)
		for (int m = 0; m < 2; m++)
			for (int half = 0; half < 2; half++, n++) {
				snprintf(names[n], sizeof names[n], "base_model.model.model.layers.%d.%s.lora_%c.weight", layer, m ? "mlp.down_proj" : "self_attn.q_proj", half ? 'B' : 'A');
				dims[n][0] = half ? C : 4;
				dims[n][1] = half ? 4 : m ? 96 : C;
			}
	tiny_must(stave_path(file, folder, "adapter_model.safetensors", &e), &e);
	write_tensors(file, names, dims, n, 50 + 100 * (uint64_t)which, 2);
	write_text(folder, "adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8}");
}

/* A BERT of one layer with the tokenizer of bytes. */
static char *make_encoder(void)
{
	static const struct { const char *name; int rows, cols; } parts[] = {
		{"embeddings.word_embeddings.weight", 257, C}, {"embeddings.position_embeddings.weight", CONTEXT, C}, {"embeddings.token_type_embeddings.weight", 2, C},
		{"embeddings.LayerNorm.weight", C, 0}, {"embeddings.LayerNorm.bias", C, 0},
		{"encoder.layer.0.attention.self.query.weight", C, C}, {"encoder.layer.0.attention.self.query.bias", C, 0},
		{"encoder.layer.0.attention.self.key.weight", C, C}, {"encoder.layer.0.attention.self.key.bias", C, 0},
		{"encoder.layer.0.attention.self.value.weight", C, C}, {"encoder.layer.0.attention.self.value.bias", C, 0},
		{"encoder.layer.0.attention.output.dense.weight", C, C}, {"encoder.layer.0.attention.output.dense.bias", C, 0},
		{"encoder.layer.0.attention.output.LayerNorm.weight", C, 0}, {"encoder.layer.0.attention.output.LayerNorm.bias", C, 0},
		{"encoder.layer.0.intermediate.dense.weight", 96, C}, {"encoder.layer.0.intermediate.dense.bias", 96, 0},
		{"encoder.layer.0.output.dense.weight", C, 96}, {"encoder.layer.0.output.dense.bias", C, 0},
		{"encoder.layer.0.output.LayerNorm.weight", C, 0}, {"encoder.layer.0.output.LayerNorm.bias", C, 0}};
	enum { PARTS = sizeof parts / sizeof *parts };
	char names[PARTS][96], file[STAVE_PATH], *folder = strdup("/tmp/stave-test-XXXXXX");
	int dims[PARTS][2];
	struct stave_err e = {0};
	struct stave_tokenizer *t;
	if (!mkdtemp(folder))
		fail_msg("mkdtemp");
	for (int i = 0; i < PARTS; i++) {
		snprintf(names[i], sizeof names[i], "%s", parts[i].name);
		dims[i][0] = parts[i].rows;
		dims[i][1] = parts[i].cols;
	}
	tiny_must(stave_path(file, folder, "model.safetensors", &e), &e);
	write_tensors(file, names, dims, PARTS, 7, 1);
	write_text(folder, "config.json", "{\"model_type\": \"bert\", \"architectures\": [\"BertModel\"], \"num_hidden_layers\": 1, \"hidden_size\": 64, "
	                                  "\"num_attention_heads\": 4, \"max_position_embeddings\": 256, \"intermediate_size\": 96, \"type_vocab_size\": 2, "
	                                  "\"vocab_size\": 257, \"hidden_act\": \"gelu\", \"layer_norm_eps\": 1e-12}");
	tiny_must(stave_tokenizer_byte(&t, &e), &e);
	tiny_must(stave_tokenizer_save(t, folder, &e), &e);
	stave_tokenizer_free(t);
	return folder;
}

/* ---- embeddings ---- */

/* What an embedding must be, from all states of the text (n, C). */
static void pooled(const float *hidden, int n, enum stave_embed how, bool normalize, double *out)
{
	double norm = 0;
	for (int i = 0; i < C; i++) {
		out[i] = how == STAVE_EMBED_CLS ? hidden[i] : how == STAVE_EMBED_LAST ? hidden[(size_t)(n - 1) * C + i] : 0;
		for (int t = 0; how == STAVE_EMBED_MEAN && t < n; t++)
			out[i] += (double)hidden[(size_t)t * C + i] / n;
		norm += out[i] * out[i];
	}
	for (int i = 0; normalize && i < C; i++)
		out[i] /= sqrt(norm);
}

static void embed_all(struct stave_engine *e, const char *model, enum stave_embed automatic)
{
	enum { N = 10 };
	static struct answer a[N], alone;
	static int32_t ids[N][LONG];
	static float hidden[LONG * C];
	static const enum stave_embed how[] = {STAVE_EMBED_MEAN, STAVE_EMBED_LAST, STAVE_EMBED_CLS, STAVE_EMBED_AUTO};
	struct stave_request r[N];
	double want[C];
	for (int i = 0; i < N; i++) {
		prompt(ids[i], LONG - 21 * i, i);
		r[i] = request(e, &a[i], ids[i], LONG - 21 * i, i);
		r[i].embed = how[i % 4];
		r[i].normalize = i % 3 == 0;
	}
	run_all(r, N);
	for (int i = 0; i < N; i++) {
		direct_run(model, NULL, ids[i], LONG - 21 * i, 0, NULL, hidden);
		pooled(hidden, LONG - 21 * i, i % 4 == 3 ? automatic : how[i % 4], i % 3 == 0, want);
		assert_int_equal(a[i].end.n_embedding, C);
		assert_int_equal(a[i].n, 0);
		assert_int_equal(a[i].end.finish, STAVE_FINISH_STOP);
		for (int k = 0; k < C; k++)
			if (fabs(a[i].embedding[k] - want[k]) > 1e-5 * (1 + fabs(want[k])))
				fail_msg("text %d, value %d: %g, directly %g", i, k, a[i].embedding[k], want[k]);
	}
	r[4] = request(e, &alone, ids[4], LONG - 84, 0);
	r[4].embed = how[0];
	run_one(&r[4], &alone);
	assert_memory_equal(alone.embedding, a[4].embedding, sizeof alone.embedding); /* company changes no bit */
}

static void embeddings(void **state) { embed_all(engine, dir, STAVE_EMBED_LAST); }

static void encoders(void **state)
{
	static struct answer a;
	struct stave_err e = {0};
	uint64_t id;
	int32_t ids[3] = {1, 2, 3};
	assert_int_equal(stave_engine_info(encoder)->planned_bytes, stave_engine_info(encoder)->taken_bytes);
	embed_all(encoder, encoder_dir, STAVE_EMBED_MEAN);
	struct stave_request r = request(encoder, &a, ids, 3, 4);
	assert_int_equal(stave_engine_submit(encoder, &r, 1, &id, &e), STAVE_EUSAGE);
	assert_non_null(strstr(e.msg, "encoder"));
}

/* ---- adapters ---- */

/* Two adapters of two layers: q (64, 64) and down (64, 96) at rank 4, in floats. They are part of the plan, and what was planned is taken. */
static void planned_adapters(void **state)
{
	struct stave_engine *plain;
	struct stave_err e = {0};
	const struct stave_engine_info *with = stave_engine_info(engine);
	struct stave_engine_config c = {.model = dir, .slots = 4, .cache = "bf16", .chunk = 32};
	tiny_must(stave_engine_open(&plain, &c, &e), &e);
	size_t without = stave_engine_info(plain)->planned_bytes;
	assert_int_equal(stave_engine_info(plain)->adapters_bytes, 0);
	stave_engine_close(plain);
	assert_int_equal(with->adapters_bytes, 2 * 2 * 4 * sizeof(float) * ((C + C) + (C + 96)));
	assert_int_equal(with->planned_bytes, without + with->adapters_bytes);
	assert_int_equal(with->taken_bytes, with->planned_bytes);
	assert_int_equal(with->planned_bytes, with->weights_bytes + with->adapters_bytes + with->cache_bytes + with->workspace_bytes);
}

static void adapters(void **state)
{
	static struct answer a[4], again;
	static int32_t ids[150], truth[3][20];
	struct stave_err e = {0};
	struct stave_request r[4];
	uint64_t id;
	prompt(ids, 150, 3);
	direct_run(dir, NULL, ids, 150, 20, truth[0], NULL);
	direct_run(dir, lora[0], ids, 150, 20, truth[1], NULL);
	direct_run(dir, lora[1], ids, 150, 20, truth[2], NULL);
	assert_memory_not_equal(truth[0], truth[1], sizeof truth[0]);
	assert_memory_not_equal(truth[1], truth[2], sizeof truth[0]);
	for (int i = 0; i < 4; i++) { /* one prompt: what is cached under one adapter is nothing to another */
		r[i] = request(engine, &a[i], ids, 150, 20);
		r[i].sampling.temperature = 0;
		r[i].adapter = i % 3 == 0 ? NULL : i == 1 ? "first" : "second";
	}
	run_all(r, 4);
	for (int i = 0; i < 4; i++)
		assert_memory_equal(a[i].ids, truth[i % 3], sizeof truth[0]);
	r[1] = request(engine, &again, ids, 150, 20);
	r[1].sampling.temperature = 0;
	r[1].adapter = "first";
	run_one(&r[1], &again);
	assert_int_equal(again.end.cached_tokens, 149);
	same_answer(&a[1], &again, "an adapter's prompt found");
	r[0] = request(engine, &a[0], ids, 150, 20);
	r[0].adapter = "third";
	assert_int_equal(stave_engine_submit(engine, &r[0], 1, &id, &e), STAVE_EUSAGE);
	assert_non_null(strstr(e.msg, "third"));
}

/* ---- grammars ---- */

static void grammars(void **state)
{
	enum { N = 8 };
	static const char pattern[] = "(yes|no), [0-9]{3,5} (times|bananas)!";
	static struct answer a[N], plain[N];
	static int32_t ids[20];
	struct stave_err e = {0};
	struct stave_vocab *v;
	struct stave_grammar *g;
	struct stave_request r[N];
	tiny_must(stave_vocab_open(&v, stave_engine_info(engine)->tokenizer, &e), &e);
	tiny_must(stave_grammar_open(&g, STAVE_GRAMMAR_REGEX, pattern, strlen(pattern), v, &e), &e);
	prompt(ids, 20, 1);
	struct stave_engine *speculating;
	struct stave_engine_config c = {.model = dir, .slots = 3, .cache = "bf16", .speculate = 4, .draft = dir};
	tiny_must(stave_engine_open(&speculating, &c, &e), &e);
	for (int round = 0; round < 2; round++) {
		struct answer *to = round ? a : plain;
		for (int i = 0; i < N; i++) {
			r[i] = request(round ? speculating : engine, &to[i], ids, 20, i == 7 ? 9 : 100);
			r[i].sampling.seed = (uint64_t)i;
			r[i].sampling.temperature = i == 6 ? 0 : 2;
			r[i].grammar = g;
			r[i].ignore_eos = i % 2;
		}
		run_all(r, N);
	}
	for (int i = 0; i < N; i++) {
		char what[8], unit[12], *text = plain[i].text.p;
		int number, end = 0;
		same_answer(&plain[i], &a[i], "a grammar and a draft");
		stave_buf_put(&plain[i].text, "", 1);
		text = plain[i].text.p;
		if (i == 7) {
			assert_int_equal(plain[i].end.finish, STAVE_FINISH_LENGTH);
			continue;
		}
		assert_int_equal(plain[i].end.finish, STAVE_FINISH_STOP);
		if (sscanf(text, "%7[a-z], %d %11[a-z]!%n", what, &number, unit, &end) != 3 || text[end] || (strcmp(what, "yes") && strcmp(what, "no")) || number > 99999)
			fail_msg("'%s'", text);
	}
	assert_true(stave_engine_stats(speculating).accepted > 0);
	stave_engine_close(speculating);
	stave_grammar_close(g);
	stave_vocab_close(v);
}

/* ---- least lengths ---- */

static void min_tokens(void **state)
{
	static struct answer a, b;
	int32_t ids[10], eos = stave_tokenizer_eos(stave_engine_info(engine)->tokenizer);
	prompt(ids, 10, 2);
	struct stave_request r = request(engine, &a, ids, 10, 60);
	r.ignore_eos = false;
	r.sampling.bias_ids = &eos; /* would end at once */
	r.sampling.bias = (float[]){100};
	r.sampling.n_bias = 1;
	run_one(&r, &a);
	assert_int_equal(a.end.completion_tokens, 1);
	r = request(engine, &b, ids, 10, 60);
	r.ignore_eos = false;
	r.sampling.bias_ids = &eos;
	r.sampling.bias = (float[]){100};
	r.sampling.n_bias = 1;
	r.min_tokens = 17;
	run_one(&r, &b);
	assert_int_equal(b.end.completion_tokens, 18);
	assert_int_equal(b.n, 17);
	assert_int_equal(b.end.finish, STAVE_FINISH_STOP);
}

/* ---- strangers ---- */

static const int numbers[] = {0, 1, -1, 2, INT32_MAX, INT32_MIN, 255, 256, 257, 258, 1 << 20};
static const float reals[] = {0, 1, -1, 0.5f, -0.0f, 1e30f, -1e30f, 1e-30f};

/* Each number of a request at each limit: refused with a word, or answered and ended. */
static void hostile_numbers(void **state)
{
	static struct answer a;
	int32_t ids[5] = {1, 2, 3, 4, 5}, big[1] = {7};
	struct stave_err e;
	int refused = 0, answered = 0;
	float nan_inf[] = {NAN, INFINITY, -INFINITY}, one = 1;
	for (int field = 0; field < 18; field++)
		for (int k = 0; k < 11; k++) {
			int n = numbers[k];
			float x = k < 8 ? reals[k] : nan_inf[k - 8];
			struct stave_request r = request(engine, &a, ids, 5, 3);
			switch (field) {
			case 0: r.n_ids = n > 5 && n < 256 ? 5 : n == 256 ? 0 : n; break;
			case 1: r.max_tokens = n > 300 ? n : n > 3 ? 3 : n < 0 ? 4 : n; break;
			case 2: r.min_tokens = n; break;
			case 3: r.logprobs = n; break;
			case 4: r.n_stop = n <= 0 ? n : 0; break;
			case 5: r.n_stop_ids = n <= 1 ? n : 0; r.stop_ids = big; break;
			case 6: big[0] = n; r.stop_ids = big; r.n_stop_ids = 1; break;
			case 7: r.sampling.top_k = n; break;
			case 8: r.sampling.penalty_last_n = n; r.sampling.presence_penalty = 1; break;
			case 9: r.sampling.n_bias = n <= 1 ? n : 0; r.sampling.bias_ids = big; r.sampling.bias = &x; break;
			case 10: big[0] = n; r.sampling.n_bias = 1; r.sampling.bias_ids = big; r.sampling.bias = &one; break;
			case 11: r.embed = (enum stave_embed)n; break;
			case 12: r.sampling.temperature = x; break;
			case 13: r.sampling.top_p = x; break;
			case 14: r.sampling.typical_p = x; break;
			case 15: r.sampling.repetition_penalty = x; break;
			case 16: r.sampling.frequency_penalty = x; break;
			case 17: r.sampling.min_p = x; break;
			}
			uint64_t id;
			if (r.n_ids > 5 && r.n_ids <= CONTEXT)
				continue; /* would be the test's own lie */
			e = (struct stave_err){0};
			int rc = stave_engine_submit(engine, &r, 1, &id, &e);
			if (rc) {
				assert_int_equal(rc, STAVE_EUSAGE);
				assert_true(e.msg[0]);
				refused++;
			} else {
				await(&a);
				answered++;
			}
			big[0] = 7;
		}
	assert_true(refused > 50 && answered > 50);
}

static void hostile_ids(void **state)
{
	static struct answer a;
	static const int32_t ids[] = {-1, INT32_MIN, INT32_MAX, 257, 256};
	uint64_t id;
	for (int i = 0; i < 5; i++) {
		int32_t text[3] = {1, ids[i], 2};
		struct stave_err e = {0};
		struct stave_request r = request(engine, &a, text, 3, 2);
		r.sampling.repetition_penalty = 2;
		int rc = stave_engine_submit(engine, &r, 1, &id, &e);
		assert_int_equal(rc, i < 4 ? STAVE_EUSAGE : 0); /* 256 is the end of text: the last there is */
		if (!rc)
			await(&a);
	}
	stave_engine_cancel(engine, 0);
	stave_engine_cancel(engine, UINT64_MAX);
}

static void hostile_config(void **state)
{
	struct stave_engine *e;
	struct stave_err err;
	for (int field = 0; field < 8; field++)
		for (int k = 0; k < 11; k++) {
			int n = numbers[k];
			struct stave_engine_config c = {.model = dir, .slots = 1, .queue = 1};
			if (n >= 0 && n < 300)
				continue;
			switch (field) {
			case 0: c.slots = n; break;
			case 1: c.context = n; break;
			case 2: c.chunk = n; break;
			case 3: c.queue = n; break;
			case 4: c.cache_tokens = n < 0 ? n : (int64_t)n << 30; break;
			case 5: c.speculate = n; break;
			case 6: c.ngram = n < 0 ? n : -n; break;
			case 7: c.n_adapters = n; break;
			}
			err = (struct stave_err){0};
			if (field == 3 && n == 1 << 20)
				continue; /* allowed */
			int rc = stave_engine_open(&e, &c, &err);
			if (rc != STAVE_EUSAGE)
				fail_msg("field %d at %d: %d %s", field, n, rc, err.msg);
			assert_true(err.msg[0]);
		}
}

int main(void)
{
	struct stave_err e = {0};
	setenv("STAVE_LOG", "error", 0);
	dir = tiny_model(31, CONTEXT);
	encoder_dir = make_encoder();
	make_adapter(lora[0], 0);
	make_adapter(lora[1], 1);
	struct stave_adapter_path paths[] = {{"first", lora[0]}, {"second", lora[1]}};
	struct stave_engine_config c = {.model = dir, .slots = 4, .cache = "bf16", .chunk = 32, .adapters = paths, .n_adapters = 2}, enc = {.model = encoder_dir, .slots = 4, .cache = "bf16"};
	tiny_must(stave_engine_open(&engine, &c, &e), &e);
	tiny_must(stave_engine_open(&encoder, &enc, &e), &e);
	const struct CMUnitTest tests[] = {cmocka_unit_test(embeddings), cmocka_unit_test(encoders), cmocka_unit_test(planned_adapters), cmocka_unit_test(adapters), cmocka_unit_test(grammars),
	                                   cmocka_unit_test(min_tokens), cmocka_unit_test(hostile_numbers), cmocka_unit_test(hostile_ids), cmocka_unit_test(hostile_config)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	stave_engine_close(engine);
	stave_engine_close(encoder);
	tiny_remove(dir);
	tiny_remove(encoder_dir);
	return failed;
}
