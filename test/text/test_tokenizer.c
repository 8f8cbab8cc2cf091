/* Tokenizers against ids published for GPT-2 and cl100k (tiktoken's tests). Their vocabularies are far too large to carry,
 * so each test composes a tokenizer.json with the tokens and merges these texts need, at their real ids. */
#include "fixtures.h"

static json_t *gpt2_style(int arrays)
{
	json_t *v = byte_vocab(), *m = json_array();
	add_merge(v, m, "h", 1, "e", 1, 258, arrays);
	add_merge(v, m, "l", 1, "l", 1, 297, arrays);
	add_merge(v, m, "o", 1, "r", 1, 273, arrays);
	add_merge(v, m, " ", 1, "w", 1, 266, arrays);
	add_merge(v, m, "l", 1, "d", 1, 335, arrays);
	add_merge(v, m, "0", 1, "0", 1, 405, arrays);
	add_merge(v, m, "00", 2, "0", 1, 830, arrays);
	add_merge(v, m, " w", 2, "or", 2, 476, arrays);
	add_merge(v, m, " wor", 4, "ld", 2, 995, arrays);
	add_merge(v, m, "00", 2, "00", 2, 2388, arrays);
	add_merge(v, m, "0000", 4, "0000", 4, 8269, arrays);
	add_merge(v, m, "0000", 4, "00", 2, 10535, arrays);
	add_merge(v, m, "he", 2, "ll", 2, 12758, arrays);
	add_merge(v, m, "00", 2, "000", 3, 20483, arrays);
	add_merge(v, m, "0000", 4, "000", 3, 24598, arrays);
	add_merge(v, m, "00000000", 8, "00000000", 8, 25645, arrays);
	add_merge(v, m, "hell", 4, "o", 1, 31373, arrays);
	json_object_set_new(v, "<|endoftext|>", json_integer(50256));
	return document(v, m, json_pack("[o]", special_token(50256, "<|endoftext|>")), byte_level(1), 0);
}

static void gpt2_ids(void **state)
{
	static const int32_t zeros[] = {15, 405, 830, 2388, 20483, 10535, 24598, 8269};
	for (int arrays = 0; arrays < 2; arrays++) {
		struct stave_tokenizer *t = open_document(gpt2_style(arrays), json_pack("{s:s, s:s}", "bos_token", "<|endoftext|>", "eos_token", "<|endoftext|>"));
		IDS(t, "hello world", 31373, 995);
		IDS(t, "0000000000000000", 25645);
		for (size_t n = 1; n <= 8; n++)
			check_ids(t, "00000000", n, 0, &zeros[n - 1], 1);
		assert_int_equal(stave_tokenizer_vocab(t), 50257);
		assert_int_equal(stave_tokenizer_eos(t), 50256);
		assert_int_equal(stave_tokenizer_bos(t), 50256);
		assert_false(stave_tokenizer_add_bos(t));
		assert_true(stave_tokenizer_is_special(t, 50256));
		assert_false(stave_tokenizer_is_special(t, 31373));
		assert_int_equal(stave_tokenizer_find(t, " world", 6), 995);
		assert_int_equal(stave_tokenizer_find(t, " worlds", 7), -1);
		IDS_SPECIAL(t, "hello<|endoftext|>hello", 31373, 50256, 31373);
		/* what a user types is never a control token */
		struct stave_encoder *e = NULL;
		struct stave_ids ids = {0};
		assert_int_equal(stave_encoder_open(&e, t, NULL), 0);
		assert_int_equal(stave_encode(e, "<|endoftext|>", 13, false, &ids, NULL), 0);
		assert_int_equal(ids.n, 13);
		for (size_t i = 0; i < ids.n; i++)
			assert_int_equal(ids.p[i], "<|endoftext|>"[i] - 33);
		stave_ids_free(&ids);
		stave_encoder_free(e);
		stave_tokenizer_free(t);
	}
}

