/* Ids against llama.cpp's, for every `pre` name and every kind of tokenizer that GGUF has: small models with vocabularies made here,
 * texts of many scripts and of trouble. Needs $STAVE_LLAMACPP, a folder with node-llama-cpp, and $STAVE_SHARED for text; skipped without.
 *
 * Where llama.cpp only comes near the model's own pattern (no case of letters outside ASCII, no combining marks, no normal form), the
 * texts keep to what both express. A text of nothing but a space gets no prefix from its Unigram, and gets one from SentencePiece. */
#include "gguf_fixture.h"

#define TEXTS 13
#define SAMPLE 6000

enum { ASCII = 1, LATIN = 2, CJK = 4, MARKS = 8, EMOJI = 16, CAPS = 32, BLANK = 64, KINDS = 128 };

/* what is in each text: a job names what its tokenizer shares with llama.cpp */
static struct {
	int kind;
	const char *text;
} texts[TEXTS] = {
	{ASCII, "Hello world! It's 3.14 or 1234567 -- isn't it?\n\n\n  We'll see.\t\tTabs, and   spaces   \n \n x=y+1;"},
	{ASCII, "\n\n\nfor (int i = 0; i < 10; i++) {\n\tprintf(\"%d\\n\", i);\n}\r\n\r\n// 'tis a test: a@b.c #tag $5 100% ~/x_y\n"},
	{ASCII, "    leading, trailing   "},
	{ASCII, "a"},
	{BLANK, " "},
	{ASCII, "don't you've she's we'd I'm they'll they're 'quoted' ''' '"},
	{CAPS, "It'S HELLO WORLD camelCase HTTPServer XMLHttp2Go ABCdef I'LL"},
	{LATIN, "\xc3\xbc" "ber caf\xc3\xa9 na\xc3\xafve \xce\xb1\xce\xb2\xce\xb3 \xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xd0\xbc\xd0\xb8\xd1\x80 \xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d \xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7\xd8\x8c"},
	{CJK, "\xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c\xe4\xb8\x96\xe7\x95\x8c\xe3\x80\x82\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf 2024\xe5\xb9\xb4 \xe3\x82\xab\xe3\x82\xbf \xe4\xb8\xad""a\xe6\x96\x87"},
	{MARKS, "\xe0\xa4\xb9\xe0\xa4\xbf\xe0\xa4\xa8\xe0\xa5\x8d\xe0\xa4\xa6\xe0\xa5\x80 \xe0\xb8\xaa\xe0\xb8\xa7\xe0\xb8\xb1\xe0\xb8\xaa x\xcc\x81y"},
	{EMOJI, "\xf0\x9f\x98\x80\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd ok \xe2\x86\x92 \xe2\x82\xac" "5 \xc2\xb2\xc2\xbd \xe2\x85\xa7 \xe2\x80\x9cquoted\xe2\x80\x9d \xe2\x80\x94 \xe3\x80\x80wide\xc2\xa0space"},
	{EMOJI, "\x01\x02 control \x7f del\xe2\x80\x8bzero\xef\xbb\xbf"},
	{CAPS, NULL}, /* of Shakespeare, see sample() */
};

#define ALL (KINDS - 1)
static const struct {
	const char *pre;
	int kinds;
} pres[] = {
	{"llama-bpe", ALL}, {"llama3", ALL}, {"smaug-bpe", ALL}, {"dbrx", ALL}, {"glm4", ALL}, {"chatglm-bpe", ALL}, {"gpt-2", ALL}, {"phi-2", ALL},
	{"mpt", ALL}, {"olmo", ALL}, {"qwen2", ALL}, {"deepseek-r1-qwen", ALL}, {"stablelm2", ALL}, {"qwen35", ALL}, {"starcoder", ALL}, {"refact", ALL},
	{"smollm", ALL}, {"command-r", ALL}, {"tekken", ASCII | CAPS | CJK}, {"gpt-4o", ASCII | CAPS | CJK}, {"llama4", ASCII | CAPS | CJK}, {"kimi-k2", ASCII | CJK},
	{"bloom", ALL}, {"deepseek-llm", ALL}, {"deepseek-coder", ALL}, {"deepseek-v3", ALL}, {"falcon", ALL}, {"default", ALL},
};
#define PRES ((int)(sizeof pres / sizeof *pres))

struct job {
	char path[128], name[32];
	int kinds;
};
static struct job jobs[64];
static int n_jobs;
static char dir[64];

