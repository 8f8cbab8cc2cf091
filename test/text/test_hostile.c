/* Hostile tokenizer files: cut anywhere, changed anywhere, and with each number out of its range. None may be accepted
 * that is wrong, and what is accepted must encode and decode without harm. */
#include "fixtures.h"

#include "base/json.h"

static char dir[64];

static int load_text(struct stave_tokenizer **t, const char *text, size_t n, struct stave_err *err)
{
	char path[128];
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	FILE *f = fopen(path, "wb"); /* without the fsync of the real writer: this runs thousands of times */
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	fclose(f);
	return stave_tokenizer_load(t, dir, err);
}

/* Whatever it is, using it must be safe. */
static void use(struct stave_tokenizer *t)
{
	static const char text[] = "hello <s> caf\xc3\xa9\xff\n\n  0001 \xe2\x96\x81x";
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	struct stave_buf out = {0};
	assert_int_equal(stave_encoder_open(&e, t, NULL), 0);
	for (int specials = 0; specials < 2; specials++)
		if (!stave_encode(e, text, sizeof text - 1, specials, &ids, NULL))
			assert_int_equal(stave_decode(t, ids.p, ids.n, true, &out, NULL), 0);
	stave_chat_encode(e, &(struct stave_message){"user", text}, 1, true, &ids, NULL);
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_encoder_free(e);
	stave_tokenizer_free(t);
}

static char *small_file(size_t *n)
{
	json_t *v = json_object(), *m = json_array();
	for (int i = 0; i < 8; i++)
		json_object_set_new(v, mapped("helo 01x" + i, 1), json_integer(i));
	MERGE(v, m, "h", "e", 8);
	MERGE(v, m, "he", "l", 9);
	MERGE(v, m, "0", "0", 10);
	json_t *pre = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Split", "pattern", "Regex", "\\p{N}{1,3}|\\p{L}+", "behavior", "Isolated", "invert", 0, byte_level(0));
	json_t *doc = document(v, m, json_pack("[o]", special_token(11, "<s>")), pre, 0);
	json_object_set_new(doc, "normalizer", json_pack("{s:s, s:[{s:s}, {s:s, s:{s:s}, s:s}]}", "type", "Sequence", "normalizers", "type", "NFC", "type", "Replace", "pattern", "String", "\xc3\xa9", "content", "e"));
	char *text = json_dumps(doc, JSON_COMPACT);
	json_decref(doc);
	*n = strlen(text);
	return text;
}

static void truncated(void **state)
{
	size_t n;
	char *text = small_file(&n);
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	for (size_t k = 0; k < n; k++) {
		assert_int_equal(load_text(&t, text, k, &err), STAVE_ECORRUPT);
		assert_true(strlen(err.msg) > 10);
	}
	assert_int_equal(load_text(&t, text, n, &err), 0);
	use(t);
	free(text);
}

static void changed(void **state)
{
	static const char with[] = {'"', '{', ']', '9', '-', 0, '\xff', 'e', ':'};
	size_t n;
	char *text = small_file(&n);
	for (size_t k = 0; k < n; k++)
		for (size_t w = 0; w < sizeof with; w++) {
			struct stave_tokenizer *t = NULL;
			char was = text[k];
			text[k] = with[w];
			if (!load_text(&t, text, n, NULL))
				use(t);
			text[k] = was;
		}
	free(text);
}

/* The small file with one change, given as a JSON path and value, must be refused with this code and these words. */
static void refuse(const char *path, const char *value, int code, const char *words)
{
	size_t n;
	char *text = small_file(&n), key[64];
	json_t *doc = json_loads(text, 0, NULL), *at = doc, *v = json_loads(value, JSON_DECODE_ANY, NULL);
	free(text);
	assert_non_null(v);
	const char *p = path;
	for (size_t len; (len = strcspn(p, "/")), p[len]; p += len + 1) {
		snprintf(key, sizeof key, "%.*s", (int)len, p);
		at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
		assert_non_null(at);
	}
	if (json_is_array(at))
		json_array_set_new(at, (size_t)atoi(p), v);
	else
		json_object_set_new(at, p, v);
	text = json_dumps(doc, 0);
	json_decref(doc);
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	int rc = load_text(&t, text, strlen(text), &err);
	free(text);
	if (rc != code || !strstr(err.msg, words))
		fail_msg("%s = %s: code %d, message \"%s\"; wanted %d and \"%s\"", path, value, rc, err.msg, code, words);
}