static json_t *llama3_style(const char *pattern)
{
	json_t *v = byte_vocab(), *m = json_array();
	MERGE(v, m, "r", "e", 265);
	MERGE(v, m, "'", "re", 2351);
	MERGE(v, m, "re", "r", 38149);
	MERGE(v, m, "t", "o", 998);
	MERGE(v, m, "a", "y", 352);
	MERGE(v, m, "d", "ay", 1316);
	MERGE(v, m, "to", "day", 31213);
	MERGE(v, m, "\xf0", "\x9f", 9468);
	MERGE(v, m, " ", "\xec", 30433);
	MERGE(v, m, "\n", " ", 720);
	json_object_set_new(v, mapped("\n \n", 3), json_integer(27907)); /* no merge leads here: only ignore_merges */
	json_object_set_new(v, mapped(" \xec\x8b\xa4\xed", 5), json_integer(62085));
	json_t *added = json_pack("[o, o, o, o, o]", special_token(128000, "<|begin_of_text|>"), special_token(128001, "<|end_of_text|>"),
	                          special_token(128006, "<|start_header_id|>"), special_token(128007, "<|end_header_id|>"), special_token(128009, "<|eot_id|>"));
	json_t *doc = document(v, m, added, split_then_bytes(pattern), 1);
	json_object_set_new(doc, "post_processor", json_pack("{s:s, s:[{s:s}, {s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}]}]}", "type", "Sequence", "processors", "type", "ByteLevel",
	                    "type", "TemplateProcessing", "single", "SpecialToken", "id", "<|begin_of_text|>", "type_id", 0, "Sequence", "id", "A", "type_id", 0));
	return doc;
}

static void llama3_ids(void **state)
{
	struct stave_tokenizer *t = open_document(llama3_style(llama3_pattern), json_pack("{s:{s:s}, s:s}", "bos_token", "content", "<|begin_of_text|>", "eos_token", "<|eot_id|>"));
	IDS(t, "rer", 38149);
	IDS(t, "'rer", 2351, 81);
	IDS(t, "'RER", 6, 49, 36, 49); /* the contraction splits in any case; no merges in capitals here */
	IDS(t, "today\n ", 31213, 198, 220);
	IDS(t, "today\n \n", 31213, 27907);
	IDS(t, "\xf0\x9f\x91\x8d", 9468, 239, 235);
	IDS(t, " \xec\x8b\xa4\xed", 62085);
	IDS(t, "1234", 16, 17, 18, 19);
	assert_int_equal(stave_tokenizer_vocab(t), 128010);
	assert_int_equal(stave_tokenizer_bos(t), 128000);
	assert_int_equal(stave_tokenizer_eos(t), 128009);
	assert_true(stave_tokenizer_add_bos(t));
	/* an id that no token has decodes to nothing; one outside the vocabulary is an error that leaves the buffer alone */
	struct stave_buf out = {0};
	struct stave_err err = {0};
	assert_int_equal(stave_decode(t, (int32_t[]){31213, 100000, 128009, 198}, 4, false, &out, &err), 0);
	assert_string_equal(out.p, "today\n");
	assert_int_equal(stave_decode(t, (int32_t[]){31213, 128010}, 2, false, &out, &err), STAVE_EUSAGE);
	assert_int_equal(stave_decode(t, (int32_t[]){-1}, 1, false, &out, &err), STAVE_EUSAGE);
	assert_string_equal(out.p, "today\n");
	stave_buf_free(&out);
	stave_tokenizer_free(t);
}

static void qwen2_normalizes(void **state)
{
	json_t *doc = llama3_style(qwen2_pattern);
	json_object_set_new(doc, "normalizer", json_pack("{s:s}", "type", "NFC"));
	json_object_set_new(doc, "post_processor", json_null());
	struct stave_tokenizer *t = open_document(doc, NULL);
	/* e + combining acute, then stray bytes that normalization must let pass */
	IDS(t, "e\xcc\x81", byte_order(0xc3), byte_order(0xa9));
	IDS(t, "e\xcc\x81\xff\xcc", byte_order(0xc3), byte_order(0xa9), byte_order(0xff), byte_order(0xcc));
	IDS(t, "12", 16, 17);
	assert_false(stave_tokenizer_add_bos(t));
	stave_tokenizer_free(t);
}

