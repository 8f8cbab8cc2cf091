/* The hand-written matchers against PCRE2, which takes the patterns from their published text, and the ways of splitting
 * against the definitions of the tokenizers library. */
#include "fixtures.h"

#include "text/split.h"
#include "text/unicode.h"

struct oracle {
	pcre2_code *code, *unassigned;
	pcre2_match_data *data;
};

static void oracle_open(struct oracle *o, const char *pattern)
{
	int code;
	PCRE2_SIZE at;
	o->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
	/* what the two libraries' versions of Unicode disagree on: U+180E was a space once, and characters are added */
	o->unassigned = pcre2_compile((PCRE2_SPTR) "[\\p{Cn}\\x{180e}]", PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
	o->data = pcre2_match_data_create(1, NULL);
	assert_non_null(o->code);
	assert_non_null(o->unassigned);
	pcre2_jit_compile(o->code, PCRE2_JIT_COMPLETE);
}

static void oracle_close(struct oracle *o)
{
	pcre2_code_free(o->code);
	pcre2_code_free(o->unassigned);
	pcre2_match_data_free(o->data);
}

/* Characters that the patterns treat specially, in proportion to the trouble they make, and any others. */
static uint32_t random_char(void)
{
	static const char common[] = "   \t\r\n\n\n''''aeirstdlvmSTRELVMD019.,!-_\v\f";
	static const uint32_t rare[] = {0x17f, 0x212a, 0x85, 0xa0, 0x2028, 0x3000, 0xe9, 0x301, 0x4e2d, 0x661, 0xb2, 0x2167, 0x1f44d, 0x1d7d8, 0x20000, 0x10ffff, 0xe0001};
	int k = rand() % 10;
	if (k < 7)
		return (uint32_t)common[rand() % (int)(sizeof common - 1)];
	if (k < 9)
		return rare[rand() % (int)(sizeof rare / sizeof *rare)];
	uint32_t cp = (uint32_t)(((unsigned)rand() << 8 ^ (unsigned)rand()) % (rand() % 2 ? 0x110000 : 0x3000));
	return cp >= 0xd800 && cp < 0xe000 ? 'x' : cp;
}

static void compare(const struct oracle *o, text_next_fn next, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t end = next(p, i, n);
		assert_int_equal(pcre2_match(o->code, p, n, i, 0, o->data, NULL), 1);
		PCRE2_SIZE *v = pcre2_get_ovector_pointer(o->data);
		if (v[0] != i || v[1] != end) {
			for (size_t k = 0; k < n; k++)
				fprintf(stderr, "%02x ", p[k]);
			fail_msg("at %zu: the pattern says %zu..%zu, the matcher %zu", i, v[0], v[1], end);
		}
		i = end;
	}
}

static void matchers_agree(void **state)
{
	const char *const patterns[] = {gpt2_pattern, llama3_pattern, qwen2_pattern};
	const text_next_fn next[] = {text_next_gpt2, text_next_llama3, text_next_qwen2};
	text_unicode_init();
	srand(11);
	for (int k = 0; k < 3; k++) {
		struct oracle o;
		oracle_open(&o, patterns[k]);
		for (int round = 0; round < 40000; round++) {
			uint8_t text[64 * 4];
			size_t n = 0;
			for (int c = rand() % 24 + 1; c > 0; c--)
				n += text_utf8_put(text + n, random_char());
			if (pcre2_match(o.unassigned, text, n, 0, 0, o.data, NULL) < 0)
				compare(&o, next[k], text, n);
		}
		oracle_close(&o);
	}
}

/* Every character alone, before a letter, and after a space. */
static void every_character(void **state)
{
	const char *const patterns[] = {gpt2_pattern, llama3_pattern, qwen2_pattern};
	const text_next_fn next[] = {text_next_gpt2, text_next_llama3, text_next_qwen2};
	for (int k = 0; k < 3; k++) {
		struct oracle o;
		oracle_open(&o, patterns[k]);
		for (uint32_t cp = 1; cp < 0x110000; cp += cp < 0x20000 ? 1 : 0x101) {
			uint8_t text[16];
			if (cp >= 0xd800 && cp < 0xe000)
				continue;
			size_t n = text_utf8_put(text, cp);
			if (pcre2_match(o.unassigned, text, n, 0, 0, o.data, NULL) >= 0)
				continue;
			text[n++] = ' ';
			n += text_utf8_put(text + n, cp);
			text[n++] = 'a';
			compare(&o, next[k], text, n);
		}
		oracle_close(&o);
	}
}