static struct stave_gguf_writer *job_begin(const char *name, int kinds, const struct list *l)
{
	struct job *j = &jobs[n_jobs++];
	j->kinds = kinds;
	snprintf(j->name, sizeof j->name, "%s", name);
	snprintf(j->path, sizeof j->path, "%s/%s.gguf", dir, name);
	return begin_gguf(j->path, l->n);
}

static char play[SAMPLE + 1];

static char *sample(void)
{
	char path[256];
	struct stave_buf b = {0};
	struct stave_err err = {0};
	snprintf(path, sizeof path, "%s/data/tinyshakespeare.txt", getenv("STAVE_SHARED"));
	if (stave_file_read(&b, path, 1 << 24, &err))
		fail_msg("%s", err.msg);
	struct stave_buf out = {0};
	stave_buf_put(&out, b.p + 1000, SAMPLE);
	memcpy(play, b.p + 500000, SAMPLE);
	texts[TEXTS - 1].text = play;
	for (int again = 0; again < 3; again++)
		for (int i = 0; i < TEXTS - 1; i++)
			stave_buf_put(&out, texts[i].text, strlen(texts[i].text));
	stave_buf_free(&b);
	return out.p;
}

static void byte_level_jobs(const char *text)
{
	struct list *l = calloc(1, sizeof *l);
	struct stave_buf m = {0};
	for (int b = 0; b < 256; b++) {
		char c = (char)b;
		put_token(l, mapped(&c, 1), strlen(mapped(&c, 1)), 0, 1);
	}
	for (const char *p = text; *p; p++)
		stave_buf_put(&m, mapped(p, 1), strlen(mapped(p, 1)));
	train_blindly(l, m.p, m.len, 1000);
	int bos = put_token(l, "<|begin|>", 9, 0, 3), eos = put_token(l, "<|done|>", 8, 0, 3);
	put_token(l, "isn't it", 8, 0, 4); /* user-defined: found in any text */
	for (int i = 0; i < PRES; i++) {
		struct stave_gguf_writer *w = job_begin(pres[i].pre, pres[i].kinds, l);
		put_text_key(w, KEY "model", "gpt2");
		put_text_key(w, KEY "pre", pres[i].pre);
		put_list(w, l);
		stave_gguf_put_u32(w, KEY "bos_token_id", (uint32_t)bos);
		stave_gguf_put_u32(w, KEY "eos_token_id", (uint32_t)eos);
		end_gguf(w, l->n);
	}
	stave_buf_free(&m);
	list_free(l);
}

/* Characters of the text, with U+2581 for spaces, as tokens. */
static void put_characters(struct list *l, const char *text)
{
	put_token(l, "\xe2\x96\x81", 3, -1, 1);
	for (const char *p = text; *p;) {
		size_t k = 1;
		while ((p[k] & 0xc0) == 0x80)
			k++;
		/* a few are left unknown on purpose */
		if (*p != ' ' && token_find(l, p, k) < 0 && (unsigned char)*p < 0xe3)
			put_token(l, p, k, -(float)l->n, 1);
		p += k;
	}
}

static char *marked(const char *text)
{
	struct stave_buf b = {0};
	for (; *text; text++)
		stave_buf_put(&b, *text == ' ' ? "\xe2\x96\x81" : text, *text == ' ' ? 3 : 1);
	return b.p;
}

static void sentencepiece_jobs(const char *text)
{
	struct list *l = calloc(1, sizeof *l);
	char *m = marked(text);
	put_token(l, "<unk>", 5, 0, 2);
	put_token(l, "<s>", 3, 0, 3);
	put_token(l, "</s>", 4, 0, 3);
	for (int b = 0; b < 256; b++) {
		char name[8];
		snprintf(name, sizeof name, "<0x%02X>", b);
		put_token(l, name, 6, 0, 6);
	}
	put_characters(l, text);
	train_blindly(l, m, strlen(m), 1200);
	l->merges = 0;
	put_token(l, "isn't it", 8, 0, 4);
	for (int bare = 0; bare < 2; bare++) {
		struct stave_gguf_writer *w = job_begin(bare ? "spm-bare" : "spm", ALL, l);
		put_text_key(w, KEY "model", "llama");
		put_list(w, l);
		stave_gguf_put_bool(w, KEY "add_space_prefix", !bare);
		end_gguf(w, l->n);
	}
	free(m);
	list_free(l);
}