/* A pattern that has no hand-written matcher, with digits split first (StarCoder's order), and one that removes. */
static void other_patterns(void **state)
{
	json_t *v = byte_vocab(), *m = json_array();
	MERGE(v, m, "1", "2", 1000);
	MERGE(v, m, "a", "b", 1001);
	MERGE(v, m, "ab", ".", 1002);
	json_t *pre = json_pack("{s:s, s:[{s:s, s:b}, {s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits", "individual_digits", 1,
	                        "type", "Split", "pattern", "String", ".", "behavior", "MergedWithPrevious", "invert", 0, byte_level(1));
	struct stave_tokenizer *t = open_document(document(v, m, json_array(), pre, 0), NULL);
	IDS(t, "12ab.", 16, 17, 1001, byte_order('.')); /* GPT-2's pattern runs last and parts the full stop again */
	stave_tokenizer_free(t);

	v = byte_vocab(), m = json_array();
	MERGE(v, m, "a", "b", 1001);
	MERGE(v, m, "ab", ".", 1002);
	pre = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s}, o]}", "type", "Sequence", "pretokenizers", "type", "Split", "pattern", "String", ".",
	                "behavior", "MergedWithPrevious", "invert", 0, "type", "WhitespaceSplit", byte_level(0));
	t = open_document(document(v, m, json_array(), pre, 0), NULL);
	IDS(t, "ab. ab", 1002, 1001);
	IDS(t, "ab.. \xff ab", 1002, byte_order('.'), byte_order(0xff), 1001);
	stave_tokenizer_free(t);
}

/* SentencePiece style: a prefix space written U+2581, bytes as <0xNN> for what the vocabulary lacks. */
static void metaspace_and_bytes(void **state)
{
	json_t *v = json_object(), *m = json_array();
	char name[8];
	json_object_set_new(v, "<unk>", json_integer(0));
	json_object_set_new(v, "<s>", json_integer(1));
	json_object_set_new(v, "</s>", json_integer(2));
	for (int b = 0; b < 256; b++) {
		snprintf(name, sizeof name, "<0x%02X>", b);
		json_object_set_new(v, name, json_integer(3 + b));
	}
	const char *tokens[] = {"\xe2\x96\x81", "h", "i", "hi", "\xe2\x96\x81hi"};
	for (int i = 0; i < 5; i++)
		json_object_set_new(v, tokens[i], json_integer(259 + i));
	json_array_append_new(m, json_string("h i"));
	json_array_append_new(m, json_string("\xe2\x96\x81 hi"));
	json_t *doc = document(v, m, json_pack("[o, o, o]", special_token(0, "<unk>"), special_token(1, "<s>"), special_token(2, "</s>")), json_null(), 0);
	json_object_set_new(doc, "normalizer", json_pack("{s:s, s:[{s:s, s:s}, {s:s, s:{s:s}, s:s}]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend", "\xe2\x96\x81",
	                    "type", "Replace", "pattern", "String", " ", "content", "\xe2\x96\x81"));
	json_object_set_new(doc, "decoder", json_pack("{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}, {s:s, s:s, s:i, s:i}]}", "type", "Sequence", "decoders", "type", "Replace", "pattern", "String", "\xe2\x96\x81",
	                    "content", " ", "type", "ByteFallback", "type", "Fuse", "type", "Strip", "content", " ", "start", 1, "stop", 0));
	json_t *model = json_object_get(doc, "model");
	json_object_set_new(model, "byte_fallback", json_true());
	json_object_set_new(model, "unk_token", json_string("<unk>"));
	struct stave_tokenizer *t = open_document(doc, json_pack("{s:s, s:s, s:b}", "bos_token", "<s>", "eos_token", "</s>", "add_bos_token", 1));
	IDS(t, "hi hi", 263, 263);
	IDS(t, "hi\n\xc3\xa9\xff", 263, 3 + 10, 3 + 0xc3, 3 + 0xa9, 3 + 0xff);
	IDS(t, "</s>", 259, 3 + '<', 3 + '/', 3 + 's', 3 + '>'); /* typed, so spelled out, though it is in the vocabulary */
	struct stave_buf out = {0};
	assert_int_equal(stave_decode(t, (int32_t[]){1, 263, 263, 3 + 0xc3, 3 + 0xa9}, 5, false, &out, NULL), 0);
	assert_string_equal(out.p, "hi hi\xc3\xa9");
	assert_true(stave_tokenizer_add_bos(t));
	stave_buf_free(&out);
	stave_tokenizer_free(t);
}