/* Any bytes: words are never empty and never pass the end. */
static void any_bytes(void **state)
{
	const text_next_fn next[] = {text_next_gpt2, text_next_llama3, text_next_qwen2};
	srand(12);
	for (int round = 0; round < 20000; round++) {
		uint8_t *p = malloc(40); /* exactly as long as the text, so that the sanitizer sees a step too far */
		size_t n = (size_t)rand() % 40 + 1;
		p = realloc(p, n);
		for (size_t i = 0; i < n; i++)
			p[i] = rand() % 2 ? (uint8_t)rand() : (uint8_t)"\xc5\xbf' \xe2\x80\n"[rand() % 7];
		for (int k = 0; k < 3; k++)
			for (size_t i = 0, end; i < n; i = end) {
				end = next[k](p, i, n);
				assert_true(end > i && end <= n);
			}
		free(p);
	}
}

static void check_split(const char *pattern, bool literal, enum text_behavior behavior, bool invert, const char *text, const char *want)
{
	struct text_split s;
	struct text_splitter w;
	struct text_spans spans = {0};
	struct stave_buf got = {0};
	assert_int_equal(text_split_open(&s, pattern, strlen(pattern), literal, behavior, invert, "test", NULL), 0);
	assert_int_equal(s.kind, TEXT_SPLIT_REGEX);
	assert_int_equal(text_splitter_open(&w, NULL), 0);
	assert_int_equal(text_split_regex(&w, &s, (const uint8_t *)text, strlen(text), &spans, NULL), 0);
	for (size_t i = 0; i < spans.n; i++)
		stave_buf_printf(&got, "[%.*s]", (int)(spans.p[i].end - spans.p[i].begin), text + spans.p[i].begin);
	assert_string_equal(got.p ? got.p : "", want);
	stave_buf_free(&got);
	free(spans.p);
	text_splitter_close(&w);
	text_split_close(&s);
}

/* The first five are the examples of the library's own documentation: "the-final--countdown" split at "-". */
static void behaviors(void **state)
{
	const char *text = "the-final--countdown";
	check_split("-", true, TEXT_REMOVED, false, text, "[the][final][countdown]");
	check_split("-", true, TEXT_ISOLATED, false, text, "[the][-][final][-][-][countdown]");
	check_split("-", true, TEXT_MERGED_WITH_PREVIOUS, false, text, "[the-][final-][-][countdown]");
	check_split("-", true, TEXT_MERGED_WITH_NEXT, false, text, "[the][-final][-][-countdown]");
	check_split("-", true, TEXT_CONTIGUOUS, false, text, "[the][-][final][--][countdown]");
	check_split("[a-z]+", false, TEXT_REMOVED, true, text, "[the][final][countdown]");
	check_split("x*", false, TEXT_ISOLATED, false, "axxb", "[a][xx][b]"); /* empty matches cut nothing */
	check_split("\\p{L}+", false, TEXT_ISOLATED, false, "ab\xff\xfe" "cd", "[ab][\xff\xfe][cd]");
	check_split(".", true, TEXT_REMOVED, false, "a.b", "[a][b]"); /* a literal is no pattern */
}

/* A pattern that backtracks without end is cut off by the match limit. */
static void hostile_pattern(void **state)
{
	struct text_split s;
	struct text_splitter w;
	struct text_spans spans = {0};
	struct stave_err err = {0};
	char text[4000];
	memset(text, 'a', sizeof text);
	assert_int_equal(text_split_open(&s, "(a+)+(a+)+[^a]$", 15, false, TEXT_ISOLATED, false, "test", &err), 0);
	assert_int_equal(text_splitter_open(&w, &err), 0);
	assert_int_equal(text_split_regex(&w, &s, (const uint8_t *)text, sizeof text, &spans, &err), STAVE_EFAIL);
	free(spans.p);
	text_splitter_close(&w);
	text_split_close(&s);
	assert_int_equal(text_split_open(&s, "(((", 3, false, TEXT_ISOLATED, false, "test", &err), STAVE_ECORRUPT);
	assert_int_equal(text_split_open(&s, "", 0, false, TEXT_ISOLATED, false, "test", &err), STAVE_ECORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matchers_agree), cmocka_unit_test(every_character), cmocka_unit_test(any_bytes), cmocka_unit_test(behaviors), cmocka_unit_test(hostile_pattern),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