static void refused(void **state)
{
	refuse("model/vocab/h", "99999999999", STAVE_ECORRUPT, "id 99999999999");
	refuse("model/vocab/h", "2097152", STAVE_ECORRUPT, "outside");
	refuse("model/vocab/h", "-1", STAVE_ECORRUPT, "outside");
	refuse("model/vocab/h", "1", STAVE_ECORRUPT, "another token has too");
	refuse("model/vocab/h", "1.5", STAVE_ECORRUPT, "not an integer");
	refuse("model/vocab/h", "\"0\"", STAVE_ECORRUPT, "not an integer");
	refuse("model/vocab", "[]", STAVE_ECORRUPT, "vocab");
	refuse("model/merges", "{}", STAVE_ECORRUPT, "merges");
	refuse("model/merges/0", "\"h q\"", STAVE_ECORRUPT, "merge 0 names a token");
	refuse("model/merges/1", "\"hello\"", STAVE_ECORRUPT, "merge 1 is neither");
	refuse("model/merges/1", "\"h e l\"", STAVE_ECORRUPT, "merge 1 is neither");
	refuse("model/merges/1", "[\"h\", 3]", STAVE_ECORRUPT, "merge 1 is neither");
	refuse("model/type", "\"Unigram\"", STAVE_ECORRUPT, "array \"vocab\"");
	refuse("model/type", "\"Morse\"", STAVE_ECONFIG, "Morse");
	refuse("model/dropout", "0.1", STAVE_ECONFIG, "dropout");
	refuse("model/end_of_word_suffix", "\"</w>\"", STAVE_ECONFIG, "end_of_word_suffix");
	refuse("model/unk_token", "\"<unk>\"", STAVE_ECORRUPT, "<unk>");
	refuse("model", "3", STAVE_ECORRUPT, "model");
	refuse("added_tokens", "{}", STAVE_ECORRUPT, "added_tokens");
	refuse("added_tokens/0/id", "3", STAVE_ECORRUPT, "<s>");
	refuse("added_tokens/0/id", "-3", STAVE_ECORRUPT, "<s>");
	refuse("added_tokens/0/content", "\"\"", STAVE_ECORRUPT, "without content");
	refuse("added_tokens/0/special", "1", STAVE_ECORRUPT, "special");
	refuse("normalizer/type", "\"Precompiled\"", STAVE_ECORRUPT, "precompiled_charsmap");
	refuse("normalizer/type", "\"Nmt\"", STAVE_ECONFIG, "Nmt");
	refuse("post_processor", "{\"type\": \"Sandwich\"}", STAVE_ECONFIG, "Sandwich");
	refuse("normalizer", "7", STAVE_ECORRUPT, "normalizer");
	refuse("pre_tokenizer/type", "\"UnicodeScripts\"", STAVE_ECONFIG, "UnicodeScripts");
	refuse("pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(((\"", STAVE_ECORRUPT, "pattern");
	refuse("pre_tokenizer/pretokenizers/0/pattern/Regex", "\"[\\\\p{L}&&[^a-z]]+\"", STAVE_ECONFIG, "intersection");
	refuse("pre_tokenizer/pretokenizers/0/pattern/Regex", "\"[ab[cd]]+\"", STAVE_ECONFIG, "class");
	refuse("pre_tokenizer/pretokenizers/0/behavior", "\"Shredded\"", STAVE_ECORRUPT, "behavior");
	refuse("decoder/type", "\"WordPiece\"", STAVE_ECONFIG, "WordPiece");
}