static void added_tokens(void **state)
{
	json_t *v = byte_vocab(), *added = json_array();
	json_t *mask = special_token(300, "<mask>"), *whole = special_token(301, "word"), *plain = special_token(302, "<tool>"), *longer = special_token(303, "<tool>s");
	json_object_set_new(mask, "lstrip", json_true());
	json_object_set_new(mask, "rstrip", json_true());
	json_object_set_new(whole, "single_word", json_true());
	json_object_set_new(plain, "special", json_false());
	json_array_append_new(added, mask);
	json_array_append_new(added, whole);
	json_array_append_new(added, plain);
	json_array_append_new(added, longer);
	struct stave_tokenizer *t = open_document(document(v, json_array(), added, byte_level(1), 0), NULL);
	IDS_SPECIAL(t, "a  <mask>\n b", 64, 300, 65);
	IDS_SPECIAL(t, "a word!", 64, 220, 301, 0);
	IDS_SPECIAL(t, "aword", 64, byte_order('w'), byte_order('o'), byte_order('r'), byte_order('d'));
	IDS_SPECIAL(t, "<tool>s", 303); /* the longest at a place */
	IDS(t, "<tool>s", 302, byte_order('s')); /* not special, so found also in plain text */
	stave_tokenizer_free(t);
}

static void random_bytes_round_trip(void **state)
{
	struct stave_tokenizer *t[3] = {NULL};
	assert_int_equal(stave_tokenizer_byte(&t[0], NULL), 0);
	t[1] = open_document(gpt2_style(0), NULL);
	t[2] = open_document(llama3_style(llama3_pattern), NULL);
	char text[4096];
	srand(7);
	for (int round = 0; round < 300; round++) {
		size_t n = (size_t)rand() % sizeof text;
		for (size_t i = 0; i < n; i++)
			text[i] = round % 3 == 0 ? (char)rand() : round % 3 == 1 ? "0hello wrd\n'\xec\x8b\xa4"[rand() % 15] : '0';
		for (int k = 0; k < 3; k++)
			check_round_trip(t[k], text, n);
	}
	for (int k = 0; k < 3; k++)
		stave_tokenizer_free(t[k]);
}

/* A word of many symbols goes through the heap, a short one through the scan: the same merges must come out. The ids of
 * 2^k zeros are known: every 16 make 25645. */
static void long_words(void **state)
{
	enum { N = 1 << 20 };
	struct stave_tokenizer *t = open_document(gpt2_style(0), NULL);
	char *text = malloc(N);
	int32_t *want = malloc(N / 16 * sizeof *want);
	memset(text, '0', N);
	for (int i = 0; i < N / 16; i++)
		want[i] = 25645;
	check_ids(t, text, N, 0, want, N / 16);
	check_ids(t, text, 64, 0, want, 4);
	free(want);
	free(text);
	stave_tokenizer_free(t);
}

