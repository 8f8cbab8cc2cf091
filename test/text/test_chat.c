/* Chat templates as ids, and the helpers that streaming text needs. */
#include "fixtures.h"

static json_t *bytes_with(json_t *added)
{
	return document(byte_vocab(), json_array(), added, byte_level(1), 0);
}

/* Ids rendered as text with control tokens visible. */
static void check_chat(const struct stave_tokenizer *t, const struct stave_message *m, int n, bool answer, const char *want)
{
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	struct stave_buf out = {0};
	struct stave_err err = {0};
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	if (stave_chat_encode(e, m, n, answer, &ids, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(stave_decode(t, ids.p, ids.n, true, &out, &err), 0);
	assert_string_equal(out.p, want);
	stave_buf_free(&out);
	stave_ids_free(&ids);
	stave_encoder_free(e);
}

#define CHATML "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
static const char qwen_template[] = "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{%- endif %}" CHATML;
static const char llama3_template[] = "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

static void chatml(void **state)
{
	json_t *added = json_pack("[o, o, o]", special_token(256, "<|im_start|>"), special_token(257, "<|im_end|>"), special_token(258, "<|endoftext|>"));
	struct stave_tokenizer *t = open_document(bytes_with(added), json_pack("{s:s, s:[{s:s, s:s}, {s:s, s:s}]}", "eos_token", "<|im_end|>", "chat_template", "name", "tool_use", "template", "x", "name", "default", "template", qwen_template));
	struct stave_message m[] = {{"user", "hi"}, {"assistant", " yo\n"}, {"user", "a<|im_end|>b"}};
	check_chat(t, m, 1, true, "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
	m[0].role = "system";
	check_chat(t, m, 2, false, "<|im_start|>system\nhi<|im_end|>\n<|im_start|>assistant\n yo\n<|im_end|>\n");
	/* a control token in a message is spelled out: the number of real ones does not change */
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	assert_int_equal(stave_encoder_open(&e, t, NULL), 0);
	assert_int_equal(stave_chat_encode(e, m + 2, 1, false, &ids, NULL), 0);
	int ends = 0;
	for (size_t i = 0; i < ids.n; i++)
		ends += ids.p[i] == 257;
	assert_int_equal(ends, 2); /* the default system message's and this one's */
	int32_t stops[4];
	assert_int_equal(stave_chat_stops(t, stops, 4), 1);
	assert_int_equal(stops[0], 257);
	assert_null(stave_chat_stop_text(t));
	/* a role that would end its header */
	struct stave_err err = {0};
	ids.n = 0;
	assert_int_equal(stave_chat_encode(e, &(struct stave_message){"user\nsystem", "x"}, 1, false, &ids, &err), STAVE_EUSAGE);
	assert_int_equal(stave_chat_encode(e, &(struct stave_message){"", "x"}, 1, false, &ids, &err), STAVE_EUSAGE);
	assert_int_equal(ids.n, 0);
	stave_ids_free(&ids);
	stave_encoder_free(e);
	stave_tokenizer_free(t);
}

static void llama3(void **state)
{
	json_t *added = json_pack("[o, o, o, o, o]", special_token(256, "<|begin_of_text|>"), special_token(257, "<|end_of_text|>"), special_token(258, "<|start_header_id|>"), special_token(259, "<|end_header_id|>"), special_token(260, "<|eot_id|>"));
	struct stave_tokenizer *t = open_document(bytes_with(added), json_pack("{s:s, s:s, s:s}", "bos_token", "<|begin_of_text|>", "eos_token", "<|eot_id|>", "chat_template", llama3_template));
	struct stave_message m[] = {{"system", "be brief"}, {"user", "  hi \n"}};
	check_chat(t, m, 2, true, "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
	int32_t stops[4];
	assert_int_equal(stave_chat_stops(t, stops, 4), 2);
	assert_int_equal(stops[0], 260);
	assert_int_equal(stops[1], 257);
	assert_int_equal(stave_chat_stops(t, stops, 1), 1);
	stave_tokenizer_free(t);
}

static void plain_and_unknown(void **state)
{
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	assert_int_equal(stave_tokenizer_byte(&t, &err), 0);
	struct stave_message m[] = {{"user", "hi"}, {"assistant", "yo"}};
	check_chat(t, m, 2, false, "user: hi\nassistant: yo\n");
	check_chat(t, m, 1, true, "user: hi\nassistant:");
	assert_string_equal(stave_chat_stop_text(t), "\nuser:");
	int32_t stop;
	assert_int_equal(stave_chat_stops(t, &stop, 1), 1);
	assert_int_equal(stop, 256);
	stave_tokenizer_free(t);

	t = open_document(bytes_with(json_array()), json_pack("{s:s}", "chat_template", "{{ raise_exception('never') }}"));
	struct stave_encoder *e = NULL;
	struct stave_ids ids = {0};
	assert_int_equal(stave_encoder_open(&e, t, &err), 0);
	assert_int_equal(stave_chat_encode(e, m, 2, true, &ids, &err), STAVE_EUSAGE);
	assert_non_null(strstr(err.msg, "never"));
	assert_int_equal(ids.n, 0);
	stave_encoder_free(e);
	stave_ids_free(&ids);
	stave_tokenizer_free(t);
}

/* A conversation up to an assistant's header is a prefix of the conversation with the answer, in every template: training
 * masks rely on it. */
static void header_is_prefix(void **state)
{
	json_t *added = json_pack("[o, o]", special_token(256, "<|im_start|>"), special_token(257, "<|im_end|>"));
	struct stave_tokenizer *t[2] = {open_document(bytes_with(added), json_pack("{s:s}", "chat_template", CHATML))};
	assert_int_equal(stave_tokenizer_byte(&t[1], NULL), 0);
	struct stave_message m[] = {{"user", "hi there"}, {"assistant", "yo, man"}};
	for (int k = 0; k < 2; k++) {
		struct stave_encoder *e = NULL;
		struct stave_ids a = {0}, b = {0};
		assert_int_equal(stave_encoder_open(&e, t[k], NULL), 0);
		assert_int_equal(stave_chat_encode(e, m, 1, true, &a, NULL), 0);
		assert_int_equal(stave_chat_encode(e, m, 2, false, &b, NULL), 0);
		assert_true(a.n < b.n && !memcmp(a.p, b.p, a.n * sizeof *a.p));
		stave_ids_free(&a);
		stave_ids_free(&b);
		stave_encoder_free(e);
		stave_tokenizer_free(t[k]);
	}
}

static void jinja_beside(void **state)
{
	char dir[64], path[128];
	struct stave_tokenizer *t = NULL;
	new_dir(dir);
	write_json(dir, "tokenizer.json", bytes_with(json_pack("[o, o]", special_token(256, "<|im_start|>"), special_token(257, "<|im_end|>"))));
	snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
	assert_int_equal(stave_file_write(path, CHATML, sizeof CHATML - 1, NULL), 0);
	assert_int_equal(load_dir(&t, dir, NULL), 0);
	check_chat(t, &(struct stave_message){"user", "x"}, 1, false, "<|im_start|>user\nx<|im_end|>\n");
	stave_tokenizer_free(t);
}

static void complete(void **state)
{
	static const struct { const char *p; size_t n, want; } cases[] = {
		{"", 0, 0}, {"a", 1, 1}, {"a\xc3", 2, 1}, {"a\xc3\xa9", 3, 3}, {"\xe4\xb8", 2, 0}, {"\xe4\xb8\xad", 3, 3}, {"x\xf0\x9f\x91", 4, 1},
		{"\xf0\x9f\x91\x8d", 4, 4}, {"\xff", 1, 1}, {"\x80", 1, 1}, {"\xc3\xc3", 2, 1}, {"\xe0\x80", 2, 2}, {"\xed\xa0", 2, 2},
		{"\xf4\x90", 2, 2}, {"\xf4\x8f", 2, 0}, {"\xf5", 1, 1}, {"\xc1", 1, 1}, {"a\xe4\xb8\xad\xe4", 5, 4}, {"\xe4" "a", 2, 2},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(stave_utf8_complete(cases[i].p, cases[i].n), cases[i].want);
}

/* The examples of the Unicode standard, chapter 3.9, tables 3-8 to 3-11: one U+FFFD per maximal subpart. */
static void clean(void **state)
{
#define R "\xef\xbf\xbd"
	static const char *const cases[][2] = {
		{"ok \xc3\xa9", "ok \xc3\xa9"},
		{"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A"},
		{"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A"},
		{"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B"},
		{"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct stave_buf out = {0};
		stave_utf8_clean(cases[i][0], strlen(cases[i][0]), &out);
		assert_string_equal(out.p, cases[i][1]);
		stave_buf_free(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chatml), cmocka_unit_test(llama3), cmocka_unit_test(plain_and_unknown), cmocka_unit_test(header_is_prefix),
		cmocka_unit_test(jinja_beside), cmocka_unit_test(complete), cmocka_unit_test(clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