static void unigram_jobs(const char *text)
{
	struct list *l = calloc(1, sizeof *l);
	char *m = marked(text);
	put_token(l, "<pad>", 5, 0, 3);
	put_token(l, "</s>", 4, 0, 3);
	put_token(l, "<unk>", 5, 0, 2);
	put_characters(l, text);
	train_blindly(l, m, strlen(m), 1200);
	l->merges = 0;
	srand(3);
	for (int i = 3; i < l->n; i++) /* scores with no order that a merge could have */
		l->score[i] = -2 - (float)(rand() % 1000) / 100;
	put_token(l, "isn't it", 8, 0, 4);
	for (int trim = 0; trim < 2; trim++) {
		struct stave_gguf_writer *w = job_begin(trim ? "unigram-trim" : "unigram", ALL & ~BLANK, l);
		put_text_key(w, KEY "model", "t5");
		put_list(w, l);
		stave_gguf_put_bool(w, KEY "add_space_prefix", 1);
		stave_gguf_put_bool(w, KEY "remove_extra_whitespaces", trim);
		end_gguf(w, l->n);
	}
	free(m);
	list_free(l);
}

static void bert_job(void)
{
	static const char *const pieces[] = {"hello", "world", "it", "##s", "s", "is", "##n", "t", "don", "##t", "leading", "trail", "##ing", "for", "int", "print", "##f", "you", "ve", "she", "we",
	                                     "cafe", "uber", "\xce\xb1", "##\xce\xb2", "##\xce\xb3", "camel", "##case", "http", "##server", "xml", "##http", "##2", "##go", "abc", "##def", "ok", "quoted", "12", "##34", "##567",
	                                     "3", "14", "!", "'", ".", ",", "-", "?", "(", ")", "{", "}", ";", "=", "<", "+", "/", "\"", "\\", "%", "@", "#", "$", "~", "_", "a", "b", "c", "d", "i", "m", "n", "x", "y", "z",
	                                     "\xe4\xbd\xa0", "\xe5\xa5\xbd", "\xe4\xb8\x96", "\xef\xbc\x8c", "\xe3\x80\x82", "\xe2\x82\xac", "##5", "\xe2\x80\x9c", "\xe2\x80\x9d", "\xe2\x80\x94", "wide", "space", "control", "del", "##zero"};
	struct list *l = calloc(1, sizeof *l);
	for (int i = 0; i < 100; i++) {
		char name[16];
		snprintf(name, sizeof name, i ? "[unused%d]" : "[PAD]", i);
		put_token(l, name, strlen(name), 0, i ? 5 : 3);
	}
	put_token(l, "[UNK]", 5, 0, 2);
	put_token(l, "[CLS]", 5, 0, 3);
	put_token(l, "[SEP]", 5, 0, 3);
	put_token(l, "[MASK]", 6, 0, 3);
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		char name[64];
		int inner = !strncmp(pieces[i], "##", 2) && pieces[i][2];
		snprintf(name, sizeof name, "%s%s", inner ? "" : "\xe2\x96\x81", pieces[i] + 2 * inner);
		put_token(l, name, strlen(name), 0, 1);
	}
	struct stave_gguf_writer *w = job_begin("bert", ALL & ~MARKS, l);
	put_text_key(w, KEY "model", "bert");
	put_list(w, l);
	end_gguf(w, l->n);
	list_free(l);
}

static void gemma_job(const char *text)
{
	struct list *l = calloc(1, sizeof *l);
	char *m = marked(text);
	for (int b = 0; b < 256; b++) {
		char name[8];
		snprintf(name, sizeof name, "<0x%02X>", b);
		put_token(l, name, 6, 0, 6);
	}
	put_characters(l, text);
	for (char *p = m; *p; p++) /* no merges over line ends, as in the real one */
		if (*p == '\n')
			*p = '\x03';
	train_blindly(l, m, strlen(m), 1200);
	put_token(l, "\n\n", 2, 0, 1);
	put_token(l, "\n\n\n", 3, 0, 1);
	int bos = put_token(l, "<bos>", 5, 0, 3);
	struct stave_gguf_writer *w = job_begin("gemma4", ALL, l);
	put_text_key(w, KEY "model", "gemma4");
	put_list(w, l);
	stave_gguf_put_u32(w, KEY "bos_token_id", (uint32_t)bos);
	end_gguf(w, l->n);
	free(m);
	list_free(l);
}