static void byte_and_char(void **state)
{
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	assert_int_equal(stave_tokenizer_byte(&t, &err), 0);
	assert_int_equal(stave_tokenizer_vocab(t), 257);
	assert_int_equal(stave_tokenizer_eos(t), 256);
	IDS(t, "A\n\xff", 65, 10, 255);
	IDS_SPECIAL(t, "A<|endoftext|>", 65, 256);
	check_round_trip(t, "a\0b", 3);
	stave_tokenizer_free(t);

	assert_int_equal(stave_tokenizer_char(&t, "b\xc3\xa9" "a\nb", 6, false, &err), 0);
	assert_int_equal(stave_tokenizer_vocab(t), 4); /* \n a b é */
	assert_int_equal(stave_tokenizer_eos(t), -1);
	IDS(t, "ab\xc3\xa9\n", 1, 2, 3, 0);
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	stave_ids_put(&ids, 42);
	assert_int_equal(stave_encode(e, "abz", 3, false, &ids, &err), STAVE_EUSAGE);
	assert_non_null(strstr(err.msg, "U+007A"));
	assert_int_equal(ids.n, 1); /* as before the call */
	stave_ids_free(&ids);
	stave_encoder_free(e);
	stave_tokenizer_free(t);

	assert_int_equal(stave_tokenizer_char(&t, "ab", 2, true, &err), 0);
	assert_int_equal(stave_tokenizer_eos(t), 2);
	IDS_SPECIAL(t, "a<|endoftext|>", 0, 2);
	stave_tokenizer_free(t);
	assert_int_equal(stave_tokenizer_char(&t, "a\xff", 2, true, &err), STAVE_ECORRUPT);
}

/* What is saved is what is loaded, to the byte. */
static void save_and_load(void **state)
{
	struct stave_tokenizer *a = open_document(llama3_style(llama3_pattern), json_pack("{s:s, s:s, s:s}", "bos_token", "<|begin_of_text|>", "eos_token", "<|eot_id|>", "chat_template", "<|start_header_id|>…")), *b = NULL, *c = NULL;
	char dir[64], path[128];
	struct stave_err err = {0};
	new_dir(dir);
	assert_int_equal(stave_tokenizer_save(a, dir, &err), 0);
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	assert_int_equal(stave_tokenizer_load(&b, path, &err), 0);
	assert_string_equal(stave_tokenizer_sha256(a), stave_tokenizer_sha256(b));
	assert_int_equal(strlen(stave_tokenizer_sha256(a)), 64);
	assert_int_equal(stave_tokenizer_eos(b), 128009);
	assert_null(stave_chat_stop_text(b));
	IDS(b, "'rer", 2351, 81);
	assert_int_equal(stave_tokenizer_char(&c, "abc", 3, true, &err), 0);
	assert_int_equal(stave_tokenizer_save(c, dir, &err), 0);
	stave_tokenizer_free(b);
	assert_int_equal(load_dir(&b, dir, &err), 0);
	assert_string_equal(stave_tokenizer_sha256(b), stave_tokenizer_sha256(c));
	IDS(b, "cab", 2, 0, 1);
	stave_tokenizer_free(b);
	/* one without configuration leaves none of another's behind */
	struct stave_tokenizer *bare = open_document(gpt2_style(0), NULL);
	new_dir(dir);
	snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
	assert_int_equal(stave_file_write(path, "x", 1, &err), 0);
	assert_int_equal(stave_tokenizer_save(a, dir, &err), 0);
	assert_int_equal(stave_tokenizer_save(bare, dir, &err), 0);
	assert_int_equal(load_dir(&b, dir, &err), 0);
	assert_int_equal(stave_tokenizer_eos(b), 50256);
	assert_non_null(stave_chat_stop_text(b)); /* no template */
	stave_tokenizer_free(bare);
	stave_tokenizer_free(a);
	stave_tokenizer_free(b);
	stave_tokenizer_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gpt2_ids), cmocka_unit_test(llama3_ids), cmocka_unit_test(qwen2_normalizes), cmocka_unit_test(other_patterns),
		cmocka_unit_test(metaspace_and_bytes), cmocka_unit_test(added_tokens), cmocka_unit_test(random_bytes_round_trip),
		cmocka_unit_test(long_words), cmocka_unit_test(byte_and_char), cmocka_unit_test(save_and_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