static void nested(void **state)
{
	struct stave_buf b = {0};
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	for (int i = 0; i < 100000; i++)
		stave_buf_put(&b, "[", 1);
	assert_int_equal(load_text(&t, b.p, b.len, &err), STAVE_ECORRUPT);
	/* sequences in sequences, within what the JSON parser lets through */
	b.len = 0;
	for (int i = 0; i < 500; i++)
		stave_buf_printf(&b, "{\"type\": \"Sequence\", \"normalizers\": [");
	stave_buf_printf(&b, "{\"type\": \"NFC\"}");
	for (int i = 0; i < 500; i++)
		stave_buf_printf(&b, "]}");
	refuse("normalizer", b.p, STAVE_ECORRUPT, "deep");
	stave_buf_free(&b);
}

/* Sixteen steps that each replace one letter by 64 would make 2^96 letters of one. */
static void exploding(void **state)
{
	char step[160];
	struct stave_buf b = {0};
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	snprintf(step, sizeof step, "{\"type\": \"Replace\", \"pattern\": {\"String\": \"h\"}, \"content\": \"%064d\"}", 0);
	for (char *c = strstr(step, "0000"); *c == '0'; c++)
		*c = 'h';
	stave_buf_printf(&b, "{\"type\": \"Sequence\", \"normalizers\": [%s", step);
	for (int i = 1; i < 16; i++)
		stave_buf_printf(&b, ", %s", step);
	size_t n;
	char *text = small_file(&n);
	json_t *doc = json_loads(text, 0, NULL);
	free(text);
	struct stave_buf seventeen = {0};
	stave_buf_printf(&seventeen, "%s, %s]}", b.p, step);
	stave_buf_printf(&b, "]}");
	refuse("normalizer", seventeen.p, STAVE_ECORRUPT, "16");
	json_object_set_new(doc, "normalizer", json_loads(b.p, 0, NULL));
	text = json_dumps(doc, 0);
	json_decref(doc);
	assert_int_equal(load_text(&t, text, strlen(text), &err), 0);
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	assert_int_equal(stave_encode(e, "hh", 2, false, &ids, &err), STAVE_EFAIL);
	free(text);
	stave_buf_free(&b);
	stave_buf_free(&seventeen);
	stave_ids_free(&ids);
	stave_encoder_free(e);
	stave_tokenizer_free(t);
}

static void config_beside(void **state)
{
	size_t n;
	char *text = small_file(&n);
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	write_json(dir, "tokenizer_config.json", json_pack("{s:s}", "eos_token", "</s>"));
	assert_int_equal(load_text(&t, text, n, &err), STAVE_ECORRUPT);
	assert_non_null(strstr(err.msg, "</s>"));
	write_json(dir, "tokenizer_config.json", json_pack("[]"));
	assert_int_equal(load_text(&t, text, n, &err), STAVE_ECORRUPT);
	write_json(dir, "tokenizer_config.json", json_pack("{s:[{s:i}], s:s}", "chat_template", "name", 3, "eos_token", "<s>"));
	assert_int_equal(load_text(&t, text, n, &err), 0);
	assert_int_equal(stave_tokenizer_eos(t), 11);
	use(t);
	free(text);
	assert_int_not_equal(stave_tokenizer_load(&t, "/nonexistent/tokenizer.json", &err), 0);
}

static int open_dir(void **state)
{
	/* in memory: thousands of small files wait on a busy disk */
	strcpy(dir, "/dev/shm/stave-text-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int close_dir(void **state)
{
	return stave_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(truncated), cmocka_unit_test(changed), cmocka_unit_test(refused), cmocka_unit_test(nested),
		cmocka_unit_test(exploding), cmocka_unit_test(config_beside),
	};
	return cmocka_run_group_tests(tests, open_dir, close_dir);
}