/* Lines of JSON: for each model the ids of each text. */
static json_t *ask_peer(void)
{
	static const char script[] =
	    "import { readFileSync, writeFileSync } from \"node:fs\"; import { getLlama } from \"node-llama-cpp\";"
	    "const { models, texts } = JSON.parse(readFileSync(process.argv[2], \"utf8\"));"
	    "const llama = await getLlama({ gpu: false, maxThreads: 1, build: \"never\", skipDownload: true, logLevel: \"error\" });"
	    "const out = []; for (const modelPath of models) { const model = await llama.loadModel({ modelPath });"
	    "out.push(texts.map((t) => model.tokenize(t))); await model.dispose(); } writeFileSync(\"answer.json\", JSON.stringify(out)); process.exit(0);";
	char command[2048], path[128], modules[128], from[512];
	json_t *models = json_array(), *list = json_array();
	for (int i = 0; i < n_jobs; i++)
		json_array_append_new(models, json_string(jobs[i].path));
	for (int i = 0; i < TEXTS; i++)
		json_array_append_new(list, json_string(texts[i].text));
	write_json(dir, "ask.json", json_pack("{s:o, s:o}", "models", models, "texts", list));
	snprintf(path, sizeof path, "%s/ask.mjs", dir);
	snprintf(modules, sizeof modules, "%s/node_modules", dir);
	snprintf(from, sizeof from, "%s/node_modules", getenv("STAVE_LLAMACPP"));
	assert_int_equal(stave_file_write(path, script, strlen(script), NULL), 0);
	assert_int_equal(symlink(from, modules), 0);
	snprintf(command, sizeof command, "cd %s && node ask.mjs ask.json", dir);
	assert_int_equal(system(command), 0);
	json_error_t e;
	snprintf(path, sizeof path, "%s/answer.json", dir);
	json_t *answer = json_load_file(path, 0, &e);
	if (!answer)
		fail_msg("no answer from llama.cpp: %s", e.text);
	return answer;
}

static int compare(const struct job *j, const json_t *answer, uint64_t *all)
{
	struct stave_tokenizer *t;
	struct stave_encoder *e;
	struct stave_err err = {0};
	int wrong = 0;
	if (stave_tokenizer_load(&t, j->path, &err))
		fail_msg("%s: %s", j->name, err.msg);
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	for (int i = 0; i < TEXTS; i++) {
		const json_t *want = json_array_get(answer, (size_t)i);
		struct stave_ids ids = {0};
		if (!(texts[i].kind & j->kinds))
			continue;
		if (stave_encode(e, texts[i].text, strlen(texts[i].text), false, &ids, &err))
			fail_msg("%s: %s", j->name, err.msg);
		for (size_t k = 0; k < ids.n; k++)
			*all = (*all ^ (uint64_t)(ids.p[k] + 1)) * 0x100000001b3u;
		bool same = ids.n == json_array_size(want);
		for (size_t k = 0; k < ids.n && same; k++)
			same = json_integer_value(json_array_get(want, k)) == ids.p[k];
		if (!same) {
			fprintf(stderr, "%s, text %d: we", j->name, i);
			for (size_t k = 0; k < ids.n; k++)
				fprintf(stderr, " %d", ids.p[k]);
			char *theirs = json_dumps(want, JSON_COMPACT);
			fprintf(stderr, "\n   they %s\n", theirs);
			free(theirs);
			wrong++;
		}
		stave_ids_free(&ids);
	}
	stave_encoder_free(e);
	stave_tokenizer_free(t);
	return wrong;
}

static void same_ids_as_llama_cpp(void **state)
{
	char module[512];
	snprintf(module, sizeof module, "%s/node_modules/node-llama-cpp", getenv("STAVE_LLAMACPP") ? getenv("STAVE_LLAMACPP") : "");
	if (!getenv("STAVE_LLAMACPP") || !getenv("STAVE_SHARED") || !stave_is_dir(module)) {
		fprintf(stderr, "skipped: needs $STAVE_LLAMACPP with node-llama-cpp, and $STAVE_SHARED\n");
		skip();
	}
	new_dir(dir);
	char *text = sample();
	byte_level_jobs(text);
	sentencepiece_jobs(text);
	unigram_jobs(text);
	bert_job();
	gemma_job(text);
	free(text);
	json_t *answer = ask_peer();
	int wrong = 0;
	int distinct = 0;
	uint64_t all[64];
	for (int i = 0; i < n_jobs; i++) {
		all[i] = 0xcbf29ce484222325u;
		wrong += compare(&jobs[i], json_array_get(answer, (size_t)i), &all[i]);
		int k = 0;
		while (k < i && all[k] != all[i])
			k++;
		distinct += k == i;
	}
	assert_true(distinct >= 16); /* the texts and the vocabulary tell the kinds apart */
	json_decref(answer);
	assert_int_equal(stave_remove_tree(dir, NULL), 0);
	assert_int_equal(wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(same_ids_as_llama_cpp)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
